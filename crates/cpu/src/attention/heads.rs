//! The kernels of one head, on tiles of queries and keys.

use crate::kernel::{Context, In};
use smallvec::SmallVec;

use super::rows::{AskRows, Rows, store};
use super::slopes::{ExpMinus, ScoreSlope, TimesZero};
use super::{AHEAD, Geometry, KEYS, Mask, QUERIES};
use crate::gemm::workspace;
use crate::operand::{Compute, Operand, exp, ln};
use crate::simd::prefetch;
use crate::softmax::{row_exp, row_max, scale};
use crate::tile::{self, Block, Row, Segment};
use binade_tensor::op::Attention;
use binade_tensor::{DType, Result};

/// A matrix of one head: rows `ld` apart, padded with zeros to whole panels.
#[derive(Clone, Copy)]
struct Matrix<'a, C> {
    data: &'a [C],
    ld: usize,
}

/// Panels of a right operand.
#[derive(Clone, Copy)]
struct Panels<'a, C> {
    data: &'a [C],
    step: usize,
    panel: usize,
}

/// Scratch of one task, cut into pieces.
struct Room<'a, C>(&'a mut [C]);

impl<'a, C> Room<'a, C> {
    fn take(&mut self, n: usize) -> &'a mut [C] {
        let (piece, rest) = std::mem::take(&mut self.0).split_at_mut(n);
        self.0 = rest;
        piece
    }
}

/// What is the same for all heads.
pub(super) struct Heads<'a> {
    cx: Context<'a>,
    pub(super) g: Geometry,
    mask: Option<Mask<'a>>,
}

impl<'a> Heads<'a> {
    /// Of the inputs from q on.
    pub(super) fn new(cx: Context<'a>, attention: &Attention, ins: &[In<'a>]) -> Heads<'a> {
        Heads { cx, g: Geometry::new(attention, ins), mask: Mask::new(attention, ins) }
    }
}

impl Heads<'_> {
    /// Queries per tile.
    fn queries(&self) -> usize {
        if self.g.t < 2 * QUERIES { self.g.t } else { QUERIES }
    }

    fn padded<C: Compute>(&self, columns: usize) -> usize {
        columns.next_multiple_of(tile::width::<C>(self.cx.isa))
    }

    /// Numbers in a tile of scores.
    fn tile<C: Compute>(&self) -> usize {
        self.queries() * self.padded::<C>(KEYS.min(self.g.s))
    }

    fn read<'r, C: Compute>(
        &self,
        room: &mut Room<'r, C>,
        x: &Operand<'_>,
        head: usize,
        [rows, columns]: [usize; 2],
    ) -> Matrix<'r, C> {
        let ld = self.padded::<C>(columns);
        let to = room.take(rows * ld);
        let start = head * rows * columns;
        let even = x.even_rows(start, rows, columns);
        let values = x.values();
        for (i, row) in to.chunks_mut(ld.max(1)).enumerate() {
            row[columns..].fill(C::zero());
            match even {
                Some((first, distance)) => {
                    let (at, size) = (first + i * distance, values.size());
                    if i + AHEAD < rows {
                        prefetch::ask(values.bytes, (at + AHEAD * distance) * size, columns * size);
                    }
                    values.load(self.cx.isa, at, 1, &mut row[..columns]);
                }
                None => x.load(self.cx.isa, start + i * columns, &mut row[..columns]),
            }
        }
        Matrix { data: to, ld }
    }

    /// The right operand whose columns are the rows of a matrix with so many columns.
    fn turned<'r, C: Compute>(
        &self,
        room: &mut Room<'r, C>,
        x: Matrix<'_, C>,
        [rows, columns]: [usize; 2],
    ) -> Panels<'r, C> {
        let width = tile::width::<C>(self.cx.isa);
        let panel = width * columns;
        let to = room.take(rows.div_ceil(width) * panel);
        for (p, to) in to.chunks_mut(panel.max(1)).enumerate() {
            let rows = width.min(rows - p * width);
            if rows < width {
                to.fill(C::zero());
            }
            tile::transpose(self.cx.isa, &x.data[p * width * x.ld..], x.ld, rows, columns, to, width);
        }
        Panels { data: to, step: width, panel }
    }

    /// The right operand whose inner dimension is the rows of a matrix from `first` on.
    fn upright<'r, C: Compute>(&self, x: Matrix<'r, C>, first: usize) -> Panels<'r, C> {
        Panels { data: &x.data[first * x.ld..], step: x.ld, panel: tile::width::<C>(self.cx.isa) }
    }

    /// `acc[i·ld + j] (+)= Σ_l a[i·row + l·step]·b[l, j]` for `l` below `len`.
    fn multiply<C: Compute>(
        &self,
        a: &[C],
        [row, step]: [usize; 2],
        [rows, len, columns]: [usize; 3],
        b: Panels<'_, C>,
        acc: &mut [C],
        ld: usize,
        add: bool,
    ) {
        let rows: SmallVec<[Row; KEYS]> = (0..rows).map(|i| Row { a: i * row, acc: i * ld }).collect();
        let segments = &[Segment { a: 0, b: 0, len }];
        let Panels { data: b, step: b_step, panel } = b;
        C::dispatch(self.cx.isa, Block { a, a_step: step, rows: &rows, b, b_step, panel, columns, segments, acc, add });
    }

    /// Whether all numbers of some rows are finite. Else a product with the weight 0 of a hidden key may be NaN.
    fn is_finite<C: Compute>(&self, x: Matrix<'_, C>, rows: usize) -> bool {
        C::sum(self.cx.isa, TimesZero, &x.data[..rows * x.ld], C::zero()) == C::zero()
    }

    /// As [`Heads::multiply`], which is faster, without the products of hidden keys: `seen(i, l)` tells which count.
    fn multiply_seen<C: Compute>(
        &self,
        a: &[C],
        [row, step]: [usize; 2],
        [rows, len, columns]: [usize; 3],
        b: Panels<'_, C>,
        acc: &mut [C],
        ld: usize,
        add: bool,
        seen: impl Fn(usize, usize) -> bool,
    ) {
        for (i, acc) in acc.chunks_mut(ld).enumerate().take(rows) {
            let acc = &mut acc[..columns];
            if !add {
                acc.fill(C::zero());
            }
            for l in (0..len).filter(|&l| seen(i, l)) {
                let weight = a[i * row + l * step];
                acc.iter_mut().zip(&b.data[l * b.step..]).for_each(|(acc, &b)| *acc += weight * b);
            }
        }
    }

    /// Scores of a tile, scaled and masked, with hidden positions at −∞; so are those that pad rows to `ld`.
    fn scores<C: Compute>(
        &self,
        head: usize,
        q: Matrix<'_, C>,
        [first, rows]: [usize; 2],
        k: Panels<'_, C>,
        [key, keys]: [usize; 2],
        to: &mut [C],
        ld: usize,
    ) {
        let (isa, g) = (self.cx.isa, &self.g);
        let k = Panels { data: &k.data[key / tile::width::<C>(isa) * k.panel..], ..k };
        self.multiply(&q.data[first * q.ld..], [q.ld, 1], [rows, g.d, keys], k, to, ld, false);
        let to = &mut to[..rows * ld];
        scale(isa, C::from_f64(g.scale), to);
        for (i, row) in to.chunks_exact_mut(ld).enumerate() {
            if let Some(mask) = &self.mask {
                mask.apply(isa, g, head, first + i, key, &mut row[..keys]);
            }
            let seen = if g.causal { (first + i + 1).saturating_sub(key).min(keys) } else { keys };
            row[seen..].fill(C::neg_infinity());
        }
    }

    pub(super) fn forward<C: Compute>(
        &self,
        head: usize,
        [q, k, v]: &[Operand<'_>; 3],
        mut out: Rows<'_>,
        dtype: DType,
        lse: &mut [C],
    ) -> Result<()> {
        let (isa, g, kv, queries) = (self.cx.isa, &self.g, self.g.key_head(head), self.queries());
        let [ld_d, ld_e] = [g.d, g.e].map(|n| self.padded::<C>(n));
        let keys_read = g.s * (ld_d + ld_e) + self.padded::<C>(g.s) * g.d;
        let mut scratch = workspace::<C>(self.cx.pool, g.t * ld_d + keys_read + 2 * self.tile::<C>() + queries * ld_e)?;
        let mut room = Room(scratch.as_mut_slice::<C>());
        let q = self.read(&mut room, q, head, [g.t, g.d]);
        let k = self.read(&mut room, k, kv, [g.s, g.d]);
        let v = self.read(&mut room, v, kv, [g.s, g.e]);
        let finite = self.is_finite(q, g.t) && self.is_finite(k, g.s) && self.is_finite(v, g.s);
        let k = self.turned(&mut room, k, [g.s, g.d]);
        let (tile, p) = (room.take(self.tile::<C>()), room.take(self.tile::<C>()));
        let acc = room.take(queries * ld_e);
        for first in (0..g.t).step_by(queries.max(1)) {
            let rows = queries.min(g.t - first);
            let (mut max, mut total) = (vec![C::neg_infinity(); rows], vec![C::zero(); rows]);
            acc.fill(C::zero());
            let visible = g.visible(first, rows);
            for key in (0..visible).step_by(KEYS) {
                let keys = KEYS.min(visible - key);
                let ld = self.padded::<C>(keys);
                self.scores(head, q, [first, rows], k, [key, keys], tile, ld);
                for (i, (row, p)) in tile.chunks_exact(ld).zip(p.chunks_exact_mut(ld)).take(rows).enumerate() {
                    let largest = row_max(isa, row);
                    let new = if largest > max[i] || largest.is_nan() { largest } else { max[i] };
                    if new == C::neg_infinity() {
                        p.fill(C::zero());
                        continue;
                    }
                    let sum = row_exp(isa, row, new, p);
                    if max[i] == C::neg_infinity() || max[i] == new {
                        total[i] += sum;
                    } else {
                        let fade = exp(max[i] - new);
                        total[i] = total[i] * fade + sum;
                        scale(isa, fade, &mut acc[i * ld_e..(i + 1) * ld_e]);
                    }
                    max[i] = new;
                    g.drop(head, first + i, key, &mut p[..keys]);
                }
                let (extents, v) = ([rows, keys, g.e], self.upright(v, key));
                if finite {
                    self.multiply(p, [ld, 1], extents, v, acc, ld_e, true);
                } else {
                    let seen = |i: usize, l: usize| tile[i * ld + l] != C::neg_infinity();
                    self.multiply_seen(p, [ld, 1], extents, v, acc, ld_e, true, seen);
                }
            }
            for i in 0..rows {
                // A query that sees no key: zeros, and a log-sum-exp from which backward gets zeros too.
                let unseen = total[i] == C::zero();
                let inverse = if unseen { C::zero() } else { C::one() / total[i] };
                scale(isa, inverse, &mut acc[i * ld_e..(i + 1) * ld_e]);
                lse[first + i] = if unseen { C::infinity() } else { max[i] + ln(total[i]) };
            }
            store(isa, acc, ld_e, g.e, &mut out[first..first + rows], dtype);
        }
        Ok(())
    }

    /// Gradients of the heads of q that share a head of k and v. Inputs g, q, k, v, output, log-sum-exp; probabilities
    /// are computed anew tile by tile.
    pub(super) fn backward<C: Compute>(
        &self,
        kv: usize,
        ins: &[Operand<'_>],
        dq: &mut [Rows<'_>],
        [mut dk, mut dv]: [Rows<'_>; 2],
        dtypes: [DType; 3],
    ) -> Result<()> {
        let (isa, g, queries) = (self.cx.isa, &self.g, self.queries());
        let [ld_d, ld_e] = [g.d, g.e].map(|n| self.padded::<C>(n));
        let keys_read = (g.s + self.padded::<C>(g.s)) * (ld_d + ld_e);
        let sums = queries * ld_d + g.s * (ld_d + ld_e);
        let mut scratch = workspace::<C>(self.cx.pool, keys_read + sums + g.t * (ld_d + ld_e) + 3 * self.tile::<C>())?;
        let mut room = Room(scratch.as_mut_slice::<C>());
        let k = self.read(&mut room, &ins[2], kv, [g.s, g.d]);
        let v = self.read(&mut room, &ins[3], kv, [g.s, g.e]);
        let finite = self.is_finite(k, g.s) && self.is_finite(v, g.s);
        let (k_turned, v_turned) = (self.turned(&mut room, k, [g.s, g.d]), self.turned(&mut room, v, [g.s, g.e]));
        let [tile, p, dp] = [(); 3].map(|()| room.take(self.tile::<C>()));
        let (sum_q, sum_k, sum_v) = (room.take(queries * ld_d), room.take(g.s * ld_d), room.take(g.s * ld_e));
        sum_k.fill(C::zero());
        sum_v.fill(C::zero());
        let (mut lse, mut wide) = (vec![C::zero(); g.t], vec![C::zero(); g.e]);
        let rest = room.0;
        for head in kv * g.shared..(kv + 1) * g.shared {
            let mut room = Room(&mut *rest);
            let go = self.read(&mut room, &ins[0], head, [g.t, g.e]);
            let q = self.read(&mut room, &ins[1], head, [g.t, g.d]);
            ins[5].load(isa, head * g.t, &mut lse);
            // Finite operands may have scores beyond the range.
            let finite = finite && self.is_finite(go, g.t) && self.is_finite(q, g.t) && !lse.iter().any(|v| v.is_nan());
            let mut hidden = Vec::new();
            let outputs = AskRows::new(&ins[4], head, [g.t, g.e]);
            for first in (0..g.t).step_by(queries.max(1)) {
                let rows = queries.min(g.t - first);
                let delta: SmallVec<[C; 2 * QUERIES]> = (first..first + rows)
                    .map(|i| {
                        outputs.at(i);
                        C::dot(
                            isa,
                            &go.data[i * ld_e..][..g.e],
                            ins[4].block(isa, (head * g.t + i) * g.e, g.e, &mut wide),
                        )
                    })
                    .collect();
                let visible = g.visible(first, rows);
                for key in (0..visible).step_by(KEYS) {
                    let keys = KEYS.min(visible - key);
                    let ld = self.padded::<C>(keys);
                    self.scores(head, q, [first, rows], k_turned, [key, keys], tile, ld);
                    if !finite {
                        hidden = tile[..rows * ld].iter().map(|s| *s == C::neg_infinity()).collect();
                    }
                    for (i, (row, p)) in tile.chunks_exact(ld).zip(p.chunks_exact_mut(ld)).take(rows).enumerate() {
                        C::map1(isa, ExpMinus(lse[first + i].as_f64()), row, p);
                    }
                    // dv takes the weights as they were used; dp passes through the same draw.
                    if g.dropout > 0.0 {
                        dp[..rows * ld].copy_from_slice(&p[..rows * ld]);
                        for (i, row) in dp.chunks_exact_mut(ld).take(rows).enumerate() {
                            g.drop(head, first + i, key, &mut row[..keys]);
                        }
                    }
                    let used = if g.dropout > 0.0 { &*dp } else { &*p };
                    let go_upright = self.upright(go, first);
                    let sum_v = &mut sum_v[key * ld_e..];
                    if finite {
                        self.multiply(used, [1, ld], [keys, rows, g.e], go_upright, sum_v, ld_e, true);
                    } else {
                        let seen = |l: usize, i: usize| !hidden[i * ld + l];
                        self.multiply_seen(used, [1, ld], [keys, rows, g.e], go_upright, sum_v, ld_e, true, seen);
                    }
                    let v = Panels { data: &v_turned.data[key / tile::width::<C>(isa) * v_turned.panel..], ..v_turned };
                    self.multiply(&go.data[first * ld_e..], [ld_e, 1], [rows, g.e, keys], v, dp, ld, false);
                    for (i, slopes) in tile.chunks_exact_mut(ld).take(rows).enumerate() {
                        let dp = &mut dp[i * ld..(i + 1) * ld];
                        g.drop(head, first + i, key, &mut dp[..keys]);
                        let slope = ScoreSlope { delta: delta[i].as_f64(), scale: g.scale, finite };
                        C::map2(isa, slope, &p[i * ld..(i + 1) * ld], dp, slopes);
                    }
                    let (k_upright, q_upright, sum_k) =
                        (self.upright(k, key), self.upright(q, first), &mut sum_k[key * ld_d..]);
                    if finite {
                        self.multiply(tile, [ld, 1], [rows, keys, g.d], k_upright, sum_q, ld_d, key > 0);
                        self.multiply(tile, [1, ld], [keys, rows, g.d], q_upright, sum_k, ld_d, true);
                    } else {
                        let seen = |i: usize, l: usize| !hidden[i * ld + l];
                        self.multiply_seen(tile, [ld, 1], [rows, keys, g.d], k_upright, sum_q, ld_d, key > 0, seen);
                        let seen = |l: usize, i: usize| !hidden[i * ld + l];
                        self.multiply_seen(tile, [1, ld], [keys, rows, g.d], q_upright, sum_k, ld_d, true, seen);
                    }
                }
                if visible == 0 {
                    sum_q.fill(C::zero());
                }
                let to = &mut dq[head - kv * g.shared][first..first + rows];
                store(isa, sum_q, ld_d, g.d, to, dtypes[0]);
            }
        }
        store(isa, sum_k, ld_d, g.d, &mut dk, dtypes[1]);
        store(isa, sum_v, ld_e, g.e, &mut dv, dtypes[2]);
        Ok(())
    }
}
