//! [`Module`]: a struct whose parameters and buffers can be visited by name.

use std::sync::Arc;

use crate::{Buffer, Param};

/// Something with parameters and buffers. Derived, never written by hand; types without parameters (numbers, strings, geometry)
/// are modules that visit nothing, so that a struct may hold its settings.
pub trait Module {
    /// Calls the visitor for every parameter and buffer with its dotted name under `prefix`.
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>);

    /// Parameters with their names, in order of the fields. A tied parameter is listed under each of its names.
    fn named_parameters(&self) -> Vec<(String, Param)> {
        let mut out = Vec::new();
        self.visit("", &mut Visitor { param: &mut |name, p| out.push((name.to_string(), p.clone())), buffer: &mut |_, _| {} });
        out
    }

    /// Buffers with their names.
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        let mut out = Vec::new();
        self.visit("", &mut Visitor { param: &mut |_, _| {}, buffer: &mut |name, b| out.push((name.to_string(), b.clone())) });
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

    /// Tells every parameter its name, so that errors and reports can name layers. Optimisers and state dicts call it.
    fn assign_names(&self) {
        for (name, param) in self.named_parameters().into_iter().rev() {
            param.set_name(&name);
        }
    }
}

/// Receives parameters and buffers by name.
pub struct Visitor<'a> {
    /// Called for each parameter.
    pub param: &'a mut dyn FnMut(&str, &Param),
    /// Called for each buffer.
    pub buffer: &'a mut dyn FnMut(&str, &Buffer),
}

impl Visitor<'_> {
    /// `prefix.name`, or `name` at the root.
    pub fn join(&self, prefix: &str, name: impl std::fmt::Display) -> String {
        if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
    }
}

impl Module for Param {
    fn visit(&self, prefix: &str, visitor: &mut Visitor<'_>) {
        (visitor.param)(prefix, self);
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
