//! The registry's checks of gradients: every differentiable operator at its f64 samples against central differences.

use binade_autograd::{Var, apply, gradcheck, scope};
use binade_cpu as _;
use binade_tensor::op::{Binary, Ternary};
use binade_tensor::samples::catalogue;
use binade_tensor::{Array, Class, DType, Op};

#[test]
fn every_operator_has_the_gradient_of_its_function_at_every_small_sample() {
    let device = scope::device().unwrap();
    let mut checked = std::collections::BTreeSet::new();
    for op in catalogue() {
        // Gradients of backward kernels are second order (second_order.rs); views need inputs of their own.
        // Unary functions are checked inside their domains in gradients.rs.
        if matches!(op, Op::Backward(_) | Op::View(_) | Op::Unary(_)) || rounds(&op) || has_poles(&op) {
            continue;
        }
        let samples = op.samples(&device, DType::F64);
        let small = |ins: &&Vec<Array>| {
            let n: usize = ins.iter().map(|a| a.numel()).sum();
            n > 0 && n <= 700 && ins.iter().any(|a| a.dtype().is_float())
        };
        for ins in samples.iter().filter(small) {
            // The variance of one element is 0/0: nothing to differentiate.
            let outs = binade_tensor::run(binade_tensor::Request::new(
                &op,
                &ins.iter().collect::<Vec<_>>(),
                &device,
                DType::F64,
                Class::Activations,
            ))
            .unwrap();
            if outs[0].to_f64_vec().unwrap().iter().any(|v| !v.is_finite()) {
                continue;
            }
            // A mask is given as a constant, like indices: only floats that the operator differentiates are leaves.
            let floats: Vec<usize> =
                (0..ins.len()).filter(|&i| ins[i].dtype().is_float() && differentiable(&op, i)).collect();
            let inputs: Vec<Array> = floats.iter().map(|&i| ins[i].clone()).collect();
            let result = gradcheck(
                |v| {
                    let mut all: Vec<Var> = ins.iter().map(|a| Var::constant(a.clone())).collect();
                    for (&i, v) in floats.iter().zip(v) {
                        all[i] = v.clone();
                    }
                    let y = apply(op.clone(), &all.iter().collect::<Vec<_>>())?;
                    // What has no gradient (a comparison) counts as constant: nothing to compare.
                    if y.dtype().is_float() { Ok(y) } else { v[0].sum(&[], false) }
                },
                &inputs,
            );
            if let Err(error) = result {
                panic!("{op:?}: {error}");
            }
            checked.insert(op.name());
        }
    }
    assert!(checked.len() > 60, "only {} operators have small samples: {checked:?}", checked.len());
}

#[test]
fn every_operator_has_a_second_derivative_at_every_small_sample() {
    let device = scope::device().unwrap();
    let mut checked = std::collections::BTreeSet::new();
    for op in catalogue() {
        if matches!(op, Op::View(_) | Op::Unary(_) | Op::Compare(_) | Op::ArgMax { .. })
            || rounds(&op)
            || has_poles(&op)
        {
            continue;
        }
        // The operators of a backward pass are differentiated as parts of it; a divisor near 0 is a pole.
        if matches!(op, Op::Backward(_) | Op::Ternary { op: Ternary::Addcdiv, .. }) {
            continue;
        }
        for ins in op.samples(&device, DType::F64) {
            let n: usize = ins.iter().map(|a| a.numel()).sum();
            let outs = binade_tensor::run(binade_tensor::Request::new(
                &op,
                &ins.iter().collect::<Vec<_>>(),
                &device,
                DType::F64,
                Class::Activations,
            ))
            .unwrap();
            let finite = outs[0].to_f64_vec().unwrap().iter().all(|v| v.is_finite());
            let floats: Vec<usize> =
                (0..ins.len()).filter(|&i| ins[i].dtype().is_float() && differentiable(&op, i)).collect();
            if n == 0 || n > 700 || !finite || floats.is_empty() {
                continue;
            }
            let f = |v: &[Var]| {
                let mut all: Vec<Var> = ins.iter().map(|a| Var::constant(a.clone())).collect();
                floats.iter().zip(v).for_each(|(&i, v)| all[i] = v.clone());
                apply(op.clone(), &all.iter().collect::<Vec<_>>())
            };
            let inputs: Vec<Array> = floats.iter().map(|&i| ins[i].clone()).collect();
            if let Err(error) = crate::common::check_second_order(&f, &inputs) {
                let shapes: Vec<_> = ins.iter().map(|a| *a.shape()).collect();
                panic!("{op:?} {shapes:?}: {error}");
            }
            checked.insert(op.name());
        }
    }
    assert!(checked.len() > 55, "only {} operators have small samples: {checked:?}", checked.len());
}

/// Binary functions that are checked inside their domains in gradients.rs: a power of a negative base is NaN
/// beside the exponents where it is a number, a remainder has steps everywhere near a small divisor, a quotient and an
/// angle poles.
fn has_poles(op: &Op) -> bool {
    let narrow = |row: &Binary| {
        matches!(row, Binary::Pow | Binary::Fmod | Binary::Div | Binary::Atan2 | Binary::Celu | Binary::Softplus)
    };
    matches!(op, Op::Binary(row) | Op::Scalar { op: row, .. } if narrow(row))
}

/// Operators that are steps or change the dtype, whose differences are not a gradient, and those for inference alone.
fn rounds(op: &Op) -> bool {
    let inference = matches!(op, Op::QuantisedMatMul(_) | Op::QuantisedConv2d(_));
    inference
        || matches!(
            op,
            Op::Cast(_) | Op::StochasticCast { .. } | Op::Random { .. } | Op::Fill { .. } | Op::Range { .. }
        )
}

/// The inputs that get a gradient: not an attention's mask, nor given statistics.
fn differentiable(op: &Op, input: usize) -> bool {
    match op {
        Op::Attention(_) => input < 3,
        Op::Norm(norm) if norm.kind == binade_tensor::op::NormKind::Fixed => input <= norm.weights(),
        // Labels of ±1.
        Op::Loss { loss: binade_tensor::op::Loss::HingeEmbedding, .. } => input == 0,
        _ => true,
    }
}
