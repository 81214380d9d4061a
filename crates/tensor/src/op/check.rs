//! Checks of an operator's inputs, each with its error, and the shapes and layouts that follow from them.

use smallvec::SmallVec;

use crate::{DType, Error, Layout, Meta, Result, Shape};

/// Shape, dtype and layout of every output.
pub type Outs = SmallVec<[Meta; 1]>;

/// The inputs of one operator and the dtype wanted of its results; the checks on them, and outputs made of them.
pub(crate) struct Check<'a> {
    pub(crate) op: &'static str,
    pub(crate) ins: &'a [Meta],
    pub(crate) want: DType,
}

impl<'a> Check<'a> {
    /// Of other inputs.
    pub(super) fn of<'b>(&self, ins: &'b [Meta]) -> Check<'b> {
        Check { op: self.op, ins, want: self.want }
    }

    /// A float output.
    pub(super) fn float(&self, layout: Layout) -> Meta {
        Meta { dtype: self.want, layout }
    }

    /// A float output in row-major order.
    pub(super) fn dense(&self, shape: Shape) -> Meta {
        self.float(Layout::contiguous(shape))
    }

    /// A float output of the shape and memory order of input `i`.
    pub(super) fn like(&self, i: usize) -> Meta {
        self.float(self.ins[i].layout.like(*self.ins[i].shape()))
    }

    /// Statistics are f32, or f64 where the input is.
    pub(super) fn stats(&self, shape: Shape) -> Meta {
        let dtype = if self.ins[0].dtype == DType::F64 { DType::F64 } else { DType::F32 };
        Meta { dtype, layout: Layout::contiguous(shape) }
    }

    /// Fails unless an operator's number lies in its domain: PyTorch's where it has one, so that no number makes a
    /// result NaN without a word.
    pub(super) fn domain(&self, ok: bool, what: &str, allowed: &str, found: f64) -> Result<()> {
        if ok { Ok(()) } else { self.argument(format!("{what} must be {allowed}, got {found}")) }
    }

    fn shapes(&self) -> Vec<Shape> {
        self.ins.iter().map(|m| *m.shape()).collect()
    }

    pub(super) fn shape<T>(&self, expected: &str) -> Result<T> {
        Err(Error::Shape { op: self.op, expected: format!("expected {expected}"), shapes: self.shapes() })
    }

    pub(super) fn argument<T>(&self, message: String) -> Result<T> {
        Err(Error::Argument { op: self.op, message })
    }

    pub(super) fn count(&self, n: usize) -> Result<()> {
        if self.ins.len() != n {
            return self.argument(format!("takes {n} tensors, got {}", self.ins.len()));
        }
        Ok(())
    }

    pub(super) fn dtype(&self, i: usize, allowed: &[DType]) -> Result<()> {
        if !allowed.contains(&self.ins[i].dtype) {
            let names: Vec<_> = allowed.iter().map(|d| d.name()).collect();
            return Err(Error::DType {
                op: self.op,
                expected: format!("tensor {} must be {}", i + 1, names.join(" or ")),
                dtypes: self.ins.iter().map(|m| m.dtype).collect(),
            });
        }
        Ok(())
    }

    pub(super) fn floats(&self, range: std::ops::Range<usize>) -> Result<()> {
        for i in range {
            self.dtype(i, &DType::FLOATS)?;
        }
        Ok(())
    }

    /// An output of the elements of inputs that are moved as they are: floats become the wanted dtype, any others must
    /// be alike and keep theirs.
    pub(super) fn moved(&self, moves: impl Fn(usize) -> bool, layout: Layout) -> Result<Meta> {
        let kept = |dtype: DType| if dtype.is_float() { self.want } else { dtype };
        let mut dtypes = (0..self.ins.len()).filter(|&i| moves(i)).map(|i| kept(self.ins[i].dtype));
        let dtype = dtypes.next().unwrap_or(self.want);
        if dtypes.all(|other| other == dtype) {
            return Ok(Meta { dtype, layout });
        }
        let expected = "elements that are all floats, or all of one other dtype".into();
        Err(Error::DType { op: self.op, expected, dtypes: self.ins.iter().map(|m| m.dtype).collect() })
    }

    pub(super) fn dim(&self, i: usize, dim: usize) -> Result<usize> {
        self.ins[i].shape().dim(self.op, dim as isize)
    }

    /// An index along `dim` of a tensor of shape `x`.
    pub(super) fn along(&self, dim: usize, x: &Shape, index: &Shape) -> Result<()> {
        if x.rank() == 0 && index.rank() == 0 {
            return Ok(());
        }
        if dim >= x.rank() {
            return Err(Error::DimOutOfRange { op: self.op, dim: dim as isize, rank: x.rank() });
        }
        if index.rank() != x.rank() || (0..x.rank()).any(|d| d != dim && index[d] > x[d]) {
            return self.shape(&format!("an index of the tensor's rank, no larger in any dimension but {dim}"));
        }
        Ok(())
    }

    pub(super) fn same_shape(&self, a: usize, b: usize) -> Result<()> {
        if self.ins[a].shape() != self.ins[b].shape() { self.shape("equal shapes") } else { Ok(()) }
    }

    /// Layout of the broadcast shape, in the memory order of the first input that has the whole shape.
    pub(super) fn broadcast(&self, range: std::ops::Range<usize>) -> Result<Layout> {
        let mut shape = *self.ins[range.start].shape();
        for meta in &self.ins[range.clone()] {
            match shape.broadcast(meta.shape()) {
                Some(both) => shape = both,
                None => return self.shape("shapes that broadcast: aligned at the right, extents equal or 1"),
            }
        }
        let whole = self.ins[range].iter().find(|m| *m.shape() == shape);
        Ok(whole.map_or(Layout::contiguous(shape), |m| m.layout.like(shape)))
    }
}
