//! [`Place`]: a layer of a model, and [`Structure`]: all layers of the model that runs.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::Arc;

use binade_tensor::DType;
use smallvec::{SmallVec, smallvec};

use crate::LeafId;

/// All layers of a model, by dotted path.
pub type Layers = Arc<[Arc<str>]>;

/// A layer as one model names it.
#[derive(Clone, Debug)]
pub struct Name {
    /// Its dotted path; empty for the model itself.
    pub path: Arc<str>,
    /// The layers of that model.
    pub model: Layers,
}

/// A layer, or the layer of a parameter. Cheap to clone.
///
/// An operator belongs to the innermost layer that runs. Where it takes a parameter of a layer inside that one, it
/// belongs to the parameter's layer, and so it does where no layer runs.
#[derive(Clone, Debug)]
pub struct Place(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: Arc<str>,
    names: Vec<Name>,
    param: Option<StoredAs>,
}

/// A parameter, and how it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAs {
    /// Which.
    pub leaf: LeafId,
    /// In this dtype.
    pub dtype: DType,
    /// As one of batch norm's, which some policies keep in f32.
    pub batch_norm: bool,
}

impl Place {
    /// A layer under its name in each model that holds it; none if no model has named it yet. `param` is the parameter
    /// that this is the place of.
    pub fn new(names: Vec<Name>, param: Option<StoredAs>) -> Place {
        let path = names.first().map_or_else(|| Arc::from(""), |name| name.path.clone());
        Place(Arc::new(Inner { path, names, param }))
    }

    /// The path for messages: that of the first name.
    pub fn path(&self) -> &Arc<str> {
        &self.0.path
    }

    /// The layer's names.
    pub fn names(&self) -> &[Name] {
        &self.0.names
    }

    /// The parameter, if the place is one's.
    pub fn stored(&self) -> Option<StoredAs> {
        self.0.param
    }

    /// Whether both are one: not only of equal names.
    pub fn is(&self, other: &Place) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether this is `other` or inside it.
    fn is_inside(&self, other: &Place) -> bool {
        let (path, outer) = (&*self.0.path, &*other.0.path);
        outer.is_empty() || path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// Every layer of a model: where it lies in memory, and its parameters. The first is the model itself.
#[derive(Debug, Default)]
pub struct Structure {
    layers: Vec<Place>,
    /// By address and type; several where a layer is shared.
    at: HashMap<(usize, TypeId), SmallVec<[usize; 1]>>,
    /// By type and first parameter.
    like: HashMap<(LeafId, TypeId), usize>,
    /// By parameter.
    holders: HashMap<LeafId, usize>,
}

impl Structure {
    /// Adds a layer.
    pub fn push(&mut self, address: usize, kind: TypeId, layer: Place) -> usize {
        let index = self.layers.len();
        self.layers.push(layer);
        self.at.entry((address, kind)).or_insert_with(|| smallvec![]).push(index);
        index
    }

    /// Notes the first parameter of a layer.
    pub fn begins_with(&mut self, layer: usize, kind: TypeId, first: LeafId) {
        self.like.entry((first, kind)).or_insert(layer);
    }

    /// Notes a parameter that a layer holds itself. Of several holders of a tied one the first stands.
    pub fn holds(&mut self, layer: usize, param: LeafId) {
        self.holders.entry(param).or_insert(layer);
    }

    /// The model itself.
    pub(crate) fn model(&self) -> Option<&Place> {
        self.layers.first()
    }

    /// The layer at an address: of a shared one that which is inside `here`.
    pub fn at(&self, address: usize, kind: TypeId, here: &Place) -> Option<&Place> {
        let mut found = self.at.get(&(address, kind))?.iter().map(|&layer| &self.layers[layer]);
        let first = found.next()?;
        Some(if first.is_inside(here) { first } else { found.find(|layer| layer.is_inside(here)).unwrap_or(first) })
    }

    /// The layer of a type whose first parameter this is.
    pub fn like(&self, first: LeafId, kind: TypeId) -> Option<&Place> {
        self.like.get(&(first, kind)).map(|&layer| &self.layers[layer])
    }

    /// The layer that holds a parameter.
    pub fn holder(&self, param: LeafId) -> Option<&Place> {
        self.holders.get(&param).map(|&layer| &self.layers[layer])
    }

    /// The layer of an operator that takes a parameter where `here` runs.
    pub(crate) fn of_operand<'a>(&'a self, param: &Place, here: &'a Place) -> &'a Place {
        let holder = param.stored().and_then(|param| self.holder(param.leaf));
        holder.filter(|holder| holder.is_inside(here)).unwrap_or(here)
    }
}
