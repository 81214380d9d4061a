//! A warp: registers of 32 lanes and a program counter for each.

use crate::code::{CONSTANT, Code, Lanes, Predicate, Special, Src};
use crate::decode::LOCAL_START;

/// Why lanes do not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Some lane can go on, or all have ended.
    Ready,
    /// The warp waits at a barrier of the block.
    Barrier(u32),
    /// The warp waits for the tensor unit: all warps of its group must have issued.
    Group,
}

/// A warp.
#[derive(Default)]
pub(crate) struct Warp {
    pub index: usize,
    pub pc: Vec<u32>,
    /// Lanes that have not exited.
    pub live: u32,
    /// Lanes that wait at an instruction for others of their mask.
    pub waiting: u32,
    pub state: Option<State>,
    pub registers: Vec<Lanes>,
    /// Lanes in which a register holds a value.
    pub defined: Vec<u32>,
    pub predicates: Vec<u32>,
    pub predicates_defined: Vec<u32>,
    pub carry: u32,
    /// Local memory, lane after lane, and which of its bytes were written.
    pub local: Vec<u8>,
    pub local_written: Vec<bool>,
    /// Counts synchronisations of the lanes with each other.
    pub phase: u32,
    /// Counts changes of what the warp knows: access records are of one such time.
    pub stamp: u32,
    /// Access records by instruction: the time, the record.
    pub records: Vec<[(u32, u32); 2]>,
    /// What a fence lets later strong writes publish (whether to other blocks too), and what strong reads have seen.
    pub published: Option<(crate::clock::Knowledge, bool)>,
    pub pending: Option<crate::clock::Knowledge>,
    /// Registers that a tensor unit has not written yet, with the group that does.
    pub in_flight: std::collections::HashMap<u32, u32>,
    /// Copies that the lanes have begun.
    pub copies: crate::exec::copies::Copies,
}

/// What a block tells its warps at the start.
pub(crate) struct Setting {
    pub ctaid: [u32; 3],
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub total_shared: u32,
}

impl Warp {
    /// Puts the warp at the beginning of a kernel.
    pub fn start(&mut self, index: usize, code: &Code, s: &Setting) {
        let threads = s.block.iter().product::<u32>();
        let count = (threads - 32 * index as u32).min(32);
        self.index = index;
        self.live = if count == 32 { u32::MAX } else { (1 << count) - 1 };
        self.pc.clear();
        self.pc.resize(32, 0);
        (self.waiting, self.state, self.carry) = (0, Some(State::Ready), 0);
        self.registers.resize(code.registers, [0; 32]);
        self.defined.clear();
        self.defined.resize(code.registers, 0);
        self.predicates.resize(code.predicates, 0);
        self.predicates_defined.clear();
        self.predicates_defined.resize(code.predicates, 0);
        self.local.resize(32 * code.local_bytes, 0);
        self.local_written.clear();
        self.local_written.resize(32 * code.local_bytes, false);
        // Those of the block before are of times that do not come again: clearing them would cost more than a short
        // block.
        if self.records.len() != code.insts.len() {
            self.records = vec![[(0, 0); 2]; code.insts.len()];
        }
        (self.phase, self.stamp) = (1, self.stamp + 1);
        (self.published, self.pending) = (None, None);
        self.in_flight.clear();
        self.copies = Default::default();
        for &(special, register) in &code.specials {
            let r = register as usize;
            self.defined[r] = u32::MAX;
            for lane in 0..32u32 {
                let t = 32 * index as u32 + lane;
                let tid = [t % s.block[0], t / s.block[0] % s.block[1], t / (s.block[0] * s.block[1])];
                self.registers[r][lane as usize] = match special {
                    Special::Tid(axis) => tid[axis as usize] as u64,
                    Special::Ntid(axis) => s.block[axis as usize] as u64,
                    Special::Ctaid(axis) => s.ctaid[axis as usize] as u64,
                    Special::Nctaid(axis) => s.grid[axis as usize] as u64,
                    Special::Lane => lane as u64,
                    Special::Warp => index as u64,
                    Special::Warps => threads.div_ceil(32) as u64,
                    Special::MaskEq => 1 << lane,
                    Special::MaskLt => (1 << lane) - 1,
                    Special::MaskLe => (2 << lane) - 1,
                    Special::MaskGt => !((2u64 << lane) - 1) & 0xffff_ffff,
                    Special::MaskGe => !((1u64 << lane) - 1) & 0xffff_ffff,
                    Special::DynamicShared => s.dynamic_shared as u64,
                    Special::TotalShared => s.total_shared as u64,
                    Special::Fixed(value) => value,
                };
            }
        }
    }

    /// The lanes that run next: those at the lowest program counter, and the lowest of the others.
    #[inline]
    pub fn pick(&self) -> Option<(u32, u32, u32)> {
        let runnable = self.live & !self.waiting;
        if runnable == 0 {
            return None;
        }
        let (mut lowest, mut mask, mut next) = (u32::MAX, 0, u32::MAX);
        for lane in lanes(runnable) {
            let pc = self.pc[lane];
            if pc < lowest {
                (next, lowest, mask) = (lowest, pc, 1 << lane);
            } else if pc == lowest {
                mask |= 1 << lane;
            } else {
                next = next.min(pc);
            }
        }
        Some((lowest, mask, next))
    }

    /// Any runnable lanes at one program counter: lets no lane starve behind others that spin below it.
    pub fn pick_other(&self, choice: u32) -> Option<(u32, u32, u32)> {
        let runnable = self.live & !self.waiting;
        let found: Vec<usize> = lanes(runnable).collect();
        let pc = self.pc[*found.get(choice as usize % found.len().max(1))?];
        let mask = found.iter().filter(|&&l| self.pc[l] == pc).fold(0, |m, &l| m | 1 << l);
        // The others are not waited for until the next choice.
        Some((pc, mask, u32::MAX))
    }

    pub fn store(&mut self, pc: u32, mask: u32) {
        for lane in lanes(mask) {
            self.pc[lane] = pc;
        }
    }

    #[inline(always)]
    pub fn value<'a>(&'a self, code: &'a Code, s: Src) -> &'a Lanes {
        if s.0 & CONSTANT == 0 { &self.registers[s.0 as usize] } else { &code.constants[(s.0 & !CONSTANT) as usize] }
    }

    /// Lanes of `mask` in which the source has no value.
    #[inline(always)]
    pub fn undefined(&self, s: Src, mask: u32) -> u32 {
        if s.0 & CONSTANT == 0 { mask & !self.defined[s.0 as usize] } else { 0 }
    }

    #[inline(always)]
    pub fn set(&mut self, register: u32, value: &Lanes, mask: u32) {
        let r = register as usize;
        if mask == u32::MAX {
            self.registers[r] = *value;
        } else {
            for lane in lanes(mask) {
                self.registers[r][lane] = value[lane];
            }
        }
        self.defined[r] |= mask;
    }

    /// A predicate's lanes.
    #[inline(always)]
    pub fn predicate(&self, p: Predicate) -> u32 {
        let value = if p.index == u32::MAX { u32::MAX } else { self.predicates[p.index as usize] };
        if p.negated { !value } else { value }
    }

    /// Lanes of `mask` in which the predicate has no value.
    #[inline(always)]
    pub fn predicate_undefined(&self, p: Predicate, mask: u32) -> u32 {
        if p.index == u32::MAX { 0 } else { mask & !self.predicates_defined[p.index as usize] }
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, index: u32, value: u32, mask: u32) {
        let p = &mut self.predicates[index as usize];
        *p = *p & !mask | value & mask;
        self.predicates_defined[index as usize] |= mask;
    }

    /// Where an address of local memory is in a lane's part of it.
    pub fn local_offset(&self, address: u64, bytes: usize, lane: usize) -> Option<usize> {
        let size = self.local.len() / 32;
        let offset = address.wrapping_sub(LOCAL_START);
        (offset <= size as u64 && bytes as u64 <= size as u64 - offset).then(|| lane * size + offset as usize)
    }
}

/// The lanes of a mask, lowest first.
#[inline(always)]
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros();
        (mask != 0).then(|| {
            mask &= mask - 1;
            lane as usize
        })
    })
}
