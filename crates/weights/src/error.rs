//! The error of this crate.

use std::io;
use std::path::{Path, PathBuf};

use crate::Report;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that could not be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file that is not what it says, or says what cannot be.
    #[error("{}: {message}", .path.display())]
    Format {
        /// File.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A pickle asks for a class or function that no weights need. Nothing was run.
    #[error("{}: the pickle asks for {class}, which weights do not need; nothing was run", .path.display())]
    Forbidden {
        /// File.
        path: PathBuf,
        /// Module and name.
        class: String,
    },
    /// A tensor that is there and cannot be read as what is asked for.
    #[error("{}: {name} {message}", .path.display())]
    Tensor {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Why.
        message: String,
    },
    /// Weights of another model, or with values that the model cannot take. The report has them all.
    #[error("{}: {report}", .path.display())]
    Misfit {
        /// File or folder.
        path: PathBuf,
        /// What was found.
        report: Box<Report>,
    },
    /// A module's tensor cannot be read or written.
    #[error(transparent)]
    Nn(#[from] binade_nn::Error),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |error| Error::Io { path: path.into(), error }
    }

    pub(crate) fn format(path: &Path, message: impl Into<String>) -> Error {
        Error::Format { path: path.into(), message: message.into() }
    }
}

impl From<binade_tensor::Error> for Error {
    fn from(error: binade_tensor::Error) -> Error {
        Error::Nn(error.into())
    }
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
