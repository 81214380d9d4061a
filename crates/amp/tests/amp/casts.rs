//! Which casts of a region are made, and which are left to the operator that reads the weight.

use binade_amp::autocast;
use binade_autograd::{Var, no_grad};
use binade_cpu as _;
use binade_tensor::{Array, Class, DType, Device};

fn square(class: Class) -> Array {
    Array::from_slice(&Device::cpu(), &[0.5f32; 4], &[2, 2], class).unwrap()
}

/// Whether the cast of an operand to f16 lies with it after each of two products in one region.
fn made(operand: &Var) -> [bool; 2] {
    let x = Var::constant(square(Class::Activations));
    autocast(DType::F16, || {
        [0, 1].map(|_| {
            x.matmul(operand).unwrap();
            operand.array().storage().derived(DType::F16, operand.array().layout()).is_some()
        })
    })
}

#[test]
fn the_cast_of_a_weight_is_made_when_it_is_used_again_and_that_of_an_activation_at_once() {
    for class in [Class::Weights, Class::Activations] {
        assert_eq!(made(&Var::leaf(square(class))), [false, true], "a leaf, {class:?}");
    }
    // Its memory says what it is, where it has no node.
    assert_eq!(no_grad(|| made(&Var::constant(square(Class::Weights)))), [false, true]);
    assert_eq!(made(&Var::constant(square(Class::Activations))), [true, true]);
}

#[test]
fn the_cast_of_a_weight_does_not_wait_for_the_backward_pass() {
    let casts = || Device::cpu().memory().live(Class::Casts);
    let array = |rows: usize| {
        Array::from_slice(&Device::cpu(), &vec![0.01f32; rows * 128], &[rows, 128], Class::Weights).unwrap()
    };
    let (x, w) = (Var::constant(array(1)), Var::leaf(array(128)));
    let before = casts();
    // Used twice, so that the cast is made.
    let y = autocast(DType::F16, || x.matmul(&w).unwrap().matmul(&w).unwrap());
    let kept = casts() - before;
    assert!(kept < 2 * 128 * 128, "{kept} bytes");
    assert_eq!(y.sum(&[], false).unwrap().backward().unwrap().get(&w).unwrap().dtype(), DType::F32);
}
