//! An operator of one's own: `x·σ(βx)` (Swish with a fixed β) with its kernel, gradient, error bound and samples,
//! checked by the library's own checks and used like any other operator.

use binade_autograd::{Var, apply, gradcheck};
use binade_cpu as _;
use binade_tensor::op::{Binary, Bound, Builder, Custom, CustomOp, CustomView, Numerics, Unary, Value};
use binade_tensor::samples::Inputs;
use binade_tensor::{Array, Class, DType, Device, Op, Result, Shape};

#[derive(Debug)]
struct Swish {
    beta: f64,
}

impl CustomOp for Swish {
    fn name(&self) -> &'static str {
        "swish"
    }

    fn numerics(&self) -> Numerics {
        Numerics::Neutral
    }

    fn shapes(&self, ins: &[Shape]) -> Result<Vec<Shape>> {
        Ok(vec![ins[0]])
    }

    fn define(&self, ins: &[CustomView<'_, f64>], outs: &mut [Vec<f64>]) -> Result<()> {
        outs[0].iter_mut().zip(ins[0].values).for_each(|(y, x)| *y = x / (1.0 + (-self.beta * x).exp()));
        Ok(())
    }

    fn run(&self, ins: &[CustomView<'_, f32>], outs: &mut [Vec<f32>]) -> Result<()> {
        let beta = self.beta as f32;
        outs[0].iter_mut().zip(ins[0].values).for_each(|(y, x)| *y = x / (1.0 + (-beta * x).exp()));
        Ok(())
    }

    /// `g·(s + βx·s·(1 − s))` with s = σ(βx).
    fn backward(&self, b: &mut Builder, g: Value, ins: &[Value], _out: Value) -> Result<Vec<Option<Value>>> {
        let scaled = b.scalar(Binary::Mul, ins[0], self.beta)?;
        let s = b.unary(Unary::Sigmoid, scaled)?;
        let rest = b.op(Op::Scalar { op: Binary::Sub, value: 1.0, reversed: true }, &[s])?;
        let product = b.binary(Binary::Mul, s, rest)?;
        let tail = b.binary(Binary::Mul, scaled, product)?;
        let slope = b.binary(Binary::Add, s, tail)?;
        Ok(vec![Some(b.binary(Binary::Mul, g, slope)?)])
    }

    /// exp, a sum and a quotient; the rounding of βx is magnified by it, up to about 8 in the samples.
    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(12.0)
    }

    fn samples(&self, device: &Device, dtype: DType) -> Result<Vec<Inputs>> {
        let values: Vec<f32> = (-400..400).map(|i| i as f32 / 100.0).collect();
        Ok(vec![vec![
            Array::from_slice(device, &values, &[values.len()], Class::Activations)?.cast(dtype, Class::Activations)?,
        ]])
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let swish = Op::Custom(Custom::new(Swish { beta: 1.5 }));
    let device = Device::cpu();

    // The registry's check: every sample and dtype within the stated bound.
    for dtype in DType::FLOATS {
        for ins in swish.samples(&device, dtype) {
            let (_, failure) = binade_tensor::testing::check_op(&swish, &ins, &device, dtype)?;
            assert_eq!(failure, None);
        }
    }
    // The gradient against central differences, and the gradient of the gradient.
    let x = Array::from_slice(&device, &[-2.0, -0.3, 0.0, 0.7, 3.0], &[5], Class::Activations)?;
    gradcheck(|v| apply(swish.clone(), &[&v[0]]), std::slice::from_ref(&x))?;
    let leaf = Var::leaf(x);
    let slope = binade_autograd::grad(&apply(swish, &[&leaf])?.sum(&[], false)?, &[&leaf], None, true)?.remove(0);
    let curvature = slope.ok_or("no gradient")?.sum(&[], false)?.backward()?;
    println!("second derivative at 0: {}", curvature.get(&leaf).ok_or("no gradient")?.to_f64_vec()?[2]);
    Ok(())
}
