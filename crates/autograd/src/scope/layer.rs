//! The layer that operators belong to.

use std::sync::Arc;

use super::{Restore, Scope, with};
use crate::{Error, Place, StoredAs, Structure};

/// The path of the layer that operators belong to now; empty outside a model.
pub fn path() -> Arc<str> {
    with(|s| s.path.clone())
}

/// The layer that operators belong to now; `None` outside a model.
pub fn place() -> Option<Place> {
    with(|s| s.place.clone())
}

/// Runs `f` as part of a layer. It is left when `f` ends.
pub fn within<T>(place: &Place, f: impl FnOnce() -> T) -> T {
    let mut before = with(|s| enter(s, place));
    let _restore = Restore(move |s| leave(s, &mut before));
    f()
}

/// Runs `f` as part of a model, which is no layer of the one that runs.
pub fn within_model<T>(model: &Arc<Structure>, f: impl FnOnce() -> T) -> T {
    let Some(place) = model.model() else { return f() };
    let mut before = with(|s| (s.model.replace(model.clone()), enter(s, place)));
    let _restore = Restore(move |s| {
        s.model = before.0.take();
        leave(s, &mut before.1);
    });
    f()
}

/// What `f` finds in the model that runs, whose present layer is its second argument; `None` if none runs. `f` does not
/// use the scope.
pub fn in_model<T>(f: impl FnOnce(&Structure, &Place) -> T) -> Option<T> {
    with(|s| Some(f(s.model.as_deref()?, s.place.as_ref()?)))
}

/// Runs `f`, an operator that takes a parameter, in the layer that it belongs to: the parameter's where no layer runs,
/// or where that is inside the one that runs.
pub(crate) fn with_operand<T>(param: &Place, f: impl FnOnce() -> T) -> T {
    let mut before = with(|s| {
        let layer = match (&s.model, &s.place) {
            (Some(model), Some(here)) => model.of_operand(param, here).clone(),
            (None, Some(here)) => here.clone(),
            (_, None) => param.clone(),
        };
        (std::mem::replace(&mut s.operand, param.stored()), enter(s, &layer))
    });
    let _restore = Restore(move |s| {
        s.operand = before.0;
        leave(s, &mut before.1);
    });
    f()
}

fn enter(s: &mut Scope, place: &Place) -> (Arc<str>, Option<Place>) {
    (std::mem::replace(&mut s.path, place.path().clone()), s.place.replace(place.clone()))
}

fn leave(s: &mut Scope, (path, place): &mut (Arc<str>, Option<Place>)) {
    std::mem::swap(&mut s.path, path);
    s.place = place.take();
}

/// The parameter among the operands of the operator that is applied, if it takes one.
pub fn operand() -> Option<StoredAs> {
    with(|s| s.operand)
}

/// Notes whose gradient a backward pass computes now. The pass as a whole restores what was there.
pub(crate) fn show_path(path: &Arc<str>) {
    with(|s| {
        if !Arc::ptr_eq(&s.path, path) {
            s.path = path.clone();
        }
    });
}

/// An operator fails in the layer that it belongs to.
impl From<binade_tensor::Error> for Error {
    fn from(error: binade_tensor::Error) -> Error {
        Error::Tensor { error, path: path() }
    }
}
