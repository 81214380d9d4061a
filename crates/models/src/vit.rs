//! Vision transformer (Dosovitskiy et al., 2021).

use binade_autograd::Var;
use binade_nn::{Conv2d, Init, Layer, LayerNorm, Linear, Module, Param, Result, Visitor};
use binade_tensor::op::Conv2d as Geometry;

use crate::transformer::Block;

/// Extents of a [`Vit`].
#[derive(Clone, Debug, PartialEq)]
pub struct VitConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Height and width of the image.
    pub size: usize,
    /// Height and width of a patch; divides the size.
    pub patch: usize,
    /// Features of a token.
    pub features: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of attention; divide the features.
    pub heads: usize,
    /// Classes.
    pub classes: usize,
}

impl Default for VitConfig {
    /// The small net for 32×32 images: 64 patches and a class token, 192 features, 6 blocks of 3 heads.
    fn default() -> Self {
        VitConfig { in_channels: 3, size: 32, patch: 4, features: 192, depth: 6, heads: 3, classes: 10 }
    }
}

/// Patches and a class token with learned positions, pre-norm blocks, and a head on the class token.
#[derive(Clone, Module)]
pub struct Vit {
    patch: Conv2d,
    class: Param,
    position: Param,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Vit {
    /// With PyTorch's default initial values from the scope's stream.
    ///
    /// # Errors
    /// A patch that does not divide the image, heads that do not divide the features.
    pub fn new(config: &VitConfig) -> Result<Vit> {
        let VitConfig { in_channels, size, patch, features, depth, heads, classes } = *config;
        if patch == 0 || !size.is_multiple_of(patch) {
            let message = format!("patches of {patch} must divide an image of {size}");
            return Err(binade_nn::Error::Config { layer: "Vit", message });
        }
        let tokens = (size / patch).pow(2) + 1;
        let geometry = Geometry { stride: [patch; 2], ..Geometry::default() };
        Ok(Vit {
            patch: Conv2d::with(in_channels, features, [patch; 2], geometry, true)?,
            class: Param::init(&[1, 1, features], Init::Constant(0.0))?,
            position: Param::init(&[1, tokens, features], Init::Normal { mean: 0.0, std: 0.02 })?,
            blocks: (0..depth).map(|_| Block::new(features, heads, false)).collect::<Result<_>>()?,
            norm: LayerNorm::new(features)?,
            head: Linear::new(features, classes)?,
        })
    }
}

impl Layer for Vit {
    /// `[N, C, H, W]` to logits `[N, classes]`.
    fn run(&self, x: &Var) -> Result<Var> {
        let x = self.patch.forward(x)?.flatten(2)?.transpose(1, 2)?; // (N, tokens − 1, D)
        let (n, d) = (x.shape()[0], x.shape()[2]);
        let x = Var::cat(&[&self.class.var().expand(&[n, 1, d])?, &x], 1)?;
        let mut x = (&x + &self.position.var())?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.head.forward(&self.norm.forward(&x)?.narrow(1, 0, 1)?.squeeze(1)?)
    }
}
