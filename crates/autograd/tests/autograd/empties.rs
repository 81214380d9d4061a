//! Every operator with every extent 0: gradients of first and second order in the inputs' shapes, as on the reference.

use binade_cpu as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use binade_autograd::{Result, Var, apply, grad, scope};
use binade_tensor::op::{CrossEntropy, Reduction};
use binade_tensor::samples::catalogue;
use binade_tensor::testing::empties;
use binade_tensor::{Array, Class, DType, Device, Op};

fn on(device: &Device, array: &Array) -> Array {
    let dense = array.contiguous(Class::Workspace).unwrap();
    let bytes = dense.device().download(&dense).unwrap();
    Array::from_bytes(device, array.dtype(), &bytes, array.shape(), Class::Activations).unwrap()
}

/// The gradients of Σ y²/2, and those of the sum of their squares. The outer `None`: the operator refuses these shapes.
fn gradients(op: &Op, ins: &[Array], device: &Device) -> Option<Result<Vec<f64>>> {
    let leaf = |a: &Array| if a.dtype().is_float() { Var::leaf(on(device, a)) } else { Var::constant(on(device, a)) };
    let vars: Vec<Var> = ins.iter().map(leaf).collect();
    let y = scope::recording(|| apply(op.clone(), &vars.iter().collect::<Vec<_>>())).ok()?;
    if !y.requires_grad() {
        return None;
    }
    Some(scope::recording(|| {
        let loss = (&y.square()?.sum(&[], false)? * 0.5)?;
        let leaves: Vec<&Var> = vars.iter().filter(|v| v.requires_grad()).collect();
        let first = grad(&loss, &leaves, None, true)?;
        let mut found = Vec::new();
        let mut penalty = loss;
        for (leaf, gradient) in leaves.iter().zip(&first) {
            if let Some(gradient) = gradient {
                assert_eq!(gradient.shape(), leaf.shape(), "{op:?}");
                found.extend(gradient.array().to_f64_vec()?);
                penalty = penalty.add(&gradient.square()?.sum(&[], false)?)?;
            }
        }
        for (leaf, gradient) in leaves.iter().zip(grad(&penalty, &leaves, None, false)?) {
            if let Some(gradient) = gradient {
                assert_eq!(gradient.shape(), leaf.shape(), "{op:?}, second order");
                found.extend(gradient.array().to_f64_vec()?);
            }
        }
        Ok(found)
    }))
}

#[test]
fn every_operator_with_any_extent_0_has_gradients_of_both_orders() {
    let (cpu, reference) = (scope::device().unwrap(), Device::reference());
    let (mut failures, mut checked) = (std::collections::BTreeSet::new(), 0);
    for op in catalogue() {
        // Kernels of the backward pass are what the others' gradients run; products with 8-bit weights have none.
        if matches!(op, Op::Backward(_) | Op::QuantisedMatMul(_) | Op::QuantisedConv2d(_)) {
            continue;
        }
        let samples = op.samples(&cpu, DType::F64);
        let Some(ins) = samples
            .iter()
            .filter(|s| s.iter().all(|a| a.numel() > 1))
            .min_by_key(|s| s.iter().map(|a| a.numel()).sum::<usize>())
        else {
            continue;
        };
        for (op, ins) in empties(&op, ins).unwrap() {
            let shapes: Vec<_> = ins.iter().map(|a| *a.shape()).collect();
            let both =
                catch_unwind(AssertUnwindSafe(|| (gradients(&op, &ins, &cpu), gradients(&op, &ins, &reference))));
            match both {
                Ok((None, None)) => {}
                Ok((Some(Ok(found)), Some(Ok(wanted)))) => {
                    checked += 1;
                    let close = |a: &f64, b: &f64| {
                        (a - b).abs() <= 1e-9 * (1.0 + b.abs()) || a.is_nan() && b.is_nan() || a == b
                    };
                    if found.len() != wanted.len() || !found.iter().zip(&wanted).all(|(a, b)| close(a, b)) {
                        failures.insert(format!("{op:?} of {shapes:?}: {found:?} instead of {wanted:?}"));
                    }
                }
                Ok((a, b)) => {
                    let [a, b] = [a, b].map(|r| r.map(|r| r.err()));
                    failures.insert(format!("{op:?} of {shapes:?}: {a:?} and {b:?}"));
                }
                Err(_) => {
                    failures.insert(format!("PANIC {op:?} of {shapes:?}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of them: {failures:#?}", failures.len());
    assert!(checked > 500, "{checked} checked");
}

#[test]
fn cross_entropy_of_no_classes_has_a_loss_and_gradients_of_both_orders() {
    // Every target is one that does not count.
    for device in [scope::device().unwrap(), Device::reference()] {
        for (reduction, wanted) in
            [(Reduction::None, vec![0.0, 0.0]), (Reduction::Sum, vec![0.0]), (Reduction::Mean, vec![f64::NAN])]
        {
            for smoothing in [0.0, 0.1] {
                let op = Op::CrossEntropy(CrossEntropy { smoothing, ignore_index: 0, reduction });
                let x = Array::from_slice::<f32>(&device, &[], &[2, 0], Class::Activations).unwrap();
                let targets = Array::from_slice::<i64>(&device, &[0, 0], &[2], Class::Indices).unwrap();
                let (x, targets) = (Var::leaf(x), Var::constant(targets));
                let y = scope::recording(|| apply(op.clone(), &[&x, &targets])).unwrap();
                let found = y.array().to_f64_vec().unwrap();
                let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
                assert!(found.len() == wanted.len() && found.iter().zip(&wanted).all(same), "{reduction:?}: {found:?}");
                for recorded in [false, true] {
                    let gradient = scope::recording(|| {
                        let first = grad(&y.sum(&[], false)?, &[&x], None, recorded)?.swap_remove(0).unwrap();
                        if !recorded {
                            return Ok(Some(first));
                        }
                        Ok::<_, binade_autograd::Error>(
                            grad(&first.square()?.sum(&[], false)?, &[&x], None, false)?.swap_remove(0),
                        )
                    });
                    let gradient = gradient.unwrap().unwrap();
                    assert_eq!(gradient.shape().to_vec(), [2, 0], "{reduction:?}, {smoothing}");
                }
            }
        }
    }
}
