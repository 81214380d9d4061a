//! [`Lanes`] of one number: f64, in which the formulas give the oracle, and f32 without vector instructions, the
//! portable level.

use std::ops::{Add, Div, Mul, Neg, Sub};

use binade_tensor::number::Number;
use half::{bf16, f16};

use super::convert::{f64_to_f32_odd, narrow_bf16, narrow_f16, widen_f16};
use super::lanes::{F32Lanes, Lanes, SQRT_HALF, f32_lanes};
use super::math;

/// 2²³: from here on f32 holds only integers.
const TWO_23: f32 = 8_388_608.0;

impl Lanes for f64 {
    type Elem = f64;
    const N: usize = 1;
    #[inline(always)]
    fn broadcast(value: f64) -> f64 {
        value
    }
    #[inline(always)]
    fn load(from: &[f64]) -> f64 {
        from[0]
    }
    #[inline(always)]
    fn store(self, to: &mut [f64]) {
        to[0] = self;
    }
    #[inline(always)]
    fn load_f16(from: &[f16]) -> f64 {
        from[0].to_f64()
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [f16]) {
        to[0] = f16::from_f32(f64_to_f32_odd(self));
    }
    #[inline(always)]
    fn load_bf16(from: &[bf16]) -> f64 {
        from[0].to_f64()
    }
    #[inline(always)]
    fn store_bf16(self, to: &mut [bf16]) {
        to[0] = bf16::from_f32(f64_to_f32_odd(self));
    }
    #[inline(always)]
    fn load_i8(from: &[i8]) -> f64 {
        from[0].into()
    }
    #[inline(always)]
    fn store_i8(self, to: &mut [i8]) {
        to[0] = self as i8;
    }
    #[inline(always)]
    fn rounded_f16(self) -> f64 {
        f16::from_f32(f64_to_f32_odd(self)).to_f64()
    }
    #[inline(always)]
    fn rounded_bf16(self) -> f64 {
        bf16::from_f32(f64_to_f32_odd(self)).to_f64()
    }
}

/// One f32: the portable level.
#[derive(Clone, Copy)]
pub struct P1(f32);

f32_lanes!(P1, bool, 1,
    add |a: P1, b: P1| P1(a.0 + b.0), sub |a: P1, b: P1| P1(a.0 - b.0), mul |a: P1, b: P1| P1(a.0 * b.0),
    div |a: P1, b: P1| P1(a.0 / b.0), neg |a: P1| P1(-a.0), {
    #[inline(always)]
    fn splat(value: f64) -> P1 { P1(value as f32) }
    // Two roundings: without the instruction a fused operation is a call to a library.
    #[inline(always)]
    fn mul_add(self, b: P1, c: P1) -> P1 { P1(self.0 * b.0 + c.0) }
    #[inline(always)]
    fn sqrt(self) -> P1 { P1(self.0.sqrt()) }
    #[inline(always)]
    fn abs(self) -> P1 { P1(self.0.abs()) }
    #[inline(always)]
    fn max(self, o: P1) -> P1 { if self.0.is_nan() || self.0 > o.0 { self } else { o } }
    #[inline(always)]
    fn min(self, o: P1) -> P1 { if self.0.is_nan() || self.0 < o.0 { self } else { o } }
    #[inline(always)]
    fn lt(self, o: P1) -> bool { self.0 < o.0 }
    #[inline(always)]
    fn le(self, o: P1) -> bool { self.0 <= o.0 }
    #[inline(always)]
    fn eq(self, o: P1) -> bool { self.0 == o.0 }
    #[inline(always)]
    fn select(mask: bool, a: P1, b: P1) -> P1 { if mask { a } else { b } }
    // Adding 2²³ rounds to an integer; `f32::round_ties_even` would be a library call on the x86-64 baseline.
    #[inline(always)]
    fn round_ties_even(self) -> P1 {
        let a = self.0.abs();
        let r = ((a + TWO_23) - TWO_23).copysign(self.0);
        P1(if a < TWO_23 { r } else { self.0 })
    }
    // The sign is restored because 0 − 0 would lose that of −0.
    #[inline(always)]
    fn floor(self) -> P1 {
        let r = self.round_ties_even().0;
        P1((if r > self.0 { r - 1.0 } else { r }).copysign(self.0))
    }
}, {
    #[inline(always)]
    fn broadcast(value: f32) -> P1 { P1(value) }
    #[inline(always)]
    fn load(from: &[f32]) -> P1 { P1(from[0]) }
    #[inline(always)]
    fn store(self, to: &mut [f32]) { to[0] = self.0; }
    #[inline(always)]
    fn load_f16(from: &[f16]) -> P1 { P1(widen_f16(from[0])) }
    #[inline(always)]
    fn store_f16(self, to: &mut [f16]) { to[0] = narrow_f16(self.0); }
    #[inline(always)]
    fn load_bf16(from: &[bf16]) -> P1 { P1(f32::from_bits((from[0].to_bits() as u32) << 16)) }
    #[inline(always)]
    fn store_bf16(self, to: &mut [bf16]) { to[0] = narrow_bf16(self.0); }
    #[inline(always)]
    fn load_i8(from: &[i8]) -> P1 { P1(from[0].into()) }
    #[inline(always)]
    fn store_i8(self, to: &mut [i8]) { to[0] = self.0 as i8; }
    #[inline(always)]
    fn rounded_f16(self) -> P1 { P1(widen_f16(narrow_f16(self.0))) }
    #[inline(always)]
    fn rounded_bf16(self) -> P1 { P1(f32::from_bits((narrow_bf16(self.0).to_bits() as u32) << 16)) }
});

impl F32Lanes for P1 {
    #[inline(always)]
    fn pow2(self) -> P1 {
        // After adding 2²³ + 127 the low bits are the biased exponent.
        P1(f32::from_bits((self.0 + (TWO_23 + 127.0)).to_bits() << 23))
    }
    #[inline(always)]
    fn split(self) -> (P1, P1) {
        let shifted = self.0.to_bits().wrapping_sub(SQRT_HALF) as i32;
        let e = shifted >> 23;
        (P1(f32::from_bits(self.0.to_bits().wrapping_sub((e << 23) as u32))), P1(e as f32))
    }
    #[inline(always)]
    fn copysign(self, sign: P1) -> P1 {
        P1(self.0.copysign(sign.0))
    }
    #[inline(always)]
    fn clamp(self, low: f64, high: f64) -> P1 {
        P1(self.0.clamp(low as f32, high as f32))
    }
    // The product is exact in f64; only a rare double rounding differs from a fused instruction.
    #[inline(always)]
    fn fused(self, b: P1, c: P1) -> P1 {
        P1((self.0 as f64 * b.0 as f64 + c.0 as f64) as f32)
    }
}
