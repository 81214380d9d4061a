//! What is reported when, and what it leaves undone.

use std::sync::atomic::Ordering;

use binade_cuda::{Cuda, Module, interpreted};
use binade_tensor::op::Unary;
use binade_tensor::{
    Array, ArrayMut, Class, DType, Device, Error, Grad, Op, Outcome, Request, Result, Slot, Update, run, run_one,
};

use crate::common::Faulty;

fn device() -> Device {
    Device::new(interpreted().unwrap())
}

fn floats(device: &Device, values: &[f32], dims: &[usize]) -> Array {
    Array::from_slice(device, values, dims, Class::Activations).unwrap()
}

const SGD: Update = Update::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false };
const ADAFACTOR: Update = Update::Adafactor { decay: -0.8, eps: [1e-30, 1e-3], clip: 1.0, weight_decay: 0.0 };

/// Queues the first step of an optimiser, of ones by ones.
fn queue(device: &Device, update: &Update, param: &Array, states: &[Array]) -> Result<Outcome> {
    let grad = floats(device, &vec![1.0; param.numel()], param.shape());
    let scalars: Vec<f32> = update.scalars(0.5, 1, 1.0).into_iter().map(|v| v as f32).collect();
    let scalars = floats(device, &scalars, &[scalars.len()]);
    let lent = |array| ArrayMut::new(update.name(), array).unwrap();
    let state = states.iter().map(lent).collect();
    let slot = Slot { param: Some(lent(param)), master: None, grad: Grad::Read(&grad), state, first: true };
    update.run(&scalars, &mut [slot])
}

/// Whether an index out of range is told by the next wait, once, and a pass behind it changes no parameter.
pub fn stops(device: &Device) -> Result<(), String> {
    let weight = floats(device, &[1.0, 2.0, 3.0, 4.0], &[2, 2]);
    let index = Array::from_slice(device, &[0i64, 7, 1], &[3], Class::Indices).unwrap();
    let queued = run_one(&Op::Embedding, &[&weight, &index], device, DType::F32, Class::Activations);
    assert!(queued.is_ok(), "queued: {queued:?}");
    let param = floats(device, &[1.0, 1.0], &[2]);
    let told = queue(device, &SGD, &param, &[]).unwrap().wait().map(|_| ());
    if told != Err(Error::IndexOutOfRange { op: "embedding", index: 7, size: 2, what: "rows" }) {
        return Err(format!("{told:?} is told"));
    }
    let left = param.to_vec::<f32>().map_err(|e| e.to_string())?;
    if left != [1.0, 1.0] {
        return Err(format!("the parameter is {left:?}"));
    }
    device.sync().map_err(|error| format!("told again: {error}"))
}

#[test]
fn an_index_out_of_range_is_told_by_the_next_wait_and_nothing_behind_it_runs() {
    stops(&device()).unwrap();
}

/// Adafactor is run by the host, which must see the error before it reads what was never computed.
#[test]
fn adafactor_behind_an_index_out_of_range_changes_nothing_and_the_error_is_told_once() {
    let device = device();
    let weight = floats(&device, &[1.0, 2.0], &[2, 1]);
    let index = Array::from_slice(&device, &[5i64], &[1], Class::Indices).unwrap();
    let wanted = Error::IndexOutOfRange { op: "embedding", index: 5, size: 2, what: "rows" };
    let param = floats(&device, &[1.0; 4], &[2, 2]);
    let states: Vec<Array> =
        ADAFACTOR.states(param.shape()).iter().map(|s| floats(&device, &vec![0.5; s.numel()], s)).collect();
    let before = || states.iter().all(|state| state.to_vec::<f32>().unwrap().iter().all(|&v| v == 0.5));
    for waits in [true, false] {
        run_one(&Op::Embedding, &[&weight, &index], &device, DType::F32, Class::Activations).unwrap();
        let outcome = queue(&device, &ADAFACTOR, &param, &states).unwrap();
        // Where nobody waits for the outcome, the next wait tells.
        let told = if waits { outcome.wait().map(drop) } else { device.sync() };
        assert_eq!(told, Err(wanted.clone()), "{waits}");
        device.sync().unwrap();
        assert_eq!(param.to_vec::<f32>().unwrap(), [1.0; 4]);
        assert!(before());
    }
    // The step after it is one.
    queue(&device, &ADAFACTOR, &param, &states).unwrap().wait().unwrap();
    assert!(param.to_vec::<f32>().unwrap().iter().all(|&v| v < 1.0) && !before());
}

#[test]
fn behind_a_kernel_that_was_not_started_nothing_runs_and_the_error_names_its_operator_once() {
    let faulty = Faulty::default();
    let cuda = Cuda::new(faulty.clone()).unwrap();
    let device = Device::new(cuda.clone());
    let (x, param) = (floats(&device, &[-1.0, 2.0], &[2]), floats(&device, &[1.0, 1.0], &[2]));
    let apply = |row| run_one(&Op::Unary(row), &[&x], &device, DType::F32, Class::Activations).unwrap();
    faulty.refuses.store(true, Ordering::Relaxed);
    let first = apply(Unary::Relu);
    faulty.refuses.store(false, Ordering::Relaxed);
    let asked = faulty.asked.load(Ordering::Relaxed);
    let behind = apply(Unary::Exp);
    let outcome = queue(&device, &SGD, &param, &[]).unwrap();
    let sorted =
        run_one(&Op::Sort { dim: 0, descending: false, length: 2 }, &[&x], &device, DType::F32, Class::Activations);
    assert!(sorted.is_ok() && cuda.counts().fallbacks.is_empty(), "{sorted:?}");
    assert_eq!(faulty.asked.load(Ordering::Relaxed), asked, "kernels were started behind it");
    let told = outcome.wait().unwrap_err().to_string();
    assert!(told.starts_with("relu: ") && told.contains("CUDA_ERROR_LAUNCH_FAILED"), "{told}");
    device.sync().unwrap();
    assert_eq!(param.to_vec::<f32>().unwrap(), [1.0, 1.0]);
    // Their memory was never written.
    assert!([first, behind].iter().all(|y| matches!(y.to_vec::<f32>(), Err(Error::Hazard { .. }))));
    // What is queued then runs.
    assert_eq!(apply(Unary::Relu).to_vec::<f32>().unwrap(), [0.0, 2.0]);
    queue(&device, &SGD, &param, &[]).unwrap().wait().unwrap();
    assert_eq!(param.to_vec::<f32>().unwrap(), [0.5, 0.5]);
}

/// Whether indices just out of range are told, with the first of them, and those just within are not; of any strides.
pub fn indices(device: &Device) -> Result<(), String> {
    let weight = floats(device, &[0.5; 6], &[3, 2]);
    let mut long = vec![2i64; 700];
    (long[650], long[300]) = (5, 3);
    for (values, wrong) in [(vec![0i64, 2], None), (vec![1, 3], Some(3)), (vec![-1, 0], Some(-1)), (long, Some(3))] {
        let half = [2, values.len() / 2];
        for (dims, transposed) in [(&[values.len()][..], false), (&half, false), (&half, true)] {
            let array = |dims: &[usize]| Array::from_slice(device, &values, dims, Class::Indices);
            let turned = |index: Array| index.with_layout(index.layout().permute(&[1, 0]));
            let index = array(dims).and_then(|index| if transposed { turned(index) } else { Ok(index) });
            let index = index.map_err(|e| e.to_string())?;
            let y = run_one(&Op::Embedding, &[&weight, &index], device, DType::F32, Class::Activations);
            let told = y.and_then(|_| device.sync());
            let error = |index| Error::IndexOutOfRange { op: "embedding", index, size: 3, what: "rows" };
            if told != wrong.map_or(Ok(()), |index| Err(error(index))) {
                return Err(told.err().map_or_else(|| format!("nothing is told of {wrong:?}"), |e| e.to_string()));
            }
        }
    }
    Ok(())
}

#[test]
fn the_first_index_out_of_range_is_told_and_none_that_is_within() {
    indices(&device()).unwrap();
}

#[test]
fn numbers_of_64_bits_are_refused_by_name() {
    let error = Array::from_slice(&device(), &[1.0f64], &[1], Class::Activations).unwrap_err();
    assert_eq!(error.to_string(), "alloc: the cuda-interpreted backend has no kernel for f64");
}

#[test]
fn memory_is_counted_by_class_and_given_back() {
    let device = device();
    let before = device.memory().live(Class::Weights);
    let x = Array::from_slice(&device, &[1.0f32; 100], &[100], Class::Weights).unwrap();
    assert_eq!(device.memory().live(Class::Weights) - before, 400);
    drop(x);
    assert_eq!((device.memory().live(Class::Weights), device.memory().peak(Class::Weights)), (before, before + 400));
}

#[test]
fn an_operator_written_over_its_operand_has_the_same_bits() {
    let device = device();
    let values: Vec<f32> = (0..1000).map(|i| i as f32 * 0.01 - 5.0).collect();
    for row in [Unary::Exp, Unary::Gelu, Unary::Relu] {
        let op = Op::Unary(row);
        let x = floats(&device, &values, &[10, 100]);
        let apart = run_one(&op, &[&x], &device, DType::F32, Class::Activations).unwrap().to_vec::<f32>().unwrap();
        let storage = x.storage().id();
        let given = smallvec::smallvec![x];
        let request = Request { given, ..Request::new(&op, &[], &device, DType::F32, Class::Activations) };
        let over = run(request).unwrap().swap_remove(0);
        assert_eq!(over.storage().id(), storage, "{row:?} was not written over its operand");
        assert_eq!(over.to_vec::<f32>().unwrap(), apart, "{row:?}");
    }
}

#[test]
fn what_the_host_runs_is_counted_by_name() {
    let cuda = interpreted().unwrap();
    let device = Device::new(cuda.clone());
    let x = floats(&device, &[3.0, 1.0, 2.0], &[3]);
    let op = Op::Sort { dim: 0, descending: false, length: 3 };
    let sorted = run(Request::new(&op, &[&x], &device, DType::F32, Class::Activations)).unwrap();
    assert_eq!(sorted[0].to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(cuda.counts().fallbacks.into_iter().collect::<Vec<_>>(), [("sort", 1)]);
}

#[test]
fn the_program_has_the_ptx_that_is_checked_in() {
    for module in Module::ALL {
        let path = format!("{}/kernels/{}.ptx", env!("CARGO_MANIFEST_DIR"), module.name());
        assert!(module.text() == std::fs::read_to_string(path).unwrap(), "{}", module.name());
    }
}
