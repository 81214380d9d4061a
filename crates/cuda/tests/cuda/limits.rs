//! What is larger than a kernel, or a grid, takes: right by the host, or an error that says so.

use binade_cuda::interpreted;
use binade_tensor::op::{Attention, Backward, Conv2d, Epilogue, MatMul};
use binade_tensor::{Array, Class, DType, Device, Error, Layout, Op, Shape, run_one};

use crate::common::{all_there, outs, there};
use crate::registry::failure;

fn floats(device: &Device, values: &[f32], dims: &[usize]) -> Array {
    Array::from_slice(device, values, dims, Class::Activations).unwrap()
}

#[test]
fn a_convolution_has_more_groups_than_a_grid_has_blocks() {
    const GROUPS: usize = 65_537;
    let device = Device::new(interpreted().unwrap());
    let values = |by: f32| (0..GROUPS).map(|i| (i as f32 * by).sin()).collect::<Vec<_>>();
    let (x, w) = (values(0.3), values(0.7));
    let ins = [floats(&device, &x, &[1, GROUPS, 1, 1]), floats(&device, &w, &[GROUPS, 1, 1, 1])];
    let conv = Conv2d { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: GROUPS };
    let op = Op::Conv2d(conv, Epilogue::default());
    let y = run_one(&op, &[&ins[0], &ins[1]], &device, DType::F32, Class::Activations).unwrap();
    let products: Vec<f32> = x.iter().zip(&w).map(|(x, w)| x * w).collect();
    assert!(y.to_vec::<f32>().unwrap() == products);
}

/// Minutes: `cargo test --workspace --test cuda more_batches -- --ignored`.
#[test]
#[ignore = "a minute long"]
fn a_product_has_more_batches_than_a_grid_has_blocks() {
    const BATCHES: usize = 65_537;
    let device = Device::new(interpreted().unwrap());
    let of = |dtype: DType, dims: &[usize], by: usize| {
        let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i * by % 7) as f32 - 3.0).collect();
        floats(&Device::cpu(), &values, dims).cast(dtype, Class::Activations).unwrap()
    };
    // By fused multiply-adds, and on tensor cores.
    for (dtype, k) in [(DType::F32, 2), (DType::F16, 8)] {
        let ins = [of(dtype, &[BATCHES, 1, k], 5), of(dtype, &[BATCHES, k, 8], 3)];
        let op = Op::MatMul(MatMul::default());
        let wanted = outs(&op, &ins, &Device::cpu(), DType::F32).unwrap()[0].to_vec::<f32>().unwrap();
        let ins = all_there(&device, &ins).unwrap();
        assert!(outs(&op, &ins, &device, DType::F32).unwrap()[0].to_vec::<f32>().unwrap() == wanted, "{dtype}");
    }
}

#[test]
#[ignore = "the host's copy takes 8 GiB"]
fn a_tensor_with_more_elements_than_kernels_number_is_the_hosts() {
    let cuda = interpreted().unwrap();
    let device = Device::new(cuda.clone());
    // Without memory for them: one element 2³¹ times.
    let layout = Layout::contiguous(Shape::SCALAR).expand(&Shape::new(&[1 << 31]).unwrap()).unwrap();
    let x = floats(&device, &[2.5], &[]).with_layout(layout).unwrap();
    let index = Array::from_slice(&device, &[0i64, (1 << 31) - 1, 7], &[3], Class::Indices).unwrap();
    let y = run_one(&Op::Gather { dim: 0 }, &[&x, &index], &device, DType::F32, Class::Activations).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [2.5; 3]);
    assert_eq!(cuda.counts().fallbacks.into_iter().collect::<Vec<_>>(), [("gather", 1)]);
}

#[test]
fn a_grid_that_cuda_does_not_have_is_an_error_that_names_the_operator() {
    let device = Device::new(interpreted().unwrap());
    // A block for 128 features each, in the grid's second dimension.
    let g = floats(&device, &[], &[0, 65_536 * 128]);
    let index = there(&device, &Array::from_slice(&Device::cpu(), &[0i64; 0], &[0], Class::Indices).unwrap()).unwrap();
    let op = Op::Backward(Backward::Embedding { rows: 1 });
    let queued = run_one(&op, &[&g, &index], &device, DType::F32, Class::Gradients);
    let error = queued.and_then(|_| device.sync()).unwrap_err();
    assert!(matches!(error, Error::Argument { op: "embedding_backward", .. }), "{error}");
    assert!(error.to_string().contains("65536"), "{error}");
}

#[test]
fn attention_of_samples_that_lie_at_no_one_distance_is_the_devices() {
    let cuda = interpreted().unwrap();
    let device = Device::new(cuda.clone());
    let wave = |dims: &[usize], by: f32| {
        let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i as f32 * by).sin()).collect();
        floats(&Device::cpu(), &values, dims)
    };
    // Samples of two dimensions, that are turned round, and a mask that is one for the first of them.
    let turned = |x: Array| x.with_layout(x.layout().transpose(0, 1)).unwrap();
    let [q, k, v, g] = [(5, 0.3), (7, 0.7), (7, 0.11), (5, 0.13)].map(|(n, by)| turned(wave(&[3, 2, 2, n, 4], by)));
    let mask = wave(&[2, 1, 2, 1, 7], 0.9);
    let attention = Attention { mask: true, ..Attention::default() };
    let ins = [q, k, v, mask];
    assert_eq!(failure(&Op::Attention(attention), &ins, &device, DType::F32), None);
    let saved = outs(&Op::Attention(attention), &ins, &Device::cpu(), DType::F32).unwrap();
    let [q, k, v, mask] = ins;
    let ins = [g, q, k, v, saved[0].clone(), saved[1].clone(), mask];
    let op = Op::Backward(Backward::Attention { attention, joined: false });
    assert_eq!(failure(&op, &ins, &device, DType::F32), None);
    assert!(cuda.counts().fallbacks.is_empty(), "{:?}", cuda.counts().fallbacks);
}
