//! Correctly rounded arithmetic in every format and mode, by integers.

use super::{F64, Format, Mode, Parts, Value, pack, unpack};

/// The result where an operand is NaN: canonical, but quieted with its payload in f64.
fn nan_of(operands: &[u64], f: Format) -> u64 {
    match operands.iter().find(|&&bits| f.is_nan(bits)) {
        Some(&bits) if f == F64 => bits | 1 << 51,
        _ => f.nan,
    }
}

/// `a × b + c`, rounded once.
pub(crate) fn fma(a: u64, b: u64, c: u64, f: Format, mode: Mode) -> u64 {
    use Value::{Finite, Infinite, Nan};
    match (unpack(a, f), unpack(b, f), unpack(c, f)) {
        (Nan, _, _) | (_, Nan, _) | (_, _, Nan) => nan_of(&[a, b, c], f),
        (Finite(x), Finite(y), Finite(z)) => sum(product(x, y), z, f, mode),
        (Finite(_), Finite(_), Infinite(_)) => c,
        (x, y, z) => {
            let zero = |v: &Value| matches!(v, Finite(p) if p.man == 0);
            if zero(&x) || zero(&y) {
                return f.nan;
            }
            let negative = (a ^ b) & f.sign() != 0;
            match z {
                Infinite(other) if other != negative => f.nan,
                _ => f.infinity() | if negative { f.sign() } else { 0 },
            }
        }
    }
}

/// `a + b`, rounded once.
pub(crate) fn add(a: u64, b: u64, f: Format, mode: Mode) -> u64 {
    let one = ((1u64 << (f.exp - 1)) - 1) << f.man;
    fma(a, one, b, f, mode)
}

/// `a × b`, rounded once.
pub(crate) fn mul(a: u64, b: u64, f: Format, mode: Mode) -> u64 {
    if let (Value::Finite(x), Value::Finite(y)) = (unpack(a, f), unpack(b, f)) {
        return pack(product(x, y), false, f, mode);
    }
    // A zero with the product's sign changes nothing.
    fma(a, b, (a ^ b) & f.sign(), f, mode)
}

fn product(x: Parts, y: Parts) -> Parts {
    Parts { negative: x.negative != y.negative, man: x.man * y.man, exp: x.exp + y.exp }
}

fn sum(x: Parts, y: Parts, f: Format, mode: Mode) -> u64 {
    if x.man == 0 && y.man == 0 {
        let negative = if x.negative == y.negative { x.negative } else { mode == Mode::Rm };
        return if negative { f.sign() } else { 0 };
    }
    if x.man == 0 || y.man == 0 {
        return pack(if x.man == 0 { y } else { x }, false, f, mode);
    }
    let top = |p: &Parts| p.exp - p.man.leading_zeros() as i32;
    let (large, small) = if top(&x) >= top(&y) { (x, y) } else { (y, x) };
    // The larger is moved to bit 125, which leaves room for a carry; what the smaller loses is kept as one bit. It
    // loses something only if the operands are so far apart that little cancels.
    let shift = large.man.leading_zeros() as i32 - 2;
    let (man, exp) = if shift >= 0 { (large.man << shift, large.exp - shift) } else { (large.man, large.exp) };
    let down = exp - small.exp;
    let (other, lost) = if down <= 0 {
        (small.man << -down, false)
    } else if down >= 128 {
        (0, true)
    } else {
        (small.man >> down, small.man & ((1 << down) - 1) != 0)
    };
    if large.negative == small.negative {
        return pack(Parts { negative: large.negative, man: man + other, exp }, lost, f, mode);
    }
    if man == other && !lost {
        return if mode == Mode::Rm { f.sign() } else { 0 };
    }
    let (negative, man) = if man >= other + lost as u128 {
        (large.negative, man - other - lost as u128)
    } else {
        (small.negative, other - man)
    };
    pack(Parts { negative, man, exp }, lost, f, mode)
}

/// `a ÷ b`, rounded once.
pub(crate) fn div(a: u64, b: u64, f: Format, mode: Mode) -> u64 {
    let negative = (a ^ b) & f.sign() != 0;
    let sign = if negative { f.sign() } else { 0 };
    match (unpack(a, f), unpack(b, f)) {
        (Value::Nan, _) | (_, Value::Nan) => nan_of(&[a, b], f),
        (Value::Infinite(_), Value::Infinite(_)) => f.nan,
        (Value::Infinite(_), _) => f.infinity() | sign,
        (_, Value::Infinite(_)) => sign,
        (Value::Finite(x), Value::Finite(y)) => {
            if y.man == 0 {
                return if x.man == 0 { f.nan } else { f.infinity() | sign };
            }
            if x.man == 0 {
                return sign;
            }
            let up = x.man.leading_zeros();
            let numerator = x.man << up;
            let (man, rest) = (numerator / y.man, numerator % y.man);
            pack(Parts { negative, man, exp: x.exp - up as i32 - y.exp }, rest != 0, f, mode)
        }
    }
}

/// `√a`, rounded once.
pub(crate) fn sqrt(a: u64, f: Format, mode: Mode) -> u64 {
    match unpack(a, f) {
        Value::Nan => nan_of(&[a], f),
        Value::Infinite(false) => a,
        Value::Infinite(true) => f.nan,
        Value::Finite(x) if x.man == 0 => a,
        Value::Finite(x) if x.negative => f.nan,
        Value::Finite(x) => {
            let mut up = x.man.leading_zeros() as i32;
            up -= (x.exp - up) & 1;
            let man = x.man << up;
            let root = man.isqrt();
            pack(Parts { negative: false, man: root, exp: (x.exp - up) / 2 }, root * root != man, f, mode)
        }
    }
}
