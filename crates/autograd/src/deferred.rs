//! [`Deferred`]: a change of buffers that waits for the outcome of a step, as BatchNorm's running statistics do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use binade_tensor::{Array, ArrayMut, Class};

use crate::{Claims, Result};

type Next = dyn Fn(&[Array]) -> Result<Vec<Array>> + Send + Sync;

/// New values of some buffers, as a function of the values they have when a step is applied. [`crate::Var::defer`] ties
/// it to the forward pass that made it; backward hands it on with the gradients. It is made once at most, however many
/// values carry it.
#[derive(Clone)]
pub struct Deferred(Arc<Inner>);

struct Inner {
    buffers: Vec<Array>,
    claims: Vec<Claims>,
    next: Box<Next>,
    /// Neither made nor dropped so far.
    open: AtomicBool,
}

impl Deferred {
    /// `next` gives the new values of `buffers`, each of its buffer's shape, from the present ones; it changes nothing
    /// itself. `claims` are those on the parameters and buffers of the module: the step of the optimiser that has one
    /// of them decides.
    pub fn new(
        buffers: Vec<Array>,
        claims: Vec<Claims>,
        next: impl Fn(&[Array]) -> Result<Vec<Array>> + Send + Sync + 'static,
    ) -> Deferred {
        Deferred(Arc::new(Inner { buffers, claims, next: Box::new(next), open: AtomicBool::new(true) }))
    }

    pub(crate) fn claims(&self) -> &[Claims] {
        &self.0.claims
    }

    /// Whether both are one change.
    pub(crate) fn is(&self, other: &Deferred) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }

    /// It will not be made any more.
    pub(crate) fn close(&self) {
        self.0.open.store(false, Ordering::Release);
    }

    /// Makes the change now.
    pub(crate) fn make(&self) -> Result<()> {
        Prepared::new([self])?.write()
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").field("buffers", &self.0.buffers.len()).field("open", &self.is_open()).finish()
    }
}

/// Changes whose values are computed and not written yet, so that a step can fail before it has changed anything.
#[derive(Debug, Default)]
pub struct Prepared {
    changes: Vec<Deferred>,
    /// Buffers and their new values.
    values: Vec<(Array, Array)>,
}

impl Prepared {
    /// Computes the changes in order, each from what the one before makes of its buffers.
    ///
    /// # Errors
    /// A buffer is in use; the new values are of another shape; out of memory.
    pub fn new<'a>(changes: impl IntoIterator<Item = &'a Deferred>) -> Result<Prepared> {
        let mut prepared = Prepared::default();
        let mut at = HashMap::new();
        for change in changes.into_iter().filter(|c| c.is_open()) {
            let buffers = &change.0.buffers;
            let mut places = Vec::with_capacity(buffers.len());
            for buffer in buffers {
                let key = (buffer.storage().id(), buffer.layout().offset);
                places.push(*at.entry(key).or_insert_with(|| {
                    prepared.values.push((buffer.clone(), buffer.clone()));
                    prepared.values.len() - 1
                }));
                // It must be free when it is written to.
                drop(ArrayMut::new("running statistics", buffer)?);
            }
            let present: Vec<Array> = places.iter().map(|&i| prepared.values[i].1.clone()).collect();
            for (&place, value) in places.iter().zip((change.0.next)(&present)?) {
                let buffer = &prepared.values[place].0;
                if value.shape() != buffer.shape() {
                    return Err(binade_tensor::Error::Shape {
                        op: "deferred change",
                        expected: "new values of the buffer's shape".into(),
                        shapes: vec![*value.shape(), *buffer.shape()],
                    }
                    .into());
                }
                // The next change of this buffer sees what would be stored.
                let stored = if value.dtype() == buffer.dtype() {
                    value
                } else {
                    value.cast(buffer.dtype(), Class::Workspace)?
                };
                prepared.values[place].1 = stored;
            }
            prepared.changes.push(change.clone());
        }
        Ok(prepared)
    }

    /// Writes the new values.
    ///
    /// # Errors
    /// A buffer is in use on another thread.
    pub fn write(self) -> Result<()> {
        for (buffer, value) in &self.values {
            buffer.copy_from(value)?;
        }
        self.changes.iter().for_each(Deferred::close);
        Ok(())
    }
}
