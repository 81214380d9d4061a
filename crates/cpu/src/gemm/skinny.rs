//! Products with very few rows, which are bound by memory: the right operand is read once, and not packed. Its columns
//! or its rows lie densely; both kernels add in the same order.

use smallvec::SmallVec;

use super::SKINNY;
use super::operand::Matrix;
use super::product::Product;
use super::scratch::workspace;
use crate::operand::{Compute, elements};
use crate::tile::{self, Block, Row, Segment};
use binade_tensor::memory::Pool;
use binade_tensor::{DType, Result, bf16, f16};

/// Products per chain of a product with few rows, in as many interleaved sums as a vector has lanes.
const LONG: usize = 1024;

impl Product {
    /// Few rows of A against dense columns of B: dot products in which each element of B is read once, from where it
    /// lies if nothing is left to round.
    pub(super) fn dots<C: Compute>(
        &self,
        b: &Matrix<'_>,
        x: &[C],
        first: usize,
        columns: usize,
        acc: &mut [C],
        ld: usize,
    ) {
        let (isa, b) = (self.isa, b.transposed());
        let at = |j: usize, l: usize| b.offset + (first + j) * b.strides[0] + l;
        let mut buffer = [C::zero(); 4 * LONG];
        let (bytes, distance) = (b.values.bytes, b.strides[0]);
        self.groups(columns, acc, ld, |[j, group], [from, deep], [i, rows]| {
            let x = &x[i * self.k + from..];
            let stretch = at(j, from)..at(j + group - 1, from) + deep;
            match b.values.dtype {
                DType::F32 | DType::F64 if b.values.is_written() && b.values.dtype == C::DTYPE => {
                    tile::dots(isa, x, self.k, rows, &elements::<C>(bytes)[stretch], distance, deep)
                }
                DType::F16 if b.values.is_written() => {
                    tile::dots(isa, x, self.k, rows, &elements::<f16>(bytes)[stretch], distance, deep)
                }
                DType::BF16 if b.values.is_written() => {
                    tile::dots(isa, x, self.k, rows, &elements::<bf16>(bytes)[stretch], distance, deep)
                }
                DType::I8 => tile::dots(isa, x, self.k, rows, &elements::<i8>(bytes)[stretch], distance, deep),
                DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::I64 | DType::U32 | DType::Bool => {
                    if i == 0 {
                        b.part(isa, [first + j, from], [group, deep], &mut buffer, LONG);
                    }
                    tile::dots(isa, x, self.k, rows, &buffer[..(group - 1) * LONG + deep], LONG, deep)
                }
            }
        });
    }

    /// Adds up what `dots` gives. Its arguments are at most four columns `[first, columns]`, a stretch of the inner
    /// dimension `[from, deep]`, and at most four rows `[first, rows]`.
    fn groups<C: Compute>(
        &self,
        columns: usize,
        acc: &mut [C],
        ld: usize,
        mut dots: impl FnMut([usize; 2], [usize; 2], [usize; 2]) -> [[C; 4]; 4],
    ) {
        let Product { m, k, .. } = *self;
        acc.fill(C::zero());
        for j in (0..columns).step_by(4) {
            let group = 4.min(columns - j);
            for from in (0..k).step_by(LONG) {
                let deep = LONG.min(k - from);
                for i in (0..m).step_by(4) {
                    let rows = 4.min(m - i);
                    let sums = dots([j, group], [from, deep], [i, rows]);
                    for (r, sums) in sums.iter().enumerate().take(rows) {
                        for (to, &sum) in acc[(i + r) * ld + j..][..group].iter_mut().zip(sums) {
                            *to += sum;
                        }
                    }
                }
            }
        }
    }

    /// Few rows of A against dense rows of B, widened in a strip: the sums of [`Product::dots`], bit for bit.
    pub(super) fn sweep<C: Compute>(
        &self,
        pool: &Pool,
        b: &Matrix<'_>,
        x: &[C],
        first: usize,
        columns: usize,
        acc: &mut [C],
        ld: usize,
    ) -> Result<()> {
        const STRIP: usize = 64;
        let Product { isa, m, k, .. } = *self;
        let width = tile::width::<C>(isa);
        let ldb = STRIP.next_multiple_of(width) + 16;
        let parts = tile::sums::<C>(isa);
        let mut strip = workspace::<C>(pool, LONG * ldb + parts * m * STRIP)?;
        let (strip, sums) = strip.as_mut_slice::<C>().split_at_mut(LONG * ldb);
        acc.fill(C::zero());
        for at in (0..columns).step_by(STRIP) {
            let columns = STRIP.min(columns - at);
            for from in (0..k).step_by(LONG) {
                let deep = LONG.min(k - from);
                b.part(isa, [from, first + at], [deep, columns], strip, ldb);
                strip.chunks_mut(ldb).take(deep).for_each(|row| row[columns..].fill(C::zero()));
                for residue in 0..parts {
                    let rows: SmallVec<[Row; SKINNY]> =
                        (0..m).map(|i| Row { a: i * k + from, acc: (residue * m + i) * STRIP }).collect();
                    let len = (deep + parts - 1 - residue) / parts;
                    let segments = &[Segment { a: residue, b: residue * ldb, len }];
                    C::dispatch(
                        isa,
                        Block {
                            a: x,
                            a_step: parts,
                            rows: &rows,
                            b: strip,
                            b_step: parts * ldb,
                            panel: width,
                            columns,
                            segments,
                            acc: sums,
                            add: false,
                        },
                    );
                }
                for half in [8, 4, 2, 1].into_iter().filter(|half| 2 * half <= parts) {
                    let (low, high) = sums.split_at_mut(half * m * STRIP);
                    low.iter_mut().zip(high).for_each(|(a, &mut b)| *a += b);
                }
                for i in 0..m {
                    for (to, &sum) in acc[i * ld + at..][..columns].iter_mut().zip(&sums[i * STRIP..]) {
                        *to += sum;
                    }
                }
            }
        }
        Ok(())
    }
}
