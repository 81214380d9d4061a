//! The normal distribution by table: on each of 32 intervals of length ¼ a polynomial, for vectors that look up 32 numbers at once. Elsewhere
//! [`super::math`] computes it.

/// Terms of a polynomial.
pub const TERMS: usize = 8;
/// Half the length of an interval.
const HALF: f64 = 0.125;
/// Terms of the series it is made of.
const SERIES: usize = 18;

/// Coefficients of δᵏ, δ = x − n/4, in place n mod 32 for n in −16..16.
#[repr(align(64))]
pub struct Table(pub [[f32; 32]; TERMS]);

/// Φ(x) with a relative error of 2⁻²⁸ before roundings.
pub static CDF: Table = table(true);

/// φ(x), as [`CDF`].
pub static DENSITY: Table = table(false);

/// The Taylor series at the middle of each interval, cut by Chebyshev polynomials, which spreads the error over the interval.
const fn table(cumulative: bool) -> Table {
    let mut out = [[0.0; 32]; TERMS];
    let mut place = 0;
    while place < 32 {
        let n = if place < 16 { place as i32 } else { place as i32 - 32 };
        let mut c = shortened(&series(n as f64 * 0.25, cumulative));
        let mut k = 0;
        while k < TERMS {
            out[k][place] = c[k] as f32;
            // What rounding changed at both ends, where φ may be half as large as in the middle, is taken back by a later term.
            if k + 2 < TERMS {
                c[k + 2] -= (out[k][place] as f64 - c[k]) / (HALF * HALF);
            }
            k += 1;
        }
        place += 1;
    }
    Table(out)
}

/// Coefficients of ((x − c)/HALF)ᵏ.
const fn series(c: f64, cumulative: bool) -> [f64; SERIES] {
    let mut density = [0.0; SERIES];
    density[0] = phi(c);
    density[1] = -c * density[0];
    let mut k = 1;
    while k + 1 < SERIES {
        // φ′ = −xφ.
        density[k + 1] = -(c * density[k] + density[k - 1]) / (k + 1) as f64;
        k += 1;
    }
    let mut out = [0.0; SERIES];
    let (mut k, mut power) = (0, 1.0);
    while k < SERIES {
        let term = match (cumulative, k) {
            (false, _) => density[k],
            (true, 0) => cdf(c),
            (true, _) => density[k - 1] / k as f64,
        };
        out[k] = term * power;
        power *= HALF;
        k += 1;
    }
    out
}

/// Coefficients of (x − c)ᵏ of the first terms, after the others were taken away together with as much of the Chebyshev polynomials whose
/// leading terms they are.
const fn shortened(series: &[f64; SERIES]) -> [f64; TERMS] {
    let mut left = *series;
    let mut k = SERIES - 1;
    while k >= TERMS {
        let t = chebyshev(k);
        let (factor, mut i) = (left[k] / t[k], 0);
        while i <= k {
            left[i] -= factor * t[i];
            i += 1;
        }
        k -= 1;
    }
    let mut out = [0.0; TERMS];
    let (mut k, mut power) = (0, 1.0);
    while k < TERMS {
        out[k] = left[k] / power;
        power *= HALF;
        k += 1;
    }
    out
}

/// Coefficients of the Chebyshev polynomial Tₙ.
const fn chebyshev(n: usize) -> [f64; SERIES] {
    let (mut last, mut this) = ([0.0; SERIES], [0.0; SERIES]);
    last[0] = 1.0;
    this[1] = 1.0;
    let mut k = 1;
    while k < n {
        let mut next = [0.0; SERIES];
        let mut i = 0;
        while i < SERIES {
            next[i] = (if i > 0 { 2.0 * this[i - 1] } else { 0.0 }) - last[i];
            i += 1;
        }
        (last, this) = (this, next);
        k += 1;
    }
    this
}

/// φ(x): the exponential's series far inside its range, squared ten times.
const fn phi(x: f64) -> f64 {
    let y = -0.5 * x * x / 1024.0;
    let (mut e, mut k) = (1.0, 12);
    while k > 0 {
        e = 1.0 + e * y / k as f64;
        k -= 1;
    }
    while k < 10 {
        e *= e;
        k += 1;
    }
    e * 0.398_942_280_401_432_7
}

/// Φ(x) = ½ + φ(x)·(x + x³/3 + x⁵/(3·5) + …).
const fn cdf(x: f64) -> f64 {
    let (mut term, mut sum, mut k) = (x, x, 3.0);
    while k < 200.0 {
        term *= x * x / k;
        sum += term;
        k += 2.0;
    }
    0.5 + phi(x) * sum
}
