//! `--sizes`: time and memory of a training step over batch size and over width, and where they stop being linear.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use binade::train::Precision;
use comfy_table::Table;
use serde_json::{Value, json};

use super::cases::NETWORKS;
use super::profile::{Shares, shares};
use super::steps::{Size, own_size, training};
use super::timing::{round, time};
use super::{Args, Case};
use binade::cli::output::line;

/// One size.
struct Point {
    size: usize,
    batch: usize,
    parameters: f64,
    ms: f64,
    peak_mib: f64,
    shares: Shares,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    for network in &args.case {
        ensure!(NETWORKS.contains(&network.as_str()), "--sizes is for training steps: {}", NETWORKS.join(", "));
    }
    for network in &args.case {
        let (batch, width) = own_size(network);
        for &precision in &args.precision {
            let mut points = Vec::new();
            for batch in (0..).map(|i| 1 << i).take_while(|n| *n <= 2 * batch) {
                points.push(measure(args, network, precision, batch, Size { batch: Some(batch), ..args.size() })?);
            }
            print(args, network, precision, "batch", &points, over_batch)?;
            points.clear();
            for width in widths(network, width) {
                points.push(measure(args, network, precision, width, Size { width: Some(width), ..args.size() })?);
            }
            print(args, network, precision, "width", &points, over_width)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Smaller and larger widths around the network's own. The U-Net's group norms have 32 groups, the transformers' heads
/// 64 features.
fn widths(network: &str, own: usize) -> Vec<usize> {
    match network {
        "vit" | "gpt" => vec![own / 3, own * 2 / 3, own, own * 4 / 3, own * 2],
        "unet" => vec![own / 2, own, own * 3 / 2, own * 2],
        _ => vec![own / 4, own / 2, own, own * 2],
    }
}

fn measure(args: &Args, network: &str, precision: Precision, size: usize, extents: Size) -> Result<Point> {
    let mut case = training(network, precision, extents)?;
    // The fastest run: what else the machine does adds time and never takes any, and growth is a difference of
    // logarithms.
    let ms = time(&mut case, args.secs / 4.0, args.min_iters)?.into_iter().fold(f64::INFINITY, f64::min);
    let field = |case: &Case, name: &str| {
        (case.extra)(ms).into_iter().find(|(key, _)| *key == name).and_then(|(_, v)| v.as_f64()).unwrap_or(f64::NAN)
    };
    let (parameters, peak_mib) = (field(&case, "params"), field(&case, "peak_mib"));
    let batch = extents.batch.unwrap_or(own_size(network).0);
    Ok(Point { size, batch, parameters, ms, peak_mib, shares: shares(&mut case, 3)? })
}

/// The power of the size with which a cost grew from one point to the next.
fn growth(before: (usize, f64), now: (usize, f64)) -> f64 {
    (now.1 / before.1).ln() / (now.0 as f64 / before.0 as f64).ln()
}

/// How time grows with the batch.
fn over_batch(growth: f64) -> &'static str {
    match growth {
        g if g < 0.9 => "below linear",
        g if g <= 1.1 => "linear",
        _ => "above linear",
    }
}

/// How time grows with the width, of which products take the square and all else the first power.
fn over_width(growth: f64) -> &'static str {
    match growth {
        g if g < 0.9 => "below linear",
        g if g <= 1.1 => "linear",
        g if g < 1.8 => "above linear",
        g if g <= 2.1 => "square",
        _ => "above square",
    }
}

fn print(
    args: &Args,
    network: &str,
    precision: Precision,
    axis: &str,
    points: &[Point],
    kind: fn(f64) -> &'static str,
) -> Result<()> {
    let mut table = Table::new();
    let header = [axis, "parameters", "step, ms", "ms/sample", "time grows with", "peak, MiB", "memory grows with"];
    table.set_header(header.into_iter().chain(["products", "other operators", "rest", "time is"]));
    for (i, point) in points.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| &points[i]);
        let time = before.map(|b| growth((b.size, b.ms), (point.size, point.ms)));
        let memory = before.map(|b| growth((b.size, b.peak_mib), (point.size, point.peak_mib)));
        let power = |g: Option<f64>| g.map_or(String::new(), |g| format!("{axis}^{g:.2}"));
        let percent = |part: f64| format!("{:.0} %", 100.0 * part);
        let Shares { products, others, rest } = point.shares;
        table.add_row([
            point.size.to_string(),
            format!("{:.2}M", point.parameters / 1e6),
            format!("{:.2}", point.ms),
            format!("{:.3}", point.ms / point.batch as f64),
            power(time),
            format!("{:.1}", point.peak_mib),
            power(memory),
            percent(products),
            percent(others),
            percent(rest),
            time.map_or("", kind).into(),
        ]);
        if args.json {
            let number = |g: Option<f64>| g.map_or(Value::Null, |g| json!(round(g)));
            let row = json!({
                "lib": "binade", "case": network, "prec": precision.name(), "threads": args.threads, axis: point.size,
                "params": point.parameters, "min_ms": round(point.ms),
                "ms_per_sample": round(point.ms / point.batch as f64),
                "time_growth": number(time), "peak_mib": round(point.peak_mib), "memory_growth": number(memory),
                "products": round(products), "other_operators": round(others), "rest": round(rest),
            });
            line(row)?;
        }
    }
    if !args.json {
        line(format_args!("{network} in {} over {axis}\n{table}", precision.name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::growth;

    #[test]
    fn growth_is_the_power_of_the_size() {
        assert!((growth((4, 3.0), (8, 12.0)) - 2.0).abs() < 1e-12);
        assert!((growth((64, 5.0), (192, 15.0)) - 1.0).abs() < 1e-12);
    }
}
