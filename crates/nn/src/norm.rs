//! Normalisation layers. Statistics, weights and running statistics are f32 whatever the activations are.

use binade_autograd::{Var, scope};
use binade_tensor::op::{Binary, NormKind, Unary};
use binade_tensor::{Array, Class, DType, Layout, Op, Shape, run_one};

use crate::{Buffer, Error, Init, Layer, Mode, Module, Param, Result, Visitor};

/// Weight and bias of a norm.
fn affine(shape: &[usize]) -> Result<(Param, Param)> {
    Ok((Param::init(shape, Init::Constant(1.0))?, Param::init(shape, Init::Constant(0.0))?))
}

/// Layer norm over the last dimension.
#[derive(Clone, Module)]
pub struct LayerNorm {
    /// `[features]`
    pub weight: Param,
    /// `[features]`
    pub bias: Option<Param>,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// With eps 1e-5.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn new(features: usize) -> Result<LayerNorm> {
        let (weight, bias) = affine(&[features])?;
        Ok(LayerNorm { weight, bias: Some(bias), eps: 1e-5 })
    }

    /// With a weight alone; eps 1e-5.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn without_bias(features: usize) -> Result<LayerNorm> {
        Ok(LayerNorm { bias: None, ..LayerNorm::new(features)? })
    }

    /// With an activation in the same pass: what the activation reads is never stored.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn forward_act(&self, x: &Var, act: Unary) -> Result<Var> {
        self.within(|| self.pass(x, Some(act)))
    }

    fn pass(&self, x: &Var, act: Option<Unary>) -> Result<Var> {
        let weight = self.weight.var();
        // The operator takes both or none.
        let bias = self.bias.as_ref().map_or_else(
            || {
                let array = weight.array();
                let zeros = Array::full(array.device(), array.dtype(), *array.shape(), 0.0, Class::Workspace);
                zeros.map(Var::constant)
            },
            |bias| Ok(bias.var()),
        )?;
        Ok(x.norm(NormKind::Layer { dims: 1 }, Some((&weight, &bias)), None, self.eps, act)?.0)
    }
}

impl Layer for LayerNorm {
    fn run(&self, x: &Var) -> Result<Var> {
        self.pass(x, None)
    }
}

/// RMS norm over the last dimension.
#[derive(Clone, Module)]
pub struct RmsNorm {
    /// `[features]`
    pub weight: Param,
    /// Added to the mean square.
    pub eps: f64,
}

impl RmsNorm {
    /// With eps 1e-6.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn new(features: usize) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: Param::init(&[features], Init::Constant(1.0))?, eps: 1e-6 })
    }
}

impl Layer for RmsNorm {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(x.rms_norm(1, Some(&self.weight.var()), self.eps)?)
    }
}

/// Instance norm of `[N, C, …]`: each channel of each sample by itself, without running statistics.
#[derive(Clone, Module)]
pub struct InstanceNorm {
    /// `[C]`; absent for PyTorch's default, which has no weights.
    pub weight: Option<Param>,
    /// `[C]`
    pub bias: Option<Param>,
    /// Added to the variance.
    pub eps: f64,
}

impl InstanceNorm {
    /// With weights for `channels`, or without for `None`; eps 1e-5.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn new(channels: Option<usize>) -> Result<InstanceNorm> {
        let (weight, bias) = match channels {
            Some(channels) => affine(&[channels]).map(|(w, b)| (Some(w), Some(b)))?,
            None => (None, None),
        };
        Ok(InstanceNorm { weight, bias, eps: 1e-5 })
    }
}

impl Layer for InstanceNorm {
    fn run(&self, x: &Var) -> Result<Var> {
        let (weight, bias) = (self.weight.as_ref().map(Param::var), self.bias.as_ref().map(Param::var));
        Ok(x.instance_norm(weight.as_ref().zip(bias.as_ref()), self.eps)?)
    }
}

/// Group norm of `[N, C, …]`.
#[derive(Clone, Module)]
pub struct GroupNorm {
    /// `[C]`
    pub weight: Param,
    /// `[C]`
    pub bias: Param,
    /// Number of groups.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

impl GroupNorm {
    /// With eps 1e-5.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn new(groups: usize, channels: usize) -> Result<GroupNorm> {
        let (weight, bias) = affine(&[channels])?;
        Ok(GroupNorm { weight, bias, groups, eps: 1e-5 })
    }
}

impl GroupNorm {
    /// With an activation in the same pass: what the activation reads is never stored.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn forward_act(&self, x: &Var, act: Unary) -> Result<Var> {
        let affine = (&self.weight.var(), &self.bias.var());
        let kind = NormKind::Group { groups: self.groups };
        self.within(|| Ok(x.norm(kind, Some(affine), None, self.eps, Some(act))?.0))
    }
}

impl Layer for GroupNorm {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(x.group_norm(self.groups, Some((&self.weight.var(), &self.bias.var())), self.eps)?)
    }
}

/// Batch norm of `[N, C, H, W]`. In training the batch's statistics are used, and the running ones change when the step
/// that takes the gradients is applied, not when forward runs: a skipped step leaves them alone. Under `no_grad` they
/// change at once ([`crate::defer`]).
#[derive(Clone, Module)]
pub struct BatchNorm2d {
    /// `[C]`
    pub weight: Param,
    /// `[C]`
    pub bias: Param,
    /// `[C]`
    pub running_mean: Buffer,
    /// `[C]`, of the unbiased variance.
    pub running_var: Buffer,
    /// Number of applied updates (i64).
    pub num_batches_tracked: Buffer,
    /// Share of the batch's statistics in the running ones, from 0 to 1.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
    /// Training or evaluation; the scope's by default. A frozen batch norm evaluates, so its running statistics stay.
    pub mode: Mode,
}

impl BatchNorm2d {
    /// With momentum 0.1 and eps 1e-5.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn new(channels: usize) -> Result<BatchNorm2d> {
        Ok(BatchNorm2d {
            weight: Param::init_batch_norm(channels, 1.0)?,
            bias: Param::init_batch_norm(channels, 0.0)?,
            running_mean: Buffer::new(Init::Constant(0.0).array(&[channels])?),
            running_var: Buffer::new(Init::Constant(1.0).array(&[channels])?),
            num_batches_tracked: Buffer::new(Array::full(
                &scope::device()?,
                DType::I64,
                Shape::SCALAR,
                0.0,
                Class::Weights,
            )?),
            momentum: 0.1,
            eps: 1e-5,
            mode: Mode::default(),
        })
    }

    /// As [`BatchNorm2d::new`], with an initial weight: 0 for the last norm of a branch, which then begins as nothing.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn with_weight(channels: usize, weight: f64) -> Result<BatchNorm2d> {
        Ok(BatchNorm2d { weight: Param::init_batch_norm(channels, weight)?, ..BatchNorm2d::new(channels)? })
    }
}

impl Layer for BatchNorm2d {
    fn run(&self, x: &Var) -> Result<Var> {
        self.pass(x, None)
    }
}

impl BatchNorm2d {
    /// With an activation in the same pass.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn forward_act(&self, x: &Var, act: Unary) -> Result<Var> {
        self.within(|| self.pass(x, Some(act)))
    }

    fn pass(&self, x: &Var, act: Option<Unary>) -> Result<Var> {
        let (weight, bias) = (self.weight.var(), self.bias.var());
        if !self.mode.run(scope::is_training) {
            let statistics = (&self.running_mean.var(), &self.running_var.var());
            return Ok(x.norm(NormKind::Fixed, Some((&weight, &bias)), Some(statistics), self.eps, act)?.0);
        }
        let momentum = self.momentum;
        Error::unless((0.0..=1.0).contains(&momentum), "BatchNorm2d", "momentum", "from 0 to 1", momentum)?;
        let (y, outs) = x.norm(NormKind::Batch, Some((&weight, &bias)), None, self.eps, act)?;
        let n = (x.array().numel() / x.shape()[1].max(1)) as f64;
        let (mean, var) = (outs[1].clone(), outs[3].clone());
        let buffers = [&self.running_mean, &self.running_var, &self.num_batches_tracked];
        crate::defer(&y, &[&self.weight, &self.bias], &buffers, move |now| {
            let (mean, var) = (mix(&now[0], &mean, momentum, 1.0)?, mix(&now[1], &var, momentum, n / (n - 1.0))?);
            Ok(vec![mean, var, next(&now[2])?])
        })?;
        Ok(y)
    }
}

/// A count and 1, where it is: reading it would wait for the device.
fn next(count: &Array) -> binade_autograd::Result<Array> {
    let op = Op::Range { start: 1, length: 1 };
    let next = run_one(&op, &[count], count.device(), DType::I64, Class::Workspace)?;
    Ok(next.with_layout(Layout::contiguous(*count.shape()))?)
}

/// `(1 − momentum)·running + momentum·factor·batch`, in f32.
fn mix(running: &Array, batch: &Array, momentum: f64, factor: f64) -> binade_autograd::Result<Array> {
    let times = |a: &Array, value: f64| {
        run_one(&Op::Scalar { op: Binary::Mul, value, reversed: false }, &[a], a.device(), DType::F32, Class::Workspace)
    };
    let (old, new) = (times(running, 1.0 - momentum)?, times(batch, momentum * factor)?);
    Ok(run_one(&Op::Binary(Binary::Add), &[&old, &new], running.device(), DType::F32, Class::Workspace)?)
}
