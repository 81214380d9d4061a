//! What gradients have reached in a walk: nodes in falling order of id, and what waits at each of them.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use binade_tensor::op::{Backward, Binary, View};
use binade_tensor::{Array, DType, Layout, Meta, Op, Shape};
use smallvec::smallvec;

use crate::node::Node;
use crate::table::inverse;
use crate::value::Value;
use crate::{Error, Result};

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

/// The nodes that gradients have reached and that wait for their turn.
pub(crate) struct Front<V> {
    pending: HashMap<u64, Pending<V>>,
    heap: BinaryHeap<ById>,
}

impl<V> Front<V> {
    pub(crate) fn new() -> Front<V> {
        Front { pending: HashMap::new(), heap: BinaryHeap::new() }
    }

    /// The node of the largest id, with what it received.
    pub(crate) fn next(&mut self) -> Option<(Arc<Node>, Pending<V>)> {
        let ById(node) = self.heap.pop()?;
        let received = self.pending.remove(&node.id)?;
        Some((node, received))
    }

    /// Notes that the walk has come to a node, perhaps without a gradient for it.
    pub(crate) fn reach(&mut self, node: &Arc<Node>, scale: f64) {
        if let Entry::Vacant(entry) = self.pending.entry(node.id) {
            self.heap.push(ById(node.clone()));
            entry.insert(Pending { scale, sum: None, last: None, parts: Vec::new() });
        }
    }

    /// What waits for a node, for a gradient that carries that scale.
    pub(crate) fn at(&mut self, node: &Arc<Node>, scale: f64) -> Result<&mut Pending<V>> {
        match self.pending.entry(node.id) {
            Entry::Occupied(entry) if entry.get().scale != scale && !entry.get().is_empty() => {
                Err(Error::Scales { found: [entry.get().scale, scale] })
            }
            Entry::Occupied(entry) => {
                let pending = entry.into_mut();
                pending.scale = scale;
                Ok(pending)
            }
            Entry::Vacant(entry) => {
                self.heap.push(ById(node.clone()));
                Ok(entry.insert(Pending { scale, sum: None, last: None, parts: Vec::new() }))
            }
        }
    }
}

/// What has reached a node so far.
pub(crate) struct Pending<V> {
    /// The loss scale it carries.
    pub(crate) scale: f64,
    /// The sum of all but the last, in f32 (f64 for f64).
    sum: Option<V>,
    /// Added when it is known to be the last: so the whole sum is rounded as it is made.
    last: Option<V>,
    /// Gradients of narrowed views. Those of q, k and v together are the whole of qkv: one copy instead of a padded
    /// tensor each and their sums.
    parts: Vec<Part<V>>,
}

struct Part<V> {
    dim: usize,
    start: usize,
    gradient: V,
}

impl<V> Pending<V> {
    /// Whether no gradient has come yet, only the walk.
    fn is_empty(&self) -> bool {
        self.last.is_none() && self.parts.is_empty()
    }
}

impl<V: Value> Pending<V> {
    /// One more gradient, of a part of the tensor: from the first index `start` of dimension `dim`.
    pub(crate) fn add_part(&mut self, (dim, start): (usize, usize), gradient: V) {
        self.parts.push(Part { dim, start, gradient });
    }

    /// One more gradient.
    pub(crate) fn add(&mut self, gradient: V) -> Result<()> {
        if let Some(last) = self.last.replace(gradient) {
            let dtype = last.dtype().accum();
            self.sum = Some(match self.sum.take() {
                Some(before) => add(before, last, dtype)?,
                None => last,
            });
        }
        Ok(())
    }

    /// The sum of all, for a tensor like `out`; `None` if there is nothing to add.
    pub(crate) fn total(mut self, out: &Meta) -> Result<Option<V>> {
        if let Some(whole) = self.joined(out)? {
            self.add(whole)?;
        } else {
            for Part { dim, start, gradient } in std::mem::take(&mut self.parts) {
                let op = Op::Backward(Backward::Narrow { dim, start, shape: out.layout.shape });
                self.add(V::run(op, &[&gradient], gradient.array().device(), out.dtype)?)?;
            }
        }
        match (self.sum, self.last) {
            (Some(before), Some(last)) => add(before, last, out.dtype).map(Some),
            (None, last) | (last, None) => Ok(last),
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
            if !(Arc::ptr_eq(other.storage(), array.storage()) && other.dtype() == array.dtype() && other.is_written())
            {
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
        // With dimensions in memory order the result is in row-major order, and where the parts were cut from a
        // reshaped product it can be reshaped back without a copy.
        let order = out.layout.order();
        let inverse = inverse(&order);
        let device = self.parts[0].gradient.array().device().clone();
        let dtype = self.parts.iter().map(|p| p.gradient.dtype()).reduce(|a, b| if a == b { a } else { out.dtype });
        let meta =
            Meta { dtype: dtype.unwrap_or(out.dtype), layout: Layout::contiguous(out.layout.permute(&order).shape) };
        let permuted = |v: &V, axes: Shape| V::run(Op::View(View::Permute(axes)), &[v], &device, v.dtype());
        let parts = self.parts.iter().map(|p| permuted(&p.gradient, order)).collect::<Result<Vec<V>>>()?;
        self.parts.clear();
        let whole = V::run_laid_out(Op::Cat { dim: inverse[dim] }, &parts.iter().collect::<Vec<_>>(), &device, meta)?;
        permuted(&whole, inverse).map(Some)
    }
}

/// The sum of two gradients of one tensor.
fn add<V: Value>(a: V, b: V, dtype: DType) -> Result<V> {
    let device = a.array().device().clone();
    V::run_over(Op::Binary(Binary::Add), smallvec![a, b], &[], &device, dtype)
}
