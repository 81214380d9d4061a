//! [`Op`]: operators as data. A closed list: an operator without outputs, kernel, reference, gradient, bound or samples
//! does not compile. What an operator is stands in the file of its family; `with_family!` is the one match.

#[macro_use]
mod elementwise;
mod attention;
mod bound;
mod check;
mod conv;
mod cross_entropy;
mod custom;
mod family;
mod index;
mod loss;
mod norm;
mod pool;
mod product;
mod program;
mod quantised;
mod random;
mod reduce;
mod resample;
mod scan;
mod shape;
mod softmax;
mod trace;
mod work;

pub use attention::{Attention, AttentionBackward};
pub use bound::Bound;
pub use conv::{Conv2d, Conv2dInput, Conv2dWeight, ConvTranspose2d, Convolution, Depthwise};
pub use cross_entropy::{CrossEntropy, CrossEntropyBackward};
pub use custom::{Custom, CustomOp, View as CustomView};
pub use elementwise::{
    Binary, BinaryBackward, BinaryRow, BinaryVisitor, Compare, Saved, Scalar, ScalarBackward, Ternary, TernaryBackward,
    TernaryOp, TernaryRow, TernaryVisitor, Unary, UnaryBackward, UnaryRow, UnaryVisitor, Where,
};
pub use family::Numerics;
pub use index::{Embedding, EmbeddingBackward, Gather, GatherBackward, Scatter, ScatterOp, Sort};
pub use loss::{Loss, LossBackward, LossOp, LossRow, LossVisitor, Reduction};
pub use norm::{Norm, NormBackward, NormKind, Renormalise};
pub use pool::{Pool, PoolBackward, PoolKind, PoolSelect};
#[cfg(feature = "oracle")]
pub(crate) use product::magnitude;
pub use product::{Epilogue, MatMul, Prologue};
pub use program::{Builder, Program, Value};
pub use quantised::{LARGEST, QuantisedConv2d, QuantisedMatMul};
pub use random::{Distribution, Dropout, Fill, Random, Range};
pub use reduce::{ArgMax, Reduce, ReduceBackward, ReduceOp};
pub use resample::{Interpolation, PadMode, Resample, ResampleBackward, TAPS_IN_A_CHAIN, Taps, transposed};
pub use scan::{CumProdBackward, Scan, ScanOp};
pub use shape::{Cast, Cat, Copied, NarrowBackward, StochasticCast, View};
pub use softmax::{Softmax, SoftmaxBackward};
pub use work::work;

use crate::{DType, Dims, Key, Shape};

/// One operator with its attributes. Tensors are arguments of `run`, in the order given here. Attributes are described
/// where the family of the operator is, as fields of the type that [`with_family!`](crate::with_family) makes.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `y = f(x)`.
    Unary(Unary),
    /// `y = f(a, b)` with broadcasting.
    Binary(Binary),
    /// `y = f(x, value)`, or `f(value, x)` when `reversed`: see [`Scalar`].
    Scalar { op: Binary, value: f64, reversed: bool },
    /// `y = f(x, a, b)` with the number `value`, with broadcasting: see [`TernaryOp`].
    Ternary { op: Ternary, value: f64 },
    /// `y = a ⋛ b`, bool, with broadcasting.
    Compare(Compare),
    /// `y = condition ? a : b`; inputs: condition (bool), a, b.
    Where,
    /// Reduction over a set of dimensions: see [`ReduceOp`].
    Reduce { kind: Reduce, dims: Dims, keepdim: bool },
    /// Running sum or product along a dimension: see [`ScanOp`].
    Scan { kind: Scan, dim: usize, reverse: bool },
    /// Elements of x at index (i64, of x's rank; in every other dimension at most x's extent) along a dimension:
    /// `y[…, i, …] = x[…, index[…, i, …], …]`.
    Gather { dim: usize },
    /// A tensor with elements of src set or added at index along a dimension: see [`ScatterOp`]. Inputs: the tensor,
    /// index (i64), src.
    Scatter { kind: Scatter, dim: usize },
    /// The first `length` elements of a dimension in sorted order, and their positions (i64): see [`Sort`]. NaN is
    /// larger than any number; equal elements keep their order.
    Sort { dim: usize, descending: bool, length: usize },
    /// Index (i64) of the first largest element along a dimension: see [`ArgMax`]. NaN counts as largest, as in
    /// PyTorch.
    ArgMax { dim: usize, keepdim: bool },
    /// `act(a @ b + bias)`: a `[…, m, k]`, b `[…, k, n]` with broadcast batches, bias `[n]`. Accumulated in f32. One of
    /// a and b may be an activation of what is given. With an activation whose derivative needs its input, the value
    /// before it is a second output; or the sums of a's rows are.
    MatMul(MatMul),
    /// `act(conv(x, w) + bias)`: x `[N, C, H, W]`, w `[O, C/groups, KH, KW]`, bias `[O]`. Output is channels-last in
    /// memory; second output as for [`Op::MatMul`].
    Conv2d(Conv2d, Epilogue),
    /// Transposed convolution (the adjoint of the convolution with the same geometry, plus bias): x `[N, C, H, W]`, w
    /// `[C, O/groups, KH, KW]`, bias `[O]`. See [`ConvTranspose2d`].
    ConvTranspose2d { conv: Conv2d, output_padding: [usize; 2], bias: bool },
    /// A product with a weight of 8-bit integers, for inference: see [`QuantisedMatMul`].
    QuantisedMatMul(QuantisedMatMul),
    /// A convolution with a weight of 8-bit integers, for inference: see [`QuantisedConv2d`].
    QuantisedConv2d(QuantisedConv2d),
    /// Pooling of `[N, C, H, W]`.
    Pool(Pool),
    /// `exp(x − max) / Σ` along `dim`, or its logarithm: see [`Softmax`].
    Softmax { dim: usize, log: bool },
    /// Normalisation. Inputs: x, then weight and bias if `affine`, then mean and variance for [`NormKind::Fixed`].
    /// Outputs: y, mean, 1/√(var + eps), and for [`NormKind::Batch`] the biased variance; statistics are f32, one per
    /// group.
    Norm(Norm),
    /// Cross-entropy of logits `[N, C, …]` and class indices (i64) `[N, …]`.
    CrossEntropy(CrossEntropy),
    /// An elementwise loss of a prediction and a target of one shape: see [`LossOp`].
    Loss { loss: Loss, parameter: f64, reduction: Reduction },
    /// Scaled dot-product attention: q `[…, T, D]`, k `[…, S, D]`, v `[…, S, E]`, then a mask that broadcasts to `[…,
    /// T, S]` if it has one: bool (true takes part) or float (added to the scores). The heads of q (its third dimension
    /// from the end) may be a multiple of those of k and v (grouped queries). Outputs: `[…, T, E]`, log-sum-exp `[…,
    /// T]` (f32). A position that sees nothing gives zeros. Where q, of four dimensions, has its heads inside positions
    /// in memory, so has the output.
    Attention(Attention),
    /// Rows of a weight `[V, D]` by index (i64 or u32) of any shape.
    Embedding,
    /// Concatenation along a dimension of any number of inputs.
    Cat { dim: usize },
    /// A linear map that acts on each dimension by itself.
    Resample(Resample),
    /// `y = keep ? x / (1 − p) : 0`, the same draw for the same key.
    Dropout { p: f64, key: Key },
    /// Random values; no inputs.
    Random { distribution: Distribution, shape: Shape, key: Key },
    /// One value everywhere; no inputs.
    Fill { value: f64, shape: Shape },
    /// `start, start + 1, …` (i64), so many; no inputs, or one i64 that is added: see [`Range`].
    Range { start: i64, length: usize },
    /// Conversion to another dtype, nearest even.
    Cast(DType),
    /// Conversion to f16 or bf16 by stochastic rounding: unbiased for values in range.
    StochasticCast { dtype: DType, key: Key },
    /// Copy in row-major order.
    Copy,
    /// Another layout of the same storage; runs no kernel.
    View(View),
    /// A user's operator.
    Custom(Custom),
    /// A kernel of the backward pass. Not differentiable by itself.
    Backward(Backward),
}

/// Kernels of the backward pass; the first input is the gradient of the output. Attributes are described as those of
/// [`Op`] are.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq)]
pub enum Backward {
    /// `g · f'`: inputs g and the saved value the row names (input or output).
    Unary(Unary),
    /// `g · ∂f/∂a` (or `∂b`) in the broadcast shape: inputs g, a, b.
    Binary { op: Binary, rhs: bool },
    /// `g · ∂f/∂x` of [`Op::Scalar`]: inputs g, x.
    Scalar { op: Binary, value: f64, reversed: bool },
    /// Reductions but the sum and the mean: inputs g and y of the reduction with kept dimensions, x. Equal elements
    /// share the gradient of Max and Min equally.
    Reduce { kind: Reduce, dims: Dims },
    /// Gradient of a running product: inputs g, x.
    CumProd { dim: usize },
    /// `g` added at index (i64) in zeros of x's shape: inputs g, index. Equal indices accumulate in f32 in order.
    Gather { dim: usize, shape: Shape },
    /// Gradient of a convolution's input, which has that shape: inputs g, w.
    Conv2dInput { conv: Conv2d, shape: Shape },
    /// Gradient of a convolution's weight, which has that shape: inputs g, x.
    Conv2dWeight { conv: Conv2d, shape: Shape },
    /// All gradients of a depthwise convolution, whose operands are then read once: inputs g, x, w. Outputs: dx, dw,
    /// and db if it has a bias (both in the weight's dtype).
    Depthwise { conv: Conv2d, bias: bool },
    /// Inputs: g, then x for max (the gradient goes to the first of the window's largest elements). The shape is x's.
    Pool { pool: Pool, shape: Shape },
    /// The adjoint of [`Backward::Pool`] for max: of a tensor of x's shape, the elements where x was largest. Inputs:
    /// the tensor, x. The shape is y's.
    PoolSelect { pool: Pool, shape: Shape },
    /// Inputs: g, y.
    Softmax { dim: usize, log: bool },
    /// Inputs: g, x, weight if affine, bias if there is one and an activation, then mean and rstd (for
    /// [`NormKind::Fixed`] mean and variance). Outputs: dx, and dweight, dbias (in the weight's dtype) if affine.
    Norm(Norm),
    /// The first output of a norm again, to the bit, from its statistics. Inputs: x, weight and bias as the norm has
    /// them, mean, rstd. Not for [`NormKind::Fixed`], which is given its statistics anyway.
    Renormalise(Norm),
    /// Inputs: g, logits, target.
    CrossEntropy(CrossEntropy),
    /// `g · ∂f/∂(operand)` of [`Op::Ternary`] in the broadcast shape: inputs g, x, a, b.
    Ternary { op: Ternary, value: f64, operand: usize },
    /// Gradient of the prediction or the target: inputs g, x, t.
    Loss { loss: Loss, parameter: f64, reduction: Reduction, target: bool },
    /// The transposed map: input g. The shape is x's.
    Resample { map: Resample, shape: Shape },
    /// Inputs: g, q, k, v, output, log-sum-exp, and the mask if it has one. Outputs: dq, dk, dv, or one output of three
    /// parts for q, k and v of one shape: `[3, …]`.
    Attention { attention: Attention, joined: bool },
    /// Inputs: g, index. Output `[rows, D]`; equal indices accumulate in f32 in order.
    Embedding { rows: usize },
    /// `g` placed at `start` of `dim` in zeros of a shape.
    Narrow { dim: usize, start: usize, shape: Shape },
}

/// Answers with what the family of an operator makes of it: the one match over operators.
#[doc(hidden)]
#[macro_export]
macro_rules! with_family {
    ($op:expr, $f:ident => $answer:expr) => {{
        #[allow(unused_imports)]
        use $crate::op::*;
        match $op {
            Op::Unary($f) => $answer,
            Op::Binary($f) => $answer,
            &Op::Scalar { op, value, reversed } => {
                $crate::with_family!(@ Scalar { op, value, reversed }, $f => $answer)
            }
            &Op::Ternary { op, value } => $crate::with_family!(@ TernaryOp { op, value }, $f => $answer),
            Op::Compare($f) => $answer,
            Op::Where => $crate::with_family!(@ Where, $f => $answer),
            &Op::Reduce { kind, dims, keepdim } => {
                $crate::with_family!(@ ReduceOp { kind, dims, keepdim }, $f => $answer)
            }
            &Op::Scan { kind, dim, reverse } => $crate::with_family!(@ ScanOp { kind, dim, reverse }, $f => $answer),
            &Op::Gather { dim } => $crate::with_family!(@ Gather { dim }, $f => $answer),
            &Op::Scatter { kind, dim } => $crate::with_family!(@ ScatterOp { kind, dim }, $f => $answer),
            &Op::Sort { dim, descending, length } => {
                $crate::with_family!(@ Sort { dim, descending, length }, $f => $answer)
            }
            &Op::ArgMax { dim, keepdim } => $crate::with_family!(@ ArgMax { dim, keepdim }, $f => $answer),
            Op::MatMul($f) => $answer,
            &Op::Conv2d(conv, epilogue) => $crate::with_family!(@ Convolution { conv, epilogue }, $f => $answer),
            &Op::ConvTranspose2d { conv, output_padding, bias } => {
                $crate::with_family!(@ ConvTranspose2d { conv, output_padding, bias }, $f => $answer)
            }
            Op::QuantisedMatMul($f) => $answer,
            Op::QuantisedConv2d($f) => $answer,
            Op::Pool($f) => $answer,
            &Op::Softmax { dim, log } => $crate::with_family!(@ Softmax { dim, log }, $f => $answer),
            Op::Norm($f) => $answer,
            Op::CrossEntropy($f) => $answer,
            &Op::Loss { loss, parameter, reduction } => {
                $crate::with_family!(@ LossOp { loss, parameter, reduction }, $f => $answer)
            }
            Op::Attention($f) => $answer,
            Op::Embedding => $crate::with_family!(@ Embedding, $f => $answer),
            &Op::Cat { dim } => $crate::with_family!(@ Cat { dim }, $f => $answer),
            Op::Resample($f) => $answer,
            &Op::Dropout { p, key } => $crate::with_family!(@ Dropout { p, key }, $f => $answer),
            &Op::Random { distribution, shape, key } => {
                $crate::with_family!(@ Random { distribution, shape, key }, $f => $answer)
            }
            &Op::Fill { value, shape } => $crate::with_family!(@ Fill { value, shape }, $f => $answer),
            &Op::Range { start, length } => $crate::with_family!(@ Range { start, length }, $f => $answer),
            &Op::Cast(dtype) => $crate::with_family!(@ Cast(dtype), $f => $answer),
            &Op::StochasticCast { dtype, key } => $crate::with_family!(@ StochasticCast { dtype, key }, $f => $answer),
            Op::Copy => $crate::with_family!(@ Copied, $f => $answer),
            Op::View($f) => $answer,
            Op::Custom($f) => $answer,
            Op::Backward(backward) => match backward {
                &Backward::Unary(row) => $crate::with_family!(@ UnaryBackward(row), $f => $answer),
                &Backward::Binary { op, rhs } => $crate::with_family!(@ BinaryBackward { op, rhs }, $f => $answer),
                &Backward::Scalar { op, value, reversed } => {
                    $crate::with_family!(@ ScalarBackward(Scalar { op, value, reversed }), $f => $answer)
                }
                &Backward::Reduce { kind, dims } => {
                    $crate::with_family!(@ ReduceBackward { kind, dims }, $f => $answer)
                }
                &Backward::CumProd { dim } => $crate::with_family!(@ CumProdBackward { dim }, $f => $answer),
                &Backward::Gather { dim, shape } => {
                    $crate::with_family!(@ GatherBackward { dim, shape }, $f => $answer)
                }
                &Backward::Conv2dInput { conv, shape } => {
                    $crate::with_family!(@ Conv2dInput { conv, shape }, $f => $answer)
                }
                &Backward::Conv2dWeight { conv, shape } => {
                    $crate::with_family!(@ Conv2dWeight { conv, shape }, $f => $answer)
                }
                &Backward::Depthwise { conv, bias } => $crate::with_family!(@ Depthwise { conv, bias }, $f => $answer),
                &Backward::Pool { pool, shape } => $crate::with_family!(@ PoolBackward { pool, shape }, $f => $answer),
                &Backward::PoolSelect { pool, shape } => {
                    $crate::with_family!(@ PoolSelect { pool, shape }, $f => $answer)
                }
                &Backward::Softmax { dim, log } => $crate::with_family!(@ SoftmaxBackward { dim, log }, $f => $answer),
                &Backward::Norm(norm) => $crate::with_family!(@ NormBackward(norm), $f => $answer),
                &Backward::Renormalise(norm) => $crate::with_family!(@ Renormalise(norm), $f => $answer),
                &Backward::CrossEntropy(loss) => $crate::with_family!(@ CrossEntropyBackward(loss), $f => $answer),
                &Backward::Ternary { op, value, operand } => {
                    $crate::with_family!(@ TernaryBackward { op, value, operand }, $f => $answer)
                }
                &Backward::Loss { loss, parameter, reduction, target } => {
                    $crate::with_family!(
                        @ LossBackward { of: LossOp { loss, parameter, reduction }, target }, $f => $answer
                    )
                }
                &Backward::Resample { map, shape } => {
                    $crate::with_family!(@ ResampleBackward { map, shape }, $f => $answer)
                }
                &Backward::Attention { attention, joined } => {
                    $crate::with_family!(@ AttentionBackward { attention, joined }, $f => $answer)
                }
                &Backward::Embedding { rows } => $crate::with_family!(@ EmbeddingBackward { rows }, $f => $answer),
                &Backward::Narrow { dim, start, shape } => {
                    $crate::with_family!(@ NarrowBackward { dim, start, shape }, $f => $answer)
                }
            },
        }
    }};
    (@ $made:expr, $f:ident => $answer:expr) => {{
        let $f = &$made;
        $answer
    }};
}

/// [`Op::samples`](crate::Op::samples) are of these operators: each family's, each row at least once.
pub(crate) const CATALOGUES: &[fn() -> Vec<Op>] = &[
    elementwise::catalogue,
    reduce::catalogue,
    scan::catalogue,
    index::catalogue,
    product::catalogue,
    conv::catalogue,
    quantised::catalogue,
    pool::catalogue,
    softmax::catalogue,
    norm::catalogue,
    loss::catalogue,
    cross_entropy::catalogue,
    attention::catalogue,
    resample::catalogue,
    random::catalogue,
    shape::catalogue,
];
