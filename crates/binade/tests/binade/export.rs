//! `binade export` of a model's folder.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use binade::autograd::{Var, eval, scope};
use binade::models::AnyModel;
use binade::nn::Layer;
use binade::nn::quantised::is_quantised;
use binade::train::{Vocabulary, write_png};
use binade::weights::{LoadOptions, SaveOptions, save};
use serde_json::{Value, json};

fn binade(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_binade")).args(args).current_dir(folder).output().unwrap()
}

fn passes(args: &[&str], folder: &Path) -> String {
    let out = binade(args, folder);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

fn fails(args: &[&str], folder: &Path) -> String {
    let out = binade(args, folder);
    assert_eq!(out.status.code(), Some(1), "{args:?}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// A folder of GPT-2 with initial values.
fn write(folder: &Path) {
    let config = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2,
        "n_positions": 16, "vocab_size": 200,
    });
    let model = scope::with_key(5, 0, || AnyModel::from_config(&config)).unwrap();
    std::fs::create_dir(folder).unwrap();
    save(model.module(), folder, &model.sources(&BTreeSet::new()), &SaveOptions::default()).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

fn size(folder: &Path) -> f64 {
    std::fs::metadata(folder.join("model.safetensors")).unwrap().len() as f64
}

fn logits(folder: &Path) -> (Vec<f64>, bool) {
    let AnyModel::Gpt(model) = AnyModel::open(folder, &LoadOptions::default()).unwrap().0 else { panic!("no GPT") };
    let tokens = Var::from_slice(&[3i64, 1, 4, 1, 5], &[1, 5]).unwrap();
    (eval(|| model.forward(&tokens)).unwrap().array().to_f64_vec().unwrap(), is_quantised(&model))
}

#[test]
fn a_folder_is_written_in_each_dtype_and_computes_what_it_did_within_that() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("gpt"));
    let (exact, _) = logits(&at("gpt"));
    for (dtype, more, part, bound) in [
        ("f32", None, 1.0, 0.0),
        ("f16", None, 0.5, 2e-3),
        ("bf16", None, 0.5, 2e-2),
        ("int8", None, 0.27, 0.1),
        ("int8", Some("--weight-only"), 0.27, 0.05),
    ] {
        let to = format!("{dtype}{}", more.unwrap_or_default());
        let args: Vec<&str> = ["export", "gpt", "--dtype", dtype, "--to", &to].into_iter().chain(more).collect();
        passes(&args, folder.path());
        // The header, and biases and norms in f32, are more of a small model.
        assert!(size(&at(&to)) < (part + 0.06) * size(&at("gpt")), "{to}: {}", size(&at(&to)) / size(&at("gpt")));
        let (found, quantised) = logits(&at(&to));
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
        let off = norm(&mut found.iter().zip(&exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
        assert!(off <= bound && quantised == (dtype == "int8"), "{to}: {off}");
    }
}

#[test]
fn what_cannot_be_exported_is_told() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("gpt"));
    let export = |more: &[&'static str]| [&["export", "gpt", "--dtype", "int8", "--to", "int8"], more].concat();
    let told = fails(&export(&["--keep", "nothing"]), folder.path());
    assert!(told.contains("nothing is the name of no layer") && told.contains("transformer.h.0.mlp.c_fc"), "{told}");
    assert!(fails(&export(&["--calibrate", "nowhere.txt"]), folder.path()).contains("nowhere.txt"));
    assert!(fails(&export(&["--precision", "fp32"]), folder.path()).contains("--precision is about a run"));
    let floats = ["export", "gpt", "--dtype", "f16", "--to", "f16", "--weight-only"];
    assert!(fails(&floats, folder.path()).contains("about --dtype int8"));
    assert!(fails(&["export", ".", "--dtype", "int8", "--to", "int8"], folder.path()).contains("config.json"));
    passes(&export(&["--keep", "transformer.w?e"]), folder.path());
    let config = std::fs::read_to_string(folder.path().join("int8/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["quantization_config"]["kept"], json!(["transformer.wte", "transformer.wpe"]));
    assert!(fails(&export(&[]), folder.path()).contains("already holds a model"));
    let again = ["export", "int8", "--dtype", "int8", "--to", "other"];
    assert!(fails(&again, folder.path()).contains("have 8 bits already"));
    let convert = ["convert", "int8", "--dtype", "f16", "--to", "other"];
    assert!(fails(&convert, folder.path()).contains("has 8-bit weights"));
}

/// A folder's activations are rounded by what they were of images or of a text; scales are in the file then.
#[test]
fn a_folder_is_calibrated_by_a_text_or_by_images() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("gpt"));
    let numbers = serde_json::to_string(&Vocabulary::Numbers { size: 200 }).unwrap();
    std::fs::write(at("gpt/vocabulary.json"), numbers).unwrap();
    std::fs::write(at("numbers.txt"), "3 1 4 1 5 9 2 6 5 3 5 8 9 7 9").unwrap();
    let by_text = ["export", "gpt", "--dtype", "int8", "--to", "text", "--calibrate", "numbers.txt"];
    passes(&by_text, folder.path());
    let (exact, found) = (logits(&at("gpt")).0, logits(&at("text")).0);
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let off = norm(&mut found.iter().zip(&exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
    assert!(off > 0.0 && off < 0.1, "{off}");
    // A classifier, of pictures that are not all alike.
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/small/vit");
    std::fs::create_dir_all(at("pictures/one")).unwrap();
    for i in 0..3u8 {
        let pixels: Vec<u8> = (0..40 * 30).map(|p| (p * 7 % 251) as u8 ^ i.wrapping_mul(80)).collect();
        write_png(&at(&format!("pictures/one/{i}.png")), 40, 1, &pixels).unwrap();
    }
    let model = small.to_str().unwrap();
    let by_images = ["export", model, "--dtype", "int8", "--to", "images", "--calibrate", "pictures"];
    passes(&by_images, folder.path());
    passes(&["predict", "images", "pictures/one/1.png"], folder.path());
    std::fs::create_dir(at("empty")).unwrap();
    let none = ["export", model, "--dtype", "int8", "--to", "none", "--calibrate", "empty"];
    assert!(fails(&none, folder.path()).contains("no PNG or JPEG files"));
}

#[test]
fn an_exported_language_model_knows_its_characters() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("verse.txt"), "A rose is a rose is a rose.\n".repeat(60)).unwrap();
    let small = ["--block-size", "8", "--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--max-iters", "2"];
    let train = [&["train", "gpt", "--data", "verse.txt", "--precision", "bf16", "--out", "run"], &small[..]].concat();
    passes(&train, folder.path());
    passes(&["export", "run", "--dtype", "int8", "--weight-only", "--to", "int8"], folder.path());
    let written = passes(&["sample", "int8", "--prompt", "A rose", "--tokens", "4"], folder.path());
    assert!(written.starts_with("A rose") && written.trim_end().chars().count() > 6, "{written:?}");
    assert!(fails(&["sample", "int8", "--prompt", "ß"], folder.path()).contains('ß'));
}
