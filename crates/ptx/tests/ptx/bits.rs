//! Integers: wrapping, halves of products, shifts, fields, permutations.

use crate::common::{each, random, table};

#[test]
fn integers_wrap_and_saturate() {
    table("add.s32 %d, %a, %b;", "32", &[32, 32], &[([0x7fff_ffff, 1, 0], 0x8000_0000)]);
    table(
        "add.sat.s32 %d, %a, %b;",
        "32",
        &[32, 32],
        &[([0x7fff_ffff, 1, 0], 0x7fff_ffff), ([0x8000_0000, 0xffff_ffff, 0], 0x8000_0000)],
    );
    table("sub.u16 %d, %a, %b;", "16", &[16, 16], &[([0, 1, 0], 0xffff)]);
    table("sub.s64 %d, %a, %b;", "64", &[64, 64], &[([0, 1, 0], u64::MAX)]);
    table("neg.s32 %d, %a;", "32", &[32], &[([0x8000_0000, 0, 0], 0x8000_0000), ([1, 0, 0], 0xffff_ffff)]);
    table("abs.s16 %d, %a;", "16", &[16], &[([0xfffb, 0, 0], 5)]);
    table("div.s32 %d, %a, %b;", "32", &[32, 32], &[([0xffff_fff9, 2, 0], 0xffff_fffd)]);
    table("rem.s32 %d, %a, %b;", "32", &[32, 32], &[([0xffff_fff9, 2, 0], 0xffff_ffff)]);
    table("div.u64 %d, %a, %b;", "64", &[64, 64], &[([u64::MAX, 10, 0], u64::MAX / 10)]);
    table("max.s32 %d, %a, %b;", "32", &[32, 32], &[([0xffff_ffff, 1, 0], 1)]);
    table("max.u32 %d, %a, %b;", "32", &[32, 32], &[([0xffff_ffff, 1, 0], 0xffff_ffff)]);
    table("sad.s32 %d, %a, %b, %c;", "32", &[32, 32, 32], &[([0xffff_fffe, 3, 10], 15)]);
}

#[test]
fn products_give_low_high_and_wide_parts() {
    let values: Vec<u64> = random(300, 5);
    let inputs: Vec<[u64; 3]> = values.windows(3).map(|w| [w[0], w[1], w[2]]).collect();
    let narrow: Vec<[u64; 3]> = inputs.iter().map(|x| x.map(|v| v & 0xffff_ffff)).collect();
    type Function = fn(u64, u64, u64) -> u64;
    let rows: [(&str, &str, u32, Function); 12] = [
        ("mul.lo.u32 %d, %a, %b;", "32", 32, |a, b, _| a * b & 0xffff_ffff),
        ("mul.hi.u32 %d, %a, %b;", "32", 32, |a, b, _| a * b >> 32),
        ("mul.hi.s32 %d, %a, %b;", "32", 32, |a, b, _| (a as i32 as i64 * b as i32 as i64 >> 32) as u32 as u64),
        ("mul.wide.u32 %d, %a, %b;", "64", 32, |a, b, _| a * b),
        ("mul.wide.s32 %d, %a, %b;", "64", 32, |a, b, _| (a as i32 as i64 * b as i32 as i64) as u64),
        ("mad.lo.s32 %d, %a, %b, %c;", "32", 32, |a, b, c| (a * b + c) & 0xffff_ffff),
        ("mad.hi.u32 %d, %a, %b, %c;", "32", 32, |a, b, c| ((a * b >> 32) + c) & 0xffff_ffff),
        ("mul24.lo.u32 %d, %a, %b;", "32", 32, |a, b, _| (a & 0xff_ffff) * (b & 0xff_ffff) & 0xffff_ffff),
        ("mul24.hi.u32 %d, %a, %b;", "32", 32, |a, b, _| ((a & 0xff_ffff) * (b & 0xff_ffff) >> 16) & 0xffff_ffff),
        ("mul.lo.u64 %d, %a, %b;", "64", 64, |a, b, _| a.wrapping_mul(b)),
        ("mul.hi.u64 %d, %a, %b;", "64", 64, |a, b, _| (a as u128 * b as u128 >> 64) as u64),
        ("mul.hi.s64 %d, %a, %b;", "64", 64, |a, b, _| (a as i64 as i128 * b as i64 as i128 >> 64) as u64),
    ];
    for (instruction, to, bits, f) in rows {
        let inputs = if bits == 32 { &narrow } else { &inputs };
        for (out, x) in each(instruction, to, &[bits; 3], inputs).iter().zip(inputs) {
            assert_eq!(*out, f(x[0], x[1], x[2]), "{instruction} of {x:x?}");
        }
    }
    table("mul.wide.s16 %d, %a, %b;", "32", &[16, 16], &[([0xffff, 2, 0], 0xffff_fffe)]);
    table("mad.hi.sat.s32 %d, %a, %b, %c;", "32", &[32; 3], &[([0x7fff_ffff, 0x7fff_ffff, 0x7fff_ffff], 0x7fff_ffff)]);
}

#[test]
fn carries_link_words_of_a_long_number() {
    let instruction = "{ .reg .b32 %l<6>; .reg .b32 %h; mov.b64 {%l0, %l1}, %a; mov.b64 {%l2, %l3}, %b;
        add.cc.u32 %l4, %l0, %l2; addc.u32 %l5, %l1, %l3; mov.b64 %d, {%l4, %l5}; }";
    let rows: Vec<([u64; 3], u64)> =
        random(64, 2).windows(2).map(|w| ([w[0], w[1], 0], w[0].wrapping_add(w[1]))).collect();
    table(instruction, "64", &[64, 64], &rows);
    let instruction = instruction.replace("add", "sub");
    let rows: Vec<([u64; 3], u64)> =
        random(64, 2).windows(2).map(|w| ([w[0], w[1], 0], w[0].wrapping_sub(w[1]))).collect();
    table(&instruction, "64", &[64, 64], &rows);
    let wide = "{ .reg .b32 %l<8>; mov.b64 {%l0, %l1}, %a; mov.b64 {%l2, %l3}, %b;
        mul.lo.u32 %l4, %l0, %l2; mul.hi.u32 %l5, %l0, %l2;
        mad.lo.cc.u32 %l5, %l0, %l3, %l5; madc.hi.u32 %l6, %l0, %l3, 0; mad.lo.cc.u32 %l5, %l1, %l2, %l5;
        mov.b64 %d, {%l4, %l5}; }";
    let rows: Vec<([u64; 3], u64)> =
        random(64, 9).windows(2).map(|w| ([w[0], w[1], 0], w[0].wrapping_mul(w[1]))).collect();
    table(wide, "64", &[64, 64], &rows);
}

#[test]
fn shifts_clamp_and_funnels_wrap() {
    table("shl.b32 %d, %a, %b;", "32", &[32, 32], &[([1, 31, 0], 1 << 31), ([1, 32, 0], 0), ([1, 0xffff_ffff, 0], 0)]);
    table("shr.u32 %d, %a, %b;", "32", &[32, 32], &[([1 << 31, 31, 0], 1), ([1 << 31, 40, 0], 0)]);
    table("shr.s32 %d, %a, %b;", "32", &[32, 32], &[([1 << 31, 40, 0], 0xffff_ffff), ([4, 1, 0], 2)]);
    table("shr.s16 %d, %a, %b;", "16", &[16, 32], &[([0x8000, 16, 0], 0xffff), ([0x8000, 4, 0], 0xf800)]);
    table("shl.b64 %d, %a, %b;", "64", &[64, 32], &[([1, 63, 0], 1 << 63), ([1, 64, 0], 0)]);
    table("shf.l.wrap.b32 %d, %a, %b, %c;", "32", &[32; 3], &[([0x8000_0000, 1, 33], 3)]);
    table("shf.l.clamp.b32 %d, %a, %b, %c;", "32", &[32; 3], &[([0x8000_0001, 1, 33], 0x8000_0001)]);
    table("shf.r.wrap.b32 %d, %a, %b, %c;", "32", &[32; 3], &[([2, 1, 33], 0x8000_0001)]);
    table("shf.r.clamp.b32 %d, %a, %b, %c;", "32", &[32; 3], &[([2, 7, 40], 7)]);
}

#[test]
fn fields_and_counts_follow_the_manual() {
    table("popc.b64 %d, %a;", "32", &[64], &[([u64::MAX, 0, 0], 64), ([0, 0, 0], 0)]);
    table("clz.b32 %d, %a;", "32", &[32], &[([0, 0, 0], 32), ([1, 0, 0], 31)]);
    table("brev.b32 %d, %a;", "32", &[32], &[([1, 0, 0], 1 << 31)]);
    table("bfind.u32 %d, %a;", "32", &[32], &[([0, 0, 0], 0xffff_ffff), ([0x10, 0, 0], 4)]);
    table("bfind.s32 %d, %a;", "32", &[32], &[([0xffff_ffff, 0, 0], 0xffff_ffff), ([0xffff_ff0f, 0, 0], 7)]);
    table("bfind.shiftamt.u32 %d, %a;", "32", &[32], &[([0x10, 0, 0], 27)]);
    table(
        "bfe.u32 %d, %a, %b, %c;",
        "32",
        &[32; 3],
        &[([0xabcd_1234, 8, 8], 0x12), ([0xff, 4, 0], 0), ([0xf000_0000, 28, 8], 0xf)],
    );
    table(
        "bfe.s32 %d, %a, %b, %c;",
        "32",
        &[32; 3],
        &[([0x0000_0f00, 8, 4], 0xffff_ffff), ([0xf000_0000, 28, 8], 0xffff_ffff)],
    );
    table("bfe.u64 %d, %a, %b, %c;", "64", &[64, 32, 32], &[([0x1234_5678_9abc_def0, 32, 16], 0x5678)]);
    table("bfi.b32 %d, %a, %b, 8, 4;", "32", &[32, 32], &[([0xff, 0, 0], 0xf00)]);
    table("bfi.b64 %d, %a, %b, 32, 32;", "64", &[64, 64], &[([0x1111_1111, 0x2222_2222, 0], 0x1111_1111_2222_2222)]);
    table(
        "fns.b32 %d, %a, %b, %c;",
        "32",
        &[32; 3],
        &[([0b1010_1000, 0, 2], 5), ([0b1010_1000, 7, 0xffff_ffff], 7), ([8, 3, 0], 3), ([8, 0, 2], 0xffff_ffff)],
    );
    table("dp4a.s32.s32 %d, %a, %b, %c;", "32", &[32; 3], &[([0xff01_0203, 0x0101_0101, 10], 15)]);
    table("dp2a.lo.u32.u32 %d, %a, %b, %c;", "32", &[32; 3], &[([0x0002_0003, 0x0000_0504, 1], 23)]);
    table("szext.wrap.s32 %d, %a, %b;", "32", &[32; 2], &[([0x0f, 4, 0], 0xffff_ffff)]);
    table("bmsk.clamp.b32 %d, %a, %b;", "32", &[32; 2], &[([4, 8, 0], 0xff0)]);
}

#[test]
fn logic_by_table_and_bytes_by_selector() {
    for table_ in [0x80u64, 0x96, 0xe8, 0x1b] {
        let rows: Vec<([u64; 3], u64)> = random(30, 4)
            .windows(3)
            .map(|w| {
                let x = [w[0], w[1], w[2]].map(|v| v & 0xffff_ffff);
                let bit = |i: u32| table_ >> ((x[0] >> i & 1) << 2 | (x[1] >> i & 1) << 1 | x[2] >> i & 1) & 1;
                (x, (0..32).fold(0, |out, i| out | bit(i) << i))
            })
            .collect();
        table(&format!("lop3.b32 %d, %a, %b, %c, {table_};"), "32", &[32; 3], &rows);
    }
    let (a, b) = (0x3322_1100, 0x7766_5544);
    table(
        "prmt.b32 %d, %a, %b, %c;",
        "32",
        &[32; 3],
        &[([a, b, 0x7531], 0x7755_3311), ([0x80, b, 0x8888], 0xffff_ffff), ([a, b, 0x0123], 0x0011_2233)],
    );
    table("prmt.b32.f4e %d, %a, %b, %c;", "32", &[32; 3], &[([a, b, 1], 0x4433_2211)]);
    table("prmt.b32.rc16 %d, %a, %b, %c;", "32", &[32; 3], &[([a, b, 1], 0x3322_3322)]);
    table("not.b16 %d, %a;", "16", &[16], &[([0x00ff, 0, 0], 0xff00)]);
    table("cnot.b32 %d, %a;", "32", &[32], &[([0, 0, 0], 1), ([5, 0, 0], 0)]);
    table("xor.b64 %d, %a, %b;", "64", &[64, 64], &[([0xff00, 0x0ff0, 0], 0xf0f0)]);
}
