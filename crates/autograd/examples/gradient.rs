//! The gradient of a small expression, and where its graph is cut.

use binade_autograd::{Result, Var, no_grad};
use binade_cpu as _;
use binade_tensor::{Array, Class, Device};

fn main() -> Result<()> {
    let x = Var::leaf(Array::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0], &[3], Class::Weights)?);
    let y = x.square()?.sum(&[], false)?;
    let gradients = y.backward()?;
    println!("x² summed: {}, gradient {:?}", y.item()?, gradients.get(&x));
    println!("recorded under no_grad: {}", no_grad(|| x.square())?.requires_grad());
    Ok(())
}
