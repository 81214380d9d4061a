//! Sums of products of 8-bit integers, exact in 32 bits.
//!
//! Neighbours along the inner dimension lie in words of 32 bits. Four integers do where an instruction multiplies and
//! adds four pairs of bytes (AVX-512 with VNNI). Else it is two, widened to 16 bits. No instruction saturates.

use super::Isa;

/// Rows that are multiplied at once.
pub const ROWS: usize = 8;
/// Columns of the widest panel.
pub const WIDEST: usize = 32;
/// Bytes that are asked for before they are read.
#[cfg(target_arch = "x86_64")]
const BYTES_AHEAD: usize = 4096;

/// How words are made and multiplied on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Two integers, 4 columns.
    Portable,
    /// Two integers, 16 columns.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Four integers, 32 columns. The instruction takes bytes without a sign on the left: 128 is added to them, and
    /// 128 times the sum of its column subtracted from each result. Sums may wrap on the way, and come back.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Words {
    /// The best that a level has.
    pub fn new(isa: Isa) -> Words {
        #[cfg(target_arch = "x86_64")]
        match isa {
            Isa::Portable => Words(Level::Portable),
            Isa::Avx512 | Isa::Amx if std::arch::is_x86_feature_detected!("avx512vnni") => Words(Level::Vnni),
            Isa::Avx2 | Isa::Avx512 | Isa::Amx => Words(Level::Avx2),
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            Words(Level::Portable)
        }
    }

    /// Integers in a word.
    pub fn integers(self) -> usize {
        match self.0 {
            Level::Portable => 2,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => 2,
            #[cfg(target_arch = "x86_64")]
            Level::Vnni => 4,
        }
    }

    /// Columns of a panel.
    pub fn width(self) -> usize {
        match self.0 {
            Level::Portable => 4,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => 16,
            #[cfg(target_arch = "x86_64")]
            Level::Vnni => WIDEST,
        }
    }

    /// What is added to integers of the left operand.
    fn offset(self) -> u8 {
        match self.0 {
            Level::Portable => 0,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => 0,
            #[cfg(target_arch = "x86_64")]
            Level::Vnni => 128,
        }
    }

    /// A row of the left operand as words; the last is filled up.
    pub fn left(self, from: &[i8], to: &mut [i32]) {
        self.fill(from, to, self.offset());
    }

    /// A column of the right operand as words; the last is filled up with zeros.
    pub fn right(self, from: &[i8], to: &mut [i32]) {
        self.fill(from, to, 0);
    }

    fn fill(self, from: &[i8], to: &mut [i32], offset: u8) {
        assert!(to.len() * self.integers() >= from.len(), "room for all integers");
        match self.0 {
            Level::Portable => pairs(from, to),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` found the instruction set; there is room.
            Level::Avx2 => pairs_after(unsafe { x86::widen(from, to) }, from, to),
            #[cfg(target_arch = "x86_64")]
            Level::Vnni => {
                let (to, rest) = bytemuck::cast_slice_mut::<i32, u8>(to).split_at_mut(from.len());
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = from as u8 ^ offset);
                rest.fill(0);
            }
        }
    }

    /// What the sums of a panel's columns begin with.
    pub fn starts(self, panel: &[i32], start: &mut [i32]) {
        const ONES: [i32; 64] = [0x0101_0101; 64];
        start.fill(0);
        if self.offset() == 0 {
            return;
        }
        let width = self.width();
        let mut sums = [0; WIDEST];
        for panel in panel.chunks(ONES.len() * width) {
            self.multiply(&ONES, 0, 1, panel, start, panel.len() / width, &mut sums);
            start.copy_from_slice(&sums[..start.len()]);
        }
        start.iter_mut().for_each(|sum| *sum *= -(self.offset() as i32));
    }

    /// `Σ_l x[i·ld_x + l]·w[j·ld_w + l]` for up to four rows of each, where `sums` are those of the rows of x: for
    /// products with few rows, whose right operand is read once from where it lies.
    pub fn dots(self, x: &[i8], ld_x: usize, sums: &[i32], w: &[i8], ld_w: usize, len: usize) -> [[i32; 4]; 4] {
        let rows = sums.len().min(4);
        let columns = ((w.len() - len) / ld_w.max(1) + 1).min(4);
        assert!(rows > 0 && x.len() >= (rows - 1) * ld_x + len, "the rows are there");
        let mut out = [[0; 4]; 4];
        for (i, out) in out.iter_mut().enumerate().take(rows) {
            let x = &x[i * ld_x..][..len];
            // Columns that are not there are the last that is.
            let w: [&[i8]; 4] = std::array::from_fn(|j| &w[j.min(columns - 1) * ld_w..][..len]);
            *out = match self.0 {
                Level::Portable => w.map(|w| x.iter().zip(w).map(|(&x, &w)| x as i32 * w as i32).sum()),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `new` found the instruction set; all slices are of one length.
                Level::Avx2 => unsafe { x86::dots_avx2(x, &w) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above. 128 was added to the weights.
                Level::Vnni => unsafe { x86::dots_vnni(x, &w) }.map(|sum| sum.wrapping_sub(128 * sums[i])),
            };
        }
        out
    }

    /// `acc[i·width + j] = start[j] + Σ_l x[i·ld + l]·panel[l·width + j]` for at most [`ROWS`] rows. A product of words
    /// is the sum of the products of their integers.
    ///
    /// # Panics
    /// The slices are too short.
    pub fn multiply(
        self,
        x: &[i32],
        ld: usize,
        rows: usize,
        panel: &[i32],
        start: &[i32],
        len: usize,
        acc: &mut [i32],
    ) {
        let width = self.width();
        assert!(rows <= ROWS && x.len() >= rows.saturating_sub(1) * ld + len, "the rows are there");
        assert!(panel.len() >= len * width && start.len() >= width && acc.len() >= rows * width, "a whole panel");
        match self.0 {
            Level::Portable => portable(x, ld, rows, panel, start, len, acc),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` found the instruction set; the extents were checked.
            Level::Avx2 => unsafe { x86::avx2(x.as_ptr(), ld, rows, panel.as_ptr(), start, len, acc.as_mut_ptr()) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Vnni => unsafe { x86::vnni(x.as_ptr(), ld, rows, panel.as_ptr(), start, len, acc.as_mut_ptr()) },
        }
    }
}

/// Two integers in a word.
fn pair([low, high]: [i8; 2]) -> i32 {
    (high as i32) << 16 | low as i16 as u16 as i32
}

/// [`pairs`] of integers behind the first `done`, which are an even number.
#[cfg(target_arch = "x86_64")]
fn pairs_after(done: usize, from: &[i8], to: &mut [i32]) {
    pairs(&from[done..], &mut to[done / 2..]);
}

fn pairs(from: &[i8], to: &mut [i32]) {
    let (whole, rest) = from.as_chunks::<2>();
    to.iter_mut().zip(whole).for_each(|(to, &from)| *to = pair(from));
    if let (Some(to), [last]) = (to.get_mut(whole.len()), rest) {
        *to = pair([*last, 0]);
    }
}

fn portable(x: &[i32], ld: usize, rows: usize, panel: &[i32], start: &[i32], len: usize, acc: &mut [i32]) {
    const WIDTH: usize = 4;
    let halves = |word: i32| [word as i16 as i32, word >> 16];
    for i in 0..rows {
        let mut sums: [i32; WIDTH] = std::array::from_fn(|j| start[j]);
        for (&x, panel) in x[i * ld..][..len].iter().zip(panel.as_chunks::<WIDTH>().0) {
            let [a, b] = halves(x);
            for (sum, &w) in sums.iter_mut().zip(panel) {
                let [c, d] = halves(w);
                *sum += a * c + b * d;
            }
        }
        acc[i * WIDTH..][..WIDTH].copy_from_slice(&sums);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;

    /// Two vectors of results of some rows, at most as many as leave registers, for each instruction set. The macro
    /// writes the loops out: methods of a trait would not be compiled for the instruction set.
    macro_rules! tiles {
        ($name:ident, $some:ident, $features:literal, $lanes:literal, $vector:ty, $load:ident, $store:ident,
         $splat:ident, $tall:literal, $add:expr) => {
            /// As [`super::Words::multiply`].
            ///
            /// # Safety
            ///
            /// The processor has the instruction set, and every place named there is readable and writable.
            #[target_feature(enable = $features)]
            pub unsafe fn $name(
                x: *const i32,
                ld: usize,
                rows: usize,
                panel: *const i32,
                start: &[i32],
                len: usize,
                acc: *mut i32,
            ) {
                let mut done = 0;
                while done < rows {
                    // SAFETY: the caller's promise.
                    unsafe {
                        let (x, acc) = (x.add(done * ld), acc.add(done * 2 * $lanes));
                        done += match rows - done {
                            rows if rows >= $tall => $some::<$tall>(x, ld, panel, start, len, acc),
                            4.. => $some::<4>(x, ld, panel, start, len, acc),
                            2.. => $some::<2>(x, ld, panel, start, len, acc),
                            _ => $some::<1>(x, ld, panel, start, len, acc),
                        };
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn $some<const M: usize>(
                x: *const i32,
                ld: usize,
                panel: *const i32,
                start: &[i32],
                len: usize,
                acc: *mut i32,
            ) -> usize {
                // SAFETY: the caller's promise.
                unsafe {
                    let first: [$vector; 2] = [$load(start.as_ptr().cast()), $load(start.as_ptr().add($lanes).cast())];
                    let mut sums = [first; M];
                    for l in 0..len {
                        let panel = panel.add(l * 2 * $lanes);
                        let w: [$vector; 2] = [$load(panel.cast()), $load(panel.add($lanes).cast())];
                        for i in 0..M {
                            let x = $splat(*x.add(i * ld + l));
                            sums[i][0] = $add(sums[i][0], x, w[0]);
                            sums[i][1] = $add(sums[i][1], x, w[1]);
                        }
                    }
                    for (i, sums) in sums.iter().enumerate() {
                        $store(acc.add(i * 2 * $lanes).cast(), sums[0]);
                        $store(acc.add((2 * i + 1) * $lanes).cast(), sums[1]);
                    }
                }
                M
            }
        };
    }

    /// Widens integers to 16 bits, as many as fill vectors; tells how many.
    ///
    /// # Safety
    ///
    /// The processor has AVX2, and `to` has a word for each two integers.
    #[target_feature(enable = "avx2")]
    pub unsafe fn widen(from: &[i8], to: &mut [i32]) -> usize {
        let body = from.len() - from.len() % 16;
        for i in (0..body).step_by(16) {
            // SAFETY: the caller's promise.
            unsafe {
                let wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(from.as_ptr().add(i).cast()));
                _mm256_storeu_si256(to.as_mut_ptr().add(i / 2).cast(), wide);
            }
        }
        body
    }

    /// # Safety
    ///
    /// The processor has AVX2, and all slices have the length of `x`.
    #[target_feature(enable = "avx2")]
    pub unsafe fn dots_avx2(x: &[i8], w: &[&[i8]; 4]) -> [i32; 4] {
        let (mut sums, body) = ([_mm256_setzero_si256(); 4], x.len() - x.len() % 16);
        for l in (0..body).step_by(16) {
            // SAFETY: the caller's promise.
            unsafe {
                let x = _mm256_cvtepi8_epi16(_mm_loadu_si128(x.as_ptr().add(l).cast()));
                for (sum, w) in sums.iter_mut().zip(w) {
                    _mm_prefetch::<_MM_HINT_T0>(w.as_ptr().wrapping_add(l + super::BYTES_AHEAD));
                    let w = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.as_ptr().add(l).cast()));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, w));
                }
            }
        }
        let mut out = [0; 4];
        for (j, out) in out.iter_mut().enumerate() {
            let mut parts = [0i32; 8];
            // SAFETY: eight numbers.
            unsafe { _mm256_storeu_si256(parts.as_mut_ptr().cast(), sums[j]) };
            let rest = x[body..].iter().zip(&w[j][body..]).map(|(&x, &w)| x as i32 * w as i32);
            *out = parts.into_iter().chain(rest).sum();
        }
        out
    }

    /// Of weights to which 128 was added.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512 with VNNI, and all slices have the length of `x`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub unsafe fn dots_vnni(x: &[i8], w: &[&[i8]; 4]) -> [i32; 4] {
        let (mut sums, flip) = ([_mm512_setzero_si512(); 4], _mm512_set1_epi8(i8::MIN));
        for l in (0..x.len()).step_by(64) {
            let left = (x.len() - l).min(64);
            let mask = if left == 64 { u64::MAX } else { (1 << left) - 1 };
            // SAFETY: the caller's promise; what lies behind the end is not read.
            unsafe {
                let x = _mm512_maskz_loadu_epi8(mask, x.as_ptr().add(l));
                for (sum, w) in sums.iter_mut().zip(w) {
                    _mm_prefetch::<_MM_HINT_T0>(w.as_ptr().wrapping_add(l + super::BYTES_AHEAD));
                    let w = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, w.as_ptr().add(l)), flip);
                    *sum = _mm512_dpbusd_epi32(*sum, w, x);
                }
            }
        }
        sums.map(|sum| _mm512_reduce_add_epi32(sum))
    }

    tiles!(
        avx2,
        some_avx2,
        "avx2",
        8,
        __m256i,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_set1_epi32,
        4,
        |sum, x, w| _mm256_add_epi32(sum, _mm256_madd_epi16(x, w))
    );
    tiles!(
        vnni,
        some_vnni,
        "avx512f,avx512bw,avx512vl,avx512vnni",
        16,
        __m512i,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_set1_epi32,
        8,
        |sum, x, w| _mm512_dpbusd_epi32(sum, x, w)
    );
}
