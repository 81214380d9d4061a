//! [`NoiseSchedule`]: how much of an image and how much noise there is at each time, in f64; and what a network is
//! trained to say of it.

use binade_autograd::Var;
use binade_tensor::DType;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How β grows over the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// In a straight line (Ho et al., 2020).
    Linear,
    /// √β in a straight line (Rombach et al., 2022).
    ScaledLinear,
    /// ᾱ as a squared cosine, β at most 0.999 (Nichol and Dhariwal, 2021).
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredCosine,
    /// As the sigmoid from −6 to 6 (Xu et al., 2022).
    Sigmoid,
}

impl BetaSchedule {
    /// β of `times` times, from `start` to `end`; the cosine has its own ends.
    pub fn betas(self, times: usize, start: f64, end: f64) -> Vec<f64> {
        let along = |t: usize| if times > 1 { t as f64 / (times - 1) as f64 } else { 0.0 };
        let line = |from: f64, to: f64, t: usize| from + (to - from) * along(t);
        let kept = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        let cosine = |t: usize| {
            let (from, to) = (t as f64 / times as f64, (t + 1) as f64 / times as f64);
            (1.0 - kept(to) / kept(from)).min(0.999)
        };
        let beta = |t: usize| match self {
            BetaSchedule::Linear => line(start, end, t),
            BetaSchedule::ScaledLinear => line(start.sqrt(), end.sqrt(), t).powi(2),
            BetaSchedule::SquaredCosine => cosine(t),
            BetaSchedule::Sigmoid => start + (end - start) / (1.0 + (-line(-6.0, 6.0, t)).exp()),
        };
        (0..times).map(beta).collect()
    }
}

/// What a network predicts of `x_t = √ᾱ·x + √(1 − ᾱ)·noise`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The image.
    Sample,
    /// `√ᾱ·noise − √(1 − ᾱ)·x` (Salimans and Ho, 2022).
    VPrediction,
}

impl Prediction {
    /// Its name in a `scheduler_config.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Prediction::Epsilon => "epsilon",
            Prediction::Sample => "sample",
            Prediction::VPrediction => "v_prediction",
        }
    }

    /// The image as a sum: the factors of x_t and of what is predicted, at weights √ᾱ and √(1 − ᾱ).
    pub(crate) fn image(self, keep: f64, add: f64) -> [f64; 2] {
        match self {
            Prediction::Epsilon => [1.0 / keep, -add / keep],
            Prediction::Sample => [0.0, 1.0],
            Prediction::VPrediction => [keep, -add],
        }
    }

    /// The noise as a sum: the factors of x_t and of what is predicted.
    pub(crate) fn noise(self, keep: f64, add: f64) -> [f64; 2] {
        match self {
            Prediction::Epsilon => [0.0, 1.0],
            Prediction::Sample => [1.0 / add, -keep / add],
            Prediction::VPrediction => [add, keep],
        }
    }
}

/// A variance-preserving noise schedule: `x_t = √ᾱ_t·x + √(1 − ᾱ_t)·noise`. Its tables are f64; what images are
/// multiplied by is rounded to f32, under every policy.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    betas: Vec<f64>,
    kept: Vec<f64>,
}

impl NoiseSchedule {
    /// Of these β.
    ///
    /// # Errors
    /// None, or one that is not from 0 to 1.
    pub fn new(betas: Vec<f64>) -> Result<NoiseSchedule> {
        if betas.is_empty() || betas.iter().any(|beta| !(*beta > 0.0 && *beta <= 1.0)) {
            let found = betas.iter().position(|beta| !(*beta > 0.0 && *beta <= 1.0));
            let at = found.map_or("there is none".into(), |t| format!("at time {t} it is {}", betas[t]));
            return Err(Error::Setting(format!("β must be above 0 and at most 1: {at}")));
        }
        Ok(NoiseSchedule::of(betas))
    }

    fn of(betas: Vec<f64>) -> NoiseSchedule {
        let kept = betas.iter().scan(1.0, |kept, beta| {
            *kept *= 1.0 - beta;
            Some(*kept)
        });
        NoiseSchedule { kept: kept.collect(), betas }
    }

    /// 1,000 times, β from 1e-4 to 0.02 in a straight line.
    pub fn linear() -> NoiseSchedule {
        NoiseSchedule::of(BetaSchedule::Linear.betas(1000, 1e-4, 0.02))
    }

    /// Shifted and scaled so that the last time is noise alone (Lin et al., 2024, algorithm 1).
    #[must_use]
    pub fn with_zero_terminal_snr(self) -> NoiseSchedule {
        let roots: Vec<f64> = self.kept.iter().map(|kept| kept.sqrt()).collect();
        let (first, last) = (roots[0], roots[roots.len() - 1]);
        if first <= last {
            return self;
        }
        let kept: Vec<f64> = roots.iter().map(|root| ((root - last) * first / (first - last)).powi(2)).collect();
        let before = std::iter::once(1.0).chain(kept.iter().copied());
        let betas = kept.iter().zip(before).map(|(kept, before)| 1.0 - kept / before).collect();
        NoiseSchedule { betas, kept }
    }

    /// The number of times.
    pub fn times(&self) -> usize {
        self.kept.len()
    }

    /// β of every time.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// ᾱ of every time.
    pub fn kept(&self) -> &[f64] {
        &self.kept
    }

    /// √ᾱ and √(1 − ᾱ) at a time.
    pub fn weights(&self, t: usize) -> (f64, f64) {
        (self.kept[t].sqrt(), (1.0 - self.kept[t]).sqrt())
    }

    /// The signal-to-noise ratio ᾱ / (1 − ᾱ) at a time.
    pub fn snr(&self, t: usize) -> f64 {
        self.kept[t] / (1.0 - self.kept[t])
    }

    /// Whether the last time is noise alone: there the noise says nothing of the image.
    pub fn has_zero_terminal_snr(&self) -> bool {
        self.kept.last() == Some(&0.0)
    }

    /// Numbers per time as f32, `[N, 1, …]` for images of this rank.
    fn per_image(&self, times: &[i64], rank: usize, f: impl Fn(usize) -> f64) -> Result<Var> {
        let number = |&t: &i64| {
            let t = usize::try_from(t).ok().filter(|t| *t < self.times());
            t.map(|t| f(t) as f32)
                .ok_or_else(|| Error::Setting(format!("times are from 0 to {}, got {times:?}", self.times() - 1)))
        };
        let numbers = times.iter().map(number).collect::<Result<Vec<f32>>>()?;
        let mut shape = vec![1; rank.max(1)];
        shape[0] = times.len();
        Ok(Var::from_slice(&numbers, &shape)?)
    }

    /// `a(t)·x + b(t)·y` in f32.
    fn mix(&self, times: &[i64], [(x, a), (y, b)]: [(&Var, &dyn Fn(usize) -> f64); 2]) -> Result<Var> {
        let (x, y) = (x.cast(DType::F32)?, y.cast(DType::F32)?);
        let rank = x.shape().rank();
        let device = x.array().device();
        let a = self.per_image(times, rank, a)?.to(device)?;
        let b = self.per_image(times, rank, b)?.to(device)?;
        Ok((&(&x * &a)? + &(&y * &b)?)?)
    }

    /// Images `[N, …]` with noise of their shape at `times` `[N]`, in f32.
    ///
    /// # Errors
    /// A time that there is not; shapes that do not fit.
    pub fn add_noise(&self, x: &Var, noise: &Var, times: &[i64]) -> Result<Var> {
        self.mix(times, [(x, &|t| self.weights(t).0), (noise, &|t| self.weights(t).1)])
    }

    /// `√ᾱ·noise − √(1 − ᾱ)·x`, in f32.
    ///
    /// # Errors
    /// As [`NoiseSchedule::add_noise`].
    pub fn velocity(&self, x: &Var, noise: &Var, times: &[i64]) -> Result<Var> {
        self.mix(times, [(noise, &|t| self.weights(t).0), (x, &|t| -self.weights(t).1)])
    }
}

/// How much the loss of each time counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// All times the same.
    #[default]
    Uniform,
    /// As the loss of the noise would: the signal-to-noise ratio for the image.
    Snr,
    /// The signal-to-noise ratio, but at most γ (Hang et al., 2023).
    MinSnr(f64),
}

/// What a diffusion model is trained for: which prediction, at what noise, with what weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// How much noise there is.
    pub schedule: NoiseSchedule,
    /// What is predicted.
    pub prediction: Prediction,
    /// How much each time counts.
    pub weighting: Weighting,
    /// Standard deviation of noise that is the same for all pixels of a channel.
    pub noise_offset: f64,
    /// Standard deviation of noise that the image gets beside the noise to be found (Ning et al., 2023).
    pub input_perturbation: f64,
}

impl Objective {
    /// Of this prediction, all times alike, with nothing added.
    ///
    /// # Errors
    /// Noise from a schedule whose last time has no image in it.
    pub fn new(schedule: NoiseSchedule, prediction: Prediction) -> Result<Objective> {
        Objective { schedule, prediction, weighting: Weighting::Uniform, noise_offset: 0.0, input_perturbation: 0.0 }
            .checked()
    }

    /// Itself, if its settings fit.
    ///
    /// # Errors
    /// Noise from a schedule whose last time has no image in it; γ that is not above 0; a negative deviation.
    pub fn checked(self) -> Result<Objective> {
        check_prediction(&self.schedule, self.prediction)?;
        if let Weighting::MinSnr(gamma) = self.weighting
            && !(gamma > 0.0 && gamma.is_finite())
        {
            return Err(Error::Setting(format!("min-SNR's γ must be above 0 and finite, got {gamma}")));
        }
        for (what, value) in [("noise offset", self.noise_offset), ("input perturbation", self.input_perturbation)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::Setting(format!("the {what} must be at least 0 and finite, got {value}")));
            }
        }
        Ok(self)
    }

    /// How much the loss at a time counts.
    pub fn weight(&self, t: usize) -> f64 {
        let snr = self.schedule.snr(t);
        let most = match self.weighting {
            Weighting::Uniform => return 1.0,
            Weighting::Snr => f64::INFINITY,
            Weighting::MinSnr(gamma) => gamma,
        };
        match self.prediction {
            Prediction::Epsilon if snr <= most => 1.0,
            Prediction::Epsilon => most / snr,
            Prediction::Sample => snr.min(most),
            Prediction::VPrediction => snr.min(most) / (snr + 1.0),
        }
    }

    /// What the network is shown of images `[N, C, H, W]` with this noise at these times, and what it shall answer.
    /// Offset and perturbation are drawn from the scope's stream.
    ///
    /// # Errors
    /// A time that there is not; shapes that do not fit.
    pub fn pose(&self, x: &Var, noise: &Var, times: &[i64]) -> Result<(Var, Var)> {
        let mut noise = noise.clone();
        if self.noise_offset > 0.0 {
            let shape: Vec<usize> = (0..x.shape().rank()).map(|d| if d < 2 { x.shape()[d] } else { 1 }).collect();
            noise = (&noise + &Var::normal(0.0, self.noise_offset, &shape)?)?;
        }
        let mut shown = noise.clone();
        if self.input_perturbation > 0.0 {
            shown = (&shown + &Var::normal(0.0, self.input_perturbation, x.shape())?)?;
        }
        let wanted = match self.prediction {
            Prediction::Epsilon => noise,
            Prediction::Sample => x.clone(),
            Prediction::VPrediction => self.schedule.velocity(x, &noise, times)?,
        };
        Ok((self.schedule.add_noise(x, &shown, times)?, wanted))
    }

    /// The noise that a network's answer says there is in what it was shown at these times, in f32: errors of networks
    /// that predict other things are compared by it.
    ///
    /// # Errors
    /// A time that there is not; shapes that do not fit.
    pub fn noise(&self, shown: &Var, found: &Var, times: &[i64]) -> Result<Var> {
        let factors = |t: usize| {
            let (keep, add) = self.schedule.weights(t);
            self.prediction.noise(keep, add)
        };
        if self.prediction == Prediction::Epsilon {
            return Ok(found.cast(DType::F32)?);
        }
        self.schedule.mix(times, [(shown, &|t| factors(t)[0]), (found, &|t| factors(t)[1])])
    }

    /// The mean of squared errors, in f32, each image's times the weight of its time.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn loss(&self, found: &Var, wanted: &Var, times: &[i64]) -> Result<Var> {
        let error = (&found.cast(DType::F32)? - wanted)?;
        let square = (&error * &error)?;
        if self.weighting == Weighting::Uniform {
            return Ok(square.mean(&all(&square), false)?);
        }
        let weights = self.schedule.per_image(times, square.shape().rank(), |t| self.weight(t))?;
        let weighted = (&square * &weights.to(square.array().device())?)?;
        Ok(weighted.mean(&all(&weighted), false)?)
    }
}

fn all(x: &Var) -> Vec<isize> {
    (0..x.shape().rank() as isize).collect()
}

/// Refuses noise as what is predicted where the last time is nothing but noise.
pub(crate) fn check_prediction(schedule: &NoiseSchedule, prediction: Prediction) -> Result<()> {
    if prediction == Prediction::Epsilon && schedule.has_zero_terminal_snr() {
        return Err(Error::Setting(
            "prediction_type is epsilon with a zero terminal SNR: at the last time the noise says nothing of the \
             image; use v_prediction or sample"
                .into(),
        ));
    }
    Ok(())
}
