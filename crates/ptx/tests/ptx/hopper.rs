//! Mbarriers, bulk copies, and `wgmma` with its descriptors.

use binade_ptx::FindingKind::{Deadlock, InFlight, InvalidOperand, Race, UninitialisedMemory};
use binade_ptx::{Arg, Device, Launch, Options, Swizzle, TensorMap};

use crate::common::{finds, module, random, read, run, words};

/// Thread 0 produces into shared memory, warp 1 consumes: INIT, ARRIVE and WAIT stand for parts.
fn handover(fence: &str, arrive: &str, wait: &str) -> String {
    module(
        ".param .u64 out",
        &format!(
            ".shared .align 8 .b64 bar; .shared .align 4 .u32 s; .reg .b32 %r<8>; .reg .b64 %x<6>; .reg .pred %p<6>;
            ld.param.u64 %x0, [out]; mov.u32 %r0, %tid.x; mov.u32 %r1, bar; setp.ne.u32 %p0, %r0, 0;
            @%p0 bra SKIP; mbarrier.init.shared::cta.b64 [%r1], 1; SKIP: {fence}
            setp.ge.u32 %p1, %r0, 32; @%p1 bra CONSUME; @%p0 bra END;
            st.shared.u32 [s], 42; {arrive} bra END;
            CONSUME: {wait}
            ld.shared.u32 %r2, [s]; setp.ne.u32 %p3, %r0, 32; @%p3 bra END; st.global.u32 [%x0], %r2; END: ret;"
        ),
    )
}

const ARRIVE: &str = "mbarrier.arrive.shared::cta.b64 %x1, [%r1];";
const WAIT: &str = "W: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], 0; @!%p2 bra W;";

#[test]
fn an_mbarrier_hands_over() {
    let launch = Launch::linear(1, 64);
    let out = |d: &mut Device| vec![d.alloc(4).unwrap().into()];
    finds(&handover("bar.sync 0;", ARRIVE, WAIT), launch, &[], out);
    // Arrived before the write, waited for the wrong phase, or not at all.
    let early = handover("bar.sync 0;", "", WAIT)
        .replace("st.shared.u32 [s], 42;", &format!("{ARRIVE} st.shared.u32 [s], 42;"));
    for text in
        [early, handover("bar.sync 0;", ARRIVE, &WAIT.replace(", 0;", ", 1;")), handover("bar.sync 0;", ARRIVE, "")]
    {
        for seed in 0..6 {
            let mut device = Device::new(Options { seed, ..Options::default() });
            let args = out(&mut device);
            assert!(!run(&mut device, &text, launch, &args).is_clean(), "seed {seed}\n{text}");
        }
    }
    finds(&handover("bar.sync 0;", "", WAIT), launch, &[Deadlock], out);
    finds(&handover("bar.sync 0;", &ARRIVE.replace("[%r1];", "[%r1], 2;"), WAIT), launch, &[InvalidOperand], out);
}

/// A tensor of 12 rows of 40 f32 words, of which a box of 8 rows and 32 columns is copied.
fn tensor(address: u64, swizzle: Swizzle) -> TensorMap {
    TensorMap { address, element: 4, extents: vec![40, 12], strides: vec![160], tile: vec![32, 8], swizzle }
}

/// The box at column %r4 and row %r5 comes to shared memory and goes to `out` as it lies there.
fn load(fence: &str, bytes: u32, wait: &str) -> String {
    module(
        ".param .align 64 .b8 map[128], .param .u64 out, .param .u32 x, .param .u32 y",
        &format!(
            ".shared .align 1024 .b8 s[1024]; .shared .align 8 .b64 bar;
            .reg .b32 %r<12>; .reg .b64 %x<6>; .reg .pred %p<6>;
            mov.b64 %x0, map; cvta.param.u64 %x0, %x0; ld.param.u64 %x1, [out];
            ld.param.u32 %r4, [x]; ld.param.u32 %r5, [y];
            mov.u32 %r0, %tid.x; mov.u32 %r1, bar; mov.u32 %r2, s; setp.ne.u32 %p0, %r0, 0;
            @%p0 bra A; mbarrier.init.shared::cta.b64 [%r1], 1; {fence} A: bar.sync 0;
            @%p0 bra B; mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], {bytes};
            cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
                [%r2], [%x0, {{%r4, %r5}}], [%r1];
            B: {wait}
            shl.b32 %r3, %r0, 4; add.u32 %r2, %r2, %r3; ld.shared.v4.u32 {{%r6, %r7, %r8, %r9}}, [%r2];
            cvt.u64.u32 %x2, %r3; add.u64 %x2, %x1, %x2; st.global.v4.u32 [%x2], {{%r6, %r7, %r8, %r9}}; ret;"
        ),
    )
}

const FENCE: &str = "fence.mbarrier_init.release.cluster;";

fn map_arguments(device: &mut Device, swizzle: Swizzle, at: [i32; 2]) -> (Vec<Arg>, u64) {
    let values: Vec<u32> = (0..480).collect();
    let (a, out) = (words(device, &values), device.alloc(1024).unwrap());
    let map = Arg::bytes(tensor(a, swizzle).encode().unwrap());
    (vec![map, out.into(), at[0].into(), at[1].into()], out)
}

#[test]
fn a_tensor_map_copies_boxes_swizzled_and_cut_at_the_edge() {
    for (swizzle, spread) in [(Swizzle::None, 0), (Swizzle::Bytes128, 7)] {
        for at in [[0, 0], [16, 7], [-4, -1], [36, 11]] {
            let mut device = Device::new(Options::default());
            let (args, out) = map_arguments(&mut device, swizzle, at);
            let report = run(&mut device, &load(FENCE, 1024, WAIT), Launch::linear(1, 64), &args);
            assert!(report.is_clean(), "{report}");
            let found = read(&device, out, 256);
            for row in 0..8i32 {
                for column in 0..32i32 {
                    let (x, y) = (at[0] + column, at[1] + row);
                    let inside = (0..40).contains(&x) && (0..12).contains(&y);
                    let piece = (column / 4) ^ (row & spread);
                    let got = found[(row * 32 + piece * 4 + column % 4) as usize];
                    assert_eq!(got, if inside { (y * 40 + x) as u32 } else { 0 }, "{swizzle:?} {at:?} {row} {column}");
                }
            }
        }
    }
}

#[test]
fn faults_of_bulk_loads_are_found() {
    let launch = Launch::linear(1, 64);
    let arguments = |d: &mut Device| map_arguments(d, Swizzle::Bytes128, [0, 0]).0;
    finds(&load(FENCE, 1024, WAIT), launch, &[], arguments);
    let early = [InFlight, Race, UninitialisedMemory];
    finds(&load(FENCE, 1024, ""), launch, &early, arguments);
    finds(&load(FENCE, 1024, &WAIT.replace(", 0;", ", 1;")), launch, &early, arguments);
    finds(&load(FENCE, 1040, WAIT), launch, &[Deadlock], arguments);
    finds(&load("", 1024, WAIT), launch, &[Race], arguments);
    finds(&load(FENCE, 1024, WAIT), launch, &[InvalidOperand], |d| {
        let mut args = arguments(d);
        args[0] = Arg::bytes([0; 128]);
        args
    });
}

#[test]
fn maps_that_the_manual_forbids_are_refused() {
    let good = tensor(512, Swizzle::Bytes128);
    assert!(good.encode().is_ok());
    for (bad, said) in [
        (TensorMap { address: 520, ..good.clone() }, "multiples of 16"),
        (TensorMap { strides: vec![164], ..good.clone() }, "multiples of 16"),
        (TensorMap { tile: vec![36, 8], ..good.clone() }, "within the swizzle"),
        (TensorMap { tile: vec![32, 257], ..good.clone() }, "1 to 256"),
        (TensorMap { strides: vec![], ..good.clone() }, "dimensions"),
        (TensorMap { element: 3, ..good }, "1, 2, 4 or 8"),
    ] {
        assert!(bad.encode().unwrap_err().to_string().contains(said), "{bad:?}");
    }
}

#[test]
fn bulk_stores_wait_for_their_group() {
    let text = |fence: &str, wait: &str| {
        module(
            ".param .u64 out",
            &format!(
                ".shared .align 16 .b8 s[512]; .reg .b32 %r<8>; .reg .b64 %x<4>; .reg .pred %p<3>;
                ld.param.u64 %x0, [out]; mov.u32 %r0, %tid.x; mov.u32 %r1, s; shl.b32 %r2, %r0, 2;
                add.u32 %r2, %r1, %r2;
                st.shared.u32 [%r2], %r0; {fence} bar.sync 0; setp.ne.u32 %p0, %r0, 0; @%p0 bra END;
                cp.async.bulk.global.shared::cta.bulk_group [%x0], [%r1], 512; cp.async.bulk.commit_group; {wait}
                END: ret;"
            ),
        )
    };
    let (fence, wait) = ("fence.proxy.async.shared::cta;", "cp.async.bulk.wait_group.read 0;");
    let launch = Launch::linear(1, 128);
    let mut device = Device::new(Options::default());
    let out = device.alloc(512).unwrap();
    let report = run(&mut device, &text(fence, wait), launch, &[out.into()]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(read(&device, out, 128), (0..128).collect::<Vec<u32>>());
    let arguments = |d: &mut Device| vec![d.alloc(512).unwrap().into()];
    finds(&text("", wait), launch, &[Race], arguments);
    finds(&text(fence, ""), launch, &[InFlight], arguments);
}

/// One product m64n16k16 of an image of shared memory: A at 0, B at 4096; PARTS may be left out.
fn product(types: &str, flags: &str, fence: &str, commit: &str) -> String {
    module(
        ".param .u64 image, .param .u64 out, .param .u64 da, .param .u64 db",
        &format!(
            ".shared .align 1024 .b8 s[8192]; .reg .b32 %r<12>; .reg .b64 %x<8>; .reg .f32 %f<8>; .reg .pred %p<4>;
            ld.param.u64 %x0, [image]; ld.param.u64 %x1, [out]; ld.param.u64 %x2, [da]; ld.param.u64 %x3, [db];
            mov.u32 %r0, %tid.x; mov.u32 %r1, s; mov.u32 %r2, %r0;
            L: shl.b32 %r3, %r2, 2; cvt.u64.u32 %x4, %r3; add.u64 %x4, %x0, %x4; ld.global.u32 %r4, [%x4];
            add.u32 %r3, %r1, %r3; st.shared.u32 [%r3], %r4; add.u32 %r2, %r2, 128;
            setp.lt.u32 %p0, %r2, 2048; @%p0 bra L;
            {fence}
            mov.f32 %f0, 0f3F800000; mov.f32 %f1, %f0; mov.f32 %f2, %f0; mov.f32 %f3, %f0;
            mov.f32 %f4, %f0; mov.f32 %f5, %f0; mov.f32 %f6, %f0; mov.f32 %f7, %f0;
            wgmma.fence.sync.aligned;
            wgmma.mma_async.sync.aligned.m64n16k16.f32.{types}
                {{%f0, %f1, %f2, %f3, %f4, %f5, %f6, %f7}}, %x2, %x3, 1, {flags};
            {commit}
            shl.b32 %r5, %r0, 5; cvt.u64.u32 %x5, %r5; add.u64 %x5, %x1, %x5;
            st.global.v4.f32 [%x5], {{%f0, %f1, %f2, %f3}}; st.global.v4.f32 [%x5+16], {{%f4, %f5, %f6, %f7}}; ret;"
        ),
    )
}

const SEEN: &str = "fence.proxy.async.shared::cta; bar.sync 0;";
const DONE: &str = "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;";

fn descriptor(start: u64, leading: u64, stride: u64, swizzle: u64) -> u64 {
    start >> 4 | (leading >> 4) << 16 | (stride >> 4) << 32 | swizzle << 62
}

/// Where an operand's element lies, by the manual's canonical layouts: swizzle, transposed, row, k.
fn place(swizzle: u64, transposed: bool, row: u64, k: u64) -> u64 {
    let linear = match (swizzle, transposed) {
        // Core matrices of 8 rows of 16 bytes; along k 128 bytes apart, along rows 256.
        (0, false) => row % 8 * 16 + row / 8 * 256 + k / 8 * 128 + k % 8 * 2,
        (_, false) => row * 128 + k * 2,
        // 64 elements along m or n in 128 bytes, then k.
        _ => row % 64 * 2 + k * 128,
    };
    if swizzle == 1 { linear ^ (linear >> 7 & 7) << 4 } else { linear }
}

#[test]
fn products_read_descriptors_and_swizzles() {
    for (swizzle, transposed, leading, stride) in [(0, false, 128, 256), (1, false, 0, 1024), (1, true, 4096, 1024)] {
        for (types, encode) in [
            ("bf16.bf16", (|v| half::bf16::from_f32(v).to_bits()) as fn(f32) -> u16),
            ("f16.f16", |v| half::f16::from_f32(v).to_bits()),
        ] {
            let numbers: Vec<f32> = random(64 * 16 + 16 * 16, 3).iter().map(|v| (v % 9) as f32 - 4.0).collect();
            let (a, b) = numbers.split_at(64 * 16);
            let mut image = vec![0u32; 2048];
            let mut put = |at: u64, v: f32| image[at as usize / 4] |= (encode(v) as u32) << (8 * (at % 4));
            // B's 16 rows leave the rest of its 64 empty.
            (0..64).for_each(|r| (0..16).for_each(|k| put(place(swizzle, transposed, r, k), a[(r * 16 + k) as usize])));
            (0..16).for_each(|r| {
                (0..16).for_each(|k| {
                    // With whole rows of 128 bytes A takes 8192 bytes: B's rows use other columns of them.
                    let at = if swizzle == 1 && !transposed {
                        place(swizzle, false, r, k + 32)
                    } else {
                        4096 + place(swizzle, transposed, r, k)
                    };
                    put(at, b[(r * 16 + k) as usize]);
                })
            });
            let second = if swizzle == 1 && !transposed { 1024 + 64 } else { 1024 + 4096 };
            let mut device = Device::new(Options::default());
            let (image, out) = (words(&mut device, &image), device.alloc(4096).unwrap());
            let (da, db) = (descriptor(1024, leading, stride, swizzle), descriptor(second, leading, stride, swizzle));
            let flags = if transposed { "1, 1, 1, 1" } else { "1, 1, 0, 0" };
            let text = product(types, flags, SEEN, DONE);
            let report =
                run(&mut device, &text, Launch::linear(1, 128), &[image.into(), out.into(), da.into(), db.into()]);
            assert!(report.is_clean(), "{report}");
            for (thread, d) in read(&device, out, 1024).chunks(8).enumerate() {
                let (warp, lane) = (thread / 32, thread % 32);
                for (i, &bits) in d.iter().enumerate() {
                    let row = 16 * warp + lane / 4 + 8 * (i / 2 % 2);
                    let column = i / 4 * 8 + lane % 4 * 2 + i % 2;
                    let exact: f32 = (0..16).map(|k| a[row * 16 + k] * b[column * 16 + k]).sum();
                    assert_eq!(f32::from_bits(bits), 1.0 + exact, "{types} swizzle {swizzle} {row} {column}");
                }
            }
            assert_eq!(report.counters.tensor_operations, 64 * 16 * 16);
        }
    }
}

#[test]
fn faults_around_the_tensor_unit_are_found() {
    let launch = Launch::linear(1, 128);
    let arguments = |d: &mut Device| {
        let (image, out) = (words(d, &[0; 2048]), d.alloc(4096).unwrap());
        let (da, db) = (descriptor(1024, 128, 256, 0), descriptor(5120, 128, 256, 0));
        vec![image.into(), out.into(), da.into(), db.into()]
    };
    let text = |fence: &str, done: &str| product("bf16.bf16", "1, 1, 0, 0", fence, done);
    finds(&text(SEEN, DONE), launch, &[], arguments);
    // Without the proxy's fence, without the barrier, with the fence after it.
    finds(&text("bar.sync 0;", DONE), launch, &[Race], arguments);
    finds(&text("fence.proxy.async;", DONE), launch, &[Race, InFlight, UninitialisedMemory], arguments);
    finds(&text("bar.sync 0; fence.proxy.async;", DONE), launch, &[], arguments);
    // The accumulator is read before its group is done.
    finds(&text(SEEN, "wgmma.commit_group.sync.aligned;"), launch, &[InFlight], arguments);
    finds(
        &text(SEEN, "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 1;"),
        launch,
        &[InFlight],
        arguments,
    );
    // An operand is overwritten under the unit.
    let over = "wgmma.commit_group.sync.aligned; shl.b32 %r6, %r0, 2; add.u32 %r6, %r1, %r6;
        st.shared.u32 [%r6], %r0; wgmma.wait_group.sync.aligned 0;";
    finds(&text(SEEN, over), launch, &[InFlight, Race], arguments);
    // One warp does not come.
    let absent = text(SEEN, DONE).replace("wgmma.fence", "setp.lt.u32 %p1, %r0, 32; @%p1 exit; wgmma.fence");
    finds(&absent, launch, &[Deadlock], arguments);
}
