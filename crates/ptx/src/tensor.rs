//! Matrix instructions: their operands, and where each lane's registers are in the matrix.

use crate::code::{Address, Src};
use crate::num::dot::{Term, dot, term, unit};
use crate::num::{F16, F32, Format};
use crate::types::Type;

/// `ldmatrix`: one, two or four matrices of 8×8 elements of 16 bits.
#[derive(Debug)]
pub(crate) struct LoadMatrix {
    pub to: Vec<u32>,
    pub transposed: bool,
    pub address: Address,
}

/// `stmatrix`.
#[derive(Debug)]
pub(crate) struct StoreMatrix {
    pub from: Vec<Src>,
    pub transposed: bool,
    pub address: Address,
}

/// `mma.sync` with n = 8.
#[derive(Debug)]
pub(crate) struct Mma {
    pub m: usize,
    pub k: usize,
    /// Types of a, b, and of the accumulator.
    pub types: [Type; 3],
    pub saturate: bool,
    pub to: Vec<u32>,
    pub a: Vec<Src>,
    pub b: Vec<Src>,
    pub c: Vec<Src>,
}

/// `wgmma.mma_async` with m = 64.
#[derive(Debug)]
pub(crate) struct Wgmma {
    pub n: usize,
    pub k: usize,
    /// Types of a and b, and of the accumulator.
    pub types: [Type; 2],
    /// The accumulator's registers.
    pub d: Vec<u32>,
    /// A descriptor, or the registers of a fragment.
    pub a: Result<Src, Vec<Src>>,
    pub b: Src,
    /// Whether the accumulator is added; `None` is always.
    pub accumulate: Option<crate::code::Predicate>,
    pub never: bool,
    pub negate: [bool; 2],
    /// Whether an operand's rows run along m or n, rather than along k.
    pub transposed: [bool; 2],
}

/// Row and column (k) of element `e` of register `i` of operand A, for elements of `size` bytes.
pub(crate) fn place_a(lane: usize, i: usize, e: usize, size: usize) -> (usize, usize) {
    let each = 4 / size;
    (lane / 4 + 8 * (i & 1), lane % 4 * each + e + (i >> 1) * 4 * each)
}

/// k and column of element `e` of register `i` of operand B.
pub(crate) fn place_b(lane: usize, i: usize, e: usize, size: usize) -> (usize, usize) {
    let each = 4 / size;
    (lane % 4 * each + e + i * 4 * each, lane / 4)
}

/// Row and column of element `i` of the accumulator, of four; or of two for m = 8.
pub(crate) fn place_c(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + 8 * (i >> 1), lane % 4 * 2 + (i & 1))
}

/// The format of an operand's type, and how its bits are shifted in their element.
pub(crate) fn operand_format(ty: Type) -> Option<(Format, u32)> {
    match ty {
        // Of a word with a tf32 the lower bits are dropped.
        Type::TF32 => Some((crate::num::TF32, 13)),
        _ => Format::of(ty).map(|f| (f, 0)),
    }
}

/// The operands of a product, by rows of A and columns of B.
pub(crate) struct Operands {
    pub a: Vec<u32>,
    pub b: Vec<u32>,
    pub k: usize,
}

impl Operands {
    /// `c + row i of A × column j of B` on the tensor unit of a capability.
    pub fn floats(&self, ty: Type, capability: u32, half: bool) -> impl Fn(usize, usize, u64) -> u64 {
        let (f, shift) = operand_format(ty).unwrap_or((F32, 0));
        let parts = |bits: &[u32]| bits.iter().map(|&v| term((v >> shift) as u64, f)).collect::<Vec<Term>>();
        let (a, b, k) = (parts(&self.a), parts(&self.b), self.k);
        let unit = unit(capability);
        let step = (unit.bytes / ty.size()).min(k);
        move |i, j, c| {
            (0..k).step_by(step).fold(c, |c, at| {
                let (x, y) = (&a[i * k + at..i * k + at + step], &b[j * k + at..j * k + at + step]);
                dot(x, y, c, f, unit.fraction, half)
            })
        }
    }

    /// The same of 8-bit integers in 32 bits.
    pub fn integers(&self, types: [Type; 2], saturate: bool, i: usize, j: usize, c: u32) -> u32 {
        let of = |v: u32, ty: Type| if ty.is_signed() { v as u8 as i8 as i64 } else { v as u8 as i64 };
        let k = self.k;
        let sum: i64 = (0..k).map(|l| of(self.a[i * k + l], types[0]) * of(self.b[j * k + l], types[1])).sum();
        let sum = sum + c as i32 as i64;
        if saturate { sum.clamp(i32::MIN as i64, i32::MAX as i64) as u32 } else { sum as u32 }
    }
}

/// Whether an accumulator of this type holds two elements in a register.
pub(crate) fn is_half(ty: Type) -> bool {
    ty == Type::F16 && F16.man == 10
}
