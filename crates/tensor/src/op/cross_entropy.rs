//! Cross-entropy of logits and classes.

use smallvec::smallvec;

use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::loss::reduce_loss;
use super::program::{Builder, Value};
use super::softmax::softmax;
use super::{Backward, Binary, Compare, Op, Reduce, Reduction};
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Dims, Result, Shape};

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

impl Family for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn numerics(&self) -> Numerics {
        Numerics::F32
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2)?;
        check.floats(0..1)?;
        Ok(smallvec![check.dense(self.reduction.shape(each(check, self)?))])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        // The logarithm of a sum of exponentials in f32; differences and the sum of losses are f64.
        Bound::Scale(5.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[5, 7], 1), s.index(&[5], 7)], vec![s.x(&[2, 7, 3], 1), s.index(&[2, 3], 7)]]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        Ok(Some(cross_entropy(b, self)?))
    }
}

/// Shape of the losses of all targets.
fn each(check: &Check<'_>, loss: &CrossEntropy) -> Result<Shape> {
    let (logits, target) = (check.ins[0].shape(), check.ins[1].shape());
    check.dtype(1, &[DType::I64])?;
    if !(0.0..=1.0).contains(&loss.smoothing) {
        return check.argument(format!("label smoothing must lie in 0 to 1, got {}", loss.smoothing));
    }
    if logits.rank() < 2 || *target != Dims::one(1).reduce(logits, false) {
        return check.shape("logits [N, C, …] and class indices [N, …]");
    }
    Ok(*target)
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

/// [`Backward::CrossEntropy`].
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropyBackward(pub CrossEntropy);

impl Family for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(3)?;
        let each = each(&check.of(&check.ins[1..]), &self.0)?;
        if *check.ins[0].shape() != self.0.reduction.shape(each) {
            return check.shape("the gradient of the loss, logits and class indices");
        }
        Ok(smallvec![check.like(1)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Scale(6.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let g = s.x(&self.0.reduction.shape(Shape::from_slice(&[5])), 9);
        vec![vec![g, s.x(&[5, 7], 1), s.index(&[5], 7)]]
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let of = |reduction| {
        let loss = CrossEntropy { smoothing: 0.1, ignore_index: 1, reduction };
        [Op::CrossEntropy(loss), Op::Backward(Backward::CrossEntropy(loss))]
    };
    [Reduction::None, Reduction::Mean, Reduction::Sum].into_iter().flat_map(of).collect()
}
