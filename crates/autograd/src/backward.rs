//! The backward pass: nodes in falling order of id, so that each is visited once, after all its uses.

use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use binade_tensor::{Array, Class, Op};

use crate::gradients::add;
use crate::node::{Kind, LeafId, Node, Saved};
use crate::table::{Context, gradients};
use crate::{Error, Gradients, Result, Var, scope};

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
    let root = loss.node().ok_or(Error::NoGraph)?;
    let array = loss.array();
    let seed = match upstream {
        Some(gradient) if gradient.shape() != array.shape() => {
            return Err(binade_tensor::Error::Shape {
                op: "backward",
                expected: "expected a gradient of the tensor's shape".into(),
                shapes: vec![*gradient.shape(), *array.shape()],
            }
            .into());
        }
        Some(gradient) => gradient.clone(),
        None if array.numel() != 1 => return Err(Error::NotScalar { shape: array.shape().to_vec() }),
        None => Array::full(array.device(), array.dtype(), *array.shape(), 1.0, Class::Gradients)?,
    };
    let mut result = Gradients::default();
    let mut dtypes = HashMap::<LeafId, binade_tensor::DType>::new();
    let mut pending = HashMap::<u64, Array>::from([(root.id, seed)]);
    let mut heap = BinaryHeap::from([ById(root.clone())]);
    while let Some(ById(node)) = heap.pop() {
        let Some(sum) = pending.remove(&node.id) else { continue };
        // Several uses were summed in f32; the node gets them in its own dtype, rounded once.
        let mut gradient = sum.cast(node.out.dtype, Class::Gradients)?;
        for hook in node.hooks.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            if let Some(replacement) = hook(&gradient)? {
                gradient = replacement;
            }
        }
        let (op, inputs, metas, saved, path) = match &node.kind {
            Kind::Leaf(id) => {
                dtypes.insert(*id, node.out.dtype);
                result.accumulate(*id, gradient)?;
                continue;
            }
            Kind::Op { op, inputs, metas, saved, path, .. } => (op, inputs, metas, saved, path),
        };
        scope::enter_path(path);
        let released = || Error::Released { op: op.name(), path: path.clone() };
        let mut slot = saved.lock().unwrap_or_else(|e| e.into_inner());
        let values = slot.as_ref().ok_or_else(released)?;
        let get = |s: &Option<Saved>| s.as_ref().map(|s| s.get(op.name(), path)).transpose();
        let values = values.iter().map(get).collect::<Result<_>>()?;
        if !keep {
            *slot = None;
        }
        drop(slot);
        let context = Context::new(op, path, metas, inputs.iter().map(Option::is_some).collect(), values, array.device());
        let grads = gradients(op, &context, &gradient)?;
        drop((context, gradient));
        for (input, gradient) in inputs.iter().zip(grads) {
            let (Some(input), Some(gradient)) = (input, gradient) else { continue };
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
    for (id, gradient) in result.map_mut().iter_mut() {
        *gradient = gradient.cast(dtypes[id], Class::Gradients)?.contiguous(Class::Gradients)?;
        // Each leaf owns its gradient: `a + b` hands both operands the same array, and clipping works in place.
        if Arc::strong_count(gradient.storage()) > 1 {
            *gradient = binade_tensor::run_one(&Op::Copy, &[gradient], gradient.device(), gradient.dtype(), Class::Gradients)?;
        }
    }
    Ok(result)
}
