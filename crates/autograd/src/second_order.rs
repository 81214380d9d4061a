//! Gradients of gradients: [`grad`], and the parts of it that only recorded gradients need.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use binade_tensor::op::View;
use binade_tensor::{Array, Op, Shape};

use crate::node::{Kind, Node};
use crate::table::Grads;
use crate::value::Value;
use crate::walk::{Differentiable, Widen, seed, walk, zero};
use crate::{Error, Result, Var, scope};

/// The gradients of `output` with respect to `inputs` (leaves or not), as variables: `None` where the output does not
/// depend on one. `upstream` is the gradient of the output, 1 for a one-element tensor.
///
/// With `create_graph` the gradients have a history and can be differentiated again, as for a gradient penalty; saved
/// values are kept then. Such a gradient counts as a function of all `inputs`, so that where it is constant, as a
/// ReLU's, its own gradient is zeros. Every operator is differentiable twice, by its row of the table or its definition
/// in primitives ([`Op::compose`]); casts inside stay casts, so second-order gradients see the dtypes of the first
/// pass.
///
/// # Errors
/// As [`Var::backward`]; an operator without second-order gradient.
pub fn grad(output: &Var, inputs: &[&Var], upstream: Option<&Var>, create_graph: bool) -> Result<Vec<Option<Var>>> {
    let device = output.array().device();
    let nodes = inputs.iter().map(|v| v.node().ok_or(Error::NoGraph)).collect::<Result<Vec<_>>>()?;
    let found = reached(output, &nodes, upstream, create_graph)?;
    let gradient = |node: &&Arc<Node>| -> Result<Option<Var>> {
        let Some(gradient) = found.get(&node.id) else { return Ok(None) };
        let gradient = match gradient {
            Some(gradient) => gradient.clone(),
            None => Var::constant(zero(node, device)?),
        };
        if !create_graph {
            return Ok(Some(gradient));
        }
        let of = std::iter::once(gradient.node().cloned());
        let kind = Kind::Gradient { inputs: of.chain(nodes.iter().map(|n| Some((*n).clone()))).collect() };
        let node = Node::new(kind, gradient.array().meta());
        Ok(Some(Var::with_node(gradient.array().clone(), node)))
    };
    nodes.iter().map(gradient).collect()
}

/// The nodes among `targets` that a walk from `output` reaches, with their gradients; `None` for a gradient that is 0
/// because nothing depends on the node.
fn reached(
    output: &Var,
    targets: &[&Arc<Node>],
    upstream: Option<&Var>,
    create_graph: bool,
) -> Result<HashMap<u64, Option<Var>>> {
    let targets: HashSet<u64> = targets.iter().map(|n| n.id).collect();
    let array = seed(output, upstream.map(Var::array))?;
    if create_graph {
        let seed = upstream.cloned().unwrap_or_else(|| Var::constant(array));
        let walked = scope::recording(|| walk::<Var>(output, seed, true, &targets, Widen::Yes))?;
        return Ok(walked.found.into_iter().map(|f| (f.node.id, f.gradient)).collect());
    }
    let walked = walk::<Array>(output, array, true, &targets, Widen::Yes)?;
    Ok(walked.found.into_iter().map(|f| (f.node.id, f.gradient.map(Var::constant))).collect())
}

impl Differentiable for Array {
    fn through_definition(op: &Op, ins: &[Array], needs: &[bool], gradient: &Array) -> Result<Option<Grads<Array>>> {
        let var = |(array, need): (&Array, &bool)| {
            if *need { Var::leaf(array.clone()) } else { Var::constant(array.clone()) }
        };
        let ins: Vec<Var> = ins.iter().zip(needs).map(var).collect();
        let grads = through_definition(op, &ins, needs, &Var::constant(gradient.clone()), false)?;
        Ok(grads.map(|grads| grads.into_iter().map(|g| g.map(|g| g.array().clone())).collect()))
    }
}

impl Differentiable for Var {
    fn through_definition(op: &Op, ins: &[Var], needs: &[bool], gradient: &Var) -> Result<Option<Grads<Var>>> {
        through_definition(op, ins, needs, gradient, true)
    }
}

/// The gradients of `op` by differentiating its definition in primitives, recorded if asked; `None` for a primitive.
fn through_definition(
    op: &Op,
    ins: &[Var],
    needs: &[bool],
    gradient: &Var,
    create_graph: bool,
) -> Result<Option<Grads<Var>>> {
    let metas: Vec<_> = ins.iter().map(|v| v.array().meta()).collect();
    let Some(program) = op.compose(&metas)? else { return Ok(None) };
    // A view of each input gives it a node of its own, where the walk ends; the view leads on to the input's history.
    let device = gradient.array().device();
    let mut views = Vec::new();
    for (var, need) in ins.iter().zip(needs) {
        let axes: Vec<usize> = (0..var.shape().rank()).collect();
        let same = Op::View(View::Permute(Shape::new(&axes)?));
        views.push(if *need { Var::run(same, &[var], device, var.dtype())? } else { var.clone() });
    }
    let outs = scope::recording(|| program.run(&views, |op, ins, want| Var::run(op.clone(), ins, device, want)))?;
    let targets: Vec<&Arc<Node>> =
        views.iter().zip(needs).filter(|(_, need)| **need).filter_map(|(v, _)| v.node()).collect();
    // A constant, as the slope of a piecewise linear function.
    if outs[0].node().is_none() {
        return Ok(Some(ins.iter().map(|_| None).collect()));
    }
    let found = reached(&outs[0], &targets, Some(&gradient.clone().to(outs[0].dtype())?), create_graph)?;
    let of = |(var, view): (&Var, &Var)| {
        let gradient = view.node().and_then(|node| found.get(&node.id)).cloned().flatten();
        gradient.map(|g| g.to(var.dtype())).transpose()
    };
    ins.iter().zip(&views).map(of).collect::<Result<_>>().map(Some)
}
