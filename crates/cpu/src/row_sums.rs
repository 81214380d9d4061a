//! Sums of the rows of a product's left operand, taken as it is packed: the gradient of a linear layer's bias, beside
//! that of its weight.

use rayon::prelude::*;

use super::channels;
use super::operand::Compute;
use super::tasks::Tasks as _;
use crate::simd::{Isa, Stored};

/// Places of a row that are added in f32. What they give is added in f64, in order: the bits depend on the extents
/// alone.
const PLACES: usize = 32;
/// Rows at a time.
const ROWS: usize = 128;

/// Adds `places` places of `sums.len()` rows, those of a place side by side in memory and places `ld` apart. All but
/// the last call for a row have a multiple of [`PLACES`].
pub(super) fn add<C: Compute, X: Stored<C>>(isa: Isa, from: &[X], ld: usize, places: usize, sums: &mut [f64]) {
    let mut part = [C::zero(); ROWS];
    for (i, sums) in sums.chunks_mut(ROWS).enumerate() {
        let part = &mut part[..sums.len()];
        for at in (0..places).step_by(PLACES) {
            channels::sum_rows(isa, &from[at * ld + i * ROWS..], ld, PLACES.min(places - at), part);
            sums.iter_mut().zip(&*part).for_each(|(sum, part)| *sum += part.as_f64());
        }
    }
}

/// As many pieces of `sums` as a loop has tasks; empty ones where there are no sums.
pub(super) fn pieces(sums: &mut [f64], size: usize, tasks: usize) -> Vec<&mut [f64]> {
    let mut pieces: Vec<&mut [f64]> = sums.chunks_mut(size.max(1)).collect();
    pieces.resize_with(tasks, Default::default);
    pieces
}

/// Adds parts of the same rows, in order.
pub(super) fn total(parts: &[f64], to: &mut [f64]) {
    /// Rows of a task.
    const TASK: usize = 1024;
    let rows = to.len().max(1);
    to.par_chunks_mut(TASK).enumerate().each(|(task, to)| {
        let sum = |row: usize| parts.chunks(rows).map(|part| part[row]).sum();
        to.iter_mut().enumerate().for_each(|(i, to)| *to = sum(task * TASK + i));
    });
}
