//! Deep products: a long inner dimension that is the slow one of both operands in memory, as for the gradients of
//! weights. Tasks have blocks of the result and parts of the inner dimension; the parts, which the extents decide, are
//! added in order at the end.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::{PANELS, Product, ROWS};
use crate::epilogue::{Target, output_parts};
use crate::gemm::workspace;
use crate::operand::BLOCK;
use crate::planes::{Work, apart};
use crate::row_sums;
use crate::simd::amx::{self, Ahead, DEEP, SIDE, TileBlock};
use crate::tasks::Tasks as _;
use crate::tile::{Row, Segment};
use binade_tensor::Result;

/// Bytes of results per block, and 16-bit numbers per row and stretch of its operands: together they stay in the
/// second-level cache.
const RESULTS: usize = 640 * 1024;
const STRETCH: usize = 288;
/// Inner places per part at least, and parts at most.
const PART: usize = 1024;
const PARTS: usize = 4;

impl Product<'_> {
    /// Whether both operands have the inner dimension as the slow one in memory, and it is long: as for the gradients
    /// of weights. Wide results are not served: their tiles lie in too many pages.
    pub(super) fn is_deep(&self) -> bool {
        let &Product { m, k, n, a, b } = self;
        a.matrix.strides[0] == 1 && b.matrix.strides[1] == 1 && m >= n && k >= PART && k >= 2 * m
    }

    /// A deep product: operands are read once, a stretch of the inner dimension at a time, and added to results that
    /// stay in the second-level cache. Adds up the rows of the left one if there is room for the sums.
    pub(super) fn deep(&self, work: &Work<'_>, target: Target<'_, f32>, sums: &mut [f64]) -> Result<()> {
        let (&Product { m, k, n, a, b }, Target { epilogue, dtype, out, pre }) = (self, target);
        let half = |x: usize| (x / 2).next_multiple_of(2 * SIDE);
        let halve = |[r, c]: [usize; 2]| if r >= c { [half(r), c] } else { [r, half(c)] };
        let blocks = |[r, c]: [usize; 2]| m.div_ceil(r) * n.div_ceil(c);
        let mut size = [m, n.next_multiple_of(SIDE)];
        while size_of::<f32>() * size[0] * size[1] > RESULTS {
            size = halve(size);
        }
        // The parts, whose sums are added at the end, depend on the extents alone.
        let part = k.div_ceil(PARTS.div_ceil(blocks(size)).min(k / PART)).next_multiple_of(DEEP);
        let parts = k.div_ceil(part);
        // The blocks need not: they do not change bits.
        while parts * blocks(size) < rayon::current_num_threads() && size[0].max(size[1]) > 4 * SIDE {
            size = halve(size);
        }
        let ([rows, columns], across) = (size, n.div_ceil(size[1]));
        let stretch = (STRETCH / a.count.max(b.count) / DEEP * DEEP).min(part);
        let lda = apart(stretch);
        // [part][block][row][column]
        let len = parts * blocks(size) * rows * columns;
        let mut acc = workspace::<f32>(work.cx.pool, len)?;
        let acc = &mut acc.as_mut_slice::<f32>()[..len];
        // [part][row], of which the first block in a row of blocks has its share.
        let mut sums_of_parts = vec![0.0; parts * sums.len()];
        let mut pieces: Vec<&mut [f64]> = Vec::new();
        for part in sums_of_parts.chunks_mut(m) {
            for piece in part.chunks_mut(rows) {
                pieces.push(piece);
                pieces.resize_with(pieces.len() + across - 1, Default::default);
            }
        }
        pieces.resize_with(parts * blocks(size), Default::default);
        acc.par_chunks_mut(rows * columns).zip(pieces).enumerate().try_each(|(i, (acc, sums))| {
            let (start, block) = (i / blocks(size) * part, i % blocks(size));
            let (first, left) = (block / across * rows, block % across * columns);
            let (rows, wide) = (rows.min(m - first), columns.min(n - left));
            let distance = rows.next_multiple_of(SIDE) * lda;
            let panel = b.count * stretch * SIDE;
            let mut slab = work.halves(a.count * distance)?;
            let slab = &mut slab.as_mut_slice::<u16>()[..a.count * distance];
            let mut packed = work.halves(wide.div_ceil(SIDE) * panel)?;
            let packed = &mut packed.as_mut_slice::<u16>()[..wide.div_ceil(SIDE) * panel];
            let places: SmallVec<[Row; ROWS]> = (0..rows).map(|i| Row { a: i * lda, acc: i * columns }).collect();
            let end = k.min(start + part);
            for from in (start..end).step_by(stretch) {
                let len = stretch.min(end - from);
                for i in (0..rows).step_by(ROWS) {
                    let count = ROWS.min(rows - i);
                    let sums = if sums.is_empty() { &mut [][..] } else { &mut sums[i..i + count] };
                    a.left_turned(work, [first + i, count], [from, len], lda, distance, &mut slab[i * lda..], sums);
                }
                for (j, panels) in packed.chunks_mut(PANELS * panel).enumerate() {
                    let at = j * PANELS * SIDE;
                    b.right(work, [from, len, stretch], [left + at, (PANELS * SIDE).min(wide - at)], panels);
                }
                if !work.is_exact() {
                    return Ok(());
                }
                let mut ahead = Ahead::nothing();
                let next = [from + len, stretch.min(end - from - len)];
                a.ask_later(&mut ahead, [first, rows], next);
                b.ask_later(&mut ahead, next, [left, wide]);
                let block = TileBlock {
                    a: slab,
                    a_planes: (a.count, distance),
                    rows: &places,
                    b: packed,
                    b_planes: (b.count, stretch * SIDE),
                    b_pair: 2 * SIDE,
                    panel,
                    columns: wide,
                    segments: &[Segment { a: 0, b: 0, len: len.next_multiple_of(DEEP) }],
                    acc,
                    add: from > start,
                };
                amx::run_asking(work.cx.isa, block, &mut ahead);
            }
            Ok::<(), binade_tensor::Error>(())
        })?;
        if !work.is_exact() {
            return Ok(());
        }
        row_sums::total(&sums_of_parts, sums);
        let acc = &*acc;
        output_parts(out, pre, n * dtype.size())
            .into_par_iter()
            .with_min_len((4 * BLOCK).div_ceil(n))
            .enumerate()
            .each(|(i, (out, pre))| {
                let mut sums = [0.0; BLOCK];
                for at in (0..n).step_by(columns) {
                    let block = i / rows * across + at / columns;
                    let row =
                        |part: usize| &acc[((part * blocks(size) + block) * rows + i % rows) * columns..][..columns];
                    for first in (0..columns.min(n - at)).step_by(BLOCK) {
                        let count = BLOCK.min(columns.min(n - at) - first);
                        let sums = &mut sums[..count];
                        sums.copy_from_slice(&row(0)[first..first + count]);
                        for part in 1..parts {
                            sums.iter_mut().zip(&row(part)[first..]).for_each(|(sum, &x)| *sum += x);
                        }
                        epilogue.rows(sums, count, at + first, count, n, out, pre, dtype);
                    }
                }
            });
        Ok(())
    }
}
