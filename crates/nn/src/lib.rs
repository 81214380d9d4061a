//! Layers, losses and optimisers that keep norms, softmax, losses and optimiser state in f32.
//!
//! A module is a plain struct with `#[derive(Module)]`. With one input it is a [`Layer`]: `run` is written, `forward`
//! called. Else `forward` is an inherent method of any signature, whose body runs [`within`](Module::within) the
//! module.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod attention;
mod checksum;
pub(crate) mod clip;
mod error;
mod file;
mod init;
mod layers;
mod load;
mod module;
mod norm;
mod optimizer;
mod param;
pub mod quantised;
mod schedule;
mod state_dict;
mod structure;
mod transformer;
mod visitor;

pub use attention::{SelfAttention, attend_packed};
pub use binade_autograd::scope::without_initial_values;
pub use binade_derive::Module;
pub use checksum::CHECKSUM;
pub use clip::{
    GradNorm, clip_factor, clip_grad_norm, clip_grad_value, grad_norm, grad_norm_later, inverse, scaled_grad_norm,
    unscale,
};
pub use error::{Error, Result};
pub use file::{remove_partial_files, replace_file};
pub use init::Init;
pub use layers::{
    Activation, Celu, Checkpointed, Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, CopyLayer, Dropout,
    DropoutChannels, Elu, Embedding, Flatten, Glu, Gru, Hardtanh, Identity, Layer, LeakyRelu, Linear, Lstm, MaxPool2d,
    PRelu, Recurrent, Sequential, Softmax, Softplus, SwiGlu, recomputed,
};
pub use load::{LoadReport, Mismatch, load_matching, load_state_dict};
pub use module::{CopyModule, Module};
pub use norm::{BatchNorm2d, GroupNorm, InstanceNorm, LayerNorm, RmsNorm};
pub use optimizer::rules::*;
pub use optimizer::{Ema, EmaState, Group, Optimizer, OptimizerState, ParamState, StepOutcome, WarmUp};
pub(crate) use param::copy;
pub use param::{Buffer, Mode, Param, defer};
pub use schedule::{Plateau, Schedule};
pub use state_dict::{PackedFile, StateDict, TensorFile, read_safetensors, state_dict, write_safetensors};
pub use transformer::{MultiHeadAttention, TransformerConfig, TransformerDecoderLayer, TransformerEncoderLayer};
pub use visitor::Visitor;
