//! Separable linear maps.

use super::definition::{Definition, each};
use super::{Dense, unflatten};
use crate::Result;
use crate::op::{Resample, ResampleBackward};

impl Definition for Resample {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let map = self;
        Ok(vec![each(shapes, &|i| {
            let terms = places_of(map, &x[0].shape, i);
            if terms.is_empty() { map.fill() } else { terms.iter().map(|(at, w)| w * x[0].at(at)).sum() }
        })])
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

impl Definition for ResampleBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (ResampleBackward { map, shape: input }, g, shape) = (self, &x[0], &shapes[0]);
        let mut dx = Dense::zeros(shape);
        for flat in 0..g.v.len() {
            for (at, w) in places_of(map, input, &unflatten(flat, &g.shape)) {
                dx.add(&at, w * g.v[flat]);
            }
        }
        Ok(vec![dx])
    }
}
