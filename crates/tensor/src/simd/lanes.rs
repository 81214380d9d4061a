//! [`Lanes`]: one or several numbers that are computed on together.

use std::ops::{Add, Div, Mul, Neg, Sub};

use super::math;

/// A vector of `N` numbers. `f64` is a vector of one: the same formulas give the oracle.
pub trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// Type of one number.
    type Elem: Copy;
    /// Result of a comparison.
    type Mask: Copy;
    /// Numbers per vector.
    const N: usize;
    /// The same number in every lane.
    fn splat(value: f64) -> Self;
    /// The first `N` elements.
    fn load(from: &[Self::Elem]) -> Self;
    /// Writes the first `N` elements.
    fn store(self, to: &mut [Self::Elem]);
    /// `self · b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The larger; NaN wins; of zeros, the second operand.
    fn max(self, other: Self) -> Self;
    /// The smaller; NaN wins; of zeros, the second operand.
    fn min(self, other: Self) -> Self;
    /// `self < other`; false with NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// `self ≤ other`; false with NaN.
    fn le(self, other: Self) -> Self::Mask;
    /// `self = other`; false with NaN.
    fn eq(self, other: Self) -> Self::Mask;
    /// Lane by lane, one or the other.
    fn select(mask: Self::Mask, if_true: Self, if_false: Self) -> Self;
    /// Nearest integer, ties to even.
    fn round_ties_even(self) -> Self;
    /// `eˣ`.
    fn exp(self) -> Self;
    /// `eˣ − 1`.
    fn exp_m1(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// `ln(1 + x)`.
    fn ln_1p(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// `1/(1 + e⁻ˣ)`.
    fn sigmoid(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;
    /// `1 − erf(x)`, with relative accuracy in the tail.
    fn erfc(self) -> Self;
}

/// What the f32 functions of [`math`] need beside [`Lanes`].
pub(super) trait F32Lanes: Lanes<Elem = f32> {
    /// `2ⁿ` for an integer `n` in −126..=127.
    fn pow2(self) -> Self;
    /// For a positive normal number: (m, e) with x = m·2ᵉ and m in [√½, √2).
    fn split(self) -> (Self, Self);
    /// The magnitude of `self` with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
}

impl Lanes for f64 {
    type Elem = f64;
    type Mask = bool;
    const N: usize = 1;
    #[inline(always)]
    fn splat(value: f64) -> f64 {
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
    fn mul_add(self, b: f64, c: f64) -> f64 {
        self * b + c
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn max(self, other: f64) -> f64 {
        if self.is_nan() || self > other { self } else { other }
    }
    #[inline(always)]
    fn min(self, other: f64) -> f64 {
        if self.is_nan() || self < other { self } else { other }
    }
    #[inline(always)]
    fn lt(self, other: f64) -> bool {
        self < other
    }
    #[inline(always)]
    fn le(self, other: f64) -> bool {
        self <= other
    }
    #[inline(always)]
    fn eq(self, other: f64) -> bool {
        self == other
    }
    #[inline(always)]
    fn select(mask: bool, if_true: f64, if_false: f64) -> f64 {
        if mask { if_true } else { if_false }
    }
    fn round_ties_even(self) -> f64 {
        f64::round_ties_even(self)
    }
    fn exp(self) -> f64 {
        libm::exp(self)
    }
    fn exp_m1(self) -> f64 {
        libm::expm1(self)
    }
    fn ln(self) -> f64 {
        libm::log(self)
    }
    fn ln_1p(self) -> f64 {
        libm::log1p(self)
    }
    fn tanh(self) -> f64 {
        libm::tanh(self)
    }
    fn sigmoid(self) -> f64 {
        let e = libm::exp(-self.abs());
        if self < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
    }
    fn erf(self) -> f64 {
        libm::erf(self)
    }
    fn erfc(self) -> f64 {
        libm::erfc(self)
    }
}

/// The operators and the functions of `math` for one f32 vector type.
macro_rules! f32_lanes {
    ($t:ident, $mask:ty, $n:literal, add $add:expr, sub $sub:expr, mul $mul:expr, div $div:expr, neg $neg:expr, { $($body:tt)* }) => {
        impl Add for $t { type Output = $t; #[inline(always)] fn add(self, o: $t) -> $t { ($add)(self, o) } }
        impl Sub for $t { type Output = $t; #[inline(always)] fn sub(self, o: $t) -> $t { ($sub)(self, o) } }
        impl Mul for $t { type Output = $t; #[inline(always)] fn mul(self, o: $t) -> $t { ($mul)(self, o) } }
        impl Div for $t { type Output = $t; #[inline(always)] fn div(self, o: $t) -> $t { ($div)(self, o) } }
        impl Neg for $t { type Output = $t; #[inline(always)] fn neg(self) -> $t { ($neg)(self) } }
        impl Lanes for $t {
            type Elem = f32;
            type Mask = $mask;
            const N: usize = $n;
            $($body)*
            #[inline(always)] fn exp(self) -> $t { math::exp(self) }
            #[inline(always)] fn exp_m1(self) -> $t { math::exp_m1(self) }
            #[inline(always)] fn ln(self) -> $t { math::ln(self) }
            #[inline(always)] fn ln_1p(self) -> $t { math::ln_1p(self) }
            #[inline(always)] fn tanh(self) -> $t { math::tanh(self) }
            #[inline(always)] fn sigmoid(self) -> $t { math::sigmoid(self) }
            #[inline(always)] fn erf(self) -> $t { math::erf(self) }
            #[inline(always)] fn erfc(self) -> $t { math::erfc(self) }
        }
    };
}

/// One f32: the portable level.
#[derive(Clone, Copy)]
pub struct P1(f32);

f32_lanes!(P1, bool, 1,
    add |a: P1, b: P1| P1(a.0 + b.0), sub |a: P1, b: P1| P1(a.0 - b.0), mul |a: P1, b: P1| P1(a.0 * b.0),
    div |a: P1, b: P1| P1(a.0 / b.0), neg |a: P1| P1(-a.0), {
    #[inline(always)]
    fn splat(value: f64) -> P1 { P1(value as f32) }
    #[inline(always)]
    fn load(from: &[f32]) -> P1 { P1(from[0]) }
    #[inline(always)]
    fn store(self, to: &mut [f32]) { to[0] = self.0; }
    // The product is exact in f64, so this differs from a fused operation only in rare double roundings, and it needs no
    // call to a library where the processor has no such instruction.
    #[inline(always)]
    fn mul_add(self, b: P1, c: P1) -> P1 { P1((self.0 as f64 * b.0 as f64 + c.0 as f64) as f32) }
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
    #[inline(always)]
    fn round_ties_even(self) -> P1 { P1(self.0.round_ties_even()) }
});

impl F32Lanes for P1 {
    #[inline(always)]
    fn pow2(self) -> P1 {
        P1(f32::from_bits(((self.0 as i32 + 127) as u32) << 23))
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
}

/// Bits of √½.
const SQRT_HALF: u32 = 0x3f35_04f3;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use core::arch::x86_64::*;

    /// Eight f32 in an AVX register. Made and used only inside kernels dispatched to AVX2.
    #[derive(Clone, Copy)]
    pub struct V8(__m256);

    /// Sixteen f32 in an AVX-512 register. Made and used only inside kernels dispatched to AVX-512.
    #[derive(Clone, Copy)]
    pub struct V16(__m512);

    /// `unsafe { intrinsic }` for code that only runs where `dispatch` found the instruction set.
    macro_rules! x {
        ($e:expr) => {
            // SAFETY: this type is used only in kernels that `dispatch` runs after detecting the instruction set; loads and
            // stores go through slices whose length is asserted.
            unsafe { $e }
        };
    }

    f32_lanes!(V8, __m256, 8,
        add |a: V8, b: V8| V8(x!(_mm256_add_ps(a.0, b.0))), sub |a: V8, b: V8| V8(x!(_mm256_sub_ps(a.0, b.0))),
        mul |a: V8, b: V8| V8(x!(_mm256_mul_ps(a.0, b.0))), div |a: V8, b: V8| V8(x!(_mm256_div_ps(a.0, b.0))),
        neg |a: V8| V8(x!(_mm256_xor_ps(a.0, _mm256_set1_ps(-0.0)))), {
        #[inline(always)]
        fn splat(value: f64) -> V8 { V8(x!(_mm256_set1_ps(value as f32))) }
        #[inline(always)]
        fn load(from: &[f32]) -> V8 { assert!(from.len() >= 8); V8(x!(_mm256_loadu_ps(from.as_ptr()))) }
        #[inline(always)]
        fn store(self, to: &mut [f32]) { assert!(to.len() >= 8); x!(_mm256_storeu_ps(to.as_mut_ptr(), self.0)) }
        #[inline(always)]
        fn mul_add(self, b: V8, c: V8) -> V8 { V8(x!(_mm256_fmadd_ps(self.0, b.0, c.0))) }
        #[inline(always)]
        fn sqrt(self) -> V8 { V8(x!(_mm256_sqrt_ps(self.0))) }
        #[inline(always)]
        fn abs(self) -> V8 { V8(x!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0))) }
        #[inline(always)]
        fn max(self, o: V8) -> V8 {
            // The instruction returns its second operand when either is NaN.
            V8(x!(_mm256_blendv_ps(_mm256_max_ps(self.0, o.0), self.0, _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0))))
        }
        #[inline(always)]
        fn min(self, o: V8) -> V8 {
            V8(x!(_mm256_blendv_ps(_mm256_min_ps(self.0, o.0), self.0, _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0))))
        }
        #[inline(always)]
        fn lt(self, o: V8) -> __m256 { x!(_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, o.0)) }
        #[inline(always)]
        fn le(self, o: V8) -> __m256 { x!(_mm256_cmp_ps::<_CMP_LE_OQ>(self.0, o.0)) }
        #[inline(always)]
        fn eq(self, o: V8) -> __m256 { x!(_mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, o.0)) }
        #[inline(always)]
        fn select(mask: __m256, a: V8, b: V8) -> V8 { V8(x!(_mm256_blendv_ps(b.0, a.0, mask))) }
        #[inline(always)]
        fn round_ties_even(self) -> V8 { V8(x!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))) }
    });

    impl F32Lanes for V8 {
        #[inline(always)]
        fn pow2(self) -> V8 {
            V8(x!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
                _mm256_cvtps_epi32(self.0),
                _mm256_set1_epi32(127)
            )))))
        }
        #[inline(always)]
        fn split(self) -> (V8, V8) {
            x!({
                let bits = _mm256_castps_si256(self.0);
                let e = _mm256_srai_epi32::<23>(_mm256_sub_epi32(bits, _mm256_set1_epi32(SQRT_HALF as i32)));
                let m = _mm256_sub_epi32(bits, _mm256_slli_epi32::<23>(e));
                (V8(_mm256_castsi256_ps(m)), V8(_mm256_cvtepi32_ps(e)))
            })
        }
        #[inline(always)]
        fn copysign(self, sign: V8) -> V8 {
            x!({
                let mask = _mm256_set1_ps(-0.0);
                V8(_mm256_or_ps(_mm256_andnot_ps(mask, self.0), _mm256_and_ps(mask, sign.0)))
            })
        }
    }

    f32_lanes!(V16, __mmask16, 16,
        add |a: V16, b: V16| V16(x!(_mm512_add_ps(a.0, b.0))), sub |a: V16, b: V16| V16(x!(_mm512_sub_ps(a.0, b.0))),
        mul |a: V16, b: V16| V16(x!(_mm512_mul_ps(a.0, b.0))), div |a: V16, b: V16| V16(x!(_mm512_div_ps(a.0, b.0))),
        neg |a: V16| V16(x!(_mm512_xor_ps(a.0, _mm512_set1_ps(-0.0)))), {
        #[inline(always)]
        fn splat(value: f64) -> V16 { V16(x!(_mm512_set1_ps(value as f32))) }
        #[inline(always)]
        fn load(from: &[f32]) -> V16 { assert!(from.len() >= 16); V16(x!(_mm512_loadu_ps(from.as_ptr()))) }
        #[inline(always)]
        fn store(self, to: &mut [f32]) { assert!(to.len() >= 16); x!(_mm512_storeu_ps(to.as_mut_ptr(), self.0)) }
        #[inline(always)]
        fn mul_add(self, b: V16, c: V16) -> V16 { V16(x!(_mm512_fmadd_ps(self.0, b.0, c.0))) }
        #[inline(always)]
        fn sqrt(self) -> V16 { V16(x!(_mm512_sqrt_ps(self.0))) }
        #[inline(always)]
        fn abs(self) -> V16 { V16(x!(_mm512_abs_ps(self.0))) }
        #[inline(always)]
        fn max(self, o: V16) -> V16 {
            V16(x!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0), _mm512_max_ps(self.0, o.0), self.0)))
        }
        #[inline(always)]
        fn min(self, o: V16) -> V16 {
            V16(x!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0), _mm512_min_ps(self.0, o.0), self.0)))
        }
        #[inline(always)]
        fn lt(self, o: V16) -> __mmask16 { x!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, o.0)) }
        #[inline(always)]
        fn le(self, o: V16) -> __mmask16 { x!(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.0, o.0)) }
        #[inline(always)]
        fn eq(self, o: V16) -> __mmask16 { x!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, o.0)) }
        #[inline(always)]
        fn select(mask: __mmask16, a: V16, b: V16) -> V16 { V16(x!(_mm512_mask_blend_ps(mask, b.0, a.0))) }
        #[inline(always)]
        fn round_ties_even(self) -> V16 { V16(x!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))) }
    });

    impl F32Lanes for V16 {
        #[inline(always)]
        fn pow2(self) -> V16 {
            V16(x!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(
                _mm512_cvtps_epi32(self.0),
                _mm512_set1_epi32(127)
            )))))
        }
        #[inline(always)]
        fn split(self) -> (V16, V16) {
            x!({
                let bits = _mm512_castps_si512(self.0);
                let e = _mm512_srai_epi32::<23>(_mm512_sub_epi32(bits, _mm512_set1_epi32(SQRT_HALF as i32)));
                let m = _mm512_sub_epi32(bits, _mm512_slli_epi32::<23>(e));
                (V16(_mm512_castsi512_ps(m)), V16(_mm512_cvtepi32_ps(e)))
            })
        }
        #[inline(always)]
        fn copysign(self, sign: V16) -> V16 {
            x!({
                let mask = _mm512_set1_ps(-0.0);
                V16(_mm512_or_ps(_mm512_andnot_ps(mask, self.0), _mm512_and_ps(mask, sign.0)))
            })
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{V8, V16};
