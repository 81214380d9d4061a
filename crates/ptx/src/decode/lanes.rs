//! What lanes of a warp exchange: `shfl vote match redux activemask elect`.

use super::Decoder;
use super::mods::Mods;
use crate::ast::Operand;
use crate::code::{Action, AtomicOp, Collective, Shuffle};
use crate::error::Result;
use crate::types::Type;

impl Decoder<'_> {
    pub(super) fn exchange(&mut self, base: &str, m: &mut Mods<'_>) -> Result<Action> {
        if base == "activemask" {
            if m.ty()? != Type::B32 {
                return Err(m.unsupported("expected `.b32`"));
            }
            m.done(1)?;
            return Ok(Action::ActiveMask { to: self.destination(m, 0, Type::B32)? });
        }
        // Before sm_70 these existed without a mask.
        if !m.has("sync") {
            return Err(m.unsupported("expected `.sync`"));
        }
        let b32 = Type::B32;
        let (what, mask) = match base {
            "shfl" => {
                let mode = match m.next()? {
                    "up" => Shuffle::Up,
                    "down" => Shuffle::Down,
                    "bfly" => Shuffle::Butterfly,
                    "idx" => Shuffle::Index,
                    _ => return Err(m.unsupported("an unknown mode")),
                };
                if m.ty()? != b32 {
                    return Err(m.unsupported("expected `.b32`"));
                }
                m.done(5)?;
                let (to, valid) = self.destination_pair(m, b32)?;
                let (value, lane) = (self.source(m, 1, b32)?, self.source(m, 2, b32)?);
                let clamp = self.source(m, 3, b32)?;
                (Collective::Shuffle { mode, to, valid, value, lane, clamp }, 4)
            }
            "vote" => {
                let how = m.next()?;
                let ty = m.ty()?;
                m.done(3)?;
                let of = self.predicate(m, 1)?;
                let mode = match (how, ty) {
                    ("ballot", Type::B32) => {
                        let to = self.destination(m, 0, b32)?;
                        let mask = Some(self.source(m, 2, b32)?);
                        return Ok(Action::Collective { what: Collective::Ballot { to, of }, mask, aligned: false });
                    }
                    ("all", Type::Pred) => 0,
                    ("any", Type::Pred) => 1,
                    ("uni", Type::Pred) => 2,
                    _ => return Err(m.unsupported("an unknown vote")),
                };
                let Operand::Name(p) = m.operand(0)? else { return Err(m.invalid("expected a predicate")) };
                (Collective::Vote { mode, to: self.predicate_named(p)?, of }, 2)
            }
            "match" => {
                let all = match m.next()? {
                    "all" => true,
                    "any" => false,
                    _ => return Err(m.unsupported("expected `.all` or `.any`")),
                };
                let ty = m.ty()?;
                if !matches!(ty, Type::B32 | Type::B64) {
                    return Err(m.no_type(ty));
                }
                m.done(3)?;
                let (to, p) = self.destination_pair(m, b32)?;
                let value = self.source(m, 1, ty)?;
                (Collective::Match { to, all: all.then_some(p), value }, 2)
            }
            "redux" => {
                let op = match m.next()? {
                    "add" => AtomicOp::Add,
                    "min" => AtomicOp::Min,
                    "max" => AtomicOp::Max,
                    "and" => AtomicOp::And,
                    "or" => AtomicOp::Or,
                    "xor" => AtomicOp::Xor,
                    _ => return Err(m.unsupported("an unknown operation")),
                };
                let ty = m.ty()?;
                let logic = matches!(op, AtomicOp::And | AtomicOp::Or | AtomicOp::Xor);
                if !(if logic { ty == b32 } else { matches!(ty, Type::U32 | Type::S32) }) {
                    return Err(m.no_type(ty));
                }
                m.done(3)?;
                let to = self.destination(m, 0, ty)?;
                (Collective::Reduce { op, ty, to, value: self.source(m, 1, ty)? }, 2)
            }
            _ => {
                m.done(2)?;
                let Operand::Pair(d, p) = m.operand(0)? else { return Err(m.invalid("expected `d|p`")) };
                let (to, _) = self.wide_destination(m, &Operand::Name(d.clone()), b32)?;
                (Collective::Elect { to, leader: self.predicate_named(p)? }, 1)
            }
        };
        let mask = Some(self.source(m, mask, b32)?);
        Ok(Action::Collective { what, mask, aligned: false })
    }
}
