//! The environment variable `BINADE_ISA` decides which kernels run.

use std::process::Command;

use binade::cpu::Cpu;
use binade::cpu::simd::{Isa, vector_length};
use binade::tensor::op::{MatMul, Norm, NormKind, Unary};
use binade::tensor::{Array, Class, DType, Device, Op, Result, run_one};

/// Set in the child process, which prints its bits instead of starting children.
const CHILD: &str = "BINADE_ISA_TEST_CHILD";

/// The bits of some results on a device. Instruction sets differ in rounding: fused multiply-adds, and the number of
/// partial sums.
fn bits(device: &Device) -> Result<String> {
    let array = |dims: &[usize], dtype: DType| -> Result<Array> {
        let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i as f32 * 0.37).sin()).collect();
        Array::from_slice(device, &values, dims, Class::Activations)?.cast(dtype, Class::Activations)
    };
    let norm = Norm { kind: NormKind::Layer { dims: 1 }, eps: 1e-5, affine: false, act: None };
    let mut out = String::new();
    for dtype in [DType::F32, DType::BF16] {
        let (a, b) = (array(&[33, 70], dtype)?, array(&[70, 41], dtype)?);
        let ops = [Op::Unary(Unary::Gelu), Op::Softmax { dim: 1, log: false }, Op::Norm(norm)];
        let single = ops.iter().map(|op| run_one(op, &[&a], device, DType::F32, Class::Activations));
        let product = run_one(&Op::MatMul(MatMul::default()), &[&a, &b], device, DType::F32, Class::Activations);
        for result in single.chain([product]) {
            let sum = result?
                .to_vec::<f32>()?
                .iter()
                .fold(0u64, |h, v| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(v.to_bits()));
            out += &format!("{sum:016x} ");
        }
    }
    Ok(out)
}

#[test]
fn the_level_that_the_environment_names_is_the_one_that_runs() {
    if std::env::var_os(CHILD).is_some() {
        println!(
            "bits {}\nlevel {} {}",
            bits(&Device::cpu()).unwrap(),
            Isa::detect().name(),
            vector_length(Isa::detect())
        );
        return;
    }
    let mut all = Vec::new();
    for isa in Isa::available() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "isa::the_level_that_the_environment_names_is_the_one_that_runs", "--nocapture"])
            .env("BINADE_ISA", isa.name())
            .env(CHILD, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&child.stdout).into_owned();
        let line = |start: &str| {
            // The harness prints the test's name in front of the first line.
            let found = printed.lines().find_map(|l| Some(l.split_once(start)?.1.trim().to_string()));
            found.unwrap_or_else(|| panic!("{printed}{}", String::from_utf8_lossy(&child.stderr)))
        };
        assert_eq!(line("level "), format!("{} {}", isa.name(), vector_length(isa)));
        let wanted = bits(&Device::new(Cpu::with_isa(isa))).unwrap();
        assert_eq!(line("bits "), wanted.trim(), "{}", isa.name());
        println!("executed: {}, {} f32 at a time", isa.name(), vector_length(isa));
        all.push(wanted);
    }
    // Else the comparison above would tell nothing: with and without fused multiply-adds the results differ.
    assert!(all.iter().skip(1).all(|other| *other != all[0]), "{all:?}");
}
