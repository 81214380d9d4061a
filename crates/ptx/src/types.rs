//! Types and state spaces of PTX.

/// A type suffix of an instruction, or the type of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    BF16,
    BF16x2,
    TF32,
    E4M3,
    E5M2,
    E4M3x2,
    E5M2x2,
    F32,
    F64,
}

const NAMES: [(Type, &str, usize); 25] = [
    (Type::Pred, "pred", 1),
    (Type::B8, "b8", 1),
    (Type::B16, "b16", 2),
    (Type::B32, "b32", 4),
    (Type::B64, "b64", 8),
    (Type::B128, "b128", 16),
    (Type::U8, "u8", 1),
    (Type::U16, "u16", 2),
    (Type::U32, "u32", 4),
    (Type::U64, "u64", 8),
    (Type::S8, "s8", 1),
    (Type::S16, "s16", 2),
    (Type::S32, "s32", 4),
    (Type::S64, "s64", 8),
    (Type::F16, "f16", 2),
    (Type::F16x2, "f16x2", 4),
    (Type::BF16, "bf16", 2),
    (Type::BF16x2, "bf16x2", 4),
    (Type::TF32, "tf32", 4),
    (Type::E4M3, "e4m3", 1),
    (Type::E5M2, "e5m2", 1),
    (Type::E4M3x2, "e4m3x2", 2),
    (Type::E5M2x2, "e5m2x2", 2),
    (Type::F32, "f32", 4),
    (Type::F64, "f64", 8),
];

impl Type {
    /// The type with this name, written without the dot: `"f32"`.
    pub fn from_name(name: &str) -> Option<Type> {
        NAMES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The name without the dot.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// Bytes of a value.
    pub fn size(self) -> usize {
        NAMES[self as usize].2
    }

    /// Bits of a value.
    pub fn bits(self) -> u32 {
        8 * self.size() as u32
    }

    /// Whether it is `.s8` … `.s64`.
    pub fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// Whether it is a floating-point type, packed ones included.
    pub fn is_float(self) -> bool {
        self as usize >= Type::F16 as usize
    }

    /// Whether it is an integer type, `.b` types included.
    pub fn is_integer(self) -> bool {
        !self.is_float() && self != Type::Pred
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, ".{}", self.name())
    }
}

/// A state space: where a variable or an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Space {
    Global,
    Shared,
    Local,
    Const,
    Param,
    /// The space is known only by the address itself.
    Generic,
}

impl Space {
    /// The space with this name, written without the dot; `shared::cta` and `shared::cluster` are shared.
    pub fn from_name(name: &str) -> Option<Space> {
        Some(match name {
            "global" => Space::Global,
            "shared" | "shared::cta" | "shared::cluster" => Space::Shared,
            "local" => Space::Local,
            "const" => Space::Const,
            "param" | "param::entry" | "param::func" => Space::Param,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Local => "local",
            Space::Const => "const",
            Space::Param => "param",
            Space::Generic => "generic",
        })
    }
}
