//! Products on tensor cores, by capability: every layout, extents across tiles and stages, what they do not take, and
//! what their loops cost.

use binade_cuda::{Counters, Cuda, Interpreted};
use binade_tensor::op::{Epilogue, MatMul, Unary};
use binade_tensor::{Array, Class, DType, Device, Layout, Op, Shape};

use crate::common::{all_there, outs};
use crate::registry;

/// A device with its interpreter.
pub fn of(capability: u32) -> (Device, Interpreted) {
    let interpreter = Interpreted::of(capability).unwrap();
    (Device::new(Cuda::new(interpreter.clone()).unwrap()), interpreter)
}

/// The formats that a capability's tensor cores have.
pub fn formats(capability: u32) -> &'static [DType] {
    if capability < 80 { &[DType::F16] } else { &[DType::F16, DType::BF16] }
}

/// The integer at a place, of -4 … 4: sums of products are exact in f32, and in 16 bit up to 256.
fn integer(row: usize, column: usize, seed: usize) -> i64 {
    ((row * 7919 + column * 104_729 + seed * 131 + row * column % 11) % 9) as i64 - 4
}

/// A matrix of integers whose lines, of columns or else of rows, are longer by `more` elements than the next multiple
/// of 8. Behind the elements of a line there are NaN.
fn matrix(dtype: DType, [rows, columns]: [usize; 2], by_rows: bool, more: usize, seed: usize) -> Array {
    let (lines, length) = if by_rows { (rows, columns) } else { (columns, rows) };
    let line = length.next_multiple_of(8) + more;
    let mut values = vec![f32::NAN; lines * line];
    for i in 0..rows {
        for j in 0..columns {
            values[if by_rows { i * line + j } else { j * line + i }] = integer(i, j, seed) as f32;
        }
    }
    let strides = if by_rows { [line, 1] } else { [1, line] };
    let layout =
        Layout { shape: Shape::new(&[rows, columns]).unwrap(), strides: Shape::new(&strides).unwrap(), offset: 0 };
    let all = Array::from_slice(&Device::cpu(), &values, &[lines * line], Class::Activations).unwrap();
    all.cast(dtype, Class::Activations).unwrap().with_layout(layout).unwrap()
}

/// Whether the product of two such matrices is what it is in integers.
fn exact(device: &Device, dtype: DType, [m, n, k]: [usize; 3], by_rows: [bool; 2], more: usize) -> Result<(), String> {
    let ins = [matrix(dtype, [m, k], by_rows[0], more, 1), matrix(dtype, [k, n], by_rows[1], more, 2)];
    let told = |e: binade_tensor::Error| format!("{m} × {n} × {k}, {dtype}, {by_rows:?}: {e}");
    let ins = all_there(device, &ins).map_err(told)?;
    let found = outs(&Op::MatMul(MatMul::default()), &ins, device, DType::F32).map_err(told)?;
    let found = found[0].to_vec::<f32>().map_err(told)?;
    for (at, &v) in found.iter().enumerate() {
        let (i, j) = (at / n, at % n);
        let wanted: i64 = (0..k).map(|l| integer(i, l, 1) * integer(l, j, 2)).sum();
        if v != wanted as f32 {
            return Err(format!("{m} × {n} × {k}, {dtype}, {by_rows:?}, ({i}, {j}): {v}, exact {wanted}"));
        }
    }
    Ok(())
}

const LAYOUTS: [[bool; 2]; 4] = [[true, true], [true, false], [false, true], [false, false]];

/// Extents of less than a tile, a tile, and two and a part, of both tiles; inner ones of a part of a stage, of all
/// stages and more, and across a split.
const EXTENTS: [[usize; 3]; 8] =
    [[1, 1, 1], [7, 9, 31], [63, 64, 33], [64, 65, 96], [131, 63, 131], [127, 128, 97], [128, 259, 64], [97, 129, 291]];

/// Whether products of some extents are exact, in every layout; for faults in the kernels.
pub fn products(device: &Device) -> Result<(), String> {
    for by_rows in LAYOUTS {
        exact(device, DType::F16, [63, 67, 131], by_rows, 0)?;
        exact(device, DType::F16, [9, 20, 291], by_rows, 0)?;
        exact(device, DType::BF16, [97, 97, 131], by_rows, 0)?;
    }
    Ok(())
}

fn check_capability(capability: u32) {
    let (device, interpreter) = of(capability);
    for (at, extents) in EXTENTS.into_iter().enumerate() {
        for by_rows in LAYOUTS {
            for &dtype in formats(capability) {
                let before = interpreter.executed().1.tensor_operations;
                exact(&device, dtype, extents, by_rows, if at % 2 == 0 { 0 } else { 8 }).unwrap();
                assert!(interpreter.executed().1.tensor_operations > before, "{extents:?} {dtype}");
            }
        }
    }
}

#[test]
fn products_are_exact_in_every_layout_on_capability_7_5() {
    check_capability(75);
}

#[test]
fn products_are_exact_in_every_layout_on_capability_8_0() {
    check_capability(80);
}

#[test]
fn newer_capabilities_take_the_code_of_8_0() {
    for capability in [86, 89, 90, 100, 120] {
        let (device, interpreter) = of(capability);
        exact(&device, DType::BF16, [64, 72, 104], [true, false], 0).unwrap();
        assert!(interpreter.executed().1.tensor_operations > 0, "{capability}");
    }
    assert!(Interpreted::of(70).unwrap_err().to_string().contains("7.0"));
}

/// Waves, whose products need rounding.
fn wave(dtype: DType, dims: &[usize], pace: f32) -> Array {
    let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i as f32 * pace).sin()).collect();
    Array::from_slice(&Device::cpu(), &values, dims, Class::Activations)
        .unwrap()
        .cast(dtype, Class::Activations)
        .unwrap()
}

#[test]
fn batches_epilogues_and_long_sums_are_within_their_bounds() {
    for capability in [75, 80, 90] {
        let (device, interpreter) = of(capability);
        for &dtype in formats(capability) {
            let x = |dims: &[usize], pace| wave(dtype, dims, pace);
            let plain = MatMul::plain;
            let (bias, relu, gelu) = (
                Epilogue { bias: true, act: None },
                Epilogue { bias: true, act: Some(Unary::Relu) },
                Epilogue { bias: false, act: Some(Unary::GeluTanh) },
            );
            let cases = [
                (plain(Epilogue::default()), vec![x(&[72, 1032], 0.37), x(&[1032, 40], 0.71)]),
                (plain(Epilogue::default()), vec![x(&[2, 3, 24, 40], 0.37), x(&[3, 40, 16], 0.71)]),
                (plain(Epilogue::default()), vec![x(&[3, 1, 24, 40], 0.37), x(&[5, 40, 16], 0.71)]),
                (plain(bias), vec![x(&[33, 72], 0.37), x(&[72, 136], 0.71), x(&[136], 0.53)]),
                (plain(relu), vec![x(&[130, 72], 0.37), x(&[72, 136], 0.71), x(&[136], 0.53)]),
                (plain(gelu), vec![x(&[130, 72], 0.37), x(&[72, 136], 0.71)]),
                (MatMul::of_left(Unary::Silu, true), vec![x(&[24, 72], 0.37), x(&[72, 24], 0.71), x(&[24], 0.53)]),
                (MatMul::of_right(None, true), vec![x(&[24, 72], 0.37), x(&[72, 24], 0.71)]),
            ];
            for (product, ins) in cases {
                let before = interpreter.executed().1.tensor_operations;
                assert_eq!(registry::failure(&Op::MatMul(product), &ins, &device, dtype), None, "{capability}");
                assert!(interpreter.executed().1.tensor_operations > before, "{product:?} {dtype}");
            }
        }
    }
}

#[test]
fn operands_that_tensor_cores_do_not_take_are_multiplied_without_them() {
    let (f16, bf16, f32) = (DType::F16, DType::BF16, DType::F32);
    let dense = |dtype, dims| wave(dtype, dims, 0.37);
    let whole = matrix(f16, [24, 16], true, 0, 1);
    let apart = whole.with_layout(whole.layout().narrow(1, 4, 8)).unwrap();
    let cases = [
        // Lines of 9 elements, and of 36 bytes.
        (80, [dense(f16, &[16, 9]), dense(f16, &[9, 16])]),
        (80, [dense(f16, &[16, 16]), dense(f16, &[16, 18])]),
        // A first element at 8 bytes.
        (80, [apart, dense(f16, &[8, 16])]),
        (80, [dense(f16, &[16, 16]), dense(bf16, &[16, 16])]),
        (80, [dense(f32, &[16, 16]), dense(f16, &[16, 16])]),
        (80, [dense(f32, &[16, 16]), dense(f32, &[16, 16])]),
        (75, [dense(bf16, &[16, 16]), dense(bf16, &[16, 16])]),
    ];
    for (capability, ins) in cases {
        let (device, interpreter) = of(capability);
        let op = Op::MatMul(MatMul::default());
        assert_eq!(registry::failure(&op, &ins, &device, f16), None);
        let told: Vec<_> = ins.iter().map(|a| (a.dtype(), *a.layout())).collect();
        assert_eq!(interpreter.executed().1.tensor_operations, 0, "{told:?}");
    }
}

/// What a product of two such matrices costs.
fn counted(capability: u32, [m, n, k]: [usize; 3], by_rows: [bool; 2]) -> Counters {
    let (device, interpreter) = of(capability);
    let ins = [matrix(DType::F16, [m, k], by_rows[0], 0, 1), matrix(DType::F16, [k, n], by_rows[1], 0, 2)];
    let ins = all_there(&device, &ins).unwrap();
    let before = interpreter.executed();
    outs(&Op::MatMul(MatMul::default()), &ins, &device, DType::F16).unwrap();
    let after = interpreter.executed();
    assert_eq!(after.0 - before.0, 1, "one kernel, without splits");
    let mut counters = after.1;
    counters.sectors_read -= before.1.sectors_read;
    counters.sectors_written -= before.1.sectors_written;
    counters.bank_conflicts -= before.1.bank_conflicts;
    counters
}

#[test]
fn tiles_are_read_once_to_a_block_and_without_conflicts_of_banks() {
    for (capability, tile) in [(75, 64), (80, 128), (80, 64)] {
        let [m, n, k] = if tile == 128 { [128, 256, 160] } else { [64, 128, 160] };
        for by_rows in LAYOUTS {
            let counters = counted(capability, [m, n, k], by_rows);
            let blocks = (m / tile) * (n / tile);
            let sectors = |bytes: usize| (bytes / 32) as f64;
            // A block reads its rows of A and its columns of B, 2 bytes an element.
            let read = sectors(2 * blocks * 2 * tile * k);
            assert_eq!(counters.bank_conflicts, 0, "{capability} {tile} {by_rows:?}");
            assert!(counters.sectors_read as f64 <= 1.05 * read, "{capability} {tile} {by_rows:?}: {counters:?}");
            assert_eq!(counters.sectors_written as f64, sectors(2 * m * n), "{capability} {tile} {by_rows:?}");
            assert_eq!(counters.tensor_operations, (m * n * k) as u64, "{capability} {tile}");
        }
    }
}
