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
    #[error("these gradients were already unscaled: call unscale once per step")]
    AlreadyUnscaled,
    /// No gradients at all.
    #[error("no gradients to step with: does the loss depend on the parameters")]
    NoGradients,
    /// Autocast to a dtype that is not a 16-bit float.
    #[error("autocast needs f16 or bf16, got {0}: leave autocast out to compute in f32")]
    Autocast(binade_tensor::DType),
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
