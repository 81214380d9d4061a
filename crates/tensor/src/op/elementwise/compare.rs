//! Comparisons, logic, and selection by a condition.

use smallvec::smallvec;

use super::binary::pairs;
use crate::op::Op;
use crate::op::bound::Bound;
use crate::op::check::{Check, Outs};
use crate::op::family::Family;
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Meta, Result};

/// Comparisons; NaN compares as in IEEE 754 (only `Ne` holds). Logic: what is not 0 is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// `a = b`.
    Eq,
    /// `a ≠ b`.
    Ne,
    /// `a < b`.
    Lt,
    /// `a ≤ b`.
    Le,
    /// `a > b`.
    Gt,
    /// `a ≥ b`.
    Ge,
    /// Both are nonzero.
    And,
    /// One or both are nonzero.
    Or,
    /// Exactly one is nonzero.
    Xor,
}

impl Compare {
    /// Every comparison.
    pub const ALL: [Compare; 9] = [
        Compare::Eq,
        Compare::Ne,
        Compare::Lt,
        Compare::Le,
        Compare::Gt,
        Compare::Ge,
        Compare::And,
        Compare::Or,
        Compare::Xor,
    ];

    /// The operator's name.
    pub const fn name(self) -> &'static str {
        match self {
            Compare::Eq => "eq",
            Compare::Ne => "ne",
            Compare::Lt => "lt",
            Compare::Le => "le",
            Compare::Gt => "gt",
            Compare::Ge => "ge",
            Compare::And => "logical_and",
            Compare::Or => "logical_or",
            Compare::Xor => "logical_xor",
        }
    }

    /// Whether only the order of the two values matters, and not whether they are zero.
    pub const fn orders(self) -> bool {
        match self {
            Compare::Eq | Compare::Ne | Compare::Lt | Compare::Le | Compare::Gt | Compare::Ge => true,
            Compare::And | Compare::Or | Compare::Xor => false,
        }
    }

    /// The comparison of two values.
    #[inline]
    pub fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            Compare::Ge => a >= b,
            Compare::And => a != 0.0 && b != 0.0,
            Compare::Or => a != 0.0 || b != 0.0,
            Compare::Xor => (a != 0.0) != (b != 0.0),
        }
    }
}

impl Family for Compare {
    fn name(&self) -> &'static str {
        (*self).name()
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2)?;
        Ok(smallvec![Meta { dtype: DType::Bool, layout: check.broadcast(0..2)? }])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        pairs(s)
    }

    fn moves(&self, _input: usize) -> bool {
        self.orders()
    }
}

/// [`Op::Where`].
#[derive(Clone, Copy, Debug)]
pub struct Where;

impl Family for Where {
    fn name(&self) -> &'static str {
        "where"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(3)?;
        check.dtype(0, &[DType::Bool])?;
        Ok(smallvec![check.moved(|i| self.moves(i), check.broadcast(0..3)?)?])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let mask = s.one(&Op::Compare(Compare::Gt), &[&s.x(&[5, 7], 3), &s.x(&[5, 7], 4)]);
        vec![vec![mask, s.x(&[5, 7], 1), s.x(&[7], 2)]]
    }

    fn may_overwrite(&self, operand: usize) -> bool {
        operand > 0
    }

    fn moves(&self, input: usize) -> bool {
        input > 0
    }
}
