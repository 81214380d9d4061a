//! `train vae`: images to latents of a quarter as many pixels and back (Kingma and Welling, 2014).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use binade::autograd::Var;
use binade::cli::flags::{at_least_zero, positive};
use binade::diffusion::{Error, save_part};
use binade::models::{AutoencoderKL, AutoencoderKLConfig};
use binade::nn::{Module, Schedule};
use binade::tensor::DType;
use binade::tensor::op::Reduction;
use binade::train::images::Dataset;
use binade::train::{self, Batch, Config, Data, Made, Score, Splits, Task, Trainer, grid};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::job::{Screen, Use};
use super::pictures::{ImageFlags, repeated, repeats};
use super::vision::DatasetName;

/// What is asked for beside the settings of every training.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Which images.
    #[command(flatten)]
    #[serde(flatten)]
    images: ImageFlags,
    /// Errors of pixels that are summed
    #[arg(long, value_enum, default_value_t = LossName::Mse)]
    loss: LossName,
    /// Weight of the latents' divergence from the standard normal distribution, per number of the image
    #[arg(long, default_value_t = 1e-4, value_parser = at_least_zero, allow_hyphen_values = true)]
    kl: f64,
    /// Channels of the levels; every level but the last halves the image
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [32, 64], value_parser = positive::<usize>)]
    channels: Vec<usize>,
    /// Residual blocks of a level of the encoder; one more in the decoder
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive::<usize>, allow_negative_numbers = true)]
    layers: usize,
    /// Channels of a latent
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive::<usize>)]
    latent_channels: usize,
    /// Go on from a folder of an AutoencoderKL, or a run of `train vae`
    #[arg(long, value_name = "DIR", conflicts_with_all = ["channels", "layers", "latent_channels"])]
    from: Option<PathBuf>,
    /// Write the trained autoencoder to DIR too; it is in the run folder in any case
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Errors of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LossName {
    /// Squared
    Mse,
    /// Absolute
    L1,
}

impl Screen for Options {
    fn name(&self) -> String {
        format!("{}-vae", Dataset::from(self.images.dataset).name())
    }

    /// Two minutes on the icons in each precision.
    fn defaults(&self) -> Config {
        Config {
            epochs: if self.images.dataset == DatasetName::Icons { 5 } else { 10 },
            batch_size: 16,
            lr: 2e-3,
            weight_decay: 1e-6,
            schedule: Schedule::Cosine { warmup: 50, total: 0, floor: 0.0 },
            ema: Some(0.99),
            ..Config::default()
        }
    }

    fn data(&mut self) -> &mut Option<PathBuf> {
        &mut self.images.data
    }

    fn run<U: Use>(&self, used: U) -> Result<U::Out> {
        let from = self.from.as_deref().map(super::diffusion::open_vae).transpose()?;
        let images = self.images.read(from.as_ref().map(|vae| vae.config().in_channels), &used)?;
        let [channels, h, w] = images.shape;
        let config = match &from {
            Some(vae) => vae.config().clone(),
            None => self.network(images.shape)?,
        };
        let halvings = config.block_out_channels.len() - 1;
        if [h, w].iter().any(|n| !n.is_multiple_of(1usize << halvings.min(31))) {
            bail!("an image of {h}×{w} cannot be halved {halvings} times: see --image-size and --channels");
        }
        let task = Reconstruct {
            shape: [channels, h, w],
            loss: self.loss,
            divergence: self.kl,
            held_out: images.test.clone(),
            all: images.train.clone(),
            to: self.to.clone(),
        };
        let times = repeats(images.train.len());
        let data = Splits { train: repeated(&images, times), test: images.test };
        let build = || -> binade::diffusion::Result<AutoencoderKL> {
            // Each precision begins with the folder's weights.
            Ok(from.as_ref().map_or_else(|| AutoencoderKL::new(&config), |vae| Ok(vae.deep_copy()?))?)
        };
        used.with(Trainer::new(|| build().map_err(Into::into), &task, &data))
    }
}

impl Options {
    fn network(&self, [c, h, _]: [usize; 3]) -> Result<AutoencoderKLConfig> {
        let levels = self.channels.len();
        let divisor = self.channels.iter().copied().reduce(super::diffusion::common_divisor);
        Ok(AutoencoderKLConfig {
            in_channels: c,
            out_channels: c,
            block_out_channels: self.channels.clone(),
            down_block_types: vec!["DownEncoderBlock2D".into(); levels],
            up_block_types: vec!["UpDecoderBlock2D".into(); levels],
            layers_per_block: self.layers,
            latent_channels: self.latent_channels,
            norm_num_groups: super::diffusion::common_divisor(divisor.context("--channels: no levels")?, 8),
            sample_size: h.into(),
            // Known when it is trained.
            scaling_factor: 1.0,
            ..AutoencoderKLConfig::default()
        })
    }
}

/// Errors of pixels, and a little of the latents' divergence from the standard normal distribution.
struct Reconstruct {
    shape: [usize; 3],
    loss: LossName,
    /// Weight of the divergence, per number of the image.
    divergence: f64,
    held_out: Arc<dyn Data>,
    /// Training images, whose latents' deviation is 1 after the factor.
    all: Arc<dyn Data>,
    to: Option<PathBuf>,
}

/// Held-out images that are shown.
const SHOWN: usize = 8;
/// Images that are encoded at once.
const AT_ONCE: usize = 64;

impl Reconstruct {
    /// Held-out images above what becomes of them.
    fn shown(&self, model: &AutoencoderKL) -> train::Result<Made> {
        let indices: Vec<usize> = (0..self.held_out.len().min(SHOWN)).collect();
        let images = Batch::of(&*self.held_out, &indices, None)?.get("image")?;
        let back = model.decode(&model.encode(&images)?.mean)?.cast(DType::F32)?;
        let ([c, h, w], both) = (self.shape, Var::cat(&[&images, &back], 0)?);
        let (n, columns) = (2 * indices.len(), indices.len());
        let (width, channels, pixels) = grid(&both.array().to_f64_vec()?, [n, c, h, w], columns);
        Ok(Made::Image { width, channels, pixels })
    }

    /// 1 over the standard deviation of latents that are drawn for the training images.
    fn factor(&self, model: &AutoencoderKL) -> train::Result<f64> {
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        let indices: Vec<usize> = (0..self.all.len()).collect();
        for indices in indices.chunks(AT_ONCE) {
            let latents = model.encode(&Batch::of(&*self.all, indices, None)?.get("image")?)?;
            let (mean, logvar) = (latents.mean.array().to_f64_vec()?, latents.logvar.array().to_f64_vec()?);
            for (mean, logvar) in mean.into_iter().zip(logvar) {
                (sum, squares, count) = (sum + mean, squares + mean * mean + logvar.exp(), count + 1.0);
            }
        }
        let variance = squares / count - (sum / count).powi(2);
        Ok(1.0 / variance.max(f64::MIN_POSITIVE).sqrt())
    }
}

impl Task<AutoencoderKL> for Reconstruct {
    fn name(&self) -> String {
        format!("images of {:?} through latents, {:?}", self.shape, self.loss)
    }

    fn loss(&self, model: &AutoencoderKL, batch: &Batch) -> train::Result<(Var, f64)> {
        let image = batch.get("image")?;
        let latent = model.encode(&image)?;
        let back = model.decode(&latent.sample()?)?;
        let error = match self.loss {
            LossName::Mse => back.mse_loss(&image, Reduction::Mean),
            LossName::L1 => back.l1_loss(&image, Reduction::Mean),
        }?;
        let size = self.shape.iter().product::<usize>() as f64;
        let divergence = (&latent.kl()?.mean(&[0], false)? * (self.divergence / size))?;
        Ok(((&error + &divergence)?, batch.len() as f64))
    }

    /// The squared error of what the most likely latents give.
    fn evaluate(&self, model: &AutoencoderKL, batch: &Batch) -> train::Result<Score> {
        let image = batch.get("image")?;
        let error = model.decode(&model.encode(&image)?.mean)?.mse_loss(&image, Reduction::Mean)?;
        Ok(Score { loss: error.item()?, count: batch.len() as f64, ..Score::default() })
    }

    fn unit(&self) -> &'static str {
        "images"
    }

    fn progress(&self, model: &AutoencoderKL) -> train::Result<Vec<Made>> {
        Ok(vec![self.shown(model)?])
    }

    /// The peak signal-to-noise ratio over all held-out images, and the factor that makes the latents' deviation 1.
    fn samples(&self, model: &AutoencoderKL) -> train::Result<Vec<Made>> {
        let (mut error, mut count) = (0.0, 0.0);
        let indices: Vec<usize> = (0..self.held_out.len()).collect();
        for indices in indices.chunks(AT_ONCE) {
            let score = self.evaluate(model, &Batch::of(&*self.held_out, indices, None)?)?;
            (error, count) = (error + score.loss * score.count, count + score.count);
        }
        // Values are from −1 to 1: the peak is 2.
        let ratio = 10.0 * (4.0 * count / error).log10();
        let text = format!("held-out PSNR {ratio:.2} dB, scaling_factor {:.5}", self.factor(model)?);
        Ok(vec![Made::Text(text), self.shown(model)?])
    }

    /// A folder of diffusers' `AutoencoderKL`, with its factor.
    fn export(&self, model: &AutoencoderKL, folder: &Path) -> train::Result<()> {
        let model = model.clone().with_scaling_factor(self.factor(model)?);
        let failed = |error: Error| train::Error::from(binade::nn::Error::from(error));
        let folders = std::iter::once(folder).chain(self.to.as_deref());
        folders.into_iter().try_for_each(|folder| save_part(&model, folder)).map_err(failed)
    }
}
