//! Steps of several scalers, optimisers and networks: each gradient in its own units, each change with its own step.

use binade_amp::{Error, GradScaler, LossScale, Policy, Result, StepOutcome, Training};
use binade_autograd::{Gradients, Var, scope};
use binade_cpu as _;
use binade_nn::{BatchNorm2d, Layer, Linear, Module, Optimizer, Param, Sgd, Visitor};
use binade_tensor::{Array, Class};

fn param(value: f32) -> Param {
    Param::new(Array::from_slice(&scope::device().unwrap(), &[value], &[1], Class::Weights).unwrap())
}

fn value(param: &Param) -> f64 {
    param.array().item().unwrap()
}

fn sgd() -> Sgd {
    Sgd { lr: 1.0, ..Sgd::default() }
}

fn optimizer(params: &[&Param]) -> Optimizer {
    let named = params.iter().enumerate().map(|(i, p)| (i.to_string(), (*p).clone())).collect();
    Optimizer::empty().with_group(named, sgd()).unwrap()
}

fn scaler(scale: f64) -> GradScaler {
    GradScaler::new(LossScale::Static(scale)).unwrap()
}

/// A loss whose gradients are 1 by every parameter.
fn loss(params: &[&Param]) -> Var {
    let sum = params[1..].iter().fold(params[0].var(), |sum, p| sum.add(&p.var()).unwrap());
    sum.sum(&[], false).unwrap()
}

fn scaled(scaler: &mut GradScaler, params: &[&Param]) -> Gradients {
    scaler.scale(&loss(params)).unwrap().backward().unwrap()
}

fn batch() -> Var {
    let values: Vec<f32> = (0..8).map(|i| i as f32).collect();
    Var::constant(Array::from_slice(&scope::device().unwrap(), &values, &[8, 1, 1, 1], Class::Activations).unwrap())
}

fn tracked(norm: &BatchNorm2d) -> f64 {
    norm.num_batches_tracked.array().item().unwrap()
}

// ---- units

#[test]
fn gradients_are_divided_by_the_scale_they_carry_whoever_divides() {
    for other in [scaler(2.0), GradScaler::new(LossScale::Off).unwrap()] {
        for unscale in [false, true] {
            let (p, mut s) = (param(1.0), other.clone());
            let mut o = optimizer(&[&p]);
            let mut grads = scaled(&mut scaler(256.0), &[&p]);
            if unscale {
                s.unscale(&o, &mut grads).unwrap();
                assert_eq!(grads.by_id(p.id()).unwrap().item().unwrap(), 1.0);
            }
            assert_eq!(s.step(&mut o, &grads).unwrap(), StepOutcome::Applied);
            assert_eq!(value(&p), 0.0);
        }
    }
}

#[test]
fn a_scale_that_changed_after_backward_does_not_matter() {
    let (p, mut s) = (param(1.0), scaler(256.0));
    let mut o = optimizer(&[&p]);
    let mut grads = s.backward(&loss(&[&p])).unwrap();
    s.set_scale(64.0).unwrap();
    grads.add(s.backward(&loss(&[&p])).unwrap()).unwrap();
    let mut unscaled = grads.unscale(&mut s, &o).unwrap();
    assert_eq!(unscaled.clip_norm(8.0).unwrap(), 2.0);
    assert_eq!(unscaled.step(&mut s, &mut o).unwrap(), StepOutcome::Applied);
    assert_eq!(value(&p), -1.0);
}

#[test]
fn a_parameter_of_two_optimisers_is_divided_once() {
    for unscale in [false, true] {
        let (shared, a, b, mut s) = (param(0.0), param(0.0), param(0.0), scaler(256.0));
        let (mut oa, mut ob) = (optimizer(&[&a, &shared]), optimizer(&[&b, &shared]));
        let mut grads = scaled(&mut s, &[&a, &b, &shared]);
        s.unscale(&oa, &mut grads).unwrap();
        if unscale {
            s.unscale(&ob, &mut grads).unwrap();
        }
        let _ = (s.step(&mut oa, &grads).unwrap(), s.step(&mut ob, &grads).unwrap());
        assert_eq!([&a, &b, &shared].map(value), [-1.0, -1.0, -2.0]);
    }
}

#[test]
fn an_infinity_that_two_optimisers_share_skips_both() {
    let (shared, a, b, mut s) = (param(0.0), param(0.0), param(0.0), scaler(256.0));
    let (mut oa, mut ob) = (optimizer(&[&a, &shared]), optimizer(&[&b, &shared]));
    let mut grads = scaled(&mut s, &[&a, &b, &shared]);
    grads.insert(shared.id(), param(f32::INFINITY).array().clone());
    s.unscale(&oa, &mut grads).unwrap();
    s.unscale(&ob, &mut grads).unwrap();
    assert_eq!(
        (s.step(&mut oa, &grads).unwrap(), s.step(&mut ob, &grads).unwrap()),
        (StepOutcome::Skipped, StepOutcome::Skipped)
    );
}

#[test]
fn the_typed_step_clips_and_takes_the_optimisers_own() {
    let (g, d, mut s) = (param(1.0), param(1.0), GradScaler::new(LossScale::dynamic()).unwrap());
    let (mut og, mut od) = (optimizer(&[&g]), optimizer(&[&d]));
    let mut grads = s.backward(&loss(&[&g, &d])).unwrap();
    let mut of_d = grads.take(&od).unscale(&mut s, &od).unwrap();
    let mut of_g = grads.unscale(&mut s, &og).unwrap();
    assert_eq!((of_g.clip_norm(4.0).unwrap(), of_d.clip_norm(0.5).unwrap()), (1.0, 1.0));
    assert!(of_g.by_id(d.id()).unwrap().is_none() && of_g.unclaimed().is_empty());
    assert_eq!(of_g.step(&mut s, &mut og).unwrap(), StepOutcome::Applied);
    assert_eq!(of_d.step(&mut s, &mut od).unwrap(), StepOutcome::Applied);
    assert_eq!(value(&g), 0.0);
    assert!((value(&d) - 0.5).abs() < 1e-6);
}

#[test]
fn a_foreign_gradient_takes_no_part_in_clipping() {
    // f02: both gradients are 0.5.
    let (g, d, mut s) = (param(1.0), param(1.0), GradScaler::new(LossScale::dynamic()).unwrap());
    let mut o = optimizer(&[&g]);
    let loss = (&g.var().mul(&d.var()).unwrap().sum(&[], false).unwrap() * 0.5).unwrap();
    let mut grads = s.backward(&loss).unwrap().unscale(&mut s, &o).unwrap();
    assert_eq!(grads.clip_norm(1.0).unwrap(), 0.5);
    assert_eq!(grads.unclaimed(), ["a parameter without a name [1]"]);
    let _ = grads.step(&mut s, &mut o).unwrap();
    assert_eq!(value(&g), 0.5);
}

#[test]
fn accumulated_typed_gradients_are_the_sum() {
    let (p, mut s) = (param(0.0), scaler(8.0));
    let mut o = optimizer(&[&p]);
    let mut grads = s.backward(&loss(&[&p])).unwrap();
    grads.add(s.backward(&loss(&[&p])).unwrap()).unwrap();
    let _ = grads.unscale(&mut s, &o).unwrap().step(&mut s, &mut o).unwrap();
    assert_eq!(value(&p), -2.0);
}

#[test]
fn the_typed_step_adapts_the_scale() {
    let (p, mut s) = (param(0.0), GradScaler::new(LossScale::dynamic()).unwrap());
    let mut o = optimizer(&[&p]);
    // Finite itself, but not its gradient times the scale.
    let bad = (&loss(&[&p]) * 1e35).unwrap();
    let grads = s.backward(&bad).unwrap().unscale(&mut s, &o).unwrap();
    assert_eq!(grads.step(&mut s, &mut o).unwrap(), StepOutcome::Skipped);
    assert_eq!((s.loss_scale(), s.state().unwrap().growth_tracker), (32768.0, 0));
    let grads = s.backward(&loss(&[&p])).unwrap().unscale(&mut s, &o).unwrap();
    assert_eq!(grads.step(&mut s, &mut o).unwrap(), StepOutcome::Applied);
    assert_eq!(s.state().unwrap().growth_tracker, 1);
}

#[test]
fn gradients_that_were_never_scaled_are_not_divided() {
    let (p, mut s) = (param(1.0), scaler(65536.0));
    let mut o = optimizer(&[&p]);
    let grads = loss(&[&p]).backward().unwrap();
    assert_eq!(s.step(&mut o, &grads).unwrap(), StepOutcome::Applied);
    assert_eq!(value(&p), 0.0);
}

// ---- deferred changes

/// Gradients of the sum of squares of what batch norm returns, infinite if asked.
fn through(norm: &BatchNorm2d, bad: bool) -> Gradients {
    let loss = norm.forward(&batch()).unwrap().square().unwrap().sum(&[], false).unwrap();
    (&loss * if bad { f64::INFINITY } else { 1.0 }).unwrap().backward().unwrap()
}

#[test]
fn statistics_follow_the_outcome_of_their_own_step() {
    for bad_first in [true, false] {
        for together in [true, false] {
            let (a, b) = (BatchNorm2d::new(1).unwrap(), BatchNorm2d::new(1).unwrap());
            let (mut oa, mut ob, mut s) =
                (Optimizer::new(&a, sgd()).unwrap(), Optimizer::new(&b, sgd()).unwrap(), scaler(1.0));
            let (mut ga, mut gb) = (through(&a, bad_first), through(&b, !bad_first));
            if together {
                ga.add(gb).unwrap();
                gb = ga.clone();
            }
            let outcomes = [s.step(&mut oa, &ga).unwrap(), s.step(&mut ob, &gb).unwrap()];
            let applied = outcomes.map(|o| (o == StepOutcome::Applied) as u8 as f64);
            assert_eq!(applied, [!bad_first, bad_first].map(|good| good as u8 as f64));
            assert_eq!([tracked(&a), tracked(&b)], applied, "{bad_first} {together}");
            // A skipped change is dropped: the same gradients do not bring it back.
            s.update().unwrap();
            let _ = oa.step(&ga).unwrap();
            let _ = ob.step(&gb).unwrap();
            assert_eq!([tracked(&a), tracked(&b)], applied);
        }
    }
}

#[derive(Clone, Module)]
struct Net {
    norm: BatchNorm2d,
    head: Linear,
}

impl Net {
    fn new() -> Net {
        Net { norm: BatchNorm2d::new(1).unwrap(), head: Linear::new(1, 1).unwrap() }
    }

    fn loss(&self, factor: f64) -> Result<Var> {
        let h = self.norm.forward(&batch())?.flatten(1)?;
        Ok((&self.head.forward(&h)?.square()?.sum(&[], false)? * factor)?)
    }
}

fn training(net: &Net) -> Training {
    Training::new(Optimizer::new(net, Sgd { lr: 1e-3, ..Sgd::default() }).unwrap(), Policy::OFF, LossScale::Static(4.0))
        .unwrap()
}

#[test]
fn frozen_statistics_follow_the_whole_step_too() {
    let net = Net::new();
    net.norm.parameters().iter().for_each(|p| p.set_trainable(false));
    let mut t = training(&net);
    assert_eq!(t.step(|| net.loss(f64::INFINITY)).unwrap().outcome, StepOutcome::Skipped);
    assert_eq!(tracked(&net.norm), 0.0);
    assert_eq!(t.step(|| net.loss(1.0)).unwrap().outcome, StepOutcome::Applied);
    assert_eq!(tracked(&net.norm), 1.0);
}

#[test]
fn statistics_of_a_step_that_failed_are_gone() {
    for frozen in [false, true] {
        let net = Net::new();
        net.norm.parameters().iter().for_each(|p| p.set_trainable(!frozen));
        let mut t = training(&net);
        let error = t.step(|| -> Result<Var> {
            net.loss(1.0)?;
            Err(Error::Policy("no".into()))
        });
        assert!(error.is_err());
        let _ = t.step(|| net.loss(1.0)).unwrap();
        assert_eq!(tracked(&net.norm), 1.0, "frozen: {frozen}");
    }
}

// ---- owners

#[test]
fn a_step_names_the_parameters_that_no_optimiser_has_and_trains_those_unfrozen_later() {
    let net = Net::new();
    net.norm.parameters().iter().for_each(|p| p.set_trainable(false));
    let mut t = training(&net);
    net.norm.parameters().iter().for_each(|p| p.set_trainable(true));
    let extra = param(2.0);
    let before = value(&net.norm.bias);
    let step = t.step(|| -> Result<Var> { Ok(net.loss(1.0)?.mul(&extra.var())?.sum(&[], false)?) }).unwrap();
    assert_eq!(step.unclaimed, ["a parameter without a name [1]"]);
    assert_ne!(value(&net.norm.bias), before);
    let other = optimizer(&[&extra]);
    let step = t.step(|| -> Result<Var> { Ok(net.loss(1.0)?.mul(&extra.var())?.sum(&[], false)?) }).unwrap();
    assert!(step.unclaimed.is_empty());
    drop(other);
}

#[test]
fn a_loss_of_frozen_parameters_alone_is_an_error() {
    let net = Net::new();
    let mut t = training(&net);
    net.parameters().iter().for_each(|p| p.set_trainable(false));
    assert!(t.step(|| net.loss(1.0)).is_err());
}
