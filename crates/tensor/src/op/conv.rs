//! Convolutions, their adjoints, and the gradients of both.

use smallvec::smallvec;

use super::bound::{Bound, extent};
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::product::{EPILOGUES, cuts};
use super::program::{Builder, Value};
use super::{Backward, Epilogue, Op};
use crate::samples::{Inputs, Sampler};
use crate::{Array, Layout, Meta, Result, Shape};

/// Geometry of a 2-d convolution; pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Step of the window.
    pub stride: [usize; 2],
    /// Zeros added on both sides.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Number of groups of channels.
    pub groups: usize,
}

impl Conv2d {
    /// Whether a convolution with a weight of this shape has one input and one output channel per group, of several.
    pub fn is_depthwise(&self, weight: &Shape) -> bool {
        self.groups > 1 && weight[0] == self.groups && weight[1] == 1
    }
}

impl Default for Conv2d {
    fn default() -> Self {
        Conv2d { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

/// [`Op::Conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    /// Geometry.
    pub conv: Conv2d,
    /// What is done to the result.
    pub epilogue: Epilogue,
}

impl Family for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn numerics(&self) -> Numerics {
        Numerics::Lower
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2 + self.epilogue.bias as usize)?;
        check.floats(0..check.ins.len())?;
        let shape = convolved(check, &self.conv, self.epilogue.bias)?;
        Ok(self.epilogue.outs(check.float(Layout::channels_last(shape))))
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        let roundings = roundings(ins, extent(ins, 1, 1)) + 2.0;
        if self.epilogue.act.is_some() { Bound::Terms(roundings) } else { Bound::Gamma(roundings) }
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let Convolution { conv, epilogue } = self;
        // More groups than there are channels otherwise: a depthwise one.
        let (inputs, outputs, width) = if conv.groups > 4 { (conv.groups, conv.groups, 3) } else { (4, 8, 2) };
        let bias = if epilogue.bias { vec![s.x(&[outputs], 3)] } else { vec![] };
        s.vary([vec![s.x(&[3, inputs, 9, 8], 1), s.x(&[outputs, inputs / conv.groups, 3, width], 2)], bias].concat())
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        if self.epilogue == Epilogue::default() {
            return Ok(None);
        }
        let y = b.op(Op::Conv2d(self.conv, Epilogue::default()), &[b.input(0), b.input(1)])?;
        Ok(Some(self.epilogue.define(b, y, |b| b.per_channel(b.input(2), 4))?))
    }
}

/// [`Op::ConvTranspose2d`].
#[derive(Clone, Copy, Debug)]
pub struct ConvTranspose2d {
    /// Geometry of the convolution this is the adjoint of.
    pub conv: Conv2d,
    /// Rows and columns added at the end: which of the possible image sizes; below stride or dilation.
    pub output_padding: [usize; 2],
    /// A bias vector is the last input.
    pub bias: bool,
}

impl Family for ConvTranspose2d {
    fn name(&self) -> &'static str {
        "conv_transpose2d"
    }

    fn numerics(&self) -> Numerics {
        Numerics::Lower
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2 + self.bias as usize)?;
        check.floats(0..check.ins.len())?;
        let shape = spread(check, &self.conv, &self.output_padding, self.bias)?;
        Ok(smallvec![check.float(Layout::channels_last(shape))])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        Bound::Gamma(roundings(ins, extent(ins, 1, 0) / self.conv.groups as f64) + 3.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let ConvTranspose2d { conv, bias, .. } = self;
        let bias = if *bias { vec![s.x(&[8], 3)] } else { vec![] };
        s.vary([vec![s.x(&[2, 4, 5, 6], 1), s.x(&[4, 8 / conv.groups, 3, 2], 2)], bias].concat())
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let ConvTranspose2d { conv, output_padding, bias } = *self;
        let x = b.input(0);
        let ins: Vec<Meta> = (0..2 + bias as usize).map(|i| b.dense(b.input(i))).collect();
        let op = Op::ConvTranspose2d { conv, output_padding, bias };
        let shape = *op.outs(&ins, b.dtype(x))?[0].shape();
        let y = b.op(Op::Backward(Backward::Conv2dInput { conv, shape }), &[x, b.input(1)])?;
        Ok(Some(Epilogue { bias, act: None }.define(b, y, |b| b.per_channel(b.input(2), 4))?))
    }
}

/// Roundings of a sum over the taps of a weight, each of so many channels.
fn roundings(ins: &[&Array], channels: f64) -> f64 {
    extent(ins, 1, 2) * extent(ins, 1, 3) * (channels + cuts(ins, channels))
}

pub(super) fn convolved(check: &Check<'_>, conv: &Conv2d, bias: bool) -> Result<Shape> {
    let (x, w) = (check.ins[0].shape(), check.ins[1].shape());
    if conv.stride.contains(&0) || conv.dilation.contains(&0) || conv.groups == 0 {
        return check.argument("stride, dilation and groups must be at least 1".into());
    }
    if x.rank() != 4 || w.rank() != 4 || Some(x[1]) != w[1].checked_mul(conv.groups) || w[0] % conv.groups != 0 {
        return check.shape(&format!(
            "an image [N, C, H, W] and a weight [O, C/groups, KH, KW] with groups = {} dividing C and O",
            conv.groups
        ));
    }
    if bias && **check.ins[2].shape() != [w[0]] {
        return check.shape("a bias [O]");
    }
    let extent = |d: usize| window(x[d + 2], w[d + 2], conv.stride[d], conv.padding[d], conv.dilation[d]);
    match (extent(0), extent(1)) {
        (Some(h), Some(w_out)) => Ok(Shape::from_slice(&[x[0], w[0], h, w_out])),
        (None, _) | (_, None) => check.shape("a kernel no larger than the padded image, which has pixels"),
    }
}

fn spread(check: &Check<'_>, conv: &Conv2d, output_padding: &[usize; 2], bias: bool) -> Result<Shape> {
    let (x, w) = (check.ins[0].shape(), check.ins[1].shape());
    if conv.stride.contains(&0) || conv.dilation.contains(&0) || conv.groups == 0 {
        return check.argument("stride, dilation and groups must be at least 1".into());
    }
    if (0..2).any(|d| output_padding[d] >= conv.stride[d].max(conv.dilation[d])) {
        return check.argument(format!("output padding {output_padding:?} must be below stride or dilation"));
    }
    if x.rank() != 4 || w.rank() != 4 || x[1] != w[0] || x[1] % conv.groups != 0 {
        return check
            .shape(&format!("an image [N, C, H, W] and a weight [C, O/groups, KH, KW], groups = {}", conv.groups));
    }
    let Some(o) = w[1].checked_mul(conv.groups) else {
        return check.shape(&format!("a number of channels that groups = {} times O/groups is", conv.groups));
    };
    if bias && **check.ins[2].shape() != [o] {
        return check.shape("a bias [O]");
    }
    let extent = |d: usize| {
        let span =
            conv.dilation[d].checked_mul(w[d + 2].checked_sub(1)?)?.checked_add(output_padding[d])?.checked_add(1)?;
        let whole = x[d + 2].checked_sub(1)?.checked_mul(conv.stride[d])?.checked_add(span)?;
        whole.checked_sub(conv.padding[d].checked_mul(2)?).filter(|n| *n > 0)
    };
    match (extent(0), extent(1)) {
        (Some(h), Some(w_out)) => Ok(Shape::from_slice(&[x[0], o, h, w_out])),
        (None, _) | (_, None) => check.shape("an image that padding does not cut away"),
    }
}

/// The extent of a sliding window's output; `None` when the window does not fit.
fn window(input: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Option<usize> {
    let span = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    // Of padding alone nothing can be learned.
    input.checked_sub(1)?;
    let whole = padding.checked_mul(2)?.checked_add(input)?;
    Some(whole.checked_sub(span)? / stride.max(1) + 1)
}

/// [`Backward::Conv2dInput`].
#[derive(Clone, Copy, Debug)]
pub struct Conv2dInput {
    /// Geometry.
    pub conv: Conv2d,
    /// Shape of x.
    pub shape: Shape,
}

impl Family for Conv2dInput {
    fn name(&self) -> &'static str {
        "conv2d_input_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (Conv2dInput { conv, shape }, ins) = (self, check.ins);
        check.count(2)?;
        let outs = Op::Conv2d(*conv, Epilogue::default())
            .outs(&[Meta { dtype: check.want, layout: Layout::contiguous(*shape) }, ins[1]], check.want)?;
        if outs[0].shape() != ins[0].shape() {
            return check.shape("the gradient of the convolution's output and its weight");
        }
        Ok(smallvec![check.float(Layout::channels_last(*shape))])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        Bound::Gamma(roundings(ins, extent(ins, 1, 0)) + 2.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let Conv2dInput { conv, shape } = self;
        let w = s.x(&[8, 4 / conv.groups, 3, 2], 2);
        let y = s.run(Op::Conv2d(*conv, Epilogue::default()), &[&s.x(shape, 1), &w]).remove(0);
        vec![vec![s.gradient(&y), w]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        Some(Op::Backward(Backward::Conv2dInput { conv: self.conv, shape: change(&self.shape) }))
    }
}

/// [`Backward::Conv2dWeight`].
#[derive(Clone, Copy, Debug)]
pub struct Conv2dWeight {
    /// Geometry.
    pub conv: Conv2d,
    /// Shape of w.
    pub shape: Shape,
}

impl Family for Conv2dWeight {
    fn name(&self) -> &'static str {
        "conv2d_weight_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (Conv2dWeight { conv, shape }, ins) = (self, check.ins);
        check.count(2)?;
        let outs = Op::Conv2d(*conv, Epilogue::default())
            .outs(&[ins[1], Meta { dtype: check.want, layout: Layout::contiguous(*shape) }], check.want)?;
        if outs[0].shape() != ins[0].shape() {
            return check.shape("the gradient of the convolution's output and its input");
        }
        Ok(smallvec![check.dense(*shape)])
    }

    /// Tensor cores add up to 2,048 pixels, then such sums.
    fn bound(&self, ins: &[&Array]) -> Bound {
        let pixels = extent(ins, 0, 0) * extent(ins, 0, 2) * extent(ins, 0, 3);
        let part = pixels.min(2048.0);
        let on_tensor_cores =
            if cuts(ins, part) > 0.0 { part + cuts(ins, part) + (pixels / 2048.0).ceil() } else { 0.0 };
        Bound::Gamma(pixel_sum(ins).max(on_tensor_cores) + 8.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let Conv2dWeight { conv, shape } = self;
        let input = s.x(&[3, 4, 9, 8], 1);
        let y = s.run(Op::Conv2d(*conv, Epilogue::default()), &[&input, &s.x(shape, 2)]).remove(0);
        vec![vec![s.gradient(&y), input]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        Some(Op::Backward(Backward::Conv2dWeight { conv: self.conv, shape: change(&self.shape) }))
    }
}

/// Terms of a sum over a block of pixels, of which there are at least eight and at most as many as rows, then of the
/// blocks' sums.
fn pixel_sum(ins: &[&Array]) -> f64 {
    let (rows, width) = (extent(ins, 0, 0) * extent(ins, 0, 2), extent(ins, 0, 3));
    let block = ((rows / 8.0).ceil() * width).min(1024.0 + width);
    (block + rows).min(rows * width)
}

/// [`Backward::Depthwise`].
#[derive(Clone, Copy, Debug)]
pub struct Depthwise {
    /// Geometry.
    pub conv: Conv2d,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Family for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (Depthwise { conv, bias }, ins) = (self, check.ins);
        check.count(3)?;
        let outs = Op::Conv2d(*conv, Epilogue::default()).outs(&ins[1..], check.want)?;
        if outs[0].shape() != ins[0].shape() || !conv.is_depthwise(ins[2].shape()) {
            return check.shape("the gradient of a depthwise convolution's output, its input and its weight");
        }
        let weight = Meta { dtype: ins[2].dtype, layout: Layout::contiguous(*ins[2].shape()) };
        let channels = Meta { layout: Layout::contiguous(Shape::new(&[conv.groups])?), ..weight };
        let bias = bias.then_some(channels);
        Ok([check.float(Layout::channels_last(*ins[1].shape())), weight].into_iter().chain(bias).collect())
    }

    /// That by the weight; that by the input has fewer terms, unless the kernel is larger than the output.
    fn bound(&self, ins: &[&Array]) -> Bound {
        Bound::Gamma(pixel_sum(ins).max(extent(ins, 2, 2) * extent(ins, 2, 3)) + 8.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let conv = &self.conv;
        let (input, w) = (s.x(&[3, conv.groups, 9, 8], 1), s.x(&[conv.groups, 1, 3, 3], 2));
        let y = s.run(Op::Conv2d(*conv, Epilogue::default()), &[&input, &w]).remove(0);
        vec![vec![s.gradient(&y), input, w]]
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for conv in [
        Conv2d { padding: [1, 1], ..Conv2d::default() },
        Conv2d { stride: [2, 1], padding: [0, 2], ..Conv2d::default() },
        Conv2d { groups: 2, dilation: [1, 2], padding: [2, 2], ..Conv2d::default() },
        Conv2d { groups: 4, stride: [2, 2], padding: [1, 0], ..Conv2d::default() },
    ] {
        ops.extend(EPILOGUES.map(|e| Op::Conv2d(conv, e)));
        let output_padding = if conv.stride[0] == 2 { [1, 0] } else { [0, 0] };
        ops.extend([false, true].map(|bias| Op::ConvTranspose2d { conv, output_padding, bias }));
        let (x, w) = (Shape::from_slice(&[3, 4, 9, 8]), Shape::from_slice(&[8, 4 / conv.groups, 3, 2]));
        ops.push(Op::Backward(Backward::Conv2dInput { conv, shape: x }));
        ops.push(Op::Backward(Backward::Conv2dWeight { conv, shape: w }));
    }
    let depthwise = Conv2d { groups: 21, padding: [1, 1], ..Conv2d::default() };
    ops.extend(EPILOGUES.map(|e| Op::Conv2d(depthwise, e)));
    for conv in [depthwise, Conv2d { groups: 4, stride: [2, 1], padding: [1, 0], dilation: [1, 2] }] {
        ops.extend([false, true].map(|bias| Op::Backward(Backward::Depthwise { conv, bias })));
    }
    ops
}
