//! Products with more columns than rows, in blocks of columns that are tasks: all rows are packed before, and each task
//! packs its own columns, a part of the inner dimension at a time.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::{LONG, PANELS, Product};
use crate::epilogue::{Target, output_parts};
use crate::gemm::workspace;
use crate::operand::BLOCK;
use crate::planes::{Work, apart, halves_of};
use crate::row_sums;
use crate::simd::amx::{self, DEEP, SIDE, TileBlock};
use crate::tasks::Tasks as _;
use crate::tile::{Row, Segment};
use binade_tensor::Result;

/// Rows per block.
const STRIP: usize = 64;

impl Product<'_> {
    /// A product with more columns than rows, in blocks of columns, each of which packs its own; all read the rows,
    /// packed before and added up if there is room for their sums.
    pub(super) fn wide(&self, work: &Work<'_>, target: Target<'_, f32>, sums: &mut [f64]) -> Result<()> {
        let (&Product { m, k, n, .. }, Target { epilogue, dtype, out, pre }) = (self, target);
        // How the work is split does not change bits: a result's sum over the inner dimension is the same in any block.
        let columns = n.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(2 * SIDE).min(3 * PANELS * SIDE);
        let deep = self.padded().div_ceil(self.padded().div_ceil(LONG)).next_multiple_of(DEEP);
        let lda = apart(deep);
        // [part of the inner dimension][block of rows][plane][row][place]
        let size = self.a.count * STRIP * lda;
        let blocks = m.div_ceil(STRIP);
        let len = self.padded().div_ceil(deep) * blocks * size;
        let mut left = work.halves(len)?;
        // [part][row]
        let mut sums_of_parts = vec![0.0; len / (blocks * size) * sums.len()];
        let mut pieces: Vec<&mut [f64]> = sums_of_parts.chunks_mut(m).flat_map(|part| part.chunks_mut(STRIP)).collect();
        pieces.resize_with(len / size, Default::default);
        left.as_mut_slice::<u16>()[..len].par_chunks_mut(size).zip(pieces).enumerate().each(|(i, (to, sums))| {
            let (from, first) = (i / blocks * deep, i % blocks * STRIP);
            let (rows, deep) = ([first, STRIP.min(m - first)], [from, deep.min(k - from)]);
            if sums.is_empty() {
                self.a.left(work, rows, deep, lda, STRIP * lda, to);
            } else {
                self.a.left_turned(work, rows, deep, lda, STRIP * lda, to, sums);
            }
        });
        if !work.is_exact() {
            return Ok(());
        }
        row_sums::total(&sums_of_parts, sums);
        let left = halves_of(&left);
        let len = n.div_ceil(columns) * m * columns;
        let mut acc = workspace::<f32>(work.cx.pool, len)?;
        let acc = &mut acc.as_mut_slice::<f32>()[..len];
        acc.par_chunks_mut(m * columns).enumerate().try_each(|(i, acc)| {
            let (first, count) = (i * columns, columns.min(n - i * columns));
            let panel = self.b.count * deep * SIDE;
            let mut packed = work.halves(count.div_ceil(SIDE) * panel)?;
            let packed = &mut packed.as_mut_slice::<u16>()[..count.div_ceil(SIDE) * panel];
            for (part, left) in left.chunks(blocks * size).enumerate() {
                let from = part * deep;
                for (j, panels) in packed.chunks_mut(PANELS * panel).enumerate() {
                    let at = j * PANELS * SIDE;
                    let inner = [from, deep.min(k - from), deep];
                    self.b.right(work, inner, [first + at, (PANELS * SIDE).min(count - at)], panels);
                }
                if !work.is_exact() {
                    return Ok(());
                }
                for (block, left) in left.chunks(size).enumerate() {
                    let rows = block * STRIP..m.min((block + 1) * STRIP);
                    let rows: SmallVec<[Row; STRIP]> =
                        rows.enumerate().map(|(i, row)| Row { a: i * lda, acc: row * columns }).collect();
                    let block = TileBlock {
                        a: left,
                        a_planes: (self.a.count, STRIP * lda),
                        rows: &rows,
                        b: packed,
                        b_planes: (self.b.count, deep * SIDE),
                        b_pair: 2 * SIDE,
                        panel,
                        columns: count,
                        segments: &[Segment { a: 0, b: 0, len: deep.min(k - from).next_multiple_of(DEEP) }],
                        acc,
                        add: part > 0,
                    };
                    amx::run(work.cx.isa, block);
                }
            }
            Ok::<(), binade_tensor::Error>(())
        })?;
        let acc = &*acc;
        output_parts(out, pre, n * dtype.size())
            .into_par_iter()
            .with_min_len((4 * BLOCK).div_ceil(n))
            .enumerate()
            .each(|(i, (out, pre))| {
                for first in (0..n).step_by(columns) {
                    let count = columns.min(n - first);
                    let mut row: SmallVec<[f32; 3 * PANELS * SIDE]> =
                        SmallVec::from_slice(&acc[(first / columns * m + i) * columns..][..count]);
                    epilogue.rows(&mut row, count, first, count, n, out, pre, dtype);
                }
            });
        Ok(())
    }
}
