//! Extents and settings of GPT-2.

use binade_nn::{LayerNorm, Result};
use binade_tensor::op::Unary;
use serde_json::{Value, json};

use crate::Keys;
use crate::transformer::{Act, heads_problem};

/// Extents and settings of a [`Gpt`](crate::Gpt).
#[derive(Clone, Debug, PartialEq)]
pub struct GptConfig {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Longest sequence.
    pub context: usize,
    /// Features of a token.
    pub features: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of attention; divide the features.
    pub heads: usize,
    /// Features of the hidden layers; 4 times those of a token by default.
    pub hidden: Option<usize>,
    /// Activation of the hidden layers.
    pub act: Act,
    /// Added to the variance by norms.
    pub eps: f64,
    /// Whether linear layers and norms have a bias.
    pub bias: bool,
    /// Dropout of the embeddings' sum.
    pub embedding_dropout: f64,
    /// Dropout of attention's weights.
    pub attention_dropout: f64,
    /// Dropout of what blocks add.
    pub residual_dropout: f64,
    /// Whether the head is the token embedding.
    pub tied: bool,
    /// Whether scores are divided by the root of a head's features.
    pub scale_scores: bool,
    /// Whether scores are divided by the number of the block too, from 1.
    pub scale_by_depth: bool,
    /// Standard deviation of initial weights.
    pub deviation: f64,
    /// Whether blocks are computed again for backward, in place of keeping their inner values.
    pub recompute: bool,
}

impl Default for GptConfig {
    /// nanoGPT's character model of Shakespeare, with biases and without dropout.
    fn default() -> Self {
        GptConfig {
            vocabulary: 65,
            context: 256,
            features: 384,
            depth: 6,
            heads: 6,
            hidden: None,
            act: Act::Unary(Unary::Gelu),
            eps: 1e-5,
            bias: true,
            embedding_dropout: 0.0,
            attention_dropout: 0.0,
            residual_dropout: 0.0,
            tied: true,
            scale_scores: true,
            scale_by_depth: false,
            deviation: 0.02,
            recompute: false,
        }
    }
}

impl GptConfig {
    /// GPT-2 of 124M parameters, as published.
    pub fn gpt2() -> GptConfig {
        GptConfig {
            vocabulary: 50257,
            context: 1024,
            features: 768,
            depth: 12,
            heads: 12,
            act: Act::Unary(Unary::GeluTanh),
            embedding_dropout: 0.1,
            attention_dropout: 0.1,
            residual_dropout: 0.1,
            ..GptConfig::default()
        }
    }

    /// The extents and settings of transformers' `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): every key that is missing, not built or not known.
    pub fn read(config: &Value) -> crate::Result<GptConfig> {
        let published = GptConfig::gpt2();
        let mut keys = Keys::new("GPT-2's config.json", config)?;
        keys.transformers("gpt2", &["GPT2LMHeadModel", "GPT2Model"]);
        // Of heads that are not built, and a mask's extent that no number depends on.
        let summary = ["type", "use_proj", "activation", "proj_to_labels", "first_dropout"];
        keys.harmless(&summary.map(|key| format!("summary_{key}")).each_ref().map(String::as_str));
        keys.harmless(&["n_ctx", "id2label", "num_labels"]);
        // Scores are f32 in every precision, so that upcasting them changes nothing.
        keys.harmless(&["reorder_and_upcast_attn"]);
        let config = GptConfig {
            vocabulary: keys.or("vocab_size", published.vocabulary),
            context: keys.or("n_positions", published.context),
            features: keys.or("n_embd", published.features),
            depth: keys.or("n_layer", published.depth),
            heads: keys.or("n_head", published.heads),
            hidden: keys.optional("n_inner"),
            act: keys.act("activation_function", "gelu_new"),
            eps: keys.or("layer_norm_epsilon", published.eps),
            // nanoGPT's.
            bias: keys.or("bias", true),
            embedding_dropout: keys.or("embd_pdrop", published.embedding_dropout),
            attention_dropout: keys.or("attn_pdrop", published.attention_dropout),
            residual_dropout: keys.or("resid_pdrop", published.residual_dropout),
            tied: keys.or("tie_word_embeddings", true),
            scale_scores: keys.or("scale_attn_weights", true),
            scale_by_depth: keys.or("scale_attn_by_inverse_layer_idx", false),
            deviation: keys.or("initializer_range", published.deviation),
            recompute: false,
        };
        heads_problem(config.heads, config.features).into_iter().for_each(|problem| keys.problem(problem));
        keys.finish()?;
        Ok(config)
    }

    /// transformers' `config.json` of this model.
    pub fn write(&self) -> Value {
        let mut config = json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": self.vocabulary,
            "n_positions": self.context,
            "n_embd": self.features,
            "n_layer": self.depth,
            "n_head": self.heads,
            "n_inner": self.hidden,
            "activation_function": self.act.name(),
            "layer_norm_epsilon": self.eps,
            "embd_pdrop": self.embedding_dropout,
            "attn_pdrop": self.attention_dropout,
            "resid_pdrop": self.residual_dropout,
            "tie_word_embeddings": self.tied,
            "scale_attn_weights": self.scale_scores,
            "scale_attn_by_inverse_layer_idx": self.scale_by_depth,
            "initializer_range": self.deviation,
        });
        if !self.bias {
            config["bias"] = json!(false);
        }
        config
    }

    pub(super) fn norm(&self) -> Result<LayerNorm> {
        let norm = if self.bias { LayerNorm::new(self.features) } else { LayerNorm::without_bias(self.features) };
        Ok(LayerNorm { eps: self.eps, ..norm? })
    }
}
