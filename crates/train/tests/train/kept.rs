//! Checkpoints that are kept, when the newest is damaged.

use binade_cpu as _;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use binade_nn::Linear;
use binade_tensor::Class;
use binade_train::{Classify, Config, Error, InMemory, Metrics, Precision, RunConfig, Splits, Trainer};

static THREE: Classify = Classify::new(3);

fn data() -> Splits {
    let samples = |n: usize| {
        let inputs = (0..n * 4).map(|i| (i as f32 * 0.77).sin()).collect();
        InMemory::classes(inputs, &[4], &(0..n).map(|i| i % 3).collect::<Vec<_>>()).unwrap()
    };
    Splits::new(samples(48), samples(12))
}

/// Trains for four epochs, or until one ends.
fn run(folder: &Path, keep_last: usize, resume: bool, until: u64) -> Result<(), Error> {
    let config = RunConfig {
        precisions: vec![Precision::Bf16],
        fit: Config { batch_size: 8, epochs: 4, keep_last, keep_best: true, ema: Some(0.9), ..Config::default() },
        out: Some(folder.into()),
        resume,
        quiet: true,
        ..RunConfig::default()
    };
    let stop = move |metrics: &Metrics| matches!(metrics, Metrics::Epoch(epoch) if epoch.epoch == until);
    let data = data();
    let trainer = Trainer::new(|| Linear::new(4, 3), &THREE, &data).with_callback(Box::new(move |metrics, _| {
        Ok(if stop(metrics) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }));
    trainer.run(&config).map(drop)
}

fn stopped(folder: &Path, keep_last: usize) {
    assert!(matches!(run(folder, keep_last, false, 3), Err(Error::Stopped { .. })));
}

/// Changes a bit where the file lies: its other names are damaged too.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

fn tensors(folder: &Path) -> Vec<(String, Vec<u64>)> {
    let (all, _) = binade_nn::read_safetensors(&folder.join(NEWEST), Class::Workspace).unwrap();
    all.into_iter().map(|(n, a)| (n, a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect())).collect()
}

fn steps(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().filter(|line| line.contains("\"step\"")).map(String::from).collect()
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.is_file() && !path.ends_with(".lock"));
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

const NEWEST: &str = "checkpoint-bf16.safetensors";

#[test]
fn a_damaged_checkpoint_gives_way_to_the_newest_whole_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    run(&whole, 3, false, u64::MAX).unwrap();
    stopped(&parts, 3);
    // That of the third epoch too, which is another name of the newest.
    flip(&parts.join(NEWEST));
    assert_eq!(steps(&parts).len(), 18);
    run(&parts, 3, true, u64::MAX).unwrap();
    assert_eq!((tensors(&whole), steps(&whole)), (tensors(&parts), steps(&parts)));

    // Of a run that has ended too, where nothing else would write it: what was kept beside takes its place.
    let last = parts.join("checkpoint-bf16.epoch-4.safetensors");
    let bytes = std::fs::read(&last).unwrap();
    std::fs::remove_file(&last).unwrap();
    std::fs::write(&last, bytes).unwrap();
    flip(&parts.join(NEWEST));
    run(&parts, 3, true, u64::MAX).unwrap();
    assert_eq!((tensors(&whole), steps(&whole)), (tensors(&parts), steps(&parts)));

    // The first epoch's is as good a beginning as the second's.
    let torn = folder.path().join("torn");
    stopped(&torn, 3);
    std::fs::write(torn.join(NEWEST), b"torn").unwrap();
    flip(&torn.join("checkpoint-bf16.epoch-2.safetensors"));
    run(&torn, 3, true, u64::MAX).unwrap();
    assert_eq!((tensors(&whole), steps(&whole)), (tensors(&torn), steps(&torn)));
}

#[test]
fn where_none_is_whole_the_run_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for keep_last in [1, 3] {
        let at = folder.path().join(keep_last.to_string());
        stopped(&at, keep_last);
        let checkpoints: Vec<PathBuf> =
            files(&at).into_keys().filter(|p| p.to_string_lossy().contains("point")).collect();
        assert_eq!(checkpoints.len(), if keep_last == 1 { 1 } else { 4 });
        // Each file once, though two names may be one.
        checkpoints.iter().for_each(|path| std::fs::write(path, b"torn").unwrap());
        let before = files(&at);
        let error = run(&at, keep_last, true, u64::MAX).unwrap_err().to_string();
        assert!(error.contains(NEWEST) && error.contains("not a whole checkpoint"), "{error}");
        assert_eq!(files(&at), before);
    }
}

#[test]
fn damaged_weights_of_the_best_epoch_are_told_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    stopped(folder.path(), 1);
    let best = folder.path().join("best-bf16.safetensors");
    flip(&best);
    let before = files(folder.path());
    let error = run(folder.path(), 1, true, u64::MAX).unwrap_err().to_string();
    assert!(error.contains("best-bf16.safetensors") && error.contains("remove it to go on"), "{error}");
    assert_eq!(files(folder.path()), before);
    std::fs::remove_file(best).unwrap();
    run(folder.path(), 1, true, u64::MAX).unwrap();
}
