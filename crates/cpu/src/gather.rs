//! Gathering and scattering along a dimension, sorting, scans.

use crate::kernel::{Context, In, Out};
use rayon::prelude::*;

use super::gemm::workspace;
use super::operand::{Compute, Operand};
use super::rows::{fill_rows, order_with_last, write};
use super::tasks::Tasks as _;
use crate::simd::Isa;
use binade_tensor::memory::HostBuffer;
use binade_tensor::op::{Scan, Scatter};
use binade_tensor::{Error, Result, Shape};

fn natural(shape: &Shape) -> Vec<usize> {
    (0..shape.rank()).collect()
}

/// A row-major copy in the computing type.
fn dense<C: Compute>(cx: Context<'_>, x: In<'_>) -> Result<HostBuffer> {
    let Context { isa, pool } = cx;
    let mut buffer = workspace::<C>(pool, x.numel())?;
    Operand::new(x, x.shape(), &natural(x.shape())).load_all(isa, &mut buffer.as_mut_slice::<C>()[..x.numel()]);
    Ok(buffer)
}

/// Indices in row-major order, checked to lie in 0..size.
fn indices(op: &'static str, index: In<'_>, size: usize) -> Result<Vec<usize>> {
    let mut wide = vec![0.0f64; index.numel()];
    Operand::new(index, index.shape(), &natural(index.shape())).load(Isa::Portable, 0, &mut wide);
    match wide.iter().find(|&&v| v < 0.0 || v >= size as f64) {
        Some(&v) => Err(Error::IndexOutOfRange { op, index: v as i64, size, what: "elements" }),
        None => Ok(wide.into_iter().map(|v| v as usize).collect()),
    }
}

/// Where row `row` of an index tensor begins in a row-major tensor of `shape`, the dimension `dim` left out; and the
/// strides of the last dimension and of `dim`.
fn row_base(shape: &Shape, index: &Shape, dim: usize, row: usize) -> usize {
    let strides = shape.row_major();
    let mut rest = row;
    let mut base = 0;
    for d in (0..index.rank() - 1).rev() {
        let i = rest % index[d];
        rest /= index[d];
        base += if d == dim { 0 } else { i * strides[d] };
    }
    base
}

/// `y[…, i, …] = x[…, index[…, i, …], …]`.
pub(super) fn gather<C: Compute>(cx: Context<'_>, dim: usize, ins: &[In<'_>], out: &mut Out<'_>) -> Result<()> {
    let isa = cx.isa;
    let (shape, to) = (*ins[0].shape(), *ins[1].shape());
    if to.rank() == 0 || to.numel() == 0 {
        if to.numel() > 0 {
            indices("gather", ins[1], 1)?;
            let mut value = [C::zero()];
            Operand::new(ins[0], &shape, &[]).load(isa, 0, &mut value);
            write(isa, &value, out);
        }
        return Ok(());
    }
    let index = indices("gather", ins[1], shape[dim])?;
    let mut values = dense::<C>(cx, ins[0])?;
    let (values, len, stride) = (&*values.as_mut_slice::<C>(), to[to.rank() - 1], shape.row_major()[dim]);
    let last = dim == to.rank() - 1;
    fill_rows::<C, ()>(cx, out, &natural(&to), len, |row, y| {
        let from = &values[row_base(&shape, &to, dim, row)..];
        for (j, (y, &i)) in y.iter_mut().zip(&index[row * len..]).enumerate() {
            *y = from[i * stride + if last { 0 } else { j }];
        }
    })?;
    Ok(())
}

/// Inputs self (absent for the gradient of a gather: zeros), index, src: self with src set or added at the index, in
/// order of src's elements, sums in the computing type.
pub(super) fn scatter<C: Compute>(
    cx: Context<'_>,
    kind: Scatter,
    dim: usize,
    base: Option<In<'_>>,
    index: In<'_>,
    src: In<'_>,
    out: &mut Out<'_>,
) -> Result<()> {
    let Context { isa, pool } = cx;
    let (shape, from) = (*out.array().shape(), *index.shape());
    let mut buffer = match base {
        Some(array) => dense::<C>(cx, array)?,
        None => {
            let mut zeros = workspace::<C>(pool, shape.numel())?;
            zeros.as_mut_slice::<C>().fill(C::zero());
            zeros
        }
    };
    let values = &mut buffer.as_mut_slice::<C>()[..shape.numel()];
    let places = indices("scatter", index, shape.get(dim).copied().unwrap_or(1))?;
    // Of src, the part that the index covers.
    let part = src.layout().shape;
    let layout = binade_tensor::Layout { shape: from, ..*src.layout() };
    debug_assert_eq!(part.rank(), from.rank());
    let mut added = vec![C::zero(); from.numel()];
    Operand::from_layout(src.dtype(), &layout, src.bytes, &from, &natural(&from)).load_all(isa, &mut added);
    let len = from.last().copied().unwrap_or(1);
    let stride = if shape.rank() == 0 { 1 } else { shape.row_major()[dim] };
    let last = shape.rank() == 0 || dim == shape.rank() - 1;
    for (row, (places, added)) in places.chunks(len.max(1)).zip(added.chunks(len.max(1))).enumerate() {
        let base = if shape.rank() == 0 { 0 } else { row_base(&shape, &from, dim, row) };
        for (j, (&i, &v)) in places.iter().zip(added).enumerate() {
            let at = base + i * stride + if last { 0 } else { j };
            values[at] = match kind {
                Scatter::Set => v,
                Scatter::Add => values[at] + v,
            };
        }
    }
    write(isa, values, out);
    Ok(())
}

/// Outputs: the first `length` values in sorted order and their positions. NaN is larger than any number; equal
/// elements keep their order.
pub(super) fn sort<C: Compute>(
    cx: Context<'_>,
    dim: usize,
    descending: bool,
    x: In<'_>,
    outs: &mut [Out<'_>],
) -> Result<()> {
    let isa = cx.isa;
    let n = x.shape().get(dim).copied().unwrap_or(1);
    let order = order_with_last(x.shape().rank(), |d| d == dim);
    let operand = Operand::new(x, x.shape(), &order);
    let rows = x.numel().checked_div(n).unwrap_or(0);
    let length = outs[0].array().shape().get(dim).copied().unwrap_or(1);
    let sorted: Vec<Vec<(C, usize)>> = (0..rows).into_par_iter().with_min_len((1024 / n.max(1)).max(1)).list(|row| {
        let mut values = vec![C::zero(); n];
        operand.load(isa, row * n, &mut values);
        let mut pairs: Vec<(C, usize)> = values.into_iter().zip(0..).collect();
        let rank = |v: &(C, usize)| (v.0.is_nan(), v.0);
        pairs.sort_by(|a, b| {
            let (a, b) = if descending { (rank(b), rank(a)) } else { (rank(a), rank(b)) };
            a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
        });
        pairs.truncate(length);
        pairs
    });
    fill_rows::<C, ()>(cx, &mut outs[0], &order, length, |row, y| {
        y.iter_mut().zip(&sorted[row]).for_each(|(y, pair)| *y = pair.0);
    })?;
    fill_rows::<f64, ()>(cx, &mut outs[1], &order, length, |row, y| {
        y.iter_mut().zip(&sorted[row]).for_each(|(y, pair)| *y = pair.1 as f64);
    })?;
    Ok(())
}

/// Running sums or products, in f64, in order.
pub(super) fn scan<C: Compute>(
    cx: Context<'_>,
    kind: Scan,
    dim: usize,
    reverse: bool,
    x: In<'_>,
    out: &mut Out<'_>,
) -> Result<()> {
    let isa = cx.isa;
    let n = x.shape().get(dim).copied().unwrap_or(1);
    let order = order_with_last(x.shape().rank(), |d| d == dim);
    let operand = Operand::new(x, x.shape(), &order);
    fill_rows::<C, ()>(cx, out, &order, n, |row, y| {
        operand.load(isa, row * n, y);
        let mut total = if kind == Scan::Sum { 0.0 } else { 1.0 };
        let mut step = |v: &mut C| {
            total = if kind == Scan::Sum { total + v.as_f64() } else { total * v.as_f64() };
            *v = C::from_f64(total);
        };
        if reverse {
            y.iter_mut().rev().for_each(&mut step);
        } else {
            y.iter_mut().for_each(&mut step);
        }
    })?;
    Ok(())
}

/// Gradient of a running product, exact with zeros among the factors: inputs g, x.
pub(super) fn cumprod_backward<C: Compute>(
    cx: Context<'_>,
    dim: usize,
    ins: &[In<'_>],
    out: &mut Out<'_>,
) -> Result<()> {
    let isa = cx.isa;
    let n = ins[1].shape().get(dim).copied().unwrap_or(1);
    let order = order_with_last(ins[1].shape().rank(), |d| d == dim);
    let operand = |i: usize| Operand::new(ins[i], ins[1].shape(), &order);
    let (g, x) = (operand(0), operand(1));
    fill_rows::<C, ()>(cx, out, &order, n, |row, y| {
        let (mut pg, mut px) = (vec![0.0f64; n], vec![0.0f64; n]);
        g.load(isa, row * n, &mut pg);
        x.load(isa, row * n, &mut px);
        // dx[k] = (Π_{j<k} x[j])·t[k] with t[k] = g[k] + x[k + 1]·t[k + 1]: no division.
        let mut tail = 0.0;
        for k in (0..n).rev() {
            tail = pg[k] + if k + 1 < n { px[k + 1] * tail } else { 0.0 };
            pg[k] = tail;
        }
        let mut before = 1.0;
        for k in 0..n {
            y[k] = C::from_f64(before * pg[k]);
            before *= px[k];
        }
    })?;
    Ok(())
}
