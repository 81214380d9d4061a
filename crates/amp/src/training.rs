//! [`Training`]: whole steps that are applied or not, and [`ScaledGradients`] → [`UnscaledGradients`] →
//! [`StepOutcome`]: the order of a step as types.

use binade_autograd::{Backward, Deferred, Gradients, LeafId, Var, scope};
use binade_nn::{Ema, Optimizer, Plateau, Schedule, clip_grad_norm, clip_grad_value};
use binade_tensor::{Array, Class, Key};

use crate::blame::blame_again;
use crate::{Blame, Error, GradScaler, LossScale, Policy, Result, StepOutcome};

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

/// The gradients of one optimiser's parameters, as the loss without scaling would give them.
#[derive(Debug)]
#[must_use = "gradients that no step consumes train nothing"]
pub struct UnscaledGradients {
    own: Gradients,
    unclaimed: Vec<String>,
}

impl GradScaler {
    /// Scales the loss and computes its gradients.
    ///
    /// # Errors
    /// As [`Var::backward`].
    pub fn backward(&mut self, loss: &Var) -> Result<ScaledGradients> {
        Ok(ScaledGradients(self.scale(loss)?.backward()?))
    }
}

impl ScaledGradients {
    /// Adds the gradients of another part of the batch, in f32.
    ///
    /// # Errors
    /// As [`Gradients::add`].
    pub fn add(&mut self, other: ScaledGradients) -> Result<()> {
        Ok(self.0.add(other.0)?)
    }

    /// Takes the gradients of an optimiser's parameters out, for a loss that several optimisers follow. What they share
    /// is the first one's.
    pub fn take(&mut self, optimizer: &Optimizer) -> ScaledGradients {
        let own = optimizer.own(&self.0);
        own.iter().for_each(|(id, _)| drop(self.0.remove(id)));
        ScaledGradients(own)
    }

    /// Divides the gradients of the optimiser's parameters by the scale they carry, and checks them. The others are
    /// dropped: [`Self::take`] them first.
    ///
    /// # Errors
    /// As [`GradScaler::unscale`].
    pub fn unscale(self, scaler: &mut GradScaler, optimizer: &Optimizer) -> Result<UnscaledGradients> {
        let (mut own, unclaimed) = (optimizer.own(&self.0), self.0.unclaimed());
        drop(self);
        scaler.unscale(optimizer, &mut own)?;
        Ok(UnscaledGradients { own, unclaimed })
    }
}

impl UnscaledGradients {
    /// As [`clip_grad_norm`].
    ///
    /// # Errors
    /// A gradient is in use.
    pub fn clip_norm(&mut self, max_norm: f64) -> Result<f64> {
        Ok(clip_grad_norm(&mut self.own, max_norm)?)
    }

    /// As [`clip_grad_value`].
    ///
    /// # Errors
    /// A gradient is in use.
    pub fn clip_value(&mut self, limit: f64) -> Result<()> {
        Ok(clip_grad_value(&mut self.own, limit)?)
    }

    /// The gradient of a leaf.
    pub fn by_id(&self, id: LeafId) -> Option<&Array> {
        self.own.by_id(id)
    }

    /// As [`Gradients::unclaimed`], of all gradients of the loss.
    pub fn unclaimed(&self) -> &[String] {
        &self.unclaimed
    }

    /// Steps the optimiser, or skips, and adapts the scale.
    ///
    /// # Errors
    /// As [`GradScaler::step`] and [`GradScaler::update`].
    pub fn step(self, scaler: &mut GradScaler, optimizer: &mut Optimizer) -> Result<StepOutcome> {
        let outcome = scaler.step(optimizer, &self.own)?;
        scaler.update()?;
        Ok(outcome)
    }
}

/// What a step of [`Training`] did.
#[derive(Clone, Debug)]
#[must_use = "a step may have been skipped"]
pub struct Step {
    /// Applied or skipped.
    pub outcome: StepOutcome,
    /// The loss, unscaled.
    pub loss: f64,
    /// Norm of the parameters' gradients before clipping.
    pub grad_norm: f64,
    /// Learning rate of the first group.
    pub lr: f64,
    /// Loss scale of this step.
    pub loss_scale: f64,
    /// Bytes of activations, casts and indices alive between forward and backward.
    pub saved_bytes: usize,
    /// Of a skipped step, the operator at fault.
    pub blame: Option<Blame>,
    /// The parameters, by name and shape, that the loss depends on and no optimiser has: they do not train.
    pub unclaimed: Vec<String>,
}

/// An optimiser and all that must move with it. A step is applied as a whole or not at all: parameters, optimiser
/// state, running statistics, averages and schedule.
///
/// `iteration` always advances and keys randomness (and should key the data); `step` counts applied updates and keys
/// the schedule.
///
/// Two optimisers, as of a GAN's networks, are two trainings: each steps its own parameters and running statistics, and
/// has a scale of its own. The loss of one may run through the other's network, whose parameters it leaves alone:
///
/// ```
/// use binade_amp::{LossScale, Policy, Result, Training};
/// use binade_autograd::Var;
/// use binade_nn::{Adam, Layer, Linear, Optimizer};
/// # use binade_cpu as _;
/// # fn main() -> Result<()> {
/// let (generator, critic) = (Linear::new(2, 4)?, Linear::new(4, 1)?);
/// let (noise, real) = (Var::from_slice(&[0.3f32, -0.7], &[1, 2])?, Var::from_slice(&[1.0f32; 4], &[1, 4])?);
/// let mut generating = Training::new(Optimizer::new(&generator, Adam::default())?, Policy::OFF, LossScale::Off)?;
/// let mut judging = Training::new(Optimizer::new(&critic, Adam::default())?, Policy::OFF, LossScale::Off)?;
/// let judged = judging.step(|| -> Result<Var> {
///     let fake = generator.forward(&noise)?.detach();
///     Ok(critic.forward(&fake)?.sub(&critic.forward(&real)?)?.mean(&[], false)?)
/// })?;
/// let fooled = || -> Result<Var> { Ok(critic.forward(&generator.forward(&noise)?)?.neg()?.mean(&[], false)?) };
/// let made = generating.step(fooled)?;
/// // The critic's gradients of the second loss have an owner, who did not step: nothing is lost by accident.
/// assert!(judged.unclaimed.is_empty() && made.unclaimed.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Training {
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The scaler.
    pub scaler: GradScaler,
    /// The policy of forward passes.
    pub policy: Policy,
    /// Learning rate over applied steps.
    pub schedule: Schedule,
    /// Learning rate over measurements: its factor is multiplied with the schedule's. Show it each one with
    /// [`Plateau::observe`].
    pub plateau: Option<Plateau>,
    /// Largest gradient norm.
    pub clip: Option<f64>,
    /// Averages of the parameters.
    pub ema: Option<Ema>,
    /// Seed of randomness inside steps. By default drawn where the `Training` is made, so that no two draw the same;
    /// set it to repeat a run elsewhere.
    pub seed: u64,
    /// Whether a skipped step is run again to find the operator at fault.
    pub blame: bool,
    /// Steps tried.
    pub iteration: u64,
    /// Steps applied.
    pub step: u64,
    /// Blame of the last step, if it was skipped.
    last_blame: Option<Blame>,
}

impl Training {
    /// With a constant schedule, without clipping and averages.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn new(optimizer: Optimizer, policy: Policy, loss_scale: LossScale) -> Result<Training> {
        let scaler = GradScaler::new(loss_scale)?.with_recheck(true);
        let [high, low, ..] = scope::next_key().stream("training").block(0);
        let (schedule, plateau, clip, ema) = (Schedule::Constant, None, None, None);
        Ok(Training {
            optimizer,
            scaler,
            policy,
            schedule,
            plateau,
            clip,
            ema,
            seed: (high as u64) << 32 | low as u64,
            blame: true,
            iteration: 0,
            step: 0,
            last_blame: None,
        })
    }

    /// One step: the loss under the policy, gradients, unscaling, clipping, and the update of everything, or of
    /// nothing.
    ///
    /// Gradients that are not finite skip the step, in every precision, with loss scaling and without. The closure runs
    /// again then, at most three times, to find the operator at fault and the scale that would fit; once if it is the
    /// same operator as in the skipped step before. It must not change anything itself. The scale is lowered only if a
    /// lower one fits. The device is told ([`Backend::begin_step`]): on the CPU, in a rayon pool, the pool's other
    /// threads do not sleep meanwhile.
    ///
    /// # Errors
    /// [`Error::Stalled`] with the operator at fault, if more steps in a row than [`GradScaler::with_patience`] allows
    /// were skipped without a lower scale left to try; the closure or a kernel fails. Nothing is changed then.
    pub fn step<E: From<Error>>(&mut self, loss: impl Fn() -> Result<Var, E>) -> Result<Step, E> {
        let Key { seed, iteration, .. } = self.key();
        let _step = self.optimizer.device().map(|device| device.begin_step());
        let result = scope::with_key(seed, iteration, || self.try_step(&loss));
        if result.is_ok() {
            self.iteration += 1;
        }
        result
    }

    /// Where the random operators of the next step draw from: a stream of its own for each seed and iteration, beside
    /// those of initial values and data.
    pub fn key(&self) -> Key {
        Key::new(self.seed, self.iteration).stream("step")
    }

    fn try_step<E: From<Error>>(&mut self, loss: &impl Fn() -> Result<Var, E>) -> Result<Step, E> {
        let again = scope::capture().rehearsal();
        let state = self.scaler.state()?;
        self.check_settings()?;
        let (value, changes) = scope::collect_changes(|| self.policy.run(loss));
        let value = value?;
        self.policy.check_layers()?;
        let stats = value.array().device().memory();
        let saved_bytes = [Class::Activations, Class::Casts, Class::Indices].into_iter().map(|c| stats.live(c)).sum();
        let loss_value = value.item().map_err(Error::from)?;
        let attempt =
            self.gradient_step(value, changes).map_err(E::from).and_then(|(outcome, grad_norm, lr, unclaimed)| {
                let blame = match outcome {
                    StepOutcome::Applied => self.applied().map(|()| None)?,
                    StepOutcome::Skipped => self.skipped(&again, loss)?,
                };
                Ok(Step {
                    outcome,
                    loss: loss_value,
                    grad_norm,
                    lr,
                    loss_scale: state.scale as f64,
                    saved_bytes,
                    blame,
                    unclaimed,
                })
            });
        if attempt.is_err() {
            self.scaler.restore(state);
        }
        attempt
    }

    /// Takes over the learning rate of this step. Fails for a setting outside its domain, before anything is computed.
    fn check_settings(&mut self) -> Result<()> {
        check_clip(self.clip)?;
        let measured = self.plateau.as_ref().map_or(Ok(1.0), |plateau| plateau.check().map(|()| plateau.factor()))?;
        Ok(self.optimizer.set_lr_factor(self.schedule.factor(self.step)? * measured)?)
    }

    fn gradient_step(&mut self, loss: Var, changes: Vec<Deferred>) -> Result<(StepOutcome, f64, f64, Vec<String>)> {
        let mut grads = self.scaler.scale(&loss)?.backward_with(Backward { lean: true, ..Backward::default() })?;
        drop(loss);
        changes.into_iter().for_each(|change| grads.push_change(change));
        let lr = self.optimizer.lr();
        let (outcome, grad_norm) = self.scaler.step_clipped(&mut self.optimizer, &grads, self.clip)?;
        Ok((outcome, grad_norm, lr, grads.unclaimed()))
    }

    fn applied(&mut self) -> Result<()> {
        self.scaler.update()?;
        self.last_blame = None;
        self.step += 1;
        self.ema.as_mut().map_or(Ok(()), |ema| Ok(ema.update()?))
    }

    /// Finds the operator at fault and adapts the scale, if it is to blame.
    fn skipped<E: From<Error>>(
        &mut self,
        again: &scope::Scope,
        loss: &impl Fn() -> Result<Var, E>,
    ) -> Result<Option<Blame>, E> {
        let (policy, scale) = (self.policy.clone(), self.scaler.is_enabled().then(|| self.scaler.loss_scale()));
        let last = self.last_blame.take();
        let find = || scope::run_in(again, || blame_again(scale, last.as_ref(), &|| policy.run(loss)));
        let mut blame = if self.blame { find()? } else { None };
        if self.blame && blame.as_ref().is_none_or(|b| b.fitting_scale.is_none()) {
            self.scaler.set_beyond_scaling();
        }
        match self.scaler.update() {
            Err(Error::Stalled { scale, steps, .. }) => {
                blame = if self.blame { blame } else { find()? };
                Err(Error::Stalled { scale, steps, blame: blame.map(Box::new) }.into())
            }
            Err(other) => Err(other.into()),
            Ok(()) => {
                self.last_blame = blame.clone();
                Ok(blame)
            }
        }
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
