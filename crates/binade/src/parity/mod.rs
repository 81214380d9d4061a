//! `binade parity`: a folder of another library with what it computed, computed again and compared.

mod model;
mod pipeline;
mod schedules;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use binade::cli::flags::positive;
use binade::cli::output::verdict_line;
use binade::cli::threads;
use binade::models::parity::Region;

use verdict::Verdict;

#[derive(clap::Args)]
#[command(after_help = "Example: binade parity cases --precision fp32")]
pub struct Args {
    /// Folder with config.json, weights and case.safetensors, or a folder of such folders and of recorded schedules
    folder: PathBuf,
    /// Precision
    #[arg(long, value_enum, default_value = "all")]
    precision: Precisions,
    /// Compute the inner values of every block again for backward
    #[arg(long)]
    recompute: bool,
    /// Layers and tensors to print of each case: those with the largest errors
    #[arg(long, value_name = "N", default_value_t = 5)]
    worst: usize,
    /// Threads, at most one per core [default: one per core]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    threads: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Precisions {
    Fp32,
    Fp16,
    Bf16,
    All,
}

impl Precisions {
    fn regions(self) -> &'static [Region] {
        match self {
            Precisions::Fp32 => &[Region::F32],
            Precisions::Fp16 => &[Region::F16],
            Precisions::Bf16 => &[Region::BF16],
            Precisions::All => &Region::ALL,
        }
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(args.threads)?;
    let folders = cases(&args.folder)?;
    let (mut passed, mut failed) = (0, 0);
    for folder in &folders {
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        let verdict = if folder.is_file() {
            schedules::run(folder)
        } else if folder.join("model_index.json").exists() {
            pipeline::run(folder)
        } else {
            model::run(folder, args.precision.regions(), args.recompute)
        };
        let verdict = match verdict {
            Ok(verdict) => verdict,
            // One case that cannot be run does not hide the others.
            Err(error) => Verdict { passed: false, lines: vec![format!("  {error:#}")], ..Verdict::default() },
        };
        verdict_line(format_args!("{name}: {}", if verdict.passed { "passed" } else { "FAILED" }))?;
        verdict.show(args.worst)?;
        if verdict.passed { passed += 1 } else { failed += 1 }
    }
    verdict_line(format_args!("{passed} passed, {failed} failed"))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The folder itself if it is a case, else those in it that are.
fn cases(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_case = |folder: &Path| folder.join("case.safetensors").exists();
    if is_case(folder) {
        return Ok(vec![folder.to_path_buf()]);
    }
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if is_case(&path) {
            found.push(path);
        } else if path.is_dir() {
            let files = std::fs::read_dir(&path)?.map(|file| Ok(file?.path())).collect::<Result<Vec<PathBuf>>>()?;
            found.extend(files.into_iter().filter(|file| schedules::is_schedule(file)));
        } else if schedules::is_schedule(&path) {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        bail!("{}: no case.safetensors, and no folder in it with one", folder.display());
    }
    Ok(found)
}
