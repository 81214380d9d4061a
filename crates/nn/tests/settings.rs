//! Settings outside their domain are refused where they are taken, by name.

use binade_nn::*;
use binade_tensor::{Array, Class, Device, Update};

fn param() -> Vec<(String, Param)> {
    vec![("w".into(), Param::new(Array::from_slice(&Device::cpu(), &[1.0f32], &[1], Class::Weights).unwrap()))]
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
    let taken = |rule: Rule| Optimizer::empty().with_group(param(), rule.clone()).unwrap_or_else(|e| panic!("{rule:?}: {e}"));
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
