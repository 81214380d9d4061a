//! [`LossScale`]: how losses are scaled, as a value, and [`ScalerState`], which it moves from step to step.

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
    /// A scale that grows while gradients are finite and shrinks when they are not.
    Dynamic(Dynamic),
}

/// Settings of a dynamic scale. The defaults are PyTorch's; the constructors of [`LossScale`] give those of other
/// systems.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dynamic {
    /// First scale.
    pub init_scale: f64,
    /// Factor after `growth_interval` good steps.
    pub growth_factor: f64,
    /// Factor after a bad step.
    pub backoff_factor: f64,
    /// Good steps between growths.
    pub growth_interval: u32,
    /// Good steps that do not count towards the first growth after the start or a bad step (DeepSpeed: 1).
    pub growth_lag: u32,
    /// Smallest scale.
    pub min_scale: f64,
    /// Largest scale; growth beyond f32 is refused in any case.
    #[serde(deserialize_with = "null_is_infinite")]
    pub max_scale: f64,
    /// Bad steps until the scale shrinks: 1 shrinks at every one.
    pub hysteresis: u32,
    /// When the count of bad steps starts anew.
    pub refill: Refill,
    /// As [`LossScale::patience`].
    pub patience: u32,
}

/// Bad steps in a row that are skipped by default without a lower scale left to try.
const PATIENCE: u32 = 20;

impl Default for Dynamic {
    fn default() -> Dynamic {
        Dynamic {
            init_scale: 65536.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 2000,
            growth_lag: 0,
            min_scale: 0.0,
            max_scale: f32::MAX as f64,
            hysteresis: 1,
            refill: Refill::Growth,
            patience: PATIENCE,
        }
    }
}

/// When the count of bad steps before a backoff ([`Dynamic::hysteresis`]) starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refill {
    /// Only when the scale grows: bad steps need not follow each other, and after one backoff each further one backs
    /// off (Megatron-LM, DeepSpeed).
    Growth,
    /// At every good step (DeepSpeed with `consecutive_hysteresis`).
    GoodStep,
    /// At every good step and after every backoff (Paddle's `decr_every_n_nan_or_inf`).
    GoodStepOrBackoff,
}

impl LossScale {
    /// PyTorch's GradScaler: 65536, ×2 every 2000 good steps, ×0.5 after a bad one.
    pub fn dynamic() -> LossScale {
        LossScale::Dynamic(Dynamic::default())
    }

    /// NVIDIA apex: as PyTorch, at most 2²⁴.
    pub fn apex() -> LossScale {
        LossScale::Dynamic(Dynamic { max_scale: (1u32 << 24) as f64, ..Dynamic::default() })
    }

    /// Megatron-LM: from 2³², interval 1000, at least 1, the second bad step backs off. Unlike there, the scale stays
    /// finite.
    pub fn megatron() -> LossScale {
        LossScale::Dynamic(Dynamic {
            init_scale: 2f64.powi(32),
            growth_interval: 1000,
            min_scale: 1.0,
            hysteresis: 2,
            ..Dynamic::default()
        })
    }

    /// DeepSpeed's DynamicLossScaler with the hysteresis of its configuration: as Megatron-LM, but the first growth
    /// after a bad step takes 1001 good steps, and a bad step at the minimum that would back off ends the run. The copy
    /// in its fused optimiser has a hysteresis of 1 and never ends the run.
    pub fn deepspeed() -> LossScale {
        LossScale::Dynamic(Dynamic {
            init_scale: 2f64.powi(32),
            growth_interval: 1000,
            growth_lag: 1,
            min_scale: 1.0,
            hysteresis: 2,
            patience: 0,
            ..Dynamic::default()
        })
    }

    /// Keras' LossScaleOptimizer: as PyTorch, from 2¹⁵.
    pub fn keras() -> LossScale {
        LossScale::Dynamic(Dynamic { init_scale: 32768.0, ..Dynamic::default() })
    }

    /// jmp's DynamicLossScale, from its documented 2¹⁵: at least 1.
    pub fn jmp() -> LossScale {
        LossScale::Dynamic(Dynamic { init_scale: 32768.0, min_scale: 1.0, ..Dynamic::default() })
    }

    /// Paddle's GradScaler with a given `decr_every_n_nan_or_inf`, 1 by default there.
    pub fn paddle(decr_every: u32) -> LossScale {
        LossScale::Dynamic(Dynamic { hysteresis: decr_every, refill: Refill::GoodStepOrBackoff, ..Dynamic::default() })
    }

    /// The presets by name, for configuration files and tests.
    pub fn presets() -> [(&'static str, LossScale); 7] {
        [
            ("torch", LossScale::dynamic()),
            ("apex", LossScale::apex()),
            ("megatron", LossScale::megatron()),
            ("deepspeed", LossScale::deepspeed()),
            ("keras", LossScale::keras()),
            ("jmp", LossScale::jmp()),
            ("paddle", LossScale::paddle(1)),
        ]
    }

    /// The state before the first step.
    ///
    /// # Errors [`Error::Setting`]: a growth factor of at most 1, a backoff factor outside (0, 1); a scale that is not
    /// a normal f32 above 0, or not between the smallest and the largest; an interval or hysteresis of 0.
    pub fn start(&self) -> Result<ScalerState> {
        let check =
            |ok: bool, what, allowed, found| if ok { Ok(()) } else { Err(Error::Setting { what, allowed, found }) };
        let (scale, hysteresis) = match *self {
            LossScale::Off => (1.0, 0),
            LossScale::Static(scale) => (scale, 0),
            LossScale::Dynamic(d) => {
                let Dynamic { growth_factor: growth, backoff_factor: backoff, init_scale: init, .. } = d;
                check(growth > 1.0 && growth.is_finite(), "growth factor", "greater than 1", growth)?;
                check(backoff > 0.0 && backoff < 1.0, "backoff factor", "between 0 and 1", backoff)?;
                check(d.growth_interval > 0, "growth interval", "at least 1", d.growth_interval as f64)?;
                check(d.hysteresis > 0, "hysteresis", "at least 1", d.hysteresis as f64)?;
                check(
                    d.min_scale >= 0.0 && d.min_scale <= init,
                    "smallest loss scale",
                    "from 0 to the first scale",
                    d.min_scale,
                )?;
                check(d.max_scale >= init, "largest loss scale", "at least the first scale", d.max_scale)?;
                (init, d.hysteresis)
            }
        };
        check_scale(scale)?;
        Ok(ScalerState { scale: scale as f32, growth_tracker: 0, hysteresis, in_vain: 0 })
    }

    /// The state after a step. A pure function: the whole automaton.
    ///
    /// Products are made in f64 and rounded to f32, as PyTorch does. The scale never becomes 0, whose inverse is
    /// infinite, nor infinite: below the smallest normal f32 it stays.
    #[must_use]
    pub fn next(&self, state: ScalerState, found_inf: bool) -> ScalerState {
        let LossScale::Dynamic(d) = *self else {
            return if found_inf { state.in_vain() } else { ScalerState { in_vain: 0, ..state } };
        };
        if found_inf {
            let hysteresis = state.hysteresis.saturating_sub(1);
            let mut next = ScalerState { growth_tracker: 0, hysteresis, ..state };
            if hysteresis == 0 {
                let lower = (state.scale as f64 * d.backoff_factor) as f32;
                next.scale = lower.max(d.floor().min(state.scale));
                next.in_vain = if next.scale < state.scale { 0 } else { state.in_vain().in_vain };
                if d.refill == Refill::GoodStepOrBackoff {
                    next.hysteresis = d.hysteresis;
                }
            }
            return next;
        }
        let mut next = ScalerState { growth_tracker: state.growth_tracker.saturating_add(1), in_vain: 0, ..state };
        if d.refill != Refill::Growth {
            next.hysteresis = d.hysteresis;
        }
        // Not `==`: an interval lowered below the tracker must not stop growth.
        if next.growth_tracker >= d.growth_interval.saturating_add(d.growth_lag) {
            let grown = (state.scale as f64 * d.growth_factor) as f32;
            if grown.is_finite() {
                next.scale = grown.min((d.max_scale as f32).max(state.scale));
            }
            (next.growth_tracker, next.hysteresis) = (d.growth_lag, d.hysteresis);
        }
        next
    }

    /// Bad steps in a row that are skipped without a lower scale left to try, before [`Error::Stalled`]: 20 unless the
    /// dynamic scale says otherwise.
    pub fn patience(&self) -> u32 {
        match self {
            LossScale::Off | LossScale::Static(_) => PATIENCE,
            LossScale::Dynamic(d) => d.patience,
        }
    }
}

/// JSON has no infinity and writes null.
fn null_is_infinite<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// Fails unless a scale and its inverse are finite f32s above 0.
pub(crate) fn check_scale(found: f64) -> Result<()> {
    let ok = (found as f32).is_finite() && found as f32 >= f32::MIN_POSITIVE;
    if ok { Ok(()) } else { Err(Error::Setting { what: "loss scale", allowed: "a normal f32 above 0", found }) }
}

impl Dynamic {
    /// Smallest scale that backing off may reach.
    fn floor(&self) -> f32 {
        (self.min_scale as f32).max(f32::MIN_POSITIVE)
    }
}

/// Everything a scaler must remember between runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalerState {
    /// Present scale (an f32 in PyTorch).
    pub scale: f32,
    /// Good steps since the last change; after a growth they start from [`Dynamic::growth_lag`].
    pub growth_tracker: u32,
    /// Bad steps left before the scale shrinks.
    #[serde(default)]
    pub hysteresis: u32,
    /// Bad steps in a row that did not lower the scale, though none of them waits for [`Dynamic::hysteresis`].
    #[serde(default)]
    pub in_vain: u32,
}

impl ScalerState {
    /// The state after a bad step that does not lower the scale.
    #[must_use]
    pub(crate) fn in_vain(self) -> ScalerState {
        ScalerState { in_vain: self.in_vain.saturating_add(1), ..self }
    }
}

#[cfg(test)]
mod tests;
