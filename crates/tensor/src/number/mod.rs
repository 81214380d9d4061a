//! [`Number`]: what formulas compute with. A row of a table of operators is written once over it, and serves scalars,
//! vectors of a backend, and the program that is differentiated.

mod far;
mod wide;

use std::ops::{Add, Div, Mul, Neg, Sub};

pub use wide::{Wide, Wide2};

/// A number, or several that are computed on together: arithmetic, comparisons, choice and elementary functions.
///
/// Backends give it their vectors. `f64` is one too: in it the formulas give what vectors of f32 are checked against.
pub trait Number:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// Result of a comparison.
    type Mask: Copy;
    /// The same number in every lane.
    fn splat(value: f64) -> Self;
    /// `self · b + c`, fused where the instruction set has such an instruction, else rounded twice.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The larger; NaN wins; of zeros, the second operand.
    fn max(self, other: Self) -> Self;
    /// The smaller; NaN wins; of zeros, the second operand.
    fn min(self, other: Self) -> Self;
    /// `self < other`; false with NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// `self ≤ other`; false with NaN.
    fn le(self, other: Self) -> Self::Mask;
    /// `self = other`; false with NaN.
    fn eq(self, other: Self) -> Self::Mask;
    /// Lane by lane, one or the other.
    fn select(mask: Self::Mask, if_true: Self, if_false: Self) -> Self;
    /// 1, 0 or −1; zeros and NaN as they are.
    #[inline(always)]
    fn sign(self) -> Self {
        let zero = Self::splat(0.0);
        Self::select(zero.lt(self), Self::splat(1.0), Self::select(self.lt(zero), Self::splat(-1.0), self))
    }
    /// The value, for a formula whose result is not selected where `mask` holds. As a program, which is differentiated,
    /// it is `instead` there: the derivative of what was not selected may be infinite, and 0·∞ is NaN.
    #[inline(always)]
    fn unless(self, _mask: Self::Mask, _instead: f64) -> Self {
        self
    }
    /// Nearest integer, ties to even.
    fn round_ties_even(self) -> Self;
    /// Largest integer not above.
    fn floor(self) -> Self;
    /// `1/x`, correctly rounded.
    #[inline(always)]
    fn recip(self) -> Self {
        Self::splat(1.0) / self
    }
    /// `1/√x` from the exact root and quotient, ≤ 1 ulp; no approximate instruction.
    #[inline(always)]
    fn rsqrt(self) -> Self {
        Self::splat(1.0) / self.sqrt()
    }
    /// `eˣ`.
    fn exp(self) -> Self;
    /// `eˣ − 1`.
    fn exp_m1(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// `ln(1 + x)`.
    fn ln_1p(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// `1/(1 + e⁻ˣ)`.
    fn sigmoid(self) -> Self;
    /// Sigmoid and `1 − sigmoid`, both with relative accuracy in the tail.
    #[inline(always)]
    fn sigmoids(self) -> (Self, Self) {
        (self.sigmoid(), (-self).sigmoid())
    }
    /// Error function.
    fn erf(self) -> Self;
    /// `1 − erf(x)`, with relative accuracy in the tail.
    fn erfc(self) -> Self;
    /// `Φ(x) = ½·erfc(−x/√2)`, with relative accuracy in the tail.
    fn normal_cdf(self) -> Self;
    /// `φ(x) = e^(−x²/2)/√(2π)`.
    #[inline(always)]
    fn normal_density(self) -> Self {
        (self * self * Self::splat(-0.5)).exp() * Self::splat(0.398_942_280_401_432_7)
    }
    /// `x·Φ(x)`, and its limit −0 at −∞.
    #[inline(always)]
    fn gelu(self) -> Self {
        times_factor(self, self.normal_cdf())
    }
    /// `x` times [`Number::tanh_cdf`], and its limit −0 at −∞.
    #[inline(always)]
    fn gelu_tanh(self) -> Self {
        times_factor(self, self.tanh_cdf())
    }
    /// `x/(1 + e⁻ˣ)`, and its limit −0 at −∞.
    #[inline(always)]
    fn silu(self) -> Self {
        times_factor(self, self.sigmoid())
    }
    /// `x·tanh(ln(1 + eˣ))`, and its limit −0 at −∞.
    #[inline(always)]
    fn mish(self) -> Self {
        times_factor(self, mish_factor(self).0)
    }
    /// `Φ(x) + x·φ(x)`, the derivative of [`Number::gelu`].
    #[inline(always)]
    fn gelu_slope(self) -> Self {
        gelu_slope(self, self.normal_cdf(), self.normal_density())
    }
    /// `½(1 + tanh(√(2/π)(x + 0.044715x³)))`, with relative accuracy in the tail.
    fn tanh_cdf(self) -> Self;
    /// [`Number::tanh_cdf`] and 1 less it, both with relative accuracy in the tail.
    #[inline(always)]
    fn tanh_cdfs(self) -> (Self, Self) {
        (self.tanh_cdf(), (-self).tanh_cdf())
    }
    /// Lane by lane through f64, rounded once.
    fn wide(self, f: Wide) -> Self;
    /// As [`Number::wide`], of two arguments.
    fn wide2(self, other: Self, f: Wide2) -> Self;
    /// Smallest integer not below.
    #[inline(always)]
    fn ceil(self) -> Self {
        -(-self).floor()
    }
    /// The integer part.
    #[inline(always)]
    fn trunc(self) -> Self {
        Self::select(self.lt(Self::splat(0.0)), self.ceil(), self.floor())
    }
}

/// `x` times a factor that has underflowed far left, where the product with −∞ would be NaN.
#[inline(always)]
pub fn times_factor<N: Number>(x: N, factor: N) -> N {
    N::select(x.lt(N::splat(f64::from(f32::MIN))), N::splat(-0.0), x * factor)
}

/// tanh(ln(1 + E)) = n/(n + 2) with E = eˣ, n = E(E + 2), and its derivative. From 20 up the factor is 1.
#[inline(always)]
pub fn mish_factor<N: Number>(x: N) -> (N, N) {
    let (one, two) = (N::splat(1.0), N::splat(2.0));
    let e = x.min(N::splat(20.0)).exp();
    let n = e * (e + two);
    let d = n + two;
    let factor = N::select(x.lt(N::splat(20.0)), n / d, N::select(x.eq(x), one, x));
    (factor, N::splat(4.0) * e * (e + one) / d / d)
}

/// [`Number::gelu_slope`] from Φ(x) and φ(x), which vanishes long before x becomes infinite and the product NaN.
#[inline(always)]
pub fn gelu_slope<N: Number>(x: N, cdf: N, density: N) -> N {
    N::select(x.abs().lt(N::splat(40.0)), x * density + cdf, cdf)
}

/// The sigmoid's argument in [`Number::tanh_cdf`].
fn tanh_cdf_argument(x: f64) -> f64 {
    const C: f64 = 1.595_769_121_605_730_8;
    C * (x + 0.044715 * x * x * x)
}

impl Number for f64 {
    type Mask = bool;
    #[inline(always)]
    fn splat(value: f64) -> f64 {
        value
    }
    #[inline(always)]
    fn mul_add(self, b: f64, c: f64) -> f64 {
        self * b + c
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn max(self, other: f64) -> f64 {
        if self.is_nan() || self > other { self } else { other }
    }
    #[inline(always)]
    fn min(self, other: f64) -> f64 {
        if self.is_nan() || self < other { self } else { other }
    }
    #[inline(always)]
    fn lt(self, other: f64) -> bool {
        self < other
    }
    #[inline(always)]
    fn le(self, other: f64) -> bool {
        self <= other
    }
    #[inline(always)]
    fn eq(self, other: f64) -> bool {
        self == other
    }
    #[inline(always)]
    fn select(mask: bool, if_true: f64, if_false: f64) -> f64 {
        if mask { if_true } else { if_false }
    }
    #[inline]
    fn round_ties_even(self) -> f64 {
        f64::round_ties_even(self)
    }
    #[inline]
    fn floor(self) -> f64 {
        f64::floor(self)
    }
    #[inline]
    fn exp(self) -> f64 {
        libm::exp(self)
    }
    #[inline]
    fn exp_m1(self) -> f64 {
        libm::expm1(self)
    }
    #[inline]
    fn ln(self) -> f64 {
        libm::log(self)
    }
    #[inline]
    fn ln_1p(self) -> f64 {
        libm::log1p(self)
    }
    #[inline]
    fn tanh(self) -> f64 {
        libm::tanh(self)
    }
    #[inline]
    fn sigmoid(self) -> f64 {
        let e = libm::exp(-self.abs());
        if self < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
    }
    #[inline]
    fn erf(self) -> f64 {
        libm::erf(self)
    }
    #[inline]
    fn erfc(self) -> f64 {
        libm::erfc(self)
    }
    #[inline]
    fn normal_cdf(self) -> f64 {
        0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2)
    }
    #[inline]
    fn tanh_cdf(self) -> f64 {
        tanh_cdf_argument(self).sigmoid()
    }
    fn gelu(self) -> f64 {
        far::gelu(self).unwrap_or_else(|| times_factor(self, self.normal_cdf()))
    }
    fn gelu_tanh(self) -> f64 {
        far::times_exp(self, tanh_cdf_argument(self)).unwrap_or_else(|| times_factor(self, self.tanh_cdf()))
    }
    fn silu(self) -> f64 {
        far::times_exp(self, self).unwrap_or_else(|| times_factor(self, self.sigmoid()))
    }
    fn mish(self) -> f64 {
        far::times_exp(self, self).unwrap_or_else(|| times_factor(self, mish_factor(self).0))
    }
    #[inline]
    fn wide(self, f: Wide) -> f64 {
        f.eval(self)
    }
    #[inline]
    fn wide2(self, other: f64, f: Wide2) -> f64 {
        f.eval(self, other)
    }
}
