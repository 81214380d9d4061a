//! The scaler and the typed step where they do little: without scaling, at limits, at clipping to nothing.

use std::slice::from_mut;

use binade_amp::{Error, GradScaler, LossScale, Policy, Result, StepOutcome, Training};
use binade_autograd::{Gradients, Var};
use binade_cpu as _;
use binade_nn::{Ema, Optimizer, Param, Sgd};
use binade_tensor::{Array, Class, Device};

fn param(value: f32) -> Param {
    Param::new(Array::from_slice(&Device::cpu(), &[value], &[1], Class::Weights).unwrap())
}

fn value(param: &Param) -> f64 {
    param.array().item().unwrap()
}

fn optimizer(param: &Param) -> Optimizer {
    let rule = Sgd { lr: 1.0, ..Sgd::default() };
    Optimizer::empty().with_group(vec![("w".into(), param.clone())], rule).unwrap()
}

fn gradient(param: &Param, value: f32) -> Gradients {
    let mut grads = Gradients::default();
    grads.insert(param.id(), Array::from_slice(&Device::cpu(), &[value], &[1], Class::Gradients).unwrap());
    grads
}

#[test]
fn without_scaling_an_optimiser_may_step_more_than_once_between_updates() {
    let (p, mut scaler) = (param(0.0), GradScaler::new(LossScale::Off).unwrap());
    let mut o = optimizer(&p);
    for grads in [gradient(&p, 1.0), gradient(&p, f32::NAN), gradient(&p, 2.0)] {
        let outcome = scaler.step(&mut o, &grads).unwrap();
        let finite = grads.by_id(p.id()).unwrap().item().unwrap().is_finite();
        assert_eq!(outcome == StepOutcome::Applied, finite);
    }
    assert_eq!(value(&p), -3.0);
    // One bad step among them makes the iteration a bad one.
    scaler.update().unwrap();
    assert_eq!(scaler.state().unwrap().in_vain, 1);
}

#[test]
fn without_scaling_skipped_steps_are_counted_on_after_a_resume() {
    let p = param(0.0);
    let (mut o, bad) = (optimizer(&p), gradient(&p, f32::NAN));
    let off = || GradScaler::new(LossScale::Off).unwrap().with_patience(3);
    let mut scaler = off();
    for _ in 0..3 {
        let state = scaler.state().unwrap();
        scaler = off();
        scaler.load_state(state).unwrap();
        let _ = scaler.step(&mut o, &bad).unwrap();
        scaler.update().unwrap();
    }
    let _ = scaler.step(&mut o, &bad).unwrap();
    assert!(matches!(scaler.update(), Err(Error::Stalled { steps: 4, .. })));
}

#[test]
fn a_scale_under_apex_grows_to_two_to_the_24_and_no_further() {
    let apex = LossScale::apex();
    let mut state = apex.start().unwrap();
    (0..2000 * 12).for_each(|_| state = apex.next(state, false));
    assert_eq!(state.scale, 2f32.powi(24));
}

#[test]
fn the_typed_step_clips_by_value_in_the_units_of_the_loss() {
    let (p, mut scaler) = (param(0.0), GradScaler::new(LossScale::Static(1024.0)).unwrap());
    let mut o = optimizer(&p);
    let loss = (&p.var().sum(&[], false).unwrap() * 3.0).unwrap();
    let mut grads = scaler.backward(&loss).unwrap().unscale(&mut scaler, &o).unwrap();
    assert_eq!(grads.by_id(p.id()).unwrap().unwrap().item().unwrap(), 3.0);
    grads.clip_value(0.5).unwrap();
    assert_eq!(grads.by_id(p.id()).unwrap().unwrap().item().unwrap(), 0.5);
    assert_eq!(grads.step(&mut scaler, &mut o).unwrap(), StepOutcome::Applied);
    assert_eq!(value(&p), -0.5);
}

#[test]
fn clipping_to_a_norm_of_zero_moves_nothing_and_is_no_error() {
    let p = param(2.0);
    let mut training = Training::new(optimizer(&p), Policy::OFF, LossScale::Off).unwrap();
    training.clip = Some(0.0);
    let step = training.step(|| -> Result<Var> { Ok(p.var().square()?.sum(&[], false)?) }).unwrap();
    assert_eq!((step.outcome, step.grad_norm, value(&p)), (StepOutcome::Applied, 4.0, 2.0));
}

#[test]
fn a_typed_step_without_scaling_may_be_made_again_before_the_update() {
    let (p, mut scaler) = (param(0.0), GradScaler::new(LossScale::Off).unwrap());
    let mut o = optimizer(&p);
    for _ in 0..2 {
        let grads = scaler.backward(&p.var().sum(&[], false).unwrap()).unwrap();
        let grads = grads.unscale(&mut scaler, &o).unwrap();
        assert_eq!(grads.apply(&mut scaler, from_mut(&mut o)).unwrap(), StepOutcome::Applied);
    }
    assert_eq!(value(&p), -2.0);
}

#[test]
fn scaling_that_is_switched_off_in_the_middle_of_a_step_keeps_no_order_of_calls() {
    let (p, mut scaler) = (param(0.0), GradScaler::new(LossScale::Static(8.0)).unwrap());
    let mut o = optimizer(&p);
    scaler.unscale(&o, &mut gradient(&p, 8.0)).unwrap();
    scaler.set_config(LossScale::Off).unwrap();
    let grads = scaler.backward(&p.var().sum(&[], false).unwrap()).unwrap();
    let outcome = grads.unscale(&mut scaler, &o).unwrap().step(&mut scaler, &mut o).unwrap();
    assert_eq!((outcome, value(&p)), (StepOutcome::Applied, -1.0));
}

#[test]
fn a_step_that_was_applied_is_a_good_one_whatever_its_loss() {
    let (p, mut scaler) = (param(0.0), GradScaler::new(LossScale::dynamic()).unwrap());
    let mut o = optimizer(&p);
    let (nan, first) = (Var::from_slice(&[f32::NAN], &[1]).unwrap(), scaler.loss_scale());
    let _ = scaler.scale(&nan).unwrap();
    assert_eq!(scaler.step(&mut o, &gradient(&p, 1.0)).unwrap(), StepOutcome::Applied);
    scaler.update().unwrap();
    let state = scaler.state().unwrap();
    assert_eq!((state.scale as f64, state.growth_tracker, state.in_vain), (first, 1, 0));
}

#[test]
fn a_norm_is_that_of_what_was_clipped_or_divided() {
    let (p, mut scaler) = (param(0.0), GradScaler::new(LossScale::Off).unwrap());
    let o = optimizer(&p);
    let loss = (&p.var().sum(&[], false).unwrap() * 8.0).unwrap();
    let mut grads = scaler.backward(&loss).unwrap().unscale(&mut scaler, &o).unwrap();
    grads.divide(2.0).unwrap();
    assert_eq!(grads.norm(), 4.0);
    for bad in [0.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        let error = grads.divide(bad).unwrap_err();
        assert!(matches!(error, Error::Setting { what: "divisor of gradients", .. }), "{bad}: {error}");
    }
    assert_eq!(grads.norm(), 4.0);
    assert_eq!(grads.clip_norm(0.5).unwrap(), 4.0);
    assert!((grads.norm() - 0.5).abs() < 1e-6, "{}", grads.norm());
}

#[test]
fn a_skipped_step_asks_for_no_averages() {
    let p = param(1.0);
    let mut training = Training::new(optimizer(&p), Policy::OFF, LossScale::Off).unwrap();
    training.ema = Some(Ema::new(&p, 0.5).unwrap());
    // In the place of the parameters they cannot follow them.
    training.ema.as_mut().unwrap().swap().unwrap();
    let step = training.step(|| -> Result<Var> { Ok((&p.var().sum(&[], false)? * f64::INFINITY)?) }).unwrap();
    assert_eq!((step.outcome, value(&p)), (StepOutcome::Skipped, 1.0));
}
