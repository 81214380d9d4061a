//! What a run refuses to start with, what it counts, and when it writes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use binade_cpu as _;
use binade_nn::{Linear, Sequential};
use binade_tensor::Key;
use binade_train::{
    Classify, Config, Data, EpochMetrics, InMemory, Metrics, OptimizerChoice, Precision, Record, Result, Run,
    RunConfig, SampleResult, Splits, StepMetrics, train,
};

/// Points of the plane, and whether the first coordinate is positive.
fn points(n: usize) -> InMemory {
    let x: Vec<f32> = (0..n * 2).map(|i| (i as f32 * 0.37).sin()).collect();
    let y: Vec<usize> = (0..n).map(|i| (x[2 * i] > 0.0) as usize).collect();
    InMemory::classes(x, &[2], &y).unwrap()
}

fn small() -> Config {
    Config { epochs: 2, batch_size: 16, lr: 0.05, ..Config::default() }
}

fn config(folder: &Path, fit: Config) -> RunConfig {
    let precisions = vec![fit.precision];
    RunConfig { fit, precisions, out: Some(folder.join("run")), quiet: true, ..RunConfig::default() }
}

fn start(config: &RunConfig, data: &Splits) -> Result<Run> {
    train(|| Ok(Sequential::new().then(Linear::new(2, 2)?)), &Classify::new(2), data, config)
}

fn records(folder: &Path) -> (Vec<StepMetrics>, Vec<EpochMetrics>) {
    let (mut steps, mut epochs) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap().lines() {
        match serde_json::from_str::<Record>(line).unwrap().metrics {
            Metrics::Step(step) => steps.push(step),
            Metrics::Epoch(epoch) => epochs.push(epoch),
            Metrics::Evaluation(_) => {}
        }
    }
    (steps, epochs)
}

// ---- what is refused

#[test]
fn each_setting_outside_its_domain_is_refused_by_itself() {
    let refused = |change: &dyn Fn(&mut Config), told: &str| {
        let (folder, mut fit) = (tempfile::tempdir().unwrap(), small());
        change(&mut fit);
        let error = start(&config(folder.path(), fit), &Splits::new(points(32), points(8))).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert!(!folder.path().join("run").exists(), "{told}");
    };
    refused(&|c| c.epochs = 0, "at least 1, got 0 and 16");
    refused(&|c| c.batch_size = 0, "at least 1, got 2 and 0");
    for bad in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        refused(&|c| c.lr = bad, "learning rate must be positive and finite");
        refused(&|c| c.clip = bad, "gradient norm must be positive and finite");
    }
    for bad in [-1.0, f64::INFINITY, f64::NAN] {
        refused(&|c| c.weight_decay = bad, "weight decay must be at least 0 and finite");
    }
    refused(&|c| c.lr = 1e39, "learning rate of adamw must be at least 0 and finite in f32");
    refused(&|c| c.optimizer = OptimizerChoice::Adam { betas: [1.0, 0.9] }, "first beta of adam must be");
    refused(&|c| c.ema = Some(2.0), "decay of the averages must be from 0 to 1, got 2");
    refused(&|c| (c.ema, c.ema_power) = (Some(0.9), Some(-1.0)), "power of the averages must be above 0");
}

#[test]
fn data_without_training_or_without_test_samples_are_refused() {
    for (trained, tested) in [(0, 8), (32, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let error = start(&config(folder.path(), small()), &Splits::new(points(trained), points(tested))).unwrap_err();
        assert!(error.to_string().contains("must not be empty"), "{error}");
    }
}

#[test]
fn the_smallest_weight_decay_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let fit = Config { weight_decay: 0.0, ..small() };
    assert!(start(&config(folder.path(), fit), &Splits::new(points(32), points(8))).is_ok());
}

/// Data whose number of samples falls once so many of them were drawn.
struct Shrinking {
    inner: InMemory,
    left: AtomicUsize,
}

impl Data for Shrinking {
    fn len(&self) -> usize {
        if self.left.load(Ordering::SeqCst) == 0 { 16 } else { self.inner.len() }
    }
    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).ok();
        self.inner.sample(index, key)
    }
}

#[test]
fn data_that_shrink_between_epochs_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = Splits::new(Shrinking { inner: points(64), left: AtomicUsize::new(64) }, points(8));
    let error = start(&config(folder.path(), small()), &data).unwrap_err().to_string();
    assert!(error.contains("ended after batch 1 of 4"), "{error}");
}

// ---- what is counted

#[test]
fn a_summary_counts_the_seconds_of_all_epochs_and_the_samples_that_were_trained_on() {
    // 66 samples: a smaller batch at the end, which is trained on or left out.
    for (drop_last, trained) in [(false, 66.0), (true, 64.0)] {
        let folder = tempfile::tempdir().unwrap();
        let fit = Config { epochs: 3, drop_last, ..small() };
        let begun = std::time::Instant::now();
        let run = start(&config(folder.path(), fit), &Splits::new(points(66), points(8))).unwrap();
        let (summary, taken) = (&run.summaries[0], begun.elapsed().as_secs_f64());
        let (steps, epochs) = records(folder.path());
        assert_eq!((steps.len(), epochs.len()), (if drop_last { 12 } else { 15 }, 3));
        let told: f64 = epochs.iter().map(|e| e.seconds).sum();
        let all = 3.0 * summary.seconds_per_epoch;
        assert!(epochs.iter().all(|e| e.seconds > 0.0) && told <= taken && all <= taken, "{told} {all} {taken}");
        // Read from the clock one after the other.
        assert!((told - all).abs() < 0.5 * all, "{told} instead of {all}");
        let samples = summary.per_second * summary.seconds_per_epoch;
        assert!((samples - trained).abs() < 1e-6, "{samples} instead of {trained}");
    }
}

#[test]
fn the_training_loss_of_every_epoch_is_the_mean_over_its_own_samples() {
    let folder = tempfile::tempdir().unwrap();
    start(&config(folder.path(), small()), &Splits::new(points(20), points(8))).unwrap();
    let (steps, epochs) = records(folder.path());
    for (epoch, steps) in epochs.iter().zip(steps.chunks(2)) {
        let mean = (16.0 * steps[0].loss.unwrap() + 4.0 * steps[1].loss.unwrap()) / 20.0;
        assert!((epoch.train_loss - mean).abs() < 1e-12, "{} instead of {mean}", epoch.train_loss);
        assert_eq!(epoch.iteration, 2 * epoch.epoch);
    }
}

#[test]
fn weight_decay_is_the_one_that_is_set() {
    let last = |weight_decay: f64| {
        let folder = tempfile::tempdir().unwrap();
        let fit = Config { weight_decay, ..small() };
        start(&config(folder.path(), fit), &Splits::new(points(64), points(8))).unwrap().summaries[0].train_loss
    };
    assert!(last(0.0) < last(0.01) && last(0.01) < last(5.0), "what decays fits less well");
}

// ---- when it writes

/// Whether a file exists when samples of each epoch are drawn.
struct Watching {
    inner: InMemory,
    file: PathBuf,
    seen: Arc<Mutex<Vec<(u64, bool)>>>,
}

impl Data for Watching {
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let epoch = key.map_or(u64::MAX, |key| key.iteration);
        self.seen.lock().unwrap().push((epoch, self.file.exists()));
        self.inner.sample(index, key)
    }
}

#[test]
fn a_checkpoint_that_is_written_between_steps_is_there_before_the_next_epoch_begins() {
    let (folder, seen) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let file = folder.path().join("run/checkpoint-bf16.safetensors");
    let data = Splits::new(Watching { inner: points(32), file: file.clone(), seen: seen.clone() }, points(8));
    let fit = Config { precision: Precision::Bf16, save_between_steps: true, ..small() };
    start(&config(folder.path(), fit), &data).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|s| **s == (0, false)).count(), 32);
    assert_eq!(seen.iter().filter(|s| **s == (1, true)).count(), 32);
    assert!(file.exists());
}

#[test]
fn metrics_with_a_foreign_line_in_their_middle_are_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let started = config(folder.path(), small());
    let data = Splits::new(points(32), points(8));
    start(&started, &data).unwrap();
    let path = folder.path().join("run/metrics.jsonl");
    let mut lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(String::from).collect();
    lines.insert(2, "no record".into());
    std::fs::write(&path, lines.join("\n")).unwrap();
    let longer = RunConfig { fit: Config { epochs: 3, ..small() }, resume: true, ..started };
    let error = start(&longer, &data).unwrap_err().to_string();
    assert!(error.contains("something else in line 3"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), lines.join("\n"));
}
