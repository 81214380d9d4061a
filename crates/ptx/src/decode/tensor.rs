//! Matrix instructions.
use super::Decoder;
use super::mods::Mods;
use crate::code::Action;
use crate::error::Result;

impl Decoder<'_> {
    pub(super) fn tensor(&mut self, _base: &str, m: &mut Mods<'_>) -> Result<Action> {
        Err(m.unsupported("an unknown opcode"))
    }
}
