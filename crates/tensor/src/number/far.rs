//! Functions x·factor(x) far left in f64, where the factor is below the normal range though the product need not be: of
//! it alone a few digits are left, which x would magnify.

use std::f64::consts::PI;

/// Left of it a factor eᵗ is near the end of the normal range.
const FAR: f64 = -700.0;
/// How much further right exponentials are computed: a sum that rounds nothing.
const STEP: f64 = 64.0;
const E_TO_MINUS_STEP: f64 = 1.603_810_890_548_637_8e-28;

/// `x·eᵗ`, rounded into the range once; `None` where the factor has all its digits, or is 0.
pub(super) fn times_exp(x: f64, t: f64) -> Option<f64> {
    (-1000.0 < t && t < FAR).then(|| x * libm::exp(t + STEP) * E_TO_MINUS_STEP)
}

/// `x·Φ(x)` by Laplace's continued fraction, `Φ(x) = φ(x)/(z + 1/(z + 2/(z + …)))` with z = −x; `None` as above.
pub(super) fn gelu(x: f64) -> Option<f64> {
    if !(-40.0 < x && x < -37.0) {
        return None;
    }
    // The exponential would magnify the rounding of x²: the square of the leading 24 bits has none.
    let high = f64::from(x as f32);
    let rest = libm::exp(-(x - high) * (x + high) / 2.0);
    let fraction = (1..=12).rev().fold(0.0, |rest, k| f64::from(k) / (rest - x));
    let scaled = libm::exp(-high * high / 2.0 + STEP) * rest / ((2.0 * PI).sqrt() * (fraction - x));
    Some(x * scaled * E_TO_MINUS_STEP)
}
