//! Pooling of images.

use std::num::NonZeroUsize;

use smallvec::smallvec;

use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::Family;
use super::{Backward, Op};
use crate::samples::{Inputs, Sampler};
use crate::{Array, Layout, Meta, Result, Shape};

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

impl Family for Pool {
    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "max_pool2d",
            PoolKind::Avg => "avg_pool2d",
        }
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(1)?;
        check.floats(0..1)?;
        Ok(smallvec![check.float(check.ins[0].layout.like(shape(check, self)?))])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Gamma((self.kernel[0] * self.kernel[1]) as f64 + 2.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        s.vary(vec![s.x(&[3, 4, 9, 8], 1)])
    }
}

fn shape(check: &Check<'_>, pool: &Pool) -> Result<Shape> {
    let x = check.ins[0].shape();
    if x.rank() != 4 {
        return check.shape("an image [N, C, H, W]");
    }
    if pool.stride.contains(&0) || pool.kernel.contains(&0) || pool.dilation.contains(&0) {
        return check.argument("kernel and stride must be at least 1".into());
    }
    // Windows are walked element by element, padding included.
    if pool.kernel.iter().any(|&n| n > i32::MAX as usize) {
        return check.argument(format!("kernel {:?} is larger than any image", pool.kernel));
    }
    if (0..2).any(|d| pool.padding[d] > pool.kernel[d] / 2) {
        return check.argument(format!("padding {:?} must be at most half the kernel {:?}", pool.padding, pool.kernel));
    }
    let extent = |d: usize| pool.windows(d, x[d + 2]);
    match (extent(0), extent(1)) {
        (Some(h), Some(w)) => Ok(Shape::from_slice(&[x[0], x[1], h, w])),
        (None, _) | (_, None) => {
            check.shape(&format!("an image no smaller than the kernel {:?}, with pixels", pool.kernel))
        }
    }
}

/// [`Backward::Pool`].
#[derive(Clone, Copy, Debug)]
pub struct PoolBackward {
    /// Window.
    pub pool: Pool,
    /// Shape of x.
    pub shape: Shape,
}

impl Family for PoolBackward {
    fn name(&self) -> &'static str {
        "pool_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (pool, ins) = (&self.pool, check.ins);
        check.count(if pool.kind == PoolKind::Max { 2 } else { 1 })?;
        let x = Meta { dtype: check.want, layout: Layout::contiguous(self.shape) };
        let y = shape(&check.of(&[x]), pool)?;
        if y != *ins[0].shape() || ins.get(1).is_some_and(|x| *x.shape() != self.shape) {
            return check.shape("the gradient of the pooling's output, and its input for max");
        }
        let layout = if pool.kind == PoolKind::Max { ins[1].layout } else { ins[0].layout };
        Ok(smallvec![check.float(layout.like(self.shape))])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Scale((self.pool.kernel[0] * self.pool.kernel[1]) as f64 + 4.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let PoolBackward { pool, shape } = self;
        let input = s.x(shape, 1);
        let y = s.run(Op::Pool(*pool), &[&input]).remove(0);
        vec![if pool.kind == PoolKind::Max { vec![s.gradient(&y), input] } else { vec![s.gradient(&y)] }]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        Some(Op::Backward(Backward::Pool { pool: self.pool, shape: change(&self.shape) }))
    }
}

/// [`Backward::PoolSelect`].
#[derive(Clone, Copy, Debug)]
pub struct PoolSelect {
    /// Window.
    pub pool: Pool,
    /// Shape of y.
    pub shape: Shape,
}

impl Family for PoolSelect {
    fn name(&self) -> &'static str {
        "pool_select"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2)?;
        check.same_shape(0, 1)?;
        if shape(check, &self.pool)? != self.shape {
            return check.shape("tensors of the pooling's input");
        }
        Ok(smallvec![check.float(check.ins[1].layout.like(self.shape))])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Ulps(0.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        vec![vec![s.x(&[3, 4, 9, 8], 9), s.x(&[3, 4, 9, 8], 1)]]
    }

    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        Some(Op::Backward(Backward::PoolSelect { pool: self.pool, shape: change(&self.shape) }))
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for kind in [PoolKind::Max, PoolKind::Avg] {
        for pool in [
            Pool::new(kind, [2, 2], [2, 2], [0, 0]),
            Pool::new(kind, [3, 2], [1, 2], [1, 1]),
            Pool { ceil: true, count_padding: false, ..Pool::new(kind, [2, 3], [2, 3], [1, 1]) },
            Pool { divisor: NonZeroUsize::new(5), ..Pool::new(kind, [3, 2], [2, 2], [1, 1]) },
            Pool {
                dilation: if kind == PoolKind::Max { [2, 3] } else { [1, 1] },
                ..Pool::new(kind, [3, 2], [2, 1], [1, 0])
            },
        ] {
            let shape = Shape::from_slice(&[3, 4, 9, 8]);
            ops.extend([Op::Pool(pool), Op::Backward(Backward::Pool { pool, shape })]);
            if kind == PoolKind::Max {
                let y = [3, 4, pool.windows(0, 9).unwrap_or(0), pool.windows(1, 8).unwrap_or(0)];
                ops.push(Op::Backward(Backward::PoolSelect { pool, shape: Shape::from_slice(&y) }));
            }
        }
    }
    ops
}
