//! The sum of products that a tensor core computes.
//!
//! Products are exact; with the accumulator they are aligned to the largest exponent among them and cut there to a
//! number of fractional bits, added exactly, and rounded once: toward zero to f32, to nearest to f16. The numbers of
//! bits and of products in a sum are those of MMA-Sim (arXiv 2511.10909), which found them to reproduce the hardware.

use super::{F16, F32, Format, Mode, Parts, pack};

/// An operand taken apart: significand with its sign, exponent of the leading place, never below that of the format's
/// smallest normal number. Infinity and NaN have the significands at the end of the range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Term {
    significand: i32,
    exponent: i32,
}

const INFINITE: i32 = i32::MAX;
const NAN: i32 = i32::MIN;

/// The exponent of a zero.
const ZERO: i32 = -126;

/// Takes a value apart.
pub(crate) fn term(bits: u64, f: Format) -> Term {
    let magnitude = bits & (f.sign() - 1);
    let negative = bits & f.sign() != 0;
    if f.is_nan(bits) {
        return Term { significand: NAN, exponent: 0 };
    }
    if f.infinite && magnitude == f.infinity() {
        return Term { significand: if negative { -INFINITE } else { INFINITE }, exponent: 0 };
    }
    let exponent = (magnitude >> f.man) as i32;
    let man = (magnitude & ((1 << f.man) - 1)) as i32;
    let man = if exponent == 0 { man } else { man | 1 << f.man };
    let bias = (1 << (f.exp - 1)) - 1;
    let exponent = if man == 0 { ZERO } else { exponent.max(1) - bias };
    Term { significand: if negative { -man } else { man }, exponent }
}

/// How a generation adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Fractional bits kept below the largest exponent.
    pub fraction: i32,
    /// Bytes of an operand's row that enter one sum.
    pub bytes: usize,
}

/// The unit of a compute capability.
pub(crate) fn unit(capability: u32) -> Unit {
    match capability {
        ..75 => Unit { fraction: 23, bytes: 8 },
        75..90 => Unit { fraction: 24, bytes: 16 },
        _ => Unit { fraction: 25, bytes: 32 },
    }
}

/// `c + Σ a·b` in one sum; `f` is the format of `a` and `b`. The result is f32, or f16 if `half`.
pub(crate) fn dot(a: &[Term], b: &[Term], c: u64, f: Format, fraction: i32, half: bool) -> u64 {
    let out = if half { F16 } else { F32 };
    let c = term(c, out);
    let (mut largest, mut special) = (c.exponent, c.significand == NAN || c.significand.abs() == INFINITE);
    for (x, y) in a.iter().zip(b) {
        let zero = x.significand == 0 || y.significand == 0;
        largest = largest.max(if zero { ZERO } else { x.exponent + y.exponent });
        special |= x.significand == NAN || y.significand == NAN;
        special |= x.significand.abs() == INFINITE || y.significand.abs() == INFINITE;
    }
    if special {
        return of_special(a, b, c, out);
    }
    let cut = |significand: i64, last: i32| {
        let shift = last - (largest - fraction);
        let magnitude = significand.unsigned_abs();
        let cut = match shift {
            0.. => magnitude << shift.min(40),
            -63..0 => magnitude >> -shift,
            _ => 0,
        };
        if significand < 0 { -(cut as i64) } else { cut as i64 }
    };
    let mut sum = cut(c.significand as i64, c.exponent - out.man as i32);
    let man = f.man as i32;
    for (x, y) in a.iter().zip(b) {
        if x.significand != 0 && y.significand != 0 {
            sum += cut(x.significand as i64 * y.significand as i64, x.exponent + y.exponent - 2 * man);
        }
    }
    let parts = Parts { negative: sum < 0, man: sum.unsigned_abs() as u128, exp: largest - fraction };
    if sum == 0 {
        return 0;
    }
    if half {
        return pack(parts, false, F16, Mode::Rn);
    }
    let bits = pack(parts, false, F32, Mode::Rz);
    // What is beyond the largest number is infinite, although rounding is toward zero.
    let top = parts.exp + 127 - parts.man.leading_zeros() as i32;
    if top > 127 { F32.infinity() | bits & F32.sign() } else { bits }
}

#[cold]
fn of_special(a: &[Term], b: &[Term], c: Term, out: Format) -> u64 {
    let (mut plus, mut minus) = (c.significand == INFINITE, c.significand == -INFINITE);
    if c.significand == NAN {
        return out.nan;
    }
    for (x, y) in a.iter().zip(b) {
        if x.significand == NAN || y.significand == NAN {
            return out.nan;
        }
        if x.significand.abs() == INFINITE || y.significand.abs() == INFINITE {
            match x.significand.signum() * y.significand.signum() {
                0 => return out.nan,
                1 => plus = true,
                _ => minus = true,
            }
        }
    }
    match (plus, minus) {
        (true, true) => out.nan,
        (true, false) => out.infinity(),
        _ => out.infinity() | out.sign(),
    }
}
