//! Reading and writing tensors of any dtype and strides in blocks of the computing type.
//!
//! Every kernel but the contractions is block-buffered: a block of each input is widened into a buffer that stays in
//! the first-level cache, computed on, and rounded once into the output. So one kernel serves every mixture of dtypes.
//! Where all operands are dense and of one dtype, kernels may read and write them in place instead ([`in_storage`]).

mod compute;
mod fill;

pub(super) use compute::in_storage;
pub use compute::{Compute, elements, elements_mut, exp, is_f32, ln};
pub use fill::{Buffer, fill, fill_as, fill_over, fill_with};

use crate::kernel::In;
use rayon::prelude::*;

use super::tasks::Tasks as _;
use super::values::Values;
use crate::simd::Isa;
use binade_tensor::{DType, Element, Layout, MAX_RANK};

/// Elements per block.
pub const BLOCK: usize = 1024;
/// Elements per task; smaller tensors run on the calling thread.
pub const TASK: usize = 16 * BLOCK;

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
