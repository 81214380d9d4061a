//! [`Var`]: a tensor that remembers how it was computed.

use std::sync::Arc;

use binade_tensor::{Array, Class, DType, Element, Shape};

use crate::leaf::Leaf;
use crate::node::{Hook, Kind, Node};
use crate::saved::{Again, Saved};
use crate::{Claims, Deferred, Error, LeafId, Place, Result, scope};

/// A tensor of run-time dtype, with the node that computed it where gradients are recorded. Cheap to clone.
#[derive(Clone)]
pub struct Var {
    array: Array,
    node: Option<Arc<Node>>,
    /// How the value is computed again, if it need not be saved.
    again: Option<Arc<Again>>,
    /// Of a parameter and its views: which one it is, and its layer.
    place: Option<Place>,
}

impl Var {
    /// A tensor without gradient: data.
    pub fn constant(array: Array) -> Var {
        Var { array, node: None, again: None, place: None }
    }

    /// Numbers of the host in row-major order, without gradient, on the scope's device ([`scope::with_device`]).
    ///
    /// ```
    /// use binade_autograd::Var;
    /// let x = Var::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
    /// let labels = Var::from_slice(&[0i64, 1], &[2])?;
    /// # assert_eq!((x.shape().numel(), labels.shape().numel()), (4, 2));
    /// # Ok::<(), binade_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// Another number of elements than the shape has.
    pub fn from_slice<T: Element>(data: &[T], shape: &[usize]) -> Result<Var> {
        let class = if T::DTYPE.is_float() { Class::Activations } else { Class::Indices };
        Ok(Var::constant(Array::from_slice(&scope::device()?, data, shape, class)?))
    }

    /// One number in f32 without gradient, in every element, made on the scope's device: nothing is uploaded.
    ///
    /// # Errors
    /// Out of memory.
    pub fn full(value: f64, shape: &[usize]) -> Result<Var> {
        let shape = Shape::new(shape)?;
        Ok(Var::constant(Array::full(&scope::device()?, DType::F32, shape, value, Class::Activations)?))
    }

    /// A leaf: backward returns its gradient.
    pub fn leaf(array: Array) -> Var {
        Var::new_leaf(array).0
    }

    /// A leaf and its identity.
    pub fn new_leaf(array: Array) -> (Var, LeafId) {
        let leaf = Leaf::new();
        let id = leaf.id;
        let node = Node::new(Kind::Leaf(leaf), array.meta());
        (Var { array, node: Some(node), again: None, place: None }, id)
    }

    pub(crate) fn with_node(array: Array, node: Arc<Node>) -> Var {
        Var { array, node: Some(node), again: None, place: None }
    }

    pub(crate) fn with_again(self, again: Option<Arc<Again>>) -> Var {
        Var { again, ..self }
    }

    /// As a parameter of a layer, which operators that take it, or a view of it, may belong to ([`Place`]).
    #[must_use]
    pub fn at(self, place: Option<Place>) -> Var {
        Var { place, ..self }
    }

    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// What keeps the value for the backward pass.
    pub(crate) fn saved(&self) -> Saved {
        match (&self.again, self.node.as_ref().and_then(|n| n.recast())) {
            (Some(again), _) => Saved::Again(again.clone()),
            (None, Some(leaf)) => Saved::recast(leaf, self.dtype()),
            (None, None) => Saved::value(&self.array),
        }
    }

    /// Ties something to this tensor's node, if it has one, that backward does when it comes there.
    pub(crate) fn tie(&self, hook: Hook) {
        if let Some(node) = &self.node {
            node.tie(hook);
        }
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// The value.
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// Extents.
    pub fn shape(&self) -> &Shape {
        self.array.shape()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.array.dtype()
    }

    /// Whether backward can reach a leaf through this tensor.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// The identity of a leaf, `None` for other tensors.
    pub fn leaf_id(&self) -> Option<LeafId> {
        self.leaf_data().map(|leaf| leaf.id)
    }

    fn leaf_data(&self) -> Option<&Arc<Leaf>> {
        match self.node.as_ref().map(|n| &n.kind) {
            Some(Kind::Leaf(leaf)) => Some(leaf),
            Some(Kind::Op { .. } | Kind::Outline | Kind::Recompute { .. } | Kind::Gradient { .. }) | None => None,
        }
    }

    /// Whether a graph, gradients or another handle refer to this leaf, so that its values must stay where they are.
    pub fn is_referred_to(&self) -> bool {
        self.node.as_ref().is_some_and(|node| Arc::strong_count(node) > 1)
            || self.leaf_data().is_some_and(|leaf| Arc::strong_count(leaf) > 1)
    }

    /// This leaf with other memory, of the same shape and dtype: identity, name and claims stay.
    #[must_use]
    pub fn with_memory(&self, array: Array) -> Var {
        Var { array, again: None, ..self.clone() }
    }

    /// Makes a leaf known as a parameter: optimisers claim it, and its gradient is missed where none does. `None` for
    /// other tensors.
    pub fn claims(&self) -> Option<Claims> {
        Some(self.leaf_data()?.param.get_or_init(Default::default).0.clone())
    }

    /// Names a parameter in [`crate::Gradients::unclaimed`].
    pub fn set_name(&self, name: &str) {
        if let Some((_, known)) = self.leaf_data().map(|leaf| leaf.param.get_or_init(Default::default)) {
            *known.write().unwrap_or_else(|e| e.into_inner()) = Arc::from(name);
        }
    }

    /// The same value without history.
    pub fn detach(&self) -> Var {
        Var::constant(self.array.clone())
    }

    /// The value of a one-element tensor.
    ///
    /// # Errors
    /// There is not exactly one element.
    pub fn item(&self) -> Result<f64> {
        Ok(self.array.item()?)
    }

    /// Calls `hook` with this tensor's gradient during backward; `Some` replaces it.
    ///
    /// # Errors
    /// [`Error::NoGraph`] if no gradient will reach this tensor.
    pub fn register_hook(&self, hook: impl Fn(&Array) -> Result<Option<Array>> + Send + Sync + 'static) -> Result<()> {
        self.node.as_ref().ok_or(Error::NoGraph)?.tie(Hook::Gradient(Box::new(hook)));
        Ok(())
    }

    /// Leaves a change to the step that this tensor's gradients take part in. Where no gradient will reach this tensor
    /// (under [`crate::no_grad`], or where it depends on data and frozen parameters alone) the change is made at once;
    /// inside [`scope::collect_changes`] it waits for who collects. A rehearsal changes nothing.
    ///
    /// # Errors
    /// The change is made at once and fails.
    pub fn defer(&self, change: Deferred) -> Result<()> {
        match &self.node {
            _ if scope::is_rehearsal() => Ok(()),
            Some(node) if scope::is_grad_enabled() => {
                node.tie(Hook::Change(change));
                Ok(())
            }
            Some(_) | None => scope::collect(change).map_or(Ok(()), |change| change.make()),
        }
    }
}

impl std::fmt::Debug for Var {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.array.fmt(f)
    }
}
