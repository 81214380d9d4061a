//! [`Visitor`]: one walk through the parts of a module, whatever is asked of them.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::ops::ControlFlow;

use binade_autograd::LeafId;

use crate::{Buffer, Mode, Module, Param};

/// What a walk comes to, in order of the fields.
pub(crate) enum Part<'a> {
    /// A module begins: its place in memory and its type. Its parts follow.
    Module(usize, TypeId),
    /// The innermost module that has begun ends.
    End,
    Param(&'a Param),
    Buffer(&'a Buffer),
    Mode(&'a Mode),
}

/// What takes the place of a module's parts in its copy.
#[derive(Default)]
pub(crate) struct Copies {
    pub(crate) params: HashMap<LeafId, Param>,
    pub(crate) buffers: HashMap<usize, Buffer>,
    pub(crate) modes: HashMap<usize, Mode>,
}

/// Goes through a module's fields, and knows the dotted name of the one it is at.
pub struct Visitor<'a> {
    see: &'a mut dyn FnMut(&str, Part<'_>) -> ControlFlow<()>,
    name: String,
    /// Whether names are wanted.
    named: bool,
    done: bool,
    pub(crate) copies: Copies,
}

impl<'a> Visitor<'a> {
    /// Calls `see` for every part until it breaks.
    pub(crate) fn new(see: &'a mut dyn FnMut(&str, Part<'_>) -> ControlFlow<()>) -> Visitor<'a> {
        Visitor { see, name: String::new(), named: true, done: false, copies: Copies::default() }
    }

    /// As [`Visitor::new`], for who does not ask for names.
    pub(crate) fn unnamed(see: &'a mut dyn FnMut(&str, Part<'_>) -> ControlFlow<()>) -> Visitor<'a> {
        Visitor { named: false, ..Visitor::new(see) }
    }

    /// With what takes the place of parts in a copy.
    pub(crate) fn copying(copies: Copies, see: &'a mut dyn FnMut(&str, Part<'_>) -> ControlFlow<()>) -> Visitor<'a> {
        Visitor { copies, ..Visitor::unnamed(see) }
    }

    /// Visits a field under its name.
    pub fn field(&mut self, name: impl Display, module: &(impl Module + ?Sized)) {
        if !self.done {
            let end = self.enter(&name);
            module.walk(self);
            self.name.truncate(end);
        }
    }

    /// Where the name ended before that of a field. Apart, so that it is compiled once and not per type of module.
    fn enter(&mut self, name: &dyn Display) -> usize {
        let end = self.name.len();
        if self.named {
            let dot = if end == 0 { "" } else { "." };
            // Writing to a string does not fail.
            let _written = write!(self.name, "{dot}{name}");
        }
        end
    }

    /// Visits a buffer under the name of the field that this is at, with an end.
    pub(crate) fn beside(&mut self, end: &str, buffer: &Buffer) {
        let name = self.name.len();
        if self.named {
            self.name.push_str(end);
        }
        self.see(Part::Buffer(buffer));
        self.name.truncate(name);
    }

    pub(crate) fn see(&mut self, part: Part<'_>) {
        if !self.done {
            self.done = (self.see)(&self.name, part).is_break();
        }
    }
}
