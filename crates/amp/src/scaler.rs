//! [`GradScaler`]: keeping small f16 gradients above the underflow threshold (Micikevicius et al. 2018).

use std::collections::{HashMap, HashSet};

use binade_autograd::{Gradients, LeafId, Var};
use binade_nn::{Optimizer, StepOutcome, clip_factor, grad_norm};

use crate::loss_scale::check_scale;
use crate::{Error, LossScale, Result, ScalerState};

/// Where an optimiser stands between two updates of the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unscaled { found_inf: bool },
    Stepped { found_inf: bool },
}

impl Stage {
    fn found_inf(self) -> bool {
        match self {
            Stage::Unscaled { found_inf } | Stage::Stepped { found_inf } => found_inf,
        }
    }
}

/// Scales losses, unscales and checks gradients, steps optimisers, adapts the scale: PyTorch's GradScaler.
///
/// Per iteration: `scale` each loss, `backward`, `unscale` (needed before clipping only), `step` each optimiser,
/// `update` once. One scaler serves several losses and optimisers; a gradient that is not finite skips its optimiser's
/// step only. With several backward passes per step (accumulation), unscale when all are in.
///
/// Gradients carry the scale that their loss was given, and are divided by that one: after the scale has changed, by
/// another scaler, for a parameter of two optimisers too. Gradients that were inserted by hand are taken to carry this
/// scaler's scale.
///
/// Gradients decide alone whether a step is applied, in every precision and with [`LossScale::Off`] too. A loss that is
/// not finite with finite gradients (the mean over no targets) is applied. If the loss itself is not finite and so are
/// gradients, the step is skipped and the scale stays, unlike PyTorch's: no lower one mends it.
///
/// | PyTorch | here |
/// |---|---|
/// | `The growth factor must be > 1.0.`, `The backoff factor must be < 1.0.` | [`Error::Setting`], negative ones too |
/// | `unscale_() has already been called on this optimizer since the last update().` | [`Error::AlreadyUnscaled`] |
/// | `unscale_() is being called after step().` | [`Error::UnscaledAfterStep`] |
/// | `step() has already been called since the last update().` | [`Error::AlreadyStepped`] |
/// | `No inf checks were recorded for this optimizer.` | [`Error::NoGradients`] |
/// | `No inf checks were recorded prior to update.` | [`Error::NothingChecked`] |
/// | `new_scale should be a float …` | [`Error::Setting`] from [`GradScaler::set_scale`] |
/// | `A GradScaler instance may only be pickled at the beginning …` | [`Error::MidStep`] from [`GradScaler::state`] |
/// | `Attempting to unscale FP16 gradients.` | cannot occur: they become f32 first |
/// | `Attempted unscale_ but _scale is None. …` (and step, update) | cannot occur: the scale exists from the start |
/// | `outputs must be a Tensor or an iterable …`, closures, `The source state dict is empty …` | do not compile |
#[derive(Clone, Debug)]
pub struct GradScaler {
    config: LossScale,
    state: ScalerState,
    stages: HashMap<u64, Stage>,
    /// Since the last update a step was bad, or will be, for a reason that no lower scale removes.
    beyond_scaling: bool,
    patience: Option<u32>,
    recheck: bool,
}

impl GradScaler {
    /// A scaler.
    ///
    /// # Errors
    /// [`Error::Setting`], as [`LossScale::start`].
    pub fn new(config: LossScale) -> Result<GradScaler> {
        Ok(GradScaler {
            config,
            state: config.start()?,
            stages: HashMap::new(),
            beyond_scaling: false,
            patience: None,
            recheck: false,
        })
    }

    /// Whether [`GradScaler::step`] checks gradients again that were unscaled before: clipping may have spoilt them.
    /// PyTorch does not; a further pass over them.
    #[must_use]
    pub fn with_recheck(mut self, recheck: bool) -> GradScaler {
        self.recheck = recheck;
        self
    }

    /// How many steps in a row may be skipped without a lower scale left to try, before [`GradScaler::update`] gives
    /// [`Error::Stalled`]; by default [`LossScale::patience`].
    #[must_use]
    pub fn with_patience(mut self, steps: u32) -> GradScaler {
        self.patience = Some(steps);
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
        self.begin();
        Ok(())
    }

    /// The state to save.
    ///
    /// # Errors
    /// [`Error::MidStep`] between `unscale` or `step` and `update`.
    pub fn state(&self) -> Result<ScalerState> {
        if self.stages.is_empty() || !self.is_enabled() { Ok(self.state) } else { Err(Error::MidStep) }
    }

    /// Restores a saved state; nothing to do when off, as in PyTorch.
    ///
    /// # Errors
    /// [`Error::Setting`]: a scale whose inverse is not a finite f32 above 0, or more bad steps to wait for than the
    /// configuration has.
    pub fn load_state(&mut self, state: ScalerState) -> Result<()> {
        let limit = match self.config {
            // There is no scale; what counts is how many steps were skipped.
            LossScale::Off => {
                self.restore(ScalerState { in_vain: state.in_vain, ..self.state });
                return Ok(());
            }
            LossScale::Static(_) => u32::MAX,
            LossScale::Dynamic(d) => d.hysteresis,
        };
        check_scale(state.scale as f64)?;
        if state.hysteresis > limit {
            let (what, allowed) = ("bad steps left", "at most the hysteresis");
            return Err(Error::Setting { what, allowed, found: state.hysteresis as f64 });
        }
        self.restore(state);
        Ok(())
    }

    /// Goes back to a state that was this scaler's.
    pub(crate) fn restore(&mut self, state: ScalerState) {
        self.state = state;
        self.begin();
    }

    /// Forgets what was seen since the last update.
    fn begin(&mut self) {
        self.stages.clear();
        self.beyond_scaling = false;
    }

    /// Notes that no lower scale would make the gradients of this iteration finite.
    pub(crate) fn set_beyond_scaling(&mut self) {
        self.beyond_scaling = true;
    }

    /// The loss times the scale. The product is made in f32: 65536 itself does not fit f16.
    ///
    /// # Errors
    /// Out of memory.
    pub fn scale(&mut self, loss: &Var) -> Result<Var> {
        self.beyond_scaling |= loss.shape().numel() == 1 && !loss.item()?.is_finite();
        if !self.is_enabled() {
            return Ok(loss.clone());
        }
        Ok(loss.scaled(self.loss_scale())?)
    }

    /// Divides the gradients of an optimiser's parameters in place by the scale they carry and checks that they are
    /// finite. Needed only to see them so: clipping and steps know the scale.
    ///
    /// # Errors
    /// [`Error::AlreadyUnscaled`], [`Error::UnscaledAfterStep`]; a gradient is in use.
    pub fn unscale(&mut self, optimizer: &Optimizer, grads: &mut Gradients) -> Result<()> {
        let ids: HashSet<LeafId> = optimizer.own(grads).iter().map(|(id, _)| id).collect();
        if !self.is_enabled() {
            // Another scaler's.
            if ids.iter().any(|&id| grads.scale_of(id).is_some_and(|scale| scale != 1.0)) {
                binade_nn::unscale(grads, Some(&ids), 1.0)?;
            }
            return Ok(());
        }
        match self.stages.get(&optimizer.id()) {
            Some(Stage::Unscaled { .. }) => return Err(Error::AlreadyUnscaled),
            Some(Stage::Stepped { .. }) => return Err(Error::UnscaledAfterStep),
            None => {}
        }
        let found_inf = binade_nn::unscale(grads, Some(&ids), self.loss_scale())?;
        self.stages.insert(optimizer.id(), Stage::Unscaled { found_inf });
        Ok(())
    }

    /// Steps the optimiser if all its gradients are finite; else skips, and drops what waited for the step (running
    /// statistics).
    ///
    /// Gradients that were not unscaled before stay as they are: the optimiser divides by the scale as it reads them.
    ///
    /// # Errors
    /// [`Error::AlreadyStepped`]; [`Error::NoGradients`] if none belongs to the optimiser; the optimiser fails, and
    /// changed nothing.
    pub fn step(&mut self, optimizer: &mut Optimizer, grads: &Gradients) -> Result<StepOutcome> {
        let own = self.own(optimizer, grads)?;
        let found_inf = match self.stages.get(&optimizer.id()) {
            Some(Stage::Stepped { .. }) if self.is_enabled() => return Err(Error::AlreadyStepped),
            Some(Stage::Unscaled { found_inf }) => *found_inf || self.recheck && !grad_norm(&own)?.is_finite(),
            Some(Stage::Stepped { .. }) | None => !grad_norm(&own)?.is_finite(),
        };
        self.apply(optimizer, &own, 1.0, found_inf)
    }

    /// Unscaling, check, norm, clipping and step of gradients that are still scaled, in two passes: one that reads them
    /// for the norm, which also tells whether they are finite, and the optimiser's, which multiplies by the inverse
    /// scale and the clipping factor as it reads. Also the norm of the unscaled gradients. Without loss scaling too,
    /// gradients that are not finite skip the step.
    ///
    /// # Errors
    /// As [`GradScaler::step`].
    pub(crate) fn step_clipped(
        &mut self,
        optimizer: &mut Optimizer,
        grads: &Gradients,
        max_norm: Option<f64>,
    ) -> Result<(StepOutcome, f64)> {
        let own = self.own(optimizer, grads)?;
        let norm = grad_norm(&own)?;
        // Rounded as `clip_grad_norm` rounds it: with a power of two for scale, the same bits.
        let factor = max_norm.map_or(1.0, |max| clip_factor(norm, max)) as f32 as f64;
        let found_inf = !(norm.is_finite() && factor.is_finite());
        Ok((self.apply(optimizer, &own, factor, found_inf)?, norm))
    }

    fn apply(
        &mut self,
        optimizer: &mut Optimizer,
        own: &Gradients,
        factor: f64,
        found_inf: bool,
    ) -> Result<StepOutcome> {
        if found_inf {
            own.discard();
        } else {
            optimizer.step_scaled(own, factor)?;
        }
        // Without scaling an optimiser may be stepped more than once between updates.
        let before = self.stages.get(&optimizer.id()).is_some_and(|s| s.found_inf());
        self.stages.insert(optimizer.id(), Stage::Stepped { found_inf: found_inf || before });
        Ok(if found_inf { StepOutcome::Skipped } else { StepOutcome::Applied })
    }

    /// The gradients of an optimiser's parameters, with this scaler's scale where they carry none.
    fn own(&self, optimizer: &Optimizer, grads: &Gradients) -> Result<Gradients> {
        let mut own = optimizer.own(grads);
        if own.is_empty() {
            return Err(Error::NoGradients);
        }
        let unknown: Vec<LeafId> = own.iter().map(|(id, _)| id).filter(|&id| own.scale_of(id).is_none()).collect();
        let scale = match self.stages.get(&optimizer.id()) {
            Some(Stage::Unscaled { .. }) => 1.0,
            Some(Stage::Stepped { .. }) | None => self.loss_scale(),
        };
        unknown.into_iter().for_each(|id| own.set_scale_of(id, scale));
        Ok(own)
    }

    /// Adapts the scale; call once per iteration, after all steps.
    ///
    /// # Errors
    /// [`Error::NothingChecked`] without `unscale` or `step` since the last update, unless scaling is off;
    /// [`Error::Stalled`] if more steps in a row than the patience allows were skipped without a lower scale left to
    /// try.
    pub fn update(&mut self) -> Result<()> {
        if self.stages.is_empty() {
            return if self.is_enabled() { Err(Error::NothingChecked) } else { Ok(()) };
        }
        let found_inf = self.stages.values().any(|stage| stage.found_inf());
        self.state = match found_inf && self.beyond_scaling {
            true => self.state.in_vain(),
            false => self.config.next(self.state, found_inf),
        };
        self.begin();
        let ScalerState { scale, in_vain: steps, .. } = self.state;
        if steps > self.patience.unwrap_or(self.config.patience()) {
            return Err(Error::Stalled { scale, steps, blame: None });
        }
        Ok(())
    }
}
