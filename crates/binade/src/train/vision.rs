//! `train vision`, and `train` without a word: images into classes.

use std::path::PathBuf;

use anyhow::Result;
use binade::models::{ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, Vit, VitConfig};
use binade::train::images::Dataset;
use binade::train::{Classify, Config, Trainer};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::job::{Screen, Use, shape, what_was_read};

/// What is asked for beside the settings of every training.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Model
    #[arg(long, value_enum, default_value_t = ModelName::SmallCnn)]
    model: ModelName,
    /// Data set
    #[arg(long, value_enum, default_value_t = DatasetName::Digits)]
    dataset: DatasetName,
    /// Folder with the data set's files; digits and icons need none
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// The models that `--model` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelName {
    SmallCnn,
    Resnet18,
    Vit,
}

impl ModelName {
    fn name(self) -> &'static str {
        match self {
            ModelName::SmallCnn => "small-cnn",
            ModelName::Resnet18 => "resnet18",
            ModelName::Vit => "vit",
        }
    }
}

impl Options {
    /// The small CNN on a data set.
    pub fn on(dataset: Dataset) -> Options {
        Options { model: ModelName::SmallCnn, dataset: dataset.into(), data: None }
    }
}

impl Screen for Options {
    fn name(&self) -> String {
        let data = Dataset::from(self.dataset).name();
        if self.model == ModelName::SmallCnn { data.into() } else { format!("{data}-{}", self.model.name()) }
    }

    /// Settings that train in a minute on the digits, in all three precisions; on other sets a first try.
    fn defaults(&self) -> Config {
        let (epochs, batch_size, lr) = match (self.model, Dataset::from(self.dataset)) {
            (ModelName::Resnet18, Dataset::Digits) => (3, 64, 1e-3),
            (ModelName::Vit, Dataset::Digits) => (20, 64, 2e-3),
            (_, Dataset::Digits) => (12, 64, 2e-3),
            (_, Dataset::Icons) => (40, 32, 1e-3),
            (_, _) => (10, 128, 1e-3),
        };
        Config { epochs, batch_size, lr, ..Config::default() }
    }

    fn data(&mut self) -> &mut Option<PathBuf> {
        &mut self.data
    }

    fn run<U: Use>(&self, used: U) -> Result<U::Out> {
        let dataset = Dataset::from(self.dataset);
        let data = dataset.load(self.data.as_deref())?;
        let shape = shape(&data)?;
        used.say(&what_was_read(dataset, &data, shape));
        let (task, [in_channels, size, _], classes) =
            (Classify { classes: dataset.classes().len() }, shape, dataset.classes().len());
        match self.model {
            ModelName::Resnet18 => {
                let config = ResNetConfig { in_channels, classes, ..ResNetConfig::default() };
                used.with(Trainer::new(|| ResNet::new(&config), &task, &data))
            }
            ModelName::Vit => {
                let whole = VitConfig { in_channels, size: [size; 2], classes, ..VitConfig::default() };
                let small = VitConfig { patch: [2; 2], depth: 4, ..whole.clone() }.with_width(64, 4);
                let config = if size <= 8 { small } else { whole };
                used.with(Trainer::new(|| Vit::new(&config), &task, &data))
            }
            ModelName::SmallCnn => {
                let config = SmallCnnConfig { in_channels, size, classes, ..SmallCnnConfig::default() };
                used.with(Trainer::new(|| SmallCnn::new(&config), &task, &data))
            }
        }
    }
}

/// The data sets that `--dataset` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetName {
    Digits,
    Icons,
    Cifar10,
    Mnist,
    FashionMnist,
    Folder,
}

impl From<DatasetName> for Dataset {
    fn from(name: DatasetName) -> Dataset {
        match name {
            DatasetName::Digits => Dataset::Digits,
            DatasetName::Icons => Dataset::Icons,
            DatasetName::Cifar10 => Dataset::Cifar10,
            DatasetName::Mnist => Dataset::Mnist,
            DatasetName::FashionMnist => Dataset::FashionMnist,
            DatasetName::Folder => Dataset::Folder,
        }
    }
}

impl From<Dataset> for DatasetName {
    fn from(dataset: Dataset) -> DatasetName {
        match dataset {
            Dataset::Digits => DatasetName::Digits,
            Dataset::Icons => DatasetName::Icons,
            Dataset::Cifar10 => DatasetName::Cifar10,
            Dataset::Mnist => DatasetName::Mnist,
            Dataset::FashionMnist => DatasetName::FashionMnist,
            Dataset::Folder => DatasetName::Folder,
        }
    }
}
