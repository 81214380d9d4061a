//! The error of this crate.

use std::path::PathBuf;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting outside its domain.
    #[error("{0}")]
    Setting(String),
    /// A model or its configuration.
    #[error(transparent)]
    Models(#[from] binade_models::Error),
    /// Weights.
    #[error(transparent)]
    Weights(#[from] binade_weights::Error),
    /// A file that is not what it should be.
    #[error("{}: {message}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl From<binade_nn::Error> for Error {
    fn from(error: binade_nn::Error) -> Error {
        Error::Models(error.into())
    }
}

impl From<binade_autograd::Error> for Error {
    fn from(error: binade_autograd::Error) -> Error {
        Error::Models(error.into())
    }
}

impl From<binade_tensor::Error> for Error {
    fn from(error: binade_tensor::Error) -> Error {
        binade_autograd::Error::from(error).into()
    }
}

impl From<binade_amp::Error> for Error {
    fn from(error: binade_amp::Error) -> Error {
        match error {
            binade_amp::Error::Nn(error) => error.into(),
            other => Error::Setting(other.to_string()),
        }
    }
}

impl From<Error> for binade_nn::Error {
    fn from(error: Error) -> binade_nn::Error {
        match error {
            Error::Models(binade_models::Error::Nn(error)) => error,
            other => binade_nn::Error::Config { layer: "diffusion", message: other.to_string() },
        }
    }
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
