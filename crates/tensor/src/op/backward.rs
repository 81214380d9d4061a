//! [`Backward`]: kernels of the backward pass as data, and their outputs.

use smallvec::smallvec;

use super::check::Check;
use super::outs::Outs;
use super::{
    Attention, Binary, Conv2d, CrossEntropy, Epilogue, Loss, Norm, NormKind, Op, Pool, PoolKind, Reduce, Reduction,
    Resample, Ternary, Unary,
};
use crate::{DType, Dims, Layout, Meta, Result, Shape};

/// Kernels of the backward pass; the first input is the gradient of the output.
#[derive(Clone, Debug, PartialEq)]
pub enum Backward {
    /// `g · f'`: inputs g and the saved value the row names (input or output).
    Unary(Unary),
    /// `g · ∂f/∂a` (or `∂b`) in the broadcast shape: inputs g, a, b.
    Binary {
        /// The function.
        op: Binary,
        /// For the right operand.
        rhs: bool,
    },
    /// `g · ∂f/∂x` of [`Op::Scalar`]: inputs g, x.
    Scalar {
        /// The function.
        op: Binary,
        /// The scalar.
        value: f64,
        /// Whether the scalar is the left operand.
        reversed: bool,
    },
    /// Max, Min (shared equally among equal elements) and Var: inputs g and y of the reduction with kept dimensions, x.
    Reduce {
        /// Which.
        kind: Reduce,
        /// Reduced dimensions.
        dims: Dims,
    },
    /// Gradient of a running product: inputs g, x.
    CumProd {
        /// Dimension.
        dim: usize,
    },
    /// `g` added at index (i64) in zeros of a shape: inputs g, index. Equal indices accumulate in f32 in order.
    Gather {
        /// Dimension.
        dim: usize,
        /// Shape of x.
        shape: Shape,
    },
    /// Gradient of a convolution's input: inputs g, w.
    Conv2dInput {
        /// Geometry.
        conv: Conv2d,
        /// Shape of x.
        shape: Shape,
    },
    /// Gradient of a convolution's weight: inputs g, x.
    Conv2dWeight {
        /// Geometry.
        conv: Conv2d,
        /// Shape of w.
        shape: Shape,
    },
    /// All gradients of a depthwise convolution, whose operands are then read once: inputs g, x, w. Outputs: dx, dw,
    /// and db if it has a bias (both in the weight's dtype).
    Depthwise {
        /// Geometry.
        conv: Conv2d,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Inputs: g, then x for max (the gradient goes to the first of the window's largest elements).
    Pool {
        /// Window.
        pool: Pool,
        /// Shape of x.
        shape: Shape,
    },
    /// The adjoint of [`Backward::Pool`] for max: of a tensor of x's shape, the elements where x was largest. Inputs:
    /// the tensor, x.
    PoolSelect {
        /// Window.
        pool: Pool,
        /// Shape of y.
        shape: Shape,
    },
    /// Inputs: g, y.
    Softmax {
        /// Dimension.
        dim: usize,
        /// Whether y is the logarithm.
        log: bool,
    },
    /// `a·f(x)`: the gradient of a linear layer's weight, whose right operand is an activation that was not kept (as
    /// `Op::Unary` of x in x's dtype would give it) or x itself.
    MatMulOf {
        /// The activation.
        act: Option<Unary>,
        /// Whether the sums of a's rows are a second output: the bias's gradient. Operands are matrices then.
        sums: bool,
    },
    /// Inputs: g, x, weight if affine, bias if there is one and an activation, then mean and rstd (for
    /// [`NormKind::Fixed`] mean and variance). Outputs: dx, and dweight, dbias (in the weight's dtype) if affine.
    Norm(Norm),
    /// The first output of a norm again, to the bit, from its statistics. Inputs: x, weight and bias as the norm has
    /// them, mean, rstd. Not for [`NormKind::Fixed`], which is given its statistics anyway.
    Renormalise(Norm),
    /// Inputs: g, logits, target.
    CrossEntropy(CrossEntropy),
    /// `g · ∂f/∂(operand)` of [`Op::Ternary`] in the broadcast shape: inputs g, x, a, b.
    Ternary {
        /// The function.
        op: Ternary,
        /// Its number.
        value: f64,
        /// 0, 1 or 2.
        operand: usize,
    },
    /// Gradient of the prediction or the target: inputs g, x, t.
    Loss {
        /// The formula.
        loss: Loss,
        /// Its parameter.
        parameter: f64,
        /// How it was reduced.
        reduction: Reduction,
        /// For the target.
        target: bool,
    },
    /// The transposed map: input g.
    Resample {
        /// The map.
        map: Resample,
        /// Shape of x.
        shape: Shape,
    },
    /// Inputs: g, q, k, v, output, log-sum-exp, and the mask if it has one. Outputs: dq, dk, dv.
    Attention {
        /// The operator.
        attention: Attention,
        /// Whether the gradients are one output of three parts, for q, k and v of one shape: `[3, …]`.
        joined: bool,
    },
    /// Inputs: g, index. Output `[rows, D]`; equal indices accumulate in f32 in order.
    Embedding {
        /// Rows of the weight.
        rows: usize,
    },
    /// `g` placed at `start` of `dim` in zeros of a shape.
    Narrow {
        /// Dimension.
        dim: usize,
        /// First index.
        start: usize,
        /// Shape of the whole.
        shape: Shape,
    },
}

impl Backward {
    /// [`Op::outs`] of a kernel of the backward pass.
    pub(super) fn outs(&self, check: &Check<'_>, want: DType) -> Result<Outs> {
        let ins = check.ins;
        let float = |layout: Layout| Meta { dtype: want, layout };
        let dense = |shape: Shape| float(Layout::contiguous(shape));
        let like = |i: usize| float(ins[i].layout.like(*ins[i].shape()));
        Ok(match self {
            Backward::Unary(_) | Backward::Scalar { .. } => {
                check.count(2)?;
                check.same_shape(0, 1)?;
                smallvec![float(ins[1].layout.like(*ins[1].shape()))]
            }
            Backward::Binary { .. } => {
                check.count(3)?;
                smallvec![float(check.broadcast(0..3)?)]
            }
            Backward::Reduce { dims, .. } => {
                check.count(3)?;
                if *ins[0].shape() != dims.reduce(ins[2].shape(), true) || ins[0].shape() != ins[1].shape() {
                    return check.shape("gradient and result with kept dimensions, and the input");
                }
                smallvec![like(2)]
            }
            Backward::CumProd { .. } => {
                check.count(2)?;
                check.same_shape(0, 1)?;
                smallvec![like(1)]
            }
            Backward::Gather { dim, shape } => {
                check.count(2)?;
                check.same_shape(0, 1)?;
                check.along(*dim, shape, ins[1].shape())?;
                smallvec![dense(*shape)]
            }
            Backward::Conv2dInput { shape, conv } => {
                check.count(2)?;
                let outs = Op::Conv2d(*conv, Epilogue::default())
                    .outs(&[Meta { dtype: want, layout: Layout::contiguous(*shape) }, ins[1]], want)?;
                if outs[0].shape() != ins[0].shape() {
                    return check.shape("the gradient of the convolution's output and its weight");
                }
                smallvec![float(Layout::channels_last(*shape))]
            }
            Backward::Conv2dWeight { shape, conv } => {
                check.count(2)?;
                let outs = Op::Conv2d(*conv, Epilogue::default())
                    .outs(&[ins[1], Meta { dtype: want, layout: Layout::contiguous(*shape) }], want)?;
                if outs[0].shape() != ins[0].shape() {
                    return check.shape("the gradient of the convolution's output and its input");
                }
                smallvec![dense(*shape)]
            }
            Backward::Depthwise { conv, bias } => {
                check.count(3)?;
                let outs = Op::Conv2d(*conv, Epilogue::default()).outs(&ins[1..], want)?;
                if outs[0].shape() != ins[0].shape() || !conv.is_depthwise(ins[2].shape()) {
                    return check.shape("the gradient of a depthwise convolution's output, its input and its weight");
                }
                let weight = Meta { dtype: ins[2].dtype, layout: Layout::contiguous(*ins[2].shape()) };
                let channels = Meta { layout: Layout::contiguous(Shape::new(&[conv.groups])?), ..weight };
                let bias = bias.then_some(channels);
                [float(Layout::channels_last(*ins[1].shape())), weight].into_iter().chain(bias).collect()
            }
            Backward::Pool { shape, pool } => {
                check.count(if pool.kind == PoolKind::Max { 2 } else { 1 })?;
                let x = Meta { dtype: want, layout: Layout::contiguous(*shape) };
                let y = Check { op: check.op, ins: &[x] }.pool(pool)?;
                if y != *ins[0].shape() || ins.get(1).is_some_and(|x| x.shape() != shape) {
                    return check.shape("the gradient of the pooling's output, and its input for max");
                }
                let layout = if pool.kind == PoolKind::Max { ins[1].layout } else { ins[0].layout };
                smallvec![float(layout.like(*shape))]
            }
            Backward::PoolSelect { shape, pool } => {
                check.count(2)?;
                check.same_shape(0, 1)?;
                if check.pool(pool)? != *shape {
                    return check.shape("tensors of the pooling's input");
                }
                smallvec![float(ins[1].layout.like(*shape))]
            }
            Backward::Softmax { .. } => {
                check.count(2)?;
                check.same_shape(0, 1)?;
                smallvec![like(1)]
            }
            Backward::Norm(norm) => {
                check.count(4 + norm.weights_of_gradient())?;
                check.same_shape(0, 1)?;
                let (x, statistics) = ins[1..].split_at(1 + norm.weights_of_gradient());
                let groups = Check { op: check.op, ins: x }.norm(norm, &x[1..])?;
                if statistics.iter().any(|m| m.shape().numel() != groups) {
                    return check.argument(format!("expected the statistics of {groups} groups"));
                }
                let dx = like(1);
                if norm.affine {
                    let weight = Meta { dtype: ins[2].dtype, layout: Layout::contiguous(*ins[2].shape()) };
                    std::iter::once(dx).chain(std::iter::repeat_n(weight, norm.weights())).collect()
                } else {
                    smallvec![dx]
                }
            }
            Backward::MatMulOf { sums, .. } => {
                let mut outs = Op::MatMul(Epilogue::default()).outs(ins, want)?;
                if *sums {
                    if ins.iter().any(|x| x.shape().rank() != 2) {
                        return check.shape("two matrices");
                    }
                    outs.push(dense(Shape::from_slice(&ins[0].shape()[..1])));
                }
                outs
            }
            Backward::Renormalise(norm) => {
                check.count(3 + norm.weights())?;
                check.floats(0..ins.len())?;
                let groups = check.norm(norm, &ins[1..1 + norm.weights()])?;
                let fits = |i: &Meta| i.layout.shape.numel() == groups;
                if norm.kind == NormKind::Fixed || !ins[1 + norm.weights()..].iter().all(fits) {
                    return check.argument(format!("expected the mean and 1/deviation of {groups} groups"));
                }
                smallvec![like(0)]
            }
            Backward::CrossEntropy(loss) => {
                check.count(3)?;
                let each = Check { op: check.op, ins: &ins[1..] }.cross_entropy(loss)?;
                if *ins[0].shape() != if loss.reduction == Reduction::None { each } else { Shape::SCALAR } {
                    return check.shape("the gradient of the loss, logits and class indices");
                }
                smallvec![like(1)]
            }
            Backward::Loss { .. } => {
                check.count(3)?;
                check.same_shape(1, 2)?;
                if ins[1].shape().broadcast(ins[0].shape()) != Some(*ins[1].shape()) {
                    return check.shape("the gradient of the loss, predictions and targets");
                }
                smallvec![like(1)]
            }
            Backward::Ternary { .. } => {
                check.count(4)?;
                smallvec![float(check.broadcast(0..4)?)]
            }
            Backward::Resample { map, shape } => {
                check.count(1)?;
                if map.shape(shape)? != *ins[0].shape() {
                    return check.shape("the gradient of the map's output");
                }
                smallvec![float(ins[0].layout.like(*shape))]
            }
            Backward::Attention { attention, joined } => {
                check.count(6 + attention.mask as usize)?;
                let shapes = Check { op: check.op, ins: &ins[1..4] }.attention(ins.get(6))?;
                if [*ins[0].shape(), *ins[4].shape()] != [shapes.0; 2] || *ins[5].shape() != shapes.1 {
                    return check.shape("the gradient of the result, q, k, v, the result and its log-sum-exp");
                }
                if *joined {
                    check.same_shape(1, 2)?;
                    check.same_shape(1, 3)?;
                    return Ok(smallvec![dense(Shape::new(&[&[3], &ins[1].shape()[..]].concat())?)]);
                }
                smallvec![dense(*ins[1].shape()), dense(*ins[2].shape()), dense(*ins[3].shape())]
            }
            Backward::Embedding { rows } => {
                check.count(2)?;
                let fits = |g: &(&usize, &[usize])| *g.1 == **ins[1].shape();
                let Some((&features, _)) = ins[0].shape().split_last().filter(fits) else {
                    return check.shape("the gradient […, D] of rows at an index […]");
                };
                smallvec![dense(Shape::from_slice(&[*rows, features]))]
            }
            Backward::Narrow { shape, dim, start } => {
                check.count(1)?;
                let mut part = *shape;
                if let (Some(whole), Some(&n)) = (part.get_mut(*dim), ins[0].shape().get(*dim)) {
                    *whole = if start.checked_add(n).is_some_and(|end| end <= *whole) { n } else { 0 };
                }
                if part != *ins[0].shape() {
                    return check.shape(&format!("a part of {shape:?}"));
                }
                smallvec![float(ins[0].layout.like(*shape))]
            }
        })
    }
}
