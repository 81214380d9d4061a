//! What the screens have in common that make images: where images come from.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use binade::cli::flags::positive;
use binade::train::images::{Dataset, Source};
use binade::train::{Data, Pictures, Splits};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::job::{Use, shape, what_was_read};
use super::vision::DatasetName;

/// What becomes of the opacity of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alpha {
    /// It is a channel
    Keep,
    /// Images lie on white
    White,
}

/// Which images, as flags that all screens have that make some.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageFlags {
    /// Data set of images
    #[arg(long, value_enum, default_value_t = DatasetName::Icons)]
    pub dataset: DatasetName,
    /// Folder with the data set's files; digits and icons need none
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Height and width that images of a folder get [default: their own]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    image_size: Option<usize>,
    /// Opacity as a channel, or images on white [default: keep for icons, white for folders]
    #[arg(long, value_enum)]
    alpha: Option<Alpha>,
    /// Leave out files of a folder that cannot be read, and say which
    #[arg(long)]
    skip_broken: bool,
}

/// Images from −1 to 1.
pub struct Read {
    pub train: Arc<dyn Data>,
    pub test: Arc<dyn Data>,
    /// Channels, height, width.
    pub shape: [usize; 3],
    pub classes: Vec<String>,
    /// Whether they may be mirrored.
    pub mirror: bool,
}

impl ImageFlags {
    /// Reads them, and says what was read. `channels` are those that a model takes which is there already.
    pub fn read(&self, channels: Option<usize>, used: &impl Use) -> Result<Read> {
        let (dataset, folder) = (Dataset::from(self.dataset), self.data.as_deref());
        let (size, alpha, skip_broken) = (self.image_size, self.alpha, self.skip_broken);
        // Opacity is kept where images are known to have some, or a model wants it.
        let keeps =
            alpha.map_or(dataset == Dataset::Icons, |alpha| alpha == Alpha::Keep) && channels.is_none_or(|c| c == 4);
        let in_folder = channels.filter(|c| [1, 3, 4].contains(c)).unwrap_or(if keeps { 4 } else { 3 });
        let set = dataset.open(&Source { folder, size, channels: in_folder, skip_broken })?;
        for error in &set.skipped {
            used.say(&format!("left out: {error}"));
        }
        let classes = set.classes.clone();
        let read = set.splits();
        let own = |images| Arc::new(Pictures { opaque: !keeps, ..Pictures::new(images, dataset) });
        let [train, test]: [Arc<dyn Data>; 2] = [own(read.train), own(read.test)];
        let data = Splits { train, test };
        let shape = shape(&data)?;
        used.say(&what_was_read(dataset, &data, shape));
        let Splits { train, test } = data;
        if let Some(channels) = channels {
            ensure!(channels == shape[0], "the model takes images of {channels} channels, and these have {}", shape[0]);
        }
        let mirror = matches!(dataset, Dataset::Icons | Dataset::Cifar10 | Dataset::Cifar100 | Dataset::Folder);
        Ok(Read { train, test, shape, classes, mirror })
    }
}

/// Images of such a set again and again, mirrored at random where they may be.
pub fn repeated(read: &Read, repeats: usize) -> Arc<dyn Data> {
    let images = read.train.clone();
    Arc::new(Pictures { images, range: vec![(1.0, 0.0)], opaque: false, mirror: read.mirror, repeats })
}

/// How often images are in an epoch: of few images it is many passes over them, since evaluations, checkpoints and what
/// is drawn take time.
pub fn repeats(images: usize) -> usize {
    (1_330 / images.max(1)).max(1)
}
