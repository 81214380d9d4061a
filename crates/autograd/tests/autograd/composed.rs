//! Methods of several operators on 16-bit operands: computed in f32 and rounded once, value and gradients.

use binade_autograd::{KlReduction, Result, Rotary, Var, scope};
use binade_cpu as _;
use binade_tensor::format::Format;
use binade_tensor::op::*;
use binade_tensor::testing::assert_within_ulps;
use binade_tensor::{Array, Class, DType, Key, Op, Shape, run_one};

fn drawn(dtype: DType, shape: &[usize], stream: u64, mean: f64, std: f64) -> Array {
    let op = Op::Random {
        distribution: Distribution::Normal { mean, std },
        shape: Shape::new(shape).unwrap(),
        key: Key::new(3, stream),
    };
    let array = run_one(&op, &[], &scope::device().unwrap(), DType::F32, Class::Activations).unwrap();
    array.cast(dtype, Class::Activations).unwrap()
}

fn from(dtype: DType, shape: &[usize], values: &[f64]) -> Array {
    let array = Array::from_slice(&scope::device().unwrap(), values, shape, Class::Activations).unwrap();
    array.cast(dtype, Class::Activations).unwrap()
}

/// Value and gradients of `Σ y·(1, 2, …)`.
fn run(f: &dyn Fn(&[Var]) -> Result<Var>, inputs: &[Array]) -> Vec<Array> {
    let leaves: Vec<Var> = inputs.iter().map(|a| Var::leaf(a.clone())).collect();
    let y = f(&leaves).unwrap();
    let upstream: Vec<f64> = (0..y.array().numel()).map(|i| (1 + i % 4) as f64).collect();
    let gradients = y.backward_with(&from(y.dtype(), y.shape(), &upstream)).unwrap();
    std::iter::once(y.array().clone()).chain(leaves.iter().filter_map(|v| gradients.get(v).cloned())).collect()
}

/// Compares with the same in f64 on the same numbers. A sum of parts that cancel is off by an f32 rounding of the
/// largest part, which the f64 result does not show: numbers below a thousandth of the largest are compared with that.
fn check(name: &str, f: impl Fn(&[Var]) -> Result<Var>, inputs: impl Fn(DType) -> Vec<Array>) {
    for (dtype, format) in [(DType::F16, Format::F16), (DType::BF16, Format::BF16)] {
        let given = inputs(dtype);
        let exact: Vec<Array> = given.iter().map(|a| a.cast(DType::F64, Class::Activations).unwrap()).collect();
        for (i, (found, exact)) in run(&f, &given).iter().zip(run(&f, &exact)).enumerate() {
            assert_eq!(found.dtype(), dtype, "{name}: output {i}");
            let exact = exact.to_f64_vec().unwrap();
            let largest = exact.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            for (found, exact) in found.to_f64_vec().unwrap().into_iter().zip(exact) {
                if exact.abs() < 1e-3 * largest {
                    assert!(
                        (found - exact).abs() <= 1e-5 * largest,
                        "{name} [{dtype}] {i}: {found} instead of {exact}"
                    );
                } else if let Err(error) = assert_within_ulps(format, found, exact, 0.6) {
                    panic!("{name} [{dtype}] {i}: {error}");
                }
            }
        }
    }
}

#[test]
fn methods_of_several_operators_round_once() {
    let one = |d| vec![drawn(d, &[3, 8], 1, 0.0, 1.0)];
    let pair = |d| vec![drawn(d, &[3, 8], 1, 0.2, 1.0), drawn(d, &[3, 8], 2, 0.1, 1.0)];
    check("normalize", |v| v[0].normalize(2.0, 1, 1e-12), one);
    check("cosine_similarity", |v| v[0].cosine_similarity(&v[1], 1, 1e-8), pair);
    check("glu", |v| v[0].glu(1), one);
    check("swiglu", |v| v[0].swiglu(1), one);
    for pairs in [Rotary::Halves, Rotary::Interleaved] {
        // The tables of sines and cosines are f32 by design.
        check("rotary", |v| v[0].rotary(5, 10000.0, pairs), |d| vec![drawn(d, &[1, 4, 6], 1, 0.0, 1.0)]);
    }
    let image = |d| vec![drawn(d, &[1, 2, 5, 4], 1, 0.0, 1.0)];
    let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
    check("unfold", |v| v[0].unfold([3, 3], conv), image);
    check("fold", |v| v[0].fold([5, 4], [3, 3], conv), |d| vec![drawn(d, &[1, 18, 20], 1, 0.0, 1.0)]);
    check("adaptive_max_pool", |v| v[0].adaptive_max_pool(&[3, 3]), image);
    let drops = |v: &[Var]| scope::with_key(1, 1, || scope::train(|| v[0].dropout_channels(0.3)));
    check("dropout_channels", drops, |d| vec![drawn(d, &[4, 6, 3], 1, 0.0, 1.0)]);
}

#[test]
fn losses_of_several_operators_round_once() {
    let pair = |d| vec![drawn(d, &[3, 8], 1, 0.2, 1.0), drawn(d, &[3, 8], 2, 0.1, 1.0)];
    let labels = |v: &Var| v.detach().unary(Unary::Sign);
    let mean = Reduction::Mean;
    check("margin_ranking", |v| v[0].margin_ranking_loss(&v[1], &labels(&v[0])?, 0.3, mean), pair);
    let three = |d| [pair(d), vec![drawn(d, &[3, 8], 3, 0.0, 1.0)]].concat();
    for p in [2.0, 1.0, 3.0] {
        check("triplet", |v| v[0].triplet_margin_loss(&v[1], &v[2], 1.0, p, Reduction::Sum), three);
    }
    let alike = |v: &[Var]| labels(&v[0].narrow(1, 0, 1)?.squeeze(1)?);
    check("cosine_embedding", |v| v[0].cosine_embedding_loss(&v[1], &alike(v)?, 0.1, Reduction::None), pair);
    check(
        "gaussian_nll",
        |v| v[0].gaussian_nll_loss(&v[1].detach(), &v[2], 1e-6, mean),
        |d| [pair(d), vec![drawn(d, &[3, 8], 3, 2.0, 0.2)]].concat(),
    );
    let counted = |d| vec![drawn(d, &[4], 1, 0.2, 1.0), from(d, &[4], &[0.0, 1.0, 2.0, 5.0])];
    check("poisson_nll", |v| v[0].poisson_nll_loss(&v[1].detach(), true, true, 1e-8, mean), counted);
    let weighted = |v: &[Var]| {
        let [t, weight, positive] = [1, 2, 3].map(|i| v[i].detach());
        v[0].bce_with_logits(&t, Some(&weight), Some(&positive), mean)
    };
    let rows: [&[f64]; 4] =
        [&[0.5, -1.25, 2.0, -0.75], &[1.0, 0.0, 0.5, 1.0], &[1.0, 2.0, 0.5, 3.0], &[2.0, 0.7, 1.5, 4.0]];
    check("bce_with_logits", weighted, |d| rows.iter().map(|row| from(d, &[4], row)).collect());
    let sum = |v: &[Var]| v[0].kl_div(&v[1].detach(), false, KlReduction::BatchMean);
    check("kl_div", sum, |d| vec![drawn(d, &[4, 8], 1, -2.0, 0.5), from(d, &[4, 8], &[0.125; 32])]);
    let classes = Array::from_slice(&scope::device().unwrap(), &[2i64, 0, 1], &[3], Class::Indices).unwrap();
    let nll = |v: &[Var]| v[0].nll_loss(&Var::constant(classes.clone()), Some(&v[1].detach()), -100, mean);
    check("nll_loss", nll, |d| vec![drawn(d, &[3, 4], 1, -2.0, 0.5), from(d, &[4], &[0.3, 1.7, 0.9, 2.0])]);
}

#[test]
fn a_triplet_whose_positive_is_its_anchor_has_a_finite_gradient() {
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let inputs = [
            from(dtype, &[1, 3], &[0.5, 1.0, -2.0]),
            from(dtype, &[1, 3], &[0.5, 1.0, -2.0]),
            from(dtype, &[1, 3], &[0.6, 1.0, -2.0]),
        ];
        let found = run(&|v| v[0].triplet_margin_loss(&v[1], &v[2], 1.0, 2.0, Reduction::Mean), &inputs);
        for array in found {
            assert!(array.to_f64_vec().unwrap().iter().all(|v| v.is_finite()), "{dtype}: {array:?}");
        }
    }
}

#[test]
fn methods_are_right_over_the_whole_range() {
    let sizes = [
        (DType::F32, vec![2f64.powi(-149), 1e-42, 1e-30, 1e30, 6e37]),
        (DType::BF16, vec![2f64.powi(-133), 1e-30, 1e30, 6e37]),
        (DType::F16, vec![2f64.powi(-24), 1e4]),
        (DType::F64, vec![5e-324, 1e-310, 1e-200, 1e200, 3e307]),
    ];
    let numbers = [3.0, -4.0, 0.0, 5.0];
    for (dtype, sizes) in sizes {
        let tolerance = 2.0 * dtype.format().unwrap().epsilon();
        for size in sizes {
            let x = Var::leaf(from(dtype, &[1, 4], &numbers.map(|v| v * size)));
            let values = x.array().to_f64_vec().unwrap().into_iter().map(|v| v / size).collect::<Vec<f64>>();
            let length = values.iter().map(|v| v * v).sum::<f64>().sqrt();
            let check = |name: &str, y: Result<Var>, right: &[f64]| {
                let found = y.unwrap().array().to_f64_vec().unwrap();
                let close = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * b.abs().max(1.0);
                assert!(found.iter().zip(right).all(close), "{name} {dtype} {size:e}: {found:?}, not {right:?}");
            };
            let unit: Vec<f64> = values.iter().map(|v| v / length).collect();
            check("normalize", x.normalize(2.0, 1, 0.0), &unit);
            check("cosine_similarity", x.cosine_similarity(&x.detach(), 1, 0.0), &[1.0]);
            let counted: Vec<f64> = values.iter().map(|v| v * size / 3.0).collect();
            check("normalize by the number of elements that are not 0", x.normalize(0.0, 1, 0.0), &counted);
            if size >= 1.0 {
                let label = Var::constant(from(dtype, &[1], &[1.0]));
                let loss = x.cosine_embedding_loss(&x.neg().unwrap(), &label, 0.0, Reduction::None).unwrap();
                check("cosine_embedding", Ok(loss.clone()), &[2.0]);
                let gradient = loss.sum(&[], false).unwrap().backward().unwrap();
                assert!(gradient.get(&x).unwrap().to_f64_vec().unwrap().iter().all(|v| v.is_finite()), "{dtype}");
            }
        }
    }
    let ends = |v: &[f64]| Var::constant(from(DType::F32, &[1, v.len()], v)).normalize(2.0, 1, 1e-12).unwrap();
    assert_eq!(ends(&[0.0, 0.0]).array().to_f64_vec().unwrap(), [0.0, 0.0]);
    let infinite = ends(&[f64::INFINITY, 4.0]).array().to_f64_vec().unwrap();
    assert!(infinite[0].is_nan() && infinite[1] == 0.0, "{infinite:?}");
}

#[test]
fn losses_of_what_is_not_finite_or_at_a_limit() {
    let of = |values: &[f64]| Var::leaf(from(DType::F32, &[values.len()], values));
    let numbers = |y: Result<Var>| y.unwrap().array().to_f64_vec().unwrap();
    let none = Reduction::None;
    // A variance below the limit counts as the limit, and gets its gradient; an infinite one is infinitely unlikely.
    let (x, t, v) = (of(&[1.0; 4]), of(&[1.5; 4]).detach(), of(&[1e-30, -1000.0, f64::INFINITY, 0.5]));
    let likelihood = x.gaussian_nll_loss(&t, &v, 0.25, none).unwrap();
    let at_limit = 0.5 * (0.25f64.ln() + 1.0);
    let right = [at_limit, at_limit, f64::INFINITY, 0.5 * (0.5f64.ln() + 0.5)];
    for (found, right) in numbers(Ok(likelihood.clone())).into_iter().zip(right) {
        assert!(found == right || (found - right).abs() < 1e-6, "{found} instead of {right}");
    }
    let by_variance = likelihood.sum(&[], false).unwrap().backward().unwrap().get(&v).unwrap().to_f64_vec().unwrap();
    assert_eq!(by_variance[..2], [0.0; 2], "½(1/v − d²/v²)");
    // A label that is NaN is neither.
    let pair = Var::constant(from(DType::F32, &[1, 2], &[1.0, 2.0]));
    assert!(numbers(pair.cosine_embedding_loss(&pair, &of(&[f64::NAN]), 0.0, none))[0].is_nan());
    let by_integer =
        Var::constant(Array::from_slice(&scope::device().unwrap(), &[1i64], &[1], Class::Indices).unwrap());
    assert!(numbers(pair.cosine_embedding_loss(&pair, &by_integer, 0.0, none))[0].abs() < 1e-6);
}
