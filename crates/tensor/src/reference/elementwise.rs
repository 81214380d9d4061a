//! Elementwise functions and their derivatives, from their textbook formulas in f64.

mod products;

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LN_2, LN_10, PI};

use super::Dense;
use super::definition::{Definition, each};
use super::functions::{
    acosh, asinh, atanh, erf, erfc, erfinv, exp_factors, gauss, quotient, times_exp, times_normal_tail,
};
use crate::Result;
use crate::op::{
    Binary, BinaryBackward, Compare, Scalar, ScalarBackward, Ternary, TernaryBackward, TernaryOp, Unary, UnaryBackward,
    Where,
};
use products::{times_derivative, times_partial, times_ternary_slope};

pub(super) fn sigmoid(x: f64) -> f64 {
    // Two forms, so that neither overflows.
    if x < 0.0 { f64::exp(x) / (1.0 + f64::exp(x)) } else { 1.0 / (1.0 + f64::exp(-x)) }
}

/// `(condition) as 0 or 1`; NaN in `x` stays.
pub(super) fn when(condition: bool) -> f64 {
    condition as u8 as f64
}

/// 2√(2/π)·(x + 0.044715x³)
fn tanh_argument(x: f64) -> f64 {
    2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)
}

/// The slope λ and α of SELU (Klambauer et al. 2017).
const SELU: (f64, f64) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);

pub(super) fn unary(row: Unary, x: f64) -> f64 {
    // The limit at −∞, where the product of x with a vanishing factor is NaN. Factors are ½ at 0 and grow: next to it
    // the value lies above x/2, which may be a tie, by less than f64 tells.
    let times = |factor: f64| match x {
        f64::NEG_INFINITY => -0.0,
        x if x != 0.0 && x.abs() < 1e-18 && factor == 0.5 => (0.5 * x).next_up(),
        x => x * factor,
    };
    match row {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign => {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        }
        Unary::Floor => f64::floor(x),
        Unary::Ceil => f64::ceil(x),
        Unary::Round => f64::round_ties_even(x),
        Unary::Trunc => f64::trunc(x),
        Unary::Square => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Exp => f64::exp(x),
        Unary::Exp2 => f64::exp2(x),
        Unary::Expm1 => f64::exp_m1(x),
        Unary::Log => f64::ln(x),
        Unary::Log2 => f64::log2(x),
        Unary::Log10 => {
            // Powers of ten are exact.
            let exact = (0..=22).find(|&n| 10f64.powi(n) == x);
            exact.map_or_else(|| f64::log10(x), f64::from)
        }
        Unary::Log1p => f64::ln_1p(x),
        Unary::Sin => f64::sin(x),
        Unary::Cos => f64::cos(x),
        Unary::Tan => f64::tan(x),
        Unary::Asin => f64::asin(x),
        Unary::Acos => f64::acos(x),
        Unary::Atan => f64::atan(x),
        Unary::Sinh => f64::sinh(x),
        Unary::Cosh => f64::cosh(x),
        Unary::Asinh => asinh(x),
        Unary::Acosh => acosh(x),
        Unary::Atanh => atanh(x),
        Unary::Tanh => f64::tanh(x),
        Unary::Erf => erf(x),
        Unary::Erfc => erfc(x),
        Unary::Erfinv => erfinv(x),
        Unary::Sigmoid => sigmoid(x),
        // Two forms, so that neither side cancels or overflows.
        Unary::LogSigmoid if x > 0.0 => -f64::ln_1p(f64::exp(-x)),
        Unary::LogSigmoid => x - f64::ln_1p(f64::exp(x)),
        Unary::Relu => {
            if x > 0.0 || x.is_nan() {
                x
            } else {
                0.0
            }
        }
        Unary::Relu6 if x.is_nan() => x,
        Unary::Relu6 => x.clamp(0.0, 6.0),
        // A factor below the normal range would have few digits, which x magnifies.
        Unary::Gelu if (-40.0..-37.0).contains(&x) => times_normal_tail(x),
        Unary::GeluTanh if (-1e3..-700.0).contains(&tanh_argument(x)) => times_exp(x, tanh_argument(x)),
        Unary::Silu | Unary::Mish if (-1e3..-700.0).contains(&x) => times_exp(x, x),
        Unary::Gelu => times(0.5 * erfc(-x * FRAC_1_SQRT_2)),
        Unary::GeluTanh => times(sigmoid(tanh_argument(x))),
        Unary::Silu => times(sigmoid(x)),
        Unary::Mish if x > 40.0 => x,
        Unary::Mish => times(f64::tanh(f64::ln_1p(f64::exp(x)))),
        Unary::Selu => SELU.0 * if x > 0.0 { x } else { SELU.1 * f64::exp_m1(x) },
        Unary::Hardsigmoid if x.is_nan() => x,
        Unary::Hardsigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Unary::Hardswish if x.is_nan() => x,
        Unary::Hardswish => times((x + 3.0).clamp(0.0, 6.0) / 6.0),
        Unary::Softsign => x / (1.0 + x.abs()),
    }
}

/// f′, as a function of the input, or of the output where the row keeps that.
pub(super) fn derivative(row: Unary, s: f64) -> f64 {
    let product_rule = |factor: f64, slope: f64| {
        if s.is_nan() {
            s
        } else if s.abs() > 1e3 {
            when(s > 0.0)
        } else {
            factor + s * slope
        }
    };
    match row {
        Unary::Neg => -1.0,
        Unary::Abs => unary(Unary::Sign, s),
        Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc => 0.0,
        Unary::Square => 2.0 * s,
        Unary::Sqrt => 0.5 / s,
        Unary::Rsqrt => -0.5 * s * s * s,
        Unary::Reciprocal => -s * s,
        Unary::Exp => s,
        Unary::Exp2 => s * LN_2,
        Unary::Expm1 => s + 1.0,
        Unary::Log => 1.0 / s,
        Unary::Log2 => 1.0 / (s * LN_2),
        Unary::Log10 => 1.0 / (s * LN_10),
        Unary::Log1p => 1.0 / (1.0 + s),
        Unary::Sin => f64::cos(s),
        Unary::Cos => -f64::sin(s),
        Unary::Tan => 1.0 + s * s,
        Unary::Asin => 1.0 / ((1.0 - s) * (1.0 + s)).sqrt(),
        Unary::Acos => -1.0 / ((1.0 - s) * (1.0 + s)).sqrt(),
        Unary::Atan => 1.0 / (1.0 + s * s),
        Unary::Sinh => f64::cosh(s),
        Unary::Cosh => f64::sinh(s),
        Unary::Asinh => 1.0 / (1.0 + s * s).sqrt(),
        Unary::Acosh => 1.0 / ((s - 1.0) * (s + 1.0)).sqrt(),
        Unary::Atanh => 1.0 / ((1.0 - s) * (1.0 + s)),
        Unary::Tanh => 1.0 - s * s,
        Unary::Erf => FRAC_2_SQRT_PI * gauss(s),
        Unary::Erfc => -FRAC_2_SQRT_PI * gauss(s),
        Unary::Erfinv => 1.0 / (gauss(s) * FRAC_2_SQRT_PI),
        Unary::Sigmoid => s * (1.0 - s),
        Unary::LogSigmoid => sigmoid(-s),
        Unary::Relu => when(s > 0.0),
        Unary::Relu6 => when(s > 0.0 && s < 6.0),
        Unary::Gelu => product_rule(0.5 * erfc(-s * FRAC_1_SQRT_2), f64::exp(-s * s / 2.0) / (2.0 * PI).sqrt()),
        Unary::GeluTanh => {
            let (k, c) = ((2.0 / PI).sqrt(), 0.044715);
            // 1 − t would be left with few digits, of which the cube of s makes an error.
            let [t, rest] = [1.0, -1.0].map(|sign| sigmoid(sign * 2.0 * k * (s + c * s * s * s)));
            product_rule(t, t * rest * 2.0 * k * (1.0 + 3.0 * c * s * s))
        }
        Unary::Silu => product_rule(sigmoid(s), sigmoid(s) * sigmoid(-s)),
        Unary::Mish => {
            let t = f64::tanh(if s > 40.0 { s } else { f64::ln_1p(f64::exp(s)) });
            product_rule(t, (1.0 - t) * (1.0 + t) * sigmoid(s))
        }
        Unary::Selu => {
            if s > 0.0 {
                SELU.0
            } else {
                s + SELU.0 * SELU.1
            }
        }
        Unary::Hardsigmoid => when(s.abs() < 3.0) / 6.0,
        Unary::Hardswish if s.abs() < 3.0 => s / 3.0 + 0.5,
        Unary::Hardswish if s.is_nan() => s,
        Unary::Hardswish => when(s > 0.0),
        Unary::Softsign => (1.0 + s.abs()).powi(-2),
    }
}

pub(super) fn binary(row: Binary, a: f64, b: f64) -> f64 {
    let nan = a.is_nan() || b.is_nan();
    match row {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Maximum | Binary::ClampMin if nan => f64::NAN,
        Binary::Minimum | Binary::ClampMax if nan => f64::NAN,
        Binary::Maximum | Binary::ClampMin => a.max(b),
        Binary::Minimum | Binary::ClampMax => a.min(b),
        Binary::Pow => f64::powf(a, b),
        Binary::Atan2 => f64::atan2(a, b),
        Binary::Fmod => a % b,
        Binary::Prelu | Binary::LeakyRelu => a * if a > 0.0 { 1.0 } else { b },
        Binary::Elu if a > 0.0 => a,
        Binary::Elu => b * f64::exp_m1(a),
        // Also where the quotient is too small for the formula.
        Binary::Celu if a > 0.0 || (a / b).abs() < 1e-290 => a,
        // −1 is nothing beside the power.
        Binary::Celu if a / b > 50.0 => times_exp(b, a / b),
        Binary::Celu => b * f64::exp_m1(a / b),
        Binary::Softplus if a * b > 20.0 => a,
        // The power alone, which may be subnormal where its quotient is not.
        Binary::Softplus if a * b < -700.0 => quotient(exp_factors(a * b), [b]),
        Binary::Softplus => f64::ln_1p(f64::exp(a * b)) / b,
    }
}

/// ∂f/∂a, or ∂f/∂b.
pub(super) fn partial(row: Binary, rhs: bool, a: f64, b: f64) -> f64 {
    let prefer = |low: f64, high: f64| if low == high { 0.5 } else { when(low < high) };
    match (row, rhs) {
        (Binary::Add, _) | (Binary::Sub, false) | (Binary::Fmod, false) => 1.0,
        (Binary::Sub, true) => -1.0,
        (Binary::Mul, false) => b,
        (Binary::Mul, true) => a,
        (Binary::Div, false) => 1.0 / b,
        (Binary::Div, true) => -a / (b * b),
        (Binary::Maximum, false) | (Binary::Minimum, true) => prefer(b, a),
        (Binary::Maximum, true) | (Binary::Minimum, false) => prefer(a, b),
        (Binary::ClampMin, false) => when(a >= b),
        (Binary::ClampMin, true) => when(a < b),
        (Binary::ClampMax, false) => when(a <= b),
        (Binary::ClampMax, true) => when(a > b),
        (Binary::Pow, false) if b == 0.0 => 0.0,
        (Binary::Pow, false) => b * f64::powf(a, b - 1.0),
        (Binary::Pow, true) if a == 0.0 && b >= 0.0 => 0.0,
        (Binary::Pow, true) => f64::powf(a, b) * f64::ln(a),
        (Binary::Atan2, _) if a == 0.0 && b == 0.0 => 0.0,
        (Binary::Atan2, false) => b / (a * a + b * b),
        (Binary::Atan2, true) => -a / (a * a + b * b),
        (Binary::Fmod, true) => {
            let rest = a % b;
            -if rest.is_nan() { f64::trunc(a / b) } else { f64::round_ties_even((a - rest) / b) }
        }
        (Binary::Prelu | Binary::LeakyRelu | Binary::Elu | Binary::Celu, false) if a > 0.0 => 1.0,
        (Binary::Prelu | Binary::LeakyRelu | Binary::Elu | Binary::Celu, true) if a > 0.0 => 0.0,
        (Binary::Prelu | Binary::LeakyRelu, false) => b,
        (Binary::Prelu | Binary::LeakyRelu, true) => a,
        (Binary::Elu, false) => b * f64::exp(a),
        (Binary::Elu, true) => f64::exp_m1(a),
        (Binary::Celu, false) => f64::exp(a / b),
        (Binary::Celu, true) => f64::exp_m1(a / b) - if a / b < -1e3 { 0.0 } else { a / b * f64::exp(a / b) },
        (Binary::Softplus, rhs) if a * b > 20.0 => when(!rhs),
        (Binary::Softplus, false) => sigmoid(a * b),
        // Even in a·b.
        (Binary::Softplus, true) => {
            let t = (a * b).abs();
            -(t * sigmoid(-t) + f64::ln_1p(f64::exp(-t))) / (b * b)
        }
    }
}

pub(super) fn compare(row: Compare, a: f64, b: f64) -> bool {
    match row {
        Compare::Eq => a == b,
        Compare::Ne => a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
        Compare::And => a != 0.0 && b != 0.0,
        Compare::Or => a != 0.0 || b != 0.0,
        Compare::Xor => (a != 0.0) ^ (b != 0.0),
    }
}

pub(super) fn ternary(row: Ternary, x: f64, a: f64, b: f64, v: f64) -> f64 {
    match row {
        Ternary::Addcmul => x + quotient([v, a, b], []),
        Ternary::Addcdiv => x + quotient([v, a], [b]),
        Ternary::Lerp if b.abs() < 0.5 => x + b * (a - x),
        Ternary::Lerp => a - (a - x) * (1.0 - b),
    }
}

impl Definition for Unary {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|i| unary(*self, x[0].at(i)))])
    }
}

impl Definition for UnaryBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|i| times_derivative(self.0, x[0].at(i), x[1].at(i)))])
    }
}

impl Definition for Binary {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|i| binary(*self, x[0].at(i), x[1].at(i)))])
    }
}

impl Definition for BinaryBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|i| times_partial(self.op, self.rhs, x[0].at(i), x[1].at(i), x[2].at(i)))])
    }
}

impl Scalar {
    /// Both operands.
    fn operands(&self, x: f64) -> (f64, f64) {
        if self.reversed { (self.value, x) } else { (x, self.value) }
    }
}

impl Definition for Scalar {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|i| {
            let (a, b) = self.operands(x[0].at(i));
            binary(self.op, a, b)
        })])
    }
}

impl Definition for ScalarBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|i| {
            let (a, b) = self.0.operands(x[1].at(i));
            times_partial(self.0.op, self.0.reversed, x[0].at(i), a, b)
        })])
    }
}

impl Definition for Compare {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|i| compare(*self, x[0].at(i), x[1].at(i)) as u8 as f64)])
    }
}

impl Definition for Where {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|i| if x[0].at(i) != 0.0 { x[1].at(i) } else { x[2].at(i) })])
    }
}

impl Definition for TernaryOp {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        Ok(vec![each(shapes, &|i| ternary(self.op, x[0].at(i), x[1].at(i), x[2].at(i), self.value))])
    }
}

impl Definition for TernaryBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let TernaryBackward { op, value, operand } = *self;
        let ins = |i: &[usize]| [x[1].at(i), x[2].at(i), x[3].at(i), value];
        Ok(vec![each(shapes, &|i| times_ternary_slope(op, operand, x[0].at(i), ins(i)))])
    }
}
