//! Calls: the function's body is expanded in place, its parameters are the caller's variables.

use super::Decoder;
use super::mods::Mods;
use super::symbol::Scope;
use crate::ast::{Function, Operand};
use crate::code::Action;
use crate::error::Result;

/// How deep calls may nest; PTX of a compiler stays far below, and recursion is found by name first.
const DEPTH: usize = 64;

impl Decoder<'_> {
    pub(super) fn call(&mut self, m: &mut Mods<'_>) -> Result<()> {
        m.next_is("uni");
        if let Some(left) = m.peek() {
            return Err(m.unsupported(&format!("`.{left}` is not a modifier of it")));
        }
        if m.inst.guard.is_some() {
            return Err(m.unsupported("a call under a predicate"));
        }
        let mut operands = m.inst.operands.iter().peekable();
        let mut list = |skip: bool| match operands.peek() {
            Some(Operand::List(items)) if !skip => {
                operands.next();
                items.clone()
            }
            _ => Vec::new(),
        };
        let results = list(false);
        let Some(Operand::Name(name)) = operands.next() else {
            return Err(m.unsupported("a call through an address"));
        };
        let arguments = match operands.next() {
            Some(Operand::List(items)) => items.clone(),
            _ => Vec::new(),
        };
        if name == "__assertfail" {
            return self.push(Action::Trap("an assertion failed".to_string()), None, Some(m.inst));
        }
        let module = self.module;
        let function = module.functions.iter().find(|f| &f.name == name && f.body.is_some());
        let Some(function) = function else {
            return Err(m.unsupported(&format!("the function `{name}` has no body in this module")));
        };
        if self.calls.contains(name) || self.calls.len() > DEPTH {
            return Err(m.unsupported(&format!("`{name}` calls itself, which needs a stack")));
        }
        self.expand(m, function, &results, &arguments)
    }

    fn expand(&mut self, m: &Mods<'_>, f: &Function, results: &[Operand], arguments: &[Operand]) -> Result<()> {
        let mut bound = Scope::default();
        for (formal, actual) in [(&f.returns, results), (&f.params, arguments)] {
            if formal.len() != actual.len() {
                let (found, expected) = (actual.len(), formal.len());
                return Err(m.invalid(&format!("`{}` is given {found} values, expected {expected}", f.name)));
            }
            for (formal, actual) in formal.iter().zip(actual) {
                let Operand::Name(actual) = actual else {
                    return Err(m.unsupported("an argument that is not a name"));
                };
                let symbol = self.lookup(actual);
                let symbol = symbol.ok_or_else(|| m.invalid(&format!("`{actual}` is not declared")))?;
                bound.names.insert(formal.name.clone(), symbol);
            }
        }
        let module_scope = self.scopes.remove(0);
        let outer = std::mem::replace(&mut self.scopes, vec![module_scope, bound]);
        let end = self.labels.len() as u32;
        self.labels.push(u32::MAX);
        self.returns.push(end);
        self.calls.push(f.name.clone());
        let line = self.line;
        let done = self.scope(f.body.as_deref().unwrap_or(&[]));
        self.line = line;
        self.calls.pop();
        self.returns.pop();
        self.labels[end as usize] = self.insts.len() as u32;
        let module_scope = self.scopes.swap_remove(0);
        self.scopes = outer;
        self.scopes.insert(0, module_scope);
        done
    }

    /// `ret` and `exit`.
    pub(super) fn leave(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        m.next_is("uni");
        m.done(0)?;
        match self.returns.last() {
            Some(&end) if base == "ret" => Ok(Action::Branch { target: end }),
            _ => Ok(Action::Exit),
        }
    }
}
