//! Scaled dot-product attention in tiles with a running log-sum-exp (Dao et al., FlashAttention, 2022): no T×S matrix
//! exists.

mod heads;
mod rows;
mod slopes;

use crate::kernel::{Context, In, Out};
use rayon::prelude::*;

pub(super) use rows::{AskRows, rows_of, rows_of_gradients, store};
pub(super) use slopes::{ExpMinus, ScoreSlope};

use super::operand::{Compute, Operand};
use super::tasks::Tasks as _;
use crate::simd::Isa;
use binade_tensor::op::Attention;
use binade_tensor::{Array, DType, Key, Result};
use heads::Heads;

/// Queries per tile; fewer than twice as many are one tile.
pub(super) const QUERIES: usize = 64;
/// Keys per tile.
pub(super) const KEYS: usize = 256;
/// Rows of which memory is asked for ahead: those of a head lie far apart.
pub(super) const AHEAD: usize = 16;

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
    /// Of the inputs from q on.
    pub(super) fn new(attention: &Attention, ins: &[In<'_>]) -> Geometry {
        let (q, k, v) = (ins[0], ins[1], ins[2]);
        let r = q.shape().rank();
        let (t, d) = (q.shape()[r - 2], q.shape()[r - 1]);
        let heads = |x: &Array| if r >= 3 { x.shape()[r - 3] } else { 1 };
        Geometry {
            per_sample: heads(&q),
            shared: heads(&q).checked_div(heads(&k)).unwrap_or(1).max(1),
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

    /// Multiplies the weights of one query and `to.len()` keys from `key` on by 0 or 1/(1 − p): the same draw forward
    /// and backward.
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

pub(super) fn operand<'a>(array: In<'a>) -> Operand<'a> {
    let order: Vec<usize> = (0..array.shape().rank()).collect();
    Operand::new(array, array.shape(), &order)
}

/// The mask, broadcast to `[…, T, S]`, and whether it is bool.
pub(super) struct Mask<'a>(Operand<'a>, bool);

impl<'a> Mask<'a> {
    /// The last of the inputs from q on, if there is one.
    pub(super) fn new(attention: &Attention, ins: &[In<'a>]) -> Option<Mask<'a>> {
        let mask = *ins.last().filter(|_| attention.mask)?;
        let r = ins[0].shape().rank();
        let mut shape = ins[0].shape().to_vec();
        shape[r - 1] = ins[1].shape()[r - 2];
        let order: Vec<usize> = (0..r).collect();
        Some(Mask(Operand::new(mask, &shape, &order), mask.dtype() == DType::Bool))
    }

    /// Hides or shifts the scores of one query and the keys from `key` on.
    pub(super) fn apply<C: Compute>(
        &self,
        isa: Isa,
        g: &Geometry,
        head: usize,
        query: usize,
        key: usize,
        to: &mut [C],
    ) {
        const PART: usize = 64;
        let mut values = [C::zero(); PART];
        for (i, to) in to.chunks_mut(PART).enumerate() {
            let values = &mut values[..to.len()];
            self.0.load(isa, (head * g.t + query) * g.s + key + i * PART, values);
            for (s, &m) in to.iter_mut().zip(&*values) {
                *s = match self.1 {
                    true if m == C::zero() => C::neg_infinity(),
                    true => *s,
                    // Also where the score is NaN.
                    false if m == C::neg_infinity() => m,
                    false => *s + m,
                };
            }
        }
    }
}

/// So many parts of `size` bytes, which may be none.
fn parts(mut bytes: &mut [u8], count: usize, size: usize) -> Vec<&mut [u8]> {
    let mut part = || {
        let (part, rest) = std::mem::take(&mut bytes).split_at_mut(size);
        bytes = rest;
        part
    };
    (0..count).map(|_| part()).collect()
}

pub(super) fn forward<C: Compute>(
    cx: Context<'_>,
    attention: &Attention,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let isa = cx.isa;
    let heads = Heads::new(cx, attention, ins);
    let (g, x) = (&heads.g, [0, 1, 2].map(|i| operand(ins[i])));
    let dtypes = [0, 1].map(|i| outs[i].array().dtype());
    let (out, lse) = outs.split_at_mut(1);
    let out = rows_of(&mut out[0])?;
    let lse = parts(lse[0].bytes(), g.heads, g.t * dtypes[1].size());
    out.into_par_iter().zip(lse).enumerate().try_each(|(head, (out, lse))| {
        let mut sums = vec![C::zero(); g.t];
        heads.forward(head, &x, out, dtypes[0], &mut sums)?;
        C::store(isa, &sums, lse, dtypes[1]);
        Ok(())
    })
}

/// Inputs g, q, k, v, output, log-sum-exp.
pub(super) fn backward<C: Compute>(
    cx: Context<'_>,
    attention: &Attention,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let heads = Heads::new(cx, attention, &ins[1..]);
    let x: Vec<Operand<'_>> = ins.iter().map(|&x| operand(x)).collect();
    let dtypes = [0, 1, 2].map(|i| outs[i.min(outs.len() - 1)].array().dtype());
    let [mut dq, dk, dv] = rows_of_gradients(outs)?;
    let work = dq.par_chunks_mut(heads.g.shared).zip(dk).zip(dv).enumerate();
    work.try_each(|(kv, ((dq, dk), dv))| heads.backward::<C>(kv, &x, dq, [dk, dv], dtypes))
}
