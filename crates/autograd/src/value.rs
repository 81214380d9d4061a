//! [`Value`]: what the backward table computes with: plain arrays, or variables whose history is recorded, for
//! gradients of gradients. One table serves both.

use std::sync::Arc;

use binade_tensor::{Array, Class, DType, Device, Layout, Meta, Op, Request, Shape, run};
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

    /// On a device.
    fn on(&self, device: &Device) -> Result<Self>;

    /// Runs an operator on `given` and `kept`, in this order, with floats in dtype `want` whatever the cast rule. Of
    /// `given` nobody needs what the caller was the last to have. Where operators are not recorded, the first output
    /// may take the memory of what was given, and lies in memory as `layout` says; where they are, only the first has a
    /// history.
    fn perform(
        op: Op,
        given: SmallVec<[Self; 2]>,
        kept: &[&Self],
        device: &Device,
        want: DType,
        layout: Option<Layout>,
    ) -> Result<SmallVec<[Self; 3]>>;

    /// All outputs.
    fn run_all(op: Op, ins: &[&Self], device: &Device, want: DType) -> Result<SmallVec<[Self; 3]>> {
        Self::perform(op, SmallVec::new(), ins, device, want, None)
    }

    /// The first output.
    fn run(op: Op, ins: &[&Self], device: &Device, want: DType) -> Result<Self> {
        Ok(Self::run_all(op, ins, device, want)?.swap_remove(0))
    }

    /// The first output, perhaps in the memory of what was given.
    fn run_over(op: Op, given: SmallVec<[Self; 2]>, kept: &[&Self], device: &Device, want: DType) -> Result<Self> {
        Ok(Self::perform(op, given, kept, device, want, None)?.swap_remove(0))
    }

    /// The first output, laid out in memory as told where the operator is not recorded.
    fn run_laid_out(op: Op, ins: &[&Self], device: &Device, meta: Meta) -> Result<Self> {
        Ok(Self::perform(op, SmallVec::new(), ins, device, meta.dtype, Some(meta.layout))?.swap_remove(0))
    }

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

    fn on(&self, device: &Device) -> Result<Array> {
        Ok(Array::to(self, device)?)
    }

    fn perform(
        op: Op,
        given: SmallVec<[Array; 2]>,
        kept: &[&Array],
        device: &Device,
        want: DType,
        layout: Option<Layout>,
    ) -> Result<SmallVec<[Array; 3]>> {
        let request = |given, ins| Request { given, layout, ..Request::new(&op, ins, device, want, Class::Gradients) };
        if !scope::is_observed() {
            return Ok(run(request(given, kept))?.into_iter().collect());
        }
        // An observer sees operands as they were.
        let ins: SmallVec<[&Array; 4]> = given.iter().chain(kept.iter().copied()).collect();
        let outs = run(request(SmallVec::new(), &ins))?;
        scope::observe(&op, &ins, &outs);
        Ok(outs.into_iter().collect())
    }
}
