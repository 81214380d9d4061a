//! Rows whose deviation is so large or small that products with it leave f32's range: element by element in f64.

use crate::moments::Moments;
use crate::operand::Compute;
use crate::simd::Stored;

/// Whether x − mean and its product with `rstd` need f64. Told from what is saved, so that a norm computed again has
/// the same bits. What is not finite is no better there.
pub(super) fn is_wide(rstd: f64) -> bool {
    rstd.is_finite() && rstd != 0.0 && !(1e-30..=1e30).contains(&rstd)
}

/// The same for a gradient, which multiplies by the third power.
pub(super) fn is_wide_backward(rstd: f64) -> bool {
    rstd.is_finite() && rstd != 0.0 && !(1e-9..=1e9).contains(&rstd)
}

/// The same where all is computed in f64.
pub(super) fn is_wide_in_f64(rstd: f64) -> bool {
    rstd.is_finite() && rstd != 0.0 && !(1e-90..=1e90).contains(&rstd)
}

/// What rows are normalised with element by element: `x̂ = (x/unit − mean)·rstd`.
#[derive(Clone, Copy)]
pub(super) struct WideRow {
    pub mean: f64,
    pub rstd: f64,
    /// A power of two. 1, unless statistics do not hold the 1/deviation of the numbers themselves.
    pub unit: f64,
}

impl WideRow {
    /// Of a row with these statistics, if `is_wide` says so of its 1/deviation. Where that is infinite, `moments` are
    /// taken again: it is that of subnormal numbers, or of equal ones.
    pub fn of(
        [mean, rstd]: [f64; 2],
        is_wide: fn(f64) -> bool,
        n: usize,
        eps: f64,
        moments: impl FnOnce() -> Moments,
    ) -> Option<WideRow> {
        if rstd.is_infinite() {
            let [mean, rstd, unit] = moments().in_units(n as f64, eps);
            return Some(WideRow { mean, rstd, unit });
        }
        is_wide(rstd).then_some(WideRow { mean, rstd, unit: 1.0 })
    }

    fn hat(&self, x: f64) -> f64 {
        (x / self.unit - self.mean) * self.rstd
    }
}

/// `x̂·w + b`, rounded to the computing type as in vectors.
pub(super) fn normalise_wide<C: Compute, Y: Stored<C>>(
    row: WideRow,
    [w, b]: [&[C]; 2],
    y: &mut [Y],
    x: impl Fn(usize) -> f64,
) {
    for (i, (y, (w, b))) in y.iter_mut().zip(w.iter().zip(b)).enumerate() {
        *y = Y::from_f64(C::from_f64(row.hat(x(i)) * w.as_f64() + b.as_f64()).as_f64());
    }
}

/// `(g·w − mean(g·w) − x̂·mean(g·w·x̂))·rstd/unit`; g·x̂ and g are added to the sums by weight and
/// bias. Few rows want it: one function for all types, which takes g and x and hands out dx by place.
pub(super) fn gradient_of_wide<C: Compute>(
    centred: bool,
    row: WideRow,
    [g, x]: [&dyn Fn(usize) -> f64; 2],
    w: &[C],
    put: &mut dyn FnMut(usize, f64),
    [dw, db]: [&mut [C]; 2],
) {
    let n = w.len() as f64;
    let at = |i: usize| (g(i), row.hat(x(i)), w[i].as_f64());
    let (mut shift, mut slope) = (0.0, 0.0);
    for i in 0..w.len() {
        let (g, hat, w) = at(i);
        shift += g * w / n;
        slope += g * w * hat / n;
    }
    let shift = if centred { shift } else { 0.0 };
    for i in 0..w.len() {
        let (g, hat, w) = at(i);
        put(i, C::from_f64((g * w - shift - hat * slope) * row.rstd / row.unit).as_f64());
        dw[i] += C::from_f64(g * hat);
        db[i] += C::from_f64(g);
    }
}
