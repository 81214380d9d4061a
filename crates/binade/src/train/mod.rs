//! `binade train`: a thin client of [`binade::train::Trainer`]; each kind of training has a screen of its own.

mod compare;
mod diffusion;
mod flags;
pub mod given;
pub mod gpt;
pub mod images;
pub mod job;
mod learner;
mod pictures;
mod room;
mod vae;
mod vision;

use std::process::ExitCode;

use anyhow::{Result, bail};
use binade::autograd::scope;
use binade::cli::output::line;
use binade::cli::threads;
use binade::nn::Module;
use binade::train::{Config, Made, Precision, Run, RunConfig, Trainer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use compare::{compare, seed_line};
use flags::Common;
use given::Given;
use job::{Job, Use};

use crate::watch;

pub use flags::PrecisionName;

#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example: binade train --epochs 2 --precision bf16 --profile trace.json"
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    vision: Flags<vision::Options>,
}

/// What to train; images into classes by default.
#[derive(clap::Subcommand)]
enum What {
    /// Images into classes
    #[command(after_help = "Example: binade train vision --dataset icons --epochs 1 --crop 2 --precision bf16")]
    Vision(Box<Flags<vision::Options>>),
    /// A language model on a text
    #[command(after_help = "Example: binade train gpt --n-layer 1 --max-iters 20 --eval-iters 2 --precision fp32")]
    Gpt(Box<Flags<gpt::Options>>),
    /// A network that draws images by taking noise away
    #[command(after_help = "Example: binade train diffusion --dataset digits --channels 8,8 --epochs 1 --steps 2")]
    Diffusion(Box<Flags<diffusion::Options>>),
    /// An autoencoder of images, to latents and back
    #[command(after_help = "Example: binade train vae --dataset digits --channels 8,8 --epochs 1 --precision bf16")]
    Vae(Box<Flags<vae::Options>>),
}

/// The flags of one kind of training.
#[derive(clap::Args)]
struct Flags<O: clap::Args> {
    #[command(flatten)]
    own: Given<O>,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let common = match &args.what {
        None => &args.vision.common,
        Some(What::Vision(flags)) => &flags.common,
        Some(What::Gpt(flags)) => &flags.common,
        Some(What::Diffusion(flags)) => &flags.common,
        Some(What::Vae(flags)) => &flags.common,
    };
    threads::start(common.threads)?;
    let device = common.on.open()?;
    let (job, mut config) = settings(args, common)?;
    let train = |config: &RunConfig, quiet: bool| scope::with_device(&device, || job.run(Train { config, quiet }));
    let Some(seeds) = common.seeds else {
        let run = if common.tui {
            config = RunConfig { out: Some(config.folder()?), quiet: true, ..config };
            watch::beside(&config.folder()?, config.fit.epochs, || train(&config, true))?
        } else {
            train(&config, common.is_quiet())?
        };
        if common.json {
            let folder = run.folder.display().to_string();
            line(serde_json::to_string_pretty(&json!({ "folder": folder, "summaries": run.summaries }))?)?;
        } else if !common.is_quiet() {
            written(&config, &run);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut all = Vec::new();
    let first = config.fit.seed;
    for seed in (0..seeds).map(|i| first.wrapping_add(i)) {
        config.fit.seed = seed;
        let quiet = common.is_quiet() || seed != first;
        all.push((seed, train(&RunConfig { quiet: true, ..config.clone() }, quiet)?.summaries));
        if !common.is_quiet() {
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
        let save_between_steps = !room::check(&trainer, self.config)?;
        let fit = Config { save_between_steps, ..self.config.fit.clone() };
        Ok(trainer.run(&RunConfig { fit, ..self.config.clone() })?)
    }

    fn settings(&self) -> &Config {
        &self.config.fit
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
fn settings(args: &Args, common: &Common) -> Result<(Job, RunConfig)> {
    let mut job = asked(args, None)?;
    let mut config = RunConfig {
        name: job.name(),
        precisions: Precision::ALL.to_vec(),
        fit: job.defaults(),
        out: common.resume.clone().flatten().or_else(|| common.out.clone()),
        resume: common.resume.is_some(),
        after_epoch: common.after_epoch,
        quiet: common.is_quiet(),
        verbose: common.is_verbose(),
        profile: common.profile(),
        made_from: serde_json::Value::Null,
    };
    if config.resume {
        let folder = config.folder()?;
        let RunConfig { precisions, fit, made_from, name, .. } = RunConfig::read(&folder)?;
        job = asked(args, Some(&Job::of(&name, &made_from)?))?;
        // Runs that were not started by this command do not say what they were made from.
        let made_from = if made_from.is_null() { made_from } else { serde_json::to_value(&job)? };
        config = RunConfig { name: job.name(), precisions, fit, made_from, out: Some(folder), ..config };
    }
    config.precisions = common.precisions().unwrap_or(config.precisions);
    common.adjust(&mut config.fit)?;
    // Before anything is read or written.
    config.check()?;
    job.check()?;
    if !config.resume {
        job.prepare()?;
        config.made_from = serde_json::to_value(&job)?;
    }
    if let (true, Some(folder)) = (config.resume, &config.out) {
        config.check_resumed(folder)?;
    }
    Ok((job, config))
}

/// The job that the flags name; what they leave open is as it was, or as it is by default.
fn asked(args: &Args, was: Option<&Job>) -> Result<Job> {
    Ok(match (&args.what, was) {
        (None | Some(What::Vision(_)), None | Some(Job::Vision(_))) => {
            let flags = if let Some(What::Vision(flags)) = &args.what { flags } else { &args.vision };
            Job::Vision(options(flags, if let Some(Job::Vision(was)) = was { Some(was) } else { None })?)
        }
        (Some(What::Gpt(flags)), None) => Job::Gpt(options(flags, None)?),
        (Some(What::Gpt(flags)), Some(Job::Gpt(was))) => Job::Gpt(options(flags, Some(was))?),
        (Some(What::Diffusion(flags)), None) => Job::Diffusion(options(flags, None)?),
        (Some(What::Diffusion(flags)), Some(Job::Diffusion(was))) => Job::Diffusion(options(flags, Some(was))?),
        (Some(What::Vae(flags)), None) => Job::Vae(options(flags, None)?),
        (Some(What::Vae(flags)), Some(Job::Vae(was))) => Job::Vae(options(flags, Some(was))?),
        // A run knows what it trains.
        (None, Some(was)) => match args.vision.own.first() {
            None => was.clone(),
            Some(flag) => bail!("{flag} is an option of `train vision`, and the run is one of `train {}`", was.what()),
        },
        (Some(_), Some(was)) => bail!("the run is one of `train {}`", was.what()),
    })
}

fn options<O: clap::Args + Serialize + DeserializeOwned + Clone>(flags: &Flags<O>, was: Option<&O>) -> Result<O> {
    was.map_or_else(|| Ok(flags.own.flags().clone()), |was| flags.own.over(was))
}
