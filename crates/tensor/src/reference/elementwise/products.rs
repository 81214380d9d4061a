//! Gradients times derivatives, of which a factor may leave the range though the product does not.

use std::f64::consts::{LN_2, LN_10};

use super::super::functions::{exp_factors, quotient, times_exp};
use super::{derivative, partial};
use crate::op::{Binary, Ternary, Unary};

/// A gradient times f′, where a factor of that may leave the range though the product does not.
pub(super) fn times_derivative(row: Unary, up: f64, s: f64) -> f64 {
    let far = s.abs() > 1e150;
    match row {
        Unary::Square => quotient([up, 2.0, s], []),
        Unary::Rsqrt => quotient([-0.5, up, s, s, s], []),
        Unary::Reciprocal => quotient([-up, s, s], []),
        Unary::Log => up / s,
        // The other exponential is nothing beside this one.
        Unary::Sinh if s.abs() > 50.0 => times_exp(up / 2.0, s.abs()),
        Unary::Cosh if s.abs() > 50.0 => times_exp(up / 2.0, s.abs()) * s.signum(),
        Unary::Log2 => quotient([up], [s, LN_2]),
        Unary::Log10 => quotient([up], [s, LN_10]),
        // 1 is nothing beside s.
        Unary::Atan | Unary::Softsign if far => quotient([up], [s, s]),
        Unary::Asinh | Unary::Acosh if far => up / s.abs(),
        _ => up * derivative(row, s),
    }
}

/// A gradient times ∂f/∂a or ∂f/∂b, as [`times_derivative`].
pub(super) fn times_partial(row: Binary, rhs: bool, up: f64, a: f64, b: f64) -> f64 {
    // Of a power itself: at 0 and infinity it has one whether or not the exponent is whole.
    let sign = |exponent: f64| f64::powf(a, exponent).signum();
    // x·y·aᵉ: a quarter of an exponent keeps a power within the range, or no product is in it.
    let times_power = |x: f64, y: f64, exponent: f64| {
        let (part, size) = (f64::powf(a.abs(), exponent / 4.0), exponent * a.abs().ln());
        match size.is_finite() && size.abs() > 2000.0 {
            true => quotient(exp_factors(size).into_iter().chain([x, y, sign(exponent)]), []),
            false => quotient([x, y, part, part, part, part, sign(exponent)], []),
        }
    };
    match (row, rhs) {
        (Binary::Div, false) => up / b,
        (Binary::Div, true) => -quotient([up, a], [b, b]),
        (Binary::Atan2, _) if a == 0.0 && b == 0.0 => up * 0.0,
        (Binary::Atan2, false) => quotient([up, b], [a.hypot(b); 2]),
        (Binary::Atan2, true) => -quotient([up, a], [a.hypot(b); 2]),
        (Binary::Pow, false) if a != 0.0 && b != 0.0 => times_power(up, b, b - 1.0),
        (Binary::Pow, true) if a != 0.0 || b < 0.0 => times_power(up, f64::ln(a), b),
        (Binary::Celu, false) if a <= 0.0 => times_exp(up, a / b),
        // −1 is nothing beside (1 − a/b)·e^(a/b).
        (Binary::Celu, true) if a <= 0.0 && a / b > 50.0 => times_exp(up * (1.0 - a / b), a / b),
        (Binary::Softplus, false) if a * b < -700.0 => times_exp(up, a * b),
        // Of t = |a·b|, t·σ(−t) + ln(1 + e⁻ᵗ) is (t + 1)·e⁻ᵗ there.
        (Binary::Softplus, true) if a * b < -700.0 => {
            -quotient(exp_factors(a * b).into_iter().chain([up, 1.0 - a * b]), [b, b])
        }
        (Binary::Softplus, true) if a * b <= 20.0 => quotient([up, partial(row, rhs, a * b, 1.0)], [b, b]),
        _ => up * partial(row, rhs, a, b),
    }
}

/// A gradient times the derivative by operand 0, 1 or 2.
pub(super) fn times_ternary_slope(row: Ternary, operand: usize, up: f64, [x, a, b, v]: [f64; 4]) -> f64 {
    match (row, operand) {
        (Ternary::Addcmul | Ternary::Addcdiv, 0) => up,
        (Ternary::Addcmul, 1) => quotient([up, v, b], []),
        (Ternary::Addcmul, _) => quotient([up, v, a], []),
        (Ternary::Addcdiv, 1) => quotient([up, v], [b]),
        (Ternary::Addcdiv, _) => -quotient([up, v, a], [b, b]),
        (Ternary::Lerp, 0) => up * (1.0 - b),
        (Ternary::Lerp, 1) => up * b,
        (Ternary::Lerp, _) => up * (a - x),
    }
}
