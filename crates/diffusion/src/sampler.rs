//! [`Sampler`]: from noise to an image in some steps.

use binade_autograd::Var;

use crate::step::Next;
use crate::{Error, Kind, NoiseSchedule, Prediction, Result, SchedulerConfig, Spacing, Step};

/// A sampler and its steps. Heun's method evaluates the network twice per step but the last, and PNDM twice in the
/// first of several, so they have more of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    /// What noise is multiplied by at the start.
    pub start: f64,
    /// The evaluations, in order.
    pub steps: Vec<Step>,
}

impl Sampler {
    /// So many steps over a schedule, from 1 to as many as it has times. `eta` is DDIM's share of new noise, from 0 to
    /// 1; the others have no use for it.
    ///
    /// # Errors
    /// Settings that do not fit each other; no steps, or more than there are times; η outside 0 to 1.
    pub fn new(config: &SchedulerConfig, steps: usize, eta: f64) -> Result<Sampler> {
        config.check()?;
        let schedule = config.schedule()?;
        if steps == 0 || steps > schedule.times() {
            return Err(Error::Setting(format!("steps must be from 1 to {}, got {steps}", schedule.times())));
        }
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::Setting(format!("η must be from 0 to 1, got {eta}")));
        }
        Ok(match config.kind {
            Kind::Ddim | Kind::Ddpm => ancestors(config, &schedule, steps, eta),
            Kind::Pndm => pndm(config, &schedule, steps),
            Kind::Euler | Kind::EulerAncestral => euler(config, &schedule, steps),
            Kind::Heun => heun(config, &schedule, steps),
            Kind::DpmMultistep => dpm_multistep(config, &schedule, steps),
        })
    }

    /// Runs all steps from `noise`. `network` gets what it sees and the time; `each` sees the number of evaluations
    /// done and the image after each.
    ///
    /// # Errors
    /// Those of the network.
    pub fn run<E: From<Error>>(
        &self,
        noise: &Var,
        mut network: impl FnMut(&Var, f64) -> Result<Var, E>,
        mut each: impl FnMut(usize, &Var) -> Result<(), E>,
    ) -> Result<Var, E> {
        let mut x = if self.start == 1.0 { noise.clone() } else { (noise * self.start).map_err(Error::from)? };
        let mut memory = Vec::new();
        for (i, step) in self.steps.iter().enumerate() {
            let output = network(&step.input(&x)?, step.time)?;
            x = step.next(&x, &output, &mut memory)?;
            each(i + 1, &x)?;
        }
        Ok(x)
    }
}

/// The times that DDPM, DDIM and PNDM visit, largest first: whole numbers.
fn times(config: &SchedulerConfig, steps: usize) -> Vec<usize> {
    let all = config.num_train_timesteps;
    let time = |i: usize| match config.timestep_spacing {
        // An offset may point beyond the last time where every time is visited.
        Spacing::Leading => ((steps - 1 - i) * (all / steps) + config.steps_offset).min(all - 1),
        Spacing::Trailing => back(all, all, steps, i),
        Spacing::Linspace => line(all - 1, steps - 1, steps - 1 - i).round_ties_even() as usize,
    };
    (0..steps).map(time).collect()
}

/// The i-th of `steps` times back from `from`, in steps of `all / steps`.
fn back(from: usize, all: usize, steps: usize, i: usize) -> usize {
    let time = (from as f64 - i as f64 * (all as f64 / steps as f64)).round_ties_even() - 1.0;
    time.max(0.0) as usize
}

/// The i-th of `parts + 1` numbers from 0 to `last`.
fn line(last: usize, parts: usize, i: usize) -> f64 {
    if parts == 0 { 0.0 } else { i as f64 * (last as f64 / parts as f64) }
}

fn ancestors(config: &SchedulerConfig, schedule: &NoiseSchedule, steps: usize, eta: f64) -> Sampler {
    let stride = config.num_train_timesteps / steps;
    // What is before the first time.
    let end = if config.kind == Kind::Ddpm || config.set_alpha_to_one { 1.0 } else { schedule.kept()[0] };
    let step = |t: usize| {
        let to = t.checked_sub(stride).map_or(end, |before| schedule.kept()[before]);
        let (prediction, clip) = (config.prediction_type, config.clip_sample);
        match config.kind {
            Kind::Ddpm => Step::ddpm(schedule, prediction, t, to, config.fixed_large, clip),
            _ => Step::ddim(schedule, prediction, t, to, eta, clip),
        }
    };
    Sampler { start: 1.0, steps: times(config, steps).into_iter().map(step).collect() }
}

/// Without Runge-Kutta steps: slopes are those of the last four outputs (Adams-Bashforth), of fewer at the start.
fn pndm(config: &SchedulerConfig, schedule: &NoiseSchedule, steps: usize) -> Sampler {
    let stride = config.num_train_timesteps / steps;
    let end = if config.set_alpha_to_one { 1.0 } else { schedule.kept()[0] };
    let kept = |t: Option<usize>| t.map_or(end, |t| schedule.kept()[t]);
    let (prediction, times) = (config.prediction_type, times(config, steps));
    let first = Step::pndm(schedule, prediction, times[0], kept(times[0].checked_sub(stride)), [1.0, 0.0, 0.0, 0.0]);
    let mut all = vec![first];
    for (i, &t) in times.iter().enumerate().skip(1) {
        if i == 1 {
            // The network sees what the first step made, at the time that it led to.
            let from = (t + stride).min(config.num_train_timesteps - 1);
            let again = Step::pndm_again(schedule, prediction, &first, from, kept(Some(t)));
            all.push(Step { time: t as f64, ..again });
        }
        let slope = match i {
            1 => [3.0 / 2.0, -1.0 / 2.0, 0.0, 0.0],
            2 => [23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0, 0.0],
            _ => [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
        };
        all.push(Step::pndm(schedule, prediction, t, kept(t.checked_sub(stride)), slope));
    }
    Sampler { start: 1.0, steps: all }
}

/// σ = √((1 − ᾱ)/ᾱ) of every time. The last of a schedule that ends in noise alone is large instead of infinite.
fn sigmas(schedule: &NoiseSchedule) -> Vec<f64> {
    let sigma = |kept: f64| ((1.0 - kept) / kept).sqrt();
    schedule.kept().iter().map(|&kept| sigma(if kept == 0.0 { 2f64.powi(-24) } else { kept })).collect()
}

/// Numbers between those of the times before and after.
fn between(table: &[f64], time: f64) -> f64 {
    let last = table.len() - 1;
    let (low, part) = ((time.floor() as usize).min(last), time.fract());
    let high = (low + 1).min(last);
    table[low] + (table[high] - table[low]) * part
}

/// Times and σ that Euler's and Heun's methods visit, with a 0 after the last σ.
fn levels(config: &SchedulerConfig, schedule: &NoiseSchedule, steps: usize) -> (Vec<f64>, Vec<f64>) {
    let times: Vec<f64> = match config.timestep_spacing {
        Spacing::Linspace => {
            (0..steps).map(|i| line(config.num_train_timesteps - 1, steps - 1, steps - 1 - i)).collect()
        }
        Spacing::Leading | Spacing::Trailing => times(config, steps).into_iter().map(|t| t as f64).collect(),
    };
    let table = sigmas(schedule);
    let sigmas = times.iter().map(|&t| between(&table, t)).chain([0.0]).collect();
    (times, sigmas)
}

/// How the image without noise follows from x = image + σ·noise and the output.
fn image(prediction: Prediction, sigma: f64) -> [f64; 2] {
    let wide = sigma * sigma + 1.0;
    match prediction {
        Prediction::Epsilon => [1.0, -sigma],
        Prediction::Sample => [0.0, 1.0],
        Prediction::VPrediction => [1.0 / wide, -sigma / wide.sqrt()],
    }
}

/// What noise of deviation 1 is multiplied by at the start of a sampler over σ.
fn first(config: &SchedulerConfig, sigmas: &[f64]) -> f64 {
    let largest = sigmas.iter().copied().fold(0.0, f64::max);
    if config.timestep_spacing == Spacing::Leading { (largest * largest + 1.0).sqrt() } else { largest }
}

fn euler(config: &SchedulerConfig, schedule: &NoiseSchedule, steps: usize) -> Sampler {
    let (times, sigmas) = levels(config, schedule, steps);
    let step = |i: usize| {
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        // Of the variance at the end, what is new, and what is left of the old.
        let up = match config.kind {
            Kind::EulerAncestral => (to * to * (from * from - to * to) / (from * from)).max(0.0).sqrt(),
            _ => 0.0,
        };
        let change = ((to * to - up * up).max(0.0).sqrt() - from) / from;
        Step {
            time: times[i],
            input: 1.0 / (from * from + 1.0).sqrt(),
            image: image(config.prediction_type, from),
            clip: None,
            next: Next { x: 1.0 + change, x0: -change, noise: up, ..Next::default() },
            memory: [0.0; 3],
        }
    };
    Sampler { start: first(config, &sigmas), steps: (0..steps).map(step).collect() }
}

fn heun(config: &SchedulerConfig, schedule: &NoiseSchedule, steps: usize) -> Sampler {
    let (times, sigmas) = levels(config, schedule, steps);
    let mut all = Vec::new();
    let step = |time: f64, sigma: f64, next: Next, memory: [f64; 3]| Step {
        time,
        input: 1.0 / (sigma * sigma + 1.0).sqrt(),
        image: image(config.prediction_type, sigma),
        clip: config.clip_sample,
        next,
        memory,
    };
    for i in 0..steps {
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        // Euler's step along (x − x0)/σ; half of it is remembered.
        let change = (to - from) / from;
        let next = Next { x: 1.0 + change, x0: -change, ..Next::default() };
        all.push(step(times[i], from, next, [1.0 + change / 2.0, -change / 2.0, 0.0]));
        if to > 0.0 {
            // The other half along the slope at its end.
            let slope = (to - from) / (2.0 * to);
            let next = Next { x: slope, x0: -slope, memory: [1.0, 0.0, 0.0], ..Next::default() };
            all.push(step(times[i + 1], to, next, [0.0; 3]));
        }
    }
    Sampler { start: first(config, &sigmas), steps: all }
}

fn dpm_multistep(config: &SchedulerConfig, schedule: &NoiseSchedule, steps: usize) -> Sampler {
    let all = config.num_train_timesteps;
    let table = sigmas(schedule);
    // λ = ln(√ᾱ/√(1 − ᾱ)) = −ln σ.
    let last = all - table.iter().filter(|sigma| -sigma.ln() < config.lambda_min_clipped).count();
    let last = last.max(1);
    let time = |i: usize| match config.timestep_spacing {
        Spacing::Leading => ((steps - i) * (last / (steps + 1)).max(1) + config.steps_offset).min(all - 1),
        Spacing::Trailing => back(last, all, steps, i),
        Spacing::Linspace => line(last - 1, steps, steps - i).round_ties_even() as usize,
    };
    let times: Vec<usize> = (0..steps).map(time).collect();
    let end = if config.final_sigma_min { table[0] } else { 0.0 };
    let sigmas: Vec<f64> = times.iter().map(|&t| table[t]).chain([end]).collect();
    let lambda = |sigma: f64| -sigma.ln();
    // x = α·(image + σ·noise)
    let alpha = |sigma: f64| 1.0 / (sigma * sigma + 1.0).sqrt();
    let step = |i: usize| {
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        let h = lambda(to) - lambda(from);
        let is_last = i + 1 == steps;
        let few = config.lower_order_final && steps < 15;
        let first_order =
            config.solver_order == 1 || i == 0 || is_last && (config.euler_at_final || few || !config.final_sigma_min);
        // The same time twice, which only most steps of a schedule visit, is no step of second order.
        let before = if i > 0 { lambda(from) - lambda(sigmas[i - 1]) } else { 0.0 };
        let grown = alpha(to) * -(-h).exp_m1();
        let second = if first_order || h == 0.0 || before == 0.0 {
            0.0
        } else if config.solver_heun {
            alpha(to) * ((-h).exp_m1() / h + 1.0) * h / before
        } else {
            0.5 * grown * h / before
        };
        let ratio = to * alpha(to) / (from * alpha(from));
        let next = Next { x: ratio, x0: grown + second, memory: [-second, 0.0, 0.0], ..Next::default() };
        Step {
            time: times[i] as f64,
            input: 1.0,
            image: config.prediction_type.image(alpha(from), from * alpha(from)),
            clip: None,
            next,
            memory: [0.0, 1.0, 0.0],
        }
    };
    Sampler { start: 1.0, steps: (0..steps).map(step).collect() }
}
