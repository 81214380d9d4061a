//! Warming up, checking, timing, and statistics of times.

use std::time::Instant;

use anyhow::{Context, Result};

use super::Case;

/// Warms up, checks the result, and times single runs, in ms.
pub fn time(case: &mut Case, secs: f64, min_iters: usize) -> Result<Vec<f64>> {
    warm_up(case, secs)?;
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < min_iters || start.elapsed().as_secs_f64() < secs && times.len() < 300 {
        times.push(once(case)?);
        if start.elapsed().as_secs_f64() > 4.0 * secs && times.len() >= 2 {
            break;
        }
    }
    check(case)?;
    Ok(times)
}

pub fn warm_up(case: &mut Case, secs: f64) -> Result<()> {
    check(case)?;
    let start = Instant::now();
    for i in 0..50 {
        if i >= 2 && start.elapsed().as_secs_f64() > 1.0 || start.elapsed().as_secs_f64() > secs {
            break;
        }
        (case.run)()?;
    }
    Ok(())
}

/// One run, in ms.
pub fn once(case: &mut Case) -> Result<f64> {
    let start = Instant::now();
    (case.run)()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

pub fn check(case: &Case) -> Result<()> {
    (case.check)().with_context(|| format!("{}: the result is wrong", case.name))
}

/// The `q`-quantile of sorted numbers.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut out = values.to_vec();
    out.sort_by(f64::total_cmp);
    out
}

pub fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values), 0.5)
}

pub fn round(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}
