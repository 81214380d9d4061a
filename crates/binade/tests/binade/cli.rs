//! The command line as a newcomer meets it.

use std::path::Path;
use std::process::{Command, Output};

fn binade(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_binade")).args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn unknown_flags_and_values_list_the_valid_ones() {
    let folder = tempfile::tempdir().unwrap();
    let error = |args: &[&str]| {
        let out = binade(args, folder.path());
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        text(&out.stderr)
    };
    let precision = error(&["train", "--precision", "fp8"]);
    assert!(["fp32", "fp16", "bf16", "all"].iter().all(|p| precision.contains(p)), "{precision}");
    let dataset = error(&["train", "--dataset", "imagenet"]);
    assert!(["digits", "cifar10", "mnist", "fashion-mnist"].iter().all(|d| dataset.contains(d)), "{dataset}");
    assert!(error(&["train", "--epoch", "3"]).contains("--epochs"));
    assert!(error(&["train", "--batch-size", "0"]).contains("at least 1"));
    assert!(error(&["train", "--label-smoothing", "1.5"]).contains("a number from 0 to 1"));
    assert!(error(&["tarin"]).contains("train"));
}

#[test]
fn a_short_run_writes_its_folder_and_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let out = binade(&["train", "--epochs", "1", "--threads", "2", "--out", "run"], folder.path());
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("saved activations"));
    for file in ["config.json", "metrics.jsonl", "summary.json", "report.html", "checkpoint-fp16.safetensors"] {
        assert!(folder.path().join("run").join(file).exists(), "{file}");
    }
    let summary: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("run/summary.json")).unwrap()).unwrap();
    let runs = summary.as_array().unwrap();
    assert_eq!(runs.iter().map(|r| r["precision"].as_str().unwrap()).collect::<Vec<_>>(), ["fp32", "fp16", "bf16"]);
    let saved = |i: usize| runs[i]["saved_activation_bytes"].as_f64().unwrap();
    assert!(saved(1) <= 0.53 * saved(0) && saved(2) <= 0.53 * saved(0), "{} {} {}", saved(0), saved(1), saved(2));
    let again = binade(&["train", "--out", "run"], folder.path());
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("already holds a run"));
    // A finished run resumes to its own summary.
    let resumed = binade(&["train", "--epochs", "1", "--resume", "run"], folder.path());
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
}

/// Only what is asked for in so many words can differ from the run.
#[test]
fn a_run_is_resumed_with_its_own_settings() {
    let folder = tempfile::tempdir().unwrap();
    let start = ["train", "--epochs", "1", "--precision", "bf16", "--batch-size", "100", "--lr", "1e-3", "--seed", "5"];
    let out = binade(&[&start[..], &["--quiet", "--out", "run"]].concat(), folder.path());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let resumed = binade(&["train", "--resume", "run", "--epochs", "2"], folder.path());
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    let table = text(&resumed.stdout);
    assert!(table.contains("bf16 epoch   2/2") && !table.contains("fp32"), "{table}");
    for (flag, value, named) in [
        ("--precision", "fp16", r#"["bf16"], not ["fp16"]"#),
        ("--batch-size", "64", "batch_size = 100, not 64"),
        ("--dataset", "mnist", r#"dataset = "digits", not "mnist""#),
    ] {
        let refused = binade(&["train", "--resume", "run", flag, value], folder.path());
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains(named), "{}", text(&refused.stderr));
    }
}

/// Twice, as `timeout` sends it: to the process and to its group.
#[cfg(unix)]
#[test]
fn a_termination_signal_saves_the_run_which_then_continues() {
    use std::time::{Duration, Instant};
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_binade"))
        .args(["train", "--precision", "fp32", "--epochs", "100000", "--quiet", "--out", "run"])
        .current_dir(folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (metrics, start) = (folder.path().join("run/metrics.jsonl"), Instant::now());
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..2 {
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    }
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("continue with --resume run"), "{}", text(&out.stderr));
    let steps = || std::fs::read_to_string(&metrics).unwrap().lines().filter(|l| l.contains("\"step\"")).count();
    let (stopped, batches) = (steps(), 1437_usize.div_ceil(64));
    let epochs = (stopped / batches + 1).to_string();
    let resumed = binade(&["train", "--resume", "run", "--epochs", &epochs], folder.path());
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    assert_eq!(steps(), (stopped / batches + 1) * batches);
}

/// A run of a model that is stopped by a signal and resumed, beside one that is not: tensors of the last checkpoint,
/// and the numbers of all steps.
#[cfg(unix)]
fn stopped_and_whole(model: &[&str]) -> [(Vec<u8>, Vec<String>); 2] {
    let folder = tempfile::tempdir().unwrap();
    let args = |out: &'static str| [&["train"], model, &["--precision", "bf16", "--quiet", "--out", out]].concat();
    let whole = binade(&args("whole"), folder.path());
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    let metrics = folder.path().join("parts/metrics.jsonl");
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_binade"));
        command.args(args).current_dir(folder.path()).stderr(std::process::Stdio::null());
        command
    };
    let mut child = command(&args("parts")).spawn().unwrap();
    let lines = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    while lines() < 2 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "it had ended before it was stopped: {} lines", lines());
    let resumed = binade(&["train", "--quiet", "--resume", "parts"], folder.path());
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    ["whole", "parts"].map(|run| {
        let run = folder.path().join(run);
        let (tensors, _) =
            binade::nn::read_safetensors(&run.join("checkpoint-bf16.safetensors"), binade::tensor::Class::Workspace)
                .unwrap();
        let numbers = |(name, array): (String, binade::tensor::Array)| {
            [name.into_bytes(), array.to_f64_vec().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect()].concat()
        };
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let steps = text.lines().filter(|line| line.contains("\"kind\":\"step\"")).map(String::from).collect();
        (tensors.into_iter().flat_map(numbers).collect(), steps)
    })
}

#[cfg(unix)]
/// A network that is soon trained, and draws little.
const SMALL_UNET: [&str; 8] = ["--channels", "8", "--layers", "1", "--drawn", "4", "--steps", "5"];

#[test]
fn models_that_are_stopped_and_resumed_have_the_bits_of_those_that_are_not() {
    let gpt = ["gpt", "--block-size", "8", "--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--max-iters", "30"];
    let cases: [&[&str]; 3] = [
        &[&gpt[..], &["--batch-size", "50", "--epochs", "1", "--accumulate", "2", "--ema", "0.9"]].concat(),
        &["vision", "--model", "vit", "--batch-size", "300", "--epochs", "2", "--evaluate-every", "3"],
        &[&["diffusion", "--dataset", "digits", "--batch-size", "200", "--epochs", "1"], &SMALL_UNET[..]].concat(),
    ];
    for model in cases {
        let [whole, parts] = stopped_and_whole(model);
        assert!(whole.1.len() > 3 && whole.1 == parts.1, "{model:?}");
        assert!(whole.0 == parts.0, "{model:?}");
    }
}

#[test]
fn every_training_runs_by_its_name_and_is_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let text_file = folder.path().join("verse.txt");
    std::fs::write(&text_file, "A rose is a rose is a rose.\n".repeat(60)).unwrap();
    let small = ["--block-size", "8", "--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--max-iters", "3"];
    let cases: [(&str, &[&str], &str); 3] = [
        // A step takes no more than there is in an epoch.
        ("vision", &["--model", "vit", "--batch-size", "800", "--accumulate", "99999999999999"], "test accuracy"),
        ("diffusion", &[&["--dataset", "digits", "--batch-size", "800"], &SMALL_UNET[..]].concat(), "test loss"),
        ("gpt", &[&small[..], &["--data", "verse.txt"]].concat(), "test perplexity"),
    ];
    for (what, more, result) in cases {
        let args = [&["train", what, "--epochs", "1", "--precision", "fp16", "--out", what], more].concat();
        let out = binade(&args, folder.path());
        assert!(out.status.success(), "{what}: {}", text(&out.stderr));
        assert!(text(&out.stdout).contains(result), "{what}: {}", text(&out.stdout));
        let seen = binade(&["inspect", what], folder.path());
        assert!(text(&seen.stdout).contains("recommended"), "{what}: {}", text(&seen.stderr));
    }
    let page = std::fs::read_to_string(folder.path().join("diffusion/report.html")).unwrap();
    assert!(page.contains("What the model makes, fp16"));
    // Flags of one training are not those of another.
    let error = |args: &[&str]| text(&binade(args, folder.path()).stderr);
    assert!(error(&["train", "vision", "--n-layer", "2"]).contains("unexpected argument '--n-layer'"));
    assert!(error(&["train", "gpt", "--dataset", "digits"]).contains("unexpected argument '--dataset'"));
    assert!(error(&["train", "gpt", "--data", "none.txt"]).contains("none.txt"));
    assert!(error(&["train", "--resume", "gpt", "--model", "vit"]).contains("--model is an option of `train vision`"));
    assert!(error(&["train", "vae", "--resume", "gpt"]).contains("the run is one of `train gpt`"));
    assert!(error(&["train", "gpt", "--resume", "gpt", "--n-embd", "16"]).contains("n_embd = 8, not 16"));
}

#[test]
fn settings_come_from_a_file_and_the_command_line_has_the_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "epochs = 3\nbatch_size = 400\nprecision = \"bf16\"\noptimizer = \"sgd\"\nlr = 0.05\nquiet = true\n\
                    schedule = \"one-cycle\"\nclip = \"inf\"\nkeep_best = false\nmomentum = 0.8\n";
    std::fs::write(folder.path().join("run.toml"), settings).unwrap();
    let out = binade(&["train", "--config", "run.toml", "--epochs", "1", "--out", "run"], folder.path());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let written = std::fs::read_to_string(folder.path().join("run/config.json")).unwrap();
    for part in ["\"epochs\": 1,", "\"batch_size\": 400", "\"momentum\": 0.8", "one_cycle", "\"lr\": 0.05", "bf16"] {
        assert!(written.contains(part), "{part} in {written}");
    }
    let error = |text_of_file: &str| {
        std::fs::write(folder.path().join("bad.toml"), text_of_file).unwrap();
        text(&binade(&["train", "--config=bad.toml", "--out", "bad"], folder.path()).stderr)
    };
    assert!(error("batchsize = 3").contains("did you mean batch_size?"));
    assert!(error("epochs = ").contains("bad.toml"));
    assert!(error("epochs = 0").contains("at least 1"));
    assert!(error("keep_best = 3").contains("expected true or false"));
    assert!(error("[epochs]\nn = 1").contains("is no value of a flag"));
    let absent = text(&binade(&["train", "--config", "none.toml"], folder.path()).stderr);
    assert!(absent.contains("none.toml"), "{absent}");
}

#[test]
fn settings_that_do_not_fit_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = |args: &[&str]| text(&binade(&[&["train"], args].concat(), folder.path()).stderr);
    assert!(error(&["--betas", "0.9", "0.99", "--optimizer", "sgd"]).contains("sgd has none"));
    assert!(error(&["--momentum", "0.9"]).contains("adamw has none"));
    assert!(error(&["--nesterov", "true"]).contains("is of sgd"));
    assert!(error(&["--min-lr", "1"]).contains("above the learning rate"));
    assert!(error(&["--schedule", "one-cycle", "--warmup", "5"]).contains("rise and an end of its own"));
    assert!(error(&["--schedule", "constant", "--min-lr", "1e-4"]).contains("ends where it begins"));
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn settings_outside_their_domain_are_refused_before_anything_else() {
    // In all three precisions, of whose steps nothing is said; and before data are looked for.
    let folder = tempfile::tempdir().unwrap();
    let mut refused = vec![
        (vec!["--lr", "1e39"], "learning rate of adamw must be at least 0 and finite in f32"),
        (vec!["--weight-decay", "1e39"], "weight decay of adamw must be at least 0 and finite in f32"),
        (vec!["--ema", "2"], "decay of the averages must be from 0 to 1, got 2"),
        (vec!["--betas", "0.9", "1"], "second beta of adamw must be at least 0 and below 1, got 1"),
        (vec!["--optimizer", "sgd", "--momentum", "0"], "momentum of sgd must be above 0 with Nesterov's form"),
        (vec!["--optimizer", "rmsprop", "--momentum", "1e39"], "momentum of rmsprop must be at least 0"),
    ];
    refused.iter_mut().for_each(|(args, _)| args.splice(0..0, ["vision", "--data", "absent"]).for_each(drop));
    refused.extend([
        (vec!["gpt", "--data", "absent", "--max-iters", "7", "--eval-interval", "2"], "is no multiple of"),
        (vec!["gpt", "--n-head", "3"], "heads"),
        (vec!["diffusion", "--dataset", "folder", "--data", "absent", "--guidance", "nan"], "guidance"),
        (vec!["vision", "--dataset", "folder", "--data", "absent", "--rand-augment", "2", "31"], "from 0 to 30"),
    ]);
    for (args, told) in refused {
        let out = binade(&[&["train"], &args[..]].concat(), folder.path());
        let error = text(&out.stderr);
        assert!(!out.status.success() && error.contains(told), "{args:?}: {error}");
        assert!(error.lines().count() == 1 && out.stdout.is_empty(), "{args:?}: {} {error}", text(&out.stdout));
        assert!(!folder.path().join("runs").exists(), "{args:?}");
    }
}

#[test]
fn missing_data_and_runs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = |args: &[&str]| text(&binade(args, folder.path()).stderr);
    assert!(error(&["train", "--dataset", "cifar10"]).contains("--data DIR"));
    assert!(error(&["train", "--dataset", "mnist", "--data", "nowhere"]).contains("train-images-idx3-ubyte"));
    assert!(error(&["train", "--resume"]).contains("no run to resume"));
}

#[test]
fn formats_tells_what_a_number_becomes() {
    let folder = tempfile::tempdir().unwrap();
    let edges = text(&binade(&["formats"], folder.path()).stdout);
    assert!(edges.contains("65504") && edges.contains("65520") && edges.contains("448"), "{edges}");
    let number = text(&binade(&["formats", "-1e-8"], folder.path()).stdout);
    assert!(number.lines().any(|l| l.starts_with("| f16") && l.contains("underflows to 0")), "{number}");
    assert!(text(&binade(&["formats", "many"], folder.path()).stderr).contains("not a number"));
}

/// Every command of README's first table of commands is one the program has.
#[test]
fn the_commands_of_the_readme_exist() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Commands\n").unwrap();
    let (section, _) = section.split_once("\n#").unwrap();
    let rows: Vec<&str> = section.lines().filter_map(|l| l.strip_prefix("| `cargo xtask ")).collect();
    assert!(rows.len() >= 6, "{rows:?}");
    for row in rows {
        let words: Vec<&str> = row.split('`').next().unwrap().split(' ').collect();
        let help = text(&binade(&[words[0], "--help"], Path::new(".")).stdout);
        assert!(help.contains(&format!("Usage: binade {}", words[0])), "{words:?}: {help}");
        for flag in words.iter().filter(|w| w.starts_with("--")) {
            assert!(help.contains(flag), "{words:?}");
        }
    }
}

#[test]
fn the_page_of_operators_is_what_the_program_prints() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ops.md");
    let out = binade(&["ops"], Path::new("."));
    assert!(out.status.success(), "{}", text(&out.stderr));
    let written = std::fs::read_to_string(page).unwrap();
    assert!(written == text(&out.stdout), "docs/ops.md is old: cargo xtask ops > docs/ops.md");
}

#[test]
fn inspect_reports_every_layer_and_recommends() {
    let folder = tempfile::tempdir().unwrap();
    let out = binade(&["train", "--epochs", "1", "--precision", "fp32", "--out", "run", "--quiet"], folder.path());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let table = text(&binade(&["inspect", "run"], folder.path()).stdout);
    assert!(
        ["c1.weight", "f2", "gradients by exponent", "recommended: f16", "casts wrote"]
            .iter()
            .all(|s| table.contains(s)),
        "{table}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&binade(&["inspect", "run", "--json"], folder.path()).stdout).unwrap();
    // 1 parameter tensor of each kind for 6 layers, and every layer in both passes.
    let of = |role: &str| json["preflight"]["rows"].as_array().unwrap().iter().filter(|r| r["role"] == role).count();
    assert!(of("weight") == 12 && of("activation") >= 6 && of("gradient") >= 12);
    let missing = binade(&["inspect", "nowhere"], folder.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("not a run folder"));
}

#[test]
fn doctor_recommends_for_every_kind_of_machine() {
    let folder = tempfile::tempdir().unwrap();
    let out = text(&binade(&["doctor"], folder.path()).stdout);
    assert!(
        ["Volta", "Ampere", "TPU", "with dynamic loss scaling", "run by the host"].iter().all(|s| out.contains(s)),
        "{out}"
    );
}

#[test]
fn the_environment_chooses_the_kernels() {
    let level = |isa: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_binade")).arg("doctor").env("BINADE_ISA", isa).output().unwrap();
        (text(&out.stdout).lines().next().unwrap_or_default().to_string(), text(&out.stderr))
    };
    for isa in binade::cpu::simd::Isa::available() {
        // The number comes from a kernel that ran, not from the name.
        let length = binade::cpu::simd::vector_length(isa);
        let (line, warning) = level(isa.name());
        assert!(line.starts_with(&format!("kernels   {}, {length} f32 at a time", isa.name())), "{line}");
        assert_eq!(warning, "");
    }
    let (line, warning) = level("sse9");
    assert!(
        warning.contains("BINADE_ISA=sse9: this processor has portable") && line.starts_with("kernels   "),
        "{warning}"
    );
}

#[test]
fn weights_are_listed_with_what_formats_lose() {
    let folder = tempfile::tempdir().unwrap();
    let device = binade::tensor::Device::cpu();
    let values = [0.0f32, 1e5, -2.0, 1e-9];
    let array = binade::tensor::Array::from_slice(&device, &values, &[2, 2], binade::tensor::Class::Weights).unwrap();
    let path = folder.path().join("model.safetensors");
    binade::nn::write_safetensors(&path, &[("layer.weight".into(), array)], Default::default()).unwrap();
    let out = text(&binade(&["weights", "."], folder.path()).stdout);
    for part in ["layer.weight", "F32", "[2, 2]", "-2.000e0", "1.000e5", "1, 1, 0", "1 tensors, 4 values, 1 file"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let out = text(&binade(&["weights", "model.safetensors", "--json"], folder.path()).stdout);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    let lost = &told["tensors"][0]["range"]["losses"];
    let found =
        lost.as_array().unwrap().iter().map(|l| (l["dtype"].as_str().unwrap(), l["overflow"].as_u64().unwrap()));
    assert!(found.eq([("f32", 0), ("f16", 1), ("bf16", 0)]), "{out}");
    let out = binade(&["weights", "nowhere"], folder.path());
    assert!(out.status.code() == Some(1) && text(&out.stderr).contains("nowhere"));
}

/// By the shell's limit of the address space.
#[cfg(target_os = "linux")]
#[test]
fn what_does_not_fit_is_told_before_the_step_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let model = "--n-layer 24 --n-embd 576 --n-head 8 --block-size 8 --batch-size 4";
    let program = env!("CARGO_BIN_EXE_binade");
    let line = format!("ulimit -v 1400000; exec {program} train gpt {model} --precision fp32 --threads 2 --out run");
    let out = Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{error}");
    // 96M parameters, their gradients, and two states of each.
    assert!(
        error.contains("not enough memory: a step in fp32 needs 1.") && error.contains("GiB (optimizer 7"),
        "{error}"
    );
    assert!(error.contains("and RLIMIT_AS leaves") && error.contains("What would fit: --optimizer "), "{error}");
    assert!(!folder.path().join("run").exists());
}
