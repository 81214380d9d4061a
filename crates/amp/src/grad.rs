//! [`grad`]: gradients that a loss is made of.

use binade_autograd::{Var, scope};
use binade_nn::inverse;
use binade_tensor::DType;

use crate::{GradScaler, Result};

/// The gradients of `output`, one element, with respect to `inputs`, as values to make a loss of (a gradient penalty):
/// they have a history, and are in the units of `output`. `None` where the output does not depend on one.
///
/// Inside a step of [`crate::Training`] they are taken at its loss scale, so that small ones do not vanish in f16, and
/// divided by it in f32. A scale at which they overflow is lowered like one at which the step's gradients do.
///
/// ```
/// # use binade_cpu as _;
/// use binade_amp::{LossScale, Policy, Result, Training, grad};
/// use binade_autograd::Var;
/// use binade_nn::{AdamW, Layer, Linear, Optimizer};
/// use binade_tensor::DType;
/// # fn main() -> Result<()> {
/// let critic = Linear::new(3, 1)?;
/// let optimizer = Optimizer::new(&critic, AdamW::default())?;
/// let mut training = Training::new(optimizer, Policy::autocast(DType::F16), LossScale::dynamic())?;
/// let x = Var::leaf(Var::from_slice(&[0.5f32, -1.0, 2.0], &[1, 3])?.array().clone());
/// let step = training.step(|| -> Result<Var> {
///     let judged = critic.forward(&x)?.sum(&[], false)?;
///     let slope = grad(&judged, &[&x])?.remove(0).expect("the critic reads x");
///     // WGAN-GP: the norm of the gradient by the input shall be 1.
///     let penalty = (&slope.square()?.sum(&[], false)?.sqrt()? - 1.0)?.square()?;
///     Ok(judged.add(&penalty)?)
/// })?;
/// # let _ = step;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`binade_autograd::grad`].
pub fn grad(output: &Var, inputs: &[&Var]) -> Result<Vec<Option<Var>>> {
    grad_at(scope::loss_scale(), output, inputs)
}

impl GradScaler {
    /// As [`grad`], at this scaler's scale: for loops without [`crate::Training`].
    ///
    /// # Errors
    /// As [`grad`].
    pub fn grad(&mut self, output: &Var, inputs: &[&Var]) -> Result<Vec<Option<Var>>> {
        // A loss that is not finite may be this scale's doing.
        self.set_beyond_scaling(false);
        grad_at(self.loss_scale(), output, inputs)
    }
}

fn grad_at(scale: f64, output: &Var, inputs: &[&Var]) -> Result<Vec<Option<Var>>> {
    let wide = |v: &Var| if v.dtype().is_half() { v.cast(DType::F32) } else { Ok(v.clone()) };
    if scale == 1.0 {
        return Ok(binade_autograd::grad(output, inputs, None, true)?);
    }
    // No loss of a step: its gradients are divided again here, and carry no scale.
    let found = binade_autograd::grad(&(&wide(output)? * scale)?, inputs, None, true)?;
    let divided = |gradient: Var| -> Result<Var> { Ok((&wide(&gradient)? * inverse(scale))?) };
    found.into_iter().map(|gradient| gradient.map(divided).transpose()).collect()
}
