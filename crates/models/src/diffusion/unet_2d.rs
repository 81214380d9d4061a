//! [`UNet2DModel`]: the noise in an image, from the image, the time and perhaps a class (Ho et al., 2020).

use std::collections::BTreeSet;

use binade_autograd::Var;
use binade_nn::{Module, Visitor};
use binade_weights::Sources;
use serde::Serialize;
use serde_json::{Value, json};

use super::blocks::Style;
use super::settings::{Check, activation, legacy_attention, strings};
use super::unet::{Classes, Ending, Level, Mix, Plan, UNet, wrong};
use crate::{Keys, Pretrained, Result};

/// The keys of a `UNet2DModel`'s `config.json`. The default is the library's, but for the extents: those of a small
/// network for 32×32 images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UNet2DConfig {
    /// Height and width that it was made for, or both; the network takes others.
    pub sample_size: Value,
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Whether images from 0 to 1 are brought to −1 to 1 first.
    pub center_input_sample: bool,
    /// How many frequencies fewer the smallest one is divided by.
    pub freq_shift: usize,
    /// Cosines of the time before its sines.
    pub flip_sin_to_cos: bool,
    /// `DownBlock2D`, `AttnDownBlock2D` or `ResnetDownsampleBlock2D` per level.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D`, `AttnUpBlock2D` or `ResnetUpsampleBlock2D` per level, the smallest image first.
    pub up_block_types: Vec<String>,
    /// Channels per level; every level but the last halves the image.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// What the blocks of the middle divide their sums by.
    pub mid_block_scale_factor: f64,
    /// 0 pads at the end alone.
    pub downsample_padding: usize,
    /// `conv`, or `resnet`: how blocks with attention halve the image.
    pub downsample_type: String,
    /// `conv`, or `resnet`: how blocks with attention double it.
    pub upsample_type: String,
    /// Probability of dropping out in residual blocks.
    pub dropout: f64,
    /// Activation.
    pub act_fn: String,
    /// Features of a head; `None` is one head.
    pub attention_head_dim: Option<usize>,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Groups of the norm before the middle's attention; `None` is those of the others, and no norm where the time
    /// scales and shifts.
    pub attn_norm_num_groups: Option<usize>,
    /// Added to the norms' variances.
    pub norm_eps: f64,
    /// `default`: the time is added; `scale_shift`.
    pub resnet_time_scale_shift: String,
    /// Whether the middle has attention.
    pub add_attention: bool,
    /// `None` (a table of `num_class_embeds` rows, if that is given), `timestep` or `identity`.
    pub class_embed_type: Option<String>,
    /// Rows of the table of classes.
    pub num_class_embeds: Option<usize>,
    /// Features of the time's embedding; `None` is four times the first level's channels.
    pub time_embedding_dim: Option<usize>,
}

impl Default for UNet2DConfig {
    /// Levels of 64, 128 and 128 channels, attention at 16×16 with one head: 6.5M values.
    fn default() -> UNet2DConfig {
        UNet2DConfig {
            sample_size: json!(32),
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            freq_shift: 0,
            flip_sin_to_cos: true,
            down_block_types: strings(&["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"]),
            up_block_types: strings(&["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]),
            block_out_channels: vec![64, 128, 128],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: "conv".into(),
            upsample_type: "conv".into(),
            dropout: 0.0,
            act_fn: "silu".into(),
            attention_head_dim: None,
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: "default".into(),
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            time_embedding_dim: None,
        }
    }
}

impl UNet2DConfig {
    /// Reads a `config.json`; what is absent is the library's default.
    ///
    /// # Errors
    /// Every key that is not built or not known.
    pub fn read(config: &Value) -> Result<UNet2DConfig> {
        let mut keys = Keys::new("UNet2DModel", config)?;
        let attention = ["AttnDownBlock2D"; 3];
        let all = UNet2DConfig {
            sample_size: keys.or("sample_size", Value::Null),
            in_channels: keys.or("in_channels", 3),
            out_channels: keys.or("out_channels", 3),
            center_input_sample: keys.or("center_input_sample", false),
            freq_shift: keys.or("freq_shift", 0),
            flip_sin_to_cos: keys.or("flip_sin_to_cos", true),
            down_block_types: keys.or("down_block_types", strings(&[&["DownBlock2D"], &attention[..]].concat())),
            up_block_types: keys.or("up_block_types", strings(&[&["AttnUpBlock2D"; 3][..], &["UpBlock2D"]].concat())),
            block_out_channels: keys.or("block_out_channels", vec![224, 448, 672, 896]),
            layers_per_block: keys.or("layers_per_block", 2),
            mid_block_scale_factor: keys.or("mid_block_scale_factor", 1.0),
            downsample_padding: keys.or("downsample_padding", 1),
            downsample_type: keys.or("downsample_type", "conv".into()),
            upsample_type: keys.or("upsample_type", "conv".into()),
            dropout: keys.or("dropout", 0.0),
            act_fn: keys.or("act_fn", "silu".into()),
            attention_head_dim: keys.nullable("attention_head_dim", 8),
            norm_num_groups: keys.or("norm_num_groups", 32),
            attn_norm_num_groups: keys.optional("attn_norm_num_groups"),
            norm_eps: keys.or("norm_eps", 1e-5),
            resnet_time_scale_shift: keys.or("resnet_time_scale_shift", "default".into()),
            add_attention: keys.or("add_attention", true),
            class_embed_type: keys.optional("class_embed_type"),
            num_class_embeds: keys.optional("num_class_embeds"),
            time_embedding_dim: keys.optional("time_embedding_dim"),
        };
        keys.only("_class_name", &[json!("UNet2DModel")]);
        keys.only("time_embedding_type", &[json!("positional")]);
        keys.only("mid_block_type", &[json!("UNetMidBlock2D")]);
        keys.only("attention_legacy_order", &[json!(false)]);
        // The last is for learned embeddings of the time alone.
        keys.harmless(&["_diffusers_version", "_name_or_path", "num_train_timesteps"]);
        all.plan(&mut keys);
        keys.finish()?;
        Ok(all)
    }

    /// What the network is made from. Problems are noted in `keys`.
    fn plan(&self, keys: &mut Keys) -> Plan {
        let mut check = Check(keys);
        let channels = &self.block_out_channels;
        check.levels(channels, &self.down_block_types, &self.up_block_types);
        check.groups(channels, self.norm_num_groups);
        check.positive("layers_per_block", self.layers_per_block);
        check.scale("mid_block_scale_factor", self.mid_block_scale_factor);
        check.rate("dropout", self.dropout);
        let scale_shift =
            check.choice("resnet_time_scale_shift", &self.resnet_time_scale_shift, &["default", "scale_shift"]);
        let resnet_down = check.choice("downsample_type", &self.downsample_type, &["conv", "resnet"]) == 1;
        let resnet_up = check.choice("upsample_type", &self.upsample_type, &["conv", "resnet"]) == 1;
        let first = channels.first().copied().unwrap_or(1);
        let style = Style {
            time: Some(self.time_embedding_dim.unwrap_or(4 * first)),
            groups: self.norm_num_groups,
            eps: self.norm_eps,
            act: activation("act_fn", &self.act_fn, check.0),
            dropout: self.dropout,
            scale_shift: scale_shift == 1,
            scale: 1.0,
        };
        let mut check = Check(check.0);
        let mut level = |kind: &str, channels: usize, key: &'static str, names: [&str; 3], by_resnet: bool| {
            let kind = check.choice(key, kind.strip_prefix("UNetRes").unwrap_or(kind), &names);
            let mix = if kind == 1 {
                let head = check.head("attention_head_dim", self.attention_head_dim.unwrap_or(channels), channels);
                Mix::Attention { head, groups: Some(self.norm_num_groups) }
            } else {
                Mix::Nothing
            };
            let by_resnet = kind == 2 || kind == 1 && by_resnet;
            let ending = if by_resnet { Ending::Resnet } else { Ending::Conv(self.downsample_padding) };
            Level { channels, layers: self.layers_per_block, mix, ending }
        };
        let names = ["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"];
        let kinds = self.down_block_types.iter().zip(channels);
        let down: Vec<Level> = kinds.map(|(k, &c)| level(k, c, "down_block_types", names, resnet_down)).collect();
        let names = ["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"];
        let kinds = self.up_block_types.iter().zip(channels.iter().rev());
        let up = kinds.map(|(k, &c)| level(k, c, "up_block_types", names, resnet_up)).collect();
        let last = channels.last().copied().unwrap_or(1);
        let groups = self.attn_norm_num_groups.or((!style.scale_shift).then_some(self.norm_num_groups));
        if let Some(groups) = self.attn_norm_num_groups {
            check.groups(&[last], groups);
        }
        let head = check.head("attention_head_dim", self.attention_head_dim.unwrap_or(last), last);
        let middle = if self.add_attention { Mix::Attention { head, groups } } else { Mix::Nothing };
        let classes = match (self.class_embed_type.as_deref(), self.num_class_embeds) {
            (None, None) => Classes::None,
            (None, Some(rows)) => Classes::Table(rows),
            (Some("timestep"), _) => Classes::Timestep,
            (Some("identity"), _) => Classes::Identity,
            (Some(other), _) => {
                check.choice("class_embed_type", other, &["timestep", "identity"]);
                Classes::None
            }
        };
        Plan {
            inputs: self.in_channels,
            outputs: self.out_channels,
            style,
            kernels: [3, 3],
            center: self.center_input_sample,
            cosines_first: self.flip_sin_to_cos,
            shift: check.shift(self.freq_shift, first),
            classes,
            down,
            middle: Some(middle),
            middle_scale: self.mid_block_scale_factor,
            up,
        }
    }
}

/// Predicts the noise in an image at a time step.
#[derive(Clone, Module)]
pub struct UNet2DModel {
    #[module(flatten)]
    net: UNet,
    recompute: bool,
    #[module(skip)]
    config: UNet2DConfig,
}

impl UNet2DModel {
    /// With PyTorch's default initial values, as the library has them, from the scope's stream.
    ///
    /// # Errors
    /// Extents that do not fit each other; out of memory.
    pub fn new(config: &UNet2DConfig) -> Result<UNet2DModel> {
        let mut keys = Keys::new("UNet2DModel", &json!({}))?;
        let plan = config.plan(&mut keys);
        keys.finish()?;
        Ok(UNet2DModel { net: UNet::new(&plan)?, recompute: false, config: config.clone() })
    }

    /// Whether blocks are run again in backward instead of keeping what they compute: less memory, the same bits.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> UNet2DModel {
        UNet2DModel { recompute, ..self }
    }

    /// With a change of low rank beside each of attention's matrices, times `alpha / rank`. It is drawn from the
    /// scope's stream, and 0 at first. All else is frozen.
    ///
    /// # Errors
    /// A rank of 0 or beyond a matrix's extents; no attention.
    pub fn with_lora(mut self, rank: usize, alpha: f64) -> Result<UNet2DModel> {
        self.net.adapt(rank, alpha)?;
        Ok(self)
    }

    /// What it was made from.
    pub fn config(&self) -> &UNet2DConfig {
        &self.config
    }

    /// Sines and cosines of times, `[N]` to `[N, first level's channels]`, in f32 under every policy.
    ///
    /// # Errors
    /// Out of memory.
    pub fn time_features(&self, t: &Var) -> binade_nn::Result<Var> {
        self.net.time_features(t)
    }

    /// Images `[N, C, H, W]` and times `[N]` (or one) to noise `[N, C, H, W]`; `labels` are `[N]`, i64 where they are
    /// rows of a table. H and W are multiples of 2 to the number of levels − 1.
    ///
    /// # Errors
    /// Shapes that do not fit; labels without classes, or classes without labels.
    pub fn forward(&self, x: &Var, t: &Var, labels: Option<&Var>) -> binade_nn::Result<Var> {
        let step = 1 << self.net.halvings();
        if x.shape().iter().skip(2).any(|n| n % step != 0 || *n == 0) {
            let message = format!("height and width must be multiples of {step}, got images of {:?}", x.shape());
            return Err(wrong(message));
        }
        self.within(|| self.net.within(|| self.net.forward(x, t, labels, None, self.recompute)))
    }
}

impl Pretrained for UNet2DModel {
    fn from_config(config: &Value) -> Result<UNet2DModel> {
        UNet2DModel::new(&UNet2DConfig::read(config)?)
    }

    fn to_config(&self) -> Value {
        let mut config = json!(self.config);
        config["_class_name"] = json!("UNet2DModel");
        config["time_embedding_type"] = json!("positional");
        config
    }

    /// The library's own names, or `query`, `key`, `value` and `proj_attn` of its first versions.
    fn sources(&self, stored: &BTreeSet<String>) -> Sources {
        legacy_attention(self, stored)
    }
}
