//! [`View`]: elements in a file in the order and type that a model wants them, a block at a time.

use std::borrow::Cow;

use binade_tensor::{DType, Element};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::FileDType;
use crate::entry::row_major;

/// Elements that are converted at a time, in buffers on the stack.
pub(crate) const BLOCK: usize = 1024;
/// Elements that a thread takes at a time.
pub(crate) const CHUNK: usize = 64 * BLOCK;

/// Elements that are converted before they are written to a file.
const STREAMED: usize = 1 << 18;

/// Rows that a thread takes of a matrix that lies in the other order: a line of the cache of the narrowest elements
/// that are common in such files.
const TILE: usize = 32;

/// A tensor in a mapped file. Its bytes need no alignment.
#[derive(Clone, Debug)]
pub(crate) struct View<'a> {
    pub(crate) dtype: &'a FileDType,
    bytes: &'a [u8],
    shape: Vec<usize>,
    strides: Vec<usize>,
    size: usize,
    dense: bool,
}

impl<'a> View<'a> {
    /// `strides` are in elements; `None` if the type is not read.
    pub(crate) fn new(
        dtype: &'a FileDType,
        bytes: &'a [u8],
        shape: Vec<usize>,
        strides: Option<Vec<usize>>,
    ) -> Option<View<'a>> {
        dtype.dtype()?;
        let size = dtype.size()?;
        let strides = strides.unwrap_or_else(|| row_major(&shape));
        let view = View { dtype, bytes, shape, strides, size, dense: false };
        Some(View { dense: view.is_dense(), ..view })
    }

    fn is_dense(&self) -> bool {
        let natural = row_major(&self.shape);
        self.numel() == 0
            || self.shape.iter().zip(self.strides.iter().zip(&natural)).all(|(n, (a, b))| *n == 1 || a == b)
    }

    /// With its two dimensions exchanged.
    pub(crate) fn transposed(mut self) -> View<'a> {
        self.shape.reverse();
        self.strides.reverse();
        View { dense: self.is_dense(), ..self }
    }

    /// The same elements in the order of the file, for what only counts them.
    fn in_file_order(&self) -> View<'a> {
        let mut dims: Vec<usize> = (0..self.shape.len()).collect();
        dims.sort_by_key(|&d| std::cmp::Reverse(self.strides[d]));
        let of = |extents: &[usize]| dims.iter().map(|&d| extents[d]).collect();
        let view = View { shape: of(&self.shape), strides: of(&self.strides), ..self.clone() };
        View { dense: view.is_dense(), ..view }
    }

    pub(crate) fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes of elements in row-major order, if they lie so in the file.
    pub(crate) fn dense(&self) -> Option<&'a [u8]> {
        self.dense.then(|| &self.bytes[..self.numel() * self.size])
    }

    /// Whether the bytes of elements are those of memory. A boolean in a file may be any byte.
    fn is_stored_as(&self, to: DType) -> bool {
        cfg!(target_endian = "little") && self.dtype.is(to) && to != DType::Bool
    }

    /// Writes the elements from `start` on, as `to`, until `out` is full.
    pub(crate) fn fill(&self, start: usize, to: DType, out: &mut [u8]) {
        let (size, width) = (self.size, to.size());
        if let (true, Some(bytes)) = (self.is_stored_as(to), self.dense()) {
            out.copy_from_slice(&bytes[start * size..][..out.len()]);
            return;
        }
        for (i, out) in out.chunks_mut(BLOCK * width).enumerate() {
            convert(self.dtype, &self.raw(start + i * BLOCK, out.len() / width), to, out);
        }
    }

    /// [`View::fill`] by all threads. Of a matrix that lies in order of its columns `start` begins a row.
    pub(crate) fn fill_from(&self, start: usize, to: DType, out: &mut [u8]) {
        match (self.dense, &self.shape[..], &self.strides[..]) {
            (false, &[_, columns], &[1, step]) => {
                let (first, strip) = (start / columns, TILE * columns * to.size());
                let rows = |(i, out): (usize, &mut [u8])| self.fill_rows(first + i * TILE, step, to, out);
                out.par_chunks_mut(strip).enumerate().for_each(rows);
            }
            _ => {
                let part = |(i, out): (usize, &mut [u8])| self.fill(start + i * CHUNK, to, out);
                out.par_chunks_mut(CHUNK * to.size()).enumerate().for_each(part);
            }
        }
    }

    /// All elements.
    pub(crate) fn fill_all(&self, to: DType, out: &mut [u8]) {
        self.fill_from(0, to, out);
    }

    /// Hands all elements to `write` in row-major order, in pieces: as they lie where they need no change.
    pub(crate) fn stream<E>(&self, to: DType, mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if let (true, Some(bytes)) = (self.is_stored_as(to), self.dense()) {
            return write(bytes);
        }
        // Whole strips of rows, where rows are to be gathered.
        let row = self.shape.last().copied().unwrap_or(1).max(1);
        let piece = if self.dense { STREAMED } else { row * (STREAMED / row).clamp(TILE, STREAMED) };
        let numel = self.numel();
        let mut buffer = vec![0; piece.min(numel) * to.size()];
        for start in (0..numel).step_by(piece) {
            let out = &mut buffer[..piece.min(numel - start) * to.size()];
            self.fill_from(start, to, out);
            write(out)?;
        }
        Ok(())
    }

    /// Rows of a matrix that lies in order of its columns, `step` elements each: read by tiles, so that what a line of
    /// the cache holds is used at once.
    fn fill_rows(&self, first: usize, step: usize, to: DType, out: &mut [u8]) {
        const COLUMNS: usize = 64;
        let (size, width, columns) = (self.size, to.size(), self.shape[1]);
        let rows = out.len() / (columns * width);
        let mut tile = [0u8; TILE * COLUMNS * 8];
        for column in (0..columns).step_by(COLUMNS) {
            let n = COLUMNS.min(columns - column);
            for c in 0..n {
                let from = &self.bytes[((column + c) * step + first) * size..][..rows * size];
                match size {
                    2 => scatter::<2>(from, &mut tile, n, c),
                    4 => scatter::<4>(from, &mut tile, n, c),
                    8 => scatter::<8>(from, &mut tile, n, c),
                    _ => scatter::<1>(from, &mut tile, n, c),
                }
            }
            for row in 0..rows {
                let raw = &tile[row * n * size..][..n * size];
                let out = &mut out[(row * columns + column) * width..][..n * width];
                if self.is_stored_as(to) {
                    out.copy_from_slice(raw);
                } else {
                    convert(self.dtype, raw, to, out);
                }
            }
        }
    }

    /// Calls `see` for each block of elements in the order of the file, as f64 or f32, by all threads, and joins what
    /// it returns.
    pub(crate) fn scan<T: Send>(
        &self,
        see: impl Fn(Values<'_>) -> T + Sync,
        join: impl Fn(T, T) -> T + Sync,
    ) -> Option<T> {
        let (view, numel, chunk) = (self.in_file_order(), self.numel(), CHUNK);
        let of_chunk = |i: usize| {
            let (start, end) = (i * chunk, numel.min((i + 1) * chunk));
            let blocks = (start..end).step_by(BLOCK).map(|at| {
                let n = BLOCK.min(end - at);
                let raw = view.raw(at, n);
                if is_narrow(self.dtype) {
                    let mut values = [0f32; BLOCK];
                    widen(self.dtype, &raw, &mut values[..n]);
                    see(Values::F32(&values[..n]))
                } else {
                    let mut values = [0f64; BLOCK];
                    widen64(self.dtype, &raw, &mut values[..n]);
                    see(Values::F64(&values[..n]))
                }
            });
            blocks.reduce(&join)
        };
        (0..numel.div_ceil(chunk)).into_par_iter().filter_map(of_chunk).reduce_with(&join)
    }

    /// The bytes of `n` elements from `start` on in row-major order.
    fn raw(&self, start: usize, n: usize) -> Cow<'a, [u8]> {
        let size = self.size;
        if self.dense {
            return Cow::Borrowed(&self.bytes[start * size..(start + n) * size]);
        }
        let mut out = Vec::with_capacity(n * size);
        // The place of `start`, then on as an odometer.
        let (mut index, mut rest) = (vec![0; self.shape.len()], start);
        for (at, extent) in index.iter_mut().zip(&self.shape).rev() {
            (*at, rest) = (rest % extent, rest / extent);
        }
        let mut at: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
        for _ in 0..n {
            out.extend_from_slice(&self.bytes[at * size..(at + 1) * size]);
            for d in (0..index.len()).rev() {
                index[d] += 1;
                at += self.strides[d];
                if index[d] < self.shape[d] {
                    break;
                }
                at -= self.strides[d] * self.shape[d];
                index[d] = 0;
            }
        }
        Cow::Owned(out)
    }
}

/// Puts a column's elements into a tile with rows of `n`.
fn scatter<const N: usize>(from: &[u8], tile: &mut [u8], n: usize, column: usize) {
    let places = tile.as_chunks_mut::<N>().0[column..].iter_mut().step_by(n);
    for (place, element) in places.zip(from.as_chunks::<N>().0) {
        *place = *element;
    }
}

/// A block of elements, widened without loss (but for integers beyond 2⁵³).
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

/// Whether f32 holds every value.
fn is_narrow(dtype: &FileDType) -> bool {
    use FileDType::*;
    match dtype {
        F32 | F16 | BF16 | I16 | I8 | U8 | Bool | U16 => true,
        F64 | I64 | I32 | U32 | U64 | Other(_) => false,
    }
}

/// Rounds once, to nearest even.
fn convert(from: &FileDType, raw: &[u8], to: DType, out: &mut [u8]) {
    let n = out.len() / to.size();
    if is_narrow(from) && matches!(to, DType::F32 | DType::F16 | DType::BF16) {
        let mut values = [0f32; BLOCK];
        widen(from, raw, &mut values[..n]);
        narrow(&values[..n], to, out);
    } else {
        let mut values = [0f64; BLOCK];
        widen64(from, raw, &mut values[..n]);
        narrow64(&values[..n], to, out);
    }
}

/// Calls `f` with each element's bytes and its place.
fn each<const N: usize, T>(raw: &[u8], out: &mut [T], f: impl Fn([u8; N]) -> T) {
    for (value, bytes) in out.iter_mut().zip(raw.as_chunks::<N>().0) {
        *value = f(*bytes);
    }
}

fn widen(from: &FileDType, raw: &[u8], out: &mut [f32]) {
    match from {
        FileDType::F32 => each(raw, out, f32::from_le_bytes),
        FileDType::F16 => {
            let mut values = [f16::ZERO; BLOCK];
            each(raw, &mut values, |b| f16::from_bits(u16::from_le_bytes(b)));
            values[..out.len()].convert_to_f32_slice(out);
        }
        FileDType::BF16 => each(raw, out, |b| f32::from_bits((u16::from_le_bytes(b) as u32) << 16)),
        FileDType::I16 => each(raw, out, |b| i16::from_le_bytes(b) as f32),
        FileDType::U16 => each(raw, out, |b| u16::from_le_bytes(b) as f32),
        FileDType::I8 => each(raw, out, |[b]| b as i8 as f32),
        FileDType::U8 => each(raw, out, |[b]| b as f32),
        FileDType::Bool => each(raw, out, |[b]| (b != 0) as u8 as f32),
        // `is_narrow` says who comes here.
        FileDType::F64 | FileDType::I64 | FileDType::I32 | FileDType::U32 | FileDType::U64 | FileDType::Other(_) => {
            out.fill(f32::NAN)
        }
    }
}

fn widen64(from: &FileDType, raw: &[u8], out: &mut [f64]) {
    match from {
        FileDType::F64 => each(raw, out, f64::from_le_bytes),
        FileDType::I64 => each(raw, out, |b| i64::from_le_bytes(b) as f64),
        FileDType::I32 => each(raw, out, |b| i32::from_le_bytes(b) as f64),
        FileDType::U32 => each(raw, out, |b| u32::from_le_bytes(b) as f64),
        FileDType::U64 => each(raw, out, |b| u64::from_le_bytes(b) as f64),
        narrow => {
            let mut values = [0f32; BLOCK];
            widen(narrow, raw, &mut values[..out.len()]);
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value as f64);
        }
    }
}

fn put<const N: usize, T: Copy>(values: &[T], out: &mut [u8], f: impl Fn(T) -> [u8; N]) {
    for (bytes, value) in out.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *bytes = f(*value);
    }
}

/// f32 as a float of memory.
pub(crate) fn narrow(values: &[f32], to: DType, out: &mut [u8]) {
    match to {
        DType::F32 => put(values, out, f32::to_ne_bytes),
        DType::F16 => {
            let mut rounded = [f16::ZERO; BLOCK];
            rounded[..values.len()].convert_from_f32_slice(values);
            put(&rounded[..values.len()], out, f16::to_ne_bytes);
        }
        DType::BF16 => {
            let mut rounded = [bf16::ZERO; BLOCK];
            rounded[..values.len()].convert_from_f32_slice(values);
            put(&rounded[..values.len()], out, bf16::to_ne_bytes);
        }
        DType::F64 | DType::I64 | DType::U32 | DType::I8 | DType::Bool => {
            let mut wide = [0f64; BLOCK];
            wide.iter_mut().zip(values).for_each(|(wide, value)| *wide = *value as f64);
            narrow64(&wide[..values.len()], to, out);
        }
    }
}

pub(crate) fn narrow64(values: &[f64], to: DType, out: &mut [u8]) {
    match to {
        DType::F64 => put(values, out, f64::to_ne_bytes),
        DType::F32 => put(values, out, |v| (v as f32).to_ne_bytes()),
        DType::F16 => put(values, out, |v| <f16 as Element>::from_f64(v).to_ne_bytes()),
        DType::BF16 => put(values, out, |v| <bf16 as Element>::from_f64(v).to_ne_bytes()),
        DType::I64 => put(values, out, |v| (v as i64).to_ne_bytes()),
        DType::U32 => put(values, out, |v| (v as u32).to_ne_bytes()),
        DType::I8 => put(values, out, |v| (v as i8).to_ne_bytes()),
        DType::Bool => put(values, out, |v| [(v != 0.0) as u8]),
    }
}
