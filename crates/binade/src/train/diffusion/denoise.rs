//! [`Denoise`]: the noise in an image from the image, the time and its class, and images drawn from noise alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::base::Base;
use binade::autograd::Var;
use binade::diffusion::{
    Condition, Denoiser, Error, Guidance, ImagePipeline, Objective, Sampler, SchedulerConfig, VaePrecision, draw,
    save_lora,
};
use binade::models::AutoencoderKL;
use binade::tensor::op::Reduction;
use binade::train::{self, Batch, Data, Made, Score, Task, grid};

/// What a network is trained for.
pub struct Denoise<'a> {
    pub objective: Objective,
    /// Names of the classes that it learns; none where it learns none.
    pub classes: Vec<String>,
    /// Features `[classes + 1, T, D]` of their texts, of a network that is led by texts.
    pub texts: Option<Var>,
    /// Channels, height and width of what gets noise: images or latents.
    pub shape: [usize; 3],
    pub held_out: Arc<dyn Data>,
    pub drawing: Drawing,
    /// From latents to images.
    pub vae: Option<(AutoencoderKL, VaePrecision)>,
    /// Of a training of changes of low rank.
    pub lora_alpha: Option<f64>,
    /// Where the pipeline is written beside the run.
    pub to: Option<PathBuf>,
    /// The folder of the rest of a pipeline that is led by texts.
    pub from: Option<&'a Base>,
}

/// How images are drawn while a network is trained.
pub struct Drawing {
    pub scheduler: SchedulerConfig,
    pub guidance: Guidance,
    pub steps: usize,
    pub images: usize,
}

/// Held-out images whose error is shown by quarter at most.
const MEASURED: usize = 256;
/// Classes of which images are shown at most.
const SHOWN: usize = 10;

/// What a network made of a batch.
struct Answer {
    shown: Var,
    found: Var,
    wanted: Var,
    times: Vec<i64>,
}

fn failed(error: Error) -> train::Error {
    binade::nn::Error::from(error).into()
}

impl Denoise<'_> {
    fn answer(&self, objective: &Objective, model: &Denoiser, batch: &Batch) -> train::Result<Answer> {
        let times = batch.get("time")?.array().to_vec::<i64>()?;
        let posed = objective.pose(&batch.get("image")?, &batch.get("noise")?, &times);
        let (shown, wanted) = posed.map_err(failed)?;
        let labels = if self.classes.is_empty() { None } else { Some(self.led(batch.get("class")?)?) };
        let condition = labels.as_ref().map_or(Condition::Nothing, |labels| self.condition(labels));
        Ok(Answer { found: model.forward(&shown, &batch.get("time")?, condition)?, shown, wanted, times })
    }

    /// Classes as the network is told of them: features of texts where it is led by those.
    fn led(&self, classes: Var) -> train::Result<Var> {
        Ok(self.texts.as_ref().map_or(Ok(classes.clone()), |texts| texts.index_select(0, &classes))?)
    }

    fn condition<'a>(&self, led: &'a Var) -> Condition<'a> {
        if self.texts.is_some() { Condition::Text(led) } else { Condition::Labels(led) }
    }

    /// The noise that the network finds in a batch without offset and perturbation, and what it was shown.
    fn noise(&self, model: &Denoiser, batch: &Batch) -> train::Result<(Var, Answer)> {
        let objective = Objective { noise_offset: 0.0, input_perturbation: 0.0, ..self.objective.clone() };
        let answer = self.answer(&objective, model, batch)?;
        Ok((objective.noise(&answer.shown, &answer.found, &answer.times).map_err(failed)?, answer))
    }

    /// The error of the noise in held-out images by quarter of the times, beside that of the best multiple of the noisy
    /// image, which knows nothing of images.
    fn by_quarter(&self, model: &Denoiser) -> train::Result<String> {
        // Times are in the order of the images: some of all of them.
        let step = self.held_out.len().div_ceil(MEASURED).max(1);
        let indices: Vec<usize> = (0..self.held_out.len()).step_by(step).collect();
        let batch = Batch::of(&*self.held_out, &indices, None)?;
        let (found, Answer { shown, times, .. }) = self.noise(model, &batch)?;
        let values = |v: &Var| v.array().to_f64_vec();
        let (found, wanted, noisy) = (values(&found)?, values(&batch.get("noise")?)?, values(&shown)?);
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
            "held-out error of the noise, and by quarter of the times: {}\nbest multiple of the noisy image: {:>24}{}",
            row(0),
            "",
            row(1)
        ))
    }

    /// A row of images; of classes a column for each.
    fn drawn(&self, model: &Denoiser) -> train::Result<Vec<Made>> {
        let Drawing { scheduler, guidance, steps, images } = &self.drawing;
        let (shown, [c, h, w]) = (self.classes.len().min(SHOWN), self.shape);
        let columns = if shown > 0 { shown } else { 8.min(*images) };
        let n = if shown > 0 { images.div_ceil(columns) * columns } else { *images };
        let labels: Vec<i64> = (0..n).map(|i| (i % columns) as i64).collect();
        let labels = [labels, vec![self.classes.len() as i64; n]];
        let [led, none] = labels.map(|labels| self.led(Var::from_slice(&labels, &[n])?));
        let (led, none) = (led?, none?);
        let given = if shown > 0 { [&led, &none].map(|led| self.condition(led)) } else { [Condition::Nothing; 2] };
        let drawn = || -> Result<Var, Error> {
            let sampler = Sampler::new(scheduler, *steps, 0.0)?;
            let noise = Var::normal(0.0, 1.0, &[n, c, h, w])?;
            let drawn = draw(model, &noise, given, &sampler, *guidance, |_, _| Ok(()))?;
            Ok(match &self.vae {
                None => drawn,
                Some((vae, precision)) => precision.decode(vae, &drawn)?.0,
            })
        };
        let images = drawn().map_err(failed)?;
        let shape = std::array::from_fn(|d| images.shape()[d]);
        let (width, channels, pixels) = grid(&images.array().to_f64_vec()?, shape, columns);
        Ok(vec![Made::Image { width, channels, pixels }])
    }

    fn write(&self, model: &Denoiser, folder: &Path) -> Result<(), Error> {
        if let Some(alpha) = self.lora_alpha {
            return save_lora(model, alpha, folder).map(drop);
        }
        if let Some(from) = self.from {
            from.copy_others(folder).map_err(|e| Error::Setting(format!("{e:#}")))?;
            return model.save(&folder.join("unet"));
        }
        let vae = self.vae.as_ref().map(|(vae, _)| vae.clone());
        let (scheduler, classes) = (self.drawing.scheduler.clone(), self.classes.clone());
        ImagePipeline { unet: model.clone(), vae, scheduler, classes }.save(folder)
    }
}

impl Task<Denoiser> for Denoise<'_> {
    fn name(&self) -> String {
        let Objective { prediction, weighting, .. } = &self.objective;
        format!("noise in images of {:?}, {}, {weighting:?}", self.shape, prediction.name())
    }

    fn loss(&self, model: &Denoiser, batch: &Batch) -> train::Result<(Var, f64)> {
        let Answer { found, wanted, times, .. } = self.answer(&self.objective, model, batch)?;
        Ok((self.objective.loss(&found, &wanted, &times).map_err(failed)?, batch.len() as f64))
    }

    /// The error of the noise, whatever is predicted.
    fn evaluate(&self, model: &Denoiser, batch: &Batch) -> train::Result<Score> {
        let error = self.noise(model, batch)?.0.mse_loss(&batch.get("noise")?, Reduction::Mean)?;
        Ok(Score { loss: error.item()?, count: batch.len() as f64, ..Score::default() })
    }

    fn unit(&self) -> &'static str {
        "images"
    }

    fn progress(&self, model: &Denoiser) -> train::Result<Vec<Made>> {
        self.drawn(model)
    }

    fn samples(&self, model: &Denoiser) -> train::Result<Vec<Made>> {
        let mut made = vec![Made::Text(self.by_quarter(model)?)];
        made.extend(self.drawn(model)?);
        Ok(made)
    }

    fn export(&self, model: &Denoiser, folder: &Path) -> train::Result<()> {
        let folders = std::iter::once(folder).chain(self.to.as_deref());
        folders.into_iter().try_for_each(|folder| self.write(model, folder)).map_err(failed)
    }
}
