//! Run folders: what a run may be resumed with, and that what is not finite can be written and read.

use binade_cpu as _;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use binade_autograd::Var;
use binade_nn::{Dropout, Flatten, Linear, Module, Schedule, Sequential, read_safetensors, state_dict};
use binade_tensor::{Class, Key};
use binade_train::{
    Batch, Classify, Config, Data, InMemory, Made, Precision, Result, Run, RunConfig, SampleResult, Splits, Task, grid,
    train,
};

static THREE: Classify = Classify::new(3);

fn linear(width: usize) -> impl Fn() -> binade_nn::Result<Sequential> {
    move || Ok(Sequential::new().then(Flatten).then(Linear::new(width, 3)?))
}

/// Inputs of 4 numbers times a factor, 48 for training and 12 for tests.
fn splits(train_factor: f32, test_factor: f32) -> Splits {
    let samples = |n: usize, factor: f32| {
        let inputs = (0..n * 4).map(|i| factor * (i as f32 * 0.77).sin()).collect();
        InMemory::classes(inputs, &[4], &(0..n).map(|i| i % 3).collect::<Vec<_>>()).unwrap()
    };
    Splits::new(samples(48, train_factor), samples(12, test_factor))
}

fn config(folder: &Path, precisions: &[Precision], epochs: u64) -> RunConfig {
    let fit = Config { epochs, batch_size: 8, ..Config::default() };
    RunConfig {
        name: "test".into(),
        precisions: precisions.into(),
        fit,
        out: Some(folder.into()),
        quiet: true,
        ..RunConfig::default()
    }
}

/// Every file of the folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap())).collect()
}

fn message(result: Result<Run>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_run_is_resumed_as_what_it_was_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let started = config(path, &[Precision::Fp32, Precision::Fp16], 2);
    train(linear(4), &THREE, &splits(1.0, 1.0), &started).unwrap();
    let before = files(path);
    let same = RunConfig { resume: true, ..started.clone() };
    let with = |change: &dyn Fn(&mut RunConfig)| {
        let mut asked = same.clone();
        change(&mut asked);
        message(train(linear(4), &THREE, &splits(1.0, 1.0), &asked))
    };
    // Each error names what was and what is asked for.
    assert!(with(&|c| c.precisions = vec![Precision::Bf16]).contains(r#"precisions = ["fp32","fp16"], not ["bf16"]"#));
    assert!(with(&|c| c.name = "other".into()).contains(r#"name = "test", not "other""#));
    assert!(with(&|c| c.fit.batch_size = 16).contains("batch_size = 8, not 16"));
    assert!(with(&|c| c.fit.lr = 0.5).contains("lr = 0.002, not 0.5"));
    assert!(with(&|c| c.fit.weight_decay = 0.5).contains("weight_decay = 0.01, not 0.5"));
    assert!(with(&|c| c.fit.clip = 2.0).contains("clip = 1.0, not 2.0"));
    assert!(with(&|c| c.fit.seed = 3).contains("seed = 0, not 3"));
    assert!(with(&|c| c.fit.epochs = 1).contains("epochs = 1 asked for, but 2 are trained already"));
    let fewer = Splits { train: splits(1.0, 1.0).test, ..splits(1.0, 1.0) };
    assert!(message(train(linear(4), &THREE, &fewer, &same)).contains("training_samples = 48, not 12"));
    let two = || Ok(Sequential::new().then(Flatten).then(Linear::new(4, 4)?).then(Linear::new(4, 3)?));
    assert!(message(train(two, &THREE, &splits(1.0, 1.0), &same)).contains("another model"));
    assert!(files(path) == before);

    // A checkpoint that was put where that of another precision belongs.
    std::fs::copy(path.join("checkpoint-fp32.safetensors"), path.join("checkpoint-fp16.safetensors")).unwrap();
    let before = files(path);
    assert!(message(train(linear(4), &THREE, &splits(1.0, 1.0), &same)).contains(r#"precision = "fp32", not "fp16""#));
    assert!(files(path) == before);
}

/// In the header's keys and numbers, in tensor names, in tensors of the model and of the optimiser.
#[test]
fn a_damaged_checkpoint_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let started = config(path, &[Precision::Fp32, Precision::Fp16], 1);
    train(linear(4), &THREE, &splits(1.0, 1.0), &started).unwrap();
    let longer = RunConfig { fit: Config { epochs: 2, ..started.fit.clone() }, resume: true, ..started };
    let checkpoint = path.join("checkpoint-fp16.safetensors");
    let whole = std::fs::read(&checkpoint).unwrap();
    let damaged = |at: usize, bit: u32| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        bytes
    };
    for at in (0..whole.len()).step_by(5) {
        std::fs::write(&checkpoint, damaged(at, at as u32 % 8)).unwrap();
        let before = if at % 500 == 0 { files(path) } else { BTreeMap::new() };
        let error = message(train(linear(4), &THREE, &splits(1.0, 1.0), &longer));
        assert!(error.contains("checkpoint-fp16.safetensors"), "byte {at}: {error}");
        assert!(before.is_empty() || files(path) == before, "byte {at}");
    }
    // In a tensor, the error says that it is not the writer's fault.
    std::fs::write(&checkpoint, damaged(whole.len() - 1, 0)).unwrap();
    assert!(
        message(train(linear(4), &THREE, &splits(1.0, 1.0), &longer))
            .contains("damaged, or changed since it was written")
    );
    std::fs::write(&checkpoint, &whole).unwrap();
    assert!(train(linear(4), &THREE, &splits(1.0, 1.0), &longer).is_ok());
}

/// Settings and metrics have checksums too, the latter in each precision's checkpoint.
#[test]
fn a_changed_bit_of_the_settings_or_the_metrics_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let started = config(path, &[Precision::Fp32, Precision::Fp16], 1);
    train(linear(4), &THREE, &splits(1.0, 1.0), &started).unwrap();
    let longer = RunConfig { fit: Config { epochs: 2, ..started.fit.clone() }, resume: true, ..started };
    for name in ["config.json", "metrics.jsonl"] {
        let file = path.join(name);
        let whole = std::fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&file, bytes).unwrap();
            let before = if at % 100 == 0 { files(path) } else { BTreeMap::new() };
            let error = message(train(linear(4), &THREE, &splits(1.0, 1.0), &longer));
            assert!(error.contains(name), "byte {at} of {name}: {error}");
            assert!(before.is_empty() || files(path) == before, "byte {at} of {name}");
        }
        std::fs::write(&file, &whole).unwrap();
    }
    assert!(train(linear(4), &THREE, &splits(1.0, 1.0), &longer).is_ok());
}

#[test]
fn metrics_whose_lines_are_not_those_that_were_written_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let started = config(path, &[Precision::Fp32, Precision::Fp16], 1);
    train(linear(4), &THREE, &splits(1.0, 1.0), &started).unwrap();
    let longer = RunConfig { fit: Config { epochs: 2, ..started.fit.clone() }, resume: true, ..started };
    let file = path.join("metrics.jsonl");
    let whole = std::fs::read_to_string(&file).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<String>), told: &str| {
        let mut lines: Vec<String> = whole.lines().map(|line| format!("{line}\n")).collect();
        change(&mut lines);
        std::fs::write(&file, lines.concat()).unwrap();
        let error = message(train(linear(4), &THREE, &splits(1.0, 1.0), &longer));
        assert!(error.contains("metrics.jsonl") && error.contains(told), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), lines.concat());
    };
    refused(&|lines| drop(lines.remove(3)), "the checkpoint of fp32 at step 6 knows 7 lines");
    refused(&|lines| drop(lines.pop()), "the checkpoint of fp16 at step 6 knows 7 lines");
    refused(&|lines| lines.swap(1, 2), "changed since it was written");
    refused(&|lines| lines.insert(1, lines[1].clone()), "here are 8 with");
    refused(&|lines| lines[2] = lines[2].replace("\"lr\":", "\"lr\":1"), "changed since it was written");
    refused(&|lines| lines.push(lines[0].replace("fp32", "bf16")), "a line is of \"bf16\"");
    std::fs::remove_file(&file).unwrap();
    assert!(message(train(linear(4), &THREE, &splits(1.0, 1.0), &longer)).contains("here are 0 with"));
    assert!(!file.exists());
    // What came after the last checkpoint is no part of the run.
    let later = whole.lines().nth(5).unwrap().replace("\"iteration\":5", "\"iteration\":6");
    std::fs::write(&file, format!("{whole}{later}\n{{\"precision\":\"fp3")).unwrap();
    assert!(train(linear(4), &THREE, &splits(1.0, 1.0), &longer).is_ok());
    assert!(std::fs::read_to_string(&file).unwrap().starts_with(&whole));
}

/// Whoever wants other settings resumes with them.
#[test]
fn settings_that_were_edited_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let started = config(folder.path(), &[Precision::Fp32], 1);
    train(linear(4), &THREE, &splits(1.0, 1.0), &started).unwrap();
    let file = folder.path().join("config.json");
    let written = std::fs::read_to_string(&file).unwrap();
    let resumed = RunConfig { resume: true, ..started };
    let edited = written.replace("\"epochs\": 1", "\"epochs\": 7");
    let bare: String = written.lines().filter(|line| !line.contains("crc32")).collect::<Vec<_>>().join("\n");
    for (text, told) in [(edited, "its checksum is "), (bare, "does not begin with a checksum")] {
        assert_ne!(text, written);
        std::fs::write(&file, &text).unwrap();
        let error = message(train(linear(4), &THREE, &splits(1.0, 1.0), &resumed));
        assert!(error.contains("config.json") && error.contains(told), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn a_resumed_run_may_go_on_for_more_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let started = config(folder.path(), &[Precision::Fp32, Precision::Bf16], 2);
    train(linear(4), &THREE, &splits(1.0, 1.0), &started).unwrap();
    let longer = RunConfig { fit: Config { epochs: 5, ..started.fit.clone() }, resume: true, ..started };
    let run = train(linear(4), &THREE, &splits(1.0, 1.0), &longer).unwrap();
    assert_eq!(run.summaries.iter().map(|s| s.epochs).collect::<Vec<_>>(), [5, 5]);
    // It is now a run of so many epochs.
    assert_eq!(RunConfig::read(folder.path()).unwrap().fit.epochs, 5);
    let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().filter(|l| l.contains(r#""kind":"step""#)).count(), 2 * 5 * 6);
    assert_eq!(metrics.lines().filter(|l| l.contains(r#""kind":"epoch""#)).count(), 2 * 5);
}

/// Inputs that are infinite in the first epoch and in evaluation.
struct FirstEpochInfinite(Arc<dyn Data>);

impl Data for FirstEpochInfinite {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let mut sample = self.0.sample(index, key)?;
        if key.is_none_or(|key| key.iteration == 0) {
            sample.0[0].numbers = vec![f32::INFINITY; 4].into();
        }
        Ok(sample)
    }
}

#[test]
fn losses_that_are_not_finite_are_null_in_the_files_and_read_back() {
    let data = splits(1.0, 1.0);
    let data = Splits::new(FirstEpochInfinite(data.train), FirstEpochInfinite(data.test));
    for precision in Precision::ALL {
        let folder = tempfile::tempdir().unwrap();
        let started = config(folder.path(), &[precision], 2);
        let run = train(linear(4), &THREE, &data, &started).unwrap();
        assert_eq!((run.summaries[0].skipped_steps, run.summaries[0].train_loss.is_finite()), (6, true));
        let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let epochs: Vec<_> = lines.iter().filter(|l| l["kind"] == "epoch").collect();
        assert!(epochs.len() == 2 && epochs.iter().all(|e| e["test_loss"].is_null()), "{metrics}");
        assert!(epochs[0]["train_loss"].is_null() && !epochs[1]["train_loss"].is_null(), "{metrics}");
        // Resuming reads summary and metrics, and keeps every line.
        let longer = RunConfig { fit: Config { epochs: 3, ..started.fit.clone() }, resume: true, ..started };
        train(linear(4), &THREE, &data, &longer).unwrap();
        let resumed = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert!(resumed.starts_with(&metrics) && resumed.lines().count() == metrics.lines().count() / 2 * 3);
        assert!(train(linear(4), &THREE, &data, &longer).is_ok());
    }
}

#[test]
fn settings_that_mean_nothing_leave_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let with = |change: &dyn Fn(&mut Config)| {
        let mut asked = config(&path, &[Precision::Fp32], 1);
        change(&mut asked.fit);
        message(train(linear(4), &THREE, &splits(1.0, 1.0), &asked))
    };
    assert!(with(&|c| c.lr = f64::NAN).contains("learning rate must be positive and finite, got NaN"));
    assert!(with(&|c| c.clip = f64::INFINITY).contains("gradient norm must be positive and finite, got inf"));
    assert!(with(&|c| c.weight_decay = -1.0).contains("weight decay must be at least 0 and finite, got -1"));
    assert!(with(&|c| c.epochs = u64::MAX).contains("more than can be counted"));
    assert!(!path.exists());
}

/// Three classes; draws numbers and images after each epoch, or not.
struct Drawing(bool);

impl Task<Sequential> for Drawing {
    fn name(&self) -> String {
        "three classes, and images".into()
    }

    fn loss(&self, model: &Sequential, batch: &Batch) -> Result<(Var, f64)> {
        THREE.loss(model, batch)
    }

    fn progress(&self, model: &Sequential) -> Result<Vec<Made>> {
        if !self.0 {
            return Ok(Vec::new());
        }
        let shown = (&Var::normal(0.0, 0.1, &[3, 4])? + &model.parameters()[0].var())?;
        let (width, channels, pixels) = grid(&shown.array().to_f64_vec()?, [1, 1, 3, 4], 1);
        Ok(vec![Made::Image { width, channels, pixels }])
    }

    fn export(&self, model: &Sequential, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).unwrap();
        Ok(binade_nn::write_safetensors(&folder.join("model"), &state_dict(model), Default::default())?)
    }
}

fn tensors(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let (all, _) = read_safetensors(path, Class::Workspace).unwrap();
    all.into_iter().map(|(name, array)| (name, array.to_f64_vec().unwrap())).collect()
}

#[test]
fn what_is_drawn_after_each_epoch_is_kept_and_changes_no_bit_of_the_training() {
    let folder = tempfile::tempdir().unwrap();
    let model = || Ok(linear(4)()?.then(Dropout::new(0.2)?));
    let [with, without] = [true, false].map(|draws| {
        let mut config = config(&folder.path().join(draws.to_string()), &Precision::ALL, 3);
        // Steps that can be seen in shades of 255.
        config.fit = Config { ema: Some(0.5), lr: 0.05, schedule: Schedule::Constant, ..config.fit };
        train(model, &Drawing(draws), &splits(1.0, 1.0), &config).unwrap().folder
    });
    for precision in Precision::ALL.map(Precision::name) {
        let file = format!("checkpoint-{precision}.safetensors");
        let trained = tensors(&with.join(&file));
        assert_eq!(trained, tensors(&without.join(&file)), "{precision}");
        let image = |epoch: u64, end: &str| {
            std::fs::read(with.join(format!("samples/{precision}-epoch-00{epoch}{end}.png"))).unwrap()
        };
        let all: Vec<_> = (1..=3).flat_map(|epoch| [image(epoch, ""), image(epoch, "-averaged")]).collect();
        assert!((1..all.len()).all(|i| !all[..i].contains(&all[i])), "{precision}: two images are the same");
        // The averages are what is written for others.
        for (name, written) in tensors(&with.join(precision).join("model")) {
            assert_eq!(written, trained[&format!("ema.{name}")], "{precision} {name}");
            assert_ne!(written, trained[&format!("model.{name}")], "{precision} {name}");
        }
    }
    assert!(!without.join("samples").exists());
    let page = std::fs::read_to_string(with.join("report.html")).unwrap();
    assert_eq!(page.matches("data:image/png").count(), 18);
    assert!(page.contains("epoch 3 averaged"), "{page}");
}
