//! [`Fault`]: a value planted into an operator's result, to test that a model's training survives it and that the blame
//! is right.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use binade_autograd::scope::{self, Event, Phase};
use binade_tensor::{Array, Class};

/// A value for the last element of the first result of the operator number `at`, views and integers not counted.
#[derive(Clone, Debug)]
pub struct Fault(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    at: usize,
    value: f64,
    count: AtomicUsize,
    hit: Mutex<Option<Hit>>,
}

/// Where a fault was planted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Operator.
    pub op: String,
    /// Path of its layer.
    pub layer: String,
    /// Whether it computed a gradient.
    pub backward: bool,
}

impl Fault {
    /// A fault at the operator number `at`, from 0.
    pub fn new(at: usize, value: f64) -> Fault {
        Fault(Arc::new(Inner { at, value, count: AtomicUsize::new(0), hit: Mutex::new(None) }))
    }

    /// Starts counting operators anew: call it where a step begins, so that a step that is run again has the same
    /// fault.
    pub fn restart(&self) {
        self.0.count.store(0, Ordering::Relaxed);
    }

    /// Where it was planted; `None` if there were not so many operators.
    pub fn hit(&self) -> Option<Hit> {
        self.0.hit.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Runs `f` with the fault.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        let inner = self.0.clone();
        scope::with_observer(Arc::new(move |event| inner.see(event)), f)
    }
}

impl Inner {
    fn see(&self, event: &Event<'_>) {
        let out = &event.outs[0];
        // Views share the memory of what they view; integers hold no infinity.
        let shared = event.ins.iter().any(|a| a.storage().id() == out.storage().id());
        if shared
            || !out.dtype().is_float()
            || out.numel() == 0
            || self.count.fetch_add(1, Ordering::Relaxed) != self.at
        {
            return;
        }
        let planted = out.to_f64_vec().and_then(|mut values| {
            values.last_mut().into_iter().for_each(|v| *v = self.value);
            out.copy_from(&Array::from_slice(out.device(), &values, out.shape(), Class::Workspace)?)
        });
        if planted.is_ok() {
            let (op, layer) = (event.op.name().into(), event.path.into());
            *self.hit.lock().unwrap_or_else(|e| e.into_inner()) =
                Some(Hit { op, layer, backward: event.phase == Phase::Backward });
        }
    }
}
