//! Diffusion: noise schedules, samplers, guidance, and pipelines of diffusers.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod config;
mod error;
mod guidance;
mod pipeline;
mod sampler;
mod schedule;
mod step;
mod tokenizer;

pub use config::{Kind, SchedulerConfig, Spacing};
pub use error::{Error, Result};
pub use guidance::Guidance;
pub use pipeline::Pipeline;
pub use sampler::Sampler;
pub use schedule::{BetaSchedule, NoiseSchedule, Objective, Prediction, Weighting};
pub use step::{Next, Step};
pub use tokenizer::{Tokenizer, Tokens};
