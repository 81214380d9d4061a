//! Every key of a `config.json` is used, known to change nothing, or refused by name and value.

use binade_cpu as _;
use binade_models::{ClipText, Gpt, Pretrained, ResNet, Vit};
use binade_nn::Module;
use serde_json::{Value, json};

/// A configuration with some keys more.
fn with(mut config: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        match (config.get_mut(key), value) {
            (Some(Value::Object(inner)), Value::Object(more)) => inner.extend(more.clone()),
            _ => config[key] = value.clone(),
        }
    }
    config
}

fn gpt() -> Value {
    json!({"model_type": "gpt2", "vocab_size": 7, "n_positions": 4, "n_embd": 8, "n_layer": 1, "n_head": 2})
}

fn clip() -> Value {
    json!({"model_type": "clip_text_model", "vocab_size": 7, "max_position_embeddings": 4, "hidden_size": 8,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2})
}

fn vit() -> Value {
    json!({"architecture": "vit_tiny_patch16_224", "model_args": {"img_size": 8, "patch_size": 4, "embed_dim": 8,
        "depth": 1, "num_heads": 2, "num_classes": 3}})
}

fn vit_of_transformers() -> Value {
    json!({"model_type": "vit", "image_size": 8, "patch_size": 4, "hidden_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16})
}

fn resnet() -> Value {
    json!({"architecture": "resnet50", "model_args": {"channels": [4, 4], "layers": [1, 1], "num_classes": 3}})
}

fn resnet_of_transformers() -> Value {
    json!({"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [8, 8], "depths": [1, 1]})
}

fn problem<M: Pretrained>(config: &Value) -> String {
    M::from_config(config).map(|_| ()).unwrap_err().to_string()
}

fn names<M: Pretrained>(config: &Value) -> Vec<String> {
    M::from_config(config).unwrap().named_parameters().into_iter().map(|(name, _)| name).collect()
}

/// What is refused, with what the message names.
fn refused<M: Pretrained>(base: Value, cases: &[(Value, &str)]) {
    M::from_config(&base).unwrap();
    for (more, told) in cases {
        let found = problem::<M>(&with(base.clone(), more.clone()));
        assert!(found.contains(told), "{more}: {found}");
    }
}

#[test]
fn gpt2_refuses_what_is_another_model() {
    let cases = [
        (json!({"activation_function": "mish"}), "activation_function is \"mish\""),
        (json!({"add_cross_attention": true}), "add_cross_attention is true"),
        (json!({"architectures": ["GPT2ForSequenceClassification"]}), "GPT2ForSequenceClassification"),
        (json!({"model_type": "gpt_neo"}), "model_type is \"gpt_neo\""),
        (json!({"n_head": 3}), "3 heads do not divide 8 features"),
        (json!({"pruned_heads": {"0": [1]}}), "pruned_heads"),
        (json!({"quantization_config": {"bits": 8}}), "quantization_config"),
        (json!({"n_embd": "8"}), "n_embd is \"8\""),
        (json!({"rotary": true, "alibi": 1}), "alibi is 1, which is not known; rotary is true"),
    ];
    refused::<Gpt>(gpt(), &cases);
}

#[test]
fn clip_refuses_what_is_another_model() {
    let cases = [
        (json!({"architectures": ["CLIPTextModelWithProjection"]}), "CLIPTextModelWithProjection"),
        (json!({"model_type": "clip"}), "model_type is \"clip\""),
        (json!({"hidden_act": "mish"}), "hidden_act is \"mish\""),
        (json!({"num_attention_heads": 0}), "0 heads"),
        (json!({"text_config": {}}), "text_config is {}"),
    ];
    refused::<ClipText>(clip(), &cases);
}

#[test]
fn vit_refuses_what_is_another_model() {
    let arg = |key: &str, value: Value| json!({"model_args": {key: value}});
    let cases = [
        (json!({"architecture": "vit_base_patch16_clip_224"}), "vit_base_patch16_clip_224"),
        (arg("qk_norm", json!(true)), "qk_norm is true"),
        (arg("global_pool", json!("map")), "global_pool is \"map\""),
        (arg("norm_layer", json!("rmsnorm")), "norm_layer is \"rmsnorm\""),
        (arg("mlp_layer", json!("swiglu")), "mlp_layer"),
        (arg("block_fn", json!("ParallelScalingBlock")), "block_fn"),
        (arg("drop_path_rate", json!(0.1)), "drop_path_rate is 0.1"),
        (arg("pos_embed", json!("rope")), "pos_embed is \"rope\""),
        (arg("class_token", json!(false)), "the class token is pooled"),
        (arg("patch_size", json!(9)), "patches of [9, 9] do not fit"),
        (arg("num_heads", json!(3)), "3 heads do not divide 8"),
        (arg("swiglu", json!(1)), "swiglu is 1, which is not known"),
    ];
    refused::<Vit>(vit(), &cases);
    let cases = [
        (json!({"architectures": ["ViTModel"]}), "ViTModel"),
        (json!({"model_type": "deit"}), "deit"),
        (json!({"hidden_act": "mish"}), "mish"),
        (json!({"use_mask_token": 1}), "use_mask_token is 1, which is not known"),
    ];
    refused::<Vit>(vit_of_transformers(), &cases);
}

#[test]
fn resnet_refuses_what_is_another_model() {
    let arg = |key: &str, value: Value| json!({"model_args": {key: value}});
    let cases = [
        (json!({"architecture": "resnet50d"}), "architecture is \"resnet50d\""),
        (json!({"architecture": "seresnet50"}), "seresnet50"),
        (json!({"architecture": "wide_resnet50_2"}), "wide_resnet50_2"),
        (arg("stem_type", json!("deep")), "stem_type is \"deep\""),
        (arg("avg_down", json!(true)), "avg_down is true"),
        (arg("cardinality", json!(32)), "cardinality is 32"),
        (arg("base_width", json!(128)), "base_width is 128"),
        (arg("output_stride", json!(16)), "output_stride is 16"),
        (arg("aa_layer", json!("blurpool")), "aa_layer is \"blurpool\""),
        (arg("block_args", json!({"attn_layer": "se"})), "block_args"),
        (arg("act_layer", json!("silu")), "act_layer is \"silu\""),
        (arg("layers", json!([1])), "channels of 2 stages and blocks of 1"),
    ];
    refused::<ResNet>(resnet(), &cases);
    let cases = [
        (json!({"layer_type": "other"}), "layer_type is \"other\""),
        (json!({"hidden_act": "gelu"}), "hidden_act is \"gelu\""),
        (json!({"hidden_sizes": [6, 8]}), "multiples of 4"),
        (json!({"architectures": ["ResNetModel"]}), "ResNetModel"),
    ];
    refused::<ResNet>(resnet_of_transformers(), &cases);
}

#[test]
fn a_config_that_lacks_its_architecture_or_is_none_is_refused() {
    assert!(problem::<Gpt>(&json!([1])).contains("[1] is no JSON object"));
    assert!(problem::<ResNet>(&json!({"architecture": 5})).contains("architecture is 5"));
    assert!(problem::<Vit>(&json!({"architecture": null})).contains("architecture"));
}

#[test]
fn arguments_override_the_architecture_and_null_is_the_librarys_default() {
    let dinov2 = |more: Value| {
        with(
            json!({"architecture": "vit_small_patch14_dinov2", "model_args": {
        "img_size": 28, "embed_dim": 16, "depth": 1, "num_heads": 2}}),
            more,
        )
    };
    let count = |config: &Value| names::<Vit>(config).len();
    let plain = dinov2(json!({}));
    assert!(names::<Vit>(&plain).contains(&"blocks.0.ls1.gamma".to_string()));
    assert!(!names::<Vit>(&plain).iter().any(|name| name.starts_with("head")));
    assert_eq!(count(&dinov2(json!({"model_args": {"init_values": null}}))), count(&plain) - 2);
    assert_eq!(count(&dinov2(json!({"num_classes": 3}))), count(&plain) + 2);
    // Where images were of one size, that is the model's.
    let config = json!({"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"input_size": [1, 32, 64],
        "fixed_input_size": true, "num_classes": 5}});
    let model = Vit::from_config(&config).unwrap();
    let shape = |name: &str| model.named_parameters().iter().find(|(n, _)| n == name).unwrap().1.shape().to_vec();
    assert_eq!(shape("pos_embed"), [1, 2 * 4 + 1, 192]);
    assert_eq!(shape("patch_embed.proj.weight"), [192, 1, 16, 16]);
    assert_eq!(shape("head.weight"), [5, 192]);
    // The form of timm before model_args: all keys side by side.
    let old = json!({"architecture": "resnet18", "num_classes": 4, "input_size": [3, 224, 224], "mean": [0, 0, 0],
        "first_conv": "conv1", "classifier": "fc"});
    let model = ResNet::from_config(&old).unwrap();
    assert_eq!(model.config().classes, 4);
    assert_eq!(model.config().pretrained_cfg["mean"], json!([0, 0, 0]));
}

#[test]
fn tokens_norms_and_biases_are_where_the_arguments_put_them() {
    let vit = |more: Value| names::<Vit>(&with(vit(), json!({"model_args": more})));
    let has = |names: &[String], name: &str| names.iter().any(|n| n == name);
    let average = vit(json!({"global_pool": "avg"}));
    assert!(has(&average, "fc_norm.weight") && !has(&average, "norm.weight"));
    let average = vit(json!({"global_pool": "avg", "fc_norm": false, "class_token": false}));
    assert!(!has(&average, "fc_norm.weight") && has(&average, "norm.weight") && !has(&average, "cls_token"));
    let registers = vit(json!({"reg_tokens": 2, "pre_norm": true, "final_norm": false, "qkv_bias": false}));
    assert!(has(&registers, "reg_token") && has(&registers, "norm_pre.weight") && !has(&registers, "norm.weight"));
    assert!(!has(&registers, "patch_embed.proj.bias") && !has(&registers, "blocks.0.attn.qkv.bias"));
    assert!(!has(&vit(json!({"pos_embed": "none"})), "pos_embed"));
    let gpt = |more: Value| names::<Gpt>(&with(gpt(), more));
    assert!(has(&gpt(json!({"tie_word_embeddings": false})), "lm_head.weight"));
    assert!(gpt(json!({"bias": false})).iter().all(|name| !name.ends_with(".bias")));
}
