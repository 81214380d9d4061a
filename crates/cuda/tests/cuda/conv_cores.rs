//! Convolutions and their gradients on tensor cores, by capability: exact on integers in every geometry, within their
//! bounds at the registry's samples, and what their loops cost.

use binade_cuda::Counters;
use binade_tensor::op::{Backward, Conv2d, Epilogue};
use binade_tensor::{Array, Class, DType, Device, Layout, Op, Shape};

use crate::common::{all_there, outs};
use crate::registry;
use crate::tensor_cores::{formats, of};

/// An image or a weight of integers of -3 … 3, with channels side by side or as it is written.
fn integers(dims: [usize; 4], channels_last: bool, seed: usize) -> Array {
    let count: usize = dims.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919 + seed * 131 + i / 7 % 11) % 7) as f32 - 3.0).collect();
    let array = Array::from_slice(&Device::cpu(), &values, &[count], Class::Activations).unwrap();
    let shape = Shape::new(&dims).unwrap();
    array.with_layout(if channels_last { Layout::channels_last(shape) } else { Layout::contiguous(shape) }).unwrap()
}

/// A convolution, its image and its weight.
type Case = (Conv2d, [usize; 4], [usize; 4]);

fn case(stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], groups: usize) -> Conv2d {
    Conv2d { stride, padding, dilation, groups }
}

/// Extents of less than a tile and more than one, of both tiles; steps, padding, taps apart, groups, channels that are
/// no chunks, and more pixels than a split has.
fn cases() -> Vec<Case> {
    vec![
        (case([1, 1], [1, 1], [1, 1], 1), [2, 16, 9, 7], [24, 16, 3, 3]),
        (case([1, 1], [0, 0], [1, 1], 1), [2, 40, 5, 6], [72, 40, 1, 1]),
        (case([2, 3], [2, 1], [2, 1], 1), [1, 24, 11, 10], [40, 24, 3, 2]),
        (case([2, 1], [1, 4], [3, 2], 2), [2, 32, 8, 6], [48, 16, 3, 3]),
        (case([2, 2], [2, 0], [1, 1], 1), [2, 3, 12, 10], [17, 3, 5, 3]),
        (case([1, 1], [0, 1], [1, 1], 1), [1, 136, 8, 13], [131, 136, 1, 3]),
        (case([1, 1], [0, 0], [1, 1], 1), [2, 8, 40, 40], [8, 8, 1, 1]),
    ]
}

/// Pixels and channels of one less than a tile, as many, and twice as many and three, of a tile of each size.
fn edges(tile: usize) -> Vec<Case> {
    let [below, tile, above] = [tile - 1, tile, 2 * tile + 3];
    let conv = case([1, 1], [0, 1], [1, 1], 1);
    [(below, tile, 8), (tile, above, 32), (above, below, 40)]
        .map(|(pixels, outputs, inputs)| (conv, [1, inputs, 1, pixels], [outputs, inputs, 1, 3]))
        .to_vec()
}

/// A convolution and its gradients with operands of one format, which are exact in it and whose sums are in f32.
fn contractions((conv, x, w): &Case, channels_last: bool) -> [(Op, Vec<Array>); 3] {
    let (image, weight) = (integers(*x, channels_last, 1), integers(*w, false, 2));
    let bias: Vec<f32> = (0..w[0]).map(|i| (i % 11) as f32).collect();
    let bias = Array::from_slice(&Device::cpu(), &bias, &[w[0]], Class::Activations).unwrap();
    let forward = Op::Conv2d(*conv, Epilogue { bias: true, act: None });
    let ins = vec![image.clone(), weight.clone(), bias];
    let y = *outs(&forward, &ins, &Device::cpu(), DType::F32).unwrap()[0].shape();
    let g = integers([y[0], y[1], y[2], y[3]], channels_last, 3);
    let by_input = Op::Backward(Backward::Conv2dInput { conv: *conv, shape: *image.shape() });
    let by_weight = Op::Backward(Backward::Conv2dWeight { conv: *conv, shape: *weight.shape() });
    [(forward, ins), (by_input, vec![g.clone(), weight]), (by_weight, vec![g, image])]
}

/// Whether a contraction of integers is that of the CPU in f32, which is exact.
fn exact(device: &Device, dtype: DType, op: &Op, ins: &[Array]) -> Result<(), String> {
    let told = |e: binade_tensor::Error| format!("{op:?} {dtype}: {e}");
    let wanted = outs(op, ins, &Device::cpu(), DType::F32).and_then(|y| y[0].to_vec::<f32>()).map_err(told)?;
    let narrow = |array: &Array| array.cast(dtype, Class::Activations);
    let there = ins.iter().map(narrow).collect::<Result<Vec<_>, _>>().and_then(|ins| all_there(device, &ins));
    let found = outs(op, &there.map_err(told)?, device, DType::F32).and_then(|y| y[0].to_vec::<f32>()).map_err(told)?;
    let differs = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
    let shapes: Vec<_> = ins.iter().map(|a| *a.shape()).collect();
    differs.map_or(Ok(()), |at| {
        Err(format!("{op:?} {dtype} of {shapes:?}, element {at}: {}, exact {}", found[at], wanted[at]))
    })
}

/// Whether convolutions and gradients of every geometry are exact; for faults in the kernels.
pub fn convolutions(device: &Device) -> Result<(), String> {
    for case in &cases()[..5] {
        for (op, ins) in contractions(case, true) {
            exact(device, DType::F16, &op, &ins)?;
        }
    }
    cases()[5..]
        .iter()
        .flat_map(|case| contractions(case, true))
        .try_for_each(|(op, ins)| exact(device, DType::BF16, &op, &ins))
}

fn check_capability(capability: u32) {
    let (device, interpreter) = of(capability);
    let edges = if capability < 80 { edges(64) } else { [edges(64), edges(128)].concat() };
    for (at, case) in cases().iter().chain(&edges).enumerate() {
        for (op, ins) in contractions(case, at % 2 == 0) {
            for &dtype in formats(capability) {
                let before = interpreter.executed().1.tensor_operations;
                exact(&device, dtype, &op, &ins).unwrap();
                // A tile of a gradient by 3 channels would be mostly empty.
                let narrow = matches!(&op, Op::Backward(Backward::Conv2dInput { shape, .. }) if shape[1] < 8);
                assert_eq!(interpreter.executed().1.tensor_operations > before, !narrow, "{op:?} {dtype}");
            }
        }
    }
}

#[test]
fn convolutions_and_gradients_are_exact_on_capability_7_5() {
    check_capability(75);
}

#[test]
fn convolutions_and_gradients_are_exact_on_capability_8_0() {
    check_capability(80);
}

/// Geometries that are drawn: `BINADE_DRAWN` asks for more.
const DRAWN: u64 = 6;

#[test]
fn convolutions_of_drawn_geometries_are_exact() {
    let drawn = std::env::var("BINADE_DRAWN").ok().and_then(|n| n.parse().ok()).unwrap_or(DRAWN);
    let devices = [75, 80].map(|capability| of(capability).0);
    for seed in 0..drawn {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |from: usize, to: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            from + (state >> 33) as usize % (to - from + 1)
        };
        let groups = draw(1, 3);
        let channels = |n: usize| if groups > 1 { 8 * n.div_ceil(16) } else { n };
        let (inputs, outputs) = (channels(draw(1, 40)), channels(draw(8, 40)));
        let kernel = [draw(1, 4), draw(1, 4)];
        let conv = case([draw(1, 4), draw(1, 3)], [draw(0, 3), draw(0, 3)], [draw(1, 3), draw(1, 3)], groups);
        // At least as large as what a weight reaches.
        let [height, width] = [0, 1].map(|d| (kernel[d] - 1) * conv.dilation[d] + draw(1, 9));
        let (x, w) = ([draw(1, 3), groups * inputs, height, width], [groups * outputs, inputs, kernel[0], kernel[1]]);
        let (last, cut) = (draw(0, 1) == 1, draw(0, 2));
        for (op, mut ins) in contractions(&(conv, x, w), last) {
            // Images may be parts of larger ones.
            if let Some(image) = ins.iter_mut().find(|array| **array.shape() == x && cut > 0) {
                let larger = integers([x[0], x[1], x[2] + cut, x[3] + 2], last, 5);
                let part = larger.layout().narrow(2, cut, x[2]).narrow(3, 1, x[3]);
                *image = larger.with_layout(part).unwrap();
            }
            for device in &devices {
                exact(device, DType::F16, &op, &ins).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
            }
        }
    }
}

#[test]
fn samples_of_convolutions_are_within_their_bounds_on_7_5_and_9_0() {
    for capability in [75, 90] {
        let (device, interpreter) = of(capability);
        let names = ["conv2d", "conv_transpose2d", "conv2d_input_backward", "conv2d_weight_backward"];
        registry::bounds(&device, &names).unwrap();
        assert!(interpreter.executed().1.tensor_operations > 0, "{capability}");
    }
}

#[test]
fn convolutions_that_tensor_cores_do_not_take_are_computed_without_them() {
    let cases = [
        // Groups of 4 channels, a group for each channel, and few output channels.
        (case([1, 1], [0, 0], [1, 1], 2), [1, 8, 5, 5], [16, 4, 1, 1]),
        (case([1, 1], [1, 1], [1, 1], 16), [1, 16, 5, 5], [16, 1, 3, 3]),
        (case([1, 1], [0, 0], [1, 1], 1), [1, 16, 5, 5], [3, 16, 1, 1]),
    ];
    let (device, interpreter) = of(80);
    for case in &cases {
        let (op, ins) = &contractions(case, true)[0];
        exact(&device, DType::F16, op, ins).unwrap();
        assert_eq!(interpreter.executed().1.tensor_operations, 0, "{op:?}");
    }
    let (device, interpreter) = of(75);
    let (op, ins) = &contractions(&self::cases()[0], true)[0];
    exact(&device, DType::BF16, op, ins).unwrap();
    assert_eq!(interpreter.executed().1.tensor_operations, 0, "bf16 on 7.5");
}

/// What an operator costs.
fn counted(capability: u32, op: &Op, ins: &[Array]) -> Counters {
    let (device, interpreter) = of(capability);
    let narrow = |array: &Array| array.cast(DType::F16, Class::Activations).unwrap();
    let ins = all_there(&device, &ins.iter().map(narrow).collect::<Vec<_>>()).unwrap();
    let before = interpreter.executed().1;
    outs(op, &ins, &device, DType::F16).unwrap();
    let mut counters = interpreter.executed().1;
    counters.sectors_read -= before.sectors_read;
    counters.sectors_written -= before.sectors_written;
    counters.bank_conflicts -= before.bank_conflicts;
    counters
}

#[test]
fn tiles_of_convolutions_are_read_once_to_a_block_and_without_conflicts_of_banks() {
    for (capability, tile, channels) in [(75, 64, 64), (80, 64, 64), (80, 128, 128)] {
        // Weights of one tap lie as they are read.
        let conv = Conv2d::default();
        let case = (conv, [1, channels, 16, 32], [channels, channels, 1, 1]);
        let [with_bias, by_input, by_weight] = contractions(&case, true);
        let forward = (Op::Conv2d(conv, Epilogue::default()), with_bias.1[..2].to_vec());
        let (m, n) = (16 * 32, channels);
        let blocks = (m / tile) * (n / tile);
        let sectors = |elements: usize| (2 * elements / 32) as f64;
        let counters = counted(capability, &forward.0, &forward.1);
        let read = sectors(blocks * 2 * tile * channels);
        assert_eq!(counters.bank_conflicts, 0, "{capability} {tile}");
        assert!(counters.sectors_read as f64 <= 1.05 * read, "{capability} {tile}: {counters:?}, ideal {read}");
        assert_eq!(counters.sectors_written as f64, sectors(m * n), "{capability} {tile}");
        for (op, ins) in [by_input, by_weight] {
            assert_eq!(counted(capability, &op, &ins).bank_conflicts, 0, "{capability} {tile} {op:?}");
        }
    }
}
