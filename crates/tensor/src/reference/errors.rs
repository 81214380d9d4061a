//! First-order error analysis: how far a result may lie from the exact one where that is no multiple of the result,
//! because terms cancel, an activation follows, or a saved value was rounded. What
//! [`Bound::Terms`](crate::op::Bound::Terms) refers to.

use super::Dense;
use super::backward::backward;
use super::elementwise::unary;
use super::forward::{forward, groups, is_bool, kept, key_head, mean, places, probabilities, reduce, scores};
use crate::format::Format;
use crate::op::{Attention, Backward, Epilogue, Norm, NormKind, Reduce, Unary};
use crate::{DType, Dims, Op, Result, Shape};

/// Below this tiles take products for 0.
const TILES_FLUSH: f64 = f32::MIN_POSITIVE as f64;

/// Per output and element, the largest error before the one rounding to the output's dtype, for inputs of these dtypes
/// and `terms` roundings of unit `u`.
///
/// # Errors
/// The operator fails.
pub(crate) fn errors(
    op: &Op,
    x: &[Dense],
    dtypes: &[DType],
    shapes: &[Vec<usize>],
    terms: f64,
    u: f64,
) -> Result<Vec<Vec<f64>>> {
    let e = terms * u;
    Ok(match op {
        Op::MatMul(epilogue) => activated(&Op::MatMul(plain(epilogue)), epilogue.act, x, shapes, e, u)?,
        Op::Conv2d(conv, epilogue) => activated(&Op::Conv2d(*conv, plain(epilogue)), epilogue.act, x, shapes, e, u)?,
        Op::MatMulOf { act, bias } => {
            let product = Op::MatMul(Epilogue { bias: *bias, act: None });
            product_of(&product, *act, 0, x, dtypes, shapes, e, u)?
        }
        Op::Backward(Backward::MatMulOf { act, sums }) => {
            let product = Op::Backward(Backward::MatMulOf { act: None, sums: *sums });
            match act {
                Some(act) => product_of(&product, *act, 1, x, dtypes, shapes, e, u)?,
                None => scaled(&forward(&product, &magnitudes(x), shapes)?, e),
            }
        }
        Op::Norm(norm) => normalised(norm, x, shapes, e, u),
        Op::Backward(Backward::Norm(norm)) => norm_gradient(norm, x, shapes, e),
        Op::Backward(Backward::Renormalise(norm)) => renormalised(norm, x, &shapes[0], e, u),
        Op::Backward(Backward::Reduce { kind, dims }) => vec![spread_gradient(*kind, *dims, x, shapes, e, u)?],
        Op::Attention(attention) => attended(attention, x, u),
        Op::Backward(Backward::Attention { attention, joined }) => attention_gradient(attention, *joined, x, u),
        Op::Backward(
            Backward::Unary(_)
            | Backward::Binary { .. }
            | Backward::Scalar { .. }
            | Backward::CumProd { .. }
            | Backward::Gather { .. }
            | Backward::Conv2dInput { .. }
            | Backward::Conv2dWeight { .. }
            | Backward::Depthwise { .. }
            | Backward::Pool { .. }
            | Backward::PoolSelect { .. }
            | Backward::Softmax { .. }
            | Backward::CrossEntropy(_)
            | Backward::Ternary { .. }
            | Backward::Loss { .. }
            | Backward::Resample { .. }
            | Backward::Embedding { .. }
            | Backward::Narrow { .. },
        )
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Scalar { .. }
        | Op::Compare(_)
        | Op::Where
        | Op::Reduce { .. }
        | Op::Scan { .. }
        | Op::Gather { .. }
        | Op::Scatter { .. }
        | Op::Sort { .. }
        | Op::ArgMax { .. }
        | Op::ConvTranspose2d { .. }
        | Op::Pool(_)
        | Op::Softmax { .. }
        | Op::CrossEntropy(_)
        | Op::Loss { .. }
        | Op::Ternary { .. }
        | Op::Resample(_)
        | Op::Embedding
        | Op::Cat { .. }
        | Op::Dropout { .. }
        | Op::Random { .. }
        | Op::Fill { .. }
        | Op::Range { .. }
        | Op::Cast(_)
        | Op::StochasticCast { .. }
        | Op::Copy
        | Op::View(_)
        | Op::Custom(_) => scaled(&forward(op, &magnitudes(x), shapes)?, e),
    })
}

fn magnitudes(x: &[Dense]) -> Vec<Dense> {
    x.iter().map(|x| Dense { shape: x.shape.clone(), v: x.v.iter().map(|v| v.abs()).collect() }).collect()
}

fn scaled(sums: &[Dense], e: f64) -> Vec<Vec<f64>> {
    sums.iter().map(|s| s.v.iter().map(|v| e * v).collect()).collect()
}

fn plain(epilogue: &Epilogue) -> Epilogue {
    Epilogue { act: None, ..*epilogue }
}

/// How far an activation may be off if its argument is `z` ± `error`: the change, and its own error.
fn through(act: Unary, z: f64, error: f64, u: f64) -> f64 {
    let y = unary(act, z);
    let change = |z: f64| (unary(act, z) - y).abs();
    let format = if u < 1e-10 { Format::F64 } else { Format::F32 };
    change(z + error).max(change(z - error)) + act.ulp() * format.ulp(y)
}

/// A product whose error passes through an activation. The value before it, where that is an output, has the product's
/// own.
fn activated(op: &Op, act: Option<Unary>, x: &[Dense], shapes: &[Vec<usize>], e: f64, u: f64) -> Result<Vec<Vec<f64>>> {
    let sums = scaled(&forward(op, &magnitudes(x), shapes)?, e).swap_remove(0);
    let Some(act) = act else { return Ok(vec![sums]) };
    let z = forward(op, x, shapes)?.swap_remove(0).v;
    Ok(vec![z.iter().zip(&sums).map(|(&z, &s)| through(act, z, s, u)).collect(), sums])
}

/// A product one of whose operands is an activation of what is given, rounded to that operand's dtype.
fn product_of(
    product: &Op,
    act: Unary,
    operand: usize,
    x: &[Dense],
    dtypes: &[DType],
    shapes: &[Vec<usize>],
    e: f64,
    u: f64,
) -> Result<Vec<Vec<f64>>> {
    let half = match dtypes[operand] {
        DType::F16 => Some(Format::F16),
        DType::BF16 => Some(Format::BF16),
        DType::F32 | DType::F64 | DType::I64 | DType::U32 | DType::I8 | DType::Bool => None,
    };
    let (mut values, mut errors) = (magnitudes(x), magnitudes(x));
    for (i, &argument) in x[operand].v.iter().enumerate() {
        let y = unary(act, argument);
        values[operand].v[i] = y.abs();
        errors[operand].v[i] = through(act, argument, 0.0, u) + half.map_or(0.0, |half| half.ulp(y) / 2.0);
    }
    let sums = scaled(&forward(product, &values, shapes)?, e);
    let rounded = forward(product, &errors, shapes)?;
    // The second output, sums of the other operand, has none of the activation.
    Ok(sums
        .into_iter()
        .enumerate()
        .map(|(k, s)| s.into_iter().zip(&rounded[k].v).map(|(s, r)| if k == 0 { s + r } else { s }).collect())
        .collect())
}

/// Mean and mean magnitude, and 1/deviation, of the groups of a norm.
struct Groups {
    mean: Vec<f64>,
    magnitude: Vec<f64>,
    rstd: Vec<f64>,
    var: Vec<f64>,
}

fn is_centred(norm: &Norm) -> bool {
    match norm.kind {
        NormKind::Layer { .. } | NormKind::Group { .. } | NormKind::Batch => true,
        NormKind::Rms { .. } | NormKind::Fixed => false,
    }
}

fn groups_of(norm: &Norm, x: &[Dense]) -> Groups {
    let (shape, given) = (&x[0].shape, 1 + norm.weights());
    if norm.kind == NormKind::Fixed {
        let var = x[given + 1].v.clone();
        let rstd = var.iter().map(|v| 1.0 / (v + norm.eps).sqrt()).collect();
        return Groups { mean: x[given].v.clone(), magnitude: vec![0.0; var.len()], rstd, var };
    }
    let mut members: Vec<Vec<f64>> = Vec::new();
    for (flat, &v) in x[0].v.iter().enumerate() {
        let group = places(norm, shape, &super::unflatten(flat, shape)).0;
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

/// The mean is off by `e` of the mean magnitude: in deviations, by a. So is x̂, and squares of distances by a².
fn normalised(norm: &Norm, x: &[Dense], shapes: &[Vec<usize>], e: f64, u: f64) -> Vec<Vec<f64>> {
    let (of, shape) = (groups_of(norm, x), &x[0].shape);
    let off: Vec<f64> = of.magnitude.iter().zip(&of.rstd).map(|(m, r)| e * m * r).collect();
    let y = Dense::from_fn(shape, |i| {
        let (g, w) = places(norm, shape, i);
        let weight = if norm.affine { x[1].v[w] } else { 1.0 };
        let bias = if norm.weights() == 2 { x[2].v[w] } else { 0.0 };
        let hat = (x[0].at(i) - of.mean[g]) * of.rstd[g];
        let error = weight.abs() * (off[g] + hat.abs() * (e + off[g] * off[g])) + e * bias.abs();
        norm.act.map_or(error, |act| through(act, hat * weight + bias, error, u))
    });
    let each = |f: &dyn Fn(usize) -> f64| (0..of.mean.len()).map(f).collect::<Vec<f64>>();
    let rest = [
        each(&|g| e * of.magnitude[g]),
        each(&|g| of.rstd[g] * (e + off[g] * off[g])),
        each(&|g| e * of.var[g] + (e * of.magnitude[g]).powi(2)),
    ];
    [y.v].into_iter().chain(rest).take(shapes.len()).collect()
}

fn renormalised(norm: &Norm, x: &[Dense], shape: &[usize], e: f64, u: f64) -> Vec<Vec<f64>> {
    let at = 1 + norm.weights();
    let y = Dense::from_fn(shape, |i| {
        let (g, w) = places(norm, shape, i);
        let weight = if norm.affine { x[1].v[w] } else { 1.0 };
        let bias = if norm.weights() == 2 { x[2].v[w] } else { 0.0 };
        let hat = (x[0].at(i) - x[at].v[g]) * x[at + 1].v[g];
        let error = e * ((hat * weight).abs() + bias.abs());
        norm.act.map_or(error, |act| through(act, hat * weight + bias, error, u))
    });
    vec![y.v]
}

/// `rstd·(g·w − mean(g·w) − x̂·mean(g·w·x̂))`, all terms with their magnitudes. Behind an activation g has its slope as
/// a factor, which changes with its argument by less than that.
fn norm_gradient(norm: &Norm, x: &[Dense], shapes: &[Vec<usize>], e: f64) -> Vec<Vec<f64>> {
    let (shape, at, fixed) = (&shapes[0], 2 + norm.weights_of_gradient(), norm.kind == NormKind::Fixed);
    let mean = &x[at].v;
    let rstd: Vec<f64> = x[at + 1].v.iter().map(|&v| if fixed { 1.0 / (v + norm.eps).sqrt() } else { v }).collect();
    let n = (x[1].v.len() / mean.len().max(1)) as f64;
    let count = if norm.affine { x[2].v.len() } else { 0 };
    let (mut sums, mut dots, mut dw, mut db) =
        (vec![0.0; mean.len()], vec![0.0; mean.len()], vec![0.0; count], vec![0.0; count]);
    let term = |i: &[usize]| {
        let (group, w) = places(norm, shape, i);
        let hat = ((x[1].at(i) - mean[group]) * rstd[group]).abs();
        let weight = if norm.affine { x[2].v[w].abs() } else { 1.0 };
        let bias = if norm.weights_of_gradient() == 2 { x[3].v[w].abs() } else { 0.0 };
        let before = x[0].at(i).abs() * norm.act.map_or(1.0, |_| 2.0 + hat * weight + bias);
        (group, w, hat, before, before * weight)
    };
    for flat in 0..x[0].v.len() {
        let (group, w, hat, before, up) = term(&super::unflatten(flat, shape));
        sums[group] += if is_centred(norm) { up } else { 0.0 };
        dots[group] += if fixed { 0.0 } else { up * hat };
        if norm.affine {
            dw[w] += before * hat;
            db[w] += before;
        }
    }
    let dx = Dense::from_fn(shape, |i| {
        let (group, _, hat, _, up) = term(i);
        e * rstd[group] * (up + sums[group] / n + hat * dots[group] / n)
    });
    let scale = |v: Vec<f64>| v.into_iter().map(|v| e * v).collect();
    [dx.v, scale(dw), scale(db)].into_iter().take(shapes.len()).collect()
}

/// The slope of a variance or deviation is computed in f64 and rounded once: the mean is off by a unit of f64. Other
/// reductions are told by their magnitudes.
fn spread_gradient(kind: Reduce, dims: Dims, x: &[Dense], shapes: &[Vec<usize>], e: f64, u: f64) -> Result<Vec<f64>> {
    let exact = backward(&Backward::Reduce { kind, dims }, x, shapes)?.swap_remove(0);
    let (Reduce::Var { correction } | Reduce::Std { correction }) = kind else {
        return Ok(exact.v.iter().map(|v| e * v.abs()).collect());
    };
    let kept = dims.reduce(&Shape::from_slice(&x[2].shape), true);
    let members = groups(&x[2], dims);
    let slopes = Dense::from_fn(&kept, |i| {
        let flat = x[0].flat(i);
        let (m, g) = (&members[flat], x[0].v[flat].abs());
        let divisor = m.len() as f64 - correction;
        let slope = if matches!(kind, Reduce::Std { .. }) { g / divisor / reduce(kind, m) } else { 2.0 * g / divisor };
        let largest = m.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        if slope.is_finite() { slope * largest * 64.0 * Format::F64.epsilon().min(u) } else { 0.0 }
    });
    Ok(Dense::from_fn(&x[2].shape, |i| e * exact.at(i).abs() + slopes.at(i)).v)
}

/// What attention's errors follow from.
struct Weights {
    scores: Dense,
    scale: f64,
    p: Dense,
    lse: Vec<f64>,
    /// Error of each score: a chain of products, the scaling, the mask, and the rounding of what is then subtracted
    /// from it.
    off: Dense,
}

impl Weights {
    fn of(attention: &Attention, q: &Dense, k: &Dense, mask: Option<&Dense>, u: f64) -> Weights {
        let (scores, scale) = scores(attention, q, k, mask, is_bool(mask));
        let r = scores.shape.len();
        let p = probabilities(&scores);
        let lse: Vec<f64> =
            groups(&scores, Dims::one(r - 1)).iter().map(|row| reduce(Reduce::LogSumExp, row)).collect();
        let chain = q.shape[r - 1] as f64 / 2.0 + 3.0;
        let off = Dense::from_fn(&scores.shape, |i| {
            let score = scores.at(i);
            if score == f64::NEG_INFINITY {
                return 0.0;
            }
            let mut key = key_head(i, q, k);
            key[r - 2] = i[r - 1];
            let size =
                q.along(i, r - 1).zip(k.along(&key, r - 1)).map(|(q, k)| (q * k).abs()).sum::<f64>() * scale.abs();
            u * (chain * size + 2.0 * score.abs() + 4.0)
        });
        Weights { scores, scale, p, lse, off }
    }

    /// The row of scores of a flat position.
    fn row(&self, flat: usize) -> usize {
        flat / self.p.shape[self.p.shape.len() - 1].max(1)
    }
}

/// Terms of a sum that one chain adds, with half of them as large as the whole.
fn chain(n: usize) -> f64 {
    n.min(256) as f64 / 2.0 + n as f64 / 256.0 + 8.0
}

/// A weight is off by the error of its score and by the mean error of its row; then a chain over the keys.
fn attended(attention: &Attention, x: &[Dense], u: f64) -> Vec<Vec<f64>> {
    let weights = Weights::of(attention, &x[0], &x[1], x.get(3), u);
    let r = x[0].shape.len();
    let keys = weights.p.shape[r - 1];
    let mut means = vec![0.0; weights.lse.len()];
    weights.p.v.iter().zip(&weights.off.v).enumerate().for_each(|(flat, (p, off))| means[weights.row(flat)] += p * off);
    let shape = [&x[0].shape[..r - 1], &[x[2].shape[r - 1]]].concat();
    let y = Dense::from_fn(&shape, |i| {
        let value = key_head(i, &x[0], &x[1]);
        let first = weights.p.flat(&[&i[..r - 1], &[0]].concat());
        let terms = x[2].along(&value, r - 2).enumerate().map(|(j, v)| {
            let flat = first + j;
            let weight = weights.p.v[flat] * kept(attention, flat);
            if weights.scores.v[flat] == f64::NEG_INFINITY {
                return 0.0;
            }
            weight * v.abs() * (weights.off.v[flat] + means[weights.row(flat)] + chain(keys) * u) + TILES_FLUSH
        });
        terms.sum()
    });
    let lse = weights.lse.iter().zip(&means).map(|(l, m)| m + u * (l.abs() + chain(keys))).collect();
    vec![y.v, lse]
}

/// Inputs g, q, k, v, output, log-sum-exp, mask. The saved output and log-sum-exp stand for exact ones, so their own
/// errors are part of it.
fn attention_gradient(attention: &Attention, joined: bool, x: &[Dense], u: f64) -> Vec<Vec<f64>> {
    let [g, q, k, v, out] = [&x[0], &x[1], &x[2], &x[3], &x[4]];
    let weights = Weights::of(attention, q, k, x.get(6), u);
    let (r, scale) = (q.shape.len(), weights.scale.abs());
    let forward_shapes = [out.shape.clone(), x[5].shape.clone()];
    let mut ins = vec![q.clone(), k.clone(), v.clone()];
    ins.extend(x.get(6).cloned());
    let exact = super::forward::attend(attention, &ins, &forward_shapes);
    let with = |i: &[usize], row: usize| [&i[..r - 2], &[row, 0]].concat();
    let products = |a: &Dense, i: &[usize], b: &Dense, j: &[usize]| -> (f64, f64) {
        a.along(i, r - 1)
            .zip(b.along(j, r - 1))
            .fold((0.0, 0.0), |(sum, size), (a, b)| (sum + a * b, size + (a * b).abs()))
    };
    let small = (g.shape[r - 1] as f64 / 2.0 + 4.0) * u;
    let (mut dq, mut dk, mut dv) = (Dense::zeros(&q.shape), Dense::zeros(&k.shape), Dense::zeros(&v.shape));
    let magnitude = |v: &[f64]| v.iter().map(|v| v.abs()).collect::<Vec<f64>>();
    let (queries, keys) = (chain(q.shape[r - 2]) * u, chain(k.shape[r - 2]) * u);
    for flat in (0..weights.p.v.len()).filter(|flat| weights.scores.v[*flat] != f64::NEG_INFINITY) {
        let i = super::unflatten(flat, &weights.p.shape);
        let (query, key) = (with(&i, i[r - 2]), with(&key_head(&i, q, k), i[r - 1]));
        let (row, p) = (weights.row(flat), weights.p.v[flat]);
        let (mut dp, size) = products(g, &query, v, &key);
        let drop = kept(attention, flat);
        dp *= drop;
        let (delta, delta_size) = products(g, &query, &exact[0], &query);
        let saved = g.along(&query, r - 1).zip(out.along(&query, r - 1).zip(exact[0].along(&query, r - 1)));
        let saved: f64 = saved.map(|(g, (a, b))| (g * (a - b)).abs()).sum();
        let lse = (x[5].v[row] - exact[1].v[row]).abs() + u * (weights.scores.v[flat] - exact[1].v[row]).abs();
        let relative = weights.off.v[flat] + lse;
        let ds = p * (dp - delta).abs() * scale;
        // A weight below the normal range is off by as much as the smallest number.
        let vanishing = f32::from_bits(1) as f64 * (dp - delta).abs() * scale;
        let off = vanishing
            + p * scale * ((dp - delta).abs() * (relative + 4.0 * u) + small * (size * drop + delta_size) + saved)
            + TILES_FLUSH;
        dq.add_row(&query, off + keys * ds, magnitude(&k.along(&key, r - 1).collect::<Vec<_>>()).into_iter());
        dk.add_row(&key, off + queries * ds, magnitude(&q.along(&query, r - 1).collect::<Vec<_>>()).into_iter());
        let weight = p * drop * (relative + queries) + TILES_FLUSH;
        dv.add_row(&key, weight, magnitude(&g.along(&query, r - 1).collect::<Vec<_>>()).into_iter());
    }
    // Each term may lie below the normal range, where rounding it costs half the smallest number.
    let terms = |n: usize| n as f64 * f32::from_bits(1) as f64 / 2.0;
    let heads = (g.v.len() / (g.shape[r - 1] * g.shape[r - 2]).max(1)).max(1);
    dq.v.iter_mut().for_each(|v| *v += terms(k.shape[r - 2]));
    dk.v.iter_mut().chain(&mut dv.v).for_each(|v| *v += terms(q.shape[r - 2] * heads));
    if joined { vec![[dq.v, dk.v, dv.v].concat()] } else { vec![dq.v, dk.v, dv.v] }
}
