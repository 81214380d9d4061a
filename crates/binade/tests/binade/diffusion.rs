//! Diffusion on the command line: classes, latents, folders of diffusers, changes of low rank.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn binade(args: &str, folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_binade")).args(args.split(' ')).current_dir(folder).output().unwrap()
}

fn done(args: &str, folder: &Path) -> String {
    let out = binade(args, folder);
    assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

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
    // Training goes on from the folder: the loss of the first step is near that of the last.
    let lora = format!("train diffusion --dataset digits --classes --from run/fp32 --lora 2 --precision fp32 {REST}");
    done(&format!("{lora} --out lora --to changes"), at);
    for of in ["lora/fp32", "changes"] {
        done(&format!("sample run --class 3 --steps 2 --lora {of} --out lora.png"), at);
    }
}

const REST: &str = "--epochs 1 --batch-size 359 --drawn 10 --steps 2 --threads 2 --quiet";

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
