//! Softmax and cross-entropy: one row at a time, shifted by the row's maximum.

use super::operand::{BLOCK, Compute, Operand, elements, in_storage};
use super::rows::{fill_rows, fill_rows_as, is_in_order, order_with_last, write};
use num_traits::Float;

use crate::memory::Pool;
use crate::op::{CrossEntropy, Reduction};
use crate::simd::{First, Isa, Kernel, Lanes, Map1, Map2, Stored, dispatch, halves, prefetch};
use crate::{Array, ArrayMut, Error, Result};

#[derive(Clone, Copy)]
pub(super) struct ExpDistance;

impl Map2 for ExpDistance {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L, max: L) -> L {
        (x - max).exp()
    }
}

/// `x − max − rest`
#[derive(Clone, Copy)]
struct LogRow(f64, f64);

impl Map1 for LogRow {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        (x - L::splat(self.0)) - L::splat(self.1)
    }
}

/// `y·(g − dot)`
#[derive(Clone, Copy)]
struct Slope(f64);

impl Map2 for Slope {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, y: L) -> L {
        y * (g - L::splat(self.0))
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

/// The larger; NaN wins.
#[inline(always)]
fn larger<C: Float>(a: C, b: C) -> C {
    if b > a || b.is_nan() { b } else { a }
}

/// The largest of 16.
#[inline(always)]
fn largest<C: Float>(mut parts: [C; 16]) -> C {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            parts[i] = larger(parts[i], parts[i + half]);
        }
    }
    parts[0]
}

/// The largest element; NaN wins.
struct Max<'a, X>(&'a [X]);

impl<X> Max<'_, X> {
    #[inline(always)]
    fn run_on<L: Lanes>(self) -> L::Elem
    where
        L::Elem: Compute,
        X: Stored<L::Elem>,
    {
        let x = self.0;
        let lowest = <L::Elem as Float>::neg_infinity();
        let mut parts = [lowest; 16];
        if x.len() < L::N {
            X::get_part::<L>(x).store(&mut parts[..L::N]);
            return parts[..x.len()].iter().fold(lowest, |a, &b| larger(a, b));
        }
        // Interleaved maxima, so that the loop is not one chain.
        let mut best = [L::splat(f64::NEG_INFINITY); 4];
        let chunks = x.chunks_exact(4 * L::N);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (i, best) in best.iter_mut().enumerate() {
                *best = best.max(X::get(&chunk[i * L::N..(i + 1) * L::N]));
            }
        }
        for part in rest.chunks_exact(L::N) {
            best[0] = best[0].max(X::get(part));
        }
        // The last ones, some of them again.
        best[1] = best[1].max(X::get(&x[x.len() - L::N..]));
        best[0].max(best[1]).max(best[2].max(best[3])).store(&mut parts[..L::N]);
        largest(parts)
    }
}

impl<X: Stored<f32>> Kernel for Max<'_, X> {
    type Output = f32;
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> f32 {
        self.run_on::<L>()
    }
}

/// `e^(x − max)` into `y`, and their sum over 16 interleaved parts.
struct ExpRow<'a, X, C>(&'a [X], C, &'a mut [C]);

impl<X: Stored<C>, C: Compute + std::ops::AddAssign> ExpRow<'_, X, C> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) -> C {
        let ExpRow(x, max, y) = self;
        let (n, max, zero) = (y.len(), L::broadcast(max), C::zero());
        let mut parts = [L::splat(0.0); 16];
        let count = 16 / L::N;
        let body = n - n % 16;
        for (x, y) in x[..body].chunks_exact(16).zip(y[..body].chunks_exact_mut(16)) {
            for (i, part) in parts.iter_mut().enumerate().take(count) {
                let e = (X::get::<L>(&x[i * L::N..(i + 1) * L::N]) - max).exp();
                e.store(&mut y[i * L::N..(i + 1) * L::N]);
                *part = *part + e;
            }
        }
        let mut sums = [zero; 16];
        for (i, part) in parts.iter().enumerate().take(count) {
            part.store(&mut sums[i * L::N..(i + 1) * L::N]);
        }
        let mut pad = [zero; 16];
        for at in (body..n).step_by(L::N) {
            let len = L::N.min(n - at);
            (X::get_part::<L>(&x[at..at + len]) - max).exp().store(&mut pad[..L::N]);
            y[at..at + len].copy_from_slice(&pad[..len]);
            sums[at - body..].iter_mut().zip(&pad[..len]).for_each(|(s, &e)| *s += e);
        }
        halves(&mut sums)
    }
}

impl<X: Stored<f32>> Kernel for ExpRow<'_, X, f32> {
    type Output = f32;
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> f32 {
        self.run_on::<L>()
    }
}

/// Multiplies in place.
struct Scale<'a>(f32, &'a mut [f32]);

impl Kernel for Scale<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        let Scale(factor, x) = self;
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Three rows of a softmax at once, so that memory is read and written evenly all the time: the maximum of the one ahead, the exponentials of
/// this one, and the quotients of the last one, whose exponentials lie where this one's will. Returns that maximum and this row's sum.
pub struct Turn<'a, C, X, Y> {
    ahead: &'a [X],
    here: &'a [X],
    max: C,
    exps: &'a mut [C],
    inverse: C,
    last: &'a mut [Y],
    /// Whether that is written past the caches.
    past: bool,
}

impl<C: Compute + std::ops::AddAssign, X: Stored<C>, Y: Stored<C>> Turn<'_, C, X, Y> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) -> [C; 2] {
        let Turn { ahead, here, max, exps, inverse, last, past } = self;
        let (max, inverse) = (L::broadcast(max), L::broadcast(inverse));
        let mut parts = [[L::splat(f64::NEG_INFINITY), L::splat(0.0)]; 16];
        let n = last.len();
        let (ahead, here, exps, body) = (&ahead[..n], &here[..n], &mut exps[..n], n - n % 16);
        let rows = ahead[..body].chunks_exact(16).zip(here[..body].chunks_exact(16));
        let chunks = rows.zip(exps[..body].chunks_exact_mut(16).zip(last[..body].chunks_exact_mut(16)));
        for ((ahead, here), (exps, last)) in chunks {
            prefetch::ask_to_read(ahead.as_ptr());
            if !past {
                prefetch::ask_to_write(last.as_ptr());
            }
            for (i, [most, sum]) in parts.iter_mut().enumerate().take(16 / L::N) {
                let at = i * L::N..(i + 1) * L::N;
                *most = most.max(X::get(&ahead[at.clone()]));
                Y::put_past(L::load(&exps[at.clone()]) * inverse, &mut last[at.clone()], past);
                let e = (X::get::<L>(&here[at.clone()]) - max).exp();
                e.store(&mut exps[at]);
                *sum = *sum + e;
            }
        }
        let [mut most, mut sums] = [[C::neg_infinity(); 16], [C::zero(); 16]];
        for (i, part) in parts.iter().enumerate().take(16 / L::N) {
            let at = i * L::N..(i + 1) * L::N;
            part[0].store(&mut most[at.clone()]);
            part[1].store(&mut sums[at]);
        }
        let mut pad = [C::zero(); 16];
        for at in (body..n).step_by(L::N) {
            let part = at..n.min(at + L::N);
            let lanes = at - body..part.end - body;
            X::get_part::<L>(&ahead[part.clone()]).store(&mut pad[..L::N]);
            most[lanes.clone()].iter_mut().zip(&pad).for_each(|(m, &x)| *m = larger(*m, x));
            Y::put_part(L::load_part(&exps[part.clone()]) * inverse, &mut last[part.clone()]);
            (X::get_part::<L>(&here[part.clone()]) - max).exp().store(&mut pad[..L::N]);
            sums[lanes].iter_mut().zip(&pad).for_each(|(s, &e)| *s += e);
            let len = part.len();
            exps[part].copy_from_slice(&pad[..len]);
        }
        [largest(most), halves(&mut sums)]
    }
}

impl<X: Stored<f32>, Y: Stored<f32>> Kernel for Turn<'_, f32, X, Y> {
    type Output = [f32; 2];
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> [f32; 2] {
        self.run_on::<L>()
    }
}

/// Two rows of a softmax's gradient at once: `Σ g·y` of the row ahead as [`Real::dot`] has it, which is returned, and `y·(g − dot)` of this one.
pub struct TurnBack<'a, C, X, Y> {
    ahead: [&'a [X]; 2],
    here: [&'a [X]; 2],
    dot: C,
    to: &'a mut [Y],
    /// Whether that is written past the caches.
    past: bool,
}

impl<C: Compute + std::ops::AddAssign, X: Stored<C>, Y: Stored<C>> TurnBack<'_, C, X, Y> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) -> C {
        let TurnBack { ahead, here, dot, to, past } = self;
        let (n, slope) = (to.len(), Slope(dot.as_f64()));
        let ([g_ahead, y_ahead], [g, y], body) = (ahead.map(|x| &x[..n]), here.map(|x| &x[..n]), n - n % 16);
        let mut parts = [L::splat(0.0); 16];
        let rows = g_ahead[..body].chunks_exact(16).zip(y_ahead[..body].chunks_exact(16));
        let chunks = rows.zip(g[..body].chunks_exact(16).zip(y[..body].chunks_exact(16)).zip(to[..body].chunks_exact_mut(16)));
        for ((g_ahead, y_ahead), ((g, y), to)) in chunks {
            prefetch::ask_to_read(g_ahead.as_ptr());
            prefetch::ask_to_read(y_ahead.as_ptr());
            if !past {
                prefetch::ask_to_write(to.as_ptr());
            }
            for (i, part) in parts.iter_mut().enumerate().take(16 / L::N) {
                let at = i * L::N..(i + 1) * L::N;
                *part = X::get::<L>(&g_ahead[at.clone()]).mul_add(X::get(&y_ahead[at.clone()]), *part);
                Y::put_past(slope.eval(X::get::<L>(&g[at.clone()]), X::get(&y[at.clone()])), &mut to[at], past);
            }
        }
        for (part, at) in parts.iter_mut().zip((body..n).step_by(L::N)) {
            let at = at..n.min(at + L::N);
            *part = X::get_part::<L>(&g_ahead[at.clone()]).mul_add(X::get_part(&y_ahead[at.clone()]), *part);
            Y::put_part(slope.eval(X::get_part::<L>(&g[at.clone()]), X::get_part(&y[at.clone()])), &mut to[at]);
        }
        let mut sums = [C::zero(); 16];
        for (i, part) in parts.iter().enumerate().take(16 / L::N) {
            part.store(&mut sums[i * L::N..(i + 1) * L::N]);
        }
        halves(&mut sums)
    }
}

impl<X: Stored<f32>, Y: Stored<f32>> Kernel for TurnBack<'_, f32, X, Y> {
    type Output = f32;
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> f32 {
        self.run_on::<L>()
    }
}

/// The types with these kernels.
pub trait Rows: Compute {
    /// The largest element; NaN wins.
    fn row_max<X: Stored<Self>>(isa: Isa, x: &[X]) -> Self;
    /// `x ← x·factor`
    fn scale(isa: Isa, factor: Self, x: &mut [Self]);
    /// `y = e^(x − max)`; returns Σ y.
    fn row_exp<X: Stored<Self>>(isa: Isa, x: &[X], max: Self, y: &mut [Self]) -> Self;
    /// See [`Turn`].
    fn turn<X: Stored<Self>, Y: Stored<Self>>(isa: Isa, turn: Turn<'_, Self, X, Y>) -> [Self; 2];
    /// See [`TurnBack`].
    fn turn_back<X: Stored<Self>, Y: Stored<Self>>(isa: Isa, turn: TurnBack<'_, Self, X, Y>) -> Self;
}

impl Rows for f32 {
    fn row_max<X: Stored<f32>>(isa: Isa, x: &[X]) -> f32 {
        dispatch(isa, Max(x))
    }
    fn scale(isa: Isa, factor: f32, x: &mut [f32]) {
        dispatch(isa, Scale(factor, x));
    }
    fn row_exp<X: Stored<f32>>(isa: Isa, x: &[X], max: f32, y: &mut [f32]) -> f32 {
        dispatch(isa, ExpRow(x, max, y))
    }
    fn turn<X: Stored<f32>, Y: Stored<f32>>(isa: Isa, turn: Turn<'_, f32, X, Y>) -> [f32; 2] {
        dispatch(isa, turn)
    }
    fn turn_back<X: Stored<f32>, Y: Stored<f32>>(isa: Isa, turn: TurnBack<'_, f32, X, Y>) -> f32 {
        dispatch(isa, turn)
    }
}

impl Rows for f64 {
    fn row_max<X: Stored<f64>>(_isa: Isa, x: &[X]) -> f64 {
        Max(x).run_on::<f64>()
    }
    fn scale(_isa: Isa, factor: f64, x: &mut [f64]) {
        x.iter_mut().for_each(|x| *x *= factor);
    }
    fn row_exp<X: Stored<f64>>(_isa: Isa, x: &[X], max: f64, y: &mut [f64]) -> f64 {
        ExpRow(x, max, y).run_on::<f64>()
    }
    fn turn<X: Stored<f64>, Y: Stored<f64>>(_isa: Isa, turn: Turn<'_, f64, X, Y>) -> [f64; 2] {
        turn.run_on::<f64>()
    }
    fn turn_back<X: Stored<f64>, Y: Stored<f64>>(_isa: Isa, turn: TurnBack<'_, f64, X, Y>) -> f64 {
        turn.run_on::<f64>()
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
fn softmax_row<C: Rows, X: Stored<C>, Y: Stored<C>>(isa: Isa, log: bool, x: &[X], y: &mut [Y], scratch: &mut [C]) {
    let max = C::row_max(isa, x);
    if log {
        // x − max is exact where it matters; subtracting the whole log-sum-exp at once would round max into it.
        let rest = C::sum(isa, ExpDistance, x, max).ln();
        C::map1(isa, LogRow(max.as_f64(), rest.as_f64()), x, y);
    } else {
        let inverse = C::one() / C::row_exp(isa, x, max, scratch);
        C::map1(isa, Times(inverse.as_f64()), scratch, y);
    }
}

/// Row `row` of a dense operand.
fn row<T>(x: &[T], row: usize, n: usize) -> &[T] {
    &x[row * n..(row + 1) * n]
}

/// Some rows of `n` elements of an output of `total`, one after the other in memory; `scratch` is as long as one row.
fn softmax_rows<C: Rows, X: Stored<C>, Y: Stored<C>>(
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
    let mut inverse = C::one() / C::row_exp(isa, row(x, 0, n), C::row_max(isa, row(x, 0, n)), scratch);
    let mut max = C::row_max(isa, row(x, 1, n));
    for i in 1..rows {
        // The last row has none ahead, and takes itself.
        let (ahead, last) = (row(x, (i + 1).min(rows - 1), n), &mut y[(i - 1) * n..i * n]);
        let [most, sum] = C::turn(isa, Turn { ahead, here: row(x, i, n), max, exps: scratch, inverse, last, past });
        (max, inverse) = (most, C::one() / sum);
    }
    if past {
        prefetch::settle();
    }
    C::map1(isa, Times(inverse.as_f64()), scratch, &mut y[(rows - 1) * n..]);
}

/// Rows read and written in place, the output in its type T, the input in T or C; if they do not lie so in memory, `None`.
fn softmax_dense<C: Rows, T: Stored<C>>(
    isa: Isa,
    pool: &Pool,
    log: bool,
    n: usize,
    x: &Operand<'_>,
    out: &mut ArrayMut<'_>,
) -> Option<()> {
    if let Some(x) = x.dense::<T>() {
        fill_rows_as::<C, T, ()>(pool, out, n, n, |first, y, _, scratch| {
            softmax_rows::<C, T, T>(isa, log, [n, x.len()], &x[first * n..][..y.len()], y, scratch);
        });
    } else {
        let x = x.dense::<C>()?;
        fill_rows_as::<C, T, ()>(pool, out, n, n, |first, y, _, scratch| {
            softmax_rows::<C, C, T>(isa, log, [n, x.len()], &x[first * n..][..y.len()], y, scratch);
        });
    }
    Some(())
}

pub(super) fn softmax<C: Rows>(isa: Isa, pool: &Pool, dim: usize, log: bool, x: &Array, bytes: &[u8], out: &mut ArrayMut<'_>) {
    let order = order_with_last(x.shape().rank(), |d| d == dim);
    let n = x.shape().get(dim).copied().unwrap_or(1);
    let operand = Operand::new(x, bytes, x.shape(), &order);
    let in_order = is_in_order(out, &order);
    if in_order && in_storage!(out.array().dtype(), softmax_dense::<C>(isa, pool, log, n, &operand, out)).is_some() {
        return;
    }
    fill_rows::<C, ()>(isa, pool, out, &order, n, |row, y| {
        let (mut buffer, mut scratch) = (Buffer::<C>::new(n), Buffer::<C>::new(n));
        softmax_row::<C, C, C>(isa, log, operand.block(isa, row * n, n, buffer.get()), y, &mut scratch.get()[..n]);
    });
}

fn backward_row<C: Rows, X: Stored<C>, Y: Stored<C>>(isa: Isa, log: bool, g: &[X], y: &[X], to: &mut [Y]) {
    if log {
        let total = C::sum(isa, First, g, C::zero());
        C::map2(isa, LogSlope(total.as_f64()), g, y, to);
    } else {
        let dot = C::dot(isa, g, y);
        C::map2(isa, Slope(dot.as_f64()), g, y, to);
    }
}

/// As [`softmax_rows`].
fn backward_rows<C: Rows, X: Stored<C>, Y: Stored<C>>(
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
        dot = C::turn_back(isa, TurnBack { ahead, here, dot, to, past });
    }
    if past {
        prefetch::settle();
    }
}

/// Rows read and written in place, if they lie so in memory; else `None`.
fn backward_dense<C: Rows, T: Stored<C>>(
    isa: Isa,
    pool: &Pool,
    log: bool,
    n: usize,
    [g, y]: [&Operand<'_>; 2],
    out: &mut ArrayMut<'_>,
) -> Option<()> {
    let (g, y) = (g.dense::<T>()?, y.dense::<T>()?);
    fill_rows_as::<C, T, ()>(pool, out, n, 0, |first, to, _, _| {
        backward_rows::<C, T, T>(isa, log, [n, g.len()], [g, y].map(|x| &x[first * n..][..to.len()]), to);
    });
    Some(())
}

pub(super) fn backward<C: Rows>(
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
    let in_order = is_in_order(out, &order);
    if in_order && in_storage!(out.array().dtype(), backward_dense::<C>(isa, pool, log, n, [&g, &y], out)).is_some() {
        return;
    }
    fill_rows::<C, ()>(isa, pool, out, &order, n, |row, to| {
        let (mut pg, mut py) = (Buffer::<C>::new(n), Buffer::<C>::new(n));
        let (g, y) = (g.block(isa, row * n, n, pg.get()), y.block(isa, row * n, n, py.get()));
        backward_row::<C, C, C>(isa, log, g, y, to);
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

pub(super) fn cross_entropy<C: Rows>(
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
            let mut buffer = Buffer::<C>::new(classes);
            let x = operand.block(isa, row * classes, classes, buffer.get());
            // ln Σ exp(x − max) and x − max are kept apart: their difference does not cancel against a large max.
            let max = C::row_max(isa, x);
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
pub(super) fn cross_entropy_backward<C: Rows>(
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
        let mut buffer = Buffer::<C>::new(classes);
        let x = operand.block(isa, row * classes, classes, buffer.get());
        let inverse = C::one() / C::row_exp(isa, x, C::row_max(isa, x), to);
        C::scale(isa, inverse, to);
        let uniform = C::from_f64(loss.smoothing / classes as f64);
        to.iter_mut().for_each(|p| *p = *p - uniform);
        let class = &mut to[target[row] as usize];
        *class = *class - C::from_f64(1.0 - loss.smoothing);
        let factor = pg[0] / divisor;
        to.iter_mut().for_each(|p| *p = *p * factor);
    });
    Ok(())
}
