//! timm's names of vision transformers, and the arguments that they stand for.

use serde_json::{Value, json};

use crate::timm;

/// The arguments of timm's architectures.
pub(super) fn entry(name: &str) -> Option<Value> {
    const SIZES: [(&str, usize, usize, usize); 6] = [
        ("tiny", 192, 12, 3),
        ("small", 384, 12, 6),
        ("medium", 512, 12, 8),
        ("base", 768, 12, 12),
        ("large", 1024, 24, 16),
        ("huge", 1280, 32, 16),
    ];
    // Family, size and patch, with the image that it was trained on; what they add to the sizes follows.
    const NAMES: [&str; 41] = [
        "vit_tiny_patch16_224",
        "vit_tiny_patch16_384",
        "vit_small_patch32_224",
        "vit_small_patch32_384",
        "vit_small_patch16_224",
        "vit_small_patch16_384",
        "vit_small_patch8_224",
        "vit_base_patch32_224",
        "vit_base_patch32_384",
        "vit_base_patch16_224",
        "vit_base_patch16_384",
        "vit_base_patch8_224",
        "vit_large_patch32_224",
        "vit_large_patch32_384",
        "vit_large_patch16_224",
        "vit_large_patch16_384",
        "vit_large_patch14_224",
        "vit_huge_patch14_224",
        "vit_small_patch14_dinov2",
        "vit_base_patch14_dinov2",
        "vit_large_patch14_dinov2",
        "vit_small_patch14_reg4_dinov2",
        "vit_base_patch14_reg4_dinov2",
        "vit_large_patch14_reg4_dinov2",
        "vit_medium_patch16_gap_240",
        "vit_medium_patch16_gap_256",
        "vit_medium_patch16_gap_384",
        "vit_medium_patch16_reg4_gap_256",
        "vit_base_patch16_reg4_gap_256",
        "eva_large_patch14_196",
        "eva_large_patch14_336",
        "deit_tiny_patch16_224",
        "deit_small_patch16_224",
        "deit_base_patch16_224",
        "deit_base_patch16_384",
        "deit3_small_patch16_224",
        "deit3_small_patch16_384",
        "deit3_base_patch16_224",
        "deit3_base_patch16_384",
        "deit3_large_patch16_224",
        "deit3_large_patch16_384",
    ];
    let (family, rest) = NAMES.contains(&name).then(|| name.split_once('_'))??;
    let (size, rest) = rest.split_once("_patch")?;
    let (patch, variant) = rest.split_once('_')?;
    let &(_, features, depth, heads) = SIZES.iter().find(|(name, ..)| *name == size)?;
    let image = variant.rsplit('_').next()?.parse().unwrap_or(518);
    let mut args = json!({
        "patch_size": patch.parse::<usize>().ok()?, "embed_dim": features, "depth": depth, "num_heads": heads,
        "default.img_size": image,
    });
    let mut add = |more: Value| args.as_object_mut().map(|args| args.extend(timm::object(more)));
    if variant.ends_with("dinov2") {
        add(json!({"init_values": 1e-5, "default.num_classes": 0}));
    }
    if variant.starts_with("reg4") {
        add(json!({"reg_tokens": 4, "no_embed_class": true}));
    }
    if variant.starts_with("gap") {
        add(json!({"class_token": false, "global_pool": "avg", "qkv_bias": false, "init_values": 1e-6,
            "fc_norm": false}));
    }
    if variant.starts_with("reg4_gap") {
        add(json!({"class_token": false, "global_pool": "avg"}));
        if size == "medium" {
            add(json!({"init_values": 1e-5}));
        }
    }
    if family == "eva" {
        add(json!({"global_pool": "avg"}));
    }
    if family == "deit3" {
        add(json!({"no_embed_class": true, "init_values": 1e-6}));
    }
    Some(args)
}
