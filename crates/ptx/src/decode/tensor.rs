//! Matrix instructions.

use super::Decoder;
use super::mods::Mods;
use crate::ast::Operand;
use crate::code::{Action, Collective, Src};
use crate::error::Result;
use crate::tensor::{LoadMatrix, Mma, StoreMatrix, Wgmma};
use crate::types::{Space, Type};

/// `m16n8k8` → 16, 8, 8.
fn shape(text: &str) -> Option<[usize; 3]> {
    let (m, rest) = text.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
}

impl Decoder<'_> {
    pub(super) fn tensor(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        let what = match base {
            "ldmatrix" | "stmatrix" => self.matrix(base, m)?,
            "mma" => self.mma(m)?,
            "wgmma" => self.wgmma(m)?,
            _ => return Err(m.unsupported("an unknown opcode; `mma.sync` and `ldmatrix` do the same")),
        };
        Ok(Action::Collective { what, mask: None, aligned: true })
    }

    fn sync_aligned(&self, m: &mut Mods<'_>) -> Result<()> {
        if m.next_is("sync") && m.next_is("aligned") {
            return Ok(());
        }
        Err(m.unsupported("expected `.sync.aligned`"))
    }

    fn parts<'b>(&self, m: &Mods<'b>, at: usize, count: usize) -> Result<&'b [Operand]> {
        let found = match m.operand(at)? {
            Operand::Vector(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        if found.len() != count {
            return Err(m.invalid(&format!("operand {} has {} parts, expected {count}", at + 1, found.len())));
        }
        Ok(found)
    }

    /// Destinations of 32 bits.
    fn targets(&mut self, m: &Mods<'_>, at: usize, count: usize) -> Result<Vec<u32>> {
        let parts = self.parts(m, at, count)?;
        parts.iter().map(|p| Ok(self.wide_destination(m, p, Type::B32)?.0)).collect()
    }

    /// Sources of 32 bits.
    fn words(&mut self, m: &Mods<'_>, at: usize, count: usize) -> Result<Vec<Src>> {
        let parts = self.parts(m, at, count)?;
        parts.iter().map(|p| self.wide_source(m, p, Type::B32)).collect()
    }

    fn matrix(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Collective> {
        self.sync_aligned(m)?;
        let load = base == "ldmatrix";
        if !m.next_is("m8n8") {
            return Err(m.unsupported("expected `.m8n8`"));
        }
        let count = match m.next()? {
            "x1" => 1,
            "x2" => 2,
            "x4" => 4,
            _ => return Err(m.unsupported("expected `.x1`, `.x2` or `.x4`")),
        };
        let transposed = m.has("trans");
        m.find(|w| w.starts_with("shared").then_some(()));
        if m.ty()? != Type::B16 {
            return Err(m.unsupported("expected `.b16`"));
        }
        m.done(2)?;
        let (at, values) = if load { (1, 0) } else { (0, 1) };
        let (address, _) = self.address(m, m.operand(at)?, Space::Shared)?;
        Ok(if load {
            Collective::LoadMatrix(LoadMatrix { to: self.targets(m, values, count)?, transposed, address })
        } else {
            Collective::StoreMatrix(StoreMatrix { from: self.words(m, values, count)?, transposed, address })
        })
    }

    fn mma(&mut self, m: &mut Mods<'_>) -> Result<Collective> {
        self.sync_aligned(m)?;
        let [rows, columns, k] = shape(m.next()?).ok_or_else(|| m.unsupported("expected a shape"))?;
        if !(m.next_is("row") && m.next_is("col")) {
            return Err(m.unsupported("expected `.row.col`"));
        }
        let saturate = m.has("satfinite");
        let (d, a, b, c) = (m.ty()?, m.ty()?, m.ty()?, m.ty()?);
        use Type::*;
        let integers = matches!(a, S8 | U8) && matches!(b, S8 | U8) && d == S32;
        let known = match (a, rows, k) {
            (F16, 16, 8 | 16) => a == b && matches!(d, F32 | F16),
            (BF16, 16, 8 | 16) => a == b && d == F32,
            (TF32, 16, 4 | 8) => a == b && d == F32,
            (S8 | U8, 16, 16 | 32) | (S8 | U8, 8, 16) => integers,
            _ => false,
        };
        if !known || columns != 8 || c != d || (saturate && !integers) {
            return Err(m.unsupported("a shape and types that are not known"));
        }
        m.done(4)?;
        // A register of a row group holds four lanes' worth of k.
        let groups = k * a.size() / 16;
        let halves = rows / 8;
        let accumulators = if d == F16 { halves } else { 2 * halves };
        Ok(Collective::Mma(Box::new(Mma {
            m: rows,
            k,
            types: [a, b, d],
            saturate,
            to: self.targets(m, 0, accumulators)?,
            a: self.words(m, 1, groups * halves)?,
            b: self.words(m, 2, groups)?,
            c: self.words(m, 3, accumulators)?,
        })))
    }

    fn wgmma(&mut self, m: &mut Mods<'_>) -> Result<Collective> {
        let how = m.next()?;
        self.sync_aligned(m)?;
        match how {
            "fence" | "commit_group" => {
                m.done(0)?;
                return Ok(if how == "fence" { Collective::WgmmaFence } else { Collective::WgmmaCommit });
            }
            "wait_group" => {
                m.done(1)?;
                let Operand::Int(count) = *m.operand(0)? else { return Err(m.invalid("expected a number")) };
                return Ok(Collective::WgmmaWait(count.min(u32::MAX as u64) as u32));
            }
            "mma_async" => {}
            _ => return Err(m.unsupported("an unknown form")),
        }
        let [rows, n, k] = shape(m.next()?).ok_or_else(|| m.unsupported("expected a shape"))?;
        let (d, a, b) = (m.ty()?, m.ty()?, m.ty()?);
        let wide = matches!((a, b), (Type::F16, Type::F16) | (Type::BF16, Type::BF16));
        let tf32 = (a, b) == (Type::TF32, Type::TF32);
        let known = (wide && k == 16) || (tf32 && k == 8);
        let accumulates = d == Type::F32 || (d == Type::F16 && a == Type::F16);
        if rows != 64 || n % 8 != 0 || !(8..=256).contains(&n) || !known || !accumulates {
            return Err(m.unsupported("a shape and types that are not known"));
        }
        m.done(if wide { 8 } else { 6 })?;
        let flag = |at: usize, values: [u64; 2]| match m.operand(at)? {
            Operand::Int(v) if *v == values[0] => Ok(false),
            Operand::Int(v) if *v == values[1] => Ok(true),
            _ => Err(m.invalid(&format!("operand {} is not one of its two numbers", at + 1))),
        };
        let negate = [flag(4, [1, u64::MAX])?, flag(5, [1, u64::MAX])?];
        let in_registers = matches!(m.operand(1)?, Operand::Vector(_));
        let transposed = match wide {
            true => [flag(6, [0, 1])?, flag(7, [0, 1])?],
            false => [false; 2],
        };
        if in_registers && transposed[0] {
            return Err(m.invalid("A in registers is not transposed"));
        }
        let a_from = if in_registers { Err(self.words(m, 1, 4)?) } else { Ok(self.source(m, 1, Type::B64)?) };
        let by = self.predicate(m, 3)?;
        let constant = by.index == u32::MAX;
        Ok(Collective::Wgmma(Box::new(Wgmma {
            n,
            k,
            types: [a, d],
            d: self.targets(m, 0, if d == Type::F16 { n / 4 } else { n / 2 })?,
            a: a_from,
            b: self.source(m, 2, Type::B64)?,
            accumulate: (!constant).then_some(by),
            never: constant && by.negated,
            negate,
            transposed,
        })))
    }
}
