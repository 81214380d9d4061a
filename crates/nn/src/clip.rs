//! Norm and clipping of gradients, in the units of the unscaled loss whatever scale the gradients carry.

use std::collections::HashSet;

use binade_autograd::{Gradients, LeafId};
use binade_tensor::{Array, ArrayMut, Class, DType, Device, Grad, Outcome, Shape, Slot, Update};

use crate::{Error, Result};

/// The Euclidean norm over all gradients, in f64.
///
/// # Errors
/// A gradient is in use.
pub fn grad_norm(grads: &Gradients) -> Result<f64> {
    scaled_grad_norm(grads, 1.0)
}

/// The Euclidean norm over all gradients times `factor`, in f64: finite exactly if every product is finite in f32, so
/// it serves as the check too. Gradients that carry a loss scale are divided by it.
///
/// # Errors
/// A gradient is in use.
pub fn scaled_grad_norm(grads: &Gradients, factor: f64) -> Result<f64> {
    queue_norm(grads, &ids(grads), factor)?.wait()
}

/// [`grad_norm`] without waiting for it: an asynchronous device is still at work when this returns.
///
/// # Errors
/// A gradient is in use.
pub fn grad_norm_later(grads: &Gradients) -> Result<GradNorm> {
    queue_norm(grads, &ids(grads), 1.0)
}

/// A norm that a device may still be computing.
#[derive(Debug)]
#[must_use = "a norm is known when it is waited for"]
pub struct GradNorm(Vec<Outcome>);

impl GradNorm {
    /// Waits for the norm.
    ///
    /// # Errors
    /// What an asynchronous device reports late.
    pub fn wait(self) -> Result<f64> {
        let norms = self.0.into_iter().map(|part| Ok(part.wait()?.norm)).collect::<Result<Vec<f64>>>()?;
        // Of one norm too: the root of a square is the number itself, to the last bit.
        Ok(norms.iter().map(|n| n * n).sum::<f64>().sqrt())
    }
}

/// What clipping gradients of that norm multiplies them by: min(1, max_norm/(norm + 1e-6)), NaN if the norm is.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    let factor = max_norm / (norm + 1e-6);
    if factor >= 1.0 { 1.0 } else { factor }
}

/// Scales all gradients by min(1, max_norm/(norm + 1e-6)) in place and returns the norm before. A norm that is not
/// finite scales too, as in PyTorch. For the gradients of one optimiser among others:
/// [`crate::Optimizer::clip_grad_norm`].
///
/// # Errors
/// [`Error::Setting`] for a norm that is negative or NaN; a gradient is in use.
pub fn clip_grad_norm(grads: &mut Gradients, max_norm: f64) -> Result<f64> {
    let all = ids(grads);
    clip_norm(grads, &all, max_norm)
}

/// Limits every element of every gradient to −limit..=limit in place; NaN stays.
///
/// # Errors
/// [`Error::Setting`] for a limit that is negative or NaN; a gradient is in use.
pub fn clip_grad_value(grads: &mut Gradients, limit: f64) -> Result<()> {
    let all = ids(grads);
    clip_value(grads, &all, limit)
}

/// What gradients of a loss that was scaled are multiplied by: 1/scale in f64, rounded to f32, as PyTorch does.
pub fn inverse(scale: f64) -> f64 {
    (1.0 / scale) as f32 as f64
}

/// Divides the gradients of `leaves` (all, if `None`) by the scale that each carries, or `scale` where it carries none;
/// true if a result is not finite. They carry the scale 1 then. An f16 gradient becomes f32 first: unscaled values lie
/// below f16's range more often than not.
///
/// # Errors
/// A gradient is in use; out of memory.
pub fn unscale(grads: &mut Gradients, leaves: Option<&HashSet<LeafId>>, scale: f64) -> Result<bool> {
    let chosen: Vec<LeafId> = ids(grads).into_iter().filter(|id| leaves.is_none_or(|l| l.contains(id))).collect();
    let mut found_inf = false;
    for Part { scale, leaves, device } in parts(grads, &chosen, scale) {
        for &id in &leaves {
            let wide =
                grads.by_id(id).filter(|g| g.dtype() == DType::F16).map(|g| g.cast(DType::F32, Class::Gradients));
            if let Some(wide) = wide.transpose()? {
                grads.insert(id, wide);
            }
        }
        found_inf |= in_place(grads, &leaves, &Update::Unscale, &device, inverse(scale))?.wait()?.found_inf;
        leaves.iter().for_each(|&id| grads.set_scale_of(id, 1.0));
    }
    Ok(found_inf)
}

/// As [`clip_grad_norm`], over some of the gradients.
pub(crate) fn clip_norm(grads: &mut Gradients, of: &[LeafId], max_norm: f64) -> Result<f64> {
    check_limit("clip_grad_norm", max_norm)?;
    let norm = queue_norm(grads, of, 1.0)?.wait()?;
    let factor = clip_factor(norm, max_norm);
    if factor != 1.0 {
        all_in_place(grads, of, &Update::Scale, |_| factor)?;
    }
    Ok(norm)
}

/// As [`clip_grad_value`], over some of the gradients.
pub(crate) fn clip_value(grads: &mut Gradients, of: &[LeafId], limit: f64) -> Result<()> {
    check_limit("clip_grad_value", limit)?;
    all_in_place(grads, of, &Update::Clamp, |scale| limit * scale)
}

/// Fails unless a limit is at least 0; infinity clips nothing.
fn check_limit(of: &'static str, limit: f64) -> Result<()> {
    Error::unless(limit >= 0.0, of, "limit", "at least 0", limit)
}

fn queue_norm(grads: &Gradients, of: &[LeafId], factor: f64) -> Result<GradNorm> {
    let norm = |Part { scale, leaves, device }: Part| {
        let read = leaves.iter().filter_map(|&id| grads.by_id(id)).map(Grad::Read);
        let slot = |grad| Slot { param: None, master: None, grad, state: vec![], first: false };
        let mut slots: Vec<Slot<'_>> = read.map(slot).collect();
        Ok(Update::Norm.run(&one(&device, inverse(scale) * factor)?, &mut slots)?)
    };
    parts(grads, of, 1.0).into_iter().map(norm).collect::<Result<_>>().map(GradNorm)
}

/// Runs a pass that changes some gradients of one device in place.
fn in_place(grads: &mut Gradients, of: &[LeafId], update: &Update, device: &Device, scalar: f64) -> Result<Outcome> {
    unshare(grads, of)?;
    Ok(update.run(&one(device, scalar)?, &mut written(grads, of, update)?)?)
}

/// Runs passes that change some gradients in place, by a number that depends on the scale that they carry: all of them
/// or none.
fn all_in_place(grads: &mut Gradients, of: &[LeafId], update: &Update, scalar: impl Fn(f64) -> f64) -> Result<()> {
    unshare(grads, of)?;
    let grads = &*grads;
    let pass = |part: &Part| Ok((one(&part.device, scalar(part.scale))?, written(grads, &part.leaves, update)?));
    let mut passes = parts(grads, of, 1.0).iter().map(pass).collect::<Result<Vec<_>>>()?;
    passes.iter_mut().try_for_each(|(scalar, slots)| update.run(scalar, slots).map(drop))?;
    Ok(())
}

/// Gives gradients that others have a share in memory of their own.
fn unshare(grads: &mut Gradients, of: &[LeafId]) -> Result<()> {
    for &id in of {
        grads.unshared(id)?;
    }
    Ok(())
}

/// Gradients that are written to.
fn written<'a>(grads: &'a Gradients, of: &[LeafId], update: &Update) -> Result<Vec<Slot<'a>>> {
    let slot = |grad| {
        let grad = Grad::Write(ArrayMut::new(update.name(), grad)?);
        Ok(Slot { param: None, master: None, grad, state: vec![], first: false })
    };
    of.iter().filter_map(|&id| grads.by_id(id)).map(slot).collect()
}

fn ids(grads: &Gradients) -> Vec<LeafId> {
    grads.iter().map(|(id, _)| id).collect()
}

/// Gradients that one pass takes together.
struct Part {
    scale: f64,
    device: Device,
    leaves: Vec<LeafId>,
}

/// Leaves by their gradients' device and the scale they carry, `otherwise` where they carry none.
fn parts(grads: &Gradients, of: &[LeafId], otherwise: f64) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for &id in of {
        let Some(device) = grads.by_id(id).map(|grad| grad.device()) else { continue };
        let scale = grads.scale_of(id).unwrap_or(otherwise);
        match parts.iter_mut().find(|part| part.scale == scale && part.device == *device) {
            Some(part) => part.leaves.push(id),
            None => parts.push(Part { scale, device: device.clone(), leaves: vec![id] }),
        }
    }
    parts
}

/// A pass's only number, made on its device: nothing is uploaded.
fn one(device: &Device, value: f64) -> Result<Array> {
    Ok(Array::full(device, DType::F32, Shape::new(&[1])?, value, Class::Optimizer)?)
}
