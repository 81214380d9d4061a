//! Conversions between f32 and the 16-bit formats, slice by slice, and stochastic rounding.
//!
//! All levels give the same bits, NaN included: a NaN keeps its sign and the high bits of its payload and becomes
//! quiet. The instruction `vcvtneps2bf16` is not used: it flushes subnormals.

use half::{bf16, f16};

pub use binade_tensor::format::f64_to_f32_odd;

use super::each::{Each, EachNoisy};
use super::{Isa, dispatch};

/// A float type that kernels load as f32 and store from f32.
pub trait Convert: binade_tensor::Float {
    /// Exact.
    fn widen(isa: Isa, from: &[Self], to: &mut [f32]);
    /// Nearest even; overflow gives an infinity, subnormals are kept.
    fn narrow(isa: Isa, from: &[f32], to: &mut [Self]);
    /// Stochastic rounding of `from[i]` by `noise[i]`, as [`stochastic_bf16`] and [`stochastic_f16`] state; f32 is
    /// copied.
    fn stochastic(isa: Isa, from: &[f32], noise: &[u32], to: &mut [Self]);
    /// Exact.
    fn widen_f64(isa: Isa, from: &[Self], to: &mut [f64]) {
        assert_eq!(from.len(), to.len());
        let mut wide = [0.0; BLOCK];
        for (from, to) in from.chunks(BLOCK).zip(to.chunks_mut(BLOCK)) {
            Self::widen(isa, from, &mut wide[..from.len()]);
            wide.iter().zip(to).for_each(|(&w, t)| *t = w as f64);
        }
    }
    /// Nearest even, rounded once and not through f32.
    fn narrow_f64(isa: Isa, from: &[f64], to: &mut [Self]) {
        assert_eq!(from.len(), to.len());
        let mut odd = [0.0; BLOCK];
        for (from, to) in from.chunks(BLOCK).zip(to.chunks_mut(BLOCK)) {
            odd.iter_mut().zip(from).for_each(|(o, &f)| *o = f64_to_f32_odd(f));
            Self::narrow(isa, &odd[..from.len()], to);
        }
    }
}

/// Elements converted at a time through f32.
const BLOCK: usize = 256;

impl Convert for f32 {
    fn widen(_isa: Isa, from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn narrow(_isa: Isa, from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn stochastic(_isa: Isa, from: &[f32], _noise: &[u32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
    fn narrow_f64(_isa: Isa, from: &[f64], to: &mut [f32]) {
        assert_eq!(from.len(), to.len());
        from.iter().zip(to).for_each(|(&f, t)| *t = f as f32);
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
            Isa::Avx512 | Isa::Amx => unsafe { x86::$avx512($from, $to) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 | Isa::Amx => $portable($from, $to),
            Isa::Portable => $portable($from, $to),
        }
    }};
}

impl Convert for f16 {
    fn widen(isa: Isa, from: &[f16], to: &mut [f32]) {
        by_isa!(
            isa,
            from,
            to,
            |from, to| dispatch(Isa::Portable, Each(widen_f16, from, to)),
            widen_f16_avx2,
            widen_f16_avx512
        );
    }
    fn narrow(isa: Isa, from: &[f32], to: &mut [f16]) {
        by_isa!(
            isa,
            from,
            to,
            |from, to| dispatch(Isa::Portable, Each(narrow_f16, from, to)),
            narrow_f16_avx2,
            narrow_f16_avx512
        );
    }
    fn stochastic(isa: Isa, from: &[f32], noise: &[u32], to: &mut [f16]) {
        dispatch(isa, EachNoisy(stochastic_f16, from, noise, to));
    }
}

impl Convert for bf16 {
    fn widen(isa: Isa, from: &[bf16], to: &mut [f32]) {
        by_isa!(
            isa,
            from,
            to,
            |from, to| dispatch(Isa::Portable, Each(widen_bf16, from, to)),
            widen_bf16_avx2,
            widen_bf16_avx512
        );
    }
    fn narrow(isa: Isa, from: &[f32], to: &mut [bf16]) {
        by_isa!(
            isa,
            from,
            to,
            |from, to| dispatch(Isa::Portable, Each(narrow_bf16, from, to)),
            narrow_bf16_avx2,
            narrow_bf16_avx512
        );
    }
    fn stochastic(isa: Isa, from: &[f32], noise: &[u32], to: &mut [bf16]) {
        dispatch(isa, EachNoisy(stochastic_bf16, from, noise, to));
    }
}

// The scalar formulas choose between values, never between paths, so that loops over them become vector code.

#[inline(always)]
pub(super) fn widen_bf16(x: bf16) -> f32 {
    let bits = (x.to_bits() as u32) << 16;
    let quiet = if bits << 1 > 0xff00_0000 { 0x0040_0000 } else { 0 };
    f32::from_bits(bits | quiet)
}

#[inline(always)]
pub(super) fn narrow_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    // Adding just under half an ulp, plus the last kept bit, carries exactly when rounding to even goes up.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let nan = bits >> 16 | 0x40;
    bf16::from_bits(if x.is_nan() { nan } else { rounded } as u16)
}

#[inline(always)]
pub(super) fn widen_f16(x: f16) -> f32 {
    let bits = x.to_bits() as u32;
    let magnitude = bits & 0x7fff;
    // The fields at their places in f32, then the difference of the biases as an exact product: right for subnormals
    // too.
    let finite = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let special = 0x7f80_0000 | magnitude << 13 | if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
    f32::from_bits((bits & 0x8000) << 16 | if magnitude < 0x7c00 { finite.to_bits() } else { special })
}

#[inline(always)]
pub(super) fn narrow_f16(x: f32) -> f16 {
    let bits = x.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let nan = 0x7e00 | (magnitude >> 13 & 0x3ff);
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + (magnitude >> 13 & 1)) >> 13;
    // Subnormal: adding ½ puts the unit 2⁻²⁴ at f32's last place, so the addition rounds to it, ties to even.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let out = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let out = if magnitude < 0x477f_f000 { out } else { 0x7c00 }; // 65520 and above
    let out = if magnitude > 0x7f80_0000 { nan } else { out };
    f16::from_bits((sign | out) as u16)
}

/// Stochastic rounding to bf16: the magnitude rounds up with probability L/65536, where L is the low half of `x`, using
/// the low 16 bits of `noise`. NaN stays NaN, infinities and representable values stay; beyond the largest finite value
/// the upper neighbour is infinity.
#[inline(always)]
pub fn stochastic_bf16(x: f32, noise: u32) -> bf16 {
    let bits = x.to_bits();
    let up = (noise & 0xffff) < (bits & 0xffff);
    let nan = bits >> 16 | 0x40;
    bf16::from_bits(if x.is_nan() { nan } else { (bits >> 16) + up as u32 } as u16)
}

/// Stochastic rounding to f16, like [`stochastic_bf16`]: the magnitude rounds up with probability (dropped part)/ulp,
/// by the low bits of `noise`, as many as are dropped: 13 for normal results, up to 32 in the subnormal range. Below
/// 2⁻³³ more than 32 would be dropped, and the probability is cut to a multiple of 2⁻³². Between 65504 and 65536 the
/// upper neighbour is infinity; from 65536 up the result is infinity.
#[inline(always)]
pub fn stochastic_f16(x: f32, noise: u32) -> f16 {
    let bits = x.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let exponent = magnitude >> 23;
    // Subnormals of f32 get a leading bit they do not have; they round to zero for any noise all the same.
    let significand = magnitude & 0x007f_ffff | 0x0080_0000;
    let dropped = 126u32.saturating_sub(exponent).max(13);
    let whole = (significand >> dropped.min(31)) + (exponent.saturating_sub(113) << 10);
    // The dropped bits and as many of noise, both moved to the top of a word; moving left loses the kept bits.
    let left = 32u32.saturating_sub(dropped);
    let rest = significand << left >> dropped.saturating_sub(32).min(31);
    let up = (noise << left) < rest;
    let out = if magnitude < 0x4780_0000 { whole + up as u32 } else { 0x7c00 };
    let nan = 0x7e00 | (magnitude >> 13 & 0x3ff);
    f16::from_bits((sign | if magnitude > 0x7f80_0000 { nan } else { out }) as u16)
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{narrow_bf16_512, round_to_bf16, round_to_bf16_512, widen_bf16_512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::prefetch::{ask_to_read, ask_to_write};
    use super::{narrow_bf16, narrow_f16, widen_bf16, widen_f16};
    use core::arch::x86_64::*;
    use half::{bf16, f16};

    /// Applies `$vector` to full vectors of `$n` and `$scalar` to the rest.
    macro_rules! convert {
        ($name:ident, $features:literal, $from:ty, $to:ty, $n:literal, $scalar:ident,
     |$src:ident, $dst:ident| $vector:expr) => {
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

    /// As `narrow_bf16`, the result in the upper halves of the words: a NaN gets no rounding but the quiet bit.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::simd) fn round_to_bf16(x: __m256) -> __m256i {
        let bits = _mm256_castps_si256(x);
        let number = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_ORD_Q>(x, x));
        let last = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let half = _mm256_and_si256(_mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)), number);
        let quiet = _mm256_andnot_si256(number, _mm256_set1_epi32(0x0040_0000));
        _mm256_or_si256(_mm256_add_epi32(bits, half), quiet)
    }

    /// Widens sixteen; a signalling NaN stays one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    pub(in crate::simd) fn widen_bf16_512(codes: __m256i) -> __m512 {
        // Word i to the upper half of lane i, in one instruction.
        const PLACES: [u16; 32] = {
            let mut places = [0; 32];
            let mut i = 0;
            while i < 16 {
                places[2 * i + 1] = i as u16;
                i += 1;
            }
            places
        };
        // SAFETY: 64 bytes.
        let places = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) };
        _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaa_aaaa, places, _mm512_castsi256_si512(codes)))
    }

    /// `y`, but where `x` is NaN that NaN, quiet.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    fn or_nan(y: __m512, x: __m512) -> __m512 {
        // The two lowest digits of the table stand for quiet and signalling NaN, and a 2 for the quiet NaN of x.
        _mm512_fixupimm_ps::<0>(y, x, _mm512_set1_epi32(0x22))
    }

    /// As [`round_to_bf16`], sixteen. Adding just under half an ulp, plus the last kept bit, carries exactly when
    /// rounding to even goes up.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    pub(in crate::simd) fn round_to_bf16_512(x: __m512) -> __m512i {
        let bits = _mm512_castps_si512(x);
        let odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x1_0000));
        let half = _mm512_mask_blend_epi32(odd, _mm512_set1_epi32(0x7fff), _mm512_set1_epi32(0x8000));
        _mm512_castps_si512(or_nan(_mm512_castsi512_ps(_mm512_add_epi32(bits, half)), x))
    }

    /// As `narrow_bf16`, sixteen.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    pub(in crate::simd) fn narrow_bf16_512(x: __m512) -> __m256i {
        const UPPER_HALVES: [u16; 32] = {
            let mut places = [0; 32];
            let mut i = 0;
            while i < 16 {
                places[i] = 2 * i as u16 + 1;
                i += 1;
            }
            places
        };
        // SAFETY: 64 bytes.
        let places = unsafe { _mm512_loadu_si512(UPPER_HALVES.as_ptr().cast()) };
        _mm512_castsi512_si256(_mm512_permutexvar_epi16(places, round_to_bf16_512(x)))
    }

    convert!(widen_f16_avx2, "avx2,fma,f16c", f16, f32, 8, widen_f16, |src, dst| {
        ask_to_read(src);
        _mm256_storeu_ps(dst, _mm256_cvtph_ps(_mm_loadu_si128(src.cast())))
    });
    convert!(narrow_f16_avx2, "avx2,fma,f16c", f32, f16, 8, narrow_f16, |src, dst| {
        ask_to_write(dst);
        _mm_storeu_si128(dst.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(src)))
    });
    convert!(
        widen_f16_avx512,
        "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c",
        f16,
        f32,
        16,
        widen_f16,
        |src, dst| {
            ask_to_read(src);
            _mm512_storeu_ps(dst, _mm512_cvtph_ps(_mm256_loadu_si256(src.cast())))
        }
    );
    // One comparison tells whether there is a NaN among sixteen numbers, which is seldom.
    convert!(widen_bf16_avx2, "avx2,fma,f16c", bf16, f32, 16, widen_bf16, |src, dst| {
        ask_to_read(src);
        // No closure: it might not be inlined, and be compiled without the instruction set.
        let a = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(src.cast()))));
        let b = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(src.add(8).cast()))));
        if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, b)) == 0 {
            _mm256_storeu_ps(dst, a);
            _mm256_storeu_ps(dst.add(8), b);
        } else {
            for i in 0..16 {
                *dst.add(i) = widen_bf16(*src.add(i));
            }
        }
    });
    convert!(narrow_bf16_avx2, "avx2,fma,f16c", f32, bf16, 16, narrow_bf16, |src, dst| {
        ask_to_write(dst);
        let (a, b) = (round_to_bf16(_mm256_loadu_ps(src)), round_to_bf16(_mm256_loadu_ps(src.add(8))));
        // Packing works inside the 128-bit parts.
        let packed = _mm256_packus_epi32(_mm256_srli_epi32::<16>(a), _mm256_srli_epi32::<16>(b));
        _mm256_storeu_si256(dst.cast(), _mm256_permute4x64_epi64::<0b1101_1000>(packed))
    });
    convert!(
        widen_bf16_avx512,
        "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c",
        bf16,
        f32,
        16,
        widen_bf16,
        |src, dst| {
            ask_to_read(src);
            let x = widen_bf16_512(_mm256_loadu_si256(src.cast()));
            _mm512_storeu_ps(dst, or_nan(x, x))
        }
    );
    convert!(
        narrow_bf16_avx512,
        "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c",
        f32,
        bf16,
        16,
        narrow_bf16,
        |src, dst| {
            ask_to_write(dst);
            _mm256_storeu_si256(dst.cast(), narrow_bf16_512(_mm512_loadu_ps(src)))
        }
    );
    convert!(
        narrow_f16_avx512,
        "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c",
        f32,
        f16,
        16,
        narrow_f16,
        |src, dst| {
            ask_to_write(dst);
            _mm256_storeu_si256(dst.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_loadu_ps(src)))
        }
    );
}
