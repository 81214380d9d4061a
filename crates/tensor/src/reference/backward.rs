//! Kernels of the backward pass, from their definitions.

use super::elementwise::{derivative, loss_slope, partial, ternary_slope, unary};
use super::forward::{
    check_index, divisor, extent, groups, is_bool, kept, key_head, mean, places, places_of, probabilities, products,
    reduce, scores, seen, softmax, window,
};
use super::functions::{Sum, sum_of};
use super::{Dense, unflatten};
use crate::op::{Backward, NormKind, PoolKind, Reduce, Reduction, Saved, Unary};
use crate::{Dims, Result};

/// All outputs in f64; the first input is the gradient of the output.
pub(super) fn backward(op: &Backward, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
    let shape = &shapes[0];
    let g = &x[0];
    let each = |f: &dyn Fn(&[usize]) -> f64| Dense::from_fn(shape, f);
    Ok(match op {
        Backward::Unary(row) => vec![each(&|i| g.at(i) * derivative(*row, x[1].at(i)))],
        Backward::Binary { op, rhs } => vec![each(&|i| g.at(i) * partial(*op, *rhs, x[1].at(i), x[2].at(i)))],
        Backward::Scalar { op, value, reversed: false } => {
            vec![each(&|i| g.at(i) * partial(*op, false, x[1].at(i), *value))]
        }
        Backward::Scalar { op, value, reversed: true } => {
            vec![each(&|i| g.at(i) * partial(*op, true, *value, x[1].at(i)))]
        }
        Backward::Reduce { kind, dims } => {
            let members = groups(&x[2], *dims);
            let kept: Vec<usize> = (0..shape.len()).filter(|&d| !dims.contains(d)).collect();
            vec![each(&|i| {
                let at = kept.iter().fold(0, |at, &d| at * shape[d] + i[d]);
                let (m, y, v, up) = (&members[at], x[1].v[at], x[2].at(i), g.v[at]);
                let n = m.len() as f64;
                let hit = |v: f64| v == y || v.is_nan() && y.is_nan();
                match kind {
                    Reduce::Sum => up,
                    Reduce::Mean => up / n,
                    Reduce::Max | Reduce::Min if hit(v) => up / m.iter().filter(|v| hit(**v)).count() as f64,
                    Reduce::Max | Reduce::Min => 0.0,
                    Reduce::Std { correction } => match reduce(Reduce::Std { correction: *correction }, m) {
                        0.0 => 0.0,
                        std => up * (v - mean(m)) / ((n - correction) * std),
                    },
                    Reduce::LogSumExp => up * f64::exp(v - reduce(Reduce::LogSumExp, m)),
                    // The product of the others.
                    Reduce::Prod => {
                        let at = dims.iter().fold(0, |at, d| at * x[2].shape[d] + i[d]);
                        up * m[..at].iter().product::<f64>() * m[at + 1..].iter().product::<f64>()
                    }
                    Reduce::Norm { p: 0.0 } => 0.0,
                    Reduce::Norm { p } if p.is_infinite() => {
                        // NaN is what a norm with one is; it gets the gradient, as the largest element does.
                        let y = reduce(*kind, m);
                        let hit = |v: f64| v.abs() == y || v.is_nan();
                        let hits = m.iter().filter(|v| hit(**v)).count() as f64;
                        if hit(v) { up * unary(Unary::Sign, v) / hits } else { 0.0 }
                    }
                    Reduce::Norm { p } => {
                        let y = reduce(*kind, m);
                        // At 0 the slope is 0, and an upstream infinity times it NaN.
                        let power = if v == 0.0 && !y.is_nan() { 0.0 } else { v.abs().powf(p - 1.0) * y.powf(1.0 - p) };
                        up * unary(Unary::Sign, v) * power
                    }
                    Reduce::Var { correction } => up * 2.0 * (v - mean(m)) / (n - correction),
                }
            })]
        }
        Backward::CumProd { dim } => {
            vec![each(&|at| {
                let (g, x): (Vec<f64>, Vec<f64>) = g.along(at, *dim).zip(x[1].along(at, *dim)).unzip();
                // Every product from this factor on, without it.
                let (here, mut others) = (at[*dim], x[..at[*dim]].iter().product::<f64>());
                let term = |i: usize| {
                    others *= if i > here { x[i] } else { 1.0 };
                    g[i] * others
                };
                (here..x.len()).map(term).sum::<f64>() + 0.0
            })]
        }
        Backward::Gather { dim, .. } => {
            check_index("scatter", &x[1], extent(shape, *dim), "elements", None)?;
            let mut dx = Dense::zeros(shape);
            for flat in 0..g.v.len() {
                let mut at = unflatten(flat, &g.shape);
                if let Some(at) = at.get_mut(*dim) {
                    *at = x[1].v[flat] as usize;
                }
                dx.add(&at, g.v[flat]);
            }
            vec![dx]
        }
        Backward::Conv2dInput { conv, .. } => {
            let mut dx = Dense::zeros(shape);
            products(conv, shape, &x[1].shape, &g.shape, |o, w, xi| dx.v[xi] += g.v[o] * x[1].v[w]);
            vec![dx]
        }
        Backward::Conv2dWeight { conv, .. } => {
            let mut dw = Dense::zeros(shape);
            products(conv, &x[1].shape, shape, &g.shape, |o, w, xi| dw.v[w] += g.v[o] * x[1].v[xi]);
            vec![dw]
        }
        Backward::Depthwise { conv, bias } => {
            let (mut dx, mut dw) = (Dense::zeros(&x[1].shape), Dense::zeros(&x[2].shape));
            products(conv, &x[1].shape, &x[2].shape, &g.shape, |o, w, xi| {
                dx.v[xi] += g.v[o] * x[2].v[w];
                dw.v[w] += g.v[o] * x[1].v[xi];
            });
            let mut outs = vec![dx, dw];
            if *bias {
                let mut db = Dense::zeros(&[conv.groups]);
                (0..g.v.len()).for_each(|o| db.add(&[unflatten(o, &g.shape)[1]], g.v[o]));
                outs.push(db);
            }
            outs
        }
        Backward::Pool { pool, .. } => {
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
            vec![dx]
        }
        Backward::PoolSelect { pool, .. } => {
            vec![each(&|o| first_largest(&x[1], &window(pool, &x[1].shape, o)).map_or(0.0, |at| g.at(&at)))]
        }
        Backward::Softmax { dim, log } => {
            let index = |i: &[usize], j: usize| {
                let mut at = i.to_vec();
                if let Some(d) = at.get_mut(*dim) {
                    *d = j;
                }
                at
            };
            let n = shape.get(*dim).copied().unwrap_or(1);
            vec![each(&|i| {
                let total = |f: &dyn Fn(&[usize]) -> f64| sum_of((0..n).map(|j| f(&index(i, j))));
                if *log {
                    g.at(i) - f64::exp(x[1].at(i)) * total(&|j| g.at(j))
                } else {
                    x[1].at(i) * (g.at(i) - total(&|j| g.at(j) * x[1].at(j)))
                }
            })]
        }
        Backward::Norm(norm) => {
            let at = 2 + norm.weights_of_gradient();
            let fixed = norm.kind == NormKind::Fixed;
            let mean = &x[at].v;
            let rstd: Vec<f64> =
                x[at + 1].v.iter().map(|&v| if fixed { 1.0 / (v + norm.eps).sqrt() } else { v }).collect();
            let n = (x[1].v.len() / mean.len().max(1)) as f64;
            // A channel has one weight, which its sums are multiplied by, as in PyTorch.
            // What an infinite one gives depends on that. Group norm adds the channels of a group.
            let by_channel = !matches!(norm.kind, NormKind::Layer { .. } | NormKind::Rms { .. });
            let channels = if matches!(norm.kind, NormKind::Group { .. }) { shape[1] } else { 0 };
            let parts = if channels > 0 { shape[0] * channels } else { mean.len() };
            let (mut sums, mut dots) = (vec![Sum::default(); parts], vec![Sum::default(); parts]);
            let count = if norm.affine { x[2].v.len() } else { 0 };
            let (mut dw, mut db) = (vec![Sum::default(); count], vec![Sum::default(); count]);
            let term = |i: &[usize]| {
                let (group, w) = places(norm, shape, i);
                let hat = (x[1].at(i) - mean[group]) * rstd[group];
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
                let (mut of, per_group) = (vec![Sum::default(); mean.len()], parts.len() / mean.len().max(1));
                for (at, v) in parts.into_iter().enumerate() {
                    of[at / per_group].add(v * if by_channel && norm.affine { x[2].v[at % count] } else { 1.0 });
                }
                values(of)
            };
            let [sums, dots] = [sums, dots].map(|parts| of_groups(values(parts)));
            let [dw, db] = [dw, db].map(values);
            let dx = each(&|i| {
                let (group, _, hat, _, up) = term(i);
                let mean_up = match norm.kind {
                    NormKind::Fixed | NormKind::Rms { .. } => 0.0,
                    NormKind::Layer { .. } | NormKind::Group { .. } | NormKind::Batch => sums[group] / n,
                };
                (up - mean_up - if fixed { 0.0 } else { hat * dots[group] / n }) * rstd[group]
            });
            [dx].into_iter()
                .chain([dw, db].map(|v| Dense { shape: shapes.get(1).cloned().unwrap_or_default(), v }))
                .take(shapes.len())
                .collect()
        }
        Backward::MatMulOf { act, .. } => {
            let product = each(&|i| {
                let r = i.len();
                g.along(i, r - 1).zip(x[1].along(i, r - 2)).map(|(a, x)| a * act.map_or(x, |act| unary(act, x))).sum()
            });
            let sums = shapes.get(1).map(|shape| Dense::from_fn(shape, |i| g.along(&[i[0], 0], 1).sum()));
            [product].into_iter().chain(sums).collect()
        }
        Backward::Renormalise(norm) => {
            let at = 1 + norm.weights();
            vec![each(&|i| {
                let (group, w) = places(norm, shape, i);
                let weight = if norm.affine { x[1].v[w] } else { 1.0 };
                let bias = if norm.weights() == 2 { x[2].v[w] } else { 0.0 };
                let y = (x[0].at(i) - x[at].v[group]) * x[at + 1].v[group] * weight + bias;
                norm.act.map_or(y, |act| unary(act, y))
            })]
        }
        Backward::CrossEntropy(loss) => {
            check_index("cross_entropy", &x[2], shape[1], "classes", Some(loss.ignore_index))?;
            let p = softmax(&x[1], 1, false);
            let classes = shape[1] as f64;
            let counted = x[2].v.iter().filter(|t| **t as i64 != loss.ignore_index).count() as f64;
            vec![each(&|i| {
                let row: Vec<usize> = i.iter().enumerate().filter(|(d, _)| *d != 1).map(|(_, &v)| v).collect();
                let target = x[2].at(&row) as i64;
                if target == loss.ignore_index {
                    return 0.0;
                }
                let wanted = (1.0 - loss.smoothing) * (target == i[1] as i64) as u8 as f64 + loss.smoothing / classes;
                let up = match loss.reduction {
                    Reduction::None => g.at(&row),
                    Reduction::Sum => g.v[0],
                    Reduction::Mean => g.v[0] / counted,
                };
                up * (p.at(i) - wanted)
            })]
        }
        Backward::Loss { loss, parameter, reduction, target } => {
            let n = if *reduction == Reduction::Mean { x[1].v.len() as f64 } else { 1.0 };
            vec![each(&|i| g.at(i) * loss_slope(*loss, *target, x[1].at(i), x[2].at(i), *parameter) / n)]
        }
        Backward::Ternary { op, value, operand } => {
            vec![each(&|i| g.at(i) * ternary_slope(*op, *operand, x[1].at(i), x[2].at(i), x[3].at(i), *value))]
        }
        Backward::Resample { map, shape: input } => {
            let mut dx = Dense::zeros(shape);
            for flat in 0..g.v.len() {
                for (at, w) in places_of(map, input, &unflatten(flat, &g.shape)) {
                    dx.add(&at, w * g.v[flat]);
                }
            }
            vec![dx]
        }
        Backward::Attention { attention, joined } => {
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
            if *joined {
                vec![Dense { shape: [&[3], &q.shape[..]].concat(), v: [dq.v, dk.v, dv.v].concat() }]
            } else {
                vec![dq, dk, dv]
            }
        }
        Backward::Embedding { .. } => {
            check_index("embedding", &x[1], shape[0], "rows", None)?;
            let mut dw = Dense::zeros(shape);
            let d = shape[1];
            for (flat, &up) in g.v.iter().enumerate() {
                dw.v[x[1].v[flat / d] as usize * d + flat % d] += up;
            }
            vec![dw]
        }
        Backward::Narrow { dim, start, .. } => {
            let mut out = Dense::zeros(shape);
            for (flat, &v) in g.v.iter().enumerate() {
                let mut i = unflatten(flat, &g.shape);
                i[*dim] += start;
                out.set(&i, v);
            }
            vec![out]
        }
    })
}

/// Of some pixels the first where `x` is largest; NaN is larger than all.
fn first_largest(x: &Dense, window: &[[usize; 4]]) -> Option<[usize; 4]> {
    window.iter().copied().reduce(|best, at| {
        let (a, b) = (x.at(&best), x.at(&at));
        if a.is_nan() || b <= a { best } else { at }
    })
}
