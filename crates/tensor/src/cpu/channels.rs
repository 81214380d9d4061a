//! Kernels whose coefficients repeat along memory: per channel in channels-last images, per feature in rows. A stretch with one
//! coefficient is the case of sixteen equal channels.

use super::operand::Compute;
use crate::simd::{Isa, Kernel, Lanes, Stored, dispatch, halves};

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

/// R rows of a layer norm's gradient: `dx[i] = g·w·r − (x − m)·slope − shift`, `dw[i] += g·(x − m)·r`, `db[i] += g`. The sums are
/// loaded and stored once for all rows, which are added in order.
pub struct RowsBackward<'a, C, X, Y, const R: usize> {
    /// Gradients.
    pub g: [&'a [X]; R],
    /// Inputs.
    pub x: [&'a [X]; R],
    /// Weight.
    pub w: &'a [C],
    /// Mean, 1/deviation, slope and shift.
    pub scalars: [[f64; 4]; R],
    /// Gradients by the inputs.
    pub dx: [&'a mut [Y]; R],
    /// Sums by weight and bias.
    pub dw: &'a mut [C],
    /// As `dw`.
    pub db: &'a mut [C],
}

/// The types with these kernels.
pub trait Channelwise: Compute {
    /// `y[i] = f(g[i], x[i], k[i % channels])`.
    fn per_channel<F: PerChannel, X: Stored<Self>, Y: Stored<Self>>(
        isa: Isa,
        f: F,
        g: &[X],
        x: &[X],
        k: [&[Self]; 4],
        y: &mut [Y],
    );
    /// `sums[j][i % channels] += f(g[i], x[i], k[i % channels]).j`.
    fn sum_channels<F: Terms>(isa: Isa, f: F, g: &[Self], x: &[Self], k: &[Self], sums: [&mut [Self]; 2]);
    /// `Σ g·w` and `Σ g·w·(x − m)`.
    fn row_sums<X: Stored<Self>>(isa: Isa, g: &[X], x: &[X], w: &[Self], mean: Self) -> [Self; 2];
    /// See [`RowsBackward`].
    fn rows_backward<X: Stored<Self>, Y: Stored<Self>, const R: usize>(isa: Isa, rows: RowsBackward<'_, Self, X, Y, R>);
}

/// The elements `at..at + N` of a stored type, and zeros beyond the end.
#[inline(always)]
fn get<L: Lanes, X: Stored<L::Elem>>(from: &[X], at: usize) -> L {
    if at + L::N <= from.len() { X::get(&from[at..at + L::N]) } else { X::get_part(&from[at.min(from.len())..]) }
}

/// Writes the elements `at..at + N` that are there.
#[inline(always)]
fn put<L: Lanes, Y: Stored<L::Elem>>(value: L, to: &mut [Y], at: usize) {
    if at + L::N <= to.len() { Y::put(value, &mut to[at..at + L::N]) } else { Y::put_part(value, &mut to[at..]) }
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

impl<C: Stored<C>, X: Stored<C>, Y: Stored<C>, F: PerChannel> MapChannels<'_, C, X, Y, F> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) {
        let MapChannels { f, g, x, k, y } = self;
        let channels = k[0].len();
        for ((g, x), y) in g.chunks(channels).zip(x.chunks(channels)).zip(y.chunks_mut(channels)) {
            let (n, k) = (y.len(), k.map(|k| &k[..y.len()]));
            let body = n - n % L::N;
            for c in (0..body).step_by(L::N) {
                let k = k.map(|k| L::load(&k[c..c + L::N]));
                Y::put(f.eval(X::get::<L>(&g[c..c + L::N]), X::get(&x[c..c + L::N]), k), &mut y[c..c + L::N]);
            }
            if body < n {
                put(f.eval(get::<L, X>(g, body), get(x, body), k.map(|k| get(k, body))), y, body);
            }
        }
    }
}

impl<X: Stored<f32>, Y: Stored<f32>, F: PerChannel> Kernel for MapChannels<'_, f32, X, Y, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        self.run_on::<L>();
    }
}

struct SumChannels<'a, C, F> {
    f: F,
    g: &'a [C],
    x: &'a [C],
    k: &'a [C],
    sums: [&'a mut [C]; 2],
}

impl<C: Copy + Default, F: Terms> SumChannels<'_, C, F> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) {
        let SumChannels { f, g, x, k, sums: [first, second] } = self;
        let (zero, channels) = (C::default(), k.len());
        let (pixels, rest) = (x.len() / channels, x.len() % channels);
        for c in (0..channels).step_by(L::N) {
            let mut sums = (load::<L>(first, c, zero), load::<L>(second, c, zero));
            let kc = load::<L>(k, c, zero);
            if c + L::N <= channels {
                for pixel in 0..pixels {
                    let at = pixel * channels + c;
                    let (a, b) = f.eval(L::load(&g[at..at + L::N]), L::load(&x[at..at + L::N]), kc);
                    sums = (sums.0 + a, sums.1 + b);
                }
            } else {
                for pixel in 0..pixels {
                    let (g, x) = (&g[pixel * channels..][..channels], &x[pixel * channels..][..channels]);
                    let (a, b) = f.eval(load::<L>(g, c, zero), load::<L>(x, c, zero), kc);
                    sums = (sums.0 + a, sums.1 + b);
                }
            }
            store(sums.0, first, c, zero);
            store(sums.1, second, c, zero);
        }
        // A last pixel that is cut off: only the elements that are there count.
        let (g, x) = (&g[pixels * channels..], &x[pixels * channels..]);
        for c in (0..rest).step_by(L::N) {
            let n = L::N.min(rest - c);
            let (a, b) = f.eval(load::<L>(g, c, zero), load::<L>(x, c, zero), load::<L>(&k[..c + n], c, zero));
            for (sum, term) in [(&mut *first, a), (&mut *second, b)] {
                let total = load::<L>(&sum[..c + n], c, zero) + term;
                store(total, &mut sum[..c + n], c, zero);
            }
        }
    }
}

impl<F: Terms> Kernel for SumChannels<'_, f32, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        self.run_on::<L>();
    }
}

struct RowSums<'a, C, X>(&'a [X], &'a [X], &'a [C], C);

impl<C: Stored<C> + std::ops::AddAssign, X: Stored<C>> RowSums<'_, C, X> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) -> [C; 2] {
        let RowSums(g, x, w, mean) = self;
        let mean = L::broadcast(mean);
        let mut parts = [[L::splat(0.0); 2]; 16];
        let count = 16 / L::N;
        for at in (0..x.len()).step_by(16) {
            for (i, part) in parts.iter_mut().enumerate().take(count) {
                let at = at + i * L::N;
                // Beyond the end g is 0.
                let gw = get::<L, X>(g, at) * get::<L, C>(w, at);
                part[0] = part[0] + gw;
                part[1] = gw.mul_add(get::<L, X>(x, at) - mean, part[1]);
            }
        }
        std::array::from_fn(|j| {
            let mut sums = [C::default(); 16];
            for (i, part) in parts.iter().enumerate().take(count) {
                part[j].store(&mut sums[i * L::N..(i + 1) * L::N]);
            }
            halves(&mut sums)
        })
    }
}

impl<X: Stored<f32>> Kernel for RowSums<'_, f32, X> {
    type Output = [f32; 2];
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> [f32; 2] {
        self.run_on::<L>()
    }
}

impl<C: Stored<C>, X: Stored<C>, Y: Stored<C>, const R: usize> RowsBackward<'_, C, X, Y, R> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) {
        let RowsBackward { g, x, w, scalars, dx, dw, db } = self;
        let scalars = scalars.map(|row| row.map(|s| L::splat(s)));
        let n = w.len();
        let (g, x) = (g.map(|g| &g[..n]), x.map(|x| &x[..n]));
        let (dw, db) = (&mut dw[..n], &mut db[..n]);
        for at in (0..n).step_by(L::N) {
            let (w, mut sum, mut product) = (get::<L, C>(w, at), get::<L, C>(db, at), get::<L, C>(dw, at));
            for r in 0..R {
                let [mean, rstd, slope, shift] = scalars[r];
                let (g, centred) = (get::<L, X>(g[r], at), get::<L, X>(x[r], at) - mean);
                put(g * w * rstd - (centred * slope + shift), dx[r], at);
                product = (g * rstd).mul_add(centred, product);
                sum = sum + g;
            }
            put(product, dw, at);
            put(sum, db, at);
        }
    }
}

impl<X: Stored<f32>, Y: Stored<f32>, const R: usize> Kernel for RowsBackward<'_, f32, X, Y, R> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        self.run_on::<L>();
    }
}

impl Channelwise for f32 {
    fn per_channel<F: PerChannel, X: Stored<f32>, Y: Stored<f32>>(isa: Isa, f: F, g: &[X], x: &[X], k: [&[f32]; 4], y: &mut [Y]) {
        dispatch(isa, MapChannels { f, g, x, k, y });
    }
    fn sum_channels<F: Terms>(isa: Isa, f: F, g: &[f32], x: &[f32], k: &[f32], sums: [&mut [f32]; 2]) {
        dispatch(isa, SumChannels { f, g, x, k, sums });
    }
    fn row_sums<X: Stored<f32>>(isa: Isa, g: &[X], x: &[X], w: &[f32], mean: f32) -> [f32; 2] {
        dispatch(isa, RowSums(g, x, w, mean))
    }
    fn rows_backward<X: Stored<f32>, Y: Stored<f32>, const R: usize>(isa: Isa, rows: RowsBackward<'_, f32, X, Y, R>) {
        dispatch(isa, rows);
    }
}

impl Channelwise for f64 {
    fn per_channel<F: PerChannel, X: Stored<f64>, Y: Stored<f64>>(
        _isa: Isa,
        f: F,
        g: &[X],
        x: &[X],
        k: [&[f64]; 4],
        y: &mut [Y],
    ) {
        MapChannels { f, g, x, k, y }.run_on::<f64>();
    }
    fn sum_channels<F: Terms>(_isa: Isa, f: F, g: &[f64], x: &[f64], k: &[f64], sums: [&mut [f64]; 2]) {
        SumChannels { f, g, x, k, sums }.run_on::<f64>();
    }
    fn row_sums<X: Stored<f64>>(_isa: Isa, g: &[X], x: &[X], w: &[f64], mean: f64) -> [f64; 2] {
        RowSums(g, x, w, mean).run_on::<f64>()
    }
    fn rows_backward<X: Stored<f64>, Y: Stored<f64>, const R: usize>(_isa: Isa, rows: RowsBackward<'_, f64, X, Y, R>) {
        rows.run_on::<f64>();
    }
}
