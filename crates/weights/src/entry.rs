//! [`Entry`]: what is known of a tensor in a file before it is read.

use crate::FileDType;

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// Type of the elements.
    pub dtype: FileDType,
    /// Extents.
    pub shape: Vec<usize>,
    /// Which of the weights' files it is in.
    pub(crate) file: usize,
    /// Where its bytes begin in the file, and how many from there on hold all its elements.
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    /// Strides in elements, where the order is not row-major.
    pub(crate) strides: Option<Vec<usize>>,
    /// Why it cannot be read.
    pub(crate) fault: Option<String>,
}

impl Entry {
    /// A tensor in row-major order.
    pub(crate) fn dense(
        name: String,
        dtype: FileDType,
        shape: Vec<usize>,
        file: usize,
        at: usize,
        bytes: usize,
    ) -> Entry {
        let fault = dtype.dtype().is_none().then(|| format!("is of type {dtype}, which this library does not read"));
        Entry { name, dtype, shape, file, at, bytes, strides: None, fault }
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The number of elements of a shape; `None` if it overflows.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    // An extent of 0 hides no overflow of the others, whose product may be a stride.
    let others = shape.iter().filter(|&&n| n != 0).try_fold(1usize, |n, &extent| n.checked_mul(extent))?;
    Some(if shape.contains(&0) { 0 } else { others })
}

/// The strides of a shape in row-major order.
pub(crate) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}
