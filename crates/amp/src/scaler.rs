//! [`LossScale`] and [`GradScaler`]: keeping small f16 gradients above the underflow threshold (Micikevicius et al. 2018).

use binade_autograd::{Gradients, Var, scope};
use binade_nn::Optimizer;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How losses are scaled. "Off" is a value, so a training loop has no branch on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossScale {
    /// No scaling: f32 and bf16.
    #[default]
    Off,
    /// A fixed scale; steps whose gradients are not finite are skipped.
    Static(f64),
    /// Dynamic, as PyTorch's GradScaler.
    Dynamic {
        /// First scale.
        init_scale: f64,
        /// Factor after `growth_interval` good steps.
        growth_factor: f64,
        /// Factor after a bad step.
        backoff_factor: f64,
        /// Good steps between growths.
        growth_interval: u32,
    },
}

impl LossScale {
    /// PyTorch's defaults: 65536, ×2 every 2000 good steps, ×0.5 after a bad one.
    pub const fn dynamic() -> LossScale {
        LossScale::Dynamic { init_scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000 }
    }
}

/// What a step did. A skipped step changed nothing: no parameter, no optimiser state, no running statistics.
#[must_use = "a skipped step must not advance the schedule"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// The parameters were updated.
    Applied,
    /// A gradient was not finite; nothing was changed.
    Skipped,
}

/// Everything a scaler must remember between runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalerState {
    /// Present scale (an f32 in PyTorch).
    pub scale: f32,
    /// Good steps since the last change.
    pub growth_tracker: u32,
}

/// Scales losses, unscales and checks gradients, steps optimisers, adapts the scale: PyTorch's GradScaler.
///
/// Per iteration: `scale` each loss, `backward`, `unscale` (needed before clipping only), `step` each optimiser, `update` once.
#[derive(Clone, Debug)]
pub struct GradScaler {
    config: LossScale,
    state: ScalerState,
    /// Whether any gradient since the last update was not finite; `None` if none was checked.
    found_inf: Option<bool>,
    /// Result of `unscale` for the gradients about to be stepped with.
    unscaled: Option<bool>,
}

impl GradScaler {
    /// A scaler.
    ///
    /// # Errors
    /// [`Error::Setting`]: a growth factor of at most 1, a backoff factor outside (0, 1), a scale that is not positive and
    /// finite, an interval of 0.
    pub fn new(config: LossScale) -> Result<GradScaler> {
        let check = |ok: bool, what, allowed, found| if ok { Ok(()) } else { Err(Error::Setting { what, allowed, found }) };
        let positive = |s: f64| (s as f32).is_finite() && s as f32 > 0.0;
        let scale = match config {
            LossScale::Off => 1.0,
            LossScale::Static(scale) => scale,
            LossScale::Dynamic { init_scale, growth_factor, backoff_factor, growth_interval } => {
                check(growth_factor > 1.0 && growth_factor.is_finite(), "growth factor", "greater than 1", growth_factor)?;
                check(backoff_factor > 0.0 && backoff_factor < 1.0, "backoff factor", "between 0 and 1", backoff_factor)?;
                check(growth_interval > 0, "growth interval", "at least 1", growth_interval as f64)?;
                init_scale
            }
        };
        check(positive(scale), "loss scale", "positive and finite in f32", scale)?;
        Ok(GradScaler { config, state: ScalerState { scale: scale as f32, growth_tracker: 0 }, found_inf: None, unscaled: None })
    }

    /// The configuration.
    pub fn config(&self) -> LossScale {
        self.config
    }

    /// The present scale; 1 when off.
    pub fn loss_scale(&self) -> f64 {
        self.state.scale as f64
    }

    /// The state to save; call after [`GradScaler::update`].
    pub fn state(&self) -> ScalerState {
        self.state
    }

    /// Restores a saved state.
    pub fn load_state(&mut self, state: ScalerState) {
        self.state = state;
    }

    /// The loss times the scale. The product is made in f32, so that a 16-bit loss cannot overflow by the scale alone.
    ///
    /// # Errors
    /// Out of memory.
    pub fn scale(&self, loss: &Var) -> Result<Var> {
        if self.config == LossScale::Off {
            return Ok(loss.clone());
        }
        let wide = if loss.dtype().is_half() { loss.cast(binade_tensor::DType::F32)? } else { loss.clone() };
        Ok((&wide * self.loss_scale())?)
    }

    /// Divides the gradients by the scale in place and checks that they were finite. Only needed before clipping.
    ///
    /// # Errors
    /// [`Error::AlreadyUnscaled`]; a gradient is in use.
    pub fn unscale(&mut self, grads: &mut Gradients) -> Result<()> {
        if self.unscaled.is_some() {
            return Err(Error::AlreadyUnscaled);
        }
        let bad = match self.config {
            LossScale::Off => false,
            // PyTorch takes the reciprocal in f64 and rounds it to f32.
            LossScale::Static(_) | LossScale::Dynamic { .. } => binade_nn::unscale(grads, 1.0 / self.loss_scale())?,
        };
        self.unscaled = Some(bad);
        self.found_inf = Some(self.found_inf.unwrap_or(false) | bad);
        Ok(())
    }

    /// Steps the optimiser if all its gradients were finite; else skips, and drops what waited for the step (running statistics).
    ///
    /// # Errors
    /// [`Error::NoGradients`] if there are none; the optimiser fails.
    pub fn step(&mut self, optimizer: &mut Optimizer, grads: &mut Gradients) -> Result<StepOutcome> {
        if grads.is_empty() {
            return Err(Error::NoGradients);
        }
        if self.unscaled.is_none() {
            self.unscale(grads)?;
        }
        if self.unscaled.take() == Some(true) {
            scope::discard();
            return Ok(StepOutcome::Skipped);
        }
        optimizer.step(grads)?;
        Ok(StepOutcome::Applied)
    }

    /// Adapts the scale; call once per iteration, after all steps. Without a checked gradient it does nothing.
    pub fn update(&mut self) {
        self.unscaled = None;
        let (Some(bad), LossScale::Dynamic { growth_factor, backoff_factor, growth_interval, .. }) =
            (self.found_inf.take(), self.config)
        else {
            return;
        };
        let scale = self.state.scale as f64;
        if bad {
            // Never 0: the inverse would be infinite and the scaler could not recover.
            self.state.scale = ((scale * backoff_factor) as f32).max(f32::MIN_POSITIVE);
            self.state.growth_tracker = 0;
            return;
        }
        self.state.growth_tracker += 1;
        // Not `==`: an interval lowered below the tracker must not stop growth.
        if self.state.growth_tracker >= growth_interval {
            let grown = (scale * growth_factor) as f32;
            if grown.is_finite() {
                self.state.scale = grown;
            }
            self.state.growth_tracker = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaler(init_scale: f64, growth_factor: f64, backoff_factor: f64, growth_interval: u32) -> GradScaler {
        GradScaler::new(LossScale::Dynamic { init_scale, growth_factor, backoff_factor, growth_interval }).unwrap()
    }

    fn after(scaler: &mut GradScaler, bad: bool) -> (f32, u32) {
        scaler.found_inf = Some(bad);
        scaler.update();
        (scaler.state.scale, scaler.state.growth_tracker)
    }

    #[test]
    fn update_scale_follows_the_values_of_pytorchs_test() {
        let mut s = scaler(4.0, 2.0, 0.25, 2);
        assert_eq!(after(&mut s, false), (4.0, 1));
        assert_eq!(after(&mut s, false), (8.0, 0));
        assert_eq!(after(&mut s, true), (2.0, 0));
    }

    #[test]
    fn the_scale_never_overflows_and_never_reaches_zero() {
        let mut s = scaler(1e38, 16.0, 0.5, 1);
        assert_eq!(after(&mut s, false).0, 1e38);
        for _ in 0..400 {
            assert!(after(&mut s, true).0 > 0.0);
        }
        assert!((1.0 / s.loss_scale()).is_finite());
    }

    /// Every sequence of outcomes up to length 12, for three intervals, against the automaton written the other way round:
    /// from the run of good steps since the last event.
    #[test]
    fn all_sequences_up_to_length_12_agree_with_a_second_automaton() {
        for interval in 1..=3u32 {
            for length in 1..=12u32 {
                for sequence in 0..1u32 << length {
                    let mut s = scaler(1024.0, 2.0, 0.5, interval);
                    let (mut growths, mut backoffs, mut run) = (0i32, 0i32, 0u32);
                    for i in 0..length {
                        let bad = sequence >> i & 1 == 1;
                        run = if bad { 0 } else { run + 1 };
                        backoffs += bad as i32;
                        growths += (!bad && run.is_multiple_of(interval)) as i32;
                        after(&mut s, bad);
                    }
                    assert_eq!(s.state.scale as f64, 1024.0 * 2f64.powi(growths - backoffs));
                    assert_eq!(s.state.growth_tracker, run % interval);
                }
            }
        }
    }

    #[test]
    fn settings_outside_their_domain_are_refused() {
        let config = |init_scale, growth_factor, backoff_factor, growth_interval| LossScale::Dynamic {
            init_scale,
            growth_factor,
            backoff_factor,
            growth_interval,
        };
        for bad in [
            config(1.0, 1.0, 0.5, 1),
            config(1.0, 2.0, 1.0, 1),
            config(1.0, 2.0, 0.0, 1),
            config(0.0, 2.0, 0.5, 1),
            config(1.0, 2.0, 0.5, 0),
            config(1e39, 2.0, 0.5, 1),
        ] {
            assert!(GradScaler::new(bad).is_err(), "{bad:?}");
        }
    }
}
