//! Every differentiable operator against central differences in f64; contractions in `gradients_of_contractions.rs`.

use crate::common::check;
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_tensor::op::{Attention, Binary, Conv2d, CrossEntropy, NormKind, Reduction, Unary};
use binade_tensor::{Array, Class, DType, Op, run_one};

/// Normal f64 values, `offset` added.
fn values(shape: &[usize], stream: u64, offset: f64) -> Array {
    crate::common::values(shape, stream, offset, 1.0)
}

fn classes(values: &[i64], shape: &[usize]) -> Array {
    Array::from_slice(&scope::device().unwrap(), values, shape, Class::Indices).unwrap()
}

/// Arguments inside the domain of a function, away from its poles.
fn argument(row: Unary) -> Array {
    let x = values(&[3, 5], 1, 0.0);
    let run =
        |op: Op, x: &Array| run_one(&op, &[x], &scope::device().unwrap(), DType::F64, Class::Activations).unwrap();
    match row {
        Unary::Sqrt
        | Unary::Rsqrt
        | Unary::Log
        | Unary::Log2
        | Unary::Log10
        | Unary::Log1p
        | Unary::Reciprocal
        | Unary::Acosh => values(&[3, 5], 1, 4.5),
        Unary::Asin | Unary::Acos | Unary::Atanh | Unary::Erfinv => {
            let sine = run(Op::Unary(Unary::Sin), &x);
            run(Op::Scalar { op: Binary::Mul, value: 0.9, reversed: false }, &sine)
        }
        _ => x,
    }
}

#[test]
fn every_unary_row_has_the_derivative_of_its_function() {
    for &row in Unary::ALL {
        check(row.name(), &[argument(row)], |v| binade_autograd::apply(Op::Unary(row), &[&v[0]]));
    }
}

#[test]
fn every_binary_row_broadcasts_and_has_its_two_derivatives() {
    for &row in Binary::ALL {
        // A power wants a positive base.
        let (a, b) = (values(&[4, 1, 3], 1, if row == Binary::Pow { 4.0 } else { 0.0 }), values(&[2, 1], 2, 3.0));
        check(row.name(), &[a.clone(), b], |v| binade_autograd::apply(Op::Binary(row), &[&v[0], &v[1]]));
        for reversed in [false, true] {
            let x = values(&[5], 3, 4.0);
            check(row.name(), &[x], |v| v[0].scalar(row, 1.7, reversed));
        }
    }
}

#[test]
fn reductions() {
    let x = values(&[3, 4, 5], 1, 0.0);
    for dims in [&[][..], &[1], &[0, 2], &[-1]] {
        for keepdim in [false, true] {
            check("sum", std::slice::from_ref(&x), |v| v[0].sum(dims, keepdim));
            check("mean", std::slice::from_ref(&x), |v| v[0].mean(dims, keepdim));
            check("amax", std::slice::from_ref(&x), |v| v[0].amax(dims, keepdim));
            check("amin", std::slice::from_ref(&x), |v| v[0].amin(dims, keepdim));
            check("var", std::slice::from_ref(&x), |v| v[0].var(dims, 1.0, keepdim));
        }
    }
}

#[test]
fn contractions_and_their_epilogues() {
    check("matmul", &[values(&[5, 7], 1, 0.0), values(&[7, 3], 2, 0.0)], |v| v[0].matmul(&v[1]));
    check("batched", &[values(&[2, 3, 4, 5], 1, 0.0), values(&[3, 5, 2], 2, 0.0)], |v| v[0].matmul(&v[1]));
    check("shared weight", &[values(&[2, 3, 5], 1, 0.0), values(&[5, 2], 2, 0.0)], |v| v[0].matmul(&v[1]));
    check("vector", &[values(&[4, 5], 1, 0.0), values(&[5], 2, 0.0)], |v| v[0].matmul(&v[1]));
    for act in [None, Some(Unary::Tanh), Some(Unary::Gelu), Some(Unary::Silu)] {
        let ins = [values(&[2, 3, 5], 1, 0.0), values(&[4, 5], 2, 0.0), values(&[4], 3, 0.0)];
        check("linear", &ins, |v| v[0].linear(&v[1], Some(&v[2]), act));
        let ins = [values(&[2, 2, 4, 5], 1, 0.0), values(&[3, 2, 3, 3], 2, 0.0), values(&[3], 3, 0.0)];
        check("conv2d", &ins, |v| {
            v[0].conv2d(&v[1], Some(&v[2]), Conv2d { padding: [1, 1], ..Conv2d::default() }, act)
        });
        for padding in [[1, 1], [1, 0]] {
            let ins = [values(&[2, 3, 4, 5], 1, 0.0), values(&[3, 1, 3, 3], 2, 0.0), values(&[3], 3, 0.0)];
            let conv = Conv2d { padding, groups: 3, ..Conv2d::default() };
            check("depthwise", &ins, |v| v[0].conv2d(&v[1], Some(&v[2]), conv, act));
            check("depthwise without bias", &ins[..2], |v| v[0].conv2d(&v[1], None, conv, act));
        }
    }
    for attention in [Attention::default(), Attention { causal: true, scale: Some(0.3), ..Attention::default() }] {
        let ins = [values(&[2, 5, 3], 1, 0.0), values(&[2, 5, 3], 2, 0.0), values(&[2, 5, 4], 3, 0.0)];
        check("attention", &ins, |v| v[0].attention(&v[1], &v[2], attention));
    }
}

#[test]
fn convolution_geometries() {
    for conv in [
        Conv2d::default(),
        Conv2d { stride: [2, 1], padding: [1, 2], ..Conv2d::default() },
        Conv2d { dilation: [2, 1], padding: [2, 0], ..Conv2d::default() },
        Conv2d { groups: 2, padding: [1, 1], ..Conv2d::default() },
        Conv2d { groups: 4, stride: [2, 2], ..Conv2d::default() },
        Conv2d { padding: [3, 3], ..Conv2d::default() },
    ] {
        let ins = [values(&[2, 4, 6, 5], 1, 0.0), values(&[4, 4 / conv.groups, 3, 2], 2, 0.0)];
        check(&format!("{conv:?}"), &ins, |v| v[0].conv2d(&v[1], None, conv, None));
    }
}

#[test]
fn pooling_softmax_and_normalisations() {
    let x = values(&[2, 4, 5, 6], 1, 0.0);
    check("max_pool2d", std::slice::from_ref(&x), |v| v[0].max_pool2d([3, 2], [2, 2], [1, 1]));
    check("avg_pool2d", std::slice::from_ref(&x), |v| v[0].avg_pool2d([3, 2], [2, 2], [1, 1]));
    for dim in [0, 1, -1] {
        check("softmax", std::slice::from_ref(&x), |v| v[0].softmax(dim));
        check("log_softmax", std::slice::from_ref(&x), |v| v[0].log_softmax(dim));
    }
    for (kind, n) in [(NormKind::Layer { dims: 1 }, 6), (NormKind::Group { groups: 2 }, 4), (NormKind::Batch, 4)] {
        let ins = [x.clone(), values(&[n], 2, 1.0), values(&[n], 3, 0.0)];
        check("norm", &ins, |v| v[0].norm(kind, Some((&v[1], &v[2])), None, 1e-5, None).map(|o| o.0));
        check("norm", std::slice::from_ref(&x), |v| v[0].norm(kind, None, None, 1e-5, None).map(|o| o.0));
    }
    let (mean, var) = (Var::constant(values(&[4], 4, 0.0)), Var::constant(values(&[4], 5, 9.0)));
    let ins = [x, values(&[4], 2, 1.0), values(&[4], 3, 0.0)];
    check("batch norm in evaluation", &ins, |v| {
        v[0].norm(NormKind::Fixed, Some((&v[1], &v[2])), Some((&mean, &var)), 1e-5, None).map(|o| o.0)
    });
}

#[test]
fn losses_selection_and_views() {
    let logits = values(&[4, 3, 2], 1, 0.0);
    let target = classes(&[0, 2, 1, -100, 2, 0, 1, 1], &[4, 2]);
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        for smoothing in [0.0, 0.1] {
            let loss = CrossEntropy { smoothing, reduction, ..CrossEntropy::default() };
            check("cross_entropy", &[logits.clone(), target.clone()], |v| v[0].cross_entropy(&v[1], loss));
        }
        check("mse_loss", &[values(&[3, 2], 1, 0.0), values(&[3, 2], 2, 0.0)], |v| v[0].mse_loss(&v[1], reduction));
    }
    check("embedding", &[values(&[5, 3], 1, 0.0), classes(&[4, 0, 4], &[3])], |v| v[0].embedding(&v[1]));
    check("cat", &[values(&[2, 3], 1, 0.0), values(&[2, 2], 2, 0.0)], |v| Var::cat(&[&v[0], &v[1], &v[0]], 1));
    check("where", &[values(&[2, 3], 1, 0.0), values(&[3], 2, 0.0)], |v| {
        let mask = v[0].detach().compare(binade_tensor::op::Compare::Gt, &v[1].detach())?;
        v[0].where_(&mask, &v[1])
    });
    let x = values(&[2, 3, 4], 1, 0.0);
    check("views", &[x], |v| {
        v[0].permute(&[2, 0, 1])?.narrow(0, 1, 2)?.reshape(&[-1, 2])?.expand(&[3, 6, 2])?.transpose(0, 2)
    });
    check("dropout", &[values(&[40], 1, 0.0)], |v| binade_autograd::scope::with_key(3, 4, || v[0].dropout(0.4)));
}

#[test]
fn norms_with_their_activations() {
    use binade_tensor::op::Norm;
    let kinds =
        [NormKind::Layer { dims: 1 }, NormKind::Rms { dims: 1 }, NormKind::Group { groups: 3 }, NormKind::Batch];
    for kind in kinds.into_iter().chain([NormKind::Fixed]) {
        for act in [None, Some(Unary::Gelu), Some(Unary::Tanh)] {
            let norm = Norm { kind, eps: 1e-3, affine: true, act };
            let mut ins = vec![values(&[4, 3, 3], 1, 0.0)];
            ins.extend((0..norm.weights()).map(|i| values(&[3], 2 + i as u64, 0.5)));
            let statistics = [values(&[3], 5, 0.0), values(&[3], 6, 4.0)].map(Var::constant);
            check(norm.name(), &ins, |v| {
                let mut ins: Vec<&Var> = v.iter().collect();
                if kind == NormKind::Fixed {
                    ins.extend(&statistics);
                }
                binade_autograd::apply(Op::Norm(norm), &ins)
            });
        }
    }
}

#[test]
fn losses_maps_and_ternary_rows() {
    use binade_tensor::op::{Interpolation, Loss, PadMode, Ternary};
    for &loss in Loss::ALL {
        for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
            let (x, t) = (values(&[3, 4], 1, 0.0), values(&[3, 4], 2, 0.0));
            check(loss.name(), &[x, t], |v| {
                // Into the domain of each loss; labels ±1 are constants.
                let (x, t) = match loss {
                    Loss::BceWithLogits | Loss::KlDiv => (v[0].clone(), v[1].sigmoid()?),
                    Loss::Bce => (v[0].sigmoid()?, v[1].sigmoid()?),
                    Loss::PoissonNllRate => (v[0].exp()?, v[1].exp()?),
                    Loss::HingeEmbedding => (v[0].add(&(&v[1] * 0.0)?)?, v[1].detach().sign()?),
                    Loss::Mse | Loss::L1 | Loss::SmoothL1 | Loss::Huber | Loss::KlDivLog => {
                        (v[0].clone(), v[1].clone())
                    }
                    Loss::PoissonNll | Loss::SoftMargin => (v[0].clone(), v[1].clone()),
                };
                x.loss(&t, loss, 0.7, reduction)
            });
        }
    }
    for &op in Ternary::ALL {
        let ins = [values(&[2, 3], 1, 0.0), values(&[3], 2, 0.0), values(&[2, 1], 3, 4.0)];
        check(op.name(), &ins, |v| binade_autograd::apply(Op::Ternary { op, value: 0.6 }, &[&v[0], &v[1], &v[2]]));
    }
    let x = values(&[1, 2, 4, 5], 1, 0.0);
    let one = std::slice::from_ref(&x);
    check("flip", one, |v| v[0].flip(&[1, -1]));
    check("roll", one, |v| v[0].roll(&[1, -2], &[0, 3]));
    check("roll flat", one, |v| v[0].roll(&[3], &[]));
    for mode in [PadMode::Constant(2.0), PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
        check("pad", one, |v| v[0].pad(&[2, 1, -1, 1], mode));
    }
    for mode in [
        Interpolation::Nearest,
        Interpolation::Linear { align_corners: true },
        Interpolation::Cubic { align_corners: false },
    ] {
        check("interpolate", one, |v| v[0].interpolate(&[3, 9], mode));
        check("interpolate_by", one, |v| v[0].interpolate_by(&[2.0, 1.5], mode));
    }
    check("adaptive_avg_pool", one, |v| v[0].adaptive_avg_pool(&[3, 2]));
    check("clamp", one, |v| v[0].clamp(Some(-0.5), Some(0.5)));
    check("hardtanh", one, |v| v[0].hardtanh(-0.5, 0.5));
    check("glu", one, |v| v[0].glu(2));
    check("swiglu", one, |v| v[0].swiglu(1));
    let (a, b) = (values(&[3, 4], 2, 0.0), values(&[3, 4], 3, 0.0));
    let label = Var::constant(
        Array::from_slice(&scope::device().unwrap(), &[1.0, -1.0, 1.0], &[3], Class::Activations).unwrap(),
    );
    let pair = [a.clone(), b.clone()];
    for reduction in [Reduction::None, Reduction::Mean] {
        check("cosine embedding", &pair, |v| v[0].cosine_embedding_loss(&v[1], &label, 0.1, reduction));
        check("margin ranking", &[values(&[3], 4, 0.0), values(&[3], 5, 0.0)], |v| {
            v[0].margin_ranking_loss(&v[1], &label, 0.3, reduction)
        });
        for p in [2.0, 3.0] {
            check("triplet", &[a.clone(), b.clone(), values(&[3, 4], 6, 0.0)], |v| {
                v[0].triplet_margin_loss(&v[1], &v[2], 1.0, p, reduction)
            });
        }
        check("bce", &pair, |v| {
            v[0].bce_with_logits(&v[1].sigmoid()?, Some(&v[1].exp()?), Some(&v[0].exp()?), reduction)
        });
        check("gaussian", &pair, |v| v[0].gaussian_nll_loss(&v[1], &v[1].exp()?, 1e-6, reduction));
        check("poisson", &pair, |v| v[0].poisson_nll_loss(&v[1].exp()?, true, true, 0.0, reduction));
    }
}

#[test]
fn more_reductions_and_scans() {
    let x = values(&[3, 4, 5], 1, 0.0);
    let one = std::slice::from_ref(&x);
    for dims in [&[][..], &[1], &[0, 2]] {
        for p in [0.0, 1.0, 2.0, 3.5, f64::INFINITY, f64::NEG_INFINITY] {
            check("norm", one, |v| v[0].vector_norm(p, dims, false));
        }
        check("std", one, |v| v[0].std(dims, 1.0, true));
        check("prod", one, |v| v[0].prod(dims, false));
        check("logsumexp", one, |v| v[0].logsumexp(dims, false));
    }
    // A zero among the factors, and two.
    for zeros in [1, 2] {
        let mut factors = vec![1.5, -2.0, 0.5, 3.0];
        factors[..zeros].fill(0.0);
        let x = Array::from_slice(&scope::device().unwrap(), &factors, &[4], Class::Activations).unwrap();
        check("prod", std::slice::from_ref(&x), |v| v[0].prod(&[], false));
        check("cumprod", &[x], |v| v[0].cumprod(0));
    }
    for dim in [0, 1, -1] {
        check("cumsum", one, |v| v[0].cumsum(dim));
        check("cumprod", one, |v| v[0].cumprod(dim));
        check("max_dim", one, |v| v[0].max_dim(dim, false).map(|r| r.0));
        check("min_dim", one, |v| v[0].min_dim(dim, true).map(|r| r.0));
        check("normalize", one, |v| v[0].normalize(2.0, dim, 1e-12));
        check("cosine", &[x.clone(), values(&[3, 4, 5], 2, 0.0)], |v| v[0].cosine_similarity(&v[1], dim, 1e-8));
        check("sort", one, |v| v[0].sort(dim, true).map(|r| r.0));
        check("topk", one, |v| v[0].topk(2, dim, false).map(|r| r.0));
    }
}

#[test]
fn selection_by_index() {
    let (x, src) = (values(&[3, 4], 1, 0.0), values(&[3, 4], 2, 0.0));
    let index = Var::constant(classes(&[2, 0, 0, 1, 1, 1, 2, 0], &[2, 4]));
    let one = std::slice::from_ref(&x);
    check("gather", one, |v| v[0].gather(0, &index));
    check("scatter_add", &[x.clone(), src.clone()], |v| v[0].scatter_add(0, &index, &v[1]));
    let apart = Var::constant(classes(&[2, 0, 1, 1], &[1, 4]));
    check("scatter", &[x.clone(), src], |v| v[0].scatter(0, &apart, &v[1]));
    let rows = Var::constant(classes(&[2, 0, 2], &[3]));
    check("index_select", one, |v| v[0].index_select(0, &rows));
    check("index_select", one, |v| v[0].index_select(1, &rows));
    let columns = Var::constant(classes(&[-1, 0, 1], &[3]));
    check("index", one, |v| v[0].index(&[&rows, &columns]));
    check("index", one, |v| v[0].index(&[&rows]));
    for accumulate in [true, false] {
        let apart = Var::constant(classes(&[2, 0, 1], &[3]));
        check("index_put", &[x.clone(), values(&[3], 3, 0.0)], |v| {
            v[0].index_put(&[&apart, &columns], &v[1], accumulate)
        });
        check("index_put", &[x.clone(), values(&[4], 3, 0.0)], |v| v[0].index_put(&[&apart], &v[1], accumulate));
    }
    check("index_put", &[x.clone(), values(&[3, 4], 3, 0.0)], |v| v[0].index_put(&[&rows], &v[1], true));
    check("tril", one, |v| v[0].tril(-1));
    check("triu", one, |v| v[0].triu(1));
    let mask = Var::constant(x.clone()).compare_scalar(binade_tensor::op::Compare::Gt, 0.0).unwrap();
    check("masked_select", one, |v| v[0].masked_select(&mask));
    let target = Var::constant(classes(&[3, -100, 0], &[3]));
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        let weight = Var::constant(values(&[4], 5, 2.0));
        check("nll_loss", one, |v| v[0].log_softmax(1)?.nll_loss(&target, Some(&weight), -100, reduction));
    }
}
