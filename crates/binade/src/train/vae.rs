//! `train vae`: images to latents of a quarter as many pixels and back (Kingma and Welling, 2014).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use binade::autograd::Var;
use binade::diffusion::Error;
use binade::models::{AutoencoderKL, AutoencoderKLConfig};
use binade::nn::Schedule;
use binade::tensor::op::Reduction;
use binade::train::images::Dataset;
use binade::train::{self, Batch, Config, Data, Made, Noised, Score, Splits, Task, Trainer, grid};
use serde::{Deserialize, Serialize};

use super::diffusion::range;
use super::job::{Screen, Use, shape, what_was_read};
use super::vision::DatasetName;

/// What is asked for beside the settings of every training.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Data set of images
    #[arg(long, value_enum, default_value_t = DatasetName::Icons)]
    dataset: DatasetName,
    /// Folder with the data set's files; digits and icons need none
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Screen for Options {
    fn name(&self) -> String {
        format!("{}-vae", Dataset::from(self.dataset).name())
    }

    /// Two minutes on the icons in each precision.
    fn defaults(&self) -> Config {
        Config {
            epochs: if self.dataset == DatasetName::Icons { 5 } else { 10 },
            batch_size: 16,
            lr: 2e-3,
            weight_decay: 1e-6,
            schedule: Schedule::Cosine { warmup: 50, total: 0, floor: 0.0 },
            ema: Some(0.99),
            ..Config::default()
        }
    }

    fn data(&mut self) -> &mut Option<PathBuf> {
        &mut self.data
    }

    fn run<U: Use>(&self, used: U) -> Result<U::Out> {
        let dataset = Dataset::from(self.dataset);
        let data = dataset.load(self.data.as_deref())?;
        let shape = shape(&data)?;
        used.say(&what_was_read(dataset, &data, shape));
        train(dataset, &data, shape, used)
    }
}

/// Squared errors, and a little of the latents' divergence from the standard normal distribution.
struct Reconstruct {
    shape: [usize; 3],
    /// Weight of the divergence, per number of the image.
    divergence: f64,
    held_out: Arc<dyn Data>,
}

/// Held-out images that are shown.
const SHOWN: usize = 8;

impl Task<AutoencoderKL> for Reconstruct {
    fn name(&self) -> String {
        format!("images of {:?} through latents", self.shape)
    }

    fn loss(&self, model: &AutoencoderKL, batch: &Batch) -> train::Result<(Var, f64)> {
        let image = batch.get("image")?;
        let latent = model.encode(&image)?;
        let error = model.decode(&latent.sample()?)?.mse_loss(&image, Reduction::Mean)?;
        let size = self.shape.iter().product::<usize>() as f64;
        let divergence = (&latent.kl()?.mean(&[0], false)? * (self.divergence / size))?;
        Ok(((&error + &divergence)?, batch.len() as f64))
    }

    /// The squared error of what the most likely latents give.
    fn evaluate(&self, model: &AutoencoderKL, batch: &Batch) -> train::Result<Score> {
        let image = batch.get("image")?;
        let error = model.decode(&model.encode(&image)?.mean)?.mse_loss(&image, Reduction::Mean)?;
        Ok(Score { loss: error.item()?, count: batch.len() as f64, right: None })
    }

    fn unit(&self) -> &'static str {
        "images"
    }

    /// Held-out images above what becomes of them, the peak signal-to-noise ratio over all of them, and the factor that
    /// makes their latents' deviation 1.
    fn samples(&self, model: &AutoencoderKL) -> train::Result<Vec<Made>> {
        let indices: Vec<usize> = (0..self.held_out.len()).collect();
        let images = Batch::of(&*self.held_out, &indices, None)?.get("image")?;
        let latents = model.encode(&images)?.mean;
        let back = model.decode(&latents)?.cast(binade::tensor::DType::F32)?;
        let error = back.mse_loss(&images, Reduction::Mean)?.item()?;
        // Values are from −1 to 1: the peak is 2.
        let ratio = 10.0 * (4.0 / error).log10();
        let factor = 1.0 / latents.flatten(0)?.std(&[0], 1.0, false)?.item()?;
        let [c, h, w] = self.shape;
        let shown = SHOWN.min(indices.len());
        let both = Var::cat(&[&images.narrow(0, 0, shown)?, &back.narrow(0, 0, shown)?], 0)?;
        let (width, channels, pixels) = grid(&both.array().to_f64_vec()?, [2 * shown, c, h, w], shown);
        let text = format!("held-out PSNR {ratio:.2} dB, scaling_factor {factor:.5}");
        Ok(vec![Made::Text(text), Made::Image { width, channels, pixels }])
    }
}

/// Gives the model, its task and the images to who uses them.
fn train<U: Use>(dataset: Dataset, data: &Splits, shape: [usize; 3], used: U) -> Result<U::Out> {
    let repeats = (1_330 / data.train.len().max(1)).max(1);
    let of = |images, repeats| Noised { images, times: 1, range: range(dataset), repeats };
    let data = Splits::new(of(data.train.clone(), repeats), of(data.test.clone(), 1));
    let config = AutoencoderKLConfig {
        in_channels: shape[0],
        out_channels: shape[0],
        block_out_channels: vec![32, 64],
        down_block_types: vec!["DownEncoderBlock2D".into(); 2],
        up_block_types: vec!["UpDecoderBlock2D".into(); 2],
        norm_num_groups: 8,
        sample_size: shape[1].into(),
        ..AutoencoderKLConfig::default()
    };
    let task = Reconstruct { shape, divergence: 1e-4, held_out: data.test.clone() };
    used.with(Trainer::new(|| AutoencoderKL::new(&config).map_err(|e| Error::from(e).into()), &task, &data))
}
