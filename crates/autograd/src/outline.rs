//! [`Outline`]: the first run of a function that backward will run again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use binade_tensor::{Array, DType, Layout, Meta, Shape, WeakArray};

use crate::Deferred;
use crate::node::{Kind, Node};

/// The first run: which values have a gradient is known, and nothing is kept for one.
pub(crate) struct Outline {
    /// Stands for every value that has a gradient.
    node: Arc<Node>,
    /// What operators read, by storage, with its version.
    read: Mutex<HashMap<u64, (WeakArray, u64)>>,
}

impl Outline {
    pub(crate) fn new() -> Outline {
        let any = Meta { dtype: DType::F32, layout: Layout::contiguous(Shape::SCALAR) };
        Outline { node: Node::new(Kind::Outline, any), read: Mutex::default() }
    }

    /// The node of a value made inside that has a gradient.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Notes what an operator reads, unless it was made inside.
    pub(crate) fn note(&self, array: &Array, node: Option<&Arc<Node>>) {
        if !node.is_some_and(|node| Arc::ptr_eq(node, &self.node)) {
            let storage = array.storage();
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.entry(storage.id()).or_insert_with(|| (array.downgrade(), storage.version()));
        }
    }

    /// What was read and is still there: the rest was made inside.
    pub(crate) fn read(&self) -> Vec<(WeakArray, u64)> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.values().filter(|(array, _)| array.upgrade().is_some()).cloned().collect()
    }

    /// The changes that values made inside leave to the step.
    pub(crate) fn changes(&self) -> Vec<Deferred> {
        self.node.changes()
    }
}
