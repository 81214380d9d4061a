//! Matrix products on tiles.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::{Tile16, Work, pair_up, planes_of, transpose};
use crate::cpu::gemm::{Batch, Finish, Matrix, output_parts, workspace};
use crate::cpu::operand::{BLOCK, elements_mut};
use crate::cpu::tile::{Row, Segment};
use crate::memory::HostBuffer;
use crate::op::Epilogue;
use crate::simd::amx::{self, DEEP, SIDE, TileBlock};
use crate::simd::planes;
use crate::{Array, ArrayMut, DType, Result};

/// Rows of the product per task at most.
const ROWS: usize = 256;
/// Bytes of a left operand's slab, about: with the panels it meets it stays in the second-level cache.
const SLAB: usize = 768 * 1024;
/// Columns per pass over the rows of a task.
const COLUMNS: usize = 4096;
/// Panels packed together: rows of the right operand are read this wide.
const PANELS: usize = 8;
/// Up to so many rows a product is bound by memory, and left to the kernel that reads the right operand as it is.
const SKINNY: usize = 8;
/// Products below it are not worth their packing.
const SMALL: usize = 1 << 17;

/// Planes of one operand.
#[derive(Clone, Copy)]
struct Planes<'a> {
    matrix: Matrix<'a>,
    count: usize,
}

impl<'a> Planes<'a> {
    fn new(matrix: Matrix<'a>) -> Planes<'a> {
        Planes { matrix, count: planes_of(matrix.dtype).unwrap_or(1) }
    }

    /// `n` numbers from a place on, along the rows or along the columns.
    fn read(&self, work: &Work<'_>, [row, column]: [usize; 2], along: usize, n: usize, distance: usize, to: &mut [u16]) {
        let Matrix { dtype, bytes, offset, strides } = self.matrix;
        let start = offset + row * strides[0] + column * strides[1];
        work.read(dtype, bytes, start, strides[along], n, distance, to);
    }

    /// Rows `first..first + rows` and inner places `from..from + deep` as planes `[row][deep]`, rows `ld` apart.
    fn left(&self, work: &Work<'_>, [first, rows]: [usize; 2], [from, deep]: [usize; 2], ld: usize, distance: usize, to: &mut [u16]) {
        let padded = deep.next_multiple_of(DEEP);
        let [r, c] = self.matrix.strides;
        if r == 1 && c != 1 {
            return self.left_turned(work, [first, rows], [from, deep], ld, distance, to);
        }
        for i in 0..rows {
            let row = &mut to[i * ld..];
            self.read(work, [first + i, from], 1, deep, distance, row);
            for plane in 0..self.count {
                row[plane * distance + deep..plane * distance + padded].fill(0);
            }
        }
    }

    /// As [`Planes::left`], of a matrix whose columns lie densely.
    fn left_turned(
        &self,
        work: &Work<'_>,
        [first, rows]: [usize; 2],
        [from, deep]: [usize; 2],
        ld: usize,
        distance: usize,
        to: &mut [u16],
    ) {
        let wide = rows.next_multiple_of(SIDE);
        let mut read = [0; planes::MOST * DEEP * ROWS];
        let mut pairs = Tile16([0; SIDE * DEEP]);
        for at in (0..deep).step_by(DEEP) {
            let part = DEEP.min(deep - at);
            for l in 0..DEEP {
                for plane in 0..self.count {
                    let lack = if l < part { rows } else { 0 };
                    read[(plane * DEEP + l) * wide..][lack..wide].fill(0);
                }
                if l < part {
                    self.read(work, [first, from + at + l], 0, rows, DEEP * wide, &mut read[l * wide..]);
                }
            }
            for (plane, i) in (0..self.count).flat_map(|p| (0..wide).step_by(SIDE).map(move |i| (p, i))) {
                for (l, to) in pairs.0.chunks_exact_mut(2 * SIDE).enumerate() {
                    let row = |r: usize| &read[(plane * DEEP + 2 * l + r) * wide + i..][..SIDE];
                    planes::zip(work.isa, row(0), row(1), to);
                }
                transpose(work.isa, &pairs.0, 2 * SIDE, &mut to[plane * distance + i * ld + at..], ld);
            }
        }
    }

    /// Columns `first..first + columns`, at most [`PANELS`] panels of them, as panels `[plane][k / 2][16][2]`.
    fn right(&self, work: &Work<'_>, k: usize, [first, columns]: [usize; 2], to: &mut [u16]) {
        const LONG: usize = 512;
        let padded = k.next_multiple_of(DEEP);
        let (distance, panel) = (padded * SIDE, self.count * padded * SIDE);
        if self.matrix.strides[0] == 1 {
            // Whole columns are read, and turned.
            let mut read = [[0u32; planes::MOST * SIDE * LONG / 2]; 1];
            let read: &mut [u16] = bytemuck::cast_slice_mut(&mut read[0]);
            for (p, to) in to.chunks_mut(panel).enumerate() {
                let count = SIDE.min(columns - p * SIDE);
                for at in (0..k).step_by(LONG) {
                    let part = LONG.min(k - at);
                    for j in 0..count {
                        self.read(work, [at, first + p * SIDE + j], 0, part, SIDE * LONG, &mut read[j * LONG..]);
                    }
                    for plane in 0..self.count {
                        let to = &mut to[plane * distance + at * SIDE..];
                        pair_up(work.isa, &read[plane * SIDE * LONG..], LONG, count, part, to, 2 * SIDE);
                    }
                }
            }
            return;
        }
        const WIDE: usize = PANELS * SIDE;
        let mut read = [0; 2 * planes::MOST * WIDE];
        for l in (0..padded).step_by(2) {
            for r in 0..2 {
                let row = &mut read[r * planes::MOST * WIDE..][..planes::MOST * WIDE];
                if l + r < k {
                    self.read(work, [l + r, first], 1, columns, WIDE, row);
                } else {
                    row.fill(0);
                }
            }
            for (p, to) in to.chunks_mut(panel).enumerate() {
                for plane in 0..self.count {
                    let row = |r: usize| &read[(r * planes::MOST + plane) * WIDE + p * SIDE..][..SIDE];
                    planes::zip(work.isa, row(0), row(1), &mut to[plane * distance + l * SIDE..][..2 * SIDE]);
                }
            }
        }
    }
}

/// One product.
struct Product<'a> {
    m: usize,
    k: usize,
    n: usize,
    a: Planes<'a>,
    b: Planes<'a>,
}

/// Where a product's results go.
struct Target<'a> {
    finish: &'a Finish<f32>,
    dtype: DType,
    out: &'a mut [u8],
    pre: &'a mut [u8],
}

impl Product<'_> {
    fn padded(&self) -> usize {
        self.k.next_multiple_of(DEEP)
    }

    /// Numbers in a packed panel of 16 columns.
    fn panel(&self) -> usize {
        self.b.count * self.padded() * SIDE
    }

    /// All of the right operand as panels.
    fn pack_right(&self, work: &Work<'_>) -> Result<HostBuffer> {
        let len = self.n.div_ceil(SIDE) * self.panel();
        let mut packed = work.halves(len)?;
        packed.as_mut_slice::<u16>()[..len].par_chunks_mut(PANELS * self.panel()).enumerate().for_each(|(i, panels)| {
            let first = i * PANELS * SIDE;
            self.b.right(work, self.k, [first, (PANELS * SIDE).min(self.n - first)], panels);
        });
        Ok(packed)
    }

    /// Rows `[first, rows]` of A against packed columns: `acc[i·ld + j] = …`.
    fn rows(&self, work: &Work<'_>, [first, rows]: [usize; 2], b: &[u16], columns: usize, acc: &mut [f32], ld: usize) -> Result<()> {
        // A slab's rows must not meet in the same sets of the cache.
        let most = (SLAB / (2 * self.a.count * rows) / DEEP).max(1) * DEEP;
        let chunks = self.padded().div_ceil(most);
        let chunk = self.padded().div_ceil(chunks).next_multiple_of(DEEP);
        let lda = (chunk / DEEP | 1) * DEEP;
        let distance = rows.next_multiple_of(SIDE) * lda;
        let mut slab = work.halves(self.a.count * distance)?;
        let slab = &mut slab.as_mut_slice::<u16>()[..self.a.count * distance];
        let places: SmallVec<[Row; ROWS]> = (0..rows).map(|i| Row { a: i * lda, acc: i * ld }).collect();
        for from in (0..self.k).step_by(chunk) {
            let deep = chunk.min(self.k - from);
            self.a.left(work, [first, rows], [from, deep], lda, distance, slab);
            if !work.is_exact() {
                return Ok(());
            }
            let block = TileBlock {
                a: slab,
                a_planes: (self.a.count, distance),
                rows: &places,
                b,
                b_planes: (self.b.count, self.padded() * SIDE),
                b_pair: 2 * SIDE,
                panel: self.panel(),
                columns,
                segments: &[Segment { a: 0, b: from * SIDE, len: deep.next_multiple_of(DEEP) }],
                acc,
                add: from > 0,
            };
            amx::run(work.isa, block);
        }
        Ok(())
    }

    /// A product with many rows, in blocks of rows.
    fn tall(&self, work: &Work<'_>, packed: &[u16], target: Target<'_>, parallel: bool) -> Result<()> {
        let (n, Target { finish, dtype, out, pre }) = (self.n, target);
        // The split depends on the extents alone.
        let block = self.m.div_ceil(8).next_multiple_of(2 * SIDE).min(ROWS);
        let pass = n.min(COLUMNS);
        let task = |(i, (out, pre)): (usize, (&mut [u8], &mut [u8]))| {
            let rows = [i * block, out.len() / (n * dtype.size())];
            if finish.is_plain() && dtype == DType::F32 && n.is_multiple_of(SIDE) && pass == n {
                // Nothing is left to do after the sums: they may stand where they belong.
                return self.rows(work, rows, packed, n, elements_mut(out), n);
            }
            let ld = pass.next_multiple_of(SIDE);
            let mut acc = workspace::<f32>(work.pool, rows[1] * ld)?;
            let acc = &mut acc.as_mut_slice::<f32>()[..rows[1] * ld];
            for first in (0..n).step_by(pass) {
                let columns = pass.min(n - first);
                self.rows(work, rows, &packed[first / SIDE * self.panel()..], columns, acc, ld)?;
                finish.rows(acc, ld, first, columns, n, out, pre, dtype);
            }
            Ok(())
        };
        let parts = output_parts(out, Some(pre), block * n * dtype.size());
        if parallel {
            parts.into_par_iter().enumerate().try_for_each(task)
        } else {
            parts.into_iter().enumerate().try_for_each(task)
        }
    }

    /// A product with few rows, in blocks of columns, each of which packs its own.
    fn wide(&self, work: &Work<'_>, target: Target<'_>) -> Result<()> {
        let (Product { m, n, .. }, Target { finish, dtype, out, pre }) = (self, target);
        let (m, n) = (*m, *n);
        let chunk = n.div_ceil(8).next_multiple_of(2 * SIDE).min(PANELS * SIDE);
        let len = n.div_ceil(chunk) * m * chunk;
        let mut acc = workspace::<f32>(work.pool, len)?;
        let acc = &mut acc.as_mut_slice::<f32>()[..len];
        acc.par_chunks_mut(m * chunk).enumerate().try_for_each(|(i, acc)| {
            let (first, columns) = (i * chunk, chunk.min(n - i * chunk));
            let len = columns.div_ceil(SIDE) * self.panel();
            let mut packed = work.halves(len)?;
            let packed = &mut packed.as_mut_slice::<u16>()[..len];
            self.b.right(work, self.k, [first, columns], packed);
            self.rows(work, [0, m], packed, columns, acc, chunk)
        })?;
        let acc = &*acc;
        output_parts(out, Some(pre), n * dtype.size())
            .into_par_iter()
            .with_min_len((4 * BLOCK).div_ceil(n))
            .enumerate()
            .for_each(|(i, (out, pre))| {
                for first in (0..n).step_by(chunk) {
                    let columns = chunk.min(n - first);
                    let mut row: SmallVec<[f32; PANELS * SIDE]> =
                        SmallVec::from_slice(&acc[(first / chunk * m + i) * chunk..][..columns]);
                    finish.rows(&mut row, columns, first, columns, n, out, pre, dtype);
                }
            });
        Ok(())
    }
}

pub(super) fn matmul(
    work: &Work<'_>,
    epilogue: Epilogue,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<bool> {
    let (shape, dtype) = (*outs[0].array().shape(), outs[0].array().dtype());
    let batch = Batch::new(&shape, ins, bytes);
    let [m, k, n] = batch.extents;
    if m <= SKINNY || n < SIDE || k < SIDE || m * n * k < SMALL {
        return Ok(false);
    }
    let finish = Finish::<f32>::new(work.isa, epilogue, ins, bytes);
    let (first, rest) = outs.split_at_mut(1);
    let (Some(out), pre) = (first[0].bytes(), rest.first_mut().and_then(ArrayMut::bytes)) else { return Ok(true) };
    let total = shape.numel() * dtype.size();
    let parts = output_parts(&mut out[..total], pre.map(|p| &mut p[..total]), m * n * dtype.size());
    let product = |i: usize| {
        let (a, b) = batch.operands(i);
        Product { m, k, n, a: Planes::new(a), b: Planes::new(b) }
    };
    let target = |(out, pre)| Target { finish: &finish, dtype, out, pre };
    if parts.len() > 1 && m * n * k < 1 << 24 && !batch.shares_b {
        parts.into_par_iter().enumerate().try_for_each(|(i, part)| {
            let product = product(i);
            let packed = product.pack_right(work)?;
            product.tall(work, super::halves_of(&packed), target(part), false)
        })?;
        return Ok(work.is_exact());
    }
    let mut common = None;
    for (i, part) in parts.into_iter().enumerate() {
        let product = product(i);
        if m <= ROWS && n >= 2 * m {
            product.wide(work, target(part))?;
            continue;
        }
        if common.is_none() || !batch.shares_b {
            common = Some(product.pack_right(work)?);
        }
        if let (Some(packed), true) = (&common, work.is_exact()) {
            product.tall(work, super::halves_of(packed), target(part), true)?;
        }
    }
    Ok(work.is_exact())
}
