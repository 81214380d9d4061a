//! `--device` as a user meets it.

use std::path::Path;
use std::process::{Command, Output};

use binade::autograd::{Var, scope};
use binade::nn::{Layer, Linear, Module};
use binade::train::{Config, write_png};

fn binade(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_binade"));
    command.args(args).current_dir(folder);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn error(out: &Output) -> String {
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    text(&out.stderr)
}

/// Commands that take a device, with what they need besides.
const COMMANDS: [&[&str]; 5] =
    [&["train"], &["evaluate", "run"], &["doctor"], &["predict", "model", "image.png"], &["sample", "model"]];

#[test]
fn an_unknown_device_is_an_error_with_those_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        for name in ["tpu", "cpu:1", "cuda-interpreted:1", ""] {
            let error = error(&binade(&[command, &["--device", name]].concat(), folder.path()).output().unwrap());
            let told = error.contains(&format!("'{name}'")) && error.contains("cpu") && !error.contains("panicked");
            assert!(told && error.contains("cuda-interpreted"), "{command:?}: {error}");
        }
    }
}

/// Programs without the driver say how to get one, those with it that it is missing.
#[test]
fn without_a_driver_the_error_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::fs::write(folder.path().join(name), "no library").unwrap();
    }
    for command in COMMANDS {
        for name in ["cuda", "cuda:0"] {
            let mut command = binade(&[command, &["--device", name]].concat(), folder.path());
            let error = error(&command.env("LD_LIBRARY_PATH", folder.path()).output().unwrap());
            assert!(error.contains("--features cuda") || error.contains("install it (libcuda.so.1)"), "{error}");
            assert!(!error.contains("panicked"), "{error}");
        }
    }
}

#[test]
fn doctor_runs_operators_on_a_device_and_compares_their_bits() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = |more: &[&str]| {
        let args = ["doctor", "--device", "cuda-interpreted", "--only", "so", "--samples", "1"];
        let out = binade(&[&args, more].concat(), folder.path()).output().unwrap();
        assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    };
    let out = doctor(&["--digests", "digests"]);
    assert!(out.contains(" 0 out of bound") && out.contains("launched; run by the host: sort"), "{out}");
    assert!(doctor(&["--against", "digests"]).contains(" 0 with other bits"));
    // Another digest is told by its operator.
    let digests = std::fs::read_to_string(folder.path().join("digests")).unwrap();
    let (name, _) = digests.lines().next().unwrap().rsplit_once(' ').unwrap();
    let changed = format!("{name} {:016x}\n", 0);
    std::fs::write(folder.path().join("digests"), changed).unwrap();
    let out = doctor(&["--against", "digests"]);
    let what: Vec<&str> = name.split(' ').skip(1).take(2).collect();
    assert!(out.contains("1 samples compared, 1 with other bits") && out.contains(&what.join(" ")), "{out}");
    // A registry of nothing is no result.
    let nothing = binade(&["doctor", "--device", "cpu", "--only", "nothing"], folder.path()).output().unwrap();
    assert!(error(&nothing).contains("nothing was run"));
}

#[test]
fn the_interpreted_device_has_the_capability_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = |device: &str, capability: &str| {
        let args =
            ["doctor", "--device", device, "--capability", capability, "--only", "matmul_with", "--samples", "1"];
        binade(&args, folder.path()).output().unwrap()
    };
    for (capability, told) in [("75", "capability 7.5"), ("120", "capability 12.0")] {
        let out = text(&doctor("cuda-interpreted", capability).stdout);
        assert!(out.contains(told) && out.contains(" 0 out of bound"), "{out}");
    }
    assert!(error(&doctor("cuda-interpreted", "70")).contains("need 7.5"));
    assert!(error(&doctor("cpu", "80")).contains("cuda-interpreted"));
}

#[test]
fn a_run_goes_on_and_is_evaluated_on_another_device() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("verse.txt"), "the cat sat on the mat and the dog sat on the log\n".repeat(20))
        .unwrap();
    let run = |args: &[&str]| {
        let out = binade(args, folder.path()).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    let model = ["--data", "verse.txt", "--block-size", "8", "--n-layer", "1", "--n-head", "2", "--n-embd", "8"];
    let short = ["--max-iters", "2", "--eval-interval", "1", "--eval-iters", "1", "--batch-size", "2"];
    let start = ["--precision", "bf16", "--out", "run", "--device", "cuda-interpreted"];
    run(&[&["train", "gpt"], &model[..], &short, &start].concat());
    run(&["train", "--resume", "run", "--epochs", "3", "--device", "cpu"]);
    let loss = |device: &str| {
        let told = run(&["evaluate", "run", "--json", "--device", device]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        told[0]["test_loss"].as_f64().unwrap_or_else(|| panic!("{told}"))
    };
    let (there, here) = (loss("cuda-interpreted"), loss("cpu"));
    assert!((there - here).abs() <= 2f64.powi(-9) * here, "{there}, on the CPU {here}");
}

#[test]
fn networks_of_images_train_for_some_steps_as_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    for class in ["dark", "light"] {
        std::fs::create_dir_all(folder.path().join("data").join(class)).unwrap();
        for i in 0..4usize {
            let pixels: Vec<u8> = (0..64).map(|at| (at * 37 + i * 101 + class.len() * 29) as u8).collect();
            write_png(&folder.path().join(format!("data/{class}/{i}.png")), 8, 1, &pixels).unwrap();
        }
    }
    let losses = |model: &str, device: &str| -> Vec<f64> {
        let run = format!("{device}-{}", model.len());
        let rest =
            "--dataset folder --data data --epochs 1 --steps-per-epoch 2 --batch-size 2 --precision bf16 --quiet";
        let args = format!("train {model} {rest} --device {device} --out {run}");
        let out = binade(&args.split(' ').collect::<Vec<_>>(), folder.path()).output().unwrap();
        assert!(out.status.success(), "{args}: {}", text(&out.stderr));
        let metrics = std::fs::read_to_string(folder.path().join(run).join("metrics.jsonl")).unwrap();
        let lines = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["kind"] == "step").map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    for model in ["vision --model resnet20", "diffusion --channels 8 --drawn 1 --steps 1"] {
        let (there, here) = (losses(model, "cuda-interpreted"), losses(model, "cpu"));
        assert_eq!((there.len(), here.len()), (2, 2), "{model}");
        for ((there, here), allowed) in there.into_iter().zip(here).zip([2f64.powi(-9), 2e-2]) {
            assert!((there - here).abs() <= allowed * here, "{model}: {there}, on the CPU {here}");
        }
    }
}

#[test]
fn settings_name_the_device_that_a_model_is_trained_on() {
    let model = Linear::new(3, 2).unwrap();
    let config = Config { device: Some("cuda-interpreted".into()), ema: Some(0.9), ..Config::default() };
    let mut training = config.training(&model).unwrap();
    let device = model.device().unwrap();
    assert_eq!(device.name(), "cuda-interpreted");
    let own = model.clone();
    let loss = move || -> binade::amp::Result<Var> {
        let x = Var::from_slice(&[1.0f32, 2.0, 3.0], &[1, 3])?;
        Ok(own.forward(&x)?.square()?.sum(&[], false)?)
    };
    let mut step = || scope::with_device(&device, || training.step(&loss).unwrap().loss);
    assert!(step() > step());
    let config = Config { device: Some("tpu".into()), ..Config::default() };
    let error = config.training(&model).unwrap_err().to_string();
    assert!(error.contains("'tpu'") && error.contains("cuda-interpreted"), "{error}");
}
