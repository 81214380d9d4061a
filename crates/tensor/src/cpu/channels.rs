//! Kernels whose coefficients repeat along memory: per channel in channels-last images, per feature in rows. A stretch with one
//! coefficient is the case of sixteen equal channels.

use super::operand::Compute;
use crate::simd::{Isa, Kernel, Lanes, dispatch, halves};

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

/// A row of a layer norm's gradient: `dx[i] = g·w·r − (x − m)·slope − shift`, `dw[i] += g·(x − m)·r`, `db[i] += g`.
pub struct RowBackward<'a, C> {
    /// Gradient.
    pub g: &'a [C],
    /// Input.
    pub x: &'a [C],
    /// Weight.
    pub w: &'a [C],
    /// Mean, 1/deviation, slope and shift.
    pub scalars: [f64; 4],
    /// Gradient by the input.
    pub dx: &'a mut [C],
    /// Sums by weight and bias.
    pub dw: &'a mut [C],
    /// As `dw`.
    pub db: &'a mut [C],
}

/// The types with these kernels.
pub trait Channelwise: Compute {
    /// `y[i] = f(g[i], x[i], k[i % channels])`.
    fn per_channel<F: PerChannel>(isa: Isa, f: F, g: &[Self], x: &[Self], k: [&[Self]; 4], y: &mut [Self]);
    /// `sums[j][i % channels] += f(g[i], x[i], k[i % channels]).j`.
    fn sum_channels<F: Terms>(isa: Isa, f: F, g: &[Self], x: &[Self], k: &[Self], sums: [&mut [Self]; 2]);
    /// `Σ g·w` and `Σ g·w·(x − m)`.
    fn row_sums(isa: Isa, g: &[Self], x: &[Self], w: &[Self], mean: Self) -> [Self; 2];
    /// See [`RowBackward`].
    fn row_backward(isa: Isa, row: RowBackward<'_, Self>);
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

struct MapChannels<'a, C, F> {
    f: F,
    g: &'a [C],
    x: &'a [C],
    k: [&'a [C]; 4],
    y: &'a mut [C],
}

impl<C: Copy + Default, F: PerChannel> MapChannels<'_, C, F> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) {
        let MapChannels { f, g, x, k, y } = self;
        let (zero, channels) = (C::default(), k[0].len());
        for ((g, x), y) in g.chunks(channels).zip(x.chunks(channels)).zip(y.chunks_mut(channels)) {
            let (n, k) = (y.len(), k.map(|k| &k[..y.len()]));
            let body = n - n % L::N;
            for c in (0..body).step_by(L::N) {
                let k = k.map(|k| L::load(&k[c..c + L::N]));
                f.eval(L::load(&g[c..c + L::N]), L::load(&x[c..c + L::N]), k).store(&mut y[c..c + L::N]);
            }
            if body < n {
                let value = f.eval(load::<L>(g, body, zero), load::<L>(x, body, zero), k.map(|k| load::<L>(k, body, zero)));
                store(value, y, body, zero);
            }
        }
    }
}

impl<F: PerChannel> Kernel for MapChannels<'_, f32, F> {
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

struct RowSums<'a, C>(&'a [C], &'a [C], &'a [C], C);

impl<C: Copy + Default + std::ops::AddAssign> RowSums<'_, C> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) -> [C; 2] {
        let RowSums(g, x, w, mean) = self;
        let (zero, mean) = (C::default(), L::broadcast(mean));
        let mut parts = [[L::splat(0.0); 2]; 16];
        let count = 16 / L::N;
        for at in (0..x.len()).step_by(16) {
            for (i, part) in parts.iter_mut().enumerate().take(count) {
                let at = at + i * L::N;
                // Beyond the end g is 0.
                let gw = load::<L>(g, at, zero) * load::<L>(w, at, zero);
                part[0] = part[0] + gw;
                part[1] = gw.mul_add(load::<L>(x, at, zero) - mean, part[1]);
            }
        }
        std::array::from_fn(|j| {
            let mut sums = [zero; 16];
            for (i, part) in parts.iter().enumerate().take(count) {
                part[j].store(&mut sums[i * L::N..(i + 1) * L::N]);
            }
            halves(&mut sums)
        })
    }
}

impl Kernel for RowSums<'_, f32> {
    type Output = [f32; 2];
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> [f32; 2] {
        self.run_on::<L>()
    }
}

impl<C: Copy + Default> RowBackward<'_, C> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(self) {
        let RowBackward { g, x, w, scalars, dx, dw, db } = self;
        let (zero, [mean, rstd, slope, shift]) = (C::default(), scalars.map(|s| L::splat(s)));
        let n = dx.len();
        let (g, x, w, dw, db) = (&g[..n], &x[..n], &w[..n], &mut dw[..n], &mut db[..n]);
        for at in (0..n).step_by(L::N) {
            let (g, centred) = (load::<L>(g, at, zero), load::<L>(x, at, zero) - mean);
            let out = g * load::<L>(w, at, zero) * rstd - (centred * slope + shift);
            store(out, dx, at, zero);
            let sum = (g * rstd).mul_add(centred, load::<L>(dw, at, zero));
            store(sum, dw, at, zero);
            store(load::<L>(db, at, zero) + g, db, at, zero);
        }
    }
}

impl Kernel for RowBackward<'_, f32> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        self.run_on::<L>();
    }
}

impl Channelwise for f32 {
    fn per_channel<F: PerChannel>(isa: Isa, f: F, g: &[f32], x: &[f32], k: [&[f32]; 4], y: &mut [f32]) {
        dispatch(isa, MapChannels { f, g, x, k, y });
    }
    fn sum_channels<F: Terms>(isa: Isa, f: F, g: &[f32], x: &[f32], k: &[f32], sums: [&mut [f32]; 2]) {
        dispatch(isa, SumChannels { f, g, x, k, sums });
    }
    fn row_sums(isa: Isa, g: &[f32], x: &[f32], w: &[f32], mean: f32) -> [f32; 2] {
        dispatch(isa, RowSums(g, x, w, mean))
    }
    fn row_backward(isa: Isa, row: RowBackward<'_, f32>) {
        dispatch(isa, row);
    }
}

impl Channelwise for f64 {
    fn per_channel<F: PerChannel>(_isa: Isa, f: F, g: &[f64], x: &[f64], k: [&[f64]; 4], y: &mut [f64]) {
        MapChannels { f, g, x, k, y }.run_on::<f64>();
    }
    fn sum_channels<F: Terms>(_isa: Isa, f: F, g: &[f64], x: &[f64], k: &[f64], sums: [&mut [f64]; 2]) {
        SumChannels { f, g, x, k, sums }.run_on::<f64>();
    }
    fn row_sums(_isa: Isa, g: &[f64], x: &[f64], w: &[f64], mean: f64) -> [f64; 2] {
        RowSums(g, x, w, mean).run_on::<f64>()
    }
    fn row_backward(_isa: Isa, row: RowBackward<'_, f64>) {
        row.run_on::<f64>();
    }
}
