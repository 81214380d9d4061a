//! [`Param`], [`Buffer`] and [`Mode`]: handles to what a module owns.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use binade_autograd::{Claims, Deferred, Layers, LeafId, Name, Place, StoredAs, Var, scope};
use binade_tensor::{Array, DType, Device, Op, Shape, run_one};

use crate::quantised::{Activations, Quantised};
use crate::{Error, Init, Result};

/// A trainable tensor. Cloning shares it: a tied weight is a clone.
#[derive(Clone, Debug)]
pub struct Param(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Replaced where the parameter moves to another device.
    leaf: RwLock<Var>,
    id: LeafId,
    names: RwLock<Names>,
    trainable: AtomicBool,
    /// What its values stand for where they are 8-bit integers.
    quantised: RwLock<Option<Quantised>>,
}

/// What models call a parameter.
#[derive(Clone, Debug)]
struct Names {
    /// Dotted names with the layers of the model that uses them, none of which is the end of another.
    full: Vec<(Arc<str>, Layers)>,
    /// The layer that holds it, by those names.
    place: Place,
}

impl Param {
    /// A parameter with the given values.
    pub fn new(array: Array) -> Param {
        let (leaf, id) = Var::new_leaf(array);
        Param::around(leaf, id, false)
    }

    fn around(leaf: Var, id: LeafId, batch_norm: bool) -> Param {
        // From now on it is known as a parameter.
        leaf.claims();
        let stored = StoredAs { leaf: id, dtype: leaf.dtype(), batch_norm };
        let names = RwLock::new(Names { full: Vec::new(), place: Place::new(Vec::new(), Some(stored)) });
        let trainable = AtomicBool::new(true);
        Param(Arc::new(Inner { leaf: RwLock::new(leaf), id, names, trainable, quantised: RwLock::default() }))
    }

    /// A parameter around an existing leaf; `None` if the tensor is no leaf.
    pub fn from_leaf(leaf: &Var) -> Option<Param> {
        Some(Param::around(leaf.clone(), leaf.leaf_id()?, false))
    }

    /// A parameter on the scope's device with initial values drawn from its stream: f32, or stored as
    /// [`scope::with_stored`] says.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn init(shape: &[usize], init: Init) -> Result<Param> {
        Ok(Param::new(init.stored(shape, scope::stored().params)?))
    }

    /// One of batch norm's, which some policies store in f32 where they store others in 16 bit.
    pub(crate) fn init_batch_norm(channels: usize, value: f64) -> Result<Param> {
        let array = Init::Constant(value).stored(&[channels], scope::stored().batch_norm)?;
        let (leaf, id) = Var::new_leaf(array);
        Ok(Param::around(leaf, id, true))
    }

    /// The tensor for use in a computation: a leaf, or a constant when frozen. Operators that take it, or a view of it,
    /// belong to this parameter's layer unless that is outside the layer that runs.
    pub fn var(&self) -> Var {
        let var = if self.is_trainable() { self.leaf().clone() } else { self.leaf().detach() };
        var.at(Some(self.names().place.clone()))
    }

    fn leaf(&self) -> RwLockReadGuard<'_, Var> {
        self.0.leaf.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values. They share memory with the parameter until it moves.
    pub fn array(&self) -> Array {
        self.leaf().array().clone()
    }

    /// Extents.
    pub fn shape(&self) -> Shape {
        *self.leaf().shape()
    }

    /// The device that it is on.
    pub fn device(&self) -> Device {
        self.leaf().array().device().clone()
    }

    /// Storage dtype.
    pub fn dtype(&self) -> DType {
        self.leaf().dtype()
    }

    /// Identity; gradients are keyed by it.
    pub fn id(&self) -> LeafId {
        self.0.id
    }

    /// Whether gradients are computed for it.
    pub fn is_trainable(&self) -> bool {
        self.0.trainable.load(Ordering::Relaxed)
    }

    /// Who claims it. Optimisers do.
    pub fn claims(&self) -> Claims {
        self.leaf().claims().unwrap_or_default()
    }

    /// Freezes or unfreezes it. An optimiser passes over the parameters that are frozen at its step.
    pub fn set_trainable(&self, trainable: bool) {
        self.0.trainable.store(trainable, Ordering::Relaxed);
    }

    /// A parameter with the same values, names and setting, and memory of its own.
    pub(crate) fn deep(&self) -> Result<Param> {
        let (leaf, id) = Var::new_leaf(copy(&self.array())?);
        leaf.claims();
        let mut names = self.names().clone();
        names.place =
            Place::new(names.place.names().to_vec(), names.place.stored().map(|s| StoredAs { leaf: id, ..s }));
        let trainable = AtomicBool::new(self.is_trainable());
        let quantised = RwLock::new(self.quantised().map(|q| q.deep()).transpose()?);
        let names = RwLock::new(names);
        Ok(Param(Arc::new(Inner { leaf: RwLock::new(leaf), id, names, trainable, quantised })))
    }

    /// The values on a device; `None` if they are there already.
    ///
    /// # Errors
    /// [`Error::Held`]; out of memory.
    pub(crate) fn on(&self, name: &str, device: &Device) -> Result<Option<Array>> {
        let leaf = self.leaf();
        if leaf.array().device() == device {
            return Ok(None);
        }
        if leaf.is_referred_to() {
            return Err(Error::Held { name: name.into() });
        }
        Ok(Some(leaf.array().to(device)?))
    }

    /// Takes over values that [`Param::on`] gave.
    pub(crate) fn set_memory(&self, array: Array) {
        let mut leaf = self.0.leaf.write().unwrap_or_else(PoisonError::into_inner);
        *leaf = leaf.with_memory(array);
    }

    /// What its values stand for, if they are 8-bit integers ([`Param::quantise`]).
    pub fn quantised(&self) -> Option<Quantised> {
        self.0.quantised.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over integers, and is frozen from then on.
    pub(crate) fn set_quantised(&self, integers: Array, quantised: Quantised) -> Result<()> {
        if let Activations::Static(own) = &quantised.activations
            && own.array().shape().rank() != 0
        {
            let message = format!("the scale of activations is a scalar, got {:?}", own.array().shape());
            return Err(Error::Config { layer: "quantise", message });
        }
        self.set_trainable(false);
        self.set_memory(integers);
        *self.0.quantised.write().unwrap_or_else(PoisonError::into_inner) = Some(quantised);
        Ok(())
    }

    /// Takes over numbers in the place of integers.
    pub(crate) fn set_floats(&self, values: Array) {
        self.set_memory(values);
        *self.0.quantised.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.0.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a dotted name in a model with these layers, unless a longer one is known that ends in it; it takes the
    /// place of shorter ones that it ends in. Returns the layers, shared with the name that is there already if there
    /// is one.
    pub(crate) fn set_name(&self, name: &str, layers: Layers) -> Layers {
        let known =
            self.names().full.iter().find(|(full, of)| **full == *name && *of == layers).map(|(_, of)| of.clone());
        if let Some(known) = known {
            return known;
        }
        let mut names = self.0.names.write().unwrap_or_else(PoisonError::into_inner);
        if !names.full.iter().any(|(full, _)| ends_in(full, name)) {
            names.full.retain(|(full, _)| !ends_in(name, full));
            names.full.push((Arc::from(name), layers.clone()));
            self.leaf().set_name(name);
            let layer =
                |(full, model): &(Arc<str>, Layers)| Name { path: above(full, last(full)), model: model.clone() };
            names.place = Place::new(names.full.iter().map(layer).collect(), names.place.stored());
        }
        layers
    }

    /// Its layer by the names that models have given it so far.
    pub(crate) fn named(&self) -> Place {
        self.names().place.clone()
    }

    /// Whether no model has named it since [`Param::named`] gave that.
    pub(crate) fn is_named(&self, place: &Place) -> bool {
        self.names().place.is(place)
    }

    /// The layer of the module that calls this parameter `name`.
    pub(crate) fn place_above(&self, name: &str) -> Option<Place> {
        let names = self.names();
        let fits = |(full, _): &&(Arc<str>, Layers)| **full == *name || ends_in(full, name);
        let of = |(full, model): &(Arc<str>, Layers)| Name { path: above(full, name), model: model.clone() };
        let above: Vec<Name> = names.full.iter().filter(fits).map(of).collect();
        (names.full.is_empty() || !above.is_empty()).then(|| Place::new(above, None))
    }
}

/// Whether a dotted name ends in a shorter one. A parameter listed by itself has an empty name.
fn ends_in(name: &str, end: &str) -> bool {
    name.len() > end.len() && (end.is_empty() || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')))
}

/// What is left of a dotted name without its end.
fn above(name: &str, end: &str) -> Arc<str> {
    let rest = name.strip_suffix(end).unwrap_or_default();
    Arc::from(rest.strip_suffix('.').unwrap_or(rest))
}

/// The last part of a dotted name.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A tensor that belongs to a module but is not trained: running statistics. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    /// Replaced where the buffer moves to another device.
    array: RwLock<Array>,
    claims: Claims,
}

impl Buffer {
    /// A buffer with the given values.
    pub fn new(array: Array) -> Buffer {
        Buffer(Arc::new(Owned { array: RwLock::new(array), claims: Claims::default() }))
    }

    /// The values. They share memory with the buffer until it moves.
    pub fn array(&self) -> Array {
        self.0.array.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over its values on another device.
    pub(crate) fn set_memory(&self, array: Array) {
        *self.0.array.write().unwrap_or_else(PoisonError::into_inner) = array;
    }

    /// Who claims it. Optimisers that were made from a module do.
    pub fn claims(&self) -> &Claims {
        &self.0.claims
    }

    /// The values as a constant.
    pub fn var(&self) -> Var {
        Var::constant(self.array())
    }

    /// A buffer with the same values and memory of its own.
    pub(crate) fn deep(&self) -> Result<Buffer> {
        Ok(Buffer::new(copy(&self.array())?))
    }

    /// The same for clones, while one of them lives.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

/// Whether a part of a model trains or evaluates, where that is not left to the scope
/// ([`Module::set_training`](crate::Module::set_training)). Layers that behave otherwise in training hold one. Cloning
/// shares it.
#[derive(Clone, Debug, Default)]
pub struct Mode(Arc<AtomicU8>);

const FOLLOWS: u8 = 0;
const TRAINS: u8 = 1;
const EVALUATES: u8 = 2;

impl Mode {
    /// What was set; `None` if the scope decides.
    pub fn training(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            FOLLOWS => None,
            mode => Some(mode == TRAINS),
        }
    }

    /// Decides, or leaves it to the scope.
    pub fn set_training(&self, training: Option<bool>) {
        let mode = training.map_or(FOLLOWS, |training| if training { TRAINS } else { EVALUATES });
        self.0.store(mode, Ordering::Relaxed);
    }

    /// Runs `f` in this mode.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        match self.training() {
            Some(training) => scope::with_training(training, f),
            None => f(),
        }
    }

    pub(crate) fn deep(&self) -> Mode {
        Mode(Arc::new(AtomicU8::new(self.0.load(Ordering::Relaxed))))
    }

    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

/// A copy with memory of its own, for the same use.
pub(crate) fn copy(array: &Array) -> Result<Array> {
    let array = array.written(array.storage().class())?;
    Ok(run_one(&Op::Copy, &[&array], array.device(), array.dtype(), array.storage().class())?)
}

/// Leaves new values of a layer's buffers to the step that takes the gradients of `output` ([`Var::defer`]): an applied
/// step writes them, a skipped one drops them. `next` gives them from the values of then, in order. Of several
/// optimisers the one decides that has a buffer or one of `params`.
///
/// # Errors
/// No gradient will reach `output`, so that the change is made at once, and it fails.
pub fn defer(
    output: &Var,
    params: &[&Param],
    buffers: &[&Buffer],
    next: impl Fn(&[Array]) -> binade_autograd::Result<Vec<Array>> + Send + Sync + 'static,
) -> Result<()> {
    let claims = buffers.iter().map(|b| b.claims().clone()).chain(params.iter().map(|p| p.claims())).collect();
    let arrays = buffers.iter().map(|b| b.array()).collect();
    Ok(output.defer(Deferred::new(arrays, claims, next))?)
}
