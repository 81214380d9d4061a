//! Operands in planes, packed as tiles read them: the left one in rows of inner places, the right one in panels of 16
//! columns, pairs of inner places together. One whose dimensions lie the other way in memory is turned while what was
//! read is in the first-level cache; memory is asked for some rows ahead.

use super::act::Act;
use super::{LONG, PANELS};
use crate::gemm::Matrix;
use crate::operand::elements;
use crate::planes::{Work, pair_up, planes_of};
use crate::row_sums;
use crate::simd::amx::{Ahead, DEEP, SIDE};
use crate::simd::planes::{self, Seen};
use crate::simd::prefetch;
use binade_tensor::{DType, bf16, f16};

/// Rows of which memory is asked for ahead.
const AHEAD: usize = 8;

/// Planes of one operand.
#[derive(Clone, Copy)]
pub(super) struct Planes<'a> {
    /// Which input it is.
    which: usize,
    pub(super) matrix: Matrix<'a>,
    pub(super) count: usize,
    act: Option<Act>,
}

impl<'a> Planes<'a> {
    pub(super) fn new(which: usize, matrix: Matrix<'a>, act: Option<Act>) -> Planes<'a> {
        Planes { which, matrix, count: planes_of(matrix.values.dtype).unwrap_or(1), act }
    }

    /// `n` numbers from a place on, along the rows or along the columns.
    fn read(
        &self,
        work: &Work<'_>,
        [row, column]: [usize; 2],
        along: usize,
        n: usize,
        distance: usize,
        to: &mut [u16],
        seen: &mut Seen,
    ) {
        let Matrix { values, offset, strides } = self.matrix;
        let start = offset + row * strides[0] + column * strides[1];
        match self.act {
            Some(act) => act.read(work, values, [start, strides[along], n], distance, to, seen),
            None => work.read(values, start, strides[along], n, distance, to, seen),
        }
    }

    /// Asks for `n` neighbours of a row that will be read soon, where columns are neighbours, or of a column.
    fn ask(&self, [row, column]: [usize; 2], along: usize, n: usize) {
        let Matrix { values, offset, strides } = self.matrix;
        if strides[along] == 1 {
            let start = offset + row * strides[0] + column * strides[1];
            prefetch::ask(values.bytes, start * values.size(), n * values.size());
        }
    }

    /// Asks for a part of the matrix while tiles are multiplied, where rows or columns lie densely.
    pub(super) fn ask_later(&self, ahead: &mut Ahead, [row, rows]: [usize; 2], [column, columns]: [usize; 2]) {
        let Matrix { values, offset, strides: [r, c] } = self.matrix;
        let (bytes, size) = (values.bytes, values.size());
        let start = (offset + row * r + column * c) * size;
        if c == 1 {
            ahead.push(bytes, start, [rows, r * size], columns * size, false);
        } else if r == 1 {
            ahead.push(bytes, start, [columns, c * size], rows * size, false);
        }
    }

    /// Rows `first..first + rows` and inner places `from..from + deep` as planes `[row][deep]`, rows `ld` apart.
    pub(super) fn left(
        &self,
        work: &Work<'_>,
        [first, rows]: [usize; 2],
        [from, deep]: [usize; 2],
        ld: usize,
        distance: usize,
        to: &mut [u16],
    ) {
        let padded = deep.next_multiple_of(DEEP);
        let [r, c] = self.matrix.strides;
        if r == 1 && c != 1 {
            return self.left_turned(work, [first, rows], [from, deep], ld, distance, to, &mut []);
        }
        let mut seen = Seen::nothing();
        for i in 0..rows {
            let row = &mut to[i * ld..];
            self.read(work, [first + i, from], 1, deep, distance, row, &mut seen);
            for plane in 0..if padded > deep { self.count } else { 0 } {
                row[plane * distance + deep..plane * distance + padded].fill(0);
            }
        }
        work.note(self.which, &seen);
    }

    /// As [`Planes::left`], of a matrix whose columns lie densely; adds up the rows if there is room for their sums.
    pub(super) fn left_turned(
        &self,
        work: &Work<'_>,
        [first, rows]: [usize; 2],
        [from, deep]: [usize; 2],
        ld: usize,
        distance: usize,
        to: &mut [u16],
        sums: &mut [f64],
    ) {
        // A strip of rows is read that stays in the first-level cache until it is turned.
        const WIDE: usize = PANELS * SIDE;
        let mut read = [0; planes::MOST * DEEP * WIDE];
        let mut seen = Seen::nothing();
        for (strip, at) in (0..rows).step_by(WIDE).flat_map(|i| (0..deep).step_by(DEEP).map(move |at| (i, at))) {
            let (rows, part) = (WIDE.min(rows - strip), DEEP.min(deep - at));
            for l in 0..DEEP {
                for plane in 0..self.count {
                    let lack = if l < part { rows } else { 0 };
                    read[(plane * DEEP + l) * WIDE..][lack..rows.next_multiple_of(SIDE)].fill(0);
                }
                if l < part {
                    let place = [first + strip, from + at + l];
                    self.ask([place[0], place[1] + AHEAD], 0, rows);
                    self.read(work, place, 0, rows, DEEP * WIDE, &mut read[l * WIDE..], &mut seen);
                }
            }
            for (plane, i) in (0..self.count).flat_map(|p| (0..rows).step_by(SIDE).map(move |i| (p, i))) {
                let to = &mut to[plane * distance + (strip + i) * ld + at..];
                planes::turn(work.cx.isa, &read[plane * DEEP * WIDE + i..], WIDE, to, ld);
            }
            if !sums.is_empty() {
                // What was read is still in the first-level cache.
                self.add_up(work, first + strip, [from + at, part], &mut sums[strip..strip + rows]);
            }
        }
        work.note(self.which, &seen);
    }

    /// Adds `places` inner places from `from` on to sums of rows, of a matrix whose columns lie densely and whose
    /// elements are in memory.
    fn add_up(&self, work: &Work<'_>, first: usize, [from, places]: [usize; 2], sums: &mut [f64]) {
        let Matrix { values, offset, strides: [_, ld] } = self.matrix;
        let start = offset + first + from * ld;
        let isa = work.cx.isa;
        if values.dtype == DType::F16 {
            row_sums::add::<f32, f16>(isa, &elements(values.bytes)[start..], ld, places, sums);
        } else if values.dtype == DType::BF16 {
            row_sums::add::<f32, bf16>(isa, &elements(values.bytes)[start..], ld, places, sums);
        } else {
            // Tiles serve no other dtype.
            row_sums::add::<f32, f32>(isa, &elements(values.bytes)[start..], ld, places, sums);
        }
    }

    /// Inner places `from..from + k` of the columns `first..first + columns`, at most [`PANELS`] panels of them, as
    /// panels `[plane][padded / 2][16][2]`.
    pub(super) fn right(
        &self,
        work: &Work<'_>,
        [from, k, padded]: [usize; 3],
        [first, columns]: [usize; 2],
        to: &mut [u16],
    ) {
        let whole = k.next_multiple_of(DEEP);
        let (distance, panel) = (padded * SIDE, self.count * padded * SIDE);
        let mut seen = Seen::nothing();
        if self.matrix.strides[0] == 1 {
            // Whole columns are read, and turned.
            // Pairs are moved as words, and so aligned to them.
            let mut read = [0u32; planes::MOST * SIDE * LONG / 2];
            let read: &mut [u16] = bytemuck::cast_slice_mut(&mut read);
            for (p, to) in to.chunks_mut(panel).enumerate() {
                let count = SIDE.min(columns - p * SIDE);
                for at in (0..k).step_by(LONG) {
                    let part = LONG.min(k - at);
                    for j in 0..count {
                        self.read(
                            work,
                            [from + at, first + p * SIDE + j],
                            0,
                            part,
                            SIDE * LONG,
                            &mut read[j * LONG..],
                            &mut seen,
                        );
                    }
                    for plane in 0..self.count {
                        let to = &mut to[plane * distance + at * SIDE..];
                        pair_up(work.cx.isa, &read[plane * SIDE * LONG..], LONG, count, part, to, 2 * SIDE);
                    }
                }
            }
            return work.note(self.which, &seen);
        }
        const WIDE: usize = PANELS * SIDE;
        let mut read = [0; 2 * planes::MOST * WIDE];
        for l in (0..whole).step_by(2) {
            for r in 0..2 {
                let row = &mut read[r * planes::MOST * WIDE..][..planes::MOST * WIDE];
                if l + r < k {
                    self.ask([from + l + r + AHEAD, first], 1, columns);
                    self.read(work, [from + l + r, first], 1, columns, WIDE, row, &mut seen);
                } else {
                    row.fill(0);
                }
            }
            for (p, to) in to.chunks_mut(panel).enumerate() {
                for plane in 0..self.count {
                    let row = |r: usize| &read[(r * planes::MOST + plane) * WIDE + p * SIDE..][..SIDE];
                    planes::zip(work.cx.isa, row(0), row(1), &mut to[plane * distance + l * SIDE..][..2 * SIDE]);
                }
            }
        }
        work.note(self.which, &seen);
    }
}
