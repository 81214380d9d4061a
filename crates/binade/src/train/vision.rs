//! `train vision`, and `train` without a word: images into classes.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use binade::cli::flags::{at_least_zero, part, positive};
use binade::models::{
    Airbench, AirbenchConfig, AnyModel, ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, Stem, Vit, VitConfig, whitening,
};
use binade::nn::Schedule;
use binade::train::images::{Dataset, ImageSet, Source};
use binade::train::{Augment, Classify, Config, Flip, OptimizerChoice, RandAugment, Views};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::images;
use super::job::{Screen, Use};
use super::learner::{Learner, Start};

pub use super::images::DatasetName;

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
    /// Of a folder: what an image's shorter side becomes before the middle square is cut out [default: none, and all
    /// images are squares of one size]
    #[arg(long, value_name = "PIXELS", value_parser = positive::<usize>, allow_negative_numbers = true)]
    image_size: Option<usize>,
    /// Of a folder: leave out files that cannot be read, and say which
    #[arg(long)]
    #[serde(default)]
    skip_broken: bool,
    /// Continue training images by so many pixels as in a mirror, and cut one of their size out at random [default: 0;
    /// 2 for airbench]
    #[arg(long, value_name = "PIXELS")]
    crop: Option<usize>,
    /// Mirror training images [default: random on cifar10 and icons, alternating for airbench, else off]
    #[arg(long, value_enum)]
    flip: Option<FlipName>,
    /// Put a square of the mean, of this side, anywhere in a training image [default: 0]
    #[arg(long, value_name = "PIXELS")]
    cutout: Option<usize>,
    /// Mix training images in shares from the Beta distribution of this α [default: 0, not at all]
    #[arg(long, value_name = "ALPHA", value_parser = at_least_zero, allow_hyphen_values = true)]
    mixup: Option<f64>,
    /// Put a part of one training image into another, of an area by this α [default: 0, not at all]
    #[arg(long, value_name = "ALPHA", value_parser = at_least_zero, allow_hyphen_values = true)]
    cutmix: Option<f64>,
    /// So many random changes of colour and form, of a strength from 0 to 30 [default: none]
    #[arg(long, num_args = 2, value_names = ["CHANGES", "STRENGTH"])]
    rand_augment: Option<Vec<u32>>,
    /// Part of a label that is spread over all classes [default: 0; 0.2 for airbench]
    #[arg(long, value_name = "PART", value_parser = part, allow_hyphen_values = true)]
    label_smoothing: Option<f64>,
    /// Of which images an answer in evaluation is the mean [default: one; moved for airbench]
    #[arg(long, value_enum)]
    test_views: Option<ViewsName>,
    /// Begin with the weights of this folder, of a library's ResNet or ViT or of a run; the head is new where the
    /// number of classes is another
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    from: Option<PathBuf>,
    /// With --from: train the head alone
    #[arg(long, requires = "from")]
    #[serde(default)]
    head_only: bool,
}

/// The models that `--model` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelName {
    /// Four convolutions and two layers, for images of 8×8 and up
    SmallCnn,
    /// ResNet-20 of three stages from 16 channels on, for images of 8×8 and up (He et al., 2016)
    Resnet20,
    /// ResNet-18
    Resnet18,
    /// ResNet-34
    Resnet34,
    /// ResNet-50
    Resnet50,
    /// Vision transformer of 6 blocks and 192 features; of 4 and 64 for images of 8×8
    Vit,
    /// ViT-Ti: 12 blocks, 192 features
    VitTiny,
    /// ViT-S: 12 blocks, 384 features
    VitSmall,
    /// ViT-B: 12 blocks, 768 features
    VitBase,
    /// The network and the recipe that learn CIFAR-10 in ten passes (Jordan, 2024)
    Airbench,
}

/// Whether training images are mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FlipName {
    /// Never
    Off,
    /// Each time with probability ½
    Random,
    /// Every other epoch
    Alternating,
}

/// Of which images an answer is the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ViewsName {
    /// The image
    One,
    /// The image and its mirror image
    Mirrored,
    /// Those, and both moved by a pixel
    Moved,
}

impl ModelName {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
    }
}

impl Options {
    /// The small CNN on a data set.
    pub fn on(dataset: Dataset) -> Options {
        Options {
            model: ModelName::SmallCnn,
            dataset: dataset.into(),
            data: None,
            image_size: None,
            skip_broken: false,
            crop: None,
            flip: None,
            cutout: None,
            mixup: None,
            cutmix: None,
            rand_augment: None,
            label_smoothing: None,
            test_views: None,
            from: None,
            head_only: false,
        }
    }

    /// What is done to training images.
    fn augment(&self) -> Augment {
        let usual = Dataset::from(self.dataset).augment();
        let usual = if self.model == ModelName::Airbench {
            Augment { crop: 2, flip: Flip::Alternating, ..usual }
        } else {
            usual
        };
        let rand_augment = self.rand_augment.as_deref().and_then(|numbers| match *numbers {
            [changes, strength] => Some(RandAugment { changes: changes as usize, strength }),
            _ => None,
        });
        Augment {
            crop: self.crop.unwrap_or(usual.crop),
            flip: self.flip.map_or(usual.flip, |flip| match flip {
                FlipName::Off => Flip::Off,
                FlipName::Random => Flip::Random,
                FlipName::Alternating => Flip::Alternating,
            }),
            rand_augment,
            cutout: self.cutout.unwrap_or(0),
            mixup: self.mixup.unwrap_or(0.0),
            cutmix: self.cutmix.unwrap_or(0.0),
        }
    }

    /// What is learnt of these images.
    fn task(&self, set: &ImageSet) -> Result<Classify> {
        let (classes, airbench) = (set.classes.len(), self.model == ModelName::Airbench);
        ensure!(classes > 1, "images of one class, {:?}: there is nothing to tell apart", set.classes);
        let smoothing = self.label_smoothing.unwrap_or(if airbench { 0.2 } else { 0.0 });
        let views = match self.test_views {
            None if airbench => Views::Moved,
            None | Some(ViewsName::One) => Views::One,
            Some(ViewsName::Mirrored) => Views::Mirrored,
            Some(ViewsName::Moved) => Views::Moved,
        };
        Ok(Classify { names: set.classes.clone(), smoothing, views, ..Classify::new(classes) })
    }
}

impl Screen for Options {
    fn name(&self) -> String {
        let data = Dataset::from(self.dataset).name();
        if let Some(from) = &self.from {
            let from = from.file_name().map_or_else(|| "folder".into(), |name| name.to_string_lossy());
            return format!("{data}-from-{from}");
        }
        if self.model == ModelName::SmallCnn { data.into() } else { format!("{data}-{}", self.model.name()) }
    }

    /// Settings that train in a minute on the digits, in all three precisions; on other sets a first try.
    fn defaults(&self) -> Config {
        match (self.model, &self.from) {
            (_, Some(_)) if self.head_only => {
                return Config { epochs: 5, batch_size: 32, lr: 1e-3, ..Config::default() };
            }
            (_, Some(_)) => return Config { epochs: 5, batch_size: 32, lr: 1e-4, ..Config::default() },
            (ModelName::Airbench, None) => return airbench(),
            _ => {}
        }
        let (epochs, batch_size, lr) = match (self.model, Dataset::from(self.dataset)) {
            // Two minutes in each precision on 2 cores, of 10,000 images.
            (ModelName::SmallCnn, Dataset::Cifar10) => {
                let schedule = Schedule::OneCycle { total: 0, rising: 0.3, div: 25.0, final_div: 1e4, cosine: true };
                return Config { epochs: 3, batch_size: 64, lr: 1.5e-3, schedule, ..Config::default() };
            }
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

    fn check(&self) -> Result<()> {
        Ok(self.augment().check()?)
    }

    fn run<U: Use>(&self, used: U) -> Result<U::Out> {
        let start = self.from.as_deref().map(Start::open).transpose()?;
        let source = Source {
            folder: self.data.as_deref(),
            size: self.image_size,
            channels: start.as_ref().map_or(3, Start::channels),
            skip_broken: self.skip_broken,
        };
        let preparation = start.as_ref().map(|start| &start.preparation);
        let set = images::open(self.dataset.into(), &source, preparation, &used)?.augmented(self.augment())?;
        let task = self.task(&set)?;
        let norm_rate = if self.from.is_none() && self.model == ModelName::Airbench { 64.0 } else { 1.0 };
        let learner = Learner { set: &set, task: &task, start: start.as_ref(), head_only: self.head_only, norm_rate };
        match start.as_ref().map(|start| &start.saved.model) {
            None => self.afresh(&learner, used),
            Some(AnyModel::SmallCnn(model)) => {
                let config = SmallCnnConfig { classes: task.classes, ..model.config().clone() };
                learner.train(|| SmallCnn::new(&config), used)
            }
            Some(AnyModel::Airbench(model)) => {
                let config = AirbenchConfig { classes: task.classes, ..model.config().clone() };
                learner.train(|| Airbench::new(&config), used)
            }
            Some(AnyModel::ResNet(model)) => {
                let config = ResNetConfig { classes: task.classes, ..model.config().clone() };
                learner.train(|| ResNet::new(&config), used)
            }
            Some(AnyModel::Vit(model)) => {
                let config = VitConfig { classes: task.classes, ..model.config().clone() };
                learner.train(|| Vit::new(&config), used)
            }
            Some(_) => bail!("the model is none of images into classes"),
        }
    }
}

impl Options {
    /// Trains a model with new weights.
    fn afresh<U: Use>(&self, learner: &Learner<'_>, used: U) -> Result<U::Out> {
        let (classes, [in_channels, size, _]) = (learner.task.classes, learner.set.shape());
        let pretrained_cfg = images::preparation(learner.set).to_timm(in_channels);
        match self.model {
            ModelName::SmallCnn => {
                let usual = SmallCnnConfig::default();
                let config = SmallCnnConfig { in_channels, size, classes, pretrained_cfg, ..usual };
                learner.train(|| SmallCnn::new(&config), used)
            }
            ModelName::Resnet20 | ModelName::Resnet18 | ModelName::Resnet34 | ModelName::Resnet50 => {
                let config = ResNetConfig { in_channels, classes, pretrained_cfg, ..resnet(self.model, size) };
                learner.train(|| ResNet::new(&config), used)
            }
            ModelName::Vit | ModelName::VitTiny | ModelName::VitSmall | ModelName::VitBase => {
                let config = VitConfig { in_channels, classes, pretrained_cfg, ..vit(self.model, size) };
                learner.train(|| Vit::new(&config), used)
            }
            ModelName::Airbench => {
                let whitening = Some(whitening(&images::first(learner.set, 5_000)?, learner.set.shape()));
                let usual = AirbenchConfig::default();
                let config = AirbenchConfig { in_channels, size, classes, whitening, pretrained_cfg, ..usual };
                learner.train(|| Airbench::new(&config), used)
            }
        }
    }
}

/// The recipe of airbench94, whose losses are sums: a learning rate of 11.5 and a weight decay of 0.0153 for 1,024
/// images, and a momentum of 0.85. Its rate rises from a fifth for 23 % of the steps, and falls to 7 %.
fn airbench() -> Config {
    let (batch_size, momentum) = (1_024, 0.85);
    let per_step = 1.0 + 1.0 / (1.0 - momentum);
    let (lr, decay) = (11.5 / per_step, 0.0153 / per_step);
    Config {
        epochs: 10,
        batch_size,
        optimizer: OptimizerChoice::Sgd { momentum, nesterov: true },
        lr,
        weight_decay: decay / lr,
        schedule: Schedule::OneCycle { total: 0, rising: 0.23, div: 5.0, final_div: 0.2 / 0.07, cosine: false },
        clip: f64::MAX,
        drop_last: true,
        ..Config::default()
    }
}

/// The ResNet of a name; of small images the first layers keep the size.
fn resnet(name: ModelName, size: usize) -> ResNetConfig {
    let stem = if size <= 64 { Stem::Keeping } else { Stem::Halving };
    let small = ResNetConfig { stem, ..ResNetConfig::resnet18() };
    match name {
        ModelName::Resnet20 => ResNetConfig { stem: Stem::Keeping, blocks: vec![3; 3], ..small }.with_width(16),
        ModelName::Resnet34 => ResNetConfig { blocks: vec![3, 4, 6, 3], architecture: "resnet34".into(), ..small },
        ModelName::Resnet50 => {
            ResNetConfig { blocks: vec![3, 4, 6, 3], bottleneck: true, architecture: "resnet50".into(), ..small }
        }
        _ => small,
    }
}

/// The vision transformer of a name, with patches of 16 pixels, or an eighth of a small image.
fn vit(name: ModelName, size: usize) -> VitConfig {
    let whole = VitConfig { size: [size; 2], ..VitConfig::default() };
    let patch = if size >= 128 { 16 } else { (size / 8).max(1) };
    let deep = VitConfig { depth: 12, patch: [patch; 2], ..whole.clone() };
    match name {
        ModelName::VitTiny => deep,
        ModelName::VitSmall => deep.with_width(384, 6),
        ModelName::VitBase => deep.with_width(768, 12),
        _ if size <= 8 => VitConfig { patch: [2; 2], depth: 4, ..whole }.with_width(64, 4),
        _ => VitConfig { patch: if size >= 128 { [16; 2] } else { whole.patch }, ..whole },
    }
}
