//! `cargo xtask ptx` compiles the kernels of `crates/cuda` to the PTX that is checked in beside them; `--check` says
//! where the two differ and what is wrong with the PTX. NVRTC and ptxas come from PyPI's wheels
//! `nvidia-cuda-nvrtc-cu12` and `nvidia-cuda-nvcc-cu12`, unpacked anywhere; neither needs a GPU or a driver.
//! `cargo xtask ptx mutants` and `cargo xtask ptx speed` try the PTX that is there, and need neither.

mod check;
mod gates;
mod nvrtc;

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::output;
use nvrtc::Nvrtc;

const USAGE: &str = "usage: cargo xtask ptx [--check] [--nvrtc FILE] [--ptxas FILE] [KERNEL …]\n       \
     cargo xtask ptx mutants [TEXT]\n       cargo xtask ptx speed\n\
     FILE is libnvrtc.so.12 or ptxas; BINADE_NVRTC and BINADE_PTXAS name them too";

/// What a file is compiled for.
pub struct Target {
    architecture: &'static str,
    /// The lowest PTX that has what the kernels use: a driver that is older does not load it.
    version: &'static str,
    /// The generations that load it.
    generations: &'static [&'static str],
    /// Instructions that each of its kernels has.
    instructions: &'static [&'static str],
}

/// The oldest capability that is served, by drivers from CUDA 10.0 on.
const PLAIN: Target = Target {
    architecture: "compute_75",
    version: ".version 6.3",
    generations: &["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"],
    instructions: &[],
};
/// Tensor cores of capability 7.5, by drivers from CUDA 10.2 on.
const SM75: Target = Target {
    architecture: "compute_75",
    version: ".version 6.5",
    generations: &["sm_75"],
    instructions: &["mma.sync", "ldmatrix.sync"],
};
/// Those of capability 8.0 and newer ones, by drivers from CUDA 11.0 on.
const SM80: Target = Target {
    architecture: "compute_80",
    version: ".version 7.0",
    generations: &["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"],
    instructions: &["mma.sync", "ldmatrix.sync", "cp.async"],
};

impl Target {
    /// Of a file by the end of its name.
    fn of(stem: &str) -> &'static Target {
        match stem.rsplit_once("_sm") {
            Some((_, "75")) => &SM75,
            Some((_, "80")) => &SM80,
            _ => &PLAIN,
        }
    }
}

/// Bytes of all PTX together.
const MOST: usize = 4_000_000;

struct Options {
    check: bool,
    nvrtc: PathBuf,
    ptxas: Option<PathBuf>,
    kernels: Vec<String>,
}

fn options(args: &[OsString]) -> Result<Options, String> {
    let mut options = Options { check: false, nvrtc: PathBuf::new(), ptxas: None, kernels: Vec::new() };
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (mut nvrtc, mut args) = (named("BINADE_NVRTC"), args.iter());
    options.ptxas = named("BINADE_PTXAS");
    while let Some(arg) = args.next() {
        let mut file = || args.next().map(PathBuf::from).ok_or(USAGE.to_string());
        match arg.to_str() {
            Some("--check") => options.check = true,
            Some("--nvrtc") => nvrtc = Some(file()?),
            Some("--ptxas") => options.ptxas = Some(file()?),
            Some(kernel) if !kernel.starts_with('-') => options.kernels.push(kernel.to_string()),
            _ => return Err(USAGE.into()),
        }
    }
    options.nvrtc = nvrtc.ok_or_else(|| format!("NVRTC is needed: pip download nvidia-cuda-nvrtc-cu12\n{USAGE}"))?;
    Ok(options)
}

pub fn run(cargo: &Path, args: &[OsString]) -> Result<(), String> {
    match args.first().and_then(|first| first.to_str()) {
        Some("mutants") => return check::mutants(cargo, &args[1..]),
        Some("speed") if args.len() == 1 => return check::speed(cargo),
        _ => {}
    }
    let options = options(args)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/cuda/kernels");
    let nvrtc = Nvrtc::open(&options.nvrtc)?;
    let sources = files(&folder, "cu")?;
    let headers = read_all(&folder, &files(&folder, "cuh")?)?;
    let (mut faults, mut bytes) = (Vec::new(), 0);
    for name in sources {
        let stem = name.trim_end_matches(".cu");
        if !options.kernels.is_empty() && !options.kernels.iter().any(|kernel| kernel == stem) {
            continue;
        }
        let source = read(&folder.join(&name))?;
        let target = Target::of(stem);
        let ptx = lowered(&nvrtc.compile(&name, &source, &headers, target.architecture)?, target.version);
        bytes += ptx.len();
        let path = folder.join(format!("{stem}.ptx"));
        if options.check {
            if std::fs::read_to_string(&path).is_ok_and(|there| there != ptx) || !path.exists() {
                faults.push(format!("{stem}.ptx is not what {name} gives: run cargo xtask ptx"));
            }
            faults.extend(gates::of_text(stem, &ptx));
            faults.extend(gates::of_instructions(stem, &ptx, target));
        } else if std::fs::read_to_string(&path).is_ok_and(|there| there == ptx) {
            // Left as it is: what is newer is compiled again.
        } else {
            std::fs::write(&path, &ptx).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let mut told = format!("{stem}: {} kernels, {} KB", ptx.matches(".visible .entry").count(), ptx.len() / 1024);
        if let Some(ptxas) = &options.ptxas {
            let (found, [registers, shared]) = gates::of_ptxas(ptxas, stem, &path, target)?;
            faults.extend(found);
            faults.extend(gates::of_needs(stem, &source, [registers, shared]));
            told += &format!("; at most {registers} registers, {shared} bytes of shared memory");
        }
        output::line(&told)?;
    }
    if options.check && bytes > MOST {
        faults.push(format!("{bytes} bytes of PTX, more than {MOST}"));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// The names of the files of a kind, sorted.
fn files(folder: &Path, kind: &str) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| Path::new(name).extension().is_some_and(|found| found == kind)).collect();
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn read_all(folder: &Path, names: &[String]) -> Result<Vec<(String, String)>, String> {
    names.iter().map(|name| Ok((name.clone(), read(&folder.join(name))?))).collect()
}

/// The PTX for older drivers: a lower version, and lines of the source without the functions that they were inlined
/// into, which older versions do not have. A line of the source is named where another begins, for the instruction that
/// follows.
fn lowered(ptx: &str, version: &str) -> String {
    let mut text = String::with_capacity(ptx.len());
    let mut within_strings = false;
    // The place that is named last in the text, and one that waits for an instruction.
    let (mut named, mut waiting): (Option<String>, Option<&str>) = (None, None);
    for line in ptx.lines() {
        // The names of those functions.
        within_strings |= line.trim_start().starts_with(".section\t.debug_str");
        if within_strings {
            within_strings = line.trim() != "}";
            continue;
        }
        // Who compiled it says nothing about what it is, nor does a hint that older versions do not know.
        let dropped = line.trim().is_empty() || line.contains(".pragma \"used_bytes_mask");
        if dropped || line.trim_start().starts_with("//") {
            continue;
        }
        if line.split_whitespace().next() == Some(".loc") {
            waiting = line.split(", function_name").next();
            continue;
        }
        if let Some(place) = waiting.take() {
            // File and line, without the column.
            let of_line = place.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
            if named.as_ref() != Some(&of_line) {
                text.push_str(&of_line);
                text.push_str(" 0\n");
                named = Some(of_line);
            }
        }
        // Each kernel names its own.
        named = named.filter(|_| !line.starts_with('}'));
        let line = if line.starts_with(".version") { version } else { line };
        let within = line.starts_with(char::is_whitespace);
        text.push_str(&narrow(&without_folder(line), within));
        text.push('\n');
    }
    text
}

/// A line without the space that it does not need, and with shorter labels. A brace `within` a kernel stands apart from
/// the one that ends it.
fn narrow(line: &str, within: bool) -> String {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ").replace(", ", ",").replace("$L__BB", "$");
    if within && line.starts_with(['{', '}']) { format!(" {line}") } else { line }
}

/// A line that names a file of the source, without the folder that it was compiled in.
fn without_folder(line: &str) -> Cow<'_, str> {
    let path = line.trim_start().strip_prefix(".file").and_then(|_| line.split('"').nth(1));
    match path.and_then(|path| Some((path, path.rsplit_once('/')?.1))) {
        Some((path, name)) => line.replace(path, name).into(),
        None => line.into(),
    }
}
