//! Zeros of padding times infinities. A convolution may multiply its padding or leave it out, which is told apart only
//! where the other factor is infinite or NaN: then a result is the sum without the padding, as the reference has it, or
//! NaN.

use super::{Dense, unflatten};
use crate::Op;
use crate::op::{Backward, Conv2d};

/// Per output and element, whether a zero of the padding may meet an infinity or NaN. Nothing for operators without
/// padding and for finite operands.
pub(crate) fn padding_meets_infinity(op: &Op, x: &[Dense], shapes: &[Vec<usize>]) -> Vec<Vec<bool>> {
    let mut marks: Vec<Vec<bool>> = shapes.iter().map(|s| vec![false; s.iter().product()]).collect();
    let finite = |d: &Dense| d.v.iter().all(|v| v.is_finite());
    if x.iter().all(finite) {
        return Vec::new();
    }
    if let Op::Conv2d(conv, _) = op {
        let (image, kernel) = (&x[0].shape, &x[1]);
        outside(conv, image, &kernel.shape, &shapes[0], |o, w| marks[0][o] |= !kernel.v[w].is_finite());
        // The value before the activation, where that is an output.
        let first = marks[0].clone();
        marks.iter_mut().skip(1).for_each(|m| m.clone_from(&first));
    } else if let Op::Backward(Backward::Conv2dWeight { conv, .. }) = op {
        weight(conv, &x[0], &x[1].shape, &shapes[0], &mut marks[0]);
    } else if let Op::ConvTranspose2d { conv, .. } | Op::Backward(Backward::Conv2dInput { conv, .. }) = op {
        input(conv, &x[1], &shapes[0], &mut marks[0]);
    } else if let Op::Backward(Backward::Depthwise { conv, .. }) = op {
        input(conv, &x[2], &shapes[0], &mut marks[0]);
        weight(conv, &x[0], &x[1].shape, &shapes[1], &mut marks[1]);
    }
    marks
}

/// Of a weight's gradient: taps that lie in the padding for an output whose gradient is not finite.
fn weight(conv: &Conv2d, g: &Dense, image: &[usize], kernel: &[usize], marks: &mut [bool]) {
    outside(conv, image, kernel, &g.shape, |o, w| marks[w] |= !g.v[o].is_finite());
}

/// Of an image's gradient: it is a correlation over outputs, surrounded by zeros, that meets every tap of its channel.
fn input(conv: &Conv2d, kernel: &Dense, image: &[usize], marks: &mut [bool]) {
    let (per_group, outputs) = (kernel.shape[1], kernel.shape[0] / conv.groups);
    let mut channels = vec![false; image[1]];
    for (flat, v) in kernel.v.iter().enumerate() {
        let w = unflatten(flat, &kernel.shape);
        channels[w[0] / outputs * per_group + w[1]] |= !v.is_finite();
    }
    marks.iter_mut().enumerate().for_each(|(flat, mark)| *mark = channels[unflatten(flat, image)[1]]);
}

/// Calls `f(output, weight)` with the flat positions of every tap that lies in the padding.
fn outside(conv: &Conv2d, image: &[usize], w: &[usize], out: &[usize], mut f: impl FnMut(usize, usize)) {
    for flat in 0..out.iter().product() {
        let o = unflatten(flat, out);
        let misses = |d: usize, k: usize| {
            let at = (o[d + 2] * conv.stride[d] + k * conv.dilation[d]).checked_sub(conv.padding[d]);
            at.is_none_or(|at| at >= image[d + 2])
        };
        for plane in o[1] * w[1]..(o[1] + 1) * w[1] {
            for tap in 0..w[2] * w[3] {
                if misses(0, tap / w[3]) || misses(1, tap % w[3]) {
                    f(flat, plane * w[2] * w[3] + tap);
                }
            }
        }
    }
}
