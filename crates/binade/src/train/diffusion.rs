//! `train diffusion`: denoising diffusion of images (Ho et al., 2020): the noise in an image, from the image and the
//! time.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use binade::autograd::Var;
use binade::diffusion::{Error, Kind, NoiseSchedule, Objective, Prediction, Sampler, SchedulerConfig};
use binade::models::{UNet2DConfig, UNet2DModel};
use binade::nn::Schedule;
use binade::tensor::DType;
use binade::train::images::Dataset;
use binade::train::{self, Batch, Config, Data, Made, Noised, OptimizerChoice, Splits, Task, Trainer, grid};
use serde::{Deserialize, Serialize};

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
        format!("{}-diffusion", Dataset::from(self.dataset).name())
    }

    /// Two minutes on the icons, one on the digits, in each precision; images are drawn from averages of the weights.
    fn defaults(&self) -> Config {
        let (epochs, batch_size) = if self.dataset == DatasetName::Icons { (5, 16) } else { (15, 64) };
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

/// Predicting the noise, and images drawn from noise alone.
struct Denoise {
    objective: Objective,
    /// Channels, height, width.
    shape: [usize; 3],
    held_out: Arc<dyn Data>,
}

/// Images that are drawn, and the steps it takes.
const DRAWN: usize = 16;
const STEPS: usize = 50;

impl Denoise {
    /// What the network finds of a batch, what it should find, and the times.
    fn found(&self, model: &UNet2DModel, batch: &Batch) -> train::Result<(Var, Var, Vec<i64>, Var)> {
        let times = batch.get("time")?.array().to_vec::<i64>()?;
        let posed = self.objective.pose(&batch.get("image")?, &batch.get("noise")?, &times);
        let (noisy, wanted) = posed.map_err(failed)?;
        Ok((model.forward(&noisy, &batch.get("time")?, None)?, wanted, times, noisy))
    }

    /// The loss on held-out images by quarter of the times, beside that of the best multiple of the noisy image, which
    /// knows nothing of images.
    fn by_quarter(&self, model: &UNet2DModel) -> train::Result<String> {
        let indices: Vec<usize> = (0..self.held_out.len()).collect();
        let batch = Batch::of(&*self.held_out, &indices, None)?;
        let (found, wanted, times, noisy) = self.found(model, &batch)?;
        let values = |v: &Var| v.array().to_f64_vec();
        let (found, wanted, noisy) = (values(&found)?, values(&wanted)?, values(&noisy)?);
        let size = found.len() / times.len();
        let last = self.objective.schedule.times() as i64;
        let mut sums = [[0.0; 3]; 4];
        for (i, &t) in times.iter().enumerate() {
            let part = |all: &[f64]| all[i * size..(i + 1) * size].to_vec();
            let (found, wanted, noisy) = (part(&found), part(&wanted), part(&noisy));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let error = found.iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / size as f64;
            let multiple = dot(&noisy, &wanted).powi(2) / dot(&noisy, &noisy);
            let copied = (dot(&wanted, &wanted) - multiple) / size as f64;
            let quarter = &mut sums[((4 * t / last) as usize).min(3)];
            (quarter[0], quarter[1], quarter[2]) = (quarter[0] + error, quarter[1] + copied, quarter[2] + 1.0);
        }
        let total: [f64; 3] = std::array::from_fn(|k| sums.iter().map(|quarter| quarter[k]).sum());
        let row = |k: usize| {
            let quarters = sums.iter().map(|q| format!("{:.3}", q[k] / q[2])).collect::<Vec<_>>().join(" ");
            format!("{:.3} ({quarters})", total[k] / total[2])
        };
        Ok(format!(
            "held-out loss, and by quarter of the times: {}\nbest multiple of the noisy image:            {}",
            row(0),
            row(1)
        ))
    }
}

fn failed(error: Error) -> train::Error {
    binade::nn::Error::from(error).into()
}

impl Task<UNet2DModel> for Denoise {
    fn name(&self) -> String {
        format!("noise in images of {:?}, {}", self.shape, self.objective.prediction.name())
    }

    fn loss(&self, model: &UNet2DModel, batch: &Batch) -> train::Result<(Var, f64)> {
        let (found, wanted, times, _) = self.found(model, batch)?;
        Ok((self.objective.loss(&found, &wanted, &times).map_err(failed)?, batch.len() as f64))
    }

    fn unit(&self) -> &'static str {
        "images"
    }

    /// DDIM (Song et al., 2021) without further noise.
    fn samples(&self, model: &UNet2DModel) -> train::Result<Vec<Made>> {
        let [c, h, w] = self.shape;
        let config = SchedulerConfig { clip_sample: Some(1.0), ..SchedulerConfig::new(Kind::Ddim) };
        let config = SchedulerConfig { prediction_type: self.objective.prediction, ..config };
        let sampler = Sampler::new(&config, STEPS, 0.0).map_err(failed)?;
        let noise = Var::normal(0.0, 1.0, &[DRAWN, c, h, w])?;
        let network = |x: &Var, t: f64| -> binade::diffusion::Result<Var> {
            Ok(model.forward(x, &Var::from_slice(&[t as f32], &[1])?, None)?.cast(DType::F32)?)
        };
        let images = sampler.run(&noise, network, |_, _| Ok(())).map_err(failed)?;
        let (width, channels, pixels) = grid(&images.array().to_f64_vec()?, [DRAWN, c, h, w], 8);
        Ok(vec![Made::Text(self.by_quarter(model)?), Made::Image { width, channels, pixels }])
    }
}

/// What an image is multiplied by, and what is added, to be from −1 to 1 again after it was normalised.
pub fn range(dataset: Dataset) -> (f32, f32) {
    let (mean, std) = dataset.normalization();
    let average = |of: &[f32]| of.iter().sum::<f32>() / of.len() as f32;
    (2.0 * average(std), 2.0 * average(mean) - 1.0)
}

/// Gives the model, its task and the images with noise for them to who uses them.
fn train<U: Use>(dataset: Dataset, data: &Splits, shape: [usize; 3], used: U) -> Result<U::Out> {
    let objective = Objective::new(NoiseSchedule::linear(), Prediction::Epsilon)?;
    // An epoch of few images is many passes over them: evaluations and checkpoints take time.
    let repeats = (1_330 / data.train.len().max(1)).max(1);
    let noised = |images, repeats| Noised { images, times: objective.schedule.times(), range: range(dataset), repeats };
    let data = Splits::new(noised(data.train.clone(), repeats), noised(data.test.clone(), 1));
    let levels = if shape[1] <= 16 { 2 } else { 3 };
    let types = |plain: &str, attention: &str| -> Vec<String> {
        (1..=levels).map(|level| if level == levels { attention.into() } else { plain.into() }).collect()
    };
    let config = UNet2DConfig {
        in_channels: shape[0],
        out_channels: shape[0],
        block_out_channels: [32, 64, 64][..levels].to_vec(),
        layers_per_block: 1,
        down_block_types: types("DownBlock2D", "AttnDownBlock2D"),
        up_block_types: types("UpBlock2D", "AttnUpBlock2D").into_iter().rev().collect(),
        attention_head_dim: Some(8),
        norm_num_groups: 8,
        sample_size: shape[1].into(),
        ..UNet2DConfig::default()
    };
    let task = Denoise { objective, shape, held_out: data.test.clone() };
    let build = || UNet2DModel::new(&config).map_err(|e| Error::from(e).into());
    used.with(Trainer::new(build, &task, &data))
}
