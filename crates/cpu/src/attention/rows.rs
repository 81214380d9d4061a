//! Rows of heads, which lie far apart in memory: where those of an output are, and how they are asked for and written.

use crate::kernel::Out;
use rayon::prelude::*;

use super::AHEAD;
use crate::operand::{Compute, Operand};
use crate::simd::{Isa, prefetch};
use binade_tensor::{Array, DType, Error, Layout, Result};

/// The rows of one head of an output, wherever they lie.
pub(crate) type Rows<'a> = Vec<&'a mut [u8]>;

/// Where the rows of an output `[…, heads, rows, columns]` lie, or of one of several parts, `[parts, …]`.
struct Places {
    rows: usize,
    /// Bytes of a row.
    row: usize,
    /// How many rows lie between two of a head.
    step: usize,
    /// The first row of `[head][part]`, counted in memory.
    starts: Vec<usize>,
    parts: usize,
    /// So many heads have a stretch of memory to themselves.
    together: usize,
}

impl Places {
    /// `None` where a row is not whole, or rows have gaps.
    fn new(layout: &Layout, size: usize, parts: Option<usize>) -> Option<Places> {
        let (r, lead) = (layout.shape.rank(), parts.is_some() as usize);
        let (rows, columns) = (layout.shape[r - 2], layout.shape[r - 1]);
        if !(layout.is_dense() && layout.offset == 0 && (layout.strides[r - 1] == 1 || columns == 1)) {
            return None;
        }
        let in_rows = |d: usize| layout.strides[d] / columns.max(1);
        let mut starts = vec![0];
        // Parts are the innermost dimension of the list.
        for d in (lead..r - 2).chain(0..lead) {
            starts = starts.iter().flat_map(|&at| (0..layout.shape[d]).map(move |i| at + i * in_rows(d))).collect();
        }
        let (step, parts) = (in_rows(r - 2), parts.unwrap_or(1));
        let heads = starts.len() / parts;
        let per_sample = if r - lead > 2 { layout.shape[r - 3] } else { 1 };
        let apart = |&together: &usize| {
            let stretch = (together * parts * rows).max(1);
            starts.chunks(together * parts).enumerate().all(|(i, starts)| starts.iter().all(|at| at / stretch == i))
        };
        let together = [1, per_sample.max(1)].into_iter().find(apart).unwrap_or(heads.max(1));
        Some(Places { rows, row: columns * size, step, starts, parts, together })
    }

    /// `[head][part]`
    fn cut<'a>(&self, bytes: &'a mut [u8]) -> Vec<Vec<Rows<'a>>> {
        let &Places { rows, row, step, ref starts, parts, together } = self;
        let heads = starts.len() / parts;
        let stretch = together * parts * rows;
        if stretch * row == 0 {
            return (0..heads)
                .map(|_| (0..parts).map(|_| (0..rows).map(|_| Default::default()).collect()).collect())
                .collect();
        }
        let cut = |(i, bytes): (usize, &'a mut [u8])| {
            let mut each: Vec<Option<&mut [u8]>> = bytes.chunks_exact_mut(row).map(Some).collect();
            let starts = &starts[i * together * parts..(i + 1) * together * parts];
            let mut of = |start: usize| -> Rows<'a> {
                (0..rows).map(|j| each[start - i * stretch + j * step].take().unwrap_or_default()).collect()
            };
            starts
                .chunks(parts)
                .map(|starts| starts.iter().map(|&start| of(start)).collect())
                .collect::<Vec<Vec<Rows<'a>>>>()
        };
        bytes[..heads * parts * rows * row].par_chunks_mut(stretch * row).enumerate().flat_map(cut).collect()
    }
}

fn places(out: &Array, parts: Option<usize>) -> Result<Places> {
    Places::new(out.layout(), out.dtype().size(), parts).ok_or_else(|| Error::Shape {
        op: "scaled_dot_product_attention",
        expected: "expected results whose rows are whole in memory".into(),
        shapes: vec![*out.shape()],
    })
}

/// The rows of the heads of an output.
pub(crate) fn rows_of<'a>(out: &'a mut Out<'_>) -> Result<Vec<Rows<'a>>> {
    let places = places(out.array(), None)?;
    Ok(places.cut(out.bytes()).into_iter().flatten().collect())
}

/// The rows of the heads of dq, dk and dv, which are three outputs or one.
pub(crate) fn rows_of_gradients<'a>(outs: &'a mut [Out<'_>]) -> Result<[Vec<Rows<'a>>; 3]> {
    if let [q, k, v] = outs {
        return Ok([rows_of(q)?, rows_of(k)?, rows_of(v)?]);
    }
    let places = places(outs[0].array(), Some(3))?;
    let mut all = [(); 3].map(|()| Vec::with_capacity(places.starts.len() / 3));
    for head in places.cut(outs[0].bytes()) {
        all.iter_mut().zip(head).for_each(|(all, rows)| all.push(rows));
    }
    Ok(all)
}

/// Rounds rows of `columns` numbers that lie `ld` apart and writes them where they belong.
pub(crate) fn store<C: Compute>(isa: Isa, from: &[C], ld: usize, columns: usize, to: &mut [&mut [u8]], dtype: DType) {
    let ask = |row: &[u8]| row.chunks(64).for_each(|line| prefetch::ask_later(line.as_ptr().addr(), true));
    to.iter().take(AHEAD).for_each(|row| ask(row));
    for i in 0..to.len() {
        if let Some(row) = to.get(i + AHEAD) {
            ask(row);
        }
        C::store(isa, &from[i * ld..][..columns], to[i], dtype);
    }
}

/// Asks for rows of one head that are read in order, each some rows before.
pub(crate) struct AskRows<'a> {
    bytes: &'a [u8],
    /// Of the first row, of the distance and of a row.
    places: Option<[usize; 3]>,
    rows: usize,
}

impl<'a> AskRows<'a> {
    pub(crate) fn new(x: &Operand<'a>, head: usize, [rows, columns]: [usize; 2]) -> AskRows<'a> {
        let (bytes, size) = (x.values().bytes, x.values().size());
        let even = x.even_rows(head * rows * columns, rows, columns);
        AskRows { bytes, places: even.map(|(first, distance)| [first, distance, columns].map(|n| n * size)), rows }
    }

    /// When row `i` is read.
    pub(crate) fn at(&self, i: usize) {
        if let Some([first, distance, row]) = self.places.filter(|_| i + AHEAD < self.rows) {
            prefetch::ask(self.bytes, first + (i + AHEAD) * distance, row);
        }
    }
}
