//! Diffusion on the command line: classes, latents, folders of diffusers, changes of low rank.

use std::path::Path;

use crate::common::{binade, done};
use binade::autograd::scope;
use binade::models::AnyModel;
use binade::weights::{SaveOptions, save};
use serde_json::{Value, json};

fn refused(args: &str, folder: &Path) -> String {
    let out = binade(args, folder);
    assert!(matches!(out.status.code(), Some(1 | 2)), "{args}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A network of two levels that learns nothing in this time.
const TINY: &str = "--dataset digits --channels 8,8 --epochs 1 --batch-size 359 --drawn 10 --steps 2 --threads 2";

#[test]
fn a_run_with_classes_is_a_folder_of_diffusers_from_which_classes_are_drawn_and_training_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let told = done(&format!("train diffusion {TINY} --classes --out run"), at);
    assert!(told.contains("held-out error of the noise") && told.contains("best multiple"), "{told}");
    for precision in ["fp32", "fp16", "bf16"] {
        for name in [format!("{precision}-epoch-001.png"), format!("{precision}-epoch-001-averaged.png")] {
            assert!(at.join("run/samples").join(&name).exists(), "{name}");
        }
        let index = json(&at.join("run").join(precision).join("model_index.json"));
        assert_eq!(index["unet"], serde_json::json!(["diffusers", "UNet2DModel"]));
        assert_eq!(index["id2label"]["9"], "9");
    }
    let scheduler = json(&at.join("run/fp32/scheduler/scheduler_config.json"));
    assert_eq!((&scheduler["prediction_type"], &scheduler["clip_sample"]), (&"v_prediction".into(), &true.into()));
    assert_eq!(json(&at.join("run/fp32/unet/config.json"))["num_class_embeds"], 11);
    // A run, or the folder in it, is drawn from; the seed decides.
    let image = |name: &str| std::fs::read(at.join(name)).unwrap();
    done("sample run --class 3 --steps 2 --out run.png", at);
    done("sample run/fp32 --class 3 --steps 2 --out folder.png", at);
    done("sample run --class 4 --steps 2 --out other.png", at);
    assert_eq!(image("run.png"), image("folder.png"));
    assert_ne!(image("run.png"), image("other.png"));
    assert!(refused("sample run --class 11 --steps 2", at).contains("no class \"11\""));
    assert!(refused("sample run --prompt three --steps 2", at).contains("--class"));
    assert!(refused("sample run --steps 1001", at).contains("1 to 1000"));
    // Changes of few small steps are seen in shades where there are a thousand times as much of them.
    let lora = format!("train diffusion --dataset digits --classes --from run/fp32 --lora 2 --precision fp32 {REST}");
    done(&format!("{lora} --out lora --to changes"), at);
    for of in ["lora/fp32", "changes"] {
        done(&format!("sample run --class 3 --steps 2 --lora {of} --lora-scale 1000 --out lora.png"), at);
    }
    assert_ne!(image("run.png"), image("lora.png"));
    assert!(refused("sample lora", at).contains("--lora"));
    assert!(refused(&lora.replace(" --classes", ""), at).contains("classes"));
}

const REST: &str = "--epochs 1 --batch-size 359 --drawn 10 --steps 2 --threads 2 --quiet";

#[test]
fn an_autoencoder_is_trained_and_its_latents_are_diffused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let vae = "train vae --dataset digits --channels 4,4 --latent-channels 2 --epochs 1 --batch-size 359 --out vae";
    let told = done(&format!("{vae} --precision bf16 --to kept --threads 2"), at);
    let factor = json(&at.join("vae/bf16/config.json"))["scaling_factor"].as_f64().unwrap();
    assert!(factor > 0.0 && factor != 0.18215 && told.contains(&format!("{factor:.5}")), "{factor}: {told}");
    assert_eq!(json(&at.join("kept/config.json")), json(&at.join("vae/bf16/config.json")));
    let latent = format!("train diffusion {TINY} --channels 8,16 --vae vae --precision fp32 --cache-latents cache");
    let latent = latent.replacen("--channels 8,8 ", "", 1);
    let first = done(&format!("{latent} --vae-precision auto --out one"), at);
    assert!(first.contains("autoencoder in bf16:") && first.contains("2×4×4"), "{first}");
    let files = || std::fs::read_dir(at.join("cache")).unwrap().count();
    assert_eq!(files(), 2, "training and test images");
    done(&format!("{latent} --vae-precision fp16 --out two"), at);
    let after = files();
    assert!(after == 2 || after == 4, "{after}");
    // The same weights, precision and images: nothing is encoded again, and the run has the same numbers.
    done(&format!("{latent} --vae-precision fp16 --out three"), at);
    assert_eq!(files(), after);
    let losses = |run: &str| {
        let text = std::fs::read_to_string(at.join(run).join("metrics.jsonl")).unwrap();
        let of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["loss"].clone();
        text.lines().map(of).collect::<Vec<_>>()
    };
    assert_eq!(losses("two"), losses("three"));
    assert_eq!(json(&at.join("two/fp32/vae/config.json"))["scaling_factor"], factor);
    assert_eq!(json(&at.join("two/fp32/scheduler/scheduler_config.json"))["clip_sample"], false);
    done("sample two --images 2 --steps 2 --out drawn.png", at);
    assert!(at.join("drawn-2.png").exists());
    assert!(refused(&format!("train diffusion {TINY} --vae two/fp32/unet --out no"), at).contains("no autoencoder"));
}

#[test]
fn settings_that_do_not_fit_are_refused_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (flags, told) in [
        ("--prediction epsilon --zero-terminal-snr", "zero terminal SNR"),
        ("--min-snr-gamma 0", "above 0"),
        ("--condition-dropout 1", "from 0 to below 1"),
        ("--guidance NaN", "guidance must be finite"),
        ("--channels 8,8,8,8,8", "halve"),
        ("--from nowhere", "nowhere"),
        ("--lora 4", "--from"),
        ("--noise-schedule cosine", "squaredcos_cap_v2"),
    ] {
        let error = refused(&format!("train diffusion --dataset digits {flags} --out run"), at);
        assert!(error.contains(told), "{flags}: {error}");
        assert!(!at.join("run").exists(), "{flags}");
    }
}

/// Writes a pipeline that is led by texts: parts in small with initial values, and a tokenizer of letters.
fn write_pipeline(folder: &Path) {
    let parts = [
        (
            "unet",
            json!({
                "_class_name": "UNet2DConditionModel", "sample_size": 4, "in_channels": 2, "out_channels": 2,
                "block_out_channels": [8, 8], "layers_per_block": 1, "cross_attention_dim": 8, "norm_num_groups": 4,
                "attention_head_dim": 2, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            }),
        ),
        (
            "vae",
            json!({
                "_class_name": "AutoencoderKL", "in_channels": 1, "out_channels": 1, "latent_channels": 2,
                "block_out_channels": [4, 4], "layers_per_block": 1, "norm_num_groups": 2, "sample_size": 8,
                "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
                "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
            }),
        ),
        (
            "text_encoder",
            json!({
                "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_size": 8,
                "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 24,
                "max_position_embeddings": 8, "projection_dim": 8, "hidden_act": "quick_gelu", "eos_token_id": 23,
            }),
        ),
    ];
    for (seed, (name, config)) in parts.iter().enumerate() {
        let model = scope::with_key(seed as u64, 0, || AnyModel::from_config(config)).unwrap();
        let at = folder.join(name);
        std::fs::create_dir_all(&at).unwrap();
        save(model.module(), &at, &model.sources(&Default::default()), &SaveOptions::default()).unwrap();
        if *name != "text_encoder" {
            let (from, to) = ("model.safetensors", "diffusion_pytorch_model.safetensors");
            std::fs::rename(at.join(from), at.join(to)).unwrap();
        }
        std::fs::write(at.join("config.json"), config.to_string()).unwrap();
    }
    let digits = ('0'..='9').flat_map(|c| [c.to_string(), format!("{c}</w>")]);
    let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
    let tokens = digits.chain(["a".into(), "a</w>".into()]).chain(special).zip(0..);
    let vocabulary: std::collections::BTreeMap<String, i64> = tokens.collect();
    let write = |path: &str, text: String| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("tokenizer/vocab.json", json!(vocabulary).to_string());
    write("tokenizer/merges.txt", "#version: 0.2\n".into());
    write("tokenizer/tokenizer_config.json", json!({ "model_max_length": 8 }).to_string());
    let scheduler = json!({ "_class_name": "DDIMScheduler", "clip_sample": false });
    write("scheduler/scheduler_config.json", scheduler.to_string());
    let index = json!({
        "_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    });
    write("model_index.json", index.to_string());
}

#[test]
fn a_pipeline_that_is_led_by_texts_is_trained_on_and_drawn_from() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_pipeline(&at.join("pipeline"));
    let train =
        |flags: &str| format!("train diffusion --dataset digits --from pipeline --precision bf16 {REST} {flags}");
    done(&train("--prompt a{} --out run"), at);
    let image = |name: &str| std::fs::read(at.join(name)).unwrap();
    // The run and the folder in it are the same pipeline, and not the one that it began with.
    for (of, to) in [("run", "run.png"), ("run/bf16", "folder.png"), ("pipeline", "before.png")] {
        done(&format!("sample {of} --precision bf16 --prompt a3 --steps 2 --out {to}"), at);
    }
    assert_eq!(image("run.png"), image("folder.png"));
    assert_ne!(image("run.png"), image("before.png"));
    assert!(refused("sample run --class 3 --steps 2", at).contains("--prompt"));
    // Changes of low rank belong to what they were trained on.
    done(&train("--prompt a{} --lora 2 --out lora"), at);
    done("sample pipeline --prompt a3 --steps 2 --lora lora/bf16 --lora-scale 1000 --out lora.png", at);
    assert_ne!(image("lora.png"), image("before.png"));
    // A prompt that does not fit, and one of other letters, before anything is trained.
    assert!(refused(&train("--prompt aaaaaaaa{} --out no"), at).contains("longer than 8 tokens"));
    assert!(refused(&train("--prompt b{} --out no"), at).contains("no token"));
    assert!(!at.join("no").exists());
}
