//! Text, a token at a time, by a model of GPT-2's extents with random weights: bound by the memory that weights are
//! read from.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};
use binade::autograd::scope::{self, Stored};
use binade::models::{Gpt, GptConfig, Sampling};
use binade::nn::Module;
use binade::tensor::{Array, Class, Device};
use binade::train::Precision;
use rayon::prelude::*;
use serde_json::json;

use super::cases::{Case, dtype, policy};
use super::timing::round;

/// Tokens that are written before all begins again.
const LENGTH: usize = 256;

/// One more token of one text, or of `batch` texts at once.
pub fn token(precision: Precision, batch: Option<usize>) -> Result<Case> {
    let (batch, dtype, policy) = (batch.unwrap_or(1), dtype(precision), policy(precision));
    let config = GptConfig::gpt2();
    let stored = Stored { params: dtype, batch_norm: dtype };
    let model = scope::with_key(1, 0, || scope::with_stored(stored, || Gpt::new(&config)))?;
    // A token's embeddings are read too, but not those of all others.
    let positions = config.context * config.features;
    let bytes = ((model.parameter_count() - positions) * dtype.size()) as f64;
    let mut cache = model.cache(batch, dtype)?;
    let tokens = Rc::new(RefCell::new(vec![0i64; batch]));
    let (sampling, written) = (Sampling { temperature: 0.8, top_k: Some(200), ..Sampling::default() }, tokens.clone());
    let run = move || -> Result<()> {
        if cache.len() == LENGTH {
            cache.clear();
        }
        let index = Array::from_slice(&Device::cpu(), &tokens.borrow()[..], &[batch, 1], Class::Indices)?;
        let index = binade::autograd::Var::constant(index);
        let logits = scope::eval(|| policy.run(|| model.forward_cached(&index, &mut cache)))?.array().to_f64_vec()?;
        ensure!(logits.iter().all(|logit| logit.is_finite()), "a logit is not finite");
        let chosen = logits.chunks(logits.len() / batch).map(|logits| sampling.choose(logits, &[], 0.5) as i64);
        *tokens.borrow_mut() = chosen.collect();
        Ok(())
    };
    let limit = read_gb_per_s();
    Ok(Case {
        name: format!("generate{batch}"),
        run: Box::new(run),
        check: Box::new(move || {
            ensure!(written.borrow().iter().all(|&token| (token as usize) < config.vocabulary), "{written:?}");
            Ok(())
        }),
        flops: 0.0,
        rate: Some(("tok_per_s", batch as f64)),
        extra: Box::new(move |ms| {
            let speed = bytes / ms / 1e6;
            vec![
                ("weight_gb_per_s", json!(round(speed))),
                ("read_gb_per_s", json!(round(limit))),
                ("share_of_read", json!(round(speed / limit))),
            ]
        }),
    })
}

/// What all threads together read from memory in a second: the best of several sums over 512 MiB.
fn read_gb_per_s() -> f64 {
    let memory = vec![1u64; 1 << 26];
    let sum = |part: &[u64]| part.iter().fold(0u64, |sum, n| sum.wrapping_add(*n));
    let seconds = (0..5).map(|_| {
        let start = Instant::now();
        std::hint::black_box(memory.par_chunks(1 << 18).map(sum).reduce(|| 0, u64::wrapping_add));
        start.elapsed().as_secs_f64()
    });
    (8 * memory.len()) as f64 / seconds.fold(f64::INFINITY, f64::min) / 1e9
}
