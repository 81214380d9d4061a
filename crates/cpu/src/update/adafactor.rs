//! Adafactor (Shazeer and Stern 2018), whose second moments of a matrix are kept as those of its rows and columns.

use super::{host, window, window_mut};
use crate::operand::{BLOCK, Buffer, Compute, elements_mut};
use crate::simd::Isa;
use binade_tensor::update::{Slot, Update};
use binade_tensor::{DType, Error, Result};

/// Elements in memory, widened a block at a time: a step asks for no memory, so that none can be missing half way.
#[derive(Clone, Copy)]
struct Elements<'a> {
    isa: Isa,
    dtype: DType,
    bytes: &'a [u8],
}

impl Elements<'_> {
    /// Calls `f` with the place among them and the value of `n` elements, `stride` apart from `start` on.
    fn each<C: Compute>(self, start: usize, stride: usize, n: usize, mut f: impl FnMut(usize, C)) {
        let mut buffer = Buffer::new();
        for from in (0..n).step_by(BLOCK) {
            let block = buffer.first(BLOCK.min(n - from));
            C::load(self.isa, self.dtype, self.bytes, start + from * stride, stride, block);
            block.iter().enumerate().for_each(|(i, &v)| f(from + i, v));
        }
    }
}

/// The mean of squares of what `each` hands over, in f64 in order.
fn mean_of_squares(n: usize, each: impl FnOnce(&mut dyn FnMut(f64))) -> f64 {
    let mut sum = 0.0;
    each(&mut |v| sum += v * v);
    sum / n.max(1) as f64
}

/// Adafactor's step depends on whole rows and columns: on one thread, sums in f64 in order.
pub(super) fn step<C: Compute>(isa: Isa, update: &Update, scalars: &[f32], slot: &mut Slot<'_>) -> Result<()> {
    let Update::Adafactor { decay, eps, clip, weight_decay } = update else { return Ok(()) };
    let host = || host(update, C::DTYPE);
    let Slot { param: Some(param), master, grad, state, first } = slot else {
        return Err(Error::Argument { op: update.name(), message: "needs parameters".into() });
    };
    let grad = grad.array();
    let (n, shape) = (grad.numel(), grad.shape());
    if n == 0 {
        return Ok(());
    }
    let guard = grad.storage().read(update.name())?;
    let g = Elements { isa, dtype: grad.dtype(), bytes: window(grad, guard.bytes().ok_or_else(host)?) };
    let factor = C::from_f64(scalars[scalars.len() - 1] as f64);
    // Every element times the factor, as C rounds it.
    let gradient = |start: usize, stride: usize, n: usize, f: &mut dyn FnMut(usize, f64)| {
        g.each::<C>(start, stride, n, |i, g| f(i, (g * factor).as_f64()));
    };
    let (lr, step) = (scalars[0] as f64, scalars[1] as f64);
    let rate = libm::pow(step, *decay);
    let average = |state: &mut C, value: f64| {
        let before = if *first { 0.0 } else { state.as_f64() };
        *state = C::from_f64(before + rate * (value - before));
    };
    let mut states = Vec::with_capacity(2);
    for state in state {
        let array = state.array();
        states.push(elements_mut::<C>(window_mut(array, state.bytes().ok_or_else(host)?)));
    }
    // Of a matrix, or of each of several.
    let (r, c) = if states.len() == 2 { (shape[shape.rank() - 2], shape[shape.rank() - 1]) } else { (1, n) };
    match &mut states[..] {
        [rows, columns] => {
            for (i, row) in rows.iter_mut().enumerate() {
                average(row, mean_of_squares(c, |f| gradient(i * c, 1, c, &mut |_, g| f(g))));
            }
            for (i, column) in columns.iter_mut().enumerate() {
                let start = i / c * r * c + i % c;
                average(column, mean_of_squares(r, |f| gradient(start, c, r, &mut |_, g| f(g))));
            }
        }
        [v] => gradient(0, 1, n, &mut |i, g| average(&mut v[i], g * g)),
        _ => {}
    }
    /// The mean of the rows' averages of a matrix.
    fn total<C: Compute>(rows: &[C], floor: f64) -> f64 {
        (rows.iter().map(|v| v.as_f64()).sum::<f64>() / rows.len().max(1) as f64).max(floor)
    }
    // The gradient over the root of its second moments, whose elements are walked in order.
    let direction = |f: &mut dyn FnMut(usize, f64)| {
        let mut matrix = None;
        gradient(0, 1, n, &mut |i, g| {
            let second = match &states[..] {
                [rows, columns] => {
                    let at = i / (r * c);
                    let total = match matrix {
                        Some((known, total)) if known == at => total,
                        _ => total(&rows[at * r..(at + 1) * r], eps[0]),
                    };
                    matrix = Some((at, total));
                    rows[i / c].as_f64() * columns[at * c + i % c].as_f64() / total
                }
                [v] => v[i].as_f64(),
                _ => f64::INFINITY,
            };
            f(i, g / second.max(eps[0] * eps[0]).sqrt());
        });
    };
    let mut targets = Vec::with_capacity(2);
    for target in master.iter_mut().chain([param]) {
        let array = target.array();
        targets.push((array.dtype(), window_mut(array, target.bytes().ok_or_else(host)?)));
    }
    let length = mean_of_squares(n, |f| {
        let (dtype, ref bytes) = targets[0];
        Elements { isa, dtype, bytes }.each::<C>(0, 1, n, |_, p| f(p.as_f64()));
    });
    let alpha = eps[1].max(length.sqrt()) * lr.min(1.0 / step.sqrt());
    let factor = alpha / (mean_of_squares(n, |f| direction(&mut |_, u| f(u))).sqrt() / clip).max(1.0);
    let shrink = 1.0 - lr * weight_decay;
    let mut buffer = Buffer::<C>::new();
    direction(&mut |i, u| {
        let (at, of) = (i % BLOCK, BLOCK.min(n - (i - i % BLOCK)));
        let p = buffer.first(of);
        if at == 0 {
            let (dtype, ref bytes) = targets[0];
            C::load(isa, dtype, bytes, i, 1, p);
        }
        p[at] = C::from_f64(p[at].as_f64() * shrink - factor * u);
        if at + 1 == of {
            for (dtype, bytes) in &mut targets {
                let size = dtype.size();
                C::store(isa, p, &mut bytes[(i - at) * size..][..of * size], *dtype);
            }
        }
    });
    Ok(())
}
