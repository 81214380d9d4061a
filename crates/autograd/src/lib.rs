//! Reverse-mode differentiation over mixed-precision tensors.
//!
//! One choke point, [`apply`]: it asks the [`CastRule`] of the thread's [`scope`] for dtypes, inserts narrowing casts
//! (ordinary differentiable operators), runs the kernel and records a node. Widening is exact and never materialised:
//! kernels read 16 bit and compute in f32, and the tape keeps the 16-bit original.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// Modules in layers: each imports from those of the layers above it in this list alone.

mod cast;
mod claim;
mod error;

mod constants;
mod deferred;
mod device;
mod leaf;
mod saved;

mod node;
mod place;

mod outline;

pub mod scope;

mod var;

mod gradients;
mod value;

mod table;

mod front;
mod tape;

mod apply;
mod walk;

mod backward;
mod checkpoint;
mod methods;
mod second_order;

mod gradcheck;

pub use apply::{apply, apply_all};
pub use backward::Backward;
pub use cast::{CastPlan, CastRule};
pub use checkpoint::checkpoint;
pub use claim::{Claims, Owner};
pub use deferred::{Deferred, Prepared};
pub use error::{Error, Result};
pub use gradcheck::{GradcheckError, gradcheck};
pub use gradients::Gradients;
pub use leaf::LeafId;
pub use methods::{Conv3d, Ctc, KlReduction, Rotary};
pub use node::Node;
pub use place::{Layers, Name, Place, StoredAs, Structure};
pub use scope::{eval, no_grad, train};
pub use second_order::grad;
pub use var::Var;
