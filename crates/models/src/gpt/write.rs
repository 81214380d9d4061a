//! [`Writer`]: tokens that a language model writes, one after the other.

use std::collections::BTreeSet;

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
        if self.repetition != 1.0 {
            for token in seen.iter().map(|&token| token as usize).collect::<BTreeSet<usize>>() {
                if let Some(logit) = logits.get_mut(token) {
                    *logit = if *logit > 0.0 { *logit / self.repetition } else { *logit * self.repetition };
                }
            }
        }
        // Of equal ones the first.
        let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        if self.temperature == 0.0 {
            return best;
        }
        let weight = |logit: f64| ((logit - logits[best]) / self.temperature).exp();
        let mut left: Vec<(usize, f64)> = logits.iter().map(|&logit| weight(logit)).enumerate().collect();
        let likelier = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if let Some(k) = self.top_k.filter(|&k| k < left.len()) {
            left.select_nth_unstable_by(k - 1, likelier);
            left.truncate(k);
            left.sort_unstable_by(likelier);
        }
        if self.top_p < 1.0 {
            let total: f64 = left.iter().map(|(_, weight)| weight).sum();
            // Those below this are together less than what may be left out: few remain to be sorted.
            let least = (1.0 - self.top_p) * total / left.len() as f64;
            left.retain(|(_, weight)| *weight >= least);
            left.sort_unstable_by(likelier);
            // As many as reach the share, the one that does among them.
            let mut sum = 0.0;
            let kept = left.iter().position(|(_, weight)| {
                sum += weight;
                sum >= self.top_p * total
            });
            left.truncate(kept.map_or(left.len(), |last| last + 1));
        }
        let mut draw = draw * left.iter().map(|(_, weight)| weight).sum::<f64>();
        let chosen = left.iter().find(|(_, weight)| {
            draw -= weight;
            draw < 0.0
        });
        chosen.or(left.last()).map_or(best, |(token, _)| *token)
    }
}

/// Writes tokens after a prompt, several texts at once. Where the context is full, the older half of it is forgotten
/// and the other read again, with and without a cache.
pub struct Writer<'a> {
    model: &'a Gpt,
    sampling: Sampling,
    seed: u64,
    cache: Option<GptCache>,
    /// All as long.
    texts: Vec<Vec<i64>>,
    /// The first token that the model still sees.
    start: usize,
    written: usize,
}

impl<'a> Writer<'a> {
    /// After a prompt, so many texts; the draws of each follow from the seed and its number alone. Keys and values are
    /// kept in a dtype, or nothing is for `None`.
    ///
    /// # Errors
    /// An empty prompt, a token that the model does not have, a setting outside its domain, no text asked for.
    pub fn new(
        model: &'a Gpt,
        prompt: &[i64],
        texts: usize,
        sampling: Sampling,
        seed: u64,
        cached: Option<DType>,
    ) -> Result<Writer<'a>> {
        let vocabulary = model.config().vocabulary;
        let error = |message| Err(Error::Config { layer: "Gpt", message });
        if let Some(message) = sampling.problem() {
            return error(message);
        }
        if texts == 0 {
            return error("no text is asked for: there must be at least one".into());
        }
        if prompt.is_empty() {
            return error("the prompt is empty: there must be a token to begin with".into());
        }
        if let Some(token) = prompt.iter().find(|&&token| !usize::try_from(token).is_ok_and(|t| t < vocabulary)) {
            return error(format!("the prompt has token {token}, and the vocabulary {vocabulary}"));
        }
        let start = prompt.len().saturating_sub(model.config().context);
        let cache = cached.map(|dtype| model.cache(texts, dtype)).transpose()?;
        Ok(Writer { model, sampling, seed, cache, texts: vec![prompt.to_vec(); texts], start, written: 0 })
    }

    /// The prompt and what was written, of each text.
    pub fn texts(&self) -> &[Vec<i64>] {
        &self.texts
    }

    /// Writes one more token of each text, and returns them.
    ///
    /// # Errors
    /// The model fails, or expects what is no number.
    pub fn write(&mut self) -> Result<Vec<i64>> {
        let logits = scope::eval(|| self.logits())?;
        let each = logits.len() / self.texts.len();
        let mut tokens = Vec::new();
        for (i, (text, logits)) in self.texts.iter_mut().zip(logits.chunks(each)).enumerate() {
            if logits.iter().any(|logit| logit.is_nan()) {
                let message = format!("a logit after {} tokens is not a number", text.len());
                return Err(Error::Config { layer: "Gpt", message });
            }
            let draw = f64::from(Key::new(self.seed, i as u64).bits(self.written)) / 2f64.powi(32);
            let token = self.sampling.choose(logits, text, draw) as i64;
            text.push(token);
            tokens.push(token);
        }
        self.written += 1;
        let (context, len) = (self.model.config().context, self.texts[0].len());
        if len - self.start > context {
            self.start = len - context.div_ceil(2);
            if let Some(cache) = &mut self.cache {
                cache.clear();
            }
        }
        Ok(tokens)
    }

    /// Of the token after all that there are: of each text one after the other.
    fn logits(&mut self) -> Result<Vec<f64>> {
        let device = self.model.device().map_or_else(scope::device, Ok)?;
        let len = self.texts[0].len();
        let unread = self.cache.as_ref().map_or(self.start, |cache| self.start + cache.len());
        // Before anything is written all texts are the prompt, which is read once.
        let alike = self.written == 0;
        let texts = &self.texts[..if alike { 1 } else { self.texts.len() }];
        let seen: Vec<i64> = texts.iter().flat_map(|text| &text[unread..]).copied().collect();
        let index = Var::constant(Array::from_slice(&device, &seen, &[texts.len(), len - unread], Class::Indices)?);
        let logits = match &mut self.cache {
            Some(cache) => self.model.forward_cached(&index, cache)?,
            None => scope::no_grad(|| self.model.forward(&index))?.narrow(1, len - unread - 1, 1)?,
        };
        let logits = logits.array().to_f64_vec()?;
        Ok(if alike { logits.repeat(self.texts.len()) } else { logits })
    }
}
