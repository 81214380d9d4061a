//! Convolutions and their gradients. Activations are kernels of their own, on f32 that is not rounded in between.

use binade_tensor::op::{Conv2d, Epilogue, QuantisedConv2d, Reduce};
use binade_tensor::{DType, Dims, Result};
use bytemuck::{Pod, Zeroable};

use super::product::Scales;
use super::{MOST_BLOCKS, copy, elementwise, reduce, tensor_conv};
use crate::backend::Cuda;
use crate::module::Module;
use crate::view::{View, code};

/// `Image` of `conv.cu`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Image {
    at: u64,
    dtype: u32,
    unused: u32,
    strides: [i64; 4],
}

impl Image {
    /// Of a view with at most four dimensions.
    pub(super) fn new(view: &View) -> Image {
        let mut image = Image { at: view.at(), dtype: code(view.dtype), ..Image::default() };
        image.strides.iter_mut().zip(view.layout.strides.iter()).for_each(|(to, &stride)| *to = stride as i64);
        image
    }
}

/// `Conv` of `conv.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Conv {
    fault: u64,
    n: u32,
    inputs: u32,
    outputs: u32,
    groups: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    kernel: [u32; 2],
    stride: [u32; 2],
    padding: [u32; 2],
    dilation: [u32; 2],
    splits: u32,
    per_split: u32,
    x: Image,
    w: Image,
    y: Image,
    bias: Image,
    scales: Scales,
    parts: u64,
}

/// What a convolution is computed for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Of {
    Output,
    /// Of 8-bit integers.
    Quantised,
    Input,
    Weight,
}

impl Of {
    fn kernel(self, how: &str) -> String {
        let name = match self {
            Of::Output => "forward",
            Of::Quantised => "quantised",
            Of::Input => "by_input",
            Of::Weight => "by_weight",
        };
        format!("{name}_{how}")
    }
}

/// Results of a block in each dimension, and products of a chain.
const TILE: usize = 64;
const CHAIN: usize = 256;
/// With fewer columns than this a tile would be mostly empty.
const NARROW: usize = 8;
/// With fewer blocks than this a device is idle, and long sums are cut.
const FEW_BLOCKS: usize = 128;

/// What is done to sums.
#[derive(Clone, Copy, Default)]
struct Finish<'a> {
    bias: Option<&'a View>,
    scales: Scales,
}

impl<'a> From<Option<&'a View>> for Finish<'a> {
    fn from(bias: Option<&'a View>) -> Finish<'a> {
        Finish { bias, scales: Scales::default() }
    }
}

/// Output `y` of input `x` and weight `w`, one of which is the result.
fn contract(
    cuda: &Cuda,
    op: &'static str,
    conv: &Conv2d,
    of: Of,
    [x, w, y]: [&View; 3],
    finish: Finish<'_>,
) -> Result<bool> {
    let result = match of {
        Of::Output | Of::Quantised => y,
        Of::Input => x,
        Of::Weight => w,
    };
    if result.numel() == 0 {
        return Ok(true);
    }
    let (image, filter, out) = (x.shape(), w.shape(), y.shape());
    let (inputs, outputs) = (filter[1], filter[0] / conv.groups.max(1));
    let taps = filter[2] * filter[3];
    let (pixels, out_pixels) = (image[0] * image[2] * image[3], out[0] * out[2] * out[3]);
    let (m, n, k) = match of {
        Of::Output | Of::Quantised => (out_pixels, outputs, inputs * taps),
        Of::Input => (pixels, inputs, outputs * taps),
        Of::Weight => (outputs, inputs * taps, out_pixels),
    };
    let narrow = m.min(n) < NARROW;
    if !narrow && tensor_conv::contract(cuda, op, conv, of, [x, w, y], finish.bias)? {
        return Ok(true);
    }
    let blocks = if narrow { (m * n).div_ceil(256) } else { m.div_ceil(TILE) * n.div_ceil(TILE) };
    let chains = k.div_ceil(CHAIN).max(1);
    let splits = if of == Of::Weight && blocks * conv.groups < FEW_BLOCKS { chains } else { 1 };
    let parts = cuda.scratch(if splits > 1 { 4 * splits * conv.groups * m * n } else { 0 })?;
    let pair = |of: [usize; 2]| of.map(|v| v as u32);
    let p = Conv {
        fault: cuda.fault().address(),
        n: image[0] as u32,
        inputs: inputs as u32,
        outputs: outputs as u32,
        groups: conv.groups as u32,
        height: image[2] as u32,
        width: image[3] as u32,
        out_height: out[2] as u32,
        out_width: out[3] as u32,
        kernel: pair([filter[2], filter[3]]),
        stride: pair(conv.stride),
        padding: pair(conv.padding),
        dilation: pair(conv.dilation),
        splits: splits as u32,
        per_split: if splits > 1 { CHAIN } else { k } as u32,
        x: Image::new(x),
        w: Image::new(w),
        y: Image::new(y),
        bias: finish.bias.map_or(Image::default(), Image::new),
        scales: finish.scales,
        parts: parts.address(),
    };
    let threads = if narrow { (m * n).next_multiple_of(32).min(256) } else { 256 };
    let blocks = if narrow { (m * n).div_ceil(threads) } else { blocks };
    let how = if narrow { "singly" } else { "tiles" };
    cuda.grid(op, (Module::Conv, &of.kernel(how)), [blocks, 1, (conv.groups * splits).min(MOST_BLOCKS)], threads, &p);
    if splits > 1 {
        let threads = (m * n).next_multiple_of(32).min(256);
        let grid = [(m * n).div_ceil(threads), 1, conv.groups.min(MOST_BLOCKS)];
        cuda.grid(op, (Module::Conv, &of.kernel("sums")), grid, threads, &p);
    }
    Ok(true)
}

pub(super) fn forward(
    cuda: &Cuda,
    op: &'static str,
    conv: &Conv2d,
    epilogue: Epilogue,
    ins: &[View],
    outs: &[View],
) -> Result<bool> {
    let (x, w) = (&ins[0], &ins[1]);
    let bias = ins.get(2).filter(|_| epilogue.bias);
    elementwise::activated(cuda, op, epilogue.act, outs, |to| {
        contract(cuda, op, conv, Of::Output, [x, w, to], bias.into())
    })
}

/// Inputs x, w, scale, the scale of x, bias.
pub(super) fn quantised(
    cuda: &Cuda,
    op: &'static str,
    of: &QuantisedConv2d,
    ins: &[View],
    outs: &[View],
) -> Result<bool> {
    let (x, w, own) = (&ins[0], &ins[1], &ins[3]);
    let layout = x.layout.like(*x.shape());
    let integers = cuda.scratch(x.numel())?;
    let rounded = View::line(integers.address(), DType::I8, *x.shape()).with_layout(layout);
    copy::quantise(cuda, op, x, own, &rounded)?;
    let finish = Finish { bias: ins.get(4).filter(|_| of.epilogue.bias), scales: Scales::new(&ins[2], Some(own)) };
    elementwise::activated(cuda, op, of.epilogue.act, outs, |to| {
        contract(cuda, op, &of.conv, Of::Quantised, [&rounded, w, to], finish)
    })
}

/// The adjoint, which the gradient by the input is, plus a bias. Inputs g, w.
pub(super) fn by_input(
    cuda: &Cuda,
    op: &'static str,
    conv: &Conv2d,
    ins: &[View],
    bias: Option<&View>,
    out: &View,
) -> Result<bool> {
    contract(cuda, op, conv, Of::Input, [out, &ins[1], &ins[0]], bias.into())
}

/// Inputs g, x.
pub(super) fn by_weight(cuda: &Cuda, op: &'static str, conv: &Conv2d, ins: &[View], out: &View) -> Result<bool> {
    contract(cuda, op, conv, Of::Weight, [&ins[1], out, &ins[0]], Finish::default())
}

/// Inputs g, x, w. Outputs dx, dw, and db if there is a bias.
pub(super) fn depthwise(cuda: &Cuda, op: &'static str, conv: &Conv2d, ins: &[View], outs: &[View]) -> Result<bool> {
    let [g, x, w] = [0, 1, 2].map(|i| &ins[i]);
    let done = contract(cuda, op, conv, Of::Input, [&outs[0], w, g], Finish::default())?
        && contract(cuda, op, conv, Of::Weight, [x, &outs[1], g], Finish::default())?;
    match outs.get(2).filter(|_| done) {
        Some(db) => {
            let dims = Dims::one(0).with(2).with(3);
            reduce::reduce(cuda, op, Reduce::Sum, dims, g, db)
        }
        None => Ok(done),
    }
}
