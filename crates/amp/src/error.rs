//! The error of this crate.

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operator, layer or optimiser failed.
    #[error(transparent)]
    Nn(#[from] binade_nn::Error),
    /// A scaler setting outside its domain.
    #[error("the {what} must be {allowed}, got {found}")]
    Setting {
        /// Setting.
        what: &'static str,
        /// Domain.
        allowed: &'static str,
        /// Value given.
        found: f64,
    },
    /// Unscaling twice.
    #[error("the gradients of this optimiser were already unscaled since the last update: call unscale once per step")]
    AlreadyUnscaled,
    /// Unscaling after the step.
    #[error("unscale after the step of this optimiser: call unscale, step and update in this order")]
    UnscaledAfterStep,
    /// Stepping twice.
    #[error("this optimiser was already stepped since the last update: call update after the steps of an iteration")]
    AlreadyStepped,
    /// No gradient for any parameter of the optimiser.
    #[error("no gradients to step with: does the loss depend on the optimiser's parameters")]
    NoGradients,
    /// Updating without a step.
    #[error("update before any gradient was checked: call step, or unscale, first")]
    NothingChecked,
    /// Saving between unscaling and updating.
    #[error("the state of a scaler is complete only after update: save it there")]
    MidStep,
    /// An accumulation group that was dropped before its step.
    #[error(
        "an accumulation group of {parts} part(s) ended without a step, and its gradients are lost: \
         call Group::step after the last part, or Group::discard to drop them"
    )]
    GroupWithoutStep {
        /// Parts that were added.
        parts: usize,
    },
    /// The step of an accumulation group without parts.
    #[error("the step of an accumulation group without parts: call Group::add for each part of the batch first")]
    EmptyGroup,
    /// Step after step was skipped, and no lower loss scale is left to try.
    #[error(
        "{steps} steps in a row were skipped for gradients that are not finite, and no lower loss scale than \
         {scale:?} would help; {}",
        .blame.as_ref().map_or("binade_amp::blame finds the operator at fault".to_string(), |b| {
            format!("the first value that is not finite comes from {b}")
        })
    )]
    Stalled {
        /// The scale; 1 when off.
        scale: f32,
        /// Bad steps in a row.
        steps: u32,
        /// The operator at fault, where a step knows it.
        blame: Option<Box<crate::Blame>>,
    },
    /// An operator's result is not finite, and anomalies were to be detected ([`crate::Training::detect_anomaly`]).
    #[error("part {part} of a step: the first result that is not finite is that of {blame}")]
    Anomaly {
        /// Part of the step, from 0.
        part: usize,
        /// The operator.
        blame: Box<crate::Blame>,
    },
    /// The state of another training.
    #[error("the training's state does not fit: {0}")]
    State(String),
    /// A policy that cannot be understood.
    #[error("{0}")]
    Policy(String),
}

impl From<binade_autograd::Error> for Error {
    fn from(error: binade_autograd::Error) -> Error {
        Error::Nn(error.into())
    }
}

impl From<binade_tensor::Error> for Error {
    fn from(error: binade_tensor::Error) -> Error {
        Error::Nn(error.into())
    }
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
