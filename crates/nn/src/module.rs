//! [`Module`]: a struct whose parameters and buffers can be visited by name.

use std::any::TypeId;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use binade_autograd::Place;
use binade_tensor::Device;

use crate::quantised::{Activations, Quantised};
use crate::structure::{self, Entered, layers};
use crate::visitor::{Copies, Part};
use crate::{Buffer, Layer, Mode, Param, Result, Visitor};

/// Something with parameters and buffers. Derived, never written by hand; types without parameters (numbers, strings,
/// geometry) are modules that visit nothing, so that a struct may hold its settings.
pub trait Module: CopyModule + 'static {
    /// Shows the visitor every field under its name.
    fn visit(&self, visitor: &mut Visitor<'_>);

    /// Shows the visitor this module and its fields.
    #[doc(hidden)]
    fn walk(&self, visitor: &mut Visitor<'_>) {
        visitor.see(Part::Module(address(self), TypeId::of::<Self>()));
        self.visit(visitor);
        visitor.see(Part::End);
    }

    /// Where this module is that begins to run.
    #[doc(hidden)]
    fn enter(&self) -> Entered {
        structure::enter(address(self), TypeId::of::<Self>(), &|visitor| self.walk(visitor))
    }

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
        let mut failed = Ok(());
        self.walk(&mut Visitor::unnamed(&mut |_, part| {
            failed = copies.add(&part);
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }));
        failed?;
        Ok(self.copy_with(&Visitor::copying(copies, &mut |_, _| ControlFlow::Continue(()))))
    }

    /// Parameters with their names, in order of the fields. A tied parameter is listed under each of its names.
    ///
    /// Each parameter learns its names, by which policies and messages know its layer: so do those of a model that an
    /// optimiser or a state dict is made of. The longer of two names stands: what a whole calls `head.weight` is not
    /// renamed by a list of the head's own parameters. A layer of several models has a name in each.
    fn named_parameters(&self) -> Vec<(String, Param)> {
        let (mut out, mut modules): (Vec<(String, Param)>, Vec<String>) = Default::default();
        self.walk(&mut Visitor::new(&mut |name, part| {
            match part {
                Part::Param(param) => out.push((name.to_string(), param.clone())),
                Part::Module(..) => modules.push(name.to_string()),
                Part::End | Part::Buffer(_) | Part::Mode(_) => {}
            }
            ControlFlow::Continue(())
        }));
        let mut layers = layers(modules.iter().map(String::as_str));
        for (name, param) in &out {
            layers = param.set_name(name, layers);
        }
        out
    }

    /// Buffers with their names.
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        let mut out = Vec::new();
        self.walk(&mut Visitor::new(&mut |name, part| {
            if let Part::Buffer(buffer) = part {
                out.push((name.to_string(), buffer.clone()));
            }
            ControlFlow::Continue(())
        }));
        out
    }

    /// Parameters, each once.
    fn parameters(&self) -> Vec<Param> {
        let mut seen = HashSet::new();
        self.named_parameters().into_iter().map(|(_, p)| p).filter(|p| seen.insert(p.id())).collect()
    }

    /// The device of its first parameter; `None` without parameters.
    fn device(&self) -> Option<Device> {
        self.parameters().first().map(Param::device)
    }

    /// Moves parameters and buffers to a device, in place: clones, tied weights and optimisers see them there. What an
    /// optimiser or average remembers of them follows at its next step.
    ///
    /// ```
    /// # use binade_cpu as _;
    /// # fn main() -> binade_nn::Result<()> {
    /// use binade_nn::{Linear, Module};
    /// use binade_tensor::{Device, remote::Remote};
    /// let (layer, device) = (Linear::new(4, 2)?, Device::new(Remote::new()));
    /// layer.to(&device)?;
    /// assert!(layer.device() == Some(device));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Held`](crate::Error::Held): gradients, or a graph that would give some, hold a parameter; out of
    /// memory; what an asynchronous device reports late. Nothing is moved then.
    fn to(&self, device: &Device) -> Result<()> {
        let (mut params, mut buffers) = (Vec::new(), Vec::new());
        let (mut seen, mut known) = (HashSet::new(), HashSet::new());
        for (name, param) in self.named_parameters().into_iter().filter(|(_, param)| seen.insert(param.id())) {
            params.extend(param.on(&name, device)?.map(|array| (param, array)));
        }
        for (_, buffer) in self.named_buffers().into_iter().filter(|(_, buffer)| known.insert(buffer.key())) {
            let array = buffer.array().to(device)?;
            buffers.push((buffer, array));
        }
        params.into_iter().for_each(|(param, array)| param.set_memory(array));
        buffers.into_iter().for_each(|(buffer, array)| buffer.set_memory(array));
        Ok(())
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
        self.walk(&mut Visitor::unnamed(&mut |_, part| {
            if let Part::Mode(mode) = part {
                mode.set_training(training);
            }
            ControlFlow::Continue(())
        }));
    }

    /// Tells every parameter its names ([`Module::named_parameters`]), for parts that run outside the model that they
    /// belong to: a policy with exceptions by layer needs them then.
    fn assign_names(&self) {
        let _named = self.named_parameters();
    }

    /// The layer that this module is in the models that hold it, from the names of its first parameter; `None` without
    /// parameters.
    fn place(&self) -> Option<Place> {
        let mut place = None;
        self.walk(&mut Visitor::new(&mut |name, part| {
            let Part::Param(param) = part else { return ControlFlow::Continue(()) };
            place = param.place_above(name);
            ControlFlow::Break(())
        }));
        place
    }

    /// Runs `f` as this module: operators inside belong to it, for policies and messages, and modules inside are found
    /// in it. [`Layer::forward`] does this by itself; a function of a module with other arguments runs its body in
    /// here.
    ///
    /// Which layer of its model this is follows from the model's structure: the outermost module that runs is the
    /// model, and the fields that lead to this one are its path. Outside a model the names count that were given
    /// ([`Module::assign_names`]).
    fn within<T>(&self, f: impl FnOnce() -> T) -> T
    where
        Self: Sized,
    {
        self.enter().run(f)
    }
}

fn address<M: ?Sized>(module: &M) -> usize {
    std::ptr::from_ref(module).cast::<()>().addr()
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

impl Copies {
    fn add(&mut self, part: &Part<'_>) -> Result<()> {
        match part {
            Part::Param(param) if !self.params.contains_key(&param.id()) => {
                self.params.insert(param.id(), param.deep()?);
            }
            Part::Buffer(buffer) if !self.buffers.contains_key(&buffer.key()) => {
                self.buffers.insert(buffer.key(), buffer.deep()?);
            }
            Part::Mode(mode) => {
                self.modes.entry(mode.key()).or_insert_with(|| mode.deep());
            }
            Part::Param(_) | Part::Buffer(_) | Part::Module(..) | Part::End => {}
        }
        Ok(())
    }
}

impl Module for Param {
    /// Scales of integers are buffers under the parameter's name with an end.
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.see(Part::Param(self));
        let Some(Quantised { scale, activations }) = self.quantised() else { return };
        visitor.beside("_scale", &scale);
        if let Activations::Static(own) = activations {
            visitor.beside("_input_scale", &own);
        }
    }

    fn walk(&self, visitor: &mut Visitor<'_>) {
        self.visit(visitor);
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Param {
        visitor.copies.params.get(&self.id()).unwrap_or(self).clone()
    }
}

impl Module for Buffer {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.see(Part::Buffer(self));
    }

    fn walk(&self, visitor: &mut Visitor<'_>) {
        self.visit(visitor);
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Buffer {
        visitor.copies.buffers.get(&self.key()).unwrap_or(self).clone()
    }
}

impl Module for Mode {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.see(Part::Mode(self));
    }

    fn walk(&self, visitor: &mut Visitor<'_>) {
        self.visit(visitor);
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Mode {
        visitor.copies.modes.get(&self.key()).unwrap_or(self).clone()
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.iter().for_each(|module| module.walk(visitor));
    }

    // A container is no layer: what it holds is.
    fn walk(&self, visitor: &mut Visitor<'_>) {
        self.visit(visitor);
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Option<M> {
        self.as_ref().map(|module| module.copy_with(visitor))
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.iter().enumerate().for_each(|(i, module)| visitor.field(i, module));
    }

    // A container is no layer: what it holds is.
    fn walk(&self, visitor: &mut Visitor<'_>) {
        self.visit(visitor);
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Vec<M> {
        self.iter().map(|module| module.copy_with(visitor)).collect()
    }
}

impl<M: Module, const N: usize> Module for [M; N] {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.iter().enumerate().for_each(|(i, module)| visitor.field(i, module));
    }

    // A container is no layer: what it holds is.
    fn walk(&self, visitor: &mut Visitor<'_>) {
        self.visit(visitor);
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
            fn visit(&self, visitor: &mut Visitor<'_>) {
                (**self).walk(visitor);
            }

            fn walk(&self, visitor: &mut Visitor<'_>) {
                self.visit(visitor);
            }

            fn copy_with(&self, visitor: &Visitor<'_>) -> $pointer<M> {
                $pointer::new((**self).copy_with(visitor))
            }
        }
    )*};
    (@dynamic $pointer:ident, $dynamic:ty, $copy:ident) => {
        impl Module for $pointer<$dynamic> {
            fn visit(&self, visitor: &mut Visitor<'_>) {
                (**self).walk(visitor);
            }

            fn walk(&self, visitor: &mut Visitor<'_>) {
                self.visit(visitor);
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
            fn visit(&self, _visitor: &mut Visitor<'_>) {}

            fn walk(&self, _visitor: &mut Visitor<'_>) {}

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
