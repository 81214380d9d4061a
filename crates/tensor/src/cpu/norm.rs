//! Normalisations. Statistics in two passes, in the computing type with f64 across blocks; never in 16 bit.

use rayon::prelude::*;

use super::elementwise::activate;
use super::operand::{BLOCK, Compute, Operand, TASK, fill, memory_order};
use super::reduce::SquaredDistance;
use super::rows::{fill_rows, order_with_last, write};
use crate::memory::Pool;
use crate::op::{Norm, NormKind, Unary};
use crate::simd::{First, Isa};
use crate::{Array, ArrayMut, Shape};

/// Mean (0 for RMS) and 1/√(var + eps) of one row.
fn moments<C: Compute>(isa: Isa, norm: &Norm, x: &[C]) -> (C, C) {
    let n = x.len() as f64;
    let blocks = |f: &dyn Fn(&[C]) -> C| x.chunks(BLOCK).map(|b| f(b).as_f64()).sum::<f64>();
    let centred = !matches!(norm.kind, NormKind::Rms { .. });
    let mean = if centred { C::from_f64(blocks(&|b| C::sum(isa, First, b, C::zero())) / n) } else { C::zero() };
    let var = blocks(&|b| C::sum(isa, SquaredDistance, b, mean)) / n;
    (mean, C::from_f64(1.0 / (var + norm.eps).sqrt()))
}

/// A vector of per-channel (or per-feature) values.
fn vector<C: Compute>(isa: Isa, array: &Array, bytes: &[u8]) -> Vec<C> {
    let order: Vec<usize> = (0..array.shape().rank()).collect();
    let mut out = vec![C::zero(); array.numel()];
    Operand::new(array, bytes, array.shape(), &order).load(isa, 0, &mut out);
    out
}

/// Elements per group that share one weight, and the first weight of a group: rows of layer norm walk all weights, a row of
/// group norm walks `channels` of them, each `span` times.
struct Weights {
    span: usize,
    per_row: usize,
    rows_per_sample: usize,
}

impl Weights {
    fn new(norm: &Norm, shape: &Shape) -> Weights {
        match norm.kind {
            NormKind::Layer { dims } | NormKind::Rms { dims } => {
                Weights { span: 1, per_row: shape[shape.rank() - dims..].iter().product(), rows_per_sample: 1 }
            }
            NormKind::Group { groups } => {
                Weights { span: shape[2..].iter().product(), per_row: shape[1] / groups, rows_per_sample: groups }
            }
            NormKind::Batch | NormKind::Fixed => Weights { span: 1, per_row: 1, rows_per_sample: 1 },
        }
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let first = row % self.rows_per_sample * self.per_row;
        first..first + self.per_row
    }
}

fn row_order(norm: &Norm, shape: &Shape) -> smallvec::SmallVec<[usize; 8]> {
    let rank = shape.rank();
    match norm.kind {
        NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } => (0..rank).collect(),
        NormKind::Batch | NormKind::Fixed => order_with_last(rank, |d| d != 1),
    }
}

pub(super) fn forward<C: Compute>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) {
    match norm.kind {
        NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } => {
            rows_forward::<C>(isa, pool, norm, ins, bytes, outs)
        }
        NormKind::Batch => {
            let n = ins[0].numel() / ins[0].shape()[1].max(1);
            let x = Channels::new(ins[0], bytes[0]);
            let zero = vec![C::zero(); ins[0].shape()[1]];
            let [total, _] = x.sums::<C>(isa, None, &zero, |_, v, _| (v, C::zero()));
            let mean: Vec<C> = total.iter().map(|t| C::from_f64(t / n as f64)).collect();
            let [squares, _] = x.sums::<C>(isa, None, &mean, |_, v, m| ((v - m) * (v - m), C::zero()));
            let var: Vec<f64> = squares.iter().map(|s| s / n as f64).collect();
            let rstd: Vec<C> = var.iter().map(|v| C::from_f64(1.0 / (v + norm.eps).sqrt())).collect();
            apply::<C>(isa, norm, ins, bytes, &mean, &rstd, &mut outs[0]);
            write(isa, &mean, &mut outs[1]);
            write(isa, &rstd, &mut outs[2]);
            write(isa, &var, &mut outs[3]);
        }
        NormKind::Fixed => {
            let at = ins.len() - 2;
            let mean = vector::<C>(isa, ins[at], bytes[at]);
            let rstd = rstd_of::<C>(isa, norm, ins[at + 1], bytes[at + 1]);
            apply::<C>(isa, norm, ins, bytes, &mean, &rstd, &mut outs[0]);
        }
    }
}

fn rstd_of<C: Compute>(isa: Isa, norm: &Norm, var: &Array, bytes: &[u8]) -> Vec<C> {
    vector::<C>(isa, var, bytes).into_iter().map(|v| C::from_f64(1.0 / (v.as_f64() + norm.eps).sqrt())).collect()
}

fn rows_forward<C: Compute>(isa: Isa, pool: &Pool, norm: &Norm, ins: &[&Array], bytes: &[&[u8]], outs: &mut [ArrayMut<'_>]) {
    let shape = ins[0].shape();
    let order = row_order(norm, shape);
    let weights = Weights::new(norm, shape);
    let len = weights.per_row * weights.span;
    let x = Operand::new(ins[0], bytes[0], shape, &order);
    let w = if norm.affine { vector::<C>(isa, ins[1], bytes[1]) } else { vec![] };
    let b = if norm.weights() == 2 { vector::<C>(isa, ins[2], bytes[2]) } else { vec![C::zero(); w.len()] };
    let stats = fill_rows::<C, (f64, f64)>(isa, pool, &mut outs[0], &order, len, |row, y| {
        x.load(isa, row * len, y);
        let (mean, rstd) = moments(isa, norm, y);
        if norm.affine {
            let range = weights.range(row);
            for ((y, &w), &b) in y.chunks_mut(weights.span).zip(&w[range.clone()]).zip(&b[range]) {
                y.iter_mut().for_each(|v| *v = (*v - mean) * rstd * w + b);
            }
        } else {
            y.iter_mut().for_each(|v| *v = (*v - mean) * rstd);
        }
        act_in_place(isa, norm.act, y);
        (mean.as_f64(), rstd.as_f64())
    });
    write(isa, &stats.iter().map(|s| s.0).collect::<Vec<_>>(), &mut outs[1]);
    write(isa, &stats.iter().map(|s| s.1).collect::<Vec<_>>(), &mut outs[2]);
}

/// `(x − mean)·rstd·weight + bias` with per-channel values, in memory order.
fn apply<C: Compute>(isa: Isa, norm: &Norm, ins: &[&Array], bytes: &[&[u8]], mean: &[C], rstd: &[C], out: &mut ArrayMut<'_>) {
    let channels = mean.len();
    let (w, b) = if norm.affine {
        (vector::<C>(isa, ins[1], bytes[1]), vector::<C>(isa, ins[2], bytes[2]))
    } else {
        (vec![C::one(); channels], vec![C::zero(); channels])
    };
    let x = Operand::new(ins[0], bytes[0], ins[0].shape(), &memory_order(out.array().layout()));
    let walk = Channels::walk(out.array());
    fill::<C>(isa, out, |start, y| {
        x.load(isa, start, y);
        walk.each(start, y, |c, v| (v - mean[c]) * rstd[c] * w[c] + b[c]);
        act_in_place(isa, norm.act, y);
    });
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

/// Channel (dimension 1) of every element of an array in its memory order.
struct Walk {
    /// Elements in a row that have the same channel.
    span: usize,
    channels: usize,
}

impl Walk {
    fn each<C: Compute>(&self, start: usize, y: &mut [C], f: impl Fn(usize, C) -> C) {
        if self.span == 1 {
            // Channels-last: whole pixels, so that the loop over channels has no division.
            let mut done = 0;
            while done < y.len() {
                let c = (start + done) % self.channels;
                let n = (self.channels - c).min(y.len() - done);
                for (i, v) in y[done..done + n].iter_mut().enumerate() {
                    *v = f(c + i, *v);
                }
                done += n;
            }
        } else {
            for (i, v) in y.iter_mut().enumerate() {
                *v = f((start + i) / self.span % self.channels, *v);
            }
        }
    }
}

/// The image of a per-channel normalisation.
struct Channels<'a> {
    array: &'a Array,
    bytes: &'a [u8],
}

impl<'a> Channels<'a> {
    fn new(array: &'a Array, bytes: &'a [u8]) -> Channels<'a> {
        Channels { array, bytes }
    }

    fn walk(array: &Array) -> Walk {
        let order = memory_order(array.layout());
        let at = order.iter().position(|&d| d == 1).unwrap_or(0);
        Walk { span: order[at + 1..].iter().map(|&d| array.shape()[d]).product(), channels: array.shape()[1] }
    }

    /// Per channel, Σ of both results of `f(g, x, mean[c])`: fixed tasks in the computing type, added in f64 in order.
    fn sums<C: Compute>(
        &self,
        isa: Isa,
        g: Option<(&Array, &[u8])>,
        mean: &[C],
        f: impl Fn(C, C, C) -> (C, C) + Sync,
    ) -> [Vec<f64>; 2] {
        let order = memory_order(self.array.layout());
        let x = Operand::new(self.array, self.bytes, self.array.shape(), &order);
        let g = g.map(|(array, bytes)| Operand::new(array, bytes, self.array.shape(), &order));
        let walk = Channels::walk(self.array);
        let (n, channels) = (self.array.numel(), mean.len());
        let parts: Vec<[Vec<C>; 2]> = (0..n.div_ceil(TASK))
            .into_par_iter()
            .map(|task| {
                let mut acc = [vec![C::zero(); channels], vec![C::zero(); channels]];
                let (mut px, mut pg) = ([C::zero(); BLOCK], [C::zero(); BLOCK]);
                for start in (task * TASK..n.min((task + 1) * TASK)).step_by(BLOCK) {
                    let len = BLOCK.min(n - start);
                    let x = x.block(isa, start, len, &mut px);
                    let g = g.as_ref().map_or(x, |g| g.block(isa, start, len, &mut pg));
                    let [first, second] = &mut acc;
                    let mut done = 0;
                    while done < len {
                        let at = start + done;
                        let c = at / walk.span % channels;
                        if walk.span == 1 {
                            let run = (channels - c).min(len - done);
                            for i in 0..run {
                                let (a, b) = f(g[done + i], x[done + i], mean[c + i]);
                                first[c + i] = first[c + i] + a;
                                second[c + i] = second[c + i] + b;
                            }
                            done += run;
                        } else {
                            let run = (walk.span - at % walk.span).min(len - done);
                            let (mut sa, mut sb) = ([C::zero(); 8], [C::zero(); 8]);
                            for i in 0..run {
                                let (a, b) = f(g[done + i], x[done + i], mean[c]);
                                sa[i % 8] = sa[i % 8] + a;
                                sb[i % 8] = sb[i % 8] + b;
                            }
                            first[c] = first[c] + sa.into_iter().fold(C::zero(), |t, v| t + v);
                            second[c] = second[c] + sb.into_iter().fold(C::zero(), |t, v| t + v);
                            done += run;
                        }
                    }
                }
                acc
            })
            .collect();
        let mut total = [vec![0.0; channels], vec![0.0; channels]];
        for part in parts {
            for (t, p) in total.iter_mut().zip(part) {
                t.iter_mut().zip(p).for_each(|(t, p)| *t += p.as_f64());
            }
        }
        total
    }
}

/// Inputs g, x, weight if affine, mean, rstd (variance for Fixed).
pub(super) fn backward<C: Compute>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) {
    let at = 2 + norm.affine as usize;
    let mean = vector::<C>(isa, ins[at], bytes[at]);
    let w = if norm.affine { vector::<C>(isa, ins[2], bytes[2]) } else { vec![] };
    match norm.kind {
        NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } => {
            let rstd = vector::<C>(isa, ins[at + 1], bytes[at + 1]);
            rows_backward::<C>(isa, pool, norm, ins, bytes, &mean, &rstd, &w, outs);
        }
        NormKind::Batch | NormKind::Fixed => {
            let batch = matches!(norm.kind, NormKind::Batch);
            let rstd = if batch {
                vector::<C>(isa, ins[at + 1], bytes[at + 1])
            } else {
                rstd_of::<C>(isa, norm, ins[at + 1], bytes[at + 1])
            };
            let x = Channels::new(ins[1], bytes[1]);
            let [sum_g, sum_gx] = x.sums::<C>(isa, Some((ins[0], bytes[0])), &mean, |g, x, m| (g, g * (x - m)));
            let n = (ins[1].numel() / mean.len().max(1)) as f64;
            let scale: Vec<C> = (0..mean.len()).map(|c| rstd[c] * if norm.affine { w[c] } else { C::one() }).collect();
            // dx = (g − mean(g) − x̂·mean(g·x̂))·rstd·w, x̂ = (x − mean)·rstd
            let shift: Vec<C> = sum_g.iter().map(|s| C::from_f64(if batch { s / n } else { 0.0 })).collect();
            let slope: Vec<C> =
                (0..mean.len()).map(|c| if batch { C::from_f64(sum_gx[c] / n) * rstd[c] * rstd[c] } else { C::zero() }).collect();
            let order = memory_order(outs[0].array().layout());
            let operand = |i: usize| Operand::new(ins[i], bytes[i], ins[1].shape(), &order);
            let (g, x) = (operand(0), operand(1));
            let walk = Channels::walk(outs[0].array());
            fill::<C>(isa, &mut outs[0], |start, y| {
                let (mut px, n) = ([C::zero(); BLOCK], y.len());
                let x = x.block(isa, start, n, &mut px);
                g.load(isa, start, y);
                let mut centred = [C::zero(); BLOCK];
                centred[..n].copy_from_slice(x);
                walk.each(start, &mut centred[..n], |c, v| (v - mean[c]) * slope[c] + shift[c]);
                y.iter_mut().zip(&centred).for_each(|(y, &c)| *y = *y - c);
                walk.each(start, y, |c, v| v * scale[c]);
            });
            if norm.affine {
                let dw: Vec<f64> = (0..mean.len()).map(|c| sum_gx[c] * rstd[c].as_f64()).collect();
                write(isa, &dw, &mut outs[1]);
                write(isa, &sum_g, &mut outs[2]);
            }
        }
    }
}

fn rows_backward<C: Compute>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    ins: &[&Array],
    bytes: &[&[u8]],
    mean: &[C],
    rstd: &[C],
    w: &[C],
    outs: &mut [ArrayMut<'_>],
) {
    let shape = ins[1].shape();
    let order = row_order(norm, shape);
    let weights = Weights::new(norm, shape);
    let (span, len) = (weights.span, weights.per_row * weights.span);
    let (g, x) = (Operand::new(ins[0], bytes[0], shape, &order), Operand::new(ins[1], bytes[1], shape, &order));
    fill_rows::<C, ()>(isa, pool, &mut outs[0], &order, len, |row, y| {
        let (mut pg, mut px) = (vec![C::zero(); len], vec![C::zero(); len]);
        g.load(isa, row * len, &mut pg);
        x.load(isa, row * len, &mut px);
        let (m, r) = (mean[row], rstd[row]);
        if norm.affine {
            for (g, &w) in pg.chunks_mut(span).zip(&w[weights.range(row)]) {
                g.iter_mut().for_each(|g| *g = *g * w);
            }
        }
        px.iter_mut().for_each(|x| *x = (*x - m) * r);
        let n = len as f64;
        let centred = !matches!(norm.kind, NormKind::Rms { .. });
        let mean_g = C::from_f64(pg.chunks(BLOCK).map(|b| C::sum(isa, First, b, C::zero()).as_f64()).sum::<f64>() / n);
        let mean_gx =
            C::from_f64(pg.chunks(BLOCK).zip(px.chunks(BLOCK)).map(|(g, x)| C::dot(isa, g, x).as_f64()).sum::<f64>() / n);
        for ((y, &g), &x) in y.iter_mut().zip(&pg).zip(&px) {
            *y = (if centred { g - mean_g } else { g } - x * mean_gx) * r;
        }
    });
    if !norm.affine || len == 0 {
        return;
    }
    // Per weight, over rows: fixed tasks of rows in the computing type, added in f64 in order.
    let rows = mean.len();
    let per_task = (TASK / len).max(1);
    let count = w.len();
    let parts: Vec<[Vec<f64>; 2]> = (0..rows.div_ceil(per_task))
        .into_par_iter()
        .map(|task| {
            let mut acc = [vec![0.0; count], vec![0.0; count]];
            let (mut pg, mut px) = (vec![C::zero(); len], vec![C::zero(); len]);
            for row in task * per_task..rows.min((task + 1) * per_task) {
                let (g, x) = (g.block(isa, row * len, len, &mut pg), x.block(isa, row * len, len, &mut px));
                let (m, r) = (mean[row], rstd[row]);
                for (k, c) in weights.range(row).enumerate() {
                    for i in k * span..(k + 1) * span {
                        acc[0][c] += (g[i] * ((x[i] - m) * r)).as_f64();
                        acc[1][c] += g[i].as_f64();
                    }
                }
            }
            acc
        })
        .collect();
    let mut total = [vec![0.0; count], vec![0.0; count]];
    for part in parts {
        for (t, p) in total.iter_mut().zip(part) {
            t.iter_mut().zip(p).for_each(|(t, p)| *t += p);
        }
    }
    for (total, out) in total.iter().zip(&mut outs[1..]) {
        write(isa, total, out);
    }
}
