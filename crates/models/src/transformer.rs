//! The block that the vision and language transformers share.

use binade_autograd::Var;
use binade_nn::{Layer, LayerNorm, Linear, Module, Result, SelfAttention, Visitor};
use binade_tensor::op::Unary::Gelu;

/// Pre-norm transformer block: `x + attention(norm(x))`, then `x + mlp(norm(x))` with a hidden layer four times as wide
/// and exact GELU.
#[derive(Clone, Module)]
pub struct Block {
    norm1: LayerNorm,
    attention: SelfAttention,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    pub(crate) fn new(features: usize, heads: usize, causal: bool) -> Result<Block> {
        Ok(Block {
            norm1: LayerNorm::new(features)?,
            attention: SelfAttention::new(features, heads, causal)?,
            norm2: LayerNorm::new(features)?,
            up: Linear::new(features, 4 * features)?,
            down: Linear::new(4 * features, features)?,
        })
    }
}

impl Layer for Block {
    /// `[B, T, D]` to the same shape.
    fn run(&self, x: &Var) -> Result<Var> {
        let x = (x + &self.attention.forward(&self.norm1.forward(x)?)?)?;
        let h = self.up.forward(&self.norm2.forward(&x)?)?;
        Ok((&x + &self.down.forward_of(Gelu, &h)?)?)
    }
}
