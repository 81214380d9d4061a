//! `binade bench`: the cases of `torch_bench.py` on this side, one JSON line each, and both sides in turn with their ratios.

mod against;
mod cases;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use binade::train::Precision;
use serde_json::{Map, Value, json};

pub use cases::{Case, cases};

#[derive(clap::Args)]
pub struct Args {
    /// Cases, with commas: gemm, conv, micro, cnn, resnet18, vit, gpt, unet
    #[arg(default_value = "gemm,conv,micro,cnn,resnet18,vit,gpt,unet")]
    case: String,
    /// Precisions, with commas
    #[arg(long, default_value = "fp32,fp16,bf16")]
    precision: String,
    /// Batch size, instead of the case's own
    #[arg(long)]
    n: Option<usize>,
    /// Only measurements whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seconds per measurement
    #[arg(long, default_value_t = 6.0)]
    secs: f64,
    /// Iterations per measurement at least
    #[arg(long, default_value_t = 5)]
    min_iters: usize,
    /// Print one JSON line per measurement
    #[arg(long)]
    json: bool,
    /// Print where the time goes, operator by operator, instead
    #[arg(long)]
    profile: bool,
    /// Run PyTorch's side too, in turn, with this Python interpreter, and print ratios
    #[arg(long, value_name = "PYTHON")]
    against: Option<PathBuf>,
    /// Pairs of runs per case with --against
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Where --against writes its table as JSON
    #[arg(long)]
    out: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if cfg!(debug_assertions) {
        bail!("a debug build measures nothing: cargo xtask bench builds in release mode");
    }
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).use_current_thread().build_global().context("threads")?;
    let precisions = args
        .precision
        .split(',')
        .map(|name| {
            let known = Precision::ALL.into_iter().find(|p| p.name() == name);
            known.with_context(|| format!("no precision {name}; there are fp32, fp16, bf16"))
        })
        .collect::<Result<Vec<_>>>()?;
    if let Some(python) = &args.against {
        return against::run(args, python, &precisions);
    }
    for group in args.case.split(',') {
        for &precision in &precisions {
            for build in cases(group, precision, args.n)? {
                let mut case = build()?;
                if args.only.as_ref().is_some_and(|only| !case.name.contains(only)) {
                    continue;
                }
                if args.profile {
                    profile(&mut case, precision)?;
                    continue;
                }
                let times = time(&mut case, args.secs, args.min_iters)?;
                print(&case, precision, &times, args);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Times of five runs by operator.
fn profile(case: &mut Case, precision: Precision) -> Result<()> {
    const RUNS: u32 = 5;
    warm_up(case, 1.0)?;
    binade::tensor::profile::start();
    let start = Instant::now();
    for _ in 0..RUNS {
        (case.run)()?;
    }
    let total = start.elapsed();
    let rows = binade::tensor::profile::stop();
    let ms = |t: std::time::Duration| t.as_secs_f64() * 1e3 / RUNS as f64;
    let known: std::time::Duration = rows.iter().map(|r| r.time).sum();
    println!("{} {}: {:.2} ms, in operators {:.2} ms", case.name, precision.name(), ms(total), ms(known));
    for row in rows.iter().take(400) {
        println!("{:>9.3} ms {:>5} x  {}", ms(row.time), row.calls / RUNS as usize, row.name);
    }
    Ok(())
}

/// Warms up, checks the result, and times single runs, in ms.
fn time(case: &mut Case, secs: f64, min_iters: usize) -> Result<Vec<f64>> {
    warm_up(case, secs)?;
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < min_iters || start.elapsed().as_secs_f64() < secs && times.len() < 300 {
        times.push(once(case)?);
        if start.elapsed().as_secs_f64() > 4.0 * secs && times.len() >= 2 {
            break;
        }
    }
    (case.check)().with_context(|| format!("{}: the result is wrong", case.name))?;
    Ok(times)
}

fn warm_up(case: &mut Case, secs: f64) -> Result<()> {
    (case.check)().with_context(|| format!("{}: the result is wrong", case.name))?;
    let start = Instant::now();
    for i in 0..50 {
        if i >= 2 && start.elapsed().as_secs_f64() > 1.0 || start.elapsed().as_secs_f64() > secs {
            break;
        }
        (case.run)()?;
    }
    Ok(())
}

fn once(case: &mut Case) -> Result<f64> {
    let start = Instant::now();
    (case.run)()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// The `q`-quantile of sorted numbers.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut out = values.to_vec();
    out.sort_by(f64::total_cmp);
    out
}

fn round(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

fn print(case: &Case, precision: Precision, times: &[f64], args: &Args) {
    let t = sorted(times);
    let median = quantile(&t, 0.5);
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| line.insert(key.into(), value);
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
    for (key, value) in (case.extra)() {
        put(key, value);
    }
    put("peak_rss_mib", json!(peak_rss().map(|b| (b / 104857.6).round() / 10.0)));
    if args.json {
        println!("{}", Value::Object(line));
    } else {
        let gflops = if case.flops > 0.0 { format!("  {:.1} GFLOP/s", case.flops / median / 1e6) } else { String::new() };
        let (low, high) = (quantile(&t, 0.25), quantile(&t, 0.75));
        println!("{:<26} {:<5} {median:>10.3} ms  ({low:.3} to {high:.3}){gflops}", case.name, precision.name());
    }
}

/// Most memory this process ever had resident, in bytes, where the system tells.
fn peak_rss() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<f64>().ok().map(|kib| kib * 1024.0)
}
