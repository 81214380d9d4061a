//! Depthwise convolutions: vectors of channels, no product over channels. Taps outside the image are left out, so that
//! nothing is padded and an image that lies channels-last in the computing type is read where it is. The usual geometry
//! is in [`same`].

mod kernels;
mod same;

use crate::kernel::{Context, Out};
use std::ops::Range;

use rayon::prelude::*;
use smallvec::SmallVec;

use super::conv::{Correlation, Phase, Piece, Source, Tap};
use super::epilogue::{Target, output_parts};
use super::gemm::workspace;
use super::operand::Compute;
use crate::simd::prefetch;
use crate::tasks::Tasks as _;
use binade_tensor::memory::HostBuffer;
use binade_tensor::op::Conv2d;
use binade_tensor::{DType, Result, Shape};
use kernels::{Pixels, Place, TapSums, Taps};

/// Results that are finished together, about: they stay in the first-level cache.
const TOGETHER: usize = 4096;

/// Pixels of a phase whose taps lie in the same columns of the image: those at the borders one by one, and the rest.
struct Stretch {
    first: usize,
    n: usize,
    taps: Vec<Tap>,
}

impl Stretch {
    fn all(g: &Correlation, phase: &Phase, w: usize) -> Vec<Stretch> {
        let stride = g.stride[1] as isize;
        let n = g.w.saturating_sub(phase.residue[1]).div_ceil(g.step[1]);
        // Pixels for which a tap lies in the image.
        let reach = |tap: &Tap| {
            let first_from =
                |column: isize| (column - tap.at[1] + stride - 1).div_euclid(stride).clamp(0, n as isize) as usize;
            first_from(0)..first_from(w as isize)
        };
        let left = phase.taps.iter().map(|tap| reach(tap).start).max().unwrap_or(0);
        let right = phase.taps.iter().map(|tap| reach(tap).end).min().unwrap_or(n).max(left);
        let inner = (left < right).then_some((left, right - left));
        let single = |i: usize| (i, 1);
        (0..left)
            .map(single)
            .chain(inner)
            .chain((right..n).map(single))
            .map(|(first, n)| Stretch {
                first,
                n,
                taps: phase.taps.iter().filter(|tap| reach(tap).contains(&first)).copied().collect(),
            })
            .collect()
    }
}

/// A correlation of an image with one weight per channel and tap.
struct Depthwise<'a> {
    cx: Context<'a>,
    g: &'a Correlation,
    x: &'a Source<'a>,
    /// Of each phase.
    stretches: Vec<Vec<Stretch>>,
}

impl<'a> Depthwise<'a> {
    fn new(cx: Context<'a>, g: &'a Correlation, x: &'a Source<'a>) -> Depthwise<'a> {
        let stretches = g.phases.iter().map(|phase| Stretch::all(g, phase, x.w)).collect();
        Depthwise { cx, g, x, stretches }
    }

    /// Rows of an image, in `scratch` where they must be widened.
    fn rows<'b, C: Compute>(
        &self,
        x: &'b Source<'_>,
        n: usize,
        rows: Range<usize>,
        scratch: &'b mut Option<HostBuffer>,
    ) -> Result<&'b [C]> {
        let (row, all) = (x.w * x.c, x.n * x.h * x.w * x.c);
        let len = rows.len() * row;
        let buffer = if x.values.is_borrowed::<C>(all) {
            &mut []
        } else {
            scratch.insert(workspace::<C>(self.cx.pool, len)?).as_mut_slice()
        };
        Ok(x.values.block(self.cx.isa, (n * x.h + rows.start) * row, len, buffer))
    }

    /// Rows of the image that a piece of the output reads.
    fn image_rows(&self, p: &Piece) -> Range<usize> {
        let g = self.g;
        let row =
            |y: usize, tap: isize| ((y / g.step[0] * g.stride[0]) as isize + tap).clamp(0, self.x.h as isize) as usize;
        let first = row(p.y, g.low[0]);
        first..row(p.y + p.rows - 1, g.high[0] + 1).max(first)
    }

    /// Where the row of the image that the output row after `y` reads first of all rows is, `top` being the first row
    /// at hand.
    fn next(&self, y: usize, top: usize) -> usize {
        let last = (y / self.g.step[0] * self.g.stride[0]) as isize + self.g.high[0];
        (last + 1 - top as isize).max(0) as usize
    }

    /// Calls `each(first pixel, pixels)` for the stretches of output row `y`; `top` is the first image row at hand.
    fn row(&self, y: usize, top: usize, mut each: impl FnMut(usize, Pixels<'_>)) {
        let (g, Source { h, w, c, .. }) = (self.g, self.x);
        let at = (y / g.step[0] * g.stride[0]) as isize;
        for (phase, stretches) in g.phases.iter().zip(&self.stretches).filter(|(p, _)| p.residue[0] == y % g.step[0]) {
            for stretch in stretches {
                let place = |tap: &Tap| {
                    let (row, column) = (at + tap.at[0], (stretch.first * g.stride[1]) as isize + tap.at[1]);
                    let inside = (0..*h as isize).contains(&row);
                    inside.then(|| (((row as usize - top) * w + column as usize) * c, tap.index * c))
                };
                let taps: SmallVec<[Place; 9]> = stretch.taps.iter().filter_map(place).collect();
                let step = [g.stride[1] * c, g.step[1] * c];
                each(phase.residue[1] + stretch.first * g.step[1], Pixels { n: stretch.n, step, taps: &taps, c: *c });
            }
        }
    }
}

/// Asks for a row of an image that is read where it is: vectors of channels, pixel after pixel, are not foreseen by the
/// processor.
fn ask<C: Compute>(x: &Source<'_>, rows: &[C], row: usize) {
    let len = x.w * x.c * size_of::<C>();
    if x.values.is_borrowed::<C>(len) {
        prefetch::ask(bytemuck::cast_slice(rows), row * len, len);
    }
}

/// Correlates `x` with the weight `[tap][channel]`.
pub(super) fn correlate<C: Compute>(
    cx: Context<'_>,
    g: &Correlation,
    x: &Source<'_>,
    w: &[C],
    to: Target<'_, C>,
) -> Result<()> {
    let Context { isa, pool } = cx;
    if let Some(work) = same::Work::new(cx, g, x, w, to.dtype) {
        return work.correlate(x, to);
    }
    let Target { epilogue, dtype, out, pre } = to;
    let (work, c) = (Depthwise::new(cx, g, x), x.c);
    let per_block = g.rows(x.n, c);
    let (row, together) = (g.w * c, (TOGETHER / (g.w * c)).max(1));
    let parts = output_parts(out, pre, per_block * row * dtype.size());
    parts.into_par_iter().enumerate().try_each(|(i, (out, pre))| {
        let mut scratch = workspace::<C>(pool, together * row)?;
        for p in g.pieces(i * per_block, out.len() / (row * dtype.size())) {
            let (rows, mut wide) = (work.image_rows(&p), None);
            let image = work.rows::<C>(x, p.n, rows.clone(), &mut wide)?;
            for first in (0..p.rows).step_by(together) {
                let some = together.min(p.rows - first);
                let bytes =
                    (p.pixel * c + first * row) * dtype.size()..(p.pixel * c + (first + some) * row) * dtype.size();
                let acc = &mut scratch.as_mut_slice::<C>()[..some * row];
                for (y, acc) in acc.chunks_exact_mut(row).enumerate() {
                    ask(x, image, work.next(p.y + first + y, rows.start));
                    work.row(p.y + first + y, rows.start, |pixel, pixels| {
                        C::dispatch(isa, Taps { pixels, image, w, out: &mut acc[pixel * c..] });
                    });
                }
                let pre = if pre.is_empty() { &mut [][..] } else { &mut pre[bytes.clone()] };
                epilogue.rows(acc, c, 0, c, c, &mut out[bytes], pre, dtype);
            }
        }
        Ok(())
    })
}

/// The gradient by the weight: sums over the rows of stretches that the shape alone decides, added in order.
pub(super) fn weight_backward<C: Compute>(
    cx: Context<'_>,
    conv: &Conv2d,
    [grad, x]: [&Source<'_>; 2],
    shape: &Shape,
    dtype: DType,
    to: &mut [u8],
) -> Result<()> {
    let isa = cx.isa;
    let g = Correlation::forward(conv, [shape[2], shape[3]], grad.h, grad.w);
    let (work, c, taps) = (Depthwise::new(cx, &g, x), x.c, shape[2] * shape[3]);
    let per_unit = g.rows(grad.n, 2 * c);
    let units = (grad.n * grad.h).div_ceil(per_unit);
    let per_stretch = units.div_ceil(16);
    let mut partial = vec![C::zero(); units.div_ceil(per_stretch) * taps * c];
    partial.par_chunks_mut(taps * c).enumerate().try_each(|(stretch, sums)| {
        for unit in stretch * per_stretch..units.min((stretch + 1) * per_stretch) {
            for p in g.pieces(unit * per_unit, per_unit.min(grad.n * grad.h - unit * per_unit)) {
                let (rows, mut wide) = (work.image_rows(&p), [None, None]);
                let [wide_x, wide_grad] = &mut wide;
                let image = work.rows::<C>(x, p.n, rows.clone(), wide_x)?;
                let grads = work.rows::<C>(grad, p.n, p.y..p.y + p.rows, wide_grad)?;
                for (y, row) in grads.chunks_exact(g.w * c).enumerate() {
                    ask(x, image, work.next(p.y + y, rows.start));
                    ask(grad, grads, y + 1);
                    work.row(p.y + y, rows.start, |pixel, pixels| {
                        C::dispatch(isa, TapSums { pixels, image, grad: &row[pixel * c..], sums });
                    });
                }
            }
        }
        Ok::<(), binade_tensor::Error>(())
    })?;
    let mut dw = vec![C::zero(); c * taps];
    for part in partial.chunks(taps * c) {
        for (i, to) in dw.iter_mut().enumerate() {
            *to += part[i % taps * c + i / taps];
        }
    }
    C::store(isa, &dw, to, dtype);
    Ok(())
}

/// The gradients by input, weight and bias together, where there is a kernel that reads the operands once for all; else
/// false.
pub(super) fn backward<C: Compute>(
    cx: Context<'_>,
    g: &Correlation,
    [grad, x]: [&Source<'_>; 2],
    w: &[C],
    outs: &mut [Out<'_>],
) -> Result<bool> {
    let isa = cx.isa;
    let (shape, dtype) = (*outs[0].array().shape(), outs[0].array().dtype());
    let Some(work) = same::Work::new(cx, g, grad, w, dtype) else { return Ok(false) };
    let (weight, bias) = work.backward(grad, x, &mut outs[0].bytes()[..shape.numel() * dtype.size()])?;
    // From [tap][channel] to [channel][tap].
    let taps = weight.len() / x.c;
    let turned: Vec<C> = (0..weight.len()).map(|i| weight[i % taps * x.c + i / taps]).collect();
    for (out, values) in outs[1..].iter_mut().zip([turned, bias]) {
        let dtype = out.array().dtype();
        C::store(isa, &values, &mut out.bytes()[..values.len() * dtype.size()], dtype);
    }
    Ok(true)
}
