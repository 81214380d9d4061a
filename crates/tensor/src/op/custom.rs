//! [`CustomOp`]: operators of users, with the same parts as those of the library.

use std::fmt::Debug;
use std::sync::Arc;

use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::program::{Builder, Value};
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Device, Result, Shape};

/// A tensor's elements in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// Extents.
    pub shape: &'a Shape,
    /// Elements.
    pub values: &'a [T],
}

/// An operator defined outside the library: wrap it in [`Custom`] and apply it like any other. Nothing here has a
/// default that hides a missing part: an operator without gradient, error bound or samples does not compile.
///
/// Storage is the library's business: inputs arrive widened to f32 (f64 where one of them is), outputs are rounded
/// once. See `examples/custom_op.rs` of `binade-autograd`.
pub trait CustomOp: Debug + Send + Sync {
    /// Name in messages, reports and policies.
    fn name(&self) -> &'static str;

    /// How the operator behaves in 16 bit; autocast policies map it to dtypes.
    fn numerics(&self) -> Numerics;

    /// Shapes of the outputs, all floats of the result's dtype.
    ///
    /// # Errors
    /// Shapes the operator does not take.
    fn shapes(&self, ins: &[Shape]) -> Result<Vec<Shape>>;

    /// The definition, in f64: what the kernel is checked against, and the kernel of f64 tensors.
    ///
    /// # Errors
    /// Values the operator does not take.
    fn define(&self, ins: &[View<'_, f64>], outs: &mut [Vec<f64>]) -> Result<()>;

    /// The f32 kernel, which also serves f16 and bf16.
    ///
    /// # Errors
    /// Values the operator does not take.
    fn run(&self, ins: &[View<'_, f32>], outs: &mut [Vec<f32>]) -> Result<()>;

    /// The gradient of each input, in operators: from the gradient `g` of the first output, the inputs, and the first
    /// output. `None` for an input without gradient. Being operators, gradients can be differentiated again.
    ///
    /// # Errors
    /// As [`Builder::op`].
    fn backward(&self, builder: &mut Builder, g: Value, ins: &[Value], out: Value) -> Result<Vec<Option<Value>>>;

    /// How far the f32 kernel may lie from the definition.
    fn bound(&self, ins: &[&Array]) -> Bound;

    /// Inputs whose floats have `dtype`, for checks.
    ///
    /// # Errors
    /// Out of memory.
    fn samples(&self, device: &Device, dtype: DType) -> Result<Vec<Inputs>>;
}

/// A shared [`CustomOp`]; equal to itself only.
#[derive(Clone, Debug)]
pub struct Custom(Arc<dyn CustomOp>);

impl Custom {
    /// Wraps an operator.
    pub fn new(op: impl CustomOp + 'static) -> Custom {
        Custom(Arc::new(op))
    }
}

impl std::ops::Deref for Custom {
    type Target = dyn CustomOp;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Custom) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Family for Custom {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn numerics(&self) -> Numerics {
        self.0.numerics()
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let shapes: Vec<Shape> = check.ins.iter().map(|m| *m.shape()).collect();
        Ok(self.0.shapes(&shapes)?.into_iter().map(|shape| check.dense(shape)).collect())
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        self.0.bound(ins)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        self.0.samples(s.device, s.dtype).expect("samples fit in memory")
    }
}
