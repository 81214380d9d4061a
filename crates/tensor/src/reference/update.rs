//! [`Update`]s from their formulas.

use super::{Dense, load, read, unflatten, write};
use crate::Result;
use crate::update::{Findings, Grad, Slot, Update};

/// One parameter's part of a pass.
pub(super) fn one(
    update: &Update,
    scalars: &[f64],
    slot: &mut Slot<'_>,
    found: &mut Findings,
    squares: &mut f64,
) -> Result<()> {
    let grad = match &mut slot.grad {
        Grad::Write(grad) => {
            let mut values = load(grad);
            if matches!(update, Update::Clamp) {
                values.v.iter_mut().filter(|g| !g.is_nan()).for_each(|g| *g = g.clamp(-scalars[0], scalars[0]));
                write(&values, grad);
            }
            if matches!(update, Update::Unscale | Update::Scale) {
                values.v.iter_mut().for_each(|g| *g *= scalars[0]);
                write(&values, grad);
                found.found_inf |=
                    matches!(update, Update::Unscale) && values.v.iter().any(|&g| !(g as f32).is_finite());
            }
            values
        }
        Grad::Read(grad) => {
            let guard = grad.storage().read(update.name())?;
            read(grad, guard.bytes().unwrap_or_default())
        }
    };
    let factor = if matches!(update, Update::Norm) { scalars[0] } else { 1.0 };
    *squares += grad.v.iter().map(|g| (g * factor).powi(2)).sum::<f64>();
    let Some(param) = &mut slot.param else { return Ok(()) };
    let mut p = load(slot.master.as_mut().unwrap_or(param));
    let mut state: Vec<Dense> = slot.state.iter_mut().map(load).collect();
    let factor = scalars[scalars.len() - 1];
    let grad = Dense { v: grad.v.iter().map(|g| g * factor).collect(), ..grad };
    if let Update::Adafactor { .. } = update {
        adafactor(update, scalars, slot.first, &grad, &mut p, &mut state);
    }
    for i in 0..p.v.len() {
        let (w, g) = (p.v[i], grad.v[i]);
        match update {
            Update::Sgd { momentum, dampening, weight_decay, nesterov } => {
                let mut d = g + weight_decay * w;
                if *momentum != 0.0 {
                    let b = if slot.first { d } else { momentum * state[0].v[i] + (1.0 - dampening) * d };
                    state[0].v[i] = b;
                    d = if *nesterov { d + momentum * b } else { b };
                }
                p.v[i] = w - scalars[0] * d;
            }
            Update::Adam { betas, eps, weight_decay, decoupled } => {
                let w = if *decoupled { w * (1.0 - scalars[0] * weight_decay) } else { w };
                let d = if *decoupled { g } else { g + weight_decay * w };
                let (m, v) = if slot.first { (0.0, 0.0) } else { (state[0].v[i], state[1].v[i]) };
                let (m, v) = (betas[0] * m + (1.0 - betas[0]) * d, betas[1] * v + (1.0 - betas[1]) * d * d);
                (state[0].v[i], state[1].v[i]) = (m, v);
                p.v[i] = w - scalars[0] * (m / scalars[1]) / (v.sqrt() / scalars[2] + eps);
            }
            Update::Ema => p.v[i] = (1.0 - scalars[0]) * w + scalars[0] * g,
            Update::Adagrad { weight_decay, eps, initial } => {
                let d = g + weight_decay * w;
                let s = if slot.first { *initial } else { state[0].v[i] } + d * d;
                state[0].v[i] = s;
                p.v[i] = w - scalars[0] * d / (s.sqrt() + eps);
            }
            Update::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
                let d = g + weight_decay * w;
                let mut averaged = |k: usize, value: f64| {
                    let before = if slot.first { 0.0 } else { state[k].v[i] };
                    state[k].v[i] = alpha * before + (1.0 - alpha) * value;
                    state[k].v[i]
                };
                let mut square = averaged(0, d * d);
                if *centered {
                    square -= averaged(2, d).powi(2);
                }
                let mut u = d / (square.sqrt() + eps);
                if *momentum != 0.0 {
                    u += if slot.first { 0.0 } else { momentum * state[1].v[i] };
                    state[1].v[i] = u;
                }
                p.v[i] = w - scalars[0] * u;
            }
            Update::Lion { betas, weight_decay } => {
                let m = if slot.first { 0.0 } else { state[0].v[i] };
                let u = betas[0] * m + (1.0 - betas[0]) * g;
                let sign = if u == 0.0 { 0.0 } else { u.signum() };
                p.v[i] = w * (1.0 - scalars[0] * weight_decay) - scalars[0] * sign;
                state[0].v[i] = betas[1] * m + (1.0 - betas[1]) * g;
            }
            Update::Unscale | Update::Norm | Update::Scale | Update::Clamp | Update::Adafactor { .. } => {}
        }
    }
    for (values, to) in state.iter().zip(&mut slot.state) {
        write(values, to);
    }
    if let Some(master) = &mut slot.master {
        write(&p, master);
    }
    write(&p, param);
    Ok(())
}

/// Adafactor (Shazeer and Stern 2018): a state has the averages of the mean squares of all that share one place of it.
fn adafactor(update: &Update, scalars: &[f64], first: bool, g: &Dense, p: &mut Dense, state: &mut [Dense]) {
    let Update::Adafactor { decay, eps, clip, weight_decay } = update else { return };
    let (lr, step) = (scalars[0], scalars[1]);
    let beta = 1.0 - step.powf(*decay);
    for state in &mut *state {
        let mut squares = Dense::zeros(&state.shape);
        (0..g.v.len()).for_each(|flat| squares.add(&unflatten(flat, &g.shape), g.v[flat] * g.v[flat]));
        let shared = g.v.len() as f64 / squares.v.len() as f64;
        for (average, sum) in state.v.iter_mut().zip(squares.v) {
            *average = if first { 0.0 } else { beta * *average } + (1.0 - beta) * sum / shared;
        }
    }
    let second = Dense::from_fn(&g.shape, |i| match &*state {
        [rows, columns] => {
            let all = rows.along(i, i.len() - 2);
            let mean = all.sum::<f64>() / rows.shape[i.len() - 2] as f64;
            rows.at(i) * columns.at(i) / mean.max(eps[0])
        }
        state => state[0].at(i),
    });
    let rms = |v: &[f64]| (v.iter().map(|v| v * v).sum::<f64>() / v.len() as f64).sqrt();
    let u: Vec<f64> = g.v.iter().zip(&second.v).map(|(g, v)| g / v.max(eps[0] * eps[0]).sqrt()).collect();
    let rate = rms(&p.v).max(eps[1]) * lr.min(1.0 / step.sqrt()) / (rms(&u) / clip).max(1.0);
    p.v.iter_mut().zip(&u).for_each(|(p, u)| *p = *p * (1.0 - lr * weight_decay) - rate * u);
}
