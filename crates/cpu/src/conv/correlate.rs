//! Correlations on register tiles: forward passes and gradients by the input.

use crate::kernel::Context;
use rayon::prelude::*;
use smallvec::SmallVec;

use super::geometry::{Correlation, FEW, Phase, Piece, RUN, SLAB, Tap};
use super::image::Source;
use super::in_chains;
use super::weight::Weight;
use crate::epilogue::{Target, output_parts};
use crate::few_outputs::{self, FewOutputs};
use crate::gemm::{DEPTH, elements_of, workspace};
use crate::operand::Compute;
use crate::operand::elements_mut;
use crate::simd::Isa;
use crate::tasks::Tasks as _;
use crate::tile::{self, Block, Row, Segment};
use binade_tensor::Result;

/// Output pixels that are finished together where a task has some of their channels.
const TOGETHER: usize = 16;

/// A correlation of an image with a weight.
pub struct Correlate<'a> {
    pub cx: Context<'a>,
    pub g: &'a Correlation,
    pub x: &'a Source<'a>,
    pub weight: Weight<'a>,
}

impl Correlate<'_> {
    /// Block by block of pixels or of output channels, whichever reads less.
    pub fn run<C: Compute>(&self, to: Target<'_, C>) -> Result<()> {
        let Correlate { cx: Context { isa, .. }, g, x, ref weight } = *self;
        let (slab, blocks) = (g.slab_pixels(&g.pieces(0, x.n * g.h)) * x.c, (x.n * g.h).div_ceil(g.rows(x.n, x.c)));
        // Every panel of the weight reads all images, every block of pixels the whole weight.
        let less = slab <= 4 * SLAB && slab < blocks * weight.panel_len::<C>(isa);
        if less && weight.groups == 1 && weight.panels::<C>(isa) >= 8 && !g.copies(weight.inner(), 1) {
            self.by_columns(to)
        } else {
            self.by_pixels(to)
        }
    }

    /// The inner dimension of each phase, in chains: the taps, or the whole patches that were copied.
    fn chains<C: Compute>(&self, copies: bool) -> Vec<Vec<Vec<Segment>>> {
        let Correlate { g, ref weight, .. } = *self;
        let (width, inner, c) = (tile::width::<C>(self.cx.isa), weight.inner(), self.x.c);
        let of_phase = |phase: &Phase| {
            if copies {
                return in_chains(std::iter::once(Segment { a: 0, b: 0, len: inner * weight.taps }), 1, width);
            }
            let tap = |tap: &Tap| Segment { a: g.tap(tap) * c, b: tap.index * inner * width, len: inner };
            in_chains(phase.taps.iter().map(tap), 1, width)
        };
        g.phases.iter().map(of_phase).collect()
    }

    /// Where there are few pixels and many channels: each task packs a panel of the weight and multiplies it with all
    /// images.
    fn by_columns<C: Compute>(&self, to: Target<'_, C>) -> Result<()> {
        let Correlate { cx, g, x, ref weight } = *self;
        let Context { isa, pool } = cx;
        let Target { epilogue, dtype, out, pre } = to;
        let (width, o, pixels) = (tile::width::<C>(isa), weight.columns(), x.n * g.h * g.w);
        let pieces = g.pieces(0, x.n * g.h);
        let each = g.slab_pixels(&pieces[..1]) * x.c;
        let mut slab = workspace::<C>(pool, x.n * each)?;
        let slab = &mut slab.as_mut_slice::<C>()[..x.n * each];
        slab.par_chunks_mut(each).zip(&pieces[..]).each(|(slab, piece)| {
            g.fill(isa, x, &[Piece { slab: 0, ..*piece }], (0, x.c), x.c, slab);
        });
        let chains = self.chains::<C>(false);
        let rows: Vec<Vec<Row>> = (g.phases.iter())
            .map(|phase| {
                let mut rows = Vec::new();
                g.pixels(&pieces, phase.residue, |from, pixel| rows.push(Row { a: from * x.c, acc: pixel * width }));
                rows
            })
            .collect();
        let len = weight.panel_len::<C>(isa);
        let mut sums = workspace::<C>(pool, weight.panels::<C>(isa) * pixels * width)?;
        let sums = &mut sums.as_mut_slice::<C>()[..weight.panels::<C>(isa) * pixels * width];
        sums.par_chunks_mut(pixels * width).enumerate().try_each(|(i, acc)| {
            let mut packed = workspace::<C>(pool, len)?;
            let packed = &mut packed.as_mut_slice::<C>()[..len];
            weight.panel(isa, i, packed);
            let columns = width.min(o - i * width);
            rows.iter()
                .zip(&chains)
                .for_each(|(rows, chains)| tiles(isa, slab, rows, packed, len, columns, chains, acc));
            Ok::<(), binade_tensor::Error>(())
        })?;
        let sums = &*sums;
        output_parts(out, pre, TOGETHER * o * dtype.size()).into_par_iter().enumerate().try_each(|(i, (out, pre))| {
            let mut rows = workspace::<C>(pool, TOGETHER * o)?;
            let rows = &mut rows.as_mut_slice::<C>()[..out.len() / dtype.size()];
            for (j, row) in rows.chunks_exact_mut(o).enumerate() {
                for (panel, to) in row.chunks_mut(width).enumerate() {
                    to.copy_from_slice(&sums[(panel * pixels + i * TOGETHER + j) * width..][..to.len()]);
                }
            }
            epilogue.rows(rows, o, 0, o, o, out, pre, dtype);
            Ok(())
        })
    }

    /// Each task multiplies the slab of a block of pixels with the whole weight.
    fn by_pixels<C: Compute>(&self, to: Target<'_, C>) -> Result<()> {
        let Correlate { cx, g, x, ref weight } = *self;
        let Context { isa, pool } = cx;
        let Target { epilogue, dtype, out, pre } = to;
        let (width, inner, columns) = (tile::width::<C>(isa), weight.inner(), weight.columns());
        let Weight { groups, taps, .. } = *weight;
        let packed = weight.packed::<C>(cx)?;
        let packed = elements_of::<C>(&packed);
        // Lanes sum chains of at most DEPTH products too.
        let few =
            columns <= few_outputs::COLUMNS && groups == 1 && inner >= FEW && inner * taps <= DEPTH * C::lanes(isa);
        let padded = if few { columns } else { columns.next_multiple_of(width) };
        let (o, copies) = (groups * columns, g.copies(inner, groups));
        let patch = (inner * taps).next_multiple_of(16);
        let per_block = g.rows(x.n, x.c);
        // Rows [column][tap][c] of the one panel there is.
        let mut turned = vec![C::zero(); if few { few_outputs::COLUMNS * inner * taps } else { 0 }];
        for (j, row) in turned.chunks_exact_mut((inner * taps).max(1)).enumerate() {
            row.iter_mut().zip(packed[j..].iter().step_by(width)).for_each(|(to, &v)| *to = v);
        }
        let chains = self.chains::<C>(copies);
        let parts = output_parts(out, pre, per_block * g.w * o * dtype.size());
        parts.into_par_iter().enumerate().try_each(|(i, (out, pre))| {
            let pixels = out.len() / (o * dtype.size());
            let pieces = g.pieces(i * per_block, pixels / g.w);
            let mut slab = workspace::<C>(pool, g.slab_pixels(&pieces) * x.c + RUN)?;
            let mut slab = slab.as_mut_slice::<C>();
            g.fill(isa, x, &pieces, (0, x.c), x.c, slab);
            let mut copied;
            if copies {
                copied = workspace::<C>(pool, pixels * patch + RUN)?;
                g.patches(&pieces, slab, x.c, patch, copied.as_mut_slice::<C>());
                slab = copied.as_mut_slice::<C>();
            }
            let ld = groups * padded;
            // Where nothing is left to do after the sums they stand where they belong.
            let direct = epilogue.is_plain() && dtype == C::DTYPE && ld == o;
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
                    if few {
                        let segments: SmallVec<[Segment; 9]> =
                            chains.iter().flatten().map(|s| Segment { b: s.b / width, ..*s }).collect();
                        let (w, ld) = (&turned[..], inner * taps);
                        C::dispatch(isa, FewOutputs { a: slab, rows: &rows, w, ld, segments: &segments, columns, acc });
                        continue;
                    }
                    let b = &packed[group * padded * inner * taps..];
                    tiles(isa, slab, &rows, b, width * inner * taps, columns, chains, acc);
                }
            }
            if groups > 1 && padded != columns {
                for row in acc.chunks_mut(ld) {
                    (1..groups)
                        .for_each(|group| row.copy_within(group * padded..group * padded + columns, group * columns));
                }
            }
            if !direct {
                epilogue.rows(&mut scratch.as_mut_slice::<C>()[..pixels * ld], ld, 0, o, o, out, pre, dtype);
            }
            Ok(())
        })
    }
}

/// Sums of chains over some pixels, for panels `panel` apart; nothing is zero.
fn tiles<C: Compute>(
    isa: Isa,
    a: &[C],
    rows: &[Row],
    b: &[C],
    panel: usize,
    columns: usize,
    chains: &[Vec<Segment>],
    acc: &mut [C],
) {
    let b_step = tile::width::<C>(isa);
    if chains.is_empty() {
        let padded = columns.next_multiple_of(b_step);
        rows.iter().for_each(|r| acc[r.acc..r.acc + padded].fill(C::zero()));
    }
    for (j, segments) in chains.iter().enumerate() {
        C::dispatch(isa, Block { a, a_step: 1, rows, b, b_step, panel, columns, segments, acc, add: j > 0 });
    }
}
