//! Connectionist temporal classification (Graves et al. 2006), written as an operator of one's own would be.

use std::sync::Arc;

use binade_tensor::op::{Bound, Builder, Custom, CustomOp, CustomView, Numerics, Reduction, Value};
use binade_tensor::samples::Inputs;
use binade_tensor::{Array, Class, DType, Device, Error as TensorError, Op, Result as TensorResult, Shape};

use super::loss::reduced;
use crate::{Result, Var, apply};

/// Settings of [`Var::ctc_loss`]; defaults are PyTorch's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ctc {
    /// The class that stands for no label.
    pub blank: usize,
    /// Losses that are infinite (a target that does not fit its input) count as 0, with zero gradients.
    pub zero_infinity: bool,
}

/// What both operators know.
#[derive(Debug)]
struct Problem {
    settings: Ctc,
    /// Labels of each sample.
    targets: Vec<Vec<usize>>,
    /// Steps of each sample.
    lengths: Vec<usize>,
}

impl Problem {
    /// Labels with blanks around and between them.
    fn extended(&self, n: usize) -> Vec<usize> {
        let blank = self.settings.blank;
        self.targets[n].iter().flat_map(|&label| [blank, label]).chain([blank]).collect()
    }

    /// Logarithms of the probability of each prefix of the labels at each step, or of each suffix.
    fn walk(&self, n: usize, log_p: &dyn Fn(usize, usize) -> f64, backwards: bool) -> Vec<Vec<f64>> {
        let mut labels = self.extended(n);
        let (t, s) = (self.lengths[n], labels.len());
        if backwards {
            labels.reverse();
        }
        let step = |i: usize| if backwards { t - 1 - i } else { i };
        let mut all: Vec<Vec<f64>> = Vec::with_capacity(t);
        for i in 0..t {
            let row = (0..s)
                .map(|j| {
                    let before = |k: usize| if i == 0 { f64::NEG_INFINITY } else { all[i - 1][k] };
                    let mut total = match (i, j) {
                        (0, 0 | 1) => 0.0,
                        (0, _) => f64::NEG_INFINITY,
                        _ => before(j),
                    };
                    if i > 0 && j >= 1 {
                        total = log_add(total, before(j - 1));
                    }
                    // A blank between different labels may be skipped.
                    if i > 0 && j >= 2 && labels[j] != self.settings.blank && labels[j] != labels[j - 2] {
                        total = log_add(total, before(j - 2));
                    }
                    total + log_p(step(i), labels[j])
                })
                .collect();
            all.push(row);
        }
        if backwards {
            all.reverse();
            all.iter_mut().for_each(|row| row.reverse());
        }
        all
    }

    /// The likelihood's logarithm.
    fn log_likelihood(&self, n: usize, prefixes: &[Vec<f64>]) -> f64 {
        match prefixes.last() {
            Some(last) if last.len() >= 2 => log_add(last[last.len() - 1], last[last.len() - 2]),
            Some(last) => last[0],
            // No steps: certain if there are no labels.
            None if self.targets[n].is_empty() => 0.0,
            None => f64::NEG_INFINITY,
        }
    }

    fn losses(&self, shape: &Shape, x: &dyn Fn(usize) -> f64) -> Vec<f64> {
        let (batch, classes) = (shape[1], shape[2]);
        (0..batch)
            .map(|n| {
                let log_p = |t: usize, c: usize| x((t * batch + n) * classes + c);
                let loss = -self.log_likelihood(n, &self.walk(n, &log_p, false));
                if self.settings.zero_infinity && loss == f64::INFINITY { 0.0 } else { loss }
            })
            .collect()
    }

    /// `−g·γ`, γ the probability of being at a class at a step.
    fn gradient(&self, shape: &Shape, x: &dyn Fn(usize) -> f64, g: &dyn Fn(usize) -> f64) -> Vec<f64> {
        let (batch, classes) = (shape[1], shape[2]);
        let mut dx = vec![0.0; shape.numel()];
        for n in 0..batch {
            let log_p = |t: usize, c: usize| x((t * batch + n) * classes + c);
            let (alpha, beta) = (self.walk(n, &log_p, false), self.walk(n, &log_p, true));
            let total = self.log_likelihood(n, &alpha);
            if self.settings.zero_infinity && total == f64::NEG_INFINITY {
                continue;
            }
            let labels = self.extended(n);
            for t in 0..self.lengths[n] {
                for (s, &label) in labels.iter().enumerate() {
                    // Both walks count the class at this step.
                    let joint = alpha[t][s] + beta[t][s] - log_p(t, label) - total;
                    let possible = alpha[t][s] != f64::NEG_INFINITY && beta[t][s] != f64::NEG_INFINITY;
                    // What cannot be takes no part in a finite loss; an infinite one has no gradient.
                    if possible || !total.is_finite() {
                        dx[(t * batch + n) * classes + label] -= g(n) * joint.exp();
                    }
                }
            }
        }
        dx
    }

    fn check(&self, op: &'static str, shape: &Shape) -> TensorResult<()> {
        let steps = self.lengths.iter().max().copied().unwrap_or(0);
        let label = self.targets.iter().flatten().max().copied().unwrap_or(0).max(self.settings.blank);
        if shape.rank() != 3 || shape[1] != self.targets.len() || shape[0] < steps || shape[2] <= label {
            let expected = format!("expected log-probabilities [T ≥ {steps}, {}, C > {label}]", self.targets.len());
            return Err(TensorError::Shape { op, expected, shapes: vec![*shape] });
        }
        Ok(())
    }

    fn sample(&self, device: &Device, dtype: DType) -> TensorResult<Array> {
        let steps = self.lengths.iter().max().copied().unwrap_or(0);
        let classes = self.targets.iter().flatten().max().copied().unwrap_or(0).max(self.settings.blank) + 2;
        let n = steps * self.targets.len() * classes;
        let values: Vec<f32> = (0..n).map(|i| -0.5 - (i * 7919 % 101) as f32 / 40.0).collect();
        Array::from_slice(device, &values, &[steps, self.targets.len(), classes], Class::Activations)?
            .cast(dtype, Class::Activations)
    }
}

/// `ln(eᵃ + eᵇ)`.
fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The losses `[N]` of log-probabilities `[T, N, C]`.
#[derive(Debug)]
struct Losses(Arc<Problem>);

/// Their gradient: inputs g `[N]`, log-probabilities.
#[derive(Debug)]
struct Gradient(Arc<Problem>);

impl CustomOp for Losses {
    fn name(&self) -> &'static str {
        "ctc_loss"
    }
    fn numerics(&self) -> Numerics {
        Numerics::Neutral
    }
    fn shapes(&self, ins: &[Shape]) -> TensorResult<Vec<Shape>> {
        self.0.check(self.name(), &ins[0])?;
        Ok(vec![Shape::new(&[self.0.targets.len()])?])
    }
    fn define(&self, ins: &[CustomView<'_, f64>], outs: &mut [Vec<f64>]) -> TensorResult<()> {
        outs[0] = self.0.losses(ins[0].shape, &|i| ins[0].values[i]);
        Ok(())
    }
    fn run(&self, ins: &[CustomView<'_, f32>], outs: &mut [Vec<f32>]) -> TensorResult<()> {
        let losses = self.0.losses(ins[0].shape, &|i| ins[0].values[i] as f64);
        outs[0] = losses.into_iter().map(|v| v as f32).collect();
        Ok(())
    }
    fn backward(&self, b: &mut Builder, g: Value, ins: &[Value], _out: Value) -> TensorResult<Vec<Option<Value>>> {
        Ok(vec![Some(b.op(Op::Custom(Custom::new(Gradient(self.0.clone()))), &[g, ins[0]])?)])
    }
    /// In f64, rounded once.
    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.5)
    }
    fn samples(&self, device: &Device, dtype: DType) -> TensorResult<Vec<Inputs>> {
        Ok(vec![vec![self.0.sample(device, dtype)?]])
    }
}

impl CustomOp for Gradient {
    fn name(&self) -> &'static str {
        "ctc_loss_backward"
    }
    fn numerics(&self) -> Numerics {
        Numerics::Neutral
    }
    fn shapes(&self, ins: &[Shape]) -> TensorResult<Vec<Shape>> {
        self.0.check(self.name(), &ins[1])?;
        Ok(vec![ins[1]])
    }
    fn define(&self, ins: &[CustomView<'_, f64>], outs: &mut [Vec<f64>]) -> TensorResult<()> {
        outs[0] = self.0.gradient(ins[1].shape, &|i| ins[1].values[i], &|n| ins[0].values[n]);
        Ok(())
    }
    fn run(&self, ins: &[CustomView<'_, f32>], outs: &mut [Vec<f32>]) -> TensorResult<()> {
        let dx = self.0.gradient(ins[1].shape, &|i| ins[1].values[i] as f64, &|n| ins[0].values[n] as f64);
        outs[0] = dx.into_iter().map(|v| v as f32).collect();
        Ok(())
    }
    fn backward(&self, _b: &mut Builder, _g: Value, _ins: &[Value], _out: Value) -> TensorResult<Vec<Option<Value>>> {
        let message = "has no second-order gradient, as in PyTorch".into();
        Err(TensorError::Argument { op: "ctc_loss", message })
    }
    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.5)
    }
    fn samples(&self, device: &Device, dtype: DType) -> TensorResult<Vec<Inputs>> {
        let g: Vec<f32> = (0..self.0.targets.len()).map(|n| 0.5 + n as f32).collect();
        let g = Array::from_slice(device, &g, &[g.len()], Class::Gradients)?.cast(dtype, Class::Gradients)?;
        Ok(vec![vec![g, self.0.sample(device, dtype)?]])
    }
}

impl Var {
    /// Connectionist temporal classification of log-probabilities (self, `[T, N, C]`). `targets` are labels (i64): `[N,
    /// S]`, of which each row counts as far as its target length, or all labels one after the other. In f64 inside. A
    /// mean divides each loss by its target's length first, as in PyTorch. The gradient is that of the
    /// log-probabilities themselves; PyTorch's adds their softmax, which `log_softmax` before it makes the same.
    ///
    /// # Errors
    /// Lengths and labels that do not fit; labels that are not i64; one that is negative or the blank.
    pub fn ctc_loss(
        &self,
        targets: &Var,
        input_lengths: &[usize],
        target_lengths: &[usize],
        settings: Ctc,
        reduction: Reduction,
    ) -> Result<Var> {
        let fail = |message: String| TensorError::Argument { op: "ctc_loss", message };
        let labels = targets.array().to_vec::<i64>()?;
        let batch = target_lengths.len();
        if input_lengths.len() != batch {
            return Err(fail(format!("{} input lengths for {batch} target lengths", input_lengths.len())).into());
        }
        let padded = targets.shape().rank() == 2;
        let width = if padded { targets.shape()[1] } else { 0 };
        if padded && (targets.shape()[0] != batch || target_lengths.iter().any(|&n| n > width))
            || !padded && target_lengths.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(labels.len())
        {
            let message =
                format!("targets of shape {:?} do not hold labels of lengths {target_lengths:?}", targets.shape());
            return Err(fail(message).into());
        }
        let mut start = 0;
        let mut rows = Vec::with_capacity(batch);
        for (n, &length) in target_lengths.iter().enumerate() {
            let first = if padded { n * width } else { start };
            let class = |&label: &i64| usize::try_from(label).map_err(|_| fail(format!("label {label} is no class")));
            rows.push(labels[first..first + length].iter().map(class).collect::<Result<Vec<usize>, _>>()?);
            start += length;
        }
        if rows.iter().flatten().any(|&label| label == settings.blank) {
            return Err(fail(format!("label {} is the blank", settings.blank)).into());
        }
        let problem = Arc::new(Problem { settings, targets: rows, lengths: input_lengths.to_vec() });
        let each = apply(Op::Custom(Custom::new(Losses(problem))), &[self])?;
        if reduction == Reduction::Mean {
            let lengths: Vec<f32> = target_lengths.iter().map(|&n| n.max(1) as f32).collect();
            let lengths = Array::from_slice(self.array().device(), &lengths, &[batch], Class::Activations)?;
            return each.div(&Var::constant(lengths.cast(each.dtype(), Class::Activations)?))?.mean(&[], false);
        }
        reduced(&each, reduction)
    }
}
