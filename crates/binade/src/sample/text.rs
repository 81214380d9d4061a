//! `binade sample` of a language model: text that goes on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use binade::amp::Policy;
use binade::autograd::scope::{Stored, with_stored};
use binade::cli::flags::positive;
use binade::cli::output::{line, note, piece};
use binade::models::{AnyModel, Gpt, GptConfig, Sampling, Writer};
use binade::nn::{Module, without_initial_values};
use binade::tensor::DType;
use binade::train::{Decoder, Precision, RunConfig, Stop, Vocabulary};
use binade::weights::{LoadOptions, Source, Sources, Weights, load};

use super::Common;
use crate::train::gpt::{Prepared, TokenizerName, vocabulary_of};

/// Flags of text alone.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "of text")]
#[command(next_help_heading = "Text")]
pub struct Args {
    /// File with the text that goes on
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Tokens to write
    #[arg(long, default_value_t = 500, value_parser = positive::<usize>, allow_negative_numbers = true)]
    tokens: usize,
    /// What the model's logits are divided by; 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_hyphen_values = true)]
    temperature: f64,
    /// Only so many of the likeliest tokens; 0 takes all
    #[arg(long, value_name = "K", default_value_t = 200)]
    top_k: usize,
    /// Only the likeliest tokens whose probabilities add up to this
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_hyphen_values = true)]
    top_p: f64,
    /// What logits of tokens that were there are divided by if positive, else multiplied; 1 is no penalty
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_hyphen_values = true)]
    repetition: f64,
    /// Text before which a sample ends; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Texts that are written at once; the first is printed as it is made
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive::<usize>, allow_negative_numbers = true)]
    samples: usize,
    /// Read all tokens again for each new one, in place of keeping keys and values
    #[arg(long)]
    no_cache: bool,
    /// What a token is, for a folder that does not say it [default: GPT-2's pairs of bytes]
    #[arg(long, value_enum)]
    pub tokenizer: Option<TokenizerName>,
}

/// A language model that can write.
pub struct Opened {
    model: Gpt,
    vocabulary: Vocabulary,
    /// Of weights, keys and values.
    dtype: DType,
    policy: Policy,
}

impl Opened {
    /// The model that `build` makes with its weights in the dtype of a precision.
    fn new(precision: Precision, build: impl FnOnce() -> Result<(Gpt, Vocabulary)>) -> Result<Opened> {
        let policy = precision.policy();
        let dtype = policy.compute().unwrap_or(DType::F32);
        let (model, vocabulary) = with_stored(Stored { params: dtype, batch_norm: DType::F32 }, build)?;
        Ok(Opened { model, vocabulary, dtype, policy })
    }
}

/// The model of a run from its newest checkpoint: the averages of its weights, where it has them.
pub fn of_run(folder: &Path, run: &RunConfig, prepared: &Prepared, asked: Option<Precision>) -> Result<Opened> {
    let checkpoint = |precision: Precision| folder.join(format!("checkpoint-{}.safetensors", precision.name()));
    let mut there = run.precisions.iter().copied().filter(|&precision| checkpoint(precision).exists());
    let first = there.clone().next().with_context(|| format!("{}: no checkpoint yet", folder.display()))?;
    let trained = there.find(|&precision| Some(precision) == asked).unwrap_or(first);
    let precision = asked.unwrap_or(trained);
    if precision != trained {
        note(format_args!("no checkpoint of {}: the weights of {} in it", precision.name(), trained.name()));
    }
    Opened::new(precision, || {
        let model = without_initial_values(|| Gpt::new(&prepared.config()?).map_err(anyhow::Error::from))?;
        let weights = Weights::open(&checkpoint(trained))?;
        let names = weights.names();
        let prefix = if names.iter().any(|name| name.starts_with("ema.")) { "ema." } else { "model." };
        let sources = Sources {
            sources: model
                .named_parameters()
                .into_iter()
                .map(|(name, _)| (name.clone(), Source::Tensor(format!("{prefix}{name}"))))
                .collect(),
            ignored: names.into_iter().filter(|name| !name.starts_with(prefix)).collect(),
        };
        load(&model, &weights, &sources, &LoadOptions::default())?;
        Ok((model, prepared.vocabulary.clone()))
    })
}

/// The model of a folder of transformers, in f32 if nothing else is asked for.
pub fn of_folder(folder: &Path, asked: Option<Precision>, tokenizer: Option<TokenizerName>) -> Result<Opened> {
    Opened::new(asked.unwrap_or(Precision::Fp32), || {
        let AnyModel::Gpt(model) = AnyModel::open(folder, &LoadOptions::default())?.0 else {
            bail!("{}: a model that writes no text", folder.display());
        };
        let vocabulary = match tokenizer {
            None => vocabulary_of(folder, model.config().vocabulary)?,
            Some(TokenizerName::Gpt2) => Vocabulary::Gpt2,
            Some(TokenizerName::Numbers) => Vocabulary::Numbers { size: model.config().vocabulary },
            Some(TokenizerName::Characters) => bail!("--tokenizer characters: which they are, the folder does not say"),
        };
        Ok((model, vocabulary))
    })
}

/// A text that is being written.
struct Text {
    decoder: Decoder,
    stop: Stop,
    /// What is not printed yet.
    text: String,
    ended: bool,
}

impl Text {
    fn push(&mut self, token: u32, ends: bool) {
        if !self.ended {
            let more = if ends { self.decoder.finish() } else { self.decoder.push(token) };
            self.text.push_str(&self.stop.push(&more));
            self.ended = ends || self.stop.found();
        }
    }

    /// What is left, where no more comes.
    fn finish(&mut self) -> String {
        let rest = self.stop.push(&self.decoder.finish()) + &self.stop.finish();
        std::mem::take(&mut self.text) + &rest
    }
}

/// Writes, and says how fast.
pub fn run(opened: &Opened, common: &Common, args: &Args) -> Result<ExitCode> {
    let Opened { model, vocabulary, dtype, policy } = opened;
    let GptConfig { context, .. } = *model.config();
    let prompt = match &args.prompt_file {
        None => common.prompt.clone(),
        Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
    };
    let given = vocabulary.encode_prompt(&prompt).context("the prompt")?;
    let tokens = if given.is_empty() { vocabulary.beginning() } else { given };
    let read = tokens.len();
    if read > context {
        note(format_args!("the prompt has {read} tokens: the model sees the last {context}"));
    }
    let tokens: Vec<i64> = tokens.into_iter().map(i64::from).collect();
    let &Args { repetition, temperature, top_k, top_p, samples, .. } = args;
    let sampling = Sampling { repetition, temperature, top_k: Some(top_k).filter(|&k| k > 0), top_p };
    let mut writer = Writer::new(model, &tokens, samples, sampling, common.seed, (!args.no_cache).then_some(*dtype))?;
    let new = || Text {
        decoder: Decoder::new(vocabulary.clone()),
        stop: Stop::new(&args.stop),
        text: String::new(),
        ended: false,
    };
    let mut texts: Vec<Text> = (0..samples).map(|_| new()).collect();
    let head = |i: usize| if samples > 1 { format!("--- {}\n{prompt}", i + 1) } else { prompt.clone() };
    piece(head(0))?;
    let (start, mut first, mut steps) = (Instant::now(), 0.0, 0);
    while steps < args.tokens && !texts.iter().all(|text| text.ended) {
        for (text, token) in texts.iter_mut().zip(policy.run(|| writer.write())?) {
            text.push(token as u32, vocabulary.ends(token as u32));
        }
        piece(std::mem::take(&mut texts[0].text))?;
        steps += 1;
        if steps == 1 {
            first = start.elapsed().as_secs_f64();
        }
    }
    let rest = start.elapsed().as_secs_f64() - first;
    line(texts[0].finish())?;
    for (i, text) in texts.iter_mut().enumerate().skip(1) {
        line(head(i) + &text.finish())?;
    }
    let more = (steps - 1) * samples;
    note(format_args!(
        "{read} tokens read and {samples} written in {first:.2} s, {more} more in {rest:.2} s: {:.1} tokens/s",
        more as f64 / rest.max(f64::MIN_POSITIVE)
    ));
    Ok(ExitCode::SUCCESS)
}
