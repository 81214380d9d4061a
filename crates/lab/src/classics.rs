//! `cargo xtask classics`: what the papers on mixed precision showed, in miniature, each checked as it is printed.

use std::process::ExitCode;

use anyhow::{Context, Result};
use binade::amp::{Dynamic, LossScale, Policy, StepOutcome, Training};
use binade::autograd::{Var, scope};
use binade::nn::{Activation, Layer, Linear, Optimizer, Param, Sequential, Sgd};
use binade::tensor::op::{Reduction, Unary};
use binade::tensor::{Array, ArrayMut, Class, DType, Device, Grad, Key, Op, Slot, Update, bf16, run_one};
use clap::ValueEnum;

use binade::cli::output::verdict_line;
use binade::cli::threads;

#[derive(clap::Args)]
pub struct Args {
    /// Which; all by default
    #[arg(value_enum)]
    name: Option<Name>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// A network that f16 trains without loss scaling (Micikevicius et al. 2018, section 4.1)
    NoScaling,
    /// One whose gradients f16 loses, and loss scaling brings back (the same, section 3.2)
    Scaling,
    /// Updates too small for f16 weights, and f32 master weights that take them (the same, section 3.1)
    MasterWeights,
    /// The same in bf16, and its cures: stochastic rounding, Kahan summation, f32 (Kalamkar et al. 2019)
    Stagnation,
    /// A loss far too large, and the scaler that backs off until it fits
    Overflow,
}

/// A measured line, and whether what it claims holds.
struct Line {
    what: String,
    value: f64,
    holds: bool,
}

fn line(what: impl Into<String>, value: f64, holds: bool) -> Line {
    Line { what: what.into(), value, holds }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    let mut all = true;
    for &name in Name::value_variants().iter().filter(|n| args.name.is_none_or(|wanted| wanted == **n)) {
        let lines = match name {
            Name::NoScaling => no_scaling(),
            Name::Scaling => scaling(),
            Name::MasterWeights => master_weights(),
            Name::Stagnation => stagnation(),
            Name::Overflow => overflow(),
        }?;
        let value = name.to_possible_value().context("every classic has a name")?;
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        verdict_line(format_args!("{}: {help}", value.get_name()))?;
        for Line { what, value, holds } in lines {
            verdict_line(format_args!("  {} {what:<58} {value:.6}", if holds { "ok  " } else { "FAIL" }))?;
            all &= holds;
        }
        verdict_line("")?;
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// 64 points of a smooth function of two variables, its values times `size`.
fn points(size: f32) -> Result<(Var, Var)> {
    let x: Vec<f32> = (0..128).map(|i| (i as f32 * 0.37).sin()).collect();
    let y: Vec<f32> = x.chunks(2).map(|p| size * (p[0] * p[1] + 0.5 * p[0])).collect();
    let var = |v: &[f32], shape: &[usize]| -> Result<Var> {
        Ok(Var::constant(Array::from_slice(&Device::cpu(), v, shape, Class::Activations)?))
    };
    Ok((var(&x, &[64, 2])?, var(&y, &[64, 1])?))
}

/// Trains a two-layer network for 300 steps; the last loss over the first, and the training. The loss is multiplied by
/// `weight` and the learning rate divided by it, which changes nothing but the size of the gradients.
fn fit(dtype: DType, loss_scale: LossScale, weight: f64) -> Result<(f64, Training, u32)> {
    let (x, y) = points(1.0)?;
    let net = scope::with_key(1, 0, || -> binade::nn::Result<_> {
        Ok(Sequential::new().then(Linear::new(2, 32)?).then(Activation(Unary::Tanh)).then(Linear::new(32, 1)?))
    })?;
    let sgd = Sgd { lr: 0.1 / weight, momentum: 0.9, ..Sgd::default() };
    let mut training = Training::new(Optimizer::new(&net, sgd)?, Policy::autocast(dtype), loss_scale)?;
    let (mut first, mut last, mut skipped) = (f64::NAN, f64::NAN, 0);
    for i in 0..300 {
        let step = training.step(|| -> binade::amp::Result<Var> {
            let loss = net.forward(&x)?.mse_loss(&y, Reduction::Mean)?;
            Ok((&loss * weight)?)
        })?;
        last = step.loss;
        first = if i == 0 { last } else { first };
        skipped += (step.outcome == StepOutcome::Skipped) as u32;
    }
    Ok((last / first, training, skipped))
}

fn no_scaling() -> Result<Vec<Line>> {
    let f32 = fit(DType::F32, LossScale::Off, 1.0)?.0;
    let f16 = fit(DType::F16, LossScale::Off, 1.0)?.0;
    Ok(vec![
        line("f32: last loss over first", f32, f32 < 0.05),
        line("f16 without scaling", f16, (f16 - f32).abs() < 0.2 * f32),
    ])
}

fn scaling() -> Result<Vec<Line>> {
    // Gradients of about 1e-8: below half of f16's smallest number.
    let weight = 1e-7;
    let f32 = fit(DType::F32, LossScale::Off, weight)?.0;
    let lost = fit(DType::F16, LossScale::Off, weight)?.0;
    let (scaled, training, _) = fit(DType::F16, LossScale::dynamic(), weight)?;
    Ok(vec![
        line("f32: last loss over first", f32, f32 < 0.05),
        line("f16 without scaling does not learn", lost, lost > 0.5 && lost > 5.0 * f32),
        line("f16 with scaling", scaled, (scaled - f32).abs() < 0.2 * f32),
        line("its loss scale", training.scaler.loss_scale(), training.scaler.loss_scale() > 1.0),
    ])
}

/// One weight of 1 and `steps` updates of +`update` by plain gradient descent.
fn descend(dtype: DType, master: bool, steps: usize, update: f64) -> Result<f64> {
    let cpu = Device::cpu();
    let one = |dtype| Array::full(&cpu, dtype, binade::tensor::Shape::new(&[1])?, 1.0, Class::Weights);
    let (weight, copy) = (one(dtype)?, one(DType::F32)?);
    let gradient = Array::from_slice(&cpu, &[-update as f32], &[1], Class::Gradients)?;
    let scalars = Array::from_slice(&cpu, &[1.0f32, 1.0], &[2], Class::Optimizer)?;
    let sgd = Update::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    for step in 0..steps {
        let slot = Slot {
            param: Some(ArrayMut::new("sgd", &weight)?),
            master: if master { Some(ArrayMut::new("sgd", &copy)?) } else { None },
            grad: Grad::Read(&gradient),
            state: vec![],
            first: step == 0,
        };
        cpu.update(&sgd, &scalars, &mut [slot])?;
    }
    Ok(weight.item()?)
}

fn master_weights() -> Result<Vec<Line>> {
    let alone = descend(DType::F16, false, 10_000, 1e-4)?;
    let master = descend(DType::F16, true, 10_000, 1e-4)?;
    // What the library's optimisers do with an f16 parameter.
    let param =
        Param::new(Array::full(&Device::cpu(), DType::F16, binade::tensor::Shape::new(&[1])?, 1.0, Class::Weights)?);
    let group = vec![("w".to_string(), param.clone())];
    let optimizer = Optimizer::empty().with_group(group, Sgd { lr: 1e-4, ..Sgd::default() })?;
    let mut training = Training::new(optimizer, Policy::OFF, LossScale::Off)?;
    for _ in 0..10_000 {
        let _ = training.step(|| -> binade::amp::Result<Var> { Ok(param.var().sum(&[], false)?.neg()?) })?;
    }
    let ours = param.array().item()?;
    Ok(vec![
        line("f16 weight 1 after 10,000 updates of 1e-4", alone, alone == 1.0),
        line("with an f32 master copy", master, (master - 2.0).abs() <= 2f64.powi(-10)),
        line("Optimizer, which keeps one", ours, (ours - 2.0).abs() <= 2f64.powi(-10)),
    ])
}

fn stagnation() -> Result<Vec<Line>> {
    let (steps, update) = (1000, 1e-3);
    let nearest = descend(DType::BF16, false, steps, update)?;
    let master = descend(DType::BF16, true, steps, update)?;
    // 1024 weights with stochastic rounding: their mean is unbiased.
    let n = 1024;
    let mut weights = Array::from_slice(&Device::cpu(), &vec![bf16::ONE; n], &[n], Class::Weights)?;
    for step in 0..steps {
        let values: Vec<f32> = weights.to_vec::<bf16>()?.iter().map(|w| w.to_f32() + update as f32).collect();
        let wide = Array::from_slice(&Device::cpu(), &values, &[n], Class::Workspace)?;
        let cast = Op::StochasticCast { dtype: DType::BF16, key: Key::new(0, step as u64) };
        weights = run_one(&cast, &[&wide], wide.device(), DType::BF16, Class::Weights)?;
    }
    let values = weights.to_f64_vec()?;
    let mean = values.iter().sum::<f64>() / n as f64;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt();
    // Kahan's compensation, itself in bf16.
    let (mut weight, mut lost) = (bf16::ONE, bf16::ZERO);
    for _ in 0..steps {
        let wanted = bf16::from_f32(update as f32 + lost.to_f32());
        let next = bf16::from_f32(weight.to_f32() + wanted.to_f32());
        lost = bf16::from_f32(wanted.to_f32() - (next.to_f32() - weight.to_f32()));
        weight = next;
    }
    let kahan = weight.to_f64();
    Ok(vec![
        line("bf16 weight 1 after 1,000 updates of 1e-3, nearest even", nearest, nearest == 1.0),
        line(
            "stochastic rounding, mean of 1024",
            mean,
            (mean - 2.0).abs() < 4.0 * deviation / (n as f64).sqrt() + 1e-4,
        ),
        line("Kahan summation in bf16", kahan, (kahan - 2.0).abs() <= 2.0 * 2f64.powi(-7)),
        line("f32 master", master, (master - 2.0).abs() <= 2f64.powi(-7)),
    ])
}

fn overflow() -> Result<Vec<Line>> {
    let start = LossScale::Dynamic(Dynamic { init_scale: 2f64.powi(30), ..Dynamic::default() });
    let f32 = fit(DType::F32, LossScale::Off, 100.0)?.0;
    let (ratio, training, skipped) = fit(DType::F16, start, 100.0)?;
    Ok(vec![
        line("a loss × 100 at a scale of 2^30: steps skipped", skipped as f64, skipped > 5 && skipped < 30),
        line("scale afterwards", training.scaler.loss_scale(), training.scaler.loss_scale() < 2f64.powi(25)),
        line("last loss over first", ratio, ratio < 0.05 + 2.0 * f32),
    ])
}
