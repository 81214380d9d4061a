//! Pooling, linear maps of each dimension, and the gradient of running products.

use binade_tensor::op::{Pool as Kind, PoolKind, Resample, Taps, transposed};
use binade_tensor::{MAX_RANK, Result, Shape};
use bytemuck::{Pod, Zeroable};

use super::conv::Image;
use super::copy;
use crate::backend::Cuda;
use crate::module::Module;
use crate::view::{Operand, View};

/// `Pool` of `window.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Pool {
    fault: u64,
    n: u32,
    channels: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    kernel: [u32; 2],
    stride: [u32; 2],
    padding: [u32; 2],
    dilation: [u32; 2],
    max: u32,
    count_padding: u32,
    divisor: u64,
    x: Image,
    y: Image,
    g: Image,
}

/// `Map` of `window.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Map {
    fault: u64,
    taps: u64,
    starts: u64,
    n: u32,
    rank: u32,
    extents: [u32; MAX_RANK],
    begins: [u32; MAX_RANK],
    fill: f32,
    unused: u32,
    fill_bits: u64,
    x: Operand,
    y: Operand,
}

/// `Tap` of `window.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Tap {
    place: u64,
    weight: f64,
}

/// `Factors` of `window.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Factors {
    fault: u64,
    scratch: u64,
    rows: u32,
    n: u32,
    rank: u32,
    unused: u32,
    extents: [u32; MAX_RANK],
    along: [i64; 3],
    g: Operand,
    x: Operand,
    dx: Operand,
}

/// Of an image of `x`'s shape and windows of `y`'s.
fn parameter(cuda: &Cuda, of: &Kind, x: &View, y: &View, g: Option<&View>) -> Pool {
    let (image, out) = (x.shape(), y.shape());
    let pair = |of: [usize; 2]| of.map(|v| v as u32);
    Pool {
        fault: cuda.fault().address(),
        n: image[0] as u32,
        channels: image[1] as u32,
        height: image[2] as u32,
        width: image[3] as u32,
        out_height: out[2] as u32,
        out_width: out[3] as u32,
        kernel: pair(of.kernel),
        stride: pair(of.stride),
        padding: pair(of.padding),
        dilation: pair(of.dilation),
        max: (of.kind == PoolKind::Max).into(),
        count_padding: of.count_padding.into(),
        divisor: of.divisor.map_or(0, |divisor| divisor.get() as u64),
        x: Image::new(x),
        y: Image::new(y),
        g: g.map_or(Image::zeroed(), Image::new),
    }
}

fn launch(cuda: &Cuda, op: &'static str, kernel: &str, n: usize, p: &Pool) -> Result<bool> {
    if n > 0 {
        cuda.over(op, (Module::Window, kernel), n, p);
    }
    Ok(true)
}

pub(super) fn pool(cuda: &Cuda, op: &'static str, of: &Kind, x: &View, out: &View) -> Result<bool> {
    launch(cuda, op, "pool", out.numel(), &parameter(cuda, of, x, out, None))
}

/// Inputs g, and for max x.
pub(super) fn pool_backward(cuda: &Cuda, op: &'static str, of: &Kind, ins: &[View], out: &View) -> Result<bool> {
    launch(cuda, op, "pool_backward", out.numel(), &parameter(cuda, of, out, &ins[0], ins.get(1)))
}

/// Inputs a tensor of x's shape, x.
pub(super) fn pool_select(cuda: &Cuda, op: &'static str, of: &Kind, ins: &[View], out: &View) -> Result<bool> {
    launch(cuda, op, "pool_select", out.numel(), &parameter(cuda, of, &ins[1], out, Some(&ins[0])))
}

pub(super) fn resample(cuda: &Cuda, op: &'static str, map: &Resample, x: &View, out: &View) -> Result<bool> {
    let shape = *x.shape();
    let taps: Vec<Vec<Taps>> = (0..shape.rank()).map(|d| map.taps(d, shape[d])).collect();
    apply(cuda, op, &taps, map.fill(), x, out)
}

/// The transposed map; `shape` is the input's.
pub(super) fn resample_backward(
    cuda: &Cuda,
    op: &'static str,
    map: &Resample,
    shape: &Shape,
    g: &View,
    out: &View,
) -> Result<bool> {
    let taps: Vec<Vec<Taps>> = (0..shape.rank()).map(|d| transposed(&map.taps(d, shape[d]), shape[d])).collect();
    apply(cuda, op, &taps, 0.0, g, out)
}

fn apply(cuda: &Cuda, op: &'static str, taps: &[Vec<Taps>], fill: f64, x: &View, out: &View) -> Result<bool> {
    if out.numel() == 0 {
        return Ok(true);
    }
    if out.shape().rank() == 0 {
        return copy::cast(cuda, op, x, out);
    }
    let (mut all, mut starts, mut begins) = (Vec::new(), Vec::new(), [0; MAX_RANK]);
    for (d, places) in taps.iter().enumerate() {
        begins[d] = starts.len() as u32;
        for taps in places {
            starts.push(all.len() as u32);
            all.extend(taps.iter().map(|&(place, weight)| Tap { place: place as u64, weight }));
        }
        starts.push(all.len() as u32);
    }
    let mut extents = [1; MAX_RANK];
    extents.iter_mut().zip(out.shape().iter()).for_each(|(to, &extent)| *to = extent as u32);
    let (of_taps, of_starts) = (cuda.scratch(size_of_val(&all[..]))?, cuda.scratch(size_of_val(&starts[..]))?);
    cuda.write(op, of_taps.address(), bytemuck::cast_slice(&all));
    cuda.write(op, of_starts.address(), bytemuck::cast_slice(&starts));
    let p = Map {
        fault: cuda.fault().address(),
        taps: of_taps.address(),
        starts: of_starts.address(),
        n: out.numel() as u32,
        rank: out.shape().rank() as u32,
        extents,
        begins,
        fill: fill as f32,
        unused: 0,
        fill_bits: copy::bits(fill, out.dtype),
        x: x.operand(&x.layout.strides),
        y: out.operand(&out.layout.strides),
    };
    let kernel = if out.dtype.is_float() { "map_dimensions" } else { "move_dimensions" };
    cuda.over(op, (Module::Window, kernel), out.numel(), &p);
    Ok(true)
}

/// Inputs g, x.
pub(super) fn cumprod_backward(cuda: &Cuda, op: &'static str, dim: usize, ins: &[View], out: &View) -> Result<bool> {
    let shape = *out.shape();
    let n = shape.get(dim).copied().unwrap_or(1);
    if out.numel() == 0 {
        return Ok(true);
    }
    let mut extents = [1; MAX_RANK];
    extents.iter_mut().zip(shape.iter()).for_each(|(to, &extent)| *to = extent as u32);
    if shape.rank() > 0 {
        extents[dim] = 1;
    }
    let (g, x) = (&ins[0], &ins[1]);
    let along = |view: &View| view.layout.strides.get(dim).map_or(0, |&stride| stride as i64);
    let scratch = cuda.scratch(size_of::<f64>() * out.numel())?;
    let p = Factors {
        fault: cuda.fault().address(),
        scratch: scratch.address(),
        rows: (out.numel() / n) as u32,
        n: n as u32,
        rank: shape.rank() as u32,
        unused: 0,
        extents,
        along: [along(g), along(x), along(out)],
        g: g.operand(&g.layout.strides),
        x: x.operand(&x.layout.strides),
        dx: out.operand(&out.layout.strides),
    };
    cuda.over(op, (Module::Window, "product_backward"), p.rows as usize, &p);
    Ok(true)
}
