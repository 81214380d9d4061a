//! Reading and writing tensors of any dtype and strides in blocks of the computing type.
//!
//! Every kernel but the contractions is block-buffered: a block of each input is widened into a buffer that stays in
//! the first-level cache, computed on, and rounded once into the output. So one kernel serves every mixture of dtypes.
//! Where all operands are dense and of one dtype, kernels may read and write them in place instead ([`in_storage`]).

use crate::kernel::{In, Out};
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::tasks::Tasks as _;
use super::values::{self, Values};
use crate::simd::convert::{Convert, f64_to_f32_odd};
use crate::simd::{Isa, Real};
use binade_tensor::{DType, Element, Layout, MAX_RANK, bf16, f16};

/// Elements per block.
pub const BLOCK: usize = 1024;
/// Elements per task; smaller tensors run on the calling thread.
pub const TASK: usize = 16 * BLOCK;

/// A type kernels compute in: f32, or f64 where an operand is f64.
pub trait Compute: Real {
    /// The nearest number to an integer.
    fn from_i32(value: i32) -> Self;
    /// Widens `to.len()` elements of `dtype` from `start` on, `stride` apart.
    fn load(isa: Isa, dtype: DType, bytes: &[u8], start: usize, stride: usize, to: &mut [Self]);
    /// As [`Values::load_rows`].
    fn load_rows(
        isa: Isa,
        values: &Values<'_>,
        start: usize,
        distance: usize,
        extents: [usize; 2],
        to: &mut [Self],
        ld: usize,
    );
    /// Rounds once to `dtype` and writes from `start` on.
    fn store(isa: Isa, from: &[Self], to: &mut [u8], dtype: DType);
}

/// `eˣ` of one number. Not that of the standard library, which is the system's: bits would depend on it.
pub fn exp<C: Compute>(x: C) -> C {
    C::from_f64(libm::exp(x.as_f64()))
}

/// `ln x` of one number, as [`exp`].
pub fn ln<C: Compute>(x: C) -> C {
    C::from_f64(libm::log(x.as_f64()))
}

/// The bytes of a host tensor as elements.
pub fn elements<T: Element>(bytes: &[u8]) -> &[T] {
    debug_assert!(bytes.as_ptr().cast::<T>().is_aligned());
    // SAFETY: storage is 64-byte aligned and initialised; every bit pattern but bool's is a value, and bool storage
    // only ever receives bools.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) }
}

/// As [`elements`], for writing.
pub fn elements_mut<T: Element>(bytes: &mut [u8]) -> &mut [T] {
    debug_assert!(bytes.as_ptr().cast::<T>().is_aligned());
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>()) }
}

fn gather<T: Element, C>(bytes: &[u8], start: usize, stride: usize, to: &mut [C], f: impl Fn(T) -> C) {
    let from = &elements::<T>(bytes)[start..];
    to.iter_mut().enumerate().for_each(|(i, t)| *t = f(from[i * stride]));
}

impl Compute for f32 {
    fn from_i32(value: i32) -> f32 {
        value as f32
    }

    fn load_rows(
        isa: Isa,
        values: &Values<'_>,
        start: usize,
        distance: usize,
        extents: [usize; 2],
        to: &mut [f32],
        ld: usize,
    ) {
        values::load_rows(isa, values, start, distance, extents, to, ld);
    }

    fn load(isa: Isa, dtype: DType, bytes: &[u8], start: usize, stride: usize, to: &mut [f32]) {
        let n = to.len();
        match (dtype, stride) {
            (DType::F32, 1) => to.copy_from_slice(&elements::<f32>(bytes)[start..start + n]),
            (DType::F16, 1) => f16::widen(isa, &elements(bytes)[start..start + n], to),
            (DType::BF16, 1) => bf16::widen(isa, &elements(bytes)[start..start + n], to),
            (DType::F32, _) => gather(bytes, start, stride, to, |v: f32| v),
            (DType::F16, _) => gather(bytes, start, stride, to, f16::to_f32),
            (DType::BF16, _) => gather(bytes, start, stride, to, bf16::to_f32),
            (DType::F64, _) => gather(bytes, start, stride, to, |v: f64| v as f32),
            (DType::I64, _) => gather(bytes, start, stride, to, |v: i64| v as f32),
            (DType::U32, _) => gather(bytes, start, stride, to, |v: u32| v as f32),
            (DType::I8, _) => gather(bytes, start, stride, to, |v: i8| v as f32),
            (DType::Bool, _) => gather(bytes, start, stride, to, |v: bool| v as u8 as f32),
        }
    }

    fn store(isa: Isa, from: &[f32], to: &mut [u8], dtype: DType) {
        match dtype {
            DType::F32 => elements_mut::<f32>(to).copy_from_slice(from),
            DType::F16 => f16::narrow(isa, from, elements_mut(to)),
            DType::BF16 => bf16::narrow(isa, from, elements_mut(to)),
            DType::F64 => write(from, to, |v| v as f64),
            DType::I64 => write(from, to, |v| v as i64),
            DType::U32 => write(from, to, |v| v as u32),
            DType::I8 => write(from, to, |v| v as i8),
            DType::Bool => write(from, to, |v| v != 0.0),
        }
    }
}

impl Compute for f64 {
    fn from_i32(value: i32) -> f64 {
        value.into()
    }

    fn load_rows(
        isa: Isa,
        values: &Values<'_>,
        start: usize,
        distance: usize,
        extents: [usize; 2],
        to: &mut [f64],
        ld: usize,
    ) {
        values::load_each(isa, values, start, distance, extents, to, ld);
    }

    fn load(_isa: Isa, dtype: DType, bytes: &[u8], start: usize, stride: usize, to: &mut [f64]) {
        binade_tensor::with_element!(dtype, T => gather(bytes, start, stride, to, |v: T| v.as_f64()));
    }

    fn store(_isa: Isa, from: &[f64], to: &mut [u8], dtype: DType) {
        match dtype {
            DType::F64 => elements_mut::<f64>(to).copy_from_slice(from),
            DType::F32 => write(from, to, |v| v as f32),
            DType::F16 => write(from, to, |v| f16::from_f32(f64_to_f32_odd(v))),
            DType::BF16 => write(from, to, |v| bf16::from_f32(f64_to_f32_odd(v))),
            DType::I64 => write(from, to, |v| v as i64),
            DType::U32 => write(from, to, |v| v as u32),
            DType::I8 => write(from, to, |v| v as i8),
            DType::Bool => write(from, to, |v| v != 0.0),
        }
    }
}

fn write<C: Copy, T: Element>(from: &[C], to: &mut [u8], f: impl Fn(C) -> T) {
    elements_mut(to).iter_mut().zip(from).for_each(|(t, &v)| *t = f(v));
}

/// An input, its dimensions in the order they are walked and merged where memory allows.
pub struct Operand<'a> {
    values: Values<'a>,
    offset: usize,
    /// (extent, stride), innermost last; never empty.
    dims: smallvec::SmallVec<[(usize, usize); MAX_RANK]>,
    /// The output is written over it: there are no bytes, and what the output held is handed to kernels block by block.
    over: bool,
}

/// A dense operand: its elements, or the output that is written over them.
#[derive(Clone, Copy)]
pub enum Dense<'a, T> {
    Apart(&'a [T]),
    Over,
}

impl<'a, T> Dense<'a, T> {
    /// The elements from `start` on that belong to `n` of the output, which held `old`.
    pub fn part(self, start: usize, n: usize, old: &'a [T]) -> &'a [T] {
        match self {
            Dense::Apart(elements) => &elements[start..start + n],
            Dense::Over => old,
        }
    }
}

impl<'a> Operand<'a> {
    /// The elements of an array expanded to `shape`, walked in the order `order` of its dimensions (outermost first).
    pub fn new(array: In<'a>, shape: &[usize], order: &[usize]) -> Operand<'a> {
        let values = Values::new(array);
        Operand { values, ..Operand::from_layout(array.dtype(), array.layout(), array.bytes, shape, order) }
    }

    /// As [`Operand::new`], from the parts of an array that lies in memory in its dtype.
    pub fn from_layout(
        dtype: DType,
        layout: &Layout,
        bytes: &'a [u8],
        shape: &[usize],
        order: &[usize],
    ) -> Operand<'a> {
        let lead = shape.len() - layout.shape.rank();
        let mut dims = smallvec::SmallVec::<[(usize, usize); MAX_RANK]>::new();
        for &d in order {
            let extent = shape[d];
            let stride = if d < lead || layout.shape[d - lead] == 1 { 0 } else { layout.strides[d - lead] };
            if extent == 1 {
                continue;
            }
            match dims.last_mut() {
                Some(last) if last.1 == stride * extent => *last = (last.0 * extent, stride),
                Some(_) | None => dims.push((extent, stride)),
            }
        }
        if dims.is_empty() {
            dims.push((1, 1));
        }
        Operand { values: Values::written(dtype, bytes), offset: layout.offset, dims, over: false }
    }

    /// The same, with the output written over it.
    pub fn over(self) -> Operand<'a> {
        Operand { over: true, ..self }
    }

    /// Whether the output is written over it.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.values.dtype
    }

    /// All elements in the walk order, if they lie so in memory and are of type `T`.
    pub fn dense<T: Element>(&self) -> Option<&'a [T]> {
        let run = self.run().filter(|_| self.dtype() == T::DTYPE)?;
        elements(self.values.bytes).get(run)
    }

    /// As [`Operand::dense`], for kernels that can write over the operand.
    pub fn dense_or_over<T: Element>(&self) -> Option<Dense<'a, T>> {
        if self.over { (self.dtype() == T::DTYPE).then_some(Dense::Over) } else { self.dense().map(Dense::Apart) }
    }

    /// The codes of a 16-bit format, as [`Operand::dense`].
    pub fn codes(&self) -> Option<&'a [u16]> {
        let run = self.run().filter(|_| self.dtype().is_half())?;
        bytemuck::cast_slice(self.values.bytes).get(run)
    }

    /// The bytes of elements of any type, as [`Operand::dense`].
    pub fn dense_bytes(&self) -> Option<&'a [u8]> {
        let (run, size) = (self.run()?, self.dtype().size());
        self.values.bytes.get(run.start * size..run.end * size)
    }

    /// Storage indices, if they follow each other.
    fn run(&self) -> Option<std::ops::Range<usize>> {
        match self.dims[..] {
            [(extent, 1)] if !self.over && self.values.is_written() => Some(self.offset..self.offset + extent),
            _ => None,
        }
    }

    /// Whether [`Operand::block`] needs no buffer wherever it starts.
    pub fn is_borrowed<C: Compute>(&self, n: usize) -> bool {
        let (_, stride) = self.dims[self.dims.len() - 1];
        n == 0 || self.dtype() == C::DTYPE && self.dims.len() == 1 && stride == 1
    }

    /// The elements at flat positions `start..start + n`: borrowed where no conversion is needed, else in `buffer`.
    pub fn block<'b, C: Compute>(&'b self, isa: Isa, start: usize, n: usize, buffer: &'b mut [C]) -> &'b [C] {
        self.borrowed(start, n).unwrap_or_else(|| {
            self.load(isa, start, &mut buffer[..n]);
            &buffer[..n]
        })
    }

    /// As [`Operand::block`], in a buffer that is made ready only if it is needed; `old` is what an output that may be
    /// written over the operand held there.
    pub fn block_in<'b, C: Compute>(
        &'b self,
        isa: Isa,
        start: usize,
        n: usize,
        old: &'b [C],
        buffer: &'b mut Buffer<C>,
    ) -> &'b [C] {
        if self.over {
            return old;
        }
        self.borrowed(start, n).unwrap_or_else(|| {
            let to = buffer.first(n);
            self.load(isa, start, to);
            to
        })
    }

    fn borrowed<C: Compute>(&self, start: usize, n: usize) -> Option<&[C]> {
        let (extent, stride) = self.dims[self.dims.len() - 1];
        if stride == 1 && self.dtype() == C::DTYPE && (self.dims.len() == 1 || start % extent + n <= extent) {
            let from = self.position(start);
            return Some(&elements::<C>(self.values.bytes)[from..from + n]);
        }
        None
    }

    /// Widens the elements at flat positions `start..start + to.len()`.
    pub fn load<C: Compute>(&self, isa: Isa, start: usize, to: &mut [C]) {
        self.runs(start, to.len(), |from, stride, range| {
            let part = &mut to[range];
            if stride == 0 {
                self.values.load(isa, from, 1, &mut part[..1]);
                let value = part[0];
                part.fill(value);
            } else {
                self.values.load(isa, from, stride, part);
            }
        });
    }

    /// Widens all elements, on all threads.
    pub fn load_all<C: Compute>(&self, isa: Isa, to: &mut [C]) {
        to.par_chunks_mut(TASK).enumerate().each(|(i, part)| self.load(isa, i * TASK, part));
    }

    /// Widens `rows` rows of `columns` elements whose first are at flat positions `distance` apart from `start` on,
    /// into rows `ld` apart.
    pub fn load_rows<C: Compute>(
        &self,
        isa: Isa,
        start: usize,
        distance: usize,
        [rows, columns]: [usize; 2],
        to: &mut [C],
        ld: usize,
    ) {
        if let [(_, 1)] = self.dims[..] {
            return self.values.load_rows(isa, self.position(start), distance, [rows, columns], to, ld);
        }
        for i in 0..rows {
            self.load(isa, start + i * distance, &mut to[i * ld..][..columns]);
        }
    }

    /// Calls `each(storage index, stride, positions)` for the stretches of evenly spaced elements that flat positions
    /// `start..start + n` are; the positions count from `start`.
    pub fn runs(&self, start: usize, n: usize, mut each: impl FnMut(usize, usize, std::ops::Range<usize>)) {
        let (extent, stride) = self.dims[self.dims.len() - 1];
        let mut done = 0;
        while done < n {
            let at = start + done;
            let run = (extent - at % extent).min(n - done);
            each(self.position(at), stride, done..done + run);
            done += run;
        }
    }

    /// Where rows of `columns` neighbours from a flat position on lie, if they are equally far apart: storage index of
    /// the first, distance.
    pub fn even_rows(&self, start: usize, rows: usize, columns: usize) -> Option<(usize, usize)> {
        match self.dims[..] {
            [(_, 1)] => Some((self.position(start), columns)),
            [.., (extent, distance), (inner, 1)] if inner == columns && start.is_multiple_of(columns) => {
                (start / columns % extent + rows <= extent).then(|| (self.position(start), distance))
            }
            _ => None,
        }
    }

    /// What the elements are and where.
    pub fn values(&self) -> Values<'a> {
        self.values
    }

    /// Storage index of a flat position.
    fn position(&self, flat: usize) -> usize {
        let mut rest = flat;
        let mut at = self.offset;
        for &(extent, stride) in self.dims.iter().rev() {
            at += rest % extent * stride;
            rest /= extent;
        }
        at
    }
}

/// Dimensions of a dense layout, outermost in memory first.
pub fn memory_order(layout: &Layout) -> smallvec::SmallVec<[usize; MAX_RANK]> {
    let mut order: smallvec::SmallVec<[usize; MAX_RANK]> = (0..layout.shape.rank()).collect();
    order.sort_by_key(|&d| {
        std::cmp::Reverse(
            layout.strides[d] * (layout.shape[d] != 1) as usize + (layout.shape[d] == 1) as usize * usize::MAX / 2,
        )
    });
    order
}

/// `f::<C, T>(…)` with the storage type T of a dtype, if kernels in C read and write it in place, else `None`.
macro_rules! in_storage {
    ($dtype:expr, $f:ident::<$c:ident>($($arg:expr),* $(,)?)) => {
        match $dtype {
            binade_tensor::DType::F16 => $f::<$c, binade_tensor::f16>($($arg),*),
            binade_tensor::DType::BF16 => $f::<$c, binade_tensor::bf16>($($arg),*),
            dtype if dtype == <$c as binade_tensor::Element>::DTYPE => $f::<$c, $c>($($arg),*),
            binade_tensor::DType::F32 | binade_tensor::DType::F64 => None,
            binade_tensor::DType::I64 | binade_tensor::DType::U32 => None,
            binade_tensor::DType::I8 | binade_tensor::DType::Bool => None,
        }
    };
}
pub(super) use in_storage;

/// Room for a block. Only what is used of it is initialised, and once: filling it anew for every block, or for an
/// operator on a few elements, would cost more than the work.
pub struct Buffer<C> {
    values: [MaybeUninit<C>; BLOCK],
    ready: usize,
}

impl<C: Compute> Buffer<C> {
    pub fn new() -> Buffer<C> {
        Buffer { values: [const { MaybeUninit::uninit() }; BLOCK], ready: 0 }
    }

    /// The first `n` elements, of arbitrary values.
    pub fn first(&mut self, n: usize) -> &mut [C] {
        if self.ready < n {
            self.values[self.ready..n].fill(MaybeUninit::new(C::zero()));
            self.ready = n;
        }
        let values = &mut self.values[..n];
        // SAFETY: the first `ready` elements, and so these, are initialised; MaybeUninit has the layout of what it
        // holds.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
    }
}

/// The elements of a dense output as bytes in tasks of at most [`TASK`] elements: `f(start, bytes)`. The split depends
/// on the size alone. `f` is called through a pointer, once a task: a copy of the machinery of parallel loops for each
/// of a thousand kernels was two thirds of this crate's machine code.
fn tasks(out: &mut Out<'_>, f: &(dyn Fn(usize, &mut [u8]) + Sync)) {
    let array = out.array();
    let (size, n, offset) = (array.dtype().size(), array.numel(), array.layout().offset);
    let bytes = &mut out.bytes()[offset * size..(offset + n) * size];
    if n <= TASK {
        f(0, bytes);
    } else {
        bytes.par_chunks_mut(TASK * size).enumerate().each(|(index, chunk)| f(index * TASK, chunk));
    }
}

/// Fills a dense output of elements (or codes) `T` in place: `f(start, elements)`.
pub fn fill_as<T: bytemuck::Pod>(out: &mut Out<'_>, f: impl Fn(usize, &mut [T]) + Sync) {
    debug_assert_eq!(out.array().dtype().size(), size_of::<T>());
    tasks(out, &|start, bytes| f(start, bytemuck::cast_slice_mut(bytes)));
}

/// As [`fill_as`]; if `over`, the output is written over an operand: block by block, with a copy of what was there
/// before.
pub fn fill_over<T: bytemuck::Pod>(out: &mut Out<'_>, over: bool, f: impl Fn(usize, &[T], &mut [T]) + Sync) {
    fill_as::<T>(out, |start, y| {
        if !over {
            return f(start, &[], y);
        }
        let mut old = [T::zeroed(); BLOCK];
        for (i, y) in y.chunks_mut(BLOCK).enumerate() {
            let old = &mut old[..y.len()];
            old.copy_from_slice(y);
            f(start + i * BLOCK, old, y);
        }
    });
}

/// Fills a dense output block by block in memory order: `f(start, block)` computes the elements at flat memory
/// positions `start..`.
pub fn fill<C: Compute>(isa: Isa, out: &mut Out<'_>, f: impl Fn(usize, &mut [C]) + Sync) {
    fill_with(isa, out, false, || (), |(), start, _, block| f(start, block));
}

/// As [`fill`], with scratch that each task makes once and hands to all its blocks, and, if the output is written
/// `over` an operand, what each block held.
pub fn fill_with<C: Compute, S>(
    isa: Isa,
    out: &mut Out<'_>,
    over: bool,
    scratch: impl Fn() -> S + Sync,
    f: impl Fn(&mut S, usize, &[C], &mut [C]) + Sync,
) {
    let dtype = out.array().dtype();
    let size = dtype.size();
    tasks(out, &|start, bytes| {
        let (mut scratch, mut buffer, mut before) = (scratch(), Buffer::new(), Buffer::new());
        for (i, block) in bytes.chunks_mut(BLOCK * size).enumerate() {
            let (start, n) = (start + i * BLOCK, block.len() / size);
            let old = before.first(if over { n } else { 0 });
            if over {
                C::load(isa, dtype, block, 0, 1, old);
            }
            if dtype == C::DTYPE {
                f(&mut scratch, start, old, elements_mut::<C>(block));
            } else {
                let values = buffer.first(n);
                f(&mut scratch, start, old, values);
                C::store(isa, values, block, dtype);
            }
        }
    });
}
