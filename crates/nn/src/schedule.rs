//! [`Schedule`]: the learning rate over steps.

/// A factor of the base learning rate as a function of applied steps.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Linear from 0 over `warmup` steps, then a half cosine from 1 to `floor` at `total`.
    Cosine {
        /// Steps of the warm-up.
        warmup: u64,
        /// Steps in all.
        total: u64,
        /// Last factor.
        floor: f64,
    },
}

impl Schedule {
    /// The factor for the step after `step` applied ones.
    pub fn factor(&self, step: u64) -> f64 {
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Step { every, gamma } => gamma.powi((step / every.max(1)) as i32),
            Schedule::Cosine { warmup, .. } if step < warmup => (step + 1) as f64 / (warmup + 1) as f64,
            Schedule::Cosine { warmup, total, floor } => {
                let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
            }
        }
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
}
