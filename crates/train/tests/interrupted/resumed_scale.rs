//! The loss scale of a resumed run is the one it was stopped with.

use binade_cpu as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use binade_nn::{Flatten, Linear, Sequential};
use binade_tensor::Key;
use binade_train::{
    Classify, Config, Data, Error, InMemory, Precision, RunConfig, SampleResult, Splits, interrupt, train,
};

/// Asks for a stop when a sample of the given number is drawn.
struct Stopping {
    inner: InMemory,
    left: AtomicUsize,
}

impl Data for Stopping {
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        // Without a key a sample is only looked at.
        if key.is_some() && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            interrupt::request();
        }
        self.inner.sample(index, key)
    }
}

/// Inputs so large that the gradients of the weights pass 65504 at the first scales.
fn splits(stop_after: usize) -> Splits {
    let inputs = (0..64 * 4).map(|i| 900.0 * (i as f32 * 0.77).sin()).collect();
    let labels: Vec<usize> = (0..64).map(|i| i % 3).collect();
    let (a, b) = InMemory::classes(inputs, &[4], &labels).unwrap().split_at(48);
    Splits::new(Stopping { inner: a, left: AtomicUsize::new(stop_after) }, b)
}

/// Scales, skips and what the scaler counts at the end.
fn history(folder: &Path) -> (Vec<(f64, bool)>, serde_json::Value) {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let steps = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    let of =
        |line: serde_json::Value| Some((line.pointer("/loss_scale")?.as_f64()?, line.pointer("/skipped")?.as_bool()?));
    let path = folder.join("checkpoint-fp16.safetensors");
    let (_, metadata) = binade_nn::read_safetensors(&path, binade_tensor::Class::Workspace).unwrap();
    let header: serde_json::Value = serde_json::from_str(&metadata["binade"]).unwrap();
    (steps.filter_map(of).collect(), header["training"]["scaler"].clone())
}

#[test]
fn the_scale_and_its_counts_go_on_where_they_were() {
    let _alone = crate::alone();
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, stop_after: usize, resume: bool| {
        let fit = Config { epochs: 3, batch_size: 8, ..Config::default() };
        let out = Some(folder.path().join(name));
        let config =
            RunConfig { precisions: vec![Precision::Fp16], fit, out, resume, quiet: true, ..RunConfig::default() };
        let build = || Ok(Sequential::new().then(Flatten).then(Linear::new(4, 3)?));
        train(build, &Classify::new(3), &splits(stop_after), &config)
    };
    run("whole", usize::MAX, false).unwrap();
    assert!(matches!(run("parts", 60, false), Err(Error::Interrupted { .. })));
    interrupt::clear();
    run("parts", usize::MAX, true).unwrap();
    let (whole, parts) = (history(&folder.path().join("whole")), history(&folder.path().join("parts")));
    assert!(whole.0.first().unwrap().1, "the first step is skipped: {whole:?}");
    assert!(whole.0.last().unwrap().0 < 65536.0 && whole.1["growth_tracker"].as_u64() > Some(0), "{whole:?}");
    assert_eq!(whole, parts);
}
