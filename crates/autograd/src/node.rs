//! [`Node`]: one recorded operator application, or a leaf.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use binade_tensor::{Array, Device, Meta, Op};
use smallvec::SmallVec;

use crate::leaf::Leaf;
use crate::saved::Saved;
use crate::{Deferred, Error, Result};

/// Ids of nodes.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What backward does when it reaches a tensor, besides going on.
pub(crate) enum Hook {
    /// Sees the gradient of the tensor and may replace it.
    Gradient(GradientHook),
    /// The gradient goes on on this device.
    Device(Device),
    /// The gradient carries this scale from here on.
    Scale(f64),
    /// The change goes with the gradients.
    Change(Deferred),
}

/// A function of a gradient that may replace it.
pub(crate) type GradientHook = Box<dyn Fn(&Array) -> Result<Option<Array>> + Send + Sync>;

/// A recorded operator application, or a leaf: small, as one is made and moved for every operator. Ids rise in order of
/// creation, so a node's inputs have smaller ids.
pub struct Node {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    /// Shape and dtype of the gradient the node receives: those of the first output, or f32 for a cast whose gradient
    /// is not rounded.
    pub(crate) out: Meta,
    pub(crate) hooks: Mutex<Vec<Hook>>,
    /// A node that saved the first output as a value.
    keeper: Mutex<Weak<Node>>,
}

#[expect(clippy::large_enum_variant, reason = "nearly every node is an operator; a box would cost it an allocation")]
pub(crate) enum Kind {
    Leaf(Arc<Leaf>),
    /// A value of the first run of a recomputed function: it says that the value has a gradient, and takes what is tied
    /// to it.
    Outline,
    Op {
        op: Op,
        inputs: SmallVec<[Option<Edge>; 3]>,
        /// Shape and dtype of the inputs that have no node, in order.
        constants: Vec<Meta>,
        /// Inputs, then outputs, that the gradient needs, with their numbers; taken by backward.
        saved: Mutex<Option<Vec<(usize, Saved)>>>,
        /// For the cast of a leaf or of a view of one: the leaf's array, from which the cast can be made again.
        recast: Option<Box<Array>>,
        path: Arc<str>,
    },
    /// A computation to be run again for its gradient.
    Recompute {
        inputs: SmallVec<[Option<Edge>; 3]>,
        again: Again,
    },
    /// A recorded gradient: first where it came from, then what it was taken by, of which it is a function, perhaps a
    /// constant one.
    Gradient {
        inputs: SmallVec<[Option<Edge>; 3]>,
    },
}

/// A recorded second run on inputs from these nodes; the node its result comes from.
pub(crate) type Again = Box<dyn Fn(&[Option<Edge>]) -> Result<Option<Edge>> + Send + Sync>;

/// Where a tensor came from: always the first output of a node.
pub(crate) type Edge = Arc<Node>;

impl Node {
    pub(crate) fn new(kind: Kind, out: Meta) -> Arc<Node> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Node { id, kind, out, hooks: Mutex::default(), keeper: Mutex::default() })
    }

    /// Ties something to this node that backward does when it comes here.
    pub(crate) fn tie(&self, hook: Hook) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
    }

    /// The changes that are tied to this node.
    pub(crate) fn changes(&self) -> Vec<Deferred> {
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        let change = |hook: &Hook| if let Hook::Change(change) = hook { Some(change.clone()) } else { None };
        hooks.iter().filter_map(change).collect()
    }

    /// Notes that `keeper` saved this node's output.
    pub(crate) fn set_keeper(&self, keeper: &Arc<Node>) {
        let mut known = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if known.strong_count() == 0 {
            *known = Arc::downgrade(keeper);
        }
    }

    /// Whether an operator that used this node's output saved it, and is still there.
    pub(crate) fn is_kept(&self) -> bool {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
    }

    /// Shape and dtype of an operator's inputs; of those with a node, of the gradient it receives.
    pub(crate) fn metas(&self) -> SmallVec<[Meta; 3]> {
        let Kind::Op { inputs, constants, .. } = &self.kind else { return SmallVec::new() };
        let mut constants = constants.iter();
        inputs.iter().filter_map(|input| input.as_ref().map(|n| n.out).or_else(|| constants.next().copied())).collect()
    }

    /// Marks the node as used by a backward pass, for one that needs no saved value.
    pub(crate) fn spend(&self, keep: bool) -> Result<()> {
        let Kind::Op { op, saved, path, .. } = &self.kind else { return Ok(()) };
        let mut slot = saved.lock().unwrap_or_else(|e| e.into_inner());
        if slot.is_none() {
            return Err(Error::Released { op: op.name(), path: path.clone() });
        }
        if !keep {
            *slot = None;
        }
        Ok(())
    }

    pub(crate) fn recast(&self) -> Option<&Array> {
        match &self.kind {
            Kind::Leaf(_) | Kind::Outline | Kind::Recompute { .. } | Kind::Gradient { .. } => None,
            Kind::Op { recast, .. } => recast.as_deref(),
        }
    }
}

impl Drop for Node {
    /// Dropping a long chain must not recurse: inputs that only this node holds are taken apart in a loop.
    fn drop(&mut self) {
        let (Kind::Op { inputs, .. } | Kind::Recompute { inputs, .. } | Kind::Gradient { inputs }) = &mut self.kind
        else {
            return;
        };
        let mut stack: SmallVec<[Edge; 8]> = inputs.drain(..).flatten().collect();
        while let Some(edge) = stack.pop() {
            if let Some(mut node) = Arc::into_inner(edge)
                && let Kind::Op { inputs, .. } | Kind::Recompute { inputs, .. } | Kind::Gradient { inputs } =
                    &mut node.kind
            {
                stack.extend(inputs.drain(..).flatten());
            }
        }
    }
}
