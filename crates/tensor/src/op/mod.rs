//! [`Op`]: operators as data. A closed list: an operator without outputs, kernel, gradient or samples does not compile.

#[macro_use]
mod elementwise;
mod attributes;
mod backward;
mod bound;
mod check;
mod compose;
mod custom;
mod facts;
mod loss;
mod outs;
mod program;
mod resample;
mod settings;
mod ternary;
mod trace;

pub use attributes::{
    Attention, Conv2d, CrossEntropy, Distribution, Epilogue, Norm, NormKind, Pool, PoolKind, Reduce, Reduction, Scan,
    Scatter, View,
};
pub use backward::Backward;
pub use bound::Bound;
pub use custom::{Custom, CustomOp, View as CustomView};
pub use elementwise::{Binary, BinaryRow, BinaryVisitor, Compare, Saved, Unary, UnaryRow, UnaryVisitor};
pub use facts::Numerics;
pub use loss::{Loss, LossRow, LossVisitor};
pub use program::{Builder, Program, Value};
pub use resample::{Interpolation, PadMode, Resample, Taps, transposed};
pub use ternary::{Ternary, TernaryRow, TernaryVisitor};

use crate::{DType, Dims, Key, Shape};

/// One operator with its attributes. Tensors are arguments of `run`, in the order given here.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `y = f(x)`.
    Unary(Unary),
    /// `y = f(a, b)` with broadcasting.
    Binary(Binary),
    /// `y = f(x, value)`, or `f(value, x)` when `reversed`.
    Scalar {
        /// The function.
        op: Binary,
        /// The other operand, rounded to the computation's dtype.
        value: f64,
        /// Whether the scalar is the left operand.
        reversed: bool,
    },
    /// `y = f(x, a, b)` with the number `value`, with broadcasting.
    Ternary {
        /// The function.
        op: Ternary,
        /// Its number.
        value: f64,
    },
    /// `y = a ⋛ b`, bool, with broadcasting.
    Compare(Compare),
    /// `y = condition ? a : b`; inputs: condition (bool), a, b.
    Where,
    /// Reduction over a set of dimensions.
    Reduce {
        /// Which.
        kind: Reduce,
        /// Dimensions to reduce.
        dims: Dims,
        /// Whether reduced dimensions stay with extent 1.
        keepdim: bool,
    },
    /// Running sum or product along a dimension.
    Scan {
        /// Which.
        kind: Scan,
        /// Dimension.
        dim: usize,
        /// From the end to the start.
        reverse: bool,
    },
    /// Elements of x at index (i64, of x's rank; in every other dimension at most x's extent) along a dimension:
    /// `y[…, i, …] = x[…, index[…, i, …], …]`.
    Gather {
        /// Dimension.
        dim: usize,
    },
    /// A tensor with elements of src set or added at index along a dimension. Inputs: the tensor, index (i64), src.
    Scatter {
        /// Set or add.
        kind: Scatter,
        /// Dimension.
        dim: usize,
    },
    /// The first `length` elements of a dimension in sorted order, and their positions (i64). NaN is larger than any
    /// number; equal elements keep their order.
    Sort {
        /// Dimension.
        dim: usize,
        /// Largest first.
        descending: bool,
        /// How many.
        length: usize,
    },
    /// Index (i64) of the first largest element along a dimension; NaN counts as largest, as in PyTorch.
    ArgMax {
        /// Dimension.
        dim: usize,
        /// Whether the dimension stays with extent 1.
        keepdim: bool,
    },
    /// `act(a @ b + bias)`: a `[…, m, k]`, b `[…, k, n]` with broadcast batches, bias `[n]`. Accumulated in f32. With
    /// an activation whose derivative needs its input, the value before it is a second output.
    MatMul(Epilogue),
    /// `f(a) @ b + bias`: a product of an activation that is computed as it is read, as [`Op::Unary`] of a in a's dtype
    /// would give it, and never written. Inputs as for [`Op::MatMul`].
    MatMulOf {
        /// The activation.
        act: Unary,
        /// A bias vector is the last input.
        bias: bool,
    },
    /// `act(conv(x, w) + bias)`: x `[N, C, H, W]`, w `[O, C/groups, KH, KW]`, bias `[O]`. Output is channels-last in
    /// memory; second output as for [`Op::MatMul`].
    Conv2d(Conv2d, Epilogue),
    /// Transposed convolution (the adjoint of the convolution with the same geometry, plus bias): x `[N, C, H, W]`, w
    /// `[C, O/groups, KH, KW]`, bias `[O]`.
    ConvTranspose2d {
        /// Geometry of the convolution this is the adjoint of.
        conv: Conv2d,
        /// Rows and columns added at the end: which of the possible image sizes; below stride or dilation.
        output_padding: [usize; 2],
        /// A bias vector is the last input.
        bias: bool,
    },
    /// Pooling of `[N, C, H, W]`.
    Pool(Pool),
    /// `exp(x − max) / Σ` along `dim`, or its logarithm.
    Softmax {
        /// Dimension.
        dim: usize,
        /// Whether to return the logarithm.
        log: bool,
    },
    /// Normalisation. Inputs: x, then weight and bias if `affine`, then mean and variance for [`NormKind::Fixed`].
    /// Outputs: y, mean, 1/√(var + eps), and for [`NormKind::Batch`] the biased variance; statistics are f32, one per
    /// group.
    Norm(Norm),
    /// Cross-entropy of logits `[N, C, …]` and class indices (i64) `[N, …]`.
    CrossEntropy(CrossEntropy),
    /// An elementwise loss of a prediction and a target of one shape.
    Loss {
        /// The formula.
        loss: Loss,
        /// Its parameter (β, δ, a margin); unused by some.
        parameter: f64,
        /// Mean over all elements, sum, or none.
        reduction: Reduction,
    },
    /// Scaled dot-product attention: q `[…, T, D]`, k `[…, S, D]`, v `[…, S, E]`, then a mask that broadcasts to `[…,
    /// T, S]` if it has one: bool (true takes part) or float (added to the scores). The heads of q (its third dimension
    /// from the end) may be a multiple of those of k and v (grouped queries). Outputs: `[…, T, E]`, log-sum-exp `[…,
    /// T]` (f32). A position that sees nothing gives zeros. Where q, of four dimensions, has its heads inside positions
    /// in memory, so has the output.
    Attention(Attention),
    /// Rows of a weight `[V, D]` by index (i64 or u32) of any shape.
    Embedding,
    /// Concatenation along a dimension of any number of inputs.
    Cat {
        /// Dimension.
        dim: usize,
    },
    /// A linear map that acts on each dimension by itself.
    Resample(Resample),
    /// `y = keep ? x / (1 − p) : 0`, the same draw for the same key.
    Dropout {
        /// Probability of zero.
        p: f64,
        /// Random stream.
        key: Key,
    },
    /// Random values; no inputs.
    Random {
        /// Distribution.
        distribution: Distribution,
        /// Shape of the result.
        shape: Shape,
        /// Random stream.
        key: Key,
    },
    /// One value everywhere; no inputs.
    Fill {
        /// The value.
        value: f64,
        /// Shape of the result.
        shape: Shape,
    },
    /// `start, start + 1, …` (i64); no inputs.
    Range {
        /// First value.
        start: i64,
        /// Number of values.
        length: usize,
    },
    /// Conversion to another dtype, nearest even.
    Cast(DType),
    /// Conversion to f16 or bf16 by stochastic rounding: unbiased for values in range.
    StochasticCast {
        /// Target.
        dtype: DType,
        /// Random stream.
        key: Key,
    },
    /// Copy in row-major order.
    Copy,
    /// Another layout of the same storage; runs no kernel.
    View(View),
    /// A user's operator.
    Custom(Custom),
    /// A kernel of the backward pass. Not differentiable by itself.
    Backward(Backward),
}
