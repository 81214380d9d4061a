//! The error of this crate.

use std::sync::Arc;

/// What went wrong, and in which layer.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// An operator refused its inputs.
    #[error("{error}{}", at(.path))]
    Tensor {
        /// The operator's error. Part of the text, so no source of its own: chains of errors are printed whole.
        error: binade_tensor::Error,
        /// Path of the layer, empty outside a model.
        path: Arc<str>,
    },
    /// Backward from a tensor with several elements.
    #[error(
        "backward needs a loss of one element, got shape {shape:?}: reduce it, or give its gradient: \
         backward_with(&gradient)"
    )]
    NotScalar {
        /// Shape of the tensor.
        shape: Vec<usize>,
    },
    /// Backward from a tensor that depends on no parameter.
    #[error("backward from a tensor that depends on no parameter: was it computed under no_grad or detached")]
    NoGraph,
    /// Backward through a graph whose saved values were released by an earlier backward.
    #[error("{op}{}: backward through this graph a second time: its saved values were released; keep them with \
             Backward::keep_graph in the first call", at(.path))]
    Released {
        /// Operator.
        op: &'static str,
        /// Path of the layer.
        path: Arc<str>,
    },
    /// A value needed for the gradient was changed in place after it was saved.
    #[error("{op}{}: a value saved for the gradient was changed in place (version {saved}, now {found}); update \
             parameters after backward", at(.path))]
    Changed {
        /// Operator.
        op: &'static str,
        /// Path of the layer.
        path: Arc<str>,
        /// Version when saved.
        saved: u64,
        /// Version found.
        found: u64,
    },
    /// Gradients of losses scaled differently meet.
    #[error("gradients scaled by {} and by {} are not added: scale every loss that shares parameters by the same \
             scaler", .found[0], .found[1])]
    Scales {
        /// The scales.
        found: [f64; 2],
    },
    /// A recomputed part of a model failed.
    #[error("{message}")]
    Recompute {
        /// The layer's error.
        message: String,
    },
    /// An operator that has no gradient.
    #[error("{op}{}: not differentiable: {reason}", at(.path))]
    NotDifferentiable {
        /// Operator.
        op: &'static str,
        /// Path of the layer.
        path: Arc<str>,
        /// Why.
        reason: &'static str,
    },
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" (in {path})") }
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
