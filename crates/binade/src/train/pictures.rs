//! What the screens have in common that make images: where images come from.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use binade::train::images::{Dataset, Source};
use binade::train::{Data, Pictures};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::job::{Use, shape, what_was_read};

/// What becomes of the opacity of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alpha {
    /// It is a channel
    Keep,
    /// Images lie on white
    White,
}

/// Which images, and what they become.
pub struct Wanted<'a> {
    pub dataset: Dataset,
    pub folder: Option<&'a Path>,
    pub size: Option<usize>,
    pub alpha: Option<Alpha>,
    pub skip_broken: bool,
    /// Channels that a model takes which is there already.
    pub channels: Option<usize>,
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

/// Reads them, and says what was read.
pub fn read(wanted: &Wanted<'_>, used: &impl Use) -> Result<Read> {
    let &Wanted { dataset, folder, size, alpha, skip_broken, channels } = wanted;
    // Opacity is kept where images are known to have some, or a model wants it.
    let keeps =
        alpha.map_or(dataset == Dataset::Icons, |alpha| alpha == Alpha::Keep) && channels.is_none_or(|c| c == 4);
    let in_folder = channels.filter(|c| [1, 3, 4].contains(c)).unwrap_or(if keeps { 4 } else { 3 });
    let set = dataset.open(&Source { folder, size, channels: in_folder, skip_broken })?;
    for error in &set.skipped {
        used.say(&format!("left out: {error}"));
    }
    let classes = set.classes.clone();
    let data = set.splits();
    used.say(&what_was_read(dataset, &data, shape(&data)?));
    let own = |images| Arc::new(Pictures { opaque: !keeps, ..Pictures::new(images, dataset) });
    let [train, test]: [Arc<dyn Data>; 2] = [own(data.train), own(data.test)];
    let first = train.sample(0, None).map_err(|error| anyhow::anyhow!("training sample 0: {error}"))?;
    let shape: [usize; 3] = std::array::from_fn(|d| first.0[0].shape[d]);
    if let Some(channels) = channels {
        ensure!(channels == shape[0], "the model takes images of {channels} channels, and these have {}", shape[0]);
    }
    let mirror = matches!(dataset, Dataset::Icons | Dataset::Cifar10 | Dataset::Folder);
    Ok(Read { train, test, shape, classes, mirror })
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
