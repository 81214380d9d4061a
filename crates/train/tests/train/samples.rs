//! Samples: those that cannot be had, labels that are no class, means over them, their order.

use binade_cpu as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use binade_autograd::{eval, scope};
use binade_nn::{Layer, Linear, Sequential};
use binade_tensor::Key;
use binade_tensor::op::CrossEntropy;
use binade_train::{
    Batch, Classify, Config, Data, InMemory, Metrics, Numbers, Output, Pictures, Precision, Record, Result, Run,
    RunConfig, Sample, SampleResult, Splits, StepMetrics, Unconditional, fit, train,
};

/// Something done to a sample after it was read.
type Change = Arc<dyn Fn(usize, Option<Key>, &mut Sample) -> SampleResult<()> + Send + Sync>;

struct Changed(InMemory, Change);

impl Data for Changed {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let mut sample = self.0.sample(index, key)?;
        (self.1)(index, key, &mut sample)?;
        Ok(sample)
    }
}

static TWO: Classify = Classify::new(2);

/// Points of the plane, and whether the first coordinate is positive.
fn points(n: usize) -> InMemory {
    let x: Vec<f32> = (0..n * 2).map(|i| (i as f32 * 0.37).sin()).collect();
    let y: Vec<usize> = (0..n).map(|i| (x[2 * i] > 0.0) as usize).collect();
    InMemory::classes(x, &[2], &y).unwrap()
}

fn changed(
    n: usize,
    change: impl Fn(usize, Option<Key>, &mut Sample) -> SampleResult<()> + Send + Sync + 'static,
) -> Changed {
    Changed(points(n), Arc::new(change))
}

/// Sets the first number of an input.
fn set_first(sample: &mut Sample, value: f32) {
    let Numbers::F32(input) = &mut sample.0[0].numbers else { panic!("an input is f32") };
    input[0] = value;
}

fn run_in(folder: &Path, data: &Splits, fit: Config) -> Result<Run> {
    let precisions = vec![fit.precision];
    let config = RunConfig { fit, precisions, out: Some(folder.join("run")), quiet: true, ..RunConfig::default() };
    train(|| Ok(Sequential::new().then(Linear::new(2, 2)?)), &TWO, data, &config)
}

fn run(data: &Splits, fit: Config) -> Result<Run> {
    run_in(tempfile::tempdir().unwrap().path(), data, fit)
}

fn small() -> Config {
    Config { epochs: 2, batch_size: 16, lr: 0.05, ..Config::default() }
}

#[test]
fn a_sample_that_cannot_be_had_ends_the_run_and_is_named() {
    let fails = |index, _: Option<Key>, _: &mut Sample| match index {
        37 => Err("the file is gone".into()),
        _ => Ok(()),
    };
    let panics = |index, _: Option<Key>, _: &mut Sample| {
        assert!(index != 37, "the file of {index} is gone");
        Ok(())
    };
    let error = |train: Changed, test: Changed| run(&Splits::new(train, test), small()).unwrap_err().to_string();
    let good = |n| changed(n, |_, _, _| Ok(()));
    assert_eq!(error(changed(64, fails), good(64)), "training sample 37: the file is gone");
    assert_eq!(error(good(64), changed(64, fails)), "test sample 37: the file is gone");
    let panicked = "sample 37: Data::sample panicked: the file of 37 is gone";
    assert_eq!(error(changed(64, panics), good(64)), format!("training {panicked}"));
    assert_eq!(error(good(64), changed(64, panics)), format!("test {panicked}"));
}

#[test]
fn a_label_that_is_no_class_ends_the_run_and_its_sample_is_named() {
    for label in [-1i64, -100, 2, i64::MAX] {
        let data = |n| {
            changed(n, move |index, _, sample| {
                if index == 5 {
                    sample.0[1].numbers = [label].into();
                }
                Ok(())
            })
        };
        for (splits, set) in
            [(Splits::new(data(64), points(64)), "training"), (Splits::new(points(64), data(64)), "test")]
        {
            let error = run(&splits, small()).unwrap_err().to_string();
            assert_eq!(error, format!("{set} sample 5: label [{label}] is none of its 2 classes, which count from 0"));
        }
    }
}

#[test]
fn samples_that_differ_name_the_sample_and_the_array() {
    type Spoil = fn(&mut Sample);
    let cases: [(Spoil, &str); 5] = [
        (|s| s.0[0].numbers = [1.0f32; 3].into(), "array \"input\" has 3 numbers, its shape [2] wants 2"),
        (|s| s.0[0].shape = vec![2, 1], "array \"input\" is f32 [2, 1], that of sample 0 of its batch f32 [2]"),
        (|s| s.0[0].numbers = [1.0f64; 2].into(), "array \"input\" is f64 [2], that of sample 0 of its batch f32 [2]"),
        (|s| drop(s.0.pop()), "its second array is no label"),
        (|s| s.0[0].name = "image".into(), "arrays \"image\", \"class\", sample 0 of its batch \"input\", \"class\""),
    ];
    for (spoil, wanted) in cases {
        let test = changed(64, move |index, _, sample| {
            if index == 9 {
                spoil(sample);
            }
            Ok(())
        });
        let error = run(&Splits::new(points(64), test), small()).unwrap_err().to_string();
        assert!(error.starts_with("test sample 9: ") && error.contains(wanted), "{error}");
    }
}

#[test]
fn arrays_of_other_lengths_are_refused_where_they_are_put_together() {
    let error = |data: Result<InMemory>| data.unwrap_err().to_string();
    let images = || InMemory::new().with("image", vec![0.5f32; 12], &[3]).unwrap();
    assert_eq!(
        error(images().with("class", vec![0i64; 5], &[])),
        "array \"class\" has 5 samples, but \"image\" has 4: give every array one entry per sample"
    );
    assert!(error(images().with("image", vec![0i64; 4], &[])).contains("twice"));
    assert!(error(InMemory::new().with("image", vec![0.5f32; 13], &[3])).contains("13 numbers are no whole samples"));
    assert!(error(InMemory::new().with("image", Vec::<f32>::new(), &[0])).contains("no whole samples"));
}

#[test]
fn a_batch_has_arrays_of_every_dtype_by_name_and_by_place() {
    use binade_tensor::{DType, bf16, f16};
    let data = InMemory::new().with("f64", vec![0.5f64, 1.5], &[]).unwrap();
    let data = data.with("f16", vec![f16::from_f32(2.0); 4], &[2]).unwrap();
    let data = data.with("bf16", vec![bf16::from_f32(3.0); 2], &[1]).unwrap().with("u32", vec![7u32, 8], &[]).unwrap();
    let data = data.with("i8", vec![-1i8, 1], &[]).unwrap().with("bool", vec![true, false], &[]).unwrap();
    let data = data.with("i64", vec![1i64 << 60, 3], &[]).unwrap();
    let batch = Batch::of(&data, &[1, 0], None).unwrap();
    let wanted = [DType::F64, DType::F16, DType::BF16, DType::U32, DType::I8, DType::Bool, DType::I64];
    for (i, dtype) in wanted.into_iter().enumerate() {
        assert_eq!((batch.at(i).unwrap().dtype(), batch.at(i).unwrap().shape()[0]), (dtype, 2));
    }
    assert_eq!(batch.get("i64").unwrap().array().to_vec::<i64>().unwrap(), [3, 1 << 60]);
    assert_eq!(batch.get("f16").unwrap().shape().to_vec(), [2, 2]);
    let error = batch.get("class").unwrap_err().to_string();
    assert!(error.contains("no array \"class\"; it has \"f64\", \"f16\""), "{error}");
    assert!(batch.at(7).is_err());
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
    let mut output = Output { folder: folder.path().into(), quiet: true, ..Output::default() };
    let (data, training) = (Splits::new(points(64), test.clone()), small().training(&model).unwrap());
    let (summary, _) = fit(&model, &TWO, &data, training, &small(), &mut output).unwrap();
    let whole = Batch::of(&test, &(0..259).collect::<Vec<_>>(), None).unwrap();
    let (input, wanted) = (whole.at(0).unwrap(), whole.at(1).unwrap());
    let labels = wanted.array().to_vec::<i64>().unwrap();
    let (loss, right) = eval(|| {
        let output = model.forward(&input).unwrap();
        let found = output.argmax(-1, false).unwrap().array().to_vec::<i64>().unwrap();
        let loss = output.cross_entropy(&wanted, CrossEntropy::default()).unwrap().item().unwrap();
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
        let spoilt = changed(128, |index, _, sample| {
            if index == 5 {
                set_first(sample, f32::NAN);
            }
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
            let spoilt = changed(64, |_, _, sample| {
                set_first(sample, f32::INFINITY);
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
fn an_epoch_of_some_steps_has_another_part_of_the_samples_each_time() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let recorded = changed(48, move |index, key, _| {
        // Without a key a sample is only looked at.
        if key.is_some() {
            sink.lock().unwrap().push(index);
        }
        Ok(())
    });
    let folder = tempfile::tempdir().unwrap();
    let fit = Config { batch_size: 4, accumulate: 2, steps_per_epoch: Some(3), ..small() };
    let data = Splits::new(recorded, points(16));
    run_in(folder.path(), &data, fit.clone()).unwrap();
    assert_eq!(steps(folder.path()).len(), 6);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 48);
    assert_ne!(seen[..24], seen[24..]);
    // Epochs have no more than all samples, and one step at least.
    run_in(tempfile::tempdir().unwrap().path(), &data, Config { steps_per_epoch: Some(usize::MAX), ..fit.clone() })
        .unwrap();
    let error = run(&data, Config { steps_per_epoch: Some(0), ..fit }).unwrap_err().to_string();
    assert!(error.contains("the number of steps of an epoch must be at least 1"), "{error}");
}

#[test]
fn every_epoch_has_another_order_and_a_run_of_the_same_seed_the_same_ones() {
    let orders = |seed| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let recorded = changed(48, move |index, key, _| {
            // Without a key a sample is only looked at.
            if key.is_some() {
                sink.lock().unwrap().push(index);
            }
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

#[test]
fn pictures_lie_on_white_and_are_mirrored_or_without_their_class_by_the_key() {
    // Red, in a row: the second pixel half transparent, the third not at all there.
    let pixels = [1.0f32, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0, 0.0, -1.0];
    let images = InMemory::new().with("pixels", pixels.repeat(2), &[4, 1, 3]).unwrap();
    let images: Arc<dyn Data> = Arc::new(images.with("class", vec![0i64, 1], &[]).unwrap());
    let own = || Pictures { images: images.clone(), range: vec![(1.0, 0.0)], opaque: false, mirror: false, repeats: 1 };
    let image = |pictures: &Pictures, index: usize, key: Option<Key>| {
        let sample = pictures.sample(index, key).unwrap();
        match sample.get("image").unwrap().numbers.clone() {
            Numbers::F32(values) => (values, sample.0[0].shape.clone()),
            other => panic!("{other:?}"),
        }
    };
    let white = image(&Pictures { opaque: true, ..own() }, 0, None);
    assert_eq!(white, (vec![1.0, 1.0, 1.0, -1.0, 0.0, 1.0, -1.0, 0.0, 1.0], vec![3, 1, 3]));
    assert_eq!(image(&Pictures { range: vec![(2.0, -1.0)], ..own() }, 0, None).0[2..4], [1.0, -3.0]);
    let mirrored = Pictures { mirror: true, repeats: 200, ..own() };
    let turned = (0..mirrored.len()).filter(|&i| image(&mirrored, i, Some(Key::new(1, 0))).0[9] == -1.0).count();
    assert!((150..250).contains(&turned), "{turned} of 400");
    assert_eq!(image(&mirrored, 3, None).0, pixels);

    let data: Arc<dyn Data> = Arc::new(Pictures { repeats: 500, ..own() });
    let class = |share: f64, index: usize, key: Option<Key>| {
        let sample = Unconditional { data: data.clone(), share, no_class: 9 }.sample(index, key).unwrap();
        sample.get("class").unwrap().numbers == Numbers::I64(vec![9])
    };
    let left_out = |share| (0..1000).filter(|&i| class(share, i, Some(Key::new(2, 1)))).count();
    assert_eq!((left_out(0.0), left_out(1.0)), (0, 1000));
    assert!((60..140).contains(&left_out(0.1)), "{}", left_out(0.1));
    assert!(!class(1.0, 0, None), "evaluation has every class");
}
