//! Opcodes and edges that few kernels have; the expected numbers follow from the manual's formulas.

use binade_ptx::FindingKind::{Race, Trap};
use binade_ptx::{Device, Launch, Options};

use crate::common::{finds, module, read, run, table, words};

#[test]
fn integers_of_other_widths_and_signs() {
    table("mul.hi.s16 %d, %a, %b;", "16", &[16, 16], &[([0x8000, 0x8000, 0], 0x4000), ([0xffff, 1, 0], 0xffff)]);
    table("mul.hi.u16 %d, %a, %b;", "16", &[16, 16], &[([0xffff, 0xffff, 0], 0xfffe)]);
    table("mad.wide.s32 %d, %a, %b, %c;", "64", &[32, 32, 64], &[([0xffff_ffff, 2, 1], u64::MAX)]);
    table("mad.wide.u32 %d, %a, %b, %c;", "64", &[32, 32, 64], &[([0xffff_ffff, 2, 1], 0x1_ffff_ffff)]);
    table("mad.wide.u16 %d, %a, %b, %c;", "32", &[16, 16, 32], &[([0xffff, 0xffff, 1], 0xfffe_0002)]);
    table("mul24.lo.s32 %d, %a, %b;", "32", &[32, 32], &[([0x00ff_ffff, 3, 0], 0xffff_fffd)]);
    table("mad24.lo.u32 %d, %a, %b, %c;", "32", &[32; 3], &[([0xff00_0002, 3, 4], 10)]);
    table("rem.u64 %d, %a, %b;", "64", &[64, 64], &[([u64::MAX, 10, 0], 5)]);
    table("div.s32 %d, %a, %b;", "32", &[32, 32], &[([0x8000_0000, 0xffff_ffff, 0], 0x8000_0000)]);
    table("rem.s32 %d, %a, %b;", "32", &[32, 32], &[([7, 0xffff_fffe, 0], 1), ([0x8000_0000, 0xffff_ffff, 0], 0)]);
    table("min.s64 %d, %a, %b;", "64", &[64, 64], &[([u64::MAX, 1, 0], u64::MAX)]);
    table("min.u16 %d, %a, %b;", "16", &[16, 16], &[([0xffff, 1, 0], 1)]);
    table("abs.s64 %d, %a;", "64", &[64], &[([u64::MAX, 0, 0], 1), ([1 << 63, 0, 0], 1 << 63)]);
    table("sad.u32 %d, %a, %b, %c;", "32", &[32; 3], &[([3, 0xffff_fffe, 10], 0xffff_fffb + 10 & 0xffff_ffff)]);
    table("or.b32 %d, %a, %b;", "32", &[32, 32], &[([0xf0, 0x0f, 0], 0xff)]);
    table("and.b16 %d, %a, %b;", "16", &[16, 16], &[([0xf0f0, 0x0ff0, 0], 0x00f0)]);
}

#[test]
fn fields_are_clamped_where_they_leave_the_word() {
    // Only eight bits of position and length count; a field that begins past the word is empty.
    table(
        "bfi.b32 %d, %a, %b, %c, 8;",
        "32",
        &[32; 3],
        &[([0xff, 0, 28], 0xf000_0000), ([0xff, 7, 32], 7), ([0xff, 0, 256 + 4], 0xff0), ([0xff, 7, 255], 7)],
    );
    table("bfi.b32 %d, %a, %b, 4, %c;", "32", &[32; 3], &[([0xff, 7, 0], 7), ([0xffff_ffff, 0, 200], 0xffff_fff0)]);
    table("bfe.u32 %d, %a, %b, %c;", "32", &[32; 3], &[([0xff, 32, 8], 0), ([0xabcd, 256, 8], 0xcd)]);
    // Of a signed field beyond the word the sign is that of the word.
    table("bfe.s32 %d, %a, %b, %c;", "32", &[32; 3], &[([0x8000_0000, 40, 4], 0xffff_ffff), ([1 << 31, 3, 0], 0)]);
    table("bfe.s64 %d, %a, %b, %c;", "64", &[64, 32, 32], &[([0xf0, 4, 4], u64::MAX), ([0x70, 4, 4], 7)]);
    table("clz.b64 %d, %a;", "32", &[64], &[([0, 0, 0], 64), ([1, 0, 0], 63)]);
    table("brev.b64 %d, %a;", "64", &[64], &[([1, 0, 0], 1 << 63)]);
    table("bfind.u64 %d, %a;", "32", &[64], &[([1 << 40, 0, 0], 40), ([0, 0, 0], 0xffff_ffff)]);
    table("bfind.s64 %d, %a;", "32", &[64], &[([u64::MAX << 9, 0, 0], 8)]);
    table("szext.clamp.u32 %d, %a, %b;", "32", &[32; 2], &[([0xffff_ffff, 4, 0], 0xf), ([0xabcd, 40, 0], 0xabcd)]);
    table("bmsk.wrap.b32 %d, %a, %b;", "32", &[32; 2], &[([33, 4, 0], 0x1e)]);
    table("prmt.b32.b4e %d, %a, %b, %c;", "32", &[32; 3], &[([0x3322_1100, 0x7766_5544, 1], 0x6677_0011)]);
    table("prmt.b32.ecl %d, %a, %b, %c;", "32", &[32; 3], &[([0x3322_1100, 0x7766_5544, 2], 0x3322_2222)]);
    table("prmt.b32.ecr %d, %a, %b, %c;", "32", &[32; 3], &[([0x3322_1100, 0x7766_5544, 1], 0x1111_1100)]);
    table("prmt.b32.rc8 %d, %a, %b, %c;", "32", &[32; 3], &[([0x3322_1100, 0x7766_5544, 3], 0x3333_3333)]);
    table("dp4a.u32.s32 %d, %a, %b, %c;", "32", &[32; 3], &[([0xff00_0001, 0xff00_0002, 0], 0xffff_ff03)]);
    table("dp2a.hi.s32.s32 %d, %a, %b, %c;", "32", &[32; 3], &[([0x0001_ffff, 0x0203_0000, 0], 0xffff_ffff)]);
}

#[test]
fn floats_at_their_edges() {
    let (one, inf, nan) = (0x3f80_0000u64, 0x7f80_0000u64, 0x7fff_ffffu64);
    let minus = 1 << 31;
    table("sub.rn.f32 %d, %a, %b;", "32", &[32, 32], &[([inf, inf, 0], nan), ([one, one, 0], 0)]);
    table("mul.rn.f32 %d, %a, %b;", "32", &[32, 32], &[([inf, 0, 0], nan), ([minus, one, 0], minus)]);
    table("div.rn.f32 %d, %a, %b;", "32", &[32, 32], &[([one, minus, 0], inf | minus), ([0, 0, 0], nan)]);
    table("sqrt.rn.f32 %d, %a;", "32", &[32], &[([minus, 0, 0], minus), ([one | minus, 0, 0], nan)]);
    table("rcp.rm.f32 %d, %a;", "32", &[32], &[([0x4040_0000, 0, 0], 0x3eaa_aaaa), ([minus, 0, 0], inf | minus)]);
    // The product is not rounded: 1 + 2⁻²³ squared less 1 + 2⁻²² is 2⁻⁴⁶.
    table("fma.rn.f32 %d, %a, %a, %b;", "32", &[32, 32], &[([0x3f80_0001, 0xbf80_0002, 0], 0x2880_0000)]);
    table("fma.rn.f32 %d, %a, %b, %c;", "32", &[32; 3], &[([inf, 0, one], nan), ([inf, one, inf | minus], nan)]);
    // Overflow goes to the largest number where it is rounded toward zero.
    let most = 0x7f7f_ffff;
    table("add.rz.f32 %d, %a, %b;", "32", &[32, 32], &[([most, most, 0], most)]);
    table(
        "add.rm.f32 %d, %a, %b;",
        "32",
        &[32, 32],
        &[([most, most, 0], most), ([most | minus, most | minus, 0], inf | minus)],
    );
    table("neg.f32 %d, %a;", "32", &[32], &[([0, 0, 0], minus)]);
    table("abs.f64 %d, %a;", "64", &[64], &[([(-0.0f64).to_bits(), 0, 0], 0)]);
    table(
        "testp.normal.f64 %p0, %a;",
        "p",
        &[64],
        &[([1, 0, 0], 0), ([1f64.to_bits(), 0, 0], 1), ([1 << 63, 0, 0], 1)],
    );
    table("ex2.approx.f32 %d, %a;", "32", &[32], &[([inf | minus, 0, 0], 0), ([0, 0, 0], one)]);
    table("lg2.approx.f32 %d, %a;", "32", &[32], &[([0, 0, 0], inf | minus), ([one | minus, 0, 0], nan)]);
    table("rsqrt.approx.f32 %d, %a;", "32", &[32], &[([0, 0, 0], inf), ([minus, 0, 0], inf | minus), ([inf, 0, 0], 0)]);
    table("tanh.approx.f32 %d, %a;", "32", &[32], &[([inf, 0, 0], one), ([minus, 0, 0], minus)]);
}

#[test]
fn sources_of_nan_and_of_too_much_become_the_manuals_integers() {
    let (nan, huge) = (0x7fc0_0000u64, 0x7f00_0000u64);
    table("cvt.rzi.u32.f32 %d, %a;", "32", &[32], &[([nan, 0, 0], 0), ([huge, 0, 0], 0xffff_ffff)]);
    table("cvt.rzi.s64.f32 %d, %a;", "64", &[32], &[([nan, 0, 0], 1 << 63), ([huge, 0, 0], i64::MAX as u64)]);
    table("cvt.rzi.u64.f32 %d, %a;", "64", &[32], &[([nan, 0, 0], 1 << 63), ([huge, 0, 0], u64::MAX)]);
    table("cvt.rzi.s32.f64 %d, %a;", "32", &[64], &[([f64::NAN.to_bits(), 0, 0], 1 << 31)]);
    table("cvt.rzi.s16.f32 %d, %a;", "16", &[32], &[([huge, 0, 0], 0x7fff), ([huge | 1 << 31, 0, 0], 0x8000)]);
    table("cvt.rzi.ftz.u32.f32 %d, %a;", "32", &[32], &[([1, 0, 0], 0)]);
    table("cvt.ftz.f64.f32 %d, %a;", "64", &[32], &[([1, 0, 0], 0)]);
    table("cvt.f64.f32 %d, %a;", "64", &[32], &[([1, 0, 0], 2f64.powi(-149).to_bits())]);
}

#[test]
fn lanes_of_a_guard_alone_execute() {
    let body = "mov.u32 %d, 1; setp.lt.u32 %p0, %a, 5; @%p0 mov.u32 %d, 2; @!%p0 add.u32 %d, %d, 6;";
    table(body, "32", &[32], &[([3, 0, 0], 2), ([7, 0, 0], 7)]);
    table("setp.lt.u32 %p1, %a, 5; and.pred %p0, %p1, !%p1;", "p", &[32], &[([3, 0, 0], 0)]);
    table("setp.lt.u32 %p1, %a, 5; or.pred %p0, %p1, !%p1;", "p", &[32], &[([3, 0, 0], 1)]);
}

#[test]
fn hints_and_fences_change_no_value() {
    let text = module(
        ".param .u64 a",
        ".reg .b32 %r<4>; .reg .b64 %x<2>;
        ld.param.u64 %x0, [a]; prefetch.global.L2 [%x0]; prefetchu.L1 [%x0]; ldu.global.u32 %r0, [%x0];
        membar.cta; membar.gl; fence.sc.gpu; nanosleep.u32 20; applypriority.global.L2::evict_normal [%x0], 128;
        add.u32 %r0, %r0, 1; barrier.sync 0; st.global.u32 [%x0], %r0; exit;",
    );
    let mut device = Device::new(Options::default());
    let a = words(&mut device, &[6; 32]);
    let report = run(&mut device, &text, Launch::linear(1, 1), &[a.into()]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(read(&device, a, 1), [7]);
}

#[test]
fn atomics_of_other_kinds() {
    let text = module(
        ".param .u64 a",
        ".reg .b32 %r<9>; .reg .b64 %x<4>; .reg .f64 %d<2>;
        ld.param.u64 %x0, [a]; mov.u32 %r0, %laneid;
        red.global.and.b32 [%x0], %r0; atom.global.dec.u32 %r1, [%x0+4], 9; atom.global.exch.b32 %r2, [%x0+8], 5;
        mov.f64 %d0, 0d3FF0000000000000; red.global.add.f64 [%x0+16], %d0;
        mov.u64 %x1, 1; atom.global.add.u64 %x2, [%x0+24], %x1;
        red.global.add.noftz.f16x2 [%x0+32], 0x3c003c00; red.global.max.s32 [%x0+36], -3; ret;",
    );
    let mut device = Device::new(Options::default());
    let a = words(&mut device, &[0xff, 3, 0, 0, 0, 0, u32::MAX, 0, 0, -7i32 as u32]);
    let report = run(&mut device, &text, Launch::linear(1, 32), &[a.into()]);
    assert!(report.is_clean(), "{report}");
    let [low, high] = [32f64.to_bits() as u32, (32f64.to_bits() >> 32) as u32];
    // 32 steps down from 3 around 10 numbers: 3, 2, 1, 0, 9, … ends at 1.
    assert_eq!(read(&device, a, 10), [0, 1, 5, 0, low, high, 31, 1, 0x5000_5000, -3i32 as u32]);
}

#[test]
fn a_trap_is_a_finding() {
    finds(&module("", "trap; ret;"), Launch::linear(1, 1), &[Trap], |_| vec![]);
}

/// The readers of a word are a set, and so are those who count in it: copied for every block that joins, the sets of
/// this launch would be of 40 GB.
#[test]
fn a_word_that_every_block_reads_costs_each_of_them_the_same() {
    const BLOCKS: u32 = 100_000;
    let text = module(
        ".param .u64 a",
        ".reg .b32 %r<4>; .reg .b64 %x<4>;
        ld.param.u64 %x0, [a]; ld.global.u32 %r0, [%x0]; red.global.add.u32 [%x0+4], 1;
        mov.u32 %r1, %ctaid.x; mul.wide.u32 %x1, %r1, 4; add.u64 %x1, %x0, %x1; st.global.u32 [%x1+8], %r0; ret;",
    );
    let mut device = Device::new(Options::default());
    let a = words(&mut device, &vec![0; BLOCKS as usize + 2]);
    let report = run(&mut device, &text, Launch::linear(BLOCKS, 1), &[a.into()]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(read(&device, a + 4, 1), [BLOCKS]);
    // Who writes it then races with one of them.
    let writes = text.replace("ld.global.u32 %r0, [%x0]", "mov.u32 %r0, 1").replace("[%x1+8]", "[%x0+4]");
    let report = run(&mut device, &writes, Launch::linear(BLOCKS, 1), &[a.into()]);
    assert!(report.has(Race), "{report}");
}
