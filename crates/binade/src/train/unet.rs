//! `--model unet`: denoising diffusion of images (Ho et al., 2020): the noise in an image, from the image and the time.

use anyhow::Result;
use binade::autograd::Var;
use binade::models::{UNet, UNetConfig};
use binade::tensor::op::Reduction;
use binade::train::images::Dataset;
use binade::train::{self, Batch, Config, Diffusion, Made, Noised, Splits, Task, Trainer};

use super::job::Use;

/// A minute on the digits in all three precisions; images are drawn from averages of the weights.
pub fn defaults() -> Config {
    Config { epochs: 15, batch_size: 64, lr: 1e-3, ema: Some(0.99), ..Config::default() }
}

/// Predicting the noise, and images drawn from noise alone.
struct Denoise {
    diffusion: Diffusion,
    /// Channels, height, width.
    shape: [usize; 3],
}

/// Images that are drawn, and the steps it takes.
const DRAWN: usize = 8;
const STEPS: usize = 50;

impl Task<UNet> for Denoise {
    fn name(&self) -> String {
        format!("noise in images of {:?}", self.shape)
    }

    fn loss(&self, model: &UNet, batch: &Batch) -> train::Result<(Var, f64)> {
        let found = model.forward(&batch.get("noisy")?, &batch.get("time")?)?;
        Ok((found.mse_loss(&batch.get("noise")?, Reduction::Mean)?, batch.len() as f64))
    }

    fn unit(&self) -> &'static str {
        "images"
    }

    /// DDIM (Song et al., 2021) without further noise: each step takes the noise out that the model finds, and puts
    /// less of it back.
    fn samples(&self, model: &UNet) -> train::Result<Vec<Made>> {
        let [c, h, w] = self.shape;
        let mut x = Var::normal(0.0, 1.0, &[DRAWN, c, h, w])?;
        let times = self.diffusion.kept.len();
        for step in (0..STEPS).rev() {
            let (time, before) = (step * times / STEPS, (step.checked_sub(1)).map(|step| step * times / STEPS));
            let (keep, add) = self.diffusion.weights(time);
            let (keep_before, add_before) = before.map_or((1.0, 0.0), |t| self.diffusion.weights(t));
            let noise = model.forward(&x, &Var::from_slice(&[time as i64; DRAWN], &[DRAWN])?)?;
            let image = (&(&x - &(&noise * add)?)? * (1.0 / keep))?.clamp(Some(-1.0), Some(1.0))?;
            let noise = (&(&x - &(&image * keep)?)? * (1.0 / add))?;
            x = (&(&image * keep_before)? + &(&noise * add_before)?)?;
        }
        // Side by side, grey, a white line between two.
        let values = x.array().to_f64_vec()?;
        let pixel = |row: usize, image: usize, column: usize| {
            let sum: f64 = (0..c).map(|c0| values[((image * c + c0) * h + row) * w + column]).sum();
            (127.5 * (sum / c as f64 + 1.0)).clamp(0.0, 255.0) as u8
        };
        let line = |row: usize| {
            (0..DRAWN).flat_map(move |i| (0..=w).map(move |x0| if x0 == w { 255 } else { pixel(row, i, x0) }))
        };
        Ok(vec![Made::Image { width: DRAWN * (w + 1), pixels: (0..h).flat_map(line).collect() }])
    }
}

/// Gives the model, its task and the images with noise in them to who uses them.
pub fn job<U: Use>(dataset: Dataset, data: &Splits, shape: [usize; 3], used: U) -> Result<U::Out> {
    let diffusion = Diffusion::linear();
    // From the normalised images back to black −1, white 1.
    let (mean, std) = dataset.normalization();
    let middle = mean.iter().sum::<f32>() / mean.len() as f32;
    let deviation = std.iter().sum::<f32>() / std.len() as f32;
    let range = (2.0 * deviation, 2.0 * middle - 1.0);
    let noised = |images| Noised { images, diffusion: diffusion.clone(), range };
    let data = Splits::new(noised(data.train.clone()), noised(data.test.clone()));
    let config = UNetConfig { channels: shape[0], base: 32, levels: vec![1, 2], blocks: 1, attention: vec![1] };
    let task = Denoise { diffusion: diffusion.clone(), shape };
    used.with(Trainer::new(|| UNet::new(&config), &task, &data))
}
