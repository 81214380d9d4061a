//! The backward kernels of norms and products, with derivatives of every order also where elements are 0.

use crate::op::program::{Builder, Value};
use crate::op::{Binary, Compare, Op, PadMode, Reduce, Resample, Scan, Unary, View};
use crate::{Dims, Result, Shape};

/// `g·sign(x)·(|x|/‖x‖)ᵖ⁻¹`, 0 where all elements are.
pub(super) fn norm_backward(b: &mut Builder, g: Value, x: Value, p: f64, dims: Dims) -> Result<Value> {
    let (zero, one) = (b.fill(0.0, Shape::SCALAR)?, b.fill(1.0, Shape::SCALAR)?);
    let y = b.reduce(Reduce::Norm { p }, x, dims)?;
    let nothing = b.compare(Compare::Eq, y, zero)?;
    // In place of 0/0: its derivative is NaN also where it is not selected.
    let y = b.select(nothing, one, y)?;
    let slope = if p == 2.0 {
        b.binary(Binary::Div, x, y)?
    } else {
        // The derivative of a power below 1 is infinite at 0.
        let at_zero = b.compare(Compare::Eq, x, zero)?;
        let magnitude = b.unary(Unary::Abs, x)?;
        let magnitude = b.select(at_zero, one, magnitude)?;
        let share = b.binary(Binary::Div, magnitude, y)?;
        let power = b.scalar(Binary::Pow, share, p - 1.0)?;
        let sign = b.unary(Unary::Sign, x)?;
        b.binary(Binary::Mul, sign, power)?
    };
    let slope = b.select(nothing, zero, slope)?;
    b.binary(Binary::Mul, slope, g)
}

/// g times the product of all other elements: of those before and those after, so that nothing is divided by.
pub(super) fn prod_backward(b: &mut Builder, g: Value, x: Value, dims: Dims) -> Result<Value> {
    let shape = b.shape(x);
    let (rank, n) = (shape.rank(), dims.count(&shape));
    if rank == 0 {
        return b.scalar(Binary::Mul, g, 1.0);
    }
    if shape.numel() == 0 {
        return b.binary(Binary::Mul, x, g);
    }
    // The dimensions of the product last, as one.
    let axes: Vec<usize> =
        (0..rank).filter(|&d| !dims.contains(d)).chain((0..rank).filter(|&d| dims.contains(d))).collect();
    let turned = b.op(Op::View(View::Permute(Shape::from_slice(&axes))), &[x])?;
    let kept = b.shape(turned);
    let rows = b.reshape(turned, Shape::new(&[shape.numel() / n, n])?)?;
    let before = products_of_others(b, rows, 1, false)?;
    let after = products_of_others(b, rows, 1, true)?;
    let others = b.binary(Binary::Mul, before, after)?;
    let others = b.reshape(others, kept)?;
    let mut back = Shape::from_slice(&axes);
    axes.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
    let others = b.op(Op::View(View::Permute(back)), &[others])?;
    b.binary(Binary::Mul, others, g)
}

/// `Π_{j<k} x_j · S_k` with `S_k = g_k + x_{k+1}·S_{k+1}`, by doubling the number of terms in each S: nothing is
/// divided by.
pub(super) fn cumprod_backward(b: &mut Builder, g: Value, x: Value, dim: usize) -> Result<Value> {
    let shape = b.shape(x);
    if shape.rank() == 0 || shape.numel() == 0 {
        return b.scalar(Binary::Mul, g, 1.0);
    }
    let mut sum = g;
    let mut factor = ahead(b, x, dim, 1, 0.0)?;
    let mut terms = 1;
    while terms < shape[dim] {
        let next = ahead(b, sum, dim, terms, 0.0)?;
        let part = b.binary(Binary::Mul, factor, next)?;
        sum = b.binary(Binary::Add, sum, part)?;
        let next = ahead(b, factor, dim, terms, 0.0)?;
        factor = b.binary(Binary::Mul, factor, next)?;
        terms *= 2;
    }
    let before = products_of_others(b, x, dim, false)?;
    b.binary(Binary::Mul, before, sum)
}

/// The product of all elements of a dimension before each, or after it.
fn products_of_others(b: &mut Builder, x: Value, dim: usize, after: bool) -> Result<Value> {
    let others = if after { ahead(b, x, dim, 1, 1.0)? } else { moved(b, x, dim, [0, 1], 1.0)? };
    b.op(Op::Scan { kind: Scan::Prod, dim, reverse: after }, &[others])
}

/// `x[k + by]` in place k, `fill` beyond the end.
fn ahead(b: &mut Builder, x: Value, dim: usize, by: usize, fill: f64) -> Result<Value> {
    moved(b, x, dim, [by, 0], fill)
}

/// A dimension without its first `cut[0]` and last `cut[1]` elements, `fill` in place of as many at the other end.
fn moved(b: &mut Builder, x: Value, dim: usize, cut: [usize; 2], fill: f64) -> Result<Value> {
    let shape = b.shape(x);
    let part = View::Narrow { dim, start: cut[0], length: shape[dim] - cut[0] - cut[1] };
    let part = b.op(Op::View(part), &[x])?;
    let (mut before, mut after) = (Shape::new(&vec![0; shape.rank()])?, Shape::new(&vec![0; shape.rank()])?);
    (before[dim], after[dim]) = (cut[1], cut[0]);
    b.op(Op::Resample(Resample::Pad { before, after, mode: PadMode::Constant(fill) }), &[part])
}
