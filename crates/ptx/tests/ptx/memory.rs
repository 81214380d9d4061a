//! Loads, stores, atomics, spaces, and the counters of traffic.

use binade_ptx::{Device, Launch, Options};

use crate::common::{module, read, run, words};

#[test]
fn vectors_and_narrow_types_are_loaded_and_stored() {
    let text = module(
        ".param .u64 in, .param .u64 out",
        ".reg .b32 %r<9>; .reg .b64 %x<6>; .reg .b16 %h<4>;
        ld.param.u64 %x0, [in]; ld.param.u64 %x1, [out];
        ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%x0];
        st.global.v2.u32 [%x1], {%r3, %r2};
        ld.global.s8 %r4, [%x0+3]; st.global.u32 [%x1+8], %r4;
        ld.global.u16 %h0, [%x0+2]; st.global.u16 [%x1+12], %h0; st.global.u8 [%x1+14], %h0; st.global.u8 [%x1+15], 7;
        ld.global.nc.L1::no_allocate.v2.u64 {%x2, %x3}, [%x0]; st.global.cs.u64 [%x1+16], %x3; ret;",
    );
    let mut device = Device::new(Options::default());
    let input = words(&mut device, &[0x8122_3344, 2, 3, 4]);
    let out = device.alloc(24).unwrap();
    let report = run(&mut device, &text, Launch::linear(1, 1), &[input.into(), out.into()]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(read(&device, out, 6), [4, 3, 0xffff_ff81, 0x0722_8122, 3, 4]);
}

#[test]
fn generic_addresses_reach_every_space() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64
        .const .align 4 .u32 c[2] = {11, 12};
        .global .align 4 .u32 g = 13;
        .visible .entry k(.param .u64 out, .param .u32 p) {
            .local .align 8 .b8 depot[16]; .shared .align 4 .u32 s;
            .reg .b32 %r<9>; .reg .b64 %x<12>; .reg .pred %p<3>;
            ld.param.u64 %x0, [out];
            cvta.const.u64 %x1, c; ld.u32 %r0, [%x1+4];
            cvta.global.u64 %x2, g; ld.u32 %r1, [%x2];
            mov.u64 %x3, depot; cvta.local.u64 %x4, %x3; st.u32 [%x4+8], 14; ld.local.u32 %r2, [depot+8];
            mov.u64 %x5, s; cvta.shared.u64 %x6, %x5; st.u32 [%x6], 15; ld.shared.u32 %r3, [s];
            cvta.param.u64 %x7, p; ld.u32 %r4, [%x7];
            isspacep.shared %p0, %x6; selp.u32 %r5, 1, 0, %p0; isspacep.global %p1, %x6; selp.u32 %r6, 1, 0, %p1;
            cvta.to.shared.u64 %x8, %x6; ld.shared.u32 %r7, [%x8];
            st.global.v4.u32 [%x0], {%r0, %r1, %r2, %r3}; st.global.v4.u32 [%x0+16], {%r4, %r5, %r6, %r7}; ret;
        }";
    let mut device = Device::new(Options::default());
    let out = device.alloc(32).unwrap();
    let report = run(&mut device, text, Launch::linear(1, 1), &[out.into(), 16u32.into()]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(read(&device, out, 8), [12, 13, 14, 15, 16, 1, 0, 15]);
}

#[test]
fn atomics_combine_the_values_of_all_lanes() {
    let text = module(
        ".param .u64 a",
        ".reg .b32 %r<9>; .reg .b64 %x<4>; .reg .f32 %f<2>;
        ld.param.u64 %x0, [a]; mov.u32 %r0, %tid.x;
        atom.global.add.u32 %r1, [%x0], %r0; red.global.max.s32 [%x0+4], %r0; red.global.min.u32 [%x0+8], %r0;
        red.global.or.b32 [%x0+12], %r0; atom.global.inc.u32 %r2, [%x0+16], 9; red.global.xor.b32 [%x0+20], %r0;
        mov.f32 %f0, 0f3F000000; red.global.add.f32 [%x0+24], %f0;
        atom.global.cas.b32 %r3, [%x0+28], 5, %r0; ret;",
    );
    let mut device = Device::new(Options::default());
    let a = words(&mut device, &[0, 0, 99, 0, 0, 0, 0, 6]);
    let report = run(&mut device, &text, Launch::linear(2, 64), &[a.into()]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(read(&device, a, 8), [4032, 63, 0, 63, 128 % 10, 0, 64f32.to_bits(), 6]);
    assert_eq!(report.counters.float_atomics, 128);
}

#[test]
fn sectors_and_bank_conflicts_are_counted() {
    // Lane i touches word i · stride.
    let traffic = |stride: u32| {
        let text = module(
            ".param .u64 a",
            &format!(
                ".shared .align 4 .u32 s[1056]; .reg .b32 %r<9>; .reg .b64 %x<4>;
                ld.param.u64 %x0, [a]; mov.u32 %r0, %tid.x; mul.lo.u32 %r1, %r0, {stride};
                mul.wide.u32 %x1, %r1, 4; add.u64 %x1, %x0, %x1; ld.global.u32 %r2, [%x1];
                shl.b32 %r3, %r1, 2; mov.u32 %r4, s; add.u32 %r3, %r3, %r4; st.shared.u32 [%r3], %r2; ret;"
            ),
        );
        let mut device = Device::new(Options::default());
        let a = words(&mut device, &[0; 1056]);
        let report = run(&mut device, &text, Launch::linear(1, 32), &[a.into()]);
        assert!(report.is_clean(), "{report}");
        (report.counters.sectors_read, report.counters.shared_passes, report.counters.bank_conflicts)
    };
    assert_eq!(traffic(1), (4, 1, 0));
    assert_eq!(traffic(2), (8, 2, 1));
    assert_eq!(traffic(32), (32, 32, 31));
    assert_eq!(traffic(33), (32, 1, 0));
}

#[test]
fn what_one_block_publishes_another_may_read() {
    // The last block to arrive adds up what the others have left: release and acquire by fences around the counter.
    let text = module(
        ".param .u64 part, .param .u64 count, .param .u64 out",
        ".reg .b32 %r<9>; .reg .b64 %x<6>; .reg .pred %p<3>;
        ld.param.u64 %x0, [part]; ld.param.u64 %x1, [count]; ld.param.u64 %x2, [out];
        mov.u32 %r0, %ctaid.x; mul.wide.u32 %x3, %r0, 4; add.u64 %x3, %x0, %x3; st.global.u32 [%x3], %r0;
        fence.acq_rel.gpu; atom.global.add.u32 %r1, [%x1], 1; fence.acq_rel.gpu;
        setp.ne.u32 %p0, %r1, 7; @%p0 bra END;
        mov.u32 %r2, 0; mov.u32 %r3, 0;
        L: ld.global.u32 %r4, [%x0]; add.u64 %x0, %x0, 4; add.u32 %r2, %r2, %r4; add.u32 %r3, %r3, 1;
        setp.lt.u32 %p1, %r3, 8; @%p1 bra L;
        st.global.u32 [%x2], %r2; END: ret;",
    );
    for seed in 0..4 {
        let mut device = Device::new(Options { seed, ..Options::default() });
        let (part, count) = (device.alloc(32).unwrap(), words(&mut device, &[0]));
        let out = device.alloc(4).unwrap();
        let report = run(&mut device, &text, Launch::linear(8, 1), &[part.into(), count.into(), out.into()]);
        assert!(report.is_clean(), "{report}");
        assert_eq!(read(&device, out, 1), [28]);
    }
}

#[test]
fn a_block_that_spins_for_another_gives_way() {
    let text = module(
        ".param .u64 flag",
        ".reg .b32 %r<4>; .reg .b64 %x<2>; .reg .pred %p<3>;
        ld.param.u64 %x0, [flag]; mov.u32 %r0, %ctaid.x; setp.ne.u32 %p0, %r0, 0; @%p0 bra SET;
        L: ld.acquire.gpu.global.u32 %r1, [%x0]; setp.eq.u32 %p1, %r1, 0; @%p1 bra L; ret;
        SET: st.release.gpu.global.u32 [%x0], 1; ret;",
    );
    let mut device = Device::new(Options::default());
    let flag = words(&mut device, &[0]);
    let report = run(&mut device, &text, Launch::linear(2, 1), &[flag.into()]);
    assert!(report.is_clean(), "{report}");
}
