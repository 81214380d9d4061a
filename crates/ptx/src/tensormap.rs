//! Tensor maps: what a bulk copy knows of a tensor in global memory.

use crate::error::{Error, Result};

/// How 16-byte pieces are exchanged within shared memory, so that columns are read without bank conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Swizzle {
    None,
    Bytes32,
    Bytes64,
    Bytes128,
}

impl Swizzle {
    /// Where the byte of an address is: bits 4 … 6 are exclusive-ored with bits 7 … 9, as many as the span has.
    pub fn apply(self, address: u64) -> u64 {
        let bits = match self {
            Swizzle::None => 0,
            Swizzle::Bytes32 => 1,
            Swizzle::Bytes64 => 3,
            Swizzle::Bytes128 => 7,
        };
        address ^ (address >> 7 & bits) << 4
    }

    /// Bytes of a row.
    pub fn span(self) -> usize {
        match self {
            Swizzle::None => 16,
            Swizzle::Bytes32 => 32,
            Swizzle::Bytes64 => 64,
            Swizzle::Bytes128 => 128,
        }
    }
}

/// A tiled tensor map, as `cuTensorMapEncodeTiled` makes them; the encoding is this crate's own.
///
/// What lies outside of the tensor reads as zero and is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Address of the first element; a multiple of 16.
    pub address: u64,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element: usize,
    /// Extents in elements, innermost first; one to five.
    pub extents: Vec<u64>,
    /// Strides in bytes of all dimensions but the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// Extents of a copied box, innermost first; at most 256 each.
    pub tile: Vec<u32>,
    /// How the box lies in shared memory.
    pub swizzle: Swizzle,
}

/// The first bytes of an encoded map.
const MAGIC: u32 = 0x70_61_4d_54;

impl TensorMap {
    /// The 128 bytes that a kernel takes as a parameter.
    ///
    /// # Errors
    /// [`Error::Memory`] at the map's address, with the field that the manual forbids.
    pub fn encode(&self) -> Result<[u8; 128]> {
        let fail = |message: String| Err(Error::Memory { address: self.address, bytes: 0, message });
        let rank = self.extents.len();
        if !(1..=5).contains(&rank) || self.strides.len() != rank - 1 || self.tile.len() != rank {
            return fail(format!("a tensor map of {rank} dimensions needs as many box extents, and a stride less"));
        }
        if !matches!(self.element, 1 | 2 | 4 | 8) {
            return fail(format!("elements of {} bytes, expected 1, 2, 4 or 8", self.element));
        }
        let even = |v: &u64| v.is_multiple_of(16) && *v < 1 << 60;
        if !even(&self.address) || !self.strides.iter().all(even) {
            return fail(format!("the address and the strides {:?} must be multiples of 16", self.strides));
        }
        if self.extents.iter().any(|&e| e == 0 || e > 1 << 32) || self.tile.iter().any(|&t| t == 0 || t > 256) {
            return fail(format!("extents {:?} must be 1 to 2^32, the box {:?} 1 to 256", self.extents, self.tile));
        }
        let row = self.tile[0] as usize * self.element;
        if !row.is_multiple_of(16) || (self.swizzle != Swizzle::None && row > self.swizzle.span()) {
            return fail(format!("a row of the box has {row} bytes: expected a multiple of 16 within the swizzle"));
        }
        let mut out = [0; 128];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC.to_le_bytes());
        put(&[rank as u8, self.element as u8, self.swizzle as u8, 0]);
        put(&self.address.to_le_bytes());
        for i in 0..5 {
            put(&self.extents.get(i).copied().unwrap_or(1).to_le_bytes());
        }
        for i in 0..4 {
            put(&self.strides.get(i).copied().unwrap_or(0).to_le_bytes());
        }
        for i in 0..5 {
            put(&self.tile.get(i).copied().unwrap_or(1).to_le_bytes());
        }
        Ok(out)
    }

    /// The map of 128 bytes; `None` if they are not one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<TensorMap> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if u32_at(0)? != MAGIC {
            return None;
        }
        let rank = bytes[4] as usize;
        let swizzle = match bytes[6] {
            0 => Swizzle::None,
            1 => Swizzle::Bytes32,
            2 => Swizzle::Bytes64,
            _ => Swizzle::Bytes128,
        };
        Some(TensorMap {
            address: u64_at(8)?,
            element: bytes[5] as usize,
            extents: (0..rank).map(|i| u64_at(16 + 8 * i)).collect::<Option<_>>()?,
            strides: (0..rank - 1).map(|i| u64_at(56 + 8 * i)).collect::<Option<_>>()?,
            tile: (0..rank).map(|i| u32_at(88 + 4 * i)).collect::<Option<_>>()?,
            swizzle,
        })
    }

    /// Pieces of the box at some coordinates: address in global memory, valid bytes there, address in shared memory.
    pub(crate) fn pieces(&self, coordinates: &[i32], shared: u64) -> Vec<(u64, usize, u64)> {
        let per_row = self.tile[0] as usize * self.element / 16;
        let rows: usize = self.tile[1..].iter().map(|&t| t as usize).product();
        let mut out = Vec::with_capacity(rows * per_row);
        for row in 0..rows {
            let (mut rest, mut address, mut inside) = (row, self.address, true);
            for d in 1..self.tile.len() {
                let at = coordinates[d] as i64 + (rest % self.tile[d] as usize) as i64;
                rest /= self.tile[d] as usize;
                inside &= at >= 0 && (at as u64) < self.extents[d];
                address = address.wrapping_add_signed(at.wrapping_mul(self.strides[d - 1] as i64));
            }
            for piece in 0..per_row {
                let first = coordinates[0] as i64 * self.element as i64 + 16 * piece as i64;
                let end = self.extents[0] as i64 * self.element as i64;
                let valid = if inside && first >= 0 { (end - first).clamp(0, 16) as usize } else { 0 };
                let linear = shared + (row * per_row + piece) as u64 * 16;
                out.push((address.wrapping_add_signed(first), valid, self.swizzle.apply(linear)));
            }
        }
        out
    }
}
