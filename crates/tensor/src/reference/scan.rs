//! Running sums and products.

use super::Dense;
use super::definition::{Definition, each};
use crate::Result;
use crate::op::{CumProdBackward, Scan, ScanOp};

impl Definition for ScanOp {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let ScanOp { kind, dim, reverse } = self;
        Ok(vec![each(shapes, &|i| {
            let n = x[0].shape.get(*dim).copied().unwrap_or(1);
            let here = i.get(*dim).copied().unwrap_or(0);
            let mut at = i.to_vec();
            let mut order: Vec<usize> = if *reverse { (here..n).rev().collect() } else { (0..=here).collect() };
            let mut next = |j: usize| {
                if let Some(d) = at.get_mut(*dim) {
                    *d = j;
                }
                x[0].at(&at)
            };
            let first = next(order.remove(0));
            order.into_iter().fold(first, |total, j| if *kind == Scan::Sum { total + next(j) } else { total * next(j) })
        })])
    }
}

impl Definition for CumProdBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (dim, g) = (&self.dim, &x[0]);
        Ok(vec![each(shapes, &|at| {
            let (g, x): (Vec<f64>, Vec<f64>) = g.along(at, *dim).zip(x[1].along(at, *dim)).unzip();
            // Every product from this factor on, without it.
            let (here, mut others) = (at[*dim], x[..at[*dim]].iter().product::<f64>());
            let term = |i: usize| {
                others *= if i > here { x[i] } else { 1.0 };
                g[i] * others
            };
            (here..x.len()).map(term).sum::<f64>() + 0.0
        })])
    }
}
