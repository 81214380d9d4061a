//! Extents across the edges of the kernels' tiles, blocks and warps, which the samples of the catalogue do not reach:
//! one less, as many, and twice as many and three.

use binade_cuda::interpreted;
use binade_tensor::op::{
    Attention, Backward, Binary, Conv2d, CrossEntropy, Distribution, Epilogue, Loss, Norm, NormKind, Pool, PoolKind,
    QuantisedMatMul, Reduce, Reduction, Scan, Scatter,
};
use binade_tensor::testing::Exact;
use binade_tensor::{Array, Class, DType, Device, Dims, Key, Op, Shape, run_one};

use crate::common::{all_there, outs};

fn edges(tile: usize) -> [usize; 3] {
    [tile - 1, tile, 2 * tile + 3]
}

/// Normal values on the host.
fn x(dims: &[usize], stream: u64) -> Array {
    let distribution = Distribution::Normal { mean: 0.25, std: 1.0 };
    let op = Op::Random { distribution, shape: Shape::new(dims).unwrap(), key: Key::new(23, stream) };
    run_one(&op, &[], &Device::cpu(), DType::F32, Class::Activations).unwrap()
}

fn index(n: usize, below: usize) -> Array {
    let places: Vec<i64> = (0..n).map(|i| ((i * 7 + 3) % below) as i64).collect();
    Array::from_slice(&Device::cpu(), &places, &[n], Class::Indices).unwrap()
}

/// The outputs on the host, which a gradient takes.
fn saved(op: &Op, ins: &[Array]) -> Vec<Array> {
    outs(op, ins, &Device::cpu(), DType::F32).unwrap().into_iter().collect()
}

fn assert_within(device: &Device, op: &Op, ins: &[Array]) {
    let there = all_there(device, ins).unwrap();
    let checked = Exact::of(op, ins).unwrap().check(op, &there, device, DType::F32);
    let shapes: Vec<_> = ins.iter().map(|a| *a.shape()).collect();
    assert_eq!(checked.unwrap_or_else(|e| panic!("{op:?}: {e}")).1, None, "{op:?} of {shapes:?}");
}

fn device() -> Device {
    Device::new(interpreted().unwrap())
}

#[test]
fn reductions_across_lanes_and_blocks_are_within_their_bounds() {
    let device = device();
    // 16 lanes have a row, 1,024 elements are a block, 16 blocks a task.
    let lengths = edges(16).into_iter().chain(edges(1024)).chain([16 * 1024 - 1, 16 * 1024 + 3]);
    for n in lengths {
        for (shape, dim) in [([3, n], 1), ([n, 3], 0)] {
            let ins = [x(&shape, 1)];
            let dims = Dims::one(dim);
            for kind in [Reduce::Sum, Reduce::Max, Reduce::Var { correction: 1.0 }] {
                assert_within(&device, &Op::Reduce { kind, dims, keepdim: false }, &ins);
            }
            assert_within(&device, &Op::ArgMax { dim, keepdim: false }, &ins);
            assert_within(&device, &Op::Scan { kind: Scan::Sum, dim, reverse: false }, &ins);
        }
    }
}

#[test]
fn softmax_and_norms_across_lanes_and_blocks_are_within_their_bounds() {
    let device = device();
    for n in edges(16).into_iter().chain(edges(1024)) {
        let softmax = Op::Softmax { dim: 1, log: false };
        let ins = [x(&[3, n], 1)];
        assert_within(&device, &softmax, &ins);
        let y = saved(&softmax, &ins).remove(0);
        assert_within(&device, &Op::Backward(Backward::Softmax { dim: 1, log: false }), &[x(&[3, n], 2), y]);
        let loss = CrossEntropy::default();
        assert_within(&device, &Op::CrossEntropy(loss), &[x(&[3, n], 1), index(3, n)]);
        // Classes beside rows: rows are what is added up.
        assert_within(&device, &Op::CrossEntropy(loss), &[x(&[n, 3], 1), index(n, 3)]);
        for kind in [NormKind::Layer { dims: 1 }, NormKind::Rms { dims: 1 }, NormKind::Batch] {
            let norm = Norm { kind, eps: 1e-5, affine: false, act: None };
            let shape = if kind == NormKind::Batch { vec![n, 3] } else { vec![3, n] };
            let ins = [x(&shape, 1)];
            assert_within(&device, &Op::Norm(norm), &ins);
            let [mean, rstd] = [1, 2].map(|i| saved(&Op::Norm(norm), &ins)[i].clone());
            let gradient = Op::Backward(Backward::Norm(norm));
            assert_within(&device, &gradient, &[x(&shape, 2), ins[0].clone(), mean, rstd]);
        }
    }
}

#[test]
fn convolutions_across_tiles_and_their_gradients_are_within_their_bounds() {
    let device = device();
    let conv = Conv2d { stride: [1, 1], padding: [0, 1], dilation: [1, 1], groups: 1 };
    // A tile has 64 pixels and 64 channels, 16 places deep; gradients turn these round.
    for (i, &m) in edges(64).iter().enumerate() {
        let n = edges(64)[(i + 1) % 3];
        let inputs = [5, 6, 12][i];
        let (image, weight) = (x(&[1, inputs, 1, m], 1), x(&[n, inputs, 1, 3], 2));
        let g = x(&[1, n, 1, m], 3);
        assert_within(&device, &Op::Conv2d(conv, Epilogue::default()), &[image.clone(), weight.clone()]);
        let by_input = Backward::Conv2dInput { conv, shape: *image.shape() };
        assert_within(&device, &Op::Backward(by_input), &[g.clone(), weight.clone()]);
        let by_weight = Backward::Conv2dWeight { conv, shape: *weight.shape() };
        assert_within(&device, &Op::Backward(by_weight), &[g, image]);
    }
}

#[test]
fn attention_across_warps_is_within_its_bounds() {
    let device = device();
    // A warp takes 32 keys at a time, and 32 features; blocks of more than 256 features share a head.
    for [t, s, d, e] in [[31, 32, 67, 31], [32, 67, 31, 32], [67, 31, 32, 67], [3, 33, 4, 259], [3, 5, 259, 4]] {
        for causal in [false, true] {
            let attention = Attention { causal, ..Attention::default() };
            let ins = [x(&[1, t, d], 1), x(&[1, s, d], 2), x(&[1, s, e], 3)];
            assert_within(&device, &Op::Attention(attention), &ins);
            let forward = saved(&Op::Attention(attention), &ins);
            let gradient = Op::Backward(Backward::Attention { attention, joined: false });
            assert_within(&device, &gradient, &[&[x(&[1, t, e], 4)], &ins[..], &forward[..]].concat());
        }
    }
}

#[test]
fn products_of_8_bit_integers_across_tiles_and_chains_are_exact() {
    let device = device();
    let op = Op::QuantisedMatMul(QuantisedMatMul { integer: true, epilogue: Epilogue::default() });
    let integers = |dims: [usize; 2], seed: usize| -> Vec<i64> {
        (0..dims[0] * dims[1]).map(|i| ((i * 7919 + seed * 131) % 255) as i64 - 127).collect()
    };
    for [m, n, k] in [[63, 64, 16], [64, 131, 17], [131, 63, 255], [2, 64, 515], [64, 3, 256]] {
        let (a, b) = (integers([m, k], 1), integers([n, k], 2));
        let host = Device::cpu();
        let of = |values: &[i64], dtype: DType, dims: &[usize]| {
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            let array = Array::from_slice(&host, &values, dims, Class::Weights).unwrap();
            array.cast(dtype, Class::Weights).unwrap()
        };
        let ins = [
            of(&a, DType::F32, &[m, k]),
            of(&b, DType::I8, &[n, k]),
            of(&vec![1; n], DType::F32, &[n]),
            of(&[1], DType::F32, &[]),
        ];
        let ins = all_there(&device, &ins).unwrap();
        let found = outs(&op, &ins, &device, DType::F32).unwrap()[0].to_vec::<f32>().unwrap();
        let exact = |at: usize| (0..k).map(|l| a[at / n * k + l] * b[at % n * k + l]).sum::<i64>() as f32;
        assert!(found.iter().enumerate().all(|(at, &v)| v == exact(at)), "{m} × {n} × {k}");
    }
}

#[test]
fn embeddings_across_warps_add_up_in_order() {
    let device = device();
    // A warp looks at 32 indices at a time, and has 128 features.
    for (indices, features) in edges(32).into_iter().zip(edges(128)) {
        let op = Op::Backward(Backward::Embedding { rows: 7 });
        assert_within(&device, &op, &[x(&[indices, features], 1), index(indices, 7)]);
    }
}

#[test]
fn elements_windows_and_losses_across_blocks_are_within_their_bounds() {
    let device = device();
    // A block has 256 threads with an element each; sums of losses have blocks of 1,024.
    for n in edges(256) {
        assert_within(&device, &Op::Binary(Binary::Div), &[x(&[n], 1), x(&[n], 2)]);
        assert_within(&device, &Op::Dropout { p: 0.3, key: Key::new(1, 2) }, &[x(&[n], 1)]);
        let pool = Pool::new(PoolKind::Max, [1, 3], [1, 1], [0, 1]);
        let image = x(&[1, 1, 1, n], 1);
        assert_within(&device, &Op::Pool(pool), std::slice::from_ref(&image));
        let gradient = Op::Backward(Backward::Pool { pool, shape: *image.shape() });
        assert_within(&device, &gradient, &[x(&[1, 1, 1, n], 2), image]);
        assert_within(&device, &Op::Gather { dim: 0 }, &[x(&[7], 1), index(n, 7)]);
        let kind = Scatter::Add;
        assert_within(&device, &Op::Scatter { kind, dim: 0 }, &[x(&[n], 1), index(9, n), x(&[9], 2)]);
    }
    for n in edges(1024).into_iter().chain([16 * 1024 + 3]) {
        for reduction in [Reduction::Mean, Reduction::Sum] {
            let op = Op::Loss { loss: Loss::Mse, parameter: 0.0, reduction };
            assert_within(&device, &op, &[x(&[n], 1), x(&[n], 2)]);
        }
    }
}
