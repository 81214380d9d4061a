#![deny(unused_must_use)]
use binade_amp::{GradScaler, Result, StepOutcome};
use binade_autograd::Var;
use binade_nn::Optimizer;

fn step(loss: &Var, scaler: &mut GradScaler, optimizer: &mut Optimizer, step: &mut u64) -> Result<()> {
    let scaled = scaler.backward(loss)?;
    let mut grads = scaled.unscale(scaler, optimizer)?;
    grads.clip_norm(1.0)?;
    if grads.step(scaler, optimizer)? == StepOutcome::Applied {
        *step += 1;
    }
    Ok(())
}

pub fn main() {
    let _ = step;
}
