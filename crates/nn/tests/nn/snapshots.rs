//! Snapshots of optimisers: what they bring back, and which are refused.

use binade_autograd::Gradients;
use binade_cpu as _;
use binade_nn::*;
use binade_tensor::{Array, Class, DType, Device};

fn array(values: &[f32]) -> Array {
    Array::from_slice(&Device::cpu(), values, &[values.len()], Class::Weights).unwrap()
}

fn param(values: &[f32], dtype: DType) -> Param {
    Param::new(array(values).cast(dtype, Class::Weights).unwrap())
}

fn group(param: &Param) -> Vec<(String, Param)> {
    vec![("w".into(), param.clone())]
}

fn optimizer(param: &Param, rule: impl Into<Rule>) -> Optimizer {
    Optimizer::empty().with_group(group(param), rule).unwrap()
}

/// A step with the gradient `value` at every element.
fn step(optimizer: &mut Optimizer, param: &Param, value: f64) {
    let mut grads = Gradients::default();
    grads.insert(param.id(), Array::full(&Device::cpu(), DType::F32, param.shape(), value, Class::Gradients).unwrap());
    let _ = optimizer.step(&grads).unwrap();
}

fn values(array: &Array) -> Vec<f64> {
    array.to_f64_vec().unwrap()
}

fn saved(rule: impl Into<Rule>, dtype: DType) -> OptimizerState {
    let w = param(&[1.0, 2.0], dtype);
    let mut o = optimizer(&w, rule);
    step(&mut o, &w, 1.0);
    o.state_dict().unwrap()
}

/// Why a snapshot is refused by an optimiser of its own kind, which is left as it was.
fn refusal(state: &OptimizerState, rule: impl Into<Rule>, dtype: DType) -> LoadReport {
    let w = param(&[1.0, 2.0], dtype);
    let mut o = optimizer(&w, rule);
    step(&mut o, &w, 3.0);
    let before = o.state_dict().unwrap();
    let error = o.load_state_dict(state).unwrap_err();
    let after = o.state_dict().unwrap();
    assert_eq!(before.params, after.params);
    let all = |s: &OptimizerState| s.tensors.iter().map(|(n, a)| (n.clone(), values(a))).collect::<Vec<_>>();
    assert_eq!(all(&before), all(&after));
    match error {
        Error::OptimizerState(report) => *report,
        other => panic!("{other}"),
    }
}

#[test]
fn a_snapshot_restores_moments_masters_counts_and_the_factor() {
    for dtype in [DType::F32, DType::BF16] {
        let run = |interrupted: bool| {
            let w = param(&[1.0, 2.0], dtype);
            let mut o = optimizer(&w, AdamW { lr: 0.01, ..AdamW::default() });
            o.set_lr_factor(0.5).unwrap();
            step(&mut o, &w, 1.0);
            if interrupted {
                let state = o.state_dict().unwrap();
                o = optimizer(&w, AdamW { lr: 0.01, ..AdamW::default() });
                o.load_state_dict(&state).unwrap();
            }
            (0..3).for_each(|_| step(&mut o, &w, 0.1));
            (
                values(&w.array()),
                o.state_dict().unwrap().tensors.iter().map(|(_, a)| values(a)).collect::<Vec<_>>(),
                o.lr(),
            )
        };
        assert_eq!(run(true), run(false), "{dtype}");
    }
}

#[test]
fn a_snapshot_of_another_rule_is_refused() {
    let momentum = Sgd { momentum: 0.9, ..Sgd::default() };
    let report = refusal(&saved(momentum, DType::F32), Adam::default(), DType::F32);
    assert_eq!((report.mismatched[0].found.as_str(), report.mismatched.len()), ("state of sgd", 1));
    assert_eq!((report.missing.len(), report.unexpected.len()), (0, 0));
    let report = refusal(&saved(momentum, DType::F32), Sgd::default(), DType::F32);
    assert_eq!(report.unexpected, ["w.0"]);
    let report = refusal(&saved(Sgd::default(), DType::F32), momentum, DType::F32);
    assert_eq!(report.missing, ["w.0"]);
}

#[test]
fn a_snapshot_in_which_something_is_missing_or_too_much_is_refused() {
    let good = saved(AdamW::default(), DType::BF16);
    for (i, name) in ["w.0", "w.1", "w.master"].into_iter().enumerate() {
        let mut state = good.clone();
        assert_eq!(state.tensors.remove(i).0, name);
        assert_eq!(refusal(&state, AdamW::default(), DType::BF16).missing, [name]);
    }
    let mut extra = good.clone();
    extra.tensors.push(("w.2".into(), array(&[0.0, 0.0])));
    assert_eq!(refusal(&extra, AdamW::default(), DType::BF16).unexpected, ["w.2"]);
    let mut uncounted = good.clone();
    uncounted.params[0].steps = 0;
    assert_eq!(refusal(&uncounted, AdamW::default(), DType::BF16).unexpected, ["w.0", "w.1", "w.master"]);
    let mut renamed = good.clone();
    renamed.params[0].name = "v".into();
    let report = refusal(&renamed, AdamW::default(), DType::BF16);
    assert_eq!((report.missing, &report.unexpected[0]), (vec!["w".to_string()], &"v".to_string()));
    let mut twice = good.clone();
    twice.params.push(twice.params[0].clone());
    assert_eq!(refusal(&twice, AdamW::default(), DType::BF16).unexpected, ["a second w"]);
    let mut other = good.clone();
    other.tensors[1].1 = array(&[1.0, 2.0, 3.0]);
    assert_eq!(refusal(&other, AdamW::default(), DType::BF16).mismatched[0].name, "w.1");
    let mut narrow = good;
    narrow.tensors[0].1 = narrow.tensors[0].1.cast(DType::BF16, Class::Optimizer).unwrap();
    assert_eq!(refusal(&narrow, AdamW::default(), DType::BF16).mismatched[0].found, "bf16 [2]");
}

#[test]
fn what_fits_of_a_snapshot_can_be_taken_with_a_report() {
    let (a, b) = (param(&[1.0], DType::F32), param(&[1.0], DType::F32));
    let named = |n: &str, p: &Param| vec![(n.to_string(), p.clone())];
    let mut o = Optimizer::empty().with_group(named("a", &a), AdamW::default()).unwrap();
    step(&mut o, &a, 1.0);
    let mut other = Optimizer::empty().with_group(named("a", &a), AdamW::default()).unwrap();
    other = other.with_group(named("b", &b), AdamW::default()).unwrap();
    let report = other.load_matching(&o.state_dict().unwrap()).unwrap();
    assert_eq!((report.loaded, report.missing), (vec!["a".to_string()], vec!["b".to_string()]));
    assert_eq!(other.steps(), [("a".to_string(), 1)]);
}

#[test]
fn what_is_loaded_lies_as_an_optimisers_own_state_does() {
    let w = param(&[1.0, 2.0], DType::F32);
    let adam = AdamW::default();
    let parts = |class| Array::from_slice(&Device::cpu(), &[0.0f32, 1.0, 2.0, 3.0], &[4], class).unwrap();
    let view = |class| parts(class).with_layout(parts(class).layout().narrow(0, 1, 2)).unwrap();
    // Another use's memory, a part of something larger, both.
    for given in [array(&[1.0, 2.0]), view(Class::Optimizer), view(Class::Weights)] {
        let mut state = saved(adam, DType::F32);
        state.tensors[0].1 = given.clone();
        let mut o = optimizer(&w, adam);
        o.load_state_dict(&state).unwrap();
        let (_, taken) = &o.state_dict().unwrap().tensors[0];
        assert_eq!(values(taken), [1.0, 2.0]);
        assert!(taken.is_whole() && taken.storage().class() == Class::Optimizer, "{given:?}");
    }
}
