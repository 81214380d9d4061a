//! [`Guidance`]: further from what the network says without a condition (Ho and Salimans, 2022).

use binade_autograd::Var;
use binade_tensor::DType;

use crate::{Error, Result};

/// How far the output goes from the unconditional to the conditional one and beyond.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    scale: f64,
    rescale: f64,
}

impl Guidance {
    /// `unconditional + scale·(conditional − unconditional)`: 1 is the conditional output and 0 the unconditional one,
    /// to the bit. With `rescale` from 0 to 1, so much of the result has the deviation of the conditional output (Lin
    /// et al., 2024, equation 16).
    ///
    /// # Errors
    /// Numbers that are not finite; a rescaling outside 0 to 1.
    pub fn new(scale: f64, rescale: f64) -> Result<Guidance> {
        if !scale.is_finite() || !(0.0..=1.0).contains(&rescale) {
            let message = format!("guidance must be finite and its rescaling from 0 to 1, got {scale} and {rescale}");
            return Err(Error::Setting(message));
        }
        Ok(Guidance { scale, rescale })
    }

    /// Whether the unconditional output is wanted.
    pub fn wants_unconditional(&self) -> bool {
        self.scale != 1.0
    }

    /// Whether the conditional output is wanted.
    pub fn wants_conditional(&self) -> bool {
        self.scale != 0.0
    }

    /// The guided output for images `[N, …]`, of a network that is given them once or twice in one batch, and for each
    /// time whether with the condition.
    ///
    /// # Errors
    /// Those of the network; shapes that do not fit.
    pub fn guided(&self, x: &Var, network: impl FnOnce(&Var, &[bool]) -> Result<Var>) -> Result<Var> {
        let n = x.shape()[0];
        let sides = [self.wants_unconditional().then_some(false), self.wants_conditional().then_some(true)];
        let sides: Vec<bool> = sides.into_iter().flatten().collect();
        let out = network(&Var::cat(&vec![x; sides.len()], 0)?, &sides)?.cast(DType::F32)?;
        if sides.len() == 1 {
            return Ok(out);
        }
        self.of(Some(&out.narrow(0, n, n)?), Some(&out.narrow(0, 0, n)?))
    }

    /// The guided output, `[N, …]` in f32, of what was wanted.
    ///
    /// # Errors
    /// Shapes that do not fit; an output is missing.
    pub fn of(&self, conditional: Option<&Var>, unconditional: Option<&Var>) -> Result<Var> {
        let (conditional, unconditional) = match (conditional, unconditional) {
            (Some(only), _) if !self.wants_unconditional() => return Ok(only.clone()),
            (_, Some(only)) if !self.wants_conditional() => return Ok(only.clone()),
            (Some(conditional), Some(unconditional)) => {
                (conditional.cast(DType::F32)?, unconditional.cast(DType::F32)?)
            }
            _ => return Err(Error::Setting("guidance needs both outputs of the network".into())),
        };
        let guided = (&unconditional + &(&(&conditional - &unconditional)? * self.scale)?)?;
        if self.rescale == 0.0 {
            return Ok(guided);
        }
        let dims: Vec<isize> = (1..guided.shape().rank() as isize).collect();
        let ratio = (&conditional.std(&dims, 1.0, true)? / &guided.std(&dims, 1.0, true)?)?;
        let rescaled = (&guided * &ratio)?;
        Ok((&(&rescaled * self.rescale)? + &(&guided * (1.0 - self.rescale))?)?)
    }
}
