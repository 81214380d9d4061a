//! [`Layout`]: where each element of a tensor lies in its storage, and the views that only change that.

use crate::shape::{MAX_RANK, Shape};

/// Logical shape, a stride per dimension (in elements) and the offset of the first element.
///
/// Shapes are logical (`[N, C, H, W]` for images); memory order is the order of the strides. A stride of 0 repeats an
/// element (expanded views).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Extents.
    pub shape: Shape,
    /// Distance between neighbours along each dimension, in elements.
    pub strides: Shape,
    /// Index of the first element in the storage.
    pub offset: usize,
}

impl Layout {
    /// Row-major order, no offset.
    pub fn contiguous(shape: Shape) -> Layout {
        Layout { shape, strides: shape.row_major(), offset: 0 }
    }

    /// `[N, C, H, W]` (or `[N, C, …]`) with the channels innermost in memory.
    pub fn channels_last(shape: Shape) -> Layout {
        let mut order: Vec<usize> = (0..shape.rank()).collect();
        if shape.rank() >= 3 {
            order.remove(1);
            order.push(1);
        }
        Layout::with_order(shape, &order)
    }

    /// Dense layout whose memory order is `order`, outermost dimension first.
    pub fn with_order(shape: Shape, order: &[usize]) -> Layout {
        let mut strides = shape;
        let mut step = 1;
        for &d in order.iter().rev() {
            strides[d] = step;
            step = step.saturating_mul(shape[d].max(1));
        }
        Layout { shape, strides, offset: 0 }
    }

    /// Dense layout for `shape` with this layout's memory order. The ranks must be equal; dimensions of extent 1 and
    /// expanded dimensions keep their logical place.
    pub fn like(&self, shape: Shape) -> Layout {
        if self.is_contiguous() || shape.rank() != self.shape.rank() {
            return Layout::contiguous(shape);
        }
        Layout::with_order(shape, &self.order())
    }

    /// The dimensions by their place in memory, outermost first; dimensions of extent 1 and expanded ones keep their
    /// logical place.
    pub fn order(&self) -> Shape {
        let mut order = self.shape;
        (0..order.rank()).for_each(|d| order[d] = d);
        // Insertion sort by falling stride that leaves dimensions without a meaningful stride where they are.
        for i in 1..order.rank() {
            let mut j = i;
            while j > 0 && self.before(order[j], order[j - 1]) {
                order.swap(j, j - 1);
                j -= 1;
            }
        }
        order
    }

    fn before(&self, a: usize, b: usize) -> bool {
        let real = |d: usize| self.shape[d] > 1 && self.strides[d] > 0;
        real(a) && real(b) && self.strides[a] > self.strides[b]
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }

    /// Whether elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1;
        for d in (0..self.shape.rank()).rev() {
            if self.shape[d] != 1 {
                if self.strides[d] != step {
                    return self.numel() == 0;
                }
                step *= self.shape[d];
            }
        }
        true
    }

    /// Whether elements fill a stretch of storage exactly once, in whatever order.
    pub fn is_dense(&self) -> bool {
        if self.is_contiguous() {
            return true;
        }
        let mut dims: [(usize, usize); MAX_RANK] = [(0, 0); MAX_RANK];
        let mut n = 0;
        for d in 0..self.shape.rank() {
            if self.shape[d] != 1 {
                dims[n] = (self.strides[d], self.shape[d]);
                n += 1;
            }
        }
        dims[..n].sort_unstable();
        let mut step = 1;
        dims[..n].iter().all(|&(stride, extent)| {
            let ok = stride == step;
            step *= extent;
            ok
        })
    }

    /// Whether both layouts put every element at the same place relative to their offset.
    pub fn same_order(&self, other: &Layout) -> bool {
        self.shape == other.shape
            && (0..self.shape.rank()).all(|d| self.shape[d] == 1 || self.strides[d] == other.strides[d])
    }

    /// Storage index of the last element plus one; the storage must be at least that long. 0 when empty.
    pub fn end(&self) -> usize {
        if self.numel() == 0 {
            return 0;
        }
        self.offset + 1 + self.shape.iter().zip(self.strides.iter()).map(|(&n, &s)| (n - 1) * s).sum::<usize>()
    }

    /// Dimensions in the order `axes`.
    pub fn permute(&self, axes: &[usize]) -> Layout {
        let mut out = *self;
        for (i, &a) in axes.iter().enumerate() {
            out.shape[i] = self.shape[a];
            out.strides[i] = self.strides[a];
        }
        out
    }

    /// Two dimensions exchanged.
    pub fn transpose(&self, a: usize, b: usize) -> Layout {
        let mut out = *self;
        out.shape.swap(a, b);
        out.strides.swap(a, b);
        out
    }

    /// `length` elements of `dim` from `start`. The range must lie inside.
    pub fn narrow(&self, dim: usize, start: usize, length: usize) -> Layout {
        let mut out = *self;
        out.shape[dim] = length;
        // Of nothing there is no first element, and its place may lie beyond the storage.
        out.offset = if out.numel() == 0 { 0 } else { self.offset + start * self.strides[dim] };
        out
    }

    /// Broadcast to `shape` with stride 0 along new and repeated dimensions; `None` if the shapes do not broadcast.
    pub fn expand(&self, shape: &Shape) -> Option<Layout> {
        if self.shape.rank() > shape.rank() {
            return None;
        }
        let lead = shape.rank() - self.shape.rank();
        let mut strides = *shape;
        for d in 0..shape.rank() {
            strides[d] = if d < lead {
                0
            } else if self.shape[d - lead] == shape[d] {
                self.strides[d - lead]
            } else if self.shape[d - lead] == 1 {
                0
            } else {
                return None;
            };
        }
        Some(Layout { shape: *shape, strides, offset: self.offset })
    }

    /// The same elements in row-major order under another shape of as many elements, if strides can say so.
    pub fn reshape(&self, shape: &Shape) -> Option<Layout> {
        if self.is_contiguous() {
            return Some(Layout { shape: *shape, strides: shape.row_major(), offset: self.offset });
        }
        // Old dimensions are walked from the right in runs that are contiguous among themselves; each run must be cut
        // exactly by the new extents.
        let mut strides = *shape;
        let mut new = shape.rank();
        let mut old = self.shape.rank();
        while old > 0 {
            if self.shape[old - 1] == 1 {
                old -= 1;
                continue;
            }
            let step = self.strides[old - 1];
            let mut run = 1;
            while old > 0 && (self.shape[old - 1] == 1 || self.strides[old - 1] == step * run) {
                run *= self.shape[old - 1];
                old -= 1;
            }
            let mut cut = 1;
            while new > 0 && cut < run {
                new -= 1;
                strides[new] = step * cut;
                cut *= shape[new];
            }
            if cut != run {
                return None;
            }
        }
        strides[..new].fill(1);
        Some(Layout { shape: *shape, strides, offset: self.offset })
    }
}
