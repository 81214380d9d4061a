//! Products with weights of 8-bit integers.

use super::Dense;
use super::conv::convolve;
use super::definition::{Definition, each};
use super::elementwise::unary;
#[cfg(feature = "oracle")]
use super::errors::{Roundings, magnitudes};
#[cfg(feature = "oracle")]
use super::product::activated;
use crate::Result;
use crate::op::{Epilogue, LARGEST, QuantisedConv2d, QuantisedMatMul};

/// The integers nearest to multiples of a scale. The quotient is rounded to f32 before, as kernels divide.
fn integers(x: &Dense, scale: f64) -> Dense {
    let nearest = |v: &f64| match ((v / scale) as f32 as f64).round_ties_even().clamp(-LARGEST, LARGEST) {
        nan if nan.is_nan() => 0.0,
        integer => integer,
    };
    Dense { shape: x.shape.clone(), v: x.v.iter().map(nearest).collect() }
}

/// Sums with their scales, bias and activation. `at` is the number of inputs before the bias.
fn finish(
    sums: Dense,
    last: &Epilogue,
    x: &[Dense],
    factor: f64,
    at: usize,
    output: impl Fn(&[usize]) -> usize,
) -> Dense {
    Dense::from_fn(&sums.shape, |i| {
        let o = output(i);
        let y = sums.at(i) * (x[2].v[o] * factor) + if last.bias { x[at].v[o] } else { 0.0 };
        last.act.map_or(y, |act| unary(act, y))
    })
}

impl Definition for QuantisedMatMul {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let (rounded, factor) = match self.integer {
            true => (integers(&x[0], x[3].v[0]), x[3].v[0]),
            false => (x[0].clone(), 1.0),
        };
        let k = x[1].shape[1];
        let sums = each(shapes, &|i| {
            let w = &x[1].v[i[i.len() - 1] * k..][..k];
            rounded.along(i, i.len() - 1).zip(w).map(|(a, b)| a * b).sum()
        });
        Ok(vec![finish(sums, &self.epilogue, x, factor, 3 + self.integer as usize, |i| i[i.len() - 1])])
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        let plain = QuantisedMatMul { epilogue: Epilogue { act: None, ..self.epilogue }, ..*self };
        only_first(activated(&plain, self.epilogue.act, x, &magnitudes(x), shapes, by)?)
    }
}

impl Definition for QuantisedConv2d {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let factor = x[3].v[0];
        let sums = convolve(&self.conv, &integers(&x[0], factor), &x[1], &shapes[0]);
        Ok(vec![finish(sums, &self.epilogue, x, factor, 4, |i| i[1])])
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        let plain = QuantisedConv2d { epilogue: Epilogue { act: None, ..self.epilogue }, ..*self };
        only_first(activated(&plain, self.epilogue.act, x, &magnitudes(x), shapes, by)?)
    }
}

/// Without the value before the activation, which is no output.
#[cfg(feature = "oracle")]
fn only_first(mut errors: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
    errors.truncate(1);
    Ok(errors)
}
