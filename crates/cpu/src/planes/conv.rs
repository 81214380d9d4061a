//! Convolutions on tiles. As in [`crate::conv`] a slab of image rows is split once and the taps are offsets in it,
//! where 16 neighbouring pixels are equally far apart in it; elsewhere their patches are copied, a part of the inner
//! dimension at a time. The gradient by the weight is a product over pixels.

use crate::kernel::{In, Out};
use rayon::prelude::*;
use smallvec::SmallVec;

use super::weight::Weight;
use super::{Work, apart, halves_of, planes_of};
use crate::conv::{Correlation, Phase, Piece, Source, Tap};
use crate::epilogue::{KernelEpilogue, Target, output_parts};
use crate::gemm::workspace;
use crate::operand::elements_mut;
use crate::simd::amx::{self, DEEP, SIDE, TileBlock};
use crate::simd::planes::{self, Seen};
use crate::tasks::Tasks as _;
use crate::tile::{Row, Segment};
use binade_tensor::op::{Conv2d, Epilogue};
use binade_tensor::{DType, Result, Shape};

/// Bytes of a slab or of patches, about: with the panels they meet they stay in the second-level cache.
pub(super) const SLAB: usize = 768 * 1024;
/// Output pixels per block at least, where there are enough: each block reads all weights.
const PIXELS: usize = 256;
/// Pixels of a row read together.
const ROW: usize = 256;
/// With fewer channels than this, or output rows that are not whole tiles, patches are copied.
pub(super) const FEW: usize = 16;
/// Operators with fewer products are not worth their packing.
const SMALL: usize = 1 << 18;

/// The image of a [`Source`] in planes.
pub(super) struct Image<'a> {
    /// Which input it is.
    pub(super) which: usize,
    pub(super) source: &'a Source<'a>,
    pub(super) planes: usize,
}

impl<'a> Image<'a> {
    pub(super) fn new(which: usize, source: &'a Source<'a>) -> Image<'a> {
        Image { which, source, planes: planes_of(source.values.dtype()).unwrap_or(1) }
    }

    /// The slab of the pieces, `[pixel][padded channels]` in planes; zeros outside the image and beyond the channels.
    pub(super) fn slab(
        &self,
        work: &Work<'_>,
        g: &Correlation,
        pieces: &[Piece],
        [first, channels, padded]: [usize; 3],
        distance: usize,
        to: &mut [u16],
    ) {
        let (Source { h, w, c, .. }, width) = (self.source, g.width());
        let inside = |at: isize, extent: usize| at.clamp(0, extent as isize) as usize;
        let (left, right) = (inside(g.low[1], *w), inside(g.low[1] + width as isize, *w));
        let zero = |to: &mut [u16], range: std::ops::Range<usize>| {
            for plane in 0..self.planes {
                to[plane * distance + range.start..plane * distance + range.end].fill(0);
            }
        };
        let mut seen = Seen::nothing();
        for p in pieces {
            let top = (p.y / g.step[0] * g.stride[0]) as isize + g.low[0];
            for i in 0..g.slab_rows(p.y, p.rows) {
                let (y, row) = (top + i as isize, (p.slab + i * width) * padded);
                if y < 0 || y >= *h as isize || left >= right {
                    zero(to, row..row + width * padded);
                    continue;
                }
                let skip = row + (left as isize - g.low[1]) as usize * padded;
                let until = skip + (right - left) * padded;
                zero(to, row..skip);
                zero(to, until..row + width * padded);
                let pixel = (p.n * h + y as usize) * w + left;
                if channels == *c && padded == channels {
                    work.read_flat(
                        &self.source.values,
                        pixel * c,
                        (right - left) * c,
                        distance,
                        &mut to[skip..],
                        &mut seen,
                    );
                    continue;
                }
                if let Some(rows) = &self.source.rows {
                    // Channels lie one after the other: a row of each is read, and spread.
                    let (n, mut row) = (right - left, [0; planes::MOST * ROW]);
                    for ch in 0..padded {
                        for x in (0..n).step_by(ROW) {
                            let len = ROW.min(n - x);
                            if ch < channels {
                                let at = ((p.n * c + first + ch) * h + y as usize) * w + left + x;
                                work.read_flat(rows, at, len, ROW, &mut row, &mut seen);
                            } else if x == 0 {
                                row.fill(0);
                            }
                            for plane in 0..self.planes {
                                let to = &mut to[plane * distance + skip + x * padded + ch..];
                                to.iter_mut()
                                    .step_by(padded)
                                    .zip(&row[plane * ROW..][..len])
                                    .for_each(|(t, &v)| *t = v);
                            }
                        }
                    }
                    continue;
                }
                for j in 0..right - left {
                    let at = skip + j * padded;
                    work.read_flat(
                        &self.source.values,
                        (pixel + j) * c + first,
                        channels,
                        distance,
                        &mut to[at..],
                        &mut seen,
                    );
                    if padded > channels {
                        zero(to, at + channels..at + padded);
                    }
                }
            }
        }
        work.note(self.which, &seen);
    }
}

/// Correlates an image with a packed weight.
fn correlate(work: &Work<'_>, g: &Correlation, x: &Image<'_>, weight: &Weight<'_>, to: Target<'_, f32>) -> Result<()> {
    let Target { epilogue, dtype, out, pre } = to;
    let (inner, columns, taps) = (weight.inner(), weight.columns(), weight.taps);
    // 16 pixels of a phase must lie in one output row to be equally far apart.
    let copies = inner < FEW || !g.w.is_multiple_of(SIDE * g.step[1]);
    let channels = if copies { inner } else { inner.next_multiple_of(DEEP) };
    let packed = weight.pack(work, channels)?;
    if !work.is_exact() {
        return Ok(());
    }
    let deep = (taps * channels).next_multiple_of(DEEP);
    let panels = Panels { halves: halves_of(&packed), planes: weight.planes, deep, columns, channels, copies };
    // The split depends on the extents alone.
    let per_block = rows_per_block(g, x.source.n, 2 * x.planes * channels);
    let parts = output_parts(out, pre, per_block * g.w * columns * dtype.size());
    parts.into_par_iter().enumerate().try_each(|(i, (out, pre))| {
        if !work.is_exact() {
            return Ok(());
        }
        let pixels = out.len() / (columns * dtype.size());
        let pieces = g.pieces(i * per_block, pixels / g.w);
        let slab_pixels = g.slab_pixels(&pieces);
        // The last tile of rows reads on beyond the last pixel.
        let distance = (slab_pixels + SIDE * g.stride[1]) * channels + DEEP;
        let mut slab = work.halves(x.planes * distance)?;
        let slab = &mut slab.as_mut_slice::<u16>()[..x.planes * distance];
        x.slab(work, g, &pieces, [0, x.source.c, channels], distance, slab);
        let ld = columns.next_multiple_of(SIDE);
        let direct = epilogue.is_plain() && dtype == DType::F32 && ld == columns;
        let mut scratch = workspace::<f32>(work.cx.pool, if direct { 0 } else { pixels * ld })?;
        let acc = if direct { elements_mut(out) } else { &mut scratch.as_mut_slice::<f32>()[..pixels * ld] };
        for phase in &g.phases {
            panels.phase(work, g, phase, &pieces, (slab, x.planes, distance), acc, ld)?;
        }
        if !direct {
            epilogue.rows(&mut scratch.as_mut_slice::<f32>()[..pixels * ld], ld, 0, columns, columns, out, pre, dtype);
        }
        Ok(())
    })
}

/// Output rows per block: enough pixels to be worth reading the weights for, and a slab that fits.
fn rows_per_block(g: &Correlation, n: usize, pixel: usize) -> usize {
    let all = n * g.h;
    let least = PIXELS.div_ceil(g.w).min(all.div_ceil(4));
    let slab = |rows: usize| rows.div_ceil(g.h) * g.slab_rows(0, rows.min(g.h)) * g.width() * pixel;
    let mut rows = all.div_ceil(8).max(least);
    if rows > g.h {
        rows = rows / g.h * g.h;
    }
    while rows > least && slab(rows) > SLAB {
        rows = rows.div_ceil(2).max(least);
    }
    rows.max(1).next_multiple_of(g.step[0])
}

/// A packed weight, and how its inner dimension lies in the slab.
struct Panels<'a> {
    halves: &'a [u16],
    planes: usize,
    deep: usize,
    columns: usize,
    /// Channels of a slab's pixel, padded.
    channels: usize,
    /// Whether patches are copied.
    copies: bool,
}

impl Panels<'_> {
    /// The pixels of one phase.
    fn phase(
        &self,
        work: &Work<'_>,
        g: &Correlation,
        phase: &Phase,
        pieces: &[Piece],
        (slab, x_planes, distance): (&[u16], usize, usize),
        acc: &mut [f32],
        ld: usize,
    ) -> Result<()> {
        let channels = self.channels;
        let mut rows: Vec<Row> = Vec::with_capacity(acc.len() / ld);
        g.pixels(pieces, phase.residue, |from, pixel| rows.push(Row { a: from * channels, acc: pixel * ld }));
        if phase.taps.is_empty() {
            rows.iter().for_each(|r| acc[r.acc..r.acc + ld].fill(0.0));
            return Ok(());
        }
        let block =
            |a: &[u16], a_planes: (usize, usize), rows: &[Row], segments: &[Segment], acc: &mut [f32], add: bool| {
                let panel = self.planes * self.deep * SIDE;
                let (b, b_planes, columns) = (self.halves, (self.planes, self.deep * SIDE), self.columns);
                amx::run(
                    work.cx.isa,
                    TileBlock { a, a_planes, rows, b, b_planes, b_pair: 2 * SIDE, panel, columns, segments, acc, add },
                );
            };
        if !self.copies {
            let segment =
                |tap: &Tap| Segment { a: g.tap(tap) * channels, b: tap.index * channels * SIDE, len: channels };
            let segments: SmallVec<[Segment; 9]> = phase.taps.iter().map(segment).collect();
            block(slab, (x_planes, distance), &rows, &segments, acc, false);
            return Ok(());
        }
        // Taps that lie one after the other in slab and weight are one run.
        let mut runs: SmallVec<[Segment; 9]> = SmallVec::new();
        for tap in &phase.taps {
            let (a, b) = (g.tap(tap) * channels, tap.index * channels);
            match runs.last_mut() {
                Some(last) if last.a + last.len == a && last.b + last.len == b => last.len += channels,
                _ => runs.push(Segment { a, b, len: channels }),
            }
        }
        let aligned = channels.is_multiple_of(DEEP);
        let most = (SLAB / (2 * x_planes * rows.len()) / DEEP).max(1) * DEEP;
        let mut parts: Vec<Vec<Segment>> = Vec::new();
        if aligned {
            // Stretches of at most `most` places, cut where they must be.
            let mut left = 0;
            for run in &runs {
                let mut done = 0;
                while done < run.len {
                    if left == 0 {
                        parts.push(Vec::new());
                        left = most;
                    }
                    let len = left.min(run.len - done);
                    if let Some(part) = parts.last_mut() {
                        part.push(Segment { a: run.a + done, b: run.b + done, len });
                    }
                    (done, left) = (done + len, left - len);
                }
            }
        } else {
            // Then the phase has all taps in their order, and patches are the whole inner dimension.
            parts.push(runs.to_vec());
        }
        let longest =
            parts.iter().map(|p| p.iter().map(|s| s.len).sum::<usize>()).max().unwrap_or(0).next_multiple_of(DEEP);
        let lda = apart(longest);
        let patches_distance = rows.len().next_multiple_of(SIDE) * lda;
        let mut patches = work.halves(x_planes * patches_distance + SIDE)?;
        let patches = &mut patches.as_mut_slice::<u16>()[..x_planes * patches_distance + SIDE];
        let places: Vec<Row> = rows.iter().enumerate().map(|(i, r)| Row { a: i * lda, acc: r.acc }).collect();
        for (i, part) in parts.iter().enumerate() {
            let len: usize = part.iter().map(|s| s.len).sum();
            for plane in 0..x_planes {
                let (from, to) = (&slab[plane * distance..], &mut patches[plane * patches_distance..]);
                for (i, r) in rows.iter().enumerate() {
                    let mut at = i * lda;
                    for s in part {
                        if s.len <= SIDE {
                            // A whole vector: what is too much of it is overwritten by what follows.
                            to[at..at + SIDE].copy_from_slice(&from[r.a + s.a..][..SIDE]);
                        } else {
                            to[at..at + s.len].copy_from_slice(&from[r.a + s.a..][..s.len]);
                        }
                        at += s.len;
                    }
                    to[at..i * lda + len.next_multiple_of(DEEP)].fill(0);
                }
            }
            let mut at = 0;
            let segments: SmallVec<[Segment; 9]> = if aligned {
                let mut segment = |s: &Segment| {
                    at += s.len;
                    Segment { a: at - s.len, b: s.b * SIDE, len: s.len }
                };
                part.iter().map(&mut segment).collect()
            } else {
                SmallVec::from_slice(&[Segment { a: 0, b: 0, len: len.next_multiple_of(DEEP) }])
            };
            block(patches, (x_planes, patches_distance), &places, &segments, acc, i > 0);
        }
        Ok(())
    }
}

/// Whether a convolution with a weight of this shape and so many output pixels is done here.
pub(super) fn serves(conv: &Conv2d, weight: &Shape, pixels: usize) -> bool {
    conv.groups == 1 && weight[0] >= FEW && pixels >= SIDE && weight.numel() * pixels >= SMALL
}

pub(super) fn forward(
    work: &Work<'_>,
    conv: &Conv2d,
    epilogue: Epilogue,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<bool> {
    let out = outs[0].array();
    let (shape, dtype) = (*out.shape(), out.dtype());
    let ws = *ins[1].shape();
    // Patches of one instruction's depth are not worth splitting into more than the fewest planes.
    let planes = ins[..2].iter().filter_map(|a| planes_of(a.dtype())).sum::<usize>();
    let shallow = ws[1] * ws[2] * ws[3] <= DEEP && planes > 2;
    if !serves(conv, &ws, shape[0] * shape[2] * shape[3]) || shallow {
        return Ok(false);
    }
    let epilogue = KernelEpilogue::<f32>::new(work.cx.isa, epilogue, ins);
    let (first, rest) = outs.split_at_mut(1);
    let (out, pre) = (first[0].bytes(), rest.first_mut().map(Out::bytes));
    let total = shape.numel() * dtype.size();
    let (out, pre) = (&mut out[..total], pre.map(|p| &mut p[..total]).unwrap_or_default());
    let x = Source::new(ins[0]);
    let g = Correlation::forward(conv, [ws[2], ws[3]], shape[2], shape[3]);
    let weight = Weight::new(ins[1], false);
    correlate(work, &g, &Image::new(0, &x), &weight, Target { epilogue: &epilogue, dtype, out, pre })?;
    Ok(work.holds(0, 1))
}

/// Inputs g, w, and a bias for a transposed convolution.
pub(super) fn input_backward(
    work: &Work<'_>,
    conv: &Conv2d,
    ins: &[In<'_>],
    bias: Option<In<'_>>,
    out: &mut Out<'_>,
) -> Result<bool> {
    let (shape, dtype) = (*out.array().shape(), out.array().dtype());
    let ws = *ins[1].shape();
    // A phase whose inner dimension is not whole instructions would need its own weight.
    let ragged = conv.stride != [1, 1] && !ws[0].is_multiple_of(DEEP);
    if !serves(conv, &ws, shape[0] * shape[2] * shape[3]) || ragged || ws[1] < FEW {
        return Ok(false);
    }
    let epilogue = KernelEpilogue::<f32>::with_bias(work.cx.isa, bias);
    let to = &mut out.bytes()[..shape.numel() * dtype.size()];
    let x = Source::new(ins[0]);
    let g = Correlation::backward(conv, [ws[2], ws[3]], shape[2], shape[3]);
    let weight = Weight::new(ins[1], true);
    correlate(work, &g, &Image::new(0, &x), &weight, Target { epilogue: &epilogue, dtype, out: to, pre: &mut [] })?;
    Ok(work.holds(0, 1))
}
