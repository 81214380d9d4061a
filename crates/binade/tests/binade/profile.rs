//! `train --profile` and `binade profile`: what is recorded, and that nothing else changes.

use std::path::Path;

use crate::common::{binade, done};
use serde_json::Value;

fn events(path: &Path) -> Vec<Value> {
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    trace["traceEvents"].as_array().unwrap().clone()
}

/// Where an event begins and ends, in microseconds.
fn span(event: &Value) -> (f64, f64) {
    let start = event["ts"].as_f64().unwrap();
    (start, start + event["dur"].as_f64().unwrap())
}

#[test]
fn a_training_records_its_steps_and_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let settings = "train --epochs 2 --batch-size 128 --threads 2";
    let told = done(&format!("{settings} --out with --profile trace.json --profile-steps 9"), at);
    done(&format!("{settings} --out without --quiet"), at);
    let steps = |run: &str| -> Vec<String> {
        let text = std::fs::read_to_string(at.join(run).join("metrics.jsonl")).unwrap();
        text.lines().filter(|line| line.contains("\"kind\":\"step\"")).map(String::from).collect()
    };
    assert_eq!(steps("with"), steps("without"));
    for precision in ["fp32", "fp16", "bf16"] {
        assert!(told.contains(&format!("{precision}: 9 steps, ")), "{told}");
    }
    for part in ["| backward ", "| evaluation ", "| checkpoint ", "| conv2d ", "| adamw ", "| c1 ", "GFLOP/s"] {
        assert!(told.contains(part), "{part} in {told}");
    }

    let events = events(&at.join("trace.json"));
    for (pid, (precision, dtype)) in [("fp32", "f32"), ("fp16", "f16"), ("bf16", "bf16")].into_iter().enumerate() {
        let own: Vec<&Value> = events.iter().filter(|event| event["pid"] == pid).collect();
        assert_eq!(own[0]["args"]["name"], precision);
        let of = |kind: &str| own.iter().filter(|event| event["cat"] == kind).copied().collect::<Vec<&Value>>();
        let steps = of("step");
        let names: Vec<&str> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
        // 12 steps an epoch: those after the first five, over the end of an epoch.
        assert_eq!(names, (5..14).map(|n| format!("step {n}")).collect::<Vec<_>>());
        for phase in ["data", "forward", "backward", "unscale", "clip", "update", "evaluation", "checkpoint"] {
            assert!(of("phase").iter().any(|event| event["name"] == phase), "{precision}: {phase}");
        }
        // Forward, backward, check, clip and update of each step lie in it, and operators in these.
        let inside = |inner: &Value, outer: &Value| {
            let ((a, b), (from, to)) = (span(inner), span(outer));
            from <= a && b <= to + 1e-3
        };
        for phase in ["forward", "backward", "unscale", "clip", "update"] {
            let phases: Vec<&Value> = of("phase").into_iter().filter(|event| event["name"] == phase).collect();
            let held = |step: &Value| phases.iter().filter(|phase| inside(phase, step)).count();
            assert!(steps.iter().all(|step| held(step) == 1), "{precision}: {phase}");
        }
        let operators = of("operator");
        let products: Vec<&&Value> = operators.iter().filter(|event| event["name"] == "conv2d").collect();
        assert!(products.iter().any(|event| event["args"]["layer"] == "c2"), "{products:?}");
        let input = products[0]["args"]["inputs"][0].as_str().unwrap();
        assert!(input.starts_with(&format!("{dtype}[128, 1, 8, 8]")), "{input}");
        for event in &products {
            assert!(event["args"]["flop"].as_f64().unwrap() > 0.0 && event["args"]["bytes"].as_u64().unwrap() > 0);
        }
        let phases = of("phase");
        let lost = operators.iter().filter(|op| !phases.iter().any(|phase| inside(op, phase))).count();
        assert_eq!(lost, 0, "{precision}: operators outside all phases");
        assert!(of("update").iter().any(|event| event["name"] == "adamw"));
    }
}

#[test]
fn a_model_and_a_run_are_profiled_and_json_has_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let told = done("profile small-cnn --batch 16 --steps 2 --precision bf16 --threads 1 --trace t.json", at);
    for part in ["bf16: 2 steps, ", "| forward ", "| conv2d ", "of limit", "GB/s in memory", "trace: t.json"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(events(&at.join("t.json")).iter().filter(|event| event["cat"] == "step").count(), 2);

    done("train --epochs 1 --precision fp32 --quiet --out run", at);
    let files = || std::fs::read_dir(at.join("run")).unwrap().count();
    let before = files();
    let json: Value = serde_json::from_str(&done("profile run --steps 3 --json", at)).unwrap();
    assert_eq!(files(), before, "a profile leaves a run as it is");
    let [recording] = json["recordings"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((&recording["precision"], &recording["times"]["steps"]), (&"fp32".into(), &3.into()));
    let seconds =
        |rows: &Value| rows.as_array().unwrap().iter().map(|row| row["seconds"].as_f64().unwrap()).sum::<f64>();
    let times = &recording["times"];
    let (operators, layers) = (seconds(&times["operators"]), seconds(&times["layers"]));
    assert!((operators - layers).abs() < 1e-9 && operators > 0.0, "{operators} and {layers}");
    assert!(operators <= times["seconds"].as_f64().unwrap(), "more time in operators than there is");
    let forward = times["operators"].as_array().unwrap().iter().find(|row| row["name"] == "conv2d").unwrap();
    assert!(forward["flop"].as_f64().unwrap() > 0.0 && forward["calls"].as_u64().unwrap() > 0);
    assert!(recording["limits"]["gflops"].as_f64().unwrap() > 0.0);

    let out = binade("profile nothing", at);
    assert!(String::from_utf8_lossy(&out.stderr).contains("no folder, and no model; there are small-cnn"));
    let out = binade("train --profile-steps 3", at);
    assert!(String::from_utf8_lossy(&out.stderr).contains("--profile"));
}
