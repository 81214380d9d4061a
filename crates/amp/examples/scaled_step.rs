//! One mixed-precision step: f16 products, an f32 loss, scaled gradients, f32 weights.

use binade_amp::{GradScaler, LossScale, Result, autocast};
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_nn::{AdamW, Layer, Linear, Optimizer};
use binade_tensor::op::CrossEntropy;
use binade_tensor::{Array, Class, DType, Device};

fn main() -> Result<()> {
    let model = scope::with_key(0, 0, || Linear::new(4, 3))?;
    let mut optimizer = Optimizer::new(&model, AdamW::default())?;
    let mut scaler = GradScaler::new(LossScale::dynamic())?;
    let x = Var::constant(Array::from_slice(&Device::cpu(), &[0.5f32; 8], &[2, 4], Class::Activations)?);
    let target = Var::constant(Array::from_slice(&Device::cpu(), &[0i64, 2], &[2], Class::Indices)?);

    let loss = autocast(DType::F16, || -> Result<Var> {
        let logits = model.forward(&x)?;
        println!("logits are {}", logits.dtype());
        Ok(logits.cross_entropy(&target, CrossEntropy::default())?)
    })?;
    println!("the loss is {}", loss.dtype());
    let gradients = scaler.scale(&loss)?.backward()?;
    let outcome = scaler.step(&mut optimizer, &gradients)?;
    scaler.update()?;
    println!("{outcome:?}, loss scale {}", scaler.loss_scale());
    Ok(())
}
