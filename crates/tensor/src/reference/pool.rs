//! Pooling.

use super::definition::{Definition, each};
use super::reduce::reduce;
use super::{Dense, unflatten};
use crate::Result;
use crate::op::{Pool, PoolBackward, PoolKind, PoolSelect, Reduce};

impl Definition for Pool {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let pool = self;
        Ok(vec![each(shapes, &|i| {
            let window: Vec<f64> = window(pool, &x[0].shape, i).iter().map(|at| x[0].at(at)).collect();
            match pool.kind {
                PoolKind::Max => reduce(Reduce::Max, &window),
                PoolKind::Avg => window.iter().sum::<f64>() / divisor(pool, &x[0].shape, i),
            }
        })])
    }
}

/// Pixels of an image of shape `x` under the window of output pixel `o`, in row-major order.
fn window(pool: &Pool, x: &[usize], o: &[usize]) -> Vec<[usize; 4]> {
    let at = |d: usize, k: usize| (o[d + 2] * pool.stride[d] + k * pool.dilation[d]).checked_sub(pool.padding[d]);
    let inside = |d: usize, k: usize| at(d, k).filter(|&p| p < x[d + 2]);
    let row = |y: usize| (0..pool.kernel[1]).filter_map(move |kx| Some([o[0], o[1], y, inside(1, kx)?]));
    (0..pool.kernel[0]).filter_map(|ky| inside(0, ky)).flat_map(row).collect()
}

/// Taps of a mean that count: those inside, or all up to the end of the padding.
fn divisor(pool: &Pool, x: &[usize], o: &[usize]) -> f64 {
    if let Some(divisor) = pool.divisor {
        return divisor.get() as f64;
    }
    let count = |d: usize| {
        let (n, pad) = (x[d + 2] as isize, pool.padding[d] as isize);
        let at = |k: usize| (o[d + 2] * pool.stride[d] + k) as isize - pad;
        let range = if pool.count_padding { -pad..n + pad } else { 0..n };
        (0..pool.kernel[d]).filter(|&k| range.contains(&at(k))).count()
    };
    (count(0) * count(1)) as f64
}

impl Definition for PoolBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (pool, g, shape) = (&self.pool, &x[0], &shapes[0]);
        let mut dx = Dense::zeros(shape);
        for flat in 0..g.v.len() {
            let o = unflatten(flat, &g.shape);
            match pool.kind {
                PoolKind::Avg => {
                    window(pool, shape, &o).iter().for_each(|at| dx.add(at, g.v[flat] / divisor(pool, shape, &o)));
                }
                PoolKind::Max => {
                    first_largest(&x[1], &window(pool, shape, &o)).iter().for_each(|at| dx.add(at, g.v[flat]))
                }
            }
        }
        Ok(vec![dx])
    }
}

impl Definition for PoolSelect {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (pool, g) = (&self.pool, &x[0]);
        Ok(vec![each(shapes, &|o| first_largest(&x[1], &window(pool, &x[1].shape, o)).map_or(0.0, |at| g.at(&at)))])
    }
}

/// Of some pixels the first where `x` is largest; NaN is larger than all.
fn first_largest(x: &Dense, window: &[[usize; 4]]) -> Option<[usize; 4]> {
    window.iter().copied().reduce(|best, at| {
        let (a, b) = (x.at(&best), x.at(&at));
        if a.is_nan() || b <= a { best } else { at }
    })
}
