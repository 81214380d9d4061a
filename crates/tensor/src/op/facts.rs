//! Facts about operators: their names, how they behave in 16 bit, what their kernels may do with operands, the dtype of
//! their results.

use super::{Backward, Distribution, NormKind, Op, Pool, PoolKind, Reduce, Scan, Scatter, View};
use crate::DType;

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

    /// Whether the output is the input itself, moved or rounded. Casts, copies and views mean what they say, whatever a
    /// policy says, and what they make of a parameter is still the parameter.
    pub fn is_conversion(&self) -> bool {
        match self {
            Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy | Op::View(_) => true,
            Op::Unary(_) | Op::Binary(_) | Op::Scalar { .. } | Op::Ternary { .. } | Op::Compare(_) | Op::Where => false,
            Op::Reduce { .. } | Op::Scan { .. } | Op::ArgMax { .. } | Op::Softmax { .. } => false,
            Op::Gather { .. } | Op::Scatter { .. } | Op::Sort { .. } | Op::Embedding => false,
            Op::MatMul(_) | Op::MatMulOf { .. } | Op::Conv2d(..) | Op::ConvTranspose2d { .. } | Op::Pool(_) => false,
            Op::Norm(_) | Op::CrossEntropy(_) | Op::Loss { .. } | Op::Attention(_) => false,
            Op::Cat { .. } | Op::Resample(_) | Op::Dropout { .. } => false,
            Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } | Op::Custom(_) | Op::Backward(_) => false,
        }
    }

    /// Whether the one output may be written over operand `operand` where their layouts are the same: an element of it
    /// depends on no other element of that operand than the one in its place.
    pub fn may_overwrite(&self, operand: usize) -> bool {
        match self {
            Op::Unary(_) | Op::Binary(_) | Op::Scalar { .. } | Op::Ternary { .. } | Op::Dropout { .. } => true,
            Op::Where => operand > 0,
            Op::Backward(backward) => match backward {
                Backward::Unary(_) | Backward::Binary { .. } | Backward::Scalar { .. } | Backward::Ternary { .. } => {
                    true
                }
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
            Op::CrossEntropy(_)
            | Op::Loss { .. }
            | Op::Resample(_)
            | Op::Attention(_)
            | Op::Embedding
            | Op::Cat { .. } => false,
            Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } | Op::Custom(_) => false,
        }
    }

    /// Whether the elements of an input are only moved or compared, whatever they are: then they may be integers, which
    /// stay exact.
    pub fn moves(&self, input: usize) -> bool {
        match self {
            Op::Compare(row) => row.orders(),
            Op::Where => input > 0,
            Op::Gather { .. } | Op::Embedding => input == 0,
            Op::Scatter { kind: Scatter::Set, .. } => input != 1,
            Op::Scatter { kind: Scatter::Add, .. } => false,
            Op::Sort { .. } | Op::ArgMax { .. } | Op::Cat { .. } => true,
            Op::Resample(map) => map.is_exact(),
            // Run in the elements' own type.
            Op::Cast(_) | Op::Copy | Op::View(_) => false,
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Scalar { .. }
            | Op::Ternary { .. }
            | Op::Reduce { .. }
            | Op::Scan { .. } => false,
            Op::MatMul(_) | Op::MatMulOf { .. } | Op::Conv2d(..) | Op::ConvTranspose2d { .. } | Op::Pool(_) => false,
            Op::Softmax { .. } | Op::Norm(_) | Op::CrossEntropy(_) | Op::Loss { .. } | Op::Attention(_) => false,
            Op::Dropout { .. } | Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } | Op::StochasticCast { .. } => {
                false
            }
            Op::Custom(_) | Op::Backward(_) => false,
        }
    }

    /// The float dtype of the result outside autocast: that of the promoted inputs; of x for norms, whose weights may
    /// be wider; of the weight for embeddings; f32 where no input is a float.
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
            | Op::Backward(_) => {
                ins.iter().copied().filter(|d| d.is_float()).reduce(DType::promote).unwrap_or(DType::F32)
            }
        }
    }
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
