//! Moves, loads, stores and atomics.

use super::Decoder;
use super::mods::Mods;
use super::operand::mask;
use super::{CONST_WINDOW, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::ast::Operand;
use crate::code::{Access, Action, Atomic, AtomicOp, CONSTANT, Logic, Order, Predicate, Src};
use crate::error::Result;
use crate::types::{Space, Type};

/// Where a space's window of generic addresses begins.
pub(crate) fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
        Space::Const => CONST_WINDOW,
        Space::Global | Space::Generic => 0,
    }
}

/// Words that say how lines are cached: nothing that a result depends on.
fn cache_word(word: &str) -> bool {
    matches!(word, "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "nc" | "L2::cache_hint")
        || word.starts_with("L1::")
        || word.starts_with("L2::")
}

impl Decoder<'_> {
    pub(super) fn memory(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        match base {
            "mov" => self.mov(m),
            "cvta" => self.cvta(m),
            "isspacep" => {
                let name = m.next()?;
                let space = Space::from_name(name).ok_or_else(|| m.unsupported("an unknown space"))?;
                m.done(2)?;
                let Operand::Name(p) = m.operand(0)? else { return Err(m.invalid("expected a predicate")) };
                let p = self.predicate_named(p)?;
                Ok(Action::IsSpace { p, space, from: self.source(m, 1, Type::U64)? })
            }
            "ld" | "ldu" => self.load(m),
            "st" => self.store(m),
            "atom" | "red" => self.atomic(base == "atom", m),
            "createpolicy" => {
                let to = self.destination(m, 0, Type::B64)?;
                Ok(Action::Move { to, from: self.constant(0) })
            }
            // Hints about caches.
            _ => Ok(Action::Nothing),
        }
    }

    fn mov(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        let ty = m.ty()?;
        m.done(2)?;
        let (d, a) = (m.operand(0)?, m.operand(1)?);
        if ty == Type::Pred {
            let Operand::Name(p) = d else { return Err(m.invalid("expected a predicate")) };
            let never = Predicate { index: u32::MAX, negated: true };
            return Ok(Action::Logic {
                op: Logic::Or,
                to: self.predicate_named(p)?,
                a: self.predicate(m, 1)?,
                b: never,
            });
        }
        if let Operand::Vector(parts) = d {
            let bits = ty.bits() / parts.len() as u32;
            let part = part_type(bits).ok_or_else(|| m.invalid("the parts do not divide the value"))?;
            let from = self.source(m, 1, ty)?;
            let mut to = Vec::new();
            for operand in parts {
                let drop = matches!(operand, Operand::Name(n) if n == "_");
                to.push(if drop { None } else { Some(self.exact_destination(m, operand, part)?) });
            }
            return Ok(Action::Unpack { to, from, bits });
        }
        let to = self.destination(m, 0, ty)?;
        if let Operand::Vector(parts) = a {
            let bits = ty.bits() / parts.len() as u32;
            let part = part_type(bits).ok_or_else(|| m.invalid("the parts do not divide the value"))?;
            let from = parts.iter().map(|p| self.wide_source(m, p, part)).collect::<Result<Vec<Src>>>()?;
            return Ok(Action::Pack { to, from, bits });
        }
        let (name, offset) = match a {
            Operand::Name(name) => (name, 0),
            Operand::Offset(name, offset) => (name, *offset),
            _ => return Ok(Action::Move { to, from: self.source(m, 1, ty)? }),
        };
        if let Some(from) = self.address_value(m, name, offset)? {
            return Ok(Action::Move { to, from });
        }
        if offset != 0 {
            return Err(m.invalid(&format!("`{name}` is not a variable")));
        }
        // Special registers of 32 bits are also read as 64.
        Ok(Action::Move { to, from: self.source(m, 1, ty)? })
    }

    fn exact_destination(&mut self, m: &Mods<'_>, operand: &Operand, ty: Type) -> Result<u32> {
        let (to, of) = self.wide_destination(m, operand, ty)?;
        if of.size() != ty.size() {
            return Err(m.invalid(&format!("a part has type `{of}`, expected the width of `{ty}`")));
        }
        Ok(to)
    }

    fn cvta(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        let back = m.next_is("to");
        let name = m.next()?;
        let space = Space::from_name(name).ok_or_else(|| m.unsupported("an unknown space"))?;
        let ty = m.ty()?;
        m.done(2)?;
        let to = self.destination(m, 0, ty)?;
        let from = match m.operand(1)? {
            Operand::Name(n) => self.address_value(m, n, 0)?,
            Operand::Offset(n, offset) => self.address_value(m, n, *offset)?,
            _ => None,
        };
        let from = match from {
            Some(from) => from,
            None => self.source(m, 1, ty)?,
        };
        let base = window(space);
        let f = super::function::unary(move |a: u64| if back { a.wrapping_sub(base) } else { a.wrapping_add(base) });
        let zero = self.constant(0);
        Ok(Action::Compute { f, to, from: [from, zero, zero, zero], count: 1, approximate: false })
    }

    /// The modifiers of an access that say how it orders memory; what only concerns caches is dropped.
    pub(super) fn order(&self, m: &mut Mods<'_>) -> Result<Order> {
        let mut order = Order::default();
        while m.find(|w| cache_word(w).then_some(())).is_some() {}
        if m.has("weak") {
            return Ok(order);
        }
        if m.has("volatile") || m.has("mmio") {
            order.strong = true;
            order.device = true;
        }
        order.strong |= m.has("relaxed");
        let both = m.has("acq_rel");
        order.acquire = both | m.has("acquire");
        order.release = both | m.has("release");
        order.strong |= order.acquire || order.release;
        if let Some(scope) =
            m.find(|w| matches!(w, "cta" | "cluster" | "gpu" | "sys").then(|| w == "gpu" || w == "sys"))
        {
            order.device = scope;
        }
        Ok(order)
    }

    fn vector_length(&self, m: &mut Mods<'_>) -> usize {
        m.find(|w| match w {
            "v2" => Some(2),
            "v4" => Some(4),
            "v8" => Some(8),
            _ => None,
        })
        .unwrap_or(1)
    }

    /// The operands of a vector, or the only one.
    fn elements<'b>(&self, m: &Mods<'b>, operand: &'b Operand, count: usize) -> Result<&'b [Operand]> {
        let found = match operand {
            Operand::Vector(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        if found.len() != count {
            return Err(m.invalid(&format!("expected {count} elements, found {}", found.len())));
        }
        Ok(found)
    }

    fn load(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        let order = self.order(m)?;
        let space = m.find(Space::from_name).unwrap_or(Space::Generic);
        let count = self.vector_length(m);
        let ty = m.ty()?;
        // A cache policy may follow as a last operand.
        let extra = (m.inst.operands.len() > 2) as usize;
        m.done(2 + extra)?;
        let (address, space) = self.address(m, m.operand(1)?, space)?;
        let mut to = Vec::new();
        for operand in self.elements(m, m.operand(0)?, count)? {
            let (register, of) = self.wide_destination(m, operand, ty)?;
            to.push((register, mask(of)));
        }
        let (size, signed) = (ty.size(), ty.is_signed());
        if space == Space::Param && address.base.0 & CONSTANT != 0 {
            let at = self.constants[(address.base.0 & !CONSTANT) as usize].wrapping_add_signed(address.offset);
            return Ok(Action::Parameter { offset: at as usize, size, signed, to });
        }
        let access = Access { space, size, signed, address, to, from: Vec::new(), order };
        Ok(Action::Load(Box::new(access)))
    }

    fn store(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        if m.peek() == Some("async") || m.peek() == Some("bulk") {
            return Err(m.unsupported("asynchronous stores are not"));
        }
        let order = self.order(m)?;
        let space = m.find(Space::from_name).unwrap_or(Space::Generic);
        let count = self.vector_length(m);
        let ty = m.ty()?;
        let extra = (m.inst.operands.len() > 2) as usize;
        m.done(2 + extra)?;
        let (address, space) = self.address(m, m.operand(0)?, space)?;
        if matches!(space, Space::Const | Space::Param) {
            return Err(m.invalid(&format!("{space} memory cannot be written")));
        }
        let mut from = Vec::new();
        for operand in self.elements(m, m.operand(1)?, count)? {
            from.push(self.wide_source(m, operand, ty)?);
        }
        let access = Access { space, size: ty.size(), signed: false, address, to: Vec::new(), from, order };
        Ok(Action::Store(Box::new(access)))
    }

    fn atomic(&mut self, returns: bool, m: &mut Mods<'_>) -> Result<Action> {
        let mut order = self.order(m)?;
        // Without a word it is relaxed, for the whole device; only `.cta` narrows that.
        let cta = m.inst.opcode.split('.').any(|w| w == "cta");
        order.strong = true;
        order.device = !cta;
        m.has("noftz");
        let space = m.find(Space::from_name).unwrap_or(Space::Generic);
        let op = match m.next()? {
            "add" => AtomicOp::Add,
            "min" => AtomicOp::Min,
            "max" => AtomicOp::Max,
            "and" => AtomicOp::And,
            "or" => AtomicOp::Or,
            "xor" => AtomicOp::Xor,
            "exch" => AtomicOp::Exchange,
            "cas" => AtomicOp::Compare,
            "inc" => AtomicOp::Increment,
            "dec" => AtomicOp::Decrement,
            _ => return Err(m.unsupported("an unknown operation")),
        };
        m.has("noftz");
        let ty = m.ty()?;
        use Type::*;
        let known = match op {
            AtomicOp::Add => matches!(ty, U32 | S32 | U64 | S64 | F32 | F64 | F16 | BF16 | F16x2 | BF16x2),
            AtomicOp::Min | AtomicOp::Max => matches!(ty, U32 | S32 | U64 | S64),
            AtomicOp::Increment | AtomicOp::Decrement => ty == U32,
            AtomicOp::Compare => matches!(ty, B16 | B32 | B64),
            _ => matches!(ty, B32 | B64),
        };
        if !known {
            return Err(m.no_type(ty));
        }
        let two = op == AtomicOp::Compare;
        let first = returns as usize;
        m.done(first + 2 + two as usize)?;
        let (address, space) = self.address(m, m.operand(first)?, space)?;
        if !matches!(space, Space::Global | Space::Shared | Space::Generic) {
            return Err(m.invalid(&format!("{space} memory takes no atomics")));
        }
        let value = self.source(m, first + 1, ty)?;
        let second = if two { self.source(m, first + 2, ty)? } else { value };
        let to = if returns { Some(self.destination(m, 0, ty)?) } else { None };
        Ok(Action::Atomic(Box::new(Atomic { op, space, ty, address, to, values: [value, second], order })))
    }
}

fn part_type(bits: u32) -> Option<Type> {
    Some(match bits {
        8 => Type::B8,
        16 => Type::B16,
        32 => Type::B32,
        64 => Type::B64,
        _ => return None,
    })
}
