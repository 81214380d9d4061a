//! `train gpt`: the next character of a text, in nanoGPT's small extents for a CPU.

use std::path::PathBuf;

use anyhow::Result;
use binade::cli::flags::positive;
use binade::models::{Gpt, GptConfig};
use binade::nn::Schedule;
use binade::train::{Config, Corpus, Language, OptimizerChoice, Trainer};
use serde::{Deserialize, Serialize};

use super::job::{Screen, Use};

/// What is asked for beside the settings of every training; names are nanoGPT's.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Text file [default: embedded plays of Shakespeare]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Characters that the model sees at once
    #[arg(long, default_value_t = 64, value_parser = positive::<usize>, allow_negative_numbers = true)]
    block_size: usize,
    /// Blocks
    #[arg(long, default_value_t = 4, value_parser = positive::<usize>, allow_negative_numbers = true)]
    n_layer: usize,
    /// Heads of attention
    #[arg(long, default_value_t = 4, value_parser = positive::<usize>, allow_negative_numbers = true)]
    n_head: usize,
    /// Features of a token
    #[arg(long, default_value_t = 128, value_parser = positive::<usize>, allow_negative_numbers = true)]
    n_embd: usize,
}

/// Windows of a pass: 250 steps of 12.
const WINDOWS: usize = 3_000;

impl Screen for Options {
    fn name(&self) -> String {
        let stem = self.data.as_deref().and_then(|path| path.file_stem());
        format!("{}-gpt", stem.map_or("shakespeare".into(), |stem| stem.to_string_lossy()))
    }

    /// nanoGPT's: a warm-up of 100 steps, a cosine down to a tenth; matrices decay, biases and norms do not.
    fn defaults(&self) -> Config {
        Config {
            epochs: 2,
            batch_size: 12,
            optimizer: OptimizerChoice::AdamW { betas: [0.9, 0.99] },
            lr: 1e-3,
            weight_decay: 0.1,
            decay_matrices_only: true,
            schedule: Schedule::Cosine { warmup: 100, total: 0, floor: 0.1 },
            ..Config::default()
        }
    }

    fn data(&mut self) -> &mut Option<PathBuf> {
        &mut self.data
    }

    fn run<U: Use>(&self, used: U) -> Result<U::Out> {
        let &Options { block_size: context, n_layer: depth, n_head: heads, n_embd: features, .. } = self;
        let corpus = self.data.as_deref().map_or_else(Corpus::shakespeare, Corpus::read)?;
        let (data, vocabulary) = (corpus.splits(context, WINDOWS, 256)?, corpus.vocabulary());
        used.say(&format!("text: {} characters, {vocabulary} different ones, windows of {context}", corpus.len()));
        let config = GptConfig { vocabulary, context, features, depth, heads, ..GptConfig::default() };
        let task = Language { corpus, context, written: 400 };
        used.with(Trainer::new(|| Gpt::new(&config), &task, &data))
    }
}
