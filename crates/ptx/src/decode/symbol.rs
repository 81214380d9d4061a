//! Names: registers, variables and labels, in nested scopes.

use std::collections::HashMap;

use super::{Decoder, LOCAL_START, SHARED_START};
use crate::ast::{Function, Variable};
use crate::code::{Parameter, Special};
use crate::error::Result;
use crate::types::{Space, Type};

/// What a name means.
#[derive(Clone, Debug)]
pub(crate) enum Symbol {
    Register(u32, Type),
    Predicate(u32),
    /// An address within a space.
    Variable(Space, u64),
    /// Dynamic shared memory: its address is known when all static memory is; the constant with this index holds it.
    Dynamic(u32),
    Label(u32),
    Targets(Vec<u32>),
}

/// Names of one pair of braces.
#[derive(Default)]
pub(crate) struct Scope {
    pub names: HashMap<String, Symbol>,
    /// Common beginnings of `.reg %r<n>`: first register, count, type.
    ranges: HashMap<String, (u32, u32, Type)>,
}

impl Decoder<'_> {
    pub(super) fn define(&mut self, name: &str, symbol: Symbol) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name.to_string(), symbol);
        }
    }

    /// What a name means, searched from the innermost scope.
    pub(super) fn lookup(&self, name: &str) -> Option<Symbol> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = &name[stem.len()..];
        // `%r01` is not a register of `%r<10>`.
        let number: Option<u32> = if number.len() > 1 && number.starts_with('0') { None } else { number.parse().ok() };
        for scope in self.scopes.iter().rev() {
            if let Some(symbol) = scope.names.get(name) {
                return Some(symbol.clone());
            }
            if let (Some(number), Some(&(first, count, ty))) = (number, scope.ranges.get(stem))
                && number < count
            {
                return Some(match ty {
                    Type::Pred => Symbol::Predicate(first + number),
                    _ => Symbol::Register(first + number, ty),
                });
            }
        }
        None
    }

    pub(super) fn declare_registers(&mut self, ty: Type, name: &str, count: Option<u32>) -> Result<()> {
        if ty.size() > 8 {
            return Err(self.error(format!("registers of type `{ty}` are not supported")));
        }
        let first = if ty == Type::Pred { &mut self.predicates } else { &mut self.registers };
        let start = *first;
        *first += count.unwrap_or(1);
        match count {
            Some(count) => {
                if let Some(scope) = self.scopes.last_mut() {
                    scope.ranges.insert(name.to_string(), (start, count, ty));
                }
            }
            None if ty == Type::Pred => self.define(name, Symbol::Predicate(start)),
            None => self.define(name, Symbol::Register(start, ty)),
        }
        Ok(())
    }

    /// A new register without a name.
    pub(super) fn fresh(&mut self) -> u32 {
        self.registers += 1;
        self.registers - 1
    }

    /// The register that holds a special value from the start.
    pub(super) fn special(&mut self, special: Special) -> u32 {
        if let Some(found) = self.specials.iter().find(|s| s.0 == special) {
            return found.1;
        }
        let register = self.fresh();
        self.specials.push((special, register));
        register
    }

    /// Names of the module: its shared variables, and what the layout placed in global and constant memory.
    pub(super) fn module_scope(&mut self) -> Result<()> {
        let globals = self.globals;
        for (name, (space, address)) in &globals.addresses {
            self.define(name, Symbol::Variable(*space, *address));
        }
        let module = self.module;
        for variable in module.variables.iter().filter(|v| v.space == Space::Shared) {
            self.line = variable.line;
            self.declare(variable)?;
        }
        Ok(())
    }

    /// Gives a variable its place.
    pub(super) fn declare(&mut self, variable: &Variable) -> Result<()> {
        let align = variable.align.max(1);
        let bytes = variable.elements.unwrap_or(0).saturating_mul(variable.ty.size());
        let symbol = match variable.space {
            Space::Shared if variable.elements.is_none() => {
                self.dynamic_align = self.dynamic_align.max(align);
                // Its value is set by `place_dynamic`; no other constant may share the slot.
                let index = self.constants.len() as u32;
                self.constants.push(0);
                self.dynamic.insert(variable.name.clone(), index);
                Symbol::Dynamic(index)
            }
            Space::Shared => {
                let start = self.shared_bytes.next_multiple_of(align);
                self.shared_bytes = start + bytes;
                if variable.initialised {
                    return Err(self.error(format!("`{}`: shared memory takes no initialiser", variable.name)));
                }
                Symbol::Variable(Space::Shared, SHARED_START + start as u64)
            }
            // Parameters of calls are memory of the thread.
            Space::Local | Space::Param => {
                let start = self.local_bytes.next_multiple_of(align);
                self.local_bytes = start + bytes;
                Symbol::Variable(Space::Local, LOCAL_START + start as u64)
            }
            space => return Err(self.error(format!("`{}`: {space} variables belong to the module", variable.name))),
        };
        self.define(&variable.name, symbol);
        Ok(())
    }

    /// Dynamic shared memory follows the static.
    pub(super) fn place_dynamic(&mut self) {
        let start = SHARED_START + self.shared_bytes.next_multiple_of(self.dynamic_align) as u64;
        for &index in self.dynamic.values() {
            self.constants[index as usize] = start;
        }
    }

    /// The kernel's parameters, one after the other with their alignment.
    pub(super) fn kernel_parameters(&mut self, kernel: &Function) -> Result<(Vec<Parameter>, usize)> {
        let (mut out, mut end) = (Vec::new(), 0usize);
        for p in &kernel.params {
            let Some(elements) = p.elements else {
                return Err(self.error(format!("the parameter `{}` has no extent", p.name)));
            };
            let (size, align) = (elements * p.ty.size(), p.align.max(1));
            let offset = end.next_multiple_of(align);
            end = offset + size;
            self.define(&p.name, Symbol::Variable(Space::Param, offset as u64));
            out.push(Parameter { name: p.name.clone(), offset, size, align });
        }
        Ok((out, end))
    }
}
