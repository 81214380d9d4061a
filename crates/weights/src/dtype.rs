//! [`FileDType`]: what elements are in a file.

use std::fmt;

use binade_tensor::DType;

/// The type of a tensor's elements in a file, under safetensors' names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum FileDType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    U16,
    U32,
    U64,
    /// A type whose elements this library does not read, by name: 8-bit floats, complex numbers, what is newer.
    Other(String),
}

/// Types with their names in safetensors files, in the order in which that format sorts them, and their bytes.
const NAMED: [(FileDType, &str, usize); 13] = [
    (FileDType::Bool, "BOOL", 1),
    (FileDType::U8, "U8", 1),
    (FileDType::I8, "I8", 1),
    (FileDType::I16, "I16", 2),
    (FileDType::U16, "U16", 2),
    (FileDType::F16, "F16", 2),
    (FileDType::BF16, "BF16", 2),
    (FileDType::I32, "I32", 4),
    (FileDType::U32, "U32", 4),
    (FileDType::F32, "F32", 4),
    (FileDType::F64, "F64", 8),
    (FileDType::I64, "I64", 8),
    (FileDType::U64, "U64", 8),
];

/// Bytes of types that are not read: sizes in the header can be checked all the same.
const UNREAD: [(&str, usize); 6] =
    [("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("F8_E4M3FNUZ", 1), ("F8_E5M2FNUZ", 1), ("C64", 8)];

impl FileDType {
    /// The type of this name in a safetensors file.
    pub fn named(name: &str) -> FileDType {
        let known = NAMED.iter().find(|(_, known, _)| *known == name);
        known.map_or_else(|| FileDType::Other(name.into()), |(dtype, _, _)| dtype.clone())
    }

    /// Its name in a safetensors file.
    pub fn name(&self) -> &str {
        match self {
            FileDType::Other(name) => name,
            known => NAMED.iter().find(|(dtype, _, _)| dtype == known).map_or("", |(_, name, _)| name),
        }
    }

    /// Bytes of an element; `None` where that is not known, or no whole number.
    pub fn size(&self) -> Option<usize> {
        match self {
            FileDType::Other(name) => UNREAD.iter().find(|(known, _)| known == name).map(|(_, bytes)| *bytes),
            known => NAMED.iter().find(|(dtype, _, _)| dtype == known).map(|(_, _, bytes)| *bytes),
        }
    }

    /// Where it comes among others in a file: safetensors puts the widest first.
    pub(crate) fn rank(&self) -> usize {
        NAMED.iter().position(|(dtype, _, _)| dtype == self).unwrap_or(NAMED.len())
    }

    /// The dtype that tensors of this type have in memory: the same where there is one, else the next that holds every
    /// value. `None` for what is not read.
    pub fn dtype(&self) -> Option<DType> {
        match self {
            FileDType::F64 => Some(DType::F64),
            FileDType::F32 => Some(DType::F32),
            FileDType::F16 => Some(DType::F16),
            FileDType::BF16 => Some(DType::BF16),
            FileDType::U32 => Some(DType::U32),
            FileDType::I8 => Some(DType::I8),
            FileDType::Bool => Some(DType::Bool),
            FileDType::I64 | FileDType::I32 | FileDType::I16 | FileDType::U16 | FileDType::U8 => Some(DType::I64),
            FileDType::U64 | FileDType::Other(_) => None,
        }
    }

    /// Whether its values are floating-point numbers.
    pub fn is_float(&self) -> bool {
        self.dtype().is_some_and(DType::is_float)
    }

    /// Whether its bytes are those of a dtype in memory.
    pub(crate) fn is(&self, dtype: DType) -> bool {
        *self == FileDType::from(dtype)
    }
}

impl From<DType> for FileDType {
    fn from(dtype: DType) -> FileDType {
        match dtype {
            DType::F64 => FileDType::F64,
            DType::F32 => FileDType::F32,
            DType::F16 => FileDType::F16,
            DType::BF16 => FileDType::BF16,
            DType::I64 => FileDType::I64,
            DType::U32 => FileDType::U32,
            DType::I8 => FileDType::I8,
            DType::Bool => FileDType::Bool,
        }
    }
}

impl fmt::Display for FileDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
