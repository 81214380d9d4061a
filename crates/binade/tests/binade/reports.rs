//! Runs after and while they are trained: `report`, `compare`, `watch`; models before they run: `summary` and `memory`.

use std::path::Path;
use std::process::{Command, Output};

fn binade(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_binade")).args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the example that a command's help ends with, in a folder where `runs/digits-1` and `runs/digits-2` are.
fn example(command: &str, folder: &Path) -> String {
    let help = text(&binade(&[command, "--help"], folder).stdout);
    let (_, line) = help.split_once("Example: binade ").unwrap_or_else(|| panic!("{help}"));
    let words: Vec<&str> = line.lines().next().unwrap().split(' ').collect();
    assert_eq!(words[0], command);
    let out = binade(&words, folder);
    assert!(out.status.success(), "{words:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

#[test]
fn runs_are_compared_and_reported_by_the_examples_of_the_help() {
    let folder = tempfile::tempdir().unwrap();
    for (run, lr) in [("runs/digits-1", "2e-3"), ("runs/digits-2", "1e-3")] {
        let args = ["train", "--epochs", "1", "--batch-size", "200", "--precision", "bf16", "--quiet", "--lr", lr];
        let out = binade(&[&args[..], &["--out", run]].concat(), folder.path());
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    let table = example("compare", folder.path());
    for part in ["digits-1 bf16", "digits-2 bf16", "test accuracy", "skipped steps", "fit.lr", "0.002", "0.001"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert!(!table.contains("fit.epochs"), "{table}");
    let json = text(&binade(&["compare", "runs/digits-1", "runs/digits-2", "--json"], folder.path()).stdout);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let summary = std::fs::read_to_string(folder.path().join("runs/digits-2/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(json["runs"][1]["trainings"][0]["summary"], summary[0]);
    assert_eq!(json["settings_that_differ"], serde_json::json!(["fit.lr"]));
    assert_eq!(json["runs"][0]["trainings"][0]["steps"], 8);

    assert_eq!(example("report", folder.path()).trim(), "both.html");
    let page = std::fs::read_to_string(folder.path().join("both.html")).unwrap();
    assert!(page.contains("digits-1 bf16") && page.contains("What differs:") && page.contains("--quiet"));
    // One run has its page in its folder, made anew.
    std::fs::remove_file(folder.path().join("runs/digits-1/report.html")).unwrap();
    assert!(binade(&["report", "runs/digits-1"], folder.path()).status.success());
    assert!(folder.path().join("runs/digits-1/report.html").exists());
    let screen = example("watch", folder.path());
    for part in ["runs/digits-1", "bf16  epoch 1/1  step 8", "training loss", "loss scale", "steps per second"] {
        assert!(screen.contains(part), "{part} in {screen}");
    }
    // A run that stopped in the middle is told of too, and a folder without a run named.
    std::fs::remove_file(folder.path().join("runs/digits-1/summary.json")).unwrap();
    let table = text(&binade(&["compare", "runs/digits-1"], folder.path()).stdout);
    assert!(table.contains("digits-1 bf16: has not ended: 8 steps, 0 skipped, test loss"), "{table}");
    for command in ["compare", "report", "watch"] {
        let none = binade(&[command, "runs"], folder.path());
        assert_eq!(none.status.code(), Some(1));
        assert!(text(&none.stderr).contains("not a run folder"), "{}", text(&none.stderr));
    }
}

#[test]
fn a_run_is_watched_without_a_terminal_until_nobody_trains_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let start = |epochs: &str| {
        let args =
            ["train", "--epochs", epochs, "--batch-size", "200", "--precision", "bf16", "--quiet", "--out", "run"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_binade"));
        command.args(args).current_dir(folder.path()).spawn().unwrap()
    };
    let mut training = start("4");
    while !folder.path().join("run/metrics.jsonl").exists() {
        assert!(training.try_wait().unwrap().is_none(), "the training has ended before it began");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let watched = binade(&["watch", "run"], folder.path());
    assert!(watched.status.success(), "{}", text(&watched.stderr));
    let lines: Vec<serde_json::Value> =
        text(&watched.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(training.wait().unwrap().success());
    assert_eq!(lines.iter().filter(|line| line["kind"] == "epoch").count(), 4, "{lines:?}");
    assert!(lines.iter().all(|line| line["kind"] != "step"), "{lines:?}");
    let screen = binade(&["train", "--tui", "--out", "other"], folder.path());
    assert!(text(&screen.stderr).contains("--tui needs a terminal"), "{}", text(&screen.stderr));
    assert!(!folder.path().join("other").exists());
}

fn json(args: &[&str], folder: &Path) -> serde_json::Value {
    let out = binade(args, folder);
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn a_summary_has_every_layer_by_name_and_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let table = example("summary", folder.path());
    // torchvision's ResNet-50 has 25,557,032 parameters.
    assert!(table.contains("25557032 parameters") && table.contains("layer4") && table.contains("bf16"), "{table}");
    let all = json(&["summary", "small-cnn", "--batch", "1", "--json"], folder.path());
    // 3×3 convolutions of 1, 32, 64 and 128 channels at 8×8 and 4×4, and two layers.
    let products = 64 * 9 * (32 + 32 * 64) + 16 * 9 * (64 * 128 + 128 * 128) + 512 * 256 + 2560;
    assert_eq!(all["forward_flop"], 2.0 * f64::from(products));
    let layers = all["layers"].as_array().unwrap();
    let c2 = layers.iter().find(|layer| layer["layer"] == "c2").unwrap();
    assert_eq!((&c2["parameters"], &c2["shape"]), (&serde_json::json!(18496), &serde_json::json!([1, 64, 8, 8])));
    let sum: u64 = layers.iter().map(|layer| layer["parameters"].as_u64().unwrap()).sum();
    assert_eq!(all["parameters"], sum);

    let args = ["train", "--epochs", "1", "--batch-size", "200", "--precision", "fp32", "--quiet", "--out", "run"];
    assert!(binade(&args, folder.path()).status.success());
    let run = json(&["summary", "run", "--batch", "1", "--json"], folder.path());
    assert_eq!((&run["parameters"], &run["forward_flop"]), (&all["parameters"], &all["forward_flop"]));
    let none = binade(&["summary", "nothing"], folder.path());
    assert!(text(&none.stderr).contains("resnet50"), "{}", text(&none.stderr));
}

#[test]
fn memory_is_planned_as_it_is_taken_and_the_largest_batch_fits() {
    let folder = tempfile::tempdir().unwrap();
    let rows = json(&["memory", "small-cnn", "--measure", "--threads", "1", "--json"], folder.path());
    let rows = rows["rows"].as_array().unwrap();
    // Three precisions, and two of them stored in 16 bit too.
    assert_eq!(rows.len(), 5);
    for row in rows {
        let [planned, measured] = [&row["planned"]["taken"], &row["measured"]];
        let of = |taken: &serde_json::Value, what: &str| taken[what].as_f64().unwrap();
        let off = (of(planned, "total") - of(measured, "total")).abs() / of(measured, "total");
        assert!(off <= 0.05 && planned["saved"] == measured["saved"], "{row}");
        // Weights, gradients and optimiser.
        assert_eq!(planned["classes"][0], measured["classes"][0], "{row}");
    }
    let stored = rows.iter().find(|row| row["recipe"] == "bf16 AdamW, stored in 16 bit").unwrap();
    assert_eq!(
        2 * stored["planned"]["taken"]["classes"][0].as_u64().unwrap(),
        rows[0]["planned"]["taken"]["classes"][0]
    );

    let table = example("memory", folder.path());
    assert!(table.contains("largest batch in 2.00 GiB") && table.contains("blocks again"), "{table}");
    let of = |n: &str| {
        let row = &json(&["memory", "small-cnn", "--fast", "--limit", "300MiB", "--batch", n, "--json"], folder.path())
            ["rows"][0];
        (row["largest_batch"].as_u64().unwrap(), row["planned"]["taken"]["total"].as_u64().unwrap())
    };
    let (largest, _) = of("64");
    let process = |total: u64| total + (256 << 20) + total / 32;
    let [fits, not] = [largest, largest + 1].map(|n| process(of(&n.to_string()).1));
    assert!(fits <= 300 << 20 && not > 300 << 20, "{largest}: {fits} {not}");
}
