//! Sectors of global memory and passes over the banks of shared memory.

use super::warp::lanes;
use crate::code::Lanes;

/// Sectors of 32 bytes that the lanes' accesses touch.
pub(crate) fn sectors(addresses: &Lanes, mask: u32, bytes: usize) -> u64 {
    if mask == u32::MAX && consecutive(addresses, bytes as u64) {
        return ((addresses[31] + bytes as u64 - 1) >> 5) - (addresses[0] >> 5) + 1;
    }
    // Neighbouring lanes mostly touch the same or the next sector: only what does not rise is sorted.
    let (mut count, mut last, mut rising) = (0u64, 0u64, true);
    let mut seen = [0u64; 64];
    for lane in lanes(mask) {
        let first = addresses[lane] >> 5;
        let end = (addresses[lane] + bytes as u64 - 1) >> 5;
        for sector in first..=end {
            if count > 0 && sector == last {
                continue;
            }
            rising &= count == 0 || sector > last;
            seen[count as usize & 63] = sector;
            (count, last) = (count + 1, sector);
        }
    }
    if rising || count > 64 {
        return count;
    }
    let seen = &mut seen[..count as usize];
    seen.sort_unstable();
    1 + seen.windows(2).filter(|w| w[0] != w[1]).count() as u64
}

/// Passes over the 32 banks of 4 bytes, and how many an access without conflicts needs.
///
/// Lanes are served together as long as their bytes fit in 128: all of them up to 4 bytes, half of them at 8, a quarter
/// at 16. Lanes that touch the same word share it.
pub(crate) fn passes(addresses: &Lanes, mask: u32, bytes: usize) -> (u64, u64) {
    let together = if bytes <= 4 { 32 } else { 128 / bytes.min(16) };
    let even = (bytes >= 4 && consecutive(addresses, bytes as u64)) || (bytes <= 4 && consecutive(addresses, 0));
    if mask == u32::MAX && even {
        return (32 / together as u64, 32 / together as u64);
    }
    let (mut total, mut least) = (0, 0);
    for start in (0..32).step_by(together) {
        let part = if together == 32 { mask } else { mask >> start & ((1 << together) - 1) };
        if part == 0 {
            continue;
        }
        let mut banks = [u64::MAX; 32];
        let mut more: Vec<u64> = Vec::new();
        for lane in lanes(part) {
            let address = addresses[start + lane];
            for word in address >> 2..=(address + bytes as u64 - 1) >> 2 {
                let bank = &mut banks[word as usize & 31];
                if *bank == u64::MAX {
                    *bank = word;
                } else if *bank != word {
                    more.push(word);
                }
            }
        }
        more.sort_unstable();
        more.dedup();
        let mut extra = [0u64; 32];
        for word in more {
            extra[word as usize & 31] += 1;
        }
        total += 1 + extra.iter().max().copied().unwrap_or(0);
        least += 1;
    }
    (total, least)
}

/// Whether each address lies `step` bytes after that of the lane before.
#[inline]
fn consecutive(addresses: &Lanes, step: u64) -> bool {
    let mut differ = 0;
    for (i, address) in addresses.iter().enumerate() {
        differ |= address ^ addresses[0].wrapping_add(i as u64 * step);
    }
    differ == 0
}

/// Whether the lanes of a mask have one address.
#[inline]
pub(crate) fn same(addresses: &Lanes, mask: u32) -> bool {
    let first = addresses[mask.trailing_zeros() as usize & 31];
    let differ = (0..32).fold(0, |m, i| m | ((addresses[i] != first) as u32) << i);
    differ & mask == 0
}
