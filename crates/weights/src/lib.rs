//! Weights of PyTorch's ecosystem, in and out.
//!
//! [`Weights`] opens a file or a folder, [`load`] copies it into a module under the names that [`Sources`] give, and
//! nothing of a file is run.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod dtype;
mod entry;
mod error;
mod file;
mod folder;
mod load;
mod pickle;
mod range;
mod report;
mod safetensors;
mod save;
mod source;
mod view;
mod weights;

pub use dtype::FileDType;
pub use entry::Entry;
pub use error::{Error, Result};
pub use load::{LoadOptions, load};
pub use range::{Loss, Range};
pub use report::{Loaded, Misplaced, Missing, Report};
pub use save::{SaveOptions, save, save_together};
pub use source::{Source, Sources};
pub use weights::Weights;
