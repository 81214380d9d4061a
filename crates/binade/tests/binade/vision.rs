//! Images into classes: trained on a folder, begun with another library's model, and asked about single images.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use binade::autograd::{Var, eval, no_grad, scope};
use binade::models::AnyModel;
use binade::train::write_png;
use binade::weights::{SaveOptions, save};
use serde_json::{Value, json};

fn binade(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_binade")).args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn passes(args: &[&str], folder: &Path) -> String {
    let out = binade(args, folder);
    assert!(out.status.success(), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

fn fails(args: &[&str], folder: &Path) -> String {
    let out = binade(args, folder);
    assert_eq!(out.status.code(), Some(1), "{args:?}: {}", text(&out.stdout));
    text(&out.stderr)
}

fn json_of(args: &[&str], folder: &Path) -> Value {
    serde_json::from_str(&passes(args, folder)).unwrap()
}

/// Images of 12×10 of one colour with some noise, in a folder for each colour.
fn colours(folder: &Path, classes: &[(&str, [u8; 3])], count: usize) {
    for (name, colour) in classes {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        for i in 0..count {
            let noise = |at: usize| (at * 7919 + i * 104_729) % 61;
            let pixels: Vec<u8> = (0..360).map(|at| colour[at % 3].saturating_add(noise(at) as u8)).collect();
            write_png(&folder.join(name).join(format!("{i:02}.png")), 12, 3, &pixels).unwrap();
        }
    }
}

const THREE: [(&str, [u8; 3]); 3] = [("blue", [10, 10, 180]), ("green", [10, 180, 10]), ("red", [180, 10, 10])];

/// The class that comes first of each image, and its probability.
fn first(found: &Value) -> Vec<(String, f64)> {
    let of = |image: &Value| {
        let best = &image["classes"][0];
        (best["name"].as_str().unwrap().to_string(), best["probability"].as_f64().unwrap())
    };
    found.as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_run_on_a_folder_of_images_is_asked_about_images_as_a_folder_made_of_it_is() {
    let folder = tempfile::tempdir().unwrap();
    colours(&folder.path().join("data"), &THREE, 20);
    std::fs::write(folder.path().join("data/red/03.png"), "no image").unwrap();
    let train = |more: &[&'static str]| -> Vec<&'static str> {
        let own = ["train", "vision", "--dataset", "folder", "--data", "data", "--image-size", "8", "--out", "run"];
        let fit = ["--epochs", "3", "--batch-size", "8", "--precision", "bf16", "--ema", "0.8", "--crop", "1"];
        [&own[..], &fit[..], more].concat()
    };
    let error = fails(&train(&["--quiet"]), folder.path());
    assert!(error.contains("red/03.png") && error.contains("expected a PNG or JPEG image"), "{error}");
    let shown = passes(&train(&["--skip-broken", "--mixup", "0.2", "--test-views", "mirrored"]), folder.path());
    assert!(shown.contains("folder: 53 training images, 6 test images, 3×8×8"), "{shown}");
    assert!(shown.contains("left out: data/red/03.png"), "{shown}");
    let summary = std::fs::read_to_string(folder.path().join("run/summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary[0]["answers"]["names"], json!(["blue", "green", "red"]));
    assert_eq!(summary[0]["test_accuracy"], json!(1.0));

    let images = ["data/red/00.png", "data/blue/01.png", "data/green/02.png"];
    let asked = |model: &'static str| json_of(&[&["predict", model, "--json"], &images[..]].concat(), folder.path());
    let found = asked("run");
    let names: Vec<String> = first(&found).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["red", "blue", "green"]);
    passes(&["convert", "run", "--to", "model"], folder.path());
    assert!(folder.path().join("model/model.safetensors").exists());
    assert_eq!(asked("model"), found);
    // With 8-bit weights too, calibrated with the run's own images.
    let told = passes(&["export", "run", "--dtype", "int8", "--to", "int8"], folder.path());
    assert!(told.contains("top-1 100.00 % in f32, 100.00 % with 8-bit weights"), "{told}");
    let names: Vec<String> = first(&asked("int8")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["red", "blue", "green"]);
    // One that cannot be read is named, and the others are answered.
    let out = binade(&["predict", "model", "data/red/03.png", "data/red/04.png", "--top", "2"], folder.path());
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("data/red/03.png: expected a PNG or JPEG image"), "{}", text(&out.stderr));
    let line = text(&out.stdout);
    assert!(line.starts_with("data/red/04.png: red ") && line.matches(" %").count() == 2, "{line}");
}

/// A ResNet of timm's form with initial values, whose images are prepared in its own way.
fn resnet(folder: &Path, classes: usize) -> AnyModel {
    let args = json!({ "layers": [1, 1], "channels": [8, 12], "num_classes": classes, "zero_init_last": false });
    let cfg = json!({
        "input_size": [3, 12, 12], "crop_pct": 0.75, "interpolation": "bicubic",
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3],
    });
    let names: Vec<String> = (0..classes).map(|class| format!("class {class}")).collect();
    let config = json!({ "architecture": "resnet18", "model_args": args, "pretrained_cfg": cfg, "label_names": names });
    let model = scope::with_key(3, 0, || AnyModel::from_config(&config)).unwrap();
    save(model.module(), folder, &model.sources(&BTreeSet::new()), &SaveOptions::default()).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    model
}

#[test]
fn an_image_is_prepared_as_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let model = resnet(folder.path(), 4);
    // Of one colour: whatever its size is, it stays that colour.
    write_png(&folder.path().join("x.png"), 5, 3, &[51, 102, 204].repeat(35)).unwrap();
    write_png(&folder.path().join("grey.png"), 3, 1, &[102; 9]).unwrap();
    let found = json_of(&["predict", ".", "x.png", "grey.png", "--json", "--top", "9"], folder.path());
    for (image, colour) in found.as_array().unwrap().iter().zip([[0.2, 0.4, 0.8], [0.4; 3]]) {
        let normalised = [(0.5, 0.2), (0.4, 0.25), (0.3, 0.3)];
        let values = colour.iter().zip(normalised).flat_map(|(v, (mean, std))| vec![((v - mean) / std) as f32; 144]);
        let x = Var::from_slice(&values.collect::<Vec<f32>>(), &[1, 3, 12, 12]).unwrap();
        let logits = no_grad(|| eval(|| model.classifier().unwrap().layer.forward(&x))).unwrap();
        let logits = logits.array().to_f64_vec().unwrap();
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        let listed = image["classes"].as_array().unwrap();
        assert_eq!(listed.len(), 4);
        for class in listed {
            let number = class["class"].as_u64().unwrap() as usize;
            let expected = logits[number].exp() / sum;
            assert!((class["probability"].as_f64().unwrap() - expected).abs() < 1e-5, "{class} {expected}");
            assert_eq!(class["name"], format!("class {number}"));
        }
    }
    // Under the names of another library it is the same model, and back again.
    passes(&["convert", ".", "--to", "hf", "--names", "hf"], folder.path());
    passes(&["convert", "hf", "--to", "timm", "--names", "timm"], folder.path());
    for other in ["hf", "timm"] {
        let again = json_of(&["predict", other, "x.png", "grey.png", "--json", "--top", "9"], folder.path());
        assert_eq!(again, found, "{other}");
    }
}

#[test]
fn a_models_folder_is_begun_with_and_only_the_head_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let start = resnet(folder.path(), 5);
    colours(&folder.path().join("data"), &THREE, 10);
    let args = ["train", "vision", "--from", ".", "--dataset", "folder", "--data", "data", "--precision", "fp32"];
    let train =
        |more: &[&'static str]| passes(&[&args[..], &["--epochs", "1", "--quiet"], more].concat(), folder.path());
    train(&["--head-only", "--out", "head"]);
    train(&["--lr", "0.01", "--out", "all"]);
    let (was, same) = (binade::nn::state_dict(start.module()), |run: &str| {
        let path = folder.path().join(run).join("checkpoint-fp32.safetensors");
        let (tensors, _) = binade::nn::read_safetensors(&path, binade::tensor::Class::Weights).unwrap();
        let of = |name: &str| {
            let found = tensors.iter().find(|(n, _)| n.strip_prefix("model.") == Some(name)).unwrap();
            found.1.to_f64_vec().unwrap()
        };
        let all = binade::nn::state_dict(start.module());
        let same = all.iter().filter(|(name, array)| array.to_f64_vec().unwrap() == of(name));
        same.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    });
    // Running statistics too.
    assert_eq!(same("head").len(), was.len() - 2);
    assert!(same("all").len() < 3, "{:?}", same("all"));
    assert_eq!(start.module().named_parameters().last().unwrap().0, "fc.bias");
    let config = std::fs::read_to_string(folder.path().join("head/model.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["label_names"], json!(["blue", "green", "red"]));
    // Its own preparation goes with it.
    assert_eq!(config["config"]["pretrained_cfg"]["crop_pct"], json!(0.75));
    let found = json_of(&["predict", "head", "data/red/00.png", "--json"], folder.path());
    assert_eq!(found[0]["classes"].as_array().unwrap().len(), 3);
    let resumed = fails(&["train", "vision", "--resume", "head", "--lr", "0.5"], folder.path());
    assert!(resumed.contains("lr = 0.001, not 0.5"), "{resumed}");
}

#[test]
fn what_cannot_be_trained_or_asked_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let train = |more: &[&'static str]| fails(&[&["train", "vision", "--quiet"], more].concat(), folder.path());
    colours(&folder.path().join("one"), &THREE[..1], 10);
    let one = train(&["--dataset", "folder", "--data", "one", "--image-size", "8"]);
    assert!(one.contains("images of one class"), "{one}");
    let sizes = train(&["--dataset", "folder", "--data", "one"]);
    assert!(sizes.contains("--image-size") && sizes.contains("12×10"), "{sizes}");
    assert!(train(&["--model", "airbench"]).contains("at least 9 pixels a side, got 8"));
    assert!(train(&["--rand-augment", "2", "31"]).contains("from 0 to 30"));
    assert!(train(&["--from", "absent"]).contains("absent/config.json"));
    std::fs::write(folder.path().join("config.json"), "{\"architecture\": \"efficientnet_b0\"}").unwrap();
    let unknown = fails(&["predict", ".", "x.png"], folder.path());
    assert!(unknown.contains("efficientnet_b0"), "{unknown}");
}
