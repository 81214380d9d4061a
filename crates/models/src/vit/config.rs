//! Extents of vision transformers: timm's architectures and arguments, transformers' keys.

use binade_tensor::op::Unary;
use serde_json::{Map, Value, json};

use super::architectures::entry;
use crate::timm::{self, Timm};
use crate::transformer::{Act, heads_problem};
use crate::{Keys, Library};

/// What of the last block's tokens goes to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The class token.
    Token,
    /// The mean of the patches.
    Average,
}

/// Extents and settings of a [`Vit`](crate::Vit).
#[derive(Clone, Debug, PartialEq)]
pub struct VitConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Height and width of the image.
    pub size: [usize; 2],
    /// Height and width of a patch.
    pub patch: [usize; 2],
    /// Features of a token.
    pub features: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of attention; divide the features.
    pub heads: usize,
    /// Features of the hidden layers.
    pub hidden: usize,
    /// Activation of the hidden layers.
    pub act: Act,
    /// Added to the variance by norms.
    pub eps: f64,
    /// Classes; without any, the result is what the head would get.
    pub classes: usize,
    /// What the head gets.
    pub pool: Pool,
    /// Whether there is a class token.
    pub class_token: bool,
    /// Further tokens that stand for no patch.
    pub registers: usize,
    /// Whether there are learned positions.
    pub positions: bool,
    /// Whether only patches have positions, not the tokens in front of them.
    pub patch_positions_only: bool,
    /// Whether tokens are normalised before the blocks; patches have no bias then.
    pub norm_first: bool,
    /// Whether tokens, or what is pooled of them, are normalised after the blocks.
    pub norm_last: bool,
    /// Whether that norm comes after pooling.
    pub norm_pooled: bool,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether attention's last layer and the hidden layers have one.
    pub bias: bool,
    /// Initial factors of what blocks add (LayerScale); none without.
    pub layer_scale: Option<f64>,
    /// Whether images of other sizes are taken, with positions in between.
    pub any_size: bool,
    /// Dropout of tokens before the blocks.
    pub token_dropout: f64,
    /// Dropout of attention's weights.
    pub attention_dropout: f64,
    /// Dropout of what blocks add.
    pub residual_dropout: f64,
    /// Dropout before the head.
    pub head_dropout: f64,
    /// Standard deviation of initial weights.
    pub deviation: f64,
    /// Whose names and `config.json` it has.
    pub library: Library,
    /// timm's name.
    pub architecture: String,
    /// timm's account of how images are prepared; null if there is none.
    pub pretrained_cfg: Value,
    /// Whether blocks are computed again for backward, in place of keeping their inner values.
    pub recompute: bool,
}

impl Default for VitConfig {
    /// The small net for 32×32 images: 64 patches and a class token, 192 features, 6 blocks of 3 heads.
    fn default() -> Self {
        VitConfig { size: [32; 2], patch: [4; 2], depth: 6, classes: 10, ..VitConfig::tiny() }.with_width(192, 3)
    }
}

impl VitConfig {
    /// ViT-Ti/16 as timm has it.
    pub fn tiny() -> VitConfig {
        VitConfig {
            in_channels: 3,
            size: [224; 2],
            patch: [16; 2],
            features: 192,
            depth: 12,
            heads: 3,
            hidden: 768,
            act: Act::Unary(Unary::Gelu),
            eps: 1e-6,
            classes: 1000,
            pool: Pool::Token,
            class_token: true,
            registers: 0,
            positions: true,
            patch_positions_only: false,
            norm_first: false,
            norm_last: true,
            norm_pooled: false,
            qkv_bias: true,
            bias: true,
            layer_scale: None,
            any_size: false,
            token_dropout: 0.0,
            attention_dropout: 0.0,
            residual_dropout: 0.0,
            head_dropout: 0.0,
            deviation: 0.02,
            library: Library::Timm,
            architecture: "vit_tiny_patch16_224".into(),
            pretrained_cfg: Value::Null,
            recompute: false,
        }
    }

    /// With so many features and heads, and four times as many features in hidden layers.
    #[must_use]
    pub fn with_width(self, features: usize, heads: usize) -> VitConfig {
        VitConfig { features, heads, hidden: 4 * features, ..self }
    }

    /// The extents of a `config.json` of timm or transformers.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): every key that is missing, not built or not known.
    pub fn read(config: &Value) -> crate::Result<VitConfig> {
        let (config, mut keys) = match Library::of(config) {
            Library::Timm => VitConfig::read_timm(config),
            Library::Transformers => VitConfig::read_transformers(config),
        }?;
        config.problems().into_iter().for_each(|problem| keys.problem(problem));
        keys.finish()?;
        Ok(config)
    }

    fn read_timm(config: &Value) -> crate::Result<(VitConfig, Keys)> {
        let Timm { architecture, args: mut keys, pretrained_cfg } = Timm::read(config, entry)?;
        let off =
            ["qk_norm", "scale_attn_norm", "scale_mlp_norm", "pool_include_prefix", "dynamic_img_pad", "fix_init"];
        for key in off {
            keys.only(key, &[json!(false)]);
        }
        for key in ["patch_drop_rate", "proj_drop_rate", "drop_path_rate"] {
            keys.only(key, &[json!(0), json!(0.0)]);
        }
        for key in ["embed_layer", "embed_norm_layer", "block_fn", "mlp_layer"] {
            keys.only(key, &[]);
        }
        keys.only("attn_layer", &[json!(""), json!("attn")]);
        keys.only("norm_layer", &[json!("layernorm")]);
        keys.only("weight_init", &[json!(""), json!("skip")]);
        let usual = VitConfig::tiny();
        let pool: String = keys.or("global_pool", "token".into());
        let pool = match pool.as_str() {
            "token" => Pool::Token,
            "avg" => Pool::Average,
            other => {
                keys.problem(format!("global_pool is {other:?}, and only \"token\" or \"avg\" is built"));
                Pool::Token
            }
        };
        let positions: String = keys.or("pos_embed", "learn".into());
        if !["learn", "none", ""].contains(&positions.as_str()) {
            keys.problem(format!("pos_embed is {positions:?}, which is not built"));
        }
        let features = keys.or("embed_dim", 768);
        let ratio: f64 = keys.or("mlp_ratio", 4.0);
        let act = keys.act("act_layer", "gelu");
        let config = VitConfig {
            in_channels: keys.or("in_chans", 3),
            size: keys.pair("img_size", 224),
            patch: keys.pair("patch_size", 16),
            features,
            depth: keys.or("depth", 12),
            heads: keys.or("num_heads", 12),
            // timm rounds down too.
            hidden: (features as f64 * ratio) as usize,
            act,
            classes: keys.or("num_classes", 1000),
            pool,
            class_token: keys.or("class_token", true),
            registers: keys.or("reg_tokens", 0),
            positions: positions == "learn",
            patch_positions_only: keys.or("no_embed_class", false),
            norm_first: keys.or("pre_norm", false),
            norm_last: keys.or("final_norm", true),
            norm_pooled: keys.or("fc_norm", pool == Pool::Average),
            qkv_bias: keys.or("qkv_bias", true),
            bias: keys.or("proj_bias", true),
            // Of 0 timm makes no factors.
            layer_scale: keys.optional("init_values").filter(|&value: &f64| value != 0.0),
            any_size: keys.or("dynamic_img_size", false),
            token_dropout: keys.or("pos_drop_rate", 0.0),
            attention_dropout: keys.or("attn_drop_rate", 0.0),
            head_dropout: keys.or("drop_rate", 0.0),
            architecture,
            pretrained_cfg,
            ..usual
        };
        Ok((config, keys))
    }

    fn read_transformers(config: &Value) -> crate::Result<(VitConfig, Keys)> {
        let mut keys = Keys::new("the config.json of a ViT of transformers", config)?;
        keys.transformers("vit", &["ViTForImageClassification"]);
        // Of the pooler, of masked images and of a language model's head, which are not built.
        keys.harmless(&["pooler_act", "pooler_output_size", "encoder_stride", "tie_word_embeddings"]);
        let dropout = keys.or("hidden_dropout_prob", 0.0);
        let config = VitConfig {
            in_channels: keys.or("num_channels", 3),
            size: keys.pair("image_size", 224),
            patch: keys.pair("patch_size", 16),
            features: keys.or("hidden_size", 768),
            depth: keys.or("num_hidden_layers", 12),
            heads: keys.or("num_attention_heads", 12),
            hidden: keys.or("intermediate_size", 3072),
            act: keys.act("hidden_act", "gelu"),
            eps: keys.or("layer_norm_eps", 1e-12),
            classes: keys.labels(),
            qkv_bias: keys.or("qkv_bias", true),
            token_dropout: dropout,
            attention_dropout: keys.or("attention_probs_dropout_prob", 0.0),
            residual_dropout: dropout,
            deviation: keys.or("initializer_range", 0.02),
            library: Library::Transformers,
            // As timm's model it is this one with all arguments given.
            architecture: "vit_base_patch16_224".into(),
            ..VitConfig::tiny()
        };
        Ok((config, keys))
    }

    /// The `config.json` of the library whose model it is.
    pub fn write(&self) -> Value {
        match self.library {
            Library::Timm => timm::write(&self.architecture, self.timm_args(), &self.pretrained_cfg),
            Library::Transformers => {
                let label = |i: usize| format!("LABEL_{i}");
                let names: Map<String, Value> = (0..self.classes).map(|i| (i.to_string(), label(i).into())).collect();
                let numbers: Map<String, Value> = (0..self.classes).map(|i| (label(i), i.into())).collect();
                json!({
                    "architectures": ["ViTForImageClassification"], "model_type": "vit",
                    "num_channels": self.in_channels, "image_size": side(self.size), "patch_size": side(self.patch),
                    "hidden_size": self.features, "num_hidden_layers": self.depth, "num_attention_heads": self.heads,
                    "intermediate_size": self.hidden, "hidden_act": self.act.name(), "layer_norm_eps": self.eps,
                    "qkv_bias": self.qkv_bias, "hidden_dropout_prob": self.residual_dropout,
                    "attention_probs_dropout_prob": self.attention_dropout, "initializer_range": self.deviation,
                    "id2label": names, "label2id": numbers,
                })
            }
        }
    }

    fn timm_args(&self) -> Map<String, Value> {
        // The ratio whose product, rounded down, is the hidden layers' extent.
        let ratio = |extent: f64| extent / self.features as f64;
        let exact = ratio(self.hidden as f64);
        let fits = (self.features as f64 * exact) as usize == self.hidden;
        let mut args = timm::object(json!({
            "img_size": self.size, "patch_size": side(self.patch), "in_chans": self.in_channels,
            "num_classes": self.classes, "embed_dim": self.features, "depth": self.depth, "num_heads": self.heads,
            "mlp_ratio": if fits { exact } else { ratio(self.hidden as f64 + 0.5) },
            "global_pool": if self.pool == Pool::Token { "token" } else { "avg" }, "class_token": self.class_token,
            "reg_tokens": self.registers, "no_embed_class": self.patch_positions_only, "pre_norm": self.norm_first,
            "final_norm": self.norm_last, "fc_norm": self.norm_pooled, "qkv_bias": self.qkv_bias,
            "proj_bias": self.bias, "init_values": self.layer_scale, "dynamic_img_size": self.any_size,
            "pos_drop_rate": self.token_dropout, "attn_drop_rate": self.attention_dropout,
            "drop_rate": self.head_dropout, "pos_embed": if self.positions { "learn" } else { "none" },
        }));
        if self.act != VitConfig::tiny().act {
            args.insert("act_layer".into(), json!(self.act.timm_name()));
        }
        args
    }

    /// Tokens in front of the patches.
    pub fn prefix(&self) -> usize {
        self.class_token as usize + self.registers
    }

    /// Patches along the height and the width.
    pub fn grid(&self) -> [usize; 2] {
        std::array::from_fn(|d| self.size[d] / self.patch[d].max(1))
    }

    /// What does not fit together.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = heads_problem(self.heads, self.features).into_iter().collect();
        let divided = |d: usize| self.patch[d] > 0 && self.size[d] >= self.patch[d];
        // timm leaves out what is left at the edge.
        if ![0, 1].into_iter().all(divided) {
            problems.push(format!("patches of {:?} do not fit in images of {:?}", self.patch, self.size));
        }
        if self.pool == Pool::Token && !self.class_token {
            problems.push("the class token is pooled, and there is none".into());
        }
        problems
    }
}

/// One number for a square.
fn side(extents: [usize; 2]) -> Value {
    if extents[0] == extents[1] { json!(extents[0]) } else { json!(extents) }
}
