//! The kernels along rows. A number of the image is read once for an output row, where it meets three columns of
//! weights. So it can be widened as it is read. The gradient by the input is the same with the weight turned round; the
//! gradients by weight and bias are summed beside it, from one reading of all operands. Rows to come are asked for a
//! line at a time beside the work, in the order of memory: vectors of channels, pixel after pixel, are not foreseen by
//! the processor.

use std::ops::Range;

use super::TAPS;
use crate::simd::{Kernel, Lanes, Stored, prefetch};

/// Bytes of a cache line.
const LINE: usize = 64;

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
    unsafe fn channels<L: Lanes<Elem = C>, const R: usize, const PART: bool>(
        &mut self,
        row: Row<R>,
        channels: Range<usize>,
    );
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
                (true, true) => {
                    all::<L, B, 3>(&mut body, Row { reads: [read(y, 1), read(y - 1, 0), read(y + 1, 2)], out, w, c })
                }
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
    pub(super) extents: [usize; 3],
    pub(super) rows: Range<usize>,
    pub(super) image: &'a [X],
    pub(super) w: &'a [C],
    pub(super) bias: &'a [C],
    /// Of the rows alone.
    pub(super) out: &'a mut [Y],
}

impl<C: Copy + Stored<C>, X: Stored<C>, Y: Stored<C>> Kernel<C> for Same<'_, C, X, Y> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let ([h, w, c], rows) = (self.extents, self.rows.clone());
        assert!(rows.end <= h && self.image.len() >= h * w * c && self.out.len() >= rows.len() * w * c);
        assert!(w > 0 && self.w.len() >= TAPS * c && self.bias.len() >= c);
        // SAFETY: the extents were checked.
        unsafe { over::<L, _>(self.extents, rows, self) }
    }
}

impl<C: Copy + Stored<C>, X: Stored<C>, Y: Stored<C>> Body<C> for Same<'_, C, X, Y> {
    #[inline(always)]
    unsafe fn channels<L: Lanes<Elem = C>, const R: usize, const PART: bool>(
        &mut self,
        row: Row<R>,
        channels: Range<usize>,
    ) {
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

/// [`Same`] of the gradient, with the sums that the other gradients are: `sums[i, j, c] += Σ grad[y + i − 1, x + j − 1,
/// c]·x[y, x, c]` and last `Σ grad[y, x, c]`.
pub struct SameBackward<'a, C, X, Y> {
    pub(super) extents: [usize; 3],
    pub(super) rows: Range<usize>,
    pub(super) grad: &'a [X],
    pub(super) w: &'a [C],
    /// Of the rows alone.
    pub(super) x: &'a [X],
    /// Of the rows alone.
    pub(super) out: &'a mut [Y],
    pub(super) sums: &'a mut [C],
}

impl<C: Copy + Stored<C>, X: Stored<C>, Y: Stored<C>> Kernel<C> for SameBackward<'_, C, X, Y> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
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
    unsafe fn channels<L: Lanes<Elem = C>, const R: usize, const PART: bool>(
        &mut self,
        row: Row<R>,
        channels: Range<usize>,
    ) {
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
