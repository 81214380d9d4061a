//! Gradients of gradients: every operator's recorded gradient against central differences of its first-order gradient.

use crate::common::penalty;
use binade_autograd::{Result, Var, grad, gradcheck, scope};
use binade_cpu as _;
use binade_tensor::op::*;
use binade_tensor::{Array, Class, Op};

fn values(shape: &[usize], stream: u64, offset: f64) -> Array {
    crate::common::values(shape, stream, offset, 1.0)
}

fn check(name: &str, inputs: &[Array], f: impl Fn(&[Var]) -> Result<Var>) {
    if let Err(e) = gradcheck(|v| penalty(&f, v), inputs) {
        panic!("{name}: {e}");
    }
}

#[test]
fn unary_rows() {
    for &row in Unary::ALL {
        // Where the penalty itself has steps, there is nothing to differentiate.
        if matches!(row, Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round | Unary::Trunc) {
            continue;
        }
        let x = values(&[7], 1, if matches!(row, Unary::Acosh | Unary::Log | Unary::Rsqrt) { 4.5 } else { 0.0 });
        let inside = |v: &Var| -> Result<Var> {
            match row {
                Unary::Asin | Unary::Acos | Unary::Atanh | Unary::Erfinv => &v.sin()? * 0.8,
                Unary::Sqrt | Unary::Log2 | Unary::Log10 | Unary::Log1p | Unary::Reciprocal => &v.square()? + 1.5,
                _ => Ok(v.clone()),
            }
        };
        check(row.name(), &[x], |v| binade_autograd::apply(Op::Unary(row), &[&inside(&v[0])?]));
    }
}

#[test]
fn binary_rows() {
    for &row in Binary::ALL {
        let a = values(&[4, 3], 1, if row == Binary::Pow { 4.0 } else { 0.0 });
        check(row.name(), &[a.clone(), values(&[1, 3], 2, 3.0)], |v| {
            binade_autograd::apply(Op::Binary(row), &[&v[0], &v[1]])
        });
        check(row.name(), &[values(&[5], 3, 4.0)], |v| v[0].scalar(row, 1.7, true));
    }
}

#[test]
fn reductions_and_softmax() {
    let x = values(&[3, 4, 2], 1, 0.0);
    let one = std::slice::from_ref(&x);
    check("sum", one, |v| v[0].sum(&[1], false));
    check("mean", one, |v| v[0].mean(&[0, 2], true));
    check("amax", one, |v| v[0].amax(&[1], false));
    check("var", one, |v| v[0].var(&[1], 1.0, false));
    check("softmax", one, |v| v[0].softmax(1));
    check("log_softmax", one, |v| v[0].log_softmax(-1));
}

#[test]
fn contractions_with_bias_and_activation() {
    for act in [None, Some(Unary::Tanh), Some(Unary::Gelu)] {
        check("linear", &[values(&[3, 4], 1, 0.0), values(&[5, 4], 2, 0.0), values(&[5], 3, 0.0)], |v| {
            v[0].linear(&v[1], Some(&v[2]), act)
        });
        let conv = Conv2d { padding: [1, 0], stride: [1, 2], ..Conv2d::default() };
        check("conv2d", &[values(&[2, 2, 4, 5], 1, 0.0), values(&[3, 2, 3, 2], 2, 0.0), values(&[3], 3, 0.0)], |v| {
            v[0].conv2d(&v[1], Some(&v[2]), conv, act)
        });
        let conv = Conv2d { padding: [1, 1], groups: 3, ..Conv2d::default() };
        check(
            "depthwise",
            &[values(&[2, 3, 3, 4], 1, 0.0), values(&[3, 1, 3, 3], 2, 0.0), values(&[3], 3, 0.0)],
            |v| v[0].conv2d(&v[1], Some(&v[2]), conv, act),
        );
        check("depthwise", &[values(&[2, 3, 3, 4], 1, 0.0), values(&[3, 1, 3, 3], 2, 0.0)], |v| {
            v[0].conv2d(&v[1], None, conv, act)
        });
    }
    check("matmul", &[values(&[2, 3, 4], 1, 0.0), values(&[4, 5], 2, 0.0)], |v| v[0].matmul(&v[1]));
}

#[test]
fn pooling_and_norms() {
    let x = values(&[2, 4, 4, 3], 1, 0.0);
    check("max_pool2d", std::slice::from_ref(&x), |v| v[0].max_pool2d([2, 2], [1, 1], [1, 0]));
    check("avg_pool2d", std::slice::from_ref(&x), |v| v[0].avg_pool2d([2, 2], [2, 1], [0, 0]));
    let (w, b) = (values(&[4], 2, 1.0), values(&[4], 3, 0.0));
    for kind in [NormKind::Group { groups: 2 }, NormKind::Batch] {
        check("norm", &[x.clone(), w.clone(), b.clone()], |v| {
            v[0].norm(kind, Some((&v[1], &v[2])), None, 1e-3, None).map(|r| r.0)
        });
    }
    check("rms_norm", &[values(&[5, 4], 4, 0.0), w.clone()], |v| v[0].rms_norm(1, Some(&v[1]), 1e-3));
    for act in [Unary::Silu, Unary::Tanh] {
        let norm = Norm { kind: NormKind::Layer { dims: 1 }, eps: 1e-3, affine: true, act: Some(act) };
        check("norm with activation", &[values(&[5, 4], 4, 0.0), w.clone(), b.clone()], |v| {
            binade_autograd::apply(Op::Norm(norm), &[&v[0], &v[1], &v[2]])
        });
    }
    check("layer_norm", &[values(&[5, 4], 4, 0.0), w, b], |v| v[0].layer_norm(1, Some((&v[1], &v[2])), 1e-3));
}

#[test]
fn losses_and_attention() {
    let target = Array::from_slice(&scope::device().unwrap(), &[2i64, 0, 1], &[3], Class::Indices).unwrap();
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        let loss = CrossEntropy { smoothing: 0.1, ignore_index: 1, reduction };
        check("cross_entropy", &[values(&[3, 4], 1, 0.0)], |v| {
            v[0].cross_entropy(&Var::constant(target.clone()), loss)
        });
        check("mse_loss", &[values(&[3, 4], 1, 0.0), values(&[3, 4], 2, 0.0)], |v| v[0].mse_loss(&v[1], reduction));
    }
    let qkv = [values(&[2, 3, 4], 1, 0.0), values(&[2, 3, 4], 2, 0.0), values(&[2, 3, 2], 3, 0.0)];
    for attention in [Attention::default(), Attention { causal: true, scale: Some(0.7), ..Attention::default() }] {
        check("attention", &qkv, |v| v[0].attention(&v[1], &v[2], attention));
    }
}

#[test]
fn shapes_and_selection() {
    let x = values(&[3, 4], 1, 0.0);
    let one = std::slice::from_ref(&x);
    check("transpose", one, |v| v[0].transpose(0, 1)?.reshape(&[2, 6]));
    check("narrow", one, |v| v[0].narrow(1, 1, 2));
    check("cat", &[x.clone(), values(&[2, 4], 2, 0.0)], |v| Var::cat(&[&v[0], &v[1]], 0));
    check("expand", &[values(&[3, 1], 1, 0.0)], |v| v[0].expand(&[3, 4]));
    let index = Array::from_slice(&scope::device().unwrap(), &[1i64, 0, 1], &[3], Class::Indices).unwrap();
    check("embedding", one, |v| v[0].embedding(&Var::constant(index.clone())));
}

#[test]
fn a_third_derivative() {
    let x = Var::leaf(values(&[4], 1, 0.0));
    let y = x.sin().unwrap().sum(&[], false);
    let mut g = grad(&y.unwrap(), &[&x], None, true).unwrap().remove(0).unwrap();
    for _ in 0..2 {
        let sum = g.sum(&[], false).unwrap();
        g = grad(&sum, &[&x], None, true).unwrap().remove(0).unwrap();
    }
    let (found, x) = (g.array().to_f64_vec().unwrap(), x.array().to_f64_vec().unwrap());
    for (found, x) in found.iter().zip(x) {
        assert!((found + x.cos()).abs() < 1e-14, "{found} instead of {}", -x.cos());
    }
}
