//! Running sums and products along a dimension.

use smallvec::smallvec;

use super::bound::{Bound, in_f64};
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::program::{Builder, Value};
use super::{Backward, Binary, Op, PadMode, Resample, View};
use crate::samples::{Inputs, Sampler};
use crate::{Array, Result, Shape};

/// Running reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scan {
    /// Sum.
    Sum,
    /// Product.
    Prod,
}

/// [`Op::Scan`].
#[derive(Clone, Copy, Debug)]
pub struct ScanOp {
    /// Which.
    pub kind: Scan,
    /// Dimension.
    pub dim: usize,
    /// From the end to the start.
    pub reverse: bool,
}

impl Family for ScanOp {
    fn name(&self) -> &'static str {
        match self.kind {
            Scan::Sum => "cumsum",
            Scan::Prod => "cumprod",
        }
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

    /// In f64, rounded once; of f64 itself every step rounds.
    fn bound(&self, ins: &[&Array]) -> Bound {
        in_f64(ins)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        [[3, 4, 5], [9, 5, 3], [3, 70, 7]].iter().flat_map(|size| s.vary(vec![s.x(size, 1)])).collect()
    }
}

/// [`Backward::CumProd`].
#[derive(Clone, Copy, Debug)]
pub struct CumProdBackward {
    /// Dimension.
    pub dim: usize,
}

impl Family for CumProdBackward {
    fn name(&self) -> &'static str {
        "cumprod_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2)?;
        check.same_shape(0, 1)?;
        Ok(smallvec![check.like(1)])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        in_f64(ins)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[3, 4, 5], 9), s.x(&[3, 4, 5], 1)]]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        Ok(Some(cumprod_backward(b, b.input(0), b.input(1), self.dim)?))
    }
}

/// `Π_{j<k} x_j · S_k` with `S_k = g_k + x_{k+1}·S_{k+1}`, by doubling the number of terms in each S: nothing is
/// divided by.
pub(super) fn cumprod_backward(b: &mut Builder, g: Value, x: Value, dim: usize) -> Result<Value> {
    let shape = b.shape(x);
    if shape.rank() == 0 || shape.numel() == 0 {
        return b.scalar(Binary::Mul, g, 1.0);
    }
    let mut sum = g;
    let mut factor = ahead(b, x, dim, 1, 0.0)?;
    let mut terms = 1;
    while terms < shape[dim] {
        let next = ahead(b, sum, dim, terms, 0.0)?;
        let part = b.binary(Binary::Mul, factor, next)?;
        sum = b.binary(Binary::Add, sum, part)?;
        let next = ahead(b, factor, dim, terms, 0.0)?;
        factor = b.binary(Binary::Mul, factor, next)?;
        terms *= 2;
    }
    let before = products_of_others(b, x, dim, false)?;
    b.binary(Binary::Mul, before, sum)
}

/// The product of all elements of a dimension before each, or after it.
pub(super) fn products_of_others(b: &mut Builder, x: Value, dim: usize, after: bool) -> Result<Value> {
    let others = if after { ahead(b, x, dim, 1, 1.0)? } else { moved(b, x, dim, [0, 1], 1.0)? };
    b.op(Op::Scan { kind: Scan::Prod, dim, reverse: after }, &[others])
}

/// `x[k + by]` in place k, `fill` beyond the end.
fn ahead(b: &mut Builder, x: Value, dim: usize, by: usize, fill: f64) -> Result<Value> {
    moved(b, x, dim, [by, 0], fill)
}

/// A dimension without its first `cut[0]` and last `cut[1]` elements, `fill` in place of as many at the other end.
fn moved(b: &mut Builder, x: Value, dim: usize, cut: [usize; 2], fill: f64) -> Result<Value> {
    let shape = b.shape(x);
    let part = View::Narrow { dim, start: cut[0], length: shape[dim] - cut[0] - cut[1] };
    let part = b.op(Op::View(part), &[x])?;
    let (mut before, mut after) = (Shape::new(&vec![0; shape.rank()])?, Shape::new(&vec![0; shape.rank()])?);
    (before[dim], after[dim]) = (cut[1], cut[0]);
    b.op(Op::Resample(Resample::Pad { before, after, mode: PadMode::Constant(fill) }), &[part])
}

pub(super) fn catalogue() -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for dim in [0, 1, 2] {
        for kind in [Scan::Sum, Scan::Prod] {
            ops.extend([false, true].map(|reverse| Op::Scan { kind, dim, reverse }));
        }
        ops.push(Op::Backward(Backward::CumProd { dim }));
    }
    ops
}
