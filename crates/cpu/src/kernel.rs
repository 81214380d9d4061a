//! What every kernel is given: where it runs, its inputs and its outputs.

use std::ops::Deref;

use binade_tensor::memory::Pool;
use binade_tensor::{Array, ArrayMut, Error, ReadGuard, Result};

use crate::simd::Isa;

/// Where a kernel runs.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The instruction set.
    pub isa: Isa,
    /// Scratch memory.
    pub pool: &'a Pool,
}

/// An input: an array and all bytes of its storage. One that the output is written over has no bytes of its own.
#[derive(Clone, Copy)]
pub(crate) struct In<'a> {
    array: &'a Array,
    pub bytes: &'a [u8],
}

impl<'a> In<'a> {
    /// An array that is borrowed for reading, or, without a borrow, one that the output is written over.
    pub fn new(op: &'static str, array: &'a Array, guard: Option<&'a ReadGuard<'_>>) -> Result<In<'a>> {
        let bytes = match guard {
            Some(guard) => guard.bytes().ok_or_else(|| elsewhere(op, array))?,
            None => &[],
        };
        Ok(In { array, bytes })
    }
}

impl<'a> Deref for In<'a> {
    type Target = Array;
    fn deref(&self) -> &Array {
        self.array
    }
}

/// An output: an array and all bytes of its storage.
pub(crate) struct Out<'a> {
    array: &'a Array,
    bytes: &'a mut [u8],
}

impl<'a> Out<'a> {
    /// An array that is borrowed for writing.
    pub fn new(op: &'static str, to: &'a mut ArrayMut<'_>) -> Result<Out<'a>> {
        let array = to.array();
        Ok(Out { array, bytes: to.bytes().ok_or_else(|| elsewhere(op, array))? })
    }

    /// The same output for a call.
    pub fn again(&mut self) -> Out<'_> {
        Out { array: self.array, bytes: self.bytes }
    }

    /// The array, for shape, dtype and layout.
    pub fn array(&self) -> &'a Array {
        self.array
    }

    /// All bytes of its storage.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.bytes
    }
}

fn elsewhere(op: &'static str, array: &Array) -> Error {
    Error::Unsupported { op, backend: "cpu".into(), dtype: array.dtype() }
}
