//! Norm and clipping of gradients.

use binade_autograd::Gradients;
use binade_tensor::{Array, ArrayMut, Class, Device, Grad, Outcome, Slot, Update};

use crate::Result;

/// The Euclidean norm over all gradients, in f64.
///
/// # Errors
/// A gradient is in use.
pub fn grad_norm(grads: &Gradients) -> Result<f64> {
    let mut slots: Vec<Slot<'_>> =
        grads.iter().map(|(_, g)| Slot { param: None, master: None, grad: Grad::Read(g), state: vec![], first: false }).collect();
    Ok(device(grads).update(&Update::Norm, &scalars(&device(grads), &[])?, &mut slots)?.norm)
}

/// Scales all gradients by min(1, max_norm/(norm + 1e-6)) in place and returns the norm before. A norm that is not finite
/// scales too, as in PyTorch.
///
/// # Errors
/// A gradient is in use.
pub fn clip_grad_norm(grads: &mut Gradients, max_norm: f64) -> Result<f64> {
    let norm = grad_norm(grads)?;
    let factor = max_norm / (norm + 1e-6);
    if factor < 1.0 || factor.is_nan() {
        in_place(grads, &Update::Scale, factor)?;
    }
    Ok(norm)
}

/// Limits every element of every gradient to −limit..=limit in place; NaN stays.
///
/// # Errors
/// A gradient is in use.
pub fn clip_grad_value(grads: &mut Gradients, limit: f64) -> Result<()> {
    in_place(grads, &Update::Clamp, limit).map(|_| ())
}

/// Runs a pass that changes gradients in place.
///
/// # Errors
/// A gradient is in use.
pub(crate) fn in_place(grads: &mut Gradients, update: &Update, scalar: f64) -> Result<Outcome> {
    let mut slots = Vec::new();
    for (_, grad) in grads.iter() {
        slots.push(Slot {
            param: None,
            master: None,
            grad: Grad::Write(ArrayMut::new(update.name(), grad)?),
            state: vec![],
            first: false,
        });
    }
    let device = device(grads);
    Ok(device.update(update, &scalars(&device, &[scalar])?, &mut slots)?)
}

fn device(grads: &Gradients) -> Device {
    grads.iter().next().map_or_else(Device::cpu, |(_, g)| g.device().clone())
}

/// Numbers that change from step to step, on the device.
pub(crate) fn scalars(device: &Device, values: &[f64]) -> Result<Array> {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    Ok(Array::from_slice(device, &values, &[values.len()], Class::Optimizer)?)
}

/// Divides all gradients by `scale` in place; true if one was not finite before.
///
/// # Errors
/// A gradient is in use.
pub fn unscale(grads: &mut Gradients, inverse_scale: f64) -> Result<bool> {
    Ok(in_place(grads, &Update::Unscale, inverse_scale)?.found_inf)
}
