//! [`Writer`]: tokens that a language model writes, one after the other.

use binade_autograd::{Var, scope};
use binade_nn::{Error, Layer, Module, Result};
use binade_tensor::{Array, Class, DType, Key};

use super::{Gpt, GptCache};

/// How the next token is chosen of the model's logits: in this order of the settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits of tokens that were there are divided by this if positive, else multiplied (Keskar et al., 2019); 1 for
    /// no penalty.
    pub repetition: f64,
    /// What logits are divided by; 0 takes the largest, whatever else is set.
    pub temperature: f64,
    /// Only so many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities add up to this (Holtzman et al., 2020); 1 for all.
    pub top_p: f64,
}

impl Default for Sampling {
    /// What the model expects, as it is.
    fn default() -> Self {
        Sampling { repetition: 1.0, temperature: 1.0, top_k: None, top_p: 1.0 }
    }
}

impl Sampling {
    fn problem(&self) -> Option<String> {
        let Sampling { repetition, temperature, top_k, top_p } = *self;
        if !(repetition > 0.0 && repetition.is_finite()) {
            return Some(format!("the penalty of repetition must be above 0, got {repetition}"));
        }
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Some(format!("the temperature must be at least 0, got {temperature}"));
        }
        if top_k == Some(0) {
            return Some("top-k must be at least 1".into());
        }
        (!(top_p > 0.0 && top_p <= 1.0)).then(|| format!("top-p must be above 0 and at most 1, got {top_p}"))
    }

    /// The next token of one logit per token of the vocabulary, after `seen`. `draw` is uniform in 0 to 1.
    pub fn choose(&self, logits: &[f64], seen: &[i64], draw: f64) -> usize {
        let mut logits = logits.to_vec();
        let mut there = vec![false; logits.len()];
        for &token in seen {
            if let Some(there) = there.get_mut(token as usize) {
                *there = true;
            }
        }
        for (logit, _) in logits.iter_mut().zip(there).filter(|(_, there)| *there) {
            *logit = if *logit > 0.0 { *logit / self.repetition } else { *logit * self.repetition };
        }
        // The likeliest first; of equal ones the first.
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let best = order.first().copied().unwrap_or(0);
        if self.temperature == 0.0 {
            return best;
        }
        order.truncate(self.top_k.unwrap_or(usize::MAX));
        let weight = |&i: &usize| ((logits[i] - logits[best]) / self.temperature).exp();
        let total: f64 = order.iter().map(weight).sum();
        // As many as reach the share, the one that does among them.
        let mut sum = 0.0;
        let kept = order.iter().position(|i| {
            sum += weight(i);
            sum >= self.top_p * total
        });
        order.truncate(kept.map_or(order.len(), |last| last + 1));
        let mut left = draw * order.iter().map(weight).sum::<f64>();
        let chosen = order.iter().find(|i| {
            left -= weight(i);
            left < 0.0
        });
        chosen.or(order.last()).copied().unwrap_or(best)
    }
}

/// Writes tokens after a prompt. Where the context is full, the older half of it is forgotten and the other read again,
/// with and without a cache.
pub struct Writer<'a> {
    model: &'a Gpt,
    sampling: Sampling,
    key: Key,
    cache: Option<GptCache>,
    tokens: Vec<i64>,
    /// The first token that the model still sees.
    start: usize,
    written: usize,
}

impl<'a> Writer<'a> {
    /// After a prompt; draws follow from the seed alone. Keys and values are kept in a dtype, or nothing is for `None`.
    ///
    /// # Errors
    /// An empty prompt, a token that the model does not have, a setting outside its domain.
    pub fn new(
        model: &'a Gpt,
        prompt: &[i64],
        sampling: Sampling,
        seed: u64,
        cached: Option<DType>,
    ) -> Result<Writer<'a>> {
        let vocabulary = model.config().vocabulary;
        let error = |message| Err(Error::Config { layer: "Gpt", message });
        if let Some(message) = sampling.problem() {
            return error(message);
        }
        if prompt.is_empty() {
            return error("the prompt is empty: there must be a token to begin with".into());
        }
        if let Some(token) = prompt.iter().find(|&&token| !usize::try_from(token).is_ok_and(|t| t < vocabulary)) {
            return error(format!("the prompt has token {token}, and the vocabulary {vocabulary}"));
        }
        let start = prompt.len().saturating_sub(model.config().context);
        let cache = cached.map(|dtype| model.cache(1, dtype)).transpose()?;
        Ok(Writer { model, sampling, key: Key::new(seed, 0), cache, tokens: prompt.to_vec(), start, written: 0 })
    }

    /// The prompt and what was written.
    pub fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    /// Writes one more token, and returns it.
    ///
    /// # Errors
    /// The model fails.
    pub fn write(&mut self) -> Result<i64> {
        let logits = scope::eval(|| self.logits())?;
        let draw = f64::from(self.key.bits(self.written)) / 2f64.powi(32);
        let token = self.sampling.choose(&logits, &self.tokens, draw) as i64;
        self.tokens.push(token);
        self.written += 1;
        let context = self.model.config().context;
        if self.tokens.len() - self.start > context {
            self.start = self.tokens.len() - context.div_ceil(2);
            if let Some(cache) = &mut self.cache {
                cache.clear();
            }
        }
        Ok(token)
    }

    /// Of the token after all that there are.
    fn logits(&mut self) -> Result<Vec<f64>> {
        let seen = &self.tokens[self.start..];
        let device = self.model.device().map_or_else(scope::device, Ok)?;
        let index = |tokens: &[i64]| -> Result<Var> {
            Ok(Var::constant(Array::from_slice(&device, tokens, &[1, tokens.len()], Class::Indices)?))
        };
        let logits = match &mut self.cache {
            Some(cache) => {
                let unread = &seen[cache.len().min(seen.len() - 1)..];
                self.model.forward_cached(&index(unread)?, cache)?
            }
            None => {
                let y = scope::no_grad(|| self.model.forward(&index(seen)?))?;
                y.narrow(1, seen.len() - 1, 1)?
            }
        };
        Ok(logits.array().to_f64_vec()?)
    }
}
