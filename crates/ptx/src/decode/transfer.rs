//! Asynchronous copies and mbarriers.

use super::Decoder;
use super::mods::Mods;
use crate::ast::Operand;
use crate::code::{Action, Address, Src};
use crate::copy::{Bulk, Copy, Global};
use crate::error::Result;
use crate::mbarrier::{Operation, What};
use crate::types::{Space, Type};

impl Decoder<'_> {
    pub(super) fn transfer(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        if base == "mbarrier" {
            return self.mbarrier(m);
        }
        if !m.next_is("async") {
            return Err(m.unsupported("expected `.async`"));
        }
        let copy = match m.peek() {
            Some("bulk") => {
                m.next()?;
                return self.bulk(m);
            }
            Some("commit_group") => {
                m.next()?;
                m.done(0)?;
                Copy::Commit
            }
            Some("wait_all") => {
                m.next()?;
                m.done(0)?;
                Copy::Wait(None)
            }
            Some("wait_group") => {
                m.next()?;
                m.done(1)?;
                Copy::Wait(Some(self.number(m, 0)?))
            }
            _ => return self.small_copy(m),
        };
        Ok(Action::Copy(copy))
    }

    fn number(&self, m: &Mods<'_>, at: usize) -> Result<u32> {
        match m.operand(at)? {
            Operand::Int(v) => Ok((*v).min(u32::MAX as u64) as u32),
            _ => Err(m.invalid("expected a number")),
        }
    }

    /// `cp.async.ca.shared.global [to], [from], 16{, bytes to read}`.
    fn small_copy(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        let all = m.next_is("ca");
        if !all && !m.next_is("cg") {
            return Err(m.unsupported("expected `.ca` or `.cg`"));
        }
        m.find(|w| w.starts_with("shared").then_some(()));
        if !m.next_is("global") {
            return Err(m.unsupported("expected `.shared.global`"));
        }
        while m.find(|w| w.starts_with("L2::").then_some(())).is_some() {}
        let operands = m.inst.operands.len();
        m.done(operands.clamp(3, 4))?;
        let (to, _) = self.address(m, m.operand(0)?, Space::Shared)?;
        let (from, _) = self.address(m, m.operand(1)?, Space::Global)?;
        let bytes = self.number(m, 2)? as usize;
        if !(bytes == 16 || (all && matches!(bytes, 4 | 8))) {
            return Err(m.invalid(&format!("{bytes} bytes are copied, expected 4, 8 or 16 (`.cg`: 16)")));
        }
        let (mut read, mut ignore) = (None, None);
        if operands == 4 {
            let predicate = match m.operand(3)? {
                Operand::Name(n) => self.predicate_named(n).is_ok(),
                Operand::Not(_) => true,
                _ => false,
            };
            if predicate {
                ignore = Some(self.predicate(m, 3)?);
            } else {
                read = Some(self.source(m, 3, Type::U32)?);
            }
        }
        Ok(Action::Copy(Copy::Small { to, from, bytes, read, ignore }))
    }

    fn bulk(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        if m.next_is("commit_group") {
            m.done(0)?;
            return Ok(Action::Copy(Copy::BulkCommit));
        }
        if m.next_is("wait_group") {
            // Reading done, or all done: here both are the same moment.
            m.next_is("read");
            m.done(1)?;
            return Ok(Action::Copy(Copy::BulkWait(self.number(m, 0)?)));
        }
        if m.next_is("prefetch") {
            return Ok(Action::Nothing);
        }
        let tensor = m.next_is("tensor");
        let rank = match tensor {
            true => {
                m.find(|w| w.strip_suffix('d').and_then(|r| r.parse::<usize>().ok()).filter(|r| (1..=5).contains(r)))
            }
            false => None,
        };
        let (to, from) = (m.next()?, m.next()?);
        let store = match (to, from) {
            ("shared::cluster" | "shared::cta", "global") => false,
            ("global", "shared::cta") => true,
            _ => return Err(m.unsupported("expected a copy between global and the block's shared memory")),
        };
        m.has("tile");
        if m.has("multicast::cluster") {
            return Err(m.unsupported("clusters are not"));
        }
        let counted = m.has("mbarrier::complete_tx::bytes");
        if counted == store || (store && !m.has("bulk_group")) {
            return Err(m.unsupported("a load completes on an mbarrier, a store in a bulk group"));
        }
        let hint = m.has("L2::cache_hint") as usize;
        let base = 2 + !tensor as usize + !store as usize;
        m.done(base + hint)?;
        let (global_at, shared_at) = if store { (0, 1) } else { (1, 0) };
        let (shared, _) = self.address(m, m.operand(shared_at)?, Space::Shared)?;
        let global = match m.operand(global_at)? {
            Operand::Tensor(parts) if tensor => {
                let [map, Operand::Vector(coordinates)] = parts.as_slice() else {
                    return Err(m.unsupported("expected a map and coordinates"));
                };
                if Some(coordinates.len()) != rank {
                    return Err(m.invalid("as many coordinates as dimensions are expected"));
                }
                let (map, _) = self.address_of(m, map, 0, Space::Generic)?;
                let c = coordinates.iter().map(|c| self.wide_source(m, c, Type::B32)).collect::<Result<Vec<Src>>>()?;
                Global::Tensor(map, c)
            }
            operand if !tensor => {
                let (address, _) = self.address(m, operand, Space::Global)?;
                Global::Bytes(address, self.source(m, 2, Type::U32)?)
            }
            _ => return Err(m.invalid("expected a tensor map with coordinates")),
        };
        let barrier = match store {
            true => None,
            false => Some(self.address(m, m.operand(base - 1)?, Space::Shared)?.0),
        };
        Ok(Action::Copy(Copy::Bulk(Box::new(Bulk { store, shared, global, barrier }))))
    }

    fn mbarrier(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        let how = m.next()?;
        let expects = m.next_is("expect_tx");
        let parity = m.has("parity");
        let no_complete = m.has("noComplete");
        // Semantics and scope: an arrival releases and a wait acquires, within the block, unless it is relaxed.
        m.find(|w| matches!(w, "release" | "acquire").then_some(()));
        if m.has("relaxed") && how != "expect_tx" {
            return Err(m.unsupported("relaxed operations are not"));
        }
        m.find(|w| matches!(w, "cta" | "cluster").then_some(()));
        let space = match m.find(|w| w.starts_with("shared").then_some(())) {
            Some(()) => Space::Shared,
            None => return Err(m.unsupported("expected `.shared`")),
        };
        if !m.next_is("b64") || no_complete {
            return Err(m.unsupported("an unknown form"));
        }
        let operands = m.inst.operands.len();
        let address_at = |d: &mut Self, at: usize| -> Result<Address> { Ok(d.address(m, m.operand(at)?, space)?.0) };
        let (address, what) = match how {
            "init" => {
                let address = address_at(self, 0)?;
                m.done(2)?;
                (address, What::Init(self.source(m, 1, Type::U32)?))
            }
            "inval" => {
                m.done(1)?;
                (address_at(self, 0)?, What::Invalidate)
            }
            "expect_tx" => {
                m.done(2)?;
                (address_at(self, 0)?, What::Expect(self.source(m, 1, Type::U32)?))
            }
            "arrive" | "arrive_drop" => {
                m.done(operands.clamp(2, 3))?;
                let to = match m.operand(0)? {
                    Operand::Name(n) if n == "_" => None,
                    _ => Some(self.destination(m, 0, Type::B64)?),
                };
                let address = address_at(self, 1)?;
                let last = if operands == 3 { Some(self.source(m, 2, Type::U32)?) } else { None };
                let (count, expect) = if expects { (None, last) } else { (last, None) };
                (address, What::Arrive { count, expect, to, drop: how == "arrive_drop" })
            }
            "test_wait" | "try_wait" => {
                m.done(operands.clamp(3, 4))?;
                let Operand::Name(p) = m.operand(0)? else { return Err(m.invalid("expected a predicate")) };
                let to = self.predicate_named(p)?;
                let address = address_at(self, 1)?;
                let of = self.source(m, 2, if parity { Type::U32 } else { Type::B64 })?;
                (address, What::Test { to, of, parity })
            }
            _ => return Err(m.unsupported("an unknown operation")),
        };
        Ok(Action::Mbarrier(Operation { address, what }))
    }
}
