//! [`AutoencoderKL`]: images to latents and back (Kingma and Welling, 2014; Rombach et al., 2022).

use std::collections::BTreeSet;

use binade_autograd::Var;
use binade_nn::{Conv2d, GroupNorm, Layer, Module, Visitor};
use binade_tensor::DType;
use binade_tensor::op::Unary;
use binade_weights::Sources;
use serde::Serialize;
use serde_json::{Value, json};

use super::blocks::{Given, Size, Style, group_norm, wide};
use super::settings::{Check, activation, legacy_attention, strings};
use super::unet::{Block, Ending, Level, Mix};
use crate::{Keys, Pretrained, Result};

/// Added to the variance of every norm.
const EPS: f64 = 1e-6;

/// The keys of an `AutoencoderKL`'s `config.json`. The default is the library's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AutoencoderKLConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the decoded image.
    pub out_channels: usize,
    /// `DownEncoderBlock2D` per level.
    pub down_block_types: Vec<String>,
    /// `UpDecoderBlock2D` per level.
    pub up_block_types: Vec<String>,
    /// Channels per level; every level but the last halves the image.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level of the encoder; one more in the decoder.
    pub layers_per_block: usize,
    /// Activation.
    pub act_fn: String,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Height and width that it was made for.
    pub sample_size: Value,
    /// What a latent is multiplied by before it is diffused: 1 over the standard deviation of latents.
    pub scaling_factor: f64,
    /// What is subtracted from a latent before that.
    pub shift_factor: Option<f64>,
    /// Whether f16 overflows in it, says who trained it.
    pub force_upcast: bool,
    /// Whether a 1×1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1×1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle has attention.
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKLConfig {
    fn default() -> AutoencoderKLConfig {
        AutoencoderKLConfig {
            in_channels: 3,
            out_channels: 3,
            down_block_types: strings(&["DownEncoderBlock2D"]),
            up_block_types: strings(&["UpDecoderBlock2D"]),
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".into(),
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: json!(32),
            scaling_factor: 0.18215,
            shift_factor: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl AutoencoderKLConfig {
    /// Reads a `config.json`; what is absent is the library's default.
    ///
    /// # Errors
    /// Every key that is not built or not known.
    pub fn read(config: &Value) -> Result<AutoencoderKLConfig> {
        let mut keys = Keys::new("AutoencoderKL", config)?;
        let d = AutoencoderKLConfig::default();
        let all = AutoencoderKLConfig {
            in_channels: keys.or("in_channels", d.in_channels),
            out_channels: keys.or("out_channels", d.out_channels),
            down_block_types: keys.or("down_block_types", d.down_block_types),
            up_block_types: keys.or("up_block_types", d.up_block_types),
            block_out_channels: keys.or("block_out_channels", d.block_out_channels),
            layers_per_block: keys.or("layers_per_block", d.layers_per_block),
            act_fn: keys.or("act_fn", d.act_fn),
            latent_channels: keys.or("latent_channels", d.latent_channels),
            norm_num_groups: keys.not_null("norm_num_groups", d.norm_num_groups),
            sample_size: keys.or("sample_size", d.sample_size),
            scaling_factor: keys.or("scaling_factor", d.scaling_factor),
            shift_factor: keys.optional("shift_factor"),
            force_upcast: keys.or("force_upcast", true),
            use_quant_conv: keys.or("use_quant_conv", true),
            use_post_quant_conv: keys.or("use_post_quant_conv", true),
            mid_block_add_attention: keys.or("mid_block_add_attention", true),
        };
        keys.only("_class_name", &[json!("AutoencoderKL")]);
        keys.only("latents_mean", &[]);
        keys.only("latents_std", &[]);
        keys.harmless(&["_diffusers_version", "_name_or_path"]);
        all.check(&mut keys);
        keys.finish()?;
        Ok(all)
    }

    fn check(&self, keys: &mut Keys) -> Unary {
        let act = activation("act_fn", &self.act_fn, keys);
        let mut check = Check(keys);
        check.levels(&self.block_out_channels, &self.down_block_types, &self.up_block_types);
        check.groups(&self.block_out_channels, self.norm_num_groups);
        check.positive("layers_per_block", self.layers_per_block);
        check.positive("latent_channels", self.latent_channels);
        check.scale("scaling_factor", self.scaling_factor);
        for kind in &self.down_block_types {
            check.choice("down_block_types", kind, &["DownEncoderBlock2D"]);
        }
        for kind in &self.up_block_types {
            check.choice("up_block_types", kind, &["UpDecoderBlock2D"]);
        }
        act
    }

    fn middle(&self, channels: usize) -> Mix {
        let groups = Some(self.norm_num_groups);
        if self.mid_block_add_attention { Mix::Attention { head: channels, groups } } else { Mix::Nothing }
    }
}

/// Images to the moments of latents.
#[derive(Clone, Module)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<Block>,
    mid_block: Block,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    act: Unary,
    recompute: bool,
}

fn given(recompute: bool) -> Given<'static> {
    Given { time: None, context: None, recompute }
}

impl Encoder {
    fn new(config: &AutoencoderKLConfig, style: &Style) -> Result<Encoder> {
        let channels = &config.block_out_channels;
        let mut c = channels[0];
        let conv_in = Conv2d::same(config.in_channels, c, 3)?;
        let mut down_blocks = Vec::new();
        for (i, &outputs) in channels.iter().enumerate() {
            let inputs: Vec<usize> = (0..config.layers_per_block).map(|j| if j == 0 { c } else { outputs }).collect();
            let level = Level { channels: outputs, layers: inputs.len(), mix: Mix::Nothing, ending: Ending::Conv(0) };
            let half = (i + 1 < channels.len()).then_some(Size::Half);
            down_blocks.push(Block::new(&inputs, &level, style, half)?);
            c = outputs;
        }
        Ok(Encoder {
            conv_in,
            down_blocks,
            mid_block: Block::middle(c, style, &config.middle(c))?,
            conv_norm_out: group_norm(style.groups, c, EPS)?,
            conv_out: Conv2d::same(c, 2 * config.latent_channels, 3)?,
            act: style.act,
            recompute: false,
        })
    }
}

impl Layer for Encoder {
    fn run(&self, x: &Var) -> binade_nn::Result<Var> {
        let mut h = wide(&self.conv_in, x)?;
        for block in &self.down_blocks {
            h = block.run_down(&h, given(self.recompute), &mut Vec::new())?;
        }
        h = self.mid_block.run_middle(&h, given(self.recompute))?;
        wide(&self.conv_out, &self.conv_norm_out.forward_act(&h, self.act)?)
    }
}

/// Latents to images.
#[derive(Clone, Module)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: Block,
    up_blocks: Vec<Block>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    act: Unary,
    recompute: bool,
}

impl Decoder {
    fn new(config: &AutoencoderKLConfig, style: &Style) -> Result<Decoder> {
        let channels = &config.block_out_channels;
        let mut c = channels[channels.len() - 1];
        let conv_in = Conv2d::same(config.latent_channels, c, 3)?;
        let mid_block = Block::middle(c, style, &config.middle(c))?;
        let mut up_blocks = Vec::new();
        for (i, &outputs) in channels.iter().rev().enumerate() {
            let inputs: Vec<usize> = (0..=config.layers_per_block).map(|j| if j == 0 { c } else { outputs }).collect();
            let level = Level { channels: outputs, layers: inputs.len(), mix: Mix::Nothing, ending: Ending::Conv(1) };
            let double = (i + 1 < channels.len()).then_some(Size::Double);
            up_blocks.push(Block::new(&inputs, &level, style, double)?);
            c = outputs;
        }
        Ok(Decoder {
            conv_in,
            mid_block,
            up_blocks,
            conv_norm_out: group_norm(style.groups, c, EPS)?,
            conv_out: Conv2d::same(c, config.out_channels, 3)?,
            act: style.act,
            recompute: false,
        })
    }
}

impl Layer for Decoder {
    fn run(&self, z: &Var) -> binade_nn::Result<Var> {
        let mut h = self.mid_block.run_middle(&wide(&self.conv_in, z)?, given(self.recompute))?;
        for block in &self.up_blocks {
            h = block.run_up(&h, given(self.recompute), &mut Vec::new())?;
        }
        wide(&self.conv_out, &self.conv_norm_out.forward_act(&h, self.act)?)
    }
}

/// Images to normal distributions of latents, and latents to images.
#[derive(Clone, Module)]
pub struct AutoencoderKL {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    #[module(skip)]
    config: AutoencoderKLConfig,
}

impl AutoencoderKL {
    /// With PyTorch's default initial values, as the library has them, from the scope's stream.
    ///
    /// # Errors
    /// Extents that do not fit each other; out of memory.
    pub fn new(config: &AutoencoderKLConfig) -> Result<AutoencoderKL> {
        let mut keys = Keys::new("AutoencoderKL", &json!({}))?;
        let act = config.check(&mut keys);
        keys.finish()?;
        let groups = config.norm_num_groups;
        let style = Style { time: None, groups, eps: EPS, act, dropout: 0.0, scale_shift: false, scale: 1.0 };
        let (encoder, latent) = (Encoder::new(config, &style)?, config.latent_channels);
        let conv = |wanted: bool, c: usize| wanted.then(|| Conv2d::new(c, c, 1)).transpose();
        Ok(AutoencoderKL {
            encoder,
            decoder: Decoder::new(config, &style)?,
            quant_conv: conv(config.use_quant_conv, 2 * latent)?,
            post_quant_conv: conv(config.use_post_quant_conv, latent)?,
            config: config.clone(),
        })
    }

    /// What it was made from.
    pub fn config(&self) -> &AutoencoderKLConfig {
        &self.config
    }

    /// With another factor of latents.
    #[must_use]
    pub fn with_scaling_factor(mut self, factor: f64) -> AutoencoderKL {
        self.config.scaling_factor = factor;
        self
    }

    /// Whether blocks are run again in backward instead of keeping what they compute: less memory, the same bits.
    #[must_use]
    pub fn recomputing(mut self, recompute: bool) -> AutoencoderKL {
        (self.encoder.recompute, self.decoder.recompute) = (recompute, recompute);
        self
    }

    /// Images `[N, C, H, W]`, from −1 to 1, to the distribution of their latents.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn encode(&self, x: &Var) -> binade_nn::Result<DiagonalGaussian> {
        self.within(|| {
            let h = self.encoder.forward(x)?;
            let h = self.quant_conv.as_ref().map_or(Ok(h.clone()), |conv| wide(conv, &h))?.cast(DType::F32)?;
            let latent = self.config.latent_channels;
            let logvar = h.narrow(1, latent, latent)?.clamp(Some(-30.0), Some(20.0))?;
            Ok(DiagonalGaussian { mean: h.narrow(1, 0, latent)?, logvar })
        })
    }

    /// Latents `[N, latent channels, h, w]`, as the encoder gives them, to images.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn decode(&self, z: &Var) -> binade_nn::Result<Var> {
        self.within(|| {
            let z = self.post_quant_conv.as_ref().map_or(Ok(z.clone()), |conv| wide(conv, z))?;
            self.decoder.forward(&z)
        })
    }

    /// A latent as it is diffused: `(z − shift)·factor`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn scaled(&self, z: &Var) -> binade_nn::Result<Var> {
        Ok((&(z - self.config.shift_factor.unwrap_or(0.0))? * self.config.scaling_factor)?)
    }

    /// The reverse of [`AutoencoderKL::scaled`].
    ///
    /// # Errors
    /// Out of memory.
    pub fn unscaled(&self, z: &Var) -> binade_nn::Result<Var> {
        Ok((&(z * (1.0 / self.config.scaling_factor))? + self.config.shift_factor.unwrap_or(0.0))?)
    }
}

/// Independent normal distributions, in f32.
#[derive(Clone, Debug)]
pub struct DiagonalGaussian {
    /// Means, the most likely latent.
    pub mean: Var,
    /// Logarithms of the variances, from −30 to 20.
    pub logvar: Var,
}

impl DiagonalGaussian {
    /// A latent, drawn from the scope's stream.
    ///
    /// # Errors
    /// Out of memory.
    pub fn sample(&self) -> binade_nn::Result<Var> {
        let noise = Var::normal(0.0, 1.0, self.mean.shape())?;
        Ok((&self.mean + &(&(&self.logvar * 0.5)?.exp()? * &noise)?)?)
    }

    /// The divergence from the standard normal distribution, summed over each latent: `[N]`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn kl(&self) -> binade_nn::Result<Var> {
        let terms = (&(&(&self.mean * &self.mean)? + &self.logvar.exp()?)? - &(&self.logvar + 1.0)?)?;
        Ok((&terms.sum(&[1, 2, 3], false)? * 0.5)?)
    }
}

impl Pretrained for AutoencoderKL {
    fn from_config(config: &Value) -> Result<AutoencoderKL> {
        AutoencoderKL::new(&AutoencoderKLConfig::read(config)?)
    }

    fn to_config(&self) -> Value {
        let mut config = json!(self.config);
        config["_class_name"] = json!("AutoencoderKL");
        config
    }

    /// The library's own names, or `query`, `key`, `value` and `proj_attn` of its first versions.
    fn sources(&self, stored: &BTreeSet<String>) -> Sources {
        legacy_attention(self, stored)
    }
}
