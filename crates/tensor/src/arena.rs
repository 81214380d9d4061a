//! Large buffers, cut from segments of the system's memory and joined with their neighbours when they come back.
//!
//! A free list per size would keep a buffer for every size that was ever in use at its own time: a training step's memory was up to 1.8
//! times what lived at once. The lowest hole that is large enough is taken, so that pages at the end are touched only when all others
//! are in use; a page that was never touched takes no memory.

use std::collections::BTreeMap;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};

/// Buffers start and end at pages.
const PAGE: usize = 4096;
/// Bytes of a segment, if nothing larger is asked for: address space, which costs nothing where untouched pages are not counted.
const SEGMENT: usize = if cfg!(target_os = "linux") { 1 << 30 } else { 64 << 20 };

/// Segments, and their holes by address. Neighbouring holes of a segment are one.
#[derive(Debug, Default)]
pub struct Arena {
    segments: Vec<MmapMut>,
    holes: BTreeMap<NonNull<u8>, usize>,
}

// SAFETY: holes are memory of the segments, which the arena owns.
unsafe impl Send for Arena {}

impl Arena {
    /// `bytes` bytes (more than 0), initialised, at the start of a page; `None` when the system has no memory left.
    pub fn alloc(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let bytes = bytes.checked_next_multiple_of(PAGE)?;
        let fits =
            |holes: &BTreeMap<NonNull<u8>, usize>| holes.iter().find(|(_, len)| **len >= bytes).map(|(at, len)| (*at, *len));
        let (at, len) = match fits(&self.holes) {
            Some(hole) => hole,
            None => self.grow(bytes)?,
        };
        self.holes.remove(&at);
        if len > bytes {
            // SAFETY: inside the hole.
            self.holes.insert(unsafe { at.add(bytes) }, len - bytes);
        }
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
            let start = NonNull::from(&segment[..]).cast();
            let unused = holes.get(&start) == Some(&segment.len());
            if unused {
                holes.remove(&start);
            }
            !unused
        });
    }

    /// Whether a segment starts here: its first hole is no continuation of what lies before it by chance.
    fn is_start(&self, at: NonNull<u8>) -> bool {
        self.segments.iter().any(|segment| segment.as_ptr() == at.as_ptr())
    }

    /// A new segment as a hole; no larger than it must be if that is all the system has.
    fn grow(&mut self, bytes: usize) -> Option<(NonNull<u8>, usize)> {
        let map = |len: usize| MmapOptions::new().len(len).no_reserve_swap().map_anon();
        let mut segment = map(bytes.max(SEGMENT)).or_else(|_| map(bytes)).ok()?;
        // Large pages, where the system has them: rows far apart would miss the processor's table of small ones.
        #[cfg(target_os = "linux")]
        let _ = segment.advise(memmap2::Advice::HugePage);
        let hole = (NonNull::new(segment.as_mut_ptr())?, segment.len());
        self.segments.push(segment);
        self.holes.insert(hole.0, hole.1);
        Some(hole)
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
            let buffers = sizes.map(|n| arena.alloc(n).unwrap());
            for i in order {
                arena.free(buffers[i], sizes[i]);
            }
            assert_eq!(arena.holes.len(), 1, "{order:?}");
            assert_eq!(arena.holes.values().sum::<usize>(), SEGMENT);
            arena.trim();
            assert!(arena.holes.is_empty() && arena.segments.is_empty());
        }
    }

    #[test]
    fn the_lowest_hole_is_taken_and_buffers_never_overlap() {
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
                let at = arena.alloc(bytes).unwrap();
                let end = at.addr().get() + bytes;
                assert!(live.iter().all(|(a, n)| end <= a.addr().get() || a.addr().get() + n <= at.addr().get()), "step {step}");
                live.push((at, bytes));
            }
        }
        let held: usize = arena.segments.iter().map(|s| s.len()).sum();
        let lent: usize = live.iter().map(|(_, n)| n.next_multiple_of(PAGE)).sum();
        assert_eq!(arena.holes.values().sum::<usize>() + lent, held);
        for (at, bytes) in live {
            arena.free(at, bytes);
        }
        assert_eq!(arena.holes.len(), arena.segments.len());
    }

    #[test]
    fn more_than_the_system_has_is_refused() {
        assert!(Arena::default().alloc(usize::MAX - 1).is_none());
        assert!(Arena::default().alloc(1 << 60).is_none());
    }
}
