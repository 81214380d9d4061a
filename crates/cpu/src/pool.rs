//! Pooling, pixel by pixel over vectors of channels.

use crate::kernel::{Context, In, Out};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use smallvec::SmallVec;

use super::channels::{load, store};
use super::conv::image;
use super::operand::{Compute, Operand};
use super::rows::fill_rows;
use crate::simd::{Kernel, Lanes};
use binade_tensor::op::{Pool, PoolKind};
use binade_tensor::{Class, Error, Result, Shape};

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

/// The largest of `x` under the window's pixels, `len` channels each, in lanes from channel `c` on.
#[inline(always)]
fn largest<L: Lanes>(x: &[L::Elem], taps: &[usize], c: usize, len: usize) -> L
where
    L::Elem: Copy + Default,
{
    // A loop: the closure of a fold would be compiled without the instruction set.
    let mut best = L::splat(f64::NEG_INFINITY);
    for &tap in taps {
        best = load::<L>(&x[..tap + len], tap + c, L::Elem::default()).max(best);
    }
    best
}

/// One window forward: `y = max x[tap]`, or `factor·Σ x[tap]`.
pub struct Window<'a, C> {
    x: &'a [C],
    /// Places of the pixels under the window.
    taps: &'a [usize],
    kind: PoolKind,
    factor: f64,
    y: &'a mut [C],
}

impl<C: Copy + Default> Kernel<C> for Window<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let Window { x, taps, kind, factor, y } = self;
        let factor = L::splat(factor);
        for c in (0..y.len()).step_by(L::N) {
            let at = |tap: usize| load::<L>(&x[..tap + y.len()], tap + c, C::default());
            let value = match kind {
                PoolKind::Max => largest::<L>(x, taps, c, y.len()),
                PoolKind::Avg => taps.iter().fold(L::splat(0.0), |sum, &tap| sum + at(tap)) * factor,
            };
            store(value, y, c, C::default());
        }
    }
}

/// One window backward. For a maximum the gradient goes to the first element that equals it, which is found again.
pub struct WindowBackward<'a, C> {
    g: &'a [C],
    /// The image, for a maximum.
    max: Option<&'a [C]>,
    taps: &'a [usize],
    factor: f64,
    dx: &'a mut [C],
}

impl<C: Copy + Default> Kernel<C> for WindowBackward<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let WindowBackward { g, max, taps, factor, dx } = self;
        let (n, zero) = (g.len(), C::default());
        for c in (0..n).step_by(L::N) {
            let mut left = load::<L>(g, c, zero);
            match max {
                Some(x) => {
                    let y = largest::<L>(x, taps, c, n);
                    for &tap in taps {
                        let x = load::<L>(&x[..tap + n], tap + c, zero);
                        let none = L::splat(0.0);
                        // NaN counts as the maximum.
                        let hit = L::select(x.eq(x), L::select(x.eq(y), left, none), left);
                        left = L::select(x.eq(x), L::select(x.eq(y), none, left), none);
                        let dx = &mut dx[..tap + n];
                        store(load::<L>(dx, tap + c, zero) + hit, dx, tap + c, zero);
                    }
                }
                None => {
                    left = left * L::splat(factor);
                    for &tap in taps {
                        let dx = &mut dx[..tap + n];
                        store(load::<L>(dx, tap + c, zero) + left, dx, tap + c, zero);
                    }
                }
            }
        }
    }
}

/// Means whose sums are not finite once more in f64, which holds those of numbers that are.
fn recompute_means<C: Compute>(x: &[C], taps: &[usize], factor: f64, y: &mut [C]) {
    if y.iter().all(|y| y.is_finite()) {
        return;
    }
    for (c, y) in y.iter_mut().enumerate().filter(|(_, y)| !y.is_finite()) {
        *y = C::from_f64(taps.iter().map(|&tap| x[tap + c].as_f64()).sum::<f64>() * factor);
    }
}

pub(super) fn forward<C: Compute>(cx: Context<'_>, pool: &Pool, x: In<'_>, out: &mut Out<'_>) -> Result<()> {
    let isa = cx.isa;
    let shape = *x.shape();
    let (c, h, w) = (shape[1], shape[2], shape[3]);
    let values = Operand::new(x, x.shape(), &[0, 2, 3, 1]);
    let (oh, ow) = (out.array().shape()[2], out.array().shape()[3]);
    fill_rows::<C, ()>(cx, out, &[0, 2, 3, 1], ow * c, |row, y| {
        let (oy, n) = (row % oh, row / oh);
        // The rows of the image under this row of windows.
        let reach = (pool.kernel[0] - 1) * pool.dilation[0] + 1;
        let top = (oy * pool.stride[0]).saturating_sub(pool.padding[0]).min(h);
        let bottom = (oy * pool.stride[0] + reach).saturating_sub(pool.padding[0]).min(h);
        let (mut buffer, len) = (Vec::new(), (bottom - top) * w * c);
        if !values.is_borrowed::<C>(len) {
            buffer.resize(len, C::zero());
        }
        let image = values.block(isa, (n * h + top) * w * c, len, &mut buffer);
        let mut places: SmallVec<[usize; 16]> = SmallVec::new();
        for (ox, y) in y.chunks_exact_mut(c).enumerate() {
            places.clear();
            taps(pool, &shape, oy, ox, |pixel| places.push((pixel - top * w) * c));
            let factor = match pool.kind {
                PoolKind::Max => 1.0,
                PoolKind::Avg => 1.0 / pool.divisor([oy, ox], [h, w]) as f64,
            };
            C::dispatch(isa, Window { x: image, taps: &places, kind: pool.kind, factor, y });
            if pool.kind == PoolKind::Avg {
                recompute_means(image, &places, factor, y);
            }
        }
    })?;
    Ok(())
}

/// Inputs g, and for max x: the gradient of a window goes to the first of its largest elements.
pub(super) fn backward<C: Compute>(cx: Context<'_>, pool: &Pool, ins: &[In<'_>], out: &mut Out<'_>) -> Result<()> {
    let Context { isa, pool: memory } = cx;
    let (shape, gs) = (*out.array().shape(), *ins[0].shape());
    let (c, size) = (shape[1], shape[1] * shape[2] * shape[3]);
    let windows = gs[2] * gs[3];
    let operand = |i: usize| Operand::new(ins[i], ins[i].shape(), &[0, 2, 3, 1]);
    let (g, max) = (operand(0), (pool.kind == PoolKind::Max).then(|| operand(1)));
    let failed = AtomicBool::new(false);
    fill_rows::<C, ()>(cx, out, &[0, 2, 3, 1], size, |n, dx| {
        dx.fill(C::zero());
        let needed = |o: &Operand<'_>, len: usize| if o.is_borrowed::<C>(len) { 0 } else { len };
        let parts = [needed(&g, windows * c), max.as_ref().map_or(0, |x| needed(x, size))];
        let bytes = parts.iter().sum::<usize>() * size_of::<C>();
        let Some(mut buffer) = memory.alloc(bytes, Class::Workspace) else { return failed.store(true, Relaxed) };
        let (pg, rest) = buffer.as_mut_slice::<C>().split_at_mut(parts[0]);
        let g = g.block(isa, n * windows * c, windows * c, pg);
        let max = max.as_ref().map(|x| x.block(isa, n * size, size, &mut rest[..parts[1]]));
        let mut places: SmallVec<[usize; 16]> = SmallVec::new();
        for (window, g) in g.chunks_exact(c).enumerate() {
            let (oy, ox) = (window / gs[3], window % gs[3]);
            places.clear();
            taps(pool, &shape, oy, ox, |pixel| places.push(pixel * c));
            let factor = if max.is_some() { 1.0 } else { 1.0 / pool.divisor([oy, ox], [shape[2], shape[3]]) as f64 };
            C::dispatch(isa, WindowBackward { g, max, taps: &places, factor, dx });
        }
    })?;
    if failed.into_inner() {
        return Err(Error::OutOfMemory { op: "", bytes: size * size_of::<C>(), class: Class::Workspace });
    }
    Ok(())
}

/// Inputs g (of x's shape), x: of each window the element of g where x is first largest.
pub(super) fn select<C: Compute>(cx: Context<'_>, pool: &Pool, ins: &[In<'_>], out: &mut Out<'_>) -> Result<()> {
    let shape = *ins[1].shape();
    let (g, x) = (image::<C>(cx, ins[0])?, image::<C>(cx, ins[1])?);
    let (g, x, c) = (g.as_slice(), x.as_slice(), shape[1]);
    let (oh, ow) = (out.array().shape()[2], out.array().shape()[3]);
    fill_rows::<C, ()>(cx, out, &[0, 2, 3, 1], c, |row, to| {
        let (ox, oy, n) = (row % ow, row / ow % oh, row / (ow * oh));
        let first = n * shape[2] * shape[3] * c;
        let mut largest: Vec<Option<C>> = vec![None; c];
        to.fill(C::zero());
        taps(pool, &shape, oy, ox, |pixel| {
            let at = first + pixel * c;
            for i in 0..c {
                // NaN is larger than all but another.
                if largest[i].is_none_or(|best| best < x[at + i] || x[at + i].is_nan() && !best.is_nan()) {
                    largest[i] = Some(x[at + i]);
                    to[i] = g[at + i];
                }
            }
        });
    })?;
    Ok(())
}
