//! `cargo xtask gpu-pack DIR`: a folder for a machine that has a GPU for some minutes, and neither Rust nor a network.
//!
//! It has the stripped program, digests of what the interpreter computes, and a script that tries everything, within a
//! time of its own for each step, and writes one archive.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::output;

const USAGE: &str = "usage: cargo xtask gpu-pack DIR [--capability N] [--samples N] [--only TEXT]\n\
     digests are of the GPU's compute capability [default: 90];\n\
     N samples of each operator and dtype at most, of those operators whose names have TEXT in them";

/// Bytes that all files together may have.
const MOST: u64 = 40 << 20;
/// The newest version of the C library that the program may need.
const GLIBC: [u32; 2] = [2, 36];
/// What is run on the machine.
const SCRIPT: &str = include_str!("gpu_pack/run.sh");

struct Options {
    folder: PathBuf,
    /// Of the GPU, whose tensor cores digests are made by.
    capability: OsString,
    /// Flags of `binade doctor`, there as here.
    samples: Vec<OsString>,
}

fn options(args: &[OsString]) -> Result<Options, String> {
    let (mut folder, mut capability, mut samples) = (None, OsString::from("90"), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--samples" | "--only") => samples.extend([arg.clone(), args.next().ok_or(USAGE)?.clone()]),
            Some("--capability") => capability.clone_from(args.next().ok_or(USAGE)?),
            Some(name) if name.starts_with('-') => return Err(USAGE.into()),
            _ if folder.is_none() => folder = Some(PathBuf::from(arg)),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(Options { folder: folder.ok_or(USAGE)?, capability, samples })
}

pub fn run(cargo: &Path, args: &[OsString]) -> Result<(), String> {
    let Options { folder, capability, samples } = options(args)?;
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| format!("{path}: {e}")
    };
    std::fs::create_dir_all(&folder).map_err(at(&folder))?;
    let program = build(cargo)?;
    let packed = folder.join("binade");
    // By the tool, not by a profile: what is built already has the same settings. Linkers come with it.
    done(Command::new("strip").arg("-o").arg(&packed).arg(&program))?;
    needs(&std::fs::read(&packed).map_err(at(&packed))?)?;
    output::line("digests of the interpreter …")?;
    let digests = folder.join("digests.txt");
    let mut doctor = Command::new(&packed);
    // Of no training: a flag that comes later has the last word.
    doctor.args(["doctor", "--device", "cuda-interpreted", "--capability"]).arg(&capability);
    doctor.args(["--only", "", "--digests"]).arg(&digests).args(&samples);
    done(&mut doctor)?;
    let flags: Vec<String> = samples.iter().map(|flag| flag.to_string_lossy().into_owned()).collect();
    write_script(&folder.join("run.sh"), &SCRIPT.replace("@SAMPLES@", &flags.join(" ")))?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(&folder).map_err(at(&folder))? {
        bytes += entry.and_then(|entry| entry.metadata()).map_err(at(&folder))?.len();
    }
    if bytes > MOST {
        return Err(format!("{}: {bytes} bytes, more than {MOST}", folder.display()));
    }
    output::line(&format!("{}: {:.1} MiB; there: sh run.sh OUT", folder.display(), bytes as f64 / f64::from(1 << 20)))
}

/// Builds the program with the driver, and says where it is; one that is built already is taken from where the others
/// are.
fn build(cargo: &Path) -> Result<PathBuf, String> {
    if let Some(built) = std::env::var_os("BINADE_PROGRAMS") {
        return Ok(PathBuf::from(built).join("binade"));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "--bin", "binade", "--bin", "binade-lab"]);
    build.args(["--features", "binade/cuda", "--manifest-path"]).arg(root.join("Cargo.toml"));
    done(&mut build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/binade"))
}

fn done(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().display().to_string();
    let status = command.status().map_err(|e| format!("cannot start {name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

/// Fails if a program needs a newer C library than there may be.
fn needs(program: &[u8]) -> Result<(), String> {
    let newest = newest_glibc(program);
    if newest > GLIBC {
        return Err(format!(
            "the program needs glibc {}.{}, and may need {}.{}",
            newest[0], newest[1], GLIBC[0], GLIBC[1]
        ));
    }
    Ok(())
}

/// The newest version of the C library that a program's symbols have.
fn newest_glibc(program: &[u8]) -> [u32; 2] {
    const MARK: &[u8] = b"GLIBC_";
    let starts = program.windows(MARK.len()).enumerate().filter(|(_, bytes)| *bytes == MARK);
    let versions = starts.filter_map(|(i, _)| {
        let rest = &program[i + MARK.len()..];
        let text = rest.split(|byte| !byte.is_ascii_digit() && *byte != b'.').next()?;
        let (major, minor) = std::str::from_utf8(text).ok()?.split_once('.')?;
        Some([major.parse().ok()?, minor.split('.').next()?.parse().ok()?])
    });
    versions.max().unwrap_or([0, 0])
}

fn write_script(path: &Path, text: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::write(path, text).map_err(failed)?;
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_the_c_library_is_found_among_others() {
        let program = b"\0GLIBC_2.2.5\0GLIBC_2.34\0\x7fGLIBC_2.9\0GLIBC_PRIVATE\0";
        assert_eq!(newest_glibc(program), [2, 34]);
        assert!(needs(program).is_ok());
        assert!(needs(b"GLIBC_2.38\0").is_err());
    }

    #[test]
    fn the_steps_of_the_script_end_within_eight_minutes() {
        let seconds =
            SCRIPT.lines().filter_map(|line| line.strip_prefix("step ")?.split(' ').next()?.parse::<u32>().ok());
        let all: u32 = seconds.clone().sum();
        assert!(seconds.count() >= 6 && all <= 470, "{all} s");
    }
}
