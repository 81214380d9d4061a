//! Mbarriers: phases that complete when all have arrived and all expected bytes have.

use super::warp::{Warp, lanes};
use super::{Block, Machine};
use crate::clock::Knowledge;
use crate::mbarrier::{Operation, What};
use crate::report::FindingKind;
use crate::types::Space;

/// Failed waits without any event in the block after which nothing can happen any more.
const IDLE: u64 = 1 << 16;

/// An mbarrier.
#[derive(Debug)]
pub(crate) struct Mbarrier {
    /// Arrivals of a phase.
    count: u32,
    /// Arrivals that this phase still lacks.
    pending: u32,
    /// Bytes that this phase still lacks.
    bytes: i64,
    pub phase: u32,
    /// What those who have arrived knew, and what was known when the last phase completed.
    gathered: Knowledge,
    complete: Knowledge,
    /// Warp and clock of the initialisation.
    pub by: (u16, u32),
    /// Who does the copies that complete here.
    pub agent: u16,
}

impl Mbarrier {
    /// Begins the next phase if this one is complete.
    fn advance(&mut self) -> bool {
        if self.pending != 0 || self.bytes != 0 {
            return false;
        }
        self.phase += 1;
        self.pending = self.count;
        let mut known = std::mem::take(&mut self.gathered);
        let agent = self.agent as usize;
        if known.view.len() <= agent {
            known.view.resize(agent + 1, 0);
        }
        // Records of copies in phase p have the clock p + 1.
        known.view[agent] = self.phase;
        self.complete.add(&known);
        true
    }
}

impl Machine<'_> {
    pub(super) fn mbarrier(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, mask: u32, o: &Operation) {
        self.defined(b, warp, pc, mask, o.address.base);
        let operand = match &o.what {
            What::Init(s) | What::Expect(s) => Some(*s),
            What::Test { of, .. } => Some(*of),
            What::Arrive { count, expect, .. } => count.or(*expect),
            What::Invalidate => None,
        };
        if let Some(s) = operand {
            self.defined(b, warp, pc, mask, s);
        }
        let values = operand.map(|s| *warp.value(self.code, s)).unwrap_or([1; 32]);
        let addresses = self.addresses(warp, o.address);
        if self.misaligned(b, warp, pc, mask, &addresses, 8) {
            return;
        }
        let (mut results, mut yes) = ([0; 32], 0u32);
        for lane in lanes(mask) {
            let (address, value) = (addresses[lane], values[lane]);
            let Some(at) = b.shared.offset(address, 8) else {
                return self.out_of_bounds(b, warp, pc, lane, Space::Shared, address, 8, "used as an mbarrier");
            };
            let plain = matches!(o.what, What::Init(_) | What::Invalidate);
            if self.options.checks && (plain || b.mbarriers.contains_key(&address)) {
                let me = self.accessor(b, warp, pc, !plain);
                let fault = self.shadow.write(&mut b.shared.cells[at..at + 8], &me, lane as u32, &b.clocks, false);
                if let Some(fault) = fault {
                    self.memory_fault(b, warp, pc, lane, Space::Shared, address, fault, "used as an mbarrier");
                }
            }
            if let What::Init(_) = o.what {
                if value == 0 || value >= 1 << 20 {
                    let message = format!("an mbarrier for {value} arrivals, expected 1 to 2^20 - 1");
                    return self.fatal(FindingKind::InvalidOperand, b, warp, pc, Some(lane), message);
                }
                let (count, agent) = (value as u32, b.clocks.agent());
                let (gathered, complete) = Default::default();
                let by = (warp.index as u16, b.clocks.views[warp.index][warp.index]);
                let fresh = Mbarrier { count, pending: count, bytes: 0, phase: 0, gathered, complete, by, agent };
                b.mbarriers.insert(address, fresh);
                continue;
            }
            let known = b.clocks.snapshot(warp.index);
            let Some(bar) = b.mbarriers.get_mut(&address) else {
                let message = format!("there is no mbarrier at {address:#x}");
                return self.fatal(FindingKind::InvalidOperand, b, warp, pc, Some(lane), message);
            };
            match &o.what {
                What::Init(_) => {}
                What::Invalidate => {
                    b.mbarriers.remove(&address);
                }
                What::Expect(_) => bar.bytes += value as i64,
                What::Arrive { expect, drop, .. } => {
                    results[lane] = bar.phase as u64;
                    let arrivals = if expect.is_some() { 1 } else { value as u32 };
                    bar.bytes += if expect.is_some() { value as i64 } else { 0 };
                    if arrivals > bar.pending {
                        let (have, count) = (bar.pending, bar.count);
                        let message = format!("{arrivals} arrivals at an mbarrier of {count} that lacks {have}");
                        return self.fatal(FindingKind::InvalidOperand, b, warp, pc, Some(lane), message);
                    }
                    bar.pending -= arrivals;
                    bar.count -= *drop as u32;
                    bar.gathered.add(&known);
                    bar.advance();
                    b.idle = 0;
                    b.clocks.tick(warp.index);
                    warp.stamp += 1;
                }
                What::Test { parity, .. } => {
                    let done = match parity {
                        true => bar.phase & 1 != value as u32 & 1,
                        false => bar.phase as u64 > value,
                    };
                    if done {
                        yes |= 1 << lane;
                        let known = bar.complete.clone();
                        b.clocks.join(warp.index, &known);
                        warp.stamp += 1;
                        continue;
                    }
                    b.idle += 1;
                    self.land_some(b, warp);
                    if b.idle > IDLE && b.bulks.is_empty() {
                        let bar = &b.mbarriers[&address];
                        let message = format!(
                            "phase {} of the mbarrier at {address:#x} is not complete: {} arrivals and {} bytes lack",
                            bar.phase, bar.pending, bar.bytes
                        );
                        return self.fatal(FindingKind::Deadlock, b, warp, pc, Some(lane), message);
                    }
                }
            }
        }
        match &o.what {
            What::Test { to, .. } => warp.set_predicate(*to, yes, mask),
            What::Arrive { to: Some(to), .. } => warp.set(*to, &results, mask),
            _ => {}
        }
    }

    /// Bytes have landed that an mbarrier counts.
    pub(super) fn bytes_arrived(&mut self, b: &mut Block, address: u64, bytes: usize) {
        b.idle = 0;
        if let Some(bar) = b.mbarriers.get_mut(&address) {
            bar.bytes -= bytes as i64;
            bar.advance();
        }
    }
}
