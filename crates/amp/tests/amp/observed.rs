//! What preflight, census and planted faults count, number by number.

use std::collections::BTreeMap;

use binade_amp::preflight::{Loss, Preflight, Range, Role, preflight};
use binade_amp::{Dynamic, Fault, LossScale, Policy, Result, census};
use binade_autograd::Var;
use binade_cpu as _;
use binade_nn::{Linear, Module, Param, Visitor};
use binade_tensor::{Array, Class, DType, Device};

fn array(values: &[f32]) -> Array {
    Array::from_slice(&Device::cpu(), values, &[values.len()], Class::Weights).unwrap()
}

fn two(exponent: i32) -> f32 {
    2f64.powi(exponent) as f32
}

#[derive(Module)]
struct Net {
    first: Param,
    second: Param,
}

impl Net {
    fn new(first: &[f32], second: &[f32]) -> Net {
        Net { first: Param::new(array(first)), second: Param::new(array(second)) }
    }

    /// The sum of `first` times constants, whose gradient those are.
    fn look(&self, constants: &[f32]) -> Preflight {
        let constants = Var::constant(array(constants));
        preflight(self, || -> Result<Var> { Ok(self.first.var().mul(&constants)?.sum(&[], false)?) }).unwrap()
    }
}

// ---- preflight

#[test]
fn the_magnitudes_of_a_tensor_are_counted_and_those_of_a_role_added_up() {
    let net = Net::new(
        &[0.0, 0.0, 0.75, -3.0, two(-30), two(-15), 1e5, f32::INFINITY],
        &[0.0, 2.5, -two(-140), two(-130), 3e38, f32::NAN, f32::NEG_INFINITY, 70000.0],
    );
    let found = net.look(&[1.0; 8]);
    let weights: Vec<_> = found.rows.iter().filter(|r| r.role == Role::Weight).collect();
    assert_eq!(weights.iter().map(|r| r.layer.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    let loss = |underflow, subnormal, overflow| Loss { underflow, subnormal, overflow };
    let first = Range {
        count: 8,
        zeros: 2,
        not_finite: 1,
        max_abs: 1e5,
        min_abs: two(-30) as f64,
        exponents: BTreeMap::from([(-30, 1), (-15, 1), (-1, 1), (1, 1), (16, 1)]),
        f16: loss(1, 1, 1),
        bf16: loss(0, 0, 0),
    };
    assert_eq!(weights[0].range, first);
    let second = Range {
        count: 8,
        zeros: 1,
        not_finite: 2,
        max_abs: 3e38f32 as f64,
        min_abs: two(-140) as f64,
        exponents: BTreeMap::from([(-140, 1), (-130, 1), (1, 1), (16, 1), (127, 1)]),
        f16: loss(2, 0, 2),
        bf16: loss(1, 1, 0),
    };
    assert_eq!(weights[1].range, second);
    let all = Range {
        count: 16,
        zeros: 3,
        not_finite: 3,
        max_abs: 3e38f32 as f64,
        min_abs: two(-140) as f64,
        exponents: BTreeMap::from([(-140, 1), (-130, 1), (-30, 1), (-15, 1), (-1, 1), (1, 2), (16, 2), (127, 1)]),
        f16: loss(3, 1, 3),
        bf16: loss(1, 1, 0),
    };
    assert_eq!(found.total(Role::Weight), all);
    // Nothing has no smallest magnitude.
    assert_eq!(Preflight { rows: vec![], ..found }.total(Role::Weight), Range::default());
}

#[test]
fn a_weight_four_binades_below_the_limit_fits_and_the_next_does_not() {
    let fits = Net::new(&[4094.0], &[0.5]).look(&[1e-3]);
    assert_eq!((fits.recommended.as_str(), fits.loss_scale.is_some()), ("f16", true), "{}", fits.why);
    assert_eq!((fits.policy(), fits.rows[0].range.f16_headroom()), (Policy::autocast(DType::F16), 4.0));
    let wide = Net::new(&[4096.0], &[0.5]).look(&[1e-3]);
    assert_eq!((wide.recommended.as_str(), wide.loss_scale), ("bf16", None), "{}", wide.why);
    assert_eq!((wide.policy(), wide.scaling()), (Policy::autocast(DType::BF16), LossScale::Off));
    assert!(wide.why.starts_with("first reaches 4.096e3, 4.0 binades below 65504"), "{}", wide.why);
}

#[test]
fn the_first_scale_keeps_the_largest_gradient_four_binades_below_the_limit() {
    // 65504 is 15.99 binades above 1.
    for (largest, scale) in [(1.0, two(11)), (0.25, two(13)), (two(-20), two(24)), (4096.0, 1.0)] {
        let found = Net::new(&[0.5, 0.5], &[0.5]).look(&[largest, largest / 4.0]);
        assert_eq!(found.loss_scale, Some(scale as f64), "{largest}");
        let dynamic = Dynamic { init_scale: scale as f64, ..Dynamic::default() };
        assert_eq!(found.scaling(), LossScale::Dynamic(dynamic));
    }
}

#[test]
fn the_share_of_gradients_that_would_be_lost_is_that_of_those_that_are_not_zero() {
    let found = Net::new(&[0.5; 6], &[0.5]).look(&[1.0, 0.0, two(-30), 0.5, two(-40), 0.0]);
    let gradients = found.total(Role::Gradient);
    assert!(gradients.f16.underflow > 1 && gradients.zeros > 0, "{gradients:?}");
    let share = gradients.f16.underflow as f64 * 100.0 / (gradients.count - gradients.zeros) as f64;
    assert!(found.why.contains(&format!("; {share:.2} % of the gradients")), "{}", found.why);
    assert!(found.why.starts_with("activations and weights fit f16 (1"), "{}", found.why);
}

#[test]
fn views_and_indices_are_no_rows() {
    let net = Net::new(&[0.5, -2.0], &[0.5]);
    let found = preflight(&net, || -> Result<Var> {
        let x = net.first.var();
        let _ = x.argmax(0, false)?;
        Ok(x.reshape(&[2, 1])?.exp()?.sum(&[], false)?)
    })
    .unwrap();
    let of = |role| found.rows.iter().filter(|r| r.role == role).map(|r| r.op.as_str()).collect::<Vec<_>>();
    assert_eq!(of(Role::Activation), ["exp", "sum"]);
    assert_eq!(
        [Role::Weight, Role::Activation, Role::Gradient].map(|r| r.to_string()),
        ["weight", "activation", "gradient"]
    );
}

// ---- census

#[test]
fn the_census_counts_casts_with_their_bytes_and_operators_by_dtype() {
    let layer = Linear::without_bias(3, 5).unwrap();
    layer.assign_names();
    let x = Var::constant(Array::from_slice(&Device::cpu(), &[0.5f32; 6], &[2, 3], Class::Activations).unwrap());
    let loss = || -> Result<Var> {
        let twice = x.matmul(&layer.weight.var().transpose(0, 1)?)?;
        Ok(twice.cast(DType::F32)?.sum(&[], false)?)
    };
    let found = census(&Policy::autocast(DType::F16), loss).unwrap();
    // Of the input and the weight to f16, of the product to f32, of that one's gradient back, of the weight's to f32.
    let (casts, bytes) = found.casts.values().fold((0, 0), |(n, b), (count, bytes)| (n + count, b + bytes));
    assert_eq!((casts, bytes), (5, 2 * 6 + 2 * 15 + 4 * 10 + 2 * 10 + 4 * 15), "{found:?}");
    assert_eq!(found.cast_bytes(), bytes);
    let count = |dtype: DType| -> u64 {
        found.operators.values().map(|by| by.get(&dtype.to_string()).copied().unwrap_or(0)).sum()
    };
    assert!(count(DType::F16) >= 2, "{found:?}");
    for dtype in [DType::F16, DType::F32, DType::BF16] {
        assert_eq!(found.in_dtype(dtype), count(dtype));
    }
}

// ---- planted faults

#[test]
fn faults_are_planted_into_operators_that_compute_floats() {
    let w = Var::leaf(array(&[0.5, 1.0]));
    for (at, op) in [(0, Some("exp")), (1, Some("sum")), (2, None)] {
        let fault = Fault::new(at, f64::INFINITY);
        let sum = fault.run(|| {
            let x = w.reshape(&[2, 1]).unwrap();
            let _ = x.argmax(0, false).unwrap();
            x.exp().unwrap().sum(&[], false).unwrap()
        });
        assert_eq!(fault.hit().map(|hit| hit.op).as_deref(), op);
        assert_eq!(sum.item().unwrap().is_infinite(), op.is_some());
        assert_eq!(w.array().to_vec::<f32>().unwrap(), [0.5, 1.0]);
    }
}
