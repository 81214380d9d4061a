//! Models with 8-bit weights: folded norms, folders there and back, and what is wrong with a folder.

use std::collections::HashMap;
use std::path::Path;

use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_models::{
    AnyModel, Gpt, GptConfig, Quantise, ResNet, ResNetConfig, Rounding, SmallCnn, SmallCnnConfig, Vit, VitConfig,
};
use binade_nn::quantised::{Calibration, Threshold, is_quantised};
use binade_nn::{Layer, Module, read_safetensors, write_safetensors};
use binade_tensor::{Array, Class, DType};
use binade_weights::LoadOptions;

/// A model, and something that it takes.
fn models() -> Vec<(AnyModel, Var)> {
    scope::with_key(4, 0, || {
        let image = |channels| Var::normal(0.0, 1.0, &[3, channels, 16, 16]).unwrap();
        let resnet = ResNetConfig { blocks: vec![1, 1], ..ResNetConfig::default() }.with_width(16);
        let vit = VitConfig { patch: [4; 2], size: [16; 2], depth: 2, classes: 10, ..VitConfig::default() };
        let gpt = GptConfig { vocabulary: 50, context: 16, features: 32, depth: 2, heads: 4, ..GptConfig::gpt2() };
        let tokens = (0..32).map(|i| i * 7 % 50).collect::<Vec<i64>>();
        let cnn = SmallCnnConfig { in_channels: 3, size: 16, ..SmallCnnConfig::default() };
        let resnet = ResNet::new(&resnet).unwrap();
        statistics(&resnet);
        vec![
            (AnyModel::ResNet(resnet), image(3)),
            (AnyModel::Vit(Vit::new(&vit.with_width(32, 4)).unwrap()), image(3)),
            (AnyModel::Gpt(Gpt::new(&gpt).unwrap()), Var::from_slice(&tokens, &[2, 16]).unwrap()),
            (AnyModel::SmallCnn(SmallCnn::new(&cnn).unwrap()), image(3)),
        ]
    })
}

/// Norms as after some training: with statistics, weights and biases of their own.
fn statistics(model: &ResNet) {
    for (name, buffer) in model.named_buffers().into_iter().filter(|(name, _)| name.contains("running")) {
        let array = buffer.array();
        let (low, high) = if name.ends_with("var") { (0.5, 2.0) } else { (-0.5, 0.5) };
        array.copy_from(Var::uniform(low, high, array.shape()).unwrap().array()).unwrap();
    }
    for (name, param) in model.named_parameters().into_iter().filter(|(name, _)| name.contains("bn")) {
        let array = param.array();
        let (low, high) = if name.ends_with("weight") { (0.5, 1.5) } else { (-0.3, 0.3) };
        array.copy_from(Var::uniform(low, high, array.shape()).unwrap().array()).unwrap();
    }
}

fn out(model: &AnyModel, x: &Var) -> Vec<f64> {
    let y = scope::eval(|| match model {
        AnyModel::ResNet(model) => model.forward(x),
        AnyModel::Vit(model) => model.forward(x),
        AnyModel::Gpt(model) => model.forward(x),
        AnyModel::SmallCnn(model) => model.forward(x),
        _ => panic!("not made here"),
    });
    y.unwrap().array().to_f64_vec().unwrap()
}

/// The largest difference as a part of the largest value.
fn off(a: &[f64], b: &[f64]) -> f64 {
    let largest = |v: &mut dyn Iterator<Item = f64>| v.fold(0.0f64, |m, v| m.max(v.abs()));
    largest(&mut a.iter().zip(b).map(|(a, b)| a - b)) / largest(&mut b.iter().copied())
}

fn quantise(rounding: Rounding, keep: &[&str]) -> Quantise {
    Quantise { rounding, keep: keep.iter().map(|k| k.to_string()).collect() }
}

#[test]
fn a_network_without_its_norms_computes_what_it_did() {
    let (model, x) = models().swap_remove(0);
    let before = out(&model, &x);
    let names = |model: &AnyModel| model.module().named_parameters().into_iter().map(|(n, _)| n).collect::<Vec<_>>();
    assert!(names(&model).iter().any(|name| name.contains("bn1")));
    let folded = model.folded().unwrap();
    // Each weight and bias is rounded once more.
    assert!(off(&out(&folded, &x), &before) < 1e-5);
    assert!(names(&folded).iter().all(|name| !name.contains("bn")), "{:?}", names(&folded));
}

#[test]
fn a_folder_gives_the_model_again_bit_for_bit_at_a_quarter_of_its_size() {
    for (i, (model, x)) in models().into_iter().enumerate() {
        for kind in ["float", "dynamic", "static"] {
            let model = AnyModel::of(model.as_any()).unwrap().folded().unwrap();
            // A clone shares its parameters.
            let model = deep(&model);
            let before = out(&model, &x);
            let rounding = match kind {
                "float" => Rounding::WeightOnly,
                "dynamic" => Rounding::Dynamic,
                _ => {
                    let calibration = Calibration::new(model.module());
                    calibration.watch(|| out(&model, &x));
                    Rounding::Static(calibration, Threshold::MinMax)
                }
            };
            let done = model.quantise(&quantise(rounding, &[])).unwrap();
            let after = out(&model, &x);
            assert!(off(&after, &before) < 0.05, "{i} {kind}: {}", off(&after, &before));
            let folder = tempfile::tempdir().unwrap();
            model.save_quantised(&done, &model.to_config(), folder.path()).unwrap();
            let (again, _) = AnyModel::open(folder.path(), &LoadOptions::default()).unwrap();
            let again = out(&again, &x);
            // Convolutions of floats compute with numbers that were rounded once more, or are now made once.
            assert!(again == after || kind == "float" && off(&again, &after) < 1e-6, "{i} {kind}");
        }
    }
}

/// With parameters of its own.
fn deep(model: &AnyModel) -> AnyModel {
    match model {
        AnyModel::ResNet(model) => AnyModel::ResNet(model.deep_copy().unwrap()),
        AnyModel::Vit(model) => AnyModel::Vit(model.deep_copy().unwrap()),
        AnyModel::Gpt(model) => AnyModel::Gpt(model.deep_copy().unwrap()),
        AnyModel::SmallCnn(model) => AnyModel::SmallCnn(model.deep_copy().unwrap()),
        _ => panic!("not made here"),
    }
}

#[test]
fn layers_are_kept_by_pattern_and_a_pattern_of_nothing_is_told() {
    let (model, x) = models().swap_remove(2);
    let done = model.quantise(&quantise(Rounding::Dynamic, &["transformer.h.*.mlp.c_proj", "*wte"])).unwrap();
    assert_eq!(done.kept, ["transformer.wte", "transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"]);
    assert!(is_quantised(model.module()));
    let dtypes: HashMap<String, DType> =
        model.module().named_parameters().into_iter().map(|(name, p)| (name, p.dtype())).collect();
    assert_eq!(dtypes["transformer.wte.weight"], DType::F32);
    assert_eq!(dtypes["transformer.h.0.mlp.c_fc.weight"], DType::I8);
    let folder = tempfile::tempdir().unwrap();
    model.save_quantised(&done, &model.to_config(), folder.path()).unwrap();
    let (again, _) = AnyModel::open(folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(out(&again, &x), out(&model, &x));
    let (model, _) = models().swap_remove(2);
    let error = model.quantise(&quantise(Rounding::Dynamic, &["nothing*", "["])).unwrap_err().to_string();
    assert!(error.contains("nothing*") && error.contains("transformer.h.1.attn.c_attn"), "{error}");
    assert!(!is_quantised(model.module()));
    let unseen = Rounding::Static(Calibration::new(model.module()), Threshold::MinMax);
    let error = model.quantise(&quantise(unseen, &[])).unwrap_err().to_string();
    assert!(error.contains("transformer.h.0.attn.c_attn"), "{error}");
}

/// The tensors of a folder, changed.
fn change(folder: &Path, change: impl FnOnce(&mut Vec<(String, Array)>)) -> String {
    let path = folder.join("model.safetensors");
    let (mut tensors, _) = read_safetensors(&path, Class::Weights).unwrap();
    change(&mut tensors);
    write_safetensors(&path, &tensors, HashMap::new()).unwrap();
    AnyModel::open(folder, &LoadOptions::default()).map(drop).unwrap_err().to_string()
}

#[test]
fn wrong_scales_shapes_and_settings_of_a_folder_are_told_by_name() {
    let (model, _) = models().swap_remove(3);
    let done = model.quantise(&quantise(Rounding::Dynamic, &[])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let again = || model.save_quantised(&done, &model.to_config(), folder.path()).unwrap();
    let of = |values: &[f32], shape: &[usize]| {
        Array::from_slice(&scope::device().unwrap(), values, shape, Class::Weights).unwrap()
    };
    let at = |tensors: &mut Vec<(String, Array)>, name: &str| tensors.iter().position(|(n, _)| n == name).unwrap();
    again();
    for (bad, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "finite"), (-1.0, "above 0")] {
        let error = change(folder.path(), |tensors| {
            let i = at(tensors, "f2.weight_scale");
            tensors[i].1 = of(&[bad; 10], &[10]);
        });
        assert!(error.contains("f2.weight_scale") && error.contains(word), "{error}");
        again();
    }
    let error = change(folder.path(), |tensors| {
        let i = at(tensors, "f2.weight_scale");
        tensors[i].1 = of(&[1.0; 9], &[9]);
    });
    assert!(error.contains("f2.weight_scale") && error.contains("[9]"), "{error}");
    again();
    let error = change(folder.path(), |tensors| {
        let i = at(tensors, "f1.weight_scale");
        tensors.remove(i);
    });
    assert!(error.contains("missing: f1.weight_scale"), "{error}");
    again();
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    for (from, to, word) in [
        ("\"dynamic\"", "\"magic\"", "magic"),
        ("\"bits\": 8", "\"bits\": 4", "bits"),
        ("\"kept\"", "\"kept_\"", "kept_"),
    ] {
        std::fs::write(&config, text.replace(from, to)).unwrap();
        let error = AnyModel::open(folder.path(), &LoadOptions::default()).map(drop).unwrap_err().to_string();
        assert!(error.contains("quantization_config") && error.contains(word), "{error}");
    }
}
