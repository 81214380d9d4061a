//! [`Step`]: one evaluation of the network, and what is made of it, as sums whose factors are computed in f64.

use binade_autograd::Var;
use binade_tensor::DType;

use crate::{NoiseSchedule, Prediction, Result};

/// One evaluation of a network and the next image. With x the present image, o the network's output, m what was
/// remembered, the last first, and n new noise:
///
/// - the network sees `input·x` at `time`,
/// - the image without noise is `x0 = image[0]·x + image[1]·o`, kept within ± `clip`,
/// - the next image is `next.x·x + next.x0·x0 + next.output·o + Σ next.memory[i]·m[i] + next.noise·n`,
/// - `memory[0]·x + memory[1]·x0 + memory[2]·o` is remembered before the others, unless all its factors are 0.
///
/// Factors are rounded to f32 and all sums are f32, under every policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What the network is told.
    pub time: f64,
    /// Factor of what the network sees.
    pub input: f64,
    /// Factors of x and o in the image without noise.
    pub image: [f64; 2],
    /// Largest magnitude of the image without noise.
    pub clip: Option<f64>,
    /// Factors of the next image.
    pub next: Next,
    /// Factors of x, x0 and o in what is remembered.
    pub memory: [f64; 3],
}

/// Factors of the next image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Next {
    /// Of the present image.
    pub x: f64,
    /// Of the image without noise.
    pub x0: f64,
    /// Of the network's output.
    pub output: f64,
    /// Of what is remembered, the last first.
    pub memory: [f64; 3],
    /// Of new noise.
    pub noise: f64,
}

impl Step {
    /// DDIM (Song et al., 2021, equations 12 and 16) from time `t` to ᾱ = `to`, with η times the noise of the reverse
    /// process.
    pub fn ddim(
        schedule: &NoiseSchedule,
        prediction: Prediction,
        t: usize,
        to: f64,
        eta: f64,
        clip: Option<f64>,
    ) -> Step {
        let (keep, add) = schedule.weights(t);
        let kept = schedule.kept()[t];
        let variance = ((1.0 - to) / (1.0 - kept) * (1.0 - kept / to)).max(0.0);
        let sigma = eta * variance.sqrt();
        let direction = (1.0 - to - sigma * sigma).max(0.0).sqrt();
        let noise = prediction.noise(keep, add);
        let next = Next {
            x: direction * noise[0],
            x0: to.sqrt(),
            output: direction * noise[1],
            noise: sigma,
            ..Next::default()
        };
        Step { time: t as f64, input: 1.0, image: prediction.image(keep, add), clip, next, memory: [0.0; 3] }
    }

    /// The reverse process (Ho et al., 2020, equation 7) from time `t` to ᾱ = `to`.
    pub fn ddpm(
        schedule: &NoiseSchedule,
        prediction: Prediction,
        t: usize,
        to: f64,
        fixed_large: bool,
        clip: Option<f64>,
    ) -> Step {
        let (keep, add) = schedule.weights(t);
        let kept = schedule.kept()[t];
        let alpha = kept / to;
        let beta = 1.0 - alpha;
        let variance = match (t, fixed_large) {
            (0, _) => 0.0,
            (_, true) => beta,
            (_, false) => (beta * (1.0 - to) / (1.0 - kept)).max(1e-20),
        };
        let next = Next {
            x: alpha.max(0.0).sqrt() * (1.0 - to) / (1.0 - kept),
            x0: to.sqrt() * beta / (1.0 - kept),
            noise: variance.max(0.0).sqrt(),
            ..Next::default()
        };
        Step { time: t as f64, input: 1.0, image: prediction.image(keep, add), clip, next, memory: [0.0; 3] }
    }

    /// A step of PNDM (Liu et al., 2022, equation 11) from time `t` to ᾱ = `to`, along `Σ slope[i]·o[i]`. The outputs
    /// are this one, which is remembered, and those remembered before, the last first.
    pub fn pndm(schedule: &NoiseSchedule, prediction: Prediction, t: usize, to: f64, slope: [f64; 4]) -> Step {
        let (x, output) = Step::transfer(schedule, prediction, t, to);
        let [first, rest @ ..] = slope.map(|share| output * share);
        let next = Next { x, output: first, memory: rest, ..Next::default() };
        let memory = [0.0, 0.0, 1.0];
        Step { time: t as f64, input: 1.0, image: [1.0, 0.0], clip: None, next, memory }
    }

    /// PNDM's second step, which makes the first one again: from time `t` to ᾱ = `to` along the mean of both outputs. x
    /// is what `first`, the step before, made of the image that this one begins with.
    pub fn pndm_again(schedule: &NoiseSchedule, prediction: Prediction, first: &Step, t: usize, to: f64) -> Step {
        let (x, output) = Step::transfer(schedule, prediction, t, to);
        let kept = x / first.next.x;
        let memory = [output / 2.0 - kept * first.next.output, 0.0, 0.0];
        let next = Next { x: kept, output: output / 2.0, memory, ..Next::default() };
        Step { time: first.time, input: 1.0, image: [1.0, 0.0], clip: None, next, memory: [0.0; 3] }
    }

    /// Factors of the image and of the network's output in the image at ᾱ = `to`.
    fn transfer(schedule: &NoiseSchedule, prediction: Prediction, t: usize, to: f64) -> (f64, f64) {
        let (keep, add) = schedule.weights(t);
        let kept = schedule.kept()[t];
        let by = (kept - to) / (kept * (1.0 - to).sqrt() + (kept * (1.0 - kept) * to).sqrt());
        let [x, output] = prediction.noise(keep, add);
        ((to / kept).sqrt() + by * x, by * output)
    }

    /// What the network sees of `x`, in f32.
    ///
    /// # Errors
    /// Out of memory.
    pub fn input(&self, x: &Var) -> Result<Var> {
        if self.input == 1.0 { Ok(x.clone()) } else { Ok((x * self.input)?) }
    }

    /// The next image, from the present one and the network's output. Noise is drawn from the scope's stream. `memory`
    /// goes from step to step of a sampler.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn next(&self, x: &Var, output: &Var, memory: &mut Vec<Var>) -> Result<Var> {
        let (x, output) = (x.cast(DType::F32)?, output.cast(DType::F32)?);
        let mut x0 = sum(&[(self.image[0], &x), (self.image[1], &output)])?;
        if let Some(range) = self.clip {
            x0 = x0.clamp(Some(-range), Some(range))?;
        }
        let Next { noise, .. } = self.next;
        let drawn = if noise == 0.0 { None } else { Some(Var::normal(0.0, 1.0, x.shape())?) };
        let mut terms = vec![(self.next.x, &x), (self.next.x0, &x0), (self.next.output, &output)];
        terms.extend(self.next.memory.into_iter().zip(memory.iter()));
        terms.extend(drawn.as_ref().map(|drawn| (noise, drawn)));
        let next = sum(&terms)?;
        if self.memory != [0.0; 3] {
            memory.insert(0, sum(&[(self.memory[0], &x), (self.memory[1], &x0), (self.memory[2], &output)])?);
            memory.truncate(self.next.memory.len());
        }
        Ok(next)
    }
}

/// `Σ factor·term`. What has the factor 0 is left out, whatever it is.
fn sum(terms: &[(f64, &Var)]) -> Result<Var> {
    let mut total: Option<Var> = None;
    for (factor, term) in terms.iter().filter(|(factor, _)| *factor != 0.0) {
        let scaled = if *factor == 1.0 { (*term).clone() } else { (*term * f64::from(*factor as f32))? };
        total = Some(match total {
            Some(total) => (&total + &scaled)?,
            None => scaled,
        });
    }
    match (total, terms.first()) {
        (Some(total), _) => Ok(total),
        (None, Some((_, first))) => Ok((*first * 0.0)?),
        (None, None) => Ok(Var::full(0.0, &[])?),
    }
}
