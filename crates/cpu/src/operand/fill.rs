//! Dense outputs, filled by tasks and block by block.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{BLOCK, Compute, TASK, elements_mut};
use crate::kernel::Out;
use crate::simd::Isa;
use crate::tasks::Tasks as _;
use binade_tensor::DType;

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

/// What is done with a task. Of a closure behind a pointer there is a second copy, to be called by value; of a trait
/// with one method there is none.
trait Task: Sync {
    fn run(&self, start: usize, bytes: &mut [u8]);
}

impl<F: Fn(usize, &mut [u8]) + Sync> Task for F {
    fn run(&self, start: usize, bytes: &mut [u8]) {
        self(start, bytes);
    }
}

/// What is done with a task that is written over an operand, which held `old`.
trait TaskOver<T>: Sync {
    fn run(&self, start: usize, old: &[T], to: &mut [T]);
}

impl<T, F: Fn(usize, &[T], &mut [T]) + Sync> TaskOver<T> for F {
    fn run(&self, start: usize, old: &[T], to: &mut [T]) {
        self(start, old, to);
    }
}

/// What is done with a block.
trait Block<C> {
    fn run(&mut self, start: usize, old: &[C], block: &mut [C]);
}

impl<C, F: FnMut(usize, &[C], &mut [C])> Block<C> for F {
    fn run(&mut self, start: usize, old: &[C], block: &mut [C]) {
        self(start, old, block);
    }
}

/// The elements of a dense output as bytes in tasks of at most [`TASK`] elements: `f(start, bytes)`. The split depends
/// on the size alone. `f` is called through a pointer, once a task: a copy of the machinery of parallel loops for each
/// of a thousand kernels was two thirds of this crate's machine code.
fn tasks(out: &mut Out<'_>, f: &dyn Task) {
    let array = out.array();
    let (size, n, offset) = (array.dtype().size(), array.numel(), array.layout().offset);
    let bytes = &mut out.bytes()[offset * size..(offset + n) * size];
    if n <= TASK {
        f.run(0, bytes);
    } else {
        bytes.par_chunks_mut(TASK * size).enumerate().each(|(index, chunk)| f.run(index * TASK, chunk));
    }
}

/// Fills a dense output of elements (or codes) `T` in place: `f(start, elements)`.
pub fn fill_as<T: bytemuck::Pod>(out: &mut Out<'_>, f: impl Fn(usize, &mut [T]) + Sync) {
    debug_assert_eq!(out.array().dtype().size(), size_of::<T>());
    tasks(out, &|start: usize, bytes: &mut [u8]| f(start, bytemuck::cast_slice_mut(bytes)));
}

/// As [`fill_as`]; if `over`, the output is written over an operand: block by block, with a copy of what was there
/// before.
pub fn fill_over<T: bytemuck::Pod>(out: &mut Out<'_>, over: bool, f: impl Fn(usize, &[T], &mut [T]) + Sync) {
    fn all<T: bytemuck::Pod>(out: &mut Out<'_>, over: bool, f: &dyn TaskOver<T>) {
        fill_as::<T>(out, |start, y| {
            if !over {
                return f.run(start, &[], y);
            }
            let mut old = [T::zeroed(); BLOCK];
            for (i, y) in y.chunks_mut(BLOCK).enumerate() {
                let old = &mut old[..y.len()];
                old.copy_from_slice(y);
                f.run(start + i * BLOCK, old, y);
            }
        });
    }
    all(out, over, &f);
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
    tasks(out, &|start: usize, bytes: &mut [u8]| {
        let mut scratch = scratch();
        let mut f = |start: usize, old: &[C], block: &mut [C]| f(&mut scratch, start, old, block);
        blocks(isa, dtype, over, (start, bytes), &mut f);
    });
}

/// A task of [`fill_with`], which is the same for all kernels.
fn blocks<C: Compute>(isa: Isa, dtype: DType, over: bool, (start, bytes): (usize, &mut [u8]), f: &mut dyn Block<C>) {
    let (mut buffer, mut before, size) = (Buffer::new(), Buffer::new(), dtype.size());
    for (i, block) in bytes.chunks_mut(BLOCK * size).enumerate() {
        let (start, n) = (start + i * BLOCK, block.len() / size);
        let old = before.first(if over { n } else { 0 });
        if over {
            C::load(isa, dtype, block, 0, 1, old);
        }
        if dtype == C::DTYPE {
            f.run(start, old, elements_mut::<C>(block));
        } else {
            let values = buffer.first(n);
            f.run(start, old, values);
            C::store(isa, values, block, dtype);
        }
    }
}
