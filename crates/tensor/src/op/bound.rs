//! The error that each operator may have beside the one rounding of its result.

use super::{Backward, Binary, Distribution, Norm, NormKind, Op, Reduce, Reduction, Unary};
use crate::Array;

/// How far the computed result may lie from the exact one, before it is rounded to the output's dtype (which adds half
/// a unit in its last place). u is the unit roundoff of the computing type: 2⁻²⁴ for f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Per element, so many units in the last place of the computing type.
    Ulps(f64),
    /// Per element, `factor · u` times the operator applied to the absolute values of its inputs: sums of `factor`
    /// products in any order (Higham, *Accuracy and Stability*, §3.1, γₖ).
    Gamma(f64),
    /// Per element, `factor · u` times the larger of the result and of the first input's element there: a slope that
    /// cancels (as 1 − y²) is accurate relative to 1, and so its product with the gradient relative to the gradient.
    Operand(f64),
    /// `factor · u` times the largest magnitude of the output and of the float inputs: operators whose elements depend
    /// on a whole row through a sum that does not vanish.
    Scale(f64),
    /// Per element, to first order, what `factor` roundings of u change: terms count with their magnitudes, an
    /// activation passes on the error of its argument, softmax that of its scores, a norm that of its mean as a part of
    /// the deviation. `reference/errors.rs` has the analysis.
    Terms(f64),
}

/// Computed in f64 throughout and rounded once.
fn in_f64(ins: &[&Array]) -> Bound {
    match ins.iter().find(|a| a.dtype() == crate::DType::F64) {
        // Each term a power, the root another.
        Some(x) => Bound::Scale(x.numel() as f64 + 8.0),
        None => Bound::Ulps(0.5),
    }
}

/// Roundings of a norm: of the elements that share statistics up to 256 in one chain, then of those sums, and of what
/// is done with them. Sums by weight have no longer chains.
fn norm_terms(norm: &Norm, ins: &[&Array]) -> f64 {
    let shape = ins[0].shape();
    let members = match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => shape[shape.rank() - dims..].iter().product(),
        NormKind::Group { groups } => shape.numel() / (shape[0] * groups).max(1),
        NormKind::Batch | NormKind::Fixed => shape.numel() / shape[1].max(1),
    } as f64;
    16.0 + members.min(256.0) + members / 256.0
}

impl Op {
    /// The stated error bound for these inputs.
    pub fn bound(&self, ins: &[&Array]) -> Bound {
        let numel = |i: usize| ins.get(i).map_or(1, |a| a.numel()) as f64;
        let extent = |i: usize, d: usize| ins[i].shape().get(d).copied().unwrap_or(1) as f64;
        let wide = ins.iter().any(|a| a.dtype() == crate::DType::F64);
        match self {
            Op::Unary(row) => Bound::Ulps(row.ulp()),
            Op::Binary(row) | Op::Scalar { op: row, .. } => Bound::Ulps(row.ulp()),
            Op::Compare(_) | Op::Where | Op::ArgMax { .. } | Op::Embedding | Op::Cat { .. } | Op::Fill { .. } => {
                Bound::Ulps(0.0)
            }
            Op::Range { .. } => Bound::Ulps(0.0),
            Op::Cast(_) | Op::StochasticCast { .. } | Op::Copy | Op::View(_) => Bound::Ulps(0.0),
            // A product with the rounded 1/(1 − p).
            Op::Dropout { .. } => Bound::Ulps(1.0),
            // Drawn in f64, where logarithm, root, cosine and product round before the mean is added.
            Op::Random { distribution: Distribution::Normal { .. }, .. } => Bound::Scale(1.0),
            Op::Random { distribution: Distribution::Uniform { .. } | Distribution::Permutation, .. } => {
                Bound::Ulps(0.0)
            }
            // 1,024 elements in 16 interleaved f32 sums of 64, then f64; columns add up to 1,024 rows in f32.
            Op::Reduce { kind: Reduce::Sum | Reduce::Mean, .. } => Bound::Gamma(1024.0_f64.min(numel(0)) + 1.0),
            Op::Reduce { kind: Reduce::Max | Reduce::Min, .. } => Bound::Ulps(0.0),
            // A sum of positive terms, in 16 interleaved ones of at most 64; where the mean's rounding would matter, in
            // f64.
            Op::Reduce { kind: Reduce::Var { .. } | Reduce::Std { .. }, .. } => Bound::Ulps(20.0),
            // In f64, rounded once; of f64 itself every step rounds.
            Op::Reduce { kind: Reduce::Prod | Reduce::Norm { .. }, .. } | Op::Scan { .. } => in_f64(ins),
            Op::Reduce { kind: Reduce::LogSumExp, .. } => Bound::Scale(8.0),
            Op::Gather { .. } | Op::Sort { .. } => Bound::Ulps(0.0),
            // As many additions as src has elements for one place.
            Op::Scatter { .. } => Bound::Gamma(numel(2) + 1.0),
            // A product of each of the two sums' rounding, then bias.
            Op::MatMul(epilogue) => {
                let k = extent(0, ins[0].shape().rank() - 1);
                if epilogue.act.is_some() { Bound::Terms(k + 2.0) } else { Bound::Gamma(k + 2.0) }
            }
            // f(a) is rounded to a's dtype.
            Op::MatMulOf { .. } => Bound::Terms(extent(0, ins[0].shape().rank() - 1) + 2.0),
            Op::Conv2d(_, epilogue) => {
                let k = extent(1, 1) * extent(1, 2) * extent(1, 3);
                if epilogue.act.is_some() { Bound::Terms(k + 2.0) } else { Bound::Gamma(k + 2.0) }
            }
            Op::ConvTranspose2d { conv, .. } => {
                Bound::Gamma(extent(1, 0) / conv.groups as f64 * extent(1, 2) * extent(1, 3) + 3.0)
            }
            Op::Pool(pool) => Bound::Gamma((pool.kernel[0] * pool.kernel[1]) as f64 + 2.0),
            // x − max is exact to half an ulp, which exp turns into a relative error of |x − max|·u.
            Op::Softmax { .. } => Bound::Scale(32.0),
            Op::Norm(norm) => Bound::Terms(norm_terms(norm, ins)),
            Op::CrossEntropy(_) => Bound::Scale(16.0),
            // Terms may cancel (x·t against max(x, 0)); then a mean in blocks of 16 interleaved sums.
            Op::Loss { reduction: Reduction::None, .. } => Bound::Scale(8.0),
            Op::Loss { .. } => Bound::Scale(32.0),
            // Two products and a sum, which may cancel against x.
            Op::Ternary { .. } => Bound::Scale(3.0),
            Op::Resample(map) if map.is_exact() => Bound::Ulps(0.0),
            // Weights rounded to f32 and their product, then a sum in order; cubic weights have both signs.
            Op::Resample(map) => Bound::Scale(map.most_taps(ins[0].shape()) as f64 + 6.0),
            // Scores of D products go through exp; then a mean of S values.
            Op::Attention(_) => Bound::Terms(1.0),
            Op::Custom(custom) => custom.bound(ins),
            Op::Backward(backward) => match backward {
                // The derivative as stated for its function, and the product with g; near zeros of f′ only relative to
                // 1.
                Backward::Unary(Unary::Hardsigmoid) => Bound::Ulps(2.0),
                Backward::Unary(_) => Bound::Operand(16.0),
                Backward::Binary { op, .. } | Backward::Scalar { op, .. } => match op {
                    Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Maximum | Binary::Minimum => {
                        Bound::Ulps(2.5)
                    }
                    Binary::ClampMin | Binary::ClampMax | Binary::Prelu | Binary::LeakyRelu => Bound::Ulps(1.0),
                    // By the divisor a − fmod(a, b), its quotient and the product.
                    Binary::Fmod => Bound::Ulps(3.0),
                    // In f64, rounded once; of f64 itself every step rounds.
                    Binary::Pow if wide => Bound::Ulps(2.0),
                    Binary::Pow => Bound::Ulps(0.51),
                    // By the parameter the terms cancel.
                    Binary::Atan2 | Binary::Elu => Bound::Scale(16.0),
                    // Of a parameter below 0 the quotient is up to 89, where its rounding is 2⁻¹⁸: 64 u of e to it.
                    Binary::Celu => Bound::Scale(72.0),
                    // Neither operand is below 2⁻⁴⁰, so that where the gradient is larger than both their product is
                    // above −28: the exponential magnifies its rounding by that.
                    Binary::Softplus => Bound::Scale(36.0),
                },
                Backward::Reduce { kind: Reduce::Var { .. } | Reduce::Std { .. }, .. } => Bound::Terms(4.0),
                Backward::Reduce { .. } => Bound::Scale(16.0),
                Backward::CumProd { .. } => in_f64(ins),
                Backward::Gather { .. } => Bound::Gamma(numel(1) + 1.0),
                Backward::Conv2dInput { .. } => Bound::Gamma(extent(1, 0) * extent(1, 2) * extent(1, 3) + 2.0),
                // A sum over a block of pixels, of which there are at least eight and at most as many as rows, then the
                // blocks' sums. That by the input of a depthwise convolution has fewer terms, unless its kernel is
                // larger than its output.
                Backward::Conv2dWeight { .. } | Backward::Depthwise { .. } => {
                    let (rows, width) = (extent(0, 0) * extent(0, 2), extent(0, 3));
                    let block = ((rows / 8.0).ceil() * width).min(1024.0 + width);
                    let taps = if matches!(self, Op::Backward(Backward::Depthwise { .. })) {
                        extent(2, 2) * extent(2, 3)
                    } else {
                        0.0
                    };
                    Bound::Gamma((block + rows).min(rows * width).max(taps) + 8.0)
                }
                Backward::Pool { pool, .. } => Bound::Scale((pool.kernel[0] * pool.kernel[1]) as f64 + 4.0),
                Backward::Softmax { .. } => Bound::Scale(64.0),
                // As a product; sums of rows have as many terms, and fewer roundings.
                Backward::MatMulOf { act: None, .. } => Bound::Gamma(extent(0, ins[0].shape().rank() - 1) + 2.0),
                // f(x) is rounded to x's dtype.
                Backward::MatMulOf { act: Some(_), .. } => Bound::Terms(extent(0, ins[0].shape().rank() - 1) + 2.0),
                Backward::Norm(norm) => Bound::Terms(norm_terms(norm, ins)),
                Backward::Renormalise(_) => Bound::Terms(8.0),
                Backward::CrossEntropy(_) => Bound::Scale(6.0),
                Backward::Loss { .. } => Bound::Scale(6.0),
                Backward::Ternary { .. } => Bound::Scale(8.0),
                // As many terms as outputs show one input: at most the whole output of a dimension.
                Backward::Resample { .. } => Bound::Scale(64.0),
                Backward::Attention { .. } => Bound::Terms(1.0),
                Backward::Embedding { .. } => Bound::Gamma(numel(1) + 1.0),
                Backward::Narrow { .. } | Backward::PoolSelect { .. } => Bound::Ulps(0.0),
            },
        }
    }
}
