//! [`Noised`]: images with noise in them, and [`Diffusion`]: how much at which time (Ho et al., 2020).

use std::sync::Arc;

use binade_tensor::Key;
use binade_tensor::random::{below, normal_pair};

use crate::Data;
use crate::data::{Numbers, Sample, SampleResult};

/// A variance-preserving noise schedule: `x_t = √ᾱ_t·x + √(1 − ᾱ_t)·noise`. Computed in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Diffusion {
    /// ᾱ of every time step.
    pub kept: Vec<f64>,
}

impl Diffusion {
    /// β from 1e-4 to 0.02 in a straight line over 1,000 steps, as in the paper.
    pub fn linear() -> Diffusion {
        let beta = |t: usize| 1e-4 + (0.02 - 1e-4) * t as f64 / 999.0;
        let kept = (0..1000).scan(1.0, |kept, t| {
            *kept *= 1.0 - beta(t);
            Some(*kept)
        });
        Diffusion { kept: kept.collect() }
    }

    /// √ᾱ and √(1 − ᾱ): what the image and the noise are multiplied by at a time.
    pub fn weights(&self, t: usize) -> (f64, f64) {
        (self.kept[t].sqrt(), (1.0 - self.kept[t]).sqrt())
    }
}

/// The images of a data set at random times of a diffusion: arrays `noisy` and `noise` of the image's shape, and
/// `time`, i64.
///
/// The first array of each sample is the image. Times and noise come from the key in training, and in evaluation from
/// the sample's number alone, so that every evaluation sees the same.
pub struct Noised {
    /// Where the images are from.
    pub images: Arc<dyn Data>,
    /// How much noise there is at each time.
    pub diffusion: Diffusion,
    /// The images are multiplied by the first and the second is added: values from −1 to 1.
    pub range: (f32, f32),
}

impl Data for Noised {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let sample = self.images.sample(index, key)?;
        let image = sample.0.first().ok_or("a sample without arrays")?;
        let Numbers::F32(pixels) = &image.numbers else { return Err("the image is not f32".into()) };
        let key = key.unwrap_or_else(|| Key::new(0, 0).stream("evaluation")).stream("noise");
        let key = Key { op: index as u32, ..key };
        // The first block draws the time, the others the noise.
        let [high, low, ..] = key.block(0);
        let time = below(high, low, self.diffusion.kept.len() as u64) as usize;
        let (keep, add) = self.diffusion.weights(time);
        let normals = (1u32..).flat_map(|block| {
            let [a, b, c, d] = key.block(block);
            [normal_pair(a, b), normal_pair(c, d)].concat()
        });
        let noise: Vec<f32> = normals.take(pixels.len()).map(|n| n as f32).collect();
        let (scale, shift) = self.range;
        let mixed = |(&x, &n): (&f32, &f32)| (keep as f32) * (x * scale + shift) + add as f32 * n;
        let noisy: Vec<f32> = pixels.iter().zip(&noise).map(mixed).collect();
        let shape = &image.shape;
        Ok(Sample::new().with("noisy", noisy, shape).with("time", [time as i64], &[]).with("noise", noise, shape))
    }
}
