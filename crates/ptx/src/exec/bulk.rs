//! Bulk copies: they land at any time after they are begun, in any order.

use super::warp::{Warp, lanes};
use super::{Block, Machine};
use crate::code::Lanes;
use crate::copy::{Bulk, Global};
use crate::report::FindingKind;
use crate::shadow::{Fault, Record};
use crate::tensormap::TensorMap;
use crate::types::Space;

/// A bulk copy that has not landed.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Address in global memory, bytes valid there, address in shared memory, bytes there.
    pieces: Vec<(u64, usize, u64, usize)>,
    /// The mbarrier of a load.
    barrier: Option<u64>,
    /// Warp and group of a store.
    group: (usize, u32),
    bytes: usize,
}

impl Machine<'_> {
    pub(super) fn bulk_copy(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, mask: u32, bulk: &Bulk) {
        self.defined(b, warp, pc, mask, bulk.shared.base);
        let shared = self.addresses(warp, bulk.shared);
        let barriers = match bulk.barrier {
            Some(a) => {
                self.defined(b, warp, pc, mask, a.base);
                Some(self.addresses(warp, a))
            }
            None => None,
        };
        for lane in lanes(mask) {
            let Some(pieces) = self.pieces(b, warp, pc, lane, bulk, shared[lane]) else { return };
            self.begin_bulk(b, warp, pc, lane, bulk.store, pieces, barriers.as_ref());
            if self.report.stopped {
                return;
            }
        }
    }

    /// What is copied, piece by piece; none if an operand is wrong.
    fn pieces(
        &mut self,
        b: &mut Block,
        warp: &mut Warp,
        pc: u32,
        lane: usize,
        bulk: &Bulk,
        shared: u64,
    ) -> Option<Vec<(u64, usize, u64, usize)>> {
        let mask = 1 << lane;
        match &bulk.global {
            Global::Bytes(address, count) => {
                self.defined(b, warp, pc, mask, address.base);
                self.defined(b, warp, pc, mask, *count);
                let (address, bytes) = (self.addresses(warp, *address)[lane], warp.value(self.code, *count)[lane]);
                if !(address | shared | bytes).is_multiple_of(16) {
                    let message = format!("{bytes} bytes, {address:#x} and {shared:#x} must be multiples of 16");
                    self.fatal(FindingKind::Misaligned, b, warp, pc, Some(lane), message);
                    return None;
                }
                Some(vec![(address, bytes as usize, shared, bytes as usize)])
            }
            Global::Tensor(map, coordinates) => {
                self.defined(b, warp, pc, mask, map.base);
                let address = self.addresses(warp, *map)[lane];
                let decoded = match super::access::resolve(address) {
                    (Space::Param, at) => self.params.get(at as usize..).and_then(TensorMap::decode),
                    (Space::Const, at) => self.code.constant_bank.get(at as usize..).and_then(TensorMap::decode),
                    _ => self
                        .memory
                        .locate(address, 128)
                        .ok()
                        .and_then(|(i, at)| TensorMap::decode(&self.memory.regions[i].data[at..])),
                };
                let known = decoded.filter(|m| m.extents.len() == coordinates.len() && address.is_multiple_of(64));
                let Some(decoded) = known else {
                    let message = format!("there is no tensor map of {} dimensions at {address:#x}", coordinates.len());
                    self.fatal(FindingKind::InvalidOperand, b, warp, pc, Some(lane), message);
                    return None;
                };
                if !shared.is_multiple_of(128) {
                    let message = format!("the address {shared:#x} in shared memory is not a multiple of 128");
                    self.fatal(FindingKind::Misaligned, b, warp, pc, Some(lane), message);
                    return None;
                }
                let mut at = Vec::new();
                for &c in coordinates {
                    self.defined(b, warp, pc, mask, c);
                    at.push(warp.value(self.code, c)[lane] as u32 as i32);
                }
                Some(decoded.pieces(&at, shared).into_iter().map(|(g, valid, s)| (g, valid, s, 16)).collect())
            }
        }
    }

    fn begin_bulk(
        &mut self,
        b: &mut Block,
        warp: &mut Warp,
        pc: u32,
        lane: usize,
        store: bool,
        pieces: Vec<(u64, usize, u64, usize)>,
        barriers: Option<&Lanes>,
    ) {
        let barrier = barriers.map(|a| a[lane]);
        let (agent, clock) = match barrier {
            Some(address) => match b.mbarriers.get(&address) {
                Some(bar) => {
                    let (by, clock) = bar.by;
                    if self.options.checks && !b.clocks.knows_fenced(warp.index, by, clock) {
                        let message = "the mbarrier's initialisation is not visible to the copy: a fence is missing";
                        self.finding(FindingKind::Race, b, warp, pc, Some(lane), message.to_string(), None);
                    }
                    (bar.agent, bar.phase + 1)
                }
                None => {
                    let message = format!("there is no mbarrier at {address:#x}");
                    return self.fatal(FindingKind::InvalidOperand, b, warp, pc, Some(lane), message);
                }
            },
            None => *warp.copies.bulk.get_or_insert_with(|| (b.clocks.agent(), 1)),
        };
        let record = Record::of(b.index, agent, warp.index, clock, clock, pc).engine(true);
        let me = self.shadow.record(record);
        // Two copies of one group are told apart as lanes are.
        let part = b.bulks.len() as u32 % 32;
        let (mut fault, mut bytes): (Option<(Space, u64, Fault, &str)>, usize) = (None, 0);
        for &(global, valid, shared, length) in &pieces {
            bytes += length;
            let Some(at) = b.shared.offset(shared, length) else {
                return self.out_of_bounds(b, warp, pc, lane, Space::Shared, shared, length, "copied");
            };
            let cells = &mut b.shared.cells[at..at + length];
            let found = match store {
                true => self.shadow.read(&mut cells[..valid], &me, part, &b.clocks),
                false => self.shadow.write(cells, &me, part, &b.clocks, false),
            };
            fault = fault.or(found.map(|f| (Space::Shared, shared, f, if store { "read" } else { "written" })));
            if valid == 0 {
                continue;
            }
            let Ok((i, at)) = self.memory.locate(global, valid) else {
                return self.out_of_bounds(b, warp, pc, lane, Space::Global, global, valid, "copied");
            };
            let cells = &mut self.memory.regions[i].cells[at..at + valid];
            let found = match store {
                true => self.shadow.write(cells, &me, part, &b.clocks, false),
                false => self.shadow.read(cells, &me, part, &b.clocks),
            };
            fault = fault.or(found.map(|f| (Space::Global, global, f, if store { "written" } else { "read" })));
        }
        let sectors: u64 = pieces.iter().filter(|p| p.1 > 0).map(|p| (p.0 + p.1 as u64).div_ceil(32) - p.0 / 32).sum();
        // Neighbouring pieces share a sector.
        let shared_sectors = pieces.windows(2).filter(|w| w[0].1 == 16 && w[1].0 == w[0].0 + 16 && w[1].0 % 32 != 0);
        let sectors = sectors - shared_sectors.count() as u64;
        if store {
            self.report.counters.sectors_written += sectors;
        } else {
            self.report.counters.sectors_read += sectors;
        }
        self.report.counters.global_bytes += pieces.iter().map(|p| p.1 as u64).sum::<u64>();
        if let Some((space, address, fault, what)) = fault.filter(|_| self.options.checks) {
            self.memory_fault(b, warp, pc, lane, space, address, fault, what);
        }
        b.bulks.push(Pending { pieces, barrier, group: (warp.index, clock), bytes });
    }

    fn land(&mut self, b: &mut Block, index: usize) {
        let copy = b.bulks.swap_remove(index);
        for &(global, valid, shared, length) in &copy.pieces {
            let Some(at) = b.shared.offset(shared, length) else { continue };
            let found = self.memory.locate(global, valid).ok().filter(|_| valid > 0);
            match (copy.barrier, found) {
                (None, Some((i, to))) => {
                    self.memory.regions[i].data[to..to + valid].copy_from_slice(&b.shared.data[at..at + valid]);
                }
                (Some(_), found) => {
                    b.shared.data[at..at + length].fill(0);
                    if let Some((i, from)) = found {
                        b.shared.data[at..at + valid].copy_from_slice(&self.memory.regions[i].data[from..from + valid]);
                    }
                }
                _ => {}
            }
        }
        if let Some(address) = copy.barrier {
            self.bytes_arrived(b, address, copy.bytes);
        }
    }

    /// A warp waits in vain: perhaps a copy lands.
    pub(super) fn land_some(&mut self, b: &mut Block, _warp: &Warp) {
        let loads: Vec<usize> = (0..b.bulks.len()).filter(|&i| b.bulks[i].barrier.is_some()).collect();
        let r = self.random();
        if !loads.is_empty() && r & 3 == 0 {
            self.land(b, loads[(r >> 32) as usize % loads.len()]);
        }
    }

    /// All bulk groups of the warp but the last `count` land.
    pub(super) fn wait_bulk(&mut self, b: &mut Block, warp: &mut Warp, count: u32) {
        let Some((agent, open)) = warp.copies.bulk else { return };
        let done = open.saturating_sub(1 + count);
        let mut i = 0;
        while i < b.bulks.len() {
            let copy = &b.bulks[i];
            if copy.barrier.is_none() && copy.group.0 == warp.index && copy.group.1 <= done {
                self.land(b, i);
            } else {
                i += 1;
            }
        }
        b.clocks.learn(warp.index, agent, done);
        warp.stamp += 1;
    }

    /// A block has ended: nothing may still be copied into or out of its shared memory.
    pub(super) fn finish(&mut self, b: &mut Block) {
        if b.bulks.is_empty() {
            return;
        }
        let warp = std::mem::take(&mut b.warps[b.bulks[0].group.0]);
        let pc = self.code.insts.len() as u32 - 1;
        let message = format!("the block has ended, but {} bulk copies were not waited for", b.bulks.len());
        self.finding(FindingKind::InFlight, b, &warp, pc, None, message, None);
        let index = b.bulks[0].group.0;
        b.warps[index] = warp;
        while !b.bulks.is_empty() {
            self.land(b, 0);
        }
    }
}
