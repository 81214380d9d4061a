//! Runs after they have ended: `report` and `compare`.

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
    // A run that stopped in the middle is told of too, and a folder without a run named.
    std::fs::remove_file(folder.path().join("runs/digits-1/summary.json")).unwrap();
    let table = text(&binade(&["compare", "runs/digits-1"], folder.path()).stdout);
    assert!(table.contains("digits-1 bf16: has not ended: 8 steps, 0 skipped, test loss"), "{table}");
    for command in ["compare", "report"] {
        let none = binade(&[command, "runs"], folder.path());
        assert_eq!(none.status.code(), Some(1));
        assert!(text(&none.stderr).contains("not a run folder"), "{}", text(&none.stderr));
    }
}
