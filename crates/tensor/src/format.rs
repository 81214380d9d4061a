//! [`Format`]: the facts of a binary float format and its rounding, in exact software arithmetic: the oracle for casts.

/// What the all-ones exponent of a format means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// Infinities and NaN as in IEEE 754.
    Ieee,
    /// No infinity; only the all-ones code is NaN (OCP E4M3). Overflow gives NaN.
    NanOnly,
    /// Neither (OCP E2M1). Overflow saturates.
    None,
}

/// A binary float format of at most 64 bits with one sign bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Name.
    pub name: &'static str,
    /// Bits of the exponent field.
    pub exponent_bits: u32,
    /// Bits of the mantissa field.
    pub mantissa_bits: u32,
    /// What the largest exponent means.
    pub specials: Specials,
}

impl Format {
    /// IEEE binary64.
    pub const F64: Format = Format { name: "f64", exponent_bits: 11, mantissa_bits: 52, specials: Specials::Ieee };
    /// IEEE binary32.
    pub const F32: Format = Format { name: "f32", exponent_bits: 8, mantissa_bits: 23, specials: Specials::Ieee };
    /// IEEE binary16.
    pub const F16: Format = Format { name: "f16", exponent_bits: 5, mantissa_bits: 10, specials: Specials::Ieee };
    /// bfloat16.
    pub const BF16: Format = Format { name: "bf16", exponent_bits: 8, mantissa_bits: 7, specials: Specials::Ieee };
    /// OCP FP8 with four exponent bits (arXiv:2209.05433).
    pub const E4M3: Format = Format { name: "e4m3", exponent_bits: 4, mantissa_bits: 3, specials: Specials::NanOnly };
    /// OCP FP8 with five exponent bits.
    pub const E5M2: Format = Format { name: "e5m2", exponent_bits: 5, mantissa_bits: 2, specials: Specials::Ieee };
    /// OCP FP4 (MX).
    pub const E2M1: Format = Format { name: "e2m1", exponent_bits: 2, mantissa_bits: 1, specials: Specials::None };

    /// Every format, widest first.
    pub const ALL: [Format; 7] =
        [Format::F64, Format::F32, Format::F16, Format::BF16, Format::E5M2, Format::E4M3, Format::E2M1];

    /// Bits of one number.
    pub const fn bits(&self) -> u32 {
        1 + self.exponent_bits + self.mantissa_bits
    }

    /// Exponent bias.
    pub const fn bias(&self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    /// Exponent of the smallest normal number.
    const fn min_exponent(&self) -> i32 {
        1 - self.bias()
    }

    /// Exponent of the largest finite number.
    const fn max_exponent(&self) -> i32 {
        let field = (1 << self.exponent_bits) - 1;
        field - self.bias() - matches!(self.specials, Specials::Ieee) as i32
    }

    /// Largest finite number.
    pub fn max_finite(&self) -> f64 {
        let ulps = (1u64 << (self.mantissa_bits + 1)) - 1 - matches!(self.specials, Specials::NanOnly) as u64;
        ulps as f64 * power(self.max_exponent() - self.mantissa_bits as i32)
    }

    /// Smallest positive normal number.
    pub fn min_normal(&self) -> f64 {
        power(self.min_exponent())
    }

    /// Smallest positive number.
    pub fn min_subnormal(&self) -> f64 {
        power(self.min_exponent() - self.mantissa_bits as i32)
    }

    /// Distance from 1 to the next number.
    pub fn epsilon(&self) -> f64 {
        power(-(self.mantissa_bits as i32))
    }

    /// The middle between the largest number and the one that would follow: from here on (of formats whose largest
    /// number is even, as E4M3: beyond here) a magnitude no longer rounds to a finite number. Infinity for f64.
    pub fn overflow_threshold(&self) -> f64 {
        self.max_finite() + 0.5 * power(self.max_exponent() - self.mantissa_bits as i32)
    }

    /// Distance between neighbours at `x`: the unit in the last place.
    pub fn ulp(&self, x: f64) -> f64 {
        let e = if x == 0.0 || !x.is_finite() { self.min_exponent() } else { libm::ilogb(x) };
        power(e.clamp(self.min_exponent(), self.max_exponent()) - self.mantissa_bits as i32)
    }

    /// The nearest number of the format, ties to even. Overflow gives an infinity, NaN or the largest number, as
    /// [`Specials`] says.
    pub fn round(&self, x: f64) -> f64 {
        self.decode(self.encode(x))
    }

    /// The code of the nearest number, ties to even.
    pub fn encode(&self, x: f64) -> u64 {
        let sign = (x.is_sign_negative() as u64) << (self.bits() - 1);
        let m = self.mantissa_bits;
        let top = ((1u64 << self.exponent_bits) - 1) << m;
        let (inf, nan) = match self.specials {
            Specials::Ieee => (top, top | 1 << (m - 1)),
            Specials::NanOnly => (top | ((1 << m) - 1), top | ((1 << m) - 1)),
            Specials::None => (top | ((1 << m) - 1), top | ((1 << m) - 1)),
        };
        if x.is_nan() {
            return sign | nan;
        }
        let x = x.abs();
        if x.is_infinite() {
            return sign | inf;
        }
        if *self == Format::F64 {
            return sign | x.to_bits();
        }
        // Units of the last place at x: exact, since scaling by a power of two is exact in f64's range here.
        let e = if x == 0.0 { self.min_exponent() } else { libm::ilogb(x).max(self.min_exponent()) };
        let units = libm::scalbn(x, m as i32 - e).round_ties_even() as u64;
        // A carry into the next binade falls out of the addition of exponent and mantissa.
        let code = (((e - self.min_exponent()) as u64) << m) + units;
        let largest = match self.specials {
            Specials::Ieee => top - 1,
            Specials::NanOnly => inf - 1,
            Specials::None => inf,
        };
        sign | if code > largest { inf } else { code }
    }

    /// The value of a code.
    pub fn decode(&self, code: u64) -> f64 {
        let m = self.mantissa_bits;
        let sign = if code >> (self.bits() - 1) & 1 == 1 { -1.0 } else { 1.0 };
        let magnitude = code & ((1 << (self.bits() - 1)) - 1);
        let (field, mantissa) = (magnitude >> m, magnitude & ((1 << m) - 1));
        let last = (1 << self.exponent_bits) - 1;
        let special = field == last
            && match self.specials {
                Specials::Ieee => true,
                Specials::NanOnly => mantissa == (1 << m) - 1,
                Specials::None => false,
            };
        if special {
            return if mantissa == 0 { sign * f64::INFINITY } else { f64::NAN };
        }
        let (units, e) = if field == 0 { (mantissa, 1) } else { (mantissa | 1 << m, field as i32) };
        sign * units as f64 * power(e - self.bias() - m as i32)
    }
}

/// `x` rounded to the nearest multiple of every format at once would round twice through f32; this rounds to odd first,
/// so that a following conversion from f32 to 16 bit is correct.
#[inline]
pub fn f64_to_f32_odd(x: f64) -> f32 {
    let y = x as f32;
    if y as f64 == x || !y.is_finite() && x.is_infinite() || x.is_nan() {
        return y;
    }
    // Inexact: of the two neighbours take the one with an odd last bit.
    let toward_zero = if (y as f64).abs() > x.abs() { f32::from_bits(y.to_bits() - 1) } else { y };
    f32::from_bits(toward_zero.to_bits() | 1)
}

/// 2ⁿ, subnormal results included.
fn power(n: i32) -> f64 {
    libm::scalbn(1.0, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn the_edges_of_each_format() {
        let f16 = Format::F16;
        assert_eq!(
            (f16.max_finite(), f16.overflow_threshold(), f16.min_normal(), f16.min_subnormal()),
            (65504.0, 65520.0, 2f64.powi(-14), 2f64.powi(-24))
        );
        assert_eq!(f16.round(65519.999), 65504.0);
        assert_eq!(f16.round(65520.0), f64::INFINITY);
        assert_eq!((f16.round(2f64.powi(-25)), f16.round(2f64.powi(-25) * 1.0001)), (0.0, 2f64.powi(-24)));
        assert_eq!((f16.round(4e-8), f16.round(1e-8)), (2f64.powi(-24), 0.0));
        assert_eq!(Format::BF16.max_finite(), bf16::MAX.to_f64());
        assert_eq!((Format::BF16.round(0.999), Format::BF16.round(0.9999), f16.round(0.9999)), (1.0, 1.0, 1.0));
        assert_eq!(
            (Format::E4M3.max_finite(), Format::E5M2.max_finite(), Format::E2M1.max_finite()),
            (448.0, 57344.0, 6.0)
        );
        assert!(Format::E4M3.round(1e6).is_nan());
        assert_eq!(
            (0..8).map(|c| Format::E2M1.decode(c)).collect::<Vec<_>>(),
            [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
        );
        assert_eq!((Format::F32.max_finite(), Format::F32.min_subnormal()), (f32::MAX as f64, 2f64.powi(-149)));
        assert_eq!((Format::F64.max_finite(), Format::F64.min_subnormal()), (f64::MAX, f64::from_bits(1)));
    }

    #[test]
    fn every_16_bit_code_decodes_and_encodes_as_the_half_crate_has_it() {
        for code in 0..=u16::MAX {
            for (format, value) in
                [(Format::F16, f16::from_bits(code).to_f64()), (Format::BF16, bf16::from_bits(code).to_f64())]
            {
                let decoded = format.decode(code as u64);
                assert!(decoded == value || decoded.is_nan() && value.is_nan(), "{code:#x}");
                assert!(value.is_nan() || format.encode(value) == code as u64, "{code:#x}");
            }
        }
    }

    #[test]
    fn ties_between_neighbours_go_to_the_even_code() {
        for code in 0..0x7bffu64 {
            let (a, b) = (Format::F16.decode(code), Format::F16.decode(code + 1));
            assert_eq!(Format::F16.encode((a + b) / 2.0) & 1, 0);
            assert_eq!(Format::F16.encode((a + b) / 2.0), f16::from_f64((a + b) / 2.0).to_bits() as u64);
        }
    }

    #[test]
    fn f32_rounding_is_that_of_the_processor() {
        for i in 0..200_000u64 {
            let x = f64::from_bits(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            if !x.is_nan() {
                assert_eq!(Format::F32.encode(x), (x as f32).to_bits() as u64, "{x:e}");
            }
        }
    }
}
