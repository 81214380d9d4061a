//! Which casts of a region are made, and which are left to the operator that reads the weight.

use binade_amp::autocast;
use binade_autograd::{Var, no_grad};
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
