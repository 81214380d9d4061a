//! What the rows of the table compute with.

use std::sync::Arc;

use binade_tensor::op::{Backward, Reduce, Saved, Unary, View};
use binade_tensor::{DType, Device, Dims, Meta, Op, Shape};
use smallvec::{SmallVec, smallvec};

use super::Values;
use crate::value::Value;
use crate::{Error, Result};

/// What a gradient is computed from.
pub(crate) struct Context<'a, V> {
    pub(super) op: &'a Op,
    pub(super) path: &'a Arc<str>,
    pub(super) metas: &'a [Meta],
    pub(super) needs: SmallVec<[bool; 4]>,
    pub(super) values: Values<V>,
    /// In place of the first input, where it is an activation of a value.
    pub(super) activated: Option<(Unary, V)>,
    pub(super) device: &'a Device,
}

impl<'a, V: Value> Context<'a, V> {
    pub(crate) fn new(
        op: &'a Op,
        path: &'a Arc<str>,
        metas: &'a [Meta],
        needs: SmallVec<[bool; 4]>,
        values: Values<V>,
        activated: Option<(Unary, V)>,
        device: &'a Device,
    ) -> Context<'a, V> {
        Context { op, path, metas, needs, values, activated, device }
    }

    /// The gradient of input `i`, computed only if it needs one.
    pub(super) fn when(&self, i: usize, f: impl FnOnce() -> Result<V>) -> Result<Option<V>> {
        if self.needs[i] { f().map(Some) } else { Ok(None) }
    }

    /// A saved input.
    pub(super) fn input(&self, i: usize) -> Result<&V> {
        self.saved(i).ok_or(Error::Released { op: self.op.name(), path: self.path.clone() })
    }

    /// A saved input or, counted after them, output; `None` if it was not saved.
    pub(super) fn saved(&self, i: usize) -> Option<&V> {
        self.values.get(i).and_then(Option::as_ref)
    }

    /// A saved output.
    pub(super) fn output(&self, i: usize) -> Result<&V> {
        self.input(self.metas.len() + i)
    }

    pub(super) fn dtype(&self, i: usize) -> DType {
        self.metas[i].dtype
    }

    pub(super) fn shape(&self, i: usize) -> &'a Shape {
        &self.metas[i].layout.shape
    }

    pub(super) fn run(&self, op: Op, ins: &[&V], want: DType) -> Result<V> {
        V::run(op, ins, self.device, want)
    }

    /// As [`Context::run`], where the gradient `g` may give its memory to the result.
    pub(super) fn run_over(&self, op: Op, g: V, kept: &[&V], want: DType) -> Result<V> {
        V::run_over(op, smallvec![g], kept, self.device, want)
    }

    /// The gradient `g` of `row(x)` as that of x, from whichever of x and `row(x)` is at hand. A derivative is written
    /// in one of the two ([`Unary::saved`]); only here it is chosen which, and the result computed again where it was
    /// not saved.
    pub(super) fn before(&self, row: Unary, g: V, argument: Option<&V>, result: Option<&V>, want: DType) -> Result<V> {
        let op = Op::Backward(Backward::Unary(row));
        let released = || Error::Released { op: self.op.name(), path: self.path.clone() };
        match (row.saved(), result) {
            (Saved::Nothing, _) => self.run(op, &[&g, &g], want),
            (Saved::Input, _) => self.run_over(op, g, &[argument.ok_or_else(released)?], want),
            (Saved::Output, Some(result)) => self.run_over(op, g, &[result], want),
            (Saved::Output, None) => {
                let argument = argument.ok_or_else(released)?;
                let result = self.run(Op::Unary(row), &[argument], argument.dtype().accum())?;
                self.run_over(op, g, &[&result], want)
            }
        }
    }

    pub(super) fn view(&self, value: &V, view: View) -> Result<V> {
        self.run(Op::View(view), &[value], value.array().dtype())
    }

    pub(super) fn cast(&self, value: V, dtype: DType) -> Result<V> {
        value.to(dtype)
    }

    /// A copy in row-major order, if the value is not.
    pub(super) fn contiguous(&self, value: &V) -> Result<V> {
        let array = value.array();
        if array.layout().is_contiguous() { Ok(value.clone()) } else { self.run(Op::Copy, &[value], array.dtype()) }
    }

    /// A constant.
    pub(super) fn full(&self, dtype: DType, shape: Shape, value: f64) -> Result<V> {
        self.run(Op::Fill { value, shape }, &[], dtype)
    }

    /// `g` in the shape and dtype of input `i`: broadcast dimensions are summed, in f32.
    pub(super) fn fit(&self, g: V, i: usize) -> Result<V> {
        let (shape, dtype) = (self.shape(i), self.dtype(i));
        if g.shape() == shape {
            return self.cast(g, dtype);
        }
        let lead = g.shape().rank() - shape.rank();
        let mut dims: Option<Dims> = None;
        for d in 0..g.shape().rank() {
            if d < lead || shape[d - lead] == 1 && g.shape()[d] != 1 {
                dims = Some(dims.map_or(Dims::one(d), |dims| dims.with(d)));
            }
        }
        let summed = match dims {
            Some(dims) => self.run(Op::Reduce { kind: Reduce::Sum, dims, keepdim: true }, &[&g], dtype)?,
            None => self.cast(g, dtype)?,
        };
        self.view(&summed, View::Reshape(*shape))
    }

    /// Gives up a saved input or output that has served: its memory is there for the gradients still to come.
    pub(super) fn release(&mut self, i: usize) {
        if let Some(value) = self.values.get_mut(i) {
            *value = None;
        }
        if i == 0 {
            self.activated = None;
        }
    }
}
