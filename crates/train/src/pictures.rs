//! [`Pictures`]: images from −1 to 1, as models take them that make images; [`Unconditional`]: classes left out.

use std::sync::Arc;

use binade_tensor::Key;
use binade_tensor::random::below;

use crate::Data;
use crate::data::{Numbers, SampleResult};
use crate::images::Dataset;

/// Images of a data set, `image` from −1 to 1 and what else a sample has, without the data set's own augmentation.
pub struct Pictures {
    /// Where they are from: the first array of a sample is the image `[C, H, W]`.
    pub images: Arc<dyn Data>,
    /// What each channel is multiplied by, and what is added then.
    pub range: Vec<(f32, f32)>,
    /// Whether four channels become three, before white as the fourth says, which is opacity.
    pub opaque: bool,
    /// Whether every other image is mirrored in training, by the key.
    pub mirror: bool,
    /// How often each is in an epoch.
    pub repeats: usize,
}

impl Pictures {
    /// The images of a set as they are.
    pub fn new(images: Arc<dyn Data>, set: Dataset) -> Pictures {
        let (mean, std) = set.normalization();
        let range = mean.iter().zip(std).map(|(mean, std)| (2.0 * std, 2.0 * mean - 1.0)).collect();
        Pictures { images, range, opaque: false, mirror: false, repeats: 1 }
    }
}

impl Data for Pictures {
    fn len(&self) -> usize {
        self.images.len() * self.repeats
    }

    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let mut sample = self.images.sample(index % self.images.len().max(1), None)?;
        let image = sample.0.first_mut().ok_or("a sample without arrays")?;
        let Numbers::F32(pixels) = &mut image.numbers else { return Err("the image is not f32".into()) };
        image.name = "image".into();
        let (width, plane) = (image.shape.last().copied().unwrap_or(1), image.shape.iter().skip(1).product::<usize>());
        for (channel, pixels) in pixels.chunks_mut(plane.max(1)).enumerate() {
            let last = self.range.last().copied().unwrap_or((1.0, 0.0));
            let (scale, shift) = self.range.get(channel).copied().unwrap_or(last);
            pixels.iter_mut().for_each(|x| *x = *x * scale + shift);
        }
        if self.opaque && image.shape.first() == Some(&4) {
            let opacity = pixels.split_off(3 * plane);
            for colour in pixels.chunks_mut(plane.max(1)) {
                colour.iter_mut().zip(&opacity).for_each(|(x, opacity)| *x = 1.0 - (1.0 - *x) * (opacity + 1.0) / 2.0);
            }
            image.shape[0] = 3;
        }
        if self.mirror && key.is_some_and(|key| key.stream("mirror").bits(index) & 1 == 1) {
            pixels.chunks_mut(width).for_each(<[f32]>::reverse);
        }
        Ok(sample)
    }
}

/// Samples whose `class` is left out of some in training, which is what guidance without a classifier needs (Ho and
/// Salimans, 2022).
pub struct Unconditional {
    /// Where they are from: `class` is an i64.
    pub data: Arc<dyn Data>,
    /// How many of them, from 0 to 1.
    pub share: f64,
    /// What stands for no class.
    pub no_class: i64,
}

impl Data for Unconditional {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let mut sample = self.data.sample(index, key)?;
        let drawn = key.map(|key| Key { op: index as u32, ..key.stream("condition") }.block(0));
        if let Some([high, low, ..]) = drawn
            && (below(high, low, 1 << 32) as f64) < self.share * 2f64.powi(32)
        {
            let class = sample.0.iter_mut().find(|values| values.name == "class").ok_or("a sample without a class")?;
            class.numbers = [self.no_class].into();
        }
        Ok(sample)
    }
}
