//! `cargo xtask replay`: training recorded from PyTorch, trained again from the same weights and batches, and recorded
//! loss scales.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use binade::amp::{Dynamic, GradScaler, LossScale, Policy, StepOutcome};
use binade::autograd::Var;
use binade::models::{SmallCnn, SmallCnnConfig};
use binade::nn::{
    Adam, AdamW, Layer, Optimizer, Rule, Sgd, clip_grad_norm, load_state_dict, read_safetensors, state_dict,
};
use binade::tensor::op::CrossEntropy;
use binade::tensor::{Array, Class, DType};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use binade::cli::device::On;
use binade::cli::output::verdict_line;
use binade::cli::threads;

#[derive(clap::Args)]
pub struct Args {
    /// A recorded run (config.json, weights.safetensors, run.safetensors), a folder of them, or a JSON file of
    /// loss-scale traces
    path: PathBuf,
    #[command(flatten)]
    on: On,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    args.on.run(|| replay(args))
}

fn replay(args: &Args) -> Result<ExitCode> {
    let path = &args.path;
    let mut runs = Vec::new();
    if path.is_file() {
        runs.push((path.clone(), traces(path)));
    } else if path.join("run.safetensors").exists() {
        runs.push((path.clone(), training(path)));
    } else {
        let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut found: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        found.retain(|p| p.join("run.safetensors").exists());
        found.sort();
        if found.is_empty() {
            bail!("{}: no recorded run (a folder with run.safetensors) here", path.display());
        }
        runs.extend(found.into_iter().map(|p| (p.clone(), training(&p))));
    }
    let mut failed = 0;
    for (path, result) in &runs {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        match result {
            Ok(report) if report.failures.is_empty() => verdict_line(format_args!("ok   {name}: {}", report.line))?,
            Ok(report) => {
                failed += 1;
                verdict_line(format_args!("FAIL {name}: {}", report.line))?;
                report.failures.iter().try_for_each(|f| verdict_line(format_args!("     {f}")))?;
            }
            Err(error) => {
                failed += 1;
                verdict_line(format_args!("FAIL {name}: {error:#}"))?;
            }
        }
    }
    verdict_line(format_args!("{} passed, {failed} failed", runs.len() - failed))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Report {
    line: String,
    failures: Vec<String>,
}

/// PyTorch's settings of a GradScaler.
#[derive(Deserialize)]
struct ScalerConfig {
    init_scale: f64,
    growth_factor: f64,
    backoff_factor: f64,
    growth_interval: u32,
    #[serde(default = "enabled")]
    enabled: bool,
}

fn enabled() -> bool {
    true
}

impl ScalerConfig {
    fn loss_scale(&self) -> LossScale {
        if !self.enabled {
            return LossScale::Off;
        }
        let ScalerConfig { init_scale, growth_factor, backoff_factor, growth_interval, .. } = *self;
        LossScale::Dynamic(Dynamic { init_scale, growth_factor, backoff_factor, growth_interval, ..Dynamic::default() })
    }
}

#[derive(Deserialize)]
struct Trace {
    config: ScalerConfig,
    found_inf: Vec<bool>,
    scale: Vec<f64>,
    growth_tracker: Vec<u32>,
}

/// The scale and the count of good steps after each update must be the recorded ones exactly.
fn traces(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path)?;
    let traces: Vec<Trace> = serde_json::from_str(&text).context("not a list of loss-scale traces")?;
    // What compares nothing does not pass.
    if traces.is_empty() {
        bail!("an empty list: there is no trace to compare");
    }
    let (mut failures, mut updates) = (Vec::new(), 0);
    for (i, trace) in traces.iter().enumerate() {
        if trace.scale.len() != trace.found_inf.len() || trace.growth_tracker.len() != trace.found_inf.len() {
            bail!("trace {i}: found_inf, scale and growth_tracker differ in length");
        }
        if trace.found_inf.is_empty() {
            bail!("trace {i}: no update to compare");
        }
        let config = trace.config.loss_scale();
        let mut state = config.start().with_context(|| format!("trace {i}"))?;
        for (step, &found_inf) in trace.found_inf.iter().enumerate() {
            state = config.next(state, found_inf);
            let (ours, recorded) =
                ((state.scale, state.growth_tracker), (trace.scale[step] as f32, trace.growth_tracker[step]));
            if ours != recorded {
                failures
                    .push(format!("trace {i}, update {step}: scale and tracker are {ours:?}, recorded {recorded:?}"));
                break;
            }
            updates += 1;
        }
    }
    Ok(Report { line: format!("{} traces, {updates} updates", traces.len()), failures })
}

#[derive(Deserialize)]
struct CnnConfig {
    in_channels: usize,
    channels: [usize; 4],
    size: usize,
    fc: usize,
    classes: usize,
}

/// PyTorch's keyword arguments of the three optimisers.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Recorded {
    Sgd {
        lr: f64,
        #[serde(default)]
        momentum: f64,
        #[serde(default)]
        dampening: f64,
        #[serde(default)]
        weight_decay: f64,
        #[serde(default)]
        nesterov: bool,
    },
    Adam(AdamArgs),
    AdamW(AdamArgs),
}

#[derive(Deserialize)]
struct AdamArgs {
    lr: f64,
    betas: Option<[f64; 2]>,
    eps: Option<f64>,
    weight_decay: Option<f64>,
}

impl From<Recorded> for Rule {
    fn from(recorded: Recorded) -> Rule {
        match recorded {
            Recorded::Sgd { lr, momentum, dampening, weight_decay, nesterov } => {
                Sgd { lr, momentum, dampening, weight_decay, nesterov }.into()
            }
            Recorded::Adam(a) => {
                let d = Adam::default();
                let (betas, eps) = (a.betas.unwrap_or(d.betas), a.eps.unwrap_or(d.eps));
                Adam { lr: a.lr, betas, eps, weight_decay: a.weight_decay.unwrap_or(d.weight_decay) }.into()
            }
            Recorded::AdamW(a) => {
                let d = AdamW::default();
                let (betas, eps) = (a.betas.unwrap_or(d.betas), a.eps.unwrap_or(d.eps));
                AdamW { lr: a.lr, betas, eps, weight_decay: a.weight_decay.unwrap_or(d.weight_decay) }.into()
            }
        }
    }
}

/// Trains the recorded model on the recorded batches. Passes where, without autocast, every loss is within 1e-4
/// relative and the final parameters within 1e-3 (norm of the difference over norm); with it, every loss within 2e-2;
/// and skipped steps and scales are the recorded ones.
fn training(folder: &Path) -> Result<Report> {
    let config: CnnConfig = {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())?
    };
    let (weights, _) = read_safetensors(&folder.join("weights.safetensors"), Class::Weights)?;
    let (tensors, metadata) = read_safetensors(&folder.join("run.safetensors"), Class::Activations)?;
    let tensors: HashMap<String, Array> = tensors.into_iter().collect();
    let text = |key: &str| metadata.get(key).ok_or_else(|| anyhow!("run.safetensors: its metadata lack {key}"));
    fn json<T: DeserializeOwned>(key: &str, text: &str) -> Result<T> {
        serde_json::from_str(text).with_context(|| format!("run.safetensors: metadata {key}"))
    }
    if text("model")? != "small_cnn" {
        bail!("the recorded model is {}, of which there is none here", text("model")?);
    }
    let policy = match text("region")?.as_str() {
        "off" => Policy::OFF,
        "bf16" => Policy::autocast(DType::BF16),
        "f16" => Policy::autocast(DType::F16),
        other => bail!("unknown region {other}"),
    };
    let steps: usize = json("steps", text("steps")?)?;
    if steps == 0 {
        bail!("run.safetensors: no step to compare");
    }
    let clip: Option<f64> = metadata.get("clip_grad_norm").map(|t| json("clip_grad_norm", t)).transpose()?.flatten();
    let scales: Vec<f64> = json("scales", text("scales")?)?;
    let skipped: Vec<bool> = json("skipped", text("skipped")?)?;
    if scales.len() < steps || skipped.len() < steps {
        bail!("run.safetensors: fewer scales or outcomes than steps");
    }
    let recorded: Recorded = json("optimizer", text("optimizer")?)?;
    let scaler_config: ScalerConfig = json("grad_scaler", text("grad_scaler")?)?;

    let CnnConfig { in_channels, channels, size, fc, classes } = config;
    let model = SmallCnn::new(&SmallCnnConfig { in_channels, channels, size, fc, classes, ..Default::default() })?;
    load_state_dict(&model, &weights)?;
    let mut optimizer = Optimizer::new(&model, recorded)?;
    let mut scaler = GradScaler::new(scaler_config.loss_scale())?;
    let tensor = |name: String| tensors.get(&name).ok_or_else(|| anyhow!("run.safetensors lacks {name}"));
    let allowed = if policy == Policy::OFF { 1e-4 } else { 2e-2 };
    let (mut failures, mut worst) = (Vec::new(), 0f64);
    for step in 0..steps {
        let input = Var::constant(tensor(format!("batch.{step}.x"))?.clone());
        let target = Var::constant(tensor(format!("batch.{step}.y"))?.clone());
        let loss = policy.run(|| -> binade::nn::Result<_> {
            Ok(model.forward(&input)?.cross_entropy(&target, CrossEntropy::default())?)
        })?;
        let (ours, theirs) = (loss.item()?, tensor(format!("loss.{step}"))?.item()?);
        let error = (ours - theirs).abs() / theirs.abs().max(f64::MIN_POSITIVE);
        worst = worst.max(error);
        let same = if theirs.is_finite() { error <= allowed } else { !ours.is_finite() };
        if !same {
            failures.push(format!(
                "step {step}: loss {ours}, recorded {theirs} ({error:.1e} relative, {allowed:.0e} allowed)"
            ));
        }
        let mut gradients = scaler.scale(&loss)?.backward()?;
        scaler.unscale(&optimizer, &mut gradients)?;
        if let Some(clip) = clip {
            clip_grad_norm(&mut gradients, clip)?;
        }
        let outcome = scaler.step(&mut optimizer, &gradients)?;
        scaler.update()?;
        if (outcome == StepOutcome::Skipped) != skipped[step] {
            failures.push(format!(
                "step {step}: {outcome:?}, recorded {}",
                if skipped[step] { "Skipped" } else { "Applied" }
            ));
        }
        if scaler.loss_scale() != scales[step] {
            failures.push(format!("step {step}: loss scale {}, recorded {}", scaler.loss_scale(), scales[step]));
        }
    }
    let (mut difference, mut norm) = (0.0, 0.0);
    for (name, array) in state_dict(&model) {
        let (ours, theirs) = (array.to_f64_vec()?, tensor(format!("final.{name}"))?.to_f64_vec()?);
        difference += ours.iter().zip(&theirs).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        norm += theirs.iter().map(|b| b * b).sum::<f64>();
    }
    let drift = (difference / norm).sqrt();
    // NaN must fail too.
    if policy == Policy::OFF && (drift > 1e-3 || drift.is_nan()) {
        failures.push(format!("final parameters differ by {drift:.1e} relative, 1e-3 allowed"));
    }
    let skips = skipped.iter().filter(|s| **s).count();
    let line =
        format!("{steps} steps, {skips} skipped; losses within {worst:.1e}, final parameters within {drift:.1e}");
    Ok(Report { line, failures })
}
