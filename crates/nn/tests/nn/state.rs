//! What optimisers, averages and modules remember: masters, clones, snapshots, copies, loads.

use binade_autograd::{Gradients, Var, eval};
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

// ---- masters of 16-bit parameters

#[test]
fn what_is_written_to_a_16_bit_parameter_after_a_step_stays() {
    for dtype in [DType::F16, DType::BF16] {
        let w = param(&[1.0, 1.0], dtype);
        let mut o = optimizer(&w, Sgd { lr: 0.125, ..Sgd::default() });
        step(&mut o, &w, 1.0);
        w.array().copy_from(&array(&[8.0, -4.0])).unwrap();
        step(&mut o, &w, 1.0);
        assert_eq!(values(&w.array()), [7.875, -4.125], "{dtype}");
    }
}

#[test]
fn digits_of_a_master_stay_where_the_parameter_was_not_changed() {
    // 2⁻¹⁰ is lost in bf16 near 1; the master keeps it, over a write that changes the other element only.
    let w = param(&[1.0, 1.0], DType::BF16);
    let mut o = optimizer(&w, Sgd { lr: 2f64.powi(-10), ..Sgd::default() });
    step(&mut o, &w, -1.0);
    assert_eq!(values(&w.array()), [1.0, 1.0]);
    w.array().copy_from(&array(&[1.0, 3.0])).unwrap();
    step(&mut o, &w, -1.0);
    let master = &o.state_dict().unwrap().tensors[0].1.clone();
    assert_eq!(values(master), [1.0 + 2.0 * 2f64.powi(-10), 3.0 + 2f64.powi(-10)]);
}

#[test]
fn a_restored_master_follows_the_parameter_it_meets() {
    let w = param(&[1.0], DType::BF16);
    let mut o = optimizer(&w, Sgd { lr: 2f64.powi(-10), ..Sgd::default() });
    step(&mut o, &w, -1.0);
    let saved = o.state_dict().unwrap();
    for (start, expected) in [(1.0, 1.0 + 2f64.powi(-9)), (8.0, 8.0 + 2f64.powi(-10))] {
        let w = param(&[0.0], DType::BF16);
        let mut o = optimizer(&w, Sgd { lr: 2f64.powi(-10), ..Sgd::default() });
        o.load_state_dict(&saved).unwrap();
        w.array().copy_from(&array(&[start])).unwrap();
        step(&mut o, &w, -1.0);
        assert_eq!(values(&o.state_dict().unwrap().tensors[0].1), [expected]);
    }
}

#[test]
fn an_evaluation_with_averages_in_place_changes_no_digit_of_training() {
    let run = |evaluate: bool| {
        let model = Linear::without_bias(1, 1).unwrap();
        model
            .weight
            .array()
            .copy_from(&Array::full(&Device::cpu(), DType::F32, model.weight.shape(), 1.0, Class::Weights).unwrap())
            .unwrap();
        let w = Param::new(model.weight.array().cast(DType::BF16, Class::Weights).unwrap());
        let model = Linear { weight: w.clone(), bias: None };
        let mut o = Optimizer::new(&model, AdamW { lr: 3e-3, ..AdamW::default() }).unwrap();
        let mut ema = Ema::new(&model, 0.9).unwrap();
        for _ in 0..3 {
            step(&mut o, &w, 1.0);
            ema.update().unwrap();
            if evaluate {
                ema.with_averages(|| ()).unwrap();
            }
        }
        let master = o.state_dict().unwrap().tensors.pop().unwrap().1;
        (values(&w.array()), values(&master), values(ema.averages().next().unwrap().1))
    };
    assert_eq!(run(true), run(false));
}

// ---- clones and snapshots

#[test]
fn a_clone_of_an_optimiser_goes_on_by_itself() {
    let w = param(&[0.0], DType::F32);
    let mut o = optimizer(&w, Sgd { lr: 1.0, momentum: 0.5, ..Sgd::default() });
    step(&mut o, &w, 1.0);
    let mut clone = o.clone();
    step(&mut o, &w, 100.0);
    w.array().copy_from(&array(&[0.0])).unwrap();
    step(&mut clone, &w, 0.0);
    assert_eq!(values(&w.array()), [-0.5]);
    // And the original by itself: its momentum is 100.5, not what the clone made of it.
    w.array().copy_from(&array(&[0.0])).unwrap();
    step(&mut o, &w, 0.0);
    assert_eq!(values(&w.array()), [-50.25]);
}

#[test]
fn a_kept_state_dict_stays_as_it_was() {
    let w = param(&[1.0], DType::BF16);
    let mut o = optimizer(&w, AdamW::default());
    step(&mut o, &w, 1.0);
    let saved = o.state_dict().unwrap();
    let before: Vec<_> = saved.tensors.iter().map(|(_, a)| values(a)).collect();
    step(&mut o, &w, 5.0);
    assert_eq!(saved.tensors.iter().map(|(_, a)| values(a)).collect::<Vec<_>>(), before);
    assert_eq!((saved.params[0].steps, o.steps()[0].1), (1, 2));
    let mut ema = Ema::new(&Linear::new(1, 1).unwrap(), 0.5).unwrap();
    let (saved, clone) = (ema.state_dict(), ema.clone());
    let before: Vec<_> = saved.tensors.iter().map(|(_, a)| values(a)).collect();
    for (p, _) in ema.averages() {
        p.array().copy_from(&Array::full(&Device::cpu(), DType::F32, p.shape(), 9.0, Class::Weights).unwrap()).unwrap();
    }
    ema.update().unwrap();
    assert_eq!(saved.tensors.iter().map(|(_, a)| values(a)).collect::<Vec<_>>(), before);
    assert_eq!(clone.averages().map(|(_, a)| values(a)).collect::<Vec<_>>(), before);
}

#[derive(Clone, Module)]
struct Tied {
    inner: Sequential,
    weight: Param,
    norm: BatchNorm2d,
    drop: Dropout,
    #[module(skip)]
    note: std::rc::Rc<()>,
}

fn tied() -> Tied {
    let linear = Linear::new(2, 2).unwrap();
    let weight = linear.weight.clone();
    let inner = Sequential::new().then(linear).then(BatchNorm2d::new(2).unwrap());
    Tied {
        inner,
        weight,
        norm: BatchNorm2d::new(3).unwrap(),
        drop: Dropout::new(0.5).unwrap(),
        note: Default::default(),
    }
}

#[test]
fn a_deep_copy_has_the_values_names_and_settings_and_memory_of_its_own() {
    let model = tied();
    model.weight.set_trainable(false);
    model.norm.eval();
    let copy = model.deep_copy().unwrap();
    let all = |m: &Tied| state_dict(m).into_iter().map(|(n, a)| (n, values(&a))).collect::<Vec<_>>();
    let before = all(&model);
    assert_eq!(all(&copy), before);
    for (_, a) in state_dict(&model).iter().filter(|(_, a)| a.dtype() == DType::F32) {
        a.copy_from(&Array::full(&Device::cpu(), DType::F32, *a.shape(), 7.0, Class::Weights).unwrap()).unwrap();
    }
    assert_eq!(all(&copy), before);
    let trainable = |m: &Tied| m.named_parameters().iter().map(|(_, p)| p.is_trainable()).collect::<Vec<_>>();
    assert_eq!(trainable(&copy), trainable(&model));
    assert!(!copy.weight.is_trainable());
    assert_eq!((copy.norm.mode.training(), copy.drop.mode.training()), (Some(false), None));
    // What is tied here is tied there, and nothing is tied across.
    assert_eq!(copy.parameters().len(), model.parameters().len());
    let ids: std::collections::HashSet<_> = model.parameters().iter().map(Param::id).collect();
    assert!(copy.parameters().iter().all(|p| !ids.contains(&p.id())));
    model.set_training(Some(true));
    assert_eq!(copy.drop.mode.training(), None);
    assert!(std::rc::Rc::ptr_eq(&model.note, &copy.note));
}

#[test]
fn a_deep_copy_of_layers_known_at_run_time_computes_the_same_and_trains_alone() {
    let model: Box<dyn Layer> =
        Box::new(Sequential::new().then(Linear::new(3, 2).unwrap()).then(LayerNorm::new(2).unwrap()));
    let teacher = model.deep_copy().unwrap();
    let x = Var::constant(Array::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0], &[1, 3], Class::Activations).unwrap());
    let before = values(teacher.forward(&x).unwrap().array());
    assert_eq!(values(model.forward(&x).unwrap().array()), before);
    let mut o = Optimizer::new(&model, Sgd { lr: 0.1, ..Sgd::default() }).unwrap();
    let _ = o.step(&model.forward(&x).unwrap().square().unwrap().sum(&[], false).unwrap().backward().unwrap()).unwrap();
    assert_ne!(values(model.forward(&x).unwrap().array()), before);
    assert_eq!(values(teacher.forward(&x).unwrap().array()), before);
}

// ---- modes of parts

#[test]
fn a_part_in_evaluation_mode_neither_drops_out_nor_follows_the_batch() {
    let x = Var::constant(Array::from_slice(&Device::cpu(), &[1.0f32; 24], &[2, 3, 2, 2], Class::Activations).unwrap());
    let model = tied();
    let plain = values(x.array());
    assert_ne!(values(model.drop.forward(&x).unwrap().array()), plain);
    // The batch's variance is 0, the running one 1.
    assert!(values(model.norm.forward(&x).unwrap().array()).iter().all(|v| *v == 0.0));
    model.eval();
    assert_eq!(values(model.drop.forward(&x).unwrap().array()), plain);
    assert!(values(model.norm.forward(&x).unwrap().array()).iter().all(|v| *v > 0.99));
    let y = model.norm.forward(&x).unwrap().sum(&[], false).unwrap();
    assert!(y.backward().unwrap().by_id(model.norm.weight.id()).is_some(), "frozen statistics, not weights");
    model.set_training(None);
    assert_ne!(values(model.drop.forward(&x).unwrap().array()), plain);
    // Monte Carlo dropout.
    model.drop.set_training(Some(true));
    assert_ne!(values(eval(|| model.drop.forward(&x)).unwrap().array()), plain);
}

#[test]
fn frozen_parameters_are_not_counted_as_trainable() {
    let model = Linear::new(3, 2).unwrap();
    model.weight.set_trainable(false);
    assert_eq!((model.parameter_count(), model.total_parameter_count()), (2, 8));
}

#[test]
fn parameters_of_one_name_have_no_state_dict() {
    let (a, b) = (param(&[1.0], DType::F32), param(&[1.0], DType::F32));
    let o = optimizer(&a, AdamW::default()).with_group(group(&b), AdamW::default()).unwrap();
    assert!(matches!(o.state_dict(), Err(Error::Names { .. })));
}

// ---- averages

#[test]
fn averages_continue_where_their_snapshot_stands() {
    let run = |interrupted: bool| {
        let model = Linear::without_bias(1, 1).unwrap();
        let set = |v: f64| {
            let array = Array::full(&Device::cpu(), DType::F32, model.weight.shape(), v, Class::Weights).unwrap();
            model.weight.array().copy_from(&array).unwrap();
        };
        set(1.0);
        let mut ema = Ema::new(&model, 0.9).unwrap();
        for v in [2.0, 3.0, 4.0, 5.0] {
            set(v);
            ema.update().unwrap();
            if interrupted && v == 3.0 {
                let state = ema.state_dict();
                ema = Ema::new(&model, 0.5).unwrap();
                ema.load_state_dict(&state).unwrap();
            }
        }
        (values(ema.averages().next().unwrap().1), ema.steps())
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn averages_of_another_model_are_refused_and_change_nothing() {
    let mut ema = Ema::new(&Linear::new(2, 2).unwrap(), 0.9).unwrap();
    let before = ema.state_dict();
    let other = Ema::new(&Linear::new(3, 2).unwrap(), 0.5).unwrap().state_dict();
    let Err(Error::Averages(report)) = ema.load_state_dict(&other) else { panic!("taken") };
    assert_eq!((report.mismatched[0].name.as_str(), report.mismatched[0].found.as_str()), ("weight", "f32 [2, 3]"));
    let Err(Error::Averages(report)) = ema.load_state_dict(&EmaState { tensors: vec![], ..before.clone() }) else {
        panic!("taken")
    };
    assert_eq!(report.missing, ["weight", "bias"]);
    let after = ema.state_dict();
    assert_eq!((after.decay, values(&after.tensors[0].1)), (0.9, values(&before.tensors[0].1)));
}

#[test]
fn the_plain_rule_has_no_warm_up() {
    let model = Linear::without_bias(1, 1).unwrap();
    let full = |v: f64| Array::full(&Device::cpu(), DType::F32, model.weight.shape(), v, Class::Weights).unwrap();
    model.weight.array().copy_from(&full(1.0)).unwrap();
    let mut ema = Ema::new(&model, 0.75).unwrap().without_warm_up();
    model.weight.array().copy_from(&full(2.0)).unwrap();
    ema.update().unwrap();
    assert_eq!(values(ema.averages().next().unwrap().1), [1.25]);
}

#[test]
fn averages_are_taken_out_again_after_a_panic_and_keep_their_digits() {
    let w = param(&[1.0], DType::BF16);
    let model = Linear { weight: w.clone(), bias: None };
    let mut ema = Ema::new(&model, 0.75).unwrap().without_warm_up();
    w.array().copy_from(&array(&[1.0 + 2f32.powi(-7)])).unwrap();
    ema.update().unwrap();
    let average = values(ema.averages().next().unwrap().1);
    assert_ne!(average, values(&array(&[average[0] as f32]).cast(DType::BF16, Class::Weights).unwrap()));
    let run = std::panic::AssertUnwindSafe(|| ema.with_averages(|| panic!("in the evaluation")).unwrap());
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!(values(&w.array()), [1.0 + 2f64.powi(-7)]);
    assert_eq!(ema.with_averages(|| values(&w.array())).unwrap(), [1.0]);
    assert_eq!(values(ema.averages().next().unwrap().1), average);
    ema.swap().unwrap();
    assert!(ema.update().is_err(), "averages would follow themselves");
    ema.swap().unwrap();
    assert_eq!(values(&w.array()), [1.0 + 2f64.powi(-7)]);
}

// ---- loading modules

#[test]
fn arrays_that_share_memory_with_the_model_are_loaded_as_they_were_before() {
    let model = Sequential::new().then(Linear::without_bias(2, 2).unwrap()).then(Linear::without_bias(2, 2).unwrap());
    let own = state_dict(&model);
    let before: Vec<_> = own.iter().map(|(_, a)| values(a)).collect();
    load_state_dict(&model, &own).unwrap();
    assert_eq!(own.iter().map(|(_, a)| values(a)).collect::<Vec<_>>(), before);
    let crossed = vec![(own[0].0.clone(), own[1].1.clone()), (own[1].0.clone(), own[0].1.clone())];
    load_state_dict(&model, &crossed).unwrap();
    assert_eq!(own.iter().rev().map(|(_, a)| values(a)).collect::<Vec<_>>(), before);
}

#[test]
fn a_load_that_cannot_write_every_tensor_writes_none() {
    let model = Linear::new(2, 2).unwrap();
    let zeros = |shape: &[usize]| {
        Array::full(&Device::cpu(), DType::F32, binade_tensor::Shape::new(shape).unwrap(), 0.0, Class::Weights).unwrap()
    };
    let from = vec![("weight".to_string(), zeros(&[2, 2])), ("bias".to_string(), zeros(&[2]))];
    let before = values(&model.weight.array());
    let bias = model.bias.clone().unwrap();
    let array = bias.array();
    let reader = array.storage().read("test").unwrap();
    assert!(load_state_dict(&model, &from).is_err());
    assert_eq!(values(&model.weight.array()), before);
    drop(reader);
    load_state_dict(&model, &from).unwrap();
    assert_eq!(values(&model.weight.array()), [0.0; 4]);
}

#[test]
fn unexpected_and_doubled_names_are_refused() {
    let model = Linear::new(2, 2).unwrap();
    let mut from = state_dict(&model);
    from.push(("running_mean".into(), array(&[0.0])));
    assert!(
        matches!(load_state_dict(&model, &from), Err(Error::Names { unexpected, .. }) if unexpected == ["running_mean"])
    );
    let mut twice = state_dict(&model);
    twice.push(twice[0].clone());
    assert!(matches!(
        load_state_dict(&model, &twice),
        Err(Error::Names { unexpected, .. }) if unexpected == ["a second weight"]
    ));
}

#[test]
fn a_lenient_load_renames_takes_what_fits_and_reports_the_rest() {
    let model = Linear::new(2, 2).unwrap();
    let before = values(&model.bias.as_ref().unwrap().array());
    let weight = Array::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0, 4.0], &[2, 2], Class::Weights).unwrap();
    let from = vec![
        ("module.weight".to_string(), weight),
        ("module.bias".to_string(), array(&[1.0, 2.0, 3.0])),
        ("module.scale".to_string(), array(&[1.0])),
        ("head.weight".to_string(), array(&[1.0])),
    ];
    let report = load_matching(&model, &from, |name| name.strip_prefix("module.").map(str::to_string)).unwrap();
    assert_eq!(values(&model.weight.array()), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(values(&model.bias.as_ref().unwrap().array()), before);
    assert_eq!((report.loaded, report.unexpected), (vec!["weight".to_string()], vec!["module.scale".to_string()]));
    assert_eq!((report.mismatched[0].name.as_str(), report.missing.len()), ("bias", 0));
}
