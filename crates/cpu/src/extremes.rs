//! Elements whose operands are so large or small that a factor of the result leaves f32's range, though the result need
//! not. Examples are x/b where 1/b is infinite, and a/(a² + b²) where squares vanish. They are computed again in f64,
//! where products of several fit, and rounded once.

use super::operand::Compute;
use binade_tensor::DType;
use binade_tensor::op::{Binary, Unary};

/// Beyond 2⁻⁴⁰ and 2⁴⁰ a product of three may leave the range.
const LARGEST: u32 = (127 + 40) << 23;
const SMALLEST: u32 = (127 - 40) << 23;

/// Elements that are looked at together.
const GROUP: usize = 64;

pub(super) fn is_extreme(x: f32) -> bool {
    let bits = x.to_bits() & 0x7fff_ffff;
    bits != 0 && bits.wrapping_sub(SMALLEST) > LARGEST - SMALLEST
}

/// Whether a unary row's derivative has quotients or powers of what is saved.
pub(super) const fn has_extreme_slopes(row: Unary) -> bool {
    use Unary::{Acosh, Asinh, Atan, Log, Log2, Log10, Reciprocal, Rsqrt, Softsign, Square};
    matches!(row, Square | Rsqrt | Reciprocal | Log | Log2 | Log10 | Atan | Asinh | Acosh | Softsign)
}

/// Whether a binary row's derivatives have quotients, powers or squares of its operands.
pub(super) const fn has_extreme_partials(row: Binary) -> bool {
    matches!(row, Binary::Div | Binary::Fmod | Binary::Pow | Binary::Atan2 | Binary::Celu | Binary::Softplus)
}

/// Whether a factor of a binary row's result may leave the range though the result does not: left of 0 the exponential
/// that softplus divides by b is subnormal; of a parameter below 0 e^(a/b) − 1 grows without limit.
pub(super) const fn has_extreme_values(row: Binary) -> bool {
    matches!(row, Binary::Celu | Binary::Softplus)
}

/// Whether every element of a binary row's derivatives is computed in f64: the logarithm of a power's base magnifies
/// the rounding of the exponent less 1. A power may also leave the range that its product with the logarithm does not.
pub(super) const fn has_partials_in_f64(row: Binary) -> bool {
    matches!(row, Binary::Pow)
}

/// Computes elements of `y` again where an operand is extreme or the result not finite: `again(i)` in f64. Nothing to
/// do if f64 is what kernels compute in.
pub(super) fn recompute<C: Compute, const N: usize>(operands: [&[C]; N], y: &mut [C], again: impl Fn(usize) -> f64) {
    recompute_where(operands, y, |y| !y.is_finite(), again);
}

/// As [`recompute`], also where the result is small: no factor of another is subnormal if no operand is extreme.
pub(super) fn recompute_small<C: Compute, const N: usize>(
    operands: [&[C]; N],
    y: &mut [C],
    again: impl Fn(usize) -> f64,
) {
    /// 2⁻⁶⁰.
    const SMALL: u32 = (127 - 60) << 23;
    let is_off = |y: f32| y.to_bits() & 0x7fff_ffff < SMALL || !y.is_finite();
    recompute_where(operands, y, is_off, again);
}

fn recompute_where<C: Compute, const N: usize>(
    operands: [&[C]; N],
    y: &mut [C],
    is_off: impl Fn(f32) -> bool,
    again: impl Fn(usize) -> f64,
) {
    if C::DTYPE != DType::F32 {
        return;
    }
    let (operands, y) = (operands.map(bytemuck::cast_slice::<C, f32>), bytemuck::cast_slice_mut::<C, f32>(y));
    for (group, y) in y.chunks_mut(GROUP).enumerate() {
        let (start, n) = (group * GROUP, y.len());
        let mut seen = y.iter().any(|y| is_off(*y));
        for x in operands {
            seen |= x[start..start + n].iter().fold(false, |seen, &x| seen | is_extreme(x));
        }
        if seen {
            for (i, y) in y.iter_mut().enumerate() {
                if is_off(*y) || operands.iter().any(|x| is_extreme(x[start + i])) {
                    *y = again(start + i) as f32;
                }
            }
        }
    }
}

/// As [`recompute`], every element.
pub(super) fn recompute_all<C: Compute>(y: &mut [C], again: impl Fn(usize) -> f64) {
    if C::DTYPE == DType::F32 {
        y.iter_mut().enumerate().for_each(|(i, y)| *y = C::from_f64(again(i)));
    }
}
