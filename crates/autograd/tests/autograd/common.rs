//! Checks that several tests share.
#![allow(dead_code, reason = "each test uses its part")]

use binade_autograd::{Result, Var, grad, gradcheck, scope};
use binade_tensor::op::Distribution;
use binade_tensor::{Array, Class, DType, Key, Op, Shape, run_one};

/// Normal values.
pub fn values(shape: &[usize], stream: u64, mean: f64, std: f64) -> Array {
    let op = Op::Random {
        distribution: Distribution::Normal { mean, std },
        shape: Shape::new(shape).unwrap(),
        key: Key::new(7, stream),
    };
    run_one(&op, &[], &scope::device().unwrap(), DType::F64, Class::Activations).unwrap()
}

/// Compares the gradient of `f` with its central differences.
pub fn check(name: &str, inputs: &[Array], f: impl Fn(&[Var]) -> Result<Var>) {
    if let Err(e) = gradcheck(f, inputs) {
        panic!("{name}: {e}");
    }
}

/// `Σ (∂/∂x ½Σy²)²` of `y = f(x)`, recorded: its first-order gradient is second order in `f`.
pub fn penalty(f: &dyn Fn(&[Var]) -> Result<Var>, v: &[Var]) -> Result<Var> {
    // For differences the inputs are constants; the inner gradient still wants leaves.
    let leaf = |v: &Var| if v.requires_grad() { v.clone() } else { Var::leaf(v.array().clone()) };
    let v = &v.iter().map(leaf).collect::<Vec<_>>();
    scope::recording(|| {
        let loss = (&f(v)?.square()?.sum(&[], false)? * 0.5)?;
        let mut total: Option<Var> = None;
        for gradient in grad(&loss, &v.iter().collect::<Vec<_>>(), None, true)?.into_iter().flatten() {
            let part = gradient.square()?.sum(&[], false)?;
            total = Some(match total {
                Some(sum) => sum.add(&part)?,
                None => part,
            });
        }
        Ok(total.expect("the result depends on an input"))
    })
}

/// Compares the gradient of the [`penalty`] with its central differences along three directions. Every input must have
/// a gradient, be it zeros.
pub fn check_second_order(f: &dyn Fn(&[Var]) -> Result<Var>, inputs: &[Array]) -> std::result::Result<(), String> {
    let fail = |e: binade_autograd::Error| e.to_string();
    let leaves: Vec<Var> = inputs.iter().map(|a| Var::leaf(a.clone())).collect();
    let gradients = penalty(f, &leaves).and_then(|p| p.backward()).map_err(fail)?;
    let mut analytic = Vec::new();
    for (i, leaf) in leaves.iter().enumerate() {
        let gradient = gradients.get(leaf).ok_or(format!("input {i} has no second-order gradient"))?;
        analytic.push(gradient.to_f64_vec().unwrap());
    }
    for seed in 0..3 {
        let directions: Vec<Vec<f64>> = inputs
            .iter()
            .zip(40 + 10 * seed..)
            .map(|(a, s)| values(a.shape(), s, 0.0, 1.0).to_f64_vec().unwrap())
            .collect();
        let at = |step: f64| -> std::result::Result<f64, String> {
            let moved = inputs.iter().zip(&directions).map(|(a, d)| {
                let x: Vec<f64> = a.to_f64_vec().unwrap().iter().zip(d).map(|(x, d)| x + step * d).collect();
                Var::leaf(Array::from_slice(a.device(), &x, a.shape(), Class::Activations).unwrap())
            });
            penalty(f, &moved.collect::<Vec<_>>()).and_then(|p| p.item()).map_err(fail)
        };
        const STEP: f64 = 1e-6;
        let numeric = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
        let products = analytic.iter().zip(&directions).flat_map(|(a, d)| a.iter().zip(d).map(|(a, d)| a * d));
        let (found, size) = products.fold((0.0, 0.0), |(sum, size): (f64, f64), p| (sum + p, size + p.abs()));
        // Written so that NaN on either side fails. The differences lose 10⁻¹⁰ of the penalty itself.
        let close = (found - numeric).abs() <= 1e-5 * (1.0 + size) + 1e-9 * at(0.0)?.abs();
        if !close {
            return Err(format!(
                "along direction {seed} the gradient of the gradient gives {found}, differences give {numeric}"
            ));
        }
    }
    Ok(())
}
