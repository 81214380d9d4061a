//! The U-Net under both models of noise: levels down, a middle, levels up with skips, the time, a class.

use binade_autograd::Var;
use binade_nn::{Conv2d, Embedding, Error, GroupNorm, Layer, Linear, Module, Result, Visitor};

use super::attention::{Mixer, PixelAttention, Transformer2DModel, TransformerPlan};
use super::blocks::{Given, Resize, ResnetBlock2D, Size, Style, TimestepEmbedding, Timesteps, group_norm, wide};
use super::lora::freeze_others;

/// What follows a level's residual blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mix {
    Nothing,
    /// Attention of pixels with heads of so many features; the norm before it, if any, has so many groups.
    Attention {
        head: usize,
        groups: Option<usize>,
    },
    Transformer(TransformerPlan),
}

impl Mix {
    fn build(&self, channels: usize, style: &Style) -> Result<Option<Mixer>> {
        Ok(match self {
            Mix::Nothing => None,
            Mix::Attention { head, groups } => {
                let norm = groups.map(|groups| (groups, style.eps));
                Some(Mixer::attention(PixelAttention::new(channels, *head, norm, style.scale)?))
            }
            Mix::Transformer(plan) => Some(Mixer::transformer(Transformer2DModel::new(channels, style.groups, plan)?)),
        })
    }
}

/// How a level changes the size of the image at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A convolution, with this padding on the way down.
    Conv(usize),
    Resnet,
}

/// One resolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    pub channels: usize,
    /// Residual blocks on the way down; one more on the way up.
    pub layers: usize,
    pub mix: Mix,
    pub ending: Ending,
}

/// A class beside the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Classes {
    None,
    /// A table of so many rows.
    Table(usize),
    /// A continuous label, embedded as the time is.
    Timestep,
    /// What is added is given.
    Identity,
    /// Two linear layers from so many features.
    Projection(usize),
    /// One linear layer from so many features.
    Simple(usize),
}

/// Everything that a [`UNet`] is made from. `down` and `up` are in the order in which they run.
pub(crate) struct Plan {
    pub inputs: usize,
    pub outputs: usize,
    pub style: Style,
    pub kernels: [usize; 2],
    pub center: bool,
    pub cosines_first: bool,
    pub shift: usize,
    pub classes: Classes,
    pub down: Vec<Level>,
    pub middle: Option<Mix>,
    pub middle_scale: f64,
    pub up: Vec<Level>,
}

/// Residual blocks, what is between them, and what changes the size. On the way down and in the middle and up alike.
#[derive(Clone, Module)]
pub(crate) struct Block {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Mixer>,
    downsamplers: Vec<Resize>,
    upsamplers: Vec<Resize>,
}

impl Block {
    /// `inputs` of each residual block; `resize` at the end.
    pub fn new(inputs: &[usize], level: &Level, style: &Style, resize: Option<Size>) -> Result<Block> {
        let Level { channels, mix, ending, .. } = level;
        let mut block =
            Block { resnets: Vec::new(), attentions: Vec::new(), downsamplers: Vec::new(), upsamplers: Vec::new() };
        for &inputs in inputs {
            block.resnets.push(ResnetBlock2D::new(inputs, *channels, style, Size::Same)?);
            block.attentions.extend(mix.build(*channels, style)?);
        }
        match (resize, ending) {
            (None | Some(Size::Same), _) => {}
            (Some(Size::Half), Ending::Conv(padding)) => block.downsamplers.push(Resize::half(*channels, *padding)?),
            (Some(Size::Double), Ending::Conv(_)) => block.upsamplers.push(Resize::double(*channels)?),
            (Some(Size::Half), Ending::Resnet) => {
                block.downsamplers.push(Resize::resnet(*channels, style, Size::Half)?);
            }
            (Some(Size::Double), Ending::Resnet) => {
                block.upsamplers.push(Resize::resnet(*channels, style, Size::Double)?);
            }
        }
        Ok(block)
    }

    /// A residual block, then what is between, so many times; one residual block more at the end.
    pub fn middle(channels: usize, style: &Style, mix: &Mix) -> Result<Block> {
        let level = Level { channels, layers: 2, mix: Mix::Nothing, ending: Ending::Conv(1) };
        let block = Block::new(&[channels; 2], &level, style, None)?;
        Ok(Block { attentions: mix.build(channels, style)?.into_iter().collect(), ..block })
    }

    /// The middle: residual block, attention, residual block.
    pub fn run_middle(&self, x: &Var, given: Given<'_>) -> Result<Var> {
        self.within(|| {
            let mut h = self.resnets[0].forward(x, given)?;
            for (i, resnet) in self.resnets.iter().enumerate().skip(1) {
                if let Some(mixer) = self.attentions.get(i - 1) {
                    h = mixer.forward(&h, given)?;
                }
                h = resnet.forward(&h, given)?;
            }
            Ok(h)
        })
    }

    /// The way down; what the way up will need is appended to `skips`.
    pub fn run_down(&self, x: &Var, given: Given<'_>, skips: &mut Vec<Var>) -> Result<Var> {
        self.within(|| {
            let mut h = x.clone();
            for (i, resnet) in self.resnets.iter().enumerate() {
                h = resnet.forward(&h, given)?;
                h = self.attentions.get(i).map_or(Ok(h.clone()), |mixer| mixer.forward(&h, given))?;
                skips.push(h.clone());
            }
            for half in &self.downsamplers {
                h = half.forward(&h, given, None)?;
                skips.push(h.clone());
            }
            Ok(h)
        })
    }

    /// The way up; takes from the end of `skips`. Without skips the image alone goes on, as in an autoencoder.
    pub fn run_up(&self, x: &Var, given: Given<'_>, skips: &mut Vec<Var>) -> Result<Var> {
        self.within(|| {
            let mut h = x.clone();
            for (i, resnet) in self.resnets.iter().enumerate() {
                let joined = skips.pop().map_or(Ok(h.clone()), |skip| Var::cat(&[&h, &skip], 1))?;
                h = resnet.forward(&joined, given)?;
                h = self.attentions.get(i).map_or(Ok(h.clone()), |mixer| mixer.forward(&h, given))?;
            }
            for double in &self.upsamplers {
                let wanted = skips.last().map(|skip| [skip.shape()[2], skip.shape()[3]]);
                h = double.forward(&h, given, wanted)?;
            }
            Ok(h)
        })
    }
}

/// [`Classes`] with their weights.
#[derive(Clone, Module)]
struct ClassEmbedding {
    #[module(flatten)]
    table: Option<Embedding>,
    #[module(flatten)]
    layers: Option<TimestepEmbedding>,
    #[module(flatten)]
    linear: Option<Linear>,
    #[module(skip)]
    classes: Classes,
}

impl ClassEmbedding {
    fn new(classes: Classes, inputs: usize, features: usize, style: &Style) -> Result<Option<ClassEmbedding>> {
        let mut embedding = ClassEmbedding { table: None, layers: None, linear: None, classes };
        match classes {
            Classes::None => return Ok(None),
            Classes::Identity => {}
            Classes::Table(rows) => embedding.table = Some(Embedding::new(rows, features)?),
            Classes::Timestep => embedding.layers = Some(TimestepEmbedding::new(inputs, features, style.act)?),
            Classes::Projection(inputs) => {
                embedding.layers = Some(TimestepEmbedding::new(inputs, features, style.act)?);
            }
            Classes::Simple(inputs) => embedding.linear = Some(Linear::new(inputs, features)?),
        }
        Ok(Some(embedding))
    }

    fn embed(&self, labels: &Var, timesteps: &Timesteps) -> Result<Var> {
        self.within(|| {
            let labels = if self.classes == Classes::Timestep { timesteps.embed(labels)? } else { labels.clone() };
            match (&self.table, &self.layers, &self.linear) {
                (Some(table), _, _) => table.forward(&labels),
                (_, Some(layers), _) => layers.forward(&labels),
                (_, _, Some(linear)) => linear.forward(&labels),
                (None, None, None) => Ok(labels),
            }
        })
    }
}

/// The network of both models.
#[derive(Clone, Module)]
pub(crate) struct UNet {
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    class_embedding: Option<ClassEmbedding>,
    down_blocks: Vec<Block>,
    mid_block: Option<Block>,
    up_blocks: Vec<Block>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    center: bool,
    #[module(skip)]
    style: Style,
    #[module(skip)]
    timesteps: Timesteps,
}

impl UNet {
    /// With PyTorch's default initial values, as the library has them, from the scope's stream.
    pub fn new(plan: &Plan) -> Result<UNet> {
        let Plan { style, down, up, classes, .. } = plan;
        let (first, time) = (down[0].channels, style.time.unwrap_or(0));
        let timesteps = Timesteps::new(first, plan.cosines_first, plan.shift);
        let (mut c, mut skips) = (first, vec![first]);
        let mut down_blocks = Vec::new();
        for (i, level) in down.iter().enumerate() {
            let inputs: Vec<usize> = (0..level.layers).map(|j| if j == 0 { c } else { level.channels }).collect();
            let is_last = i + 1 == down.len();
            down_blocks.push(Block::new(&inputs, level, style, (!is_last).then_some(Size::Half))?);
            c = level.channels;
            skips.extend(vec![c; level.layers + usize::from(!is_last)]);
        }
        let middle_style = Style { scale: plan.middle_scale, ..*style };
        let mid_block = plan.middle.map(|mix| Block::middle(c, &middle_style, &mix)).transpose()?;
        let mut up_blocks = Vec::new();
        for (i, level) in up.iter().enumerate() {
            let inputs: Vec<usize> = (0..=level.layers)
                .map(|j| (if j == 0 { c } else { level.channels }) + skips.pop().unwrap_or(0))
                .collect();
            let is_last = i + 1 == up.len();
            up_blocks.push(Block::new(&inputs, level, style, (!is_last).then_some(Size::Double))?);
            c = level.channels;
        }
        Ok(UNet {
            conv_in: Conv2d::same(plan.inputs, first, plan.kernels[0])?,
            time_embedding: TimestepEmbedding::new(first, time, style.act)?,
            class_embedding: ClassEmbedding::new(*classes, first, time, style)?,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: group_norm(style.groups, c, style.eps)?,
            conv_out: Conv2d::same(c, plan.outputs, plan.kernels[1])?,
            center: plan.center,
            style: *style,
            timesteps,
        })
    }

    pub fn time_features(&self, t: &Var) -> Result<Var> {
        self.timesteps.embed(t)
    }

    /// Adds changes of low rank to all attention, and freezes all else.
    pub fn adapt(&mut self, rank: usize, alpha: f64) -> Result<()> {
        let blocks = self.down_blocks.iter_mut().chain(&mut self.mid_block).chain(&mut self.up_blocks);
        let mut mixers = blocks.flat_map(|block| &mut block.attentions).peekable();
        if mixers.peek().is_none() {
            return Err(wrong("it has no attention, whose matrices LoRA changes".into()));
        }
        let scale = alpha / rank.max(1) as f64;
        mixers.try_for_each(|mixer| mixer.adapt(rank, scale))?;
        freeze_others(self);
        Ok(())
    }

    /// How often the image is halved.
    pub fn halvings(&self) -> usize {
        self.down_blocks.len() - 1
    }

    /// The activated embedding of times and labels, `[N or 1, features]`.
    fn embed(&self, t: &Var, labels: Option<&Var>) -> Result<Var> {
        let mut time = self.time_embedding.forward(&self.timesteps.embed(t)?)?;
        match (&self.class_embedding, labels) {
            (None, None) => {}
            (Some(embedding), Some(labels)) => time = (&time + &embedding.embed(labels, &self.timesteps)?)?,
            (Some(_), None) => return Err(wrong("it has classes, and no labels are given".into())),
            (None, Some(_)) => return Err(wrong("labels are given, and it has no classes".into())),
        }
        Ok(time.unary(self.style.act)?)
    }

    pub fn forward(
        &self,
        x: &Var,
        t: &Var,
        labels: Option<&Var>,
        context: Option<&Var>,
        recompute: bool,
    ) -> Result<Var> {
        if x.shape().rank() != 4 || ![1, x.shape()[0]].contains(&t.array().numel()) {
            let message =
                format!("expected [N, C, H, W] and one time or N of them, got {:?}, {:?}", x.shape(), t.shape());
            return Err(wrong(message));
        }
        let time = self.embed(t, labels)?;
        let given = Given { time: Some(&time), context, recompute };
        let x = if self.center { (&(x * 2.0)? - 1.0)? } else { x.clone() };
        let mut h = wide(&self.conv_in, &x)?;
        let mut skips = vec![h.clone()];
        for block in &self.down_blocks {
            h = block.run_down(&h, given, &mut skips)?;
        }
        if let Some(block) = &self.mid_block {
            h = block.run_middle(&h, given)?;
        }
        for block in &self.up_blocks {
            h = block.run_up(&h, given, &mut skips)?;
        }
        wide(&self.conv_out, &self.conv_norm_out.forward_act(&h, self.style.act)?)
    }
}

/// An input that does not fit.
pub(crate) fn wrong(message: String) -> Error {
    Error::Config { layer: "UNet", message }
}
