//! Runs a kernel of a PTX file: `cargo run -p binade-ptx --example ptx -- run FILE KERNEL --block 256 --arg …`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use binade_ptx::{Arg, Device, FindingKind, Launch, Module, Options};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Runs kernels of PTX files without a GPU")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Names the kernels of a file with their parameters.
    List { file: PathBuf },
    /// Runs a kernel, prints its outputs, findings and counters; fails if something was found.
    Run {
        file: PathBuf,
        kernel: String,
        /// Blocks: x or x,y,z.
        #[arg(long, default_value = "1", value_parser = extents)]
        grid: [u32; 3],
        /// Threads of a block: x or x,y,z.
        #[arg(long, default_value = "32", value_parser = extents)]
        block: [u32; 3],
        /// Bytes of dynamic shared memory.
        #[arg(long, default_value_t = 0)]
        shared: usize,
        /// An argument: `u32=7` (any type of scalars), `in:f32:1024` (numbers in -1 … 1, or any integers),
        /// `zero:f32:1024`, `out:f32:1024` (uninitialised, and printed afterwards), or a structure of these,
        /// `{in:f32:64,out:f32:64,u32=64}`, each aligned to its size.
        #[arg(long = "arg")]
        args: Vec<String>,
        /// Another order of warps and blocks.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
}

type Failure = Box<dyn std::error::Error>;

fn extents(text: &str) -> Result<[u32; 3], String> {
    let parts: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    match parts.map_err(|e| e.to_string())?.as_slice() {
        [x] => Ok([*x, 1, 1]),
        [x, y] => Ok([*x, *y, 1]),
        [x, y, z] => Ok([*x, *y, *z]),
        _ => Err("expected one to three numbers".to_string()),
    }
}

/// Types of scalars and of elements.
#[derive(Clone, Copy)]
enum Ty {
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
}

impl Ty {
    fn named(name: &str) -> Result<Ty, String> {
        Ok(match name {
            "u8" | "s8" | "i8" | "b8" => Ty::U8,
            "u16" | "s16" | "i16" | "b16" | "f16" | "bf16" => Ty::U16,
            "u32" | "s32" | "i32" | "b32" => Ty::U32,
            "u64" | "s64" | "i64" | "b64" => Ty::U64,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            other => return Err(format!("`{other}` is none of u8, u16, u32, u64, f32, f64")),
        })
    }

    fn size(self) -> usize {
        match self {
            Ty::U8 => 1,
            Ty::U16 => 2,
            Ty::U32 | Ty::F32 => 4,
            Ty::U64 | Ty::F64 => 8,
        }
    }

    /// The bytes of a number in text; negative integers wrap.
    fn bytes(self, text: &str) -> Result<Vec<u8>, String> {
        let fail = |e: &dyn std::fmt::Display| format!("`{text}`: {e}");
        Ok(match self {
            Ty::F32 => text.parse::<f32>().map_err(|e| fail(&e))?.to_le_bytes().to_vec(),
            Ty::F64 => text.parse::<f64>().map_err(|e| fail(&e))?.to_le_bytes().to_vec(),
            _ => text.parse::<i128>().map_err(|e| fail(&e))?.to_le_bytes()[..self.size()].to_vec(),
        })
    }

    /// Pseudo-random bits as an element: floats lie in -1 … 1.
    fn random(self, bits: u64) -> Vec<u8> {
        let float = (bits >> 40) as f64 / (1 << 23) as f64 - 1.0;
        match self {
            Ty::F32 => (float as f32).to_le_bytes().to_vec(),
            Ty::F64 => float.to_le_bytes().to_vec(),
            _ => bits.to_be_bytes()[..self.size()].to_vec(),
        }
    }

    fn shown(self, bytes: &[u8]) -> String {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        match self {
            Ty::F32 => f32::from_bits(bits as u32).to_string(),
            Ty::F64 => f64::from_bits(bits).to_string(),
            _ => bits.to_string(),
        }
    }
}

/// A buffer to print when the kernel is done: address, type, elements.
struct Output(u64, Ty, usize);

/// The bytes of an argument, and their alignment.
fn argument(device: &mut Device, text: &str, outputs: &mut Vec<Output>) -> Result<(Vec<u8>, usize), Failure> {
    if let Some(fields) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        let (mut bytes, mut align) = (Vec::new(), 1);
        for field in fields.split(',') {
            let (field, to) = argument(device, field.trim(), outputs)?;
            bytes.resize(bytes.len().next_multiple_of(to), 0);
            bytes.extend(field);
            align = align.max(to);
        }
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        return Ok((bytes, align));
    }
    if let Some((ty, value)) = text.split_once('=') {
        let ty = Ty::named(ty)?;
        return Ok((ty.bytes(value)?, ty.size()));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let [how, ty, count] = parts[..] else {
        return Err(format!("`{text}`: expected type=value, how:type:count or {{…,…}}").into());
    };
    let ty = Ty::named(ty)?;
    let count: usize = count.parse().map_err(|e| format!("`{text}`: {e}"))?;
    let address = device.alloc(count * ty.size())?;
    match how {
        "in" => {
            let mut state = 1u64;
            let mut bytes = Vec::new();
            for _ in 0..count {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.extend(ty.random(state));
            }
            device.write(address, &bytes)?;
        }
        "zero" => device.fill(address, 0, count * ty.size())?,
        "out" => outputs.push(Output(address, ty, count)),
        other => return Err(format!("`{text}`: `{other}` is none of in, out, zero").into()),
    }
    Ok((address.to_le_bytes().to_vec(), 8))
}

fn parsed(file: &Path) -> Result<Module, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Module::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?)
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Nobody is left to be told if this fails.
            let _ = writeln!(std::io::stderr(), "error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    let mut to = std::io::stdout().lock();
    match command {
        Command::List { file } => {
            let module = parsed(file)?;
            let program = Device::new(Options::default()).load(&module)?;
            for name in module.kernels() {
                let kernel = program.kernel(name)?;
                let sizes: Vec<String> = kernel.params().iter().map(|p| p.size.to_string()).collect();
                writeln!(to, "{name}({}) static shared {}", sizes.join(", "), kernel.static_shared())?;
            }
        }
        &Command::Run { ref file, ref kernel, grid, block, shared, ref args, seed } => {
            let module = parsed(file)?;
            let mut device = Device::new(Options { seed, ..Options::default() });
            let kernel = device.load(&module)?.kernel(kernel)?;
            let mut outputs = Vec::new();
            let mut bytes = |a: &String| argument(&mut device, a, &mut outputs).map(|(bytes, _)| Arg::bytes(bytes));
            let args = args.iter().map(&mut bytes).collect::<Result<Vec<_>, _>>()?;
            let start = std::time::Instant::now();
            let report = device.launch(&kernel, Launch { grid, block, shared }, &args)?;
            let seconds = start.elapsed().as_secs_f64();
            for Output(address, ty, count) in outputs {
                let shown = count.min(8);
                let mut bytes = vec![0; ty.size() * shown];
                device.read(address, &mut bytes)?;
                let values: Vec<String> = bytes.chunks_exact(ty.size()).map(|bytes| ty.shown(bytes)).collect();
                writeln!(to, "[{}{}]", values.join(", "), if count > shown { ", …" } else { "" })?;
            }
            writeln!(to, "{report}")?;
            let rate = report.counters.lane_instructions as f64 / seconds / 1e6;
            writeln!(to, "{seconds:.3} s, {rate:.0} M lane instructions a second")?;
            if !report.is_clean() {
                let kinds: Vec<FindingKind> = report.findings.iter().map(|f| f.kind).collect();
                return Err(format!("{} findings: {kinds:?}", kinds.len()).into());
            }
        }
    }
    Ok(())
}
