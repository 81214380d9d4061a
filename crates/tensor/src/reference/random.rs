//! Random values, dropout, constants.

use super::Dense;
use super::definition::{Definition, each};
use crate::op::{Distribution, Dropout, Fill, Random, Range};
use crate::{Key, Result};

impl Definition for Dropout {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (Dropout { p, key }, shape) = (self, &shapes[0]);
        let dropped = |flat: usize| (key.bits(flat) as f64) < (p * 4294967296.0).floor();
        let v = x[0].v.iter().enumerate().map(|(flat, v)| if dropped(flat) { 0.0 } else { v / (1.0 - p) }).collect();
        Ok(vec![Dense { shape: shape.clone(), v }])
    }
}

impl Definition for Random {
    fn evaluate(&self, _x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![random(&self.distribution, self.key, &shapes[0])])
    }
}

/// Two words per element, as the definition of the streams says.
fn random(distribution: &Distribution, key: Key, shape: &[usize]) -> Dense {
    let n: usize = shape.iter().product();
    let pair = |i: usize| {
        let block = key.block((i / 2) as u32);
        [block[i % 2 * 2], block[i % 2 * 2 + 1]]
    };
    let v = match distribution {
        Distribution::Uniform { low, high } => {
            // 24 bits.
            (0..n).map(|i| low + (high - low) * (key.bits(i) >> 8) as f64 / 16_777_216.0).collect()
        }
        Distribution::Normal { mean, std } => {
            // Box and Muller (1958), u in (0, 1].
            let normal = |[a, b]: [u32; 2]| {
                let (u, turn) = ((a as f64 + 1.0) / 4_294_967_296.0, b as f64 / 4_294_967_296.0);
                (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * turn).cos()
            };
            (0..n).map(|i| mean + std * normal(pair(i))).collect()
        }
        Distribution::Integers { .. } => integers(distribution, key, n).into_iter().map(|v| v as f64).collect(),
        Distribution::Permutation => {
            let mut v: Vec<f64> = (0..n).map(|i| i as f64).collect();
            for i in 0..n {
                // Fisher and Yates, from the end: a place below n − i as that part of 64 bits.
                let [high, low] = pair(i).map(u128::from);
                v.swap(n - 1 - i, (((high << 32 | low) * (n - i) as u128) >> 64) as usize);
            }
            v
        }
    };
    Dense { shape: shape.to_vec(), v }
}

/// The integers of a distribution: a place in low..high as that part of 64 bits, of two words per element. None of
/// others.
pub(super) fn integers(distribution: &Distribution, key: Key, n: usize) -> Vec<i64> {
    let &Distribution::Integers { low, high } = distribution else { return vec![] };
    let width = (i128::from(high) - i128::from(low)) as u128;
    let drawn = |i: usize| {
        let block = key.block((i / 2) as u32);
        let [a, b] = [block[i % 2 * 2], block[i % 2 * 2 + 1]].map(u128::from);
        (i128::from(low) + (((a << 32 | b) * width) >> 64) as i128) as i64
    };
    (0..n).map(drawn).collect()
}

impl Definition for Fill {
    fn evaluate(&self, _x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|_| self.value)])
    }
}

impl Definition for Range {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let start = self.start as f64 + x.first().map_or(0.0, |base| base.v[0]);
        Ok(vec![each(shapes, &|i| start + i[0] as f64)])
    }
}
