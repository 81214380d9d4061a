//! The gradient by the weight of a convolution: a product over pixels.

use crate::kernel::{In, Out};
use smallvec::SmallVec;

use super::conv::{FEW, Image, SLAB, serves};
use super::{Tile16, Work, apart, planes_of, transpose};
use crate::conv::{Blocks, Correlation, Piece, Source};
use crate::simd::amx::{self, DEEP, SIDE, TileBlock};
use crate::simd::planes::{self, Seen};
use crate::tile::{Row, Segment};
use binade_tensor::Result;
use binade_tensor::op::Conv2d;

/// Inputs g, x: `dw[o, tap, c] = Σ_p g[p, o]·x[p + tap, c]`: a product over pixels of the turned gradient and of pairs
/// of neighbouring pixels, in stretches of pixels that the shape alone decides, added in order.
pub(super) fn weight_backward(work: &Work<'_>, conv: &Conv2d, ins: &[In<'_>], out: &mut Out<'_>) -> Result<bool> {
    let (shape, dtype) = (*out.array().shape(), out.array().dtype());
    let (grad, x) = (Source::new(ins[0]), Source::new(ins[1]));
    // Few channels leave most of a tile empty, which only the fewest planes make up for.
    let planes = ins[..2].iter().filter_map(|a| planes_of(a.dtype())).sum::<usize>();
    if !serves(conv, &shape, grad.n * grad.h * grad.w) || shape[1] < FEW && planes > 2 {
        return Ok(false);
    }
    let to = &mut out.bytes()[..shape.numel() * dtype.size()];
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
    let blocks = Blocks { groups: 1, outputs, inputs, o_block, c_block, taps, tap: padded, output: taps * padded };
    let per_pixel = 2 * (over.x.planes * padded * (1 + shape[3]) + over.grad.planes * o_block);
    let per_unit = {
        let rows = (SLAB / per_pixel / grad.w).max(1).min((grad.n * grad.h).div_ceil(8));
        if rows > grad.h { rows / grad.h * grad.h } else { grad.h.div_ceil(grad.h.div_ceil(rows)) }
    };
    let units = (grad.n * grad.h).div_ceil(per_unit);
    let per_stretch = units.div_ceil(8usize.div_ceil(blocks.count()).clamp(1, units));
    let sums = |stretch: usize, block: usize, acc: &mut [f32]| {
        let channels = blocks.channels(block);
        for unit in stretch * per_stretch..units.min((stretch + 1) * per_stretch) {
            let first = unit * per_unit;
            let rows = per_unit.min(grad.n * grad.h - first);
            over.unit(work, [first, rows], channels, padded, acc, unit > stretch * per_stretch)?;
            if !work.is_exact() {
                return Ok(());
            }
        }
        Ok(())
    };
    blocks.write(work.cx, units.div_ceil(per_stretch), sums, to, dtype)?;
    Ok(work.holds(0, 1))
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
        [(o, os), (c, cs)]: [(usize, usize); 2],
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
        // For each column of the kernel, and each residue of its rows, the pairs of pixels that it meets, row after
        // row.
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
                let mut to = &mut pairs[plane * x_distance + (kx * residues.len() + i) * region..][..region];
                for p in &pieces {
                    let have = g.slab_rows(p.y, p.rows);
                    for row in 0..p.rows + most {
                        let y = row * stride[0] + residue;
                        let (here, rest) = to.split_at_mut(pitch / 2 * pair);
                        to = rest;
                        if y >= have {
                            here.fill(0);
                            continue;
                        }
                        let first = p.slab + y * g.width() + kx * self.dilation[1];
                        let pixel = |at: usize| &slab[(first + at * stride[1]) * padded..][..padded];
                        let mut whole = 0;
                        if stride[1] == 1 {
                            whole = w / 2;
                            planes::zip_rows(
                                work.cx.isa,
                                &slab[first * padded..][..whole * pair],
                                padded,
                                &mut here[..whole * pair],
                            );
                        }
                        for (at, to) in here.chunks_exact_mut(pair).enumerate().skip(whole) {
                            let right = if 2 * at + 1 < w { pixel(2 * at + 1) } else { &zeros };
                            planes::zip(work.cx.isa, pixel(2 * at), right, to);
                        }
                    }
                    let (beyond, rest) = to.split_at_mut(DEEP / 2 * pair);
                    beyond.fill(0);
                    to = rest;
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
            amx::run(work.cx.isa, block);
        }
        Ok(())
    }

    /// Writes the gradient's channels as rows `[o][place]` from place `start` on; where `pixel` has none there are
    /// zeros.
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
        let (mut pairs, mut seen) = (Tile16([0; SIDE * DEEP]), Seen::nothing());
        for at in (0..len).step_by(DEEP) {
            // Pixels that follow each other in memory with all their channels are read in one go.
            let (start_at, end_at) = (pixel(at), pixel(at + DEEP - 1));
            let whole =
                wide == self.grad.source.c && start_at.zip(end_at).is_some_and(|(a, b)| b == a + (DEEP - 1) * wide);
            if let (true, Some(from)) = (whole, start_at) {
                work.read_flat(&self.grad.source.values, from, DEEP * wide, DEEP * wide, read, &mut seen);
            }
            for l in 0..if whole { 0 } else { DEEP } {
                match pixel(at + l) {
                    Some(from) => work.read_flat(
                        &self.grad.source.values,
                        from,
                        os,
                        DEEP * wide,
                        &mut read[l * wide..],
                        &mut seen,
                    ),
                    None => (0..self.grad.planes).for_each(|plane| read[(plane * DEEP + l) * wide..][..os].fill(0)),
                }
            }
            for (plane, i) in (0..self.grad.planes).flat_map(|p| (0..wide).step_by(SIDE).map(move |i| (p, i))) {
                for (l, to) in pairs.0.chunks_exact_mut(2 * SIDE).enumerate() {
                    let row = |r: usize| &read[(plane * DEEP + 2 * l + r) * wide + i..][..SIDE];
                    planes::zip(work.cx.isa, row(0), row(1), to);
                }
                transpose(work.cx.isa, &pairs.0, 2 * SIDE, &mut to[plane * distance + i * ld + start + at..], ld);
            }
        }
        work.note(self.grad.which, &seen);
        Ok(())
    }
}
