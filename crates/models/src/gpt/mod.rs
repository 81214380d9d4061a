//! GPT-2 (Radford et al., 2019), also in the extents of nanoGPT.

mod cache;
mod config;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use binade_autograd::{Var, scope};
use binade_nn::{
    Dropout, Embedding, Init, Layer, LayerNorm, Linear, Mode, Module, Param, Result, Visitor, attend_packed,
};
use binade_tensor::op::Attention as Settings;
use binade_weights::{Source, Sources};
use serde_json::Value;

use crate::transformer::{Act, heads_problem, linear, through};
use crate::{Error, Pretrained};

pub use cache::GptCache;
pub use config::GptConfig;
pub use write::{Sampling, Writer};

/// Causal attention of several heads.
#[derive(Clone, Module)]
struct Attention {
    c_attn: Linear,
    c_proj: Linear,
    heads: usize,
    #[module(skip)]
    settings: Settings,
    dropout: f64,
    mode: Mode,
}

impl Layer for Attention {
    fn run(&self, x: &Var) -> Result<Var> {
        let qkv = self.c_attn.forward(x)?;
        let y = self.mode.run(|| attend_packed(&qkv, self.heads, self.dropout, self.settings))?;
        self.c_proj.forward(&y)
    }
}

#[derive(Clone, Module)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
    #[module(skip)]
    act: Act,
}

impl Layer for Mlp {
    fn run(&self, x: &Var) -> Result<Var> {
        self.act.into_linear(&self.c_fc.forward(x)?, &self.c_proj)
    }
}

/// Pre-norm transformer block.
#[derive(Clone, Module)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
    dropout: Dropout,
}

impl Block {
    fn new(config: &GptConfig, index: usize) -> Result<Block> {
        let &GptConfig { features, heads, depth, bias, deviation, .. } = config;
        let hidden = config.hidden.unwrap_or(4 * features);
        // What is added to the residual stream, twice in a block, keeps its variance in all.
        let last = deviation / (2.0 * depth as f64).sqrt();
        let by = if config.scale_scores { ((features / heads) as f64).sqrt() } else { 1.0 }
            * if config.scale_by_depth { (index + 1) as f64 } else { 1.0 };
        let usual = config.scale_scores && !config.scale_by_depth;
        Ok(Block {
            ln_1: config.norm()?,
            attn: Attention {
                c_attn: linear(features, 3 * features, bias, deviation)?,
                c_proj: linear(features, features, bias, last)?,
                heads,
                settings: Settings { causal: true, scale: (!usual).then_some(1.0 / by), ..Settings::default() },
                dropout: config.attention_dropout,
                mode: Mode::default(),
            },
            ln_2: config.norm()?,
            mlp: Mlp {
                c_fc: linear(features, hidden, bias, deviation)?,
                c_proj: linear(hidden, features, bias, last)?,
                act: config.act,
            },
            dropout: Dropout::new(config.residual_dropout)?,
        })
    }
}

impl Layer for Block {
    /// `[B, T, D]` to the same shape.
    fn run(&self, x: &Var) -> Result<Var> {
        let x = (x + &self.dropout.forward(&self.attn.forward(&self.ln_1.forward(x)?)?)?)?;
        Ok((&x + &self.dropout.forward(&self.mlp.forward(&self.ln_2.forward(&x)?)?)?)?)
    }
}

/// All but the head.
#[derive(Clone, Module)]
struct Transformer {
    wte: Embedding,
    wpe: Embedding,
    drop: Dropout,
    h: Vec<Arc<Block>>,
    ln_f: LayerNorm,
}

/// Token and position embeddings, causal pre-norm blocks, and a head that is the token embedding unless the
/// configuration unties it. Linear weights are `[out, in]`, and `[in, out]` in files.
#[derive(Clone, Module)]
pub struct Gpt {
    transformer: Transformer,
    lm_head: Option<Linear>,
    #[module(skip)]
    config: GptConfig,
}

impl Gpt {
    /// With GPT-2's initial values from the scope's stream.
    ///
    /// # Errors
    /// Heads that do not divide the features; a dropout that is no probability.
    pub fn new(config: &GptConfig) -> Result<Gpt> {
        let &GptConfig { vocabulary, context, features, deviation, .. } = config;
        if let Some(message) = heads_problem(config.heads, features) {
            return Err(binade_nn::Error::Config { layer: "Gpt", message });
        }
        let table = |rows: usize| -> Result<Embedding> {
            let weight = Param::init(&[rows, features], Init::Normal { mean: 0.0, std: deviation })?;
            Ok(Embedding { weight, padding: None })
        };
        let transformer = Transformer {
            wte: table(vocabulary)?,
            wpe: table(context)?,
            drop: Dropout::new(config.embedding_dropout)?,
            h: (0..config.depth).map(|i| Block::new(config, i).map(Arc::new)).collect::<Result<_>>()?,
            ln_f: config.norm()?,
        };
        let lm_head = if config.tied { None } else { Some(linear(features, vocabulary, false, deviation)?) };
        Ok(Gpt { transformer, lm_head, config: config.clone() })
    }

    /// Its extents and settings.
    pub fn config(&self) -> &GptConfig {
        &self.config
    }

    /// The same model, sharing its parameters, whose blocks are computed again for backward or not.
    #[must_use]
    pub fn recomputing(&self, recompute: bool) -> Gpt {
        let mut model = self.clone();
        model.config.recompute = recompute;
        model
    }

    fn logits(&self, x: &Var) -> Result<Var> {
        match &self.lm_head {
            Some(head) => head.forward(x),
            None => self.transformer.wte.scores(x),
        }
    }

    /// The embeddings of tokens `[B, T]`, the first of which are at position `start`.
    fn embed(&self, index: &Var, start: usize) -> Result<Var> {
        let t = index.shape().last().copied().unwrap_or(0);
        if index.shape().rank() != 2 || start + t > self.config.context {
            let context = self.config.context;
            let message = format!("expected [B, T] tokens in a context of {context}, got {:?}", index.shape());
            return Err(binade_nn::Error::Config { layer: "Gpt", message: format!("{message} behind {start} others") });
        }
        let positions = scope::with_device(index.array().device(), || Var::arange(start as i64, t))?;
        let x = (&self.transformer.wte.forward(index)? + &self.transformer.wpe.forward(&positions)?)?;
        self.transformer.drop.forward(&x)
    }
}

impl Layer for Gpt {
    /// Indices `[B, T]` to logits `[B, T, vocabulary]`.
    fn run(&self, index: &Var) -> Result<Var> {
        let transformer = &self.transformer;
        let mut x = self.embed(index, 0)?;
        for block in &transformer.h {
            x = through(block, &x, self.config.recompute)?;
        }
        self.logits(&transformer.ln_f.forward(&x)?)
    }
}

impl Pretrained for Gpt {
    fn from_config(config: &Value) -> crate::Result<Gpt> {
        Gpt::new(&GptConfig::read(config)?).map_err(Error::from)
    }

    fn to_config(&self) -> Value {
        self.config.write()
    }

    fn sources(&self, stored: &BTreeSet<String>) -> Sources {
        const PREFIX: &str = "transformer.";
        // Files of the model without a head, as the published ones, have no prefix.
        let bare = !stored.is_empty() && !stored.iter().any(|name| name.starts_with(PREFIX));
        let stored_as = |name: &str| if bare { name.strip_prefix(PREFIX).unwrap_or(name) } else { name }.to_string();
        let source = |name: &str| {
            let matrix = name.ends_with(".weight") && name.contains(".c_");
            if matrix { Source::Transposed(stored_as(name)) } else { Source::Tensor(stored_as(name)) }
        };
        let names = self.named_parameters().into_iter().map(|(name, _)| name);
        let masks = |i: usize| ["bias", "masked_bias"].map(|mask| stored_as(&format!("{PREFIX}h.{i}.attn.{mask}")));
        // The head may be in a file although it is the embedding.
        let head = self
            .lm_head
            .is_none()
            .then(|| ("lm_head.weight".to_string(), Source::Tensor(stored_as("transformer.wte.weight"))));
        Sources {
            sources: names.map(|name| (name.clone(), source(&name))).chain(head).collect(),
            ignored: (0..self.config.depth).flat_map(masks).collect(),
        }
    }
}
