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
    let shapes = update.states(grad.shape());
    let states = slot.state.iter().zip(&shapes).map(|(s, shape)| (s.array(), shape));
    let others = slot.param.iter().chain(&slot.master).map(|a| (a.array(), grad.shape()));
    for (array, shape) in others.chain(states).chain([(grad, grad.shape())]) {
        if array.shape() != shape || !array.layout().is_contiguous() {
            return Err(Error::Shape {
                op: update.name(),
                expected: "expected parameter, state and gradient of one shape in row-major order".into(),
                shapes: vec![*array.shape(), *grad.shape()],
            });
        }
    }
    if slot.state.len() < shapes.len() {
        return Err(Error::Argument {
            op: update.name(),
            message: format!("needs {} state tensors per parameter, got {}", shapes.len(), slot.state.len()),
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
        (Update::Unscale | Update::Scale | Update::Clamp, Grad::Write(grad)) => {
            let (array, factor) = (grad.array(), scalar(0));
            let clamp = matches!(update, Update::Clamp);
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
                            *v = match clamp {
                                true if *v > factor => factor,
                                true if *v < -factor => -factor,
                                true => *v,
                                false => *v * factor,
                            };
                            // After the product: a scale below 1 can make it overflow. What was not finite stays so.
                            bad |= !v.is_finite();
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
        (Update::Adafactor { .. }, Grad::Read(_)) => adafactor::<C>(isa, update, scalars, slot),
        (
            Update::Ema
            | Update::Adagrad { .. }
            | Update::RmsProp { .. }
            | Update::Lion { .. }
            | Update::Sgd { .. }
            | Update::Adam { .. },
            Grad::Read(grad),
        ) => {
            let grad: &Array = grad;
            let guard = grad.storage().read(update.name())?;
            let grad_bytes = window(grad, guard.bytes().ok_or_else(host)?);
            let first = slot.first;
            let factor = scalar(scalars.len() - 1);
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
            let w: &mut [C] = states.next().flatten().unwrap_or_default();
            let step = |p: &mut [C], g: &[C], m: &mut [C], v: &mut [C], w: &mut [C]| match update {
                Update::Ema => {
                    let rate = scalar(0);
                    p.iter_mut().zip(g).for_each(|(p, &g)| *p = *p + rate * (g - *p));
                }
                Update::Adagrad { weight_decay, eps, initial } => {
                    let [decay, eps, initial] = [*weight_decay, *eps, *initial].map(C::from_f64);
                    for i in 0..p.len() {
                        let d = g[i] + decay * p[i];
                        m[i] = if first { initial } else { m[i] } + d * d;
                        p[i] = p[i] - scalar(0) * d / (m[i].sqrt() + eps);
                    }
                }
                Update::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
                    let [a, b, eps, decay, mu] = [*alpha, 1.0 - *alpha, *eps, *weight_decay, *momentum].map(C::from_f64);
                    let before = |v: C| if first { C::zero() } else { v };
                    for i in 0..p.len() {
                        let d = g[i] + decay * p[i];
                        m[i] = a * before(m[i]) + b * d * d;
                        let mut square = m[i];
                        if *centered {
                            w[i] = a * before(w[i]) + b * d;
                            square = square - w[i] * w[i];
                        }
                        let mut u = d / (square.sqrt() + eps);
                        if let Some(v) = v.get_mut(i).filter(|_| *momentum != 0.0) {
                            *v = mu * before(*v) + u;
                            u = *v;
                        }
                        p[i] = p[i] - scalar(0) * u;
                    }
                }
                Update::Lion { betas, weight_decay } => {
                    let [b1, c1, b2, c2] = [betas[0], 1.0 - betas[0], betas[1], 1.0 - betas[1]].map(C::from_f64);
                    let shrink = C::one() - scalar(0) * C::from_f64(*weight_decay);
                    for i in 0..p.len() {
                        let m0 = if first { C::zero() } else { m[i] };
                        let u = b1 * m0 + c1 * g[i];
                        let sign = if u > C::zero() {
                            C::one()
                        } else if u < C::zero() {
                            -C::one()
                        } else {
                            u
                        };
                        p[i] = p[i] * shrink - scalar(0) * sign;
                        m[i] = b2 * m0 + c2 * g[i];
                    }
                }
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
                Update::Unscale | Update::Norm | Update::Scale | Update::Clamp | Update::Adafactor { .. } => {}
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
            let w = parts(w, TASK, count);
            let work: Vec<_> = param
                .chunks_mut(TASK * pd.size())
                .zip(grad_bytes.chunks(TASK * gd.size()))
                .zip(masters)
                .zip(m.into_iter().zip(v).zip(w))
                .collect();
            work.into_par_iter().for_each(|(((p, g), master), ((m, v), w))| {
                let (mut pg, mut pp) = ([C::zero(); BLOCK], [C::zero(); BLOCK]);
                let n = g.len() / gd.size();
                for start in (0..n).step_by(BLOCK) {
                    let range = start..n.min(start + BLOCK);
                    let len = range.len();
                    C::load(isa, gd, g, start, 1, &mut pg[..len]);
                    if factor != C::one() {
                        pg[..len].iter_mut().for_each(|g| *g = *g * factor);
                    }
                    let (m, v) = (m.get_mut(range.clone()).unwrap_or_default(), v.get_mut(range.clone()).unwrap_or_default());
                    let w = w.get_mut(range.clone()).unwrap_or_default();
                    let stored = &mut p[start * pd.size()..range.end * pd.size()];
                    if let Some(master) = master.get_mut(range).filter(|m| !m.is_empty()) {
                        step(master, &pg[..len], m, v, w);
                        C::store(isa, master, stored, pd);
                    } else {
                        C::load(isa, pd, stored, 0, 1, &mut pp[..len]);
                        step(&mut pp[..len], &pg[..len], m, v, w);
                        C::store(isa, &pp[..len], stored, pd);
                    }
                }
            });
            Ok((false, 0.0))
        }
        (Update::Unscale | Update::Scale | Update::Clamp, Grad::Read(_))
        | (
            Update::Ema
            | Update::Adagrad { .. }
            | Update::RmsProp { .. }
            | Update::Lion { .. }
            | Update::Adafactor { .. }
            | Update::Sgd { .. }
            | Update::Adam { .. },
            Grad::Write(_),
        ) => Err(Error::Argument {
            op: update.name(),
            message: "the gradient must be writable for unscale, scale and clamp, readable else".into(),
        }),
    }
}

/// Adafactor's step depends on whole rows and columns: on one thread, sums in f64 in order.
fn adafactor<C: Compute>(isa: Isa, update: &Update, scalars: &[f32], slot: &mut Slot<'_>) -> Result<(bool, f64)> {
    let Update::Adafactor { decay, eps, clip, weight_decay } = update else { return Ok((false, 0.0)) };
    let host = || Error::Unsupported { op: update.name(), backend: "cpu".into(), dtype: C::DTYPE };
    let grad = slot.grad.array().clone();
    let n = grad.numel();
    let mut g = vec![C::zero(); n];
    let guard = grad.storage().read(update.name())?;
    C::load(isa, grad.dtype(), window(&grad, guard.bytes().ok_or_else(host)?), 0, 1, &mut g);
    drop(guard);
    let factor = C::from_f64(scalars[scalars.len() - 1] as f64);
    g.iter_mut().for_each(|g| *g = *g * factor);
    let Some(param) = &mut slot.param else {
        return Err(Error::Argument { op: update.name(), message: "needs parameters".into() });
    };
    let source = slot.master.as_mut().unwrap_or(param);
    let source_array = source.array();
    let mut p = vec![C::zero(); n];
    C::load(isa, source_array.dtype(), window(source_array, source.bytes().ok_or_else(host)?), 0, 1, &mut p);
    let (lr, step) = (scalars[0] as f64, scalars[1] as f64);
    let rate = step.powf(*decay);
    let shape = grad.shape();
    let mean = |values: &mut dyn Iterator<Item = f64>, n: usize| values.sum::<f64>() / n.max(1) as f64;
    let average = |state: &mut C, value: f64| {
        let before = if slot.first { 0.0 } else { state.as_f64() };
        *state = C::from_f64(before + rate * (value - before));
    };
    let mut states = Vec::new();
    for state in &mut slot.state {
        let array = state.array();
        states.push(elements_mut::<C>(window_mut(array, state.bytes().ok_or_else(host)?)));
    }
    let mut u = vec![0.0f64; n];
    if let [rows, columns] = &mut states[..] {
        let (r, c) = (shape[shape.rank() - 2], shape[shape.rank() - 1]);
        for (b, g) in g.chunks((r * c).max(1)).enumerate() {
            let (rows, columns) = (&mut rows[b * r..(b + 1) * r], &mut columns[b * c..(b + 1) * c]);
            let square = |v: &C| v.as_f64() * v.as_f64();
            for (i, row) in rows.iter_mut().enumerate() {
                average(row, mean(&mut g[i * c..(i + 1) * c].iter().map(square), c));
            }
            for (j, column) in columns.iter_mut().enumerate() {
                average(column, mean(&mut g.iter().skip(j).step_by(c).map(square), r));
            }
            let total = mean(&mut rows.iter().map(|v| v.as_f64()), r).max(eps[0]);
            for i in 0..r * c {
                let v = rows[i / c].as_f64() * columns[i % c].as_f64() / total;
                u[b * r * c + i] = g[i].as_f64() / v.max(eps[0] * eps[0]).sqrt();
            }
        }
    } else if let [v] = &mut states[..] {
        for i in 0..n {
            average(&mut v[i], g[i].as_f64() * g[i].as_f64());
            u[i] = g[i].as_f64() / v[i].as_f64().max(eps[0] * eps[0]).sqrt();
        }
    }
    let rms = |values: &mut dyn Iterator<Item = f64>| mean(&mut values.map(|v| v * v), n).sqrt();
    let alpha = eps[1].max(rms(&mut p.iter().map(|v| v.as_f64()))) * lr.min(1.0 / step.sqrt());
    let factor = alpha / (rms(&mut u.iter().copied()) / clip).max(1.0);
    let shrink = 1.0 - lr * weight_decay;
    p.iter_mut().zip(&u).for_each(|(p, u)| *p = C::from_f64(p.as_f64() * shrink - factor * u));
    for target in slot.master.iter_mut().chain(slot.param.iter_mut()) {
        let array = target.array();
        C::store(isa, &p, window_mut(array, target.bytes().ok_or_else(host)?), array.dtype());
    }
    Ok((false, 0.0))
}
