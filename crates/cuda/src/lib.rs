//! The CUDA backend of Binade: kernels in PTX that ships with the crate, so that a user needs NVIDIA's driver and
//! nothing else; and the same PTX on an interpreter, which finds what a kernel does wrong, without a GPU.
//!
//! ```
//! use binade_cpu as _; // what the device has no kernel for
//! use binade_cuda as _;
//! use binade_tensor::{Device, Tensor};
//!
//! let device = Device::open("cuda-interpreted")?;
//! let x = Tensor::<f32>::from_slice(&device, &[1.0, 2.0, 3.0], &[3])?;
//! assert_eq!(x.sum(&[], false)?.to_vec()?, [6.0]);
//! # Ok::<(), binade_tensor::Error>(())
//! ```

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod backend;
mod driver;
mod fallback;
mod fault;
mod interpreted;
mod kernels;
mod memory;
mod module;
#[cfg(feature = "cuda")]
mod native;
mod rows;
mod view;

pub use backend::{Counts, Cuda};
pub use binade_ptx::Counters;
pub use driver::{Driver, Failure, Launch};
pub use interpreted::{Interpreted, interpreted, open_interpreted};
pub use module::Module;
#[cfg(feature = "cuda")]
pub use native::Native;

/// Whether this build knows NVIDIA's driver: feature `cuda`.
pub const HAS_DRIVER: bool = cfg!(feature = "cuda");

/// What the host runs, by the name that [`Counts::fallbacks`] has, and why.
pub const ON_HOST: &[(&str, &str)] = &[
    ("sort", "no kernel yet"),
    ("permutation", "its places are drawn in order"),
    ("adafactor", "a step depends on whole rows"),
    ("custom operators", "they are the user's code"),
];
