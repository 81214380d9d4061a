//! Findings, with the places they are about.

use super::warp::{State, Warp};
use super::{Block, Machine};
use crate::code::Src;
use crate::report::{Finding, FindingKind, Place};
use crate::shadow::Record;

impl Machine<'_> {
    pub(super) fn place(&self, block: [u32; 3], warp: u32, pc: u32, lane: Option<u32>) -> Place {
        let line = &self.code.lines[(pc as usize).min(self.code.lines.len() - 1)];
        let file = self.code.files.iter().find(|f| f.0 == line.loc.file);
        Place {
            block,
            warp,
            lane,
            ptx_line: line.ptx,
            source: file.map(|f| (f.1.clone(), line.loc.line)),
            opcode: line.opcode.clone(),
        }
    }

    /// The place of an access record.
    pub(super) fn place_of(&self, b: &Block, r: &Record, lane: Option<u32>) -> Place {
        let [x, y, _] = self.grid;
        let block = if r.block == b.index { b.ctaid } else { [r.block % x, r.block / x % y, r.block / (x * y)] };
        self.place(block, r.warp as u32, r.pc, lane)
    }

    /// Reports a fault, once for its kind and instruction.
    pub(super) fn finding(
        &mut self,
        kind: FindingKind,
        b: &Block,
        warp: &Warp,
        pc: u32,
        lane: Option<usize>,
        message: String,
        other: Option<Place>,
    ) {
        if !self.reported.insert((kind, pc)) || self.report.findings.len() >= self.options.max_findings {
            return;
        }
        let at = self.place(b.ctaid, warp.index as u32, pc, lane.map(|l| l as u32));
        self.report.findings.push(Finding { kind, message, at, other });
    }

    /// Reports a fault that ends the kernel.
    pub(super) fn fatal(
        &mut self,
        kind: FindingKind,
        b: &Block,
        warp: &Warp,
        pc: u32,
        lane: Option<usize>,
        message: String,
    ) {
        self.finding(kind, b, warp, pc, lane, message, None);
        self.report.stopped = true;
    }

    /// Checks that a source has a value in all lanes of `mask`.
    #[inline(always)]
    pub(super) fn defined(&mut self, b: &Block, warp: &mut Warp, pc: u32, mask: u32, s: Src) {
        let missing = warp.undefined(s, mask);
        if missing != 0 {
            self.undefined(b, warp, pc, missing, s);
        }
    }

    #[cold]
    fn undefined(&mut self, b: &Block, warp: &mut Warp, pc: u32, missing: u32, s: Src) {
        let lane = missing.trailing_zeros() as usize;
        if warp.in_flight.contains_key(&s.0) {
            let message = "a register is read that a tensor unit still writes: wait for its group first".to_string();
            return self.finding(FindingKind::InFlight, b, warp, pc, Some(lane), message, None);
        }
        let message = "a register is read that was never written".to_string();
        self.finding(FindingKind::UninitialisedRegister, b, warp, pc, Some(lane), message, None);
    }

    #[cold]
    pub(super) fn undefined_predicate(&mut self, b: &Block, warp: &Warp, pc: u32, missing: u32) {
        let lane = missing.trailing_zeros() as usize;
        let message = "a predicate is read that was never written".to_string();
        self.finding(FindingKind::UninitialisedRegister, b, warp, pc, Some(lane), message, None);
    }

    /// No warp of the block can go on: says who waits for what.
    #[cold]
    pub(super) fn stuck(&mut self, b: &mut Block) {
        // Lanes that wait within a warp are the cause; warps at a barrier wait for them.
        let within = b.warps.iter().position(|w| w.waiting & w.live != 0);
        let at_barrier = b.warps.iter().position(|w| matches!(w.state, Some(State::Barrier(_))));
        let index = within.or(at_barrier).or_else(|| b.warps.iter().position(|w| w.live != 0)).unwrap_or(0);
        let warp = std::mem::take(&mut b.warps[index]);
        if within.is_some() {
            let waiting = warp.waiting & warp.live;
            let lane = waiting.trailing_zeros() as usize;
            let others = warp.live & !waiting;
            let message = format!(
                "lanes {waiting:#010x} wait for others of their mask; {}",
                if others != 0 {
                    format!("lanes {others:#010x} are elsewhere")
                } else if warp.live != u32::MAX && waiting == warp.live {
                    "they wait at different instructions, or for lanes that have exited".to_string()
                } else {
                    "they wait at different instructions".to_string()
                }
            );
            self.fatal(FindingKind::Divergence, b, &warp, warp.pc[lane], Some(lane), message);
            return;
        }
        let message = match warp.state {
            Some(State::Barrier(id)) => {
                let barrier = &b.barriers[id as usize];
                let arrived: Vec<usize> = barrier.arrived.iter().map(|a| a.warp).collect();
                format!("warps {arrived:?} wait at barrier {id} for others that do not come")
            }
            Some(State::Group) => "the other warps of the group do not execute it".to_string(),
            _ => "no thread of the block can go on".to_string(),
        };
        let pc = warp.pc[warp.live.trailing_zeros() as usize & 31];
        self.fatal(FindingKind::Deadlock, b, &warp, pc, None, message);
    }
}
