//! The shadow of memory: which access wrote a byte last, which have read it since, and whether they are ordered.
//!
//! A cell has two halves, the last write above the reads since. A half is zero, or the number of an access record times
//! 64 plus a lane. Numbers grow for ever: what is below the first of this launch happened before it. Reads by several
//! agents, and atomic writes by several, are records that stand for a set.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::clock::Clocks;

/// The half that stands for a write by the host, or by an earlier launch.
pub(crate) const HOST: u32 = 1 << 6;
/// The lane that stands for several.
const MANY: u32 = 63;
/// The first number of a launch's records.
const FIRST: u32 = 2;
/// Past this number the cells are cleared before the next launch.
const RENEW: u32 = 1 << 25;
/// Past this number a launch cannot go on.
const LAST: u32 = (1 << 26) - 1;

/// An access by an agent between two of its synchronisations, at one instruction.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub block: u32,
    pub agent: u16,
    /// The warp that issued it.
    pub warp: u16,
    pub clock: u32,
    /// Counts synchronisations of the agent's lanes with each other.
    pub phase: u32,
    pub pc: u32,
    /// Strong accesses do not race with each other.
    pub strong: bool,
    /// Done by a copy engine or a tensor unit.
    pub asynchronous: bool,
    /// Done through the asynchronous proxy, to which generic writes are visible only after a fence.
    pub proxy: bool,
    /// Number of a set that this record stands for, plus one.
    set: u32,
}

/// Who accesses memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accessor {
    /// Number of the record times 64.
    id: u32,
    block: u32,
    agent: u16,
    /// The warp whose view counts.
    warp: u16,
    phase: u32,
    strong: bool,
    proxy: bool,
}

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Uninitialised,
    /// The half of a cell that it is not ordered with.
    Conflict(u32),
}

/// Accesses of which none is ordered before another's agent.
#[derive(Debug)]
struct Set {
    /// Halves of the block that made it.
    members: Vec<u32>,
    /// The half that stands for what other blocks did before, or zero: blocks share it, so that many cost no more each.
    before: u32,
    /// Whether all of it is strong.
    strong: bool,
}

/// Mixes the few words of a key: what is hashed is counted here and not chosen by others.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte as u32));
    }

    fn write_u32(&mut self, word: u32) {
        self.0 = (self.0.rotate_left(26) ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Records of a launch.
#[derive(Debug)]
pub(crate) struct Shadow {
    base: u32,
    records: Vec<Record>,
    sets: Vec<Set>,
    unions: HashMap<(u32, u32), u32, BuildHasherDefault<Mix>>,
    /// The last answer about a cell of another agent: cell without lane, accessor, answer.
    memo: (u32, u32, bool),
    /// The last union: cell without lane, accessor, result.
    memo_union: (u32, u32, u32),
}

impl Shadow {
    pub fn new() -> Shadow {
        Shadow {
            base: FIRST,
            records: Vec::new(),
            sets: Vec::new(),
            unions: HashMap::default(),
            memo: (0, 0, false),
            memo_union: (0, 0, 0),
        }
    }

    /// Begins a launch: everything so far is ordered before it. Returns whether all cells must be [`renewed`].
    pub fn begin(&mut self) -> bool {
        self.base += self.records.len() as u32;
        self.records.clear();
        self.sets.clear();
        self.unions.clear();
        (self.memo, self.memo_union) = ((0, 0, false), (0, 0, 0));
        let renew = self.base > RENEW;
        if renew {
            self.base = FIRST;
        }
        renew
    }

    /// Whether no number is left.
    pub fn is_full(&self) -> bool {
        self.base as usize + self.records.len() + 64 > LAST as usize
    }

    /// A new record and its accessor.
    pub fn record(&mut self, record: Record) -> Accessor {
        let id = (self.base + self.records.len() as u32) << 6;
        let accessor = Accessor {
            id,
            block: record.block,
            agent: record.agent,
            warp: record.warp,
            phase: record.phase,
            strong: record.strong,
            proxy: record.proxy,
        };
        self.records.push(record);
        accessor
    }

    /// The accessor of a record made before.
    pub fn accessor(&self, id: u32) -> Accessor {
        let r = self.get(id);
        Accessor { id, block: r.block, agent: r.agent, warp: r.warp, phase: r.phase, strong: r.strong, proxy: r.proxy }
    }

    /// The record of a half of this launch, and its lane if it is one.
    pub fn describe(&self, half: u32) -> Option<(&Record, Option<u32>)> {
        let lane = half & 63;
        (half >> 6 >= self.base).then(|| (self.get(half), (lane < 32).then_some(lane)))
    }

    fn get(&self, half: u32) -> &Record {
        &self.records[((half >> 6) - self.base) as usize]
    }

    /// A read of `cells` by a lane.
    #[inline]
    pub fn read(&mut self, cells: &mut [u64], me: &Accessor, lane: u32, clocks: &Clocks) -> Option<Fault> {
        let (mine, base) = (me.id | lane, self.base << 6);
        let (mut fault, mut i) = (None, 0);
        while i < cells.len() {
            let cell = cells[i];
            let mut j = i + 1;
            while j < cells.len() && cells[j] == cell {
                j += 1;
            }
            let (w, r) = ((cell >> 32) as u32, cell as u32);
            if w == 0 {
                fault = fault.or(Some(Fault::Uninitialised));
            } else if w >= base && !self.ordered(w, me, lane, clocks, true) {
                fault = fault.or_else(|| self.conflict(w, me, lane, clocks, true));
            }
            let new = if r < base || r == mine {
                mine
            } else if r >> 6 == me.id >> 6 {
                // Another lane has read it in this very instruction.
                me.id | MANY
            } else {
                self.union(r, me, lane, clocks)
            };
            if new != r {
                let value = cell & !0xffff_ffff | new as u64;
                cells[i..j].fill(value);
            }
            i = j;
        }
        fault
    }

    /// A write of `cells` by a lane; `same` says that the bytes keep their value.
    #[inline]
    pub fn write(&mut self, cells: &mut [u64], me: &Accessor, lane: u32, clocks: &Clocks, same: bool) -> Option<Fault> {
        let (mine, base) = (me.id | lane, self.base << 6);
        let (mut fault, mut i) = (None, 0);
        while i < cells.len() {
            let cell = cells[i];
            let mut j = i + 1;
            while j < cells.len() && cells[j] == cell {
                j += 1;
            }
            let (w, r) = ((cell >> 32) as u32, cell as u32);
            let mut new = mine;
            if w >= base {
                // Lanes of one instruction may write the same value.
                let equal = same && w >> 6 == me.id >> 6;
                if !equal && !self.ordered(w, me, lane, clocks, true) {
                    fault = fault.or_else(|| self.conflict(w, me, lane, clocks, true));
                } else if me.strong && w != mine {
                    new = self.union(w, me, lane, clocks);
                }
            }
            if r >= base && r != mine && !self.ordered(r, me, lane, clocks, false) {
                fault = fault.or_else(|| self.conflict(r, me, lane, clocks, false));
            }
            cells[i..j].fill((new as u64) << 32);
            i = j;
        }
        fault
    }

    /// Whether the access of a half is ordered before, or may not race.
    fn ordered(&mut self, half: u32, me: &Accessor, lane: u32, clocks: &Clocks, write: bool) -> bool {
        let key = half >> 6 << 1 | write as u32;
        if self.memo.0 == key && self.memo.1 == me.id {
            return self.memo.2;
        }
        let answer = self.conflict(half, me, lane, clocks, write).is_none();
        let record = self.get(half);
        if record.set == 0 && (record.agent != me.agent || record.block != me.block) {
            self.memo = (key, me.id, answer);
        }
        answer
    }

    /// The first access of a half that is not ordered before.
    fn conflict(&self, mut half: u32, me: &Accessor, lane: u32, clocks: &Clocks, write: bool) -> Option<Fault> {
        let ordered = |half: u32| single(self.get(half), half, me, lane, clocks, write);
        loop {
            let Some(set) = self.set(half) else {
                return (!ordered(half)).then_some(Fault::Conflict(half));
            };
            if set.strong && me.strong {
                return None;
            }
            if let Some(&member) = set.members.iter().find(|&&member| !ordered(member)) {
                return Some(Fault::Conflict(member));
            }
            if set.before == 0 {
                return None;
            }
            half = set.before;
        }
    }

    /// The set that a half stands for, if it is one.
    fn set(&self, half: u32) -> Option<&Set> {
        self.get(half).set.checked_sub(1).map(|set| &self.sets[set as usize])
    }

    /// The half that stands for the accesses of `half` that are not ordered before, and this one.
    fn union(&mut self, half: u32, me: &Accessor, lane: u32, clocks: &Clocks) -> u32 {
        let record = self.get(half);
        if record.set == 0 && record.agent == me.agent && record.block == me.block {
            // What the lanes of a warp did before they last met is ordered; of this phase all lanes count.
            let several = record.phase == me.phase && half & 63 != lane;
            return me.id | if several { MANY } else { lane };
        }
        let key = (half >> 6, me.id);
        if (self.memo_union.0, self.memo_union.1) == key {
            let new = self.memo_union.2;
            return if new == me.id { me.id | lane } else { new };
        }
        let new = match self.unions.get(&key) {
            Some(&new) => new,
            None => {
                let new = self.new_union(half, me, clocks);
                self.unions.insert(key, new);
                new
            }
        };
        self.memo_union = (key.0, key.1, new);
        if new == me.id { me.id | lane } else { new }
    }

    fn new_union(&mut self, half: u32, me: &Accessor, clocks: &Clocks) -> u32 {
        let record = self.get(half);
        let (members, mut before): (&[u32], u32) = match self.set(half) {
            _ if record.block != me.block => (&[], half | MANY),
            Some(set) => (&set.members, set.before),
            None => (&[half], 0),
        };
        let mut kept: Vec<u32> = members
            .iter()
            .filter(|&&m| {
                let r = self.get(m);
                r.agent != me.agent && !known(r, me, clocks, false)
            })
            .map(|m| m | MANY)
            .collect();
        // Only who has learned of other blocks looks whether nothing is left of theirs.
        if before != 0 && clocks.knows_others(me.warp as usize) && self.all_known(before, me, clocks) {
            before = 0;
        }
        if kept.is_empty() && before == 0 {
            return me.id;
        }
        kept.push(me.id | MANY);
        let is_strong = |half: u32| self.set(half).map_or(self.get(half).strong, |set| set.strong);
        let strong = kept.iter().all(|&m| is_strong(m)) && (before == 0 || is_strong(before));
        self.sets.push(Set { members: kept, before, strong });
        let set = self.sets.len() as u32;
        let record = Record { set, ..self.get(me.id).clone() };
        self.record(record).id | MANY
    }

    /// Whether the accessor's view covers all that a half stands for.
    fn all_known(&self, mut half: u32, me: &Accessor, clocks: &Clocks) -> bool {
        let covers = |half: u32| known(self.get(half), me, clocks, false);
        while let Some(set) = self.set(half) {
            if !set.members.iter().all(|&m| covers(m)) {
                return false;
            }
            if set.before == 0 {
                return true;
            }
            half = set.before;
        }
        covers(half)
    }
}

impl Record {
    /// A record that stands for itself.
    #[allow(clippy::new_ret_no_self)]
    pub fn of(block: u32, agent: u16, warp: usize, clock: u32, phase: u32, pc: u32) -> Record {
        let warp = warp as u16;
        Record { block, agent, warp, clock, phase, pc, strong: false, asynchronous: false, proxy: false, set: 0 }
    }

    pub fn strong(self, strong: bool) -> Record {
        Record { strong, ..self }
    }

    /// Of an engine; `proxy` says whether it is the asynchronous proxy's.
    pub fn engine(self, proxy: bool) -> Record {
        Record { asynchronous: true, proxy, ..self }
    }
}

impl Accessor {
    /// Number of the record times 64.
    pub fn id(&self) -> u32 {
        self.id
    }
}

fn single(r: &Record, half: u32, me: &Accessor, lane: u32, clocks: &Clocks, write: bool) -> bool {
    if r.strong && me.strong {
        return true;
    }
    if r.block == me.block && r.agent == me.agent && r.phase == me.phase {
        return half & 63 == lane;
    }
    known(r, me, clocks, write)
}

/// Whether the accessor's view covers the record.
fn known(r: &Record, me: &Accessor, clocks: &Clocks, write: bool) -> bool {
    let warp = me.warp as usize;
    if r.block != me.block {
        return clocks.knows_foreign(warp, r.block, r.agent, r.clock);
    }
    // What generic writes left must be fenced before an engine relies on it.
    if me.proxy && write && !r.proxy {
        return clocks.knows_fenced(warp, r.agent, r.clock);
    }
    clocks.knows(warp, r.agent, r.clock)
}

/// Cells whose writes are older than every launch.
pub(crate) fn renewed(cells: &mut [u64]) {
    for cell in cells {
        *cell = if *cell >> 32 == 0 { 0 } else { (HOST as u64) << 32 };
    }
}
