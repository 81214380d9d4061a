//! A small convolutional network for images of 8×8 and up.

use std::collections::BTreeSet;

use binade_autograd::Var;
use binade_nn::{Conv2d, Layer, Linear, Module, Result, Visitor};
use binade_tensor::op::Unary::Relu;
use binade_weights::Sources;
use serde_json::{Value, json};

use crate::Pretrained;
use crate::timm::{self, own};

/// Extents of a [`SmallCnn`].
#[derive(Clone, Debug, PartialEq)]
pub struct SmallCnnConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the four convolutions.
    pub channels: [usize; 4],
    /// Height and width of the image; a multiple of 4.
    pub size: usize,
    /// Features of the hidden layer.
    pub fc: usize,
    /// Classes.
    pub classes: usize,
    /// How images are prepared, as timm says it; null if that is not known.
    pub pretrained_cfg: Value,
}

impl Default for SmallCnnConfig {
    fn default() -> Self {
        SmallCnnConfig {
            in_channels: 1,
            channels: [32, 64, 128, 128],
            size: 8,
            fc: 256,
            classes: 10,
            pretrained_cfg: Value::Null,
        }
    }
}

/// conv3×3, conv3×3, pool, conv3×3, conv3×3, pool, fc, fc, with ReLU; all convolutions keep the size.
#[derive(Clone, Module)]
pub struct SmallCnn {
    c1: Conv2d,
    c2: Conv2d,
    c3: Conv2d,
    c4: Conv2d,
    f1: Linear,
    f2: Linear,
    #[module(skip)]
    config: SmallCnnConfig,
}

impl SmallCnn {
    /// Its name in a `config.json`, which has timm's form.
    pub(crate) const ARCHITECTURE: &str = "binade_small_cnn";

    /// With PyTorch's default initial values from the scope's stream.
    ///
    /// # Errors
    /// A size that is not a multiple of 4.
    pub fn new(config: &SmallCnnConfig) -> Result<SmallCnn> {
        if config.size < 4 || !config.size.is_multiple_of(4) {
            let message = format!("the image size must be a multiple of 4, got {}", config.size);
            return Err(binade_nn::Error::Config { layer: "SmallCnn", message });
        }
        let [a, b, c, d] = config.channels;
        let side = config.size / 4;
        Ok(SmallCnn {
            c1: Conv2d::same(config.in_channels, a, 3)?,
            c2: Conv2d::same(a, b, 3)?,
            c3: Conv2d::same(b, c, 3)?,
            c4: Conv2d::same(c, d, 3)?,
            f1: Linear::new(d * side * side, config.fc)?,
            f2: Linear::new(config.fc, config.classes)?,
            config: config.clone(),
        })
    }
}

impl SmallCnn {
    /// Its extents.
    pub fn config(&self) -> &SmallCnnConfig {
        &self.config
    }
}

impl Pretrained for SmallCnn {
    fn from_config(config: &Value) -> crate::Result<SmallCnn> {
        let usual = SmallCnnConfig::default();
        let (mut keys, pretrained_cfg) = own(SmallCnn::ARCHITECTURE, config)?;
        let config = SmallCnnConfig {
            in_channels: keys.or("in_chans", usual.in_channels),
            channels: keys.or("channels", usual.channels),
            size: keys.or("img_size", usual.size),
            fc: keys.or("fc", usual.fc),
            classes: keys.or("num_classes", usual.classes),
            pretrained_cfg,
        };
        keys.finish()?;
        Ok(SmallCnn::new(&config)?)
    }

    fn to_config(&self) -> Value {
        let SmallCnnConfig { in_channels, channels, size, fc, classes, pretrained_cfg } = &self.config;
        let args = json!({
            "in_chans": in_channels, "channels": channels, "img_size": size, "fc": fc, "num_classes": classes,
        });
        timm::write(SmallCnn::ARCHITECTURE, timm::object(args), pretrained_cfg)
    }

    fn sources(&self, _stored: &BTreeSet<String>) -> Sources {
        Sources::default()
    }
}

impl Layer for SmallCnn {
    /// `[N, C, H, W]` to logits `[N, classes]`.
    fn run(&self, x: &Var) -> Result<Var> {
        let x = self.c1.forward_act(x, Relu)?;
        let x = self.c2.forward_act(&x, Relu)?.max_pool2d([2, 2], [2, 2], [0, 0])?; // (N, 64, H/2, W/2)
        let x = self.c3.forward_act(&x, Relu)?;
        let x = self.c4.forward_act(&x, Relu)?.max_pool2d([2, 2], [2, 2], [0, 0])?; // (N, 128, H/4, W/4)
        let x = self.f1.forward_act(&x.flatten(1)?, Relu)?;
        self.f2.forward(&x)
    }
}
