//! The one kernel under matrix products and convolutions: register tiles of `rows × columns` accumulated along an inner
//! dimension that is walked in [`Segment`]s, so that the taps of a convolution need no copies of their patches.
//!
//! Each element of the result is one chain of products along the segments in order, added to the accumulator at the
//! end: its bits depend neither on the tile's extents nor on the number of threads.

use super::depthwise::{Same, SameBackward, TapSums, Taps};
use super::narrow::Narrow;
pub use crate::simd::amx::{Row, Segment};
use crate::simd::{Isa, Kernel, Lanes, Real, Stored, dispatch, prefetch};

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

/// Columns per panel.
pub const fn width(lanes: usize) -> usize {
    lanes * if lanes == 1 { 8 } else { 2 }
}

/// Rows per register tile.
const fn height(lanes: usize) -> usize {
    match lanes {
        16 => 12,
        8 => 6,
        _ => 4,
    }
}

impl<'a, C: Copy> Block<'a, C> {
    #[inline(always)]
    fn run_on<L: Lanes<Elem = C>>(mut self) {
        if self.rows.is_empty() || self.columns == 0 {
            return;
        }
        let (width, last) = (width(L::N), (self.columns - 1) / width(L::N));
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
        // SAFETY: `run_on` checked that all rows, segments and panels lie inside the operands.
        unsafe {
            let a: [*const C; MR] =
                std::array::from_fn(|i| self.a.as_ptr().add(rows[if i < rows.len() { i } else { 0 }].a));
            let b = self.b.as_ptr().add(panel * self.panel);
            let mut acc = [[L::splat(0.0); NV]; MR];
            L::accumulate(&mut acc, &a, self.a_step, b, self.b_step, self.segments);
            for (row, acc) in rows.iter().zip(&acc) {
                for (j, &value) in acc.iter().enumerate() {
                    let at = row.acc + panel * width(L::N) + j * L::N;
                    let to = std::slice::from_raw_parts_mut(self.acc.as_mut_ptr().add(at), L::N);
                    if self.add { (L::load(to) + value).store(to) } else { value.store(to) }
                }
            }
        }
        rows.len()
    }
}

impl Kernel for Block<'_, f32> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        self.run_on::<L>();
    }
}

/// The types with a tile kernel.
pub trait Tile: super::norm::RowNorms + super::pool::Pooled + super::softmax::Rows {
    /// Columns per panel of `b`.
    fn width(isa: Isa) -> usize;
    /// Rows per register tile.
    fn height(isa: Isa) -> usize;
    /// Runs a block.
    fn block(isa: Isa, block: Block<'_, Self>);
    /// Numbers per vector.
    fn lanes(isa: Isa) -> usize;
    /// Runs a correlation with few output channels.
    fn narrow(isa: Isa, narrow: Narrow<'_, Self>);
    /// Runs the taps of a depthwise convolution.
    fn taps(isa: Isa, taps: Taps<'_, Self>);
    /// Runs the sums of its gradient by the weight.
    fn tap_sums(isa: Isa, sums: TapSums<'_, Self>);
    /// Runs rows of a 3 × 3 one with stride 1.
    fn same<X: Stored<Self>, Y: Stored<Self>>(isa: Isa, same: Same<'_, Self, X, Y>);
    /// Runs rows of its gradients.
    fn same_backward<X: Stored<Self>, Y: Stored<Self>>(isa: Isa, same: SameBackward<'_, Self, X, Y>);
    /// Interleaved sums of [`Tile::dots`].
    fn sums(isa: Isa) -> usize;
    /// `Σ_l x[i·ld_x + l]·w[j·ld_w + l]` for up to four rows of `x` and four of `w`.
    fn dots(isa: Isa, x: &[Self], ld_x: usize, rows: usize, w: &[Self], ld_w: usize, len: usize) -> [[Self; 4]; 4];
    /// `to[j·ld_to + i] = from[i·ld_from + j]` for `i < rows`, `j < columns`.
    fn transpose(isa: Isa, from: &[Self], ld_from: usize, rows: usize, columns: usize, to: &mut [Self], ld_to: usize);
}

fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Portable => 1,
        Isa::Avx2 => 8,
        Isa::Avx512 | Isa::Amx => 16,
    }
}

impl Tile for f32 {
    fn width(isa: Isa) -> usize {
        width(lanes(isa))
    }
    fn height(isa: Isa) -> usize {
        height(lanes(isa))
    }
    fn block(isa: Isa, block: Block<'_, f32>) {
        dispatch(isa, block);
    }
    fn lanes(isa: Isa) -> usize {
        lanes(isa)
    }
    fn narrow(isa: Isa, narrow: Narrow<'_, f32>) {
        dispatch(isa, narrow);
    }
    fn taps(isa: Isa, taps: Taps<'_, f32>) {
        dispatch(isa, taps);
    }
    fn tap_sums(isa: Isa, sums: TapSums<'_, f32>) {
        dispatch(isa, sums);
    }
    fn same<X: Stored<f32>, Y: Stored<f32>>(isa: Isa, same: Same<'_, f32, X, Y>) {
        dispatch(isa, same);
    }
    fn same_backward<X: Stored<f32>, Y: Stored<f32>>(isa: Isa, same: SameBackward<'_, f32, X, Y>) {
        dispatch(isa, same);
    }
    fn sums(isa: Isa) -> usize {
        lanes(isa)
    }
    fn dots(isa: Isa, x: &[f32], ld_x: usize, rows: usize, w: &[f32], ld_w: usize, len: usize) -> [[f32; 4]; 4] {
        dispatch(isa, Dots { x, ld_x, rows, w, ld_w, len })
    }
    fn transpose(isa: Isa, from: &[f32], ld_from: usize, rows: usize, columns: usize, to: &mut [f32], ld_to: usize) {
        dispatch(isa, Transpose { from, ld_from, rows, columns, to, ld_to });
    }
}

impl Tile for f64 {
    fn width(_isa: Isa) -> usize {
        width(1)
    }
    fn height(_isa: Isa) -> usize {
        height(1)
    }
    fn block(_isa: Isa, block: Block<'_, f64>) {
        block.run_on::<f64>();
    }
    fn lanes(_isa: Isa) -> usize {
        1
    }
    fn narrow(_isa: Isa, narrow: Narrow<'_, f64>) {
        narrow.run_on::<f64>();
    }
    fn taps(_isa: Isa, taps: Taps<'_, f64>) {
        taps.run_on::<f64>();
    }
    fn tap_sums(_isa: Isa, sums: TapSums<'_, f64>) {
        sums.run_on::<f64>();
    }
    fn same<X: Stored<f64>, Y: Stored<f64>>(_isa: Isa, same: Same<'_, f64, X, Y>) {
        same.run_on::<f64>();
    }
    fn same_backward<X: Stored<f64>, Y: Stored<f64>>(_isa: Isa, same: SameBackward<'_, f64, X, Y>) {
        same.run_on::<f64>();
    }
    fn sums(_isa: Isa) -> usize {
        16
    }
    fn dots(isa: Isa, x: &[f64], ld_x: usize, rows: usize, w: &[f64], ld_w: usize, len: usize) -> [[f64; 4]; 4] {
        let dot = |i: usize, j: usize| f64::dot(isa, &x[i * ld_x..][..len], &w[j * ld_w..][..len]);
        std::array::from_fn(|i| std::array::from_fn(|j| if i < rows { dot(i, j) } else { 0.0 }))
    }
    fn transpose(_isa: Isa, from: &[f64], ld_from: usize, rows: usize, columns: usize, to: &mut [f64], ld_to: usize) {
        for i in 0..rows {
            for j in 0..columns {
                to[j * ld_to + i] = from[i * ld_from + j];
            }
        }
    }
}

struct Transpose<'a> {
    from: &'a [f32],
    ld_from: usize,
    rows: usize,
    columns: usize,
    to: &'a mut [f32],
    ld_to: usize,
}

impl Kernel for Transpose<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
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

struct Dots<'a> {
    x: &'a [f32],
    ld_x: usize,
    rows: usize,
    w: &'a [f32],
    ld_w: usize,
    len: usize,
}

impl Dots<'_> {
    #[inline(always)]
    fn some_rows<L: Lanes<Elem = f32>, const M: usize>(&self) -> [[f32; 4]; 4] {
        let x: [&[f32]; M] = std::array::from_fn(|i| &self.x[i * self.ld_x..][..self.len]);
        let w: [&[f32]; 4] = std::array::from_fn(|j| &self.w[j * self.ld_w..][..self.len]);
        let mut acc = [[L::splat(0.0); 4]; M];
        let body = self.len - self.len % L::N;
        for l in (0..body).step_by(L::N) {
            let w: [L; 4] = std::array::from_fn(|j| L::load(&w[j][l..l + L::N]));
            for (acc, x) in acc.iter_mut().zip(&x) {
                let x = L::load(&x[l..l + L::N]);
                for (acc, &w) in acc.iter_mut().zip(&w) {
                    *acc = x.mul_add(w, *acc);
                }
            }
        }
        // The rest goes through the same instruction into the same sums.
        if body < self.len {
            let rest = |from: &[f32]| {
                let mut pad = [0.0; 16];
                pad[..from.len() - body].copy_from_slice(&from[body..]);
                L::load(&pad[..L::N])
            };
            let w: [L; 4] = std::array::from_fn(|j| rest(w[j]));
            for (acc, x) in acc.iter_mut().zip(&x) {
                let x = rest(x);
                for (acc, &w) in acc.iter_mut().zip(&w) {
                    *acc = x.mul_add(w, *acc);
                }
            }
        }
        let mut out = [[0.0; 4]; 4];
        for (out, acc) in out.iter_mut().zip(&acc) {
            for (out, acc) in out.iter_mut().zip(acc) {
                let mut sums = [0.0f32; 16];
                acc.store(&mut sums[..L::N]);
                *out = crate::simd::halves(&mut sums);
            }
        }
        out
    }
}

impl Kernel for Dots<'_> {
    type Output = [[f32; 4]; 4];
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> [[f32; 4]; 4] {
        match self.rows {
            1 => self.some_rows::<L, 1>(),
            2 => self.some_rows::<L, 2>(),
            3 => self.some_rows::<L, 3>(),
            _ => self.some_rows::<L, 4>(),
        }
    }
}
