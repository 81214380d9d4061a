//! Elements whose operands are so large or small that a factor of the result leaves the range, though the result need
//! not. Examples are x/b where 1/b is infinite, and a/(a² + b²) where squares vanish. Those of f32 are computed again
//! in f64, where products of several fit, and rounded once; those of f64 in f64 with wider exponents.

use super::operand::Compute;
use crate::simd::ranged::Ranged;
use binade_tensor::DType;
use binade_tensor::number::Number;
use binade_tensor::op::{Binary, Unary};

/// Elements that are looked at together.
const GROUP: usize = 64;

/// A formula of the elements of some operands, in any numbers.
pub(super) trait Formula {
    /// Its value at element `i`.
    fn at<N: Number>(&self, i: usize) -> N;
}

/// Where a type's range ends for formulas, and what they are computed in beyond.
trait Ends: Copy {
    /// Whether a product of three numbers as large, or as small, may leave the range.
    fn is_extreme(self) -> bool;
    /// Whether it is below any product of factors of which none is extreme, or not finite.
    fn is_small_or_infinite(self) -> bool;
}

impl Ends for f32 {
    fn is_extreme(self) -> bool {
        // Beyond 2⁻⁴⁰ and 2⁴⁰.
        const LARGEST: u32 = (127 + 40) << 23;
        const SMALLEST: u32 = (127 - 40) << 23;
        let bits = self.to_bits() & 0x7fff_ffff;
        bits != 0 && bits.wrapping_sub(SMALLEST) > LARGEST - SMALLEST
    }
    fn is_small_or_infinite(self) -> bool {
        // 2⁻⁶⁰.
        const SMALL: u32 = (127 - 60) << 23;
        self.to_bits() & 0x7fff_ffff < SMALL || !f32::is_finite(self)
    }
}

impl Ends for f64 {
    fn is_extreme(self) -> bool {
        // Beyond 2⁻³³⁰ and 2³³⁰.
        const LARGEST: u64 = (1023 + 330) << 52;
        const SMALLEST: u64 = (1023 - 330) << 52;
        let bits = self.abs().to_bits();
        bits != 0 && bits.wrapping_sub(SMALLEST) > LARGEST - SMALLEST
    }
    fn is_small_or_infinite(self) -> bool {
        // 2⁻⁶⁰⁰.
        const SMALL: u64 = (1023 - 600) << 52;
        self.abs().to_bits() < SMALL || !f64::is_finite(self)
    }
}

/// Whether a number is extreme in the type that kernels compute in.
pub(super) fn is_extreme<C: Compute>(x: C) -> bool {
    if C::DTYPE == DType::F32 { Ends::is_extreme(x.as_f64() as f32) } else { Ends::is_extreme(x.as_f64()) }
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

/// Computes elements of `y` again where an operand is extreme or the result not finite.
pub(super) fn recompute<C: Compute, const N: usize>(operands: [&[C]; N], y: &mut [C], formula: impl Formula) {
    recompute_where(&operands, y, false, &formula);
}

/// As [`recompute`], also where the result is small: no factor of another is subnormal if no operand is extreme.
pub(super) fn recompute_small<C: Compute, const N: usize>(operands: [&[C]; N], y: &mut [C], formula: impl Formula) {
    recompute_where(&operands, y, true, &formula);
}

/// A formula for one type, behind a pointer.
trait Again<C> {
    /// Element `i` in numbers of a wider range, rounded once.
    fn again(&self, i: usize) -> C;
}

impl<C: Compute, F: Formula> Again<C> for F {
    fn again(&self, i: usize) -> C {
        C::from_f64(if C::DTYPE == DType::F32 { self.at::<f64>(i) } else { self.at::<Ranged>(i).rounded() })
    }
}

/// The search is the same for every formula, which is called through a pointer.
fn recompute_where<C: Compute>(operands: &[&[C]], y: &mut [C], small: bool, formula: &dyn Again<C>) {
    fn groups<C: Compute, E: Ends + bytemuck::Pod>(
        operands: &[&[C]],
        y: &mut [C],
        is_off: impl Fn(E) -> bool,
        formula: &dyn Again<C>,
    ) {
        for (group, y) in y.chunks_mut(GROUP).enumerate() {
            let (start, n) = (group * GROUP, y.len());
            let mut seen = bytemuck::cast_slice(y).iter().any(|y| is_off(*y));
            for x in operands {
                let x = bytemuck::cast_slice::<C, E>(&x[start..start + n]);
                seen |= x.iter().fold(false, |seen, &x| seen | x.is_extreme());
            }
            if seen {
                for (i, y) in y.iter_mut().enumerate() {
                    if is_off(bytemuck::cast(*y)) || operands.iter().any(|x| is_extreme(x[start + i])) {
                        *y = formula.again(start + i);
                    }
                }
            }
        }
    }
    match (C::DTYPE == DType::F32, small) {
        (true, true) => groups(operands, y, f32::is_small_or_infinite, formula),
        (true, false) => groups(operands, y, |y: f32| !y.is_finite(), formula),
        (false, true) => groups(operands, y, f64::is_small_or_infinite, formula),
        (false, false) => groups(operands, y, |y: f64| !y.is_finite(), formula),
    }
}

/// As [`recompute`], every element.
pub(super) fn recompute_all<C: Compute>(y: &mut [C], formula: impl Formula) {
    y.iter_mut().enumerate().for_each(|(i, y)| *y = formula.again(i));
}
