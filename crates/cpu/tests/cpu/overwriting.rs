//! Results that take the memory of an operand.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Backward, Binary, Distribution, Unary, View};
use binade_tensor::samples::catalogue;
use binade_tensor::{Array, Arrays, Class, DType, Device, Error, Key, Op, Request, Shape, run, run_one};

fn apply(op: &Op, ins: &[Array], device: &Device, want: DType) -> binade_tensor::Result<Arrays> {
    run(Request::new(op, &ins.iter().collect::<Vec<_>>(), device, want, Class::Activations))
}

/// Runs an operator with its first inputs given up.
fn run_over(request: Request<'_>, given: Vec<Array>) -> Array {
    run(Request { given: given.into(), ..request }).unwrap().swap_remove(0)
}

/// Runs `op` with operand `at` given up, and says whether the result took its memory.
fn overwriting(op: &Op, ins: &[Array], at: usize, device: &Device, want: DType) -> (Array, bool) {
    // The operands before it are given too, but kept here as well.
    let copy = |a: &Array| run_one(&Op::Copy, &[a], device, a.dtype(), Class::Activations).unwrap();
    let mut given: Vec<Array> = ins[..at].to_vec();
    given.push(copy(&ins[at]));
    let storage = given[at].storage().id();
    let kept: Vec<&Array> = ins[at + 1..].iter().collect();
    let out = run_over(Request::new(op, &kept, device, want, Class::Activations), given);
    let taken = out.storage().id() == storage;
    (out, taken)
}

/// The elements' bits, of which NaNs are all the same.
fn bits(array: &Array) -> Vec<u64> {
    array.to_f64_vec().unwrap().into_iter().map(|v| if v.is_nan() { u64::MAX } else { v.to_bits() }).collect()
}

#[test]
fn a_result_written_over_an_operand_has_the_bits_of_one_with_memory_of_its_own() {
    let devices = Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))).chain([Device::reference()]);
    for device in devices {
        let mut overwritten = 0;
        for op in catalogue() {
            for (dtype, ins) in
                DType::FLOATS.into_iter().flat_map(|t| op.samples(&device, t).into_iter().map(move |s| (t, s)))
            {
                for at in (0..ins.len()).filter(|at| op.may_overwrite(*at)) {
                    let expected = &apply(&op, &ins, &device, dtype).unwrap()[0];
                    let (found, taken) = overwriting(&op, &ins, at, &device, dtype);
                    assert!(bits(&found) == bits(expected), "{op:?} over operand {at}, {dtype}, {device:?}");
                    overwritten += taken as usize;
                }
            }
        }
        assert!(overwritten > 1000, "{overwritten} results took an operand's memory");
    }
}

#[test]
fn large_gradients_are_written_over_what_arrives_with_the_same_bits() {
    // Large enough for tables and several tasks, and of a length that no block divides.
    let normal = |device: &Device, seed: u64, dtype: DType| {
        let op = Op::Random {
            distribution: Distribution::Normal { mean: 0.0, std: 2.0 },
            shape: [77_777].try_into().unwrap(),
            key: Key::new(seed, 1),
        };
        run_one(&op, &[], device, dtype, Class::Activations).unwrap()
    };
    for device in Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))) {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (g, x) = (normal(&device, 1, dtype), normal(&device, 2, dtype));
            let rows = Unary::ALL.iter().map(|&row| Op::Backward(Backward::Unary(row)));
            for op in rows.chain(Binary::ALL.iter().map(|&row| Op::Binary(row))) {
                let ins = [g.clone(), x.clone()];
                let expected = bits(&apply(&op, &ins, &device, dtype).unwrap()[0]);
                for at in [0, 1] {
                    let (found, taken) = overwriting(&op, &ins, at, &device, dtype);
                    assert!(taken && bits(&found) == expected, "{op:?} over operand {at}, {dtype}, {device:?}");
                }
            }
        }
    }
}

#[test]
fn memory_that_somebody_shares_is_not_written_over() {
    let device = Device::cpu();
    let array = |n: usize, class: Class| Array::from_slice(&device, &vec![1.5f32; n], &[n], class).unwrap();
    let double = |a: Array, want: DType| {
        let storage = a.storage().id();
        let op = Op::Scalar { op: Binary::Mul, value: 2.0, reversed: false };
        let out = run_over(Request::new(&op, &[], &device, want, Class::Gradients), vec![a]);
        assert!(out.to_f64_vec().unwrap().iter().all(|v| *v == 3.0));
        out.storage().id() == storage
    };
    let whole = || array(8, Class::Gradients);
    assert!(double(whole(), DType::F32));
    let shared = whole();
    assert!(!double(shared.clone(), DType::F32));
    let weak = shared.downgrade();
    assert!(!double(shared, DType::F32) && weak.upgrade().is_none());
    assert!(!double(whole(), DType::F64), "another dtype");
    assert!(!double(array(8, Class::Weights), DType::F32), "another class");
    let part = |start: usize| whole().with_layout(whole().layout().narrow(0, start, 4)).unwrap();
    assert!(!double(part(0), DType::F32) && !double(part(4), DType::F32), "a part");
    let array = whole();
    assert!(matches!(array.copy_from(&array.clone()), Err(Error::InUse { .. })), "a copy has no use for it");
    let twice = whole();
    let sum = run_over(
        Request::new(&Op::Binary(Binary::Add), &[], &device, DType::F32, Class::Gradients),
        vec![twice.clone(), twice],
    );
    assert!(sum.to_f64_vec().unwrap().iter().all(|v| *v == 3.0), "one array as both operands");
}

#[test]
fn dense_views_of_any_order_are_written_and_views_with_gaps_are_refused() {
    for device in [Device::new(Cpu::with_isa(Isa::Portable)), Device::reference()] {
        let zeros = || Array::full(&device, DType::F32, Shape::new(&[4, 6]).unwrap(), 0.0, Class::Weights).unwrap();
        let view = |a: &Array, op: View| run_one(&Op::View(op), &[a], &device, DType::F32, Class::Weights).unwrap();
        let range = |shape: &[usize]| {
            let n = shape.iter().product::<usize>();
            let values: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            Array::from_slice(&device, &values, shape, Class::Weights).unwrap()
        };
        let whole = zeros();
        let turned = view(&whole, View::Permute(Shape::new(&[1, 0]).unwrap()));
        turned.copy_from(&range(&[6, 4])).unwrap();
        assert_eq!(turned.to_f64_vec().unwrap(), range(&[6, 4]).to_f64_vec().unwrap());
        let whole = zeros();
        view(&whole, View::Narrow { dim: 0, start: 1, length: 2 }).copy_from(&range(&[2, 6])).unwrap();
        let expected: Vec<f64> = (0..24).map(|i| if (6..18).contains(&i) { i as f64 - 5.0 } else { 0.0 }).collect();
        assert_eq!(whole.to_f64_vec().unwrap(), expected);
        let whole = zeros();
        let refused = view(&whole, View::Narrow { dim: 1, start: 1, length: 2 }).copy_from(&range(&[4, 2]));
        assert!(matches!(refused, Err(Error::Argument { .. })), "{refused:?}");
        assert_eq!(whole.to_f64_vec().unwrap(), [0.0; 24]);
    }
}
