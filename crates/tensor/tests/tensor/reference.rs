//! The oracle rounds once.

use binade_tensor::op::{Reduce, Unary};
use binade_tensor::{Array, Class, DType, Device, Dims, Op, run_one};

#[test]
fn casts_to_16_bit_look_at_every_bit_of_what_they_round() {
    let device = Device::reference();
    // Beyond the middle between two numbers by less than 2⁻²⁰ of it.
    for (dtype, value, expected) in [
        (DType::BF16, -87.250_03_f32, -87.5),
        (DType::F16, 1.0 + 2f32.powi(-11) + 2f32.powi(-23), 1.0 + 2f64.powi(-10)),
    ] {
        let x = Array::from_slice(&device, &[value], &[1], Class::Workspace).unwrap();
        assert_eq!(x.cast(dtype, Class::Workspace).unwrap().to_f64_vec().unwrap(), [expected], "{dtype}");
        // As an operator reads an operand that it rounds.
        let read = x.cast_when_read(dtype, Class::Workspace).unwrap();
        let wide = run_one(&Op::Cast(DType::F64), &[&read], &device, DType::F64, Class::Workspace).unwrap();
        assert_eq!(wide.to_f64_vec().unwrap(), [expected], "{dtype} as it is read");
    }
}

#[test]
fn a_deviation_beside_a_large_mean_is_that_of_the_numbers_as_they_are() {
    let device = Device::reference();
    let std = Op::Reduce { kind: Reduce::Std { correction: 0.0 }, dims: Dims::all(1), keepdim: false };
    for (unit, spread) in [(1.0, 2f64.powi(-40)), (2f64.powi(600), 2f64.powi(-40)), (2f64.powi(-600), 0.5)] {
        // Half the distance of two numbers, neither of which is a power of two.
        let x = Array::from_slice(&device, &[3.0 * unit, (3.0 + 2.0 * spread) * unit], &[2], Class::Workspace).unwrap();
        let found = run_one(&std, &[&x], &device, DType::F64, Class::Workspace).unwrap().item().unwrap();
        assert_eq!(found, spread * unit);
    }
}

#[test]
fn mish_far_left_has_every_digit() {
    let device = Device::reference();
    // There the factor is eˣ·(1 − ½eˣ), whose second term is 40 roundings.
    for x in [-29.9, -31.86, -36.0, -50.0] {
        let e = f64::exp(x);
        let exact = x * (e * (e + 2.0) / (e * (e + 2.0) + 2.0));
        let x = Array::from_slice(&device, &[x], &[1], Class::Workspace).unwrap();
        let found = run_one(&Op::Unary(Unary::Mish), &[&x], &device, DType::F64, Class::Workspace).unwrap();
        let off = (found.item().unwrap() - exact).abs() / exact.abs();
        assert!(off < 4.0 * f64::EPSILON, "{off}");
    }
}
