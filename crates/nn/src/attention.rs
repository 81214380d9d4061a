//! Multi-head self-attention.

use binade_autograd::Var;
use binade_tensor::op::Attention;

use crate::{Layer, Linear, Module, Result, Visitor};

/// Multi-head self-attention of `[B, T, D]` with one projection for queries, keys and values.
#[derive(Clone, Module)]
pub struct SelfAttention {
    /// `[3·D, D]`: queries, keys, values.
    pub qkv: Linear,
    /// `[D, D]`
    pub proj: Linear,
    /// Number of heads; divides D.
    pub heads: usize,
    /// Whether positions see only themselves and what is before them.
    pub causal: bool,
}

impl SelfAttention {
    /// For `features` divisible by `heads`.
    ///
    /// # Errors
    /// It is not.
    pub fn new(features: usize, heads: usize, causal: bool) -> Result<SelfAttention> {
        if heads == 0 || !features.is_multiple_of(heads) {
            let message = format!("{heads} heads must divide {features} features");
            return Err(crate::Error::Config { layer: "SelfAttention", message });
        }
        Ok(SelfAttention {
            qkv: Linear::new(features, 3 * features)?,
            proj: Linear::new(features, features)?,
            heads,
            causal,
        })
    }
}

impl Layer for SelfAttention {
    fn run(&self, x: &Var) -> Result<Var> {
        let attention = Attention { causal: self.causal, ..Attention::default() };
        self.proj.forward(&attend_packed(&self.qkv.forward(x)?, self.heads, 0.0, attention)?)
    }
}

/// Attention of several heads to queries, keys and values that one product gave, `[B, T, 3·D]` to `[B, T, D]`. Its
/// weights drop out with probability `dropout` in training.
///
/// # Errors
/// The shape is another, the heads do not divide it, `dropout` is no probability.
pub fn attend_packed(qkv: &Var, heads: usize, dropout: f64, attention: Attention) -> Result<Var> {
    let (b, t, d) = match **qkv.shape() {
        [b, t, d] if heads > 0 && d.is_multiple_of(3 * heads) => (b as isize, t as isize, d as isize / 3),
        _ => {
            let message = format!("expected [B, T, 3·D] for {heads} heads, got {:?}", qkv.shape());
            return Err(crate::Error::Config { layer: "attention", message });
        }
    };
    let heads = heads as isize;
    let qkv = qkv.reshape(&[b, t, 3, heads, d / heads])?.permute(&[2, 0, 3, 1, 4])?; // (3, B, H, T, D/H)
    let part = |i: usize| qkv.narrow(0, i, 1)?.squeeze(0);
    let y = part(0)?.attention_dropout(&part(1)?, &part(2)?, None, dropout, attention)?; // (B, H, T, D/H)
    Ok(y.transpose(1, 2)?.reshape(&[b, t, d])?)
}
