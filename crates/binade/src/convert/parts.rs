//! Pipelines: folders of several models, and single files of Stable Diffusion.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use binade::cli::output::line;
use binade::models::{AnyModel, Names, is_ldm};
use binade::nn::without_initial_values;
use binade::weights::{Sources, Weights, load, save_together};
use serde_json::{Value, json};

use super::{Args, Library, copy_others, one, tell, write, write_text};

/// Folders of a pipeline that hold models.
const MODELS: [&str; 3] = ["unet", "vae", "text_encoder"];
/// And those that hold settings.
const OTHERS: [&str; 3] = ["scheduler", "tokenizer", "feature_extractor"];

/// Every model of a pipeline's folder; into one file, where its names are asked for.
pub fn pipeline(args: &Args) -> Result<Vec<PathBuf>> {
    if args.names == Some(Library::Ldm) {
        return into_single_file(args);
    }
    let allowed = matches!(args.names, None | Some(Library::Diffusers));
    ensure!(allowed, "a pipeline's names are those of diffusers or ldm");
    // Its text encoder is transformers'.
    let args = &Args { names: None, ..args.clone() };
    let mut written = Vec::new();
    for part in MODELS.iter().filter(|part| args.from.join(part).is_dir()) {
        written.push(one(args, &args.from.join(part), &args.to.join(part))?);
    }
    for part in OTHERS.iter().filter(|part| args.from.join(part).is_dir()) {
        std::fs::create_dir_all(args.to.join(part))?;
        copy_others(&args.from.join(part), &args.to.join(part))?;
    }
    copy_others(&args.from, &args.to)?;
    Ok(written)
}

fn into_single_file(args: &Args) -> Result<Vec<PathBuf>> {
    let mut models = Vec::new();
    for part in MODELS {
        let (model, report) = AnyModel::open(&args.from.join(part), &args.load())?;
        tell(&report)?;
        let sources = model.named(Names::Ldm)?.1;
        models.push((model, sources));
    }
    let parts: Vec<(&dyn binade::nn::Module, &Sources)> =
        models.iter().map(|(model, sources)| (model.module(), sources)).collect();
    let report = save_together(&parts, &args.to, &args.save("model"))?;
    tell(&report)?;
    line(format_args!("{}: {} tensors", args.to.display(), report.loaded.len()))?;
    Ok(Vec::new())
}

/// The models of a single file of Stable Diffusion 1 as a pipeline's folder.
pub fn from_single_file(args: &Args) -> Result<Vec<PathBuf>> {
    ensure!(matches!(args.names, None | Some(Library::Diffusers)), "a single file is converted to --names diffusers");
    let weights = Weights::open(&args.from)?;
    let stored = weights.names();
    ensure!(
        is_ldm(&stored),
        "{}: no single file of Stable Diffusion, which has model.diffusion_model.*, first_stage_model.* and \
         cond_stage_model.transformer.text_model.*; a model needs a folder with its config.json",
        args.from.display()
    );
    let mut written = Vec::new();
    for (part, config) in MODELS.iter().zip([unet(), vae(), text_encoder()]) {
        let model = without_initial_values(|| AnyModel::from_config(&config))?;
        tell(&load(model.module(), &weights, &model.sources(&stored), &args.load())?)?;
        let library = if *part == "text_encoder" { Names::Transformers } else { Names::Diffusers };
        let (_, sources) = model.named(library)?;
        let to = args.to.join(part);
        write(args, &model, &config, &sources, &to)?;
        written.push(to);
    }
    let scheduler = args.to.join("scheduler");
    std::fs::create_dir_all(&scheduler)?;
    write_text(&scheduler.join("scheduler_config.json"), &format!("{:#}\n", schedule()))?;
    write_text(&args.to.join("model_index.json"), &format!("{:#}\n", index()))?;
    Ok(written)
}

fn unet() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4, "out_channels": 4,
        "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
        "layers_per_block": 2, "norm_num_groups": 32, "norm_eps": 1e-5, "act_fn": "silu", "flip_sin_to_cos": true,
        "freq_shift": 0, "center_input_sample": false, "downsample_padding": 1, "mid_block_scale_factor": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    })
}

fn vae() -> Value {
    json!({
        "_class_name": "AutoencoderKL", "sample_size": 512, "in_channels": 3, "out_channels": 3, "latent_channels": 4,
        "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu",
        "scaling_factor": 0.18215,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    })
}

fn text_encoder() -> Value {
    json!({
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 768,
        "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "max_position_embeddings": 77,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": 768,
    })
}

fn schedule() -> Value {
    json!({
        "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "clip_sample": false, "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true,
        "steps_offset": 1, "trained_betas": null,
    })
}

fn index() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}
