//! Runs a kernel of a PTX file: `cargo run -p binade-ptx --example ptx -- run FILE KERNEL --block 256 --arg …`.

use std::io::Write;
use std::path::PathBuf;

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
        /// An argument: `u32=7` (any scalar type), `in:f32:1024` (numbers in -1 … 1), `zero:f32:1024`,
        /// `out:f32:1024` (uninitialised); outputs are printed afterwards.
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

/// A buffer to print when the kernel is done: address, elements.
struct Output(u64, usize);

fn argument(device: &mut Device, text: &str, outputs: &mut Vec<Output>) -> Result<Arg, Failure> {
    if let Some((ty, value)) = text.split_once('=') {
        return Ok(match ty {
            "u32" => value.parse::<u32>()?.into(),
            "i32" | "s32" => value.parse::<i32>()?.into(),
            "u64" => value.parse::<u64>()?.into(),
            "i64" | "s64" => value.parse::<i64>()?.into(),
            "f32" => value.parse::<f32>()?.into(),
            "f64" => value.parse::<f64>()?.into(),
            other => return Err(format!("`{text}`: `{other}` is not a type of scalars").into()),
        });
    }
    let parts: Vec<&str> = text.split(':').collect();
    let [how, ty, count] = parts[..] else {
        return Err(format!("`{text}`: expected type=value or how:type:count").into());
    };
    let count: usize = count.parse()?;
    let size = match ty {
        "f32" | "u32" | "s32" => 4,
        "f64" => 8,
        "u8" => 1,
        other => return Err(format!("`{text}`: `{other}` is not a type of buffers").into()),
    };
    let address = device.alloc(count * size)?;
    match how {
        "in" => {
            let mut state = 1u32;
            let mut bytes = Vec::new();
            for _ in 0..count {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let value = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
                match ty {
                    "f32" => bytes.extend(value.to_le_bytes()),
                    "f64" => bytes.extend((value as f64).to_le_bytes()),
                    "u8" => bytes.push((state >> 24) as u8),
                    _ => bytes.extend((state >> 16).to_le_bytes()),
                }
            }
            device.write(address, &bytes)?;
        }
        "zero" => device.fill(address, 0, count * size)?,
        "out" if ty == "f32" => outputs.push(Output(address, count)),
        "out" => {}
        other => return Err(format!("`{text}`: `{other}` is none of in, out, zero").into()),
    }
    Ok(address.into())
}

fn main() -> Result<(), Failure> {
    let mut to = std::io::stdout().lock();
    match Cli::parse().command {
        Command::List { file } => {
            let module = Module::parse(&std::fs::read_to_string(file)?)?;
            let program = Device::new(Options::default()).load(&module)?;
            for name in module.kernels() {
                let kernel = program.kernel(name)?;
                let sizes: Vec<String> = kernel.params().iter().map(|p| p.size.to_string()).collect();
                writeln!(to, "{name}({}) static shared {}", sizes.join(", "), kernel.static_shared())?;
            }
        }
        Command::Run { file, kernel, grid, block, shared, args, seed } => {
            let module = Module::parse(&std::fs::read_to_string(file)?)?;
            let mut device = Device::new(Options { seed, ..Options::default() });
            let kernel = device.load(&module)?.kernel(&kernel)?;
            let mut outputs = Vec::new();
            let args = args.iter().map(|a| argument(&mut device, a, &mut outputs)).collect::<Result<Vec<_>, _>>()?;
            let start = std::time::Instant::now();
            let report = device.launch(&kernel, Launch { grid, block, shared }, &args)?;
            let seconds = start.elapsed().as_secs_f64();
            for Output(address, count) in outputs {
                let mut bytes = vec![0; 4 * count];
                device.read(address, &mut bytes)?;
                let values: Vec<f32> =
                    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                writeln!(to, "{:?}{}", &values[..count.min(8)], if count > 8 { " …" } else { "" })?;
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
