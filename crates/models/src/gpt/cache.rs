//! [`GptCache`]: keys and values of the tokens that were read, for those that follow.

use binade_autograd::{Var, scope};
use binade_nn::{Layer, Module, Result};
use binade_tensor::op::Attention as Settings;
use binade_tensor::{Array, Class, DType, Shape};

use super::{Attention, Block, Gpt};

/// Keys and values of the tokens that a [`Gpt`] has read, in every block.
#[derive(Debug)]
pub struct GptCache {
    /// Of each block, `[context, B, heads, D/heads]` both: what is written at a time lies together.
    blocks: Vec<[Array; 2]>,
    sequences: usize,
    len: usize,
}

impl GptCache {
    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was read yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

impl Gpt {
    /// Room for the keys and values of `batch` sequences as long as the context, in a dtype: that of the policy.
    ///
    /// # Errors
    /// Out of memory.
    pub fn cache(&self, batch: usize, dtype: DType) -> Result<GptCache> {
        let config = self.config();
        let shape = Shape::new(&[config.context, batch, config.heads, config.features / config.heads])?;
        let device = self.device().map_or_else(scope::device, Ok)?;
        let room = || Array::full(&device, dtype, shape, 0.0, Class::Workspace);
        let blocks = (0..config.depth).map(|_| Ok([room()?, room()?])).collect::<Result<_>>()?;
        Ok(GptCache { blocks, sequences: batch, len: 0 })
    }

    /// Logits `[B, 1, vocabulary]` after tokens `[B, T]` that follow those in the cache, which takes them in.
    ///
    /// They are the last of what [`Layer::forward`] gives for all of them. No gradients are recorded. Into a cache with
    /// tokens one more at a time is read. Into an empty one of several sequences, tokens `[1, T]` are those of all.
    ///
    /// # Errors
    /// More tokens than the context has room for; several behind others; another batch than the cache's.
    pub fn forward_cached(&self, index: &Var, cache: &mut GptCache) -> Result<Var> {
        let t = index.shape().last().copied().unwrap_or(0);
        if t == 0 || t > 1 && !cache.is_empty() {
            let message = format!("{t} tokens behind {}: one is read at a time, or all at first", cache.len);
            return Err(binade_nn::Error::Config { layer: "Gpt", message });
        }
        let (b, sequences) = (index.shape().first().copied().unwrap_or(0), cache.sequences);
        if b != sequences && !(b == 1 && cache.is_empty()) {
            let message = format!("tokens of {b} sequences for a cache of {sequences} that has {}", cache.len);
            return Err(binade_nn::Error::Config { layer: "Gpt", message });
        }
        scope::no_grad(|| {
            self.within(|| {
                let mut x = self.embed(index, cache.len)?;
                for (block, kept) in self.transformer.h.iter().zip(&cache.blocks) {
                    x = block.read(&x, kept, cache.len)?;
                }
                cache.len += t;
                self.logits(&self.transformer.ln_f.forward(&x.narrow(1, t - 1, 1)?)?)
            })
        })
    }
}

impl Block {
    fn read(&self, x: &Var, kept: &[Array; 2], len: usize) -> Result<Var> {
        self.within(|| {
            let x = (x + &self.dropout.forward(&self.attn.read(&self.ln_1.forward(x)?, kept, len)?)?)?;
            Ok((&x + &self.dropout.forward(&self.mlp.forward(&self.ln_2.forward(&x)?)?)?)?)
        })
    }
}

impl Attention {
    fn read(&self, x: &Var, kept: &[Array; 2], len: usize) -> Result<Var> {
        self.within(|| {
            let qkv = self.c_attn.forward(x)?;
            let (b, t, d) = (x.shape()[0] as isize, x.shape()[1], x.shape()[2] as isize);
            let heads = self.heads as isize;
            let qkv = qkv.reshape(&[b, t as isize, 3, heads, d / heads])?.permute(&[2, 1, 0, 3, 4])?;
            let part = |i: usize| qkv.narrow(0, i, 1)?.squeeze(0); // (T, B, H, D/H)
            let b = b as usize;
            for (i, kept) in kept.iter().enumerate() {
                let to = Var::constant(kept.clone()).narrow(0, len, t)?;
                to.array().copy_from(part(1 + i)?.expand(to.shape())?.array())?;
            }
            let by_head = |x: Var| x.permute(&[1, 2, 0, 3]); // (B, H, T, D/H)
            let seen = |i: usize| Var::constant(kept[i].clone()).narrow(0, 0, len + t)?.narrow(1, 0, b);
            let [keys, values] = [0, 1].map(|i| by_head(seen(i)?));
            // A single query sees all that was read.
            let settings = Settings { causal: t > 1, ..self.settings };
            let y = by_head(part(0)?)?.attention(&keys?, &values?, settings)?;
            self.c_proj.forward(&y.transpose(1, 2)?.reshape(&[b as isize, t as isize, d])?)
        })
    }
}
