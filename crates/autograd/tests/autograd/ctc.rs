//! CTC loss at classes that cannot be, and labels that are none.

use binade_autograd::{Ctc, Result, Var, scope};
use binade_cpu as _;
use binade_tensor::op::Reduction;
use binade_tensor::{Array, Class};

fn loss(log_p: &Var, labels: &[i64]) -> Result<Var> {
    let targets = Var::constant(
        Array::from_slice(&scope::device().unwrap(), labels, &[1, labels.len()], Class::Indices).unwrap(),
    );
    let steps = log_p.shape()[0];
    log_p.ctc_loss(&targets, &[steps], &[labels.len()], Ctc::default(), Reduction::Sum)
}

#[test]
fn an_impossible_class_takes_no_part_in_the_gradient_of_a_finite_loss() {
    // Two steps of blank and one label; the blank cannot be at the first step: both paths begin with the label.
    let half = 0.5f32.ln();
    let values = [f32::NEG_INFINITY, 0.0, half, half];
    let log_p =
        Var::leaf(Array::from_slice(&scope::device().unwrap(), &values, &[2, 1, 2], Class::Activations).unwrap());
    let y = loss(&log_p, &[1]).unwrap();
    assert!(y.item().unwrap().abs() < 1e-6);
    let gradient = y.backward().unwrap().get(&log_p).unwrap().to_f64_vec().unwrap();
    for (found, wanted) in gradient.iter().zip([0.0, -1.0, -0.5, -0.5]) {
        assert!((found - wanted).abs() < 1e-6, "{gradient:?}");
    }
}

#[test]
fn a_negative_label_is_an_error() {
    let log_p = Var::leaf(
        Array::from_slice(&scope::device().unwrap(), &[-1.0f32; 12], &[4, 1, 3], Class::Activations).unwrap(),
    );
    let error = loss(&log_p, &[1, -5]).unwrap_err().to_string();
    assert!(error.contains("label -5 is no class"), "{error}");
}
