//! Modules into files, and back.

use binade_cpu as _;
use binade_nn::{Linear, Module, Param, Visitor, state_dict};
use binade_tensor::DType;
use binade_weights::{Error, LoadOptions, SaveOptions, Source, Sources, Weights, load, save};

#[derive(Clone, Module)]
struct Net {
    first: Linear,
    second: Linear,
    tied: Param,
}

fn net() -> Net {
    let second = Linear::without_bias(70, 66).unwrap();
    Net { first: Linear::new(33, 70).unwrap(), tied: second.weight.clone(), second }
}

fn bits(net: &Net) -> Vec<Vec<u64>> {
    state_dict(net).iter().map(|(_, a)| a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect()).collect()
}

fn sources() -> Sources {
    let sources = [
        ("first.weight", Source::Transposed("c_fc.weight".into())),
        ("first.bias", Source::Parts(vec!["q.bias".into(), "k.bias".into()])),
        ("second.weight", Source::Reshaped("conv.weight".into(), vec![66, 70, 1, 1])),
    ];
    Sources { sources: sources.into_iter().map(|(n, s)| (n.to_string(), s)).collect(), ignored: vec![] }
}

#[test]
fn what_is_saved_is_loaded_again_bit_for_bit_under_any_names_and_in_any_shards() {
    for sources in [Sources::default(), sources()] {
        for max_shard_size in [u64::MAX, 20_000, 1] {
            let (folder, before, after) = (tempfile::tempdir().unwrap(), net(), net());
            let options = SaveOptions { max_shard_size, ..SaveOptions::default() };
            save(&before, folder.path(), &sources, &options).unwrap();
            let weights = Weights::open(folder.path()).unwrap();
            let files = weights.files().count();
            assert_eq!(
                files,
                if max_shard_size == u64::MAX {
                    1
                } else if max_shard_size == 1 {
                    weights.names().len()
                } else {
                    2
                }
            );
            load(&after, &weights, &sources, &LoadOptions::default()).unwrap();
            assert_eq!(bits(&before), bits(&after));
            assert_eq!(weights.metadata().get("format").map(String::as_str), Some("pt"));
            assert!(!weights.names().contains("tied"));
        }
    }
}

#[test]
fn a_save_of_another_number_of_shards_leaves_none_of_the_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.fp16.safetensors"), "kept").unwrap();
    let with = |max_shard_size| {
        save(&net(), folder.path(), &Sources::default(), &SaveOptions { max_shard_size, ..SaveOptions::default() })
            .unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.retain(|name| name != "model.fp16.safetensors");
        names
    };
    let index = "model.safetensors.index.json";
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", index];
    assert_eq!(with(20_000), shards);
    assert_eq!(with(1).len(), 4);
    assert_eq!(with(20_000), shards);
    assert_eq!(with(u64::MAX), ["model.safetensors"]);
}

#[test]
fn narrower_files_hold_the_nearest_values_and_say_what_was_lost() {
    for dtype in [DType::F16, DType::BF16] {
        let (folder, before, after) = (tempfile::tempdir().unwrap(), net(), net());
        let options = SaveOptions { dtype: Some(dtype), ..SaveOptions::default() };
        save(&before, folder.path(), &sources(), &options).unwrap();
        load(&after, &Weights::open(folder.path()).unwrap(), &sources(), &LoadOptions::default()).unwrap();
        for ((_, before), (_, after)) in state_dict(&before).iter().zip(state_dict(&after)) {
            let rounded = before.cast(dtype, binade_tensor::Class::Workspace).unwrap();
            assert_eq!(rounded.to_f64_vec().unwrap(), after.to_f64_vec().unwrap());
        }
    }
}

#[test]
fn values_that_overflow_are_refused_before_a_file_is_touched() {
    let (folder, net) = (tempfile::tempdir().unwrap(), net());
    let large = net.first.bias.clone().unwrap().array();
    let values = vec![1e5f32; 70];
    let from =
        binade_tensor::Array::from_slice(large.device(), &values, &[70], binade_tensor::Class::Workspace).unwrap();
    large.copy_from(&from).unwrap();
    let options = SaveOptions { dtype: Some(DType::F16), ..SaveOptions::default() };
    let Err(Error::Misfit { report, .. }) = save(&net, folder.path(), &Sources::default(), &options) else {
        panic!("saved")
    };
    assert!(report.to_string().contains("first.bias: 70 overflow in f16, largest 1.0000e5"), "{report}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    save(&net, folder.path(), &Sources::default(), &SaveOptions { allow_overflow: true, ..options }).unwrap();
    assert_eq!(crate::common::values(&Weights::open(folder.path()).unwrap(), "first.bias")[0], f64::INFINITY);
}

/// The order, the header and the padding are those of the format's own library.
#[test]
fn files_are_those_of_the_formats_own_library_byte_for_byte() {
    let (folder, net) = (tempfile::tempdir().unwrap(), net());
    save(&net, folder.path(), &Sources::default(), &SaveOptions::default()).unwrap();
    let found = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = state_dict(&net)
        .iter()
        .filter(|(name, _)| name != "tied")
        .map(|(name, a)| (name.clone(), a.shape().to_vec(), a.device().download(a).unwrap()))
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    assert!(found == safetensors::serialize(views, Some(metadata)).unwrap());
}
