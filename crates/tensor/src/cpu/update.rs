//! Multi-tensor passes, in fixed chunks so that results do not depend on the number of threads.

use rayon::prelude::*;

use super::operand::{BLOCK, Compute, TASK, elements_mut};
use crate::simd::Isa;
use crate::update::{Grad, Outcome, Slot, Update};
use crate::{Array, DType, Error, Result};

pub(super) fn update(isa: Isa, update: &Update, scalars: &[f32], slots: &mut [Slot<'_>]) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut squares = 0.0;
    for slot in slots {
        check(update, slot)?;
        let wide = slot.grad.array().dtype() == DType::F64;
        let (bad, sum) = if wide { one::<f64>(isa, update, scalars, slot)? } else { one::<f32>(isa, update, scalars, slot)? };
        outcome.found_inf |= bad;
        squares += sum;
    }
    outcome.norm = squares.sqrt();
    Ok(outcome)
}

/// All arrays of a slot have the gradient's shape and lie in row-major order.
fn check(update: &Update, slot: &Slot<'_>) -> Result<()> {
    let grad = slot.grad.array();
    let others = slot.param.iter().chain(&slot.master).chain(&slot.state).map(|a| a.array());
    for array in others.chain([grad]) {
        if array.shape() != grad.shape() || !array.layout().is_contiguous() {
            return Err(Error::Shape {
                op: update.name(),
                expected: "expected parameter, state and gradient of one shape in row-major order".into(),
                shapes: vec![*array.shape(), *grad.shape()],
            });
        }
    }
    if slot.state.len() < update.states() {
        return Err(Error::Argument {
            op: update.name(),
            message: format!("needs {} state tensors per parameter, got {}", update.states(), slot.state.len()),
        });
    }
    Ok(())
}

/// The bytes of the elements of a contiguous array.
fn window<'a>(array: &Array, bytes: &'a [u8]) -> &'a [u8] {
    let (size, offset) = (array.dtype().size(), array.layout().offset);
    &bytes[offset * size..(offset + array.numel()) * size]
}

fn window_mut<'a>(array: &Array, bytes: &'a mut [u8]) -> &'a mut [u8] {
    let (size, offset) = (array.dtype().size(), array.layout().offset);
    &mut bytes[offset * size..(offset + array.numel()) * size]
}

/// (a gradient was not finite, sum of squares).
fn one<C: Compute>(isa: Isa, update: &Update, scalars: &[f32], slot: &mut Slot<'_>) -> Result<(bool, f64)> {
    let scalar = |i: usize| C::from_f64(scalars[i] as f64);
    let host = || Error::Unsupported { op: update.name(), backend: "cpu".into(), dtype: C::DTYPE };
    match (update, &mut slot.grad) {
        (Update::Unscale | Update::Scale, Grad::Write(grad)) => {
            let (array, factor) = (grad.array(), scalar(0));
            let dtype = array.dtype();
            let bytes = window_mut(array, grad.bytes().ok_or_else(host)?);
            let bad = bytes
                .par_chunks_mut(TASK * dtype.size())
                .map(|chunk| {
                    let mut bad = false;
                    let mut buffer = [C::zero(); BLOCK];
                    for block in chunk.chunks_mut(BLOCK * dtype.size()) {
                        let values = &mut buffer[..block.len() / dtype.size()];
                        C::load(isa, dtype, block, 0, 1, values);
                        for v in values.iter_mut() {
                            bad |= !v.is_finite();
                            *v = *v * factor;
                        }
                        C::store(isa, values, block, dtype);
                    }
                    bad
                })
                .reduce(|| false, |a, b| a | b);
            Ok((bad, 0.0))
        }
        (Update::Norm, grad) => {
            let array = grad.array();
            let guard = array.storage().read(update.name())?;
            let bytes = window(array, guard.bytes().ok_or_else(host)?);
            let size = array.dtype().size();
            let parts: Vec<f64> = bytes
                .par_chunks(TASK * size)
                .map(|chunk| {
                    let mut buffer = [C::zero(); BLOCK];
                    let mut sum = 0.0;
                    for block in chunk.chunks(BLOCK * size) {
                        let values = &mut buffer[..block.len() / size];
                        C::load(isa, array.dtype(), block, 0, 1, values);
                        // Squares in f64: an f32 gradient of 1e20 must not overflow the norm.
                        sum += values.iter().map(|v| v.as_f64() * v.as_f64()).sum::<f64>();
                    }
                    sum
                })
                .collect();
            Ok((false, parts.into_iter().sum()))
        }
        (Update::Sgd { .. } | Update::Adam { .. }, Grad::Read(grad)) => {
            let grad: &Array = grad;
            let guard = grad.storage().read(update.name())?;
            let grad_bytes = window(grad, guard.bytes().ok_or_else(host)?);
            let first = slot.first;
            let Some(param) = &mut slot.param else {
                return Err(Error::Argument { op: update.name(), message: "needs parameters".into() });
            };
            let param_array = param.array();
            let (pd, gd) = (param_array.dtype(), grad.dtype());
            let param = window_mut(param_array, param.bytes().ok_or_else(host)?);
            let masters = match &mut slot.master {
                Some(m) => elements_mut::<C>(window_mut(m.array(), m.bytes().ok_or_else(host)?)),
                None => &mut [],
            };
            let mut states = slot.state.iter_mut().map(|s| {
                let array = s.array();
                s.bytes().map(|b| elements_mut::<C>(window_mut(array, b)))
            });
            let m: &mut [C] = states.next().flatten().unwrap_or_default();
            let v: &mut [C] = states.next().flatten().unwrap_or_default();
            let step = |p: &mut [C], g: &[C], m: &mut [C], v: &mut [C]| match update {
                Update::Sgd { momentum, dampening, weight_decay, nesterov } => {
                    let lr = scalar(0);
                    let [mu, damp, decay] = [*momentum, 1.0 - *dampening, *weight_decay].map(C::from_f64);
                    for i in 0..p.len() {
                        let mut d = g[i] + decay * p[i];
                        if *momentum != 0.0 {
                            m[i] = if first { d } else { mu * m[i] + damp * d };
                            d = if *nesterov { d + mu * m[i] } else { m[i] };
                        }
                        p[i] = p[i] - lr * d;
                    }
                }
                Update::Adam { betas, eps, weight_decay, decoupled } => {
                    let (lr, c1, root) = (scalar(0), scalar(1), scalar(2));
                    let [one_minus_b1, b2, one_minus_b2, eps, decay] =
                        [1.0 - betas[0], betas[1], 1.0 - betas[1], *eps, *weight_decay].map(C::from_f64);
                    let step = lr / c1;
                    let shrink = if *decoupled { C::one() - lr * decay } else { C::one() };
                    let l2 = if *decoupled { C::zero() } else { decay };
                    for i in 0..p.len() {
                        let (m0, v0) = if first { (C::zero(), C::zero()) } else { (m[i], v[i]) };
                        let w = p[i] * shrink;
                        let d = g[i] + l2 * w;
                        m[i] = m0 + one_minus_b1 * (d - m0);
                        v[i] = b2 * v0 + one_minus_b2 * d * d;
                        p[i] = w - step * m[i] / (v[i].sqrt() / root + eps);
                    }
                }
                Update::Unscale | Update::Norm | Update::Scale => {}
            };
            /// Chunks of a slice, or as many empty ones.
            fn parts<T>(slice: &mut [T], chunk: usize, count: usize) -> Vec<&mut [T]> {
                if slice.is_empty() {
                    (0..count).map(|_| Default::default()).collect()
                } else {
                    slice.chunks_mut(chunk).collect()
                }
            }
            let count = grad.numel().div_ceil(TASK);
            let (masters, m, v) = (parts(masters, TASK, count), parts(m, TASK, count), parts(v, TASK, count));
            let work: Vec<_> = param
                .chunks_mut(TASK * pd.size())
                .zip(grad_bytes.chunks(TASK * gd.size()))
                .zip(masters)
                .zip(m.into_iter().zip(v))
                .collect();
            work.into_par_iter().for_each(|(((p, g), master), (m, v))| {
                let (mut pg, mut pp) = ([C::zero(); BLOCK], [C::zero(); BLOCK]);
                let n = g.len() / gd.size();
                for start in (0..n).step_by(BLOCK) {
                    let range = start..n.min(start + BLOCK);
                    let len = range.len();
                    C::load(isa, gd, g, start, 1, &mut pg[..len]);
                    let (m, v) = (m.get_mut(range.clone()).unwrap_or_default(), v.get_mut(range.clone()).unwrap_or_default());
                    let stored = &mut p[start * pd.size()..range.end * pd.size()];
                    if let Some(master) = master.get_mut(range).filter(|m| !m.is_empty()) {
                        step(master, &pg[..len], m, v);
                        C::store(isa, master, stored, pd);
                    } else {
                        C::load(isa, pd, stored, 0, 1, &mut pp[..len]);
                        step(&mut pp[..len], &pg[..len], m, v);
                        C::store(isa, &pp[..len], stored, pd);
                    }
                }
            });
            Ok((false, 0.0))
        }
        (Update::Unscale | Update::Scale, Grad::Read(_)) | (Update::Sgd { .. } | Update::Adam { .. }, Grad::Write(_)) => {
            Err(Error::Argument {
                op: update.name(),
                message: "the gradient must be writable for unscale and scale, readable else".into(),
            })
        }
    }
}
