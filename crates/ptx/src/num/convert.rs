//! Conversions between numbers of any format.

use super::{F64, Format, Mode, Parts, Value, pack, unpack};

/// A float in another format, rounded once; NaN is canonical.
pub(crate) fn float_to_float(bits: u64, from: Format, to: Format, mode: Mode) -> u64 {
    match unpack(bits, from) {
        Value::Nan => to.nan & !to.sign(),
        Value::Infinite(negative) => to.infinity() | if negative { to.sign() } else { 0 },
        Value::Finite(parts) => pack(parts, false, to, mode),
    }
}

/// As [`float_to_float`], but what would overflow becomes the largest finite number; NaN stays NaN.
pub(crate) fn float_to_float_finite(bits: u64, from: Format, to: Format, mode: Mode) -> u64 {
    let out = float_to_float(bits, from, to, mode);
    let magnitude = out & (to.sign() - 1);
    if to.infinite && magnitude == to.infinity() { to.largest() | out & to.sign() } else { out }
}

/// A float rounded to an integer of its own format.
pub(crate) fn round_to_integral(bits: u64, f: Format, mode: Mode) -> u64 {
    match unpack(bits, f) {
        Value::Nan => {
            if f == F64 {
                bits | 1 << 51
            } else {
                f.nan
            }
        }
        Value::Infinite(_) => bits,
        Value::Finite(parts) => {
            let (man, negative) = (integral(parts, mode), parts.negative);
            pack(Parts { negative, man, exp: 0 }, false, f, Mode::Rn)
        }
    }
}

/// The magnitude of a number rounded to an integer; huge numbers saturate at 2^127.
fn integral(parts: Parts, mode: Mode) -> u128 {
    if parts.man == 0 {
        return 0;
    }
    if parts.exp >= 0 {
        return if parts.exp as u32 > parts.man.leading_zeros() { 1 << 127 } else { parts.man << parts.exp };
    }
    let drop = -parts.exp;
    if drop > 127 {
        return mode.raises(parts.negative, false, false, true) as u128;
    }
    let kept = parts.man >> drop;
    let half = parts.man >> (drop - 1) & 1 == 1;
    let rest = parts.man & ((1 << (drop - 1)) - 1) != 0;
    kept + mode.raises(parts.negative, kept & 1 == 1, half, rest) as u128
}

/// A float as an integer of `bits` bits, clamped to its range.
///
/// NaN is zero, except that it is the most negative number (or its bits) where either side has 64 bits.
pub(crate) fn float_to_int(value: u64, from: Format, bits: u32, signed: bool, mode: Mode) -> u64 {
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let (low, high): (i128, i128) =
        if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) };
    let wide = match unpack(value, from) {
        Value::Nan if from == F64 || bits == 64 => return 1 << (bits - 1),
        Value::Nan => return 0,
        Value::Infinite(negative) => {
            if negative {
                low
            } else {
                high
            }
        }
        Value::Finite(parts) => {
            let magnitude = integral(parts, mode).min(1 << 126) as i128;
            if parts.negative { -magnitude } else { magnitude }
        }
    };
    wide.clamp(low, high) as u64 & mask
}

/// An integer, given as its sign and magnitude, as a float.
pub(crate) fn int_to_float(negative: bool, magnitude: u64, to: Format, mode: Mode) -> u64 {
    // Zero has no sign among integers.
    pack(Parts { negative: negative && magnitude != 0, man: magnitude as u128, exp: 0 }, false, to, mode)
}

/// f16 to f32.
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let (exp, man) = ((bits >> 10) & 31, (bits & 1023) as u32);
    let sign = ((bits & 0x8000) as u32) << 16;
    match exp {
        0 => f32::from_bits(sign | (man as f32 * f32::from_bits(0x3380_0000)).to_bits()),
        31 if man != 0 => f32::from_bits(0x7fff_ffff),
        31 => f32::from_bits(sign | 0x7f80_0000),
        _ => f32::from_bits(sign | (exp as u32 + 112) << 23 | man << 13),
    }
}

/// f32 to f16, to nearest.
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, magnitude) = ((bits >> 16) as u16 & 0x8000, bits & 0x7fff_ffff);
    if magnitude > 0x7f80_0000 {
        return 0x7fff;
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Adding 0.5 leaves the subnormal number in the last bits, rounded by the hardware.
        let shifted = f32::from_bits(magnitude) + 0.5;
        return sign | (shifted.to_bits() - 0x3f00_0000) as u16;
    }
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    sign | ((rounded - 0x3800_0000) >> 13) as u16
}

/// f32 to bf16, to nearest.
pub(crate) fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return 0x7fff;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// bf16 to f32.
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    let bits = (bits as u32) << 16;
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff_ffff } else { bits })
}
