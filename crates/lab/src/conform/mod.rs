//! `cargo xtask conform`: recorded cases of operators, forward and backward, against the recorded results and float64.

mod case;
mod inputs;
mod ops;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use case::{Case, Outcome};

use binade::cli::device::On;
use binade::cli::output::verdict_line;
use binade::cli::threads;

#[derive(clap::Args)]
pub struct Args {
    /// Folder of `*.safetensors` cases
    folder: PathBuf,
    /// Only cases whose file names have this in them
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    #[command(flatten)]
    on: On,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    args.on.run(|| conform(args))
}

fn conform(args: &Args) -> Result<ExitCode> {
    let folder = &args.folder;
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    if let Some(only) = &args.only {
        paths.retain(|p| p.file_stem().is_some_and(|name| name.to_string_lossy().contains(only.as_str())));
    }
    paths.sort();
    if paths.is_empty() {
        bail!("{}: no *.safetensors cases", folder.display());
    }
    let (mut passed, mut failed) = (0, 0);
    let mut absent = BTreeMap::<String, usize>::new();
    for path in &paths {
        let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match Case::read(path).and_then(|case| case.run()) {
            Ok(Outcome::Passed) => passed += 1,
            Ok(Outcome::Absent(op)) => *absent.entry(op).or_default() += 1,
            Ok(Outcome::Failed(lines)) => {
                failed += 1;
                lines.iter().try_for_each(|line| verdict_line(format_args!("FAIL {name}: {line}")))?;
            }
            Err(error) => {
                failed += 1;
                verdict_line(format_args!("FAIL {name}: {error:#}"))?;
            }
        }
    }
    let missing: usize = absent.values().sum();
    if missing > 0 {
        let names: Vec<String> = absent.iter().map(|(op, n)| format!("{op} ({n})")).collect();
        verdict_line(format_args!("absent: {}", names.join(", ")))?;
    }
    verdict_line(format_args!("{passed} passed, {failed} failed, {missing} absent"))?;
    if passed + failed == 0 {
        bail!("nothing was compared: no operator of these cases is known here");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
