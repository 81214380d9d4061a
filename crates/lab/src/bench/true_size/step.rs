//! A training step: planned on a device that only counts, or run and checked. Each in a process of its own, with a
//! limit of its memory.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use binade::amp::{StepOutcome, Training};
use binade::autograd::scope;
use binade::cli::known::{self, Choice, Model, Ready, Recipe, Taken, build};
use binade::cli::memory::Bytes;
use binade::nn::{Optimizer, Param};
use binade::plan::Scratch;
use binade::tensor::{Device, Layout, Shape};
use binade::train::Precision;
use serde::{Deserialize, Serialize};

use crate::bench::cases::policy;
use crate::bench::memory::{peak_rss_mib, rss_mib};
use crate::bench::timing::median;

/// What is known before the step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    pub choice: Choice,
    pub taken: Taken,
    /// Floating-point operations of a step.
    pub work: f64,
    pub parameters: usize,
    /// Seconds that planning took.
    pub seconds: f64,
}

/// What a step was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub taken: Taken,
    pub ms: f64,
    pub loss: f64,
    pub grad_norm: f64,
    /// Resident memory when all was built, and at most.
    pub base_mib: f64,
    pub peak_mib: f64,
}

/// The first choice that fits a limit.
pub fn plan(model: Model, precision: Precision, limit: u64) -> Result<Planned> {
    let (device, start) = (Device::cpu(), Instant::now());
    let (first, scratch) = (Scratch::unmeasured(&device), Scratch::of(&device));
    let needs = |planned: &Planned| planned.taken.of_process();
    let mut least = u64::MAX;
    for choice in Choice::all() {
        // Nothing is measured for what is too much without that.
        let mut found = planned(model, precision, choice, &first)?;
        if needs(&found) <= limit {
            found = planned(model, precision, choice, &scratch)?;
        }
        if needs(&found) <= limit {
            found.seconds = start.elapsed().as_secs_f64();
            return Ok(found);
        }
        least = least.min(needs(&found));
    }
    let (name, least, limit) = (model.name(), Bytes(least), Bytes(limit));
    bail!("{name} in {}: a step needs {least} at least, and {limit} are allowed", precision.name())
}

fn planned(model: Model, precision: Precision, choice: Choice, scratch: &Scratch) -> Result<Planned> {
    let recipe = Recipe { precision, choice, stored: false };
    let known::Planned { taken, work, parameters } = known::planned(model, &recipe, model.batch(), scratch)?;
    Ok(Planned { choice, taken, work, parameters, seconds: 0.0 })
}

fn training(optimizer: Optimizer, precision: Precision) -> Result<Training> {
    let mut training = Training::new(optimizer, policy(precision), precision.loss_scale())?;
    (training.clip, training.blame) = (Some(1.0), false);
    Ok(training)
}

/// So many steps may be skipped, as a loss scale that is too large at first makes them.
const TRIES: usize = 12;

/// Builds the model, steps once to make what is made once, then for some seconds, and checks what was done.
pub fn run(model: Model, precision: Precision, choice: Choice, secs: f64) -> Result<Measured> {
    let device = Device::cpu();
    let Ready { optimizer, params, loss } = scope::with_key(7, 0, || build(model, choice, model.batch(), false))?;
    let before: Vec<Vec<f32>> = params.iter().map(|(_, param)| some_of(param)).collect::<Result<_>>()?;
    let base_mib = rss_mib().unwrap_or(f64::NAN);
    device.reset_peak_memory();
    let mut training = training(optimizer, precision)?;
    let (mut times, mut tried, mut spent, mut applied) = (Vec::new(), 0, 0.0, None);
    while times.len() < 2 || spent < secs && times.len() < 20 {
        let start = Instant::now();
        let step = training.step(&loss)?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        tried += 1;
        if step.outcome == StepOutcome::Applied {
            ensure!(step.loss.is_finite(), "the loss of step {tried} is {}", step.loss);
            ensure!(step.grad_norm.is_finite() && step.grad_norm > 0.0, "the gradients' norm is {}", step.grad_norm);
            if times.is_empty() {
                changed(&params, &before)?;
            }
            spent += if times.is_empty() { 0.0 } else { ms / 1e3 };
            times.push(ms);
            applied = Some(step);
        }
        ensure!(tried - times.len() < TRIES, "{TRIES} steps were skipped, the last at scale {}", step_scale(&training));
    }
    let Some(step) = applied else { bail!("no step was applied") };
    let taken = Taken::of(device.memory(), step.saved_bytes);
    let peak_mib = peak_rss_mib().unwrap_or(f64::NAN);
    // The first made the optimiser's state, and touched memory that was never used.
    let ms = median(&times[1..]);
    Ok(Measured { taken, ms, loss: step.loss, grad_norm: step.grad_norm, base_mib, peak_mib })
}

/// Fails for a parameter that is not finite, or as it was before the first step. (The second one of Lion may take back
/// what the first one did.)
fn changed(params: &[(String, Param)], before: &[Vec<f32>]) -> Result<()> {
    for ((name, param), before) in params.iter().zip(before) {
        let after = some_of(param)?;
        ensure!(after.iter().all(|x| x.is_finite()), "{name} is not finite after the step");
        ensure!(after != *before, "{name} is as it was before the step");
    }
    Ok(())
}

fn step_scale(training: &Training) -> f64 {
    training.scaler.loss_scale()
}

/// Elements of a parameter, some from each part of it.
fn some_of(param: &Param) -> Result<Vec<f32>> {
    const SOME: usize = 64;
    let array = param.array();
    let count = array.numel().min(SOME);
    let strides = Shape::new(&[array.numel() / count.max(1)])?;
    let layout = Layout { shape: Shape::new(&[count])?, strides, offset: array.layout().offset };
    Ok(array.with_layout(layout)?.to_vec::<f32>()?)
}
