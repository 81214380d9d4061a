//! The error that an operator may have beside the one rounding of its result.

use crate::Array;

/// How far the computed result may lie from the exact one, before it is rounded to the output's dtype (which adds half
/// a unit in its last place). u is the unit roundoff of the computing type: 2⁻²⁴ for f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Per element, so many units in the last place of the computing type.
    Ulps(f64),
    /// Per element, `factor · u` times the operator applied to the absolute values of its inputs: sums of `factor`
    /// products in any order (Higham, *Accuracy and Stability*, §3.1, γₖ).
    Gamma(f64),
    /// Per element, `factor · u` times the larger of the result and of the first input's element there: a slope that
    /// cancels (as 1 − y²) is accurate relative to 1, and so its product with the gradient relative to the gradient.
    Operand(f64),
    /// `factor · u` times the largest magnitude of the output and of the float inputs: operators whose elements depend
    /// on a whole row through a sum that does not vanish.
    Scale(f64),
    /// Per element, to first order, what `factor` roundings of u change: terms count with their magnitudes. An
    /// activation passes on the error of its argument, softmax that of its scores, a norm that of its mean as a part of
    /// the deviation. `reference/errors.rs` has the analysis.
    Terms(f64),
}

/// Computed in f64 throughout and rounded once.
pub(super) fn in_f64(ins: &[&Array]) -> Bound {
    match ins.iter().find(|a| a.dtype() == crate::DType::F64) {
        // Each term a power, the root another.
        Some(x) => Bound::Scale(x.numel() as f64 + 8.0),
        None => Bound::Ulps(0.5),
    }
}

/// Elements of an input.
pub(super) fn numel(ins: &[&Array], i: usize) -> f64 {
    ins.get(i).map_or(1, |a| a.numel()) as f64
}

/// An extent of an input; of a scalar 1.
pub(super) fn extent(ins: &[&Array], i: usize, d: usize) -> f64 {
    ins[i].shape().get(d).copied().unwrap_or(1) as f64
}
