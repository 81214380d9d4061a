//! The error of every fallible function of this crate.

use crate::{DType, Shape};

/// What went wrong, with the operation and the shapes or dtypes concerned.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// More dimensions than supported.
    #[error("a tensor has at most {max} dimensions, got {rank}", max = crate::MAX_RANK)]
    RankTooLarge {
        /// Dimensions asked for.
        rank: usize,
    },
    /// The element count overflows the address space.
    #[error("shape {shape:?} has too many elements")]
    TooLarge {
        /// The shape asked for.
        shape: Vec<usize>,
    },
    /// A dimension index outside the tensor.
    #[error("{op}: dimension {dim} is out of range for a tensor of {rank} dimensions")]
    DimOutOfRange {
        /// Operation.
        op: &'static str,
        /// Dimension given.
        dim: isize,
        /// Dimensions of the tensor.
        rank: usize,
    },
    /// A dimension listed twice.
    #[error("{op}: dimension {dim} is listed twice")]
    DimRepeated {
        /// Operation.
        op: &'static str,
        /// Dimension given.
        dim: isize,
    },
    /// Shapes that do not go together.
    #[error("{op}: {expected}, got {}", list(.shapes))]
    Shape {
        /// Operation.
        op: &'static str,
        /// What the operation needs, in words.
        expected: String,
        /// The shapes of all inputs.
        shapes: Vec<Shape>,
    },
    /// A dtype the operation does not take.
    #[error("{op}: {expected}, got {}", list(.dtypes))]
    DType {
        /// Operation.
        op: &'static str,
        /// What the operation needs, in words.
        expected: String,
        /// The dtypes of all inputs.
        dtypes: Vec<DType>,
    },
    /// A parameter of the operation outside its domain.
    #[error("{op}: {message}")]
    Argument {
        /// Operation.
        op: &'static str,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// An index outside the indexed dimension.
    #[error("{op}: index {index} is out of range for {size} {what}")]
    IndexOutOfRange {
        /// Operation.
        op: &'static str,
        /// Index found.
        index: i64,
        /// Number of valid indices.
        size: usize,
        /// What is indexed: `classes`, `rows`.
        what: &'static str,
    },
    /// Data whose length does not fit the shape.
    #[error("shape {shape:?} needs {} elements, got {found}", .shape.numel())]
    Length {
        /// Shape asked for.
        shape: Shape,
        /// Elements given.
        found: usize,
    },
    /// Tensors of different devices in one operation.
    #[error("{op}: tensors on different devices, {first} and {second}: move one with to()")]
    Device {
        /// Operation.
        op: &'static str,
        /// Device of the first input.
        first: String,
        /// Device of the other.
        second: String,
    },
    /// A storage written while another operation uses it.
    #[error("{op}: the tensor's storage is in use by another operation or is an input of this one")]
    InUse {
        /// Operation.
        op: &'static str,
    },
    /// An operation the backend cannot do for that dtype.
    #[error("{op}: the {backend} backend has no kernel for {dtype}")]
    Unsupported {
        /// Operation.
        op: &'static str,
        /// Backend.
        backend: String,
        /// Dtype.
        dtype: DType,
    },
    /// The device could not provide the memory.
    #[error("{}out of memory: {bytes} bytes for {class} could not be allocated", prefix(.op))]
    OutOfMemory {
        /// Operation; empty where memory is asked for outside of one.
        op: &'static str,
        /// Bytes asked for.
        bytes: usize,
        /// Class of the buffer.
        class: crate::Class,
    },
    /// A device name that is not known.
    #[error("unknown device '{found}': there are {}", .known.join(", "))]
    UnknownDevice {
        /// The name given.
        found: String,
        /// The devices of all linked backends.
        known: Vec<String>,
    },
    /// A command of an asynchronous device that was dropped, as one queued before it had failed.
    #[error("{op}: was not run, as an operator queued before it on {backend} failed")]
    NotRun {
        /// Operation.
        op: &'static str,
        /// Backend.
        backend: String,
    },
    /// Two uses of a device's memory that overlap: a defect of the code that queued them.
    #[error("{op}: {what}")]
    Hazard {
        /// Operation.
        op: &'static str,
        /// Which memory, and how it is used.
        what: String,
    },
    /// A dtype name that is not known.
    #[error("unknown dtype '{found}': use one of {}", crate::DType::ALL.map(crate::DType::name).join(", "))]
    UnknownDType {
        /// The name given.
        found: String,
    },
}

impl Error {
    /// The same error of an operation, where that is not known yet: kernels ask for memory without knowing for whom.
    pub fn during(self, during: &'static str) -> Error {
        match self {
            Error::OutOfMemory { op: "", bytes, class } => Error::OutOfMemory { op: during, bytes, class },
            other => other,
        }
    }
}

fn prefix(op: &str) -> String {
    if op.is_empty() { String::new() } else { format!("{op}: ") }
}

fn list<T: std::fmt::Debug>(items: &[T]) -> String {
    items.iter().map(|i| format!("{i:?}")).collect::<Vec<_>>().join(" and ")
}

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
