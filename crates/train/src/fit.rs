//! [`fit`]: the training loop, a straight line. "No scaling" and "no autocast" are values, so there is no branch on
//! precision.

use std::path::PathBuf;
use std::time::Instant;

use binade_amp::preflight::{Preflight, preflight};
use binade_amp::{Blame, LossScale, Policy, Step, StepOutcome, Training};
use binade_autograd::{Var, eval, scope};
use binade_nn::{AdamW, Layer, Optimizer, Schedule};
use binade_tensor::op::{CrossEntropy, Reduction};
use binade_tensor::{DType, Device, Key};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Progress};
use crate::data::{self, Batch, epoch_order, prefetch};
use crate::metrics::{EpochMetrics, StepMetrics};
use crate::progress::Log;
use crate::recipe::Recipe;
use crate::{Error, Result, Splits, Summary, Target, interrupt};

/// A precision to train in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in f32.
    Fp32,
    /// Autocast to f16 with dynamic loss scaling.
    Fp16,
    /// Autocast to bf16, whose range needs no scaling.
    Bf16,
}

impl Precision {
    /// All three, f32 first.
    pub const ALL: [Precision; 3] = [Precision::Fp32, Precision::Fp16, Precision::Bf16];

    /// Name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
            Precision::Bf16 => "bf16",
        }
    }

    /// Its autocast policy.
    pub fn policy(self) -> Policy {
        match self {
            Precision::Fp32 => Policy::OFF,
            Precision::Fp16 => Policy::autocast(DType::F16),
            Precision::Bf16 => Policy::autocast(DType::BF16),
        }
    }

    /// Its loss scaling.
    pub fn loss_scale(self) -> LossScale {
        match self {
            Precision::Fp32 | Precision::Bf16 => LossScale::Off,
            Precision::Fp16 => LossScale::dynamic(),
        }
    }
}

/// Settings of [`fit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Precision.
    pub precision: Precision,
    /// Passes over the training samples. A resumed run may ask for another number; the schedule is that of the new
    /// number from there on.
    pub epochs: u64,
    /// Samples per step.
    pub batch_size: usize,
    /// Leaves out an epoch's last batch where it is smaller than the others. The order differs from epoch to epoch, and
    /// so do the samples left out.
    #[serde(default)]
    pub drop_last: bool,
    /// Peak learning rate of AdamW; falls to 0 along a half cosine.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest gradient norm; `f64::MAX` clips nothing.
    pub clip: f64,
    /// Seed of initial values, order, augmentation and dropout.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            precision: Precision::Fp32,
            epochs: 12,
            batch_size: 64,
            drop_last: false,
            lr: 2e-3,
            weight_decay: 1e-2,
            clip: 1.0,
            seed: 0,
        }
    }
}

impl Config {
    pub(crate) fn check(&self, data: &Splits) -> Result<()> {
        self.check_settings()?;
        if data.train.is_empty() || data.test.is_empty() {
            return Err(Error::Config("training and test data must not be empty".into()));
        }
        let (n, batches) = (data.train.len(), self.batches(data.train.len()));
        if batches == 0 {
            return Err(Error::Config(format!(
                "{n} samples are no whole batch of {}, and drop_last is set",
                self.batch_size
            )));
        }
        if self.epochs.checked_mul(batches as u64).is_none() {
            return Err(Error::Config(format!(
                "{} epochs of {batches} steps are more than can be counted",
                self.epochs
            )));
        }
        let (train, test) = (data.train.target(), data.test.target());
        if matches!((&train, &test), (Target::Classes(a), Target::Classes(b)) if a != b) {
            return Err(Error::Config(format!("training data has {train:?}, test data {test:?}")));
        }
        data::check_target(&train)
    }

    pub(crate) fn check_settings(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        if self.epochs == 0 || self.batch_size == 0 {
            return fail(format!(
                "epochs and batch size must be at least 1, got {} and {}",
                self.epochs, self.batch_size
            ));
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return fail(format!("the learning rate must be positive and finite, got {}", self.lr));
        }
        // What is not finite has no place in `config.json` and checkpoints either.
        if !(self.clip > 0.0 && self.clip.is_finite()) {
            return fail(format!("the largest gradient norm must be positive and finite, got {}", self.clip));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return fail(format!("the weight decay must be at least 0 and finite, got {}", self.weight_decay));
        }
        Ok(())
    }

    /// Steps per epoch.
    fn batches(&self, samples: usize) -> usize {
        if self.drop_last { samples / self.batch_size } else { samples.div_ceil(self.batch_size) }
    }
}

/// Where [`fit`] writes.
#[derive(Clone, Debug)]
pub struct Output {
    /// Run folder; it exists.
    pub folder: PathBuf,
    /// Continue from the checkpoint in the folder, if there is one.
    pub resume: bool,
    /// Print nothing.
    pub quiet: bool,
}

/// Trains `model` on `data` with AdamW and a cosine schedule, evaluates after each epoch, writes `metrics.jsonl` and a
/// checkpoint per epoch into the run folder, and returns the summary. With `resume` it continues bit for bit where the
/// checkpoint stands.
///
/// # Errors
/// A checkpoint of another model, of other data or other settings than these (but for epochs), in any of which cases
/// nothing is written. Bad settings, shapes that do not fit the model, a sample that cannot be had or whose label is no
/// class, more skipped steps in a row than [`LossScale::patience`] allows or a run of nothing else, files that cannot
/// be written, an interrupt.
pub fn fit(model: &impl Layer, data: &Splits, config: &Config, output: &Output) -> Result<Summary> {
    config.check(data)?;
    let device = Device::cpu();
    device.reset_peak_memory();
    let policy = config.precision.policy();
    let mut training = start(model, config)?;
    let mut at = Progress::default();
    let path = checkpoint::path(&output.folder, config.precision);
    let recipe = Recipe::new(config, data);
    if output.resume && path.exists() {
        at = checkpoint::load(&path, &recipe, model, &mut training)?;
        // A summary of fewer epochs than are asked for is no longer the end.
        if let Some(summary) = at.summary.take().filter(|s| s.epochs == config.epochs) {
            return Ok(summary);
        }
    }
    let batches = config.batches(data.train.len());
    training.schedule = Schedule::Cosine { warmup: 0, total: config.epochs * batches as u64, floor: 0.0 };
    let mut log = Log::open(output, config, training.iteration, batches)?;
    let (mut last, mut last_blame) = (None, None);
    let diverged = |step, skipped, blame: Option<&Blame>| {
        let origin = blame.map_or_else(|| "the weights or the data".into(), Blame::to_string);
        Error::Diverged { precision: config.precision.name(), step, skipped, origin }
    };

    while at.epoch < config.epochs {
        let mut order = epoch_order(data.train.len(), config.seed, at.epoch)?;
        order.truncate(batches * config.batch_size);
        let key = Some(Key::new(config.seed, at.epoch).stream("data"));
        for samples in prefetch("training", data.train.clone(), order, config.batch_size, at.batch, key)? {
            let start = Instant::now();
            let batch = samples?.batch(&*data.train)?;
            let iteration = training.iteration;
            let tried = training.step(|| loss_of(model, &batch, &data.train.target()));
            let Step { outcome, loss, grad_norm, lr, loss_scale, saved_bytes, blame, .. } =
                tried.map_err(|error| match error {
                    Error::Amp(binade_amp::Error::Stalled { steps, blame, .. }) => {
                        diverged(iteration, steps.into(), blame.as_deref())
                    }
                    other => other,
                })?;
            let finite = |v: f64| v.is_finite().then_some(v);
            let skipped = outcome == StepOutcome::Skipped;
            last_blame = blame.clone();
            let (loss, grad_norm) = (finite(loss), finite(grad_norm));
            let step = StepMetrics { iteration, loss, lr, grad_norm, loss_scale, skipped, blame: blame.map(Box::new) };
            at.saved_activation_bytes = at.saved_activation_bytes.max(saved_bytes);
            at.seconds += start.elapsed().as_secs_f64();
            at.epoch_seconds += start.elapsed().as_secs_f64();
            if let Some(loss) = step.loss {
                let n = batch.target.shape()[0];
                (at.loss_sum, at.loss_samples) = (at.loss_sum + loss * n as f64, at.loss_samples + n as u64);
            }
            (at.batch, at.skipped) = (at.batch + 1, at.skipped + step.skipped as u64);
            log.step(&at, step)?;
            if interrupt::requested() {
                at.peak = device.memory().into();
                checkpoint::save(&path, &recipe, model, &training, &at)?;
                return Err(Error::Interrupted { folder: output.folder.clone() });
            }
        }
        if at.batch < batches {
            let message = format!("the data ended after batch {} of {batches}: Data::len is not what it was", at.batch);
            return Err(Error::Config(message));
        }
        if at.epoch + 1 == config.epochs && at.skipped == training.iteration {
            return Err(diverged(training.iteration - 1, at.skipped, last_blame.as_ref()));
        }
        // NaN where no loss was finite.
        let train_loss = at.loss_sum / at.loss_samples as f64;
        let (test_loss, test_accuracy) = policy.run(|| eval(|| evaluate(model, data)))?;
        (at.epoch, at.batch) = (at.epoch + 1, 0);
        log.epoch(EpochMetrics {
            epoch: at.epoch,
            iteration: training.iteration,
            train_loss,
            test_loss,
            test_accuracy,
            seconds: at.epoch_seconds,
        })?;
        (at.loss_sum, at.loss_samples, at.epoch_seconds) = (0.0, 0, 0.0);
        at.peak = device.memory().into();
        last = Some((train_loss, test_accuracy));
        if at.epoch != config.epochs {
            checkpoint::save(&path, &recipe, model, &training, &at)?;
        }
    }
    let (train_loss, test_accuracy) = last.unwrap_or((f64::NAN, None));
    let summary = Summary {
        precision: config.precision.name().into(),
        epochs: at.epoch,
        seconds_per_epoch: at.seconds / at.epoch as f64,
        images_per_second: data.train.len().min(batches * config.batch_size) as f64 * at.epoch as f64 / at.seconds,
        train_loss,
        test_accuracy,
        loss_scale: training.scaler.loss_scale(),
        skipped_steps: at.skipped,
        peak_bytes: at.peak,
        saved_activation_bytes: at.saved_activation_bytes,
    };
    at.summary = Some(summary.clone());
    checkpoint::save(&path, &recipe, model, &training, &at)?;
    Ok(summary)
}

/// A training before its first step.
pub(crate) fn start(model: &impl Layer, config: &Config) -> Result<Training> {
    let optimizer =
        Optimizer::new(model, AdamW { lr: config.lr, weight_decay: config.weight_decay, ..AdamW::default() })?;
    let mut training = Training::new(optimizer, config.precision.policy(), config.precision.loss_scale())?;
    (training.clip, training.seed) = (Some(config.clip), config.seed);
    Ok(training)
}

/// What the model's numbers would lose in 16 bit, on the first training samples.
pub(crate) fn numbers(model: &impl Layer, data: &Splits, config: &Config) -> Result<Preflight> {
    let samples: Vec<usize> = (0..data.train.len().min(config.batch_size).min(64)).collect();
    let batch = Batch::of(&*data.train, &samples, None)?;
    scope::with_key(config.seed, 0, || preflight(model, || loss_of(model, &batch, &data.train.target())))
}

/// Cross-entropy for classes, mean squared error for values.
fn loss_of(model: &impl Layer, batch: &Batch, target: &Target) -> Result<Var> {
    let output = model.forward(&Var::constant(batch.input.clone()))?;
    score(&output, batch, target)
}

fn score(output: &Var, batch: &Batch, target: &Target) -> Result<Var> {
    let wanted = Var::constant(batch.target.clone());
    Ok(match target {
        Target::Classes(_) => output.cross_entropy(&wanted, CrossEntropy::default())?,
        Target::Values(_) => output.mse_loss(&wanted, Reduction::Mean)?,
    })
}

/// Mean loss and accuracy on the test samples.
fn evaluate(model: &impl Layer, data: &Splits) -> Result<(f64, Option<f64>)> {
    let target = data.test.target();
    let n = data.test.len();
    let (mut loss, mut right) = (0.0, 0usize);
    for samples in prefetch("test", data.test.clone(), (0..n).collect(), 256, 0, None)? {
        let batch = samples?.batch(&*data.test)?;
        let output = model.forward(&Var::constant(batch.input.clone()))?;
        loss += score(&output, &batch, &target)?.item()? * batch.target.shape()[0] as f64;
        if let Target::Classes(_) = target {
            let found = output.argmax(-1, false)?.array().to_vec::<i64>()?;
            right += found.iter().zip(batch.target.to_vec::<i64>()?).filter(|(a, b)| **a == *b).count();
        }
    }
    let accuracy = matches!(target, Target::Classes(_)).then_some(right as f64 / n as f64);
    Ok((loss / n as f64, accuracy))
}
