//! Operands at the edges of what kernels tell apart: special values, ties, sizes across those of a warp or a block.

use binade_cuda::interpreted;
use binade_tensor::op::{Attention, Backward, Conv2d, Epilogue};
use binade_tensor::samples::catalogue;
use binade_tensor::{Array, Class, DType, Device, Op};

use crate::{bits, registry};

fn floats(values: &[f32], dims: &[usize]) -> Result<Array, String> {
    Array::from_slice(&Device::cpu(), values, dims, Class::Activations).map_err(|e| e.to_string())
}

/// Whether comparisons and functions of two have the CPU's bits for all pairs of special values.
pub fn pairs(device: &Device) -> Result<(), String> {
    const VALUES: [f32; 18] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        0.5,
        3.0,
        -3.0,
        1e30,
        1e-30,
        f32::MIN_POSITIVE,
        1e-40,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    let n = VALUES.len();
    let left: Vec<f32> = (0..n * n).map(|i| VALUES[i / n]).collect();
    let right: Vec<f32> = (0..n * n).map(|i| VALUES[i % n]).collect();
    let ins = [floats(&left, &[n, n])?, floats(&right, &[n, n])?];
    let mut seen = Vec::new();
    for op in catalogue().into_iter().filter(|op| matches!(op, Op::Compare(_) | Op::Binary(_))) {
        if !seen.contains(&op) {
            bits::same(&op, &ins, device, DType::F32)?;
            seen.push(op);
        }
    }
    Ok(())
}

/// Whether the first of equal elements is found, and NaN before all.
pub fn ties(device: &Device) -> Result<(), String> {
    for (n, nan) in [(1, false), (16, false), (33, false), (70, false), (70, true)] {
        let value = |i: usize| if nan && i % 29 == 28 { f32::NAN } else { (i * 7 % 3) as f32 };
        let x = floats(&(0..3 * n).map(value).collect::<Vec<_>>(), &[3, n])?;
        let op = Op::ArgMax { dim: 1, keepdim: false };
        bits::same(&op, std::slice::from_ref(&x), device, DType::F32)?;
    }
    Ok(())
}

/// Whether casts round every tie to even, and what lies beside it to the nearest.
pub fn casts(device: &Device) -> Result<(), String> {
    // The lower halves: ties of bf16, and of f16, with their neighbours.
    let low = [0u32, 0x7fff, 0x8000, 0x8001, 0x0fff, 0x1000, 0x1001, 0x3000];
    let values: Vec<f32> =
        (0..1 << 16).step_by(7).flat_map(|high: u32| low.map(|low| f32::from_bits(high << 16 | low))).collect();
    let x = floats(&values, &[values.len()])?;
    for dtype in [DType::F16, DType::BF16] {
        bits::same(&Op::Cast(dtype), std::slice::from_ref(&x), device, dtype)?;
    }
    Ok(())
}

/// Whether attention is within its bound where queries do not fill a block, nor keys and features a warp.
pub fn attention(device: &Device) -> Result<(), String> {
    for (t, s, d) in [(1, 1, 1), (5, 31, 32), (6, 33, 33), (67, 67, 3)] {
        let wave = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin()).collect::<Vec<_>>();
        let q = floats(&wave(t * d, 0.37), &[1, 1, t, d])?;
        let (k, v) = (floats(&wave(s * d, 0.71), &[1, 1, s, d])?, floats(&wave(s * d, 0.53), &[1, 1, s, d])?);
        for causal in [false, true] {
            let op = Op::Attention(Attention { causal, ..Attention::default() });
            registry::failure(&op, &[q.clone(), k.clone(), v.clone()], device, DType::F32).map_or(Ok(()), Err)?;
        }
    }
    Ok(())
}

/// Whether convolutions and their gradients are within their bounds by tiles of groups, with steps, padding and taps
/// apart.
pub fn convolutions(device: &Device) -> Result<(), String> {
    let wave = |dims: &[usize], by: f32| {
        floats(&(0..dims.iter().product()).map(|i: usize| (i as f32 * by).sin()).collect::<Vec<_>>(), dims)
    };
    let conv = Conv2d { stride: [1, 2], padding: [2, 1], dilation: [2, 3], groups: 2 };
    let [x, w] = [wave(&[1, 18, 6, 9], 0.37)?, wave(&[20, 9, 3, 2], 0.71)?];
    let g = wave(&[1, 20, 6, 4], 0.53)?;
    let (by_input, by_weight) = (
        Op::Backward(Backward::Conv2dInput { conv, shape: *x.shape() }),
        Op::Backward(Backward::Conv2dWeight { conv, shape: *w.shape() }),
    );
    for (op, ins) in [
        (Op::Conv2d(conv, Epilogue::default()), [x.clone(), w.clone()]),
        (by_input, [g.clone(), w]),
        (by_weight, [g, x]),
    ] {
        registry::failure(&op, &ins, device, DType::F32).map_or(Ok(()), Err)?;
    }
    Ok(())
}

#[test]
fn kernels_keep_to_their_edges() {
    let device = Device::new(interpreted().unwrap());
    for check in [pairs, ties, casts, attention, convolutions] {
        check(&device).unwrap();
    }
}
