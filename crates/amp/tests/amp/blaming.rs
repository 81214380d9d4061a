//! What a blame says, and the scale that it finds, where magnitudes, dtypes and limits make a difference.

use std::cell::Cell;

use binade_amp::{Blame, Dynamic, LossScale, Operand, Origin, Policy, Result, StepOutcome, Training, blame};
use binade_autograd::Var;
use binade_cpu as _;
use binade_nn::{Optimizer, Param, Sgd};
use binade_tensor::{Array, Class, DType, Device};

fn two(exponent: i32) -> f64 {
    2f64.powi(exponent)
}

fn array(values: &[f32], dims: &[usize]) -> Array {
    Array::from_slice(&Device::cpu(), values, dims, Class::Weights).unwrap()
}

fn leaf(values: &[f32], dtype: DType) -> Var {
    Var::leaf(array(values, &[values.len()]).cast(dtype, Class::Weights).unwrap())
}

fn constant(values: &[f32]) -> Var {
    Var::constant(array(values, &[values.len()]))
}

fn found(scale: f64, loss: impl Fn() -> Result<Var>) -> Option<Blame> {
    blame(scale, loss).unwrap()
}

// ---- what it says

#[test]
fn a_blame_names_the_first_element_and_counts_the_others() {
    let mut values = [1.0f32; 24];
    (values[14], values[18], values[22], values[23]) = (f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::NEG_INFINITY);
    let (w, bad) = (Var::leaf(array(&[2.0; 24], &[2, 3, 4])), Var::constant(array(&values, &[2, 3, 4])));
    let blame = found(1.0, || Ok(w.mul(&bad)?.sum(&[], false)?)).unwrap();
    assert_eq!((blame.op.as_str(), blame.index, blame.origin), ("mul", vec![1, 0, 2], Origin::Inherited));
    assert_eq!(blame.counts, [1, 1, 2]);
    let operand = |max_abs| Operand { dtype: "f32".into(), shape: vec![2, 3, 4], max_abs };
    assert_eq!(blame.operands, [operand(2.0), operand(1.0)]);
}

#[test]
fn a_blame_is_told_in_one_sentence() {
    let operand = |dtype: &str, shape: &[usize], max_abs| Operand { dtype: dtype.into(), shape: shape.into(), max_abs };
    let mut blame = Blame {
        op: "add".into(),
        layer: "head".into(),
        backward: true,
        dtype: "f16".into(),
        index: vec![1, 2],
        origin: Origin::CastOverflow,
        counts: [1, 2, 0],
        operands: vec![operand("f32", &[2, 3], 3.0), operand("f16", &[3], 40000.0)],
        fitting_scale: Some(8.0),
    };
    assert_eq!(
        blame.to_string(),
        "add (backward) in head: f16 result, element [1, 2], beyond the range of its dtype; 1 NaN, 2 +inf, 0 -inf; \
         operands f32 [2, 3] up to 3.000e0, f16 [3] up to 4.000e4; a loss scale of 8 fits"
    );
    (blame.layer, blame.backward, blame.fitting_scale) = (String::new(), false, None);
    blame.operands.clear();
    let told = "add: f16 result, element [1, 2], beyond the range of its dtype; 1 NaN, 2 +inf, 0 -inf";
    assert_eq!(blame.to_string(), told);
}

#[test]
fn an_overflow_is_that_of_a_cast_only_if_f32_would_hold_the_result() {
    let origin = |loss: &dyn Fn() -> Result<Var>| found(1.0, loss).unwrap().origin;
    let half = leaf(&[100.0], DType::F16);
    assert_eq!(origin(&|| Ok(half.exp()?.sum(&[], false)?)), Origin::OpOverflow);
    assert_eq!(origin(&|| Ok((&half * 1e4)?.sum(&[], false)?)), Origin::CastOverflow);
    let double = Var::leaf(Array::full(&Device::cpu(), DType::F64, *half.shape(), 1e300, Class::Weights).unwrap());
    assert_eq!(origin(&|| Ok(double.cast(DType::F32)?.sum(&[], false)?)), Origin::OpOverflow);
}

#[test]
fn numbers_of_f64_are_finite_by_the_range_of_f64() {
    let w = Var::leaf(
        Array::full(&Device::cpu(), DType::F64, *leaf(&[0.0], DType::F32).shape(), 1.0, Class::Weights).unwrap(),
    );
    assert_eq!(found(1.0, || Ok((&w * 1e200)?.sum(&[], false)?)), None);
    assert_eq!(found(1e100, || Ok((&w * 1e200)?.sum(&[], false)?)), None);
    assert!(found(1e120, || Ok((&w * 1e200)?.sum(&[], false)?)).is_some());
}

#[test]
fn a_loss_in_16_bit_is_scaled_in_f32_and_its_gradient_by_the_whole_scale() {
    let w = leaf(&[3.0], DType::F16);
    let sum = || Ok(w.sum(&[], false)?);
    assert_eq!(found(16384.0, sum), None, "49152 fits f16, and three times as much fits f32");
    let high = found(65536.0, sum).unwrap();
    assert_eq!((high.origin, high.fitting_scale), (Origin::CastOverflow, Some(32768.0)));
}

// ---- the scale that fits

/// The fitting scale for gradients `slopes` in f16 of a parameter that is 0.
fn fits(scale: f64, slopes: &[f32]) -> Option<f64> {
    let (w, slopes) = (leaf(&vec![0.0; slopes.len()], DType::F32), constant(slopes));
    let loss = || Ok(w.cast(DType::F16)?.cast(DType::F32)?.mul(&slopes)?.sum(&[], false)?);
    found(scale, loss).unwrap().fitting_scale
}

#[test]
fn the_largest_magnitude_decides_whatever_its_sign() {
    for slopes in [[-1.5, 1.0], [1.0, -1.5], [-1.5, 0.0], [0.0, -1.5], [1.5, -1.0], [-1.5, -1.0]] {
        assert_eq!(fits(two(20), &slopes), Some(two(15)), "{slopes:?}");
    }
}

#[test]
fn a_hundredth_of_the_range_is_left() {
    // 65504 / 2^15: at that scale the gradient would be the largest f16.
    assert_eq!(fits(two(20), &[1.999_023_4]), Some(two(14)));
    assert_eq!(fits(two(20), &[1.96]), Some(two(15)));
}

#[test]
fn an_infinity_that_a_mask_drops_in_the_backward_pass_does_not_lower_the_scale() {
    let w = leaf(&[1.0, 1.0], DType::F32);
    let kept = Var::constant(Array::from_slice(&Device::cpu(), &[true, false], &[2], Class::Indices).unwrap());
    let loss = || Ok((&w.where_(&kept, &constant(&[0.0, 0.0]))?.sqrt()? * 1e38)?.sum(&[], false)?);
    let found = found(65536.0, loss).unwrap();
    assert_eq!((found.origin, found.fitting_scale), (Origin::OpOverflow, Some(2.0)));
}

#[test]
fn no_scale_fits_whose_probe_would_not_be_a_normal_f32() {
    let w = leaf(&[0.0], DType::F32);
    let loss = || Ok((&(&w * 1e38)? * 1e38)?.sum(&[], false)?);
    // Probed 40 binades below: at the smallest normal number, and below it.
    assert_eq!(found(two(-86), loss).unwrap().fitting_scale, Some(two(-125)));
    assert_eq!(found(two(-87), loss).unwrap().fitting_scale, None);
    assert_eq!(found(two(-100), loss).unwrap().fitting_scale, None);
}

#[test]
fn a_scale_that_looked_well_and_does_not_fit_gives_way_to_the_one_that_was_tried() {
    // At 2^5 a gradient is rounded to 0 in f16, and what comes after has no magnitude: any scale seems to fit.
    let w = leaf(&[0.0], DType::F16);
    let loss = || Ok((&(&w * two(25))?.cast(DType::F32)? * two(-30))?.sum(&[], false)?);
    let found = found(two(25), loss).unwrap();
    assert_eq!((found.origin, found.fitting_scale), (Origin::CastOverflow, Some(two(5))));
}

#[test]
fn no_scale_is_looked_for_where_the_forward_pass_is_at_fault() {
    let w = leaf(&[100.0, 1.0], DType::F32);
    let kept = Var::constant(Array::from_slice(&Device::cpu(), &[false, true], &[2], Class::Indices).unwrap());
    let runs = Cell::new(0);
    // exp(100) is masked in the loss, and 0 times it in the gradient is NaN.
    let loss = || {
        runs.set(runs.get() + 1);
        Ok(w.exp()?.where_(&kept, &constant(&[0.0, 0.0]))?.sum(&[], false)?)
    };
    let found = found(65536.0, loss).unwrap();
    assert_eq!((found.op.as_str(), found.backward, found.fitting_scale, runs.get()), ("exp", false, None, 1));
}

// ---- from step to step

/// A training at a scale that falls, whose loss is `slope` times a parameter, or infinitely steep at 0.
fn skipped(init_scale: f64, slopes: &[Option<f64>]) -> Vec<Option<f64>> {
    let zero = Param::new(array(&[0.0], &[1]));
    let group = vec![("zero".into(), zero.clone())];
    let optimizer = Optimizer::empty().with_group(group, Sgd::default()).unwrap();
    let scale = LossScale::Dynamic(Dynamic { init_scale, ..Dynamic::default() });
    let mut training = Training::new(optimizer, Policy::OFF, scale).unwrap();
    let step = |slope: &Option<f64>| {
        let step = training.step(|| -> Result<Var> {
            Ok(match slope {
                Some(slope) => (&zero.var().sum(&[], false)? * *slope)?,
                None => zero.var().square()?.sqrt()?.sum(&[], false)?,
            })
        });
        let step = step.unwrap();
        assert_eq!(step.outcome, StepOutcome::Skipped);
        step.blame.expect("a blame").fitting_scale
    };
    slopes.iter().map(step).collect()
}

#[test]
fn a_scale_that_fitted_is_looked_for_again_once_it_is_reached() {
    // 3.4e38 is the largest: at 4 the half fits the first slope; at that, the second needs a quarter.
    assert_eq!(skipped(4.0, &[Some(1e38), Some(3e38)]), [Some(2.0), Some(1.0)]);
}

#[test]
fn what_was_found_for_one_operator_says_nothing_of_another() {
    assert_eq!(skipped(65536.0, &[None, Some(1e38)]), [None, Some(2.0)]);
    assert_eq!(skipped(65536.0, &[Some(1e38), None]), [Some(2.0), None]);
}
