//! [`Job`]: what a run trains, as its `config.json` remembers it.

use std::path::Path;

use anyhow::{Result, bail};
use binade::nn::Module;
use binade::train::images::Dataset;
use binade::train::{Config, Splits, Trainer};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{diffusion, gpt, vae, vision};

/// The models that `--model` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelName {
    SmallCnn,
    Resnet18,
    Vit,
    Gpt,
    Unet,
    Vae,
}

impl ModelName {
    fn name(self) -> &'static str {
        match self {
            ModelName::SmallCnn => "small-cnn",
            ModelName::Resnet18 => "resnet18",
            ModelName::Vit => "vit",
            ModelName::Gpt => "gpt",
            ModelName::Unet => "unet",
            ModelName::Vae => "vae",
        }
    }
}

/// A model and what it is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub model: ModelName,
    /// Name of the data set, of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Of a language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpt: Option<gpt::Options>,
}

/// Uses a model, its task and its data, of whatever type the model is.
pub trait Use: Sized {
    type Out;

    fn with<M: Module>(self, trainer: Trainer<'_, M>) -> Result<Self::Out>;

    /// A line about the data.
    fn say(&self, _line: &str) {}
}

impl Job {
    /// The job of a run. One that does not say is of the small CNN, on the data set of its name.
    pub fn of(name: &str, made_from: &serde_json::Value) -> Result<Job> {
        if made_from.is_null() {
            return Ok(Job { model: ModelName::SmallCnn, dataset: Some(name.into()), gpt: None });
        }
        match serde_json::from_value(made_from.clone()) {
            Ok(job) => Ok(job),
            Err(error) => bail!("config.json: a run of something this command does not know: {error}"),
        }
    }

    /// Name of the run.
    pub fn name(&self) -> String {
        let data = match (&self.dataset, &self.gpt) {
            (Some(dataset), _) => dataset.clone(),
            (None, Some(gpt::Options { text: Some(text), .. })) => {
                text.file_stem().map_or("text".into(), |stem| stem.to_string_lossy().into_owned())
            }
            (None, _) => "shakespeare".into(),
        };
        if self.model == ModelName::SmallCnn { data } else { format!("{data}-{}", self.model.name()) }
    }

    fn dataset(&self) -> Result<Dataset> {
        let name = self.dataset.as_deref().unwrap_or_default();
        match Dataset::ALL.into_iter().find(|d| d.name() == name) {
            Some(dataset) => Ok(dataset),
            None => bail!("a run of {name:?}, whose data this command does not know"),
        }
    }

    /// The settings it has where nothing else is asked for.
    pub fn defaults(&self) -> Result<Config> {
        Ok(match self.model {
            ModelName::Gpt => gpt::defaults(),
            ModelName::Unet => diffusion::defaults(self.dataset()?),
            ModelName::Vae => vae::defaults(self.dataset()?),
            ModelName::SmallCnn | ModelName::Resnet18 | ModelName::Vit => vision::defaults(self.model, self.dataset()?),
        })
    }

    /// Loads the data, from `from` where that is given, and gives all to who uses it.
    pub fn run<U: Use>(&self, from: Option<&Path>, used: U) -> Result<U::Out> {
        if self.model == ModelName::Gpt {
            let mut options = self.gpt.clone().unwrap_or_default();
            options.text = from.map(Path::to_path_buf).or(options.text);
            return gpt::job(&options, used);
        }
        let dataset = self.dataset()?;
        let data = dataset.load(from)?;
        let shape = shape(&data)?;
        used.say(&what_was_read(dataset, &data, shape));
        match self.model {
            ModelName::Unet => diffusion::job(dataset, &data, shape, used),
            ModelName::Vae => vae::job(dataset, &data, shape, used),
            model => vision::job(model, dataset, &data, shape, used),
        }
    }
}

/// Channels, height and width of the images.
fn shape(data: &Splits) -> Result<[usize; 3]> {
    let first = data.train.sample(0, None).map_err(|error| anyhow::anyhow!("training sample 0: {error}"))?;
    Ok(std::array::from_fn(|d| first.0[0].shape[d]))
}

/// How much of the data set the files hold: a part of it is a data set too, but not without a word.
fn what_was_read(dataset: Dataset, data: &Splits, [c, h, w]: [usize; 3]) -> String {
    let whole = dataset.sizes();
    let of = |n: usize, all: Option<usize>| match all {
        Some(all) if n != all => format!("{n} of {all}"),
        _ => n.to_string(),
    };
    let (train, test) =
        (of(data.train.len(), whole.map(|(train, _)| train)), of(data.test.len(), whole.map(|(_, test)| test)));
    format!("{}: {train} training images, {test} test images, {c}×{h}×{w}", dataset.name())
}
