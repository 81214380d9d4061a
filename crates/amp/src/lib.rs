//! Autocast policies and loss scaling: mixed precision training with the semantics of PyTorch.

mod error;
mod policy;
mod scaler;

pub use error::{Error, Result};
pub use policy::{Policy, autocast, autocast_with};
pub use scaler::{GradScaler, LossScale, ScalerState, StepOutcome};
