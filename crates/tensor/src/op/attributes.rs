//! What operators take beside tensors.

use std::num::NonZeroUsize;

use super::Unary;
use crate::{Key, Shape};

/// Reductions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reduce {
    /// Σx, f32 accumulation.
    Sum,
    /// Σx / n; the sum never overflows the storage dtype.
    Mean,
    /// Largest element; NaN wins.
    Max,
    /// Smallest element; NaN wins.
    Min,
    /// Σ(x − mean)² / (n − correction), two passes.
    Var {
        /// Subtracted from the count: 1 for the unbiased estimate.
        correction: f64,
    },
    /// Square root of the variance.
    Std {
        /// As for the variance.
        correction: f64,
    },
    /// Πx, in f64.
    Prod,
    /// `ln Σ eˣ`, shifted by the maximum.
    LogSumExp,
    /// `(Σ|x|ᵖ)^(1/p)` in f64: squares neither overflow nor underflow. p = ∞ and −∞ are the largest and smallest
    /// magnitude, 0 the number of elements that are not 0.
    Norm {
        /// The exponent.
        p: f64,
    },
}

/// Running reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scan {
    /// Sum.
    Sum,
    /// Product.
    Prod,
}

/// What scattering does with the element that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scatter {
    /// Replaces it; of equal indices the last wins.
    Set,
    /// Adds to it, in order.
    Add,
}

/// What a contraction does with its accumulators before storing them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue {
    /// A bias vector is the last input.
    pub bias: bool,
    /// Activation applied last.
    pub act: Option<Unary>,
}

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

/// Pooling kind and window; pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Largest or mean.
    pub kind: PoolKind,
    /// Window.
    pub kernel: [usize; 2],
    /// Step.
    pub stride: [usize; 2],
    /// Padding on both sides: −∞ for max, zeros for avg.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Whether a last window may hang over the end, if it starts inside.
    pub ceil: bool,
    /// Whether padding counts in the divisor of avg (PyTorch's default).
    pub count_padding: bool,
    /// What avg divides sums by in place of the number of elements (PyTorch's `divisor_override`).
    pub divisor: Option<NonZeroUsize>,
}

impl Pool {
    /// Pooling with PyTorch's defaults for the rest.
    pub fn new(kind: PoolKind, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Pool {
        Pool { kind, kernel, stride, padding, dilation: [1, 1], ceil: false, count_padding: true, divisor: None }
    }

    /// Number of windows over `n` elements of a spatial dimension; `None` when none fits.
    pub fn windows(&self, d: usize, n: usize) -> Option<usize> {
        // Of padding alone nothing can be taken.
        n.checked_sub(1)?;
        let span = self.dilation[d].checked_mul(self.kernel[d].checked_sub(1)?)?.checked_add(1)?;
        let room = self.padding[d].checked_mul(2)?.checked_add(n)?.checked_sub(span)?;
        let stride = self.stride[d].max(1);
        let count = if self.ceil { room.div_ceil(stride) } else { room / stride } + 1;
        // The last window must start inside the image or the padding before it.
        Some(if (count - 1).checked_mul(stride)? >= n + self.padding[d] { count - 1 } else { count })
    }

    /// What a window of avg is divided by; `o` counts windows, `n` elements, per spatial dimension.
    pub fn divisor(&self, o: [usize; 2], n: [usize; 2]) -> usize {
        if let Some(divisor) = self.divisor {
            return divisor.get();
        }
        let length = |d: usize| {
            let start = o[d] * self.stride[d];
            let end = (start + self.kernel[d]).min(n[d] + 2 * self.padding[d]);
            if self.count_padding {
                end - start
            } else {
                end.min(n[d] + self.padding[d]).saturating_sub(start.max(self.padding[d]))
            }
        };
        length(0) * length(1)
    }
}

/// Kind of pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// Largest element, NaN wins.
    Max,
    /// Mean.
    Avg,
}

/// A normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Which elements share statistics.
    pub kind: NormKind,
    /// Added to the variance, in f32.
    pub eps: f64,
    /// Whether weight and bias (RMS: weight only) are inputs.
    pub affine: bool,
    /// Activation applied last.
    pub act: Option<Unary>,
}

impl Norm {
    /// Number of weight inputs: none, a weight, or weight and bias.
    pub fn weights(&self) -> usize {
        match (self.affine, self.kind) {
            (false, _) => 0,
            (true, NormKind::Rms { .. }) => 1,
            (true, NormKind::Layer { .. } | NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed) => 2,
        }
    }

    /// Number of weight inputs of the gradient: the bias is among them where an activation's argument is computed
    /// again.
    pub fn weights_of_gradient(&self) -> usize {
        if self.act.is_some() { self.weights() } else { self.affine as usize }
    }

    /// The name of the normalisation.
    pub fn name(&self) -> &'static str {
        match self.kind {
            NormKind::Layer { .. } => "layer_norm",
            NormKind::Rms { .. } => "rms_norm",
            NormKind::Group { .. } => "group_norm",
            NormKind::Batch | NormKind::Fixed => "batch_norm",
        }
    }
}

/// Which elements share statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// The last `dims` dimensions; weight and bias have their shape.
    Layer {
        /// Number of trailing dimensions.
        dims: usize,
    },
    /// The last `dims` dimensions divided by the root of their mean square: no mean is subtracted and there is no bias
    /// (Zhang and Sennrich 2019). The mean output is 0.
    Rms {
        /// Number of trailing dimensions.
        dims: usize,
    },
    /// Per sample, groups of channels (dimension 1); weight and bias `[C]`.
    Group {
        /// Number of groups.
        groups: usize,
    },
    /// Per channel (dimension 1), over batch and space; weight and bias `[C]`.
    Batch,
    /// Per channel with given mean and variance (f32 `[C]`): batch norm in evaluation. Only y is returned.
    Fixed,
}

/// Cross-entropy attributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Label smoothing in [0, 1].
    pub smoothing: f64,
    /// Targets of this value count for nothing.
    pub ignore_index: i64,
    /// Mean over counted targets, sum, or none.
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        CrossEntropy { smoothing: 0.0, ignore_index: -100, reduction: Reduction::Mean }
    }
}

/// How a loss is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// One loss per element.
    None,
    /// Mean.
    Mean,
    /// Sum.
    Sum,
}

/// Attention attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attention {
    /// Position t sees positions 0..=t only.
    pub causal: bool,
    /// Factor of q·k; `None` for 1/√D.
    pub scale: Option<f64>,
    /// Whether a mask is the last input.
    pub mask: bool,
    /// Probability with which an attention weight becomes 0 (the others are divided by 1 − p).
    pub dropout: f64,
    /// Random stream of the dropout.
    pub key: Key,
}

/// A distribution to draw from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Uniform in [low, high).
    Uniform {
        /// Smallest value.
        low: f64,
        /// Bound that is not reached before rounding.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// A permutation of 0..n (i64), for a one-dimensional shape.
    Permutation,
}

/// Views: the same storage under another layout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum View {
    /// Dimensions in another order; the shape holds the old index of each new dimension.
    Permute(Shape),
    /// Another shape of as many elements; the input's strides must allow it (else copy first).
    Reshape(Shape),
    /// `length` elements of `dim` from `start`.
    Narrow {
        /// Dimension.
        dim: usize,
        /// First index.
        start: usize,
        /// Number of indices.
        length: usize,
    },
    /// Broadcast to a shape.
    Expand(Shape),
}
