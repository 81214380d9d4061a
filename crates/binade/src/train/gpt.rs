//! `--model gpt`: the next character of a text, in nanoGPT's small extents for a CPU.

use std::path::PathBuf;

use anyhow::Result;
use binade::models::{Gpt, GptConfig};
use binade::nn::{AdamW, Optimizer, Schedule};
use binade::train::{Config, Corpus, Language, Trainer};
use serde::{Deserialize, Serialize};

use super::job::Use;

/// What is asked for beside the settings of every training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Text; by default nine plays of Shakespeare.
    pub text: Option<PathBuf>,
    /// Characters that the model sees at once: nanoGPT's `block_size`.
    pub context: usize,
    /// Blocks: `n_layer`.
    pub layers: usize,
    /// Heads of attention: `n_head`.
    pub heads: usize,
    /// Features of a token: `n_embd`.
    pub width: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { text: None, context: 64, layers: 4, heads: 4, width: 128 }
    }
}

/// Windows of a pass: 250 steps of 12.
const WINDOWS: usize = 3_000;

/// nanoGPT's: a warm-up of 100 steps, a cosine down to a tenth.
pub fn defaults() -> Config {
    let schedule = Schedule::Cosine { warmup: 100, total: 0, floor: 0.1 };
    Config { epochs: 2, batch_size: 12, lr: 1e-3, weight_decay: 0.1, schedule, ..Config::default() }
}

/// Gives the model, its task and the text to who uses them.
pub fn job<U: Use>(options: &Options, used: U) -> Result<U::Out> {
    let &Options { context, layers, heads, width, .. } = options;
    let corpus = options.text.as_deref().map_or_else(Corpus::shakespeare, Corpus::read)?;
    let (data, vocabulary) = (corpus.splits(context, WINDOWS, 256)?, corpus.vocabulary());
    used.say(&format!("text: {} characters, {vocabulary} different ones, windows of {context}", corpus.len()));
    let config = GptConfig { vocabulary, context, features: width, depth: layers, heads, ..GptConfig::default() };
    let task = Language { corpus, context, written: 400 };
    let trainer = Trainer::new(|| Gpt::new(&config), &task, &data).with_training(|model, config: &Config| {
        // As GPT-2 is trained: matrices decay, biases and norms do not.
        let optimizer = Optimizer::grouped(model, |_, param| AdamW {
            lr: config.lr,
            betas: [0.9, 0.99],
            weight_decay: if param.array().shape().rank() >= 2 { config.weight_decay } else { 0.0 },
            ..AdamW::default()
        })?;
        config.training_with(model, optimizer)
    });
    used.with(trainer)
}
