//! Data sets of images by name, for every training on images.

use anyhow::Result;
use binade::train::Splits;
use binade::train::images::{Dataset, ImageSet, Source};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::job::{Use, what_was_read};

/// The data sets that `--dataset` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetName {
    /// 1,797 handwritten digits of 8×8, embedded
    Digits,
    /// 214 icons of 32×32 in colour and opacity, embedded
    Icons,
    /// CIFAR-10's binary files
    Cifar10,
    /// MNIST's idx files
    Mnist,
    /// Fashion-MNIST's idx files
    FashionMnist,
    /// PNG and JPEG files in a folder for each class
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

/// Opens a data set, and says how much of it the files hold and which images were left out.
pub fn open(dataset: Dataset, source: &Source<'_>, used: &impl Use) -> Result<ImageSet> {
    let set = dataset.open(source)?;
    let splits = Splits::new(set.train.clone(), set.test.clone());
    used.say(&what_was_read(dataset, &splits, set.shape()));
    for error in &set.skipped {
        used.say(&format!("left out: {error}"));
    }
    Ok(set)
}
