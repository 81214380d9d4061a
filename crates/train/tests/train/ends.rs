//! What a run is told by beside its table: when it ends for want of progress, what its checkpoints are worth, and event
//! files of TensorBoard.

use binade_cpu as _;
use std::collections::BTreeMap;
use std::path::Path;

use binade_nn::Linear;
use binade_train::{
    BestBy, Classify, Config, InMemory, Metrics, Precision, Regress, RunConfig, Splits, Trainer, train,
};
use crc::{CRC_32_ISCSI, Crc};

static THREE: Classify = Classify::new(3);

fn data() -> Splits {
    let samples = |n: usize| {
        let inputs = (0..n * 4).map(|i| (i as f32 * 0.77).sin()).collect();
        InMemory::classes(inputs, &[4], &(0..n).map(|i| i % 3).collect::<Vec<_>>()).unwrap()
    };
    Splits::new(samples(48), samples(12))
}

fn config(folder: &Path, precisions: &[Precision], fit: Config) -> RunConfig {
    let fit = Config { batch_size: 8, ..fit };
    let out = Some(folder.into());
    RunConfig { name: "test".into(), precisions: precisions.into(), fit, out, quiet: true, ..RunConfig::default() }
}

fn build() -> binade_nn::Result<Linear> {
    Linear::new(4, 3)
}

/// So low a rate changes no parameter: the first epoch is the best.
#[test]
fn a_run_ends_when_no_epoch_is_better_for_as_long_as_its_patience() {
    let folder = tempfile::tempdir().unwrap();
    let still = Config { lr: 1e-30, weight_decay: 0.0, patience: Some(2), ..Config::default() };
    for best_by in [BestBy::Loss, BestBy::Accuracy] {
        let folder = folder.path().join(format!("{best_by:?}"));
        let first = config(&folder, &[Precision::Fp32], Config { best_by, ..still.clone() });
        assert_eq!(train(build, &THREE, &data(), &first).unwrap().summaries[0].epochs, 3);
        let again = RunConfig { resume: true, ..first };
        assert_eq!(train(build, &THREE, &data(), &again).unwrap().summaries[0].epochs, 3);
        let longer = RunConfig { fit: Config { patience: Some(4), ..again.fit.clone() }, ..again.clone() };
        assert_eq!(train(build, &THREE, &data(), &longer).unwrap().summaries[0].epochs, 5);
        let without = RunConfig { fit: Config { patience: None, epochs: 7, ..again.fit.clone() }, ..again };
        assert_eq!(train(build, &THREE, &data(), &without).unwrap().summaries[0].epochs, 7);
    }
    let none = config(folder.path(), &[Precision::Fp32], Config { patience: Some(0), ..Config::default() });
    assert!(train(build, &THREE, &data(), &none).unwrap_err().to_string().contains("must be at least 1"));
}

#[test]
fn epochs_of_a_task_without_right_and_wrong_are_not_compared_by_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = |n: usize| InMemory::values(vec![1.0; n * 4], &[4], vec![0.5; n * 3], &[3]).unwrap();
    let by_accuracy = Config { best_by: BestBy::Accuracy, ..Config::default() };
    let config = config(folder.path(), &[Precision::Fp32], by_accuracy);
    let error = train(build, &Regress, &Splits::new(numbers(16), numbers(4)), &config).unwrap_err().to_string();
    assert!(error.contains("no right and wrong"), "{error}");
    assert_eq!(std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap_or_default(), "");
}

#[test]
fn a_checkpoint_is_evaluated_to_the_numbers_of_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = data();
    let config = config(folder.path(), &Precision::ALL, Config { epochs: 2, ema: Some(0.9), ..Config::default() });
    let run = train(build, &THREE, &data, &config).unwrap();
    let before: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    let again = Trainer::new(build, &THREE, &data).evaluate(folder.path(), &config).unwrap();
    assert_eq!(again.len(), 3);
    for (summary, found) in run.summaries.iter().zip(&again) {
        assert_eq!(found.precision.name(), summary.precision);
        assert_eq!((found.epochs, Some(found.metrics.test_loss)), (2, summary.test_loss));
        assert_eq!((found.metrics.test_accuracy, found.test_top5), (summary.test_accuracy, summary.test_top5));
        assert_eq!(found.answers, summary.answers);
    }
    let after: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(before, after);
    let other = RunConfig { fit: Config { lr: 0.5, ..config.fit.clone() }, ..config };
    assert!(Trainer::new(build, &THREE, &data).evaluate(folder.path(), &other).is_err());
}

// ---- TensorBoard

/// The records of a TFRecord file, whose checksums are right.
fn records(bytes: &[u8]) -> Vec<&[u8]> {
    let crc = Crc::<u32>::new(&CRC_32_ISCSI);
    let masked = |bytes: &[u8]| crc.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let (mut all, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(masked(&rest[..8]), rest[8..12]);
        let record = &rest[12..12 + length];
        assert_eq!(masked(record), rest[12 + length..16 + length]);
        all.push(record);
        rest = &rest[16 + length..];
    }
    all
}

/// Field numbers of a protobuf message with their bytes; of a varint these are its number's.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = message[0];
            *message = &message[1..];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }
    let mut all = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                all.push((key >> 3, varint(&mut message).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, message[..length].to_vec()));
        message = &message[length..];
    }
    all
}

fn field(message: &[u8], number: u64) -> Option<Vec<u8>> {
    fields(message).into_iter().find(|(n, _)| *n == number).map(|(_, bytes)| bytes)
}

/// Tags of all events of a folder, with the step and the scalar, where the value is one.
fn events(folder: &Path) -> BTreeMap<String, Vec<(u64, Option<f32>)>> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = BTreeMap::<String, Vec<_>>::new();
    for file in files {
        for event in records(&std::fs::read(file).unwrap()) {
            let step = field(event, 2).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
            if field(event, 7).is_some() {
                all.entry("session".into()).or_default().push((step, None));
            }
            for (_, value) in fields(&field(event, 5).unwrap_or_default()) {
                let tag = String::from_utf8(field(&value, 1).unwrap()).unwrap();
                let scalar = field(&value, 2).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
                all.entry(tag).or_default().push((step, scalar));
            }
        }
    }
    all
}

#[test]
fn event_files_tell_what_metrics_tell_and_where_a_resumed_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let fit = Config { epochs: 2, evaluate_every: Some(4), tensorboard: true, ..Config::default() };
    let first = config(folder.path(), &[Precision::Fp16], fit);
    train(build, &THREE, &data(), &first).unwrap();
    let longer = RunConfig { fit: Config { epochs: 3, ..first.fit.clone() }, resume: true, ..first };
    train(build, &THREE, &data(), &longer).unwrap();
    let found = events(&folder.path().join("tensorboard/fp16"));
    let mut expected = BTreeMap::<&str, Vec<(u64, Option<f32>)>>::new();
    let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    for line in text.lines() {
        let record: binade_train::Record = serde_json::from_str(line).unwrap();
        let mut add = |tag, step, number: f64| expected.entry(tag).or_default().push((step, Some(number as f32)));
        match record.metrics {
            Metrics::Step(step) => add("train/loss_scale", step.iteration + 1, step.loss_scale),
            Metrics::Evaluation(numbers) => add("test/loss", numbers.iteration, numbers.test_loss),
            Metrics::Epoch(epoch) => {
                add("test/loss", epoch.iteration, epoch.test_loss);
                add("epoch/train_loss", epoch.iteration, epoch.train_loss);
            }
        }
    }
    assert!(expected.len() == 3 && expected["train/loss_scale"].len() == 18);
    for (tag, numbers) in expected {
        assert_eq!(found[tag], numbers, "{tag}");
    }
    assert_eq!(found["session"], [(13, None)]);
    assert_eq!(found["weights/weight"], [(6, None), (12, None), (18, None)]);
}
