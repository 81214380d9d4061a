//! Convolutions on tiles. As in [`crate::cpu::conv`] a slab of image rows is split once and the taps are offsets in it, where 16
//! neighbouring pixels are equally far apart in it; elsewhere their patches are copied, a part of the inner dimension at a time. The
//! gradient by the weight is a product over pixels.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::{Tile16, Work, apart, halves_of, planes_of, transpose};
use crate::cpu::conv::{Correlation, Phase, Piece, Source};
use crate::cpu::gemm::{Finish, output_parts, workspace};
use crate::cpu::operand::{Compute as _, Operand, elements_mut};
use crate::cpu::tile::{Row, Segment, Tile as _};
use crate::memory::HostBuffer;
use crate::op::{Conv2d, Epilogue};
use crate::simd::amx::{self, DEEP, SIDE, TileBlock};
use crate::simd::planes;
use crate::{Array, ArrayMut, DType, Result, Shape};

/// Bytes of a slab or of patches, about: with the panels they meet they stay in the second-level cache.
const SLAB: usize = 768 * 1024;
/// Output pixels per block at least, where there are enough: each block reads all weights.
const PIXELS: usize = 256;
/// Weights of an output channel turned together, about.
const LONG: usize = 512;
/// Pixels of a row read together.
const ROW: usize = 256;
/// With fewer channels than this, or output rows that are not whole tiles, patches are copied.
const FEW: usize = 16;
/// Operators with fewer products are not worth their packing.
const SMALL: usize = 1 << 18;

/// The image of a [`Source`] in planes.
struct Image<'a> {
    /// Which input it is.
    which: usize,
    source: &'a Source<'a>,
    planes: usize,
}

impl<'a> Image<'a> {
    fn new(which: usize, source: &'a Source<'a>) -> Image<'a> {
        Image { which, source, planes: planes_of(source.values.source().0).unwrap_or(1) }
    }

    /// The slab of the pieces, `[pixel][padded channels]` in planes; zeros outside the image and beyond the channels.
    fn slab(
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
                    work.read_flat(self.which, &self.source.values, pixel * c, (right - left) * c, distance, &mut to[skip..]);
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
                                work.read_flat(self.which, rows, at, len, ROW, &mut row);
                            } else if x == 0 {
                                row.fill(0);
                            }
                            for plane in 0..self.planes {
                                let to = &mut to[plane * distance + skip + x * padded + ch..];
                                to.iter_mut().step_by(padded).zip(&row[plane * ROW..][..len]).for_each(|(t, &v)| *t = v);
                            }
                        }
                    }
                    continue;
                }
                for j in 0..right - left {
                    let at = skip + j * padded;
                    work.read_flat(self.which, &self.source.values, (pixel + j) * c + first, channels, distance, &mut to[at..]);
                    if padded > channels {
                        zero(to, at + channels..at + padded);
                    }
                }
            }
        }
    }
}

/// How the inner dimension of a phase lies in slab and weight.
struct Inner {
    /// Channels of a slab's pixel, padded.
    channels: usize,
    /// Whether patches are copied.
    copies: bool,
}

/// The weight `[O, C, taps]` of a convolution, by output channels or, backward, by input channels.
struct Weight<'a> {
    values: Operand<'a>,
    planes: usize,
    outputs: usize,
    inputs: usize,
    taps: usize,
    backward: bool,
}

impl<'a> Weight<'a> {
    fn new(w: &Array, bytes: &'a [u8], backward: bool) -> Weight<'a> {
        let s = w.shape();
        Weight {
            values: Operand::new(w, bytes, s, &[0, 1, 2, 3]),
            planes: planes_of(w.dtype()).unwrap_or(1),
            outputs: s[0],
            inputs: s[1],
            taps: s[2] * s[3],
            backward,
        }
    }

    fn columns(&self) -> usize {
        if self.backward { self.inputs } else { self.outputs }
    }

    fn inner(&self) -> usize {
        if self.backward { self.outputs } else { self.inputs }
    }

    /// Panels `[plane][inner / 2][16][2]` whose inner dimension is the taps in order, with `padded` channels each.
    fn pack(&self, work: &Work<'_>, padded: usize) -> Result<HostBuffer> {
        let (columns, inner, taps) = (self.columns(), self.inner(), self.taps);
        let deep = (taps * padded).next_multiple_of(DEEP);
        let panel = self.planes * deep * SIDE;
        let len = columns.div_ceil(SIDE) * panel;
        let mut packed = work.halves(len)?;
        packed.as_mut_slice::<u16>()[..len].par_chunks_mut(panel).enumerate().try_for_each(|(p, panel)| {
            let (first, count) = (p * SIDE, SIDE.min(columns - p * SIDE));
            if padded > inner || deep > taps * padded || count < SIDE {
                panel.fill(0);
            }
            // [channel][tap][column] of a few channels at a time; the last channel, where their number is odd, meets zeros.
            let some = (LONG / taps).next_multiple_of(2);
            let mut wide = workspace::<f32>(work.pool, (some + 1) * taps * SIDE)?;
            let wide = &mut wide.as_mut_slice::<f32>()[..(some + 1) * taps * SIDE];
            let mut read = workspace::<f32>(work.pool, SIDE * (some * taps + SIDE))?;
            let read = read.as_mut_slice::<f32>();
            for at in (0..inner).step_by(some) {
                let channels = some.min(inner - at);
                wide[channels * taps * SIDE..].fill(0.0);
                if self.backward {
                    self.turn_inputs(work, [first, count], [at, channels], read, wide);
                } else {
                    self.turn_outputs(work, [first, count], [at, channels], read, wide);
                }
                let places: &[[f32; SIDE]] = bytemuck::cast_slice(wide);
                for (c, tap) in (0..channels).step_by(2).flat_map(|c| (0..taps).map(move |tap| (c, tap))) {
                    let to = tap * padded + at + c;
                    if padded.is_multiple_of(2) {
                        let (a, b) = (&places[c * taps + tap], &places[(c + 1) * taps + tap]);
                        work.note(1, planes::pairs(work.isa, a, b, self.planes, deep * SIDE, &mut panel[to * SIDE..]));
                        continue;
                    }
                    // With an odd number of channels pairs do not end where taps do.
                    for (r, from) in [(to, c), (to + 1, c + 1)].into_iter().take(channels - c) {
                        let mut halves = [0; planes::MOST * SIDE];
                        work.note(1, planes::split(work.isa, &places[from * taps + tap], self.planes, SIDE, &mut halves));
                        for (plane, halves) in halves.chunks(SIDE).enumerate().take(self.planes) {
                            let to = &mut panel[plane * deep * SIDE + r / 2 * 2 * SIDE..][..2 * SIDE];
                            to.iter_mut().skip(r % 2).step_by(2).zip(halves).for_each(|(t, &v)| *t = v);
                        }
                    }
                }
            }
            Ok(())
        })?;
        Ok(packed)
    }

    /// `wide[channel][tap][column]` of input channels `[at, channels]`; columns are output channels.
    fn turn_outputs(
        &self,
        work: &Work<'_>,
        [first, count]: [usize; 2],
        [at, channels]: [usize; 2],
        read: &mut [f32],
        wide: &mut [f32],
    ) {
        let (len, taps) = (channels * self.taps, self.taps);
        let ld = len + SIDE;
        for (j, to) in read.chunks_mut(ld).enumerate().take(SIDE) {
            if j < count {
                self.values.load(work.isa, ((first + j) * self.inputs + at) * taps, &mut to[..len]);
            } else {
                to[..len].fill(0.0);
            }
        }
        f32::transpose(work.isa, read, ld, SIDE, len, wide, SIDE);
    }

    /// `wide[channel][tap][column]` of output channels `[at, channels]`; columns are input channels.
    fn turn_inputs(
        &self,
        work: &Work<'_>,
        [first, count]: [usize; 2],
        [at, channels]: [usize; 2],
        read: &mut [f32],
        wide: &mut [f32],
    ) {
        let taps = self.taps;
        let mut block = [0.0; SIDE * SIDE];
        for o in 0..channels {
            let row = &mut read[..SIDE * taps + SIDE];
            row[count * taps..].fill(0.0);
            self.values.load(work.isa, ((at + o) * self.inputs + first) * taps, &mut row[..count * taps]);
            let wide = &mut wide[o * taps * SIDE..];
            // Whole vectors are read and turned; what is beyond the taps is not kept.
            for tap in (0..taps).step_by(SIDE) {
                let some = SIDE.min(taps - tap) * SIDE;
                f32::transpose(work.isa, &row[tap..], taps, SIDE, SIDE, &mut block, SIDE);
                wide[tap * SIDE..][..some].copy_from_slice(&block[..some]);
            }
        }
    }
}

/// Correlates an image with a packed weight.
#[allow(clippy::too_many_arguments)]
fn correlate(
    work: &Work<'_>,
    g: &Correlation,
    x: &Image<'_>,
    weight: &Weight<'_>,
    finish: &Finish<f32>,
    dtype: DType,
    out: &mut [u8],
    pre: Option<&mut [u8]>,
) -> Result<()> {
    let (inner, columns, taps) = (weight.inner(), weight.columns(), weight.taps);
    // 16 pixels of a phase must lie in one output row to be equally far apart.
    let copies = inner < FEW || !g.w.is_multiple_of(SIDE * g.step[1]);
    let channels = if copies { inner } else { inner.next_multiple_of(DEEP) };
    let inner = Inner { channels, copies };
    let packed = weight.pack(work, channels)?;
    if !work.is_exact() {
        return Ok(());
    }
    let deep = (taps * channels).next_multiple_of(DEEP);
    let panels = Panels { halves: halves_of(&packed), planes: weight.planes, deep, columns };
    // The split depends on the extents alone.
    let per_block = rows_per_block(g, x.source.n, 2 * x.planes * channels);
    let parts = output_parts(out, pre, per_block * g.w * columns * dtype.size());
    parts.into_par_iter().enumerate().try_for_each(|(i, (out, pre))| {
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
        let direct = finish.is_plain() && dtype == DType::F32 && ld == columns;
        let mut scratch = workspace::<f32>(work.pool, if direct { 0 } else { pixels * ld })?;
        let acc = if direct { elements_mut(out) } else { &mut scratch.as_mut_slice::<f32>()[..pixels * ld] };
        for phase in &g.phases {
            panels.phase(work, g, phase, &pieces, (slab, x.planes, distance), &inner, acc, ld)?;
        }
        if !direct {
            finish.rows(&mut scratch.as_mut_slice::<f32>()[..pixels * ld], ld, 0, columns, columns, out, pre, dtype);
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

/// A packed weight.
struct Panels<'a> {
    halves: &'a [u16],
    planes: usize,
    deep: usize,
    columns: usize,
}

impl Panels<'_> {
    /// The pixels of one phase.
    #[allow(clippy::too_many_arguments)]
    fn phase(
        &self,
        work: &Work<'_>,
        g: &Correlation,
        phase: &Phase,
        pieces: &[Piece],
        (slab, x_planes, distance): (&[u16], usize, usize),
        inner: &Inner,
        acc: &mut [f32],
        ld: usize,
    ) -> Result<()> {
        let channels = inner.channels;
        let mut rows: Vec<Row> = Vec::new();
        g.pixels(pieces, phase.residue, |from, pixel| rows.push(Row { a: from * channels, acc: pixel * ld }));
        if phase.taps.is_empty() {
            rows.iter().for_each(|r| acc[r.acc..r.acc + ld].fill(0.0));
            return Ok(());
        }
        let block = |a: &[u16], a_planes: (usize, usize), rows: &[Row], segments: &[Segment], acc: &mut [f32], add: bool| {
            let panel = self.planes * self.deep * SIDE;
            let (b, b_planes, columns) = (self.halves, (self.planes, self.deep * SIDE), self.columns);
            amx::run(
                work.isa,
                TileBlock { a, a_planes, rows, b, b_planes, b_pair: 2 * SIDE, panel, columns, segments, acc, add },
            );
        };
        if !inner.copies {
            let segment =
                |tap: &crate::cpu::conv::Tap| Segment { a: g.tap(tap) * channels, b: tap.index * channels * SIDE, len: channels };
            let segments: SmallVec<[Segment; 9]> = phase.taps.iter().map(segment).collect();
            block(slab, (x_planes, distance), &rows, &segments, acc, false);
            return Ok(());
        }
        // Taps that lie one after the other in slab and weight are one run: its place in the slab, in the weight and in the patch.
        let mut runs: SmallVec<[(Segment, usize); 9]> = SmallVec::new();
        let mut patch = 0;
        for tap in &phase.taps {
            let (a, b) = (g.tap(tap) * channels, tap.index * channels);
            match runs.last_mut() {
                Some((last, _)) if last.a + last.len == a && last.b + last.len == b => last.len += channels,
                _ => runs.push((Segment { a, b, len: channels }, patch)),
            }
            patch += channels;
        }
        let aligned = channels.is_multiple_of(DEEP);
        let most = (SLAB / (2 * x_planes * rows.len()) / DEEP).max(1) * DEEP;
        let mut parts: Vec<Vec<Segment>> = Vec::new();
        if aligned {
            // Stretches of at most `most` places, cut where they must be.
            let mut left = 0;
            for (run, _) in &runs {
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
            parts.push(runs.iter().map(|(run, _)| *run).collect());
        }
        let longest = parts.iter().map(|p| p.iter().map(|s| s.len).sum::<usize>()).max().unwrap_or(0).next_multiple_of(DEEP);
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
fn serves(conv: &Conv2d, weight: &Shape, pixels: usize) -> bool {
    conv.groups == 1 && weight[0] >= FEW && pixels >= SIDE && weight.numel() * pixels >= SMALL
}

pub(super) fn forward(
    work: &Work<'_>,
    conv: &Conv2d,
    epilogue: Epilogue,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<bool> {
    let out = outs[0].array();
    let (shape, dtype) = (*out.shape(), out.dtype());
    let ws = *ins[1].shape();
    if !serves(conv, &ws, shape[0] * shape[2] * shape[3]) {
        return Ok(false);
    }
    let finish = Finish::<f32>::new(work.isa, epilogue, ins, bytes);
    let (first, rest) = outs.split_at_mut(1);
    let (Some(out), pre) = (first[0].bytes(), rest.first_mut().and_then(ArrayMut::bytes)) else { return Ok(false) };
    let total = shape.numel() * dtype.size();
    let (out, pre) = (&mut out[..total], pre.map(|p| &mut p[..total]));
    let x = Source::new(ins[0], bytes[0]);
    let g = Correlation::forward(conv, [ws[2], ws[3]], shape[2], shape[3]);
    let weight = Weight::new(ins[1], bytes[1], false);
    correlate(work, &g, &Image::new(0, &x), &weight, &finish, dtype, out, pre)?;
    Ok(work.holds(ins, &[[0, 1]]))
}

/// Inputs g, w, and a bias for a transposed convolution.
pub(super) fn input_backward(
    work: &Work<'_>,
    conv: &Conv2d,
    ins: &[&Array],
    bytes: &[&[u8]],
    bias: Option<(&Array, &[u8])>,
    out: &mut ArrayMut<'_>,
) -> Result<bool> {
    let (shape, dtype) = (*out.array().shape(), out.array().dtype());
    let ws = *ins[1].shape();
    // A phase whose inner dimension is not whole instructions would need its own weight.
    let ragged = conv.stride != [1, 1] && !ws[0].is_multiple_of(DEEP);
    if !serves(conv, &ws, shape[0] * shape[2] * shape[3]) || ragged || ws[1] < FEW {
        return Ok(false);
    }
    let finish = Finish::<f32>::with_bias(work.isa, bias);
    let Some(to) = out.bytes() else { return Ok(false) };
    let to = &mut to[..shape.numel() * dtype.size()];
    let x = Source::new(ins[0], bytes[0]);
    let g = Correlation::backward(conv, [ws[2], ws[3]], shape[2], shape[3]);
    let weight = Weight::new(ins[1], bytes[1], true);
    correlate(work, &g, &Image::new(0, &x), &weight, &finish, dtype, to, None)?;
    Ok(work.holds(ins, &[[0, 1]]))
}

/// Inputs g, x: `dw[o, tap, c] = Σ_p g[p, o]·x[p + tap, c]`: a product over pixels of the turned gradient and of pairs of neighbouring
/// pixels, in stretches of pixels that the shape alone decides, added in order.
pub(super) fn weight_backward(
    work: &Work<'_>,
    conv: &Conv2d,
    ins: &[&Array],
    bytes: &[&[u8]],
    out: &mut ArrayMut<'_>,
) -> Result<bool> {
    let (shape, dtype) = (*out.array().shape(), out.array().dtype());
    let (grad, x) = (Source::new(ins[0], bytes[0]), Source::new(ins[1], bytes[1]));
    // Few channels leave most of a tile empty, which only the fewest planes make up for.
    let planes = ins[..2].iter().filter_map(|a| planes_of(a.dtype())).sum::<usize>();
    if !serves(conv, &shape, grad.n * grad.h * grad.w) || shape[1] < FEW && planes > 2 {
        return Ok(false);
    }
    let Some(to) = out.bytes() else { return Ok(false) };
    let to = &mut to[..shape.numel() * dtype.size()];
    let g = Correlation::forward(conv, [shape[2], shape[3]], grad.h, grad.w);
    let [outputs, inputs, taps] = [shape[0], shape[1], shape[2] * shape[3]];
    let over = OverPixels {
        g: &g,
        grad: Image::new(0, &grad),
        x: Image::new(1, &x),
        kernel: [shape[2], shape[3]],
        dilation: conv.dilation,
    };
    // Blocks of output and input channels.
    let (o_block, c_block) = (outputs.min(256), inputs.min(64));
    let padded = c_block.next_multiple_of(SIDE);
    let (o_blocks, c_blocks) = (outputs.div_ceil(o_block), inputs.div_ceil(c_block));
    let blocks = o_blocks * c_blocks;
    let per_pixel = 2 * (over.x.planes * padded * (1 + shape[3]) + over.grad.planes * o_block);
    let per_unit = {
        let rows = (SLAB / per_pixel / grad.w).max(1).min((grad.n * grad.h).div_ceil(8));
        if rows > grad.h { rows / grad.h * grad.h } else { grad.h.div_ceil(grad.h.div_ceil(rows)) }
    };
    let units = (grad.n * grad.h).div_ceil(per_unit);
    let stretches = 8usize.div_ceil(blocks).clamp(1, units);
    let per_stretch = units.div_ceil(stretches);
    let stretches = units.div_ceil(per_stretch);
    let size = o_block * taps * padded;
    let mut partial = workspace::<f32>(work.pool, stretches * blocks * size)?;
    let partial = &mut partial.as_mut_slice::<f32>()[..stretches * blocks * size];
    partial.par_chunks_mut(size).enumerate().try_for_each(|(i, acc)| {
        let (stretch, block) = (i / blocks, i % blocks);
        let (o, c) = (block / c_blocks * o_block, block % c_blocks * c_block);
        let channels = [[o, o_block.min(outputs - o)], [c, c_block.min(inputs - c)]];
        for unit in stretch * per_stretch..units.min((stretch + 1) * per_stretch) {
            let first = unit * per_unit;
            let rows = per_unit.min(grad.n * grad.h - first);
            over.unit(work, [first, rows], channels, padded, acc, unit > stretch * per_stretch)?;
            if !work.is_exact() {
                return Ok(());
            }
        }
        Ok::<(), crate::Error>(())
    })?;
    // From [stretch][block][o][tap][c] to [o][c][tap].
    to.par_chunks_mut(inputs * taps * dtype.size()).enumerate().for_each(|(o, to)| {
        let mut row = vec![0.0; inputs * taps];
        for stretch in 0..stretches {
            for c in 0..c_blocks {
                let block = stretch * blocks + o / o_block * c_blocks + c;
                let from = &partial[block * size + o % o_block * taps * padded..][..taps * padded];
                for i in 0..c_block.min(inputs - c * c_block) {
                    for tap in 0..taps {
                        let sum = &mut row[(c * c_block + i) * taps + tap];
                        *sum = if stretch == 0 { from[tap * padded + i] } else { *sum + from[tap * padded + i] };
                    }
                }
            }
        }
        f32::store(work.isa, &row, to, dtype);
    });
    Ok(work.holds(ins, &[[0, 1]]))
}

/// What the gradient by the weight sums over.
struct OverPixels<'a> {
    g: &'a Correlation,
    grad: Image<'a>,
    x: Image<'a>,
    kernel: [usize; 2],
    dilation: [usize; 2],
}

impl OverPixels<'_> {
    /// Adds the output rows `[first, rows]`, for the channels `[o, os]` and `[c, cs]`.
    fn unit(
        &self,
        work: &Work<'_>,
        [first, rows]: [usize; 2],
        [[o, os], [c, cs]]: [[usize; 2]; 2],
        padded: usize,
        acc: &mut [f32],
        add: bool,
    ) -> Result<()> {
        let (g, &Source { h, w, .. }) = (self.g, self.grad.source);
        let (x_planes, g_planes, [kh, kw]) = (self.x.planes, self.grad.planes, self.kernel);
        let pieces = g.pieces(first, rows);
        // Output rows have an even number of places, so that pairs stay pairs from row to row.
        let pitch = w.next_multiple_of(2);
        let places: SmallVec<[usize; 8]> = pieces.iter().map(|p| (p.rows * pitch).next_multiple_of(DEEP)).collect();
        let deep: usize = places.iter().sum();

        let lda = apart(deep);
        let g_distance = os.next_multiple_of(SIDE) * lda;
        let mut turned = work.halves(g_planes * g_distance)?;
        let turned = &mut turned.as_mut_slice::<u16>()[..g_planes * g_distance];
        let mut start = 0;
        for (p, &len) in pieces.iter().zip(&places) {
            let pixel = |place: usize| {
                let (y, x) = (place / pitch, place % pitch);
                (y < p.rows && x < w).then(|| ((p.n * h + p.y + y) * w + x) * self.grad.source.c + o)
            };
            self.turn(work, pixel, [start, len], os, lda, g_distance, turned)?;
            start += len;
        }

        let slab_pixels = g.slab_pixels(&pieces);
        let slab_distance = slab_pixels * padded;
        let mut slab = work.halves(x_planes * slab_distance)?;
        let slab = &mut slab.as_mut_slice::<u16>()[..x_planes * slab_distance];
        self.x.slab(work, g, &pieces, [c, cs, padded], slab_distance, slab);
        if !work.is_exact() {
            return Ok(());
        }
        // For each column of the kernel, and each residue of its rows, the pairs of pixels that it meets, row after row.
        let stride = g.stride;
        let down = |ky: usize| (ky * self.dilation[0] % stride[0], ky * self.dilation[0] / stride[0]);
        let mut residues: SmallVec<[usize; 4]> = (0..kh).map(|ky| down(ky).0).collect();
        residues.sort_unstable();
        residues.dedup();
        let most = (0..kh).map(|ky| down(ky).1).max().unwrap_or(0);
        let pair = 2 * padded;
        // The last instruction of a piece reads on beyond its rows, where the gradient is zero.
        let piece_pairs = |p: &Piece| (p.rows + most) * pitch / 2 + DEEP / 2;
        let region = pieces.iter().map(piece_pairs).sum::<usize>() * pair;
        let x_distance = kw * residues.len() * region;
        let mut pairs = work.halves(x_planes * x_distance)?;
        let pairs = &mut pairs.as_mut_slice::<u16>()[..x_planes * x_distance];
        let zeros = vec![0; padded];
        for plane in 0..x_planes {
            let slab = &slab[plane * slab_distance..][..slab_distance];
            for (kx, (i, &residue)) in (0..kw).flat_map(|kx| residues.iter().enumerate().map(move |r| (kx, r))) {
                let mut to = pairs[plane * x_distance + (kx * residues.len() + i) * region..][..region].chunks_exact_mut(pair);
                for p in &pieces {
                    let have = g.slab_rows(p.y, p.rows);
                    for row in 0..p.rows + most {
                        let y = row * stride[0] + residue;
                        for at in (0..pitch).step_by(2) {
                            let pixel = |at: usize| {
                                if y >= have || at >= w {
                                    return &zeros[..];
                                }
                                let x = at * stride[1] + kx * self.dilation[1];
                                &slab[(p.slab + y * g.width() + x) * padded..][..padded]
                            };
                            if let Some(to) = to.next() {
                                planes::zip(work.isa, pixel(at), pixel(at + 1), to);
                            }
                        }
                    }
                    to.by_ref().take(DEEP / 2).for_each(|to| to.fill(0));
                }
            }
        }

        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let (residue, below) = down(ky);
            let which = residues.iter().position(|&r| r == residue).unwrap_or(0);
            let base = (kx * residues.len() + which) * region;
            let (mut a, mut b) = (0, base);
            let segments: SmallVec<[Segment; 8]> = pieces
                .iter()
                .zip(&places)
                .map(|(p, &len)| {
                    let segment = Segment { a, b: b + below * pitch / 2 * pair, len };
                    a += len;
                    b += piece_pairs(p) * pair;
                    segment
                })
                .collect();
            let taps = kh * kw;
            let rows: SmallVec<[Row; 256]> =
                (0..os).map(|i| Row { a: i * lda, acc: (i * taps + ky * kw + kx) * padded }).collect();
            let block = TileBlock {
                a: turned,
                a_planes: (g_planes, g_distance),
                rows: &rows,
                b: pairs,
                b_planes: (x_planes, x_distance),
                b_pair: pair,
                panel: 2 * SIDE,
                columns: cs,
                segments: &segments,
                acc,
                add,
            };
            amx::run(work.isa, block);
        }
        Ok(())
    }

    /// Writes the gradient's channels as rows `[o][place]` from place `start` on; where `pixel` has none there are zeros.
    #[allow(clippy::too_many_arguments)]
    fn turn(
        &self,
        work: &Work<'_>,
        pixel: impl Fn(usize) -> Option<usize>,
        [start, len]: [usize; 2],
        os: usize,
        ld: usize,
        distance: usize,
        to: &mut [u16],
    ) -> Result<()> {
        let wide = os.next_multiple_of(SIDE);
        let mut read = work.halves(self.grad.planes * DEEP * wide)?;
        let read = &mut read.as_mut_slice::<u16>()[..self.grad.planes * DEEP * wide];
        read.fill(0);
        let mut pairs = Tile16([0; SIDE * DEEP]);
        for at in (0..len).step_by(DEEP) {
            // Pixels that follow each other in memory with all their channels are read in one go.
            let (start_at, end_at) = (pixel(at), pixel(at + DEEP - 1));
            let whole = wide == self.grad.source.c && start_at.zip(end_at).is_some_and(|(a, b)| b == a + (DEEP - 1) * wide);
            if let (true, Some(from)) = (whole, start_at) {
                work.read_flat(self.grad.which, &self.grad.source.values, from, DEEP * wide, DEEP * wide, read);
            }
            for l in 0..if whole { 0 } else { DEEP } {
                match pixel(at + l) {
                    Some(from) => {
                        work.read_flat(self.grad.which, &self.grad.source.values, from, os, DEEP * wide, &mut read[l * wide..])
                    }
                    None => (0..self.grad.planes).for_each(|plane| read[(plane * DEEP + l) * wide..][..os].fill(0)),
                }
            }
            for (plane, i) in (0..self.grad.planes).flat_map(|p| (0..wide).step_by(SIDE).map(move |i| (p, i))) {
                for (l, to) in pairs.0.chunks_exact_mut(2 * SIDE).enumerate() {
                    let row = |r: usize| &read[(plane * DEEP + 2 * l + r) * wide + i..][..SIDE];
                    planes::zip(work.isa, row(0), row(1), to);
                }
                transpose(work.isa, &pairs.0, 2 * SIDE, &mut to[plane * distance + i * ld + start + at..], ld);
            }
        }
        Ok(())
    }
}
