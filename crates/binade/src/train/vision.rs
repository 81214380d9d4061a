//! `--model small-cnn`, `resnet18`, `vit`: images into classes.

use anyhow::Result;
use binade::models::{ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, Vit, VitConfig};
use binade::train::images::Dataset;
use binade::train::{Classify, Config, Splits, Trainer};

use super::job::{ModelName, Use};

/// Settings that train in a minute on the digits, in all three precisions; on other sets a first try.
pub fn defaults(model: ModelName, dataset: Dataset) -> Config {
    let (epochs, batch_size, lr) = match (model, dataset) {
        (ModelName::Resnet18, Dataset::Digits) => (3, 64, 1e-3),
        (ModelName::Vit, Dataset::Digits) => (20, 64, 2e-3),
        (_, Dataset::Digits) => (12, 64, 2e-3),
        (_, Dataset::Icons) => (40, 32, 1e-3),
        (_, _) => (10, 128, 1e-3),
    };
    Config { epochs, batch_size, lr, ..Config::default() }
}

/// Gives the model of a name for these images to who uses it.
pub fn job<U: Use>(model: ModelName, dataset: Dataset, data: &Splits, shape: [usize; 3], used: U) -> Result<U::Out> {
    let (task, [in_channels, size, _], classes) =
        (Classify { classes: dataset.classes().len() }, shape, dataset.classes().len());
    match model {
        ModelName::Resnet18 => {
            let config = ResNetConfig { in_channels, classes, ..ResNetConfig::default() };
            used.with(Trainer::new(|| ResNet::new(&config), &task, data))
        }
        ModelName::Vit => {
            let whole = VitConfig { in_channels, size: [size; 2], classes, ..VitConfig::default() };
            let small = VitConfig { patch: [2; 2], depth: 4, ..whole.clone() }.with_width(64, 4);
            let config = if size <= 8 { small } else { whole };
            used.with(Trainer::new(|| Vit::new(&config), &task, data))
        }
        ModelName::SmallCnn | ModelName::Gpt | ModelName::Unet | ModelName::Vae => {
            let config = SmallCnnConfig { in_channels, size, classes, ..SmallCnnConfig::default() };
            used.with(Trainer::new(|| SmallCnn::new(&config), &task, data))
        }
    }
}
