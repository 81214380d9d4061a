//! Layer and RMS norm: statistics of each row.

use super::{Given, fill_walk, flush, gradient_weights, statistics_at, vector, weights};
use crate::cpu::channels::{Channelwise, PerChannel, RowsBackward};
use crate::cpu::elementwise::{activate, before_activation};
use crate::cpu::operand::{BLOCK, Compute, Operand, TASK, in_storage};
use crate::cpu::reduce::SquaredDistance;
use crate::cpu::rows::{fill_rows, fill_rows_as, is_in_order, write};
use crate::memory::Pool;
use crate::op::{Norm, NormKind, Unary};
use crate::simd::{Beside, First, Isa, Lanes, Stored};
use crate::{Array, ArrayMut, Layout};

#[derive(Clone, Copy)]
struct Affine {
    mean: f64,
    rstd: f64,
}

impl PerChannel for Affine {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, [w, b, ..]: [L; 4]) -> L {
        ((x - L::splat(self.mean)) * L::splat(self.rstd)).mul_add(w, b)
    }
}

/// Mean (0 for RMS) and 1/√(var + eps) of one row; `beside` is asked for in the last pass over a short one.
fn moments<C: Compute, X: Stored<C>>(
    isa: Isa,
    norm: &Norm,
    given: &Given<C>,
    row: usize,
    x: &[X],
    beside: Option<Beside>,
) -> (C, C) {
    if let Some([mean, rstd]) = given {
        return (mean[row], rstd[row]);
    }
    let n = x.len() as f64;
    let blocks = |f: &dyn Fn(&[X]) -> C| x.chunks(BLOCK).map(|b| f(b).as_f64()).sum::<f64>();
    let centred = !matches!(norm.kind, NormKind::Rms { .. });
    let mean = if centred { C::from_f64(blocks(&|b| C::sum(isa, First, b, C::zero())) / n) } else { C::zero() };
    let beside = beside.filter(|_| x.len() <= BLOCK);
    let var = blocks(&|b| C::sum_beside(isa, SquaredDistance, b, mean, beside)) / n;
    (mean, C::from_f64(1.0 / (var + norm.eps).sqrt()))
}

/// One row of `x` with its mean and 1/deviation into `y`; returns these.
fn layer_row<C: Channelwise, X: Stored<C>, Y: Stored<C>>(
    isa: Isa,
    (mean, rstd): (C, C),
    x: &[X],
    [w, b]: [&[C]; 2],
    y: &mut [Y],
) -> (f64, f64) {
    let affine = Affine { mean: mean.as_f64(), rstd: rstd.as_f64() };
    C::per_channel(isa, affine, x, x, [w, b, b, b], y);
    (affine.mean, affine.rstd)
}

/// Rows written in place in the output's type T, if there is nothing to do after them; else `None`. They are widened once, not in each of
/// three passes.
fn layer_in_place<C: Channelwise, T: Stored<C>>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    given: &Given<C>,
    x: &Operand<'_>,
    weights: [&[C]; 2],
    out: &mut ArrayMut<'_>,
) -> Option<Vec<(f64, f64)>> {
    let len = weights[0].len();
    norm.act.is_none().then(|| {
        fill_rows_as::<C, T, _>(pool, out, len, len, |row, y, wide| {
            let in_place = x.is_borrowed::<C>(len);
            let x = x.block::<C>(isa, row * len, len, wide);
            let beside = in_place.then(|| Beside::new([x, x], y));
            layer_row(isa, moments(isa, norm, given, row, x, beside), x, weights, y)
        })
    })
}

pub(super) fn forward<C: Channelwise>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    dims: usize,
    given: Given<C>,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) {
    let shape = ins[0].shape();
    let order: Vec<usize> = (0..shape.rank()).collect();
    let len: usize = shape[shape.rank() - dims..].iter().product();
    let x = Operand::new(ins[0], bytes[0], shape, &order);
    let w = weights(isa, norm.affine, ins, bytes, 1, len, C::one());
    let b = weights(isa, norm.weights() == 2, ins, bytes, 2, len, C::zero());
    let dtype = outs[0].array().dtype();
    let dense = if len > 0 && is_in_order(&outs[0], &order) {
        in_storage!(dtype, layer_in_place::<C>(isa, pool, norm, &given, &x, [&w, &b], &mut outs[0]))
    } else {
        None
    };
    let stats = dense.unwrap_or_else(|| {
        fill_rows::<C, (f64, f64)>(isa, pool, &mut outs[0], &order, len, |row, y| {
            x.load(isa, row * len, y);
            let mut buffer = [C::zero(); BLOCK];
            let (mean, rstd) = moments::<C, C>(isa, norm, &given, row, y, None);
            let affine = Affine { mean: mean.as_f64(), rstd: rstd.as_f64() };
            for (i, y) in y.chunks_mut(BLOCK).enumerate() {
                let (n, from) = (y.len(), i * BLOCK);
                buffer[..n].copy_from_slice(y);
                let (w, b) = (&w[from..from + n], &b[from..from + n]);
                C::per_channel(isa, affine, &buffer[..n], &buffer[..n], [w, b, b, b], y);
            }
            act_in_place(isa, norm.act, y);
            (affine.mean, affine.rstd)
        })
    });
    if let [_, mean, rstd] = outs {
        write(isa, &stats.iter().map(|s| s.0).collect::<Vec<_>>(), mean);
        write(isa, &stats.iter().map(|s| s.1).collect::<Vec<_>>(), rstd);
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

impl<C: Channelwise> LayerSums<C> {
    /// Rows whose products with the gradient are added in the computing type.
    const SOME: usize = 16;

    fn new(len: usize) -> LayerSums<C> {
        LayerSums { rows: 0, dw: vec![C::zero(); len], db: vec![C::zero(); len], total: [vec![0.0; len], vec![0.0; len]] }
    }

    fn count(&mut self, rows: usize) {
        self.rows += rows;
        if self.rows.is_multiple_of(LayerSums::<C>::SOME) {
            flush(&mut self.total, [&mut self.dw, &mut self.db]);
        }
    }
}

impl<C: Channelwise> LayerRows<'_, C> {
    /// R rows from `row` on, in memory or in buffers.
    fn rows<X: Stored<C>, Y: Stored<C>, const R: usize>(
        &self,
        isa: Isa,
        row: usize,
        [g, x]: [[&[X]; R]; 2],
        dx: [&mut [Y]; R],
        sums: &mut LayerSums<C>,
    ) {
        let (len, n) = (self.len, self.len as f64);
        let scalars = std::array::from_fn(|r| {
            let (mean, rstd) = (self.mean[row + r], self.rstd[row + r].as_f64());
            let mut sums = [0.0f64; 2];
            for from in (0..len).step_by(BLOCK) {
                let part = from..len.min(from + BLOCK);
                let beside = (len <= BLOCK).then(|| Beside::new([g[r], x[r]], dx[r]));
                let part = C::row_sums(isa, &g[r][part.clone()], &x[r][part.clone()], &self.w[part], mean, beside);
                sums.iter_mut().zip(part).for_each(|(s, p)| *s += p.as_f64());
            }
            let slope = sums[1] / n * rstd * rstd * rstd;
            let shift = if self.centred { sums[0] / n * rstd } else { 0.0 };
            [mean.as_f64(), rstd, slope, shift]
        });
        C::rows_backward(isa, RowsBackward { g, x, w: &self.w, scalars, dx, dw: &mut sums.dw, db: &mut sums.db });
        sums.count(R);
    }
}

/// The rows from `first` on that `to` has room for, in place, if all are of type T and dense; else `None`.
fn layer_rows_dense<C: Channelwise, T: Stored<C>>(
    isa: Isa,
    layer: &LayerRows<'_, C>,
    first: usize,
    to: &mut [u8],
    sums: &mut LayerSums<C>,
) -> Option<()> {
    if layer.act.is_some() {
        return None;
    }
    let (g, x) = (layer.g.dense::<T>()?, layer.x.dense::<T>()?);
    let len = layer.len;
    for (i, to) in bytemuck::cast_slice_mut::<u8, T>(to).chunks_mut((2 * len).max(1)).enumerate() {
        let row = first + 2 * i;
        let (g, x) = (&g[row * len..][..to.len()], &x[row * len..][..to.len()]);
        if to.len() > len {
            let ((g0, g1), (x0, x1), (to0, to1)) = (g.split_at(len), x.split_at(len), to.split_at_mut(len));
            layer.rows(isa, row, [[g0, g1], [x0, x1]], [to0, to1], sums);
        } else {
            layer.rows(isa, row, [[g], [x]], [to], sums);
        }
    }
    Some(())
}

/// As [`layer_rows_dense`], through buffers.
fn layer_rows_blocks<C: Channelwise>(
    isa: Isa,
    layer: &LayerRows<'_, C>,
    first: usize,
    dtype: crate::DType,
    to: &mut [u8],
    sums: &mut LayerSums<C>,
) {
    let len = layer.len;
    let [mut pg, mut px, mut y, mut before, mut dx] = [(); 5].map(|()| vec![C::zero(); len]);
    for (i, to) in to.chunks_mut((len * dtype.size()).max(1)).enumerate() {
        let row = first + i;
        let (mut g, x) = (layer.g.block(isa, row * len, len, &mut pg), layer.x.block(isa, row * len, len, &mut px));
        if let Some(act) = layer.act {
            let affine = Affine { mean: layer.mean[row].as_f64(), rstd: layer.rstd[row].as_f64() };
            C::per_channel(isa, affine, x, x, [&layer.w, &layer.b, &layer.b, &layer.b], &mut y);
            before_activation(isa, act, g, &mut y, &mut before);
            g = &before;
        }
        layer.rows(isa, row, [[g], [x]], [&mut dx[..]], sums);
        C::store(isa, &dx, to, dtype);
    }
}

pub(super) fn backward<C: Channelwise>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    dims: usize,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) {
    let shape = ins[1].shape();
    let order: Vec<usize> = (0..shape.rank()).collect();
    let len: usize = shape[shape.rank() - dims..].iter().product();
    let at = statistics_at(norm);
    let [w, b] = gradient_weights(isa, norm, ins, bytes, len);
    let layer = LayerRows {
        len,
        centred: !matches!(norm.kind, NormKind::Rms { .. }),
        g: Operand::new(ins[0], bytes[0], shape, &order),
        x: Operand::new(ins[1], bytes[1], shape, &order),
        w,
        b,
        act: norm.act,
        mean: vector::<C>(isa, ins[at], bytes[at]),
        rstd: vector::<C>(isa, ins[at + 1], bytes[at + 1]),
    };
    let rows = layer.mean.len();
    // Tasks by the extents alone: at most 64 sets of partial sums.
    let per_task = (TASK / len.max(1)).max(rows.div_ceil(64)).next_multiple_of(LayerSums::<C>::SOME);
    let (first, rest) = outs.split_at_mut(1);
    let walk = Layout::with_order(*shape, &order);
    let totals = fill_walk::<C, _>(isa, pool, &mut first[0], &walk, per_task * len, |task, dtype, to| {
        let mut sums = LayerSums::<C>::new(len);
        let row = task * per_task;
        if in_storage!(dtype, layer_rows_dense::<C>(isa, &layer, row, to, &mut sums)).is_none() {
            layer_rows_blocks(isa, &layer, row, dtype, to, &mut sums);
        }
        flush(&mut sums.total, [&mut sums.dw, &mut sums.db]);
        sums.total
    });
    if norm.affine {
        let mut sums = [vec![0.0; len], vec![0.0; len]];
        for part in totals {
            sums.iter_mut().zip(part).for_each(|(t, p)| t.iter_mut().zip(p).for_each(|(t, p)| *t += p));
        }
        sums.iter().zip(rest).for_each(|(sum, out)| write(isa, sum, out));
    }
}
