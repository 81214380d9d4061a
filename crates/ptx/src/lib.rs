//! Parser and checking interpreter of NVIDIA's PTX.
//!
//! [`Module::parse`] reads the text, [`Device::load`] decodes its kernels, [`Device::launch`] runs one and returns a
//! [`Report`] of what it did and what was wrong with it.

// Shifts and masks stand as in the manual's formulas.
#![allow(clippy::precedence)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod ast;
mod clock;
mod code;
mod copy;
mod decode;
mod device;
mod error;
mod exec;
mod lex;
mod mbarrier;
mod memory;
mod num;
mod parse;
mod report;
mod shadow;
mod tensor;
mod tensormap;
mod types;

pub use ast::Module;
pub use code::Parameter;
pub use device::{Arg, Device, Kernel, Launch, Options, Program};
pub use error::{Error, Result};
pub use report::{Counters, Finding, FindingKind, Place, Report};
pub use tensormap::{Swizzle, TensorMap};
pub use types::{Space, Type};
