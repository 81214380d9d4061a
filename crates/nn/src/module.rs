//! [`Module`]: a struct whose parameters and buffers can be visited by name.

use std::collections::BTreeSet;
use std::sync::Arc;

use binade_autograd::{Layers, Place, scope};

use crate::{Buffer, Param};

/// Something with parameters and buffers. Derived, never written by hand; types without parameters (numbers, strings, geometry)
/// are modules that visit nothing, so that a struct may hold its settings.
pub trait Module {
    /// Calls the visitor for every parameter and buffer with its dotted name under `prefix`.
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>);

    /// Parameters with their names, in order of the fields. A tied parameter is listed under each of its names.
    ///
    /// Each parameter learns its names, by which policies and messages know its layer: so do those of a model that an optimiser or a state dict is
    /// made of. The longer of two names stands: what a whole calls `head.weight` is not renamed by a list of the head's own parameters. A layer
    /// of several models has a name in each.
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

    /// Number of trainable values.
    fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|p| p.array().numel()).sum()
    }

    /// Tells every parameter its names ([`Module::named_parameters`]), for a model that is neither trained nor saved: policies with exceptions by
    /// layer need them.
    fn assign_names(&self) {
        let _named = self.named_parameters();
    }

    /// The layer that this module is in the models that hold it, from the names of its first parameter; `None` without parameters.
    fn place(&self) -> Option<Place> {
        let mut place = None;
        let (param, buffer) = (&mut |name: &str, p: &Param| place = p.place_above(name), &mut |_: &str, _: &Buffer| {});
        self.visit("", &mut Visitor { first_only: true, ..Visitor::new(param, buffer) });
        place
    }

    /// Runs `f` as part of this module: operators inside that take no parameter of a layer of their own belong to it, for policies and messages.
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

/// Receives parameters and buffers by name.
pub struct Visitor<'a> {
    /// Called for each parameter.
    pub param: &'a mut dyn FnMut(&str, &Param),
    /// Called for each buffer.
    pub buffer: &'a mut dyn FnMut(&str, &Buffer),
    /// Whether nothing is visited after the first parameter.
    first_only: bool,
    done: bool,
}

impl<'a> Visitor<'a> {
    /// Of everything.
    pub fn new(param: &'a mut dyn FnMut(&str, &Param), buffer: &'a mut dyn FnMut(&str, &Buffer)) -> Visitor<'a> {
        Visitor { param, buffer, first_only: false, done: false }
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
}

impl Module for Buffer {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        (visitor.buffer)(prefix, self);
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        if let Some(module) = self {
            module.visit(prefix, visitor);
        }
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        for (i, module) in self.iter().enumerate() {
            module.visit(&visitor.join(prefix, i), visitor);
        }
    }
}

impl<M: Module, const N: usize> Module for [M; N] {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        for (i, module) in self.iter().enumerate() {
            module.visit(&visitor.join(prefix, i), visitor);
        }
    }
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        (**self).visit(prefix, visitor);
    }
}

impl<M: Module + ?Sized> Module for Arc<M> {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        (**self).visit(prefix, visitor);
    }
}

/// Settings: modules without parameters.
macro_rules! settings {
    ($($t:ty),*) => {$(
        impl Module for $t {
            fn visit(&self, _prefix: &str, _visitor: &mut Visitor<'_>) {}
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
