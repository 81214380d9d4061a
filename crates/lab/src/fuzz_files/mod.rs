//! `cargo xtask fuzz-files`: damaged files of weights, each of which is to be read or refused: no panic, no hang, and
//! no more memory than a file of its size can need.

mod forms;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use binade::cli::flags::{above_zero, whole};
use binade::cli::output::{note, verdict_line};
use binade::nn::{Linear, TensorFile};
use binade::tensor::DType;
use binade::weights::{LoadOptions, Sources, Weights, load};

pub use forms::Draw;

/// A file that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most bytes that reading small files may take at any time.
const MEMORY: u64 = 512 << 20;

#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask fuzz-files --seconds 10")]
pub struct Args {
    /// How long to go on
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS", value_parser = above_zero, allow_hyphen_values = true)]
    seconds: f64,
    /// Which files: the same seed gives the same ones
    #[arg(long, default_value_t = 0, value_parser = whole, allow_negative_numbers = true)]
    seed: u64,
    /// Read this file of the seed alone, and keep it under the name that is printed
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    case: Option<u64>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let folder = std::env::temp_dir().join(format!("binade-fuzz-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let result = go(args, &folder);
    if args.case.is_none() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    result
}

fn go(args: &Args, folder: &Path) -> Result<ExitCode> {
    let whole = forms::all();
    let (start, limit) = (Instant::now(), Duration::try_from_secs_f64(args.seconds)?);
    let before = anonymous();
    let begun = watch(args.seed, start);
    let (mut files, mut read, mut faults) = (0u64, 0u64, 0u64);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for number in args.case.unwrap_or(0).. {
        begun.0.store(number, Relaxed);
        begun.1.store(start.elapsed().as_millis() as u64, Relaxed);
        let mut draw = Draw::new(args.seed, number);
        let bytes = forms::damaged(&whole, &mut draw);
        let path = folder.join("w");
        std::fs::write(&path, &bytes).with_context(|| path.display().to_string())?;
        match catch_unwind(AssertUnwindSafe(|| open(&path))) {
            Ok(was_read) => read += was_read as u64,
            Err(panic) => {
                faults += 1;
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| t.to_string())).unwrap_or_default();
                verdict_line(format_args!("panic: {text}"))?;
                verdict_line(format_args!("  again: cargo xtask fuzz-files --seed {} --case {number}", args.seed))?;
            }
        }
        let taken = anonymous().saturating_sub(before);
        if taken > MEMORY {
            faults += 1;
            verdict_line(format_args!("file {number}: {} MiB of memory", taken >> 20))?;
            break;
        }
        files += 1;
        if let Some(number) = args.case {
            verdict_line(format_args!("file {number}: {}", path.display()))?;
        }
        if args.case.is_some() || start.elapsed() >= limit {
            break;
        }
    }
    std::panic::set_hook(hook);
    let refused = files - read;
    verdict_line(format_args!("{files} damaged files, {read} read, {refused} refused, {faults} faults"))?;
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a file is read, by everything that reads one.
fn open(path: &Path) -> bool {
    if let Ok(file) = TensorFile::open(path) {
        let _arrays = file.arrays(file.names(), binade::tensor::Class::Workspace);
    }
    let Ok(weights) = Weights::open(path) else { return false };
    for name in weights.names() {
        // Refused where they repeat what is not there.
        let _range = weights.range(&name, &[DType::F16, DType::BF16]);
    }
    if let Ok(layer) = Linear::new(3, 2) {
        let options = LoadOptions { strict: false, allow_overflow: true, allow_nan: true };
        let _report = load(&layer, &weights, &Sources::default(), &options);
    }
    true
}

/// The most bytes that this process ever had in memory of its own; 0 where the system does not tell.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Ends the program when a file hangs: its number, and the milliseconds at which it began.
fn watch(seed: u64, start: Instant) -> std::sync::Arc<(AtomicU64, AtomicU64)> {
    let now = std::sync::Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let seen = now.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let since = start.elapsed().saturating_sub(Duration::from_millis(seen.1.load(Relaxed)));
            if since > PATIENCE {
                let number = seen.0.load(Relaxed);
                note(format_args!("file {number} hangs: cargo xtask fuzz-files --seed {seed} --case {number}"));
                std::process::exit(1);
            }
        }
    });
    now
}
