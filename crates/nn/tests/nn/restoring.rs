//! What fits of a snapshot is restored whatever else is in it, and the report tells each thing once.

use binade_autograd::Gradients;
use binade_cpu as _;
use binade_nn::{AdamW, LoadReport, Optimizer, OptimizerState, Param, Rule, Sgd};
use binade_tensor::{Array, Class, DType, Device};

fn param(values: &[f32], dtype: DType) -> Param {
    let array = Array::from_slice(&Device::cpu(), values, &[values.len()], Class::Weights).unwrap();
    Param::new(array.cast(dtype, Class::Weights).unwrap())
}

fn step(optimizer: &mut Optimizer, params: &[Param], value: f64) {
    let mut grads = Gradients::default();
    for p in params {
        grads.insert(p.id(), Array::full(&Device::cpu(), DType::F32, p.shape(), value, Class::Gradients).unwrap());
    }
    let _ = optimizer.step(&grads).unwrap();
}

/// Parameters a, b, … under a rule each.
fn optimizer(rules: &[Rule], dtype: DType) -> (Vec<Param>, Optimizer) {
    let (mut params, mut optimizer) = (Vec::new(), Optimizer::empty());
    for (rule, name) in rules.iter().zip(["a", "b", "c"]) {
        params.push(param(&[1.0, 2.0], dtype));
        optimizer = optimizer.with_group(vec![(name.into(), params.last().unwrap().clone())], rule.clone()).unwrap();
    }
    (params, optimizer)
}

fn stepped(rules: &[Rule], dtype: DType) -> OptimizerState {
    let (params, mut optimizer) = optimizer(rules, dtype);
    (0..2).for_each(|_| step(&mut optimizer, &params, 0.5));
    optimizer.state_dict().unwrap()
}

fn adam() -> Rule {
    AdamW { lr: 0.01, ..AdamW::default() }.into()
}

fn momentum() -> Rule {
    Sgd { momentum: 0.5, ..Sgd::default() }.into()
}

fn names(steps: &[(String, u64)]) -> Vec<(&str, u64)> {
    steps.iter().map(|(name, steps)| (name.as_str(), *steps)).collect()
}

fn mismatched(report: &LoadReport) -> Vec<&str> {
    report.mismatched.iter().map(|m| m.name.as_str()).collect()
}

#[test]
fn a_parameter_of_another_rule_keeps_none_of_the_others_from_its_state() {
    for other in [[momentum(), adam(), adam()], [adam(), momentum(), adam()], [adam(), adam(), momentum()]] {
        let changed = ["a", "b", "c"][other.iter().position(|rule| *rule == momentum()).unwrap()];
        let (_, mut here) = optimizer(&other, DType::F32);
        let report = here.load_matching(&stepped(&[adam(), adam(), adam()], DType::F32)).unwrap();
        assert_eq!(mismatched(&report), [changed]);
        assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
        let kept: Vec<(&str, u64)> = [("a", 2), ("b", 2), ("c", 2)].into_iter().filter(|k| k.0 != changed).collect();
        assert_eq!(names(&here.steps()), kept);
        assert_eq!(report.loaded, kept.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}

#[test]
fn a_master_that_is_missing_is_made_from_its_parameter_and_a_moment_that_is_missing_is_not_made() {
    let whole = stepped(&[adam(), adam()], DType::BF16);
    for (missing, restored) in [("a.0", vec![("b", 2)]), ("a.master", vec![("a", 2), ("b", 2)])] {
        let mut torn = whole.clone();
        torn.tensors.retain(|(name, _)| name != missing);
        let (params, mut here) = optimizer(&[adam(), adam()], DType::BF16);
        let report = here.load_matching(&torn).unwrap();
        assert_eq!((report.missing.as_slice(), mismatched(&report).len()), (&[missing.to_string()][..], 0));
        assert_eq!(names(&here.steps()), restored);
        step(&mut here, &params, 0.5);
        let state = here.state_dict().unwrap();
        let master = &state.tensors.iter().find(|(name, _)| name == "a.master").unwrap().1;
        let near = |(m, p): (f64, f64)| (m - p).abs() < 0.02;
        assert!(master.to_f64_vec().unwrap().into_iter().zip([1.0, 2.0]).all(near), "{master:?}");
    }
}

#[test]
fn a_moment_of_another_shape_is_told_beside_a_master_that_is_missing() {
    let mut torn = stepped(&[adam()], DType::BF16);
    torn.tensors.retain(|(name, _)| name != "a.master");
    torn.tensors[0].1 =
        Array::full(&Device::cpu(), DType::F32, binade_tensor::Shape::new(&[3]).unwrap(), 0.0, Class::Optimizer)
            .unwrap();
    let (_, mut here) = optimizer(&[adam()], DType::BF16);
    let report = here.load_matching(&torn).unwrap();
    assert_eq!((mismatched(&report), report.missing.as_slice()), (vec!["a.0"], &["a.master".to_string()][..]));
    assert!(here.steps().is_empty() && report.loaded.is_empty());
}
