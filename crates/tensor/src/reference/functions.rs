//! Functions that the standard library does not have, from their series and definitions, in f64. Kernels have none of
//! them: theirs are of [`crate::simd`] and of `libm`.

use std::f64::consts::{FRAC_2_SQRT_PI, PI};

use crate::DType;
use crate::format::Format;

/// A sum with what its roundings lost (Neumaier 1974): of f64 itself the reference must be closer than what it judges.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum {
    total: f64,
    lost: f64,
}

impl Sum {
    pub(super) fn add(&mut self, v: f64) {
        let total = self.total + v;
        self.lost += if self.total.abs() >= v.abs() { self.total - total + v } else { v - total + self.total };
        self.total = total;
    }

    pub(super) fn value(self) -> f64 {
        if self.total.is_finite() { self.total + self.lost } else { self.total }
    }
}

/// Of some numbers.
pub(super) fn sum_of(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sum = Sum::default();
    values.into_iter().for_each(|v| sum.add(v));
    sum.value()
}

/// A power of two about as large as a magnitude, by which numbers of ordinary size come near 1; 1 of 0 and of what is
/// not finite.
pub(super) fn binade(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() { 1.0 } else { 2f64.powi(x.abs().log2().floor().clamp(-1000.0, 1000.0) as i32) }
}

/// `Π factors / Π divisors`, rounded into the range of f64 once: the significands' product, and the exponents' sum.
pub(super) fn quotient(factors: impl IntoIterator<Item = f64>, divisors: impl IntoIterator<Item = f64>) -> f64 {
    const STEP: i32 = 400;
    let (up, down) = (2f64.powi(STEP), 2f64.powi(-STEP));
    // A number of ordinary size, and how many steps it was moved.
    let ordinary = |mut x: f64, mut steps: i32| {
        while x.is_finite() && x.abs() > up {
            (x, steps) = (x * down, steps + 1);
        }
        while x != 0.0 && x.abs() < down {
            (x, steps) = (x * up, steps - 1);
        }
        (x, steps)
    };
    let mut product = (1.0, 0);
    for x in factors {
        let (x, steps) = ordinary(x, 0);
        product = ordinary(product.0 * x, product.1 + steps);
    }
    for x in divisors {
        let (x, steps) = ordinary(x, 0);
        product = ordinary(product.0 / x, product.1 - steps);
    }
    let (mut x, steps) = product;
    // Twice is beyond the range from any ordinary size.
    for _ in 0..steps.abs().min(4) {
        x *= if steps > 0 { up } else { down };
    }
    x
}

/// Factors of eᵗ, each within the range where the power is not. That of a finite t is neither 0 nor infinite: 0 times
/// it is 0, and an infinity times it infinite.
pub(super) fn exp_factors(t: f64) -> [f64; 16] {
    let t = if t.is_finite() { t.clamp(-1.1e4, 1.1e4) } else { t };
    [f64::exp(t / 16.0); 16]
}

/// `x·eᵗ`, as above.
pub(super) fn times_exp(x: f64, t: f64) -> f64 {
    quotient(exp_factors(t).into_iter().chain([x]), [])
}

/// `x·Φ(x)` far left: the normal density over Mills' ratio (Abramowitz and Stegun, 26.2.14), rounded into the range
/// once.
pub(super) fn times_normal_tail(x: f64) -> f64 {
    let (z, high) = (-x, x as f32 as f64);
    let fraction = (1..=20).rev().fold(0.0, |rest, k| k as f64 / (z + rest));
    let rest = (-(x - high) * (x + high) / 2.0).exp();
    quotient(exp_factors(-high * high / 2.0).into_iter().chain([x, rest]), [(2.0 * PI).sqrt(), z + fraction])
}

/// `e^(−x²)`. The exponential would magnify the rounding of x² by x²: the square of the leading 24 bits has none.
pub(super) fn gauss(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 30.0 {
        return (-x * x).exp();
    }
    let high = x as f32 as f64;
    (-high * high).exp() * (-(x - high) * (x + high)).exp()
}

/// `2/√π · ∫₀ˣ e^(−t²) dt`.
pub(super) fn erf(x: f64) -> f64 {
    if x.is_nan() {
        x
    } else if x.abs() < 1.0 {
        // Σ (−x²)ⁿ/(n!(2n + 1)), by Horner's rule.
        let sum = (0..30).rev().map(f64::from).fold(0.0, |rest, n| 1.0 / (2.0 * n + 1.0) - x * x / (n + 1.0) * rest);
        x * sum * FRAC_2_SQRT_PI
    } else {
        (1.0 - tail(x.abs())).copysign(x)
    }
}

/// `1 − erf(x)`.
pub(super) fn erfc(x: f64) -> f64 {
    if x < 0.5 || x.is_nan() { 1.0 - erf(x) } else { tail(x) }
}

/// `1 − erf(x)` from ½ up: `e^(−x²)/√π / (x + ½/(x + 1/(x + 3⁄2/(x + …))))` (Abramowitz and Stegun, 7.1.14).
fn tail(x: f64) -> f64 {
    let steps = (20.0 + 300.0 / (x * x)) as usize;
    let fraction = (1..=steps).rev().fold(0.0, |rest, k| k as f64 / 2.0 / (x + rest));
    gauss(x) / PI.sqrt() / (x + fraction)
}

/// The y with erf(y) = x: halving the numbers it may be until there is one. Above 0.6 by erfc, since 1 − x is exact
/// from ½ up.
pub(super) fn erfinv(x: f64) -> f64 {
    let a = x.abs();
    if x.is_nan() || a > 1.0 {
        return f64::NAN;
    }
    if a == 1.0 || a == 0.0 {
        return if a == 0.0 { x } else { f64::INFINITY.copysign(x) };
    }
    let is_below = |y: f64| if a < 0.6 { erf(y) < a } else { tail(y.max(0.5)) > 1.0 - a };
    // Bits of positive numbers are in their order.
    let (mut low, mut high) = (0, 6f64.to_bits());
    while low < high {
        let middle = low + (high - low) / 2;
        if is_below(f64::from_bits(middle)) { low = middle + 1 } else { high = middle }
    }
    f64::from_bits(low).copysign(x)
}

/// `arcosh x`, from x − 1, which is exact near 1, where that of the standard library rounds.
pub(super) fn acosh(x: f64) -> f64 {
    if x < 1.0 {
        return f64::NAN;
    }
    let t = x - 1.0;
    if t > 1e9 { x.ln() + std::f64::consts::LN_2 } else { (t + (2.0 * t + t * t).sqrt()).ln_1p() }
}

/// `arsinh x`, as the logarithm of 1 and what is small beside it.
pub(super) fn asinh(x: f64) -> f64 {
    let a = x.abs();
    let y = if a > 1e9 { a.ln() + std::f64::consts::LN_2 } else { (a + a * a / (1.0 + (1.0 + a * a).sqrt())).ln_1p() };
    y.copysign(x)
}

/// `artanh x`. Of |x|: the logarithm of a number below 1 would magnify the quotient's rounding.
pub(super) fn atanh(x: f64) -> f64 {
    let a = x.abs();
    (0.5 * (2.0 * a / (1.0 - a)).ln_1p()).copysign(x)
}

/// `x` in f32 rounded to one of its neighbours in a 16-bit format: away from zero with the probability of its distance
/// from the inner one. As many of noise's last bits are a fraction as the format has fewer than f32, at most 32. The
/// outer one is taken where the fraction is below the distance, of which no more bits count.
pub(super) fn stochastic(dtype: DType, x: f64, noise: u32) -> f64 {
    let (format, x) = (if dtype == DType::BF16 { Format::BF16 } else { Format::F16 }, x as f32 as f64);
    if !x.is_finite() {
        return x;
    }
    let ulp = format.ulp(x);
    let steps = (ulp / Format::F32.ulp(x)).min(2f64.powi(32));
    let (whole, distance) = ((x.abs() / ulp).floor(), (x.abs() / ulp).fract());
    let up = noise as f64 % steps < (distance * steps).floor();
    ((whole + up as u8 as f64) * ulp).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(name: &str, x: f64, found: f64, expected: f64) {
        let close = (found - expected).abs() <= 4.0 * f64::EPSILON * expected.abs();
        assert!(close, "{name}({x:e}) = {found:e}, not {expected:e}");
    }

    // Expected values were computed with 40 digits.

    #[test]
    fn erf_and_erfc_have_the_values_of_many_digits() {
        for (x, y, complement) in [
            (1e-300, 1.1283791670955126e-300, 1.0),
            (1e-9, 1.128_379_167_095_512_7e-9, 0.999_999_998_871_620_8),
            (0.25, 0.276_326_390_168_236_96, 0.723_673_609_831_763_1),
            (0.5, 0.520_499_877_813_046_5, 0.479_500_122_186_953_5),
            (0.75, 0.711_155_633_653_515_1, 0.288_844_366_346_484_86),
            (0.9999, 0.842_659_278_048_759_5, 0.157_340_721_951_240_52),
            (1.5, 0.966_105_146_475_310_8, 0.033_894_853_524_689_274),
            (2.75, 0.999_899_378_077_880_3, 0.000_100_621_922_119_636_83),
            (10.0, 1.0, 2.088_487_583_762_545e-45),
            (26.0, 1.0, 5.663_192_408_856_143e-296),
            (-0.3, -0.328_626_759_459_127_4, 1.328_626_759_459_127_4),
            (-4.0, -0.9999999845827421, 1.999_999_984_582_742),
            (f64::INFINITY, 1.0, 0.0),
            (f64::NEG_INFINITY, -1.0, 2.0),
        ] {
            assert_close("erf", x, erf(x), y);
            assert_close("erfc", x, erfc(x), complement);
        }
        assert!(erf(f64::NAN).is_nan() && erfc(f64::NAN).is_nan());
    }

    #[test]
    fn erfinv_has_the_values_of_many_digits() {
        for (x, y) in [
            (1e-300, 8.862_269_254_527_58e-301),
            (1e-9, 8.862_269_254_527_58e-10),
            (0.1, 0.088_855_990_494_257_69),
            (0.5, 0.476_936_276_204_469_9),
            (-0.7, -0.732_869_077_959_216_7),
            (0.999999, 3.458_910_737_275_499),
            (1.0 - f64::EPSILON / 2.0, 5.863_584_748_755_167_6),
        ] {
            assert_close("erfinv", x, erfinv(x), y);
        }
        assert_eq!(erfinv(-1.0), f64::NEG_INFINITY);
        assert!(erfinv(1.5).is_nan());
    }

    #[test]
    fn stochastic_rounding_goes_up_as_often_as_the_distance_says() {
        // A quarter of the way from 1 to the next number.
        for (dtype, bits) in [(DType::F16, 13), (DType::BF16, 16)] {
            let ulp = if dtype == DType::F16 { 2f64.powi(-10) } else { 2f64.powi(-7) };
            let ups = (0..1u32 << bits).filter(|&noise| stochastic(dtype, -1.0 - ulp / 4.0, noise) < -1.0).count();
            assert_eq!(ups, 1 << (bits - 2));
            assert_eq!(stochastic(dtype, 1.0, 0), 1.0);
            assert!(stochastic(dtype, f64::NAN, 0).is_nan());
        }
        // Below the smallest of f16 all of 32 bits count.
        let tiny = 2f64.powi(-32) * 0.75;
        assert_eq!(stochastic(DType::F16, tiny, 3 << 22), 0.0);
        assert_eq!(stochastic(DType::F16, tiny, (3 << 22) - 1), 2f64.powi(-24));
    }
}
