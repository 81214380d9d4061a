//! Random values, dropout, and constants: operators that make values.

use smallvec::smallvec;

use super::Op;
use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::Family;
use crate::random::below;
use crate::samples::{Inputs, KEY, Sampler};
use crate::{Array, DType, Error, Key, Layout, Meta, Result, Shape};

/// [`Op::Dropout`].
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability of zero.
    pub p: f64,
    /// Random stream.
    pub key: Key,
}

impl Family for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(1)?;
        check.floats(0..1)?;
        if !(0.0..=1.0).contains(&self.p) {
            return check.argument(format!("p must lie in 0 to 1, got {}", self.p));
        }
        // Draws are keyed by memory position: row-major, so that the same element draws the same whatever the layout.
        Ok(smallvec![check.dense(*check.ins[0].shape())])
    }

    /// A product with the rounded 1/(1 − p).
    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(1.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.sizes()
    }

    fn may_overwrite(&self, _operand: usize) -> bool {
        true
    }
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
    /// Uniform among the integers low..high (i64).
    Integers {
        /// Smallest value.
        low: i64,
        /// Bound that is not reached.
        high: i64,
    },
    /// A permutation of 0..n (i64), for a one-dimensional shape.
    Permutation,
}

impl Distribution {
    /// An integer of low..high from two random words.
    pub fn integer(low: i64, high: i64, [a, b]: [u32; 2]) -> i64 {
        low.wrapping_add(below(a, b, high.wrapping_sub(low) as u64) as i64)
    }
}

/// [`Op::Random`].
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// Distribution.
    pub distribution: Distribution,
    /// Shape of the result.
    pub shape: Shape,
    /// Random stream.
    pub key: Key,
}

impl Family for Random {
    fn name(&self) -> &'static str {
        match self.distribution {
            Distribution::Uniform { .. } => "uniform",
            Distribution::Normal { .. } => "normal",
            Distribution::Integers { .. } => "randint",
            Distribution::Permutation => "permutation",
        }
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let finite = "finite and not below 0";
        match self.distribution {
            Distribution::Uniform { low, high } => {
                let range = high - low;
                check.domain(low <= high && range.is_finite(), "the range from low to high", finite, range)?;
            }
            Distribution::Normal { mean, std } => {
                check.domain(mean.is_finite(), "the mean", "finite", mean)?;
                let fits = std >= 0.0 && std.is_finite();
                check.domain(fits, "the standard deviation", "at least 0 and finite", std)?;
            }
            Distribution::Integers { low, high } => {
                check.count(0)?;
                if low >= high {
                    return check.argument(format!("the range {low}..{high} holds no integer"));
                }
                return Ok(smallvec![Meta { dtype: DType::I64, layout: Layout::contiguous(self.shape) }]);
            }
            Distribution::Permutation => {
                check.count(0)?;
                if self.shape.rank() != 1 {
                    return check.argument(format!("a permutation has one dimension, got shape {:?}", self.shape));
                }
                return Ok(smallvec![Meta { dtype: DType::I64, layout: Layout::contiguous(self.shape) }]);
            }
        }
        check.count(0)?;
        if !check.want.is_float() {
            return Err(Error::DType { op: check.op, expected: "a float dtype".into(), dtypes: vec![check.want] });
        }
        Ok(smallvec![check.dense(self.shape)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        match self.distribution {
            // Drawn in f64, where logarithm, root, cosine and product round before the mean is added.
            Distribution::Normal { .. } => Bound::Scale(1.0),
            Distribution::Uniform { .. } | Distribution::Integers { .. } | Distribution::Permutation => {
                Bound::Ulps(0.0)
            }
        }
    }

    fn samples(&self, _s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        let Random { distribution, shape, key } = *self;
        Some(Op::Random { distribution, shape: change(&shape), key })
    }
}

/// [`Op::Fill`].
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// The value.
    pub value: f64,
    /// Shape of the result.
    pub shape: Shape,
}

impl Family for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(0)?;
        Ok(smallvec![check.dense(self.shape)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, _s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        Some(Op::Fill { value: self.value, shape: change(&self.shape) })
    }
}

/// [`Op::Range`]. A tensor of one i64 is added to every element, so that a count goes on where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First value.
    pub start: i64,
    /// Number of values.
    pub length: usize,
}

impl Family for Range {
    fn name(&self) -> &'static str {
        "arange"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        if !check.ins.is_empty() {
            check.count(1)?;
            check.dtype(0, &[DType::I64])?;
            if check.ins[0].layout.numel() != 1 {
                return check.shape("one element");
            }
        }
        let layout = Layout::contiguous(Shape::from_slice(&[self.length]));
        Ok(smallvec![Meta { dtype: DType::I64, layout }])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![], vec![s.index(&[], 5)], vec![s.index(&[1, 1], 5)]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        Some(Op::Range { start: self.start, length: change(&Shape::from_slice(&[self.length]))[0] })
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let mut ops = vec![Op::Dropout { p: 0.3, key: KEY }];
    for distribution in [
        Distribution::Uniform { low: -1.0, high: 3.0 },
        Distribution::Normal { mean: 0.5, std: 2.0 },
        Distribution::Integers { low: -7, high: 1 << 40 },
        Distribution::Permutation,
    ] {
        ops.push(Op::Random { distribution, shape: Shape::from_slice(&[1031]), key: KEY });
    }
    ops.push(Op::Fill { value: 0.1, shape: Shape::from_slice(&[3, 5]) });
    ops.push(Op::Range { start: -3, length: 1031 });
    ops
}
