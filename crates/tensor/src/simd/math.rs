//! The f32 functions, branch-free and over the whole range: signed zeros, infinities, NaN, subnormal results.
//!
//! Bounds are the largest errors allowed against f64, in ulp of f32; `tests.rs` checks each on every exponent.

use super::lanes::F32Lanes as F;

const LN2_HI: f64 = 0.693_138_122_558_593_75;
const LN2_LO: f64 = 9.058_000_614_5e-6;

/// (n, eʳ − 1) with x = n·ln 2 + r, |r| ≤ ½ ln 2. Cody and Waite reduction, Taylor series to r⁷ (remainder 5·10⁻⁹).
#[inline(always)]
fn exp_parts<L: F>(x: L) -> (L, L) {
    let n = (x * L::splat(std::f64::consts::LOG2_E)).round_ties_even();
    let r = n.mul_add(L::splat(-LN2_HI), x);
    let r = n.mul_add(L::splat(-LN2_LO), r);
    let mut p = L::splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        p = p.mul_add(r, L::splat(c));
    }
    (n, (r * r).mul_add(p, r))
}

/// `2ⁿ·p` for |n| ≤ 252, in two factors so that subnormal results round once and large ones overflow at the right place.
#[inline(always)]
fn scale<L: F>(p: L, n: L) -> L {
    let half = (n * L::splat(0.5)).round_ties_even();
    p * half.pow2() * (n - half).pow2()
}

/// `eˣ`, ≤ 1 ulp.
#[inline(always)]
pub fn exp<L: F>(x: L) -> L {
    let x = x.max(L::splat(-110.0)).min(L::splat(90.0));
    let (n, p) = exp_parts(x);
    scale(p + L::splat(1.0), n)
}

/// `eˣ − 1`, ≤ 2 ulp: `2(s·(eʳ − 1) + (s − ½))` with s = 2ⁿ⁻¹, whose second term is exact.
#[inline(always)]
pub fn exp_m1<L: F>(x: L) -> L {
    let clamped = x.max(L::splat(-30.0)).min(L::splat(90.0));
    let (n, p) = exp_parts(clamped);
    let s = (n - L::splat(1.0)).min(L::splat(127.0)).pow2();
    let y = L::splat(2.0) * s.mul_add(p, s - L::splat(0.5));
    let y = L::select(x.lt(L::splat(88.8)), y, x * L::splat(f32::MAX as f64));
    L::select(x.eq(L::splat(0.0)), x, L::select(x.eq(x), y, x))
}

/// Natural logarithm, ≤ 1 ulp: the series of FreeBSD's `e_logf.c` in s = f/(2 + f).
#[inline(always)]
pub fn ln<L: F>(x: L) -> L {
    let tiny = x.lt(L::splat(f32::MIN_POSITIVE as f64));
    let scaled = L::select(tiny, x * L::splat((1u64 << 25) as f64), x);
    let (m, e) = scaled.split();
    let e = e - L::select(tiny, L::splat(25.0), L::splat(0.0));
    let f = m - L::splat(1.0);
    let s = f / (L::splat(2.0) + f);
    let z = s * s;
    let r = z.mul_add(L::splat(0.242_790_788_41), L::splat(0.284_987_866_88));
    let r = r.mul_add(z, L::splat(0.400_009_721_52)).mul_add(z, L::splat(0.666_666_626_93)) * z;
    let half = L::splat(0.5) * f * f;
    let y = e.mul_add(L::splat(LN2_HI), f - (half - s.mul_add(half + r, e * L::splat(LN2_LO))));
    let y = L::select(x.eq(L::splat(0.0)), L::splat(f64::NEG_INFINITY), y);
    let y = L::select(x.lt(L::splat(f64::INFINITY)), y, x);
    L::select(x.lt(L::splat(0.0)), L::splat(f64::NAN), y)
}

/// `ln(1 + x)`, ≤ 2 ulp: the logarithm of u = fl(1 + x), corrected for the rounding of u.
#[inline(always)]
pub fn ln_1p<L: F>(x: L) -> L {
    let one = L::splat(1.0);
    let u = one + x;
    // 1 + x = u + c exactly; which of the two operands is larger decides how c is found.
    let c = L::select(x.lt(one), x - (u - one), one - (u - x));
    let y = ln(u) + c / u;
    let y = L::select(L::splat(-1.0).lt(x), y, ln(u));
    let y = L::select(x.eq(L::splat(f64::INFINITY)), x, y);
    L::select(x.eq(L::splat(0.0)), x, y)
}

/// Hyperbolic tangent, ≤ 2 ulp: t/(t + 2) with t = e²ˣ − 1, and the Taylor series below ¼.
#[inline(always)]
pub fn tanh<L: F>(x: L) -> L {
    let a = x.abs().min(L::splat(10.0));
    let t = exp_m1(a * L::splat(2.0));
    let far = (t / (t + L::splat(2.0))).copysign(x);
    let s = x * x;
    let mut p = L::splat(62.0 / 2835.0);
    for c in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0] {
        p = p.mul_add(s, L::splat(c));
    }
    L::select(a.lt(L::splat(0.25)), (x * s).mul_add(p, x), far)
}

/// `1/(1 + e⁻ˣ)`, ≤ 2.5 ulp, from e^−|x| so that the left tail keeps its relative accuracy.
#[inline(always)]
pub fn sigmoid<L: F>(x: L) -> L {
    let e = exp(-x.abs());
    L::select(x.lt(L::splat(0.0)), e, L::splat(1.0)) / (L::splat(1.0) + e)
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
    let far = (L::splat(1.0) - exp(far.mul_add(t, -t))).copysign(x);
    let mut near = L::splat(-5.967_617_03e-4);
    for c in [4.991_194_23e-3, -2.676_813_49e-2, 1.128_199_25e-1, -3.761_253_36e-1, 1.283_791_66e-1] {
        near = near.mul_add(s, L::splat(c));
    }
    L::select(t.lt(L::splat(0.927_734_375)), near.mul_add(x, x), L::select(x.eq(x), far, x))
}

/// `1 − erf(x)`, ≤ 4 ulp down to underflow: (1 + 2a)·exp(a²)·erfc(a) as a polynomial in (a − 2)/(a + 2), after M. Shepherd
/// and J. Laframboise (Math. Comp. 36, 1981), coefficients by N. Juffa.
#[inline(always)]
pub fn erfc<L: F>(x: L) -> L {
    let (one, two) = (L::splat(1.0), L::splat(2.0));
    let a = x.abs().min(L::splat(10.5));
    let r = one / (a + two);
    let q = (a - two) * r;
    // One Newton step makes the quotient accurate to the last bit.
    let e = q.mul_add(-a, (q + one).mul_add(L::splat(-2.0), a));
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
    let e = q.mul_add(-a, L::splat(0.5)).mul_add(two, p - q);
    let y = e.mul_add(r, q);
    // exp(−a²) with the rounding error of a² restored to first order.
    let s = a * a;
    let rest = (-a).mul_add(a, s);
    let y = exp_times(-s, rest.mul_add(y, y));
    let y = L::select(L::splat(10.1).lt(a), L::splat(0.0), y);
    let y = L::select(x.lt(L::splat(0.0)), two - y, y);
    L::select(x.eq(x), y, x)
}

/// `eˣ·f`, with the multiplication before the result becomes subnormal.
#[inline(always)]
fn exp_times<L: F>(x: L, f: L) -> L {
    let (n, p) = exp_parts(x.max(L::splat(-150.0)));
    scale((p + L::splat(1.0)) * f, n)
}
