//! Numbers as sums of bf16 planes, for products on tiles: a bf16 is one plane, an f16 exactly two, an f32 exactly
//! three, each plane the rounding of what the planes before it leave.
//!
//! Not every number has such a sum, nor may the instructions see every number: functions that split tell what
//! [`Magnitudes`] they met, and their caller judges.

/// Planes of f32, f16 and bf16 at most.
pub const MOST: usize = 3;

/// The range of some numbers, as bits of f32 numbers, of which larger magnitudes have larger ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Magnitudes {
    /// The smallest magnitude but zero; [`Magnitudes::NONE`] if all numbers are zero.
    pub least: u32,
    /// The largest magnitude; beyond infinity's bits if a number is NaN.
    pub most: u32,
}

impl Magnitudes {
    /// No smallest magnitude.
    pub const NONE: u32 = u32::MAX;
}

/// The magnitudes met so far, lane by lane: what is read row by row is looked at as a whole at the end.
#[repr(align(64))]
pub struct Seen {
    /// Less by one, so that zero is the largest.
    least: [u32; 16],
    most: [u32; 16],
}

impl Seen {
    /// No numbers.
    pub fn nothing() -> Seen {
        Seen { least: [u32::MAX; 16], most: [0; 16] }
    }

    /// The range of all numbers.
    pub fn magnitudes(&self) -> Magnitudes {
        let fold = |x: &[u32; 16], f: fn(u32, u32) -> u32| x.iter().copied().reduce(f).unwrap_or(0);
        // The largest less by one is that of zero, and becomes NONE.
        let least = fold(&self.least, u32::min);
        Magnitudes {
            least: if least == u32::MAX { Magnitudes::NONE } else { least + 1 },
            most: fold(&self.most, u32::max),
        }
    }
}

/// Splits numbers into `planes` planes, `distance` apart in `to`, and adds them to those seen.
///
/// # Panics
/// `to` is too short.
pub fn split(isa: super::Isa, from: &[f32], planes: usize, distance: usize, to: &mut [u16], seen: &mut Seen) {
    assert!(isa >= super::Isa::Amx && (1..=MOST).contains(&planes), "planes need the level amx");
    assert!(to.len() >= (planes - 1) * distance + from.len(), "no room for the planes");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the level has AVX-512 with BF16; the length was checked.
    unsafe {
        match planes {
            1 => x86::split::<1>(from, distance, to, seen),
            2 => x86::split::<2>(from, distance, to, seen),
            _ => x86::split::<3>(from, distance, to, seen),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = seen;
}

/// Copies bf16 numbers, which are their own only plane, and adds them to those seen.
///
/// # Panics
/// The lengths differ.
pub fn copy(isa: super::Isa, from: &[u16], to: &mut [u16], seen: &mut Seen) {
    assert!(isa >= super::Isa::Amx && from.len() == to.len(), "equal lengths");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the level has AVX-512; the lengths are equal.
    unsafe {
        x86::copy(from, to, seen);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = seen;
}

/// `to[2i] = a[i]`, `to[2i + 1] = b[i]`.
///
/// # Panics
/// The lengths do not fit.
pub fn zip(isa: super::Isa, a: &[u16], b: &[u16], to: &mut [u16]) {
    assert!(isa >= super::Isa::Amx && a.len() == b.len() && to.len() == 2 * a.len(), "equal lengths");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the level has AVX-512; the lengths fit.
    unsafe {
        x86::zip(a, b, to);
    }
}

/// [`zip`] of each two rows of `columns` numbers.
///
/// # Panics
/// The lengths do not fit.
pub fn zip_rows(isa: super::Isa, from: &[u16], columns: usize, to: &mut [u16]) {
    assert!(
        isa >= super::Isa::Amx && from.len() == to.len() && from.len().is_multiple_of(2 * columns),
        "equal lengths"
    );
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the level has AVX-512; the lengths fit.
    unsafe {
        x86::zip_rows(from, columns, to);
    }
}

/// Turns 32 rows of 16 numbers, `ld_from` apart, into 16 rows of 32, `ld_to` apart.
///
/// # Panics
/// The slices are too short.
pub fn turn(isa: super::Isa, from: &[u16], ld_from: usize, to: &mut [u16], ld_to: usize) {
    assert!(isa >= super::Isa::Amx, "planes need the level amx");
    assert!(from.len() >= 31 * ld_from + 16 && to.len() >= 15 * ld_to + 32, "all rows are there");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the level has AVX-512; the lengths were checked.
    unsafe {
        x86::turn(from, ld_from, to, ld_to);
    }
}

/// [`split`] of 16 numbers each, and [`zip`] of their planes.
///
/// # Panics
/// `to` is too short.
pub fn pairs(
    isa: super::Isa,
    a: &[f32; 16],
    b: &[f32; 16],
    planes: usize,
    distance: usize,
    to: &mut [u16],
    seen: &mut Seen,
) {
    assert!(isa >= super::Isa::Amx && (1..=MOST).contains(&planes), "planes need the level amx");
    assert!(to.len() >= (planes - 1) * distance + 32, "no room for the planes");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the level has AVX-512 with BF16; the length was checked.
    unsafe {
        match planes {
            1 => x86::pairs::<1>(a, b, distance, to, seen),
            2 => x86::pairs::<2>(a, b, distance, to, seen),
            _ => x86::pairs::<3>(a, b, distance, to, seen),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = seen;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Seen;

    /// Bytes ahead of which memory is asked for.
    const AHEAD: usize = 1024;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
    unsafe fn planes_of<const P: usize>(x: __m512, seen: &mut Lanes) -> [__m256i; P] {
        let size = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff));
        // Less by one, so that zero is the largest.
        let below = _mm512_sub_epi32(size, _mm512_set1_epi32(1));
        seen.least = _mm512_min_epu32(seen.least, below);
        seen.most = _mm512_max_epu32(seen.most, size);
        let mut rest = x;
        std::array::from_fn(|i| {
            // SAFETY: a reinterpretation of 32 bytes.
            let plane: __m256i = unsafe { std::mem::transmute(_mm512_cvtneps_pbh(rest)) };
            if i + 1 < P {
                let wide = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(plane)));
                rest = _mm512_sub_ps(rest, wide);
            }
            plane
        })
    }

    /// [`Seen`] in registers.
    struct Lanes {
        least: __m512i,
        most: __m512i,
    }

    impl Lanes {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        fn load(seen: &Seen) -> Lanes {
            // SAFETY: arrays of 64 bytes.
            unsafe {
                Lanes {
                    least: _mm512_loadu_si512(seen.least.as_ptr().cast()),
                    most: _mm512_loadu_si512(seen.most.as_ptr().cast()),
                }
            }
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        fn store(&self, seen: &mut Seen) {
            // SAFETY: arrays of 64 bytes.
            unsafe {
                _mm512_storeu_si512(seen.least.as_mut_ptr().cast(), self.least);
                _mm512_storeu_si512(seen.most.as_mut_ptr().cast(), self.most);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
    pub unsafe fn split<const P: usize>(from: &[f32], distance: usize, to: &mut [u16], all: &mut Seen) {
        let mut seen = Lanes::load(all);
        let mut i = 0;
        while i + 16 <= from.len() {
            // SAFETY: whole vectors of what is left; what is asked for ahead need not be there.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(i + AHEAD / 4).cast());
                let planes = planes_of::<P>(_mm512_loadu_ps(from.as_ptr().add(i)), &mut seen);
                for (p, plane) in planes.into_iter().enumerate() {
                    _mm256_storeu_si256(to.as_mut_ptr().add(p * distance + i).cast(), plane);
                }
            }
            i += 16;
        }
        while i < from.len() {
            let n = (from.len() - i).min(16);
            let mask = (u32::MAX >> (32 - n)) as __mmask16;
            // SAFETY: masked to what is left of `from`, and of each plane in `to`.
            unsafe {
                let planes = planes_of::<P>(_mm512_maskz_loadu_ps(mask, from.as_ptr().add(i)), &mut seen);
                for (p, plane) in planes.into_iter().enumerate() {
                    _mm256_mask_storeu_epi16(to.as_mut_ptr().add(p * distance + i).cast(), mask, plane);
                }
            }
            i += n;
        }
        seen.store(all);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    pub unsafe fn copy(from: &[u16], to: &mut [u16], all: &mut Seen) {
        let (mut least, mut most) = (_mm512_set1_epi16(-1), _mm512_setzero_si512());
        let mut i = 0;
        while i < from.len() {
            let n = (from.len() - i).min(32);
            let mask = u32::MAX >> (32 - n);
            // SAFETY: masked to what is left; what is asked for ahead need not be there.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(i + AHEAD / 2).cast());
                let x = _mm512_maskz_loadu_epi16(mask, from.as_ptr().add(i).cast());
                let size = _mm512_and_si512(x, _mm512_set1_epi16(0x7fff));
                let below = _mm512_sub_epi16(size, _mm512_set1_epi16(1));
                least = _mm512_min_epu16(least, below);
                most = _mm512_max_epu16(most, size);
                _mm512_mask_storeu_epi16(to.as_mut_ptr().add(i).cast(), mask, x);
            }
            i += n;
        }
        // The two halves of each word, as f32 numbers: a bf16 number is the upper half of one. What is less by one in
        // the half is made so in the word; zeros are 0xffff in `least`, which stays the largest.
        let low = |x| _mm512_slli_epi32::<16>(x);
        let high = |x| _mm512_and_si512(x, _mm512_set1_epi32(-65536));
        let below = |x| _mm512_or_si512(x, _mm512_set1_epi32(0xffff));
        let mut seen = Lanes::load(all);
        seen.least = _mm512_min_epu32(seen.least, _mm512_min_epu32(below(low(least)), below(high(least))));
        seen.most = _mm512_max_epu32(seen.most, _mm512_max_epu32(low(most), high(most)));
        seen.store(all);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    pub unsafe fn zip_rows(from: &[u16], columns: usize, to: &mut [u16]) {
        for (from, to) in from.chunks_exact(2 * columns).zip(to.chunks_exact_mut(2 * columns)) {
            let (a, b) = from.split_at(columns);
            // SAFETY: equal lengths.
            unsafe { zip(a, b, to) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    pub unsafe fn zip(a: &[u16], b: &[u16], to: &mut [u16]) {
        let mut i = 0;
        // SAFETY: whole vectors of what is left.
        unsafe {
            let place = |first: i16| {
                let order: [i16; 32] = std::array::from_fn(|i| first + i as i16 / 2 + 32 * (i as i16 % 2));
                _mm512_loadu_si512(order.as_ptr().cast())
            };
            let (low, high) = (place(0), place(16));
            while i + 32 <= a.len() {
                let (x, y) =
                    (_mm512_loadu_si512(a.as_ptr().add(i).cast()), _mm512_loadu_si512(b.as_ptr().add(i).cast()));
                let to = to.as_mut_ptr().add(2 * i);
                _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi16(x, low, y));
                _mm512_storeu_si512(to.add(32).cast(), _mm512_permutex2var_epi16(x, high, y));
                i += 32;
            }
        }
        while i < a.len() {
            let n = (a.len() - i).min(16);
            let mask = (u32::MAX >> (32 - n)) as __mmask16;
            // SAFETY: masked to what is left.
            unsafe {
                let low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, a.as_ptr().add(i).cast()));
                let high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, b.as_ptr().add(i).cast()));
                let pairs = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                _mm512_mask_storeu_epi32(to.as_mut_ptr().add(2 * i).cast(), mask, pairs);
            }
            i += n;
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    pub unsafe fn turn(from: &[u16], ld_from: usize, to: &mut [u16], ld_to: usize) {
        // SAFETY: the caller checked the lengths.
        unsafe {
            let row = |l: usize| _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().add(l * ld_from).cast()));
            // Words of two neighbours each: `x[l][i]`.
            let mut x = [_mm512_setzero_si512(); 16];
            for (l, x) in x.iter_mut().enumerate() {
                *x = _mm512_or_si512(row(2 * l), _mm512_slli_epi32::<16>(row(2 * l + 1)));
            }
            // Four rounds that exchange halves: of pairs of words, of lanes of four words, of pairs of lanes.
            let mut y = [_mm512_setzero_si512(); 16];
            for l in (0..16).step_by(2) {
                y[l] = _mm512_unpacklo_epi32(x[l], x[l + 1]);
                y[l + 1] = _mm512_unpackhi_epi32(x[l], x[l + 1]);
            }
            for l in (0..16).step_by(4) {
                x[l] = _mm512_unpacklo_epi64(y[l], y[l + 2]);
                x[l + 1] = _mm512_unpackhi_epi64(y[l], y[l + 2]);
                x[l + 2] = _mm512_unpacklo_epi64(y[l + 1], y[l + 3]);
                x[l + 3] = _mm512_unpackhi_epi64(y[l + 1], y[l + 3]);
            }
            // `x[4g + c]` has, in lane q, the words 4g to 4g + 3 of row 4q + c.
            for c in 0..4 {
                let low = _mm512_shuffle_i32x4::<0x44>(x[c], x[4 + c]);
                let high = _mm512_shuffle_i32x4::<0xee>(x[c], x[4 + c]);
                let low2 = _mm512_shuffle_i32x4::<0x44>(x[8 + c], x[12 + c]);
                let high2 = _mm512_shuffle_i32x4::<0xee>(x[8 + c], x[12 + c]);
                let rows = [
                    _mm512_shuffle_i32x4::<0x88>(low, low2),
                    _mm512_shuffle_i32x4::<0xdd>(low, low2),
                    _mm512_shuffle_i32x4::<0x88>(high, high2),
                    _mm512_shuffle_i32x4::<0xdd>(high, high2),
                ];
                for (q, row) in rows.into_iter().enumerate() {
                    _mm512_storeu_si512(to.as_mut_ptr().add((4 * q + c) * ld_to).cast(), row);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
    pub unsafe fn pairs<const P: usize>(a: &[f32; 16], b: &[f32; 16], distance: usize, to: &mut [u16], all: &mut Seen) {
        // SAFETY: whole vectors; the caller checked the room for the planes.
        unsafe {
            let mut seen = Lanes::load(all);
            let a = planes_of::<P>(_mm512_loadu_ps(a.as_ptr()), &mut seen);
            let b = planes_of::<P>(_mm512_loadu_ps(b.as_ptr()), &mut seen);
            for p in 0..P {
                let pairs =
                    _mm512_or_si512(_mm512_cvtepu16_epi32(a[p]), _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(b[p])));
                _mm512_storeu_si512(to.as_mut_ptr().add(p * distance).cast(), pairs);
            }
            seen.store(all);
        }
    }
}
