//! [`Gradients`]: the result of backward, a value that knows what it is: whose gradients, at which scale, and what
//! waits for their step.

use std::collections::BTreeMap;
use std::sync::Arc;

use binade_tensor::op::Binary;
use binade_tensor::{Array, Class, Op, Request, run, run_one};
use smallvec::smallvec;

use crate::deferred::Prepared;
use crate::leaf::Leaf;
use crate::{Deferred, Error, LeafId, Owner, Result, Var};

/// Gradients by leaf, each in the leaf's dtype, and the changes that wait for the step that takes them ([`Deferred`]).
///
/// A gradient carries the scale of its loss ([`Var::scaled`]). One that was inserted by hand where there was none
/// carries no scale: a scaler takes it for its own, everybody else for 1.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    map: BTreeMap<LeafId, Gradient>,
    changes: Vec<Deferred>,
}

#[derive(Clone, Debug)]
struct Gradient {
    array: Array,
    scale: Option<f64>,
    /// The leaf, where backward met it.
    leaf: Option<Arc<Leaf>>,
}

impl Gradients {
    /// The gradient of a leaf; `None` if the loss does not depend on it.
    pub fn get(&self, leaf: &Var) -> Option<&Array> {
        self.by_id(leaf.leaf_id()?)
    }

    /// The gradient of the leaf with that identity.
    pub fn by_id(&self, id: LeafId) -> Option<&Array> {
        self.map.get(&id).map(|g| &g.array)
    }

    /// Sets the gradient of a leaf, in the units of the one that was there.
    pub fn insert(&mut self, id: LeafId, gradient: Array) {
        match self.map.get_mut(&id) {
            Some(there) => there.array = gradient,
            None => drop(self.map.insert(id, Gradient { array: gradient, scale: None, leaf: None })),
        }
    }

    pub(crate) fn found(&mut self, leaf: &Arc<Leaf>, array: Array, scale: f64) {
        self.map.insert(leaf.id, Gradient { array, scale: Some(scale), leaf: Some(leaf.clone()) });
    }

    /// Removes the gradient of a leaf.
    pub fn remove(&mut self, id: LeafId) -> Option<Array> {
        self.map.remove(&id).map(|g| g.array)
    }

    /// All gradients in order of their leaves' creation.
    pub fn iter(&self) -> impl Iterator<Item = (LeafId, &Array)> {
        self.map.iter().map(|(id, gradient)| (*id, &gradient.array))
    }

    /// Number of gradients.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The scale that a leaf's gradient carries; `None` if it is not known, or there is no gradient.
    pub fn scale_of(&self, id: LeafId) -> Option<f64> {
        self.map.get(&id)?.scale
    }

    /// Notes that a leaf's gradient carries that scale.
    pub fn set_scale_of(&mut self, id: LeafId, scale: f64) {
        if let Some(gradient) = self.map.get_mut(&id) {
            gradient.scale = Some(scale);
        }
    }

    /// A leaf's gradient with memory of its own, to be changed in place: a clone of these gradients keeps what it has.
    ///
    /// # Errors
    /// Out of memory.
    pub fn unshared(&mut self, id: LeafId) -> Result<Option<&Array>> {
        let Some(Gradient { array, .. }) = self.map.get_mut(&id) else { return Ok(None) };
        if Arc::strong_count(array.storage()) > 1 {
            *array = copy(array)?;
        }
        Ok(Some(array))
    }

    /// Adds the gradients of another backward pass, in f32, and what waits with them: gradient accumulation.
    ///
    /// Where a leaf's two gradients carry different scales, the one of the smaller scale is brought to the larger:
    /// exact, as the ratio must be a power of two.
    ///
    /// # Errors
    /// [`Error::Scales`] if it is none; other shapes; out of memory. Nothing is changed then.
    pub fn add(&mut self, other: Gradients) -> Result<()> {
        for (id, new) in &other.map {
            self.map.get(id).map_or(Ok(()), |old| old.fits(new))?;
        }
        // Sums that take memory are made beside what is there; after them those that take none are written over it.
        let (mut made, mut rest) = (Vec::new(), Vec::new());
        for (id, new) in other.map {
            let old = self.map.get_mut(&id);
            match old.map(|old| (old.takes(&new), old)) {
                None => made.push((id, new)),
                Some((true, _)) => rest.push((id, new)),
                Some((false, old)) => made.push((id, old.clone().plus(new)?)),
            }
        }
        self.map.extend(made);
        for (id, new) in rest {
            if let Some(old) = self.map.remove(&id) {
                self.map.insert(id, old.plus(new)?);
            }
        }
        other.changes.into_iter().for_each(|change| self.push_change(change));
        Ok(())
    }

    /// The gradients of some leaves, and the changes that their owners' step decides about. Memory is shared.
    pub fn part(&self, leaves: impl IntoIterator<Item = LeafId>, owners: &[&Owner]) -> Gradients {
        let found = leaves.into_iter().filter_map(|id| self.map.get(&id).map(|g| (id, g.clone())));
        Gradients { map: found.collect(), changes: self.decided(owners).cloned().collect() }
    }

    /// The changes that the step of some owners decides about.
    fn decided(&self, owners: &[&Owner]) -> impl Iterator<Item = &Deferred> {
        self.changes.iter().filter(|change| owners.iter().any(|owner| owner.decides(change.claims())))
    }

    /// The parameters, by name and shape, whose gradients no optimiser will take: one that was never given to an
    /// optimiser, or whose optimiser is gone.
    pub fn unclaimed(&self) -> Vec<String> {
        let of = |gradient: &Gradient| {
            let leaf = gradient.leaf.as_ref()?;
            let name = leaf.unclaimed_name()?;
            let name = if name.is_empty() { "a parameter without a name" } else { &name };
            Some(format!("{name} {:?}", gradient.array.shape()))
        };
        self.map.values().filter_map(of).collect()
    }

    /// Adds a change that waits for the step of these gradients.
    pub fn push_change(&mut self, change: Deferred) {
        if !self.changes.iter().any(|c| c.is(&change)) {
            self.changes.push(change);
        }
    }

    /// Computes what waits for the step of those owners, and writes nothing yet.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn prepare(&self, owners: &[&Owner]) -> Result<Prepared> {
        Prepared::new(self.decided(owners))
    }

    /// Makes all changes that wait, whoever owns them: for steps without an optimiser, and for those of a network whose
    /// step does not follow.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn commit(&self) -> Result<()> {
        Prepared::new(&self.changes)?.write()
    }

    /// Drops all changes that wait: the step was skipped.
    pub fn discard(&self) {
        self.changes.iter().for_each(Deferred::close);
    }
}

impl Gradient {
    /// Whether another of the same leaf can be added.
    fn fits(&self, other: &Gradient) -> Result<()> {
        if self.array.shape() != other.array.shape() {
            return Err(binade_tensor::Error::Shape {
                op: "add",
                expected: "gradients of one shape".into(),
                shapes: vec![*self.array.shape(), *other.array.shape()],
            }
            .into());
        }
        match (self.scale, other.scale) {
            // A power of two has no bits beside the leading one.
            (Some(a), Some(b)) if !((a / b).is_normal() && (a / b).to_bits() & ((1 << 52) - 1) == 0) => {
                Err(Error::Scales { found: [a, b] })
            }
            _ => Ok(()),
        }
    }

    /// Whether the sum with another takes no memory: it is written over this one.
    fn takes(&mut self, other: &Gradient) -> bool {
        let scaled = self.scale.zip(other.scale).is_some_and(|(a, b)| a != b);
        let (a, b) = (&mut self.array, &other.array);
        let alike = a.layout() == b.layout() && a.device() == b.device() && b.is_written();
        let own = a.is_whole() && a.is_written() && a.storage().class() == Class::Gradients;
        !scaled && alike && own && a.dtype() == a.dtype().accum() && a.is_sole()
    }

    fn plus(self, other: Gradient) -> Result<Gradient> {
        let scale = match (self.scale, other.scale) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        let leaf = self.leaf.clone().or_else(|| other.leaf.clone());
        let (a, b) = (self.at(scale)?, other.at(scale)?);
        let (device, want) = (a.device().clone(), a.dtype().accum());
        let request = Request::new(&Op::Binary(Binary::Add), &[], &device, want, Class::Gradients);
        let array = run(Request { given: smallvec![a, b], ..request })?.swap_remove(0);
        Ok(Gradient { array, scale, leaf })
    }

    /// The gradient as it would be at that scale.
    fn at(self, scale: Option<f64>) -> Result<Array> {
        let ratio = self.scale.zip(scale).map_or(1.0, |(from, to)| to / from);
        if ratio == 1.0 {
            return Ok(self.array);
        }
        let op = Op::Scalar { op: Binary::Mul, value: ratio, reversed: false };
        Ok(run_one(&op, &[&self.array], self.array.device(), self.array.dtype().accum(), Class::Gradients)?)
    }
}

/// A copy of a gradient.
pub(crate) fn copy(array: &Array) -> Result<Array> {
    Ok(run_one(&Op::Copy, &[array], array.device(), array.dtype(), Class::Gradients)?)
}
