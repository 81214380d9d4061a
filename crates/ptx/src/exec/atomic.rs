//! `atom` and `red`.

use super::access::reach;
use super::warp::{Warp, lanes};
use super::{Block, Machine, count};
use crate::code::{Atomic, AtomicOp, Lanes};
use crate::memory;
use crate::num::{self, Format, Mode};
use crate::types::{Space, Type};

impl Machine<'_> {
    pub(super) fn atomic(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, mask: u32, a: &Atomic) {
        self.defined(b, warp, pc, mask, a.address.base);
        self.defined(b, warp, pc, mask, a.values[0]);
        self.defined(b, warp, pc, mask, a.values[1]);
        if a.op == AtomicOp::Add && a.ty.is_float() {
            self.report.counters.float_atomics += mask.count_ones() as u64;
        }
        let addresses = self.addresses(warp, a.address);
        self.publish(b, warp, &addresses, mask, a.order);
        let mut out = [0; 32];
        self.by_space(mask, a.space, addresses, |m, mask, space, addresses| {
            m.atomic_in(b, warp, pc, mask, a, space, addresses, &mut out);
        });
        self.acquired(b, warp, &addresses, mask, a.order);
        if let Some(to) = a.to {
            warp.set(to, &out, mask);
        }
    }

    fn atomic_in(
        &mut self,
        b: &mut Block,
        warp: &mut Warp,
        pc: u32,
        mask: u32,
        a: &Atomic,
        space: Space,
        addresses: &Lanes,
        out: &mut Lanes,
    ) {
        let size = a.ty.size();
        if self.misaligned(b, warp, pc, mask, addresses, size) {
            return;
        }
        if space == Space::Global {
            self.report.counters.global_loads += 1;
            self.report.counters.sectors_read += count::sectors(addresses, mask, size);
        } else {
            self.count_shared(addresses, mask, size);
        }
        let me = self.accessor(b, warp, pc, true);
        let (mut at, mut fault) = (usize::MAX, None);
        for lane in lanes(mask) {
            let address = addresses[lane];
            let found = match space {
                Space::Global | Space::Shared => {
                    reach(self.memory, &mut b.shared, &mut at, space == Space::Shared, address, size)
                }
                _ => None,
            };
            let Some((region, offset)) = found else {
                return self.out_of_bounds(b, warp, pc, lane, space, address, size, "changed");
            };
            if self.options.checks {
                let cells = &mut region.cells[offset..offset + size];
                // It is a write; what it reads must have been written.
                let unwritten = cells.iter().any(|c| *c >> 32 == 0);
                let found = self.shadow.write(cells, &me, lane as u32, &b.clocks, false);
                let found = if unwritten { Some(crate::shadow::Fault::Uninitialised) } else { found };
                fault = fault.or(found.map(|f| (lane, f)));
            }
            let old = memory::read(&region.data[offset..], size);
            let value = warp.value(self.code, a.values[0])[lane];
            let second = warp.value(self.code, a.values[1])[lane];
            memory::write(&mut region.data[offset..], size, combine(a.op, a.ty, old, value, second));
            out[lane] = old;
        }
        if let Some((lane, fault)) = fault {
            self.memory_fault(b, warp, pc, lane, space, addresses[lane], fault, "changed");
        }
    }
}

/// The new value of an atomic, or of a reduction over lanes.
pub(super) fn combine(op: AtomicOp, ty: Type, old: u64, value: u64, second: u64) -> u64 {
    let keep = crate::decode::mask(ty);
    let signed = |v: u64| {
        let up = 64 - ty.bits();
        (v << up) as i64 >> up
    };
    match op {
        AtomicOp::Add => match Format::of(ty) {
            // `red.f32` in shared and global memory keeps subnormal numbers.
            Some(f) if matches!(ty, Type::F16x2 | Type::BF16x2) => {
                let half = |up: u32| num::add(old >> up & 0xffff, value >> up & 0xffff, f, Mode::Rn) << up;
                half(0) | half(16)
            }
            Some(f) => num::add(old, value, f, Mode::Rn),
            None => old.wrapping_add(value) & keep,
        },
        AtomicOp::Min if ty.is_signed() => signed(old).min(signed(value)) as u64 & keep,
        AtomicOp::Max if ty.is_signed() => signed(old).max(signed(value)) as u64 & keep,
        AtomicOp::Min => old.min(value),
        AtomicOp::Max => old.max(value),
        AtomicOp::And => old & value,
        AtomicOp::Or => old | value,
        AtomicOp::Xor => old ^ value,
        AtomicOp::Exchange => value,
        AtomicOp::Compare => {
            if old == value {
                second
            } else {
                old
            }
        }
        AtomicOp::Increment => {
            if old >= value {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Decrement => {
            if old == 0 || old > value {
                value
            } else {
                old - 1
            }
        }
    }
}
