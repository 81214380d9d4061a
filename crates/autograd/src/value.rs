//! [`Value`]: what the backward table computes with: plain arrays, or variables whose history is recorded, for
//! gradients of gradients. One table serves both.

use std::sync::Arc;

use binade_tensor::{Array, Class, DType, Device, Layout, Meta, Op, Shape};
use smallvec::SmallVec;

use crate::node::Node;
use crate::table::Grads;
use crate::{Result, Var, apply, scope, second_order};

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

    /// The gradients of an operator through its definition in primitives; `None` for a primitive.
    fn through_definition(op: &Op, ins: &[Self], needs: &[bool], gradient: &Self) -> Result<Option<Grads<Self>>>;

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

    fn through_definition(op: &Op, ins: &[Array], needs: &[bool], gradient: &Array) -> Result<Option<Grads<Array>>> {
        let var = |(array, need): (&Array, &bool)| {
            if *need { Var::leaf(array.clone()) } else { Var::constant(array.clone()) }
        };
        let ins: Vec<Var> = ins.iter().zip(needs).map(var).collect();
        let grads = second_order::through_definition(op, &ins, needs, &Var::constant(gradient.clone()), false)?;
        Ok(grads.map(|grads| grads.into_iter().map(|g| g.map(|g| g.array().clone())).collect()))
    }
}

impl Value for Var {
    const RECORDED: bool = true;

    fn new(array: Array, node: Option<&Arc<Node>>) -> Var {
        match node {
            Some(node) => Var::with_node(array, node.clone()),
            None => Var::constant(array),
        }
    }

    fn array(&self) -> &Array {
        Var::array(self)
    }

    fn run(op: Op, ins: &[&Var], device: &Device, want: DType) -> Result<Var> {
        apply::run_and_record(op, ins, want, device).map(|(var, _)| var)
    }

    fn run_over(op: Op, given: SmallVec<[Var; 2]>, kept: &[&Var], device: &Device, want: DType) -> Result<Var> {
        let ins: SmallVec<[&Var; 4]> = given.iter().chain(kept.iter().copied()).collect();
        Var::run(op, &ins, device, want)
    }

    fn run_laid_out(op: Op, ins: &[&Var], device: &Device, meta: Meta) -> Result<Var> {
        Var::run(op, ins, device, meta.dtype)
    }

    fn run_all(op: Op, ins: &[&Var], device: &Device, want: DType) -> Result<SmallVec<[Var; 3]>> {
        let (first, outs) = apply::run_and_record(op, ins, want, device)?;
        let mut vars: SmallVec<[Var; 3]> = outs.into_iter().map(Var::constant).collect();
        vars[0] = first;
        Ok(vars)
    }

    fn through_definition(op: &Op, ins: &[Var], needs: &[bool], gradient: &Var) -> Result<Option<Grads<Var>>> {
        second_order::through_definition(op, ins, needs, gradient, true)
    }
}
