//! Statistics of planes: sums joined, and what numbers of any size have.

use rayon::prelude::*;

use super::feature_map_walk::{Buffers, Planes, Read};
use crate::moments::{self, larger, scale_of};
use crate::operand::Compute;
use crate::simd::Isa;
use crate::tasks::Tasks as _;
use binade_tensor::op::Norm;

/// Number of elements, mean, and sum of squared distances from it.
#[derive(Clone, Copy, Default)]
pub(super) struct Moments {
    pub(super) n: f64,
    pub(super) mean: f64,
    pub(super) m2: f64,
}

impl Moments {
    /// Those of all of some equally large sets.
    pub(super) fn of_equal(sets: &[Moments]) -> Moments {
        let (count, n) = (sets.len() as f64, sets[0].n);
        let mean = sets.iter().map(|s| s.mean).sum::<f64>() / count;
        let m2 = sets.iter().map(|s| s.m2 + n * (s.mean - mean) * (s.mean - mean)).sum();
        Moments { n: count * n, mean, m2 }
    }

    pub(super) fn add(&mut self, other: Moments) {
        let n = self.n + other.n;
        if other.n > 0.0 {
            let d = other.mean - self.mean;
            self.mean += d * (other.n / n);
            self.m2 += other.m2 + d * d * (self.n * other.n / n);
            self.n = n;
        }
    }
}

/// Calls with sample, channel and value of every element of a stretch.
type Elements<'a> = dyn Fn(usize, &mut dyn FnMut(usize, usize, f64)) + Sync + 'a;

/// The moments of every group of every sample, whatever the size of its elements, around the mean where that is known.
pub(super) fn in_f64<C: Compute, R: Read<C>>(
    isa: Isa,
    p: &Planes,
    from: &R,
    sets: [usize; 3],
    known: &[Option<f64>],
) -> Vec<moments::Moments> {
    in_f64_of(p, &|index, f| p.each(isa, from, index, &mut Buffers::default(), f), sets, known)
}

fn in_f64_of(
    p: &Planes,
    elements: &Elements<'_>,
    [samples, groups, per_group]: [usize; 3],
    known: &[Option<f64>],
) -> Vec<moments::Moments> {
    // What `f` makes of the elements of a group, one after the other, in each stretch and then of the stretches.
    let fold = |first: f64, f: &(dyn Fn(usize, f64, f64) -> f64 + Sync), join: fn(f64, f64) -> f64| {
        let parts: Vec<Vec<f64>> = (0..p.count()).into_par_iter().list(|index| {
            let mut sums = vec![first; samples * groups];
            elements(index, &mut |sample, channel, x| {
                let group = if samples == 1 { 0 } else { sample } * groups + channel / per_group;
                sums[group] = f(group, sums[group], x);
            });
            sums
        });
        parts.into_iter().fold(vec![first; samples * groups], |all, part| {
            all.into_iter().zip(part).map(|(a, b)| join(a, b)).collect()
        })
    };
    let scales: Vec<f64> = fold(0.0, &|_, m, x| larger(m, x.abs()), larger).into_iter().map(scale_of).collect();
    let n = (p.samples * p.channels * p.pixels) as f64 / (samples * groups) as f64;
    let add = |a: f64, b: f64| a + b;
    // NaN is equal to nothing.
    let [low, high] = [-1.0, 1.0].map(|sign| fold(-f64::INFINITY, &|_, m, x| larger(m, sign * x), larger));
    let mut means: Vec<f64> = fold(0.0, &|i, sum, x| sum + x / scales[i] / n, add);
    means.iter_mut().zip(known).zip(&scales).for_each(|((m, known), scale)| *m = known.map_or(*m, |k| k / scale));
    // The mean of equal numbers is each of them.
    let ends = low.iter().zip(&high).zip(&scales);
    means.iter_mut().zip(ends).filter(|(_, ((l, h), _))| -**l == **h).for_each(|(m, ((_, h), scale))| *m = h / scale);
    let squares = fold(0.0, &|i, sum, x| sum + (x / scales[i] - means[i]).powi(2), add);
    (0..means.len()).map(|i| moments::Moments::from_sums(means[i], squares[i], scales[i])).collect()
}

/// Mean, 1/deviation, and the power of two that numbers are divided by before, of every set of statistics: 1 where
/// they hold the 1/deviation themselves.
pub(super) fn in_units<C: Compute, R: Read<C>>(
    isa: Isa,
    norm: &Norm,
    p: &Planes,
    from: &R,
    groups: usize,
    [mean, rstd]: [&[C]; 2],
) -> Vec<[f64; 3]> {
    let (sets, per_group) = (mean.len(), (p.channels / groups.max(1)).max(1));
    let n = (p.samples * p.channels * p.pixels) as f64 / sets as f64;
    let all = in_f64(isa, p, from, [sets / groups.max(1), groups, per_group], &vec![None; sets]);
    let each = mean.iter().zip(rstd).zip(all).map(|((mean, rstd), moments)| match rstd.is_infinite() {
        true => moments.in_units(n, norm.eps),
        false => [mean.as_f64(), rstd.as_f64(), 1.0],
    });
    each.collect()
}
