//! Checks of an operator's inputs, each with its error, and the shapes and layouts that follow from them.

use super::{Conv2d, CrossEntropy, Norm, NormKind, Pool, View};
use crate::{DType, Dims, Error, Layout, Meta, Result, Shape};

/// The inputs of one operator, and the checks on them.
pub(super) struct Check<'a> {
    pub(super) op: &'static str,
    pub(super) ins: &'a [Meta],
}

impl Check<'_> {
    fn shapes(&self) -> Vec<Shape> {
        self.ins.iter().map(|m| *m.shape()).collect()
    }

    pub(super) fn shape<T>(&self, expected: &str) -> Result<T> {
        Err(Error::Shape { op: self.op, expected: format!("expected {expected}"), shapes: self.shapes() })
    }

    pub(super) fn argument<T>(&self, message: String) -> Result<T> {
        Err(Error::Argument { op: self.op, message })
    }

    pub(super) fn count(&self, n: usize) -> Result<()> {
        if self.ins.len() != n {
            return self.argument(format!("takes {n} tensors, got {}", self.ins.len()));
        }
        Ok(())
    }

    pub(super) fn dtype(&self, i: usize, allowed: &[DType]) -> Result<()> {
        if !allowed.contains(&self.ins[i].dtype) {
            let names: Vec<_> = allowed.iter().map(|d| d.name()).collect();
            return Err(Error::DType {
                op: self.op,
                expected: format!("tensor {} must be {}", i + 1, names.join(" or ")),
                dtypes: self.ins.iter().map(|m| m.dtype).collect(),
            });
        }
        Ok(())
    }

    pub(super) fn floats(&self, range: std::ops::Range<usize>) -> Result<()> {
        for i in range {
            self.dtype(i, &DType::FLOATS)?;
        }
        Ok(())
    }

    /// The dtype of elements that are moved as they are: floats become `want`, any others must be alike and keep
    /// theirs.
    pub(super) fn moved(&self, inputs: impl Iterator<Item = usize>, want: DType) -> Result<DType> {
        let mut dtypes = inputs.map(|i| self.ins[i].dtype).map(|dtype| if dtype.is_float() { want } else { dtype });
        let first = dtypes.next().unwrap_or(want);
        if dtypes.all(|dtype| dtype == first) {
            return Ok(first);
        }
        let expected = "elements that are all floats, or all of one other dtype".into();
        Err(Error::DType { op: self.op, expected, dtypes: self.ins.iter().map(|m| m.dtype).collect() })
    }

    pub(super) fn dim(&self, i: usize, dim: usize) -> Result<usize> {
        self.ins[i].shape().dim(self.op, dim as isize)
    }

    /// An index along `dim` of a tensor of shape `x`.
    pub(super) fn along(&self, dim: usize, x: &Shape, index: &Shape) -> Result<()> {
        if x.rank() == 0 && index.rank() == 0 {
            return Ok(());
        }
        if dim >= x.rank() {
            return Err(Error::DimOutOfRange { op: self.op, dim: dim as isize, rank: x.rank() });
        }
        if index.rank() != x.rank() || (0..x.rank()).any(|d| d != dim && index[d] > x[d]) {
            return self.shape(&format!("an index of the tensor's rank, no larger in any dimension but {dim}"));
        }
        Ok(())
    }

    pub(super) fn same_shape(&self, a: usize, b: usize) -> Result<()> {
        if self.ins[a].shape() != self.ins[b].shape() { self.shape("equal shapes") } else { Ok(()) }
    }

    /// Layout of the broadcast shape, in the memory order of the first input that has the whole shape.
    pub(super) fn broadcast(&self, range: std::ops::Range<usize>) -> Result<Layout> {
        let mut shape = *self.ins[range.start].shape();
        for meta in &self.ins[range.clone()] {
            match shape.broadcast(meta.shape()) {
                Some(both) => shape = both,
                None => return self.shape("shapes that broadcast: aligned at the right, extents equal or 1"),
            }
        }
        let whole = self.ins[range].iter().find(|m| *m.shape() == shape);
        Ok(whole.map_or(Layout::contiguous(shape), |m| m.layout.like(shape)))
    }

    pub(super) fn matmul(&self, bias: bool) -> Result<Shape> {
        let (a, b) = (self.ins[0].shape(), self.ins[1].shape());
        let (ra, rb) = (a.rank(), b.rank());
        if ra < 2 || rb < 2 || a[ra - 1] != b[rb - 2] {
            return self.shape("[…, m, k] and […, k, n]");
        }
        let batch = Shape::from_slice(&a[..ra - 2]).broadcast(&Shape::from_slice(&b[..rb - 2]));
        let Some(mut shape) = batch else {
            return self.shape("batch dimensions that broadcast");
        };
        shape.push(a[ra - 2]);
        shape.push(b[rb - 1]);
        if bias && **self.ins[2].shape() != [b[rb - 1]] {
            return self.shape("a bias [n]");
        }
        Ok(shape)
    }

    pub(super) fn conv2d(&self, conv: &Conv2d, bias: bool) -> Result<Shape> {
        let (x, w) = (self.ins[0].shape(), self.ins[1].shape());
        if conv.stride.contains(&0) || conv.dilation.contains(&0) || conv.groups == 0 {
            return self.argument("stride, dilation and groups must be at least 1".into());
        }
        if x.rank() != 4 || w.rank() != 4 || Some(x[1]) != w[1].checked_mul(conv.groups) || w[0] % conv.groups != 0 {
            return self.shape(&format!(
                "an image [N, C, H, W] and a weight [O, C/groups, KH, KW] with groups = {} dividing C and O",
                conv.groups
            ));
        }
        if bias && **self.ins[2].shape() != [w[0]] {
            return self.shape("a bias [O]");
        }
        let extent = |d: usize| window(x[d + 2], w[d + 2], conv.stride[d], conv.padding[d], conv.dilation[d]);
        match (extent(0), extent(1)) {
            (Some(h), Some(w_out)) => Ok(Shape::from_slice(&[x[0], w[0], h, w_out])),
            (None, _) | (_, None) => self.shape("a kernel no larger than the padded image, which has pixels"),
        }
    }

    pub(super) fn conv_transpose2d(&self, conv: &Conv2d, output_padding: &[usize; 2], bias: bool) -> Result<Shape> {
        let (x, w) = (self.ins[0].shape(), self.ins[1].shape());
        if conv.stride.contains(&0) || conv.dilation.contains(&0) || conv.groups == 0 {
            return self.argument("stride, dilation and groups must be at least 1".into());
        }
        if (0..2).any(|d| output_padding[d] >= conv.stride[d].max(conv.dilation[d])) {
            return self.argument(format!("output padding {output_padding:?} must be below stride or dilation"));
        }
        if x.rank() != 4 || w.rank() != 4 || x[1] != w[0] || x[1] % conv.groups != 0 {
            return self
                .shape(&format!("an image [N, C, H, W] and a weight [C, O/groups, KH, KW], groups = {}", conv.groups));
        }
        let Some(o) = w[1].checked_mul(conv.groups) else {
            return self.shape(&format!("a number of channels that groups = {} times O/groups is", conv.groups));
        };
        if bias && **self.ins[2].shape() != [o] {
            return self.shape("a bias [O]");
        }
        let extent = |d: usize| {
            let span = conv.dilation[d]
                .checked_mul(w[d + 2].checked_sub(1)?)?
                .checked_add(output_padding[d])?
                .checked_add(1)?;
            let whole = x[d + 2].checked_sub(1)?.checked_mul(conv.stride[d])?.checked_add(span)?;
            whole.checked_sub(conv.padding[d].checked_mul(2)?).filter(|n| *n > 0)
        };
        match (extent(0), extent(1)) {
            (Some(h), Some(w_out)) => Ok(Shape::from_slice(&[x[0], o, h, w_out])),
            (None, _) | (_, None) => self.shape("an image that padding does not cut away"),
        }
    }

    pub(super) fn pool(&self, pool: &Pool) -> Result<Shape> {
        let x = self.ins[0].shape();
        if x.rank() != 4 {
            return self.shape("an image [N, C, H, W]");
        }
        if pool.stride.contains(&0) || pool.kernel.contains(&0) || pool.dilation.contains(&0) {
            return self.argument("kernel and stride must be at least 1".into());
        }
        // Windows are walked element by element, padding included.
        if pool.kernel.iter().any(|&n| n > i32::MAX as usize) {
            return self.argument(format!("kernel {:?} is larger than any image", pool.kernel));
        }
        if (0..2).any(|d| pool.padding[d] > pool.kernel[d] / 2) {
            return self
                .argument(format!("padding {:?} must be at most half the kernel {:?}", pool.padding, pool.kernel));
        }
        let extent = |d: usize| pool.windows(d, x[d + 2]);
        match (extent(0), extent(1)) {
            (Some(h), Some(w)) => Ok(Shape::from_slice(&[x[0], x[1], h, w])),
            (None, _) | (_, None) => {
                self.shape(&format!("an image no smaller than the kernel {:?}, with pixels", pool.kernel))
            }
        }
    }

    /// Number of groups that have statistics.
    pub(super) fn norm(&self, norm: &Norm, rest: &[Meta]) -> Result<usize> {
        let x = self.ins[0].shape();
        let (groups, weight) = match norm.kind {
            NormKind::Layer { dims } | NormKind::Rms { dims } => {
                if dims == 0 || dims > x.rank() {
                    return self.shape(&format!("at least {} dimensions", dims.max(1)));
                }
                let lead = x.rank() - dims;
                (x[..lead].iter().product(), Shape::from_slice(&x[lead..]))
            }
            NormKind::Group { groups } => {
                if x.rank() < 2 || groups == 0 || !x[1].is_multiple_of(groups) {
                    return self.shape(&format!("[N, C, …] with C a multiple of the {groups} groups"));
                }
                (x[0] * groups, Shape::from_slice(&x[1..2]))
            }
            NormKind::Batch | NormKind::Fixed => {
                if x.rank() < 2 {
                    return self.shape("[N, C, …]");
                }
                if matches!(norm.kind, NormKind::Batch) && x[1] > 0 && x.numel() / x[1] == 1 {
                    return self.argument(format!("training needs more than one value per channel, got {x:?}"));
                }
                (x[1], Shape::from_slice(&x[1..2]))
            }
        };
        if x.numel() == 0 && groups > 0 && norm.kind != NormKind::Fixed {
            return self.shape("at least one element per group");
        }
        if rest.iter().any(|m| *m.shape() != weight) {
            return self.shape(&format!("weights and statistics of shape {weight:?}"));
        }
        Ok(groups)
    }

    pub(super) fn cross_entropy(&self, loss: &CrossEntropy) -> Result<Shape> {
        let (logits, target) = (self.ins[0].shape(), self.ins[1].shape());
        self.dtype(1, &[DType::I64])?;
        if !(0.0..=1.0).contains(&loss.smoothing) {
            return self.argument(format!("label smoothing must lie in 0 to 1, got {}", loss.smoothing));
        }
        if logits.rank() < 2 || *target != Dims::one(1).reduce(logits, false) {
            return self.shape("logits [N, C, …] and class indices [N, …]");
        }
        Ok(*target)
    }

    /// Shapes of the result and of the log-sum-exp.
    pub(super) fn attention(&self, mask: Option<&Meta>) -> Result<(Shape, Shape)> {
        let [q, k, v] = [0, 1, 2].map(|i| self.ins[i].shape());
        let r = q.rank();
        // Batches are equal; heads of q are a multiple of those of k and v.
        let batches = |a: &Shape| a[..r.saturating_sub(3)] == q[..r.saturating_sub(3)];
        let shared = |q: usize, k: usize| q == k || k > 0 && q.is_multiple_of(k);
        let heads = || r < 3 || k[r - 3] == v[r - 3] && shared(q[r - 3], k[r - 3]);
        let fits = r >= 2 && k.rank() == r && v.rank() == r && batches(k) && batches(v) && heads();
        if !fits || q[r - 1] != k[r - 1] || k[r - 2] != v[r - 2] {
            return self.shape("q […, T, D], k […, S, D], v […, S, E], heads of q a multiple of those of k and v");
        }
        if let Some(mask) = mask {
            let mut scores = Shape::from_slice(&q[..r - 1]);
            scores.push(k[r - 2]);
            if scores.broadcast(mask.shape()) != Some(scores) || !(mask.dtype.is_float() || mask.dtype == DType::Bool) {
                return self.shape(&format!("a bool or float mask that broadcasts to {scores:?}"));
            }
        }
        let mut lse = Shape::from_slice(&q[..r - 1]);
        let rows = lse;
        lse.push(v[r - 1]);
        Ok((lse, rows))
    }

    pub(super) fn view(&self, view: &View) -> Result<Layout> {
        let layout = &self.ins[0].layout;
        let rank = layout.shape.rank();
        match view {
            View::Permute(axes) => {
                let mut seen = axes.to_vec();
                seen.sort_unstable();
                if !seen.iter().copied().eq(0..rank) {
                    return self.argument(format!("axes {axes:?} are not a permutation of {rank} dimensions"));
                }
                Ok(layout.permute(axes))
            }
            View::Reshape(shape) => {
                if shape.numel() != layout.numel() {
                    return self.shape(&format!("as many elements as {shape:?} has"));
                }
                match layout.reshape(shape) {
                    Some(layout) => Ok(layout),
                    None => self.argument("the strides do not allow this view; copy first".into()),
                }
            }
            View::Narrow { dim, start, length } => {
                let dim = self.dim(0, *dim)?;
                let n = layout.shape.get(dim).copied().unwrap_or(1);
                if rank == 0 || start.checked_add(*length).is_none_or(|end| end > n) {
                    return self
                        .argument(format!("{length} elements from {start} on are out of range for {n} elements"));
                }
                Ok(layout.narrow(dim, *start, *length))
            }
            View::Expand(shape) => match layout.expand(shape) {
                Some(layout) => Ok(layout),
                None => self.shape(&format!("a shape that broadcasts to {shape:?}")),
            },
        }
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
