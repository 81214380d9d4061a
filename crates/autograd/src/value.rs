//! [`Value`]: what the backward table computes with: plain arrays, or variables whose history is recorded, for
//! gradients of gradients. One table serves both.

use std::sync::Arc;

use binade_tensor::{Array, Class, DType, Device, Layout, Meta, Op, Shape};
use smallvec::SmallVec;

use crate::node::Node;
use crate::{Result, scope};

/// A gradient, or a value one is computed from.
pub(crate) trait Value: Clone {
    /// Whether operators are recorded.
    const RECORDED: bool;

    /// A value with the node it came from.
    fn new(array: Array, node: Option<&Arc<Node>>) -> Self;

    fn array(&self) -> &Array;

    /// The first output of an operator, in dtype `want` whatever the cast rule.
    fn run(op: Op, ins: &[&Self], device: &Device, want: DType) -> Result<Self>;

    /// As [`Value::run`], on `given`, which nobody needs any more if the caller was the last to have it, and `kept`, in
    /// this order: the result may take the memory of what was given.
    fn run_over(op: Op, given: SmallVec<[Self; 2]>, kept: &[&Self], device: &Device, want: DType) -> Result<Self>;

    /// The first output of an operator, laid out in memory as told where the operator is not recorded.
    fn run_laid_out(op: Op, ins: &[&Self], device: &Device, meta: Meta) -> Result<Self>;

    /// All outputs. Where operators are recorded, only the first has a history.
    fn run_all(op: Op, ins: &[&Self], device: &Device, want: DType) -> Result<SmallVec<[Self; 3]>>;

    fn shape(&self) -> &Shape {
        self.array().shape()
    }

    fn dtype(&self) -> DType {
        self.array().dtype()
    }

    fn layout(&self) -> &Layout {
        self.array().layout()
    }

    fn numel(&self) -> usize {
        self.array().numel()
    }

    /// In another dtype.
    fn to(self, dtype: DType) -> Result<Self> {
        if self.dtype() == dtype {
            return Ok(self);
        }
        Self::run(Op::Cast(dtype), &[&self], self.array().device(), dtype)
    }
}

impl Value for Array {
    const RECORDED: bool = false;

    fn new(array: Array, _node: Option<&Arc<Node>>) -> Array {
        array
    }

    fn array(&self) -> &Array {
        self
    }

    fn run(op: Op, ins: &[&Array], device: &Device, want: DType) -> Result<Array> {
        let out = binade_tensor::run_one(&op, ins, device, want, Class::Gradients)?;
        scope::observe(&op, ins, std::slice::from_ref(&out));
        Ok(out)
    }

    fn run_over(op: Op, given: SmallVec<[Array; 2]>, kept: &[&Array], device: &Device, want: DType) -> Result<Array> {
        // An observer sees operands as they were.
        if scope::is_observed() {
            let ins: SmallVec<[&Array; 4]> = given.iter().chain(kept.iter().copied()).collect();
            return Array::run(op, &ins, device, want);
        }
        Ok(binade_tensor::run_over(&op, given, kept, device, want, Class::Gradients)?)
    }

    fn run_laid_out(op: Op, ins: &[&Array], device: &Device, meta: Meta) -> Result<Array> {
        let out = binade_tensor::run_laid_out(&op, ins, device, meta, Class::Gradients)?;
        scope::observe(&op, ins, std::slice::from_ref(&out));
        Ok(out)
    }

    fn run_all(op: Op, ins: &[&Array], device: &Device, want: DType) -> Result<SmallVec<[Array; 3]>> {
        let outs = binade_tensor::run(&op, ins, device, want, Class::Gradients)?;
        scope::observe(&op, ins, &outs);
        Ok(outs.into_iter().collect())
    }
}
