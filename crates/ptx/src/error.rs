//! What can go wrong before a kernel runs.
//!
//! What goes wrong while it runs is a [`Finding`](crate::Finding) of the [`Report`](crate::Report).

/// An error of the parser, of the decoder, or of an argument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not PTX.
    #[error("line {line}: {message}")]
    Parse {
        /// Line of the PTX text, from 1.
        line: u32,
        /// What was found, and what was expected.
        message: String,
    },
    /// PTX, perhaps valid, that the interpreter does not know.
    #[error("line {line}: `{form}` is not supported: {reason}")]
    Unsupported {
        /// Line of the PTX text, from 1.
        line: u32,
        /// The opcode with all its modifiers, or the directive.
        form: String,
        /// Which part of it is unknown.
        reason: String,
    },
    /// The module has no kernel of this name.
    #[error("no kernel `{name}`; the module has {known}")]
    NoKernel {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Arguments, extents or sizes that do not fit the kernel.
    #[error("launch of `{kernel}`: {message}")]
    Launch {
        /// The kernel's name.
        kernel: String,
        /// Which value, and what was expected.
        message: String,
    },
    /// A host access to memory that is not allocated.
    #[error("{bytes} bytes at {address:#x}: {message}")]
    Memory {
        /// Device address of the first byte.
        address: u64,
        /// Length of the access.
        bytes: usize,
        /// What is there instead.
        message: String,
    },
    /// More device memory than the limit.
    #[error("out of memory: {asked} bytes asked for, {used} of {limit} are in use")]
    OutOfMemory {
        /// Bytes asked for.
        asked: usize,
        /// Bytes in use.
        used: usize,
        /// Bytes there are.
        limit: usize,
    },
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
