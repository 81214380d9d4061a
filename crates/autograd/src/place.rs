//! [`Place`]: the layer of a model that an operator belongs to.

use std::sync::Arc;

use binade_tensor::DType;

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

/// The layer that an operator belongs to: that of the parameter it takes, else the one that [`crate::scope::within`]
/// entered. Where it is follows from the model's structure and the operands alone, not from what ran before.
#[derive(Clone, Debug)]
pub struct Place(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: Arc<str>,
    names: Vec<Name>,
    stored: Option<StoredAs>,
}

/// How a parameter is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAs {
    /// In this dtype.
    pub dtype: DType,
    /// As one of batch norm's, which some policies keep in f32.
    pub batch_norm: bool,
}

impl Place {
    /// A layer under its name in each model that holds it; none if no model has named it yet. `stored` tells of the
    /// parameter that this is the place of.
    pub fn new(names: Vec<Name>, stored: Option<StoredAs>) -> Place {
        let path = names.first().map_or_else(|| Arc::from(""), |name| name.path.clone());
        Place(Arc::new(Inner { path, names, stored }))
    }

    /// The path for messages: that of the first name.
    pub fn path(&self) -> &Arc<str> {
        &self.0.path
    }

    /// The layer's names.
    pub fn names(&self) -> &[Name] {
        &self.0.names
    }

    /// How the parameter is stored, if the place is a parameter's.
    pub fn stored(&self) -> Option<StoredAs> {
        self.0.stored
    }
}
