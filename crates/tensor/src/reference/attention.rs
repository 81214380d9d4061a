//! Attention.

#[cfg(feature = "oracle")]
mod errors;

use super::definition::Definition;
#[cfg(feature = "oracle")]
use super::errors::Roundings;
use super::reduce::{groups, reduce};
use super::softmax::softmax;
use super::{Dense, unflatten};
use crate::op::{Attention, AttentionBackward, Reduce};
use crate::{Dims, Result};

impl Definition for Attention {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(attend(self, x, shapes))
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], _shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(errors::forward(self, x, by))
    }
}

/// The index with the head of k and v that serves its head of q.
fn key_head(i: &[usize], q: &Dense, k: &Dense) -> Vec<usize> {
    let mut i = i.to_vec();
    if let Some(head) = i.len().checked_sub(3) {
        i[head] /= q.shape[head] / k.shape[head];
    }
    i
}

/// What a weight is multiplied by in training.
fn kept(attention: &Attention, flat: usize) -> f64 {
    let dropped =
        attention.dropout > 0.0 && (attention.key.bits(flat) as f64) < (attention.dropout * 4294967296.0).floor();
    if dropped { 0.0 } else { 1.0 / (1.0 - attention.dropout) }
}

/// Scores `[…, T, S]`, −∞ where a key is hidden from a query, and their scale.
fn scores(attention: &Attention, q: &Dense, k: &Dense, mask: Option<&Dense>, bool_mask: bool) -> (Dense, f64) {
    let r = q.shape.len();
    let scale = attention.scale.unwrap_or(1.0 / (q.shape[r - 1].max(1) as f64).sqrt());
    let shape = [&q.shape[..r - 1], &[k.shape[r - 2]]].concat();
    let scores = Dense::from_fn(&shape, |i| {
        let added = mask.map_or(0.0, |m| match (m.at(i), bool_mask) {
            (0.0, true) => f64::NEG_INFINITY,
            (_, true) => 0.0,
            (added, false) => added,
        });
        if attention.causal && i[r - 1] > i[r - 2] || added == f64::NEG_INFINITY {
            return f64::NEG_INFINITY;
        }
        let mut key = key_head(i, q, k);
        key[r - 2] = i[r - 1];
        added + q.along(i, r - 1).zip(k.along(&key, r - 1)).map(|(q, k)| q * k).sum::<f64>() * scale
    });
    (scores, scale)
}

/// The softmax of scores; hidden keys have 0, also in rows that see none or contain NaN.
fn probabilities(scores: &Dense) -> Dense {
    let mut p = softmax(scores, scores.shape.len() - 1, false);
    p.v.iter_mut().zip(&scores.v).filter(|(_, s)| **s == f64::NEG_INFINITY).for_each(|(p, _)| *p = 0.0);
    p
}

/// A weight times a value, which counts for nothing where the key is hidden.
fn seen(score: f64, product: f64) -> f64 {
    if score == f64::NEG_INFINITY { 0.0 } else { product }
}

/// A mask of zeros and ones is a bool one: an additive mask of the samples is never both.
fn is_bool(mask: Option<&Dense>) -> bool {
    mask.is_some_and(|m| m.v.iter().all(|&v| v == 0.0 || v == 1.0))
}

fn attend(attention: &Attention, x: &[Dense], shapes: &[Vec<usize>]) -> Vec<Dense> {
    let (scores, _) = scores(attention, &x[0], &x[1], x.get(3), is_bool(x.get(3)));
    let r = scores.shape.len();
    let mut p = probabilities(&scores);
    p.v.iter_mut().enumerate().for_each(|(flat, p)| *p *= kept(attention, flat));
    let out = Dense::from_fn(&shapes[0], |i| {
        let value = key_head(i, &x[0], &x[1]);
        let weights = scores.along(i, r - 1).zip(p.along(i, r - 1));
        weights.zip(x[2].along(&value, r - 2)).map(|((s, p), v)| seen(s, p * v)).sum::<f64>() + 0.0
    });
    // A row that sees no key has +∞, from which weights follow as 0; one with a score +∞ has no weights.
    let lse = groups(&scores, Dims::one(r - 1)).into_iter().map(|row| match reduce(Reduce::LogSumExp, &row) {
        f64::NEG_INFINITY => f64::INFINITY,
        f64::INFINITY => f64::NAN,
        lse => lse,
    });
    vec![out, Dense { shape: shapes[1].clone(), v: lse.collect() }]
}

impl Definition for AttentionBackward {
    fn evaluate(&self, x: &[Dense], _shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (AttentionBackward { attention, joined }, g) = (self, &x[0]);
        let [q, k, v] = [&x[1], &x[2], &x[3]];
        let (scores, scale) = scores(attention, q, k, x.get(6), is_bool(x.get(6)));
        let r = scores.shape.len();
        let p = probabilities(&scores);
        let (mut dq, mut dk, mut dv) = (Dense::zeros(&q.shape), Dense::zeros(&k.shape), Dense::zeros(&v.shape));
        let with = |i: &[usize], row: usize| [&i[..r - 2], &[row, 0]].concat();
        // The gradient of the probabilities, then of the scores: p·(dp − Σ p·dp). A hidden key has no part in it.
        let mut dp = Dense::from_fn(&p.shape, |i| {
            let h = with(&key_head(i, q, k), i[r - 1]);
            seen(scores.at(i), g.along(&with(i, i[r - 2]), r - 1).zip(v.along(&h, r - 1)).map(|(g, v)| g * v).sum())
        });
        dp.v.iter_mut().enumerate().for_each(|(flat, dp)| *dp *= kept(attention, flat));
        let pairs = Dense { shape: p.shape.clone(), v: p.v.iter().zip(&dp.v).map(|(p, dp)| p * dp).collect() };
        let means: Vec<f64> = groups(&pairs, Dims::one(r - 1)).iter().map(|row| row.iter().sum()).collect();
        for flat in (0..p.v.len()).filter(|flat| scores.v[*flat] != f64::NEG_INFINITY) {
            let i = unflatten(flat, &p.shape);
            let (query, key) = (with(&i, i[r - 2]), with(&key_head(&i, q, k), i[r - 1]));
            let weight = p.v[flat] * kept(attention, flat);
            let ds = p.v[flat] * (dp.v[flat] - means[flat / p.shape[r - 1]]) * scale;
            dv.add_row(&key, weight, g.along(&query, r - 1));
            dq.add_row(&query, ds, k.along(&key, r - 1));
            dk.add_row(&key, ds, q.along(&query, r - 1));
        }
        Ok(if *joined {
            vec![Dense { shape: [&[3], &q.shape[..]].concat(), v: [dq.v, dk.v, dv.v].concat() }]
        } else {
            vec![dq, dk, dv]
        })
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], _shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(errors::backward(&self.attention, self.joined, x, by.u))
    }
}
