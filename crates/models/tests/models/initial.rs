//! Initial values are those of the original libraries.

use binade_autograd::scope;
use binade_cpu as _;
use binade_models::{ClipText, ClipTextConfig, Gpt, GptConfig, Pretrained, ResNet, ResNetConfig, Stem, Vit, VitConfig};
use binade_nn::{Module, Param};
use serde_json::json;

/// Mean and standard deviation of a parameter.
fn moments(param: &Param) -> (f64, f64) {
    let values = param.array().to_f64_vec().unwrap();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}

/// Parameters of weights are normal with the deviation that `expected` gives by name; where it gives none they are
/// `constant`, 1 for norms and 0 for biases by default.
fn check(
    model: &impl Module,
    expected: impl Fn(&str, &[usize]) -> Option<f64>,
    constant: impl Fn(&str) -> Option<f64>,
) {
    for (name, param) in model.named_parameters() {
        let (mean, deviation) = moments(&param);
        match expected(&name, &param.shape()) {
            Some(std) => {
                // Four times the deviations that both have over draws.
                let n = param.array().numel() as f64;
                let far = (mean / std).abs() * n.sqrt() > 4.0 || (deviation / std - 1.0).abs() * (2.0 * n).sqrt() > 4.0;
                assert!(!far, "{name}: {mean} ± {deviation}, expected ± {std}");
            }
            None => {
                let value = constant(&name).unwrap_or(if name.ends_with("bias") { 0.0 } else { 1.0 });
                // One number, as far as f32 holds it.
                assert!(
                    (mean - value).abs() <= 1e-7 * value.abs() && deviation <= 1e-7,
                    "{name}: {mean} ± {deviation}"
                );
            }
        }
    }
}

#[test]
fn gpt2() {
    let config = GptConfig { vocabulary: 100, context: 20, features: 64, depth: 4, heads: 2, ..GptConfig::gpt2() };
    let model = scope::with_key(1, 0, || Gpt::new(&config)).unwrap();
    let weight = |name: &str, shape: &[usize]| {
        (shape.len() > 1).then(|| if name.contains("c_proj") { 0.02 / 8f64.sqrt() } else { 0.02 })
    };
    check(&model, weight, |_| None);
}

#[test]
fn vit_of_timm_and_of_transformers() {
    let config = VitConfig { layer_scale: Some(0.125), registers: 40, depth: 2, ..VitConfig::default() };
    let model = scope::with_key(2, 0, || Vit::new(&config)).unwrap();
    let weight = |name: &str, shape: &[usize]| match name {
        "cls_token" | "reg_token" => Some(1e-6),
        // Uniform, of PyTorch's default.
        "patch_embed.proj.weight" | "patch_embed.proj.bias" => Some(1.0 / (48f64 * 3.0).sqrt()),
        _ => (shape.len() > 1).then_some(0.02),
    };
    check(&model, weight, |name| name.ends_with("gamma").then_some(0.125));
    let config = json!({"model_type": "vit", "image_size": 16, "patch_size": 4, "hidden_size": 64,
        "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64, "initializer_range": 0.05});
    let model = scope::with_key(3, 0, || Vit::from_config(&config)).unwrap();
    check(&model, |_, shape| (shape.len() > 1).then_some(0.05), |_| None);
}

#[test]
fn resnet_of_timm_and_of_torchvision() {
    for (bottleneck, last) in [(false, "bn2.weight"), (true, "bn3.weight")] {
        for zero_init in [true, false] {
            let small = ResNetConfig { bottleneck, zero_init, stem: Stem::Halving, ..ResNetConfig::default() };
            let model = scope::with_key(4, 0, || ResNet::new(&small.with_width(8))).unwrap();
            let weight = |name: &str, shape: &[usize]| match (name, shape) {
                (_, [outputs, _, height, width]) => Some((2.0 / (outputs * height * width) as f64).sqrt()),
                ("fc.weight" | "fc.bias", _) => Some(1.0 / (3.0 * if bottleneck { 256f64 } else { 64.0 }).sqrt()),
                _ => None,
            };
            check(&model, weight, |name| {
                (zero_init && name.starts_with("layer") && name.ends_with(last)).then_some(0.0)
            });
        }
    }
}

#[test]
fn clip_text() {
    let config = ClipTextConfig {
        vocabulary: 100,
        context: 20,
        features: 64,
        hidden: 128,
        depth: 2,
        heads: 2,
        deviation_factor: 0.5,
        ..ClipTextConfig::default()
    };
    let model = scope::with_key(5, 0, || ClipText::new(&config)).unwrap();
    let weight = |name: &str, shape: &[usize]| {
        let std = match name {
            _ if name.contains("embedding") => 0.02,
            _ if name.contains("out_proj") => 64f64.powf(-0.5),
            _ if name.contains("fc1") => 128f64.powf(-0.5),
            _ => 64f64.powf(-0.5) * 4f64.powf(-0.5),
        };
        (shape.len() > 1).then_some(0.5 * std)
    };
    check(&model, weight, |_| None);
}
