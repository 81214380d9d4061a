//! The loop over instructions of a warp.

use super::warp::{State, Warp, lanes};
use super::{Block, Machine};
use crate::code::{Action, Fence};
use crate::memory;
use crate::report::FindingKind;

impl Machine<'_> {
    /// Runs a warp for up to `turn` instructions; returns how many it executed.
    pub(super) fn run_warp(&mut self, b: &mut Block, warp: &mut Warp, turn: u32) -> u32 {
        let code = self.code;
        let mut choice = warp.pick();
        // Rarely others than the lowest lanes run, so that who spins below cannot keep them from what he waits for.
        if choice.is_some_and(|c| c.2 != u32::MAX) && self.random().is_multiple_of(64) {
            choice = warp.pick_other(self.random() as u32 >> 1);
        }
        let Some((mut pc, mut mask, mut next)) = choice else { return 0 };
        let (mut spent, mut lane_count) = (0, 0u64);
        macro_rules! pick {
            () => {
                match warp.pick() {
                    Some(found) => (pc, mask, next) = found,
                    None => {
                        mask = 0;
                        break;
                    }
                }
            };
        }
        while spent < turn {
            if pc >= next {
                warp.store(pc, mask);
                pick!();
            }
            let inst = &code.insts[pc as usize];
            spent += 1;
            let mut exec = mask;
            if inst.guard != u32::MAX {
                let missing = mask & !warp.predicates_defined[inst.guard as usize];
                if missing != 0 {
                    self.undefined_predicate(b, warp, pc, missing);
                }
                let p = warp.predicates[inst.guard as usize];
                exec &= if inst.negated { !p } else { p };
            }
            lane_count += exec.count_ones() as u64;
            match &inst.action {
                Action::Branch { target } => {
                    if exec == mask {
                        pc = *target;
                    } else if exec == 0 {
                        pc += 1;
                    } else {
                        warp.store(*target, exec);
                        warp.store(pc + 1, mask & !exec);
                        pick!();
                    }
                    continue;
                }
                Action::BranchTable { targets, index } => {
                    self.defined(b, warp, pc, exec, *index);
                    let index = *warp.value(code, *index);
                    warp.store(pc + 1, mask & !exec);
                    for lane in lanes(exec) {
                        match targets.get(index[lane] as usize) {
                            Some(&target) => warp.pc[lane] = target,
                            None => {
                                let message = format!("the index {} is past {} targets", index[lane], targets.len());
                                self.fatal(FindingKind::InvalidOperand, b, warp, pc, Some(lane), message);
                            }
                        }
                    }
                    pick!();
                    continue;
                }
                Action::Exit => {
                    warp.store(pc + 1, mask & !exec);
                    if exec != 0 {
                        self.exit(b, warp, exec);
                    }
                    pick!();
                    continue;
                }
                Action::Collective { what, mask: members, aligned } if exec != 0 => {
                    warp.store(pc, exec);
                    warp.store(pc + 1, mask & !exec);
                    self.collective(b, warp, pc, exec, what, *members, *aligned);
                    if warp.state != Some(State::Ready) || self.report.stopped {
                        mask = 0;
                        break;
                    }
                    pick!();
                    continue;
                }
                _ if exec == 0 => {}
                action => {
                    self.execute(b, warp, pc, exec, action);
                    if self.report.stopped {
                        break;
                    }
                }
            }
            pc += 1;
        }
        warp.store(pc, mask);
        self.report.counters.instructions += spent as u64;
        self.report.counters.lane_instructions += lane_count;
        spent
    }

    /// What is not about control.
    #[inline(always)]
    fn execute(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, exec: u32, action: &Action) {
        let code = self.code;
        match action {
            Action::Compute { f, to, from, count, approximate } => {
                for &s in &from[..*count as usize] {
                    self.defined(b, warp, pc, exec, s);
                }
                let mut out = [0; 32];
                let sources = [
                    warp.value(code, from[0]),
                    warp.value(code, from[1]),
                    warp.value(code, from[2]),
                    warp.value(code, from[3]),
                ];
                f(&sources, &mut out);
                warp.set(*to, &out, exec);
                if *approximate {
                    self.report.counters.approximations += exec.count_ones() as u64;
                }
            }
            Action::Move { to, from } => {
                let value = *warp.value(code, *from);
                let undefined = warp.undefined(*from, exec);
                warp.set(*to, &value, exec);
                warp.defined[*to as usize] &= !undefined;
            }
            Action::Compare { f, p, q, from, with } => {
                for &s in from {
                    self.defined(b, warp, pc, exec, s);
                }
                let result = f(warp.value(code, from[0]), warp.value(code, from[1]));
                let (mut yes, mut no) = (result, !result);
                if let Some((logic, by)) = with {
                    let by = self.predicate_value(b, warp, pc, exec, *by);
                    (yes, no) = (logic.apply(yes, by), logic.apply(no, by));
                }
                if let Some(p) = p {
                    warp.set_predicate(*p, yes, exec);
                }
                if let Some(q) = q {
                    warp.set_predicate(*q, no, exec);
                }
            }
            Action::Set { f, to, from, with, yes } => {
                for &s in from {
                    self.defined(b, warp, pc, exec, s);
                }
                let mut result = f(warp.value(code, from[0]), warp.value(code, from[1]));
                if let Some((logic, by)) = with {
                    result = logic.apply(result, self.predicate_value(b, warp, pc, exec, *by));
                }
                let out = std::array::from_fn(|i| if result >> i & 1 == 1 { *yes } else { 0 });
                warp.set(*to, &out, exec);
            }
            Action::Select { to, yes, no, by } => {
                let by = self.predicate_value(b, warp, pc, exec, *by);
                // Only the chosen side needs a value.
                let undefined = warp.undefined(*yes, exec & by) | warp.undefined(*no, exec & !by);
                let (yes, no) = (warp.value(code, *yes), warp.value(code, *no));
                let out = std::array::from_fn(|i| if by >> i & 1 == 1 { yes[i] } else { no[i] });
                warp.set(*to, &out, exec);
                warp.defined[*to as usize] &= !undefined;
            }
            Action::Logic { op, to, a, b: c } => {
                let (x, y) = (self.predicate_value(b, warp, pc, exec, *a), self.predicate_value(b, warp, pc, exec, *c));
                warp.set_predicate(*to, op.apply(x, y), exec);
            }
            Action::Pack { to, from, bits } => {
                let keep = if *bits == 64 { u64::MAX } else { (1 << bits) - 1 };
                let (mut out, mut undefined) = ([0; 32], 0);
                for (i, &s) in from.iter().enumerate() {
                    undefined |= warp.undefined(s, exec);
                    let value = warp.value(code, s);
                    for lane in 0..32 {
                        out[lane] |= (value[lane] & keep) << (i as u32 * bits);
                    }
                }
                warp.set(*to, &out, exec);
                warp.defined[*to as usize] &= !undefined;
            }
            Action::Unpack { to, from, bits } => {
                let keep = if *bits == 64 { u64::MAX } else { (1 << bits) - 1 };
                let undefined = warp.undefined(*from, exec);
                let value = *warp.value(code, *from);
                for (i, to) in to.iter().enumerate() {
                    let Some(to) = to else { continue };
                    let out = std::array::from_fn(|lane| value[lane] >> (i as u32 * bits) & keep);
                    warp.set(*to, &out, exec);
                    warp.defined[*to as usize] &= !undefined;
                }
            }
            Action::Carry { f, to, from, count, reads, writes } => {
                for &s in &from[..*count as usize] {
                    self.defined(b, warp, pc, exec, s);
                }
                let (mut out, mut carry) = ([0; 32], 0);
                let [x, y, z] = from.map(|s| warp.value(code, s));
                for lane in 0..32 {
                    let (value, c) = f(x[lane], y[lane], z[lane], *reads && warp.carry >> lane & 1 == 1);
                    out[lane] = value;
                    carry |= (c as u32) << lane;
                }
                warp.set(*to, &out, exec);
                if *writes {
                    warp.carry = warp.carry & !exec | carry & exec;
                }
            }
            Action::Parameter { offset, size, signed, to } => {
                if offset.checked_add(size * to.len()).is_none_or(|end| end > self.params.len()) {
                    let lane = exec.trailing_zeros() as usize;
                    let message = format!("{size} bytes at {offset} of {} bytes of parameters", self.params.len());
                    return self.fatal(FindingKind::OutOfBounds, b, warp, pc, Some(lane), message);
                }
                for (i, &(to, keep)) in to.iter().enumerate() {
                    let value = memory::read(&self.params[offset + i * size..], *size);
                    let up = 64 - 8 * *size as u32;
                    let value = if *signed { ((value << up) as i64 >> up) as u64 } else { value };
                    warp.set(to, &[value & keep; 32], exec);
                }
            }
            Action::Load(a) => self.load(b, warp, pc, exec, a),
            Action::Store(a) => self.store(b, warp, pc, exec, a),
            Action::Atomic(a) => self.atomic(b, warp, pc, exec, a),
            Action::Fence(Fence::Thread { device }) => self.fence(b, warp, *device),
            Action::Fence(Fence::Async) => {
                b.clocks.fence(warp.index);
            }
            Action::ActiveMask { to } => warp.set(*to, &[exec as u64; 32], exec),
            Action::IsSpace { p, space, from } => {
                self.defined(b, warp, pc, exec, *from);
                let value = warp.value(code, *from);
                let yes = (0..32).fold(0, |m, i| m | ((super::access::resolve(value[i]).0 == *space) as u32) << i);
                warp.set_predicate(*p, yes, exec);
            }
            Action::Trap(message) => {
                let lane = exec.trailing_zeros() as usize;
                self.fatal(FindingKind::Trap, b, warp, pc, Some(lane), message.clone());
            }
            Action::Copy(copy) => self.copy(b, warp, pc, exec, copy),
            Action::Mbarrier(operation) => self.mbarrier(b, warp, pc, exec, operation),
            Action::Nothing => {}
            // Control is handled by the loop.
            Action::Branch { .. } | Action::BranchTable { .. } | Action::Exit | Action::Collective { .. } => {}
        }
    }

    #[inline(always)]
    pub(super) fn predicate_value(
        &mut self,
        b: &Block,
        warp: &Warp,
        pc: u32,
        exec: u32,
        p: crate::code::Predicate,
    ) -> u32 {
        let missing = warp.predicate_undefined(p, exec);
        if missing != 0 {
            self.undefined_predicate(b, warp, pc, missing);
        }
        warp.predicate(p)
    }

    /// Lanes exit: others may have waited only for them.
    fn exit(&mut self, b: &mut Block, warp: &mut Warp, exec: u32) {
        warp.live &= !exec;
        warp.waiting = 0;
        if warp.live == 0 {
            self.release_complete(b, warp);
        }
    }
}
