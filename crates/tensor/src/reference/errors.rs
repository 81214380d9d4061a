//! First-order error analysis: how far a result may lie from the exact one where that is no multiple of the result,
//! because terms cancel, an activation follows, or a saved value was rounded. What
//! [`Bound::Terms`](crate::op::Bound::Terms) refers to.

mod attention;

use super::Dense;
use super::backward::backward;
use super::elementwise::unary;
use super::forward::{forward, groups, mean, places, reduce};
use crate::format::Format;
use crate::op::{Backward, Epilogue, Norm, NormKind, Reduce, Unary};
use crate::{DType, Dims, Op, Result, Shape};

/// Per output and element, the largest error before the one rounding to the output's dtype, for inputs of these dtypes
/// and `terms` roundings of unit `u`. Infinite where anything may come out: at a pole or the end of an activation's
/// domain, and of an activated sum whose terms leave the range on the way. NaN where operands are not finite.
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
        Op::Backward(Backward::Norm(norm)) => norm_gradient(norm, x, shapes, e, u),
        Op::Backward(Backward::Renormalise(norm)) => renormalised(norm, x, &shapes[0], e, u),
        Op::Backward(Backward::Reduce { kind, dims }) => vec![spread_gradient(*kind, *dims, x, shapes, e, u)?],
        Op::Attention(attention) => attention::forward(attention, x, u),
        Op::Backward(Backward::Attention { attention, joined }) => attention::backward(attention, *joined, x, u),
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
    sums.iter().map(|s| s.v.iter().map(|v| sound(e * v)).collect()).collect()
}

/// NaN of an error that is not finite because an operand is not: of what then is finite all roundings are relative.
fn sound(error: f64) -> f64 {
    if error.is_finite() { error } else { f64::NAN }
}

/// The format that is computed in.
fn computing(u: f64) -> Format {
    if u < 1e-10 { Format::F64 } else { Format::F32 }
}

fn plain(epilogue: &Epilogue) -> Epilogue {
    Epilogue { act: None, ..*epilogue }
}

/// How far an activation may be off if its argument is `z` ± `error`: the change, and its own error.
fn through(act: Unary, z: f64, error: f64, u: f64) -> f64 {
    let y = unary(act, z);
    if error.is_nan() {
        return error;
    }
    let change = |z: f64| match unary(act, z) {
        other if other == y || other.is_nan() && y.is_nan() => 0.0,
        // NaN on one side alone.
        other if other.is_nan() || y.is_nan() => f64::INFINITY,
        other => (other - y).abs(),
    };
    change(z + error).max(change(z - error)) + act.ulp() * computing(u).ulp(y)
}

/// Whether terms of these magnitudes together leave the range, as they may on the way to a sum that does not.
fn leaves_range(magnitudes: f64, u: f64) -> bool {
    magnitudes.is_finite() && magnitudes > computing(u).max_finite()
}

/// A product whose error passes through an activation. The value before it, where that is an output, has the product's
/// own.
fn activated(op: &Op, act: Option<Unary>, x: &[Dense], shapes: &[Vec<usize>], e: f64, u: f64) -> Result<Vec<Vec<f64>>> {
    let magnitudes = forward(op, &magnitudes(x), shapes)?.swap_remove(0);
    let sums = scaled(std::slice::from_ref(&magnitudes), e).swap_remove(0);
    let Some(act) = act else { return Ok(vec![sums]) };
    let z = forward(op, x, shapes)?.swap_remove(0).v;
    let after = |i: usize| {
        if leaves_range(magnitudes.v[i], u) { f64::INFINITY } else { through(act, z[i], sums[i], u) }
    };
    Ok(vec![(0..z.len()).map(after).collect(), sums])
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
    // An f32 operand of a product in f64 is activated in f32.
    let (rounded, unit) = match dtypes[operand] {
        DType::F16 => (Some(Format::F16), Format::F32.epsilon() / 2.0),
        DType::BF16 => (Some(Format::BF16), Format::F32.epsilon() / 2.0),
        DType::F32 => (Some(Format::F32), Format::F32.epsilon() / 2.0),
        DType::F64 | DType::I64 | DType::U32 | DType::I8 | DType::Bool => (None, u),
    };
    let (mut values, mut errors) = (magnitudes(x), magnitudes(x));
    for (i, &argument) in x[operand].v.iter().enumerate() {
        let y = unary(act, argument);
        values[operand].v[i] = y.abs();
        errors[operand].v[i] = through(act, argument, 0.0, unit) + rounded.map_or(0.0, |format| format.ulp(y) / 2.0);
    }
    let mut sums = forward(product, &values, shapes)?;
    let rounded = forward(product, &errors, shapes)?;
    // A second output, sums of the other operand, has none of the activation.
    let rest = scaled(&sums.split_off(1), e);
    let first = sums.remove(0).v.into_iter().zip(&rounded[0].v);
    let first = first.map(|(sum, r)| if leaves_range(sum, u) { f64::INFINITY } else { sound(e * sum) + sound(*r) });
    Ok([vec![first.collect()], rest].concat())
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

/// The mean is off by `e` of the mean magnitude: in deviations, by a. So is x̂, and squares of distances by a². A
/// product below the normal range is off by half the smallest number, which is a rounding of the smallest normal one,
/// and so is a mean there.
fn normalised(norm: &Norm, x: &[Dense], shapes: &[Vec<usize>], e: f64, u: f64) -> Vec<Vec<f64>> {
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
        norm.act.map_or(error, |act| after(act, [distance, hat, weight, bias], error, u))
    });
    let each = |f: &dyn Fn(usize) -> f64| (0..of.mean.len()).map(f).collect::<Vec<f64>>();
    let rest = [
        each(&|g| sound(e * of.magnitude[g])),
        each(&|g| sound(of.rstd[g] * (e + off[g] * off[g]))),
        each(&|g| sound(e * of.var[g] + (e * of.magnitude[g]).powi(2))),
    ];
    [y.v].into_iter().chain(rest).take(shapes.len()).collect()
}

/// [`through`] an activation behind a norm, whose argument may leave the range.
fn after(act: Unary, [distance, hat, weight, bias]: [f64; 4], error: f64, u: f64) -> f64 {
    let argument = (hat * weight).abs() + bias.abs();
    if leaves_range(argument.max(hat.abs()).max(distance.abs()), u) {
        return f64::INFINITY;
    }
    through(act, hat * weight + bias, error, u)
}

fn renormalised(norm: &Norm, x: &[Dense], shape: &[usize], e: f64, u: f64) -> Vec<Vec<f64>> {
    let (at, least) = (1 + norm.weights(), computing(u).min_normal());
    let y = Dense::from_fn(shape, |i| {
        let (g, w) = places(norm, shape, i);
        let weight = if norm.affine { x[1].v[w] } else { 1.0 };
        let bias = if norm.weights() == 2 { x[2].v[w] } else { 0.0 };
        let distance = x[0].at(i) - x[at].v[g];
        let hat = distance * x[at + 1].v[g];
        let below = least * (weight.abs() + distance.abs() + 1.0);
        let error = sound(e * ((hat * weight).abs() + bias.abs() + below));
        norm.act.map_or(error, |act| after(act, [distance, hat, weight, bias], error, u))
    });
    vec![y.v]
}

/// `rstd·(g·w − mean(g·w) − x̂·mean(g·w·x̂))`, all terms with their magnitudes. Behind an activation g has its slope as
/// a factor, which changes with its argument by less than that. Each product counts as the smallest normal number at
/// least, of which what it loses below the normal range is a rounding. Sums that leave the range may do so before they
/// are multiplied by 1/deviation, or after.
fn norm_gradient(norm: &Norm, x: &[Dense], shapes: &[Vec<usize>], e: f64, u: f64) -> Vec<Vec<f64>> {
    let least = computing(u).min_normal();
    let (shape, at, fixed) = (&shapes[0], 2 + norm.weights_of_gradient(), norm.kind == NormKind::Fixed);
    let mean = &x[at].v;
    let rstd: Vec<f64> = x[at + 1].v.iter().map(|&v| if fixed { 1.0 / (v + norm.eps).sqrt() } else { v }).collect();
    let n = (x[1].v.len() / mean.len().max(1)) as f64;
    let count = if norm.affine { x[2].v.len() } else { 0 };
    let (mut sums, mut dots, mut dw, mut db) =
        (vec![0.0; mean.len()], vec![0.0; mean.len()], vec![0.0; count], vec![0.0; count]);
    let (mut reach, mut dots_reach) = (vec![0.0; count], vec![0.0; mean.len()]);
    let term = |i: &[usize]| {
        let (group, w) = places(norm, shape, i);
        let hat = ((x[1].at(i) - mean[group]) * rstd[group]).abs();
        let weight = if norm.affine { x[2].v[w].abs() } else { 1.0 };
        let bias = if norm.weights_of_gradient() == 2 { x[3].v[w].abs() } else { 0.0 };
        // An infinite argument is exact, and so is the slope there.
        let argument = Some(hat * weight + bias).filter(|z| z.is_finite()).unwrap_or(0.0);
        let before = x[0].at(i).abs() * norm.act.map_or(1.0, |_| 2.0 + argument) + least;
        (group, w, hat, before, before * weight + least)
    };
    for flat in 0..x[0].v.len() {
        let i = super::unflatten(flat, shape);
        let (group, w, hat, before, up) = term(&i);
        sums[group] += if is_centred(norm) { up } else { 0.0 };
        // A product with x − mean that is below the normal range is multiplied by 1/deviation.
        dots[group] += if fixed { 0.0 } else { up * hat + least * rstd[group] };
        if norm.affine {
            dw[w] += before * hat + least * ((x[1].at(&i) - mean[group]).abs() + rstd[group] + 1.0);
            db[w] += before;
            reach[w] += before * hat.max((x[1].at(&i) - mean[group]).abs()).max(1.0);
        }
        dots_reach[group] += if fixed { 0.0 } else { up * hat.max((x[1].at(&i) - mean[group]).abs()) };
    }
    let dx = Dense::from_fn(shape, |i| {
        let (group, w, hat, before, up) = term(i);
        let r = rstd[group].max(1.0);
        if leaves_range((before + up + sums[group] + hat.max(r) * dots[group]) * r + dots_reach[group], u) {
            return f64::INFINITY;
        }
        // Of g·rstd or rstd·w, of the slope of x − mean and the shift, and of the sum.
        let weight = if norm.affine { x[2].v[w].abs() } else { 1.0 };
        let below = least * (weight + before + (x[1].at(i) - mean[group]).abs() + 2.0);
        sound(e * (rstd[group] * (up + sums[group] / n + hat * dots[group] / n) + below))
    });
    let error = |v: (f64, &f64)| if leaves_range(*v.1, u) { f64::INFINITY } else { sound(e * v.0) };
    let scale = |v: Vec<f64>| v.into_iter().zip(&reach).map(error).collect();
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
