//! `ldmatrix`, `stmatrix` and `mma.sync`: fragments by the layout formulas of the manual, sums by the published models.

use binade_ptx::FindingKind::{Divergence, Misaligned, Race};
use binade_ptx::{Device, Launch, Options};

use crate::common::{finds, module, random, read, run, words};

/// Runs `body` with words of `input` in %r0 … of each lane, and gives back %d0 … %dn.
pub fn fragments(
    instruction: &str,
    from: usize,
    to: usize,
    input: &[Vec<u32>],
    capability: Option<u32>,
) -> Vec<Vec<u32>> {
    let loads: String = (0..from).map(|i| format!("ld.global.u32 %r{i}, [%x2+{}];\n", 4 * i)).collect();
    let stores: String = (0..to).map(|i| format!("st.global.u32 [%x3+{}], %d{i};\n", 4 * i)).collect();
    let text = module(
        ".param .u64 a, .param .u64 out",
        &format!(
            ".reg .b32 %r<16>; .reg .b32 %d<8>; .reg .b32 %t; .reg .b64 %x<6>;
            ld.param.u64 %x0, [a]; ld.param.u64 %x1, [out]; mov.u32 %t, %tid.x;
            mul.wide.u32 %x2, %t, {}; add.u64 %x2, %x0, %x2; mul.wide.u32 %x3, %t, {}; add.u64 %x3, %x1, %x3;
            {loads}{instruction}\n{stores}ret;",
            4 * from,
            4 * to
        ),
    )
    .replace("sm_90a", "sm_75");
    let mut device = Device::new(Options { capability, ..Options::default() });
    let flat: Vec<u32> = input.iter().flatten().copied().collect();
    let (a, out) = (words(&mut device, &flat), device.alloc(128 * to).unwrap());
    let report = run(&mut device, &text, Launch::linear(1, 32), &[a.into(), out.into()]);
    assert!(report.is_clean(), "{report}");
    assert!(report.counters.tensor_operations > 0);
    read(&device, out, 32 * to).chunks(to).map(<[u32]>::to_vec).collect()
}

/// A matrix product with exact sums: small integers in every type.
struct Case {
    instruction: &'static str,
    k: usize,
    bytes: usize,
    /// The bits of a small integer.
    code: fn(i32) -> u32,
    /// Registers of A, B; whether the accumulator is packed f16.
    registers: (usize, usize),
    half: bool,
    value: fn(u32) -> f64,
}

fn small(seed: u64, count: usize) -> Vec<i32> {
    random(count, seed).iter().map(|v| (v % 9) as i32 - 4).collect()
}

#[test]
fn products_have_the_manuals_fragments() {
    let f16 = |v: i32| half::f16::from_f32(v as f32).to_bits() as u32;
    let bf16 = |v: i32| half::bf16::from_f32(v as f32).to_bits() as u32;
    let f32_ = |v: u32| f32::from_bits(v) as f64;
    let s32 = |v: u32| v as i32 as f64;
    let cases = [
        Case {
            instruction: "m16n8k8.row.col.f32.f16.f16.f32",
            k: 8,
            bytes: 2,
            code: f16,
            registers: (2, 1),
            half: false,
            value: f32_,
        },
        Case {
            instruction: "m16n8k16.row.col.f32.f16.f16.f32",
            k: 16,
            bytes: 2,
            code: f16,
            registers: (4, 2),
            half: false,
            value: f32_,
        },
        Case {
            instruction: "m16n8k16.row.col.f16.f16.f16.f16",
            k: 16,
            bytes: 2,
            code: f16,
            registers: (4, 2),
            half: true,
            value: f32_,
        },
        Case {
            instruction: "m16n8k8.row.col.f32.bf16.bf16.f32",
            k: 8,
            bytes: 2,
            code: bf16,
            registers: (2, 1),
            half: false,
            value: f32_,
        },
        Case {
            instruction: "m16n8k16.row.col.f32.bf16.bf16.f32",
            k: 16,
            bytes: 2,
            code: bf16,
            registers: (4, 2),
            half: false,
            value: f32_,
        },
        Case {
            instruction: "m16n8k4.row.col.f32.tf32.tf32.f32",
            k: 4,
            bytes: 4,
            code: |v| (v as f32).to_bits(),
            registers: (2, 1),
            half: false,
            value: f32_,
        },
        Case {
            instruction: "m16n8k8.row.col.f32.tf32.tf32.f32",
            k: 8,
            bytes: 4,
            code: |v| (v as f32).to_bits(),
            registers: (4, 2),
            half: false,
            value: f32_,
        },
        Case {
            instruction: "m16n8k16.row.col.s32.s8.s8.s32",
            k: 16,
            bytes: 1,
            code: |v| v as u8 as u32,
            registers: (2, 1),
            half: false,
            value: s32,
        },
        Case {
            instruction: "m16n8k32.row.col.satfinite.s32.s8.s8.s32",
            k: 32,
            bytes: 1,
            code: |v| v as u8 as u32,
            registers: (4, 2),
            half: false,
            value: s32,
        },
    ];
    for case in cases {
        let (a, b, c) = (small(1, 16 * case.k), small(2, 8 * case.k), small(3, 128));
        let each = 4 / case.bytes;
        let integer = case.instruction.contains("s32");
        // The manual: groupID = lane / 4, threadID = lane % 4; rows of A by register parity, k by register pair.
        let mut input = Vec::new();
        for lane in 0..32 {
            let (group, thread) = (lane / 4, lane % 4);
            let mut words = Vec::new();
            for i in 0..case.registers.0 {
                let row = group + 8 * (i % 2);
                words.push((0..each).fold(0, |w, e| {
                    let k = thread * each + e + if i < 2 { 0 } else { 4 * each };
                    w | (case.code)(a[row * case.k + k]) << (8 * case.bytes * e)
                }));
            }
            for i in 0..case.registers.1 {
                words.push((0..each).fold(0, |w, e| {
                    let k = thread * each + e + 4 * each * i;
                    w | (case.code)(b[k * 8 + group]) << (8 * case.bytes * e)
                }));
            }
            let at = |i: usize| c[(group + if i < 2 { 0 } else { 8 }) * 8 + 2 * thread + i % 2];
            if case.half {
                let pair = |i: usize| f16(at(i)) | f16(at(i + 1)) << 16;
                words.extend([pair(0), pair(2)]);
            } else {
                words.extend((0..4).map(|i| if integer { at(i) as u32 } else { (at(i) as f32).to_bits() }));
            }
            input.push(words);
        }
        let (ra, rb) = case.registers;
        let accumulators = if case.half { 2 } else { 4 };
        let list = |prefix: &str, from: usize, n: usize| {
            (from..from + n).map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>().join(", ")
        };
        let instruction = format!(
            "mma.sync.aligned.{} {{{}}}, {{{}}}, {{{}}}, {{{}}};",
            case.instruction,
            list("d", 0, accumulators),
            list("r", 0, ra),
            list("r", ra, rb),
            list("r", ra + rb, accumulators)
        );
        for capability in [75, 80, 90] {
            let out = fragments(&instruction, ra + rb + accumulators, accumulators, &input, Some(capability));
            for lane in 0..32 {
                for i in 0..4 {
                    let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
                    let exact: i32 =
                        (0..case.k).map(|k| a[row * case.k + k] * b[k * 8 + column]).sum::<i32>() + c[row * 8 + column];
                    let got = if case.half {
                        half::f16::from_bits((out[lane][i / 2] >> (16 * (i % 2))) as u16).to_f64()
                    } else {
                        (case.value)(out[lane][i])
                    };
                    assert_eq!(got, exact as f64, "{} lane {lane} element {i}", case.instruction);
                }
            }
        }
    }
}

/// What 1 + 2^-e … adds to by generation: bits below the largest exponent are cut, so many are kept.
#[test]
fn sums_are_cut_as_the_published_models_say() {
    let one = |terms: &[(usize, f32)], c: f32, capability: u32| {
        // Row 0 of A holds the terms, column 0 of B ones.
        let mut input = vec![vec![0; 10]; 32];
        for &(k, v) in terms {
            let (thread, e, i) = (k % 8 / 2, k % 2, k / 8 * 2);
            input[thread][i] |= (half::f16::from_f32(v).to_bits() as u32) << (16 * e);
        }
        for lane in input.iter_mut().take(4) {
            (lane[4], lane[5]) = (0x3c00_3c00, 0x3c00_3c00);
        }
        input[0][6] = c.to_bits();
        let instruction = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%d0, %d1, %d2, %d3},
            {%r0, %r1, %r2, %r3}, {%r4, %r5}, {%r6, %r7, %r8, %r9};";
        f32::from_bits(fragments(instruction, 10, 4, &input, Some(capability))[0][0])
    };
    let tiny = 2f32.powi(-24);
    // Four times 2^-24 beside 1: each is kept with 24 bits of fraction.
    let four: Vec<(usize, f32)> = (0..4).map(|k| (k, tiny)).collect();
    for capability in [80, 90] {
        assert_eq!(one(&four, 1.0, capability), 1.0 + 4.0 * tiny);
    }
    // The result is cut, not rounded: 1 + 3·2^-24 lies nearer to 1 + 2·2^-23.
    let three: Vec<(usize, f32)> = (0..3).map(|k| (k, tiny)).collect();
    assert_eq!(one(&three, 1.0, 90), 1.0 + 2.0 * tiny);
    // A sum of 16 keeps what two sums of 8 lose: 1 + 2^-24, cut to 1 in between.
    let apart = [(0, tiny), (8, tiny)];
    assert_eq!(one(&apart, 1.0, 90), 1.0 + 2.0 * tiny);
    assert_eq!(one(&apart, 1.0, 80), 1.0);
    // One bit more on Hopper: 2^-24 beside 2 is a bit of 2^-25 relative to it.
    let doubled: Vec<(usize, f32)> = (0..4).map(|k| (k, tiny)).collect();
    assert_eq!(one(&doubled, 2.0, 90), 2.0 + 4.0 * tiny);
    assert_eq!(one(&doubled, 2.0, 80), 2.0);
    // Infinity and NaN.
    assert_eq!(one(&[(0, f32::INFINITY)], 1.0, 80), f32::INFINITY);
    assert!(one(&[(0, f32::INFINITY), (1, f32::NEG_INFINITY)], 1.0, 80).is_nan());
}

const STAGE: &str = ".shared .align 16 .b8 s[512]; .reg .b32 %r<12>; .reg .b64 %x<6>; .reg .pred %p<4>;
    ld.param.u64 %x0, [a]; ld.param.u64 %x1, [out]; mov.u32 %r0, %tid.x; mul.wide.u32 %x2, %r0, 16;
    add.u64 %x3, %x0, %x2; add.u64 %x4, %x1, %x2; mov.u32 %r1, s; shl.b32 %r2, %r0, 4; add.u32 %r2, %r1, %r2;";

#[test]
fn matrices_are_loaded_by_rows_and_columns() {
    for transposed in [false, true] {
        let trans = if transposed { ".trans" } else { "" };
        let text = module(
            ".param .u64 a, .param .u64 out",
            &format!(
                "{STAGE} ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%x3]; st.shared.v4.u32 [%r2], {{%r4, %r5, %r6, %r7}};
                bar.warp.sync -1;
                ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r2];
                st.global.v4.u32 [%x4], {{%r4, %r5, %r6, %r7}}; ret;"
            ),
        );
        let mut device = Device::new(Options::default());
        // Element (matrix, row, column) is its number.
        let values: Vec<u32> = (0..128).map(|i| 2 * i | (2 * i + 1) << 16).collect();
        let (a, out) = (words(&mut device, &values), device.alloc(512).unwrap());
        let report = run(&mut device, &text, Launch::linear(1, 32), &[a.into(), out.into()]);
        assert!(report.is_clean() && report.counters.bank_conflicts == 0, "{report}");
        for (lane, words) in read(&device, out, 128).chunks(4).enumerate() {
            for (matrix, word) in words.iter().enumerate() {
                for e in 0..2 {
                    let (r, c) = (lane / 4, lane % 4 * 2 + e);
                    let (r, c) = if transposed { (c, r) } else { (r, c) };
                    assert_eq!(word >> (16 * e) & 0xffff, (64 * matrix + 8 * r + c) as u32);
                }
            }
        }
        // Storing what was loaded gives the matrices back.
        let store = format!(
            "bar.warp.sync -1; stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%r2], {{%r4, %r5, %r6, %r7}};
            bar.warp.sync -1; ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r2]; st.global.v4.u32 [%x4]"
        );
        let back = text.replace("st.global.v4.u32 [%x4]", &store);
        let report = run(&mut device, &back, Launch::linear(1, 32), &[a.into(), out.into()]);
        assert!(report.is_clean(), "{report}");
        assert_eq!(read(&device, out, 128), values);
    }
}

#[test]
fn faults_of_matrix_loads_are_found() {
    let text = |sync: &str, offset: u32, guard: &str| {
        module(
            ".param .u64 a, .param .u64 out",
            &format!(
                "{STAGE} ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%x3]; st.shared.v4.u32 [%r2], {{%r4, %r5, %r6, %r7}};
                setp.lt.u32 %p0, %r0, 31; {sync} xor.b32 %r2, %r2, 16; add.u32 %r2, %r2, {offset};
                {guard} ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r2]; ret;"
            ),
        )
    };
    let arguments = |d: &mut Device| vec![words(d, &[1; 128]).into(), d.alloc(512).unwrap().into()];
    let launch = Launch::linear(1, 32);
    finds(&text("bar.warp.sync -1;", 0, ""), launch, &[], arguments);
    finds(&text("", 0, ""), launch, &[Race], arguments);
    finds(&text("bar.warp.sync -1;", 8, ""), launch, &[Misaligned], arguments);
    finds(&text("bar.warp.sync -1;", 0, "@%p0"), launch, &[Divergence], arguments);
}
