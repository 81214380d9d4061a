//! Attention between the pixels of an image, and from pixels to a text.

use binade_autograd::Var;
use binade_nn::{Dropout, GroupNorm, Layer, LayerNorm, Linear, Module, Param, Result, Visitor};
use binade_tensor::DType;
use binade_tensor::op::{Attention as Scaled, Unary};

use super::blocks::{Given, group_norm, run};
use super::lora::Adapted;

/// Attention of queries `[N, T, C]` over a context `[N, S, D]`. Scores and their softmax are f32 in every policy.
#[derive(Clone, Module)]
pub(crate) struct Attention {
    group_norm: Option<GroupNorm>,
    to_q: Adapted,
    to_k: Adapted,
    to_v: Adapted,
    to_out: [Adapted; 1],
    heads: usize,
}

fn linear(inputs: usize, outputs: usize, bias: bool) -> Result<Adapted> {
    let linear = if bias { Linear::new(inputs, outputs) } else { Linear::without_bias(inputs, outputs) };
    Ok(linear?.into())
}

impl Attention {
    fn new(features: usize, context: usize, heads: usize, bias: bool) -> Result<Attention> {
        Ok(Attention {
            group_norm: None,
            to_q: linear(features, features, bias)?,
            to_k: linear(context, features, bias)?,
            to_v: linear(context, features, bias)?,
            to_out: [linear(features, features, true)?],
            heads,
        })
    }

    fn attend(&self, x: &Var, context: &Var) -> Result<Var> {
        self.within(|| {
            let (heads, batch) = (self.heads as isize, x.shape()[0] as isize);
            let split = |x: Var| -> Result<Var> {
                let (t, c) = (x.shape()[1] as isize, x.shape()[2] as isize);
                Ok(x.reshape(&[batch, t, heads, c / heads])?.transpose(1, 2)?) // (N, heads, T, C/heads)
            };
            let q = split(self.to_q.forward(x)?)?;
            let (k, v) = (split(self.keys(context)?)?, split(self.to_v.forward(context)?)?);
            let y = q.attention(&k, &v, Scaled::default())?.transpose(1, 2)?;
            self.to_out[0].forward(&y.reshape(&[batch, -1, (y.shape()[2] * y.shape()[3]) as isize])?)
        })
    }
}

impl Attention {
    /// Keys without their bias: it adds the same to all scores of a query, which softmax takes out again. So its
    /// gradient is 0, which rounded scores would make some small number.
    fn keys(&self, context: &Var) -> Result<Var> {
        self.to_k.forward_without_bias(context)
    }

    /// Adds changes of low rank to all four matrices.
    fn adapt(&mut self, rank: usize, scale: f64) -> Result<()> {
        let [out] = &mut self.to_out;
        [&mut self.to_q, &mut self.to_k, &mut self.to_v, out].into_iter().try_for_each(|m| m.adapt(rank, scale))
    }
}

/// Pixels `[N, C, H, W]` as positions `[N, H·W, C]`: nothing is copied where channels lie last in memory.
fn tokens(x: &Var) -> Result<Var> {
    let [n, c, h, w] = std::array::from_fn(|d| x.shape()[d] as isize);
    Ok(x.permute(&[0, 2, 3, 1])?.reshape(&[n, h * w, c])?)
}

/// Back to the shape of an image.
fn pixels(x: &Var, like: &Var) -> Result<Var> {
    let [n, _, h, w] = std::array::from_fn(|d| like.shape()[d] as isize);
    Ok(x.reshape(&[n, h, w, -1])?.permute(&[0, 3, 1, 2])?)
}

/// Attention of an image's pixels to each other, with a shortcut around.
#[derive(Clone, Module)]
pub(crate) struct PixelAttention {
    #[module(flatten)]
    attention: Attention,
    scale: f64,
}

impl PixelAttention {
    /// With heads of `head` features, a norm of so many groups or none, and a result divided by `scale`.
    pub fn new(channels: usize, head: usize, norm: Option<(usize, f64)>, scale: f64) -> Result<PixelAttention> {
        let norm = norm.map(|(groups, eps)| group_norm(groups, channels, eps)).transpose()?;
        let attention = Attention::new(channels, channels, channels / head, true)?;
        Ok(PixelAttention { attention: Attention { group_norm: norm, ..attention }, scale })
    }
}

impl Layer for PixelAttention {
    fn run(&self, x: &Var) -> Result<Var> {
        let h = self.attention.group_norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(x))?;
        let h = tokens(&h)?;
        let sum = (&x.cast(DType::F32)? + &pixels(&self.attention.attend(&h, &h)?, x)?)?;
        if self.scale == 1.0 { Ok(sum) } else { Ok((&sum * (1.0 / self.scale))?) }
    }
}

/// A linear layer with the exact GELU of its one half times the other.
#[derive(Clone, Module)]
struct Geglu {
    proj: Linear,
}

impl Layer for Geglu {
    fn run(&self, x: &Var) -> Result<Var> {
        let both = self.proj.forward(x)?;
        let half = both.shape()[2] / 2;
        Ok((&both.narrow(2, 0, half)? * &both.narrow(2, half, half)?.unary(Unary::Gelu)?)?)
    }
}

/// The layers of a [`FeedForward`], numbered as in the library, where a dropout is between them.
#[derive(Clone, Module)]
struct Net {
    #[module(rename = "0")]
    gated: Geglu,
    #[module(rename = "2")]
    out: Linear,
}

#[derive(Clone, Module)]
struct FeedForward {
    net: Net,
}

/// Attention of positions to each other, attention to the context, two linear layers; each after a norm and with a
/// shortcut.
#[derive(Clone, Module)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
    dropout: Dropout,
    only_cross: bool,
}

impl BasicTransformerBlock {
    fn new(channels: usize, plan: &TransformerPlan) -> Result<BasicTransformerBlock> {
        let TransformerPlan { heads, context, only_cross, dropout, .. } = *plan;
        let attn1 = Attention::new(channels, if only_cross { context } else { channels }, heads, false)?;
        let gated = Geglu { proj: Linear::new(channels, 8 * channels)? };
        Ok(BasicTransformerBlock {
            norm1: LayerNorm::new(channels)?,
            attn1,
            norm2: LayerNorm::new(channels)?,
            attn2: Attention::new(channels, context, heads, false)?,
            norm3: LayerNorm::new(channels)?,
            ff: FeedForward { net: Net { gated, out: Linear::new(4 * channels, channels)? } },
            dropout: Dropout::new(dropout)?,
            only_cross,
        })
    }

    fn block(&self, x: &Var, context: &Var) -> Result<Var> {
        self.within(|| {
            let h = self.norm1.forward(x)?;
            let h = self.attn1.attend(&h, if self.only_cross { context } else { &h })?;
            let x = (x + &self.dropout.forward(&h)?)?;
            let h = self.attn2.attend(&self.norm2.forward(&x)?, context)?;
            let x = (&x + &self.dropout.forward(&h)?)?;
            let h = self.ff.within(|| {
                let h = self.ff.net.gated.forward(&self.norm3.forward(&x)?)?;
                self.ff.net.out.forward(&self.dropout.forward(&h)?)
            })?;
            Ok((&x + &h)?)
        })
    }
}

/// Extents of a [`Transformer2DModel`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransformerPlan {
    pub heads: usize,
    /// Blocks.
    pub layers: usize,
    /// Features of the context.
    pub context: usize,
    /// Whether the projections are linear layers, whose weights have two dimensions, or 1×1 convolutions with four.
    pub linear: bool,
    /// Whether the first attention is to the context too.
    pub only_cross: bool,
    pub dropout: f64,
}

/// A linear map of every position. Its weight is `[out, in]` or `[out, in, 1, 1]`.
#[derive(Clone, Module)]
struct Projection {
    weight: Param,
    bias: Param,
}

impl Projection {
    fn new(channels: usize, linear: bool) -> Result<Projection> {
        let shape = [channels, channels, 1, 1];
        let weight = Param::init(&shape[..if linear { 2 } else { 4 }], binade_nn::Init::default_weight())?;
        Ok(Projection { weight, bias: Param::init(&[channels], binade_nn::Init::default_bias(channels))? })
    }
}

impl Layer for Projection {
    fn run(&self, x: &Var) -> Result<Var> {
        let weight = self.weight.var();
        let matrix = weight.reshape(&[weight.shape()[0] as isize, -1])?;
        Ok(x.linear(&matrix, Some(&self.bias.var()), None)?)
    }
}

/// A transformer over the pixels of an image, with a shortcut around.
#[derive(Clone, Module)]
pub(crate) struct Transformer2DModel {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}

impl Transformer2DModel {
    /// The norm's eps is 1e-6 whatever that of the model is.
    pub fn new(channels: usize, groups: usize, plan: &TransformerPlan) -> Result<Transformer2DModel> {
        let blocks = (0..plan.layers).map(|_| BasicTransformerBlock::new(channels, plan));
        Ok(Transformer2DModel {
            norm: group_norm(groups, channels, 1e-6)?,
            proj_in: Projection::new(channels, plan.linear)?,
            transformer_blocks: blocks.collect::<Result<_>>()?,
            proj_out: Projection::new(channels, plan.linear)?,
        })
    }

    fn block(&self, x: &Var, context: &Var) -> Result<Var> {
        self.within(|| {
            // Sums of many blocks are kept in f32.
            let mut h = self.proj_in.forward(&tokens(&self.norm.forward(x)?)?)?.cast(DType::F32)?;
            for block in &self.transformer_blocks {
                h = block.block(&h, context)?;
            }
            Ok((&x.cast(DType::F32)? + &pixels(&self.proj_out.forward(&h)?, x)?)?)
        })
    }
}

/// What is between residual blocks: attention of pixels to each other, a transformer, or nothing.
#[derive(Clone, Module)]
pub(crate) struct Mixer {
    #[module(flatten)]
    attention: Option<PixelAttention>,
    #[module(flatten)]
    transformer: Option<Transformer2DModel>,
}

impl Mixer {
    pub fn attention(attention: PixelAttention) -> Mixer {
        Mixer { attention: Some(attention), transformer: None }
    }

    pub fn transformer(transformer: Transformer2DModel) -> Mixer {
        Mixer { attention: None, transformer: Some(transformer) }
    }

    /// Adds changes of low rank to all attention.
    pub fn adapt(&mut self, rank: usize, scale: f64) -> Result<()> {
        let blocks = self.transformer.iter_mut().flat_map(|transformer| &mut transformer.transformer_blocks);
        let attention = self.attention.iter_mut().map(|attention| &mut attention.attention);
        attention.chain(blocks.flat_map(|b| [&mut b.attn1, &mut b.attn2])).try_for_each(|a| a.adapt(rank, scale))
    }

    pub fn forward(&self, x: &Var, given: Given<'_>) -> Result<Var> {
        if let Some(attention) = &self.attention {
            return run(attention, given.recompute, &[x], |block, v| block.forward(&v[0]));
        }
        let Some(transformer) = &self.transformer else { return Ok(x.clone()) };
        let Some(context) = given.context else {
            let message = "its blocks attend to a context, and none is given".into();
            return Err(binade_nn::Error::Config { layer: "Transformer2DModel", message });
        };
        let context = if context.dtype().is_half() { context.clone() } else { context.cast(DType::F32)? };
        run(transformer, given.recompute, &[x, &context], |block, v| block.block(&v[0], &v[1]))
    }
}
