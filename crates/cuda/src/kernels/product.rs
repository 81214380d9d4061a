//! Matrix products. Activations are kernels of their own, on f32 that is not rounded in between.

use binade_tensor::op::{MatMul, Reduce, Saved};
use binade_tensor::{DType, Dims, Layout, MAX_RANK, Result, Shape};
use bytemuck::{Pod, Zeroable};

use super::{copy, elementwise, reduce};
use crate::backend::Cuda;
use crate::module::Module;
use crate::view::{View, code};

/// `Matrix` of `product.cu`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Matrix {
    at: u64,
    dtype: u32,
    unused: u32,
    rows: i64,
    columns: i64,
    batches: [i64; MAX_RANK],
}

/// `Product` of `product.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Product {
    fault: u64,
    m: u32,
    n: u32,
    k: u32,
    batch_rank: u32,
    batches: [u32; MAX_RANK],
    splits: u32,
    per_split: u32,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    bias: Matrix,
}

/// Results of a block, in each dimension.
const TILE: usize = 64;
/// Products of a chain: the inner dimension is cut between chains, which are added in order either way.
const CHAIN: usize = 256;
/// With fewer blocks than this a device is idle, and long sums are cut.
const FEW_BLOCKS: usize = 128;

fn matrix(view: &View, batches: &Shape) -> Option<Matrix> {
    let rank = view.shape().rank();
    let lead =
        Layout { shape: view.shape().leading(rank - 2), strides: view.layout.strides.leading(rank - 2), ..view.layout };
    let lead = lead.expand(batches)?;
    let mut matrix = Matrix {
        at: view.at(),
        dtype: code(view.dtype),
        unused: 0,
        rows: view.stride(rank - 2),
        columns: view.stride(rank - 1),
        batches: [0; MAX_RANK],
    };
    matrix.batches.iter_mut().zip(lead.strides.iter()).for_each(|(to, &stride)| *to = stride as i64);
    Some(matrix)
}

/// `a @ b + bias` into `out`.
fn multiply(cuda: &Cuda, op: &'static str, [a, b]: [&View; 2], bias: Option<&View>, out: &View) -> Result<bool> {
    let shape = out.shape();
    if out.numel() == 0 {
        return Ok(true);
    }
    let rank = shape.rank();
    let (batches, m, n) = (shape.leading(rank - 2), shape[rank - 2], shape[rank - 1]);
    let k = a.shape()[a.shape().rank() - 1];
    let (Some(of_a), Some(of_b), Some(of_c)) = (matrix(a, &batches), matrix(b, &batches), matrix(out, &batches)) else {
        return Ok(false);
    };
    let count = batches.numel();
    let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
    let chains = k.div_ceil(CHAIN).max(1);
    let splits = if tiles * count < FEW_BLOCKS { chains } else { 1 };
    if count * splits > 65535 {
        return Ok(false);
    }
    let mut p = Product {
        fault: cuda.fault().address(),
        m: m as u32,
        n: n as u32,
        k: k as u32,
        batch_rank: batches.rank() as u32,
        batches: [1; MAX_RANK],
        splits: splits as u32,
        per_split: if splits > 1 { CHAIN as u32 } else { (k.max(1)) as u32 },
        a: of_a,
        b: of_b,
        c: of_c,
        bias: bias.map_or(Matrix::default(), |bias| Matrix {
            at: bias.at(),
            dtype: code(bias.dtype),
            columns: bias.stride(0),
            ..Matrix::default()
        }),
    };
    p.batches.iter_mut().zip(batches.iter()).for_each(|(to, &extent)| *to = extent as u32);
    let at = (Module::Product, "product");
    if splits == 1 {
        cuda.grid(op, at, [tiles, 1, count], 256, &p);
        return Ok(true);
    }
    let parts = cuda.scratch(4 * splits * count * m * n)?;
    let of_parts = Matrix { at: parts.address(), ..Matrix::default() };
    cuda.grid(op, at, [tiles, 1, count * splits], 256, &Product { c: of_parts, ..p });
    let threads = (m * n).next_multiple_of(32).min(256);
    let sum = Product { a: of_parts, ..p };
    cuda.grid(op, (Module::Product, "sum_of_splits"), [(m * n).div_ceil(threads), count, 1], threads, &sum);
    Ok(true)
}

pub(super) fn matmul(cuda: &Cuda, op: &'static str, product: &MatMul, ins: &[View], outs: &[View]) -> Result<bool> {
    let mut memory = Vec::new();
    let mut operands = [ins[0], ins[1]];
    if let Some(prologue) = product.prologue {
        let x = &mut operands[prologue.operand];
        let layout = Layout::contiguous(*x.shape());
        let activated = cuda.scratch(x.numel() * x.dtype.size())?;
        let to = View::line(activated.address(), x.dtype, layout.shape);
        if !elementwise::unary(cuda, op, prologue.act, &[*x], &to)? {
            return Ok(false);
        }
        *x = to;
        memory.push(activated);
    }
    let [a, b] = &operands;
    let bias = ins.get(2).filter(|_| product.epilogue.bias);
    let out = &outs[0];
    if let Some(act) = product.epilogue.act {
        let layout = Layout { offset: 0, ..out.layout };
        let scratch = cuda.scratch(4 * layout.end())?;
        let before = View::line(scratch.address(), DType::F32, layout.shape).with_layout(layout);
        if !multiply(cuda, op, [a, b], bias, &before)? {
            return Ok(false);
        }
        if act.saved() == Saved::Input {
            copy::cast(cuda, op, &before, &outs[1])?;
        }
        elementwise::unary(cuda, op, act, &[before], out)?;
        return Ok(true);
    }
    if !multiply(cuda, op, [a, b], bias, out)? {
        return Ok(false);
    }
    if product.sums {
        return reduce::reduce(cuda, op, Reduce::Sum, Dims::one(1), &ins[0], &outs[1]);
    }
    Ok(true)
}
