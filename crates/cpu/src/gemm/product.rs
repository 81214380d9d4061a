//! One product, and what all ways to compute it share: strips of the left operand, widened a chain of places at a time,
//! are multiplied with packed columns of the right one, and added to accumulators.

use smallvec::SmallVec;

use super::operand::Matrix;
use super::{DEPTH, ROWS};
use crate::elementwise::activate;
use crate::operand::Compute;
use crate::simd::Isa;
use crate::tile::{self, Block, Row, Segment};
use binade_tensor::op::Unary;

/// What one product needs.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) isa: Isa,
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    /// An activation of A, computed as it is widened.
    pub(super) left: Option<Unary>,
}

impl Product {
    /// Numbers in a strip of `rows` rows of A, and how its rows lie: `(distance, step of the inner dimension)`.
    pub(super) fn strip(&self, a: &Matrix<'_>, rows: usize) -> (usize, [usize; 2]) {
        // Odd multiples of a cache line: rows must not meet in the same sets.
        if a.is_column_major() {
            let step = rows.next_multiple_of(16) + 16;
            (DEPTH.min(self.k) * step, [1, step])
        } else {
            (rows * (DEPTH + 16), [DEPTH + 16, 1])
        }
    }

    /// Widens `rows` rows of A from `first` on, at most [`DEPTH`] places from `from` on.
    pub(super) fn widen<C: Compute>(&self, a: &Matrix<'_>, first: usize, rows: usize, from: usize, strip: &mut [C]) {
        let (isa, deep) = (self.isa, DEPTH.min(self.k - from));
        let (_, [distance, step]) = self.strip(a, rows);
        let (matrix, at, extents, ld) = if distance == 1 {
            (a.transposed(), [from, first], [deep, rows], step)
        } else {
            (*a, [first, from], [rows, deep], distance)
        };
        matrix.part(isa, at, extents, strip, ld);
        let Some(act) = self.left else { return };
        let mut buffer = [C::zero(); DEPTH];
        for part in strip.chunks_mut(ld).take(extents[0]).flat_map(|row| row[..extents[1]].chunks_mut(DEPTH)) {
            let to = &mut buffer[..part.len()];
            activate(isa, act, part, to);
            part.copy_from_slice(to);
        }
    }

    /// `acc[i·ld + j] (+)= Σ strip[i, l]·b[l, j]` for a strip of A and the places from `from` on of packed columns of
    /// B.
    pub(super) fn add<C: Compute>(
        &self,
        strip: &[C],
        [distance, step]: [usize; 2],
        rows: usize,
        packed: &[C],
        from: usize,
        columns: usize,
        acc: &mut [C],
        ld: usize,
        add: bool,
    ) {
        let Product { isa, k, .. } = *self;
        let width = tile::width::<C>(isa);
        let places: SmallVec<[Row; ROWS]> = (0..rows).map(|i| Row { a: i * distance, acc: i * ld }).collect();
        C::dispatch(
            isa,
            Block {
                a: strip,
                a_step: step,
                rows: &places,
                b: packed,
                b_step: width,
                panel: width * k,
                columns,
                segments: &[Segment { a: 0, b: from * width, len: DEPTH.min(k - from) }],
                acc,
                add,
            },
        );
    }
}
