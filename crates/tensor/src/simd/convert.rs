//! Conversions between f32 and the 16-bit formats, slice by slice, and stochastic rounding.
//!
//! All levels give the same bits, NaN included: a NaN keeps its sign and the high bits of its payload and becomes quiet.
//! The instruction `vcvtneps2bf16` is not used: it flushes subnormals.

use half::{bf16, f16};

use super::Isa;

/// A float type that kernels load as f32 and store from f32.
pub trait Convert: crate::Float {
    /// Exact.
    fn widen(isa: Isa, from: &[Self], to: &mut [f32]);
    /// Nearest even; overflow gives an infinity, subnormals are kept.
    fn narrow(isa: Isa, from: &[f32], to: &mut [Self]);
}

impl Convert for f32 {
    fn widen(_isa: Isa, from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn narrow(_isa: Isa, from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

/// Dispatches to one function per level; each has the signature `fn(&[A], &mut [B])` and equal lengths.
macro_rules! by_isa {
    ($isa:expr, $from:expr, $to:expr, $portable:expr, $avx2:ident, $avx512:ident) => {{
        assert_eq!($from.len(), $to.len());
        match $isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` other than Portable exists only after its features were detected; the lengths are equal.
            Isa::Avx2 => unsafe { x86::$avx2($from, $to) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 => unsafe { x86::$avx512($from, $to) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => $portable($from, $to),
            Isa::Portable => $portable($from, $to),
        }
    }};
}

impl Convert for f16 {
    fn widen(isa: Isa, from: &[f16], to: &mut [f32]) {
        by_isa!(isa, from, to, each(widen_f16), widen_f16_avx2, widen_f16_avx512);
    }
    fn narrow(isa: Isa, from: &[f32], to: &mut [f16]) {
        by_isa!(isa, from, to, each(narrow_f16), narrow_f16_avx2, narrow_f16_avx512);
    }
}

impl Convert for bf16 {
    fn widen(isa: Isa, from: &[bf16], to: &mut [f32]) {
        by_isa!(isa, from, to, each(widen_bf16), widen_bf16_avx2, widen_bf16_avx512);
    }
    fn narrow(isa: Isa, from: &[f32], to: &mut [bf16]) {
        by_isa!(isa, from, to, each(narrow_bf16), narrow_bf16_avx2, narrow_bf16_avx512);
    }
}

fn each<A: Copy, B>(f: impl Fn(A) -> B) -> impl Fn(&[A], &mut [B]) {
    move |from, to| from.iter().zip(to).for_each(|(&a, b)| *b = f(a))
}

#[inline(always)]
fn widen_bf16(x: bf16) -> f32 {
    let bits = (x.to_bits() as u32) << 16;
    f32::from_bits(if x.is_nan() { bits | 0x0040_0000 } else { bits })
}

#[inline(always)]
fn narrow_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return bf16::from_bits((bits >> 16) as u16 | 0x40);
    }
    // Adding just under half an ulp, plus the last kept bit, carries exactly when rounding to even goes up.
    bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
}

#[inline(always)]
fn widen_f16(x: f16) -> f32 {
    let bits = x.to_bits() as u32;
    let (sign, exponent, mantissa) = (bits >> 15 << 31, bits >> 10 & 31, bits & 0x3ff);
    match (exponent, mantissa) {
        (0, m) => f32::from_bits((m as f32 * (1.0 / (1 << 24) as f32)).to_bits() | sign),
        (31, 0) => f32::from_bits(sign | 0x7f80_0000),
        (31, m) => f32::from_bits(sign | 0x7fc0_0000 | m << 13),
        (e, m) => f32::from_bits(sign | (e + 112) << 23 | m << 13),
    }
}

#[inline(always)]
fn narrow_f16(x: f32) -> f16 {
    let bits = x.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let out = if magnitude > 0x7f80_0000 {
        0x7e00 | (magnitude >> 13 & 0x3ff)
    } else if magnitude >= 0x477f_f000 {
        0x7c00 // 65520 and above
    } else if magnitude >= 0x3880_0000 {
        (magnitude - (112 << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13
    } else {
        // Subnormal: adding ½ puts the unit 2⁻²⁴ at f32's last place, so the addition rounds to it, ties to even.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0x3f00_0000
    };
    f16::from_bits((sign | out) as u16)
}

/// `x` rounded to the nearest multiple of every format at once would round twice through f32; this rounds to odd first, so
/// that a following conversion from f32 to 16 bit is correct.
#[inline]
pub fn f64_to_f32_odd(x: f64) -> f32 {
    let y = x as f32;
    if y as f64 == x || !y.is_finite() && x.is_infinite() || x.is_nan() {
        return y;
    }
    // Inexact: of the two neighbours take the one with an odd last bit.
    let toward_zero = if (y as f64).abs() > x.abs() { f32::from_bits(y.to_bits() - 1) } else { y };
    f32::from_bits(toward_zero.to_bits() | 1)
}

/// Stochastic rounding to bf16: the magnitude rounds up with probability L/65536, where L is the low half of `x`, using the
/// low 16 bits of `noise`. NaN stays NaN, infinities and representable values stay; beyond the largest finite value the
/// upper neighbour is infinity.
#[inline]
pub fn stochastic_bf16(x: f32, noise: u32) -> bf16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return bf16::from_bits((bits >> 16) as u16 | 0x40);
    }
    let up = (noise & 0xffff) < (bits & 0xffff);
    bf16::from_bits(((bits >> 16) + up as u32) as u16)
}

/// Stochastic rounding to f16, like [`stochastic_bf16`]: the magnitude rounds up with probability (dropped part)/ulp, by the
/// low bits of `noise`: 13 for normal results, up to 32 in the subnormal range (below 2⁻⁴³ the remainder is cut to 32 bits).
#[inline]
pub fn stochastic_f16(x: f32, noise: u32) -> f16 {
    let bits = x.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let out = if magnitude > 0x7f80_0000 {
        0x7e00 | (magnitude >> 13 & 0x3ff)
    } else if magnitude >= 0x4780_0000 {
        0x7c00 // 65536 and above: between 65504 and 65536 infinity is the upper neighbour
    } else if magnitude >= 0x3880_0000 {
        let rebased = magnitude - (112 << 23);
        (rebased >> 13) + ((noise & 0x1fff) < (rebased & 0x1fff)) as u32
    } else {
        // value = units·2⁻²⁴; the fraction of a unit is compared with 32 bits of noise.
        let units = f32::from_bits(magnitude) as f64 * (1u64 << 24) as f64;
        let whole = units as u32;
        let fraction = ((units - whole as f64) * 4294967296.0) as u64;
        whole + ((noise as u64) < fraction) as u32
    };
    f16::from_bits((sign | out) as u16)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{narrow_bf16, narrow_f16, widen_bf16, widen_f16};
    use core::arch::x86_64::*;
    use half::{bf16, f16};

    /// Applies `$vector` to full vectors of `$n` and `$scalar` to the rest.
    macro_rules! convert {
        ($name:ident, $features:literal, $from:ty, $to:ty, $n:literal, $scalar:ident, |$src:ident, $dst:ident| $vector:expr) => {
            #[target_feature(enable = $features)]
            pub unsafe fn $name(from: &[$from], to: &mut [$to]) {
                let body = from.len() - from.len() % $n;
                let mut i = 0;
                while i < body {
                    // SAFETY: i + n ≤ body ≤ the length of both slices.
                    unsafe {
                        let ($src, $dst) = (from.as_ptr().add(i), to.as_mut_ptr().add(i));
                        $vector;
                    }
                    i += $n;
                }
                for i in body..from.len() {
                    to[i] = $scalar(from[i]);
                }
            }
        };
    }

    convert!(widen_f16_avx2, "avx2,fma,f16c", f16, f32, 8, widen_f16, |src, dst| {
        _mm256_storeu_ps(dst, _mm256_cvtph_ps(_mm_loadu_si128(src.cast())))
    });
    convert!(narrow_f16_avx2, "avx2,fma,f16c", f32, f16, 8, narrow_f16, |src, dst| {
        _mm_storeu_si128(dst.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(src)))
    });
    convert!(widen_bf16_avx2, "avx2,fma,f16c", bf16, f32, 8, widen_bf16, |src, dst| {
        let bits = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(src.cast())));
        let x = _mm256_castsi256_ps(bits);
        let quiet = _mm256_and_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x), _mm256_castsi256_ps(_mm256_set1_epi32(0x0040_0000)));
        _mm256_storeu_ps(dst, _mm256_or_ps(x, quiet))
    });
    convert!(narrow_bf16_avx2, "avx2,fma,f16c", f32, bf16, 8, narrow_bf16, |src, dst| {
        let x = _mm256_loadu_ps(src);
        let bits = _mm256_castps_si256(x);
        let even = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), even));
        let nan = _mm256_or_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(0x40));
        let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        let out = _mm256_blendv_epi8(rounded, nan, is_nan);
        let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(out, out));
        _mm_storeu_si128(dst.cast(), _mm256_castsi256_si128(packed))
    });
    convert!(widen_f16_avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c", f16, f32, 16, widen_f16, |src, dst| {
        _mm512_storeu_ps(dst, _mm512_cvtph_ps(_mm256_loadu_si256(src.cast())))
    });
    convert!(narrow_f16_avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c", f32, f16, 16, narrow_f16, |src, dst| {
        _mm256_storeu_si256(dst.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_loadu_ps(src)))
    });
    convert!(widen_bf16_avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c", bf16, f32, 16, widen_bf16, |src, dst| {
        let bits = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(src.cast())));
        let x = _mm512_castsi512_ps(bits);
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        let quiet = _mm512_mask_or_epi32(bits, nan, bits, _mm512_set1_epi32(0x0040_0000));
        _mm512_storeu_ps(dst, _mm512_castsi512_ps(quiet))
    });
    convert!(narrow_bf16_avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c", f32, bf16, 16, narrow_bf16, |src, dst| {
        let x = _mm512_loadu_ps(src);
        let bits = _mm512_castps_si512(x);
        let even = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even));
        let nan = _mm512_or_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(0x40));
        let out = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x), rounded, nan);
        _mm256_storeu_si256(dst.cast(), _mm512_cvtepi32_epi16(out))
    });
}
