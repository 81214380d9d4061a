//! Products with few rows, in blocks of columns that are tasks. Each packs its own columns, or, of a product with very
//! few rows, reads them as they are.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::operand::{Matrix, Right};
use super::product::Product;
use super::scratch::workspace;
use super::{COLUMNS, DEPTH, SKINNY};
use crate::epilogue::{Target, output_parts};
use crate::operand::BLOCK;
use crate::operand::Compute;
use crate::row_sums;
use crate::tasks::Tasks as _;
use crate::tile;
use binade_tensor::Result;
use binade_tensor::memory::Pool;

impl Product {
    /// All of a product with few rows, in blocks of columns.
    pub(super) fn wide<C: Compute>(
        &self,
        pool: &Pool,
        a: &Matrix<'_>,
        b: &Right<'_>,
        to: Target<'_, C>,
        sums_of_a: &mut [f64],
    ) -> Result<()> {
        let Product { isa, m, k, n, .. } = *self;
        let Target { epilogue, dtype, out, pre } = to;
        let width = tile::width::<C>(isa);
        let chunk =
            n.div_ceil(8).next_multiple_of(width).clamp(2 * width, if m > SKINNY { COLUMNS / 2 } else { COLUMNS });
        let mut acc = workspace::<C>(pool, n.div_ceil(chunk) * m * chunk)?;
        let acc = &mut acc.as_mut_slice::<C>()[..n.div_ceil(chunk) * m * chunk];
        let mut x = Vec::new();
        if m <= SKINNY {
            x = vec![C::zero(); m * k];
            x.chunks_mut(k.max(1)).enumerate().for_each(|(i, row)| a.row(isa, i, 0, row));
        }
        let sums_of_a = row_sums::pieces(sums_of_a, m, n.div_ceil(chunk));
        acc.par_chunks_mut(m * chunk).zip(sums_of_a).enumerate().try_each(|(i, (acc, sums_of_a))| {
            let (first, columns) = (i * chunk, chunk.min(n - i * chunk));
            if m > SKINNY {
                self.columns(pool, a, b, first, columns, acc, chunk, sums_of_a)
            } else if b.matrix.is_column_major() {
                self.dots(&b.matrix, &x, first, columns, acc, chunk);
                Ok(())
            } else {
                self.sweep(pool, &b.matrix, &x, first, columns, acc, chunk)
            }
        })?;
        let acc = &*acc;
        output_parts(out, pre, n * dtype.size())
            .into_par_iter()
            .with_min_len((4 * BLOCK).div_ceil(n))
            .enumerate()
            .each(|(i, (out, pre))| {
                for first in (0..n).step_by(chunk) {
                    let columns = chunk.min(n - first);
                    let mut row: SmallVec<[C; COLUMNS]> =
                        SmallVec::from_slice(&acc[(first / chunk * m + i) * chunk..][..columns]);
                    epilogue.rows(&mut row, columns, first, columns, n, out, pre, dtype);
                }
            });
        Ok(())
    }

    /// `columns` columns of all rows, packing as much of both operands as fits the second-level cache at a time. Adds
    /// up the rows of A if there is room for the sums.
    fn columns<C: Compute>(
        &self,
        pool: &Pool,
        a: &Matrix<'_>,
        b: &Right<'_>,
        first: usize,
        columns: usize,
        acc: &mut [C],
        ld: usize,
        sums_of_a: &mut [f64],
    ) -> Result<()> {
        let Product { isa, m, k, .. } = *self;
        let width = tile::width::<C>(isa);
        let (strip, lie) = self.strip(a, m);
        let mut packed = workspace::<C>(pool, columns.next_multiple_of(width) * DEPTH.min(k) + strip)?;
        let (left, packed) = packed.as_mut_slice::<C>().split_at_mut(strip);
        if k == 0 {
            acc.fill(C::zero());
        }
        for from in (0..k).step_by(DEPTH) {
            let deep = DEPTH.min(k - from);
            let packed = &mut packed[..columns.next_multiple_of(width) * deep];
            let strip = b.below(from);
            for (p, panel) in packed.chunks_mut(width * deep).enumerate() {
                strip.pack(isa, deep, first + p * width, width.min(columns - p * width), panel);
            }
            self.widen(a, 0, m, from, left);
            row_sums::add(isa, left, lie[1], deep, sums_of_a);
            Product { k: deep, ..*self }.add(left, lie, m, packed, 0, columns, acc, ld, from > 0);
        }
        Ok(())
    }
}
