//! [`Range`] and [`Loss`]: how large a tensor's values are, and what becomes of them in another format.

use std::fmt;

use binade_tensor::DType;
use serde::Serialize;

use crate::view::{Values, View};

/// What happens to a tensor's values where they are rounded to a narrower format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The narrower format.
    #[serde(serialize_with = "name")]
    pub dtype: DType,
    /// Finite values that become infinite.
    pub overflow: u64,
    /// Values that become 0 and were not.
    pub zero: u64,
    /// Values that become subnormal: with fewer digits than the format has elsewhere.
    pub subnormal: u64,
}

fn name<S: serde::Serializer>(dtype: &DType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype.name())
}

impl Loss {
    /// Whether nothing is lost but digits.
    pub fn is_none(&self) -> bool {
        (self.overflow, self.zero, self.subnormal) == (0, 0, 0)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [(self.overflow, "overflow"), (self.zero, "become 0"), (self.subnormal, "become subnormal")];
        let told: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if told.is_empty() {
            return write!(f, "nothing lost in {}", self.dtype);
        }
        write!(f, "{} in {}", told.join(", "), self.dtype)
    }
}

/// How large a tensor's values are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Range {
    /// Elements.
    pub count: u64,
    /// Zeros.
    pub zeros: u64,
    /// NaNs.
    pub nan: u64,
    /// Infinities of either sign.
    pub infinite: u64,
    /// The smallest finite value; 0 where there is none.
    pub min: f64,
    /// The largest finite value.
    pub max: f64,
    /// The smallest magnitude that is not 0.
    pub min_abs: f64,
    /// The largest finite magnitude.
    pub max_abs: f64,
    /// What is lost in each format that was asked for.
    pub losses: Vec<Loss>,
}

/// Magnitudes at which rounding to a format, to nearest even, changes its kind.
#[derive(Clone, Copy)]
struct Limits {
    /// From here on it is infinite.
    overflow: f64,
    /// Up to here it is 0.
    zero: f64,
    /// Below this it is subnormal.
    subnormal: f64,
}

/// Of a float format with `digits` bits of significand, from 2^`lowest` to below 2^`highest`; `None` for integers.
fn limits(dtype: DType) -> Option<Limits> {
    let (digits, lowest, highest) = match dtype {
        DType::F64 => return None,
        DType::F32 => (24, -126, 128),
        DType::F16 => (11, -14, 16),
        DType::BF16 => (8, -126, 128),
        DType::I64 | DType::U32 | DType::I8 | DType::Bool => return None,
    };
    let two = |n: i32| 2f64.powi(n);
    // Half of the last place below the power of two, and half of the smallest number. Ties go to the even neighbour:
    // the infinity, 0 and the smallest normal number.
    Some(Limits {
        overflow: two(highest) - two(highest - digits - 1),
        zero: two(lowest - digits),
        subnormal: two(lowest) - two(lowest - digits),
    })
}

fn count<T: Copy + Into<f64>>(values: &[T], dtypes: &[(DType, Limits)]) -> Range {
    let mut range = Range {
        count: values.len() as u64,
        zeros: 0,
        nan: 0,
        infinite: 0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        min_abs: f64::INFINITY,
        max_abs: 0.0,
        losses: Vec::new(),
    };
    for &value in values {
        let value: f64 = value.into();
        let magnitude = value.abs();
        range.zeros += (magnitude == 0.0) as u64;
        range.nan += value.is_nan() as u64;
        range.infinite += (magnitude == f64::INFINITY) as u64;
        if magnitude < f64::INFINITY {
            (range.min, range.max) = (range.min.min(value), range.max.max(value));
            range.max_abs = range.max_abs.max(magnitude);
            if magnitude > 0.0 {
                range.min_abs = range.min_abs.min(magnitude);
            }
        }
    }
    for &(dtype, limits) in dtypes {
        let mut loss = Loss { dtype, overflow: 0, zero: 0, subnormal: 0 };
        for &value in values {
            let magnitude = value.into().abs();
            loss.overflow += (magnitude >= limits.overflow && magnitude < f64::INFINITY) as u64;
            loss.zero += (magnitude > 0.0 && magnitude <= limits.zero) as u64;
            loss.subnormal += (magnitude > limits.zero && magnitude < limits.subnormal) as u64;
        }
        range.losses.push(loss);
    }
    range
}

fn join(a: Range, b: Range) -> Range {
    let sum = |(a, b): (&Loss, &Loss)| Loss {
        dtype: a.dtype,
        overflow: a.overflow + b.overflow,
        zero: a.zero + b.zero,
        subnormal: a.subnormal + b.subnormal,
    };
    Range {
        count: a.count + b.count,
        zeros: a.zeros + b.zeros,
        nan: a.nan + b.nan,
        infinite: a.infinite + b.infinite,
        min: a.min.min(b.min),
        max: a.max.max(b.max),
        min_abs: a.min_abs.min(b.min_abs),
        max_abs: a.max_abs.max(b.max_abs),
        losses: a.losses.iter().zip(&b.losses).map(sum).collect(),
    }
}

/// The largest magnitude among f32 values, as bits: those of a NaN are above those of an infinity.
fn largest_bits(values: &[f32]) -> i32 {
    values.iter().fold(0, |largest, value| largest.max((value.to_bits() & 0x7fff_ffff) as i32))
}

impl Range {
    /// Of no elements.
    fn empty(dtypes: &[DType]) -> Range {
        let losses = dtypes.iter().map(|&dtype| Loss { dtype, overflow: 0, zero: 0, subnormal: 0 }).collect();
        let (count, zeros, nan, infinite) = (0, 0, 0, 0);
        Range { count, zeros, nan, infinite, min: 0.0, max: 0.0, min_abs: 0.0, max_abs: 0.0, losses }
    }

    /// Of a view, with what is lost in each of these formats.
    pub(crate) fn of(view: &View<'_>, dtypes: &[DType]) -> Range {
        let limited: Vec<(DType, Limits)> = dtypes.iter().filter_map(|&d| Some((d, limits(d)?))).collect();
        let see = |values: Values<'_>| match values {
            Values::F32(values) => count(values, &limited),
            Values::F64(values) => count(values, &limited),
        };
        let Some(mut range) = view.scan(see, join) else { return Range::empty(dtypes) };
        let none = |value: f64| if value.is_finite() { value } else { 0.0 };
        (range.min, range.max, range.min_abs) = (none(range.min), none(range.max), none(range.min_abs));
        range
    }

    /// The number of NaNs in a view, found fast where there is none.
    pub(crate) fn nan(view: &View<'_>) -> u64 {
        if !view.dtype.is_float() {
            return 0;
        }
        let see = |values: Values<'_>| match values {
            Values::F32(values) if largest_bits(values) <= 0x7f80_0000 => 0,
            Values::F32(values) => values.iter().filter(|v| v.is_nan()).count() as u64,
            Values::F64(values) => values.iter().filter(|v| v.is_nan()).count() as u64,
        };
        view.scan(see, |a, b| a + b).unwrap_or(0)
    }
}

/// Whether values of a file's type can leave the range of a dtype.
pub(crate) fn narrows(from: &crate::FileDType, to: DType) -> bool {
    use crate::FileDType::*;
    match to {
        DType::F64 => false,
        DType::F32 => matches!(from, F64),
        DType::BF16 => matches!(from, F64 | F32),
        DType::F16 => !matches!(from, F16 | I8 | U8 | Bool),
        DType::I64 | DType::U32 | DType::I8 | DType::Bool => false,
    }
}
