//! Functions of two tensors, or of one and a number.

use smallvec::smallvec;

use super::step;
use crate::number::{Number, Wide2};
use crate::op::bound::Bound;
use crate::op::check::{Check, Outs};
use crate::op::family::{Family, Numerics};
use crate::op::program::{Builder, Value};
use crate::op::trace::{self, Trace};
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Result};

/// A binary row as a type.
pub trait BinaryRow: Copy + Send + Sync + 'static {
    /// The row as a value.
    const ROW: Binary;
    /// `f(a, b)`.
    fn f<N: Number>(a: N, b: N) -> N;
    /// `∂f/∂a`.
    fn da<N: Number>(a: N, b: N) -> N;
    /// `∂f/∂b`.
    fn db<N: Number>(a: N, b: N) -> N;
}

/// Code generic over the row, run by [`Binary::visit`].
pub trait BinaryVisitor {
    /// Result.
    type Output;
    /// Runs for row `R`.
    fn visit<R: BinaryRow>(self) -> Self::Output;
}

/// One row per binary operator: variant, name, method, numeric class, bound in ulp of f32, f, ∂f/∂a, ∂f/∂b. Functions
/// with a parameter (ELU's α) are rows of [`Op::Scalar`](crate::Op::Scalar).
macro_rules! binary {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $method:ident, $class:ident, $ulp:literal,
       |$a:ident, $b:ident| $f:expr, $da:expr, $db:expr;)*) => {
        /// An elementwise function of two tensors.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Binary { $($(#[$doc])* $variant,)* }

        impl Binary {
            /// Every row.
            pub const ALL: &'static [Binary] = &[$(Binary::$variant),*];
            /// The operator's name.
            pub const fn name(self) -> &'static str { match self { $(Binary::$variant => $name),* } }
            /// Its numeric class.
            pub const fn numerics(self) -> Numerics { match self { $(Binary::$variant => Numerics::$class),* } }
            /// Largest error of the f32 computation, in ulp of f32.
            pub const fn ulp(self) -> f64 { match self { $(Binary::$variant => $ulp),* } }
            /// Runs `visitor` with the row as a type.
            pub fn visit<V: BinaryVisitor>(self, visitor: V) -> V::Output {
                match self { $(Binary::$variant => visitor.visit::<binary_rows::$variant>()),* }
            }
        }

        $(#[allow(unused_variables)]
        impl BinaryRow for binary_rows::$variant {
            const ROW: Binary = Binary::$variant;
            #[inline(always)]
            fn f<N: Number>($a: N, $b: N) -> N { $f }
            #[inline(always)]
            fn da<N: Number>($a: N, $b: N) -> N { $da }
            #[inline(always)]
            fn db<N: Number>($a: N, $b: N) -> N { $db }
        })*

        /// Calls `$callback!` with `(method, Variant, "name")` of every binary row.
        #[macro_export]
        #[doc(hidden)]
        macro_rules! for_each_binary {
            ($callback:ident) => { $callback! { $($method, $variant, $name;)* } };
        }

        mod binary_rows { $(#[derive(Clone, Copy)] pub struct $variant;)* }
    };
}

binary! {
    /// `a + b`.
    Add, "add", add, Neutral, 0.5, |a, b| a + b, N::splat(1.0), N::splat(1.0);
    /// `a − b`.
    Sub, "sub", sub, Neutral, 0.5, |a, b| a - b, N::splat(1.0), N::splat(-1.0);
    /// `a · b`.
    Mul, "mul", mul, Neutral, 0.5, |a, b| a * b, b, a;
    /// `a / b`.
    Div, "div", div, Neutral, 0.5, |a, b| a / b, b.recip(), -(a / b) / b;
    /// The larger; NaN wins. Equal operands share the gradient.
    Maximum, "maximum", maximum, Neutral, 0.0, |a, b| a.max(b), preference(b, a), preference(a, b);
    /// The smaller; NaN wins. Equal operands share the gradient.
    Minimum, "minimum", minimum, Neutral, 0.0, |a, b| a.min(b), preference(a, b), preference(b, a);
    /// `max(a, b)` as a limit b on a: equal operands give a the gradient.
    ClampMin, "clamp_min", clamp_min, Neutral, 0.0, |a, b| a.max(b), step::<N>(b.le(a)), step::<N>(a.lt(b));
    /// `min(a, b)` as a limit b on a: equal operands give a the gradient.
    ClampMax, "clamp_max", clamp_max, Neutral, 0.0, |a, b| a.min(b), step::<N>(a.le(b)), step::<N>(b.lt(a));
    /// `aᵇ`.
    Pow, "pow", pow, F32, 0.51, |a, b| a.wide2(b, Wide2::Pow), pow_base(a, b), pow_exponent(a, b);
    /// The angle of the point (b, a), in −π..=π. The gradient at (0, 0) is 0.
    Atan2, "atan2", atan2, Promote, 0.51, |a, b| a.wide2(b, Wide2::Atan2), over_square(b, a, b), over_square(-a, a, b);
    /// Remainder of `a/b` with the sign of a; exact.
    Fmod, "fmod", fmod, Neutral, 0.0, |a, b| a.wide2(b, Wide2::Fmod), N::splat(1.0), -whole_quotient(a, b);
    /// `a > 0 ? a : b·a`: leaky ReLU with a learned slope b.
    Prelu, "prelu", prelu, Lower, 0.5, |a, b| leaky(a, b), N::select(N::splat(0.0).lt(a), N::splat(1.0), b),
        N::select(N::splat(0.0).lt(a), N::splat(0.0), a);
    /// `a > 0 ? a : b·a` with slope b.
    LeakyRelu, "leaky_relu", leaky_relu, Neutral, 0.5, |a, b| leaky(a, b),
        N::select(N::splat(0.0).lt(a), N::splat(1.0), b), N::select(N::splat(0.0).lt(a), N::splat(0.0), a);
    /// `a > 0 ? a : b·(eᵃ − 1)` (Clevert et al. 2015).
    Elu, "elu", elu, Neutral, 2.5, |a, b| N::select(N::splat(0.0).lt(a), a, b * a.exp_m1()),
        N::select(N::splat(0.0).lt(a), N::splat(1.0), b * left(a).exp()),
        N::select(N::splat(0.0).lt(a), N::splat(0.0), left(a).exp_m1());
    /// `a > 0 ? a : b·(e^(a/b) − 1)` with b > 0 (Barron 2017).
    Celu, "celu", celu, Neutral, 64.0, |a, b| celu(a, b),
        N::select(N::splat(0.0).lt(a), N::splat(1.0), (left(a) / b).exp()), celu_parameter(a, b);
    /// `ln(1 + e^(b·a))/b` with b > 0, and a itself where b·a > 20. Left of 0 the rounding of b·a, up to 104, is
    /// magnified by it; where the exponential may be subnormal, kernels compute in f64.
    Softplus, "softplus", softplus, F32, 64.0, |a, b| softplus(a, b),
        N::select(N::splat(20.0).lt(a * b), N::splat(1.0), (a * b).sigmoid()), softplus_parameter(a, b);
}

#[inline(always)]
fn leaky<N: Number>(a: N, b: N) -> N {
    N::select(N::splat(0.0).lt(a), a, b * a)
}

/// `b·aᵇ⁻¹`; 0 where b is 0, also at a = 0.
#[inline(always)]
fn pow_base<N: Number>(a: N, b: N) -> N {
    let zero = N::splat(0.0);
    N::select(b.eq(zero), zero, b * a.unless(b.eq(zero), 1.0).wide2(b - N::splat(1.0), Wide2::Pow))
}

/// `aᵇ·ln a`; 0 at a = 0 with b ≥ 0.
#[inline(always)]
fn pow_exponent<N: Number>(a: N, b: N) -> N {
    let zero = N::splat(0.0);
    // 1, whose logarithm is 0, where the limit is 0.
    let a = N::select(a.eq(zero), N::select(zero.le(b), N::splat(1.0), a), a);
    a.wide2(b, Wide2::Pow) * a.ln()
}

/// a where it is not right of 0, for the left branch of a function.
#[inline(always)]
fn left<N: Number>(a: N) -> N {
    a.unless(N::splat(0.0).lt(a), 0.0)
}

/// `y/(a² + b²)`; 0 at the origin.
#[inline(always)]
fn over_square<N: Number>(y: N, a: N, b: N) -> N {
    let (square, zero) = (a.mul_add(a, b * b), N::splat(0.0));
    N::select(square.eq(zero), zero, y / square.unless(square.eq(zero), 1.0))
}

/// The integer part of `a/b`. Without the remainder the quotient is an integer but for roundings; with it, it may round
/// to the next one.
#[inline(always)]
fn whole_quotient<N: Number>(a: N, b: N) -> N {
    let rest = a.wide2(b, Wide2::Fmod);
    N::select(rest.eq(rest), ((a - rest) / b).round_ties_even(), (a / b).trunc())
}

#[inline(always)]
fn celu<N: Number>(a: N, b: N) -> N {
    let t = a / b;
    // Of a tiny (perhaps subnormal) quotient b·(eᵗ − 1) is a.
    let left = N::select(t.abs().lt(N::splat(1e-30)), a, b * t.exp_m1());
    N::select(N::splat(0.0).lt(a), a, left)
}

/// `eᵗ − 1 − t·eᵗ` with t = a/b, whose terms cancel near 0. Of a parameter below 0 the exponential leaves the range,
/// and with it the terms; far left t itself may be infinite.
#[inline(always)]
fn celu_parameter<N: Number>(a: N, b: N) -> N {
    let (one, t) = (N::splat(1.0), left(a) / b);
    let (grows, near) = (one.lt(t), t.max(N::splat(-1e3)).unless(one.lt(t), 0.0));
    let far = t.unless(t.le(one), 2.0);
    let slope = N::select(grows, (one - far) * far.exp() - one, near.exp_m1() - near * near.exp());
    N::select(N::splat(0.0).lt(a), N::splat(0.0), slope)
}

#[inline(always)]
fn softplus<N: Number>(a: N, b: N) -> N {
    let t = a * b;
    N::select(N::splat(20.0).lt(t), a, t.exp().ln_1p() / b)
}

#[inline(always)]
fn softplus_parameter<N: Number>(a: N, b: N) -> N {
    let linear = N::splat(20.0).lt(a * b);
    // t·σ(t) − ln(1 + eᵗ) is the same for t and −t; of a negative one both terms have one sign.
    let t = -(a * b).unless(linear, 0.0).abs();
    N::select(linear, N::splat(0.0), (t * t.sigmoid() - t.exp().ln_1p()) / (b * b))
}

/// 1 where `low < high`, ½ where equal, 0 elsewhere.
#[inline(always)]
fn preference<N: Number>(low: N, high: N) -> N {
    N::select(low.lt(high), N::splat(1.0), N::select(low.eq(high), N::splat(0.5), N::splat(0.0)))
}

/// Shapes that broadcast, for functions of two tensors.
pub(super) fn pairs(s: &Sampler<'_>) -> Vec<Inputs> {
    let pairs: [[&[usize]; 2]; 5] =
        [[&[17], &[17]], [&[4, 1, 9], &[3, 1]], [&[0, 3], &[3]], [&[], &[]], [&[2, 3, 130], &[130]]];
    pairs.iter().flat_map(|[a, b]| s.vary(vec![s.x(a, 1), s.x(b, 2)])).collect()
}

impl Family for Binary {
    fn name(&self) -> &'static str {
        (*self).name()
    }

    fn numerics(&self) -> Numerics {
        (*self).numerics()
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2)?;
        check.floats(0..2)?;
        Ok(smallvec![check.float(check.broadcast(0..2)?)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(self.ulp())
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        pairs(s)
    }

    fn may_overwrite(&self, _operand: usize) -> bool {
        true
    }
}

/// [`Op::Scalar`](crate::Op::Scalar).
#[derive(Clone, Copy, Debug)]
pub struct Scalar {
    /// The function.
    pub op: Binary,
    /// The other operand, rounded to the computation's dtype.
    pub value: f64,
    /// Whether the scalar is the left operand.
    pub reversed: bool,
}

impl Family for Scalar {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn numerics(&self) -> Numerics {
        self.op.numerics()
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        if let Scalar { op: Binary::Celu, value, reversed: false } = self {
            check.domain(*value != 0.0 && !value.is_nan(), "alpha", "a number other than 0", *value)?;
        }
        check.count(1)?;
        check.floats(0..1)?;
        Ok(smallvec![check.like(0)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(self.op.ulp())
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.sizes()
    }

    fn may_overwrite(&self, _operand: usize) -> bool {
        true
    }
}

/// Of a function's slope and its product with the gradient.
fn slope_bound(op: Binary, ins: &[&Array]) -> Bound {
    let wide = ins.iter().any(|a| a.dtype() == DType::F64);
    match op {
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Maximum | Binary::Minimum => Bound::Ulps(2.5),
        Binary::ClampMin | Binary::ClampMax | Binary::Prelu | Binary::LeakyRelu => Bound::Ulps(1.0),
        // In f64, rounded once; of f64 itself every step rounds, and by a remainder's divisor so does its quotient,
        // to a whole number.
        Binary::Pow if wide => Bound::Ulps(2.0),
        Binary::Fmod if wide => Bound::Ulps(5.0),
        Binary::Pow | Binary::Fmod => Bound::Ulps(0.51),
        // By the parameter the terms cancel.
        Binary::Atan2 | Binary::Elu => Bound::Scale(16.0),
        // Of a parameter below 0 the quotient is up to 89, where its rounding is 2⁻¹⁸: 64 u of e to it.
        Binary::Celu => Bound::Scale(72.0),
        // Neither operand is below 2⁻⁴⁰, so that where the gradient is larger than both their product is above −28: the
        // exponential magnifies its rounding by that.
        Binary::Softplus => Bound::Scale(36.0),
    }
}

/// [`Backward::Binary`](crate::op::Backward::Binary).
#[derive(Clone, Copy, Debug)]
pub struct BinaryBackward {
    /// The function.
    pub op: Binary,
    /// For the right operand.
    pub rhs: bool,
}

impl Family for BinaryBackward {
    fn name(&self) -> &'static str {
        "binary_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(3)?;
        Ok(smallvec![check.float(check.broadcast(0..3)?)])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        slope_bound(self.op, ins)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[4, 3, 9], 9), s.x(&[4, 1, 9], 1), s.x(&[3, 1], 2)]]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let (g, x, y) = (b.input(0), Trace::Value(b.input(1)), Trace::Value(b.input(2)));
        let slope = trace::binary_derivative(b, self.op, self.rhs, x, y)?;
        Ok(Some(b.binary(Binary::Mul, g, slope)?))
    }

    fn may_overwrite(&self, _operand: usize) -> bool {
        true
    }
}

/// [`Backward::Scalar`](crate::op::Backward::Scalar).
#[derive(Clone, Copy, Debug)]
pub struct ScalarBackward(pub Scalar);

impl Family for ScalarBackward {
    fn name(&self) -> &'static str {
        "scalar_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2)?;
        check.same_shape(0, 1)?;
        Ok(smallvec![check.like(1)])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        slope_bound(self.0.op, ins)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[130], 9), s.x(&[130], 1)]]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let Scalar { op, value, reversed } = self.0;
        let (g, x, number) = (b.input(0), Trace::Value(b.input(1)), Trace::Number(value));
        let (x, y) = if reversed { (number, x) } else { (x, number) };
        let slope = trace::binary_derivative(b, op, reversed, x, y)?;
        Ok(Some(b.binary(Binary::Mul, g, slope)?))
    }

    fn may_overwrite(&self, _operand: usize) -> bool {
        true
    }
}
