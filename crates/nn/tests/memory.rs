//! A checkpoint is written and read without a copy of what it holds. Alone in its program: what other tests allocate
//! would count.
#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use binade_cpu as _;
use binade_nn::*;
use binade_tensor::{Array, Class, DType, Device, Shape};

const ROWS: usize = 1 << 11;

/// Memory of the process that is no file's, in bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The most that a function had at any time.
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

fn full(value: f64, class: Class) -> Array {
    Array::full(&Device::cpu(), DType::F32, Shape::new(&[ROWS, ROWS]).unwrap(), value, class).unwrap()
}

#[test]
fn a_checkpoint_with_state_takes_no_more_memory_than_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let whole = (3 * ROWS * ROWS * 4) as u64;
    let tensors =
        [("model.weight", 1.0, Class::Weights), ("w.0", 2.0, Class::Optimizer), ("w.1", 3.0, Class::Optimizer)];
    let tensors: Vec<_> = tensors.map(|(name, value, class)| (name.to_string(), full(value, class))).into();
    let before = anonymous();
    let (_, saving) = peak(|| write_safetensors(&path, &tensors, Default::default()).unwrap());
    assert!(before >= whole && saving - before <= whole / 10, "saving: {} more than {before}", saving - before);
    drop(tensors);
    // What was dropped is used again: the load takes what it needs beside it.
    let before = anonymous();
    let ((model, optimizer), loading) = peak(|| {
        let model = without_initial_values(|| Linear::without_bias(ROWS, ROWS)).unwrap();
        let w = vec![("w".to_string(), model.weight.clone())];
        let mut optimizer = Optimizer::empty().with_group(w, AdamW::default()).unwrap();
        let file = TensorFile::open(&path).unwrap();
        let state = ["w.0".to_string(), "w.1".to_string()];
        let tensors = file.arrays(&state, Class::Optimizer).unwrap();
        let params = vec![ParamState { name: "w".into(), rule: "adamw".into(), steps: 1 }];
        optimizer.load_state_dict(&OptimizerState { params, lr_factor: 1.0, tensors }).unwrap();
        file.load(&model, "model.").unwrap();
        (model, optimizer)
    });
    assert!(loading - before <= whole / 10, "loading: {} more than {before}", loading - before);
    let state = optimizer.state_dict().unwrap();
    assert_eq!(state.tensors.iter().map(|(_, a)| a.to_vec::<f32>().unwrap()[7]).collect::<Vec<_>>(), [2.0, 3.0]);
    assert_eq!(model.weight.array().to_vec::<f32>().unwrap()[7], 1.0);
}
