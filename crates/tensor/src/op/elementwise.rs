//! Elementwise operators: one row each gives the name, the numeric class, f, f′ and the error bound; kernels, methods,
//! gradients and tests are made from the row.

use super::Numerics;
use crate::simd::Lanes;

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

/// A binary row as a type.
pub trait BinaryRow: Copy + Send + Sync + 'static {
    /// `f(a, b)`.
    fn f<L: Lanes>(a: L, b: L) -> L;
    /// `∂f/∂a`.
    fn da<L: Lanes>(a: L, b: L) -> L;
    /// `∂f/∂b`.
    fn db<L: Lanes>(a: L, b: L) -> L;
}

/// Code generic over the row, run by [`Binary::visit`].
pub trait BinaryVisitor {
    /// Result.
    type Output;
    /// Runs for row `R`.
    fn visit<R: BinaryRow>(self) -> Self::Output;
}

/// One row per unary operator:
///
/// ```text
/// /// `eˣ`.
/// Exp, "exp", exp, F32, Output, 2.0, |x| x.exp(), |y| y;
/// //   name   method class saved ulp f         f′(saved)
/// ```
/// becomes the variant `Unary::Exp`, a type with [`UnaryRow`], and (through `for_each_unary!`) the method `exp` of `Tensor` and
/// `Var`. The bound is in ulp of f32, before the one rounding to the storage dtype.
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
    /// `|x|`.
    Abs, "abs", abs, Neutral, Input, 0.0, |x| x.abs(), |x| sign(x);
    /// `x²`.
    Square, "square", square, Neutral, Input, 0.5, |x| x * x, |x| x + x;
    /// `√x`.
    Sqrt, "sqrt", sqrt, Neutral, Output, 0.5, |x| x.sqrt(), |y| L::splat(0.5) / y;
    /// `1/√x`.
    Rsqrt, "rsqrt", rsqrt, F32, Output, 1.5, |x| L::splat(1.0) / x.sqrt(), |y| L::splat(-0.5) * (y * y * y);
    /// `1/x`.
    Reciprocal, "reciprocal", reciprocal, F32, Output, 0.5, |x| L::splat(1.0) / x, |y| -(y * y);
    /// `eˣ`.
    Exp, "exp", exp, F32, Output, 1.5, |x| x.exp(), |y| y;
    /// `eˣ − 1`.
    Expm1, "expm1", expm1, F32, Output, 2.0, |x| x.exp_m1(), |y| y + L::splat(1.0);
    /// `ln x`.
    Log, "log", log, F32, Input, 1.5, |x| x.ln(), |x| L::splat(1.0) / x;
    /// `ln(1 + x)`.
    Log1p, "log1p", log1p, F32, Input, 2.0, |x| x.ln_1p(), |x| L::splat(1.0) / (L::splat(1.0) + x);
    /// `tanh x`.
    Tanh, "tanh", tanh, Neutral, Output, 2.0, |x| x.tanh(), |y| L::splat(1.0) - y * y;
    /// `1/(1 + e⁻ˣ)`.
    Sigmoid, "sigmoid", sigmoid, Neutral, Output, 2.5, |x| x.sigmoid(), |y| y * (L::splat(1.0) - y);
    /// `max(x, 0)`; NaN stays. The gradient at 0 is 0.
    Relu, "relu", relu, Neutral, Output, 0.0, |x| x.max(L::splat(0.0)), |y| L::select(L::splat(0.0).lt(y), L::splat(1.0), L::splat(0.0));
    /// `x·Φ(x)` with the error function. In the left tail the rounding of x/√2 is magnified by x².
    Gelu, "gelu", gelu, Neutral, Input, 256.0, |x| gelu(x), |x| gelu_derivative(x);
    /// GELU by the tanh approximation (Hendrycks and Gimpel 2016). In the left tail the rounding of the exponent, up to 88, is
    /// magnified by it.
    GeluTanh, "gelu_tanh", gelu_tanh, Neutral, Input, 256.0, |x| gelu_tanh(x), |x| gelu_tanh_derivative(x);
    /// `x/(1 + e⁻ˣ)`. Left of −87, where the factor is subnormal, its rounding adds |x|·2⁻¹⁴⁹ (as for the GELUs).
    Silu, "silu", silu, Neutral, Input, 3.5, |x| silu(x), |x| silu_derivative(x);
}

#[inline(always)]
fn sign<L: Lanes>(x: L) -> L {
    let zero = L::splat(0.0);
    L::select(zero.lt(x), L::splat(1.0), L::select(x.lt(zero), L::splat(-1.0), x * zero))
}

/// Beyond this the factor Φ(x) or sigmoid(x) has underflowed; the product with −∞ would be NaN where the limit is 0.
#[inline(always)]
fn vanish_at_minus_infinity<L: Lanes>(x: L, y: L) -> L {
    L::select(x.lt(L::splat(f64::from(f32::MIN))), L::splat(-0.0), y)
}

#[inline(always)]
fn gelu<L: Lanes>(x: L) -> L {
    // ½·erfc(−x/√2) keeps its relative accuracy in the left tail, where 1 + erf cancels.
    vanish_at_minus_infinity(x, x * (L::splat(0.5) * (x * L::splat(-std::f64::consts::FRAC_1_SQRT_2)).erfc()))
}

#[inline(always)]
fn gelu_derivative<L: Lanes>(x: L) -> L {
    let cdf = L::splat(0.5) * (x * L::splat(-std::f64::consts::FRAC_1_SQRT_2)).erfc();
    let density = (x * x * L::splat(-0.5)).exp() * L::splat(0.398_942_280_401_432_7);
    // x·density is 0 at ±∞, where the product would be NaN.
    let product = L::select(x.abs().lt(L::splat(40.0)), x * density, L::splat(0.0));
    L::select(x.abs().lt(L::splat(40.0)), cdf + product, L::select(x.eq(x), cdf, x))
}

#[inline(always)]
fn gelu_tanh<L: Lanes>(x: L) -> L {
    vanish_at_minus_infinity(x, x * gelu_tanh_argument(x).sigmoid())
}

/// `½(1 + tanh u) = sigmoid(2u)`, u = √(2/π)(x + 0.044715x³).
#[inline(always)]
fn gelu_tanh_argument<L: Lanes>(x: L) -> L {
    L::splat(2.0 * 0.797_884_560_802_865_4) * (x * (x * x).mul_add(L::splat(0.044715), L::splat(1.0)))
}

#[inline(always)]
fn gelu_tanh_derivative<L: Lanes>(x: L) -> L {
    let s = gelu_tanh_argument(x).sigmoid();
    let slope = L::splat(2.0 * 0.797_884_560_802_865_4) * (x * x).mul_add(L::splat(3.0 * 0.044715), L::splat(1.0));
    L::select(x.abs().lt(L::splat(40.0)), s + x * s * (L::splat(1.0) - s) * slope, L::select(x.eq(x), s, x))
}

#[inline(always)]
fn silu<L: Lanes>(x: L) -> L {
    vanish_at_minus_infinity(x, x * x.sigmoid())
}

#[inline(always)]
fn silu_derivative<L: Lanes>(x: L) -> L {
    let s = x.sigmoid();
    L::select(x.abs().lt(L::splat(1e4)), s * (x * (L::splat(1.0) - s) + L::splat(1.0)), L::select(x.eq(x), s, x))
}

/// One row per binary operator: variant, name, method, f, ∂f/∂a, ∂f/∂b.
macro_rules! binary {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $method:ident, |$a:ident, $b:ident| $f:expr, $da:expr, $db:expr;)*) => {
        /// An elementwise function of two tensors. Each is correctly rounded in f32 before the one rounding to storage.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Binary { $($(#[$doc])* $variant,)* }

        impl Binary {
            /// Every row.
            pub const ALL: &'static [Binary] = &[$(Binary::$variant),*];
            /// The operator's name.
            pub const fn name(self) -> &'static str { match self { $(Binary::$variant => $name),* } }
            /// Runs `visitor` with the row as a type.
            pub fn visit<V: BinaryVisitor>(self, visitor: V) -> V::Output {
                match self { $(Binary::$variant => visitor.visit::<binary_rows::$variant>()),* }
            }
        }

        $(#[allow(unused_variables)]
        impl BinaryRow for binary_rows::$variant {
            #[inline(always)]
            fn f<L: Lanes>($a: L, $b: L) -> L { $f }
            #[inline(always)]
            fn da<L: Lanes>($a: L, $b: L) -> L { $da }
            #[inline(always)]
            fn db<L: Lanes>($a: L, $b: L) -> L { $db }
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
    Add, "add", add, |a, b| a + b, L::splat(1.0), L::splat(1.0);
    /// `a − b`.
    Sub, "sub", sub, |a, b| a - b, L::splat(1.0), L::splat(-1.0);
    /// `a · b`.
    Mul, "mul", mul, |a, b| a * b, b, a;
    /// `a / b`.
    Div, "div", div, |a, b| a / b, L::splat(1.0) / b, -(a / b) / b;
    /// The larger; NaN wins. Equal operands share the gradient.
    Maximum, "maximum", maximum, |a, b| a.max(b), preference(b, a), preference(a, b);
    /// The smaller; NaN wins. Equal operands share the gradient.
    Minimum, "minimum", minimum, |a, b| a.min(b), preference(a, b), preference(b, a);
}

/// 1 where `low < high`, ½ where equal, 0 elsewhere.
#[inline(always)]
fn preference<L: Lanes>(low: L, high: L) -> L {
    L::select(low.lt(high), L::splat(1.0), L::select(low.eq(high), L::splat(0.5), L::splat(0.0)))
}

/// Comparisons; NaN compares as in IEEE 754 (only `Ne` holds).
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
}

impl Compare {
    /// Every comparison.
    pub const ALL: [Compare; 6] = [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge];

    /// The operator's name.
    pub const fn name(self) -> &'static str {
        match self {
            Compare::Eq => "eq",
            Compare::Ne => "ne",
            Compare::Lt => "lt",
            Compare::Le => "le",
            Compare::Gt => "gt",
            Compare::Ge => "ge",
        }
    }

    /// The comparison of two values.
    #[inline]
    pub fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            Compare::Ge => a >= b,
        }
    }
}
