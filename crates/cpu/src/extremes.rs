//! Elements whose operands are so large or small that a factor of the result leaves the range, though the result need
//! not. Examples are x/b where 1/b is infinite, and a/(a² + b²) where squares vanish. Those of f32 are computed again
//! in f64, where products of several fit, and rounded once; those of f64 in f64 with wider exponents.

use super::operand::Compute;
use crate::simd::ranged::Ranged;
use binade_tensor::DType;
use binade_tensor::number::Number;

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

/// Computes elements of `y` again where an operand is extreme or the result not finite.
pub(super) fn recompute<C: Compute, const N: usize>(operands: [&[C]; N], y: &mut [C], formula: impl Formula) {
    recompute_where(&operands, y, false, &formula);
}

/// As [`recompute`], also where the result is small: no factor of another is subnormal if no operand is extreme.
pub(super) fn recompute_small<C: Compute, const N: usize>(operands: [&[C]; N], y: &mut [C], formula: impl Formula) {
    recompute_where(&operands, y, true, &formula);
}

/// A formula of f32 operands in f64, which holds all but 0 times a factor that leaves even its range.
pub(super) fn in_f64(formula: &impl Formula, i: usize) -> f64 {
    let y = formula.at::<f64>(i);
    if y.is_nan() { formula.at::<Ranged>(i).rounded() } else { y }
}

/// A formula for one type, behind a pointer.
trait Again<C> {
    /// Element `i` in numbers of a wider range, rounded once.
    fn again(&self, i: usize) -> C;
}

impl<C: Compute, F: Formula> Again<C> for F {
    fn again(&self, i: usize) -> C {
        C::from_f64(if C::DTYPE == DType::F32 { in_f64(self, i) } else { self.at::<Ranged>(i).rounded() })
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
