//! Operators against the reference in f64, and the error bounds that they state.

use std::sync::OnceLock;

use crate::format::Format;
use crate::op::{Backward, Bound, magnitude};
use crate::{Array, Arrays, Class, DType, Device, Op, Request, Result, reference, run};

/// What a check of an operator saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Check {
    /// Largest error beyond the rounding of the result, as a part of the stated bound: above 1 the bound is broken.
    pub used: f64,
    /// Largest error of an element, in ulp of the output's dtype.
    pub ulps: f64,
    /// Elements compared.
    pub elements: usize,
    /// Elements that differ from the exact value rounded once.
    pub misrounded: usize,
}

/// The format of a dtype.
fn format(dtype: DType) -> Format {
    dtype.format().unwrap_or(Format::F32)
}

/// What `f` makes of the values in f64, on another device in row-major order; indices as they are. In f64, because
/// results of an input's dtype would be rounded to it, and then again as what is compared with.
fn on(device: &Device, array: &Array, f: impl Fn(f64) -> f64) -> Result<Array> {
    if !array.dtype().is_float() {
        let dense = array.contiguous(Class::Workspace)?;
        return Array::from_bytes(
            device,
            array.dtype(),
            &dense.device().download(&dense)?,
            array.shape(),
            Class::Activations,
        );
    }
    let wide: Vec<f64> = array.to_f64_vec()?.into_iter().map(f).collect();
    Array::from_slice(device, &wide, array.shape(), Class::Activations)
}

fn apply(op: &Op, ins: &[Array], device: &Device, want: DType) -> Result<Arrays> {
    run(Request::new(op, &ins.iter().collect::<Vec<_>>(), device, want, Class::Activations))
}

/// The operator as kernels compute it: its number is rounded to the computation's dtype.
fn with_rounded_numbers(op: &Op, ins: &[Array]) -> Op {
    let round = |value: f64| if ins.iter().any(|a| a.dtype() == DType::F64) { value } else { value as f32 as f64 };
    let mut op = op.clone();
    if let Op::Scalar { value, .. }
    | Op::Ternary { value, .. }
    | Op::Loss { parameter: value, .. }
    | Op::Backward(
        Backward::Scalar { value, .. } | Backward::Ternary { value, .. } | Backward::Loss { parameter: value, .. },
    ) = &mut op
    {
        *value = round(*value);
    }
    op
}

/// What the reference in f64 makes of an operator's inputs: computed once, compared with as many devices and dtypes as
/// there are.
#[derive(Debug)]
pub struct Exact {
    /// The values of the inputs.
    ins: Vec<reference::Dense>,
    outs: Arrays,
    /// The operator on the magnitudes of its inputs, where the bound is by the sum of the terms' magnitudes.
    sums: Option<Arrays>,
    /// The operator on ones, and NaN where its inputs have it, where infinities may meet factors of 0: NaN that comes
    /// of these depends on the order of the factors.
    nans: Option<Arrays>,
    /// The errors that kernels may make where the bound is by the terms, which take as long as the operator: of those
    /// that compute in f32, and in f64.
    errors: [OnceLock<Vec<Vec<f64>>>; 2],
}

impl Exact {
    /// Runs the reference on the values of the inputs, whatever their device and layout.
    ///
    /// # Errors
    /// The operator fails.
    pub fn of(op: &Op, ins: &[Array]) -> Result<Exact> {
        let reference = Device::reference();
        let op = &with_rounded_numbers(op, ins);
        let there = ins.iter().map(|a| on(&reference, a, |v| v)).collect::<Result<Vec<_>>>()?;
        let outs = apply(op, &there, &reference, DType::F64)?;
        let sums = match op.bound(&ins.iter().collect::<Vec<_>>()) {
            Bound::Gamma(_) => {
                // Infinities are exact: what is asked is how large the finite terms are.
                let dtypes: Vec<DType> = ins.iter().map(Array::dtype).collect();
                let aligned = matches!(
                    op,
                    Op::MatMul(_)
                        | Op::Conv2d(..)
                        | Op::ConvTranspose2d { .. }
                        | Op::Backward(Backward::Conv2dInput { .. } | Backward::Conv2dWeight { .. })
                );
                let size = |i: usize, v: f64| match v.is_infinite() {
                    true => 0.0,
                    false if aligned => magnitude(&dtypes, i, v),
                    false => v.abs(),
                };
                let absolute = (0..).zip(ins).map(|(i, a)| on(&reference, a, |v| size(i, v)));
                let absolute = absolute.collect::<Result<Vec<_>>>()?;
                Some(apply(op, &absolute, &reference, DType::F64)?)
            }
            Bound::Ulps(_) | Bound::Scale(_) | Bound::Operand(_) | Bound::Terms(_) => None,
        };
        let nans = if matches!(op, Op::Backward(Backward::CumProd { .. })) {
            let one = |v: f64| if v.is_nan() { v } else { 1.0 };
            let ones = ins.iter().map(|a| on(&reference, a, one)).collect::<Result<Vec<_>>>()?;
            Some(apply(op, &ones, &reference, DType::F64)?)
        } else {
            None
        };
        Ok(Exact { ins: dense(&there)?, outs, sums, nans, errors: Default::default() })
    }

    /// Runs the operator on `device`, where `ins` are with the same dtypes and values, and compares.
    ///
    /// # Errors
    /// The operator fails.
    pub fn check(&self, op: &Op, ins: &[Array], device: &Device, dtype: DType) -> Result<(Check, Option<String>)> {
        let ours = apply(op, ins, device, dtype)?;
        let bound = op.bound(&ins.iter().collect::<Vec<_>>());
        let computing = if dtype == DType::F64 { Format::F64 } else { Format::F32 };
        let u = computing.epsilon() / 2.0;
        let mut largest_in: f64 = 0.0;
        for (_, values) in ins.iter().zip(&self.ins).filter(|(array, _)| array.dtype().is_float()) {
            largest_in = values.v.iter().filter(|v| v.is_finite()).fold(largest_in, |m, v| m.max(v.abs()));
        }
        let first = self.ins.first().map_or(&[][..], |first| &first.v);
        let none = Vec::new();
        let errors = match bound {
            Bound::Terms(n) => self.errors(op, ins, n, (computing == Format::F64, u))?,
            Bound::Ulps(_) | Bound::Gamma(_) | Bound::Scale(_) | Bound::Operand(_) => &none,
        };
        let padded = reference::padding_meets_infinity(op, &self.ins, &shapes(&self.outs));
        // A slope that vanishes in the computing type makes NaN of an infinite gradient, as does a weight of softmax,
        // which multiplies the sum of all.
        let elementwise =
            matches!(op, Op::Backward(Backward::Unary(_) | Backward::Binary { .. } | Backward::Scalar { .. }));
        let weighs = matches!(op, Op::Backward(Backward::Softmax { .. })) && first.iter().any(|g| g.is_infinite());
        let infinite = |i: usize| weighs || elementwise && first.get(i).is_some_and(|g| g.is_infinite());
        // A rounding changes a number of this magnitude by as much: below the normal range by half the smallest number.
        let rounding_of = |magnitude: f64| u * magnitude + computing.min_subnormal() / 2.0;
        let (mut seen, mut failure) = (Check::default(), None);
        for (k, (ours, exact)) in ours.iter().zip(&self.outs).enumerate() {
            // Memory is moved as it lies: the device is not asked to put it in order.
            let (values, wanted) = (ours.to(&Device::reference())?.to_f64_vec()?, exact.to_f64_vec()?);
            let largest = wanted.iter().filter(|v| v.is_finite()).fold(largest_in, |m, v| m.max(v.abs()));
            let sums = match &self.sums {
                Some(sums) => Some(sums[k].to_f64_vec()?),
                None => None,
            };
            let nans = match &self.nans {
                Some(nans) => Some(nans[k].to_f64_vec()?),
                None => None,
            };
            let out = format(ours.dtype());
            seen.elements += values.len();
            for (i, (&v, &w)) in values.iter().zip(&wanted).enumerate() {
                if v == out.round(w) || v.is_nan() && w.is_nan() {
                    continue;
                }
                if v.is_nan() && padded.get(k).is_some_and(|marks| marks[i]) {
                    continue;
                }
                if v.is_nan() && w.is_infinite() && infinite(i) {
                    continue;
                }
                if !v.is_finite() && !w.is_finite() && nans.as_ref().is_some_and(|n| !n[i].is_nan()) {
                    continue;
                }
                let sum = sums.as_ref().map_or(0.0, |s| s[i]);
                // Terms that together leave the range may do so on the way, though the result need not.
                if !v.is_finite() && sum.is_finite() && sum > computing.max_finite() {
                    continue;
                }
                let error = match bound {
                    Bound::Ulps(n) => n * computing.ulp(w),
                    Bound::Gamma(n) => n * rounding_of(sum),
                    Bound::Scale(n) => n * rounding_of(largest),
                    Bound::Operand(n) => n * rounding_of(w.abs().max(first.get(i).map_or(0.0, |v: &f64| v.abs()))),
                    Bound::Terms(n) if errors[k][i].is_nan() => n * rounding_of(w.abs()),
                    Bound::Terms(n) => errors[k][i] + n * rounding_of(0.0),
                };
                if matches!(bound, Bound::Terms(_)) && error == f64::INFINITY {
                    continue;
                }
                let error = if error.is_finite() { error } else { 0.0 };
                // In f64 the reference itself has errors of this size.
                let error = if dtype == DType::F64 { 4.0 * error + out.ulp(w) } else { error };
                // Where the bound reaches beyond the output's range, so may the result.
                if v.is_infinite() && out.round(w + error.copysign(v)) == v {
                    continue;
                }
                let rounding = 0.5 * out.ulp(w.abs() + error);
                let off = (v - w).abs();
                seen.misrounded += 1;
                seen.ulps = seen.ulps.max(off / out.ulp(w));
                seen.used = seen.used.max((off - rounding).max(0.0) / error.max(f64::MIN_POSITIVE));
                if (off.is_nan() || off > error + rounding) && failure.is_none() {
                    failure = Some(format!(
                        "{op:?} {dtype}, output {k}, element {i}: {v:e}, exact {w:e}, off by {off:e}, allowed {:e}",
                        error + rounding
                    ));
                }
            }
        }
        Ok((seen, failure))
    }
}

/// Copies of inputs.
fn dense(ins: &[Array]) -> Result<Vec<reference::Dense>> {
    ins.iter().map(|a| Ok(reference::Dense { shape: a.shape().to_vec(), v: a.to_f64_vec()? })).collect()
}

fn shapes(outs: &Arrays) -> Vec<Vec<usize>> {
    outs.iter().map(|a| a.shape().to_vec()).collect()
}

impl Exact {
    fn errors(&self, op: &Op, ins: &[Array], terms: f64, (wide, u): (bool, f64)) -> Result<&Vec<Vec<f64>>> {
        let known = &self.errors[wide as usize];
        Ok(match known.get() {
            Some(errors) => errors,
            None => {
                let dtypes = ins.iter().map(|a| a.dtype()).collect::<Vec<_>>();
                let errors = reference::errors(op, &self.ins, &dtypes, &shapes(&self.outs), terms, u)?;
                known.get_or_init(|| errors)
            }
        })
    }
}

/// Runs an operator on `device` and compares it with the reference in f64.
///
/// # Errors
/// The operator fails.
pub fn check_op(op: &Op, ins: &[Array], device: &Device, dtype: DType) -> Result<(Check, Option<String>)> {
    Exact::of(op, ins)?.check(op, ins, device, dtype)
}
