//! The machine: blocks, warps, and who runs next.
//!
//! One thread runs a launch. Blocks run one after the other, in a seeded random order; one that waits for others by
//! spinning on memory gives way to them after some time. Warps take turns of random length.

mod access;
mod atomic;
mod bulk;
mod collective;
pub(crate) mod copies;
mod count;
mod finding;
mod lanes;
mod matrix;
mod mbarrier;
mod step;
mod sync;
pub(crate) mod warp;
mod wgmma;

use std::collections::HashMap;

use crate::clock::{Clocks, Knowledge};
use crate::code::Code;
use crate::decode::SHARED_START;
use crate::device::Options;
use crate::memory::{Memory, Region};
use crate::report::{FindingKind, Report};
use crate::shadow::Shadow;
use warp::{Setting, State, Warp};

/// Instructions of a warp in one turn, at most.
const TURN: u32 = 64;
/// Instructions of warps after which a block that has not ended gives way to others.
const BLOCK_TURN: u64 = 1 << 20;
/// Blocks that are under way at once.
const RESIDENT: usize = 132;

/// A barrier of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct BarrierState {
    arrived: Vec<collective::Arrival>,
    knowledge: Knowledge,
    /// Sum, and, or of the predicates given to `bar.red`, by lanes.
    reduced: (u32, bool, bool),
    /// Threads that were said to take part.
    threads: Option<u32>,
}

/// A block under way.
pub(crate) struct Block {
    pub index: u32,
    pub ctaid: [u32; 3],
    pub warps: Vec<Warp>,
    pub shared: Region,
    pub clocks: Clocks,
    pub barriers: Vec<BarrierState>,
    pub mbarriers: HashMap<u64, mbarrier::Mbarrier>,
    /// Bulk copies that have not landed.
    pub bulks: Vec<bulk::Pending>,
    /// Tensor units, by warpgroup.
    pub groups: Vec<wgmma::Group>,
    /// Waits on mbarriers that failed since something last happened.
    pub idle: u64,
    /// Instructions its warps have executed in this turn.
    spent: u64,
}

/// A launch under way.
pub(crate) struct Machine<'a> {
    pub code: &'a Code,
    pub options: &'a Options,
    pub memory: &'a mut Memory,
    pub shadow: &'a mut Shadow,
    pub report: Report,
    pub params: Vec<u8>,
    pub grid: [u32; 3],
    pub threads: [u32; 3],
    pub dynamic_shared: usize,
    pub shared_bytes: usize,
    /// State of the random numbers.
    random: u64,
    /// What was published at addresses, and whether for other blocks too.
    pub published: HashMap<u64, Vec<(u32, bool, Knowledge)>>,
    reported: std::collections::HashSet<(FindingKind, u32)>,
    limit: u64,
}

impl<'a> Machine<'a> {
    pub fn new(
        code: &'a Code,
        options: &'a Options,
        memory: &'a mut Memory,
        shadow: &'a mut Shadow,
        params: Vec<u8>,
        (grid, threads): ([u32; 3], [u32; 3]),
        dynamic_shared: usize,
    ) -> Machine<'a> {
        let dynamic_start = code.shared_static.next_multiple_of(code.dynamic_align);
        Machine {
            code,
            options,
            memory,
            shadow,
            report: Report::default(),
            params,
            grid,
            threads,
            dynamic_shared,
            shared_bytes: if dynamic_shared == 0 { code.shared_static } else { dynamic_start + dynamic_shared },
            random: options.seed ^ 0x9e37_79b9_7f4a_7c15,
            published: HashMap::new(),
            reported: Default::default(),
            limit: options.instruction_limit,
        }
    }

    /// Random bits (SplitMix64, Steele et al. 2014).
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Runs all blocks.
    pub fn run(mut self) -> Report {
        let count: u64 = self.grid.iter().map(|&n| n as u64).product();
        // A stride without a common factor visits every block once.
        let start = self.random() % count.max(1);
        let stride = (1..).map(|k| self.random() % count.max(1) + k).find(|s| gcd(*s, count) == 1).unwrap_or(1);
        let (mut begun, mut resident, mut spare): (u64, Vec<Block>, Vec<Block>) = (0, Vec::new(), Vec::new());
        loop {
            // Others are begun only when all that are under way have given way.
            if begun < count && resident.len() < RESIDENT {
                let index = ((start as u128 + begun as u128 * stride as u128) % count as u128) as u64;
                let block = self.begin(index as u32, spare.pop());
                resident.push(block);
                begun += 1;
            } else if resident.is_empty() {
                return self.report;
            }
            let last = resident.len() - 1;
            let order: Vec<usize> = std::iter::once(last).chain(0..last).collect();
            let mut ended = Vec::new();
            for i in order {
                if self.turn(&mut resident[i]) {
                    ended.push(i);
                }
                if self.report.stopped {
                    return self.report;
                }
            }
            ended.sort_unstable();
            for i in ended.into_iter().rev() {
                spare.push(resident.swap_remove(i));
            }
        }
    }

    fn begin(&mut self, index: u32, spare: Option<Block>) -> Block {
        let [x, y, _] = self.grid;
        let ctaid = [index % x, index / x % y, index / (x * y)];
        let warps = self.threads.iter().product::<u32>().div_ceil(32) as usize;
        let mut block = spare.unwrap_or_else(|| Block {
            index,
            ctaid,
            warps: (0..warps).map(|_| Warp::default()).collect(),
            shared: Region::new(SHARED_START, self.shared_bytes),
            clocks: Clocks::default(),
            barriers: Vec::new(),
            mbarriers: HashMap::new(),
            bulks: Vec::new(),
            groups: Vec::new(),
            idle: 0,
            spent: 0,
        });
        (block.index, block.ctaid) = (index, ctaid);
        block.shared.cells.fill(0);
        block.clocks = Clocks::new(warps);
        block.barriers = vec![BarrierState { reduced: (0, true, false), ..Default::default() }; 16];
        block.mbarriers.clear();
        block.bulks.clear();
        block.groups.clear();
        block.idle = 0;
        let setting = Setting {
            ctaid,
            grid: self.grid,
            block: self.threads,
            dynamic_shared: self.dynamic_shared as u32,
            total_shared: self.shared_bytes as u32,
        };
        for (i, warp) in block.warps.iter_mut().enumerate() {
            warp.start(i, self.code, &setting);
        }
        block
    }

    /// Runs a block until it ends (true), or gives way.
    fn turn(&mut self, b: &mut Block) -> bool {
        b.spent = 0;
        let mut ready: Vec<usize> = Vec::with_capacity(b.warps.len());
        loop {
            ready.clear();
            let runs = |w: &Warp| w.state == Some(State::Ready) && w.live & !w.waiting != 0;
            ready.extend(b.warps.iter().filter(|w| runs(w)).map(|w| w.index));
            if ready.is_empty() {
                if b.warps.iter().all(|w| w.live == 0) {
                    self.finish(b);
                    return true;
                }
                self.stuck(b);
                return true;
            }
            let r = self.random();
            let index = ready[(r >> 32) as usize % ready.len()];
            // A block of one warp has no need of turns.
            let turn = if ready.len() == 1 { 4 * TURN } else { 1 + r as u32 % TURN };
            let mut warp = std::mem::take(&mut b.warps[index]);
            let spent = self.run_warp(b, &mut warp, turn);
            b.warps[index] = warp;
            b.spent += spent as u64;
            if self.report.stopped {
                return true;
            }
            if self.report.counters.instructions > self.limit || self.shadow.is_full() {
                let what = if self.shadow.is_full() { "access records" } else { "instructions" };
                let warp = std::mem::take(&mut b.warps[index]);
                let pc = warp.pc.iter().copied().min().unwrap_or(0).min(self.code.insts.len() as u32 - 1);
                let message =
                    format!("the limit of {what} is reached: a loop that does not end, or too large a launch");
                self.fatal(FindingKind::Limit, b, &warp, pc, None, message);
                return true;
            }
            if b.spent > BLOCK_TURN {
                return false;
            }
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
