//! Autocast policies and loss scaling: mixed precision training with the semantics of PyTorch.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod anomaly;
mod blame;
mod census;
mod error;
mod fault;
mod grad;
mod group;
mod loss_scale;
mod policy;
pub mod preflight;
mod recommend;
mod scaler;
mod state;
mod step;
mod training;

pub use binade_nn::StepOutcome;
pub use blame::{Blame, Operand, Origin, blame};
pub use census::{Census, census};
pub use error::{Error, Result};
pub use fault::{Fault, Hit};
pub use grad::grad;
pub use group::Group;
pub use loss_scale::{Dynamic, LossScale, Refill, ScalerState};
pub use policy::{CastPolicy, Exception, Policy, Table, autocast, autocast_with, with_cast_inputs};
pub use recommend::{Hardware, Purpose, Recommendation};
pub use scaler::GradScaler;
pub use state::TrainingState;
pub use step::{ScaledGradients, UnscaledGradients};
pub use training::{Step, Training};
