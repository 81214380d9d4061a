//! [`Noised`]: images with noise for them, and the times of a diffusion at which they get it (Ho et al., 2020).

use std::sync::Arc;

use binade_tensor::Key;
use binade_tensor::random::{below, normal_pair};

use crate::Data;
use crate::data::{Numbers, SampleResult};

/// The images of a data set with times of a diffusion: arrays `image` and `noise` of one shape, `time`, i64, and what
/// else a sample has.
///
/// The first array of each sample is the image. In training times and noise are drawn from the key. In evaluation every
/// time has its share: they are spread evenly from the first to the last, and noise depends on the sample's number
/// alone, so that every evaluation sees the same.
pub struct Noised {
    /// Where the images are from.
    pub images: Arc<dyn Data>,
    /// The number of times.
    pub times: usize,
    /// The images are multiplied by the first and the second is added: values from −1 to 1.
    pub range: (f32, f32),
    /// How often each image is in an epoch, each time with a time and noise of its own.
    pub repeats: usize,
}

impl Noised {
    /// The time of a sample in evaluation.
    fn spread(&self, index: usize) -> usize {
        let (last, samples) = (self.times.saturating_sub(1), self.len().saturating_sub(1).max(1));
        index * last / samples
    }
}

impl Data for Noised {
    fn len(&self) -> usize {
        self.images.len() * self.repeats
    }

    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let count = self.images.len().max(1);
        // What is drawn of an image is drawn again each time that it comes.
        let (which, again) = (index % count, (index / count) as u32);
        let mut sample = self.images.sample(which, key.map(|key| Key { op: key.op + again, ..key }))?;
        let image = sample.0.first_mut().ok_or("a sample without arrays")?;
        let Numbers::F32(pixels) = &mut image.numbers else { return Err("the image is not f32".into()) };
        image.name = "image".into();
        let (scale, shift) = self.range;
        pixels.iter_mut().for_each(|x| *x = *x * scale + shift);
        let (size, shape) = (pixels.len(), image.shape.clone());
        let of = key.unwrap_or_else(|| Key::new(0, 0).stream("evaluation")).stream("noise");
        let of = Key { op: index as u32, ..of };
        // The first block draws the time, the others the noise.
        let [high, low, ..] = of.block(0);
        let time = match key {
            Some(_) => below(high, low, self.times as u64) as usize,
            None => self.spread(index),
        };
        let normals = (1u32..).flat_map(|block| {
            let [a, b, c, d] = of.block(block);
            [normal_pair(a, b), normal_pair(c, d)].concat()
        });
        let noise: Vec<f32> = normals.take(size).map(|n| n as f32).collect();
        Ok(sample.with("time", [time as i64], &[]).with("noise", noise, &shape))
    }
}
