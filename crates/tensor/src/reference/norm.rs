//! Normalisation.

use super::definition::{Definition, each};
use super::elementwise::{derivative, unary};
#[cfg(feature = "oracle")]
use super::errors::{Roundings, computing, leaves_range, sound, through};
use super::functions::{Sum, binade, sum_of};
use super::reduce::{mean, reduce};
use super::{Dense, unflatten};
use crate::Result;
use crate::op::{Norm, NormBackward, NormKind, Reduce, Renormalise, Saved};

impl Definition for Norm {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(normalise(self, x, shapes))
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(normalised(self, x, shapes, by))
    }
}

/// (statistics group, weight) of an element.
fn places(norm: &Norm, shape: &[usize], i: &[usize]) -> (usize, usize) {
    let flat = |dims: std::ops::Range<usize>| dims.fold(0, |at, d| at * shape[d] + i[d]);
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => {
            (flat(0..shape.len() - dims), flat(shape.len() - dims..shape.len()))
        }
        NormKind::Group { groups } => (i[0] * groups + i[1] / (shape[1] / groups), i[1]),
        NormKind::Batch | NormKind::Fixed => (i[1], i[1]),
    }
}

fn normalise(norm: &Norm, x: &[Dense], shapes: &[Vec<usize>]) -> Vec<Dense> {
    let given = 1 + norm.weights();
    let shape = &x[0].shape;
    let (mean, var): (Vec<f64>, Vec<f64>) = match norm.kind {
        NormKind::Fixed => (x[given].v.clone(), x[given + 1].v.clone()),
        NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } | NormKind::Batch => {
            let mut members = vec![Vec::new(); shapes[1][0]];
            for (flat, &v) in x[0].v.iter().enumerate() {
                members[places(norm, shape, &unflatten(flat, shape)).0].push(v);
            }
            let square = |m: &Vec<f64>| sum_of(m.iter().map(|v| v * v)) / m.len() as f64;
            match norm.kind {
                NormKind::Rms { .. } => members.iter().map(|m| (0.0, square(m))).unzip(),
                _ => members.iter().map(|m| (mean(m), reduce(Reduce::Var { correction: 0.0 }, m))).unzip(),
            }
        }
    };
    let mut rstd: Vec<f64> = var.iter().map(|v| 1.0 / (v + norm.eps).sqrt()).collect();
    let units = units(norm, &x[0], &rstd);
    let y = Dense::from_fn(shape, |i| {
        let (g, w) = places(norm, shape, i);
        let weight = if norm.affine { x[1].v[w] } else { 1.0 };
        let bias = if norm.weights() == 2 { x[2].v[w] } else { 0.0 };
        let y = in_deviations(x[0].at(i), units[g].unwrap_or([mean[g], rstd[g], 1.0])) * weight + bias;
        norm.act.map_or(y, |act| unary(act, y))
    });
    rstd.iter_mut().zip(&units).for_each(|(rstd, unit)| *rstd = unit.map_or(*rstd, |[_, r, unit]| r / unit));
    [y.clone()]
        .into_iter()
        .chain([mean, rstd, var].map(|v| Dense { shape: vec![v.len()], v }))
        .take(shapes.len())
        .collect()
}

/// Where 1/deviation is infinite, as of subnormal numbers without eps, or 0, as of numbers whose squares leave the
/// range: mean and 1/deviation of the numbers over a power of two, and that.
fn units(norm: &Norm, x: &Dense, rstd: &[f64]) -> Vec<Option<[f64; 3]>> {
    let is_lost = |r: f64| r.is_infinite() || r == 0.0;
    if norm.kind == NormKind::Fixed || !rstd.iter().any(|r| is_lost(*r)) {
        return vec![None; rstd.len()];
    }
    let mut members = vec![Vec::new(); rstd.len()];
    for (flat, &v) in x.v.iter().enumerate() {
        members[places(norm, &x.shape, &unflatten(flat, &x.shape)).0].push(v);
    }
    let of = |m: &Vec<f64>| {
        let unit = binade(m.iter().fold(0.0, |m, v| f64::max(m, v.abs())));
        let m: Vec<f64> = m.iter().map(|v| v / unit).collect();
        let mean = if matches!(norm.kind, NormKind::Rms { .. }) { 0.0 } else { mean(&m) };
        let square = sum_of(m.iter().map(|v| (v - mean).powi(2))) / m.len() as f64;
        [mean, 1.0 / square.sqrt().hypot(norm.eps.sqrt() / unit), unit]
    };
    members.iter().zip(rstd).map(|(m, r)| is_lost(*r).then(|| of(m))).collect()
}

/// Mean, 1/deviation and unit of each set, of which the first two were saved.
fn saved(norm: &Norm, x: &Dense, [mean, rstd]: [&[f64]; 2]) -> Vec<[f64; 3]> {
    let sets = units(norm, x, rstd).into_iter().zip(mean.iter().zip(rstd));
    sets.map(|(unit, (&mean, &rstd))| unit.unwrap_or([mean, rstd, 1.0])).collect()
}

/// Of those that follow the upstream gradient, x and weights: given ones are mean and variance.
fn saved_for_gradient(norm: &Norm, x: &[Dense]) -> Vec<[f64; 3]> {
    let at = 2 + norm.weights_of_gradient();
    if norm.kind == NormKind::Fixed {
        let given = x[at].v.iter().zip(&x[at + 1].v);
        return given.map(|(&mean, &variance)| [mean, 1.0 / (variance + norm.eps).sqrt(), 1.0]).collect();
    }
    saved(norm, &x[1], [&x[at].v, &x[at + 1].v])
}

/// `(x/unit − mean)/deviation`
fn in_deviations(x: f64, [mean, rstd, unit]: [f64; 3]) -> f64 {
    (x / unit - mean) * rstd
}

impl Definition for NormBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (norm, g, shape) = (&self.0, &x[0], &shapes[0]);
        let (fixed, sets) = (norm.kind == NormKind::Fixed, saved_for_gradient(norm, x));
        let n = (x[1].v.len() / sets.len().max(1)) as f64;
        // A channel has one weight, which its sums are multiplied by, as in PyTorch.
        // What an infinite one gives depends on that. Group norm adds the channels of a group.
        let by_channel = !matches!(norm.kind, NormKind::Layer { .. } | NormKind::Rms { .. });
        let channels = if matches!(norm.kind, NormKind::Group { .. }) { shape[1] } else { 0 };
        let parts = if channels > 0 { shape[0] * channels } else { sets.len() };
        let (mut sums, mut dots) = (vec![Sum::default(); parts], vec![Sum::default(); parts]);
        let count = if norm.affine { x[2].v.len() } else { 0 };
        let (mut dw, mut db) = (vec![Sum::default(); count], vec![Sum::default(); count]);
        let term = |i: &[usize]| {
            let (group, w) = places(norm, shape, i);
            let hat = in_deviations(x[1].at(i), sets[group]);
            let weight = if norm.affine { x[2].v[w] } else { 1.0 };
            let before = norm.act.map_or(g.at(i), |act| {
                let bias = if norm.weights() == 2 { x[3].v[w] } else { 0.0 };
                let argument = hat * weight + bias;
                let saved = if act.saved() == Saved::Output { unary(act, argument) } else { argument };
                g.at(i) * derivative(act, saved)
            });
            (group, w, hat, before, before * weight)
        };
        for flat in 0..g.v.len() {
            let i = unflatten(flat, shape);
            let (group, w, hat, before, up) = term(&i);
            let part = if channels > 0 { i[0] * channels + i[1] } else { group };
            let summed = if by_channel { before } else { up };
            sums[part].add(summed);
            dots[part].add(summed * hat);
            if norm.affine {
                dw[w].add(before * hat);
                db[w].add(before);
            }
        }
        let values = |sums: Vec<Sum>| sums.into_iter().map(Sum::value).collect::<Vec<f64>>();
        let of_groups = |parts: Vec<f64>| {
            let (mut of, per_group) = (vec![Sum::default(); sets.len()], parts.len() / sets.len().max(1));
            for (at, v) in parts.into_iter().enumerate() {
                of[at / per_group].add(v * if by_channel && norm.affine { x[2].v[at % count] } else { 1.0 });
            }
            values(of)
        };
        let [sums, dots] = [sums, dots].map(|parts| of_groups(values(parts)));
        let [dw, db] = [dw, db].map(values);
        let dx = each(shapes, &|i| {
            let (group, _, hat, _, up) = term(i);
            let mean_up = match norm.kind {
                NormKind::Fixed | NormKind::Rms { .. } => 0.0,
                NormKind::Layer { .. } | NormKind::Group { .. } | NormKind::Batch => sums[group] / n,
            };
            let [_, rstd, unit] = sets[group];
            (up - mean_up - if fixed { 0.0 } else { hat * dots[group] / n }) * rstd / unit
        });
        Ok([dx]
            .into_iter()
            .chain([dw, db].map(|v| Dense { shape: shapes.get(1).cloned().unwrap_or_default(), v }))
            .take(shapes.len())
            .collect())
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(norm_gradient(&self.0, x, shapes, by))
    }
}

impl Definition for Renormalise {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (norm, shape) = (&self.0, &shapes[0]);
        let at = 1 + norm.weights();
        let sets = saved(norm, &x[0], [&x[at].v, &x[at + 1].v]);
        Ok(vec![each(shapes, &|i| {
            let (group, w) = places(norm, shape, i);
            let weight = if norm.affine { x[1].v[w] } else { 1.0 };
            let bias = if norm.weights() == 2 { x[2].v[w] } else { 0.0 };
            let y = in_deviations(x[0].at(i), sets[group]) * weight + bias;
            norm.act.map_or(y, |act| unary(act, y))
        })])
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(renormalised(&self.0, x, &shapes[0], by))
    }
}

/// Mean and mean magnitude, and 1/deviation, of the groups of a norm.
#[cfg(feature = "oracle")]
struct Groups {
    mean: Vec<f64>,
    magnitude: Vec<f64>,
    rstd: Vec<f64>,
    var: Vec<f64>,
}

#[cfg(feature = "oracle")]
fn is_centred(norm: &Norm) -> bool {
    match norm.kind {
        NormKind::Layer { .. } | NormKind::Group { .. } | NormKind::Batch => true,
        NormKind::Rms { .. } | NormKind::Fixed => false,
    }
}

#[cfg(feature = "oracle")]
fn groups_of(norm: &Norm, x: &[Dense]) -> Groups {
    let (shape, given) = (&x[0].shape, 1 + norm.weights());
    if norm.kind == NormKind::Fixed {
        let var = x[given + 1].v.clone();
        let rstd = var.iter().map(|v| 1.0 / (v + norm.eps).sqrt()).collect();
        return Groups { mean: x[given].v.clone(), magnitude: vec![0.0; var.len()], rstd, var };
    }
    let mut members: Vec<Vec<f64>> = Vec::new();
    for (flat, &v) in x[0].v.iter().enumerate() {
        let group = places(norm, shape, &unflatten(flat, shape)).0;
        members.resize(members.len().max(group + 1), Vec::new());
        members[group].push(v);
    }
    let average = |f: &dyn Fn(&[f64]) -> f64| members.iter().map(|m| f(m)).collect::<Vec<f64>>();
    let magnitude =
        average(&|m| if is_centred(norm) { m.iter().map(|v| v.abs()).sum::<f64>() / m.len() as f64 } else { 0.0 });
    let means = average(&|m| if is_centred(norm) { mean(m) } else { 0.0 });
    let var: Vec<f64> = members
        .iter()
        .zip(&means)
        .map(|(m, mean)| m.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / m.len() as f64)
        .collect();
    let rstd = var.iter().map(|v| 1.0 / (v + norm.eps).sqrt()).collect();
    Groups { mean: means, magnitude, rstd, var }
}

/// The mean is off by `e` of the mean magnitude: in deviations, by a. So is x̂, and squares of distances by a². A
/// product below the normal range is off by half the smallest number, which is a rounding of the smallest normal one,
/// and so is a mean there.
#[cfg(feature = "oracle")]
fn normalised(norm: &Norm, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Vec<Vec<f64>> {
    let Roundings { e, u, .. } = by;
    let (of, shape, least) = (groups_of(norm, x), &x[0].shape, computing(u).min_normal());
    let off: Vec<f64> = of.magnitude.iter().zip(&of.rstd).map(|(m, r)| e * m * r).collect();
    let y = Dense::from_fn(shape, |i| {
        let (g, w) = places(norm, shape, i);
        let weight = if norm.affine { x[1].v[w] } else { 1.0 };
        let bias = if norm.weights() == 2 { x[2].v[w] } else { 0.0 };
        let distance = x[0].at(i) - of.mean[g];
        let hat = distance * of.rstd[g];
        let error = weight.abs() * (off[g] + hat.abs() * (e + off[g] * off[g])) + e * bias.abs();
        // Of the mean, of x̂ or the coefficient rstd·w, and of their product.
        let error = sound(error + e * least * (weight.abs() * (1.0 + of.rstd[g]) + distance.abs() + 1.0));
        after(norm.act, [distance, hat, weight, bias], error, u)
    });
    let each = |f: &dyn Fn(usize) -> f64| (0..of.mean.len()).map(f).collect::<Vec<f64>>();
    let rest = [
        each(&|g| sound(e * of.magnitude[g])),
        each(&|g| sound(of.rstd[g] * (e + off[g] * off[g]))),
        each(&|g| sound(e * of.var[g] + (e * of.magnitude[g]).powi(2))),
    ];
    [y.v].into_iter().chain(rest).take(shapes.len()).collect()
}

/// The error behind an activation, if there is one; what it is made of may leave the range on the way to what does not.
#[cfg(feature = "oracle")]
fn after(act: Option<crate::op::Unary>, [distance, hat, weight, bias]: [f64; 4], error: f64, u: f64) -> f64 {
    if argument_leaves_range([distance, hat, hat * weight, bias], u) {
        return f64::INFINITY;
    }
    act.map_or(error, |act| through(act, hat * weight + bias, error, u))
}

/// Whether what an argument is made of leaves the range: each finite part, also beside an infinite one, whose sign may
/// be the other.
#[cfg(feature = "oracle")]
fn argument_leaves_range(parts: [f64; 4], u: f64) -> bool {
    let [distance, hat, product, bias] = parts.map(|part| if part.is_finite() { part.abs() } else { 0.0 });
    leaves_range((product + bias).max(hat).max(distance), u)
}

#[cfg(feature = "oracle")]
fn renormalised(norm: &Norm, x: &[Dense], shape: &[usize], by: Roundings<'_>) -> Vec<Vec<f64>> {
    let Roundings { e, u, .. } = by;
    let (at, least) = (1 + norm.weights(), computing(u).min_normal());
    let y = Dense::from_fn(shape, |i| {
        let (g, w) = places(norm, shape, i);
        let weight = if norm.affine { x[1].v[w] } else { 1.0 };
        let bias = if norm.weights() == 2 { x[2].v[w] } else { 0.0 };
        let distance = x[0].at(i) - x[at].v[g];
        let hat = distance * x[at + 1].v[g];
        let below = least * (weight.abs() + distance.abs() + 1.0);
        let error = sound(e * ((hat * weight).abs() + bias.abs() + below));
        after(norm.act, [distance, hat, weight, bias], error, u)
    });
    vec![y.v]
}

/// How far the slope of an activation with a kink lies from those of arguments `error` around.
#[cfg(feature = "oracle")]
fn step(act: crate::op::Unary, z: f64, error: f64) -> f64 {
    let slope = |z: f64| derivative(act, if act.saved() == Saved::Output { unary(act, z) } else { z });
    let steps = [z - error, z + error].map(|other| (slope(other) - slope(z)).abs());
    steps.into_iter().filter(|step| step.is_finite()).fold(0.0, f64::max)
}

/// `rstd·(g·w − mean(g·w) − x̂·mean(g·w·x̂))`, all terms with their magnitudes. Behind an activation g has its slope as
/// a factor, which changes with its argument by less than that. Each product counts as the smallest normal number at
/// least, of which what it loses below the normal range is a rounding. Sums that leave the range may do so before they
/// are multiplied by 1/deviation, or after.
#[cfg(feature = "oracle")]
fn norm_gradient(norm: &Norm, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Vec<Vec<f64>> {
    let Roundings { e, u, .. } = by;
    let least = computing(u).min_normal();
    let (shape, fixed, sets) = (&shapes[0], norm.kind == NormKind::Fixed, saved_for_gradient(norm, x));
    let (mean, rstd): (Vec<f64>, Vec<f64>) = sets.iter().map(|[mean, rstd, unit]| (mean * unit, rstd / unit)).unzip();
    let n = (x[1].v.len() / mean.len().max(1)) as f64;
    let count = if norm.affine { x[2].v.len() } else { 0 };
    let (mut sums, mut dots, mut dw, mut db) =
        (vec![0.0; mean.len()], vec![0.0; mean.len()], vec![0.0; count], vec![0.0; count]);
    let (mut reach, mut dots_reach) = (vec![0.0; count], vec![0.0; mean.len()]);
    // An infinite bias behind which the product leaves the range, or not.
    let is_lost = |i: &[usize]| {
        let (group, w) = places(norm, shape, i);
        let bias = if norm.weights_of_gradient() == 2 { x[3].v[w] } else { 0.0 };
        let hat = in_deviations(x[1].at(i), sets[group]);
        let weight = if norm.affine { x[2].v[w] } else { 1.0 };
        let parts = [x[1].at(i) - mean[group], hat, hat * weight, bias];
        norm.act.is_some() && bias.is_infinite() && argument_leaves_range(parts, u)
    };
    let (mut lost_groups, mut lost_weights) = (vec![false; mean.len()], vec![false; count]);
    let term = |i: &[usize]| {
        let (group, w) = places(norm, shape, i);
        let hat = in_deviations(x[1].at(i), sets[group]).abs();
        let weight = if norm.affine { x[2].v[w].abs() } else { 1.0 };
        let bias = if norm.weights_of_gradient() == 2 { x[3].v[w].abs() } else { 0.0 };
        // An infinite argument is exact, and so is the slope there.
        let argument = Some(hat * weight + bias).filter(|z| z.is_finite()).unwrap_or(0.0);
        let slope = norm.act.map_or(1.0, |act| {
            let signed = in_deviations(x[1].at(i), sets[group]) * if norm.affine { x[2].v[w] } else { 1.0 };
            let z = signed + if norm.weights_of_gradient() == 2 { x[3].v[w] } else { 0.0 };
            // A kink within the error of the argument, which may be below all numbers, is a whole step.
            2.0 + argument + step(act, z, e * (argument + least)) / e
        });
        let before = x[0].at(i).abs() * slope + least;
        (group, w, hat, before, before * weight + least)
    };
    for flat in 0..x[0].v.len() {
        let i = unflatten(flat, shape);
        let (group, w, hat, before, up) = term(&i);
        if is_lost(&i) {
            lost_groups[group] = !fixed;
            lost_weights.iter_mut().skip(w).take(1).for_each(|lost| *lost = true);
        }
        sums[group] += if is_centred(norm) { up } else { 0.0 };
        // A product with x − mean that is below the normal range is multiplied by 1/deviation.
        dots[group] += if fixed { 0.0 } else { up * hat + least * rstd[group] };
        if norm.affine {
            dw[w] += before * hat + least * ((x[1].at(&i) - mean[group]).abs() + rstd[group] + 1.0);
            db[w] += before;
            reach[w] += before * hat.max((x[1].at(&i) - mean[group]).abs()).max(1.0);
        }
        // The product with the weight comes before that with x, which may be small.
        dots_reach[group] += if fixed { 0.0 } else { up * hat.max((x[1].at(&i) - mean[group]).abs()).max(1.0) };
    }
    let dx = Dense::from_fn(shape, |i| {
        let (group, w, hat, before, up) = term(i);
        let r = rstd[group].max(1.0);
        if is_lost(i) || lost_groups[group] {
            return f64::INFINITY;
        }
        if leaves_range((before + up + sums[group] + hat.max(r) * dots[group]) * r + dots_reach[group], u) {
            return f64::INFINITY;
        }
        // Of g·rstd or rstd·w, of the slope of x − mean and the shift, and of the sum.
        let weight = if norm.affine { x[2].v[w].abs() } else { 1.0 };
        let below = least * (weight + before + (x[1].at(i) - mean[group]).abs() + 2.0);
        sound(e * (rstd[group] * (up + sums[group] / n + hat * dots[group] / n) + below))
    });
    let error = |((v, reach), lost): ((f64, &f64), &bool)| {
        if *lost || leaves_range(*reach, u) { f64::INFINITY } else { sound(e * v) }
    };
    let scale = |v: Vec<f64>| v.into_iter().zip(&reach).zip(&lost_weights).map(error).collect();
    [dx.v, scale(dw), scale(db)].into_iter().take(shapes.len()).collect()
}
