//! Memory of training steps, measured the same way on both sides: each in a process of its own, because the system's
//! high-water mark belongs to the process.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use binade::train::Precision;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Args;
use super::peer::{SCRIPT, Setting};
use super::timing::round;

/// What a training step takes, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Kept between forward and backward, parameters not counted.
    pub saved_mib: f64,
    /// High-water mark of resident memory above the one when model, optimiser and batch were built.
    pub peak_mib: f64,
}

/// Enough steps for the optimiser's state to exist beside a full backward pass.
const STEPS: [&str; 4] = ["--secs", "0.05", "--min-iters", "3"];

/// This side's memory.
pub fn here(args: &Args, group: &str, precision: Precision) -> Result<Memory> {
    let mut command = Command::new(std::env::current_exe().context("this program's path")?);
    command.args(["bench", group, "--json", "--precision", precision.name()]);
    if args.low_residual {
        command.arg("--low-residual");
    }
    measure(command, args)
}

/// PyTorch's memory in a memory format, with its default allocator, which gives large buffers back at once.
pub fn peer(args: &Args, python: &Path, group: &str, precision: Precision, setting: Setting) -> Result<Memory> {
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, group, precision.name(), "--saved"]);
    if setting.channels_last {
        command.arg("--channels-last");
    }
    measure(command, args)
}

/// Runs the command, whose last line is JSON with `saved_mib`, `base_rss_mib` and `peak_rss_mib`.
fn measure(mut command: Command, args: &Args) -> Result<Memory> {
    command.args(STEPS).args(["--threads", &args.threads.to_string()]);
    if let Some(n) = args.n {
        command.args(["--n", &n.to_string()]);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| format!("cannot start {program}"))?;
    ensure!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr).trim());
    let printed = String::from_utf8_lossy(&out.stdout);
    let line: Value = serde_json::from_str(printed.trim().lines().last().unwrap_or_default())
        .with_context(|| format!("{program} printed {printed}"))?;
    let field = |name: &str| line[name].as_f64().with_context(|| format!("{program}: no {name} in {line}"));
    let peak = field("peak_rss_mib")? - field("base_rss_mib")?;
    Ok(Memory { saved_mib: field("saved_mib")?, peak_mib: round(peak) })
}

/// Most memory this process ever had resident, in MiB to one digit, where the system tells.
pub fn peak_rss_mib() -> Option<f64> {
    status("VmHWM:")
}

/// What it has resident now.
pub fn rss_mib() -> Option<f64> {
    status("VmRSS:")
}

fn status(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(key))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}
