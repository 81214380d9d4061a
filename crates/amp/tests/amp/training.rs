//! Whole steps: applied or not, blamed on the right operator, with an infinity planted at every operator.

use crate::net::{Net, full_training, state, training};
use std::marker::PhantomData;

use binade_amp::{
    Fault, GradScaler, Hit, LossScale, Origin, Policy, Result, ScaledGradients, StepOutcome, Training,
    UnscaledGradients, blame,
};
use binade_autograd::{Var, eval, scope};
use binade_cpu as _;
use binade_nn::{
    AdamW, BatchNorm2d, Checkpointed, Conv2d, Dropout, Ema, Layer, LayerNorm, Linear, Module, Optimizer, Schedule,
    Visitor,
};
use binade_tensor::op::{CrossEntropy, Unary};
use binade_tensor::{Array, ArrayMut, Class, DType, Device};

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

#[test]
fn a_step_whose_averages_are_in_the_place_of_the_parameters_changes_nothing() {
    for scale in [LossScale::Off, LossScale::Static(8.0)] {
        let net = Net::new();
        let mut t = training(&net, scale);
        let _ = t.step(|| net.loss()).unwrap();
        t.ema.as_mut().unwrap().swap().unwrap();
        let before = (state(&net, &t), t.scaler.state().unwrap(), t.iteration);
        let error = t.step(|| net.loss()).unwrap_err().to_string();
        assert!(error.contains("the averages are in the place of the parameters"), "{error}");
        assert_eq!((state(&net, &t), t.scaler.state().unwrap(), t.iteration), before);
        t.ema.as_mut().unwrap().swap().unwrap();
        assert_eq!(t.step(|| net.loss()).unwrap().outcome, StepOutcome::Applied);
        assert_eq!(t.ema.as_ref().unwrap().steps(), 2);
    }
}

#[test]
fn a_step_whose_averages_cannot_read_a_parameter_changes_nothing() {
    #[derive(Clone, Module)]
    struct Pair {
        used: Linear,
        idle: Linear,
    }
    let net = Pair { used: Linear::new(2, 1).unwrap(), idle: Linear::new(2, 1).unwrap() };
    let x = Var::from_slice(&[1.0f32, 2.0], &[1, 2]).unwrap();
    let loss = || -> Result<Var> { Ok(net.used.forward(&x)?.sum(&[], false)?) };
    let mut t = Training::new(Optimizer::new(&net, AdamW::default()).unwrap(), Policy::OFF, LossScale::Off).unwrap();
    t.ema = Some(Ema::new(&net, 0.9).unwrap());
    let weight = || net.used.weight.array().to_vec::<f32>().unwrap();
    let (before, idle) = (weight(), net.idle.weight.array());
    let written = ArrayMut::new("test", &idle).unwrap();
    let error = t.step(loss).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    assert_eq!((weight(), t.step, t.iteration, t.optimizers[0].steps().len()), (before.clone(), 0, 0, 0));
    drop(written);
    assert_eq!(t.step(loss).unwrap().outcome, StepOutcome::Applied);
    assert_ne!(weight(), before);
}

/// The types say the order: scaled gradients cannot be clipped, and unscaling takes them, of whom there is no copy.
#[test]
fn steps_out_of_order_do_not_compile() {
    struct Absent;
    /// What a call finds where the type itself has no such method.
    trait Otherwise: Sized {
        fn clip_norm(&mut self, _: f64) -> Absent {
            Absent
        }
        fn clip_value(&mut self, _: f64) -> Absent {
            Absent
        }
        fn step(self, _: &mut GradScaler, _: &mut Optimizer) -> Absent {
            Absent
        }
    }
    impl Otherwise for ScaledGradients {}
    let _: fn(&mut ScaledGradients) -> Absent = |grads| grads.clip_norm(1.0);
    let _: fn(&mut ScaledGradients) -> Absent = |grads| grads.clip_value(1.0);
    let _: fn(ScaledGradients, &mut GradScaler, &mut Optimizer) -> Absent = |grads, s, o| grads.step(s, o);
    let _: fn(ScaledGradients, &mut GradScaler, &Optimizer) -> Result<UnscaledGradients> = ScaledGradients::unscale;
    let _: fn(UnscaledGradients, &mut GradScaler, &mut Optimizer) -> Result<StepOutcome> = UnscaledGradients::step;

    struct Of<T>(PhantomData<T>);
    impl<T: Clone> Of<T> {
        fn is_clone(&self) -> bool {
            true
        }
    }
    trait NoClone {
        fn is_clone(&self) -> bool {
            false
        }
    }
    impl<T> NoClone for Of<T> {}
    assert!(Of::<StepOutcome>(PhantomData).is_clone());
    assert!(!Of::<ScaledGradients>(PhantomData).is_clone() && !Of::<UnscaledGradients>(PhantomData).is_clone());
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
    fn run(&self, x: &Var) -> binade_nn::Result<Var> {
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
                s.scaler.unscale(&s.optimizers[0], &mut grads).unwrap();
                let norm = match max_norm {
                    Some(max) => binade_nn::clip_grad_norm(&mut grads, max).unwrap(),
                    None => binade_nn::grad_norm(&grads).unwrap(),
                };
                s.optimizers[0].set_lr_factor(s.schedule.factor(s.step).unwrap()).unwrap();
                assert_eq!(s.scaler.step(&mut s.optimizers[0], &grads).unwrap(), StepOutcome::Applied);
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
