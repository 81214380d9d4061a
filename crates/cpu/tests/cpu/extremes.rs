//! Values at the ends of the range, singular points and NaN: what is finite stays right, what is not is not lost.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{
    Backward, Binary, CrossEntropy, Epilogue, Loss, MatMul, Norm, NormKind, Reduce, Reduction, Ternary, Unary,
};
use binade_tensor::testing::check_op;
use binade_tensor::{Array, Class, DType, Device, Dims, Op, Request, run};

const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

fn devices() -> Vec<Device> {
    Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))).collect()
}

fn array(device: &Device, dtype: DType, shape: &[usize], values: &[f64]) -> Array {
    Array::from_slice(device, values, shape, Class::Activations).unwrap().cast(dtype, Class::Activations).unwrap()
}

fn outs(op: &Op, device: &Device, dtype: DType, ins: &[(&[usize], &[f64])]) -> Vec<Vec<f64>> {
    let ins: Vec<Array> = ins.iter().map(|(shape, values)| array(device, dtype, shape, values)).collect();
    let outs = run(Request::new(op, &ins.iter().collect::<Vec<_>>(), device, dtype, Class::Activations)).unwrap();
    outs.iter().map(|out| out.to_f64_vec().unwrap()).collect()
}

/// The first output is within a relative error.
fn close(op: &Op, dtype: DType, ins: &[(&[usize], &[f64])], expected: &[f64]) {
    let allowed = if dtype == DType::F32 { 4e-6 } else { dtype.unit_roundoff().unwrap() * 2.1 };
    for device in devices().into_iter().chain([Device::reference()]) {
        let found = outs(op, &device, dtype, ins).swap_remove(0);
        for (found, expected) in found.iter().zip(expected) {
            let right = found == expected || found.is_nan() && expected.is_nan();
            assert!(
                right || (found - expected).abs() <= allowed * expected.abs(),
                "{op:?} {dtype} {device:?}: {found:e}, not {expected:e}"
            );
        }
    }
}

fn spread(kind: Reduce) -> (Op, Op) {
    let dims = Dims::one(0);
    (Op::Reduce { kind, dims, keepdim: true }, Op::Backward(Backward::Reduce { kind, dims }))
}

#[test]
fn the_deviation_of_numbers_of_any_size_and_its_gradient_are_right() {
    let (std, slope) = spread(Reduce::Std { correction: 1.0 });
    // Of 1, 2, 4: 1.5275, and the slopes.
    let unit = [(-4.0f64 / 3.0), -1.0 / 3.0, 5.0 / 3.0];
    let deviation = (unit.iter().map(|d| d * d).sum::<f64>() / 2.0).sqrt();
    for dtype in [DType::F32, DType::BF16] {
        for size in [2f64.powi(-120), 2f64.powi(-83), 2f64.powi(-40), 1.0, 2f64.powi(40), 2f64.powi(83), 2f64.powi(125)]
        {
            let x = [1.0, 2.0, 4.0].map(|v| v * size);
            close(&std, dtype, &[(&[3], &x)], &[deviation * size]);
            let slopes = unit.map(|d| d / 2.0 / deviation);
            close(&slope, dtype, &[(&[1], &[1.0]), (&[1], &[deviation * size]), (&[3], &x)], &slopes);
        }
    }
}

#[test]
fn the_gradient_of_the_deviation_of_equal_numbers_is_zero() {
    let (std, slope) = spread(Reduce::Std { correction: 1.0 });
    for dtype in FLOATS {
        for v in [2.0, 0.1, -1000.7] {
            close(&std, dtype, &[(&[7], &[v; 7])], &[0.0]);
            close(&slope, dtype, &[(&[1], &[1.0]), (&[1], &[0.0]), (&[7], &[v; 7])], &[0.0; 7]);
        }
    }
}

#[test]
fn a_deviation_far_below_the_mean_is_right() {
    let x: Vec<f64> = (0..1000).map(|i| 10_000.0 + (i % 5) as f64 / 512.0).collect();
    let (mean, n) = (10_000.0 + 2.0 / 512.0, x.len() as f64);
    let deviation = (x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
    close(&spread(Reduce::Std { correction: 0.0 }).0, DType::F32, &[(&[1000], &x)], &[deviation]);
}

fn norm(kind: NormKind) -> Norm {
    Norm { kind, eps: 1e-5, affine: false, act: None }
}

#[test]
fn norms_of_numbers_of_any_size_and_their_gradients_are_right() {
    let kinds = [
        (NormKind::Layer { dims: 1 }, true),
        (NormKind::Rms { dims: 1 }, false),
        (NormKind::Group { groups: 1 }, true),
        (NormKind::Batch, true),
    ];
    let (unit, g) = ([1.0, -1.0, 2.0, 0.5], [1.0, 2.0, 3.0, 5.0]);
    for (kind, centred) in kinds {
        let n = 4.0;
        let mean = if centred { unit.iter().sum::<f64>() / n } else { 0.0 };
        let rstd = 1.0 / (unit.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
        let hat = unit.map(|v| (v - mean) * rstd);
        let shift = if centred { g.iter().sum::<f64>() / n } else { 0.0 };
        let slope = g.iter().zip(hat).map(|(g, hat)| g * hat).sum::<f64>() / n;
        // One row, or one channel of four pixels.
        let shape: &[usize] =
            if matches!(kind, NormKind::Layer { .. } | NormKind::Rms { .. }) { &[1, 4] } else { &[1, 1, 4] };
        for dtype in [DType::F32, DType::BF16] {
            for size in [2f64.powi(20), 2f64.powi(60), 2f64.powi(67), 2f64.powi(100), 2f64.powi(120)] {
                let x = unit.map(|v| v * size);
                close(&Op::Norm(norm(kind)), dtype, &[(shape, &x)], &hat);
                let mut slopes = [0.0; 4];
                for i in 0..4 {
                    slopes[i] = (g[i] - shift - hat[i] * slope) * rstd / size;
                }
                for device in devices() {
                    let ins = [array(&device, dtype, shape, &g), array(&device, dtype, shape, &x)];
                    let stats = [mean * size, rstd / size].map(|v| array(&device, DType::F32, &[1], &[v]));
                    let ins = [&ins[0], &ins[1], &stats[0], &stats[1]];
                    let op = Op::Backward(Backward::Norm(norm(kind)));
                    let found = run(Request::new(&op, &ins, &device, dtype, Class::Activations)).unwrap()[0]
                        .to_f64_vec()
                        .unwrap();
                    let largest = slopes.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                    let allowed = if dtype == DType::F32 { 1e-5 } else { 0.01 } * largest;
                    for (found, expected) in found.iter().zip(slopes) {
                        assert!(
                            (found - expected).abs() <= allowed,
                            "{kind:?} {dtype} {device:?} {size:e}: {found:e}, not {expected:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_norm_of_numbers_below_the_square_root_of_the_smallest_is_right_without_eps() {
    let x = [1.0, -1.0, 2.0, 0.5].map(|v| v * 2f64.powi(-83));
    for (kind, shape) in [(NormKind::Layer { dims: 1 }, &[1, 4][..]), (NormKind::Batch, &[1, 1, 4])] {
        let op = Op::Norm(Norm { eps: 0.0, ..norm(kind) });
        let (mean, unit) = (0.625, [1.0, -1.0, 2.0, 0.5]);
        let rstd = 1.0 / (unit.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / 4.0f64).sqrt();
        close(&op, DType::F32, &[(shape, &x)], &unit.map(|v| (v - mean) * rstd));
    }
}

#[test]
fn layer_norm_of_equal_numbers_is_zero_and_of_a_large_mean_right() {
    close(&Op::Norm(norm(NormKind::Layer { dims: 1 })), DType::F32, &[(&[1, 768], &[1000.7; 768])], &[0.0; 768]);
    let x: Vec<f64> = (0..768).map(|i| ((10_000.0 + (i * 7 % 11) as f64 / 256.0) as f32) as f64).collect();
    let mean = x.iter().sum::<f64>() / 768.0;
    for device in devices() {
        let stats = outs(&Op::Norm(norm(NormKind::Layer { dims: 1 })), &device, DType::F32, &[(&[1, 768], &x)]);
        assert!((stats[1][0] - mean).abs() <= 5e-4, "{device:?}: mean {} and not {mean}", stats[1][0]);
    }
}

#[test]
fn quotients_are_made_before_products_in_gradients() {
    let (tiny, least) = (1e-39, 2e-39);
    for dtype in [DType::F32, DType::BF16] {
        // What the numbers are in this format.
        let at = |v: f64| array(&Device::cpu(), dtype, &[1], &[v]).to_f64_vec().unwrap()[0];
        let (tiny, least) = (at(tiny), at(least));
        let one = |op: Op, ins: &[f64], expected: f64| {
            let ins: Vec<(&[usize], &[f64])> = ins.iter().map(|v| (&[1][..], std::slice::from_ref(v))).collect();
            close(&op, dtype, &ins, &[expected]);
        };
        let unary = |row| Op::Backward(Backward::Unary(row));
        one(unary(Unary::Log), &[0.0, tiny], 0.0);
        one(unary(Unary::Log), &[tiny, tiny], 1.0);
        one(unary(Unary::Log2), &[tiny, tiny], 1.0 / std::f64::consts::LN_2);
        one(unary(Unary::Log10), &[tiny, tiny], 1.0 / std::f64::consts::LN_10);
        one(unary(Unary::Reciprocal), &[at(1e-30), at(1e30)], -at(1e-30) * at(1e30).powi(2));
        one(unary(Unary::Rsqrt), &[at(1e-30), at(1e18)], -0.5 * at(1e-30) * at(1e18).powi(3));
        one(unary(Unary::Asinh), &[1.0, at(1e25)], 1.0 / at(1e25));
        let binary = |op, rhs| Op::Backward(Backward::Binary { op, rhs });
        one(binary(Binary::Div, true), &[tiny, tiny, tiny], -1.0);
        one(binary(Binary::Div, true), &[1.0, at(1e-42), tiny], -at(1e-42) / tiny / tiny);
        one(Op::Backward(Backward::Scalar { op: Binary::Div, value: tiny, reversed: true }), &[tiny, tiny], -1.0);
        for size in [1e-25, 1e-10, 1.0, 1e25] {
            let size = at(size);
            one(binary(Binary::Atan2, false), &[1.0, size, size], 0.5 / size);
            one(binary(Binary::Atan2, true), &[1.0, size, size], -0.5 / size);
        }
        one(binary(Binary::Atan2, false), &[1.0, 0.0, 0.0], 0.0);
        one(binary(Binary::Atan2, true), &[1.0, 0.0, 0.0], 0.0);
        let ternary = |op, value, operand| Op::Backward(Backward::Ternary { op, value, operand });
        one(ternary(Ternary::Addcdiv, 1.0, 1), &[tiny, 1.0, tiny, least], tiny / least);
        one(ternary(Ternary::Addcdiv, 1.0, 2), &[1.0, 1.0, at(1e-42), tiny], -at(1e-42) / tiny / tiny);
        one(ternary(Ternary::Addcdiv, 0.0, 2), &[1.0, 1.0, at(1e20), at(1e-20)], 0.0);
        one(Op::Ternary { op: Ternary::Addcdiv, value: 0.0 }, &[1.0, at(1e20), at(1e-20)], 1.0);
        one(Op::Ternary { op: Ternary::Addcmul, value: 0.0 }, &[1.0, at(1e30), at(1e30)], 1.0);
    }
}

#[test]
fn the_gradient_of_fmod_by_its_divisor_is_a_whole_number() {
    let op = Op::Backward(Backward::Binary { op: Binary::Fmod, rhs: true });
    let (a, b) = (0.3f32 as f64, 0.1f32 as f64);
    close(&op, DType::F32, &[(&[1], &[1.0]), (&[1], &[a]), (&[1], &[b])], &[-(a / b).trunc()]);
    let (a, b) = (6930.568f32 as f64, 0.01f32 as f64);
    close(&op, DType::F32, &[(&[1], &[1.0]), (&[1], &[a]), (&[1], &[b])], &[-(a / b).trunc()]);
}

#[test]
fn a_loss_of_nan_is_nan() {
    let nan = f64::NAN;
    for &loss in Loss::ALL {
        let op = Op::Loss { loss, parameter: 0.7, reduction: Reduction::None };
        for (x, t) in [(nan, 0.0), (nan, 1.0), (nan, -1.0), (0.3, nan), (nan, nan)] {
            // A target −1 is no probability; the loss is NaN then as well.
            close(&op, DType::F32, &[(&[1], &[x]), (&[1], &[t])], &[nan]);
        }
    }
    let kl_div = |x, t, expected| {
        close(
            &Op::Loss { loss: Loss::KlDiv, parameter: 0.0, reduction: Reduction::None },
            DType::F32,
            &[(&[1], &[x]), (&[1], &[t])],
            &[expected],
        );
    };
    kl_div(-0.5, -1.0, nan);
    kl_div(-0.5, 0.0, 0.0);
}

#[test]
fn a_product_with_an_activation_is_within_its_bound_whatever_cancels() {
    // Terms of size 1e4 that nearly cancel, in front of a steep and of a flat activation.
    let k = 64;
    let a: Vec<f64> = (0..k).map(|i| if i % 2 == 0 { 100.0 + i as f64 } else { -99.9 - i as f64 }).collect();
    for device in devices() {
        for act in [Unary::GeluTanh, Unary::Relu, Unary::Selu, Unary::Exp] {
            let ins = [array(&device, DType::F32, &[1, k], &a), array(&device, DType::F32, &[k, 1], &vec![0.731; k])];
            let op = Op::MatMul(MatMul::plain(Epilogue { bias: false, act: Some(act) }));
            assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None);
        }
    }
}

#[test]
fn a_result_of_another_dtype_than_the_gradient_is_rounded_once_by_the_checker() {
    // The weight's gradient has the weight's dtype: rounding the exact one to it as well would forgive nothing and
    // accuse at ties.
    for device in devices() {
        let x: Vec<f64> = (0..4 * 24).map(|i| (i * 31 % 17) as f64 / 8.0 - 1.0).collect();
        let ins = vec![
            array(&device, DType::F32, &[4, 24], &x),
            array(&device, DType::F32, &[4, 24], &x),
            array(&device, DType::BF16, &[24], &[1.0; 24]),
            array(&device, DType::F32, &[4], &[0.1, -0.2, 0.05, 0.3]),
            array(&device, DType::F32, &[4], &[1.1, 0.9, 1.3, 0.7]),
        ];
        let op = Op::Backward(Backward::Norm(Norm { affine: true, ..norm(NormKind::Layer { dims: 1 }) }));
        assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None);
    }
}

#[test]
fn functions_that_end_in_subnormals_keep_their_bounds() {
    let x: Vec<f64> = (-1100..-850).map(|i| i as f64 / 10.0).chain((-1500..-1200).map(|i| i as f64 / 100.0)).collect();
    for device in devices() {
        for row in [Unary::Silu, Unary::Mish, Unary::Gelu, Unary::GeluTanh] {
            let ins = [array(&device, DType::F32, &[x.len()], &x)];
            assert_eq!(check_op(&Op::Unary(row), &ins, &device, DType::F32).unwrap().1, None, "{row:?}");
        }
    }
}

#[test]
fn next_to_zero_functions_with_slope_half_round_a_tie_to_the_side_where_they_lie() {
    // Odd multiples of the smallest bf16: x/2 is a tie, and the function lies above it by a part of x².
    let smallest = 2f64.powi(-133);
    for device in devices() {
        for row in [Unary::Silu, Unary::Gelu, Unary::GeluTanh, Unary::Hardswish] {
            let x = [1.0, 3.0, 5.0, -1.0, -3.0, -5.0].map(|k| k * smallest);
            let found = outs(&Op::Unary(row), &device, DType::BF16, &[(&[6], &x)]).swap_remove(0);
            assert_eq!(found, [1.0, 2.0, 3.0, -0.0, -1.0, -2.0].map(|k| k * smallest), "{row:?} {device:?}");
        }
    }
}

#[test]
fn the_variance_of_nothing_is_nan() {
    for kind in [Reduce::Var { correction: 1.0 }, Reduce::Std { correction: 0.0 }] {
        let op = Op::Reduce { kind, dims: Dims::one(1), keepdim: false };
        close(&op, DType::F32, &[(&[2, 0], &[])], &[f64::NAN; 2]);
    }
}

#[test]
fn a_norm_with_an_infinite_element_says_so() {
    let rms = Op::Norm(norm(NormKind::Rms { dims: 1 }));
    close(&rms, DType::F32, &[(&[1, 4], &[f64::INFINITY, 1.0, 2.0, 0.0])], &[f64::NAN, 0.0, 0.0, 0.0]);
    let layer = Op::Norm(norm(NormKind::Layer { dims: 1 }));
    close(&layer, DType::F32, &[(&[1, 4], &[f64::INFINITY, 1.0, 2.0, 0.0])], &[f64::NAN; 4]);
}

#[test]
fn celu_with_a_parameter_below_zero_is_finite_where_its_exponential_is_not() {
    // e^92 leaves f32's range, a thousandth of it does not.
    let (a, b) = (-0.092f32 as f64, -0.001f32 as f64);
    let expected = b * (a / b).exp_m1();
    assert!((a / b).exp() > f32::MAX as f64 && expected.abs() < f32::MAX as f64);
    close(&Op::Binary(Binary::Celu), DType::F32, &[(&[1], &[a]), (&[1], &[b])], &[expected]);
    close(&Op::Scalar { op: Binary::Celu, value: b, reversed: false }, DType::F32, &[(&[1], &[a])], &[expected]);
}

#[test]
fn a_smoothed_cross_entropy_of_the_largest_numbers_is_finite() {
    // The distance of the logits is beyond f32, the mean of the classes' losses is not.
    let large = 2f64.powi(127);
    for device in devices().into_iter().chain([Device::reference()]) {
        let x = array(&device, DType::F32, &[1, 4], &[large, -large, large, large]);
        let target = Array::from_slice::<i64>(&device, &[1], &[1], Class::Indices).unwrap();
        let loss = CrossEntropy { smoothing: 1.0, ..CrossEntropy::default() };
        let y = run(Request::new(&Op::CrossEntropy(loss), &[&x, &target], &device, DType::F32, Class::Activations));
        let y = y.unwrap()[0].to_f64_vec().unwrap();
        // Its own part is 0 times a loss that is only as large as f64 holds.
        assert_eq!(y, [large / 2.0], "{device:?}");
    }
}

#[test]
fn the_gradient_of_a_running_product_with_an_infinite_factor_is_infinite_or_nan() {
    let op = Op::Backward(Backward::CumProd { dim: 0 });
    for device in devices() {
        let ins = [[1.0, 2.0, 0.0, 4.0], [2.0, 3.0, f64::INFINITY, 0.5]].map(|v| array(&device, DType::F32, &[4], &v));
        assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None);
        let finite = [[1.0, 2.0, 0.0, 4.0], [2.0, 3.0, 0.0, 0.5]].map(|v| array(&device, DType::F32, &[4], &v));
        let y = run(Request::new(&op, &[&finite[0], &finite[1]], &device, DType::F32, Class::Activations)).unwrap();
        assert_eq!(y[0].to_f64_vec().unwrap(), [7.0, 4.0, 12.0, 0.0], "{device:?}");
    }
}

#[test]
fn softplus_in_f64_keeps_the_digits_of_a_subnormal_exponential() {
    // e^−737 has 11 bits, and over 2^−50 all of them.
    let (a, b) = (-737.0 * 50f64.exp2(), (-50f64).exp2());
    for device in devices().into_iter().chain([Device::reference()]) {
        let found = outs(&Op::Binary(Binary::Softplus), &device, DType::F64, &[(&[1], &[a]), (&[1], &[b])])[0][0];
        assert!((found / 9.472543765557774e-306 - 1.0).abs() < 1e-13, "{device:?}: {found:e}");
    }
}

#[test]
fn softplus_of_a_small_sharpness_keeps_what_its_exponential_would_lose() {
    // e^−110 vanishes in f32, divided by a sharpness of 10⁻¹¹ it does not.
    for b in [1e-11f32 as f64, 1e-20f32 as f64] {
        let a = (-110.0 / b) as f32 as f64;
        let expected = (a * b).exp().ln_1p() / b;
        assert!(expected > 1e-37);
        close(&Op::Binary(Binary::Softplus), DType::F32, &[(&[1], &[a]), (&[1], &[b])], &[expected]);
        let scalar = Op::Scalar { op: Binary::Softplus, value: b, reversed: false };
        close(&scalar, DType::F32, &[(&[1], &[a])], &[expected]);
    }
}

#[test]
fn a_mean_of_losses_comes_back_into_the_range() {
    let mean = |loss| Op::Loss { loss, parameter: 1.0, reduction: Reduction::Mean };
    // Squares of 2⁶⁴ are 2¹²⁸: beyond f32, and half of it is not.
    let size = 2f64.powi(64);
    close(&mean(Loss::Mse), DType::F32, &[(&[2], &[size, 0.0]), (&[2], &[0.0, 0.0])], &[2f64.powi(127)]);
    // e¹⁰⁰ of either sign.
    let (x, t) = ([0.0, 200.0], [100.0, 100.0]);
    close(&mean(Loss::KlDivLog), DType::F32, &[(&[2], &x), (&[2], &t)], &[0.0]);
}

#[test]
fn the_gradient_of_the_largest_or_smallest_magnitude_is_that_of_nan_where_there_is_one() {
    let nan = f64::NAN;
    for p in [f64::INFINITY, f64::NEG_INFINITY] {
        let (norm, slope) = spread(Reduce::Norm { p });
        let x = [1.0, nan, -3.0];
        close(&norm, DType::F32, &[(&[3], &x)], &[nan]);
        close(&slope, DType::F32, &[(&[1], &[2.0]), (&[1], &[nan]), (&[3], &x)], &[0.0, nan, 0.0]);
    }
}

#[test]
fn slopes_of_silu_and_mish_far_left_are_rounded_once_also_below_the_normal_range() {
    // Both are eˣ·(1 + x) there, but for a part of e⁻⁶⁰.
    let x = [-120.0, -106.0, -103.0, -100.0, -95.5, -91.25, -88.0, -87.0, -80.5, -80.0, -79.5, -70.0].map(f64::from);
    let ones = [1.0; 12];
    for row in [Unary::Silu, Unary::Mish] {
        for device in devices().into_iter().chain([Device::reference()]) {
            let op = Op::Backward(Backward::Unary(row));
            let found = outs(&op, &device, DType::F32, &[(&[12], &ones), (&[12], &x)]).swap_remove(0);
            for (found, x) in found.into_iter().zip(x) {
                let exact = x.exp() * (1.0 + x);
                let unit = f64::from(f32::from_bits(1)).max(exact.abs() * f64::from(f32::EPSILON));
                assert!((found - exact).abs() <= 4.0 * unit, "{row:?} at {x} on {device:?}: {found:e}, not {exact:e}");
            }
        }
    }
}
