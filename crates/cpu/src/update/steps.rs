//! The optimisers whose step on an element depends on that element alone: one pass over stretches of parameters.

use super::{each, host, read, values, window, window_mut};
use crate::operand::{BLOCK, Compute, TASK, elements_mut};
use crate::simd::{Isa, Kernel, Lanes, dispatch};
use binade_tensor::update::{Slot, Step, StepVisitor, Update};
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
        let Rule { update, scalars, first, p, g, state } = self;
        // Gradients come scaled and not yet clipped: the last scalar makes up for both.
        let factor = scalars[scalars.len() - 1];
        update.visit(scalars, Block { first, factor, p, g, state });
    }
}

/// What a step runs on.
struct Block<'a, C> {
    first: bool,
    factor: C,
    p: &'a mut [C],
    g: &'a [C],
    state: [&'a mut [C]; 3],
}

impl<C: Compute> StepVisitor<C> for Block<'_, C> {
    type Output = ();
    #[inline(always)]
    fn visit<const STATES: usize>(self, step: impl Step<C, STATES>) {
        let Block { first, factor, p, g, state } = self;
        let n = p.len();
        let g = &g[..n];
        let mut rest = state.into_iter();
        let state: [&mut [C]; STATES] = std::array::from_fn(|_| rest.next().map_or(&mut [][..], |s| &mut s[..n]));
        for i in 0..n {
            let (after, states) = step.step(first, p[i], g[i] * factor, std::array::from_fn(|k| state[k][i]));
            for k in 0..STATES {
                state[k][i] = states[k];
            }
            p[i] = after;
        }
    }
}
