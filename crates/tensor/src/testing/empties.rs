//! Samples of operators with extents of 0.

use std::collections::BTreeSet;

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
    op.family(|family| {
        family.with_extents(&mut |shape| {
            found = shape.to_vec();
            *shape
        })
    });
    found
}

/// The operator with other extents among its attributes.
fn with_extents(op: &Op, extents: &[usize]) -> Op {
    op.family(|family| family.with_extents(&mut |_| Shape::from_slice(extents))).unwrap_or_else(|| op.clone())
}
