//! Kernels over rows: softmax, norms and losses, whose elements depend on all of their row.

use crate::kernel::{Context, Out};
use rayon::prelude::*;

use super::operand::{Compute, Operand, TASK, elements_mut};
use super::tasks::Tasks as _;
use crate::gemm::workspace;
use crate::simd::{Isa, Stored};
use binade_tensor::{Error, Layout, Result, memory::Pool};

/// Walk order with the dimensions of `inner` last: rows are what lies in them.
pub fn order_with_last(rank: usize, inner: impl Fn(usize) -> bool) -> smallvec::SmallVec<[usize; 8]> {
    (0..rank).filter(|&d| !inner(d)).chain((0..rank).filter(|&d| inner(d))).collect()
}

/// Tasks that are enough for any number of threads: kernels that work on a row and the one ahead have a beginning and
/// an end.
const TASKS: usize = 256;

type RowsTask<'a, C, S> = dyn Fn(usize, &mut [u8], &mut [S], &mut [C]) + Sync + 'a;

/// Runs `f(first row, bytes, results, scratch)` on tasks of some rows of `len` elements that lie in `bytes` and returns
/// the results, one a row; a task has scratch of so many elements, of any content. From the pool: fresh pages of the
/// allocator would cost more than the rows.
fn row_tasks<C: Compute, S: Send + Copy + Default>(
    pool: &Pool,
    bytes: &mut [u8],
    [len, size, scratch]: [usize; 3],
    f: &RowsTask<'_, C, S>,
) -> Result<Vec<S>> {
    let row = (len * size).max(1);
    let rows = bytes.len() / row;
    let per_task = (TASK / len.max(1)).max(rows / TASKS).max(1);
    let mut results = vec![S::default(); rows];
    bytes.par_chunks_mut(per_task * row).zip(results.par_chunks_mut(per_task)).enumerate().try_each(
        |(task, (chunk, results))| {
            let mut buffer = workspace::<C>(pool, scratch)?;
            f(task * per_task, chunk, results, &mut buffer.as_mut_slice::<C>()[..scratch]);
            Ok::<(), Error>(())
        },
    )?;
    Ok(results)
}

/// Whether an output lies in memory in a walk order of its dimensions.
pub fn is_in_order(out: &Out<'_>, order: &[usize]) -> bool {
    Layout::with_order(*out.array().shape(), order).same_order(out.array().layout())
}

/// As [`fill_rows`] for an output that [`is_in_order`], in place in its own type, several rows at a time: `f(first row,
/// elements, results, scratch)`.
pub fn fill_rows_as<C: Compute, T: Stored<C>, S: Send + Copy + Default>(
    pool: &Pool,
    out: &mut Out<'_>,
    len: usize,
    scratch: usize,
    f: impl Fn(usize, &mut [T], &mut [S], &mut [C]) + Sync,
) -> Result<Vec<S>> {
    let (n, size) = (out.array().numel(), out.array().dtype().size());
    row_tasks(pool, &mut out.bytes()[..n * size], [len, size, scratch], &|first, bytes, results, scratch| {
        f(first, bytemuck::cast_slice_mut(bytes), results, scratch);
    })
}

/// Fills `out` row by row and returns what `f(row, elements)` returned for each. Rows are stretches of `len` elements
/// in the walk order `order`; where the output lies in memory in another order, they go through a buffer.
pub fn fill_rows<C: Compute, S: Send + Copy + Default>(
    cx: Context<'_>,
    out: &mut Out<'_>,
    order: &[usize],
    len: usize,
    f: impl Fn(usize, &mut [C]) -> S + Sync,
) -> Result<Vec<S>> {
    let Context { isa, pool } = cx;
    let array = out.array();
    let (dtype, size, n) = (array.dtype(), array.dtype().size(), array.numel());
    if n == 0 {
        return Ok(vec![S::default(); n.checked_div(len).unwrap_or(0)]);
    }
    if is_in_order(out, order) {
        let in_place = dtype == C::DTYPE;
        let wanted = if in_place { 0 } else { len };
        return row_tasks::<C, S>(
            pool,
            &mut out.bytes()[..n * size],
            [len, size, wanted],
            &|first, bytes, results, buffer| {
                for (i, (bytes, result)) in bytes.chunks_mut(len * size).zip(results).enumerate() {
                    if in_place {
                        *result = f(first + i, elements_mut::<C>(bytes));
                    } else {
                        *result = f(first + i, buffer);
                        C::store(isa, buffer, bytes, dtype);
                    }
                }
            },
        );
    }
    let walk = Layout::with_order(*out.array().shape(), order);
    let (per_task, mut results) = ((TASK / len).max(1), vec![S::default(); n / len]);
    let mut scratch = workspace::<C>(pool, n)?;
    let values: &mut [C] = scratch.as_mut_slice();
    values[..n].par_chunks_mut(per_task * len).zip(results.par_chunks_mut(per_task)).enumerate().each(
        |(task, (chunk, results))| {
            for (i, (row, result)) in chunk.chunks_mut(len).zip(results).enumerate() {
                *result = f(task * per_task + i, row);
            }
        },
    );
    let bytes: &[u8] = bytemuck::cast_slice(&values[..n]);
    let memory = super::operand::memory_order(out.array().layout());
    super::elementwise::cast::<C>(
        isa,
        &Operand::from_layout(C::DTYPE, &walk, bytes, out.array().shape(), &memory),
        out,
    );
    Ok(results)
}

/// Writes values to a contiguous output, rounding once.
pub fn write<C: Compute>(isa: Isa, values: &[C], out: &mut Out<'_>) {
    let (dtype, n) = (out.array().dtype(), out.array().numel());
    C::store(isa, &values[..n], &mut out.bytes()[..n * dtype.size()], dtype);
}
