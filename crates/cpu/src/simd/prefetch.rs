//! Asking for memory ahead of time, where the processor does not foresee what is read next. None of it changes results.

/// Asks for bytes that will be read soon: rows far apart are not foreseen by the processor. What lies outside is passed
/// over.
pub fn ask(bytes: &[u8], start: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(part) = bytes.get(start..(start + len).min(bytes.len())) {
        for line in part.chunks(64) {
            // SAFETY: an address inside a slice.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast());
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, start, len);
}

/// Asks for the cache line of an address that will be read soon. There need be nothing at the address.
#[inline(always)]
pub fn ask_line<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: asking for a line has no effect but on time, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for the cache line of an address: for the second-level cache where it will be read, for the first where it will
/// be written. It asks for leave to write if the code is compiled for a processor with that instruction. There need be
/// nothing at the address.
#[inline(always)]
pub fn ask_later(address: usize, written: bool) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: asking for a line has no effect but on time, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};
        let at = std::ptr::without_provenance(address);
        if written { _mm_prefetch::<_MM_HINT_ET0>(at) } else { _mm_prefetch::<_MM_HINT_T1>(at) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, written);
}

/// How far ahead loops over whole tensors ask: the processor foresees what is read in order, but not beyond the end of
/// a page of 4 KiB, and what is written not at all.
const TO_READ: usize = 4096;
const TO_WRITE: usize = 1024;

/// Elements from which on a slice is taken for memory to be walked through; a shorter one is a block, which is in a
/// cache, and beyond which lies something else.
const STREAM: usize = 4096;

/// Distances to read and to write ahead, in bytes, for [`ask_later`] in a loop over `n` elements; none for a block.
#[inline(always)]
pub fn distances(n: usize) -> [usize; 2] {
    if n >= STREAM { [TO_READ, TO_WRITE] } else { [0, 0] }
}

/// In a loop over memory that is read in order, at one place of it: asks for what is read later.
#[inline(always)]
pub fn ask_to_read<T>(at: *const T) {
    ask_later(at.addr() + TO_READ, false);
}

/// As [`ask_to_read`], for what is written later.
#[inline(always)]
pub fn ask_to_write<T>(at: *const T) {
    ask_later(at.addr() + TO_WRITE, true);
}

/// Bytes from which on an output is written past the caches by kernels that can: they would not keep it until it is
/// read, and a line that is written into a cache is read from memory first.
const PAST: usize = 48 << 20;

/// Whether an output of so many bytes is written past the caches.
pub fn is_past(bytes: usize) -> bool {
    bytes >= PAST
}

/// Makes what this thread wrote past the caches visible to others, before anything it writes from now on.
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, which only waits.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// What is read and written after the work on something else, and asked for piece by piece beside that work: all at
/// once it would wait for the few requests that a core can have under way.
#[derive(Clone, Copy)]
pub struct Beside {
    read: Place,
    write: Place,
}

/// An address, and the bytes of a piece.
type Place = [usize; 2];

impl Beside {
    /// Elements of a piece.
    pub const PIECE: usize = 16;

    /// What follows a slice in memory, to be read (there need be nothing), and a slice that will be written.
    pub fn new<X, Y>(after: &[X], write: &[Y]) -> Beside {
        let read = [after.as_ptr_range().end.addr(), Beside::PIECE * size_of::<X>()];
        Beside { read, write: [write.as_ptr().addr(), Beside::PIECE * size_of::<Y>()] }
    }

    /// Asks for piece `i` of both.
    #[inline(always)]
    pub fn ask(&self, i: usize) {
        let at = |[start, step]: Place| start.wrapping_add(i * step);
        ask_later(at(self.read), false);
        ask_later(at(self.write), true);
    }
}
