//! Where the time of training steps goes: [`Recording`], and [`Profile`] to ask for one.

mod limits;
mod own;
mod tables;
mod trace;

use std::path::PathBuf;

use binade_autograd::scope;
use binade_nn::replace_file;
use binade_tensor::profile::{Running, Span, What, span, start_by, stop};

use crate::{Error, Result};

pub use limits::Limits;
pub use tables::{Spent, Times};
pub use trace::trace;

/// Which steps of each precision are recorded, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// A file of trace events, which Perfetto and Chrome show.
    pub trace: PathBuf,
    /// Steps before the first that is recorded.
    pub skip: u64,
    /// Steps that are recorded, with all that is done between them.
    pub steps: u64,
}

/// Steps that are unlike all that follow: their memory is new, and nothing lies in the caches.
pub(crate) const UNLIKE_THE_REST: u64 = 5;

impl Profile {
    /// 20 steps after the first five.
    pub fn to(trace: impl Into<PathBuf>) -> Profile {
        Profile { trace: trace.into(), skip: UNLIKE_THE_REST, steps: 20 }
    }
}

/// What ran in some steps.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What it is called: a precision.
    pub name: String,
    /// All that was seen.
    pub spans: Vec<Span>,
}

impl Recording {
    /// Records all that runs in `run`, on all threads. There is one recording at a time.
    pub fn of<T>(name: &str, run: impl FnOnce() -> T) -> (T, Recording) {
        let mut recorder = Recorder::default();
        recorder.begin();
        let out = run();
        (out, recorder.end(name).unwrap_or(Recording { name: name.into(), spans: Vec::new() }))
    }

    /// Begins a step of a loop of one's own, which ends where what this gives is dropped.
    pub fn step(number: u64) -> Running {
        span(|| What::Step(number))
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.spans.iter().filter(|span| matches!(span.what, What::Step(_))).count()
    }
}

/// Records some of the steps of a loop.
#[derive(Default)]
pub(crate) struct Recorder {
    skip: u64,
    steps: u64,
    /// Steps of this process that were tried.
    tried: u64,
    on: bool,
}

impl Recorder {
    /// So many steps after so many; none of no steps.
    pub(crate) fn new(skip: u64, steps: u64) -> Recorder {
        Recorder { skip, steps, ..Recorder::default() }
    }

    pub(crate) fn begin(&mut self) {
        start_by(scope::path);
        self.on = true;
    }

    /// Before a step and the data that it waits for.
    pub(crate) fn before_step(&mut self) {
        if self.steps > 0 && self.tried == self.skip && !self.on {
            self.begin();
        }
    }

    /// After a step and all that follows it: whether it was the last to be recorded.
    pub(crate) fn after_step(&mut self) -> bool {
        self.tried += 1;
        self.on && self.tried == self.skip + self.steps
    }

    /// Ends a recording, if there is one.
    pub(crate) fn end(&mut self, name: &str) -> Option<Recording> {
        std::mem::take(&mut self.on).then(|| Recording { name: name.into(), spans: stop() })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // However the loop ends.
        self.end("");
    }
}

/// Writes recordings as trace events.
///
/// # Errors
/// The file cannot be written.
pub fn write_trace(path: &std::path::Path, recordings: &[Recording]) -> Result<()> {
    let text = trace(recordings);
    replace_file(path, |file| file.write_all(text.as_bytes())).map_err(Error::io(path))
}
