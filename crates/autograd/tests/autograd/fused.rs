//! Every fused form with every activation: first and second order against central differences.

use crate::common::{check_second_order, values};
use binade_autograd::{Result, Var, checkpoint, gradcheck};
use binade_cpu as _;
use binade_tensor::op::{Conv2d, NormKind, Unary};

/// A number around which the row and its first derivatives are smooth.
fn centre(row: Unary) -> f64 {
    match row {
        Unary::Acosh => 1.8,
        Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal | Unary::Log | Unary::Log2 | Unary::Log10 => 1.2,
        Unary::Abs | Unary::Sign | Unary::Relu | Unary::Relu6 => -0.6,
        _ => 0.4,
    }
}

/// Runs `f(row, inputs)` for every row; `inputs(centre)` gives inputs whose activation's argument is near the centre.
/// Second order on its side where the row is flat would be 0 alone, so piecewise linear rows are checked on both sides
/// of their kink.
fn for_every_row(
    form: &str,
    inputs: impl Fn(f64) -> Vec<binade_tensor::Array>,
    f: impl Fn(Unary, &[Var]) -> Result<Var>,
) {
    for &row in Unary::ALL {
        let centre = centre(row);
        let kinked = centre < 0.0 || row == Unary::Selu;
        for centre in if kinked { vec![-0.6, 0.6] } else { vec![centre] } {
            let inputs = inputs(centre);
            if let Err(error) = gradcheck(|v| f(row, v), &inputs) {
                panic!("{form} with {}: {error}", row.name());
            }
            if let Err(error) = check_second_order(&|v| f(row, v), &inputs) {
                panic!("{form} with {}: {error}", row.name());
            }
        }
    }
}

#[test]
fn products_with_an_activation_behind_them() {
    let inputs = |c| vec![values(&[3, 4], 1, 0.0, 0.2), values(&[2, 4], 2, 0.0, 0.2), values(&[2], 3, c, 0.05)];
    for_every_row("linear", inputs, |row, v| v[0].linear(&v[1], Some(&v[2]), Some(row)));
    let inputs = |c| vec![values(&[2, 2, 3], 1, 0.2, 0.02), values(&[3, 2], 2, c / 0.6, 0.05)];
    for_every_row("batched product", inputs, |row, v| v[0].linear(&v[1].transpose(0, 1)?, None, Some(row)));
}

#[test]
fn products_of_an_activation() {
    let inputs = |c| vec![values(&[3, 4], 1, c, 0.1), values(&[2, 4], 2, 0.0, 1.0), values(&[2], 3, 0.0, 1.0)];
    for_every_row("linear_of", inputs, |row, v| v[0].linear_of(row, &v[1], Some(&v[2])));
    let inputs = |c| vec![values(&[2, 2, 4], 1, c, 0.1), values(&[4, 3], 2, 0.0, 1.0)];
    for_every_row("linear_of in row-major order", inputs, |row, v| v[0].linear_of(row, &v[1].transpose(0, 1)?, None));
    let inputs = |c| vec![values(&[4], 1, c, 0.1), values(&[2, 4], 2, 0.0, 1.0)];
    for_every_row("linear_of a vector", inputs, |row, v| v[0].linear_of(row, &v[1], None));
    // The activation's result is not saved: the product reads its argument.
    let inputs = |c| vec![values(&[3, 4], 1, c, 0.1), values(&[2, 4], 2, 0.0, 1.0), values(&[2], 3, 0.0, 1.0)];
    for_every_row("activation, then linear", inputs, |row, v| v[0].unary(row)?.linear(&v[1], Some(&v[2]), None));
}

#[test]
fn convolutions_with_an_activation() {
    let conv = Conv2d { padding: [1, 0], stride: [1, 2], ..Conv2d::default() };
    let inputs =
        |c| vec![values(&[1, 2, 3, 4], 1, 0.0, 0.2), values(&[3, 2, 2, 2], 2, 0.0, 0.2), values(&[3], 3, c, 0.05)];
    for_every_row("conv2d", inputs, |row, v| v[0].conv2d(&v[1], Some(&v[2]), conv, Some(row)));
    let conv = Conv2d { padding: [1, 1], groups: 2, ..Conv2d::default() };
    let inputs =
        |c| vec![values(&[1, 2, 3, 3], 1, 0.0, 0.2), values(&[2, 1, 3, 3], 2, 0.0, 0.2), values(&[2], 3, c, 0.05)];
    for_every_row("depthwise conv2d", inputs, |row, v| v[0].conv2d(&v[1], Some(&v[2]), conv, Some(row)));
}

#[test]
fn norms_with_an_activation() {
    for kind in [NormKind::Layer { dims: 1 }, NormKind::Group { groups: 1 }, NormKind::Batch, NormKind::Fixed] {
        let inputs = |c| vec![values(&[4, 3], 1, 0.5, 1.0), values(&[3], 2, 0.1, 0.02), values(&[3], 3, c, 0.05)];
        let statistics = [values(&[3], 4, 0.5, 0.1), values(&[3], 5, 1.0, 0.1)].map(Var::constant);
        let statistics = (kind == NormKind::Fixed).then_some((&statistics[0], &statistics[1]));
        for_every_row(&format!("{kind:?}"), inputs, |row, v| {
            v[0].norm(kind, Some((&v[1], &v[2])), statistics, 1e-2, Some(row)).map(|(y, _)| y)
        });
    }
}

#[test]
fn fused_forms_that_are_computed_again() {
    let inputs = |c| vec![values(&[3, 4], 1, c, 0.1), values(&[2, 4], 2, 0.0, 0.2), values(&[2], 3, c, 0.05)];
    for &row in Unary::ALL {
        let first = |row: Unary, v: &[Var]| -> Result<Var> {
            v[0].linear_of(row, &v[1], None)?.add(&v[0].linear(&v[1], Some(&v[2]), Some(Unary::Silu))?)
        };
        let f = |v: &[Var]| checkpoint(move |v: &[Var]| first(row, v), &v.iter().collect::<Vec<_>>());
        if let Err(error) = gradcheck(f, &inputs(centre(row))) {
            panic!("checkpointed linear_of with {}: {error}", row.name());
        }
    }
}
