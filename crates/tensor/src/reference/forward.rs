//! Forward operators, from their definitions.

use super::elementwise::{binary, compare, loss as loss_of, ternary, unary};
use super::functions::{stochastic, sum_of};
use super::{Dense, unflatten};
use crate::op::{
    Attention, Binary, Conv2d, CustomView, Distribution, Epilogue, Norm, NormKind, Pool, PoolKind, Reduce, Reduction,
    Resample, Scan, Scatter, View,
};
use crate::{Dims, Error, Key, Op, Result};

/// All outputs in f64; `shapes` are theirs.
pub(super) fn forward(op: &Op, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
    let shape = &shapes[0];
    let each = |f: &dyn Fn(&[usize]) -> f64| Dense::from_fn(shape, f);
    Ok(match op {
        Op::Unary(row) => vec![each(&|i| unary(*row, x[0].at(i)))],
        Op::Binary(row) => vec![each(&|i| binary(*row, x[0].at(i), x[1].at(i)))],
        Op::Scalar { op, value, reversed: false } => vec![each(&|i| binary(*op, x[0].at(i), *value))],
        Op::Scalar { op, value, reversed: true } => vec![each(&|i| binary(*op, *value, x[0].at(i)))],
        Op::Compare(row) => vec![each(&|i| compare(*row, x[0].at(i), x[1].at(i)) as u8 as f64)],
        Op::Where => vec![each(&|i| if x[0].at(i) != 0.0 { x[1].at(i) } else { x[2].at(i) })],
        Op::Reduce { kind, dims, .. } => {
            vec![Dense { shape: shape.clone(), v: groups(&x[0], *dims).iter().map(|g| reduce(*kind, g)).collect() }]
        }
        Op::Scan { kind, dim, reverse } => vec![each(&|i| {
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
        })],
        Op::Gather { dim } => {
            check_index("gather", &x[1], extent(&x[0].shape, *dim), "elements", None)?;
            vec![each(&|i| {
                let mut at = i.to_vec();
                if let Some(at) = at.get_mut(*dim) {
                    *at = x[1].at(i) as usize;
                }
                x[0].at(&at)
            })]
        }
        Op::Scatter { kind, dim } => {
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
            vec![y]
        }
        Op::Sort { dim, descending, .. } => {
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
            vec![values, places]
        }
        Op::ArgMax { dim, .. } => {
            let dims = if x[0].shape.is_empty() { Dims::all(0) } else { Dims::one(*dim) };
            // Of equal elements `max_by` takes the last.
            let best = |g: &Vec<f64>| (0..g.len()).rev().max_by(|&a, &b| order(g[a], g[b])).unwrap_or(0) as f64;
            vec![Dense { shape: shape.clone(), v: groups(&x[0], dims).iter().map(best).collect() }]
        }
        Op::MatMul(epilogue) => {
            let product = each(&|i| {
                let r = i.len();
                x[0].along(i, r - 1).zip(x[1].along(i, r - 2)).map(|(a, b)| a * b).sum()
            });
            finish(product, epilogue, x, |i| i[i.len() - 1])
        }
        Op::MatMulOf { act, bias } => {
            let product = each(&|i| {
                let r = i.len();
                x[0].along(i, r - 1).zip(x[1].along(i, r - 2)).map(|(a, b)| unary(*act, a) * b).sum()
            });
            finish(product, &Epilogue { bias: *bias, act: None }, x, |i| i[i.len() - 1])
        }
        Op::Conv2d(conv, epilogue) => finish(convolve(conv, &x[0], &x[1], shape), epilogue, x, |i| i[1]),
        Op::ConvTranspose2d { conv, bias, .. } => {
            let mut y = Dense::zeros(shape);
            products(conv, shape, &x[1].shape, &x[0].shape, |o, w, at| y.v[at] += x[0].v[o] * x[1].v[w]);
            vec![each(&|i| y.at(i) + if *bias { x[2].v[i[1]] } else { 0.0 })]
        }
        Op::Pool(pool) => vec![each(&|i| {
            let window: Vec<f64> = window(pool, &x[0].shape, i).iter().map(|at| x[0].at(at)).collect();
            match pool.kind {
                PoolKind::Max => reduce(Reduce::Max, &window),
                PoolKind::Avg => window.iter().sum::<f64>() / divisor(pool, &x[0].shape, i),
            }
        })],
        Op::Softmax { dim, log } => vec![softmax(&x[0], *dim, *log)],
        Op::Norm(norm) => normalise(norm, x, shapes),
        Op::CrossEntropy(loss) => {
            let log_p = softmax(&x[0], 1, true);
            let classes = x[0].shape[1];
            check_index("cross_entropy", &x[1], classes, "classes", Some(loss.ignore_index))?;
            let (mut total, mut count) = (Vec::new(), 0.0);
            for flat in 0..x[1].v.len() {
                let target = x[1].v[flat] as i64;
                if target == loss.ignore_index {
                    total.push(0.0);
                    continue;
                }
                let mut index = unflatten(flat, &x[1].shape);
                index.insert(1, 0);
                let mut at = |c: usize| {
                    index[1] = c;
                    -log_p.at(&index)
                };
                let mean = (0..classes).map(&mut at).sum::<f64>() / classes as f64;
                total.push(
                    (1.0 - loss.smoothing) * at(target as usize)
                        + loss.smoothing * if loss.smoothing > 0.0 { mean } else { 0.0 },
                );
                count += 1.0;
            }
            vec![loss_result(loss.reduction, total, count, shape)]
        }
        Op::Loss { loss, parameter, reduction } => {
            let each: Vec<f64> = x[0].v.iter().zip(&x[1].v).map(|(&x, &t)| loss_of(*loss, x, t, *parameter)).collect();
            let n = each.len() as f64;
            vec![loss_result(*reduction, each, n, shape)]
        }
        Op::Ternary { op, value } => vec![each(&|i| ternary(*op, x[0].at(i), x[1].at(i), x[2].at(i), *value))],
        Op::Resample(map) => vec![each(&|i| {
            let terms = places_of(map, &x[0].shape, i);
            if terms.is_empty() { map.fill() } else { terms.iter().map(|(at, w)| w * x[0].at(at)).sum() }
        })],
        Op::Attention(attention) => attend(attention, x, shapes),
        Op::Embedding => {
            check_index("embedding", &x[1], x[0].shape[0], "rows", None)?;
            vec![each(&|i| x[0].at(&[x[1].at(&i[..i.len() - 1]) as usize, i[i.len() - 1]]))]
        }
        Op::Cat { dim } => vec![each(&|i| {
            let mut index = i.to_vec();
            for part in x {
                if index[*dim] < part.shape[*dim] {
                    let flat = part.shape.iter().zip(&index).fold(0, |flat, (&n, &i)| flat * n + i);
                    return part.v[flat];
                }
                index[*dim] -= part.shape[*dim];
            }
            f64::NAN
        })],
        Op::Dropout { p, key } => {
            let dropped = |flat: usize| (key.bits(flat) as f64) < (p * 4294967296.0).floor();
            let v =
                x[0].v.iter().enumerate().map(|(flat, v)| if dropped(flat) { 0.0 } else { v / (1.0 - p) }).collect();
            vec![Dense { shape: shape.clone(), v }]
        }
        Op::Random { distribution, key, .. } => vec![random(distribution, *key, shape)],
        Op::Fill { value, .. } => vec![each(&|_| *value)],
        Op::Range { start, .. } => vec![each(&|i| (*start + i[0] as i64) as f64)],
        Op::StochasticCast { dtype, key } => {
            let round = |(flat, &v): (usize, &f64)| stochastic(*dtype, v, key.bits(flat));
            vec![Dense { shape: shape.clone(), v: x[0].v.iter().enumerate().map(round).collect() }]
        }
        Op::Cast(_) | Op::Copy => vec![x[0].clone()],
        Op::View(View::Permute(_) | View::Reshape(_) | View::Narrow { .. } | View::Expand(_)) => {
            return Err(Error::Argument { op: op.name(), message: "a view runs no kernel".into() });
        }
        Op::Custom(op) => {
            let inner: Vec<crate::Shape> = x.iter().map(|x| crate::Shape::from_slice(&x.shape)).collect();
            let views: Vec<CustomView<'_, f64>> =
                x.iter().zip(&inner).map(|(x, shape)| CustomView { shape, values: &x.v }).collect();
            let mut outs: Vec<Vec<f64>> = shapes.iter().map(|s| vec![0.0; s.iter().product()]).collect();
            op.define(&views, &mut outs)?;
            outs.into_iter().zip(shapes).map(|(v, shape)| Dense { shape: shape.clone(), v }).collect()
        }
        Op::Backward(backward) => super::backward::backward(backward, x, shapes)?,
    })
}

/// NaN is larger than any number; zeros are equal.
fn order(a: f64, b: f64) -> std::cmp::Ordering {
    (a.is_nan(), a).partial_cmp(&(b.is_nan(), b)).unwrap_or(std::cmp::Ordering::Equal)
}

/// Fails where an index is out of range.
pub(super) fn check_index(
    op: &'static str,
    index: &Dense,
    size: usize,
    what: &'static str,
    ignored: Option<i64>,
) -> Result<()> {
    let bad = |i: &&f64| !(0.0..size as f64).contains(*i) && Some(**i as i64) != ignored;
    match index.v.iter().find(bad) {
        Some(&bad) => Err(Error::IndexOutOfRange { op, index: bad as i64, size, what }),
        None => Ok(()),
    }
}

/// The extent of a dimension, of which a scalar has one element.
pub(super) fn extent(shape: &[usize], dim: usize) -> usize {
    shape.get(dim).copied().unwrap_or(1)
}

/// Pixels of an image of shape `x` under the window of output pixel `o`, in row-major order.
pub(super) fn window(pool: &Pool, x: &[usize], o: &[usize]) -> Vec<[usize; 4]> {
    let at = |d: usize, k: usize| (o[d + 2] * pool.stride[d] + k * pool.dilation[d]).checked_sub(pool.padding[d]);
    let inside = |d: usize, k: usize| at(d, k).filter(|&p| p < x[d + 2]);
    let row = |y: usize| (0..pool.kernel[1]).filter_map(move |kx| Some([o[0], o[1], y, inside(1, kx)?]));
    (0..pool.kernel[0]).filter_map(|ky| inside(0, ky)).flat_map(row).collect()
}

/// Taps of a mean that count: those inside, or all up to the end of the padding.
pub(super) fn divisor(pool: &Pool, x: &[usize], o: &[usize]) -> f64 {
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

/// The inputs that make output `i` of a linear map, and their weights.
pub(super) fn places_of(map: &Resample, x: &[usize], i: &[usize]) -> Vec<(Vec<usize>, f64)> {
    let mut all = vec![(Vec::new(), 1.0)];
    for d in 0..x.len() {
        let taps = &map.taps(d, x[d])[i[d]];
        all =
            all.iter().flat_map(|(at, w)| taps.iter().map(move |&(j, v)| ([&at[..], &[j]].concat(), w * v))).collect();
    }
    all
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

/// The elements that are reduced together, for each element of the result in row-major order.
pub(super) fn groups(x: &Dense, dims: Dims) -> Vec<Vec<f64>> {
    let kept: Vec<usize> = (0..x.shape.len()).filter(|&d| !dims.contains(d)).collect();
    let shape: Vec<usize> = kept.iter().map(|&d| x.shape[d]).collect();
    let mut out = vec![Vec::new(); shape.iter().product()];
    for (flat, &v) in x.v.iter().enumerate() {
        let index = unflatten(flat, &x.shape);
        out[kept.iter().zip(&shape).fold(0, |at, (&d, &n)| at * n + index[d])].push(v);
    }
    out
}

pub(super) fn reduce(kind: Reduce, g: &[f64]) -> f64 {
    let n = g.len() as f64;
    let sum = || sum_of(g.iter().copied());
    match kind {
        Reduce::Sum => sum(),
        Reduce::Mean => sum() / n,
        Reduce::Max => g.iter().fold(f64::NEG_INFINITY, |m, &v| binary(Binary::Maximum, m, v)),
        Reduce::Min => g.iter().fold(f64::INFINITY, |m, &v| binary(Binary::Minimum, m, v)),
        Reduce::Std { correction } => reduce(Reduce::Var { correction }, g).sqrt(),
        Reduce::Prod => g.iter().product(),
        Reduce::LogSumExp => {
            let max = reduce(Reduce::Max, g);
            if max.is_finite() { max + sum_of(g.iter().map(|v| f64::exp(v - max))).ln() } else { max }
        }
        Reduce::Norm { p: 0.0 } => g.iter().filter(|v| **v != 0.0).count() as f64,
        Reduce::Norm { p } if p.is_infinite() => {
            let magnitudes: Vec<f64> = g.iter().map(|v| v.abs()).collect();
            if p > 0.0 {
                reduce(Reduce::Max, &[&magnitudes[..], &[0.0]].concat())
            } else {
                reduce(Reduce::Min, &magnitudes)
            }
        }
        Reduce::Norm { p } => {
            // Of the largest: a root of what is far from 1 would magnify the rounding of 1/p.
            let largest = g.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            let scale = if p > 0.0 && largest > 0.0 && largest.is_finite() { largest } else { 1.0 };
            scale * g.iter().map(|v| (v.abs() / scale).powf(p)).sum::<f64>().powf(1.0 / p)
        }
        Reduce::Var { correction } => {
            let mean = mean(g);
            // NaN of no elements.
            (0.0 * mean + sum_of(g.iter().map(|v| (v - mean).powi(2)))) / (n - correction).max(0.0)
        }
    }
}

/// Counted from the first element, so that the mean of equal ones is each of them.
pub(super) fn mean(g: &[f64]) -> f64 {
    let first = g.first().copied().filter(|v| v.is_finite()).unwrap_or(0.0);
    first + sum_of(g.iter().map(|v| v - first)) / g.len() as f64
}

/// Bias and activation; the value before the activation second, where it is an output.
fn finish(product: Dense, epilogue: &Epilogue, x: &[Dense], feature: impl Fn(&[usize]) -> usize) -> Vec<Dense> {
    let pre = Dense::from_fn(&product.shape, |i| product.at(i) + if epilogue.bias { x[2].v[feature(i)] } else { 0.0 });
    match epilogue.act {
        Some(act) => vec![Dense { shape: pre.shape.clone(), v: pre.v.iter().map(|&v| unary(act, v)).collect() }, pre],
        None => vec![pre],
    }
}

/// Calls `f(output, weight, input)` with the flat positions of every product of a convolution.
pub(super) fn products(conv: &Conv2d, x: &[usize], w: &[usize], out: &[usize], mut f: impl FnMut(usize, usize, usize)) {
    let (cg, og) = (w[1], w[0] / conv.groups);
    for flat in 0..out.iter().product() {
        let o = unflatten(flat, out);
        // Where a tap of the kernel lies in the input, if it does not lie in the padding.
        let inside = |d: usize, k: usize| {
            let at = (o[d + 2] * conv.stride[d] + k * conv.dilation[d]).checked_sub(conv.padding[d]);
            at.filter(|at| *at < x[d + 2])
        };
        for c in 0..cg {
            let (w_plane, x_plane) = (o[1] * cg + c, o[0] * x[1] + o[1] / og * cg + c);
            for ky in 0..w[2] {
                let Some(y) = inside(0, ky) else { continue };
                for kx in 0..w[3] {
                    let Some(xx) = inside(1, kx) else { continue };
                    f(flat, (w_plane * w[2] + ky) * w[3] + kx, (x_plane * x[2] + y) * x[3] + xx);
                }
            }
        }
    }
}

fn convolve(conv: &Conv2d, x: &Dense, w: &Dense, shape: &[usize]) -> Dense {
    let mut out = Dense::zeros(shape);
    products(conv, &x.shape, &w.shape, shape, |o, wi, xi| out.v[o] += x.v[xi] * w.v[wi]);
    out
}

pub(super) fn softmax(x: &Dense, dim: usize, log: bool) -> Dense {
    let dims = if x.shape.is_empty() { Dims::all(0) } else { Dims::one(dim) };
    let totals: Vec<(f64, f64)> = groups(x, dims)
        .iter()
        .map(|g| {
            let max = reduce(Reduce::Max, g);
            (max, sum_of(g.iter().map(|v| f64::exp(v - max))))
        })
        .collect();
    Dense::from_fn(&x.shape, |i| {
        let at = (0..i.len()).filter(|&d| d != dim).fold(0, |at, d| at * x.shape[d] + i[d]);
        let (max, total) = totals[at];
        if log { x.at(i) - max - f64::ln(total) } else { f64::exp(x.at(i) - max) / total }
    })
}

fn loss_result(reduction: Reduction, values: Vec<f64>, count: f64, shape: &[usize]) -> Dense {
    match reduction {
        Reduction::None => Dense { shape: shape.to_vec(), v: values },
        Reduction::Sum => Dense { shape: vec![], v: vec![sum_of(values)] },
        Reduction::Mean => Dense { shape: vec![], v: vec![sum_of(values) / count] },
    }
}

/// (statistics group, weight) of an element.
pub(super) fn places(norm: &Norm, shape: &[usize], i: &[usize]) -> (usize, usize) {
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
    let rstd: Vec<f64> = var.iter().map(|v| 1.0 / (v + norm.eps).sqrt()).collect();
    let y = Dense::from_fn(shape, |i| {
        let (g, w) = places(norm, shape, i);
        let weight = if norm.affine { x[1].v[w] } else { 1.0 };
        let bias = if norm.weights() == 2 { x[2].v[w] } else { 0.0 };
        let y = (x[0].at(i) - mean[g]) * rstd[g] * weight + bias;
        norm.act.map_or(y, |act| unary(act, y))
    });
    [y.clone()]
        .into_iter()
        .chain([mean, rstd, var].map(|v| Dense { shape: vec![v.len()], v }))
        .take(shapes.len())
        .collect()
}

/// The index with the head of k and v that serves its head of q.
pub(super) fn key_head(i: &[usize], q: &Dense, k: &Dense) -> Vec<usize> {
    let mut i = i.to_vec();
    if let Some(head) = i.len().checked_sub(3) {
        i[head] /= q.shape[head] / k.shape[head];
    }
    i
}

/// What a weight is multiplied by in training.
pub(super) fn kept(attention: &Attention, flat: usize) -> f64 {
    let dropped =
        attention.dropout > 0.0 && (attention.key.bits(flat) as f64) < (attention.dropout * 4294967296.0).floor();
    if dropped { 0.0 } else { 1.0 / (1.0 - attention.dropout) }
}

/// Scores `[…, T, S]`, −∞ where a key is hidden from a query, and their scale.
pub(super) fn scores(
    attention: &Attention,
    q: &Dense,
    k: &Dense,
    mask: Option<&Dense>,
    bool_mask: bool,
) -> (Dense, f64) {
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
pub(super) fn probabilities(scores: &Dense) -> Dense {
    let mut p = softmax(scores, scores.shape.len() - 1, false);
    p.v.iter_mut().zip(&scores.v).filter(|(_, s)| **s == f64::NEG_INFINITY).for_each(|(p, _)| *p = 0.0);
    p
}

/// A weight times a value, which counts for nothing where the key is hidden.
pub(super) fn seen(score: f64, product: f64) -> f64 {
    if score == f64::NEG_INFINITY { 0.0 } else { product }
}

/// A mask of zeros and ones is a bool one: an additive mask of the samples is never both.
pub(super) fn is_bool(mask: Option<&Dense>) -> bool {
    mask.is_some_and(|m| m.v.iter().all(|&v| v == 0.0 || v == 1.0))
}

pub(super) fn attend(attention: &Attention, x: &[Dense], shapes: &[Vec<usize>]) -> Vec<Dense> {
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
