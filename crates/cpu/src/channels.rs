//! Kernels whose coefficients repeat along memory: per channel in channels-last images, per feature in rows. A stretch
//! with one coefficient is the case of sixteen equal channels.

use super::operand::Compute;
use crate::simd::{Isa, Kernel, Lanes, Stored, prefetch};

/// An element from two values and four coefficients of its channel.
pub trait PerChannel: Copy + Sync {
    /// The function.
    fn eval<L: Lanes>(self, g: L, x: L, k: [L; 4]) -> L;
}

/// Two terms of sums per channel.
pub trait Terms: Copy + Sync {
    /// The function.
    fn eval<L: Lanes>(self, g: L, x: L, k: L) -> (L, L);
}

/// The elements `at..at + N`, and zeros beyond the end.
#[inline(always)]
pub fn load<L: Lanes>(from: &[L::Elem], at: usize, zero: L::Elem) -> L {
    if at + L::N <= from.len() {
        return L::load(&from[at..at + L::N]);
    }
    let mut pad = [zero; 16];
    let rest = from.len().saturating_sub(at);
    pad[..rest].copy_from_slice(&from[from.len() - rest..]);
    L::load(&pad[..L::N])
}

/// Writes the elements `at..at + N` that are there.
#[inline(always)]
pub fn store<L: Lanes>(value: L, to: &mut [L::Elem], at: usize, zero: L::Elem) {
    if at + L::N <= to.len() {
        value.store(&mut to[at..at + L::N]);
        return;
    }
    let mut pad = [zero; 16];
    value.store(&mut pad[..L::N]);
    let rest = to.len() - at;
    to[at..].copy_from_slice(&pad[..rest]);
}

struct MapChannels<'a, C, X, Y, F> {
    f: F,
    g: &'a [X],
    x: &'a [X],
    k: [&'a [C]; 4],
    y: &'a mut [Y],
}

impl<C: Stored<C>, X: Stored<C>, Y: Stored<C>, F: PerChannel> Kernel<C> for MapChannels<'_, C, X, Y, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let MapChannels { f, g, x, k, y } = self;
        let channels = k[0].len();
        let whole = y.len() - y.len() % channels;
        let ((g, g_rest), (x, x_rest), (y, y_rest)) = (g.split_at(whole), x.split_at(whole), y.split_at_mut(whole));
        for ((g, x), y) in g.chunks_exact(channels).zip(x.chunks_exact(channels)).zip(y.chunks_exact_mut(channels)) {
            map_pixel::<L, _, _, _>(f, g, x, k, y);
        }
        map_pixel::<L, _, _, _>(f, g_rest, x_rest, k, y_rest);
    }
}

/// One pixel, or as much of it as there is.
#[inline(always)]
fn map_pixel<L: Lanes, F: PerChannel, X: Stored<L::Elem>, Y: Stored<L::Elem>>(
    f: F,
    g: &[X],
    x: &[X],
    k: [&[L::Elem]; 4],
    y: &mut [Y],
) {
    let n = y.len();
    // Not `map`: its closure would be compiled without the instruction set.
    let (g, x, k, body) = (&g[..n], &x[..n], [&k[0][..n], &k[1][..n], &k[2][..n], &k[3][..n]], n - n % L::N);
    for c in (0..body).step_by(L::N) {
        let at = c..c + L::N;
        let k =
            [L::load(&k[0][at.clone()]), L::load(&k[1][at.clone()]), L::load(&k[2][at.clone()]), L::load(&k[3][at])];
        prefetch::ask_to_read(x[c..].as_ptr());
        prefetch::ask_to_read(g[c..].as_ptr());
        prefetch::ask_to_write(y[c..].as_ptr());
        Y::put(f.eval(X::get::<L>(&g[c..c + L::N]), X::get(&x[c..c + L::N]), k), &mut y[c..c + L::N]);
    }
    if body < n {
        let k = [
            L::load_part(&k[0][body..]),
            L::load_part(&k[1][body..]),
            L::load_part(&k[2][body..]),
            L::load_part(&k[3][body..]),
        ];
        Y::put_part(f.eval(X::get_part::<L>(&g[body..]), X::get_part(&x[body..]), k), &mut y[body..]);
    }
}

struct SumChannels<'a, C, X, F> {
    f: F,
    g: &'a [X],
    x: &'a [X],
    k: &'a [C],
    sums: [&'a mut [C]; 2],
}

impl<C: Stored<C>, X: Stored<C>, F: Terms> Kernel<C> for SumChannels<'_, C, X, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(mut self) {
        let channels = self.k.len();
        let mut c = 0;
        // Two vectors at a time: one sum is a chain of additions, each of which waits for the one before.
        while c + 2 * L::N <= channels {
            self.columns::<L, 2>(c);
            c += 2 * L::N;
        }
        while c + L::N <= channels {
            self.columns::<L, 1>(c);
            c += L::N;
        }
        if c < channels {
            self.rest::<L>(c..channels);
        }
        // A last pixel that is cut off: only the elements that are there count.
        let whole = self.x.len() - self.x.len() % channels;
        (self.g, self.x) = (&self.g[whole..], &self.x[whole..]);
        let SumChannels { f, g, x, k, sums: [first, second] } = self;
        for c in (0..x.len()).step_by(L::N) {
            let at = c..x.len().min(c + L::N);
            let (a, b) = f.eval(X::get_part(&g[at.clone()]), X::get_part(&x[at.clone()]), L::load_part(&k[at.clone()]));
            (L::load_part(&first[at.clone()]) + a).store_part(&mut first[at.clone()]);
            (L::load_part(&second[at.clone()]) + b).store_part(&mut second[at]);
        }
    }
}

impl<C: Stored<C>, X: Stored<C>, F: Terms> SumChannels<'_, C, X, F> {
    /// The sums of less than a vector of channels, over all whole pixels.
    #[inline(always)]
    fn rest<L: Lanes<Elem = C>>(&mut self, at: std::ops::Range<usize>) {
        let SumChannels { f, g, x, k, sums: [first, second] } = self;
        let channels = k.len();
        let k = L::load_part(&k[at.clone()]);
        let mut sums = (L::load_part(&first[at.clone()]), L::load_part(&second[at.clone()]));
        for (g, x) in g.chunks_exact(channels).zip(x.chunks_exact(channels)) {
            let (a, b) = f.eval(X::get_part(&g[at.clone()]), X::get_part(&x[at.clone()]), k);
            sums = (sums.0 + a, sums.1 + b);
        }
        sums.0.store_part(&mut first[at.clone()]);
        sums.1.store_part(&mut second[at]);
    }

    /// The sums of K vectors of channels from `c` on, over all whole pixels.
    #[inline(always)]
    fn columns<L: Lanes<Elem = C>, const K: usize>(&mut self, c: usize) {
        let SumChannels { f, g, x, k, sums: [first, second] } = self;
        let channels = k.len();
        let mut sums = [[L::splat(0.0); 2]; K];
        let mut means = [L::splat(0.0); K];
        for i in 0..K {
            let at = c + i * L::N..c + (i + 1) * L::N;
            sums[i] = [L::load(&first[at.clone()]), L::load(&second[at.clone()])];
            means[i] = L::load(&k[at]);
        }
        for (g, x) in g.chunks_exact(channels).zip(x.chunks_exact(channels)) {
            let (g, x) = (&g[c..c + K * L::N], &x[c..c + K * L::N]);
            prefetch::ask_to_read(g.as_ptr());
            prefetch::ask_to_read(x.as_ptr());
            for i in 0..K {
                let at = i * L::N..(i + 1) * L::N;
                let (a, b) = f.eval(X::get::<L>(&g[at.clone()]), X::get(&x[at]), means[i]);
                sums[i] = [sums[i][0] + a, sums[i][1] + b];
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            let at = c + i * L::N..c + (i + 1) * L::N;
            sums[0].store(&mut first[at.clone()]);
            sums[1].store(&mut second[at]);
        }
    }
}

struct SumRows<'a, C, X> {
    from: &'a [X],
    ld: usize,
    rows: usize,
    to: &'a mut [C],
}

impl<C: Stored<C>, X: Stored<C>> Kernel<C> for SumRows<'_, C, X> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let SumRows { from, ld, rows, to } = self;
        let mut c = 0;
        // Several vectors at a time, as each sum is a chain of additions.
        while c + 4 * L::N <= to.len() {
            Self::columns::<L, 4>(&from[c..], ld, rows, &mut to[c..]);
            c += 4 * L::N;
        }
        while c + L::N <= to.len() {
            Self::columns::<L, 1>(&from[c..], ld, rows, &mut to[c..]);
            c += L::N;
        }
        if c < to.len() {
            let n = to.len() - c;
            let mut sum = L::splat(0.0);
            for i in 0..rows {
                sum = sum + X::get_part(&from[i * ld + c..][..n]);
            }
            sum.store_part(&mut to[c..]);
        }
    }
}

impl<C: Stored<C>, X: Stored<C>> SumRows<'_, C, X> {
    #[inline(always)]
    fn columns<L: Lanes<Elem = C>, const K: usize>(from: &[X], ld: usize, rows: usize, to: &mut [C]) {
        let mut sums = [L::splat(0.0); K];
        for i in 0..rows {
            let row = &from[i * ld..][..K * L::N];
            for (sum, x) in sums.iter_mut().zip(row.chunks_exact(L::N)) {
                *sum = *sum + X::get(x);
            }
        }
        for (sum, to) in sums.into_iter().zip(to.chunks_exact_mut(L::N)) {
            sum.store(to);
        }
    }
}

struct Flush<'a, C>(&'a mut [C], &'a mut [f64]);

impl<C: Compute> Kernel<C> for Flush<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        for (part, total) in self.0.iter_mut().zip(self.1) {
            *total += part.as_f64();
            *part = C::zero();
        }
    }
}

/// `y[i] = f(g[i], x[i], k[i % channels])`.
pub fn per_channel<C: Compute, F: PerChannel, X: Stored<C>, Y: Stored<C>>(
    isa: Isa,
    f: F,
    g: &[X],
    x: &[X],
    k: [&[C]; 4],
    y: &mut [Y],
) {
    C::dispatch(isa, MapChannels { f, g, x, k, y });
}

/// `sums[j][i % channels] += f(g[i], x[i], k[i % channels]).j`.
pub fn sum_channels<C: Compute, F: Terms, X: Stored<C>>(
    isa: Isa,
    f: F,
    g: &[X],
    x: &[X],
    k: &[C],
    sums: [&mut [C]; 2],
) {
    C::dispatch(isa, SumChannels { f, g, x, k, sums });
}

/// `to[j] = Σ_i from[i·ld + j]` for `i` below `rows`, in order.
pub fn sum_rows<C: Compute, X: Stored<C>>(isa: Isa, from: &[X], ld: usize, rows: usize, to: &mut [C]) {
    C::dispatch(isa, SumRows { from, ld, rows, to });
}

/// Adds partial sums to totals and clears them.
pub fn flush<C: Compute>(isa: Isa, parts: &mut [C], totals: &mut [f64]) {
    C::dispatch(isa, Flush(parts, totals));
}
