//! Elements by their positions.

use super::definition::{Definition, check_index, each, extent};
use super::{Dense, order, unflatten};
use crate::Result;
use crate::op::{Embedding, EmbeddingBackward, Gather, GatherBackward, Scatter, ScatterOp, Sort};

impl Definition for Gather {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let dim = &self.dim;
        check_index("gather", &x[1], extent(&x[0].shape, *dim), "elements", None)?;
        Ok(vec![each(shapes, &|i| {
            let mut at = i.to_vec();
            if let Some(at) = at.get_mut(*dim) {
                *at = x[1].at(i) as usize;
            }
            x[0].at(&at)
        })])
    }
}

impl Definition for GatherBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (dim, g, shape) = (&self.dim, &x[0], &shapes[0]);
        check_index("scatter", &x[1], extent(shape, *dim), "elements", None)?;
        let mut dx = Dense::zeros(shape);
        for flat in 0..g.v.len() {
            let mut at = unflatten(flat, &g.shape);
            if let Some(at) = at.get_mut(*dim) {
                *at = x[1].v[flat] as usize;
            }
            dx.add(&at, g.v[flat]);
        }
        Ok(vec![dx])
    }
}

impl Definition for ScatterOp {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (ScatterOp { kind, dim }, shape) = (self, &shapes[0]);
        check_index("scatter", &x[1], extent(shape, *dim), "elements", None)?;
        let mut y = x[0].clone();
        for flat in 0..x[1].v.len() {
            let from = unflatten(flat, &x[1].shape);
            let mut to = from.clone();
            if let Some(to) = to.get_mut(*dim) {
                *to = x[1].v[flat] as usize;
            }
            match kind {
                Scatter::Set => y.set(&to, x[2].at(&from)),
                Scatter::Add => y.add(&to, x[2].at(&from)),
            }
        }
        Ok(vec![y])
    }
}

impl Definition for Sort {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (Sort { dim, descending, .. }, shape) = (self, &shapes[0]);
        let (mut values, mut places) = (Dense::zeros(shape), Dense::zeros(shape));
        for flat in 0..values.v.len() {
            let mut at = unflatten(flat, shape);
            let rank = std::mem::replace(&mut at[*dim], 0);
            let mut row: Vec<(f64, usize)> = (0..x[0].shape[*dim])
                .map(|j| {
                    at[*dim] = j;
                    (x[0].at(&at), j)
                })
                .collect();
            row.sort_by(|a, b| if *descending { order(b.0, a.0) } else { order(a.0, b.0) });
            (values.v[flat], places.v[flat]) = (row[rank].0, row[rank].1 as f64);
        }
        Ok(vec![values, places])
    }
}

impl Definition for Embedding {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        check_index("embedding", &x[1], x[0].shape[0], "rows", None)?;
        Ok(vec![each(shapes, &|i| x[0].at(&[x[1].at(&i[..i.len() - 1]) as usize, i[i.len() - 1]]))])
    }
}

impl Definition for EmbeddingBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (g, shape) = (&x[0], &shapes[0]);
        check_index("embedding", &x[1], shape[0], "rows", None)?;
        let mut dw = Dense::zeros(shape);
        let d = shape[1];
        for (flat, &up) in g.v.iter().enumerate() {
            dw.v[x[1].v[flat / d] as usize * d + flat % d] += up;
        }
        Ok(vec![dw])
    }
}
