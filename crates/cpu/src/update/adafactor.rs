//! Adafactor (Shazeer and Stern 2018), whose second moments of a matrix are kept as those of its rows and columns.

use super::{host, window, window_mut};
use crate::operand::{Compute, elements_mut};
use crate::simd::Isa;
use binade_tensor::update::{Slot, Update};
use binade_tensor::{Error, Result};

/// Adafactor's step depends on whole rows and columns: on one thread, sums in f64 in order.
pub(super) fn step<C: Compute>(isa: Isa, update: &Update, scalars: &[f32], slot: &mut Slot<'_>) -> Result<()> {
    let Update::Adafactor { decay, eps, clip, weight_decay } = update else { return Ok(()) };
    let host = || host(update, C::DTYPE);
    let grad = slot.grad.array().clone();
    let n = grad.numel();
    let mut g = vec![C::zero(); n];
    let guard = grad.storage().read(update.name())?;
    C::load(isa, grad.dtype(), window(&grad, guard.bytes().ok_or_else(host)?), 0, 1, &mut g);
    drop(guard);
    let factor = C::from_f64(scalars[scalars.len() - 1] as f64);
    g.iter_mut().for_each(|g| *g *= factor);
    let Some(param) = &mut slot.param else {
        return Err(Error::Argument { op: update.name(), message: "needs parameters".into() });
    };
    let source = slot.master.as_mut().unwrap_or(param);
    let source_array = source.array();
    let mut p = vec![C::zero(); n];
    C::load(isa, source_array.dtype(), window(source_array, source.bytes().ok_or_else(host)?), 0, 1, &mut p);
    let (lr, step) = (scalars[0] as f64, scalars[1] as f64);
    let rate = libm::pow(step, *decay);
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
