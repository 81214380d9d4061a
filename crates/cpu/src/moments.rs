//! Mean and squared distances of numbers of any size, in f64: for those whose squares a sum in the computing type does
//! not hold.

use super::operand::Compute;
use binade_tensor::DType;

/// Of some numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    pub mean: f64,
    /// The mean over the scale.
    centre: f64,
    /// Σ((x − mean)/scale)², the scale being a power of two, so that scaling rounds nothing.
    squares: f64,
    scale: f64,
}

impl Moments {
    /// Of numbers that `each` hands over block by block in order, as often as it is asked, around their mean or around
    /// 0.
    pub fn of(centred: bool, each: impl Fn(&mut dyn FnMut(&[f64]))) -> Moments {
        let (mut largest, mut first, mut n) = (0.0, None, 0);
        each(&mut |x| {
            largest = x.iter().fold(largest, |m, x| larger(m, x.abs()));
            first = first.or(x.first().copied());
            n += x.len();
        });
        let (n, scale) = (n as f64, scale_of(largest));
        // Counted from the first number, so that the mean of equal ones is each of them.
        let (first, mut sum) = (first.filter(|x| centred && x.is_finite()).unwrap_or(0.0) / scale, 0.0);
        if centred {
            each(&mut |x| sum += x.iter().map(|x| x / scale - first).sum::<f64>());
        }
        let mean = first + sum / n;
        // NaN of no numbers.
        let mut squares = 0.0 * mean;
        each(&mut |x| squares += x.iter().map(|x| (x / scale - mean) * (x / scale - mean)).sum::<f64>());
        Moments { mean: mean * scale, centre: mean, squares, scale }
    }

    /// From the mean and the sum of squared distances of scaled numbers.
    pub fn from_sums(centre: f64, squares: f64, scale: f64) -> Moments {
        Moments { mean: centre * scale, centre, squares, scale }
    }

    /// Mean and `1/√(Σ(x − mean)²/n + eps)` of the numbers over the scale, and that: where the second of the numbers
    /// themselves is beyond all range, as of subnormal ones without eps.
    pub fn in_units(&self, n: f64, eps: f64) -> [f64; 3] {
        [self.centre, 1.0 / (self.squares / n).sqrt().hypot(eps.sqrt() / self.scale), self.scale]
    }

    /// `√(Σ(x − mean)²/divisor)`.
    pub fn deviation(&self, divisor: f64) -> f64 {
        self.scale * (self.squares / divisor).sqrt()
    }

    /// `Σ(x − mean)²/divisor`.
    pub fn variance(&self, divisor: f64) -> f64 {
        self.squares / divisor * self.scale * self.scale
    }
}

/// The larger; NaN wins.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

/// The power of two that numbers up to `largest` are divided by; 1 where there is none.
pub(super) fn scale_of(largest: f64) -> f64 {
    if largest == 0.0 || !largest.is_finite() { 1.0 } else { 2f64.powi(libm::ilogb(largest).clamp(-1000, 1000)) }
}

/// Whether a variance from sums in C can be trusted: its squares neither overflowed nor vanished.
pub(super) fn is_in_range<C: Compute>(variance: f64) -> bool {
    let smallest = if C::DTYPE == DType::F64 { 1e-280 } else { 1e-30 };
    variance.is_finite() && variance > smallest
}

/// Whether the rounding of the mean, of which squares of distances contain the square, does not matter beside the
/// variance.
pub(super) fn is_spread(mean: f64, variance: f64) -> bool {
    variance * 256.0 > mean * mean
}

/// Whether numbers lie so near to their mean that the last bits of f32 are most of their distances.
pub(super) fn is_near_mean(mean: f64, variance: f64) -> bool {
    variance < 1e-12 * mean * mean
}

/// Whether C holds a number of f64 with all its digits: it is neither beyond the range nor below the normal one. What
/// is not finite is no better in f64.
pub(super) fn is_held<C: Compute>(x: f64) -> bool {
    let (least, most) = (C::min_positive_value().as_f64(), C::max_value().as_f64());
    x == 0.0 || !x.is_finite() || (least..=most).contains(&x.abs())
}
