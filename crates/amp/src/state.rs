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
    /// Moments, masters and step counts.
    pub optimizer: OptimizerState,
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

const OPTIMIZER: &str = "optimizer.";
const EMA: &str = "ema.";

impl TrainingState {
    /// The tensors: `optimizer.NAME.0`, …, `optimizer.NAME.master`, `ema.NAME`.
    pub fn tensors(&self) -> StateDict {
        let named = |prefix: &'static str, dict: &StateDict| -> StateDict {
            dict.iter().map(|(name, array)| (format!("{prefix}{name}"), array.clone())).collect()
        };
        let mut out = named(OPTIMIZER, &self.optimizer.tensors);
        out.extend(self.ema.iter().flat_map(|ema| named(EMA, &ema.tensors)));
        out
    }

    /// This state with the tensors that [`TrainingState::tensors`] gave.
    ///
    /// # Errors
    /// [`Error::State`]: a tensor of another name.
    pub fn with_tensors(mut self, tensors: &StateDict) -> Result<TrainingState> {
        self.optimizer.tensors.clear();
        self.ema.iter_mut().for_each(|ema| ema.tensors.clear());
        for (name, array) in tensors {
            match (name.strip_prefix(OPTIMIZER), name.strip_prefix(EMA), &mut self.ema) {
                (Some(name), _, _) => self.optimizer.tensors.push((name.into(), array.clone())),
                (_, Some(name), Some(ema)) => ema.tensors.push((name.into(), array.clone())),
                (_, _, _) => return Err(Error::State(format!("it has besides the tensor {name}"))),
            }
        }
        Ok(self)
    }
}

impl Training {
    /// A snapshot of everything but the policy and the optimiser's settings. Later steps do not change it.
    ///
    /// # Errors
    /// As [`GradScaler::state`](crate::GradScaler::state) and
    /// [`Optimizer::state_dict`](binade_nn::Optimizer::state_dict).
    pub fn state(&self) -> Result<TrainingState> {
        Ok(TrainingState {
            iteration: self.iteration,
            step: self.step,
            seed: self.seed,
            optimizer: self.optimizer.state_dict()?,
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
    /// [`Error::State`]: losses are scaled in one of both only, or averages are kept in one of both only.
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
        let mut scaler = self.scaler.clone();
        scaler.set_config(from.loss_scale)?;
        scaler.load_state(from.scaler)?;
        from.schedule.check()?;
        from.plateau.as_ref().map_or(Ok(()), |plateau| plateau.check())?;
        crate::training::check_clip(from.clip)?;
        let mut ema = self.ema.clone();
        if let (Some(ema), Some(from)) = (&mut ema, &from.ema) {
            ema.load_state_dict(from)?;
        }
        self.optimizer.load_state_dict(&from.optimizer)?;
        (self.scaler, self.ema) = (scaler, ema);
        (self.iteration, self.step, self.seed) = (from.iteration, from.step, from.seed);
        (self.schedule, self.plateau, self.clip) = (from.schedule.clone(), from.plateau.clone(), from.clip);
        Ok(())
    }
}
