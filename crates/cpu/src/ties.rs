//! Correct rounding to 16 bit of functions whose f32 results are not correctly rounded.

use super::operand::BLOCK;
use crate::simd::convert::f64_to_f32_odd;
use crate::simd::{Isa, Kernel, Lanes, dispatch};
use binade_tensor::DType;
use binade_tensor::op::UnaryRow;

/// Whether the f32 result, rounded to 16 bit, need not be the correctly rounded one. One correctly rounded f32
/// operation rounds correctly to 16 bit as well (Figueroa 1995: 24 ≥ 2·11 + 2).
pub(super) const fn may_tie<R: UnaryRow>() -> bool {
    R::ROW.ulp() != 0.0 && R::ROW.ulp() != 0.5
}

/// Makes 16-bit results correctly rounded. An f32 result closer to the middle between two 16-bit numbers than its own
/// error is computed again in f64. It is rounded to odd, so that the rounding to come sees which side it lies on (Ziv's
/// strategy). About one element in a thousand for f16, in ten thousand for bf16.
pub(super) fn break_ties<R: UnaryRow>(isa: Isa, dtype: DType, x: &[f32], y: &mut [f32]) {
    let window = (R::ROW.ulp() + 0.5).ceil() as u32;
    if dtype == DType::BF16 {
        break_near_ties::<true>(isa, window, R::f, x, y)
    } else {
        break_near_ties::<false>(isa, window, R::f, x, y)
    }
}

/// Elements whose nearness is searched for together: the bits of a word.
const GROUP: usize = 32;

/// The search is the same for every function, which is called through a pointer.
fn break_near_ties<const BF16: bool>(isa: Isa, window: u32, f: fn(f64) -> f64, x: &[f32], y: &mut [f32]) {
    let mut groups = [0u32; BLOCK / GROUP];
    dispatch(isa, Candidates::<BF16>(window, y, &mut groups));
    for ((&group, x), y) in groups.iter().zip(x.chunks(GROUP)).zip(y.chunks_mut(GROUP)) {
        let mut left = group;
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            left &= left - 1;
            if near::<BF16>(y[i], window) != 0 && y[i].is_finite() {
                y[i] = f64_to_f32_odd(beside_half(x[i] as f64, f(x[i] as f64)));
            }
        }
    }
}

/// Functions x·s(x) with s(0) = ½ and s′ > 0 lie above x/2, which may be a tie, and next to 0 by less than f64 tells.
fn beside_half(x: f64, y: f64) -> f64 {
    if x != 0.0 && x.abs() < 1e-18 && y == 0.5 * x { y.next_up() } else { y }
}

/// 1 where [`near`] may be 1: the cheap part of its test, and all numbers that are subnormal in f16 but 0.
#[inline(always)]
fn candidate<const BF16: bool>(y: f32, window: u32) -> u32 {
    let bits = y.to_bits() & 0x7fff_ffff;
    let close = |dropped: u32, tie: u32| (bits.wrapping_add(window).wrapping_sub(tie) & dropped) <= 2 * window;
    if BF16 {
        return close(0xffff, 0x8000) as u32;
    }
    let is_small = bits.wrapping_sub(1) < 6.103_515_6e-5f32.to_bits() - 1;
    (close(0x1fff, 0x1000) | is_small) as u32
}

/// 1 if an f32 number is within `window` ulp of a tie of bf16 or f16, else 0. Branch-free, so that a search is a vector
/// loop.
#[inline(always)]
fn near<const BF16: bool>(y: f32, window: u32) -> u32 {
    let (a, bits) = (y.abs(), y.to_bits());
    // abs_diff(tie) ≤ window, as one wrapping comparison.
    let within = |low: u32, tie: u32, window: u32| (low.wrapping_add(window).wrapping_sub(tie) <= 2 * window) as u32;
    if BF16 {
        return within(bits & 0xffff, 0x8000, window);
    }
    let normal = within(bits & 0x1fff, 0x1000, window);
    // Below 2⁻¹⁴ f16 is subnormal, with steps of 2⁻²⁴; adding 2²³ rounds to whole steps.
    let steps = a * 16_777_216.0;
    let off = (steps - ((steps + 8_388_608.0) - 8_388_608.0)).abs();
    let subnormal = (off + steps * (window as f32 * f32::EPSILON) >= 0.5) as u32;
    if a >= 6.103_515_6e-5 { normal } else { subnormal }
}

/// Which numbers of each group may be near a tie.
struct Candidates<'a, const BF16: bool>(u32, &'a [f32], &'a mut [u32]);

impl<const BF16: bool> Kernel<f32> for Candidates<'_, BF16> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        let Candidates(window, y, groups) = self;
        for (group, y) in groups.iter_mut().zip(y.chunks(GROUP)) {
            *group = y.iter().enumerate().fold(0, |bits, (i, &y)| bits | candidate::<BF16>(y, window) << i);
        }
    }
}
