//! Reductions over dimensions, and the index of the largest element.

use smallvec::smallvec;

use super::bound::{Bound, in_f64, numel};
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::program::{Builder, Value};
use super::scan::products_of_others;
use super::{Backward, Binary, Compare, Op, Unary, View};
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Dims, Error, Layout, Meta, Result, Shape};

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
    /// `(Σ|x|ᵖ)^(1/p)` in f64: squares neither overflow nor underflow. p = ∞ and −∞ are the largest and smallest
    /// magnitude, 0 the number of elements that are not 0.
    Norm {
        /// The exponent.
        p: f64,
    },
}

/// [`Op::Reduce`].
#[derive(Clone, Copy, Debug)]
pub struct ReduceOp {
    /// Which.
    pub kind: Reduce,
    /// Dimensions to reduce.
    pub dims: Dims,
    /// Whether reduced dimensions stay with extent 1.
    pub keepdim: bool,
}

impl Family for ReduceOp {
    fn name(&self) -> &'static str {
        match self.kind {
            Reduce::Sum => "sum",
            Reduce::Mean => "mean",
            Reduce::Max => "amax",
            Reduce::Min => "amin",
            Reduce::Var { .. } => "var",
            Reduce::Std { .. } => "std",
            Reduce::Prod => "prod",
            Reduce::LogSumExp => "logsumexp",
            Reduce::Norm { .. } => "norm",
        }
    }

    fn numerics(&self) -> Numerics {
        match self.kind {
            Reduce::Sum | Reduce::Prod => Numerics::F32Out,
            Reduce::LogSumExp | Reduce::Norm { .. } => Numerics::F32,
            Reduce::Mean | Reduce::Max | Reduce::Min | Reduce::Var { .. } | Reduce::Std { .. } => Numerics::Neutral,
        }
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (ReduceOp { kind, dims, keepdim }, ins) = (self, check.ins);
        check.count(1)?;
        check.floats(0..1)?;
        let rank = ins[0].shape().rank();
        if let Some(dim) = dims.iter().find(|&d| d >= rank) {
            return Err(Error::DimOutOfRange { op: check.op, dim: dim as isize, rank });
        }
        let n = dims.count(ins[0].shape());
        let extreme = match kind {
            Reduce::Max | Reduce::Min => true,
            Reduce::Norm { p } => *p < 0.0 || *p == f64::INFINITY,
            Reduce::Sum | Reduce::Mean | Reduce::Prod | Reduce::LogSumExp => false,
            Reduce::Var { .. } | Reduce::Std { .. } => false,
        };
        if n == 0 && extreme {
            return check.argument(
                "the largest of no elements does not exist; reduce over a dimension that is not empty".into(),
            );
        }
        Ok(smallvec![check.dense(dims.reduce(ins[0].shape(), *keepdim))])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        match self.kind {
            // 1,024 elements in 16 interleaved f32 sums of 64, then f64; columns add up to 1,024 rows in f32.
            Reduce::Sum | Reduce::Mean => Bound::Gamma(1024.0_f64.min(numel(ins, 0)) + 1.0),
            Reduce::Max | Reduce::Min => Bound::Ulps(0.0),
            // A sum of positive terms, in 16 interleaved ones of at most 64; where the mean's rounding would matter, in
            // f64.
            Reduce::Var { .. } | Reduce::Std { .. } => Bound::Ulps(20.0),
            // In f64, rounded once; of f64 itself every step rounds.
            Reduce::Prod | Reduce::Norm { .. } => in_f64(ins),
            Reduce::LogSumExp => Bound::Scale(8.0),
        }
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.volumes()
    }
}

/// [`Backward::Reduce`].
#[derive(Clone, Copy, Debug)]
pub struct ReduceBackward {
    /// Which.
    pub kind: Reduce,
    /// Reduced dimensions.
    pub dims: Dims,
}

impl Family for ReduceBackward {
    fn name(&self) -> &'static str {
        "reduce_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (dims, ins) = (self.dims, check.ins);
        check.count(3)?;
        if *ins[0].shape() != dims.reduce(ins[2].shape(), true) || ins[0].shape() != ins[1].shape() {
            return check.shape("gradient and result with kept dimensions, and the input");
        }
        Ok(smallvec![check.like(2)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        match self.kind {
            Reduce::Var { .. } | Reduce::Std { .. } => Bound::Terms(4.0),
            Reduce::Sum
            | Reduce::Mean
            | Reduce::Max
            | Reduce::Min
            | Reduce::Prod
            | Reduce::LogSumExp
            | Reduce::Norm { .. } => Bound::Scale(16.0),
        }
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let ReduceBackward { kind, dims } = self;
        let input = s.x(&[3, 4, 5], 1);
        let y = s.run(Op::Reduce { kind: *kind, dims: *dims, keepdim: true }, &[&input]).remove(0);
        vec![vec![s.gradient(&y), y, input]]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let (g, x, dims) = (b.input(0), b.input(2), &self.dims);
        Ok(Some(match &self.kind {
            Reduce::Sum | Reduce::Mean => return Ok(None),
            Reduce::Max | Reduce::Min => {
                // Equal elements share the gradient.
                let (y, x) = (b.input(1), b.input(2));
                let hit = b.compare(Compare::Eq, x, y)?;
                let (one, zero) = (b.fill(1.0, Shape::SCALAR)?, b.fill(0.0, Shape::SCALAR)?);
                let ones = b.select(hit, one, zero)?;
                let n = b.reduce(Reduce::Sum, ones, *dims)?;
                let share = b.binary(Binary::Div, g, n)?;
                b.binary(Binary::Mul, ones, share)?
            }
            Reduce::Var { correction } => {
                let x = b.input(2);
                let mean = b.reduce(Reduce::Mean, x, *dims)?;
                let centred = b.binary(Binary::Sub, x, mean)?;
                let n = dims.count(&b.shape(x)) as f64;
                let slope = b.scalar(Binary::Mul, centred, 2.0 / (n - correction))?;
                b.binary(Binary::Mul, slope, g)?
            }
            Reduce::Std { correction } => {
                let x = b.input(2);
                let mean = b.reduce(Reduce::Mean, x, *dims)?;
                let std = b.reduce(Reduce::Std { correction: *correction }, x, *dims)?;
                let centred = b.binary(Binary::Sub, x, mean)?;
                let n = dims.count(&b.shape(x)) as f64;
                let slope = b.scalar(Binary::Mul, centred, 1.0 / (n - correction))?;
                let up = b.binary(Binary::Div, g, std)?;
                // Of equal elements 0.
                let zero = b.fill(0.0, Shape::SCALAR)?;
                let equal = b.compare(Compare::Eq, std, zero)?;
                let up = b.select(equal, zero, up)?;
                b.binary(Binary::Mul, slope, up)?
            }
            Reduce::LogSumExp => {
                let x = b.input(2);
                let y = b.reduce(Reduce::LogSumExp, x, *dims)?;
                let shifted = b.binary(Binary::Sub, x, y)?;
                let p = b.unary(Unary::Exp, shifted)?;
                b.binary(Binary::Mul, p, g)?
            }
            Reduce::Prod => prod_backward(b, g, x, *dims)?,
            Reduce::Norm { p } => {
                let x = b.input(2);
                let (sign, magnitude) = (b.unary(Unary::Sign, x)?, b.unary(Unary::Abs, x)?);
                if *p == 0.0 {
                    let zero = b.scalar(Binary::Mul, sign, 0.0)?;
                    b.binary(Binary::Mul, zero, g)?
                } else if *p == 1.0 {
                    b.binary(Binary::Mul, sign, g)?
                } else if p.is_infinite() {
                    let y = b.reduce(Reduce::Norm { p: *p }, x, *dims)?;
                    let hit = b.compare(Compare::Eq, magnitude, y)?;
                    let zero = b.fill(0.0, Shape::SCALAR)?;
                    let one = b.fill(1.0, Shape::SCALAR)?;
                    let ones = b.select(hit, one, zero)?;
                    let n = b.reduce(Reduce::Sum, ones, *dims)?;
                    let share = b.binary(Binary::Div, g, n)?;
                    let signed = b.select(hit, sign, zero)?;
                    b.binary(Binary::Mul, signed, share)?
                } else {
                    norm_backward(b, g, x, *p, *dims)?
                }
            }
        }))
    }
}

/// `g·sign(x)·(|x|/‖x‖)ᵖ⁻¹`, 0 where all elements are.
pub(super) fn norm_backward(b: &mut Builder, g: Value, x: Value, p: f64, dims: Dims) -> Result<Value> {
    let (zero, one) = (b.fill(0.0, Shape::SCALAR)?, b.fill(1.0, Shape::SCALAR)?);
    let y = b.reduce(Reduce::Norm { p }, x, dims)?;
    let nothing = b.compare(Compare::Eq, y, zero)?;
    // In place of 0/0: its derivative is NaN also where it is not selected.
    let y = b.select(nothing, one, y)?;
    let slope = if p == 2.0 {
        b.binary(Binary::Div, x, y)?
    } else {
        // The derivative of a power below 1 is infinite at 0.
        let at_zero = b.compare(Compare::Eq, x, zero)?;
        let magnitude = b.unary(Unary::Abs, x)?;
        let magnitude = b.select(at_zero, one, magnitude)?;
        let share = b.binary(Binary::Div, magnitude, y)?;
        let power = b.scalar(Binary::Pow, share, p - 1.0)?;
        let sign = b.unary(Unary::Sign, x)?;
        b.binary(Binary::Mul, sign, power)?
    };
    let slope = b.select(nothing, zero, slope)?;
    b.binary(Binary::Mul, slope, g)
}

/// g times the product of all other elements: of those before and those after, so that nothing is divided by.
pub(super) fn prod_backward(b: &mut Builder, g: Value, x: Value, dims: Dims) -> Result<Value> {
    let shape = b.shape(x);
    let (rank, n) = (shape.rank(), dims.count(&shape));
    if rank == 0 {
        return b.scalar(Binary::Mul, g, 1.0);
    }
    if shape.numel() == 0 {
        return b.binary(Binary::Mul, x, g);
    }
    // The dimensions of the product last, as one.
    let axes: Vec<usize> =
        (0..rank).filter(|&d| !dims.contains(d)).chain((0..rank).filter(|&d| dims.contains(d))).collect();
    let turned = b.op(Op::View(View::Permute(Shape::from_slice(&axes))), &[x])?;
    let kept = b.shape(turned);
    let rows = b.reshape(turned, Shape::new(&[shape.numel() / n, n])?)?;
    let before = products_of_others(b, rows, 1, false)?;
    let after = products_of_others(b, rows, 1, true)?;
    let others = b.binary(Binary::Mul, before, after)?;
    let others = b.reshape(others, kept)?;
    let mut back = Shape::from_slice(&axes);
    axes.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
    let others = b.op(Op::View(View::Permute(back)), &[others])?;
    b.binary(Binary::Mul, others, g)
}

/// [`Op::ArgMax`].
#[derive(Clone, Copy, Debug)]
pub struct ArgMax {
    /// Dimension.
    pub dim: usize,
    /// Whether the dimension stays with extent 1.
    pub keepdim: bool,
}

impl Family for ArgMax {
    fn name(&self) -> &'static str {
        "argmax"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (ArgMax { dim, keepdim }, ins) = (self, check.ins);
        check.count(1)?;
        let dims = if ins[0].shape().rank() == 0 { Dims::all(0) } else { Dims::one(check.dim(0, *dim)?) };
        if dims.count(ins[0].shape()) == 0 {
            return check
                .argument("the largest of no elements does not exist; use a dimension that is not empty".into());
        }
        Ok(smallvec![Meta { dtype: DType::I64, layout: Layout::contiguous(dims.reduce(ins[0].shape(), *keepdim)) }])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.volumes()
    }

    fn moves(&self, _input: usize) -> bool {
        true
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for dims in [Dims::all(3), Dims::one(0), Dims::one(1), Dims::one(2), Dims::one(0).with(2), Dims::one(0).with(1)] {
        let norms = [0.0, 1.0, 2.0, 3.5, f64::INFINITY, f64::NEG_INFINITY].map(|p| Reduce::Norm { p });
        let plain = [Reduce::Sum, Reduce::Mean, Reduce::Max, Reduce::Min, Reduce::Prod, Reduce::LogSumExp];
        let spread = [Reduce::Var { correction: 1.0 }, Reduce::Std { correction: 1.0 }];
        for kind in plain.into_iter().chain(spread).chain(norms) {
            ops.push(Op::Reduce { kind, dims, keepdim: dims.contains(2) });
            ops.push(Op::Backward(Backward::Reduce { kind, dims }));
        }
    }
    ops.extend([0, 1, 2].map(|dim| Op::ArgMax { dim, keepdim: dim == 1 }));
    ops
}
