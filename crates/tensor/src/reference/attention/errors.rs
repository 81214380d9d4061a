//! The errors of attention and its gradient.

use super::{attend, is_bool, kept, key_head, probabilities, scores};
use crate::format::Format;
use crate::op::{Attention, Reduce};
use crate::reference::errors::{Roundings, computing};
use crate::reference::reduce::{groups, reduce};
use crate::reference::{Dense, unflatten};
use crate::{DType, Dims};

/// Below this tiles take products for 0.
const TILES_FLUSH: f64 = f32::MIN_POSITIVE as f64;

/// How tensor cores multiply queries, keys and values of a format: eight products are added at a time. Each but the
/// largest is cut to 24 bits below the largest's exponent, and the sum to f32, by 2·u. A subnormal operand counts as
/// the smallest normal one.
#[derive(Clone, Copy)]
struct Cores(Format);

impl Cores {
    fn of(dtypes: &[DType]) -> Option<Cores> {
        match dtypes {
            [q, k, v, ..] if q == k && k == v && matches!(q, DType::F16 | DType::BF16) => q.format().map(Cores),
            _ => None,
        }
    }

    /// Roundings beside one for each of n products.
    fn cuts(n: usize) -> f64 {
        2.0 * (n as f64 / 8.0).ceil()
    }

    fn magnitude(self, v: f64) -> f64 {
        if v == 0.0 { 0.0 } else { v.abs().max(self.0.min_normal()) }
    }

    /// Roundings of a sum of n values times their weights. These are sums of two f16 numbers, to 22 bits, or of three
    /// bf16 ones, each of which is multiplied. What is there is rescaled every 16 keys, or more.
    fn chain(self, n: usize) -> f64 {
        let (planes, lost) = if self.0 == Format::F16 { (2.0, 4.0) } else { (3.0, 0.0) };
        planes * (n as f64 + Cores::cuts(n)) + n as f64 / 16.0 + lost + 8.0
    }

    /// What a weight of 1 at most loses besides: f16 ends at 2⁻²⁴, and weights are 2¹⁵ times as large there.
    fn vanishing(self) -> f64 {
        if self.0 == Format::F16 { 2f64.powi(-40) } else { TILES_FLUSH }
    }
}

/// What attention's errors follow from.
struct Weights {
    scores: Dense,
    scale: f64,
    p: Dense,
    lse: Vec<f64>,
    /// Error of each row's log-sum-exp: that of the mean weight, and where scores are off by much, of the whole sum.
    lse_off: Vec<f64>,
    /// Error of each score: a chain of products, the scaling, the mask, and the rounding of what is then subtracted
    /// from it.
    off: Dense,
}

impl Weights {
    fn of(attention: &Attention, [q, k]: [&Dense; 2], mask: Option<&Dense>, u: f64, cores: Option<Cores>) -> Weights {
        let (scores, scale) = scores(attention, q, k, mask, is_bool(mask));
        let r = scores.shape.len();
        let p = probabilities(&scores);
        let lse: Vec<f64> =
            groups(&scores, Dims::one(r - 1)).iter().map(|row| reduce(Reduce::LogSumExp, row)).collect();
        let d = q.shape[r - 1];
        let chain = d as f64 + 3.0 + cores.map_or(0.0, |_| Cores::cuts(d));
        let magnitude = |v: f64| cores.map_or(v.abs(), |cores| cores.magnitude(v));
        let off = Dense::from_fn(&scores.shape, |i| {
            let score = scores.at(i);
            if score == f64::NEG_INFINITY {
                return 0.0;
            }
            let mut key = key_head(i, q, k);
            key[r - 2] = i[r - 1];
            let products = q.along(i, r - 1).zip(k.along(&key, r - 1)).map(|(q, k)| magnitude(q) * magnitude(k));
            let size = products.sum::<f64>() * scale.abs();
            u * (chain * size + 2.0 * score.abs() + 4.0)
        });
        let row = |flat: usize| flat / k.shape[r - 2].max(1);
        let (mut means, mut sums) = (vec![0.0; lse.len()], vec![0.0; lse.len()]);
        for flat in 0..p.v.len() {
            means[row(flat)] += p.v[flat] * off.v[flat];
            // Of a row that sees no key nothing is added.
            let grown = scores.v[flat] - lse[row(flat)] + off.v[flat];
            sums[row(flat)] += if p.v[flat] > 0.0 || grown > -700.0 { grown.min(700.0).exp() } else { 0.0 };
        }
        let lse_off = means.iter().zip(&sums).map(|(m, s): (&f64, &f64)| m.max(s.ln()).max(0.0)).collect();
        Weights { scores, scale, p, lse, lse_off, off }
    }

    /// The largest that a weight may be whose exponent is off by `relative`, and how far it may be off. Scores are the
    /// same forward and backward, so it is at most 1.
    fn weight(&self, flat: usize, relative: f64) -> (f64, f64) {
        let (p, exponent) = (self.p.v[flat], self.scores.v[flat] - self.lse[self.row(flat)]);
        let most = (exponent + relative).exp().min(1.0).max(p);
        (most, (most - p).max(-p * (-relative).exp_m1()))
    }

    /// The row of scores of a flat position.
    fn row(&self, flat: usize) -> usize {
        flat / self.p.shape[self.p.shape.len() - 1].max(1)
    }
}

/// Roundings of a sum of `n` terms in chains of 256, which are then added, and some for the terms.
fn chain(n: usize) -> f64 {
    n.min(256) as f64 + n as f64 / 256.0 + 8.0
}

/// A weight is off by the error of its score and by the mean error of its row, in the exponent; then a chain over the
/// keys. One below the normal range is off by itself on tiles, and a value may be large.
pub(super) fn forward(attention: &Attention, x: &[Dense], by: Roundings<'_>) -> Vec<Vec<f64>> {
    let (u, cores) = (by.u, Cores::of(by.dtypes));
    let weights = Weights::of(attention, [&x[0], &x[1]], x.get(3), u, cores);
    let r = x[0].shape.len();
    let keys = weights.p.shape[r - 1];
    let vanishing = if computing(u) == Format::F64 { f64::from_bits(1) } else { TILES_FLUSH };
    let vanishing = cores.map_or(vanishing, Cores::vanishing);
    let terms_of = cores.map_or(chain(keys), |cores| cores.chain(keys));
    let magnitude = |v: f64| cores.map_or(v.abs(), |cores| cores.magnitude(v));
    let shape = [&x[0].shape[..r - 1], &[x[2].shape[r - 1]]].concat();
    let y = Dense::from_fn(&shape, |i| {
        let value = key_head(i, &x[0], &x[1]);
        let first = weights.p.flat(&[&i[..r - 1], &[0]].concat());
        let terms = x[2].along(&value, r - 2).enumerate().map(|(j, v)| {
            let flat = first + j;
            if weights.scores.v[flat] == f64::NEG_INFINITY {
                return 0.0;
            }
            let (p, off) = weights.weight(flat, weights.off.v[flat] + weights.lse_off[weights.row(flat)]);
            kept(attention, flat) * magnitude(v) * (off + p * terms_of * u + vanishing) + TILES_FLUSH
        });
        terms.sum()
    });
    let lse = weights.lse.iter().zip(&weights.lse_off).map(|(l, m)| m + u * (l.abs() + chain(keys))).collect();
    vec![y.v, lse]
}

/// Inputs g, q, k, v, output, log-sum-exp, mask. The saved output and log-sum-exp stand for exact ones, so their own
/// errors are part of it.
pub(super) fn backward(attention: &Attention, joined: bool, x: &[Dense], u: f64) -> Vec<Vec<f64>> {
    let [g, q, k, v, out] = [&x[0], &x[1], &x[2], &x[3], &x[4]];
    let weights = Weights::of(attention, [q, k], x.get(6), u, None);
    let (r, scale) = (q.shape.len(), weights.scale.abs());
    let forward_shapes = [out.shape.clone(), x[5].shape.clone()];
    let mut ins = vec![q.clone(), k.clone(), v.clone()];
    ins.extend(x.get(6).cloned());
    let exact = attend(attention, &ins, &forward_shapes);
    let with = |i: &[usize], row: usize| [&i[..r - 2], &[row, 0]].concat();
    let products = |a: &Dense, i: &[usize], b: &Dense, j: &[usize]| -> (f64, f64) {
        a.along(i, r - 1)
            .zip(b.along(j, r - 1))
            .fold((0.0, 0.0), |(sum, size), (a, b)| (sum + a * b, size + (a * b).abs()))
    };
    let small = (g.shape[r - 1] as f64 + 4.0) * u;
    let (mut dq, mut dk, mut dv) = (Dense::zeros(&q.shape), Dense::zeros(&k.shape), Dense::zeros(&v.shape));
    let magnitude = |v: &[f64]| v.iter().map(|v| v.abs()).collect::<Vec<f64>>();
    let (queries, keys) = (chain(q.shape[r - 2]) * u, chain(k.shape[r - 2]) * u);
    for flat in (0..weights.p.v.len()).filter(|flat| weights.scores.v[*flat] != f64::NEG_INFINITY) {
        let i = unflatten(flat, &weights.p.shape);
        let (query, key) = (with(&i, i[r - 2]), with(&key_head(&i, q, k), i[r - 1]));
        let row = weights.row(flat);
        let (mut dp, size) = products(g, &query, v, &key);
        let drop = kept(attention, flat);
        dp *= drop;
        let (delta, delta_size) = products(g, &query, &exact[0], &query);
        let saved = g.along(&query, r - 1).zip(out.along(&query, r - 1).zip(exact[0].along(&query, r - 1)));
        let saved: f64 = saved.map(|(g, (a, b))| (g * (a - b)).abs()).sum();
        let lse = (x[5].v[row] - exact[1].v[row]).abs() + u * (weights.scores.v[flat] - exact[1].v[row]).abs();
        // dp − delta as it is found is off by so much, and roundings behind it are of what is found: of all of it where
        // the saved output is another key's, and nothing is left of the exact difference.
        let between = small * (size * drop + delta_size) + saved;
        let found = (dp - delta).abs() + between;
        // The weight as it is found is also the factor of what the difference is off by.
        let (p, p_off) = weights.weight(flat, weights.off.v[flat] + lse);
        let ds = p * found * scale;
        // A weight below the normal range is off by as much as the smallest number.
        let vanishing = f32::from_bits(1) as f64 * found * scale;
        let off = vanishing + scale * (dp - delta).abs() * p_off + p * scale * between + 4.0 * u * ds + TILES_FLUSH;
        dq.add_row(&query, off + keys * ds, magnitude(&k.along(&key, r - 1).collect::<Vec<_>>()).into_iter());
        dk.add_row(&key, off + queries * ds, magnitude(&q.along(&query, r - 1).collect::<Vec<_>>()).into_iter());
        let weight = drop * (p_off + p * queries) + TILES_FLUSH;
        dv.add_row(&key, weight, magnitude(&g.along(&query, r - 1).collect::<Vec<_>>()).into_iter());
    }
    // Each term may lie below the normal range, where rounding it costs half the smallest number.
    let terms = |n: usize| n as f64 * f32::from_bits(1) as f64 / 2.0;
    let heads = (g.v.len() / (g.shape[r - 1] * g.shape[r - 2]).max(1)).max(1);
    dq.v.iter_mut().for_each(|v| *v += terms(k.shape[r - 2]));
    dk.v.iter_mut().chain(&mut dv.v).for_each(|v| *v += terms(q.shape[r - 2] * heads));
    if joined { vec![[dq.v, dk.v, dv.v].concat()] } else { vec![dq.v, dk.v, dv.v] }
}
