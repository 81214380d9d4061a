//! Products with many rows, in blocks of rows that are tasks: the right operand is packed before, and each task packs
//! its own rows, a slab of inner places at a time. What comes next, of rows and of results, is asked for while tiles
//! multiply.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::{Product, ROWS};
use crate::epilogue::{Target, output_parts};
use crate::gemm::workspace;
use crate::operand::elements_mut;
use crate::planes::{Work, apart};
use crate::simd::amx::{self, Ahead, DEEP, SIDE, TileBlock};
use crate::tasks::Tasks as _;
use crate::tile::{Row, Segment};
use binade_tensor::{DType, Result};

/// Rows per task at most where the packed right operand has no more bytes than stay in the second-level cache, with the
/// results.
const FEW_ROWS: usize = 96;
const NEAR: usize = 1024 * 1024;
/// Bytes of a left operand's slab, about: with the panels it meets it stays in the second-level cache.
const SLAB: usize = 768 * 1024;
/// Bytes of results of which few lines are found in caches: they are asked for ahead.
const FAR: usize = 8 * 1024 * 1024;
/// Columns per pass over the rows of a task, and at most where each pass packs the rows anew.
const COLUMNS: usize = 512;
const MOST_COLUMNS: usize = 4096;

impl Product<'_> {
    /// A product with many rows, in blocks of rows.
    pub(super) fn tall(&self, work: &Work<'_>, packed: &[u16], target: Target<'_, f32>, parallel: bool) -> Result<()> {
        let (&Product { m, k, n, .. }, Target { epilogue, dtype, out, pre }) = (self, target);
        // How the work is split does not change bits: a result's sum over the inner dimension is the same in any block.
        // A right operand that does not stay in the second-level cache is read once a block: larger ones then.
        let most = if size_of::<u16>() * self.panel() * n.div_ceil(SIDE) <= NEAR { FEW_ROWS } else { ROWS };
        let block = m.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(2 * SIDE).min(most);
        // As many inner places at a time as a slab has room for; all of them leave the columns to be taken a few at a
        // time.
        let parts = self.padded().div_ceil((SLAB / (2 * self.a.count * block) / DEEP).max(1) * DEEP);
        let deep = self.padded().div_ceil(parts).next_multiple_of(DEEP);
        let pass = n.min(if parts == 1 { COLUMNS } else { MOST_COLUMNS });
        // Rows of a slab must not meet in the same sets of the cache.
        let lda = apart(deep);
        let task = |(i, (out, pre)): (usize, (&mut [u8], &mut [u8]))| {
            let (first, rows) = (i * block, out.len() / (n * dtype.size()));
            let distance = rows.next_multiple_of(SIDE) * lda;
            let mut slab = work.halves(self.a.count * distance)?;
            let slab = &mut slab.as_mut_slice::<u16>()[..self.a.count * distance];
            // Where nothing is left to do after the sums they stand where they belong.
            let direct = epilogue.is_plain() && dtype == DType::F32 && n.is_multiple_of(SIDE);
            let ld = if direct { n } else { pass.next_multiple_of(SIDE) };
            let mut acc = workspace::<f32>(work.cx.pool, if direct { 0 } else { rows * ld })?;
            let places: SmallVec<[Row; ROWS]> = (0..rows).map(|i| Row { a: i * lda, acc: i * ld }).collect();
            let passes = n.div_ceil(pass);
            for at in (0..n).step_by(pass) {
                let columns = pass.min(n - at);
                for from in (0..k).step_by(deep) {
                    let len = deep.min(k - from);
                    let mut ahead = Ahead::nothing();
                    let (size, last) = (dtype.size(), from + len == k);
                    let mut ask_results = |results: &[u8], first: usize, columns: usize| {
                        ahead.push(results, first * size, [rows, n * size], columns * size, true);
                    };
                    // Narrower results are stored row by row, which the processor foresees.
                    let ask = last && dtype == DType::F32 && m * n * dtype.size() >= FAR;
                    if ask && direct {
                        // Those of the panels that come next.
                        for panel in (at + 2 * SIDE..n.min(at + columns + 1)).step_by(2 * SIDE) {
                            ask_results(out, panel, (2 * SIDE).min(n - panel));
                        }
                    } else if ask {
                        ask_results(out, at, columns);
                        ask_results(pre, at, columns);
                    }
                    // The rows that come next, of which each pass asks for its share.
                    if parts > 1 && !last {
                        self.a.ask_later(&mut ahead, [first, rows], [from + len, deep.min(k - from - len)]);
                    } else if first + rows < m {
                        let next = block.min(m - first - rows);
                        let share = if parts > 1 {
                            0..next
                        } else {
                            next * (at / pass) / passes..next * (at / pass + 1) / passes
                        };
                        self.a.ask_later(&mut ahead, [first + rows + share.start, share.len()], [0, deep.min(k)]);
                    }
                    if at == 0 || parts > 1 {
                        self.a.left(work, [first, rows], [from, len], lda, distance, slab);
                        if !work.is_exact() {
                            return Ok(());
                        }
                    }
                    let block = TileBlock {
                        a: slab,
                        a_planes: (self.a.count, distance),
                        rows: &places,
                        b: &packed[at / SIDE * self.panel()..],
                        b_planes: (self.b.count, self.padded() * SIDE),
                        b_pair: 2 * SIDE,
                        panel: self.panel(),
                        columns,
                        segments: &[Segment { a: 0, b: from * SIDE, len: len.next_multiple_of(DEEP) }],
                        acc: if direct {
                            &mut elements_mut::<f32>(out)[at..]
                        } else {
                            &mut acc.as_mut_slice::<f32>()[..rows * ld]
                        },
                        add: from > 0,
                    };
                    amx::run_asking(work.cx.isa, block, &mut ahead);
                }
                if !direct {
                    epilogue.rows(&mut acc.as_mut_slice::<f32>()[..rows * ld], ld, at, columns, n, out, pre, dtype);
                }
            }
            Ok(())
        };
        let parts = output_parts(out, pre, block * n * dtype.size());
        if parallel {
            parts.into_par_iter().enumerate().try_each(task)
        } else {
            parts.into_iter().enumerate().try_for_each(task)
        }
    }
}
