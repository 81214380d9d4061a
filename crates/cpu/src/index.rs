//! Embedding, concatenation and the gradient of narrowing.

use super::operand::{BLOCK, Buffer, Compute, Operand, fill_as, memory_order};
use super::rows::fill_rows;
use crate::kernel::{Context, In, Out};
use crate::simd::Isa;
use binade_tensor::{Error, Result, Shape};

fn natural(shape: &Shape) -> Vec<usize> {
    (0..shape.rank()).collect()
}

/// Row indices, checked against the number of rows.
fn indices(array: In<'_>, rows: usize) -> Result<Vec<usize>> {
    let mut wide = vec![0.0f64; array.numel()];
    Operand::new(array, array.shape(), &natural(array.shape())).load(Isa::Portable, 0, &mut wide);
    match wide.iter().find(|&&v| v < 0.0 || v >= rows as f64) {
        Some(&v) => Err(Error::IndexOutOfRange { op: "embedding", index: v as i64, size: rows, what: "rows" }),
        None => Ok(wide.into_iter().map(|v| v as usize).collect()),
    }
}

pub(super) fn embedding<C: Compute>(cx: Context<'_>, ins: &[In<'_>], out: &mut Out<'_>) -> Result<()> {
    let isa = cx.isa;
    let (rows, d) = (ins[0].shape()[0], ins[0].shape()[1]);
    let index = indices(ins[1], rows)?;
    let weight = Operand::new(ins[0], ins[0].shape(), &[0, 1]);
    let order = natural(out.array().shape());
    fill_rows::<C, ()>(cx, out, &order, d, |row, y| weight.load(isa, index[row] * d, y))?;
    Ok(())
}

/// Inputs g, index. Each row of the result adds up its rows of g in order: no races, fixed sums.
pub(super) fn embedding_backward<C: Compute>(cx: Context<'_>, ins: &[In<'_>], out: &mut Out<'_>) -> Result<()> {
    let isa = cx.isa;
    let (rows, d) = (out.array().shape()[0], out.array().shape()[1]);
    let index = indices(ins[1], rows)?;
    let g = Operand::new(ins[0], ins[0].shape(), &natural(ins[0].shape()));
    // Where each row's part of the places begins, which are sorted by row.
    let mut starts = vec![0; rows + 1];
    index.iter().for_each(|&row| starts[row + 1] += 1);
    (0..rows).for_each(|row| starts[row + 1] += starts[row]);
    let (mut next, mut places) = (starts.clone(), vec![0; index.len()]);
    for (i, &row) in index.iter().enumerate() {
        places[next[row]] = i;
        next[row] += 1;
    }
    fill_rows::<C, ()>(cx, out, &[0, 1], d, |row, y| {
        y.fill(C::zero());
        let mut buffer = Buffer::new();
        for (&i, at) in
            places[starts[row]..starts[row + 1]].iter().flat_map(|i| (0..d).step_by(BLOCK).map(move |at| (i, at)))
        {
            let y = &mut y[at..d.min(at + BLOCK)];
            let g = g.block_in(isa, i * d + at, y.len(), &[], &mut buffer);
            y.iter_mut().zip(g).for_each(|(y, &g)| *y += g);
        }
    })?;
    Ok(())
}

pub(super) fn cat<C: Compute>(cx: Context<'_>, dim: usize, ins: &[In<'_>], out: &mut Out<'_>) -> Result<()> {
    let isa = cx.isa;
    if out.array().numel() == 0 {
        return Ok(());
    }
    // In the order of memory, where rows are what lies within the dimension.
    let (shape, order) = (*out.array().shape(), memory_order(out.array().layout()));
    let within = |shape: &Shape| order.iter().skip_while(|&&d| d != dim).map(|&d| shape[d]).product::<usize>();
    let operands: Vec<(Operand<'_>, usize)> = (ins.iter())
        .map(|&x| (Operand::new(x, x.shape(), &order), within(x.shape())))
        .filter(|(_, n)| *n > 0)
        .collect();
    let (len, dtype) = (within(&shape), out.array().dtype());
    let dense: Option<Vec<(&[u8], usize)>> =
        operands.iter().map(|(x, n)| Some((x.dense_bytes().filter(|_| x.dtype() == dtype)?, *n))).collect();
    match (dense, dtype.size()) {
        (Some(dense), 2) => cat_dense::<u16>(&dense, len, out),
        (Some(dense), 4) => cat_dense::<u32>(&dense, len, out),
        (Some(dense), 8) => cat_dense::<u64>(&dense, len, out),
        _ => {
            fill_rows::<C, ()>(cx, out, &order, len, |row, mut y| {
                for (operand, n) in &operands {
                    let (part, rest) = y.split_at_mut(*n);
                    operand.load(isa, row * n, part);
                    y = rest;
                }
            })?;
        }
    }
    Ok(())
}

/// Rows of `len` elements of `size_of::<T>()` bytes, from those of dense operands.
fn cat_dense<T: bytemuck::Pod + Sync>(operands: &[(&[u8], usize)], len: usize, out: &mut Out<'_>) {
    let operands: Vec<(&[T], usize)> = operands.iter().map(|&(bytes, n)| (bytemuck::cast_slice(bytes), n)).collect();
    fill_as::<T>(out, |start, mut y| {
        // A task may begin and end anywhere in a row.
        let mut skip = start % len;
        for (row, &(from, n)) in (start / len..).flat_map(|row| operands.iter().map(move |operand| (row, operand))) {
            let part = n.saturating_sub(skip).min(y.len());
            let (to, rest) = y.split_at_mut(part);
            to.copy_from_slice(&from[row * n + n.min(skip)..][..part]);
            (skip, y) = (skip.saturating_sub(n), rest);
            if y.is_empty() {
                break;
            }
        }
    });
}

pub(super) fn narrow_backward<C: Compute>(
    cx: Context<'_>,
    dim: usize,
    start: usize,
    g: In<'_>,
    out: &mut Out<'_>,
) -> Result<()> {
    let isa = cx.isa;
    let (shape, order) = (*out.array().shape(), memory_order(out.array().layout()));
    let inner: usize = order.iter().skip_while(|&&d| d != dim).skip(1).map(|&d| shape[d]).product();
    let n = g.shape()[dim] * inner;
    let operand = Operand::new(g, g.shape(), &order);
    fill_rows::<C, ()>(cx, out, &order, shape[dim] * inner, |row, y| {
        y.fill(C::zero());
        if n > 0 {
            operand.load(isa, row * n, &mut y[start * inner..start * inner + n]);
        }
    })?;
    Ok(())
}
