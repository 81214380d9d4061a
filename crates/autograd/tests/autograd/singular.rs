//! Second order where a formula has branches, zeros or large numbers: a value wherever the function has one, and zeros
//! where a gradient is constant.

use binade_autograd::{Result, Var, grad, scope};
use binade_cpu as _;
use binade_tensor::op::*;
use binade_tensor::{Array, Class, DType};

fn leaf(dtype: DType, shape: &[usize], values: &[f64]) -> Var {
    let array = Array::from_slice(&scope::device().unwrap(), values, shape, Class::Activations).unwrap();
    Var::leaf(array.cast(dtype, Class::Activations).unwrap())
}

fn numbers(var: &Var) -> Vec<f64> {
    var.array().to_f64_vec().unwrap()
}

/// The gradient of `Σ w·∂(Σ f)/∂x` by x, with weights 1, 2, …
fn second(x: &Var, f: impl Fn(&Var) -> Result<Var>) -> Vec<f64> {
    let first = grad(&f(x).unwrap().sum(&[], false).unwrap(), &[x], None, true).unwrap().remove(0).unwrap();
    let n = x.array().numel();
    let weights = leaf(x.dtype(), x.shape(), &(1..=n).map(|i| i as f64).collect::<Vec<_>>()).detach();
    let weighed = first.mul(&weights).unwrap().sum(&[], false).unwrap();
    numbers(
        &grad(&weighed, &[x], None, false)
            .unwrap()
            .remove(0)
            .expect("a gradient is a function of what it was taken by"),
    )
}

fn assert_close(name: &str, found: &[f64], right: &[f64]) {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * b.abs().max(1e-3);
    assert!(found.len() == right.len() && found.iter().zip(right).all(close), "{name}: {found:?} instead of {right:?}");
}

#[test]
fn a_constant_gradient_has_the_derivative_zero() {
    let x = leaf(DType::F32, &[3], &[-1.5, 0.5, 2.0]);
    let t = leaf(DType::F32, &[3], &[1.0, 1.0, -1.0]).detach();
    let w = leaf(DType::F32, &[2, 3], &[0.5, -1.0, 2.0, 1.0, 0.3, -0.2]).detach();
    type Case<'a> = (&'a str, &'a dyn Fn(&Var) -> Result<Var>);
    let cases: &[Case<'_>] = &[
        ("relu", &|x| x.relu()),
        ("relu6", &|x| x.unary(Unary::Relu6)),
        ("hardsigmoid", &|x| x.unary(Unary::Hardsigmoid)),
        ("abs", &|x| x.abs()),
        ("neg", &|x| x.neg()),
        ("sign", &|x| x.unary(Unary::Sign)),
        ("floor", &|x| x.floor()),
        ("add", &|x| x + 1.0),
        ("mul", &|x| x * 3.0),
        ("clamp", &|x| x.clamp(Some(-1.0), Some(1.0))),
        ("hardtanh", &|x| x.hardtanh(-1.0, 1.0)),
        ("leaky_relu", &|x| x.leaky_relu_with(0.1)),
        ("maximum", &|x| x.maximum(&t)),
        ("where", &|x| x.where_(&t.compare_scalar(Compare::Gt, 0.0)?, &t)),
        ("masked_fill", &|x| x.masked_fill(&t.compare_scalar(Compare::Gt, 0.0)?, 2.0)),
        ("amax", &|x| x.amax(&[0], false)),
        ("max_dim", &|x| Ok(x.max_dim(0, false)?.0)),
        ("sort", &|x| Ok(x.sort(0, true)?.0)),
        ("cumsum", &|x| x.cumsum(0)),
        ("mean", &|x| x.mean(&[], false)),
        ("1-norm", &|x| x.vector_norm(1.0, &[], false)),
        ("maximum norm", &|x| x.vector_norm(f64::INFINITY, &[], false)),
        ("linear", &|x| x.linear(&w, None, None)),
        ("linear with ReLU", &|x| x.linear(&w, None, Some(Unary::Relu))),
        ("linear of ReLU", &|x| x.linear_of(Unary::Relu, &w, None)),
        ("frozen ReLU net", &|x| {
            x.linear(&w, None, Some(Unary::Relu))?.linear(&w.transpose(0, 1)?, None, Some(Unary::Relu))
        }),
        ("l1_loss", &|x| x.l1_loss(&t, Reduction::Mean)),
        ("hinge", &|x| x.hinge_embedding_loss(&t, 1.0, Reduction::Sum)),
        ("margin_ranking", &|x| x.margin_ranking_loss(&t, &t, 0.5, Reduction::Mean)),
        ("max_pool", &|x| x.unsqueeze(0)?.unsqueeze(0)?.max_pool1d(2, 1, 0)),
        ("narrow", &|x| x.narrow(0, 1, 2)),
    ];
    for (name, f) in cases {
        assert_close(name, &second(&x, f), &[0.0; 3]);
    }
}

#[test]
fn a_penalty_on_a_frozen_relu_net_has_the_gradient_zero() {
    let x = leaf(DType::F32, &[2, 3], &[-1.5, 0.5, 2.0, 0.3, -0.7, 1.1]);
    let w = leaf(DType::F32, &[4, 3], &[0.5, -1.0, 2.0, 1.0, 0.3, -0.2, -0.4, 0.9, 0.1, 0.2, 0.2, 0.3]).detach();
    let v = leaf(DType::F32, &[1, 4], &[1.0, -2.0, 0.5, 0.7]).detach();
    let y = x.linear(&w, None, Some(Unary::Relu)).unwrap().linear(&v, None, None).unwrap();
    let gx = grad(&y.sum(&[], false).unwrap(), &[&x], None, true).unwrap().remove(0).unwrap();
    let gap = (&gx.vector_norm(2.0, &[1], false).unwrap() - 1.0).unwrap();
    let gradients = gap.square().unwrap().mean(&[], false).unwrap().backward().unwrap();
    assert_eq!(gradients.get(&x).expect("zeros are a value").to_f64_vec().unwrap(), [0.0; 6]);
}

#[test]
fn a_penalty_through_frozen_weights_reaches_the_curvature_of_the_activation() {
    for row in [Unary::Gelu, Unary::Silu, Unary::Tanh, Unary::LogSigmoid] {
        for bias in [false, true] {
            let w = leaf(DType::F64, &[2, 3], &[0.5, -1.0, 2.0, 1.0, 0.3, -0.2]).detach();
            let b = bias.then(|| leaf(DType::F64, &[2], &[0.3, -0.1]).detach());
            let x = leaf(DType::F64, &[1, 3], &[-0.5, 0.5, 0.7]);
            let fused = second(&x, |x| x.linear(&w, b.as_ref(), Some(row)));
            let plain = second(&x, |x| x.linear(&w, b.as_ref(), None)?.unary(row));
            assert!(plain.iter().any(|v| v.abs() > 0.1), "{plain:?}");
            assert_close(row.name(), &fused, &plain);
        }
    }
}

#[test]
fn every_elementwise_row_has_a_second_derivative_at_zero_and_far_away() {
    let mut wrong = Vec::new();
    for &row in Unary::ALL {
        let f = |x: &Var| x.unary(row);
        for x in [
            0.0_f64, 1.0, -1.0, 3.0, -3.0, 6.0, 21.0, -21.0, 41.0, -41.0, 95.0, -95.0, 2e4, -2e4, 3e19, -3e19, 1e30,
            -1e30,
        ] {
            // Differences of an oscillation say nothing there.
            if x.abs() < 1e4 || !matches!(row, Unary::Sin | Unary::Cos | Unary::Tan) {
                wrong.extend(compared(row.name(), x, f));
            }
        }
    }
    for &row in Binary::ALL {
        for number in [0.0, 1.0, 2.0, 3.0, 0.5, -1.0] {
            for x in [0.0_f64, 0.5, -0.5, 21.0, 95.0, -95.0, 2e4, -2e4, 1e30, -1e30] {
                let names = [false, true].map(|reversed| format!("{} with {number}, reversed: {reversed}", row.name()));
                // These take a positive second operand.
                let positive = matches!(row, Binary::Celu | Binary::Softplus);
                if !positive || number > 0.0 {
                    wrong.extend(compared(&names[0], x, |x| x.scalar(row, number, false)));
                }
                if !positive || x > 0.0 {
                    wrong.extend(compared(&names[1], x, |x| x.scalar(row, number, true)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where function and gradient are finite in f32 and the gradient's difference quotient in f64 is, the second
/// derivative must be near it; what is wrong if it is not.
fn compared(name: &str, at: f64, f: impl Fn(&Var) -> Result<Var>) -> Option<String> {
    let first = |dtype: DType, at: f64| {
        let x = leaf(dtype, &[1], &[at]);
        numbers(
            &grad(&f(&x).unwrap(), &[&x], Some(&leaf(dtype, &[1], &[1.0]).detach()), false).unwrap().remove(0).unwrap(),
        )[0]
    };
    let value = numbers(&f(&leaf(DType::F32, &[1], &[at])).unwrap())[0];
    let step = 1e-4 * at.abs().max(1e-3);
    let slope = |step: f64| (first(DType::F64, at + step) - first(DType::F64, at)) / step;
    let [before, after, nearer] = [slope(-step), slope(step), slope(step / 8.0)];
    // A kink, a pole or a function that ends here has no second derivative.
    let alike = |a: f64, b: f64| (a - b).abs() <= 0.02 * (a.abs() + b.abs()) + 1e-9;
    if !alike(before, after)
        || !alike(after, nearer)
        || !value.is_finite()
        || !first(DType::F32, at).is_finite()
        || before.abs() > 1e38
    {
        return None;
    }
    let found = second(&leaf(DType::F32, &[1], &[at]), &f)[0];
    let right = (before + after) / 2.0;
    let close = (found - right).abs() <= 0.03 * right.abs() + 1e-4;
    (!close).then(|| format!("{name} at {at}: {found} instead of {right}"))
}

#[test]
fn norms_at_elements_of_zero() {
    let x = leaf(DType::F32, &[3], &[0.0, 3.0, 4.0]);
    // ∂²‖x‖/∂x² = (I − x̂x̂ᵀ)/‖x‖, times (1, 2, 3).
    let right = [0.2, (2.0 - 0.6 * 3.6) / 5.0, (3.0 - 0.8 * 3.6) / 5.0];
    assert_close("2-norm", &second(&x, |x| x.vector_norm(2.0, &[], false)), &right);
    let nothing = leaf(DType::F32, &[3], &[0.0; 3]);
    for p in [1.0, 2.0, 3.0, 1.5] {
        assert_close("norm of zeros", &second(&nothing, |x| x.vector_norm(p, &[], false)), &[0.0; 3]);
    }
    assert!(second(&x, |x| x.vector_norm(1.5, &[], false)).iter().all(|v| v.is_finite()));
    let row = leaf(DType::F64, &[1, 3], &[0.0, 3.0, 4.0]);
    let near = leaf(DType::F64, &[1, 3], &[1e-7, 3.0, 4.0]);
    let other = leaf(DType::F64, &[1, 3], &[1.0, -2.0, 0.0]).detach();
    let normalize = |x: &Var| x.normalize(2.0, 1, 1e-12)?.mul(&other);
    let cosine = |x: &Var| x.cosine_similarity(&other, 1, 1e-8);
    for (name, at, beside) in [
        ("normalize", second(&row, normalize), second(&near, normalize)),
        ("cosine", second(&row, cosine), second(&near, cosine)),
    ] {
        assert_close(name, &at, &beside);
        assert!(at[0].abs() > 1e-3, "{name}: {at:?}");
    }
}

#[test]
fn products_with_zeros() {
    let x = |zeros: &[f64]| leaf(DType::F32, &[4], zeros);
    // ∂²Πx/∂xᵢ∂xⱼ is the product of the other two.
    let hessian = |v: &[f64]| -> Vec<f64> {
        let others = |i: usize, j: usize| (0..4).filter(|k| *k != i && *k != j).map(|k| v[k]).product::<f64>();
        (0..4).map(|i| (0..4).filter(|j| *j != i).map(|j| (j + 1) as f64 * others(i, j)).sum()).collect()
    };
    for v in [[2.0, 0.0, 3.0, 5.0], [0.0, 2.0, 0.0, 5.0], [0.0; 4], [2.0, 3.0, 4.0, 5.0]] {
        assert_close("prod", &second(&x(&v), |x| x.prod(&[], false)), &hessian(&v));
        let square = leaf(DType::F32, &[2, 2], &v);
        assert_close("prod of rows and columns", &second(&square, |x| x.prod(&[1, 0], false)), &hessian(&v));
        // Of the last running product alone the same.
        assert_close("cumprod", &second(&x(&v), |x| x.cumprod(0)?.narrow(0, 3, 1)), &hessian(&v));
    }
    let all = |v: &[f64]| second(&leaf(DType::F64, &[4], v), |x| x.cumprod(0));
    assert_close("cumprod", &all(&[2.0, 0.0, 3.0, 5.0]), &all(&[2.0, 1e-12, 3.0, 5.0]));
    assert_close("cumprod", &all(&[0.0, 0.0, 3.0, 5.0]), &all(&[1e-12, -1e-12, 3.0, 5.0]));
}

#[test]
fn losses_at_their_kinks_and_limits() {
    let x = leaf(DType::F32, &[4], &[0.0, 95.0, -95.0, 1.0]);
    let t = leaf(DType::F32, &[4], &[1.0, 0.0, 1.0, 1.0]).detach();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let right = [0.25, 0.0, 0.0, 4.0 * sigmoid(1.0) * (1.0 - sigmoid(1.0))];
    assert_close("bce_with_logits", &second(&x, |x| x.bce_with_logits(&t, None, None, Reduction::Sum)), &right);
    let labels = leaf(DType::F32, &[4], &[1.0, -1.0, 1.0, -1.0]).detach();
    assert_close("soft_margin", &second(&x, |x| x.soft_margin_loss(&labels, Reduction::Sum)), &right);
    for loss in [Loss::SmoothL1, Loss::Huber] {
        assert_close(
            loss.name(),
            &second(&leaf(DType::F32, &[2], &[0.5, 3.0]), |x| {
                x.loss(&x.detach().full_like(&[2], 0.0)?, loss, 1.0, Reduction::Sum)
            }),
            &[1.0, 0.0],
        );
    }
    let same = leaf(DType::F32, &[2], &[1.0, 2.0]);
    assert_close(
        "smooth_l1 of width 0",
        &second(&same, |x| x.smooth_l1_loss(&x.detach(), 0.0, Reduction::Sum)),
        &[0.0; 2],
    );
    assert_close("l1", &second(&same, |x| x.l1_loss(&x.detach(), Reduction::Sum)), &[0.0; 2]);
    let p = leaf(DType::F32, &[3], &[0.0, 0.5, 1.0]).detach();
    let target = leaf(DType::F32, &[3], &[0.0, 0.5, 1.0]);
    assert!(second(&target, |t| p.bce(t, None, Reduction::Sum)).iter().all(|v| *v == 0.0));
    // The slope by the target is ln t − x + 1, and 0 where t is.
    assert_close(
        "kl_div",
        &second(&target, |t| p.kl_div(t, false, binade_autograd::KlReduction::By(Reduction::Sum))),
        &[0.0, 4.0, 3.0],
    );
}

#[test]
fn a_tensor_that_is_several_operands_counts_each_of_them_once() {
    let x = leaf(DType::F64, &[2], &[1.5, -0.5]);
    // x + 2x²
    let found = second(&x, |x| x.addcmul(x, x, 2.0));
    assert_close("addcmul", &found, &[4.0, 8.0]);
    let g = leaf(DType::F64, &[2], &[0.7, 0.2]);
    let first = grad(&x.neg().unwrap(), &[&x], Some(&g), true).unwrap().remove(0).unwrap();
    let by_g = grad(&first.sum(&[], false).unwrap(), &[&g], None, false).unwrap().remove(0).unwrap();
    assert_eq!(numbers(&by_g), [-1.0, -1.0]);
}

#[test]
fn an_input_that_the_output_never_saw_has_no_gradient() {
    let (x, w) = (leaf(DType::F32, &[1], &[2.0]), leaf(DType::F32, &[1], &[3.0]));
    let y = x.square().unwrap();
    assert!(grad(&y, &[&w], None, true).unwrap()[0].is_none());
}
