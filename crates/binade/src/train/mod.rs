//! `binade train`: a thin client of [`binade::train::Trainer`]; each kind of model has a screen of its own.

mod diffusion;
mod gpt;
pub mod job;
mod vae;
mod vision;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use binade::nn::Module;
use binade::train::images::Dataset;
use binade::train::{Config, Made, Precision, Run, RunConfig, Summary, Trainer};
use clap::ValueEnum;

use binade::cli::flags::{above_zero, positive, whole};
use binade::cli::output::line;
use binade::cli::threads;

use job::{Job, ModelName, Use};

#[derive(clap::Args)]
pub struct Args {
    /// What to train: diffusion is --model unet, and vae --model vae, each with --dataset icons
    #[arg(value_enum, conflicts_with = "model")]
    what: Option<What>,
    /// Model [default: small-cnn]
    #[arg(long, value_enum)]
    model: Option<ModelName>,
    /// Data set, of images [default: digits]
    #[arg(long, value_enum)]
    dataset: Option<DatasetName>,
    /// Folder with the data set's files; digits and icons need none. For gpt: a text file [default: embedded plays of
    /// Shakespeare]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Precision to train in [default: all]
    #[arg(long, value_enum)]
    precision: Option<PrecisionName>,
    /// Passes over the training data; a resumed run may differ in this alone [default: the model's; 12 for small-cnn
    /// on digits]
    #[arg(long, value_parser = positive::<u64>, allow_negative_numbers = true)]
    epochs: Option<u64>,
    /// Samples per step, or per part of one with --accumulate [default: 64 for digits, 12 for gpt, 128 else]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    batch_size: Option<usize>,
    /// Batches per step, whose gradients are accumulated [default: 1]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    accumulate: Option<usize>,
    /// Leave out the last batch of an epoch where it has fewer samples than the others
    #[arg(long)]
    drop_last: bool,
    /// Peak learning rate of AdamW [default: 2e-3 for small-cnn and vit on digits, 1e-3 else]
    #[arg(long, value_parser = above_zero, allow_hyphen_values = true)]
    lr: Option<f64>,
    /// Decay of averages of the weights, which are evaluated then [default: none; 0.99 for unet]
    #[arg(long, value_name = "DECAY", value_parser = above_zero, allow_hyphen_values = true)]
    ema: Option<f64>,
    /// Evaluate after so many steps each, besides after each epoch
    #[arg(long, value_name = "N", value_parser = positive::<u64>, allow_negative_numbers = true)]
    evaluate_every: Option<u64>,
    /// Keep the checkpoints of so many epochs [default: 1]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    keep_last: Option<usize>,
    /// Keep the weights of the lowest test loss, in best-PRECISION.safetensors
    #[arg(long)]
    keep_best: bool,
    #[command(flatten)]
    gpt: GptArgs,
    /// Seed of initial values, order and augmentation [default: 0]
    #[arg(long, value_parser = whole, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Train with this many seeds and compare each precision with fp32, seed by seed
    #[arg(
        long,
        value_name = "N",
        value_parser = positive::<u64>,
        allow_negative_numbers = true,
        conflicts_with_all = ["resume", "out"]
    )]
    seeds: Option<u64>,
    /// Threads, at most one per core [default: one per core]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    threads: Option<usize>,
    /// Run folder [default: a new runs/DATASET-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Continue the run in DIR with its own settings [default: --out, or the newest run of the data set]
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    resume: Option<Option<PathBuf>>,
    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

/// Options of gpt alone.
#[derive(clap::Args)]
#[command(next_help_heading = "Options of --model gpt (nanoGPT's block_size, n_layer, n_head, n_embd)")]
struct GptArgs {
    /// Characters that the model sees at once [default: 64]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    block_size: Option<usize>,
    /// Blocks [default: 4]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    layers: Option<usize>,
    /// Heads of attention [default: 4]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    heads: Option<usize>,
    /// Features of a token [default: 128]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    width: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Vision,
    Gpt,
    Diffusion,
    Vae,
}

impl What {
    fn model(self) -> ModelName {
        match self {
            What::Vision => ModelName::SmallCnn,
            What::Gpt => ModelName::Gpt,
            What::Diffusion => ModelName::Unet,
            What::Vae => ModelName::Vae,
        }
    }

    fn dataset(self) -> Dataset {
        match self {
            What::Vision | What::Gpt => Dataset::Digits,
            What::Diffusion | What::Vae => Dataset::Icons,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum DatasetName {
    Digits,
    Icons,
    Cifar10,
    Mnist,
    FashionMnist,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum PrecisionName {
    Fp32,
    Fp16,
    Bf16,
    All,
}

impl From<DatasetName> for Dataset {
    fn from(name: DatasetName) -> Dataset {
        match name {
            DatasetName::Digits => Dataset::Digits,
            DatasetName::Icons => Dataset::Icons,
            DatasetName::Cifar10 => Dataset::Cifar10,
            DatasetName::Mnist => Dataset::Mnist,
            DatasetName::FashionMnist => Dataset::FashionMnist,
        }
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(args.threads)?;
    let (job, mut config) = settings(args)?;
    let train = |config: &RunConfig, quiet: bool| job.run(args.data.as_deref(), Train { config, quiet });
    let Some(seeds) = args.seeds else {
        let run = train(&config, args.quiet)?;
        if !args.quiet {
            written(&config, &run);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut all = Vec::new();
    let first = config.fit.seed;
    for seed in (0..seeds).map(|i| first.wrapping_add(i)) {
        config.fit.seed = seed;
        let quiet = args.quiet || seed != first;
        all.push((seed, train(&RunConfig { quiet: true, ..config.clone() }, quiet)?.summaries));
        if !args.quiet {
            progress(&seed_line(seed, &all[all.len() - 1].1));
        }
    }
    compare(&all)?;
    Ok(ExitCode::SUCCESS)
}

/// Trains what it is given.
struct Train<'a> {
    config: &'a RunConfig,
    quiet: bool,
}

impl Use for Train<'_> {
    type Out = Run;

    fn with<M: Module>(self, trainer: Trainer<'_, M>) -> Result<Run> {
        Ok(trainer.run(self.config)?)
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            progress(line);
        }
    }
}

/// A line that training does not depend on: its results stand in the run folder.
fn progress(text: &str) {
    let _ = line(text);
}

/// The texts that the models wrote; images are in the report.
fn written(config: &RunConfig, run: &Run) {
    for (precision, made) in config.precisions.iter().zip(&run.made) {
        for text in made.iter().filter_map(|made| if let Made::Text(text) = made { Some(text) } else { None }) {
            progress(&format!("\n{} writes:\n{text}", precision.name()));
        }
    }
}

/// What the flags ask for. Those that are not given have their defaults, or the values of the run that is resumed.
fn settings(args: &Args) -> Result<(Job, RunConfig)> {
    let mut job = asked(args, None)?;
    let mut config = RunConfig {
        name: job.name(),
        precisions: Precision::ALL.to_vec(),
        fit: job.defaults()?,
        out: args.resume.clone().flatten().or_else(|| args.out.clone()),
        resume: args.resume.is_some(),
        quiet: args.quiet,
        made_from: serde_json::to_value(&job)?,
    };
    if config.resume {
        let folder = config.folder()?;
        let RunConfig { precisions, fit, made_from, name, .. } = RunConfig::read(&folder)?;
        let was = Job::of(&name, &made_from)?;
        job = asked(args, Some(&was))?;
        // Runs from before there was a choice do not say what they were made from.
        let made_from = if made_from.is_null() { made_from } else { serde_json::to_value(&job)? };
        config = RunConfig { name: job.name(), precisions, fit, made_from, out: Some(folder), ..config };
    }
    config.precisions = match args.precision {
        None => config.precisions,
        Some(PrecisionName::Fp32) => vec![Precision::Fp32],
        Some(PrecisionName::Fp16) => vec![Precision::Fp16],
        Some(PrecisionName::Bf16) => vec![Precision::Bf16],
        Some(PrecisionName::All) => Precision::ALL.to_vec(),
    };
    adjust(&mut config.fit, args);
    if let (true, Some(folder)) = (config.resume, &config.out) {
        config.check_resumed(folder)?;
    }
    Ok((job, config))
}

/// The job that the flags name; what they leave open is as it was, or as it is by default.
fn asked(args: &Args, was: Option<&Job>) -> Result<Job> {
    let named = args.model.or(args.what.map(What::model));
    let model = named.or(was.map(|job| job.model)).unwrap_or(ModelName::SmallCnn);
    if model != ModelName::Gpt {
        // What a run that is resumed is of is not known at first.
        if args.gpt.any() && (args.resume.is_none() || was.is_some()) {
            bail!("--block-size, --layers, --heads and --width are options of --model gpt");
        }
        let asked = args.dataset.map(|name| Dataset::from(name).name().to_string());
        let dataset = asked
            .or(was.and_then(|job| job.dataset.clone()))
            .unwrap_or_else(|| args.what.map_or(Dataset::Digits, What::dataset).name().into());
        return Ok(Job { model, dataset: Some(dataset), gpt: None });
    }
    if args.dataset.is_some() {
        bail!("--dataset is of images: gpt learns from a text, --data FILE");
    }
    let GptArgs { block_size, layers, heads, width } = args.gpt;
    let before = was.and_then(|job| job.gpt.clone());
    let gpt::Options { text, context, layers: depth, heads: several, width: wide } = before.unwrap_or_default();
    let options = gpt::Options {
        text: if was.is_some() { text } else { args.data.clone() },
        context: block_size.unwrap_or(context),
        layers: layers.unwrap_or(depth),
        heads: heads.unwrap_or(several),
        width: width.unwrap_or(wide),
    };
    Ok(Job { model, dataset: None, gpt: Some(options) })
}

impl GptArgs {
    fn any(&self) -> bool {
        self.block_size.or(self.layers).or(self.heads).or(self.width).is_some()
    }
}

/// Puts what the flags say in the place of the settings.
fn adjust(fit: &mut Config, args: &Args) {
    fit.epochs = args.epochs.unwrap_or(fit.epochs);
    fit.batch_size = args.batch_size.unwrap_or(fit.batch_size);
    fit.accumulate = args.accumulate.unwrap_or(fit.accumulate);
    fit.drop_last |= args.drop_last;
    fit.lr = args.lr.unwrap_or(fit.lr);
    fit.ema = args.ema.or(fit.ema);
    fit.evaluate_every = args.evaluate_every.or(fit.evaluate_every);
    fit.keep_last = args.keep_last.unwrap_or(fit.keep_last);
    fit.keep_best |= args.keep_best;
    fit.seed = args.seed.unwrap_or(fit.seed);
}

/// What a summary is compared by: accuracy in percent, else the loss.
fn result(summary: &Summary) -> (f64, &'static str) {
    match summary.test_accuracy {
        Some(accuracy) => (100.0 * accuracy, "points"),
        None => (summary.test_loss.unwrap_or(f64::NAN), "of test loss"),
    }
}

fn seed_line(seed: u64, summaries: &[Summary]) -> String {
    let each = summaries.iter().map(|s| match s.test_accuracy {
        Some(accuracy) => format!("{} {:.2} %", s.precision, 100.0 * accuracy),
        None => format!("{} {:.4}", s.precision, result(s).0),
    });
    format!("seed {seed}: {}", each.collect::<Vec<_>>().join("  "))
}

/// Mean paired difference of each precision to the first, with its standard error.
fn compare(all: &[(u64, Vec<Summary>)]) -> Result<()> {
    let n = all.len() as f64;
    for i in 1..all[0].1.len() {
        let differences: Vec<f64> = all.iter().map(|(_, s)| result(&s[i]).0 - result(&s[0]).0).collect();
        let mean = differences.iter().sum::<f64>() / n;
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let (error, names) = ((variance / n).sqrt(), [i, 0].map(|i| &all[0].1[i].precision));
        let unit = result(&all[0].1[i]).1;
        line(format_args!("{} − {}: {mean:+.3} {unit}, standard error {error:.3}, {n} seeds", names[0], names[1]))?;
    }
    Ok(())
}
