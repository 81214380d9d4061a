//! `cargo xtask bench`: the cases of `torch_bench.py` on this side, one JSON line each; both sides in turn with their
//! ratios; cost against threads and sizes; steps of models at their true size.

mod against;
mod cases;
mod generate;
mod kernels;
mod memory;
mod peer;
mod picture;
mod profile;
mod row;
mod scaling;
mod sizes;
mod steps;
mod tape;
mod timing;
mod true_size;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use binade::train::Precision;
use serde_json::{Map, Value, json};

use cases::{Case, GROUPS, cases};
pub use memory::rss_mib;
use steps::Size;
use timing::{quantile, round, sorted, time};

use binade::cli::device::On;
use binade::cli::flags::{above_zero, positive};
use binade::cli::output::{line, note};
use binade::cli::threads;

#[derive(clap::Args)]
pub struct Args {
    /// Cases, with commas: gemm, skinny, conv, micro, tape, cnn, resnet18, vit, gpt, unet; and generate: a token of
    /// text by GPT-2 of 124M, which is not PyTorch's too
    #[arg(
        default_value = "gemm,skinny,conv,micro,tape,cnn,resnet18,vit,gpt,unet",
        value_delimiter = ',',
        value_parser = group
    )]
    case: Vec<String>,
    /// Precisions, with commas
    #[arg(long, default_value = "fp32,fp16,bf16", value_delimiter = ',', value_parser = precision)]
    precision: Vec<Precision>,
    /// Batch size, instead of the case's own
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    n: Option<usize>,
    /// Keep the residual stream of networks in 16 bit (`Policy::with_low_residual`)
    #[arg(long)]
    low_residual: bool,
    /// Only measurements whose name contains this
    #[arg(long, conflicts_with = "mode")]
    only: Option<String>,
    /// Threads, at most one per core
    #[arg(long, default_value_t = 2, value_parser = positive::<usize>, allow_negative_numbers = true)]
    threads: usize,
    #[command(flatten)]
    on: On,
    /// Seconds per measurement
    #[arg(long, default_value_t = 6.0, value_parser = above_zero, allow_hyphen_values = true)]
    secs: f64,
    /// Iterations per measurement at least
    #[arg(long, default_value_t = 5, value_parser = positive::<usize>, allow_negative_numbers = true)]
    min_iters: usize,
    /// Print one JSON line per measurement
    #[arg(long, conflicts_with_all = ["against", "from", "profile"])]
    json: bool,
    /// Print where the time goes, operator by operator, instead
    #[arg(long, conflicts_with = "mode")]
    profile: bool,
    /// Run each case with 1, 2, … and --threads threads in turn, and print ratios
    #[arg(long, group = "mode")]
    scaling: bool,
    /// Training steps over batch size and width: time, memory, and where they stop being linear
    #[arg(long, group = "mode", conflicts_with = "n")]
    sizes: bool,
    /// Run PyTorch's side too, in turn, with this Python interpreter, and print ratios
    #[arg(long, value_name = "PYTHON", groups = ["mode", "source"])]
    against: Option<PathBuf>,
    /// PyTorch's precisions with --against, with commas: fp32 for every case; bf16 (its autocast) for training steps in
    /// 16 bit
    #[arg(long, default_value = "fp32", value_delimiter = ',', value_parser = peer_precision, requires = "against")]
    peer_precision: Vec<Precision>,
    /// Pairs of runs per case with --against and --scaling
    #[arg(long, default_value_t = 15, value_parser = positive::<usize>, allow_negative_numbers = true)]
    pairs: usize,
    /// Where --against writes its table as JSON
    #[arg(long, value_name = "FILE.json", requires = "against")]
    out: Option<PathBuf>,
    /// Measure nothing: the table and the picture of what --out wrote
    #[arg(long, value_name = "FILE.json", groups = ["mode", "source"])]
    from: Option<PathBuf>,
    /// Where the picture of the ratios goes
    #[arg(long, value_name = "FILE.svg", requires = "source")]
    picture: Option<PathBuf>,
    #[command(flatten)]
    true_size: true_size::Flags,
}

impl Args {
    /// The networks as asked for.
    fn size(&self) -> Size {
        Size { batch: self.n, low_residual: self.low_residual, ..Size::default() }
    }
}

fn group(name: &str) -> Result<String, String> {
    if GROUPS.contains(&name) { Ok(name.into()) } else { Err(format!("no such case; there are {}", GROUPS.join(", "))) }
}

fn precision(name: &str) -> Result<Precision, String> {
    Precision::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| "there are fp32, fp16, bf16".into())
}

fn peer_precision(name: &str) -> Result<Precision, String> {
    match precision(name) {
        Ok(found @ (Precision::Fp32 | Precision::Bf16)) => Ok(found),
        Ok(Precision::Fp16) | Err(_) => Err("PyTorch's side is measured in fp32 and bf16".into()),
    }
}

pub fn run(mut args: Args) -> Result<ExitCode> {
    if let Some(path) = &args.from {
        return row::publish(&row::read(path)?, None, args.picture.as_deref());
    }
    if cfg!(debug_assertions) {
        // Results are checked all the same.
        note("these times mean nothing: a debug build; cargo xtask bench builds in release mode");
    }
    args.threads = threads::at_most_cores(args.threads);
    if args.true_size.is_asked_for() {
        return true_size::run(&args);
    }
    if args.scaling {
        return scaling::run(&args);
    }
    threads::start(Some(args.threads))?;
    if let Some(python) = &args.against {
        if args.case.iter().any(|case| case == "generate") {
            bail!("generate is not measured beside PyTorch");
        }
        return against::run(&args, python);
    }
    if args.sizes {
        return sizes::run(&args);
    }
    args.on.run(|| measure(&args))
}

/// Each case by itself.
fn measure(args: &Args) -> Result<ExitCode> {
    let (mut measured, mut others) = (0, Vec::new());
    for group in &args.case {
        for &precision in &args.precision {
            for build in cases(group, precision, args.size())? {
                let mut case = build()?;
                if args.only.as_ref().is_some_and(|only| !case.name.contains(only)) {
                    others.push(case.name);
                    continue;
                }
                measured += 1;
                if args.profile {
                    profile::print(&mut case, precision)?;
                    continue;
                }
                let times = time(&mut case, args.secs, args.min_iters)?;
                print(&case, precision, &times, args)?;
            }
        }
    }
    if measured == 0 {
        others.sort();
        others.dedup();
        bail!(
            "no measurement has {:?} in its name; there are {}",
            args.only.as_deref().unwrap_or_default(),
            others.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print(case: &Case, precision: Precision, times: &[f64], args: &Args) -> Result<()> {
    let t = sorted(times);
    let median = quantile(&t, 0.5);
    let mut row = Map::new();
    let mut put = |key: &str, value: Value| row.insert(key.into(), value);
    put("lib", json!("binade"));
    put("ver", json!(env!("CARGO_PKG_VERSION")));
    put("threads", json!(args.threads));
    put("case", json!(case.name));
    put("prec", json!(precision.name()));
    for (key, q) in [("median_ms", 0.5), ("min_ms", 0.0), ("p25_ms", 0.25), ("p75_ms", 0.75), ("max_ms", 1.0)] {
        put(key, json!(round(quantile(&t, q))));
    }
    put("iters", json!(t.len()));
    if case.flops > 0.0 {
        put("gflops", json!(round(case.flops / median / 1e6)));
    }
    if let Some((unit, count)) = case.rate {
        put(unit, json!((count / median * 1e4).round() / 10.0));
    }
    for (key, value) in (case.extra)(median) {
        put(key, value);
    }
    put("peak_rss_mib", json!(memory::peak_rss_mib()));
    if args.json {
        line(Value::Object(row))?;
    } else {
        let mut more =
            if case.flops > 0.0 { format!("  {:.1} GFLOP/s", case.flops / median / 1e6) } else { String::new() };
        if let Some(us) = row.get("us_per_call") {
            more += &format!("  {us} µs per call");
        }
        for (key, unit) in [("tok_per_s", "tokens/s"), ("share_of_read", "of what memory is read at")] {
            if let Some(number) = row.get(key) {
                more += &format!("  {number} {unit}");
            }
        }
        let (low, high) = (quantile(&t, 0.25), quantile(&t, 0.75));
        let name = precision.name();
        line(format_args!("{:<26} {name:<5} {median:>10.3} ms  ({low:.3} to {high:.3}){more}", case.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[derive(Parser)]
    struct Bench {
        #[command(flatten)]
        args: super::Args,
    }

    #[test]
    fn a_name_that_no_measurement_has_is_refused_with_those_there_are() {
        let args = Bench::parse_from(["bench", "tape", "--precision", "fp32", "--only", "snail"]).args;
        let error = super::measure(&args).unwrap_err().to_string();
        assert!(error.contains("\"snail\"") && error.contains("tape"), "{error}");
    }
}
