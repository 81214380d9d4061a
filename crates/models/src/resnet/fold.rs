//! Norms of a trained network folded into the convolutions before them: `γ·(w∗x − μ)/√(σ² + ε) + β` is a convolution
//! with another weight and a bias.

use binade_autograd::Var;
use binade_nn::{BatchNorm2d, Conv2d, Param, Result};
use binade_tensor::op::Binary;
use binade_tensor::{Array, Class, DType, Device};

/// A convolution with the norm behind it. Computed in f64, on the host, since a device may have none; rounded once.
pub(super) fn fold(conv: &Conv2d, norm: &BatchNorm2d) -> Result<Conv2d> {
    let wide = |array: Array| Var::constant(array.to(&Device::cpu())?).cast(DType::F64);
    let deviation = wide(norm.running_var.array())?.scalar(Binary::Add, norm.eps, false)?.sqrt()?;
    let factor = wide(norm.weight.array())?.div(&deviation)?;
    let weight = wide(conv.weight.array())?.mul(&factor.reshape(&[-1, 1, 1, 1])?)?;
    let shift = wide(norm.bias.array())?.sub(&wide(norm.running_mean.array())?.mul(&factor)?)?;
    let bias = match &conv.bias {
        Some(bias) => shift.add(&wide(bias.array())?.mul(&factor)?)?,
        None => shift,
    };
    let device = conv.weight.array().device().clone();
    let param = |values: &Var| {
        Ok::<_, binade_nn::Error>(Param::new(values.array().cast(DType::F32, Class::Weights)?.to(&device)?))
    };
    Ok(Conv2d { weight: param(&weight)?, bias: Some(param(&bias)?), geometry: conv.geometry })
}
