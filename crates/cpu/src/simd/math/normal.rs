//! The error function, the normal distribution, and the activations that have it or its approximation by tanh in them.

use binade_tensor::number;

use super::super::lanes::F32Lanes as F;
use super::super::table::{self, Folded, Tabled, Whole};
use super::{complement, exp_normal, exp_parts, poly, sigmoid_parts, times_scaled};

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
