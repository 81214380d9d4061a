//! Multi-head attention and Transformer blocks, with PyTorch's names and settings.

use binade_autograd::Var;
use binade_tensor::op::{Attention, Unary};

use crate::{Dropout, Error, Init, Layer, LayerNorm, Linear, Mode, Module, Param, Result, Visitor};

/// Multi-head attention of queries `[B, T, E]` over keys and values `[B, S, E]` (PyTorch's MultiheadAttention, batch
/// first).
#[derive(Clone, Module)]
pub struct MultiHeadAttention {
    /// `[3·E, E]`: queries, keys, values.
    pub in_proj_weight: Param,
    /// `[3·E]`
    pub in_proj_bias: Param,
    /// `[E, E]`
    pub out_proj: Linear,
    /// Number of heads; divides E.
    pub heads: usize,
    /// Dropout of attention weights in training.
    pub dropout: f64,
    /// Training or evaluation; the scope's by default.
    pub mode: Mode,
}

impl MultiHeadAttention {
    /// For `features` divisible by `heads`.
    ///
    /// # Errors
    /// It is not; a probability outside [0, 1).
    pub fn new(features: usize, heads: usize, dropout: f64) -> Result<MultiHeadAttention> {
        if heads == 0 || !features.is_multiple_of(heads) {
            let message = format!("{heads} heads must divide {features} features");
            return Err(Error::Config { layer: "MultiHeadAttention", message });
        }
        Error::unless(
            (0.0..1.0).contains(&dropout),
            "MultiHeadAttention",
            "probability of dropping out",
            "at least 0 and below 1",
            dropout,
        )?;
        let out_proj = Linear {
            bias: Some(Param::init(&[features], Init::Constant(0.0))?),
            ..Linear::without_bias(features, features)?
        };
        Ok(MultiHeadAttention {
            in_proj_weight: Param::init(&[3 * features, features], Init::XavierUniform { gain: 1.0 })?,
            in_proj_bias: Param::init(&[3 * features], Init::Constant(0.0))?,
            out_proj,
            heads,
            dropout,
            mode: Mode::default(),
        })
    }

    /// Attention of `query` over `memory` (itself for self-attention). The mask, if any, broadcasts to `[B, heads, T,
    /// S]`: bool (true takes part, unlike PyTorch's module but like its functional) or float (added).
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn forward(&self, query: &Var, memory: &Var, mask: Option<&Var>, causal: bool) -> Result<Var> {
        self.within(|| self.attend(query, memory, mask, causal))
    }

    fn attend(&self, query: &Var, memory: &Var, mask: Option<&Var>, causal: bool) -> Result<Var> {
        let rank = [query, memory].map(|v| v.shape().rank());
        if rank != [3, 3] {
            let message = format!("expected [B, T, E] and [B, S, E], got {:?} and {:?}", query.shape(), memory.shape());
            return Err(Error::Config { layer: "MultiHeadAttention", message });
        }
        let (weight, bias) = (self.in_proj_weight.var(), self.in_proj_bias.var());
        let (e, heads) = (weight.shape()[1], self.heads as isize);
        let project = |x: &Var, part: usize| -> Result<Var> {
            let y = x.linear(&weight.narrow(0, part * e, e)?, Some(&bias.narrow(0, part * e, e)?), None)?;
            let (b, t) = (x.shape()[0] as isize, x.shape()[1] as isize);
            Ok(y.reshape(&[b, t, heads, e as isize / heads])?.transpose(1, 2)?) // (B, heads, T, E/heads)
        };
        let (q, k, v) = (project(query, 0)?, project(memory, 1)?, project(memory, 2)?);
        let attention = Attention { causal, ..Attention::default() };
        let attend = || q.attention_dropout(&k, &v, mask, self.dropout, attention);
        let y = self.mode.run(attend)?;
        let (b, t) = (query.shape()[0] as isize, query.shape()[1] as isize);
        self.out_proj.forward(&y.transpose(1, 2)?.reshape(&[b, t, e as isize])?)
    }
}

/// Settings of a Transformer block; defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransformerConfig {
    /// Features.
    pub features: usize,
    /// Heads.
    pub heads: usize,
    /// Features of the hidden layer.
    pub hidden: usize,
    /// Dropout of attention weights, hidden features and residual branches.
    pub dropout: f64,
    /// Activation of the hidden layer.
    pub act: Unary,
    /// Normalise before each branch (GPT-2, ViT) instead of after each sum (the paper).
    pub norm_first: bool,
}

impl TransformerConfig {
    /// For so many features and heads.
    pub fn new(features: usize, heads: usize) -> TransformerConfig {
        TransformerConfig { features, heads, hidden: 2048, dropout: 0.1, act: Unary::Relu, norm_first: false }
    }
}

/// Attention to itself, then two linear layers, each with a residual connection (Vaswani et al. 2017).
#[derive(Clone, Module)]
pub struct TransformerEncoderLayer {
    /// Attention of the sequence to itself.
    pub self_attn: MultiHeadAttention,
    /// `[hidden, features]`
    pub linear1: Linear,
    /// `[features, hidden]`
    pub linear2: Linear,
    /// Of the attention branch.
    pub norm1: LayerNorm,
    /// Of the linear branch.
    pub norm2: LayerNorm,
    /// Activation of the hidden layer.
    pub act: Unary,
    /// Whether norms come first.
    pub norm_first: bool,
    /// Dropout of hidden features and branches.
    pub dropout: Dropout,
}

impl TransformerEncoderLayer {
    /// A block.
    ///
    /// # Errors
    /// Heads that do not divide the features.
    pub fn new(c: TransformerConfig) -> Result<TransformerEncoderLayer> {
        Ok(TransformerEncoderLayer {
            self_attn: MultiHeadAttention::new(c.features, c.heads, c.dropout)?,
            linear1: Linear::new(c.features, c.hidden)?,
            linear2: Linear::new(c.hidden, c.features)?,
            norm1: LayerNorm::new(c.features)?,
            norm2: LayerNorm::new(c.features)?,
            act: c.act,
            norm_first: c.norm_first,
            dropout: Dropout::new(c.dropout)?,
        })
    }

    /// `[B, T, E]` to the same.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn forward(&self, x: &Var, mask: Option<&Var>, causal: bool) -> Result<Var> {
        let attend = |x: &Var| self.dropout.forward(&self.self_attn.forward(x, x, mask, causal)?);
        let feed = |x: &Var| feed_forward(x, &self.linear1, &self.linear2, self.act, &self.dropout);
        self.within(|| {
            let x = residual(x, &self.norm1, self.norm_first, attend)?;
            residual(&x, &self.norm2, self.norm_first, feed)
        })
    }
}

/// As [`TransformerEncoderLayer`], with attention to a memory in between.
#[derive(Clone, Module)]
pub struct TransformerDecoderLayer {
    /// Attention of the sequence to itself.
    pub self_attn: MultiHeadAttention,
    /// Attention to the memory.
    pub multihead_attn: MultiHeadAttention,
    /// `[hidden, features]`
    pub linear1: Linear,
    /// `[features, hidden]`
    pub linear2: Linear,
    /// Of the branch of attention to itself.
    pub norm1: LayerNorm,
    /// Of the branch of attention to the memory.
    pub norm2: LayerNorm,
    /// Of the linear branch.
    pub norm3: LayerNorm,
    /// Activation of the hidden layer.
    pub act: Unary,
    /// Whether norms come first.
    pub norm_first: bool,
    /// Dropout of hidden features and branches.
    pub dropout: Dropout,
}

impl TransformerDecoderLayer {
    /// A block.
    ///
    /// # Errors
    /// Heads that do not divide the features.
    pub fn new(c: TransformerConfig) -> Result<TransformerDecoderLayer> {
        Ok(TransformerDecoderLayer {
            self_attn: MultiHeadAttention::new(c.features, c.heads, c.dropout)?,
            multihead_attn: MultiHeadAttention::new(c.features, c.heads, c.dropout)?,
            linear1: Linear::new(c.features, c.hidden)?,
            linear2: Linear::new(c.hidden, c.features)?,
            norm1: LayerNorm::new(c.features)?,
            norm2: LayerNorm::new(c.features)?,
            norm3: LayerNorm::new(c.features)?,
            act: c.act,
            norm_first: c.norm_first,
            dropout: Dropout::new(c.dropout)?,
        })
    }

    /// `[B, T, E]` with a memory `[B, S, E]`; `causal` is for the attention to itself.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn forward(&self, x: &Var, memory: &Var, memory_mask: Option<&Var>, causal: bool) -> Result<Var> {
        let itself = |x: &Var| self.dropout.forward(&self.self_attn.forward(x, x, None, causal)?);
        let other = |x: &Var| self.dropout.forward(&self.multihead_attn.forward(x, memory, memory_mask, false)?);
        let feed = |x: &Var| feed_forward(x, &self.linear1, &self.linear2, self.act, &self.dropout);
        self.within(|| {
            let x = residual(x, &self.norm1, self.norm_first, itself)?;
            let x = residual(&x, &self.norm2, self.norm_first, other)?;
            residual(&x, &self.norm3, self.norm_first, feed)
        })
    }
}

/// `x + branch(norm(x))`, or `norm(x + branch(x))`.
fn residual(x: &Var, norm: &LayerNorm, norm_first: bool, branch: impl Fn(&Var) -> Result<Var>) -> Result<Var> {
    if norm_first { Ok(x.add(&branch(&norm.forward(x)?)?)?) } else { norm.forward(&x.add(&branch(x)?)?) }
}

fn feed_forward(x: &Var, first: &Linear, second: &Linear, act: Unary, dropout: &Dropout) -> Result<Var> {
    let hidden = dropout.forward(&first.forward_act(x, act)?)?;
    dropout.forward(&second.forward(&hidden)?)
}
