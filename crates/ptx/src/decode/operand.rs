//! Operands: names to registers, literals to constants.

use super::Decoder;
use super::mods::Mods;
use super::symbol::Symbol;
use crate::ast::Operand;
use crate::code::{Address, CONSTANT, Predicate, Special, Src};
use crate::error::Result;
use crate::num::{self, Mode};
use crate::types::{Space, Type};

impl Decoder<'_> {
    /// A constant of all lanes.
    pub(super) fn constant(&mut self, value: u64) -> Src {
        let next = self.constants.len() as u32;
        let index = *self.constant_of.entry(value).or_insert(next);
        if index == next {
            self.constants.push(value);
        }
        Src(index | CONSTANT)
    }

    /// A literal as a value of a type.
    fn literal(&mut self, operand: &Operand, ty: Type, m: &Mods<'_>) -> Result<Option<Src>> {
        let mask = mask(ty);
        let value = match *operand {
            Operand::Int(value) if !ty.is_float() => value & mask,
            // Packed and 16-bit floats are written as integers that hold their bits.
            Operand::Int(value) if !matches!(ty, Type::F32 | Type::F64) => value & mask,
            Operand::F32(bits) if ty == Type::F32 || (ty.size() == 4 && !ty.is_float()) => bits as u64,
            Operand::F64(bits) if ty.size() == 8 => bits,
            Operand::F64(bits) if ty == Type::F32 => num::convert::float_to_float(bits, num::F64, num::F32, Mode::Rn),
            Operand::F32(bits) if ty == Type::F64 => {
                num::convert::float_to_float(bits as u64, num::F32, num::F64, Mode::Rn)
            }
            Operand::Int(_) | Operand::F32(_) | Operand::F64(_) => {
                return Err(m.invalid(&format!("a literal that is not of type `{ty}`")));
            }
            _ => return Ok(None),
        };
        Ok(Some(self.constant(value)))
    }

    /// A source of exactly the width of `ty`.
    pub(super) fn source(&mut self, m: &Mods<'_>, at: usize, ty: Type) -> Result<Src> {
        let operand = m.operand(at)?;
        self.source_of(m, operand, ty, true)
    }

    /// A source at least as wide as `ty`, as conversions and stores take.
    pub(super) fn wide_source(&mut self, m: &Mods<'_>, operand: &Operand, ty: Type) -> Result<Src> {
        self.source_of(m, operand, ty, false)
    }

    fn source_of(&mut self, m: &Mods<'_>, operand: &Operand, ty: Type, exact: bool) -> Result<Src> {
        if let Some(found) = self.literal(operand, ty, m)? {
            return Ok(found);
        }
        let Operand::Name(name) = operand else {
            return Err(m.invalid("expected a register or a literal"));
        };
        match self.lookup(name) {
            Some(Symbol::Register(register, of)) => {
                if of.size() < ty.size() || (exact && of.size() != ty.size()) {
                    return Err(m.invalid(&format!("`{name}` has type `{of}`, expected the width of `{ty}`")));
                }
                Ok(Src(register))
            }
            Some(_) => Err(m.invalid(&format!("`{name}` is not a register of type `{ty}`"))),
            None => self.special_named(name, m),
        }
    }

    fn special_named(&mut self, name: &str, m: &Mods<'_>) -> Result<Src> {
        let axis = |name: &str, stem: &str| match name.strip_prefix(stem)?.strip_prefix('.')? {
            "x" => Some(0u8),
            "y" => Some(1),
            "z" => Some(2),
            _ => None,
        };
        type OfAxis = fn(u8) -> Special;
        let triples: [(&str, OfAxis); 8] = [
            ("%tid", Special::Tid),
            ("%ntid", Special::Ntid),
            ("%ctaid", Special::Ctaid),
            ("%nctaid", Special::Nctaid),
            // Without clusters every block is one.
            ("%clusterid", Special::Ctaid),
            ("%nclusterid", Special::Nctaid),
            ("%cluster_ctaid", |_| Special::Fixed(0)),
            ("%cluster_nctaid", |_| Special::Fixed(1)),
        ];
        for (stem, special) in triples {
            if let Some(axis) = axis(name, stem) {
                return Ok(Src(self.special(special(axis))));
            }
        }
        let special = match name {
            "%laneid" => Special::Lane,
            "%warpid" => Special::Warp,
            "%nwarpid" => Special::Warps,
            "%lanemask_eq" => Special::MaskEq,
            "%lanemask_lt" => Special::MaskLt,
            "%lanemask_le" => Special::MaskLe,
            "%lanemask_gt" => Special::MaskGt,
            "%lanemask_ge" => Special::MaskGe,
            "%dynamic_smem_size" => Special::DynamicShared,
            "%total_smem_size" => Special::TotalShared,
            "%cluster_ctarank" | "%smid" | "%gridid" => Special::Fixed(0),
            "%cluster_nctarank" | "%nsmid" => Special::Fixed(1),
            "WARP_SZ" => return Ok(self.constant(32)),
            _ if name.starts_with("%clock") || name.starts_with("%globaltimer") => {
                return Err(m.unsupported(&format!("time is not modelled: `{name}`")));
            }
            _ => return Err(m.invalid(&format!("`{name}` is not declared"))),
        };
        Ok(Src(self.special(special)))
    }

    /// A destination of exactly the width of `ty`.
    pub(super) fn destination(&mut self, m: &Mods<'_>, at: usize, ty: Type) -> Result<u32> {
        let operand = m.operand(at)?;
        let (register, width) = self.wide_destination(m, operand, ty)?;
        if width.size() != ty.size() {
            return Err(m.invalid(&format!("the destination has type `{width}`, expected the width of `{ty}`")));
        }
        Ok(register)
    }

    /// A destination at least as wide as `ty`, and its type.
    pub(super) fn wide_destination(&mut self, m: &Mods<'_>, operand: &Operand, ty: Type) -> Result<(u32, Type)> {
        let Operand::Name(name) = operand else {
            return Err(m.invalid("expected a register as destination"));
        };
        if name == "_" {
            return Ok((self.fresh(), ty));
        }
        match self.lookup(name) {
            Some(Symbol::Register(register, of)) if of.size() >= ty.size() => Ok((register, of)),
            Some(Symbol::Register(_, of)) => {
                Err(m.invalid(&format!("the destination `{name}` has type `{of}`, too narrow for `{ty}`")))
            }
            Some(_) => Err(m.invalid(&format!("`{name}` is not a register"))),
            None => Err(m.invalid(&format!("`{name}` is not declared"))),
        }
    }

    /// The index of a predicate register.
    pub(super) fn predicate_named(&self, name: &str) -> Result<u32> {
        match self.lookup(name) {
            Some(Symbol::Predicate(index)) => Ok(index),
            Some(_) => Err(self.error(format!("`{name}` is not a predicate"))),
            None => Err(self.error(format!("`{name}` is not declared"))),
        }
    }

    /// A predicate as a source: `p`, `!p`, or a literal.
    pub(super) fn predicate(&mut self, m: &Mods<'_>, at: usize) -> Result<Predicate> {
        match m.operand(at)? {
            Operand::Name(name) => Ok(Predicate { index: self.predicate_named(name)?, negated: false }),
            Operand::Not(name) => Ok(Predicate { index: self.predicate_named(name)?, negated: true }),
            // Predicate `u32::MAX` is always true.
            Operand::Int(value) => Ok(Predicate { index: u32::MAX, negated: *value == 0 }),
            _ => Err(m.invalid("expected a predicate")),
        }
    }

    /// A predicate as a destination; `None` for `_`.
    pub(super) fn predicate_to(&mut self, name: &str) -> Result<Option<u32>> {
        if name == "_" { Ok(None) } else { self.predicate_named(name).map(Some) }
    }

    /// A destination `d` or `d|p`.
    pub(super) fn destination_pair(&mut self, m: &Mods<'_>, ty: Type) -> Result<(u32, Option<u32>)> {
        match m.operand(0)? {
            Operand::Pair(first, second) => {
                let (to, of) = self.wide_destination(m, &Operand::Name(first.clone()), ty)?;
                if of.size() != ty.size() {
                    return Err(m.invalid(&format!("`{first}` has type `{of}`, expected the width of `{ty}`")));
                }
                Ok((to, self.predicate_to(second)?))
            }
            _ => Ok((self.destination(m, 0, ty)?, None)),
        }
    }

    /// `[a+4]`: the address within `space`, and the space that it turns out to be.
    ///
    /// A name of a variable in a generic access is its generic address; parameters of calls are local memory.
    pub(super) fn address(&mut self, m: &Mods<'_>, operand: &Operand, space: Space) -> Result<(Address, Space)> {
        let Operand::Address(base, offset) = operand else {
            return Err(m.invalid("expected an address in brackets"));
        };
        self.address_of(m, base, *offset, space)
    }

    pub(super) fn address_of(
        &mut self,
        m: &Mods<'_>,
        base: &Operand,
        offset: i64,
        space: Space,
    ) -> Result<(Address, Space)> {
        match base {
            Operand::Int(value) => Ok((Address { base: self.constant(*value), offset }, space)),
            Operand::Name(name) => match self.lookup(name) {
                Some(Symbol::Register(register, ty)) if ty.size() >= 4 => {
                    Ok((Address { base: Src(register), offset }, space))
                }
                Some(Symbol::Variable(at, address)) => {
                    let fits = at == space || space == Space::Generic || (at == Space::Local && space == Space::Param);
                    if !fits {
                        return Err(m.invalid(&format!("`{name}` is {at} memory, not {space}")));
                    }
                    let at = if at == Space::Param && space == Space::Generic { Space::Param } else { at };
                    Ok((Address { base: self.constant(address), offset }, at))
                }
                Some(Symbol::Dynamic(index)) if matches!(space, Space::Shared | Space::Generic) => {
                    Ok((Address { base: Src(index | CONSTANT), offset }, Space::Shared))
                }
                Some(_) => Err(m.invalid(&format!("`{name}` is not an address"))),
                None => Err(m.invalid(&format!("`{name}` is not declared"))),
            },
            _ => Err(m.invalid("expected a register or a variable as address")),
        }
    }

    /// The address of a variable as `mov` takes it: within its own space.
    pub(super) fn address_value(&mut self, m: &Mods<'_>, name: &str, offset: i64) -> Result<Option<Src>> {
        Ok(match self.lookup(name) {
            Some(Symbol::Variable(_, address)) => Some(self.constant(address.wrapping_add_signed(offset))),
            Some(Symbol::Dynamic(index)) if offset == 0 => Some(Src(index | CONSTANT)),
            Some(Symbol::Dynamic(_)) => {
                return Err(m.unsupported("an offset to dynamic shared memory outside of brackets"));
            }
            _ => None,
        })
    }

    pub(super) fn label(&self, name: &str) -> Result<u32> {
        match self.lookup(name) {
            Some(Symbol::Label(id)) => Ok(id),
            _ => Err(self.error(format!("`{name}` is not a label"))),
        }
    }
}

/// The bits of a type's width.
pub(crate) fn mask(ty: Type) -> u64 {
    if ty.size() >= 8 { u64::MAX } else { (1 << ty.bits()) - 1 }
}
