//! What the models of diffusion are built of: residual blocks, halving, doubling, the time.

use std::sync::{Arc, Mutex, PoisonError};

use binade_autograd::{Var, checkpoint, scope};
use binade_nn::{Conv2d, Dropout, Error, GroupNorm, Layer, Linear, Module, Param, Result, Visitor};
use binade_tensor::op::{Conv2d as Geometry, Interpolation, PadMode, Pool, PoolKind, Unary};
use binade_tensor::{Array, Class, DType, Device};

/// What all residual blocks of a model have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Features of the time's embedding; `None` where there is no time.
    pub time: Option<usize>,
    /// Groups of the norms.
    pub groups: usize,
    /// Added to the norms' variances.
    pub eps: f64,
    pub act: Unary,
    pub dropout: f64,
    /// Whether the time scales and shifts the second norm, instead of being added before it.
    pub scale_shift: bool,
    /// What a block's result is divided by.
    pub scale: f64,
}

/// What a residual block does to the size of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Same,
    Half,
    Double,
}

impl Size {
    fn of(self, x: &Var) -> Result<Var> {
        Ok(match self {
            Size::Same => x.clone(),
            Size::Half => x.pool2d(Pool::new(PoolKind::Avg, [2, 2], [2, 2], [0, 0]))?,
            Size::Double => x.interpolate(&[2 * x.shape()[2], 2 * x.shape()[3]], Interpolation::Nearest)?,
        })
    }
}

/// What blocks are given beside the image, and whether they are run again in backward instead of kept.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// The activated embedding of the time, `[N or 1, features]`.
    pub time: Option<&'a Var>,
    /// What is attended to beside the image, `[N, S, features]`.
    pub context: Option<&'a Var>,
    pub recompute: bool,
}

/// Runs a block, or runs it now and again in backward ([`checkpoint`]). Names are the same.
pub(crate) fn run<M: Module + Clone + Send + Sync>(
    block: &M,
    recompute: bool,
    ins: &[&Var],
    f: impl Fn(&M, &[Var]) -> Result<Var> + Send + Sync + 'static,
) -> Result<Var> {
    if !recompute {
        let given: Vec<Var> = ins.iter().map(|&v| v.clone()).collect();
        return f(block, &given);
    }
    let block = block.clone();
    let again = move |given: &[Var]| {
        f(&block, given).map_err(|error| match error {
            Error::Autograd(error) => error,
            other => binade_autograd::Error::Recompute { message: other.to_string() },
        })
    };
    Ok(checkpoint(again, ins)?)
}

/// Runs a layer of few numbers, through which all of a model's go, in f32 under every policy: what it rounds would be
/// rounded everywhere. Where parameters are stored in 16 bit, so is what it computes.
pub(crate) fn in_f32(weight: &Param, x: &Var, f: impl FnOnce(&Var) -> Result<Var>) -> Result<Var> {
    if weight.dtype() == DType::F32 { scope::with_cast_rule(None, || f(&x.cast(DType::F32)?)) } else { f(x) }
}

/// A convolution in f32 ([`in_f32`]).
pub(crate) fn wide(conv: &Conv2d, x: &Var) -> Result<Var> {
    in_f32(&conv.weight, x, |x| conv.forward(x))
}

/// Group norm with this eps.
pub(crate) fn group_norm(groups: usize, channels: usize, eps: f64) -> Result<GroupNorm> {
    Ok(GroupNorm { eps, ..GroupNorm::new(groups, channels)? })
}

/// Norm, activation, convolution, twice, with the time in between and a shortcut around.
#[derive(Clone, Module)]
pub(crate) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    dropout: Dropout,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    act: Unary,
    scale_shift: bool,
    scale: f64,
    #[module(skip)]
    size: Size,
}

impl ResnetBlock2D {
    pub fn new(inputs: usize, outputs: usize, style: &Style, size: Size) -> Result<ResnetBlock2D> {
        let numbers = if style.scale_shift { 2 * outputs } else { outputs };
        Ok(ResnetBlock2D {
            norm1: group_norm(style.groups, inputs, style.eps)?,
            conv1: Conv2d::same(inputs, outputs, 3)?,
            time_emb_proj: style.time.map(|time| Linear::new(time, numbers)).transpose()?,
            norm2: group_norm(style.groups, outputs, style.eps)?,
            dropout: Dropout::new(style.dropout)?,
            conv2: Conv2d::same(outputs, outputs, 3)?,
            conv_shortcut: if inputs == outputs { None } else { Some(Conv2d::new(inputs, outputs, 1)?) },
            act: style.act,
            scale_shift: style.scale_shift,
            scale: style.scale,
            size,
        })
    }

    /// `[N, C, H, W]`, as the plan says.
    pub fn forward(&self, x: &Var, given: Given<'_>) -> Result<Var> {
        match (given.time, &self.time_emb_proj) {
            (Some(time), Some(_)) => run(self, given.recompute, &[x, time], |b, v| b.block(&v[0], Some(&v[1]))),
            _ => run(self, given.recompute, &[x], |b, v| b.block(&v[0], None)),
        }
    }

    fn block(&self, x: &Var, time: Option<&Var>) -> Result<Var> {
        self.within(|| {
            let h = self.conv1.forward(&self.size.of(&self.norm1.forward_act(x, self.act)?)?)?;
            let h = match (&self.time_emb_proj, time) {
                (Some(proj), Some(time)) => {
                    // (N, C or 2·C, 1, 1)
                    let time = in_f32(&proj.weight, time, |time| proj.forward(time))?;
                    let time = time.cast(DType::F32)?.unsqueeze(2)?.unsqueeze(3)?;
                    if self.scale_shift { self.modulated(&h, &time)? } else { self.second(&(&h + &time)?)? }
                }
                _ => self.second(&h)?,
            };
            let h = self.conv2.forward(&self.dropout.forward(&h)?)?;
            let x = self.size.of(x)?;
            let x = self.conv_shortcut.as_ref().map_or(Ok(x.clone()), |conv| conv.forward(&x))?;
            // Sums of many blocks are kept in f32, as those of transformers are.
            let sum = (&x.cast(DType::F32)? + &h)?;
            if self.scale == 1.0 { Ok(sum) } else { Ok((&sum * (1.0 / self.scale))?) }
        })
    }

    fn second(&self, h: &Var) -> Result<Var> {
        self.norm2.forward_act(h, self.act)
    }

    /// `act(norm(h)·(1 + scale) + shift)`, in f32 as the norm.
    fn modulated(&self, h: &Var, time: &Var) -> Result<Var> {
        let channels = h.shape()[1];
        let (scale, shift) = (time.narrow(1, 0, channels)?, time.narrow(1, channels, channels)?);
        let h = (&(&self.norm2.forward(h)? * &(&scale + 1.0)?)? + &shift)?;
        Ok(h.unary(self.act)?)
    }
}

/// Half or twice the size: by a convolution (`conv.weight`), or by a residual block (`norm1.weight` …).
#[derive(Clone, Module)]
pub(crate) struct Resize {
    conv: Option<Conv2d>,
    #[module(flatten)]
    resnet: Option<ResnetBlock2D>,
    /// Whether the convolution that halves is padded at the end alone: (0, 1, 0, 1).
    at_end: bool,
    #[module(skip)]
    size: Size,
}

impl Resize {
    /// A 3×3 convolution of stride 2, padded as `downsample_padding` says: 0 is a row and a column at the end.
    pub fn half(channels: usize, padding: usize) -> Result<Resize> {
        let geometry = Geometry { stride: [2, 2], padding: [padding; 2], ..Geometry::default() };
        let conv = Some(Conv2d::with(channels, channels, [3, 3], geometry, true)?);
        Ok(Resize { conv, resnet: None, at_end: padding == 0, size: Size::Half })
    }

    /// The nearest pixel, and a 3×3 convolution.
    pub fn double(channels: usize) -> Result<Resize> {
        Ok(Resize { conv: Some(Conv2d::same(channels, channels, 3)?), resnet: None, at_end: false, size: Size::Double })
    }

    /// A residual block that halves or doubles.
    pub fn resnet(channels: usize, style: &Style, size: Size) -> Result<Resize> {
        let resnet = Some(ResnetBlock2D::new(channels, channels, style, size)?);
        Ok(Resize { conv: None, resnet, at_end: false, size })
    }

    /// `wanted` are height and width of a doubled image, which may be odd.
    pub fn forward(&self, x: &Var, given: Given<'_>, wanted: Option<[usize; 2]>) -> Result<Var> {
        if let Some(resnet) = &self.resnet {
            return self.within(|| resnet.forward(x, given));
        }
        let Some(conv) = &self.conv else { return self.size.of(x) };
        self.within(|| match (self.size, wanted) {
            (Size::Double, Some(size)) => conv.forward(&x.interpolate(&size, Interpolation::Nearest)?),
            (Size::Double, None) => conv.forward(&Size::Double.of(x)?),
            (Size::Half | Size::Same, _) if self.at_end => conv.forward(&x.pad(&[0, 1, 0, 1], PadMode::Constant(0.0))?),
            (Size::Half | Size::Same, _) => conv.forward(x),
        })
    }
}

/// Sines and cosines of a time (Vaswani et al., 2017). Frequencies are computed on the host in f64, and uploaded once
/// to the device that is used; angles and embeddings are f32 in every policy, so that 1,000 times are as many
/// embeddings.
#[derive(Clone)]
pub(crate) struct Timesteps {
    features: usize,
    /// Cosines first.
    cosines_first: bool,
    /// How many frequencies fewer the last one, 1/10000, is divided by.
    shift: usize,
    rates: Arc<Mutex<Option<Array>>>,
}

impl Timesteps {
    pub fn new(features: usize, cosines_first: bool, shift: usize) -> Timesteps {
        Timesteps { features, cosines_first, shift, rates: Arc::default() }
    }

    /// `[1, half]`, from 1 down to 1/10000.
    fn rates(&self, device: &Device) -> Result<Var> {
        let mut kept = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let rates = match kept.take().filter(|rates| rates.device() == device) {
            Some(rates) => rates,
            None => {
                let half = self.features / 2;
                let last = half as f64 - self.shift as f64;
                let rate = |i: usize| (-(10000f64.ln()) * i as f64 / last).exp() as f32;
                let rates: Vec<f32> = (0..half).map(rate).collect();
                Array::from_slice(device, &rates, &[1, half], Class::Weights)?
            }
        };
        Ok(Var::constant(kept.insert(rates).clone()))
    }

    /// Times of any shape with N numbers, to `[N, features]`.
    pub fn embed(&self, t: &Var) -> Result<Var> {
        let t = t.cast(DType::F32)?.reshape(&[-1, 1])?;
        let angle = (&t * &self.rates(t.array().device())?)?;
        let (sine, cosine) = (angle.sin()?, angle.cos()?);
        Ok(Var::cat(&if self.cosines_first { [&cosine, &sine] } else { [&sine, &cosine] }, 1)?)
    }
}

/// Two linear layers with an activation in between.
#[derive(Clone, Module)]
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    act: Unary,
}

impl TimestepEmbedding {
    pub fn new(inputs: usize, outputs: usize, act: Unary) -> Result<TimestepEmbedding> {
        Ok(TimestepEmbedding { linear_1: Linear::new(inputs, outputs)?, linear_2: Linear::new(outputs, outputs)?, act })
    }
}

impl Layer for TimestepEmbedding {
    fn run(&self, x: &Var) -> Result<Var> {
        in_f32(&self.linear_1.weight, x, |x| self.linear_2.forward(&self.linear_1.forward_act(x, self.act)?))
    }
}
