//! Functions of one tensor.

use std::f64::consts::{FRAC_2_SQRT_PI, LN_2, LN_10};

use super::step;
use crate::op::Numerics;
use crate::simd::{Lanes, Wide, mish_factor, times_factor};

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
    fn f<L: Lanes>(x: L) -> L;
    /// The derivative, as a function of the saved value.
    fn df<L: Lanes>(saved: L) -> L;
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
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $method:ident, $class:ident, $saved:ident, $ulp:literal, |$x:ident| $f:expr, |$s:ident| $df:expr;)*) => {
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
            fn f<L: Lanes>($x: L) -> L { $f }
            #[inline(always)]
            fn df<L: Lanes>($s: L) -> L { $df }
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
    Neg, "neg", neg, Neutral, Nothing, 0.0, |x| -x, |_s| L::splat(-1.0);
    /// `|x|`. The gradient at 0 is 0.
    Abs, "abs", abs, Neutral, Input, 0.0, |x| x.abs(), |x| x.sign();
    /// 1, 0 or −1; zeros keep their sign.
    Sign, "sign", sign, Neutral, Nothing, 0.0, |x| x.sign(), |_s| L::splat(0.0);
    /// Largest integer not above x.
    Floor, "floor", floor, Neutral, Nothing, 0.0, |x| x.floor(), |_s| L::splat(0.0);
    /// Smallest integer not below x.
    Ceil, "ceil", ceil, Neutral, Nothing, 0.0, |x| x.ceil(), |_s| L::splat(0.0);
    /// Nearest integer, ties to even.
    Round, "round", round, Neutral, Nothing, 0.0, |x| x.round_ties_even(), |_s| L::splat(0.0);
    /// The integer part.
    Trunc, "trunc", trunc, Neutral, Nothing, 0.0, |x| x.trunc(), |_s| L::splat(0.0);
    /// `x²`.
    Square, "square", square, Neutral, Input, 0.5, |x| x * x, |x| x + x;
    /// `√x`.
    Sqrt, "sqrt", sqrt, Neutral, Output, 0.5, |x| x.sqrt(), |y| L::splat(0.5) / y;
    /// `1/√x`.
    Rsqrt, "rsqrt", rsqrt, F32, Output, 1.5, |x| x.rsqrt(), |y| L::splat(-0.5) * (y * y * y);
    /// `1/x`.
    Reciprocal, "reciprocal", reciprocal, F32, Output, 0.5, |x| x.recip(), |y| -(y * y);
    /// `eˣ`.
    Exp, "exp", exp, F32, Output, 1.5, |x| x.exp(), |y| y;
    /// `2ˣ`.
    Exp2, "exp2", exp2, Neutral, Output, 0.51, |x| x.wide(Wide::Exp2), |y| y * L::splat(LN_2);
    /// `eˣ − 1`.
    Expm1, "expm1", expm1, F32, Output, 2.0, |x| x.exp_m1(), |y| y + L::splat(1.0);
    /// `ln x`.
    Log, "log", log, F32, Input, 1.5, |x| x.ln(), |x| x.recip();
    /// `log₂ x`.
    Log2, "log2", log2, F32, Input, 0.51, |x| x.wide(Wide::Log2), |x| (x * L::splat(LN_2)).recip();
    /// `log₁₀ x`.
    Log10, "log10", log10, F32, Input, 0.51, |x| x.wide(Wide::Log10), |x| (x * L::splat(LN_10)).recip();
    /// `ln(1 + x)`.
    Log1p, "log1p", log1p, F32, Input, 2.0, |x| x.ln_1p(), |x| (L::splat(1.0) + x).recip();
    /// `sin x`, for arguments of any size.
    Sin, "sin", sin, Neutral, Input, 0.51, |x| x.wide(Wide::Sin), |x| x.wide(Wide::Cos);
    /// `cos x`, for arguments of any size.
    Cos, "cos", cos, Neutral, Input, 0.51, |x| x.wide(Wide::Cos), |x| -x.wide(Wide::Sin);
    /// `tan x`, for arguments of any size.
    Tan, "tan", tan, F32, Output, 0.51, |x| x.wide(Wide::Tan), |y| y.mul_add(y, L::splat(1.0));
    /// `arcsin x`.
    Asin, "asin", asin, F32, Input, 0.51, |x| x.wide(Wide::Asin), |x| one_minus_square(x).rsqrt();
    /// `arccos x`.
    Acos, "acos", acos, F32, Input, 0.51, |x| x.wide(Wide::Acos), |x| -one_minus_square(x).rsqrt();
    /// `arctan x`.
    Atan, "atan", atan, Neutral, Input, 0.51, |x| x.wide(Wide::Atan), |x| x.mul_add(x, L::splat(1.0)).recip();
    /// `sinh x`.
    Sinh, "sinh", sinh, F32, Input, 0.51, |x| x.wide(Wide::Sinh), |x| x.wide(Wide::Cosh);
    /// `cosh x`.
    Cosh, "cosh", cosh, F32, Input, 0.51, |x| x.wide(Wide::Cosh), |x| x.wide(Wide::Sinh);
    /// `arsinh x`.
    Asinh, "asinh", asinh, Neutral, Input, 0.51, |x| x.wide(Wide::Asinh), |x| x.mul_add(x, L::splat(1.0)).rsqrt();
    /// `arcosh x`.
    Acosh, "acosh", acosh, Neutral, Input, 0.51, |x| x.wide(Wide::Acosh), |x| ((x - L::splat(1.0)) * (x + L::splat(1.0))).rsqrt();
    /// `artanh x`.
    Atanh, "atanh", atanh, Neutral, Input, 0.51, |x| x.wide(Wide::Atanh), |x| one_minus_square(x).recip();
    /// `tanh x`.
    Tanh, "tanh", tanh, Neutral, Output, 2.0, |x| x.tanh(), |y| one_minus_square(y);
    /// Error function.
    Erf, "erf", erf, Neutral, Input, 1.5, |x| x.erf(), |x| (-(x * x)).exp() * L::splat(FRAC_2_SQRT_PI);
    /// `1 − erf(x)`.
    Erfc, "erfc", erfc, Neutral, Input, 4.0, |x| x.erfc(), |x| (-(x * x)).exp() * L::splat(-FRAC_2_SQRT_PI);
    /// Inverse of the error function.
    Erfinv, "erfinv", erfinv, F32, Output, 0.51, |x| x.wide(Wide::Erfinv), |y| (y * y).exp() * L::splat(1.0 / FRAC_2_SQRT_PI);
    /// `1/(1 + e⁻ˣ)`.
    Sigmoid, "sigmoid", sigmoid, Neutral, Output, 2.5, |x| x.sigmoid(), |y| y * (L::splat(1.0) - y);
    /// `ln(1/(1 + e⁻ˣ))`.
    LogSigmoid, "logsigmoid", logsigmoid, Neutral, Input, 3.5, |x| log_sigmoid(x), |x| (-x).sigmoid();
    /// `max(x, 0)`; NaN stays. The gradient at 0 is 0.
    Relu, "relu", relu, Neutral, Output, 0.0, |x| x.max(L::splat(0.0)), |y| step::<L>(L::splat(0.0).lt(y));
    /// `min(max(x, 0), 6)`. The gradient at 0 and 6 is 0.
    Relu6, "relu6", relu6, Neutral, Output, 0.0, |x| x.max(L::splat(0.0)).min(L::splat(6.0)), |y| step::<L>(L::splat(0.0).lt(y)) * step::<L>(y.lt(L::splat(6.0)));
    /// `x·Φ(x)` with the error function.
    Gelu, "gelu", gelu, Neutral, Input, 5.0, |x| x.gelu(), |x| x.gelu_slope();
    /// GELU by the tanh approximation (Hendrycks and Gimpel 2016).
    GeluTanh, "gelu_tanh", gelu_tanh, Neutral, Input, 5.0, |x| x.gelu_tanh(), |x| gelu_tanh_derivative(x);
    /// `x/(1 + e⁻ˣ)`.
    Silu, "silu", silu, Neutral, Input, 3.5, |x| x.silu(), |x| silu_derivative(x);
    /// `x·tanh(ln(1 + eˣ))` (Misra 2019).
    Mish, "mish", mish, Neutral, Input, 6.0, |x| x.mish(), |x| mish_derivative(x);
    /// `λ·(x > 0 ? x : α·(eˣ − 1))` (Klambauer et al. 2017).
    Selu, "selu", selu, Neutral, Output, 3.0, |x| selu(x), |y| L::select(L::splat(0.0).lt(y), L::splat(SELU_SCALE), y + L::splat(SELU_SCALE * SELU_ALPHA));
    /// `min(max(x + 3, 0), 6)/6`. The gradient at ±3 is 0.
    Hardsigmoid, "hardsigmoid", hardsigmoid, Neutral, Input, 1.5, |x| gate(x) / L::splat(6.0), |x| step::<L>(x.abs().lt(L::splat(3.0))) / L::splat(6.0);
    /// `x·min(max(x + 3, 0), 6)/6`.
    Hardswish, "hardswish", hardswish, Neutral, Input, 2.5, |x| times_factor(x, gate(x) / L::splat(6.0)), |x| hardswish_derivative(x);
    /// `x/(1 + |x|)`.
    Softsign, "softsign", softsign, Neutral, Input, 1.5, |x| x / (L::splat(1.0) + x.abs()), |x| square(L::splat(1.0) + x.abs()).recip();
}

const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

#[inline(always)]
fn square<L: Lanes>(x: L) -> L {
    x * x
}

/// `1 − x²` as a product, which does not cancel near ±1.
#[inline(always)]
fn one_minus_square<L: Lanes>(x: L) -> L {
    (L::splat(1.0) - x) * (L::splat(1.0) + x)
}

/// A derivative of an x·factor(x) function, where beyond ±`far` it equals the factor (0 or 1) and the sum would be NaN.
#[inline(always)]
fn settle<L: Lanes>(x: L, far: f64, near: L, factor: L) -> L {
    L::select(x.abs().lt(L::splat(far)), near, L::select(x.eq(x), factor, x))
}

#[inline(always)]
fn gelu_tanh_derivative<L: Lanes>(x: L) -> L {
    let s = x.tanh_cdf();
    let near = x.unless(L::splat(40.0).le(x.abs()), 0.0);
    let slope =
        L::splat(2.0 * 0.797_884_560_802_865_4) * (near * near).mul_add(L::splat(3.0 * 0.044715), L::splat(1.0));
    settle(x, 40.0, s + near * s * (L::splat(1.0) - s) * slope, s)
}

#[inline(always)]
fn silu_derivative<L: Lanes>(x: L) -> L {
    let s = x.sigmoid();
    settle(x, 1e4, s * (x * (L::splat(1.0) - s) + L::splat(1.0)), s)
}

#[inline(always)]
fn mish_derivative<L: Lanes>(x: L) -> L {
    let (factor, slope) = mish_factor(x);
    settle(x, 1e4, factor + x * L::select(x.lt(L::splat(20.0)), slope, L::splat(0.0)), factor)
}

#[inline(always)]
fn log_sigmoid<L: Lanes>(x: L) -> L {
    x.min(L::splat(0.0)) - (-x.abs()).exp().ln_1p()
}

#[inline(always)]
fn selu<L: Lanes>(x: L) -> L {
    L::select(L::splat(0.0).lt(x), x * L::splat(SELU_SCALE), x.exp_m1() * L::splat(SELU_SCALE * SELU_ALPHA))
}

/// `min(max(x + 3, 0), 6)`.
#[inline(always)]
fn gate<L: Lanes>(x: L) -> L {
    (x + L::splat(3.0)).max(L::splat(0.0)).min(L::splat(6.0))
}

#[inline(always)]
fn hardswish_derivative<L: Lanes>(x: L) -> L {
    let inner = x / L::splat(3.0) + L::splat(0.5);
    L::select(
        x.le(L::splat(-3.0)),
        L::splat(0.0),
        L::select(x.lt(L::splat(3.0)), inner, L::select(x.eq(x), L::splat(1.0), x)),
    )
}
