//! `train gpt`: the next token of a text, in nanoGPT's small extents for a CPU, or from GPT-2's weights.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use binade::cli::flags::{positive, probability};
use binade::models::{Gpt, GptConfig, Pretrained, Sampling, Writer, read_config};
use binade::nn::{Module, Schedule, without_initial_values};
use binade::tensor::DType;
use binade::train::{self, Config, Corpus, Language, OptimizerChoice, Tokenizer, Trainer, Vocabulary};
use binade::weights::{LoadOptions, SaveOptions, Weights, load, save};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::job::{Screen, Use};

/// What is asked for beside the settings of every training; names are nanoGPT's.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Text in UTF-8, or FILE.bin with tokens of nanoGPT or llm.c, or a folder with train.bin and val.bin [default:
    /// embedded plays of Shakespeare]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Another text to evaluate on [default: the last tenth]
    #[arg(long, value_name = "PATH")]
    val_data: Option<PathBuf>,
    /// What a token is [default: that of --from; characters of a text, gpt2 in FILE.bin]
    #[arg(long, value_enum)]
    tokenizer: Option<TokenizerName>,
    /// Tokens that the model knows [default: those of the tokenizer]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    vocab_size: Option<usize>,
    /// Begin with the weights of GPT-2 in a folder of transformers
    #[arg(long, value_name = "DIR", conflicts_with_all = ["n_layer", "n_head", "n_embd", "bias", "vocab_size"])]
    from: Option<PathBuf>,
    /// Tokens that the model sees at once [default: 64; with --from as many as it can]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    block_size: Option<usize>,
    /// Blocks
    #[arg(long, default_value_t = 4, value_parser = positive::<usize>, allow_negative_numbers = true)]
    n_layer: usize,
    /// Heads of attention
    #[arg(long, default_value_t = 4, value_parser = positive::<usize>, allow_negative_numbers = true)]
    n_head: usize,
    /// Features of a token
    #[arg(long, default_value_t = 128, value_parser = positive::<usize>, allow_negative_numbers = true)]
    n_embd: usize,
    /// Probability of dropout, after embeddings, in attention and after every layer
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability, allow_hyphen_values = true)]
    dropout: f64,
    /// Biases in linear layers and norms
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    bias: bool,
    /// Compute blocks again for backward, in place of keeping what is in them
    #[arg(long)]
    recompute: bool,
    /// Steps; a run that is resumed goes on by --epochs [default: 2000; 20 with --from]
    #[arg(long, value_name = "N", value_parser = positive::<u64>, allow_negative_numbers = true)]
    max_iters: Option<u64>,
    /// Steps of an epoch, after which it is evaluated [default: 250, 5 with --from; --max-iters if it is no multiple]
    #[arg(long, value_name = "N", value_parser = positive::<u64>, allow_negative_numbers = true)]
    eval_interval: Option<u64>,
    /// Batches of windows that are evaluated, at most as many as there are [default: 200; 40 with --from]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    eval_iters: Option<usize>,
    /// What text and flags came to.
    #[arg(skip)]
    prepared: Option<Prepared>,
}

/// What the weights mean, so that a model can be had of them without the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// transformers' config.json.
    model: Value,
    /// What its tokens are.
    pub vocabulary: Vocabulary,
}

impl Prepared {
    /// Extents and settings of the model.
    pub fn config(&self) -> Result<GptConfig> {
        Ok(GptConfig::read(&self.model)?)
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerName {
    /// A character of the text
    Characters,
    /// GPT-2's pairs of bytes
    Gpt2,
    /// A number that stands for nothing
    Numbers,
}

/// File beside a model of ours that says what its tokens are.
const VOCABULARY: &str = "vocabulary.json";
/// Tokens that a model writes at the end of its run.
const WRITTEN: usize = 400;
/// GPT-2's vocabulary, and what nanoGPT rounds it up to.
const GPT2: std::ops::RangeInclusive<usize> = 50_257..=50_304;

impl Options {
    /// What the weights of its run mean.
    pub fn prepared(&self) -> Result<&Prepared> {
        self.prepared.as_ref().context("config.json does not say what model it is: the run is of an older version")
    }

    fn iterations(&self) -> u64 {
        self.max_iters.unwrap_or(if self.from.is_some() { 20 } else { 2_000 })
    }

    /// Steps of an epoch.
    fn interval(&self) -> u64 {
        let (all, usual) = (self.iterations(), if self.from.is_some() { 5 } else { 250 });
        self.eval_interval.unwrap_or(if all.is_multiple_of(usual) { usual } else { all })
    }

    /// How the text becomes tokens, for a model of this vocabulary if there is one already.
    fn tokenizer(&self, model: Option<&GptConfig>) -> Result<Tokenizer> {
        let is_text =
            self.data.as_ref().is_none_or(|data| !data.is_dir() && data.extension().is_none_or(|e| e != "bin"));
        let size = self.vocab_size.or(model.map(|model| model.vocabulary));
        let known = |vocabulary| Ok(Tokenizer::Known(vocabulary));
        if let Some(from) = self.from.as_deref().filter(|_| self.tokenizer.is_none()) {
            return known(vocabulary_of(from, size.unwrap_or_default())?);
        }
        match self.tokenizer.unwrap_or(if is_text { TokenizerName::Characters } else { TokenizerName::Gpt2 }) {
            TokenizerName::Characters => Ok(Tokenizer::Characters),
            TokenizerName::Gpt2 => known(Vocabulary::Gpt2),
            TokenizerName::Numbers => known(Vocabulary::Numbers {
                size: size.context("--tokenizer numbers: say how many with --vocab-size")?,
            }),
        }
    }

    fn corpus(&self, tokenizer: &Tokenizer) -> Result<Corpus> {
        let corpus = match &self.data {
            None => Corpus::shakespeare(tokenizer)?,
            Some(path) => Corpus::open(path, tokenizer)?,
        };
        Ok(match &self.val_data {
            None => corpus,
            Some(path) => corpus.with_held_out(path)?,
        })
    }

    /// Extents and settings where nothing is given: nanoGPT's, but for the vocabulary.
    fn extents(&self) -> GptConfig {
        GptConfig {
            context: self.block_size.unwrap_or(64),
            depth: self.n_layer,
            heads: self.n_head,
            features: self.n_embd,
            bias: self.bias,
            ..GptConfig::default()
        }
    }
}

impl Screen for Options {
    fn name(&self) -> String {
        let stem = self.data.as_deref().and_then(|path| path.file_stem());
        format!("{}-gpt", stem.map_or("shakespeare".into(), |stem| stem.to_string_lossy()))
    }

    /// nanoGPT's: a warm-up of 100 steps, a cosine down to a tenth; matrices decay, biases and norms do not. With
    /// --from those of its fine-tuning.
    fn defaults(&self) -> Config {
        let settings = Config {
            epochs: self.iterations().div_ceil(self.interval()),
            batch_size: 12,
            evaluation_batch: 12,
            optimizer: OptimizerChoice::AdamW { betas: [0.9, 0.99] },
            lr: 1e-3,
            weight_decay: 0.1,
            decay_matrices_only: true,
            schedule: Schedule::Cosine { warmup: 100, total: 0, floor: 0.1 },
            ..Config::default()
        };
        if self.from.is_none() {
            return settings;
        }
        Config {
            batch_size: 1,
            evaluation_batch: 1,
            accumulate: 32,
            optimizer: OptimizerChoice::AdamW { betas: [0.9, 0.95] },
            lr: 3e-5,
            schedule: Schedule::Constant,
            ..settings
        }
    }

    fn data(&mut self) -> &mut Option<PathBuf> {
        &mut self.data
    }

    fn check(&self) -> Result<()> {
        let (all, interval) = (self.iterations(), self.interval());
        ensure!(all.is_multiple_of(interval), "--max-iters {all} is no multiple of --eval-interval {interval}");
        Ok(())
    }

    fn prepare(&mut self) -> Result<()> {
        let from = self.from.as_deref().map(|folder| GptConfig::read(&read_config(folder)?)).transpose()?;
        let vocabulary = match self.tokenizer(from.as_ref())? {
            Tokenizer::Known(vocabulary) => vocabulary,
            characters => self.corpus(&characters)?.vocabulary().clone(),
        };
        let (size, dropout) = (vocabulary.size(), self.dropout);
        let config = match from {
            Some(from) => from,
            None => GptConfig { vocabulary: self.vocab_size.unwrap_or(size), ..self.extents() },
        };
        ensure!(
            config.vocabulary >= size,
            "a vocabulary of {} is too small for {}, which has {size} tokens",
            config.vocabulary,
            vocabulary.name()
        );
        if let Some(block) = self.block_size.filter(|&block| block > config.context) {
            bail!("--block-size {block} is more than the context of the model, {}", config.context);
        }
        let config =
            GptConfig { embedding_dropout: dropout, attention_dropout: dropout, residual_dropout: dropout, ..config };
        self.prepared = Some(Prepared { model: config.write(), vocabulary });
        Ok(())
    }

    fn run<U: Use>(&self, used: U) -> Result<U::Out> {
        let prepared = self.prepared()?;
        let config = GptConfig { recompute: self.recompute, ..prepared.config()? };
        let (vocabulary, context) = (&prepared.vocabulary, self.block_size.unwrap_or(config.context));
        let corpus = self.corpus(&Tokenizer::Known(vocabulary.clone()))?;
        used.say(&format!("text: {}, windows of {context}", corpus.name()));
        let settings = used.settings();
        let step = settings.batch_size * settings.accumulate;
        let evaluated = self.eval_iters.unwrap_or(if self.from.is_some() { 40 } else { 200 }) * settings.batch_size;
        let (task, data) = Language::new(&corpus, context, self.interval() as usize * step, evaluated)?;
        let export = |model: &Gpt, folder: &Path| {
            let written = export(model, vocabulary, folder);
            written.map_err(|error| train::Error::Config(format!("{}: {error:#}", folder.display())))
        };
        let task = task.writing(|model| text(model, vocabulary)).exporting(export);
        let first = self.from.as_deref().map(|folder| pretrained(folder, &config)).transpose()?;
        let build = || first.as_ref().map_or_else(|| Gpt::new(&config), Module::deep_copy);
        used.with(Trainer::new(build, &task, &data))
    }
}

/// What the tokens of the model in a folder are, of which there are so many: `vocabulary.json` says it, else they are
/// GPT-2's.
pub fn vocabulary_of(folder: &Path, size: usize) -> Result<Vocabulary> {
    let path = folder.join(VOCABULARY);
    if path.exists() {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        return serde_json::from_str(&text).with_context(|| format!("{}: no vocabulary", path.display()));
    }
    ensure!(
        GPT2.contains(&size),
        "{}: its vocabulary of {size} tokens is not GPT-2's, and it has no vocabulary.json: say --tokenizer",
        folder.display()
    );
    Ok(Vocabulary::Gpt2)
}

/// The model of a folder of transformers, with settings that do not change its tensors.
fn pretrained(folder: &Path, config: &GptConfig) -> Result<Gpt> {
    let model = without_initial_values(|| Gpt::new(config))?;
    let weights = Weights::open(folder)?;
    load(&model, &weights, &model.sources(&weights.names()), &LoadOptions::default())?;
    Ok(model)
}

/// Writes transformers' folder of a model, and its vocabulary beside it.
fn export(model: &Gpt, vocabulary: &Vocabulary, folder: &Path) -> Result<()> {
    save(model, folder, &model.sources(&BTreeSet::new()), &SaveOptions::default())?;
    std::fs::write(folder.join("config.json"), serde_json::to_string_pretty(&model.to_config())?)?;
    write_vocabulary(folder, vocabulary)
}

/// Puts beside a model what its tokens are.
pub fn write_vocabulary(folder: &Path, vocabulary: &Vocabulary) -> Result<()> {
    let path = folder.join(VOCABULARY);
    std::fs::write(&path, serde_json::to_string(vocabulary)?).with_context(|| path.display().to_string())
}

/// What a model writes after the beginning of a text.
fn text(model: &Gpt, vocabulary: &Vocabulary) -> train::Result<String> {
    let beginning: Vec<i64> = vocabulary.beginning().into_iter().map(i64::from).collect();
    let sampling = Sampling { temperature: 0.8, top_k: Some(200), ..Sampling::default() };
    let mut writer = Writer::new(model, &beginning, 1, sampling, 0, Some(DType::F32))?;
    for _ in 0..WRITTEN {
        if vocabulary.ends(writer.write()?[0] as u32) {
            break;
        }
    }
    let tokens: Vec<u32> = writer.texts()[0][beginning.len()..].iter().map(|&token| token as u32).collect();
    Ok(vocabulary.decode(&tokens))
}
