//! [`GradScaler`]: keeping small f16 gradients above the underflow threshold (Micikevicius et al. 2018).

use std::collections::{HashMap, HashSet};

use binade_autograd::{Gradients, LeafId, Var, scope};
use binade_nn::{Optimizer, clip_factor, grad_norm, scaled_grad_norm};
use binade_tensor::DType;

use crate::loss_scale::check_scale;
use crate::{Error, LossScale, Result, ScalerState};

/// What a step did. A skipped step changed nothing: no parameter, no optimiser state, no running statistics.
#[must_use = "a skipped step must not advance the schedule"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// The parameters were updated.
    Applied,
    /// A gradient was not finite; nothing was changed.
    Skipped,
}

/// Where an optimiser stands between two updates of the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unscaled { found_inf: bool },
    Stepped { found_inf: bool },
}

/// Scales losses, unscales and checks gradients, steps optimisers, adapts the scale: PyTorch's GradScaler.
///
/// Per iteration: `scale` each loss, `backward`, `unscale` (needed before clipping only), `step` each optimiser, `update` once. One
/// scaler serves several losses and optimisers; a gradient that is not finite skips its optimiser's step only. With
/// several backward passes per step (accumulation), unscale when all are in.
///
/// | PyTorch | here |
/// |---|---|
/// | `The growth factor must be > 1.0.`, `The backoff factor must be < 1.0.` | [`Error::Setting`], also for negative factors |
/// | `unscale_() has already been called on this optimizer since the last update().` | [`Error::AlreadyUnscaled`] |
/// | `unscale_() is being called after step().` | [`Error::UnscaledAfterStep`] |
/// | `step() has already been called since the last update().` | [`Error::AlreadyStepped`] |
/// | `No inf checks were recorded for this optimizer.` | [`Error::NoGradients`] |
/// | `No inf checks were recorded prior to update.` | [`Error::NothingChecked`] |
/// | `new_scale should be a float …` | [`Error::Setting`] from [`GradScaler::set_scale`] |
/// | `A GradScaler instance may only be pickled at the beginning of an iteration …` | [`Error::MidStep`] from [`GradScaler::state`] |
/// | `Attempting to unscale FP16 gradients.` | cannot occur: they become f32 first |
/// | `Attempted unscale_ but _scale is None. …` (and step, update) | cannot occur: the scale exists from the start |
/// | `outputs must be a Tensor or an iterable of Tensors`, closures, `The source state dict is empty …` | do not compile |
#[derive(Clone, Debug)]
pub struct GradScaler {
    config: LossScale,
    state: ScalerState,
    stages: HashMap<u64, Stage>,
    recheck: bool,
}

impl GradScaler {
    /// A scaler.
    ///
    /// # Errors
    /// [`Error::Setting`], as [`LossScale::start`].
    pub fn new(config: LossScale) -> Result<GradScaler> {
        Ok(GradScaler { config, state: config.start()?, stages: HashMap::new(), recheck: false })
    }

    /// Whether [`GradScaler::step`] checks gradients again that were unscaled before: clipping may have spoilt them. PyTorch does
    /// not; a further pass over them.
    #[must_use]
    pub fn with_recheck(mut self, recheck: bool) -> GradScaler {
        self.recheck = recheck;
        self
    }

    /// The configuration.
    pub fn config(&self) -> LossScale {
        self.config
    }

    /// Changes the configuration; the scale and the counts stay.
    ///
    /// # Errors
    /// [`Error::Setting`], as [`LossScale::start`].
    pub fn set_config(&mut self, config: LossScale) -> Result<()> {
        config.start()?;
        self.config = config;
        Ok(())
    }

    /// Whether losses are scaled and gradients checked.
    pub fn is_enabled(&self) -> bool {
        self.config != LossScale::Off
    }

    /// The present scale; 1 when off.
    pub fn loss_scale(&self) -> f64 {
        self.state.scale as f64
    }

    /// Sets the scale; the count of good steps stays. PyTorch's `update(new_scale)`.
    ///
    /// # Errors
    /// [`Error::Setting`] if its inverse is not a finite f32 above 0.
    pub fn set_scale(&mut self, scale: impl Into<f64>) -> Result<()> {
        if !self.is_enabled() {
            return Ok(());
        }
        let found = scale.into();
        check_scale(found)?;
        self.state.scale = found as f32;
        self.stages.clear();
        Ok(())
    }

    /// The state to save.
    ///
    /// # Errors
    /// [`Error::MidStep`] between `unscale` or `step` and `update`.
    pub fn state(&self) -> Result<ScalerState> {
        if self.stages.is_empty() { Ok(self.state) } else { Err(Error::MidStep) }
    }

    /// Restores a saved state.
    pub fn load_state(&mut self, state: ScalerState) {
        self.state = state;
        self.stages.clear();
    }

    /// The loss times the scale. The product is made in f32: 65536 itself does not fit f16.
    ///
    /// # Errors
    /// Out of memory.
    pub fn scale(&self, loss: &Var) -> Result<Var> {
        if !self.is_enabled() {
            return Ok(loss.clone());
        }
        let wide = if loss.dtype().is_half() { loss.cast(DType::F32)? } else { loss.clone() };
        Ok((&wide * self.loss_scale())?)
    }

    /// Divides the gradients of an optimiser's parameters by the scale in place and checks that they are finite. Only needed
    /// before clipping.
    ///
    /// # Errors
    /// [`Error::AlreadyUnscaled`], [`Error::UnscaledAfterStep`]; a gradient is in use.
    pub fn unscale(&mut self, optimizer: &Optimizer, grads: &mut Gradients) -> Result<()> {
        if !self.is_enabled() {
            return Ok(());
        }
        match self.stages.get(&optimizer.id()) {
            Some(Stage::Unscaled { .. }) => return Err(Error::AlreadyUnscaled),
            Some(Stage::Stepped { .. }) => return Err(Error::UnscaledAfterStep),
            None => {}
        }
        let ids: HashSet<LeafId> = optimizer.param_ids().collect();
        let found_inf = binade_nn::unscale(grads, Some(&ids), self.inverse())?;
        self.stages.insert(optimizer.id(), Stage::Unscaled { found_inf });
        Ok(())
    }

    /// PyTorch takes the reciprocal in f64 and rounds it to f32. 1 when off.
    fn inverse(&self) -> f64 {
        if self.is_enabled() { (1.0 / self.loss_scale()) as f32 as f64 } else { 1.0 }
    }

    /// Steps the optimiser if all its gradients are finite; else skips, and drops what waited for the step (running statistics).
    ///
    /// Gradients that were not unscaled before stay as they are: the optimiser divides by the scale as it reads them.
    ///
    /// # Errors
    /// [`Error::AlreadyStepped`]; [`Error::NoGradients`] if none belongs to the optimiser; the optimiser fails, and changed
    /// nothing.
    pub fn step(&mut self, optimizer: &mut Optimizer, grads: &Gradients) -> Result<StepOutcome> {
        let own = own(optimizer, grads)?;
        if !self.is_enabled() {
            optimizer.step(&own)?;
            return Ok(StepOutcome::Applied);
        }
        let (factor, found_inf) = match self.stages.get(&optimizer.id()) {
            Some(Stage::Stepped { .. }) => return Err(Error::AlreadyStepped),
            Some(Stage::Unscaled { found_inf }) => (1.0, *found_inf || self.recheck && !grad_norm(&own)?.is_finite()),
            None => (self.inverse(), !scaled_grad_norm(&own, self.inverse())?.is_finite()),
        };
        self.apply(optimizer, &own, factor, found_inf)
    }

    /// Unscaling, check, norm, clipping and step of gradients that are still scaled, in two passes: one that reads them for the norm, which
    /// also tells whether they are finite, and the optimiser's, which multiplies by the inverse scale and the clipping factor as it
    /// reads. Also the norm of the unscaled gradients. Without loss scaling too, gradients that are not finite skip the step.
    ///
    /// # Errors
    /// As [`GradScaler::step`].
    pub(crate) fn step_clipped(
        &mut self,
        optimizer: &mut Optimizer,
        grads: &Gradients,
        max_norm: Option<f64>,
    ) -> Result<(StepOutcome, f64)> {
        let own = own(optimizer, grads)?;
        let inverse = self.inverse();
        let norm = scaled_grad_norm(&own, inverse)?;
        // Rounded as `clip_grad_norm` rounds it: with a power of two for scale, the same bits.
        let factor = inverse * max_norm.map_or(1.0, |max| clip_factor(norm, max)) as f32 as f64;
        let found_inf = !(norm.is_finite() && factor.is_finite());
        Ok((self.apply(optimizer, &own, factor, found_inf)?, norm))
    }

    fn apply(&mut self, optimizer: &mut Optimizer, own: &Gradients, factor: f64, found_inf: bool) -> Result<StepOutcome> {
        if found_inf {
            scope::discard();
        } else {
            optimizer.step_scaled(own, factor)?;
        }
        if self.is_enabled() {
            self.stages.insert(optimizer.id(), Stage::Stepped { found_inf });
        }
        Ok(if found_inf { StepOutcome::Skipped } else { StepOutcome::Applied })
    }

    /// Adapts the scale; call once per iteration, after all steps.
    ///
    /// # Errors
    /// [`Error::NothingChecked`] without `unscale` or `step` since the last update; [`Error::ScaleCollapsed`] if gradients are still not
    /// finite after [`crate::Dynamic::patience`] steps at the smallest scale.
    pub fn update(&mut self) -> Result<()> {
        if !self.is_enabled() {
            return Ok(());
        }
        if self.stages.is_empty() {
            return Err(Error::NothingChecked);
        }
        let bad = |s: &Stage| matches!(s, Stage::Unscaled { found_inf: true } | Stage::Stepped { found_inf: true });
        let found_inf = self.stages.drain().any(|(_, stage)| bad(&stage));
        self.state = self.config.next(self.state, found_inf);
        if found_inf && self.config.collapsed(self.state) {
            return Err(Error::ScaleCollapsed { scale: self.state.scale, steps: self.state.at_floor });
        }
        Ok(())
    }
}

/// The gradients of an optimiser's parameters.
fn own(optimizer: &Optimizer, grads: &Gradients) -> Result<Gradients> {
    let own = optimizer.own(grads);
    if own.is_empty() { Err(Error::NoGradients) } else { Ok(own) }
}
