//! Mean and 1/deviation of rows.

use std::ops::Range;

use super::Given;
use crate::moments::{Moments, is_in_range, is_spread};
use crate::operand::{BLOCK, Compute};
use crate::reduce::SquaredDistance;
use crate::simd::{First, Isa, Stored};
use binade_tensor::op::{Norm, NormKind};

/// Adds in f64 what `f` makes of the blocks of a row.
pub(super) fn over_blocks<C: Compute, const N: usize>(
    len: usize,
    mut f: impl FnMut(Range<usize>) -> [C; N],
) -> [f64; N] {
    let mut sums = [0.0; N];
    for from in (0..len).step_by(BLOCK) {
        let part = f(from..len.min(from + BLOCK));
        sums.iter_mut().zip(part).for_each(|(s, p)| *s += p.as_f64());
    }
    sums
}

/// Σ x of a row.
pub(super) fn row_sum<C: Compute, X: Stored<C>>(isa: Isa, x: &[X]) -> f64 {
    let [sum] = over_blocks(x.len(), |at| [C::sum(isa, First, &x[at], C::zero())]);
    sum
}

/// Mean (0 for RMS) and 1/√(var + eps) of a row with the sum `sum`.
pub(super) fn moments<C: Compute, X: Stored<C>>(
    isa: Isa,
    norm: &Norm,
    given: &Given<C>,
    row: usize,
    x: &[X],
    sum: f64,
) -> (C, C) {
    if let Some([mean, rstd]) = given {
        return (mean[row], rstd[row]);
    }
    let n = x.len() as f64;
    let mean = if is_centred(norm) { C::from_f64(sum / n) } else { C::zero() };
    let [squares] = over_blocks(x.len(), |at| [C::sum(isa, SquaredDistance, &x[at], mean)]);
    let spread = squares / n + norm.eps;
    if is_in_range::<C>(spread) && is_spread(mean.as_f64(), spread) {
        return (mean, C::from_f64(1.0 / spread.sqrt()));
    }
    let moments = moments_in_f64(is_centred(norm), x);
    (C::from_f64(moments.mean), C::from_f64(1.0 / moments.deviation(n).hypot(norm.eps.sqrt())))
}

pub(super) fn moments_in_f64<C: Compute, X: Stored<C>>(centred: bool, x: &[X]) -> Moments {
    Moments::of(centred, |f| {
        let mut buffer = [0.0; 64];
        for x in x.chunks(buffer.len()) {
            buffer.iter_mut().zip(x).for_each(|(to, x)| *to = x.as_f64());
            f(&buffer[..x.len()]);
        }
    })
}

pub(super) fn is_centred(norm: &Norm) -> bool {
    !matches!(norm.kind, NormKind::Rms { .. })
}
