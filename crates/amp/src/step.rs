//! [`ScaledGradients`] → [`UnscaledGradients`] → [`StepOutcome`]: the order of a step as types, and the one
//! implementation of it: [`crate::Training`] is made of them.

use std::slice::{from_mut, from_ref};

use binade_autograd::{Backward, Deferred, Gradients, LeafId, Var};
use binade_nn::{Optimizer, clip_factor, clip_grad_value, inverse};
use binade_tensor::op::Binary;
use binade_tensor::{Array, Class, DType, Op, run_one};

use crate::{Error, GradScaler, Result, StepOutcome};

/// Gradients of a scaled loss: they can be accumulated, and unscaled once. Clipping them does not compile:
///
/// ```compile_fail
/// # fn f(grads: binade_amp::ScaledGradients) {
/// grads.clip_norm(1.0);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "gradients that are not unscaled train nothing"]
pub struct ScaledGradients(Gradients);

/// Gradients of the optimisers' parameters, as the loss without scaling would give them.
///
/// Nothing is written until the step: one pass has read them for their norm, and the optimiser's multiplies by the
/// inverse scale and the clipping factor as it reads.
#[derive(Debug)]
#[must_use = "gradients that no step consumes train nothing"]
pub struct UnscaledGradients {
    /// Those of the optimisers' parameters, with the scales they carry.
    own: Gradients,
    /// Norm of what they stand for.
    norm: f64,
    /// What each stands for, over what it is divided by its scale.
    factor: f64,
    found_inf: bool,
    unclaimed: Vec<String>,
}

impl GradScaler {
    /// Scales the loss and computes its gradients.
    ///
    /// # Errors
    /// As [`Var::backward`].
    pub fn backward(&mut self, loss: &Var) -> Result<ScaledGradients> {
        let lean = Backward { lean: true, ..Backward::default() };
        let grads = self.scale(loss)?.backward_with(lean);
        Ok(ScaledGradients(grads.inspect_err(|_| self.forget_loss())?))
    }
}

impl ScaledGradients {
    /// Adds the gradients of another part of the batch, in f32. The sum is that of the losses: for the mean of parts,
    /// [`UnscaledGradients::divide`].
    ///
    /// # Errors
    /// As [`Gradients::add`].
    pub fn add(&mut self, other: ScaledGradients) -> Result<()> {
        Ok(self.0.add(other.0)?)
    }

    /// Takes the gradients of an optimiser's parameters out, for a loss that several optimisers follow each by itself.
    /// What they share is the first one's.
    pub fn take(&mut self, optimizer: &Optimizer) -> ScaledGradients {
        let own = optimizer.own(&self.0);
        own.iter().for_each(|(id, _)| drop(self.0.remove(id)));
        ScaledGradients(own)
    }

    /// Adds changes that no gradient carries to those that wait for the step.
    pub(crate) fn push_changes(&mut self, changes: Vec<Deferred>) {
        changes.into_iter().for_each(|change| self.0.push_change(change));
    }

    /// Drops all changes that wait: no step will follow.
    pub(crate) fn discard(self) {
        self.0.discard();
    }

    /// Divides the gradients of the optimiser's parameters by the scale they carry, and checks them. The others are
    /// dropped: [`Self::take`] them first.
    ///
    /// # Errors
    /// As [`Self::unscale_all`].
    pub fn unscale(self, scaler: &mut GradScaler, optimizer: &Optimizer) -> Result<UnscaledGradients> {
        self.unscale_all(scaler, from_ref(optimizer))
    }

    /// As [`Self::unscale`], for several optimisers that step together.
    ///
    /// # Errors
    /// [`Error::AlreadyUnscaled`], [`Error::UnscaledAfterStep`]; [`Error::NoGradients`] if none belongs to an
    /// optimiser; a gradient is in use.
    pub fn unscale_all(self, scaler: &mut GradScaler, optimizers: &[Optimizer]) -> Result<UnscaledGradients> {
        Ok(self.unscale_reading(scaler, optimizers, &[])?.0)
    }

    /// As [`Self::unscale_all`], with the values of losses, which are waited for together with the check.
    pub(crate) fn unscale_reading(
        self,
        scaler: &mut GradScaler,
        optimizers: &[Optimizer],
        losses: &[&Array],
    ) -> Result<(UnscaledGradients, Vec<f64>)> {
        let (own, norm, losses) = scaler.check(optimizers, &self.0, losses)?;
        let unclaimed = self.0.unclaimed();
        Ok((UnscaledGradients { own, norm, factor: 1.0, found_inf: !norm.is_finite(), unclaimed }, losses))
    }
}

impl UnscaledGradients {
    /// Their norm, after what was done to them so far; not finite exactly if one of them is not.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// Whether a step with them is applied.
    pub(crate) fn are_finite(&self) -> bool {
        !self.found_inf
    }

    /// Divides them: sums over parts of a batch by the sum of the parts' weights.
    ///
    /// # Errors
    /// [`Error::Setting`] unless `by` is above 0 and finite.
    pub fn divide(&mut self, by: f64) -> Result<()> {
        if !(by > 0.0 && by.is_finite()) {
            return Err(Error::Setting { what: "divisor of gradients", allowed: "above 0 and finite", found: by });
        }
        (self.norm, self.factor) = (self.norm / by, self.factor / by);
        Ok(())
    }

    /// As [`binade_nn::clip_grad_norm`].
    ///
    /// # Errors
    /// [`Error::Setting`] for a norm that is negative or NaN.
    pub fn clip_norm(&mut self, max_norm: f64) -> Result<f64> {
        check_clip(Some(max_norm))?;
        let before = self.norm;
        // Rounded as `clip_grad_norm` rounds it: with a power of two for scale, the same bits.
        let factor = clip_factor(before, max_norm) as f32 as f64;
        (self.norm, self.factor) = (before * factor, self.factor * factor);
        self.found_inf |= !factor.is_finite();
        Ok(before)
    }

    /// As [`clip_grad_value`].
    ///
    /// # Errors
    /// [`Error::Setting`](binade_nn::Error::Setting) for a limit that is negative or NaN; a gradient is in use; out of
    /// memory.
    pub fn clip_value(&mut self, limit: f64) -> Result<()> {
        if self.factor == 0.0 {
            return Ok(());
        }
        // In 16 bit the limit would be rounded.
        let halves = self.own.iter().filter(|(_, g)| g.dtype().is_half());
        let wide = halves.map(|(id, g)| Ok((id, g.cast(DType::F32, Class::Gradients)?))).collect::<Result<Vec<_>>>()?;
        wide.into_iter().for_each(|(id, gradient)| self.own.insert(id, gradient));
        clip_grad_value(&mut self.own, limit / self.factor)?;
        self.norm = binade_nn::grad_norm(&self.own)? * self.factor;
        Ok(())
    }

    /// The gradient of a leaf, in f32 (f64 for f64); `None` if it is none of these.
    ///
    /// # Errors
    /// Out of memory.
    pub fn by_id(&self, id: LeafId) -> Result<Option<Array>> {
        let Some(gradient) = self.own.by_id(id) else { return Ok(None) };
        let value = inverse(self.own.scale_of(id).unwrap_or(1.0)) * self.factor;
        let op = Op::Scalar { op: Binary::Mul, value, reversed: false };
        let want = gradient.dtype().accum();
        Ok(Some(run_one(&op, &[gradient], gradient.device(), want, Class::Gradients)?))
    }

    /// As [`Gradients::unclaimed`], of all gradients of the loss.
    pub fn unclaimed(&self) -> &[String] {
        &self.unclaimed
    }

    /// Steps the optimiser, or skips, and adapts the scale. Whoever ignores which of both happened is warned:
    ///
    /// ```compile_fail
    /// #![deny(unused_must_use)]
    /// # use binade_amp::{GradScaler, Result, UnscaledGradients};
    /// # use binade_nn::Optimizer;
    /// # fn f(grads: UnscaledGradients, scaler: &mut GradScaler, optimizer: &mut Optimizer) -> Result<()> {
    /// grads.step(scaler, optimizer)?;
    /// # Ok(())
    /// # }
    /// ```
    /// ```
    /// #![deny(unused_must_use)]
    /// # use binade_amp::{GradScaler, Result, UnscaledGradients};
    /// # use binade_nn::Optimizer;
    /// # fn f(grads: UnscaledGradients, scaler: &mut GradScaler, optimizer: &mut Optimizer) -> Result<()> {
    /// let _outcome = grads.step(scaler, optimizer)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`GradScaler::step`] and [`GradScaler::update`].
    pub fn step(self, scaler: &mut GradScaler, optimizer: &mut Optimizer) -> Result<StepOutcome> {
        self.step_all(scaler, from_mut(optimizer))
    }

    /// As [`Self::step`], with the optimisers that the gradients were unscaled for: one gradient that is not finite
    /// skips all.
    ///
    /// # Errors
    /// As [`GradScaler::step`] and [`GradScaler::update`].
    pub fn step_all(self, scaler: &mut GradScaler, optimizers: &mut [Optimizer]) -> Result<StepOutcome> {
        let outcome = self.apply(scaler, optimizers)?;
        scaler.update()?;
        Ok(outcome)
    }

    /// Steps the optimisers or skips, and leaves the scale: [`GradScaler::update`] follows when all have stepped that
    /// share it.
    ///
    /// # Errors
    /// As [`GradScaler::step`].
    pub fn apply(self, scaler: &mut GradScaler, optimizers: &mut [Optimizer]) -> Result<StepOutcome> {
        scaler.apply(optimizers, &self.own, self.factor, self.found_inf)
    }
}

/// Fails unless a largest norm is at least 0; infinity clips nothing.
pub(crate) fn check_clip(clip: Option<f64>) -> Result<()> {
    match clip {
        Some(found) if found.is_nan() || found < 0.0 => {
            Err(Error::Setting { what: "largest gradient norm", allowed: "at least 0", found })
        }
        _ => Ok(()),
    }
}
