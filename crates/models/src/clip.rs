//! The text encoder of CLIP (Radford et al., 2021), with the names of transformers.

use std::collections::BTreeSet;
use std::sync::Arc;

use binade_autograd::{Var, scope};
use binade_nn::{Embedding, Init, Layer, LayerNorm, Linear, Mode, Module, Param, Result, Visitor};
use binade_tensor::op::Attention as Settings;
use binade_weights::{Source, Sources};
use serde_json::{Value, json};

use crate::transformer::{Act, Mlp, heads_problem, linear, through};
use crate::{Error, Keys, Pretrained};

/// Extents and settings of a [`ClipText`].
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Longest sequence.
    pub context: usize,
    /// Features of a token.
    pub features: usize,
    /// Features of the hidden layers.
    pub hidden: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of attention; divide the features.
    pub heads: usize,
    /// Activation of the hidden layers.
    pub act: Act,
    /// Added to the variance by norms.
    pub eps: f64,
    /// Dropout of attention's weights.
    pub attention_dropout: f64,
    /// Factor of the initial weights' deviations.
    pub deviation_factor: f64,
    /// The token that ends a text.
    pub end: i64,
    /// Whether blocks are computed again for backward, in place of keeping their inner values.
    pub recompute: bool,
}

impl Default for ClipTextConfig {
    /// That of ViT-L/14, which Stable Diffusion 1 reads prompts with.
    fn default() -> Self {
        ClipTextConfig {
            vocabulary: 49408,
            context: 77,
            features: 768,
            hidden: 3072,
            depth: 12,
            heads: 12,
            act: Act::QuickGelu,
            eps: 1e-5,
            attention_dropout: 0.0,
            deviation_factor: 1.0,
            end: 49407,
            recompute: false,
        }
    }
}

impl ClipTextConfig {
    /// The extents and settings of transformers' `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`]: every key that is missing, not built or not known.
    pub fn read(config: &Value) -> crate::Result<ClipTextConfig> {
        let mut keys = Keys::new("the config.json of a CLIP text encoder", config)?;
        let end = config.get("eos_token_id").and_then(Value::as_i64).unwrap_or(49407);
        keys.transformers("clip_text_model", &["CLIPTextModel"]);
        // The projection is that of another model, the deviation that of what this one does not have, and no dropout is
        // applied by the library.
        keys.harmless(&["projection_dim", "initializer_range", "dropout", "id2label", "num_labels"]);
        keys.harmless(&["tie_word_embeddings"]);
        let config = ClipTextConfig {
            // The library's own defaults, which are those of another model.
            vocabulary: keys.or("vocab_size", 49408),
            context: keys.or("max_position_embeddings", 77),
            features: keys.or("hidden_size", 512),
            hidden: keys.or("intermediate_size", 2048),
            depth: keys.or("num_hidden_layers", 12),
            heads: keys.or("num_attention_heads", 8),
            act: keys.act("hidden_act", "quick_gelu"),
            eps: keys.or("layer_norm_eps", 1e-5),
            attention_dropout: keys.or("attention_dropout", 0.0),
            deviation_factor: keys.or("initializer_factor", 1.0),
            end,
            recompute: false,
        };
        heads_problem(config.heads, config.features).into_iter().for_each(|problem| keys.problem(problem));
        keys.finish()?;
        Ok(config)
    }

    /// transformers' `config.json` of this model.
    pub fn write(&self) -> Value {
        json!({
            "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context, "hidden_size": self.features, "intermediate_size": self.hidden,
            "num_hidden_layers": self.depth, "num_attention_heads": self.heads, "hidden_act": self.act.name(),
            "layer_norm_eps": self.eps, "attention_dropout": self.attention_dropout,
            "initializer_factor": self.deviation_factor, "eos_token_id": self.end,
        })
    }

    fn norm(&self) -> Result<LayerNorm> {
        Ok(LayerNorm { eps: self.eps, ..LayerNorm::new(self.features)? })
    }
}

/// Causal attention of several heads.
#[derive(Clone, Module)]
struct Attention {
    k_proj: Linear,
    v_proj: Linear,
    q_proj: Linear,
    out_proj: Linear,
    heads: usize,
    dropout: f64,
    mode: Mode,
}

impl Layer for Attention {
    fn run(&self, x: &Var) -> Result<Var> {
        let [b, t, d] = std::array::from_fn(|i| x.shape()[i] as isize);
        let heads = self.heads as isize;
        let split = |layer: &Linear| -> Result<Var> {
            Ok(layer.forward(x)?.reshape(&[b, t, heads, d / heads])?.transpose(1, 2)?) // (B, H, T, D/H)
        };
        let (q, k, v) = (split(&self.q_proj)?, split(&self.k_proj)?, split(&self.v_proj)?);
        let settings = Settings { causal: true, ..Settings::default() };
        let y = self.mode.run(|| q.attention_dropout(&k, &v, None, self.dropout, settings))?;
        self.out_proj.forward(&y.transpose(1, 2)?.reshape(&[b, t, d])?)
    }
}

/// Pre-norm transformer block.
#[derive(Clone, Module)]
struct Block {
    self_attn: Attention,
    layer_norm1: LayerNorm,
    mlp: Mlp,
    layer_norm2: LayerNorm,
}

impl Block {
    fn new(config: &ClipTextConfig) -> Result<Block> {
        let &ClipTextConfig { features, hidden, heads, deviation_factor: factor, .. } = config;
        let last = factor * (features as f64).powf(-0.5);
        // What is added to the residual stream, twice in a block, keeps its variance in all.
        let inner = last * (2.0 * config.depth as f64).powf(-0.5);
        let square = |std| linear(features, features, true, std);
        Ok(Block {
            self_attn: Attention {
                k_proj: square(inner)?,
                v_proj: square(inner)?,
                q_proj: square(inner)?,
                out_proj: square(last)?,
                heads,
                dropout: config.attention_dropout,
                mode: Mode::default(),
            },
            layer_norm1: config.norm()?,
            mlp: Mlp {
                fc1: linear(features, hidden, true, factor * (2.0 * features as f64).powf(-0.5))?,
                fc2: linear(hidden, features, true, inner)?,
                act: config.act,
            },
            layer_norm2: config.norm()?,
        })
    }
}

impl Layer for Block {
    /// `[B, T, D]` to the same shape.
    fn run(&self, x: &Var) -> Result<Var> {
        let x = (x + &self.self_attn.forward(&self.layer_norm1.forward(x)?)?)?;
        Ok((&x + &self.mlp.forward(&self.layer_norm2.forward(&x)?)?)?)
    }
}

#[derive(Clone, Module)]
struct Embeddings {
    token_embedding: Embedding,
    position_embedding: Embedding,
}

#[derive(Clone, Module)]
struct Encoder {
    layers: Vec<Arc<Block>>,
}

/// Token and position embeddings, causal pre-norm blocks, and a norm.
#[derive(Clone, Module)]
pub struct ClipText {
    embeddings: Embeddings,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
    #[module(skip)]
    config: ClipTextConfig,
}

impl ClipText {
    /// With transformers' initial values from the scope's stream.
    ///
    /// # Errors
    /// Heads that do not divide the features.
    pub fn new(config: &ClipTextConfig) -> Result<ClipText> {
        if let Some(message) = heads_problem(config.heads, config.features) {
            return Err(binade_nn::Error::Config { layer: "ClipText", message });
        }
        let table = |rows: usize| -> Result<Embedding> {
            let std = 0.02 * config.deviation_factor;
            let weight = Param::init(&[rows, config.features], Init::Normal { mean: 0.0, std })?;
            Ok(Embedding { weight, padding: None })
        };
        let layers = (0..config.depth).map(|_| Block::new(config).map(Arc::new)).collect::<Result<_>>()?;
        Ok(ClipText {
            embeddings: Embeddings {
                token_embedding: table(config.vocabulary)?,
                position_embedding: table(config.context)?,
            },
            encoder: Encoder { layers },
            final_layer_norm: config.norm()?,
            config: config.clone(),
        })
    }

    /// Its extents and settings.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The same model, sharing its parameters, whose blocks are computed again for backward or not.
    #[must_use]
    pub fn recomputing(&self, recompute: bool) -> ClipText {
        let mut model = self.clone();
        model.config.recompute = recompute;
        model
    }
}

impl Layer for ClipText {
    /// Indices `[B, T]` to features `[B, T, D]` of each token: transformers' `last_hidden_state`.
    fn run(&self, index: &Var) -> Result<Var> {
        let t = index.shape().last().copied().unwrap_or(0);
        if index.shape().rank() != 2 || t > self.config.context {
            let message = format!("expected [B, at most {}] tokens, got {:?}", self.config.context, index.shape());
            return Err(binade_nn::Error::Config { layer: "ClipText", message });
        }
        let Embeddings { token_embedding, position_embedding } = &self.embeddings;
        let positions = scope::with_device(index.array().device(), || Var::arange(0, t))?;
        let mut x = (&token_embedding.forward(index)? + &position_embedding.forward(&positions)?)?;
        for block in &self.encoder.layers {
            x = through(block, &x, self.config.recompute)?;
        }
        self.final_layer_norm.forward(&x)
    }
}

impl Pretrained for ClipText {
    fn from_config(config: &Value) -> crate::Result<ClipText> {
        ClipText::new(&ClipTextConfig::read(config)?).map_err(Error::from)
    }

    fn to_config(&self) -> Value {
        self.config.write()
    }

    fn sources(&self, stored: &BTreeSet<String>) -> Sources {
        // The names of transformers before version 5.
        const PREFIX: &str = "text_model.";
        let prefixed = stored.iter().any(|name| name.starts_with(PREFIX));
        let stored_as = |name: &str| if prefixed { format!("{PREFIX}{name}") } else { name.to_string() };
        let names = self.named_parameters().into_iter().map(|(name, _)| name);
        Sources {
            sources: names.map(|name| (name.clone(), Source::Tensor(stored_as(&name)))).collect(),
            ignored: vec![stored_as("embeddings.position_ids")],
        }
    }
}
