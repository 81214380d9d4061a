//! [`Schedule`]: the learning rate over steps.

/// A factor of the base learning rate as a function of applied steps. A value, so that a resumed run continues it exactly.
#[derive(Clone, Debug, PartialEq)]
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
    /// Up to the base rate, down to 1/`final_div` of the start (Smith and Topin 2018; PyTorch's OneCycleLR in two phases). The
    /// base learning rate is the peak.
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

    /// The factor for the step after `step` applied ones.
    pub fn factor(&self, step: u64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Step { every, gamma } => gamma.powf((step / (*every).max(1)) as f64),
            Schedule::MultiStep { milestones, gamma } => gamma.powi(milestones.iter().filter(|&&m| m <= step).count() as i32),
            Schedule::Exponential { gamma } => gamma.powf(step as f64),
            Schedule::Linear { start, end, total } => start + (end - start) * progress(step, *total),
            Schedule::Polynomial { total, power } => (1.0 - progress(step, *total)).powf(*power),
            Schedule::Cosine { warmup, .. } if step < *warmup => (step + 1) as f64 / (warmup + 1) as f64,
            Schedule::Cosine { warmup, total, floor } => {
                cosine(1.0, *floor, progress(step - warmup, total.saturating_sub(*warmup)))
            }
            Schedule::CosineRestarts { first, growth, floor } => {
                let (mut left, mut length) = (step, (*first).max(1));
                while left >= length {
                    left -= length;
                    length = length.saturating_mul((*growth).max(1));
                }
                cosine(1.0, *floor, progress(left, length))
            }
            Schedule::OneCycle { total, rising, div, final_div, cosine: smooth } => {
                let between = |from: f64, to: f64, t: f64| if *smooth { cosine(from, to, t) } else { from + (to - from) * t };
                let (start, end) = (1.0 / div, 1.0 / (div * final_div));
                let (peak, last) = (rising * *total as f64 - 1.0, *total as f64 - 1.0);
                let step = (step as f64).min(last);
                if step <= peak { between(start, 1.0, step / peak) } else { between(1.0, end, (step - peak) / (last - peak)) }
            }
            Schedule::WarmUp { steps, start, .. } if step < *steps => start + (1.0 - start) * progress(step, *steps),
            Schedule::WarmUp { steps, then, .. } => then.factor(step - steps),
        }
    }
}

/// `step / total`, at most 1.
fn progress(step: u64, total: u64) -> f64 {
    (step as f64 / total.max(1) as f64).min(1.0)
}

/// From `from` to `to` along half a cosine.
fn cosine(from: f64, to: f64, t: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
}

/// Lowers the rate when a metric stops falling (PyTorch's ReduceLROnPlateau with a relative threshold). It depends on what was
/// measured, not on the step alone, so it is a state beside the schedules: multiply its factor with theirs.
#[derive(Clone, Debug, PartialEq)]
pub struct Plateau {
    /// Factor of each decay (PyTorch: 0.1).
    pub gamma: f64,
    /// Measurements without improvement that are tolerated (PyTorch: 10).
    pub patience: u64,
    /// Part by which a measurement must improve (PyTorch: 1e-4).
    pub threshold: f64,
    /// Lowest factor.
    pub floor: f64,
    best: f64,
    bad: u64,
    factor: f64,
}

impl Plateau {
    /// With PyTorch's threshold and no floor.
    pub fn new(gamma: f64, patience: u64) -> Plateau {
        Plateau { gamma, patience, threshold: 1e-4, floor: 0.0, best: f64::INFINITY, bad: 0, factor: 1.0 }
    }

    /// Takes a measurement (lower is better) and returns the factor from now on. NaN is no improvement.
    pub fn observe(&mut self, metric: f64) -> f64 {
        if metric < self.best * (1.0 - self.threshold * self.best.signum()) || self.best.is_infinite() && metric.is_finite() {
            (self.best, self.bad) = (metric, 0);
        } else {
            self.bad += 1;
        }
        if self.bad > self.patience {
            (self.factor, self.bad) = ((self.factor * self.gamma).max(self.floor), 0);
        }
        self.factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_rises_linearly_and_falls_to_its_floor() {
        let s = Schedule::Cosine { warmup: 4, total: 104, floor: 0.1 };
        assert_eq!((s.factor(0), s.factor(4)), (0.2, 1.0));
        assert!((s.factor(54) - 0.55).abs() < 1e-12);
        assert!((s.factor(104) - 0.1).abs() < 1e-12 && (s.factor(1000) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn step_decays_at_each_boundary() {
        let s = Schedule::Step { every: 10, gamma: 0.5 };
        assert_eq!((s.factor(9), s.factor(10), s.factor(25)), (1.0, 0.5, 0.25));
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }

    #[test]
    fn the_others_have_the_values_of_their_formulas() {
        let multi = Schedule::MultiStep { milestones: vec![3, 5], gamma: 0.1 };
        near(multi.factor(2), 1.0);
        near(multi.factor(3), 0.1);
        near(multi.factor(9), 0.01);
        near(Schedule::Exponential { gamma: 0.9 }.factor(3), 0.729);
        // PyTorch: LinearLR(start_factor=0.5, total_iters=4) gives 0.5, 0.625, …
        near(Schedule::Linear { start: 0.5, end: 1.0, total: 4 }.factor(1), 0.625);
        near(Schedule::Linear { start: 0.5, end: 1.0, total: 4 }.factor(9), 1.0);
        near(Schedule::Polynomial { total: 4, power: 2.0 }.factor(1), 0.5625);
        near(Schedule::Polynomial { total: 4, power: 2.0 }.factor(7), 0.0);
        let restarts = Schedule::CosineRestarts { first: 10, growth: 2, floor: 0.0 };
        near(restarts.factor(5), 0.5);
        near(restarts.factor(10), 1.0);
        near(restarts.factor(20), 0.5);
        near(restarts.factor(30), 1.0);
        let warm = Schedule::Exponential { gamma: 0.5 }.after_warm_up(4);
        near(warm.factor(0), 0.25);
        near(warm.factor(4), 1.0);
        near(warm.factor(5), 0.5);
    }

    #[test]
    fn one_cycle_starts_at_a_25th_peaks_once_and_ends_near_0() {
        for cosine in [true, false] {
            let cycle = Schedule::OneCycle { total: 100, rising: 0.3, div: 25.0, final_div: 1e4, cosine };
            near(cycle.factor(0), 0.04);
            near(cycle.factor(29), 1.0);
            near(cycle.factor(99), 0.04 / 1e4);
            near(cycle.factor(1000), 0.04 / 1e4);
        }
    }

    #[test]
    fn plateau_lowers_the_rate_after_its_patience() {
        let mut plateau = Plateau::new(0.5, 1);
        let factors: Vec<f64> = [1.0, 0.9, 0.9, 0.95, f64::NAN, 0.91, 0.1].map(|m| plateau.observe(m)).to_vec();
        assert_eq!(factors, [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
    }
}
