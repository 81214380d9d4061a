//! What a step changes, whose it is, and what it says of gradients that are nobody's.

use binade_cpu as _;
use std::collections::HashSet;

use binade_autograd::{Gradients, Var, no_grad, scope};
use binade_nn::{
    AdamW, BatchNorm2d, Error, Layer, Linear, Module, Optimizer, Param, Sgd, Visitor, clip_grad_norm, clip_grad_value,
    grad_norm, unscale,
};
use binade_tensor::{Array, Class, DType};

fn array(values: &[f32]) -> Array {
    Array::from_slice(&scope::device().unwrap(), values, &[values.len()], Class::Weights).unwrap()
}

fn param(value: f32) -> Param {
    Param::new(array(&[value]))
}

fn value(param: &Param) -> f64 {
    param.array().item().unwrap()
}

fn sgd(lr: f64) -> Sgd {
    Sgd { lr, ..Sgd::default() }
}

fn named(params: &[(&str, &Param)]) -> Vec<(String, Param)> {
    params.iter().map(|(name, p)| (name.to_string(), (*p).clone())).collect()
}

/// Gradients 1 of a sum of parameters, times `scale`.
fn ones(params: &[&Param], scale: f64) -> Gradients {
    let sum = params[1..].iter().fold(params[0].var(), |sum, p| sum.add(&p.var()).unwrap());
    sum.sum(&[], false).unwrap().scaled(scale).unwrap().backward().unwrap()
}

fn tracked(norm: &BatchNorm2d) -> f64 {
    norm.num_batches_tracked.array().item().unwrap()
}

fn batch() -> Var {
    Var::constant(
        Array::from_slice(&scope::device().unwrap(), &[1.0f32, 3.0], &[2, 1, 1, 1], Class::Activations).unwrap(),
    )
}

fn loss(norm: &BatchNorm2d) -> Var {
    norm.forward(&batch()).unwrap().square().unwrap().sum(&[], false).unwrap()
}

// ---- groups

#[test]
fn a_parameter_is_in_one_group_once() {
    let w = param(1.0);
    let twice = Optimizer::empty().with_group(named(&[("wte", &w), ("head", &w)]), sgd(1.0));
    assert!(matches!(twice, Err(Error::Twice { name, other }) if name == "head" && other == "wte"));
    let first = Optimizer::empty().with_group(named(&[("wte", &w)]), sgd(1.0)).unwrap();
    assert!(matches!(first.with_group(named(&[("head", &w)]), AdamW::default()), Err(Error::Twice { .. })));
}

#[test]
fn every_group_has_its_own_learning_rate() {
    let (a, b) = (param(0.0), param(0.0));
    let o = Optimizer::empty().with_group(named(&[("a", &a)]), sgd(1.0)).unwrap();
    let mut o = o.with_group(named(&[("b", &b)]), sgd(0.25)).unwrap();
    o.set_lr_factor(0.5).unwrap();
    let _ = o.step(&ones(&[&a, &b], 1.0)).unwrap();
    assert_eq!((value(&a), value(&b)), (-0.5, -0.125));
}

#[test]
fn a_parameter_unfrozen_later_trains_and_one_frozen_later_does_not() {
    let layer = Linear::new(1, 1).unwrap();
    let bias = layer.bias.clone().unwrap();
    let both = [&layer.weight, &bias];
    layer.weight.set_trainable(false);
    assert!(!layer.weight.var().requires_grad());
    let mut o = Optimizer::new(&layer, sgd(1.0)).unwrap();
    let before = both.map(value);
    layer.weight.set_trainable(true);
    let _ = o.step(&ones(&both, 1.0)).unwrap();
    assert_eq!(both.map(value), before.map(|v| (v as f32 - 1.0) as f64));
    let grads = ones(&both, 1.0);
    bias.set_trainable(false);
    let _ = o.step(&grads).unwrap();
    assert_eq!(
        [value(&bias), value(&layer.weight)],
        [(before[1] as f32 - 1.0) as f64, (before[0] as f32 - 1.0 - 1.0) as f64]
    );
    assert_eq!(o.steps(), [("weight".to_string(), 2), ("bias".to_string(), 1)]);
}

// ---- errors

#[test]
fn a_step_that_fails_changes_no_weight_no_state_and_no_count() {
    let (a, b, norm) = (param(1.0), param(1.0), BatchNorm2d::new(1).unwrap());
    let bad: [fn() -> Array; 3] = [
        || array(&[1.0, 2.0]),
        || array(&[1.0]).cast(DType::F64, Class::Gradients).unwrap(),
        || Array::from_slice(&scope::device().unwrap(), &[1i64], &[1], Class::Gradients).unwrap(),
    ];
    let mut o = Optimizer::empty().with_group(named(&[("a", &a)]), AdamW::default()).unwrap();
    o = o.with_group(named(&[("b", &b)]), AdamW::default()).unwrap();
    o = o.with_group(norm.named_parameters(), sgd(1.0)).unwrap();
    let mut grads = ones(&[&a, &b], 1.0);
    grads.add(loss(&norm).backward().unwrap()).unwrap();
    for bad in bad {
        let mut spoilt = grads.clone();
        spoilt.insert(b.id(), bad());
        assert!(o.step(&spoilt).is_err());
        assert_eq!((value(&a), value(&b), value(&norm.weight), tracked(&norm)), (1.0, 1.0, 1.0, 0.0));
        assert!(o.steps().is_empty() && o.state_dict().unwrap().tensors.is_empty());
    }
    // The weight of b as its own gradient: it cannot be read while it is written.
    let mut own = grads.clone();
    own.insert(b.id(), b.array().clone());
    assert!(o.step(&own).is_err());
    let versions = [&a, &b].map(|p| p.array().storage().version());
    assert!(o.step(&own).is_err());
    assert_eq!([&a, &b].map(|p| p.array().storage().version()), versions, "no write, no new version");
    let _ = o.step(&grads).unwrap();
    assert_eq!((o.steps().len(), tracked(&norm)), (4, 1.0));
}

// ---- running statistics

#[test]
fn statistics_wait_for_the_step_and_follow_it() {
    let norm = BatchNorm2d::new(1).unwrap();
    let mut o = Optimizer::new(&norm, sgd(0.0)).unwrap();
    let grads = loss(&norm).backward().unwrap();
    assert_eq!(norm.running_mean.array().item().unwrap(), 0.0);
    let _ = o.step(&grads).unwrap();
    // 0.9·0 + 0.1·2 and 0.9·1 + 0.1·2 (unbiased).
    assert!((norm.running_mean.array().item().unwrap() - 0.2).abs() < 1e-7);
    assert!((norm.running_var.array().item().unwrap() - 1.1).abs() < 1e-6);
    assert_eq!(tracked(&norm), 1.0);
    let _ = o.step(&grads).unwrap();
    assert_eq!(tracked(&norm), 1.0, "the same gradients again");
    binade_autograd::eval(|| norm.forward(&batch())).unwrap();
    assert_eq!(tracked(&norm), 1.0);
}

#[test]
fn a_step_leaves_the_statistics_of_another_optimisers_network_alone() {
    let (a, b) = (BatchNorm2d::new(1).unwrap(), BatchNorm2d::new(1).unwrap());
    let mut oa = Optimizer::new(&a, sgd(0.0)).unwrap();
    // By its parameters alone, which one of them suffices for.
    let mut ob = Optimizer::empty().with_group(named(&[("w", &b.weight)]), sgd(0.0)).unwrap();
    let grads = loss(&a).add(&loss(&b)).unwrap().backward().unwrap();
    let _ = oa.step(&grads).unwrap();
    assert_eq!((tracked(&a), tracked(&b)), (1.0, 0.0));
    ob.own(&grads).discard();
    let _ = ob.step(&grads).unwrap();
    assert_eq!((tracked(&a), tracked(&b)), (1.0, 0.0));
    let _ = ob.step(&loss(&b).backward().unwrap()).unwrap();
    assert_eq!((tracked(&a), tracked(&b)), (1.0, 1.0));
}

#[test]
fn statistics_without_an_optimiser_follow_the_step_that_takes_the_gradients() {
    let (norm, head) = (BatchNorm2d::new(1).unwrap(), param(1.0));
    let mut o = Optimizer::empty().with_group(named(&[("head", &head)]), sgd(1.0)).unwrap();
    let step =
        |o: &mut Optimizer| o.step(&loss(&norm).mul(&head.var()).unwrap().sum(&[], false).unwrap().backward().unwrap());
    let _ = step(&mut o).unwrap();
    assert_eq!(tracked(&norm), 1.0);
    let other = Optimizer::new(&norm, sgd(1.0)).unwrap();
    let _ = step(&mut o).unwrap();
    assert_eq!(tracked(&norm), 1.0, "now another has it");
    drop(other);
    let _ = step(&mut o).unwrap();
    assert_eq!(tracked(&norm), 2.0);
}

#[test]
fn without_gradients_statistics_change_at_once_and_nothing_waits() {
    let norm = BatchNorm2d::new(1).unwrap();
    for i in 1..=3 {
        no_grad(|| norm.forward(&batch())).unwrap();
        assert_eq!(tracked(&norm), i as f64);
    }
    norm.parameters().iter().for_each(|p| p.set_trainable(false));
    norm.forward(&batch()).unwrap();
    assert_eq!(tracked(&norm), 4.0, "frozen, on data");
    let other = param(1.0);
    let _ = Optimizer::new(&other, sgd(1.0)).unwrap().step(&ones(&[&other], 1.0)).unwrap();
    assert_eq!(tracked(&norm), 4.0);
}

#[test]
fn statistics_of_a_forward_pass_on_another_thread_follow_its_gradients() {
    for captured in [None, Some(scope::capture())] {
        let norm = BatchNorm2d::new(1).unwrap();
        let mut o = Optimizer::new(&norm, sgd(0.0)).unwrap();
        let there = std::thread::scope(|s| {
            let run = || captured.as_ref().map_or_else(|| loss(&norm), |scope| scope::run_in(scope, || loss(&norm)));
            s.spawn(run).join().unwrap()
        });
        let _ = o.step(&there.backward().unwrap()).unwrap();
        assert_eq!(tracked(&norm), 1.0);
    }
}

#[test]
fn a_layer_used_twice_and_accumulated_gradients_count_every_pass() {
    let norm = BatchNorm2d::new(1).unwrap();
    let mut o = Optimizer::new(&norm, sgd(0.0)).unwrap();
    let twice = || norm.forward(&norm.forward(&batch()).unwrap()).unwrap().square().unwrap().sum(&[], false).unwrap();
    let mut grads = twice().backward().unwrap();
    grads.add(twice().backward().unwrap()).unwrap();
    let _ = o.step(&grads).unwrap();
    assert_eq!(tracked(&norm), 4.0);
}

// ---- units and owners

#[test]
fn a_step_divides_gradients_by_the_scale_they_carry() {
    let (a, b) = (param(0.0), param(0.0));
    let mut o = Optimizer::empty().with_group(named(&[("a", &a), ("b", &b)]), sgd(1.0)).unwrap();
    let mut grads = ones(&[&a], 1024.0);
    grads.add(ones(&[&b], 8.0)).unwrap();
    assert_eq!(grad_norm(&grads).unwrap(), 2f64.sqrt());
    let _ = o.step(&grads).unwrap();
    assert_eq!((value(&a), value(&b)), (-1.0, -1.0));
    let own: HashSet<_> = [a.id()].into();
    let kept = grads.clone();
    assert!(!unscale(&mut grads, Some(&own), 2.0).unwrap());
    assert_eq!((grads.scale_of(a.id()), grads.scale_of(b.id())), (Some(1.0), Some(8.0)));
    assert_eq!(
        (grads.by_id(a.id()).unwrap().item().unwrap(), kept.by_id(a.id()).unwrap().item().unwrap()),
        (1.0, 1024.0)
    );
    let _ = o.step(&grads).unwrap();
    assert_eq!((value(&a), value(&b)), (-2.0, -2.0));
}

#[test]
fn clipping_is_in_the_units_of_the_loss_and_over_the_optimisers_own() {
    let (a, b) = (param(0.0), param(0.0));
    let o = Optimizer::empty().with_group(named(&[("a", &a)]), sgd(1.0)).unwrap();
    let mut grads = ones(&[&a, &b], 1024.0);
    assert_eq!(o.clip_grad_norm(&mut grads, 0.5).unwrap(), 1.0);
    let values = |g: &Gradients| [&a, &b].map(|p| g.by_id(p.id()).unwrap().item().unwrap());
    assert_eq!(values(&grads)[1], 1024.0);
    assert!((values(&grads)[0] - 512.0).abs() < 1e-3);
    o.clip_grad_value(&mut grads, 0.25).unwrap();
    assert_eq!(values(&grads), [256.0, 1024.0]);
    clip_grad_value(&mut grads, 0.5).unwrap();
    assert_eq!(values(&grads), [256.0, 512.0]);
}

#[test]
fn clipping_to_the_norm_itself_divides_by_it_plus_a_millionth() {
    let a = param(0.0);
    let mut grads = ones(&[&a], 1.0);
    assert_eq!(clip_grad_norm(&mut grads, 1.0).unwrap(), 1.0);
    assert_eq!(grads.by_id(a.id()).unwrap().item().unwrap(), (1.0f64 / 1.000001) as f32 as f64);
    assert_eq!(clip_grad_norm(&mut Gradients::default(), 1.0).unwrap(), 0.0);
}

#[test]
fn gradients_that_no_optimiser_takes_are_named() {
    #[derive(Clone, Module)]
    struct Net {
        body: Linear,
        head: Param,
    }
    let net = Net { body: Linear::new(1, 1).unwrap(), head: param(1.0) };
    net.assign_names();
    let input = Var::leaf(array(&[1.0]));
    let all: Vec<Param> = net.parameters();
    let mut sum = input.clone();
    for p in &all {
        sum = sum.add(&p.var()).unwrap();
    }
    let grads = sum.sum(&[], false).unwrap().backward().unwrap();
    assert_eq!(grads.unclaimed(), ["body.bias [1]", "body.weight [1, 1]", "head [1]"]);
    let body = Optimizer::new(&net.body, sgd(1.0)).unwrap();
    net.assign_names();
    assert_eq!(grads.unclaimed(), ["head [1]"]);
    let copy = body.clone();
    drop(body);
    assert_eq!(grads.unclaimed(), ["head [1]"], "a clone claims too");
    drop(copy);
    assert_eq!(grads.unclaimed().len(), 3);
}
