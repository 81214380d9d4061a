//! [`ImageSet`]: images in memory, with their classes and what is done to them on the way out.

use std::path::Path;
use std::sync::Arc;

use binade_tensor::Key;

use crate::augment::{Augment, Canvas, Mixture};
use crate::data::{Sample, SampleResult};
use crate::folder;
use crate::images::Dataset;
use crate::task::{OTHER, SHARE};
use crate::{Data, Error, Pixels, Resize, Result, Splits};

/// The images of a data set, and what is known of them.
#[derive(Debug)]
pub struct ImageSet {
    /// For training.
    pub train: Images,
    /// For evaluation.
    pub test: Images,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Images that were left out, each with the reason.
    pub skipped: Vec<Error>,
}

impl ImageSet {
    /// Channels, height and width.
    pub fn shape(&self) -> [usize; 3] {
        self.train.shape
    }

    /// Mean and standard deviation of each channel, by which images are normalised, black 0 and white 1.
    pub fn normalization(&self) -> (&[f32], &[f32]) {
        let channels = self.shape()[0];
        (&self.train.mean[..channels], &self.train.std[..channels])
    }

    /// With other changes of the training images.
    ///
    /// # Errors
    /// As [`Augment::check`].
    pub fn augmented(mut self, augment: Augment) -> Result<ImageSet> {
        augment.check()?;
        self.train.augment = augment;
        Ok(self)
    }

    /// With another mean and standard deviation of each channel, black 0 and white 1.
    ///
    /// # Errors
    /// [`Error::Config`]: too few of them, or a deviation that is not above 0.
    pub fn normalized(mut self, mean: &[f32], std: &[f32]) -> Result<ImageSet> {
        let channels = self.shape()[0];
        if mean.len() < channels || std.len() < channels || !std.iter().all(|s| *s > 0.0 && s.is_finite()) {
            return Err(Error::Config(format!("mean {mean:?} and deviation {std:?} of {channels} channels")));
        }
        for images in [&mut self.train, &mut self.test] {
            (images.mean, images.std) = (mean.to_vec(), std.to_vec());
        }
        Ok(self)
    }

    pub(crate) fn resized(self, resize: &Resize) -> Result<ImageSet> {
        Ok(ImageSet { train: self.train.resized(resize)?, test: self.test.resized(resize)?, ..self })
    }

    /// As training and test samples.
    pub fn splits(self) -> Splits {
        Splits::new(self.train, self.test)
    }
}

/// Where images are read from, and what they become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source<'a> {
    /// The folder with the files, for all that are not embedded.
    pub folder: Option<&'a Path>,
    /// Of a folder of images: what the shorter side becomes before the middle square is cut out. Without it all must
    /// be squares of one size.
    pub size: Option<usize>,
    /// Of a folder of images: 1 for grey, 3 for RGB, 4 for RGB with opacity; 0 for 3.
    pub channels: usize,
    /// Of a folder of images: whether files that cannot be read are left out and told, in place of an error.
    pub skip_broken: bool,
}

/// 8-bit images with classes, normalised per channel on the way out.
#[derive(Clone, Debug)]
pub struct Images {
    pixels: Arc<Vec<u8>>,
    labels: Arc<Vec<u32>>,
    /// Channels, height, width.
    pub(crate) shape: [usize; 3],
    /// Value that means 1.
    white: f32,
    mean: Vec<f32>,
    std: Vec<f32>,
    augment: Augment,
}

impl Images {
    pub(crate) fn new(set: Dataset, pixels: Vec<u8>, labels: Vec<u32>, shape: [usize; 3], white: f32) -> Images {
        let (mean, std) = set.normalization();
        let (mean, std, augment) = (mean.to_vec(), std.to_vec(), set.augment());
        Images { pixels: Arc::new(pixels), labels: Arc::new(labels), shape, white, mean, std, augment }
    }

    /// The number of each image's class.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// An image as it was read, black 0 and white 255.
    pub fn pixels(&self, index: usize) -> Option<Pixels> {
        let [channels, height, width] = self.shape;
        let (plane, size) = (height * width, channels * height * width);
        let planes = self.pixels.get(index * size..(index + 1) * size)?;
        let byte = |value: u8| (f32::from(value) * 255.0 / self.white).round().clamp(0.0, 255.0) as u8;
        let bytes = (0..plane).flat_map(|at| (0..channels).map(move |c| byte(planes[c * plane + at]))).collect();
        Some(Pixels { width, height, channels, bytes })
    }

    /// Mean and standard deviation of each channel's pixels, black 0 and white 1: what may stand in place of
    /// [`Dataset::normalization`].
    pub fn statistics(&self) -> Vec<(f64, f64)> {
        let [channels, height, width] = self.shape;
        let plane = height * width;
        let of = |channel: usize| {
            let images = self.pixels.chunks_exact(channels * plane).map(|image| &image[channel * plane..][..plane]);
            // Sums of whole numbers, which are exact.
            let (mut n, mut sum, mut squares) = (0u64, 0u64, 0u64);
            for &pixel in images.flatten() {
                (n, sum, squares) = (n + 1, sum + u64::from(pixel), squares + u64::from(pixel) * u64::from(pixel));
            }
            let (n, white) = (n.max(1) as f64, f64::from(self.white));
            let mean = sum as f64 / n;
            (mean / white, (squares as f64 / n - mean * mean).max(0.0).sqrt() / white)
        };
        (0..channels).map(of).collect()
    }

    fn resized(self, resize: &Resize) -> Result<Images> {
        let [channels, height, width] = self.shape;
        let [new_height, new_width] = resize.size;
        folder::room(Path::new("images"), self.len(), channels, resize.size)?;
        let of = |planes: &[u8]| -> Vec<u8> {
            let plane = height * width;
            let bytes = (0..plane).flat_map(|at| (0..channels).map(move |c| planes[c * plane + at])).collect();
            Pixels { width, height, channels, bytes }.prepared(resize).planes()
        };
        let pixels = self.pixels.chunks(channels * height * width).flat_map(of).collect();
        Ok(Images { pixels: Arc::new(pixels), shape: [channels, new_height, new_width], ..self })
    }

    /// An image as the model sees it; with a key, as it is seen in training.
    fn image(&self, index: usize, key: Option<Key>) -> Vec<f32> {
        let [c, h, w] = self.shape;
        let values = self.pixels[index * c * h * w..][..c * h * w].iter().map(|&p| p as f32).collect();
        let mut canvas = Canvas { values, shape: self.shape, white: self.white };
        if let Some(key) = key {
            self.augment.apply(&mut canvas, &self.mean, key, index);
        }
        for (c, plane) in canvas.values.chunks_mut(h * w).enumerate() {
            let (scale, shift) = (1.0 / (self.white * self.std[c]), self.mean[c] / self.std[c]);
            plane.iter_mut().for_each(|x| *x = *x * scale - shift);
        }
        canvas.values
    }
}

impl Data for Images {
    fn len(&self) -> usize {
        self.labels.len()
    }

    /// Arrays `image` and `class`; in training, where images are mixed, the class of the `other` too, and the `share`
    /// of the first.
    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let [_, h, w] = self.shape;
        let mut image = self.image(index, key);
        let mixture = key.and_then(|key| self.augment.mixture(key, index, self.len(), [h, w]));
        if let Some(mixture) = &mixture {
            mixture.mix(&mut image, &self.image(mixture.other, key), self.shape);
        }
        let class = |index: usize| [self.labels[index] as i64];
        let sample = Sample::new().with("image", image, &self.shape).with("class", class(index), &[]);
        Ok(match mixture {
            None => sample,
            Some(Mixture { other, share, .. }) => sample.with(OTHER, class(other), &[]).with(SHARE, [share], &[]),
        })
    }
}
