//! Initial values are those of the original libraries.

use binade_autograd::scope;
use binade_cpu as _;
use binade_models::{
    Airbench, AirbenchConfig, ClipText, ClipTextConfig, Gpt, GptConfig, Pretrained, ResNet, ResNetConfig, Stem, Vit,
    VitConfig, whitening,
};
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
fn check(model: &dyn Module, expected: impl Fn(&str, &[usize]) -> Option<f64>, constant: impl Fn(&str) -> Option<f64>) {
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

/// Patches that go through it have variances of 1 and nothing in common, but where they vary so little that it is held
/// back; convolutions begin as what they get.
#[test]
fn the_first_layer_of_airbench_whitens_and_the_others_begin_as_nothing() {
    let shape = [2, 6, 7];
    let images: Vec<f32> =
        (0..20 * 84).map(|i| ((i * i % 101) as f32 * 0.61).sin() + 0.5 * ((i / 84 * 7 + i % 7) as f32).cos()).collect();
    let values = whitening(&images, shape);
    assert_eq!(values.len(), 16 * 8);
    let mut responses = Vec::new();
    for image in images.chunks(84) {
        for (y, x) in (0..5).flat_map(|y| (0..6).map(move |x| (y, x))) {
            let patch = |i: usize| image[(i / 4 * 6 + y + i / 2 % 2) * 7 + x + i % 2] as f64;
            let of = |row: &[f32]| row.iter().enumerate().map(|(i, &w)| w as f64 * patch(i)).sum::<f64>();
            responses.push(values.chunks(8).map(of).collect::<Vec<f64>>());
        }
    }
    let n = responses.len() as f64;
    for a in 0..8 {
        for b in 0..8 {
            let both = responses.iter().map(|r| r[a] * r[b]).sum::<f64>() / n;
            let near = if a == b { (0.95..1.001).contains(&both) } else { both.abs() < 1e-3 };
            assert!(near, "{a} {b} {both}");
        }
        assert!(responses.iter().all(|r| r[a] == -r[a + 8]));
    }
    let config = AirbenchConfig {
        in_channels: 2,
        size: 9,
        widths: [20, 20, 8],
        whitening: Some(values.clone()),
        ..Default::default()
    };
    let model = Airbench::new(&config).unwrap();
    let of = |name: &str| model.named_parameters().into_iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(of("whiten.weight").array().to_vec::<f32>().unwrap(), values);
    assert!(!of("whiten.weight").is_trainable() && !of("group1.norm1.weight").is_trainable());
    let weights = of("group2.conv1.weight").array().to_vec::<f32>().unwrap();
    for (at, &w) in weights.iter().enumerate() {
        assert_eq!(w, (at / 180 == at % 180 / 9 && at % 9 == 4) as u8 as f32, "{at}");
    }
    let small = AirbenchConfig { size: 8, ..config };
    assert!(Airbench::new(&small).err().unwrap().to_string().contains("at least 9 pixels a side, got 8"));
}
