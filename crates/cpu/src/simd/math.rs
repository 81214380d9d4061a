//! The f32 functions, branch-free and over the whole range: signed zeros, infinities, NaN, subnormal results.
//!
//! Arguments are reduced as by Cody and Waite (*Software Manual for the Elementary Functions*, 1980). Polynomials
//! without a named source were fitted for this file (least squares with Lawson's weights, coefficients rounded to f32
//! one after the other). Bounds are the largest errors allowed against f64, in ulp of f32; `tests.rs` checks each on
//! every exponent.

use binade_tensor::number;

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

/// Error function, ≤ 1.5 ulp: minimax polynomials by N. Juffa (in x² below 0.9277, in the exponent above).
#[inline(always)]
pub fn erf<L: F>(x: L) -> L {
    let t = x.abs().min(L::splat(4.0));
    let s = t * t;
    let far = L::splat(-1.728_534_70e-5).mul_add(t, L::splat(3.831_971_26e-4));
    let u = L::splat(-3.883_964_38e-3).mul_add(t, L::splat(2.425_462_19e-2));
    let mut far = far.mul_add(s, u);
    for c in [-1.067_778_77e-1, -6.348_466_87e-1, -1.287_175_12e-1] {
        far = far.mul_add(t, L::splat(c));
    }
    let far = (L::splat(1.0) - exp_normal(far.mul_add(t, -t))).copysign(x);
    let mut near = L::splat(-5.967_617_03e-4);
    for c in [4.991_194_23e-3, -2.676_813_49e-2, 1.128_199_25e-1, -3.761_253_36e-1, 1.283_791_66e-1] {
        near = near.mul_add(s, L::splat(c));
    }
    L::select(t.lt(L::splat(0.927_734_375)), near.mul_add(x, x), L::select(x.eq(x), far, x))
}

/// `1 − erf(x)`, ≤ 4 ulp down to underflow.
#[inline(always)]
pub fn erfc<L: F>(x: L) -> L {
    let a = x.abs().min(L::splat(10.5));
    let y = erfcx(a);
    // exp(−a²) with the rounding error of a² restored to first order.
    let s = a * a;
    let rest = (-a).fused(a, s);
    let y = exp_times(-s, rest.mul_add(y, y));
    let y = L::select(L::splat(10.1).lt(a), L::splat(0.0), y);
    let y = L::select(x.lt(L::splat(0.0)), L::splat(2.0) - y, y);
    L::select(x.eq(x), y, x)
}

/// Beyond this the tail of the normal distribution is below half the smallest f32.
const NORMAL_TAIL: f64 = 14.6;

/// (n, p, d) with e^(−a²/2) = 2ⁿ·(1 + p)·(1 + d): d restores the rounding error of a², which the exponential would
/// magnify by a².
#[inline(always)]
fn gauss_parts<L: F>(a: L) -> (L, L, L) {
    let half = L::splat(0.5);
    let s = a * a;
    let (n, p) = exp_parts(-s * half);
    (n, p, (-a).fused(a, s) * half)
}

/// `y·(1 + p)·(1 + d)` for a small d, where neither factor is rounded by itself.
#[inline(always)]
fn grown<L: F>(y: L, p: L, d: L) -> L {
    d.mul_add(p + L::splat(1.0), p).mul_add(y, y)
}

/// `Φ(x) = ½·erfc(−x/√2)`, ≤ 4 ulp down to underflow: the exponential of [`gauss_parts`] times u·P(2u − 1), u = 1/(1 +
/// a/4), which is ½·exp(a²/2)·erfc(a/√2) (fit with relative error 2⁻²⁶ for a up to 14.6). What u lost in rounding is
/// restored from 1 − u·(1 + a/4).
#[inline(always)]
pub fn normal_cdf<L: F>(x: L) -> L {
    x.by_table::<NormalCdf>()
}

struct NormalCdf;

impl Tabled for NormalCdf {
    const WHOLE: &'static Whole = &table::NORMAL_CDF.whole;
    const FOLDED: &'static Folded = &table::NORMAL_CDF.folded;

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
        let (y, n) = normal_tail(x);
        complement(x, y.scale(n))
    }
}

/// (y, n) with Φ(−|x|) = y·2ⁿ.
#[inline(always)]
fn normal_tail<L: F>(x: L) -> (L, L) {
    let one = L::splat(1.0);
    let a = x.abs().clamp(0.0, NORMAL_TAIL);
    let (n, p, d) = gauss_parts(a);
    let quarter = a * L::splat(0.25);
    let u = one / (quarter + one);
    let lost = (-quarter).fused(u, one - u);
    let t = (u + u).mul_add(lost, u.mul_add(L::splat(2.0), -one));
    let y = poly(
        t,
        [
            0.188_821_286,
            0.151_974_171,
            0.096_784_129_7,
            0.046_630_311_8,
            0.015_101_751_3,
            0.001_883_917_49,
            -0.000_881_355_023,
            -0.000_395_597_104,
            4.979_711_96e-5,
            3.159_647_89e-5,
        ],
    );
    (grown(y * u, p, lost + d), n)
}

/// `φ(x) = e^(−x²/2)/√(2π)`, ≤ 2 ulp. Beside [`NormalCdf::general`] the compiler computes the exponential of both once.
#[inline(always)]
pub fn normal_density<L: F>(x: L) -> L {
    let (n, p, d) = gauss_parts(x.abs().clamp(0.0, NORMAL_TAIL));
    grown(L::splat(0.398_942_280_401_432_7), p, d).scale(n)
}

/// `x·Φ(x)`, ≤ 5 ulp.
#[inline(always)]
pub fn gelu<L: F>(x: L) -> L {
    x.by_table::<Gelu>()
}

struct Gelu;

impl Tabled for Gelu {
    const WHOLE: &'static Whole = NormalCdf::WHOLE;
    const FOLDED: &'static Folded = NormalCdf::FOLDED;

    #[inline(always)]
    fn of_whole<L: F>(x: L, y: L) -> L {
        x * y
    }

    /// max(x, 0) − |x|·Φ(−|x|)
    #[inline(always)]
    fn of_folded<L: F>(x: L, y: L) -> L {
        (-x.abs()).mul_add(y, x.clamp(0.0, f64::INFINITY))
    }

    #[inline(always)]
    fn general<L: F>(x: L) -> L {
        let (y, n) = normal_tail(x);
        let right = x * (L::splat(1.0) - y.scale(n));
        L::select(x.lt(L::splat(0.0)), times_scaled(x, -NORMAL_TAIL, y, n), right)
    }
}

/// `Φ(x) + x·φ(x)`, within 4 units roundoff of the larger of it and 1.
#[inline(always)]
pub fn gelu_slope<L: F>(x: L) -> L {
    x.by_table::<GeluSlope>()
}

struct GeluSlope;

impl Tabled for GeluSlope {
    const WHOLE: &'static Whole = &table::GELU_SLOPE.whole;
    const FOLDED: &'static Folded = &table::GELU_SLOPE.folded;

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
        number::gelu_slope(x, NormalCdf::general(x), normal_density(x))
    }
}

/// `½(1 + tanh(√(2/π)(x + 0.044715x³))) = sigmoid(u)`, ≤ 4 ulp. u is kept as two floats: rounded, its error would be
/// magnified by u itself in the left tail.
#[inline(always)]
pub fn tanh_cdf<L: F>(x: L) -> L {
    x.by_table::<TanhCdf>()
}

struct TanhCdf;

impl Tabled for TanhCdf {
    const WHOLE: &'static Whole = &table::TANH_CDF.whole;
    const FOLDED: &'static Folded = &table::TANH_CDF.folded;

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
        let (y, n) = tanh_cdf_parts(x);
        // NaN stays.
        L::select(x.eq(x), y.scale(n), x)
    }
}

/// `x·½(1 + tanh(…))`, ≤ 5 ulp.
#[inline(always)]
pub fn gelu_tanh<L: F>(x: L) -> L {
    x.by_table::<GeluTanh>()
}

struct GeluTanh;

impl Tabled for GeluTanh {
    const WHOLE: &'static Whole = TanhCdf::WHOLE;
    const FOLDED: &'static Folded = TanhCdf::FOLDED;

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
        let (y, n) = tanh_cdf_parts(x);
        times_scaled(x, -TANH_TAIL, y, n)
    }
}

/// Beyond this the argument is beyond the range of sigmoid.
const TANH_TAIL: f64 = 12.0;

/// (y, n) with `½(1 + tanh(…))` = y·2ⁿ.
#[inline(always)]
fn tanh_cdf_parts<L: F>(x: L) -> (L, L) {
    const C1: f64 = 1.595_769_121_605_730_8;
    const C3: f64 = C1 * 0.044715;
    const C1_LOW: f64 = C1 - C1 as f32 as f64;
    const C3_LOW: f64 = C3 - C3 as f32 as f64;
    let a = x.clamp(-TANH_TAIL, TANH_TAIL);
    let (c1, c3) = (L::splat(C1), L::splat(C3));
    let t = a * a;
    let t_low = a.fused(a, -t);
    let m = c3 * t;
    let m_low = c3.fused(t, -m);
    // Knuth's sum of two numbers of any order.
    let p = c1 + m;
    let part = p - c1;
    let p_low = (c1 - (p - part)) + (m - part);
    let low = p_low + m_low + (t * L::splat(C3_LOW) + c3 * t_low + L::splat(C1_LOW));
    let u = a * p;
    let u_low = a.fused(p, -u) + a * low;
    let (y, n) = sigmoid_parts(u);
    ((y * (L::splat(1.0) - y.scale(n))).mul_add(u_low, y), n)
}

/// `exp(a²)·erfc(a)` for a in 0..=10.5: (1 + 2a) times it as a polynomial in (a − 2)/(a + 2), after M. Shepherd and
/// J. Laframboise (Math. Comp. 36, 1981), coefficients by N. Juffa.
#[inline(always)]
fn erfcx<L: F>(a: L) -> L {
    let (one, two) = (L::splat(1.0), L::splat(2.0));
    let r = one / (a + two);
    let q = (a - two) * r;
    // One Newton step makes the quotient accurate to the last bit.
    let e = q.fused(-a, (q + one).fused(L::splat(-2.0), a));
    let q = r.mul_add(e, q);
    let mut p = L::splat(-4.011_392_59e-4);
    for c in [
        -1.230_752_10e-3,
        1.313_553_42e-3,
        8.632_274_34e-3,
        -8.059_919_81e-3,
        -5.420_466_14e-2,
        1.640_553_92e-1,
        -1.660_313_61e-1,
        -9.276_398_27e-2,
        2.769_784_03e-1,
    ] {
        p = p.mul_add(q, L::splat(c));
    }
    let r = one / two.mul_add(a, one);
    let q = p.mul_add(r, r);
    let e = q.fused(-a, L::splat(0.5)).fused(two, p - q);
    e.mul_add(r, q)
}

/// `eˣ·f`, with the multiplication before the result becomes subnormal.
#[inline(always)]
fn exp_times<L: F>(x: L, f: L) -> L {
    let (n, p) = exp_parts(x.clamp(-150.0, 0.0));
    ((p + L::splat(1.0)) * f).scale(n)
}
