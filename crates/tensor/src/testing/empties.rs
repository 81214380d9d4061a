//! Samples of operators with extents of 0.

use std::collections::BTreeSet;

use crate::op::{Backward, Resample};
use crate::samples::Inputs;
use crate::{Array, Op, Result, Shape};

/// The operator at the shapes of `ins` with extents set to 0: each alone, each two together, and all of one value in
/// all inputs and in the operator's own shapes. Most are consistent for no operator, and errors; those that are not
/// must have a result.
///
/// # Errors
/// Out of memory.
pub fn empties(op: &Op, ins: &[Array]) -> Result<Vec<(Op, Inputs)>> {
    let mut shapes: Vec<Vec<usize>> = ins.iter().map(|a| a.shape().to_vec()).collect();
    shapes.push(own_extents(op));
    let places: Vec<(usize, usize)> =
        shapes.iter().enumerate().flat_map(|(i, shape)| (0..shape.len()).map(move |d| (i, d))).collect();
    let extent = |&(i, d): &(usize, usize)| shapes[i][d];
    let values: BTreeSet<usize> = places.iter().map(extent).collect();
    let alike = values.into_iter().map(|n| places.iter().copied().filter(|p| extent(p) == n).collect::<Vec<_>>());
    let pairs = places.iter().enumerate().flat_map(|(k, &a)| places[k..].iter().map(move |&b| vec![a, b]));
    let chosen: BTreeSet<Vec<(usize, usize)>> = alike.chain(pairs).collect();
    chosen
        .into_iter()
        .map(|chosen| {
            let shape = |i: usize| -> Vec<usize> {
                shapes[i].iter().enumerate().map(|(d, &n)| if chosen.contains(&(i, d)) { 0 } else { n }).collect()
            };
            let inputs = ins.iter().enumerate().map(|(i, array)| reshaped(array, &shape(i))).collect::<Result<_>>()?;
            Ok((with_extents(op, &shape(ins.len())), inputs))
        })
        .collect()
}

/// The first elements of an array under a smaller shape.
fn reshaped(array: &Array, shape: &[usize]) -> Result<Array> {
    let n: usize = shape.iter().product();
    let (device, class) = (array.device(), array.storage().class());
    crate::with_element!(array.dtype(), T => Array::from_slice::<T>(device, &array.to_vec::<T>()?[..n], shape, class))
}

/// The extents among an operator's attributes.
fn own_extents(op: &Op) -> Vec<usize> {
    let mut found = Vec::new();
    with_own_extents(op, &mut |shape| {
        found = shape.to_vec();
        *shape
    });
    found
}

/// The operator with other extents among its attributes.
fn with_extents(op: &Op, extents: &[usize]) -> Op {
    with_own_extents(op, &mut |_| Shape::from_slice(extents))
}

fn with_own_extents(op: &Op, change: &mut dyn FnMut(&Shape) -> Shape) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Sort { length: n, .. } | Op::Range { length: n, .. } | Op::Backward(Backward::Embedding { rows: n }) => {
            *n = change(&Shape::from_slice(&[*n]))[0];
        }
        Op::Resample(Resample::Interpolate { size, .. } | Resample::AdaptiveAvg { size }) => {
            let changed = change(&Shape::from_slice(size));
            size.copy_from_slice(&changed);
        }
        Op::Random { shape, .. } | Op::Fill { shape, .. } => *shape = change(shape),
        Op::Backward(
            Backward::Gather { shape, .. }
            | Backward::Conv2dInput { shape, .. }
            | Backward::Conv2dWeight { shape, .. }
            | Backward::Pool { shape, .. }
            | Backward::PoolSelect { shape, .. }
            | Backward::Resample { shape, .. }
            | Backward::Narrow { shape, .. },
        ) => *shape = change(shape),
        Op::Unary(_) | Op::Binary(_) | Op::Scalar { .. } | Op::Ternary { .. } | Op::Compare(_) | Op::Where => {}
        Op::Reduce { .. } | Op::Scan { .. } | Op::Gather { .. } | Op::Scatter { .. } | Op::ArgMax { .. } => {}
        Op::MatMul(_)
        | Op::MatMulOf { .. }
        | Op::Conv2d(..)
        | Op::ConvTranspose2d { .. }
        | Op::Pool(_)
        | Op::Softmax { .. } => {}
        Op::Norm(_) | Op::CrossEntropy(_) | Op::Loss { .. } | Op::Attention(_) | Op::Embedding | Op::Cat { .. } => {}
        Op::Resample(Resample::Flip(_) | Resample::Roll(_) | Resample::Pad { .. }) | Op::Dropout { .. } => {}
        Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy | Op::View(_) | Op::Custom(_) => {}
        Op::Backward(
            Backward::Unary(_)
            | Backward::Binary { .. }
            | Backward::Scalar { .. }
            | Backward::Reduce { .. }
            | Backward::CumProd { .. }
            | Backward::Depthwise { .. }
            | Backward::Softmax { .. }
            | Backward::MatMulOf { .. }
            | Backward::Norm(_)
            | Backward::Renormalise(_)
            | Backward::CrossEntropy(_)
            | Backward::Loss { .. }
            | Backward::Ternary { .. }
            | Backward::Attention { .. },
        ) => {}
    }
    op
}
