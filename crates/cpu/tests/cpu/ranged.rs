//! Numbers whose factors leave the range of f64, though the result does not.

use binade_cpu::simd::ranged::Ranged;
use binade_cpu::{Cpu, Isa};
use binade_tensor::number::{Number, Wide, Wide2};
use binade_tensor::op::{Backward, Binary, CrossEntropy, Loss, Norm, NormKind, Reduce, Reduction, Ternary, Unary};
use binade_tensor::{Array, Class, DType, Device, Dims, Op, Request, run};

fn of(x: f64) -> Ranged {
    Ranged::splat(x)
}

const SIZES: [f64; 13] = [5e-324, -3e-310, 2.5e-308, -1e-200, 1e-5, -0.75, 1.0, 3.5, -7e9, 1e16, 1e200, -1.7e308, 0.0];

#[test]
fn numbers_survive_and_arithmetic_within_the_range_is_that_of_f64() {
    for a in SIZES {
        assert_eq!(of(a).rounded().to_bits(), a.to_bits());
        assert_eq!(of(a).abs().sqrt().rounded(), a.abs().sqrt());
        for b in SIZES {
            let pairs = [
                (of(a) + of(b), a + b),
                (of(a) - of(b), a - b),
                (of(a) * of(b), a * b),
                (of(a) / of(b), a / b),
                (of(a).max(of(b)), a.max(b)),
                (of(a).min(of(b)), a.min(b)),
            ];
            for (found, right) in pairs.map(|(found, right)| (found.rounded(), right)) {
                assert!(found == right || found.is_nan() && right.is_nan(), "{a} {b}: {found} {right}");
            }
            assert_eq!((of(a).lt(of(b)), of(a).le(of(b)), of(a).eq(of(b))), (a < b, a <= b, a == b), "{a} {b}");
        }
    }
}

#[test]
fn products_and_powers_come_back_from_beyond_the_range() {
    assert_eq!((of(1e300) * of(1e300) / of(1e300)).rounded(), 1e300);
    assert_eq!((of(1e-300) * of(1e-300) / of(1e-290)).rounded(), 1e-310);
    assert_eq!((of(4e-310) * of(4e-310)).sqrt().rounded(), 4e-310);
    let close = |x: Ranged, right: f64| assert!((x.rounded() / right - 1.0).abs() < 1e-13, "{x:?} {right}");
    close(of(-900.0).exp() * of(300.0).exp() * of(300.0).exp(), (-300f64).exp());
    close(of(-1e3).wide2(of(201.0), Wide2::Pow) * of(1e-300) / of(-1e300), 1e3);
    close((of(1e300) * of(1e300)).ln(), 600.0 * std::f64::consts::LN_10);
    close(of(-900.0).sigmoid() * of(900.0).exp(), 1.0);
    assert_eq!((of(f64::INFINITY) - of(1e308)).rounded(), f64::INFINITY);
    assert!((of(f64::INFINITY) * of(0.0)).rounded().is_nan());
    close(of(1000.0).wide(Wide::Cosh) * of(-2000.0).exp() * of(1000.0).exp(), 0.5);
    close(of(-1000.0).wide(Wide::Sinh) * of(-1000.0).exp(), -0.5);
    // Whatever is left of the digits, the power of a number is one.
    assert_eq!((of(1e300).exp() * of(0.0)).rounded(), 0.0);
    assert_eq!((of(1e300).exp() * of(5e-324)).rounded(), f64::INFINITY);
    assert_eq!((of(-1e300).exp() * of(1e308)).rounded(), 0.0);
    assert_eq!(of(f64::INFINITY).exp().rounded(), f64::INFINITY);
    assert_eq!((of(1e300) * of(1e300)).rounded(), f64::INFINITY);
    assert_eq!((of(-1e300) * of(1e-300) * of(1e-300) * of(1e-300)).rounded().to_bits(), (-0.0f64).to_bits());
}

fn outs(op: &Op, dtype: DType, ins: &[&[f64]]) -> Vec<Vec<Vec<f64>>> {
    let devices = Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))).chain([Device::reference()]);
    devices
        .map(|device| {
            let array = |v: &[f64]| Array::from_slice(&device, v, &[v.len()], Class::Activations).unwrap();
            let ins: Vec<Array> = ins.iter().map(|v| array(v).cast(dtype, Class::Activations).unwrap()).collect();
            let ins: Vec<&Array> = ins.iter().collect();
            let outs = run(Request::new(op, &ins, &device, dtype, Class::Activations)).unwrap();
            outs.iter().map(|out| out.to_f64_vec().unwrap()).collect()
        })
        .collect()
}

/// The first output, in f64, on every device.
fn gives(op: &Op, ins: &[&[f64]], right: &[f64]) {
    for found in outs(op, DType::F64, ins) {
        for (found, right) in found[0].iter().zip(right) {
            let near = (found - right).abs() <= 1e-13 * right.abs() || right.abs() < 1e-300 && found == right;
            assert!(near, "{op:?} of {ins:?}: {found:e}, not {right:e}");
        }
    }
}

fn slope(op: Binary, rhs: bool) -> Op {
    Op::Backward(Backward::Binary { op, rhs })
}

#[test]
fn a_quotient_that_is_subnormal_is_not_rounded_before_the_gradient_multiplies_it() {
    // −g·a/b² with a/b² = 1.5·2⁻¹⁰⁷⁴, which f64 rounds to 2·2⁻¹⁰⁷⁴ or less.
    let least = f64::from_bits(1);
    gives(&slope(Binary::Div, true), &[&[64.0], &[6.0 * least], &[2.0]], &[-96.0 * least]);
    gives(&Op::Backward(Backward::Unary(Unary::Reciprocal)), &[&[1e300], &[1e-160]], &[-1e-20]);
    gives(&Op::Backward(Backward::Unary(Unary::Rsqrt)), &[&[2e300], &[1e-110]], &[-1e-30]);
    let addcdiv = |operand| Op::Backward(Backward::Ternary { op: Ternary::Addcdiv, value: 1.0, operand });
    gives(&addcdiv(2), &[&[64.0], &[0.0], &[6.0 * least], &[2.0]], &[-96.0 * least]);
    gives(&addcdiv(1), &[&[1e-310], &[0.0], &[1.0], &[2e-310]], &[0.5]);
}

#[test]
fn gradients_of_f64_are_right_over_its_whole_range() {
    let unary = |row| Op::Backward(Backward::Unary(row));
    for s in [1e-310, 1e-200, 1e200, 1e300] {
        let tiny = s < 1.0;
        gives(&slope(Binary::Atan2, false), &[&[s], &[s], &[s]], &[0.5]);
        gives(&slope(Binary::Atan2, true), &[&[s], &[s], &[s]], &[-0.5]);
        gives(&slope(Binary::Div, false), &[&[s], &[1.0], &[s]], &[1.0]);
        gives(&slope(Binary::Div, true), &[&[s], &[s], &[s]], &[-1.0]);
        let cube = if tiny { 0.0 } else { 3.0 * (s * 1e-308) * s };
        gives(&slope(Binary::Pow, false), &[&[1e-308], &[s], &[3.0]], &[cube]);
        gives(&unary(Unary::Log), &[&[s], &[s]], &[1.0]);
        gives(&unary(Unary::Log2), &[&[s], &[s]], &[std::f64::consts::LOG2_E]);
        gives(&unary(Unary::Log10), &[&[s], &[s]], &[std::f64::consts::LOG10_E]);
        for row in [Unary::Asinh, Unary::Atan, Unary::Softsign] {
            let right = match row {
                _ if tiny => s,
                Unary::Asinh => 1.0,
                _ => 1.0 / s,
            };
            gives(&unary(row), &[&[s], &[s]], &[right]);
        }
        if !tiny {
            gives(&unary(Unary::Acosh), &[&[s], &[s]], &[1.0]);
            gives(&unary(Unary::Square), &[&[0.25], &[1.5e308]], &[0.75e308]);
        }
    }
}

#[test]
fn a_power_of_e_that_leaves_the_range_comes_back_with_a_small_gradient() {
    let unary = |row| Op::Backward(Backward::Unary(row));
    let by = |target, loss| Op::Backward(Backward::Loss { loss, parameter: 0.0, reduction: Reduction::None, target });
    // e^t of f64 and of f32, the gradient, and its product with the power.
    for (t, g, dtype) in [(1000.0, 1e-300, DType::F64), (100.0, 1e-30, DType::F32)] {
        let (half, g) = (f64::exp(t / 2.0), if dtype == DType::F32 { f64::from(g as f32) } else { g });
        let power = half * g * half;
        let close = |op: Op, ins: &[&[f64]], right: f64| {
            for found in outs(&op, dtype, ins) {
                let off = (found[0][0] / right - 1.0).abs();
                assert!(off < 1e-5, "{op:?} of {ins:?}: {:e}, not {right:e}", found[0][0]);
            }
        };
        close(slope(Binary::Celu, false), &[&[g], &[-t], &[-1.0]], power);
        close(slope(Binary::Celu, true), &[&[g], &[-t], &[-1.0]], (1.0 - t) * power);
        close(unary(Unary::Sinh), &[&[g], &[-t]], power / 2.0);
        close(unary(Unary::Cosh), &[&[g], &[-t]], -power / 2.0);
        close(by(false, Loss::PoissonNll), &[&[g], &[t], &[3.0]], power);
        close(by(false, Loss::KlDivLog), &[&[g], &[0.5], &[t]], -power);
        close(by(true, Loss::KlDivLog), &[&[g], &[0.5], &[t]], (t + 0.5) * power);
        // 0 times a power that no number here holds is 0, and what is not 0 leaves the range.
        for t in [t, 800.0, 5e3, 1e30] {
            for (g, right) in [(0.0, 0.0), (1.0, f64::INFINITY)] {
                if g == 1.0 && t == 100.0 {
                    continue;
                }
                let sinh = unary(Unary::Sinh);
                for (op, ins, right) in [
                    (slope(Binary::Celu, false), [[g], [-t], [-1.0]], right),
                    (slope(Binary::Celu, true), [[g], [-t], [-1.0]], -right),
                    (by(false, Loss::PoissonNll), [[g], [t], [3.0]], right),
                    (by(true, Loss::KlDivLog), [[g], [0.5], [t]], right),
                    (sinh, [[g], [t], [f64::NAN]], right),
                ] {
                    let ins: Vec<&[f64]> = ins.iter().filter(|v| !v[0].is_nan()).map(|v| &v[..]).collect();
                    for found in outs(&op, dtype, &ins) {
                        assert_eq!(found[0], [right], "{op:?} {dtype} of {ins:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn powers_that_no_number_holds_are_neither_zero_nor_infinite_in_a_product() {
    let by = |target, loss| Op::Backward(Backward::Loss { loss, parameter: 0.0, reduction: Reduction::None, target });
    let (inf, none) = (f64::INFINITY, f64::NAN);
    for (op, ins, right) in [
        (slope(Binary::Softplus, false), [inf, -5e3, 1.0], inf),
        (slope(Binary::Softplus, true), [inf, -5e3, 1.0], -inf),
        (slope(Binary::Celu, false), [-inf, -5e3, 1.0], -inf),
        (slope(Binary::Pow, false), [0.0, -0.5, -7e10], 0.0),
        (slope(Binary::Pow, false), [inf, 0.5, 7e10], inf),
        (slope(Binary::Pow, true), [0.0, 2.0, 1e4], 0.0),
        (slope(Binary::Pow, true), [inf, 2.0, -1e4], inf),
        (by(false, Loss::KlDivLog), [inf, 0.5, -5e3], -inf),
        (by(false, Loss::PoissonNll), [inf, -5e3, 0.0], inf),
        (by(false, Loss::BceWithLogits), [inf, -5e3, 0.0], inf),
        (by(false, Loss::SoftMargin), [inf, 5e3, 1.0], -inf),
        (Op::Loss { loss: Loss::KlDivLog, parameter: 0.0, reduction: Reduction::None }, [inf, -5e3, none], -inf),
    ] {
        for dtype in [DType::F32, DType::F64] {
            let ins: Vec<&[f64]> = ins.iter().filter(|v| !v.is_nan()).map(std::slice::from_ref).collect();
            for found in outs(&op, dtype, &ins) {
                assert_eq!(found[0], [right], "{op:?} {dtype} of {ins:?}");
            }
        }
    }
    // Within the range with its parameter.
    let b = -2f64.powi(-830);
    gives(&Op::Binary(Binary::Celu), &[&[1000.0 * b], &[b]], &[b * f64::exp(500.0) * f64::exp(500.0)]);
}

#[test]
fn celu_far_left_has_slope_zero_and_the_derivative_minus_one_by_its_parameter() {
    for (a, b, dtype) in [(-1e300, 1e-300, DType::F64), (-1e30, 1e-30, DType::F32), (-1e3, 1.0, DType::BF16)] {
        for (rhs, right) in [(false, 0.0), (true, -2.0)] {
            for found in outs(&slope(Binary::Celu, rhs), dtype, &[&[2.0], &[a], &[b]]) {
                assert_eq!(found[0], [right], "{dtype} {rhs}");
            }
        }
    }
}

#[test]
fn a_losss_number_is_that_of_the_type_that_is_computed_in() {
    // x + 0.1 in f32 is exact next to −0.1, where 0.1 itself would be off by a part of it that the quotient magnifies.
    let (x, eps) = (-0.099_f32, 0.1_f32);
    let op = |reduction, target| {
        Op::Backward(Backward::Loss { loss: Loss::PoissonNllRate, parameter: 0.1, reduction, target })
    };
    let right = 1.0 - 0.75 / f64::from(x + eps);
    for found in outs(&op(Reduction::Sum, false), DType::F32, &[&[1.0], &[x.into()], &[0.75]])
        .into_iter()
        .take(Isa::available().len())
    {
        assert!((found[0][0] / right - 1.0).abs() < 1e-6, "{} instead of {right}", found[0][0]);
    }
    for device in Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))) {
        let array = |v: f64| {
            let wide = Array::from_slice(&device, &[v], &[1], Class::Activations).unwrap();
            wide.cast(DType::F32, Class::Activations).unwrap()
        };
        for ends in [-0.1_f32, -0.099, -0.100_000_01, 1e-3] {
            let ins = [1.0, f64::from(ends), 0.75].map(array);
            for target in [false, true] {
                let checked = binade_tensor::testing::check_op(&op(Reduction::Sum, target), &ins, &device, DType::F32);
                assert_eq!(checked.unwrap().1, None);
            }
        }
    }
}

#[test]
fn losses_divide_before_they_multiply() {
    let smooth = |parameter| Op::Loss { loss: Loss::SmoothL1, parameter, reduction: Reduction::None };
    for s in [1e-300, 1e300] {
        gives(&smooth(s), &[&[0.5 * s], &[0.0]], &[0.125 * s]);
    }
    for (s, dtype) in [(1e-30, DType::F32), (1e30, DType::F32), (1e-30, DType::BF16)] {
        for found in outs(&smooth(s), dtype, &[&[0.5 * s], &[0.0]]) {
            assert!((found[0][0] / (0.125 * s) - 1.0).abs() < 0.01, "{dtype} {s:e}: {:e}", found[0][0]);
        }
    }
}

#[test]
fn a_product_whose_parts_leave_the_range_comes_back() {
    let dims = Dims::one(0);
    let forward = Op::Reduce { kind: Reduce::Prod, dims, keepdim: true };
    let backward = Op::Backward(Backward::Reduce { kind: Reduce::Prod, dims });
    let x = [1e200, -1e200, 1e-150, 1e-250];
    gives(&forward, &[&x], &[-1.0]);
    gives(&backward, &[&[1.0], &[-1.0], &x], &[-1e-200, 1e-200, -1e150, -1e250]);
    // One zero: it alone has a gradient, though the others' product overflows on the way.
    let x = [1e200, 1e200, 0.0, 1e-250];
    gives(&forward, &[&x], &[0.0]);
    gives(&backward, &[&[1.0], &[0.0], &x], &[0.0, 0.0, 1e150, 0.0]);
    // In f32 too, where f64 holds less than ten of the largest factors.
    let x: Vec<f64> = [[2f64.powi(120); 12], [2f64.powi(-120); 12]].concat();
    for found in outs(&forward, DType::F32, &[&x]) {
        assert_eq!(found[0], [1.0]);
    }
}

#[test]
fn the_deviations_gradient_in_f64_is_right_for_subnormal_numbers() {
    let op = Op::Backward(Backward::Reduce { kind: Reduce::Std { correction: 1.0 }, dims: Dims::one(0) });
    let unit = [-4.0f64 / 3.0, -1.0 / 3.0, 5.0 / 3.0];
    let std = (unit.iter().map(|d| d * d).sum::<f64>() / 2.0).sqrt();
    for s in [1e-310, 1e-200, 1e300] {
        for found in outs(&op, DType::F64, &[&[1.0], &[std * s], &[s, 2.0 * s, 4.0 * s]]) {
            for (found, d) in found[0].iter().zip(unit) {
                assert!((found - d / 2.0 / std).abs() < 1e-12, "{s:e}: {found}");
            }
        }
    }
}

#[test]
fn group_norms_gradient_in_f64_is_that_of_layer_norm_for_numbers_of_any_size() {
    let of = |kind, shape: &[usize], s: f64| -> Vec<Vec<f64>> {
        Isa::available()
            .into_iter()
            .map(|isa| {
                let device = Device::new(Cpu::with_isa(isa));
                let array =
                    |v: &[f64], shape: &[usize]| Array::from_slice(&device, v, shape, Class::Activations).unwrap();
                let norm = Norm { kind, eps: 0.0, affine: false, act: None };
                let x = array(&[s, 2.0 * s, 4.0 * s], shape);
                let op = Op::Norm(norm);
                let y = run(Request::new(&op, &[&x], &device, DType::F64, Class::Activations)).unwrap();
                let g = array(&[1.0, 0.0, 0.0], shape);
                let op = Op::Backward(Backward::Norm(norm));
                let ins = [&g, &x, &y[1], &y[2]];
                let request = Request::new(&op, &ins, &device, DType::F64, Class::Activations);
                run(request).unwrap()[0].to_f64_vec().unwrap()
            })
            .collect()
    };
    for s in [1e-300, 1e-200, 1.0, 1e200, 1e300] {
        let right = [0.22908106449636376, -0.343_621_596_744_545_6, 0.1145405322481819].map(|v| v / s);
        let kinds: [(NormKind, &[usize]); 3] = [
            (NormKind::Layer { dims: 1 }, &[1, 3]),
            (NormKind::Group { groups: 1 }, &[1, 1, 3]),
            (NormKind::Batch, &[1, 1, 3]),
        ];
        for (kind, shape) in kinds {
            for found in of(kind, shape, s) {
                for (found, right) in found.iter().zip(right) {
                    assert!((found / right - 1.0).abs() < 1e-10, "{kind:?} {s:e}: {found:e}, not {right:e}");
                }
            }
        }
    }
}

#[test]
fn a_mean_loss_of_many_targets_is_as_exact_in_f64_as_that_of_few() {
    let (n, device) = (4096, Device::new(Cpu::new()));
    let x = Array::from_slice(&device, &vec![0.0; 2 * n], &[n, 2], Class::Activations).unwrap();
    let t = Array::from_slice(&device, &vec![1i64; n], &[n], Class::Indices).unwrap();
    let loss = CrossEntropy { smoothing: 0.0, ignore_index: -100, reduction: Reduction::Mean };
    let op = Op::CrossEntropy(loss);
    let found = run(Request::new(&op, &[&x, &t], &device, DType::F64, Class::Activations)).unwrap()[0].item().unwrap();
    assert!((found - std::f64::consts::LN_2).abs() <= 2.0 * f64::EPSILON, "{found:e}");
}

#[test]
fn activations_far_left_have_every_digit_that_f64_has_there() {
    // Computed with 60 digits.
    let least = f64::from_bits(1);
    for (row, x, right) in [
        (Unary::Silu, -740.0, -3.09967e-319),
        (Unary::Mish, -740.0, -3.09967e-319),
        (Unary::Gelu, -37.25, -1.973_463_570_522_907_6e-302),
        (Unary::Gelu, -38.0, -1.096462777e-314),
        (Unary::Gelu, -38.4, -2.535e-321),
        (Unary::GeluTanh, -21.5, -2.8e-322),
    ] {
        for found in outs(&Op::Unary(row), DType::F64, &[&[x]]) {
            let off = (found[0][0] - right).abs();
            assert!(off <= least + 1e-14 * right.abs(), "{row:?} of {x}: {:e}, not {right:e}", found[0][0]);
        }
    }
    let x: Vec<f64> = (0..500).map(|i| -37.0 - f64::from(i) * 0.004).collect();
    let wide: Vec<f64> = (0..500).map(|i| -690.0 - f64::from(i) * 0.13).collect();
    for device in Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))) {
        for (row, x) in [(Unary::Gelu, &x), (Unary::Silu, &wide), (Unary::Mish, &wide)] {
            let x = [Array::from_slice(&device, x, &[x.len()], Class::Activations).unwrap()];
            let checked = binade_tensor::testing::check_op(&Op::Unary(row), &x, &device, DType::F64);
            assert_eq!(checked.unwrap().1, None);
        }
    }
}
