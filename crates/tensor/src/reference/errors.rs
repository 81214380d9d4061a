//! First-order error analysis: how far a result may lie from the exact one where that is no multiple of the result.
//! That is so where terms cancel, an activation follows, or a saved value was rounded. What
//! [`Bound::Terms`](crate::op::Bound::Terms) refers to. Families whose operators need more than that all terms count
//! with their magnitudes have it beside their definitions.

use super::Dense;
use super::elementwise::unary;
use crate::format::Format;
use crate::op::Unary;
use crate::{DType, Op, Result};

/// What rounds: `e` is the number of roundings times the unit `u` of the computing type; dtypes are the inputs'.
#[derive(Clone, Copy)]
pub(crate) struct Roundings<'a> {
    pub(super) dtypes: &'a [DType],
    pub(super) e: f64,
    pub(super) u: f64,
}

/// The errors of an operator for inputs of these dtypes and `terms` roundings of unit `u`.
///
/// # Errors
/// The operator fails.
pub(crate) fn errors(
    op: &Op,
    x: &[Dense],
    dtypes: &[DType],
    shapes: &[Vec<usize>],
    terms: f64,
    u: f64,
) -> Result<Vec<Vec<f64>>> {
    op.family(|family| family.errors(x, shapes, Roundings { dtypes, e: terms * u, u }))
}

pub(super) fn magnitudes(x: &[Dense]) -> Vec<Dense> {
    x.iter().map(|x| Dense { shape: x.shape.clone(), v: x.v.iter().map(|v| v.abs()).collect() }).collect()
}

pub(super) fn scaled(sums: &[Dense], e: f64) -> Vec<Vec<f64>> {
    sums.iter().map(|s| s.v.iter().map(|v| sound(e * v)).collect()).collect()
}

/// NaN of an error that is not finite because an operand is not: of what then is finite all roundings are relative.
pub(super) fn sound(error: f64) -> f64 {
    if error.is_finite() { error } else { f64::NAN }
}

/// The format that is computed in.
pub(super) fn computing(u: f64) -> Format {
    if u < 1e-10 { Format::F64 } else { Format::F32 }
}

/// How far an activation may be off if its argument is `z` ± `error`: the change, and its own error.
pub(super) fn through(act: Unary, z: f64, error: f64, u: f64) -> f64 {
    let y = unary(act, z);
    if error.is_nan() {
        return error;
    }
    let change = |z: f64| match unary(act, z) {
        other if other == y || other.is_nan() && y.is_nan() => 0.0,
        // NaN on one side alone.
        other if other.is_nan() || y.is_nan() => f64::INFINITY,
        other => (other - y).abs(),
    };
    change(z + error).max(change(z - error)) + act.ulp() * computing(u).ulp(y)
}

/// Whether terms of these magnitudes together leave the range, as they may on the way to a sum that does not.
pub(super) fn leaves_range(magnitudes: f64, u: f64) -> bool {
    magnitudes.is_finite() && magnitudes > computing(u).max_finite()
}
