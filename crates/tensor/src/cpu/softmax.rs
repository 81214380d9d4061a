//! Softmax and cross-entropy: one row at a time, shifted by the row's maximum.

use super::operand::{Compute, Operand, elements};
use super::rows::{fill_rows, order_with_last, write};
use crate::memory::Pool;
use crate::op::{CrossEntropy, Reduction};
use crate::simd::{First, Isa, Lanes, Map1, Map2};
use crate::{Array, ArrayMut, Error, Result};

#[derive(Clone, Copy)]
struct ExpMinus(f64);

impl Map1 for ExpMinus {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        (x - L::splat(self.0)).exp()
    }
}

#[derive(Clone, Copy)]
pub(super) struct ExpDistance;

impl Map2 for ExpDistance {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L, max: L) -> L {
        (x - max).exp()
    }
}

/// The largest element; NaN wins. Eight interleaved maxima, so that the loop is not one chain.
pub(super) fn row_max<C: Compute>(x: &[C]) -> C {
    let mut best = [C::neg_infinity(); 8];
    for chunk in x.chunks(8) {
        for (b, &v) in best.iter_mut().zip(chunk) {
            *b = if v > *b || v.is_nan() { v } else { *b };
        }
    }
    best.into_iter().fold(C::neg_infinity(), |a, b| if b > a || b.is_nan() { b } else { a })
}

pub(super) fn softmax<C: Compute>(isa: Isa, pool: &Pool, dim: usize, log: bool, x: &Array, bytes: &[u8], out: &mut ArrayMut<'_>) {
    let order = order_with_last(x.shape().rank(), |d| d == dim);
    let n = x.shape().get(dim).copied().unwrap_or(1);
    let operand = Operand::new(x, bytes, x.shape(), &order);
    fill_rows::<C, ()>(isa, pool, out, &order, n, |row, y| {
        let mut buffer = vec![C::zero(); n];
        let x = operand.block(isa, row * n, n, &mut buffer);
        let max = row_max(x);
        if log {
            // x − max is exact where it matters; subtracting the whole log-sum-exp at once would round max into it.
            let rest = C::sum(isa, ExpDistance, x, max).ln();
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - max) - rest);
        } else {
            C::map1(isa, ExpMinus(max.as_f64()), x, y);
            let total = C::sum(isa, First, y, C::zero());
            let inverse = C::one() / total;
            y.iter_mut().for_each(|y| *y = *y * inverse);
        }
    });
}

pub(super) fn backward<C: Compute>(
    isa: Isa,
    pool: &Pool,
    dim: usize,
    log: bool,
    ins: &[&Array],
    bytes: &[&[u8]],
    out: &mut ArrayMut<'_>,
) {
    let shape = ins[1].shape();
    let order = order_with_last(shape.rank(), |d| d == dim);
    let n = shape.get(dim).copied().unwrap_or(1);
    let (g, y) = (Operand::new(ins[0], bytes[0], shape, &order), Operand::new(ins[1], bytes[1], shape, &order));
    fill_rows::<C, ()>(isa, pool, out, &order, n, |row, to| {
        let (mut pg, mut py) = (vec![C::zero(); n], vec![C::zero(); n]);
        let (g, y) = (g.block(isa, row * n, n, &mut pg), y.block(isa, row * n, n, &mut py));
        if log {
            let total = C::sum(isa, First, g, C::zero());
            C::map1(isa, ExpMinus(0.0), y, to);
            to.iter_mut().zip(g).for_each(|(t, &g)| *t = g - *t * total);
        } else {
            let dot = C::dot(isa, g, y);
            to.iter_mut().zip(g.iter().zip(y)).for_each(|(t, (&g, &y))| *t = y * (g - dot));
        }
    });
}

/// Target classes, checked.
fn targets<'a>(loss: &CrossEntropy, target: &Array, bytes: &'a [u8], classes: usize) -> Result<std::borrow::Cow<'a, [i64]>> {
    let n = target.numel();
    let all = elements::<i64>(bytes);
    let values = if target.layout().is_contiguous() {
        std::borrow::Cow::Borrowed(&all[target.layout().offset..][..n])
    } else {
        let order: Vec<usize> = (0..target.shape().rank()).collect();
        let mut wide = vec![0.0f64; n];
        Operand::new(target, bytes, target.shape(), &order).load(Isa::Portable, 0, &mut wide);
        std::borrow::Cow::Owned(wide.into_iter().map(|v| v as i64).collect())
    };
    match values.iter().find(|&&t| t != loss.ignore_index && !(0..classes as i64).contains(&t)) {
        Some(&index) => Err(Error::IndexOutOfRange { op: "cross_entropy", index, size: classes, what: "classes" }),
        None => Ok(values),
    }
}

pub(super) fn cross_entropy<C: Compute>(
    isa: Isa,
    loss: &CrossEntropy,
    ins: &[&Array],
    bytes: &[&[u8]],
    out: &mut ArrayMut<'_>,
) -> Result<()> {
    use rayon::prelude::*;
    let shape = ins[0].shape();
    let (classes, rows) = (shape[1], ins[1].numel());
    let target = targets(loss, ins[1], bytes[1], classes)?;
    let operand = Operand::new(ins[0], bytes[0], shape, &order_with_last(shape.rank(), |d| d == 1));
    let values: Vec<f64> = (0..rows)
        .into_par_iter()
        .with_min_len((4096 / classes.max(1)).max(1))
        .map(|row| {
            if target[row] == loss.ignore_index {
                return 0.0;
            }
            let mut buffer = vec![C::zero(); classes];
            let x = operand.block(isa, row * classes, classes, &mut buffer);
            // ln Σ exp(x − max) and x − max are kept apart: their difference does not cancel against a large max.
            let max = row_max(x);
            let rest = C::sum(isa, ExpDistance, x, max).ln().as_f64();
            let nll = |v: C| rest - (v - max).as_f64();
            let mut value = (1.0 - loss.smoothing) * nll(x[target[row] as usize]);
            if loss.smoothing > 0.0 {
                value += loss.smoothing * x.iter().map(|&v| nll(v)).sum::<f64>() / classes as f64;
            }
            value
        })
        .collect();
    match loss.reduction {
        Reduction::None => write(isa, &values, out),
        Reduction::Sum => write(isa, &[values.iter().sum::<f64>()], out),
        Reduction::Mean => write(isa, &[values.iter().sum::<f64>() / counted(loss, &target)], out),
    }
    Ok(())
}

/// Number of targets that count.
fn counted(loss: &CrossEntropy, target: &[i64]) -> f64 {
    target.iter().filter(|&&t| t != loss.ignore_index).count() as f64
}

/// `g·(softmax − target)`; inputs g, logits, target. The softmax is normalised by its own sum: a saved log-sum-exp
/// would carry its rounding into every probability.
pub(super) fn cross_entropy_backward<C: Compute>(
    isa: Isa,
    pool: &Pool,
    loss: &CrossEntropy,
    ins: &[&Array],
    bytes: &[&[u8]],
    out: &mut ArrayMut<'_>,
) -> Result<()> {
    let shape = ins[1].shape();
    let classes = shape[1];
    let target = targets(loss, ins[2], bytes[2], classes)?;
    let order = order_with_last(shape.rank(), |d| d == 1);
    let operand = Operand::new(ins[1], bytes[1], shape, &order);
    let rows_order: Vec<usize> = (0..ins[2].shape().rank()).collect();
    let g = Operand::new(ins[0], bytes[0], ins[2].shape(), &rows_order);
    let divisor = C::from_f64(if loss.reduction == Reduction::Mean { counted(loss, &target) } else { 1.0 });
    fill_rows::<C, ()>(isa, pool, out, &order, classes, |row, to| {
        if target[row] == loss.ignore_index {
            return to.fill(C::zero());
        }
        let mut pg = [C::zero()];
        g.load(isa, row, &mut pg);
        let mut buffer = vec![C::zero(); classes];
        let x = operand.block(isa, row * classes, classes, &mut buffer);
        C::map1(isa, ExpMinus(row_max(x).as_f64()), x, to);
        let inverse = C::one() / C::sum(isa, First, to, C::zero());
        to.iter_mut().for_each(|p| *p = *p * inverse);
        let uniform = C::from_f64(loss.smoothing / classes as f64);
        to.iter_mut().for_each(|p| *p = *p - uniform);
        let class = &mut to[target[row] as usize];
        *class = *class - C::from_f64(1.0 - loss.smoothing);
        let factor = pg[0] / divisor;
        to.iter_mut().for_each(|p| *p = *p * factor);
    });
    Ok(())
}
