//! Residual networks (He et al., 2016).

use binade_autograd::Var;
use binade_nn::{BatchNorm2d, Conv2d, Layer, Linear, Module, Result, Visitor};
use binade_tensor::op::Conv2d as Geometry;
use binade_tensor::op::Unary::Relu;

/// Extents of a [`ResNet`].
#[derive(Clone, Debug, PartialEq)]
pub struct ResNetConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the first stage; each next has twice as many.
    pub width: usize,
    /// Blocks of each stage; every stage but the first halves the image.
    pub blocks: Vec<usize>,
    /// Classes.
    pub classes: usize,
}

impl Default for ResNetConfig {
    /// ResNet-18 for CIFAR: a 3×3 stem, no pooling before the stages.
    fn default() -> Self {
        ResNetConfig { in_channels: 3, width: 64, blocks: vec![2, 2, 2, 2], classes: 10 }
    }
}

/// Two 3×3 convolutions and a shortcut.
#[derive(Clone, Module)]
struct BasicBlock {
    c1: Conv2d,
    b1: BatchNorm2d,
    c2: Conv2d,
    b2: BatchNorm2d,
    shortcut: Option<Shortcut>,
}

/// A 1×1 convolution where the shape changes.
#[derive(Clone, Module)]
struct Shortcut {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl Layer for Shortcut {
    fn run(&self, x: &Var) -> Result<Var> {
        self.norm.forward(&self.conv.forward(x)?)
    }
}

fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Result<Conv2d> {
    let geometry = Geometry { stride: [stride; 2], padding: [kernel / 2; 2], ..Geometry::default() };
    Conv2d::with(inputs, outputs, [kernel; 2], geometry, false)
}

impl BasicBlock {
    fn new(inputs: usize, outputs: usize, stride: usize) -> Result<BasicBlock> {
        let shortcut = if stride != 1 || inputs != outputs {
            Some(Shortcut { conv: conv(inputs, outputs, 1, stride)?, norm: BatchNorm2d::new(outputs)? })
        } else {
            None
        };
        Ok(BasicBlock {
            c1: conv(inputs, outputs, 3, stride)?,
            b1: BatchNorm2d::new(outputs)?,
            c2: conv(outputs, outputs, 3, 1)?,
            b2: BatchNorm2d::new(outputs)?,
            shortcut,
        })
    }
}

impl Layer for BasicBlock {
    fn run(&self, x: &Var) -> Result<Var> {
        let h = self.b1.forward_act(&self.c1.forward(x)?, Relu)?;
        let h = self.b2.forward(&self.c2.forward(&h)?)?;
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x)?,
            None => x.clone(),
        };
        Ok((&h + &x)?.unary(Relu)?)
    }
}

/// A stem, stages of residual blocks, the mean over the image, and a linear head.
#[derive(Clone, Module)]
pub struct ResNet {
    stem: Conv2d,
    norm: BatchNorm2d,
    blocks: Vec<BasicBlock>,
    head: Linear,
}

impl ResNet {
    /// With PyTorch's default initial values from the scope's stream.
    ///
    /// # Errors
    /// Extents that are too large.
    pub fn new(config: &ResNetConfig) -> Result<ResNet> {
        let mut blocks = Vec::new();
        let mut inputs = config.width;
        for (stage, &count) in config.blocks.iter().enumerate() {
            let outputs = config.width << stage;
            for i in 0..count {
                blocks.push(BasicBlock::new(inputs, outputs, if stage > 0 && i == 0 { 2 } else { 1 })?);
                inputs = outputs;
            }
        }
        Ok(ResNet {
            stem: conv(config.in_channels, config.width, 3, 1)?,
            norm: BatchNorm2d::new(config.width)?,
            blocks,
            head: Linear::new(inputs, config.classes)?,
        })
    }
}

impl Layer for ResNet {
    /// `[N, C, H, W]` to logits `[N, classes]`.
    fn run(&self, x: &Var) -> Result<Var> {
        let mut x = self.norm.forward_act(&self.stem.forward(x)?, Relu)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.head.forward(&x.mean(&[2, 3], false)?)
    }
}
