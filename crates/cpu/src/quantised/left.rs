//! Left operands of products of integers: numbers rounded to multiples of a scale, rows of matrices or patches of
//! images.

use rayon::prelude::*;

use super::product::bytes;
use crate::kernel::{Context, In};
use crate::operand::{BLOCK, Buffer, Compute, Operand, TASK};
use crate::simd::{Isa, Lanes, Map1, Real as _};
use crate::tasks::Tasks as _;
use binade_tensor::memory::HostBuffer;
use binade_tensor::op::{Conv2d, LARGEST};
use binade_tensor::{DType, Result};

/// The integers nearest to multiples of a scale, ties to even.
#[derive(Clone, Copy)]
struct Nearest {
    scale: f64,
}

impl Map1 for Nearest {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        let y = (x / L::splat(self.scale)).round_ties_even().max(L::splat(-LARGEST)).min(L::splat(LARGEST));
        L::select(y.eq(y), y, L::splat(0.0))
    }
}

/// Elements of an operand from a flat position on, as integers. The quotient is rounded to f32 first.
pub(super) fn integers_of<C: Compute>(
    isa: Isa,
    x: &Operand<'_>,
    start: usize,
    scale: C,
    to: &mut [i8],
    buffer: &mut Buffer<C>,
) {
    let scale = scale.as_f64();
    for (i, to) in to.chunks_mut(BLOCK).enumerate() {
        let from = x.block_in(isa, start + i * BLOCK, to.len(), &[], buffer);
        if C::DTYPE == DType::F64 {
            let quotients: Vec<f32> = from.iter().map(|v| (v.as_f64() / scale) as f32).collect();
            f32::map1(isa, Nearest { scale: 1.0 }, &quotients, to);
        } else {
            C::map1(isa, Nearest { scale }, from, to);
        }
    }
}

/// An image `[N, C, H, W]` as integers, channels last.
pub(super) struct Image {
    buffer: HostBuffer,
    extents: [usize; 3],
}

impl Image {
    pub(super) fn new<C: Compute>(cx: Context<'_>, x: In<'_>, scale: C) -> Result<Image> {
        let s = x.shape();
        let operand = Operand::new(x, s, &[0, 2, 3, 1]);
        let mut buffer = bytes(cx.pool, x.numel())?;
        let parts = buffer.as_mut_slice::<i8>()[..x.numel()].par_chunks_mut(TASK).enumerate();
        parts.each_with(Buffer::new, |old, (i, to)| integers_of(cx.isa, &operand, i * TASK, scale, to, old));
        Ok(Image { buffer, extents: [s[2], s[3], s[1]] })
    }

    fn values(&self) -> &[i8] {
        // SAFETY: every byte was initialised, and is an integer.
        unsafe { std::slice::from_raw_parts(self.buffer.as_ptr().cast(), self.buffer.len()) }
    }
}

/// Patches of an image as rows `(kernel row, kernel column, channel)`, one for each output pixel.
pub(super) struct Patches<'a> {
    pub(super) image: &'a Image,
    pub(super) conv: Conv2d,
    pub(super) kernel: [usize; 2],
    pub(super) out: [usize; 2],
}

impl Patches<'_> {
    pub(super) fn rows(&self, first: usize, to: &mut [i8]) {
        let k = self.kernel[0] * self.kernel[1] * self.image.extents[2];
        to.chunks_mut(k.max(1)).enumerate().for_each(|(i, to)| self.row(first + i, to));
    }

    fn row(&self, i: usize, to: &mut [i8]) {
        let Patches { image, conv: Conv2d { stride, padding, dilation, .. }, kernel, out } = self;
        let [h, w, c] = image.extents;
        let (n, pixel) = (i / (out[0] * out[1]), i % (out[0] * out[1]));
        let [y, x] = [pixel / out[1] * stride[0], pixel % out[1] * stride[1]];
        let all = image.values();
        for (ky, to) in to.chunks_mut((kernel[1] * c).max(1)).enumerate() {
            let row = (y + ky * dilation[0]).checked_sub(padding[0]).filter(|row| *row < h);
            let Some(row) = row else {
                to.fill(0);
                continue;
            };
            let first = (n * h + row) * w;
            // All of it inside, and one stretch of memory.
            if dilation[1] == 1 && x >= padding[1] && x - padding[1] + kernel[1] <= w {
                to.copy_from_slice(&all[(first + x - padding[1]) * c..][..to.len()]);
                continue;
            }
            for (kx, to) in to.chunks_mut(c.max(1)).enumerate() {
                match (x + kx * dilation[1]).checked_sub(padding[1]).filter(|column| *column < w) {
                    Some(column) => to.copy_from_slice(&all[(first + column) * c..][..c]),
                    None => to.fill(0),
                }
            }
        }
    }
}
