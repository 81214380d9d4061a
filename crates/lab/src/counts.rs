//! `cargo xtask counts [--bless]`: instructions of hot kernels, counted by callgrind, against those of `counts.txt`.
//! Unlike times they do not depend on what else the machine does.

use std::path::Path;
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result, bail, ensure};
use binade::cli::output::verdict_line;
use binade::nn::replace_file;

/// Largest change of a count that passes.
const TOLERANCE: f64 = 0.03;

/// A kernel and its instructions.
type Count = (String, u64);

#[derive(clap::Args)]
pub struct Args {
    /// Write the counts to the file instead
    #[arg(long)]
    bless: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if !cfg!(target_arch = "x86_64") {
        verdict_line("skipped: the counts are those of the AVX2 kernels")?;
        return Ok(ExitCode::SUCCESS);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        verdict_line("skipped: counting instructions needs valgrind, which is not installed")?;
        return Ok(ExitCode::SUCCESS);
    }
    let counts = count()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.txt");
    let compiler = compiler()?;
    if args.bless {
        let text = format(&counts, &compiler);
        replace_file(&file, |file| file.write_all(text.as_bytes())).with_context(|| file.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let known = parse(&text).with_context(|| format!("{}: lines are a count and a name", file.display()))?;
    let (report, good) = compare(&known, &counts);
    verdict_line(report.trim_end())?;
    if good {
        return Ok(ExitCode::SUCCESS);
    }
    let other = if text.contains(&compiler) {
        String::new()
    } else {
        format!("; counted with {compiler}, not the compiler of the file")
    };
    bail!(
        "instruction counts changed by more than {} %{other}. If so intended: cargo xtask counts --bless",
        100.0 * TOLERANCE
    );
}

/// Where callgrind collects: in the backend alone, whose crate every profile builds alike.
const COLLECTED: [&str; 2] = [
    "--toggle-collect=<binade_cpu::backend::Cpu as binade_tensor::backend::Backend>::run",
    "--toggle-collect=<binade_cpu::backend::Cpu as binade_tensor::backend::Backend>::update",
];

/// Runs each kernel under callgrind.
fn count() -> Result<Vec<Count>> {
    let program = std::env::current_exe()?;
    let names = output(Command::new(&program).arg("counted"))?.stdout;
    let names = String::from_utf8_lossy(&names).into_owned();
    names
        .lines()
        .map(|name| {
            let mut command = Command::new("valgrind");
            command
                .args(["--tool=callgrind", "--collect-atstart=no", "--callgrind-out-file=/dev/null"])
                .args(COLLECTED)
                .arg("--zero-before=binade_lab::counted::counted*")
                .args([program.as_os_str(), "counted".as_ref(), name.as_ref()])
                // Valgrind knows no AVX-512.
                .env("BINADE_ISA", "avx2");
            let printed = output(&mut command)?.stderr;
            let printed = String::from_utf8_lossy(&printed);
            let n = printed.lines().find_map(|l| l.split_once("Collected :")?.1.trim().parse().ok()).filter(|n| *n > 0);
            Ok((name.to_string(), n.with_context(|| format!("{name}: callgrind counted nothing: {printed}"))?))
        })
        .collect()
}

fn output(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| format!("cannot start {name}"))?;
    ensure!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(out)
}

fn compiler() -> Result<String> {
    Ok(String::from_utf8_lossy(&output(Command::new("rustc").arg("--version"))?.stdout).trim().to_string())
}

fn format(counts: &[Count], compiler: &str) -> String {
    let head = format!(
        "# Instructions of each kernel of crates/lab/src/counted.rs, BINADE_ISA=avx2, one thread; {compiler}.\n\
         # Written by cargo xtask counts --bless.\n"
    );
    counts.iter().fold(head, |text, (name, n)| text + &format!("{n} {name}\n"))
}

fn parse(text: &str) -> Option<Vec<Count>> {
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines.map(|line| line.split_once(' ').and_then(|(n, name)| Some((name.to_string(), n.parse().ok()?)))).collect()
}

/// A line for each kernel, and whether all are near the known counts.
fn compare(known: &[Count], found: &[Count]) -> (String, bool) {
    let (mut report, mut good) = (String::new(), true);
    for (name, n) in found {
        let verdict = match known.iter().find(|(k, _)| k == name) {
            Some((_, before)) => {
                let change = *n as f64 / *before as f64 - 1.0;
                let near = change.abs() <= TOLERANCE;
                good &= near;
                format!("{:+.2} %{}", 100.0 * change, if near { "" } else { "  CHANGED" })
            }
            None => {
                good = false;
                "NEW".into()
            }
        };
        report += &format!("{name:<28} {n:>12}  {verdict}\n");
    }
    for (name, _) in known.iter().filter(|(k, _)| found.iter().all(|(name, _)| name != k)) {
        good = false;
        report += &format!("{name:<28} {:>12}  GONE\n", "");
    }
    (report, good)
}

#[cfg(test)]
mod tests {
    use super::{compare, format, parse};

    fn counts(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(name, n)| (name.to_string(), *n)).collect()
    }

    #[test]
    fn a_blessed_file_reads_back() {
        let all = counts(&[("matmul bf16, 2 rows", 12), ("softmax f32", 7)]);
        assert_eq!(parse(&format(&all, "rustc 1.95.0")), Some(all));
        assert_eq!(parse("many matmul\n"), None);
    }

    #[test]
    fn changes_beyond_the_tolerance_and_missing_kernels_fail() {
        let known = counts(&[("a", 1000), ("b", 1000)]);
        assert!(compare(&known, &counts(&[("a", 1029), ("b", 971)])).1);
        for found in [
            &[("a", 1031), ("b", 1000)][..],
            &[("a", 1000), ("b", 969)],
            &[("a", 1000)],
            &[("a", 1000), ("b", 1000), ("c", 1)],
        ] {
            assert!(!compare(&known, &counts(found)).1, "{found:?}");
        }
    }
}
