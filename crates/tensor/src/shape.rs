//! [`Shape`]: extents of a tensor, held inline so that making a tensor allocates nothing for them.

use crate::Error;

/// The largest number of dimensions.
pub const MAX_RANK: usize = 8;

/// Extents (or strides) of up to [`MAX_RANK`] dimensions. Dereferences to `[usize]`.
#[derive(Clone, Copy, Eq)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// The shape of a scalar: no dimensions, one element.
    pub const SCALAR: Shape = Shape { dims: [0; MAX_RANK], rank: 0 };

    /// A shape from its extents.
    ///
    /// # Errors
    /// More than [`MAX_RANK`] dimensions, or a number of elements that overflows.
    pub fn new(dims: &[usize]) -> Result<Shape, Error> {
        if dims.len() > MAX_RANK {
            return Err(Error::RankTooLarge { rank: dims.len() });
        }
        let shape = Shape::from_slice(dims);
        shape.check()?;
        Ok(shape)
    }

    /// Fails where the number of elements, whatever their type, cannot be counted in bytes. An extent of 0 does not
    /// hide the others: their product is a stride.
    ///
    /// # Errors
    /// It overflows.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bytes = self.iter().filter(|&&d| d != 0).try_fold(8usize, |n, &d| n.checked_mul(d));
        match bytes.filter(|&n| n <= isize::MAX as usize) {
            Some(_) => Ok(()),
            None => Err(Error::TooLarge { shape: self.to_vec() }),
        }
    }

    /// A shape from extents already known to be valid (at most [`MAX_RANK`] of them).
    pub(crate) fn from_slice(dims: &[usize]) -> Shape {
        let mut shape = Shape::SCALAR;
        shape.dims[..dims.len()].copy_from_slice(dims);
        shape.rank = dims.len() as u8;
        shape
    }

    /// Its first `rank` dimensions, or all if it has fewer.
    pub fn leading(&self, rank: usize) -> Shape {
        Shape::from_slice(&self[..rank.min(self.rank())])
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.iter().product()
    }

    /// Adds a dimension at the end; the rank must be below [`MAX_RANK`].
    pub(crate) fn push(&mut self, extent: usize) {
        self.dims[self.rank as usize] = extent;
        self.rank += 1;
    }

    /// Strides of the row-major order.
    pub fn row_major(&self) -> Shape {
        let mut strides = *self;
        let mut step = 1;
        for i in (0..self.rank()).rev() {
            strides.dims[i] = step;
            // A shape of too many elements is refused where outputs are made.
            step = step.saturating_mul(self.dims[i].max(1));
        }
        strides
    }

    /// Resolves a dimension index that may be negative, counting from the end.
    ///
    /// # Errors
    /// The index is outside `-rank..rank`.
    pub fn dim(&self, op: &'static str, dim: isize) -> Result<usize, Error> {
        let rank = self.rank().max(1) as isize;
        if dim < -rank || dim >= rank {
            return Err(Error::DimOutOfRange { op, dim, rank: self.rank() });
        }
        Ok(if dim < 0 { dim + rank } else { dim } as usize)
    }

    /// The shape both shapes broadcast to: aligned at the right, extents equal or 1.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let mut out = Shape::from_slice(&[1; MAX_RANK][..rank]);
        for i in 0..rank {
            let a = if i < self.rank() { self.dims[self.rank() - 1 - i] } else { 1 };
            let b = if i < other.rank() { other.dims[other.rank() - 1 - i] } else { 1 };
            out.dims[rank - 1 - i] = match (a, b) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                (_, _) => return None,
            };
        }
        Some(out)
    }
}

impl std::ops::Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}

impl std::ops::DerefMut for Shape {
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.dims[..self.rank as usize]
    }
}

impl PartialEq for Shape {
    fn eq(&self, other: &Shape) -> bool {
        **self == **other
    }
}

impl std::hash::Hash for Shape {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}

impl<const N: usize> TryFrom<[usize; N]> for Shape {
    type Error = Error;
    fn try_from(dims: [usize; N]) -> Result<Shape, Error> {
        Shape::new(&dims)
    }
}

/// A set of dimensions, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dims(u8);

impl Dims {
    /// No dimension.
    pub const NONE: Dims = Dims(0);

    /// The set of the given dimensions, which may be negative, of a shape. An empty list means all of them, as in
    /// PyTorch's reductions.
    ///
    /// # Errors
    /// A dimension out of range or given twice.
    pub fn new(op: &'static str, shape: &Shape, dims: &[isize]) -> Result<Dims, Error> {
        if dims.is_empty() {
            return Ok(Dims::all(shape.rank()));
        }
        let mut bits = 0u8;
        for &dim in dims {
            let bit = 1 << shape.dim(op, dim)?;
            if bits & bit != 0 {
                return Err(Error::DimRepeated { op, dim });
            }
            bits |= bit;
        }
        Ok(Dims(if shape.rank() == 0 { 0 } else { bits }))
    }

    /// All dimensions of a tensor of that rank.
    pub fn all(rank: usize) -> Dims {
        Dims(((1u16 << rank) - 1) as u8)
    }

    /// The set with one dimension.
    pub fn one(dim: usize) -> Dims {
        Dims(1 << dim)
    }

    /// Whether the set holds `dim`.
    pub fn contains(self, dim: usize) -> bool {
        self.0 >> dim & 1 == 1
    }

    /// The set with `dim` added.
    pub fn with(self, dim: usize) -> Dims {
        Dims(self.0 | 1 << dim)
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Dimensions in rising order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_RANK).filter(move |&d| self.contains(d))
    }

    /// `shape` after a reduction over the set: reduced extents become 1 (`keepdim`) or vanish.
    pub fn reduce(self, shape: &Shape, keepdim: bool) -> Shape {
        let mut out = Shape::SCALAR;
        for (d, &extent) in shape.iter().enumerate() {
            if !self.contains(d) {
                out.push(extent);
            } else if keepdim {
                out.push(1);
            }
        }
        out
    }

    /// The number of elements of `shape` that one reduced element stands for.
    pub fn count(self, shape: &Shape) -> usize {
        self.iter().map(|d| shape[d]).product()
    }
}
