//! The error of this crate.

use std::path::{Path, PathBuf};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operator, a layer or an optimiser failed.
    #[error(transparent)]
    Amp(#[from] binade_amp::Error),
    /// A file that could not be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why. Part of the text, so no source of its own: chains of errors are printed whole.
        error: std::io::Error,
    },
    /// A data file of the wrong form.
    #[error("{}: expected {expected}, found {found}", .path.display())]
    Data {
        /// File.
        path: PathBuf,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A sample that cannot be had, differs from the others of its batch, or is not what the task wants.
    #[error("{set} sample {index}: {message}")]
    Sample {
        /// Which data set.
        set: &'static str,
        /// Index in it.
        index: usize,
        /// Why.
        message: String,
    },
    /// Settings that do not fit together.
    #[error("{0}")]
    Config(String),
    /// A checkpoint that cannot be resumed.
    #[error("{}: {message}", .path.display())]
    Checkpoint {
        /// File.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A run folder that another process trains in.
    #[error("{}: in use by {by}; one process at a time trains in a folder", .folder.display())]
    InUse {
        /// Run folder.
        folder: PathBuf,
        /// Process, host and for how long.
        by: String,
    },
    /// Step after step was skipped, or all steps of a run: nothing is trained.
    #[error(
        "{precision}: step {step} is the last of {skipped} in a row that were skipped for gradients that are not \
         finite; the first value that is not finite comes from {origin}: try a smaller learning rate, or fp32 or bf16 \
         if fp16 overflows"
    )]
    Diverged {
        /// Precision.
        precision: &'static str,
        /// Iteration of the last step.
        step: u64,
        /// Skipped steps in a row.
        skipped: u64,
        /// Operator and layer.
        origin: String,
    },
    /// An operator's result is not finite, and anomalies were to be detected ([`crate::Config::detect_anomaly`]).
    #[error(
        "{precision}: anomaly in step {step}, batch {batch} of epoch {epoch}: the first result that is not finite is \
         that of {blame}; the step changed nothing, and the last checkpoint stands"
    )]
    Anomaly {
        /// Precision.
        precision: &'static str,
        /// Iteration.
        step: u64,
        /// Epoch, from 1.
        epoch: u64,
        /// Batch of the epoch, from 1.
        batch: usize,
        /// The operator, its layer and its operands.
        blame: Box<binade_amp::Blame>,
    },
    /// Stopped by a callback; the state is saved.
    #[error("stopped by a callback; continue with --resume {}", .folder.display())]
    Stopped {
        /// Run folder.
        folder: PathBuf,
    },
    /// Stopped by the user; the state is saved.
    #[error("interrupted; continue with --resume {}", .folder.display())]
    Interrupted {
        /// Run folder.
        folder: PathBuf,
    },
}

impl Error {
    /// Whether a setting is at fault: other data, another device or more memory would not help.
    pub fn is_setting(&self) -> bool {
        use binade_amp::Error::{Nn, Setting};
        use binade_nn::Error::{Config, Setting as OfNn};
        matches!(self, Error::Config(_) | Error::Amp(Setting { .. } | Nn(Config { .. } | OfNn { .. })))
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |error| Error::Io { path, error }
    }
}

impl From<binade_nn::Error> for Error {
    fn from(error: binade_nn::Error) -> Error {
        Error::Amp(error.into())
    }
}

impl From<binade_autograd::Error> for Error {
    fn from(error: binade_autograd::Error) -> Error {
        Error::Amp(error.into())
    }
}

impl From<binade_tensor::Error> for Error {
    fn from(error: binade_tensor::Error) -> Error {
        Error::Amp(error.into())
    }
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
