//! Weights of PyTorch's ecosystem, in and out.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod source;

pub use source::{Source, Sources};
