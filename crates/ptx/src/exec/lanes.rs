//! What lanes of a warp exchange.

use super::atomic::combine;
use super::warp::{Warp, lanes};
use super::{Block, Machine};
use crate::code::{Collective, Shuffle};

impl Machine<'_> {
    /// `shfl vote match redux elect` over the lanes of `group`.
    pub(super) fn exchange(&mut self, b: &mut Block, warp: &mut Warp, pc: u32, group: u32, what: &Collective) {
        let code = self.code;
        let first = group.trailing_zeros() as usize;
        match *what {
            Collective::Shuffle { mode, to, valid, value, lane, clamp } => {
                self.defined(b, warp, pc, group, lane);
                self.defined(b, warp, pc, group, clamp);
                let missing = warp.undefined(value, group);
                let from = *warp.value(code, value);
                let (by, clamp) = (*warp.value(code, lane), *warp.value(code, clamp));
                let (mut out, mut inside, mut undefined) = ([0; 32], 0, 0);
                for lane in lanes(group) {
                    let (source, ok) = shuffle(mode, lane as i32, by[lane] as i32 & 31, clamp[lane] as i32);
                    inside |= (ok as u32) << lane;
                    out[lane] = from[source];
                    // What comes from a lane that does not take part is nothing.
                    undefined |= ((!group | missing) >> source & 1) << lane;
                }
                warp.set(to, &out, group);
                warp.defined[to as usize] &= !undefined;
                if let Some(p) = valid {
                    warp.set_predicate(p, inside, group);
                }
            }
            Collective::Vote { mode, to, of } => {
                let value = self.predicate_value(b, warp, pc, group, of) & group;
                let yes = match mode {
                    0 => value == group,
                    1 => value != 0,
                    _ => value == group || value == 0,
                };
                warp.set_predicate(to, if yes { u32::MAX } else { 0 }, group);
            }
            Collective::Ballot { to, of } => {
                let value = self.predicate_value(b, warp, pc, group, of) & group;
                warp.set(to, &[value as u64; 32], group);
            }
            Collective::Match { to, all, value } => {
                self.defined(b, warp, pc, group, value);
                let value = *warp.value(code, value);
                let equal =
                    |lane: usize| lanes(group).filter(|&l| value[l] == value[lane]).fold(0u32, |m, l| m | 1 << l);
                match all {
                    Some(p) => {
                        let same = equal(first) == group;
                        warp.set(to, &[if same { group as u64 } else { 0 }; 32], group);
                        if let Some(p) = p {
                            warp.set_predicate(p, if same { u32::MAX } else { 0 }, group);
                        }
                    }
                    None => {
                        let mut out = [0; 32];
                        for lane in lanes(group) {
                            out[lane] = equal(lane) as u64;
                        }
                        warp.set(to, &out, group);
                    }
                }
            }
            Collective::Reduce { op, ty, to, value } => {
                self.defined(b, warp, pc, group, value);
                let value = *warp.value(code, value);
                let total = lanes(group & (group - 1)).fold(value[first], |sum, l| combine(op, ty, sum, value[l], 0));
                warp.set(to, &[total; 32], group);
            }
            Collective::Elect { to, leader } => {
                warp.set(to, &[first as u64; 32], group);
                warp.set_predicate(leader, 1 << first, group);
            }
            _ => {}
        }
    }
}

/// The lane that a lane reads, and whether it is within its segment; the formulas of the manual.
fn shuffle(mode: Shuffle, lane: i32, by: i32, clamp: i32) -> (usize, bool) {
    let segment = clamp >> 8 & 31;
    let highest = lane & segment | clamp & 31 & !segment;
    let lowest = lane & segment;
    let (source, inside) = match mode {
        Shuffle::Up => (lane - by, lane - by >= highest),
        Shuffle::Down => (lane + by, lane + by <= highest),
        Shuffle::Butterfly => (lane ^ by, lane ^ by <= highest),
        Shuffle::Index => {
            let source = lowest | by & !segment;
            (source, source <= highest)
        }
    };
    if inside { (source as usize & 31, true) } else { (lane as usize, false) }
}
