//! The backward pass: nodes in falling order of id, so that each is visited once, after all its uses.

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use binade_tensor::op::{Binary, View};
use binade_tensor::{Array, Class, Op, Shape};
use smallvec::SmallVec;

use crate::node::{Kind, Node};
use crate::table::{Context, Grads, gradients};
use crate::value::Value;
use crate::{Error, Gradients, Result, Var, checkpoint, scope};

/// Orders nodes by id.
struct ById(Arc<Node>);

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for ById {}
impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ById {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

pub(crate) fn backward(loss: &Var, upstream: Option<&Array>, keep: bool) -> Result<Gradients> {
    let seed = seed(loss, upstream)?;
    let mut result = Gradients::default();
    for (node, gradient) in walk::<Array>(loss, seed, keep, &HashSet::new())? {
        let Kind::Leaf(id) = node.kind else { continue };
        // In the layout of the leaf, as an optimiser walks both together.
        let mut gradient = match gradient.layout().same_order(&node.out.layout) {
            true => gradient,
            false => gradient.contiguous(Class::Gradients)?,
        };
        // Each leaf owns its gradient: `a + b` hands both operands the same array, and clipping works in place.
        if Arc::strong_count(gradient.storage()) > 1 {
            gradient = binade_tensor::run_one(&Op::Copy, &[&gradient], gradient.device(), gradient.dtype(), Class::Gradients)?;
        }
        result.insert(id, gradient);
    }
    Ok(result)
}

/// The gradients of `output` with respect to `inputs` (leaves or not), as variables: `None` where the output does not depend on
/// one. `upstream` is the gradient of the output, 1 for a one-element tensor.
///
/// With `create_graph` the gradients have a history and can be differentiated again, as for a gradient penalty; saved values
/// are kept then. Every operator is differentiable twice through its definition in primitives
/// ([`Op::compose`]); casts inside stay casts, so second-order gradients see the dtypes of the first pass.
///
/// # Errors
/// As [`Var::backward`]; an operator without second-order gradient.
pub fn grad(output: &Var, inputs: &[&Var], upstream: Option<&Var>, create_graph: bool) -> Result<Vec<Option<Var>>> {
    let nodes = inputs.iter().map(|v| v.node().ok_or(Error::NoGraph)).collect::<Result<Vec<_>>>()?;
    let targets: HashSet<u64> = nodes.iter().map(|n| n.id).collect();
    let array = seed(output, upstream.map(Var::array))?;
    let found: HashMap<u64, Var> = if create_graph {
        let seed = upstream.cloned().unwrap_or_else(|| Var::constant(array));
        scope::recording(|| walk::<Var>(output, seed, true, &targets))?.into_iter().map(|(n, g)| (n.id, g)).collect()
    } else {
        walk::<Array>(output, array, true, &targets)?.into_iter().map(|(n, g)| (n.id, Var::constant(g))).collect()
    };
    Ok(nodes.iter().map(|n| found.get(&n.id).cloned()).collect())
}

/// The gradient the pass starts from.
fn seed(output: &Var, upstream: Option<&Array>) -> Result<Array> {
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

/// Walks from `output` to the nodes in `targets`, or to every leaf where that is empty, and returns their gradients, each in its
/// node's dtype, in order of creation.
fn walk<V: Value>(output: &Var, seed: V, keep: bool, targets: &HashSet<u64>) -> Result<Vec<(Arc<Node>, V)>> {
    scope::in_backward(|| walk_nodes(output, seed, keep, targets))
}

fn walk_nodes<V: Value>(output: &Var, seed: V, keep: bool, targets: &HashSet<u64>) -> Result<Vec<(Arc<Node>, V)>> {
    let root = output.node().ok_or(Error::NoGraph)?;
    let first = targets.iter().min().copied().unwrap_or(0);
    let mut found = Vec::new();
    let mut pending = HashMap::<u64, V>::from([(root.id, seed)]);
    let mut heap = BinaryHeap::from([ById(root.clone())]);
    while let Some(ById(node)) = heap.pop() {
        let Some(sum) = pending.remove(&node.id) else { continue };
        // Several uses were summed in f32; the node gets them in its own dtype, rounded once.
        let mut gradient = cast(sum, node.out.dtype)?;
        for hook in node.hooks.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            if let Some(replacement) = hook(gradient.array())? {
                gradient = V::new(replacement, None);
            }
        }
        if targets.contains(&node.id) {
            found.push((node, gradient));
            continue;
        }
        let (inputs, path) = match &node.kind {
            Kind::Op { inputs, path, .. } => (inputs, path),
            Kind::Leaf(_) if targets.is_empty() => {
                found.push((node, gradient));
                continue;
            }
            Kind::Leaf(_) => continue,
            Kind::Recompute { inputs, saved, f, scope } => {
                // The new nodes have the largest ids, so they are next; their edges lead to the nodes before and to the leaves.
                if let Some(again) = checkpoint::again(inputs, saved, f, scope)?.node() {
                    pending.insert(again.id, gradient);
                    heap.push(ById(again.clone()));
                }
                continue;
            }
        };
        scope::enter_path(path);
        let grads = node_gradients(&node, gradient, keep)?;
        for (input, gradient) in inputs.iter().zip(grads) {
            let (Some(input), Some(gradient)) = (input, gradient) else { continue };
            // Nothing before the first target leads to one.
            if input.id < first {
                continue;
            }
            let sum = match pending.remove(&input.id) {
                Some(before) => add(&before, &gradient)?,
                None => {
                    heap.push(ById(input.clone()));
                    gradient
                }
            };
            pending.insert(input.id, sum);
        }
    }
    found.reverse();
    Ok(found)
}

/// The gradients of a node's inputs.
fn node_gradients<V: Value>(node: &Arc<Node>, gradient: V, keep: bool) -> Result<Grads<V>> {
    let Kind::Op { op, inputs, metas, saved, path, .. } = &node.kind else { return Ok(Grads::new()) };
    let mut slot = saved.lock().unwrap_or_else(|e| e.into_inner());
    let kept = slot.as_ref().ok_or_else(|| Error::Released { op: op.name(), path: path.clone() })?;
    let mut values = SmallVec::<[Option<V>; 4]>::new();
    for (i, value) in kept.iter().enumerate() {
        // Inputs, then outputs, of which the first is this node's.
        let from = if i < inputs.len() { inputs[i].as_ref() } else { (i == inputs.len()).then_some(node) };
        values.push(match value {
            Some(value) => Some(V::new(value.get(op.name(), path)?, from)),
            None => None,
        });
    }
    if !keep {
        *slot = None;
    }
    drop(slot);
    let needs: SmallVec<[bool; 4]> = inputs.iter().map(Option::is_some).collect();
    // A recorded gradient is differentiated through primitives; so is a backward kernel, which has no row of its own.
    if (V::RECORDED || matches!(op, Op::Backward(_))) && values[..inputs.len()].iter().all(Option::is_some) {
        let ins: Vec<V> = values[..inputs.len()].iter().flatten().cloned().collect();
        if let Some(grads) = V::through_definition(op, &ins, &needs, &gradient)? {
            return Ok(grads);
        }
    }
    let device = gradient.array().device().clone();
    gradients(op, &Context::new(op, path, metas, needs, values, &device), &gradient)
}

/// The gradients of `op` by differentiating its definition in primitives, recorded if asked; `None` for a primitive.
pub(crate) fn through_definition(
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
        views.push(if *need && var.leaf_id().is_none() { Var::run(same, &[var], device, var.dtype())? } else { var.clone() });
    }
    let outs = scope::recording(|| program.run(&views, |op, ins, want| Var::run(op.clone(), ins, device, want)))?;
    let targets: Vec<&Var> = views.iter().zip(needs).filter(|(_, need)| **need).map(|(v, _)| v).collect();
    let mut grads = grad(&outs[0], &targets, Some(&cast(gradient.clone(), outs[0].dtype())?), create_graph)?.into_iter();
    let mut all = Grads::new();
    for (var, need) in ins.iter().zip(needs) {
        let gradient = if *need { grads.next().flatten() } else { None };
        all.push(gradient.map(|g| cast(g, var.dtype())).transpose()?);
    }
    Ok(Some(all))
}

fn cast<V: Value>(value: V, dtype: binade_tensor::DType) -> Result<V> {
    if value.dtype() == dtype {
        return Ok(value);
    }
    V::run(Op::Cast(dtype), &[&value], value.array().device(), dtype)
}

/// The sum of two gradients of one tensor, in f32 (f64 for f64).
fn add<V: Value>(a: &V, b: &V) -> Result<V> {
    V::run(Op::Binary(Binary::Add), &[a, b], a.array().device(), a.dtype().accum())
}
