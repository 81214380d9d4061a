//! The one thread-local: what surrounds an operator. Set by guards, so it is restored on panic too; capturable, so that
//! worker threads and recomputation run under the same one.

mod layer;
mod parameters;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use binade_tensor::{Array, Device, Key, Op, Storage};

pub use layer::{in_model, operand, path, place, within, within_model};
pub(crate) use layer::{show_path, with_operand};
pub use parameters::{Stored, is_drawn, stored, with_stored, without_initial_values};

use crate::device::default_device;
use crate::outline::Outline;
use crate::{CastRule, Deferred, Place, Result, StoredAs, Structure};

/// Whether an operator ran forward or for a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Computing a result.
    #[default]
    Forward,
    /// Computing gradients.
    Backward,
}

/// An operator that has just run.
#[derive(Debug)]
pub struct Event<'a> {
    /// The operator.
    pub op: &'a Op,
    /// Forward or backward.
    pub phase: Phase,
    /// Path of the layer, empty outside a model.
    pub path: &'a str,
    /// Inputs.
    pub ins: &'a [&'a Array],
    /// Outputs.
    pub outs: &'a [Array],
}

/// Sees every operator that runs.
pub type Observer = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// What surrounds an operator.
#[derive(Clone)]
pub struct Scope {
    observer: Option<Observer>,
    rule: Option<Arc<dyn CastRule>>,
    grad: bool,
    train: bool,
    phase: Phase,
    key: Key,
    /// Path of the layer, for messages.
    path: Arc<str>,
    /// The layer itself, in forward passes.
    place: Option<Place>,
    /// The model that runs.
    model: Option<Arc<Structure>>,
    /// The parameter among the operands of the operator that is applied.
    operand: Option<StoredAs>,
    stored: Stored,
    /// Whether initial values of new parameters are drawn.
    drawn: bool,
    /// Where operators without inputs run, and new tensors and parameters are made.
    device: Option<Device>,
    /// What the loss of the step will be multiplied by.
    loss_scale: f64,
    /// Nothing that is deferred counts: a step is run again to look at it.
    rehearsal: bool,
    /// Where changes go that no gradient will carry.
    collector: Option<Arc<Mutex<Vec<Deferred>>>>,
    /// The first run of a function that backward will run again.
    outline: Option<Arc<Outline>>,
    /// Storages whose casts are cached for the outermost region with a cast rule.
    cached: Vec<Weak<Storage>>,
}

impl Default for Scope {
    fn default() -> Scope {
        Scope {
            observer: None,
            rule: None,
            grad: true,
            train: true,
            phase: Phase::Forward,
            key: Key::default(),
            path: Arc::from(""),
            place: None,
            model: None,
            operand: None,
            stored: Stored::F32,
            drawn: true,
            device: None,
            loss_scale: 1.0,
            rehearsal: false,
            collector: None,
            outline: None,
            cached: Vec::new(),
        }
    }
}

impl Scope {
    /// The same with the observer, and the phase, of now.
    pub(crate) fn observed_now(&self) -> Scope {
        with(|now| Scope { observer: now.observer.clone(), phase: now.phase, ..self.clone() })
    }

    /// The same for a run that only looks: what is deferred in it is neither kept nor made.
    #[must_use]
    pub fn rehearsal(self) -> Scope {
        Scope { rehearsal: true, ..self }
    }

    /// Drops cached casts unless a cast rule is in force.
    fn end_region(&mut self) {
        if self.rule.is_none() {
            self.cached.drain(..).filter_map(|w| w.upgrade()).for_each(|storage| storage.clear_derived());
        }
    }
}

/// The stream of a thread that sets none: each has its own. A thread's name, and how many of that name drew before,
/// decide, so that named threads repeat their draws in whatever order they start.
fn key_of_thread() -> Key {
    static STARTED: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = started.get_or_insert_default().entry(name.into()).or_default();
    *count += 1;
    Key::new(*count - 1, 0).stream(&format!("thread {name}"))
}

thread_local! {
    static SCOPE: RefCell<Scope> = RefCell::new(Scope { key: key_of_thread(), ..Scope::default() });
}

fn with<T>(f: impl FnOnce(&mut Scope) -> T) -> T {
    SCOPE.with(|s| f(&mut s.borrow_mut()))
}

/// Restores part of the scope when dropped.
struct Restore<F: FnMut(&mut Scope)>(F);

impl<F: FnMut(&mut Scope)> Drop for Restore<F> {
    fn drop(&mut self) {
        with(&mut self.0);
    }
}

/// Runs `f` without recording gradients.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    let before = with(|s| std::mem::replace(&mut s.grad, false));
    let _restore = Restore(move |s| s.grad = before);
    f()
}

/// Runs `f` recording gradients, also inside [`no_grad`].
pub fn recording<T>(f: impl FnOnce() -> T) -> T {
    let before = with(|s| std::mem::replace(&mut s.grad, true));
    let _restore = Restore(move |s| s.grad = before);
    f()
}

/// Runs `f` in evaluation mode: no dropout, running statistics in batch norm, no gradients.
pub fn eval<T>(f: impl FnOnce() -> T) -> T {
    with_training(false, || no_grad(f))
}

/// Runs `f` with layers in training or evaluation mode, recording gradients as before.
pub fn with_training<T>(training: bool, f: impl FnOnce() -> T) -> T {
    let before = with(|s| std::mem::replace(&mut s.train, training));
    let _restore = Restore(move |s| s.train = before);
    f()
}

/// Runs `f` in training mode, with gradients: the default, for use inside [`eval`].
pub fn train<T>(f: impl FnOnce() -> T) -> T {
    let before = with(|s| (std::mem::replace(&mut s.train, true), std::mem::replace(&mut s.grad, true)));
    let _restore = Restore(move |s| (s.train, s.grad) = before);
    f()
}

/// Runs `f` under a cast rule (`None` for no automatic casts). When the outermost rule ends, cached casts are dropped.
pub fn with_cast_rule<T>(rule: Option<Arc<dyn CastRule>>, f: impl FnOnce() -> T) -> T {
    let mut before = with(|s| std::mem::replace(&mut s.rule, rule));
    let _restore = Restore(move |s| {
        s.rule = before.take();
        s.end_region();
    });
    f()
}

/// Runs `f` with random operators drawing from stream `iteration` of `seed`, from its first draw on.
pub fn with_key<T>(seed: u64, iteration: u64, f: impl FnOnce() -> T) -> T {
    let before = with(|s| std::mem::replace(&mut s.key, Key::new(seed, iteration)));
    let _restore = Restore(move |s| s.key = before);
    f()
}

/// Runs `f` with an observer of every operator, forward and backward: to find which one overflows, or to count them. An
/// observer that is there already sees each operator first.
pub fn with_observer<T>(observer: Observer, f: impl FnOnce() -> T) -> T {
    let both = with(|s| s.observer.clone()).map_or(observer.clone(), |outer| {
        Arc::new(move |event: &Event<'_>| {
            outer(event);
            observer(event);
        })
    });
    let mut before = with(|s| s.observer.replace(both));
    let _restore = Restore(move |s| s.observer = before.take());
    f()
}

/// Shows an operator that has run to the observer, if there is one.
pub(crate) fn observe(op: &Op, ins: &[&Array], outs: &[Array]) {
    let Some((observer, phase, path)) = with(|s| s.observer.clone().map(|o| (o, s.phase, s.path.clone()))) else {
        return;
    };
    observer(&Event { op, phase, path: &path, ins, outs });
}

/// Whether there is an observer.
pub(crate) fn is_observed() -> bool {
    with(|s| s.observer.is_some())
}

/// Runs `f` as part of a backward pass.
pub(crate) fn in_backward<T>(f: impl FnOnce() -> T) -> T {
    let mut before =
        with(|s| (std::mem::replace(&mut s.phase, Phase::Backward), s.path.clone(), s.place.take(), s.model.take()));
    let _restore = Restore(move |s| {
        s.phase = before.0;
        (s.path, s.place, s.model) = (before.1.clone(), before.2.take(), before.3.take());
    });
    f()
}

/// A copy of this thread's scope.
pub fn capture() -> Scope {
    with(|s| Scope { cached: Vec::new(), ..s.clone() })
}

/// Runs `f` under a captured scope.
pub fn run_in<T>(scope: &Scope, f: impl FnOnce() -> T) -> T {
    let mut before = Some(with(|s| std::mem::replace(s, scope.clone())));
    let _restore = Restore(move |s| {
        let inside = std::mem::replace(s, before.take().unwrap_or_default());
        // Casts cached inside live as long as the region around, if there is one.
        s.cached.extend(inside.cached);
        s.end_region();
    });
    f()
}

/// Whether gradients are recorded.
pub fn is_grad_enabled() -> bool {
    with(|s| s.grad)
}

/// Whether layers behave as in training.
pub fn is_training() -> bool {
    with(|s| s.train)
}

/// The key for the next random operator of this scope.
pub fn next_key() -> Key {
    with(|s| {
        let key = s.key;
        s.key.op = s.key.op.wrapping_add(1);
        key
    })
}

/// Runs `f` on a device: new tensors and parameters are made there, and operators without inputs run there. Others run
/// where their inputs are.
///
/// ```
/// use binade_autograd::{Var, scope};
/// use binade_tensor::{Device, remote::Remote};
/// let device = Device::new(Remote::new());
/// let x = scope::with_device(&device, || Var::uniform(0.0, 1.0, &[2, 3]))?;
/// assert!(*x.array().device() == device);
/// # Ok::<(), binade_autograd::Error>(())
/// ```
pub fn with_device<T>(device: &Device, f: impl FnOnce() -> T) -> T {
    let mut before = Some(with(|s| s.device.replace(device.clone())));
    let _restore = Restore(move |s| s.device = before.take().flatten());
    f()
}

/// The device that new tensors are made on: that of [`with_device`], else the one that the environment variable
/// `BINADE_DEVICE` names ([`Device::open`]), else the CPU.
///
/// # Errors
/// There is no device of that name.
pub fn device() -> Result<Device> {
    with(|s| s.device.clone()).map_or_else(default_device, Ok)
}

/// Runs `f`, which makes a loss that will be multiplied by a scale before its gradients are taken. Gradients that the
/// loss itself is made of are taken at that scale too.
pub fn with_loss_scale<T>(scale: f64, f: impl FnOnce() -> T) -> T {
    let before = with(|s| std::mem::replace(&mut s.loss_scale, scale));
    let _restore = Restore(move |s| s.loss_scale = before);
    f()
}

/// What the loss will be multiplied by; 1 outside a step.
pub fn loss_scale() -> f64 {
    with(|s| s.loss_scale)
}

/// Runs `f` and also returns the changes that no gradient will carry, in the order they were deferred: those of layers
/// that depend on data and frozen parameters alone. Without this they are made at once.
pub fn collect_changes<T>(f: impl FnOnce() -> T) -> (T, Vec<Deferred>) {
    let collector = Arc::new(Mutex::new(Vec::new()));
    let before = with(|s| s.collector.replace(collector.clone()));
    let mut before = Some(before);
    let restore = Restore(move |s| s.collector = before.take().flatten());
    let result = f();
    drop(restore);
    let changes = std::mem::take(&mut *collector.lock().unwrap_or_else(PoisonError::into_inner));
    (result, changes)
}

/// Gives a change to who collects; back if nobody does, or gradients are switched off, as code under [`no_grad`] is no
/// part of a step.
pub(crate) fn collect(change: Deferred) -> Option<Deferred> {
    let collector = with(|s| s.collector.clone().filter(|_| s.grad));
    let Some(collector) = collector else { return Some(change) };
    collector.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    None
}

/// Whether what is deferred does not count ([`Scope::rehearsal`]).
pub fn is_rehearsal() -> bool {
    with(|s| s.rehearsal)
}

/// Runs `f`, which backward will run again, for the first time.
pub(crate) fn with_outline<T>(outline: Arc<Outline>, f: impl FnOnce() -> T) -> T {
    let mut before = with(|s| s.outline.replace(outline));
    let _restore = Restore(move |s| s.outline = before.take());
    f()
}

/// The first run this is a part of.
pub(crate) fn outline() -> Option<Arc<Outline>> {
    with(|s| s.outline.clone())
}

/// Whether a cast rule is in force.
pub fn is_casting() -> bool {
    with(|s| s.rule.is_some())
}

/// The rule in force.
pub(crate) fn rule() -> Option<Arc<dyn CastRule>> {
    with(|s| s.rule.clone())
}

/// Notes that casts of a storage are cached until the outermost region ends.
pub(crate) fn note_cached(storage: &Arc<Storage>) {
    with(|s| {
        // A region may be a whole training: what is gone is forgotten whenever the list would grow.
        if s.cached.len() == s.cached.capacity() {
            s.cached.retain(|storage| storage.strong_count() > 0);
        }
        s.cached.push(Arc::downgrade(storage));
    });
}
