//! Loading and saving take no more memory of the process's own than the model. Alone in its program: what other tests
//! allocate would count.
#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use binade_cpu as _;
use binade_nn::{Init, Module, Param, Visitor, without_initial_values};
use binade_tensor::DType;
use binade_weights::{LoadOptions, SaveOptions, Source, Sources, Weights, load, save};

const ROWS: usize = 1 << 10;
const COUNT: usize = 24;
/// Bytes of the model.
const MODEL: u64 = (COUNT * ROWS * ROWS * 4) as u64;

#[derive(Clone, Module)]
struct Net {
    layers: Vec<Param>,
}

fn net() -> Net {
    let layer = |_| Param::init(&[ROWS, ROWS], Init::Normal { mean: 0.0, std: 0.02 }).unwrap();
    Net { layers: (0..COUNT).map(layer).collect() }
}

/// Memory of the process that is no file's, in bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The most that a function had at any time, looked at every fraction of a millisecond.
fn peak<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(anonymous()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                most.fetch_max(anonymous(), Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let result = f();
        most.fetch_max(anonymous(), Relaxed);
        done.store(true, Relaxed);
        (result, most.load(Relaxed))
    })
}

#[test]
fn a_model_is_loaded_and_saved_without_a_copy_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let transposed = |i: usize| (format!("layers.{i}"), Source::Transposed(format!("t.{i}")));
    let sources = Sources { sources: (0..COUNT).step_by(2).map(transposed).collect(), ignored: vec![] };
    for dtype in [DType::F32, DType::F16] {
        let path = folder.path().join(dtype.name());
        let options = SaveOptions { dtype: Some(dtype), ..SaveOptions::default() };
        let model = net();
        let before = anonymous();
        let (_, saving) = peak(|| save(&model, &path, &sources, &options).unwrap());
        drop(model);
        assert!(before >= MODEL && saving - before <= MODEL / 10, "saving {dtype}: {} more", saving - before);
    }
    for dtype in [DType::F32, DType::F16] {
        let before = anonymous();
        let (model, loading) = peak(|| {
            let model = without_initial_values(net);
            let weights = Weights::open(&folder.path().join(dtype.name())).unwrap();
            load(&model, &weights, &sources, &LoadOptions::default()).unwrap();
            model
        });
        // The memory of the model that was dropped is used again, and counted before.
        assert!(loading - before <= MODEL / 10, "loading {dtype}: {} more", loading - before);
        assert!(loading >= MODEL, "the measure sees nothing");
        drop(model);
    }
}
