//! An infinity planted at every operator of a training step of every model: no bit of the state changes, and the blame is right.

use binade_amp::{Fault, Hit, LossScale, Policy, Result, StepOutcome, Training};
use binade_autograd::{Var, scope};
use binade_models::{SmallCnn, SmallCnnConfig};
use binade_nn::{AdamW, Layer, Module, Optimizer, state_dict};
use binade_tensor::op::CrossEntropy;
use binade_tensor::{Array, Class, DType, Device};

fn bits(a: &Array) -> Vec<u64> {
    a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect()
}

/// Plants an infinity at each operator in turn. Returns how many spoilt the step, and how many an operator after them absorbed.
fn plant_everywhere<M: Module>(build: impl Fn() -> M, loss: impl Fn(&M) -> Result<Var>) -> [usize; 2] {
    let mut counts = [0, 0];
    for at in 0.. {
        let model = scope::with_key(5, 0, &build);
        let optimizer = Optimizer::new(&model, AdamW::default());
        let mut training = Training::new(optimizer, Policy::autocast(DType::F16), LossScale::Static(8.0)).unwrap();
        training.clip = Some(1.0);
        let state = |t: &Training| -> Vec<Vec<u64>> {
            let optimizer = t.optimizer.state_dict();
            state_dict(&model).iter().map(|(_, a)| bits(a)).chain(optimizer.iter().map(|(_, a, _)| bits(a))).collect()
        };
        let before = state(&training);
        let fault = Fault::new(at, f64::INFINITY);
        let step = fault.run(|| {
            training.step(|| {
                fault.restart();
                loss(&model)
            })
        });
        let step = step.unwrap();
        let Some(hit) = fault.hit() else { break };
        if step.outcome == StepOutcome::Applied {
            counts[1] += 1;
            continue;
        }
        counts[0] += 1;
        assert_eq!(state(&training), before, "operator {at}: {hit:?}");
        let blame = step.blame.unwrap_or_else(|| panic!("no blame for {hit:?}"));
        assert_eq!(Hit { op: blame.op, layer: blame.layer, backward: blame.backward }, hit, "operator {at}");
    }
    counts
}

fn image(n: usize, size: usize) -> Result<Var> {
    let x: Vec<f32> = (0..n * size * size).map(|i| (i as f32 * 0.7).sin()).collect();
    Ok(Var::constant(Array::from_slice(&Device::cpu(), &x, &[n, 1, size, size], Class::Activations)?))
}

#[test]
fn small_cnn() {
    let config = SmallCnnConfig { channels: [4, 4, 6, 6], fc: 8, classes: 3, ..SmallCnnConfig::default() };
    let [spoilt, absorbed] = plant_everywhere(
        || SmallCnn::new(&config).unwrap(),
        |model| {
            let target = Var::constant(Array::from_slice(&Device::cpu(), &[0i64, 2], &[2], Class::Indices)?);
            Ok(model.forward(&image(2, 8)?)?.cross_entropy(&target, CrossEntropy::default())?)
        },
    );
    assert!(spoilt >= 40 && absorbed * 5 <= spoilt, "{spoilt} spoilt, {absorbed} absorbed");
}
