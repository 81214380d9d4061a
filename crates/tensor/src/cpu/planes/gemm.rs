//! Matrix products on tiles.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::{Work, apart, pair_up, planes_of};
use crate::cpu::elementwise::{activate, value_table};
use crate::cpu::finish::{Finish, output_parts};
use crate::cpu::gemm::{Batch, Fused, Matrix, workspace};
use crate::cpu::operand::{BLOCK, elements, elements_mut};
use crate::cpu::table::{Table, look_up};
use crate::cpu::tasks::Tasks as _;
use crate::cpu::tile::{Row, Segment};
use crate::cpu::values::Values;
use crate::cpu::{reduce, row_sums, rows};
use crate::memory::HostBuffer;
use crate::op::{Reduce, Unary};
use crate::simd::Isa;
use crate::simd::amx::{self, Ahead, DEEP, SIDE, TileBlock};
use crate::simd::planes::{self, Seen};
use crate::simd::prefetch;
use crate::{Array, ArrayMut, DType, Dims, Result, bf16, f16};

/// Rows of the product per task at most; and where the packed right operand has no more bytes than stay in the second-level cache, with
/// the results.
const ROWS: usize = 256;
const FEW_ROWS: usize = 96;
const NEAR: usize = 1024 * 1024;
/// Bytes of a left operand's slab, about: with the panels it meets it stays in the second-level cache.
const SLAB: usize = 768 * 1024;
/// Bytes of results of which few lines are found in caches: they are asked for ahead.
const FAR: usize = 8 * 1024 * 1024;
/// Inner places per part of a wide product, and rows per block of it.
const LONG: usize = 512;
const STRIP: usize = 64;
/// Columns per pass over the rows of a task, and at most where each pass packs the rows anew.
const COLUMNS: usize = 512;
const MOST_COLUMNS: usize = 4096;
/// Rows of which memory is asked for ahead.
const AHEAD: usize = 8;
/// Panels packed together: rows of the right operand are read this wide.
const PANELS: usize = 8;
/// Bytes of results per block of a deep product, and 16-bit numbers per row and stretch of its operands: together they stay in the
/// second-level cache.
const RESULTS: usize = 640 * 1024;
const STRETCH: usize = 288;
/// Its inner places per part at least, and parts at most.
const PART: usize = 1024;
const PARTS: usize = 4;
/// Up to so many rows a product is bound by memory, and left to the kernel that reads the right operand as it is.
const SKINNY: usize = 8;
/// Products below it are not worth their packing.
const SMALL: usize = 1 << 17;

/// An activation of an operand, computed as the operand is read.
#[derive(Clone, Copy)]
enum Act {
    Computed(Unary),
    LookedUp(&'static Table<u16>),
}

impl Act {
    /// `None` where there is no such way with the bits of [`crate::Op::Unary`].
    fn new(isa: Isa, row: Unary, x: &Array) -> Option<Act> {
        match x.dtype() {
            _ if !x.is_written() => None,
            DType::F32 => Some(Act::Computed(row)),
            dtype => value_table(isa, row, dtype, x.numel()).map(Act::LookedUp),
        }
    }

    /// `n` numbers, split into planes.
    fn read(
        self,
        work: &Work<'_>,
        values: Values<'_>,
        [start, stride, n]: [usize; 3],
        distance: usize,
        to: &mut [u16],
        seen: &mut Seen,
    ) {
        // As much as is read of a row at a time: more would be cleared in vain.
        const PART: usize = PANELS * SIDE;
        for at in (0..n).step_by(PART) {
            let (part, first, to) = (PART.min(n - at), start + at * stride, &mut to[at..]);
            match self {
                Act::Computed(row) => {
                    let (mut x, mut y) = ([0.0f32; PART], [0.0f32; PART]);
                    let x = if stride == 1 {
                        &bytemuck::cast_slice(values.bytes)[first..first + part]
                    } else {
                        values.load(work.isa, first, stride, &mut x[..part]);
                        &x[..part]
                    };
                    activate(work.isa, row, x, &mut y[..part]);
                    work.read(Values::written(values.dtype, bytemuck::cast_slice(&y[..part])), 0, 1, part, distance, to, seen);
                }
                Act::LookedUp(table) => {
                    let (mut codes, mut results) = ([0; PART], [0; PART]);
                    let from = &bytemuck::cast_slice::<u8, u16>(values.bytes)[first..];
                    let codes = if stride == 1 {
                        &from[..part]
                    } else {
                        codes[..part].iter_mut().zip(from.iter().step_by(stride)).for_each(|(code, &x)| *code = x);
                        &codes[..part]
                    };
                    look_up(table, codes, &mut results[..part], None);
                    work.read(
                        Values::written(values.dtype, bytemuck::cast_slice(&results[..part])),
                        0,
                        1,
                        part,
                        distance,
                        to,
                        seen,
                    );
                }
            }
        }
    }
}

/// Planes of one operand.
#[derive(Clone, Copy)]
struct Planes<'a> {
    /// Which input it is.
    which: usize,
    matrix: Matrix<'a>,
    count: usize,
    act: Option<Act>,
}

impl<'a> Planes<'a> {
    fn new(which: usize, matrix: Matrix<'a>, act: Option<Act>) -> Planes<'a> {
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
    fn ask_later(&self, ahead: &mut Ahead, [row, rows]: [usize; 2], [column, columns]: [usize; 2]) {
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
    fn left(
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
    fn left_turned(
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
                planes::turn(work.isa, &read[plane * DEEP * WIDE + i..], WIDE, to, ld);
            }
            if !sums.is_empty() {
                // What was read is still in the first-level cache.
                self.add_up(work, first + strip, [from + at, part], &mut sums[strip..strip + rows]);
            }
        }
        work.note(self.which, &seen);
    }

    /// Adds `places` inner places from `from` on to sums of rows, of a matrix whose columns lie densely and whose elements are in memory.
    fn add_up(&self, work: &Work<'_>, first: usize, [from, places]: [usize; 2], sums: &mut [f64]) {
        let Matrix { values, offset, strides: [_, ld] } = self.matrix;
        let start = offset + first + from * ld;
        match values.dtype {
            DType::F16 => row_sums::add::<f32, f16>(work.isa, &elements(values.bytes)[start..], ld, places, sums),
            DType::BF16 => row_sums::add::<f32, bf16>(work.isa, &elements(values.bytes)[start..], ld, places, sums),
            // Tiles serve no other dtype.
            DType::F32 | DType::F64 | DType::I64 | DType::U32 | DType::I8 | DType::Bool => {
                row_sums::add::<f32, f32>(work.isa, &elements(values.bytes)[start..], ld, places, sums)
            }
        }
    }

    /// Inner places `from..from + k` of the columns `first..first + columns`, at most [`PANELS`] panels of them, as panels
    /// `[plane][padded / 2][16][2]`.
    fn right(&self, work: &Work<'_>, [from, k, padded]: [usize; 3], [first, columns]: [usize; 2], to: &mut [u16]) {
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
                        pair_up(work.isa, &read[plane * SIDE * LONG..], LONG, count, part, to, 2 * SIDE);
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
                    planes::zip(work.isa, row(0), row(1), &mut to[plane * distance + l * SIDE..][..2 * SIDE]);
                }
            }
        }
        work.note(self.which, &seen);
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
        packed.as_mut_slice::<u16>()[..len].par_chunks_mut(PANELS * self.panel()).enumerate().each(|(i, panels)| {
            let first = i * PANELS * SIDE;
            self.b.right(work, [0, self.k, self.padded()], [first, (PANELS * SIDE).min(self.n - first)], panels);
        });
        Ok(packed)
    }

    /// A product with many rows, in blocks of rows.
    fn tall(&self, work: &Work<'_>, packed: &[u16], target: Target<'_>, parallel: bool) -> Result<()> {
        let (&Product { m, k, n, .. }, Target { finish, dtype, out, pre }) = (self, target);
        // How the work is split does not change bits: a result's sum over the inner dimension is the same in any block.
        // A right operand that does not stay in the second-level cache is read once a block: larger ones then.
        let most = if size_of::<u16>() * self.panel() * n.div_ceil(SIDE) <= NEAR { FEW_ROWS } else { ROWS };
        let block = m.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(2 * SIDE).min(most);
        // As many inner places at a time as a slab has room for; all of them leave the columns to be taken a few at a time.
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
            let direct = finish.is_plain() && dtype == DType::F32 && n.is_multiple_of(SIDE);
            let ld = if direct { n } else { pass.next_multiple_of(SIDE) };
            let mut acc = workspace::<f32>(work.pool, if direct { 0 } else { rows * ld })?;
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
                        let share =
                            if parts > 1 { 0..next } else { next * (at / pass) / passes..next * (at / pass + 1) / passes };
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
                    amx::run_asking(work.isa, block, &mut ahead);
                }
                if !direct {
                    finish.rows(&mut acc.as_mut_slice::<f32>()[..rows * ld], ld, at, columns, n, out, pre, dtype);
                }
            }
            Ok(())
        };
        let parts = output_parts(out, Some(pre), block * n * dtype.size());
        if parallel { parts.into_par_iter().enumerate().try_each(task) } else { parts.into_iter().enumerate().try_for_each(task) }
    }

    /// Whether both operands have the inner dimension as the slow one in memory, and it is long: as for the gradients of weights. Wide
    /// results are not served: their tiles lie in too many pages.
    fn is_deep(&self) -> bool {
        let &Product { m, k, n, a, b } = self;
        a.matrix.strides[0] == 1 && b.matrix.strides[1] == 1 && m >= n && k >= PART && k >= 2 * m
    }

    /// A deep product: operands are read once, a stretch of the inner dimension at a time, and added to results that stay in the
    /// second-level cache. Adds up the rows of the left one if there is room for the sums.
    fn deep(&self, work: &Work<'_>, target: Target<'_>, sums: &mut [f64]) -> Result<()> {
        let (&Product { m, k, n, a, b }, Target { finish, dtype, out, pre }) = (self, target);
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
        let mut acc = workspace::<f32>(work.pool, len)?;
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
                amx::run_asking(work.isa, block, &mut ahead);
            }
            Ok::<(), crate::Error>(())
        })?;
        if !work.is_exact() {
            return Ok(());
        }
        row_sums::total(&sums_of_parts, sums);
        let acc = &*acc;
        output_parts(out, Some(pre), n * dtype.size()).into_par_iter().with_min_len((4 * BLOCK).div_ceil(n)).enumerate().each(
            |(i, (out, pre))| {
                let mut sums = [0.0; BLOCK];
                for at in (0..n).step_by(columns) {
                    let block = i / rows * across + at / columns;
                    let row = |part: usize| &acc[((part * blocks(size) + block) * rows + i % rows) * columns..][..columns];
                    for first in (0..columns.min(n - at)).step_by(BLOCK) {
                        let count = BLOCK.min(columns.min(n - at) - first);
                        let sums = &mut sums[..count];
                        sums.copy_from_slice(&row(0)[first..first + count]);
                        for part in 1..parts {
                            sums.iter_mut().zip(&row(part)[first..]).for_each(|(sum, &x)| *sum += x);
                        }
                        finish.rows(sums, count, at + first, count, n, out, pre, dtype);
                    }
                }
            },
        );
        Ok(())
    }

    /// A product with more columns than rows, in blocks of columns, each of which packs its own; all read the rows, packed before and added up if
    /// there is room for their sums.
    fn wide(&self, work: &Work<'_>, target: Target<'_>, sums: &mut [f64]) -> Result<()> {
        let (&Product { m, k, n, .. }, Target { finish, dtype, out, pre }) = (self, target);
        // How the work is split does not change bits: a result's sum over the inner dimension is the same in any block.
        let columns = n.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(2 * SIDE).min(3 * PANELS * SIDE);
        let deep = self.padded().div_ceil(self.padded().div_ceil(LONG)).next_multiple_of(DEEP);
        let lda = apart(deep);
        // [part of the inner dimension][block of rows][plane][row][place]
        let size = self.a.count * STRIP * lda;
        let blocks = m.div_ceil(STRIP);
        let len = self.padded().div_ceil(deep) * blocks * size;
        let mut left = work.halves(len)?;
        // [part][row]
        let mut sums_of_parts = vec![0.0; len / (blocks * size) * sums.len()];
        let mut pieces: Vec<&mut [f64]> = sums_of_parts.chunks_mut(m).flat_map(|part| part.chunks_mut(STRIP)).collect();
        pieces.resize_with(len / size, Default::default);
        left.as_mut_slice::<u16>()[..len].par_chunks_mut(size).zip(pieces).enumerate().each(|(i, (to, sums))| {
            let (from, first) = (i / blocks * deep, i % blocks * STRIP);
            let (rows, deep) = ([first, STRIP.min(m - first)], [from, deep.min(k - from)]);
            if sums.is_empty() {
                self.a.left(work, rows, deep, lda, STRIP * lda, to);
            } else {
                self.a.left_turned(work, rows, deep, lda, STRIP * lda, to, sums);
            }
        });
        if !work.is_exact() {
            return Ok(());
        }
        row_sums::total(&sums_of_parts, sums);
        let left = super::halves_of(&left);
        let len = n.div_ceil(columns) * m * columns;
        let mut acc = workspace::<f32>(work.pool, len)?;
        let acc = &mut acc.as_mut_slice::<f32>()[..len];
        acc.par_chunks_mut(m * columns).enumerate().try_each(|(i, acc)| {
            let (first, count) = (i * columns, columns.min(n - i * columns));
            let panel = self.b.count * deep * SIDE;
            let mut packed = work.halves(count.div_ceil(SIDE) * panel)?;
            let packed = &mut packed.as_mut_slice::<u16>()[..count.div_ceil(SIDE) * panel];
            for (part, left) in left.chunks(blocks * size).enumerate() {
                let from = part * deep;
                for (j, panels) in packed.chunks_mut(PANELS * panel).enumerate() {
                    let at = j * PANELS * SIDE;
                    let inner = [from, deep.min(k - from), deep];
                    self.b.right(work, inner, [first + at, (PANELS * SIDE).min(count - at)], panels);
                }
                if !work.is_exact() {
                    return Ok(());
                }
                for (block, left) in left.chunks(size).enumerate() {
                    let rows = block * STRIP..m.min((block + 1) * STRIP);
                    let rows: SmallVec<[Row; STRIP]> =
                        rows.enumerate().map(|(i, row)| Row { a: i * lda, acc: row * columns }).collect();
                    let block = TileBlock {
                        a: left,
                        a_planes: (self.a.count, STRIP * lda),
                        rows: &rows,
                        b: packed,
                        b_planes: (self.b.count, deep * SIDE),
                        b_pair: 2 * SIDE,
                        panel,
                        columns: count,
                        segments: &[Segment { a: 0, b: 0, len: deep.min(k - from).next_multiple_of(DEEP) }],
                        acc,
                        add: part > 0,
                    };
                    amx::run(work.isa, block);
                }
            }
            Ok::<(), crate::Error>(())
        })?;
        let acc = &*acc;
        output_parts(out, Some(pre), n * dtype.size()).into_par_iter().with_min_len((4 * BLOCK).div_ceil(n)).enumerate().each(
            |(i, (out, pre))| {
                for first in (0..n).step_by(columns) {
                    let count = columns.min(n - first);
                    let mut row: SmallVec<[f32; 3 * PANELS * SIDE]> =
                        SmallVec::from_slice(&acc[(first / columns * m + i) * columns..][..count]);
                    finish.rows(&mut row, count, first, count, n, out, pre, dtype);
                }
            },
        );
        Ok(())
    }
}

pub(super) fn matmul(work: &Work<'_>, fused: Fused, ins: &[&Array], bytes: &[&[u8]], outs: &mut [ArrayMut<'_>]) -> Result<bool> {
    let (shape, dtype) = (*outs[0].array().shape(), outs[0].array().dtype());
    let batch = Batch::new(&shape, ins, bytes);
    let [m, k, n] = batch.extents;
    if m <= SKINNY || n < SIDE || k < SIDE || m * n * k < SMALL {
        return Ok(false);
    }
    let acts = [(fused.left, ins[0]), (fused.right, ins[1])].map(|(row, x)| row.map(|row| Act::new(work.isa, row, x)));
    if acts.iter().any(|act| act.is_some_and(|act| act.is_none())) {
        return Ok(false);
    }
    let finish = Finish::<f32>::new(work.isa, fused.epilogue, ins, bytes);
    let packs = fused.sums_rows(ins, outs);
    let (outs, sums) = outs.split_at_mut(outs.len() - fused.sums as usize);
    let (first, rest) = outs.split_at_mut(1);
    let (Some(out), pre) = (first[0].bytes(), rest.first_mut().and_then(ArrayMut::bytes)) else { return Ok(true) };
    let total = shape.numel() * dtype.size();
    let parts = output_parts(&mut out[..total], pre.map(|p| &mut p[..total]), m * n * dtype.size());
    let product = |i: usize| {
        let (a, b) = batch.operands(i);
        Product { m, k, n, a: Planes::new(0, a, acts[0].flatten()), b: Planes::new(1, b, acts[1].flatten()) }
    };
    let target = |(out, pre)| Target { finish: &finish, dtype, out, pre };
    if parts.len() > 1 && m * n * k < 1 << 24 && !batch.shares_b {
        parts.into_par_iter().enumerate().try_each(|(i, part)| {
            let product = product(i);
            let packed = product.pack_right(work)?;
            product.tall(work, super::halves_of(&packed), target(part), false)
        })?;
        return Ok(work.holds(0, 1));
    }
    let mut common = None;
    let mut sums_of_a = vec![0.0; if packs && (n > m || parts.len() == 1 && product(0).is_deep()) { m } else { 0 }];
    for (i, part) in parts.into_iter().enumerate() {
        let product = product(i);
        if product.is_deep() {
            product.deep(work, target(part), &mut sums_of_a)?;
            continue;
        }
        if n > m {
            product.wide(work, target(part), &mut sums_of_a)?;
            continue;
        }
        if common.is_none() || !batch.shares_b {
            common = Some(product.pack_right(work)?);
        }
        if let (Some(packed), true) = (&common, work.is_exact()) {
            product.tall(work, super::halves_of(packed), target(part), true)?;
        }
    }
    let holds = work.holds(0, 1);
    if let (true, [sums]) = (holds, sums) {
        if sums_of_a.is_empty() {
            reduce::reduce::<f32>(work.isa, Reduce::Sum, Dims::one(1), ins[0], bytes[0], sums);
        } else {
            rows::write(work.isa, &sums_of_a, sums);
        }
    }
    Ok(holds)
}
