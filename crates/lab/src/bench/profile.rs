//! Where the time of a case goes, by operator and layer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use binade::autograd::scope;
use binade::tensor::profile::{Row, rows, start_by, stop};
use binade::train::Precision;

use super::Case;
use super::timing::warm_up;
use binade::cli::output::line;

/// Wall-clock time of some runs, and the part of it inside operators.
struct Profile {
    total: Duration,
    rows: Vec<Row>,
}

fn profile(case: &mut Case, runs: u32) -> Result<Profile> {
    start_by(scope::path);
    let begin = Instant::now();
    let done = (0..runs).try_for_each(|_| (case.run)());
    let (total, rows) = (begin.elapsed(), rows(&stop()));
    done?;
    Ok(Profile { total, rows })
}

/// Times of five runs by operator, and by layer.
pub fn print(case: &mut Case, precision: Precision) -> Result<()> {
    const RUNS: u32 = 5;
    warm_up(case, 1.0)?;
    let Profile { total, rows } = profile(case, RUNS)?;
    let ms = |t: Duration| t.as_secs_f64() * 1e3 / RUNS as f64;
    let known: Duration = rows.iter().map(|r| r.time).sum();
    line(format_args!("{} {}: {:.2} ms, in operators {:.2} ms", case.name, precision.name(), ms(total), ms(known)))?;
    for row in rows.iter().take(400) {
        let of = if row.layer.is_empty() { String::new() } else { format!("  in {}", row.layer) };
        line(format_args!("{:>9.3} ms {:>5} x  {}{of}", ms(row.time), row.calls / RUNS as usize, row.name))?;
    }
    line("by layer, without those in it:")?;
    for (layer, time) in by_layer(&rows) {
        let layer = if layer.is_empty() { "(outside layers)" } else { layer };
        line(format_args!("{:>9.3} ms  {layer}", ms(time)))?;
    }
    Ok(())
}

/// The time of each layer's own operators, longest first.
fn by_layer(rows: &[Row]) -> Vec<(&str, Duration)> {
    let mut layers = BTreeMap::<&str, Duration>::new();
    rows.iter().for_each(|row| *layers.entry(&row.layer).or_default() += row.time);
    let mut layers: Vec<_> = layers.into_iter().collect();
    layers.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    layers
}

/// Parts of a run's time.
pub struct Shares {
    /// Products, convolutions and attention, forward and backward: their work grows with the square of a network's
    /// width.
    pub products: f64,
    /// All other operators: theirs grows with the width.
    pub others: f64,
    /// Outside operators: optimiser, unscaling, clipping, tape, allocation. Does not depend on the batch.
    pub rest: f64,
}

/// The parts over a few runs.
pub fn shares(case: &mut Case, runs: u32) -> Result<Shares> {
    let Profile { total, rows } = profile(case, runs)?;
    let is_product = |row: &&Row| ["matmul", "conv", "attention"].iter().any(|name| row.name.starts_with(name));
    let part = |time: Duration| time.as_secs_f64() / total.as_secs_f64();
    let products = part(rows.iter().filter(is_product).map(|r| r.time).sum());
    let others = part(rows.iter().map(|r| r.time).sum()) - products;
    Ok(Shares { products, others, rest: 1.0 - products - others })
}
