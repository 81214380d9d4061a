//! Norms without eps, of numbers whose 1/deviation f32 does not hold.

use binade_cuda::interpreted;
use binade_tensor::op::{Backward, Norm, NormKind, Unary};
use binade_tensor::{Array, Class, DType, Device, Op, Result};

use crate::common::{all_there, outs};
use crate::registry::failure;

/// The kinds of norms, with the shape of two sets of four numbers.
const KINDS: [(NormKind, &[usize]); 5] = [
    (NormKind::Layer { dims: 1 }, &[2, 4]),
    (NormKind::Rms { dims: 1 }, &[2, 4]),
    (NormKind::Group { groups: 1 }, &[2, 1, 4]),
    (NormKind::Group { groups: 2 }, &[1, 4, 2]),
    (NormKind::Batch, &[1, 2, 4]),
];

fn array(dtype: DType, shape: &[usize], values: &[f64]) -> Result<Array> {
    Array::from_slice(&Device::cpu(), values, shape, Class::Activations)?.cast(dtype, Class::Activations)
}

/// What is wrong with a norm of these numbers, made again and with its gradient, beside the reference.
fn failures(norm: Norm, device: &Device, dtype: DType, shape: &[usize], x: &[f64]) -> Result<Vec<String>> {
    let weights = match norm.kind {
        NormKind::Layer { .. } | NormKind::Rms { .. } => shape[shape.len() - 1],
        NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => shape[1],
    };
    let mut ins = vec![array(dtype, shape, x)?];
    ins.extend((0..norm.weights()).map(|_| array(dtype, &[weights], &vec![0.5; weights])).collect::<Result<Vec<_>>>()?);
    let saved = outs(&Op::Norm(norm), &all_there(device, &ins)?, device, dtype)?;
    let saved = [saved[1].to(&Device::cpu())?, saved[2].to(&Device::cpu())?];
    let again = [&ins[..], &saved].concat();
    let g = array(dtype, shape, &(0..x.len()).map(|i| [1.0, 2.0, -3.0, 5.0][i % 4]).collect::<Vec<_>>())?;
    let backward = [&[g], &ins[..1 + norm.weights_of_gradient()], &saved].concat();
    let ops = [Op::Norm(norm), Op::Backward(Backward::Renormalise(norm)), Op::Backward(Backward::Norm(norm))];
    Ok(ops.iter().zip([ins, again, backward]).filter_map(|(op, ins)| failure(op, &ins, device, dtype)).collect())
}

#[test]
fn norms_without_eps_are_those_of_numbers_of_any_size_and_have_no_value_of_equal_ones() {
    let device = Device::new(interpreted().unwrap());
    let numbers = [3.0, -5.0, 2.0, 7.0];
    let mut wrong = Vec::new();
    for ((kind, shape), affine) in KINDS.into_iter().flat_map(|kind| [false, true].map(|affine| (kind, affine))) {
        for (dtype, least) in [(DType::F32, -149), (DType::BF16, -133), (DType::F16, -24)] {
            for act in [None, Some(Unary::Tanh)] {
                let norm = Norm { kind, eps: 0.0, affine, act };
                // Beside numbers of another size, and equal ones beside others.
                let of = |scale: f64| numbers.map(|v| v * scale);
                for first in [of(2f64.powi(least)), [0.0; 4], [0.1; 4], [1000.7; 4]] {
                    let x = [first, of(1.0)].concat();
                    wrong.extend(failures(norm, &device, dtype, shape, &x).unwrap());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} failures, the first: {}", wrong.len(), wrong[0]);
}
