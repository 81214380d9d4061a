//! Diffusion models without files of others: names, shapes and counts at full size, what configurations are refused,
//! and what times are told apart by.

use std::collections::BTreeMap;

use binade_amp::Policy;
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_models::{
    AutoencoderKL, AutoencoderKLConfig, OneOrEach, Pretrained, UNet2DConditionConfig, UNet2DConditionModel,
    UNet2DConfig, UNet2DModel,
};
use binade_nn::Module;
use binade_tensor::DType;
use binade_tensor::op::Reduction;
use serde_json::{Value, json};

/// Names and shapes: `a.{0-2}.weight 4 4` is three of them.
fn snapshot(text: &str) -> BTreeMap<String, Vec<usize>> {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let shape: Vec<usize> = words.map(|word| word.parse().unwrap()).collect();
        match name.split_once('{') {
            None => drop(all.insert(name.to_string(), shape)),
            Some((before, rest)) => {
                let (range, after) = rest.split_once('}').unwrap();
                let (from, to) = range.split_once('-').unwrap();
                for i in from.parse::<usize>().unwrap()..=to.parse().unwrap() {
                    all.insert(format!("{before}{i}{after}"), shape.clone());
                }
            }
        }
    }
    all
}

fn shapes(model: &dyn Module) -> BTreeMap<String, Vec<usize>> {
    model.named_parameters().into_iter().map(|(name, p)| (name, p.shape().to_vec())).collect()
}

fn sd15() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu",
        "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false,
        "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
    })
}

fn vae() -> Value {
    json!({
        "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
    })
}

fn ddpm_cifar10() -> Value {
    json!({
        "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": null,
        "block_out_channels": [128, 256, 256, 256], "center_input_sample": false,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"], "downsample_padding": 0,
        "flip_sin_to_cos": false, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 32,
        "time_embedding_type": "positional",
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]
    })
}

/// A small model of each kind.
fn small() -> (UNet2DConfig, UNet2DConditionConfig, AutoencoderKLConfig) {
    let unet = UNet2DConfig {
        block_out_channels: vec![8, 16],
        down_block_types: vec!["DownBlock2D".into(), "AttnDownBlock2D".into()],
        up_block_types: vec!["AttnUpBlock2D".into(), "UpBlock2D".into()],
        norm_num_groups: 4,
        layers_per_block: 1,
        ..UNet2DConfig::default()
    };
    let condition = UNet2DConditionConfig {
        block_out_channels: vec![8, 16],
        down_block_types: vec!["CrossAttnDownBlock2D".into(), "DownBlock2D".into()],
        up_block_types: vec!["UpBlock2D".into(), "CrossAttnUpBlock2D".into()],
        norm_num_groups: 4,
        layers_per_block: OneOrEach::One(1),
        attention_head_dim: OneOrEach::One(2),
        cross_attention_dim: OneOrEach::One(6),
        ..UNet2DConditionConfig::default()
    };
    let vae = AutoencoderKLConfig {
        block_out_channels: vec![8, 16],
        down_block_types: vec!["DownEncoderBlock2D".into(); 2],
        up_block_types: vec!["UpDecoderBlock2D".into(); 2],
        norm_num_groups: 4,
        ..AutoencoderKLConfig::default()
    };
    (unet, condition, vae)
}

fn waves(shape: &[usize]) -> Var {
    let x: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.7).sin()).collect();
    Var::from_slice(&x, shape).unwrap()
}

#[test]
fn names_and_shapes_at_full_size_are_those_of_the_library() {
    scope::without_initial_values(|| {
        let unet = UNet2DConditionModel::from_config(&sd15()).unwrap();
        assert_eq!(shapes(&unet), snapshot(include_str!("../names/sd15_unet.txt")));
        assert_eq!((unet.named_parameters().len(), unet.parameter_count()), (686, 859_520_964));
        let vae = AutoencoderKL::from_config(&vae()).unwrap();
        assert_eq!(shapes(&vae), snapshot(include_str!("../names/sd_vae.txt")));
        assert_eq!((vae.named_parameters().len(), vae.parameter_count()), (248, 83_653_863));
        assert_eq!(UNet2DModel::from_config(&ddpm_cifar10()).unwrap().parameter_count(), 35_746_307);
        assert_eq!(UNet2DModel::new(&UNet2DConfig::default()).unwrap().parameter_count(), 6_472_195);
    });
}

#[test]
fn names_of_first_versions_are_found() {
    let (_, _, vae) = small();
    let vae = AutoencoderKL::new(&vae).unwrap();
    let old = |name: &str| {
        let pairs = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        pairs.iter().fold(name.to_string(), |name, (new, old)| name.replace(new, old))
    };
    let own: Vec<String> = vae.named_parameters().into_iter().map(|(name, _)| name).collect();
    let stored = own.iter().map(|name| old(name)).collect();
    let sources = vae.sources(&stored);
    for name in &own {
        assert_eq!(sources.of(name).names(), [old(name)]);
    }
    assert!(vae.sources(&own.iter().cloned().collect()).sources.is_empty());
}

#[test]
fn what_a_configuration_asks_for_and_is_not_built_is_named_with_its_value() {
    let refused = |mut config: Value, key: &str, value: Value| {
        config[key] = value;
        let error = match config["_class_name"].as_str().unwrap() {
            "UNet2DModel" => UNet2DModel::from_config(&config).err(),
            "AutoencoderKL" => AutoencoderKL::from_config(&config).err(),
            _ => UNet2DConditionModel::from_config(&config).err(),
        };
        let error = error.unwrap_or_else(|| panic!("{key} of {} is not refused", config[key])).to_string();
        assert!(error.contains(key), "{key}: {error}");
        error
    };
    for (key, value) in [
        ("addition_embed_type", json!("text_time")),
        ("encoder_hid_dim", json!(1024)),
        ("dual_cross_attention", json!(true)),
        ("class_embed_type", json!("other")),
        ("class_embed_type", json!("projection")),
        ("time_cond_proj_dim", json!(256)),
        ("attention_head_dim", json!([8, 8])),
        ("attention_head_dim", json!(7)),
        ("attention_head_dim", json!(null)),
        ("norm_num_groups", json!(33)),
        ("norm_num_groups", json!(null)),
        ("num_attention_heads", json!(8)),
        ("resnet_out_scale_factor", json!(1.41)),
        ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("down_block_types", json!(vec!["DownBlock2D"; 3])),
        ("up_block_types", json!(vec!["AttnUpBlock2D"; 4])),
        ("act_fn", json!("tanh")),
        ("conv_in_kernel", json!(4)),
        ("unheard_of", json!(1)),
        ("_class_name", json!("UNet2DConditionModelXL")),
    ] {
        refused(sd15(), key, value);
    }
    for (key, value) in [
        ("time_embedding_type", json!("fourier")),
        ("down_block_types", json!(vec!["SkipDownBlock2D"; 4])),
        ("attention_head_dim", json!(7)),
        ("resnet_time_scale_shift", json!("ada_group")),
        ("mid_block_scale_factor", json!(0)),
        ("dropout", json!(1.0)),
        ("freq_shift", json!(64)),
        ("attention_legacy_order", json!(true)),
        ("block_out_channels", json!([])),
    ] {
        refused(ddpm_cifar10(), key, value);
    }
    for (key, value) in [
        ("up_block_types", json!(vec!["AttnUpDecoderBlock2D"; 4])),
        ("latents_mean", json!(vec![0.0; 4])),
        ("scaling_factor", json!(0.0)),
        ("latent_channels", json!(0)),
    ] {
        refused(vae(), key, value);
    }
    assert!(refused(sd15(), "addition_embed_type", json!("text_time")).contains("\"text_time\""));
}

#[test]
fn heads_are_counted_by_one_model_and_measured_by_the_other() {
    // Eight heads of 40 features in a level of 320, and one head of 8 features per 8 channels.
    let (unet, condition, _) = small();
    let condition = UNet2DConditionConfig { attention_head_dim: OneOrEach::Each(vec![4, 16]), ..condition };
    UNet2DConditionModel::new(&condition).unwrap();
    let by = |head| UNet2DModel::new(&UNet2DConfig { attention_head_dim: Some(head), ..unet.clone() });
    assert!(by(16).is_ok() && by(4).is_ok());
    // 16 features are no heads of 32.
    assert!(by(32).err().unwrap().to_string().contains("heads of 32 features do not divide 16 channels"));
}

#[test]
fn a_thousand_times_are_told_apart_in_every_precision() {
    let (unet, _, _) = small();
    let model = UNet2DModel::new(&unet).unwrap();
    let times: Vec<i64> = (0..1000).collect();
    let t = Var::from_slice(&times, &[1000]).unwrap();
    for policy in [Policy::OFF, Policy::autocast(DType::BF16), Policy::autocast(DType::F16)] {
        let embedded = policy.run(|| model.time_features(&t).unwrap());
        assert_eq!(embedded.dtype(), DType::F32);
        let values = embedded.array().to_f64_vec().unwrap();
        let mut rows: Vec<Vec<u64>> = values.chunks(8).map(|row| row.iter().map(|v| v.to_bits()).collect()).collect();
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), 1000);
    }
}

#[test]
fn images_that_cannot_be_halved_and_labels_that_have_no_place_are_refused() {
    let (unet, condition, _) = small();
    let model = UNet2DModel::new(&unet).unwrap();
    let t = Var::from_slice(&[3i64], &[1]).unwrap();
    let error = |x: &[usize]| model.forward(&waves(x), &t, None).err().unwrap().to_string();
    assert!(error(&[1, 3, 8, 7]).contains("multiples of 2"), "{}", error(&[1, 3, 8, 7]));
    assert!(error(&[3, 8, 8]).contains("[N, C, H, W]"), "{}", error(&[3, 8, 8]));
    let labelled = model.forward(&waves(&[1, 3, 8, 8]), &t, Some(&t)).err().unwrap().to_string();
    assert!(labelled.contains("no classes"), "{labelled}");
    // The model with a text brings any size back.
    let model = UNet2DConditionModel::new(&condition).unwrap();
    let out = model.forward(&waves(&[2, 4, 7, 9]), &t, &waves(&[2, 3, 6]), None).unwrap();
    assert_eq!(out.shape().to_vec(), [2, 4, 7, 9]);
}

#[test]
fn scores_of_attention_that_f16_cannot_hold_stay_finite() {
    let (_, condition, _) = small();
    let model = UNet2DConditionModel::new(&condition).unwrap();
    for (name, param) in model.named_parameters() {
        // Queries and keys of some hundreds: scores of 1e5.
        if name.contains("to_q") || name.contains("to_k") {
            let large = (&Var::constant(param.array()) * 600.0).unwrap();
            param.array().copy_from(large.array()).unwrap();
        }
    }
    let t = Var::from_slice(&[3i64], &[1]).unwrap();
    let run = || model.forward(&waves(&[1, 4, 8, 8]), &t, &waves(&[1, 3, 6]), None).unwrap();
    let out = Policy::autocast(DType::F16).run(|| {
        let out = run();
        let loss = out.mse_loss(&waves(&[1, 4, 8, 8]), Reduction::Mean).unwrap();
        let gradients = loss.backward().unwrap();
        let finite = |a: &binade_tensor::Array| a.to_f64_vec().unwrap().iter().all(|v| v.is_finite());
        assert!(gradients.iter().all(|(_, gradient)| finite(gradient)));
        out
    });
    assert!(out.array().to_f64_vec().unwrap().iter().all(|v| v.is_finite()));
}

#[test]
fn blocks_computed_again_change_no_bit_and_no_name() {
    let (unet, condition, vae) = small();
    let bits = |loss: Var, model: &dyn Module| {
        let gradients = loss.backward().unwrap();
        let of = |(name, p): (String, binade_nn::Param)| {
            let values = gradients.by_id(p.id()).unwrap().to_f64_vec().unwrap();
            (name, values.into_iter().map(f64::to_bits).collect::<Vec<_>>())
        };
        (loss.item().unwrap().to_bits(), model.named_parameters().into_iter().map(of).collect::<Vec<_>>())
    };
    let t = Var::from_slice(&[3i64], &[1]).unwrap();
    let run = |recompute| {
        scope::with_key(1, 0, || {
            let unet = UNet2DModel::new(&unet).unwrap().recomputing(recompute);
            let condition = UNet2DConditionModel::new(&condition).unwrap().recomputing(recompute);
            let vae = AutoencoderKL::new(&vae).unwrap().recomputing(recompute);
            let mean = |x: Var| (&x * &x).unwrap().mean(&[0, 1, 2, 3], false).unwrap();
            let first = mean(unet.forward(&waves(&[1, 3, 8, 8]), &t, None).unwrap());
            let second = mean(condition.forward(&waves(&[1, 4, 8, 8]), &t, &waves(&[1, 3, 6]), None).unwrap());
            let latent = vae.encode(&waves(&[1, 3, 8, 8])).unwrap();
            let third =
                (&mean(vae.decode(&latent.mean).unwrap()) + &latent.kl().unwrap().mean(&[0], false).unwrap()).unwrap();
            [bits(first, &unet), bits(second, &condition), bits(third, &vae)]
        })
    };
    for policy in [Policy::OFF, Policy::autocast(DType::BF16)] {
        assert!(policy.run(|| run(true)) == policy.run(|| run(false)), "{policy:?}");
    }
}
