//! Reductions: f32 sums over blocks of 1,024 in a fixed tree, block sums added in f64 in order.

use crate::kernel::{Context, In, Out};
use rayon::prelude::*;

use super::channels::{Terms, sum_channels};
use super::moments::{Moments, is_in_range, is_spread};
use super::operand::{BLOCK, Compute, Operand, TASK, elements_mut, exp, fill, memory_order};
use super::rows::{order_with_last, write};
use super::softmax::ExpDistance;
use super::tasks::Tasks as _;
use crate::simd::ranged::Ranged;
use crate::simd::{First, Isa, Lanes, Map2, Number};
use binade_tensor::op::Reduce;
use binade_tensor::{Array, Dims, Layout, Result};

/// `(x − shift)²`.
#[derive(Clone, Copy)]
pub(super) struct SquaredDistance;

impl Map2 for SquaredDistance {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L, shift: L) -> L {
        let d = x - shift;
        d * d
    }
}

/// Σ f(x, shift) over `n` elements from flat position `start`. Blocks whose sum leaves the range of C are added in f64.
pub(super) fn sum<C: Compute>(isa: Isa, f: impl Map2, x: &Operand<'_>, start: usize, n: usize, shift: C) -> f64 {
    if n == 0 {
        // Nothing has the sum 0, where an empty sum of f64 is −0.
        return 0.0;
    }
    let mut buffer = [C::zero(); BLOCK];
    let each = |i: usize| {
        let block = x.block(isa, start + i, BLOCK.min(n - i), &mut buffer);
        let sum = C::sum(isa, f, block, shift).as_f64();
        if sum.is_finite() { sum } else { block.iter().map(|x| f.eval(x.as_f64(), shift.as_f64())).sum() }
    };
    (0..n).step_by(BLOCK).map(each).sum()
}

/// As [`sum`], in parallel over fixed chunks.
fn par_sum<C: Compute>(isa: Isa, f: impl Map2 + Sync, x: &Operand<'_>, start: usize, n: usize, shift: C) -> f64 {
    let chunks: Vec<f64> =
        (0..n.div_ceil(TASK)).into_par_iter().list(|c| sum(isa, f, x, start + c * TASK, TASK.min(n - c * TASK), shift));
    chunks.into_iter().sum()
}

fn extreme<C: Compute>(isa: Isa, max: bool, x: &Operand<'_>, start: usize, n: usize) -> f64 {
    let mut buffer = [C::zero(); BLOCK];
    let mut best = if max { C::neg_infinity() } else { C::infinity() };
    for i in (0..n).step_by(BLOCK) {
        for &v in x.block(isa, start + i, BLOCK.min(n - i), &mut buffer) {
            if v.is_nan() || (v > best) == max && v != best && !best.is_nan() {
                best = v;
            }
        }
    }
    best.as_f64()
}

pub(super) fn reduce<C: Compute>(isa: Isa, kind: Reduce, dims: Dims, x: In<'_>, out: &mut Out<'_>) {
    let n = dims.count(x.shape());
    if out.array().numel() == 0 {
        return;
    }
    let columns = column_major(&x, dims).map(|columns| (columns, out.array().numel() / columns));
    // Each outer index has scratch of its own, which a few elements are not worth.
    if let (Reduce::Sum | Reduce::Mean, Some((columns, outer))) = (kind, columns)
        && (outer == 1 || n * columns >= BLOCK)
    {
        let operand = Operand::new(x, x.shape(), &memory_order(x.layout()));
        let total = column_sums::<C>(isa, &operand, outer, n, columns);
        let divisor = if kind == Reduce::Mean { n as f64 } else { 1.0 };
        let total: Vec<f64> = total.into_iter().map(|v| v / divisor).collect();
        return write(isa, &total, out);
    }
    let operand = Operand::new(x, x.shape(), &order_with_last(x.shape().rank(), |d| dims.contains(d)));
    let one = |row: usize, parallel: bool| -> f64 {
        let add = |shift: C, squared: bool| match (parallel, squared) {
            (false, false) => sum(isa, First, &operand, row * n, n, shift),
            (false, true) => sum(isa, SquaredDistance, &operand, row * n, n, shift),
            (true, false) => par_sum(isa, First, &operand, row * n, n, shift),
            (true, true) => par_sum(isa, SquaredDistance, &operand, row * n, n, shift),
        };
        match kind {
            Reduce::Sum => add(C::zero(), false),
            Reduce::Mean => add(C::zero(), false) / n as f64,
            Reduce::Max => extreme::<C>(isa, true, &operand, row * n, n),
            Reduce::Min => extreme::<C>(isa, false, &operand, row * n, n),
            Reduce::Var { correction } | Reduce::Std { correction } => {
                let (is_std, divisor) = (matches!(kind, Reduce::Std { .. }), (n as f64 - correction).max(0.0));
                let mean = add(C::zero(), false) / n as f64;
                let var = add(C::from_f64(mean), true) / divisor;
                if !is_in_range::<C>(var) || !is_spread(mean, var) {
                    let moments = moments(isa, &operand, row * n, n);
                    return if is_std { moments.deviation(divisor) } else { moments.variance(divisor) };
                }
                if is_std { var.sqrt() } else { var }
            }
            // A part of the product may leave the range that the whole does not.
            Reduce::Prod => {
                let one = Ranged::splat(1.0);
                fold(isa, &operand, row * n, n, one, |product, v| product * Ranged::splat(v)).rounded()
            }
            Reduce::LogSumExp => log_sum_exp::<C>(isa, &operand, row * n, n),
            Reduce::Norm { p } => norm(isa, p, &operand, row * n, n),
        }
    };
    let rows = out.array().numel();
    if n > TASK {
        let values: Vec<f64> = (0..rows).map(|row| one(row, true)).collect();
        write(isa, &values, out);
    } else if n * rows > TASK {
        let values: Vec<f64> =
            (0..rows).into_par_iter().with_min_len((TASK / n.max(1)).max(1)).list(|row| one(row, false));
        write(isa, &values, out);
    } else {
        fill::<f64>(isa, out, |start, y| y.iter_mut().enumerate().for_each(|(i, y)| *y = one(start + i, false)));
    }
}

/// Sequential, in f64.
fn fold<T: Copy>(isa: Isa, x: &Operand<'_>, start: usize, n: usize, first: T, f: impl Fn(T, f64) -> T) -> T {
    let mut buffer = [0.0f64; BLOCK];
    let mut total = first;
    for i in (0..n).step_by(BLOCK) {
        total = x.block(isa, start + i, BLOCK.min(n - i), &mut buffer).iter().fold(total, |total, &v| f(total, v));
    }
    total
}

/// Of `n` elements from flat position `start`.
fn moments(isa: Isa, x: &Operand<'_>, start: usize, n: usize) -> Moments {
    Moments::of(true, |f| {
        let mut buffer = [0.0f64; BLOCK];
        (0..n).step_by(BLOCK).for_each(|i| f(x.block(isa, start + i, BLOCK.min(n - i), &mut buffer)));
    })
}

/// `ln Σ eˣ`; the maximum where it is infinite.
fn log_sum_exp<C: Compute>(isa: Isa, x: &Operand<'_>, start: usize, n: usize) -> f64 {
    let max = extreme::<C>(isa, true, x, start, n);
    if !max.is_finite() {
        return max;
    }
    max + libm::log(sum(isa, ExpDistance, x, start, n, C::from_f64(max)))
}

/// `(Σ|x|ᵖ)^(1/p)`. Squares of f32 fit f64; other powers, and f64 itself, are scaled by the largest magnitude.
fn norm(isa: Isa, p: f64, x: &Operand<'_>, start: usize, n: usize) -> f64 {
    let largest = || fold(isa, x, start, n, 0.0, |m, v| if v.abs() > m || v.is_nan() { v.abs() } else { m });
    if p == 0.0 {
        return fold(isa, x, start, n, 0.0, |count, v| count + (v != 0.0) as u8 as f64);
    }
    if p == f64::INFINITY {
        return largest();
    }
    if p == f64::NEG_INFINITY {
        return fold(isa, x, start, n, f64::INFINITY, |m, v| if v.abs() < m || v.is_nan() { v.abs() } else { m });
    }
    if p == 1.0 {
        return fold(isa, x, start, n, 0.0, |total, v| total + v.abs());
    }
    let m = largest();
    if m == 0.0 || !m.is_finite() {
        return m;
    }
    // A power of two, so that scaling rounds nothing.
    let scale = 2f64.powi(libm::ilogb(m).clamp(-1000, 1000));
    if p == 2.0 {
        return scale * fold(isa, x, start, n, 0.0, |total, v| total + (v / scale) * (v / scale)).sqrt();
    }
    scale * libm::pow(fold(isa, x, start, n, 0.0, |total, v| total + libm::pow((v / scale).abs(), p)), 1.0 / p)
}

/// The number of columns if the reduced dimensions lie side by side in memory and kept ones inside them: then rows are
/// added vector by vector. Kept dimensions may lie outside too.
fn column_major(x: &Array, dims: Dims) -> Option<usize> {
    let order: Vec<usize> = memory_order(x.layout()).into_iter().filter(|&d| x.shape()[d] > 1).collect();
    if x.layout().strides[*order.last()?] != 1 {
        return None;
    }
    let first = order.iter().position(|&d| dims.contains(d))?;
    let split = first + order[first..].iter().position(|&d| !dims.contains(d))?;
    let kept = || order[..first].iter().chain(&order[split..]);
    // The kept dimensions must be in logical order too, since the output is row-major.
    let sound = kept().all(|&d| !dims.contains(d)) && kept().is_sorted();
    sound.then(|| order[split..].iter().map(|&d| x.shape()[d]).product())
}

/// The values themselves; the second sum is not needed.
#[derive(Clone, Copy)]
struct Columns;

impl Terms for Columns {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, k: L) -> (L, L) {
        (x, k)
    }
}

/// Sums over the rows of an `[outer, rows, columns]` operand: f32 within a fixed number of rows, f64 across.
pub(super) fn column_sums<C: Compute>(
    isa: Isa,
    x: &Operand<'_>,
    outer: usize,
    rows: usize,
    columns: usize,
) -> Vec<f64> {
    // Very long rows are summed in strips: sums of few rows each would be more memory than what is summed.
    let wide = columns.clamp(1, 4 * BLOCK);
    let strips = columns.div_ceil(wide);
    let per_task = (TASK / wide).clamp(1, BLOCK);
    let tasks = rows.div_ceil(per_task).max(1);
    // Whole rows, as many as the first-level cache has room for: sums are loaded and stored once for all of them.
    let some = if strips > 1 { 1 } else { (8 * BLOCK / wide).clamp(1, per_task) };
    let zeros = |n: usize| vec![C::zero(); n];
    // [outer][strip][task]
    let parts: Vec<Vec<C>> = (0..outer * strips * tasks).into_par_iter().list_with(
        || (zeros(some * wide), zeros(wide), zeros(wide)),
        |(buffer, coefficients, unused), task| {
            let (first, strip, task) = (task / (strips * tasks) * rows, task / tasks % strips * wide, task % tasks);
            let count = wide.min(columns - strip);
            let mut acc = zeros(count);
            let until = rows.min((task + 1) * per_task);
            for row in (task * per_task..until).step_by(some) {
                let n = some.min(until - row) * count;
                let x = x.block(isa, (first + row) * columns + strip, n, buffer);
                sum_channels(isa, Columns, x, x, &coefficients[..count], [&mut acc, &mut unused[..count]]);
            }
            acc
        },
    );
    let mut total = vec![0.0; outer * columns];
    for (total, parts) in total.chunks_mut(columns).zip(parts.chunks(strips * tasks)) {
        total.par_chunks_mut(wide).zip(parts.par_chunks(tasks)).each(|(total, parts)| {
            parts.iter().for_each(|part| total.iter_mut().zip(part).for_each(|(total, part)| *total += part.as_f64()));
        });
    }
    recompute_columns(isa, x, rows, columns, &mut total);
    total
}

/// Sums that are not finite once more in f64, which holds those of numbers that are.
fn recompute_columns(isa: Isa, x: &Operand<'_>, rows: usize, columns: usize, total: &mut [f64]) {
    if total.iter().all(|sum| sum.is_finite()) {
        return;
    }
    let mut buffer = vec![0.0f64; columns];
    for (outer, total) in total.chunks_mut(columns).enumerate() {
        let lost: Vec<usize> = (0..columns).filter(|&c| !total[c].is_finite()).collect();
        lost.iter().for_each(|&c| total[c] = 0.0);
        for row in (0..rows).filter(|_| !lost.is_empty()) {
            let x = x.block(isa, (outer * rows + row) * columns, columns, &mut buffer);
            lost.iter().for_each(|&c| total[c] += x[c]);
        }
    }
}

/// Index of the first largest element; NaN counts as largest.
pub(super) fn argmax(isa: Isa, dim: usize, x: In<'_>, out: &mut Out<'_>) {
    let n = x.shape().get(dim).copied().unwrap_or(1);
    let operand = Operand::new(x, x.shape(), &order_with_last(x.shape().rank(), |d| d == dim));
    let mut row = vec![0.0f64; n];
    for (i, y) in elements_mut::<i64>(out.bytes()).iter_mut().enumerate() {
        operand.load(isa, i * n, &mut row);
        let mut best = 0;
        for (j, v) in row.iter().enumerate() {
            if !row[best].is_nan() && (v.is_nan() || *v > row[best]) {
                best = j;
            }
        }
        *y = best as i64;
    }
}

/// Gradient of Max, Min and Var: `g` and `y` have the reduced dimensions kept.
pub(super) fn backward<C: Compute>(
    cx: Context<'_>,
    kind: Reduce,
    dims: Dims,
    ins: &[In<'_>],
    out: &mut Out<'_>,
) -> Result<()> {
    let isa = cx.isa;
    let x = ins[2];
    let order = order_with_last(x.shape().rank(), |d| dims.contains(d));
    let n = dims.count(x.shape());
    let kept = Layout::contiguous(*ins[0].shape());
    let outer: Vec<usize> = order.iter().copied().filter(|&d| !dims.contains(d)).collect();
    let scalar =
        |i: usize| Operand::new(ins[i], &kept.shape, &[&outer[..], &dims.iter().collect::<Vec<_>>()[..]].concat());
    let (g, y, x) = (scalar(0), scalar(1), Operand::new(x, x.shape(), &order));
    super::rows::fill_rows::<C, ()>(cx, out, &order, n, |row, to| {
        let (mut pg, mut py) = ([C::zero()], [C::zero()]);
        g.load(isa, row, &mut pg);
        y.load(isa, row, &mut py);
        let (g, y) = (pg[0], py[0]);
        match kind {
            Reduce::Max | Reduce::Min => {
                x.load(isa, row * n, to);
                let hit = |v: C| v == y || v.is_nan() && y.is_nan();
                let share = g / C::from_f64(to.iter().filter(|&&v| hit(v)).count().max(1) as f64);
                to.iter_mut().for_each(|v| *v = if hit(*v) { share } else { C::zero() });
            }
            // In f64: distances from the mean may be tiny beside it, and their squares leave f32's range.
            Reduce::Var { correction } | Reduce::Std { correction } => {
                let (moments, divisor) = (moments(isa, &x, row * n, n), n as f64 - correction);
                let (share, std) = (g.as_f64() / divisor, moments.deviation(divisor));
                let factor = match kind {
                    Reduce::Std { .. } if std == 0.0 => 0.0,
                    Reduce::Std { .. } => share / std,
                    _ => 2.0 * share,
                };
                x.load(isa, row * n, to);
                // Where f64 does not hold the quotient whole, it holds the product.
                let is_split = matches!(kind, Reduce::Std { .. }) && std != 0.0 && !factor.is_normal();
                let slope = |d: f64| if is_split { d / std * share } else { d * factor };
                to.iter_mut().for_each(|v| *v = C::from_f64(slope(v.as_f64() - moments.mean)));
            }
            // From x, not from y: its rounding to 16 bit would be a relative error of the gradient.
            Reduce::LogSumExp => {
                let y = log_sum_exp::<C>(isa, &x, row * n, n);
                x.load(isa, row * n, to);
                to.iter_mut().for_each(|v| *v = g * exp(C::from_f64(v.as_f64() - y)));
            }
            Reduce::Prod => {
                // Π of the others: products before and after, so that zeros need no division.
                x.load(isa, row * n, to);
                let mut after = vec![Ranged::splat(1.0); n + 1];
                for i in (0..n).rev() {
                    after[i] = after[i + 1] * Ranged::splat(to[i].as_f64());
                }
                let mut before = Ranged::splat(g.as_f64());
                for i in 0..n {
                    let v = Ranged::splat(to[i].as_f64());
                    to[i] = C::from_f64((before * after[i + 1]).rounded());
                    before = before * v;
                }
            }
            Reduce::Norm { p } => {
                let y = norm(isa, p, &x, row * n, n);
                x.load(isa, row * n, to);
                let g = g.as_f64();
                // NaN is what the norm of a row with one is.
                let hit = |x: f64| x.abs() == y || x.is_nan() && y.is_nan();
                let hits = to.iter().filter(|v| hit(v.as_f64())).count() as f64;
                to.iter_mut().for_each(|v| {
                    let x = v.as_f64();
                    let sign = if x == 0.0 { 0.0 } else { x.signum() };
                    let slope = if p == 0.0 || y == 0.0 {
                        0.0
                    } else if p.is_infinite() {
                        sign / hits
                    } else if p == 1.0 {
                        sign
                    } else if p == 2.0 {
                        x / y
                    } else if x == 0.0 && !y.is_nan() {
                        0.0
                    } else {
                        sign * libm::pow(x.abs() / y, p - 1.0)
                    };
                    // Elements that the largest or smallest magnitude is not have no part in it, whatever arrives; a
                    // count has no slope at all.
                    let apart = p == 0.0 || p.is_infinite() && !hit(x);
                    *v = C::from_f64(if apart { 0.0 } else { g * slope });
                });
            }
            Reduce::Sum => to.fill(g),
            Reduce::Mean => to.fill(g / C::from_f64(n as f64)),
        }
    })?;
    Ok(())
}
