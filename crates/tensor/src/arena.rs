//! Large buffers, cut from segments of the system's memory and joined with their neighbours when they come back.
//!
//! A free list per size would keep a buffer for every size that was ever in use at its own time: a training step's
//! memory was up to 1.8 times what lived at once. New pages are touched only where no hole among those touched before
//! is large enough; a page that was never touched takes no memory.

use std::collections::BTreeMap;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};

/// Buffers start and end at pages.
const PAGE: usize = 4096;
/// Bytes of a segment, if nothing larger is asked for: address space, which costs nothing where untouched pages are not
/// counted.
const SEGMENT: usize = if cfg!(target_os = "linux") { 1 << 30 } else { 64 << 20 };

/// Segments, and their holes by address. Neighbouring holes of a segment are one.
#[derive(Debug, Default)]
pub struct Arena {
    segments: Vec<Segment>,
    holes: BTreeMap<NonNull<u8>, usize>,
}

/// Memory of the system, of which all from `used` bytes on was never handed out and is no hole.
#[derive(Debug)]
struct Segment {
    memory: MmapMut,
    start: NonNull<u8>,
    used: usize,
}

impl Segment {
    /// No larger than it must be if that is all the system has.
    fn new(bytes: usize) -> Option<Segment> {
        let map = |len: usize| MmapOptions::new().len(len).no_reserve_swap().map_anon();
        let mut memory = map(bytes.max(SEGMENT)).or_else(|_| map(bytes)).ok()?;
        // Large pages, where the system has them: rows far apart would miss the processor's table of small ones.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Some(Segment { start: NonNull::new(memory.as_mut_ptr())?, memory, used: 0 })
    }

    fn end_of_used(&self) -> NonNull<u8> {
        // SAFETY: at most one past the segment.
        unsafe { self.start.add(self.used) }
    }
}

/// Which of the holes that are large enough a buffer takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// The lowest: what is made in a forward pass piles up, and goes from above in the backward pass.
    Lowest,
    /// The end of the smallest. What comes while the pile goes splits no hole that will be large: gradients of weights
    /// stay until the step's end, and the gradient of a layer near the input can be the largest.
    Smallest,
}

// SAFETY: starts and holes are memory of the segments, which the arena owns.
unsafe impl Send for Arena {}

impl Arena {
    /// `bytes` bytes (more than 0), initialised, at the start of a page; `None` when the system has no memory left.
    pub fn alloc(&mut self, bytes: usize, place: Place) -> Option<NonNull<u8>> {
        let bytes = bytes.checked_next_multiple_of(PAGE)?;
        let mut fit = self.holes.iter().map(|(at, len)| (*at, *len)).filter(|(_, len)| *len >= bytes);
        let hole = match place {
            Place::Lowest => fit.next(),
            Place::Smallest => fit.min_by_key(|(_, len)| *len),
        };
        let Some((at, len)) = hole else { return self.extend(bytes) };
        // SAFETY: inside the hole.
        let end = |n: usize| unsafe { at.add(n) };
        let (buffer, rest) = match place {
            Place::Lowest => (at, end(bytes)),
            Place::Smallest => (end(len - bytes), at),
        };
        self.holes.remove(&at);
        if len > bytes {
            self.holes.insert(rest, len - bytes);
        }
        Some(buffer)
    }

    /// A buffer at the end of what is in use, of new memory as far as it must be.
    fn extend(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let holes = &mut self.holes;
        for segment in &mut self.segments {
            let last = holes.range(segment.start..segment.end_of_used()).next_back().map(|(at, len)| (*at, *len));
            // SAFETY: the end of a hole, at most one past its segment.
            let (at, old) = last
                .filter(|(at, len)| unsafe { at.add(*len) } == segment.end_of_used())
                .unwrap_or((segment.end_of_used(), 0));
            if bytes - old <= segment.memory.len() - segment.used {
                holes.remove(&at);
                segment.used += bytes - old;
                return Some(at);
            }
        }
        let mut segment = Segment::new(bytes)?;
        segment.used = bytes;
        let at = segment.start;
        self.segments.push(segment);
        Some(at)
    }

    /// Takes back what [`Arena::alloc`] gave for so many bytes.
    pub fn free(&mut self, at: NonNull<u8>, bytes: usize) {
        let (mut at, mut len) = (at, bytes.next_multiple_of(PAGE));
        // SAFETY: the end of a buffer, at most one past its segment.
        let end = unsafe { at.add(len) };
        if !self.is_start(end)
            && let Some(more) = self.holes.remove(&end)
        {
            len += more;
        }
        if !self.is_start(at)
            && let Some((&before, &more)) = self.holes.range(..at).next_back()
            // SAFETY: the end of a hole, at most one past its segment.
            && unsafe { before.add(more) } == at
        {
            (at, len) = (before, len + more);
        }
        self.holes.insert(at, len);
    }

    /// Returns segments of which nothing is in use to the system.
    pub fn trim(&mut self) {
        let holes = &mut self.holes;
        self.segments.retain(|segment| {
            let unused = holes.get(&segment.start) == Some(&segment.used);
            if unused {
                holes.remove(&segment.start);
            }
            !unused
        });
    }

    /// Whether a segment starts here: its first hole is no continuation of what lies before it by chance.
    fn is_start(&self, at: NonNull<u8>) -> bool {
        self.segments.iter().any(|segment| segment.start == at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_come_back_in_any_order_are_one_hole_again() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut arena = Arena::default();
            let sizes = [PAGE, 3 * PAGE - 5, 300_000];
            let buffers = sizes.map(|n| arena.alloc(n, Place::Lowest).unwrap());
            for i in order {
                arena.free(buffers[i], sizes[i]);
            }
            assert_eq!(arena.holes.len(), 1, "{order:?}");
            assert_eq!(arena.holes.values().sum::<usize>(), sizes.map(|n| n.next_multiple_of(PAGE)).iter().sum());
            arena.trim();
            assert!(arena.holes.is_empty() && arena.segments.is_empty());
        }
    }

    #[test]
    fn buffers_never_overlap() {
        let mut arena = Arena::default();
        let mut live: Vec<(NonNull<u8>, usize)> = Vec::new();
        let mut state = 12345u32;
        for step in 0..2000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if live.len() > 20 || state >> 31 == 1 && !live.is_empty() {
                let (at, bytes) = live.swap_remove(state as usize / 7 % live.len());
                arena.free(at, bytes);
            } else {
                let bytes = 1 + (state >> 8) as usize % (24 << 20);
                let at = arena.alloc(bytes, if step % 3 == 0 { Place::Smallest } else { Place::Lowest }).unwrap();
                let end = at.addr().get() + bytes;
                assert!(
                    live.iter().all(|(a, n)| end <= a.addr().get() || a.addr().get() + n <= at.addr().get()),
                    "step {step}"
                );
                live.push((at, bytes));
            }
        }
        let held: usize = arena.segments.iter().map(|s| s.used).sum();
        let lent: usize = live.iter().map(|(_, n)| n.next_multiple_of(PAGE)).sum();
        assert_eq!(arena.holes.values().sum::<usize>() + lent, held);
        for (at, bytes) in live {
            arena.free(at, bytes);
        }
        assert_eq!(arena.holes.len(), arena.segments.len());
    }

    #[test]
    fn new_memory_is_touched_only_where_no_hole_is_large_enough() {
        let mut arena = Arena::default();
        let [a, b, c, d] = [2, 1, 4, 1].map(|pages| arena.alloc(pages * PAGE, Place::Lowest).unwrap());
        let page = |at: NonNull<u8>| (at.addr().get() - a.addr().get()) / PAGE;
        assert_eq!([a, b, c, d].map(page), [0, 2, 3, 7]);
        arena.free(a, 2 * PAGE);
        arena.free(c, 4 * PAGE);
        // Holes: pages 0 and 1, 3 to 6.
        let small = [Place::Lowest, Place::Smallest].map(|place| {
            let at = arena.alloc(PAGE, place).unwrap();
            arena.free(at, PAGE);
            page(at)
        });
        assert_eq!(small, [0, 1]);
        let e = arena.alloc(3 * PAGE, Place::Smallest).unwrap();
        assert_eq!((page(e), arena.segments[0].used), (4, 8 * PAGE));
        arena.free(d, PAGE);
        // What is larger than every hole starts in the last one.
        let f = arena.alloc(3 * PAGE, Place::Lowest).unwrap();
        assert_eq!((page(f), arena.segments[0].used), (7, 10 * PAGE));
    }

    #[test]
    fn more_than_the_system_has_is_refused() {
        for place in [Place::Lowest, Place::Smallest] {
            assert!(Arena::default().alloc(usize::MAX - 1, place).is_none());
            assert!(Arena::default().alloc(1 << 60, place).is_none());
        }
    }
}
