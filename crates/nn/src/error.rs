//! The error of this crate.

use std::path::PathBuf;

use crate::load::{LoadReport, list};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operator or its gradient failed.
    #[error(transparent)]
    Autograd(#[from] binade_autograd::Error),
    /// A layer's settings do not fit together.
    #[error("{layer}: {message}")]
    Config {
        /// Layer.
        layer: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A setting outside its domain.
    #[error("the {what} of {of} must be {allowed}, got {found}")]
    Setting {
        /// Rule, schedule or layer.
        of: &'static str,
        /// Setting.
        what: &'static str,
        /// Domain.
        allowed: &'static str,
        /// Value given.
        found: f64,
    },
    /// A parameter that cannot move to another device now.
    #[error("{name} cannot be moved: its gradients or a graph are in use; take the step or drop them first")]
    Held {
        /// Name of the parameter.
        name: String,
    },
    /// Tensors that a state dict lacks, or has too many.
    #[error("the state dict is of another model: {}", difference(.missing, .unexpected))]
    Names {
        /// Names the model has and the state dict lacks.
        missing: Vec<String>,
        /// Names the state dict has and the model lacks.
        unexpected: Vec<String>,
    },
    /// The state of another optimiser, or a part of one.
    #[error("the optimiser's state does not fit: {0}")]
    OptimizerState(Box<LoadReport>),
    /// Averages of other parameters, or a part of them.
    #[error("the averages do not fit: {0}")]
    Averages(Box<LoadReport>),
    /// A tensor of another shape.
    #[error("{name}: the state dict has shape {found:?}, the model needs {expected:?}")]
    Shape {
        /// Tensor.
        name: String,
        /// Shape in the state dict.
        found: Vec<usize>,
        /// Shape of the model.
        expected: Vec<usize>,
    },
    /// A parameter that an optimiser has already.
    #[error("{name} is in the optimiser already, as {other}: a parameter is updated once per step, by one group")]
    Twice {
        /// Its name in the group.
        name: String,
        /// The name it has there.
        other: String,
    },
    /// A file that could not be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Why. Part of the text, so no source of its own: chains of errors are printed whole.
        error: std::io::Error,
    },
    /// A file that is no valid safetensors file.
    #[error("{}: not a valid safetensors file: {message}", .path.display())]
    Format {
        /// File.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

impl Error {
    /// Fails unless a setting lies in its domain.
    pub(crate) fn unless(
        ok: bool,
        of: &'static str,
        what: &'static str,
        allowed: &'static str,
        found: f64,
    ) -> Result<()> {
        if ok { Ok(()) } else { Err(Error::Setting { of, what, allowed, found }) }
    }
}

fn difference(missing: &[String], unexpected: &[String]) -> String {
    format!("it lacks {}, and has besides {}", list(missing), list(unexpected))
}

impl From<binade_tensor::Error> for Error {
    fn from(error: binade_tensor::Error) -> Error {
        Error::Autograd(error.into())
    }
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
