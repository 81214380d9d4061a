//! Matrix products. Activations are kernels of their own, on f32 that is not rounded in between.

use binade_tensor::op::{MatMul, QuantisedMatMul, Reduce};
use binade_tensor::{DType, Dims, Layout, MAX_RANK, Result, Shape};
use bytemuck::{Pod, Zeroable};

use super::tensor::{self, Choice};
use super::{MOST_BLOCKS, copy, elementwise, reduce};
use crate::backend::Cuda;
use crate::module::Module;
use crate::view::{View, code};

/// `Matrix` of `product.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Matrix {
    pub(super) at: u64,
    pub(super) dtype: u32,
    pub(super) unused: u32,
    pub(super) rows: i64,
    pub(super) columns: i64,
    pub(super) batches: [i64; MAX_RANK],
}

impl Matrix {
    /// The memory of a view, without its strides.
    pub(super) fn of(view: &View) -> Matrix {
        Matrix { at: view.at(), dtype: code(view.dtype), ..Matrix::default() }
    }

    /// An element for each column.
    pub(super) fn of_columns(view: &View) -> Matrix {
        Matrix { columns: view.stride(0), ..Matrix::of(view) }
    }
}

/// `Product` of `product.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Product {
    pub(super) fault: u64,
    pub(super) m: u32,
    pub(super) n: u32,
    pub(super) k: u32,
    pub(super) batch_rank: u32,
    pub(super) batches: [u32; MAX_RANK],
    pub(super) splits: u32,
    pub(super) per_split: u32,
    pub(super) count: u32,
    pub(super) inner: [u32; 2],
    pub(super) unused: u32,
    pub(super) a: Matrix,
    pub(super) b: Matrix,
    pub(super) c: Matrix,
    pub(super) bias: Matrix,
    pub(super) scales: Scales,
}

impl Product {
    /// Of some extents m, n, k and batches, in one part; its operands are nowhere.
    pub(super) fn new(cuda: &Cuda, [m, n, k]: [usize; 3], batches: &Shape) -> Product {
        let none = Matrix::default();
        let mut p = Product {
            fault: cuda.fault().address(),
            m: m as u32,
            n: n as u32,
            k: k as u32,
            batch_rank: batches.rank() as u32,
            batches: [1; MAX_RANK],
            splits: 1,
            per_split: k.max(1) as u32,
            count: batches.numel() as u32,
            inner: [0; 2],
            unused: 0,
            a: none,
            b: none,
            c: none,
            bias: none,
            scales: Scales::default(),
        };
        p.batches.iter_mut().zip(batches.iter()).for_each(|(to, &extent)| *to = extent as u32);
        p
    }
}

/// `Scales` of `tile.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Scales {
    of_outputs: u64,
    of_activations: u64,
    outputs_dtype: u32,
    activations_dtype: u32,
    stride: i64,
}

impl Scales {
    /// Of 8-bit weights, and of activations that are rounded too.
    pub(super) fn new(of_outputs: &View, of_activations: Option<&View>) -> Scales {
        Scales {
            of_outputs: of_outputs.at(),
            of_activations: of_activations.map_or(0, View::at),
            outputs_dtype: code(of_outputs.dtype),
            activations_dtype: of_activations.map_or(0, |view| code(view.dtype)),
            stride: of_outputs.stride(0),
        }
    }
}

/// What is done to sums.
#[derive(Clone, Copy, Default)]
struct Finish<'a> {
    bias: Option<&'a View>,
    scales: Scales,
}

/// Results of a block of the plain kernel, in each dimension.
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
    let (rows, columns) = (view.stride(rank - 2), view.stride(rank - 1));
    let mut matrix = Matrix { rows, columns, ..Matrix::of(view) };
    matrix.batches.iter_mut().zip(lead.strides.iter()).for_each(|(to, &stride)| *to = stride as i64);
    Some(matrix)
}

/// `(a @ b)·scales + bias` into `out`; of two operands of 8-bit integers sums are integers.
fn multiply(cuda: &Cuda, op: &'static str, [a, b]: [&View; 2], finish: Finish<'_>, out: &View) -> Result<bool> {
    let shape = out.shape();
    if out.numel() == 0 {
        return Ok(true);
    }
    let rank = shape.rank();
    let (batches, m, n) = (shape.leading(rank - 2), shape[rank - 2], shape[rank - 1]);
    let k = a.shape()[a.shape().rank() - 1];
    let (Some(mut of_a), Some(mut of_b), Some(of_c)) =
        (matrix(a, &batches), matrix(b, &batches), matrix(out, &batches))
    else {
        return Ok(false);
    };
    let integers = a.dtype == DType::I8 && b.dtype == DType::I8;
    let named = |kernel: &str| if integers { format!("{kernel}_of_integers") } else { kernel.into() };
    let on_tensor_cores = tensor::choose(cuda.capability(), [a.dtype, b.dtype], [&mut of_a, &mut of_b], [m, n, k]);
    let Choice { module, kernel, tile, threads, inner } = on_tensor_cores.unwrap_or_else(|| Choice {
        module: Module::Product,
        kernel: named("product"),
        tile: TILE,
        threads: 256,
        inner: [false; 2],
    });
    let count = batches.numel();
    let tiles = m.div_ceil(tile) * n.div_ceil(tile);
    let chains = k.div_ceil(CHAIN).max(1);
    let splits = if tiles * count < FEW_BLOCKS && count * chains <= MOST_BLOCKS { chains } else { 1 };
    let p = Product {
        splits: splits as u32,
        per_split: if splits > 1 { CHAIN as u32 } else { (k.max(1)) as u32 },
        inner: inner.map(u32::from),
        a: of_a,
        b: of_b,
        c: of_c,
        bias: finish.bias.map_or(Matrix::default(), Matrix::of_columns),
        scales: finish.scales,
        ..Product::new(cuda, [m, n, k], &batches)
    };
    let at = (module, kernel.as_str());
    if splits == 1 {
        cuda.grid(op, at, [tiles, 1, count.min(MOST_BLOCKS)], threads, &p);
        return Ok(true);
    }
    let parts = cuda.scratch(4 * splits * count * m * n)?;
    let of_parts = Matrix { at: parts.address(), rows: n as i64, columns: 1, ..Matrix::default() };
    cuda.grid(op, at, [tiles, 1, count * splits], threads, &Product { c: of_parts, ..p });
    let threads = (m * n).next_multiple_of(32).min(256);
    let sum = Product { a: of_parts, ..p };
    let blocks = [(m * n).div_ceil(threads), count, 1];
    cuda.grid(op, (Module::Product, &named("sum_of_splits")), blocks, threads, &sum);
    Ok(true)
}

pub(super) fn matmul(cuda: &Cuda, op: &'static str, product: &MatMul, ins: &[View], outs: &[View]) -> Result<bool> {
    let mut memory = None;
    let mut operands = [ins[0], ins[1]];
    if let Some(prologue) = product.prologue {
        let x = &mut operands[prologue.operand];
        let activated = cuda.scratch(x.numel() * x.dtype.size())?;
        let to = View::line(activated.address(), x.dtype, *x.shape());
        if !elementwise::unary(cuda, op, prologue.act, &[*x], &to)? {
            return Ok(false);
        }
        *x = to;
        memory = Some(activated);
    }
    let [a, b] = &operands;
    let finish = Finish { bias: ins.get(2).filter(|_| product.epilogue.bias), scales: Scales::default() };
    let done =
        elementwise::activated(cuda, op, product.epilogue.act, outs, |to| multiply(cuda, op, [a, b], finish, to))?;
    drop(memory);
    if done && product.sums {
        return reduce::reduce(cuda, op, Reduce::Sum, Dims::one(1), &ins[0], &outs[1]);
    }
    Ok(done)
}

/// Inputs x, w, scale, the scale of x if it is rounded, bias.
pub(super) fn quantised(
    cuda: &Cuda,
    op: &'static str,
    product: &QuantisedMatMul,
    ins: &[View],
    outs: &[View],
) -> Result<bool> {
    let (w, [n, k]) = (&ins[1], [ins[1].shape()[0], ins[1].shape()[1]]);
    let out = &outs[0];
    if out.numel() == 0 {
        return Ok(true);
    }
    let m = out.numel() / n;
    let (flat, result) = (Shape::new(&[m, k])?, Shape::new(&[m, n])?);
    let own = ins.get(3).filter(|_| product.integer);
    let bias = ins.get(3 + usize::from(product.integer)).filter(|_| product.epilogue.bias);
    let mut memory = None;
    let x = match (own, ins[0].layout.reshape(&flat)) {
        (None, Some(layout)) => ins[0].with_layout(layout),
        (own, _) => {
            let dtype = if own.is_some() { DType::I8 } else { ins[0].dtype };
            let room = cuda.scratch(ins[0].numel() * dtype.size())?;
            let to = View::line(room.address(), dtype, *ins[0].shape());
            match own {
                Some(scale) => copy::quantise(cuda, op, &ins[0], scale, &to)?,
                None => copy::cast(cuda, op, &ins[0], &to)?,
            };
            memory = Some(room);
            View::line(to.at(), dtype, flat)
        }
    };
    let turned = Layout {
        shape: Shape::new(&[k, n])?,
        strides: Shape::new(&[w.layout.strides[1], w.layout.strides[0]])?,
        ..w.layout
    };
    let finish = Finish { bias, scales: Scales::new(&ins[2], own) };
    // Results are one after the other, there or in memory that is copied.
    let (to, room) = if out.layout.reshape(&result).is_some() { (*out, None) } else { copy::room(cuda, out)? };
    let Some(layout) = to.layout.reshape(&result) else { return Ok(false) };
    let done = elementwise::activated(cuda, op, product.epilogue.act, &[to.with_layout(layout)], |to| {
        multiply(cuda, op, [&x, &w.with_layout(turned)], finish, to)
    })?;
    drop(memory);
    if done && room.is_some() {
        return copy::cast(cuda, op, &to, out);
    }
    Ok(done)
}
