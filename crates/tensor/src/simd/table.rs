//! Smooth functions by table: on each of 32 intervals around 0 a polynomial, for vectors that look up 32 numbers at once. Elsewhere
//! [`super::math`] computes them.

/// Terms of a polynomial.
pub const TERMS: usize = 8;
/// Terms of the series it is made of.
const SERIES: usize = 18;

/// Coefficients of a power series.
type Series = [f64; SERIES];

/// A function on intervals of one width.
#[repr(align(64))]
pub struct Table {
    /// Coefficients of δᵏ, δ = x − n·width, in place n mod 32 for n in −16..16.
    pub terms: [[f32; 32]; TERMS],
    /// Width of an interval, a power of two.
    pub width: f64,
}

/// A function with a table. A trait and not a closure: what is called through `Fn` need not be inlined, and outside the code of its
/// instruction set every instruction of it would be a call.
pub trait Tabled {
    /// The table.
    const TABLE: &'static Table;
    /// The function of any number; mark it `#[inline(always)]`.
    fn general<L: super::lanes::F32Lanes>(x: L) -> L;
}

#[derive(Clone, Copy)]
enum Function {
    NormalCdf,
    NormalDensity,
    Sigmoid,
}

/// Φ(x) with a relative error of 2⁻²⁸ before roundings.
pub static NORMAL_CDF: Table = table(Function::NormalCdf, 0.25);
/// φ(x), as [`NORMAL_CDF`].
pub static NORMAL_DENSITY: Table = table(Function::NormalDensity, 0.25);
/// 1/(1 + e⁻ˣ), as [`NORMAL_CDF`].
pub static SIGMOID: Table = table(Function::Sigmoid, 0.5);

/// The Taylor series at the middle of each interval, cut by Chebyshev polynomials, which spreads the error over the interval.
const fn table(function: Function, width: f64) -> Table {
    let half = width / 2.0;
    let mut terms = [[0.0; 32]; TERMS];
    let mut place = 0;
    while place < 32 {
        let n = if place < 16 { place as i32 } else { place as i32 - 32 };
        let mut c = shortened(&series(function, n as f64 * width), half);
        let mut k = 0;
        while k < TERMS {
            terms[k][place] = c[k] as f32;
            // What rounding changed at both ends, where the function may be half as large as in the middle, is taken back by a later term.
            if k + 2 < TERMS {
                c[k + 2] -= (terms[k][place] as f64 - c[k]) / (half * half);
            }
            k += 1;
        }
        place += 1;
    }
    Table { terms, width }
}

/// Coefficients of (x − c)ᵏ, from the function's value at c and its differential equation.
const fn series(function: Function, c: f64) -> Series {
    let mut y = [0.0; SERIES];
    let mut k = 0;
    match function {
        // Φ′ = φ.
        Function::NormalCdf => {
            let density = series(Function::NormalDensity, c);
            y[0] = normal_cdf(c);
            while k + 1 < SERIES {
                y[k + 1] = density[k] / (k + 1) as f64;
                k += 1;
            }
        }
        // φ′ = −xφ.
        Function::NormalDensity => {
            y[0] = normal_density(c);
            while k + 1 < SERIES {
                y[k + 1] = -(c * y[k] + if k > 0 { y[k - 1] } else { 0.0 }) / (k + 1) as f64;
                k += 1;
            }
        }
        // σ′ = σ − σ².
        Function::Sigmoid => {
            y[0] = 1.0 / (1.0 + exp(-c));
            while k + 1 < SERIES {
                let (mut square, mut i) = (0.0, 0);
                while i <= k {
                    square += y[i] * y[k - i];
                    i += 1;
                }
                y[k + 1] = (y[k] - square) / (k + 1) as f64;
                k += 1;
            }
        }
    }
    y
}

/// The first terms, after the others were taken away together with as much of the Chebyshev polynomials of x/`half` whose leading terms
/// they are.
const fn shortened(series: &Series, half: f64) -> [f64; TERMS] {
    let (mut left, mut k, mut power) = (*series, 0, 1.0);
    while k < SERIES {
        left[k] *= power;
        power *= half;
        k += 1;
    }
    k = SERIES - 1;
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
    (k, power) = (0, 1.0);
    while k < TERMS {
        out[k] = left[k] / power;
        power *= half;
        k += 1;
    }
    out
}

/// Coefficients of the Chebyshev polynomial Tₙ, n > 0.
const fn chebyshev(n: usize) -> Series {
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

/// eˣ for |x| up to 10: the series far inside its range, squared ten times.
const fn exp(x: f64) -> f64 {
    let y = x / 1024.0;
    let (mut e, mut k) = (1.0, 12);
    while k > 0 {
        e = 1.0 + e * y / k as f64;
        k -= 1;
    }
    while k < 10 {
        e *= e;
        k += 1;
    }
    e
}

const fn normal_density(x: f64) -> f64 {
    exp(-0.5 * x * x) * 0.398_942_280_401_432_7
}

/// Φ(x) = ½ + φ(x)·(x + x³/3 + x⁵/(3·5) + …).
const fn normal_cdf(x: f64) -> f64 {
    let (mut term, mut sum, mut k) = (x, x, 3.0);
    while k < 200.0 {
        term *= x * x / k;
        sum += term;
        k += 2.0;
    }
    0.5 + normal_density(x) * sum
}
