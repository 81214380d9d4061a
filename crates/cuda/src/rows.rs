//! Operands of kernels over rows: what lies in some dimensions belongs together.

use binade_tensor::{Layout, MAX_RANK};
use bytemuck::{Pod, Zeroable};
use smallvec::SmallVec;

use crate::view::{View, code};

/// A dimension that several operands are walked along: its extent, and how far each goes with a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis<const N: usize> {
    pub(crate) extent: usize,
    pub(crate) strides: [usize; N],
}

/// Dimensions, outermost first.
pub(crate) type Axes<const N: usize> = SmallVec<[Axis<N>; MAX_RANK]>;

impl<const N: usize> Axis<N> {
    /// Dimension `d` of layouts that have one shape.
    pub(crate) fn of(layouts: [&Layout; N], d: usize) -> Axis<N> {
        Axis { extent: layouts[0].shape[d], strides: layouts.map(|layout| layout.strides[d]) }
    }
}

/// `Rows` of `rows.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Rows {
    pub(crate) rows: u32,
    pub(crate) n: u32,
    outer_rank: u32,
    inner_rank: u32,
    outer: [u32; MAX_RANK],
    inner: [u32; MAX_RANK],
}

/// `RowOperand` of `rows.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RowOperand {
    at: u64,
    dtype: u32,
    unused: u32,
    outer: [i64; MAX_RANK],
    inner: [i64; MAX_RANK],
}

/// Dimensions without those of extent 1, and with those merged that lie behind each other in all operands. Never none.
fn merged<const N: usize>(axes: &[Axis<N>]) -> Axes<N> {
    let mut merged = Axes::<N>::new();
    for axis in axes.iter().filter(|axis| axis.extent != 1) {
        match merged.last_mut() {
            Some(last) if (0..N).all(|k| last.strides[k] == axis.strides[k] * axis.extent) => {
                *last = Axis { extent: last.extent * axis.extent, strides: axis.strides };
            }
            _ => merged.push(*axis),
        }
    }
    if merged.is_empty() {
        merged.push(Axis { extent: 1, strides: [0; N] });
    }
    merged
}

/// Rows and their operands; an operand that is not there has no memory. `None` if there are more dimensions than
/// kernels walk.
pub(crate) fn rows<const N: usize>(
    views: [Option<&View>; N],
    outer: &[Axis<N>],
    inner: &[Axis<N>],
) -> Option<(Rows, [RowOperand; N])> {
    let count = |axes: &[Axis<N>]| axes.iter().map(|axis| axis.extent).product::<usize>() as u32;
    let (rows, n) = (count(outer), count(inner));
    let (outer, inner) = (merged(outer), merged(inner));
    if outer.len() > MAX_RANK || inner.len() > MAX_RANK {
        return None;
    }
    let mut r = Rows { rows, n, outer_rank: outer.len() as u32, inner_rank: inner.len() as u32, ..Rows::default() };
    let mut operands = views.map(|view| RowOperand {
        at: view.map_or(0, View::at),
        dtype: view.map_or(0, |view| code(view.dtype)),
        ..RowOperand::default()
    });
    for (d, axis) in outer.iter().enumerate() {
        r.outer[d] = axis.extent as u32;
        operands.iter_mut().zip(axis.strides).for_each(|(o, stride)| o.outer[d] = stride as i64);
    }
    for (d, axis) in inner.iter().enumerate() {
        r.inner[d] = axis.extent as u32;
        operands.iter_mut().zip(axis.strides).for_each(|(o, stride)| o.inner[d] = stride as i64);
    }
    Some((r, operands))
}

/// Blocks and threads for 16 threads to a row.
pub(crate) fn grid(rows: usize) -> ([usize; 3], usize) {
    let threads = (rows * 16).next_multiple_of(32).clamp(32, 256);
    ([(rows * 16).div_ceil(threads).max(1), 1, 1], threads)
}
