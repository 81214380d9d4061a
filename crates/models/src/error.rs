//! The error of this crate.

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer or an operator failed.
    #[error(transparent)]
    Nn(#[from] binade_nn::Error),
    /// A configuration that this crate has no model for: each problem with its key and value.
    #[error("{of}: {}", .problems.join("; "))]
    Config {
        /// Architecture, or what the file is.
        of: String,
        /// All that is wrong.
        problems: Vec<String>,
    },
    /// Weights that cannot be read, or are of another model.
    #[error(transparent)]
    Weights(#[from] binade_weights::Error),
}

impl From<binade_autograd::Error> for Error {
    fn from(error: binade_autograd::Error) -> Error {
        Error::Nn(error.into())
    }
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
