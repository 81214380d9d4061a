//! Scalar functions over slices, as kernels.

use super::{Kernel, Lanes};

/// A scalar function over slices. Compiled for each level like any kernel, the loop becomes vector code by itself.
pub struct Each<'a, F, A, B>(pub F, pub &'a [A], pub &'a mut [B]);

impl<F: Fn(A) -> B, A: Copy, B> Kernel<f32> for Each<'_, F, A, B> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        let Each(f, from, to) = self;
        assert_eq!(from.len(), to.len());
        for (&a, b) in from.iter().zip(to) {
            *b = f(a);
        }
    }
}

/// [`Each`] with a word of noise per element.
pub struct EachNoisy<'a, F, B>(pub F, pub &'a [f32], pub &'a [u32], pub &'a mut [B]);

impl<F: Fn(f32, u32) -> B, B> Kernel<f32> for EachNoisy<'_, F, B> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        let EachNoisy(f, from, noise, to) = self;
        assert!(from.len() == to.len() && noise.len() == to.len());
        for ((&a, &n), b) in from.iter().zip(noise).zip(to) {
            *b = f(a, n);
        }
    }
}
