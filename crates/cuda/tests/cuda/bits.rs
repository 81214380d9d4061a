//! Where the device has the CPU's bits at AVX2, and not only its bounds.

use binade_cpu::{Cpu, Isa};
use binade_cuda::interpreted;
use binade_tensor::op::{Backward, Binary, Distribution, Loss, MatMul, Reduce, Unary};
use binade_tensor::{Array, Class, DType, Device, Key, Op, Result, Shape};

use crate::common;

/// Rows whose f32 values the CPU looks up: there the device computes, within the bound.
const LOOKED_UP: [Unary; 4] = [Unary::Sigmoid, Unary::Silu, Unary::Gelu, Unary::GeluTanh];

/// Losses whose derivatives are made of sigmoids, which the CPU looks up too.
const SIGMOID_SLOPES: [Loss; 2] = [Loss::BceWithLogits, Loss::SoftMargin];

/// The same of functions of two.
fn has_sigmoid_slope(op: &Op) -> bool {
    let softplus = Binary::Softplus;
    matches!(op, Op::Backward(Backward::Binary { op, .. } | Backward::Scalar { op, .. }) if *op == softplus)
}

fn outs(op: &Op, ins: &[Array], device: &Device, want: DType) -> Result<Vec<Vec<u64>>> {
    common::outs(op, &common::all_there(device, ins)?, device, want)?.iter().map(common::bits).collect()
}

/// Whether a device gives the bits of the CPU at AVX2, if this one has it; what is different, or fails.
pub fn same(op: &Op, ins: &[Array], device: &Device, dtype: DType) -> std::result::Result<(), String> {
    avx2().map_or(Ok(()), |cpu| same_as(op, ins, &cpu, device, dtype))
}

fn same_as(op: &Op, ins: &[Array], cpu: &Device, device: &Device, dtype: DType) -> std::result::Result<(), String> {
    let told = |device: &Device| outs(op, ins, device, dtype).map_err(|e| format!("{op:?} {dtype}: {e}"));
    let shapes = || ins.iter().map(|a| format!("{:?}", &a.shape()[..])).collect::<Vec<_>>().join(", ");
    if told(cpu)? == told(device)? { Ok(()) } else { Err(format!("{op:?} {dtype} of {}: other bits", shapes())) }
}

/// The CPU at the level whose order of sums the device has.
pub fn avx2() -> Option<Device> {
    let isa = Isa::available().into_iter().find(|isa| isa.name() == "avx2")?;
    Some(Device::new(Cpu::with_isa(isa)))
}

/// Whether the device promises the bits of an operator in f32 and bf16.
pub fn is_promised(op: &Op) -> bool {
    let elementwise = matches!(op, Op::Unary(row) if !LOOKED_UP.contains(row))
        || matches!(op, Op::Binary(_) | Op::Scalar { .. } | Op::Ternary { .. } | Op::Compare(_) | Op::Where);
    let sums = matches!(op, Op::Reduce { kind: Reduce::Sum | Reduce::Mean | Reduce::Max | Reduce::Min, .. });
    let moves = matches!(
        op,
        Op::ArgMax { .. } | Op::Scan { .. } | Op::Gather { .. } | Op::Scatter { .. } | Op::Embedding | Op::Cat { .. }
    );
    let draws = matches!(op, Op::Dropout { .. } | Op::StochasticCast { .. } | Op::Random { .. });
    let copies = matches!(op, Op::Fill { .. } | Op::Range { .. } | Op::Cast(_) | Op::Copy);
    let losses = matches!(op, Op::Loss { .. });
    let backward = matches!(
        op,
        Op::Backward(
            Backward::Binary { .. }
                | Backward::Scalar { .. }
                | Backward::Ternary { .. }
                | Backward::Narrow { .. }
                | Backward::Embedding { .. }
                | Backward::Gather { .. }
        )
    );
    let backward = backward && !has_sigmoid_slope(op)
        || matches!(op, Op::Backward(Backward::Loss { loss, .. }) if !SIGMOID_SLOPES.contains(loss))
        || matches!(op, Op::Backward(Backward::Unary(row)) if !LOOKED_UP.contains(row) && *row != Unary::LogSigmoid);
    elementwise
        || sums
        || moves
        || draws
        || copies
        || losses
        || backward
        || is_exact_sum(op)
        || matches!(op, Op::Softmax { .. } | Op::CrossEntropy(_))
}

/// Whether sums are of integers, and what follows is not looked up by the CPU.
fn is_exact_sum(op: &Op) -> bool {
    let act = match op {
        Op::QuantisedMatMul(product) if product.integer => product.epilogue.act,
        Op::QuantisedConv2d(conv) => conv.epilogue.act,
        _ => return false,
    };
    act.is_none_or(|act| !LOOKED_UP.contains(&act))
}

/// Whether operators that promise the CPU's bits have them; the first that do not.
pub fn operators(device: &Device, of: impl Fn(&Op) -> bool) -> std::result::Result<(), String> {
    let Some(cpu) = avx2() else { return Ok(()) };
    let promised: Vec<Op> = common::operators().filter(|op| is_promised(op) && of(op)).collect();
    assert!(!promised.is_empty(), "no such operator promises bits");
    let mut differing = Vec::new();
    for op in &promised {
        for dtype in [DType::F32, DType::BF16] {
            let all = op.samples(&cpu, dtype);
            let differs = all.iter().filter_map(|ins| same_as(op, ins, &cpu, device, dtype).err()).next();
            differing.extend(differs);
        }
    }
    let count = differing.len();
    if count == 0 { Ok(()) } else { Err(format!("{count} operators:\n{}", differing.join("\n"))) }
}

#[test]
fn bits_are_those_of_the_cpu_where_they_are_promised() {
    operators(&Device::new(interpreted().unwrap()), |_| true).unwrap_or_else(|differing| panic!("{differing}"));
}

fn normal(device: &Device, dims: &[usize], stream: u64) -> Array {
    let distribution = Distribution::Normal { mean: 0.0, std: 1.0 };
    let op = Op::Random { distribution, shape: Shape::new(dims).unwrap(), key: Key::new(5, stream) };
    binade_tensor::run_one(&op, &[], device, DType::F32, Class::Activations).unwrap()
}

/// Whether products across the edges of tiles and chains have the bits of the CPU's tiles.
pub fn products(device: &Device) -> std::result::Result<(), String> {
    let Some(cpu) = avx2() else { return Ok(()) };
    // A tile has 64 × 64 results, a chain 256 products; up to 8 rows the CPU adds in another order.
    for [m, n, k] in [[63, 64, 16], [65, 131, 17], [131, 63, 256], [64, 65, 257], [67, 66, 515], [68, 68, 20]] {
        let ins = [normal(&cpu, &[m, k], 1), normal(&cpu, &[k, n], 2)];
        same_as(&Op::MatMul(MatMul::default()), &ins, &cpu, device, DType::F32)?;
    }
    Ok(())
}

#[test]
fn products_across_the_edges_of_tiles_and_chains_have_the_bits_of_the_cpus_tiles() {
    products(&Device::new(interpreted().unwrap())).unwrap();
}

#[test]
fn sixteen_bit_functions_have_the_cpus_results_for_every_code() {
    let (cpu, device) = (Device::cpu(), Device::new(interpreted().unwrap()));
    let codes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    for dtype in [DType::F16, DType::BF16] {
        let x = Array::from_bytes(&cpu, dtype, &codes, &[1 << 16], Class::Activations).unwrap();
        for &row in Unary::ALL {
            same_as(&Op::Unary(row), std::slice::from_ref(&x), &cpu, &device, dtype).unwrap();
        }
    }
}
