//! The walk behind every backward pass: nodes in falling order of id, so that each is visited once, after all its uses.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use binade_tensor::{Array, Class, DType, Device, Op};
use smallvec::SmallVec;

use crate::front::Front;
use crate::node::{Hook, Kind, Node};
use crate::saved::Saved;
use crate::table::{self, Context, Grads, Values, gradients};
use crate::value::Value;
use crate::{Deferred, Error, Result, Var, scope};

/// A value that operators without gradients of their own can be differentiated with.
pub(crate) trait Differentiable: Value {
    /// The gradients of an operator through its definition in primitives; `None` for a primitive.
    fn through_definition(op: &Op, ins: &[Self], needs: &[bool], gradient: &Self) -> Result<Option<Grads<Self>>>;
}

/// The gradient of a node that was reached where nothing depends on it.
pub(crate) fn zero(node: &Node, device: &Device) -> Result<Array> {
    Ok(Array::full(device, node.out.dtype, node.out.layout.shape, 0.0, Class::Gradients)?)
}

/// Whether a gradient in 16 bit is widened for a leaf in f32.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Widen {
    Yes,
    NotLeaves,
}

/// The gradient the pass starts from.
pub(crate) fn seed(output: &Var, upstream: Option<&Array>) -> Result<Array> {
    let array = output.array();
    match upstream {
        Some(gradient) if gradient.shape() != array.shape() => Err(binade_tensor::Error::Shape {
            op: "backward",
            expected: "expected a gradient of the tensor's shape".into(),
            shapes: vec![*gradient.shape(), *array.shape()],
        }
        .into()),
        Some(gradient) => Ok(gradient.clone()),
        None if array.numel() != 1 => Err(Error::NotScalar { shape: array.shape().to_vec() }),
        None => Ok(Array::full(array.device(), array.dtype(), *array.shape(), 1.0, Class::Gradients)?),
    }
}

/// What a walk found, in order of creation.
pub(crate) struct Walked<V> {
    pub(crate) found: Vec<Found<V>>,
    /// The changes tied to the nodes on the way.
    pub(crate) changes: Vec<Deferred>,
}

/// A node that was looked for, with its gradient and the scale it carries; `None` in place of zeros, where a derivative
/// that was reached does not depend on what it was taken of.
pub(crate) struct Found<V> {
    pub(crate) node: Arc<Node>,
    pub(crate) gradient: Option<V>,
    pub(crate) scale: f64,
}

/// Walks from `output` to the nodes in `targets`, or to every leaf where that is empty, for their gradients, each in
/// its node's dtype.
pub(crate) fn walk<V: Differentiable>(
    output: &Var,
    seed: V,
    keep: bool,
    targets: &HashSet<u64>,
    widen: Widen,
) -> Result<Walked<V>> {
    scope::in_backward(|| walk_nodes(output, seed, keep, targets, widen))
}

fn walk_nodes<V: Differentiable>(
    output: &Var,
    seed: V,
    keep: bool,
    targets: &HashSet<u64>,
    widen: Widen,
) -> Result<Walked<V>> {
    let root = output.node().ok_or(Error::NoGraph)?;
    let first = targets.iter().min().copied().unwrap_or(0);
    // Nothing before the first target leads to one.
    let leads = |input: &&Arc<Node>| input.id >= first;
    let (mut found, mut changes) = (Vec::new(), Vec::new());
    let mut front = Front::new();
    front.at(root, 1.0)?.add(seed)?;
    while let Some((node, received)) = front.next() {
        let mut scale = received.scale;
        if let Kind::Op { path, .. } = &node.kind {
            scope::show_path(path);
        }
        let mut gradient = received.total(&node.out)?;
        let hooks = node.hooks.lock().unwrap_or_else(|e| e.into_inner());
        // Several uses are summed in f32; the node gets them in its own dtype, rounded once.
        let exact = gradient.as_ref().is_some_and(|g| g.dtype().is_half()) && node.out.dtype == DType::F32;
        let passes = match &node.kind {
            Kind::Op { op, .. } => table::takes_narrow_gradient(op, V::RECORDED),
            Kind::Leaf(_) => widen == Widen::NotLeaves,
            Kind::Outline | Kind::Recompute { .. } | Kind::Gradient { .. } => false,
        };
        let seen = targets.contains(&node.id) || hooks.iter().any(|hook| matches!(hook, Hook::Gradient(_)));
        if !exact || !passes || seen {
            gradient = gradient.map(|g| g.to(node.out.dtype)).transpose()?;
        }
        let before = changes.len();
        for hook in hooks.iter() {
            match hook {
                Hook::Gradient(hook) => {
                    if let Some(given) = &gradient
                        && let Some(replacement) = hook(given.array())?
                    {
                        gradient = Some(V::new(replacement, None));
                    }
                }
                Hook::Device(device) => gradient = gradient.map(|g| g.on(device)).transpose()?,
                Hook::Scale(factor) => scale *= factor,
                Hook::Change(change) => changes.push(change.clone()),
            }
        }
        drop(hooks);
        // The walk goes back; the order of the forward pass is made at its end.
        changes[before..].reverse();
        if targets.contains(&node.id) {
            found.push(Found { node, gradient, scale });
            continue;
        }
        let Some(gradient) = gradient else {
            match &node.kind {
                Kind::Leaf(_) if targets.is_empty() => found.push(Found { node, gradient, scale }),
                Kind::Leaf(_) | Kind::Outline => {}
                Kind::Op { inputs, .. } | Kind::Recompute { inputs, .. } | Kind::Gradient { inputs } => {
                    inputs.iter().flatten().filter(leads).for_each(|input| front.reach(input, scale));
                }
            }
            continue;
        };
        let (op, inputs) = match &node.kind {
            Kind::Op { op, inputs, .. } => (op, inputs),
            Kind::Leaf(_) if targets.is_empty() => {
                found.push(Found { node, gradient: Some(gradient), scale });
                continue;
            }
            Kind::Leaf(_) => continue,
            // There is no graph before the second run.
            Kind::Outline => return Err(Error::NoGraph),
            Kind::Recompute { inputs, again } => {
                // The new nodes have the largest ids, so they are next; their edges lead to the nodes before and to the
                // leaves.
                if let Some(again) = again(inputs)? {
                    front.at(&again, scale)?.add(gradient)?;
                }
                continue;
            }
            Kind::Gradient { inputs } => {
                let mut inputs = inputs.iter();
                if let Some(of) = inputs.next().and_then(Option::as_ref).filter(leads) {
                    front.at(of, scale)?.add(gradient)?;
                }
                inputs.flatten().filter(leads).for_each(|input| front.reach(input, scale));
                continue;
            }
        };
        if let Some(part) = table::part(op) {
            node.spend(keep)?;
            if let Some(input) = inputs[0].as_ref().filter(leads) {
                front.at(input, scale)?.add_part(part, gradient);
            }
            continue;
        }
        let grads = node_gradients(&node, gradient, keep)?;
        for (input, gradient) in inputs.iter().zip(grads) {
            let Some(input) = input.as_ref().filter(leads) else { continue };
            match gradient {
                Some(gradient) => front.at(input, scale)?.add(gradient)?,
                // Constant in this input, as the slope of a piecewise linear function.
                None if table::is_derivative(op) => front.reach(input, scale),
                None => {}
            }
        }
    }
    found.reverse();
    changes.reverse();
    Ok(Walked { found, changes })
}

/// The gradients of a node's inputs.
fn node_gradients<V: Differentiable>(node: &Arc<Node>, gradient: V, keep: bool) -> Result<Grads<V>> {
    let Kind::Op { op, inputs, saved, path, .. } = &node.kind else { return Ok(Grads::new()) };
    let mut slot = saved.lock().unwrap_or_else(|e| e.into_inner());
    let kept = slot.as_ref().ok_or_else(|| Error::Released { op: op.name(), path: path.clone() })?;
    let mut values: Values<V> = inputs.iter().map(|_| None).collect();
    let mut activated = None;
    for (i, value) in kept {
        if let (false, Saved::Again(again)) = (V::RECORDED, value)
            && table::takes_argument_of(op, *i)
            && let Some((act, argument)) = again.activation(op.name(), path)?
        {
            activated = Some((act, V::new(argument, None)));
            continue;
        }
        // Inputs, then outputs, of which the first is this node's.
        let array = value.get(op.name(), path, keep)?;
        let before = if V::RECORDED && *i == inputs.len() + 1 { before_activation(node, kept, &array) } else { None };
        let from = if *i < inputs.len() {
            inputs[*i].as_ref()
        } else {
            (*i == inputs.len()).then_some(node).or(before.as_ref())
        };
        values.resize(values.len().max(i + 1), None);
        values[*i] = Some(V::new(array, from));
    }
    if !keep {
        *slot = None;
    }
    drop(slot);
    let metas = node.metas();
    let needs: SmallVec<[bool; 4]> = inputs.iter().map(Option::is_some).collect();
    if table::through_definition(op, V::RECORDED) && values[..inputs.len()].iter().all(Option::is_some) {
        let ins: Vec<V> = values[..inputs.len()].iter().flatten().cloned().collect();
        if let Some(grads) = V::through_definition(op, &ins, &needs, &gradient)? {
            return Ok(grads);
        }
    }
    let device = gradient.array().device().clone();
    gradients(op, &mut Context::new(op, path, &metas, needs, values, activated, &device), gradient)
}

/// The node of an operator's second output, its value before the activation: that of the operator without one.
fn before_activation(node: &Node, kept: &[(usize, Saved)], value: &Array) -> Option<Arc<Node>> {
    let Kind::Op { op, inputs, constants, path, .. } = &node.kind else { return None };
    let saved = kept.iter().filter(|(i, _)| *i < inputs.len()).cloned().collect();
    let kind = Kind::Op {
        op: table::before_activation(op)?,
        inputs: inputs.clone(),
        constants: constants.clone(),
        saved: Mutex::new(Some(saved)),
        recast: None,
        path: path.clone(),
    };
    Some(Node::new(kind, value.meta()))
}
