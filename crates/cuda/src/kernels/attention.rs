//! Attention.

use binade_tensor::op::Attention as Kind;
use binade_tensor::{DType, Layout, Result, Shape};
use bytemuck::{Pod, Zeroable};

use super::copy::{self, Held};
use super::tensor;
use crate::backend::Cuda;
use crate::module::Module;
use crate::view::{View, code};

/// `Matrices` of `attention.cu`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Matrices {
    at: u64,
    dtype: u32,
    unused: u32,
    batch: i64,
    head: i64,
    row: i64,
    feature: i64,
}

/// `Attention` of `attention.cu`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Attention {
    fault: u64,
    samples: u32,
    heads: u32,
    shared: u32,
    t: u32,
    s: u32,
    d: u32,
    e: u32,
    causal: u32,
    mask_kind: u32,
    drops: u32,
    scale: f32,
    kept: f32,
    threshold: u64,
    key: [u32; 2],
    operation: u32,
    iteration: [u32; 2],
    unused: u32,
    q: Matrices,
    k: Matrices,
    v: Matrices,
    out: Matrices,
    mask: Matrices,
    g: Matrices,
    dq: Matrices,
    dk: Matrices,
    dv: Matrices,
    lse: u64,
    means: u64,
}

/// Features of a head that kernels have room for.
const FEATURES: usize = 256;
/// Warps of a block.
const WARPS: usize = 4;

/// Queries of a block on tensor cores.
const QUERIES: usize = 64;
/// Features of heads that these have kernels for, up to so many.
const SIZES: [(u32, &str); 3] = [(64, "attend_64"), (128, "attend_128"), (256, "attend_256")];

/// A view of `[…, heads, rows, features]`; `None` where samples do not lie at one distance.
fn matrices(view: &View) -> Option<Matrices> {
    let (shape, strides) = (view.shape(), &view.layout.strides);
    let r = shape.rank();
    // All dimensions before the heads are one.
    let lead = r.saturating_sub(3);
    let samples = Layout { shape: shape.leading(lead), strides: strides.leading(lead), offset: 0 };
    let flat = samples.reshape(&Shape::new(&[samples.numel()]).ok()?)?;
    Some(Matrices {
        at: view.at(),
        dtype: code(view.dtype),
        unused: 0,
        batch: flat.strides[0] as i64,
        head: if r >= 3 { strides[r - 3] as i64 } else { 0 },
        row: strides[r - 2] as i64,
        feature: strides[r - 1] as i64,
    })
}

/// An operand whose samples lie at one distance: the view, or a copy.
fn even(cuda: &Cuda, op: &'static str, view: &View) -> Result<Held> {
    if matrices(view).is_some() { Ok((*view, None)) } else { copy::row_major(cuda, op, view) }
}

/// A place for results whose samples lie at one distance: the view, or memory that [`finish`] copies there.
fn place(cuda: &Cuda, view: &View) -> Result<Held> {
    if matrices(view).is_some() { Ok((*view, None)) } else { copy::room(cuda, view) }
}

/// Copies what was computed elsewhere.
fn finish(cuda: &Cuda, op: &'static str, computed: &Held, view: &View) -> Result<bool> {
    if computed.1.is_none() { Ok(true) } else { copy::cast(cuda, op, &computed.0, view) }
}

/// The mask under the scores of `q`; of one whose samples do not lie at one distance a copy, which has no more heads,
/// queries and keys than the mask.
fn mask_of(cuda: &Cuda, op: &'static str, q: &View, keys: usize, mask: &View) -> Result<Option<Held>> {
    let mut scores = *q.shape();
    let (r, own_rank) = (scores.rank(), mask.shape().rank());
    scores[r - 1] = keys;
    let under = |view: &View| Some(view.with_layout(view.layout.expand(&scores)?));
    if let Some(view) = under(mask).filter(|view| matrices(view).is_some()) {
        return Ok(Some((view, None)));
    }
    let mut own = scores;
    for d in r.saturating_sub(3)..r {
        own[d] = if d + own_rank < r { 1 } else { mask.shape()[d + own_rank - r] };
    }
    let Some(layout) = mask.layout.expand(&own) else { return Ok(None) };
    let (dense, memory) = copy::row_major(cuda, op, &mask.with_layout(layout))?;
    Ok(under(&dense).map(|view| (view, memory)))
}

/// What both directions have.
fn parameter(cuda: &Cuda, of: &Kind, [q, k, v]: [&View; 3], mask: Option<&View>) -> Option<Attention> {
    let r = q.shape().rank();
    let (d, e) = (q.shape()[r - 1], v.shape()[r - 1]);
    let heads = |view: &View| if r >= 3 { view.shape()[r - 3] } else { 1 };
    let (t, s) = (q.shape()[r - 2], k.shape()[r - 2]);
    let halves = |word: u64| [word as u32, (word >> 32) as u32];
    let mut p = Attention {
        fault: cuda.fault().address(),
        samples: q.shape().leading(r.saturating_sub(3)).numel() as u32,
        heads: heads(q) as u32,
        shared: (heads(q) / heads(k).max(1)).max(1) as u32,
        t: t as u32,
        s: s as u32,
        d: d as u32,
        e: e as u32,
        causal: of.causal.into(),
        drops: (of.dropout > 0.0).into(),
        scale: of.scale.unwrap_or(1.0 / (d.max(1) as f64).sqrt()) as f32,
        kept: (1.0 / (1.0 - of.dropout)) as f32,
        threshold: (of.dropout * 4_294_967_296.0) as u64,
        key: halves(of.key.seed),
        operation: of.key.op,
        iteration: halves(of.key.iteration),
        q: matrices(q)?,
        k: matrices(k)?,
        v: matrices(v)?,
        ..Attention::default()
    };
    if let Some(mask) = mask {
        p.mask_kind = if mask.dtype == DType::Bool { 1 } else { 2 };
        p.mask = matrices(mask)?;
    }
    Some(p)
}

impl Matrices {
    /// Whether rows of `extents` samples, heads, rows and features are lines that are copied 16 bytes at a time.
    fn are_lines(&self, [samples, heads, rows, features]: [u32; 4]) -> bool {
        const ELEMENTS: i64 = 8;
        let aligned = |extent: u32, stride: i64| extent <= 1 || stride % ELEMENTS == 0;
        let strides = aligned(samples, self.batch) && aligned(heads, self.head) && aligned(rows, self.row);
        self.at.is_multiple_of(16) && self.feature == 1 && features % ELEMENTS as u32 == 0 && strides
    }
}

/// The kernel on tensor cores of a capability; `None` if they do not take these operands.
fn on_tensor_cores(capability: u32, dtypes: [DType; 3], out: DType, p: &Attention) -> Option<(Module, &'static str)> {
    tensor::format(capability, [dtypes[0], dtypes[1]]).filter(|_| dtypes[1] == dtypes[2])?;
    let (_, kernel) = SIZES.into_iter().find(|(size, _)| p.d.max(p.e) <= *size)?;
    let key_heads = p.heads / p.shared;
    let lines = p.q.are_lines([p.samples, p.heads, p.t, p.d])
        && p.k.are_lines([p.samples, key_heads, p.s, p.d])
        && p.v.are_lines([p.samples, key_heads, p.s, p.e])
        && p.out.are_lines([p.samples, p.heads, p.t, p.e]);
    let some = [p.samples, p.heads, p.t, p.s, p.d, p.e].iter().all(|&extent| extent > 0);
    let module = if capability < 80 { Module::AttentionSm75 } else { Module::AttentionSm80 };
    (lines && some && (out == DType::F32 || out == dtypes[0])).then_some((module, kernel))
}

/// Queues a kernel with a warp for each of `n` rows, whose results have so many features.
fn launch(cuda: &Cuda, op: &'static str, kernel: &str, n: usize, features: u32, p: &Attention) {
    if n > 0 {
        let (warps, parts) = (n.min(WARPS), (features as usize).div_ceil(FEATURES).max(1));
        cuda.grid(op, (Module::Attention, kernel), [n.div_ceil(warps), parts, 1], 32 * warps, p);
    }
}

/// The operands as kernels take them: q, k and v, and the mask.
struct Operands([Held; 3], Option<Held>);

impl Operands {
    fn new(cuda: &Cuda, op: &'static str, of: &Kind, [q, k, v]: [&View; 3], mask: Option<&View>) -> Result<Operands> {
        let [q, k, v] = [even(cuda, op, q)?, even(cuda, op, k)?, even(cuda, op, v)?];
        let mask = match mask.filter(|_| of.mask) {
            Some(mask) => mask_of(cuda, op, &q.0, k.0.shape()[k.0.shape().rank() - 2], mask)?,
            None => None,
        };
        Ok(Operands([q, k, v], mask))
    }

    fn parameter(&self, cuda: &Cuda, of: &Kind) -> Option<Attention> {
        let Operands([q, k, v], mask) = self;
        parameter(cuda, of, [&q.0, &k.0, &v.0], mask.as_ref().map(|mask| &mask.0))
    }
}

/// Outputs the result and the log-sum-exp.
pub(super) fn forward(cuda: &Cuda, op: &'static str, of: &Kind, ins: &[View], outs: &[View]) -> Result<bool> {
    let operands = Operands::new(cuda, op, of, [&ins[0], &ins[1], &ins[2]], ins.get(3))?;
    let Some(mut p) = operands.parameter(cuda, of) else { return Ok(false) };
    let out = place(cuda, &outs[0])?;
    let Some(to) = matrices(&out.0).filter(|_| outs[1].layout.is_contiguous()) else { return Ok(false) };
    (p.out, p.lse) = (to, outs[1].at());
    let dtypes = [ins[0].dtype, ins[1].dtype, ins[2].dtype];
    match on_tensor_cores(cuda.capability(), dtypes, out.0.dtype, &p) {
        Some(at) => {
            let blocks = (p.t as usize).div_ceil(QUERIES) * p.samples as usize * p.heads as usize;
            cuda.grid(op, at, [blocks, 1, 1], 128, &p);
        }
        None => launch(cuda, op, "attend", outs[1].numel(), p.e, &p),
    }
    finish(cuda, op, &out, &outs[0])
}

/// Inputs g, q, k, v, output, log-sum-exp, mask.
pub(super) fn backward(cuda: &Cuda, op: &'static str, of: &Kind, ins: &[View], outs: &[View]) -> Result<bool> {
    let [g, q, k, v, _, lse] = [0, 1, 2, 3, 4, 5].map(|i| &ins[i]);
    if lse.numel() == 0 {
        // No query has a part in the gradients.
        return outs.iter().try_fold(true, |_, view| copy::fill(cuda, op, 0.0, view));
    }
    let operands = Operands::new(cuda, op, of, [q, k, v], ins.get(6))?;
    let Some(mut p) = operands.parameter(cuda, of) else { return Ok(false) };
    // Three outputs, or the parts of one.
    let part = |i: usize| match outs {
        [joined] => {
            let whole = joined.layout.narrow(0, i, 1);
            let (mut shape, mut strides) = (*q.shape(), *q.shape());
            for d in 0..q.shape().rank() {
                (shape[d], strides[d]) = (whole.shape[d + 1], whole.strides[d + 1]);
            }
            joined.with_layout(Layout { shape, strides, offset: whole.offset })
        }
        _ => outs[i],
    };
    let (g, lse) = (even(cuda, op, g)?, copy::row_major(cuda, op, lse)?);
    let parts = [part(0), part(1), part(2)];
    let [dq, dk, dv] = [place(cuda, &parts[0])?, place(cuda, &parts[1])?, place(cuda, &parts[2])?];
    let found = (matrices(&g.0), matrices(&dq.0), matrices(&dk.0), matrices(&dv.0));
    let (Some(of_g), Some(by_q), Some(by_k), Some(by_v)) = found else { return Ok(false) };
    let means = cuda.scratch(4 * lse.0.numel())?;
    (p.g, p.dq, p.dk, p.dv, p.lse, p.means) = (of_g, by_q, by_k, by_v, lse.0.at(), means.address());
    launch(cuda, op, "attend_backward_queries", lse.0.numel(), p.d, &p);
    let keys = (p.samples * (p.heads / p.shared) * p.s) as usize;
    launch(cuda, op, "attend_backward_keys", keys, p.d.max(p.e), &p);
    [dq, dk, dv].iter().zip(&parts).try_fold(true, |_, (computed, view)| finish(cuda, op, computed, view))
}
