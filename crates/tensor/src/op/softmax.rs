//! Softmax and its logarithm.

use smallvec::smallvec;

use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::program::{Builder, Value};
use super::{Backward, Binary, Op, Reduce, Unary};
use crate::samples::{Inputs, Sampler};
use crate::{Array, Dims, Result};

/// [`Op::Softmax`].
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    /// Dimension.
    pub dim: usize,
    /// Whether to return the logarithm.
    pub log: bool,
}

impl Family for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn numerics(&self) -> Numerics {
        Numerics::F32Out
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (dim, ins) = (&self.dim, check.ins);
        check.count(1)?;
        check.floats(0..1)?;
        if ins[0].shape().rank() > 0 {
            check.dim(0, *dim)?;
        }
        Ok(smallvec![check.like(0)])
    }

    /// x − max is exact to half an ulp, which exp turns into a relative error of |x − max|·u.
    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Scale(32.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.volumes()
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        Ok(Some(softmax(b, b.input(0), self.dim, self.log)?))
    }
}

/// `exp(x − max)/Σ`, or its logarithm.
pub(super) fn softmax(b: &mut Builder, x: Value, dim: usize, log: bool) -> Result<Value> {
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

/// [`Backward::Softmax`].
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxBackward {
    /// Dimension.
    pub dim: usize,
    /// Whether y is the logarithm.
    pub log: bool,
}

impl Family for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2)?;
        check.same_shape(0, 1)?;
        Ok(smallvec![check.like(1)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Scale(64.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let SoftmaxBackward { dim, log } = self;
        let y = s.run(Op::Softmax { dim: *dim, log: *log }, &[&s.x(&[3, 40, 13], 1)]).remove(0);
        vec![vec![s.gradient(&y), y]]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let (SoftmaxBackward { dim, log }, g) = (self, b.input(0));
        let y = b.input(1);
        let dims = if b.shape(y).rank() == 0 { Dims::all(0) } else { Dims::one(*dim) };
        Ok(Some(if *log {
            let p = b.unary(Unary::Exp, y)?;
            let sum = b.reduce(Reduce::Sum, g, dims)?;
            let part = b.binary(Binary::Mul, p, sum)?;
            b.binary(Binary::Sub, g, part)?
        } else {
            let product = b.binary(Binary::Mul, g, y)?;
            let dot = b.reduce(Reduce::Sum, product, dims)?;
            let centred = b.binary(Binary::Sub, g, dot)?;
            b.binary(Binary::Mul, y, centred)?
        }))
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let of = |(dim, log)| [Op::Softmax { dim, log }, Op::Backward(Backward::Softmax { dim, log })];
    [(0, false), (1, true), (2, false), (2, true)].into_iter().flat_map(of).collect()
}
