//! How new parameters are made.

use binade_tensor::DType;

use super::{Restore, with};

/// Dtypes that new parameters are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of all but batch norm's.
    pub params: DType,
    /// Of batch norm's.
    pub batch_norm: DType,
}

impl Stored {
    /// As models are made by default.
    pub const F32: Stored = Stored { params: DType::F32, batch_norm: DType::F32 };
}

/// Runs `f` with new parameters stored in these dtypes.
pub fn with_stored<T>(stored: Stored, f: impl FnOnce() -> T) -> T {
    let before = with(|s| std::mem::replace(&mut s.stored, stored));
    let _restore = Restore(move |s| s.stored = before);
    f()
}

/// The dtypes that new parameters are stored in.
pub fn stored() -> Stored {
    with(|s| s.stored)
}

/// Runs `f` with new parameters whose initial values are not drawn: their memory holds what it held before, and where
/// it was never used it is not touched. For models whose weights are loaded next. Constants are written all the same,
/// and the random stream goes on as if the values had been drawn.
pub fn without_initial_values<T>(f: impl FnOnce() -> T) -> T {
    let before = with(|s| std::mem::replace(&mut s.drawn, false));
    let _restore = Restore(move |s| s.drawn = before);
    f()
}

/// Whether initial values of new parameters are drawn.
pub fn is_drawn() -> bool {
    with(|s| s.drawn)
}
