//! [`Schedule`]: the learning rate over steps.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A factor of the base learning rate as a function of applied steps. A value, so that a resumed run continues it
/// exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Always 1.
    Constant,
    /// `gamma^(step / every)`.
    Step {
        /// Steps between decays.
        every: u64,
        /// Factor of each decay.
        gamma: f64,
    },
    /// `gamma` for every milestone that has been reached.
    MultiStep {
        /// Steps at which the rate falls.
        milestones: Vec<u64>,
        /// Factor of each decay.
        gamma: f64,
    },
    /// `gamma^step`.
    Exponential {
        /// Factor of each step.
        gamma: f64,
    },
    /// A straight line from `start` to `end` over `total` steps, `end` afterwards.
    Linear {
        /// First factor.
        start: f64,
        /// Last factor.
        end: f64,
        /// Steps.
        total: u64,
    },
    /// `(1 − step/total)^power`, 0 afterwards.
    Polynomial {
        /// Steps.
        total: u64,
        /// Exponent.
        power: f64,
    },
    /// Linear from 0 over `warmup` steps, then a half cosine from 1 to `floor` at `total`.
    Cosine {
        /// Steps of the warm-up.
        warmup: u64,
        /// Steps in all.
        total: u64,
        /// Last factor.
        floor: f64,
    },
    /// Half cosines from 1 to `floor`, each `growth` times as long as the one before (Loshchilov and Hutter 2017).
    CosineRestarts {
        /// Steps of the first.
        first: u64,
        /// Factor of the length.
        growth: u64,
        /// Lowest factor.
        floor: f64,
    },
    /// Up to the base rate, down to 1/`final_div` of the start (Smith and Topin 2018; PyTorch's OneCycleLR in two
    /// phases). The base learning rate is the peak.
    OneCycle {
        /// Steps in all.
        total: u64,
        /// Part of them that rises (PyTorch: 0.3).
        rising: f64,
        /// Peak over start (PyTorch: 25).
        div: f64,
        /// Start over end (PyTorch: 1e4).
        final_div: f64,
        /// Half cosines; else straight lines.
        cosine: bool,
    },
    /// A straight line from `start` to 1 over `steps`, then another schedule from its beginning.
    WarmUp {
        /// Steps of the warm-up.
        steps: u64,
        /// First factor.
        start: f64,
        /// What follows.
        then: Box<Schedule>,
    },
}

impl Schedule {
    /// This schedule after a linear warm-up from 0: the first step has the factor 1/steps.
    #[must_use]
    pub fn after_warm_up(self, steps: u64) -> Schedule {
        Schedule::WarmUp { steps, start: 1.0 / steps.max(1) as f64, then: Box::new(self) }
    }

    /// The factor for the step after `step` applied ones: finite and at least 0.
    ///
    /// # Errors
    /// As [`Schedule::check`]; [`Error::Setting`] for a factor that grows beyond all numbers.
    pub fn factor(&self, step: u64) -> Result<f64> {
        self.check()?;
        let factor = self.value(step);
        Error::unless(factor.is_finite() && factor >= 0.0, "the schedule", "factor", "at least 0 and finite", factor)?;
        Ok(factor)
    }

    /// Fails unless every setting lies in its domain: PyTorch's where it has one.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        let positive = |of, what, n: u64| Error::unless(n > 0, of, what, "at least 1", n as f64);
        let within = |of, what, v: f64| Error::unless((0.0..=1.0).contains(&v), of, what, "from 0 to 1", v);
        let least_0 = |of, what, v: f64| Error::unless(v >= 0.0 && v.is_finite(), of, what, "at least 0 and finite", v);
        match self {
            Schedule::Constant => Ok(()),
            Schedule::Step { every, gamma } => {
                positive("Step", "steps between decays", *every)?;
                least_0("Step", "gamma", *gamma)
            }
            Schedule::MultiStep { milestones: _, gamma } => least_0("MultiStep", "gamma", *gamma),
            Schedule::Exponential { gamma } => least_0("Exponential", "gamma", *gamma),
            Schedule::Linear { start, end, total } => {
                Error::unless(
                    *start > 0.0 && *start <= 1.0,
                    "Linear",
                    "first factor",
                    "above 0 and at most 1",
                    *start,
                )?;
                within("Linear", "last factor", *end)?;
                positive("Linear", "number of steps", *total)
            }
            Schedule::Polynomial { total, power } => {
                least_0("Polynomial", "power", *power)?;
                positive("Polynomial", "number of steps", *total)
            }
            Schedule::Cosine { warmup: _, total, floor } => {
                positive("Cosine", "number of steps", *total)?;
                least_0("Cosine", "floor", *floor)
            }
            Schedule::CosineRestarts { first, growth, floor } => {
                positive("CosineRestarts", "number of steps", *first)?;
                positive("CosineRestarts", "growth", *growth)?;
                least_0("CosineRestarts", "floor", *floor)
            }
            Schedule::OneCycle { total, rising, div, final_div, cosine: _ } => {
                positive("OneCycle", "number of steps", *total)?;
                within("OneCycle", "rising part", *rising)?;
                let divisor = |what, v: f64| {
                    Error::unless(v.is_finite() && v >= f64::MIN_POSITIVE, "OneCycle", what, "above 0 and finite", v)
                };
                divisor("div", *div)?;
                divisor("final_div", *final_div)?;
                divisor("product of div and final_div", div * final_div)
            }
            Schedule::WarmUp { steps: _, start, then } => {
                within("WarmUp", "first factor", *start)?;
                then.check()
            }
        }
    }

    fn value(&self, step: u64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Step { every, gamma } => gamma.powf((step / (*every).max(1)) as f64),
            Schedule::MultiStep { milestones, gamma } => {
                gamma.powi(milestones.iter().filter(|&&m| m <= step).count() as i32)
            }
            Schedule::Exponential { gamma } => gamma.powf(step as f64),
            Schedule::Linear { start, end, total } => start + (end - start) * progress(step, *total),
            Schedule::Polynomial { total, power } => (1.0 - progress(step, *total)).powf(*power),
            Schedule::Cosine { warmup, .. } if step < *warmup => (step + 1) as f64 / (*warmup as f64 + 1.0),
            Schedule::Cosine { warmup, total, floor } => {
                cosine(1.0, *floor, progress(step - warmup, total.saturating_sub(*warmup)))
            }
            Schedule::CosineRestarts { first, growth, floor } => {
                let (left, length) = restart(step, (*first).max(1), (*growth).max(1));
                cosine(1.0, *floor, progress(left, length))
            }
            Schedule::OneCycle { total, rising, div, final_div, cosine: smooth } => {
                let between =
                    |from: f64, to: f64, t: f64| if *smooth { cosine(from, to, t) } else { from + (to - from) * t };
                let (start, end) = (1.0 / div, 1.0 / (div * final_div));
                let (peak, last) = (rising * *total as f64 - 1.0, *total as f64 - 1.0);
                let step = (step as f64).min(last);
                match step <= peak {
                    // A rise of one step is at its end at once.
                    true if peak == 0.0 => 1.0,
                    true => between(start, 1.0, step / peak),
                    false => between(1.0, end, (step - peak) / (last - peak)),
                }
            }
            Schedule::WarmUp { steps, start, .. } if step < *steps => start + (1.0 - start) * progress(step, *steps),
            Schedule::WarmUp { steps, then, .. } => then.value(step - steps),
        }
    }
}

/// Steps since the last restart, and between it and the next.
fn restart(step: u64, first: u64, growth: u64) -> (u64, u64) {
    if growth == 1 {
        return (step % first, first);
    }
    let (mut left, mut length) = (step, first);
    while left >= length {
        left -= length;
        length = length.saturating_mul(growth);
    }
    (left, length)
}

/// `step / total`, at most 1.
fn progress(step: u64, total: u64) -> f64 {
    (step as f64 / total.max(1) as f64).min(1.0)
}

/// From `from` to `to` along half a cosine.
fn cosine(from: f64, to: f64, t: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
}

/// Lowers the rate when a metric stops falling (PyTorch's ReduceLROnPlateau with a relative threshold). It depends on
/// what was measured, not on the step alone, so it is a state beside the schedules: its factor is multiplied with
/// theirs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plateau {
    /// Factor of each decay (PyTorch: 0.1).
    pub gamma: f64,
    /// Measurements without improvement that are tolerated (PyTorch: 10).
    pub patience: u64,
    /// Part by which a measurement must improve (PyTorch: 1e-4).
    pub threshold: f64,
    /// Lowest factor.
    pub floor: f64,
    /// None before the first finite measurement.
    best: Option<f64>,
    bad: u64,
    factor: f64,
}

impl Plateau {
    /// With PyTorch's threshold and no floor.
    ///
    /// # Errors
    /// As [`Plateau::check`].
    pub fn new(gamma: f64, patience: u64) -> Result<Plateau> {
        let plateau = Plateau { gamma, patience, threshold: 1e-4, floor: 0.0, best: None, bad: 0, factor: 1.0 };
        plateau.check().map(|()| plateau)
    }

    /// Fails unless every setting and the factor lie in their domains.
    ///
    /// # Errors
    /// [`Error::Setting`]: a gamma outside [0, 1), a threshold or floor that is negative or not finite.
    pub fn check(&self) -> Result<()> {
        let check = |ok, what, allowed, found| Error::unless(ok, "Plateau", what, allowed, found);
        let least_0 = |what, v: f64| check(v >= 0.0 && v.is_finite(), what, "at least 0 and finite", v);
        check((0.0..1.0).contains(&self.gamma), "gamma", "at least 0 and below 1", self.gamma)?;
        least_0("threshold", self.threshold)?;
        least_0("floor", self.floor)?;
        least_0("factor", self.factor)
    }

    /// The present factor.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Takes a measurement (lower is better) and returns the factor from now on. A measurement that is not finite is no
    /// improvement.
    ///
    /// # Errors
    /// As [`Plateau::check`].
    pub fn observe(&mut self, metric: f64) -> Result<f64> {
        self.check()?;
        let better = |best: f64| metric < best * (1.0 - self.threshold.copysign(best));
        if metric.is_finite() && self.best.is_none_or(better) {
            (self.best, self.bad) = (Some(metric), 0);
        } else {
            self.bad += 1;
        }
        if self.bad > self.patience {
            // A floor above the factor does not raise it.
            (self.factor, self.bad) = ((self.factor * self.gamma).max(self.floor).min(self.factor), 0);
        }
        Ok(self.factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_rises_linearly_and_falls_to_its_floor() {
        let s = Schedule::Cosine { warmup: 4, total: 104, floor: 0.1 };
        assert_eq!((s.factor(0).unwrap(), s.factor(4).unwrap()), (0.2, 1.0));
        assert!((s.factor(54).unwrap() - 0.55).abs() < 1e-12);
        assert!((s.factor(104).unwrap() - 0.1).abs() < 1e-12 && (s.factor(1000).unwrap() - 0.1).abs() < 1e-12);
    }

    #[test]
    fn step_decays_at_each_boundary() {
        let s = Schedule::Step { every: 10, gamma: 0.5 };
        assert_eq!((s.factor(9).unwrap(), s.factor(10).unwrap(), s.factor(25).unwrap()), (1.0, 0.5, 0.25));
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }

    #[test]
    fn the_others_have_the_values_of_their_formulas() {
        let multi = Schedule::MultiStep { milestones: vec![3, 5], gamma: 0.1 };
        near(multi.factor(2).unwrap(), 1.0);
        near(multi.factor(3).unwrap(), 0.1);
        near(multi.factor(9).unwrap(), 0.01);
        near(Schedule::Exponential { gamma: 0.9 }.factor(3).unwrap(), 0.729);
        // PyTorch: LinearLR(start_factor=0.5, total_iters=4) gives 0.5, 0.625, …
        near(Schedule::Linear { start: 0.5, end: 1.0, total: 4 }.factor(1).unwrap(), 0.625);
        near(Schedule::Linear { start: 0.5, end: 1.0, total: 4 }.factor(9).unwrap(), 1.0);
        near(Schedule::Polynomial { total: 4, power: 2.0 }.factor(1).unwrap(), 0.5625);
        near(Schedule::Polynomial { total: 4, power: 2.0 }.factor(7).unwrap(), 0.0);
        let restarts = Schedule::CosineRestarts { first: 10, growth: 2, floor: 0.0 };
        near(restarts.factor(5).unwrap(), 0.5);
        near(restarts.factor(10).unwrap(), 1.0);
        near(restarts.factor(20).unwrap(), 0.5);
        near(restarts.factor(30).unwrap(), 1.0);
        let warm = Schedule::Exponential { gamma: 0.5 }.after_warm_up(4);
        near(warm.factor(0).unwrap(), 0.25);
        near(warm.factor(4).unwrap(), 1.0);
        near(warm.factor(5).unwrap(), 0.5);
    }

    #[test]
    fn one_cycle_starts_at_a_25th_peaks_once_and_ends_near_0() {
        for cosine in [true, false] {
            let cycle = Schedule::OneCycle { total: 100, rising: 0.3, div: 25.0, final_div: 1e4, cosine };
            near(cycle.factor(0).unwrap(), 0.04);
            near(cycle.factor(29).unwrap(), 1.0);
            near(cycle.factor(99).unwrap(), 0.04 / 1e4);
            near(cycle.factor(1000).unwrap(), 0.04 / 1e4);
        }
    }

    #[test]
    fn plateau_lowers_the_rate_after_its_patience() {
        let mut plateau = Plateau::new(0.5, 1).unwrap();
        let factors: Vec<f64> =
            [1.0, 0.9, 0.9, 0.95, f64::NAN, 0.91, 0.1].map(|m| plateau.observe(m).unwrap()).to_vec();
        assert_eq!(factors, [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
    }
}
