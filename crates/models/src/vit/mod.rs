//! Vision transformer (Dosovitskiy et al., 2021), with the names of timm.

mod architectures;
mod config;
mod positions;

use std::collections::BTreeSet;
use std::sync::Arc;

use binade_autograd::Var;
use binade_nn::{Conv2d, Dropout, Init, Layer, LayerNorm, Linear, Mode, Module, Param, Result, Visitor, attend_packed};
use binade_tensor::op::{Attention as Settings, Conv2d as Geometry};
use binade_weights::{Source, Sources};
use serde_json::Value;

use crate::transformer::{Mlp, linear, through};
use crate::{Error, Library, Pretrained};

pub use config::{Pool, VitConfig};
use positions::resampled;

/// Attention of several heads.
#[derive(Clone, Module)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
    dropout: f64,
    mode: Mode,
}

impl Layer for Attention {
    fn run(&self, x: &Var) -> Result<Var> {
        let qkv = self.qkv.forward(x)?;
        let y = self.mode.run(|| attend_packed(&qkv, self.heads, self.dropout, Settings::default()))?;
        self.proj.forward(&y)
    }
}

/// A factor per feature (Touvron et al., 2021).
#[derive(Clone, Module)]
struct LayerScale {
    gamma: Param,
}

/// Pre-norm transformer block.
#[derive(Clone, Module)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Mlp,
    ls2: Option<LayerScale>,
    dropout: Dropout,
}

fn norm(config: &VitConfig) -> Result<LayerNorm> {
    Ok(LayerNorm { eps: config.eps, ..LayerNorm::new(config.features)? })
}

impl Block {
    fn new(config: &VitConfig) -> Result<Block> {
        let &VitConfig { features, heads, hidden, bias, deviation, .. } = config;
        let scale = || -> Result<Option<LayerScale>> {
            let gamma = |value| Param::init(&[features], Init::Constant(value));
            config.layer_scale.map(|value| Ok(LayerScale { gamma: gamma(value)? })).transpose()
        };
        Ok(Block {
            norm1: norm(config)?,
            attn: Attention {
                qkv: linear(features, 3 * features, config.qkv_bias, deviation)?,
                proj: linear(features, features, bias, deviation)?,
                heads,
                dropout: config.attention_dropout,
                mode: Mode::default(),
            },
            ls1: scale()?,
            norm2: norm(config)?,
            mlp: Mlp {
                fc1: linear(features, hidden, bias, deviation)?,
                fc2: linear(hidden, features, bias, deviation)?,
                act: config.act,
            },
            ls2: scale()?,
            dropout: Dropout::new(config.residual_dropout)?,
        })
    }

    /// `x` and what a branch adds to it.
    fn add(&self, x: &Var, branch: &Var, scale: Option<&LayerScale>) -> Result<Var> {
        let branch = self.dropout.forward(branch)?;
        Ok(match scale {
            Some(scale) => (x + &(&branch * &scale.gamma.var())?)?,
            None => (x + &branch)?,
        })
    }
}

impl Layer for Block {
    /// `[B, T, D]` to the same shape.
    fn run(&self, x: &Var) -> Result<Var> {
        let x = self.add(x, &self.attn.forward(&self.norm1.forward(x)?)?, self.ls1.as_ref())?;
        self.add(&x, &self.mlp.forward(&self.norm2.forward(&x)?)?, self.ls2.as_ref())
    }
}

#[derive(Clone, Module)]
struct PatchEmbed {
    proj: Conv2d,
}

/// Patches and tokens in front of them with learned positions, pre-norm blocks, and a head.
#[derive(Clone, Module)]
pub struct Vit {
    cls_token: Option<Param>,
    reg_token: Option<Param>,
    pos_embed: Option<Param>,
    patch_embed: PatchEmbed,
    pos_drop: Dropout,
    norm_pre: Option<LayerNorm>,
    blocks: Vec<Arc<Block>>,
    norm: Option<LayerNorm>,
    fc_norm: Option<LayerNorm>,
    head_drop: Dropout,
    head: Option<Linear>,
    #[module(skip)]
    config: VitConfig,
}

impl Vit {
    /// With the initial values of its library from the scope's stream.
    ///
    /// # Errors
    /// A patch that does not fit the image, heads that do not divide the features, no token for the head.
    pub fn new(config: &VitConfig) -> Result<Vit> {
        if let Some(message) = config.problems().into_iter().next() {
            return Err(binade_nn::Error::Config { layer: "Vit", message });
        }
        let &VitConfig { features, deviation, registers, .. } = config;
        let [rows, columns] = config.grid();
        let positions = rows * columns + if config.patch_positions_only { 0 } else { config.prefix() };
        // Both libraries cut the distribution off at ±2, which is a hundred deviations.
        let normal = |shape: &[usize], std: f64| Param::init(shape, Init::Normal { mean: 0.0, std });
        let token = if config.library == Library::Timm { 1e-6 } else { deviation };
        let geometry = Geometry { stride: config.patch, ..Geometry::default() };
        let mut proj = Conv2d::with(config.in_channels, features, config.patch, geometry, !config.norm_first)?;
        if config.library == Library::Transformers {
            proj.weight = normal(&[features, config.in_channels, config.patch[0], config.patch[1]], deviation)?;
            proj.bias = Some(Param::init(&[features], Init::Constant(0.0))?);
        }
        let some = |wanted: bool, make: &dyn Fn() -> Result<LayerNorm>| wanted.then(make).transpose();
        let new = || norm(config);
        Ok(Vit {
            cls_token: config.class_token.then(|| normal(&[1, 1, features], token)).transpose()?,
            reg_token: (registers > 0).then(|| normal(&[1, registers, features], token)).transpose()?,
            pos_embed: config.positions.then(|| normal(&[1, positions, features], deviation)).transpose()?,
            patch_embed: PatchEmbed { proj },
            pos_drop: Dropout::new(config.token_dropout)?,
            norm_pre: some(config.norm_first, &new)?,
            blocks: (0..config.depth).map(|_| Block::new(config).map(Arc::new)).collect::<Result<_>>()?,
            norm: some(config.norm_last && !config.norm_pooled, &new)?,
            fc_norm: some(config.norm_last && config.norm_pooled, &new)?,
            head_drop: Dropout::new(config.head_dropout)?,
            head: (config.classes > 0).then(|| linear(features, config.classes, true, deviation)).transpose()?,
            config: config.clone(),
        })
    }

    /// Its extents and settings.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// The same model, sharing its parameters, whose blocks are computed again for backward or not.
    #[must_use]
    pub fn recomputing(&self, recompute: bool) -> Vit {
        let mut model = self.clone();
        model.config.recompute = recompute;
        model
    }

    /// Patches `[N, patches, D]` of a grid, with positions, behind the tokens that stand for no patch.
    fn embed(&self, patches: Var, grid: [usize; 2]) -> Result<Var> {
        let config = &self.config;
        let (n, d) = (patches.shape()[0], config.features);
        let prefix = if config.patch_positions_only { 0 } else { config.prefix() };
        let position = self.pos_embed.as_ref().map(|param| resampled(&param.var(), config.grid(), grid, prefix));
        let position = position.transpose()?;
        let added = |x: Var| position.as_ref().map_or(Ok(x.clone()), |position| &x + position);
        let patches = if config.patch_positions_only { added(patches)? } else { patches };
        let tokens = [&self.cls_token, &self.reg_token].into_iter().flatten();
        let mut parts = tokens.map(|token| {
            let token = token.var();
            token.expand(&[n, token.shape()[1], d])
        });
        let mut parts = parts.by_ref().collect::<binade_autograd::Result<Vec<Var>>>()?;
        parts.push(patches);
        let x = if parts.len() == 1 { parts.remove(0) } else { Var::cat(&parts.iter().collect::<Vec<_>>(), 1)? };
        Ok(if config.patch_positions_only { x } else { added(x)? })
    }

    fn pooled(&self, x: &Var) -> Result<Var> {
        Ok(match self.config.pool {
            Pool::Token => x.narrow(1, 0, 1)?.squeeze(1)?,
            Pool::Average => {
                let prefix = self.config.prefix();
                x.narrow(1, prefix, x.shape()[1] - prefix)?.mean(&[1], false)?
            }
        })
    }
}

impl Layer for Vit {
    /// `[N, C, H, W]` to logits `[N, classes]`.
    fn run(&self, x: &Var) -> Result<Var> {
        let config = &self.config;
        let size = [2, 3].map(|d| x.shape().get(d).copied().unwrap_or(0));
        let divided = |d: usize| size[d] > 0 && size[d].is_multiple_of(config.patch[d]);
        if size != config.size && !(config.any_size && divided(0) && divided(1)) {
            let other = if config.any_size { format!("sides that {:?} divide", config.patch) } else { String::new() };
            let message = format!("expected images of {:?}{other}, got {:?}", config.size, x.shape());
            return Err(binade_nn::Error::Config { layer: "Vit", message });
        }
        let grid = [size[0] / config.patch[0], size[1] / config.patch[1]];
        let patches = self.patch_embed.proj.forward(x)?.flatten(2)?.transpose(1, 2)?; // (N, patches, D)
        let mut x = self.pos_drop.forward(&self.embed(patches, grid)?)?;
        if let Some(norm) = &self.norm_pre {
            x = norm.forward(&x)?;
        }
        for block in &self.blocks {
            x = through(block, &x, config.recompute)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        x = self.pooled(&x)?;
        if let Some(norm) = &self.fc_norm {
            x = norm.forward(&x)?;
        }
        x = self.head_drop.forward(&x)?;
        self.head.as_ref().map_or(Ok(x.clone()), |head| head.forward(&x))
    }
}

/// Parts of names here, in transformers' files, and in the memory of its version 5.
const TRANSFORMERS: [[&str; 3]; 12] = [
    ["cls_token", "embeddings.cls_token", "embeddings.cls_token"],
    ["pos_embed", "embeddings.position_embeddings", "embeddings.position_embeddings"],
    ["patch_embed.proj", "embeddings.patch_embeddings.projection", "embeddings.patch_embeddings.projection"],
    ["norm1", "layernorm_before", "layernorm_before"],
    ["norm2", "layernorm_after", "layernorm_after"],
    ["query", "attention.attention.query", "attention.q_proj"],
    ["key", "attention.attention.key", "attention.k_proj"],
    ["value", "attention.attention.value", "attention.v_proj"],
    ["attn.proj", "attention.output.dense", "attention.o_proj"],
    ["mlp.fc1", "intermediate.dense", "mlp.fc1"],
    ["mlp.fc2", "output.dense", "mlp.fc2"],
    ["norm", "layernorm", "layernorm"],
];

/// Where transformers has a tensor: in its files, or as its version 5 names it in memory.
fn transformers_source(name: &str, memory: bool) -> Source {
    if let Some(tensor) = name.strip_prefix("head.") {
        return Source::Tensor(format!("classifier.{tensor}"));
    }
    let (block, at) = match name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
        Some((index, at)) if memory => (format!("vit.layers.{index}."), at),
        Some((index, at)) => (format!("vit.encoder.layer.{index}."), at),
        None => ("vit.".into(), name),
    };
    let theirs = |at: &str| {
        let found = TRANSFORMERS.iter().find_map(|[own, file, memorised]| {
            let rest = at.strip_prefix(own).filter(|rest| rest.is_empty() || rest.starts_with('.'))?;
            Some(format!("{block}{}{rest}", if memory { memorised } else { file }))
        });
        found.unwrap_or_else(|| format!("{block}{at}"))
    };
    match at.strip_prefix("attn.qkv.") {
        Some(tensor) => Source::Parts(["query", "key", "value"].map(|part| theirs(&format!("{part}.{tensor}"))).into()),
        None => Source::Tensor(theirs(at)),
    }
}

impl Pretrained for Vit {
    fn from_config(config: &Value) -> crate::Result<Vit> {
        Vit::new(&VitConfig::read(config)?).map_err(Error::from)
    }

    fn to_config(&self) -> Value {
        self.config.write()
    }

    fn sources(&self, stored: &BTreeSet<String>) -> Sources {
        let memory = stored.iter().any(|name| name.starts_with("vit.layers."));
        let sources = match self.config.library.storing(stored, "vit.") {
            Library::Timm => Default::default(),
            Library::Transformers => self
                .named_parameters()
                .into_iter()
                .map(|(name, _)| {
                    let source = transformers_source(&name, memory);
                    (name, source)
                })
                .collect(),
        };
        Sources { sources, ignored: Vec::new() }
    }
}
