//! Sixteen numbers in an AVX-512 register.

use crate::simd::amx::Segment;
use crate::simd::convert::{narrow_bf16_512, round_to_bf16_512, widen_bf16_512};
use crate::simd::fma;
use crate::simd::lanes::{self, F32Lanes, Lanes, SQRT_HALF, f32_lanes};
use crate::simd::math::{self, SHIFT};
use crate::simd::table::Tabled;
use binade_tensor::number::Number;
use core::arch::x86_64::*;
use half::{bf16, f16};
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::ptr;

use super::{UPPER_HALF, V16};

f32_lanes!(V16, __mmask16, 16,
    add |a: V16, b: V16| V16(x!(_mm512_add_ps(a.0, b.0))), sub |a: V16, b: V16| V16(x!(_mm512_sub_ps(a.0, b.0))),
    mul |a: V16, b: V16| V16(x!(_mm512_mul_ps(a.0, b.0))), div |a: V16, b: V16| V16(x!(_mm512_div_ps(a.0, b.0))),
    neg |a: V16| V16(x!(_mm512_xor_ps(a.0, _mm512_set1_ps(-0.0)))), {
    #[inline(always)]
    fn splat(value: f64) -> V16 { V16(x!(_mm512_set1_ps(value as f32))) }
    #[inline(always)]
    fn mul_add(self, b: V16, c: V16) -> V16 { V16(x!(_mm512_fmadd_ps(self.0, b.0, c.0))) }
    #[inline(always)]
    fn sqrt(self) -> V16 { V16(x!(_mm512_sqrt_ps(self.0))) }
    #[inline(always)]
    fn abs(self) -> V16 { V16(x!(_mm512_abs_ps(self.0))) }
    #[inline(always)]
    fn max(self, o: V16) -> V16 {
        let nan = x!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0));
        V16(x!(_mm512_mask_blend_ps(nan, _mm512_max_ps(self.0, o.0), self.0)))
    }
    #[inline(always)]
    fn min(self, o: V16) -> V16 {
        let nan = x!(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0));
        V16(x!(_mm512_mask_blend_ps(nan, _mm512_min_ps(self.0, o.0), self.0)))
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
    fn round_ties_even(self) -> V16 {
        V16(x!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)))
    }
    #[inline(always)]
    fn floor(self) -> V16 { V16(x!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0))) }
}, {
    #[inline(always)]
    fn broadcast(value: f32) -> V16 { V16(x!(_mm512_set1_ps(value))) }
    #[inline(always)]
    fn transpose(from: &[f32], ld_from: usize, to: &mut [f32], ld_to: usize) { transpose16(from, ld_from, to, ld_to) }
    #[inline(always)]
    fn load(from: &[f32]) -> V16 { assert!(from.len() >= 16); V16(x!(_mm512_loadu_ps(from.as_ptr()))) }
    #[inline(always)]
    fn store(self, to: &mut [f32]) { assert!(to.len() >= 16); x!(_mm512_storeu_ps(to.as_mut_ptr(), self.0)) }
    // Through memory, a short part would wait for its own stores.
    #[inline(always)]
    fn load_part(from: &[f32]) -> V16 {
        assert!(from.len() <= 16);
        V16(x!(_mm512_maskz_loadu_ps(((1u32 << from.len()) - 1) as __mmask16, from.as_ptr())))
    }
    #[inline(always)]
    fn store_part(self, to: &mut [f32]) {
        assert!(to.len() <= 16);
        x!(_mm512_mask_storeu_ps(to.as_mut_ptr(), ((1u32 << to.len()) - 1) as __mmask16, self.0))
    }
    #[inline(always)]
    fn load_f16(from: &[f16]) -> V16 {
        assert!(from.len() >= 16);
        V16(x!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))))
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [f16]) {
        assert!(to.len() >= 16);
        x!(_mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)))
    }
    #[inline(always)]
    fn store_past(self, to: &mut [f32]) {
        assert!(to.len() >= 16);
        if to.as_ptr().addr().is_multiple_of(size_of::<Self>()) {
            x!(_mm512_stream_ps(to.as_mut_ptr(), self.0))
        } else {
            self.store(to);
        }
    }
    #[inline(always)]
    fn load_bf16(from: &[bf16]) -> V16 {
        assert!(from.len() >= 16);
        V16(x!(widen_bf16_512(_mm256_loadu_si256(from.as_ptr().cast()))))
    }
    #[inline(always)]
    fn store_bf16(self, to: &mut [bf16]) {
        assert!(to.len() >= 16);
        x!(_mm256_storeu_si256(to.as_mut_ptr().cast(), narrow_bf16_512(self.0)))
    }
    #[inline(always)]
    fn load_i8(from: &[i8]) -> V16 {
        assert!(from.len() >= 16);
        V16(x!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())))))
    }
    #[inline(always)]
    fn store_i8(self, to: &mut [i8]) {
        assert!(to.len() >= 16);
        x!(_mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(self.0))))
    }
    #[inline(always)]
    fn rounded_f16(self) -> V16 { V16(x!(_mm512_cvtph_ps(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)))) }
    #[inline(always)]
    fn rounded_bf16(self) -> V16 {
        V16(x!(_mm512_castsi512_ps(_mm512_and_si512(round_to_bf16_512(self.0), _mm512_set1_epi32(UPPER_HALF)))))
    }
    #[inline(always)]
    unsafe fn accumulate<const MR: usize, const NV: usize>(
        acc: &mut [[V16; NV]; MR],
        rows: &[*const f32; MR],
        a_step: usize,
        b: *const f32,
        b_step: usize,
        segments: &[Segment],
    ) {
        // SAFETY: the caller's promise; the arrays' extents are those asked for.
        unsafe {
            if MR == 12 && NV == 2 {
                fma::tile_12x32(
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
    // MAX and MIN return their second operand when either is NaN.
    #[inline(always)]
    fn clamp(self, low: f64, high: f64) -> V16 {
        x!(V16(_mm512_min_ps(_mm512_set1_ps(high as f32), _mm512_max_ps(_mm512_set1_ps(low as f32), self.0))))
    }
    #[inline(always)]
    fn fused(self, b: V16, c: V16) -> V16 {
        self.mul_add(b, c)
    }
    #[inline(always)]
    fn scale(self, n: V16) -> V16 {
        x!(V16(_mm512_scalef_ps(self.0, n.0)))
    }
    #[inline(always)]
    fn by_table<T: Tabled>(self) -> V16 {
        let table = T::WHOLE;
        x!({
            let shifted = self.mul_add(V16::splat(1.0 / table.width), V16::splat(SHIFT));
            let place = _mm512_castps_si512(shifted.0);
            let delta = (shifted - V16::splat(SHIFT)).mul_add(V16::splat(-table.width), self);
            let term = |k: usize| {
                let row = table.terms[k].as_ptr();
                V16(_mm512_permutex2var_ps(_mm512_load_ps(row), place, _mm512_load_ps(row.add(16))))
            };
            let last = table.terms.len() - 1;
            let mut y = term(last);
            for k in (0..last).rev() {
                y = y.mul_add(delta, term(k));
            }
            let y = T::of_whole(self, y);
            let first = _mm512_set1_epi32((SHIFT as f32).to_bits() as i32 - 16);
            let outside = _mm512_cmpgt_epu32_mask(_mm512_sub_epi32(place, first), _mm512_set1_epi32(31));
            if outside == 0 { y } else { V16::select(outside, T::general(self), y) }
        })
    }
}

/// As [`transpose8`], with four 128-bit parts.
#[inline(always)]
fn transpose16(from: &[f32], ld_from: usize, to: &mut [f32], ld_to: usize) {
    assert!(from.len() >= 15 * ld_from + 16 && to.len() >= 15 * ld_to + 16);
    x!({
        let row: [__m512; 16] = std::array::from_fn(|i| _mm512_loadu_ps(from.as_ptr().add(i * ld_from)));
        let pair: [__m512; 16] = std::array::from_fn(|i| {
            let (a, b) = (row[i & !1], row[i | 1]);
            if i % 2 == 0 { _mm512_unpacklo_ps(a, b) } else { _mm512_unpackhi_ps(a, b) }
        });
        let quad: [__m512; 16] = std::array::from_fn(|i| {
            let at = i / 4 * 4 + i % 4 / 2;
            let (a, b) = (_mm512_castps_pd(pair[at]), _mm512_castps_pd(pair[at + 2]));
            _mm512_castpd_ps(if i % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) })
        });
        for j in 0..4 {
            let (even01, even23) = (
                _mm512_shuffle_f32x4::<0x88>(quad[j], quad[4 + j]),
                _mm512_shuffle_f32x4::<0x88>(quad[8 + j], quad[12 + j]),
            );
            let (odd01, odd23) = (
                _mm512_shuffle_f32x4::<0xdd>(quad[j], quad[4 + j]),
                _mm512_shuffle_f32x4::<0xdd>(quad[8 + j], quad[12 + j]),
            );
            let mut put = |column: usize, v: __m512| _mm512_storeu_ps(to.as_mut_ptr().add(column * ld_to), v);
            put(j, _mm512_shuffle_f32x4::<0x88>(even01, even23));
            put(4 + j, _mm512_shuffle_f32x4::<0x88>(odd01, odd23));
            put(8 + j, _mm512_shuffle_f32x4::<0xdd>(even01, even23));
            put(12 + j, _mm512_shuffle_f32x4::<0xdd>(odd01, odd23));
        }
    });
}
