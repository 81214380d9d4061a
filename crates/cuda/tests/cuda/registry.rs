//! Every operator against the reference within its stated bound, and nothing that the interpreter finds wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use binade_cuda::{Cuda, ON_HOST, interpreted};
use binade_tensor::testing::Exact;
use binade_tensor::{Array, DType, Device, Op};

use crate::common::{all_there, operators};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
/// Tests that share the operators.
const PARTS: usize = 4;
/// Samples in 16 bit: the first are dense and strided. All of them run where `all` is wanted.
const SOME: usize = 2;

/// The samples of an operator that are tried, on the host.
fn samples(op: &Op, dtype: DType, all: bool) -> Vec<Vec<Array>> {
    let most = if all || dtype == DType::F32 { usize::MAX } else { SOME };
    op.samples(&Device::cpu(), dtype).into_iter().take(most).collect()
}

/// What is wrong with an operator on operands of the host.
pub fn failure(op: &Op, ins: &[Array], device: &Device, dtype: DType) -> Option<String> {
    let checked = Exact::of(op, ins).and_then(|exact| exact.check(op, &all_there(device, ins)?, device, dtype));
    match checked {
        Ok((_, failure)) => failure,
        Err(error) => Some(format!("{op:?} {dtype}: {error}")),
    }
}

/// Whether operators are within their bounds; the first failure.
pub fn bounds(device: &Device, names: &[&str]) -> Result<(), String> {
    let ops: Vec<Op> = operators().filter(|op| names.contains(&op.name())).collect();
    assert!(!ops.is_empty(), "none is named {names:?}");
    for dtype in DTYPES {
        for op in &ops {
            for ins in samples(op, dtype, false) {
                failure(op, &ins, device, dtype).map_or(Ok(()), Err)?;
            }
        }
    }
    Ok(())
}

/// What is wrong with the operators of a part.
fn failures(cuda: &Cuda, part: usize, all: bool) -> BTreeMap<&'static str, Vec<String>> {
    let device = Device::new(cuda.clone());
    let mut failures: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for op in operators().skip(part).step_by(PARTS) {
        for dtype in DTYPES {
            for ins in samples(&op, dtype, all) {
                failures.entry(op.name()).or_default().extend(failure(&op, &ins, &device, dtype));
            }
        }
    }
    failures.retain(|_, failures| !failures.is_empty());
    failures
}

fn check(part: usize, all: bool) {
    let cuda = interpreted().unwrap();
    let mut text = String::new();
    for (name, failures) in failures(&cuda, part, all) {
        let _ = writeln!(text, "{name}: {} failures, the first: {}", failures.len(), failures[0]);
    }
    assert!(text.is_empty(), "{text}");
    let known = |name: &&str| ON_HOST.iter().any(|(known, _)| known == name);
    let unexpected: Vec<&str> = cuda.counts().fallbacks.into_keys().filter(|name| !known(name)).collect();
    assert!(unexpected.is_empty(), "run by the host: {unexpected:?}");
}

#[test]
fn the_first_part_of_the_operators_is_within_its_stated_bounds() {
    check(0, false);
}

#[test]
fn the_second_part_of_the_operators_is_within_its_stated_bounds() {
    check(1, false);
}

#[test]
fn the_third_part_of_the_operators_is_within_its_stated_bounds() {
    check(2, false);
}

#[test]
fn the_last_part_of_the_operators_is_within_its_stated_bounds() {
    check(3, false);
}

/// As docs/cuda.md says; the cast to f64 is refused.
#[test]
fn all_784_operators_but_one_are_tried_in_three_dtypes() {
    let runs = |op: &Op| DTYPES.into_iter().filter(|&dtype| !samples(op, dtype, false).is_empty()).count();
    let runs: Vec<(Op, usize)> = operators().map(|op| (op.clone(), runs(&op))).collect();
    assert_eq!((1 + runs.len(), runs.iter().map(|(_, n)| n).sum()), (784, 2_346));
    // A view computes nothing.
    for (op, n) in &runs {
        assert!(*n == 3 || matches!(op, Op::View(_)), "{op:?}: {n}");
    }
}

#[test]
fn the_host_runs_what_is_named_and_no_more() {
    let names: Vec<&str> = ON_HOST.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["sort", "permutation", "adafactor", "custom operators"]);
}

/// Minutes: `cargo test --release --test cuda -- --ignored`.
#[test]
#[ignore = "minutes long"]
fn every_operator_is_within_its_stated_bounds_at_every_sample() {
    (0..PARTS).for_each(|part| check(part, true));
}
