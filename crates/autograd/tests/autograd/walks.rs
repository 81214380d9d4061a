//! The walk of a backward pass: where it begins, what meets at a node, whose memory a gradient is, what runs again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use binade_autograd::{Backward, Error, Gradients, Var, checkpoint, grad, no_grad};
use binade_cpu as _;
use binade_tensor::op::NormKind;
use binade_tensor::{Array, Class, DType, Device, Layout, Shape};

fn array(values: &[f32], shape: &[usize]) -> Array {
    Array::from_slice(&Device::cpu(), values, shape, Class::Weights).unwrap()
}

fn leaf(values: &[f32]) -> Var {
    Var::leaf(array(values, &[values.len()]))
}

fn of(grads: &Gradients, x: &Var) -> Vec<f64> {
    grads.get(x).unwrap().to_f64_vec().unwrap()
}

fn sum(x: &Var) -> Var {
    x.sum(&[], false).unwrap()
}

// ---- where it begins

#[test]
fn a_pass_begins_at_one_element_or_with_a_gradient_of_the_tensors_shape() {
    let x = leaf(&[1.0, 2.0]);
    let y = x.square().unwrap();
    assert!(matches!(y.backward(), Err(Error::NotScalar { shape }) if shape == [2]));
    for wrong in [&[1][..], &[1, 2], &[3]] {
        let error = y.backward_with(&array(&vec![1.0; wrong.iter().product()], wrong)).unwrap_err();
        let refused = matches!(&error, Error::Tensor { error: binade_tensor::Error::Shape { op: "backward", .. }, .. });
        assert!(refused, "{error:?}");
    }
    assert_eq!(of(&y.backward_with(&array(&[1.0, 10.0], &[2])).unwrap(), &x), [2.0, 40.0]);
}

#[test]
fn what_is_cast_to_integers_has_no_gradient() {
    let x = leaf(&[1.5]);
    assert!(!x.cast(DType::I64).unwrap().requires_grad());
    assert!(x.cast(DType::F16).unwrap().requires_grad());
}

#[test]
fn through_a_product_with_8_bit_weights_goes_no_gradient_and_its_name_is_told() {
    let (x, scale) = (leaf(&[1.5, -2.0]), Var::constant(array(&[0.5], &[1])));
    let weight = Var::constant(Array::from_slice(&Device::cpu(), &[3i8, 4], &[1, 2], Class::Weights).unwrap());
    let y = x.quantised_linear(&weight, &scale, None, None, None).unwrap();
    assert_eq!(y.array().to_f64_vec().unwrap(), [-1.75]);
    let error = y.backward().unwrap_err();
    assert!(matches!(error, Error::NotDifferentiable { op: "quantised_matmul", .. }), "{error}");
    assert!(no_grad(|| x.quantised_linear(&weight, &scale, None, None, None)).is_ok());
}

// ---- whose memory a gradient is

#[test]
fn every_leaf_has_a_gradient_of_its_own_to_be_changed() {
    let (a, b, given) = (leaf(&[1.0, 2.0]), leaf(&[3.0, 4.0]), array(&[5.0, 6.0], &[2]));
    let grads = a.add(&b).unwrap().backward_with(&given).unwrap();
    let memories = [grads.get(&a).unwrap(), grads.get(&b).unwrap(), &given].map(|g| g.storage().id());
    assert!(memories[0] != memories[1] && memories[0] != memories[2] && memories[1] != memories[2]);
}

#[test]
fn a_gradient_that_nobody_shares_is_not_copied_and_one_that_a_clone_has_is() {
    let x = leaf(&[1.0]);
    let mut grads = sum(&x).backward().unwrap();
    let id = x.leaf_id().unwrap();
    let memory = |g: &Gradients| g.by_id(id).unwrap().storage().id();
    let before = memory(&grads);
    grads.unshared(id).unwrap();
    assert_eq!(memory(&grads), before);
    let kept = grads.clone();
    grads.unshared(id).unwrap();
    assert_ne!(memory(&grads), memory(&kept));
    assert_eq!(memory(&kept), before);
}

#[test]
fn gradients_are_counted_and_taken_out_by_leaf() {
    let (a, b) = (leaf(&[1.0]), leaf(&[2.0]));
    let mut grads = Gradients::default();
    assert_eq!((grads.len(), grads.is_empty()), (0, true));
    grads.add(sum(&a.mul(&b).unwrap()).backward().unwrap()).unwrap();
    assert_eq!((grads.len(), grads.is_empty()), (2, false));
    assert_eq!(grads.remove(a.leaf_id().unwrap()).unwrap().item().unwrap(), 2.0);
    assert!(grads.remove(a.leaf_id().unwrap()).is_none());
    assert_eq!((grads.len(), of(&grads, &b)), (1, vec![1.0]));
}

// ---- what meets at a node

#[test]
fn scales_of_one_leaf_may_differ_by_a_power_of_two_whatever_they_are() {
    let x = leaf(&[1.0]);
    let id = x.leaf_id().unwrap();
    let at = |scale: f64, value: f32| {
        let mut grads = sum(&x).backward().unwrap();
        grads.insert(id, array(&[value], &[1]));
        grads.set_scale_of(id, scale);
        grads
    };
    for (first, second, together) in
        [(3.0, 12.0, 12.0), (12.0, 3.0, 12.0), (2f64.powi(600), 2f64.powi(600), 2f64.powi(600))]
    {
        let mut grads = at(first, (first.min(16.0)) as f32);
        grads.add(at(second, second.min(16.0) as f32)).unwrap();
        let each = together.min(16.0);
        assert_eq!((of(&grads, &x), grads.scale_of(id)), (vec![2.0 * each], Some(together)), "{first} and {second}");
    }
    assert!(at(2f64.powi(600), 1.0).add(at(2f64.powi(-600), 1.0)).is_err(), "the ratio is no normal number");
}

#[test]
fn a_node_that_was_reached_without_a_gradient_takes_one_of_any_scale() {
    let x = leaf(&[1.0, -1.0]);
    // Made first, so that the walk comes to it last.
    let scaled = sum(&x).scaled(8.0).unwrap();
    // The slope of ReLU is constant in its argument.
    let slope = grad(&sum(&x.relu().unwrap()), &[&x], None, true).unwrap().remove(0).unwrap();
    let alone = sum(&slope.square().unwrap()).backward().unwrap();
    assert_eq!((of(&alone, &x), alone.scale_of(x.leaf_id().unwrap())), (vec![0.0; 2], Some(1.0)));
    let slope = grad(&sum(&x.relu().unwrap()), &[&x], None, true).unwrap().remove(0).unwrap();
    let both = sum(&slope.square().unwrap()).add(&scaled).unwrap().backward().unwrap();
    assert_eq!((of(&both, &x), both.scale_of(x.leaf_id().unwrap())), (vec![8.0; 2], Some(8.0)));
}

#[test]
fn a_leaf_that_a_slope_is_constant_in_has_zeros() {
    let (x, shift) = (leaf(&[1.0, -1.0]), leaf(&[0.5, 0.5]));
    let y = sum(&x.add(&shift).unwrap().relu().unwrap());
    let slope = grad(&y, &[&x], None, true).unwrap().remove(0).unwrap();
    let grads = sum(&slope.square().unwrap()).backward().unwrap();
    assert_eq!((of(&grads, &x), of(&grads, &shift)), (vec![0.0; 2], vec![0.0; 2]));
}

#[test]
fn parts_that_overlap_and_end_where_the_tensor_does_are_added() {
    let x = leaf(&[0.0; 3]);
    let part = |start, length, factor: f64| sum(&(&x.narrow(0, start, length).unwrap() * factor).unwrap());
    let loss = part(0, 2, 1.0).add(&part(1, 1, 10.0)).unwrap();
    assert_eq!(of(&loss.backward().unwrap(), &x), [1.0, 11.0, 0.0]);
}

#[test]
fn parts_of_16_bit_and_of_f32_are_joined_in_f32() {
    // 1 + 2^-12 does not fit f16.
    let fine = 1.0 + 2f64.powi(-12);
    for narrow_first in [true, false] {
        let x = leaf(&[1.0, 1.0]);
        let [a, b] = [0, 1].map(|i| x.narrow(0, i, 1).unwrap());
        let (half, wide) = if narrow_first { (&a, &b) } else { (&b, &a) };
        let half = sum(&half.cast(DType::F16).unwrap()).cast(DType::F32).unwrap();
        let loss = half.add(&sum(&(wide * fine).unwrap())).unwrap();
        let expected = if narrow_first { [1.0, fine] } else { [fine, 1.0] };
        assert_eq!(of(&loss.backward().unwrap(), &x), expected);
    }
}

/// The gradient of a 2 × 6 leaf that is cut into parts along its rows whose gradients are views of `memory`, and
/// whether it is that memory.
fn cut(parts: &[(usize, Array)], memory: &Array) -> (Vec<f64>, bool) {
    let x = Var::leaf(array(&[0.0; 12], &[2, 6]));
    let (mut start, mut loss) = (0, None);
    for (length, gradient) in parts {
        let part = x.narrow(1, start, *length).unwrap();
        let gradient = gradient.clone();
        part.register_hook(move |_| Ok(Some(gradient.clone()))).unwrap();
        start += length;
        loss = Some(match loss {
            None => sum(&part),
            Some(before) => sum(&part).add(&before).unwrap(),
        });
    }
    let grads = loss.unwrap().backward_with(Backward { lean: true, ..Backward::default() }).unwrap();
    let found = grads.get(&x).unwrap();
    (found.to_f64_vec().unwrap(), found.storage().id() == memory.storage().id())
}

#[test]
fn parts_that_lie_side_by_side_in_one_memory_are_that_memory_and_no_others() {
    let numbers = |from: f32| array(&(0..12).map(|i| from + i as f32).collect::<Vec<_>>(), &[2, 6]);
    let (one, other) = (numbers(0.0), numbers(100.0));
    let view = |of: &Array, length: usize, offset: usize, strides: [usize; 2]| {
        let (shape, strides) = (Shape::new(&[2, length]).unwrap(), Shape::new(&strides).unwrap());
        (length, of.with_layout(Layout { shape, strides, offset }).unwrap())
    };
    let rows = [6, 1];
    let cases = [
        ("side by side", vec![view(&one, 2, 0, rows), view(&one, 4, 2, rows)], true),
        ("in three", vec![view(&one, 2, 0, rows), view(&one, 2, 2, rows), view(&one, 2, 4, rows)], true),
        ("of two memories", vec![view(&one, 2, 0, rows), view(&other, 4, 2, rows)], false),
        ("the second repeats a column", vec![view(&one, 2, 0, rows), view(&one, 4, 2, [6, 0])], false),
        ("the second repeats a row", vec![view(&one, 2, 0, rows), view(&one, 4, 2, [0, 1])], false),
        ("the third is the first", vec![view(&one, 2, 0, rows), view(&one, 2, 2, rows), view(&one, 2, 0, rows)], false),
    ];
    for (what, parts, shared) in cases {
        let columns = parts.iter().map(|(n, part)| (*n, part.to_f64_vec().unwrap()));
        let mut expected = [Vec::new(), Vec::new()];
        for (n, values) in columns {
            expected[0].extend(&values[..n]);
            expected[1].extend(&values[n..]);
        }
        assert_eq!(cut(&parts, &one), (expected.concat(), shared), "{what}");
    }
}

// ---- what runs again

#[test]
fn a_checkpoint_runs_again_in_the_backward_pass_and_one_inside_it_once_more() {
    let (outer, inner) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let runs = || (outer.load(Ordering::Relaxed), inner.load(Ordering::Relaxed));
    let x = leaf(&[3.0]);
    let run = || {
        let (outer, inner) = (outer.clone(), inner.clone());
        let nested = move |x: &[Var]| {
            outer.fetch_add(1, Ordering::Relaxed);
            let inner = inner.clone();
            let square = move |x: &[Var]| {
                inner.fetch_add(1, Ordering::Relaxed);
                x[0].square()
            };
            checkpoint(square, &[&x[0]])?.square()
        };
        checkpoint(nested, &[&x]).unwrap()
    };
    let y = run();
    assert_eq!(runs(), (1, 1));
    assert_eq!(of(&sum(&y).backward().unwrap(), &x), [108.0]);
    assert_eq!(runs(), (2, 3));
    // Without gradients there is nothing to run again.
    assert!(!no_grad(run).requires_grad());
    assert_eq!(runs(), (3, 4));
}

#[test]
fn a_weight_that_a_checkpoint_inside_another_reads_must_stay_as_it_was() {
    let (w, x) = (leaf(&[2.0]), leaf(&[3.0]));
    let inner = w.clone();
    let nested = move |x: &[Var]| {
        let w = inner.clone();
        checkpoint(move |x: &[Var]| x[0].mul(&w), &[&x[0]])?.square()
    };
    let y = checkpoint(nested, &[&x]).unwrap();
    w.array().copy_from(&array(&[5.0], &[1])).unwrap();
    assert!(matches!(sum(&y).backward(), Err(Error::Changed { .. })));
}

#[test]
fn what_an_operator_only_reads_has_no_gradient() {
    let x = Var::leaf(array(&[1.0, 2.0], &[2, 1, 1, 1]));
    let [weight, bias, mean, var] = [leaf(&[1.0]), leaf(&[0.0]), leaf(&[0.5]), leaf(&[2.0])];
    let y = x.norm(NormKind::Fixed, Some((&weight, &bias)), Some((&mean, &var)), 1e-5, None).unwrap().0;
    let grads = sum(&y).backward().unwrap();
    assert!(grads.get(&x).is_some() && grads.get(&weight).is_some());
    assert!(grads.get(&mean).is_none() && grads.get(&var).is_none());
}
