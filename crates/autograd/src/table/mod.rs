//! The backward table: for every operator, what is saved and the gradient of each input. Exhaustive: an operator
//! without a row does not compile.

mod adjoint;
mod attention;
mod context;
mod products;
mod saves;

use binade_tensor::op::{
    Backward, Binary, Builder, Compare, Epilogue, NormKind, PoolKind, Reduce, Resample, Scan, Scatter, Unary, View,
};
use binade_tensor::{DType, Dims, Meta, Op, Shape};
use smallvec::{SmallVec, smallvec};

pub(crate) use context::Context;
pub(crate) use saves::{again, reason_not_differentiable, saves};

use crate::value::Value;
use crate::{Error, Result};

/// Gradients of the inputs, in order; `None` where not needed.
pub(crate) type Grads<V> = SmallVec<[Option<V>; 2]>;

/// Saved inputs and outputs, in order; `None` where not saved.
pub(crate) type Values<V> = SmallVec<[Option<V>; 2]>;

/// The gradient of each input that needs one, in the input's dtype (of a cast perhaps a narrower one).
pub(crate) fn gradients<V: Value>(op: &Op, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
    // Evaluated only if input i needs a gradient.
    let needs = c.needs.clone();
    let when =
        |i: usize, f: &dyn Fn() -> Result<V>| -> Result<Option<V>> { if needs[i] { f().map(Some) } else { Ok(None) } };
    if g.numel() == 0 {
        // Of nothing the gradient is zeros, whatever the inputs.
        let zeros = |i: usize| c.full(c.dtype(i), *c.shape(i), 0.0);
        return (0..needs.len()).map(|i| when(i, &|| zeros(i))).collect();
    }
    Ok(match op {
        Op::Unary(row) => {
            smallvec![Some(c.before(*row, g, c.saved(0), c.saved(1), c.dtype(0))?)]
        }
        Op::Binary(row) => {
            let partial = |i: usize, g: V| -> Result<V> {
                let rhs = i == 1;
                let (dtype, wide) = (g.dtype(), if g.shape() == c.shape(i) { c.dtype(i) } else { c.dtype(i).accum() });
                let product = match (row, rhs) {
                    (Binary::Add, _) | (Binary::Sub, false) => g,
                    (Binary::Sub, true) => c.run_over(Op::Unary(Unary::Neg), g, &[], dtype)?,
                    (Binary::Mul, _) => c.run_over(Op::Binary(Binary::Mul), g, &[c.input(1 - i)?], wide)?,
                    (Binary::Div, false) => c.run_over(Op::Binary(Binary::Div), g, &[c.input(1)?], wide)?,
                    (Binary::Fmod, false) => g,
                    _ => {
                        let op = Op::Backward(Backward::Binary { op: *row, rhs });
                        c.run_over(op, g, &[c.input(0)?, c.input(1)?], wide)?
                    }
                };
                c.fit(product, i)
            };
            // The last operand has the gradient for itself, unless something else keeps it.
            match (c.needs[0], c.needs[1]) {
                (true, true) => smallvec![Some(partial(0, g.clone())?), Some(partial(1, g)?)],
                (true, false) => smallvec![Some(partial(0, g)?), None],
                (false, true) => smallvec![None, Some(partial(1, g)?)],
                (false, false) => smallvec![None, None],
            }
        }
        Op::Scalar { op: row, value, reversed } => {
            let (value, reversed) = (*value, *reversed);
            let times = |op: Binary| Op::Scalar { op, value, reversed: false };
            let grad = match (row, reversed) {
                (Binary::Add, _) | (Binary::Sub, false) => c.cast(g, c.dtype(0))?,
                (Binary::Sub, true) => c.run_over(Op::Unary(Unary::Neg), g, &[], c.dtype(0))?,
                (Binary::Mul, _) => c.run_over(times(Binary::Mul), g, &[], c.dtype(0))?,
                (Binary::Div, false) => c.run_over(times(Binary::Div), g, &[], c.dtype(0))?,
                _ => c.run_over(
                    Op::Backward(Backward::Scalar { op: *row, value, reversed }),
                    g,
                    &[c.input(0)?],
                    c.dtype(0),
                )?,
            };
            smallvec![Some(grad)]
        }
        Op::Where => {
            let zero = c.full(g.dtype(), Shape::SCALAR, 0.0)?;
            let pick = |i: usize| -> Result<V> {
                let (a, b) = if i == 1 { (&g, &zero) } else { (&zero, &g) };
                c.fit(c.run(Op::Where, &[c.input(0)?, a, b], g.dtype())?, i)
            };
            smallvec![None, when(1, &|| pick(1))?, when(2, &|| pick(2))?]
        }
        Op::Reduce { kind, dims, .. } => {
            let shape = c.shape(0);
            let kept = dims.reduce(shape, true);
            let g = c.view(&g, View::Reshape(kept))?;
            let grad = match kind {
                Reduce::Sum => c.view(&c.cast(g, c.dtype(0))?, View::Expand(*shape))?,
                Reduce::Mean => {
                    let n = dims.count(shape) as f64;
                    let share = c.run(Op::Scalar { op: Binary::Div, value: n, reversed: false }, &[&g], c.dtype(0))?;
                    c.view(&share, View::Expand(*shape))?
                }
                Reduce::Max
                | Reduce::Min
                | Reduce::Var { .. }
                | Reduce::Std { .. }
                | Reduce::Prod
                | Reduce::LogSumExp
                | Reduce::Norm { .. } => {
                    let y = c.view(c.output(0)?, View::Reshape(kept))?;
                    c.run(
                        Op::Backward(Backward::Reduce { kind: *kind, dims: *dims }),
                        &[&g, &y, c.input(0)?],
                        c.dtype(0),
                    )?
                }
            };
            smallvec![Some(grad)]
        }
        Op::Scan { kind: Scan::Sum, dim, reverse } => {
            smallvec![Some(c.run(Op::Scan { kind: Scan::Sum, dim: *dim, reverse: !reverse }, &[&g], c.dtype(0))?)]
        }
        Op::Scan { kind: Scan::Prod, dim, reverse } => {
            // The reverse product is the product of the reversed tensor.
            let turn = |v: &V| -> Result<V> {
                if !reverse || v.shape().rank() == 0 {
                    return Ok(v.clone());
                }
                c.run(Op::Resample(Resample::Flip(Dims::one(*dim))), &[v], v.dtype())
            };
            let dx =
                c.run(Op::Backward(Backward::CumProd { dim: *dim }), &[&turn(&g)?, &turn(c.input(0)?)?], c.dtype(0))?;
            smallvec![Some(turn(&dx)?)]
        }
        Op::Gather { dim } => {
            let op = Op::Backward(Backward::Gather { dim: *dim, shape: *c.shape(0) });
            smallvec![Some(c.run(op, &[&g, c.input(1)?], c.dtype(0))?), None]
        }
        Op::Scatter { kind, dim } => {
            let index = c.input(1)?;
            let kept = || match kind {
                Scatter::Add => c.cast(g.clone(), c.dtype(0)),
                Scatter::Set => {
                    let zeros = c.full(g.dtype(), *index.shape(), 0.0)?;
                    c.run(Op::Scatter { kind: Scatter::Set, dim: *dim }, &[&g, index, &zeros], c.dtype(0))
                }
            };
            // Of src only the part that the index covers was used.
            let taken = || {
                let mut part = c.run(Op::Gather { dim: *dim }, &[&g, index], c.dtype(2))?;
                if *kind == Scatter::Set {
                    // Of equal indices the last has won: where a place still holds its position.
                    let n = index.shape().numel();
                    let positions = c.view(
                        &c.run(Op::Range { start: 0, length: n }, &[], DType::I64)?,
                        View::Reshape(*index.shape()),
                    )?;
                    let nobody = c.full(DType::I64, *c.shape(0), -1.0)?;
                    let winners = c.run(
                        Op::Scatter { kind: Scatter::Set, dim: *dim },
                        &[&nobody, index, &positions],
                        DType::I64,
                    )?;
                    let winner = c.run(Op::Gather { dim: *dim }, &[&winners, index], DType::I64)?;
                    let won = c.run(Op::Compare(Compare::Eq), &[&winner, &positions], DType::Bool)?;
                    let zero = c.full(part.dtype(), Shape::SCALAR, 0.0)?;
                    part = c.run(Op::Where, &[&won, &part, &zero], part.dtype())?;
                }
                for d in 0..index.shape().rank() {
                    if part.shape()[d] != c.shape(2)[d] {
                        let mut shape = *part.shape();
                        shape[d] = c.shape(2)[d];
                        part =
                            c.run(Op::Backward(Backward::Narrow { dim: d, start: 0, shape }), &[&part], c.dtype(2))?;
                    }
                }
                Ok(part)
            };
            smallvec![when(0, &kept)?, None, when(2, &taken)?]
        }
        Op::Sort { dim, .. } => {
            let op = Op::Backward(Backward::Gather { dim: *dim, shape: *c.shape(0) });
            smallvec![Some(c.run(op, &[&g, c.output(1)?], c.dtype(0))?)]
        }
        Op::MatMul(epilogue) => {
            let g = c.before_act(epilogue, g)?;
            products::linear(c, &g, None, epilogue.bias)?
        }
        Op::MatMulOf { act, bias } => products::linear(c, &g, Some(*act), *bias)?,
        Op::Conv2d(conv, epilogue) => {
            let g = c.before_act(epilogue, g)?;
            // Recorded, each is an operator of its own, which has a gradient.
            let alike = c.metas[1..].iter().all(|w| w.dtype == c.dtype(1));
            if !V::RECORDED && conv.is_depthwise(c.shape(1)) && alike && c.needs.iter().all(|need| *need) {
                let op = Op::Backward(Backward::Depthwise { conv: *conv, bias: epilogue.bias });
                let outs = V::run_all(op, &[&g, c.input(0)?, c.input(1)?], c.device, c.dtype(0))?;
                return Ok(outs.into_iter().map(Some).collect());
            }
            let input = Op::Backward(Backward::Conv2dInput { conv: *conv, shape: *c.shape(0) });
            let weight = Op::Backward(Backward::Conv2dWeight { conv: *conv, shape: *c.shape(1) });
            let dx = |c: &Context<'_, V>| c.run(input.clone(), &[&g, c.input(1)?], c.dtype(0));
            let dw = |c: &Context<'_, V>| c.run(weight.clone(), &[&g, c.input(0)?], c.dtype(1));
            let pixels = Dims::one(0).with(2).with(3);
            let mut grads = c.contraction(dx, dw)?;
            if epilogue.bias {
                grads.push(when(2, &|| {
                    c.run(Op::Reduce { kind: Reduce::Sum, dims: pixels, keepdim: false }, &[&g], c.dtype(2))
                })?);
            }
            grads
        }
        Op::ConvTranspose2d { conv, bias, .. } => {
            let weight = Op::Backward(Backward::Conv2dWeight { conv: *conv, shape: *c.shape(1) });
            // An output padding of a stride or more leaves room for outputs of the convolution that no input has.
            let mut whole = *c.shape(0);
            for d in 0..2 {
                let span = conv.dilation[d] * (c.shape(1)[d + 2] - 1) + 1;
                whole[d + 2] = (g.shape()[d + 2] + 2 * conv.padding[d] - span) / conv.stride[d] + 1;
            }
            let dx = |c: &Context<'_, V>| {
                let mut dx = c.run(Op::Conv2d(*conv, Epilogue::default()), &[&g, c.input(1)?], c.dtype(0))?;
                for d in (2..4).filter(|&d| whole[d] != c.shape(0)[d]) {
                    dx = c.view(&dx, View::Narrow { dim: d, start: 0, length: c.shape(0)[d] })?;
                }
                Ok(dx)
            };
            let dw = |c: &Context<'_, V>| {
                let mut x = c.input(0)?.clone();
                for d in (2..4).filter(|&d| whole[d] != c.shape(0)[d]) {
                    let mut shape = *x.shape();
                    shape[d] = whole[d];
                    x = c.run(Op::Backward(Backward::Narrow { dim: d, start: 0, shape }), &[&x], x.dtype())?;
                }
                c.run(weight.clone(), &[&x, &g], c.dtype(1))
            };
            let pixels = Dims::one(0).with(2).with(3);
            let mut grads = c.contraction(dx, dw)?;
            if *bias {
                grads.push(when(2, &|| {
                    c.run(Op::Reduce { kind: Reduce::Sum, dims: pixels, keepdim: false }, &[&g], c.dtype(2))
                })?);
            }
            grads
        }
        Op::Pool(pool) => {
            let op = Op::Backward(Backward::Pool { pool: *pool, shape: *c.shape(0) });
            smallvec![Some(match pool.kind {
                PoolKind::Max => c.run(op, &[&g, c.input(0)?], c.dtype(0))?,
                PoolKind::Avg => c.run(op, &[&g], c.dtype(0))?,
            })]
        }
        Op::Softmax { dim, log } => {
            smallvec![Some(c.run(
                Op::Backward(Backward::Softmax { dim: *dim, log: *log }),
                &[&g, c.output(0)?],
                c.dtype(0)
            )?)]
        }
        Op::Norm(norm) => {
            let mut ins: SmallVec<[&V; 6]> = smallvec![&g];
            for i in 0..=norm.weights_of_gradient() {
                ins.push(c.input(i)?);
            }
            match norm.kind {
                NormKind::Fixed => ins.extend([c.input(1 + norm.weights())?, c.input(2 + norm.weights())?]),
                NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } | NormKind::Batch => {
                    ins.extend([c.output(1)?, c.output(2)?]);
                }
            }
            let outs = V::run_all(Op::Backward(Backward::Norm(*norm)), &ins, c.device, c.dtype(0))?;
            let mut grads: Grads<V> = outs.into_iter().zip(&c.needs).map(|(a, need)| need.then_some(a)).collect();
            grads.resize(c.metas.len(), None);
            grads
        }
        Op::CrossEntropy(loss) => {
            let op = Op::Backward(Backward::CrossEntropy(*loss));
            smallvec![Some(c.run(op, &[&g, c.input(0)?, c.input(1)?], c.dtype(0))?), None]
        }
        Op::Loss { loss, parameter, reduction } => {
            let slope = |i: usize| {
                let backward =
                    Backward::Loss { loss: *loss, parameter: *parameter, reduction: *reduction, target: i == 1 };
                c.run(Op::Backward(backward), &[&g, c.input(0)?, c.input(1)?], c.dtype(i))
            };
            smallvec![when(0, &|| slope(0))?, when(1, &|| slope(1))?]
        }
        Op::Ternary { op, value } => {
            let partial = |i: usize| {
                let op = Op::Backward(Backward::Ternary { op: *op, value: *value, operand: i });
                let wide = if g.shape() == c.shape(i) { c.dtype(i) } else { c.dtype(i).accum() };
                c.fit(c.run(op, &[&g, c.input(0)?, c.input(1)?, c.input(2)?], wide)?, i)
            };
            smallvec![when(0, &|| partial(0))?, when(1, &|| partial(1))?, when(2, &|| partial(2))?]
        }
        Op::Resample(map) => {
            let op = Op::Backward(Backward::Resample { map: *map, shape: *c.shape(0) });
            smallvec![Some(c.run(op, &[&g], c.dtype(0))?)]
        }
        Op::Attention(attention) => attention::gradients(attention, c, &g)?,
        Op::Embedding => {
            let op = Op::Backward(Backward::Embedding { rows: c.shape(0)[0] });
            smallvec![Some(c.run(op, &[&g, c.input(1)?], c.dtype(0))?), None]
        }
        Op::Cat { dim } => {
            let mut start = 0;
            let mut grads = Grads::<V>::new();
            for i in 0..c.metas.len() {
                let length = c.shape(i)[*dim];
                let part = || c.cast(c.view(&g, View::Narrow { dim: *dim, start, length })?, c.dtype(i));
                grads.push(when(i, &part)?);
                start += length;
            }
            grads
        }
        Op::Dropout { .. } => smallvec![Some(c.run_over(op.clone(), g, &[], c.dtype(0))?)],
        // Rounding has slope 1 on average: the gradient passes through. The walk widens what a wider tensor needs,
        // once, after it has added the gradients of all uses.
        Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy => {
            let widens = g.dtype().is_half() && !c.dtype(0).is_half();
            smallvec![Some(if widens { g } else { c.cast(g, c.dtype(0))? })]
        }
        Op::View(view) => smallvec![Some(match view {
            View::Permute(axes) => c.view(&g, View::Permute(inverse(axes)))?,
            View::Reshape(_) => {
                let g = if g.layout().reshape(c.shape(0)).is_some() { g } else { c.contiguous(&g)? };
                c.view(&g, View::Reshape(*c.shape(0)))?
            }
            View::Narrow { dim, start, .. } => {
                c.run(
                    Op::Backward(Backward::Narrow { dim: *dim, start: *start, shape: *c.shape(0) }),
                    &[&g],
                    c.dtype(0),
                )?
            }
            View::Expand(_) => c.fit(g, 0)?,
        })],
        Op::Custom(custom) => {
            let mut values = vec![g.clone()];
            for i in 0..c.metas.len() {
                values.push(c.input(i)?.clone());
            }
            values.push(c.output(0)?.clone());
            let metas: Vec<Meta> = values.iter().map(|v| v.array().meta()).collect();
            let mut builder = Builder::new(&metas);
            let ins: Vec<_> = (0..c.metas.len()).map(|i| builder.input(i + 1)).collect();
            let (upstream, out) = (builder.input(0), builder.input(metas.len() - 1));
            let wanted = custom.backward(&mut builder, upstream, &ins, out)?;
            let program = builder.finish(&wanted.iter().flatten().copied().collect::<Vec<_>>());
            let mut found = program.run(&values, |op, ins, want| c.run(op.clone(), ins, want))?.into_iter();
            let mut grads = Grads::<V>::new();
            for i in 0..c.metas.len() {
                let gradient = if wanted.get(i).is_some_and(Option::is_some) { found.next() } else { None };
                grads.push(match gradient {
                    Some(gradient) if c.needs[i] => Some(c.fit(gradient, i)?),
                    Some(_) | None => None,
                });
            }
            grads
        }
        Op::Backward(backward) => return adjoint::gradients(backward, c, &g),
        Op::Compare(_) | Op::ArgMax { .. } | Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } => {
            let reason = reason_not_differentiable(op).unwrap_or("it has no gradient");
            return Err(Error::NotDifferentiable { op: op.name(), path: c.path.clone(), reason });
        }
    })
}

/// The permutation that undoes another.
pub(crate) fn inverse(axes: &Shape) -> Shape {
    let mut inverse = *axes;
    axes.iter().enumerate().for_each(|(i, &a)| inverse[a] = i);
    inverse
}
