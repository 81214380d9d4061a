//! Matrix products. Operands are widened to f32 while they are packed (cost n², not n³) and multiplied by [`super::tile`];
//! [`super::finish`] does the rest for each block of rows.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::elementwise::activate;
use super::finish::{Finish, Results, output_parts};
use super::operand::{BLOCK, Compute};
use super::tasks::Tasks as _;
use super::tile::{Block, Row, Segment, Tile};
use super::values::Values;
use super::{reduce, row_sums};
use crate::memory::{HostBuffer, Pool};
use crate::op::{Epilogue, Reduce, Unary};
use crate::simd::Isa;
use crate::{Array, ArrayMut, Class, DType, Dims, Error, Layout, Result, Shape};

/// Products per chain: a panel of B of this depth stays in the first-level cache.
pub(super) const DEPTH: usize = 256;
/// Rows of the product per task at most, and columns per pass: their operands and results stay in the second-level cache.
const ROWS: usize = 192;
const COLUMNS: usize = 512;
/// A block of rows of so many numbers is widened once for all columns.
const WHOLE: usize = 128 * 1024;
/// Products per chain of a product with few rows, in as many interleaved sums as a vector has lanes.
const LONG: usize = 1024;
/// Up to this many rows the right operand is read once, unpacked: such a product is bound by memory.
const SKINNY: usize = 8;

/// What a product does beside multiplying.
#[derive(Clone, Copy, Default)]
pub(super) struct Fused {
    pub(super) epilogue: Epilogue,
    /// The left operand is this activation of the input.
    pub(super) left: Option<Unary>,
    /// The right one is.
    pub(super) right: Option<Unary>,
    /// The sums of the left operand's rows are a second output.
    pub(super) sums: bool,
}

impl Fused {
    /// Whether sums are taken as the left operand is packed: its columns lie densely, and there is a product.
    pub(super) fn sums_rows(&self, ins: &[&Array], outs: &[ArrayMut<'_>]) -> bool {
        let [r, c] = [0, 1].map(|d| ins[0].layout().strides.get(d).copied().unwrap_or(0));
        self.sums && r == 1 && c != 1 && ins[0].is_written() && outs[0].array().numel() > 0
    }
}

/// One matrix of any dtype and strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: Values<'a>,
    pub(super) offset: usize,
    /// Of rows and columns.
    pub(super) strides: [usize; 2],
}

impl Matrix<'_> {
    /// Widens `to.len()` elements of a row.
    fn row<C: Compute>(&self, isa: Isa, row: usize, column: usize, to: &mut [C]) {
        let [r, c] = self.strides;
        self.values.load(isa, self.offset + row * r + column * c, c, to);
    }

    /// Widens a part of `rows × columns` elements whose first is at `[row, column]`, into rows `ld` apart.
    fn part<C: Compute>(&self, isa: Isa, [row, column]: [usize; 2], [rows, columns]: [usize; 2], to: &mut [C], ld: usize) {
        let [r, c] = self.strides;
        if c == 1 {
            return self.values.load_rows(isa, self.offset + row * r + column, r, [rows, columns], to, ld);
        }
        for i in 0..rows {
            self.row(isa, row + i, column, &mut to[i * ld..][..columns]);
        }
    }

    fn transposed(&self) -> Self {
        Matrix { strides: [self.strides[1], self.strides[0]], ..*self }
    }

    /// Whether columns lie densely and rows do not.
    fn is_column_major(&self) -> bool {
        self.strides[0] == 1 && self.strides[1] != 1
    }

    /// Rows `k` and columns `first..` as a panel `[k][width]`; columns beyond `columns` are zeros.
    fn pack<C: Tile>(&self, isa: Isa, k: usize, first: usize, columns: usize, panel: &mut [C]) {
        let width = C::width(isa);
        if self.is_column_major() {
            const DEEP: usize = 128;
            let mut buffer = [C::zero(); 32 * DEEP];
            for from in (0..k).step_by(DEEP) {
                let deep = DEEP.min(k - from);
                self.transposed().part(isa, [first, from], [columns, deep], &mut buffer, DEEP);
                C::transpose(isa, &buffer, DEEP, columns, deep, &mut panel[from * width..], width);
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
struct Right<'a> {
    matrix: Matrix<'a>,
    act: Option<Unary>,
}

impl Right<'_> {
    /// Without the first `rows` rows.
    fn below(&self, rows: usize) -> Self {
        let offset = self.matrix.offset + rows * self.matrix.strides[0];
        Right { matrix: Matrix { offset, ..self.matrix }, ..*self }
    }

    /// As [`Matrix::pack`]. What an activation makes of padding is not read.
    fn pack<C: Tile>(&self, isa: Isa, k: usize, first: usize, columns: usize, panel: &mut [C]) {
        self.matrix.pack(isa, k, first, columns, panel);
        let Some(act) = self.act else { return };
        let mut buffer = [C::zero(); BLOCK];
        for part in panel[..k * C::width(isa)].chunks_mut(BLOCK) {
            let to = &mut buffer[..part.len()];
            activate(isa, act, part, to);
            part.copy_from_slice(to);
        }
    }
}

/// All of a right operand as panels, one after the other.
fn pack<C: Tile>(isa: Isa, pool: &Pool, b: &Right<'_>, k: usize, n: usize) -> Result<HostBuffer> {
    let width = C::width(isa);
    let mut buffer = workspace::<C>(pool, n.next_multiple_of(width) * k)?;
    let len = n.next_multiple_of(width) * k;
    // Of no inner places there are no panels.
    let panels = buffer.as_mut_slice::<C>()[..len].par_chunks_mut((width * k).max(1)).enumerate();
    let work = |(p, panel): (usize, &mut [C])| b.pack(isa, k, p * width, width.min(n - p * width), panel);
    panels.with_min_len((16 * BLOCK).div_ceil((width * k).max(1))).each(work);
    Ok(buffer)
}

/// An operand of a contraction as a slice of the computing type with its own strides: borrowed, or widened in memory order.
pub(super) enum Panel<'a, C> {
    Borrowed(&'a [C]),
    Widened(HostBuffer),
}

impl<C: Compute> Panel<'_, C> {
    pub(super) fn as_slice(&self) -> &[C] {
        match self {
            Panel::Borrowed(slice) => slice,
            Panel::Widened(buffer) => {
                // SAFETY: the buffer was allocated for elements of C, is aligned and initialised.
                unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len() / size_of::<C>()) }
            }
        }
    }
}

/// Scratch memory for `n` elements.
pub(super) fn workspace<C: Compute>(pool: &Pool, n: usize) -> Result<HostBuffer> {
    let bytes = n * size_of::<C>();
    pool.alloc(bytes, Class::Workspace).ok_or(Error::OutOfMemory { bytes, class: Class::Workspace })
}

/// What one product needs.
#[derive(Clone, Copy)]
struct Product {
    isa: Isa,
    m: usize,
    k: usize,
    n: usize,
    /// An activation of A, computed as it is widened.
    left: Option<Unary>,
}

impl Product {
    /// Numbers in a strip of `rows` rows of A, and how its rows lie: `(distance, step of the inner dimension)`.
    fn strip(&self, a: &Matrix<'_>, rows: usize) -> (usize, [usize; 2]) {
        // Odd multiples of a cache line: rows must not meet in the same sets.
        if a.is_column_major() {
            let step = rows.next_multiple_of(16) + 16;
            (DEPTH.min(self.k) * step, [1, step])
        } else {
            (rows * (DEPTH + 16), [DEPTH + 16, 1])
        }
    }

    /// Widens `rows` rows of A from `first` on, at most [`DEPTH`] places from `from` on.
    fn widen<C: Tile>(&self, a: &Matrix<'_>, first: usize, rows: usize, from: usize, strip: &mut [C]) {
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

    /// `acc[i·ld + j] (+)= Σ strip[i, l]·b[l, j]` for a strip of A and the places from `from` on of packed columns of B.
    fn add<C: Tile>(
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
        let width = C::width(isa);
        let places: SmallVec<[Row; ROWS]> = (0..rows).map(|i| Row { a: i * distance, acc: i * ld }).collect();
        C::block(
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

    /// All of a product with many rows, in blocks of rows.
    fn tall<C: Tile>(
        &self,
        pool: &Pool,
        a: &Matrix<'_>,
        packed: &[C],
        finish: &Finish<C>,
        dtype: DType,
        out: &mut [u8],
        pre: Option<&mut [u8]>,
        sums_of_a: &mut [f64],
        parallel: bool,
    ) -> Result<()> {
        let Product { isa, m, k, n, .. } = *self;
        let width = C::width(isa);
        // The split depends on the extents alone.
        let block = m.div_ceil(8).next_multiple_of(C::height(isa)).clamp(2 * C::height(isa), ROWS).min(m);
        let task = |(i, ((out, pre), sums_of_a)): (usize, (Results<'_>, &mut [f64]))| {
            let rows = out.len() / (n * dtype.size());
            let pass = if n <= COLUMNS + COLUMNS / 2 { n } else { COLUMNS };
            let (strip, lie) = self.strip(a, rows);
            // For several passes over A it is widened once, if it fits the caches.
            let depths = k.div_ceil(DEPTH);
            let kept = if depths * strip <= WHOLE { depths } else { 1 };
            let mut strips = workspace::<C>(pool, kept * strip)?;
            let strips = &mut strips.as_mut_slice::<C>()[..kept * strip];
            let mut sums = |first: usize, acc: &mut [C], ld: usize| {
                for (depth, from) in (0..k).step_by(DEPTH).enumerate() {
                    let to = &mut strips[depth % kept * strip..][..strip];
                    if first == 0 || kept < depths {
                        self.widen(a, i * block, rows, from, to);
                    }
                    if first == 0 {
                        row_sums::add(isa, to, lie[1], DEPTH.min(k - from), sums_of_a);
                    }
                    self.add(to, lie, rows, &packed[first * k..], from, pass.min(n - first), acc, ld, from > 0);
                }
                if k == 0 {
                    acc.fill(C::zero());
                }
            };
            if finish.is_plain() && dtype == C::DTYPE && n.is_multiple_of(width) {
                // Nothing is left to do after the sums: they may stand where they belong.
                let out = super::operand::elements_mut(out);
                (0..n).step_by(pass).for_each(|first| sums(first, &mut out[first..], n));
                return Ok(());
            }
            let ld = pass.next_multiple_of(width);
            let mut acc = workspace::<C>(pool, rows * ld)?;
            let acc = &mut acc.as_mut_slice::<C>()[..rows * ld];
            for first in (0..n).step_by(pass) {
                sums(first, acc, ld);
                finish.rows(acc, ld, first, pass.min(n - first), n, out, pre, dtype);
            }
            Ok(())
        };
        let parts = output_parts(out, pre, block * n * dtype.size());
        let sums_of_a = row_sums::pieces(sums_of_a, block, parts.len());
        let parts: Vec<_> = parts.into_iter().zip(sums_of_a).collect();
        if parallel { parts.into_par_iter().enumerate().try_each(task) } else { parts.into_iter().enumerate().try_for_each(task) }
    }

    /// `columns` columns of all rows, packing as much of both operands as fits the second-level cache at a time. Adds up the rows of A if there
    /// is room for the sums.
    fn columns<C: Tile>(
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
        let width = C::width(isa);
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

    /// All of a product with few rows, in blocks of columns.
    fn wide<C: Tile>(
        &self,
        pool: &Pool,
        a: &Matrix<'_>,
        b: &Right<'_>,
        finish: &Finish<C>,
        dtype: DType,
        out: &mut [u8],
        pre: Option<&mut [u8]>,
        sums_of_a: &mut [f64],
    ) -> Result<()> {
        let Product { isa, m, k, n, .. } = *self;
        let width = C::width(isa);
        let chunk = n.div_ceil(8).next_multiple_of(width).clamp(2 * width, if m > SKINNY { COLUMNS / 2 } else { COLUMNS });
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
        output_parts(out, pre, n * dtype.size()).into_par_iter().with_min_len((4 * BLOCK).div_ceil(n)).enumerate().each(
            |(i, (out, pre))| {
                for first in (0..n).step_by(chunk) {
                    let columns = chunk.min(n - first);
                    let mut row: SmallVec<[C; COLUMNS]> =
                        SmallVec::from_slice(&acc[(first / chunk * m + i) * chunk..][..columns]);
                    finish.rows(&mut row, columns, first, columns, n, out, pre, dtype);
                }
            },
        );
        Ok(())
    }

    /// Few rows of A against dense columns of B: dot products in which each element of B is read once.
    fn dots<C: Tile>(&self, b: &Matrix<'_>, x: &[C], first: usize, columns: usize, acc: &mut [C], ld: usize) {
        let (Product { isa, m, k, .. }, b) = (*self, b.transposed());
        let mut buffer = [C::zero(); 4 * LONG];
        acc.fill(C::zero());
        for j in (0..columns).step_by(4) {
            let group = 4.min(columns - j);
            for from in (0..k).step_by(LONG) {
                let deep = LONG.min(k - from);
                b.part(isa, [first + j, from], [group, deep], &mut buffer, LONG);
                for i in (0..m).step_by(4) {
                    let rows = 4.min(m - i);
                    let sums = C::dots(isa, &x[i * k + from..], k, rows, &buffer, LONG, deep);
                    for (r, sums) in sums.iter().enumerate().take(rows) {
                        for (to, &sum) in acc[(i + r) * ld + j..][..group].iter_mut().zip(sums) {
                            *to = *to + sum;
                        }
                    }
                }
            }
        }
    }

    /// Few rows of A against dense rows of B, widened in a strip: the sums of [`Product::dots`], bit for bit.
    fn sweep<C: Tile>(
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
        let width = C::width(isa);
        let ldb = STRIP.next_multiple_of(width) + 16;
        let parts = C::sums(isa);
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
                    C::block(
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
                    low.iter_mut().zip(high).for_each(|(a, &mut b)| *a = *a + b);
                }
                for i in 0..m {
                    for (to, &sum) in acc[i * ld + at..][..columns].iter_mut().zip(&sums[i * STRIP..]) {
                        *to = *to + sum;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The products of one operator: matrices in the last two dimensions, one product for each place of those before.
pub(super) struct Batch<'a> {
    /// Rows, inner dimension and columns of each product.
    pub(super) extents: [usize; 3],
    /// Whether all products have the same right operand.
    pub(super) shares_b: bool,
    a: Matrix<'a>,
    b: Matrix<'a>,
    offsets: [Vec<usize>; 2],
}

impl<'a> Batch<'a> {
    pub(super) fn new(shape: &Shape, ins: &[&Array], bytes: &[&'a [u8]]) -> Batch<'a> {
        let rank = shape.rank();
        let (mut m, n) = (shape[rank - 2], shape[rank - 1]);
        let k = ins[0].shape()[ins[0].shape().rank() - 1];
        let batch = Shape::from_slice(&shape[..rank - 2]);
        // The batch dimensions, which were checked to broadcast, as storage offsets.
        let offsets = |array: &Array| -> Vec<usize> {
            let (layout, r) = (array.layout(), array.shape().rank());
            let head = Layout {
                shape: Shape::from_slice(&layout.shape[..r - 2]),
                strides: Shape::from_slice(&layout.strides[..r - 2]),
                offset: layout.offset,
            };
            head.expand(&batch).map_or_else(Vec::new, |l| indices(&l))
        };
        let (mut oa, mut ob) = (offsets(ins[0]), offsets(ins[1]));
        let matrix = |i: usize| {
            let (l, r) = (ins[i].layout(), ins[i].shape().rank());
            Matrix { values: Values::new(ins[i], bytes[i]), offset: 0, strides: [l.strides[r - 2], l.strides[r - 1]] }
        };
        let (a, b) = (matrix(0), matrix(1));
        let shares_b = ob.iter().all(|&o| o == ob[0]);
        if shares_b && oa.windows(2).all(|pair| pair[1] == pair[0] + m * a.strides[0]) {
            // One tall matrix.
            m *= oa.len();
            oa.truncate(1);
            ob.truncate(1);
        }
        Batch { extents: [m, k, n], shares_b, a, b, offsets: [oa, ob] }
    }

    /// The matrices of one product.
    pub(super) fn operands(&self, i: usize) -> (Matrix<'a>, Matrix<'a>) {
        let [oa, ob] = &self.offsets;
        (Matrix { offset: oa[i], ..self.a }, Matrix { offset: ob[i], ..self.b })
    }
}

/// Whether [`matmul`] takes an activation of an operand: it must be packed, and not be rounded in between.
pub(super) fn packs_of<C: Compute>(ins: &[&Array], operand: usize) -> bool {
    let shape = ins[0].shape();
    ins[operand].dtype() == C::DTYPE && ins[operand].is_written() && shape[shape.rank() - 2] > SKINNY
}

/// Activations of operands are taken of numbers in the computing type ([`packs_of`]).
pub(super) fn matmul<C: Tile>(
    isa: Isa,
    pool: &Pool,
    fused: Fused,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<()> {
    let packs = fused.sums_rows(ins, outs) && ins[0].shape()[0] > SKINNY;
    let mut sums_of_a = vec![0.0; if packs { ins[0].shape()[0] } else { 0 }];
    let (products, sums) = outs.split_at_mut(outs.len() - fused.sums as usize);
    multiply::<C>(isa, pool, fused, ins, bytes, products, &mut sums_of_a)?;
    match sums {
        [sums] if packs => super::rows::write(isa, &sums_of_a, sums),
        [sums] => reduce::reduce::<C>(isa, Reduce::Sum, Dims::one(1), ins[0], bytes[0], sums),
        _ => {}
    }
    Ok(())
}

/// The products of [`matmul`], with sums of A's rows as it is packed if there is room for them.
fn multiply<C: Tile>(
    isa: Isa,
    pool: &Pool,
    fused: Fused,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
    sums_of_a: &mut [f64],
) -> Result<()> {
    let (shape, dtype) = (*outs[0].array().shape(), outs[0].array().dtype());
    if shape.numel() == 0 {
        return Ok(());
    }
    let finish = Finish::<C>::new(isa, fused.epilogue, ins, bytes);
    let batch = Batch::new(&shape, ins, bytes);
    let [m, k, n] = batch.extents;
    let (first, rest) = outs.split_at_mut(1);
    let (Some(out), pre) = (first[0].bytes(), rest.first_mut().and_then(ArrayMut::bytes)) else { return Ok(()) };
    let total = shape.numel() * dtype.size();
    let parts = output_parts(&mut out[..total], pre.map(|p| &mut p[..total]), m * n * dtype.size());
    let product = Product { isa, m, k, n, left: fused.left };
    let at = |i: usize| {
        let (a, matrix) = batch.operands(i);
        (a, Right { matrix, act: fused.right })
    };
    let small = m * n * k < 32 * 1024;
    if parts.len() == 1 || batch.shares_b && !small || m * n * k >= 1 << 24 {
        let common = if batch.shares_b && parts.len() > 1 { Some(pack::<C>(isa, pool, &at(0).1, k, n)?) } else { None };
        for (i, (out, pre)) in parts.into_iter().enumerate() {
            let (a, b) = at(i);
            // With many columns and a long sum, all of B packed would go through memory once for each block of rows.
            if m <= SKINNY || m < 64 && n >= 256 || m <= 2 * ROWS && n >= 2 * m && k >= 1024 {
                product.wide(pool, &a, &b, &finish, dtype, out, Some(pre), sums_of_a)?;
                continue;
            }
            let mut own = None;
            let packed = match &common {
                Some(packed) => packed,
                None => own.insert(pack::<C>(isa, pool, &b, k, n)?),
            };
            product.tall(pool, &a, elements_of(packed), &finish, dtype, out, Some(pre), sums_of_a, !small)?;
        }
        return Ok(());
    }
    let work = |(i, (out, pre)): (usize, (&mut [u8], &mut [u8]))| {
        let (a, b) = at(i);
        let len = n.next_multiple_of(C::width(isa)) * k;
        let mut packed = workspace::<C>(pool, len)?;
        for (p, panel) in packed.as_mut_slice::<C>()[..len].chunks_mut((C::width(isa) * k).max(1)).enumerate() {
            b.pack(isa, k, p * C::width(isa), C::width(isa).min(n - p * C::width(isa)), panel);
        }
        product.tall(pool, &a, elements_of(&packed), &finish, dtype, out, Some(pre), &mut [], false)
    };
    if shape.numel() * k < 32 * 1024 {
        parts.into_iter().enumerate().try_for_each(work)
    } else {
        parts.into_par_iter().enumerate().try_each(work)
    }
}

/// A scratch buffer as elements.
pub(super) fn elements_of<C: Compute>(buffer: &HostBuffer) -> &[C] {
    // SAFETY: the buffer is aligned and every byte of it was initialised.
    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len() / size_of::<C>()) }
}

/// Storage index of every element of a layout, in row-major order.
fn indices(layout: &Layout) -> Vec<usize> {
    let mut out = vec![layout.offset];
    for d in 0..layout.shape.rank() {
        out = out.iter().flat_map(|&base| (0..layout.shape[d]).map(move |i| base + i * layout.strides[d])).collect();
    }
    out
}
