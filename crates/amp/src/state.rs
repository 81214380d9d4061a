//! [`TrainingState`]: everything that a training remembers, as one value.

use binade_nn::{EmaState, OptimizerState, Plateau, Schedule, StateDict};
use serde::{Deserialize, Serialize};

use crate::{Error, LossScale, Result, ScalerState, Training};

/// A snapshot of a [`Training`]: with the model's own tensors ([`binade_nn::state_dict`]) it is all that a run needs to
/// go on bit for bit.
///
/// With serde it is everything but the tensors, which [`TrainingState::tensors`] gives under names of their own and
/// [`TrainingState::with_tensors`] takes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingState {
    /// Steps tried.
    pub iteration: u64,
    /// Steps applied.
    pub step: u64,
    /// Seed of randomness inside steps.
    pub seed: u64,
    /// Moments, masters and step counts of each optimiser.
    pub optimizers: Vec<OptimizerState>,
    /// How losses are scaled.
    pub loss_scale: LossScale,
    /// The scale and its counts.
    pub scaler: ScalerState,
    /// Learning rate over applied steps.
    pub schedule: Schedule,
    /// Learning rate over measurements.
    pub plateau: Option<Plateau>,
    /// Largest gradient norm.
    pub clip: Option<f64>,
    /// Averages of the parameters.
    pub ema: Option<EmaState>,
}

const EMA: &str = "ema.";

/// What the names of an optimiser's tensors begin with.
fn prefix(optimizer: usize) -> String {
    match optimizer {
        0 => "optimizer.".into(),
        n => format!("optimizer{}.", n + 1),
    }
}

/// The tensors under names that begin with the prefix.
fn named(prefix: &str, dict: &StateDict) -> StateDict {
    dict.iter().map(|(name, array)| (format!("{prefix}{name}"), array.clone())).collect()
}

impl TrainingState {
    /// The tensors: `optimizer.NAME.0`, …, `optimizer.NAME.master`, `ema.NAME`; `optimizer2.NAME.0` of the second
    /// optimiser.
    pub fn tensors(&self) -> StateDict {
        let optimizers = self.optimizers.iter().enumerate();
        let mut out: StateDict = optimizers.flat_map(|(i, state)| named(&prefix(i), &state.tensors)).collect();
        out.extend(self.ema.iter().flat_map(|ema| named(EMA, &ema.tensors)));
        out
    }

    /// This state with the tensors that [`TrainingState::tensors`] gave.
    ///
    /// # Errors
    /// [`Error::State`]: a tensor of another name.
    pub fn with_tensors(mut self, tensors: &StateDict) -> Result<TrainingState> {
        let optimizers = self.optimizers.iter_mut().enumerate().map(|(i, state)| (prefix(i), &mut state.tensors));
        let ema = self.ema.iter_mut().map(|ema| (EMA.to_string(), &mut ema.tensors));
        let mut dicts: Vec<_> = optimizers.chain(ema).collect();
        dicts.iter_mut().for_each(|(_, dict)| dict.clear());
        for (name, array) in tensors {
            let found = dicts.iter_mut().find_map(|(prefix, dict)| Some((name.strip_prefix(prefix.as_str())?, dict)));
            match found {
                Some((name, dict)) => dict.push((name.into(), array.clone())),
                None => return Err(Error::State(format!("it has besides the tensor {name}"))),
            }
        }
        Ok(self)
    }
}

impl Training {
    /// A snapshot of everything but the policy and the optimisers' settings. Later steps do not change it.
    ///
    /// # Errors
    /// [`Error::GroupWithoutStep`]; as [`GradScaler::state`](crate::GradScaler::state) and
    /// [`Optimizer::state_dict`](binade_nn::Optimizer::state_dict).
    pub fn state(&self) -> Result<TrainingState> {
        if self.lost_parts > 0 {
            return Err(Error::GroupWithoutStep { parts: self.lost_parts });
        }
        Ok(TrainingState {
            iteration: self.iteration,
            step: self.step,
            seed: self.seed,
            optimizers: self.optimizers.iter().map(|o| Ok(o.state_dict()?)).collect::<Result<_>>()?,
            loss_scale: self.scaler.config(),
            scaler: self.scaler.state()?,
            schedule: self.schedule.clone(),
            plateau: self.plateau.clone(),
            clip: self.clip,
            ema: self.ema.as_ref().map(|ema| ema.state_dict()),
        })
    }

    /// Restores a snapshot, its schedule, clipping and loss scaling too: set afterwards what shall be another from here
    /// on. Nothing is changed on an error.
    ///
    /// # Errors
    /// [`Error::State`]: another number of optimisers; losses are scaled in one of both only, or averages are kept in
    /// one of both only; this training has a plateau and the snapshot none, whose measurements would be lost.
    /// [`Error::Setting`]: a scale or a setting outside its domain. As
    /// [`Optimizer::load_state_dict`](binade_nn::Optimizer::load_state_dict) and
    /// [`Ema::load_state_dict`](binade_nn::Ema::load_state_dict).
    pub fn load(&mut self, from: &TrainingState) -> Result<()> {
        let with = |there: bool| if there { "with" } else { "without" };
        let differ = |what: &str, there: bool, here: bool| match there == here {
            true => Ok(()),
            false => Err(Error::State(format!("it is {} {what}, this training {}", with(there), with(here)))),
        };
        differ("loss scaling", from.loss_scale != LossScale::Off, self.scaler.is_enabled())?;
        differ("averages", from.ema.is_some(), self.ema.is_some())?;
        if self.plateau.is_some() {
            differ("a plateau", from.plateau.is_some(), true)?;
        }
        let (there, here) = (from.optimizers.len(), self.optimizers.len());
        if there != here {
            return Err(Error::State(format!("it has {there} optimiser(s), this training {here}")));
        }
        let mut scaler = self.scaler.clone();
        scaler.set_config(from.loss_scale)?;
        scaler.load_state(from.scaler)?;
        from.schedule.check()?;
        from.plateau.as_ref().map_or(Ok(()), |plateau| plateau.check())?;
        crate::step::check_clip(from.clip)?;
        let mut ema = self.ema.clone();
        if let (Some(ema), Some(from)) = (&mut ema, &from.ema) {
            ema.load_state_dict(from)?;
        }
        // A clone has state of its own: the second may fail when the first is done.
        let mut optimizers = self.optimizers.clone();
        for (optimizer, from) in optimizers.iter_mut().zip(&from.optimizers) {
            optimizer.load_state_dict(from)?;
        }
        (self.optimizers, self.scaler, self.ema, self.lost_parts) = (optimizers, scaler, ema, 0);
        (self.iteration, self.step, self.seed) = (from.iteration, from.step, from.seed);
        (self.schedule, self.plateau, self.clip) = (from.schedule.clone(), from.plateau.clone(), from.clip);
        Ok(())
    }
}
