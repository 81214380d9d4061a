//! Losses.

use super::Dense;
use super::definition::{Definition, each};
use super::elementwise::{binary, sigmoid, unary, when};
use super::functions::{sum_of, times_exp};
use crate::Result;
use crate::op::{Binary, Loss, LossBackward, LossOp, Reduction, Unary};

/// `ln(1 + eᵐ)` without overflow.
fn softplus(m: f64) -> f64 {
    binary(Binary::Maximum, m, 0.0) + f64::ln_1p(f64::exp(-m.abs()))
}

/// Logarithms of probabilities are limited from below (as in PyTorch); NaN stays.
fn limited(log: f64) -> f64 {
    binary(Binary::Maximum, log, -100.0)
}

fn loss(row: Loss, x: f64, t: f64, p: f64) -> f64 {
    let d = (x - t).abs();
    match row {
        Loss::Mse => d * d,
        Loss::L1 => d,
        Loss::SmoothL1 if d < p => d * (d / p) / 2.0,
        Loss::SmoothL1 => d - p / 2.0,
        Loss::Huber if d <= p => d * d / 2.0,
        Loss::Huber => p * (d - p / 2.0),
        Loss::BceWithLogits => binary(Binary::Maximum, x, 0.0) - x * t + f64::ln_1p(f64::exp(-x.abs())),
        Loss::Bce => -(t * limited(f64::ln(x)) + (1.0 - t) * limited(f64::ln_1p(-x))),
        Loss::KlDiv if t == 0.0 => unless_nan(x, 0.0),
        Loss::KlDiv => t * (f64::ln(t) - x),
        Loss::KlDivLog => times_exp(t - x, t),
        Loss::PoissonNll => f64::exp(x) - t * x,
        Loss::PoissonNllRate => x - t * f64::ln(x + p),
        Loss::HingeEmbedding if t > 0.0 => x,
        Loss::HingeEmbedding => unless_nan(t, binary(Binary::Maximum, p - x, 0.0)),
        Loss::SoftMargin => softplus(-(t * x)),
    }
}

/// `y`, or x where that is NaN.
fn unless_nan(x: f64, y: f64) -> f64 {
    if x.is_nan() { x } else { y }
}

/// The derivative by the prediction, or by the target.
fn loss_slope(row: Loss, target: bool, x: f64, t: f64, p: f64) -> f64 {
    let d = x - t;
    let sign = if target { -1.0 } else { 1.0 };
    match row {
        Loss::Mse => sign * 2.0 * d,
        Loss::L1 => sign * unary(Unary::Sign, d),
        Loss::SmoothL1 => sign * if d.abs() < p { d / p } else { unary(Unary::Sign, d) },
        Loss::Huber => sign * binary(Binary::Minimum, binary(Binary::Maximum, d, -p), p),
        Loss::BceWithLogits if target => -x,
        Loss::BceWithLogits => sigmoid(x) - t,
        Loss::Bce if target => limited(f64::ln_1p(-x)) - limited(f64::ln(x)),
        Loss::Bce => d / binary(Binary::Maximum, x * (1.0 - x), 1e-12),
        Loss::KlDiv if target && t == 0.0 => unless_nan(x, 0.0),
        Loss::KlDiv if target => f64::ln(t) - x + 1.0,
        Loss::KlDiv => -t,
        Loss::KlDivLog if target => f64::exp(t) * (t - x + 1.0),
        Loss::KlDivLog => -f64::exp(t),
        Loss::PoissonNll if target => -x,
        Loss::PoissonNll => f64::exp(x) - t,
        Loss::PoissonNllRate if target => -f64::ln(x + p),
        Loss::PoissonNllRate => 1.0 - t / (x + p),
        Loss::HingeEmbedding if target => 0.0,
        Loss::HingeEmbedding if t > 0.0 => 1.0,
        Loss::HingeEmbedding => unless_nan(t, unless_nan(x, -when(x < p))),
        Loss::SoftMargin => -(if target { x } else { t }) * sigmoid(-(t * x)),
    }
}

/// A gradient times the derivative, of which a factor may leave the range though the product does not.
fn times_slope(row: Loss, target: bool, up: f64, [x, t, p]: [f64; 3]) -> f64 {
    match row {
        Loss::KlDivLog if target => times_exp(up * (t - x + 1.0), t),
        Loss::KlDivLog => -times_exp(up, t),
        // All else is nothing beside the exponential, or there is nothing beside it.
        Loss::PoissonNll if !target && (x > 700.0 && t.is_finite() || t == 0.0) => times_exp(up, x),
        Loss::BceWithLogits if !target && t == 0.0 && x < -700.0 => times_exp(up, x),
        Loss::SoftMargin if t * x > 700.0 => -times_exp(up * if target { x } else { t }, -(t * x)),
        row => up * loss_slope(row, target, x, t, p),
    }
}

impl Definition for LossOp {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (LossOp { loss: row, parameter, reduction }, shape) = (self, &shapes[0]);
        let each: Vec<f64> = x[0].v.iter().zip(&x[1].v).map(|(&x, &t)| loss(*row, x, t, *parameter)).collect();
        let n = each.len() as f64;
        Ok(vec![loss_result(*reduction, each, n, shape)])
    }
}

pub(super) fn loss_result(reduction: Reduction, values: Vec<f64>, count: f64, shape: &[usize]) -> Dense {
    match reduction {
        Reduction::None => Dense { shape: shape.to_vec(), v: values },
        Reduction::Sum => Dense { shape: vec![], v: vec![sum_of(values)] },
        Reduction::Mean => Dense { shape: vec![], v: vec![sum_of(values) / count] },
    }
}

impl Definition for LossBackward {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (LossOp { loss, parameter, reduction }, target, g) = (&self.of, &self.target, &x[0]);
        let n = if *reduction == Reduction::Mean { x[1].v.len() as f64 } else { 1.0 };
        let slope = |up, i: &[usize]| times_slope(*loss, *target, up, [x[1].at(i), x[2].at(i), *parameter]);
        Ok(vec![each(shapes, &|i| slope(g.at(i), i) / n)])
    }
}
