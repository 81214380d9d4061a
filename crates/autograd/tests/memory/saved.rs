//! What is not saved for the backward pass because saved values determine it: the bits, the memory and the errors are
//! as if it were.

use binade_autograd::{Backward, Error, Result, Var, scope};
use binade_cpu as _;
use binade_tensor::op::{Conv2d, Distribution, NormKind, Unary};
use binade_tensor::{Array, Class, DType, Key, Op, Shape, run_one};

use crate::alone;

fn live() -> usize {
    let stats = scope::device().unwrap().memory();
    [Class::Activations, Class::Casts].into_iter().map(|class| stats.live(class)).sum()
}

fn normal(shape: &[usize], seed: u64, dtype: DType) -> Array {
    let distribution = Distribution::Normal { mean: 0.25, std: 1.0 };
    let op = Op::Random { distribution, shape: Shape::new(shape).unwrap(), key: Key::new(seed, 1) };
    run_one(&op, &[], &scope::device().unwrap(), dtype, Class::Weights).unwrap()
}

fn leaf(shape: &[usize], seed: u64, dtype: DType) -> Var {
    Var::leaf(normal(shape, seed, dtype))
}

/// `[6, 32, 5, 4]` with weights `[32]` and `[32]`, of which a value is made that needs not be saved.
type Make = fn(&Var, &Var, &Var) -> Result<Var>;

fn makers() -> Vec<(&'static str, Make)> {
    fn norm(x: &Var, w: &Var, b: &Var, kind: NormKind, act: Option<Unary>) -> Result<Var> {
        x.norm(kind, Some((w, b)), None, 1e-5, act).map(|(y, _)| y)
    }
    vec![
        ("gelu", |x, _, _| x.gelu()),
        ("silu of a product with itself", |x, _, _| x.mul(x)?.silu()),
        ("gate", |x, _, _| x.silu()?.mul(x)),
        ("batch norm", |x, w, b| norm(x, w, b, NormKind::Batch, None)),
        ("batch norm, relu", |x, w, b| norm(x, w, b, NormKind::Batch, Some(Unary::Relu))),
        ("group norm, silu", |x, w, b| norm(x, w, b, NormKind::Group { groups: 4 }, Some(Unary::Silu))),
        ("layer norm over the last dimension", |x, w, b| {
            norm(&x.permute(&[0, 2, 3, 1])?, w, b, NormKind::Layer { dims: 1 }, None)?.permute(&[0, 3, 1, 2])
        }),
        ("layer norm, tanh", |x, w, b| {
            norm(&x.permute(&[0, 2, 3, 1])?, w, b, NormKind::Layer { dims: 1 }, Some(Unary::Tanh))?
                .permute(&[0, 3, 1, 2])
        }),
        ("rms norm", |x, w, _| x.permute(&[0, 2, 3, 1])?.rms_norm(1, Some(w), 1e-6)?.permute(&[0, 3, 1, 2])),
        ("norm, rounded and reshaped", |x, w, b| {
            norm(x, w, b, NormKind::Batch, None)?.cast(DType::BF16)?.reshape(&[6, 32, 4, 5])
        }),
        ("gelu of a norm", |x, w, b| norm(x, w, b, NormKind::Batch, None)?.gelu()),
    ]
}

/// Gradients by x, the maker's weights, and the weights of two convolutions that use the value; and the bytes that
/// waited for them.
fn gradients(make: Make, dtype: DType, keep: bool) -> (Vec<Vec<f64>>, usize) {
    let (x, w, b) = (leaf(&[6, 32, 5, 4], 1, dtype), leaf(&[32], 2, DType::F32), leaf(&[32], 3, DType::F32));
    let before = live();
    let y = make(&x, &w, &b).unwrap();
    let kernels = [leaf(&[8, 32, 3, 3], 4, y.dtype()), leaf(&[8, 32, 3, 3], 5, y.dtype())];
    let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
    let [first, second] = kernels.each_ref().map(|k| y.conv2d(k, None, conv, None).unwrap());
    let kept = keep.then(|| y.clone());
    drop(y);
    let loss = first.mul(&second).unwrap().sum(&[], false).unwrap();
    let waiting = live() - before;
    let gradients = loss.backward().unwrap();
    drop(kept);
    let of = |v: &Var| gradients.get(v).map(|g| g.to_f64_vec().unwrap()).unwrap_or_default();
    ([&x, &w, &b, &kernels[0], &kernels[1]].map(of).to_vec(), waiting)
}

#[test]
fn gradients_have_the_bits_they_have_when_the_value_is_kept() {
    let _alone = alone();
    for (name, make) in makers() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (again, kept) = (gradients(make, dtype, false).0, gradients(make, dtype, true).0);
            assert!(again[0].iter().any(|g| *g != 0.0), "{name}: the gradient is there");
            assert!(again == kept, "{name}, {dtype}");
        }
    }
}

#[test]
fn the_value_takes_no_memory_between_the_passes() {
    let _alone = alone();
    let elements = 6 * 32 * 5 * 4;
    for (name, make) in makers() {
        let (again, kept) = (gradients(make, DType::F32, false).1, gradients(make, DType::F32, true).1);
        let size = if name.contains("rounded") { 2 } else { 4 };
        assert!(kept >= again + elements * size, "{name}: {again} bytes wait, {kept} with the value");
    }
}

/// A small product, one that tiles serve, and with them tables of 16-bit functions.
const PRODUCTS: [[usize; 4]; 2] = [[64, 48, 40, 24], [512, 96, 160, 64]];

#[test]
fn a_fused_activation_is_made_again_from_its_argument_as_it_was_rounded() {
    let _alone = alone();
    for ([n, k, hidden, m], dtype) in
        PRODUCTS.into_iter().flat_map(|p| [(p, DType::F32), (p, DType::F16), (p, DType::BF16)])
    {
        let (x, w, v) = (leaf(&[n, k], 1, dtype), leaf(&[hidden, k], 2, dtype), leaf(&[m, hidden], 3, dtype));
        let of = |h: Var, keep: bool| {
            let y = h.linear(&v, None, None).unwrap();
            let kept = keep.then(|| h.clone());
            drop(h);
            let gradients = y.backward_with(&normal(&[n, m], 4, dtype)).unwrap();
            drop(kept);
            gradients.get(&v).unwrap().to_f64_vec().unwrap()
        };
        let fused = || x.linear(&w, None, Some(Unary::Gelu)).unwrap();
        // Bits do not depend on who else keeps the value, in 16 bit either.
        assert!(of(fused(), false) == of(fused(), true), "{dtype}, {n} rows");
        // By hand: the argument in T, its activation, the product.
        let argument = Var::constant(x.array().clone()).linear(&Var::constant(w.array().clone()), None, None).unwrap();
        assert!(of(fused(), false) == of(argument.gelu().unwrap(), true), "{dtype}, {n} rows, by hand");
    }
}

#[test]
fn a_product_reads_an_activation_from_its_argument_with_the_same_bits() {
    let _alone = alone();
    for ([n, k, _, m], dtype) in PRODUCTS.into_iter().flat_map(|p| [(p, DType::F32), (p, DType::F16), (p, DType::BF16)])
    {
        for act in [Unary::Gelu, Unary::Silu, Unary::Abs, Unary::Sin] {
            let (x, v) = (leaf(&[n, k], 1, dtype), leaf(&[m, k], 3, dtype));
            let gradient = |keep: bool| {
                let h = binade_autograd::apply(Op::Unary(act), &[&x]).unwrap();
                let kept = keep.then(|| h.clone());
                let y = h.linear(&v, None, None).unwrap();
                drop(h);
                let gradients = y.backward_with(&normal(&[n, m], 4, dtype)).unwrap();
                drop(kept);
                [&x, &v].map(|leaf| gradients.get(leaf).unwrap().to_f64_vec().unwrap())
            };
            assert!(gradient(false) == gradient(true), "{act:?}, {dtype}, {n} rows");
        }
    }
}

#[test]
fn a_product_of_an_activation_saves_its_argument_alone_and_has_the_bits_of_both() {
    let _alone = alone();
    for ([n, k, _, m], dtype) in PRODUCTS.into_iter().flat_map(|p| [(p, DType::F32), (p, DType::F16), (p, DType::BF16)])
    {
        let (x, v, b) = (leaf(&[n, k], 1, dtype), leaf(&[m, k], 3, dtype), leaf(&[m], 5, dtype));
        let all = |fused: bool| {
            let y = match fused {
                true => x.linear_of(Unary::Gelu, &v, Some(&b)).unwrap(),
                false => x.gelu().unwrap().linear(&v, Some(&b), None).unwrap(),
            };
            let gradients = y.backward_with(&normal(&[n, m], 4, dtype)).unwrap();
            let mut arrays = vec![y.array().to_f64_vec().unwrap()];
            arrays.extend([&x, &v, &b].map(|leaf| gradients.get(leaf).unwrap().to_f64_vec().unwrap()));
            arrays
        };
        assert!(all(true) == all(false), "{dtype}, {n} rows");
        // The argument is a leaf here: beside the result nothing is kept.
        let before = live();
        let y = x.linear_of(Unary::Gelu, &v, Some(&b)).unwrap();
        assert_eq!(live() - before, y.array().numel() * dtype.size(), "{dtype}, {n} rows");
    }
}

#[test]
fn a_graph_that_is_kept_gives_its_gradient_twice_and_another_time_an_error() {
    let _alone = alone();
    let (x, w) = (leaf(&[16, 24], 1, DType::F32), leaf(&[8, 24], 2, DType::F32));
    let y = x.gelu().unwrap().linear(&w, None, None).unwrap().square().unwrap().sum(&[], false).unwrap();
    let of = |g: binade_autograd::Gradients| g.get(&w).unwrap().to_f64_vec().unwrap();
    let first = of(y.backward_with(Backward { keep_graph: true, ..Backward::default() }).unwrap());
    assert_eq!(first, of(y.backward().unwrap()));
    assert!(matches!(y.backward(), Err(Error::Released { .. })));
}

#[test]
fn an_operand_that_was_changed_in_place_is_a_named_error() {
    let _alone = alone();
    let (x, w) = (leaf(&[16, 24], 1, DType::F32), leaf(&[8, 24], 2, DType::F32));
    let y = x.gelu().unwrap().linear(&w, None, None).unwrap().sum(&[], false).unwrap();
    x.array().copy_from(&normal(&[16, 24], 7, DType::F32)).unwrap();
    assert!(matches!(y.backward(), Err(Error::Changed { .. })));
}

#[test]
fn a_long_chain_of_elementwise_operators_runs_backward_and_is_dropped() {
    let _alone = alone();
    let (x, k) = (
        leaf(&[3], 1, DType::F32),
        Var::leaf(
            Array::full(&scope::device().unwrap(), DType::F32, Shape::new(&[3]).unwrap(), 1.0, Class::Weights).unwrap(),
        ),
    );
    let mut y = x.clone();
    for _ in 0..100_000 {
        y = y.mul(&k).unwrap();
    }
    let gradients =
        y.sum(&[], false).unwrap().backward_with(Backward { keep_graph: true, ..Backward::default() }).unwrap();
    assert_eq!(gradients.get(&x).unwrap().to_f64_vec().unwrap(), [1.0; 3]);
    drop(y);
}

#[test]
fn what_follows_from_a_rounded_argument_does_not_depend_on_who_keeps_it() {
    let _alone = alone();
    let (x, w, v) = (leaf(&[64, 48], 1, DType::BF16), leaf(&[40, 48], 2, DType::BF16), leaf(&[24, 40], 3, DType::BF16));
    let gradient = |keep: bool| {
        let h = x.linear(&w, None, Some(Unary::Gelu)).unwrap();
        let z = h.silu().unwrap();
        let kept = keep.then(|| (h.clone(), z.clone()));
        drop(h);
        let y = z.linear(&v, None, None).unwrap();
        drop(z);
        let gradients = y.backward_with(&normal(&[64, 24], 4, DType::BF16)).unwrap();
        drop(kept);
        [&w, &v].map(|leaf| gradients.get(leaf).unwrap().to_f64_vec().unwrap())
    };
    assert!(gradient(false) == gradient(true));
}

/// Gradients of what follows from a norm of x1 ⊕ branch, twice, and the bytes that wait for them. The anchor x1 is
/// saved by a norm before, or not.
fn residual(sum: Sum, dtype: DType, anchored: bool, keep: bool) -> (Vec<Vec<f64>>, usize) {
    let (x, w) = (leaf(&[48, 64], 1, DType::F32), leaf(&[64, 64], 2, dtype));
    let before = live();
    let x1 = x.sin().unwrap().tanh().unwrap();
    // What the branch is computed from: another tensor if the anchor is not to be saved.
    let from = if anchored { x1.layer_norm(1, None, 1e-5).unwrap() } else { x.clone() };
    let branch = from.cast(dtype).unwrap().linear(&w, None, None).unwrap();
    drop(from);
    let x2 = sum(&x1, &branch).unwrap();
    drop((x1, branch));
    let kept = keep.then(|| x2.clone());
    let y = x2.layer_norm(1, None, 1e-5).unwrap().cast(dtype).unwrap().linear(&w, None, None).unwrap();
    let loss = y.cast(DType::F32).unwrap().add(&x2).unwrap().sin().unwrap().sum(&[], false).unwrap();
    drop((y, x2));
    let waiting = live() - before;
    let gradients = loss.backward_with(Backward { keep_graph: true, ..Backward::default() }).unwrap();
    let of = |g: &binade_autograd::Gradients| [&x, &w].map(|v| g.get(v).unwrap().to_f64_vec().unwrap()).to_vec();
    let first = of(&gradients);
    drop(gradients);
    assert!(first == of(&loss.backward().unwrap()), "a second backward pass has the same bits");
    drop(kept);
    (first, waiting)
}

type Sum = fn(&Var, &Var) -> Result<Var>;

const SUMS: [(&str, Sum); 3] = [("x + p", |x, p| x.add(p)), ("x - p", |x, p| x.sub(p)), ("p - x", |x, p| p.sub(x))];

#[test]
fn of_a_sum_the_narrower_operand_is_saved_where_the_wider_one_is_saved_anyway() {
    let _alone = alone();
    let elements = 48 * 64;
    for (name, sum) in SUMS {
        for dtype in [DType::F16, DType::BF16] {
            let (again, kept) = (residual(sum, dtype, true, false), residual(sum, dtype, true, true));
            assert!(again.0 == kept.0, "{name}, {dtype}: bits");
            assert!(again.0[0].iter().any(|g| *g != 0.0));
            assert_eq!(kept.1, again.1 + 4 * elements, "{name}, {dtype}: the sum itself does not wait");
        }
    }
}

#[test]
fn a_sum_is_saved_itself_where_that_is_not_more() {
    let _alone = alone();
    for (name, sum) in SUMS {
        // Nobody saves the wider operand; the operands are equally wide.
        for (dtype, anchored) in [(DType::BF16, false), (DType::F32, true)] {
            let (again, kept) = (residual(sum, dtype, anchored, false), residual(sum, dtype, anchored, true));
            assert!(again.0 == kept.0, "{name}, {dtype}: bits");
            assert_eq!(kept.1, again.1, "{name}, {dtype}: the sum waits in any case");
        }
    }
}

/// The bytes that wait after a norm of x, and of the sum of x and a branch.
fn waiting_for_sum(x: &Var, branch: impl FnOnce() -> Var) -> usize {
    let first = x.layer_norm(1, None, 1e-5).unwrap();
    let branch = branch();
    let before = live() - branch.array().numel() * branch.dtype().size();
    let sum = x.add(&branch).unwrap();
    drop(branch);
    let second = sum.layer_norm(1, None, 1e-5).unwrap();
    drop(sum);
    let waiting = live() - before;
    drop((first, second));
    waiting
}

#[test]
fn neither_a_broadcast_sum_nor_a_part_of_something_larger_is_kept_for_a_sum() {
    let _alone = alone();
    let (rows, columns) = (32, 64);
    let statistics = 2 * 4 * rows;
    let output = 4 * rows * columns;
    let x = leaf(&[rows, columns], 1, DType::F32).tanh().unwrap();
    let half = |shape: &[usize]| leaf(shape, 2, DType::F32).cast(DType::BF16).unwrap().neg().unwrap();
    assert_eq!(waiting_for_sum(&x, || half(&[rows, columns])), output + 2 * rows * columns + statistics);
    assert_eq!(waiting_for_sum(&x, || half(&[columns])), output + 4 * rows * columns + statistics);
    // A stream in 16 bit, as a policy may ask for, has no narrower part.
    let low = leaf(&[rows, columns], 1, DType::BF16).tanh().unwrap();
    assert_eq!(waiting_for_sum(&low, || half(&[rows, columns])), (2 + 2) * rows * columns + statistics);
    // Twice the branch's own bytes are the view's.
    let part = || half(&[2 * rows, columns]).narrow(0, 0, rows).unwrap();
    assert_eq!(waiting_for_sum(&x, part) + 2 * rows * columns, output + 4 * rows * columns + statistics);
}

#[test]
fn a_sum_is_made_from_an_activation_that_is_made_again_and_from_no_other_sum() {
    let _alone = alone();
    let (rows, columns) = (32, 64);
    let without_a_sum = 4 * rows * columns + 2 * 4 * rows;
    let x = leaf(&[rows, columns], 1, DType::F32).tanh().unwrap();
    let half = || leaf(&[rows, columns], 2, DType::F32).cast(DType::BF16).unwrap();
    assert_eq!(waiting_for_sum(&x, || half().silu().unwrap()), without_a_sum);
    let of_a_sum = || x.add(&half()).unwrap().cast(DType::BF16).unwrap();
    assert_eq!(waiting_for_sum(&x, of_a_sum), without_a_sum + 4 * rows * columns);
}

#[test]
fn of_a_chain_of_sums_every_other_one_is_saved() {
    let _alone = alone();
    let (rows, columns) = (32, 64);
    let mut x = leaf(&[rows, columns], 1, DType::F32).tanh().unwrap();
    let mut norms = vec![x.layer_norm(1, None, 1e-5).unwrap().cast(DType::F16).unwrap()];
    for i in 0..6 {
        let before = live();
        let branch = norms[i].neg().unwrap();
        x = x.add(&branch).unwrap();
        drop(branch);
        norms.push(x.layer_norm(1, None, 1e-5).unwrap().cast(DType::F16).unwrap());
        let statistics_and_norm = 2 * 4 * rows + 2 * rows * columns;
        // The sum before lives no longer; this one does.
        let grown = live() as isize - before as isize - statistics_and_norm as isize;
        let expected = if i % 2 == 0 { 2 + 4 } else { 4 - 4 };
        assert_eq!(grown, expected * (rows * columns) as isize, "sum {i}");
    }
}

#[test]
fn a_sums_operand_that_was_changed_in_place_is_a_named_error() {
    let _alone = alone();
    for which in [0, 1] {
        let x = leaf(&[16, 64], 1, DType::F32).tanh().unwrap();
        let norm = x.layer_norm(1, None, 1e-5).unwrap();
        let branch = norm.cast(DType::BF16).unwrap().neg().unwrap();
        let sum = x.add(&branch).unwrap();
        let y = sum.layer_norm(1, None, 1e-5).unwrap().square().unwrap().sum(&[], false).unwrap();
        drop(sum);
        let changed = [&x, &branch][which];
        changed.array().copy_from(&normal(&[16, 64], 7, DType::F32)).unwrap();
        assert!(matches!(y.backward(), Err(Error::Changed { .. })), "operand {which}");
    }
}

#[test]
fn maximum_pooling_keeps_its_input_and_no_output() {
    let _alone = alone();
    let x = leaf(&[2, 32, 16, 16], 1, DType::F32);
    let before = live();
    let y = x.max_pool2d([2, 2], [2, 2], [0, 0]).unwrap();
    let out = y.array().numel() * 4;
    assert_eq!(live() - before, out);
    let loss = y.sum(&[], false).unwrap();
    drop(y);
    assert!(live() - before < out);
    let gradient = loss.backward().unwrap().get(&x).unwrap().to_f64_vec().unwrap();
    assert_eq!(
        (gradient.iter().sum::<f64>(), gradient.iter().all(|&g| g == 0.0 || g == 1.0)),
        (out as f64 / 4.0, true)
    );
}
