//! Random numbers, dropout and stochastic rounding.

use binade_tensor::op::Distribution;
use binade_tensor::{Key, MAX_RANK, Result};
use bytemuck::{Pod, Zeroable};

use crate::backend::Cuda;
use crate::module::Module;
use crate::view::{View, Walk, code};

/// `Draw` of `random.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Draw {
    fault: u64,
    first: u64,
    out: u64,
    x: u64,
    dtype: u32,
    x_dtype: u32,
    n: u32,
    rank: u32,
    extents: [u32; MAX_RANK],
    strides: [i64; MAX_RANK],
    out_strides: [i64; MAX_RANK],
    key: [u32; 2],
    operation: u32,
    iteration: [u32; 2],
    scale: f32,
    threshold: u64,
    low: f64,
    span: f64,
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// Elements are numbered in row-major order, whatever the memory order.
fn draw(cuda: &Cuda, key: Key, x: Option<&View>, out: &View) -> Draw {
    let from = x.map_or(out.layout, |x| x.layout);
    let walk = Walk::of([&out.layout, &from], 0..out.shape().rank());
    Draw {
        fault: cuda.fault().address(),
        first: 0,
        out: out.at(),
        x: x.map_or(0, View::at),
        dtype: code(out.dtype),
        x_dtype: x.map_or(0, |x| code(x.dtype)),
        n: out.numel() as u32,
        rank: walk.rank(),
        extents: walk.extents(),
        strides: walk.strides(1),
        out_strides: walk.strides(0),
        key: halves(key.seed),
        operation: key.op,
        iteration: halves(key.iteration),
        scale: 0.0,
        threshold: 0,
        low: 0.0,
        span: 0.0,
    }
}

fn launch(cuda: &Cuda, op: &'static str, kernel: &str, draw: Draw) -> Result<bool> {
    if draw.n > 0 {
        cuda.over(op, (Module::Random, kernel), draw.n as usize, &draw);
    }
    Ok(true)
}

pub(super) fn dropout(cuda: &Cuda, op: &'static str, p: f64, key: Key, x: &View, out: &View) -> Result<bool> {
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 } as f32;
    // One threshold over 2³²: an element is dropped where its word is below it.
    let threshold = (p * 4_294_967_296.0) as u64;
    launch(cuda, op, "dropout", Draw { scale, threshold, ..draw(cuda, key, Some(x), out) })
}

pub(super) fn stochastic_cast(cuda: &Cuda, op: &'static str, key: Key, x: &View, out: &View) -> Result<bool> {
    launch(cuda, op, "stochastic", draw(cuda, key, Some(x), out))
}

pub(super) fn random(cuda: &Cuda, op: &'static str, distribution: Distribution, key: Key, out: &View) -> Result<bool> {
    let draw = draw(cuda, key, None, out);
    match distribution {
        Distribution::Uniform { low, high } => launch(cuda, op, "uniform", Draw { low, span: high - low, ..draw }),
        Distribution::Normal { mean, std } => launch(cuda, op, "normal", Draw { low: mean, span: std, ..draw }),
        Distribution::Integers { low, high } => {
            let [low, span] = [low, high.wrapping_sub(low)].map(|v| f64::from_bits(v as u64));
            launch(cuda, op, "integers", Draw { low, span, ..draw })
        }
        Distribution::Permutation => Ok(false),
    }
}
