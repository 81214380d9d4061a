//! [`Op::outs`]: shape, dtype and layout of every output, and the checks that give shape and dtype errors.

use smallvec::{SmallVec, smallvec};

use super::{Backward, Conv2d, CrossEntropy, Distribution, Epilogue, Norm, NormKind, Op, Pool, PoolKind, Reduction, Saved, View};
use crate::{DType, Dims, Error, Layout, Meta, Result, Shape};

/// Metas of the outputs.
pub type Outs = SmallVec<[Meta; 1]>;

impl Op {
    /// Shape, dtype and layout of every output for the given inputs. Float outputs have dtype `want`, statistics f32 (f64 for
    /// f64), indices i64.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] or [`Error::Argument`], naming the operator, for inputs it does not take.
    pub fn outs(&self, ins: &[Meta], want: DType) -> Result<Outs> {
        let check = Check { op: self.name(), ins };
        let float = |layout: Layout| Meta { dtype: want, layout };
        let dense = |shape: Shape| float(Layout::contiguous(shape));
        let like = |i: usize| float(ins[i].layout.like(*ins[i].shape()));
        let stats = |shape: Shape| Meta { dtype: stats_dtype(ins), layout: Layout::contiguous(shape) };
        Ok(match self {
            Op::Unary(_) | Op::Scalar { .. } | Op::Dropout { .. } => {
                check.count(1)?;
                check.floats(0..1)?;
                if let Op::Dropout { p, .. } = self
                    && !(0.0..=1.0).contains(p)
                {
                    return check.argument(format!("p must lie in 0 to 1, got {p}"));
                }
                // Draws are keyed by memory position: row-major, so that the same element draws the same whatever the layout.
                if matches!(self, Op::Dropout { .. }) { smallvec![dense(*ins[0].shape())] } else { smallvec![like(0)] }
            }
            Op::Binary(_) => {
                check.count(2)?;
                check.floats(0..2)?;
                smallvec![float(check.broadcast(0..2)?)]
            }
            Op::Compare(_) => {
                check.count(2)?;
                smallvec![Meta { dtype: DType::Bool, layout: check.broadcast(0..2)? }]
            }
            Op::Where => {
                check.count(3)?;
                check.dtype(0, &[DType::Bool])?;
                check.floats(1..3)?;
                smallvec![float(check.broadcast(0..3)?)]
            }
            Op::Reduce { dims, keepdim, kind } => {
                check.count(1)?;
                check.floats(0..1)?;
                let rank = ins[0].shape().rank();
                if let Some(dim) = dims.iter().find(|&d| d >= rank) {
                    return Err(Error::DimOutOfRange { op: check.op, dim: dim as isize, rank });
                }
                let n = dims.count(ins[0].shape());
                if n == 0 && matches!(kind, super::Reduce::Max | super::Reduce::Min) {
                    return check
                        .argument("the largest of no elements does not exist; reduce over a dimension that is not empty".into());
                }
                smallvec![dense(dims.reduce(ins[0].shape(), *keepdim))]
            }
            Op::Scan { dim, .. } => {
                check.count(1)?;
                check.floats(0..1)?;
                if ins[0].shape().rank() > 0 {
                    check.dim(0, *dim)?;
                }
                smallvec![like(0)]
            }
            Op::Sort { dim, length, .. } => {
                check.count(1)?;
                check.floats(0..1)?;
                let mut shape = *ins[0].shape();
                let n = if shape.rank() == 0 { 1 } else { shape[check.dim(0, *dim)?] };
                if *length > n {
                    return check.argument(format!("{length} elements wanted of {n}"));
                }
                if let Some(extent) = shape.get_mut(*dim) {
                    *extent = *length;
                }
                smallvec![dense(shape), Meta { dtype: DType::I64, layout: Layout::contiguous(shape) }]
            }
            Op::Gather { dim } => {
                check.count(2)?;
                check.floats(0..1)?;
                check.dtype(1, &[DType::I64])?;
                check.along(*dim, ins[0].shape(), ins[1].shape())?;
                smallvec![dense(*ins[1].shape())]
            }
            Op::Scatter { dim, .. } => {
                check.count(3)?;
                check.floats(0..1)?;
                check.floats(2..3)?;
                check.dtype(1, &[DType::I64])?;
                check.along(*dim, ins[0].shape(), ins[1].shape())?;
                let (index, src) = (ins[1].shape(), ins[2].shape());
                if index.rank() != src.rank() || index.iter().zip(src.iter()).any(|(i, s)| i > s) {
                    return check.shape("an index no larger than src");
                }
                smallvec![dense(*ins[0].shape())]
            }
            Op::ArgMax { dim, keepdim } => {
                check.count(1)?;
                let dims = if ins[0].shape().rank() == 0 { Dims::all(0) } else { Dims::one(check.dim(0, *dim)?) };
                if dims.count(ins[0].shape()) == 0 {
                    return check.argument("the largest of no elements does not exist; use a dimension that is not empty".into());
                }
                smallvec![Meta { dtype: DType::I64, layout: Layout::contiguous(dims.reduce(ins[0].shape(), *keepdim)) }]
            }
            Op::MatMul(epilogue) => {
                check.count(2 + epilogue.bias as usize)?;
                check.floats(0..ins.len())?;
                let shape = check.matmul(epilogue.bias)?;
                with_preactivation(epilogue, dense(shape))
            }
            Op::MatMulOf { bias, .. } => Op::MatMul(Epilogue { bias: *bias, act: None }).outs(ins, want)?,
            Op::Conv2d(conv, epilogue) => {
                check.count(2 + epilogue.bias as usize)?;
                check.floats(0..ins.len())?;
                let shape = check.conv2d(conv, epilogue.bias)?;
                with_preactivation(epilogue, float(Layout::channels_last(shape)))
            }
            Op::ConvTranspose2d { conv, output_padding, bias } => {
                check.count(2 + *bias as usize)?;
                check.floats(0..ins.len())?;
                smallvec![float(Layout::channels_last(check.conv_transpose2d(conv, output_padding, *bias)?))]
            }
            Op::Pool(pool) => {
                check.count(1)?;
                check.floats(0..1)?;
                let shape = check.pool(pool)?;
                smallvec![float(ins[0].layout.like(shape))]
            }
            Op::Softmax { dim, .. } => {
                check.count(1)?;
                check.floats(0..1)?;
                if ins[0].shape().rank() > 0 {
                    check.dim(0, *dim)?;
                }
                smallvec![like(0)]
            }
            Op::Norm(norm) => {
                let given = matches!(norm.kind, NormKind::Fixed);
                check.count(1 + norm.weights() + 2 * given as usize)?;
                check.floats(0..ins.len())?;
                let groups = check.norm(norm, &ins[1..])?;
                let statistics = stats(Shape::from_slice(&[groups]));
                match norm.kind {
                    NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } => {
                        smallvec![like(0), statistics, statistics]
                    }
                    NormKind::Batch => smallvec![like(0), statistics, statistics, statistics],
                    NormKind::Fixed => smallvec![like(0)],
                }
            }
            Op::CrossEntropy(loss) => {
                check.count(2)?;
                check.floats(0..1)?;
                let each = check.cross_entropy(loss)?;
                let shape = if loss.reduction == Reduction::None { each } else { Shape::SCALAR };
                smallvec![dense(shape)]
            }
            Op::Ternary { .. } => {
                check.count(3)?;
                check.floats(0..3)?;
                smallvec![float(check.broadcast(0..3)?)]
            }
            Op::Resample(map) => {
                check.count(1)?;
                check.floats(0..1)?;
                smallvec![float(ins[0].layout.like(map.shape(ins[0].shape())?))]
            }
            Op::Loss { reduction, .. } => {
                check.count(2)?;
                check.floats(0..2)?;
                check.same_shape(0, 1)?;
                smallvec![dense(if *reduction == Reduction::None { *ins[0].shape() } else { Shape::SCALAR })]
            }
            Op::Attention(attention) => {
                check.count(3 + attention.mask as usize)?;
                check.floats(0..3)?;
                if !(0.0..1.0).contains(&attention.dropout) {
                    return check.argument(format!("dropout must lie in 0 to 1, got {}", attention.dropout));
                }
                let (out, lse) = check.attention()?;
                // Then the result, with its heads side by side, is a view of it.
                let inside = ins[0].layout.order()[..] == [0, 2, 1, 3];
                let layout = if inside { Layout::with_order(out, &[0, 2, 1, 3]) } else { Layout::contiguous(out) };
                smallvec![float(layout), stats(lse)]
            }
            Op::Embedding => {
                check.count(2)?;
                check.floats(0..1)?;
                check.dtype(1, &[DType::I64, DType::U32])?;
                if ins[0].shape().rank() != 2 || ins[1].shape().rank() + 1 > crate::MAX_RANK {
                    return check.shape("a weight [rows, features] and indices of any shape");
                }
                let mut shape = *ins[1].shape();
                shape.push(ins[0].shape()[1]);
                smallvec![dense(shape)]
            }
            Op::Cat { dim } => {
                if ins.is_empty() {
                    return check.argument("at least one tensor is needed".into());
                }
                check.floats(0..ins.len())?;
                let dim = check.dim(0, *dim)?;
                let mut shape = *ins[0].shape();
                shape[dim] = 0;
                for meta in ins {
                    let mut other = *meta.shape();
                    if other.rank() == shape.rank() {
                        let extent = std::mem::replace(&mut other[dim], shape[dim]);
                        if other == shape {
                            shape[dim] += extent;
                            continue;
                        }
                    }
                    return check.shape("shapes that differ in the concatenated dimension only");
                }
                smallvec![float(ins[0].layout.like(shape))]
            }
            Op::Random { distribution: Distribution::Permutation, shape, .. } => {
                check.count(0)?;
                if shape.rank() != 1 {
                    return check.argument(format!("a permutation has one dimension, got shape {shape:?}"));
                }
                smallvec![Meta { dtype: DType::I64, layout: Layout::contiguous(*shape) }]
            }
            Op::Random { distribution: Distribution::Uniform { .. } | Distribution::Normal { .. }, shape, .. }
            | Op::Fill { shape, .. } => {
                check.count(0)?;
                if matches!(self, Op::Random { .. }) && !want.is_float() {
                    return Err(Error::DType { op: check.op, expected: "a float dtype".into(), dtypes: vec![want] });
                }
                smallvec![dense(*shape)]
            }
            Op::Range { length, .. } => {
                check.count(0)?;
                smallvec![Meta { dtype: DType::I64, layout: Layout::contiguous(Shape::from_slice(&[*length])) }]
            }
            Op::Cast(dtype) => {
                check.count(1)?;
                smallvec![Meta { dtype: *dtype, layout: ins[0].layout.like(*ins[0].shape()) }]
            }
            Op::StochasticCast { dtype, .. } => {
                check.count(1)?;
                check.floats(0..1)?;
                if !dtype.is_half() {
                    return Err(Error::DType { op: check.op, expected: "f16 or bf16 as target".into(), dtypes: vec![*dtype] });
                }
                smallvec![Meta { dtype: *dtype, layout: Layout::contiguous(*ins[0].shape()) }]
            }
            Op::Copy => {
                check.count(1)?;
                smallvec![Meta { dtype: ins[0].dtype, layout: Layout::contiguous(*ins[0].shape()) }]
            }
            Op::View(view) => {
                check.count(1)?;
                smallvec![Meta { dtype: ins[0].dtype, layout: check.view(view)? }]
            }
            Op::Custom(custom) => {
                let shapes: Vec<Shape> = ins.iter().map(|m| *m.shape()).collect();
                custom.shapes(&shapes)?.into_iter().map(dense).collect()
            }
            Op::Backward(backward) => match backward {
                Backward::Unary(_) | Backward::Scalar { .. } => {
                    check.count(2)?;
                    check.same_shape(0, 1)?;
                    smallvec![float(ins[1].layout.like(*ins[1].shape()))]
                }
                Backward::Binary { .. } => {
                    check.count(3)?;
                    smallvec![float(check.broadcast(0..3)?)]
                }
                Backward::Reduce { dims, .. } => {
                    check.count(3)?;
                    if *ins[0].shape() != dims.reduce(ins[2].shape(), true) || ins[0].shape() != ins[1].shape() {
                        return check.shape("gradient and result with kept dimensions, and the input");
                    }
                    smallvec![like(2)]
                }
                Backward::CumProd { .. } => {
                    check.count(2)?;
                    check.same_shape(0, 1)?;
                    smallvec![like(1)]
                }
                Backward::Gather { dim, shape } => {
                    check.count(2)?;
                    check.same_shape(0, 1)?;
                    check.along(*dim, shape, ins[1].shape())?;
                    smallvec![dense(*shape)]
                }
                Backward::Conv2dInput { shape, conv } => {
                    check.count(2)?;
                    let outs = Op::Conv2d(*conv, Epilogue::default())
                        .outs(&[Meta { dtype: want, layout: Layout::contiguous(*shape) }, ins[1]], want)?;
                    if outs[0].shape() != ins[0].shape() {
                        return check.shape("the gradient of the convolution's output and its weight");
                    }
                    smallvec![float(Layout::channels_last(*shape))]
                }
                Backward::Conv2dWeight { shape, conv } => {
                    check.count(2)?;
                    let outs = Op::Conv2d(*conv, Epilogue::default())
                        .outs(&[ins[1], Meta { dtype: want, layout: Layout::contiguous(*shape) }], want)?;
                    if outs[0].shape() != ins[0].shape() {
                        return check.shape("the gradient of the convolution's output and its input");
                    }
                    smallvec![dense(*shape)]
                }
                Backward::Depthwise { conv, bias } => {
                    check.count(3)?;
                    let outs = Op::Conv2d(*conv, Epilogue::default()).outs(&ins[1..], want)?;
                    if outs[0].shape() != ins[0].shape() || !conv.is_depthwise(ins[2].shape()) {
                        return check.shape("the gradient of a depthwise convolution's output, its input and its weight");
                    }
                    let weight = Meta { dtype: ins[2].dtype, layout: Layout::contiguous(*ins[2].shape()) };
                    let channels = Meta { layout: Layout::contiguous(Shape::new(&[conv.groups])?), ..weight };
                    let bias = bias.then_some(channels);
                    [float(Layout::channels_last(*ins[1].shape())), weight].into_iter().chain(bias).collect()
                }
                Backward::Pool { shape, pool } => {
                    check.count(if pool.kind == PoolKind::Max { 2 } else { 1 })?;
                    let layout = if pool.kind == PoolKind::Max { ins[1].layout } else { ins[0].layout };
                    smallvec![float(layout.like(*shape))]
                }
                Backward::PoolSelect { shape, .. } => {
                    check.count(2)?;
                    check.same_shape(0, 1)?;
                    smallvec![float(ins[1].layout.like(*shape))]
                }
                Backward::Softmax { .. } => {
                    check.count(2)?;
                    check.same_shape(0, 1)?;
                    smallvec![like(1)]
                }
                Backward::Norm(norm) => {
                    check.count(4 + norm.weights_of_gradient())?;
                    check.same_shape(0, 1)?;
                    let dx = like(1);
                    if norm.affine {
                        let weight = Meta { dtype: ins[2].dtype, layout: Layout::contiguous(*ins[2].shape()) };
                        std::iter::once(dx).chain(std::iter::repeat_n(weight, norm.weights())).collect()
                    } else {
                        smallvec![dx]
                    }
                }
                Backward::MatMulOf { sums, .. } => {
                    let mut outs = Op::MatMul(Epilogue::default()).outs(ins, want)?;
                    if *sums {
                        if ins.iter().any(|x| x.shape().rank() != 2) {
                            return check.shape("two matrices");
                        }
                        outs.push(dense(Shape::from_slice(&ins[0].shape()[..1])));
                    }
                    outs
                }
                Backward::Renormalise(norm) => {
                    check.count(3 + norm.weights())?;
                    check.floats(0..ins.len())?;
                    let groups = check.norm(norm, &ins[1..1 + norm.weights()])?;
                    let fits = |i: &Meta| i.layout.shape.numel() == groups;
                    if norm.kind == NormKind::Fixed || !ins[1 + norm.weights()..].iter().all(fits) {
                        return check.argument(format!("expected the mean and 1/deviation of {groups} groups"));
                    }
                    smallvec![like(0)]
                }
                Backward::CrossEntropy(_) => {
                    check.count(3)?;
                    smallvec![like(1)]
                }
                Backward::Loss { .. } => {
                    check.count(3)?;
                    check.same_shape(1, 2)?;
                    smallvec![like(1)]
                }
                Backward::Ternary { .. } => {
                    check.count(4)?;
                    smallvec![float(check.broadcast(0..4)?)]
                }
                Backward::Resample { map, shape } => {
                    check.count(1)?;
                    if map.shape(shape)? != *ins[0].shape() {
                        return check.shape("the gradient of the map's output");
                    }
                    smallvec![float(ins[0].layout.like(*shape))]
                }
                Backward::Attention { attention, joined } => {
                    check.count(6 + attention.mask as usize)?;
                    if *joined {
                        check.same_shape(1, 2)?;
                        check.same_shape(1, 3)?;
                        return Ok(smallvec![dense(Shape::new(&[&[3], &ins[1].shape()[..]].concat())?)]);
                    }
                    smallvec![dense(*ins[1].shape()), dense(*ins[2].shape()), dense(*ins[3].shape())]
                }
                Backward::Embedding { rows } => {
                    check.count(2)?;
                    let features = ins[0].shape().last().copied().unwrap_or(1);
                    smallvec![dense(Shape::from_slice(&[*rows, features]))]
                }
                Backward::Narrow { shape, .. } => {
                    check.count(1)?;
                    smallvec![float(ins[0].layout.like(*shape))]
                }
            },
        })
    }
}

/// Statistics are f32, or f64 where the input is.
fn stats_dtype(ins: &[Meta]) -> DType {
    if ins[0].dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// The output, and the value before the activation where the activation's derivative needs it.
fn with_preactivation(epilogue: &Epilogue, out: Meta) -> Outs {
    match epilogue.act {
        Some(act) if act.saved() == Saved::Input => smallvec![out, out],
        Some(_) | None => smallvec![out],
    }
}

/// The extent of a sliding window's output; `None` when the window does not fit.
pub(crate) fn window(input: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Option<usize> {
    let span = dilation * (kernel.checked_sub(1)?) + 1;
    Some((input + 2 * padding).checked_sub(span)? / stride.max(1) + 1)
}

/// The inputs of one operator, and the checks on them.
struct Check<'a> {
    op: &'static str,
    ins: &'a [Meta],
}

impl Check<'_> {
    fn shapes(&self) -> Vec<Shape> {
        self.ins.iter().map(|m| *m.shape()).collect()
    }

    fn shape<T>(&self, expected: &str) -> Result<T> {
        Err(Error::Shape { op: self.op, expected: format!("expected {expected}"), shapes: self.shapes() })
    }

    fn argument<T>(&self, message: String) -> Result<T> {
        Err(Error::Argument { op: self.op, message })
    }

    fn count(&self, n: usize) -> Result<()> {
        if self.ins.len() != n {
            return self.argument(format!("takes {n} tensors, got {}", self.ins.len()));
        }
        Ok(())
    }

    fn dtype(&self, i: usize, allowed: &[DType]) -> Result<()> {
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

    fn floats(&self, range: std::ops::Range<usize>) -> Result<()> {
        for i in range {
            self.dtype(i, &DType::FLOATS)?;
        }
        Ok(())
    }

    fn dim(&self, i: usize, dim: usize) -> Result<usize> {
        self.ins[i].shape().dim(self.op, dim as isize)
    }

    /// An index along `dim` of a tensor of shape `x`.
    fn along(&self, dim: usize, x: &Shape, index: &Shape) -> Result<()> {
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

    fn same_shape(&self, a: usize, b: usize) -> Result<()> {
        if self.ins[a].shape() != self.ins[b].shape() { self.shape("equal shapes") } else { Ok(()) }
    }

    /// Layout of the broadcast shape, in the memory order of the first input that has the whole shape.
    fn broadcast(&self, range: std::ops::Range<usize>) -> Result<Layout> {
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

    fn matmul(&self, bias: bool) -> Result<Shape> {
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

    fn conv2d(&self, conv: &Conv2d, bias: bool) -> Result<Shape> {
        let (x, w) = (self.ins[0].shape(), self.ins[1].shape());
        if conv.stride.contains(&0) || conv.dilation.contains(&0) || conv.groups == 0 {
            return self.argument("stride, dilation and groups must be at least 1".into());
        }
        if x.rank() != 4 || w.rank() != 4 || x[1] != w[1] * conv.groups || w[0] % conv.groups != 0 {
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
            (None, _) | (_, None) => self.shape("a kernel no larger than the padded image"),
        }
    }

    fn conv_transpose2d(&self, conv: &Conv2d, output_padding: &[usize; 2], bias: bool) -> Result<Shape> {
        let (x, w) = (self.ins[0].shape(), self.ins[1].shape());
        if conv.stride.contains(&0) || conv.dilation.contains(&0) || conv.groups == 0 {
            return self.argument("stride, dilation and groups must be at least 1".into());
        }
        if (0..2).any(|d| output_padding[d] >= conv.stride[d].max(conv.dilation[d])) {
            return self.argument(format!("output padding {output_padding:?} must be below stride or dilation"));
        }
        if x.rank() != 4 || w.rank() != 4 || x[1] != w[0] || x[1] % conv.groups != 0 {
            return self.shape(&format!("an image [N, C, H, W] and a weight [C, O/groups, KH, KW], groups = {}", conv.groups));
        }
        let o = w[1] * conv.groups;
        if bias && **self.ins[2].shape() != [o] {
            return self.shape("a bias [O]");
        }
        let extent = |d: usize| {
            let span = conv.dilation[d] * w[d + 2].checked_sub(1)? + output_padding[d] + 1;
            (x[d + 2].checked_sub(1)? * conv.stride[d] + span).checked_sub(2 * conv.padding[d]).filter(|n| *n > 0)
        };
        match (extent(0), extent(1)) {
            (Some(h), Some(w_out)) => Ok(Shape::from_slice(&[x[0], o, h, w_out])),
            (None, _) | (_, None) => self.shape("an image that padding does not cut away"),
        }
    }

    fn pool(&self, pool: &Pool) -> Result<Shape> {
        let x = self.ins[0].shape();
        if x.rank() != 4 {
            return self.shape("an image [N, C, H, W]");
        }
        if pool.stride.contains(&0) || pool.kernel.contains(&0) || pool.dilation.contains(&0) {
            return self.argument("kernel and stride must be at least 1".into());
        }
        if (0..2).any(|d| pool.padding[d] * 2 > pool.kernel[d]) {
            return self.argument(format!("padding {:?} must be at most half the kernel {:?}", pool.padding, pool.kernel));
        }
        let extent = |d: usize| pool.windows(d, x[d + 2]);
        match (extent(0), extent(1)) {
            (Some(h), Some(w)) => Ok(Shape::from_slice(&[x[0], x[1], h, w])),
            (None, _) | (_, None) => self.shape(&format!("an image no smaller than the kernel {:?}", pool.kernel)),
        }
    }

    /// Number of groups that have statistics.
    fn norm(&self, norm: &Norm, rest: &[Meta]) -> Result<usize> {
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
        if x.numel() == 0 && groups > 0 {
            return self.shape("at least one element per group");
        }
        if rest.iter().any(|m| *m.shape() != weight) {
            return self.shape(&format!("weights and statistics of shape {weight:?}"));
        }
        Ok(groups)
    }

    fn cross_entropy(&self, loss: &CrossEntropy) -> Result<Shape> {
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

    fn attention(&self) -> Result<(Shape, Shape)> {
        let [q, k, v] = [0, 1, 2].map(|i| self.ins[i].shape());
        let r = q.rank();
        // Batches are equal; heads of q are a multiple of those of k and v.
        let batches = |a: &Shape| a[..r.saturating_sub(3)] == q[..r.saturating_sub(3)];
        let heads = || r < 3 || k[r - 3] == v[r - 3] && k[r - 3] > 0 && q[r - 3].is_multiple_of(k[r - 3]) || q[r - 3] == k[r - 3];
        let fits = r >= 2 && k.rank() == r && v.rank() == r && batches(k) && batches(v) && heads();
        if !fits || q[r - 1] != k[r - 1] || k[r - 2] != v[r - 2] {
            return self.shape("q […, T, D], k […, S, D], v […, S, E], heads of q a multiple of those of k and v");
        }
        if let Some(mask) = self.ins.get(3).filter(|_| self.op == "scaled_dot_product_attention") {
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

    fn view(&self, view: &View) -> Result<Layout> {
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
                if rank == 0 || start + length > layout.shape[dim] {
                    return self.argument(format!(
                        "{start}..{} is out of range for {} elements",
                        start + length,
                        layout.shape.get(dim).unwrap_or(&1)
                    ));
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
