//! Every operator with every extent 0: the reference's result within the bound, or an error that names the operator.

use std::panic::{AssertUnwindSafe, catch_unwind};

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Attention, Backward, Conv2d, Epilogue, MatMul, Reduce, View};
use binade_tensor::samples::catalogue;
use binade_tensor::testing::{check_op, empties};
use binade_tensor::{Array, Class, DType, Device, Dims, Op, run_one};

/// The smallest sample of each combination of ranks: the layouts of the others do not matter without elements.
fn small(samples: Vec<Vec<Array>>) -> Vec<Vec<Array>> {
    let ranks = |ins: &Vec<Array>| ins.iter().map(|a| a.shape().rank()).collect::<Vec<_>>();
    let mut smallest = std::collections::BTreeMap::<Vec<usize>, Vec<Array>>::new();
    let size = |ins: &Vec<Array>| ins.iter().map(|a| a.numel()).sum::<usize>();
    for ins in samples {
        let kept = smallest.entry(ranks(&ins)).or_insert_with(|| ins.clone());
        if size(&ins) < size(kept) {
            *kept = ins;
        }
    }
    smallest.into_values().collect()
}

#[test]
fn every_operator_with_any_extent_0_has_a_result_or_an_error_that_names_it() {
    let mut failures = Vec::new();
    let (mut results, mut errors) = (0, 0);
    for isa in Isa::available() {
        let device = Device::new(Cpu::with_isa(isa));
        for op in catalogue() {
            let dtypes = if matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Scalar { .. }) {
                &[DType::F32][..]
            } else {
                &[DType::F32, DType::BF16]
            };
            for (dtype, ins) in
                dtypes.iter().flat_map(|&t| small(op.samples(&device, t)).into_iter().map(move |s| (t, s)))
            {
                for (op, ins) in empties(&op, &ins).unwrap() {
                    // The sample's log-sum-exp is that of other scores: autograd's registry has this gradient.
                    let scoreless = matches!(op, Op::Backward(Backward::Attention { .. }));
                    if scoreless && ins[1].numel() == 0 && ins[0].numel() > 0 {
                        continue;
                    }
                    let shapes: Vec<_> = ins.iter().map(|a| *a.shape()).collect();
                    match catch_unwind(AssertUnwindSafe(|| check_op(&op, &ins, &device, dtype))) {
                        Ok(Ok((_, None))) => results += 1,
                        Ok(Ok((_, Some(failure)))) => failures.push(format!("{failure} {shapes:?}")),
                        Ok(Err(error)) if matches!(op, Op::Backward(_)) || error.to_string().starts_with(op.name()) => {
                            errors += 1
                        }
                        Ok(Err(error)) => failures.push(format!("{op:?} of {shapes:?}: {error}")),
                        Err(_) => failures.push(format!("PANIC {op:?} of {shapes:?}")),
                    }
                }
            }
        }
    }
    failures.sort();
    failures.dedup();
    assert!(failures.is_empty(), "{} of them: {:#?}", failures.len(), failures);
    assert!(results > 3000 && errors > 3000, "{results} results, {errors} errors");
}

fn array(device: &Device, dims: &[usize], values: &[f32]) -> Array {
    Array::from_slice(device, values, dims, Class::Activations).unwrap()
}

/// The first output's bits on the CPU, which the reference has too.
fn result(op: &Op, shapes: &[&[usize]], value: f32) -> Vec<f64> {
    let of = |device: &Device| {
        let ins: Vec<Array> = shapes.iter().map(|s| array(device, s, &vec![value; s.iter().product()])).collect();
        run_one(op, &ins.iter().collect::<Vec<_>>(), device, DType::F32, Class::Activations)
            .unwrap()
            .to_f64_vec()
            .unwrap()
    };
    let (cpu, reference) = (of(&Device::cpu()), of(&Device::reference()));
    let bits = |v: &[f64]| {
        v.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { (*v as f32).to_bits() }).collect::<Vec<_>>()
    };
    assert_eq!(bits(&cpu), bits(&reference), "{cpu:?} and {reference:?}");
    cpu
}

fn over_nothing(kind: Reduce) -> f64 {
    result(&Op::Reduce { kind, dims: Dims::one(1), keepdim: false }, &[&[1, 0]], 0.0)[0]
}

#[test]
fn reductions_of_nothing_are_their_neutral_element_or_nan() {
    assert_eq!(over_nothing(Reduce::Sum).to_bits(), 0.0f64.to_bits(), "not -0");
    assert_eq!(over_nothing(Reduce::Prod), 1.0);
    assert_eq!(over_nothing(Reduce::LogSumExp), f64::NEG_INFINITY);
    assert_eq!(over_nothing(Reduce::Norm { p: 2.0 }), 0.0);
    for kind in [
        Reduce::Mean,
        Reduce::Var { correction: 1.0 },
        Reduce::Var { correction: 0.0 },
        Reduce::Std { correction: 1.0 },
    ] {
        assert!(over_nothing(kind).is_nan(), "{kind:?}");
    }
}

#[test]
fn a_variance_of_fewer_elements_than_its_correction_is_infinite() {
    for kind in [Reduce::Var { correction: 3.0 }, Reduce::Std { correction: 3.0 }] {
        let op = Op::Reduce { kind, dims: Dims::one(0), keepdim: false };
        for device in [Device::cpu(), Device::reference()] {
            let x = array(&device, &[2], &[1.0, 2.0]);
            let y = run_one(&op, &[&x], &device, DType::F32, Class::Activations).unwrap();
            assert_eq!(y.item().unwrap(), f64::INFINITY, "{kind:?}");
        }
    }
}

#[test]
fn the_largest_of_nothing_is_an_error() {
    for kind in [Reduce::Max, Reduce::Min, Reduce::Norm { p: f64::INFINITY }, Reduce::Norm { p: -1.0 }] {
        let op = Op::Reduce { kind, dims: Dims::one(1), keepdim: false };
        let x = array(&Device::cpu(), &[1, 0], &[]);
        let error = run_one(&op, &[&x], &Device::cpu(), DType::F32, Class::Activations).unwrap_err();
        assert!(error.to_string().contains("the largest of no elements"), "{kind:?}: {error}");
    }
}

#[test]
fn attention_of_no_keys_is_zeros_and_vectors_without_elements_weigh_equally() {
    let op = Op::Attention(Attention::default());
    assert_eq!(result(&op, &[&[1, 2, 3], &[1, 0, 3], &[1, 0, 2]], 1.0), [0.0; 4]);
    assert_eq!(result(&op, &[&[1, 2, 0], &[1, 3, 0], &[1, 3, 2]], 1.5), [1.5; 4]);
}

#[test]
fn products_over_nothing_are_the_bias() {
    let biased = Epilogue { bias: true, act: None };
    assert_eq!(result(&Op::MatMul(MatMul::plain(biased)), &[&[2, 0], &[0, 3], &[3]], 1.5), [1.5; 6]);
    let conv = Conv2d { padding: [1, 1], groups: 2, ..Conv2d::default() };
    assert_eq!(result(&Op::Conv2d(conv, biased), &[&[1, 0, 2, 2], &[4, 0, 3, 3], &[4]], 1.5), [1.5; 16]);
    let transposed = Op::ConvTranspose2d { conv, output_padding: [0, 0], bias: true };
    assert_eq!(result(&transposed, &[&[1, 0, 2, 2], &[0, 2, 3, 3], &[4]], 1.5), [1.5; 16]);
}

#[test]
fn an_empty_view_that_would_begin_beyond_its_storage_is_read_as_nothing() {
    for device in [Device::cpu(), Device::reference()] {
        let x = array(&device, &[0, 5], &[]);
        let part = run_one(
            &Op::View(View::Narrow { dim: 1, start: 2, length: 3 }),
            &[&x],
            &device,
            DType::F32,
            Class::Activations,
        );
        let part = part.unwrap();
        assert_eq!((part.shape().to_vec(), part.to_f64_vec().unwrap()), (vec![0, 3], vec![]));
    }
}
