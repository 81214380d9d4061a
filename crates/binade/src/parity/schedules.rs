//! A recorded schedule of noise: its tables, mixtures, times, and steps of DDIM.

use std::path::Path;

use anyhow::{Result, ensure};
use binade::autograd::Var;
use binade::diffusion::{Kind, NoiseSchedule, Prediction, Sampler, SchedulerConfig, Spacing, Step};
use binade::models::parity::{Distance, Region};
use binade::tensor::Class;
use binade::weights::Weights;
use serde_json::{Value, json};

use super::verdict::Verdict;

/// How far results may be from PyTorch's, which are f32: relative to the largest. A beta is 1 minus a quotient of them.
const TABLE: f64 = 2e-6;
const BETAS: f64 = 1e-4;
const MIXTURE: f64 = 1e-5;

struct Recorded {
    weights: Weights,
    verdict: Verdict,
}

/// Whether a file records a schedule.
pub fn is_schedule(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "safetensors")
        && Weights::open(path).is_ok_and(|weights| weights.get("alphas_cumprod").is_some())
}

pub fn run(path: &Path) -> Result<Verdict> {
    let mut recorded = Recorded { weights: Weights::open(path)?, verdict: Verdict::default() };
    let mut config = json!({
        "_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "clip_sample": false, "steps_offset": 1,
    });
    for (key, value) in recorded.weights.metadata() {
        // Python's words for what JSON writes small.
        let parsed = serde_json::from_str(&value.to_lowercase());
        config[key] = parsed.unwrap_or_else(|_| Value::String(value.clone()));
    }
    let config = SchedulerConfig::of(&config)?;
    let schedule = config.schedule()?;
    recorded.compare("betas", schedule.betas(), BETAS)?;
    recorded.compare("alphas_cumprod", schedule.kept(), TABLE)?;
    let times: Vec<i64> = recorded.weights.array("timesteps", Class::Indices)?.to_vec()?;
    let (x, noise) = (recorded.var("x")?, recorded.var("noise")?);
    let noisy = schedule.add_noise(&x, &noise, &times)?.array().to_f64_vec()?;
    recorded.compare("noisy", &noisy, MIXTURE)?;
    let velocity = schedule.velocity(&x, &noise, &times)?.array().to_f64_vec()?;
    recorded.compare("velocity", &velocity, MIXTURE)?;
    for spacing in [Spacing::Leading, Spacing::Trailing, Spacing::Linspace] {
        recorded.spacing(&config, &schedule, spacing)?;
    }
    let mut verdict = recorded.verdict;
    verdict.passed = verdict.lines.is_empty() && verdict.distances.iter().all(Distance::fits);
    Ok(verdict)
}

impl Recorded {
    fn var(&self, name: &str) -> Result<Var> {
        Ok(Var::constant(self.weights.array(name, Class::Activations)?))
    }

    /// NaN and infinities must be in the same places.
    fn compare(&mut self, name: &str, ours: &[f64], allowed: f64) -> Result<()> {
        let wanted = self.weights.array(name, Class::Workspace)?.to_f64_vec()?;
        ensure!(ours.len() == wanted.len(), "{name} has {} elements, recorded are {}", ours.len(), wanted.len());
        let largest = wanted.iter().filter(|w| w.is_finite()).fold(f64::MIN_POSITIVE, |most, w| most.max(w.abs()));
        let mut found = 0f64;
        for (ours, wanted) in ours.iter().zip(&wanted) {
            let distance = if ours == wanted || ours.is_nan() && wanted.is_nan() { 0.0 } else { (ours - wanted).abs() };
            found = if distance.is_nan() { f64::INFINITY } else { found.max(distance / largest) };
        }
        let squares = [found * found, 1.0];
        self.verdict.distances.push(Distance { region: Region::F32, name: name.into(), found, allowed, squares });
        Ok(())
    }

    fn spacing(&mut self, config: &SchedulerConfig, schedule: &NoiseSchedule, spacing: Spacing) -> Result<()> {
        let key = match spacing {
            Spacing::Leading => "leading",
            Spacing::Trailing => "trailing",
            Spacing::Linspace => "linspace",
        };
        let config = SchedulerConfig { timestep_spacing: spacing, kind: Kind::Ddim, ..config.clone() };
        let prefix = format!("ddim_timesteps.{key}.");
        let names: Vec<String> = self.weights.names().into_iter().filter(|name| name.starts_with(&prefix)).collect();
        for name in names {
            let Some(steps) = name[prefix.len()..].parse().ok() else { continue };
            let sampler = Sampler::new(&config, steps, 0.0)?;
            let times: Vec<f64> = sampler.steps.iter().map(|step| step.time).collect();
            self.compare(&name, &times, 0.0)?;
        }
        let name = format!("ddim_timesteps.{key}.50");
        if self.weights.get(&name).is_none() {
            return Ok(());
        }
        // The eleventh of fifty steps.
        let time = self.weights.array(&name, Class::Indices)?.to_vec::<i64>()?[10] as usize;
        for prediction in [Prediction::Epsilon, Prediction::VPrediction, Prediction::Sample] {
            let to = schedule.kept().get(time.wrapping_sub(20)).copied().unwrap_or(1.0);
            let step = Step::ddim(schedule, prediction, time, to, 0.0, None);
            let next = step.next(&self.var("x")?, &self.var("eps")?, &mut Vec::new())?.array().to_f64_vec()?;
            self.compare(&format!("ddim_prev.{key}.{}", prediction.name()), &next, TABLE)?;
        }
        Ok(())
    }
}
