//! [`Training`]: whole steps that are applied or not.

use std::collections::HashMap;

use binade_autograd::{LeafId, Var, scope};
use binade_nn::{Ema, Optimizer, Plateau, Schedule};
use binade_tensor::Key;

use crate::step::check_clip;
use crate::{Blame, Error, GradScaler, LossScale, Policy, Result, StepOutcome};

/// What a step of [`Training`] did.
#[derive(Clone, Debug)]
#[must_use = "a step may have been skipped"]
pub struct Step {
    /// Applied or skipped.
    pub outcome: StepOutcome,
    /// The loss, unscaled: over parts, the sum of losses over the sum of counts.
    pub loss: f64,
    /// Of how many the loss is the mean: the sum of the parts' counts, 1 for a step of one closure.
    pub count: f64,
    /// Norm of the parameters' gradients before clipping.
    pub grad_norm: f64,
    /// Learning rate of the first group.
    pub lr: f64,
    /// Loss scale of this step.
    pub loss_scale: f64,
    /// Bytes of activations, casts and indices alive between forward and backward, of the part that has most.
    pub saved_bytes: usize,
    /// Of a skipped step, the operator at fault.
    pub blame: Option<Blame>,
    /// The parameters, by name and shape, that the loss depends on and no optimiser has: they do not train.
    pub unclaimed: Vec<String>,
}

/// Optimisers and all that must move with them. A step is applied as a whole or not at all: parameters, optimiser
/// state, running statistics, averages and schedule.
///
/// `iteration` always advances and keys randomness (and should key the data); `step` counts applied updates and keys
/// the schedule.
///
/// A step is made of [`crate::ScaledGradients`] and [`crate::UnscaledGradients`], which a loop of one's own may use.
/// One of several parts of a batch is a [`crate::Group`]. A loss that has gradients in it, as a gradient penalty, takes
/// them by [`crate::grad`].
///
/// Optimisers that step in turn, as of a GAN's networks, are two trainings: each steps its own parameters and running
/// statistics, and has a scale of its own. The loss of one may run through the other's network, whose parameters it
/// leaves alone:
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
    /// The optimisers, which step together; no parameter is in two of them.
    pub optimizers: Vec<Optimizer>,
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
    /// Whether a step fails with [`Error::Anomaly`] at the first operator whose result is not finite, be it of the
    /// forward pass or a gradient: PyTorch's `detect_anomaly`. What a lower loss scale mends is none, nor is what an
    /// operator absorbs, as masked scores in a softmax. While this is set, each result is looked at as it is made,
    /// which takes time; else nothing is.
    pub detect_anomaly: bool,
    /// Steps tried.
    pub iteration: u64,
    /// Steps applied.
    pub step: u64,
    /// Blame of the last step, if it was skipped.
    pub(crate) last_blame: Option<Blame>,
    /// Parts of a group that was dropped without a step.
    pub(crate) lost_parts: usize,
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
            optimizers: vec![optimizer],
            scaler,
            policy,
            schedule,
            plateau,
            clip,
            ema,
            seed: (high as u64) << 32 | low as u64,
            blame: true,
            detect_anomaly: false,
            iteration: 0,
            step: 0,
            last_blame: None,
            lost_parts: 0,
        })
    }

    /// With another optimiser, which steps together with the others: all of them or none. They share schedule, loss
    /// scale and clipping: the norm is that of all gradients together.
    ///
    /// Groups of one optimiser may have rules of their own too ([`Optimizer::grouped`]).
    #[must_use]
    pub fn with_optimizer(mut self, optimizer: Optimizer) -> Training {
        self.optimizers.push(optimizer);
        self
    }

    /// One step: the loss under the policy, gradients, unscaling, clipping, and the update of everything, or of
    /// nothing.
    ///
    /// Gradients that are not finite skip the step, in every precision, with loss scaling and without. The closure runs
    /// again then, at most three times, to find the operator at fault and the scale that would fit; once if it is the
    /// same operator as in the skipped step before. It must not change anything itself. The scale is lowered only if a
    /// lower one fits. The device is told ([`binade_tensor::Backend::begin_step`]): on the CPU, in a rayon
    /// pool, the pool's other threads do not sleep meanwhile.
    ///
    /// # Errors
    /// [`Error::Stalled`] with the operator at fault, if more steps in a row than [`GradScaler::with_patience`] allows
    /// were skipped without a lower scale left to try; [`Error::GroupWithoutStep`] of a [`crate::Group`] before; the
    /// closure or a kernel fails. Nothing is changed then.
    pub fn step<E: From<Error>>(&mut self, loss: impl Fn() -> Result<Var, E>) -> Result<Step, E> {
        self.step_over(&[()], |()| Ok((loss()?, 1.0)))
    }

    /// Where the random operators of the next step draw from: a stream of its own for each seed and iteration, beside
    /// those of initial values and data.
    pub fn key(&self) -> Key {
        Key::new(self.seed, self.iteration).stream("step")
    }

    /// As [`Training::key`], of a part of an accumulation group: the first draws as a whole step does.
    pub(crate) fn part_key(&self, part: usize) -> Key {
        if part == 0 { self.key() } else { self.key().stream(&format!("part {part}")) }
    }

    /// This training, with the learning rate of its next step. Fails for a group that was lost, and for a setting
    /// outside its domain, before anything is computed.
    pub(crate) fn ready(&mut self) -> Result<&mut Training> {
        if self.lost_parts > 0 {
            // Told once: what is lost is lost.
            return Err(Error::GroupWithoutStep { parts: std::mem::take(&mut self.lost_parts) });
        }
        check_clip(self.clip)?;
        let measured = self.plateau.as_ref().map_or(Ok(1.0), |plateau| plateau.check().map(|()| plateau.factor()))?;
        let factor = self.schedule.factor(self.step)? * measured;
        self.optimizers.iter_mut().try_for_each(|optimizer| optimizer.set_lr_factor(factor))?;
        if self.optimizers.len() > 1 {
            self.check_owners()?;
        }
        Ok(self)
    }

    /// Fails for a parameter of two optimisers: it would be stepped twice.
    fn check_owners(&self) -> Result<()> {
        let mut seen: HashMap<LeafId, &str> = HashMap::new();
        for (name, param) in self.optimizers.iter().flat_map(|o| o.groups()).flat_map(|group| &group.params) {
            if let Some(other) = seen.insert(param.id(), name) {
                return Err(binade_nn::Error::Twice { name: name.clone(), other: other.into() }.into());
            }
        }
        Ok(())
    }

    pub(crate) fn applied(&mut self) -> Result<()> {
        self.scaler.update()?;
        self.last_blame = None;
        self.step += 1;
        self.ema.as_mut().map_or(Ok(()), |ema| Ok(ema.update()?))
    }
}
