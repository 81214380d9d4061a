//! Kernels of layer and RMS norm over rows. They work on a row and the one ahead at once: passes over one row after the
//! other would leave memory idle while they compute.

use crate::simd::{Kernel, Lanes, Stored, halves, prefetch};

/// Two rows of a layer norm at once, so that memory is read and written evenly: `((x − m)·r)·w + b` of this one, and
/// the sum of the one ahead, which is returned.
pub struct RowForward<'a, C, X, Y> {
    /// The row ahead.
    pub ahead: &'a [X],
    /// This row.
    pub x: &'a [X],
    /// Weight and bias.
    pub weights: [&'a [C]; 2],
    /// Mean and 1/deviation.
    pub scalars: [f64; 2],
    /// Results.
    pub y: &'a mut [Y],
    /// Whether they are written past the caches.
    pub past: bool,
}

/// Two rows of a layer norm's gradient at once. Of this one, `dx[i] = g·w·r − (x − m)·slope − shift`, `dw[i] += g·(x −
/// m)·r` and `db[i] += g`. Of the one ahead, the sums that slope and shift follow from ([`RowSums`]) are returned.
pub struct RowBackward<'a, C, G, X, Y> {
    /// Gradient and input of the row ahead.
    pub ahead: (&'a [G], &'a [X]),
    /// Its mean.
    pub mean_ahead: C,
    /// Gradient and input of this row.
    pub here: (&'a [G], &'a [X]),
    /// Mean, 1/deviation, slope and shift.
    pub scalars: [f64; 4],
    /// Weight.
    pub w: &'a [C],
    /// Gradient by the input.
    pub dx: &'a mut [Y],
    /// Whether that is written past the caches.
    pub past: bool,
    /// Sums by weight and bias.
    pub sums: [&'a mut [C]; 2],
}

/// `((x − m)·r)·w + b`
#[inline(always)]
pub(super) fn normalised<L: Lanes>(x: L, [mean, rstd]: [L; 2], [w, b]: [L; 2]) -> L {
    ((x - mean) * rstd).mul_add(w, b)
}

impl<C: Stored<C> + std::ops::AddAssign, X: Stored<C>, Y: Stored<C>> Kernel<C> for RowForward<'_, C, X, Y> {
    type Output = C;
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> C {
        let RowForward { ahead, x, weights: [w, b], scalars, y, past } = self;
        let (stats, n) = ([L::splat(scalars[0]), L::splat(scalars[1])], y.len());
        let (ahead, x, w, b, body) = (&ahead[..n], &x[..n], &w[..n], &b[..n], n - n % 16);
        let mut parts = [L::splat(0.0); 16];
        let rows = ahead[..body].chunks_exact(16).zip(x[..body].chunks_exact(16)).zip(y[..body].chunks_exact_mut(16));
        for (((ahead, x), y), (w, b)) in rows.zip(w[..body].chunks_exact(16).zip(b[..body].chunks_exact(16))) {
            prefetch::ask_to_read(ahead.as_ptr());
            if !past {
                prefetch::ask_to_write(y.as_ptr());
            }
            for (i, part) in parts.iter_mut().enumerate().take(16 / L::N) {
                let at = i * L::N..(i + 1) * L::N;
                *part = *part + X::get(&ahead[at.clone()]);
                let value =
                    normalised(X::get(&x[at.clone()]), stats, [L::load(&w[at.clone()]), L::load(&b[at.clone()])]);
                Y::put_past(value, &mut y[at], past);
            }
        }
        for (part, at) in parts.iter_mut().zip((body..n).step_by(L::N)) {
            let at = at..n.min(at + L::N);
            *part = *part + X::get_part(&ahead[at.clone()]);
            let value = normalised(
                X::get_part(&x[at.clone()]),
                stats,
                [L::load_part(&w[at.clone()]), L::load_part(&b[at.clone()])],
            );
            Y::put_part(value, &mut y[at]);
        }
        sum_of_parts(parts)
    }
}

/// The sum of 16 interleaved partial sums, of which vectors hold `16 / L::N`.
#[inline(always)]
fn sum_of_parts<L: Lanes>(parts: [L; 16]) -> L::Elem
where
    L::Elem: std::ops::AddAssign,
{
    let mut sums = [L::Elem::default(); 16];
    for (i, part) in parts.iter().enumerate().take(16 / L::N) {
        part.store(&mut sums[i * L::N..(i + 1) * L::N]);
    }
    halves(&mut sums)
}

/// `Σ g·w` and `Σ g·w·(x − m)`, of gradient, input, weight and mean.
pub struct RowSums<'a, C, G, X>(pub &'a [G], pub &'a [X], pub &'a [C], pub C);

impl<C: Stored<C> + std::ops::AddAssign, G: Stored<C>, X: Stored<C>> Kernel<C> for RowSums<'_, C, G, X> {
    type Output = [C; 2];
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> [C; 2] {
        let RowSums(g, x, w, mean) = self;
        let mean = L::broadcast(mean);
        let mut parts = [[L::splat(0.0); 16]; 2];
        let n = x.len().min(g.len()).min(w.len());
        let body = n - n % 16;
        for ((g, x), w) in g[..body].chunks_exact(16).zip(x[..body].chunks_exact(16)).zip(w[..body].chunks_exact(16)) {
            for i in 0..16 / L::N {
                let at = i * L::N..(i + 1) * L::N;
                row_terms(&mut parts, i, G::get(&g[at.clone()]), X::get(&x[at.clone()]), L::load(&w[at]), mean);
            }
        }
        for (i, at) in (body..n).step_by(L::N).enumerate() {
            // Beyond the end g is 0.
            let at = at..n.min(at + L::N);
            row_terms(
                &mut parts,
                i,
                G::get_part(&g[at.clone()]),
                X::get_part(&x[at.clone()]),
                L::load_part(&w[at]),
                mean,
            );
        }
        [sum_of_parts(parts[0]), sum_of_parts(parts[1])]
    }
}

/// Adds `g·w` and `g·w·(x − m)` to partial sums `i`.
#[inline(always)]
fn row_terms<L: Lanes>(parts: &mut [[L; 16]; 2], i: usize, g: L, x: L, w: L, mean: L) {
    let gw = g * w;
    parts[0][i] = parts[0][i] + gw;
    parts[1][i] = gw.mul_add(x - mean, parts[1][i]);
}

impl<C: Stored<C> + std::ops::AddAssign, G: Stored<C>, X: Stored<C>, Y: Stored<C>> Kernel<C>
    for RowBackward<'_, C, G, X, Y>
{
    type Output = [C; 2];
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> [C; 2] {
        let RowBackward { ahead, mean_ahead, here, scalars: [mean, rstd, slope, shift], w, dx, past, sums: [dw, db] } =
            self;
        let scalars = [L::splat(mean), L::splat(rstd), L::splat(-slope), L::splat(-shift)];
        let mean_ahead = L::broadcast(mean_ahead);
        let n = dx.len();
        let (g_ahead, x_ahead, g, x, body) = (&ahead.0[..n], &ahead.1[..n], &here.0[..n], &here.1[..n], n - n % 16);
        let (w, dw, db) = (&w[..n], &mut dw[..n], &mut db[..n]);
        let mut parts = [[L::splat(0.0); 16]; 2];
        let rows = g_ahead[..body].chunks_exact(16).zip(x_ahead[..body].chunks_exact(16));
        let rows =
            rows.zip(g[..body].chunks_exact(16).zip(x[..body].chunks_exact(16)).zip(dx[..body].chunks_exact_mut(16)));
        let sums = dw[..body].chunks_exact_mut(16).zip(db[..body].chunks_exact_mut(16));
        for (((g_ahead, x_ahead), ((g, x), dx)), (w, (dw, db))) in rows.zip(w[..body].chunks_exact(16).zip(sums)) {
            prefetch::ask_to_read(g_ahead.as_ptr());
            prefetch::ask_to_read(x_ahead.as_ptr());
            if !past {
                prefetch::ask_to_write(dx.as_ptr());
            }
            for i in 0..16 / L::N {
                let at = i * L::N..(i + 1) * L::N;
                let (w, mut sums) = (L::load(&w[at.clone()]), [L::load(&dw[at.clone()]), L::load(&db[at.clone()])]);
                row_terms(&mut parts, i, G::get(&g_ahead[at.clone()]), X::get(&x_ahead[at.clone()]), w, mean_ahead);
                let (g, x) = (G::get(&g[at.clone()]), X::get(&x[at.clone()]));
                Y::put_past(row_gradient(&mut sums, g, x, w, scalars), &mut dx[at.clone()], past);
                sums[0].store(&mut dw[at.clone()]);
                sums[1].store(&mut db[at]);
            }
        }
        for (i, at) in (body..n).step_by(L::N).enumerate() {
            let at = at..n.min(at + L::N);
            let (w, mut sums) =
                (L::load_part(&w[at.clone()]), [L::load_part(&dw[at.clone()]), L::load_part(&db[at.clone()])]);
            row_terms(
                &mut parts,
                i,
                G::get_part(&g_ahead[at.clone()]),
                X::get_part(&x_ahead[at.clone()]),
                w,
                mean_ahead,
            );
            let (g, x) = (G::get_part(&g[at.clone()]), X::get_part(&x[at.clone()]));
            Y::put_part(row_gradient(&mut sums, g, x, w, scalars), &mut dx[at.clone()]);
            sums[0].store_part(&mut dw[at.clone()]);
            sums[1].store_part(&mut db[at]);
        }
        [sum_of_parts(parts[0]), sum_of_parts(parts[1])]
    }
}

/// Adds to the sums by weight and bias, and returns the gradient by x. Slope and shift come negated.
#[inline(always)]
fn row_gradient<L: Lanes>(sums: &mut [L; 2], g: L, x: L, w: L, [mean, rstd, slope, shift]: [L; 4]) -> L {
    let (scaled, centred) = (g * rstd, x - mean);
    *sums = [scaled.mul_add(centred, sums[0]), sums[1] + g];
    scaled.mul_add(w, centred.mul_add(slope, shift))
}
