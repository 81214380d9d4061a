//! `cargo xtask counts [--bless]`: instructions of hot kernels, counted by callgrind, against those of `counts.txt`.
//! Unlike times they do not depend on what else the machine does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::output::line;

/// Largest change of a count that passes.
const TOLERANCE: f64 = 0.03;

/// A kernel and its instructions.
type Count = (String, u64);

pub fn run(cargo: &Path, args: &[OsString]) -> Result<(), String> {
    let bless = match args {
        [] => false,
        [flag] if flag == "--bless" => true,
        _ => {
            let args: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
            return Err(format!("unknown arguments {}; usage: cargo xtask counts [--bless]", args.join(" ")));
        }
    };
    if !cfg!(target_arch = "x86_64") {
        return line("skipped: the counts are those of the AVX2 kernels");
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return line("skipped: counting instructions needs valgrind, which is not installed");
    }
    let program = build(cargo)?;
    let counts = count(&program)?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.txt");
    let compiler = compiler()?;
    if bless {
        return std::fs::write(&file, format(&counts, &compiler)).map_err(|e| format!("{}: {e}", file.display()));
    }
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let known = parse(&text).ok_or_else(|| format!("{}: lines are a count and a name", file.display()))?;
    let (report, good) = compare(&known, &counts);
    line(report.trim_end())?;
    if good {
        return Ok(());
    }
    let other = if text.contains(&compiler) {
        String::new()
    } else {
        format!("; counted with {compiler}, not the compiler of the file")
    };
    Err(format!(
        "instruction counts changed by more than {} %{other}. If so intended: cargo xtask counts --bless",
        100.0 * TOLERANCE
    ))
}

/// Builds the example that runs the kernels, and gives its path.
fn build(cargo: &Path) -> Result<PathBuf, String> {
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release", "--package", "binade", "--features", "cli", "--example", "counted"]);
    let out = output(command.args(["--message-format", "json"]))?;
    let messages = String::from_utf8_lossy(&out.stdout).into_owned();
    let path = messages.lines().filter(|l| l.contains("\"name\":\"counted\"")).find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(rest.split_once('"')?.0.to_string())
    });
    path.map(PathBuf::from).ok_or_else(|| "cargo named no executable for the example `counted`".into())
}

/// Runs each kernel under callgrind.
fn count(program: &Path) -> Result<Vec<Count>, String> {
    let names = output(&mut Command::new(program))?.stdout;
    let names = String::from_utf8_lossy(&names).into_owned();
    names
        .lines()
        .map(|name| {
            let mut command = Command::new("valgrind");
            command
                .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=counted::counted*"])
                .arg("--callgrind-out-file=/dev/null")
                .args([program.as_os_str(), name.as_ref()])
                // Valgrind knows no AVX-512.
                .env("BINADE_ISA", "avx2");
            let printed = output(&mut command)?.stderr;
            let printed = String::from_utf8_lossy(&printed);
            let n = printed.lines().find_map(|l| l.split_once("Collected :")?.1.trim().parse().ok()).filter(|n| *n > 0);
            Ok((name.to_string(), n.ok_or_else(|| format!("{name}: callgrind counted nothing: {printed}"))?))
        })
        .collect()
}

fn output(command: &mut Command) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|e| format!("cannot start {name}: {e}"))?;
    if out.status.success() { Ok(out) } else { Err(format!("{name}: {}", String::from_utf8_lossy(&out.stderr))) }
}

fn compiler() -> Result<String, String> {
    Ok(String::from_utf8_lossy(&output(Command::new("rustc").arg("--version"))?.stdout).trim().to_string())
}

fn format(counts: &[Count], compiler: &str) -> String {
    let head = format!(
        "# Instructions of each kernel of crates/binade/examples/counted.rs, BINADE_ISA=avx2, one thread; {compiler}.\n# Written by cargo xtask counts --bless.\n"
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
