//! The optimisers whose step on an element depends on that element alone: one pass over stretches of parameters.

use super::{each, host, read, values, window, window_mut};
use crate::operand::{BLOCK, Compute, TASK, elements_mut};
use crate::simd::{Isa, Kernel, Lanes, dispatch};
use binade_tensor::update::{Slot, Update};
use binade_tensor::{ArrayMut, DType, Error, Result};

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
pub(super) fn steps<C: Compute>(isa: Isa, update: &Update, scalars: &[C], mut slots: Vec<&mut Slot<'_>>) -> Result<()> {
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

impl<C: Compute> Kernel<f32> for Rule<'_, C> {
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
