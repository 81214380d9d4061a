//! Softmax and cross-entropy.

use binade_tensor::op::{CrossEntropy, Reduction};
use binade_tensor::{Layout, Result, Shape};
use bytemuck::{Pod, Zeroable};

use super::{copy, elementwise, index};
use crate::backend::Cuda;
use crate::module::Module;
use crate::rows::{Axes, Axis, RowOperand, Rows, grid, rows};
use crate::view::View;

/// `Softmax` of `softmax.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Softmax {
    fault: u64,
    log: u32,
    unused: u32,
    rows: Rows,
    x: RowOperand,
    g: RowOperand,
    y: RowOperand,
}

/// `CrossEntropy` of `softmax.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Loss {
    fault: u64,
    values: u64,
    counted: u64,
    ignored: i64,
    smoothing: f64,
    mean: u32,
    unused: u32,
    rows: Rows,
    x: RowOperand,
    target: RowOperand,
    g: RowOperand,
    y: RowOperand,
}

/// All dimensions but one, and that one.
fn along<const N: usize>(layouts: [&Layout; N], dim: usize) -> (Axes<N>, Axes<N>) {
    let all = || 0..layouts[0].shape.rank();
    let of = |d: usize| Axis::of(layouts, d);
    (all().filter(|&d| d != dim).map(of).collect(), all().filter(|&d| d == dim).map(of).collect())
}

pub(super) fn softmax(cuda: &Cuda, op: &'static str, dim: usize, log: bool, x: &View, out: &View) -> Result<bool> {
    if out.numel() == 0 {
        return Ok(true);
    }
    let (outer, inner) = along([&x.layout, &out.layout], dim);
    let Some((walk, [x, y])) = rows([Some(x), Some(out)], &outer, &inner) else { return Ok(false) };
    let p = Softmax { fault: cuda.fault().address(), log: log.into(), unused: 0, rows: walk, x, g: x, y };
    let (blocks, threads) = grid(walk.rows as usize);
    cuda.grid(op, (Module::Softmax, "softmax"), blocks, threads, &p);
    Ok(true)
}

/// Inputs g, y.
pub(super) fn backward(cuda: &Cuda, op: &'static str, dim: usize, log: bool, ins: &[View], out: &View) -> Result<bool> {
    if out.numel() == 0 {
        return Ok(true);
    }
    let (outer, inner) = along([&ins[1].layout, &ins[0].layout, &out.layout], dim);
    let Some((walk, [x, g, y])) = rows([Some(&ins[1]), Some(&ins[0]), Some(out)], &outer, &inner) else {
        return Ok(false);
    };
    let p = Softmax { fault: cuda.fault().address(), log: log.into(), unused: 0, rows: walk, x, g, y };
    let (blocks, threads) = grid(walk.rows as usize);
    cuda.grid(op, (Module::Softmax, "softmax_backward"), blocks, threads, &p);
    Ok(true)
}

/// A layout of targets, `[N, …]`, under the shape of logits, `[N, C, …]`.
fn without_classes(of: &Layout, shape: &Shape) -> Layout {
    let mut strides = *shape;
    for d in 0..shape.rank() {
        strides[d] = match d {
            0 => of.strides[0],
            1 => 0,
            d => of.strides[d - 1],
        };
    }
    Layout { shape: *shape, strides, offset: of.offset }
}

/// What both directions have; `y` and `g` have an element a target, or none has.
fn loss(
    cuda: &Cuda,
    op: &'static str,
    loss: &CrossEntropy,
    x: &View,
    target: &View,
    [g, y]: [(&View, Layout); 2],
) -> Result<Option<Loss>> {
    index::check(cuda, op, target, x.shape()[1], Some(loss.ignore_index), "classes")?;
    let of_target = without_classes(&target.layout, x.shape());
    let (outer, inner) = along([&x.layout, &of_target, &g.1, &y.1], 1);
    let views = [Some(x), Some(target), Some(g.0), Some(y.0)];
    Ok(rows(views, &outer, &inner).map(|(walk, [x, target, g, y])| Loss {
        fault: cuda.fault().address(),
        values: 0,
        counted: 0,
        ignored: loss.ignore_index,
        smoothing: loss.smoothing,
        mean: (loss.reduction == Reduction::Mean).into(),
        unused: 0,
        rows: walk,
        x,
        target,
        g,
        y,
    }))
}

/// As [`without_classes`], of one element for all targets.
fn single(shape: &Shape) -> Layout {
    let mut strides = *shape;
    strides.iter_mut().for_each(|stride| *stride = 0);
    Layout { shape: *shape, strides, offset: 0 }
}

fn count(cuda: &Cuda, op: &'static str, p: &Loss) {
    if p.mean != 0 {
        cuda.grid(op, (Module::Softmax, "count_targets"), [1, 1, 1], 256, p);
    }
}

pub(super) fn cross_entropy(
    cuda: &Cuda,
    op: &'static str,
    of: &CrossEntropy,
    ins: &[View],
    out: &View,
) -> Result<bool> {
    let (x, target) = (&ins[0], &ins[1]);
    if x.numel() == 0 {
        index::check(cuda, op, target, x.shape()[1], Some(of.ignore_index), "classes")?;
        return copy::fill(cuda, op, elementwise::loss_of_nothing(of.reduction), out);
    }
    let each = of.reduction == Reduction::None;
    let layout = if each { without_classes(&out.layout, x.shape()) } else { single(x.shape()) };
    let Some(p) = loss(cuda, op, of, x, target, [(out, layout), (out, layout)])? else { return Ok(false) };
    let count_of_rows = p.rows.rows as usize;
    let scratch = cuda.scratch(8 * (count_of_rows + 1))?;
    let values = scratch.address() + 8;
    let p = Loss { values, counted: scratch.address(), ..p };
    let (blocks, threads) = grid(count_of_rows);
    cuda.grid(op, (Module::Softmax, "cross_entropy"), blocks, threads, &p);
    if each {
        cuda.over(op, (Module::Softmax, "each_loss"), count_of_rows, &p);
    } else {
        count(cuda, op, &p);
        cuda.grid(op, (Module::Softmax, "sum_of_losses"), [1, 1, 1], 32, &p);
    }
    Ok(true)
}

/// Inputs g, logits, target.
pub(super) fn cross_entropy_backward(
    cuda: &Cuda,
    op: &'static str,
    of: &CrossEntropy,
    ins: &[View],
    out: &View,
) -> Result<bool> {
    let (g, x, target) = (&ins[0], &ins[1], &ins[2]);
    if x.numel() == 0 {
        return Ok(true);
    }
    let of_g = if g.numel() == 1 && target.numel() != 1 || g.shape().rank() == 0 {
        single(x.shape())
    } else {
        without_classes(&g.layout, x.shape())
    };
    let scratch = cuda.scratch(8)?;
    let Some(p) = loss(cuda, op, of, x, target, [(g, of_g), (out, out.layout)])? else { return Ok(false) };
    let p = Loss { counted: scratch.address(), ..p };
    count(cuda, op, &p);
    let (blocks, threads) = grid(p.rows.rows as usize);
    cuda.grid(op, (Module::Softmax, "cross_entropy_backward"), blocks, threads, &p);
    Ok(true)
}
