//! The network of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024): a first layer that whitens patches,
//! three groups of two convolutions, and a head.

use std::collections::BTreeSet;

use binade_autograd::{Var, scope};
use binade_nn::{BatchNorm2d, Conv2d, Error, Layer, Linear, Module, Param, Result, Visitor};
use binade_tensor::op::{Conv2d as Geometry, Unary::Gelu};
use binade_tensor::{Array, Class};
use binade_weights::Sources;
use serde_json::{Value, json};

use crate::Pretrained;
use crate::timm::{self, own};

/// Extents of an [`Airbench`].
#[derive(Clone, Debug, PartialEq)]
pub struct AirbenchConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Height and width of the image; at least 9.
    pub size: usize,
    /// Channels of the three groups.
    pub widths: [usize; 3],
    /// Classes.
    pub classes: usize,
    /// The first layer's weights, `[2·4·channels, channels, 2, 2]`, as [`whitening`] makes them of training images.
    /// Drawn if there are none.
    pub whitening: Option<Vec<f32>>,
    /// How images are prepared, as timm says it; null if that is not known.
    pub pretrained_cfg: Value,
}

impl Default for AirbenchConfig {
    /// For CIFAR-10: 1.97M parameters.
    fn default() -> AirbenchConfig {
        AirbenchConfig {
            in_channels: 3,
            size: 32,
            widths: [64, 256, 256],
            classes: 10,
            whitening: None,
            pretrained_cfg: Value::Null,
        }
    }
}

/// Two 3×3 convolutions, a pooling after the first that halves the image, and norms without a factor.
#[derive(Clone, Module)]
struct Group {
    conv1: Conv2d,
    norm1: BatchNorm2d,
    conv2: Conv2d,
    norm2: BatchNorm2d,
}

impl Group {
    fn new(inputs: usize, outputs: usize) -> Result<Group> {
        Ok(Group {
            conv1: conv(inputs, outputs)?,
            norm1: norm(outputs)?,
            conv2: conv(outputs, outputs)?,
            norm2: norm(outputs)?,
        })
    }
}

impl Layer for Group {
    fn run(&self, x: &Var) -> Result<Var> {
        let x = self.conv1.forward(x)?.max_pool2d([2, 2], [2, 2], [0, 0])?;
        let x = self.norm1.forward_act(&x, Gelu)?;
        self.norm2.forward_act(&self.conv2.forward(&x)?, Gelu)
    }
}

/// A convolution whose first outputs begin as its inputs (Zagoruyko and Komodakis, 2017).
fn conv(inputs: usize, outputs: usize) -> Result<Conv2d> {
    let geometry = Geometry { padding: [1; 2], ..Geometry::default() };
    let conv = Conv2d::with(inputs, outputs, [3; 2], geometry, false)?;
    if !scope::is_drawn() {
        return Ok(conv);
    }
    let (array, own) = (conv.weight.array(), inputs.min(outputs));
    let mut same = vec![0.0f32; own * inputs * 9];
    same.chunks_mut(inputs * 9).enumerate().for_each(|(channel, kernel)| kernel[channel * 9 + 4] = 1.0);
    let same = Array::from_slice(array.device(), &same, &[own, inputs, 3, 3], Class::Weights)?;
    let same = Var::constant(same.cast(array.dtype(), Class::Weights)?);
    let drawn = Var::constant(array).narrow(0, own, outputs - own)?;
    let both = if own == outputs { same } else { Var::cat(&[&same, &drawn], 0)? };
    Ok(Conv2d { weight: Param::new(both.array().clone()), ..conv })
}

fn norm(channels: usize) -> Result<BatchNorm2d> {
    let norm = BatchNorm2d { momentum: 0.4, eps: 1e-12, ..BatchNorm2d::new(channels)? };
    norm.weight.set_trainable(false);
    Ok(norm)
}

/// The network; see the head of this file.
#[derive(Clone, Module)]
pub struct Airbench {
    whiten: Conv2d,
    group1: Group,
    group2: Group,
    group3: Group,
    head: Linear,
    #[module(skip)]
    config: AirbenchConfig,
}

impl Airbench {
    /// Its name in a `config.json`, which has timm's form.
    pub(crate) const ARCHITECTURE: &str = "binade_airbench";

    /// With PyTorch's default initial values from the scope's stream, but for the first layer, whose weights stay, and
    /// convolutions that begin as nothing.
    ///
    /// # Errors
    /// Images of fewer than 9 pixels a side; weights of the first layer that are too many or too few.
    pub fn new(config: &AirbenchConfig) -> Result<Airbench> {
        let &AirbenchConfig { in_channels, size, widths: [a, b, c], classes, .. } = config;
        if size < 9 {
            let message = format!("images must have at least 9 pixels a side, got {size}");
            return Err(Error::Config { layer: "Airbench", message });
        }
        let patch = 4 * in_channels;
        let mut whiten = Conv2d::new(in_channels, 2 * patch, 2)?;
        if let Some(values) = &config.whitening {
            let array = Array::from_slice(&scope::device()?, values, &[2 * patch, in_channels, 2, 2], Class::Weights)?;
            whiten.weight = Param::new(array.cast(whiten.weight.dtype(), Class::Weights)?);
            whiten.weight.set_trainable(false);
        }
        let (group1, group2, group3) = (Group::new(2 * patch, a)?, Group::new(a, b)?, Group::new(b, c)?);
        let head = Linear::without_bias(c, classes)?;
        Ok(Airbench { whiten, group1, group2, group3, head, config: config.clone() })
    }

    /// Its extents.
    pub fn config(&self) -> &AirbenchConfig {
        &self.config
    }
}

impl Pretrained for Airbench {
    fn from_config(config: &Value) -> crate::Result<Airbench> {
        let usual = AirbenchConfig::default();
        let (mut keys, pretrained_cfg) = own(Airbench::ARCHITECTURE, config)?;
        let config = AirbenchConfig {
            in_channels: keys.or("in_chans", usual.in_channels),
            size: keys.or("img_size", usual.size),
            widths: keys.or("widths", usual.widths),
            classes: keys.or("num_classes", usual.classes),
            whitening: None,
            pretrained_cfg,
        };
        keys.finish()?;
        Ok(Airbench::new(&config)?)
    }

    fn to_config(&self) -> Value {
        let AirbenchConfig { in_channels, size, widths, classes, pretrained_cfg, .. } = &self.config;
        let args = json!({"in_chans": in_channels, "img_size": size, "widths": widths, "num_classes": classes});
        timm::write(Airbench::ARCHITECTURE, timm::object(args), pretrained_cfg)
    }

    fn sources(&self, _stored: &BTreeSet<String>) -> Sources {
        Sources::default()
    }
}

impl Layer for Airbench {
    /// `[N, C, H, W]` to logits `[N, classes]`.
    fn run(&self, x: &Var) -> Result<Var> {
        let x = self.whiten.forward_act(x, Gelu)?; // (N, 8C, H − 1, W − 1)
        let x = self.group3.forward(&self.group2.forward(&self.group1.forward(&x)?)?)?;
        Ok((&self.head.forward(&x.amax(&[2, 3], false)?)? * (1.0 / 9.0))?)
    }
}

/// Weights `[2·4·C, C, 2, 2]` that whiten 2×2 patches of images `[N, C, H, W]`: the eigenvectors of the patches'
/// covariance by falling variance, each over the root of its variance, and all of them negated.
pub fn whitening(images: &[f32], [channels, height, width]: [usize; 3]) -> Vec<f32> {
    let n = 4 * channels;
    let mut covariance = vec![vec![0.0f64; n]; n];
    let mut patches = 0usize;
    for image in images.chunks_exact((channels * height * width).max(1)) {
        for y in 0..height.saturating_sub(1) {
            for x in 0..width.saturating_sub(1) {
                let at = |i: usize| image[(i / 4 * height + y + i / 2 % 2) * width + x + i % 2] as f64;
                let patch: Vec<f64> = (0..n).map(at).collect();
                for (row, a) in covariance.iter_mut().zip(&patch) {
                    row.iter_mut().zip(&patch).for_each(|(sum, b)| *sum += a * b);
                }
                patches += 1;
            }
        }
    }
    covariance.iter_mut().flatten().for_each(|sum| *sum /= patches.max(1) as f64);
    let (values, vectors) = eigen(covariance);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let scaled = |sign: f64| {
        let (order, values, vectors) = (&order, &values, &vectors);
        order.iter().flat_map(move |&k| {
            let factor = sign / (values[k] + 5e-4).sqrt();
            (0..n).map(move |i| (vectors[i][k] * factor) as f32)
        })
    };
    scaled(1.0).chain(scaled(-1.0)).collect()
}

/// Eigenvalues of a symmetric matrix, and eigenvectors in columns (Jacobi, 1846): rotations that make one pair of
/// elements after the other 0.
fn eigen(mut a: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = a.len();
    let mut vectors: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| (i == j) as u8 as f64).collect()).collect();
    // The rest falls with the square in each round; a few are enough.
    for _ in 0..30 {
        let rest: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        if rest == 0.0 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for row in &mut a {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                for j in 0..n {
                    (a[p][j], a[q][j]) = (c * a[p][j] - s * a[q][j], s * a[p][j] + c * a[q][j]);
                }
                for row in &mut vectors {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
            }
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), vectors)
}
