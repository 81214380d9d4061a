//! [`Gradients`]: the result of backward, a value.

use std::collections::BTreeMap;

use binade_tensor::op::Binary;
use binade_tensor::{Array, Class, Op, run_over};
use smallvec::smallvec;

use crate::{LeafId, Result, Var};

/// Gradients by leaf, each in the leaf's dtype.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    map: BTreeMap<LeafId, Array>,
}

impl Gradients {
    /// The gradient of a leaf; `None` if the loss does not depend on it.
    pub fn get(&self, leaf: &Var) -> Option<&Array> {
        self.by_id(leaf.leaf_id()?)
    }

    /// The gradient of the leaf with that identity.
    pub fn by_id(&self, id: LeafId) -> Option<&Array> {
        self.map.get(&id)
    }

    /// Sets the gradient of a leaf.
    pub fn insert(&mut self, id: LeafId, gradient: Array) {
        self.map.insert(id, gradient);
    }

    /// Removes the gradient of a leaf.
    pub fn remove(&mut self, id: LeafId) -> Option<Array> {
        self.map.remove(&id)
    }

    /// All gradients in order of their leaves' creation.
    pub fn iter(&self) -> impl Iterator<Item = (LeafId, &Array)> {
        self.map.iter().map(|(id, array)| (*id, array))
    }

    /// Number of gradients.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Adds the gradients of another backward pass: gradient accumulation, in f32.
    ///
    /// # Errors
    /// Out of memory.
    pub fn add(&mut self, other: Gradients) -> Result<()> {
        for (id, gradient) in other.map {
            self.accumulate(id, gradient)?;
        }
        Ok(())
    }

    pub(crate) fn accumulate(&mut self, id: LeafId, gradient: Array) -> Result<()> {
        let sum = match self.map.remove(&id) {
            Some(before) => add(before, gradient)?,
            None => gradient,
        };
        self.map.insert(id, sum);
        Ok(())
    }
}

/// The sum of two gradients of one tensor, in f32 (f64 for f64).
pub(crate) fn add(a: Array, b: Array) -> Result<Array> {
    let (device, want) = (a.device().clone(), a.dtype().accum());
    Ok(run_over(&Op::Binary(Binary::Add), smallvec![a, b], &[], &device, want, Class::Gradients)?)
}
