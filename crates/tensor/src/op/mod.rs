//! [`Op`]: operators as data. A closed list: an operator without outputs, kernel, gradient or samples does not compile.

#[macro_use]
mod elementwise;
mod bound;
mod compose;
mod custom;
mod loss;
mod outs;
mod program;
mod resample;
mod ternary;
mod trace;

pub use bound::Bound;
pub use custom::{Custom, CustomOp, View as CustomView};
pub use elementwise::{Binary, BinaryRow, BinaryVisitor, Compare, Saved, Unary, UnaryRow, UnaryVisitor};
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
    /// The first `length` elements of a dimension in sorted order, and their positions (i64). NaN is larger than any number;
    /// equal elements keep their order.
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
    /// `act(a @ b + bias)`: a `[…, m, k]`, b `[…, k, n]` with broadcast batches, bias `[n]`. Accumulated in f32. With an
    /// activation whose derivative needs its input, the value before it is a second output.
    MatMul(Epilogue),
    /// `f(a) @ b + bias`: a product of an activation that is computed as it is read, as [`Op::Unary`] of a in a's dtype would give it, and never
    /// written. Inputs as for [`Op::MatMul`].
    MatMulOf {
        /// The activation.
        act: Unary,
        /// A bias vector is the last input.
        bias: bool,
    },
    /// `act(conv(x, w) + bias)`: x `[N, C, H, W]`, w `[O, C/groups, KH, KW]`, bias `[O]`. Output is channels-last in memory;
    /// second output as for [`Op::MatMul`].
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
    /// Outputs: y, mean, 1/√(var + eps), and for [`NormKind::Batch`] the biased variance; statistics are f32, one per group.
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
    /// Scaled dot-product attention: q `[…, T, D]`, k `[…, S, D]`, v `[…, S, E]`, then a mask that broadcasts to `[…, T, S]` if
    /// it has one: bool (true takes part) or float (added to the scores). The heads of q (its third dimension from the end) may
    /// be a multiple of those of k and v (grouped queries). Outputs: `[…, T, E]`, log-sum-exp `[…, T]` (f32). A position that
    /// sees nothing gives zeros. Where q, of four dimensions, has its heads inside positions in memory, so has the output.
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

/// Reductions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reduce {
    /// Σx, f32 accumulation.
    Sum,
    /// Σx / n; the sum never overflows the storage dtype.
    Mean,
    /// Largest element; NaN wins.
    Max,
    /// Smallest element; NaN wins.
    Min,
    /// Σ(x − mean)² / (n − correction), two passes.
    Var {
        /// Subtracted from the count: 1 for the unbiased estimate.
        correction: f64,
    },
    /// Square root of the variance.
    Std {
        /// As for the variance.
        correction: f64,
    },
    /// Πx, in f64.
    Prod,
    /// `ln Σ eˣ`, shifted by the maximum.
    LogSumExp,
    /// `(Σ|x|ᵖ)^(1/p)` in f64: squares neither overflow nor underflow. p = ∞ and −∞ are the largest and smallest magnitude,
    /// 0 the number of elements that are not 0.
    Norm {
        /// The exponent.
        p: f64,
    },
}

/// Running reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scan {
    /// Sum.
    Sum,
    /// Product.
    Prod,
}

/// What scattering does with the element that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scatter {
    /// Replaces it; of equal indices the last wins.
    Set,
    /// Adds to it, in order.
    Add,
}

/// What a contraction does with its accumulators before storing them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue {
    /// A bias vector is the last input.
    pub bias: bool,
    /// Activation applied last.
    pub act: Option<Unary>,
}

/// Geometry of a 2-d convolution; pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Step of the window.
    pub stride: [usize; 2],
    /// Zeros added on both sides.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Number of groups of channels.
    pub groups: usize,
}

impl Conv2d {
    /// Whether a convolution with a weight of this shape has one input and one output channel per group, of several.
    pub fn is_depthwise(&self, weight: &Shape) -> bool {
        self.groups > 1 && weight[0] == self.groups && weight[1] == 1
    }
}

impl Default for Conv2d {
    fn default() -> Self {
        Conv2d { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

/// Pooling kind and window; pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Largest or mean.
    pub kind: PoolKind,
    /// Window.
    pub kernel: [usize; 2],
    /// Step.
    pub stride: [usize; 2],
    /// Padding on both sides: −∞ for max, zeros for avg.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Whether a last window may hang over the end, if it starts inside.
    pub ceil: bool,
    /// Whether padding counts in the divisor of avg (PyTorch's default).
    pub count_padding: bool,
}

impl Pool {
    /// Pooling with PyTorch's defaults for the rest.
    pub fn new(kind: PoolKind, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Pool {
        Pool { kind, kernel, stride, padding, dilation: [1, 1], ceil: false, count_padding: true }
    }

    /// Number of windows over `n` elements of a spatial dimension; `None` when none fits.
    pub fn windows(&self, d: usize, n: usize) -> Option<usize> {
        let span = self.dilation[d] * self.kernel[d].checked_sub(1)? + 1;
        let room = (n + 2 * self.padding[d]).checked_sub(span)?;
        let stride = self.stride[d].max(1);
        let count = if self.ceil { room.div_ceil(stride) } else { room / stride } + 1;
        // The last window must start inside the image or the padding before it.
        Some(if (count - 1) * stride >= n + self.padding[d] { count - 1 } else { count })
    }

    /// What a window of avg is divided by; `o` counts windows, `n` elements, per spatial dimension.
    pub fn divisor(&self, o: [usize; 2], n: [usize; 2]) -> usize {
        let length = |d: usize| {
            let start = o[d] * self.stride[d];
            let end = (start + self.kernel[d]).min(n[d] + 2 * self.padding[d]);
            if self.count_padding {
                end - start
            } else {
                end.min(n[d] + self.padding[d]).saturating_sub(start.max(self.padding[d]))
            }
        };
        length(0) * length(1)
    }
}

/// Kind of pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// Largest element, NaN wins.
    Max,
    /// Mean.
    Avg,
}

/// A normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Which elements share statistics.
    pub kind: NormKind,
    /// Added to the variance, in f32.
    pub eps: f64,
    /// Whether weight and bias (RMS: weight only) are inputs.
    pub affine: bool,
    /// Activation applied last.
    pub act: Option<Unary>,
}

/// Which elements share statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// The last `dims` dimensions; weight and bias have their shape.
    Layer {
        /// Number of trailing dimensions.
        dims: usize,
    },
    /// The last `dims` dimensions divided by the root of their mean square: no mean is subtracted and there is no bias (Zhang
    /// and Sennrich 2019). The mean output is 0.
    Rms {
        /// Number of trailing dimensions.
        dims: usize,
    },
    /// Per sample, groups of channels (dimension 1); weight and bias `[C]`.
    Group {
        /// Number of groups.
        groups: usize,
    },
    /// Per channel (dimension 1), over batch and space; weight and bias `[C]`.
    Batch,
    /// Per channel with given mean and variance (f32 `[C]`): batch norm in evaluation. Only y is returned.
    Fixed,
}

/// Cross-entropy attributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Label smoothing in [0, 1].
    pub smoothing: f64,
    /// Targets of this value count for nothing.
    pub ignore_index: i64,
    /// Mean over counted targets, sum, or none.
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        CrossEntropy { smoothing: 0.0, ignore_index: -100, reduction: Reduction::Mean }
    }
}

/// How a loss is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// One loss per element.
    None,
    /// Mean.
    Mean,
    /// Sum.
    Sum,
}

/// Attention attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attention {
    /// Position t sees positions 0..=t only.
    pub causal: bool,
    /// Factor of q·k; `None` for 1/√D.
    pub scale: Option<f64>,
    /// Whether a mask is the last input.
    pub mask: bool,
    /// Probability with which an attention weight becomes 0 (the others are divided by 1 − p).
    pub dropout: f64,
    /// Random stream of the dropout.
    pub key: Key,
}

/// A distribution to draw from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Uniform in [low, high).
    Uniform {
        /// Smallest value.
        low: f64,
        /// Bound that is not reached before rounding.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// A permutation of 0..n (i64), for a one-dimensional shape.
    Permutation,
}

/// Views: the same storage under another layout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum View {
    /// Dimensions in another order; the shape holds the old index of each new dimension.
    Permute(Shape),
    /// Another shape of as many elements; the input's strides must allow it (else copy first).
    Reshape(Shape),
    /// `length` elements of `dim` from `start`.
    Narrow {
        /// Dimension.
        dim: usize,
        /// First index.
        start: usize,
        /// Number of indices.
        length: usize,
    },
    /// Broadcast to a shape.
    Expand(Shape),
}

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
    /// All gradients of a depthwise convolution, whose operands are then read once: inputs g, x, w. Outputs: dx, dw, and db if it has a bias
    /// (both in the weight's dtype).
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
    /// The adjoint of [`Backward::Pool`] for max: of a tensor of x's shape, the elements where x was largest. Inputs: the
    /// tensor, x.
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
    /// `a·f(x)`: the gradient of a linear layer's weight, whose right operand is an activation that was not kept (as `Op::Unary` of x in x's
    /// dtype would give it) or x itself.
    MatMulOf {
        /// The activation.
        act: Option<Unary>,
        /// Whether the sums of a's rows are a second output: the bias's gradient. Operands are matrices then.
        sums: bool,
    },
    /// Inputs: g, x, weight if affine, bias if there is one and an activation, then mean and rstd (for [`NormKind::Fixed`] mean and
    /// variance). Outputs: dx, and dweight, dbias (in the weight's dtype) if affine.
    Norm(Norm),
    /// The first output of a norm again, to the bit, from its statistics. Inputs: x, weight and bias as the norm has them, mean, rstd.
    /// Not for [`NormKind::Fixed`], which is given its statistics anyway.
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

/// How an operator behaves in 16 bit: a fact about it. Autocast policies map it to dtypes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numerics {
    /// Fast and safe in 16 bit with f32 accumulation: contractions.
    Lower,
    /// Needs f32: range or cancellation.
    F32,
    /// Reads any dtype; its result needs f32 unless the caller asked for a dtype: sums, softmax.
    F32Out,
    /// All float inputs must be brought to the widest among them.
    Promote,
    /// Runs in the dtype its inputs have.
    Neutral,
    /// Unsafe in 16 bit: refused inside an autocast region.
    Banned,
}

impl Op {
    /// The operator's name in messages, reports and policies.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Unary(row) => row.name(),
            Op::Binary(row) | Op::Scalar { op: row, .. } => row.name(),
            Op::Compare(row) => row.name(),
            Op::Where => "where",
            Op::Reduce { kind, .. } => match kind {
                Reduce::Sum => "sum",
                Reduce::Mean => "mean",
                Reduce::Max => "amax",
                Reduce::Min => "amin",
                Reduce::Var { .. } => "var",
                Reduce::Std { .. } => "std",
                Reduce::Prod => "prod",
                Reduce::LogSumExp => "logsumexp",
                Reduce::Norm { .. } => "norm",
            },
            Op::Scan { kind: Scan::Sum, .. } => "cumsum",
            Op::Scan { kind: Scan::Prod, .. } => "cumprod",
            Op::Gather { .. } => "gather",
            Op::Scatter { .. } => "scatter",
            Op::Sort { .. } => "sort",
            Op::ArgMax { .. } => "argmax",
            Op::MatMul(_) | Op::MatMulOf { .. } => "matmul",
            Op::Conv2d(..) => "conv2d",
            Op::ConvTranspose2d { .. } => "conv_transpose2d",
            Op::Pool(Pool { kind: PoolKind::Max, .. }) => "max_pool2d",
            Op::Pool(Pool { kind: PoolKind::Avg, .. }) => "avg_pool2d",
            Op::Softmax { log: false, .. } => "softmax",
            Op::Softmax { log: true, .. } => "log_softmax",
            Op::Norm(norm) => norm.name(),
            Op::CrossEntropy(_) => "cross_entropy",
            Op::Loss { loss, .. } => loss.name(),
            Op::Ternary { op, .. } => op.name(),
            Op::Resample(map) => map.name(),
            Op::Attention(_) => "scaled_dot_product_attention",
            Op::Embedding => "embedding",
            Op::Cat { .. } => "cat",
            Op::Dropout { .. } => "dropout",
            Op::Random { distribution, .. } => match distribution {
                Distribution::Uniform { .. } => "uniform",
                Distribution::Normal { .. } => "normal",
                Distribution::Permutation => "permutation",
            },
            Op::Fill { .. } => "fill",
            Op::Range { .. } => "arange",
            Op::Cast(_) => "cast",
            Op::StochasticCast { .. } => "stochastic_cast",
            Op::Copy => "copy",
            Op::View(view) => match view {
                View::Permute(_) => "permute",
                View::Reshape(_) => "reshape",
                View::Narrow { .. } => "narrow",
                View::Expand(_) => "expand",
            },
            Op::Custom(custom) => custom.name(),
            Op::Backward(backward) => match backward {
                Backward::Unary(_) => "unary_backward",
                Backward::Binary { .. } => "binary_backward",
                Backward::Scalar { .. } => "scalar_backward",
                Backward::Reduce { .. } => "reduce_backward",
                Backward::CumProd { .. } => "cumprod_backward",
                Backward::Gather { .. } => "gather_backward",
                Backward::Conv2dInput { .. } => "conv2d_input_backward",
                Backward::Conv2dWeight { .. } => "conv2d_weight_backward",
                Backward::Depthwise { .. } => "depthwise_backward",
                Backward::Pool { .. } => "pool_backward",
                Backward::PoolSelect { .. } => "pool_select",
                Backward::Softmax { .. } => "softmax_backward",
                Backward::MatMulOf { act: Some(_), .. } => "matmul_of_activation",
                Backward::MatMulOf { act: None, .. } => "matmul_with_sums",
                Backward::Norm(_) => "norm_backward",
                Backward::Renormalise(_) => "renormalise",
                Backward::CrossEntropy(_) => "cross_entropy_backward",
                Backward::Loss { .. } => "loss_backward",
                Backward::Ternary { .. } => "ternary_backward",
                Backward::Resample { .. } => "resample_backward",
                Backward::Attention { .. } => "attention_backward",
                Backward::Embedding { .. } => "embedding_backward",
                Backward::Narrow { .. } => "narrow_backward",
            },
        }
    }

    /// How the operator behaves in 16 bit. The classes are those of PyTorch's CUDA autocast lists.
    pub fn numerics(&self) -> Numerics {
        match self {
            Op::Unary(row) => row.numerics(),
            Op::Binary(row) | Op::Scalar { op: row, .. } => row.numerics(),
            Op::Compare(_) | Op::Where => Numerics::Neutral,
            Op::Reduce { kind, .. } => match kind {
                Reduce::Sum | Reduce::Prod => Numerics::F32Out,
                Reduce::LogSumExp | Reduce::Norm { .. } => Numerics::F32,
                Reduce::Mean | Reduce::Max | Reduce::Min | Reduce::Var { .. } | Reduce::Std { .. } => Numerics::Neutral,
            },
            Op::Scan { .. } => Numerics::F32Out,
            Op::Scatter { .. } => Numerics::Promote,
            Op::Gather { .. } | Op::Sort { .. } => Numerics::Neutral,
            Op::MatMul(_) | Op::MatMulOf { .. } => Numerics::Lower,
            Op::Conv2d(..) | Op::ConvTranspose2d { .. } | Op::Attention(_) => Numerics::Lower,
            Op::Softmax { .. } => Numerics::F32Out,
            Op::Norm(norm) => match norm.kind {
                NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } => Numerics::F32,
                NormKind::Batch | NormKind::Fixed => Numerics::Neutral,
            },
            Op::CrossEntropy(_) => Numerics::F32,
            Op::Loss { loss, .. } => loss.numerics(),
            Op::Ternary { op, .. } => op.numerics(),
            Op::Resample(map) => map.numerics(),
            Op::ArgMax { .. } | Op::Pool(_) | Op::Embedding | Op::Cat { .. } | Op::Dropout { .. } => Numerics::Neutral,
            Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } => Numerics::Neutral,
            Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy => Numerics::Neutral,
            Op::Custom(custom) => custom.numerics(),
            Op::View(_) | Op::Backward(_) => Numerics::Neutral,
        }
    }

    /// Whether the one output may be written over operand `operand` where their layouts are the same: an element of it depends on no other
    /// element of that operand than the one in its place.
    pub fn may_overwrite(&self, operand: usize) -> bool {
        match self {
            Op::Unary(_) | Op::Binary(_) | Op::Scalar { .. } | Op::Ternary { .. } | Op::Dropout { .. } => true,
            Op::Where => operand > 0,
            Op::Backward(backward) => match backward {
                Backward::Unary(_) | Backward::Binary { .. } | Backward::Scalar { .. } | Backward::Ternary { .. } => true,
                Backward::Reduce { .. }
                | Backward::CumProd { .. }
                | Backward::Gather { .. }
                | Backward::Conv2dInput { .. }
                | Backward::Conv2dWeight { .. }
                | Backward::Depthwise { .. }
                | Backward::Pool { .. }
                | Backward::PoolSelect { .. }
                | Backward::Softmax { .. }
                | Backward::MatMulOf { .. }
                | Backward::Norm(_)
                | Backward::Renormalise(_)
                | Backward::CrossEntropy(_)
                | Backward::Loss { .. }
                | Backward::Resample { .. }
                | Backward::Attention { .. }
                | Backward::Embedding { .. }
                | Backward::Narrow { .. } => false,
            },
            // What changes the dtype, or only moves elements, has no use for it.
            Op::Compare(_) | Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy | Op::View(_) => false,
            Op::Reduce { .. }
            | Op::Scan { .. }
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Sort { .. }
            | Op::ArgMax { .. } => false,
            Op::MatMul(_) | Op::MatMulOf { .. } | Op::Conv2d(..) | Op::ConvTranspose2d { .. } => false,
            Op::Pool(_) | Op::Softmax { .. } | Op::Norm(_) => false,
            Op::CrossEntropy(_) | Op::Loss { .. } | Op::Resample(_) | Op::Attention(_) | Op::Embedding | Op::Cat { .. } => false,
            Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } | Op::Custom(_) => false,
        }
    }

    /// Whether kernels round operands whose cast was left to whoever reads ([`crate::Array::cast_when_read`]): those that pack what they read, once.
    pub fn rounds_as_it_reads(&self) -> bool {
        match self {
            Op::MatMul(_) | Op::MatMulOf { .. } | Op::Conv2d(..) | Op::ConvTranspose2d { .. } => true,
            // Moves nothing.
            Op::View(_) => true,
            Op::Backward(backward) => match backward {
                Backward::Conv2dInput { .. } | Backward::Depthwise { .. } => true,
                Backward::Unary(_) | Backward::Binary { .. } | Backward::Scalar { .. } | Backward::Ternary { .. } => false,
                Backward::Reduce { .. }
                | Backward::CumProd { .. }
                | Backward::Gather { .. }
                | Backward::Conv2dWeight { .. }
                | Backward::Pool { .. }
                | Backward::PoolSelect { .. }
                | Backward::Softmax { .. }
                | Backward::MatMulOf { .. }
                | Backward::Norm(_)
                | Backward::Renormalise(_)
                | Backward::CrossEntropy(_)
                | Backward::Loss { .. }
                | Backward::Resample { .. }
                | Backward::Attention { .. }
                | Backward::Embedding { .. }
                | Backward::Narrow { .. } => false,
            },
            Op::Unary(_) | Op::Binary(_) | Op::Scalar { .. } | Op::Ternary { .. } | Op::Compare(_) | Op::Where => false,
            Op::Reduce { .. }
            | Op::Scan { .. }
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Sort { .. }
            | Op::ArgMax { .. } => false,
            Op::Pool(_) | Op::Softmax { .. } | Op::Norm(_) | Op::CrossEntropy(_) | Op::Loss { .. } | Op::Resample(_) => false,
            Op::Attention(_) | Op::Embedding | Op::Cat { .. } | Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy => false,
            Op::Dropout { .. } | Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } | Op::Custom(_) => false,
        }
    }

    /// The float dtype of the result outside autocast: that of the promoted inputs; of x for norms, whose weights may be
    /// wider; of the weight for embeddings; f32 where no input is a float.
    pub fn natural_dtype(&self, ins: &[DType]) -> DType {
        match self {
            Op::Norm(_) => ins[0],
            Op::Cast(dtype) | Op::StochasticCast { dtype, .. } => *dtype,
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Scalar { .. }
            | Op::Compare(_)
            | Op::Where
            | Op::Reduce { .. }
            | Op::ArgMax { .. }
            | Op::Scan { .. }
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Sort { .. }
            | Op::MatMul(_)
            | Op::MatMulOf { .. }
            | Op::Conv2d(..)
            | Op::ConvTranspose2d { .. }
            | Op::Pool(_)
            | Op::Softmax { .. }
            | Op::CrossEntropy(_)
            | Op::Loss { .. }
            | Op::Ternary { .. }
            | Op::Resample(_)
            | Op::Attention(_)
            | Op::Embedding
            | Op::Cat { .. }
            | Op::Dropout { .. }
            | Op::Random { .. }
            | Op::Fill { .. }
            | Op::Range { .. }
            | Op::Copy
            | Op::View(_)
            | Op::Custom(_)
            | Op::Backward(_) => ins.iter().copied().filter(|d| d.is_float()).reduce(DType::promote).unwrap_or(DType::F32),
        }
    }
}

impl Norm {
    /// Number of weight inputs: none, a weight, or weight and bias.
    pub fn weights(&self) -> usize {
        match (self.affine, self.kind) {
            (false, _) => 0,
            (true, NormKind::Rms { .. }) => 1,
            (true, NormKind::Layer { .. } | NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed) => 2,
        }
    }

    /// Number of weight inputs of the gradient: the bias is among them where an activation's argument is computed again.
    pub fn weights_of_gradient(&self) -> usize {
        if self.act.is_some() { self.weights() } else { self.affine as usize }
    }

    /// The name of the normalisation.
    pub fn name(&self) -> &'static str {
        match self.kind {
            NormKind::Layer { .. } => "layer_norm",
            NormKind::Rms { .. } => "rms_norm",
            NormKind::Group { .. } => "group_norm",
            NormKind::Batch | NormKind::Fixed => "batch_norm",
        }
    }
}
