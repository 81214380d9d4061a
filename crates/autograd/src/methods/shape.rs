//! Dtypes and shapes, joining and splitting.

use binade_tensor::op::View;
use binade_tensor::{DType, Device, Error as TensorError, Op, Shape};

use crate::tape::moved;
use crate::{Result, Var, apply};

/// Dtypes and shapes.
impl Var {
    /// Conversion to another dtype, nearest even; the gradient comes back in this tensor's dtype.
    ///
    /// # Errors
    /// Out of memory.
    pub fn cast(&self, dtype: DType) -> Result<Var> {
        if self.dtype() == dtype { Ok(self.clone()) } else { apply(Op::Cast(dtype), &[self]) }
    }

    /// This tensor on a device: itself if it is there, else a copy that goes through the host. The gradient comes back
    /// to where this tensor is.
    ///
    /// # Errors
    /// Out of memory; what an asynchronous device reports late.
    pub fn to(&self, device: &Device) -> Result<Var> {
        if self.array().device() == device { Ok(self.clone()) } else { moved(self, device) }
    }

    /// Dimensions in another order, a view.
    ///
    /// # Errors
    /// `axes` is not a permutation.
    pub fn permute(&self, axes: &[isize]) -> Result<Var> {
        let axes = axes.iter().map(|&a| self.shape().dim("permute", a)).collect::<Result<Vec<_>, _>>()?;
        apply(Op::View(View::Permute(Shape::new(&axes)?)), &[self])
    }

    /// Two dimensions exchanged, a view.
    ///
    /// # Errors
    /// A dimension is out of range.
    pub fn transpose(&self, a: isize, b: isize) -> Result<Var> {
        let (a, b) = (self.shape().dim("transpose", a)?, self.shape().dim("transpose", b)?);
        let mut axes: Vec<usize> = (0..self.shape().rank()).collect();
        if !axes.is_empty() {
            axes.swap(a, b);
        }
        apply(Op::View(View::Permute(Shape::new(&axes)?)), &[self])
    }

    /// The same elements in row-major order under another shape: a view where strides allow, else a copy. One extent
    /// may be
    /// -1: what is left over.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(&self, shape: &[isize]) -> Result<Var> {
        let shape = resolve(self.shape(), shape)?;
        let source =
            if self.array().layout().reshape(&shape).is_some() { self.clone() } else { apply(Op::Copy, &[self])? };
        apply(Op::View(View::Reshape(shape)), &[&source])
    }

    /// Dimensions from `start` on merged into one.
    ///
    /// # Errors
    /// The dimension is out of range.
    pub fn flatten(&self, start: isize) -> Result<Var> {
        let start = self.shape().dim("flatten", start)?;
        let tail: usize = self.shape()[start..].iter().product();
        let shape: Vec<isize> = self.shape()[..start].iter().map(|&d| d as isize).chain([tail as isize]).collect();
        self.reshape(&shape)
    }

    /// A new dimension of extent 1.
    ///
    /// # Errors
    /// The position is out of range.
    pub fn unsqueeze(&self, dim: usize) -> Result<Var> {
        let mut shape: Vec<usize> = self.shape().to_vec();
        shape.insert(dim.min(shape.len()), 1);
        apply(Op::View(View::Reshape(Shape::new(&shape)?)), &[self])
    }

    /// A dimension of extent 1 removed.
    ///
    /// # Errors
    /// The dimension is out of range or has another extent.
    pub fn squeeze(&self, dim: isize) -> Result<Var> {
        let dim = self.shape().dim("squeeze", dim)?;
        let mut shape: Vec<usize> = self.shape().to_vec();
        if shape.get(dim) == Some(&1) {
            shape.remove(dim);
        }
        apply(Op::View(View::Reshape(Shape::new(&shape)?)), &[self])
    }

    /// `length` elements of `dim` from `start`, a view.
    ///
    /// # Errors
    /// The range is out of bounds.
    pub fn narrow(&self, dim: isize, start: usize, length: usize) -> Result<Var> {
        apply(Op::View(View::Narrow { dim: self.shape().dim("narrow", dim)?, start, length }), &[self])
    }

    /// Every `step`-th element of `dim` from `start` up to `end`, as `x[start:end:step]`: negative positions count from
    /// the end, and those beyond it are the end. A view for a step of 1, else a copy.
    ///
    /// # Errors
    /// The step is 0; the dimension is out of range.
    pub fn slice(&self, dim: isize, start: isize, end: isize, step: usize) -> Result<Var> {
        let at = self.shape().dim("slice", dim)?;
        let (Some(&n), false) = (self.shape().get(at), step == 0) else {
            let message = format!("takes a dimension and a step of at least 1, got {step} for {:?}", self.shape());
            return Err(TensorError::Argument { op: "slice", message }.into());
        };
        let place = |i: isize| if i < 0 { n.saturating_sub(i.unsigned_abs()) } else { n.min(i as usize) };
        let (start, end) = (place(start), place(end));
        let length = end.saturating_sub(start);
        if step == 1 || length == 0 {
            return self.narrow(dim, start, length);
        }
        let every = self.range(start as i64, length)?;
        let mut layout = *every.array().layout();
        (layout.shape[0], layout.strides[0]) = (length.div_ceil(step), step);
        self.index_select(dim, &Var::constant(every.array().with_layout(layout)?))
    }

    /// Broadcast to a shape, a view.
    ///
    /// # Errors
    /// The shape does not broadcast to it.
    pub fn expand(&self, shape: &[usize]) -> Result<Var> {
        apply(Op::View(View::Expand(Shape::new(shape)?)), &[self])
    }
}

/// The shape asked for, with -1 resolved.
fn resolve(from: &Shape, shape: &[isize]) -> Result<Shape> {
    let mut extents = shape.iter().filter(|&&d| d >= 0).map(|&d| d as usize);
    let known = extents.try_fold(1usize, |n, d| n.checked_mul(d)).unwrap_or(usize::MAX);
    let left = from.numel().checked_div(known).unwrap_or(0);
    let bad = shape.iter().filter(|&&d| d < 0).count() > 1 || shape.iter().any(|&d| d < -1);
    let dims: Vec<usize> = shape.iter().map(|&d| if d < 0 { left } else { d as usize }).collect();
    let out = Shape::new(&dims)?;
    if bad || out.numel() != from.numel() {
        return Err(TensorError::Shape {
            op: "reshape",
            expected: format!("expected as many elements as {shape:?} has"),
            shapes: vec![*from],
        }
        .into());
    }
    Ok(out)
}

/// Joining and splitting.
impl Var {
    /// Concatenation along a dimension.
    ///
    /// # Errors
    /// No tensors, or shapes that differ elsewhere.
    pub fn cat(tensors: &[&Var], dim: isize) -> Result<Var> {
        let first = tensors
            .first()
            .ok_or_else(|| TensorError::Argument { op: "cat", message: "at least one tensor is needed".into() })?;
        apply(Op::Cat { dim: first.shape().dim("cat", dim)? }, tensors)
    }

    /// Tensors of one shape along a new dimension.
    ///
    /// # Errors
    /// No tensors, or shapes that differ; the dimension is out of range.
    pub fn stack(tensors: &[&Var], dim: isize) -> Result<Var> {
        let Some(first) = tensors.first() else {
            return Err(TensorError::Argument { op: "stack", message: "at least one tensor is needed".into() }.into());
        };
        let rank = first.shape().rank() as isize + 1;
        if !(-rank..rank).contains(&dim) {
            return Err(TensorError::DimOutOfRange { op: "stack", dim, rank: rank as usize }.into());
        }
        let at = dim.rem_euclid(rank);
        let parts = tensors.iter().map(|t| t.unsqueeze(at as usize)).collect::<Result<Vec<_>>>()?;
        Var::cat(&parts.iter().collect::<Vec<_>>(), at)
    }

    /// Views of `sizes` consecutive elements of a dimension.
    ///
    /// # Errors
    /// The sizes do not add up to the extent.
    pub fn split(&self, sizes: &[usize], dim: isize) -> Result<Vec<Var>> {
        let at = self.shape().dim("split", dim)?;
        let n = self.shape().get(at).copied().unwrap_or(1);
        if sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(n) {
            let message = format!("sizes {sizes:?} do not add up to the extent {n}");
            return Err(TensorError::Argument { op: "split", message }.into());
        }
        let mut start = 0;
        sizes
            .iter()
            .map(|&size| {
                let part = self.narrow(dim, start, size);
                start += size;
                part
            })
            .collect()
    }

    /// `count` views of a dimension, each of ⌈n/count⌉ elements but the last; fewer where that fills the dimension
    /// sooner.
    ///
    /// # Errors
    /// `count` is 0; the dimension is out of range.
    pub fn chunk(&self, count: usize, dim: isize) -> Result<Vec<Var>> {
        let at = self.shape().dim("chunk", dim)?;
        let n = self.shape().get(at).copied().unwrap_or(1);
        if count == 0 {
            return Err(TensorError::Argument { op: "chunk", message: "count must be at least 1".into() }.into());
        }
        let size = n.div_ceil(count).max(1);
        let sizes: Vec<usize> = (0..n.div_ceil(size).max(1)).map(|i| size.min(n - i * size)).collect();
        self.split(&sizes, dim)
    }

    /// The tensor repeated `times` along each dimension (more counts than dimensions add leading ones).
    ///
    /// # Errors
    /// Fewer counts than dimensions.
    pub fn repeat(&self, times: &[usize]) -> Result<Var> {
        let rank = self.shape().rank();
        if times.len() < rank {
            let message = format!("takes a count for each of {rank} dimensions, got {times:?}");
            return Err(TensorError::Argument { op: "repeat", message }.into());
        }
        // Each dimension as [times, extent], the first broadcast. One at a time: ranks stay small.
        let mut x = self.clone();
        for _ in rank..times.len() {
            x = x.unsqueeze(0)?;
        }
        for (d, &n) in times.iter().enumerate() {
            if n == 1 {
                continue;
            }
            let mut wide = x.shape().to_vec();
            wide.insert(d, n);
            let mut shape: Vec<isize> = x.shape().iter().map(|&d| d as isize).collect();
            let extent = isize::try_from(n).ok().and_then(|n| shape[d].checked_mul(n));
            shape[d] = extent.ok_or(TensorError::TooLarge { shape: times.to_vec() })?;
            x = x.unsqueeze(d)?.expand(&wide)?.reshape(&shape)?;
        }
        Ok(x)
    }
}
