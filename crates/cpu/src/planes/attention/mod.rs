//! Attention on tiles. Queries, keys, values and the output's gradient are split as they come; the weights, which are
//! between 0 and 1 and computed here, are split from f32, where what is below f32's normal range may be lost: it is
//! added to a sum near 1.

mod operands;

use crate::kernel::{In, Out};
use rayon::prelude::*;

use super::{Work, planes_of};
use crate::attention::{
    AskRows, ExpMinus, Geometry, KEYS, Mask, QUERIES, ScoreSlope, operand, rows_of, rows_of_gradients, store,
};
use crate::gemm::workspace;
use crate::operand::{Operand, elements_mut, exp, ln};
use crate::simd::Real as _;
use crate::simd::amx::{DEEP, SIDE};
use crate::softmax::{row_exp, row_max, scale};
use crate::tasks::Tasks as _;
use binade_tensor::Result;
use binade_tensor::op::Attention;
use operands::{Left, Matrix, Panels, Scratch, multiply, weights, weights_turned};

/// Operators with fewer products are not worth their packing.
const SMALL: usize = 1 << 16;

/// What is the same for all heads.
struct Heads<'a> {
    work: &'a Work<'a>,
    g: Geometry,
    mask: Option<Mask<'a>>,
}

impl Heads<'_> {
    /// Queries per tile.
    fn queries(&self) -> usize {
        if self.g.t < 2 * QUERIES { self.g.t } else { QUERIES }
    }

    /// Scores of a tile, scaled and masked, with hidden positions at −∞; rows are `ld` apart.
    fn scores(
        &self,
        head: usize,
        q: &Matrix,
        [first, rows]: [usize; 2],
        k: &Panels,
        [key, keys]: [usize; 2],
        to: &mut [f32],
        ld: usize,
    ) {
        let (work, g) = (self.work, &self.g);
        multiply(work, Left::of(q, first), rows, k, [0, q.ld], [key, keys], to, ld, false);
        let to = &mut to[..rows * ld];
        scale(work.cx.isa, g.scale as f32, to);
        for (i, row) in to.chunks_exact_mut(ld).enumerate() {
            if let Some(mask) = &self.mask {
                mask.apply(work.cx.isa, g, head, first + i, key, &mut row[..keys]);
            }
            let seen = if g.causal { (first + i + 1).saturating_sub(key).min(keys) } else { keys };
            row[seen..].fill(f32::NEG_INFINITY);
        }
    }

    fn forward(&self, head: usize, [q, k, v]: &[Operand<'_>; 3], out: &mut [f32], lse: &mut [f32]) -> Result<()> {
        let (work, g) = (self.work, &self.g);
        let (isa, kv, queries) = (work.cx.isa, g.key_head(head), self.queries());
        let q = Matrix::read(work, 0, q, head, g.t, g.d)?;
        let k = Matrix::read(work, 1, k, kv, g.s, g.d)?.turned(work)?;
        let v = Matrix::read(work, 2, v, kv, g.s, g.e)?.upright(work)?;
        let mut scratch = Scratch::new(work, queries)?;
        let (tile, p) = (scratch.tile.as_mut_slice::<f32>(), scratch.p.as_mut_slice::<f32>());
        let ld_out = padded(g.e);
        let mut acc = workspace::<f32>(work.cx.pool, queries * ld_out)?;
        let acc = &mut acc.as_mut_slice::<f32>()[..queries * ld_out];
        for first in (0..g.t).step_by(queries) {
            let rows = queries.min(g.t - first);
            let (mut max, mut total) = (vec![f32::NEG_INFINITY; rows], vec![0.0f32; rows]);
            acc.fill(0.0);
            let visible = g.visible(first, rows);
            for key in (0..visible).step_by(KEYS) {
                let keys = KEYS.min(visible - key);
                let ld = keys.next_multiple_of(DEEP);
                self.scores(head, &q, [first, rows], &k, [key, keys], tile, ld);
                for (i, (row, p)) in tile.chunks_exact(ld).zip(p.chunks_exact_mut(ld)).take(rows).enumerate() {
                    let largest = row_max(isa, row);
                    let new = if largest > max[i] || largest.is_nan() { largest } else { max[i] };
                    if new == f32::NEG_INFINITY {
                        p.fill(0.0);
                        continue;
                    }
                    let sum = row_exp(isa, row, new, p);
                    if max[i] == f32::NEG_INFINITY || max[i] == new {
                        total[i] += sum;
                    } else {
                        let fade = exp(max[i] - new);
                        total[i] = total[i] * fade + sum;
                        scale(isa, fade, &mut acc[i * ld_out..(i + 1) * ld_out]);
                    }
                    max[i] = new;
                    g.drop(head, first + i, key, &mut p[..keys]);
                }
                let left = weights(work, p, rows, ld, scratch.split.as_mut_slice());
                multiply(work, left, rows, &v, [key, ld], [0, g.e], acc, ld_out, true);
            }
            for i in 0..rows {
                // A query that sees no key: zeros, and a log-sum-exp from which backward gets zeros too.
                let unseen = total[i] == 0.0;
                let inverse = if unseen { 0.0 } else { 1.0 / total[i] };
                let to = &mut out[(first + i) * g.e..][..g.e];
                to.copy_from_slice(&acc[i * ld_out..][..g.e]);
                scale(isa, inverse, to);
                lse[first + i] = if unseen { f32::INFINITY } else { max[i] + ln(total[i]) };
            }
        }
        Ok(())
    }

    /// Inputs g, q, k, v, output, log-sum-exp; adds to zeros.
    fn backward(&self, head: usize, ins: &[Operand<'_>], [dq, dk, dv]: [&mut [f32]; 3]) -> Result<()> {
        let (work, g) = (self.work, &self.g);
        let (isa, kv, queries) = (work.cx.isa, g.key_head(head), self.queries());
        let go = Matrix::read(work, 0, &ins[0], head, g.t, g.e)?;
        let q = Matrix::read(work, 1, &ins[1], head, g.t, g.d)?;
        let k = Matrix::read(work, 2, &ins[2], kv, g.s, g.d)?;
        let v = Matrix::read(work, 3, &ins[3], kv, g.s, g.e)?.turned(work)?;
        if !work.is_exact() {
            return Ok(());
        }
        let (go_upright, q_upright, k_turned, k_upright) =
            (go.upright(work)?, q.upright(work)?, k.turned(work)?, k.upright(work)?);
        let mut lse = vec![0.0f32; g.t];
        ins[5].load(isa, head * g.t, &mut lse);
        let mut scratch = Scratch::new(work, queries)?;
        let (tile, p, dp) =
            (scratch.tile.as_mut_slice::<f32>(), scratch.p.as_mut_slice::<f32>(), scratch.dp.as_mut_slice::<f32>());
        let mut turned = workspace::<f32>(work.cx.pool, queries.next_multiple_of(DEEP) * KEYS)?;
        let turned = turned.as_mut_slice::<f32>();
        let (mut wide, mut out) = (vec![0.0f32; g.e], vec![0.0f32; g.e]);
        let outputs = AskRows::new(&ins[4], head, [g.t, g.e]);
        for first in (0..g.t).step_by(queries) {
            let rows = queries.min(g.t - first);
            let delta: Vec<f32> = (first..first + rows)
                .map(|i| {
                    outputs.at(i);
                    let (at, n) = ((head * g.t + i) * g.e, g.e);
                    f32::dot(isa, ins[0].block(isa, at, n, &mut wide), ins[4].block(isa, at, n, &mut out))
                })
                .collect();
            let visible = g.visible(first, rows);
            // A left operand that starts at a tile of queries; a tile of the last queries is padded with zeros.
            let places = [first, rows.next_multiple_of(DEEP)];
            for key in (0..visible).step_by(KEYS) {
                let keys = KEYS.min(visible - key);
                let ld = keys.next_multiple_of(DEEP);
                let (to_q, to_k, to_v) = (first * padded(g.d), key * padded(g.d), key * padded(g.e));
                self.scores(head, &q, [first, rows], &k_turned, [key, keys], tile, ld);
                for i in 0..rows {
                    let row = i * ld..(i + 1) * ld;
                    f32::map1(isa, ExpMinus(lse[first + i] as f64), &tile[row.clone()], &mut p[row.clone()]);
                    // dv takes the weights as they were used; dp passes through the same draw.
                    if g.dropout > 0.0 {
                        dp[row.clone()].copy_from_slice(&p[row.clone()]);
                        g.drop(head, first + i, key, &mut dp[row][..keys]);
                    }
                }
                let split = scratch.split.as_mut_slice();
                let used = if g.dropout > 0.0 { &mut *dp } else { &mut *p };
                let left = weights_turned(work, used, [rows, keys], ld, turned, split);
                multiply(work, left, keys, &go_upright, places, [0, g.e], &mut dv[to_v..], padded(g.e), true);
                multiply(work, Left::of(&go, first), rows, &v, [0, go.ld], [key, keys], dp, ld, false);
                for i in 0..rows {
                    let row = i * ld..(i + 1) * ld;
                    let dp = &mut dp[row.clone()];
                    g.drop(head, first + i, key, &mut dp[..keys]);
                    dp[keys..].fill(0.0);
                    let slope = ScoreSlope { delta: delta[i] as f64, scale: g.scale, finite: true };
                    f32::map2(isa, slope, &p[row.clone()], dp, &mut tile[row]);
                }
                let left = weights(work, tile, rows, ld, split);
                multiply(work, left, rows, &k_upright, [key, ld], [0, g.d], &mut dq[to_q..], padded(g.d), true);
                let left = weights_turned(work, tile, [rows, keys], ld, turned, split);
                multiply(work, left, keys, &q_upright, places, [0, g.d], &mut dk[to_k..], padded(g.d), true);
            }
        }
        Ok(())
    }
}

/// A row of results in an accumulator.
fn padded(columns: usize) -> usize {
    columns.next_multiple_of(SIDE)
}

fn serves(g: &Geometry) -> bool {
    g.t >= SIDE && g.s >= SIDE && g.d >= SIDE && g.e >= SIDE && g.t * g.s * g.d >= SMALL
}

pub(super) fn forward(work: &Work<'_>, attention: &Attention, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<bool> {
    let g = Geometry::new(attention, ins);
    let dtype = outs[0].array().dtype();
    if !serves(&g) || planes_of(ins[2].dtype()).is_none() {
        return Ok(false);
    }
    let x = [0, 1, 2].map(|i| operand(ins[i]));
    let heads = Heads { work, g, mask: Mask::new(attention, ins) };
    let (out, lse) = outs.split_at_mut(1);
    let out = rows_of(&mut out[0])?;
    let lse = &mut elements_mut::<f32>(lse[0].bytes())[..g.heads * g.t];
    out.into_par_iter().zip(lse.par_chunks_mut(g.t)).enumerate().try_each(|(head, (mut out, lse))| {
        let mut wide = workspace::<f32>(work.cx.pool, g.t * g.e)?;
        let wide = &mut wide.as_mut_slice::<f32>()[..g.t * g.e];
        heads.forward(head, &x, wide, lse)?;
        store(work.cx.isa, wide, g.e, g.e, &mut out, dtype);
        Ok::<(), binade_tensor::Error>(())
    })?;
    Ok(work.holds(0, 1))
}

/// Inputs g, q, k, v, output, log-sum-exp.
pub(super) fn backward(work: &Work<'_>, attention: &Attention, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<bool> {
    let g = Geometry::new(attention, &ins[1..]);
    if !serves(&g) || ins[..4].iter().any(|a| planes_of(a.dtype()).is_none()) || g.shared > 1 {
        return Ok(false);
    }
    let x: Vec<Operand<'_>> = ins.iter().map(|&x| operand(x)).collect();
    let heads = Heads { work, g, mask: Mask::new(attention, &ins[1..]) };
    let extents = [[g.t, g.d], [g.s, g.d], [g.s, g.e]];
    let dtypes = [0, 1, 2].map(|i| outs[i.min(outs.len() - 1)].array().dtype());
    let [dq, dk, dv] = rows_of_gradients(outs)?;
    dq.into_par_iter().zip(dk).zip(dv).enumerate().try_each(|(head, ((dq, dk), dv))| {
        let mut sums = Vec::new();
        for [rows, columns] in extents {
            let mut sum = workspace::<f32>(work.cx.pool, rows * padded(columns))?;
            sum.as_mut_slice::<f32>()[..rows * padded(columns)].fill(0.0);
            sums.push(sum);
        }
        if let [q, k, v] = &mut sums[..] {
            heads.backward(head, &x, [q.as_mut_slice(), k.as_mut_slice(), v.as_mut_slice()])?;
        }
        for (((sum, [_, columns]), mut out), dtype) in sums.iter_mut().zip(extents).zip([dq, dk, dv]).zip(dtypes) {
            store(work.cx.isa, sum.as_mut_slice::<f32>(), padded(columns), columns, &mut out, dtype);
        }
        Ok::<(), binade_tensor::Error>(())
    })?;
    // The gradients by queries and keys are sums of products of three.
    Ok(work.holds(1, 2) && work.holds(0, 3) && work.fits(&[0, 3, 1]) && work.fits(&[0, 3, 2]))
}
