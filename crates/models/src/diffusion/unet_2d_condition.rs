//! [`UNet2DConditionModel`]: the noise in an image or a latent, from it, the time and a text: Stable Diffusion 1 and 2
//! (Rombach et al., 2022).

use std::collections::BTreeSet;

use binade_autograd::Var;
use binade_nn::{Module, Visitor};
use binade_weights::Sources;
use serde::Serialize;
use serde_json::{Value, json};

use super::attention::TransformerPlan;
use super::blocks::Style;
use super::settings::{Check, OneOrEach, activation, strings};
use super::unet::{Classes, Ending, Level, Mix, Plan, UNet};
use crate::{Keys, Pretrained, Result};

/// The keys of a `UNet2DConditionModel`'s `config.json`. The default is the library's: Stable Diffusion 1, but for
/// `cross_attention_dim`, which is 768 there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UNet2DConditionConfig {
    /// Height and width that it was made for, or both; the network takes others.
    pub sample_size: Value,
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the result.
    pub out_channels: usize,
    /// Whether images from 0 to 1 are brought to −1 to 1 first.
    pub center_input_sample: bool,
    /// Cosines of the time before its sines.
    pub flip_sin_to_cos: bool,
    /// How many frequencies fewer the smallest one is divided by.
    pub freq_shift: usize,
    /// `DownBlock2D` or `CrossAttnDownBlock2D` per level.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D` or `CrossAttnUpBlock2D` per level, the smallest image first.
    pub up_block_types: Vec<String>,
    /// Whether transformers of a level attend to the text twice, and not to the image.
    pub only_cross_attention: OneOrEach<bool>,
    /// Channels per level; every level but the last halves the image.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level on the way down; one more on the way up.
    pub layers_per_block: OneOrEach<usize>,
    /// 0 pads at the end alone.
    pub downsample_padding: usize,
    /// What the blocks of the middle divide their sums by.
    pub mid_block_scale_factor: f64,
    /// Probability of dropping out.
    pub dropout: f64,
    /// Activation of residual blocks and of the time.
    pub act_fn: String,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Added to the variances of residual blocks' norms; transformers have 1e-6.
    pub norm_eps: f64,
    /// Features of the text.
    pub cross_attention_dim: OneOrEach<usize>,
    /// Blocks of each transformer.
    pub transformer_layers_per_block: OneOrEach<usize>,
    /// The NUMBER of heads, whatever its name says.
    pub attention_head_dim: OneOrEach<usize>,
    /// Whether transformers' projections are linear layers (Stable Diffusion 2) and not 1×1 convolutions.
    pub use_linear_projection: bool,
    /// `None` (a table of `num_class_embeds` rows, if that is given), `timestep`, `identity`, `projection` or
    /// `simple_projection`.
    pub class_embed_type: Option<String>,
    /// Rows of the table of classes.
    pub num_class_embeds: Option<usize>,
    /// Features of a label that is projected.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// Scores of attention in f32, which they are in any case.
    pub upcast_attention: bool,
    /// `default`: the time is added; `scale_shift`.
    pub resnet_time_scale_shift: String,
    /// Features of the time's embedding; `None` is four times the first level's channels.
    pub time_embedding_dim: Option<usize>,
    /// Width of the first convolution's window, odd.
    pub conv_in_kernel: usize,
    /// Width of the last convolution's window, odd.
    pub conv_out_kernel: usize,
}

impl Default for UNet2DConditionConfig {
    fn default() -> UNet2DConditionConfig {
        let cross = ["CrossAttnDownBlock2D"; 3];
        UNet2DConditionConfig {
            sample_size: Value::Null,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0,
            down_block_types: strings(&[&cross[..], &["DownBlock2D"]].concat()),
            up_block_types: strings(&[&["UpBlock2D"], &["CrossAttnUpBlock2D"; 3][..]].concat()),
            only_cross_attention: OneOrEach::One(false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: OneOrEach::One(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            dropout: 0.0,
            act_fn: "silu".into(),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: OneOrEach::One(1280),
            transformer_layers_per_block: OneOrEach::One(1),
            attention_head_dim: OneOrEach::One(8),
            use_linear_projection: false,
            class_embed_type: None,
            num_class_embeds: None,
            projection_class_embeddings_input_dim: None,
            upcast_attention: false,
            resnet_time_scale_shift: "default".into(),
            time_embedding_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
        }
    }
}

impl UNet2DConditionConfig {
    /// Reads a `config.json`; what is absent is the library's default.
    ///
    /// # Errors
    /// Every key that is not built or not known: SDXL's embeddings beside the time, among others.
    pub fn read(config: &Value) -> Result<UNet2DConditionConfig> {
        let mut keys = Keys::new("UNet2DConditionModel", config)?;
        let d = UNet2DConditionConfig::default();
        let all = UNet2DConditionConfig {
            sample_size: keys.or("sample_size", d.sample_size),
            in_channels: keys.or("in_channels", d.in_channels),
            out_channels: keys.or("out_channels", d.out_channels),
            center_input_sample: keys.or("center_input_sample", d.center_input_sample),
            flip_sin_to_cos: keys.or("flip_sin_to_cos", d.flip_sin_to_cos),
            freq_shift: keys.or("freq_shift", d.freq_shift),
            down_block_types: keys.or("down_block_types", d.down_block_types),
            up_block_types: keys.or("up_block_types", d.up_block_types),
            only_cross_attention: keys.or("only_cross_attention", d.only_cross_attention),
            block_out_channels: keys.or("block_out_channels", d.block_out_channels),
            layers_per_block: keys.or("layers_per_block", d.layers_per_block),
            downsample_padding: keys.or("downsample_padding", d.downsample_padding),
            mid_block_scale_factor: keys.or("mid_block_scale_factor", d.mid_block_scale_factor),
            dropout: keys.or("dropout", d.dropout),
            act_fn: keys.or("act_fn", d.act_fn),
            norm_num_groups: keys.not_null("norm_num_groups", d.norm_num_groups),
            norm_eps: keys.or("norm_eps", d.norm_eps),
            cross_attention_dim: keys.not_null("cross_attention_dim", d.cross_attention_dim),
            transformer_layers_per_block: keys.or("transformer_layers_per_block", d.transformer_layers_per_block),
            attention_head_dim: keys.not_null("attention_head_dim", d.attention_head_dim),
            use_linear_projection: keys.or("use_linear_projection", false),
            class_embed_type: keys.optional("class_embed_type"),
            num_class_embeds: keys.optional("num_class_embeds"),
            projection_class_embeddings_input_dim: keys.optional("projection_class_embeddings_input_dim"),
            upcast_attention: keys.or("upcast_attention", false),
            resnet_time_scale_shift: keys.or("resnet_time_scale_shift", d.resnet_time_scale_shift),
            time_embedding_dim: keys.optional("time_embedding_dim"),
            conv_in_kernel: keys.or("conv_in_kernel", 3),
            conv_out_kernel: keys.or("conv_out_kernel", 3),
        };
        keys.only("_class_name", &[json!("UNet2DConditionModel")]);
        keys.only("mid_block_type", &[json!("UNetMidBlock2DCrossAttn")]);
        keys.only("time_embedding_type", &[json!("positional")]);
        keys.only("attention_type", &[json!("default")]);
        keys.only("resnet_out_scale_factor", &[json!(1.0), json!(1)]);
        for key in ["dual_cross_attention", "resnet_skip_time_act", "class_embeddings_concat"] {
            keys.only(key, &[json!(false)]);
        }
        keys.only("mid_block_only_cross_attention", &[json!(false)]);
        for key in [
            "addition_embed_type",
            "addition_time_embed_dim",
            "cross_attention_norm",
            "encoder_hid_dim",
            "encoder_hid_dim_type",
            "num_attention_heads",
            "reverse_transformer_layers_per_block",
            "time_cond_proj_dim",
            "time_embedding_act_fn",
            "timestep_post_act",
        ] {
            keys.only(key, &[]);
        }
        // The first belongs to an embedding that is refused.
        keys.harmless(&["addition_embed_type_num_heads", "_diffusers_version", "_name_or_path"]);
        all.plan(&mut keys);
        keys.finish()?;
        Ok(all)
    }

    /// What the network is made from. Problems are noted in `keys`.
    fn plan(&self, keys: &mut Keys) -> Plan {
        let act = activation("act_fn", &self.act_fn, keys);
        let mut check = Check(keys);
        let (channels, n) = (&self.block_out_channels, self.block_out_channels.len());
        check.levels(channels, &self.down_block_types, &self.up_block_types);
        check.groups(channels, self.norm_num_groups);
        check.scale("mid_block_scale_factor", self.mid_block_scale_factor);
        check.rate("dropout", self.dropout);
        let shift = check.choice("resnet_time_scale_shift", &self.resnet_time_scale_shift, &["default", "scale_shift"]);
        let heads = check.each("attention_head_dim", &self.attention_head_dim, n);
        let layers = check.each("layers_per_block", &self.layers_per_block, n);
        let context = check.each("cross_attention_dim", &self.cross_attention_dim, n);
        let depth = check.each("transformer_layers_per_block", &self.transformer_layers_per_block, n);
        let only = check.each("only_cross_attention", &self.only_cross_attention, n);
        for (key, kernel) in [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)] {
            if kernel.is_multiple_of(2) {
                check.0.problem(format!("{key} is {kernel}, and only odd windows are built"));
            }
        }
        let at = |list: &[usize], i: usize| list.get(i).copied().unwrap_or(1);
        let mut level = |i: usize, kinds: &[String], key: &str, names: [&str; 2], only_cross: bool| {
            let channels = channels[i];
            check.positive("layers_per_block", at(&layers, i));
            let kind = check.choice(key, &kinds[if key.starts_with("up") { n - 1 - i } else { i }], &names);
            let heads = check.heads("attention_head_dim", at(&heads, i), channels);
            let (layers_of, context) = (at(&depth, i), at(&context, i));
            let plan = TransformerPlan {
                heads,
                layers: layers_of,
                context,
                linear: self.use_linear_projection,
                only_cross,
                dropout: self.dropout,
            };
            let mix = if kind == 1 { Mix::Transformer(plan) } else { Mix::Nothing };
            (Level { channels, layers: at(&layers, i), mix, ending: Ending::Conv(self.downsample_padding) }, plan)
        };
        let (mut down, mut up, mut middle) = (Vec::new(), Vec::new(), None);
        if self.down_block_types.len() == n && self.up_block_types.len() == n {
            for i in 0..n {
                let cross = only.get(i).copied().unwrap_or(false);
                let names = ["DownBlock2D", "CrossAttnDownBlock2D"];
                let (made, plan) = level(i, &self.down_block_types, "down_block_types", names, cross);
                down.push(made);
                middle = Some(Mix::Transformer(TransformerPlan { only_cross: false, ..plan }));
                let names = ["UpBlock2D", "CrossAttnUpBlock2D"];
                up.insert(0, level(i, &self.up_block_types, "up_block_types", names, cross).0);
            }
        }
        let first = channels.first().copied().unwrap_or(1);
        let wide = self.projection_class_embeddings_input_dim;
        let classes = match (self.class_embed_type.as_deref(), self.num_class_embeds, wide) {
            (None, None, _) => Classes::None,
            (None, Some(rows), _) => Classes::Table(rows),
            (Some("timestep"), _, _) => Classes::Timestep,
            (Some("identity"), _, _) => Classes::Identity,
            (Some("projection"), _, Some(inputs)) => Classes::Projection(inputs),
            (Some("simple_projection"), _, Some(inputs)) => Classes::Simple(inputs),
            (Some("projection" | "simple_projection"), _, None) => {
                check.0.problem("projection_class_embeddings_input_dim is missing, which class_embed_type needs");
                Classes::None
            }
            (Some(other), _, _) => {
                let known = ["timestep", "identity", "projection", "simple_projection"];
                check.choice("class_embed_type", other, &known);
                Classes::None
            }
        };
        Plan {
            inputs: self.in_channels,
            outputs: self.out_channels,
            style: Style {
                time: Some(self.time_embedding_dim.unwrap_or(4 * first)),
                groups: self.norm_num_groups,
                eps: self.norm_eps,
                act,
                dropout: self.dropout,
                scale_shift: shift == 1,
                scale: 1.0,
            },
            kernels: [self.conv_in_kernel, self.conv_out_kernel],
            center: self.center_input_sample,
            cosines_first: self.flip_sin_to_cos,
            shift: check.shift(self.freq_shift, first),
            classes,
            down,
            middle,
            middle_scale: self.mid_block_scale_factor,
            up,
        }
    }
}

/// Predicts the noise in an image at a time step, given a text.
#[derive(Clone, Module)]
pub struct UNet2DConditionModel {
    #[module(flatten)]
    net: UNet,
    recompute: bool,
    #[module(skip)]
    config: UNet2DConditionConfig,
}

impl UNet2DConditionModel {
    /// With PyTorch's default initial values, as the library has them, from the scope's stream.
    ///
    /// # Errors
    /// Extents that do not fit each other; out of memory.
    pub fn new(config: &UNet2DConditionConfig) -> Result<UNet2DConditionModel> {
        let mut keys = Keys::new("UNet2DConditionModel", &json!({}))?;
        let plan = config.plan(&mut keys);
        keys.finish()?;
        Ok(UNet2DConditionModel { net: UNet::new(&plan)?, recompute: false, config: config.clone() })
    }

    /// Whether blocks are run again in backward instead of keeping what they compute: less memory, the same bits.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> UNet2DConditionModel {
        UNet2DConditionModel { recompute, ..self }
    }

    /// With a change of low rank beside each of attention's matrices, times `alpha / rank`. It is drawn from the
    /// scope's stream, and 0 at first. All else is frozen.
    ///
    /// # Errors
    /// A rank of 0 or beyond a matrix's extents; no attention.
    pub fn with_lora(mut self, rank: usize, alpha: f64) -> Result<UNet2DConditionModel> {
        self.net.adapt(rank, alpha)?;
        Ok(self)
    }

    /// What it was made from.
    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    /// Images `[N, C, H, W]`, times `[N]` (or one) and texts `[N, S, cross_attention_dim]` to noise `[N, C, H, W]`;
    /// `labels` are for models with classes.
    ///
    /// # Errors
    /// Shapes that do not fit; labels without classes, or classes without labels.
    pub fn forward(&self, x: &Var, t: &Var, text: &Var, labels: Option<&Var>) -> binade_nn::Result<Var> {
        self.within(|| self.net.within(|| self.net.forward(x, t, labels, Some(text), self.recompute)))
    }
}

impl Pretrained for UNet2DConditionModel {
    fn from_config(config: &Value) -> Result<UNet2DConditionModel> {
        UNet2DConditionModel::new(&UNet2DConditionConfig::read(config)?)
    }

    fn to_config(&self) -> Value {
        let mut config = json!(self.config);
        config["_class_name"] = json!("UNet2DConditionModel");
        config["mid_block_type"] = json!("UNetMidBlock2DCrossAttn");
        config
    }

    /// The library's own names.
    fn sources(&self, _stored: &BTreeSet<String>) -> Sources {
        Sources::default()
    }
}
