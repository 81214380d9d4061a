//! The gradient by the weight: a product over pixels of two slabs.

use crate::kernel::{Context, In, Out};
use smallvec::SmallVec;

use super::blocks::Blocks;
use super::geometry::{Correlation, Piece, RUN};
use super::image::Source;
use super::in_chains;
use crate::depthwise;
use crate::gemm::{elements_of, workspace};
use crate::operand::Compute;
use crate::tile::{self, Block, Row, Segment};
use binade_tensor::Result;
use binade_tensor::memory::HostBuffer;
use binade_tensor::op::Conv2d;

/// Inputs g, x: `dw[o, tap, c] = Σ_p g[p, o]·x[p + tap, c]`, in stretches of pixels that the shape alone decides, added
/// in order.
pub fn weight_backward<C: Compute>(cx: Context<'_>, conv: &Conv2d, ins: &[In<'_>], out: &mut Out<'_>) -> Result<()> {
    let isa = cx.isa;
    let (shape, dtype) = (*out.array().shape(), out.array().dtype());
    if shape.numel() == 0 {
        return Ok(());
    }
    let (grad, x) = (Source::new(ins[0]), Source::new(ins[1]));
    let to = &mut out.bytes()[..shape.numel() * dtype.size()];
    if ins[0].numel() == 0 {
        to.fill(0);
        return Ok(());
    }
    if conv.is_depthwise(&shape) {
        return depthwise::weight_backward::<C>(cx, conv, [&grad, &x], &shape, dtype, to);
    }
    let g = Correlation::forward(conv, [shape[2], shape[3]], grad.h, grad.w);
    let (og, cg, taps) = (shape[0] / conv.groups, shape[1], shape[2] * shape[3]);
    // Blocks of output and input channels; in copied patches the taps count as channels of one tap.
    let copies = g.copies(cg, conv.groups);
    let (o_block, c_block) = (og.min(128), if copies { cg } else { cg.min(64) });
    let (columns, planes) = if copies { (cg * taps, 1) } else { (c_block, taps) };
    let padded = columns.next_multiple_of(tile::width::<C>(isa));
    let tap = if copies { cg } else { padded };
    let blocks =
        Blocks { groups: conv.groups, outputs: og, inputs: cg, o_block, c_block, taps, tap, output: planes * padded };
    let tasks = 16usize.div_ceil(blocks.count());
    let per_unit = g.rows_of(grad.n, c_block + o_block, tasks);
    let units = (grad.n * grad.h).div_ceil(per_unit);
    let per_stretch = units.div_ceil(tasks.clamp(1, units.max(1)));
    let over = OverPixels { cx, g: &g, grad: &grad, x: &x, planes, padded, copies };
    let sums = |stretch: usize, block: usize, acc: &mut [C]| {
        let channels = blocks.channels(block);
        (stretch * per_stretch..units.min((stretch + 1) * per_stretch)).try_for_each(|unit| {
            let first = unit * per_unit;
            over.add(first, per_unit.min(grad.n * grad.h - first), channels, unit > stretch * per_stretch, acc)
        })
    };
    blocks.write(cx, units.div_ceil(per_stretch), sums, to, dtype)
}

struct OverPixels<'a> {
    cx: Context<'a>,
    g: &'a Correlation,
    grad: &'a Source<'a>,
    x: &'a Source<'a>,
    /// Taps that are multiplied one by one, and the columns of each with their padding.
    planes: usize,
    padded: usize,
    copies: bool,
}

impl OverPixels<'_> {
    /// `acc[o, tap, c] (+)= Σ_p g[p, o]·x[p + tap, c]` for the pixels of some output rows, `(first, count)` output and
    /// input channels.
    fn add<C: Compute>(
        &self,
        first: usize,
        rows: usize,
        [outputs, inputs]: [(usize, usize); 2],
        add: bool,
        acc: &mut [C],
    ) -> Result<()> {
        let OverPixels { cx: Context { isa, .. }, g, planes, padded, copies, .. } = *self;
        let (width, height) = (tile::width::<C>(isa), tile::height::<C>(isa));
        let (pieces, pixels) = (g.pieces(first, rows), rows * g.w);
        let (a, b) = (self.gradient::<C>(first * g.w, pixels, outputs)?, self.image::<C>(&pieces, pixels, inputs)?);
        let (a, b) = (elements_of(&a), elements_of::<C>(&b));
        // Distances in the image of a row's neighbouring pixels, and of panels.
        let (columns, b_step, panel) = if copies {
            (inputs.1 * g.phases[0].taps.len(), padded, width)
        } else {
            (inputs.1, g.stride[1] * width, g.slab_pixels(&pieces) * width)
        };
        let row = |p: &Piece, y: usize| {
            let pixel = p.pixel + y * g.w;
            let b = if copies { pixel * padded } else { (p.slab + y * g.stride[0] * g.width()) * width };
            Segment { a: pixel * height, b, len: g.w }
        };
        let rows = pieces.iter().flat_map(|p| (0..p.rows).map(move |y| row(p, y)));
        for (i, segments) in in_chains(rows, height, b_step).iter().enumerate() {
            for plane in 0..planes {
                let place =
                    |i: usize| Row { a: i / height * pixels * height + i % height, acc: (i * planes + plane) * padded };
                let rows: SmallVec<[Row; 128]> = (0..outputs.1).map(place).collect();
                let b = if copies { b } else { &b[g.tap(&g.phases[0].taps[plane]) * width..] };
                let add = add || i > 0;
                C::dispatch(
                    isa,
                    Block { a, a_step: height, rows: &rows, b, b_step, panel, columns, segments, acc, add },
                );
            }
        }
        Ok(())
    }

    /// Some output channels of the gradient as tiles read them, without gaps, so that they are evenly spread over the
    /// first-level cache: `[channels / height][pixel][height]`.
    fn gradient<C: Compute>(&self, first: usize, pixels: usize, (o, os): (usize, usize)) -> Result<HostBuffer> {
        let OverPixels { cx, grad, .. } = *self;
        let Context { isa, pool } = cx;
        let height = tile::height::<C>(isa);
        let mut tiles = workspace::<C>(pool, pixels * os.next_multiple_of(height))?;
        let to = tiles.as_mut_slice::<C>();
        let turn = |from: &[C], ld: usize, first: usize, n: usize, to: &mut [C]| match height {
            12 => in_tiles::<C, 12>(from, ld, os, to, pixels, first, n),
            6 => in_tiles::<C, 6>(from, ld, os, to, pixels, first, n),
            _ => in_tiles::<C, 4>(from, ld, os, to, pixels, first, n),
        };
        if grad.values.is_borrowed::<C>(grad.n * grad.h * grad.w * grad.c) {
            turn(&grad.values.block(isa, first * grad.c, pixels * grad.c, &mut [])[o..], grad.c, 0, pixels, to);
            return Ok(tiles);
        }
        // So many pixels at a time stay in the first-level cache.
        const SOME: usize = 32;
        let mut some = workspace::<C>(pool, SOME * os)?;
        let some = &mut some.as_mut_slice::<C>()[..SOME * os];
        for at in (0..pixels).step_by(SOME) {
            let n = SOME.min(pixels - at);
            grad.values.load_rows(isa, (first + at) * grad.c + o, grad.c, [n, os], some, os);
            turn(some, os, at, n, to);
        }
        Ok(tiles)
    }

    /// Some input channels: panels `[channels / width][slab pixel][width]`, or copied patches.
    fn image<C: Compute>(&self, pieces: &[Piece], pixels: usize, (c, cs): (usize, usize)) -> Result<HostBuffer> {
        let OverPixels { cx, g, x, padded, copies, .. } = *self;
        let Context { isa, pool } = cx;
        let (width, slab_pixels) = (tile::width::<C>(isa), g.slab_pixels(pieces));
        if copies {
            let mut slab = workspace::<C>(pool, slab_pixels * cs + RUN)?;
            let slab = slab.as_mut_slice::<C>();
            g.fill(isa, x, pieces, (c, cs), cs, slab);
            let mut patches = workspace::<C>(pool, pixels * padded + RUN)?;
            g.patches(pieces, slab, cs, padded, patches.as_mut_slice::<C>());
            return Ok(patches);
        }
        let mut panels = workspace::<C>(pool, slab_pixels * padded)?;
        let all = panels.as_mut_slice::<C>().chunks_exact_mut(slab_pixels * width);
        for (from, panel) in (0..cs).step_by(width).zip(all) {
            g.fill(isa, x, pieces, (c + from, width.min(cs - from)), width, panel);
        }
        Ok(panels)
    }
}

/// `to[i / H, first + pixel, i % H] = from[pixel·ld + i]` for `i < channels`, where `to` has `pixels` and `from` `n`.
fn in_tiles<C: Compute, const H: usize>(
    from: &[C],
    ld: usize,
    channels: usize,
    to: &mut [C],
    pixels: usize,
    first: usize,
    n: usize,
) {
    for (i, tile) in (0..channels).step_by(H).zip(to.chunks_exact_mut((pixels * H).max(1))) {
        let tile = &mut tile.as_chunks_mut::<H>().0[first..first + n];
        if channels - i < H {
            for (to, from) in tile.iter_mut().zip(from[i..].chunks(ld)) {
                to[..channels - i].copy_from_slice(&from[..channels - i]);
            }
        } else {
            for (to, from) in tile.iter_mut().zip(from[i..].chunks(ld)) {
                to.copy_from_slice(&from[..H]);
            }
        }
    }
}
