//! The CPU backend of Binade: pooled memory, kernels that compute in f32 and store in the tensor's dtype, the same bits
//! for any number of threads.
//!
//! ```
//! use binade_tensor::Tensor;
//!
//! let x = Tensor::<f32>::from_slice(&binade_cpu::device(), &[1.0, 2.0, 3.0], &[3])?;
//! assert_eq!(x.sum(&[], false)?.to_vec()?, [6.0]);
//! # Ok::<(), binade_tensor::Error>(())
//! ```
//!
//! A program that only links the crate (`use binade_cpu as _;`) opens the device by name:
//! [`Device::open("cpu")`](binade_tensor::Device::open).

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod attention;
mod awake;
mod backend;
mod channels;
mod conv;
mod custom;
mod depthwise;
mod draws;
mod elementwise;
mod epilogue;
mod extremes;
mod few_outputs;
mod gather;
mod gemm;
mod index;
mod kernel;
mod loss;
mod moments;
mod norm;
mod nothing;
mod operand;
mod patience;
mod planes;
mod pool;
mod quantised;
mod reduce;
mod resample;
mod row_sums;
mod rows;
pub mod simd;
mod softmax;
mod table;
mod tasks;
mod ternary;
mod ties;
mod tile;
mod update;
mod values;

use std::sync::OnceLock;

use binade_tensor::{BackendKind, Device, register_backend};

pub use backend::Cpu;
pub use simd::Isa;

/// The CPU of this machine, on its best instruction set; all callers share one memory pool.
pub fn device() -> Device {
    static CPU: OnceLock<Device> = OnceLock::new();
    CPU.get_or_init(|| Device::new(Cpu::new())).clone()
}

register_backend! { BackendKind { name: "cpu", count: || 1, open: |_| Ok(device()) } }
