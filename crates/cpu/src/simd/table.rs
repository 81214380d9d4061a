//! Smooth functions by table: a polynomial on each of a few intervals around 0, whose coefficients one instruction
//! looks up for all lanes: of 32 intervals with AVX-512, of 8 with AVX2, where a symmetry of the function folds its
//! argument. Elsewhere [`super::math`] computes them.

use super::lanes::F32Lanes;

/// Terms of a series that polynomials are made of.
const SERIES: usize = 22;

/// Coefficients of a power series.
type Series = [f64; SERIES];

/// A function on `PLACES` intervals of one width, polynomials of `TERMS` terms.
#[repr(align(64))]
pub struct Table<const PLACES: usize, const TERMS: usize> {
    /// Coefficients of δᵏ, δ = x − n·width, in place n mod `PLACES`.
    pub terms: [[f32; PLACES]; TERMS],
    /// Width of an interval.
    pub width: f64,
}

/// Intervals −16..16: x from −16½ to 15½ widths.
pub type Whole = Table<32, 8>;
/// Intervals 0..8 of |x|, up to 7½ widths.
pub type Folded = Table<8, 9>;

/// A function with tables. A trait and not a closure: what is called through `Fn` need not be inlined, and outside the
/// code of its instruction set every instruction of it would be a call. Mark the functions `#[inline(always)]`.
pub trait Tabled {
    /// What [`Tabled::of_whole`] makes the function of.
    const WHOLE: &'static Whole;
    /// What [`Tabled::of_folded`] makes the function of.
    const FOLDED: &'static Folded;
    /// The function of x from `y`, the whole table's value for x.
    fn of_whole<L: F32Lanes>(x: L, y: L) -> L;
    /// The function of x from `y`, the folded table's value for |x|.
    fn of_folded<L: F32Lanes>(x: L, y: L) -> L;
    /// The function of any number.
    fn general<L: F32Lanes>(x: L) -> L;
}

#[derive(Clone, Copy)]
enum Function {
    NormalCdf,
    NormalDensity,
    GeluSlope,
    TanhCdf,
    Sigmoid,
}

/// Tables of one function.
pub struct Tables {
    /// The function of x.
    pub whole: Whole,
    /// The function of −|x|.
    pub folded: Folded,
}

/// Φ(x).
pub static NORMAL_CDF: Tables = tables(Function::NormalCdf, 0.25, 0.5);
/// Φ(x) + x·φ(x).
pub static GELU_SLOPE: Tables = tables(Function::GeluSlope, 0.25, 0.5);
/// As [`super::Lanes::tanh_cdf`].
pub static TANH_CDF: Tables = tables(Function::TanhCdf, 0.25, 0.5);
/// 1/(1 + e⁻ˣ).
pub static SIGMOID: Tables = tables(Function::Sigmoid, 0.5, 1.0);

const fn tables(function: Function, width: f64, folded: f64) -> Tables {
    Tables { whole: table(function, width, false), folded: table(function, folded, true) }
}

/// The Taylor series at the middle of each interval, cut by Chebyshev polynomials, which spreads the error over the
/// interval. Half of the intervals lie left of 0, or all, mirrored.
const fn table<const PLACES: usize, const TERMS: usize>(
    function: Function,
    width: f64,
    mirrored: bool,
) -> Table<PLACES, TERMS> {
    let half = width / 2.0;
    let mut terms = [[0.0; PLACES]; TERMS];
    let mut place = 0;
    while place < PLACES {
        let n = if mirrored {
            -(place as i32)
        } else if place < PLACES / 2 {
            place as i32
        } else {
            place as i32 - PLACES as i32
        };
        let mut c: [f64; TERMS] = shortened(&series(function, n as f64 * width), half);
        let mut k = 0;
        while k < TERMS {
            terms[k][place] = c[k] as f32;
            // What rounding changed at both ends, where the function may be half as large as in the middle, is taken
            // back by a later term.
            if k + 2 < TERMS {
                c[k + 2] -= (terms[k][place] as f64 - c[k]) / (half * half);
            }
            if mirrored && k % 2 == 1 {
                terms[k][place] = -terms[k][place];
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
        Function::GeluSlope => {
            let (cdf, density) = (series(Function::NormalCdf, c), series(Function::NormalDensity, c));
            while k < SERIES {
                y[k] = cdf[k] + c * density[k] + if k > 0 { density[k - 1] } else { 0.0 };
                k += 1;
            }
        }
        Function::Sigmoid => y = sigmoid_of(c, [1.0, 0.0, 0.0]),
        Function::TanhCdf => {
            const C1: f64 = 1.595_769_121_605_730_8;
            const C3: f64 = C1 * 0.044715;
            y = sigmoid_of(c * (C1 + C3 * c * c), [C1 + 3.0 * C3 * c * c, 6.0 * C3 * c, 3.0 * C3]);
        }
    }
    y
}

/// σ(u) for a polynomial u with value `u` and derivative Σ slope[k]·δᵏ: its derivative is (σ − σ²)·u′.
const fn sigmoid_of(u: f64, slope: [f64; 3]) -> Series {
    let (mut y, mut variance) = ([0.0; SERIES], [0.0; SERIES]);
    y[0] = 1.0 / (1.0 + exp(-u));
    let mut k = 0;
    while k + 1 < SERIES {
        let (mut square, mut i) = (0.0, 0);
        while i <= k {
            square += y[i] * y[k - i];
            i += 1;
        }
        variance[k] = y[k] - square;
        (y[k + 1], i) = (0.0, 0);
        while i < 3 && i <= k {
            y[k + 1] += slope[i] * variance[k - i] / (k + 1) as f64;
            i += 1;
        }
        k += 1;
    }
    y
}

/// The first terms, after the others were taken away together with as much of the Chebyshev polynomials of x/`half`
/// whose leading terms they are.
const fn shortened<const TERMS: usize>(series: &Series, half: f64) -> [f64; TERMS] {
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

/// eˣ for |x| up to 12: the series far inside its range, squared ten times.
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
