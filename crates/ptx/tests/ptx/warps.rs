//! What lanes exchange, divergence and reconvergence, barriers.

use binade_ptx::{Device, Launch, Options};

use crate::common::{module, read, run, words};

/// Runs a body over one warp that leaves a word in %r for each lane; %l is the lane.
fn lanes(body: &str) -> Vec<u32> {
    let text = module(
        ".param .u64 out",
        &format!(
            ".reg .b32 %r; .reg .b32 %l; .reg .b32 %t<8>; .reg .b64 %x<4>; .reg .pred %p<6>;
            ld.param.u64 %x0, [out]; mov.u32 %l, %laneid;
            {body}
            mul.wide.u32 %x1, %l, 4; add.u64 %x1, %x0, %x1; st.global.u32 [%x1], %r; ret;"
        ),
    );
    let mut first = None;
    for seed in 0..3 {
        let mut device = Device::new(Options { seed, ..Options::default() });
        let out = device.alloc(128).unwrap();
        let report = run(&mut device, &text, Launch::linear(1, 32), &[out.into()]);
        assert!(report.is_clean(), "{report}");
        let found = read(&device, out, 32);
        assert_eq!(*first.get_or_insert(found.clone()), found);
    }
    first.unwrap()
}

fn expect(body: &str, f: impl Fn(u32) -> u32) {
    let out = lanes(body);
    let expected: Vec<u32> = (0..32).map(f).collect();
    assert_eq!(out, expected, "{body}");
}

#[test]
fn shuffles_follow_the_manuals_formulas() {
    let full = |mode: &str, by: u32, clamp: u32| {
        format!("mul.lo.u32 %t0, %l, 10; shfl.sync.{mode}.b32 %r|%p0, %t0, {by}, {clamp}, 0xffffffff;")
    };
    expect(&full("up", 3, 0), |l| 10 * if l >= 3 { l - 3 } else { l });
    expect(&full("down", 5, 31), |l| 10 * if l + 5 < 32 { l + 5 } else { l });
    expect(&full("bfly", 16, 31), |l| 10 * (l ^ 16));
    expect(&full("idx", 7, 31), |_| 70);
    // Segments of eight lanes: the mask of the clamp operand is 0x18.
    expect(&full("idx", 2, 0x181f), |l| 10 * (l / 8 * 8 + 2));
    expect(&full("down", 3, 0x1807 | 0x18), |l| 10 * if l % 8 + 3 < 8 { l + 3 } else { l });
    expect(&full("up", 3, 0x1800), |l| 10 * if l % 8 >= 3 { l - 3 } else { l });
    let valid = "shfl.sync.down.b32 %t1|%p0, %l, 4, 31, -1; selp.u32 %r, 1, 0, %p0;";
    expect(valid, |l| (l < 28) as u32);
}

#[test]
fn votes_matches_and_reductions_cover_their_mask() {
    expect("setp.lt.u32 %p0, %l, 5; vote.sync.ballot.b32 %r, %p0, -1;", |_| 31);
    expect("setp.lt.u32 %p0, %l, 5; vote.sync.any.pred %p1, %p0, -1; selp.u32 %r, 1, 0, %p1;", |_| 1);
    expect("setp.lt.u32 %p0, %l, 5; vote.sync.all.pred %p1, !%p0, -1; selp.u32 %r, 1, 0, %p1;", |_| 0);
    expect("setp.lt.u32 %p0, %l, 50; vote.sync.uni.pred %p1, %p0, -1; selp.u32 %r, 1, 0, %p1;", |_| 1);
    expect("and.b32 %t0, %l, 3; match.any.sync.b32 %r, %t0, -1;", |l| 0x1111_1111 << (l & 3));
    expect("match.all.sync.b32 %r|%p0, %l, -1;", |_| 0);
    expect("mov.u32 %t0, 9; match.all.sync.b32 %r|%p0, %t0, -1;", |_| u32::MAX);
    expect("redux.sync.add.u32 %r, %l, -1;", |_| 496);
    expect("sub.s32 %t0, %l, 40; redux.sync.max.s32 %r, %t0, -1;", |_| -9i32 as u32);
    expect("redux.sync.xor.b32 %r, %l, -1;", |_| 0);
    expect("elect.sync %r|%p0, -1; @%p0 add.u32 %r, %l, 100;", |l| if l == 0 { 100 } else { 0 });
    // Two halves, each with its own mask and instruction.
    let halves = "setp.lt.u32 %p0, %l, 16; @%p0 bra LOW; redux.sync.add.u32 %r, %l, 0xffff0000; bra END;
        LOW: redux.sync.add.u32 %r, %l, 0xffff; END:";
    expect(halves, |l| if l < 16 { 120 } else { 376 });
}

#[test]
fn divergent_lanes_meet_again_before_a_collective() {
    let body = "setp.lt.u32 %p0, %l, 7; mov.u32 %r, 1; @%p0 bra A; add.u32 %r, %r, 1; bra B;
        A: add.u32 %r, %r, 4; B: activemask.b32 %t0; redux.sync.add.u32 %r, %r, -1;";
    expect(body, |_| 7 * 5 + 25 * 2);
    // A loop of another length in every lane.
    let body = "mov.u32 %r, 0; mov.u32 %t0, 0;
        L: add.u32 %r, %r, %t0; add.u32 %t0, %t0, 1; setp.le.u32 %p0, %t0, %l; @%p0 bra L;";
    expect(body, |l| l * (l + 1) / 2);
    let body = "rem.u32 %t0, %l, 3; brx.idx %t0, T; T: .branchtargets X, Y, Z;
        X: mov.u32 %r, 10; bra E; Y: mov.u32 %r, 20; bra E; Z: mov.u32 %r, 30; E:";
    expect(body, |l| 10 * (l % 3 + 1));
}

#[test]
fn functions_are_called_by_value() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64
        .func (.param .b32 f_out) f(.param .b32 f_a, .param .b32 f_b) {
            .reg .b32 %r<4>; .reg .pred %p;
            ld.param.u32 %r0, [f_a]; ld.param.u32 %r1, [f_b];
            setp.lt.u32 %p, %r0, 4; @%p bra SMALL;
            add.u32 %r2, %r0, %r1; st.param.b32 [f_out], %r2; ret;
            SMALL: st.param.b32 [f_out], %r1; ret;
        }
        .visible .entry k(.param .u64 out) {
            .reg .b32 %r<9>; .reg .b64 %x<4>;
            ld.param.u64 %x0, [out]; mov.u32 %r0, %tid.x; mov.u32 %r5, 100;
            { .param .b32 a; .param .b32 b; .param .b32 back;
              st.param.b32 [a], %r0; st.param.b32 [b], %r5;
              call.uni (back), f, (a, b);
              ld.param.b32 %r6, [back]; }
            mul.wide.u32 %x1, %r0, 4; add.u64 %x1, %x0, %x1; st.global.u32 [%x1], %r6; ret;
        }";
    let mut device = Device::new(Options::default());
    let out = device.alloc(32).unwrap();
    let report = run(&mut device, text, Launch::linear(1, 8), &[out.into()]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(read(&device, out, 8), [100, 100, 100, 100, 104, 105, 106, 107]);
}

#[test]
fn barriers_join_warps_and_reduce() {
    let text = module(
        ".param .u64 out",
        ".reg .b32 %r<9>; .reg .b64 %x<4>; .reg .pred %p<4>;
        ld.param.u64 %x0, [out]; mov.u32 %r0, %tid.x;
        setp.lt.u32 %p0, %r0, 70;
        bar.red.popc.u32 %r1, 0, %p0;
        bar.red.and.pred %p1, 0, %p0; bar.red.or.pred %p2, 0, %p0;
        selp.u32 %r2, 1, 0, %p1; selp.u32 %r3, 2, 0, %p2; add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3;
        mul.wide.u32 %x1, %r0, 4; add.u64 %x1, %x0, %x1; st.global.u32 [%x1], %r1; ret;",
    );
    let mut device = Device::new(Options::default());
    let out = device.alloc(4 * 96).unwrap();
    let report = run(&mut device, &text, Launch::linear(1, 96), &[out.into()]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(read(&device, out, 96), [72; 96]);
}

#[test]
fn blocks_and_threads_have_their_indices() {
    let text = module(
        ".param .u64 out",
        ".reg .b32 %r<16>; .reg .b64 %x<4>;
        ld.param.u64 %x0, [out];
        mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %ntid.x; mad.lo.u32 %r3, %r1, %r2, %r0;
        mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.z; mov.u32 %r6, %nctaid.x; mad.lo.u32 %r7, %r5, %r6, %r4;
        mad.lo.u32 %r8, %r7, 12, %r3;
        mul.wide.u32 %x1, %r8, 4; add.u64 %x1, %x0, %x1; st.global.u32 [%x1], %r8; ret;",
    );
    let mut device = Device::new(Options::default());
    let out = words(&mut device, &[0; 72]);
    let launch = Launch { grid: [2, 1, 3], block: [4, 3, 1], shared: 0 };
    let report = run(&mut device, &text, launch, &[out.into()]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(read(&device, out, 72), (0..72).collect::<Vec<u32>>());
}
