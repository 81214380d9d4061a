//! Products and convolutions at extents where kernels change their way: few rows, long sums, many columns, blocks that end inside an
//! image. At every instruction set, in both layouts, against the naive f64 reference.

use binade_tensor::cpu::Cpu;
use binade_tensor::op::{Backward, Conv2d, Epilogue, Unary};
use binade_tensor::simd::Isa;
use binade_tensor::testing::assert_op;
use binade_tensor::{Array, Class, DType, Device, Op, Shape};

fn array(device: &Device, dims: &[usize], dtype: DType) -> Array {
    let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| ((i * 7919 % 1009) as f32 * 0.37).sin()).collect();
    Array::from_slice(device, &values, dims, Class::Activations).unwrap().cast(dtype, Class::Activations).unwrap()
}

/// Logical `dims`, with the dimensions in memory in the order `order`.
fn permuted(device: &Device, dims: &[usize], order: &[usize], dtype: DType) -> Array {
    let memory: Vec<usize> = order.iter().map(|&d| dims[d]).collect();
    let mut axes = vec![0; dims.len()];
    order.iter().enumerate().for_each(|(at, &d)| axes[d] = at);
    let array = array(device, &memory, dtype);
    let layout = array.layout().permute(&axes);
    array.with_layout(layout).unwrap()
}

fn each_device(f: impl Fn(&Device, &str)) {
    for isa in Isa::available() {
        println!("kernels of {} run", isa.name());
        f(&Device::new(Cpu::with_isa(isa)), isa.name());
    }
}

#[test]
fn products_at_every_turn_of_the_kernels() {
    let shapes = [
        (1, 1030, 70),
        (3, 2050, 130),
        (8, 64, 600),
        (9, 300, 257),
        (63, 300, 300),
        (70, 1100, 200),
        (100, 520, 33),
        (200, 40, 800),
        (300, 5, 7),
    ];
    each_device(|device, isa| {
        for (m, k, n) in shapes {
            for (a_order, b_order) in [([0, 1], [0, 1]), ([1, 0], [1, 0]), ([0, 1], [1, 0])] {
                let ins = [permuted(device, &[m, k], &a_order, DType::F32), permuted(device, &[k, n], &b_order, DType::F16)];
                for dtype in [DType::F32, DType::BF16] {
                    let op = Op::MatMul(Epilogue::default());
                    assert_op(&op, &ins, device, dtype).unwrap_or_else(|e| panic!("{isa} {m}×{k}×{n} {dtype}: {e}"));
                }
            }
            let bias = array(device, &[n], DType::F32);
            let ins = [array(device, &[m, k], DType::F16), array(device, &[k, n], DType::F32), bias];
            let op = Op::MatMul(Epilogue { bias: true, act: Some(Unary::Relu) });
            assert_op(&op, &ins, device, DType::F32).unwrap_or_else(|e| panic!("{isa} {m}×{k}×{n} with bias: {e}"));
        }
        for (batch, m, k, n) in [(5, 40, 33, 47), (3, 100, 300, 65)] {
            let ins = [array(device, &[batch, m, k], DType::F32), array(device, &[batch, k, n], DType::F32)];
            let op = Op::MatMul(Epilogue::default());
            assert_op(&op, &ins, device, DType::F32).unwrap_or_else(|e| panic!("{isa} batch of {m}×{k}×{n}: {e}"));
        }
    });
}

#[test]
fn convolutions_at_every_turn_of_the_kernels() {
    // Batch, channels in and out, height, width, kernel, stride, padding, dilation, groups.
    let cases = [
        ([3, 3, 20, 19, 23], [3, 1, 1, 1, 1]),
        ([2, 40, 35, 17, 13], [3, 1, 1, 1, 1]),
        ([2, 70, 33, 9, 11], [1, 1, 0, 1, 1]),
        ([3, 17, 34, 15, 16], [3, 2, 1, 1, 1]),
        ([2, 20, 9, 16, 15], [1, 2, 0, 1, 1]),
        ([2, 18, 21, 14, 17], [5, 3, 2, 1, 1]),
        ([2, 24, 12, 19, 12], [3, 1, 2, 2, 1]),
        ([2, 24, 36, 9, 10], [3, 1, 1, 1, 3]),
        ([2, 37, 37, 13, 12], [3, 1, 1, 1, 37]),
        ([2, 20, 20, 13, 12], [5, 2, 2, 1, 20]),
        ([9, 33, 40, 4, 4], [3, 1, 1, 1, 1]),
    ];
    each_device(|device, isa| {
        for ([n, c, o, h, w], [kernel, stride, padding, dilation, groups]) in cases {
            let conv = Conv2d { stride: [stride; 2], padding: [padding; 2], dilation: [dilation; 2], groups };
            let out = |x: usize| (x + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
            let (xs, ws, ys) = ([n, c, h, w], [o, c / groups, kernel, kernel], [n, o, out(h), out(w)]);
            for (order, dtype) in [([0, 2, 3, 1], DType::F32), ([0, 1, 2, 3], DType::F16)] {
                let (x, g) = (permuted(device, &xs, &order, dtype), permuted(device, &ys, &order, dtype));
                let weight = array(device, &ws, dtype);
                let bias = array(device, &[o], DType::F32);
                let shape = |dims: &[usize]| Shape::new(dims).unwrap();
                let ops = [
                    (Op::Conv2d(conv, Epilogue::default()), vec![x.clone(), weight.clone()]),
                    (Op::Conv2d(conv, Epilogue { bias: true, act: None }), vec![x.clone(), weight.clone(), bias]),
                    (Op::Backward(Backward::Conv2dInput { conv, shape: shape(&xs) }), vec![g.clone(), weight]),
                    (Op::Backward(Backward::Conv2dWeight { conv, shape: shape(&ws) }), vec![g, x]),
                ];
                for (op, ins) in ops {
                    let context = || format!("{isa} {} {xs:?} {ws:?} {conv:?} {dtype}", op.name());
                    assert_op(&op, &ins, device, DType::F32).unwrap_or_else(|e| panic!("{}: {e}", context()));
                }
            }
        }
    });
}
