//! Casts that are left to whoever reads have the bits of casts, at every level.

use binade_cpu::{Cpu, Isa};
use binade_tensor::op::{Backward, Binary, Conv2d, Distribution, Epilogue, MatMul};
use binade_tensor::{Array, ArrayMut, Class, DType, Device, Key, Op, Request, Shape, run, run_one};

fn normal(device: &Device, shape: &[usize], seed: u64) -> Array {
    let distribution = Distribution::Normal { mean: 0.0, std: 0.5 };
    let op = Op::Random { distribution, shape: Shape::new(shape).unwrap(), key: Key::new(seed, 1) };
    run_one(&op, &[], device, DType::F32, Class::Weights).unwrap()
}

/// `run` on a weight that is rounded as it is read and on its cast.
fn check(w: &Array, dtype: DType, run: &dyn Fn(&Array) -> Array) {
    let (cast, read) = (w.cast(dtype, Class::Casts).unwrap(), w.cast_when_read(dtype, Class::Casts).unwrap());
    assert!(!read.is_written() && read.dtype() == dtype && read.storage().id() == w.storage().id());
    let (found, expected) = (run(&read).to_f64_vec().unwrap(), run(&cast).to_f64_vec().unwrap());
    assert!(found == expected, "{:?}, {dtype}, {}", w.shape(), w.device().name());
}

fn products(device: &Device, dtype: DType, extents: &[[usize; 3]]) {
    let half = |shape: &[usize], seed| normal(device, shape, seed).cast(dtype, Class::Activations).unwrap();
    let product = |a: &Array, b: &Array| {
        run_one(&Op::MatMul(MatMul::default()), &[a, b], device, dtype, Class::Activations).unwrap()
    };
    for &[m, k, n] in extents {
        let (x, y) = (half(&[m, k], 1), half(&[k, n], 2));
        let transposed = |w: Array| w.with_layout(w.layout().transpose(0, 1)).unwrap();
        check(&normal(device, &[k, n], 3), dtype, &|w| product(&x, w));
        check(&transposed(normal(device, &[n, k], 3)), dtype, &|w| product(&x, w));
        check(&normal(device, &[m, k], 4), dtype, &|w| product(w, &y));
        check(&transposed(normal(device, &[k, m], 4)), dtype, &|w| product(w, &y));
        let bias = Op::MatMul(MatMul::plain(Epilogue { bias: true, act: None }));
        check(&normal(device, &[n], 5), dtype, &|b| {
            run_one(&bias, &[&x, &y, b], device, dtype, Class::Activations).unwrap()
        });
    }
}

fn convolutions(device: &Device, dtype: DType, extents: &[[usize; 4]]) {
    let half = |shape: &[usize], seed| normal(device, shape, seed).cast(dtype, Class::Activations).unwrap();
    for &[o, c, groups, side] in extents {
        let conv = Conv2d { padding: [1, 1], groups, ..Conv2d::default() };
        let (x, g) = (half(&[2, c, side, side], 1), half(&[2, o, side, side], 2));
        let (forward, backward) =
            (Op::Conv2d(conv, Epilogue::default()), Op::Backward(Backward::Conv2dInput { conv, shape: *x.shape() }));
        let w = normal(device, &[o, c / groups, 3, 3], 3);
        check(&w, dtype, &|w| run_one(&forward, &[&x, w], device, dtype, Class::Activations).unwrap());
        check(&w, dtype, &|w| run_one(&backward, &[&g, w], device, dtype, Class::Gradients).unwrap());
        if conv.is_depthwise(w.shape()) {
            let all = Op::Backward(Backward::Depthwise { conv, bias: true });
            check(&w, dtype, &|w| {
                run(Request::new(&all, &[&g, &x, w], device, dtype, Class::Gradients)).unwrap()[0].clone()
            });
        }
    }
}

#[test]
fn what_is_rounded_as_it_is_read_has_the_bits_of_its_cast() {
    for (isa, dtype) in Isa::available().iter().flat_map(|&isa| [(isa, DType::F16), (isa, DType::BF16)]) {
        let device = Device::new(Cpu::with_isa(isa));
        // Few rows, some and many.
        products(
            &device,
            dtype,
            &[[1, 72, 100], [5, 1100, 60], [40, 300, 33], [40, 72, 260], [300, 260, 100], [65, 1100, 270]],
        );
        // Direct, copied patches, few outputs, groups, depthwise.
        let dense = [[20, 24, 1, 9], [40, 3, 1, 12], [3, 40, 1, 12], [64, 64, 1, 16]];
        convolutions(&device, dtype, &[&dense[..], &[[32, 32, 2, 6], [24, 24, 24, 7]]].concat());
    }
    products(&Device::reference(), DType::BF16, &[[5, 12, 7]]);
    convolutions(&Device::reference(), DType::F16, &[[4, 6, 2, 5]]);
}

#[test]
fn an_operator_that_does_not_round_as_it_reads_is_given_the_cast() {
    let device = Device::cpu();
    let other = normal(&device, &[40, 30], 1).cast(DType::BF16, Class::Activations).unwrap();
    let w = normal(&device, &[40, 30], 2);
    for op in [Op::Binary(Binary::Mul), Op::Cat { dim: 0 }] {
        check(&w, DType::BF16, &|w| run_one(&op, &[w, &other], &device, DType::BF16, Class::Activations).unwrap());
    }
    for op in [Op::Copy, Op::Cast(DType::F16)] {
        check(&w, DType::BF16, &|w| run_one(&op, &[w], &device, w.dtype(), Class::Activations).unwrap());
    }
    let target = Array::full(&device, DType::F16, *w.shape(), 0.0, Class::Weights).unwrap();
    check(&w, DType::BF16, &|w| {
        target.copy_from(w).unwrap();
        target.clone()
    });
}

#[test]
fn a_cast_that_is_left_to_whoever_reads_cannot_be_written() {
    let w = normal(&Device::cpu(), &[8], 1).cast_when_read(DType::BF16, Class::Casts).unwrap();
    assert!(ArrayMut::new("test", &w).is_err());
    assert!(w.copy_from(&w.cast(DType::F32, Class::Casts).unwrap()).is_err());
}
