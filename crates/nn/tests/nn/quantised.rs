//! Weights of 8-bit integers: what a parameter becomes, what layers make of it, and where activations are cut off.

use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_nn::quantised::{Activations, Calibration, Histogram, Threshold, check_scales, weights};
use binade_nn::{Buffer, Conv2d, Embedding, Layer, Linear, Module, Param, Sequential, state_dict};
use binade_tensor::op::Unary;
use binade_tensor::{Array, Class, DType, Device};

fn array(values: &[f32], shape: &[usize]) -> Array {
    Array::from_slice(&Device::cpu(), values, shape, Class::Weights).unwrap()
}

fn linear(weight: &[f32], shape: [usize; 2], bias: &[f32]) -> Linear {
    Linear { weight: Param::new(array(weight, &shape)), bias: Some(Param::new(array(bias, &[shape[0]]))) }
}

fn values(var: &Var) -> Vec<f64> {
    var.array().to_f64_vec().unwrap()
}

/// Within so many parts of the largest magnitude.
fn close(a: &[f64], b: &[f64], part: f64) -> bool {
    let largest = b.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= part * largest)
}

#[test]
fn a_weight_becomes_the_nearest_integers_with_a_scale_for_each_row_and_a_row_of_zeros_stays_so() {
    let layer = linear(&[1.27, -0.5, 0.0, 0.0, -2.54, 2.54], [3, 2], &[0.0; 3]);
    layer.weight.quantise(Activations::Float).unwrap();
    assert_eq!(layer.weight.array().to_vec::<i8>().unwrap(), [127, -50, 0, 0, -127, 127]);
    let scale = layer.weight.quantised().unwrap().scale.array().to_f64_vec().unwrap();
    assert!(close(&scale, &[0.01, 1.0, 0.02], 1e-7), "{scale:?}");
    assert!(!layer.weight.is_trainable() && layer.weight.dtype() == DType::I8);
    let names: Vec<String> = state_dict(&layer).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["weight", "bias", "weight_scale"]);
    layer.weight.dequantise().unwrap();
    let back = layer.weight.array().to_f64_vec().unwrap();
    assert!(close(&back, &[1.27, -0.5, 0.0, 0.0, -2.54, 2.54], 1e-6), "{back:?}");
}

#[test]
fn layers_compute_with_integers_what_they_compute_with_the_numbers_within_their_steps() {
    scope::with_key(3, 0, || {
        let x = Var::normal(0.0, 1.0, &[5, 48]).unwrap();
        let image = Var::normal(0.0, 1.0, &[2, 5, 9, 8]).unwrap();
        let index = Var::from_slice(&[3i64, 0, 6, 6], &[2, 2]).unwrap();
        let own = || Buffer::new(array(&[4.0 / 127.0], &[]));
        for activations in [Activations::Float, Activations::Dynamic, Activations::Static(own())] {
            let (linear, conv) = (Linear::new(48, 20).unwrap(), Conv2d::same(5, 12, 3).unwrap());
            let table = Embedding::new(7, 16).unwrap();
            let results = || {
                vec![
                    values(&linear.forward_act(&x, Unary::Relu).unwrap()),
                    values(&linear.forward_of(Unary::Gelu, &x).unwrap()),
                    values(&conv.forward(&image).unwrap()),
                    values(&table.forward(&index).unwrap()),
                    values(&table.scores(&x.narrow(1, 0, 16).unwrap()).unwrap()),
                ]
            };
            let before = results();
            for weight in [&linear.weight, &conv.weight, &table.weight] {
                weight.quantise(activations.clone()).unwrap();
            }
            for (i, (after, before)) in results().iter().zip(&before).enumerate() {
                assert!(close(after, before, 0.03), "{i} {activations:?}");
                assert!(after != before, "{i} is what it was");
            }
        }
    });
}

#[test]
fn a_copy_of_its_own_keeps_its_integers_when_the_other_takes_its_numbers_back() {
    let layer = linear(&[0.5, 1.0], [1, 2], &[0.25]);
    layer.weight.quantise(Activations::Dynamic).unwrap();
    let (copy, x) = (layer.deep_copy().unwrap(), Var::from_slice(&[1.0f32, 2.0], &[1, 2]).unwrap());
    let before = values(&layer.forward(&x).unwrap());
    layer.weight.dequantise().unwrap();
    assert!(copy.weight.dtype() == DType::I8 && layer.weight.dtype() == DType::F32);
    assert_eq!(values(&copy.forward(&x).unwrap()), before);
}

#[test]
fn what_cannot_be_rounded_is_told_by_name() {
    let layer = Linear::new(2, 2).unwrap();
    let error = layer.bias.as_ref().unwrap().quantise(Activations::Float).unwrap_err().to_string();
    assert!(error.contains("f32 [2]"), "{error}");
    layer.weight.quantise(Activations::Float).unwrap();
    let error = layer.weight.quantise(Activations::Float).unwrap_err().to_string();
    assert!(error.contains("i8 [2, 2]"), "{error}");
    for bad in [f32::NAN, f32::INFINITY] {
        let error = linear(&[1.0, bad], [1, 2], &[0.0]).weight.quantise(Activations::Float).unwrap_err().to_string();
        assert!(error.contains("finite"), "{error}");
    }
    let two = Activations::Static(Buffer::new(array(&[1.0, 1.0], &[2])));
    let error = Linear::new(2, 2).unwrap().weight.quantise(two).unwrap_err().to_string();
    assert!(error.contains("scalar"), "{error}");
    let model = Sequential::new().then(linear(&[1.0], [1, 1], &[0.0]));
    for bad in [f32::NAN, 0.0, -1.0, f32::INFINITY] {
        let param = &weights(&model)[0].param;
        param.dequantise().unwrap();
        param.quantise(Activations::Static(Buffer::new(array(&[bad], &[])))).unwrap();
        let error = check_scales(&model).unwrap_err().to_string();
        assert!(error.contains("0.weight_input_scale") && error.contains("above 0"), "{error}");
    }
}

#[test]
fn calibration_sees_what_meets_each_weight_and_activations_that_are_not_written() {
    let (first, second) = (linear(&[2.0], [1, 1], &[0.0]), linear(&[1.0], [1, 1], &[0.0]));
    let model = Sequential::new().then(first.clone()).then(second.clone());
    let calibration = Calibration::new(&model);
    for x in [-3.0f32, 1.0] {
        let x = Var::from_slice(&[x], &[1, 1]).unwrap();
        let y = calibration.watch(|| second.forward_of(Unary::Relu, &first.forward(&x).unwrap()).unwrap());
        assert!(!y.requires_grad());
    }
    assert_eq!(calibration.scale(&first.weight, Threshold::MinMax), Some(3.0 / 127.0));
    assert_eq!(calibration.scale(&second.weight, Threshold::MinMax), Some(2.0 / 127.0));
    assert_eq!(calibration.histogram(&second.weight).unwrap().len(), 2);
    assert_eq!(calibration.scale(&linear(&[1.0], [1, 1], &[0.0]).weight, Threshold::MinMax), None);
}

// ---- where magnitudes are cut off

fn histogram(values: impl IntoIterator<Item = f64>) -> Histogram {
    let mut histogram = Histogram::default();
    histogram.add(values);
    histogram
}

#[test]
fn the_largest_magnitude_and_percentiles_are_those_of_the_numbers_within_a_bin() {
    let even = histogram((1..=10_000).map(|i| if i % 2 == 0 { i as f64 } else { -i as f64 } / 100.0));
    assert_eq!(even.threshold(Threshold::MinMax), Some(100.0));
    // The range was doubled up to 163.84 at most, of 2048 bins.
    for percent in [50.0, 90.0, 99.0, 100.0] {
        let found = even.threshold(Threshold::Percentile(percent)).unwrap();
        assert!((found - percent).abs() < 0.1, "{percent}: {found}");
    }
    let mostly_zero = histogram((0..1000).map(|i| if i < 990 { 0.0 } else { 5.0 }));
    assert!(mostly_zero.threshold(Threshold::Percentile(50.0)).unwrap() < 0.01);
    assert_eq!(mostly_zero.len(), 1000);
    assert_eq!(histogram([0.0, f64::NAN, f64::INFINITY]).threshold(Threshold::MinMax), None);
}

#[test]
fn entropy_keeps_an_even_distribution_whole_and_cuts_off_a_far_outlier() {
    let even = histogram((1..=200_000).map(|i| i as f64 / 200_000.0));
    assert!(even.threshold(Threshold::Entropy).unwrap() > 0.97);
    // Half a normal distribution of deviation 1, and one number at 100.
    let normal = |i: u32| (-2.0 * (1.0 - (i as f64 + 0.5) / 100_000.0).ln()).sqrt();
    let outlier = histogram((0..100_000).map(normal).chain([100.0]));
    let cut = outlier.threshold(Threshold::Entropy).unwrap();
    assert!((3.0..12.0).contains(&cut), "{cut}");
    assert_eq!(outlier.threshold(Threshold::MinMax), Some(100.0));
}
