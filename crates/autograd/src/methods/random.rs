//! Random values from the scope's stream, and dropout.

use binade_tensor::op::{Binary, Compare, Distribution};
use binade_tensor::{DType, Error as TensorError, Op, Shape};

use crate::{Result, Var, apply, scope};

/// Random values: the same for the same key, whatever the number of threads.
impl Var {
    /// Random values from the scope's stream on the scope's device, f32 unless a cast rule says otherwise.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn random(distribution: Distribution, shape: &[usize]) -> Result<Var> {
        apply(Op::Random { distribution, shape: Shape::new(shape)?, key: scope::next_key() }, &[])
    }

    /// Uniform in `low..high` (f32).
    ///
    /// # Errors
    /// The shape is too large; the same for the others.
    pub fn uniform(low: f64, high: f64, shape: &[usize]) -> Result<Var> {
        Var::random(Distribution::Uniform { low, high }, shape)
    }

    /// Normal with mean and standard deviation (f32).
    ///
    /// # Errors
    /// The shape is too large.
    pub fn normal(mean: f64, std: f64, shape: &[usize]) -> Result<Var> {
        Var::random(Distribution::Normal { mean, std }, shape)
    }

    /// Integers in `low..high` (i64).
    ///
    /// # Errors
    /// The range is empty.
    pub fn randint(low: i64, high: i64, shape: &[usize]) -> Result<Var> {
        Var::random(Distribution::Integers { low, high }, shape)
    }

    /// A permutation of `0..n` (i64).
    ///
    /// # Errors
    /// Out of memory.
    pub fn randperm(n: usize) -> Result<Var> {
        let shape = Shape::new(&[n])?;
        apply(Op::Random { distribution: Distribution::Permutation, shape, key: scope::next_key() }, &[])
    }

    /// 1 with the probability each element gives, else 0, in the tensor's dtype; no gradient.
    ///
    /// # Errors
    /// A probability outside 0 to 1.
    pub fn bernoulli(&self) -> Result<Var> {
        if let Some(bad) = self.array().to_f64_vec()?.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            let message = format!("probabilities must lie in 0 to 1, got {bad}");
            return Err(TensorError::Argument { op: "bernoulli", message }.into());
        }
        let draw = self.draw(self.shape())?;
        draw.compare(Compare::Lt, &self.detach())?.cast(self.dtype())
    }

    /// `samples` draws (i64) from each row of non-negative weights `[…, C]`, with or without replacement. Without: the
    /// largest of `ln w − ln(−ln u)` (Gumbel's trick, Efraimidis and Spirakis 2006). Computed in f32, as draws have 24
    /// bits, or in the weights' f64.
    ///
    /// # Errors
    /// A weight is negative or not finite, or a row has none; more draws without replacement than weights that are not
    /// 0; more than 2²⁴ weights in a row.
    pub fn multinomial(&self, samples: usize, replacement: bool) -> Result<Var> {
        let classes = self.shape().last().copied().unwrap_or(0);
        let weights = self.array().to_f64_vec()?;
        for row in weights.chunks(classes.max(1)) {
            let positive = row.iter().filter(|w| **w > 0.0).count();
            let sound = row.iter().all(|w| w.is_finite() && *w >= 0.0);
            if !sound || positive == 0 || !replacement && samples > positive {
                let message =
                    "each row needs finite weights ≥ 0, one above 0, and as many as draws without replacement";
                return Err(TensorError::Argument { op: "multinomial", message: message.into() }.into());
            }
        }
        if !(1..=1 << 24).contains(&classes) {
            let message = format!("a row has 1 to 16777216 weights, got {classes}");
            return Err(TensorError::Argument { op: "multinomial", message }.into());
        }
        let dtype = if self.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let x = self.detach().cast(dtype)?;
        let mut shape = self.shape().to_vec();
        if !replacement {
            let u = self.draw(&shape)?.cast(dtype)?.scalar(Binary::Maximum, 1e-12, false)?;
            let gumbel = u.log()?.neg()?.log()?.neg()?;
            return Ok(x.log()?.add(&gumbel)?.topk(samples, -1, true)?.1);
        }
        // The number of classes whose running share does not exceed the draw.
        if let Some(last) = shape.last_mut() {
            *last = samples;
        }
        let rank = shape.len();
        // Parts of the largest weight, since a sum of weights may leave the range; and shares of the last running sum:
        // where no weight follows but 0, the share is 1, which no draw reaches.
        let running = x.div(&x.amax(&[-1], true)?)?.cumsum(-1)?;
        let share = running.div(&running.narrow(-1, classes - 1, 1)?)?.unsqueeze(rank - 1)?;
        let draw = self.draw(&shape)?.cast(dtype)?.unsqueeze(rank)?;
        share.compare(Compare::Le, &draw)?.cast(dtype)?.sum(&[-1], false)?.cast(DType::I64)
    }

    /// Uniform in 0 to 1, where this tensor is.
    fn draw(&self, shape: &[usize]) -> Result<Var> {
        scope::with_device(self.array().device(), || Var::uniform(0.0, 1.0, shape))
    }

    /// Dropout in training mode, the identity in evaluation. Draws from the scope's stream.
    ///
    /// # Errors
    /// `p` is outside 0 to 1.
    pub fn dropout(&self, p: f64) -> Result<Var> {
        probability("dropout", p)?;
        if !scope::is_training() || p == 0.0 {
            return Ok(self.clone());
        }
        apply(Op::Dropout { p, key: scope::next_key() }, &[self])
    }
}

/// Fails unless `p` is a probability: also where nothing drops out, as in PyTorch.
pub(super) fn probability(op: &'static str, p: f64) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(TensorError::Argument { op, message: format!("p must lie in 0 to 1, got {p}") }.into())
}
