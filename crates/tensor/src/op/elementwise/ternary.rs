//! Elementwise functions of three tensors and a number: one row each.

use smallvec::smallvec;

use crate::number::Number;
use crate::op::bound::Bound;
use crate::op::check::{Check, Outs};
use crate::op::family::{Family, Numerics};
use crate::op::program::{Builder, Value};
use crate::op::{Binary, trace};
use crate::samples::{Inputs, Sampler};
use crate::{Array, Result};

/// A ternary row as a type.
pub trait TernaryRow: Copy + Send + Sync + 'static {
    /// `f(x, a, b)` with the number v.
    fn f<N: Number>(x: N, a: N, b: N, v: N) -> N;
    /// The derivative by operand 0, 1 or 2.
    fn d<N: Number>(operand: usize, x: N, a: N, b: N, v: N) -> N;
}

/// Code generic over the row, run by [`Ternary::visit`].
pub trait TernaryVisitor {
    /// Result.
    type Output;
    /// Runs for row `R`.
    fn visit<R: TernaryRow>(self) -> Self::Output;
}

/// One row per operator: variant, name, numeric class, bound in ulp of f32 relative to |x| + |f − x|, f, and the
/// derivatives.
macro_rules! ternary {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $class:ident,
       |$x:ident, $a:ident, $b:ident, $v:ident| $f:expr, [$dx:expr, $da:expr, $db:expr];)*) => {
        /// An elementwise function of three tensors and a number v.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Ternary { $($(#[$doc])* $variant,)* }

        impl Ternary {
            /// Every row.
            pub const ALL: &'static [Ternary] = &[$(Ternary::$variant),*];
            /// The operator's name.
            pub const fn name(self) -> &'static str { match self { $(Ternary::$variant => $name),* } }
            /// Its numeric class.
            pub const fn numerics(self) -> Numerics { match self { $(Ternary::$variant => Numerics::$class),* } }
            /// Runs `visitor` with the row as a type.
            pub fn visit<V: TernaryVisitor>(self, visitor: V) -> V::Output {
                match self { $(Ternary::$variant => visitor.visit::<rows::$variant>()),* }
            }
        }

        $(#[allow(unused_variables)]
        impl TernaryRow for rows::$variant {
            #[inline(always)]
            fn f<N: Number>($x: N, $a: N, $b: N, $v: N) -> N { $f }
            #[inline(always)]
            fn d<N: Number>(operand: usize, $x: N, $a: N, $b: N, $v: N) -> N {
                match operand { 0 => $dx, 1 => $da, _ => $db }
            }
        })*

        mod rows { $(#[derive(Clone, Copy)] pub struct $variant;)* }
    };
}

ternary! {
    /// `x + v·a·b`.
    Addcmul, "addcmul", Promote, |x, a, b, v| x + v * a * b, [N::splat(1.0), v * b, v * a];
    /// `x + v·a/b`.
    Addcdiv, "addcdiv", Promote, |x, a, b, v| x + v * a / b, [N::splat(1.0), v / b, -(v * a / b / b)];
    /// `x + b·(a − x)`, from the nearer end, so that b = 1 gives a.
    Lerp, "lerp", Neutral, |x, a, b, v| lerp(x, a, b), [N::splat(1.0) - b, b, a - x];
}

#[inline(always)]
fn lerp<N: Number>(x: N, a: N, b: N) -> N {
    let d = a - x;
    N::select(b.abs().lt(N::splat(0.5)), x + b * d, a - d * (N::splat(1.0) - b))
}

/// [`Op::Ternary`](crate::Op::Ternary).
#[derive(Clone, Copy, Debug)]
pub struct TernaryOp {
    /// The function.
    pub op: Ternary,
    /// Its number.
    pub value: f64,
}

impl Family for TernaryOp {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn numerics(&self) -> Numerics {
        self.op.numerics()
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(3)?;
        check.floats(0..3)?;
        Ok(smallvec![check.float(check.broadcast(0..3)?)])
    }

    /// What is added to x, or taken from a, has two roundings, or three. It is at most |f| and |x|, or |a|, together:
    /// twice the largest of them.
    fn bound(&self, _ins: &[&Array]) -> Bound {
        match self.op {
            Ternary::Addcmul | Ternary::Addcdiv => Bound::Scale(4.0),
            Ternary::Lerp => Bound::Scale(6.0),
        }
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let same = [1, 2, 3].map(|stream| s.x(&[1031], stream));
        let broadcast = vec![s.x(&[4, 1, 9], 1), s.x(&[3, 9], 2), s.x(&[1], 3)];
        [broadcast, same.into()].into_iter().flat_map(|ins| s.vary(ins)).collect()
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let ins = [0, 1, 2].map(|i| b.input(i));
        Ok(Some(trace::ternary(b, self.op, self.value, None, ins)?))
    }

    fn may_overwrite(&self, _operand: usize) -> bool {
        true
    }
}

/// [`Backward::Ternary`](crate::op::Backward::Ternary).
#[derive(Clone, Copy, Debug)]
pub struct TernaryBackward {
    /// The function.
    pub op: Ternary,
    /// Its number.
    pub value: f64,
    /// By which operand: 0, 1 or 2.
    pub operand: usize,
}

impl Family for TernaryBackward {
    fn name(&self) -> &'static str {
        "ternary_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(4)?;
        Ok(smallvec![check.float(check.broadcast(0..4)?)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Scale(8.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[4, 3, 9], 9), s.x(&[4, 1, 9], 1), s.x(&[3, 9], 2), s.x(&[1], 3)]]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let (g, ins) = (b.input(0), [1, 2, 3].map(|i| b.input(i)));
        let slope = trace::ternary(b, self.op, self.value, Some(self.operand), ins)?;
        Ok(Some(b.binary(Binary::Mul, slope, g)?))
    }

    fn may_overwrite(&self, _operand: usize) -> bool {
        true
    }
}
