//! The one kernel under matrix products and convolutions: register tiles of `rows × columns`, accumulated along an
//! inner dimension. That is walked in [`Segment`]s, so that the taps of a convolution need no copies of their patches.
//!
//! Each element of the result is one chain of products along the segments in order, added to the accumulator at the
//! end: its bits depend neither on the tile's extents nor on the number of threads.

use super::operand::Compute;
pub use crate::simd::amx::{Row, Segment};
use crate::simd::{Isa, Kernel, Lanes, Stored, prefetch};
use binade_tensor::DType;

/// `acc[row.acc + j] (+)= Σ_segments Σ_l a[row.a + segment.a + l·a_step] · b[panel(j) + segment.b + l·b_step + j %
/// width]`.
pub struct Block<'a, C> {
    /// Left operand.
    pub a: &'a [C],
    /// Distance in `a` of neighbours along the inner dimension.
    pub a_step: usize,
    /// Rows.
    pub rows: &'a [Row],
    /// Right operand: panels of [`width`] columns.
    pub b: &'a [C],
    /// Distance in `b` of neighbours along the inner dimension.
    pub b_step: usize,
    /// Distance in `b` of neighbouring panels.
    pub panel: usize,
    /// Columns. The accumulator's rows and the last panel must have room for a multiple of [`width`].
    pub columns: usize,
    /// The inner dimension.
    pub segments: &'a [Segment],
    /// Accumulator.
    pub acc: &'a mut [C],
    /// Whether to add to the accumulator, or to overwrite it.
    pub add: bool,
}

/// Columns per panel of [`Block::b`].
pub fn width<C: Compute>(isa: Isa) -> usize {
    columns_of(C::lanes(isa))
}

/// Rows per register tile.
pub fn height<C: Compute>(isa: Isa) -> usize {
    match C::lanes(isa) {
        16 => 12,
        8 => 6,
        _ => 4,
    }
}

/// Columns per panel for vectors of so many lanes.
const fn columns_of(lanes: usize) -> usize {
    lanes * if lanes == 1 { 8 } else { 2 }
}

impl<C: Compute> Kernel<C> for Block<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(mut self) {
        if self.rows.is_empty() || self.columns == 0 {
            return;
        }
        let (width, last) = (columns_of(L::N), (self.columns - 1) / columns_of(L::N));
        let end = |place: fn(&Segment) -> usize, step: usize| {
            self.segments.iter().filter(|s| s.len > 0).map(|s| place(s) + (s.len - 1) * step).max()
        };
        if let (Some(a), Some(b)) = (end(|s| s.a, self.a_step), end(|s| s.b, self.b_step)) {
            assert!(self.rows.iter().all(|r| r.a + a < self.a.len()), "left operand too short");
            assert!(last * self.panel + b + width <= self.b.len(), "right operand too short");
        }
        assert!(self.rows.iter().all(|r| r.acc + (last + 1) * width <= self.acc.len()), "accumulator too short");
        for panel in 0..=last {
            let narrow = L::N > 1 && self.columns - panel * width <= L::N;
            let mut rows = self.rows;
            let next = if panel < last && self.b_step == width { self.stretch(panel + 1) } else { &[] };
            let mut asked = 0;
            while !rows.is_empty() {
                // SAFETY: every index of the rows, segments and panels was checked above.
                let done = unsafe {
                    match (L::N, narrow) {
                        (16, false) => self.some_rows::<L, 12, 2>(rows, panel),
                        (16, true) => self.some_rows::<L, 12, 1>(rows, panel),
                        (8, false) => self.some_rows::<L, 6, 2>(rows, panel),
                        (8, true) => self.some_rows::<L, 6, 1>(rows, panel),
                        _ => self.some_rows::<L, 4, 8>(rows, panel),
                    }
                };
                rows = &rows[done..];
                // The next panel comes from far away, and the first tile over it would wait for it.
                let until = next.len() * (self.rows.len() - rows.len()) / self.rows.len();
                next[asked..until]
                    .chunks(64 / size_of::<C>())
                    .for_each(|line| prefetch::ask_later(line.as_ptr().addr(), false));
                asked = until;
            }
        }
    }
}

impl<'a, C: Compute> Block<'a, C> {
    /// The part of a dense panel that is used, if it lies in one piece and several tiles of rows are to come.
    fn stretch(&self, panel: usize) -> &'a [C] {
        match self.segments {
            [Segment { b, len, .. }] if self.rows.len() >= 32 => {
                self.b.get(panel * self.panel + b..panel * self.panel + b + len * self.b_step).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// A tile of `MR` rows, or one of fewer where fewer are left. Returns how many rows it did.
    #[inline(always)]
    unsafe fn some_rows<L: Lanes<Elem = C>, const MR: usize, const NV: usize>(
        &mut self,
        rows: &[Row],
        panel: usize,
    ) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            if rows.len() >= MR || 2 * rows.len() > MR {
                self.tile::<L, MR, NV>(&rows[..rows.len().min(MR)], panel)
            } else if 3 * rows.len() > MR || MR < 6 {
                match MR {
                    12 => self.tile::<L, 6, NV>(rows, panel),
                    6 => self.tile::<L, 3, NV>(rows, panel),
                    _ => self.tile::<L, 2, NV>(rows, panel),
                }
            } else {
                match MR {
                    12 => self.tile::<L, 4, NV>(&rows[..rows.len().min(4)], panel),
                    _ => self.tile::<L, 2, NV>(&rows[..rows.len().min(2)], panel),
                }
            }
        }
    }

    /// Tiles with fewer rows than `MR` compute the first one several times.
    #[inline(always)]
    unsafe fn tile<L: Lanes<Elem = C>, const MR: usize, const NV: usize>(
        &mut self,
        rows: &[Row],
        panel: usize,
    ) -> usize {
        // SAFETY: `run` checked that all rows, segments and panels lie inside the operands.
        unsafe {
            let a: [*const C; MR] =
                std::array::from_fn(|i| self.a.as_ptr().add(rows[if i < rows.len() { i } else { 0 }].a));
            let b = self.b.as_ptr().add(panel * self.panel);
            let mut acc = [[L::splat(0.0); NV]; MR];
            L::accumulate(&mut acc, &a, self.a_step, b, self.b_step, self.segments);
            for (row, acc) in rows.iter().zip(&acc) {
                for (j, &value) in acc.iter().enumerate() {
                    let at = row.acc + panel * columns_of(L::N) + j * L::N;
                    let to = std::slice::from_raw_parts_mut(self.acc.as_mut_ptr().add(at), L::N);
                    if self.add { (L::load(to) + value).store(to) } else { value.store(to) }
                }
            }
        }
        rows.len()
    }
}

/// Interleaved sums of [`dots`].
pub fn sums<C: Compute>(isa: Isa) -> usize {
    if C::DTYPE == DType::F64 { 16 } else { C::lanes(isa) }
}

/// `Σ_l x[i·ld_x + l]·w[j·ld_w + l]` for up to four rows of `x` and as many of `w` as it has, up to four. What lies
/// behind those is asked for.
pub fn dots<C: Compute, W: Stored<C>>(
    isa: Isa,
    x: &[C],
    ld_x: usize,
    rows: usize,
    w: &[W],
    ld_w: usize,
    len: usize,
) -> [[C; 4]; 4] {
    if C::DTYPE == DType::F64 {
        // Where vectors hold one number, interleaved sums are faster and closer.
        let dot = |i: usize, j: usize| C::dot(isa, &x[i * ld_x..][..len], &w[j * ld_w..][..len]);
        let there = |j: usize| j * ld_w + len <= w.len();
        return std::array::from_fn(|i| {
            std::array::from_fn(|j| if i < rows && there(j) { dot(i, j) } else { C::zero() })
        });
    }
    C::dispatch(isa, Dots { x, ld_x, rows, w, ld_w, len })
}

/// `to[j·ld_to + i] = from[i·ld_from + j]` for `i < rows`, `j < columns`.
pub fn transpose<C: Compute>(
    isa: Isa,
    from: &[C],
    ld_from: usize,
    rows: usize,
    columns: usize,
    to: &mut [C],
    ld_to: usize,
) {
    C::dispatch(isa, Transpose { from, ld_from, rows, columns, to, ld_to });
}

struct Transpose<'a, C> {
    from: &'a [C],
    ld_from: usize,
    rows: usize,
    columns: usize,
    to: &'a mut [C],
    ld_to: usize,
}

impl<C: Compute> Kernel<C> for Transpose<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) {
        let Transpose { from, ld_from, rows, columns, to, ld_to } = self;
        let n = L::N;
        let (full_rows, full_columns) = (rows - rows % n, columns - columns % n);
        for j in (0..full_columns).step_by(n) {
            for i in (0..full_rows).step_by(n) {
                L::transpose(&from[i * ld_from + j..], ld_from, &mut to[j * ld_to + i..], ld_to);
            }
        }
        let mut rest = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
            for i in rows {
                for j in columns.clone() {
                    to[j * ld_to + i] = from[i * ld_from + j];
                }
            }
        };
        rest(full_rows..rows, 0..columns);
        rest(0..full_rows, full_columns..columns);
    }
}

struct Dots<'a, C, W> {
    x: &'a [C],
    ld_x: usize,
    rows: usize,
    w: &'a [W],
    ld_w: usize,
    len: usize,
}

/// Bytes of the right operand that are asked for before they are read.
const BYTES_AHEAD: usize = 4096;

impl<C: Compute, W: Stored<C>> Dots<'_, C, W> {
    #[inline(always)]
    fn some_rows<L: Lanes<Elem = C>, const M: usize>(&self) -> [[C; 4]; 4] {
        let x: [&[C]; M] = std::array::from_fn(|i| &self.x[i * self.ld_x..][..self.len]);
        // Rows that are not there are the last that is, whose results nobody takes.
        let last = (self.w.len() - self.len) / self.ld_w.max(1);
        let w: [&[W]; 4] = std::array::from_fn(|j| &self.w[j.min(last) * self.ld_w..][..self.len]);
        let mut acc = [[L::splat(0.0); 4]; M];
        let body = self.len - self.len % L::N;
        for l in (0..body).step_by(L::N) {
            let mut columns = [L::splat(0.0); 4];
            for (column, w) in columns.iter_mut().zip(&w) {
                prefetch::ask_line(w.as_ptr().wrapping_add(l + BYTES_AHEAD / size_of::<W>()));
                *column = W::get(&w[l..l + L::N]);
            }
            for (acc, x) in acc.iter_mut().zip(&x) {
                let x = L::load(&x[l..l + L::N]);
                for (acc, &w) in acc.iter_mut().zip(&columns) {
                    *acc = x.mul_add(w, *acc);
                }
            }
        }
        // The rest goes through the same instruction into the same sums.
        if body < self.len {
            let mut columns = [L::splat(0.0); 4];
            for (column, w) in columns.iter_mut().zip(&w) {
                *column = W::get_part(&w[body..]);
            }
            for (acc, x) in acc.iter_mut().zip(&x) {
                let x = L::load_part(&x[body..]);
                for (acc, &w) in acc.iter_mut().zip(&columns) {
                    *acc = x.mul_add(w, *acc);
                }
            }
        }
        let mut out = [[C::zero(); 4]; 4];
        for (out, acc) in out.iter_mut().zip(&acc) {
            for (out, acc) in out.iter_mut().zip(acc) {
                let mut sums = [C::zero(); 16];
                acc.store(&mut sums[..L::N]);
                *out = crate::simd::halves(&mut sums);
            }
        }
        out
    }
}

impl<C: Compute, W: Stored<C>> Kernel<C> for Dots<'_, C, W> {
    type Output = [[C; 4]; 4];
    #[inline(always)]
    fn run<L: Lanes<Elem = C>>(self) -> [[C; 4]; 4] {
        match self.rows {
            1 => self.some_rows::<L, 1>(),
            2 => self.some_rows::<L, 2>(),
            3 => self.some_rows::<L, 3>(),
            _ => self.some_rows::<L, 4>(),
        }
    }
}
