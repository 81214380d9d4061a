//! `wgmma`: products of a warpgroup, done by its tensor unit while the warps go on.
//!
//! A product is computed when a warp waits for its group, which all four warps must have issued by then: as late as may
//! be, so that who changes an operand too early changes the result.

use std::collections::VecDeque;

use super::warp::{State, Warp, lanes};
use super::{Block, Machine};
use crate::report::FindingKind;
use crate::shadow::Record;
use crate::tensor::{Operands, Wgmma, is_half, place_a};
use crate::tensormap::Swizzle;
use crate::types::Space;

/// What a warp has issued.
#[derive(Debug)]
struct Issued {
    pc: u32,
    group: u32,
    /// Descriptor of A, or the warp's rows of it.
    a: Result<u64, Vec<u32>>,
    b: u64,
    accumulate: bool,
}

/// A warpgroup's tensor unit.
#[derive(Debug, Default)]
pub(crate) struct Group {
    agent: u16,
    /// The group that each warp's next product is part of.
    open: [u32; 4],
    /// Products each warp has issued, and how many are done.
    issued: [u64; 4],
    done: u64,
    queue: VecDeque<[Option<Issued>; 4]>,
}

impl Machine<'_> {
    pub(super) fn wgmma(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, m: &Wgmma) {
        let (unit, part) = (warp.index / 4, warp.index % 4);
        if b.warps.len() < 4 * unit + 4 {
            let message = "it needs a warpgroup of four whole warps".to_string();
            return self.fatal(FindingKind::Divergence, b, warp, pc, None, message);
        }
        while b.groups.len() <= unit {
            let agent = b.clocks.agent();
            b.groups.push(Group { agent, open: [1; 4], ..Default::default() });
        }
        let all = u32::MAX;
        let accumulate = match m.accumulate {
            Some(p) => {
                let yes = self.predicate_value(b, warp, pc, all, p);
                if yes != 0 && yes != all {
                    let message = "the scale of the accumulator differs between lanes".to_string();
                    return self.fatal(FindingKind::InvalidOperand, b, warp, pc, None, message);
                }
                yes != 0
            }
            None => !m.never,
        };
        let group = b.groups[unit].open[part];
        for &d in &m.d {
            // Registers in flight may be accumulated into; others must have a value.
            if accumulate && !warp.in_flight.contains_key(&d) {
                self.defined(b, warp, pc, all, crate::code::Src(d));
            }
            warp.defined[d as usize] = 0;
            warp.in_flight.insert(d, group);
        }
        let uniform = |m: &mut Self, b: &Block, warp: &mut Warp, s| {
            m.defined(b, warp, pc, all, s);
            let value = *warp.value(m.code, s);
            value.iter().all(|&v| v == value[0]).then_some(value[0])
        };
        let a = match &m.a {
            Ok(s) => uniform(self, b, warp, *s).map(Ok),
            Err(registers) => Some(Err(self.rows_of_a(b, warp, pc, m, registers))),
        };
        let (Some(a), Some(bd)) = (a, uniform(self, b, warp, m.b)) else {
            let message = "a descriptor differs between lanes".to_string();
            return self.fatal(FindingKind::InvalidOperand, b, warp, pc, None, message);
        };
        let agent = b.groups[unit].agent;
        let record = Record::of(b.index, agent, warp.index, group, group, pc).engine(true);
        let me = self.shadow.record(record);
        let rows = (64 * part / 4)..(64 * part / 4 + 16);
        let mut touched = Vec::new();
        if let Ok(desc) = a {
            touched.extend(rows.flat_map(|r| (0..m.k).map(move |k| (0, desc, r, k))));
        }
        touched.extend((0..m.n).flat_map(|r| (0..m.k).map(move |k| (1, bd, r, k))));
        let size = m.types[0].size();
        for (which, desc, row, k) in touched {
            let Some(address) = element(desc, row, k, size, m.transposed[which]) else {
                let message = format!("the descriptor {desc:#018x} is of a layout that is not known");
                return self.fatal(FindingKind::InvalidOperand, b, warp, pc, None, message);
            };
            let Some(at) = b.shared.offset(address, size) else {
                return self.out_of_bounds(b, warp, pc, 0, Space::Shared, address, size, "read");
            };
            if self.options.checks
                && let Some(fault) = self.shadow.read(&mut b.shared.cells[at..at + size], &me, 0, &b.clocks)
            {
                self.memory_fault(b, warp, pc, 0, Space::Shared, address, fault, "read");
                break;
            }
        }
        self.report.counters.tensor_operations += (16 * m.n * m.k) as u64;
        let g = &mut b.groups[unit];
        let slot = (g.issued[part] - g.done) as usize;
        while g.queue.len() <= slot {
            g.queue.push_back(Default::default());
        }
        g.queue[slot][part] = Some(Issued { pc, group, a, b: bd, accumulate });
        g.issued[part] += 1;
        for other in &mut b.warps[4 * unit..4 * unit + 4] {
            if other.state == Some(State::Group) {
                other.state = Some(State::Ready);
            }
        }
    }

    /// The warp's 16 rows of A from its registers.
    fn rows_of_a(
        &mut self,
        b: &Block,
        warp: &mut Warp,
        pc: u32,
        m: &Wgmma,
        registers: &[crate::code::Src],
    ) -> Vec<u32> {
        let (size, mut out) = (m.types[0].size(), vec![0; 16 * m.k]);
        for (i, &s) in registers.iter().enumerate() {
            self.defined(b, warp, pc, u32::MAX, s);
            let value = warp.value(self.code, s);
            for lane in 0..32 {
                for e in 0..4 / size {
                    let (row, k) = place_a(lane, i, e, size);
                    out[row * m.k + k] = (value[lane] >> (8 * size * e)) as u32 & (u32::MAX >> (32 - 8 * size));
                }
            }
        }
        out
    }

    pub(super) fn wgmma_commit(&mut self, b: &mut Block, warp: &mut Warp) {
        if let Some(g) = b.groups.get_mut(warp.index / 4) {
            g.open[warp.index % 4] += 1;
        }
    }

    pub(super) fn wgmma_wait(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, count: u32) {
        let (unit, part) = (warp.index / 4, warp.index % 4);
        let Some(g) = b.groups.get(unit) else { return };
        let upto = g.open[part].saturating_sub(1 + count);
        // How far the queue must be done for this warp's groups.
        let wanted = |g: &Group| {
            let mine = |entry: &[Option<Issued>; 4]| entry[part].as_ref().is_some_and(|i| i.group <= upto);
            g.queue.iter().take_while(|entry| mine(entry)).count()
        };
        let steps = wanted(g);
        if g.queue.iter().take(steps).any(|entry| entry.iter().any(Option::is_none)) {
            // The others have not issued: the warp comes back to this instruction.
            warp.store(pc, warp.live);
            warp.state = Some(State::Group);
            return;
        }
        for _ in 0..steps {
            self.compute(b, warp, unit);
            if self.report.stopped {
                return;
            }
        }
        let mut landed = Vec::new();
        warp.in_flight.retain(|&register, group| {
            let done = *group <= upto;
            if done {
                landed.push(register);
            }
            !done
        });
        for register in landed {
            warp.defined[register as usize] = u32::MAX;
        }
        let agent = b.groups[unit].agent;
        b.clocks.learn(warp.index, agent, upto);
        warp.stamp += 1;
    }

    /// The oldest product of a tensor unit, for all four warps.
    fn compute(&mut self, b: &mut Block, warp: &mut Warp, unit: usize) {
        let Some(entry) = b.groups[unit].queue.pop_front() else { return };
        b.groups[unit].done += 1;
        let code = self.code;
        for (part, issued) in entry.into_iter().enumerate() {
            let Some(issued) = issued else { continue };
            let crate::code::Action::Collective { what: crate::code::Collective::Wgmma(m), .. } =
                &code.insts[issued.pc as usize].action
            else {
                continue;
            };
            let size = m.types[0].size();
            let read = |desc: u64, row: usize, k: usize, transposed: bool| {
                let found = element(desc, row, k, size, transposed).and_then(|a| b.shared.offset(a, size));
                found.map_or(0, |at| crate::memory::read(&b.shared.data[at..], size) as u32)
            };
            let sign = |negate: bool| if negate { 1u32 << (8 * size - 1) } else { 0 };
            let (k, [flip_a, flip_b]) = (m.k, m.negate.map(sign));
            let a = match issued.a {
                Err(rows) => rows.into_iter().map(|v| v ^ flip_a).collect(),
                Ok(desc) => {
                    (0..16 * k).map(|i| read(desc, 16 * part + i / k, i % k, m.transposed[0]) ^ flip_a).collect()
                }
            };
            let columns = (0..m.n * k).map(|i| read(issued.b, i / k, i % k, m.transposed[1]) ^ flip_b).collect();
            let operands = Operands { a, b: columns, k };
            let half = is_half(m.types[1]);
            let product = operands.floats(m.types[0], 90, half);
            let index = 4 * unit + part;
            let owner = if index == warp.index { &mut *warp } else { &mut b.warps[index] };
            for (r, &d) in m.d.iter().enumerate() {
                let value = &mut owner.registers[d as usize];
                for lane in lanes(u32::MAX) {
                    // Registers go through pairs of columns, of the upper rows and then of the lower.
                    let place = |i: usize| (lane / 4 + 8 * (i >> 1 & 1), i / 4 * 8 + lane % 4 * 2 + (i & 1));
                    let c = if issued.accumulate { value[lane] } else { 0 };
                    let one = |i: usize, c: u64| product(place(i).0, place(i).1, c);
                    value[lane] = match half {
                        true => one(2 * r, c & 0xffff) | one(2 * r + 1, c >> 16) << 16,
                        false => one(r, c),
                    };
                }
            }
        }
    }
}

/// The address of an element by a descriptor: row along m or n, and k.
///
/// The layouts are those of the manual's matrix descriptor: of rows along k with and without swizzle, and of columns
/// with swizzle.
fn element(desc: u64, row: usize, k: usize, size: usize, transposed: bool) -> Option<u64> {
    let field = |at: u32| (desc >> at & 0x3fff) << 4;
    let (start, leading, stride) = (field(0), field(16), field(32));
    let swizzle = match desc >> 62 {
        0 => Swizzle::None,
        1 => Swizzle::Bytes128,
        2 => Swizzle::Bytes64,
        _ => Swizzle::Bytes32,
    };
    let span = swizzle.span();
    let (row, byte) = (row as u64, (k * size) as u64);
    let offset = match (transposed, swizzle) {
        (false, Swizzle::None) => row % 8 * 16 + row / 8 * stride + byte / 16 * leading + byte % 16,
        (false, _) => row % 8 * span as u64 + row / 8 * stride + byte,
        (true, Swizzle::None) => return None,
        (true, _) => {
            let along = row * size as u64;
            let (span, k) = (span as u64, k as u64);
            along % span + k % 8 * span + k / 8 * stride + along / span * leading
        }
    };
    Some(swizzle.apply(start + offset))
}
