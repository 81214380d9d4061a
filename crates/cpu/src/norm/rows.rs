//! Layer and RMS norm: statistics of each row.

use crate::kernel::{Context, In, Out};
use std::ops::Range;

use super::row_kernels::{RowBackward, RowForward, RowSums, normalised};
use super::row_moments::{is_centred, moments, moments_in_f64, over_blocks, row_sum};
use super::wide_rows::{WideRow, gradient_of_wide, is_wide, is_wide_backward, normalise_wide};
use super::{Given, fill_walk, flush, gradient_weights, statistics_at, vector, weights};
use crate::channels::{PerChannel, per_channel};
use crate::elementwise::{activate, before_activation};
use crate::operand::{BLOCK, Compute, Operand, TASK, in_storage};
use crate::rows::{fill_rows, fill_rows_as, is_in_order, write};
use crate::simd::{Isa, Lanes, Stored, prefetch};
use binade_tensor::op::{Norm, Unary};
use binade_tensor::{DType, Layout, Result, bf16, f16};

/// [`normalised`] with the statistics of a row.
#[derive(Clone, Copy)]
struct Affine {
    mean: f64,
    rstd: f64,
}

impl PerChannel for Affine {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, [w, b, ..]: [L; 4]) -> L {
        normalised(x, [L::splat(self.mean), L::splat(self.rstd)], [w, b])
    }
}

/// Rows from `first` on, one after the other in memory, into `y`, `past` the caches perhaps; their means and
/// 1/deviations.
fn layer_rows<C: Compute, X: Stored<C>, Y: Stored<C>>(
    isa: Isa,
    norm: &Norm,
    given: &Given<C>,
    first: usize,
    x: &[X],
    [w, b]: [&[C]; 2],
    y: &mut [Y],
    past: bool,
    stats: &mut [(f64, f64)],
) {
    let (len, last) = (w.len(), stats.len() - 1);
    let row = |i: usize| &x[i * len..(i + 1) * len];
    let mut sum = row_sum(isa, row(0));
    for (i, (y, stats)) in y.chunks_mut(len).zip(stats).enumerate() {
        // The last row has none ahead, and takes itself.
        let (x, ahead) = (row(i), row((i + 1).min(last)));
        let (mean, rstd) = moments(isa, norm, given, first + i, x, sum);
        *stats = (mean.as_f64(), rstd.as_f64());
        let scalars = [stats.0, stats.1];
        let again = || moments_in_f64(is_centred(norm), x);
        if let Some(wide) = WideRow::of(scalars, is_wide, len, norm.eps, again) {
            normalise_wide(wide, [w, b], y, |i| x[i].as_f64());
            sum = row_sum(isa, ahead);
            continue;
        }
        [sum] = over_blocks(len, |at| {
            let weights = [&w[at.clone()], &b[at.clone()]];
            let (ahead, x) = (&ahead[at.clone()], &x[at.clone()]);
            [C::dispatch(isa, RowForward { ahead, x, weights, scalars, y: &mut y[at], past })]
        });
    }
    if past {
        prefetch::fence();
    }
}

/// Rows read and written in place, the output in its type T, the input in T or C, if there is nothing to do after them;
/// else `None`.
fn layer_dense<C: Compute, T: Stored<C>>(
    cx: Context<'_>,
    norm: &Norm,
    given: &Given<C>,
    x: &Operand<'_>,
    weights: [&[C]; 2],
    out: &mut Out<'_>,
) -> Option<Result<Vec<(f64, f64)>>> {
    let Context { isa, pool } = cx;
    let len = weights[0].len();
    if norm.act.is_some() {
        return None;
    }
    let past = prefetch::is_past(out.array().numel() * size_of::<T>());
    if let Some(x) = x.dense::<T>() {
        return Some(fill_rows_as::<C, T, _>(pool, out, len, 0, |first, y, stats, _| {
            layer_rows::<C, T, T>(isa, norm, given, first, &x[first * len..][..y.len()], weights, y, past, stats);
        }));
    }
    let x = x.dense::<C>()?;
    Some(fill_rows_as::<C, T, _>(pool, out, len, 0, |first, y, stats, _| {
        layer_rows::<C, C, T>(isa, norm, given, first, &x[first * len..][..y.len()], weights, y, past, stats);
    }))
}

pub(super) fn forward<C: Compute>(
    cx: Context<'_>,
    norm: &Norm,
    dims: usize,
    given: Given<C>,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let isa = cx.isa;
    let shape = ins[0].shape();
    let order: Vec<usize> = (0..shape.rank()).collect();
    let len: usize = shape[shape.rank() - dims..].iter().product();
    let x = Operand::new(ins[0], shape, &order);
    let w = weights(isa, norm.affine, ins, 1, len, C::one());
    let b = weights(isa, norm.weights() == 2, ins, 2, len, C::zero());
    let dtype = outs[0].array().dtype();
    let dense = if len > 0 && is_in_order(&outs[0], &order) {
        in_storage!(dtype, layer_dense::<C>(cx, norm, &given, &x, [&w, &b], &mut outs[0]))
    } else {
        None
    };
    let stats = dense.unwrap_or_else(|| {
        fill_rows::<C, (f64, f64)>(cx, &mut outs[0], &order, len, |row, y| {
            x.load(isa, row * len, y);
            let mut buffer = [C::zero(); BLOCK];
            let (mean, rstd) = moments::<C, C>(isa, norm, &given, row, y, row_sum(isa, y));
            let affine = Affine { mean: mean.as_f64(), rstd: rstd.as_f64() };
            let again = || moments_in_f64::<C, C>(is_centred(norm), y);
            let wide = WideRow::of([affine.mean, affine.rstd], is_wide, len, norm.eps, again);
            for (i, y) in y.chunks_mut(BLOCK).enumerate() {
                let (n, from) = (y.len(), i * BLOCK);
                buffer[..n].copy_from_slice(y);
                normalise_block(isa, affine, wide, &buffer[..n], [&w[from..from + n], &b[from..from + n]], y);
            }
            act_in_place(isa, norm.act, y);
            (affine.mean, affine.rstd)
        })
    })?;
    if let [_, mean, rstd] = outs {
        write(isa, &stats.iter().map(|s| s.0).collect::<Vec<_>>(), mean);
        write(isa, &stats.iter().map(|s| s.1).collect::<Vec<_>>(), rstd);
    }
    Ok(())
}

/// Elements of a row, in vectors or one by one.
fn normalise_block<C: Compute>(
    isa: Isa,
    affine: Affine,
    wide: Option<WideRow>,
    x: &[C],
    [w, b]: [&[C]; 2],
    y: &mut [C],
) {
    match wide {
        Some(row) => normalise_wide(row, [w, b], y, |i| x[i].as_f64()),
        None => per_channel(isa, affine, x, x, [w, b, b, b], y),
    }
}

/// The fused activation, block by block while the row is in the first-level cache.
fn act_in_place<C: Compute>(isa: Isa, act: Option<Unary>, y: &mut [C]) {
    let Some(act) = act else { return };
    let mut before = [C::zero(); BLOCK];
    for y in y.chunks_mut(BLOCK) {
        before[..y.len()].copy_from_slice(y);
        activate(isa, act, &before[..y.len()], y);
    }
}

/// What the rows of a layer norm's gradient are computed from.
struct LayerRows<'a, C> {
    len: usize,
    centred: bool,
    eps: f64,
    g: Operand<'a>,
    x: Operand<'a>,
    w: Vec<C>,
    b: Vec<C>,
    act: Option<Unary>,
    mean: Vec<C>,
    rstd: Vec<C>,
}

/// Sums over rows by weight and bias: some rows in the computing type, then f64.
struct LayerSums<C> {
    rows: usize,
    dw: Vec<C>,
    db: Vec<C>,
    total: [Vec<f64>; 2],
}

impl<C: Compute> LayerSums<C> {
    /// Rows whose products with the gradient are added in the computing type.
    const SOME: usize = 16;

    fn new(len: usize) -> LayerSums<C> {
        LayerSums {
            rows: 0,
            dw: vec![C::zero(); len],
            db: vec![C::zero(); len],
            total: [vec![0.0; len], vec![0.0; len]],
        }
    }

    fn count(&mut self, isa: Isa, rows: usize) {
        self.rows += rows;
        if self.rows.is_multiple_of(LayerSums::<C>::SOME) {
            flush(isa, &mut self.total, [&mut self.dw, &mut self.db]);
        }
    }
}

impl<C: Compute> LayerRows<'_, C> {
    /// Of a row that wants it, what it is computed with element by element.
    fn wide<X: Stored<C>>(&self, row: usize, is_wide: fn(f64) -> bool, x: &[X]) -> Option<WideRow> {
        let scalars = [self.mean[row].as_f64(), self.rstd[row].as_f64()];
        WideRow::of(scalars, is_wide, self.len, self.eps, || moments_in_f64(self.centred, x))
    }

    /// Rows from `first` on, one after the other in memory or in buffers; dx `past` the caches perhaps.
    fn rows<G: Stored<C>, X: Stored<C>, Y: Stored<C>>(
        &self,
        isa: Isa,
        first: usize,
        (g, x): (&[G], &[X]),
        dx: &mut [Y],
        past: bool,
        sums: &mut LayerSums<C>,
    ) {
        let (len, w) = (self.len, &self.w[..]);
        let last = (dx.len() / len).saturating_sub(1);
        let row = |i: usize, at: &Range<usize>| (&g[i * len..][at.clone()], &x[i * len..][at.clone()]);
        let mut terms =
            over_blocks(len, |at| C::dispatch(isa, RowSums(&g[at.clone()], &x[at.clone()], &w[at], self.mean[first])));
        for (i, dx) in dx.chunks_mut(len).enumerate() {
            // The last row has none ahead, and takes itself.
            let next = (i + 1).min(last);
            let (rstd, mean_ahead) = (self.rstd[first + i].as_f64(), self.mean[first + next]);
            if let Some(wide) = self.wide(first + i, is_wide_backward, row(i, &(0..len)).1) {
                let (g, x) = row(i, &(0..len));
                let ins: [&dyn Fn(usize) -> f64; 2] = [&|i| g[i].as_f64(), &|i| x[i].as_f64()];
                let mut put = |i: usize, value| dx[i] = Y::from_f64(value);
                gradient_of_wide(self.centred, wide, ins, w, &mut put, [&mut sums.dw, &mut sums.db]);
                sums.count(isa, 1);
                terms = over_blocks(len, |at| {
                    let (g, x) = row(next, &at);
                    C::dispatch(isa, RowSums(g, x, &w[at], mean_ahead))
                });
                continue;
            }
            let slope = terms[1] / len as f64 * rstd * rstd * rstd;
            let shift = if self.centred { terms[0] / len as f64 * rstd } else { 0.0 };
            let scalars = [self.mean[first + i].as_f64(), rstd, slope, shift];
            terms = over_blocks(len, |at| {
                let (ahead, here) = (row(next, &at), row(i, &at));
                let (dx, sums) = (&mut dx[at.clone()], [&mut sums.dw[at.clone()], &mut sums.db[at.clone()]]);
                C::dispatch(isa, RowBackward { ahead, mean_ahead, here, scalars, w: &w[at], dx, past, sums })
            });
            sums.count(isa, 1);
        }
        if past {
            prefetch::fence();
        }
    }
}

/// The rows from `first` on that `to` has room for, in place, if all are of type T and dense, or the gradient is of 16
/// bit; else `None`.
fn layer_rows_dense<C: Compute, T: Stored<C>>(
    isa: Isa,
    layer: &LayerRows<'_, C>,
    first: usize,
    to: &mut [u8],
    sums: &mut LayerSums<C>,
) -> Option<()> {
    if layer.act.is_some() {
        return None;
    }
    let (x, to) = (layer.x.dense::<T>()?, bytemuck::cast_slice_mut::<u8, T>(to));
    let (past, at) = (prefetch::is_past(size_of_val(x)), first * layer.len..first * layer.len + to.len());
    let x = &x[at.clone()];
    if let Some(g) = layer.g.dense::<T>() {
        layer.rows(isa, first, (&g[at], x), to, past, sums);
        return Some(());
    }
    // What a product in 16 bit sends back to the f32 it was given.
    if const { matches!(T::DTYPE, DType::F32) } {
        if let Some(g) = layer.g.dense::<bf16>() {
            layer.rows(isa, first, (&g[at], x), to, past, sums);
            return Some(());
        }
        let g = layer.g.dense::<f16>()?;
        layer.rows(isa, first, (&g[at], x), to, past, sums);
        return Some(());
    }
    None
}

/// Rows that [`layer_rows_blocks`] widens at a time.
const ROWS: usize = 4;

/// As [`layer_rows_dense`], through buffers.
fn layer_rows_blocks<C: Compute>(
    isa: Isa,
    layer: &LayerRows<'_, C>,
    first: usize,
    dtype: binade_tensor::DType,
    to: &mut [u8],
    sums: &mut LayerSums<C>,
) {
    let len = layer.len;
    let [mut pg, mut px, mut y, mut before, mut dx] = [(); 5].map(|()| vec![C::zero(); ROWS * len]);
    for (i, to) in to.chunks_mut((ROWS * len * dtype.size()).max(1)).enumerate() {
        let (first, n) = (first + i * ROWS, to.len() / dtype.size());
        let (mut g, x) = (layer.g.block(isa, first * len, n, &mut pg), layer.x.block(isa, first * len, n, &mut px));
        if let Some(act) = layer.act {
            for (i, (x, y)) in x.chunks(len).zip(y.chunks_mut(len)).enumerate() {
                let affine = Affine { mean: layer.mean[first + i].as_f64(), rstd: layer.rstd[first + i].as_f64() };
                let wide = layer.wide(first + i, is_wide, x);
                normalise_block(isa, affine, wide, x, [&layer.w, &layer.b], y);
            }
            before_activation(isa, act, g, &mut y[..n], &mut before[..n]);
            g = &before[..n];
        }
        layer.rows(isa, first, (g, x), &mut dx[..n], false, sums);
        C::store(isa, &dx[..n], to, dtype);
    }
}

pub(super) fn backward<C: Compute>(
    cx: Context<'_>,
    norm: &Norm,
    dims: usize,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let isa = cx.isa;
    let shape = ins[1].shape();
    let order: Vec<usize> = (0..shape.rank()).collect();
    let len: usize = shape[shape.rank() - dims..].iter().product();
    let at = statistics_at(norm);
    let [w, b] = gradient_weights(isa, norm, ins, len);
    let layer = LayerRows {
        len,
        centred: is_centred(norm),
        eps: norm.eps,
        g: Operand::new(ins[0], shape, &order),
        x: Operand::new(ins[1], shape, &order),
        w,
        b,
        act: norm.act,
        mean: vector::<C>(isa, ins[at]),
        rstd: vector::<C>(isa, ins[at + 1]),
    };
    let rows = layer.mean.len();
    // Tasks by the extents alone: at most 64 sets of partial sums.
    let per_task = (TASK / len.max(1)).max(rows.div_ceil(64)).next_multiple_of(LayerSums::<C>::SOME);
    let (first, rest) = outs.split_at_mut(1);
    let walk = Layout::with_order(*shape, &order);
    let totals = fill_walk::<C, _, _>(
        cx,
        &mut first[0],
        &walk,
        per_task * len,
        || (),
        |(), task, dtype, to| {
            let mut sums = LayerSums::<C>::new(len);
            let row = task * per_task;
            if in_storage!(dtype, layer_rows_dense::<C>(isa, &layer, row, to, &mut sums)).is_none() {
                layer_rows_blocks(isa, &layer, row, dtype, to, &mut sums);
            }
            flush(isa, &mut sums.total, [&mut sums.dw, &mut sums.db]);
            sums.total
        },
    )?;
    if norm.affine {
        let mut sums = [vec![0.0; len], vec![0.0; len]];
        for part in totals {
            sums.iter_mut().zip(part).for_each(|(t, p)| t.iter_mut().zip(p).for_each(|(t, p)| *t += p));
        }
        sums.iter().zip(rest).for_each(|(sum, out)| write(isa, sum, out));
    }
    Ok(())
}
