//! What the command line has beside training: a run's numbers again, completions, manual pages.

use std::path::Path;
use std::process::{Command, Output};

fn binade(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_binade")).args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_run_is_evaluated_again_to_the_numbers_of_its_summary() {
    let folder = tempfile::tempdir().unwrap();
    let out = binade(&["train", "--epochs", "1", "--quiet", "--tensorboard", "--out", "run"], folder.path());
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(folder.path().join("run/tensorboard/bf16").is_dir());
    let again = binade(&["evaluate", "run", "--json"], folder.path());
    assert!(again.status.success(), "{}", text(&again.stderr));
    let summary = std::fs::read(folder.path().join("run/summary.json")).unwrap();
    let json = |bytes: &[u8]| serde_json::from_slice::<Vec<serde_json::Value>>(bytes).unwrap();
    let numbers = |all: Vec<serde_json::Value>| -> Vec<_> {
        all.iter()
            .map(|one| ["precision", "test_loss", "test_accuracy", "answers"].map(|key| one[key].clone()))
            .collect()
    };
    assert_eq!(numbers(json(&again.stdout)), numbers(json(&summary)));
    let table = text(&binade(&["evaluate", "run"], folder.path()).stdout);
    assert!(table.contains("test accuracy") && table.contains("bf16"), "{table}");
    let none = binade(&["evaluate", "."], folder.path());
    assert!(none.status.code() == Some(1) && text(&none.stderr).contains("not a run folder"));
}

#[test]
fn shells_and_man_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&binade(&["completions", shell], folder.path()).stdout);
        assert!(script.contains("evaluate") && script.contains("patience"), "{shell}");
    }
    let out = binade(&["man", "pages"], folder.path());
    assert!(out.status.success(), "{}", text(&out.stderr));
    for page in ["binade.1", "binade-train.1", "binade-train-gpt.1", "binade-evaluate.1"] {
        assert!(folder.path().join("pages").join(page).exists(), "{page}");
    }
}
