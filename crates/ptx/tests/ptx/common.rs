//! Kernels around single instructions, and devices to run them on.

use binade_ptx::{Arg, Device, FindingKind, Launch, Module, Options, Report};

/// A module of one kernel `k` for `sm_90a`.
pub fn module(params: &str, body: &str) -> String {
    format!(".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k({params}) {{\n{body}\n}}\n")
}

/// Runs kernel `k` of `text` once.
pub fn run(device: &mut Device, text: &str, launch: Launch, args: &[Arg]) -> Report {
    let module = Module::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let program = device.load(&module).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let kernel = program.kernel("k").unwrap();
    device.launch(&kernel, launch, args).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// A device buffer with these words.
pub fn words(device: &mut Device, values: &[u32]) -> u64 {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let address = device.alloc(bytes.len()).unwrap();
    device.write(address, &bytes).unwrap();
    address
}

/// Words of a device buffer.
pub fn read(device: &Device, address: u64, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    device.read(address, &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Executes `instruction` on each triple: it reads %a, %b, %c of so many bits, and writes %d; `p` is a predicate that
/// becomes 0 or 1.
pub fn each(instruction: &str, to: &str, from: &[u32], inputs: &[[u64; 3]]) -> Vec<u64> {
    let mut body = String::from(
        ".reg .b64 %x<8>; .reg .b32 %i<4>; .reg .pred %p<3>;\n\
         ld.param.u64 %x0, [in]; ld.param.u64 %x1, [out]; ld.param.u32 %i3, [n];\n\
         mov.u32 %i0, %tid.x; mov.u32 %i1, %ctaid.x; shl.b32 %i1, %i1, 8; add.u32 %i0, %i0, %i1;\n\
         setp.ge.u32 %p2, %i0, %i3;\n@%p2 bra END;\n\
         mul.wide.u32 %x2, %i0, 24; add.u64 %x2, %x0, %x2; mul.wide.u32 %x3, %i0, 8; add.u64 %x3, %x1, %x3;\n",
    );
    for (i, (bits, name)) in from.iter().zip(["%a", "%b", "%c"]).enumerate() {
        body += &format!(".reg .b{bits} {name};\nld.global.u{bits} {name}, [%x2+{}];\n", 8 * i);
    }
    match to {
        "p" => body += &format!("{instruction}\nselp.u64 %x4, 1, 0, %p0;\n"),
        "64" => body += &format!(".reg .b64 %d;\n{instruction}\nmov.b64 %x4, %d;\n"),
        _ => body += &format!(".reg .b{to} %d;\n{instruction}\ncvt.u64.u{to} %x4, %d;\n"),
    }
    body += "st.global.u64 [%x3], %x4;\nEND: ret;";
    let mut device = Device::new(Options::default());
    let bytes: Vec<u8> = inputs.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let source = device.alloc(bytes.len()).unwrap();
    device.write(source, &bytes).unwrap();
    let target = device.alloc(8 * inputs.len()).unwrap();
    let text = module(".param .u64 in, .param .u64 out, .param .u32 n", &body);
    let blocks = inputs.len().div_ceil(256) as u32;
    let args = [source.into(), target.into(), (inputs.len() as u32).into()];
    let report = run(&mut device, &text, Launch::linear(blocks, 256), &args);
    assert!(report.is_clean(), "{instruction}: {report}");
    let mut out = vec![0; 8 * inputs.len()];
    device.read(target, &mut out).unwrap();
    out.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Executes a table: each row has operands and the expected result.
pub fn table(instruction: &str, to: &str, from: &[u32], rows: &[([u64; 3], u64)]) {
    let inputs: Vec<[u64; 3]> = rows.iter().map(|r| r.0).collect();
    for (out, (input, expected)) in each(instruction, to, from, &inputs).iter().zip(rows) {
        assert_eq!(out, expected, "{instruction} of {input:x?}: {out:#x}, expected {expected:#x}");
    }
}

/// Pseudo-random bits.
pub fn random(count: usize, seed: u64) -> Vec<u64> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        })
        .collect()
}

/// Interesting numbers of f32 and pairs of them.
pub fn singles() -> Vec<u32> {
    let mut out = vec![
        0,
        1,
        0x7f_ffff,
        0x80_0000,
        0x3f80_0000,
        0x3f80_0001,
        0x3f7f_ffff,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7fc0_0000,
        0x7f80_0001,
        0x4b00_0001,
        0x3400_0000,
        0x3380_0001,
        0x4049_0fdb,
    ];
    let negative: Vec<u32> = out.iter().map(|v| v | 1 << 31).collect();
    out.extend(negative);
    out.extend(random(40, 7).iter().map(|v| *v as u32));
    out
}

/// In every order that some seeds give a kernel has findings, all of these kinds; or, of no kinds, none.
/// Which of several kinds a fault shows depends on the order.
pub fn finds(text: &str, launch: Launch, kinds: &[FindingKind], arguments: impl Fn(&mut Device) -> Vec<Arg>) {
    for seed in 0..4 {
        let mut device = Device::new(Options { seed, instruction_limit: 1 << 20, ..Options::default() });
        let args = arguments(&mut device);
        let report = run(&mut device, text, launch, &args);
        let mut found: Vec<FindingKind> = report.findings.iter().map(|f| f.kind).collect();
        found.sort_unstable();
        found.dedup();
        let expected = kinds.is_empty() == found.is_empty() && found.iter().all(|k| kinds.contains(k));
        assert!(expected, "seed {seed}: {report}\nexpected {kinds:?} of\n{text}");
    }
}
