//! The modifiers of an opcode, taken one after the other; what is left at the end is an unknown form.

use crate::ast::{Instruction, Operand};
use crate::error::{Error, Result};
use crate::num::Mode;
use crate::types::Type;

/// An instruction whose modifiers are being read.
pub(crate) struct Mods<'a> {
    pub inst: &'a Instruction,
    parts: Vec<&'a str>,
}

impl<'a> Mods<'a> {
    /// The base opcode, and the rest.
    pub fn new(inst: &'a Instruction) -> (&'a str, Mods<'a>) {
        let mut parts = inst.opcode.split('.');
        let base = parts.next().unwrap_or("");
        (base, Mods { inst, parts: parts.collect() })
    }

    /// Takes the modifier if it comes next.
    pub fn next_is(&mut self, name: &str) -> bool {
        let found = self.parts.first() == Some(&name);
        if found {
            self.parts.remove(0);
        }
        found
    }

    /// Takes the modifier wherever it is.
    pub fn has(&mut self, name: &str) -> bool {
        match self.parts.iter().position(|p| *p == name) {
            Some(at) => {
                self.parts.remove(at);
                true
            }
            None => false,
        }
    }

    /// Takes the next modifier.
    pub fn next(&mut self) -> Result<&'a str> {
        if self.parts.is_empty() {
            return Err(self.unsupported("a modifier is missing"));
        }
        Ok(self.parts.remove(0))
    }

    /// The next modifier, left in its place.
    pub fn peek(&self) -> Option<&'a str> {
        self.parts.first().copied()
    }

    /// Takes the first modifier that `f` knows.
    pub fn find<T>(&mut self, f: impl Fn(&str) -> Option<T>) -> Option<T> {
        let at = self.parts.iter().position(|p| f(p).is_some())?;
        f(self.parts.remove(at))
    }

    /// Takes the next modifier, which must be a type.
    pub fn ty(&mut self) -> Result<Type> {
        let name = self.next()?;
        Type::from_name(name).ok_or_else(|| self.unsupported(&format!("`.{name}` is not a type")))
    }

    /// Takes a rounding mode of floats, if there is one.
    pub fn mode(&mut self) -> Option<Mode> {
        self.find(Mode::from_name)
    }

    /// Fails if a modifier is left, or if the number of operands differs.
    pub fn done(&self, operands: usize) -> Result<()> {
        if let Some(left) = self.parts.first() {
            return Err(self.unsupported(&format!("`.{left}` is not a modifier of it here")));
        }
        self.operands(operands)
    }

    /// Fails if the number of operands differs.
    pub fn operands(&self, expected: usize) -> Result<()> {
        let found = self.inst.operands.len();
        if found != expected {
            return Err(self.invalid(&format!("it has {found} operands, expected {expected}")));
        }
        Ok(())
    }

    /// An operand.
    pub fn operand(&self, at: usize) -> Result<&'a Operand> {
        self.inst.operands.get(at).ok_or_else(|| self.invalid(&format!("operand {} is missing", at + 1)))
    }

    /// A form that is not known.
    pub fn unsupported(&self, reason: &str) -> Error {
        Error::Unsupported { line: self.inst.line, form: self.inst.opcode.clone(), reason: reason.to_string() }
    }

    /// A form with a type that it does not take.
    pub fn no_type(&self, ty: Type) -> Error {
        self.unsupported(&format!("`{ty}` is not one of its types"))
    }

    /// An operand that does not fit.
    pub fn invalid(&self, what: &str) -> Error {
        Error::Parse { line: self.inst.line, message: format!("`{}`: {what}", self.inst.opcode) }
    }
}
