//! [`work`]: floating-point operations by the shapes of an operator's operands.

use super::{Attention, Backward};
use crate::{Meta, Op, Shape};

/// Multiplications and additions of a product, a convolution or attention, forward or backward, for inputs and a first
/// output like these. All other operators count as none: what they take is memory's time. A position that attention
/// does not look at for causality is not counted, nor is a row that it computes again.
pub fn work(op: &Op, ins: &[Meta], out: &Meta) -> f64 {
    let shape = |i: usize| ins[i].shape();
    let elements = |shape: &Shape| shape.numel() as f64;
    // Of a convolution's weight, products that go into one place of one channel.
    let taps = |weight: &Shape| elements(weight) / weight[0].max(1) as f64;
    match op {
        Op::MatMul(_) | Op::QuantisedMatMul(_) => {
            2.0 * elements(out.shape()) * shape(0).last().copied().unwrap_or(0) as f64
        }
        Op::Conv2d(..) | Op::QuantisedConv2d(_) => 2.0 * elements(out.shape()) * taps(shape(1)),
        Op::ConvTranspose2d { .. } => 2.0 * elements(shape(0)) * taps(shape(1)),
        Op::Attention(attention) => 2.0 * pairs(attention, shape(0), shape(1)) * features(shape(0), shape(2)),
        Op::Backward(backward) => match backward {
            Backward::Conv2dInput { .. } => 2.0 * elements(shape(0)) * taps(shape(1)),
            Backward::Conv2dWeight { shape: weight, .. } => 2.0 * elements(shape(0)) * taps(weight),
            Backward::Depthwise { .. } => 4.0 * elements(shape(0)) * taps(shape(2)),
            // The scores again, and two products each for values and for queries and keys.
            Backward::Attention { attention, .. } => {
                let (q, k, v) = (shape(1), shape(2), shape(3));
                2.0 * pairs(attention, q, k) * (2.0 * features(q, v) + last(q))
            }
            Backward::Unary(_)
            | Backward::Binary { .. }
            | Backward::Scalar { .. }
            | Backward::Reduce { .. }
            | Backward::CumProd { .. }
            | Backward::Gather { .. }
            | Backward::Pool { .. }
            | Backward::PoolSelect { .. }
            | Backward::Softmax { .. }
            | Backward::Norm(_)
            | Backward::Renormalise(_)
            | Backward::CrossEntropy(_)
            | Backward::Ternary { .. }
            | Backward::Loss { .. }
            | Backward::Resample { .. }
            | Backward::Embedding { .. }
            | Backward::Narrow { .. } => 0.0,
        },
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Scalar { .. }
        | Op::Ternary { .. }
        | Op::Compare(_)
        | Op::Where
        | Op::Reduce { .. }
        | Op::Scan { .. }
        | Op::Gather { .. }
        | Op::Scatter { .. }
        | Op::Sort { .. }
        | Op::ArgMax { .. }
        | Op::Pool(_)
        | Op::Softmax { .. }
        | Op::Norm(_)
        | Op::CrossEntropy(_)
        | Op::Loss { .. }
        | Op::Embedding
        | Op::Cat { .. }
        | Op::Resample(_)
        | Op::Dropout { .. }
        | Op::Random { .. }
        | Op::Fill { .. }
        | Op::Range { .. }
        | Op::Cast(_)
        | Op::StochasticCast { .. }
        | Op::Copy
        | Op::View(_)
        | Op::Custom(_) => 0.0,
    }
}

fn last(shape: &Shape) -> f64 {
    shape.last().copied().unwrap_or(0) as f64
}

/// Features of a query and of a value: the products of a pair.
fn features(q: &Shape, v: &Shape) -> f64 {
    last(q) + last(v)
}

/// Pairs of a query and a key that it looks at, over all heads.
fn pairs(attention: &Attention, q: &Shape, k: &Shape) -> f64 {
    let rank = q.rank();
    let (queries, keys) = (q[rank - 2], k[rank - 2]);
    let heads: usize = q[..rank - 2].iter().product();
    let seen = |t: usize| if attention.causal { keys.min(t + 1) } else { keys };
    heads as f64 * (0..queries).map(|t| seen(t) as f64).sum::<f64>()
}
