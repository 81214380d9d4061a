//! `binade train`: a thin client of [`binade::train::train`].

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use binade::models::{SmallCnn, SmallCnnConfig};
use binade::train::images::Dataset;
use binade::train::{Config, Precision, RunConfig, Splits, Summary, train};
use clap::ValueEnum;

use binade::cli::flags::{above_zero, positive, whole};
use binade::cli::output::line;
use binade::cli::threads;

#[derive(clap::Args)]
pub struct Args {
    /// Data set [default: digits]
    #[arg(long, value_enum)]
    dataset: Option<DatasetName>,
    /// Folder with the data set's files; digits needs none
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Precision to train in [default: all]
    #[arg(long, value_enum)]
    precision: Option<PrecisionName>,
    /// Passes over the training images; a resumed run may differ in this alone [default: 12 for digits, 10 else]
    #[arg(long, value_parser = positive::<u64>, allow_negative_numbers = true)]
    epochs: Option<u64>,
    /// Images per step [default: 64 for digits, 128 else]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    batch_size: Option<usize>,
    /// Leave out the last batch of an epoch where it has fewer images than the others
    #[arg(long)]
    drop_last: bool,
    /// Peak learning rate of AdamW [default: 2e-3 for digits, 1e-3 else]
    #[arg(long, value_parser = above_zero, allow_hyphen_values = true)]
    lr: Option<f64>,
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

#[derive(Clone, Copy, ValueEnum)]
enum DatasetName {
    Digits,
    Cifar10,
    Mnist,
    FashionMnist,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionName {
    Fp32,
    Fp16,
    Bf16,
    All,
}

impl From<DatasetName> for Dataset {
    fn from(name: DatasetName) -> Dataset {
        match name {
            DatasetName::Digits => Dataset::Digits,
            DatasetName::Cifar10 => Dataset::Cifar10,
            DatasetName::Mnist => Dataset::Mnist,
            DatasetName::FashionMnist => Dataset::FashionMnist,
        }
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(args.threads)?;
    let mut config = settings(args)?;
    let Some(dataset) = Dataset::ALL.into_iter().find(|d| d.name() == config.name) else {
        bail!("a run of {:?}, whose data this command does not know", config.name);
    };
    let splits = dataset.load(args.data.as_deref())?;
    if !args.quiet {
        progress(what_was_read(dataset, &splits));
    }
    let Some(seeds) = args.seeds else {
        train_once(&splits, &config)?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut all = Vec::new();
    let first = config.fit.seed;
    for seed in (0..seeds).map(|i| first.wrapping_add(i)) {
        config.fit.seed = seed;
        all.push((seed, train_once(&splits, &RunConfig { quiet: true, ..config.clone() })?));
        if !args.quiet {
            progress(seed_line(seed, &all[all.len() - 1].1));
        }
    }
    compare(&all)?;
    Ok(ExitCode::SUCCESS)
}

/// A line that training does not depend on: its results stand in the run folder.
fn progress(text: String) {
    let _ = line(text);
}

/// How much of the data set the files hold: a part of it is a data set too, but not without a word.
fn what_was_read(dataset: Dataset, splits: &Splits) -> String {
    let (train, test) = dataset.sizes();
    let of = |n: usize, all: usize| if n == all { n.to_string() } else { format!("{n} of {all}") };
    let shape: Vec<String> = splits.train.input_shape().iter().map(usize::to_string).collect();
    let (train, test) = (of(splits.train.len(), train), of(splits.test.len(), test));
    format!("{}: {train} training images, {test} test images, {}", dataset.name(), shape.join("×"))
}

/// What the flags ask for. Those that are not given have their defaults, or the values of the run that is resumed.
fn settings(args: &Args) -> Result<RunConfig> {
    let dataset = args.dataset.map_or(Dataset::Digits, Dataset::from);
    let (epochs, batch_size, lr) = if dataset == Dataset::Digits { (12, 64, 2e-3) } else { (10, 128, 1e-3) };
    let mut config = RunConfig {
        name: dataset.name().into(),
        precisions: Precision::ALL.to_vec(),
        fit: Config { epochs, batch_size, lr, ..Config::default() },
        out: args.resume.clone().flatten().or_else(|| args.out.clone()),
        resume: args.resume.is_some(),
        quiet: args.quiet,
    };
    if config.resume {
        let folder = config.folder()?;
        let RunConfig { name, precisions, fit, .. } = RunConfig::read(&folder)?;
        let name = if args.dataset.is_some() { config.name } else { name };
        config = RunConfig { name, precisions, fit, out: Some(folder), ..config };
    }
    config.precisions = match args.precision {
        None => config.precisions,
        Some(PrecisionName::Fp32) => vec![Precision::Fp32],
        Some(PrecisionName::Fp16) => vec![Precision::Fp16],
        Some(PrecisionName::Bf16) => vec![Precision::Bf16],
        Some(PrecisionName::All) => Precision::ALL.to_vec(),
    };
    let fit = &mut config.fit;
    fit.epochs = args.epochs.unwrap_or(fit.epochs);
    fit.batch_size = args.batch_size.unwrap_or(fit.batch_size);
    fit.drop_last |= args.drop_last;
    fit.lr = args.lr.unwrap_or(fit.lr);
    fit.seed = args.seed.unwrap_or(fit.seed);
    if let (true, Some(folder)) = (config.resume, &config.out) {
        config.check_resumed(folder)?;
    }
    Ok(config)
}

fn train_once(splits: &Splits, config: &RunConfig) -> Result<Vec<Summary>> {
    let shape = splits.train.input_shape();
    let extents = SmallCnnConfig { in_channels: shape[0], size: shape[1], ..SmallCnnConfig::default() };
    Ok(train(|| SmallCnn::new(&extents), splits, config)?.summaries)
}

fn seed_line(seed: u64, summaries: &[Summary]) -> String {
    let each =
        summaries.iter().map(|s| format!("{} {:.2} %", s.precision, 100.0 * s.test_accuracy.unwrap_or(f64::NAN)));
    format!("seed {seed}: {}", each.collect::<Vec<_>>().join("  "))
}

/// Mean paired difference of each precision to the first, with its standard error.
fn compare(all: &[(u64, Vec<Summary>)]) -> Result<()> {
    let accuracy = |s: &Summary| 100.0 * s.test_accuracy.unwrap_or(f64::NAN);
    let n = all.len() as f64;
    for i in 1..all[0].1.len() {
        let differences: Vec<f64> = all.iter().map(|(_, s)| accuracy(&s[i]) - accuracy(&s[0])).collect();
        let mean = differences.iter().sum::<f64>() / n;
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let (error, names) = ((variance / n).sqrt(), [i, 0].map(|i| &all[0].1[i].precision));
        line(format_args!("{} − {}: {mean:+.3} points, standard error {error:.3}, {n} seeds", names[0], names[1]))?;
    }
    Ok(())
}
