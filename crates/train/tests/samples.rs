//! Samples: those that cannot be had, labels that are no class, means over them, their order.

use binade_cpu as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use binade_autograd::{Var, eval, scope};
use binade_nn::{Layer, Linear, Sequential};
use binade_tensor::op::CrossEntropy;
use binade_tensor::{Array, Class, Device, Key};
use binade_train::{
    Config, Data, InMemory, Metrics, Precision, Record, Result, Run, RunConfig, SampleResult, Splits, StepMetrics,
    Target, train,
};

/// Something done to a sample after it was read.
type Change = Arc<dyn Fn(usize, Option<Key>, &mut [f32], &mut [f32]) -> SampleResult + Send + Sync>;

struct Changed(InMemory, Change);

impl Data for Changed {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn input_shape(&self) -> Vec<usize> {
        self.0.input_shape()
    }
    fn target(&self) -> Target {
        self.0.target()
    }
    fn sample(&self, index: usize, key: Option<Key>, input: &mut [f32], target: &mut [f32]) -> SampleResult {
        self.0.sample(index, key, input, target)?;
        (self.1)(index, key, input, target)
    }
}

/// Points of the plane, and whether the first coordinate is positive.
fn points(n: usize) -> InMemory {
    let x: Vec<f32> = (0..n * 2).map(|i| (i as f32 * 0.37).sin()).collect();
    let y: Vec<usize> = (0..n).map(|i| (x[2 * i] > 0.0) as usize).collect();
    InMemory::classes(x, &[2], &y, 2).unwrap()
}

fn changed(
    n: usize,
    change: impl Fn(usize, Option<Key>, &mut [f32], &mut [f32]) -> SampleResult + Send + Sync + 'static,
) -> Changed {
    Changed(points(n), Arc::new(change))
}

fn run_in(folder: &Path, data: &Splits, fit: Config) -> Result<Run> {
    let precisions = vec![fit.precision];
    let config = RunConfig { fit, precisions, out: Some(folder.join("run")), quiet: true, ..RunConfig::default() };
    train(|| Ok(Sequential::new().then(Linear::new(2, 2)?)), data, &config)
}

fn run(data: &Splits, fit: Config) -> Result<Run> {
    run_in(tempfile::tempdir().unwrap().path(), data, fit)
}

fn small() -> Config {
    Config { epochs: 2, batch_size: 16, lr: 0.05, ..Config::default() }
}

#[test]
fn a_sample_that_cannot_be_had_ends_the_run_and_is_named() {
    let fails = |index, _: Option<Key>, _: &mut [f32], _: &mut [f32]| match index {
        37 => Err("the file is gone".into()),
        _ => Ok(()),
    };
    let panics = |index, _: Option<Key>, _: &mut [f32], _: &mut [f32]| {
        assert!(index != 37, "the file of {index} is gone");
        Ok(())
    };
    let error = |train: Changed, test: Changed| run(&Splits::new(train, test), small()).unwrap_err().to_string();
    let good = |n| changed(n, |_, _, _, _| Ok(()));
    assert_eq!(error(changed(64, fails), good(64)), "training sample 37: the file is gone");
    assert_eq!(error(good(64), changed(64, fails)), "test sample 37: the file is gone");
    let panicked = "sample 37: Data::sample panicked: the file of 37 is gone";
    assert_eq!(error(changed(64, panics), good(64)), format!("training {panicked}"));
    assert_eq!(error(good(64), changed(64, panics)), format!("test {panicked}"));
}

#[test]
fn a_label_that_is_no_class_ends_the_run_and_its_sample_is_named() {
    for label in [f32::NAN, 0.9, -1.0, -100.0, -0.5, 2.0, f32::INFINITY] {
        let data = |n| {
            changed(n, move |index, _, _, target| {
                target[0] = if index == 5 { label } else { target[0] };
                Ok(())
            })
        };
        for (splits, set) in
            [(Splits::new(data(64), points(64)), "training"), (Splits::new(points(64), data(64)), "test")]
        {
            let error = run(&splits, small()).unwrap_err().to_string();
            assert_eq!(error, format!("{set} sample 5: label {label} is none of its 2 classes, which count from 0"));
        }
    }
}

/// Never writes a label.
struct Unlabelled;

impl Data for Unlabelled {
    fn len(&self) -> usize {
        4
    }
    fn input_shape(&self) -> Vec<usize> {
        vec![2]
    }
    fn target(&self) -> Target {
        Target::Classes(2)
    }
    fn sample(&self, _: usize, _: Option<Key>, _: &mut [f32], _: &mut [f32]) -> SampleResult {
        Ok(())
    }
}

#[test]
fn a_label_that_is_not_written_is_no_class() {
    let error = run(&Splits::new(points(64), Unlabelled), small()).unwrap_err().to_string();
    assert!(error.starts_with("test sample 0: label NaN"), "{error}");
}

#[test]
fn training_and_test_data_of_other_classes_do_not_go_together() {
    let three = InMemory::classes(vec![0.5; 8], &[2], &[0, 1, 2, 0], 3).unwrap();
    let error = run(&Splits::new(points(64), three), small()).unwrap_err().to_string();
    assert!(error.contains("Classes(2)") && error.contains("Classes(3)"), "{error}");
}

fn metrics(folder: &Path) -> Vec<Metrics> {
    let text = std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str::<Record>(l).unwrap().metrics).collect()
}

fn steps(folder: &Path) -> Vec<StepMetrics> {
    let step = |m| if let Metrics::Step(step) = m { Some(step) } else { None };
    metrics(folder).into_iter().filter_map(step).collect()
}

#[test]
fn the_training_loss_is_the_mean_over_samples_of_the_last_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let fit = Config { epochs: 2, batch_size: 64, ..small() };
    let summary = run_in(folder.path(), &Splits::new(points(66), points(64)), fit).unwrap().summaries.remove(0);
    let losses: Vec<f64> = steps(folder.path()).iter().map(|s| s.loss.unwrap()).collect();
    let mean = (64.0 * losses[2] + 2.0 * losses[3]) / 66.0;
    assert!((summary.train_loss - mean).abs() < 1e-12, "{} instead of {mean}", summary.train_loss);
}

#[test]
fn test_loss_and_accuracy_are_means_over_samples() {
    // 256 samples and 3: the batches of an evaluation differ.
    let test = points(259);
    let model = scope::with_key(1, 0, || Linear::new(2, 2)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = binade_train::Output { folder: folder.path().into(), resume: false, quiet: true };
    let summary = binade_train::fit(&model, &Splits::new(points(64), test.clone()), &small(), &output).unwrap();
    let (mut input, mut labels) = (vec![0.0; 2 * 259], vec![0.0; 259]);
    for (i, (x, y)) in input.chunks_mut(2).zip(labels.chunks_mut(1)).enumerate() {
        test.sample(i, None, x, y).unwrap();
    }
    let labels: Vec<i64> = labels.iter().map(|&y| y as i64).collect();
    let array = |values: &[f32]| Array::from_slice(&Device::cpu(), values, &[259, 2], Class::Activations).unwrap();
    let wanted = Array::from_slice(&Device::cpu(), &labels, &[259], Class::Indices).unwrap();
    let (loss, right) = eval(|| {
        let output = model.forward(&Var::constant(array(&input))).unwrap();
        let found = output.argmax(-1, false).unwrap().array().to_vec::<i64>().unwrap();
        let loss = output.cross_entropy(&Var::constant(wanted), CrossEntropy::default()).unwrap().item().unwrap();
        (loss, found.iter().zip(&labels).filter(|(a, b)| a == b).count())
    });
    let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let last: Record = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let Metrics::Epoch(epoch) = last.metrics else { panic!("{text}") };
    assert!((epoch.test_loss - loss).abs() < 1e-6, "{} instead of {loss}", epoch.test_loss);
    assert_eq!(summary.test_accuracy, Some(right as f64 / 259.0));
}

#[test]
fn an_input_that_is_nan_skips_its_batch_in_every_precision_and_leaves_the_scale() {
    for precision in Precision::ALL {
        let folder = tempfile::tempdir().unwrap();
        let spoilt = changed(128, |index, _, input, _| {
            input[0] = if index == 5 { f32::NAN } else { input[0] };
            Ok(())
        });
        let fit = Config { epochs: 24, precision, ..small() };
        let summary = run_in(folder.path(), &Splits::new(spoilt, points(64)), fit).unwrap().summaries.remove(0);
        let name = precision.name();
        assert_eq!((summary.skipped_steps, summary.train_loss.is_finite()), (24, true), "{name}");
        assert_eq!(summary.loss_scale, precision.loss_scale().start().unwrap().scale as f64, "{name}");
        let blames: Vec<String> = steps(folder.path()).into_iter().filter_map(|s| Some(s.blame?.to_string())).collect();
        assert!(blames.len() == 24 && blames.iter().all(|b| b.contains("input data")), "{name}: {blames:?}");
    }
}

#[test]
fn a_run_of_skipped_steps_is_an_error_in_every_precision() {
    for precision in Precision::ALL {
        // Many steps: the patience ends it. Few: their end does.
        for (epochs, last) in [(24, "step 20 is the last of 21"), (2, "step 7 is the last of 8")] {
            let spoilt = changed(64, |_, _, input, _| {
                input[0] = f32::INFINITY;
                Ok(())
            });
            let fit = Config { epochs, precision, ..small() };
            let error = run(&Splits::new(spoilt, points(64)), fit).unwrap_err().to_string();
            assert!(error.contains(last) && error.contains("input data"), "{}: {error}", precision.name());
        }
    }
}

#[test]
fn drop_last_leaves_out_the_smaller_batch_and_refuses_to_leave_out_all() {
    let folder = tempfile::tempdir().unwrap();
    let fit = Config { drop_last: true, batch_size: 64, ..small() };
    run_in(folder.path(), &Splits::new(points(65), points(64)), fit.clone()).unwrap();
    assert_eq!(steps(folder.path()).len(), 2);
    let error = run(&Splits::new(points(63), points(64)), fit).unwrap_err().to_string();
    assert!(error.contains("63 samples are no whole batch of 64"), "{error}");
}

#[test]
fn every_epoch_has_another_order_and_a_run_of_the_same_seed_the_same_ones() {
    let orders = |seed| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let recorded = changed(48, move |index, _, _, _| {
            sink.lock().unwrap().push(index);
            Ok(())
        });
        run(&Splits::new(recorded, points(16)), Config { seed, ..small() }).unwrap();
        let seen = seen.lock().unwrap()[..96].to_vec();
        [seen[..48].to_vec(), seen[48..].to_vec()]
    };
    let [first, second] = orders(1);
    assert_ne!(first, second);
    for order in [&first, &second] {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..48), "{order:?}");
    }
    assert_eq!(orders(1), [first.clone(), second]);
    assert_ne!(orders(2)[0], first);
}
