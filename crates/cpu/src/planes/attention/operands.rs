//! A head's operands in planes, and the scratch of one head.

use super::super::{Work, halves_of, pair_up, planes_of};
use crate::attention::{AHEAD, KEYS};
use crate::gemm::workspace;
use crate::operand::Operand;
use crate::simd::amx::{self, DEEP, SIDE, TileBlock};
use crate::simd::planes::{self, Seen};
use crate::simd::prefetch;
use crate::tile::{self, Row, Segment};
use binade_tensor::Result;
use binade_tensor::memory::HostBuffer;

/// Planes of weights and their gradients.
pub(super) const WEIGHTS: usize = planes::MOST;

/// One head's matrix in planes of dense rows, padded to whole tiles.
pub(super) struct Matrix {
    pub(super) halves: HostBuffer,
    pub(super) planes: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) ld: usize,
}

impl Matrix {
    pub(super) fn distance(&self) -> usize {
        self.rows.next_multiple_of(DEEP) * self.ld
    }

    pub(super) fn read(
        work: &Work<'_>,
        which: usize,
        x: &Operand<'_>,
        head: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Matrix> {
        let planes = planes_of(x.dtype()).unwrap_or(1);
        let (ld, padded) = (columns.next_multiple_of(DEEP), rows.next_multiple_of(DEEP));
        let distance = padded * ld;
        let mut halves = work.halves(planes * distance)?;
        let to = &mut halves.as_mut_slice::<u16>()[..planes * distance];
        if ld > columns {
            to.fill(0);
        } else if padded > rows {
            to.chunks_exact_mut(distance).for_each(|plane| plane[rows * ld..].fill(0));
        }
        let (start, mut seen) = (head * rows * columns, Seen::nothing());
        if let Some((first, distance_of_rows)) = x.even_rows(start, rows, columns) {
            let values = x.values();
            let size = values.size();
            for i in 0..rows {
                let at = first + i * distance_of_rows;
                if i + AHEAD < rows {
                    prefetch::ask(values.bytes, (at + AHEAD * distance_of_rows) * size, columns * size);
                }
                work.read(values, at, 1, columns, distance, &mut to[i * ld..], &mut seen);
            }
        } else {
            for i in 0..rows {
                work.read_flat(x, start + i * columns, columns, distance, &mut to[i * ld..], &mut seen);
            }
        }
        work.note(which, &seen);
        Ok(Matrix { halves, planes, rows, columns, ld })
    }

    /// As the right operand whose columns are the rows: panels `[plane][columns / 2][16][2]`.
    pub(super) fn turned(&self, work: &Work<'_>) -> Result<Panels> {
        let mut panels = Panels {
            planes: self.planes,
            deep: self.ld,
            halves: work.halves(self.rows.div_ceil(SIDE) * self.planes * self.ld * SIDE)?,
        };
        let (from, panel) = (halves_of(&self.halves), panels.panel());
        for (p, to) in
            panels.halves.as_mut_slice::<u16>().chunks_exact_mut(panel).enumerate().take(self.rows.div_ceil(SIDE))
        {
            for (plane, to) in to.chunks_exact_mut(self.ld * SIDE).enumerate() {
                let rows = &from[plane * self.distance() + p * SIDE * self.ld..];
                pair_up(work.cx.isa, rows, self.ld, SIDE.min(self.rows - p * SIDE), self.ld, to, 2 * SIDE);
            }
        }
        Ok(panels)
    }

    /// As the right operand whose inner dimension is the rows: panels `[plane][rows / 2][16][2]`.
    pub(super) fn upright(&self, work: &Work<'_>) -> Result<Panels> {
        let deep = self.rows.next_multiple_of(DEEP);
        let count = self.columns.div_ceil(SIDE);
        let mut panels = Panels { planes: self.planes, deep, halves: work.halves(count * self.planes * deep * SIDE)? };
        let (from, panel) = (halves_of(&self.halves), panels.panel());
        for (p, to) in panels.halves.as_mut_slice::<u16>().chunks_exact_mut(panel).enumerate().take(count) {
            for (plane, to) in to.chunks_exact_mut(deep * SIDE).enumerate() {
                let row = |l: usize| &from[plane * self.distance() + l * self.ld + p * SIDE..][..SIDE];
                for (l, to) in to.chunks_exact_mut(2 * SIDE).enumerate() {
                    planes::zip(work.cx.isa, row(2 * l), row(2 * l + 1), to);
                }
            }
        }
        Ok(panels)
    }
}

/// A right operand.
pub(super) struct Panels {
    pub(super) halves: HostBuffer,
    pub(super) planes: usize,
    pub(super) deep: usize,
}

impl Panels {
    pub(super) fn panel(&self) -> usize {
        self.planes * self.deep * SIDE
    }
}

/// Rows of a left operand: planes `distance` apart, rows `ld` apart from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    halves: &'a [u16],
    pub(super) planes: usize,
    distance: usize,
    pub(super) ld: usize,
    pub(super) first: usize,
}

impl<'a> Left<'a> {
    pub(super) fn of(matrix: &'a Matrix, first: usize) -> Left<'a> {
        Left {
            halves: halves_of(&matrix.halves),
            planes: matrix.planes,
            distance: matrix.distance(),
            ld: matrix.ld,
            first,
        }
    }
}

/// `acc[i·ld + j] (+)= Σ_l a[i, l]·b[from + l, first + j]` for `rows` rows, `columns` columns and `len` places; `first`
/// is a multiple of 16, `from` and `len` of 32.
pub(super) fn multiply(
    work: &Work<'_>,
    a: Left<'_>,
    rows: usize,
    b: &Panels,
    [from, len]: [usize; 2],
    [first, columns]: [usize; 2],
    acc: &mut [f32],
    ld: usize,
    add: bool,
) {
    let rows: smallvec::SmallVec<[Row; KEYS]> =
        (0..rows).map(|i| Row { a: (a.first + i) * a.ld, acc: i * ld }).collect();
    let block = TileBlock {
        a: a.halves,
        a_planes: (a.planes, a.distance),
        rows: &rows,
        b: &halves_of(&b.halves)[first / SIDE * b.panel()..],
        b_planes: (b.planes, b.deep * SIDE),
        b_pair: 2 * SIDE,
        panel: b.panel(),
        columns,
        segments: &[Segment { a: 0, b: from * SIDE, len }],
        acc,
        add,
    };
    amx::run(work.cx.isa, block);
}

/// Scratch of one head. A tile of scores has rows of its keys padded to whole tiles ([`DEEP`]), whose scores are −∞ and
/// whose weights are zeros: vectors need no special end, and a tile is split in one go.
pub(super) struct Scratch {
    /// Scores, then slopes: `[queries][keys]`.
    pub(super) tile: HostBuffer,
    /// Weights.
    pub(super) p: HostBuffer,
    /// The gradient by the weights.
    pub(super) dp: HostBuffer,
    /// Planes of weights, `[queries][keys]` or turned.
    pub(super) split: HostBuffer,
}

impl Scratch {
    pub(super) fn new(work: &Work<'_>, queries: usize) -> Result<Scratch> {
        let queries = queries.next_multiple_of(DEEP);
        let floats = || workspace::<f32>(work.cx.pool, queries * KEYS);
        Ok(Scratch { tile: floats()?, p: floats()?, dp: floats()?, split: work.halves(WEIGHTS * queries * KEYS)? })
    }
}

/// Splits rows `[i][ld]` as a left operand.
pub(super) fn weights<'a>(work: &Work<'_>, from: &[f32], rows: usize, ld: usize, to: &'a mut [u16]) -> Left<'a> {
    let distance = rows.next_multiple_of(SIDE) * ld;
    // What is too small for three planes is too small to matter.
    planes::split(work.cx.isa, &from[..rows * ld], WEIGHTS, distance, to, &mut Seen::nothing());
    Left { halves: to, planes: WEIGHTS, distance, ld, first: 0 }
}

/// As [`weights`], turned: rows are keys, their places the queries, padded with zeros to a multiple of [`DEEP`].
pub(super) fn weights_turned<'a>(
    work: &Work<'_>,
    from: &mut [f32],
    [queries, keys]: [usize; 2],
    ld: usize,
    turned: &mut [f32],
    to: &'a mut [u16],
) -> Left<'a> {
    let padded = queries.next_multiple_of(DEEP);
    from[queries * ld..padded * ld].fill(0.0);
    tile::transpose(work.cx.isa, from, ld, padded, keys.next_multiple_of(SIDE), turned, padded);
    weights(work, turned, keys, padded, to)
}
