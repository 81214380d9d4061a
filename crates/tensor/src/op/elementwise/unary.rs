//! Functions of one tensor.

use std::f64::consts::{FRAC_2_SQRT_PI, LN_2, LN_10};

use smallvec::smallvec;

use super::step;
use crate::number::{Number, Wide, mish_factor, times_factor};
use crate::op::bound::Bound;
use crate::op::check::{Check, Outs};
use crate::op::family::{Family, Numerics};
use crate::op::program::{Builder, Value};
use crate::op::{Binary, Op, trace};
use crate::samples::{Inputs, SIZES, Sampler};
use crate::{Array, Result};

/// Which value the derivative is written in, and so which one is kept for the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The input x.
    Input,
    /// The output y, which the next operator usually keeps anyway.
    Output,
    /// Neither: the derivative is constant.
    Nothing,
}

/// A unary row as a type, for kernels generic over it.
pub trait UnaryRow: Copy + Send + Sync + 'static {
    /// The row.
    const ROW: Unary;
    /// `f(x)`.
    fn f<N: Number>(x: N) -> N;
    /// The derivative, as a function of the saved value.
    fn df<N: Number>(saved: N) -> N;
}

/// Code generic over the row, run by [`Unary::visit`].
pub trait UnaryVisitor {
    /// Result.
    type Output;
    /// Runs for row `R`.
    fn visit<R: UnaryRow>(self) -> Self::Output;
}

/// One row per unary operator:
///
/// ```text
/// /// `eˣ`.
/// Exp, "exp", exp, F32, Output, 2.0, |x| x.exp(), |y| y;
/// //   name   method class saved ulp f         f′(saved)
/// ```
/// becomes the variant `Unary::Exp`, a type with [`UnaryRow`], and (through `for_each_unary!`) the method `exp` of
/// `Tensor` and `Var`. The bound is in ulp of f32, before the one rounding to the storage dtype.
macro_rules! unary {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $method:ident, $class:ident, $saved:ident, $ulp:literal,
       |$x:ident| $f:expr, |$s:ident| $df:expr;)*) => {
        /// An elementwise function of one tensor.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Unary { $($(#[$doc])* $variant,)* }

        impl Unary {
            /// Every row.
            pub const ALL: &'static [Unary] = &[$(Unary::$variant),*];
            /// The operator's name.
            pub const fn name(self) -> &'static str { match self { $(Unary::$variant => $name),* } }
            /// Its numeric class.
            pub const fn numerics(self) -> Numerics { match self { $(Unary::$variant => Numerics::$class),* } }
            /// What the derivative is written in.
            pub const fn saved(self) -> Saved { match self { $(Unary::$variant => Saved::$saved),* } }
            /// Largest error of the f32 computation, in ulp of f32.
            pub const fn ulp(self) -> f64 { match self { $(Unary::$variant => $ulp),* } }
            /// Runs `visitor` with the row as a type.
            pub fn visit<V: UnaryVisitor>(self, visitor: V) -> V::Output {
                match self { $(Unary::$variant => visitor.visit::<rows::$variant>()),* }
            }
        }

        $(impl UnaryRow for rows::$variant {
            const ROW: Unary = Unary::$variant;
            #[inline(always)]
            fn f<N: Number>($x: N) -> N { $f }
            #[inline(always)]
            fn df<N: Number>($s: N) -> N { $df }
        })*

        /// Calls `$callback!` with `(method, Variant, "documentation")` of every unary row.
        #[macro_export]
        #[doc(hidden)]
        macro_rules! for_each_unary {
            ($callback:ident) => { $callback! { $($method, $variant, $name;)* } };
        }

        mod rows {
            $(#[derive(Clone, Copy)] pub struct $variant;)*
        }
    };
}

unary! {
    /// `−x`.
    Neg, "neg", neg, Neutral, Nothing, 0.0, |x| -x, |_s| N::splat(-1.0);
    /// `|x|`. The gradient at 0 is 0.
    Abs, "abs", abs, Neutral, Input, 0.0, |x| x.abs(), |x| x.sign();
    /// 1, 0 or −1; zeros keep their sign.
    Sign, "sign", sign, Neutral, Nothing, 0.0, |x| x.sign(), |_s| N::splat(0.0);
    /// Largest integer not above x.
    Floor, "floor", floor, Neutral, Nothing, 0.0, |x| x.floor(), |_s| N::splat(0.0);
    /// Smallest integer not below x.
    Ceil, "ceil", ceil, Neutral, Nothing, 0.0, |x| x.ceil(), |_s| N::splat(0.0);
    /// Nearest integer, ties to even.
    Round, "round", round, Neutral, Nothing, 0.0, |x| x.round_ties_even(), |_s| N::splat(0.0);
    /// The integer part.
    Trunc, "trunc", trunc, Neutral, Nothing, 0.0, |x| x.trunc(), |_s| N::splat(0.0);
    /// `x²`.
    Square, "square", square, Neutral, Input, 0.5, |x| x * x, |x| x + x;
    /// `√x`.
    Sqrt, "sqrt", sqrt, Neutral, Output, 0.5, |x| x.sqrt(), |y| N::splat(0.5) / y;
    /// `1/√x`.
    Rsqrt, "rsqrt", rsqrt, F32, Output, 1.5, |x| x.rsqrt(), |y| N::splat(-0.5) * (y * y * y);
    /// `1/x`.
    Reciprocal, "reciprocal", reciprocal, F32, Output, 0.5, |x| x.recip(), |y| -(y * y);
    /// `eˣ`.
    Exp, "exp", exp, F32, Output, 1.5, |x| x.exp(), |y| y;
    /// `2ˣ`.
    Exp2, "exp2", exp2, Neutral, Output, 0.51, |x| x.wide(Wide::Exp2), |y| y * N::splat(LN_2);
    /// `eˣ − 1`.
    Expm1, "expm1", expm1, F32, Output, 2.0, |x| x.exp_m1(), |y| y + N::splat(1.0);
    /// `ln x`.
    Log, "log", log, F32, Input, 1.5, |x| x.ln(), |x| x.recip();
    /// `log₂ x`.
    Log2, "log2", log2, F32, Input, 0.51, |x| x.wide(Wide::Log2), |x| (x * N::splat(LN_2)).recip();
    /// `log₁₀ x`.
    Log10, "log10", log10, F32, Input, 0.51, |x| x.wide(Wide::Log10), |x| (x * N::splat(LN_10)).recip();
    /// `ln(1 + x)`.
    Log1p, "log1p", log1p, F32, Input, 2.0, |x| x.ln_1p(), |x| (N::splat(1.0) + x).recip();
    /// `sin x`, for arguments of any size.
    Sin, "sin", sin, Neutral, Input, 0.51, |x| x.wide(Wide::Sin), |x| x.wide(Wide::Cos);
    /// `cos x`, for arguments of any size.
    Cos, "cos", cos, Neutral, Input, 0.51, |x| x.wide(Wide::Cos), |x| -x.wide(Wide::Sin);
    /// `tan x`, for arguments of any size.
    Tan, "tan", tan, F32, Output, 0.51, |x| x.wide(Wide::Tan), |y| y.mul_add(y, N::splat(1.0));
    /// `arcsin x`.
    Asin, "asin", asin, F32, Input, 0.51, |x| x.wide(Wide::Asin), |x| one_minus_square(x).rsqrt();
    /// `arccos x`.
    Acos, "acos", acos, F32, Input, 0.51, |x| x.wide(Wide::Acos), |x| -one_minus_square(x).rsqrt();
    /// `arctan x`.
    Atan, "atan", atan, Neutral, Input, 0.51, |x| x.wide(Wide::Atan), |x| x.mul_add(x, N::splat(1.0)).recip();
    /// `sinh x`.
    Sinh, "sinh", sinh, F32, Input, 0.51, |x| x.wide(Wide::Sinh), |x| x.wide(Wide::Cosh);
    /// `cosh x`.
    Cosh, "cosh", cosh, F32, Input, 0.51, |x| x.wide(Wide::Cosh), |x| x.wide(Wide::Sinh);
    /// `arsinh x`.
    Asinh, "asinh", asinh, Neutral, Input, 0.51, |x| x.wide(Wide::Asinh), |x| x.mul_add(x, N::splat(1.0)).rsqrt();
    /// `arcosh x`.
    Acosh, "acosh", acosh, Neutral, Input, 0.51, |x| x.wide(Wide::Acosh),
        |x| ((x - N::splat(1.0)) * (x + N::splat(1.0))).rsqrt();
    /// `artanh x`.
    Atanh, "atanh", atanh, Neutral, Input, 0.51, |x| x.wide(Wide::Atanh), |x| one_minus_square(x).recip();
    /// `tanh x`.
    Tanh, "tanh", tanh, Neutral, Output, 2.0, |x| x.tanh(), |y| one_minus_square(y);
    /// Error function.
    Erf, "erf", erf, Neutral, Input, 1.5, |x| x.erf(), |x| (-(x * x)).exp() * N::splat(FRAC_2_SQRT_PI);
    /// `1 − erf(x)`.
    Erfc, "erfc", erfc, Neutral, Input, 4.0, |x| x.erfc(), |x| (-(x * x)).exp() * N::splat(-FRAC_2_SQRT_PI);
    /// Inverse of the error function.
    Erfinv, "erfinv", erfinv, F32, Output, 0.51, |x| x.wide(Wide::Erfinv),
        |y| (y * y).exp() * N::splat(1.0 / FRAC_2_SQRT_PI);
    /// `1/(1 + e⁻ˣ)`.
    Sigmoid, "sigmoid", sigmoid, Neutral, Output, 2.5, |x| x.sigmoid(), |y| y * (N::splat(1.0) - y);
    /// `ln(1/(1 + e⁻ˣ))`.
    LogSigmoid, "logsigmoid", logsigmoid, Neutral, Input, 3.5, |x| log_sigmoid(x), |x| (-x).sigmoid();
    /// `max(x, 0)`; NaN stays. The gradient at 0 is 0.
    Relu, "relu", relu, Neutral, Output, 0.0, |x| x.max(N::splat(0.0)), |y| step::<N>(N::splat(0.0).lt(y));
    /// `min(max(x, 0), 6)`. The gradient at 0 and 6 is 0.
    Relu6, "relu6", relu6, Neutral, Output, 0.0, |x| x.max(N::splat(0.0)).min(N::splat(6.0)),
        |y| step::<N>(N::splat(0.0).lt(y)) * step::<N>(y.lt(N::splat(6.0)));
    /// `x·Φ(x)` with the error function.
    Gelu, "gelu", gelu, Neutral, Input, 5.0, |x| x.gelu(), |x| x.gelu_slope();
    /// GELU by the tanh approximation (Hendrycks and Gimpel 2016).
    GeluTanh, "gelu_tanh", gelu_tanh, Neutral, Input, 5.0, |x| x.gelu_tanh(), |x| gelu_tanh_derivative(x);
    /// `x/(1 + e⁻ˣ)`.
    Silu, "silu", silu, Neutral, Input, 3.5, |x| x.silu(), |x| silu_derivative(x);
    /// `x·tanh(ln(1 + eˣ))` (Misra 2019).
    Mish, "mish", mish, Neutral, Input, 6.0, |x| x.mish(), |x| mish_derivative(x);
    /// `λ·(x > 0 ? x : α·(eˣ − 1))` (Klambauer et al. 2017).
    Selu, "selu", selu, Neutral, Output, 3.0, |x| selu(x),
        |y| N::select(N::splat(0.0).lt(y), N::splat(SELU_SCALE), y + N::splat(SELU_SCALE * SELU_ALPHA));
    /// `min(max(x + 3, 0), 6)/6`. The gradient at ±3 is 0.
    Hardsigmoid, "hardsigmoid", hardsigmoid, Neutral, Input, 1.5, |x| gate(x) / N::splat(6.0),
        |x| step::<N>(x.abs().lt(N::splat(3.0))) / N::splat(6.0);
    /// `x·min(max(x + 3, 0), 6)/6`.
    Hardswish, "hardswish", hardswish, Neutral, Input, 2.5, |x| times_factor(x, gate(x) / N::splat(6.0)),
        |x| hardswish_derivative(x);
    /// `x/(1 + |x|)`.
    Softsign, "softsign", softsign, Neutral, Input, 1.5, |x| x / (N::splat(1.0) + x.abs()),
        |x| square(N::splat(1.0) + x.abs()).recip();
}

const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

#[inline(always)]
fn square<N: Number>(x: N) -> N {
    x * x
}

/// `1 − x²` as a product, which does not cancel near ±1.
#[inline(always)]
fn one_minus_square<N: Number>(x: N) -> N {
    (N::splat(1.0) - x) * (N::splat(1.0) + x)
}

/// A derivative of an x·factor(x) function, where beyond ±`far` it equals the factor (0 or 1) and the sum would be NaN.
#[inline(always)]
fn settle<N: Number>(x: N, far: f64, near: N, factor: N) -> N {
    N::select(x.abs().lt(N::splat(far)), near, N::select(x.eq(x), factor, x))
}

#[inline(always)]
fn gelu_tanh_derivative<N: Number>(x: N) -> N {
    let (s, rest) = x.tanh_cdfs();
    let near = x.unless(N::splat(40.0).le(x.abs()), 0.0);
    let slope =
        N::splat(2.0 * 0.797_884_560_802_865_4) * (near * near).mul_add(N::splat(3.0 * 0.044715), N::splat(1.0));
    settle(x, 40.0, s + near * s * rest * slope, s)
}

/// Where a function is computed that is a multiple of eˣ far left, and by what the result is multiplied. Left of −80
/// that is 32 further right, a sum without rounding: results below f32's normal range are so rounded once.
#[inline(always)]
fn in_range<N: Number>(x: N) -> (N, N) {
    const E_TO_MINUS_32: f64 = 1.266_416_554_909_417_6e-14;
    let far = x.lt(N::splat(-80.0));
    (N::select(far, x + N::splat(32.0), x), N::select(far, N::splat(E_TO_MINUS_32), N::splat(1.0)))
}

#[inline(always)]
fn silu_derivative<N: Number>(x: N) -> N {
    let (at, scale) = in_range(x);
    let (s, rest) = at.sigmoids();
    settle(x, 1e4, s * (x * rest + N::splat(1.0)) * scale, s)
}

#[inline(always)]
fn mish_derivative<N: Number>(x: N) -> N {
    let (at, scale) = in_range(x);
    let (factor, slope) = mish_factor(at);
    let slope = N::select(x.lt(N::splat(20.0)), slope, N::splat(0.0));
    settle(x, 1e4, (factor + x * slope) * scale, factor)
}

#[inline(always)]
fn log_sigmoid<N: Number>(x: N) -> N {
    x.min(N::splat(0.0)) - (-x.abs()).exp().ln_1p()
}

#[inline(always)]
fn selu<N: Number>(x: N) -> N {
    N::select(N::splat(0.0).lt(x), x * N::splat(SELU_SCALE), x.exp_m1() * N::splat(SELU_SCALE * SELU_ALPHA))
}

/// `min(max(x + 3, 0), 6)`.
#[inline(always)]
fn gate<N: Number>(x: N) -> N {
    (x + N::splat(3.0)).max(N::splat(0.0)).min(N::splat(6.0))
}

#[inline(always)]
fn hardswish_derivative<N: Number>(x: N) -> N {
    let inner = x / N::splat(3.0) + N::splat(0.5);
    N::select(
        x.le(N::splat(-3.0)),
        N::splat(0.0),
        N::select(x.lt(N::splat(3.0)), inner, N::select(x.eq(x), N::splat(1.0), x)),
    )
}

/// Whether a function wants positive arguments (arcosh: mostly above 1).
fn positive_domain(row: Unary) -> bool {
    matches!(row, Unary::Sqrt | Unary::Rsqrt | Unary::Log | Unary::Log2 | Unary::Log10 | Unary::Log1p | Unary::Acosh)
}

impl Family for Unary {
    fn name(&self) -> &'static str {
        (*self).name()
    }

    fn numerics(&self) -> Numerics {
        (*self).numerics()
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(1)?;
        check.floats(0..1)?;
        Ok(smallvec![check.like(0)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(self.ulp())
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        if positive_domain(*self) { SIZES.iter().map(|size| vec![s.positive(size, 1)]).collect() } else { s.sizes() }
    }

    fn may_overwrite(&self, _operand: usize) -> bool {
        true
    }
}

/// [`Backward::Unary`](crate::op::Backward::Unary).
#[derive(Clone, Copy, Debug)]
pub struct UnaryBackward(pub Unary);

impl Family for UnaryBackward {
    fn name(&self) -> &'static str {
        "unary_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2)?;
        check.same_shape(0, 1)?;
        Ok(smallvec![check.like(1)])
    }

    /// The derivative as stated for its function, and the product with g; near zeros of f′ only relative to 1.
    fn bound(&self, _ins: &[&Array]) -> Bound {
        match self.0 {
            Unary::Hardsigmoid => Bound::Ulps(2.0),
            _ => Bound::Operand(16.0),
        }
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let UnaryBackward(row) = self;
        let normal = s.x(&[1031], 1);
        let input = match row {
            row if positive_domain(*row) => s.run(Op::Unary(Unary::Square), &[&normal]).remove(0),
            Unary::Asin | Unary::Acos | Unary::Atanh | Unary::Erfinv => {
                s.run(Op::Unary(Unary::Sin), &[&normal]).remove(0)
            }
            _ => normal,
        };
        let saved = if row.saved() == Saved::Output { s.run(Op::Unary(*row), &[&input]).remove(0) } else { input };
        vec![vec![s.x(&[1031], 9), saved]]
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let g = b.input(0);
        let slope = trace::unary_derivative(b, self.0, b.input(1))?;
        Ok(Some(b.binary(Binary::Mul, g, slope)?))
    }

    fn may_overwrite(&self, _operand: usize) -> bool {
        true
    }
}
