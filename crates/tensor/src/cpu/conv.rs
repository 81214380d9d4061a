//! Convolution as a matrix product: blocks of output pixels gather their patches, channels innermost, and multiply them by the
//! weight. Only one block of patches exists at a time per thread.

use rayon::prelude::*;

use super::gemm::{Finish, Gemm, Panel, ROWS, output_parts, workspace};
use super::operand::{BLOCK, Compute, Operand};
use super::rows::write;
use crate::memory::Pool;
use crate::op::{Conv2d, Epilogue};
use crate::simd::Isa;
use crate::{Array, ArrayMut, Layout, Result, Shape};

/// Extents of one convolution, or of the convolution that gives an input gradient.
#[derive(Clone, Copy)]
struct Geometry {
    h: usize,
    w: usize,
    c: usize,
    oh: usize,
    ow: usize,
    kernel: [usize; 2],
    conv: Conv2d,
    /// Padding before the first pixel; negative where the image is cropped.
    pad: [isize; 2],
}

impl Geometry {
    fn new(x: &Shape, w: &Shape, out: &Shape, conv: &Conv2d) -> Geometry {
        Geometry {
            h: x[2],
            w: x[3],
            c: x[1],
            oh: out[2],
            ow: out[3],
            kernel: [w[2], w[3]],
            conv: *conv,
            pad: [conv.padding[0] as isize, conv.padding[1] as isize],
        }
    }

    /// Elements of one patch of one group.
    fn patch(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.c / self.conv.groups
    }

    /// Whether the patches are the pixels themselves.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.conv.stride == [1, 1] && self.pad == [0, 0] && self.conv.groups == 1
    }

    /// Calls `each(tap, source)` for every tap of output pixel `pixel` with the index of its image pixel, if inside.
    #[inline(always)]
    fn taps(&self, pixel: usize, mut each: impl FnMut(usize, Option<usize>)) {
        let (ox, rest) = (pixel % self.ow, pixel / self.ow);
        let (oy, n) = (rest % self.oh, rest / self.oh);
        let at = |o: usize, d: usize, k: usize| (o * self.conv.stride[d] + k * self.conv.dilation[d]) as isize - self.pad[d];
        for ky in 0..self.kernel[0] {
            let y = at(oy, 0, ky);
            let row = (y >= 0 && (y as usize) < self.h).then(|| (n * self.h + y as usize) * self.w);
            for kx in 0..self.kernel[1] {
                let x = at(ox, 1, kx);
                let source = row.filter(|_| x >= 0 && (x as usize) < self.w).map(|r| r + x as usize);
                each(ky * self.kernel[1] + kx, source);
            }
        }
    }

    /// Writes the patches of `pixels` of a group, one per row, as (ky, kx, channel).
    fn gather<C: Compute>(&self, x: &[C], pixels: std::ops::Range<usize>, group: usize, to: &mut [C]) {
        let cg = self.c / self.conv.groups;
        let len = self.patch();
        for (pixel, row) in pixels.zip(to.chunks_mut(len)) {
            self.taps(pixel, |tap, source| {
                let to = &mut row[tap * cg..(tap + 1) * cg];
                match source {
                    Some(s) => to.copy_from_slice(&x[s * self.c + group * cg..][..cg]),
                    None => to.fill(C::zero()),
                }
            });
        }
    }
}

/// An image `[N, C, H, W]` as a channels-last slice of the computing type.
pub(super) fn image<'a, C: Compute>(isa: Isa, pool: &Pool, x: &Array, bytes: &'a [u8]) -> Result<Panel<'a, C>> {
    let dense = Layout::channels_last(*x.shape());
    if x.dtype() == C::DTYPE && x.layout().same_order(&dense) {
        return Ok(Panel::Borrowed(&super::operand::elements(bytes)[x.layout().offset..]));
    }
    let mut buffer = workspace::<C>(pool, x.numel())?;
    let operand = Operand::new(x, bytes, x.shape(), &[0, 2, 3, 1]);
    let n = x.numel();
    buffer.as_mut_slice::<C>()[..n]
        .par_chunks_mut(16 * BLOCK)
        .enumerate()
        .for_each(|(i, part)| operand.load(isa, i * 16 * BLOCK, part));
    Ok(Panel::Widened(buffer))
}

/// The weight `[O, C/g, KH, KW]` with rows (group, o) and columns (ky, kx, channel).
fn weight_rows<C: Compute>(isa: Isa, w: &Array, bytes: &[u8]) -> Vec<C> {
    let mut out = vec![C::zero(); w.numel()];
    Operand::new(w, bytes, w.shape(), &[0, 2, 3, 1]).load(isa, 0, &mut out);
    out
}

/// `out[p, o] = Σ patch[p, k]·w[o, k]` for every pixel, with `w` as `[groups][O/g][K]`; blocks of `ROWS` pixels in parallel.
fn correlate<C: Gemm>(
    g: &Geometry,
    x: &[C],
    w: &[C],
    o: usize,
    parts: Vec<(&mut [u8], &mut [u8])>,
    size: usize,
    finish: impl Fn(&mut [C], &mut [u8], &mut [u8]) + Sync,
) {
    let (k, og) = (g.patch(), o / g.conv.groups);
    parts.into_par_iter().enumerate().for_each(|(i, (out, pre))| {
        let rows = out.len() / (o * size);
        let first = i * ROWS;
        let mut acc = vec![C::zero(); rows * o];
        if g.is_pointwise() {
            C::gemm(rows, k, o, &x[first * k..], [k, 1], w, [1, k], C::zero(), &mut acc, o);
        } else if k > 0 {
            let mut patches = vec![C::zero(); rows * k];
            for group in 0..g.conv.groups {
                g.gather(x, first..first + rows, group, &mut patches);
                C::gemm(rows, k, og, &patches, [k, 1], &w[group * og * k..], [1, k], C::zero(), &mut acc[group * og..], o);
            }
        }
        finish(&mut acc, out, pre);
    });
}

pub(super) fn forward<C: Gemm>(
    isa: Isa,
    pool: &Pool,
    conv: &Conv2d,
    epilogue: Epilogue,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<()> {
    let out = outs[0].array();
    let (shape, dtype) = (*out.shape(), out.dtype());
    if shape.numel() == 0 {
        return Ok(());
    }
    let g = Geometry::new(ins[0].shape(), ins[1].shape(), &shape, conv);
    let x = image::<C>(isa, pool, ins[0], bytes[0])?;
    let w = weight_rows::<C>(isa, ins[1], bytes[1]);
    let finish = Finish::<C>::new(isa, epilogue, ins, bytes);
    let o = shape[1];
    let (first, rest) = outs.split_at_mut(1);
    let (Some(out), pre) = (first[0].bytes(), rest.first_mut().and_then(ArrayMut::bytes)) else { return Ok(()) };
    let total = shape.numel() * dtype.size();
    let parts = output_parts(&mut out[..total], pre.map(|p| &mut p[..total]), ROWS * o * dtype.size());
    correlate(&g, x.as_slice(), &w, o, parts, dtype.size(), |acc, out, pre| finish.rows(acc, o, out, pre, dtype));
    Ok(())
}

/// Inputs g, w, and a bias for a transposed convolution. With stride 1 this is a correlation of g with the flipped weight; else patches are scattered image by image.
pub(super) fn input_backward<C: Gemm>(
    isa: Isa,
    pool: &Pool,
    conv: &Conv2d,
    ins: &[&Array],
    bytes: &[&[u8]],
    bias: Option<(&Array, &[u8])>,
    out: &mut ArrayMut<'_>,
) -> Result<()> {
    let (shape, dtype) = (*out.array().shape(), out.array().dtype());
    if shape.numel() == 0 {
        return Ok(());
    }
    // What every pixel starts from.
    let mut start = vec![C::zero(); if bias.is_some() { shape[1] } else { 0 }];
    if let Some((array, bytes)) = bias {
        Operand::new(array, bytes, array.shape(), &[0]).load(isa, 0, &mut start);
    }
    let (gs, ws) = (*ins[0].shape(), *ins[1].shape());
    let grad = image::<C>(isa, pool, ins[0], bytes[0])?;
    let (c, o, groups) = (shape[1], gs[1], conv.groups);
    let (cg, og) = (c / groups, o / groups);
    let (kh, kw) = (ws[2], ws[3]);
    let taps = kh * kw;
    let w = weight_rows::<C>(isa, ins[1], bytes[1]);
    let Some(bytes) = out.bytes() else { return Ok(()) };
    let bytes = &mut bytes[..shape.numel() * dtype.size()];
    if conv.stride == [1, 1] {
        // Rows (group, c), columns (flipped tap, o).
        let mut flipped = vec![C::zero(); w.len()];
        for group in 0..groups {
            for i in 0..cg {
                for tap in 0..taps {
                    for j in 0..og {
                        flipped[((group * cg + i) * taps + taps - 1 - tap) * og + j] =
                            w[((group * og + j) * taps + tap) * cg + i];
                    }
                }
            }
        }
        let back = |d: usize, k: usize| (conv.dilation[d] * (k - 1)) as isize - conv.padding[d] as isize;
        let g = Geometry {
            h: gs[2],
            w: gs[3],
            c: o,
            oh: shape[2],
            ow: shape[3],
            kernel: [kh, kw],
            conv: *conv,
            pad: [back(0, kh), back(1, kw)],
        };
        let parts = output_parts(bytes, None, ROWS * c * dtype.size());
        correlate(&g, grad.as_slice(), &flipped, c, parts, dtype.size(), |acc, out, _| {
            if !start.is_empty() {
                acc.chunks_mut(c).for_each(|row| row.iter_mut().zip(&start).for_each(|(a, &b)| *a = *a + b));
            }
            C::store(isa, acc, out, dtype);
        });
        return Ok(());
    }
    let g = Geometry::new(&shape, &ws, &gs, conv);
    let (k, pixels, grad) = (g.patch(), g.oh * g.ow, grad.as_slice());
    let image = g.h * g.w * c;
    bytes.par_chunks_mut(image * dtype.size()).enumerate().for_each(|(n, to)| {
        let mut dx = vec![C::zero(); image];
        if !start.is_empty() {
            dx.chunks_mut(c).for_each(|pixel| pixel.copy_from_slice(&start));
        }
        let mut patches = vec![C::zero(); ROWS.min(pixels) * k];
        for group in 0..groups {
            for first in (0..pixels).step_by(ROWS) {
                let rows = ROWS.min(pixels - first);
                let from = &grad[(n * pixels + first) * o + group * og..];
                C::gemm(rows, og, k, from, [o, 1], &w[group * og * k..], [k, 1], C::zero(), &mut patches, k);
                for (i, patch) in patches.chunks(k).take(rows).enumerate() {
                    g.taps(first + i, |tap, source| {
                        if let Some(s) = source {
                            let to = &mut dx[s * c + group * cg..][..cg];
                            to.iter_mut().zip(&patch[tap * cg..]).for_each(|(t, &p)| *t = *t + p);
                        }
                    });
                }
            }
        }
        C::store(isa, &dx, to, dtype);
    });
    Ok(())
}

/// Inputs g, x: `dw[o, k] = Σ_p g[p, o]·patch[p, k]`, over eight fixed stretches of pixels, added in order.
pub(super) fn weight_backward<C: Gemm>(
    isa: Isa,
    pool: &Pool,
    conv: &Conv2d,
    ins: &[&Array],
    bytes: &[&[u8]],
    out: &mut ArrayMut<'_>,
) -> Result<()> {
    let shape = *out.array().shape();
    if shape.numel() == 0 {
        return Ok(());
    }
    let (grad, x) = (image::<C>(isa, pool, ins[0], bytes[0])?, image::<C>(isa, pool, ins[1], bytes[1])?);
    let (grad, x) = (grad.as_slice(), x.as_slice());
    let gs = ins[0].shape();
    let g = Geometry::new(ins[1].shape(), &shape, gs, conv);
    let (k, o) = (g.patch(), gs[1]);
    let og = o / conv.groups;
    let pixels = gs[0] * g.oh * g.ow;
    let stretch = pixels.div_ceil(8).next_multiple_of(2 * ROWS);
    let parts: Vec<Vec<C>> = (0..pixels.div_ceil(stretch))
        .into_par_iter()
        .map(|part| {
            let mut acc = vec![C::zero(); o * k];
            let mut patches = vec![C::zero(); 2 * ROWS * k];
            let until = pixels.min((part + 1) * stretch);
            for first in (part * stretch..until).step_by(2 * ROWS) {
                let rows = (2 * ROWS).min(until - first);
                for group in 0..conv.groups {
                    let patches = if g.is_pointwise() {
                        &x[first * k..]
                    } else {
                        g.gather(x, first..first + rows, group, &mut patches);
                        &patches
                    };
                    let from = &grad[first * o + group * og..];
                    C::gemm(og, rows, k, from, [1, o], patches, [k, 1], C::one(), &mut acc[group * og * k..], k);
                }
            }
            acc
        })
        .collect();
    let mut total = vec![C::zero(); o * k];
    for part in &parts {
        total.iter_mut().zip(part).for_each(|(t, &p)| *t = *t + p);
    }
    // From (o, ky, kx, c) to (o, c, ky, kx).
    let (cg, taps) = (shape[1], shape[2] * shape[3]);
    let mut dw = vec![C::zero(); total.len()];
    for (to, from) in dw.chunks_mut(cg * taps).zip(total.chunks(cg * taps)) {
        for i in 0..cg {
            for tap in 0..taps {
                to[i * taps + tap] = from[tap * cg + i];
            }
        }
    }
    write(isa, &dw, out);
    Ok(())
}
