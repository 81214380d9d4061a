//! [`Group`]: one step from several parts of a batch.

use std::any::Any;

use binade_autograd::{Var, scope};
use binade_tensor::{Array, Class, DType, profile};

use crate::anomaly::Watch;
use crate::blame::{Blame, blame_again};
use crate::{Error, Result, ScaledGradients, ScalerState, Step, StepOutcome, Training};

/// One step of a [`Training`] from several parts of a batch (gradient accumulation): the loss is the sum of the parts'
/// losses over the sum of their counts, as one batch of all samples would give it.
///
/// Gradients are added in f32. All parts have one loss scale; the sum is checked and unscaled once, and one gradient
/// that is not finite skips the whole. Running statistics of all parts are made together or not at all. To the
/// schedule, the scale and `iteration` a group is one step.
///
/// ```
/// # use binade_cpu as _;
/// use binade_amp::{LossScale, Policy, Result, Training};
/// use binade_autograd::Var;
/// use binade_nn::{AdamW, Layer, Linear, Optimizer};
/// # fn main() -> Result<()> {
/// let model = Linear::new(2, 1)?;
/// let mut training = Training::new(Optimizer::new(&model, AdamW::default())?, Policy::OFF, LossScale::Off)?;
/// // 3 samples and 1: the gradients are those of a batch of 4.
/// let parts = [Var::from_slice(&[0.1f32; 6], &[3, 2])?, Var::from_slice(&[0.7f32; 2], &[1, 2])?];
/// let mut group = training.group();
/// for part in &parts {
///     group.add(|| -> Result<_> { Ok((model.forward(part)?.square()?.mean(&[], false)?, part.shape()[0] as f64)) })?;
/// }
/// let step = group.step()?;
/// assert_eq!((step.count, training.iteration), (4.0, 1));
/// # Ok(())
/// # }
/// ```
#[must_use = "an accumulation group without a step trains nothing"]
pub struct Group<'t, E = Error> {
    training: &'t mut Training,
    parts: Vec<Part<'t, E>>,
    grads: Option<ScaledGradients>,
    /// The scaler's state before the first part.
    before: ScalerState,
    saved_bytes: usize,
    /// Nothing is lost when the group is dropped: it has stepped, was discarded, or has told of an error.
    settled: bool,
}

/// A part of a batch, and what is needed to run it again.
pub(crate) struct Part<'t, E> {
    loss: Box<dyn Fn() -> Result<(Var, f64), E> + 't>,
    again: scope::Scope,
    value: Array,
    count: f64,
    /// Its count over the first part's, which its loss is multiplied by: gradients stay as large as those of a mean.
    weight: f64,
}

impl<'t, E: From<Error>> Part<'t, E> {
    /// The first value that is not finite in a second run of the part.
    fn blame(&self, training: &Training, last: Option<&Blame>) -> Result<Option<Blame>, E> {
        let scale = training.scaler.is_enabled().then(|| training.scaler.loss_scale());
        let loss = || -> Result<Var, E> {
            let (loss, _) = training.policy.run(&self.loss)?;
            Ok(weighted(&loss, self.weight)?)
        };
        scope::run_in(&self.again, || blame_again(scale, last, &loss))
    }
}

/// A loss times the weight of its part, in f32.
fn weighted(loss: &Var, weight: f64) -> Result<Var> {
    match weight {
        1.0 => Ok(loss.clone()),
        _ if loss.dtype().is_half() => Ok((&loss.cast(DType::F32)? * weight)?),
        _ => Ok((loss * weight)?),
    }
}

impl Training {
    /// Begins a step that is made of several parts.
    pub fn group<E: From<Error>>(&mut self) -> Group<'_, E> {
        let before = self.scaler.current();
        Group { training: self, parts: Vec::new(), grads: None, before, saved_bytes: 0, settled: false }
    }

    /// One step from parts of a batch: a [`Group`] of all of them. `loss` gives the mean loss over a part and how many
    /// (samples, tokens) it is the mean of.
    ///
    /// # Errors
    /// As [`Group::add`] and [`Group::step`].
    pub fn step_over<P, E: From<Error>>(
        &mut self,
        parts: &[P],
        loss: impl Fn(&P) -> Result<(Var, f64), E>,
    ) -> Result<Step, E> {
        let (loss, _step) = (&loss, self.begin());
        let mut group = self.group();
        parts.iter().try_for_each(|part| group.add_begun(Box::new(move || loss(part))))?;
        group.step_begun()
    }

    /// Tells the device that a step of many operators begins, which ends when the value is dropped.
    fn begin(&self) -> Option<Box<dyn Any>> {
        self.optimizers.iter().find_map(|optimizer| optimizer.device()).map(|device| device.begin_step())
    }

    /// Finds the operator at fault in a skipped step and adapts the scale, if it is to blame.
    fn skipped<E: From<Error>>(&mut self, parts: &[Part<'_, E>]) -> Result<Option<Blame>, E> {
        let last = self.last_blame.clone();
        let find = |training: &Training| -> Result<Option<Blame>, E> {
            for (part, own) in parts.iter().enumerate() {
                match own.blame(training, last.as_ref())? {
                    Some(blame) if training.detect_anomaly && blame.fitting_scale.is_none() => {
                        return Err(Error::Anomaly { part, blame: Box::new(blame) }.into());
                    }
                    Some(blame) => return Ok(Some(blame)),
                    None => {}
                }
            }
            Ok(None)
        };
        let mut blame = None;
        if self.blame || self.detect_anomaly {
            blame = find(self)?;
            self.scaler.set_beyond_scaling(blame.as_ref().is_none_or(|b| b.fitting_scale.is_none()));
        }
        match self.scaler.update() {
            Err(Error::Stalled { scale, steps, .. }) => {
                blame = if self.blame || self.detect_anomaly { blame } else { find(self)? };
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

impl<'t, E: From<Error>> Group<'t, E> {
    /// Adds a part: its loss under the policy, and its gradients. The closure gives the mean loss and the count
    /// (samples, tokens) it is the mean of; it must not change anything itself, and runs again if the step is skipped.
    /// Each part draws from a random stream of its own.
    ///
    /// # Errors
    /// [`Error::GroupWithoutStep`] of the group before; [`Error::Setting`] for a count that is not above 0 and finite,
    /// or a setting of the training; the closure or a kernel fails. The part is not added then.
    pub fn add(&mut self, loss: impl Fn() -> Result<(Var, f64), E> + 't) -> Result<(), E> {
        let _step = self.training.begin();
        self.add_begun(Box::new(loss))
    }

    fn add_begun(&mut self, loss: Box<dyn Fn() -> Result<(Var, f64), E> + 't>) -> Result<(), E> {
        let key = self.training.part_key(self.parts.len());
        let added = scope::with_key(key.seed, key.iteration, || self.try_add(loss));
        // Who hears of this error need not hear of a group without a step too.
        self.settled = added.is_err();
        added
    }

    fn try_add(&mut self, loss: Box<dyn Fn() -> Result<(Var, f64), E> + 't>) -> Result<(), E> {
        let part = self.parts.len();
        let Training { policy, scaler, detect_anomaly, .. } = self.training.ready()?;
        let watch = detect_anomaly.then(Watch::default);
        let anomaly = || Watch::found(watch.as_ref()).map_or(Ok(()), |blame| Err(Error::Anomaly { part, blame }));
        let again = scope::capture().rehearsal();
        let run = || scope::with_loss_scale(scaler.loss_scale(), || policy.run(&loss));
        let phase = profile::phase("forward");
        let (made, changes) = Watch::over(watch.as_ref(), || scope::collect_changes(run));
        drop(phase);
        let (value, count) = made?;
        anomaly()?;
        if !(count > 0.0 && count.is_finite()) {
            return Err(Error::Setting { what: "count of a part", allowed: "above 0 and finite", found: count }.into());
        }
        policy.check_layers()?;
        let stats = value.array().device().memory();
        let saved = [Class::Activations, Class::Casts, Class::Indices].into_iter().map(|c| stats.live(c)).sum();
        let weight = self.parts.first().map_or(1.0, |first| count / first.count);
        let phase = profile::phase("backward");
        let scaled = Watch::over(watch.as_ref(), || scaler.backward(&weighted(&value, weight)?));
        // Whether a lower scale mends it shows when the step is skipped.
        let left_to_scale = scaler.is_enabled();
        let array = value.array().clone();
        drop((value, phase));
        let mut grads = scaled?;
        grads.push_changes(changes);
        match &mut self.grads {
            Some(sum) => sum.add(grads).inspect_err(|_| self.training.scaler.forget_loss())?,
            None => self.grads = Some(grads),
        }
        if !left_to_scale {
            anomaly()?;
        }
        self.saved_bytes = self.saved_bytes.max(saved);
        self.parts.push(Part { loss, again, value: array, count, weight });
        Ok(())
    }

    /// The step: the sum of the parts is checked, unscaled, clipped, and everything is updated, or nothing.
    ///
    /// # Errors
    /// [`Error::EmptyGroup`] without a part; as [`Training::step`]. Nothing is changed then.
    pub fn step(self) -> Result<Step, E> {
        let _step = self.training.begin();
        self.step_begun()
    }

    fn step_begun(mut self) -> Result<Step, E> {
        self.settled = true;
        let step = self.try_step();
        match &step {
            Ok(_) => self.training.iteration += 1,
            Err(_) => self.training.scaler.restore(self.before),
        }
        step
    }

    fn try_step(&mut self) -> Result<Step, E> {
        let (parts, training) = (&self.parts, &mut *self.training);
        let lr = training.optimizers.first().map_or(0.0, |optimizer| optimizer.lr());
        let scaled = self.grads.take().ok_or(Error::EmptyGroup)?;
        // All that is waited for: what computes elsewhere has everything up to the decision queued.
        let values: Vec<&Array> = parts.iter().map(|part| &part.value).collect();
        let phase = profile::phase("unscale");
        let (mut grads, values) = scaled.unscale_reading(&mut training.scaler, &training.optimizers, &values)?;
        drop(phase);
        let unclaimed = grads.unclaimed().to_vec();
        grads.divide(parts.iter().map(|part| part.weight).sum())?;
        let grad_norm = grads.norm();
        let phase = profile::phase("clip");
        training.clip.map_or(Ok(0.0), |max| grads.clip_norm(max))?;
        drop(phase);
        let phase = profile::phase("update");
        if let Some(ema) = training.ema.as_mut().filter(|_| grads.are_finite()) {
            // After the first write nothing may fail.
            ema.prepare().map_err(Error::from)?;
        }
        let outcome = grads.apply(&mut training.scaler, &mut training.optimizers)?;
        let blame = match outcome {
            StepOutcome::Applied => training.applied().map(|()| None)?,
            StepOutcome::Skipped => {
                let _again = profile::phase("blame");
                training.skipped(parts)?
            }
        };
        drop(phase);
        let (mut loss, mut weights) = (0.0, 0.0);
        for (part, value) in parts.iter().zip(values) {
            loss += part.weight * value;
            weights += part.weight;
        }
        Ok(Step {
            outcome,
            loss: loss / weights,
            count: parts.iter().map(|part| part.count).sum(),
            grad_norm,
            lr,
            loss_scale: self.before.scale as f64,
            saved_bytes: self.saved_bytes,
            blame,
            unclaimed,
        })
    }

    /// Drops the parts: no step follows.
    pub fn discard(mut self) {
        self.settled = true;
        self.training.scaler.restore(self.before);
        self.grads.take().into_iter().for_each(ScaledGradients::discard);
    }
}

impl<E> Drop for Group<'_, E> {
    fn drop(&mut self) {
        if let Some(grads) = self.grads.take() {
            grads.discard();
            self.training.scaler.restore(self.before);
            self.training.lost_parts = if self.settled { 0 } else { self.parts.len() };
        }
    }
}
