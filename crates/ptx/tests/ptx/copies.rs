//! `cp.async`: data lands when its group is waited for.

use binade_ptx::FindingKind::{InFlight, InvalidOperand, Race, UninitialisedMemory};
use binade_ptx::{Device, Launch, Options};

use crate::common::{finds, module, read, run, words};

/// Each thread copies 16 bytes in two groups of eight; SYNC stands between copy and use.
fn text(between: &str) -> String {
    module(
        ".param .u64 a, .param .u64 out",
        &format!(
            ".shared .align 16 .b8 s[1024]; .reg .b32 %r<12>; .reg .b64 %x<6>; .reg .pred %p<4>;
            ld.param.u64 %x0, [a]; ld.param.u64 %x1, [out]; mov.u32 %r0, %tid.x; mul.wide.u32 %x2, %r0, 16;
            add.u64 %x3, %x0, %x2; add.u64 %x4, %x1, %x2; mov.u32 %r1, s; shl.b32 %r2, %r0, 4; add.u32 %r2, %r1, %r2;
            cp.async.ca.shared.global [%r2], [%x3], 8; cp.async.commit_group;
            cp.async.ca.shared.global [%r2+8], [%x3+8], 8; cp.async.commit_group;
            {between}
            xor.b32 %r3, %r2, 512;
            ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r3]; st.global.v4.u32 [%x4], {{%r4, %r5, %r6, %r7}}; ret;"
        ),
    )
}

#[test]
fn copies_land_at_the_wait_of_their_group() {
    let values: Vec<u32> = (0..256).collect();
    let mut device = Device::new(Options::default());
    let (a, out) = (words(&mut device, &values), device.alloc(1024).unwrap());
    let good = text("cp.async.wait_group 0; bar.sync 0;");
    let report = run(&mut device, &good, Launch::linear(1, 64), &[a.into(), out.into()]);
    assert!(report.is_clean(), "{report}");
    let expected: Vec<u32> = (0..256).map(|i| i ^ 128).collect();
    assert_eq!(read(&device, out, 256), expected);
    assert_eq!(report.counters.sectors_read, 64);
}

#[test]
fn reads_before_the_wait_are_found() {
    let arguments = |d: &mut Device| vec![words(d, &[1; 256]).into(), d.alloc(1024).unwrap().into()];
    let launch = Launch::linear(1, 64);
    finds(&text("cp.async.wait_all; bar.sync 0;"), launch, &[], arguments);
    finds(&text("bar.sync 0;"), launch, &[InFlight], arguments);
    finds(&text("cp.async.wait_group 1; bar.sync 0;"), launch, &[InFlight], arguments);
    // Waited for, but by the other warp, which is not met.
    finds(&text("cp.async.wait_group 0;"), launch, &[InFlight, Race, UninitialisedMemory], arguments);
    // Waiting after the barrier orders only one's own copies.
    finds(&text("bar.sync 0; cp.async.wait_group 0;"), launch, &[InFlight], arguments);
    // The target is written again while the copy is under way.
    finds(&text("st.shared.u32 [%r2], 1; cp.async.wait_group 0; bar.sync 0;"), launch, &[InFlight], arguments);
}

#[test]
fn what_is_not_copied_is_zero() {
    let body = |read: &str| {
        module(
            ".param .u64 a, .param .u64 out",
            &format!(
                ".shared .align 16 .b8 s[64]; .reg .b32 %r<12>; .reg .b64 %x<6>; .reg .pred %p<4>;
                ld.param.u64 %x0, [a]; ld.param.u64 %x1, [out]; mov.u32 %r1, s; setp.eq.u32 %p0, %r1, %r1;
                cp.async.cg.shared.global.L2::128B [%r1], [%x0], 16, {read}; cp.async.wait_all;
                ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r1]; st.global.v4.u32 [%x1], {{%r4, %r5, %r6, %r7}}; ret;"
            ),
        )
    };
    let launch = Launch::linear(1, 1);
    for (read_, expected) in [("8", [1, 2, 0, 0]), ("0", [0; 4]), ("%p0", [0; 4]), ("!%p0", [1, 2, 3, 4])] {
        let mut device = Device::new(Options::default());
        let (a, out) = (words(&mut device, &[1, 2, 3, 4]), device.alloc(16).unwrap());
        let report = run(&mut device, &body(read_), launch, &[a.into(), out.into()]);
        assert!(report.is_clean(), "{report}");
        assert_eq!(read(&device, out, 4), expected, "{read_}");
    }
    finds(&body("17"), launch, &[InvalidOperand], |d| vec![words(d, &[1; 4]).into(), d.alloc(16).unwrap().into()]);
    finds(&body("16"), launch, &[UninitialisedMemory], |d| {
        vec![d.alloc(16).unwrap().into(), d.alloc(16).unwrap().into()]
    });
}
