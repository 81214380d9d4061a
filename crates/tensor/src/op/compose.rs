//! [`Op::compose`]: fused operators and backward kernels as programs of primitives. The registry checks each kernel
//! against its program, and gradients of gradients go through it.

mod products;

use products::{cumprod_backward, norm_backward, prod_backward};

use super::program::{Builder, Program, Value};
use super::trace::{self, Trace, binary_derivative, unary_derivative};
use super::*;
use crate::{Dims, Meta, Result};

impl Op {
    /// The definition of a fused operator's first output in primitives, for inputs of these shapes; `None` for a
    /// primitive.
    ///
    /// # Errors
    /// Inputs the operator does not take.
    pub fn compose(&self, ins: &[Meta]) -> Result<Option<Program>> {
        // The checks and messages of the operator itself.
        self.outs(ins, ins.first().map_or(crate::DType::F32, |m| m.dtype))?;
        let mut b = Builder::new(ins);
        let Some(out) = define(self, &mut b)? else { return Ok(None) };
        Ok(Some(b.finish(&[out])))
    }
}

fn define(op: &Op, b: &mut Builder) -> Result<Option<Value>> {
    let x = b.input(0);
    Ok(Some(match op {
        Op::MatMul(Epilogue { bias: false, act: None }) | Op::Conv2d(_, Epilogue { bias: false, act: None }) => {
            return Ok(None);
        }
        Op::MatMul(epilogue) => {
            let y = b.matmul(x, b.input(1))?;
            finish(b, epilogue, y, |b| Ok(b.input(2)))?
        }
        Op::MatMulOf { act, bias } => {
            let activated = b.unary(*act, x)?;
            let y = b.matmul(activated, b.input(1))?;
            finish(b, &Epilogue { bias: *bias, act: None }, y, |b| Ok(b.input(2)))?
        }
        Op::Conv2d(conv, epilogue) => {
            let y = b.op(Op::Conv2d(*conv, Epilogue::default()), &[x, b.input(1)])?;
            finish(b, epilogue, y, |b| b.per_channel(b.input(2), 4))?
        }
        Op::ConvTranspose2d { conv, bias, .. } => {
            let ins: Vec<Meta> = (0..2 + *bias as usize).map(|i| b.dense(b.input(i))).collect();
            let shape = *op.outs(&ins, b.dtype(x))?[0].shape();
            let y = b.op(Op::Backward(Backward::Conv2dInput { conv: *conv, shape }), &[x, b.input(1)])?;
            if *bias {
                let bias = b.per_channel(b.input(2), 4)?;
                b.binary(Binary::Add, y, bias)?
            } else {
                y
            }
        }
        Op::Softmax { dim, log } => softmax(b, x, *dim, *log)?,
        Op::Norm(norm) => normalise(b, norm)?,
        Op::CrossEntropy(loss) => cross_entropy(b, loss)?,
        Op::Loss { loss, parameter, reduction } => {
            let each = trace::loss(b, *loss, *parameter, None, x, b.input(1))?;
            reduce_loss(b, *reduction, each)?
        }
        Op::Ternary { op, value } => trace::ternary(b, *op, *value, None, [x, b.input(1), b.input(2)])?,
        Op::Attention(attention) => attend(b, attention)?,
        Op::Backward(backward) => match define_backward(backward, b)? {
            Some(y) => y,
            None => return Ok(None),
        },
        Op::Unary(_) | Op::Binary(_) | Op::Scalar { .. } | Op::Compare(_) | Op::Where | Op::Reduce { .. } => {
            return Ok(None);
        }
        Op::Scan { .. } | Op::Gather { .. } | Op::Scatter { .. } | Op::Sort { .. } => return Ok(None),
        Op::ArgMax { .. } | Op::Pool(_) | Op::Resample(_) | Op::Embedding | Op::Cat { .. } | Op::Dropout { .. } => {
            return Ok(None);
        }
        Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } | Op::Cast(_) => return Ok(None),
        Op::StochasticCast { .. } | Op::Copy | Op::View(_) | Op::Custom(_) => return Ok(None),
    }))
}

/// Bias and activation after a contraction.
fn finish(
    b: &mut Builder,
    epilogue: &Epilogue,
    y: Value,
    bias: impl Fn(&mut Builder) -> Result<Value>,
) -> Result<Value> {
    let mut y = y;
    if epilogue.bias {
        let bias = bias(b)?;
        y = b.binary(Binary::Add, y, bias)?;
    }
    match epilogue.act {
        Some(act) => b.unary(act, y),
        None => Ok(y),
    }
}

/// `exp(x − max)/Σ`, or its logarithm.
fn softmax(b: &mut Builder, x: Value, dim: usize, log: bool) -> Result<Value> {
    let dims = if b.shape(x).rank() == 0 { Dims::all(0) } else { Dims::one(dim) };
    if dims.count(&b.shape(x)) == 0 {
        // No largest element exists, nor is one needed.
        return b.op(Op::Copy, &[x]);
    }
    let max = b.reduce(Reduce::Max, x, dims)?;
    let shifted = b.binary(Binary::Sub, x, max)?;
    let e = b.unary(Unary::Exp, shifted)?;
    let sum = b.reduce(Reduce::Sum, e, dims)?;
    if log {
        let log_sum = b.unary(Unary::Log, sum)?;
        b.binary(Binary::Sub, shifted, log_sum)
    } else {
        b.binary(Binary::Div, e, sum)
    }
}

/// `act((x − mean)/√(var + eps)·weight + bias)`.
fn normalise(b: &mut Builder, norm: &Norm) -> Result<Value> {
    let x = b.input(0);
    let shape = b.shape(x);
    let rank = shape.rank();
    let (grouped, dims) = match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => (shape, (rank - dims..rank).fold(Dims::NONE, Dims::with)),
        NormKind::Group { groups } => {
            let inner: usize = shape[1..].iter().product::<usize>() / groups;
            (Shape::new(&[shape[0], groups, inner])?, Dims::one(2))
        }
        NormKind::Batch | NormKind::Fixed => (shape, (0..rank).filter(|&d| d != 1).fold(Dims::NONE, Dims::with)),
    };
    let values = b.reshape(x, grouped)?;
    let (mean, var) = if norm.kind == NormKind::Fixed {
        let at = 1 + norm.weights();
        (b.per_channel(b.input(at), rank)?, b.per_channel(b.input(at + 1), rank)?)
    } else if matches!(norm.kind, NormKind::Rms { .. }) {
        let square = b.unary(Unary::Square, values)?;
        (b.fill(0.0, Shape::SCALAR)?, b.reduce(Reduce::Mean, square, dims)?)
    } else {
        (b.reduce(Reduce::Mean, values, dims)?, b.reduce(Reduce::Var { correction: 0.0 }, values, dims)?)
    };
    let centred = b.binary(Binary::Sub, values, mean)?;
    let shifted = b.scalar(Binary::Add, var, norm.eps)?;
    let rstd = b.unary(Unary::Rsqrt, shifted)?;
    let hat = b.binary(Binary::Mul, centred, rstd)?;
    let mut y = b.reshape(hat, shape)?;
    if norm.affine {
        let vector = |b: &mut Builder, i: usize| match norm.kind {
            NormKind::Layer { .. } | NormKind::Rms { .. } => Ok(b.input(i)),
            NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => b.per_channel(b.input(i), rank),
        };
        let weight = vector(b, 1)?;
        y = b.binary(Binary::Mul, y, weight)?;
        if norm.weights() == 2 {
            let bias = vector(b, 2)?;
            y = b.binary(Binary::Add, y, bias)?;
        }
    }
    match norm.act {
        Some(act) => b.unary(act, y),
        None => Ok(y),
    }
}

/// `(1 − ε)·(−log p[target]) + ε·mean(−log p)`, over targets that count.
fn cross_entropy(b: &mut Builder, loss: &CrossEntropy) -> Result<Value> {
    let (x, target) = (b.input(0), b.input(1));
    let shape = b.shape(x);
    let log_p = softmax(b, x, 1, true)?;
    let one = Dims::one(1);
    let expanded = b.reshape(target, one.reduce(&shape, true))?;
    let classes = b.op(Op::Range { start: 0, length: shape[1] }, &[])?;
    let classes = b.per_channel(classes, shape.rank())?;
    let hit = b.compare(Compare::Eq, classes, expanded)?;
    let zero = b.fill(0.0, Shape::SCALAR)?;
    let picked = b.select(hit, log_p, zero)?;
    let picked = b.reduce(Reduce::Sum, picked, one)?;
    let mut value = b.scalar(Binary::Mul, picked, loss.smoothing - 1.0)?;
    if loss.smoothing > 0.0 {
        let mean = b.reduce(Reduce::Mean, log_p, one)?;
        let smooth = b.scalar(Binary::Mul, mean, -loss.smoothing)?;
        value = b.binary(Binary::Add, value, smooth)?;
    }
    let ignored = b.op(Op::Fill { value: loss.ignore_index as f64, shape: Shape::SCALAR }, &[])?;
    let counts = b.compare(Compare::Ne, expanded, ignored)?;
    let value = b.select(counts, value, zero)?;
    let value = b.reshape(value, one.reduce(&shape, false))?;
    if loss.reduction == Reduction::Mean {
        let rank = shape.rank() - 1;
        let one = b.fill(1.0, Shape::SCALAR)?;
        let ones = b.select(counts, one, zero)?;
        let ones = b.reshape(ones, b.shape(value))?;
        let (sum, n) = (b.reduce(Reduce::Sum, value, Dims::all(rank))?, b.reduce(Reduce::Sum, ones, Dims::all(rank))?);
        let mean = b.binary(Binary::Div, sum, n)?;
        return b.reshape(mean, Shape::SCALAR);
    }
    reduce_loss(b, loss.reduction, value)
}

/// A loss per element, reduced.
fn reduce_loss(b: &mut Builder, reduction: Reduction, each: Value) -> Result<Value> {
    let kind = match reduction {
        Reduction::None => return Ok(each),
        Reduction::Mean => Reduce::Mean,
        Reduction::Sum => Reduce::Sum,
    };
    let all = Dims::all(b.shape(each).rank());
    let total = b.reduce(kind, each, all)?;
    b.reshape(total, Shape::SCALAR)
}

/// `softmax(q·kᵀ·scale)·v`.
fn attend(b: &mut Builder, attention: &Attention) -> Result<Value> {
    let (q, mut k, mut v) = (b.input(0), b.input(1), b.input(2));
    let rank = b.shape(q).rank();
    if rank >= 3 && b.shape(q)[rank - 3] != b.shape(k)[rank - 3] {
        // Each head of k and v serves as many heads of q.
        let shared = b.shape(q)[rank - 3] / b.shape(k)[rank - 3];
        for value in [&mut k, &mut v] {
            let shape = b.shape(*value);
            let (mut one, mut many, mut flat) = (shape.to_vec(), shape.to_vec(), shape);
            one.insert(rank - 2, 1);
            many.insert(rank - 2, shared);
            flat[rank - 3] *= shared;
            let split = b.reshape(*value, Shape::new(&one)?)?;
            let wide = b.op(Op::View(View::Expand(Shape::new(&many)?)), &[split])?;
            *value = b.op(Op::Copy, &[wide])?;
            *value = b.reshape(*value, flat)?;
        }
    }
    let (t, d, s) = (b.shape(q)[rank - 2], b.shape(q)[rank - 1], b.shape(k)[rank - 2]);
    let keys = b.transpose(k)?;
    let scores = b.matmul(q, keys)?;
    if s == 0 {
        // No largest score exists, nor is one needed.
        return b.matmul(scores, v);
    }
    let mut scores = b.scalar(Binary::Mul, scores, attention.scale.unwrap_or(1.0 / (d.max(1) as f64).sqrt()))?;
    if attention.causal {
        let rows = b.op(Op::Range { start: 0, length: t }, &[])?;
        let rows = b.reshape(rows, Shape::new(&[t, 1])?)?;
        let columns = b.op(Op::Range { start: 0, length: s }, &[])?;
        let seen = b.compare(Compare::Le, columns, rows)?;
        let hidden = b.fill(f64::NEG_INFINITY, Shape::SCALAR)?;
        scores = b.select(seen, scores, hidden)?;
    }
    if attention.mask {
        let mask = b.input(3);
        scores = if b.dtype(mask) == crate::DType::Bool {
            let hidden = b.fill(f64::NEG_INFINITY, Shape::SCALAR)?;
            b.select(mask, scores, hidden)?
        } else {
            b.binary(Binary::Add, scores, mask)?
        };
    }
    let mut p = softmax(b, scores, rank - 1, false)?;
    if attention.dropout > 0.0 {
        p = b.op(Op::Dropout { p: attention.dropout, key: attention.key }, &[p])?;
    }
    b.matmul(p, v)
}

fn define_backward(backward: &Backward, b: &mut Builder) -> Result<Option<Value>> {
    let g = b.input(0);
    Ok(Some(match backward {
        Backward::Unary(row) => {
            let slope = unary_derivative(b, *row, b.input(1))?;
            b.binary(Binary::Mul, g, slope)?
        }
        Backward::Binary { op, rhs } => {
            let (x, y) = (Trace::Value(b.input(1)), Trace::Value(b.input(2)));
            let slope = binary_derivative(b, *op, *rhs, x, y)?;
            b.binary(Binary::Mul, g, slope)?
        }
        Backward::Scalar { op, value, reversed } => {
            let (x, number) = (Trace::Value(b.input(1)), Trace::Number(*value));
            let (x, y) = if *reversed { (number, x) } else { (x, number) };
            let slope = binary_derivative(b, *op, *reversed, x, y)?;
            b.binary(Binary::Mul, g, slope)?
        }
        Backward::Reduce { kind: Reduce::Max | Reduce::Min, dims } => {
            // Equal elements share the gradient.
            let (y, x) = (b.input(1), b.input(2));
            let hit = b.compare(Compare::Eq, x, y)?;
            let (one, zero) = (b.fill(1.0, Shape::SCALAR)?, b.fill(0.0, Shape::SCALAR)?);
            let ones = b.select(hit, one, zero)?;
            let n = b.reduce(Reduce::Sum, ones, *dims)?;
            let share = b.binary(Binary::Div, g, n)?;
            b.binary(Binary::Mul, ones, share)?
        }
        Backward::Reduce { kind: Reduce::Var { correction }, dims } => {
            let x = b.input(2);
            let mean = b.reduce(Reduce::Mean, x, *dims)?;
            let centred = b.binary(Binary::Sub, x, mean)?;
            let n = dims.count(&b.shape(x)) as f64;
            let slope = b.scalar(Binary::Mul, centred, 2.0 / (n - correction))?;
            b.binary(Binary::Mul, slope, g)?
        }
        Backward::Reduce { kind: Reduce::Std { correction }, dims } => {
            let x = b.input(2);
            let mean = b.reduce(Reduce::Mean, x, *dims)?;
            let std = b.reduce(Reduce::Std { correction: *correction }, x, *dims)?;
            let centred = b.binary(Binary::Sub, x, mean)?;
            let n = dims.count(&b.shape(x)) as f64;
            let slope = b.scalar(Binary::Mul, centred, 1.0 / (n - correction))?;
            let up = b.binary(Binary::Div, g, std)?;
            // Of equal elements 0.
            let zero = b.fill(0.0, Shape::SCALAR)?;
            let equal = b.compare(Compare::Eq, std, zero)?;
            let up = b.select(equal, zero, up)?;
            b.binary(Binary::Mul, slope, up)?
        }
        Backward::Reduce { kind: Reduce::LogSumExp, dims } => {
            let x = b.input(2);
            let y = b.reduce(Reduce::LogSumExp, x, *dims)?;
            let shifted = b.binary(Binary::Sub, x, y)?;
            let p = b.unary(Unary::Exp, shifted)?;
            b.binary(Binary::Mul, p, g)?
        }
        Backward::Reduce { kind: Reduce::Prod, dims } => prod_backward(b, g, b.input(2), *dims)?,
        Backward::Reduce { kind: Reduce::Norm { p }, dims } => {
            let x = b.input(2);
            let (sign, magnitude) = (b.unary(Unary::Sign, x)?, b.unary(Unary::Abs, x)?);
            if *p == 0.0 {
                let zero = b.scalar(Binary::Mul, sign, 0.0)?;
                b.binary(Binary::Mul, zero, g)?
            } else if *p == 1.0 {
                b.binary(Binary::Mul, sign, g)?
            } else if p.is_infinite() {
                let y = b.reduce(Reduce::Norm { p: *p }, x, *dims)?;
                let hit = b.compare(Compare::Eq, magnitude, y)?;
                let zero = b.fill(0.0, Shape::SCALAR)?;
                let one = b.fill(1.0, Shape::SCALAR)?;
                let ones = b.select(hit, one, zero)?;
                let n = b.reduce(Reduce::Sum, ones, *dims)?;
                let share = b.binary(Binary::Div, g, n)?;
                let signed = b.select(hit, sign, zero)?;
                b.binary(Binary::Mul, signed, share)?
            } else {
                norm_backward(b, g, x, *p, *dims)?
            }
        }
        Backward::CumProd { dim } => cumprod_backward(b, g, b.input(1), *dim)?,
        Backward::Reduce { kind: Reduce::Sum | Reduce::Mean, .. } | Backward::Gather { .. } => return Ok(None),
        Backward::MatMulOf { act, .. } => {
            let x = match act {
                Some(act) => b.unary(*act, b.input(1))?,
                None => b.input(1),
            };
            b.matmul(g, x)?
        }
        Backward::Softmax { dim, log } => {
            let y = b.input(1);
            let dims = if b.shape(y).rank() == 0 { Dims::all(0) } else { Dims::one(*dim) };
            if *log {
                let p = b.unary(Unary::Exp, y)?;
                let sum = b.reduce(Reduce::Sum, g, dims)?;
                let part = b.binary(Binary::Mul, p, sum)?;
                b.binary(Binary::Sub, g, part)?
            } else {
                let product = b.binary(Binary::Mul, g, y)?;
                let dot = b.reduce(Reduce::Sum, product, dims)?;
                let centred = b.binary(Binary::Sub, g, dot)?;
                b.binary(Binary::Mul, y, centred)?
            }
        }
        Backward::Loss { loss, parameter, reduction, target } => {
            let (x, t) = (b.input(1), b.input(2));
            let slope = trace::loss(b, *loss, *parameter, Some(*target as usize), x, t)?;
            let n = if *reduction == Reduction::Mean { b.shape(x).numel() as f64 } else { 1.0 };
            let share = b.scalar(Binary::Mul, slope, 1.0 / n)?;
            let product = b.binary(Binary::Mul, share, g)?;
            // A constant slope has no shape of its own.
            let shape = b.shape(x);
            if b.shape(product) == shape { product } else { b.op(Op::View(View::Expand(shape)), &[product])? }
        }
        Backward::Ternary { op, value, operand } => {
            let slope = trace::ternary(b, *op, *value, Some(*operand), [b.input(1), b.input(2), b.input(3)])?;
            b.binary(Binary::Mul, slope, g)?
        }
        // Linear in the gradient; their adjoints are operators.
        Backward::Conv2dInput { .. } | Backward::Conv2dWeight { .. } => return Ok(None),
        // Never recorded: a recorded gradient is made of the two above.
        Backward::Depthwise { .. } => return Ok(None),
        Backward::Pool { .. } | Backward::PoolSelect { .. } => return Ok(None),
        Backward::Embedding { .. } | Backward::Narrow { .. } | Backward::Resample { .. } => return Ok(None),
        // Second order goes through the definition of the forward operator.
        Backward::Norm(_) | Backward::Renormalise(_) | Backward::CrossEntropy(_) | Backward::Attention { .. } => {
            return Ok(None);
        }
    }))
}
