//! `cargo xtask fuzz-files`: damaged files of every kind that is read, each of which is to be read or refused: no
//! panic, no hang, no more memory than a file of its size can need, and nothing written elsewhere.

mod forms;
mod loaders;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use binade::cli::flags::{above_zero, whole};
use binade::cli::output::{note, verdict_line};

pub use forms::Draw;
use loaders::Loader;

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
    /// Kinds of files, with commas [default: all]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<String>,
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

/// What became of the files of a kind.
#[derive(Clone, Copy, Default)]
struct Counts {
    files: u64,
    read: u64,
    faults: u64,
}

fn go(args: &Args, folder: &Path) -> Result<ExitCode> {
    let mut loaders = loaders::all(folder)?;
    if let Some(unknown) = args.kind.iter().find(|kind| loaders.iter().all(|loader| loader.name != **kind)) {
        let names: Vec<&str> = loaders.iter().map(|loader| loader.name).collect();
        bail!("--kind {unknown}: there are {}", names.join(", "));
    }
    loaders.retain(|loader| args.kind.is_empty() || args.kind.iter().any(|kind| kind == loader.name));
    let mut counts = vec![Counts::default(); loaders.len()];
    let (start, limit) = (Instant::now(), Duration::try_from_secs_f64(args.seconds)?);
    let before = anonymous();
    let kinds = if args.kind.is_empty() { String::new() } else { format!(" --kind {}", args.kind.join(",")) };
    let again = format!("cargo xtask fuzz-files --seed {}{kinds} --case", args.seed);
    let begun = watch(again.clone(), start);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for number in args.case.unwrap_or(0).. {
        begun.0.store(number, Relaxed);
        begun.1.store(start.elapsed().as_millis() as u64, Relaxed);
        let kind = (number % loaders.len() as u64) as usize;
        let (loader, counts) = (&loaders[kind], &mut counts[kind]);
        let at = folder.join("files");
        let name = prepare(loader, &at, &mut Draw::new(args.seed, number))?;
        counts.files += 1;
        match catch_unwind(AssertUnwindSafe(|| (loader.read)(&at, &name))) {
            Ok(was_read) => counts.read += u64::from(was_read),
            Err(panic) => {
                counts.faults += 1;
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| t.to_string())).unwrap_or_default();
                verdict_line(format_args!("{}, {name}: panic: {text}\n  again: {again} {number}", loader.name))?;
            }
        }
        let taken = anonymous().saturating_sub(before);
        if taken > MEMORY {
            counts.faults += 1;
            verdict_line(format_args!("{}, {name}: {} MiB of memory", loader.name, taken >> 20))?;
            verdict_line(format_args!("  again: {again} {number}"))?;
            break;
        }
        if let Some(number) = args.case {
            verdict_line(format_args!("file {number}: {}", at.join(&name).display()))?;
        }
        if args.case.is_some() || start.elapsed() >= limit {
            break;
        }
    }
    std::panic::set_hook(hook);
    let mut all = Counts::default();
    for (loader, Counts { files, read, faults }) in loaders.iter().zip(&counts) {
        let refused = files - read - faults;
        verdict_line(format_args!(
            "{:<10} {files} damaged files, {read} read, {refused} refused, {faults} faults",
            loader.name
        ))?;
        (all.files, all.read, all.faults) = (all.files + files, all.read + read, all.faults + faults);
    }
    let Counts { files, read, faults } = all;
    let refused = files - read - faults.min(files - read);
    verdict_line(format_args!("{files} damaged files, {read} read, {refused} refused, {faults} faults"))?;
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Puts the files of a kind into a folder of their own, one of them damaged: its name.
fn prepare(loader: &Loader, at: &Path, draw: &mut Draw) -> Result<String> {
    if at.exists() {
        std::fs::remove_dir_all(at).with_context(|| at.display().to_string())?;
    }
    std::fs::create_dir_all(at).with_context(|| at.display().to_string())?;
    let write = |name: &str, bytes: &[u8]| {
        let path = at.join(name);
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())
    };
    loader.whole.iter().try_for_each(|(name, bytes)| write(name, bytes))?;
    // Half of the files that have a checksum are damaged behind its back.
    if let Some(sealed) = loader.sealed.filter(|_| draw.below(2) == 0) {
        let name = &loader.whole[0].0;
        sealed(&at.join(name), draw)?;
        return Ok(name.clone());
    }
    let (which, bytes) = forms::damaged(&loader.whole, draw);
    let name = &loader.whole[which].0;
    write(name, &bytes)?;
    Ok(name.clone())
}

/// The most bytes that this process ever had in memory of its own; 0 where the system does not tell.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Ends the program when a file hangs: its number, and the milliseconds at which it began.
fn watch(again: String, start: Instant) -> std::sync::Arc<(AtomicU64, AtomicU64)> {
    let now = std::sync::Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let seen = now.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let since = start.elapsed().saturating_sub(Duration::from_millis(seen.1.load(Relaxed)));
            if since > PATIENCE {
                let number = seen.0.load(Relaxed);
                note(format_args!("file {number} hangs: {again} {number}"));
                std::process::exit(1);
            }
        }
    });
    now
}
