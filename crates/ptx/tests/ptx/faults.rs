//! A fault of each kind, planted, beside the same kernel without it.

use binade_ptx::FindingKind::{
    Deadlock, Divergence, InvalidOperand, Limit, Misaligned, OutOfBounds, Race, Trap, UninitialisedMemory,
    UninitialisedRegister,
};
use binade_ptx::{Arg, Device, FindingKind, Launch, Options};

use crate::common::{finds, module, run, words};

/// Registers and an address %x1 of the thread's word in a global buffer of 256 words at %x0.
fn body(text: &str) -> String {
    module(
        ".param .u64 a",
        &format!(
            ".shared .align 16 .b8 s[1024]; .reg .b32 %r<12>; .reg .b64 %x<6>; .reg .pred %p<6>; .reg .f32 %f<4>;
            ld.param.u64 %x0, [a]; mov.u32 %r0, %tid.x; mul.wide.u32 %x1, %r0, 4; add.u64 %x1, %x0, %x1;
            mov.u32 %r1, s; shl.b32 %r2, %r0, 2; add.u32 %r2, %r1, %r2;
            {text}
            ret;"
        ),
    )
}

fn buffer(device: &mut Device) -> Vec<Arg> {
    vec![words(device, &[7; 256]).into()]
}

fn check(threads: u32, good: &str, bad: &str, kind: FindingKind) {
    finds(&body(good), Launch::linear(1, threads), &[], buffer);
    finds(&body(bad), Launch::linear(1, threads), &[kind], buffer);
}

#[test]
fn accesses_outside_of_memory() {
    check(256, "ld.global.u32 %r3, [%x1];", "ld.global.u32 %r3, [%x1+4];", OutOfBounds);
    check(256, "st.global.u32 [%x1], 1;", "st.global.u32 [%x1+-4], 1;", OutOfBounds);
    check(256, "st.shared.u32 [%r2], 1;", "st.shared.u32 [%r2+4], 1;", OutOfBounds);
    check(1, "ld.global.u32 %r3, [%x0];", "mov.u64 %x0, 0; ld.global.u32 %r3, [%x0];", OutOfBounds);
    check(1, "red.global.add.u32 [%x0+1020], 1;", "red.global.add.u32 [%x0+1024], 1;", OutOfBounds);
}

#[test]
fn accesses_that_are_not_aligned() {
    check(
        1,
        "ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%x0+16];",
        "ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%x0+8];",
        Misaligned,
    );
    check(1, "st.shared.u16 [%r1+2], 1;", "st.shared.u16 [%r1+1], 1;", Misaligned);
}

#[test]
fn registers_and_memory_without_a_value() {
    check(1, "mov.u32 %r9, 1; add.u32 %r3, %r9, %r0;", "add.u32 %r3, %r9, %r0;", UninitialisedRegister);
    check(1, "setp.eq.u32 %p1, %r0, 0; @%p1 bra L; L:", "@%p1 bra L; L:", UninitialisedRegister);
    // A copy of nothing is still nothing.
    check(
        1,
        "mov.u32 %r9, 1; mov.u32 %r8, %r9; st.global.u32 [%x0], %r8;",
        "mov.u32 %r8, %r9; st.global.u32 [%x0], %r8;",
        UninitialisedRegister,
    );
    check(32, "st.shared.u32 [%r2], 1; ld.shared.u32 %r3, [%r2];", "ld.shared.u32 %r3, [%r2];", UninitialisedMemory);
    // What a lane that takes no part would send.
    check(
        32,
        "shfl.sync.idx.b32 %r3, %r0, 0, 31, -1; st.global.u32 [%x1], %r3;",
        "setp.lt.u32 %p1, %r0, 1; @%p1 bra L;
        shfl.sync.idx.b32 %r3, %r0, 0, 31, 0xfffffffe; st.global.u32 [%x1], %r3; L:",
        UninitialisedRegister,
    );
    let text = body("ld.global.u32 %r3, [%x1];");
    finds(&text, Launch::linear(1, 4), &[UninitialisedMemory], |d| vec![d.alloc(1024).unwrap().into()]);
}

/// Neighbours exchange words through shared memory.
fn exchange(before: &str, offset: u32) -> String {
    format!("st.shared.u32 [%r2], %r0; {before} xor.b32 %r3, %r2, {offset}; ld.shared.u32 %r4, [%r3];")
}

#[test]
fn races_in_shared_memory() {
    // Across warps.
    let launch = Launch::linear(1, 64);
    finds(&body(&exchange("bar.sync 0;", 128)), launch, &[], buffer);
    finds(&body(&exchange("", 128)), launch, &[Race, UninitialisedMemory], buffer);
    finds(&body(&exchange("bar.arrive 1, 128;", 128)), launch, &[Race, UninitialisedMemory], buffer);
    // Within a warp: lanes are ordered by barriers of the warp alone.
    check(32, &exchange("bar.warp.sync -1;", 4), &exchange("", 4), Race);
    // Reads before writes.
    let late = |between: &str| {
        format!("st.shared.u32 [%r2], 1; bar.sync 0; ld.shared.u32 %r3, [%r1]; {between} st.shared.u32 [%r2], 2;")
    };
    check(64, &late("bar.sync 0;"), &late(""), Race);
    // Two that write.
    check(64, "setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [%r1], %r0;", "st.shared.u32 [%r1], %r0;", Race);
    // Bytes of one word are apart.
    finds(&body("add.u32 %r3, %r1, %r0; st.shared.u8 [%r3], %r0;"), Launch::linear(1, 256), &[], buffer);
    // Atomics do not race with each other, but with what is plain.
    let flag = |op: &str| {
        format!("setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [%r1], 0; bar.sync 0; red.shared.add.u32 [%r1], 1; {op}")
    };
    check(64, &flag("bar.sync 0; ld.shared.u32 %r3, [%r1];"), &flag("ld.shared.u32 %r3, [%r1];"), Race);
}

#[test]
fn races_across_blocks() {
    let each = "mov.u32 %r3, %ctaid.x; mul.wide.u32 %x2, %r3, 512; add.u64 %x1, %x1, %x2; st.global.u32 [%x1], 1;";
    let launch = Launch::linear(2, 128);
    finds(&body(each), launch, &[], buffer);
    finds(&body("mov.u32 %r3, %ctaid.x; st.global.u32 [%x1], %r3;"), launch, &[Race], buffer);
    finds(&body("ld.global.u32 %r3, [%x1];"), launch, &[], buffer);
    let reads =
        "mov.u32 %r3, %ctaid.x; setp.eq.u32 %p1, %r3, 0; @%p1 st.global.u32 [%x1], 5; @!%p1 ld.global.u32 %r4, [%x1];";
    finds(&body(reads), launch, &[Race], buffer);
    // A counter orders nothing by itself.
    let text = "mov.u32 %r3, %ctaid.x; FENCE atom.global.add.u32 %r5, [%x0+1020], 1; FENCE st.global.u32 [%x0], %r3;";
    finds(&body(&text.replace("FENCE", "")), Launch::linear(2, 1), &[Race], buffer);
    finds(&body(&text.replace("FENCE", "fence.acq_rel.cta;")), Launch::linear(2, 1), &[Race], buffer);
}

#[test]
fn named_barriers_hand_over_between_warps() {
    let text = "setp.lt.u32 %p1, %r0, 32; @%p1 bra PRODUCE;
        bar.sync 1, 64; xor.b32 %r3, %r2, 128; ld.shared.u32 %r4, [%r3]; bra END;
        PRODUCE: st.shared.u32 [%r2], %r0; ARRIVE END:";
    let launch = Launch::linear(1, 64);
    finds(&body(&text.replace("ARRIVE", "bar.arrive 1, 64;")), launch, &[], buffer);
    finds(&body(&text.replace("ARRIVE", "bar.arrive 2, 64;")), launch, &[Deadlock], buffer);
    let early = text.replace("st.shared.u32 [%r2], %r0; ARRIVE", "bar.arrive 1, 64; st.shared.u32 [%r2], %r0;");
    finds(&body(&early), launch, &[Race, UninitialisedMemory], buffer);
}

#[test]
fn lanes_and_warps_that_do_not_meet() {
    check(
        32,
        "shfl.sync.idx.b32 %r3, %r0, 0, 31, -1;",
        "setp.lt.u32 %p1, %r0, 9; @%p1 bra L;
        shfl.sync.idx.b32 %r3, %r0, 9, 31, -1; bra E; L: bar.warp.sync 0x1ff; bar.sync 3; E:",
        Divergence,
    );
    check(32, "bar.warp.sync 0xffffffff;", "bar.warp.sync 0x0000ffff;", Divergence);
    check(64, "bar.sync 0;", "setp.lt.u32 %p1, %r0, 32; @%p1 bar.sync 1; @!%p1 bar.sync 0;", Deadlock);
    check(64, "bar.sync 2, 64;", "bar.sync 2, 96;", Deadlock);
    check(64, "bar.sync 2, 64;", "bar.sync 2, 33;", InvalidOperand);
}

#[test]
fn kernels_that_trap_or_do_not_end() {
    check(1, "setp.eq.u32 %p1, %r0, 0; @!%p1 trap;", "trap;", Trap);
    check(1, "", "L: bra L;", Limit);
}

#[test]
fn findings_name_the_line_of_the_source() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 a) {
        .reg .b32 %r<3>; .reg .b64 %x;
        .loc 1 10 0
        ld.param.u64 %x, [a];
        .loc 1 12 3
        st.global.u32 [%x+4096], 1;
        ret; }
        .file 1 \"copy.cu\"";
    let mut device = Device::new(Options::default());
    let args = buffer(&mut device);
    let report = run(&mut device, text, Launch::linear(1, 1), &args);
    let finding = &report.findings[0];
    assert_eq!(finding.at.source, Some(("copy.cu".to_string(), 12)));
    assert_eq!((finding.at.ptx_line, finding.at.lane, report.stopped), (9, Some(0), true));
    let told = finding.to_string();
    assert!(told.contains("copy.cu:12") && told.contains("byte 4096 of an allocation of 1024 bytes"), "{told}");
}

#[test]
fn both_sides_of_a_race_are_named() {
    let mut device = Device::new(Options::default());
    let args = buffer(&mut device);
    let report = run(&mut device, &body(&exchange("", 4)), Launch::linear(1, 32), &args);
    let race = &report.findings[0];
    assert_eq!(race.at.opcode, "ld.shared.u32");
    assert_eq!(race.other.as_ref().map(|o| o.opcode.as_str()), Some("st.shared.u32"));
}
