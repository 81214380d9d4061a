//! Kernels over rows: softmax, norms and losses, whose elements depend on all of their row.

use rayon::prelude::*;

use super::operand::{Compute, Operand, TASK, elements_mut};
use crate::simd::Isa;
use crate::{ArrayMut, Class, Layout, memory::Pool};

/// Walk order with the dimensions of `inner` last: rows are what lies in them.
pub fn order_with_last(rank: usize, inner: impl Fn(usize) -> bool) -> smallvec::SmallVec<[usize; 8]> {
    (0..rank).filter(|&d| !inner(d)).chain((0..rank).filter(|&d| inner(d))).collect()
}

/// Fills `out` row by row and returns what `f(row, elements)` returned for each. Rows are stretches of `len` elements in the
/// walk order `order`; where the output lies in memory in another order, they go through a buffer.
pub fn fill_rows<C: Compute, S: Send + Copy + Default>(
    isa: Isa,
    pool: &Pool,
    out: &mut ArrayMut<'_>,
    order: &[usize],
    len: usize,
    f: impl Fn(usize, &mut [C]) -> S + Sync,
) -> Vec<S> {
    let array = out.array();
    let (dtype, size, n) = (array.dtype(), array.dtype().size(), array.numel());
    let rows = n.checked_div(len).unwrap_or(0);
    let mut results = vec![S::default(); rows];
    if n == 0 {
        return results;
    }
    let per_task = (TASK / len).max(1);
    let walk = Layout::with_order(*array.shape(), order);
    if walk.same_order(array.layout()) {
        let Some(bytes) = out.bytes() else { return results };
        bytes[..n * size].par_chunks_mut(per_task * len * size).zip(results.par_chunks_mut(per_task)).enumerate().for_each(
            |(task, (chunk, results))| {
                // From the pool: fresh pages of the allocator would cost more than the rows.
                let wanted = if dtype == C::DTYPE { 0 } else { len };
                let Some(mut buffer) = pool.alloc(wanted * size_of::<C>(), Class::Workspace) else { return };
                let buffer = &mut buffer.as_mut_slice::<C>()[..wanted];
                for (i, (row, result)) in chunk.chunks_mut(len * size).zip(results).enumerate() {
                    if dtype == C::DTYPE {
                        *result = f(task * per_task + i, elements_mut::<C>(row));
                    } else {
                        *result = f(task * per_task + i, buffer);
                        C::store(isa, buffer, row, dtype);
                    }
                }
            },
        );
        return results;
    }
    let Some(mut scratch) = pool.alloc(n * size_of::<C>(), Class::Workspace) else { return results };
    let values: &mut [C] = scratch.as_mut_slice();
    values[..n].par_chunks_mut(per_task * len).zip(results.par_chunks_mut(per_task)).enumerate().for_each(
        |(task, (chunk, results))| {
            for (i, (row, result)) in chunk.chunks_mut(len).zip(results).enumerate() {
                *result = f(task * per_task + i, row);
            }
        },
    );
    let bytes: &[u8] = bytemuck::cast_slice(&values[..n]);
    let memory = super::operand::memory_order(array.layout());
    super::elementwise::cast::<C>(isa, &Operand::from_layout(C::DTYPE, &walk, bytes, array.shape(), &memory), out);
    results
}

/// Writes values to a contiguous output, rounding once.
pub fn write<C: Compute>(isa: Isa, values: &[C], out: &mut ArrayMut<'_>) {
    let (dtype, n) = (out.array().dtype(), out.array().numel());
    if let Some(bytes) = out.bytes() {
        C::store(isa, &values[..n], &mut bytes[..n * dtype.size()], dtype);
    }
}
