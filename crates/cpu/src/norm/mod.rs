//! Normalisations. Statistics in the computing type around the mean of each stretch, combined in f64 (Chan et al.,
//! 1979), so that memory is read once for them; never in 16 bit. [`rows`] has layer and RMS norm, [`planes`] batch and
//! group norm.

mod plane_walk;
mod planes;
mod row_kernels;
mod rows;
mod wide_rows;

use rayon::prelude::*;

use super::channels;
use super::operand::{Compute, Operand, memory_order};
use super::tasks::Tasks as _;
use crate::simd::Isa;
use binade_tensor::memory::Pool;
use binade_tensor::op::{Norm, NormKind};
use binade_tensor::{Array, ArrayMut, Class, Layout};

/// Mean and 1/deviation of each row or group, where they are known.
type Given<C> = Option<[Vec<C>; 2]>;

pub(super) fn forward<C: Compute>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) {
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => {
            rows::forward::<C>(isa, pool, norm, dims, None, ins, bytes, outs)
        }
        NormKind::Group { .. } | NormKind::Batch => planes::forward::<C>(isa, pool, norm, None, ins, bytes, outs),
        NormKind::Fixed => {
            let at = 1 + norm.weights();
            let given = [vector(isa, ins[at], bytes[at]), rstd_of(isa, norm, ins[at + 1], bytes[at + 1])];
            planes::forward::<C>(isa, pool, norm, Some(given), ins, bytes, outs);
        }
    }
}

/// The first output again. Inputs x, weights, mean, rstd.
pub(super) fn again<C: Compute>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) {
    let given = Some([1, 2].map(|i| vector(isa, ins[norm.weights() + i], bytes[norm.weights() + i])));
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => {
            rows::forward::<C>(isa, pool, norm, dims, given, ins, bytes, outs)
        }
        NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => {
            planes::forward::<C>(isa, pool, norm, given, ins, bytes, outs)
        }
    }
}

/// Inputs g, x, weight if affine, bias if there is one and an activation, mean, rstd (variance for Fixed).
pub(super) fn backward<C: Compute>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) {
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => {
            rows::backward::<C>(isa, pool, norm, dims, ins, bytes, outs)
        }
        NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => {
            planes::backward::<C>(isa, pool, norm, ins, bytes, outs)
        }
    }
}

/// A vector of per-channel (or per-feature) values.
fn vector<C: Compute>(isa: Isa, array: &Array, bytes: &[u8]) -> Vec<C> {
    let order: Vec<usize> = (0..array.shape().rank()).collect();
    let mut out = vec![C::zero(); array.numel()];
    Operand::new(array, bytes, array.shape(), &order).load(isa, 0, &mut out);
    out
}

/// The vector at input `at` if the norm has weights, else `n` times `value`.
fn weights<C: Compute>(
    isa: Isa,
    there: bool,
    ins: &[&Array],
    bytes: &[&[u8]],
    at: usize,
    n: usize,
    value: C,
) -> Vec<C> {
    if there { vector(isa, ins[at], bytes[at]) } else { vec![value; n] }
}

/// Where the statistics of a gradient's operands begin.
fn statistics_at(norm: &Norm) -> usize {
    2 + norm.weights_of_gradient()
}

/// Weight and bias among a gradient's operands; the bias is there if the activation's argument must be computed again.
fn gradient_weights<C: Compute>(isa: Isa, norm: &Norm, ins: &[&Array], bytes: &[&[u8]], n: usize) -> [Vec<C>; 2] {
    let biased = norm.weights_of_gradient() == 2;
    [weights(isa, norm.affine, ins, bytes, 2, n, C::one()), weights(isa, biased, ins, bytes, 3, n, C::zero())]
}

fn rstd_of<C: Compute>(isa: Isa, norm: &Norm, var: &Array, bytes: &[u8]) -> Vec<C> {
    vector::<C>(isa, var, bytes).into_iter().map(|v| C::from_f64(1.0 / (v.as_f64() + norm.eps).sqrt())).collect()
}

/// Adds partial sums to totals and clears them.
fn flush<C: Compute>(isa: Isa, total: &mut [Vec<f64>; 2], parts: [&mut Vec<C>; 2]) {
    total.iter_mut().zip(parts).for_each(|(total, part)| channels::flush(isa, part, total));
}

/// Runs `f(scratch, task, dtype, bytes)` on parts of `per_task` elements of an output in the walk order, with scratch
/// that each thread makes once; where the output lies in memory in another order, through a buffer.
fn fill_walk<C: Compute, R, S: Send>(
    isa: Isa,
    pool: &Pool,
    out: &mut ArrayMut<'_>,
    walk: &Layout,
    per_task: usize,
    scratch: impl Fn() -> R + Sync,
    f: impl Fn(&mut R, usize, binade_tensor::DType, &mut [u8]) -> S + Sync,
) -> Vec<S> {
    let array = out.array();
    let (dtype, n) = (array.dtype(), array.numel());
    if n == 0 || per_task == 0 {
        return Vec::new();
    }
    let work = |dtype: binade_tensor::DType, bytes: &mut [u8]| -> Vec<S> {
        let parts = bytes.par_chunks_mut(per_task * dtype.size()).enumerate();
        parts.list_with(&scratch, |scratch, (task, bytes)| f(scratch, task, dtype, bytes))
    };
    if walk.same_order(array.layout()) {
        return out.bytes().map_or_else(Vec::new, |bytes| work(dtype, &mut bytes[..n * dtype.size()]));
    }
    let Some(mut buffer) = pool.alloc(n * size_of::<C>(), Class::Workspace) else { return Vec::new() };
    let values: &mut [u8] = buffer.as_mut_slice();
    let values = &mut values[..n * size_of::<C>()];
    let results = work(C::DTYPE, values);
    let memory = memory_order(array.layout());
    super::elementwise::cast::<C>(isa, &Operand::from_layout(C::DTYPE, walk, values, array.shape(), &memory), out);
    results
}
