//! Two training steps of every kind of model on a device, beside the CPU.

use anyhow::Result;
use binade::amp::{Dynamic, LossScale, StepOutcome, Training};
use binade::autograd::{Var, scope};
use binade::cli::output::verdict_line;
use binade::models::{
    Gpt, GptConfig, ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, UNet, UNetConfig, Vit, VitConfig,
};
use binade::nn::{AdamW, Layer, Module, Optimizer};
use binade::tensor::Device;
use binade::tensor::op::{CrossEntropy, Reduction};
use binade::train::Precision;

const NAMES: [&str; 5] = ["small-cnn", "resnet", "vit", "gpt", "unet"];

/// How far the loss of the first step may lie from the CPU's, by the rounding of the format; and of the second, since
/// Adam makes whole steps of gradients that are nothing but rounding.
fn allowed(precision: Precision) -> [f64; 2] {
    match precision {
        Precision::Fp32 => [1e-6, 1e-4],
        Precision::Fp16 => [2f64.powi(-11), 2e-2],
        Precision::Bf16 => [2f64.powi(-9), 2e-2],
    }
}

/// Trains all; false if a loss is too far off, or another step is skipped.
pub fn run_all(device: &Device) -> Result<bool> {
    let mut sound = true;
    for name in NAMES {
        for precision in Precision::ALL {
            let here = scope::with_device(&Device::cpu(), || train(name, precision))?;
            let there = scope::with_device(device, || train(name, precision))?;
            let off = |i: usize| (there[i].0 - here[i].0).abs() / here[i].0.abs();
            let near = allowed(precision).iter().enumerate().all(|(i, allowed)| off(i) <= *allowed);
            let passed = near && (0..2).all(|i| here[i].1 == there[i].1);
            sound &= passed;
            let verdict = if passed { "ok  " } else { "FAIL" };
            let line = format_args!(
                "  {verdict} {name} {}: losses {:.6} {:.6}, off the CPU's by {:.0e} {:.0e}",
                precision.name(),
                there[0].0,
                there[1].0,
                off(0),
                off(1)
            );
            verdict_line(line)?;
        }
    }
    Ok(sound)
}

/// Losses of two steps, and what became of these.
fn train(name: &str, precision: Precision) -> Result<[(f64, StepOutcome); 2]> {
    let scale = match precision {
        Precision::Fp16 => LossScale::Dynamic(Dynamic { init_scale: 1024.0, ..Dynamic::default() }),
        Precision::Fp32 | Precision::Bf16 => LossScale::Off,
    };
    let (model, loss) = scope::with_key(5, 0, || subject(name))?;
    let optimizer = Optimizer::new(&model, AdamW { lr: 1e-3, ..AdamW::default() })?;
    let mut training = Training::new(optimizer, precision.policy(), scale)?;
    (training.clip, training.seed) = (Some(1.0), 3);
    let mut step = || -> Result<(f64, StepOutcome)> {
        let done = training.step(&*loss)?;
        Ok((done.loss, done.outcome))
    };
    Ok([step()?, step()?])
}

type Subject = (Box<dyn Module>, Box<dyn Fn() -> binade::amp::Result<Var>>);

fn values(dims: &[usize]) -> binade::autograd::Result<Var> {
    let x: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i as f32 * 0.7).sin()).collect();
    Var::from_slice(&x, dims)
}

fn indices(dims: &[usize], below: i64) -> binade::autograd::Result<Var> {
    let x: Vec<i64> = (0..dims.iter().product::<usize>() as i64).map(|i| i * 7 % below).collect();
    Var::from_slice(&x, dims)
}

fn classifier<M: Layer + Module + Clone + 'static>(model: M, channels: usize) -> Subject {
    let own = model.clone();
    let loss = move || {
        let y = own.forward(&values(&[2, channels, 8, 8])?)?;
        Ok(y.cross_entropy(&indices(&[2], 3)?, CrossEntropy::default())?)
    };
    (Box::new(model), Box::new(loss))
}

/// A model as small as it can be, and its loss over a batch.
fn subject(name: &str) -> Result<Subject> {
    Ok(match name {
        "small-cnn" => {
            let config = SmallCnnConfig { channels: [4, 4, 6, 6], fc: 8, classes: 3, ..SmallCnnConfig::default() };
            classifier(SmallCnn::new(&config)?, 1)
        }
        "resnet" => {
            let config = ResNetConfig { blocks: vec![1, 1], classes: 3, ..ResNetConfig::default() }.with_width(4);
            classifier(ResNet::new(&config)?, 3)
        }
        "vit" => {
            let config = VitConfig { size: [8; 2], depth: 2, classes: 3, ..VitConfig::default() }.with_width(16, 2);
            classifier(Vit::new(&config)?, 3)
        }
        "gpt" => {
            let (vocabulary, context) = (11, 8);
            let config = GptConfig { vocabulary, context, features: 16, depth: 2, heads: 2, ..GptConfig::default() };
            let model = Gpt::new(&config)?;
            let own = model.clone();
            let loss = move || {
                let y = own.forward(&indices(&[2, 8], 11)?)?.reshape(&[16, 11])?;
                Ok(y.cross_entropy(&indices(&[16], 11)?, CrossEntropy::default())?)
            };
            (Box::new(model), Box::new(loss))
        }
        _ => {
            let (base, levels, attention) = (32, vec![1, 1], vec![1]);
            let model = UNet::new(&UNetConfig { base, levels, blocks: 1, attention, ..UNetConfig::default() })?;
            let own = model.clone();
            let loss = move || {
                let y = own.forward(&values(&[1, 3, 4, 4])?, &indices(&[1], 1000)?)?;
                Ok(y.mse_loss(&values(&[1, 3, 4, 4])?, Reduction::Mean)?)
            };
            (Box::new(model), Box::new(loss))
        }
    })
}
