//! Tokens a second of GPT-2 (124M, random weights) in each form of its weights: `cargo run --release -p binade-models
//! --example tokens`.

use std::time::Instant;

use binade_amp::Policy;
use binade_autograd::Var;
use binade_autograd::scope::{self, Stored};
use binade_cpu as _;
use binade_models::{AnyModel, Gpt, GptConfig, Quantise, Rounding};
use binade_tensor::DType;

/// The best of some tokens after the first.
fn speed(model: &Gpt, dtype: DType) -> binade_models::Result<f64> {
    let mut cache = model.cache(1, dtype)?;
    let token = |i: i64| Var::from_slice(&[i * 7919 % 50_257], &[1, 1]);
    let mut best = f64::INFINITY;
    for i in 0..40 {
        let start = Instant::now();
        model.forward_cached(&token(i)?, &mut cache)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(1.0 / best)
}

fn main() -> binade_models::Result<()> {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let stored = Stored { params: dtype, batch_norm: dtype };
        let model = scope::with_stored(stored, || scope::with_key(1, 0, || Gpt::new(&GptConfig::gpt2())))?;
        let policy = if dtype == DType::F32 { Policy::OFF } else { Policy::autocast(dtype) };
        println!("{dtype:<14} {:6.1} tokens/s", policy.run(|| speed(&model, dtype))?);
    }
    for (name, rounding) in [("int8 weights", Rounding::WeightOnly), ("int8", Rounding::Dynamic)] {
        let model = scope::with_key(1, 0, || Gpt::new(&GptConfig::gpt2()))?;
        let any = AnyModel::Gpt(model.clone());
        any.quantise(&Quantise { rounding, keep: Vec::new() })?;
        let bytes: usize = any.module().parameters().iter().map(|p| p.array().numel() * p.dtype().size()).sum();
        println!("{name:<14} {:6.1} tokens/s, {:.0} MB", speed(&model, DType::F32)?, bytes as f64 / 1e6);
    }
    Ok(())
}
