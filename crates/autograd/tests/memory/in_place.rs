//! Gradients take the memory of gradients that nobody else keeps: never of one that somebody does.

use binade_cpu as _;
use std::sync::{Arc, Mutex};

use binade_autograd::{Var, grad, scope};
use binade_tensor::op::{Conv2d, Distribution, Unary};
use binade_tensor::{Array, Class, DType, Key, Op, Shape, run_one};

use crate::alone;

fn normal(shape: &[usize], seed: u64, dtype: DType) -> Array {
    let distribution = Distribution::Normal { mean: 0.0, std: 1.0 };
    let op = Op::Random { distribution, shape: Shape::new(shape).unwrap(), key: Key::new(seed, 1) };
    run_one(&op, &[], &scope::device().unwrap(), dtype, Class::Weights).unwrap()
}

fn values(array: &Array) -> Vec<f64> {
    array.to_f64_vec().unwrap()
}

/// Largest sum of live bytes during `f`, above what was there before.
fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let device = scope::device().unwrap();
    device.reset_peak_memory();
    let before = device.memory().live.iter().sum::<usize>();
    let out = f();
    (out, device.memory().peak_total - before)
}

const SHAPE: [usize; 2] = [64, 1024];
const BYTES: usize = 4 * 64 * 1024;

/// A chain of operators whose gradients are elementwise.
fn chain(x: &Var) -> Var {
    let y = x.unary(Unary::Relu).unwrap().tanh().unwrap().scalar(binade_tensor::op::Binary::Mul, 3.0, false).unwrap();
    y.dropout(0.25).unwrap().unary(Unary::Silu).unwrap()
}

#[test]
fn a_chain_of_elementwise_gradients_takes_the_memory_of_one() {
    let _alone = alone();
    let x = Var::leaf(normal(&SHAPE, 1, DType::F32));
    let loss = chain(&x).sum(&[], false).unwrap();
    let (gradients, bytes) = peak(|| loss.backward().unwrap());
    // The seed and its sum's gradient are single numbers; the first product makes the only tensor.
    assert!(bytes < BYTES + 4096, "{bytes} bytes at the peak");
    // An observer has to see operands as they were.
    let (observed, apart) = peak(|| {
        let nothing: scope::Observer = Arc::new(|_| {});
        scope::with_key(0, 0, || {
            scope::with_observer(nothing, || chain(&x).sum(&[], false).unwrap().backward().unwrap())
        })
    });
    assert!(apart > 2 * BYTES, "{apart} bytes");
    let again = scope::with_key(0, 0, || chain(&x).sum(&[], false).unwrap().backward().unwrap());
    assert_eq!(values(observed.get(&x).unwrap()), values(again.get(&x).unwrap()));
    drop(gradients);
}

#[test]
fn a_convolutions_relu_needs_no_second_gradient_of_its_size() {
    let _alone = alone();
    let (x, k) =
        (Var::constant(normal(&[4, 3, 32, 32], 1, DType::F32)), Var::leaf(normal(&[64, 3, 3, 3], 2, DType::F32)));
    let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
    let y = x.conv2d(&k, None, conv, Some(Unary::Relu)).unwrap().max_pool2d([2, 2], [2, 2], [0, 0]).unwrap();
    let loss = y.square().unwrap().sum(&[], false).unwrap();
    drop(y);
    let (_, bytes) = peak(|| loss.backward().unwrap());
    let largest = 4 * 4 * 64 * 32 * 32;
    // The pooled gradient is a quarter, and is gone when its operands are.
    assert!(bytes < largest + largest / 2, "{bytes} bytes at the peak, the largest gradient has {largest}");
}

#[test]
fn a_contractions_larger_operand_is_gone_before_its_gradient_is_made() {
    let _alone = alone();
    // Channels last, as gradients by images are: a leaf's gradient is copied into the leaf's order.
    let image = Var::constant(normal(&[4, 64, 64, 64], 1, DType::F32)).permute(&[0, 3, 1, 2]).unwrap();
    let x = Var::leaf(image.array().clone());
    let kernel = Var::leaf(normal(&[4, 64, 1, 1], 2, DType::F32));
    // What only the contraction saves: a multiple, whose own gradient saves nothing.
    let twice = x.scalar(binade_tensor::op::Binary::Mul, 2.0, false).unwrap();
    let loss = twice.conv2d(&kernel, None, Conv2d::default(), Some(Unary::Relu)).unwrap().sum(&[], false).unwrap();
    drop(twice);
    let ((), bytes) = peak(|| drop(loss.backward().unwrap()));
    // Gradients of 256 KiB, and scratch.
    let larger = 4 * 4 * 64 * 64 * 64;
    assert!(bytes < larger / 2, "{bytes} bytes above those of the operand, which has {larger}");
}

#[test]
fn the_sum_of_two_gradients_takes_the_memory_of_one() {
    let _alone = alone();
    let x = Var::leaf(normal(&SHAPE, 1, DType::F32));
    let (a, b) = (x.tanh().unwrap(), x.sin().unwrap());
    let loss = a.mul(&b).unwrap().sum(&[], false).unwrap();
    drop((a, b));
    let (gradients, bytes) = peak(|| loss.backward().unwrap());
    // sin(x) is made again, a product for each factor.
    assert!(bytes < 3 * BYTES + 4096, "{bytes} bytes at the peak");
    let exact = values(x.array()).into_iter().map(|x| (1.0 - x.tanh().powi(2)) * x.sin() + x.tanh() * x.cos());
    let near = |(found, exact): (f64, f64)| (found - exact).abs() < 1e-5;
    assert!(values(gradients.get(&x).unwrap()).into_iter().zip(exact).all(near));
}

#[test]
fn a_gradient_that_a_hook_keeps_stays_as_it_was() {
    let _alone = alone();
    for replace in [false, true] {
        let x = Var::leaf(normal(&SHAPE, 1, DType::F32));
        let y = x.tanh().unwrap();
        let seen = Arc::new(Mutex::new(Vec::<(Array, Vec<f64>)>::new()));
        let sink = seen.clone();
        y.register_hook(move |g| {
            sink.lock().unwrap().push((g.clone(), g.to_f64_vec()?));
            Ok(replace.then(|| g.clone()))
        })
        .unwrap();
        let loss = y.square().unwrap().sum(&[], false).unwrap();
        loss.backward().unwrap();
        for (array, then) in &*seen.lock().unwrap() {
            assert_eq!(values(array), *then);
        }
        assert_eq!(seen.lock().unwrap().len(), 1);
    }
}

#[test]
fn the_gradient_given_to_backward_stays_as_it_was() {
    let _alone = alone();
    let x = Var::leaf(normal(&SHAPE, 1, DType::F32));
    let y = x.unary(Unary::Relu).unwrap();
    let upstream = normal(&SHAPE, 2, DType::F32);
    let before = (values(&upstream), upstream.storage().version());
    let gradients = y.backward_with(&upstream).unwrap();
    assert_eq!((values(&upstream), upstream.storage().version()), before);
    assert_ne!(gradients.get(&x).unwrap().storage().id(), upstream.storage().id());
}

#[test]
fn gradients_that_two_uses_share_are_not_written_over_for_one_of_them() {
    let _alone = alone();
    // Both operands of a sum receive the same array; one goes on through elementwise operators first.
    for order in [false, true] {
        let (a, b) = (Var::leaf(normal(&SHAPE, 1, DType::F32)), Var::leaf(normal(&SHAPE, 2, DType::F32)));
        let (p, q) = if order { (a.tanh().unwrap(), b.sin().unwrap()) } else { (a.tanh().unwrap(), b.clone()) };
        let sum = p.add(&q).unwrap();
        let gradients = sum.mul(&sum).unwrap().sum(&[], false).unwrap().backward().unwrap();
        let s: Vec<f64> = values(sum.array());
        let by_a = values(a.array()).into_iter().zip(&s).map(|(a, s)| 2.0 * s * (1.0 - a.tanh().powi(2)));
        let by_b = values(b.array()).into_iter().zip(&s).map(|(b, s)| 2.0 * s * if order { b.cos() } else { 1.0 });
        let near = |(found, exact): (f64, f64)| (found - exact).abs() < 1e-4;
        assert!(values(gradients.get(&a).unwrap()).into_iter().zip(by_a).all(near));
        assert!(values(gradients.get(&b).unwrap()).into_iter().zip(by_b).all(near));
    }
}

#[test]
fn gradients_by_tensors_inside_are_those_of_their_moment() {
    let _alone = alone();
    let x = Var::leaf(normal(&SHAPE, 1, DType::F32));
    let (y, z) = (x.tanh().unwrap(), x.unary(Unary::Silu).unwrap());
    let product = y.unary(Unary::Relu).unwrap().mul(&z).unwrap();
    let loss = product.square().unwrap().sum(&[], false).unwrap();
    let both = grad(&loss, &[&y, &z], None, false).unwrap();
    for (i, input) in [&y, &z].into_iter().enumerate() {
        let alone = grad(&loss, &[input], None, false).unwrap().remove(0).unwrap();
        assert_eq!(values(both[i].as_ref().unwrap().array()), values(alone.array()), "gradient {i}");
    }
}

#[test]
fn recorded_gradients_keep_what_their_own_gradients_need() {
    let _alone = alone();
    let x = Var::leaf(normal(&[256], 1, DType::F64));
    let y = x.tanh().unwrap().square().unwrap().sum(&[], false).unwrap();
    let first = grad(&y, &[&x], None, true).unwrap().remove(0).unwrap();
    let kept = values(first.array());
    let second = first.sum(&[], false).unwrap().backward().unwrap();
    assert_eq!(values(first.array()), kept);
    for (found, x) in values(second.get(&x).unwrap()).into_iter().zip(values(x.array())) {
        let t = x.tanh();
        let exact = 2.0 * (1.0 - t * t) * (1.0 - 3.0 * t * t);
        assert!((found - exact).abs() < 1e-12, "{found} instead of {exact}");
    }
}

#[test]
fn accumulated_gradients_leave_those_given_out_alone() {
    let _alone = alone();
    let x = Var::leaf(normal(&SHAPE, 1, DType::F32));
    let pass = || x.square().unwrap().sum(&[], false).unwrap().backward().unwrap();
    let mut total = pass();
    let out = total.get(&x).unwrap().clone();
    let before = values(&out);
    total.add(pass()).unwrap();
    assert_eq!(values(&out), before);
    let twice: Vec<f64> = before.iter().map(|v| 2.0 * v).collect();
    assert_eq!(values(total.get(&x).unwrap()), twice);
    drop(out);
    let (_, bytes) = peak(|| total.add(pass()).unwrap());
    assert!(bytes < 3 * BYTES, "a pass, and no third gradient beside it: {bytes}");
    let of_class = scope::device().unwrap().memory().live(Class::Gradients);
    assert!(of_class >= BYTES);
}
