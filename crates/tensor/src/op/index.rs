//! Elements by their positions: gathering, scattering, sorting, embeddings.

use smallvec::smallvec;

use super::bound::{Bound, numel};
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::{Backward, Op};
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Layout, Meta, Result, Shape};

/// [`Op::Gather`].
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// Dimension.
    pub dim: usize,
}

impl Family for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (dim, ins) = (&self.dim, check.ins);
        check.count(2)?;
        check.dtype(1, &[DType::I64])?;
        check.along(*dim, ins[0].shape(), ins[1].shape())?;
        Ok(smallvec![check.moved(|i| self.moves(i), Layout::contiguous(*ins[1].shape()))?])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.vary(vec![s.x(&[3, 4, 5], 1), s.index(&[2, 4, 5], [3, 4, 5][self.dim])])
    }

    fn moves(&self, input: usize) -> bool {
        input == 0
    }
}

/// [`Backward::Gather`].
#[derive(Clone, Copy, Debug)]
pub struct GatherBackward {
    /// Dimension.
    pub dim: usize,
    /// Shape of x.
    pub shape: Shape,
}

impl Family for GatherBackward {
    fn name(&self) -> &'static str {
        "gather_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (GatherBackward { dim, shape }, ins) = (self, check.ins);
        check.count(2)?;
        check.same_shape(0, 1)?;
        check.along(*dim, shape, ins[1].shape())?;
        Ok(smallvec![check.dense(*shape)])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        Bound::Gamma(numel(ins, 1) + 1.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[2, 4, 5], 9), s.index(&[2, 4, 5], self.shape[self.dim] as i64)]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        Some(Op::Backward(Backward::Gather { dim: self.dim, shape: change(&self.shape) }))
    }
}

/// What scattering does with the element that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scatter {
    /// Replaces it; of equal indices the last wins.
    Set,
    /// Adds to it, in order.
    Add,
}

/// [`Op::Scatter`].
#[derive(Clone, Copy, Debug)]
pub struct ScatterOp {
    /// Set or add.
    pub kind: Scatter,
    /// Dimension.
    pub dim: usize,
}

impl Family for ScatterOp {
    fn name(&self) -> &'static str {
        "scatter"
    }

    fn numerics(&self) -> Numerics {
        Numerics::Promote
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (ScatterOp { dim, kind }, ins) = (self, check.ins);
        check.count(3)?;
        if *kind == Scatter::Add {
            check.floats(0..1)?;
            check.floats(2..3)?;
        }
        check.dtype(1, &[DType::I64])?;
        check.along(*dim, ins[0].shape(), ins[1].shape())?;
        let (index, src) = (ins[1].shape(), ins[2].shape());
        if index.rank() != src.rank() || index.iter().zip(src.iter()).any(|(i, s)| i > s) {
            return check.shape("an index no larger than src");
        }
        Ok(smallvec![check.moved(|i| self.moves(i), Layout::contiguous(*ins[0].shape()))?])
    }

    /// As many additions as src has elements for one place.
    fn bound(&self, ins: &[&Array]) -> Bound {
        Bound::Gamma(numel(ins, 2) + 1.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.vary(vec![s.x(&[3, 4, 5], 1), s.index(&[2, 4, 5], [3, 4, 5][self.dim]), s.x(&[3, 4, 6], 2)])
    }

    fn moves(&self, input: usize) -> bool {
        self.kind == Scatter::Set && input != 1
    }
}

/// [`Op::Sort`].
#[derive(Clone, Copy, Debug)]
pub struct Sort {
    /// Dimension.
    pub dim: usize,
    /// Largest first.
    pub descending: bool,
    /// How many.
    pub length: usize,
}

impl Family for Sort {
    fn name(&self) -> &'static str {
        "sort"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (Sort { dim, length, .. }, ins) = (self, check.ins);
        check.count(1)?;
        let mut shape = *ins[0].shape();
        let n = if shape.rank() == 0 { 1 } else { shape[check.dim(0, *dim)?] };
        if *length > n {
            return check.argument(format!("{length} elements wanted of {n}"));
        }
        if let Some(extent) = shape.get_mut(*dim) {
            *extent = *length;
        }
        let layout = Layout::contiguous(shape);
        Ok(smallvec![check.moved(|i| self.moves(i), layout)?, Meta { dtype: DType::I64, layout }])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        [[3, 4, 5], [9, 5, 3], [3, 70, 7]].iter().flat_map(|size| s.vary(vec![s.x(size, 1)])).collect()
    }

    fn moves(&self, _input: usize) -> bool {
        true
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        let length = change(&Shape::from_slice(&[self.length]))[0];
        Some(Op::Sort { dim: self.dim, descending: self.descending, length })
    }
}

/// [`Op::Embedding`].
#[derive(Clone, Copy, Debug)]
pub struct Embedding;

impl Family for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let ins = check.ins;
        check.count(2)?;
        check.dtype(1, &[DType::I64, DType::U32])?;
        if ins[0].shape().rank() != 2 || ins[1].shape().rank() + 1 > crate::MAX_RANK {
            return check.shape("a weight [rows, features] and indices of any shape");
        }
        let mut shape = *ins[1].shape();
        shape.push(ins[0].shape()[1]);
        Ok(smallvec![check.moved(|i| self.moves(i), Layout::contiguous(shape))?])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[11, 5], 1), s.index(&[4, 6], 11)], vec![s.x(&[11, 5], 1), s.index(&[0], 11)]]
    }

    fn moves(&self, input: usize) -> bool {
        input == 0
    }
}

/// [`Backward::Embedding`].
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingBackward {
    /// Rows of the weight.
    pub rows: usize,
}

impl Family for EmbeddingBackward {
    fn name(&self) -> &'static str {
        "embedding_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (rows, ins) = (&self.rows, check.ins);
        check.count(2)?;
        let fits = |g: &(&usize, &[usize])| *g.1 == **ins[1].shape();
        let Some((&features, _)) = ins[0].shape().split_last().filter(fits) else {
            return check.shape("the gradient […, D] of rows at an index […]");
        };
        Ok(smallvec![check.dense(Shape::from_slice(&[*rows, features]))])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        Bound::Gamma(numel(ins, 1) + 1.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[4, 6, 70], 9), s.index(&[4, 6], self.rows as i64)]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        Some(Op::Backward(Backward::Embedding { rows: change(&Shape::from_slice(&[self.rows]))[0] }))
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for dim in [0, 1, 2] {
        let shape = Shape::from_slice(&[3, 4, 5]);
        ops.extend([Op::Gather { dim }, Op::Backward(Backward::Gather { dim, shape })]);
        ops.extend([Scatter::Set, Scatter::Add].map(|kind| Op::Scatter { kind, dim }));
        ops.push(Op::Sort { dim, descending: dim == 1, length: 3 });
    }
    ops.extend([Op::Embedding, Op::Backward(Backward::Embedding { rows: 11 })]);
    ops
}
