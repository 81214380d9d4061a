//! Checkpoints that cannot be written, and anomalies, which end a run with their error.

use binade_cpu as _;
use std::ops::ControlFlow;
use std::path::Path;

use binade_nn::Linear;
use binade_train::{Classify, Config, Error, InMemory, Metrics, Precision, Regress, RunConfig, Splits, Trainer};

static THREE: Classify = Classify::new(3);

fn data() -> Splits {
    let samples = |n: usize| {
        let inputs = (0..n * 4).map(|i| (i as f32 * 0.77).sin()).collect();
        InMemory::classes(inputs, &[4], &(0..n).map(|i| i % 3).collect::<Vec<_>>()).unwrap()
    };
    Splits::new(samples(48), samples(12))
}

fn config(folder: &Path, fit: Config) -> RunConfig {
    RunConfig {
        precisions: vec![Precision::Fp32],
        fit: Config { batch_size: 8, epochs: 2, ..fit },
        out: Some(folder.into()),
        quiet: true,
        ..RunConfig::default()
    }
}

fn checkpoint(folder: &Path) -> std::path::PathBuf {
    folder.join("checkpoint-fp32.safetensors")
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_the_run_with_its_error() {
    let folder = tempfile::tempdir().unwrap();
    for save_between_steps in [false, true] {
        // After the first epoch an error comes at a step or with the next checkpoint, after the last at the end.
        for epoch in [1, 2] {
            let at = folder.path().join(format!("{save_between_steps}-{epoch}"));
            let (data, path) = (data(), checkpoint(&at));
            let trainer = Trainer::new(|| Linear::new(4, 3), &THREE, &data).with_callback(Box::new(|metrics, _| {
                if matches!(metrics, Metrics::Epoch(now) if now.epoch == epoch) {
                    if path.exists() {
                        std::fs::remove_file(&path).unwrap();
                    }
                    std::fs::create_dir(&path).unwrap();
                }
                Ok(ControlFlow::Continue(()))
            }));
            let fit = Config { save_between_steps, ..Config::default() };
            let error = trainer.run(&config(&at, fit)).unwrap_err().to_string();
            assert!(error.contains("checkpoint-fp32.safetensors"), "{error}");
        }
    }
}

#[test]
fn an_anomaly_is_named_with_its_step_and_batch_and_the_run_goes_on_without_looking() {
    let folder = tempfile::tempdir().unwrap();
    // Of 32 training samples one has a target whose squared distance overflows.
    let numbers = |n: usize| {
        let targets = (0..n * 3).map(|i| if i == 29 * 3 { 1e30 } else { 0.5 }).collect();
        InMemory::values((0..n * 4).map(|i| (i as f32 * 0.3).cos()).collect(), &[4], targets, &[3]).unwrap()
    };
    let data = Splits::new(numbers(32), numbers(8));
    let run = |detect_anomaly: bool, resume: bool| {
        let fit = Config { detect_anomaly, ..Config::default() };
        let config = RunConfig { resume, ..config(folder.path(), fit) };
        Trainer::new(|| Linear::new(4, 3), &Regress, &data).run(&config)
    };
    let error = run(true, false).unwrap_err();
    let Error::Anomaly { step, epoch: 1, batch, ref blame, .. } = error else { panic!("{error}") };
    assert_eq!(batch as u64, step + 1);
    assert!(!blame.backward && blame.op.contains("loss"), "{blame}");
    let told = error.to_string();
    assert!(told.contains(&format!("step {step}, batch {batch} of epoch 1")) && told.contains(&blame.op), "{told}");
    // Its gradients are finite: who does not look goes on, with a loss that is no number.
    assert_eq!(run(false, true).unwrap().summaries[0].skipped_steps, 0);
    let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().filter(|line| line.contains("\"loss\":null")).count(), 2, "{metrics}");
}
