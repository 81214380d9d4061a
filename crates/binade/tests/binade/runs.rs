//! What a run prints and leaves for others, and where it is gone on with.

use std::path::Path;

use crate::common::{binade, done, refused};
use binade::tensor::Class;
use serde_json::Value;

fn weights(run: &Path) -> Vec<(String, Vec<f64>)> {
    let (all, _) = binade::nn::read_safetensors(&run.join("checkpoint-bf16.safetensors"), Class::Workspace).unwrap();
    all.into_iter().map(|(name, array)| (name, array.to_f64_vec().unwrap())).collect()
}

#[test]
fn a_run_goes_on_from_any_checkpoint_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    done("train --epochs 4 --batch-size 300 --precision bf16 --keep-last 3 --quiet --out run", at);
    let (end, metrics) = (weights(&at.join("run")), std::fs::read_to_string(at.join("run/metrics.jsonl")).unwrap());
    let error = refused("train --resume run --after-epoch 1 --quiet", at);
    assert!(error.contains("no checkpoint of epoch 1") && error.contains("kept are 2, 3, 4"), "{error}");
    assert_eq!(std::fs::read_to_string(at.join("run/metrics.jsonl")).unwrap(), metrics, "nothing was changed");

    let told = done("train --resume run --after-epoch 2", at);
    assert!(!told.contains("bf16 epoch   2/4") && told.contains("bf16 epoch   3/4"), "{told}");
    assert_eq!(weights(&at.join("run")), end, "the same epochs come to the same weights");
    // Those of epochs after it are of another future, and go.
    done("train --resume run --after-epoch 2 --epochs 3 --quiet", at);
    assert!(!at.join("run/checkpoint-bf16.epoch-4.safetensors").exists());
    let out = binade("train --after-epoch 2", at);
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn a_run_prints_as_much_as_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let run = "train --epochs 1 --batch-size 500 --precision fp32";
    let usual = done(&format!("{run} --out usual"), at);
    assert!(usual.contains("fp32 epoch   1/1") && !usual.contains("fp32 step "), "{usual}");
    let all = done(&format!("{run} --log steps --out steps"), at);
    let steps: Vec<&str> = all.lines().filter(|line| line.starts_with("fp32 step ")).collect();
    assert_eq!(steps.len(), 3, "{all}");
    for part in ["epoch 1/1", "loss ", "images/s", "gradient norm ", "lr 2.000e-3", "scale 1"] {
        assert!(steps[0].contains(part), "{part} in {}", steps[0]);
    }
    for flag in ["--log errors", "--quiet"] {
        assert_eq!(done(&format!("{run} {flag} --out {}", flag.replace([' ', '-'], "")), at), "");
    }
    let json: Value = serde_json::from_str(&done(&format!("{run} --json --out json"), at)).unwrap();
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(at.join("json/summary.json")).unwrap()).unwrap();
    assert_eq!((&json["folder"], &json["summaries"]), (&"json".into(), &summary));
    let machine: Value = serde_json::from_str(&done("doctor --json", at)).unwrap();
    assert!(machine["threads"].as_u64().unwrap() >= 1);
    assert!(machine["devices"].as_array().unwrap().contains(&"cpu".into()), "{machine}");
    assert!(machine["recommended"].as_array().unwrap().iter().any(|row| row["dtype"] == "bf16"), "{machine}");
}

#[test]
fn numbers_of_runs_are_written_for_spreadsheets() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    done("train --epochs 2 --batch-size 500 --precision fp32 --evaluate-every 2 --quiet --out run", at);
    assert_eq!(done("report run --csv all.csv", at), "all.csv\n");
    let text = std::fs::read_to_string(at.join("all.csv")).unwrap();
    let mut lines = text.split_terminator("\r\n");
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == header.len()), "{text}");
    let cell = |row: &[&str], name: &str| row[header.iter().position(|own| *own == name).unwrap()].to_string();
    let metrics = std::fs::read_to_string(at.join("run/metrics.jsonl")).unwrap();
    let metrics: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), metrics.len());
    for (row, line) in rows.iter().zip(&metrics) {
        assert_eq!((cell(row, "run"), cell(row, "kind")), ("run".into(), line["kind"].as_str().unwrap().into()));
        for name in ["iteration", "loss", "lr", "grad_norm", "test_loss", "test_accuracy", "epoch", "seconds"] {
            let (found, told) = (cell(row, name), &line[name]);
            assert_eq!(found.parse::<f64>().ok(), told.as_f64(), "{name} of {line}");
        }
    }
}

/// The evidence of docs/features.md is there.
#[test]
fn every_feature_names_tests_that_exist() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(crates.join("../docs/features.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ")).map(|line| line.split('|').collect::<Vec<_>>());
    let numbered: Vec<Vec<&str>> = rows.filter(|row| row[1].trim().starts_with(char::is_numeric)).collect();
    assert_eq!(numbered.len(), 22);
    for row in numbered {
        let files: Vec<&str> = row[4].split('`').filter(|cell| cell.contains('/')).collect();
        assert!(!files.is_empty(), "{row:?}");
        for file in files {
            assert!(crates.join(file).exists(), "{file}");
        }
    }
}

/// As `binade --help` has them.
#[test]
fn exit_codes_are_as_they_are_documented() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let help = done("--help", at);
    assert!(help.contains("Exit codes: 0 done; 1 an error") && help.contains("2 a command line"), "{help}");
    for (args, code) in [("formats", 0), ("inspect nowhere", 1), ("tarin", 2), ("train --epochs none", 2)] {
        assert_eq!(binade(args, at).status.code(), Some(code), "{args}");
    }
}
