//! Loads and stores with all their checks.

use super::warp::{Warp, lanes};
use super::{Block, Machine, count};
use crate::code::{Access, Address, Lanes};
use crate::decode::{CONST_WINDOW, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW};
use crate::memory::{self, Memory, Region};
use crate::report::FindingKind;
use crate::shadow::{Accessor, Fault};
use crate::types::Space;

/// The space of a generic address, and the address within it.
#[inline]
pub(crate) fn resolve(address: u64) -> (Space, u64) {
    for (space, start) in [
        (Space::Shared, SHARED_WINDOW),
        (Space::Local, LOCAL_WINDOW),
        (Space::Param, PARAM_WINDOW),
        (Space::Const, CONST_WINDOW),
    ] {
        let inside = address.wrapping_sub(start);
        if inside < WINDOW {
            return (space, inside);
        }
    }
    (Space::Global, address)
}

/// The memory that an address is in, and where in it; `last` is the allocation that another lane found.
#[inline(always)]
pub(super) fn reach<'r>(
    memory: &'r mut Memory,
    shared: &'r mut Region,
    last: &mut usize,
    is_shared: bool,
    address: u64,
    bytes: usize,
) -> Option<(&'r mut Region, usize)> {
    if is_shared {
        let offset = shared.offset(address, bytes)?;
        return Some((shared, offset));
    }
    if memory.regions.get(*last).is_none_or(|region| region.offset(address, bytes).is_none()) {
        *last = memory.find(address)?;
    }
    let region = memory.regions.get_mut(*last)?;
    let offset = region.offset(address, bytes)?;
    Some((region, offset))
}

/// A loaded element as its register has it.
#[inline(always)]
fn extended(value: u64, a: &Access) -> u64 {
    let up = 64 - 8 * a.size.min(8) as u32;
    if a.signed { ((value << up) as i64 >> up) as u64 } else { value }
}

impl Machine<'_> {
    /// Each lane's address.
    #[inline]
    pub(super) fn addresses(&self, warp: &Warp, a: Address) -> Lanes {
        let mut out = *warp.value(self.code, a.base);
        for v in &mut out {
            *v = v.wrapping_add_signed(a.offset);
        }
        out
    }

    /// Divides generic accesses by space; `f` is called for each with the addresses within it.
    #[inline]
    pub(super) fn by_space(
        &mut self,
        mask: u32,
        space: Space,
        addresses: Lanes,
        mut f: impl FnMut(&mut Self, u32, Space, &Lanes),
    ) {
        if space != Space::Generic {
            return f(self, mask, space, &addresses);
        }
        let mut left = mask;
        while left != 0 {
            let (space, _) = resolve(addresses[left.trailing_zeros() as usize]);
            let (mut part, mut within) = (0, addresses);
            for lane in lanes(left) {
                let (other, address) = resolve(addresses[lane]);
                if other == space {
                    part |= 1 << lane;
                    within[lane] = address;
                }
            }
            left &= !part;
            f(self, part, space, &within);
        }
    }

    pub(super) fn load(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, mask: u32, a: &Access) {
        self.defined(b, warp, pc, mask, a.address.base);
        let addresses = self.addresses(warp, a.address);
        self.by_space(mask, a.space, addresses, |m, mask, space, addresses| {
            m.load_from(b, warp, pc, mask, a, space, addresses);
        });
        if a.order.strong {
            self.acquired(b, warp, &addresses, mask, a.order);
        }
    }

    fn load_from(
        &mut self,
        b: &mut Block,
        warp: &mut Warp,
        pc: u32,
        mask: u32,
        a: &Access,
        space: Space,
        addresses: &Lanes,
    ) {
        let bytes = a.size * a.to.len();
        if self.misaligned(b, warp, pc, mask, addresses, bytes) {
            return;
        }
        let me = self.announce(b, warp, pc, mask, a, space, addresses, bytes);
        let (mut at, mut fault) = (usize::MAX, None);
        // Of lanes that read one address two are looked at: the second stands for all others.
        let one = me.is_some() && mask.count_ones() > 2 && count::same(addresses, mask);
        let first = mask & mask.wrapping_neg();
        let rest = mask & !first;
        for lane in lanes(if one { first | rest & rest.wrapping_neg() } else { mask }) {
            let address = addresses[lane];
            let (data, found) = match space {
                Space::Global | Space::Shared => {
                    let Some((region, offset)) =
                        reach(self.memory, &mut b.shared, &mut at, space == Space::Shared, address, bytes)
                    else {
                        return self.out_of_bounds(b, warp, pc, lane, space, address, bytes, "read");
                    };
                    let cells = &mut region.cells[offset..offset + bytes];
                    let found = match &me {
                        Some(me) if self.options.checks => self.shadow.read(cells, me, lane as u32, &b.clocks),
                        _ => None,
                    };
                    (&region.data[offset..offset + bytes], found)
                }
                Space::Local => {
                    let Some(offset) = warp.local_offset(address, bytes, lane) else {
                        return self.out_of_bounds(b, warp, pc, lane, space, address, bytes, "read");
                    };
                    let unwritten = warp.local_written[offset..offset + bytes].contains(&false);
                    (&warp.local[offset..offset + bytes], unwritten.then_some(Fault::Uninitialised))
                }
                _ => {
                    let all = if space == Space::Const { &self.code.constant_bank } else { &self.params };
                    // Below the first constant there is nothing.
                    let low = space == Space::Const && address < 64;
                    let end = (address as usize).checked_add(bytes).filter(|&end| !low && end <= all.len());
                    let Some(end) = end else {
                        return self.out_of_bounds(b, warp, pc, lane, space, address, bytes, "read");
                    };
                    (&all[end - bytes..end], None)
                }
            };
            fault = fault.or(found.map(|found| (lane, found)));
            for (part, &(to, keep)) in data.chunks_exact(a.size).zip(&a.to) {
                warp.registers[to as usize][lane] = extended(memory::read(part, a.size), a) & keep;
            }
        }
        for &(to, _) in &a.to {
            if one {
                let register = &mut warp.registers[to as usize];
                let value = register[first.trailing_zeros() as usize];
                lanes(mask).for_each(|lane| register[lane] = value);
            }
            warp.defined[to as usize] |= mask;
        }
        if let Some((lane, fault)) = fault {
            self.memory_fault(b, warp, pc, lane, space, addresses[lane], fault, "read");
        }
    }

    pub(super) fn store(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, mask: u32, a: &Access) {
        self.defined(b, warp, pc, mask, a.address.base);
        for &s in &a.from {
            self.defined(b, warp, pc, mask, s);
        }
        let addresses = self.addresses(warp, a.address);
        if a.order.strong {
            self.publish(b, warp, &addresses, mask, a.order);
        }
        self.by_space(mask, a.space, addresses, |m, mask, space, addresses| {
            m.store_to(b, warp, pc, mask, a, space, addresses);
        });
    }

    fn store_to(
        &mut self,
        b: &mut Block,
        warp: &mut Warp,
        pc: u32,
        mask: u32,
        a: &Access,
        space: Space,
        addresses: &Lanes,
    ) {
        let bytes = a.size * a.from.len();
        if self.misaligned(b, warp, pc, mask, addresses, bytes) {
            return;
        }
        let me = self.announce(b, warp, pc, mask, a, space, addresses, bytes);
        let (mut at, mut fault, mut room) = (usize::MAX, None, [0u8; 32]);
        for lane in lanes(mask) {
            let address = addresses[lane];
            for (part, &s) in room.chunks_exact_mut(a.size).zip(&a.from) {
                memory::write(part, a.size, warp.value(self.code, s)[lane]);
            }
            let values = &room[..bytes];
            match (space, &me) {
                (Space::Local, _) => {
                    let Some(offset) = warp.local_offset(address, bytes, lane) else {
                        return self.out_of_bounds(b, warp, pc, lane, space, address, bytes, "written");
                    };
                    warp.local[offset..offset + bytes].copy_from_slice(values);
                    warp.local_written[offset..offset + bytes].fill(true);
                }
                (_, Some(me)) => {
                    let Some((region, offset)) =
                        reach(self.memory, &mut b.shared, &mut at, space == Space::Shared, address, bytes)
                    else {
                        return self.out_of_bounds(b, warp, pc, lane, space, address, bytes, "written");
                    };
                    let data = &mut region.data[offset..offset + bytes];
                    if self.options.checks {
                        let cells = &mut region.cells[offset..offset + bytes];
                        let found = self.shadow.write(cells, me, lane as u32, &b.clocks, data == values);
                        fault = fault.or(found.map(|found| (lane, found)));
                    }
                    data.copy_from_slice(values);
                }
                // Nothing else can be written.
                _ => return self.out_of_bounds(b, warp, pc, lane, space, address, bytes, "written"),
            }
        }
        if let Some((lane, fault)) = fault {
            self.memory_fault(b, warp, pc, lane, space, addresses[lane], fault, "written");
        }
    }

    /// Counts a load or store of memory that others see, and names who does it.
    #[inline]
    fn announce(
        &mut self,
        b: &Block,
        warp: &mut Warp,
        pc: u32,
        mask: u32,
        a: &Access,
        space: Space,
        addresses: &Lanes,
        bytes: usize,
    ) -> Option<Accessor> {
        match space {
            Space::Global => {
                let counters = &mut self.report.counters;
                let (accesses, sectors) = match a.to.is_empty() {
                    false => (&mut counters.global_loads, &mut counters.sectors_read),
                    true => (&mut counters.global_stores, &mut counters.sectors_written),
                };
                *accesses += 1;
                *sectors += count::sectors(addresses, mask, bytes);
                counters.global_bytes += mask.count_ones() as u64 * bytes as u64;
            }
            Space::Shared => self.count_shared(addresses, mask, bytes),
            _ => return None,
        }
        Some(self.accessor(b, warp, pc, a.order.strong))
    }

    pub(super) fn count_shared(&mut self, addresses: &Lanes, mask: u32, bytes: usize) {
        let (total, least) = count::passes(addresses, mask, bytes);
        self.report.counters.shared_passes += total;
        self.report.counters.bank_conflicts += total - least;
    }

    /// Reports the first lane whose address is not a multiple of the access's size.
    pub(super) fn misaligned(
        &mut self,
        b: &Block,
        warp: &Warp,
        pc: u32,
        mask: u32,
        addresses: &Lanes,
        bytes: usize,
    ) -> bool {
        let low = bytes as u64 - 1;
        let all = (0..32).fold(0, |m, i| m | ((addresses[i] & low != 0) as u32) << i) & mask;
        if all == 0 {
            return false;
        }
        let lane = all.trailing_zeros() as usize;
        let message = format!("the address {:#x} is not a multiple of {bytes}", addresses[lane]);
        self.fatal(FindingKind::Misaligned, b, warp, pc, Some(lane), message);
        true
    }

    #[cold]
    pub(super) fn out_of_bounds(
        &mut self,
        b: &Block,
        warp: &Warp,
        pc: u32,
        lane: usize,
        space: Space,
        address: u64,
        bytes: usize,
        what: &str,
    ) {
        let there = match space {
            Space::Global => self.memory.describe(address),
            Space::Shared => {
                format!("the block has {} bytes from {:#x}", b.shared.data.len(), b.shared.base)
            }
            _ => format!("outside of the {space} memory there is"),
        };
        let message = format!("{bytes} bytes of {space} memory at {address:#x} are {what}: {there}");
        self.fatal(FindingKind::OutOfBounds, b, warp, pc, Some(lane), message);
    }

    #[cold]
    pub(super) fn memory_fault(
        &mut self,
        b: &Block,
        warp: &Warp,
        pc: u32,
        lane: usize,
        space: Space,
        address: u64,
        fault: Fault,
        what: &str,
    ) {
        let there =
            if space == Space::Global { self.memory.describe(address) } else { format!("{space} {address:#x}") };
        match fault {
            Fault::Uninitialised => {
                let message = format!("{there} is read, but was never written");
                self.finding(FindingKind::UninitialisedMemory, b, warp, pc, Some(lane), message, None);
            }
            Fault::Conflict(half) => {
                let other = self.shadow.describe(half).map(|(record, lane)| (record.clone(), lane));
                let engine = other.as_ref().is_some_and(|(record, _)| record.asynchronous);
                let other = other.map(|(record, lane)| self.place_of(b, &record, lane));
                let (kind, why) = match engine {
                    true => (FindingKind::InFlight, "while a copy or tensor unit that uses it has not been waited for"),
                    false => (FindingKind::Race, "and nothing orders that with the other access"),
                };
                self.finding(kind, b, warp, pc, Some(lane), format!("{there} is {what}, {why}"), other);
            }
        }
    }

    /// The access record of an instruction: one for each time between two synchronisations.
    #[inline]
    pub(super) fn accessor(&mut self, b: &Block, warp: &mut Warp, pc: u32, strong: bool) -> Accessor {
        let slot = &mut warp.records[pc as usize][strong as usize];
        if slot.0 == warp.stamp {
            return self.shadow.accessor(slot.1);
        }
        let w = warp.index;
        let clock = b.clocks.views[w][w];
        let record = crate::shadow::Record::of(b.index, w as u16, w, clock, warp.phase, pc).strong(strong);
        let me = self.shadow.record(record);
        *slot = (warp.stamp, me.id());
        me
    }
}
