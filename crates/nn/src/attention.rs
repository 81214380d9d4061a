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
        let (b, t, d) = match **x.shape() {
            [b, t, d] => (b as isize, t as isize, d as isize),
            _ => {
                let message = format!("expected [B, T, D], got {:?}", x.shape());
                return Err(crate::Error::Config { layer: "SelfAttention", message });
            }
        };
        let heads = self.heads as isize;
        let qkv = self.qkv.forward(x)?.reshape(&[b, t, 3, heads, d / heads])?; // (B, T, 3, H, D/H)
        let qkv = qkv.permute(&[2, 0, 3, 1, 4])?; // (3, B, H, T, D/H)
        let part = |i: usize| qkv.narrow(0, i, 1)?.squeeze(0);
        let attention = Attention { causal: self.causal, ..Attention::default() };
        let y = part(0)?.attention(&part(1)?, &part(2)?, attention)?; // (B, H, T, D/H)
        self.proj.forward(&y.transpose(1, 2)?.reshape(&[b, t, d])?)
    }
}
