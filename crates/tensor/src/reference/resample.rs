//! Separable linear maps.

use super::definition::{Definition, each};
#[cfg(feature = "oracle")]
use super::errors::{Roundings, scaled};
use super::{Dense, unflatten};
use crate::Result;
use crate::op::{Resample, ResampleBackward};

impl Definition for Resample {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![map(self, &x[0], shapes, |v| v)])
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(scaled(&[map(self, &x[0], shapes, f64::abs)], by.e))
    }
}

/// The inputs that make output `i` of a linear map, and their weights.
fn places_of(map: &Resample, x: &[usize], i: &[usize]) -> Vec<(Vec<usize>, f64)> {
    let mut all = vec![(Vec::new(), 1.0)];
    for d in 0..x.len() {
        let taps = &map.taps(d, x[d])[i[d]];
        all =
            all.iter().flat_map(|(at, w)| taps.iter().map(move |&(j, v)| ([&at[..], &[j]].concat(), w * v))).collect();
    }
    all
}

/// The sum of weights times elements, `of` each, or of the magnitudes of both.
fn map(map: &Resample, x: &Dense, shapes: &[Vec<usize>], of: fn(f64) -> f64) -> Dense {
    each(shapes, &|i| {
        let terms = places_of(map, &x.shape, i);
        if terms.is_empty() { map.fill() } else { terms.iter().map(|(at, w)| of(*w) * of(x.at(at))).sum() }
    })
}

/// The same of the transposed map.
fn map_back(op: &ResampleBackward, g: &Dense, shape: &[usize], of: fn(f64) -> f64) -> Dense {
    let mut dx = Dense::zeros(shape);
    for flat in 0..g.v.len() {
        for (at, w) in places_of(&op.map, &op.shape, &unflatten(flat, &g.shape)) {
            dx.add(&at, of(w) * of(g.v[flat]));
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
