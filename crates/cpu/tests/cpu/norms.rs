//! Norms with weights, gradients and means that are infinite, or large against what is left of them.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Backward, Norm, NormKind, Unary};
use binade_tensor::testing::check_op;
use binade_tensor::{Array, Class, DType, Device, Op, Request, run};

fn devices() -> Vec<Device> {
    Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))).collect()
}

fn array(device: &Device, dtype: DType, shape: &[usize], values: &[f64]) -> Array {
    Array::from_slice(device, values, shape, Class::Activations).unwrap().cast(dtype, Class::Activations).unwrap()
}

fn norm(kind: NormKind) -> Norm {
    Norm { kind, eps: 1e-5, affine: false, act: None }
}

#[test]
fn a_norm_with_an_infinite_bias_has_the_gradient_of_its_activation_at_infinity() {
    // There silu has slope 1: of equal gradients what is left is the rounding of terms that cancel, and is within the
    // bound, to which an infinite argument adds nothing.
    let x = [0.3, -1.2, 0.7, 2.1, -0.4, 0.9, -2.2, 0.1];
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let rstd = 1.0 / (x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
    for (kind, shape) in [(NormKind::Layer { dims: 1 }, &[1, 8][..]), (NormKind::Batch, &[1, 1, 8])] {
        let weights = if matches!(kind, NormKind::Batch) { 1 } else { 8 };
        for (act, slope) in [(Unary::Silu, 1.0), (Unary::Gelu, 1.0), (Unary::Relu, 1.0), (Unary::Tanh, 0.0)] {
            let op = Op::Backward(Backward::Norm(Norm { affine: true, act: Some(act), ..norm(kind) }));
            for device in devices() {
                let of = |shape: &[usize], values: &[f64]| array(&device, DType::F32, shape, values);
                let mut ins = vec![of(shape, &[1.0; 8]), of(shape, &x), of(&[weights], &[1.0; 8][..weights])];
                ins.extend([of(&[weights], &[f64::INFINITY; 8][..weights]), of(&[1], &[mean]), of(&[1], &[rstd])]);
                let refs = ins.iter().collect::<Vec<_>>();
                let found = run(Request::new(&op, &refs, &device, DType::F32, Class::Activations)).unwrap();
                let dx = found[0].to_f64_vec().unwrap();
                assert!(dx.iter().all(|v| v.abs() < 1e-6), "{kind:?} {act:?} {device:?}: {dx:?}, not 0");
                let by_bias = found[2].to_f64_vec().unwrap();
                let each = slope * n / weights as f64;
                assert_eq!(by_bias, vec![each; weights], "{kind:?} {act:?} {device:?}");
                assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None);
            }
        }
    }
}

#[test]
fn group_norm_in_f64_of_a_large_mean_has_the_deviation_of_f64() {
    // The means of the channels differ, and are rounded to 2⁻³³ beside a million.
    let x: Vec<f64> = (0..4 * 9).map(|i| 1e6 + ((i * 37 % 101) as f64 - 50.0) / 64.0).collect();
    for device in devices() {
        let ins = [array(&device, DType::F64, &[1, 4, 3, 3], &x)];
        for kind in [NormKind::Group { groups: 2 }, NormKind::Group { groups: 1 }, NormKind::Batch] {
            assert_eq!(check_op(&Op::Norm(norm(kind)), &ins, &device, DType::F64).unwrap().1, None, "{kind:?}");
        }
    }
}

#[test]
fn the_gradient_of_a_norm_whose_channels_weight_is_infinite_is_not_finite_in_its_group_alone() {
    let (g, x) = ([1.0, -2.0, 0.5, 3.0, 1.5, -1.0, 2.0, 0.25], [0.3, -1.2, 0.7, 2.1, -0.4, 0.9, -2.2, 0.1]);
    for (kind, infinite, groups) in [(NormKind::Batch, 2, 4), (NormKind::Group { groups: 2 }, 4, 2)] {
        let op = Op::Backward(Backward::Norm(Norm { affine: true, ..norm(kind) }));
        for device in devices() {
            let of = |shape: &[usize], values: &[f64]| array(&device, DType::F32, shape, values);
            let image = [1, 4, 2];
            let weight = of(&[4], &[f64::INFINITY, 1.0, 1.0, 1.0]);
            let stats = [of(&[groups], &vec![0.1; groups]), of(&[groups], &vec![0.9; groups])];
            let [mean, rstd] = stats;
            let ins = vec![of(&image, &g), of(&image, &x), weight, mean, rstd];
            let refs = ins.iter().collect::<Vec<_>>();
            let found = run(Request::new(&op, &refs, &device, DType::F32, Class::Activations)).unwrap();
            let dx = found[0].to_f64_vec().unwrap();
            assert!(
                dx.iter().enumerate().all(|(i, v)| v.is_finite() == (i >= infinite)),
                "{kind:?} {device:?}: {dx:?}"
            );
            assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None);
        }
    }
}

#[test]
fn sums_of_a_norms_gradient_that_leave_the_range_are_not_finite_or_right() {
    // Σ g·w·x leaves f32's range, and with 1/deviation it would not.
    let (g, x) = ([3.0, -2.0, 1.0, 2.5], [1e4, 1.1e4, 0.9e4, 1e4]);
    for device in devices() {
        let of = |shape: &[usize], values: &[f64]| array(&device, DType::F32, shape, values);
        let mut ins = vec![of(&[1, 4], &g), of(&[1, 4], &x), of(&[4], &[4e36, -3e36, 2e36, 1e36])];
        ins.extend([of(&[1], &[0.0]), of(&[1], &[1e-4])]);
        let op = Op::Backward(Backward::Norm(Norm { affine: true, ..norm(NormKind::Rms { dims: 1 }) }));
        assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None);
    }
}

#[test]
fn a_product_with_a_weight_that_leaves_the_range_may_be_infinite_in_its_row() {
    // g·w leaves f32's range before x, which is tiny, brings it back.
    let (g, x, w) = ([1.5, -1.0, 2.0], [1e-4, 5.0, -3.0], [2.5e38, 0.1, 0.2]);
    let rstd = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / 3.0 + 1e-5).sqrt();
    for device in devices() {
        let of = |shape: &[usize], values: &[f64]| array(&device, DType::F32, shape, values);
        let ins = vec![of(&[1, 3], &g), of(&[1, 3], &x), of(&[3], &w), of(&[1], &[0.0]), of(&[1], &[rstd])];
        let op = Op::Backward(Backward::Norm(Norm { affine: true, ..norm(NormKind::Rms { dims: 1 }) }));
        assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None);
    }
}

#[test]
fn a_product_that_leaves_the_range_in_front_of_its_bias_is_within_the_bound_of_a_norm() {
    // x·w leaves f32's range: the bias leads back, or is infinite of the other sign.
    let fixed = |act| Norm { affine: true, act, ..norm(NormKind::Fixed) };
    for device in devices() {
        let of = |values: [f64; 2]| array(&device, DType::F32, &[2], &values);
        let x = array(&device, DType::F32, &[1, 2], &[-3e38, 0.5]);
        for bias in [3.3e38, f64::INFINITY] {
            let given = [x.clone(), of([2.0, 1.0]), of([bias, 0.0]), of([0.0; 2]), of([1.0; 2])];
            assert_eq!(check_op(&Op::Norm(fixed(None)), &given, &device, DType::F32).unwrap().1, None);
            let g = array(&device, DType::F32, &[1, 2], &[1.0, 1.0]);
            let op = Op::Backward(Backward::Norm(fixed(Some(Unary::Mish))));
            let ins = [&[g][..], &given].concat();
            assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None);
        }
    }
}

#[test]
fn a_norms_gradient_with_subnormal_weights_is_within_its_bound() {
    // Products g·w·x round to a few of the smallest numbers, and are then multiplied by 1/deviation twice.
    let (g, x, w) = ([3.1, -1.7, 2.3], [2.1e-3, -3.3e-3, 1.4e-3], [1.2e-42, 4.6e-44, 7e-43]);
    let rstd = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / 3.0 + 1e-5).sqrt();
    for device in devices() {
        let of = |shape: &[usize], values: &[f64]| array(&device, DType::F32, shape, values);
        let ins = vec![of(&[1, 3], &g), of(&[1, 3], &x), of(&[3], &w), of(&[1], &[0.0]), of(&[1], &[rstd])];
        let op = Op::Backward(Backward::Norm(Norm { affine: true, ..norm(NormKind::Rms { dims: 1 }) }));
        assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None);
    }
}

/// The kinds of norms of rows and of planes, with the shape of two sets of four numbers.
const KINDS: [(NormKind, &[usize]); 5] = [
    (NormKind::Layer { dims: 1 }, &[2, 4]),
    (NormKind::Rms { dims: 1 }, &[2, 4]),
    (NormKind::Group { groups: 1 }, &[2, 1, 4]),
    (NormKind::Group { groups: 2 }, &[1, 4, 2]),
    (NormKind::Batch, &[1, 2, 4]),
];

#[test]
fn norms_without_eps_are_those_of_numbers_of_any_size() {
    // Beside numbers of another size, and of equal ones, which have no deviation.
    let numbers = [3.0, -5.0, 2.0, 7.0];
    for device in devices() {
        for (kind, shape) in KINDS {
            for (dtype, least) in
                [(DType::F32, -149), (DType::BF16, -133), (DType::F16, -24), (DType::F64, -1074), (DType::F64, 900)]
            {
                for act in [None, Some(Unary::Tanh)] {
                    let norm = Norm { eps: 0.0, act, ..norm(kind) };
                    let size = 2f64.powi(least / 2) * 2f64.powi(least - least / 2);
                    let of = |scale: f64| numbers.map(|v| v * scale);
                    let run_on = |x: &[f64]| {
                        let ins = [array(&device, dtype, shape, x)];
                        assert_eq!(check_op(&Op::Norm(norm), &ins, &device, dtype).unwrap().1, None, "{norm:?}");
                        let refs = ins.iter().collect::<Vec<_>>();
                        let outs = run(Request::new(&Op::Norm(norm), &refs, &device, dtype, Class::Activations));
                        (ins, outs.unwrap())
                    };
                    let (_, plain) = run_on(&[of(1.0), of(1.0)].concat());
                    let (ins, tiny) = run_on(&[of(size), of(1.0)].concat());
                    let bits = |a: &Array| a.to_f64_vec().unwrap();
                    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 4.0 * dtype.format().unwrap().ulp(*b);
                    assert!(bits(&tiny[0]).iter().zip(&bits(&plain[0])).all(close), "{norm:?} {dtype} {:?}", tiny[0]);
                    let again = Op::Backward(Backward::Renormalise(norm));
                    let saved = [&ins[0], &tiny[1], &tiny[2]];
                    let found = run(Request::new(&again, &saved, &device, dtype, Class::Activations)).unwrap();
                    assert_eq!(bits(&found[0]), bits(&tiny[0]), "{norm:?} {dtype}, again");
                }
            }
        }
    }
}

#[test]
fn norms_without_eps_have_no_value_of_equal_numbers() {
    // 0/0, though sums of them are rounded.
    let shapes: [(NormKind, &[usize]); 6] = [
        (NormKind::Layer { dims: 2 }, &[2, 3, 35]),
        (NormKind::Group { groups: 1 }, &[2, 6, 11, 6]),
        (NormKind::Group { groups: 3 }, &[2, 6, 1, 7]),
        (NormKind::Group { groups: 4 }, &[1, 4, 37, 29]),
        (NormKind::Batch, &[3, 2, 7, 5]),
        (NormKind::Batch, &[2, 1, 41, 51]),
    ];
    for device in devices() {
        for (kind, shape) in shapes {
            for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
                for value in [0.0, 0.1, 1.7421875, 5.850675702095032e-2, 1000.7, -1e4] {
                    let x = array(&device, dtype, shape, &vec![value; shape.iter().product()]);
                    let norm = Op::Norm(Norm { eps: 0.0, ..norm(kind) });
                    let found = run(Request::new(&norm, &[&x], &device, dtype, Class::Activations)).unwrap();
                    let y = found[0].to_f64_vec().unwrap();
                    assert!(y.iter().all(|y| y.is_nan()), "{kind:?} {dtype} {value} {device:?}: {}", y[0]);
                }
            }
        }
    }
}

#[test]
fn a_set_of_equal_numbers_and_nan_has_the_mean_nan() {
    for device in devices() {
        for (kind, shape) in KINDS {
            for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
                for (eps, at) in [(0.0, 0), (0.0, 3), (1e-5, 1)] {
                    let mut x = [0.5, 0.5, 0.5, 0.5, 3.0, -5.0, 2.0, 7.0];
                    x[at] = f64::NAN;
                    let ins = [array(&device, dtype, shape, &x)];
                    let op = Op::Norm(Norm { eps, ..norm(kind) });
                    assert_eq!(check_op(&op, &ins, &device, dtype).unwrap().1, None);
                    let outs = run(Request::new(&op, &[&ins[0]], &device, dtype, Class::Activations)).unwrap();
                    let mean = outs[1].to_f64_vec().unwrap();
                    let is_centred = !matches!(kind, NormKind::Rms { .. });
                    assert!(mean[0].is_nan() == is_centred && mean[1].is_finite(), "{op:?} {dtype}: {mean:?}");
                }
            }
        }
    }
}

#[test]
fn gradients_of_norms_without_eps_are_those_of_numbers_of_any_size() {
    // A gradient nearly as small as the numbers, with all its digits: in 1/deviations it is of ordinary size.
    let (numbers, g, w, b) = ([3.0, -5.0, 2.0, 7.0], [1.0, 2.0, -3.0, 5.0], 0.5, 0.25);
    let more = 2f64.powi(30);
    let n = numbers.len() as f64;
    let sizes =
        [(DType::F32, -149), (DType::F64, -1074)].map(|(dtype, k)| (dtype, 2f64.powi(k / 2) * 2f64.powi(k - k / 2)));
    for (device, (dtype, size)) in devices().into_iter().flat_map(|d| sizes.map(|s| (d.clone(), s))) {
        for ((kind, shape), act) in KINDS.into_iter().flat_map(|k| [None, Some(Unary::Tanh)].map(|act| (k, act))) {
            let norm = Norm { eps: 0.0, affine: true, act, ..norm(kind) };
            let weights = norm_weights(kind, shape);
            let centred = !matches!(kind, NormKind::Rms { .. });
            let mean = if centred { numbers.iter().sum::<f64>() / n } else { 0.0 };
            let std = (numbers.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
            let hat = numbers.map(|v| (v - mean) / std);
            let bias = if centred { b } else { 0.0 };
            let before: [f64; 4] =
                std::array::from_fn(|i| g[i] * w * act.map_or(1.0, |_| 1.0 - (hat[i] * w + bias).tanh().powi(2)));
            let shift = if centred { before.iter().sum::<f64>() / n } else { 0.0 };
            let slope = before.iter().zip(&hat).map(|(g, h)| g * h).sum::<f64>() / n;
            let right: Vec<f64> = before.iter().zip(&hat).map(|(g, h)| (g - shift - h * slope) / std).collect();
            let of = |values: &[f64], shape: &[usize]| array(&device, dtype, shape, values);
            let x = of(&[numbers.map(|v| v * size), numbers].concat(), shape);
            let mut ins = vec![x.clone(), of(&vec![w; weights], &[weights])];
            ins.extend(centred.then(|| of(&vec![b; weights], &[weights])));
            let run_on = |op: &Op, ins: &[Array]| {
                run(Request::new(op, &ins.iter().collect::<Vec<_>>(), &device, dtype, Class::Activations)).unwrap()
            };
            let outs = run_on(&Op::Norm(norm), &ins);
            let gradient = |scale: f64| {
                let mut all = vec![of(&[g.map(|v| v * scale), g].concat(), shape), x.clone()];
                all.extend(ins[1..1 + norm.weights_of_gradient()].iter().cloned());
                all.extend([outs[1].clone(), outs[2].clone()]);
                run_on(&Op::Backward(Backward::Norm(norm)), &all)
            };
            let dx = gradient(size * more)[0].to_f64_vec().unwrap();
            for (i, found) in dx.into_iter().enumerate() {
                let (found, right) = (if i < 4 { found / more } else { found }, right[i % 4]);
                assert!((found - right).abs() < 1e-5, "{norm:?} {dtype} {device:?}: {found} instead of {right}");
            }
            // By the weights, to whose gradient numbers of any size give as much.
            let by_weight: f64 = gradient(1.0)[1].to_f64_vec().unwrap().iter().sum();
            let each = before.iter().zip(&hat).map(|(g, h)| g / w * h).sum::<f64>();
            assert!(
                (by_weight - 2.0 * each).abs() < 1e-4,
                "{norm:?} {dtype} {device:?}: {by_weight}, not {}",
                2.0 * each
            );
        }
    }
}

/// How many weights a norm of a shape has.
fn norm_weights(kind: NormKind, shape: &[usize]) -> usize {
    match kind {
        NormKind::Layer { .. } | NormKind::Rms { .. } => shape[shape.len() - 1],
        NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => shape[1],
    }
}
