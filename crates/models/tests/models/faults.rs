//! An infinity planted at every operator of a training step of every model: no bit of the state changes, and the blame
//! is right.

use crate::common::{Subject, bits, subject};
use binade_amp::{Fault, Hit, LossScale, Policy, StepOutcome, Training};
use binade_autograd::scope;
use binade_cpu as _;
use binade_nn::{AdamW, Optimizer, state_dict};
use binade_tensor::DType;

/// Plants an infinity at every `stride`-th operator in turn. Returns how many spoilt the step, and how many an operator
/// after them absorbed.
fn plant_everywhere(name: &str, stride: usize) -> [usize; 2] {
    let mut counts = [0, 0];
    for at in (0..).step_by(stride) {
        let Subject { model, loss } = scope::with_key(5, 0, || subject(name));
        let optimizer = Optimizer::new(&model, AdamW::default()).unwrap();
        let mut training = Training::new(optimizer, Policy::autocast(DType::F16), LossScale::Static(8.0)).unwrap();
        training.clip = Some(1.0);
        let state = |t: &Training| -> Vec<Vec<u64>> {
            let optimizer = t.optimizers[0].state_dict().unwrap().tensors;
            state_dict(&model).iter().map(|(_, a)| bits(a)).chain(optimizer.iter().map(|(_, a)| bits(a))).collect()
        };
        let before = state(&training);
        let fault = Fault::new(at, f64::INFINITY);
        let step = fault.run(|| {
            training.step(|| {
                fault.restart();
                loss()
            })
        });
        let step = step.unwrap();
        let Some(hit) = fault.hit() else { break };
        if step.outcome == StepOutcome::Applied {
            counts[1] += 1;
            continue;
        }
        counts[0] += 1;
        assert_eq!(state(&training), before, "{name}, operator {at}: {hit:?}");
        let blame = step.blame.unwrap_or_else(|| panic!("no blame for {hit:?}"));
        assert_eq!(Hit { op: blame.op, layer: blame.layer, backward: blame.backward }, hit, "{name}, operator {at}");
    }
    counts
}

#[test]
fn small_cnn() {
    let [spoilt, absorbed] = plant_everywhere("small_cnn", 1);
    assert!(spoilt >= 40 && absorbed * 5 <= spoilt, "{spoilt} spoilt, {absorbed} absorbed");
}

#[test]
fn resnet() {
    let [spoilt, absorbed] = plant_everywhere("resnet", 1);
    assert!(spoilt >= 50 && absorbed * 4 <= spoilt, "{spoilt} spoilt, {absorbed} absorbed");
}

#[test]
fn vit() {
    let [spoilt, absorbed] = plant_everywhere("vit", 1);
    assert!(spoilt >= 60 && absorbed * 4 <= spoilt, "{spoilt} spoilt, {absorbed} absorbed");
}

#[test]
fn gpt() {
    let [spoilt, absorbed] = plant_everywhere("gpt", 1);
    assert!(spoilt >= 60 && absorbed * 4 <= spoilt, "{spoilt} spoilt, {absorbed} absorbed");
}

#[test]
fn unet() {
    let [spoilt, absorbed] = plant_everywhere("unet", 17);
    assert!(spoilt >= 20 && absorbed * 4 <= spoilt, "{spoilt} spoilt, {absorbed} absorbed");
}
