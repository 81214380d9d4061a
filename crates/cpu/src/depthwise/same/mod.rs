//! Depthwise 3 × 3 convolutions with stride 1 whose output is as large as their image, which most are: which
//! correlations are such ones, and how their images are cut into tasks. What is done along a row is in [`kernels`].

mod kernels;

pub use kernels::{Same, SameBackward};

use crate::kernel::Context;
use std::ops::Range;

use rayon::prelude::*;

use super::TOGETHER;
use crate::conv::{Correlation, Source};
use crate::epilogue::{Target, output_parts};
use crate::gemm::{elements_of, workspace};
use crate::operand::Compute;
use crate::operand::{elements_mut, in_storage};
use crate::simd::Stored;
use crate::tasks::Tasks as _;
use binade_tensor::{DType, Result};

/// Taps of the kernel.
const TAPS: usize = 9;
/// Stretches of rows that gradients by weight and bias are summed over, at most.
const STRETCHES: usize = 32;

/// The weight of each place around a pixel, if a correlation is such a one.
pub(super) fn weights(g: &Correlation, x: &Source<'_>) -> Option<[usize; TAPS]> {
    let [phase] = &g.phases[..] else { return None };
    let plain = g.step == [1, 1] && g.stride == [1, 1] && [g.h, g.w] == [x.h, x.w];
    if !plain || phase.taps.len() != TAPS || g.low != [-1, -1] || g.high != [1, 1] {
        return None;
    }
    let mut weights = [0; TAPS];
    for tap in &phase.taps {
        weights[((tap.at[0] + 1) * 3 + tap.at[1] + 1) as usize] = tap.index;
    }
    Some(weights)
}

/// An operator on images: where they lie, what they become.
pub(super) struct Work<'a, C> {
    pub(super) cx: Context<'a>,
    pub(super) g: &'a Correlation,
    /// Weights `[place][channel]`.
    w: Vec<C>,
    places: [usize; TAPS],
    dtype: DType,
}

impl<'a, C: Compute> Work<'a, C> {
    /// If there is a kernel here for a correlation with the weight `[tap][channel]`.
    pub(super) fn new(
        cx: Context<'a>,
        g: &'a Correlation,
        x: &Source<'_>,
        w: &[C],
        dtype: DType,
    ) -> Option<Work<'a, C>> {
        let places = weights(g, x)?;
        let w = places.iter().flat_map(|tap| &w[tap * x.c..][..x.c]).copied().collect();
        Some(Work { cx, g, w, places, dtype })
    }

    pub(super) fn correlate(&self, x: &Source<'_>, mut to: Target<'_, C>) -> Result<()> {
        if let Some(done) = in_storage!(x.values.dtype(), correlate_in::<C>(self, x, &mut to)) {
            return done;
        }
        let wide = x.widened::<C>(self.cx)?;
        self.correlate_of(x, elements_of::<C>(&wide), &mut to)
    }

    /// The image in memory is `image`.
    fn correlate_of<T: Stored<C>>(&self, x: &Source<'_>, image: &[T], to: &mut Target<'_, C>) -> Result<()> {
        let Target { epilogue, out, pre, .. } = to;
        let Work { cx, g, ref w, dtype, .. } = *self;
        let Context { isa, pool } = cx;
        let (extents, row, size) = ([x.h, x.w, x.c], x.w * x.c, dtype.size());
        let direct = dtype == T::DTYPE && !epilogue.activates();
        let (bias, epilogue) = epilogue.apart(x.c);
        let per_block = g.rows(x.n, x.c);
        let together = (TOGETHER / row).max(1);
        output_parts(out, pre, per_block * row * size).into_par_iter().enumerate().try_each(|(i, (out, pre))| {
            let mut scratch = workspace::<C>(pool, if direct { 0 } else { together * row })?;
            for p in g.pieces(i * per_block, out.len() / (row * size)) {
                let image = &image[p.n * x.h * row..][..x.h * row];
                let from = p.pixel * x.c;
                if direct {
                    let out = &mut elements_mut::<T>(out)[from..from + p.rows * row];
                    C::dispatch(isa, Same { extents, rows: p.y..p.y + p.rows, image, w, bias: &bias, out });
                    continue;
                }
                for first in (0..p.rows).step_by(together) {
                    let rows = p.y + first..p.y + p.rows.min(first + together);
                    let bytes = (from + first * row) * size..(from + (first + rows.len()) * row) * size;
                    let acc = &mut scratch.as_mut_slice::<C>()[..rows.len() * row];
                    C::dispatch(isa, Same { extents, rows, image, w, bias: &bias, out: &mut *acc });
                    let pre = if pre.is_empty() { &mut [][..] } else { &mut pre[bytes.clone()] };
                    epilogue.rows(acc, x.c, 0, x.c, x.c, &mut out[bytes], pre, dtype);
                }
            }
            Ok(())
        })
    }

    /// The gradients by input, which is written, weight `[tap][channel]` and bias.
    pub(super) fn backward(&self, grad: &Source<'_>, x: &Source<'_>, mut out: &mut [u8]) -> Result<(Vec<C>, Vec<C>)> {
        let alike = grad.values.dtype() == x.values.dtype();
        if let Some(done) =
            alike.then(|| in_storage!(x.values.dtype(), backward_in::<C>(self, grad, x, &mut out))).flatten()
        {
            return done;
        }
        let (wide_grad, wide_x) = (grad.widened::<C>(self.cx)?, x.widened::<C>(self.cx)?);
        self.backward_of(x, elements_of::<C>(&wide_grad), elements_of::<C>(&wide_x), out)
    }

    /// The images in memory are `grads` and `images`.
    fn backward_of<T: Stored<C>>(
        &self,
        x: &Source<'_>,
        grads: &[T],
        images: &[T],
        out: &mut [u8],
    ) -> Result<(Vec<C>, Vec<C>)> {
        let Work { cx, g, ref w, dtype, .. } = *self;
        let Context { isa, pool } = cx;
        let (extents, row, size, c) = ([x.h, x.w, x.c], x.w * x.c, dtype.size(), x.c);
        let per_stretch = (x.n * x.h).div_ceil(STRETCHES);
        let together = (TOGETHER / row).max(1);
        let len = (TAPS + 1) * c;
        let mut partial = vec![C::zero(); (x.n * x.h).div_ceil(per_stretch) * len];
        let parts = out.par_chunks_mut(per_stretch * row * size).zip(partial.par_chunks_mut(len));
        parts.enumerate().try_each(|(i, (out, sums))| {
            let direct = dtype == T::DTYPE;
            let mut scratch = workspace::<C>(pool, if direct { 0 } else { together * row })?;
            for p in g.pieces(i * per_stretch, out.len() / (row * size)) {
                let first = p.n * x.h * row;
                let (grad, from) = (&grads[first..][..x.h * row], p.pixel * c);
                let of = |rows: &Range<usize>| &images[first + rows.start * row..first + rows.end * row];
                if direct {
                    let (rows, out) = (p.y..p.y + p.rows, &mut elements_mut::<T>(out)[from..from + p.rows * row]);
                    let x = of(&rows);
                    C::dispatch(isa, SameBackward { extents, rows, grad, w, x, out, sums: &mut *sums });
                    continue;
                }
                for first in (0..p.rows).step_by(together) {
                    let rows = p.y + first..p.y + p.rows.min(first + together);
                    let bytes = (from + first * row) * size..(from + (first + rows.len()) * row) * size;
                    let acc = &mut scratch.as_mut_slice::<C>()[..rows.len() * row];
                    let x = of(&rows);
                    C::dispatch(isa, SameBackward { extents, rows, grad, w, x, out: &mut *acc, sums: &mut *sums });
                    C::store(isa, acc, &mut out[bytes], dtype);
                }
            }
            Ok::<(), binade_tensor::Error>(())
        })?;
        let mut sums = vec![C::zero(); len];
        for part in partial.chunks(len) {
            sums.iter_mut().zip(part).for_each(|(sum, &v)| *sum += v);
        }
        let bias = sums.split_off(TAPS * c);
        let mut weight = vec![C::zero(); TAPS * c];
        for (from, &tap) in sums.chunks_exact(c).zip(&self.places) {
            weight[tap * c..][..c].copy_from_slice(from);
        }
        Ok((weight, bias))
    }
}

/// [`Work::correlate`] of an image that lies in memory as it is read; `None` if it does not.
fn correlate_in<C: Compute, T: Stored<C>>(
    work: &Work<'_, C>,
    x: &Source<'_>,
    to: &mut Target<'_, C>,
) -> Option<Result<()>> {
    let image = x.values.dense::<T>()?;
    Some(work.correlate_of(x, image, to))
}

/// [`Work::backward`] likewise.
fn backward_in<C: Compute, T: Stored<C>>(
    work: &Work<'_, C>,
    grad: &Source<'_>,
    x: &Source<'_>,
    out: &mut &mut [u8],
) -> Option<Result<(Vec<C>, Vec<C>)>> {
    let (grads, images) = (grad.values.dense::<T>()?, x.values.dense::<T>()?);
    Some(work.backward_of(x, grads, images, out))
}
