//! Schedules, averages and norms have the values of their formulas, also where two parts of a formula meet.

use binade_autograd::{Gradients, Var};
use binade_cpu as _;
use binade_nn::{
    BatchNorm2d, Ema, Embedding, Error, Layer, Linear, Module, Optimizer, Param, Plateau, Schedule, Sgd, StepOutcome,
    WarmUp, clip_grad_norm, grad_norm, scaled_grad_norm,
};
use binade_tensor::{Array, Class, DType, Device};

fn param(value: f32) -> Param {
    Param::new(Array::from_slice(&Device::cpu(), &[value], &[1], Class::Weights).unwrap())
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
}

// ---- schedules

#[test]
fn a_warm_up_is_a_straight_line_and_what_follows_begins_at_its_end() {
    let then = Schedule::Linear { start: 0.5, end: 0.25, total: 4 };
    let warm = Schedule::WarmUp { steps: 4, start: 0.2, then: Box::new(then) };
    for (step, factor) in [0.2, 0.4, 0.6, 0.8, 0.5, 0.4375, 0.375, 0.3125, 0.25, 0.25].into_iter().enumerate() {
        near(warm.factor(step as u64).unwrap(), factor);
    }
}

#[test]
fn restarts_of_one_length_follow_each_other() {
    let restarts = Schedule::CosineRestarts { first: 4, growth: 1, floor: 0.2 };
    for step in 0..13 {
        let expected = [1.0, 0.4 * 0.5f64.sqrt() + 0.6, 0.6, -0.4 * 0.5f64.sqrt() + 0.6][step % 4];
        near(restarts.factor(step as u64).unwrap(), expected);
    }
}

#[test]
fn a_plateau_refuses_each_setting_outside_its_domain() {
    type Spoil = fn(&mut Plateau, f64);
    let spoils: [(&str, Spoil); 2] = [("threshold", |p, v| p.threshold = v), ("floor", |p, v| p.floor = v)];
    for (name, spoil) in spoils {
        for bad in [-1.0, f64::INFINITY, f64::NAN] {
            let mut plateau = Plateau::new(0.5, 1).unwrap();
            spoil(&mut plateau, bad);
            assert!(matches!(plateau.check(), Err(Error::Setting { what, .. }) if what == name), "{name} {bad}");
        }
    }
}

#[test]
fn the_same_measurement_again_is_no_improvement() {
    let mut plateau = Plateau::new(0.5, 1).unwrap();
    plateau.threshold = 0.0;
    let factors = [1.0, 1.0, 1.0, 0.5, 0.5].map(|m| plateau.observe(m).unwrap());
    assert_eq!(factors, [1.0, 1.0, 0.5, 0.5, 0.5]);
}

#[test]
fn an_improvement_is_one_by_the_threshold_on_either_side_of_zero() {
    for (best, better, worse) in [(2.0, 1.7, 1.9), (-2.0, -2.3, -2.1), (0.0, -0.1, 0.0)] {
        for (next, improves) in [(better, true), (worse, false)] {
            let mut plateau = Plateau::new(0.5, 0).unwrap();
            plateau.threshold = 0.1;
            plateau.observe(best).unwrap();
            assert_eq!(plateau.observe(next).unwrap(), if improves { 1.0 } else { 0.5 }, "{next} after {best}");
        }
    }
}

// ---- averages

#[test]
fn averages_follow_faster_at_first_and_count_their_updates() {
    let model = Linear::without_bias(1, 1).unwrap();
    let set = |v: f64| {
        let array = Array::full(&Device::cpu(), DType::F32, model.weight.shape(), v, Class::Weights).unwrap();
        model.weight.array().copy_from(&array).unwrap();
    };
    set(0.0);
    let mut ema = Ema::new(&model, 0.25).unwrap();
    let mut expected = 0.0;
    for (steps, value) in [8.0, -4.0, 2.0, 1.0, 16.0].into_iter().enumerate() {
        assert_eq!(ema.steps(), steps as u64);
        set(value);
        ema.update().unwrap();
        let decay = ((1.0 + steps as f64) / (10.0 + steps as f64)).min(0.25);
        expected = decay * expected + (1.0 - decay) * value;
        let found = ema.averages().next().unwrap().1.item().unwrap();
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected} after {} updates", steps + 1);
    }
    assert_eq!(ema.steps(), 5);
}

/// PyTorch's and diffusers' rules, over a parameter that goes from 1 to 1.01 and stays there.
#[test]
fn averages_move_by_the_smallest_steps_whatever_the_parameters_are_stored_in() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let full = |v: f32| param(v).array().cast(dtype, Class::Weights).unwrap();
        let param = Param::new(full(1.0));
        let mut ema = Ema::new(&param, 0.9999).unwrap().without_warm_up();
        param.array().copy_from(&full(1.01)).unwrap();
        let reached = full(1.01).item().unwrap();
        (0..1000).for_each(|_| ema.update().unwrap());
        let wanted = reached + (1.0 - reached) * 0.9999f64.powi(1000);
        let found = ema.averages().next().unwrap().1.item().unwrap();
        // A thousand roundings of numbers near 1.
        let bound = 1000.0 * 2f64.powi(-24);
        assert!((found - wanted).abs() < bound, "{dtype}: {found} instead of {wanted}");
        assert!(dtype != DType::F32 || (found - 1.000952).abs() < 4e-6, "{found}");
    }
}

#[test]
fn the_power_form_begins_with_the_parameter_and_ends_with_the_decay() {
    let param = param(5.0);
    let mut ema = Ema::new(&param, 0.6).unwrap().with_warm_up(WarmUp::POWER).unwrap();
    let mut expected = 5.0;
    for (n, value) in [8.0, -4.0, 2.0, 1.0, 16.0, 3.0].into_iter().enumerate() {
        param.array().copy_from(&self::param(value as f32).array()).unwrap();
        ema.update().unwrap();
        // 0, 0.370, 0.519, 0.603, which is above the decay, …: diffusers' `EMAModel.get_decay`.
        let decay = if n == 0 { 0.0 } else { (1.0 - (1.0 + n as f64).powf(-2.0 / 3.0)).min(0.6) };
        expected = decay * expected + (1.0 - decay) * value;
        let found = ema.averages().next().unwrap().1.item().unwrap();
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected} after {} updates", n + 1);
    }
    let state = ema.state_dict();
    let mut other = Ema::new(&param, 0.5).unwrap();
    other.load_state_dict(&state).unwrap();
    assert_eq!(other.state_dict().warm_up, WarmUp::POWER);
    for bad in [0.0, -1.0, f64::NAN] {
        let warm_up = WarmUp::Power { inverse_gamma: 1.0, power: bad };
        assert!(matches!(other.clone().with_warm_up(warm_up), Err(Error::Setting { what: "power", .. })), "{bad}");
    }
}

#[test]
fn a_larger_inverse_gamma_begins_more_slowly() {
    let param = param(1.0);
    let power = WarmUp::Power { inverse_gamma: 4.0, power: 0.5 };
    let mut ema = Ema::new(&param, 1.0).unwrap().with_warm_up(power).unwrap();
    (0..12).for_each(|_| ema.update().unwrap());
    param.array().copy_from(&self::param(3.0).array()).unwrap();
    ema.update().unwrap();
    // 1 − (1 + 12/4)^−½
    assert_eq!(ema.averages().next().unwrap().1.item().unwrap(), 0.5 + 0.5 * 3.0);
}

// ---- norms and rates

/// Gradients `values` of parameters, each from a loss under a scale of its own.
fn scaled(params: &[&Param], values: &[f64], scales: &[f64]) -> Gradients {
    let mut all = Gradients::default();
    for ((p, value), scale) in params.iter().zip(values).zip(scales) {
        let loss: Var = (&p.var() * *value).unwrap().sum(&[], false).unwrap();
        all.add(loss.scaled(*scale).unwrap().backward().unwrap()).unwrap();
    }
    all
}

#[test]
fn the_norm_of_gradients_under_several_scales_is_that_of_the_unscaled_ones() {
    let (a, b) = (param(1.0), param(1.0));
    for scales in [[1024.0, 8.0], [4.0, 4.0], [1.0, 0.5]] {
        let mut grads = scaled(&[&a, &b], &[3.0, 4.0], &scales);
        near(grad_norm(&grads).unwrap(), 5.0);
        near(scaled_grad_norm(&grads, 0.5).unwrap(), 2.5);
        near(clip_grad_norm(&mut grads, 10.0).unwrap(), 5.0);
    }
}

#[test]
fn a_rate_that_only_its_factor_makes_too_large_is_refused() {
    let rule = Sgd { lr: 1e20, ..Sgd::default() };
    let mut optimizer = Optimizer::empty().with_group(param(1.0).named_parameters(), rule).unwrap();
    let refused = optimizer.set_lr_factor(1e20);
    assert!(matches!(refused, Err(Error::Setting { what: "learning rate times its factor", .. })), "{refused:?}");
    assert!(optimizer.set_lr_factor(1e18).is_ok());
}

// ---- layers

#[test]
fn the_padding_row_of_an_embedding_is_zero_and_stays_so() {
    let layer = Embedding::new(4, 2).unwrap().with_padding(1).unwrap();
    let rows = |layer: &Embedding| layer.weight.array().to_vec::<f32>().unwrap();
    let before = rows(&layer);
    let others: Vec<f32> = before.iter().enumerate().filter(|(i, _)| i / 2 != 1).map(|(_, v)| *v).collect();
    assert!(before[2..4] == [0.0; 2] && others.iter().all(|v| *v != 0.0), "{before:?}");
    let index = Array::from_slice(&Device::cpu(), &[0i64, 1, 1, 3], &[2, 2], Class::Indices).unwrap();
    let loss = layer.forward(&Var::constant(index)).unwrap().sum(&[], false).unwrap();
    let mut optimizer = Optimizer::new(&layer, Sgd { lr: 0.5, ..Sgd::default() }).unwrap();
    assert_eq!(optimizer.step(&loss.backward().unwrap()).unwrap(), StepOutcome::Applied);
    let moved: Vec<f32> = rows(&layer).iter().zip(&before).map(|(after, before)| before - after).collect();
    for (row, by) in [0.5, 0.0, 0.0, 0.5].into_iter().enumerate() {
        assert!(moved[2 * row..][..2].iter().all(|m| (m - by).abs() < 1e-6), "{moved:?}");
    }
    assert!(Embedding::new(4, 2).unwrap().with_padding(4).is_err());
    // Of a copy too.
    assert_eq!(layer.deep_copy().unwrap().padding, Some(1));
}

#[test]
fn a_batch_norm_whose_momentum_is_no_share_is_refused_in_training() {
    let x =
        Var::constant(Array::from_slice(&Device::cpu(), &[1.0f32, 3.0], &[2, 1, 1, 1], Class::Activations).unwrap());
    for (momentum, taken) in [(0.0, true), (1.0, true), (-0.1, false), (1.1, false), (f64::NAN, false)] {
        let norm = BatchNorm2d { momentum, ..BatchNorm2d::new(1).unwrap() };
        match norm.forward(&x) {
            Err(Error::Setting { what: "momentum", .. }) => assert!(!taken, "{momentum}"),
            other => assert!(taken && other.is_ok(), "{momentum}: {other:?}"),
        }
        assert!(binade_autograd::eval(|| norm.forward(&x)).is_ok(), "{momentum}");
    }
}
