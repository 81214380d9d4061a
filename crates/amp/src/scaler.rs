//! [`GradScaler`]: keeping small f16 gradients above the underflow threshold (Micikevicius et al. 2018).

use std::collections::{HashMap, HashSet};
use std::slice::{from_mut, from_ref};

use binade_autograd::{Gradients, LeafId, Var};
use binade_nn::{Optimizer, StepOutcome, grad_norm, grad_norm_later};
use binade_tensor::{Array, Class, Layout, Op, Shape, run_one};

use crate::loss_scale::check_scale;
use crate::{Error, LossScale, Result, ScalerState};

/// So many losses are kept between two updates before they are read.
const MOST_LOSSES: usize = 256;

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
    /// Whether a step since the last update was bad for a reason that no lower scale removes; where that is not known,
    /// the losses tell.
    beyond_scaling: Option<bool>,
    /// A loss since the last update was not finite, and had no gradients in it that are taken at the scale.
    bad_loss: bool,
    /// The last losses, which are read when their step is skipped: a device may still compute them.
    losses: Vec<Array>,
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
            beyond_scaling: None,
            bad_loss: false,
            losses: Vec::new(),
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

    /// The state, in the middle of a step too.
    pub(crate) fn current(&self) -> ScalerState {
        self.state
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
        (self.beyond_scaling, self.bad_loss) = (None, false);
        self.losses.clear();
    }

    /// Notes whether no lower scale would make the gradients of this iteration finite.
    pub(crate) fn set_beyond_scaling(&mut self, beyond: bool) {
        self.beyond_scaling = Some(beyond);
    }

    /// Whether a loss since the last update was not finite.
    fn had_bad_loss(&mut self) -> Result<bool> {
        for loss in std::mem::take(&mut self.losses) {
            self.bad_loss |= loss.numel() == 1 && !loss.item()?.is_finite();
        }
        Ok(self.bad_loss)
    }

    /// The loss times the scale. The product is made in f32: 65536 itself does not fit f16.
    ///
    /// # Errors
    /// Out of memory.
    pub fn scale(&mut self, loss: &Var) -> Result<Var> {
        // Where nobody ever updates, they do not pile up.
        if self.losses.len() >= MOST_LOSSES {
            self.had_bad_loss()?;
        }
        let scaled = if self.is_enabled() { loss.scaled(self.loss_scale())? } else { loss.clone() };
        self.losses.push(loss.array().clone());
        Ok(scaled)
    }

    /// Forgets the last loss that was scaled: it has no gradients.
    pub(crate) fn forget_loss(&mut self) {
        self.losses.pop();
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
        self.may_unscale(optimizer)?;
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
        let own = self.own(from_ref(optimizer), grads)?;
        let found_inf = match self.stages.get(&optimizer.id()) {
            Some(Stage::Stepped { .. }) if self.is_enabled() => return Err(Error::AlreadyStepped),
            Some(Stage::Unscaled { found_inf }) => *found_inf || self.recheck && !grad_norm(&own)?.is_finite(),
            Some(Stage::Stepped { .. }) | None => !grad_norm(&own)?.is_finite(),
        };
        self.apply(from_mut(optimizer), &own, 1.0, found_inf)
    }

    /// Of some gradients, those of the optimisers' parameters, and their norm in the units of the loss that was not
    /// scaled. The pass that computes it also tells whether all are finite, and is the only one before the step. The
    /// values of `losses` too: norm and losses are read together, when everything up to the decision is queued.
    ///
    /// # Errors
    /// [`Error::AlreadyUnscaled`], [`Error::UnscaledAfterStep`], [`Error::NoGradients`]; a gradient is in use.
    pub(crate) fn check(
        &mut self,
        optimizers: &[Optimizer],
        grads: &Gradients,
        losses: &[&Array],
    ) -> Result<(Gradients, f64, Vec<f64>)> {
        optimizers.iter().try_for_each(|optimizer| self.may_unscale(optimizer))?;
        let own = self.own(optimizers, grads)?;
        let norm = grad_norm_later(&own)?;
        let losses = items(losses)?;
        let norm = norm.wait()?;
        if self.is_enabled() {
            let stage = Stage::Unscaled { found_inf: !norm.is_finite() };
            self.stages.extend(optimizers.iter().map(|optimizer| (optimizer.id(), stage)));
        }
        Ok((own, norm, losses))
    }

    /// Steps all optimisers, each gradient divided by its scale and multiplied by `factor` as it is read, or skips all:
    /// the end of a step, however it is written.
    pub(crate) fn apply(
        &mut self,
        optimizers: &mut [Optimizer],
        own: &Gradients,
        factor: f64,
        found_inf: bool,
    ) -> Result<StepOutcome> {
        if found_inf {
            own.discard();
        } else {
            Optimizer::step_all(optimizers, own, factor)?;
        }
        for optimizer in optimizers {
            // Without scaling an optimiser may be stepped more than once between updates.
            let before = self.stages.get(&optimizer.id()).is_some_and(|s| s.found_inf());
            self.stages.insert(optimizer.id(), Stage::Stepped { found_inf: found_inf || before });
        }
        Ok(if found_inf { StepOutcome::Skipped } else { StepOutcome::Applied })
    }

    /// The gradients of the optimisers' parameters, with this scaler's scale where they carry none.
    fn own(&self, optimizers: &[Optimizer], grads: &Gradients) -> Result<Gradients> {
        let mut own = Optimizer::own_of(optimizers, grads);
        if own.is_empty() {
            return Err(Error::NoGradients);
        }
        for optimizer in optimizers {
            let scale = match self.stages.get(&optimizer.id()) {
                Some(Stage::Unscaled { .. }) => 1.0,
                Some(Stage::Stepped { .. }) | None => self.loss_scale(),
            };
            for id in optimizer.param_ids() {
                if own.by_id(id).is_some() && own.scale_of(id).is_none() {
                    own.set_scale_of(id, scale);
                }
            }
        }
        Ok(own)
    }

    /// Fails where an optimiser's gradients were unscaled since the last update, or stepped with.
    fn may_unscale(&self, optimizer: &Optimizer) -> Result<()> {
        match self.stages.get(&optimizer.id()) {
            Some(Stage::Unscaled { .. }) if self.is_enabled() => Err(Error::AlreadyUnscaled),
            Some(Stage::Stepped { .. }) if self.is_enabled() => Err(Error::UnscaledAfterStep),
            Some(_) | None => Ok(()),
        }
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
        let beyond_scaling = match self.beyond_scaling {
            _ if !found_inf => false,
            Some(known) => known,
            None => self.had_bad_loss()?,
        };
        self.state = match beyond_scaling {
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

/// The values of scalars. Those of one device are joined there, and waited for together.
fn items(scalars: &[&Array]) -> Result<Vec<f64>> {
    let alike = |a: &&Array| a.device() == scalars[0].device() && a.dtype() == scalars[0].dtype();
    if scalars.len() < 2 || !scalars.iter().all(alike) {
        return scalars.iter().map(|scalar| Ok(scalar.item()?)).collect();
    }
    let one = Shape::new(&[1])?;
    let lists = scalars
        .iter()
        .map(|scalar| scalar.with_layout(Layout { offset: scalar.layout().offset, ..Layout::contiguous(one) }));
    let lists = lists.collect::<binade_tensor::Result<Vec<Array>>>()?;
    let lists: Vec<&Array> = lists.iter().collect();
    let (device, dtype) = (scalars[0].device(), scalars[0].dtype());
    Ok(run_one(&Op::Cat { dim: 0 }, &lists, device, dtype, Class::Workspace)?.to_f64_vec()?)
}
