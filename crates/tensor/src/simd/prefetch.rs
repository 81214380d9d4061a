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

/// Asks for bytes that will be read later than what the first-level cache holds.
#[inline(always)]
pub fn ask_l2(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        // SAFETY: an address inside a slice.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
