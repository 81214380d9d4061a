//! [`Param`] and [`Buffer`]: handles to the tensors a module owns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use binade_autograd::{LeafId, Var, scope};
use binade_tensor::{Array, DType, Shape};

use crate::{Init, Result};

/// A trainable tensor. Cloning shares it: a tied weight is a clone.
#[derive(Clone, Debug)]
pub struct Param(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    leaf: Var,
    id: LeafId,
    /// Path of the layer that owns it, empty until named.
    layer: RwLock<Arc<str>>,
    trainable: AtomicBool,
}

impl Param {
    /// A parameter with the given values.
    pub fn new(array: Array) -> Param {
        let (leaf, id) = Var::new_leaf(array);
        Param(Arc::new(Inner { leaf, id, layer: RwLock::new(Arc::from("")), trainable: AtomicBool::new(true) }))
    }

    /// A parameter around an existing leaf; `None` if the tensor is no leaf.
    pub fn from_leaf(leaf: &Var) -> Option<Param> {
        let id = leaf.leaf_id()?;
        Some(Param(Arc::new(Inner {
            leaf: leaf.clone(),
            id,
            layer: RwLock::new(Arc::from("")),
            trainable: AtomicBool::new(true),
        })))
    }

    /// An f32 parameter on the CPU with initial values drawn from the scope's stream.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn init(shape: &[usize], init: Init) -> Result<Param> {
        Ok(Param::new(init.array(shape)?))
    }

    /// The tensor for use in a computation: a leaf, or a constant when frozen. Operators from here on are reported under this
    /// parameter's layer.
    pub fn var(&self) -> Var {
        scope::enter_path(&self.0.layer.read().unwrap_or_else(|e| e.into_inner()));
        if self.is_trainable() { self.0.leaf.clone() } else { self.0.leaf.detach() }
    }

    /// The values.
    pub fn array(&self) -> &Array {
        self.0.leaf.array()
    }

    /// Extents.
    pub fn shape(&self) -> &Shape {
        self.array().shape()
    }

    /// Storage dtype.
    pub fn dtype(&self) -> DType {
        self.array().dtype()
    }

    /// Identity; gradients are keyed by it.
    pub fn id(&self) -> LeafId {
        self.0.id
    }

    /// Whether gradients are computed for it.
    pub fn is_trainable(&self) -> bool {
        self.0.trainable.load(Ordering::Relaxed)
    }

    /// Freezes or unfreezes it.
    pub fn set_trainable(&self, trainable: bool) {
        self.0.trainable.store(trainable, Ordering::Relaxed);
    }

    /// Notes the dotted name, whose layer errors and reports then show.
    pub(crate) fn set_name(&self, name: &str) {
        let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
        *self.0.layer.write().unwrap_or_else(|e| e.into_inner()) = Arc::from(layer);
    }
}

/// A tensor that belongs to a module but is not trained: running statistics. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Array>);

impl Buffer {
    /// A buffer with the given values.
    pub fn new(array: Array) -> Buffer {
        Buffer(Arc::new(array))
    }

    /// The values.
    pub fn array(&self) -> &Array {
        &self.0
    }

    /// The values as a constant.
    pub fn var(&self) -> Var {
        Var::constant(self.array().clone())
    }
}
