//! [`Definition`]: what the reference knows of an operator. Each family's stands in the file of its name.

use super::Dense;
use crate::{Error, Result};

/// An operator in f64.
pub(crate) trait Definition {
    /// All outputs; `shapes` are theirs.
    fn evaluate(&self, x: &[Dense], shapes: &[Vec<usize>]) -> Result<Vec<Dense>>;

    /// Per output and element, the largest error before the one rounding to the output's dtype. Infinite where anything
    /// may come out: at a pole or the end of an activation's domain, and of an activated sum whose terms leave the
    /// range on the way. NaN where operands are not finite.
    #[cfg(feature = "oracle")]
    fn errors(&self, x: &[Dense], shapes: &[Vec<usize>], by: super::errors::Roundings<'_>) -> Result<Vec<Vec<f64>>> {
        Ok(super::errors::scaled(&self.evaluate(&super::errors::magnitudes(x), shapes)?, by.e))
    }
}

/// The first output from a function of the index.
pub(super) fn each(shapes: &[Vec<usize>], f: &dyn Fn(&[usize]) -> f64) -> Dense {
    Dense::from_fn(&shapes[0], f)
}

/// Fails where an index is out of range.
pub(super) fn check_index(
    op: &'static str,
    index: &Dense,
    size: usize,
    what: &'static str,
    ignored: Option<i64>,
) -> Result<()> {
    let bad = |i: &&f64| !(0.0..size as f64).contains(*i) && Some(**i as i64) != ignored;
    match index.v.iter().find(bad) {
        Some(&bad) => Err(Error::IndexOutOfRange { op, index: bad as i64, size, what }),
        None => Ok(()),
    }
}

/// The extent of a dimension, of which a scalar has one element.
pub(super) fn extent(shape: &[usize], dim: usize) -> usize {
    shape.get(dim).copied().unwrap_or(1)
}
