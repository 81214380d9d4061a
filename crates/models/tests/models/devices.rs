//! Whole training steps on a device that runs late behind memory the host cannot see: the same bits as where its
//! arithmetic comes from, one wait per step, and no upload but the batch.

use crate::common::{Subject, bits, subject};
use binade_amp::{Dynamic, LossScale, Policy, StepOutcome, Training};
use binade_autograd::scope;
use binade_cpu as _;
use binade_nn::{AdamW, Ema, Module, Optimizer, Schedule, state_dict};
use binade_tensor::remote::{Counts, Remote};
use binade_tensor::{DType, Device};

pub const NAMES: [&str; 5] = ["small_cnn", "resnet", "vit", "gpt", "unet"];

pub fn precisions(init_scale: f64) -> [(Policy, LossScale); 3] {
    let scale = LossScale::Dynamic(Dynamic { init_scale, ..Dynamic::default() });
    [
        (Policy::OFF, LossScale::Off),
        (Policy::autocast(DType::F16), scale),
        (Policy::autocast(DType::BF16), LossScale::Off),
    ]
}

/// What a training leaves behind: parameters and buffers, moments and masters, averages; and what its steps said.
#[derive(PartialEq)]
pub struct Trace {
    pub state: Vec<Vec<u64>>,
    pub told: Vec<(StepOutcome, u64, u64, u64)>,
}

/// Some steps on a device; `step` is called after each.
pub fn train(
    device: &Device,
    name: &str,
    (policy, scale): (Policy, LossScale),
    steps: usize,
    mut step: impl FnMut(StepOutcome),
) -> Trace {
    scope::with_device(device, || {
        let Subject { model, loss } = scope::with_key(5, 0, || subject(name));
        let rule = AdamW { lr: 1e-2, ..AdamW::default() };
        let mut training = Training::new(Optimizer::new(&model, rule).unwrap(), policy, scale).unwrap();
        training.schedule = Schedule::Cosine { warmup: 2, total: 100, floor: 0.0 };
        (training.clip, training.seed, training.ema) = (Some(1.0), 3, Some(Ema::new(&model, 0.9).unwrap()));
        let mut told = Vec::new();
        for _ in 0..steps {
            let done = training.step(&loss).unwrap();
            told.push((done.outcome, done.loss.to_bits(), done.grad_norm.to_bits(), done.loss_scale.to_bits()));
            step(done.outcome);
        }
        let moments = training.optimizers[0].state_dict().unwrap().tensors;
        let averages = training.ema.map(|ema| ema.state_dict().tensors).unwrap_or_default();
        let all = state_dict(&model).into_iter().chain(moments).chain(averages);
        Trace { state: all.map(|(_, array)| bits(&array)).collect(), told }
    })
}

#[test]
fn steps_of_every_model_have_the_bits_of_the_device_whose_arithmetic_it_is() {
    let (mut skipped, mut applied) = (0, 0);
    for name in NAMES {
        // A scale that makes the first steps overflow.
        for precision in precisions(2f64.powi(18)) {
            let here = train(&Device::cpu(), name, precision.clone(), 6, |_| {});
            let there = train(&Device::new(Remote::over(&Device::cpu())), name, precision.clone(), 6, |_| {});
            assert!(here == there, "{name} {precision:?}");
            let skips = here.told.iter().filter(|(outcome, ..)| *outcome == StepOutcome::Skipped).count();
            (skipped, applied) = (skipped + skips, applied + here.told.len() - skips);
        }
    }
    assert!(skipped > 2 && applied > 60, "{skipped} skipped steps, {applied} others");
}

#[test]
fn a_step_on_the_reference_behind_the_queue_is_the_reference_s() {
    for precision in precisions(1024.0) {
        let here = train(&Device::reference(), "gpt", precision.clone(), 1, |_| {});
        assert!(train(&Device::new(Remote::new()), "gpt", precision.clone(), 1, |_| {}) == here, "{precision:?}");
    }
}

#[test]
fn a_step_waits_once_and_uploads_its_batch_alone() {
    for name in NAMES {
        let batch = if name == "unet" { 3 } else { 2 };
        for precision in precisions(1024.0) {
            let remote = Remote::over(&Device::cpu());
            let (mut before, mut steps) = (None::<(Counts, StepOutcome)>, 0);
            train(&Device::new(remote.clone()), name, precision.clone(), 6, |outcome| {
                let now = remote.counts();
                // The first step makes what stays; after a skipped one the operator at fault is looked for.
                if let Some((before, StepOutcome::Applied)) = before
                    && outcome == StepOutcome::Applied
                {
                    let Counts { synchronisations, uploads, downloads, .. } = now - before;
                    let found = (synchronisations, downloads, uploads);
                    assert_eq!(found, (1, 1, batch), "{name} {precision:?}");
                    steps += 1;
                }
                before = Some((now, outcome));
            });
            assert!(steps > 0, "{name} {precision:?}");
        }
    }
}

#[test]
fn a_group_of_parts_waits_once() {
    let remote = Remote::over(&Device::cpu());
    scope::with_device(&Device::new(remote.clone()), || {
        let Subject { model, loss } = scope::with_key(5, 0, || subject("gpt"));
        let scale = LossScale::Dynamic(Dynamic { init_scale: 1024.0, ..Dynamic::default() });
        let optimizer = Optimizer::new(&model, AdamW::default()).unwrap();
        let mut training = Training::new(optimizer, Policy::autocast(DType::F16), scale).unwrap();
        training.clip = Some(1.0);
        let mut step = || {
            let before = remote.counts();
            let step = training.step_over(&[1.0, 2.0, 1.0], |&count| -> binade_amp::Result<_> { Ok((loss()?, count)) });
            assert_eq!(step.unwrap().outcome, StepOutcome::Applied);
            remote.counts() - before
        };
        // The first makes what stays.
        step();
        let Counts { synchronisations, downloads, uploads, .. } = step();
        assert_eq!((synchronisations, downloads), (1, 1));
        // A batch of each part.
        assert_eq!(uploads, 3 * 2);
    });
}

#[test]
fn a_model_moves_with_all_that_trains_it() {
    // Two steps here, two there, two here again, as six here.
    let trace = |devices: [Device; 3]| {
        let Subject { model, loss } = scope::with_key(5, 0, || subject("resnet"));
        let optimizer = Optimizer::new(&model, AdamW::default()).unwrap();
        let mut training = Training::new(optimizer, Policy::autocast(DType::BF16), LossScale::Off).unwrap();
        (training.seed, training.ema) = (3, Some(Ema::new(&model, 0.9).unwrap()));
        for device in devices {
            model.to(&device).unwrap();
            scope::with_device(&device, || {
                (0..2).for_each(|_| assert_eq!(training.step(&loss).unwrap().outcome, StepOutcome::Applied));
            });
        }
        let moments = training.optimizers[0].state_dict().unwrap().tensors;
        let averages = training.ema.map(|ema| ema.state_dict().tensors).unwrap_or_default();
        let all = state_dict(&model).into_iter().chain(moments).chain(averages);
        all.map(|(_, array)| bits(&array)).collect::<Vec<_>>()
    };
    let (cpu, there) = (Device::cpu(), Device::new(Remote::over(&Device::cpu())));
    assert!(trace([cpu.clone(), there, cpu.clone()]) == trace([cpu.clone(), cpu.clone(), cpu]));
}
