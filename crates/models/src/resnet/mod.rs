//! Residual networks (He et al., 2016), with the names of torchvision and timm.

mod config;
mod fold;

use std::collections::BTreeSet;
use std::sync::Arc;

use binade_autograd::Var;
use binade_nn::{BatchNorm2d, Conv2d, Init, Layer, Linear, Module, Param, Result, Visitor};
use binade_tensor::op::Conv2d as Geometry;
use binade_tensor::op::Unary::{self, Relu};
use binade_weights::{Source, Sources};
use serde_json::Value;

use crate::transformer::through;
use crate::{Error, Library, Pretrained};

pub use config::{ResNetConfig, Stem};

fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Result<Conv2d> {
    let geometry = Geometry { stride: [stride; 2], padding: [kernel / 2; 2], ..Geometry::default() };
    // He et al. 2015, by the fan-out.
    let std = (2.0 / (outputs * kernel * kernel).max(1) as f64).sqrt();
    let weight = Param::init(&[outputs, inputs, kernel, kernel], Init::Normal { mean: 0.0, std })?;
    Ok(Conv2d { weight, bias: None, geometry })
}

/// A convolution, the norm behind it unless that is folded into it, and an activation.
fn normed(conv: &Conv2d, norm: &Option<BatchNorm2d>, x: &Var, act: Option<Unary>) -> Result<Var> {
    match (norm, act) {
        (Some(norm), Some(act)) => norm.forward_act(&conv.forward(x)?, act),
        (Some(norm), None) => norm.forward(&conv.forward(x)?),
        (None, Some(act)) => conv.forward_act(x, act),
        (None, None) => conv.forward(x),
    }
}

/// Both without the norm, if there is one.
fn folded(conv: &Conv2d, norm: &Option<BatchNorm2d>) -> Result<Conv2d> {
    norm.as_ref().map_or_else(|| Ok(conv.clone()), |norm| fold::fold(conv, norm))
}

/// A 1×1 convolution where the shape changes.
#[derive(Clone, Module)]
struct Downsample(Conv2d, Option<BatchNorm2d>);

impl Layer for Downsample {
    fn run(&self, x: &Var) -> Result<Var> {
        normed(&self.0, &self.1, x, None)
    }
}

/// Two convolutions, or three of which the first and the last are 1×1, and a shortcut.
#[derive(Clone, Module)]
struct Block {
    conv1: Conv2d,
    bn1: Option<BatchNorm2d>,
    conv2: Conv2d,
    bn2: Option<BatchNorm2d>,
    conv3: Option<Conv2d>,
    bn3: Option<BatchNorm2d>,
    downsample: Option<Downsample>,
}

impl Block {
    fn new(config: &ResNetConfig, inputs: usize, width: usize, stride: usize) -> Result<Block> {
        let outputs = width * config.expansion();
        let last = |channels| BatchNorm2d::with_weight(channels, if config.zero_init { 0.0 } else { 1.0 });
        let downsample = if stride != 1 || inputs != outputs {
            Some(Downsample(conv(inputs, outputs, 1, stride)?, Some(BatchNorm2d::new(outputs)?)))
        } else {
            None
        };
        Ok(if config.bottleneck {
            let (first, second) = if config.halve_early { (stride, 1) } else { (1, stride) };
            Block {
                conv1: conv(inputs, width, 1, first)?,
                bn1: Some(BatchNorm2d::new(width)?),
                conv2: conv(width, width, 3, second)?,
                bn2: Some(BatchNorm2d::new(width)?),
                conv3: Some(conv(width, outputs, 1, 1)?),
                bn3: Some(last(outputs)?),
                downsample,
            }
        } else {
            Block {
                conv1: conv(inputs, width, 3, stride)?,
                bn1: Some(BatchNorm2d::new(width)?),
                conv2: conv(width, outputs, 3, 1)?,
                bn2: Some(last(outputs)?),
                conv3: None,
                bn3: None,
                downsample,
            }
        })
    }

    fn folded(&self) -> Result<Block> {
        Ok(Block {
            conv1: folded(&self.conv1, &self.bn1)?,
            conv2: folded(&self.conv2, &self.bn2)?,
            conv3: self.conv3.as_ref().map(|conv| folded(conv, &self.bn3)).transpose()?,
            bn1: None,
            bn2: None,
            bn3: None,
            downsample: match &self.downsample {
                Some(Downsample(conv, norm)) => Some(Downsample(folded(conv, norm)?, None)),
                None => None,
            },
        })
    }
}

impl Layer for Block {
    fn run(&self, x: &Var) -> Result<Var> {
        let h = normed(&self.conv1, &self.bn1, x, Some(Relu))?;
        let h = match &self.conv3 {
            Some(conv) => normed(conv, &self.bn3, &normed(&self.conv2, &self.bn2, &h, Some(Relu))?, None)?,
            None => normed(&self.conv2, &self.bn2, &h, None)?,
        };
        let x = match &self.downsample {
            Some(downsample) => downsample.forward(x)?,
            None => x.clone(),
        };
        Ok((&h + &x)?.unary(Relu)?)
    }
}

/// A stem, stages of residual blocks, the mean over the image, and a linear head.
#[derive(Clone, Module)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: Option<BatchNorm2d>,
    layer1: Vec<Arc<Block>>,
    layer2: Vec<Arc<Block>>,
    layer3: Vec<Arc<Block>>,
    layer4: Vec<Arc<Block>>,
    fc: Option<Linear>,
    #[module(skip)]
    config: ResNetConfig,
}

impl ResNet {
    /// With the initial values of timm, or torchvision where norms do not begin at 0, from the scope's stream.
    ///
    /// # Errors
    /// Not one to four stages, or as many numbers of channels as of blocks; extents that are too large.
    pub fn new(config: &ResNetConfig) -> Result<ResNet> {
        if let Some(message) = config.problem() {
            return Err(binade_nn::Error::Config { layer: "ResNet", message });
        }
        let (mut inputs, stem) = (config.stem_channels, config.stem_channels);
        let (kernel, stride) = if config.stem == Stem::Halving { (7, 2) } else { (3, 1) };
        let (conv1, bn1) = (conv(config.in_channels, stem, kernel, stride)?, Some(BatchNorm2d::new(stem)?));
        let mut stage = |stage: usize| -> Result<Vec<Arc<Block>>> {
            let (Some(&width), Some(&count)) = (config.channels.get(stage), config.blocks.get(stage)) else {
                return Ok(Vec::new());
            };
            let halves = stage > 0 || config.halve_first;
            let mut blocks = Vec::new();
            for i in 0..count {
                blocks.push(Arc::new(Block::new(config, inputs, width, if halves && i == 0 { 2 } else { 1 })?));
                inputs = width * config.expansion();
            }
            Ok(blocks)
        };
        let [layer1, layer2, layer3, layer4] = [stage(0)?, stage(1)?, stage(2)?, stage(3)?];
        let fc = if config.classes > 0 { Some(Linear::new(inputs, config.classes)?) } else { None };
        Ok(ResNet { conv1, bn1, layer1, layer2, layer3, layer4, fc, config: config.clone() })
    }

    /// Its extents.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// The same network in evaluation, with its norms folded into the convolutions before them, which have new weights
    /// and biases: for inference, as norms of batches are gone.
    ///
    /// # Errors
    /// Out of memory.
    pub fn folded(&self) -> Result<ResNet> {
        let stage = |blocks: &[Arc<Block>]| -> Result<Vec<Arc<Block>>> {
            blocks.iter().map(|block| block.folded().map(Arc::new)).collect()
        };
        Ok(ResNet {
            conv1: folded(&self.conv1, &self.bn1)?,
            bn1: None,
            layer1: stage(&self.layer1)?,
            layer2: stage(&self.layer2)?,
            layer3: stage(&self.layer3)?,
            layer4: stage(&self.layer4)?,
            fc: self.fc.clone(),
            config: self.config.clone(),
        })
    }

    /// Whether its norms are folded into its convolutions.
    pub fn is_folded(&self) -> bool {
        self.bn1.is_none()
    }

    /// The same model, sharing its parameters, whose blocks are computed again for backward or not.
    #[must_use]
    pub fn recomputing(&self, recompute: bool) -> ResNet {
        let mut model = self.clone();
        model.config.recompute = recompute;
        model
    }
}

impl Layer for ResNet {
    /// `[N, C, H, W]` to logits `[N, classes]`.
    fn run(&self, x: &Var) -> Result<Var> {
        let mut x = normed(&self.conv1, &self.bn1, x, Some(Relu))?;
        if self.config.stem == Stem::Halving {
            x = x.max_pool2d([3, 3], [2, 2], [1, 1])?;
        }
        for block in [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().flatten() {
            x = through(block, &x, self.config.recompute)?;
        }
        let x = x.mean(&[2, 3], false)?;
        self.fc.as_ref().map_or(Ok(x.clone()), |fc| fc.forward(&x))
    }
}

impl Pretrained for ResNet {
    fn from_config(config: &Value) -> crate::Result<ResNet> {
        ResNet::new(&ResNetConfig::read(config)?).map_err(Error::from)
    }

    fn to_config(&self) -> Value {
        self.config.write()
    }

    fn sources(&self, stored: &BTreeSet<String>) -> Sources {
        let library = self.config.library.storing(stored, "resnet.");
        let names = self.named_parameters().into_iter().map(|(name, _)| name);
        let names = names.chain(self.named_buffers().into_iter().map(|(name, _)| name));
        let sources = match library {
            Library::Timm => Default::default(),
            Library::Transformers => {
                names.map(|name| (name.clone(), Source::Tensor(config::transformers_name(&name)))).collect()
            }
        };
        Sources { sources, ignored: Vec::new() }
    }
}
