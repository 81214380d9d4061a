//! Gradients know the scale of their loss.

use binade_autograd::{Error, Gradients, Var, scope};
use binade_cpu as _;
use binade_tensor::{Array, Class, DType};

fn leaf(value: f32, dtype: DType) -> Var {
    let array = Array::from_slice(&scope::device().unwrap(), &[value], &[1], Class::Weights).unwrap();
    Var::leaf(array.cast(dtype, Class::Weights).unwrap())
}

fn at(w: &Var, scale: f64) -> Gradients {
    w.sum(&[], false).unwrap().scaled(scale).unwrap().backward().unwrap()
}

fn of(grads: &Gradients, w: &Var) -> (f64, Option<f64>) {
    (grads.get(w).unwrap().item().unwrap(), grads.scale_of(w.leaf_id().unwrap()))
}

#[test]
fn gradients_carry_the_scale_of_the_loss_they_come_from() {
    let (a, b) = (leaf(1.0, DType::F32), leaf(1.0, DType::F32));
    assert_eq!(of(&at(&a, 8.0), &a), (8.0, Some(8.0)));
    let sum = a.sum(&[], false).unwrap().scaled(8.0).unwrap().add(&b.sum(&[], false).unwrap()).unwrap();
    let grads = sum.backward().unwrap();
    assert_eq!((of(&grads, &a), of(&grads, &b)), ((8.0, Some(8.0)), (1.0, Some(1.0))));
    let twice = a.sum(&[], false).unwrap().scaled(8.0).unwrap().scaled(4.0).unwrap().backward().unwrap();
    assert_eq!(of(&twice, &a), (32.0, Some(32.0)));
    let mut by_hand = Gradients::default();
    by_hand.insert(a.leaf_id().unwrap(), a.array().clone());
    assert_eq!(of(&by_hand, &a), (1.0, None));
}

#[test]
fn losses_of_one_parameter_under_two_scales_are_not_added() {
    let w = leaf(1.0, DType::F32);
    let loss = |scale: f64| w.sum(&[], false).unwrap().scaled(scale).unwrap();
    assert_eq!(loss(2.0).add(&loss(4.0)).unwrap().backward().unwrap_err(), Error::Scales { found: [4.0, 2.0] });
    assert_eq!(of(&loss(2.0).add(&loss(2.0)).unwrap().backward().unwrap(), &w), (4.0, Some(2.0)));
}

#[test]
fn accumulation_over_a_change_of_scale_is_exact_or_an_error() {
    let w = leaf(1.0, DType::F32);
    for (first, second) in [(8.0, 4.0), (4.0, 8.0), (1.0, 65536.0)] {
        let mut sum = at(&w, first);
        sum.add(at(&w, second)).unwrap();
        let scale = f64::max(first, second);
        assert_eq!(of(&sum, &w), (2.0 * scale, Some(scale)));
    }
    let mut sum = at(&w, 8.0);
    assert_eq!(sum.add(at(&w, 3.0)).unwrap_err(), Error::Scales { found: [8.0, 3.0] });
    assert_eq!(of(&sum, &w), (8.0, Some(8.0)));
}

#[test]
fn a_sum_that_fails_changes_no_gradient() {
    let (a, b) = (leaf(1.0, DType::F32), leaf(1.0, DType::F32));
    let both = |x: f64, y: f64| {
        let mut grads = at(&a, x);
        grads.add(at(&b, y)).unwrap();
        grads
    };
    let mut sum = both(2.0, 2.0);
    assert!(sum.add(both(2.0, 3.0)).is_err());
    assert_eq!((of(&sum, &a), of(&sum, &b)), ((2.0, Some(2.0)), (2.0, Some(2.0))));
}

#[test]
fn gradients_in_16_bit_are_added_in_f32() {
    for dtype in [DType::F16, DType::BF16] {
        let w = leaf(1.0, dtype);
        let gradient = |value: f64| {
            let upstream = Array::full(&scope::device().unwrap(), dtype, *w.shape(), value, Class::Gradients).unwrap();
            w.backward_with(&upstream).unwrap()
        };
        let mut sum = gradient(2048.0);
        sum.add(gradient(1.0)).unwrap();
        assert_eq!((of(&sum, &w).0, sum.get(&w).unwrap().dtype()), (2049.0, DType::F32), "{dtype}");
    }
}

#[test]
fn a_loss_in_16_bit_is_scaled_in_f32() {
    let w = leaf(3.0, DType::F16);
    let scaled = w.sum(&[], false).unwrap().scaled(65536.0).unwrap();
    assert_eq!((scaled.dtype(), scaled.item().unwrap()), (DType::F32, 196_608.0));
}
