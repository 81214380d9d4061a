//! Operands of products, of any dtype and strides: they are widened as they are packed. The left one is read in rows,
//! of a matrix or of one that lies transposed; the right one is packed into panels of as many columns as the register
//! tile has, with its activation if it has one.

use crate::kernel::Context;
use rayon::prelude::*;

use super::scratch::workspace;
use crate::elementwise::activate;
use crate::operand::{BLOCK, Compute};
use crate::simd::Isa;
use crate::tasks::Tasks as _;
use crate::tile;
use crate::values::Values;
use binade_tensor::Result;
use binade_tensor::memory::HostBuffer;
use binade_tensor::op::Unary;

/// One matrix of any dtype and strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: Values<'a>,
    pub(crate) offset: usize,
    /// Of rows and columns.
    pub(crate) strides: [usize; 2],
}

impl Matrix<'_> {
    /// Widens `to.len()` elements of a row.
    pub(super) fn row<C: Compute>(&self, isa: Isa, row: usize, column: usize, to: &mut [C]) {
        let [r, c] = self.strides;
        self.values.load(isa, self.offset + row * r + column * c, c, to);
    }

    /// Widens a part of `rows × columns` elements whose first is at `[row, column]`, into rows `ld` apart.
    pub(super) fn part<C: Compute>(
        &self,
        isa: Isa,
        [row, column]: [usize; 2],
        [rows, columns]: [usize; 2],
        to: &mut [C],
        ld: usize,
    ) {
        let [r, c] = self.strides;
        if c == 1 {
            return self.values.load_rows(isa, self.offset + row * r + column, r, [rows, columns], to, ld);
        }
        for i in 0..rows {
            self.row(isa, row + i, column, &mut to[i * ld..][..columns]);
        }
    }

    pub(super) fn transposed(&self) -> Self {
        Matrix { strides: [self.strides[1], self.strides[0]], ..*self }
    }

    /// Whether columns lie densely and rows do not.
    pub(super) fn is_column_major(&self) -> bool {
        self.strides[0] == 1 && self.strides[1] != 1
    }

    /// Rows `k` and columns `first..` as a panel `[k][width]`; columns beyond `columns` are zeros.
    fn pack<C: Compute>(&self, isa: Isa, k: usize, first: usize, columns: usize, panel: &mut [C]) {
        let width = tile::width::<C>(isa);
        if self.is_column_major() {
            const DEEP: usize = 128;
            let mut buffer = [C::zero(); 32 * DEEP];
            for from in (0..k).step_by(DEEP) {
                let deep = DEEP.min(k - from);
                self.transposed().part(isa, [first, from], [columns, deep], &mut buffer, DEEP);
                tile::transpose(isa, &buffer, DEEP, columns, deep, &mut panel[from * width..], width);
            }
        } else {
            self.part(isa, [0, first], [k, columns], panel, width);
        }
        if columns < width {
            panel.chunks_mut(width).for_each(|row| row[columns..].fill(C::zero()));
        }
    }
}

/// A right operand: a matrix, or an activation of one in the computing type.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) act: Option<Unary>,
}

impl Right<'_> {
    /// Without the first `rows` rows.
    pub(super) fn below(&self, rows: usize) -> Self {
        let offset = self.matrix.offset + rows * self.matrix.strides[0];
        Right { matrix: Matrix { offset, ..self.matrix }, ..*self }
    }

    /// As [`Matrix::pack`]. What an activation makes of padding is not read.
    pub(super) fn pack<C: Compute>(&self, isa: Isa, k: usize, first: usize, columns: usize, panel: &mut [C]) {
        self.matrix.pack(isa, k, first, columns, panel);
        let Some(act) = self.act else { return };
        let mut buffer = [C::zero(); BLOCK];
        for part in panel[..k * tile::width::<C>(isa)].chunks_mut(BLOCK) {
            let to = &mut buffer[..part.len()];
            activate(isa, act, part, to);
            part.copy_from_slice(to);
        }
    }
}

/// All of a right operand as panels, one after the other.
pub(super) fn pack<C: Compute>(cx: Context<'_>, b: &Right<'_>, k: usize, n: usize) -> Result<HostBuffer> {
    let Context { isa, pool } = cx;
    let width = tile::width::<C>(isa);
    let mut buffer = workspace::<C>(pool, n.next_multiple_of(width) * k)?;
    let len = n.next_multiple_of(width) * k;
    // Of no inner places there are no panels.
    let panels = buffer.as_mut_slice::<C>()[..len].par_chunks_mut((width * k).max(1)).enumerate();
    let work = |(p, panel): (usize, &mut [C])| b.pack(isa, k, p * width, width.min(n - p * width), panel);
    panels.with_min_len((16 * BLOCK).div_ceil((width * k).max(1))).each(work);
    Ok(buffer)
}
