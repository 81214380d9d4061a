//! Convolution without patches in memory: the rows of the image a block of output pixels needs are widened, with their
//! padding, into a slab in the second-level cache, and [`super::tile`] walks its taps. The gradient by the input is the
//! same correlation with the weight turned round, one for each residue of the stride; the gradient by the weight is a
//! product over pixels of two slabs.

mod blocks;
mod correlate;
mod geometry;
mod image;
mod over_pixels;
mod weight;

pub use blocks::Blocks;
pub use geometry::{Correlation, Phase, Piece, Tap};
pub use image::{Source, image};
pub use over_pixels::weight_backward;

use crate::kernel::{Context, In, Out};
use correlate::Correlate;
use weight::{Weight, by_taps};

use super::depthwise;
use super::epilogue::{KernelEpilogue, Target};
use super::gemm::{DEPTH, elements_of};
use super::operand::Compute;
use super::reduce::reduce;
use super::tile::Segment;
use binade_tensor::op::{Conv2d, Epilogue, Reduce};
use binade_tensor::{Array, Dims, Result};

pub fn forward<C: Compute>(
    cx: Context<'_>,
    conv: &Conv2d,
    epilogue: Epilogue,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let isa = cx.isa;
    let out = outs[0].array();
    let (shape, dtype) = (*out.shape(), out.dtype());
    if shape.numel() == 0 {
        return Ok(());
    }
    let epilogue = KernelEpilogue::<C>::new(isa, epilogue, ins);
    let (first, rest) = outs.split_at_mut(1);
    let (out, pre) = (first[0].bytes(), rest.first_mut().map(Out::bytes));
    let total = shape.numel() * dtype.size();
    let (out, pre) = (&mut out[..total], pre.map(|p| &mut p[..total]).unwrap_or_default());
    let x = Source::new(ins[0]);
    let g = Correlation::forward(conv, kernel(&ins[1]), shape[2], shape[3]);
    any(cx, &g, &x, ins[1], conv.groups, false, Target { epilogue: &epilogue, dtype, out, pre })
}

/// Inputs g, w, and a bias for a transposed convolution.
pub fn input_backward<C: Compute>(
    cx: Context<'_>,
    conv: &Conv2d,
    ins: &[In<'_>],
    bias: Option<In<'_>>,
    out: &mut Out<'_>,
) -> Result<()> {
    let isa = cx.isa;
    let (shape, dtype) = (*out.array().shape(), out.array().dtype());
    if shape.numel() == 0 {
        return Ok(());
    }
    let epilogue = KernelEpilogue::<C>::with_bias(isa, bias);
    let to = &mut out.bytes()[..shape.numel() * dtype.size()];
    let x = Source::new(ins[0]);
    let g = Correlation::backward(conv, kernel(&ins[1]), shape[2], shape[3]);
    any(cx, &g, &x, ins[1], conv.groups, true, Target { epilogue: &epilogue, dtype, out: to, pre: &mut [] })
}

/// Segments as chains of at most [`DEPTH`] products; steps are the distances of neighbours along the inner dimension.
fn in_chains(segments: impl Iterator<Item = Segment>, a_step: usize, b_step: usize) -> Vec<Vec<Segment>> {
    let mut chains: Vec<Vec<Segment>> = Vec::new();
    let mut left = 0;
    for Segment { a, b, len } in segments {
        for from in (0..len).step_by(DEPTH) {
            let len = DEPTH.min(len - from);
            if len > left {
                chains.push(Vec::new());
                left = DEPTH;
            }
            left -= len;
            if let Some(chain) = chains.last_mut() {
                chain.push(Segment { a: a + from * a_step, b: b + from * b_step, len });
            }
        }
    }
    chains
}

fn kernel(w: &Array) -> [usize; 2] {
    [w.shape()[2], w.shape()[3]]
}

/// A correlation of any kind; the weight is `turned` for a gradient by the input.
fn any<C: Compute>(
    cx: Context<'_>,
    g: &Correlation,
    x: &Source<'_>,
    w: In<'_>,
    groups: usize,
    turned: bool,
    to: Target<'_, C>,
) -> Result<()> {
    let weight = Weight::new(w, groups, turned);
    if weight.is_depthwise() {
        let packed = by_taps::<C>(cx, w)?;
        return depthwise::correlate(cx, g, x, elements_of(&packed), to);
    }
    Correlate { cx, g, x, weight }.run(to)
}

/// Inputs g, x, w of a depthwise convolution: the gradients by x, w and, if there is a third output, by a bias.
pub fn depthwise_backward<C: Compute>(
    cx: Context<'_>,
    conv: &Conv2d,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let isa = cx.isa;
    if ins[1].numel() > 0 && ins[0].numel() > 0 {
        let (grad, x) = (Source::new(ins[0]), Source::new(ins[1]));
        let g = Correlation::backward(conv, kernel(&ins[2]), x.h, x.w);
        let packed = by_taps::<C>(cx, ins[2])?;
        if depthwise::backward::<C>(cx, &g, [&grad, &x], elements_of(&packed), outs)? {
            return Ok(());
        }
    }
    input_backward::<C>(cx, conv, &[ins[0], ins[2]], None, &mut outs[0])?;
    weight_backward::<C>(cx, conv, &ins[..2], &mut outs[1])?;
    if let Some(bias) = outs.get_mut(2) {
        reduce::<C>(isa, Reduce::Sum, Dims::one(0).with(2).with(3), ins[0], bias);
    }
    Ok(())
}
