//! What runs in a process with the stand-in: see the tests of `main.rs`, by which these are started.

use binade_amp::{Dynamic, LossScale, Policy, StepOutcome, Training};
use binade_autograd::{Var, scope};
use binade_cuda::{Cuda, Driver, Failure, Launch, Module, Native, open_interpreted};
use binade_nn::{Activation, AdamW, Layer, LayerNorm, Linear, Optimizer, Sequential};
use binade_tensor::op::{Binary, Conv2d, Epilogue, MatMul, Reduction, Unary};
use binade_tensor::samples::catalogue;
use binade_tensor::{
    Array, ArrayMut, Class, DType, Device, Error, Grad, Layout, Op, Request, Shape, Slot, Update, run, run_one,
};

fn cuda() -> Device {
    Device::open("cuda").unwrap()
}

fn floats(device: &Device, n: usize) -> Array {
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    Array::from_slice(device, &values, &[n], Class::Activations).unwrap()
}

fn relu(device: &Device, x: &Array) -> Result<Array, Error> {
    run_one(&Op::Unary(Unary::Relu), &[x], device, DType::F32, Class::Activations)
}

fn bits(array: &Array) -> Vec<u64> {
    array.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect()
}

/// The first sample of one operator of each name, but for those that the host runs.
fn results(device: &Device) -> Vec<(&'static str, Vec<Vec<u64>>)> {
    let (mut named, mut found) = (std::collections::BTreeSet::new(), Vec::new());
    for op in catalogue().into_iter().filter(|op| *op != Op::Cast(DType::F64)) {
        if !named.insert(op.name()) {
            continue;
        }
        for ins in op.samples(device, DType::F32).into_iter().take(1) {
            let request = Request::new(&op, &[], device, DType::F32, Class::Activations);
            let outs = run(Request { ins: &ins.iter().collect::<Vec<_>>(), ..request });
            found.push((op.name(), outs.unwrap().iter().map(bits).collect()));
        }
    }
    found
}

fn updated(device: &Device) -> Vec<u64> {
    let (param, grad) = (floats(device, 1000), floats(device, 1000));
    let scalars = Array::from_slice(device, &[0.5f32, 1.0], &[2], Class::Workspace).unwrap();
    let sgd = Update::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    let slot = Slot {
        param: Some(ArrayMut::new("sgd", &param).unwrap()),
        master: None,
        grad: Grad::Read(&grad),
        state: vec![],
        first: true,
    };
    sgd.run(&scalars, &mut [slot]).unwrap().wait().unwrap();
    bits(&param)
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn operators_have_the_bits_of_the_interpreter() {
    let (native, interpreted) = (cuda(), Device::open("cuda-interpreted").unwrap());
    let (ours, theirs) = (results(&native), results(&interpreted));
    assert!(ours.len() > 40, "{} operators", ours.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(updated(&native), updated(&interpreted));
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn products_and_convolutions_on_tensor_cores_have_the_bits_of_the_interpreter() {
    let capability = Native::new(0).unwrap().capability();
    let (native, interpreted) = (cuda(), open_interpreted(capability).unwrap());
    for dtype in [DType::F16, DType::BF16] {
        let operand = |device: &Device, dims: &[usize]| {
            let whole = floats(device, dims.iter().product()).cast(dtype, Class::Activations).unwrap();
            whole.with_layout(Layout::contiguous(Shape::new(dims).unwrap())).unwrap()
        };
        let result = |device: &Device, op: &Op, dims: [&[usize]; 2]| {
            let ins = dims.map(|dims| operand(device, dims));
            bits(&run_one(op, &[&ins[0], &ins[1]], device, dtype, Class::Activations).unwrap())
        };
        let (product, convolution) = (
            Op::MatMul(MatMul::default()),
            Op::Conv2d(Conv2d { padding: [1, 1], ..Conv2d::default() }, Epilogue::default()),
        );
        for (op, dims) in [(product, [&[72, 200][..], &[200, 96]]), (convolution, [&[2, 16, 5, 6], &[24, 16, 3, 3]])] {
            assert_eq!(result(&native, &op, dims), result(&interpreted, &op, dims), "{capability} {dtype} {op:?}");
        }
    }
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn copies_arrive_whole() {
    let device = cuda();
    // One byte, less and more than a buffer for copies, and more than goes through one at all.
    for n in [1, 1000, 17_000, 70_000, 10_000_000] {
        let bytes: Vec<i8> = (0..n).map(|i: usize| (i * 31 % 251) as i8).collect();
        // Twice behind each other: the second must not take the first's buffer before it was read.
        let there = [&bytes, &bytes.iter().rev().copied().collect()].map(|bytes: &Vec<i8>| {
            (Array::from_slice(&device, bytes, &[n], Class::Activations).unwrap(), bytes.clone())
        });
        for (array, bytes) in there {
            assert!(array.to_vec::<i8>().unwrap() == bytes, "{n} bytes");
        }
    }
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn memory_is_counted_and_used_again() {
    let device = cuda();
    let before = device.memory();
    let x = Array::from_slice(&device, &[1.0f32; 100], &[100], Class::Weights).unwrap();
    assert_eq!(device.memory().live(Class::Weights) - before.live(Class::Weights), 400);
    drop(x);
    assert_eq!(device.memory().live(Class::Weights), before.live(Class::Weights));
    assert_eq!(device.memory().peak(Class::Weights) - before.live(Class::Weights), 400);
    // A hundred results behind each other take the memory of two.
    let driver = Native::new(0).unwrap();
    let x = floats(&device, 1 << 16);
    let mut y = relu(&device, &x).unwrap();
    device.sync().unwrap();
    let (free, _) = driver.room().unwrap();
    for _ in 0..100 {
        y = relu(&device, &y).unwrap();
    }
    device.sync().unwrap();
    let (now, _) = driver.room().unwrap();
    assert!(free - now <= 1 << 19, "{} bytes more", free - now);
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn there_are_two_devices() {
    let names = Device::names();
    assert!(["cuda:0", "cuda:1"].iter().all(|name| names.iter().any(|n| n == name)), "{names:?}");
    let [first, second] = ["cuda:0", "cuda:1"].map(|name| Device::open(name).unwrap());
    assert!(first != second && Device::open("cuda").unwrap() == first);
    let x = floats(&second, 10);
    assert_eq!(x.to(&first).unwrap().to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
    let error = Device::open("cuda:2").unwrap_err().to_string();
    assert!(error.contains("'cuda:2'") && error.contains("cuda:1"), "{error}");
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn there_is_one_device() {
    assert!(Device::names().contains(&"cuda".to_string()));
    assert!(Device::open("cuda:1").is_err());
    assert_eq!(relu(&cuda(), &floats(&cuda(), 3)).unwrap().to_vec::<f32>().unwrap().len(), 3);
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn there_is_no_driver() {
    let error = Device::open("cuda").unwrap_err().to_string();
    assert!(error.contains("install it") && error.contains("cuda-interpreted"), "{error}");
    assert!(Device::open("cuda-interpreted").is_ok());
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn the_driver_is_not_whole() {
    let error = Device::open("cuda").unwrap_err().to_string();
    let missing = std::env::var("BINADE_MISSING").unwrap();
    assert!(error.contains(&format!("has no {missing}:")) && error.contains("install it again"), "{error}");
    assert!(Device::open("cuda-interpreted").is_ok());
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn there_is_no_device() {
    let error = Device::open("cuda").unwrap_err().to_string();
    assert!(error.contains("CUDA_ERROR_NO_DEVICE") && error.contains("CUDA_VISIBLE_DEVICES"), "{error}");
}

/// The error of an operator that is queued, then waited for.
fn told(device: &Device) -> Error {
    let x = floats(device, 3);
    relu(device, &x).and_then(|y| y.to_vec::<f32>()).unwrap_err()
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn the_driver_is_too_old() {
    let error = told(&cuda()).to_string();
    assert!(error.starts_with("relu: ") && error.contains("UNSUPPORTED_PTX_VERSION"), "{error}");
    assert!(error.contains("too old") && error.contains("CUDA 10.2"), "{error}");
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn the_device_is_too_old() {
    let error = Device::open("cuda").unwrap_err().to_string();
    assert!(error.contains("capability 7.0") && error.contains("7.5"), "{error}");
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn memory_runs_out() {
    let device = cuda();
    let x = floats(&device, 1000);
    // Freed blocks of a size that the next cannot use are given back before it is refused.
    for bytes in [600_000, 900_000, 1_200_000, 1_500_000] {
        drop(Array::from_slice(&device, &vec![0i8; bytes], &[bytes], Class::Activations).unwrap());
    }
    let wide = Array::from_slice(&device, &[1.0f32; 1000], &[1000, 1], Class::Activations).unwrap();
    let op = Op::Binary(Binary::Add);
    let error = run_one(&op, &[&wide, &x], &device, DType::F32, Class::Activations).unwrap_err();
    assert_eq!(error, Error::OutOfMemory { op: "add", bytes: 4_000_000, class: Class::Activations });
    // What is small still works.
    assert_eq!(relu(&device, &x).unwrap().to_vec::<f32>().unwrap().len(), 1000);
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn a_kernel_goes_astray() {
    let device = cuda();
    let x = floats(&device, 3);
    // A kernel of its own, whose operand lies nowhere: the context is the process's.
    let driver = Native::new(0).unwrap();
    let parameter = &[0xf0; 4096];
    let launch = Launch { module: Module::Copy, kernel: "cast", grid: [1; 3], block: [32, 1, 1], parameter };
    let told = driver.launch(&launch).and_then(|()| driver.read(&mut [])).unwrap_err();
    let Failure::Device(told) = told else { panic!("{told:?}") };
    assert!(told.contains("CUDA_ERROR_ILLEGAL_ADDRESS") && told.contains("cast"), "{told}");
    assert!(told.contains("start the program again") && told.contains("cuda-interpreted"), "{told}");
    let error = relu(&device, &x).and_then(|y| y.to_vec::<f32>()).unwrap_err().to_string();
    assert!(error.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn the_device_is_lost() {
    let device = cuda();
    let x = floats(&device, 100);
    let mut errors = Vec::new();
    for _ in 0..5 {
        if let Err(error) = relu(&device, &x).and_then(|y| y.to_vec::<f32>()) {
            errors.push(error.to_string());
        }
    }
    assert!(errors.len() >= 3, "{errors:?}");
    for error in errors {
        assert!(error.contains("CUDA_ERROR_UNKNOWN") && error.contains("checkpoint"), "{error}");
    }
    drop((x, device));
}

#[test]
#[ignore = "run by the tests of main.rs"]
fn a_steady_step_waits_once_and_asks_for_no_memory() {
    let device = cuda();
    let cuda = Cuda::of(&device).unwrap();
    let dynamic = LossScale::Dynamic(Dynamic { init_scale: 1024.0, ..Dynamic::default() });
    let autocast = |dtype, scale| (Policy::autocast(dtype), scale);
    let precisions =
        [(Policy::OFF, LossScale::Off), autocast(DType::F16, dynamic), autocast(DType::BF16, LossScale::Off)];
    scope::with_device(&device, || {
        for (policy, scale) in precisions {
            let linear = |inputs, outputs| Linear::new(inputs, outputs).unwrap();
            let model = Sequential::new().then(linear(12, 24)).then(LayerNorm::new(24).unwrap());
            let model = model.then(Activation(Unary::Gelu)).then(linear(24, 10));
            let optimizer = Optimizer::new(&model, AdamW::default()).unwrap();
            let mut training = Training::new(optimizer, policy.clone(), scale).unwrap();
            training.clip = Some(1.0);
            let batch =
                |n: usize| Var::from_slice(&(0..32 * n).map(|i| (i as f32).sin()).collect::<Vec<_>>(), &[32, n]);
            let mut step = || {
                let before = cuda.counts();
                let loss = || -> binade_amp::Result<_> {
                    Ok(model.forward(&batch(12)?)?.mse_loss(&batch(10)?, Reduction::Mean)?)
                };
                assert_eq!(training.step(loss).unwrap().outcome, StepOutcome::Applied);
                let now = cuda.counts();
                (now.waits - before.waits, now.allocations - before.allocations)
            };
            // The first makes what stays, and the second finds of each size as much as is needed at a time.
            assert_eq!((step().0, step().0), (1, 1), "{policy:?}");
            for _ in 0..2 {
                assert_eq!(step(), (1, 0), "{policy:?}");
            }
        }
    });
    assert!(cuda.counts().allocations > 0);
}
