//! Eight numbers in an AVX register.

use crate::simd::amx::Segment;
use crate::simd::convert::round_to_bf16;
use crate::simd::fma;
use crate::simd::lanes::{self, F32Lanes, Lanes, SQRT_HALF, f32_lanes};
use crate::simd::math::{self, SHIFT};
use crate::simd::table::Tabled;
use binade_tensor::number::Number;
use core::arch::x86_64::*;
use half::{bf16, f16};
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::ptr;

use super::{UPPER_HALF, V8};

f32_lanes!(V8, __m256, 8,
    add |a: V8, b: V8| V8(x!(_mm256_add_ps(a.0, b.0))), sub |a: V8, b: V8| V8(x!(_mm256_sub_ps(a.0, b.0))),
    mul |a: V8, b: V8| V8(x!(_mm256_mul_ps(a.0, b.0))), div |a: V8, b: V8| V8(x!(_mm256_div_ps(a.0, b.0))),
    neg |a: V8| V8(x!(_mm256_xor_ps(a.0, _mm256_set1_ps(-0.0)))), {
    #[inline(always)]
    fn splat(value: f64) -> V8 { V8(x!(_mm256_set1_ps(value as f32))) }
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
    fn round_ties_even(self) -> V8 {
        V8(x!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)))
    }
    #[inline(always)]
    fn floor(self) -> V8 { V8(x!(_mm256_round_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0))) }
}, {
    #[inline(always)]
    fn broadcast(value: f32) -> V8 { V8(x!(_mm256_set1_ps(value))) }
    #[inline(always)]
    fn transpose(from: &[f32], ld_from: usize, to: &mut [f32], ld_to: usize) { transpose8(from, ld_from, to, ld_to) }
    #[inline(always)]
    fn load(from: &[f32]) -> V8 { assert!(from.len() >= 8); V8(x!(_mm256_loadu_ps(from.as_ptr()))) }
    #[inline(always)]
    fn store(self, to: &mut [f32]) { assert!(to.len() >= 8); x!(_mm256_storeu_ps(to.as_mut_ptr(), self.0)) }
    #[inline(always)]
    fn load_f16(from: &[f16]) -> V8 {
        assert!(from.len() >= 8);
        V8(x!(_mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))))
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [f16]) {
        assert!(to.len() >= 8);
        x!(_mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)))
    }
    #[inline(always)]
    fn store_past(self, to: &mut [f32]) {
        assert!(to.len() >= 8);
        if to.as_ptr().addr().is_multiple_of(size_of::<Self>()) {
            x!(_mm256_stream_ps(to.as_mut_ptr(), self.0))
        } else {
            self.store(to);
        }
    }
    #[inline(always)]
    fn load_bf16(from: &[bf16]) -> V8 {
        assert!(from.len() >= 8);
        let wide = x!(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast())));
        V8(x!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))))
    }
    #[inline(always)]
    fn store_bf16(self, to: &mut [bf16]) {
        assert!(to.len() >= 8);
        x!({
            let high = _mm256_srli_epi32::<16>(round_to_bf16(self.0));
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high));
            _mm_storeu_si128(to.as_mut_ptr().cast(), packed)
        })
    }
    #[inline(always)]
    fn load_i8(from: &[i8]) -> V8 {
        assert!(from.len() >= 8);
        V8(x!(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast())))))
    }
    #[inline(always)]
    fn store_i8(self, to: &mut [i8]) {
        assert!(to.len() >= 8);
        x!({
            let wide = _mm256_cvtps_epi32(self.0);
            let half = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
            _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packs_epi16(half, half))
        })
    }
    #[inline(always)]
    fn rounded_f16(self) -> V8 { V8(x!(_mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)))) }
    #[inline(always)]
    fn rounded_bf16(self) -> V8 {
        V8(x!(_mm256_castsi256_ps(_mm256_and_si256(round_to_bf16(self.0), _mm256_set1_epi32(UPPER_HALF)))))
    }
    #[inline(always)]
    unsafe fn accumulate<const MR: usize, const NV: usize>(
        acc: &mut [[V8; NV]; MR],
        rows: &[*const f32; MR],
        a_step: usize,
        b: *const f32,
        b_step: usize,
        segments: &[Segment],
    ) {
        // SAFETY: the caller's promise; the arrays' extents are those asked for.
        unsafe {
            if MR == 6 && NV == 2 {
                fma::tile_6x16(
                    &mut *ptr::from_mut(acc).cast(),
                    &*ptr::from_ref(rows).cast(),
                    a_step,
                    b,
                    b_step,
                    segments,
                );
            } else {
                lanes::accumulate(acc, rows, a_step, b, b_step, segments);
            }
        }
    }
});

impl F32Lanes for V8 {
    #[inline(always)]
    fn pow2(self) -> V8 {
        // The low bits of the sum are the biased exponent.
        V8(x!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256((self + V8::splat(SHIFT + 127.0)).0)))))
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
    // MAX and MIN return their second operand when either is NaN.
    #[inline(always)]
    fn clamp(self, low: f64, high: f64) -> V8 {
        x!(V8(_mm256_min_ps(_mm256_set1_ps(high as f32), _mm256_max_ps(_mm256_set1_ps(low as f32), self.0))))
    }
    #[inline(always)]
    fn fused(self, b: V8, c: V8) -> V8 {
        self.mul_add(b, c)
    }
    #[inline(always)]
    fn is_either_everywhere(a: __m256, b: __m256) -> bool {
        x!(_mm256_movemask_ps(_mm256_or_ps(a, b)) == 0xff)
    }
    #[inline(always)]
    fn exp_general(self) -> V8 {
        x!(exp_general_8(self))
    }
    #[inline(always)]
    fn by_table<T: Tabled>(self) -> V8 {
        let table = T::FOLDED;
        x!({
            let a = self.abs();
            // The low bits are the nearest integer to |x|/width.
            let shifted = a.mul_add(V8::splat(1.0 / table.width), V8::splat(SHIFT));
            let place = _mm256_castps_si256(shifted.0);
            let delta = (shifted - V8::splat(SHIFT)).mul_add(V8::splat(-table.width), a);
            let term = |k: usize| V8(_mm256_permutevar8x32_ps(_mm256_load_ps(table.terms[k].as_ptr()), place));
            let last = table.terms.len() - 1;
            let mut y = term(last);
            for k in (0..last).rev() {
                y = y.mul_add(delta, term(k));
            }
            let y = T::of_folded(self, y);
            let inside = shifted.lt(V8::splat(SHIFT + 8.0));
            if _mm256_movemask_ps(inside) == 0xff { y } else { V8::select(inside, y, general_8::<T>(self)) }
        })
    }
}

/// [`Tabled::general`] outside of the loops that seldom need it.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn general_8<T: Tabled>(x: V8) -> V8 {
    T::general(x)
}

/// As [`general_8`].
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn exp_general_8(x: V8) -> V8 {
    math::exp_general(x)
}

/// Pairs of rows, then pairs of pairs, are interleaved inside the 128-bit parts; then the parts are exchanged.
#[inline(always)]
fn transpose8(from: &[f32], ld_from: usize, to: &mut [f32], ld_to: usize) {
    assert!(from.len() >= 7 * ld_from + 8 && to.len() >= 7 * ld_to + 8);
    x!({
        let row: [__m256; 8] = std::array::from_fn(|i| _mm256_loadu_ps(from.as_ptr().add(i * ld_from)));
        let pair: [__m256; 8] = std::array::from_fn(|i| {
            let (a, b) = (row[i & !1], row[i | 1]);
            if i % 2 == 0 { _mm256_unpacklo_ps(a, b) } else { _mm256_unpackhi_ps(a, b) }
        });
        let quad: [__m256d; 8] = std::array::from_fn(|i| {
            let at = i / 4 * 4 + i % 4 / 2;
            let (a, b) = (_mm256_castps_pd(pair[at]), _mm256_castps_pd(pair[at + 2]));
            if i % 2 == 0 { _mm256_unpacklo_pd(a, b) } else { _mm256_unpackhi_pd(a, b) }
        });
        for j in 0..4 {
            let (a, b) = (_mm256_castpd_ps(quad[j]), _mm256_castpd_ps(quad[4 + j]));
            _mm256_storeu_ps(to.as_mut_ptr().add(j * ld_to), _mm256_permute2f128_ps::<0x20>(a, b));
            _mm256_storeu_ps(to.as_mut_ptr().add((4 + j) * ld_to), _mm256_permute2f128_ps::<0x31>(a, b));
        }
    });
}
