//! Convolutions of one and three dimensions, and transposed ones. Weights, names and initial values are PyTorch's.

use binade_autograd::{Conv3d as Geometry3d, Var};
use binade_tensor::op::Conv2d as Geometry;

use crate::{Error, Init, Layer, Module, Param, Result, Visitor};

fn check_groups(layer: &'static str, groups: usize, inputs: usize, outputs: usize) -> Result<()> {
    if groups == 0 || !inputs.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
        let message = format!("{groups} groups must divide {inputs} input and {outputs} output channels");
        return Err(Error::Config { layer, message });
    }
    Ok(())
}

fn weights(shape: &[usize], outputs: usize, fan_in: usize, bias: bool) -> Result<(Param, Option<Param>)> {
    let bias = if bias { Some(Param::init(&[outputs], Init::default_bias(fan_in))?) } else { None };
    Ok((Param::init(shape, Init::default_weight())?, bias))
}

/// 1-d convolution of `[N, C, L]`.
#[derive(Clone, Module)]
pub struct Conv1d {
    /// `[out, in/groups, K]`
    pub weight: Param,
    /// `[out]`
    pub bias: Option<Param>,
    /// Second entries are for the length; the first are for the dimension of extent 1.
    pub geometry: Geometry,
}

impl Conv1d {
    /// Every setting.
    ///
    /// # Errors
    /// Channels that the groups do not divide; the shape is too large.
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        [stride, padding, dilation]: [usize; 3],
        groups: usize,
        bias: bool,
    ) -> Result<Conv1d> {
        check_groups("Conv1d", groups, inputs, outputs)?;
        let per_group = inputs / groups;
        let (weight, bias) = weights(&[outputs, per_group, kernel], outputs, per_group * kernel, bias)?;
        let geometry = Geometry { stride: [1, stride], padding: [0, padding], dilation: [1, dilation], groups };
        Ok(Conv1d { weight, bias, geometry })
    }
}

impl Layer for Conv1d {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(x.conv1d(&self.weight.var(), self.bias.as_ref().map(Param::var).as_ref(), self.geometry)?)
    }
}

/// 3-d convolution of `[N, C, D, H, W]`.
#[derive(Clone, Module)]
pub struct Conv3d {
    /// `[out, in/groups, KD, KH, KW]`
    pub weight: Param,
    /// `[out]`
    pub bias: Option<Param>,
    /// Stride, padding, dilation, groups.
    #[module(skip)]
    pub geometry: Geometry3d,
}

impl Conv3d {
    /// Every setting.
    ///
    /// # Errors
    /// Channels that the groups do not divide; the shape is too large.
    pub fn new(inputs: usize, outputs: usize, kernel: [usize; 3], geometry: Geometry3d, bias: bool) -> Result<Conv3d> {
        check_groups("Conv3d", geometry.groups, inputs, outputs)?;
        let per_group = inputs / geometry.groups;
        let shape = [outputs, per_group, kernel[0], kernel[1], kernel[2]];
        let (weight, bias) = weights(&shape, outputs, per_group * kernel.iter().product::<usize>(), bias)?;
        Ok(Conv3d { weight, bias, geometry })
    }
}

impl Layer for Conv3d {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(x.conv3d(&self.weight.var(), self.bias.as_ref().map(Param::var).as_ref(), self.geometry)?)
    }
}

/// Transposed 2-d convolution of `[N, C, H, W]`.
#[derive(Clone, Module)]
pub struct ConvTranspose2d {
    /// `[in, out/groups, KH, KW]`
    pub weight: Param,
    /// `[out]`
    pub bias: Option<Param>,
    /// Geometry of the convolution this is the adjoint of.
    pub geometry: Geometry,
    /// Rows and columns added at the end.
    #[module(skip)]
    pub output_padding: [usize; 2],
}

impl ConvTranspose2d {
    /// Every setting.
    ///
    /// # Errors
    /// Channels that the groups do not divide; the shape is too large.
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: [usize; 2],
        geometry: Geometry,
        output_padding: [usize; 2],
        bias: bool,
    ) -> Result<ConvTranspose2d> {
        check_groups("ConvTranspose2d", geometry.groups, inputs, outputs)?;
        let per_group = outputs / geometry.groups;
        // PyTorch counts the fan-in of a transposed weight by its second dimension too.
        let (weight, bias) =
            weights(&[inputs, per_group, kernel[0], kernel[1]], outputs, per_group * kernel[0] * kernel[1], bias)?;
        Ok(ConvTranspose2d { weight, bias, geometry, output_padding })
    }
}

impl Layer for ConvTranspose2d {
    fn run(&self, x: &Var) -> Result<Var> {
        let bias = self.bias.as_ref().map(Param::var);
        Ok(x.conv_transpose2d(&self.weight.var(), bias.as_ref(), self.geometry, self.output_padding)?)
    }
}

/// Transposed 1-d convolution of `[N, C, L]`.
#[derive(Clone, Module)]
pub struct ConvTranspose1d {
    /// `[in, out/groups, K]`
    pub weight: Param,
    /// `[out]`
    pub bias: Option<Param>,
    /// Second entries are for the length.
    pub geometry: Geometry,
    /// Elements added at the end.
    pub output_padding: usize,
}

impl ConvTranspose1d {
    /// Every setting.
    ///
    /// # Errors
    /// Channels that the groups do not divide; the shape is too large.
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        [stride, padding, dilation]: [usize; 3],
        output_padding: usize,
        groups: usize,
        bias: bool,
    ) -> Result<ConvTranspose1d> {
        check_groups("ConvTranspose1d", groups, inputs, outputs)?;
        let per_group = outputs / groups;
        let (weight, bias) = weights(&[inputs, per_group, kernel], outputs, per_group * kernel, bias)?;
        let geometry = Geometry { stride: [1, stride], padding: [0, padding], dilation: [1, dilation], groups };
        Ok(ConvTranspose1d { weight, bias, geometry, output_padding })
    }
}

impl Layer for ConvTranspose1d {
    fn run(&self, x: &Var) -> Result<Var> {
        let bias = self.bias.as_ref().map(Param::var);
        Ok(x.conv_transpose1d(&self.weight.var(), bias.as_ref(), self.geometry, self.output_padding)?)
    }
}
