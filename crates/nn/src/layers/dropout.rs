//! Dropout, of values and of channels.

use binade_autograd::Var;

use crate::{Layer, Mode, Module, Result, Visitor};

/// Zeroes values with probability `p` in training and scales the rest by 1/(1 − p).
#[derive(Clone, Module)]
pub struct Dropout {
    /// Probability.
    pub p: f64,
    /// Training or evaluation; the scope's by default.
    pub mode: Mode,
}

impl Dropout {
    /// With probability `p`.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting): `p` is outside 0 to 1.
    pub fn new(p: f64) -> Result<Dropout> {
        Ok(Dropout { p: probability("Dropout", p)?, mode: Mode::default() })
    }
}

impl Layer for Dropout {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(self.mode.run(|| x.dropout(self.p))?)
    }
}

/// A probability of dropping out, if it is one.
fn probability(layer: &'static str, p: f64) -> Result<f64> {
    crate::Error::unless((0.0..=1.0).contains(&p), layer, "probability of dropping out", "from 0 to 1", p).map(|()| p)
}

/// Zeroes whole channels (dimension 1) with probability `p` in training and scales the rest by 1/(1 − p).
#[derive(Clone, Module)]
pub struct DropoutChannels {
    /// Probability.
    pub p: f64,
    /// Training or evaluation; the scope's by default.
    pub mode: Mode,
}

impl DropoutChannels {
    /// With probability `p`.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting): `p` is outside 0 to 1.
    pub fn new(p: f64) -> Result<DropoutChannels> {
        Ok(DropoutChannels { p: probability("DropoutChannels", p)?, mode: Mode::default() })
    }
}

impl Layer for DropoutChannels {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(self.mode.run(|| x.dropout_channels(self.p))?)
    }
}
