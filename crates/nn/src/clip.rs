//! Norm and clipping of gradients.

use std::collections::HashSet;

use binade_autograd::{Gradients, LeafId};
use binade_tensor::{Array, ArrayMut, Class, DType, Device, Grad, Outcome, Slot, Update};

use crate::Result;

/// The Euclidean norm over all gradients, in f64.
///
/// # Errors
/// A gradient is in use.
pub fn grad_norm(grads: &Gradients) -> Result<f64> {
    scaled_grad_norm(grads, 1.0)
}

/// The Euclidean norm over all gradients times `factor` (1/loss scale), in f64: finite exactly if every product is finite in f32, so it
/// serves as the check too.
///
/// # Errors
/// A gradient is in use.
pub fn scaled_grad_norm(grads: &Gradients, factor: f64) -> Result<f64> {
    let slot = |(_, grad)| Slot { param: None, master: None, grad: Grad::Read(grad), state: vec![], first: false };
    let mut slots: Vec<Slot<'_>> = grads.iter().map(slot).collect();
    let device = device(grads);
    Ok(device.update(&Update::Norm, &scalars(&device, &[factor])?, &mut slots)?.norm)
}

/// What clipping gradients of that norm multiplies them by: min(1, max_norm/(norm + 1e-6)), NaN if the norm is.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    let factor = max_norm / (norm + 1e-6);
    if factor >= 1.0 { 1.0 } else { factor }
}

/// Scales all gradients by min(1, max_norm/(norm + 1e-6)) in place and returns the norm before. A norm that is not finite
/// scales too, as in PyTorch.
///
/// # Errors
/// A gradient is in use.
pub fn clip_grad_norm(grads: &mut Gradients, max_norm: f64) -> Result<f64> {
    let norm = grad_norm(grads)?;
    let factor = clip_factor(norm, max_norm);
    if factor != 1.0 {
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

/// Multiplies the gradients of `leaves` (all, if `None`) by `inverse_scale`; true if a product is not finite. An f16 gradient becomes
/// f32 first: unscaled values lie below f16's range more often than not.
///
/// # Errors
/// A gradient is in use; out of memory.
pub fn unscale(grads: &mut Gradients, leaves: Option<&HashSet<LeafId>>, inverse_scale: f64) -> Result<bool> {
    let chosen: Vec<LeafId> = grads.iter().map(|(id, _)| id).filter(|id| leaves.is_none_or(|l| l.contains(id))).collect();
    let mut part = Gradients::default();
    for id in chosen {
        let Some(gradient) = grads.by_id(id) else { continue };
        if gradient.dtype() == DType::F16 {
            let wide = gradient.cast(DType::F32, Class::Gradients)?;
            grads.insert(id, wide);
        }
        // The same storage: the pass below writes to what `grads` holds.
        part.insert(id, grads.by_id(id).ok_or(binade_autograd::Error::NoGraph)?.clone());
    }
    Ok(in_place(&mut part, &Update::Unscale, inverse_scale)?.found_inf)
}
