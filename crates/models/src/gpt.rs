//! GPT-2 (Radford et al., 2019) in the extents of nanoGPT.

use binade_autograd::{Var, scope};
use binade_nn::{Embedding, Init, Layer, LayerNorm, Module, Param, Result, Visitor};

use crate::transformer::Block;

/// Extents of a [`Gpt`].
#[derive(Clone, Debug, PartialEq)]
pub struct GptConfig {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Longest sequence.
    pub context: usize,
    /// Features of a token.
    pub features: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of attention; divide the features.
    pub heads: usize,
}

impl Default for GptConfig {
    /// nanoGPT's character model of Shakespeare.
    fn default() -> Self {
        GptConfig { vocabulary: 65, context: 256, features: 384, depth: 6, heads: 6 }
    }
}

/// Token and position embeddings, causal pre-norm blocks, and a head that is the token embedding.
#[derive(Clone, Module)]
pub struct Gpt {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Gpt {
    /// Embeddings normal with deviation 0.02, else PyTorch's default initial values, from the scope's stream.
    ///
    /// # Errors
    /// Heads that do not divide the features.
    pub fn new(config: &GptConfig) -> Result<Gpt> {
        let GptConfig { vocabulary, context, features, depth, heads } = *config;
        let table = |rows: usize| -> Result<Embedding> {
            let weight = Param::init(&[rows, features], Init::Normal { mean: 0.0, std: 0.02 })?;
            Ok(Embedding { weight, padding: None })
        };
        Ok(Gpt {
            tokens: table(vocabulary)?,
            positions: table(context)?,
            blocks: (0..depth).map(|_| Block::new(features, heads, true)).collect::<Result<_>>()?,
            norm: LayerNorm::new(features)?,
        })
    }
}

impl Layer for Gpt {
    /// Indices `[B, T]` to logits `[B, T, vocabulary]`.
    fn run(&self, index: &Var) -> Result<Var> {
        let t = index.shape()[index.shape().rank() - 1];
        let positions = scope::with_device(index.array().device(), || Var::arange(0, t))?;
        let mut x = (&self.tokens.forward(index)? + &self.positions.forward(&positions)?)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(self.norm.forward(&x)?.linear(&self.tokens.weight.var(), None, None)?)
    }
}
