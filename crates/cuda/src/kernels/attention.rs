//! Attention.

use binade_tensor::op::Attention as Kind;
use binade_tensor::{DType, Layout, Result, Shape};
use bytemuck::{Pod, Zeroable};

use super::copy;
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

/// What both directions have; inputs from q on, the mask last.
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
    if let Some(mask) = mask.filter(|_| of.mask) {
        let mut scores = *q.shape();
        scores[r - 1] = s;
        p.mask_kind = if mask.dtype == DType::Bool { 1 } else { 2 };
        p.mask = matrices(&mask.with_layout(mask.layout.expand(&scores)?))?;
    }
    Some(p)
}

/// Queues a kernel with a warp for each of `n` rows, whose results have so many features.
fn launch(cuda: &Cuda, op: &'static str, kernel: &str, n: usize, features: u32, p: &Attention) {
    if n > 0 {
        let (warps, parts) = (n.min(WARPS), (features as usize).div_ceil(FEATURES).max(1));
        cuda.grid(op, (Module::Attention, kernel), [n.div_ceil(warps), parts, 1], 32 * warps, p);
    }
}

/// Outputs the result and the log-sum-exp.
pub(super) fn forward(cuda: &Cuda, op: &'static str, of: &Kind, ins: &[View], outs: &[View]) -> Result<bool> {
    let Some(mut p) = parameter(cuda, of, [&ins[0], &ins[1], &ins[2]], ins.get(3)) else { return Ok(false) };
    let Some(out) = matrices(&outs[0]).filter(|_| outs[1].layout.is_contiguous()) else { return Ok(false) };
    (p.out, p.lse) = (out, outs[1].at());
    launch(cuda, op, "attend", outs[1].numel(), p.e, &p);
    Ok(true)
}

/// Inputs g, q, k, v, output, log-sum-exp, mask.
pub(super) fn backward(cuda: &Cuda, op: &'static str, of: &Kind, ins: &[View], outs: &[View]) -> Result<bool> {
    let [g, q, k, v, _, lse] = [0, 1, 2, 3, 4, 5].map(|i| &ins[i]);
    if lse.numel() == 0 {
        // No query has a part in the gradients.
        return outs.iter().try_fold(true, |_, view| copy::fill(cuda, op, 0.0, view));
    }
    let Some(mut p) = parameter(cuda, of, [q, k, v], ins.get(6)) else { return Ok(false) };
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
    let found = (matrices(g), matrices(&part(0)), matrices(&part(1)), matrices(&part(2)));
    let (Some(g), Some(dq), Some(dk), Some(dv)) = found else { return Ok(false) };
    if !lse.layout.is_contiguous() || lse.dtype != DType::F32 {
        return Ok(false);
    }
    let means = cuda.scratch(4 * lse.numel())?;
    (p.g, p.dq, p.dk, p.dv, p.lse, p.means) = (g, dq, dk, dv, lse.at(), means.address());
    launch(cuda, op, "attend_backward_queries", lse.numel(), p.d, &p);
    let keys = (p.samples * (p.heads / p.shared) * p.s) as usize;
    launch(cuda, op, "attend_backward_keys", keys, p.d.max(p.e), &p);
    Ok(true)
}
