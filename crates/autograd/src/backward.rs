//! The backward pass: nodes in falling order of id, so that each is visited once, after all its uses.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use binade_tensor::op::{Backward, Binary, View};
use binade_tensor::{Array, Class, DType, Layout, Meta, Op, Shape};
use smallvec::{SmallVec, smallvec};

use crate::gradients::copy;
use crate::node::{Hook, Kind, Node};
use crate::saved::Saved;
use crate::table::{Context, Grads, Values, gradients, inverse};
use crate::value::Value;
use crate::{Deferred, Error, Gradients, Result, Var, checkpoint, scope};

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
    // Each leaf owns its gradient: `a + b` hands both operands the same array, and hooks may keep one.
    leaves(loss, upstream, keep, Widen::Yes, |gradient| {
        if Arc::strong_count(gradient.storage()) > 1 { copy(&gradient) } else { Ok(gradient) }
    })
}

/// As [`backward`], for gradients that are only read.
pub(crate) fn backward_lean(loss: &Var, upstream: Option<&Array>) -> Result<Gradients> {
    leaves(loss, upstream, false, Widen::NotLeaves, Ok)
}

/// The gradients of all leaves, each in the layout of its leaf, as an optimiser walks both together, and the changes that wait for their step.
fn leaves(
    loss: &Var,
    upstream: Option<&Array>,
    keep: bool,
    widen: Widen,
    finish: impl Fn(Array) -> Result<Array>,
) -> Result<Gradients> {
    let mut result = Gradients::default();
    let walked = walk::<Array>(loss, seed(loss, upstream)?, keep, &HashSet::new(), widen)?;
    for Found { node, gradient, scale } in walked.found {
        let Kind::Leaf(leaf) = &node.kind else { continue };
        let in_order = gradient.layout().same_order(&node.out.layout);
        let gradient = if in_order { gradient } else { gradient.contiguous(Class::Gradients)? };
        result.found(leaf, finish(gradient)?, scale);
    }
    walked.changes.into_iter().for_each(|change| result.push_change(change));
    if result.is_empty() { Err(Error::NoGraph) } else { Ok(result) }
}

/// Whether a gradient in 16 bit is widened for a leaf in f32.
#[derive(Clone, Copy, PartialEq)]
enum Widen {
    Yes,
    NotLeaves,
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
        let walked = scope::recording(|| walk::<Var>(output, seed, true, &targets, Widen::Yes))?;
        walked.found.into_iter().map(|f| (f.node.id, f.gradient)).collect()
    } else {
        let walked = walk::<Array>(output, array, true, &targets, Widen::Yes)?;
        walked.found.into_iter().map(|f| (f.node.id, Var::constant(f.gradient))).collect()
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

/// What a walk found, in order of creation.
struct Walked<V> {
    found: Vec<Found<V>>,
    /// The changes tied to the nodes on the way.
    changes: Vec<Deferred>,
}

/// A node that was looked for, with its gradient and the scale it carries.
struct Found<V> {
    node: Arc<Node>,
    gradient: V,
    scale: f64,
}

/// Walks from `output` to the nodes in `targets`, or to every leaf where that is empty, for their gradients, each in its node's dtype.
fn walk<V: Value>(output: &Var, seed: V, keep: bool, targets: &HashSet<u64>, widen: Widen) -> Result<Walked<V>> {
    scope::in_backward(|| walk_nodes(output, seed, keep, targets, widen))
}

fn walk_nodes<V: Value>(output: &Var, seed: V, keep: bool, targets: &HashSet<u64>, widen: Widen) -> Result<Walked<V>> {
    let root = output.node().ok_or(Error::NoGraph)?;
    let first = targets.iter().min().copied().unwrap_or(0);
    let (mut found, mut changes) = (Vec::new(), Vec::new());
    let mut front = Front { pending: HashMap::new(), heap: BinaryHeap::new() };
    front.at(root, 1.0)?.add(seed)?;
    while let Some((node, received)) = front.next() {
        let mut scale = received.scale;
        if let Kind::Op { path, .. } = &node.kind {
            scope::show_path(path);
        }
        let mut gradient = received.total(&node.out)?;
        let hooks = node.hooks.lock().unwrap_or_else(|e| e.into_inner());
        // Several uses are summed in f32; the node gets them in its own dtype, rounded once. A view hands 16 bit on as they are, and a norm widens
        // as it reads.
        let exact = gradient.dtype().is_half() && node.out.dtype == DType::F32;
        let passes = match &node.kind {
            Kind::Op { op, .. } => matches!(op, Op::View(_)) || matches!(op, Op::Norm(_)) && !V::RECORDED,
            Kind::Leaf(_) => widen == Widen::NotLeaves,
            Kind::Outline | Kind::Recompute { .. } => false,
        };
        let seen = targets.contains(&node.id) || hooks.iter().any(|hook| matches!(hook, Hook::Gradient(_)));
        if !exact || !passes || seen {
            gradient = cast(gradient, node.out.dtype)?;
        }
        let before = changes.len();
        for hook in hooks.iter() {
            match hook {
                Hook::Gradient(hook) => {
                    if let Some(replacement) = hook(gradient.array())? {
                        gradient = V::new(replacement, None);
                    }
                }
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
        let (op, inputs) = match &node.kind {
            Kind::Op { op, inputs, .. } => (op, inputs),
            Kind::Leaf(_) if targets.is_empty() => {
                found.push(Found { node, gradient, scale });
                continue;
            }
            Kind::Leaf(_) => continue,
            // There is no graph before the second run.
            Kind::Outline => return Err(Error::NoGraph),
            Kind::Recompute { inputs, saved, read, f, scope: surrounding } => {
                // The new nodes have the largest ids, so they are next; their edges lead to the nodes before and to the leaves.
                if let Some(again) = checkpoint::again(inputs, saved, read, f, surrounding)?.node() {
                    front.at(again, scale)?.add(gradient)?;
                }
                continue;
            }
        };
        // Nothing before the first target leads to one.
        let leads = |input: &&Arc<Node>| input.id >= first;
        if let Op::View(View::Narrow { dim, start, .. }) = op {
            node.spend(keep)?;
            if let Some(input) = inputs[0].as_ref().filter(leads) {
                front.at(input, scale)?.parts.push(Part { dim: *dim, start: *start, gradient });
            }
            continue;
        }
        let grads = node_gradients(&node, gradient, keep)?;
        for (input, gradient) in inputs.iter().zip(grads) {
            if let (Some(input), Some(gradient)) = (input.as_ref().filter(leads), gradient) {
                front.at(input, scale)?.add(gradient)?;
            }
        }
    }
    found.reverse();
    changes.reverse();
    Ok(Walked { found, changes })
}

/// The nodes that gradients have reached and that wait for their turn.
struct Front<V> {
    pending: HashMap<u64, Pending<V>>,
    heap: BinaryHeap<ById>,
}

impl<V> Front<V> {
    /// The node of the largest id, with what it received.
    fn next(&mut self) -> Option<(Arc<Node>, Pending<V>)> {
        let ById(node) = self.heap.pop()?;
        let received = self.pending.remove(&node.id)?;
        Some((node, received))
    }

    /// What waits for a node, for a gradient that carries that scale.
    fn at(&mut self, node: &Arc<Node>, scale: f64) -> Result<&mut Pending<V>> {
        match self.pending.entry(node.id) {
            Entry::Occupied(entry) if entry.get().scale != scale => Err(Error::Scales { found: [entry.get().scale, scale] }),
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                self.heap.push(ById(node.clone()));
                Ok(entry.insert(Pending { scale, sum: None, last: None, parts: Vec::new() }))
            }
        }
    }
}

/// What has reached a node so far.
struct Pending<V> {
    /// The loss scale it carries.
    scale: f64,
    /// The sum of all but the last, in f32 (f64 for f64).
    sum: Option<V>,
    /// Added when it is known to be the last: so the whole sum is rounded as it is made.
    last: Option<V>,
    /// Gradients of narrowed views. Those of q, k and v together are the whole of qkv: one copy instead of a padded tensor each and
    /// their sums.
    parts: Vec<Part<V>>,
}

struct Part<V> {
    dim: usize,
    start: usize,
    gradient: V,
}

impl<V: Value> Pending<V> {
    fn add(&mut self, gradient: V) -> Result<()> {
        if let Some(last) = self.last.replace(gradient) {
            let dtype = last.dtype().accum();
            self.sum = Some(match self.sum.take() {
                Some(before) => add(before, last, dtype)?,
                None => last,
            });
        }
        Ok(())
    }

    /// The sum of all, for a tensor like `out`.
    fn total(mut self, out: &Meta) -> Result<V> {
        if let Some(whole) = self.joined(out)? {
            self.add(whole)?;
        } else {
            for Part { dim, start, gradient } in std::mem::take(&mut self.parts) {
                let op = Op::Backward(Backward::Narrow { dim, start, shape: out.layout.shape });
                self.add(V::run(op, &[&gradient], gradient.array().device(), out.dtype)?)?;
            }
        }
        let last = self.last.ok_or(Error::NoGraph)?;
        match self.sum {
            Some(before) => add(before, last, out.dtype),
            None => Ok(last),
        }
    }

    /// All parts together, sorted, if they are one memory, one after the other: attention makes those of q, k and v so.
    fn side_by_side(&self) -> Option<Array> {
        let [first, second, ..] = &self.parts[..] else { return None };
        let (array, dim) = (first.gradient.array(), first.dim);
        let mut layout = *array.layout();
        let step = second.gradient.layout().offset.checked_sub(layout.offset)?.checked_div(layout.shape[dim])?;
        let mut extent = 0;
        for Part { gradient, .. } in &self.parts {
            let (part, other) = (gradient.layout(), gradient.array());
            let alike = |d: usize| d == dim || part.shape[d] == layout.shape[d] && part.strides[d] == layout.strides[d];
            let along = part.shape[dim] == 1 || part.strides[dim] == step;
            let follows = part.offset == layout.offset + extent * step;
            if !(Arc::ptr_eq(other.storage(), array.storage()) && other.dtype() == array.dtype() && other.is_written()) {
                return None;
            }
            if !(along && follows && (0..part.shape.rank()).all(alike)) {
                return None;
            }
            extent += part.shape[dim];
        }
        (layout.shape[dim], layout.strides[dim]) = (extent, step);
        // Of something larger they would keep all.
        array.with_layout(layout).ok().filter(Array::is_whole)
    }

    /// The parts side by side in the memory order of `out`, if they cover it without overlap.
    fn joined(&mut self, out: &Meta) -> Result<Option<V>> {
        let Some(&Part { dim, .. }) = self.parts.first() else { return Ok(None) };
        self.parts.sort_by_key(|part| part.start);
        let mut end = 0;
        for part in &self.parts {
            if part.dim != dim || part.start != end {
                return Ok(None);
            }
            end += part.gradient.shape()[dim];
        }
        if end != out.layout.shape[dim] {
            return Ok(None);
        }
        if self.parts.len() == 1 {
            return Ok(self.parts.pop().map(|part| part.gradient));
        }
        if !V::RECORDED
            && let Some(whole) = self.side_by_side()
        {
            self.parts.clear();
            return Ok(Some(V::new(whole, None)));
        }
        // With dimensions in memory order the result is in row-major order, and where the parts were cut from a reshaped product it can be
        // reshaped back without a copy.
        let order = out.layout.order();
        let inverse = inverse(&order);
        let device = self.parts[0].gradient.array().device().clone();
        let dtype = self.parts.iter().map(|p| p.gradient.dtype()).reduce(|a, b| if a == b { a } else { out.dtype });
        let meta = Meta { dtype: dtype.unwrap_or(out.dtype), layout: Layout::contiguous(out.layout.permute(&order).shape) };
        let permuted = |v: &V, axes: Shape| V::run(Op::View(View::Permute(axes)), &[v], &device, v.dtype());
        let parts = self.parts.iter().map(|p| permuted(&p.gradient, order)).collect::<Result<Vec<V>>>()?;
        self.parts.clear();
        let whole = V::run_laid_out(Op::Cat { dim: inverse[dim] }, &parts.iter().collect::<Vec<_>>(), &device, meta)?;
        permuted(&whole, inverse).map(Some)
    }
}

/// The gradients of a node's inputs.
fn node_gradients<V: Value>(node: &Arc<Node>, gradient: V, keep: bool) -> Result<Grads<V>> {
    let Kind::Op { op, inputs, saved, path, .. } = &node.kind else { return Ok(Grads::new()) };
    let mut slot = saved.lock().unwrap_or_else(|e| e.into_inner());
    let kept = slot.as_ref().ok_or_else(|| Error::Released { op: op.name(), path: path.clone() })?;
    let mut values: Values<V> = inputs.iter().map(|_| None).collect();
    let mut activated = None;
    for (i, value) in kept {
        // A product reads an activation from its argument.
        if let (false, Op::MatMul(_), 0, Saved::Again(again)) = (V::RECORDED, op, i, value)
            && let Some((act, argument)) = again.activation(op.name(), path)?
        {
            activated = Some((act, V::new(argument, None)));
            continue;
        }
        // Inputs, then outputs, of which the first is this node's.
        let from = if *i < inputs.len() { inputs[*i].as_ref() } else { (*i == inputs.len()).then_some(node) };
        values.resize(values.len().max(i + 1), None);
        values[*i] = Some(V::new(value.get(op.name(), path, keep)?, from));
    }
    if !keep {
        *slot = None;
    }
    drop(slot);
    let metas = node.metas();
    let needs: SmallVec<[bool; 4]> = inputs.iter().map(Option::is_some).collect();
    // A recorded gradient is differentiated through primitives; so is a backward kernel, which has no row of its own.
    if (V::RECORDED || matches!(op, Op::Backward(_))) && values[..inputs.len()].iter().all(Option::is_some) {
        let ins: Vec<V> = values[..inputs.len()].iter().flatten().cloned().collect();
        if let Some(grads) = V::through_definition(op, &ins, &needs, &gradient)? {
            return Ok(grads);
        }
    }
    let device = gradient.array().device().clone();
    gradients(op, &mut Context::new(op, path, &metas, needs, values, activated, &device), gradient)
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

/// The sum of two gradients of one tensor.
fn add<V: Value>(a: V, b: V, dtype: DType) -> Result<V> {
    let device = a.array().device().clone();
    V::run_over(Op::Binary(Binary::Add), smallvec![a, b], &[], &device, dtype)
}
