//! The tape: an operator runs, and a node remembers what its gradient needs.

use std::sync::Mutex;

use binade_tensor::{Array, Arrays, Class, DType, Device, Layout, Meta, Op, Request, run};
use smallvec::SmallVec;

use crate::node::{Hook, Kind, Node};
use crate::saved::{Again, Made, Saved};
use crate::value::Value;
use crate::{Result, Var, scope, table};

/// Runs an operator with float outputs in `want`, whatever the cast rule, and records it.
pub(crate) fn run_and_record(op: Op, ins: &[&Var], want: DType, device: &Device) -> Result<(Var, Arrays)> {
    let arrays: SmallVec<[&Array; 4]> = ins.iter().map(|v| v.array()).collect();
    let class = if table::is_cast(&op) { Class::Casts } else { Class::Activations };
    let outs = run(Request::new(&op, &arrays, device, want, class))?;
    scope::observe(&op, &arrays, &outs);
    let first = outs[0].clone();
    let gradient = first.meta();
    Ok((record(op, ins, &outs, first, gradient), outs))
}

/// A tensor on another device. Its gradient is brought back before it goes on.
pub(crate) fn moved(var: &Var, device: &Device) -> Result<Var> {
    let (from, copy) = (var.array(), var.array().to(device)?);
    scope::observe(&Op::Copy, &[from], std::slice::from_ref(&copy));
    let moved = record(Op::Copy, &[var], std::slice::from_ref(&copy), copy.clone(), copy.meta());
    // The first run of what is run again has no graph to tie it to.
    if let Some(node) = moved.node().filter(|_| scope::outline().is_none()) {
        node.tie(Hook::Device(from.device().clone()));
    }
    Ok(moved.at(var.place().cloned()))
}

/// A variable for the first output, with a node if gradients are recorded and an input has one. `gradient` is the shape
/// and dtype of the gradient the node receives.
pub(crate) fn record(op: Op, ins: &[&Var], outs: &[Array], first: Array, gradient: Meta) -> Var {
    let differentiable = first.dtype().is_float() && table::no_gradient(&op).is_none();
    let recorded = differentiable && ins.iter().any(|v| v.node().is_some()) && scope::is_grad_enabled();
    if let Some(outline) = scope::outline() {
        ins.iter().for_each(|v| outline.note(v.array(), v.node()));
        return if recorded { Var::with_node(first, outline.node().clone()) } else { Var::constant(first) };
    }
    if !recorded {
        return Var::constant(first);
    }
    let needs: SmallVec<[bool; 4]> = ins.iter().map(|v| v.node().is_some()).collect();
    let saves = table::saves(&op, &needs);
    let keep_input = |(i, var): (usize, &&Var)| saves.input(i).then(|| (i, var.saved()));
    let keep_output = |(i, array): (usize, &Array)| saves.output(i).then(|| (ins.len() + i, Saved::value(array)));
    let saved_inputs = ins.iter().enumerate().filter_map(keep_input);
    let saved: Vec<(usize, Saved)> = saved_inputs.chain(outs.iter().enumerate().filter_map(keep_output)).collect();
    let again = table::again(&op, ins.len()).and_then(|recipe| {
        let operand = |i: &usize| match saved.iter().find(|(at, _)| at == i) {
            Some((_, saved)) => Some(saved.clone()),
            // What only moves or rounds a value keeps nothing: it is worth doing again if the value itself is.
            None => ins.get(*i).map(|var| var.saved()).filter(|saved| matches!(saved, Saved::Again(_))),
        };
        let operands = match recipe.made {
            Made::Sum => addends(ins, &first),
            Made::Pass | Made::Cast(_) | Made::Activation(_) | Made::RoundedOnce => {
                recipe.operands.iter().map(operand).collect()
            }
        };
        Again::new(recipe, operands?, &first)
    });
    let recast = match ins {
        [var] if table::is_cast(&op) && var.node().is_some_and(|n| is_leaf_view(n)) => {
            Some(Box::new(var.array().clone()))
        }
        _ => None,
    };
    // Only of a value in f32 a sum may be narrower in part.
    let wide =
        |(i, saved): &(usize, Saved)| ins.get(*i).filter(|v| matches!(saved, Saved::Value(..)) && !v.dtype().is_half());
    let kept: SmallVec<[&Var; 4]> = saved.iter().filter_map(wide).copied().collect();
    let kind = Kind::Op {
        inputs: ins.iter().map(|v| v.node().cloned()).collect(),
        constants: ins.iter().filter(|v| v.node().is_none()).map(|v| v.array().meta()).collect(),
        saved: Mutex::new(Some(saved)),
        recast,
        path: scope::path(),
        op,
    };
    let node = Node::new(kind, gradient);
    kept.iter().filter_map(|var| var.node()).for_each(|from| from.set_keeper(&node));
    Var::with_node(first, node).with_again(again)
}

/// Whether a node is a leaf or a view of one, whose memory lives as long as the leaf's.
pub(crate) fn is_leaf_view(node: &Node) -> bool {
    match &node.kind {
        Kind::Leaf(_) => true,
        Kind::Op { op, inputs, .. } => table::is_view(op) && inputs[0].as_ref().is_some_and(|n| is_leaf_view(n)),
        Kind::Outline | Kind::Recompute { .. } | Kind::Gradient { .. } => false,
    }
}

/// What is kept in place of a sum or difference, if that is fewer bytes: its narrower operand, where the wider one was
/// saved as a value by who used it before. So a residual stream in f32, to which branches in 16 bit are added, is saved
/// at every other branch. No sum is made from a sum that is made: a chain of them would keep one value from far back
/// and all sums on the way at once.
fn addends(ins: &[&Var], sum: &Array) -> Option<SmallVec<[Saved; 5]>> {
    let [a, b] = ins else { return None };
    let (wide, narrow) = if a.dtype().size() > b.dtype().size() { (a, b) } else { (b, a) };
    let fewer = wide.dtype() == sum.dtype() && narrow.dtype().size() < sum.dtype().size();
    if !fewer || wide.shape() != sum.shape() || narrow.shape() != sum.shape() {
        return None;
    }
    let kept = matches!(wide.saved(), Saved::Value(..)) && wide.node().is_some_and(|node| node.is_kept());
    let taken = kept
        && match narrow.saved() {
            // A part of something larger would keep all of it.
            Saved::Value(array, _) => array.is_whole(),
            Saved::Recast(..) => true,
            Saved::Again(again) => !again.sums(),
        };
    taken.then(|| ins.iter().map(|var| var.saved()).collect())
}

impl Value for Var {
    const RECORDED: bool = true;

    fn new(array: Array, node: Option<&std::sync::Arc<Node>>) -> Var {
        match node {
            Some(node) => Var::with_node(array, node.clone()),
            None => Var::constant(array),
        }
    }

    fn array(&self) -> &Array {
        Var::array(self)
    }

    fn on(&self, device: &Device) -> Result<Var> {
        self.to(device)
    }

    fn perform(
        op: Op,
        given: SmallVec<[Var; 2]>,
        kept: &[&Var],
        device: &Device,
        want: DType,
        _layout: Option<Layout>,
    ) -> Result<SmallVec<[Var; 3]>> {
        let ins: SmallVec<[&Var; 4]> = given.iter().chain(kept.iter().copied()).collect();
        let (first, outs) = run_and_record(op, &ins, want, device)?;
        let mut vars: SmallVec<[Var; 3]> = outs.into_iter().map(Var::constant).collect();
        vars[0] = first;
        Ok(vars)
    }
}
