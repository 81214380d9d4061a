//! Asking for memory ahead of time, where the processor does not foresee what is read next. None of it changes results.

/// Asks for bytes that will be read soon: rows far apart are not foreseen by the processor. What lies outside is passed over.
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

/// Asks for the cache line of an address, for the second-level cache where it will be read, with leave to write where it will be
/// written. There need be nothing at the address.
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

/// Asks for what lies 4 KiB on, where kernels come back for the next row or block after a while of computing on this one, which the
/// processor does not foresee. There need be nothing.
#[inline(always)]
pub fn ahead<T>(from: &[T]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: asking for a line has no effect but on time, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().cast::<i8>().wrapping_add(4096));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}
