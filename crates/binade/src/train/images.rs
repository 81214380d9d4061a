//! Data sets of images by name, for every training on images.

use anyhow::{Result, anyhow, ensure};
use binade::models::{Filter, Preparation};
use binade::train::images::{Dataset, ImageSet, Source};
use binade::train::{Data, Numbers, Resize, Splits};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::job::{Use, what_was_read};
use crate::saved::resize;

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
    /// CIFAR-100's binary files
    Cifar100,
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
            DatasetName::Cifar100 => Dataset::Cifar100,
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
            Dataset::Cifar100 => DatasetName::Cifar100,
            Dataset::Mnist => DatasetName::Mnist,
            Dataset::FashionMnist => DatasetName::FashionMnist,
            Dataset::Folder => DatasetName::Folder,
        }
    }
}

/// Opens a data set, prepared as a model wants it, and says how much of it the files hold and which images were left
/// out.
pub fn open(
    dataset: Dataset,
    source: &Source<'_>,
    preparation: Option<&Preparation>,
    used: &impl Use,
) -> Result<ImageSet> {
    let set = match preparation {
        None => dataset.open(source)?,
        Some(preparation) => {
            // A size that is asked for comes before the model's.
            let resize = source.size.map_or_else(|| resize(preparation), Resize::square);
            let narrow = |values: &[f64]| values.iter().map(|v| *v as f32).collect::<Vec<f32>>();
            let set = dataset.open_as(source, &resize)?;
            let (channels, wanted) = (set.shape()[0], preparation.mean.len());
            ensure!(channels == wanted, "images of {channels} channels, and the model wants {wanted}");
            set.normalized(&narrow(&preparation.mean), &narrow(&preparation.std))?
        }
    };
    let splits = Splits::new(set.train.clone(), set.test.clone());
    used.say(&what_was_read(dataset, &splits, set.shape()));
    for error in &set.skipped {
        used.say(&format!("left out: {error}"));
    }
    Ok(set)
}

/// How the images of a set were prepared.
pub fn preparation(set: &ImageSet) -> Preparation {
    let ([_, height, width], (mean, std)) = (set.shape(), set.normalization());
    // The shortest decimals of these numbers: 0.4914 is what was meant.
    let wide = |values: &[f32]| values.iter().map(|v| v.to_string().parse().unwrap_or(*v as f64)).collect();
    let shorter = (height == width).then_some(height);
    Preparation { size: [height, width], shorter, filter: Filter::Bilinear, mean: wide(mean), std: wide(std) }
}

/// The first training images, as the model sees them.
pub fn first(set: &ImageSet, most: usize) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for index in 0..set.train.len().min(most) {
        let sample = set.train.sample(index, None).map_err(|error| anyhow!("training image {index}: {error}"))?;
        if let Some(Numbers::F32(image)) = sample.0.first().map(|values| &values.numbers) {
            all.extend_from_slice(image);
        }
    }
    Ok(all)
}
