//! What settings and tasks decide: which parameters decay, which epoch is the best, what is kept, what has which name.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::Path;

use binade_autograd::Var;
use binade_cpu as _;
use binade_nn::Linear;
use binade_tensor::Update;
use binade_train::{
    BestBy, Classify, Config, Error, InMemory, Metrics, Regress, Result, RunConfig, Score, Splits, Task, TextUnit,
    Trainer, train,
};

static TWO: Classify = Classify::new(2);

fn data() -> Splits {
    let samples = |n: usize| {
        let inputs = (0..n * 4).map(|i| (i as f32 * 0.77).sin()).collect();
        InMemory::classes(inputs, &[4], &(0..n).map(|i| i % 2).collect::<Vec<_>>()).unwrap()
    };
    Splits::new(samples(16), samples(4))
}

fn build() -> binade_nn::Result<Linear> {
    Linear::new(4, 2)
}

fn config(folder: &Path, fit: Config) -> RunConfig {
    let fit = Config { batch_size: 8, ..fit };
    let precisions = vec![fit.precision];
    RunConfig { name: "test".into(), precisions, fit, out: Some(folder.into()), quiet: true, ..RunConfig::default() }
}

/// A task whose evaluations are given: how many were right, of how many.
struct Told {
    scores: Vec<[f64; 2]>,
    at: Cell<usize>,
}

impl Told {
    fn new(scores: &[[f64; 2]]) -> Told {
        Told { scores: scores.to_vec(), at: Cell::new(0) }
    }
}

impl Task<Linear> for Told {
    fn name(&self) -> String {
        "told".into()
    }

    fn loss(&self, model: &Linear, batch: &binade_train::Batch) -> Result<(Var, f64)> {
        TWO.loss(model, batch)
    }

    fn evaluate(&self, _: &Linear, _: &binade_train::Batch) -> Result<Score> {
        let [right, count] = self.scores[self.at.replace(self.at.get() + 1)];
        Ok(Score { loss: 1.0, count, right: Some(right), answers: None })
    }
}

#[test]
fn the_best_epoch_by_accuracy_has_the_largest_share_of_right_answers() {
    let by_accuracy = Config { best_by: BestBy::Accuracy, patience: Some(1), epochs: 4, ..Config::default() };
    let first = [0.0, 4.0]; // Before the first epoch.
    // More are right in the second epoch, and fewer of them all.
    for (scores, epochs) in [([[3.0, 4.0], [5.0, 10.0]], 2), ([[1.0, 4.0], [2.0, 4.0]], 4)] {
        let folder = tempfile::tempdir().unwrap();
        let rest = [[3.0, 4.0], [4.0, 4.0]];
        let task = Told::new(&[&[first], &scores[..], &rest[..]].concat());
        let run = train(build, &task, &data(), &config(folder.path(), by_accuracy.clone())).unwrap();
        assert_eq!(run.summaries[0].epochs, epochs, "{scores:?}");
    }
}

#[test]
fn the_best_weights_are_kept_where_that_is_asked_for_and_those_of_the_best_epoch() {
    let scores = [[0.0, 4.0], [3.0, 4.0], [1.0, 4.0]];
    let best = |keep_best: bool, epochs: u64| {
        let folder = tempfile::tempdir().unwrap();
        let fit = Config { keep_best, epochs, best_by: BestBy::Accuracy, lr: 0.1, ..Config::default() };
        // The rate must not depend on how long the run is.
        let fit = Config { schedule: binade_nn::Schedule::Constant, ..fit };
        train(build, &Told::new(&scores), &data(), &config(folder.path(), fit)).unwrap();
        std::fs::read(folder.path().join("best-fp32.safetensors")).ok()
    };
    assert_eq!(best(false, 2), None);
    let (first, both) = (best(true, 1), best(true, 2));
    assert!(first.is_some() && first == both, "the second epoch is worse");
}

#[test]
fn a_run_that_keeps_its_last_checkpoint_alone_makes_and_removes_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let of = |epoch: u64| folder.path().join(format!("checkpoint-fp32.epoch-{epoch}.safetensors"));
    // From a run that kept two.
    let mut fit = Config { epochs: 2, keep_last: 2, ..Config::default() };
    train(build, &TWO, &data(), &config(folder.path(), fit.clone())).unwrap();
    assert!(of(1).exists() && of(2).exists());
    (fit.epochs, fit.keep_last) = (3, 1);
    train(build, &TWO, &data(), &RunConfig { resume: true, ..config(folder.path(), fit) }).unwrap();
    assert!(of(1).exists() && of(2).exists() && !of(3).exists());
}

#[test]
fn a_callback_may_end_a_run_at_an_evaluation_between_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let mut steps = 0;
    let callback: binade_train::Callback<'_> = Box::new(|metrics, _| match metrics {
        Metrics::Evaluation(_) => Ok(ControlFlow::Break(())),
        Metrics::Step(_) => {
            steps += 1;
            Ok(ControlFlow::Continue(()))
        }
        Metrics::Epoch(_) => Ok(ControlFlow::Continue(())),
    });
    let fit = Config { evaluate_every: Some(1), epochs: 2, ..Config::default() };
    let data = data();
    let run = Trainer::new(build, &TWO, &data).with_callback(callback).run(&config(folder.path(), fit));
    assert!(matches!(run.unwrap_err(), Error::Stopped { .. }));
    assert_eq!(steps, 1);
}

#[test]
fn weight_decay_is_for_all_parameters_or_for_matrices_alone() {
    let model = build().unwrap();
    let decays = |decay_matrices_only: bool| -> Vec<(String, f64)> {
        let fit = Config { weight_decay: 0.25, decay_matrices_only, ..Config::default() };
        let training = fit.training(&model).unwrap();
        let groups = training.optimizers[0].groups().iter();
        let of = |update: &Update| match update {
            Update::Adam { weight_decay, .. } => *weight_decay,
            other => panic!("{other:?}"),
        };
        groups.flat_map(|g| g.params.iter().map(|(name, _)| (name.clone(), of(&g.update)))).collect()
    };
    let all = |bias: f64| vec![("weight".to_string(), 0.25), ("bias".to_string(), bias)];
    assert_eq!(decays(false), all(0.25));
    assert_eq!(decays(true), all(0.0));
}

#[test]
fn settings_that_a_file_leaves_out_have_their_defaults() {
    let text = r#"{"precision":"fp32","epochs":12,"batch_size":64,"lr":0.002,"weight_decay":0.01,"clip":1.0,"seed":0}"#;
    assert_eq!(serde_json::from_str::<Config>(text).unwrap(), Config::default());
}

#[test]
fn tasks_have_names_and_units_of_their_own() {
    assert_eq!(Task::<Linear>::name(&TWO), "classification in 2 classes");
    let smoothed = Classify { smoothing: 0.1, ..TWO.clone() };
    assert_eq!(Task::<Linear>::name(&smoothed), "classification in 2 classes, labels 0.1 smoothed");
    assert_eq!(Task::<Linear>::name(&Regress), "regression");
    assert_eq!((Task::<Linear>::unit(&TWO), Task::<Linear>::unit(&Regress)), ("images", "samples"));
    let words = TextUnit { name: "byte".into(), per_token: 4.0 };
    assert_eq!(words.bits(8.0 * std::f64::consts::LN_2), 2.0);
}

#[cfg(unix)]
#[test]
fn metrics_that_cannot_be_read_are_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("metrics.jsonl");
    // It is there, and leads nowhere.
    std::os::unix::fs::symlink(&metrics, &metrics).unwrap();
    let run = train(build, &TWO, &data(), &config(folder.path(), Config { epochs: 1, ..Config::default() }));
    let error = run.unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl"), "{error}");
    assert!(metrics.is_symlink());
}
