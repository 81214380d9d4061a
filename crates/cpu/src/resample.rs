//! Separable linear maps (see [`Resample`]): rows of the innermost dimension, each a weighted sum of input rows.

use super::gemm::workspace;
use super::operand::{Compute, Operand, memory_order};
use super::rows::fill_rows;
use crate::kernel::{Context, In, Out};
use binade_tensor::op::{Resample, TAPS_IN_A_CHAIN, Taps, transposed};
use binade_tensor::{Result, Shape};
use std::ops::Range;

pub(super) fn forward<C: Compute>(cx: Context<'_>, map: &Resample, x: In<'_>, out: &mut Out<'_>) -> Result<()> {
    let taps: Vec<Vec<Taps>> = (0..x.shape().rank()).map(|d| map.taps(d, x.shape()[d])).collect();
    apply::<C>(cx, &taps, map.fill(), x, out)
}

/// The transposed map; `shape` is the input's.
pub(super) fn backward<C: Compute>(
    cx: Context<'_>,
    map: &Resample,
    shape: &Shape,
    g: In<'_>,
    out: &mut Out<'_>,
) -> Result<()> {
    let taps: Vec<Vec<Taps>> = (0..shape.rank()).map(|d| transposed(&map.taps(d, shape[d]), shape[d])).collect();
    apply::<C>(cx, &taps, 0.0, g, out)
}

/// `y[i…] = Σ Π w·x[j…]` over the taps (j, w) of every dimension, in order; `fill` where a dimension has none.
fn apply<C: Compute>(cx: Context<'_>, taps: &[Vec<Taps>], fill: f64, x: In<'_>, out: &mut Out<'_>) -> Result<()> {
    let Context { isa, pool } = cx;
    let shape = *out.array().shape();
    if shape.rank() == 0 || x.numel() == 0 {
        // A scalar has no dimension to change; of nothing, only padding can be made.
        let order = memory_order(out.array().layout());
        let operand = Operand::new(x, x.shape(), &order);
        super::operand::fill::<C>(isa, out, |start, y| {
            if x.numel() > 0 { operand.load(isa, start, y) } else { y.fill(C::from_f64(fill)) }
        });
        return Ok(());
    }
    let order = memory_order(out.array().layout());
    // The input in the output's memory order, in the computing type.
    let n = x.numel();
    let mut scratch = workspace::<C>(pool, n)?;
    let values = &mut scratch.as_mut_slice::<C>()[..n];
    Operand::new(x, x.shape(), &order).load_all(isa, values);
    let values = &*values;
    let mut strides = vec![0; shape.rank()];
    let mut stride = 1;
    for &d in order.iter().rev() {
        strides[d] = stride;
        stride *= x.shape()[d];
    }
    let (inner, outer) = (order[order.len() - 1], &order[..order.len() - 1]);
    let row = &taps[inner];
    let identity = row.len() == x.shape()[inner] && row.iter().enumerate().all(|(i, t)| **t == [(i, 1.0)]);
    let most = row.iter().map(|taps| taps.len()).max().unwrap_or(0).max(1);
    let fill = C::from_f64(fill);
    fill_rows::<C, ()>(cx, out, &order, shape[inner], |index, y| {
        // (offset, weight) of every input row of this output row.
        let mut rows: smallvec::SmallVec<[(usize, f64); 16]> = smallvec::smallvec![(0, 1.0)];
        let mut rest = index;
        let mut at = [0; binade_tensor::MAX_RANK];
        for &d in outer.iter().rev() {
            at[d] = rest % shape[d];
            rest /= shape[d];
        }
        for &d in outer {
            let before = std::mem::take(&mut rows);
            let (taps, stride) = (&taps[d][at[d]], strides[d]);
            rows.extend(before.iter().flat_map(|&(o, w)| taps.iter().map(move |&(j, v)| (o + j * stride, w * v))));
        }
        if rows.is_empty() {
            return y.fill(fill);
        }
        if rows.len() * most <= TAPS_IN_A_CHAIN {
            return weigh(&rows, values, row, 0..most, identity, fill, y);
        }
        // Chains of rows, or of parts of a row, in the computing type; their sums in f64.
        let mut total = vec![-0.0; y.len()];
        for rows in rows.chunks((TAPS_IN_A_CHAIN / most).max(1)) {
            for first in (0..most).step_by(TAPS_IN_A_CHAIN) {
                weigh(rows, values, row, first..first + TAPS_IN_A_CHAIN, identity, C::from_f64(-0.0), y);
                total.iter_mut().zip(&*y).for_each(|(total, y)| *total += y.as_f64());
            }
        }
        for ((y, total), taps) in y.iter_mut().zip(total).zip(row) {
            *y = if taps.is_empty() { fill } else { C::from_f64(total) };
        }
    })?;
    Ok(())
}

/// `y[i] = Σ weight·w·x[offset + j]` over rows (offset, weight) and the taps (j, w) of `i` in `part`, in order; `fill`
/// where there are none. `identity` if each place has itself with weight 1.
fn weigh<C: Compute>(
    rows: &[(usize, f64)],
    values: &[C],
    row: &[Taps],
    part: Range<usize>,
    identity: bool,
    fill: C,
    y: &mut [C],
) {
    for (k, &(offset, weight)) in rows.iter().enumerate() {
        let from = &values[offset..];
        let weight = C::from_f64(weight);
        if identity {
            // The first term is assigned: 0 + (−0) would lose the sign.
            match (k, weight == C::one()) {
                (0, true) => y.copy_from_slice(&from[..y.len()]),
                (0, false) => y.iter_mut().zip(from).for_each(|(y, &x)| *y = weight * x),
                (_, _) => y.iter_mut().zip(from).for_each(|(y, &x)| *y += weight * x),
            }
            continue;
        }
        for (y, taps) in y.iter_mut().zip(row) {
            let taps = &taps[part.start.min(taps.len())..part.end.min(taps.len())];
            let mut terms = taps.iter().map(|&(j, w)| C::from_f64(w) * weight * from[j]);
            let Some(first) = terms.next() else {
                *y = fill;
                continue;
            };
            let sum = terms.fold(first, |sum, term| sum + term);
            *y = if k == 0 { sum } else { *y + sum };
        }
    }
}
