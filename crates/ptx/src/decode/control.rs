//! Branches, barriers and fences.

use super::Decoder;
use super::mods::Mods;
use super::symbol::Symbol;
use crate::ast::Operand;
use crate::code::{Action, Barrier, Collective, Fence};
use crate::error::Result;
use crate::types::Type;

impl Decoder<'_> {
    pub(super) fn control(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        match base {
            "bra" => {
                m.next_is("uni");
                m.done(1)?;
                let Operand::Name(label) = m.operand(0)? else { return Err(m.invalid("expected a label")) };
                Ok(Action::Branch { target: self.label(label)? })
            }
            "brx" => {
                if !m.next_is("idx") {
                    return Err(m.unsupported("expected `.idx`"));
                }
                m.next_is("uni");
                m.done(2)?;
                let index = self.source(m, 0, Type::U32)?;
                let Operand::Name(table) = m.operand(1)? else { return Err(m.invalid("expected a table")) };
                let Some(Symbol::Targets(targets)) = self.lookup(table) else {
                    return Err(m.invalid(&format!("`{table}` is not a list of targets")));
                };
                Ok(Action::BranchTable { targets, index })
            }
            "trap" => Ok(Action::Trap("the kernel executed `trap`".to_string())),
            "bar" | "barrier" => self.barrier(m),
            "membar" => {
                let device = match m.next()? {
                    "cta" => false,
                    "gl" | "sys" => true,
                    other => return Err(m.unsupported(&format!("`.{other}` is not a scope"))),
                };
                m.done(0)?;
                Ok(Action::Fence(Fence::Thread { device }))
            }
            "fence" => self.fence(m),
            "setmaxnreg" => {
                if !matches!(m.next()?, "inc" | "dec") {
                    return Err(m.unsupported("expected `.inc` or `.dec`"));
                }
                if !(m.next_is("sync") && m.next_is("aligned") && m.next_is("u32")) {
                    return Err(m.unsupported("expected `.sync.aligned.u32`"));
                }
                m.done(1)?;
                let Operand::Int(count) = *m.operand(0)? else { return Err(m.invalid("expected a number")) };
                if !(24..=256).contains(&count) || count % 8 != 0 {
                    return Err(m.invalid(&format!("expected a multiple of 8 in 24 to 256, found {count}")));
                }
                Ok(Action::Collective { what: Collective::MaxRegisters, mask: None, aligned: true })
            }
            // Without time a sleep passes at once; the other two concern tools and launches that overlap.
            _ => Ok(Action::Nothing),
        }
    }

    /// `bar.sync`, `bar.arrive`, `bar.red`, `bar.warp.sync`, and the same of `barrier`.
    fn barrier(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        if m.next_is("warp") {
            if !m.next_is("sync") {
                return Err(m.unsupported("expected `.sync`"));
            }
            m.done(1)?;
            let mask = Some(self.source(m, 0, Type::B32)?);
            return Ok(Action::Collective { what: Collective::Sync, mask, aligned: false });
        }
        m.next_is("cta");
        let how = m.next()?;
        m.has("aligned");
        let count = m.inst.operands.len();
        let (barrier, first) = match how {
            "sync" | "arrive" => {
                m.done(if how == "arrive" { 2 } else { count.clamp(1, 2) })?;
                (None, 0)
            }
            "red" => {
                let op = match m.next()? {
                    "popc" => 0u8,
                    "and" => 1,
                    "or" => 2,
                    _ => return Err(m.unsupported("an unknown reduction")),
                };
                let ty = m.ty()?;
                m.done(count.clamp(3, 4))?;
                let to = match (op, ty) {
                    (0, Type::U32) => self.destination(m, 0, ty)?,
                    (1 | 2, Type::Pred) => match m.operand(0)? {
                        Operand::Name(p) => self.predicate_named(p)?,
                        _ => return Err(m.invalid("expected a predicate as destination")),
                    },
                    _ => return Err(m.no_type(ty)),
                };
                (Some((op, to, self.predicate(m, count - 1)?)), 1)
            }
            _ => return Err(m.unsupported("an unknown barrier")),
        };
        let id = self.source(m, first, Type::U32)?;
        let last = count - barrier.is_some() as usize;
        let threads = if last > first + 1 { Some(self.source(m, first + 1, Type::U32)?) } else { None };
        let what = Collective::Barrier(Barrier { id, threads, waits: how != "arrive", reduce: barrier });
        Ok(Action::Collective { what, mask: None, aligned: true })
    }

    fn fence(&mut self, m: &mut Mods<'_>) -> Result<Action> {
        if m.next_is("proxy") {
            let proxy = m.next()?;
            if proxy.starts_with("tensormap") {
                return Err(m.unsupported("tensor maps are not changed on the device"));
            }
            let known = matches!(proxy, "async" | "async::generic" | "alias");
            if !known {
                return Err(m.unsupported(&format!("`.{proxy}` is not a proxy")));
            }
            // Which space it is about does not matter: all generic accesses before it become visible.
            return Ok(if proxy == "alias" { Action::Nothing } else { Action::Fence(Fence::Async) });
        }
        if m.next_is("mbarrier_init") {
            return Ok(Action::Fence(Fence::Async));
        }
        let strong = m.next_is("sc") || m.next_is("acq_rel") || m.next_is("acquire") || m.next_is("release");
        m.find(|w| w.starts_with("sync_restrict").then_some(()));
        let device = match m.next()? {
            "cta" | "cluster" => false,
            "gpu" | "sys" => true,
            other => return Err(m.unsupported(&format!("`.{other}` is not a scope"))),
        };
        if !strong {
            return Err(m.unsupported("expected `.sc` or `.acq_rel`"));
        }
        m.done(0)?;
        Ok(Action::Fence(Fence::Thread { device }))
    }
}
