//! What is done with the taps of some pixels, in vectors of channels.

use std::ops::Range;

use crate::simd::{Kernel, Lanes};

/// A tap of some pixels: the first pixel's place in the image, and the place in the weight.
pub type Place = (usize, usize);

/// Neighbouring pixels of an output row with the same taps.
#[derive(Clone, Copy)]
pub struct Pixels<'a> {
    pub n: usize,
    /// Distances of neighbours in the image and in the output or its gradient.
    pub step: [usize; 2],
    pub taps: &'a [Place],
    /// Channels.
    pub c: usize,
}

impl Pixels<'_> {
    /// Ends of what is used of the image, of the weight and of the output.
    fn ends(&self) -> [usize; 3] {
        let last = self.step.map(|step| (self.n - 1) * step + self.c);
        let most = |of: fn(&Place) -> usize| self.taps.iter().map(of).max();
        [most(|t| t.0).map_or(0, |a| a + last[0]), most(|t| t.1).map_or(0, |w| w + self.c), last[1]]
    }
}

/// What is done with `T` taps of some pixels, whose weights or sums stay in registers.
trait Body<C> {
    /// For the channels `c..c + lanes`; `add` to what earlier taps gave.
    ///
    /// # Safety
    /// The [`Pixels::ends`] are inside the operands.
    unsafe fn channels<L: Lanes<Elem = C>, const T: usize>(
        &mut self,
        pixels: Pixels<'_>,
        taps: [Place; T],
        add: bool,
        c: Range<usize>,
        load: impl Fn(&[C]) -> L,
        store: impl Fn(L, &mut [C]),
    );
}

/// Runs a body on all taps and channels.
///
/// # Safety
/// The [`Pixels::ends`] are inside the operands.
#[inline(always)]
unsafe fn over<L: Lanes, B: Body<L::Elem>>(pixels: Pixels<'_>, mut body: B) {
    #[inline(always)]
    unsafe fn some<L: Lanes, B: Body<L::Elem>, const T: usize>(pixels: Pixels<'_>, body: &mut B, done: usize) -> usize {
        let taps: [Place; T] = std::array::from_fn(|t| pixels.taps[done + t]);
        let whole = pixels.c - pixels.c % L::N;
        // SAFETY: the caller's promise.
        unsafe {
            for c in (0..whole).step_by(L::N) {
                body.channels::<L, T>(pixels, taps, done > 0, c..c + L::N, L::load, L::store);
            }
            if whole < pixels.c {
                body.channels::<L, T>(pixels, taps, done > 0, whole..pixels.c, L::load_part, L::store_part);
            }
        }
        done + T
    }
    let mut done = 0;
    while done < pixels.taps.len() {
        // SAFETY: the caller's promise.
        done = unsafe {
            match pixels.taps.len() - done {
                9.. => some::<L, B, 9>(pixels, &mut body, done),
                6.. => some::<L, B, 6>(pixels, &mut body, done),
                4.. => some::<L, B, 4>(pixels, &mut body, done),
                _ => some::<L, B, 1>(pixels, &mut body, done),
            }
        };
    }
}

/// `out[i, c] = Σ_taps image[tap.0 + i, c]·w[tap.1 + c]` for the pixels `i`.
pub struct Taps<'a, C> {
    pub pixels: Pixels<'a>,
    pub image: &'a [C],
    pub w: &'a [C],
    pub out: &'a mut [C],
}

impl<C: Copy + Default> Kernel<C> for Taps<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let Pixels { n, step, taps, c } = self.pixels;
        let [image, w, out] = self.pixels.ends();
        assert!(image <= self.image.len() && w <= self.w.len() && out <= self.out.len());
        if taps.is_empty() {
            (0..n).for_each(|i| self.out[i * step[1]..][..c].fill(C::default()));
        }
        // SAFETY: the ends were checked.
        unsafe { over::<L, _>(self.pixels, self) }
    }
}

impl<C: Copy> Body<C> for Taps<'_, C> {
    #[inline(always)]
    unsafe fn channels<L: Lanes<Elem = C>, const T: usize>(
        &mut self,
        pixels: Pixels<'_>,
        taps: [Place; T],
        add: bool,
        c: Range<usize>,
        load: impl Fn(&[C]) -> L,
        store: impl Fn(L, &mut [C]),
    ) {
        let of = |at: usize| at + c.start..at + c.end;
        // SAFETY: the caller's promise.
        unsafe {
            let w: [L; T] = std::array::from_fn(|t| load(self.w.get_unchecked(of(taps[t].1))));
            for i in 0..pixels.n {
                let out = self.out.get_unchecked_mut(of(i * pixels.step[1]));
                let mut sum = if add { load(out) } else { L::splat(0.0) };
                for (&(a, _), &w) in taps.iter().zip(&w) {
                    sum = load(self.image.get_unchecked(of(a + i * pixels.step[0]))).mul_add(w, sum);
                }
                store(sum, out);
            }
        }
    }
}

/// `sums[tap.1 + c] += Σ_i image[tap.0 + i, c]·grad[i, c]` over the pixels `i`.
pub struct TapSums<'a, C> {
    pub pixels: Pixels<'a>,
    pub image: &'a [C],
    pub grad: &'a [C],
    pub sums: &'a mut [C],
}

impl<C: Copy> Kernel<C> for TapSums<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let [image, sums, grad] = self.pixels.ends();
        assert!(image <= self.image.len() && sums <= self.sums.len() && grad <= self.grad.len());
        // SAFETY: the ends were checked.
        unsafe { over::<L, _>(self.pixels, self) }
    }
}

impl<C: Copy> Body<C> for TapSums<'_, C> {
    #[inline(always)]
    unsafe fn channels<L: Lanes<Elem = C>, const T: usize>(
        &mut self,
        pixels: Pixels<'_>,
        taps: [Place; T],
        _add: bool,
        c: Range<usize>,
        load: impl Fn(&[C]) -> L,
        store: impl Fn(L, &mut [C]),
    ) {
        let of = |at: usize| at + c.start..at + c.end;
        let mut sums = [L::splat(0.0); T];
        // SAFETY: the caller's promise.
        unsafe {
            for i in 0..pixels.n {
                let g = load(self.grad.get_unchecked(of(i * pixels.step[1])));
                for (sum, &(a, _)) in sums.iter_mut().zip(&taps) {
                    *sum = load(self.image.get_unchecked(of(a + i * pixels.step[0]))).mul_add(g, *sum);
                }
            }
            for (&sum, &(_, to)) in sums.iter().zip(&taps) {
                let to = self.sums.get_unchecked_mut(of(to));
                store(load(to) + sum, to);
            }
        }
    }
}
