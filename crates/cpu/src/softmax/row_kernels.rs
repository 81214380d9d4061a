//! Kernels of softmax over rows: of one row, and of rows in turn.

use num_traits::Float;

use crate::operand::Compute;
use crate::simd::{Isa, Kernel, Lanes, Map2, Stored, halves, prefetch};

/// `e^(x − max)`
#[derive(Clone, Copy)]
pub(crate) struct ExpDistance;

impl Map2 for ExpDistance {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L, max: L) -> L {
        (x - max).exp()
    }
}

/// `y·(g − dot)`
#[derive(Clone, Copy)]
pub(super) struct Slope(pub(super) f64);

impl Map2 for Slope {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, y: L) -> L {
        y * (g - L::splat(self.0))
    }
}

/// The larger; NaN wins.
#[inline(always)]
fn larger<C: Float>(a: C, b: C) -> C {
    if b > a || b.is_nan() { b } else { a }
}

/// The largest of 16.
#[inline(always)]
fn largest<C: Float>(mut parts: [C; 16]) -> C {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            parts[i] = larger(parts[i], parts[i + half]);
        }
    }
    parts[0]
}

/// The largest element; NaN wins.
struct Max<'a, X>(&'a [X]);

impl<C: Compute, X: Stored<C>> Kernel<C> for Max<'_, X> {
    type Output = C;
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> C {
        let x = self.0;
        let lowest = C::neg_infinity();
        let mut parts = [lowest; 16];
        if x.len() < L::N {
            X::get_part::<L>(x).store(&mut parts[..L::N]);
            return parts[..x.len()].iter().fold(lowest, |a, &b| larger(a, b));
        }
        // Interleaved maxima, so that the loop is not one chain.
        let mut best = [L::splat(f64::NEG_INFINITY); 4];
        let chunks = x.chunks_exact(4 * L::N);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (i, best) in best.iter_mut().enumerate() {
                *best = best.max(X::get(&chunk[i * L::N..(i + 1) * L::N]));
            }
        }
        for part in rest.chunks_exact(L::N) {
            best[0] = best[0].max(X::get(part));
        }
        // The last ones, some of them again.
        best[1] = best[1].max(X::get(&x[x.len() - L::N..]));
        best[0].max(best[1]).max(best[2].max(best[3])).store(&mut parts[..L::N]);
        largest(parts)
    }
}

/// `e^(x − max)` into `y`, and their sum over 16 interleaved parts.
struct ExpRow<'a, X, C>(&'a [X], C, &'a mut [C]);

impl<X: Stored<C>, C: Compute> Kernel<C> for ExpRow<'_, X, C> {
    type Output = C;
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> C {
        let ExpRow(x, max, y) = self;
        let (n, max, zero) = (y.len(), L::broadcast(max), C::zero());
        let mut parts = [L::splat(0.0); 16];
        let count = 16 / L::N;
        let body = n - n % 16;
        for (x, y) in x[..body].chunks_exact(16).zip(y[..body].chunks_exact_mut(16)) {
            for (i, part) in parts.iter_mut().enumerate().take(count) {
                let e = ExpDistance.eval(X::get::<L>(&x[i * L::N..(i + 1) * L::N]), max);
                e.store(&mut y[i * L::N..(i + 1) * L::N]);
                *part = *part + e;
            }
        }
        let mut sums = [zero; 16];
        for (i, part) in parts.iter().enumerate().take(count) {
            part.store(&mut sums[i * L::N..(i + 1) * L::N]);
        }
        let mut pad = [zero; 16];
        for at in (body..n).step_by(L::N) {
            let len = L::N.min(n - at);
            ExpDistance.eval(X::get_part::<L>(&x[at..at + len]), max).store(&mut pad[..L::N]);
            y[at..at + len].copy_from_slice(&pad[..len]);
            sums[at - body..].iter_mut().zip(&pad[..len]).for_each(|(s, &e)| *s += e);
        }
        halves(&mut sums)
    }
}

/// Multiplies in place.
struct Scale<'a, C>(C, &'a mut [C]);

impl<C: Compute> Kernel<C> for Scale<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let Scale(factor, x) = self;
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Three rows of a softmax at once, so that memory is read and written evenly all the time: the maximum of the one
/// ahead, the exponentials of this one, and the quotients of the last one, whose exponentials lie where this one's
/// will. Returns that maximum and this row's sum.
pub struct Turn<'a, C, X, Y> {
    pub(super) ahead: &'a [X],
    pub(super) here: &'a [X],
    pub(super) max: C,
    pub(super) exps: &'a mut [C],
    pub(super) inverse: C,
    pub(super) last: &'a mut [Y],
    /// Whether that is written past the caches.
    pub(super) past: bool,
}

impl<C: Compute, X: Stored<C>, Y: Stored<C>> Kernel<C> for Turn<'_, C, X, Y> {
    type Output = [C; 2];
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> [C; 2] {
        let Turn { ahead, here, max, exps, inverse, last, past } = self;
        let (max, inverse) = (L::broadcast(max), L::broadcast(inverse));
        let mut parts = [[L::splat(f64::NEG_INFINITY), L::splat(0.0)]; 16];
        let n = last.len();
        let (ahead, here, exps, body) = (&ahead[..n], &here[..n], &mut exps[..n], n - n % 16);
        let rows = ahead[..body].chunks_exact(16).zip(here[..body].chunks_exact(16));
        let chunks = rows.zip(exps[..body].chunks_exact_mut(16).zip(last[..body].chunks_exact_mut(16)));
        for ((ahead, here), (exps, last)) in chunks {
            prefetch::ask_to_read(ahead.as_ptr());
            if !past {
                prefetch::ask_to_write(last.as_ptr());
            }
            for (i, [most, sum]) in parts.iter_mut().enumerate().take(16 / L::N) {
                let at = i * L::N..(i + 1) * L::N;
                *most = most.max(X::get(&ahead[at.clone()]));
                Y::put_past(L::load(&exps[at.clone()]) * inverse, &mut last[at.clone()], past);
                let e = ExpDistance.eval(X::get::<L>(&here[at.clone()]), max);
                e.store(&mut exps[at]);
                *sum = *sum + e;
            }
        }
        let [mut most, mut sums] = [[C::neg_infinity(); 16], [C::zero(); 16]];
        for (i, part) in parts.iter().enumerate().take(16 / L::N) {
            let at = i * L::N..(i + 1) * L::N;
            part[0].store(&mut most[at.clone()]);
            part[1].store(&mut sums[at]);
        }
        let mut pad = [C::zero(); 16];
        for at in (body..n).step_by(L::N) {
            let part = at..n.min(at + L::N);
            let lanes = at - body..part.end - body;
            X::get_part::<L>(&ahead[part.clone()]).store(&mut pad[..L::N]);
            most[lanes.clone()].iter_mut().zip(&pad).for_each(|(m, &x)| *m = larger(*m, x));
            Y::put_part(L::load_part(&exps[part.clone()]) * inverse, &mut last[part.clone()]);
            ExpDistance.eval(X::get_part::<L>(&here[part.clone()]), max).store(&mut pad[..L::N]);
            sums[lanes].iter_mut().zip(&pad).for_each(|(s, &e)| *s += e);
            let len = part.len();
            exps[part].copy_from_slice(&pad[..len]);
        }
        [largest(most), halves(&mut sums)]
    }
}

/// Two rows of a softmax's gradient at once: `Σ g·y` of the row ahead as [`Real::dot`] has it, which is returned, and
/// `y·(g − dot)` of this one.
pub struct TurnBack<'a, C, X, Y> {
    pub(super) ahead: [&'a [X]; 2],
    pub(super) here: [&'a [X]; 2],
    pub(super) dot: C,
    pub(super) to: &'a mut [Y],
    /// Whether that is written past the caches.
    pub(super) past: bool,
}

impl<C: Compute, X: Stored<C>, Y: Stored<C>> Kernel<C> for TurnBack<'_, C, X, Y> {
    type Output = C;
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> C {
        let TurnBack { ahead, here, dot, to, past } = self;
        let (n, slope) = (to.len(), Slope(dot.as_f64()));
        let ([g_ahead, y_ahead], [g, y], body) = (ahead.map(|x| &x[..n]), here.map(|x| &x[..n]), n - n % 16);
        let mut parts = [L::splat(0.0); 16];
        let rows = g_ahead[..body].chunks_exact(16).zip(y_ahead[..body].chunks_exact(16));
        let chunks =
            rows.zip(g[..body].chunks_exact(16).zip(y[..body].chunks_exact(16)).zip(to[..body].chunks_exact_mut(16)));
        for ((g_ahead, y_ahead), ((g, y), to)) in chunks {
            prefetch::ask_to_read(g_ahead.as_ptr());
            prefetch::ask_to_read(y_ahead.as_ptr());
            if !past {
                prefetch::ask_to_write(to.as_ptr());
            }
            for (i, part) in parts.iter_mut().enumerate().take(16 / L::N) {
                let at = i * L::N..(i + 1) * L::N;
                *part = X::get::<L>(&g_ahead[at.clone()]).mul_add(X::get(&y_ahead[at.clone()]), *part);
                Y::put_past(slope.eval(X::get::<L>(&g[at.clone()]), X::get(&y[at.clone()])), &mut to[at], past);
            }
        }
        for (part, at) in parts.iter_mut().zip((body..n).step_by(L::N)) {
            let at = at..n.min(at + L::N);
            *part = X::get_part::<L>(&g_ahead[at.clone()]).mul_add(X::get_part(&y_ahead[at.clone()]), *part);
            Y::put_part(slope.eval(X::get_part::<L>(&g[at.clone()]), X::get_part(&y[at.clone()])), &mut to[at]);
        }
        let mut sums = [C::zero(); 16];
        for (i, part) in parts.iter().enumerate().take(16 / L::N) {
            part.store(&mut sums[i * L::N..(i + 1) * L::N]);
        }
        halves(&mut sums)
    }
}

/// The largest element; NaN wins.
pub fn row_max<C: Compute, X: Stored<C>>(isa: Isa, x: &[X]) -> C {
    C::dispatch(isa, Max(x))
}

/// `x ← x·factor`
pub fn scale<C: Compute>(isa: Isa, factor: C, x: &mut [C]) {
    C::dispatch(isa, Scale(factor, x));
}

/// `y = e^(x − max)`; returns Σ y.
pub fn row_exp<C: Compute, X: Stored<C>>(isa: Isa, x: &[X], max: C, y: &mut [C]) -> C {
    C::dispatch(isa, ExpRow(x, max, y))
}
