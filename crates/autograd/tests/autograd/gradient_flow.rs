//! How gradients travel: parts of one tensor are joined, 16 bit stays 16 bit until somebody needs f32.

use binade_cpu as _;
use std::sync::{Arc, Mutex};

use binade_autograd::{Var, apply, grad, scope};
use binade_tensor::op::{Attention, Backward, Norm, NormKind, Unary};
use binade_tensor::{Array, Class, DType, Device, Layout, Op, Request, run};

const LEAN: binade_autograd::Backward<'_> = binade_autograd::Backward { gradient: None, keep_graph: false, lean: true };

fn leaf(shape: &[usize]) -> Var {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32 / 8.0 - 2.0).collect();
    Var::leaf(Array::from_slice(&Device::cpu(), &values, shape, Class::Weights).unwrap())
}

/// The names of the operators that compute gradients inside `f`, views apart.
fn backward_operators<T>(f: impl FnOnce() -> T) -> (T, Vec<String>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let observer: scope::Observer = Arc::new(move |event| {
        if event.phase == scope::Phase::Backward && !matches!(event.op, Op::View(_)) {
            sink.lock().unwrap().push(event.op.name().to_string());
        }
    });
    let out = scope::with_observer(observer, f);
    let names = seen.lock().unwrap().clone();
    (out, names)
}

/// The gradient of Σ wᵢ·partᵢ for parts (start, length) of dimension `dim`, one weight each, and the operators it took.
fn of_parts(x: &Var, y: &Var, dim: isize, parts: &[(usize, usize)]) -> (Vec<f64>, Vec<String>) {
    let terms = parts.iter().enumerate().map(|(i, &(start, length))| {
        let part = (&y.narrow(dim, start, length).unwrap() * (i as f64 + 1.0)).unwrap();
        part.sum(&[], false).unwrap()
    });
    let loss = terms.reduce(|a, b| a.add(&b).unwrap()).unwrap();
    let (grads, names) = backward_operators(|| loss.backward().unwrap());
    (grads.get(x).unwrap().to_f64_vec().unwrap(), names)
}

/// What [`of_parts`] should give for x of shape `[rows, columns]`, cut along the columns.
fn expected(rows: usize, columns: usize, parts: &[(usize, usize)]) -> Vec<f64> {
    let weight = |c: usize| {
        let covers = |(i, &(start, length)): (usize, &(usize, usize))| {
            ((start..start + length).contains(&c)) as u64 * (i as u64 + 1)
        };
        parts.iter().enumerate().map(covers).sum::<u64>() as f64
    };
    (0..rows * columns).map(|i| weight(i % columns)).collect()
}

#[test]
fn parts_that_cover_a_tensor_are_joined_by_one_copy() {
    // In any order.
    for parts in [[(0, 2), (2, 3), (5, 1)], [(2, 3), (5, 1), (0, 2)]] {
        let x = leaf(&[4, 6]);
        let (found, names) = of_parts(&x, &x, 1, &parts);
        assert_eq!(found, expected(4, 6, &parts));
        assert_eq!(names.iter().filter(|n| *n == "cat").count(), 1, "{names:?}");
        assert!(!names.iter().any(|n| n == "narrow_backward"), "{names:?}");
    }
}

#[test]
fn attention_makes_the_gradient_of_the_tensor_that_queries_keys_and_values_are_cut_from() {
    let (n, t, h, e) = (2, 5, 3, 4);
    let gradient = |apart: bool| {
        let x = leaf(&[n, t, 3 * h * e]);
        let parts = x.unary(Unary::Sin).unwrap().reshape(&[n as isize, t as isize, 3, h as isize, e as isize]).unwrap();
        let part = |i: usize| {
            let part = parts.narrow(2, i, 1).unwrap().squeeze(2).unwrap().transpose(1, 2).unwrap();
            // A copy is no part of anything.
            if apart { binade_autograd::apply(Op::Copy, &[&part]).unwrap() } else { part }
        };
        let y = part(0).attention(&part(1), &part(2), Attention::default()).unwrap();
        let y = y.transpose(1, 2).unwrap().reshape(&[n as isize, t as isize, (h * e) as isize]).unwrap();
        let loss = y.square().unwrap().sum(&[], false).unwrap();
        let (grads, names) = backward_operators(|| loss.backward().unwrap());
        (grads.get(&x).unwrap().to_f64_vec().unwrap(), names)
    };
    let ((joined, names), (copied, _)) = (gradient(false), gradient(true));
    assert_eq!(joined, copied);
    // Neither queries, keys and values nor the result with its heads side by side are copied.
    assert!(!names.iter().any(|n| ["cat", "copy", "narrow_backward"].contains(&n.as_str())), "{names:?}");
}

#[test]
fn a_bias_gradient_comes_with_that_of_its_weight() {
    let (x, w, b) = (leaf(&[40, 20]), leaf(&[24, 20]), leaf(&[24]));
    for of in [None, Some(Unary::Sin)] {
        let y = match of {
            None => x.linear(&w, Some(&b), None).unwrap(),
            Some(act) => x.linear_of(act, &w, Some(&b)).unwrap(),
        };
        let g: Vec<f32> = (0..40 * 24).map(|i| (i % 7) as f32 - 3.0).collect();
        let g = Array::from_slice(&Device::cpu(), &g, &[40, 24], Class::Gradients).unwrap();
        let (grads, names) = backward_operators(|| y.backward_with(&g).unwrap());
        // Small whole numbers: any order of the sum is exact.
        let exact: Vec<f64> = (0..24).map(|j| (0..40).map(|i| ((i * 24 + j) % 7) as f64 - 3.0).sum()).collect();
        assert_eq!(grads.get(&b).unwrap().to_f64_vec().unwrap(), exact);
        assert!(!names.iter().any(|n| n == "sum"), "{names:?}");
    }
}

#[test]
fn parts_that_leave_gaps_or_overlap_are_padded_and_added() {
    for parts in [&[(0, 2), (3, 3)][..], &[(0, 4), (2, 4)], &[(1, 5)], &[(0, 3), (0, 3), (3, 3)]] {
        let x = leaf(&[4, 6]);
        let (found, names) = of_parts(&x, &x, 1, parts);
        assert_eq!(found, expected(4, 6, parts), "{parts:?}");
        assert_eq!(names.iter().filter(|n| *n == "narrow_backward").count(), parts.len(), "{names:?}");
    }
}

#[test]
fn parts_and_the_whole_add_up() {
    let x = leaf(&[2, 4]);
    let whole = x.square().unwrap().sum(&[], false).unwrap();
    let halves = [0, 2].map(|start| x.narrow(1, start, 2).unwrap().unary(Unary::Neg).unwrap().sum(&[], false).unwrap());
    let loss = whole.add(&halves[0]).unwrap().add(&halves[1]).unwrap();
    let found = loss.backward().unwrap().get(&x).unwrap().to_f64_vec().unwrap();
    let exact: Vec<f64> = x.array().to_f64_vec().unwrap().iter().map(|x| 2.0 * x - 1.0).collect();
    assert_eq!(found, exact);
}

#[test]
fn q_k_and_v_are_joined_in_the_memory_order_of_the_product_they_were_cut_from() {
    // (N, T, 3·H·E) as a linear layer gives it, to (3, N, H, T, E) and back without another copy.
    let (n, t, h, e) = (2, 3, 2, 4);
    let x = leaf(&[n, t, 3 * h * e]);
    let y = x.unary(Unary::Neg).unwrap();
    let qkv =
        y.reshape(&[n as isize, t as isize, 3, h as isize, e as isize]).unwrap().permute(&[2, 0, 3, 1, 4]).unwrap();
    let (found, names) = of_parts(&x, &qkv, 0, &[(0, 1), (1, 1), (2, 1)]);
    let exact: Vec<f64> = (0..n * t * 3 * h * e).map(|i| -((i / (h * e) % 3) as f64 + 1.0)).collect();
    assert_eq!(found, exact);
    assert_eq!(
        names.iter().filter(|n| ["cat", "copy", "narrow_backward", "add"].contains(&n.as_str())).count(),
        1,
        "{names:?}"
    );
}

#[test]
fn joined_gradients_are_differentiated_again() {
    let x = leaf(&[2, 6]);
    let cubes = [0, 2, 4].map(|start| {
        let part = x.narrow(1, start, 2).unwrap();
        (&part.square().unwrap() * &part).unwrap().sum(&[], false).unwrap()
    });
    let loss = cubes.into_iter().reduce(|a, b| a.add(&b).unwrap()).unwrap();
    let first = grad(&loss, &[&x], None, true).unwrap().remove(0).unwrap();
    let second = first.sum(&[], false).unwrap().backward().unwrap().get(&x).unwrap().to_f64_vec().unwrap();
    let values = x.array().to_f64_vec().unwrap();
    assert_eq!(first.array().to_f64_vec().unwrap(), values.iter().map(|x| 3.0 * x * x).collect::<Vec<_>>());
    assert_eq!(second, values.iter().map(|x| 6.0 * x).collect::<Vec<_>>());
}

#[test]
fn a_second_backward_through_a_narrowed_view_is_a_named_error() {
    let x = leaf(&[2, 4]);
    let part = x.narrow(1, 0, 2).unwrap();
    let y = part.sum(&[], false).unwrap();
    y.backward().unwrap();
    assert!(matches!(y.backward(), Err(binade_autograd::Error::Released { .. })));
}

#[test]
fn a_lean_gradient_has_the_same_values_in_the_dtype_it_was_rounded_to() {
    for dtype in [DType::F16, DType::BF16] {
        let loss = |w: &Var, b: &Var| {
            // Through a view of the leaf, as a linear layer uses its weight; the bias twice.
            let w = w.transpose(0, 1).unwrap().cast(dtype).unwrap();
            let b = b.cast(dtype).unwrap();
            w.square().unwrap().add(&b).unwrap().add(&b).unwrap().sum(&[], false).unwrap()
        };
        let (w, b) = (leaf(&[3, 4]), leaf(&[3]));
        let plain = loss(&w, &b).backward().unwrap();
        let (lean, names) = backward_operators(|| loss(&w, &b).backward_with(LEAN).unwrap());
        for leaf in [&w, &b] {
            assert_eq!(plain.get(leaf).unwrap().dtype(), DType::F32);
            assert_eq!(lean.get(leaf).unwrap().to_f64_vec().unwrap(), plain.get(leaf).unwrap().to_f64_vec().unwrap());
        }
        assert_eq!(lean.get(&w).unwrap().dtype(), dtype);
        assert!(lean.get(&w).unwrap().layout().same_order(w.array().layout()));
        // The sum of the bias's two uses is rounded as it is made; nothing is widened.
        assert!(!names.iter().any(|n| n == "cast"), "{names:?}");
    }
}

#[test]
fn a_norm_takes_a_gradient_in_16_bit_as_it_is_with_the_bits_of_its_cast() {
    let kinds =
        [NormKind::Layer { dims: 1 }, NormKind::Rms { dims: 1 }, NormKind::Group { groups: 2 }, NormKind::Batch];
    let acts = [None, Some(Unary::Silu)];
    for (kind, act, dtype) in
        kinds.iter().flat_map(|k| acts.map(|a| (k, a))).flat_map(|(k, a)| [DType::F16, DType::BF16].map(|d| (k, a, d)))
    {
        let gradient = |cast: bool| {
            let x = leaf(&[5, 4, 37]);
            let norm = Norm { kind: *kind, eps: 1e-5, affine: false, act };
            let y = apply(Op::Norm(norm), &[&x]).unwrap();
            if cast {
                y.register_hook(|_| Ok(None)).unwrap();
            }
            let loss = y.cast(dtype).unwrap().square().unwrap().sum(&[], false).unwrap();
            let (grads, names) = backward_operators(|| loss.backward().unwrap());
            assert_eq!(names.iter().filter(|n| *n == "cast").count(), cast as usize, "{names:?}");
            grads.get(&x).unwrap().to_f64_vec().unwrap()
        };
        assert_eq!(gradient(false), gradient(true), "{kind:?} {act:?} {dtype}");
    }
}

#[test]
fn a_hook_sees_the_gradient_in_the_dtype_of_its_tensor() {
    let x = leaf(&[4]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    x.register_hook(move |g| {
        sink.lock().unwrap().push(g.dtype());
        Ok(None)
    })
    .unwrap();
    let y = x.cast(DType::F16).unwrap().square().unwrap().sum(&[], false).unwrap();
    y.backward_with(LEAN).unwrap();
    assert_eq!(*seen.lock().unwrap(), [DType::F32]);
}

#[test]
fn the_backward_kernel_of_a_narrowed_view_still_serves_those_who_run_it() {
    let g = leaf(&[2, 3]);
    let op = Op::Backward(Backward::Narrow { dim: 1, start: 2, shape: [2, 6].try_into().unwrap() });
    let out = binade_tensor::run_one(&op, &[g.array()], g.array().device(), DType::F32, Class::Gradients).unwrap();
    let v = g.array().to_f64_vec().unwrap();
    assert_eq!(out.to_f64_vec().unwrap(), [0.0, 0.0, v[0], v[1], v[2], 0.0, 0.0, 0.0, v[3], v[4], v[5], 0.0]);
}

#[test]
fn an_operator_writes_into_the_memory_order_asked_for_or_refuses() {
    let (a, b) = (leaf(&[2, 3]), leaf(&[2, 3]));
    let device = a.array().device();
    let laid_out = |layout: Layout| {
        let (op, ins) = (Op::Cat { dim: 0 }, [a.array(), b.array()]);
        let request = Request::new(&op, &ins, device, DType::F16, Class::Gradients);
        Ok::<_, binade_tensor::Error>(run(Request { layout: Some(layout), ..request })?.swap_remove(0))
    };
    let columns = Layout::contiguous([3, 4].try_into().unwrap()).permute(&[1, 0]);
    let out = laid_out(columns).unwrap();
    assert_eq!((out.dtype(), *out.layout()), (DType::F16, columns));
    let values = a.array().to_f64_vec().unwrap();
    assert_eq!(out.to_f64_vec().unwrap(), [values.clone(), values].concat());
    let whole = Layout::contiguous([4, 6].try_into().unwrap());
    assert!(laid_out(whole.narrow(1, 0, 3)).is_err() && laid_out(whole).is_err());
}
