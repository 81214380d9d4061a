//! What only moves elements, or rounds them: views, copies, casts, concatenation.

use smallvec::smallvec;

use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::Family;
use super::{Backward, Op};
use crate::samples::{Inputs, KEY, Sampler};
use crate::{Array, DType, Error, Key, Layout, Meta, Result, Shape};

/// Views: the same storage under another layout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum View {
    /// Dimensions in another order; the shape holds the old index of each new dimension.
    Permute(Shape),
    /// Another shape of as many elements; the input's strides must allow it (else copy first).
    Reshape(Shape),
    /// `length` elements of `dim` from `start`.
    Narrow {
        /// Dimension.
        dim: usize,
        /// First index.
        start: usize,
        /// Number of indices.
        length: usize,
    },
    /// Broadcast to a shape.
    Expand(Shape),
}

impl Family for View {
    fn name(&self) -> &'static str {
        match self {
            View::Permute(_) => "permute",
            View::Reshape(_) => "reshape",
            View::Narrow { .. } => "narrow",
            View::Expand(_) => "expand",
        }
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(1)?;
        Ok(smallvec![Meta { dtype: check.ins[0].dtype, layout: layout(check, self)? }])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, _s: &Sampler<'_>) -> Vec<Inputs> {
        vec![]
    }

    fn is_conversion(&self) -> bool {
        true
    }
}

fn layout(check: &Check<'_>, view: &View) -> Result<Layout> {
    let layout = &check.ins[0].layout;
    let rank = layout.shape.rank();
    match view {
        View::Permute(axes) => {
            let mut seen = axes.to_vec();
            seen.sort_unstable();
            if !seen.iter().copied().eq(0..rank) {
                return check.argument(format!("axes {axes:?} are not a permutation of {rank} dimensions"));
            }
            Ok(layout.permute(axes))
        }
        View::Reshape(shape) => {
            if shape.numel() != layout.numel() {
                return check.shape(&format!("as many elements as {shape:?} has"));
            }
            match layout.reshape(shape) {
                Some(layout) => Ok(layout),
                None => check.argument("the strides do not allow this view; copy first".into()),
            }
        }
        View::Narrow { dim, start, length } => {
            let dim = check.dim(0, *dim)?;
            let n = layout.shape.get(dim).copied().unwrap_or(1);
            if rank == 0 || start.checked_add(*length).is_none_or(|end| end > n) {
                return check.argument(format!("{length} elements from {start} on are out of range for {n} elements"));
            }
            Ok(layout.narrow(dim, *start, *length))
        }
        View::Expand(shape) => match layout.expand(shape) {
            Some(layout) => Ok(layout),
            None => check.shape(&format!("a shape that broadcasts to {shape:?}")),
        },
    }
}

/// [`Op::Cast`].
#[derive(Clone, Copy, Debug)]
pub struct Cast(pub DType);

impl Family for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (Cast(dtype), ins) = (self, check.ins);
        check.count(1)?;
        Ok(smallvec![Meta { dtype: *dtype, layout: ins[0].layout.like(*ins[0].shape()) }])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.sizes()
    }

    fn is_conversion(&self) -> bool {
        true
    }

    fn natural_dtype(&self, _ins: &[DType]) -> DType {
        self.0
    }
}

/// [`Op::StochasticCast`].
#[derive(Clone, Copy, Debug)]
pub struct StochasticCast {
    /// Target.
    pub dtype: DType,
    /// Random stream.
    pub key: Key,
}

impl Family for StochasticCast {
    fn name(&self) -> &'static str {
        "stochastic_cast"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (StochasticCast { dtype, .. }, ins) = (self, check.ins);
        check.count(1)?;
        check.floats(0..1)?;
        if !dtype.is_half() {
            return Err(Error::DType { op: check.op, expected: "f16 or bf16 as target".into(), dtypes: vec![*dtype] });
        }
        Ok(smallvec![Meta { dtype: *dtype, layout: Layout::contiguous(*ins[0].shape()) }])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.sizes()
    }

    fn is_conversion(&self) -> bool {
        true
    }

    fn natural_dtype(&self, _ins: &[DType]) -> DType {
        self.dtype
    }
}

/// [`Op::Copy`].
#[derive(Clone, Copy, Debug)]
pub struct Copied;

impl Family for Copied {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let ins = check.ins;
        check.count(1)?;
        Ok(smallvec![Meta { dtype: ins[0].dtype, layout: Layout::contiguous(*ins[0].shape()) }])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.sizes()
    }

    fn is_conversion(&self) -> bool {
        true
    }
}

/// [`Op::Cat`].
#[derive(Clone, Copy, Debug)]
pub struct Cat {
    /// Dimension.
    pub dim: usize,
}

impl Family for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (Cat { dim }, ins) = (self, check.ins);
        if ins.is_empty() {
            return check.argument("at least one tensor is needed".into());
        }
        let (dim, mut shape) = (check.dim(0, *dim)?, *ins[0].shape());
        if shape.rank() == 0 {
            return check.shape("tensors of at least one dimension");
        }
        shape[dim] = 0;
        for meta in ins {
            let mut other = *meta.shape();
            if other.rank() == shape.rank() {
                let extent = std::mem::replace(&mut other[dim], shape[dim]);
                if other == shape {
                    let Some(sum) = shape[dim].checked_add(extent) else {
                        return check.shape("extents whose sum is a number of elements");
                    };
                    shape[dim] = sum;
                    continue;
                }
            }
            return check.shape("shapes that differ in the concatenated dimension only");
        }
        Ok(smallvec![check.moved(|i| self.moves(i), ins[0].layout.like(shape))?])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let dim = &self.dim;
        let other: &[usize] = if *dim == 0 { &[2, 4, 5] } else { &[3, 1, 5] };
        s.vary(vec![s.x(&[3, 4, 5], 1), s.x(other, 2)])
    }

    fn moves(&self, _input: usize) -> bool {
        true
    }
}

/// [`Backward::Narrow`].
#[derive(Clone, Copy, Debug)]
pub struct NarrowBackward {
    /// Dimension.
    pub dim: usize,
    /// First index.
    pub start: usize,
    /// Shape of the whole.
    pub shape: Shape,
}

impl Family for NarrowBackward {
    fn name(&self) -> &'static str {
        "narrow_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (NarrowBackward { dim, start, shape }, ins) = (self, check.ins);
        check.count(1)?;
        let mut part = *shape;
        if let (Some(whole), Some(&n)) = (part.get_mut(*dim), ins[0].shape().get(*dim)) {
            *whole = if start.checked_add(n).is_some_and(|end| end <= *whole) { n } else { 0 };
        }
        if part != *ins[0].shape() {
            return check.shape(&format!("a part of {shape:?}"));
        }
        Ok(smallvec![check.float(ins[0].layout.like(*shape))])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[3, 4, 5], 9)]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        let NarrowBackward { dim, start, shape } = *self;
        Some(Op::Backward(Backward::Narrow { dim, start, shape: change(&shape) }))
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let shape = |dims: &[usize]| Shape::from_slice(dims);
    let mut ops = vec![Op::Cat { dim: 0 }, Op::Cat { dim: 1 }];
    ops.extend(DType::FLOATS.map(Op::Cast));
    ops.extend([DType::F16, DType::BF16].map(|dtype| Op::StochasticCast { dtype, key: KEY }));
    ops.extend([
        Op::Copy,
        Op::View(View::Permute(shape(&[2, 0, 1]))),
        Op::Backward(Backward::Narrow { dim: 1, start: 2, shape: shape(&[3, 9, 5]) }),
    ]);
    ops
}
