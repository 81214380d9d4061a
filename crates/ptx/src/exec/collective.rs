//! Instructions at which lanes meet, and barriers at which warps do.

use super::warp::{State, Warp, lanes};
use super::{BarrierState, Block, Machine};
use crate::clock::Knowledge;
use crate::code::{Action, Barrier, Collective, Src};
use crate::report::FindingKind;

/// A warp that has arrived at a barrier.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub warp: usize,
    /// Whether it waits there.
    waits: bool,
    /// `bar.red`: operation, destination, lanes.
    reduce: Option<(u8, u32, u32)>,
}

impl Machine<'_> {
    /// Lanes `exec` arrive; those whose mask is complete go on.
    pub(super) fn collective(
        &mut self,
        b: &mut Block,
        warp: &mut Warp,
        pc: u32,
        exec: u32,
        what: &Collective,
        members: Option<Src>,
        aligned: bool,
    ) {
        if let Some(s) = members {
            self.defined(b, warp, pc, exec, s);
        }
        warp.waiting |= exec;
        // A warp barrier may be reached at different instructions; anything else is one instruction.
        let meets = |m: &Self, warp: &Warp, lane: usize| {
            let at = warp.pc[lane];
            at == pc || (matches!(what, Collective::Sync) && m.sync_mask(at).is_some())
        };
        let mut here = lanes(warp.waiting & warp.live).filter(|&l| meets(self, warp, l)).fold(0u32, |m, l| m | 1 << l);
        while here != 0 {
            let first = here.trailing_zeros() as usize;
            let mask_of = |m: &Self, warp: &Warp, lane: usize| match members {
                None => warp.live,
                Some(s) => {
                    let s = m.sync_mask(warp.pc[lane]).unwrap_or(s);
                    warp.value(m.code, s)[lane] as u32
                }
            };
            let mask = mask_of(self, warp, first);
            let group = lanes(here).filter(|&l| mask_of(self, warp, l) == mask).fold(0u32, |m, l| m | 1 << l);
            here &= !group;
            if group & !mask != 0 {
                let lane = (group & !mask).trailing_zeros() as usize;
                let message = format!("the lane is not in its own mask {mask:#010x}");
                return self.fatal(FindingKind::Divergence, b, warp, warp.pc[lane], Some(lane), message);
            }
            if mask & warp.live & !group != 0 {
                continue;
            }
            warp.waiting &= !group;
            for lane in lanes(group) {
                warp.pc[lane] += 1;
            }
            if aligned && group != warp.live {
                let message = format!("all lanes must execute it together, but only {group:#010x} do");
                self.finding(FindingKind::Divergence, b, warp, pc, None, message, None);
            }
            self.perform(b, warp, pc, group, what);
        }
    }

    /// The mask operand of a warp barrier at this instruction.
    fn sync_mask(&self, pc: u32) -> Option<Src> {
        match &self.code.insts[pc as usize].action {
            Action::Collective { what: Collective::Sync, mask, .. } => *mask,
            _ => None,
        }
    }

    fn perform(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, group: u32, what: &Collective) {
        match what {
            Collective::Sync => {
                warp.phase += 1;
                warp.stamp += 1;
            }
            Collective::Barrier(barrier) => self.arrive(b, warp, pc, group, barrier),
            Collective::Shuffle { .. }
            | Collective::Vote { .. }
            | Collective::Ballot { .. }
            | Collective::Match { .. }
            | Collective::Reduce { .. }
            | Collective::Elect { .. } => self.exchange(b, warp, pc, group, what),
            _ => self.matrices(b, warp, pc, group, what),
        }
    }

    fn arrive(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, group: u32, barrier: &Barrier) {
        self.report.counters.barriers += 1;
        self.defined(b, warp, pc, group, barrier.id);
        let first = group.trailing_zeros() as usize;
        let uniform = |m: &Self, warp: &Warp, s: Src| {
            let value = warp.value(m.code, s);
            lanes(group).all(|l| value[l] == value[first]).then_some(value[first] as u32)
        };
        let id = uniform(self, warp, barrier.id).filter(|&id| id < 16);
        let threads = match barrier.threads {
            Some(s) => {
                self.defined(b, warp, pc, group, s);
                uniform(self, warp, s).filter(|&t| t > 0 && t % 32 == 0).map(Some)
            }
            None => Some(None),
        };
        let (Some(id), Some(threads)) = (id, threads) else {
            let message =
                "expected a barrier below 16 and a multiple of 32 threads, the same for all lanes".to_string();
            return self.fatal(FindingKind::InvalidOperand, b, warp, pc, Some(first), message);
        };
        let mut reduce = None;
        if let Some((op, to, of)) = barrier.reduce {
            let value = self.predicate_value(b, warp, pc, group, of) & group;
            let state = &mut b.barriers[id as usize];
            state.reduced.0 += value.count_ones();
            state.reduced.1 &= value == group;
            state.reduced.2 |= value != 0;
            reduce = Some((op, to, group));
        }
        let known = b.clocks.snapshot(warp.index);
        b.clocks.tick(warp.index);
        warp.stamp += 1;
        let state = &mut b.barriers[id as usize];
        if !state.arrived.is_empty() && state.threads != threads {
            let message = format!("barrier {id} is given {threads:?} threads here, and {:?} elsewhere", state.threads);
            return self.fatal(FindingKind::InvalidOperand, b, warp, pc, None, message);
        }
        state.threads = threads;
        state.knowledge.add(&known);
        state.arrived.push(Arrival { warp: warp.index, waits: barrier.waits, reduce });
        if barrier.waits {
            warp.state = Some(State::Barrier(id));
        }
        if self.complete(b, warp, id) {
            self.release(b, warp, id);
        }
    }

    /// Whether all who take part have arrived.
    fn complete(&self, b: &Block, warp: &Warp, id: u32) -> bool {
        let state = &b.barriers[id as usize];
        match state.threads {
            Some(threads) => state.arrived.len() as u32 * 32 >= threads,
            None => {
                let arrived = |w: usize| state.arrived.iter().any(|a| a.warp == w);
                let mut others = b.warps.iter().enumerate().filter(|(i, w)| *i != warp.index && w.live != 0);
                !state.arrived.is_empty() && (warp.live == 0 || arrived(warp.index)) && others.all(|(i, _)| arrived(i))
            }
        }
    }

    fn release(&mut self, b: &mut Block, warp: &mut Warp, id: u32) {
        let fresh = BarrierState { reduced: (0, true, false), ..Default::default() };
        let state = std::mem::replace(&mut b.barriers[id as usize], fresh);
        b.idle = 0;
        for arrival in state.arrived.iter().filter(|a| a.waits) {
            let one = if arrival.warp == warp.index { &mut *warp } else { &mut b.warps[arrival.warp] };
            one.state = Some(State::Ready);
            one.phase += 1;
            one.stamp += 1;
            match arrival.reduce {
                Some((0, to, mask)) => one.set(to, &[state.reduced.0 as u64; 32], mask),
                Some((1, to, mask)) => one.set_predicate(to, if state.reduced.1 { u32::MAX } else { 0 }, mask),
                Some((_, to, mask)) => one.set_predicate(to, if state.reduced.2 { u32::MAX } else { 0 }, mask),
                None => {}
            }
            join(b, arrival.warp, &state.knowledge);
        }
    }

    /// A warp has ended: barriers that only waited for it open.
    pub(super) fn release_complete(&mut self, b: &mut Block, warp: &mut Warp) {
        for id in 0..16 {
            if b.barriers[id as usize].threads.is_none() && self.complete(b, warp, id) {
                self.release(b, warp, id);
            }
        }
    }
}

fn join(b: &mut Block, warp: usize, known: &Knowledge) {
    b.clocks.join(warp, known);
}
