//! A line through noisy points, with AdamW.

use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_nn::{AdamW, Layer, Linear, Optimizer, Result, StepOutcome};
use binade_tensor::op::Reduction;
use binade_tensor::{Array, Class, Device};

fn main() -> Result<()> {
    let xs: Vec<f32> = (0..64).map(|i| i as f32 / 32.0 - 1.0).collect();
    let ys: Vec<f32> = xs.iter().enumerate().map(|(i, x)| 3.0 * x - 0.5 + 0.01 * (i as f32 * 1.7).sin()).collect();
    let tensor = |v: &[f32]| Array::from_slice(&Device::cpu(), v, &[64, 1], Class::Activations).map(Var::constant);
    let (x, y) = (tensor(&xs)?, tensor(&ys)?);
    let model = scope::with_key(0, 0, || Linear::new(1, 1))?;
    let mut optimizer = Optimizer::new(&model, AdamW { lr: 0.05, weight_decay: 0.0, ..AdamW::default() })?;
    for _ in 0..400 {
        let gradients = model.forward(&x)?.mse_loss(&y, Reduction::Mean)?.backward()?;
        if optimizer.step(&gradients)? == StepOutcome::Skipped {
            println!("a gradient is not finite");
        }
    }
    println!("weight {:.3}", model.weight.array().item()?);
    Ok(())
}
