//! Separable linear maps.

use super::definition::{Definition, each};
#[cfg(feature = "oracle")]
use super::errors::{Roundings, scaled};
use super::{Dense, unflatten};
use crate::Result;
use crate::op::{Resample, ResampleBackward, Taps};

impl Definition for Resample {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![map(self, &x[0], shapes, |v| v)])
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(scaled(&[map(self, &x[0], shapes, f64::abs)], by.e))
    }
}

/// What each output along each dimension is made of: inputs and their weights.
fn taps_of(map: &Resample, x: &[usize]) -> Vec<Vec<Taps>> {
    x.iter().enumerate().map(|(d, &extent)| map.taps(d, extent)).collect()
}

/// The inputs that make output `i` of a linear map of a tensor of shape `x`, by their place in memory, and their
/// weights.
fn places_of(taps: &[Vec<Taps>], x: &[usize], i: &[usize]) -> Vec<(usize, f64)> {
    let mut all = vec![(0, 1.0)];
    for (d, taps) in taps.iter().enumerate() {
        let further = |(at, w): (usize, f64)| taps[i[d]].iter().map(move |&(j, v)| (at * x[d] + j, w * v));
        all = all.into_iter().flat_map(further).collect();
    }
    all
}

/// The sum of weights times elements, `of` each, or of the magnitudes of both.
fn map(map: &Resample, x: &Dense, shapes: &[Vec<usize>], of: fn(f64) -> f64) -> Dense {
    let taps = taps_of(map, &x.shape);
    each(shapes, &|i| {
        let terms = places_of(&taps, &x.shape, i);
        if terms.is_empty() { map.fill() } else { terms.iter().map(|(at, w)| of(*w) * of(x.v[*at])).sum() }
    })
}

/// The same of the transposed map.
fn map_back(op: &ResampleBackward, g: &Dense, shape: &[usize], of: fn(f64) -> f64) -> Dense {
    let (mut dx, taps) = (Dense::zeros(shape), taps_of(&op.map, &op.shape));
    for flat in 0..g.v.len() {
        for (at, w) in places_of(&taps, &op.shape, &unflatten(flat, &g.shape)) {
            dx.v[at] += of(w) * of(g.v[flat]);
        }
    }
    dx
}

impl Definition for ResampleBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![map_back(self, &x[0], &shapes[0], |v| v)])
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(scaled(&[map_back(self, &x[0], &shapes[0], f64::abs)], by.e))
    }
}
