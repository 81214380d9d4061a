//! `train diffusion`: denoising diffusion of images (Ho et al., 2020), or of an autoencoder's latents (Rombach et al.,
//! 2022): the noise in an image, from the image, the time and perhaps a class.

mod base;
mod denoise;
mod latents;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use binade::cli::flags::{above_zero, at_least_zero, positive};
use binade::diffusion::{
    BetaSchedule, Denoiser, Guidance, Kind, Objective, Prediction, SchedulerConfig, Spacing, VaePrecision, Weighting,
};
use binade::models::{UNet2DConfig, UNet2DModel};
use binade::nn::Schedule;
use binade::train::images::Dataset;
use binade::train::{Config, Data, Noised, OptimizerChoice, Splits, Trainer, Unconditional};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::job::{Screen, Use};
use super::pictures::{ImageFlags, repeated, repeats};
use super::vision::DatasetName;
pub use latents::open as open_vae;

use base::Base;
use denoise::{Denoise, Drawing};
use latents::{Encoded, Encoding, VaeChoice};

/// What is asked for beside the settings of every training.
#[derive(clap::Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Which images.
    #[command(flatten)]
    #[serde(flatten)]
    images: ImageFlags,
    /// Learn the classes too: images can be drawn of each
    #[arg(long)]
    classes: bool,
    /// Share of images without their class, which guidance needs
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share, allow_hyphen_values = true)]
    condition_dropout: f64,
    /// How far a class leads the images that are drawn; 1 is without guidance
    #[arg(long, default_value_t = 2.0, allow_hyphen_values = true)]
    guidance: f64,
    /// What the network predicts
    #[arg(long, value_enum, default_value_t = PredictionName::V)]
    prediction: PredictionName,
    /// How noise grows over the times
    #[arg(long, value_enum, default_value_t = NoiseName::Linear)]
    noise_schedule: NoiseName,
    /// Shift the schedule so that the last time is noise alone
    #[arg(long)]
    zero_terminal_snr: bool,
    /// How much the loss of each time counts
    #[arg(long, value_enum, default_value_t = WeightingName::MinSnr)]
    weighting: WeightingName,
    /// The most that the signal-to-noise ratio counts with min-snr
    #[arg(long, value_name = "GAMMA", default_value_t = 5.0, value_parser = above_zero, allow_hyphen_values = true)]
    min_snr_gamma: f64,
    /// Deviation of noise that is the same for all pixels of a channel
    #[arg(long, value_name = "STD", default_value_t = 0.0, value_parser = at_least_zero, allow_hyphen_values = true)]
    noise_offset: f64,
    /// Deviation of noise that an image gets beside the noise to be found
    #[arg(long, value_name = "STD", default_value_t = 0.0, value_parser = at_least_zero, allow_hyphen_values = true)]
    input_perturbation: f64,
    /// Channels of the network's levels [default: 32,64 to 16 pixels, 32,64,64 above]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = positive::<usize>)]
    channels: Option<Vec<usize>>,
    /// Residual blocks of a level
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive::<usize>, allow_negative_numbers = true)]
    layers: usize,
    /// Share of features that are left out in residual blocks
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, allow_hyphen_values = true)]
    dropout: f64,
    /// Train on latents of the autoencoder in DIR: a run of `train vae`, or a folder of diffusers
    #[arg(long, value_name = "DIR")]
    vae: Option<PathBuf>,
    /// Precision of the autoencoder; auto measures which is fast and true enough
    #[arg(long, value_enum, default_value_t = VaeChoice::Fp32)]
    vae_precision: VaeChoice,
    /// Keep latents in DIR, and take them from there when weights, precision and images are the same
    #[arg(long, value_name = "DIR")]
    cache_latents: Option<PathBuf>,
    /// Go on from a folder of diffusers: its network, its autoencoder, its noise and what it predicts
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["prediction", "noise_schedule", "zero_terminal_snr", "channels", "layers", "dropout"]
    )]
    from: Option<PathBuf>,
    /// What images show, where the folder's network is led by texts; {} is the name of their class
    #[arg(long, value_name = "TEXT", default_value = "{}")]
    prompt: String,
    /// Train changes of this rank to attention's matrices, and nothing else
    #[arg(long, value_name = "RANK", requires = "from", value_parser = positive::<usize>)]
    lora: Option<usize>,
    /// Changes of low rank count ALPHA / RANK [default: RANK]
    #[arg(long, value_name = "ALPHA", requires = "lora", value_parser = above_zero, allow_hyphen_values = true)]
    lora_alpha: Option<f64>,
    /// Run blocks again in backward instead of keeping what they compute: less memory, the same numbers
    #[arg(long)]
    recompute: bool,
    /// Images that are drawn after each epoch, from the weights and from their averages
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive::<usize>)]
    drawn: usize,
    /// Steps that it takes to draw them
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = positive::<usize>)]
    steps: usize,
    /// Write the trained pipeline to DIR too, if one precision is trained; it is in the run folder in any case
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// A share from 0 to below 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to below 1".into())
}

/// Declares names on the command line for a library's values.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
        enum $name { $($(#[$of])* #[value(name = $text)] #[serde(rename = $text)] $variant,)* }
    };
}

names! {
    /// What the network predicts.
    PredictionName {
        /// The noise
        Epsilon "epsilon",
        /// A mixture of noise and image of the same size at all times (Salimans and Ho, 2022)
        V "v",
        /// The image
        Sample "sample",
    }
}

names! {
    /// How noise grows.
    NoiseName {
        /// In a straight line (Ho et al., 2020)
        Linear "linear",
        /// Its root in a straight line, as for Stable Diffusion
        ScaledLinear "scaled_linear",
        /// What is left of the image as a squared cosine (Nichol and Dhariwal, 2021)
        SquaredCosine "squaredcos_cap_v2",
        /// As a sigmoid
        Sigmoid "sigmoid",
    }
}

names! {
    /// How much each time counts.
    WeightingName {
        /// All alike
        Uniform "uniform",
        /// As for a network that predicts the noise
        Snr "snr",
        /// As that, but little noise counts less (Hang et al., 2023)
        MinSnr "min-snr",
    }
}

impl Screen for Options {
    fn name(&self) -> String {
        format!("{}-diffusion", Dataset::from(self.images.dataset).name())
    }

    /// Two minutes on the icons, one on the digits, in each precision; images are drawn from averages of the weights.
    fn defaults(&self) -> Config {
        let (epochs, batch_size) = if self.images.dataset == DatasetName::Icons { (5, 16) } else { (15, 64) };
        Config {
            epochs,
            batch_size,
            optimizer: OptimizerChoice::AdamW { betas: [0.95, 0.999] },
            lr: 1e-3,
            weight_decay: 1e-6,
            schedule: Schedule::Cosine { warmup: 50, total: 0, floor: 0.0 },
            ema: Some(0.99),
            ..Config::default()
        }
    }

    fn data(&mut self) -> &mut Option<PathBuf> {
        &mut self.images.data
    }

    fn check(&self) -> Result<()> {
        Guidance::new(self.guidance, 0.0)?;
        if self.from.is_none() {
            self.objective(&self.scheduler(None, self.vae.is_some()))?;
        }
        Ok(())
    }

    fn run<U: Use>(&self, used: U) -> Result<U::Out> {
        let guidance = Guidance::new(self.guidance, 0.0)?;
        let from = self.from.as_deref().map(Base::open).transpose()?;
        let vae = match (&self.vae, &from) {
            (Some(folder), _) => Some(latents::open(folder)?),
            (None, Some(from)) => from.vae.clone(),
            (None, None) => None,
        };
        let channels = vae.as_ref().map(|vae| vae.config().in_channels);
        let images = self.images.read(channels.or(from.as_ref().map(|from| from.channels)), &used)?;
        let scheduler = self.scheduler(from.as_ref(), vae.is_some());
        let objective = self.objective(&scheduler)?;
        let no_class = images.classes.len() as i64;
        let texts = match &from {
            Some(from) => from.texts(&self.prompt, &images.classes)?,
            None => None,
        };
        if let Some(from) = from.as_ref().filter(|from| !from.takes_text()) {
            let asked = self.classes.then_some(images.classes.len() + 1);
            let rows = |rows: Option<usize>| rows.map_or("none".into(), |rows| rows.to_string());
            ensure!(
                from.rows == asked,
                "--from: its network has a table of {} classes, and with or without --classes it must have {}",
                rows(from.rows),
                rows(asked)
            );
        }
        let led = self.classes || texts.is_some();
        // An epoch of few images is many passes over them.
        let times = repeats(images.train.len());
        let Encoded { train, test, shape, precision } = match &vae {
            None => {
                let (train, test, shape) = (repeated(&images, 1), images.test.clone(), images.shape);
                Encoded { train, test, shape, precision: VaePrecision::Fp32 }
            }
            Some(vae) => {
                Encoding { vae, choice: self.vae_precision, cache: self.cache_latents.as_deref() }.of(&images, &used)?
            }
        };
        let conditional = |data| -> Arc<dyn Data> {
            match led {
                true => Arc::new(Unconditional { data, share: self.condition_dropout, no_class }),
                false => data,
            }
        };
        let of = |images, repeats| {
            let times = objective.schedule.times();
            Noised { images: conditional(images), times, range: (1.0, 0.0), repeats }
        };
        let data = Splits::new(of(train, times), of(test, 1));
        let config = self.network(shape, images.classes.len())?;
        let task = Denoise {
            objective,
            classes: if led { images.classes } else { Vec::new() },
            texts,
            shape,
            held_out: data.test.clone(),
            drawing: Drawing { scheduler, guidance, steps: self.steps, images: self.drawn },
            vae: vae.map(|vae| (vae, precision)),
            lora_alpha: self.lora.map(|rank| self.lora_alpha.unwrap_or(rank as f64)),
            to: self.to.clone(),
            from: from.as_ref().filter(|from| from.takes_text()),
        };
        let build = || -> binade::diffusion::Result<Denoiser> {
            let unet: Denoiser = match &from {
                // Each precision begins with the folder's weights.
                Some(from) => from.network()?,
                None => UNet2DModel::new(&config)?.into(),
            };
            let unet = if let (Some(rank), Some(alpha)) = (self.lora, task.lora_alpha) {
                unet.with_lora(rank, alpha)?
            } else {
                unet
            };
            Ok(unet.recomputing(self.recompute))
        };
        used.with(Trainer::new(|| build().map_err(Into::into), &task, &data))
    }
}

impl Options {
    /// Noise and sampler, as the pipeline's folder will say.
    fn scheduler(&self, from: Option<&Base>, latent: bool) -> SchedulerConfig {
        if let Some(from) = from {
            return from.scheduler.clone();
        }
        let (beta_schedule, ends) = match self.noise_schedule {
            NoiseName::Linear => (BetaSchedule::Linear, (1e-4, 0.02)),
            NoiseName::ScaledLinear => (BetaSchedule::ScaledLinear, (0.00085, 0.012)),
            NoiseName::SquaredCosine => (BetaSchedule::SquaredCosine, (1e-4, 0.02)),
            NoiseName::Sigmoid => (BetaSchedule::Sigmoid, (1e-4, 0.02)),
        };
        let prediction_type = match self.prediction {
            PredictionName::Epsilon => Prediction::Epsilon,
            PredictionName::V => Prediction::VPrediction,
            PredictionName::Sample => Prediction::Sample,
        };
        SchedulerConfig {
            beta_schedule,
            beta_start: ends.0,
            beta_end: ends.1,
            prediction_type,
            rescale_betas_zero_snr: self.zero_terminal_snr,
            // From the last time on, which is noise alone where that is asked for.
            timestep_spacing: Spacing::Trailing,
            // Pixels have a range, and latents none.
            clip_sample: (!latent).then_some(1.0),
            ..SchedulerConfig::new(Kind::Ddim)
        }
    }

    fn objective(&self, scheduler: &SchedulerConfig) -> Result<Objective> {
        scheduler.check()?;
        let weighting = match self.weighting {
            WeightingName::Uniform => Weighting::Uniform,
            WeightingName::Snr => Weighting::Snr,
            WeightingName::MinSnr => Weighting::MinSnr(self.min_snr_gamma),
        };
        let (noise_offset, input_perturbation) = (self.noise_offset, self.input_perturbation);
        let (schedule, prediction) = (scheduler.schedule()?, scheduler.prediction_type);
        Ok(Objective { schedule, prediction, weighting, noise_offset, input_perturbation }.checked()?)
    }

    /// A network for images, or latents, of this shape: attention on the smallest level and in the middle.
    fn network(&self, [c, h, w]: [usize; 3], classes: usize) -> Result<UNet2DConfig> {
        let own = || [32, 64, 64][..if h.max(w) <= 16 { 2 } else { 3 }].to_vec();
        let channels = self.channels.clone().unwrap_or_else(own);
        let (levels, halved) = (channels.len(), 1usize << (channels.len() - 1).min(31));
        if !h.is_multiple_of(halved) || !w.is_multiple_of(halved) {
            bail!("{levels} levels halve an image {} times, and {h}×{w} cannot be: see --image-size", levels - 1);
        }
        let types = |plain: &str, attention: &str| -> Vec<String> {
            (1..=levels).map(|level| if level == levels { attention.into() } else { plain.into() }).collect()
        };
        let divisor = channels.iter().copied().reduce(common_divisor).context("--channels: no levels")?;
        // A norm over a channel alone would take out what the time and the class add to it.
        let groups = [8, 4, 2].into_iter().find(|groups| divisor.is_multiple_of(4 * groups)).unwrap_or(1);
        Ok(UNet2DConfig {
            sample_size: if h == w { h.into() } else { vec![h, w].into() },
            in_channels: c,
            out_channels: c,
            down_block_types: types("DownBlock2D", "AttnDownBlock2D"),
            up_block_types: types("UpBlock2D", "AttnUpBlock2D").into_iter().rev().collect(),
            layers_per_block: self.layers,
            attention_head_dim: Some(common_divisor(channels[levels - 1], 8)),
            norm_num_groups: groups,
            dropout: self.dropout,
            num_class_embeds: self.classes.then_some(classes + 1),
            block_out_channels: channels,
            ..UNet2DConfig::default()
        })
    }
}

/// The greatest common divisor.
pub fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
