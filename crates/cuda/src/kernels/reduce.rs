//! Reductions, scans and their gradients.

use binade_tensor::op::{Reduce as Kind, Scan};
use binade_tensor::{DType, Dims, Layout, Result, Shape};
use bytemuck::{Pod, Zeroable};

use crate::backend::Cuda;
use crate::module::Module;
use crate::rows::{Axes, Axis, RowOperand, Rows, grid, rows};
use crate::view::View;

/// `Reduce` of `reduce.cu`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Reduce {
    fault: u64,
    kind: u32,
    unused: u32,
    parameter: f64,
    scratch: u64,
    rows: Rows,
    x: RowOperand,
    y: RowOperand,
    g: RowOperand,
    dx: RowOperand,
}

/// `Columns` of `reduce.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Columns {
    fault: u64,
    parts: u64,
    columns: u32,
    rows: u32,
    per_task: u32,
    unused: u32,
    divisor: f64,
    walk: Rows,
    x: RowOperand,
    y: RowOperand,
}

/// Elements of a block of a sum, and of a task, as the CPU adds them.
const BLOCK: usize = 1024;
const TASK: usize = 16 * BLOCK;

/// (number in kernels, parameter)
fn kind(kind: Kind) -> (u32, f64) {
    match kind {
        Kind::Sum => (0, 0.0),
        Kind::Mean => (1, 0.0),
        Kind::Max => (2, 0.0),
        Kind::Min => (3, 0.0),
        Kind::Var { correction } => (4, correction),
        Kind::Std { correction } => (5, correction),
        Kind::Prod => (6, 0.0),
        Kind::LogSumExp => (7, 0.0),
        Kind::Norm { p } => (8, p),
    }
}

/// A reduction of no elements.
fn of_nothing(kind: Kind) -> f64 {
    match kind {
        Kind::Sum => 0.0,
        Kind::Mean | Kind::Var { .. } | Kind::Std { .. } => f64::NAN,
        Kind::Max | Kind::LogSumExp => f64::NEG_INFINITY,
        Kind::Min => f64::INFINITY,
        Kind::Prod => 1.0,
        // The root of a sum of nothing; the smallest magnitude of none.
        Kind::Norm { p } => {
            if p < 0.0 {
                f64::INFINITY
            } else {
                0.0
            }
        }
    }
}

/// The layout of what has one element for each row, in x's shape: stride 0 along reduced dimensions.
fn kept(of: &Layout, shape: &Shape, dims: Dims) -> Layout {
    let mut strides = *shape;
    let mut next = 0;
    for d in 0..shape.rank() {
        let with_all = of.shape.rank() == shape.rank();
        strides[d] = if dims.contains(d) { 0 } else { of.strides[if with_all { d } else { next }] };
        next += usize::from(!dims.contains(d));
    }
    Layout { shape: *shape, strides, offset: of.offset }
}

/// The kept dimensions of layouts, and the reduced ones.
fn split<const N: usize>(layouts: [&Layout; N], dims: Dims) -> (Axes<N>, Axes<N>) {
    let all = || 0..layouts[0].shape.rank();
    let of = |d: usize| Axis::of(layouts, d);
    (all().filter(|&d| !dims.contains(d)).map(of).collect(), all().filter(|&d| dims.contains(d)).map(of).collect())
}

/// Adds up the sums of blocks of one row, divides, and stores.
pub(super) fn total(cuda: &Cuda, op: &'static str, sums: u64, blocks: usize, divisor: f64, out: &View) {
    let parts = View::line(sums, DType::F32, Shape::SCALAR);
    let Some((walk, [y, dx])) = rows([Some(out), Some(&parts)], &[], &[]) else { return };
    let mut walk = walk;
    walk.n = (blocks * BLOCK) as u32;
    let p = Reduce { fault: cuda.fault().address(), parameter: divisor, rows: walk, y, dx, ..Reduce::default() };
    cuda.grid(op, (Module::Reduce, "row_totals"), [1, 1, 1], 32, &p);
}

pub(super) fn reduce(cuda: &Cuda, op: &'static str, of: Kind, dims: Dims, x: &View, out: &View) -> Result<bool> {
    let n = dims.count(x.shape());
    if out.numel() == 0 {
        return Ok(true);
    }
    if x.numel() == 0 {
        return super::copy::fill(cuda, op, of_nothing(of), out);
    }
    if let Kind::Sum | Kind::Mean = of
        && let Some(done) = columns(cuda, op, of, dims, x, out)?
    {
        return Ok(done);
    }
    let y = kept(&out.layout, x.shape(), dims);
    let (outer, inner) = split([&x.layout, &y], dims);
    let Some((walk, [x, y])) = rows([Some(x), Some(out)], &outer, &inner) else { return Ok(false) };
    let (number, parameter) = kind(of);
    let mut p =
        Reduce { fault: cuda.fault().address(), kind: number, parameter, rows: walk, x, y, ..Reduce::default() };
    let count = walk.rows as usize;
    if matches!(of, Kind::Sum | Kind::Mean) && n > BLOCK {
        let blocks = n.div_ceil(BLOCK);
        let sums = cuda.scratch(8 * blocks * count)?;
        let parts = View::line(sums.address(), DType::F32, Shape::SCALAR);
        let Some((_, [dx])) = rows([Some(&parts)], &[], &[]) else { return Ok(false) };
        p.dx = dx;
        p.parameter = if of == Kind::Mean { n as f64 } else { 1.0 };
        let (blocks, threads) = grid(blocks * count);
        cuda.grid(op, (Module::Reduce, "block_sums"), blocks, threads, &p);
        cuda.over(op, (Module::Reduce, "row_totals"), count, &p);
        return Ok(true);
    }
    let (blocks, threads) = grid(count);
    cuda.grid(op, (Module::Reduce, "reduce_rows"), blocks, threads, &p);
    Ok(true)
}

/// Sums where the reduced dimensions lie side by side in memory and kept ones inside them: a thread adds a column, as
/// the CPU adds rows vector by vector. `None` where they lie otherwise.
fn columns(cuda: &Cuda, op: &'static str, of: Kind, dims: Dims, x: &View, out: &View) -> Result<Option<bool>> {
    let shape = x.shape();
    let order: Vec<usize> = x.layout.order().iter().copied().filter(|&d| shape[d] > 1).collect();
    let Some(first) = order.iter().position(|&d| dims.contains(d)) else { return Ok(None) };
    let Some(inside) = order[first..].iter().position(|&d| !dims.contains(d)) else { return Ok(None) };
    let split_at = first + inside;
    let kept_dims = || order[..first].iter().chain(&order[split_at..]);
    let dense = order.last().is_some_and(|&d| x.layout.strides[d] == 1);
    if !dense || kept_dims().any(|&d| dims.contains(d)) || !kept_dims().is_sorted() {
        return Ok(None);
    }
    let columns: usize = order[split_at..].iter().map(|&d| shape[d]).product();
    let (count, n) = (out.numel(), dims.count(shape));
    if count != columns && n * columns < BLOCK {
        return Ok(None);
    }
    let y = kept(&out.layout, shape, dims);
    let (outer, inner) = split([&x.layout, &y], dims);
    // Rows in the order of memory.
    let mut inner = inner;
    inner.sort_by(|a, b| b.strides[0].cmp(&a.strides[0]));
    let Some((walk, [x, y])) = rows([Some(x), Some(out)], &outer, &inner) else { return Ok(None) };
    let wide = columns.clamp(1, 4 * BLOCK);
    let per_task = (TASK / wide).clamp(1, BLOCK);
    let tasks = n.div_ceil(per_task);
    if tasks > super::MOST_BLOCKS {
        return Ok(None);
    }
    let parts = cuda.scratch(4 * tasks * count)?;
    let p = Columns {
        fault: cuda.fault().address(),
        parts: parts.address(),
        columns: count as u32,
        rows: n as u32,
        per_task: per_task as u32,
        unused: 0,
        divisor: if of == Kind::Mean { n as f64 } else { 1.0 },
        walk,
        x,
        y,
    };
    let threads = count.next_multiple_of(32).clamp(32, 256);
    cuda.grid(op, (Module::Reduce, "column_parts"), [count.div_ceil(threads), tasks, 1], threads, &p);
    cuda.grid(op, (Module::Reduce, "column_totals"), [count.div_ceil(threads), 1, 1], threads, &p);
    Ok(Some(true))
}

pub(super) fn argmax(cuda: &Cuda, op: &'static str, dim: usize, x: &View, out: &View) -> Result<bool> {
    if out.numel() == 0 {
        return Ok(true);
    }
    let is_float = x.dtype.is_float();
    let dims = if x.shape().rank() == 0 { Dims::NONE } else { Dims::one(dim) };
    let y = kept(&out.layout, x.shape(), dims);
    let (outer, inner) = split([&x.layout, &y], dims);
    let Some((walk, [x, y])) = rows([Some(x), Some(out)], &outer, &inner) else { return Ok(false) };
    let p = Reduce { fault: cuda.fault().address(), rows: walk, x, y, ..Reduce::default() };
    let (blocks, threads) = grid(walk.rows as usize);
    let kernel = if is_float { "argmax" } else { "argmax_of_integers" };
    cuda.grid(op, (Module::Reduce, kernel), blocks, threads, &p);
    Ok(true)
}

/// Inputs g and y of the reduction with kept dimensions, x.
pub(super) fn backward(cuda: &Cuda, op: &'static str, of: Kind, dims: Dims, ins: &[View], out: &View) -> Result<bool> {
    let x = &ins[2];
    if out.numel() == 0 {
        return Ok(true);
    }
    let [g, y] = [0, 1].map(|i| kept(&ins[i].layout, x.shape(), dims));
    let (outer, inner) = split([&x.layout, &y, &g, &out.layout], dims);
    let Some((walk, [x, y, g, dx])) = rows([Some(x), Some(&ins[1]), Some(&ins[0]), Some(out)], &outer, &inner) else {
        return Ok(false);
    };
    let (number, parameter) = kind(of);
    let fault = cuda.fault().address();
    let p = Reduce { fault, kind: number, unused: 0, parameter, scratch: 0, rows: walk, x, y, g, dx };
    if of == Kind::Prod {
        let scratch = cuda.scratch(size_of::<f64>() * out.numel())?;
        cuda.over(
            op,
            (Module::Reduce, "product_backward"),
            walk.rows as usize,
            &Reduce { scratch: scratch.address(), ..p },
        );
        return Ok(true);
    }
    let (blocks, threads) = grid(walk.rows as usize);
    let wide = matches!(of, Kind::LogSumExp | Kind::Norm { .. });
    let kernel = if wide { "reduce_backward_wide" } else { "reduce_backward" };
    cuda.grid(op, (Module::Reduce, kernel), blocks, threads, &p);
    Ok(true)
}

pub(super) fn scan(
    cuda: &Cuda,
    op: &'static str,
    of: Scan,
    dim: usize,
    reverse: bool,
    x: &View,
    out: &View,
) -> Result<bool> {
    if out.numel() == 0 {
        return Ok(true);
    }
    let dims = if x.shape().rank() == 0 { Dims::NONE } else { Dims::one(dim) };
    let (outer, inner) = split([&x.layout, &out.layout], dims);
    let Some((walk, [x, dx])) = rows([Some(x), Some(out)], &outer, &inner) else { return Ok(false) };
    let kind = if of == Scan::Sum { 0 } else { 6 };
    let parameter = if reverse { 1.0 } else { 0.0 };
    let p = Reduce { fault: cuda.fault().address(), kind, parameter, rows: walk, x, dx, ..Reduce::default() };
    cuda.over(op, (Module::Reduce, "scan"), walk.rows as usize, &p);
    Ok(true)
}
