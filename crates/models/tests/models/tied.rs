//! A tied head in a file is taken where it is the embedding, and told where it is not.

use std::collections::{BTreeSet, HashMap};

use binade_autograd::scope;
use binade_cpu as _;
use binade_models::{Gpt, GptConfig, Pretrained};
use binade_nn::{state_dict, write_safetensors};
use binade_tensor::{Array, Class};
use binade_weights::{LoadOptions, Weights, load};

#[test]
fn a_head_in_the_file_must_be_the_embedding_where_the_configuration_ties_them() {
    let small = GptConfig { vocabulary: 7, context: 4, features: 8, depth: 0, heads: 2, ..GptConfig::default() };
    let model = |seed| scope::with_key(seed, 0, || Gpt::new(&small)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut tensors = state_dict(&model(1));
    let embedding = tensors.iter().find(|(name, _)| name == "transformer.wte.weight").unwrap().1.clone();
    tensors.push(("lm_head.weight".into(), embedding.clone()));
    write_safetensors(&path, &tensors, HashMap::new()).unwrap();
    let into = model(2);
    let take = || {
        let weights = Weights::open(&path).unwrap();
        let names: BTreeSet<String> = weights.names();
        load(&into, &weights, &into.sources(&names), &LoadOptions::default())
    };
    assert_eq!(take().unwrap().ignored, ["lm_head.weight"]);
    let other = Array::full(embedding.device(), embedding.dtype(), *embedding.shape(), 0.5, Class::Weights).unwrap();
    tensors.last_mut().unwrap().1 = other;
    write_safetensors(&path, &tensors, HashMap::new()).unwrap();
    let told = take().unwrap_err().to_string();
    assert!(told.contains("lm_head.weight") && told.contains("transformer.wte.weight"), "{told}");
}
