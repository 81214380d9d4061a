//! What only moves elements, or rounds them.

use super::definition::{Definition, each};
use super::functions::stochastic;
use super::{Dense, unflatten};
use crate::op::{Cast, Cat, Copied, NarrowBackward, StochasticCast, View};
use crate::{Error, Result};

impl Definition for View {
    fn evaluate(&self, _x: &[Dense], _shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Err(Error::Argument { op: "view", message: "a view runs no kernel".into() })
    }
}

impl Definition for Cast {
    fn evaluate(&self, x: &[Dense], _shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![x[0].clone()])
    }
}

impl Definition for StochasticCast {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (StochasticCast { dtype, key }, shape) = (self, &shapes[0]);
        let round = |(flat, &v): (usize, &f64)| stochastic(*dtype, v, key.bits(flat));
        Ok(vec![Dense { shape: shape.clone(), v: x[0].v.iter().enumerate().map(round).collect() }])
    }
}

impl Definition for Copied {
    fn evaluate(&self, x: &[Dense], _shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![x[0].clone()])
    }
}

impl Definition for Cat {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let dim = &self.dim;
        Ok(vec![each(shapes, &|i| {
            let mut index = i.to_vec();
            for part in x {
                if index[*dim] < part.shape[*dim] {
                    let flat = part.shape.iter().zip(&index).fold(0, |flat, (&n, &i)| flat * n + i);
                    return part.v[flat];
                }
                index[*dim] -= part.shape[*dim];
            }
            f64::NAN
        })])
    }
}

impl Definition for NarrowBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (NarrowBackward { dim, start, .. }, g, shape) = (self, &x[0], &shapes[0]);
        let mut out = Dense::zeros(shape);
        for (flat, &v) in g.v.iter().enumerate() {
            let mut i = unflatten(flat, &g.shape);
            i[*dim] += start;
            out.set(&i, v);
        }
        Ok(vec![out])
    }
}
