//! The f32 functions, branch-free and over the whole range: signed zeros, infinities, NaN, subnormal results.
//!
//! Arguments are reduced as by Cody and Waite (*Software Manual for the Elementary Functions*, 1980). Polynomials
//! without a named source were fitted for this file (least squares with Lawson's weights, coefficients rounded to f32
//! one after the other). Bounds are the largest errors allowed against f64, in ulp of f32; `tests.rs` checks each on
//! every exponent.

mod normal;

pub use normal::*;

use super::lanes::F32Lanes as F;
use super::table::{self, Folded, Tabled, Whole};

const LN2_HI: f64 = 0.693_138_122_558_593_8;
const LN2_LO: f64 = 9.058_000_614_5e-6;

/// Σ c[k]·xᵏ by Horner's rule.
#[inline(always)]
fn poly<L: F, const K: usize>(x: L, c: [f64; K]) -> L {
    let mut y = L::splat(c[K - 1]);
    for k in (0..K - 1).rev() {
        y = y.mul_add(x, L::splat(c[k]));
    }
    y
}

/// Added and taken away again it rounds what is below 2²² to an integer, ties to even.
pub(super) const SHIFT: f64 = 12_582_912.0;

/// (n, eʳ − 1) with x = n·ln 2 + r, |r| ≤ ½ ln 2. Cody and Waite reduction, fit with relative error 2⁻²⁸ of eʳ.
#[inline(always)]
fn exp_parts<L: F>(x: L) -> (L, L) {
    let n = x.mul_add(L::splat(std::f64::consts::LOG2_E), L::splat(SHIFT)) - L::splat(SHIFT);
    let r = n.mul_add(L::splat(-LN2_HI), x);
    let r = n.mul_add(L::splat(-LN2_LO), r);
    let p = poly(r, [0.499_999_94, 0.166_665_211, 0.041_668_262_3, 0.008_368_670_94, 0.001_382_099_93]);
    (n, (r * r).mul_add(p, r))
}

/// `eˣ`, ≤ 1.1 ulp. Where the result is normal, or nothing as for masked scores, one factor 2ⁿ is enough.
#[inline(always)]
pub fn exp<L: F>(x: L) -> L {
    let (normal, nothing) = (x.abs().lt(L::splat(87.0)), x.lt(L::splat(EXP_NOTHING)));
    if L::is_either_everywhere(normal, nothing) {
        return L::select(normal, exp_normal(x), L::splat(0.0));
    }
    x.exp_general()
}

/// Below this eˣ rounds to 0.
const EXP_NOTHING: f64 = -104.0;

/// [`exp`] of any number. `scale` rounds a subnormal result once and overflows in the right place.
#[inline(always)]
pub fn exp_general<L: F>(x: L) -> L {
    // Below the limit the result is 0; it is not computed, because underflow takes processors a hundred cycles, and
    // masked scores are −∞. Above the other it is infinity all the same.
    let (zero, nothing) = (L::splat(0.0), x.lt(L::splat(EXP_NOTHING)));
    let (n, p) = exp_parts(L::select(nothing, zero, x.clamp(EXP_NOTHING, 89.0)));
    L::select(nothing, zero, (p + L::splat(1.0)).scale(n))
}

/// `eˣ` for x in −87..=88, where one factor 2ⁿ is enough.
#[inline(always)]
fn exp_normal<L: F>(x: L) -> L {
    let (n, p) = exp_parts(x);
    (p + L::splat(1.0)) * n.pow2()
}

/// `eˣ − 1`, ≤ 1.5 ulp: twice `(s − ½) + s·r + s·(eʳ − 1 − r)` with s = 2ⁿ⁻¹. The rounding errors of r and of the first
/// sum are added to the last term. Half of 2ⁿ, because 2¹²⁸ is not a float.
#[inline(always)]
pub fn exp_m1<L: F>(x: L) -> L {
    // From −18 down the result is −1 rounded.
    let y = x.clamp(-18.0, 89.0);
    let n = (y * L::splat(std::f64::consts::LOG2_E)).round_ties_even();
    let high = n.mul_add(L::splat(-LN2_HI), y);
    let low = n * L::splat(-LN2_LO);
    let r = high + low;
    let r_low = (high - r) + low;
    let p = poly(r, [0.5, 0.166_666_672, 0.041_666_489_1, 0.008_333_207_11, 0.001_393_266_49, 0.000_199_450_995]);
    let tail = (r * r).mul_add(p, r_low);
    let s = (n - L::splat(1.0)).pow2();
    let (a, b) = (s - L::splat(0.5), s * r);
    let sum = a + b;
    let half = sum + s.mul_add(tail, b - (sum - a));
    // Below 2⁻²⁵ the result is x: keeps −0 and subnormals, which halving would round.
    L::select(x.abs().lt(L::splat(TINY)), x, half + half)
}

/// 2⁻²⁵.
const TINY: f64 = 1.0 / (1u32 << 25) as f64;

/// `ln(1 + f) + e·ln 2` for 1 + f in [√½, √2): the series of FreeBSD's `e_logf.c` in s = f/(2 + f), error 2⁻³⁴.
#[inline(always)]
fn ln_parts<L: F>(f: L, e: L) -> L {
    let s = f / (L::splat(2.0) + f);
    let z = s * s;
    let r = poly(z, [0.666_666_626_93, 0.400_009_721_52, 0.284_987_866_88, 0.242_790_788_41]) * z;
    let half = L::splat(0.5) * f * f;
    e.mul_add(L::splat(LN2_HI), f - (half - s.mul_add(half + r, e * L::splat(LN2_LO))))
}

/// The logarithm of `u`, given its value `y` where `u` is positive and finite.
#[inline(always)]
fn ln_edges<L: F>(u: L, y: L) -> L {
    let y = L::select(u.eq(L::splat(0.0)), L::splat(f64::NEG_INFINITY), y);
    let y = L::select(u.lt(L::splat(f64::INFINITY)), y, u);
    L::select(u.lt(L::splat(0.0)), L::splat(f64::NAN), y)
}

/// Natural logarithm, ≤ 1 ulp.
#[inline(always)]
pub fn ln<L: F>(x: L) -> L {
    let tiny = x.lt(L::splat(f32::MIN_POSITIVE as f64));
    let (m, e) = L::select(tiny, x * L::splat((1u64 << 25) as f64), x).split();
    let e = e - L::select(tiny, L::splat(25.0), L::splat(0.0));
    ln_edges(x, ln_parts(m - L::splat(1.0), e))
}

/// `ln(1 + x)`, ≤ 1.5 ulp: the rounding error of u = fl(1 + x) is added to the reduced argument, which is x itself near
/// 0.
#[inline(always)]
pub fn ln_1p<L: F>(x: L) -> L {
    let one = L::splat(1.0);
    let u = one + x;
    // 1 + x = u + c exactly; which of the two operands is larger decides how c is found.
    let c = L::select(x.lt(one), x - (u - one), one - (u - x));
    let (m, e) = u.split();
    // c no longer matters where 2⁻ᵉ is limited.
    let f = c.mul_add((-e).clamp(-100.0, 100.0).pow2(), m - one);
    // The sign is restored for −0.
    ln_edges(u, ln_parts(f, e)).copysign(x)
}

/// Hyperbolic tangent, ≤ 1.5 ulp: 1 − 2/(e²ˣ + 1), and below 0.625 an odd polynomial (fit with relative error 2⁻²⁸).
#[inline(always)]
pub fn tanh<L: F>(x: L) -> L {
    // From 9.02 up tanh rounds to 1.
    let a = x.abs().clamp(0.0, 10.0);
    let s = a * a;
    let p = poly(s, [-0.333_332_837, 0.133_314_848, -0.053_743_004_8, 0.020_649_103_4, -0.005_715_499_17]);
    let near = (a * s).mul_add(p, a);
    let far = L::splat(1.0) - L::splat(2.0) / (exp_normal(a + a) + L::splat(1.0));
    L::select(a.lt(L::splat(0.625)), near, far).copysign(x)
}

/// A function with f(x) = 1 − f(−x) from `y` = f(−|x|).
#[inline(always)]
fn complement<L: F>(x: L, y: L) -> L {
    L::select(x.lt(L::splat(0.0)), y, L::splat(1.0) - y)
}

/// Such a function f and 1 − f from `y` = f(−|x|): neither is a difference of numbers near 1.
#[inline(always)]
pub fn both<L: F>(x: L, y: L) -> (L, L) {
    (complement(x, y), complement(-x, y))
}

/// `1/(1 + e⁻ˣ)`, ≤ 1.5 ulp, from E = e^−|x| as 1/(1 + E) or E/(1 + E), so that the left tail keeps its relative
/// accuracy.
///
/// Numerator and denominator are kept as two floats each (their rounded values and the rounding errors). One Newton
/// step corrects the quotient, which is scaled by E's power of two at the end.
#[inline(always)]
pub fn sigmoid<L: F>(x: L) -> L {
    x.by_table::<Sigmoid>()
}

/// (y, n) with sigmoid(x) = y·2ⁿ, n being 0 right of 0. Left of [`TAIL`] that of [`TAIL`], which even times x is
/// nothing.
#[inline(always)]
fn sigmoid_parts<L: F>(x: L) -> (L, L) {
    let (zero, one) = (L::splat(0.0), L::splat(1.0));
    let (n, p) = exp_parts((-x.abs()).clamp(TAIL, 0.0));
    let e = one + p;
    let e_low = p - (e - one);
    // Below 2⁻¹⁰⁰ E no longer matters beside 1.
    let s = n.clamp(-100.0, 0.0).pow2();
    let scaled = s * e;
    let d = one + scaled;
    let d_low = s.mul_add(e_low, scaled - (d - one));
    let left = x.lt(zero);
    let (high, low, n) = (L::select(left, e, one), L::select(left, e_low, zero), L::select(left, n, zero));
    let inverse = one / d;
    let q = high * inverse;
    let rest = (-q).fused(d, high) + (-q).mul_add(d_low, low);
    (rest.mul_add(inverse, q), n)
}

/// Left of this x·eˣ rounds to 0.
const TAIL: f64 = -112.0;

/// `x·y·2ⁿ` for a y near 1 with the product before the scaling, which then is the one rounding of a subnormal result.
/// `limit` is where it is nothing.
#[inline(always)]
fn times_scaled<L: F>(x: L, limit: f64, y: L, n: L) -> L {
    (x.clamp(limit, f64::INFINITY) * y).scale(n)
}

/// `x·sigmoid(x)`, ≤ 3 ulp.
#[inline(always)]
pub fn silu<L: F>(x: L) -> L {
    x.by_table::<Silu>()
}

struct Silu;

impl Tabled for Silu {
    const WHOLE: &'static Whole = Sigmoid::WHOLE;
    const FOLDED: &'static Folded = Sigmoid::FOLDED;

    #[inline(always)]
    fn of_whole<L: F>(x: L, y: L) -> L {
        x * y
    }

    #[inline(always)]
    fn of_folded<L: F>(x: L, y: L) -> L {
        x * complement(x, y)
    }

    #[inline(always)]
    fn general<L: F>(x: L) -> L {
        let (y, n) = sigmoid_parts(x);
        times_scaled(x, TAIL, y, n)
    }
}

/// `x·tanh(ln(1 + eˣ))` as x·m/(m + 2) with m = E(E + 2), E = eˣ; far left x·E, and from 20 up x. ≤ 5 ulp.
#[inline(always)]
pub fn mish<L: F>(x: L) -> L {
    let (one, two) = (L::splat(1.0), L::splat(2.0));
    let (n, p) = exp_parts(x.clamp(TAIL, 20.0));
    let y = p + one;
    let e = y.scale(n);
    let m = e * (e + two);
    let near = L::select(x.lt(L::splat(20.0)), x * (m / (m + two)), x);
    L::select(x.lt(L::splat(-80.0)), times_scaled(x, TAIL, y, n), near)
}

struct Sigmoid;

impl Tabled for Sigmoid {
    const WHOLE: &'static Whole = &table::SIGMOID.whole;
    const FOLDED: &'static Folded = &table::SIGMOID.folded;

    #[inline(always)]
    fn of_whole<L: F>(_x: L, y: L) -> L {
        y
    }

    #[inline(always)]
    fn of_folded<L: F>(x: L, y: L) -> L {
        complement(x, y)
    }

    #[inline(always)]
    fn general<L: F>(x: L) -> L {
        let (y, n) = sigmoid_parts(x);
        y.scale(n)
    }
}
