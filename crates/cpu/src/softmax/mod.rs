//! Softmax: one row at a time, shifted by the row's maximum.

mod cross_entropy;
mod row_kernels;

pub(super) use cross_entropy::{cross_entropy, cross_entropy_backward};
pub(super) use row_kernels::{ExpDistance, row_exp, row_max, scale};

use super::operand::{BLOCK, Compute, Operand, in_storage, ln};
use super::rows::{fill_rows, fill_rows_as, is_in_order, order_with_last};
use crate::kernel::{Context, In, Out};
use crate::simd::{First, Isa, Lanes, Map1, Map2, Stored, prefetch};
use binade_tensor::Result;
use row_kernels::{Slope, Turn, TurnBack};

/// `x − max − rest`
#[derive(Clone, Copy)]
struct LogRow(f64, f64);

impl Map1 for LogRow {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        (x - L::splat(self.0)) - L::splat(self.1)
    }
}

/// `g − eʸ·total`
#[derive(Clone, Copy)]
struct LogSlope(f64);

impl Map2 for LogSlope {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, y: L) -> L {
        g - y.exp() * L::splat(self.0)
    }
}

/// `x·factor`
#[derive(Clone, Copy)]
struct Times(f64);

impl Map1 for Times {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        x * L::splat(self.0)
    }
}

/// A buffer for a row: on the stack if it fits.
struct Buffer<C>([C; BLOCK], Vec<C>);

impl<C: Compute> Buffer<C> {
    fn new(n: usize) -> Buffer<C> {
        Buffer([C::zero(); BLOCK], vec![C::zero(); if n > BLOCK { n } else { 0 }])
    }

    fn get(&mut self) -> &mut [C] {
        if self.1.is_empty() { &mut self.0 } else { &mut self.1 }
    }
}

/// One row; `scratch` is as long.
fn softmax_row<C: Compute, X: Stored<C>, Y: Stored<C>>(isa: Isa, log: bool, x: &[X], y: &mut [Y], scratch: &mut [C]) {
    let max = row_max(isa, x);
    if log {
        // x − max is exact where it matters; subtracting the whole log-sum-exp at once would round max into it.
        let rest = ln(C::sum(isa, ExpDistance, x, max));
        C::map1(isa, LogRow(max.as_f64(), rest.as_f64()), x, y);
    } else {
        let inverse = C::one() / row_exp(isa, x, max, scratch);
        C::map1(isa, Times(inverse.as_f64()), scratch, y);
    }
}

/// Row `row` of a dense operand.
fn row<T>(x: &[T], row: usize, n: usize) -> &[T] {
    &x[row * n..(row + 1) * n]
}

/// Some rows of `n` elements of an output of `total`, one after the other in memory; `scratch` is as long as one row.
fn softmax_rows<C: Compute, X: Stored<C>, Y: Stored<C>>(
    isa: Isa,
    log: bool,
    [n, total]: [usize; 2],
    x: &[X],
    y: &mut [Y],
    scratch: &mut [C],
) {
    let past = prefetch::is_past(total * size_of::<Y>());
    let rows = y.len() / n;
    if log || rows < 2 {
        return y.chunks_mut(n).enumerate().for_each(|(i, y)| softmax_row(isa, log, row(x, i, n), y, scratch));
    }
    let mut inverse = C::one() / row_exp(isa, row(x, 0, n), row_max(isa, row(x, 0, n)), scratch);
    let mut max = row_max(isa, row(x, 1, n));
    for i in 1..rows {
        // The last row has none ahead, and takes itself.
        let (ahead, last) = (row(x, (i + 1).min(rows - 1), n), &mut y[(i - 1) * n..i * n]);
        let [most, sum] = C::dispatch(isa, Turn { ahead, here: row(x, i, n), max, exps: scratch, inverse, last, past });
        (max, inverse) = (most, C::one() / sum);
    }
    if past {
        prefetch::fence();
    }
    C::map1(isa, Times(inverse.as_f64()), scratch, &mut y[(rows - 1) * n..]);
}

/// Rows read and written in place, the output in its type T, the input in T or C; if they do not lie so in memory,
/// `None`.
fn softmax_dense<C: Compute, T: Stored<C>>(
    cx: Context<'_>,
    log: bool,
    n: usize,
    x: &Operand<'_>,
    out: &mut Out<'_>,
) -> Option<Result<()>> {
    let Context { isa, pool } = cx;
    let filled = if let Some(x) = x.dense::<T>() {
        fill_rows_as::<C, T, ()>(pool, out, n, n, |first, y, _, scratch| {
            softmax_rows::<C, T, T>(isa, log, [n, x.len()], &x[first * n..][..y.len()], y, scratch);
        })
    } else {
        let x = x.dense::<C>()?;
        fill_rows_as::<C, T, ()>(pool, out, n, n, |first, y, _, scratch| {
            softmax_rows::<C, C, T>(isa, log, [n, x.len()], &x[first * n..][..y.len()], y, scratch);
        })
    };
    Some(filled.map(drop))
}

pub(super) fn softmax<C: Compute>(cx: Context<'_>, dim: usize, log: bool, x: In<'_>, out: &mut Out<'_>) -> Result<()> {
    let isa = cx.isa;
    let order = order_with_last(x.shape().rank(), |d| d == dim);
    let n = x.shape().get(dim).copied().unwrap_or(1);
    let operand = Operand::new(x, x.shape(), &order);
    let in_order = is_in_order(out, &order);
    let dtype = out.array().dtype();
    if in_order && let Some(done) = in_storage!(dtype, softmax_dense::<C>(cx, log, n, &operand, out)) {
        return done;
    }
    fill_rows::<C, ()>(cx, out, &order, n, |row, y| {
        let (mut buffer, mut scratch) = (Buffer::<C>::new(n), Buffer::<C>::new(n));
        softmax_row::<C, C, C>(isa, log, operand.block(isa, row * n, n, buffer.get()), y, &mut scratch.get()[..n]);
    })?;
    Ok(())
}

fn backward_row<C: Compute, X: Stored<C>, Y: Stored<C>>(isa: Isa, log: bool, g: &[X], y: &[X], to: &mut [Y]) {
    if log {
        let total = C::sum(isa, First, g, C::zero());
        C::map2(isa, LogSlope(total.as_f64()), g, y, to);
    } else {
        let dot = C::dot(isa, g, y);
        C::map2(isa, Slope(dot.as_f64()), g, y, to);
    }
}

/// As [`softmax_rows`].
fn backward_rows<C: Compute, X: Stored<C>, Y: Stored<C>>(
    isa: Isa,
    log: bool,
    [n, total]: [usize; 2],
    [g, y]: [&[X]; 2],
    to: &mut [Y],
) {
    let past = prefetch::is_past(total * size_of::<Y>());
    if log {
        return to.chunks_mut(n).enumerate().for_each(|(i, to)| backward_row(isa, log, row(g, i, n), row(y, i, n), to));
    }
    let last = to.len() / n - 1;
    let mut dot = C::dot(isa, row(g, 0, n), row(y, 0, n));
    for (i, to) in to.chunks_mut(n).enumerate() {
        let [ahead, here] = [(i + 1).min(last), i].map(|i| [row(g, i, n), row(y, i, n)]);
        dot = C::dispatch(isa, TurnBack { ahead, here, dot, to, past });
    }
    if past {
        prefetch::fence();
    }
}

/// Rows read and written in place, if they lie so in memory; else `None`.
fn backward_dense<C: Compute, T: Stored<C>>(
    cx: Context<'_>,
    log: bool,
    n: usize,
    [g, y]: [&Operand<'_>; 2],
    out: &mut Out<'_>,
) -> Option<Result<()>> {
    let Context { isa, pool } = cx;
    let (g, y) = (g.dense::<T>()?, y.dense::<T>()?);
    let filled = fill_rows_as::<C, T, ()>(pool, out, n, 0, |first, to, _, _| {
        backward_rows::<C, T, T>(isa, log, [n, g.len()], [g, y].map(|x| &x[first * n..][..to.len()]), to);
    });
    Some(filled.map(drop))
}

pub(super) fn backward<C: Compute>(
    cx: Context<'_>,
    dim: usize,
    log: bool,
    ins: &[In<'_>],
    out: &mut Out<'_>,
) -> Result<()> {
    let isa = cx.isa;
    let shape = ins[1].shape();
    let order = order_with_last(shape.rank(), |d| d == dim);
    let n = shape.get(dim).copied().unwrap_or(1);
    let (g, y) = (Operand::new(ins[0], shape, &order), Operand::new(ins[1], shape, &order));
    let in_order = is_in_order(out, &order);
    let dtype = out.array().dtype();
    if in_order && let Some(done) = in_storage!(dtype, backward_dense::<C>(cx, log, n, [&g, &y], out)) {
        return done;
    }
    fill_rows::<C, ()>(cx, out, &order, n, |row, to| {
        let (mut pg, mut py) = (Buffer::<C>::new(n), Buffer::<C>::new(n));
        let (g, y) = (g.block(isa, row * n, n, pg.get()), y.block(isa, row * n, n, py.get()));
        backward_row::<C, C, C>(isa, log, g, y, to);
    })?;
    Ok(())
}
