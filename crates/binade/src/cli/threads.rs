//! The threads of a command.

use std::num::NonZero;

use anyhow::{Context, Result};

use super::output;

/// As many as are asked for, but not more than run at once: those would wait for each other in every operator. The
/// results are the same.
pub fn at_most_cores(asked: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    if asked > cores {
        output::note(format_args!("{asked} threads asked for, but this machine runs {cores} at a time: using {cores}"));
    }
    asked.min(cores)
}

/// Starts the threads that all operators run on: so many, or those of the environment variable `RAYON_NUM_THREADS`, or
/// one per core. This thread is one of them, so that a small operator's work is not handed over and waited for.
pub fn start(asked: Option<usize>) -> Result<()> {
    let environment = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|n| *n > 0);
    // 0 is one per core.
    let threads = asked.or_else(environment).map_or(0, at_most_cores);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
    pool.build_global().context("starting the threads (--threads 1 needs no more than there is)")
}
