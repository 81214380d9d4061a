//! Multi-tensor passes. The blocks of all tensors are one list of tasks, cut by size alone, so that many small tensors cost no more than
//! a large one and results do not depend on the number of threads.

use rayon::prelude::*;

use super::operand::{BLOCK, Compute, TASK, elements, elements_mut};
use super::tasks::Tasks as _;
use crate::simd::{Isa, Kernel, Lanes, dispatch};
use crate::update::{Grad, Outcome, Slot, Update};
use crate::{Array, ArrayMut, DType, Error, ReadGuard, Result};

pub(super) fn update(isa: Isa, update: &Update, scalars: &[f32], slots: &mut [Slot<'_>]) -> Result<Outcome> {
    for slot in slots.iter() {
        check(update, slot)?;
    }
    let is_wide = |slot: &&mut Slot<'_>| {
        slot.param.iter().map(|p| p.array()).chain([slot.grad.array()]).any(|array| array.dtype() == DType::F64)
    };
    let (wide, others): (Vec<_>, Vec<_>) = slots.iter_mut().partition(is_wide);
    let parts = [pass::<f32>(isa, update, scalars, others)?, pass::<f64>(isa, update, scalars, wide)?];
    let squares = parts[0].squares + parts[1].squares;
    Ok(Outcome { found_inf: parts[0].found_inf || parts[1].found_inf, norm: squares.sqrt() })
}

/// What a pass over some of the slots found.
#[derive(Default)]
struct Found {
    found_inf: bool,
    squares: f64,
}

/// A pass in the computing type C.
fn pass<C: Compute>(isa: Isa, update: &Update, scalars: &[f32], slots: Vec<&mut Slot<'_>>) -> Result<Found> {
    if slots.is_empty() {
        return Ok(Found::default());
    }
    let Some((&last, _)) = scalars.split_last() else {
        return Err(Error::Argument { op: update.name(), message: "needs its scalars".into() });
    };
    match update {
        Update::Unscale | Update::Scale | Update::Clamp => in_place(isa, update, C::from_f64(last as f64), slots),
        Update::Norm => norm(isa, C::from_f64(last as f64), slots),
        Update::Adafactor { .. } => {
            slots.into_iter().try_for_each(|slot| adafactor::<C>(isa, update, scalars, slot))?;
            Ok(Found::default())
        }
        Update::Ema
        | Update::Adagrad { .. }
        | Update::RmsProp { .. }
        | Update::Lion { .. }
        | Update::Sgd { .. }
        | Update::Adam { .. } => {
            let scalars: Vec<C> = scalars.iter().map(|&s| C::from_f64(s as f64)).collect();
            steps(isa, update, &scalars, slots)?;
            Ok(Found::default())
        }
    }
}

fn host(update: &Update, dtype: DType) -> Error {
    Error::Unsupported { op: update.name(), backend: "cpu".into(), dtype }
}

/// The gradient of a slot was given for reading where it is written, or the other way round.
fn access(update: &Update) -> Error {
    let message = "the gradient must be writable for unscale, scale and clamp, readable else".into();
    Error::Argument { op: update.name(), message }
}

/// Runs the tasks, on this thread if all of them together are small, and returns what they return in order.
fn each<T: Send, R: Send>(elements: usize, tasks: Vec<T>, f: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    if elements <= TASK { tasks.into_iter().map(f).collect() } else { tasks.into_par_iter().list(f) }
}

/// Multiplies or limits gradients.
fn in_place<C: Compute>(isa: Isa, update: &Update, factor: C, slots: Vec<&mut Slot<'_>>) -> Result<Found> {
    let clamp = matches!(update, Update::Clamp);
    let (mut tasks, mut elements) = (Vec::new(), 0);
    for slot in slots {
        let Grad::Write(grad) = &mut slot.grad else { return Err(access(update)) };
        let array = grad.array();
        let dtype = array.dtype();
        let bytes = window_mut(array, grad.bytes().ok_or_else(|| host(update, dtype))?);
        elements += array.numel();
        tasks.extend(bytes.chunks_mut(TASK * dtype.size()).map(|chunk| (dtype, chunk)));
    }
    let bad = each(elements, tasks, |(dtype, chunk)| {
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
    });
    Ok(Found { found_inf: bad.contains(&true), squares: 0.0 })
}

/// `Σ (x·factor)²` in f64, in 16 interleaved partial sums. The product is rounded to C as the optimiser will see it.
struct Squares<'a, C>(C, &'a [C]);

impl<C: Compute> Kernel for Squares<'_, C> {
    type Output = f64;
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> f64 {
        let Squares(factor, x) = self;
        // Squares in f64: an f32 gradient of 1e20 must not overflow the norm.
        let square = |x: C| {
            let v = (x * factor).as_f64();
            v * v
        };
        let mut sums = [0.0; 16];
        let groups = x.chunks_exact(16);
        let rest = groups.remainder();
        for group in groups {
            for i in 0..16 {
                sums[i] += square(group[i]);
            }
        }
        sums.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += square(x));
        sums.iter().sum()
    }
}

/// Gradients' bytes, for as long as they are borrowed.
fn read<'a>(update: &Update, slots: &[&mut Slot<'a>]) -> Result<Vec<(&'a Array, ReadGuard<'a>)>> {
    let guard = |slot: &&mut Slot<'a>| match &slot.grad {
        Grad::Read(grad) => Ok((*grad, grad.storage().read(update.name())?)),
        Grad::Write(_) => Err(access(update)),
    };
    slots.iter().map(guard).collect()
}

fn norm<C: Compute>(isa: Isa, factor: C, slots: Vec<&mut Slot<'_>>) -> Result<Found> {
    let update = &Update::Norm;
    let grads = read(update, &slots)?;
    let (mut tasks, mut elements) = (Vec::new(), 0);
    for (array, guard) in &grads {
        let dtype = array.dtype();
        let bytes = window(array, guard.bytes().ok_or_else(|| host(update, dtype))?);
        elements += array.numel();
        tasks.extend(bytes.chunks(TASK * dtype.size()).map(|chunk| (dtype, chunk)));
    }
    let squares: f64 = each(elements, tasks, |(dtype, chunk)| {
        let mut buffer = [C::zero(); BLOCK];
        let blocks = chunk.chunks(BLOCK * dtype.size());
        blocks.map(|block| dispatch(isa, Squares(factor, values(isa, dtype, block, &mut buffer)))).sum::<f64>()
    })
    .into_iter()
    .sum();
    // A sum of finite squares of f32 numbers does not overflow in f64.
    Ok(Found { found_inf: !squares.is_finite(), squares })
}

/// The elements of a block: as they are, or widened into the buffer.
fn values<'a, C: Compute>(isa: Isa, dtype: DType, bytes: &'a [u8], buffer: &'a mut [C; BLOCK]) -> &'a [C] {
    if dtype == C::DTYPE {
        return elements(bytes);
    }
    let buffer = &mut buffer[..bytes.len() / dtype.size()];
    C::load(isa, dtype, bytes, 0, 1, buffer);
    buffer
}

/// A stretch of a parameter with what belongs to it; slices that the rule does not need are empty.
struct Stretch<'a, C> {
    first: bool,
    grad: (DType, &'a [u8]),
    param: (DType, &'a mut [u8]),
    master: &'a mut [C],
    state: [&'a mut [C]; 3],
}

/// Cuts up to `n` elements off the front.
fn cut<'a, T>(rest: &mut &'a mut [T], n: usize) -> &'a mut [T] {
    let all = std::mem::take(rest);
    let (front, back) = all.split_at_mut(n.min(all.len()));
    *rest = back;
    front
}

/// The elements of master weights or state, which are of the computing type.
fn exact<'a, C: Compute>(update: &Update, array: &'a mut ArrayMut<'_>) -> Result<&'a mut [C]> {
    let inner = array.array();
    match array.bytes() {
        Some(bytes) if inner.dtype() == C::DTYPE => Ok(elements_mut(window_mut(inner, bytes))),
        Some(_) | None => Err(host(update, inner.dtype())),
    }
}

/// The optimisers: one pass that reads gradient, parameter and state and writes parameter and state.
fn steps<C: Compute>(isa: Isa, update: &Update, scalars: &[C], mut slots: Vec<&mut Slot<'_>>) -> Result<()> {
    let grads = read(update, &slots)?;
    let (mut tasks, mut elements) = (Vec::new(), 0);
    for (slot, (array, guard)) in slots.iter_mut().zip(&grads) {
        let Slot { param, master, state, first, .. } = &mut **slot;
        let Some(param) = param else {
            return Err(Error::Argument { op: update.name(), message: "needs parameters".into() });
        };
        let (gd, pd) = (array.dtype(), param.array().dtype());
        let grad = window(array, guard.bytes().ok_or_else(|| host(update, gd))?);
        let mut param = window_mut(param.array(), param.bytes().ok_or_else(|| host(update, pd))?);
        let mut master = master.as_mut().map_or(Ok(Default::default()), |m| exact::<C>(update, m))?;
        let mut states: [&mut [C]; 3] = Default::default();
        for (to, from) in states.iter_mut().zip(state) {
            *to = exact(update, from)?;
        }
        elements += array.numel();
        for grad in grad.chunks(TASK * gd.size()) {
            let n = grad.len() / gd.size();
            tasks.push(Stretch {
                first: *first,
                grad: (gd, grad),
                param: (pd, cut(&mut param, n * pd.size())),
                master: cut(&mut master, n),
                state: states.each_mut().map(|s| cut(s, n)),
            });
        }
    }
    each(elements, tasks, |task| {
        let Stretch { first, grad: (gd, grad), param: (pd, mut param), mut master, mut state } = task;
        let (mut pg, mut pp) = ([C::zero(); BLOCK], [C::zero(); BLOCK]);
        for grad in grad.chunks(BLOCK * gd.size()) {
            let g = values(isa, gd, grad, &mut pg);
            let n = g.len();
            let stored = cut(&mut param, n * pd.size());
            let master = cut(&mut master, n);
            let state = state.each_mut().map(|s| cut(s, n));
            let step = |p: &mut [C]| dispatch(isa, Rule { update, scalars, first, p, g, state });
            if !master.is_empty() {
                step(master);
                C::store(isa, master, stored, pd);
            } else if pd == C::DTYPE {
                step(elements_mut(stored));
            } else {
                C::load(isa, pd, stored, 0, 1, &mut pp[..n]);
                step(&mut pp[..n]);
                C::store(isa, &pp[..n], stored, pd);
            }
        }
    });
    Ok(())
}

/// One block of an optimiser's step.
struct Rule<'a, C> {
    update: &'a Update,
    scalars: &'a [C],
    first: bool,
    p: &'a mut [C],
    g: &'a [C],
    state: [&'a mut [C]; 3],
}

impl<C: Compute> Kernel for Rule<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        let Rule { update, scalars, first, p, g, state: [m, v, w] } = self;
        let n = p.len();
        let scalar = |i: usize| scalars[i];
        // Gradients come scaled and not yet clipped: the last scalar makes up for both.
        let (g, factor) = (&g[..n], scalar(scalars.len() - 1));
        let g = |i: usize| g[i] * factor;
        match update {
            Update::Ema => {
                let rate = scalar(0);
                p.iter_mut().enumerate().for_each(|(i, p)| *p = *p + rate * (g(i) - *p));
            }
            Update::Adagrad { weight_decay, eps, initial } => {
                let [decay, eps, initial] = [*weight_decay, *eps, *initial].map(C::from_f64);
                for i in 0..n {
                    let d = g(i) + decay * p[i];
                    m[i] = if first { initial } else { m[i] } + d * d;
                    p[i] = p[i] - scalar(0) * d / (m[i].sqrt() + eps);
                }
            }
            Update::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
                let [a, b, eps, decay, mu] = [*alpha, 1.0 - *alpha, *eps, *weight_decay, *momentum].map(C::from_f64);
                let before = |v: C| if first { C::zero() } else { v };
                for i in 0..n {
                    let d = g(i) + decay * p[i];
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
                for i in 0..n {
                    let m0 = if first { C::zero() } else { m[i] };
                    let u = b1 * m0 + c1 * g(i);
                    let sign = if u > C::zero() {
                        C::one()
                    } else if u < C::zero() {
                        -C::one()
                    } else {
                        u
                    };
                    p[i] = p[i] * shrink - scalar(0) * sign;
                    m[i] = b2 * m0 + c2 * g(i);
                }
            }
            Update::Sgd { momentum, dampening, weight_decay, nesterov } => {
                let lr = scalar(0);
                let [mu, damp, decay] = [*momentum, 1.0 - *dampening, *weight_decay].map(C::from_f64);
                for i in 0..n {
                    let mut d = g(i) + decay * p[i];
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
                let (m, v) = (&mut m[..n], &mut v[..n]);
                for i in 0..n {
                    let (m0, v0) = if first { (C::zero(), C::zero()) } else { (m[i], v[i]) };
                    let w = p[i] * shrink;
                    let d = g(i) + l2 * w;
                    m[i] = m0 + one_minus_b1 * (d - m0);
                    v[i] = b2 * v0 + one_minus_b2 * d * d;
                    p[i] = w - step * m[i] / (v[i].sqrt() / root + eps);
                }
            }
            Update::Unscale | Update::Norm | Update::Scale | Update::Clamp | Update::Adafactor { .. } => {}
        }
    }
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

/// Adafactor's step depends on whole rows and columns: on one thread, sums in f64 in order.
fn adafactor<C: Compute>(isa: Isa, update: &Update, scalars: &[f32], slot: &mut Slot<'_>) -> Result<()> {
    let Update::Adafactor { decay, eps, clip, weight_decay } = update else { return Ok(()) };
    let host = || host(update, C::DTYPE);
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
    Ok(())
}
