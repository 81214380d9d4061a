//! Functions without an f32 kernel of their own: each lane is computed in f64 by `libm` and rounded once, so the f32
//! result is the correctly rounded one but for double roundings. Slower than the kernels of `math`, and used where
//! accuracy near poles or huge arguments (sin 10³⁰) would cost an f32 kernel more than it saves.

use std::f64::consts::FRAC_2_SQRT_PI;

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wide {
    /// `log₂ x`.
    Log2,
    /// `log₁₀ x`.
    Log10,
    /// `2ˣ`.
    Exp2,
    /// `sin x`.
    Sin,
    /// `cos x`.
    Cos,
    /// `tan x`.
    Tan,
    /// `arcsin x`.
    Asin,
    /// `arccos x`.
    Acos,
    /// `arctan x`.
    Atan,
    /// `sinh x`.
    Sinh,
    /// `cosh x`.
    Cosh,
    /// `arsinh x`.
    Asinh,
    /// `arcosh x`.
    Acosh,
    /// `artanh x`.
    Atanh,
    /// Inverse of the error function.
    Erfinv,
}

impl Wide {
    /// The value in f64.
    #[inline]
    pub fn eval(self, x: f64) -> f64 {
        match self {
            Wide::Log2 => libm::log2(x),
            // libm's log10 is a few ulp off; exact powers of ten must come out exact.
            Wide::Log10 => {
                let y = libm::log10(x);
                let n = y.round_ties_even();
                if (y - n).abs() < 1e-14 && (0.0..=22.0).contains(&n) && libm::exp10(n) == x { n } else { y }
            }
            Wide::Exp2 => libm::exp2(x),
            Wide::Sin => libm::sin(x),
            Wide::Cos => libm::cos(x),
            Wide::Tan => libm::tan(x),
            Wide::Asin => libm::asin(x),
            Wide::Acos => libm::acos(x),
            Wide::Atan => libm::atan(x),
            Wide::Sinh => libm::sinh(x),
            Wide::Cosh => libm::cosh(x),
            Wide::Asinh => libm::asinh(x),
            // libm's takes no look at large negative numbers.
            Wide::Acosh if x < 1.0 => f64::NAN,
            Wide::Acosh => libm::acosh(x),
            Wide::Atanh => libm::atanh(x),
            Wide::Erfinv => erfinv(x),
        }
    }
}

/// A function of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wide2 {
    /// `aᵇ`.
    Pow,
    /// The angle of the point (b, a).
    Atan2,
    /// Remainder of `a/b` with the sign of a (C's `fmod`); exact.
    Fmod,
}

impl Wide2 {
    /// The value in f64.
    #[inline]
    pub fn eval(self, a: f64, b: f64) -> f64 {
        match self {
            Wide2::Pow => libm::pow(a, b),
            Wide2::Atan2 => libm::atan2(a, b),
            Wide2::Fmod => libm::fmod(a, b),
        }
    }
}

/// Inverse error function by Halley's iteration on erf (below ½) or erfc (above, where 1 − |x| is exact). It begins
/// with Winitzki's approximation, whose relative error of 2·10⁻³ three cubic steps bring below 2⁻⁵⁰.
fn erfinv(x: f64) -> f64 {
    let a = x.abs();
    if x.is_nan() || a > 1.0 {
        return f64::NAN;
    }
    if a == 1.0 {
        return f64::INFINITY.copysign(x);
    }
    if a < 1e-9 {
        // The next term, 0.26·x³, is below half an ulp.
        return x / FRAC_2_SQRT_PI;
    }
    let ln = libm::log1p(-a * a);
    let t = 2.0 / (std::f64::consts::PI * 0.147) + 0.5 * ln;
    let mut y = ((t * t - ln / 0.147).sqrt() - t).sqrt();
    for _ in 0..3 {
        let error = if a < 0.5 { libm::erf(y) - a } else { (1.0 - a) - libm::erfc(y) };
        let newton = error / (FRAC_2_SQRT_PI * libm::exp(-y * y));
        y -= newton / (1.0 + y * newton);
    }
    y.copysign(x)
}
