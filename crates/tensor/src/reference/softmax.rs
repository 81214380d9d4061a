//! Softmax.

use super::Dense;
use super::definition::{Definition, each};
use super::functions::sum_of;
use super::reduce::{groups, reduce};
use crate::op::{Reduce, Softmax, SoftmaxBackward};
use crate::{Dims, Result};

impl Definition for Softmax {
    fn evaluate(&self, x: &[Dense], _shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![softmax(&x[0], self.dim, self.log)])
    }
}

pub(super) fn softmax(x: &Dense, dim: usize, log: bool) -> Dense {
    let dims = if x.shape.is_empty() { Dims::all(0) } else { Dims::one(dim) };
    let totals: Vec<(f64, f64)> = groups(x, dims)
        .iter()
        .map(|g| {
            let max = reduce(Reduce::Max, g);
            (max, sum_of(g.iter().map(|v| f64::exp(v - max))))
        })
        .collect();
    Dense::from_fn(&x.shape, |i| {
        let at = (0..i.len()).filter(|&d| d != dim).fold(0, |at, d| at * x.shape[d] + i[d]);
        let (max, total) = totals[at];
        if log { x.at(i) - max - f64::ln(total) } else { f64::exp(x.at(i) - max) / total }
    })
}

impl Definition for SoftmaxBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (SoftmaxBackward { dim, log }, g, shape) = (self, &x[0], &shapes[0]);
        let index = |i: &[usize], j: usize| {
            let mut at = i.to_vec();
            if let Some(d) = at.get_mut(*dim) {
                *d = j;
            }
            at
        };
        let n = shape.get(*dim).copied().unwrap_or(1);
        Ok(vec![each(shapes, &|i| {
            let total = |f: &dyn Fn(&[usize]) -> f64| sum_of((0..n).map(|j| f(&index(i, j))));
            if *log {
                g.at(i) - f64::exp(x[1].at(i)) * total(&|j| g.at(j))
            } else {
                x[1].at(i) * (g.at(i) - total(&|j| g.at(j) * x[1].at(j)))
            }
        })])
    }
}
