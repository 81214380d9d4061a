//! Where factors, terms or arguments leave the range or cancel and the result does not: what kernels give there, and
//! that the stated bounds know of it.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Attention, Backward, Binary, Epilogue, MatMul, Norm, NormKind, Pool, PoolKind, Reduce, Unary};
use binade_tensor::testing::check_op;
use binade_tensor::{Array, Class, DType, Device, Dims, Op, Request, run};

fn devices() -> Vec<Device> {
    Isa::available().into_iter().map(|isa| Device::new(Cpu::with_isa(isa))).collect()
}

fn array(device: &Device, dtype: DType, shape: &[usize], values: &[f64]) -> Array {
    Array::from_slice(device, values, shape, Class::Activations).unwrap().cast(dtype, Class::Activations).unwrap()
}

/// Numbers in −1..=1 without a pattern.
fn numbers(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 37 + seed * 101) % 211) as f64 / 105.0 - 1.0).collect()
}

type Operand<'a> = (&'a [usize], &'a [f64]);

/// The first output, on every device and on the reference.
fn each(op: &Op, dtype: DType, ins: &[Operand<'_>], check: impl Fn(&Device, Vec<f64>)) {
    for device in devices().into_iter().chain([Device::reference()]) {
        let ins: Vec<Array> = ins.iter().map(|(shape, values)| array(&device, dtype, shape, values)).collect();
        let ins: Vec<&Array> = ins.iter().collect();
        let outs = run(Request::new(op, &ins, &device, dtype, Class::Activations)).unwrap();
        check(&device, outs[0].to_f64_vec().unwrap());
    }
}

/// Every output is within its bound at every instruction set.
fn within_bound(op: &Op, dtype: DType, ins: &[(DType, Operand<'_>)]) {
    for device in devices() {
        let ins: Vec<Array> =
            ins.iter().map(|(dtype, (shape, values))| array(&device, *dtype, shape, values)).collect();
        assert_eq!(check_op(op, &ins, &device, dtype).unwrap().1, None, "{device:?}");
    }
}

fn norm(kind: NormKind) -> Norm {
    Norm { kind, eps: 1e-6, affine: true, act: None }
}

#[test]
fn a_weight_times_the_deviations_inverse_may_leave_the_range() {
    // x̂ is about 10⁻³¹, the weight 10³⁶: 1/deviation times the weight is 10³⁹.
    let (x, w) = ([1e-34, -1e-34, 2e-34, -2e-34], 1e36);
    let shape: &[usize] = &[1, 1, 4];
    for kind in [NormKind::Batch, NormKind::Group { groups: 1 }] {
        each(&Op::Norm(norm(kind)), DType::F32, &[(shape, &x), (&[1], &[w]), (&[1], &[0.0])], |device, y| {
            for (y, x) in y.iter().zip(x) {
                let exact = x * 1e3 * w;
                assert!((y - exact).abs() < 1e-5 * exact.abs(), "{kind:?} {device:?}: {y:e}, not {exact:e}");
            }
        });
        let op = Op::Backward(Backward::Norm(norm(kind)));
        let g = [1e-30, 2e-30, -1e-30, 1e-30];
        each(
            &op,
            DType::F32,
            &[(shape, &g), (shape, &x), (&[1], &[w]), (&[1], &[0.0]), (&[1], &[1e3])],
            |device, dx| {
                let mean = g.iter().sum::<f64>() / 4.0;
                for (dx, g) in dx.iter().zip(g) {
                    let exact = (g - mean) * w * 1e3;
                    assert!((dx - exact).abs() < 1e-5 * 1e9, "{kind:?} {device:?}: {dx:e}, not {exact:e}");
                }
            },
        );
    }
}

#[test]
fn the_gradient_of_a_power_is_rounded_once() {
    // A factor ln a = 80 magnifies the rounding of b − 1; and aᵇ is beyond the range where aᵇ·g is not.
    let (a, b, g) = (f64::from(5e34f32), f64::from(0.123_456_7f32), 1.0);
    let partials = [b * a.powf(b - 1.0), a.powf(b) * a.ln()];
    for (rhs, exact) in [(false, partials[0]), (true, partials[1])] {
        let op = Op::Backward(Backward::Binary { op: Binary::Pow, rhs });
        each(&op, DType::F32, &[(&[1], &[g]), (&[1], &[a]), (&[1], &[b])], |device, y| {
            assert_eq!(y[0], f64::from(exact as f32), "{rhs} {device:?}");
        });
    }
    let (a, b, g) = (4096.0f64, 11.0, f64::from(1e-8f32));
    let op = Op::Backward(Backward::Binary { op: Binary::Pow, rhs: true });
    each(&op, DType::F32, &[(&[1], &[g]), (&[1], &[a]), (&[1], &[b])], |device, y| {
        assert_eq!(y[0], f64::from((g * a.powf(b) * a.ln()) as f32), "{device:?}");
    });
}

#[test]
fn the_inverse_hyperbolic_cosine_of_what_is_below_one_is_nan() {
    let x = [0.5, -0.5, -1.0, -6540.0, -1e30];
    each(&Op::Unary(Unary::Acosh), DType::F32, &[(&[5], &x)], |device, y| {
        assert!(y.iter().all(|y| y.is_nan()), "{device:?}: {y:?}");
    });
}

#[test]
fn slopes_of_gates_keep_the_distance_of_the_gate_from_one() {
    // 1 − s of a gate s that is nearly 1 has few digits, and x and its slope multiply what it lacks.
    let x: Vec<f64> = (0..4000).map(|i| f64::from(i as f32 / 400.0)).collect();
    for row in [Unary::GeluTanh, Unary::Silu] {
        for device in devices() {
            let ins = [vec![1.0; x.len()], x.clone()].map(|v| array(&device, DType::F32, &[v.len()], &v));
            let (check, _) = check_op(&Op::Backward(Backward::Unary(row)), &ins, &device, DType::F32).unwrap();
            // The bound is 16 units.
            assert!(check.used < 0.4, "{row:?} {device:?}: {} of the bound", check.used);
        }
    }
}

#[test]
fn a_norms_slope_at_zero_is_zero_and_times_infinity_nan() {
    let infinity = f64::INFINITY;
    for p in [1.0, 2.0, 3.0, infinity] {
        let op = Op::Backward(Backward::Reduce { kind: Reduce::Norm { p }, dims: Dims::one(0) });
        each(&op, DType::F32, &[(&[1], &[infinity]), (&[1], &[3.0]), (&[2], &[0.0, 3.0])], |device, dx| {
            // The largest magnitude alone has a slope: zeros beside it have no part in it.
            assert!(dx[0].is_nan() || p == infinity && dx[0] == 0.0, "{p} {device:?}: {dx:?}");
            assert_eq!(dx[1], infinity, "{p} {device:?}");
        });
    }
    // NaN anywhere is in the norm, and so in every slope that the norm divides.
    for p in [2.0, 3.0] {
        let op = Op::Backward(Backward::Reduce { kind: Reduce::Norm { p }, dims: Dims::one(0) });
        each(&op, DType::F32, &[(&[1], &[1.0]), (&[1], &[f64::NAN]), (&[2], &[0.0, f64::NAN])], |device, dx| {
            assert!(dx[0].is_nan() && dx[1].is_nan(), "{p} {device:?}: {dx:?}");
        });
    }
    let count = Op::Backward(Backward::Reduce { kind: Reduce::Norm { p: 0.0 }, dims: Dims::one(0) });
    each(&count, DType::F32, &[(&[1], &[infinity]), (&[1], &[1.0]), (&[2], &[0.0, 3.0])], |_, dx| {
        assert_eq!(dx, [0.0, 0.0]);
    });
}

#[test]
fn sums_that_leave_the_range_on_the_way_come_back() {
    let most = f64::from(f32::MAX);
    let dims = Dims::one(1);
    let reduce = |kind| Op::Reduce { kind, dims, keepdim: false };
    // By rows, and by columns where the reduced dimension is not the last.
    let x = [most, most, most, -most];
    for shape in [&[1, 4][..], &[1, 4, 1]] {
        each(&reduce(Reduce::Mean), DType::F32, &[(shape, &x)], |device, y| assert_eq!(y, [most / 2.0], "{device:?}"));
    }
    let columns: Vec<f64> = (0..2048).map(|i| if i < 1024 { most } else { -most }).collect();
    for kind in [Reduce::Sum, Reduce::Mean] {
        each(&reduce(kind), DType::F32, &[(&[1, 1024, 2], &columns)], |device, y| {
            assert_eq!(y, [0.0; 2], "{kind:?} {device:?}");
        });
    }
    let pool = Op::Pool(Pool::new(PoolKind::Avg, [2, 2], [2, 2], [0, 0]));
    each(&pool, DType::F32, &[(&[1, 1, 2, 2], &x)], |device, y| assert_eq!(y, [most / 2.0], "{device:?}"));
    // An infinity stays one, and two of them NaN.
    let (inf, pair) = ([f64::INFINITY, 1.0, 2.0, 3.0], [f64::INFINITY, f64::NEG_INFINITY, 2.0, 3.0]);
    each(&pool, DType::F32, &[(&[1, 1, 2, 2], &inf)], |device, y| assert_eq!(y, [f64::INFINITY], "{device:?}"));
    each(&reduce(Reduce::Sum), DType::F32, &[(&[1, 4], &pair)], |device, y| assert!(y[0].is_nan(), "{device:?}"));
}

#[test]
fn the_bound_of_a_norm_knows_infinite_operands_subnormal_results_and_long_sums() {
    let fixed = Norm { affine: false, act: Some(Unary::Silu), ..norm(NormKind::Fixed) };
    // Where x is infinite the slope of the activation is 1, and the rest is two products.
    let mut x = numbers(60, 1);
    x[7] = f64::INFINITY;
    let ins: [Operand<'_>; 4] =
        [(&[2, 3, 10], &numbers(60, 2)), (&[2, 3, 10], &x), (&[3], &[0.1, 0.2, 0.3]), (&[3], &[0.7, 1.1, 0.9])];
    within_bound(&Op::Backward(Backward::Norm(fixed)), DType::F32, &ins.map(|x| (DType::F32, x)));
    // x̂·w below the normal range.
    let tiny: Vec<f64> = numbers(2 * 64, 3).iter().map(|v| v * 2f64.powi(-140)).collect();
    let layer = Op::Norm(norm(NormKind::Layer { dims: 1 }));
    let ins: [Operand<'_>; 3] = [(&[2, 64], &tiny), (&[64], &numbers(64, 4)), (&[64], &[0.0; 64])];
    within_bound(&layer, DType::F32, &ins.map(|x| (DType::F32, x)));
    // Chains of hundreds of terms of one sign, in f64 where the reference sums as well.
    let large: Vec<f64> = numbers(3000, 5).iter().map(|v| v + 1000.7).collect();
    let group = Op::Norm(Norm { affine: false, ..norm(NormKind::Group { groups: 2 }) });
    for dtype in [DType::F32, DType::F64] {
        within_bound(&group, dtype, &[(dtype, (&[1, 2, 1500], &large))]);
    }
}

#[test]
fn the_bound_of_an_activation_knows_where_its_domain_ends() {
    // The exact sum is 2⁻⁶⁰ and its computed value may be 0, or below.
    let a = [1.0, -1.0, 2f64.powi(-60)];
    for device in devices() {
        for act in [Unary::Log2, Unary::Sqrt, Unary::Rsqrt] {
            let ins = [array(&device, DType::F32, &[1, 3], &a), array(&device, DType::F32, &[3, 1], &[0.1; 3])];
            let op = Op::MatMul(MatMul::plain(Epilogue { bias: false, act: Some(act) }));
            assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None, "{device:?}");
        }
    }
}

#[test]
fn the_bound_of_a_product_knows_that_an_f32_operand_is_activated_in_f32() {
    let op = Op::MatMul(MatMul::of_left(Unary::GeluTanh, false));
    let ins: [Operand<'_>; 2] = [(&[9, 9], &numbers(81, 1)), (&[9, 8], &numbers(72, 2))];
    within_bound(&op, DType::F64, &[(DType::F32, ins[0]), (DType::F64, ins[1])]);
}

#[test]
fn the_bound_of_attentions_gradient_knows_that_wrong_weights_multiply_what_cancels() {
    // Scores of 10⁷: the saved log-sum-exp is rounded to whole numbers.
    let (t, d) = (16, 8);
    for device in devices() {
        let of = |seed: usize, size: f64| {
            let v: Vec<f64> = numbers(t * d, seed).iter().map(|v| v * size).collect();
            array(&device, DType::F32, &[1, t, d], &v)
        };
        let attention = Attention::default();
        let [g, q, k, v] = [of(1, 1.0), of(2, 4e3), of(3, 4e3), of(4, 1.0)];
        let (op, ins) = (Op::Attention(attention), [&q, &k, &v]);
        let forward = run(Request::new(&op, &ins, &device, DType::F32, Class::Activations)).unwrap();
        let ins = [vec![g, q, k, v], forward.to_vec()].concat();
        let op = Op::Backward(Backward::Attention { attention, joined: false });
        assert_eq!(check_op(&op, &ins, &device, DType::F32).unwrap().1, None, "{device:?}");
    }
}
