//! [`checkpoint`]: memory for time (Chen et al. 2016).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use binade_tensor::{Array, DType, Layout, Meta, Shape, WeakArray};
use smallvec::SmallVec;

use crate::node::{Edge, Hook, Kind, Node, Recompute};
use crate::saved::{Saved, check_version};
use crate::scope::Scope;
use crate::{Result, Var, scope};

/// Runs `f` on `ins` and keeps nothing of it but the inputs; backward runs it again. The second run has the first one's
/// scope: the same cast rule, mode, random numbers and layer, so the gradients are those without checkpointing, bit for
/// bit. What it defers (running statistics) goes with the gradients once: the second run is a rehearsal.
///
/// The result has a gradient exactly if it has one without checkpointing.
///
/// # Errors
/// Those of `f`; in backward, anything that `f` read and that was changed in place since: an input, a parameter, a
/// buffer.
pub fn checkpoint(f: impl Fn(&[Var]) -> Result<Var> + Send + Sync + 'static, ins: &[&Var]) -> Result<Var> {
    let surrounding = scope::capture().rehearsal();
    let f: Recompute = Arc::new(f);
    let given: SmallVec<[Var; 3]> = ins.iter().map(|v| (*v).clone().at(None)).collect();
    // Inside the first run of another one, that one runs this again.
    if !scope::is_grad_enabled() || scope::outline().is_some() {
        return f(&given);
    }
    let any = Meta { dtype: DType::F32, layout: Layout::contiguous(Shape::SCALAR) };
    let outline = Arc::new(Outline { node: Node::new(Kind::Outline, any), read: Mutex::default() });
    let out = scope::with_outline(outline.clone(), || f(&given))?;
    if !out.node().is_some_and(|node| Arc::ptr_eq(node, &outline.node)) {
        return Ok(out);
    }
    let kind = Kind::Recompute {
        inputs: ins.iter().map(|v| v.node().cloned()).collect(),
        saved: ins.iter().map(|v| v.saved()).collect(),
        read: outline.read(),
        f,
        scope: Box::new(surrounding),
    };
    let node = Node::new(kind, out.array().meta());
    outline.node.changes().into_iter().for_each(|change| node.tie(Hook::Change(change)));
    Ok(Var::with_node(out.array().clone(), node))
}

/// The first run: which values have a gradient is known, and nothing is kept for one.
pub(crate) struct Outline {
    /// Stands for every value that has a gradient.
    node: Arc<Node>,
    /// What operators read, by storage, with its version.
    read: Mutex<HashMap<u64, (WeakArray, u64)>>,
}

impl Outline {
    /// A result of an operator.
    pub(crate) fn pass(&self, ins: &[&Var], first: Array, recorded: bool) -> Var {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        for var in ins.iter().filter(|v| !v.node().is_some_and(|node| Arc::ptr_eq(node, &self.node))) {
            let storage = var.array().storage();
            read.entry(storage.id()).or_insert_with(|| (var.array().downgrade(), storage.version()));
        }
        if recorded { Var::with_node(first, self.node.clone()) } else { Var::constant(first) }
    }

    /// What was read and is still there: the rest was made inside.
    fn read(&self) -> Vec<(WeakArray, u64)> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.values().filter(|(array, _)| array.upgrade().is_some()).cloned().collect()
    }
}

/// The second run, recorded.
pub(crate) fn again(
    inputs: &[Option<Edge>],
    saved: &[Saved],
    read: &[(WeakArray, u64)],
    f: &Recompute,
    surrounding: &Scope,
) -> Result<Var> {
    let path = scope::path();
    for (array, version) in read {
        array.upgrade().map_or(Ok(()), |array| check_version(&array, *version, "checkpoint", &path))?;
    }
    let mut vars = SmallVec::<[Var; 3]>::new();
    for (edge, value) in inputs.iter().zip(saved) {
        let array = value.get("checkpoint", &path, false)?;
        vars.push(match edge {
            Some(node) => Var::with_node(array, node.clone()),
            None => Var::constant(array),
        });
    }
    scope::run_in(&surrounding.observed_now(), || f(&vars))
}
