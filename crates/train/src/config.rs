//! [`Config`]: the settings of a training, with defaults; [`Precision`].

use binade_amp::{LossScale, Policy, Training};
use binade_nn::{Ema, Module, Optimizer, Schedule, WarmUp};
use binade_tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::{Error, OptimizerChoice, Result, Score, Splits};

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

/// Settings of [`crate::fit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Precision.
    pub precision: Precision,
    /// Passes over the training samples. A resumed run may ask for another number; the schedule is that of the new
    /// number from there on.
    pub epochs: u64,
    /// Samples per batch: per step, or per part of one ([`Config::accumulate`]).
    pub batch_size: usize,
    /// Batches per step, whose gradients are accumulated; an epoch's last step may have fewer.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Leaves out an epoch's last batch where it is smaller than the others. The order differs from epoch to epoch, and
    /// so do the samples left out.
    #[serde(default)]
    pub drop_last: bool,
    /// Steps of an epoch, which has a part of the samples then: another one each time. Without a number it has all.
    #[serde(default)]
    pub steps_per_epoch: Option<usize>,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerChoice,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Learning rate over applied steps. A schedule of 0 steps has as many as the run, after its warm-up.
    #[serde(default = "cosine")]
    pub schedule: Schedule,
    /// Weight decay: decoupled, or an L2 penalty, as the optimiser has it.
    pub weight_decay: f64,
    /// Whether biases, norms and whatever else has fewer than two dimensions do not decay, as GPT-2 is trained.
    #[serde(default)]
    pub decay_matrices_only: bool,
    /// Largest gradient norm; `f64::MAX` clips nothing.
    pub clip: f64,
    /// Decay of averages of the parameters, with which the model is evaluated then.
    #[serde(default)]
    pub ema: Option<f64>,
    /// Power with which averages begin to follow, as in diffusers ([`WarmUp::Power`]); without it (1 + n)/(10 + n).
    #[serde(default)]
    pub ema_power: Option<f64>,
    /// Seed of initial values, order, augmentation and dropout.
    pub seed: u64,
    /// Evaluates after so many steps each, besides after each epoch.
    #[serde(default)]
    pub evaluate_every: Option<u64>,
    /// Samples per batch in evaluation.
    #[serde(default = "evaluation_batch")]
    pub evaluation_batch: usize,
    /// How many checkpoints are kept: the newest, and those of the epochs before.
    #[serde(default = "one")]
    pub keep_last: usize,
    /// Keeps the weights of the best epoch in a file of their own.
    #[serde(default)]
    pub keep_best: bool,
    /// Ends the run after so many epochs in a row of which none was better than all before it.
    #[serde(default)]
    pub patience: Option<u64>,
    /// By what an epoch is better than another.
    #[serde(default)]
    pub best_by: BestBy,
    /// Writes event files of TensorBoard too: numbers, weights by power of two, and what the model makes, after each
    /// epoch.
    #[serde(default)]
    pub tensorboard: bool,
    /// Name of the device to train on, to which [`Config::training`] moves the model; without one, where the model is.
    /// No part of a run's settings: it may be resumed on another.
    #[serde(skip)]
    pub device: Option<String>,
    /// Ends the run with [`Error::Anomaly`] at the first operator of a step whose result is not finite
    /// ([`Training::detect_anomaly`]). No part of a run's settings.
    #[serde(skip)]
    pub detect_anomaly: bool,
    /// Writes checkpoints between two steps, without a copy of them in memory. No part of a run's settings.
    #[serde(skip)]
    pub save_between_steps: bool,
}

/// By what an epoch is better than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BestBy {
    /// A lower test loss.
    #[default]
    Loss,
    /// A higher share of test samples that are right.
    Accuracy,
}

impl BestBy {
    /// What is lower the better; NaN is never better.
    pub(crate) fn of(self, score: &Score) -> Result<f64> {
        match (self, score.right) {
            (BestBy::Loss, _) => Ok(score.loss),
            (BestBy::Accuracy, Some(right)) => Ok(-right / score.count),
            (BestBy::Accuracy, None) => {
                Err(Error::Config("epochs are to be compared by accuracy, and the task has no right and wrong".into()))
            }
        }
    }
}

fn one() -> usize {
    1
}

fn evaluation_batch() -> usize {
    256
}

fn cosine() -> Schedule {
    Schedule::Cosine { warmup: 0, total: 0, floor: 0.0 }
}

impl Default for Config {
    /// AdamW at 2e-3 that falls along a half cosine, 12 epochs, batches of 64.
    fn default() -> Config {
        Config {
            precision: Precision::Fp32,
            epochs: 12,
            batch_size: 64,
            accumulate: 1,
            drop_last: false,
            steps_per_epoch: None,
            optimizer: OptimizerChoice::default(),
            lr: 2e-3,
            schedule: cosine(),
            weight_decay: 1e-2,
            decay_matrices_only: false,
            clip: 1.0,
            ema: None,
            ema_power: None,
            seed: 0,
            evaluate_every: None,
            evaluation_batch: evaluation_batch(),
            keep_last: 1,
            keep_best: false,
            patience: None,
            best_by: BestBy::Loss,
            tensorboard: false,
            device: None,
            detect_anomaly: false,
            save_between_steps: false,
        }
    }
}

impl Config {
    /// A training before its first step, with the optimiser chosen for all parameters.
    ///
    /// # Errors
    /// Settings outside their domain; a device that is not there, or has no room for the model.
    pub fn training(&self, model: &dyn Module) -> Result<Training> {
        let optimizer = Optimizer::grouped(model, |_, param| {
            let decays = !self.decay_matrices_only || param.array().shape().rank() >= 2;
            self.optimizer.rule(self.lr, if decays { self.weight_decay } else { 0.0 })
        })?;
        self.training_with(model, optimizer)
    }

    /// As [`Config::training`], with an optimiser of one's own.
    ///
    /// # Errors
    /// Settings outside their domain; a device that is not there, or has no room for the model.
    pub fn training_with(&self, model: &dyn Module, optimizer: Optimizer) -> Result<Training> {
        if let Some(name) = &self.device {
            model.to(&Device::open(name)?)?;
        }
        let mut training = Training::new(optimizer, self.precision.policy(), self.precision.loss_scale())?;
        (training.clip, training.seed) = (Some(self.clip), self.seed);
        let average = |decay| Ema::new(model, decay)?.with_warm_up(self.warm_up());
        training.ema = self.ema.map(average).transpose()?;
        Ok(training)
    }

    fn warm_up(&self) -> WarmUp {
        self.ema_power.map_or(WarmUp::Ratio, |power| WarmUp::Power { inverse_gamma: 1.0, power })
    }

    /// The schedule of a run of so many steps.
    pub(crate) fn schedule_over(&self, steps: u64) -> Schedule {
        lasting(self.schedule.clone(), steps)
    }

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
                "{} epochs of {batches} batches are more than can be counted",
                self.epochs
            )));
        }
        Ok(())
    }

    /// Fails unless every setting lies in its domain: what can be told without data and model.
    pub(crate) fn check_settings(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        if self.epochs == 0 || self.batch_size == 0 {
            return fail(format!(
                "epochs and batch size must be at least 1, got {} and {}",
                self.epochs, self.batch_size
            ));
        }
        let counts = [
            ("number of batches per step", self.accumulate as u64),
            ("number of steps of an epoch", self.steps_per_epoch.unwrap_or(1) as u64),
            ("number of steps between evaluations", self.evaluate_every.unwrap_or(1)),
            ("batch size of evaluation", self.evaluation_batch as u64),
            ("number of checkpoints to keep", self.keep_last as u64),
            ("number of epochs to wait for a better one", self.patience.unwrap_or(1)),
        ];
        if let Some((what, _)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return fail(format!("the {what} must be at least 1, got 0"));
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
        self.optimizer.rule(self.lr, self.weight_decay).check()?;
        self.ema.map_or(Ok(()), Ema::check_decay)?;
        self.warm_up().check()?;
        Ok(self.schedule_over(1).check()?)
    }

    /// Batches per epoch.
    pub(crate) fn batches(&self, samples: usize) -> usize {
        let all = if self.drop_last { samples / self.batch_size } else { samples.div_ceil(self.batch_size) };
        self.steps_per_epoch.map_or(all, |steps| all.min(steps.saturating_mul(self.accumulate)))
    }
}

/// A schedule with so many steps where it has none.
fn lasting(schedule: Schedule, steps: u64) -> Schedule {
    match schedule {
        Schedule::Cosine { warmup, total: 0, floor } => Schedule::Cosine { warmup, total: steps, floor },
        Schedule::Linear { start, end, total: 0 } => Schedule::Linear { start, end, total: steps },
        Schedule::Polynomial { total: 0, power } => Schedule::Polynomial { total: steps, power },
        Schedule::OneCycle { total: 0, rising, div, final_div, cosine } => {
            Schedule::OneCycle { total: steps, rising, div, final_div, cosine }
        }
        Schedule::WarmUp { steps: first, start, then } => {
            let then = Box::new(lasting(*then, steps.saturating_sub(first).max(1)));
            Schedule::WarmUp { steps: first, start, then }
        }
        other => other,
    }
}
