//! The U-Net of denoising diffusion (Ho et al., 2020).

use std::sync::{Arc, Mutex, PoisonError};

use binade_autograd::Var;
use binade_nn::{Conv2d, GroupNorm, Layer, Linear, Module, Result, Visitor};
use binade_tensor::op::Unary::Silu;
use binade_tensor::op::{Attention, Conv2d as Geometry, Interpolation};
use binade_tensor::{Array, Class, Device};

/// Extents of a [`UNet`].
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the image, which are those of the result.
    pub channels: usize,
    /// Channels of the first level; a multiple of 32.
    pub base: usize,
    /// Channels of each level, times `base`; every level but the first halves the image.
    pub levels: Vec<usize>,
    /// Residual blocks per level on the way down; one more on the way up.
    pub blocks: usize,
    /// Levels with attention after every residual block.
    pub attention: Vec<usize>,
}

impl Default for UNetConfig {
    /// For 32×32 images: levels of 64, 128 and 128 channels, attention at 16×16.
    fn default() -> Self {
        UNetConfig { channels: 3, base: 64, levels: vec![1, 2, 2], blocks: 2, attention: vec![1] }
    }
}

/// Norm, SiLU, convolution, twice, with the time added between and a shortcut around.
#[derive(Clone, Module)]
struct ResBlock {
    n1: GroupNorm,
    c1: Conv2d,
    time: Linear,
    n2: GroupNorm,
    c2: Conv2d,
    skip: Option<Conv2d>,
}

impl ResBlock {
    fn new(inputs: usize, outputs: usize, time: usize) -> Result<ResBlock> {
        Ok(ResBlock {
            n1: GroupNorm::new(32, inputs)?,
            c1: Conv2d::same(inputs, outputs, 3)?,
            time: Linear::new(time, outputs)?,
            n2: GroupNorm::new(32, outputs)?,
            c2: Conv2d::same(outputs, outputs, 3)?,
            skip: if inputs == outputs { None } else { Some(Conv2d::new(inputs, outputs, 1)?) },
        })
    }

    /// `time` is SiLU of the time's embedding, `[N, features]`.
    fn forward(&self, x: &Var, time: &Var) -> Result<Var> {
        self.within(|| {
            let h = self.c1.forward(&self.n1.forward_act(x, Silu)?)?;
            let h = (&h + &self.time.forward(time)?.unsqueeze(2)?.unsqueeze(3)?)?;
            let h = self.c2.forward(&self.n2.forward_act(&h, Silu)?)?;
            Ok(match &self.skip {
                Some(skip) => (&h + &skip.forward(x)?)?,
                None => (&h + x)?,
            })
        })
    }
}

/// One head of attention over the pixels, with a shortcut around.
#[derive(Clone, Module)]
struct AttentionBlock {
    norm: GroupNorm,
    qkv: Conv2d,
    proj: Conv2d,
}

impl AttentionBlock {
    fn new(channels: usize) -> Result<AttentionBlock> {
        Ok(AttentionBlock {
            norm: GroupNorm::new(32, channels)?,
            qkv: Conv2d::new(channels, 3 * channels, 1)?,
            proj: Conv2d::new(channels, channels, 1)?,
        })
    }
}

impl Layer for AttentionBlock {
    fn run(&self, x: &Var) -> Result<Var> {
        let [n, c, h, w] = std::array::from_fn(|d| x.shape()[d] as isize);
        // Channels lie last in memory: as pixels of three vectors nothing is copied.
        let qkv = self.qkv.forward(&self.norm.forward(x)?)?.permute(&[0, 2, 3, 1])?.reshape(&[n, h * w, 3, c])?;
        let qkv = qkv.transpose(1, 2)?; // (N, 3, HW, C)
        let part = |i: usize| qkv.narrow(1, i, 1);
        let y = part(0)?.attention(&part(1)?, &part(2)?, Attention::default())?; // (N, 1, HW, C)
        Ok((x + &self.proj.forward(&y.reshape(&[n, h, w, c])?.permute(&[0, 3, 1, 2])?)?)?)
    }
}

/// A residual block with or without attention after it.
#[derive(Clone, Module)]
struct Stage {
    block: ResBlock,
    attention: Option<AttentionBlock>,
}

impl Stage {
    fn new(inputs: usize, outputs: usize, time: usize, attention: bool) -> Result<Stage> {
        let attention = if attention { Some(AttentionBlock::new(outputs)?) } else { None };
        Ok(Stage { block: ResBlock::new(inputs, outputs, time)?, attention })
    }

    fn forward(&self, x: &Var, time: &Var) -> Result<Var> {
        self.within(|| {
            let x = self.block.forward(x, time)?;
            self.attention.as_ref().map_or(Ok(x.clone()), |a| a.forward(&x))
        })
    }
}

/// One resolution: its blocks, and the convolution that leaves it.
#[derive(Clone, Module)]
struct Level {
    stages: Vec<Stage>,
    resize: Option<Conv2d>,
}

/// Predicts the noise in an image at a time step.
#[derive(Clone, Module)]
pub struct UNet {
    time1: Linear,
    time2: Linear,
    stem: Conv2d,
    down: Vec<Level>,
    middle1: ResBlock,
    middle_attention: AttentionBlock,
    middle2: ResBlock,
    up: Vec<Level>,
    norm: GroupNorm,
    head: Conv2d,
    base: usize,
    #[module(skip)]
    rates: Rates,
}

/// Frequencies of the time's embedding. They are computed on the host, and uploaded once to the device that is used.
#[derive(Clone, Default)]
struct Rates(Arc<Mutex<Option<Array>>>);

impl Rates {
    /// `[1, half]`, from 1 down to 1/10000.
    fn on(&self, device: &Device, half: usize) -> Result<Var> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rates = match kept.take().filter(|rates| rates.device() == device) {
            Some(rates) => rates,
            None => {
                let rate = |i: usize| (-(10000f64.ln()) * i as f64 / half as f64).exp() as f32;
                let rates: Vec<f32> = (0..half).map(rate).collect();
                Array::from_slice(device, &rates, &[1, half], Class::Weights)?
            }
        };
        Ok(Var::constant(kept.insert(rates).clone()))
    }
}

impl UNet {
    /// With PyTorch's default initial values from the scope's stream.
    ///
    /// # Errors
    /// Channels that are no multiple of 32; no levels.
    pub fn new(config: &UNetConfig) -> Result<UNet> {
        let UNetConfig { channels, base, levels, blocks, attention } = config;
        if levels.is_empty() {
            return Err(binade_nn::Error::Config { layer: "UNet", message: "there must be a level".into() });
        }
        let (time, last) = (4 * base, levels.len() - 1);
        let mut skips = vec![*base];
        let mut c = *base;
        let mut down = Vec::new();
        for (i, &factor) in levels.iter().enumerate() {
            let mut stages = Vec::new();
            for _ in 0..*blocks {
                stages.push(Stage::new(c, base * factor, time, attention.contains(&i))?);
                c = base * factor;
                skips.push(c);
            }
            let mut resize = None;
            if i < last {
                let halve = Geometry { stride: [2, 2], padding: [1, 1], ..Geometry::default() };
                resize = Some(Conv2d::with(c, c, [3, 3], halve, true)?);
                skips.push(c);
            }
            down.push(Level { stages, resize });
        }
        let (middle1, middle_attention, middle2) =
            (ResBlock::new(c, c, time)?, AttentionBlock::new(c)?, ResBlock::new(c, c, time)?);
        let mut up = Vec::new();
        for (i, &factor) in levels.iter().enumerate().rev() {
            let mut stages = Vec::new();
            for _ in 0..blocks + 1 {
                stages.push(Stage::new(c + skips.pop().unwrap_or(0), base * factor, time, attention.contains(&i))?);
                c = base * factor;
            }
            up.push(Level { stages, resize: if i > 0 { Some(Conv2d::same(c, c, 3)?) } else { None } });
        }
        Ok(UNet {
            time1: Linear::new(*base, time)?,
            time2: Linear::new(time, time)?,
            stem: Conv2d::same(*channels, *base, 3)?,
            down,
            middle1,
            middle_attention,
            middle2,
            up,
            norm: GroupNorm::new(32, c)?,
            head: Conv2d::same(c, *channels, 3)?,
            base: *base,
            rates: Rates::default(),
        })
    }

    /// Sines and cosines of the time, `[N]` to `[N, base]`.
    fn embed(&self, t: &Var) -> Result<Var> {
        let half = self.base / 2;
        let rates = self.rates.on(t.array().device(), half)?;
        let angle = (&t.cast(binade_tensor::DType::F32)?.unsqueeze(1)? * &rates)?;
        Ok(Var::cat(&[&angle.sin()?, &angle.cos()?], 1)?)
    }

    /// Images `[N, C, H, W]` and time steps `[N]` to noise `[N, C, H, W]`. H and W are multiples of 2 to the number of
    /// levels − 1.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Var, t: &Var) -> Result<Var> {
        self.within(|| self.denoise(x, t))
    }

    fn denoise(&self, x: &Var, t: &Var) -> Result<Var> {
        let time = self.time2.forward(&self.time1.forward_act(&self.embed(t)?, Silu)?)?.unary(Silu)?;
        let mut h = self.stem.forward(x)?;
        let mut skips = vec![h.clone()];
        for level in &self.down {
            for stage in &level.stages {
                h = stage.forward(&h, &time)?;
                skips.push(h.clone());
            }
            if let Some(conv) = &level.resize {
                h = conv.forward(&h)?;
                skips.push(h.clone());
            }
        }
        h = self.middle1.forward(&h, &time)?;
        h = self.middle2.forward(&self.middle_attention.forward(&h)?, &time)?;
        for level in &self.up {
            for stage in &level.stages {
                let skip = skips.pop().unwrap_or_else(|| h.clone());
                h = stage.forward(&Var::cat(&[&h, &skip], 1)?, &time)?;
            }
            if let Some(conv) = &level.resize {
                let size = [2 * h.shape()[2], 2 * h.shape()[3]];
                h = conv.forward(&h.interpolate(&size, Interpolation::Nearest)?)?;
            }
        }
        self.head.forward(&self.norm.forward_act(&h, Silu)?)
    }
}
