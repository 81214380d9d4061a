//! Recomputation: what it reads must be as it was, what has no gradient stays so, and deferred changes are made once.

use binade_autograd::{Deferred, Error, Gradients, Var, checkpoint, no_grad, scope};
use binade_cpu as _;
use binade_tensor::{Array, Class, DType};

fn array(values: &[f32]) -> Array {
    Array::from_slice(&scope::device().unwrap(), values, &[values.len()], Class::Weights).unwrap()
}

/// Multiplies by `w`, recomputed in backward.
fn times(w: &Var, x: &Var) -> Var {
    let w = w.clone();
    checkpoint(move |x| x[0].mul(&w), &[x]).unwrap()
}

fn backward(y: &Var) -> Result<Gradients, Error> {
    y.sum(&[], false).unwrap().backward()
}

/// Counts in `buffer` with the step of `y`.
fn count(y: &Var, buffer: &Array) {
    let one = |now: &[Array]| Ok(vec![array(&[now[0].item()? as f32 + 1.0])]);
    y.defer(Deferred::new(vec![buffer.clone()], vec![], one)).unwrap();
}

#[test]
fn a_weight_changed_before_backward_is_an_error_as_without_recomputation() {
    let (w, x) = (Var::leaf(array(&[2.0])), Var::leaf(array(&[3.0])));
    for y in [times(&w, &x), w.mul(&x).unwrap()] {
        w.array().copy_from(&array(&[5.0])).unwrap();
        assert!(matches!(backward(&y), Err(Error::Changed { .. })));
    }
}

#[test]
fn a_view_of_a_weight_and_a_constant_are_watched_too() {
    let (w, c, x) = (Var::leaf(array(&[2.0, 1.0])), Var::constant(array(&[4.0])), Var::leaf(array(&[3.0])));
    let run = || {
        let (w, c) = (w.clone(), c.clone());
        checkpoint(move |x| x[0].mul(&w.narrow(0, 0, 1)?)?.mul(&c), &[&x]).unwrap()
    };
    for changed in [w.array(), c.array()] {
        let y = run();
        changed.copy_from(&changed.clone().cast(DType::F64, Class::Workspace).unwrap()).unwrap();
        assert!(matches!(backward(&y), Err(Error::Changed { .. })));
    }
    assert_eq!(backward(&run()).unwrap().get(&x).unwrap().item().unwrap(), 8.0);
}

#[test]
fn without_a_parameter_that_trains_there_is_no_gradient() {
    let (w, x) = (Var::constant(array(&[2.0])), Var::constant(array(&[3.0])));
    let y = times(&w, &x);
    assert!(!y.requires_grad());
    assert_eq!(backward(&y).unwrap_err(), Error::NoGraph);
    let leaf = Var::leaf(array(&[2.0]));
    assert!(times(&leaf, &x).requires_grad());
    assert!(!checkpoint(|x| x[0].square().map(|y| y.detach()), &[&leaf]).unwrap().requires_grad());
    let inner = leaf.clone();
    assert!(!checkpoint(move |x| no_grad(|| x[0].mul(&inner)), &[&x]).unwrap().requires_grad());
    assert_eq!(checkpoint(|x| Ok(x[0].clone()), &[&leaf]).unwrap().leaf_id(), leaf.leaf_id());
}

#[test]
fn recomputation_inside_recomputation_gives_the_gradient() {
    let (w, x) = (Var::leaf(array(&[2.0])), Var::leaf(array(&[3.0])));
    let inner = w.clone();
    let y = checkpoint(move |x| times(&inner, &x[0].square()?).square(), &[&x]).unwrap();
    let grads = backward(&y).unwrap();
    // (w·x²)²: 4·w²·x³ and 2·w·x⁴.
    assert_eq!([&x, &w].map(|v| grads.get(v).unwrap().item().unwrap()), [432.0, 324.0]);
}

#[test]
fn what_is_deferred_goes_with_the_gradients_once() {
    let (buffer, x) = (array(&[0.0]), Var::leaf(array(&[3.0])));
    let kept = buffer.clone();
    let y = checkpoint(
        move |x| {
            let y = x[0].square()?;
            count(&y, &kept);
            Ok(y)
        },
        &[&x],
    )
    .unwrap();
    let grads = backward(&y).unwrap();
    assert_eq!(buffer.item().unwrap(), 0.0);
    let copy = grads.clone();
    grads.commit().unwrap();
    copy.commit().unwrap();
    assert_eq!(buffer.item().unwrap(), 1.0);
}

#[test]
fn changes_of_several_passes_are_made_in_the_order_of_their_forward_passes() {
    let (buffer, x) = (array(&[1.0]), Var::leaf(array(&[3.0])));
    let append = |y: &Var, digit: f32| {
        let next = move |now: &[Array]| Ok(vec![array(&[now[0].item()? as f32 * 10.0 + digit])]);
        y.defer(Deferred::new(vec![buffer.clone()], vec![], next)).unwrap();
    };
    let pass = |digit: f32| {
        let y = x.square().unwrap();
        append(&y, digit);
        let z = y.square().unwrap();
        append(&z, digit + 1.0);
        append(&z, digit + 2.0);
        z
    };
    let (first, second) = (pass(2.0), pass(5.0));
    let mut grads = backward(&first).unwrap();
    grads.add(backward(&second).unwrap()).unwrap();
    grads.commit().unwrap();
    assert_eq!(buffer.item().unwrap(), 1_234_567.0);
}

#[test]
fn a_change_that_no_gradient_carries_is_made_at_once_and_a_rehearsal_makes_none() {
    let (buffer, x) = (array(&[0.0]), Var::leaf(array(&[3.0])));
    let once = || count(&x.square().unwrap(), &buffer);
    no_grad(once);
    assert_eq!(buffer.item().unwrap(), 1.0);
    count(&Var::constant(array(&[1.0])), &buffer);
    assert_eq!(buffer.item().unwrap(), 2.0);
    scope::run_in(&scope::capture().rehearsal(), || no_grad(once));
    once();
    assert_eq!(buffer.item().unwrap(), 2.0);
}

#[test]
fn a_change_that_fails_leaves_all_buffers_as_they_were() {
    let (a, b, x) = (array(&[0.0]), array(&[0.0]), Var::leaf(array(&[3.0])));
    let y = x.square().unwrap();
    count(&y, &a);
    let z = y.square().unwrap();
    z.defer(Deferred::new(vec![b.clone()], vec![], |_| Ok(vec![array(&[1.0, 2.0])]))).unwrap();
    assert!(backward(&z).unwrap().commit().is_err());
    assert_eq!((a.item().unwrap(), b.item().unwrap()), (0.0, 0.0));
}
