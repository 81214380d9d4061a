//! Anomalies: a step that fails at the first operator whose result is not finite.

use binade_amp::{Dynamic, Error, Fault, LossScale, Policy, Result, StepOutcome, Training};
use binade_autograd::Var;
use binade_cpu as _;
use binade_nn::{Optimizer, Param, Sgd};
use binade_tensor::{Array, Class, Device};

use crate::net::{Net, state, training};

fn constant(values: &[f32]) -> Var {
    Var::constant(Array::from_slice(&Device::cpu(), values, &[values.len()], Class::Activations).unwrap())
}

/// Plants NaN into each operator in turn: how many were named, and how many did no harm.
fn planted(scale: LossScale) -> [usize; 2] {
    let [mut named, mut harmless] = [0; 2];
    for at in 0.. {
        let (net, fault) = (Net::new(), Fault::new(at, f64::NAN));
        let mut training = training(&net, scale);
        (training.detect_anomaly, training.blame) = (true, false);
        let before = state(&net, &training);
        let result = fault.run(|| {
            training.step(|| {
                fault.restart();
                net.loss()
            })
        });
        let Some(hit) = fault.hit() else { break };
        match result {
            Err(Error::Anomaly { part: 0, blame }) => {
                let found = (blame.op.clone(), blame.layer.clone(), blame.backward);
                assert_eq!(found, (hit.op, hit.layer, hit.backward), "{scale:?}, operator {at}");
                assert_eq!((state(&net, &training), training.iteration), (before, 0), "{scale:?}, operator {at}");
                named += 1;
            }
            Ok(step) => {
                assert_eq!(step.outcome, StepOutcome::Applied, "{scale:?}, operator {at}: {hit:?} was not told");
                harmless += 1;
            }
            Err(error) => panic!("{scale:?}, operator {at}: {error}"),
        }
    }
    [named, harmless]
}

#[test]
fn the_first_result_that_is_not_finite_is_named_forward_and_backward_and_nothing_is_changed() {
    for scale in [LossScale::Off, LossScale::Static(8.0)] {
        let [named, harmless] = planted(scale);
        assert!(named >= 15 && harmless <= named / 4, "{scale:?}: {named} named, {harmless} harmless");
    }
}

/// A product with a weight of 1, whose gradient is `x`.
fn trained(scale: LossScale) -> (Param, Training) {
    let weight = Param::new(Array::from_slice(&Device::cpu(), &[1.0f32, 1.0], &[2], Class::Weights).unwrap());
    let mut training = Training::new(Optimizer::new(&weight, Sgd::default()).unwrap(), Policy::OFF, scale).unwrap();
    training.detect_anomaly = true;
    (weight, training)
}

#[test]
fn what_a_lower_scale_mends_or_an_operator_absorbs_is_no_anomaly() {
    let scale = LossScale::Dynamic(Dynamic { init_scale: 2f64.powi(127), ..Dynamic::default() });
    let (weight, mut training) = trained(scale);
    let loss = || -> Result<Var> { Ok(weight.var().mul(&constant(&[4.0, 2.0]))?.sum(&[], false)?) };
    assert_eq!(training.step(loss).unwrap().outcome, StepOutcome::Skipped);

    let (weight, mut training) = trained(LossScale::Off);
    let masked = || -> Result<Var> {
        let scores = weight.var().add(&constant(&[0.0, f32::NEG_INFINITY]))?;
        Ok(scores.softmax(0)?.sum(&[], false)?)
    };
    assert_eq!(training.step(masked).unwrap().outcome, StepOutcome::Applied);
}

#[test]
fn a_result_that_no_gradient_shows_is_an_anomaly_too_and_its_part_is_named() {
    let (weight, mut training) = trained(LossScale::Off);
    // The second part's loss is infinite by a constant, and its gradient is 1.
    let parts = [0.0, f32::INFINITY];
    let loss = |&more: &f32| -> Result<(Var, f64)> {
        Ok((weight.var().sum(&[], false)?.add(&constant(&[more]).sum(&[], false)?)?, 1.0))
    };
    let error = training.step_over(&parts, loss).unwrap_err();
    let Error::Anomaly { part: 1, blame } = &error else { panic!("{error}") };
    assert!(!blame.backward && error.to_string().starts_with("part 1 of a step"), "{error}");
    training.detect_anomaly = false;
    assert_eq!(training.step_over(&parts, loss).unwrap().outcome, StepOutcome::Applied);
}
