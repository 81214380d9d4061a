//! Losses, under PyTorch's names. Elementwise ones run in one pass (see [`Loss`]); the others are written in operators.

use binade_tensor::op::{Binary, Compare, CrossEntropy, Loss, Numerics, Reduction};
use binade_tensor::{Array, Class, Op};

use super::composed;
use crate::{Result, Var, apply};

/// How a loss is reduced, with PyTorch's fourth way for divergences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KlReduction {
    /// As other losses.
    By(Reduction),
    /// The sum divided by the batch size: the mathematical definition.
    BatchMean,
}

/// Losses of a prediction (self) and a target. `Reduction::Mean` is PyTorch's default. In an autocast region they
/// compute and return f32.
impl Var {
    /// Cross-entropy of logits `[N, C, …]` (self) and class indices (i64) `[N, …]`.
    ///
    /// # Errors
    /// Shapes do not fit; a class is out of range.
    pub fn cross_entropy(&self, target: &Var, loss: CrossEntropy) -> Result<Var> {
        apply(Op::CrossEntropy(loss), &[self, target])
    }

    /// An elementwise [`Loss`] with its parameter.
    ///
    /// # Errors
    /// Shapes differ; [`Loss::Bce`] inside an autocast region.
    pub fn loss(&self, target: &Var, loss: Loss, parameter: f64, reduction: Reduction) -> Result<Var> {
        apply(Op::Loss { loss, parameter, reduction }, &[self, target])
    }

    /// Mean squared error `(x − t)²`.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn mse_loss(&self, target: &Var, reduction: Reduction) -> Result<Var> {
        self.loss(target, Loss::Mse, 0.0, reduction)
    }

    /// Absolute error `|x − t|`.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn l1_loss(&self, target: &Var, reduction: Reduction) -> Result<Var> {
        self.loss(target, Loss::L1, 0.0, reduction)
    }

    /// Quadratic below `beta` (PyTorch: 1), absolute above; `beta = 0` is the absolute error.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn smooth_l1_loss(&self, target: &Var, beta: f64, reduction: Reduction) -> Result<Var> {
        self.loss(target, Loss::SmoothL1, beta, reduction)
    }

    /// Huber's loss with threshold `delta` (PyTorch: 1).
    ///
    /// # Errors
    /// Shapes differ.
    pub fn huber_loss(&self, target: &Var, delta: f64, reduction: Reduction) -> Result<Var> {
        self.loss(target, Loss::Huber, delta, reduction)
    }

    /// Binary cross-entropy of logits (self) and probabilities. `weight` multiplies each loss, `positive` the part of
    /// positive targets; both broadcast.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn bce_with_logits(
        &self,
        target: &Var,
        weight: Option<&Var>,
        positive: Option<&Var>,
        reduction: Reduction,
    ) -> Result<Var> {
        if weight.is_none() && positive.is_none() {
            return self.loss(target, Loss::BceWithLogits, 0.0, reduction);
        }
        let one = target.constant_like(1.0)?;
        let operands = [self, target, weight.unwrap_or(&one), positive.unwrap_or(&one)];
        composed(Numerics::F32, operands, |[x, t, w, p]| {
            let mut each = x.loss(t, Loss::BceWithLogits, 0.0, Reduction::None)?;
            if positive.is_some() {
                // l + (w − 1)·t·(−ln σ(x))
                each = each.sub(&(p - 1.0)?.mul(t)?.mul(&x.logsigmoid()?)?)?;
            }
            if weight.is_some() {
                each = each.mul(w)?;
            }
            reduced(&each, reduction)
        })
    }

    /// Binary cross-entropy of probabilities. Inside an autocast region an error, as in PyTorch: use
    /// [`Var::bce_with_logits`].
    ///
    /// # Errors
    /// Shapes differ; an autocast region.
    pub fn bce(&self, target: &Var, weight: Option<&Var>, reduction: Reduction) -> Result<Var> {
        match weight {
            None => self.loss(target, Loss::Bce, 0.0, reduction),
            Some(weight) => composed(Numerics::F32, [self, target, weight], |[x, t, w]| {
                reduced(&x.loss(t, Loss::Bce, 0.0, Reduction::None)?.mul(w)?, reduction)
            }),
        }
    }

    /// Kullback-Leibler divergence of log-probabilities (self) from a target, which is itself logarithmic if
    /// `log_target`.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn kl_div(&self, target: &Var, log_target: bool, reduction: KlReduction) -> Result<Var> {
        let loss = if log_target { Loss::KlDivLog } else { Loss::KlDiv };
        match reduction {
            KlReduction::By(reduction) => self.loss(target, loss, 0.0, reduction),
            KlReduction::BatchMean => {
                let batch = self.shape().first().copied().unwrap_or(1) as f64;
                composed(Numerics::F32, [self, target], |[x, t]| &x.loss(t, loss, 0.0, Reduction::Sum)? / batch)
            }
        }
    }

    /// Poisson likelihood of counts; self is the logarithm of the rate, or the rate if not `log_input` (then `eps`,
    /// PyTorch: 1e-8, keeps its logarithm finite). `full` adds Stirling's term `t·ln t − t + ½·ln(2πt)` where t > 1.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn poisson_nll_loss(
        &self,
        target: &Var,
        log_input: bool,
        full: bool,
        eps: f64,
        reduction: Reduction,
    ) -> Result<Var> {
        let loss = if log_input { Loss::PoissonNll } else { Loss::PoissonNllRate };
        if !full {
            return self.loss(target, loss, eps, reduction);
        }
        composed(Numerics::F32, [self, target], |[x, t]| {
            let each = x.loss(t, loss, eps, Reduction::None)?;
            let half = (&(t * (2.0 * std::f64::consts::PI))?.log()? * 0.5)?;
            let stirling = t.mul(&t.log()?)?.sub(t)?.add(&half)?;
            let large = t.compare(Compare::Gt, &t.constant_like(1.0)?)?;
            reduced(&each.add(&stirling.where_(&large, &t.constant_like(0.0)?)?)?, reduction)
        })
    }

    /// `t = 1 ? x : max(margin − x, 0)` for labels ±1.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn hinge_embedding_loss(&self, target: &Var, margin: f64, reduction: Reduction) -> Result<Var> {
        self.loss(target, Loss::HingeEmbedding, margin, reduction)
    }

    /// `ln(1 + e^(−t·x))` for labels ±1.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn soft_margin_loss(&self, target: &Var, reduction: Reduction) -> Result<Var> {
        self.loss(target, Loss::SoftMargin, 0.0, reduction)
    }

    /// `max(0, −t·(x₁ − x₂) + margin)` for labels ±1: x₁ (self) should rank higher where t = 1.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn margin_ranking_loss(&self, other: &Var, target: &Var, margin: f64, reduction: Reduction) -> Result<Var> {
        composed(Numerics::F32, [self, other, target], |[a, b, t]| {
            reduced(&a.sub(b)?.mul(t)?.scalar(Binary::Sub, margin, true)?.relu()?, reduction)
        })
    }

    /// `max(0, ‖a − p‖ₚ − ‖a − n‖ₚ + margin)` of an anchor (self), a positive and a negative example `[N, D]`, with
    /// exponent `p` (PyTorch: 2) and 1e-6 added to each difference.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn triplet_margin_loss(
        &self,
        positive: &Var,
        negative: &Var,
        margin: f64,
        p: f64,
        reduction: Reduction,
    ) -> Result<Var> {
        composed(Numerics::F32, [self, positive, negative], |[a, positive, negative]| {
            let distance = |b: &Var| (&a.sub(b)? + 1e-6)?.vector_norm(p, &[-1], false);
            let gap = distance(positive)?.sub(&distance(negative)?)?;
            reduced(&(&gap + margin)?.relu()?, reduction)
        })
    }

    /// `t = 1 ? 1 − cos(x₁, x₂) : max(0, cos(x₁, x₂) − margin)` for `[N, D]` and labels ±1.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn cosine_embedding_loss(&self, other: &Var, target: &Var, margin: f64, reduction: Reduction) -> Result<Var> {
        composed(Numerics::F32, [self, other, target], |[a, b, t]| {
            // PyTorch adds 1e-12 to both squares here, unlike its cosine_similarity: as a further element 1e-6. Each by
            // itself, over a power of two: products of numbers and of lengths, and lengths, may be too small or large.
            let unit = |v: &Var| -> Result<Var> {
                let mut column = v.shape().to_vec();
                if let Some(last) = column.last_mut() {
                    *last = 1;
                }
                let unit = v.unit(2.0, -1, 1e-6)?;
                let (v, further) = (v.div(&unit)?, v.full_like(&column, 1e-6)?.div(&unit)?);
                let length = Var::cat(&[&v, &further], -1)?.vector_norm(2.0, &[-1], true)?;
                v.div(&length)
            };
            let cosine = unit(a)?.mul(&unit(b)?)?.sum(&[-1], false)?;
            let near = cosine.scalar(Binary::Sub, 1.0, true)?;
            let far = (&cosine - margin)?.relu()?;
            let each = near.where_(&t.compare_scalar(Compare::Gt, 0.0)?, &far)?;
            // A label that is NaN compares as −1 does.
            reduced(&each.masked_fill(&t.isnan()?, f64::NAN)?, reduction)
        })
    }

    /// Gaussian likelihood of a target with predicted mean (self) and variance: `½(ln max(v, eps) + (x − t)²/max(v,
    /// eps))` (PyTorch: eps 1e-6), without the constant.
    ///
    /// # Errors
    /// Shapes do not broadcast.
    pub fn gaussian_nll_loss(&self, target: &Var, variance: &Var, eps: f64, reduction: Reduction) -> Result<Var> {
        composed(Numerics::F32, [self, target, variance], |[x, t, v]| {
            // At the limit the variance gets the gradient of the limit itself, as in PyTorch: eps + (v − v).
            let limit = (&v.sub(&v.detach())? + eps)?;
            let v = limit.where_(&v.compare_scalar(Compare::Lt, eps)?, v)?;
            let distance = x.sub(t)?;
            // The quotient before the square, which may leave the range.
            let square = distance.mul(&distance.div(&v)?)?;
            reduced(&(&v.log()?.add(&square)? * 0.5)?, reduction)
        })
    }

    /// A number as a tensor of this one's dtype.
    pub(crate) fn constant_like(&self, value: f64) -> Result<Var> {
        let array = self.array();
        Ok(Var::constant(Array::full(
            array.device(),
            array.dtype(),
            binade_tensor::Shape::SCALAR,
            value,
            Class::Activations,
        )?))
    }
}

/// A loss per element, reduced.
pub(crate) fn reduced(each: &Var, reduction: Reduction) -> Result<Var> {
    match reduction {
        Reduction::None => Ok(each.clone()),
        Reduction::Mean => each.mean(&[], false),
        Reduction::Sum => each.sum(&[], false),
    }
}
