//! Operators belong to the layer that runs them, by the model's structure, whatever was made of the model before.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::common::{Subject, bits, subject};
use binade_amp::{CastPolicy, LossScale, Policy, Training};
use binade_autograd::scope::{self, Event, Phase};
use binade_cpu as _;
use binade_nn::{AdamW, Optimizer, Sgd, state_dict};
use binade_tensor::DType;

const MODELS: [&str; 5] = ["small_cnn", "resnet", "vit", "gpt", "unet"];

/// Operators without parameters, or in front of a layer's first one, with the layer that runs them and one that does
/// not.
const CASES: [(&str, &str, &str, &str); 13] = [
    ("resnet", "add", "layer1.0", "layer1.0.bn2"),
    ("resnet", "relu", "layer2.0", "layer2.0.downsample"),
    ("resnet", "conv2d", "layer2.0.downsample", "layer2.0.bn2"),
    ("vit", "add", "blocks.1", "blocks.0.mlp"),
    ("vit", "scaled_dot_product_attention", "blocks.0.attn", "blocks.0.attn.qkv"),
    ("vit", "layer_norm", "blocks.1.norm1", "blocks.1.mlp"),
    ("gpt", "add", "transformer.h.0", "transformer.wpe"),
    ("gpt", "scaled_dot_product_attention", "transformer.h.1.attn", "transformer.h.1.ln_1"),
    ("gpt", "embedding", "transformer.wpe", "transformer.h"),
    ("unet", "add", "down.0.stages.0.block", "down.0.stages.0.block.c2"),
    ("unet", "scaled_dot_product_attention", "down.1.stages.0.attention", "down.1.stages.0.block"),
    ("unet", "add", "middle_attention", "middle1.n1"),
    ("unet", "group_norm", "up.0.stages.0.block.n1", "middle2.c1"),
];

/// The operators of a forward pass with their layers, in order.
fn operators(loss: &dyn Fn() -> binade_amp::Result<binade_autograd::Var>) -> Vec<(String, String)> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let observer: scope::Observer = Arc::new(move |event: &Event<'_>| {
        if event.phase == Phase::Forward {
            sink.lock().unwrap().push((event.op.name().to_string(), event.path.to_string()));
        }
    });
    scope::with_observer(observer, || loss().unwrap());
    std::mem::take(&mut *seen.lock().unwrap())
}

fn fresh(name: &str) -> Subject {
    scope::with_key(5, 0, || subject(name))
}

#[test]
fn operators_without_parameters_belong_to_the_module_that_runs_them() {
    for (model, op, layer, other) in CASES {
        let seen: BTreeSet<(String, String)> = operators(&*fresh(model).loss).into_iter().collect();
        let inside = |layer: &str| {
            seen.iter()
                .any(|(name, path)| name.starts_with(op) && (path == layer || path.starts_with(&format!("{layer}."))))
        };
        assert!(inside(layer), "{model}: no {op} in {layer}: {seen:?}");
        assert!(!inside(other), "{model}: {op} in {other}");
    }
    // Between two layers it is the model itself that pools, and that joins.
    for (model, op) in [("small_cnn", "max_pool2d"), ("vit", "cat"), ("unet", "cat"), ("resnet", "mean")] {
        let seen = operators(&*fresh(model).loss);
        assert!(seen.iter().filter(|(name, _)| name == op).all(|(_, path)| path.is_empty()), "{model}: {op}");
    }
}

#[test]
fn an_exception_for_a_layer_holds_for_its_operators_without_parameters() {
    for (model, op, layer, other) in CASES {
        let Subject { loss, .. } = fresh(model);
        let refused = |layer: &str| {
            let policy = Policy::autocast(DType::F16).except(op, layer, CastPolicy::Banned).unwrap();
            policy.run(&loss).map_err(|e| e.to_string())
        };
        let error = refused(layer).err().unwrap_or_else(|| panic!("{model}: {op} ran in {layer}"));
        assert!(error.contains(&format!("(in {layer}")), "{model}: {error}");
        refused(other).unwrap_or_else(|e| panic!("{model}: {op} in {other}: {e}"));
    }
}

#[test]
fn the_layers_of_operators_are_the_same_whatever_was_made_of_the_model() {
    for name in MODELS {
        let expected = operators(&*fresh(name).loss);
        let check = |what: &str, subject: &Subject| assert_eq!(operators(&*subject.loss), expected, "{name}: {what}");
        let again = fresh(name);
        check("fresh", &again);
        check("a second time", &again);
        let part = fresh(name);
        let last = part.model.named_parameters().pop().unwrap().1;
        check("named", &part);
        let of_part = Optimizer::empty().with_group(vec![("w".into(), last.clone())], Sgd::default()).unwrap();
        check("an optimiser of a part", &part);
        drop((of_part, state_dict(&last)));
        check("a state dict of a part", &part);
        let whole = fresh(name);
        let _optimizer = Optimizer::new(&whole.model, AdamW::default()).unwrap();
        check("an optimiser", &whole);
        let _state = state_dict(&whole.model);
        check("a state dict", &whole);
    }
}

#[test]
fn six_steps_in_one_go_are_three_and_three_on_another_thread() {
    let policy = |first: &str, second: &str| {
        let half = Policy::autocast(DType::F16);
        half.except("add", first, CastPolicy::F32).unwrap().except("*", second, CastPolicy::F32).unwrap()
    };
    let blocks = [
        ("resnet", "layer1.0", "layer2.0"),
        ("vit", "blocks.0", "blocks.1"),
        ("gpt", "transformer.h.0", "transformer.h.1"),
    ];
    for (name, first, second) in blocks {
        let run = |cut: usize| {
            let made = fresh(name);
            let optimizer = Optimizer::new(&made.model, AdamW::default()).unwrap();
            let mut training = Training::new(optimizer, policy(first, second), LossScale::dynamic()).unwrap();
            let steps = |training: &mut Training, n: usize| {
                for _ in 0..n {
                    let _outcome = training.step(&made.loss).unwrap();
                }
            };
            steps(&mut training, cut);
            // What runs in between decides about nothing.
            let other = fresh(name);
            other.model.assign_names();
            operators(&*other.loss);
            steps(&mut training, 6 - cut);
            state_dict(&made.model).iter().map(|(_, a)| bits(a)).collect::<Vec<_>>()
        };
        let whole = run(6);
        assert!(whole == run(3), "{name}");
        assert!(std::thread::scope(|s| s.spawn(|| whole == run(3)).join().unwrap()), "{name} on another thread");
    }
}
