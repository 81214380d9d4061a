//! Where the elements of images lie for contractions on tensor cores: `images.cuh`.

use binade_tensor::op::Conv2d;
use bytemuck::{Pod, Zeroable};

use super::product::Product;

/// `Divisor` of `images.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Divisor {
    by: u32,
    multiplier: u32,
    shift: u32,
}

impl Divisor {
    /// Of numbers below 2³¹, by one of these from 1 on.
    pub(super) fn new(by: usize) -> Divisor {
        let by = by as u64;
        let bits = u64::BITS - (by - 1).leading_zeros();
        // By 1 it would be 2³¹ with half a shift: there it is 2³², which 0 stands for.
        let multiplier = if by == 1 { 0 } else { (1u64 << (31 + bits)).div_ceil(by) as u32 };
        Divisor { by: by as u32, multiplier, shift: bits.saturating_sub(1) }
    }
}

/// `Places` of `images.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Places {
    pub(super) by: [Divisor; 2],
    pub(super) limit: u32,
    pub(super) unused: u32,
    pub(super) strides: [i64; 3],
}

impl Places {
    /// Numbers of three parts: the last has `last` values, the one before `middle`.
    pub(super) fn new(middle: usize, last: usize, strides: [i64; 3]) -> Places {
        Places { by: [Divisor::new(last), Divisor::new(middle)], limit: last as u32, unused: 0, strides }
    }

    /// The same numbers, with elements of each one after the other.
    pub(super) fn in_lines_of(self, n: i64) -> Places {
        let [last, middle] = self.by.map(|divisor| i64::from(divisor.by));
        Places { strides: [middle * last * n, last * n, n], ..self }
    }
}

/// `Source` of `images.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Source {
    pub(super) at: u64,
    pub(super) groups: i64,
    pub(super) images: i64,
    pub(super) rows: i64,
    pub(super) columns: i64,
    pub(super) height: u32,
    pub(super) width: u32,
    pub(super) step: [u32; 2],
    pub(super) first: [i32; 2],
    pub(super) reach: [i32; 2],
    pub(super) channels: Divisor,
    pub(super) taps: Divisor,
}

/// `TensorConv` of `images.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct TensorConv {
    pub(super) p: Product,
    pub(super) source: Source,
    pub(super) pixels: [Divisor; 2],
    pub(super) rows: Places,
    pub(super) columns: Places,
}

impl Source {
    /// As it is read under taps.
    pub(super) fn under(self, taps: [Taps; 2]) -> Source {
        Source {
            step: taps.map(|taps| taps.step as u32),
            first: taps.map(|taps| taps.origin as i32),
            reach: taps.map(|taps| taps.reach as i32),
            taps: Divisor::new(taps[1].count.max(1)),
            ..self
        }
    }
}

/// Which taps of a dimension meet a pixel i, and where: at step · i + origin + reach · t under the tap
/// first + apart · t.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taps {
    pub(super) first: usize,
    pub(super) apart: usize,
    pub(super) count: usize,
    pub(super) step: usize,
    pub(super) origin: i64,
    pub(super) reach: i64,
}

impl Taps {
    /// Of output pixels.
    pub(super) fn forward(conv: &Conv2d, d: usize, kernel: usize) -> Taps {
        let (origin, reach) = (-(conv.padding[d] as i64), conv.dilation[d] as i64);
        Taps { first: 0, apart: 1, count: kernel, step: conv.stride[d], origin, reach }
    }

    /// Of input pixels whose number leaves `residue` when it is divided by the stride.
    pub(super) fn backward(conv: &Conv2d, d: usize, kernel: usize, residue: usize) -> Taps {
        let (stride, dilation, from) = (conv.stride[d], conv.dilation[d], residue + conv.padding[d]);
        let meets = |tap: &usize| (from as i64 - (tap * dilation) as i64) % stride as i64 == 0;
        let first = (0..kernel.min(stride)).find(meets).unwrap_or(kernel);
        let apart = (1..=stride).find(|n| n * dilation % stride == 0).unwrap_or(stride);
        let origin = if first < kernel { (from as i64 - (first * dilation) as i64) / stride as i64 } else { 0 };
        let reach = -((apart * dilation / stride) as i64);
        Taps { first, apart, count: (kernel - first).div_ceil(apart), step: 1, origin, reach }
    }
}
