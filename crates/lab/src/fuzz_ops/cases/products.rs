//! Contractions, pooling and attention.

use std::num::NonZeroUsize;

use binade::tensor::op::*;
use binade::tensor::{Op, Result};

use super::{ACTIVATIONS, Operands};
use crate::fuzz_ops::draw::{Range, Values};

/// An activation as a contraction's epilogue.
pub(super) fn epilogue(o: &mut Operands<'_>) -> Epilogue {
    let act = o.draw.one_in(3).then(|| o.draw.pick(&ACTIVATIONS));
    Epilogue { bias: o.draw.one_in(3), act }
}

pub(super) fn matmul(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Products;
    // As many products as the reference does in some milliseconds.
    let [mut m, mut n] = [o.draw.extent(300), o.draw.extent(300)];
    let k = o.draw.extent(1100).min(400_000 / (m * n).max(1));
    if o.draw.one_in(6) {
        (m, n) = if o.draw.flip() { (1, n) } else { (m, 1) };
    }
    let batches = if o.draw.one_in(3) { o.draw.shape(2, 6) } else { vec![] };
    let (left, right) = match o.draw.below(3) {
        0 => (batches.clone(), vec![]),
        1 => (batches.clone(), o.draw.broadcasting(&batches)),
        _ => (batches.clone(), batches),
    };
    o.any(&[&left[..], &[m, k]].concat())?;
    o.other(&[&right[..], &[k, n]].concat())?;
    let epilogue = epilogue(o);
    if epilogue.bias {
        o.other(&[n])?;
    }
    match epilogue.act {
        Some(act) if o.draw.flip() => Ok(Op::MatMul(MatMul::of_left(act, epilogue.bias))),
        Some(_) | None => Ok(Op::MatMul(MatMul::plain(epilogue))),
    }
}

/// Geometry, and extents of images that a kernel of 1 to 5 taps fits.
pub(super) fn geometry(o: &mut Operands<'_>, groups: usize) -> (Conv2d, [usize; 2], [usize; 2]) {
    let kernel = [o.draw.within(1, 5), o.draw.within(1, 5)];
    let conv = Conv2d {
        stride: [o.draw.within(1, 3), o.draw.within(1, 3)],
        padding: [o.draw.below(kernel[0]), o.draw.below(kernel[1])],
        dilation: [o.draw.pick(&[1, 1, 2, 3]), o.draw.pick(&[1, 1, 2, 3])],
        groups,
    };
    let usual = o.draw.one_in(3);
    let conv = if usual { Conv2d { stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups } } else { conv };
    let kernel = if usual { [3, 3] } else { kernel };
    let size = [0, 1].map(|d| {
        let least = (conv.dilation[d] * (kernel[d] - 1) + 1).saturating_sub(2 * conv.padding[d]);
        least.max(1) + o.draw.pick(&[0, 1, 2, 3, 5, 7, 8, 15])
    });
    (conv, kernel, size)
}

/// Input and output channels per group, and groups.
fn channels(o: &mut Operands<'_>) -> [usize; 3] {
    match o.draw.below(4) {
        // Depthwise.
        0 => [1, 1, o.draw.extent(40).max(1)],
        1 => [o.draw.within(1, 4), o.draw.within(1, 4), o.draw.within(1, 4)],
        _ => [o.draw.extent(33), o.draw.extent(33), 1],
    }
}

pub(super) fn conv2d(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Products;
    let [inputs, outputs, groups] = channels(o);
    let (conv, kernel, size) = geometry(o, groups);
    let batch = o.draw.pick(&[0, 1, 1, 2, 3]);
    o.any(&[batch, inputs * groups, size[0], size[1]])?;
    o.other(&[outputs * groups, inputs, kernel[0], kernel[1]])?;
    let epilogue = epilogue(o);
    if epilogue.bias {
        o.other(&[outputs * groups])?;
    }
    Ok(Op::Conv2d(conv, epilogue))
}

pub(super) fn conv_transpose2d(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Products;
    let [inputs, outputs, groups] = channels(o);
    let (conv, kernel, _) = geometry(o, groups);
    let size = [o.draw.within(1, 9), o.draw.within(1, 9)];
    let batch = o.draw.within(1, 2);
    o.any(&[batch, inputs * groups, size[0], size[1]])?;
    o.other(&[inputs * groups, outputs, kernel[0], kernel[1]])?;
    let bias = o.draw.one_in(3);
    if bias {
        o.other(&[outputs * groups])?;
    }
    let output_padding = [0, 1].map(|d| o.draw.below(conv.stride[d].max(conv.dilation[d])));
    Ok(Op::ConvTranspose2d { conv, output_padding, bias })
}

pub(super) fn pool(o: &mut Operands<'_>) -> Result<Op> {
    let (conv, kernel, size) = geometry(o, 1);
    let kind = o.draw.pick(&[PoolKind::Max, PoolKind::Avg]);
    let channels = o.draw.extent(40);
    let batch = o.draw.pick(&[0, 1, 2]);
    o.any(&[batch, channels, size[0], size[1]])?;
    let padding = [0, 1].map(|d| conv.padding[d].min(kernel[d] / 2));
    let dilation = if kind == PoolKind::Max { conv.dilation } else { [1, 1] };
    let (ceil, count_padding) = (o.draw.flip(), o.draw.flip());
    let divisor = NonZeroUsize::new(if kind == PoolKind::Avg && o.draw.one_in(4) { o.draw.within(1, 7) } else { 0 });
    Ok(Op::Pool(Pool { dilation, ceil, count_padding, divisor, ..Pool::new(kind, kernel, conv.stride, padding) }))
}

pub(super) fn attention(o: &mut Operands<'_>) -> Result<Op> {
    let dropout = o.draw.pick(&[0.0, 0.0, 0.0, 0.2]);
    // Whether a weight that vanished or was dropped meets its value is the kernel's own affair.
    o.range = Range::Finite;
    o.mixed = false;
    let heads = o.draw.pick(&[vec![], vec![2], vec![1, 2], vec![2, 4], vec![1, 1]].each_ref()).clone();
    let [t, s] = [o.draw.extent(140), o.draw.extent(140)];
    let room = 200_000 / (t * s * heads.iter().product::<usize>()).max(1);
    let [d, e] = [o.draw.extent(70).min(room.max(1)), o.draw.extent(70).min(room.max(1))];
    let e = if o.draw.flip() { d } else { e };
    let s = if o.draw.flip() { t } else { s };
    let mut shared = heads.clone();
    if let Some(last) = shared.last_mut() {
        *last /= o.draw.pick(&[1, 1, *last]);
    }
    let [q, k, v] = [[&heads[..], &[t, d]].concat(), [&shared[..], &[s, d]].concat(), [&shared[..], &[s, e]].concat()];
    o.any(&q)?;
    o.other(&k)?;
    o.other(&v)?;
    let mask = o.draw.one_in(3);
    if mask {
        let whole = [&heads[..], &[t, s]].concat();
        let dims = o.draw.broadcasting(&whole);
        if o.draw.flip() { o.mask(&dims)? } else { o.of(&dims, Values::Ordinary)? }
    }
    Ok(Op::Attention(Attention {
        causal: o.draw.one_in(3),
        scale: o.draw.one_in(4).then_some(0.3),
        mask,
        dropout,
        key: o.draw.key(),
    }))
}
