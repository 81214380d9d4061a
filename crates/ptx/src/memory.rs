//! Memory with its shadow: bytes, and for each byte who wrote and read it last.

use crate::error::{Error, Result};

/// A run of bytes at an address.
///
/// The cell of a byte has the last write in its upper half and the last reads in its lower; see [`crate::shadow`].
#[derive(Debug, Default)]
pub(crate) struct Region {
    pub base: u64,
    pub data: Vec<u8>,
    pub cells: Vec<u64>,
}

impl Region {
    pub fn new(base: u64, bytes: usize) -> Region {
        Region { base, data: vec![0; bytes], cells: vec![0; bytes] }
    }

    /// Where an access begins, if all of it is inside.
    #[inline(always)]
    pub fn offset(&self, address: u64, bytes: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.base);
        let fits = offset <= self.data.len() as u64 && bytes as u64 <= self.data.len() as u64 - offset;
        fits.then_some(offset as usize)
    }
}

/// A value of one to eight bytes.
#[inline(always)]
pub(crate) fn read(data: &[u8], size: usize) -> u64 {
    match size {
        1 => data[0] as u64,
        2 => u16::from_le_bytes([data[0], data[1]]) as u64,
        4 => u32::from_le_bytes([data[0], data[1], data[2], data[3]]) as u64,
        _ => {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&data[..8]);
            u64::from_le_bytes(bytes)
        }
    }
}

/// Writes the low bytes of a value.
#[inline(always)]
pub(crate) fn write(data: &mut [u8], size: usize, value: u64) {
    match size {
        1 => data[0] = value as u8,
        2 => data[..2].copy_from_slice(&(value as u16).to_le_bytes()),
        4 => data[..4].copy_from_slice(&(value as u32).to_le_bytes()),
        _ => data[..8].copy_from_slice(&value.to_le_bytes()),
    }
}

/// Where the first allocation is.
const GLOBAL_START: u64 = 0x7000_0000_0000;
/// Alignment of allocations, as the driver's.
const ALIGN: u64 = 512;
/// Bytes between allocations, so that an access beyond the end of one never is in another.
const GAP: u64 = 4096;

/// Global memory: allocations in the order of their addresses, which are never used again.
#[derive(Debug)]
pub(crate) struct Memory {
    pub regions: Vec<Region>,
    next: u64,
    pub used: usize,
    limit: usize,
}

impl Memory {
    pub fn new(limit: usize) -> Memory {
        Memory { regions: Vec::new(), next: GLOBAL_START, used: 0, limit }
    }

    pub fn allocate(&mut self, bytes: usize) -> Result<u64> {
        if bytes > self.limit - self.used.min(self.limit) {
            return Err(Error::OutOfMemory { asked: bytes, used: self.used, limit: self.limit });
        }
        let base = self.next;
        self.next = (base + bytes as u64 + GAP).next_multiple_of(ALIGN);
        self.used += bytes;
        self.regions.push(Region::new(base, bytes));
        Ok(base)
    }

    pub fn free(&mut self, address: u64) -> Result<()> {
        match self.find(address) {
            Some(i) if self.regions[i].base == address => {
                self.used -= self.regions[i].data.len();
                self.regions.remove(i);
                Ok(())
            }
            _ => Err(Error::Memory { address, bytes: 0, message: "no allocation begins there".to_string() }),
        }
    }

    /// The allocation that begins at or before an address.
    #[inline]
    pub fn find(&self, address: u64) -> Option<usize> {
        self.regions.partition_point(|r| r.base <= address).checked_sub(1)
    }

    /// The allocation that holds all of a range, and the offset in it.
    pub fn locate(&self, address: u64, bytes: usize) -> Result<(usize, usize)> {
        let found = self.find(address).and_then(|i| Some((i, self.regions[i].offset(address, bytes)?)));
        found.ok_or_else(|| Error::Memory { address, bytes, message: self.describe(address) })
    }

    /// What is near an address, for messages.
    pub fn describe(&self, address: u64) -> String {
        match self.find(address) {
            Some(i) => {
                let r = &self.regions[i];
                let (at, bytes) = (address - r.base, r.data.len());
                if at < bytes as u64 + GAP {
                    return format!("byte {at} of an allocation of {bytes} bytes");
                }
                "not allocated".to_string()
            }
            None => "not allocated".to_string(),
        }
    }
}
