//! Scaled dot-product attention in tiles with a running log-sum-exp (Dao et al., FlashAttention, 2022): no T×S matrix exists.

use rayon::prelude::*;

use super::gemm::small;
use super::operand::{Compute, Operand};
use super::rows::write;
use super::tile::Tile;
use crate::op::Attention;
use crate::simd::{Isa, Lanes, Map1, Map2};
use crate::{Array, ArrayMut, DType, Key, Result};

/// Rows of queries and of keys per tile.
const TILE: usize = 64;

/// Extents of one attention.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub(super) heads: usize,
    pub(super) t: usize,
    pub(super) s: usize,
    pub(super) d: usize,
    pub(super) e: usize,
    pub(super) scale: f64,
    pub(super) causal: bool,
    /// Heads of q per sample, and how many of them share a head of k and v.
    per_sample: usize,
    pub(super) shared: usize,
    pub(super) dropout: f64,
    key: Key,
}

impl Geometry {
    pub(super) fn new(attention: &Attention, q: &Array, k: &Array, v: &Array) -> Geometry {
        let r = q.shape().rank();
        let (t, d) = (q.shape()[r - 2], q.shape()[r - 1]);
        let heads = |x: &Array| if r >= 3 { x.shape()[r - 3] } else { 1 };
        Geometry {
            per_sample: heads(q),
            shared: heads(q).checked_div(heads(k)).unwrap_or(1).max(1),
            dropout: attention.dropout,
            key: attention.key,
            heads: q.shape()[..r - 2].iter().product(),
            t,
            s: k.shape()[r - 2],
            d,
            e: v.shape()[r - 1],
            scale: attention.scale.unwrap_or(1.0 / (d as f64).sqrt()),
            causal: attention.causal,
        }
    }

    /// The head of k and v of a head of q.
    pub(super) fn key_head(&self, head: usize) -> usize {
        let per_sample = self.per_sample / self.shared;
        head / self.per_sample * per_sample + head % self.per_sample / self.shared
    }

    /// Multiplies the weights of one query and `to.len()` keys from `key` on by 0 or 1/(1 − p): the same draw forward and
    /// backward.
    pub(super) fn drop<C: Compute>(&self, head: usize, query: usize, key: usize, to: &mut [C]) {
        if self.dropout > 0.0 {
            let (first, scale) = ((head * self.t + query) * self.s + key, C::from_f64(1.0 / (1.0 - self.dropout)));
            let threshold = (self.dropout * 4294967296.0) as u64;
            for (i, v) in to.iter_mut().enumerate() {
                *v = if (self.key.bits(first + i) as u64) < threshold { C::zero() } else { *v * scale };
            }
        }
    }

    /// Keys that any of the queries `first..first + rows` sees.
    pub(super) fn visible(&self, first: usize, rows: usize) -> usize {
        if self.causal { self.s.min(first + rows) } else { self.s }
    }
}

#[derive(Clone, Copy)]
pub(super) struct ExpMinus(pub(super) f64);

impl Map1 for ExpMinus {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        (x - L::splat(self.0)).exp()
    }
}

/// `p·(dp − delta)·scale`
#[derive(Clone, Copy)]
pub(super) struct ScoreSlope {
    pub(super) delta: f64,
    pub(super) scale: f64,
}

impl Map2 for ScoreSlope {
    #[inline(always)]
    fn eval<L: Lanes>(self, p: L, dp: L) -> L {
        p * (dp - L::splat(self.delta)) * L::splat(self.scale)
    }
}

/// One head's matrix in row-major order.
fn head<C: Compute>(isa: Isa, x: &Operand<'_>, head: usize, rows: usize, columns: usize) -> Vec<C> {
    let mut out = vec![C::zero(); rows * columns];
    x.load(isa, head * rows * columns, &mut out);
    out
}

pub(super) fn operand<'a>(array: &Array, bytes: &'a [u8]) -> Operand<'a> {
    let order: Vec<usize> = (0..array.shape().rank()).collect();
    Operand::new(array, bytes, array.shape(), &order)
}

/// The mask, broadcast to `[…, T, S]`, and whether it is bool.
pub(super) struct Mask<'a>(Operand<'a>, bool);

impl<'a> Mask<'a> {
    pub(super) fn new(q: &Array, s: usize, mask: &Array, bytes: &'a [u8]) -> Mask<'a> {
        let r = q.shape().rank();
        let mut shape = q.shape().to_vec();
        shape[r - 1] = s;
        let order: Vec<usize> = (0..r).collect();
        Mask(Operand::new(mask, bytes, &shape, &order), mask.dtype() == DType::Bool)
    }

    /// Hides or shifts the scores of one query and the keys from `key` on.
    pub(super) fn apply<C: Compute>(&self, isa: Isa, g: &Geometry, head: usize, query: usize, key: usize, to: &mut [C]) {
        let mut values = [C::zero(); TILE];
        for (i, to) in to.chunks_mut(TILE).enumerate() {
            let values = &mut values[..to.len()];
            self.0.load(isa, (head * g.t + query) * g.s + key + i * TILE, values);
            for (s, &m) in to.iter_mut().zip(&*values) {
                *s = match self.1 {
                    true if m == C::zero() => C::neg_infinity(),
                    true => *s,
                    false => *s + m,
                };
            }
        }
    }
}

/// Scores of a tile, scaled and masked, with hidden positions at −∞.
fn scores<C: Tile>(
    isa: Isa,
    g: &Geometry,
    mask: Option<&Mask<'_>>,
    head: usize,
    q: &[C],
    first: usize,
    rows: usize,
    k: &[C],
    key: usize,
    keys: usize,
    to: &mut [C],
) {
    small(isa, [rows, g.d, keys], &q[first * g.d..], [g.d, 1], &k[key * g.d..], [1, g.d], false, to, keys);
    let scale = C::from_f64(g.scale);
    for (i, row) in to.chunks_mut(keys).take(rows).enumerate() {
        C::scale(isa, scale, row);
        if let Some(mask) = mask {
            mask.apply(isa, g, head, first + i, key, row);
        }
        if g.causal {
            let seen = (first + i + 1).saturating_sub(key).min(keys);
            row[seen..].fill(C::neg_infinity());
        }
    }
}

pub(super) fn forward<C: Tile>(
    isa: Isa,
    attention: &Attention,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<()> {
    let g = Geometry::new(attention, ins[0], ins[1], ins[2]);
    let (q, k, v) = (operand(ins[0], bytes[0]), operand(ins[1], bytes[1]), operand(ins[2], bytes[2]));
    let mask = attention.mask.then(|| Mask::new(ins[0], g.s, ins[3], bytes[3]));
    let heads: Vec<(Vec<C>, Vec<C>)> = (0..g.heads)
        .into_par_iter()
        .map(|h| {
            let kv = g.key_head(h);
            let (q, k, v) = (head::<C>(isa, &q, h, g.t, g.d), head::<C>(isa, &k, kv, g.s, g.d), head::<C>(isa, &v, kv, g.s, g.e));
            let (mut out, mut lse) = (vec![C::zero(); g.t * g.e], vec![C::zero(); g.t]);
            let (mut tile, mut p) = (vec![C::zero(); TILE * TILE], vec![C::zero(); TILE * TILE]);
            for first in (0..g.t).step_by(TILE) {
                let rows = TILE.min(g.t - first);
                let (mut max, mut total) = (vec![C::neg_infinity(); rows], vec![C::zero(); rows]);
                let acc = &mut out[first * g.e..(first + rows) * g.e];
                let visible = g.visible(first, rows);
                for key in (0..visible).step_by(TILE) {
                    let keys = TILE.min(visible - key);
                    scores(isa, &g, mask.as_ref(), h, &q, first, rows, &k, key, keys, &mut tile);
                    for i in 0..rows {
                        let row = &tile[i * keys..(i + 1) * keys];
                        let largest = C::row_max(isa, row);
                        let new = if largest > max[i] || largest.is_nan() { largest } else { max[i] };
                        if new == C::neg_infinity() {
                            p[i * keys..(i + 1) * keys].fill(C::zero());
                            continue;
                        }
                        let fade = (max[i] - new).exp();
                        total[i] = total[i] * fade + C::row_exp(isa, row, new, &mut p[i * keys..(i + 1) * keys]);
                        if fade != C::one() {
                            C::scale(isa, fade, &mut acc[i * g.e..(i + 1) * g.e]);
                        }
                        max[i] = new;
                        g.drop(h, first + i, key, &mut p[i * keys..(i + 1) * keys]);
                    }
                    small(isa, [rows, keys, g.e], &p, [keys, 1], &v[key * g.e..], [g.e, 1], true, acc, g.e);
                }
                for i in 0..rows {
                    // A query that sees no key: zeros, and a log-sum-exp from which backward gets zeros too.
                    let unseen = total[i] == C::zero();
                    let inverse = if unseen { C::zero() } else { C::one() / total[i] };
                    C::scale(isa, inverse, &mut acc[i * g.e..(i + 1) * g.e]);
                    lse[first + i] = if unseen { C::infinity() } else { max[i] + total[i].ln() };
                }
            }
            (out, lse)
        })
        .collect();
    let (out, lse): (Vec<Vec<C>>, Vec<Vec<C>>) = heads.into_iter().unzip();
    write(isa, &out.concat(), &mut outs[0]);
    write(isa, &lse.concat(), &mut outs[1]);
    Ok(())
}

/// Inputs g, q, k, v, output, log-sum-exp. Probabilities are computed anew tile by tile.
pub(super) fn backward<C: Tile>(
    isa: Isa,
    attention: &Attention,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<()> {
    let g = Geometry::new(attention, ins[1], ins[2], ins[3]);
    let all: Vec<Operand<'_>> = ins.iter().zip(bytes).map(|(a, b)| operand(a, b)).collect();
    let mask = attention.mask.then(|| Mask::new(ins[1], g.s, ins[6], bytes[6]));
    let heads: Vec<[Vec<C>; 3]> = (0..g.heads)
        .into_par_iter()
        .map(|h| {
            let (go, q, k, v, o) = (
                head::<C>(isa, &all[0], h, g.t, g.e),
                head::<C>(isa, &all[1], h, g.t, g.d),
                head::<C>(isa, &all[2], g.key_head(h), g.s, g.d),
                head::<C>(isa, &all[3], g.key_head(h), g.s, g.e),
                head::<C>(isa, &all[4], h, g.t, g.e),
            );
            let lse = head::<C>(isa, &all[5], h, g.t, 1);
            let (mut dq, mut dk, mut dv) = (vec![C::zero(); g.t * g.d], vec![C::zero(); g.s * g.d], vec![C::zero(); g.s * g.e]);
            let (mut p, mut tile, mut dp) =
                (vec![C::zero(); TILE * TILE], vec![C::zero(); TILE * TILE], vec![C::zero(); TILE * TILE]);
            for first in (0..g.t).step_by(TILE) {
                let rows = TILE.min(g.t - first);
                let delta: Vec<C> =
                    (first..first + rows).map(|i| C::dot(isa, &go[i * g.e..(i + 1) * g.e], &o[i * g.e..(i + 1) * g.e])).collect();
                let visible = g.visible(first, rows);
                for key in (0..visible).step_by(TILE) {
                    let keys = TILE.min(visible - key);
                    scores(isa, &g, mask.as_ref(), h, &q, first, rows, &k, key, keys, &mut tile);
                    for i in 0..rows {
                        C::map1(
                            isa,
                            ExpMinus(lse[first + i].as_f64()),
                            &tile[i * keys..(i + 1) * keys],
                            &mut p[i * keys..(i + 1) * keys],
                        );
                    }
                    // dv takes the weights as they were used; dp passes through the same draw.
                    let used = &mut dp[..rows * keys];
                    used.copy_from_slice(&p[..rows * keys]);
                    for i in 0..rows {
                        g.drop(h, first + i, key, &mut used[i * keys..(i + 1) * keys]);
                    }
                    small(isa, [keys, rows, g.e], used, [1, keys], &go[first * g.e..], [g.e, 1], true, &mut dv[key * g.e..], g.e);
                    small(isa, [rows, g.e, keys], &go[first * g.e..], [g.e, 1], &v[key * g.e..], [1, g.e], false, &mut dp, keys);
                    for i in 0..rows {
                        g.drop(h, first + i, key, &mut dp[i * keys..(i + 1) * keys]);
                        let slope = ScoreSlope { delta: delta[i].as_f64(), scale: g.scale };
                        let row = i * keys..(i + 1) * keys;
                        C::map2(isa, slope, &p[row.clone()], &dp[row.clone()], &mut tile[row]);
                    }
                    small(isa, [rows, keys, g.d], &tile, [keys, 1], &k[key * g.d..], [g.d, 1], true, &mut dq[first * g.d..], g.d);
                    small(isa, [keys, rows, g.d], &tile, [1, keys], &q[first * g.d..], [g.d, 1], true, &mut dk[key * g.d..], g.d);
                }
            }
            [dq, dk, dv]
        })
        .collect();
    for (i, out) in outs.iter_mut().enumerate() {
        let shared = if i == 0 { 1 } else { g.shared };
        let mut all = Vec::with_capacity(out.array().numel());
        // Heads of q that share a head of k and v, added in order.
        for group in heads.chunks(shared) {
            let start = all.len();
            all.extend_from_slice(&group[0][i]);
            for other in &group[1..] {
                all[start..].iter_mut().zip(&other[i]).for_each(|(a, &b): (&mut C, &C)| *a = *a + b);
            }
        }
        write(isa, &all, out);
    }
    Ok(())
}
