//! Names and shapes of full-size models are those of the original libraries' state dicts, and so are the numbers of
//! parameters. `names/` has them, a line for each: `{0-11}` stands for twelve names.

use std::collections::{BTreeMap, BTreeSet};

use binade_cpu as _;
use binade_models::{ClipText, ClipTextConfig, Gpt, Pretrained, ResNet, Vit};
use binade_nn::{Module, state_dict, without_initial_values};
use binade_weights::Source;
use serde_json::{Value, json};

/// What a file with the library's own names has.
fn stored(model: &impl Pretrained) -> BTreeMap<String, Vec<usize>> {
    let sources = model.sources(&BTreeSet::new());
    let mut found = BTreeMap::new();
    for (name, array) in state_dict(model) {
        let mut shape = array.shape().to_vec();
        match sources.of(&name) {
            Source::Tensor(name) => drop(found.insert(name, shape)),
            Source::Transposed(name) => {
                shape.reverse();
                found.insert(name, shape);
            }
            other => panic!("{name} is at {other:?}"),
        }
    }
    found
}

fn listed(text: &str) -> BTreeMap<String, Vec<usize>> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let (name, shape) = line.split_once(' ').unwrap_or((line, ""));
        let shape: Vec<usize> = shape.split_whitespace().map(|n| n.parse().unwrap()).collect();
        match name.split_once('{') {
            None => drop(found.insert(name.to_string(), shape)),
            Some((before, rest)) => {
                let (range, after) = rest.split_once('}').unwrap();
                let (first, last) = range.split_once('-').unwrap();
                for i in first.parse::<usize>().unwrap()..=last.parse().unwrap() {
                    found.insert(format!("{before}{i}{after}"), shape.clone());
                }
            }
        }
    }
    found
}

fn check<M: Pretrained>(config: &Value, text: &str, parameters: usize) {
    let model = without_initial_values(|| M::from_config(config)).unwrap();
    assert_eq!(stored(&model), listed(text));
    assert_eq!(model.parameter_count(), parameters);
    // And the configuration that it writes is that of the same model.
    assert_eq!(without_initial_values(|| M::from_config(&model.to_config())).unwrap().to_config(), model.to_config());
}

#[test]
fn resnet50() {
    check::<ResNet>(&json!({"architecture": "resnet50"}), include_str!("../names/resnet50.txt"), 25_557_032);
}

#[test]
fn vit_large() {
    let config = json!({"architecture": "vit_large_patch16_224"});
    check::<Vit>(&config, include_str!("../names/vit_large_patch16_224.txt"), 304_326_632);
}

#[test]
fn gpt2() {
    check::<Gpt>(&json!({"model_type": "gpt2"}), include_str!("../names/gpt2.txt"), 124_439_808);
}

#[test]
fn gpt2_xl() {
    let config = json!({"model_type": "gpt2", "n_embd": 1600, "n_head": 25, "n_layer": 48});
    check::<Gpt>(&config, include_str!("../names/gpt2_xl.txt"), 1_557_611_200);
}

#[test]
fn clip_text() {
    check::<ClipText>(&ClipTextConfig::default().write(), include_str!("../names/clip_text.txt"), 123_060_480);
}

#[test]
fn other_extents_have_the_numbers_of_parameters_that_their_libraries_publish() {
    let count = |config: Value| {
        without_initial_values(|| match config["architecture"].as_str() {
            None => Gpt::from_config(&config).unwrap().parameter_count(),
            Some(name) if name.starts_with("resnet") => ResNet::from_config(&config).unwrap().parameter_count(),
            Some(_) => Vit::from_config(&config).unwrap().parameter_count(),
        })
    };
    let named = |name: &str| count(json!({"architecture": name}));
    assert_eq!(named("resnet18"), 11_689_512);
    assert_eq!(named("resnet34"), 21_797_672);
    assert_eq!(named("resnet101"), 44_549_160);
    assert_eq!(named("vit_tiny_patch16_224"), 5_717_416);
    assert_eq!(named("vit_small_patch16_224"), 22_050_664);
    assert_eq!(named("vit_base_patch16_224"), 86_567_656);
    assert_eq!(named("vit_small_patch14_dinov2"), 22_056_192);
    let gpt = |width: usize, heads: usize, depth: usize| {
        count(json!({"model_type": "gpt2", "n_embd": width, "n_head": heads, "n_layer": depth}))
    };
    assert_eq!([gpt(1024, 16, 24), gpt(1280, 20, 36)], [354_823_168, 774_030_080]);
}
