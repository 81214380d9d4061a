//! Tensors in f64, f32, f16 and bf16 with stated error bounds: compute in f32, store in 16 bit.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// First, for its row macros.
#[macro_use]
pub mod op;

mod arena;
mod array;
mod backend;
mod dtype;
mod error;
mod exec;
pub mod format;
pub mod integers;
mod layout;
pub mod memory;
pub mod number;
pub mod profile;
pub mod random;
pub mod reference;
mod registry;
pub mod remote;
pub mod samples;
mod shape;
mod storage;
mod tensor;
#[cfg(feature = "oracle")]
pub mod testing;
pub mod update;

pub use array::{Array, Arrays, Meta, WeakArray};
pub use backend::{ArrayMut, Backend, Device};
pub use dtype::{DType, Element, Float};
pub use error::{Error, Result};
pub use exec::{Request, run, run_one};
pub use half::{bf16, f16};
#[doc(hidden)]
pub use inventory;
pub use layout::Layout;
pub use memory::{Class, MemoryStats};
pub use op::Op;
pub use random::Key;
pub use registry::BackendKind;
pub use shape::{Dims, MAX_RANK, Shape};
pub use storage::{DeviceMemory, Memory, ReadGuard, Storage, WriteGuard};
pub use tensor::Tensor;
pub use update::{Findings, Grad, Outcome, Slot, Update};
