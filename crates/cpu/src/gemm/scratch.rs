//! Scratch memory of contractions: buffers of the pool as slices of the computing type.

use crate::operand::Compute;
use binade_tensor::memory::{HostBuffer, Pool};
use binade_tensor::{Class, Error, Result};

/// Scratch memory for `n` elements.
pub(crate) fn workspace<C: Compute>(pool: &Pool, n: usize) -> Result<HostBuffer> {
    let bytes = n * size_of::<C>();
    pool.alloc(bytes, Class::Workspace).ok_or(Error::OutOfMemory { op: "", bytes, class: Class::Workspace })
}

/// A scratch buffer as elements.
pub(crate) fn elements_of<C: Compute>(buffer: &HostBuffer) -> &[C] {
    // SAFETY: the buffer is aligned and every byte of it was initialised.
    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len() / size_of::<C>()) }
}

/// An operand of a contraction as a slice of the computing type with its own strides: borrowed, or widened in memory
/// order.
pub(crate) enum Panel<'a, C> {
    Borrowed(&'a [C]),
    Widened(HostBuffer),
}

impl<C: Compute> Panel<'_, C> {
    pub(crate) fn as_slice(&self) -> &[C] {
        match self {
            Panel::Borrowed(slice) => slice,
            Panel::Widened(buffer) => {
                // SAFETY: the buffer was allocated for elements of C, is aligned and initialised.
                unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len() / size_of::<C>()) }
            }
        }
    }
}
