//! Reverse-mode differentiation over mixed-precision tensors.
//!
//! One choke point, [`apply`]: it asks the [`CastRule`] of the thread's [`scope`] for dtypes, inserts narrowing casts
//! (ordinary differentiable operators), runs the kernel and records a node. Widening is exact and never materialised:
//! kernels read 16 bit and compute in f32, and the tape keeps the 16-bit original.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod apply;
mod backward;
mod cast;
mod checkpoint;
mod claim;
mod deferred;
mod error;
mod gradcheck;
mod gradients;
mod methods;
mod node;
mod place;
mod saved;
pub mod scope;
mod second_order;
mod table;
mod value;
mod var;

pub use apply::{apply, apply_all};
pub use cast::{CastPlan, CastRule};
pub use checkpoint::checkpoint;
pub use claim::{Claims, Owner};
pub use deferred::{Deferred, Prepared};
pub use error::{Error, Result};
pub use gradcheck::{GradcheckError, gradcheck};
pub use gradients::Gradients;
pub use methods::{Conv3d, Ctc, KlReduction, Rotary};
pub use node::{LeafId, Node};
pub use place::{Layers, Name, Place, StoredAs};
pub use scope::{eval, no_grad, train};
pub use second_order::grad;
pub use var::Var;
