//! Whole steps: applied or not, blamed on the right operator, with an infinity planted at every operator.

use binade_amp::{
    Dynamic, Error, Fault, Hit, LossScale, Origin, Policy, Result, StepOutcome, Training, TrainingState, blame,
};
use binade_autograd::{Var, eval, scope};
use binade_cpu as _;
use binade_nn::{
    AdamW, BatchNorm2d, Checkpointed, Conv2d, Dropout, Ema, Layer, LayerNorm, Linear, Module, Optimizer, Plateau,
    Schedule, Visitor, load_state_dict, state_dict,
};
use binade_tensor::op::{CrossEntropy, Unary};
use binade_tensor::{Array, Class, DType, Device};

/// One of each kind of layer that keeps something between steps.
#[derive(Clone, Module)]
struct Net {
    conv: Conv2d,
    norm: BatchNorm2d,
    drop: Dropout,
    middle: LayerNorm,
    head: Linear,
}

impl Net {
    fn new() -> Net {
        scope::with_key(3, 0, || Net {
            conv: Conv2d::same(1, 4, 3).unwrap(),
            norm: BatchNorm2d::new(4).unwrap(),
            drop: Dropout::new(0.25).unwrap(),
            middle: LayerNorm::new(64).unwrap(),
            head: Linear::new(64, 3).unwrap(),
        })
    }

    fn loss(&self) -> Result<Var> {
        let x: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
        let x = Var::constant(Array::from_slice(&Device::cpu(), &x, &[2, 1, 4, 4], Class::Activations)?);
        let target = Var::constant(Array::from_slice(&Device::cpu(), &[0i64, 2], &[2], Class::Indices)?);
        let h = self.norm.forward(&self.conv.forward(&x)?)?.unary(Unary::Relu)?;
        let h = self.middle.forward(&self.drop.forward(&h.flatten(1)?)?)?;
        Ok(self.head.forward(&h)?.cross_entropy(&target, CrossEntropy::default())?)
    }
}

fn training(net: &Net, scale: LossScale) -> Training {
    let policy = if scale == LossScale::Off { Policy::OFF } else { Policy::autocast(DType::F16) };
    let mut training = Training::new(Optimizer::new(net, AdamW::default()).unwrap(), policy, scale).unwrap();
    training.clip = Some(1.0);
    training.schedule = Schedule::Exponential { gamma: 0.9 };
    training.ema = Some(Ema::new(net, 0.9).unwrap());
    training.seed = 0;
    training
}

/// Every bit that a step may change, but for the iteration and the loss scale.
fn state(net: &Net, t: &Training) -> Vec<u64> {
    let bits = |a: &Array| a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect::<Vec<_>>();
    let mut out: Vec<u64> = state_dict(net).iter().flat_map(|(_, a)| bits(a)).collect();
    let optimizer = t.optimizer.state_dict().unwrap();
    out.extend(optimizer.tensors.iter().flat_map(|(_, a)| bits(a)).chain(optimizer.params.iter().map(|p| p.steps)));
    let ema = t.ema.as_ref().unwrap();
    out.extend(ema.averages().flat_map(|(_, a)| bits(a)));
    out.extend([ema.steps(), t.step]);
    out
}

#[test]
fn an_infinity_at_any_operator_changes_no_bit_and_is_blamed_on_it() {
    for value in [f64::INFINITY, f64::NAN] {
        let (mut forward, mut backward, mut absorbed) = (0, 0, 0);
        for at in 0.. {
            let net = Net::new();
            // A scale above 1, so that an infinite loss is a skipped step.
            let mut t = training(&net, LossScale::Static(8.0));
            assert_eq!(t.step(|| net.loss()).unwrap().outcome, StepOutcome::Applied);
            let before = state(&net, &t);
            let fault = Fault::new(at, value);
            let step = fault.run(|| {
                t.step(|| {
                    fault.restart();
                    net.loss()
                })
            });
            let step = step.unwrap();
            assert_eq!(t.iteration, 2);
            let Some(hit) = fault.hit() else { break };
            if step.outcome == StepOutcome::Applied {
                // ReLU's derivative or a dropped element hid it: then the gradients are right.
                absorbed += 1;
                continue;
            }
            assert_eq!(state(&net, &t), before, "{value} at operator {at}: {hit:?}");
            let blame = step.blame.unwrap_or_else(|| panic!("no blame for {hit:?}"));
            assert_eq!(Hit { op: blame.op, layer: blame.layer, backward: blame.backward }, hit, "operator {at}");
            assert_eq!(blame.counts[if value.is_nan() { 0 } else { 1 }], 1);
            *(if hit.backward { &mut backward } else { &mut forward }) += 1;
        }
        assert!(forward >= 8 && backward >= 10 && absorbed <= 4, "{forward} {backward} {absorbed}");
    }
}

#[test]
fn gradients_spoilt_between_unscaling_and_stepping_are_seen_by_the_recheck_only() {
    for recheck in [false, true] {
        let net = Net::new();
        let mut optimizer = Optimizer::new(&net, AdamW::default()).unwrap();
        let mut scaler = binade_amp::GradScaler::new(LossScale::dynamic()).unwrap().with_recheck(recheck);
        let mut grads = scaler.scale(&net.loss().unwrap()).unwrap().backward().unwrap();
        scaler.unscale(&optimizer, &mut grads).unwrap();
        let (_, first) = grads.iter().next().unwrap();
        let bad = vec![f32::INFINITY; first.numel()];
        first.copy_from(&Array::from_slice(&Device::cpu(), &bad, first.shape(), Class::Workspace).unwrap()).unwrap();
        let outcome = scaler.step(&mut optimizer, &grads).unwrap();
        // test_params_invalidated_with_grads_invalidated_between_unscale_and_step: PyTorch applies them.
        assert_eq!(outcome == StepOutcome::Skipped, recheck);
    }
}

#[test]
fn the_schedule_counts_applied_steps_and_randomness_every_iteration() {
    let net = Net::new();
    let mut t = training(&net, LossScale::Static(8.0));
    let mut rates = Vec::new();
    for i in 0..4 {
        let factor = if i == 1 { 1e5 } else { 1.0 };
        let step = t.step(|| -> Result<Var> { Ok((&net.loss()? * factor)?) }).unwrap();
        rates.push(step.lr / 1e-3);
    }
    assert_eq!((t.iteration, t.step), (4, 3));
    for (rate, expected) in rates.iter().zip([1.0, 0.9, 0.9, 0.81]) {
        assert!((rate - expected).abs() < 1e-12, "{rates:?}");
    }
}

#[test]
fn the_fitting_scale_fits_and_is_the_largest_if_that_is_half_the_scale() {
    let net = Net::new();
    let policy = Policy::autocast(DType::F16);
    let at = |scale: f64| scope::with_key(0, 0, || blame(scale, || policy.run(|| net.loss()))).unwrap();
    let far = at(2f64.powi(40)).expect("2^40 overflows f16");
    assert!(far.backward && far.origin == Origin::CastOverflow, "{far}");
    assert_eq!(at(far.fitting_scale.unwrap()), None);
    let largest = (0..40).map(|i| 2f64.powi(40 - i)).find(|scale| at(*scale).is_none()).unwrap();
    assert_eq!(at(2.0 * largest).unwrap().fitting_scale, Some(largest));
}

#[test]
fn masked_scores_are_no_fault() {
    let w = Var::leaf(Array::from_slice(&Device::cpu(), &[0.5f32, -0.25, 0.75, 1.0], &[2, 2], Class::Weights).unwrap());
    let mask = Var::constant(
        Array::from_slice(&Device::cpu(), &[0.0, 0.0, f32::NEG_INFINITY, 0.0], &[2, 2], Class::Workspace).unwrap(),
    );
    let masked = || -> Result<Var> { Ok(w.add(&mask)?.softmax(-1)?.square()?.sum(&[], false)?) };
    assert_eq!(blame(1.0, masked).unwrap(), None);
    let overflow = || -> Result<Var> { Ok((&w.add(&mask)?.softmax(-1)? * 1e30)?.square()?.sum(&[], false)?) };
    let found = blame(1.0, overflow).unwrap().unwrap();
    assert_eq!((found.op.as_str(), found.origin), ("square", Origin::OpOverflow));
}

#[test]
fn origins_are_told_apart() {
    let leaf = |v: f32, d: DType| {
        Var::leaf(
            Array::from_slice(&Device::cpu(), &[v], &[1], Class::Weights).unwrap().cast(d, Class::Weights).unwrap(),
        )
    };
    let of = |f: &dyn Fn() -> Result<Var>| blame(1.0, f).unwrap().unwrap().origin;
    assert_eq!(of(&|| Ok(leaf(1e5, DType::F32).cast(DType::F16)?)), Origin::CastOverflow);
    assert_eq!(of(&|| Ok(leaf(300.0, DType::F16).square()?)), Origin::CastOverflow);
    assert_eq!(of(&|| Ok(leaf(100.0, DType::F32).exp()?)), Origin::OpOverflow);
    assert_eq!(of(&|| Ok(leaf(-1.0, DType::F32).log()?)), Origin::Invalid);
    assert_eq!(of(&|| Ok(leaf(f32::NAN, DType::F32).exp()?)), Origin::Inherited);
}

#[test]
fn evaluation_between_steps_changes_nothing() {
    let run = |evaluate: bool| {
        let net = Net::new();
        let mut t = training(&net, LossScale::dynamic());
        for _ in 0..3 {
            let _ = t.step(|| net.loss()).unwrap();
            if evaluate {
                eval(|| net.loss()).unwrap();
            }
        }
        state(&net, &t)
    };
    assert_eq!(run(false), run(true));
}

#[path = "typestate/in_order.rs"]
mod in_order;

#[test]
fn steps_out_of_order_do_not_compile() {
    // The one in order is compiled with this file: a case that must compile would have trybuild build all crates once
    // more.
    in_order::main();
    let t = trybuild::TestCases::new();
    t.compile_fail("tests/typestate/clip_before_unscale.rs");
    t.compile_fail("tests/typestate/unscale_twice.rs");
    t.compile_fail("tests/typestate/outcome_ignored.rs");
}

/// All but the head, as a layer.
#[derive(Clone, Module)]
struct Body {
    conv: Conv2d,
    norm: BatchNorm2d,
    drop: Dropout,
    middle: LayerNorm,
}

impl Layer for Body {
    fn forward(&self, x: &Var) -> binade_nn::Result<Var> {
        let h = self.norm.forward(&self.conv.forward(x)?)?.unary(Unary::Relu)?;
        self.middle.forward(&self.drop.forward(&h.flatten(1)?)?)
    }
}

#[test]
fn recomputation_gives_the_same_bits_and_statistics() {
    // Dropout, batch norm and autocast inside: randomness, deferred statistics and casts must replay.
    let run = |recompute: bool| {
        let net = Net::new();
        let mut t = training(&net, LossScale::Static(8.0));
        let body =
            Body { conv: net.conv.clone(), norm: net.norm.clone(), drop: net.drop.clone(), middle: net.middle.clone() };
        let again = Checkpointed::new(body.clone());
        let (head, target) =
            (net.head.clone(), Array::from_slice(&Device::cpu(), &[0i64, 2], &[2], Class::Indices).unwrap());
        let mut losses = Vec::new();
        for _ in 0..3 {
            let step = t
                .step(|| -> Result<Var> {
                    let x: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
                    let x = Var::constant(Array::from_slice(&Device::cpu(), &x, &[2, 1, 4, 4], Class::Activations)?);
                    let h = if recompute { again.forward(&x)? } else { body.forward(&x)? };
                    Ok(head.forward(&h)?.cross_entropy(&Var::constant(target.clone()), CrossEntropy::default())?)
                })
                .unwrap();
            assert_eq!(step.outcome, StepOutcome::Applied);
            losses.push(step.loss.to_bits());
        }
        (losses, state(&net, &t))
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn recomputation_leaves_no_cast_behind() {
    let w = Var::leaf(Array::from_slice(&Device::cpu(), &[0.5f32; 16], &[4, 4], Class::Weights).unwrap());
    let inner = w.clone();
    let y =
        binade_amp::autocast(DType::F16, || binade_autograd::checkpoint(move |x| x[0].matmul(&inner), &[&w])).unwrap();
    let grads = y.sum(&[], false).unwrap().backward().unwrap();
    assert_eq!(grads.get(&w).unwrap().dtype(), DType::F32);
    assert!(w.array().storage().derived(DType::F16, w.array().layout()).is_none());
}

#[test]
fn a_fused_step_has_the_bits_of_separate_passes() {
    // Powers of two for scales: their product with the clipping factor is exact.
    for scale in [LossScale::Off, LossScale::Static(1024.0), LossScale::Static(0.25)] {
        let (fused, separate) = (Net::new(), Net::new());
        let mut t = training(&fused, scale);
        let mut s = training(&separate, scale);
        for max_norm in [Some(1e-2), Some(1e3), None] {
            t.clip = max_norm;
            let step = t.step(|| fused.loss()).unwrap();
            assert_eq!(step.outcome, StepOutcome::Applied);
            let key = s.key();
            let norm = scope::with_key(key.seed, key.iteration, || {
                let loss = s.policy.run(|| separate.loss()).unwrap();
                let mut grads = s.scaler.scale(&loss).unwrap().backward().unwrap();
                s.scaler.unscale(&s.optimizer, &mut grads).unwrap();
                let norm = match max_norm {
                    Some(max) => binade_nn::clip_grad_norm(&mut grads, max).unwrap(),
                    None => binade_nn::grad_norm(&grads).unwrap(),
                };
                s.optimizer.set_lr_factor(s.schedule.factor(s.step).unwrap()).unwrap();
                assert_eq!(s.scaler.step(&mut s.optimizer, &grads).unwrap(), StepOutcome::Applied);
                s.scaler.update().unwrap();
                norm
            });
            s.ema.as_mut().unwrap().update().unwrap();
            (s.iteration, s.step) = (s.iteration + 1, s.step + 1);
            assert_eq!(step.grad_norm.to_bits(), norm.to_bits());
            assert_eq!(state(&fused, &t), state(&separate, &s), "{scale:?}, {max_norm:?}");
        }
    }
}

#[test]
fn a_step_in_16_bit_casts_each_weight_once_and_no_gradient_of_one() {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};
    let net = Net::new();
    let mut t = training(&net, LossScale::Static(8.0));
    let casts = Arc::new(Mutex::new((HashMap::<u64, usize>::new(), 0)));
    let sink = casts.clone();
    let observer: scope::Observer = Arc::new(move |event| {
        if matches!(event.op, binade_tensor::Op::Cast(_)) {
            let mut casts = sink.lock().unwrap();
            match event.phase {
                scope::Phase::Forward => *casts.0.entry(event.ins[0].storage().id()).or_default() += 1,
                scope::Phase::Backward => casts.1 += 1,
            }
        }
    });
    let step = scope::with_observer(observer, || t.step(|| net.loss())).unwrap();
    assert_eq!(step.outcome, StepOutcome::Applied);
    let (forward, backward) = &*casts.lock().unwrap();
    let params = [net.conv.weight.array(), net.head.weight.array()];
    assert!(params.iter().all(|p| forward.get(&p.storage().id()) == Some(&1)), "{forward:?}");
    // Where a product's f16 gradient reaches an f32 activation; those of weights and biases stay as their products made
    // them.
    assert!(*backward <= 2, "{backward} casts in the backward pass");
}

// ---- snapshots of a training

/// A training with everything that has a state, under its own settings.
fn full_training(net: &Net, scale: LossScale) -> Training {
    let mut t = training(net, scale);
    t.seed = 9;
    t.plateau = Some(Plateau::new(0.5, 0).unwrap());
    t
}

/// Six steps, the second of them with a gradient that overflows f16 at the present scale but not at a lower one, and a
/// measurement after each.
fn steps(net: &Net, t: &mut Training, which: std::ops::Range<usize>) {
    for i in which {
        let factor = if i == 1 { 1e5 } else { 1.0 };
        let _ = t.step(|| -> Result<Var> { Ok((&net.loss()? * factor)?) }).unwrap();
        t.plateau.as_mut().unwrap().observe([3.0, 2.0, 2.5, 1.0, 1.5, 0.5][i]).unwrap();
    }
}

#[test]
fn a_training_goes_on_bit_for_bit_after_its_snapshot_was_written_and_read() {
    let scale = LossScale::Dynamic(Dynamic { init_scale: 64.0, growth_interval: 2, ..Dynamic::default() });
    let whole = Net::new();
    let mut t = full_training(&whole, scale);
    steps(&whole, &mut t, 0..6);

    let first = Net::new();
    let mut t1 = full_training(&first, scale);
    steps(&first, &mut t1, 0..3);
    let saved = t1.state().unwrap();
    let (text, tensors) = (serde_json::to_string(&saved).unwrap(), saved.tensors());
    let model = state_dict(&first);

    // Other settings, all of which the snapshot knows better.
    let second = Net::new();
    let mut t2 = training(&second, LossScale::dynamic());
    (t2.schedule, t2.clip) = (Schedule::Constant, None);
    t2.ema = Some(Ema::new(&second, 0.1).unwrap());
    load_state_dict(&second, &model).unwrap();
    let read: TrainingState = serde_json::from_str(&text).unwrap();
    t2.load(&read.with_tensors(&tensors).unwrap()).unwrap();
    assert_eq!((t2.iteration, t2.step), (3, 2), "a skipped step counts for randomness, not for the schedule");
    let scaler = t2.scaler.state().unwrap();
    assert_eq!((scaler.scale, scaler.growth_tracker), (32.0, 1));
    assert_eq!(t2.scaler.config(), scale);
    steps(&second, &mut t2, 3..6);
    assert_eq!(state(&second, &t2), state(&whole, &t));
    assert_eq!((t2.scaler.state().unwrap(), t2.iteration), (t.scaler.state().unwrap(), t.iteration));
    assert_eq!(t2.plateau, t.plateau);
    assert_eq!(t2.optimizer.lr(), t.optimizer.lr());
}

#[test]
fn a_snapshot_does_not_follow_the_training_and_brings_it_back() {
    let net = Net::new();
    let mut t = full_training(&net, LossScale::Static(8.0));
    steps(&net, &mut t, 0..1);
    let before = state(&net, &t);
    let (saved, best) = (t.state().unwrap(), net.deep_copy().unwrap());
    steps(&net, &mut t, 2..5);
    assert_ne!(state(&net, &t), before);
    load_state_dict(&net, &state_dict(&best)).unwrap();
    t.load(&saved).unwrap();
    assert_eq!(state(&net, &t), before);
}

#[test]
fn a_snapshot_that_does_not_fit_changes_nothing() {
    let net = Net::new();
    let mut t = full_training(&net, LossScale::Dynamic(Dynamic { init_scale: 64.0, ..Dynamic::default() }));
    steps(&net, &mut t, 0..1);
    let good = t.state().unwrap();
    steps(&net, &mut t, 2..3);
    let before = (state(&net, &t), serde_json::to_string(&t.state().unwrap()).unwrap());
    type Damage = fn(&mut TrainingState);
    let damages: [(&str, Damage); 9] = [
        ("loss scaling", |s| s.loss_scale = LossScale::Off),
        ("averages", |s| s.ema = None),
        ("an average", |s| drop(s.ema.as_mut().unwrap().tensors.pop())),
        ("a moment", |s| drop(s.optimizer.tensors.pop())),
        ("the scale", |s| s.scaler.scale = f32::INFINITY),
        ("the hysteresis", |s| s.scaler.hysteresis = 7),
        ("the schedule", |s| s.schedule = Schedule::Exponential { gamma: f64::NAN }),
        ("clipping", |s| s.clip = Some(-1.0)),
        ("the factor", |s| s.optimizer.lr_factor = f64::NAN),
    ];
    for (what, damage) in damages {
        let mut bad = good.clone();
        damage(&mut bad);
        assert!(t.load(&bad).is_err(), "{what}");
        assert_eq!((state(&net, &t), serde_json::to_string(&t.state().unwrap()).unwrap()), before, "{what}");
    }
    let mut tensors = good.tensors();
    tensors.push(("model.weight".into(), tensors[0].1.clone()));
    assert!(matches!(good.with_tensors(&tensors), Err(Error::State(_))));
}

#[test]
fn scaler_states_that_no_scaler_has_are_refused() {
    let mut scaler = binade_amp::GradScaler::new(LossScale::dynamic()).unwrap();
    let good = scaler.state().unwrap();
    for scale in [0.0, -4.0, 1e-42, f32::INFINITY, f32::NAN] {
        let refused = scaler.load_state(binade_amp::ScalerState { scale, ..good });
        assert!(matches!(refused, Err(Error::Setting { what: "loss scale", .. })), "{scale}");
    }
    assert!(serde_json::from_str::<binade_amp::ScalerState>(r#"{"scale":1.0,"growth_tracker":-1}"#).is_err());
    assert_eq!(scaler.state().unwrap(), good);
    scaler.load_state(binade_amp::ScalerState { scale: 3.5, growth_tracker: 1999, ..good }).unwrap();
    assert_eq!((scaler.loss_scale(), scaler.state().unwrap().growth_tracker), (3.5, 1999));
    // The state of a scaler of f16 does not scale losses in f32.
    let mut off = binade_amp::GradScaler::new(LossScale::Off).unwrap();
    off.load_state(good).unwrap();
    assert_eq!(off.loss_scale(), 1.0);
}

#[test]
fn settings_outside_their_domain_end_a_step_before_anything_is_computed() {
    let net = Net::new();
    type Spoil = fn(&mut Training);
    let spoils: [Spoil; 4] = [
        |t| t.clip = Some(-1.0),
        |t| t.clip = Some(f64::NAN),
        |t| t.schedule = Schedule::Polynomial { total: 1, power: -1.0 },
        |t| t.plateau.as_mut().unwrap().floor = f64::NAN,
    ];
    for (i, spoil) in spoils.into_iter().enumerate() {
        let mut t = full_training(&net, LossScale::Off);
        let before = state(&net, &t);
        spoil(&mut t);
        let run = std::cell::Cell::new(false);
        let tried = t.step(|| (run.set(true), net.loss()).1);
        assert!(tried.is_err() && !run.get(), "{i}: {tried:?}");
        assert_eq!((state(&net, &t), t.iteration), (before, 0), "{i}");
    }
    // No factor of a cycle whose rise is one step is NaN.
    let mut t = full_training(&net, LossScale::Off);
    t.schedule = Schedule::OneCycle { total: 100, rising: 0.01, div: 25.0, final_div: 1e4, cosine: true };
    assert_eq!(t.step(|| net.loss()).unwrap().lr, 1e-3);
}

#[test]
fn a_plateau_lowers_the_rate_of_the_schedule() {
    let net = Net::new();
    let mut t = full_training(&net, LossScale::Off);
    t.schedule = Schedule::Constant;
    let plateau = t.plateau.as_mut().unwrap();
    plateau.observe(1.0).unwrap();
    plateau.observe(2.0).unwrap();
    assert_eq!(t.step(|| net.loss()).unwrap().lr, 5e-4);
}
