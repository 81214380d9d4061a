//! Arithmetic bit for bit: formats, rounding, and operations that the host has not.

pub(crate) mod convert;
pub(crate) mod dot;
mod soft;

pub(crate) use soft::{add, div, fma, mul, sqrt};

use crate::types::Type;

/// A binary floating-point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// Bits of the exponent.
    pub exp: u32,
    /// Bits of the fraction.
    pub man: u32,
    /// The NaN that operations give.
    pub nan: u64,
    /// Whether the format has infinities; `e4m3` has none.
    pub infinite: bool,
}

pub(crate) const F16: Format = Format { exp: 5, man: 10, nan: 0x7fff, infinite: true };
pub(crate) const BF16: Format = Format { exp: 8, man: 7, nan: 0x7fff, infinite: true };
/// Its bits are the upper 19 of a word, here shifted down by 13.
pub(crate) const TF32: Format = Format { exp: 8, man: 10, nan: 0x3ffff, infinite: true };
pub(crate) const F32: Format = Format { exp: 8, man: 23, nan: 0x7fff_ffff, infinite: true };
pub(crate) const F64: Format = Format { exp: 11, man: 52, nan: 0xfff8_0000_0000_0000, infinite: true };
pub(crate) const E4M3: Format = Format { exp: 4, man: 3, nan: 0x7f, infinite: false };
pub(crate) const E5M2: Format = Format { exp: 5, man: 2, nan: 0x7f, infinite: true };

impl Format {
    /// The format of a type; of an element for packed types.
    pub fn of(ty: Type) -> Option<Format> {
        Some(match ty {
            Type::F16 | Type::F16x2 => F16,
            Type::BF16 | Type::BF16x2 => BF16,
            Type::TF32 => TF32,
            Type::F32 => F32,
            Type::F64 => F64,
            Type::E4M3 | Type::E4M3x2 => E4M3,
            Type::E5M2 | Type::E5M2x2 => E5M2,
            _ => return None,
        })
    }

    /// Bits of a value.
    pub fn bits(self) -> u32 {
        1 + self.exp + self.man
    }

    fn bias(self) -> i32 {
        (1 << (self.exp - 1)) - 1
    }

    /// The exponent of the last place of subnormal numbers.
    pub fn least(self) -> i32 {
        1 - self.bias() - self.man as i32
    }

    /// The sign bit.
    pub fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// Positive infinity, or what stands for it.
    pub fn infinity(self) -> u64 {
        if self.infinite { ((1 << self.exp) - 1) << self.man } else { self.largest() }
    }

    /// The largest finite number.
    pub fn largest(self) -> u64 {
        if self.infinite { self.infinity() - 1 } else { self.nan - 1 }
    }

    /// Whether the bits are a NaN.
    pub fn is_nan(self, bits: u64) -> bool {
        let magnitude = bits & (self.sign() - 1);
        if self.infinite { magnitude > self.infinity() } else { magnitude == self.nan }
    }

    /// Subnormal numbers become zeros of their sign.
    pub fn flush(self, bits: u64) -> u64 {
        let magnitude = bits & (self.sign() - 1);
        if magnitude >> self.man == 0 { bits & self.sign() } else { bits }
    }
}

/// How a result that is not a number of the format is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// To nearest, ties to even.
    Rn,
    /// To nearest, ties away from zero.
    Rna,
    /// Toward zero.
    Rz,
    /// Down.
    Rm,
    /// Up.
    Rp,
}

impl Mode {
    /// The mode of a modifier: `rn`, `rna`, `rz`, `rm`, `rp`.
    pub fn from_name(name: &str) -> Option<Mode> {
        Some(match name {
            "rn" => Mode::Rn,
            "rna" => Mode::Rna,
            "rz" => Mode::Rz,
            "rm" => Mode::Rm,
            "rp" => Mode::Rp,
            _ => return None,
        })
    }

    /// Whether a magnitude is raised by one unit, given its last bit, the first dropped bit, and whether more follow.
    pub fn raises(self, negative: bool, odd: bool, half: bool, rest: bool) -> bool {
        match self {
            Mode::Rn => half && (rest || odd),
            Mode::Rna => half,
            Mode::Rz => false,
            Mode::Rm => negative && (half || rest),
            Mode::Rp => !negative && (half || rest),
        }
    }
}

/// A number taken apart: its value is `man × 2^exp`, negated if `negative`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub negative: bool,
    pub man: u128,
    pub exp: i32,
}

/// A value of a format.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Nan,
    /// An infinity; whether it is negative.
    Infinite(bool),
    /// A finite number, zeros included.
    Finite(Parts),
}

/// Takes bits apart.
pub(crate) fn unpack(bits: u64, f: Format) -> Value {
    let negative = bits & f.sign() != 0;
    let magnitude = bits & (f.sign() - 1);
    if f.is_nan(bits) {
        return Value::Nan;
    }
    if f.infinite && magnitude == f.infinity() {
        return Value::Infinite(negative);
    }
    let (exp, man) = (magnitude >> f.man, magnitude & ((1 << f.man) - 1));
    let man = if exp == 0 { man } else { man | 1 << f.man };
    Value::Finite(Parts { negative, man: man as u128, exp: f.least() + exp.max(1) as i32 - 1 })
}

/// The number of the format for `parts`, rounded once; `sticky` says that the exact value is a little larger in
/// magnitude than `parts`.
pub(crate) fn pack(parts: Parts, sticky: bool, f: Format, mode: Mode) -> u64 {
    let sign = if parts.negative { f.sign() } else { 0 };
    if parts.man == 0 && !sticky {
        return sign;
    }
    let length = 128 - parts.man.leading_zeros() as i32;
    // The last place of the result: of its own binade, but never below that of subnormal numbers.
    let last = (parts.exp + length - 1 - f.man as i32).max(f.least());
    let drop = last - parts.exp;
    let (kept, half, rest) = if drop <= 0 {
        (parts.man << -drop, false, sticky)
    } else if drop > 128 {
        (0, false, true)
    } else {
        let kept = if drop == 128 { 0 } else { parts.man >> drop };
        let below = if drop == 128 { parts.man } else { parts.man & ((1 << drop) - 1) };
        let half = below >> (drop - 1) & 1 == 1;
        (kept, half, sticky || below & ((1u128 << (drop - 1)) - 1) != 0)
    };
    let man = kept as u64 + mode.raises(parts.negative, kept & 1 == 1, half, rest) as u64;
    // An exponent field one too small, since the leading bit of `man` adds one; subnormal numbers have none to add.
    let magnitude = (((last - f.least()) as u64) << f.man) + man;
    if magnitude > f.largest() {
        let toward_zero = match mode {
            Mode::Rn | Mode::Rna => false,
            Mode::Rz => true,
            Mode::Rm => !parts.negative,
            Mode::Rp => parts.negative,
        };
        return sign | if toward_zero { f.largest() } else { f.infinity() };
    }
    sign | magnitude
}
