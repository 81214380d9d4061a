//! Convolution without patches in memory: the rows of the image a block of output pixels needs are widened, with their padding, into
//! a slab in the second-level cache, and [`super::tile`] walks its taps. The gradient by the input is the same correlation with
//! the weight turned round, one for each residue of the stride; the gradient by the weight is a product over pixels of two slabs.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::depthwise;
use super::finish::{Finish, output_parts};
use super::gemm::{DEPTH, Panel, elements_of, workspace};
use super::narrow::{self, Narrow};
use super::operand::{BLOCK, Compute, Operand, elements_mut};
use super::reduce::reduce;
use super::tasks::Tasks as _;
use super::tile::{Block, Row, Segment, Tile};
use crate::memory::{HostBuffer, Pool};
use crate::op::{Conv2d, Epilogue, Reduce};
use crate::simd::Isa;
use crate::{Array, ArrayMut, DType, Dims, Layout, Result, Shape};

/// Output pixels per block, about: their slab and results stay in the second-level cache.
const PIXELS: usize = 512;
/// Elements of a slab, about.
const SLAB: usize = 128 * 1024;
/// With fewer input channels than this, patches are copied: segments would be too short.
const FEW: usize = 16;
/// Elements of a patch that are copied together at least.
const RUN: usize = 16;

/// An image `[N, C, H, W]` as a channels-last slice of the computing type.
pub(super) fn image<'a, C: Compute>(isa: Isa, pool: &Pool, x: &Array, bytes: &'a [u8]) -> Result<Panel<'a, C>> {
    let dense = Layout::channels_last(*x.shape());
    if x.dtype() == C::DTYPE && x.layout().same_order(&dense) {
        return Ok(Panel::Borrowed(&super::operand::elements(bytes)[x.layout().offset..]));
    }
    Ok(Panel::Widened(Source::new(x, bytes).widened::<C>(isa, pool)?))
}

/// An image read in slabs.
pub(super) struct Source<'a> {
    pub(super) values: Operand<'a>,
    /// The elements in the order `[N, C, H, W]`, where rows lie densely and channels do not.
    pub(super) rows: Option<Operand<'a>>,
    pub(super) n: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) c: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(x: &Array, bytes: &'a [u8]) -> Source<'a> {
        let (s, strides) = (x.shape(), x.layout().strides);
        let by_rows = strides[3] == 1 && strides[1] != 1 && s[1] > 1;
        let rows = by_rows.then(|| Operand::new(x, bytes, s, &[0, 1, 2, 3]));
        Source { values: Operand::new(x, bytes, s, &[0, 2, 3, 1]), rows, n: s[0], h: s[2], w: s[3], c: s[1] }
    }

    /// The whole image, channels last, in the computing type.
    pub(super) fn widened<C: Compute>(&self, isa: Isa, pool: &Pool) -> Result<HostBuffer> {
        let n = self.n * self.h * self.w * self.c;
        let mut buffer = workspace::<C>(pool, n)?;
        let parts = buffer.as_mut_slice::<C>()[..n].par_chunks_mut(16 * BLOCK).enumerate();
        parts.each(|(i, part)| self.values.load(isa, i * 16 * BLOCK, part));
        Ok(buffer)
    }

    /// Rows `y..y + rows` and columns `x..x + width` of image `n`, channels `first..first + channels`, as `[rows][width][channels]`;
    /// zeros outside the image.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn slab<C: Compute>(
        &self,
        isa: Isa,
        n: usize,
        y: isize,
        x: isize,
        width: usize,
        first: usize,
        channels: usize,
        to: &mut [C],
    ) {
        let inside = |at: isize, extent: usize| at.clamp(0, extent as isize) as usize;
        let (left, right) = (inside(x, self.w), inside(x + width as isize, self.w));
        for (i, row) in to.chunks_exact_mut(width * channels).enumerate() {
            let at = y + i as isize;
            if at < 0 || at >= self.h as isize || left >= right {
                row.fill(C::zero());
                continue;
            }
            let skip = (left as isize - x) as usize * channels;
            let until = skip + (right - left) * channels;
            row[..skip].fill(C::zero());
            row[until..].fill(C::zero());
            let pixel = (n * self.h + at as usize) * self.w + left;
            if channels == self.c {
                self.values.load(isa, pixel * self.c, &mut row[skip..until]);
            } else {
                for (j, to) in row[skip..until].chunks_exact_mut(channels).enumerate() {
                    self.values.load(isa, (pixel + j) * self.c + first, to);
                }
            }
        }
    }
}

/// A tap of a phase: which slab pixel it reads, from the first, and which weight it is.
#[derive(Clone, Copy)]
pub(super) struct Tap {
    pub(super) at: [isize; 2],
    pub(super) index: usize,
}

/// Output pixels whose coordinates leave the same residue, and the taps they have.
pub(super) struct Phase {
    pub(super) residue: [usize; 2],
    pub(super) taps: Vec<Tap>,
}

/// `out[y, x] = Σ_taps w[tap]·image[(y / step)·stride + tap.y, …]` for the pixels of each phase.
pub(super) struct Correlation {
    /// Extents of the output.
    pub(super) h: usize,
    pub(super) w: usize,
    /// Distance of the output pixels of a phase.
    pub(super) step: [usize; 2],
    /// Distance in the image of neighbouring output pixels of a phase.
    pub(super) stride: [usize; 2],
    pub(super) phases: Vec<Phase>,
    /// Least and largest tap.
    pub(super) low: [isize; 2],
    pub(super) high: [isize; 2],
}

impl Correlation {
    fn new(h: usize, w: usize, step: [usize; 2], stride: [usize; 2], phases: Vec<Phase>) -> Correlation {
        let taps = || phases.iter().flat_map(|p| &p.taps);
        let low = std::array::from_fn(|d| taps().map(|t| t.at[d]).min().unwrap_or(0));
        let high = std::array::from_fn(|d| taps().map(|t| t.at[d]).max().unwrap_or(0));
        Correlation { h, w, step, stride, phases, low, high }
    }

    /// A convolution forward.
    pub(super) fn forward(conv: &Conv2d, kernel: [usize; 2], h: usize, w: usize) -> Correlation {
        let at = |d: usize, k: usize| (k * conv.dilation[d]) as isize - conv.padding[d] as isize;
        let taps = (0..kernel[0] * kernel[1])
            .map(|index| Tap { at: [at(0, index / kernel[1]), at(1, index % kernel[1])], index })
            .collect();
        Correlation::new(h, w, [1, 1], conv.stride, vec![Phase { residue: [0, 0], taps }])
    }

    /// The gradient by the input: pixel `y` takes from every output `o` with `o·stride + k·dilation − padding = y`.
    pub(super) fn backward(conv: &Conv2d, kernel: [usize; 2], h: usize, w: usize) -> Correlation {
        let from = |d: usize, residue: usize, k: usize| {
            let at = (residue + conv.padding[d]) as isize - (k * conv.dilation[d]) as isize;
            (at.rem_euclid(conv.stride[d] as isize) == 0).then(|| at.div_euclid(conv.stride[d] as isize))
        };
        let mut phases = Vec::new();
        for py in 0..conv.stride[0] {
            for px in 0..conv.stride[1] {
                let tap = |index: usize| {
                    let at = [from(0, py, index / kernel[1])?, from(1, px, index % kernel[1])?];
                    Some(Tap { at, index })
                };
                phases.push(Phase { residue: [py, px], taps: (0..kernel[0] * kernel[1]).filter_map(tap).collect() });
            }
        }
        Correlation::new(h, w, conv.stride, [1, 1], phases)
    }

    /// Columns of a slab.
    pub(super) fn width(&self) -> usize {
        (self.w.div_ceil(self.step[1]) - 1) * self.stride[1] + (self.high[1] - self.low[1]) as usize + 1
    }

    /// Rows of the slab for `rows` output rows from `y` on.
    pub(super) fn slab_rows(&self, y: usize, rows: usize) -> usize {
        let count = (y + rows - 1) / self.step[0] - y / self.step[0];
        count * self.stride[0] + (self.high[0] - self.low[0]) as usize + 1
    }

    /// Output rows per block: by the number of pixels and the size of the slab, at least eight blocks.
    pub(super) fn rows(&self, n: usize, c: usize) -> usize {
        let (width, all) = (self.width() * c, n * self.h);
        let per_image = (self.h * self.w).div_ceil(PIXELS).max(1);
        let rows = if per_image > 1 { self.h.div_ceil(per_image) } else { PIXELS.div_ceil(self.h * self.w).min(PIXELS) * self.h };
        let fits = |rows: &usize| rows.div_ceil(self.h) * self.slab_rows(0, (*rows).min(self.h)) * width <= SLAB;
        let mut rows = rows.min(all.div_ceil(8)).max(1);
        while rows > 1 && !fits(&rows) {
            rows = rows.div_ceil(2);
        }
        rows.next_multiple_of(self.step[0])
    }

    /// The stretches of one image among the output rows `first..first + rows` of all images.
    pub(super) fn pieces(&self, first: usize, rows: usize) -> SmallVec<[Piece; 8]> {
        let mut out = SmallVec::new();
        let (mut at, mut slab) = (first, 0);
        while at < first + rows {
            let (n, y) = (at / self.h, at % self.h);
            let rows = (self.h - y).min(first + rows - at);
            out.push(Piece { n, y, rows, slab, pixel: (at - first) * self.w });
            slab += self.slab_rows(y, rows) * self.width();
            at += rows;
        }
        out
    }

    /// Widens what the pieces need. Returns the number of slab pixels.
    fn fill<C: Compute>(&self, isa: Isa, x: &Source<'_>, pieces: &[Piece], first: usize, channels: usize, to: &mut [C]) {
        for p in pieces {
            let len = self.slab_rows(p.y, p.rows) * self.width() * channels;
            let y = (p.y / self.step[0] * self.stride[0]) as isize + self.low[0];
            x.slab(isa, p.n, y, self.low[1], self.width(), first, channels, &mut to[p.slab * channels..][..len]);
        }
    }

    /// Slab pixels of the pieces.
    pub(super) fn slab_pixels(&self, pieces: &[Piece]) -> usize {
        pieces.last().map_or(0, |p| p.slab + self.slab_rows(p.y, p.rows) * self.width())
    }

    /// Calls `each(slab pixel, output pixel)` for the pixels of a phase, row by row.
    pub(super) fn pixels(&self, pieces: &[Piece], residue: [usize; 2], mut each: impl FnMut(usize, usize)) {
        for p in pieces {
            for y in (p.y..p.y + p.rows).filter(|y| y % self.step[0] == residue[0]) {
                let row = p.slab + (y / self.step[0] - p.y / self.step[0]) * self.stride[0] * self.width();
                for (i, x) in (residue[1]..self.w).step_by(self.step[1]).enumerate() {
                    each(row + i * self.stride[1], p.pixel + (y - p.y) * self.w + x);
                }
            }
        }
    }

    /// Where a tap reads, in slab pixels.
    pub(super) fn tap(&self, tap: &Tap) -> usize {
        (tap.at[0] - self.low[0]) as usize * self.width() + (tap.at[1] - self.low[1]) as usize
    }

    /// Whether patches are copied for images of `c` channels.
    fn copies(&self, c: usize, groups: usize) -> bool {
        c < FEW && groups == 1 && self.phases.len() == 1 && self.phases[0].taps.len() > 1
    }

    /// Copies the patches of the pieces' pixels, `(tap, channel)`, rows `ld` apart; both slices have room for [`RUN`] more.
    fn patches<C: Compute>(&self, pieces: &[Piece], slab: &[C], c: usize, ld: usize, to: &mut [C]) {
        // Taps that lie one after the other are one run.
        let mut runs: SmallVec<[(usize, usize); 9]> = SmallVec::new();
        for at in self.phases[0].taps.iter().map(|tap| self.tap(tap) * c) {
            match runs.last_mut() {
                Some((from, len)) if *from + *len == at => *len += c,
                Some(_) | None => runs.push((at, c)),
            }
        }
        self.pixels(pieces, [0, 0], |from, pixel| {
            let mut at = pixel * ld;
            for &(run, len) in &runs {
                let from = &slab[from * c + run..];
                if len <= RUN {
                    // A whole vector: what is too much of it is overwritten by what follows.
                    to[at..at + RUN].copy_from_slice(&from[..RUN]);
                } else {
                    to[at..at + len].copy_from_slice(&from[..len]);
                }
                at += len;
            }
        });
    }
}

/// Output rows of one image, where their slab starts and which output pixel of the block is their first.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) n: usize,
    pub(super) y: usize,
    pub(super) rows: usize,
    pub(super) slab: usize,
    pub(super) pixel: usize,
}

/// Extents of a weight `[O, C/g, KH, KW]`.
#[derive(Clone, Copy)]
pub(super) struct Weight {
    og: usize,
    cg: usize,
    taps: usize,
    groups: usize,
}

impl Weight {
    fn new(w: &Shape, groups: usize) -> Weight {
        Weight { og: w[0] / groups, cg: w[1], taps: w[2] * w[3], groups }
    }

    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.og == 1 && self.cg == 1
    }

    /// Panels `[group][panel of o][tap][c][width]`, or `[group][panel of c][tap][o][width]` for the gradient by the input.
    fn pack<C: Tile>(&self, isa: Isa, pool: &Pool, w: &Array, bytes: &[u8], backward: bool) -> Result<HostBuffer> {
        let Weight { og, cg, taps, groups } = *self;
        let width = C::width(isa);
        let (columns, deep) = if backward { (cg, og) } else { (og, cg) };
        let panels = columns.div_ceil(width);
        let values = Operand::new(w, bytes, w.shape(), &[0, 1, 2, 3]);
        if self.is_depthwise() {
            // [tap][channel]
            let mut buffer = workspace::<C>(pool, w.numel())?;
            Operand::new(w, bytes, w.shape(), &[2, 3, 0, 1]).load(isa, 0, &mut buffer.as_mut_slice::<C>()[..w.numel()]);
            return Ok(buffer);
        }
        let mut buffer = workspace::<C>(pool, groups * panels * width * deep * taps)?;
        let all = &mut buffer.as_mut_slice::<C>()[..groups * panels * width * deep * taps];
        all.par_chunks_mut((width * deep * taps).max(1)).enumerate().each(|(i, panel)| {
            let (group, first) = (i / panels, i % panels * width);
            let count = width.min(columns - first);
            if count < width {
                panel.fill(C::zero());
            }
            if backward {
                const SOME: usize = 16;
                let mut rows = vec![C::zero(); SOME.min(og) * count * taps];
                for from in (0..og).step_by(SOME) {
                    let start = ((group * og + from) * cg + first) * taps;
                    let some = SOME.min(og - from);
                    values.load_rows(isa, start, cg * taps, [some, count * taps], &mut rows, count * taps);
                    for (o, row) in rows.chunks(count * taps).enumerate().take(some) {
                        for tap in 0..taps {
                            let to = &mut panel[(tap * og + from + o) * width..][..count];
                            to.iter_mut().zip(row[tap..].iter().step_by(taps)).for_each(|(t, &v)| *t = v);
                        }
                    }
                }
            } else {
                const DEEP: usize = 128;
                let (mut rows, mut turned) = ([C::zero(); 32 * DEEP], [C::zero(); 32 * DEEP]);
                for from in (0..cg * taps).step_by(DEEP) {
                    let deep = DEEP.min(cg * taps - from);
                    values.load_rows(isa, (group * og + first) * cg * taps + from, cg * taps, [count, deep], &mut rows, DEEP);
                    C::transpose(isa, &rows, DEEP, count, deep, &mut turned, width);
                    for (l, row) in turned.chunks(width).enumerate().take(deep) {
                        let (c, tap) = ((from + l) / taps, (from + l) % taps);
                        panel[(tap * cg + c) * width..][..count].copy_from_slice(&row[..count]);
                    }
                }
            }
        });
        Ok(buffer)
    }
}

/// Correlates `x` with packed weights: `inner` channels in and `columns` out per group.
#[allow(clippy::too_many_arguments)]
fn correlate<C: Tile>(
    isa: Isa,
    pool: &Pool,
    g: &Correlation,
    x: &Source<'_>,
    packed: &[C],
    [groups, inner, columns]: [usize; 3],
    taps: usize,
    finish: &Finish<C>,
    dtype: DType,
    out: &mut [u8],
    pre: Option<&mut [u8]>,
) -> Result<()> {
    let width = C::width(isa);
    // Lanes sum chains of at most DEPTH products too.
    let narrow = columns <= narrow::COLUMNS && groups == 1 && inner >= FEW && inner * taps <= DEPTH * C::lanes(isa);
    let padded = if narrow { columns } else { columns.next_multiple_of(width) };
    let (o, copies) = (groups * columns, g.copies(inner, groups));
    let patch = (inner * taps).next_multiple_of(16);
    let per_block = g.rows(x.n, x.c);
    // Rows [column][tap][c] of the one panel there is.
    let mut turned = vec![C::zero(); if narrow { narrow::COLUMNS * inner * taps } else { 0 }];
    for (j, row) in turned.chunks_exact_mut((inner * taps).max(1)).enumerate() {
        row.iter_mut().zip(packed[j..].iter().step_by(width)).for_each(|(to, &v)| *to = v);
    }
    // The inner dimension of each phase, in chains of at most DEPTH.
    let chains: Vec<Vec<Vec<Segment>>> = g
        .phases
        .iter()
        .map(|phase| {
            let mut chains: Vec<Vec<Segment>> = Vec::new();
            let mut left = 0;
            let mut push = |a: usize, b: usize, len: usize| {
                for from in (0..len).step_by(DEPTH) {
                    let len = DEPTH.min(len - from);
                    if len > left {
                        chains.push(Vec::new());
                        left = DEPTH;
                    }
                    left -= len;
                    if let Some(chain) = chains.last_mut() {
                        chain.push(Segment { a: a + from, b: (b + from) * width, len });
                    }
                }
            };
            if copies {
                push(0, 0, inner * taps);
            } else {
                phase.taps.iter().for_each(|tap| push(g.tap(tap) * x.c, tap.index * inner, inner));
            }
            chains
        })
        .collect();
    let parts = output_parts(out, pre, per_block * g.w * o * dtype.size());
    parts.into_par_iter().enumerate().try_each(|(i, (out, pre))| {
        let pixels = out.len() / (o * dtype.size());
        let pieces = g.pieces(i * per_block, pixels / g.w);
        let mut slab = workspace::<C>(pool, g.slab_pixels(&pieces) * x.c + RUN)?;
        let mut slab = slab.as_mut_slice::<C>();
        g.fill(isa, x, &pieces, 0, x.c, slab);
        let mut copied;
        if copies {
            copied = workspace::<C>(pool, pixels * patch + RUN)?;
            g.patches(&pieces, slab, x.c, patch, copied.as_mut_slice::<C>());
            slab = copied.as_mut_slice::<C>();
        }
        let ld = groups * padded;
        // Where nothing is left to do after the sums they stand where they belong.
        let direct = finish.is_plain() && dtype == C::DTYPE && ld == o;
        let mut scratch = workspace::<C>(pool, if direct { 0 } else { pixels * ld })?;
        let acc = if direct { elements_mut(out) } else { &mut scratch.as_mut_slice::<C>()[..pixels * ld] };
        let mut rows: Vec<Row> = Vec::with_capacity(pixels);
        for (phase, chains) in g.phases.iter().zip(&chains) {
            for group in 0..groups {
                rows.clear();
                g.pixels(&pieces, phase.residue, |from, pixel| {
                    let a = if copies { pixel * patch } else { from * x.c + group * inner };
                    rows.push(Row { a, acc: pixel * ld + group * padded });
                });
                if narrow {
                    let segments: SmallVec<[Segment; 9]> =
                        chains.iter().flatten().map(|s| Segment { b: s.b / width, ..*s }).collect();
                    let (w, ld) = (&turned[..], inner * taps);
                    C::narrow(isa, Narrow { a: slab, rows: &rows, w, ld, segments: &segments, columns, acc });
                    continue;
                }
                if chains.is_empty() {
                    rows.iter().for_each(|r| acc[r.acc..r.acc + padded].fill(C::zero()));
                }
                for (j, segments) in chains.iter().enumerate() {
                    C::block(
                        isa,
                        Block {
                            a: slab,
                            a_step: 1,
                            rows: &rows,
                            b: &packed[group * padded * inner * taps..],
                            b_step: width,
                            panel: width * inner * taps,
                            columns,
                            segments,
                            acc,
                            add: j > 0,
                        },
                    );
                }
            }
        }
        if groups > 1 && padded != columns {
            for row in acc.chunks_mut(ld) {
                (1..groups).for_each(|group| row.copy_within(group * padded..group * padded + columns, group * columns));
            }
        }
        if !direct {
            finish.rows(&mut scratch.as_mut_slice::<C>()[..pixels * ld], ld, 0, o, o, out, pre, dtype);
        }
        Ok(())
    })
}

pub(super) fn forward<C: Tile>(
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
    let ws = *ins[1].shape();
    let finish = Finish::<C>::new(isa, epilogue, ins, bytes);
    let (first, rest) = outs.split_at_mut(1);
    let (Some(out), pre) = (first[0].bytes(), rest.first_mut().and_then(ArrayMut::bytes)) else { return Ok(()) };
    let total = shape.numel() * dtype.size();
    let (out, pre) = (&mut out[..total], pre.map(|p| &mut p[..total]));
    let x = Source::new(ins[0], bytes[0]);
    let g = Correlation::forward(conv, [ws[2], ws[3]], shape[2], shape[3]);
    let weight = Weight::new(&ws, conv.groups);
    let packed = weight.pack::<C>(isa, pool, ins[1], bytes[1], false)?;
    if weight.is_depthwise() {
        return depthwise::correlate(isa, pool, &g, &x, elements_of(&packed), &finish, dtype, out, pre);
    }
    let extents = [conv.groups, weight.cg, weight.og];
    correlate(isa, pool, &g, &x, elements_of(&packed), extents, weight.taps, &finish, dtype, out, pre)
}

/// Inputs g, w, and a bias for a transposed convolution.
pub(super) fn input_backward<C: Tile>(
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
    let finish = Finish::<C>::with_bias(isa, bias);
    let ws = *ins[1].shape();
    let Some(bytes_out) = out.bytes() else { return Ok(()) };
    let to = &mut bytes_out[..shape.numel() * dtype.size()];
    let x = Source::new(ins[0], bytes[0]);
    let g = Correlation::backward(conv, [ws[2], ws[3]], shape[2], shape[3]);
    let weight = Weight::new(&ws, conv.groups);
    let packed = weight.pack::<C>(isa, pool, ins[1], bytes[1], true)?;
    if weight.is_depthwise() {
        return depthwise::correlate(isa, pool, &g, &x, elements_of(&packed), &finish, dtype, to, None);
    }
    let extents = [conv.groups, weight.og, weight.cg];
    correlate(isa, pool, &g, &x, elements_of(&packed), extents, weight.taps, &finish, dtype, to, None)
}

/// Inputs g, x, w of a depthwise convolution: the gradients by x, w and, if there is a third output, by a bias.
pub(super) fn depthwise_backward<C: Tile>(
    isa: Isa,
    pool: &Pool,
    conv: &Conv2d,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<()> {
    let (shape, ws) = (*ins[1].shape(), *ins[2].shape());
    if shape.numel() > 0 && ins[0].numel() > 0 {
        let (grad, x) = (Source::new(ins[0], bytes[0]), Source::new(ins[1], bytes[1]));
        let g = Correlation::backward(conv, [ws[2], ws[3]], shape[2], shape[3]);
        let packed = Weight::new(&ws, conv.groups).pack::<C>(isa, pool, ins[2], bytes[2], true)?;
        if depthwise::backward::<C>(isa, pool, &g, [&grad, &x], elements_of(&packed), outs)? {
            return Ok(());
        }
    }
    input_backward::<C>(isa, pool, conv, &[ins[0], ins[2]], &[bytes[0], bytes[2]], None, &mut outs[0])?;
    weight_backward::<C>(isa, pool, conv, &ins[..2], &bytes[..2], &mut outs[1])?;
    if let Some(bias) = outs.get_mut(2) {
        reduce::<C>(isa, Reduce::Sum, Dims::one(0).with(2).with(3), ins[0], bytes[0], bias);
    }
    Ok(())
}

/// Inputs g, x: `dw[o, tap, c] = Σ_p g[p, o]·x[p + tap, c]`, in stretches of pixels that the shape alone decides, added in order.
pub(super) fn weight_backward<C: Tile>(
    isa: Isa,
    pool: &Pool,
    conv: &Conv2d,
    ins: &[&Array],
    bytes: &[&[u8]],
    out: &mut ArrayMut<'_>,
) -> Result<()> {
    let (shape, dtype) = (*out.array().shape(), out.array().dtype());
    if shape.numel() == 0 {
        return Ok(());
    }
    let (grad, x) = (Source::new(ins[0], bytes[0]), Source::new(ins[1], bytes[1]));
    let Some(to) = out.bytes() else { return Ok(()) };
    let to = &mut to[..shape.numel() * dtype.size()];
    if conv.is_depthwise(&shape) {
        return depthwise::weight_backward::<C>(isa, pool, conv, [&grad, &x], &shape, dtype, to);
    }
    let g = Correlation::forward(conv, [shape[2], shape[3]], grad.h, grad.w);
    let weight = Weight::new(&shape, conv.groups);
    let Weight { og, cg, taps, groups } = weight;
    let (width, copies) = (C::width(isa), g.copies(cg, groups));
    // Blocks of output and input channels; in copied patches the taps count as channels of one tap.
    let (o_block, c_block) = (og.min(128), if copies { cg } else { cg.min(64) });
    let (columns, planes) = if copies { (cg * taps, 1) } else { (c_block, taps) };
    let padded = columns.next_multiple_of(width);
    let (o_blocks, c_blocks) = (og.div_ceil(o_block), cg.div_ceil(c_block));
    let blocks = groups * o_blocks * c_blocks;
    let per_unit = g.rows(grad.n, c_block + o_block);
    let units = (grad.n * grad.h).div_ceil(per_unit);
    let stretches = (16usize.div_ceil(blocks)).clamp(1, units.max(1));
    let per_stretch = units.div_ceil(stretches);
    let stretches = units.div_ceil(per_stretch);
    let size = o_block * planes * padded;
    let mut partial = workspace::<C>(pool, stretches * blocks * size)?;
    let partial = &mut partial.as_mut_slice::<C>()[..stretches * blocks * size];
    partial.par_chunks_mut(size).enumerate().try_each(|(i, acc)| {
        let (stretch, block) = (i / blocks, i % blocks);
        let (group, o, c) = (block / (o_blocks * c_blocks), block / c_blocks % o_blocks * o_block, block % c_blocks * c_block);
        let (os, cs) = (o_block.min(og - o), c_block.min(cg - c));
        let columns = if copies { columns } else { cs };
        // Pixels that lie close together are read where they are.
        let direct = grad.c <= 128 && grad.values.is_borrowed::<C>(grad.n * grad.h * grad.w * grad.c);
        // All channels of all pixels are one stretch of memory.
        let whole = os == grad.c;
        let ld = if direct || whole { grad.c } else { os.next_multiple_of(16) + 16 };
        for unit in stretch * per_stretch..units.min((stretch + 1) * per_stretch) {
            let rows = per_unit.min(grad.n * grad.h - unit * per_unit);
            let pieces = g.pieces(unit * per_unit, rows);
            let slab_pixels = g.slab_pixels(&pieces);
            // A panel reads beyond the last pixel's channels.
            let mut slab = workspace::<C>(pool, slab_pixels * cs + width.max(RUN))?;
            let mut slab = slab.as_mut_slice::<C>();
            g.fill(isa, &x, &pieces, group * cg + c, cs, slab);
            let pixels = rows * g.w;
            let mut copied;
            if copies {
                copied = workspace::<C>(pool, pixels * padded + RUN)?;
                g.patches(&pieces, slab, cg, padded, copied.as_mut_slice::<C>());
                slab = copied.as_mut_slice::<C>();
            }
            let first = unit * per_unit * g.w;
            let mut copy = workspace::<C>(pool, if direct { 0 } else { pixels * ld })?;
            let gs = if direct {
                &grad.values.block(isa, first * grad.c, pixels * grad.c, &mut [])[group * og + o..]
            } else {
                let gs = &mut copy.as_mut_slice::<C>()[..pixels * ld];
                if whole {
                    grad.values.load(isa, first * grad.c, gs);
                } else {
                    for (p, row) in gs.chunks_mut(ld).enumerate() {
                        grad.values.load(isa, (first + p) * grad.c + group * og + o, &mut row[..os]);
                    }
                }
                gs
            };
            let segments: Vec<Segment> = if copies {
                vec![Segment { a: 0, b: 0, len: pixels }]
            } else {
                let row = |p: &Piece, y: usize| Segment {
                    a: (p.pixel + y * g.w) * ld,
                    b: (p.slab + y * g.stride[0] * g.width()) * cs,
                    len: g.w,
                };
                pieces.iter().flat_map(|p| (0..p.rows).map(move |y| row(p, y))).collect()
            };
            for plane in 0..planes {
                let rows: SmallVec<[Row; 128]> = (0..os).map(|i| Row { a: i, acc: (i * planes + plane) * padded }).collect();
                let at = if copies { 0 } else { g.tap(&g.phases[0].taps[plane]) * cs };
                C::block(
                    isa,
                    Block {
                        a: gs,
                        a_step: ld,
                        rows: &rows,
                        b: &slab[at..],
                        b_step: if copies { padded } else { g.stride[1] * cs },
                        panel: width,
                        columns,
                        segments: &segments,
                        acc,
                        add: unit > stretch * per_stretch,
                    },
                );
            }
        }
        Ok::<(), crate::Error>(())
    })?;
    // From [stretch][block][o][tap][c] to [o][c][tap].
    to.par_chunks_mut(cg * taps * dtype.size()).enumerate().each(|(o, to)| {
        let (group, o) = (o / og, o % og);
        let mut row = vec![C::zero(); cg * taps];
        let ld = if copies { cg } else { padded };
        for (c, row) in row.chunks_mut(c_block * taps).enumerate() {
            let block = (group * o_blocks + o / o_block) * c_blocks + c;
            let part =
                |stretch: usize| &partial[(stretch * blocks + block) * size + o % o_block * planes * padded..][..taps * ld];
            add_stretches(taps, ld, (0..stretches).map(part), row);
        }
        C::store(isa, &row, to, dtype);
    });
    Ok(())
}

/// The sum in order of stretches `[tap][channel]`, taps `ld` apart, as a row `[channel][tap]`.
pub fn add_stretches<'a, C: Compute>(taps: usize, ld: usize, mut stretches: impl Iterator<Item = &'a [C]>, row: &mut [C]) {
    let Some(first) = stretches.next() else { return };
    let mut sum = first.to_vec();
    for part in stretches {
        sum.iter_mut().zip(part).for_each(|(sum, &v)| *sum = *sum + v);
    }
    for (c, row) in row.chunks_exact_mut(taps).enumerate() {
        row.iter_mut().zip(sum[c..].iter().step_by(ld)).for_each(|(to, &v)| *to = v);
    }
}
