//! f64 with exponents of 32 bit: what elements are computed in whose factors leave the range of f64.

use binade_tensor::number::{Number, Wide, Wide2};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// `significand · 2^exponent`: the significand is 0, infinite, NaN, or of a magnitude in `1..2`.
#[derive(Clone, Copy, Debug)]
pub struct Ranged {
    significand: f64,
    exponent: i32,
}

/// Bits of an f64 below its exponent.
const FRACTION: u32 = 52;
/// The exponent of 1 in an f64.
const BIAS: i32 = 1023;
const EXPONENTS: u64 = 0x7ff << FRACTION;

/// `2^n` for exponents of normal numbers.
fn power(n: i32) -> f64 {
    f64::from_bits(((n + BIAS) as u64) << FRACTION)
}

impl Ranged {
    fn new(significand: f64, exponent: i32) -> Ranged {
        if significand == 0.0 || !significand.is_finite() {
            return Ranged { significand, exponent: 0 };
        }
        // A subnormal number is made normal first, exactly.
        let (x, exponent) =
            if significand.is_normal() { (significand, exponent) } else { (significand * power(54), exponent - 54) };
        let bits = x.to_bits();
        let own = ((bits & EXPONENTS) >> FRACTION) as i32 - BIAS;
        let significand = f64::from_bits(bits & !EXPONENTS | (BIAS as u64) << FRACTION);
        Ranged { significand, exponent: exponent + own }
    }

    /// The nearest f64, rounded once.
    pub fn rounded(self) -> f64 {
        let Ranged { significand, exponent } = self;
        match exponent {
            -1022..=1023 => significand * power(exponent),
            // The second product rounds; the first is exact.
            -1200..=-1023 => significand * power(exponent + 200) * power(-200),
            ..-1200 => 0.0 * significand,
            1024.. => f64::INFINITY * significand,
        }
    }

    fn is_ordinary(self) -> bool {
        (-1000..=1000).contains(&self.exponent)
    }

    /// A function of f64 where the result is within its range.
    fn map(self, f: impl Fn(f64) -> f64) -> Ranged {
        Ranged::new(f(self.rounded()), 0)
    }

    fn is_negative(self) -> bool {
        self.significand < 0.0
    }
}

impl Add for Ranged {
    type Output = Ranged;
    fn add(self, other: Ranged) -> Ranged {
        let (large, small) = if self.significand == 0.0 || (other.exponent > self.exponent && other.significand != 0.0)
        {
            (other, self)
        } else {
            (self, other)
        };
        let behind = large.exponent - small.exponent;
        // Further behind, the smaller is below a quarter of the larger one's last bit.
        let small = match small.significand {
            s if s == 0.0 || !s.is_finite() || !large.significand.is_finite() => s,
            s => s * power(-behind.clamp(0, 200)),
        };
        Ranged::new(large.significand + small, large.exponent)
    }
}

impl Sub for Ranged {
    type Output = Ranged;
    fn sub(self, other: Ranged) -> Ranged {
        self.add(-other)
    }
}

impl Mul for Ranged {
    type Output = Ranged;
    fn mul(self, other: Ranged) -> Ranged {
        Ranged::new(self.significand * other.significand, self.exponent + other.exponent)
    }
}

impl Div for Ranged {
    type Output = Ranged;
    fn div(self, other: Ranged) -> Ranged {
        Ranged::new(self.significand / other.significand, self.exponent - other.exponent)
    }
}

impl Neg for Ranged {
    type Output = Ranged;
    fn neg(self) -> Ranged {
        Ranged { significand: -self.significand, ..self }
    }
}

/// How often an argument is halved at most. Beyond 2¹¹ no product with floats is in the range again, and digits do not
/// matter: the power is only finite, so that a product with 0 is 0.
const HALVINGS: i32 = 18;

/// `f(x)` as `f(x/2)²`, and so on, where f of sums is the product: the half of a float is exact.
fn by_squares(x: f64, f: impl Fn(f64) -> f64) -> Ranged {
    let mut halvings = 0;
    let mut y = f(x);
    while halvings < HALVINGS && x.is_finite() && !y.is_nan() && !y.is_normal() {
        halvings += 1;
        y = f(x / f64::from(1 << halvings));
    }
    (0..halvings).fold(Ranged::new(y, 0), |y, _| y * y)
}

fn exp(x: f64) -> Ranged {
    by_squares(if x.is_finite() { x.clamp(-1e8, 1e8) } else { x }, libm::exp)
}

impl Number for Ranged {
    type Mask = bool;
    fn splat(value: f64) -> Ranged {
        Ranged::new(value, 0)
    }
    fn mul_add(self, b: Ranged, c: Ranged) -> Ranged {
        self * b + c
    }
    fn sqrt(self) -> Ranged {
        let odd = self.exponent & 1;
        Ranged::new((self.significand * power(odd)).sqrt(), (self.exponent - odd) / 2)
    }
    fn abs(self) -> Ranged {
        Ranged { significand: self.significand.abs(), ..self }
    }
    fn max(self, other: Ranged) -> Ranged {
        if self.significand.is_nan() || other.lt(self) { self } else { other }
    }
    fn min(self, other: Ranged) -> Ranged {
        if self.significand.is_nan() || self.lt(other) { self } else { other }
    }
    fn lt(self, other: Ranged) -> bool {
        let (a, b) = (self.significand, other.significand);
        if a == 0.0 || b == 0.0 || !a.is_finite() || !b.is_finite() || (a < 0.0) != (b < 0.0) {
            return a < b;
        }
        let order = self.exponent.cmp(&other.exponent);
        if order.is_eq() { a < b } else { order.is_lt() != (a < 0.0) }
    }
    fn le(self, other: Ranged) -> bool {
        self.lt(other) || self.eq(other)
    }
    fn eq(self, other: Ranged) -> bool {
        self.significand == other.significand && self.exponent == other.exponent
    }
    fn select(mask: bool, if_true: Ranged, if_false: Ranged) -> Ranged {
        if mask { if_true } else { if_false }
    }
    fn round_ties_even(self) -> Ranged {
        if self.exponent >= FRACTION as i32 { self } else { self.map(f64::round_ties_even) }
    }
    fn floor(self) -> Ranged {
        if self.exponent >= FRACTION as i32 {
            self
        } else if self.is_ordinary() {
            self.map(f64::floor)
        } else {
            Ranged::splat(if self.is_negative() { -1.0 } else { 0.0 })
        }
    }
    fn exp(self) -> Ranged {
        exp(self.rounded())
    }
    fn exp_m1(self) -> Ranged {
        match self.exponent {
            // The next term is below the last bit.
            ..-60 => self,
            9.. => self.exp() - Ranged::splat(1.0),
            _ => self.map(libm::expm1),
        }
    }
    fn ln(self) -> Ranged {
        if self.is_ordinary() || self.significand == 0.0 {
            return self.map(libm::log);
        }
        Ranged::splat(libm::log(self.significand) + f64::from(self.exponent) * std::f64::consts::LN_2)
    }
    fn ln_1p(self) -> Ranged {
        match self.exponent {
            ..-60 => self,
            60.. => self.ln(),
            _ => self.map(libm::log1p),
        }
    }
    fn tanh(self) -> Ranged {
        if self.exponent < -60 { self } else { self.map(libm::tanh) }
    }
    fn sigmoid(self) -> Ranged {
        // Left of −40 that is eˣ.
        if self.is_negative() && self.exponent > 5 { self.exp() } else { self.map(Number::sigmoid) }
    }
    // No formula whose factors leave the range has one of these: they are those of f64.
    fn erf(self) -> Ranged {
        self.map(Number::erf)
    }
    fn erfc(self) -> Ranged {
        self.map(Number::erfc)
    }
    fn normal_cdf(self) -> Ranged {
        self.map(Number::normal_cdf)
    }
    fn tanh_cdf(self) -> Ranged {
        self.map(Number::tanh_cdf)
    }
    fn wide(self, f: Wide) -> Ranged {
        match f {
            // The other exponential is nothing beside this one.
            Wide::Cosh if self.exponent > 5 => self.abs().exp() * Ranged::splat(0.5),
            Wide::Sinh if self.exponent > 5 => self.abs().exp() * Ranged::splat(0.5f64.copysign(self.significand)),
            f => self.map(|x| f.eval(x)),
        }
    }
    fn wide2(self, other: Ranged, f: Wide2) -> Ranged {
        let (a, b) = (self.rounded(), other.rounded());
        match f {
            Wide2::Pow if a != 0.0 && a.is_finite() && b.is_finite() => {
                // Of a negative base the sign is that of the whole exponent; half of it need not be whole.
                let power = b * libm::log(a.abs());
                let size = if power.abs() < 1e8 { by_squares(b, |b| libm::pow(a.abs(), b)) } else { exp(power) };
                let sign = libm::pow(a.signum(), b);
                Ranged::new(size.significand * sign, size.exponent)
            }
            Wide2::Pow | Wide2::Atan2 | Wide2::Fmod => Ranged::new(f.eval(a, b), 0),
        }
    }
}
