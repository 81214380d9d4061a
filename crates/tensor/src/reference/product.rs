//! Matrix products.

use std::borrow::Cow;

use super::Dense;
use super::definition::{Definition, each};
use super::elementwise::unary;
#[cfg(feature = "oracle")]
use super::errors::{Roundings, leaves_range, magnitudes, scaled, sound, through};
#[cfg(feature = "oracle")]
use crate::DType;
use crate::Result;
#[cfg(feature = "oracle")]
use crate::format::Format;
use crate::op::{Epilogue, MatMul};
#[cfg(feature = "oracle")]
use crate::op::{Unary, magnitude};

impl Definition for MatMul {
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>> {
        let operand = |i: usize| match self.act_of(i) {
            Some(act) => {
                Cow::Owned(Dense { shape: x[i].shape.clone(), v: x[i].v.iter().map(|&v| unary(act, v)).collect() })
            }
            None => Cow::Borrowed(&x[i]),
        };
        let (a, b) = (operand(0), operand(1));
        let product = each(shapes, &|i| {
            let r = i.len();
            a.along(i, r - 1).zip(b.along(i, r - 2)).map(|(a, b)| a * b).sum()
        });
        let mut outs = finish(product, &self.epilogue, x, |i| i[i.len() - 1]);
        if self.sums {
            outs.push(Dense::from_fn(&shapes[1], |i| x[0].along(&[i[0], 0], 1).sum()));
        }
        Ok(outs)
    }

    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        let plain = MatMul { prologue: None, epilogue: Epilogue { act: None, ..self.epilogue }, sums: self.sums };
        match self.prologue {
            Some(prologue) => {
                let mut errors = product_of(&plain, prologue.act, prologue.operand, x, shapes, by)?;
                if let Some(act) = self.epilogue.act {
                    let z = MatMul { prologue: Some(prologue), ..plain }.evaluate(x, shapes)?.swap_remove(0).v;
                    let passed = |(&z, &off): (&f64, &f64)| {
                        if off == f64::INFINITY { off } else { through(act, z, off, by.u) }
                    };
                    errors.insert(0, z.iter().zip(&errors[0]).map(passed).collect());
                }
                Ok(errors)
            }
            None if self.sums => Ok(scaled(&self.evaluate(&weights(x, by.dtypes), shapes)?, by.e)),
            None => activated(&plain, self.epilogue.act, x, &weights(x, by.dtypes), shapes, by),
        }
    }
}

/// Bias and activation; the value before the activation second, where it is an output.
pub(super) fn finish(
    product: Dense,
    epilogue: &Epilogue,
    x: &[Dense],
    feature: impl Fn(&[usize]) -> usize,
) -> Vec<Dense> {
    let pre = Dense::from_fn(&product.shape, |i| product.at(i) + if epilogue.bias { x[2].v[feature(i)] } else { 0.0 });
    match epilogue.act {
        Some(act) => vec![Dense { shape: pre.shape.clone(), v: pre.v.iter().map(|&v| unary(act, v)).collect() }, pre],
        None => vec![pre],
    }
}

/// The magnitudes that elements count with.
#[cfg(feature = "oracle")]
pub(super) fn weights(x: &[Dense], dtypes: &[DType]) -> Vec<Dense> {
    let of = |(i, x): (usize, &Dense)| Dense {
        shape: x.shape.clone(),
        v: x.v.iter().map(|&v| magnitude(dtypes, i, v)).collect(),
    };
    x.iter().enumerate().map(of).collect()
}

/// A product whose error passes through an activation. The value before it, where that is an output, has the product's
/// own.
#[cfg(feature = "oracle")]
pub(super) fn activated(
    product: &dyn Definition,
    act: Option<Unary>,
    x: &[Dense],
    weights: &[Dense],
    shapes: &[Vec<usize>],
    by: Roundings<'_>,
) -> Result<Vec<Vec<f64>>> {
    let magnitudes = product.evaluate(weights, shapes)?.swap_remove(0);
    let sums = scaled(std::slice::from_ref(&magnitudes), by.e).swap_remove(0);
    let Some(act) = act else { return Ok(vec![sums]) };
    let z = product.evaluate(x, shapes)?.swap_remove(0).v;
    let after = |i: usize| {
        if leaves_range(magnitudes.v[i], by.u) { f64::INFINITY } else { through(act, z[i], sums[i], by.u) }
    };
    Ok(vec![(0..z.len()).map(after).collect(), sums])
}

/// A product one of whose operands is an activation of what is given, rounded to that operand's dtype.
#[cfg(feature = "oracle")]
fn product_of(
    product: &MatMul,
    act: Unary,
    operand: usize,
    x: &[Dense],
    shapes: &[Vec<usize>],
    by: Roundings<'_>,
) -> Result<Vec<Vec<f64>>> {
    // An f32 operand of a product in f64 is activated in f32.
    let rounded = by.dtypes[operand].format().filter(|format| *format != Format::F64);
    let unit = if rounded.is_some() { Format::F32.epsilon() / 2.0 } else { by.u };
    let (mut values, mut errors) = (weights(x, by.dtypes), magnitudes(x));
    for (i, &argument) in x[operand].v.iter().enumerate() {
        let y = unary(act, argument);
        values[operand].v[i] = magnitude(by.dtypes, operand, y);
        errors[operand].v[i] = through(act, argument, 0.0, unit) + rounded.map_or(0.0, |format| format.ulp(y) / 2.0);
    }
    let mut sums = product.evaluate(&values, shapes)?;
    let rounded = product.evaluate(&errors, shapes)?;
    // A second output, sums of the other operand, has none of the activation.
    let rest = scaled(&sums.split_off(1), by.e);
    let first = sums.remove(0).v.into_iter().zip(&rounded[0].v);
    let first =
        first.map(|(sum, r)| if leaves_range(sum, by.u) { f64::INFINITY } else { sound(by.e * sum) + sound(*r) });
    Ok([vec![first.collect()], rest].concat())
}
