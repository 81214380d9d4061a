//! A `libcuda` on the interpreter: the functions of NVIDIA's driver that `binade-cuda` calls, with the driver's codes.
//!
//! As with the driver, a kernel that goes astray is told by the next call that looks, and nothing works behind it.
//! What a GPU would not notice (races, memory that was never written) is an error here too, `LAUNCH_FAILED`, with the
//! interpreter's words in the file that `BINADE_STANDIN_LOG` names.

// The functions are called by the driver's contract; each pointer is the caller's.
#![allow(clippy::missing_safety_doc, clippy::not_unsafe_ptr_arg_deref)]

mod abi;
mod machine;

pub use abi::*;
