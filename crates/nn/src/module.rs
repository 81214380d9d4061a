//! [`Module`]: a struct whose parameters and buffers can be visited by name.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use binade_autograd::{Layers, LeafId, Place, scope};

use crate::{Buffer, Layer, Mode, Param, Result};

/// Something with parameters and buffers. Derived, never written by hand; types without parameters (numbers, strings,
/// geometry) are modules that visit nothing, so that a struct may hold its settings.
pub trait Module: CopyModule + 'static {
    /// Calls the visitor for every parameter and buffer with its dotted name under `prefix`.
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>);

    /// This module with the visitor's copies in the place of its parameters, buffers and modes; a part for
    /// [`Module::deep_copy`].
    fn copy_with(&self, visitor: &Visitor<'_>) -> Self
    where
        Self: Sized;

    /// A module of its own: parameters and buffers have memory of their own, what is tied here is tied there, and
    /// names, values, frozen parameters and modes are as here. A `clone` shares them instead. For target networks,
    /// teachers and best weights.
    ///
    /// Fields with `#[module(skip)]` are cloned.
    ///
    /// # Errors
    /// Out of memory; a tensor is being written.
    fn deep_copy(&self) -> Result<Self>
    where
        Self: Sized,
    {
        let mut copies = Copies::default();
        for param in self.parameters() {
            copies.params.insert(param.id(), param.deep()?);
        }
        for (_, buffer) in self.named_buffers() {
            copies.buffers.insert(buffer.key(), buffer.deep()?);
        }
        let modes = &mut copies.modes;
        let mut mode = |m: &Mode| drop(modes.insert(m.key(), m.deep()));
        self.visit("", &mut Visitor { mode: Some(&mut mode), ..Visitor::new(&mut |_, _| {}, &mut |_, _| {}) });
        Ok(self.copy_with(&Visitor { copies, ..Visitor::new(&mut |_, _| {}, &mut |_, _| {}) }))
    }

    /// Parameters with their names, in order of the fields. A tied parameter is listed under each of its names.
    ///
    /// Each parameter learns its names, by which policies and messages know its layer: so do those of a model that an
    /// optimiser or a state dict is made of. The longer of two names stands: what a whole calls `head.weight` is not
    /// renamed by a list of the head's own parameters. A layer of several models has a name in each.
    fn named_parameters(&self) -> Vec<(String, Param)> {
        let mut out: Vec<(String, Param)> = Vec::new();
        self.visit("", &mut Visitor::new(&mut |name, p| out.push((name.to_string(), p.clone())), &mut |_, _| {}));
        let mut layers = layers(out.iter().map(|(name, _)| name.as_str()));
        for (name, param) in &out {
            layers = param.set_name(name, layers);
        }
        out
    }

    /// Buffers with their names.
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        let mut out = Vec::new();
        self.visit("", &mut Visitor::new(&mut |_, _| {}, &mut |name, b| out.push((name.to_string(), b.clone()))));
        out
    }

    /// Parameters, each once.
    fn parameters(&self) -> Vec<Param> {
        let mut seen = std::collections::HashSet::new();
        self.named_parameters().into_iter().map(|(_, p)| p).filter(|p| seen.insert(p.id())).collect()
    }

    /// Number of trainable values: those of frozen parameters are none.
    fn parameter_count(&self) -> usize {
        self.parameters().iter().filter(|p| p.is_trainable()).map(|p| p.array().numel()).sum()
    }

    /// Number of values of all parameters, frozen ones too.
    fn total_parameter_count(&self) -> usize {
        self.parameters().iter().map(|p| p.array().numel()).sum()
    }

    /// Puts this part into evaluation mode whatever the scope says: no dropout, running statistics in batch norm, as
    /// frozen parts want. Gradients are recorded as before. `set_training(None)` takes it back.
    fn eval(&self) {
        self.set_training(Some(false));
    }

    /// Puts this part into training or evaluation mode whatever the scope says; `None` lets it follow the scope again.
    fn set_training(&self, training: Option<bool>) {
        let mut mode = |mode: &Mode| mode.set_training(training);
        self.visit("", &mut Visitor { mode: Some(&mut mode), ..Visitor::new(&mut |_, _| {}, &mut |_, _| {}) });
    }

    /// Tells every parameter its names ([`Module::named_parameters`]), for a model that is neither trained nor saved:
    /// policies with exceptions by layer need them.
    fn assign_names(&self) {
        let _named = self.named_parameters();
    }

    /// The layer that this module is in the models that hold it, from the names of its first parameter; `None` without
    /// parameters.
    fn place(&self) -> Option<Place> {
        let mut place = None;
        let (param, buffer) = (&mut |name: &str, p: &Param| place = p.place_above(name), &mut |_: &str, _: &Buffer| {});
        self.visit("", &mut Visitor { first_only: true, ..Visitor::new(param, buffer) });
        place
    }

    /// Runs `f` as part of this module: operators inside that take no parameter of a layer of their own belong to it,
    /// for policies and messages.
    fn within<T>(&self, f: impl FnOnce() -> T) -> T
    where
        Self: Sized,
    {
        match self.place() {
            Some(place) => scope::within(&place, f),
            None => f(),
        }
    }
}

/// Every layer of a model whose parameters have these names, and what holds it.
fn layers<'a>(names: impl Iterator<Item = &'a str>) -> Layers {
    let above = |name: &'a str| name.match_indices('.').map(move |(dot, _)| &name[..dot]);
    let all: BTreeSet<&str> = names.flat_map(above).collect();
    all.into_iter().map(Arc::from).collect()
}

/// [`Module::copy_with`] of a module of a type known at run time. All modules are.
pub trait CopyModule {
    /// The copy.
    fn copy_module(&self, visitor: &Visitor<'_>) -> Box<dyn Module>;
}

impl<M: Module> CopyModule for M {
    fn copy_module(&self, visitor: &Visitor<'_>) -> Box<dyn Module> {
        Box::new(self.copy_with(visitor))
    }
}

/// Receives parameters, buffers and modes.
pub struct Visitor<'a> {
    /// Called for each parameter.
    pub param: &'a mut dyn FnMut(&str, &Param),
    /// Called for each buffer.
    pub buffer: &'a mut dyn FnMut(&str, &Buffer),
    /// Called for each mode.
    pub mode: Option<&'a mut dyn FnMut(&Mode)>,
    /// Whether nothing is visited after the first parameter.
    first_only: bool,
    done: bool,
    copies: Copies,
}

/// What takes the place of a module's parts in its copy.
#[derive(Default)]
struct Copies {
    params: HashMap<LeafId, Param>,
    buffers: HashMap<usize, Buffer>,
    modes: HashMap<usize, Mode>,
}

impl<'a> Visitor<'a> {
    /// Of all parameters and buffers.
    pub fn new(param: &'a mut dyn FnMut(&str, &Param), buffer: &'a mut dyn FnMut(&str, &Buffer)) -> Visitor<'a> {
        Visitor { param, buffer, mode: None, first_only: false, done: false, copies: Copies::default() }
    }

    /// `prefix.name`, or `name` at the root.
    pub fn join(&self, prefix: &str, name: impl std::fmt::Display) -> String {
        match (self.done, prefix.is_empty()) {
            (true, _) => String::new(),
            (false, true) => name.to_string(),
            (false, false) => format!("{prefix}.{name}"),
        }
    }
}

impl Module for Param {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        if !visitor.done {
            visitor.done = visitor.first_only;
            (visitor.param)(prefix, self);
        }
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Param {
        visitor.copies.params.get(&self.id()).unwrap_or(self).clone()
    }
}

impl Module for Buffer {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        (visitor.buffer)(prefix, self);
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Buffer {
        visitor.copies.buffers.get(&self.key()).unwrap_or(self).clone()
    }
}

impl Module for Mode {
    fn visit(&self, _prefix: &str, visitor: &mut Visitor<'_>) {
        if let Some(mode) = &mut visitor.mode {
            mode(self);
        }
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Mode {
        visitor.copies.modes.get(&self.key()).unwrap_or(self).clone()
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        if let Some(module) = self {
            module.visit(prefix, visitor);
        }
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Option<M> {
        self.as_ref().map(|module| module.copy_with(visitor))
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        for (i, module) in self.iter().enumerate() {
            module.visit(&visitor.join(prefix, i), visitor);
        }
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Vec<M> {
        self.iter().map(|module| module.copy_with(visitor)).collect()
    }
}

impl<M: Module, const N: usize> Module for [M; N] {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        for (i, module) in self.iter().enumerate() {
            module.visit(&visitor.join(prefix, i), visitor);
        }
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> [M; N] {
        std::array::from_fn(|i| self[i].copy_with(visitor))
    }
}

/// Pointers to modules, also of a type known at run time.
macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        pointers!(@dynamic $pointer, dyn Module, copy_module);
        pointers!(@dynamic $pointer, dyn Layer, copy_layer);

        impl<M: Module> Module for $pointer<M> {
            fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
                (**self).visit(prefix, visitor);
            }

            fn copy_with(&self, visitor: &Visitor<'_>) -> $pointer<M> {
                $pointer::new((**self).copy_with(visitor))
            }
        }
    )*};
    (@dynamic $pointer:ident, $dynamic:ty, $copy:ident) => {
        impl Module for $pointer<$dynamic> {
            fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
                (**self).visit(prefix, visitor);
            }

            fn copy_with(&self, visitor: &Visitor<'_>) -> $pointer<$dynamic> {
                (**self).$copy(visitor).into()
            }
        }
    };
}
pointers!(Box, Arc);

/// Settings: modules without parameters.
macro_rules! settings {
    ($($t:ty),*) => {$(
        impl Module for $t {
            fn visit(&self, _prefix: &str, _visitor: &mut Visitor<'_>) {}

            fn copy_with(&self, _visitor: &Visitor<'_>) -> $t {
                self.clone()
            }
        }
    )*};
}
settings!(
    (),
    bool,
    usize,
    isize,
    u32,
    u64,
    i32,
    i64,
    f32,
    f64,
    String,
    &'static str,
    binade_tensor::DType,
    binade_tensor::op::Conv2d,
    binade_tensor::op::Pool,
    binade_tensor::op::Unary,
    binade_tensor::op::Attention
);
