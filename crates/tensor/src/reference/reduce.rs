//! Reductions.

use super::definition::{Definition, each};
use super::elementwise::{binary, unary};
#[cfg(feature = "oracle")]
use super::errors::Roundings;
use super::functions::{binade, quotient, sum_of};
use super::{Dense, order, unflatten};
use crate::op::{ArgMax, Binary, Reduce, ReduceBackward, ReduceOp, Unary};
use crate::{Dims, Result};

impl Definition for ReduceOp {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![Dense {
            shape: shapes[0].clone(),
            v: groups(&x[0], self.dims).iter().map(|g| reduce(self.kind, g)).collect(),
        }])
    }
}

/// The elements that are reduced together, for each element of the result in row-major order.
pub(super) fn groups(x: &Dense, dims: Dims) -> Vec<Vec<f64>> {
    let kept: Vec<usize> = (0..x.shape.len()).filter(|&d| !dims.contains(d)).collect();
    let shape: Vec<usize> = kept.iter().map(|&d| x.shape[d]).collect();
    let mut out = vec![Vec::new(); shape.iter().product()];
    for (flat, &v) in x.v.iter().enumerate() {
        let index = unflatten(flat, &x.shape);
        out[kept.iter().zip(&shape).fold(0, |at, (&d, &n)| at * n + index[d])].push(v);
    }
    out
}

pub(super) fn reduce(kind: Reduce, g: &[f64]) -> f64 {
    let n = g.len() as f64;
    let sum = || sum_of(g.iter().copied());
    match kind {
        Reduce::Sum => sum(),
        Reduce::Mean => sum() / n,
        Reduce::Max => g.iter().fold(f64::NEG_INFINITY, |m, &v| binary(Binary::Maximum, m, v)),
        Reduce::Min => g.iter().fold(f64::INFINITY, |m, &v| binary(Binary::Minimum, m, v)),
        Reduce::Std { correction } => {
            // Of numbers around 1: a square has half the range. In units of a power of two, which rounds none of them:
            // a mean may be far larger than the spread.
            let unit = binade(g.iter().fold(0.0, |m, v| f64::max(m, v.abs())));
            let scaled: Vec<f64> = g.iter().map(|v| v / unit).collect();
            unit * reduce(Reduce::Var { correction }, &scaled).sqrt()
        }
        Reduce::Prod => quotient(g.iter().copied(), []),
        Reduce::LogSumExp => {
            let max = reduce(Reduce::Max, g);
            if max.is_finite() { max + sum_of(g.iter().map(|v| f64::exp(v - max))).ln() } else { max }
        }
        Reduce::Norm { p: 0.0 } => g.iter().filter(|v| **v != 0.0).count() as f64,
        Reduce::Norm { p } if p.is_infinite() => {
            let magnitudes: Vec<f64> = g.iter().map(|v| v.abs()).collect();
            if p > 0.0 {
                reduce(Reduce::Max, &[&magnitudes[..], &[0.0]].concat())
            } else {
                reduce(Reduce::Min, &magnitudes)
            }
        }
        Reduce::Norm { p } => {
            // Of the largest: a root of what is far from 1 would magnify the rounding of 1/p.
            let largest = g.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            let scale = if p > 0.0 && largest > 0.0 && largest.is_finite() { largest } else { 1.0 };
            scale * g.iter().map(|v| (v.abs() / scale).powf(p)).sum::<f64>().powf(1.0 / p)
        }
        Reduce::Var { correction } => {
            let mean = mean(g);
            // NaN of no elements.
            (0.0 * mean + sum_of(g.iter().map(|v| (v - mean).powi(2)))) / (n - correction).max(0.0)
        }
    }
}

/// Counted from the first element, so that the mean of equal ones is each of them.
pub(super) fn mean(g: &[f64]) -> f64 {
    let first = g.first().copied().filter(|v| v.is_finite()).unwrap_or(0.0);
    first + sum_of(g.iter().map(|v| v - first)) / g.len() as f64
}

impl Definition for ReduceBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (ReduceBackward { kind, dims }, g, shape) = (self, &x[0], &shapes[0]);
        let members = groups(&x[2], *dims);
        let kept: Vec<usize> = (0..shape.len()).filter(|&d| !dims.contains(d)).collect();
        Ok(vec![each(shapes, &|i| {
            let at = kept.iter().fold(0, |at, &d| at * shape[d] + i[d]);
            let (m, y, v, up) = (&members[at], x[1].v[at], x[2].at(i), g.v[at]);
            let n = m.len() as f64;
            let hit = |v: f64| v == y || v.is_nan() && y.is_nan();
            match kind {
                Reduce::Sum => up,
                Reduce::Mean => up / n,
                Reduce::Max | Reduce::Min if hit(v) => up / m.iter().filter(|v| hit(**v)).count() as f64,
                Reduce::Max | Reduce::Min => 0.0,
                Reduce::Std { correction } => match reduce(Reduce::Std { correction: *correction }, m) {
                    0.0 => 0.0,
                    std => up * (v - mean(m)) / ((n - correction) * std),
                },
                Reduce::LogSumExp => up * f64::exp(v - reduce(Reduce::LogSumExp, m)),
                // The product of the others.
                Reduce::Prod => {
                    let at = dims.iter().fold(0, |at, d| at * x[2].shape[d] + i[d]);
                    let others = m.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, v)| *v);
                    quotient(others.chain([up]), [])
                }
                Reduce::Norm { p: 0.0 } => 0.0,
                Reduce::Norm { p } if p.is_infinite() => {
                    // NaN is what a norm with one is; it gets the gradient, as the largest element does.
                    let y = reduce(*kind, m);
                    let hit = |v: f64| v.abs() == y || v.is_nan();
                    let hits = m.iter().filter(|v| hit(**v)).count() as f64;
                    if hit(v) { up * unary(Unary::Sign, v) / hits } else { 0.0 }
                }
                Reduce::Norm { p } => {
                    let y = reduce(*kind, m);
                    // At 0 the slope is 0, and an upstream infinity times it NaN.
                    let power = if v == 0.0 && !y.is_nan() { 0.0 } else { v.abs().powf(p - 1.0) * y.powf(1.0 - p) };
                    up * unary(Unary::Sign, v) * power
                }
                Reduce::Var { correction } => up * 2.0 * (v - mean(m)) / (n - correction),
            }
        })])
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(vec![spread_gradient(self.kind, self.dims, x, shapes, by)?])
    }
}

/// The slope of a variance or deviation is computed in f64 and rounded once: the mean is off by a unit of f64. Other
/// reductions are told by their magnitudes.
#[cfg(feature = "oracle")]
fn spread_gradient(
    kind: Reduce,
    dims: Dims,
    x: &[Dense],
    shapes: &[Vec<usize>],
    by: Roundings<'_>,
) -> Result<Vec<f64>> {
    let (exact, e, u) = (ReduceBackward { kind, dims }.evaluate(x, shapes)?.swap_remove(0), by.e, by.u);
    let (Reduce::Var { correction } | Reduce::Std { correction }) = kind else {
        return Ok(exact.v.iter().map(|v| e * v.abs()).collect());
    };
    let kept = dims.reduce(&crate::Shape::from_slice(&x[2].shape), true);
    let members = groups(&x[2], dims);
    let slopes = Dense::from_fn(&kept, |i| {
        let flat = x[0].flat(i);
        let (m, g) = (&members[flat], x[0].v[flat].abs());
        let divisor = m.len() as f64 - correction;
        let slope = if matches!(kind, Reduce::Std { .. }) { g / divisor / reduce(kind, m) } else { 2.0 * g / divisor };
        let largest = m.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        if slope.is_finite() { slope * largest * 64.0 * crate::format::Format::F64.epsilon().min(u) } else { 0.0 }
    });
    Ok(Dense::from_fn(&x[2].shape, |i| e * exact.at(i).abs() + slopes.at(i)).v)
}

impl Definition for ArgMax {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (dim, shape) = (&self.dim, &shapes[0]);
        let dims = if x[0].shape.is_empty() { Dims::all(0) } else { Dims::one(*dim) };
        // Of equal elements `max_by` takes the last.
        let best = |g: &Vec<f64>| (0..g.len()).rev().max_by(|&a, &b| order(g[a], g[b])).unwrap_or(0) as f64;
        Ok(vec![Dense { shape: shape.clone(), v: groups(&x[0], dims).iter().map(best).collect() }])
    }
}
