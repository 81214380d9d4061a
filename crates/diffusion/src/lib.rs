//! Diffusion: noise schedules, samplers, guidance, and pipelines of diffusers.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod config;
mod error;
mod guidance;
mod images;
mod lora;
mod network;
mod pipeline;
mod sampler;
mod schedule;
mod step;
mod tokenizer;
mod vae;

pub use config::{Kind, SchedulerConfig, Spacing};
pub use error::{Error, Result};
pub use guidance::Guidance;
pub use images::{ImagePipeline, draw, part_folder};
pub use lora::{LORA_FILE, merge_lora, save_lora};
pub use network::{Condition, Denoiser, save_part};
pub use pipeline::Pipeline;
pub use sampler::Sampler;
pub use schedule::{BetaSchedule, NoiseSchedule, Objective, Prediction, Weighting};
pub use step::{Next, Step};
pub use tokenizer::{Tokenizer, Tokens};
pub use vae::{Measured, VaePrecision};
