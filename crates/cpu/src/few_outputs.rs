//! Correlations with few output channels: vectors along the inner dimension, where a tile of columns would be mostly
//! padding.

use super::tile::{Row, Segment};
use crate::simd::{Kernel, Lanes};

/// Output channels at most.
pub const COLUMNS: usize = 4;

/// `acc[row.acc + j] = Σ_segments Σ_l a[row.a + segment.a + l]·w[j·ld + segment.b + l]` for `j < columns`.
pub struct FewOutputs<'a, C> {
    /// Image.
    pub a: &'a [C],
    /// Pixels.
    pub rows: &'a [Row],
    /// [`COLUMNS`] rows of weights.
    pub w: &'a [C],
    /// Their distance.
    pub ld: usize,
    /// The inner dimension.
    pub segments: &'a [Segment],
    /// Output channels.
    pub columns: usize,
    /// Result.
    pub acc: &'a mut [C],
}

impl<C: Copy + Default> Kernel<C> for FewOutputs<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(mut self) {
        let end = |place: fn(&Segment) -> usize| self.segments.iter().map(|s| place(s) + s.len).max().unwrap_or(0);
        let (a, w) = (end(|s| s.a), end(|s| s.b));
        assert!(self.rows.iter().all(|r| r.a + a <= self.a.len()), "image too short");
        assert!((COLUMNS - 1) * self.ld + w <= self.w.len(), "weight too short");
        // SAFETY: every place was checked.
        unsafe { if L::N == 16 { self.tiles::<L, 4>() } else { self.tiles::<L, 2>() } }
    }
}

impl<C: Copy + Default> FewOutputs<'_, C> {
    /// Adds the products of `n` inner places of `M` pixels.
    #[inline(always)]
    unsafe fn step<L: Lanes<Elem = C>, const M: usize>(
        &self,
        places: &[usize; M],
        [a, b]: [usize; 2],
        n: usize,
        load: impl Fn(&[C]) -> L,
        sums: &mut [[L; COLUMNS]; M],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let w: [L; COLUMNS] =
                std::array::from_fn(|j| load(self.w.get_unchecked(j * self.ld + b..j * self.ld + b + n)));
            for (place, sums) in places.iter().zip(sums) {
                let x = load(self.a.get_unchecked(place + a..place + a + n));
                for (sum, &w) in sums.iter_mut().zip(&w) {
                    *sum = x.mul_add(w, *sum);
                }
            }
        }
    }

    /// `M` pixels at a time; where fewer are left, the first of them several times.
    #[inline(always)]
    unsafe fn tiles<L: Lanes<Elem = C>, const M: usize>(&mut self) {
        for rows in self.rows.chunks(M) {
            let places: [usize; M] = std::array::from_fn(|i| rows[if i < rows.len() { i } else { 0 }].a);
            let mut sums = [[L::splat(0.0); COLUMNS]; M];
            for s in self.segments {
                let whole = s.len - s.len % L::N;
                // SAFETY: the caller's promise.
                unsafe {
                    for l in (0..whole).step_by(L::N) {
                        self.step(&places, [s.a + l, s.b + l], L::N, L::load, &mut sums);
                    }
                    if whole < s.len {
                        self.step(&places, [s.a + whole, s.b + whole], s.len - whole, L::load_part, &mut sums);
                    }
                }
            }
            let mut lanes = [C::default(); 256];
            for (i, sum) in sums.iter().flatten().enumerate() {
                sum.store(&mut lanes[i * L::N..]);
            }
            let mut out = [C::default(); 16];
            for i in (0..M * COLUMNS).step_by(L::N) {
                totals::<L>(&lanes[i * L::N..]).store(&mut out[i..]);
            }
            for (row, out) in rows.iter().zip(out.chunks(COLUMNS)) {
                self.acc[row.acc..row.acc + self.columns].copy_from_slice(&out[..self.columns]);
            }
        }
    }
}

/// The sums of the lanes of `N` vectors, by halves.
#[inline(always)]
fn totals<L: Lanes>(vectors: &[L::Elem]) -> L {
    let mut turned = [L::Elem::default(); 256];
    L::transpose(vectors, L::N, &mut turned, L::N);
    let mut sums = [L::splat(0.0); 16];
    for (i, sum) in sums.iter_mut().enumerate().take(L::N) {
        *sum = L::load(&turned[i * L::N..]);
    }
    let mut half = L::N / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] = sums[i] + sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}
