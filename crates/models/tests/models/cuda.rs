//! Training on interpreted PTX beside the CPU: losses, skipped steps, checkpoints that move.

use std::collections::HashMap;

use crate::common::{Subject, bits, subject};
use crate::devices::{NAMES, precisions, train};
use binade_amp::{GradScaler, LossScale, Policy, StepOutcome, Training, TrainingState};
use binade_autograd::{Gradients, Var, no_grad, scope};
use binade_cpu::{Cpu, Isa};
use binade_cuda::{Counts, interpreted};
use binade_nn::{
    Activation, AdamW, BatchNorm2d, Layer, Linear, Module, Optimizer, Param, Sequential, clip_grad_norm,
    clip_grad_value, load_state_dict, read_safetensors, state_dict, write_safetensors,
};
use binade_tensor::op::{Compare, Reduction, Unary};
use binade_tensor::{Array, Class, DType, Device};

/// How far a loss may lie from the CPU's: before the first update by the rounding of the format, later by what
/// `cargo xtask replay` allows beside PyTorch, since Adam makes whole steps of gradients that are nothing but rounding.
fn allowed(policy: &Policy, updated: bool) -> f64 {
    match (policy.compute(), updated) {
        (None, false) => 1e-6,
        (None, true) => 1e-4,
        (Some(DType::F16), false) => 2f64.powi(-11),
        (Some(_), false) => 2f64.powi(-9),
        (Some(_), true) => 2e-2,
    }
}

/// Trains a model here and there; the same steps are skipped, and every loss is within its bound. Returns how many
/// steps were skipped.
fn compare(name: &str, (policy, scale): (Policy, LossScale), steps: usize) -> usize {
    let cuda = interpreted().unwrap();
    let here = train(&Device::cpu(), name, (policy.clone(), scale), steps, |_| {});
    // What the format itself makes of the same steps: after updates roundings grow, and no device's are the right ones.
    let plain = train(&Device::cpu(), name, precisions(SCALE)[0].clone(), steps, |_| {});
    let mut before = None::<(Counts, StepOutcome)>;
    let there = train(&Device::new(cuda.clone()), name, (policy.clone(), scale), steps, |outcome| {
        let now = cuda.counts();
        // The first step makes what stays; after a skipped one the operator at fault is looked for.
        if let Some((before, StepOutcome::Applied)) = before.replace((now.clone(), outcome))
            && outcome == StepOutcome::Applied
        {
            assert_eq!(now.waits - before.waits, 1, "{name} {policy:?}");
        }
    });
    let (mut applied, mut skipped) = (0, 0);
    for (step, ((outcome, loss, _, scale), (theirs, wanted, _, wanted_scale))) in
        there.told.iter().zip(&here.told).enumerate()
    {
        let (loss, wanted) = (f64::from_bits(*loss), f64::from_bits(*wanted));
        assert_eq!((outcome, scale), (theirs, wanted_scale), "{name} {policy:?}, step {step}");
        let of_format = if applied > 0 { (wanted - f64::from_bits(plain.told[applied].1)).abs() } else { 0.0 };
        let near = (loss - wanted).abs() <= (allowed(&policy, applied > 0) * wanted.abs()).max(of_format);
        assert!(near, "{name} {policy:?}, step {step}: {loss}, on the CPU {wanted}");
        applied += usize::from(*outcome == StepOutcome::Applied);
        skipped += usize::from(*outcome == StepOutcome::Skipped);
    }
    assert!(applied > 0, "{name} {policy:?}: no step was applied");
    assert!(cuda.counts().fallbacks.is_empty(), "{name}: {:?}", cuda.counts().fallbacks);
    skipped
}

/// A scale that makes the first steps in f16 overflow.
const SCALE: f64 = (1 << 18) as f64;

#[test]
fn steps_of_every_model_are_those_of_the_cpu() {
    let mut skipped = 0;
    for name in ["small_cnn", "resnet", "vit", "gpt"] {
        for precision in precisions(SCALE) {
            // Two of f16 may be skipped.
            let steps = if matches!(precision.1, LossScale::Dynamic(_)) { 3 } else { 2 };
            skipped += compare(name, precision, steps);
        }
    }
    assert!(skipped >= 4, "{skipped} skipped steps");
    compare("small_unet", precisions(1024.0)[0].clone(), 2);
}

/// Minutes: `cargo test --workspace --test models cuda -- --ignored`.
#[test]
#[ignore = "minutes long"]
fn five_steps_of_every_model_in_every_precision_are_those_of_the_cpu() {
    let skipped: usize =
        NAMES.iter().flat_map(|name| precisions(SCALE).map(|precision| compare(name, precision, 5))).sum();
    assert!(skipped >= 5, "{skipped} skipped steps");
}

/// A perceptron and its loss, of operators whose bits are promised: docs/cuda.md.
fn perceptron() -> Subject {
    let layer = |inputs, outputs| Linear::new(inputs, outputs).unwrap();
    let model = Sequential::new().then(layer(12, 24)).then(Activation(Unary::Relu)).then(layer(24, 10));
    let own = model.clone();
    let values = |dims: &[usize; 2], pace: f32| {
        let x: Vec<f32> = (0..dims[0] * dims[1]).map(|i| (i as f32 * pace).sin()).collect();
        Var::from_slice(&x, dims)
    };
    let loss =
        move || Ok(own.forward(&values(&[32, 12], 0.7)?)?.mse_loss(&values(&[32, 10], 0.3)?, Reduction::Mean)?);
    Subject { model: Box::new(model), loss: Box::new(loss) }
}

/// The CPU at the level whose bits are promised.
fn avx2() -> Option<Device> {
    Some(Device::new(Cpu::with_isa(Isa::available().into_iter().find(|isa| isa.name() == "avx2")?)))
}

fn training(model: &dyn Module) -> Training {
    let rule = AdamW { lr: 1e-2, ..AdamW::default() };
    let mut training = Training::new(Optimizer::new(model, rule).unwrap(), Policy::OFF, LossScale::Off).unwrap();
    (training.clip, training.seed) = (Some(1.0), 3);
    training
}

/// Parameters and moments.
fn state(model: &dyn Module, training: &Training) -> Vec<Vec<u64>> {
    let moments = training.optimizers[0].state_dict().unwrap().tensors;
    state_dict(model).into_iter().chain(moments).map(|(_, array)| bits(&array)).collect()
}

/// Steps on each device in turn, from a checkpoint of the one before; the parameters, moments and losses in the end.
fn moved(devices: &[&Device], steps: usize) -> (Vec<Vec<u64>>, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut saved: Option<TrainingState> = None;
    let (mut last, mut losses) = (Vec::new(), Vec::new());
    for device in devices {
        scope::with_device(device, || {
            let Subject { model, loss } = scope::with_key(5, 0, perceptron);
            let mut training = training(&model);
            if let Some(saved) = saved.take() {
                let (tensors, _) = read_safetensors(&path, Class::Weights).unwrap();
                let (own, others): (Vec<_>, Vec<_>) =
                    tensors.into_iter().partition(|(name, _)| name.starts_with("model."));
                let own: Vec<_> =
                    own.into_iter().map(|(name, array)| (name["model.".len()..].to_string(), array)).collect();
                load_state_dict(&model, &own).unwrap();
                training.load(&saved.with_tensors(&others).unwrap()).unwrap();
                assert_eq!(state(&model, &training), last, "on {}", device.name());
            }
            losses.extend((0..steps).map(|_| training.step(&loss).unwrap().loss.to_bits()));
            let of_training = training.state().unwrap();
            let named = state_dict(&model).into_iter().map(|(name, array)| (format!("model.{name}"), array));
            let tensors: Vec<_> = named.chain(of_training.tensors()).collect();
            write_safetensors(&path, &tensors, HashMap::new()).unwrap();
            last = state(&model, &training);
            saved = Some(of_training);
        });
    }
    (last, losses)
}

#[test]
fn a_training_goes_on_from_the_checkpoint_of_the_other_device_with_the_same_bits() {
    let (Some(cpu), cuda) = (avx2(), Device::new(interpreted().unwrap())) else { return };
    let here = moved(&[&cpu, &cpu], 2);
    assert_eq!(moved(&[&cuda, &cpu], 2), here);
    assert_eq!(moved(&[&cpu, &cuda], 2), here);
    assert_eq!(moved(&[&cuda], 4), moved(&[&cpu], 4));
}

/// What each step of a scaler did, and the scale after it; the second is planted to overflow.
fn planted(device: &Device, policy: &Policy) -> Vec<(StepOutcome, f64)> {
    scope::with_device(device, || {
        let Subject { model, loss } = scope::with_key(5, 0, || subject("small_cnn"));
        let mut optimizer = Optimizer::new(&model, AdamW::default()).unwrap();
        let mut scaler = GradScaler::new(LossScale::dynamic()).unwrap();
        let parameters = || state_dict(&model).iter().map(|(_, array)| bits(array)).collect::<Vec<_>>();
        let mut told = Vec::new();
        for step in 0..4 {
            let loss = policy.run(&loss).unwrap();
            let loss = if step == 1 { (&loss * f64::from(f32::MAX)).unwrap() } else { loss };
            let mut gradients = scaler.scale(&loss).unwrap().backward().unwrap();
            scaler.unscale(&optimizer, &mut gradients).unwrap();
            let before = parameters();
            let outcome = scaler.step(&mut optimizer, &gradients).unwrap();
            assert_eq!(outcome == StepOutcome::Skipped, parameters() == before, "step {step}");
            scaler.update().unwrap();
            told.push((outcome, scaler.loss_scale()));
        }
        told
    })
}

#[test]
fn a_planted_overflow_is_skipped_in_the_step_in_which_the_cpu_skips_it() {
    for (policy, _) in precisions(1024.0) {
        let told = planted(&Device::new(interpreted().unwrap()), &policy);
        assert_eq!(told, planted(&Device::cpu(), &policy), "{policy:?}");
        let skipped: Vec<bool> = told.iter().map(|(outcome, _)| *outcome == StepOutcome::Skipped).collect();
        assert_eq!(skipped, [false, true, false, false], "{policy:?}");
    }
}

#[test]
fn gradients_of_several_devices_are_clipped_together() {
    let devices = [Device::cpu(), Device::new(interpreted().unwrap()), Device::new(interpreted().unwrap())];
    let params: Vec<Param> = devices
        .iter()
        .map(|device| Param::new(Array::from_slice(device, &[0.0f32; 2], &[2], Class::Weights).unwrap()))
        .collect();
    let made = |values: [[f32; 2]; 3]| {
        let mut gradients = Gradients::default();
        for ((param, device), of) in params.iter().zip(&devices).zip(values) {
            gradients.insert(param.id(), Array::from_slice(device, &of, &[2], Class::Gradients).unwrap());
        }
        gradients
    };
    let read = |gradients: &Gradients| -> Vec<Vec<f32>> {
        params.iter().map(|param| gradients.by_id(param.id()).unwrap().to_vec().unwrap()).collect()
    };
    // The norm over all is 6: 1 + 8 + 27 are 36.
    let values = [[1.0f32, 0.0], [2.0, -2.0], [-1.0, 26f32.sqrt()]];
    let mut gradients = made(values);
    let norm = clip_grad_norm(&mut gradients, 3.0).unwrap();
    assert!((norm - 6.0).abs() < 1e-6, "{norm}");
    let factor = (3.0 / (norm + 1e-6)) as f32;
    assert_eq!(read(&gradients), values.map(|of| of.map(|v| v * factor).to_vec()));
    // Below the limit nothing changes.
    let before = read(&gradients);
    clip_grad_norm(&mut gradients, 3.1).unwrap();
    assert_eq!(read(&gradients), before);
    let mut gradients = made(values);
    clip_grad_value(&mut gradients, 1.5).unwrap();
    assert_eq!(read(&gradients), values.map(|of| of.map(|v| v.clamp(-1.5, 1.5)).to_vec()));
    // What is not finite on one device shows in the norm of all, and scales all.
    let mut gradients = made([[1.0, 1.0], [1.0, f32::NAN], [1.0, 1.0]]);
    assert!(clip_grad_norm(&mut gradients, 3.0).unwrap().is_nan());
    assert!(read(&gradients).iter().flatten().all(|v| v.is_nan()));
}

#[test]
fn what_counts_and_draws_needs_no_f64() {
    /// Batches that f32 cannot count any further.
    const COUNTED: i64 = 1 << 24;
    let on = |device: &Device| {
        scope::with_device(device, || {
            let drawn = scope::with_key(3, 4, || Var::randint(-5, 1 << 40, &[50]).unwrap());
            let weights = Var::from_slice(&[0.5f32, 0.0, 2.0, 1.0], &[4]).unwrap();
            let [with, without] =
                [true, false].map(|again| scope::with_key(3, 5, || weights.multinomial(3, again).unwrap()));
            let above = drawn.compare_scalar(Compare::Gt, 2.5).unwrap().cast(DType::I64).unwrap();
            let norm = BatchNorm2d::new(2).unwrap();
            let count = Array::from_slice(device, &[COUNTED], &[], Class::Weights).unwrap();
            norm.num_batches_tracked.array().copy_from(&count).unwrap();
            let x = Var::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2, 1, 1]).unwrap();
            for _ in 0..3 {
                no_grad(|| norm.forward(&x)).unwrap();
            }
            let counted = norm.num_batches_tracked.array();
            [drawn.array(), with.array(), without.array(), above.array(), &counted].map(|a| a.to_vec::<i64>().unwrap())
        })
    };
    let there = on(&Device::new(interpreted().unwrap()));
    assert_eq!(there[4], [COUNTED + 3]);
    assert_eq!(there, on(&Device::cpu()));
}
