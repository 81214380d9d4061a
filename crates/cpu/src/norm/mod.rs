//! Normalisations. Statistics in the computing type around the mean of each stretch, combined in f64 (Chan et al.,
//! 1979), so that memory is read once for them; never in 16 bit. [`rows`] has layer and RMS norm, [`planes`] batch and
//! group norm.

mod feature_map_moments;
mod feature_map_units;
mod feature_map_walk;
mod feature_maps;
mod row_kernels;
mod row_moments;
mod rows;
mod wide_rows;

use crate::kernel::{Context, In, Out};
use rayon::prelude::*;

use super::channels;
use super::operand::{Compute, Operand, memory_order};
use super::tasks::Tasks as _;
use crate::gemm::workspace;
use crate::simd::Isa;
use binade_tensor::op::{Norm, NormKind};
use binade_tensor::{Layout, Result};

/// Mean and 1/deviation of each row or group, where they are known.
type Given<C> = Option<[Vec<C>; 2]>;

pub(super) fn forward<C: Compute>(cx: Context<'_>, norm: &Norm, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
    let isa = cx.isa;
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => rows::forward::<C>(cx, norm, dims, None, ins, outs),
        NormKind::Group { .. } | NormKind::Batch => feature_maps::forward::<C>(cx, norm, None, ins, outs),
        NormKind::Fixed => {
            let at = 1 + norm.weights();
            let given = [vector(isa, ins[at]), rstd_of(isa, norm, ins[at + 1])];
            feature_maps::forward::<C>(cx, norm, Some(given), ins, outs)
        }
    }
}

/// The first output again. Inputs x, weights, mean, rstd.
pub(super) fn again<C: Compute>(cx: Context<'_>, norm: &Norm, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
    let isa = cx.isa;
    let given = Some([1, 2].map(|i| vector(isa, ins[norm.weights() + i])));
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => rows::forward::<C>(cx, norm, dims, given, ins, outs),
        NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => {
            feature_maps::forward::<C>(cx, norm, given, ins, outs)
        }
    }
}

/// Inputs g, x, weight if affine, bias if there is one and an activation, mean, rstd (variance for Fixed).
pub(super) fn backward<C: Compute>(cx: Context<'_>, norm: &Norm, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => rows::backward::<C>(cx, norm, dims, ins, outs),
        NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => feature_maps::backward::<C>(cx, norm, ins, outs),
    }
}

/// A vector of per-channel (or per-feature) values.
fn vector<C: Compute>(isa: Isa, array: In<'_>) -> Vec<C> {
    let order: Vec<usize> = (0..array.shape().rank()).collect();
    let mut out = vec![C::zero(); array.numel()];
    Operand::new(array, array.shape(), &order).load(isa, 0, &mut out);
    out
}

/// The vector at input `at` if the norm has weights, else `n` times `value`.
fn weights<C: Compute>(isa: Isa, there: bool, ins: &[In<'_>], at: usize, n: usize, value: C) -> Vec<C> {
    if there { vector(isa, ins[at]) } else { vec![value; n] }
}

/// Where the statistics of a gradient's operands begin.
fn statistics_at(norm: &Norm) -> usize {
    2 + norm.weights_of_gradient()
}

/// Weight and bias among a gradient's operands; the bias is there if the activation's argument must be computed again.
fn gradient_weights<C: Compute>(isa: Isa, norm: &Norm, ins: &[In<'_>], n: usize) -> [Vec<C>; 2] {
    let biased = norm.weights_of_gradient() == 2;
    [weights(isa, norm.affine, ins, 2, n, C::one()), weights(isa, biased, ins, 3, n, C::zero())]
}

fn rstd_of<C: Compute>(isa: Isa, norm: &Norm, var: In<'_>) -> Vec<C> {
    vector::<C>(isa, var).into_iter().map(|v| C::from_f64(1.0 / (v.as_f64() + norm.eps).sqrt())).collect()
}

/// Adds partial sums to totals and clears them.
fn flush<C: Compute>(isa: Isa, total: &mut [Vec<f64>; 2], parts: [&mut Vec<C>; 2]) {
    total.iter_mut().zip(parts).for_each(|(total, part)| channels::flush(isa, part, total));
}

/// Runs `f(scratch, task, dtype, bytes)` on parts of `per_task` elements of an output in the walk order, with scratch
/// that each thread makes once; where the output lies in memory in another order, through a buffer.
fn fill_walk<C: Compute, R, S: Send>(
    cx: Context<'_>,
    out: &mut Out<'_>,
    walk: &Layout,
    per_task: usize,
    scratch: impl Fn() -> R + Sync,
    f: impl Fn(&mut R, usize, binade_tensor::DType, &mut [u8]) -> S + Sync,
) -> Result<Vec<S>> {
    let Context { isa, pool } = cx;
    let array = out.array();
    let (dtype, n) = (array.dtype(), array.numel());
    if n == 0 || per_task == 0 {
        return Ok(Vec::new());
    }
    let work = |dtype: binade_tensor::DType, bytes: &mut [u8]| -> Vec<S> {
        let parts = bytes.par_chunks_mut(per_task * dtype.size()).enumerate();
        parts.list_with(&scratch, |scratch, (task, bytes)| f(scratch, task, dtype, bytes))
    };
    if walk.same_order(array.layout()) {
        return Ok(work(dtype, &mut out.bytes()[..n * dtype.size()]));
    }
    let mut buffer = workspace::<C>(pool, n)?;
    let values: &mut [u8] = buffer.as_mut_slice();
    let values = &mut values[..n * size_of::<C>()];
    let results = work(C::DTYPE, values);
    let memory = memory_order(array.layout());
    super::elementwise::cast::<C>(isa, &Operand::from_layout(C::DTYPE, walk, values, array.shape(), &memory), out);
    Ok(results)
}
