//! Embedding, concatenation and the gradient of narrowing.

use rayon::prelude::*;

use super::operand::{Compute, Operand};
use super::rows::{fill_rows, write};
use super::tasks::Tasks as _;
use crate::memory::Pool;
use crate::simd::Isa;
use crate::{Array, ArrayMut, Error, Result, Shape};

fn natural(shape: &Shape) -> Vec<usize> {
    (0..shape.rank()).collect()
}

/// Row indices, checked against the number of rows.
fn indices(array: &Array, bytes: &[u8], rows: usize) -> Result<Vec<usize>> {
    let mut wide = vec![0.0f64; array.numel()];
    Operand::new(array, bytes, array.shape(), &natural(array.shape())).load(Isa::Portable, 0, &mut wide);
    match wide.iter().find(|&&v| v < 0.0 || v >= rows as f64) {
        Some(&v) => Err(Error::IndexOutOfRange { op: "embedding", index: v as i64, size: rows, what: "rows" }),
        None => Ok(wide.into_iter().map(|v| v as usize).collect()),
    }
}

pub(super) fn embedding<C: Compute>(
    isa: Isa,
    pool: &Pool,
    ins: &[&Array],
    bytes: &[&[u8]],
    out: &mut ArrayMut<'_>,
) -> Result<()> {
    let (rows, d) = (ins[0].shape()[0], ins[0].shape()[1]);
    let index = indices(ins[1], bytes[1], rows)?;
    let weight = Operand::new(ins[0], bytes[0], ins[0].shape(), &[0, 1]);
    let order = natural(out.array().shape());
    fill_rows::<C, ()>(isa, pool, out, &order, d, |row, y| weight.load(isa, index[row] * d, y));
    Ok(())
}

/// Inputs g, index. Each task owns a stretch of columns and walks all indices in order: no races, fixed sums.
pub(super) fn embedding_backward<C: Compute>(isa: Isa, ins: &[&Array], bytes: &[&[u8]], out: &mut ArrayMut<'_>) -> Result<()> {
    let (rows, d) = (out.array().shape()[0], out.array().shape()[1]);
    let index = indices(ins[1], bytes[1], rows)?;
    let g = Operand::new(ins[0], bytes[0], ins[0].shape(), &natural(ins[0].shape()));
    let columns: Vec<std::ops::Range<usize>> = (0..d).step_by(64).map(|c| c..d.min(c + 64)).collect();
    let parts: Vec<Vec<C>> = columns.par_iter().list(|range| {
        let width = range.len();
        let (mut acc, mut row) = (vec![C::zero(); rows * width], vec![C::zero(); width]);
        for (i, &to) in index.iter().enumerate() {
            g.load(isa, i * d + range.start, &mut row);
            acc[to * width..(to + 1) * width].iter_mut().zip(&row).for_each(|(a, &g)| *a = *a + g);
        }
        acc
    });
    let mut total = vec![C::zero(); rows * d];
    for (range, part) in columns.iter().zip(&parts) {
        for (to, from) in total.chunks_mut(d).zip(part.chunks(range.len())) {
            to[range.clone()].copy_from_slice(from);
        }
    }
    write(isa, &total, out);
    Ok(())
}

pub(super) fn cat<C: Compute>(isa: Isa, pool: &Pool, dim: usize, ins: &[&Array], bytes: &[&[u8]], out: &mut ArrayMut<'_>) {
    let shape = *out.array().shape();
    let len: usize = shape[dim..].iter().product();
    let operands: Vec<(Operand<'_>, usize)> = ins
        .iter()
        .zip(bytes)
        .map(|(a, b)| (Operand::new(a, b, a.shape(), &natural(a.shape())), a.shape()[dim..].iter().product()))
        .collect();
    fill_rows::<C, ()>(isa, pool, out, &natural(&shape), len, |row, y| {
        let mut done = 0;
        for (operand, n) in &operands {
            if *n > 0 {
                operand.load(isa, row * n, &mut y[done..done + n]);
            }
            done += n;
        }
    });
}

pub(super) fn narrow_backward<C: Compute>(
    isa: Isa,
    pool: &Pool,
    dim: usize,
    start: usize,
    g: &Array,
    bytes: &[u8],
    out: &mut ArrayMut<'_>,
) {
    let shape = *out.array().shape();
    let inner: usize = shape[dim + 1..].iter().product();
    let n = g.shape()[dim] * inner;
    let operand = Operand::new(g, bytes, g.shape(), &natural(g.shape()));
    fill_rows::<C, ()>(isa, pool, out, &natural(&shape), shape[dim] * inner, |row, y| {
        y.fill(C::zero());
        if n > 0 {
            operand.load(isa, row * n, &mut y[start * inner..start * inner + n]);
        }
    });
}
