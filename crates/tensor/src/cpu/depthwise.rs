//! Kernels of depthwise convolutions: vectors of channels, no product over channels.

use super::tile::Row;
use crate::Shape;
use crate::op::Conv2d;
use crate::simd::{Kernel, Lanes};

/// Whether a convolution has one input and one output channel per group.
pub(super) fn applies(conv: &Conv2d, w: &Shape) -> bool {
    conv.groups > 1 && w[0] == conv.groups && w[1] == 1
}

/// `L::N` elements from `at` on; zeros beyond the end of `n` elements.
#[inline(always)]
fn load<L: Lanes>(from: &[L::Elem], at: usize, n: usize, pad: &mut [L::Elem; 16]) -> L {
    if n >= L::N {
        return L::load(&from[at..at + L::N]);
    }
    pad[..n].copy_from_slice(&from[at..at + n]);
    L::load(&pad[..L::N])
}

/// `acc[row.acc + c] (+)= Σ_taps slab[row.a + tap.0 + c]·w[tap.1 + c]`.
pub struct Taps<'a, C> {
    /// Image.
    pub slab: &'a [C],
    /// Pixels: places in the slab and in the accumulator.
    pub rows: &'a [Row],
    /// Places in the slab, from a pixel's, and in the weight.
    pub taps: &'a [(usize, usize)],
    /// `[tap][channel]`
    pub w: &'a [C],
    /// Channels.
    pub c: usize,
    /// Result.
    pub acc: &'a mut [C],
}

impl<C: Copy + Default> Taps<'_, C> {
    #[inline(always)]
    pub(super) fn run_on<L: Lanes<Elem = C>>(self) {
        let mut pad = [C::default(); 16];
        let whole = self.c - self.c % L::N;
        // The usual kernel keeps its weights in registers, one vector of channels after the other.
        let first = match <&[(usize, usize); 9]>::try_from(self.taps) {
            Ok(taps) => {
                for c in (0..whole).step_by(L::N) {
                    let w = taps.map(|(_, w)| L::load(&self.w[w + c..w + c + L::N]));
                    for row in self.rows {
                        let mut sum = L::splat(0.0);
                        for (&(a, _), &w) in taps.iter().zip(&w) {
                            let at = row.a + a + c;
                            sum = L::load(&self.slab[at..at + L::N]).mul_add(w, sum);
                        }
                        sum.store(&mut self.acc[row.acc + c..][..L::N]);
                    }
                }
                whole
            }
            Err(_) => 0,
        };
        for row in self.rows {
            for c in (first..self.c).step_by(L::N) {
                let n = (self.c - c).min(L::N);
                let mut sum = L::splat(0.0);
                for &(a, w) in self.taps {
                    let x = load::<L>(self.slab, row.a + a + c, n, &mut pad);
                    sum = x.mul_add(load::<L>(self.w, w + c, n, &mut pad), sum);
                }
                if n == L::N {
                    sum.store(&mut self.acc[row.acc + c..][..L::N]);
                } else {
                    sum.store(&mut pad[..L::N]);
                    self.acc[row.acc + c..][..n].copy_from_slice(&pad[..n]);
                }
            }
        }
    }
}

impl Kernel for Taps<'_, f32> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        self.run_on::<L>();
    }
}

/// `acc[tap·c + j] += Σ_rows slab[row.a + tap + j]·grad[row.acc + j]`.
pub struct TapSums<'a, C> {
    /// Image.
    pub slab: &'a [C],
    /// Gradient of the output.
    pub grad: &'a [C],
    /// Pixels: places in the slab and in the gradient.
    pub rows: &'a [Row],
    /// Places in the slab, from a pixel's.
    pub taps: &'a [usize],
    /// Channels.
    pub c: usize,
    /// Result `[tap][channel]`.
    pub acc: &'a mut [C],
}

impl<C: Copy + Default> TapSums<'_, C> {
    #[inline(always)]
    pub(super) fn run_on<L: Lanes<Elem = C>>(self) {
        let mut pad = [C::default(); 16];
        for (first, taps) in self.taps.chunks(9).enumerate() {
            for c in (0..self.c).step_by(L::N) {
                let n = (self.c - c).min(L::N);
                let mut sums = [L::splat(0.0); 9];
                for row in self.rows {
                    let g = load::<L>(self.grad, row.acc + c, n, &mut pad);
                    for (sum, &tap) in sums.iter_mut().zip(taps) {
                        *sum = load::<L>(self.slab, row.a + tap + c, n, &mut pad).mul_add(g, *sum);
                    }
                }
                for (i, &sum) in sums.iter().enumerate().take(taps.len()) {
                    let to = &mut self.acc[(first * 9 + i) * self.c + c..][..n];
                    pad[..n].copy_from_slice(to);
                    (L::load(&pad[..L::N]) + sum).store(&mut pad[..L::N]);
                    to.copy_from_slice(&pad[..n]);
                }
            }
        }
    }
}

impl Kernel for TapSums<'_, f32> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        self.run_on::<L>();
    }
}
