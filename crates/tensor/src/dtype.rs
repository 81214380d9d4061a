//! Element types: the run-time tag [`DType`] and the compile-time traits [`Element`] and [`Float`].

use half::{bf16, f16};

use crate::format::Format;

/// The type of a tensor's elements, known at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary64. CPU only; for gradient checks.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16: 5 exponent bits, 10 mantissa bits, largest finite value 65504.
    F16,
    /// bfloat16: the exponent range of f32 with 7 mantissa bits.
    BF16,
    /// Signed 64-bit integer: indices and class labels.
    I64,
    /// Unsigned 32-bit integer: indices.
    U32,
    /// Signed 8-bit integer: quantised weights.
    I8,
    /// Boolean, one byte, 0 or 1: masks.
    Bool,
}

impl DType {
    /// Every dtype, floats first.
    pub const ALL: [DType; 8] =
        [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::U32, DType::I8, DType::Bool];

    /// The floating-point dtypes.
    pub const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::I8 | DType::Bool => 1,
        }
    }

    /// The name used in messages and files: `f16`, `bf16`, `i64`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::U32 => "u32",
            DType::I8 => "i8",
            DType::Bool => "bool",
        }
    }

    /// True for f64, f32, f16 and bf16.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
    }

    /// True for f16 and bf16.
    pub const fn is_half(self) -> bool {
        matches!(self, DType::F16 | DType::BF16)
    }

    /// The dtype in which values of this dtype are computed and accumulated: f32 for 16-bit floats.
    pub const fn accum(self) -> DType {
        match self {
            DType::F16 | DType::BF16 | DType::F32 => DType::F32,
            DType::F64 => DType::F64,
            DType::I64 | DType::U32 | DType::I8 | DType::Bool => DType::I64,
        }
    }

    /// The smallest dtype that holds both operands' values, as PyTorch promotes: f16 with bf16 gives f32, a float
    /// with an integer gives the float.
    pub fn promote(self, other: DType) -> DType {
        if self == other {
            return self;
        }
        match (self.is_float(), other.is_float()) {
            (true, false) => self,
            (false, true) => other,
            (true, true) if self.is_half() && other.is_half() => DType::F32,
            (true, true) => {
                if self.size() > other.size() {
                    self
                } else {
                    other
                }
            }
            (false, false) => {
                if self == DType::Bool {
                    other
                } else if other == DType::Bool {
                    self
                } else {
                    DType::I64
                }
            }
        }
    }

    /// The format of a float dtype, `None` for integers.
    pub const fn format(self) -> Option<Format> {
        match self {
            DType::F64 => Some(Format::F64),
            DType::F32 => Some(Format::F32),
            DType::F16 => Some(Format::F16),
            DType::BF16 => Some(Format::BF16),
            DType::I64 | DType::U32 | DType::I8 | DType::Bool => None,
        }
    }

    /// The unit roundoff (half an ulp of 1) of a float dtype, `None` for integers.
    pub fn unit_roundoff(self) -> Option<f64> {
        self.format().map(|format| format.epsilon() / 2.0)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for DType {
    type Err = crate::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wanted = match s {
            "fp64" => "f64",
            "fp32" => "f32",
            "fp16" => "f16",
            other => other,
        };
        DType::ALL
            .into_iter()
            .find(|d| d.name() == wanted)
            .ok_or_else(|| crate::Error::UnknownDType { found: s.to_string() })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that can be stored in a tensor. Sealed: the list is that of [`DType`].
pub trait Element: sealed::Sealed + Copy + Send + Sync + std::fmt::Debug + PartialEq + 'static {
    /// The run-time tag of this type.
    const DTYPE: DType;

    /// The value as f64. Integers beyond 2⁵³ round.
    fn as_f64(self) -> f64;

    /// The nearest value of this type, ties to even; integers truncate and saturate; non-zero is `true`.
    fn from_f64(value: f64) -> Self;
}

/// A floating-point [`Element`].
pub trait Float: Element + num_traits::Float {
    /// The type sums of this type are accumulated in: f32 for f16, bf16 and f32; f64 for f64.
    type Accum: Float;
}

macro_rules! elements {
    ($($t:ty, $dtype:ident, $to:expr, $from:expr;)*) => {$(
        impl sealed::Sealed for $t {}
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;
            #[inline]
            fn as_f64(self) -> f64 { ($to)(self) }
            #[inline]
            fn from_f64(value: f64) -> Self { ($from)(value) }
        }
    )*};
}

elements! {
    f64, F64, |v| v, |v| v;
    f32, F32, |v: f32| v as f64, |v: f64| v as f32;
    f16, F16, |v: f16| v.to_f64(), |v: f64| f16::from_bits(Format::F16.encode(v) as u16);
    bf16, BF16, |v: bf16| v.to_f64(), |v: f64| bf16::from_bits(Format::BF16.encode(v) as u16);
    i64, I64, |v: i64| v as f64, |v: f64| v as i64;
    u32, U32, |v: u32| v as f64, |v: f64| v as u32;
    i8, I8, |v: i8| v as f64, |v: f64| v as i8;
    bool, Bool, |v: bool| v as u8 as f64, |v: f64| v != 0.0;
}

impl Float for f64 {
    type Accum = f64;
}
impl Float for f32 {
    type Accum = f32;
}
impl Float for f16 {
    type Accum = f32;
}
impl Float for bf16 {
    type Accum = f32;
}

/// Runs `$body` with the type alias `$T` bound to the Rust type of `$dtype`.
///
/// `with_element!(array.dtype(), T => kernel::<T>(array))` expands to a match with one arm per dtype. It is the only
/// place where a run-time dtype becomes a type.
#[macro_export]
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F16 => {
                type $T = $crate::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $T = $crate::bf16;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            $crate::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::DType::I8 => {
                type $T = i8;
                $body
            }
            $crate::DType::Bool => {
                type $T = bool;
                $body
            }
        }
    };
}
