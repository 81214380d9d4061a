//! Mixed precision deep learning: f16 and bf16 training that is as good as f32.
//!
//! The facade over the layered crates, each of which is useful alone. `use binade::prelude::*` brings what a model and
//! a training run need.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub use binade_amp as amp;
pub use binade_autograd as autograd;
pub use binade_cpu as cpu;
#[cfg(feature = "cuda-interpreted")]
pub use binade_cuda as cuda;
pub use binade_diffusion as diffusion;
pub use binade_models as models;
pub use binade_nn as nn;
pub use binade_plan as plan;
pub use binade_tensor as tensor;
pub use binade_train as train;
pub use binade_weights as weights;

pub use binade_amp::preflight::preflight;

#[cfg(feature = "cli")]
pub mod cli;

/// What a model and a training run need.
pub mod prelude {
    pub use binade_amp::{GradScaler, LossScale, Policy, StepOutcome, Training, autocast};
    pub use binade_autograd::{Var, eval, no_grad};
    pub use binade_nn::{Adam, AdamW, Optimizer, Schedule, Sgd, clip_grad_norm};
    pub use binade_nn::{Conv2d, Dropout, Embedding, Layer, LayerNorm, Linear, Module, Param, Sequential, Visitor};
    pub use binade_tensor::op::Unary;
    pub use binade_tensor::{Array, DType, Device, Tensor};
    pub use binade_train::{
        Batch, Classify, Config, Data, InMemory, Precision, Regress, RunConfig, Sample, SampleResult,
    };
    pub use binade_train::{Splits, Task, Trainer, train};
}

/// The code of the guide is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/mixed-precision.md")]
struct MixedPrecisionGuide;
