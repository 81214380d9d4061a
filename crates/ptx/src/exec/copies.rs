//! Copies that threads begin and wait for in groups: they land when they are waited for, no earlier.

use super::warp::{Warp, lanes};
use super::{Block, Machine};
use crate::code::{Address, Predicate, Src};
use crate::copy::Copy;
use crate::report::FindingKind;
use crate::shadow::{Accessor, Record};
use crate::types::Space;

/// A copy of a lane that has not landed.
#[derive(Debug)]
struct Small {
    lane: usize,
    group: u32,
    to: u64,
    from: u64,
    bytes: usize,
    read: usize,
}

/// Copies of a warp.
#[derive(Debug)]
pub(crate) struct Copies {
    /// The group that each lane's next copy is part of.
    open: [u32; 32],
    pending: Vec<Small>,
    /// Access records by instruction and group.
    records: Vec<(u32, u32, u32)>,
    /// The agent of bulk copies out of shared memory, and its open group.
    pub bulk: Option<(u16, u32)>,
}

impl Default for Copies {
    fn default() -> Copies {
        Copies { open: [1; 32], pending: Vec::new(), records: Vec::new(), bulk: None }
    }
}

impl Machine<'_> {
    pub(super) fn copy(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, mask: u32, copy: &Copy) {
        match copy {
            Copy::Small { to, from, bytes, read, ignore } => {
                self.small_copy(b, warp, pc, mask, *to, *from, *bytes, *read, *ignore);
            }
            Copy::Commit => {
                for lane in lanes(mask) {
                    warp.copies.open[lane] += 1;
                }
            }
            Copy::Wait(count) => {
                if count.is_none() {
                    for lane in lanes(mask) {
                        warp.copies.open[lane] += 1;
                    }
                }
                self.wait_copies(b, warp, mask, count.unwrap_or(0));
            }
            Copy::Bulk(bulk) => self.bulk_copy(b, warp, pc, mask, bulk),
            Copy::BulkCommit => {
                if let Some((_, group)) = &mut warp.copies.bulk {
                    *group += 1;
                }
            }
            Copy::BulkWait(count) => self.wait_bulk(b, warp, *count),
        }
    }

    fn copier(&mut self, b: &Block, warp: &mut Warp, pc: u32, group: u32) -> Accessor {
        if let Some(found) = warp.copies.records.iter().rev().find(|r| (r.0, r.1) == (pc, group)) {
            return self.shadow.accessor(found.2);
        }
        let agent = b.clocks.copier(warp.index);
        let record = Record::of(b.index, agent, warp.index, group, group, pc).engine(false);
        let me = self.shadow.record(record);
        warp.copies.records.push((pc, group, me.id()));
        me
    }

    fn small_copy(
        &mut self,
        b: &mut Block,
        warp: &mut Warp,
        pc: u32,
        mask: u32,
        to: Address,
        from: Address,
        bytes: usize,
        read: Option<Src>,
        ignore: Option<Predicate>,
    ) {
        self.defined(b, warp, pc, mask, to.base);
        self.defined(b, warp, pc, mask, from.base);
        if let Some(s) = read {
            self.defined(b, warp, pc, mask, s);
        }
        let (targets, sources) = (self.addresses(warp, to), self.addresses(warp, from));
        let ignored = ignore.map_or(0, |p| self.predicate_value(b, warp, pc, mask, p));
        let wrong = self.misaligned(b, warp, pc, mask, &targets, bytes);
        if wrong || self.misaligned(b, warp, pc, mask & !ignored, &sources, bytes) {
            return;
        }
        self.report.counters.global_loads += 1;
        let mut fault = None;
        let mut reading = 0;
        for lane in lanes(mask) {
            let (to, from) = (targets[lane], sources[lane]);
            let read = match read {
                _ if ignored >> lane & 1 == 1 => 0,
                Some(s) => warp.value(self.code, s)[lane] as usize,
                None => bytes,
            };
            if read > bytes {
                let message = format!("{read} bytes are read of {bytes}");
                return self.fatal(FindingKind::InvalidOperand, b, warp, pc, Some(lane), message);
            }
            let group = warp.copies.open[lane];
            let me = self.copier(b, warp, pc, group);
            if read > 0 {
                let found = self.memory.locate(from, read).ok();
                let Some((i, at)) = found else {
                    return self.out_of_bounds(b, warp, pc, lane, Space::Global, from, read, "read");
                };
                reading |= 1 << lane;
                if self.options.checks {
                    let cells = &mut self.memory.regions[i].cells[at..at + read];
                    let found = self.shadow.read(cells, &me, lane as u32, &b.clocks);
                    fault = fault.or(found.map(|f| (lane, Space::Global, from, f, "read")));
                }
            }
            let Some(at) = b.shared.offset(to, bytes) else {
                return self.out_of_bounds(b, warp, pc, lane, Space::Shared, to, bytes, "written");
            };
            if self.options.checks {
                let cells = &mut b.shared.cells[at..at + bytes];
                let found = self.shadow.write(cells, &me, lane as u32, &b.clocks, false);
                fault = fault.or(found.map(|f| (lane, Space::Shared, to, f, "written")));
            }
            warp.copies.pending.push(Small { lane, group, to, from, bytes, read });
        }
        self.report.counters.sectors_read += super::count::sectors(&sources, reading, bytes);
        self.report.counters.global_bytes += reading.count_ones() as u64 * bytes as u64;
        if let Some((lane, space, address, fault, what)) = fault {
            self.memory_fault(b, warp, pc, lane, space, address, fault, what);
        }
    }

    /// All groups but the last `count` land.
    fn wait_copies(&mut self, b: &mut Block, warp: &mut Warp, mask: u32, count: u32) {
        let open = warp.copies.open;
        let done = |lane: usize| open[lane].saturating_sub(1 + count);
        let mut kept = Vec::new();
        for copy in std::mem::take(&mut warp.copies.pending) {
            if mask >> copy.lane & 1 == 0 || copy.group > done(copy.lane) {
                kept.push(copy);
                continue;
            }
            let mut bytes = vec![0; copy.bytes];
            if let Ok((i, at)) = self.memory.locate(copy.from, copy.read)
                && copy.read > 0
            {
                bytes[..copy.read].copy_from_slice(&self.memory.regions[i].data[at..at + copy.read]);
            }
            if let Some(at) = b.shared.offset(copy.to, copy.bytes) {
                b.shared.data[at..at + copy.bytes].copy_from_slice(&bytes);
            }
        }
        warp.copies.pending = kept;
        let known = lanes(mask).map(done).min().unwrap_or(0);
        warp.copies.records.retain(|r| r.1 > known);
        let agent = b.clocks.copier(warp.index);
        b.clocks.learn(warp.index, agent, known);
        warp.stamp += 1;
    }
}
