//! Depthwise 3 × 3 convolutions with stride 1 whose output is as large as their image, which most are. A number of the image is read once
//! for an output row, where it meets three columns of weights, so that it can be widened as it is read. The gradient by the input is the
//! same with the weight turned round; the gradients by weight and bias are summed beside it, from one reading of all operands. Rows to
//! come are asked for a line at a time beside the work, in the order of memory: vectors of channels, pixel after pixel, are not foreseen by
//! the processor.

use std::ops::Range;

use rayon::prelude::*;

use super::super::conv::{Correlation, Source};
use super::super::finish::{Finish, output_parts};
use super::super::gemm::{elements_of, workspace};
use super::super::operand::{elements_mut, in_storage};
use super::super::tile::Tile;
use super::TOGETHER;
use crate::cpu::tasks::Tasks as _;
use crate::memory::Pool;
use crate::simd::{Isa, Kernel, Lanes, Stored, prefetch};
use crate::{DType, Result};

/// Taps of the kernel.
const TAPS: usize = 9;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Stretches of rows that gradients by weight and bias are summed over, at most.
const STRETCHES: usize = 32;

/// The weight of each place around a pixel, if a correlation is such a one.
pub(super) fn weights(g: &Correlation, x: &Source<'_>) -> Option<[usize; TAPS]> {
    let [phase] = &g.phases[..] else { return None };
    let plain = g.step == [1, 1] && g.stride == [1, 1] && [g.h, g.w] == [x.h, x.w];
    if !plain || phase.taps.len() != TAPS || g.low != [-1, -1] || g.high != [1, 1] {
        return None;
    }
    let mut weights = [0; TAPS];
    for tap in &phase.taps {
        weights[((tap.at[0] + 1) * 3 + tap.at[1] + 1) as usize] = tap.index;
    }
    Some(weights)
}

/// An output row and what it reads.
#[derive(Clone, Copy)]
struct Row<const R: usize> {
    /// Where rows of the image begin, and which row of the kernel each meets; first the one in the output row's place.
    reads: [(usize, usize); R],
    /// Where the output row begins.
    out: usize,
    /// Pixels.
    w: usize,
    /// Channels.
    c: usize,
}

/// What is done along a row.
trait Body<C> {
    /// # Safety
    /// The row is inside the operands.
    unsafe fn channels<L: Lanes<Elem = C>, const R: usize, const PART: bool>(&mut self, row: Row<R>, channels: Range<usize>);
}

/// Runs a body on the output rows `rows` of an image `[h][w][c]`.
///
/// # Safety
/// The rows are inside the operands.
#[inline(always)]
unsafe fn over<L: Lanes, B: Body<L::Elem>>([h, w, c]: [usize; 3], rows: Range<usize>, mut body: B) {
    #[inline(always)]
    unsafe fn all<L: Lanes, B: Body<L::Elem>, const R: usize>(body: &mut B, row: Row<R>) {
        let whole = row.c - row.c % L::N;
        // SAFETY: the caller's promise.
        unsafe {
            for c in (0..whole).step_by(L::N) {
                body.channels::<L, R, false>(row, c..c + L::N);
            }
            if whole < row.c {
                body.channels::<L, R, true>(row, whole..row.c);
            }
        }
    }
    for y in rows.clone() {
        let out = (y - rows.start) * w * c;
        let read = |y: usize, kernel: usize| (y * w * c, kernel);
        // SAFETY: the caller's promise.
        unsafe {
            match (y > 0, y + 1 < h) {
                (true, true) => all::<L, B, 3>(&mut body, Row { reads: [read(y, 1), read(y - 1, 0), read(y + 1, 2)], out, w, c }),
                (true, false) => all::<L, B, 2>(&mut body, Row { reads: [read(y, 1), read(y - 1, 0)], out, w, c }),
                (false, true) => all::<L, B, 2>(&mut body, Row { reads: [read(y, 1), read(y + 1, 2)], out, w, c }),
                (false, false) => all::<L, B, 1>(&mut body, Row { reads: [read(y, 1)], out, w, c }),
            }
        }
    }
}

/// # Safety
/// The range is inside the slice, and of `L::N` elements but for a part.
#[inline(always)]
unsafe fn get<L: Lanes, T: Stored<L::Elem>, const PART: bool>(from: &[T], at: Range<usize>) -> L {
    // SAFETY: the caller's promise.
    let from = unsafe { from.get_unchecked(at) };
    if PART { T::get_part(from) } else { T::get(from) }
}

/// # Safety
/// As [`get`].
#[inline(always)]
unsafe fn put<L: Lanes, T: Stored<L::Elem>, const PART: bool>(value: L, to: &mut [T], at: Range<usize>) {
    // SAFETY: the caller's promise.
    let to = unsafe { to.get_unchecked_mut(at) };
    if PART { T::put_part(value, to) } else { T::put(value, to) }
}

/// The weights that the rows a row reads meet, column by column.
///
/// # Safety
/// The channels are inside the weight `[place][channel]`, and `L::N` but for a part.
#[inline(always)]
unsafe fn weights_of<L: Lanes<Elem = C>, C: Stored<C>, const R: usize, const PART: bool>(
    w: &[C],
    row: &Row<R>,
    channels: &Range<usize>,
) -> [[L; 3]; R] {
    let mut weights = [[L::splat(0.0); 3]; R];
    for r in 0..R {
        for k in 0..3 {
            let first = (row.reads[r].1 * 3 + k) * row.c;
            // SAFETY: the caller's promise.
            weights[r][k] = unsafe { get::<L, C, PART>(w, first + channels.start..first + channels.end) };
        }
    }
    weights
}

/// Lines to ask for while a row is worked on: of what is read and what is written.
#[derive(Clone, Copy)]
struct Ahead<const N: usize> {
    read: [usize; N],
    write: usize,
}

impl<const N: usize> Ahead<N> {
    /// Where as many bytes of the row are done.
    #[inline(always)]
    fn ask(&self, done: usize) {
        if done.is_multiple_of(LINE) {
            self.read.iter().for_each(|at| prefetch::ask_later(at + done, false));
            prefetch::ask_later(self.write + done, true);
        }
    }
}

/// The address of an element, of which there need be none.
#[inline(always)]
fn address<T>(of: &[T], at: usize) -> usize {
    of.as_ptr().addr() + at * size_of::<T>()
}

/// `out[y, x, c] = bias[c] + Σ image[y + i − 1, x + j − 1, c]·w[i, j, c]` for rows of an image `[h][w][c]`.
pub struct Same<'a, C, X, Y> {
    extents: [usize; 3],
    rows: Range<usize>,
    image: &'a [X],
    w: &'a [C],
    bias: &'a [C],
    /// Of the rows alone.
    out: &'a mut [Y],
}

impl<C: Copy + Stored<C>, X: Stored<C>, Y: Stored<C>> Same<'_, C, X, Y> {
    #[inline(always)]
    pub(in super::super) fn run_on<L: Lanes<Elem = C>>(self) {
        let ([h, w, c], rows) = (self.extents, self.rows.clone());
        assert!(rows.end <= h && self.image.len() >= h * w * c && self.out.len() >= rows.len() * w * c);
        assert!(w > 0 && self.w.len() >= TAPS * c && self.bias.len() >= c);
        // SAFETY: the extents were checked.
        unsafe { over::<L, _>(self.extents, rows, self) }
    }
}

impl<C: Copy + Stored<C>, X: Stored<C>, Y: Stored<C>> Body<C> for Same<'_, C, X, Y> {
    #[inline(always)]
    unsafe fn channels<L: Lanes<Elem = C>, const R: usize, const PART: bool>(&mut self, row: Row<R>, channels: Range<usize>) {
        let Row { reads, out, w: columns, c } = row;
        let at = |first: usize| first + channels.start..first + channels.end;
        // Row y + 1 of the image is read here for the first time.
        let read = [address(self.image, reads[0].0 + 2 * columns * c)];
        let ahead = Ahead { read, write: address(self.out, out + columns * c) };
        // SAFETY: the caller's promise.
        unsafe {
            let w = weights_of::<L, C, R, PART>(self.w, &row, &channels);
            let bias = get::<L, C, PART>(self.bias, at(0));
            // A column adds to three outputs, of which the first is then complete.
            let [mut first, mut second] = [bias; 2];
            for j in 0..columns {
                ahead.ask((channels.start * columns + j * L::N) * size_of::<X>());
                let mut third = bias;
                for r in 0..R {
                    let v = get::<L, X, PART>(self.image, at(reads[r].0 + j * c));
                    first = v.mul_add(w[r][2], first);
                    second = v.mul_add(w[r][1], second);
                    third = v.mul_add(w[r][0], third);
                }
                if j > 0 {
                    put::<L, Y, PART>(first, self.out, at(out + (j - 1) * c));
                }
                (first, second) = (second, third);
            }
            put::<L, Y, PART>(first, self.out, at(out + (columns - 1) * c));
        }
    }
}

impl<X: Stored<f32>, Y: Stored<f32>> Kernel for Same<'_, f32, X, Y> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        self.run_on::<L>();
    }
}

/// [`Same`] of the gradient, with the sums that the other gradients are: `sums[i, j, c] += Σ grad[y + i − 1, x + j − 1, c]·x[y, x, c]` and last
/// `Σ grad[y, x, c]`.
pub struct SameBackward<'a, C, X, Y> {
    extents: [usize; 3],
    rows: Range<usize>,
    grad: &'a [X],
    w: &'a [C],
    /// Of the rows alone.
    x: &'a [X],
    /// Of the rows alone.
    out: &'a mut [Y],
    sums: &'a mut [C],
}

impl<C: Copy + Stored<C>, X: Stored<C>, Y: Stored<C>> SameBackward<'_, C, X, Y> {
    #[inline(always)]
    pub(in super::super) fn run_on<L: Lanes<Elem = C>>(self) {
        let ([h, w, c], rows) = (self.extents, self.rows.clone());
        let some = rows.len() * w * c;
        assert!(rows.end <= h && self.grad.len() >= h * w * c && self.x.len() >= some && self.out.len() >= some);
        assert!(w > 0 && self.w.len() >= TAPS * c && self.sums.len() >= (TAPS + 1) * c);
        // SAFETY: the extents were checked.
        unsafe { over::<L, _>(self.extents, rows, self) }
    }
}

impl<C: Copy + Stored<C>, X: Stored<C>, Y: Stored<C>> Body<C> for SameBackward<'_, C, X, Y> {
    #[inline(always)]
    unsafe fn channels<L: Lanes<Elem = C>, const R: usize, const PART: bool>(&mut self, row: Row<R>, channels: Range<usize>) {
        let Row { reads, out, w: columns, c } = row;
        let at = |first: usize| first + channels.start..first + channels.end;
        let read = [address(self.grad, reads[0].0 + 2 * columns * c), address(self.x, out + columns * c)];
        let ahead = Ahead { read, write: address(self.out, out + columns * c) };
        let zero = L::splat(0.0);
        let (mut sums, mut total) = ([[zero; 3]; R], zero);
        // SAFETY: the caller's promise.
        unsafe {
            let w = weights_of::<L, C, R, PART>(self.w, &row, &channels);
            let [mut first, mut second] = [zero; 2];
            let (mut x_first, mut x_second) = (zero, get::<L, X, PART>(self.x, at(out)));
            for j in 0..columns {
                ahead.ask((channels.start * columns + j * L::N) * size_of::<X>());
                let (mut third, mut g) = (zero, [zero; R]);
                for r in 0..R {
                    g[r] = get::<L, X, PART>(self.grad, at(reads[r].0 + j * c));
                    first = g[r].mul_add(w[r][2], first);
                    second = g[r].mul_add(w[r][1], second);
                    third = g[r].mul_add(w[r][0], third);
                    sums[r][1] = g[r].mul_add(x_second, sums[r][1]);
                }
                total = total + g[0];
                // What lies outside is left out: zeros in its place would make NaN of infinities.
                if j > 0 {
                    put::<L, Y, PART>(first, self.out, at(out + (j - 1) * c));
                    for r in 0..R {
                        sums[r][2] = g[r].mul_add(x_first, sums[r][2]);
                    }
                }
                (x_first, first, second) = (x_second, second, third);
                if j + 1 < columns {
                    x_second = get::<L, X, PART>(self.x, at(out + (j + 1) * c));
                    for r in 0..R {
                        sums[r][0] = g[r].mul_add(x_second, sums[r][0]);
                    }
                }
            }
            put::<L, Y, PART>(first, self.out, at(out + (columns - 1) * c));
            for r in 0..R {
                for k in 0..3 {
                    let place = at((reads[r].1 * 3 + k) * c);
                    let before = get::<L, C, PART>(self.sums, place.clone());
                    put::<L, C, PART>(before + sums[r][k], self.sums, place);
                }
            }
            let before = get::<L, C, PART>(self.sums, at(TAPS * c));
            put::<L, C, PART>(before + total, self.sums, at(TAPS * c));
        }
    }
}

impl<X: Stored<f32>, Y: Stored<f32>> Kernel for SameBackward<'_, f32, X, Y> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        self.run_on::<L>();
    }
}

/// An operator on images: where they lie, what they become.
pub(super) struct Work<'a, C> {
    pub(super) isa: Isa,
    pub(super) pool: &'a Pool,
    pub(super) g: &'a Correlation,
    /// Weights `[place][channel]`.
    w: Vec<C>,
    places: [usize; TAPS],
    dtype: DType,
}

impl<'a, C: Tile> Work<'a, C> {
    /// If there is a kernel here for a correlation with the weight `[tap][channel]`.
    pub(super) fn new(
        isa: Isa,
        pool: &'a Pool,
        g: &'a Correlation,
        x: &Source<'_>,
        w: &[C],
        dtype: DType,
    ) -> Option<Work<'a, C>> {
        let places = weights(g, x)?;
        let w = places.iter().flat_map(|tap| &w[tap * x.c..][..x.c]).copied().collect();
        Some(Work { isa, pool, g, w, places, dtype })
    }

    pub(super) fn correlate(&self, x: &Source<'_>, finish: &Finish<C>, out: &mut [u8], pre: Option<&mut [u8]>) -> Result<()> {
        let mut outs = (out, pre);
        if let Some(done) = in_storage!(x.values.dtype(), correlate_in::<C>(self, x, finish, &mut outs)) {
            return done;
        }
        let wide = x.widened::<C>(self.isa, self.pool)?;
        self.correlate_of(x, elements_of::<C>(&wide), finish, outs)
    }

    /// The image in memory is `image`.
    fn correlate_of<T: Stored<C>>(
        &self,
        x: &Source<'_>,
        image: &[T],
        finish: &Finish<C>,
        (out, pre): (&mut [u8], Option<&mut [u8]>),
    ) -> Result<()> {
        let Work { isa, pool, g, ref w, dtype, .. } = *self;
        let (extents, row, size) = ([x.h, x.w, x.c], x.w * x.c, dtype.size());
        let direct = dtype == T::DTYPE && !finish.activates();
        let (bias, finish) = finish.apart(x.c);
        let per_block = g.rows(x.n, x.c);
        let together = (TOGETHER / row).max(1);
        output_parts(out, pre, per_block * row * size).into_par_iter().enumerate().try_each(|(i, (out, pre))| {
            let mut scratch = workspace::<C>(pool, if direct { 0 } else { together * row })?;
            for p in g.pieces(i * per_block, out.len() / (row * size)) {
                let image = &image[p.n * x.h * row..][..x.h * row];
                let from = p.pixel * x.c;
                if direct {
                    let out = &mut elements_mut::<T>(out)[from..from + p.rows * row];
                    C::same(isa, Same { extents, rows: p.y..p.y + p.rows, image, w, bias: &bias, out });
                    continue;
                }
                for first in (0..p.rows).step_by(together) {
                    let rows = p.y + first..p.y + p.rows.min(first + together);
                    let bytes = (from + first * row) * size..(from + (first + rows.len()) * row) * size;
                    let acc = &mut scratch.as_mut_slice::<C>()[..rows.len() * row];
                    C::same(isa, Same { extents, rows, image, w, bias: &bias, out: &mut *acc });
                    let pre = if pre.is_empty() { &mut [][..] } else { &mut pre[bytes.clone()] };
                    finish.rows(acc, x.c, 0, x.c, x.c, &mut out[bytes], pre, dtype);
                }
            }
            Ok(())
        })
    }

    /// The gradients by input, which is written, weight `[tap][channel]` and bias.
    pub(super) fn backward(&self, grad: &Source<'_>, x: &Source<'_>, mut out: &mut [u8]) -> Result<(Vec<C>, Vec<C>)> {
        let alike = grad.values.dtype() == x.values.dtype();
        if let Some(done) = alike.then(|| in_storage!(x.values.dtype(), backward_in::<C>(self, grad, x, &mut out))).flatten() {
            return done;
        }
        let (wide_grad, wide_x) = (grad.widened::<C>(self.isa, self.pool)?, x.widened::<C>(self.isa, self.pool)?);
        self.backward_of(x, elements_of::<C>(&wide_grad), elements_of::<C>(&wide_x), out)
    }

    /// The images in memory are `grads` and `images`.
    fn backward_of<T: Stored<C>>(&self, x: &Source<'_>, grads: &[T], images: &[T], out: &mut [u8]) -> Result<(Vec<C>, Vec<C>)> {
        let Work { isa, pool, g, ref w, dtype, .. } = *self;
        let (extents, row, size, c) = ([x.h, x.w, x.c], x.w * x.c, dtype.size(), x.c);
        let per_stretch = (x.n * x.h).div_ceil(STRETCHES);
        let together = (TOGETHER / row).max(1);
        let len = (TAPS + 1) * c;
        let mut partial = vec![C::zero(); (x.n * x.h).div_ceil(per_stretch) * len];
        let parts = out.par_chunks_mut(per_stretch * row * size).zip(partial.par_chunks_mut(len));
        parts.enumerate().try_each(|(i, (out, sums))| {
            let direct = dtype == T::DTYPE;
            let mut scratch = workspace::<C>(pool, if direct { 0 } else { together * row })?;
            for p in g.pieces(i * per_stretch, out.len() / (row * size)) {
                let first = p.n * x.h * row;
                let (grad, from) = (&grads[first..][..x.h * row], p.pixel * c);
                let of = |rows: &Range<usize>| &images[first + rows.start * row..first + rows.end * row];
                if direct {
                    let (rows, out) = (p.y..p.y + p.rows, &mut elements_mut::<T>(out)[from..from + p.rows * row]);
                    let x = of(&rows);
                    C::same_backward(isa, SameBackward { extents, rows, grad, w, x, out, sums: &mut *sums });
                    continue;
                }
                for first in (0..p.rows).step_by(together) {
                    let rows = p.y + first..p.y + p.rows.min(first + together);
                    let bytes = (from + first * row) * size..(from + (first + rows.len()) * row) * size;
                    let acc = &mut scratch.as_mut_slice::<C>()[..rows.len() * row];
                    let x = of(&rows);
                    C::same_backward(isa, SameBackward { extents, rows, grad, w, x, out: &mut *acc, sums: &mut *sums });
                    C::store(isa, acc, &mut out[bytes], dtype);
                }
            }
            Ok::<(), crate::Error>(())
        })?;
        let mut sums = vec![C::zero(); len];
        for part in partial.chunks(len) {
            sums.iter_mut().zip(part).for_each(|(sum, &v)| *sum = *sum + v);
        }
        let bias = sums.split_off(TAPS * c);
        let mut weight = vec![C::zero(); TAPS * c];
        for (from, &tap) in sums.chunks_exact(c).zip(&self.places) {
            weight[tap * c..][..c].copy_from_slice(from);
        }
        Ok((weight, bias))
    }
}

/// [`Work::correlate`] of an image that lies in memory as it is read; `None` if it does not.
fn correlate_in<C: Tile, T: Stored<C>>(
    work: &Work<'_, C>,
    x: &Source<'_>,
    finish: &Finish<C>,
    (out, pre): &mut (&mut [u8], Option<&mut [u8]>),
) -> Option<Result<()>> {
    let image = x.values.dense::<T>()?;
    Some(work.correlate_of(x, image, finish, (out, pre.as_deref_mut())))
}

/// [`Work::backward`] likewise.
fn backward_in<C: Tile, T: Stored<C>>(
    work: &Work<'_, C>,
    grad: &Source<'_>,
    x: &Source<'_>,
    out: &mut &mut [u8],
) -> Option<Result<(Vec<C>, Vec<C>)>> {
    let (grads, images) = (grad.values.dense::<T>()?, x.values.dense::<T>()?);
    Some(work.backward_of(x, grads, images, out))
}
