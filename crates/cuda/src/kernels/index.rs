//! Gathering, scattering, embeddings.

use binade_tensor::op::Scatter as Kind;
use binade_tensor::{DType, Layout, MAX_RANK, Result};
use bytemuck::{Pod, Zeroable};

use super::copy;
use super::elementwise::{Elementwise, launch, parameter};
use crate::backend::Cuda;
use crate::module::Module;
use crate::view::{Operand, View, Walk, code};

/// `Check` of `index.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Check {
    fault: u64,
    at: u64,
    dtype: u32,
    n: u32,
    rank: u32,
    operation: u32,
    extents: [u32; MAX_RANK],
    strides: [i64; MAX_RANK],
    size: i64,
    ignored: i64,
}

/// `Scatter` of `index.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Scatter {
    fault: u64,
    n: u32,
    rank: u32,
    extents: [u32; MAX_RANK],
    covered: [u32; MAX_RANK],
    dim: u32,
    adds: u32,
    out: Operand,
    base: Operand,
    index: Operand,
    source: Operand,
}

/// `Rows` of `index.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Rows {
    fault: u64,
    n: u32,
    features: u32,
    rows: u32,
    unused: u32,
    index: u64,
    index_dtype: u32,
    g_dtype: u32,
    g: u64,
    out: u64,
    row_stride: i64,
    feature_stride: i64,
    out_dtype: u32,
    unused_too: u32,
}

/// Queues the check of an index: behind one that is out of range nothing runs.
pub(super) fn check(
    cuda: &Cuda,
    op: &'static str,
    index: &View,
    size: usize,
    ignored: Option<i64>,
    what: &'static str,
) -> Result<()> {
    if index.numel() == 0 {
        return Ok(());
    }
    let walk = Walk::of([&index.layout], 0..index.shape().rank());
    let p = Check {
        fault: cuda.fault().address(),
        at: index.at(),
        dtype: code(index.dtype),
        n: index.numel() as u32,
        rank: walk.rank(),
        operation: cuda.fault().operation(op, what),
        extents: walk.extents(),
        strides: walk.strides(0),
        size: size as i64,
        // What lies in the range is allowed anyway.
        ignored: ignored.unwrap_or(0),
    };
    if ignored.is_none() && size == 0 {
        // Nothing is allowed.
        let p = Check { ignored: i64::MIN, ..p };
        cuda.grid(op, (Module::Index, "check_index"), [1, 1, 1], 256, &p);
        return Ok(());
    }
    cuda.grid(op, (Module::Index, "check_index"), [1, 1, 1], 256, &p);
    Ok(())
}

/// `x` under the shape of an index, with stride 0 along `dim`, and its stride there.
fn beside(x: &Layout, index: &Layout, dim: usize) -> (Layout, usize) {
    let mut strides = index.shape;
    for d in 0..index.shape.rank() {
        strides[d] = if d == dim { 0 } else { x.strides[d] };
    }
    (Layout { shape: index.shape, strides, offset: x.offset }, x.strides.get(dim).copied().unwrap_or(0))
}

pub(super) fn gather(cuda: &Cuda, op: &'static str, dim: usize, ins: &[View], out: &View) -> Result<bool> {
    let (x, index) = (&ins[0], &ins[1]);
    check(cuda, op, index, x.shape().get(dim).copied().unwrap_or(1), None, "elements")?;
    let (layout, stride) = beside(&x.layout, &index.layout, dim);
    let from = x.with_layout(layout);
    let p = parameter(cuda, [Some(&from), Some(index)], out);
    let p = p.map(|p| Elementwise { value: f64::from_bits(stride as u64), ..p });
    let kernel = if x.dtype == out.dtype { format!("gather_{}", x.dtype.size()) } else { "gather_float".into() };
    launch(cuda, op, (Module::Index, &kernel), p)
}

/// `base` with elements of `source` set or added; zeros without a base.
pub(super) fn scatter(
    cuda: &Cuda,
    op: &'static str,
    (kind, dim): (Kind, usize),
    base: Option<&View>,
    index: &View,
    source: &View,
    out: &View,
) -> Result<bool> {
    // A scalar is one element along one dimension.
    let rank = out.shape().rank().max(1);
    check(cuda, op, index, out.shape().get(dim).copied().unwrap_or(1), None, "elements")?;
    if out.numel() == 0 {
        return Ok(true);
    }
    let (mut extents, mut covered) = ([1; MAX_RANK], [1; MAX_RANK]);
    for d in 0..out.shape().rank() {
        extents[d] = out.shape()[d] as u32;
        covered[d] = index.shape()[d] as u32;
    }
    let p = Scatter {
        fault: cuda.fault().address(),
        n: out.numel() as u32,
        rank: rank as u32,
        extents,
        covered,
        dim: dim as u32,
        adds: (kind == Kind::Add).into(),
        out: out.operand(&out.layout.strides),
        base: base.map_or(Operand::default(), |base| base.operand(&base.layout.strides)),
        index: index.operand(&index.layout.strides),
        source: source.operand(&source.layout.strides),
    };
    let kernel = if out.dtype.is_float() { "scatter" } else { "scatter_bits" };
    cuda.over(op, (Module::Index, kernel), out.numel(), &p);
    Ok(true)
}

/// Rows of a weight: a gather whose index lies with stride 0 along the features.
pub(super) fn embedding(cuda: &Cuda, op: &'static str, ins: &[View], out: &View) -> Result<bool> {
    let (weight, index) = (&ins[0], &ins[1]);
    check(cuda, op, index, weight.shape()[0], None, "rows")?;
    let rank = out.shape().rank();
    let (mut of_weight, mut of_index) = (*out.shape(), *out.shape());
    for d in 0..rank {
        let last = d + 1 == rank;
        of_weight[d] = if last { weight.layout.strides[1] } else { 0 };
        of_index[d] = if last { 0 } else { index.layout.strides[d] };
    }
    let under =
        |view: &View, strides| view.with_layout(Layout { shape: *out.shape(), strides, offset: view.layout.offset });
    let (from, at) = (under(weight, of_weight), under(index, of_index));
    let p = parameter(cuda, [Some(&from), Some(&at)], out);
    let p = p.map(|p| Elementwise { value: f64::from_bits(weight.layout.strides[0] as u64), ..p });
    let same = weight.dtype == out.dtype;
    let kernel = if same { format!("gather_{}", out.dtype.size()) } else { "gather_float".into() };
    launch(cuda, op, (Module::Index, &kernel), p)
}

/// Inputs g, index.
pub(super) fn embedding_backward(cuda: &Cuda, op: &'static str, rows: usize, ins: &[View], out: &View) -> Result<bool> {
    check(cuda, op, &ins[1], rows, None, "rows")?;
    if out.numel() == 0 {
        return Ok(true);
    }
    // A scratch copy lives until its use is queued, which is as long as it must.
    let ((g, _g), (index, _index)) = (copy::row_major(cuda, op, &ins[0])?, copy::row_major(cuda, op, &ins[1])?);
    debug_assert!(matches!(index.dtype, DType::I64 | DType::U32));
    let features = out.shape()[1];
    let p = Rows {
        fault: cuda.fault().address(),
        n: index.numel() as u32,
        features: features as u32,
        rows: rows as u32,
        unused: 0,
        index: index.at(),
        index_dtype: code(index.dtype),
        g_dtype: code(g.dtype),
        g: g.at(),
        out: out.at(),
        row_stride: out.stride(0),
        feature_stride: out.stride(1),
        out_dtype: code(out.dtype),
        unused_too: 0,
    };
    cuda.grid(op, (Module::Index, "embedding_backward"), [rows, features.div_ceil(128), 1], 32, &p);
    Ok(true)
}
