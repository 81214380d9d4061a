//! Batch and group norm: statistics of planes, or of whole images channels-last.

use crate::kernel::{Context, In, Out};
use rayon::prelude::*;

use super::feature_map_moments::{Moments, in_f64, in_units};
use super::feature_map_units::gradient_in_units;
use super::feature_map_walk::{
    Backward, Buffers, Forward, ForwardInUnits, InPlace, OfChannel, Planes, Read, Scaled, WideBackward, Widened, zeros,
};
use super::wide_rows::{is_wide, is_wide_backward, is_wide_in_f64};
use super::{Given, gradient_weights, rstd_of, statistics_at, vector, weights};
use crate::channels::Terms;
use crate::moments::{is_held, is_in_range, is_near_mean, is_spread};
use crate::operand::{Compute, Operand, TASK, in_storage};
use crate::rows::write;
use crate::simd::{Lanes, Stored};
use crate::tasks::Tasks as _;
use binade_tensor::op::{Norm, NormKind};
use binade_tensor::{DType, Result};

#[derive(Clone, Copy)]
struct Values;

impl Terms for Values {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, k: L) -> (L, L) {
        (x, k)
    }
}

#[derive(Clone, Copy)]
struct Squares;

impl Terms for Squares {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, mean: L) -> (L, L) {
        let d = x - mean;
        (d * d, d)
    }
}

#[derive(Clone, Copy)]
struct Gradients;

impl Terms for Gradients {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, x: L, mean: L) -> (L, L) {
        (g, g * (x - mean))
    }
}

pub(super) fn forward<C: Compute>(
    cx: Context<'_>,
    norm: &Norm,
    given: Given<C>,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let isa = cx.isa;
    let shape = *ins[0].shape();
    let p = Planes::new(&shape, outs[0].array().layout());
    let x = p.operand(ins[0], &shape);
    let w = weights(isa, norm.affine, ins, 1, p.channels, C::one());
    let b = weights(isa, norm.affine, ins, 2, p.channels, C::zero());
    let wide = in_storage!(ins[0].dtype(), forward_in_place::<C>(cx, norm, &given, &p, &x, [&w, &b], outs))
        .unwrap_or_else(|| {
            forward_from(cx, norm, &given, &p, &Widened { g: None, x: &x, act: None }, [&w, &b], outs)
        })?;
    match wide {
        Some(given) => forward::<f64>(cx, norm, given, ins, outs),
        None => Ok(()),
    }
}

/// [`forward_from`] a dense x of type T.
fn forward_in_place<C: Compute, T: Stored<C>>(
    cx: Context<'_>,
    norm: &Norm,
    given: &Given<C>,
    p: &Planes,
    x: &Operand<'_>,
    weights: [&[C]; 2],
    outs: &mut [Out<'_>],
) -> Option<Result<Option<Given<f64>>>> {
    let x = x.dense::<T>()?;
    Some(forward_from(cx, norm, given, p, &InPlace { g: x, x }, weights, outs))
}

/// Leaves the first output to f64, with the statistics that it returns, if products with some of them leave the range
/// of C. Statistics that C does not hold are f64's too.
fn forward_from<C: Compute, R: Read<C>>(
    cx: Context<'_>,
    norm: &Norm,
    given: &Given<C>,
    p: &Planes,
    from: &R,
    [w, b]: [&[C]; 2],
    outs: &mut [Out<'_>],
) -> Result<Option<Given<f64>>> {
    let isa = cx.isa;
    let groups = groups_of(norm, p);
    // Of each group of each sample; batch norm has one sample for all.
    let per_group = (p.channels / groups.max(1)).max(1);
    let [mean, rstd] = given.clone().unwrap_or_else(|| {
        let parts: Vec<Vec<Moments>> =
            (0..p.count()).into_par_iter().with_min_len(TASK.div_ceil(p.stretch.max(1)).min(64)).list_with(
                || (Buffers::default(), Vec::new()),
                |(buffers, k), index| {
                    let (_, len, channel) = p.part(index);
                    let width = channel.map_or(p.channels, |_| 16);
                    let n = if channel.is_some() { len } else { len / p.channels } as f64;
                    zeros(k, width);
                    let sums = p.sums(isa, Values, from, index, k, buffers);
                    // One mean for each channel, or that of the only one in all places.
                    k.iter_mut().zip(sums.iter().cycle()).for_each(|(k, s)| *k = C::from_f64(s[0] / n));
                    let mut squares = p.sums(isa, Squares, from, index, k, buffers);
                    let moments = squares.iter_mut().zip(k.iter()).map(|([m2, d], m)| {
                        // The mean as it was rounded, and what is left of it.
                        let rest = *d / n;
                        let m2 = *m2 - n * rest * rest;
                        Moments { n, mean: m.as_f64() + rest, m2: if m2 < 0.0 { 0.0 } else { m2 } }
                    });
                    let moments: Vec<Moments> = moments.collect();
                    moments.chunks(per_group).map(Moments::of_equal).collect()
                },
            );
        let samples = if matches!(norm.kind, NormKind::Batch) { 1 } else { p.samples };
        let mut total = vec![Moments::default(); samples * groups];
        for (index, part) in parts.into_iter().enumerate() {
            let sample = if samples == 1 { 0 } else { index / p.stretches };
            let first = sample * groups + p.part(index).2.unwrap_or(0) / per_group;
            total[first..].iter_mut().zip(part).for_each(|(total, moments)| total.add(moments));
        }
        let mut var: Vec<f64> = total.iter().map(|t| t.m2 / t.n).collect();
        let mut rstd: Vec<C> = var.iter().map(|v| C::from_f64(1.0 / (v + norm.eps).sqrt())).collect();
        // The means of parts are rounded to f64. Beside a large mean that matters to a variance in f64. In f32 what is
        // left of a mean is rounded, which matters to that of nearly equal numbers.
        let is_off = |t: &Moments, v: f64| {
            if C::DTYPE == DType::F64 { !is_spread(t.mean, v) } else { is_near_mean(t.mean, v + norm.eps) }
        };
        let known: Vec<Option<f64>> =
            total.iter().zip(&var).map(|(t, v)| is_in_range::<C>(v + norm.eps).then_some(t.mean)).collect();
        let wanted: Vec<bool> =
            total.iter().zip(&var).zip(&known).map(|((t, v), mean)| mean.is_none() || is_off(t, *v)).collect();
        if wanted.contains(&true) {
            let exact = in_f64(isa, p, from, [samples, groups, per_group], &known);
            for (i, moments) in exact.iter().enumerate().filter(|(i, _)| wanted[*i]) {
                rstd[i] = C::from_f64(1.0 / moments.deviation(total[i].n).hypot(norm.eps.sqrt()));
                var[i] = moments.variance(total[i].n);
                total[i].mean = moments.mean;
            }
        }
        let mean: Vec<C> = total.iter().map(|t| C::from_f64(t.mean)).collect();
        for (out, values) in outs.iter_mut().skip(1).zip([&mean, &rstd]) {
            write(isa, values, out);
        }
        if let Some(out) = outs.get_mut(3) {
            write(isa, &var, out);
        }
        [mean, rstd]
    });
    let lost = norm.kind != NormKind::Fixed && rstd.iter().any(|r| r.is_infinite());
    if C::DTYPE != DType::F64 && lost {
        return Ok(Some(None));
    }
    let normalising = Normalising { groups, per_group, mean: &mean, rstd: &rstd, w, b };
    if C::DTYPE != DType::F64 && (rstd.iter().any(|r| is_wide(r.as_f64())) || normalising.leaves_range()) {
        return Ok(Some(Some([mean, rstd].map(|v| v.iter().map(|v| v.as_f64()).collect()))));
    }
    let per_sample = mean.len() > groups;
    if lost {
        let units = in_units(isa, norm, p, from, groups, [&mean, &rstd]);
        let in_unit = |sample: usize, c: usize| {
            let [mean, rstd, unit] = units[sample * groups + c / per_group].map(C::from_f64);
            [mean, rstd * w[c], b[c], C::one() / unit]
        };
        p.apply(cx, ForwardInUnits, from, &OfChannel { per_sample, f: &in_unit }, norm.act, &mut outs[0])?;
        return Ok(None);
    }
    let k = OfChannel { per_sample, f: &|sample, c| normalising.coefficients(sample, c) };
    p.apply(cx, Forward, from, &k, norm.act, &mut outs[0])?;
    Ok(None)
}

/// Channels with statistics of their own, in a sample.
pub(super) fn groups_of(norm: &Norm, p: &Planes) -> usize {
    match norm.kind {
        NormKind::Group { groups } => groups,
        NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Batch | NormKind::Fixed => p.channels,
    }
}

/// What the coefficients of [`Forward`] are made from.
struct Normalising<'a, C> {
    groups: usize,
    per_group: usize,
    mean: &'a [C],
    rstd: &'a [C],
    w: &'a [C],
    b: &'a [C],
}

impl<C: Compute> Normalising<'_, C> {
    fn coefficients(&self, sample: usize, c: usize) -> [C; 4] {
        let i = sample * self.groups + c / self.per_group;
        [self.mean[i], self.rstd[i] * self.w[c], self.b[c], C::zero()]
    }

    /// Whether a product rstd·w may leave the range of C, as that with x − mean need not.
    fn leaves_range(&self) -> bool {
        let ends = |v: &[C]| {
            let sizes = v.iter().map(|v| v.as_f64().abs()).filter(|v| *v > 0.0 && v.is_finite());
            sizes.fold([f64::INFINITY, 0.0], |[low, high], v: f64| [v.min(low), v.max(high)])
        };
        let ([a, b], [c, d]) = (ends(self.rstd), ends(self.w));
        !is_held::<C>(a * c) || !is_held::<C>(b * d)
    }
}

pub(super) fn backward<C: Compute>(cx: Context<'_>, norm: &Norm, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
    let isa = cx.isa;
    let shape = *ins[1].shape();
    let p = Planes::new(&shape, outs[0].array().layout());
    let x = p.operand(ins[1], &shape);
    let at = statistics_at(norm);
    let [w, b]: [Vec<C>; 2] = gradient_weights(isa, norm, ins, p.channels);
    let mean: Vec<C> = vector(isa, ins[at]);
    let fixed = matches!(norm.kind, NormKind::Fixed);
    let rstd: Vec<C> = if fixed { rstd_of(isa, norm, ins[at + 1]) } else { vector(isa, ins[at + 1]) };
    let lost = !fixed && rstd.iter().any(|r| r.is_infinite());
    if C::DTYPE != DType::F64 && (lost || rstd.iter().any(|r| is_wide_backward(r.as_f64()))) {
        return backward::<f64>(cx, norm, ins, outs);
    }
    let (groups, g) = (groups_of(norm, &p), p.operand(ins[0], &shape));
    if lost {
        let from = Widened::<C> { g: None, x: &x, act: None };
        let sets = in_units(isa, norm, &p, &from, groups, [&mean, &rstd]);
        let weights = [w, b].map(|v| v.iter().map(|v| v.as_f64()).collect());
        return gradient_in_units(cx, norm, &p, [&g, &x], weights, &sets, outs);
    }
    let normalising =
        Normalising { groups, per_group: (p.channels / groups.max(1)).max(1), mean: &mean, rstd: &rstd, w: &w, b: &b };
    let k = OfChannel { per_sample: mean.len() > groups, f: &|sample, c| normalising.coefficients(sample, c) };
    let in_place = if norm.act.is_some() {
        None
    } else {
        in_storage!(ins[1].dtype(), backward_in_place::<C>(cx, norm, &p, [&g, &x], &normalising, outs))
    };
    let held = in_place.unwrap_or_else(|| {
        let from = Widened { g: Some(&g), x: &x, act: norm.act.map(|act| (act, &k)) };
        backward_from(cx, norm, &p, &from, &normalising, outs)
    })?;
    if !held {
        return backward::<f64>(cx, norm, ins, outs);
    }
    Ok(())
}

/// [`backward_from`] dense g and x of type T.
fn backward_in_place<C: Compute, T: Stored<C>>(
    cx: Context<'_>,
    norm: &Norm,
    p: &Planes,
    [g, x]: [&Operand<'_>; 2],
    normalising: &Normalising<'_, C>,
    outs: &mut [Out<'_>],
) -> Option<Result<bool>> {
    let from = InPlace { g: g.dense::<T>()?, x: x.dense::<T>()? };
    Some(backward_from(cx, norm, p, &from, normalising, outs))
}

/// False, and nothing is written, where C does not hold a coefficient.
fn backward_from<C: Compute, R: Read<C>>(
    cx: Context<'_>,
    norm: &Norm,
    p: &Planes,
    from: &R,
    normalising: &Normalising<'_, C>,
    outs: &mut [Out<'_>],
) -> Result<bool> {
    let isa = cx.isa;
    let Normalising { groups, per_group, mean, rstd, w, .. } = *normalising;
    let (fixed, samples) = (matches!(norm.kind, NormKind::Fixed), mean.len() / groups.max(1));
    let parts: Vec<Vec<[f64; 2]>> =
        (0..p.count()).into_par_iter().with_min_len(TASK.div_ceil(p.stretch.max(1)).min(64)).list_with(
            || (Buffers::default(), Vec::new()),
            |(buffers, means), index| {
                let first = if samples > 1 { index / p.stretches * groups } else { 0 };
                means.clear();
                means.reserve(p.channels.max(16));
                match p.part(index).2 {
                    Some(c) => means.resize(16, mean[first + c / per_group]),
                    None => means.extend((0..p.channels).map(|c| mean[first + c / per_group])),
                }
                p.sums(isa, Gradients, from, index, means, buffers)
            },
        );
    // Σ g and Σ g·(x − mean), by sample and channel, or by channel.
    let mut sums = vec![[0.0f64; 2]; samples * p.channels];
    for (index, part) in parts.iter().enumerate() {
        let base = if samples > 1 { index / p.stretches * p.channels } else { 0 } + p.part(index).2.unwrap_or(0);
        for (sum, part) in sums[base..].iter_mut().zip(part) {
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
    }
    // dx = (g·w − mean(g·w) − x̂·mean(g·w·x̂))·rstd, x̂ = (x − mean)·rstd
    let n = (p.samples * p.pixels * p.channels) as f64 / mean.len() as f64;
    let grouped: Vec<[f64; 2]> = (0..mean.len())
        .map(|i| {
            let first = i / groups * p.channels + i % groups * per_group;
            let each = (first..first + per_group).map(|at| sums[at].map(|s| s * w[at % p.channels].as_f64()));
            each.fold([0.0; 2], |t, s| [t[0] + s[0], t[1] + s[1]])
        })
        .collect();
    // The third power of the deviation's inverse leaves even f64's range.
    let wide = C::DTYPE == DType::F64 && rstd.iter().any(|r| is_wide_in_f64(r.as_f64()));
    let line = |([sum, product], r): (&[f64; 2], &C)| {
        let r = r.as_f64();
        let slope = product / n * r;
        [if wide { (r * slope.abs().sqrt()).copysign(slope) } else { slope * r * r }, sum / n * r]
    };
    let lines: Vec<[f64; 2]> = grouped.iter().zip(rstd).map(line).collect();
    let mut all = lines.iter().flatten().filter(|_| !fixed);
    if C::DTYPE != DType::F64 && (normalising.leaves_range() || all.any(|k| !is_held::<C>(*k))) {
        return Ok(false);
    }
    let coefficients = |sample: usize, c: usize| {
        let i = sample * groups + c / per_group;
        let [slope, shift] = lines[i].map(|k| C::from_f64(-k));
        [rstd[i] * w[c], mean[i], slope, shift]
    };
    let k = OfChannel { per_sample: samples > 1, f: &coefficients };
    if fixed {
        p.apply(cx, Scaled, from, &k, None, &mut outs[0])?;
    } else if wide {
        p.apply(cx, WideBackward, from, &k, None, &mut outs[0])?;
    } else {
        p.apply(cx, Backward, from, &k, None, &mut outs[0])?;
    }
    if norm.affine {
        let (mut dw, mut db) = (vec![0.0; p.channels], vec![0.0; p.channels]);
        for (at, [sum, product]) in sums.iter().enumerate() {
            let (sample, c) = (at / p.channels, at % p.channels);
            dw[c] += product * rstd[sample * groups + c / per_group].as_f64();
            db[c] += sum;
        }
        write(isa, &dw, &mut outs[1]);
        write(isa, &db, &mut outs[2]);
    }
    Ok(true)
}
