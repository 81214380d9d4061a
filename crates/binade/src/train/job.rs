//! [`Job`]: what a run trains, as its `config.json` remembers it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use binade::nn::Module;
use binade::train::images::Dataset;
use binade::train::{Config, RunConfig, Splits, Trainer};
use serde::{Deserialize, Serialize};

use super::{diffusion, gpt, vae, vision};

/// What a screen has: the options of one kind of training, which are its flags too.
pub trait Screen {
    /// Name of a run: its folder is numbered after it.
    fn name(&self) -> String;

    /// The settings it has where nothing else is asked for.
    fn defaults(&self) -> Config;

    /// Where the data lie, which may change between a run and its resumption.
    fn data(&mut self) -> &mut Option<PathBuf>;

    /// Fails where a flag is outside its domain, as far as that is known without data.
    ///
    /// # Errors
    /// The first such flag.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Finds out what the run shall remember beside its flags, before there is a run.
    ///
    /// # Errors
    /// Flags that do not fit the data.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Loads the data and gives model, task and data to who uses them.
    fn run<U: Use>(&self, used: U) -> Result<U::Out>;
}

/// Uses a model, its task and its data, of whatever type the model is.
pub trait Use: Sized {
    type Out;

    fn with<M: Module>(self, trainer: Trainer<'_, M>) -> Result<Self::Out>;

    /// The settings that it is used with.
    fn settings(&self) -> &Config;

    /// A line about the data.
    fn say(&self, _line: &str) {}
}

/// A kind of training with its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Job {
    Vision(vision::Options),
    Gpt(gpt::Options),
    Diffusion(diffusion::Options),
    Vae(vae::Options),
}

/// Does the same with the options of every kind.
macro_rules! each {
    ($job:expr, $options:ident => $body:expr) => {
        match $job {
            Job::Vision($options) => $body,
            Job::Gpt($options) => $body,
            Job::Diffusion($options) => $body,
            Job::Vae($options) => $body,
        }
    };
}

impl Job {
    /// The job of a run. One that does not say is of the small CNN, on the data set of its name.
    pub fn of(name: &str, made_from: &serde_json::Value) -> Result<Job> {
        if made_from.is_null() {
            let Some(dataset) = Dataset::ALL.into_iter().find(|d| d.name() == name) else {
                bail!("a run of {name:?}, whose data this command does not know");
            };
            return Ok(Job::Vision(vision::Options::on(dataset)));
        }
        match serde_json::from_value(made_from.clone()) {
            Ok(job) => Ok(job),
            Err(error) => bail!("config.json: a run of something this command does not know: {error}"),
        }
    }

    /// The settings of the run in a folder, and what it trains: on these data where any are named.
    pub fn of_run(folder: &Path, data: Option<PathBuf>) -> Result<(RunConfig, Job)> {
        let config = RunConfig::read(folder)?;
        let job = Job::of(&config.name, &config.made_from).with_context(|| folder.display().to_string())?;
        Ok((config, job.with_data(data)))
    }

    /// The word after `train`.
    pub fn what(&self) -> &'static str {
        match self {
            Job::Vision(_) => "vision",
            Job::Gpt(_) => "gpt",
            Job::Diffusion(_) => "diffusion",
            Job::Vae(_) => "vae",
        }
    }

    /// As [`Screen::name`].
    pub fn name(&self) -> String {
        each!(self, options => options.name())
    }

    /// As [`Screen::defaults`].
    pub fn defaults(&self) -> Config {
        each!(self, options => options.defaults())
    }

    /// With its data at another place, if one is given.
    #[must_use]
    pub fn with_data(mut self, data: Option<PathBuf>) -> Job {
        let own = each!(&mut self, options => options.data());
        *own = data.or(own.take());
        self
    }

    /// As [`Screen::check`].
    pub fn check(&self) -> Result<()> {
        each!(self, options => options.check())
    }

    /// As [`Screen::prepare`].
    pub fn prepare(&mut self) -> Result<()> {
        each!(self, options => options.prepare())
    }

    /// As [`Screen::run`].
    pub fn run<U: Use>(&self, used: U) -> Result<U::Out> {
        each!(self, options => options.run(used))
    }
}

/// Channels, height and width of the images.
pub fn shape(data: &Splits) -> Result<[usize; 3]> {
    let first = data.train.sample(0, None).map_err(|error| anyhow::anyhow!("training sample 0: {error}"))?;
    Ok(std::array::from_fn(|d| first.0[0].shape[d]))
}

/// How much of the data set the files hold: a part of it is a data set too, but not without a word.
pub fn what_was_read(dataset: Dataset, data: &Splits, [c, h, w]: [usize; 3]) -> String {
    let whole = dataset.sizes();
    let of = |n: usize, all: Option<usize>| match all {
        Some(all) if n != all => format!("{n} of {all}"),
        _ => n.to_string(),
    };
    let (train, test) =
        (of(data.train.len(), whole.map(|(train, _)| train)), of(data.test.len(), whole.map(|(_, test)| test)));
    format!("{}: {train} training images, {test} test images, {c}×{h}×{w}", dataset.name())
}
