//! Pooling, pixel by pixel over vectors of channels.

use super::conv::image;
use super::operand::{Compute, Operand};
use super::rows::fill_rows;
use crate::memory::Pool as Memory;
use crate::op::{Pool, PoolKind};
use crate::simd::Isa;
use crate::{Array, ArrayMut, Result, Shape};

/// Calls `each(pixel of the image)` for the taps of an output pixel that lie inside, in row-major order.
fn taps(pool: &Pool, x: &Shape, oy: usize, ox: usize, mut each: impl FnMut(usize)) {
    for ky in 0..pool.kernel[0] {
        for kx in 0..pool.kernel[1] {
            let y = (oy * pool.stride[0] + ky * pool.dilation[0]).wrapping_sub(pool.padding[0]);
            let xx = (ox * pool.stride[1] + kx * pool.dilation[1]).wrapping_sub(pool.padding[1]);
            if y < x[2] && xx < x[3] {
                each(y * x[3] + xx);
            }
        }
    }
}

pub(super) fn forward<C: Compute>(
    isa: Isa,
    memory: &Memory,
    pool: &Pool,
    x: &Array,
    bytes: &[u8],
    out: &mut ArrayMut<'_>,
) -> Result<()> {
    let shape = *x.shape();
    let panel = image::<C>(isa, memory, x, bytes)?;
    let (values, c) = (panel.as_slice(), shape[1]);
    let (oh, ow) = (out.array().shape()[2], out.array().shape()[3]);
    fill_rows::<C, ()>(isa, memory, out, &[0, 2, 3, 1], c, |row, y| {
        let (ox, oy, n) = (row % ow, row / ow % oh, row / (ow * oh));
        let from = &values[n * shape[2] * shape[3] * c..];
        match pool.kind {
            PoolKind::Max => {
                y.fill(C::neg_infinity());
                taps(pool, &shape, oy, ox, |pixel| {
                    for (y, &v) in y.iter_mut().zip(&from[pixel * c..]) {
                        *y = if v > *y || v.is_nan() { v } else { *y };
                    }
                });
            }
            PoolKind::Avg => {
                y.fill(C::zero());
                taps(pool, &shape, oy, ox, |pixel| y.iter_mut().zip(&from[pixel * c..]).for_each(|(y, &v)| *y = *y + v));
                let factor = C::one() / C::from_f64(pool.divisor([oy, ox], [shape[2], shape[3]]) as f64);
                y.iter_mut().for_each(|y| *y = *y * factor);
            }
        }
    });
    Ok(())
}

/// Inputs g, and for max x and y: the gradient of a window goes to its first element that equals y.
pub(super) fn backward<C: Compute>(
    isa: Isa,
    memory: &Memory,
    pool: &Pool,
    ins: &[&Array],
    bytes: &[&[u8]],
    out: &mut ArrayMut<'_>,
) -> Result<()> {
    let (shape, gs) = (*out.array().shape(), *ins[0].shape());
    let (c, size) = (shape[1], shape[1] * shape[2] * shape[3]);
    let windows = gs[2] * gs[3];
    let operand = |i: usize| Operand::new(ins[i], bytes[i], ins[i].shape(), &[0, 2, 3, 1]);
    let (g, max) = (operand(0), (pool.kind == PoolKind::Max).then(|| (operand(1), operand(2))));
    fill_rows::<C, ()>(isa, memory, out, &[0, 2, 3, 1], size, |n, dx| {
        dx.fill(C::zero());
        let mut pg = vec![C::zero(); windows * c];
        g.load(isa, n * windows * c, &mut pg);
        let loaded = max.as_ref().map(|(x, y)| {
            let (mut px, mut py) = (vec![C::zero(); size], vec![C::zero(); windows * c]);
            x.load(isa, n * size, &mut px);
            y.load(isa, n * windows * c, &mut py);
            (px, py)
        });
        let mut taken = vec![false; c];
        for window in 0..windows {
            let g = &pg[window * c..(window + 1) * c];
            let (oy, ox) = (window / gs[3], window % gs[3]);
            match &loaded {
                Some((x, y)) => {
                    let y = &y[window * c..(window + 1) * c];
                    taken.fill(false);
                    taps(pool, &shape, oy, ox, |pixel| {
                        let x = &x[pixel * c..(pixel + 1) * c];
                        let dx = &mut dx[pixel * c..(pixel + 1) * c];
                        for i in 0..c {
                            let hit = !taken[i] && (x[i] == y[i] || x[i].is_nan());
                            dx[i] = if hit { dx[i] + g[i] } else { dx[i] };
                            taken[i] |= hit;
                        }
                    });
                }
                None => {
                    let factor = C::one() / C::from_f64(pool.divisor([oy, ox], [shape[2], shape[3]]) as f64);
                    taps(pool, &shape, oy, ox, |pixel| {
                        dx[pixel * c..(pixel + 1) * c].iter_mut().zip(g).for_each(|(d, &g)| *d = *d + g * factor);
                    });
                }
            }
        }
    });
    Ok(())
}

/// Inputs g (of x's shape), x, y: of each window the element of g where x first equals y.
pub(super) fn select<C: Compute>(
    isa: Isa,
    memory: &Memory,
    pool: &Pool,
    ins: &[&Array],
    bytes: &[&[u8]],
    out: &mut ArrayMut<'_>,
) -> Result<()> {
    let shape = *ins[1].shape();
    let (g, x) = (image::<C>(isa, memory, ins[0], bytes[0])?, image::<C>(isa, memory, ins[1], bytes[1])?);
    let (g, x, c) = (g.as_slice(), x.as_slice(), shape[1]);
    let y = Operand::new(ins[2], bytes[2], ins[2].shape(), &[0, 2, 3, 1]);
    let (oh, ow) = (out.array().shape()[2], out.array().shape()[3]);
    fill_rows::<C, ()>(isa, memory, out, &[0, 2, 3, 1], c, |row, to| {
        let (ox, oy, n) = (row % ow, row / ow % oh, row / (ow * oh));
        let first = n * shape[2] * shape[3] * c;
        let (mut largest, mut taken) = (vec![C::zero(); c], vec![false; c]);
        y.load(isa, row * c, &mut largest);
        to.fill(C::zero());
        taps(pool, &shape, oy, ox, |pixel| {
            let at = first + pixel * c;
            for i in 0..c {
                if !taken[i] && (x[at + i] == largest[i] || x[at + i].is_nan()) {
                    taken[i] = true;
                    to[i] = g[at + i];
                }
            }
        });
    });
    Ok(())
}
