//! A run that is interrupted and resumed ends with the bits of one that was not.

use binade_cpu as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use binade_nn::{BatchNorm2d, Conv2d, Dropout, Flatten, Layer, Linear, Module, Visitor};
use binade_tensor::Key;
use binade_train::{
    Classify, Config, Data, Error, InMemory, Precision, RunConfig, SampleResult, Splits, interrupt, train,
};

static THREE: Classify = Classify::new(3);

/// Everything with state: batch norm, dropout.
#[derive(Clone, Module)]
struct Net {
    conv: Conv2d,
    norm: BatchNorm2d,
    dropout: Dropout,
    head: Linear,
}

impl Layer for Net {
    fn run(&self, x: &binade_autograd::Var) -> binade_nn::Result<binade_autograd::Var> {
        let h = self.norm.forward(&self.conv.forward(x)?)?.relu()?;
        self.head.forward(&self.dropout.forward(&Flatten.forward(&h)?)?)
    }
}

fn build() -> binade_nn::Result<Net> {
    Ok(Net {
        conv: Conv2d::same(1, 4, 3)?,
        norm: BatchNorm2d::new(4)?,
        dropout: Dropout::new(0.2).unwrap(),
        head: Linear::new(4 * 16, 3)?,
    })
}

/// Asks for a stop when a sample of the given number (counted over the run) is drawn.
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

fn splits(stop_after: usize) -> Splits {
    let inputs = (0..60 * 16).map(|i| (i as f32 * 0.77).sin()).collect();
    let labels: Vec<usize> = (0..60).map(|i| i % 3).collect();
    let data = InMemory::classes(inputs, &[1, 4, 4], &labels).unwrap();
    let (a, b) = data.split_at(48);
    Splits::new(Stopping { inner: a, left: AtomicUsize::new(stop_after) }, b)
}

fn config(folder: &Path, resume: bool) -> RunConfig {
    let fit = Config { epochs: 3, batch_size: 8, ..Config::default() };
    RunConfig {
        name: "test".into(),
        precisions: Precision::ALL.to_vec(),
        fit,
        out: Some(folder.into()),
        resume,
        quiet: true,
        ..RunConfig::default()
    }
}

#[test]
fn a_resumed_run_has_the_bits_of_an_uninterrupted_one_in_every_precision() {
    let _alone = crate::alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    train(build, &THREE, &splits(usize::MAX), &config(&whole, false)).unwrap();
    // Stop inside the first, then inside the second, then inside the third precision (144 samples each).
    let mut resume = false;
    for stop_after in [100, 150, 130] {
        let result = train(build, &THREE, &splits(stop_after), &config(&parts, resume));
        assert!(matches!(result, Err(Error::Interrupted { .. })), "{result:?}");
        interrupt::clear();
        resume = true;
    }
    let end = train(build, &THREE, &splits(usize::MAX), &config(&parts, true)).unwrap();
    assert_eq!(end.summaries.len(), 3);
    for precision in Precision::ALL {
        let tensors = |folder: &Path| -> Vec<(String, Vec<u64>)> {
            let path = folder.join(format!("checkpoint-{}.safetensors", precision.name()));
            let (all, _) = binade_nn::read_safetensors(&path, binade_tensor::Class::Workspace).unwrap();
            all.into_iter().map(|(n, a)| (n, a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect())).collect()
        };
        assert_eq!(tensors(&whole), tensors(&parts), "{}", precision.name());
    }
    let lines = |folder: &Path| {
        std::fs::read_to_string(folder.join("metrics.jsonl"))
            .unwrap()
            .lines()
            .filter(|l| l.contains("\"step\""))
            .map(String::from)
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&whole), lines(&parts));
    assert!(whole.join("report.html").exists() && whole.join("summary.json").exists());

    // A finished run is not overwritten, and not resumed with another model or a torn checkpoint.
    let error = |r: Result<binade_train::Run, Error>| r.unwrap_err().to_string();
    assert!(error(train(build, &THREE, &splits(usize::MAX), &config(&whole, false))).contains("already holds a run"));
    let foreign = || Ok(binade_nn::Sequential::new().then(Flatten).then(Linear::new(16, 3)?));
    assert!(error(train(foreign, &THREE, &splits(usize::MAX), &config(&whole, true))).contains("another model"));
    let torn = whole.join("checkpoint-fp32.safetensors");
    let bytes = std::fs::read(&torn).unwrap();
    std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    assert!(error(train(build, &THREE, &splits(usize::MAX), &config(&whole, true))).contains("not a whole checkpoint"));
    assert_eq!(std::fs::read(&torn).unwrap().len(), bytes.len() / 2);
}
