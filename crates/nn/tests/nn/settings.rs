//! Settings outside their domain are refused where they are taken, by name.

use binade_autograd::scope;
use binade_cpu as _;
use binade_nn::*;
use binade_tensor::{Array, Class, Update};

fn param() -> Vec<(String, Param)> {
    vec![(
        "w".into(),
        Param::new(Array::from_slice(&scope::device().unwrap(), &[1.0f32], &[1], Class::Weights).unwrap()),
    )]
}

fn refused(rule: impl Into<Rule>, setting: &str) {
    let rule = rule.into();
    match Optimizer::empty().with_group(param(), rule.clone()) {
        Err(Error::Setting { what, .. }) => assert_eq!(what, setting, "{rule:?}"),
        other => panic!("{rule:?}: {other:?}"),
    }
}

#[test]
fn rules_refuse_what_pytorch_refuses_and_what_f32_cannot_hold() {
    for bad in [-1.0, f64::NAN, f64::INFINITY, 1e39] {
        refused(Sgd { lr: bad, ..Sgd::default() }, "learning rate");
        refused(Sgd { momentum: bad, ..Sgd::default() }, "momentum");
        refused(Sgd { weight_decay: bad, ..Sgd::default() }, "weight decay");
        refused(Adam { lr: bad, ..Adam::default() }, "learning rate");
        refused(Adam { eps: bad, ..Adam::default() }, "eps");
        refused(Adam { weight_decay: bad, ..Adam::default() }, "weight decay");
        refused(AdamW { lr: bad, ..AdamW::default() }, "learning rate");
        refused(AdamW { eps: bad, ..AdamW::default() }, "eps");
        refused(AdamW { weight_decay: bad, ..AdamW::default() }, "weight decay");
        refused(Adagrad { lr: bad, ..Adagrad::default() }, "learning rate");
        refused(Adagrad { lr_decay: bad, ..Adagrad::default() }, "decay of the learning rate");
        refused(Adagrad { weight_decay: bad, ..Adagrad::default() }, "weight decay");
        refused(Adagrad { initial_accumulator: bad, ..Adagrad::default() }, "first value of the sum");
        refused(Adagrad { eps: bad, ..Adagrad::default() }, "eps");
        refused(RmsProp { lr: bad, ..RmsProp::default() }, "learning rate");
        refused(RmsProp { eps: bad, ..RmsProp::default() }, "eps");
        refused(RmsProp { weight_decay: bad, ..RmsProp::default() }, "weight decay");
        refused(RmsProp { momentum: bad, ..RmsProp::default() }, "momentum");
        refused(Lion { lr: bad, ..Lion::default() }, "learning rate");
        refused(Lion { weight_decay: bad, ..Lion::default() }, "weight decay");
        refused(Adafactor { lr: bad, ..Adafactor::default() }, "learning rate");
        refused(Adafactor { eps: [bad, 1e-3], ..Adafactor::default() }, "first eps");
        refused(Adafactor { eps: [1e-8, bad], ..Adafactor::default() }, "second eps");
        refused(Adafactor { clip: bad, ..Adafactor::default() }, "largest update");
        refused(Adafactor { weight_decay: bad, ..Adafactor::default() }, "weight decay");
    }
    for bad in [-0.1, 1.0, 1.5, f64::NAN] {
        for (at, what) in ["first beta", "second beta"].into_iter().enumerate() {
            let mut betas = [0.9, 0.99];
            betas[at] = bad;
            refused(Adam { betas, ..Adam::default() }, what);
            refused(AdamW { betas, ..AdamW::default() }, what);
            refused(Lion { betas, ..Lion::default() }, what);
        }
    }
    for bad in [-0.1, 2.0, f64::NAN] {
        refused(RmsProp { alpha: bad, ..RmsProp::default() }, "alpha");
    }
    for bad in [0.1, f64::NAN, f64::NEG_INFINITY] {
        refused(Adafactor { beta2_decay: bad, ..Adafactor::default() }, "exponent of the decay");
    }
    refused(Adafactor { clip: 0.5, ..Adafactor::default() }, "largest update");
    refused(Sgd { dampening: f64::NAN, ..Sgd::default() }, "dampening");
    refused(Sgd { nesterov: true, ..Sgd::default() }, "momentum");
    refused(Sgd { nesterov: true, momentum: 0.9, dampening: 0.1, ..Sgd::default() }, "dampening");
    let no_rule = Rule { update: Update::Unscale, ..Sgd::default().into() };
    assert!(matches!(Optimizer::empty().with_group(param(), no_rule), Err(Error::Config { .. })));
}

#[test]
fn rules_take_the_edges_of_their_domains() {
    let taken =
        |rule: Rule| Optimizer::empty().with_group(param(), rule.clone()).unwrap_or_else(|e| panic!("{rule:?}: {e}"));
    taken(Sgd { lr: 0.0, momentum: 1.0, dampening: -0.5, ..Sgd::default() }.into());
    taken(Sgd { nesterov: true, momentum: 0.9, ..Sgd::default() }.into());
    taken(Adam { betas: [0.0, 0.0], eps: 0.0, ..Adam::default() }.into());
    taken(RmsProp { alpha: 1.0, ..RmsProp::default() }.into());
    taken(Adafactor { beta2_decay: 0.0, eps: [0.0, 0.0], clip: 1.0, ..Adafactor::default() }.into());
}

#[test]
fn a_group_chosen_by_name_is_checked_too() {
    let model = Linear::new(2, 2).unwrap();
    let bias_only = |name: &str, _: &Param| Sgd { lr: if name == "bias" { f64::NAN } else { 0.1 }, ..Sgd::default() };
    assert!(matches!(Optimizer::grouped(&model, bias_only), Err(Error::Setting { what: "learning rate", .. })));
    assert!(matches!(Optimizer::new(&model, Sgd { lr: -1.0, ..Sgd::default() }), Err(Error::Setting { .. })));
}

#[test]
fn a_factor_whose_rate_does_not_fit_is_refused_and_the_old_one_stays() {
    let mut optimizer = Optimizer::empty().with_group(param(), Sgd { lr: 0.5, ..Sgd::default() }).unwrap();
    optimizer.set_lr_factor(0.5).unwrap();
    for bad in [f64::NAN, f64::INFINITY, -0.5, 1e39] {
        assert!(matches!(optimizer.set_lr_factor(bad), Err(Error::Setting { .. })), "{bad}");
        assert_eq!(optimizer.lr(), 0.25);
    }
}

#[test]
fn schedules_refuse_settings_outside_their_domain() {
    let one = |total, rising, div, final_div| Schedule::OneCycle { total, rising, div, final_div, cosine: true };
    let nan = f64::NAN;
    for bad in [
        Schedule::Step { every: 0, gamma: 0.1 },
        Schedule::Step { every: 1, gamma: -0.1 },
        Schedule::MultiStep { milestones: vec![1], gamma: nan },
        Schedule::Exponential { gamma: f64::INFINITY },
        Schedule::Linear { start: 0.0, end: 1.0, total: 4 },
        Schedule::Linear { start: 1.5, end: 1.0, total: 4 },
        Schedule::Linear { start: 0.5, end: -0.5, total: 4 },
        Schedule::Linear { start: 0.5, end: 1.0, total: 0 },
        Schedule::Polynomial { total: 4, power: -1.0 },
        Schedule::Polynomial { total: 4, power: nan },
        Schedule::Polynomial { total: 0, power: 1.0 },
        Schedule::Cosine { warmup: 0, total: 0, floor: 0.0 },
        Schedule::Cosine { warmup: 0, total: 4, floor: -1.0 },
        Schedule::CosineRestarts { first: 0, growth: 1, floor: 0.0 },
        Schedule::CosineRestarts { first: 1, growth: 0, floor: 0.0 },
        Schedule::CosineRestarts { first: 1, growth: 1, floor: nan },
        one(0, 0.3, 25.0, 1e4),
        one(10, 1.1, 25.0, 1e4),
        one(10, nan, 25.0, 1e4),
        one(10, 0.3, 0.0, 1e4),
        one(10, 0.3, 25.0, -1.0),
        one(10, 0.3, 1e-200, 1e-200),
        Schedule::WarmUp { steps: 4, start: 2.0, then: Box::new(Schedule::Constant) },
        Schedule::WarmUp { steps: 4, start: 0.1, then: Box::new(Schedule::Exponential { gamma: -1.0 }) },
    ] {
        assert!(matches!(bad.factor(0), Err(Error::Setting { .. })), "{bad:?}: {:?}", bad.factor(0));
    }
}

#[test]
fn every_factor_is_finite_and_at_least_0_at_the_edges_of_the_domains() {
    let mut schedules = vec![
        Schedule::Step { every: 1, gamma: 0.0 },
        Schedule::Exponential { gamma: 0.0 },
        Schedule::Polynomial { total: 1, power: 0.0 },
        Schedule::Cosine { warmup: 5, total: 2, floor: 0.0 },
        Schedule::Cosine { warmup: u64::MAX, total: 2, floor: 0.0 },
        Schedule::CosineRestarts { first: 1, growth: 1, floor: 0.0 },
        Schedule::CosineRestarts { first: u64::MAX, growth: 2, floor: 0.0 },
        Schedule::Constant.after_warm_up(0),
        Schedule::Constant.after_warm_up(1),
    ];
    for (total, rising) in
        [(1, 0.0), (1, 1.0), (2, 0.5), (100, 0.0), (100, 0.01), (100, 1.0), (3, 1.0 / 3.0), (100, 0.001)]
    {
        for cosine in [true, false] {
            schedules.push(Schedule::OneCycle { total, rising, div: 25.0, final_div: 1e4, cosine });
        }
    }
    for schedule in schedules {
        for step in [0, 1, 2, 3, 50, 99, 100, 101, 1_000_000, u64::MAX] {
            let factor = schedule.factor(step).unwrap_or_else(|e| panic!("{schedule:?} at {step}: {e}"));
            assert!(factor.is_finite() && (0.0..=1.0).contains(&factor), "{schedule:?} at {step}: {factor}");
        }
    }
    assert_eq!(Schedule::Exponential { gamma: 2.0 }.factor(3).unwrap(), 8.0);
    assert!(matches!(Schedule::Exponential { gamma: 2.0 }.factor(5000), Err(Error::Setting { what: "factor", .. })));
    // PyTorch divides by zero here: the rise is at its end in the first step.
    assert_eq!(
        Schedule::OneCycle { total: 100, rising: 0.01, div: 25.0, final_div: 1e4, cosine: true }.factor(0).unwrap(),
        1.0
    );
}

#[test]
fn plateaus_averages_and_probabilities_outside_their_domain_are_refused() {
    for bad in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(Plateau::new(bad, 1), Err(Error::Setting { what: "gamma", .. })), "{bad}");
    }
    let mut plateau = Plateau::new(0.5, 1).unwrap();
    plateau.threshold = f64::NAN;
    assert!(matches!(plateau.observe(1.0), Err(Error::Setting { what: "threshold", .. })));
    let model = Linear::new(2, 2).unwrap();
    for bad in [-0.1, 1.1, f64::NAN] {
        assert!(matches!(Ema::new(&model, bad), Err(Error::Setting { what: "decay", .. })), "{bad}");
        assert!(matches!(Dropout::new(bad), Err(Error::Setting { .. })), "{bad}");
        assert!(matches!(DropoutChannels::new(bad), Err(Error::Setting { .. })), "{bad}");
        assert!(matches!(MultiHeadAttention::new(4, 2, bad), Err(Error::Setting { .. })), "{bad}");
        let x = binade_autograd::Var::constant(param()[0].1.array().clone());
        assert!(binade_autograd::eval(|| x.dropout(bad)).is_err(), "{bad}");
    }
}

#[test]
fn operators_refuse_numbers_outside_their_domain() {
    use binade_autograd::Var;
    use binade_tensor::op::{Distribution, Reduction};
    let x = Var::constant(
        Array::from_slice(&scope::device().unwrap(), &[1.0f32, 2.0], &[1, 2], Class::Activations).unwrap(),
    );
    for eps in [-1e-5, f64::NAN, f64::INFINITY, 1e39] {
        assert!(
            x.layer_norm(1, None, eps).is_err()
                && x.rms_norm(1, None, eps).is_err()
                && x.group_norm(1, None, eps).is_err(),
            "{eps}"
        );
    }
    for bad in [-1.0, f64::NAN] {
        assert!(x.smooth_l1_loss(&x, bad, Reduction::Mean).is_err(), "{bad}");
        assert!(x.huber_loss(&x, bad, Reduction::Mean).is_err(), "{bad}");
        assert!(Var::normal(0.0, bad, &[2]).is_err(), "{bad}");
        assert!(Init::Normal { mean: 0.0, std: bad }.array(&[2]).is_err(), "{bad}");
        assert!(Init::TruncatedNormal { mean: 0.0, std: bad }.array(&[2]).is_err(), "{bad}");
        assert!(Var::random(Distribution::Uniform { low: 0.0, high: bad }, &[2]).is_err(), "{bad}");
    }
    assert!(x.huber_loss(&x, 0.0, Reduction::Mean).is_err() && x.celu_with(0.0).is_err());
    assert!(x.smooth_l1_loss(&x, 0.0, Reduction::Mean).is_ok() && x.layer_norm(1, None, 0.0).is_ok());
}

#[test]
fn gradients_are_clipped_at_no_limit_below_zero_and_stay_as_they_are() {
    let params = param();
    let mut grads = params[0].1.var().sum(&[], false).unwrap().backward().unwrap();
    let before = grads.by_id(params[0].1.id()).unwrap().to_f64_vec().unwrap();
    for bad in [-1.0, f64::NAN] {
        assert!(matches!(clip_grad_norm(&mut grads, bad), Err(Error::Setting { .. })), "{bad}");
        assert!(matches!(clip_grad_value(&mut grads, bad), Err(Error::Setting { .. })), "{bad}");
    }
    assert_eq!(grads.by_id(params[0].1.id()).unwrap().to_f64_vec().unwrap(), before);
    assert!(clip_grad_norm(&mut grads, f64::INFINITY).is_ok() && clip_grad_value(&mut grads, f64::INFINITY).is_ok());
}
