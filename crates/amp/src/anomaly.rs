//! [`Watch`]: operators of a step whose results are not finite, found as they run.

use std::sync::{Arc, Mutex, PoisonError};

use binade_autograd::scope::{self, Event};

use crate::Blame;
use crate::blame::Search;

/// Sees what runs within [`Watch::over`].
#[derive(Default)]
pub(crate) struct Watch(Arc<Mutex<Search>>);

impl Watch {
    /// Runs `f`, watched where there is a watch.
    pub(crate) fn over<T>(watch: Option<&Watch>, f: impl FnOnce() -> T) -> T {
        let Some(Watch(search)) = watch else { return f() };
        let search = search.clone();
        let see = move |event: &Event<'_>| search.lock().unwrap_or_else(PoisonError::into_inner).see(event);
        scope::with_observer(Arc::new(see), f)
    }

    /// The first operator so far whose result was not finite, and whose harm no other has undone.
    pub(crate) fn found(watch: Option<&Watch>) -> Option<Box<Blame>> {
        let search = watch?.0.lock().unwrap_or_else(PoisonError::into_inner);
        search.first().cloned().map(Box::new)
    }
}
