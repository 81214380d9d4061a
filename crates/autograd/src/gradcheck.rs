//! [`gradcheck`]: analytic gradients against central differences in f64.

use binade_tensor::{Array, Class, DType};

use crate::{Error, Var, no_grad};

/// Why a gradient check failed.
#[derive(Debug, thiserror::Error)]
pub enum GradcheckError {
    /// The function or its gradient failed.
    #[error(transparent)]
    Failed(#[from] Error),
    /// Inputs must be f64.
    #[error("gradcheck needs f64 inputs, input {input} is {dtype}")]
    NotF64 {
        /// Input.
        input: usize,
        /// Its dtype.
        dtype: DType,
    },
    /// The gradients differ.
    #[error("input {input}, element {element}: backward gives {analytic}, central differences give {numeric}")]
    Mismatch {
        /// Input.
        input: usize,
        /// Element, in row-major order.
        element: usize,
        /// From backward.
        analytic: f64,
        /// From central differences.
        numeric: f64,
    },
}

/// Compares the gradient of `Σ w·f(inputs)`, w fixed weights of different sizes, with central differences of step 10⁻⁶
/// at every element of every float input. Differences up to 10⁻⁵ absolute plus 10⁻³ relative are rounding of the
/// differences.
///
/// # Errors
/// [`GradcheckError`] with the first element that differs.
pub fn gradcheck(f: impl Fn(&[Var]) -> crate::Result<Var>, inputs: &[Array]) -> Result<(), GradcheckError> {
    if let Some((input, array)) =
        inputs.iter().enumerate().find(|(_, a)| a.dtype().is_float() && a.dtype() != DType::F64)
    {
        return Err(GradcheckError::NotF64 { input, dtype: array.dtype() });
    }
    let weigh = |y: &Var| -> crate::Result<Var> {
        let weights: Vec<f64> = (0..y.array().numel()).map(|i| 0.5 + (i as f64 * 0.7).sin()).collect();
        let w = Array::from_slice(y.array().device(), &weights, y.shape(), Class::Workspace)?;
        y.mul(&Var::constant(w))?.sum(&[], false)
    };
    let leaves: Vec<Var> = inputs
        .iter()
        .map(|a| if a.dtype().is_float() { Var::leaf(a.clone()) } else { Var::constant(a.clone()) })
        .collect();
    let grads = weigh(&f(&leaves)?)?.backward()?;
    let value = |arrays: &[Var]| -> crate::Result<f64> { no_grad(|| weigh(&f(arrays)?)?.item()) };
    const STEP: f64 = 1e-6;
    for (input, array) in inputs.iter().enumerate().filter(|(_, a)| a.dtype().is_float()) {
        let analytic = match grads.get(&leaves[input]) {
            Some(g) => g.to_f64_vec().map_err(Error::from)?,
            None => vec![0.0; array.numel()],
        };
        let values = array.to_vec::<f64>().map_err(Error::from)?;
        for element in 0..values.len() {
            let at = |delta: f64| -> crate::Result<f64> {
                let mut moved = values.clone();
                moved[element] += delta;
                let mut vars = leaves.clone();
                vars[input] =
                    Var::constant(Array::from_slice(array.device(), &moved, array.shape(), Class::Workspace)?);
                value(&vars)
            };
            let numeric = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            let analytic = analytic[element];
            // Written so that NaN on either side fails.
            let close = (analytic - numeric).abs() <= 1e-5 + 1e-3 * numeric.abs();
            if !close {
                return Err(GradcheckError::Mismatch { input, element, analytic, numeric });
            }
        }
    }
    Ok(())
}
