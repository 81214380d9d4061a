//! Integer functions that are more than an expression.

pub(super) fn mul24(a: u32, b: u32, high: bool, signed: bool) -> u32 {
    let cut = |v: u32| if signed { ((v << 8) as i32 >> 8) as i64 } else { (v & 0xff_ffff) as i64 };
    let product = cut(a) * cut(b);
    if high { (product >> 16) as u32 } else { product as u32 }
}

pub(super) fn field(word: u32, at: u32, bits: u32, signed: bool) -> i64 {
    let up = 32 - bits * (at + 1);
    if signed { ((word << up) as i32 >> (32 - bits)) as i64 } else { ((word << up) >> (32 - bits)) as i64 }
}

/// Bits `start` … `start + length` of `a`; past the highest bit the sign of the field repeats.
pub(super) fn bfe(a: u64, start: u32, length: u32, bits: u32, signed: bool) -> u64 {
    let (start, length) = (start & 255, length & 255);
    let at = |i: u32| if i < bits { a >> i & 1 } else { 0 };
    let sign = if !signed || length == 0 { 0 } else { at((start + length - 1).min(bits - 1)) };
    (0..bits).fold(0, |out, i| {
        let bit = if i < length && start + i < bits { at(start + i) } else { sign };
        out | bit << i
    })
}

/// `b` with the low `length` bits of `a` put in at `start`.
pub(super) fn bfi(a: u64, b: u64, start: u64, length: u64, bits: u32) -> u64 {
    let (start, length) = (start & 255, length & 255);
    (0..bits as u64).fold(0, |out, i| {
        let inside = i >= start && i < start + length;
        out | (if inside { a >> (i - start) & 1 } else { b >> i & 1 }) << i
    })
}

/// The place of the `n`-th set bit of `mask`, counted from `base`, downwards for negative `n`; all ones if none is.
pub(super) fn fns(mask: u32, base: u32, n: i32) -> u32 {
    let set = |i: i64| (0..32).contains(&i) && mask >> i & 1 == 1;
    let base = base as i64;
    if n == 0 {
        return if set(base) { base as u32 } else { u32::MAX };
    }
    let step = n.signum() as i64;
    let mut left = n.unsigned_abs();
    let mut at = base;
    while (0..32).contains(&at) {
        left -= set(at) as u32;
        if left == 0 {
            return at as u32;
        }
        at += step;
    }
    u32::MAX
}

pub(super) fn lop3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    (0..8).filter(|i| table >> i & 1 == 1).fold(0, |out, i: u32| {
        let pick = |v: u32, bit: u32| if i >> bit & 1 == 1 { v } else { !v };
        out | pick(a, 2) & pick(b, 1) & pick(c, 0)
    })
}

pub(super) fn prmt(a: u32, b: u32, selector: u32) -> u32 {
    let both = (b as u64) << 32 | a as u64;
    (0..4).fold(0, |out, i| {
        let s = selector >> (4 * i) & 15;
        let byte = (both >> (8 * (s & 7))) as u8;
        let byte = if s & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        out | (byte as u32) << (8 * i)
    })
}

/// Selectors of `prmt`'s modes by the last two bits of its third operand, from the table of the manual.
pub(super) fn prmt_mode(mode: &str) -> [u32; 4] {
    match mode {
        "f4e" => [0x3210, 0x4321, 0x5432, 0x6543],
        "b4e" => [0x5670, 0x6701, 0x7012, 0x0123],
        "rc8" => [0x0000, 0x1111, 0x2222, 0x3333],
        "ecl" => [0x3210, 0x3211, 0x3222, 0x3333],
        "ecr" => [0x0000, 0x1110, 0x2210, 0x3210],
        _ => [0x1010, 0x3232, 0x1010, 0x3232],
    }
}
