//! The layer that operators belong to.

use std::sync::Arc;

use super::{Scope, with};
use crate::{Error, Place, StoredAs, Structure};

/// The path of the layer that operators belong to now; empty outside a model.
pub fn path() -> Arc<str> {
    with(|s| s.path.clone())
}

/// The layer that operators belong to now; `None` outside a model.
pub fn place() -> Option<Place> {
    with(|s| s.place.clone())
}

/// What operators are part of until this is dropped, with what is then as before. It has no type parameter, since every
/// layer of every model enters one.
struct Inside {
    path: Arc<str>,
    place: Option<Place>,
    model: Option<Option<Arc<Structure>>>,
    operand: Option<Option<StoredAs>>,
}

impl Inside {
    fn of(s: &mut Scope, place: &Place) -> Inside {
        let path = std::mem::replace(&mut s.path, place.path().clone());
        Inside { path, place: s.place.replace(place.clone()), model: None, operand: None }
    }

    fn layer(place: &Place) -> Inside {
        with(|s| Inside::of(s, place))
    }

    fn model(model: &Arc<Structure>, place: &Place) -> Inside {
        with(|s| {
            let mut inside = Inside::of(s, place);
            inside.model = Some(s.model.replace(model.clone()));
            inside
        })
    }

    fn operand(param: &Place) -> Inside {
        with(|s| {
            let layer = match (&s.model, &s.place) {
                (Some(model), Some(here)) => model.of_operand(param, here).clone(),
                (None, Some(here)) => here.clone(),
                (_, None) => param.clone(),
            };
            let mut inside = Inside::of(s, &layer);
            inside.operand = Some(std::mem::replace(&mut s.operand, param.stored()));
            inside
        })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        with(|s| {
            std::mem::swap(&mut s.path, &mut self.path);
            s.place = self.place.take();
            if let Some(model) = self.model.take() {
                s.model = model;
            }
            if let Some(operand) = self.operand.take() {
                s.operand = operand;
            }
        });
    }
}

/// Runs `f` as part of a layer. It is left when `f` ends.
pub fn within<T>(place: &Place, f: impl FnOnce() -> T) -> T {
    let _inside = Inside::layer(place);
    f()
}

/// Runs `f` as part of a model, which is no layer of the one that runs.
pub fn within_model<T>(model: &Arc<Structure>, f: impl FnOnce() -> T) -> T {
    let Some(place) = model.model() else { return f() };
    let _inside = Inside::model(model, place);
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
    let _inside = Inside::operand(param);
    f()
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
