//! Scaled dot-product attention in tiles with a running log-sum-exp (Dao et al., FlashAttention, 2022): no T×S matrix exists.

use rayon::prelude::*;

use smallvec::SmallVec;

use super::gemm::workspace;
use super::operand::{Compute, Operand};
use super::tasks::Tasks as _;
use super::tile::{Block, Row, Segment, Tile};
use crate::memory::Pool;
use crate::op::Attention;
use crate::simd::{Isa, Lanes, Map1, Map2, prefetch};
use crate::{Array, ArrayMut, DType, Error, Key, Layout, Result};

/// Queries per tile; fewer than twice as many are one tile.
pub(super) const QUERIES: usize = 64;
/// Keys per tile.
pub(super) const KEYS: usize = 256;
/// Rows of which memory is asked for ahead: those of a head lie far apart.
pub(super) const AHEAD: usize = 16;

/// Extents of one attention.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub(super) heads: usize,
    pub(super) t: usize,
    pub(super) s: usize,
    pub(super) d: usize,
    pub(super) e: usize,
    pub(super) scale: f64,
    pub(super) causal: bool,
    /// Heads of q per sample, and how many of them share a head of k and v.
    per_sample: usize,
    pub(super) shared: usize,
    pub(super) dropout: f64,
    key: Key,
}

impl Geometry {
    pub(super) fn new(attention: &Attention, q: &Array, k: &Array, v: &Array) -> Geometry {
        let r = q.shape().rank();
        let (t, d) = (q.shape()[r - 2], q.shape()[r - 1]);
        let heads = |x: &Array| if r >= 3 { x.shape()[r - 3] } else { 1 };
        Geometry {
            per_sample: heads(q),
            shared: heads(q).checked_div(heads(k)).unwrap_or(1).max(1),
            dropout: attention.dropout,
            key: attention.key,
            heads: q.shape()[..r - 2].iter().product(),
            t,
            s: k.shape()[r - 2],
            d,
            e: v.shape()[r - 1],
            scale: attention.scale.unwrap_or(1.0 / (d as f64).sqrt()),
            causal: attention.causal,
        }
    }

    /// The head of k and v of a head of q.
    pub(super) fn key_head(&self, head: usize) -> usize {
        let per_sample = self.per_sample / self.shared;
        head / self.per_sample * per_sample + head % self.per_sample / self.shared
    }

    /// Multiplies the weights of one query and `to.len()` keys from `key` on by 0 or 1/(1 − p): the same draw forward and
    /// backward.
    pub(super) fn drop<C: Compute>(&self, head: usize, query: usize, key: usize, to: &mut [C]) {
        if self.dropout > 0.0 {
            let (first, scale) = ((head * self.t + query) * self.s + key, C::from_f64(1.0 / (1.0 - self.dropout)));
            let threshold = (self.dropout * 4294967296.0) as u64;
            for (i, v) in to.iter_mut().enumerate() {
                *v = if (self.key.bits(first + i) as u64) < threshold { C::zero() } else { *v * scale };
            }
        }
    }

    /// Keys that any of the queries `first..first + rows` sees.
    pub(super) fn visible(&self, first: usize, rows: usize) -> usize {
        if self.causal { self.s.min(first + rows) } else { self.s }
    }
}

#[derive(Clone, Copy)]
pub(super) struct ExpMinus(pub(super) f64);

impl Map1 for ExpMinus {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        (x - L::splat(self.0)).exp()
    }
}

/// `p·(dp − delta)·scale`
#[derive(Clone, Copy)]
pub(super) struct ScoreSlope {
    pub(super) delta: f64,
    pub(super) scale: f64,
}

impl Map2 for ScoreSlope {
    #[inline(always)]
    fn eval<L: Lanes>(self, p: L, dp: L) -> L {
        p * (dp - L::splat(self.delta)) * L::splat(self.scale)
    }
}

/// The rows of one head of an output, wherever they lie.
pub(super) type Rows<'a> = Vec<&'a mut [u8]>;

/// Where the rows of an output `[…, heads, rows, columns]` lie, or of one of several parts, `[parts, …]`.
struct Places {
    rows: usize,
    /// Bytes of a row.
    row: usize,
    /// How many rows lie between two of a head.
    step: usize,
    /// The first row of `[head][part]`, counted in memory.
    starts: Vec<usize>,
    parts: usize,
    /// So many heads have a stretch of memory to themselves.
    together: usize,
}

impl Places {
    /// `None` where a row is not whole, or rows have gaps.
    fn new(layout: &Layout, size: usize, parts: Option<usize>) -> Option<Places> {
        let (r, lead) = (layout.shape.rank(), parts.is_some() as usize);
        let (rows, columns) = (layout.shape[r - 2], layout.shape[r - 1]);
        if !(layout.is_dense() && layout.offset == 0 && (layout.strides[r - 1] == 1 || columns == 1)) {
            return None;
        }
        let in_rows = |d: usize| layout.strides[d] / columns.max(1);
        let mut starts = vec![0];
        // Parts are the innermost dimension of the list.
        for d in (lead..r - 2).chain(0..lead) {
            starts = starts.iter().flat_map(|&at| (0..layout.shape[d]).map(move |i| at + i * in_rows(d))).collect();
        }
        let (step, parts) = (in_rows(r - 2), parts.unwrap_or(1));
        let heads = starts.len() / parts;
        let per_sample = if r - lead > 2 { layout.shape[r - 3] } else { 1 };
        let apart = |&together: &usize| {
            let stretch = (together * parts * rows).max(1);
            starts.chunks(together * parts).enumerate().all(|(i, starts)| starts.iter().all(|at| at / stretch == i))
        };
        let together = [1, per_sample.max(1)].into_iter().find(apart).unwrap_or(heads.max(1));
        Some(Places { rows, row: columns * size, step, starts, parts, together })
    }

    /// `[head][part]`
    fn cut<'a>(&self, bytes: &'a mut [u8]) -> Vec<Vec<Rows<'a>>> {
        let &Places { rows, row, step, ref starts, parts, together } = self;
        let heads = starts.len() / parts;
        let stretch = together * parts * rows;
        if stretch * row == 0 {
            return (0..heads).map(|_| (0..parts).map(|_| (0..rows).map(|_| Default::default()).collect()).collect()).collect();
        }
        let cut = |(i, bytes): (usize, &'a mut [u8])| {
            let mut each: Vec<Option<&mut [u8]>> = bytes.chunks_exact_mut(row).map(Some).collect();
            let starts = &starts[i * together * parts..(i + 1) * together * parts];
            let mut of = |start: usize| -> Rows<'a> {
                (0..rows).map(|j| each[start - i * stretch + j * step].take().unwrap_or_default()).collect()
            };
            starts.chunks(parts).map(|starts| starts.iter().map(|&start| of(start)).collect()).collect::<Vec<Vec<Rows<'a>>>>()
        };
        bytes[..heads * parts * rows * row].par_chunks_mut(stretch * row).enumerate().flat_map(cut).collect()
    }
}

fn places(out: &Array, parts: Option<usize>) -> Result<Places> {
    Places::new(out.layout(), out.dtype().size(), parts).ok_or_else(|| Error::Shape {
        op: "scaled_dot_product_attention",
        expected: "expected results whose rows are whole in memory".into(),
        shapes: vec![*out.shape()],
    })
}

/// The rows of the heads of an output.
pub(super) fn rows_of<'a>(out: &'a mut ArrayMut<'_>) -> Result<Vec<Rows<'a>>> {
    let places = places(out.array(), None)?;
    Ok(out.bytes().map_or_else(Vec::new, |bytes| places.cut(bytes).into_iter().flatten().collect()))
}

/// The rows of the heads of dq, dk and dv, which are three outputs or one.
pub(super) fn rows_of_gradients<'a>(outs: &'a mut [ArrayMut<'_>]) -> Result<[Vec<Rows<'a>>; 3]> {
    if let [q, k, v] = outs {
        return Ok([rows_of(q)?, rows_of(k)?, rows_of(v)?]);
    }
    let places = places(outs[0].array(), Some(3))?;
    let mut all = [(); 3].map(|()| Vec::with_capacity(places.starts.len() / 3));
    for head in outs[0].bytes().map_or_else(Vec::new, |bytes| places.cut(bytes)) {
        all.iter_mut().zip(head).for_each(|(all, rows)| all.push(rows));
    }
    Ok(all)
}

pub(super) fn operand<'a>(array: &Array, bytes: &'a [u8]) -> Operand<'a> {
    let order: Vec<usize> = (0..array.shape().rank()).collect();
    Operand::new(array, bytes, array.shape(), &order)
}

/// The mask, broadcast to `[…, T, S]`, and whether it is bool.
pub(super) struct Mask<'a>(Operand<'a>, bool);

impl<'a> Mask<'a> {
    pub(super) fn new(q: &Array, s: usize, mask: &Array, bytes: &'a [u8]) -> Mask<'a> {
        let r = q.shape().rank();
        let mut shape = q.shape().to_vec();
        shape[r - 1] = s;
        let order: Vec<usize> = (0..r).collect();
        Mask(Operand::new(mask, bytes, &shape, &order), mask.dtype() == DType::Bool)
    }

    /// Hides or shifts the scores of one query and the keys from `key` on.
    pub(super) fn apply<C: Compute>(&self, isa: Isa, g: &Geometry, head: usize, query: usize, key: usize, to: &mut [C]) {
        const PART: usize = 64;
        let mut values = [C::zero(); PART];
        for (i, to) in to.chunks_mut(PART).enumerate() {
            let values = &mut values[..to.len()];
            self.0.load(isa, (head * g.t + query) * g.s + key + i * PART, values);
            for (s, &m) in to.iter_mut().zip(&*values) {
                *s = match self.1 {
                    true if m == C::zero() => C::neg_infinity(),
                    true => *s,
                    false => *s + m,
                };
            }
        }
    }
}

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
struct Heads<'a> {
    isa: Isa,
    pool: &'a Pool,
    g: Geometry,
    mask: Option<Mask<'a>>,
}

impl Heads<'_> {
    /// Queries per tile.
    fn queries(&self) -> usize {
        if self.g.t < 2 * QUERIES { self.g.t } else { QUERIES }
    }

    fn padded<C: Tile>(&self, columns: usize) -> usize {
        columns.next_multiple_of(C::width(self.isa))
    }

    /// Numbers in a tile of scores.
    fn tile<C: Tile>(&self) -> usize {
        self.queries() * self.padded::<C>(KEYS.min(self.g.s))
    }

    fn read<'r, C: Tile>(
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
                    values.load(self.isa, at, 1, &mut row[..columns]);
                }
                None => x.load(self.isa, start + i * columns, &mut row[..columns]),
            }
        }
        Matrix { data: to, ld }
    }

    /// The right operand whose columns are the rows of a matrix with so many columns.
    fn turned<'r, C: Tile>(&self, room: &mut Room<'r, C>, x: Matrix<'_, C>, [rows, columns]: [usize; 2]) -> Panels<'r, C> {
        let width = C::width(self.isa);
        let panel = width * columns;
        let to = room.take(rows.div_ceil(width) * panel);
        for (p, to) in to.chunks_mut(panel.max(1)).enumerate() {
            let rows = width.min(rows - p * width);
            if rows < width {
                to.fill(C::zero());
            }
            C::transpose(self.isa, &x.data[p * width * x.ld..], x.ld, rows, columns, to, width);
        }
        Panels { data: to, step: width, panel }
    }

    /// The right operand whose inner dimension is the rows of a matrix from `first` on.
    fn upright<'r, C: Tile>(&self, x: Matrix<'r, C>, first: usize) -> Panels<'r, C> {
        Panels { data: &x.data[first * x.ld..], step: x.ld, panel: C::width(self.isa) }
    }

    /// `acc[i·ld + j] (+)= Σ_l a[i·row + l·step]·b[l, j]` for `l` below `len`.
    fn multiply<C: Tile>(
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
        C::block(self.isa, Block { a, a_step: step, rows: &rows, b, b_step, panel, columns, segments, acc, add });
    }

    /// Scores of a tile, scaled and masked, with hidden positions at −∞; so are those that pad rows to `ld`.
    fn scores<C: Tile>(
        &self,
        head: usize,
        q: Matrix<'_, C>,
        [first, rows]: [usize; 2],
        k: Panels<'_, C>,
        [key, keys]: [usize; 2],
        to: &mut [C],
        ld: usize,
    ) {
        let (isa, g) = (self.isa, &self.g);
        let k = Panels { data: &k.data[key / C::width(isa) * k.panel..], ..k };
        self.multiply(&q.data[first * q.ld..], [q.ld, 1], [rows, g.d, keys], k, to, ld, false);
        let to = &mut to[..rows * ld];
        C::scale(isa, C::from_f64(g.scale), to);
        for (i, row) in to.chunks_exact_mut(ld).enumerate() {
            if let Some(mask) = &self.mask {
                mask.apply(isa, g, head, first + i, key, &mut row[..keys]);
            }
            let seen = if g.causal { (first + i + 1).saturating_sub(key).min(keys) } else { keys };
            row[seen..].fill(C::neg_infinity());
        }
    }

    fn forward<C: Tile>(
        &self,
        head: usize,
        [q, k, v]: [&Operand<'_>; 3],
        mut out: Rows<'_>,
        dtype: DType,
        lse: &mut [C],
    ) -> Result<()> {
        let (isa, g, kv, queries) = (self.isa, &self.g, self.g.key_head(head), self.queries());
        let [ld_d, ld_e] = [g.d, g.e].map(|n| self.padded::<C>(n));
        let keys_read = g.s * (ld_d + ld_e) + self.padded::<C>(g.s) * g.d;
        let mut scratch = workspace::<C>(self.pool, g.t * ld_d + keys_read + 2 * self.tile::<C>() + queries * ld_e)?;
        let mut room = Room(scratch.as_mut_slice::<C>());
        let q = self.read(&mut room, q, head, [g.t, g.d]);
        let k = self.read(&mut room, k, kv, [g.s, g.d]);
        let k = self.turned(&mut room, k, [g.s, g.d]);
        let v = self.read(&mut room, v, kv, [g.s, g.e]);
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
                    let largest = C::row_max(isa, row);
                    let new = if largest > max[i] || largest.is_nan() { largest } else { max[i] };
                    if new == C::neg_infinity() {
                        p.fill(C::zero());
                        continue;
                    }
                    let sum = C::row_exp(isa, row, new, p);
                    if max[i] == C::neg_infinity() || max[i] == new {
                        total[i] = total[i] + sum;
                    } else {
                        let fade = (max[i] - new).exp();
                        total[i] = total[i] * fade + sum;
                        C::scale(isa, fade, &mut acc[i * ld_e..(i + 1) * ld_e]);
                    }
                    max[i] = new;
                    g.drop(head, first + i, key, &mut p[..keys]);
                }
                self.multiply(p, [ld, 1], [rows, keys, g.e], self.upright(v, key), acc, ld_e, true);
            }
            for i in 0..rows {
                // A query that sees no key: zeros, and a log-sum-exp from which backward gets zeros too.
                let unseen = total[i] == C::zero();
                let inverse = if unseen { C::zero() } else { C::one() / total[i] };
                C::scale(isa, inverse, &mut acc[i * ld_e..(i + 1) * ld_e]);
                lse[first + i] = if unseen { C::infinity() } else { max[i] + total[i].ln() };
            }
            store(isa, acc, ld_e, g.e, &mut out[first..first + rows], dtype);
        }
        Ok(())
    }

    /// Gradients of the heads of q that share a head of k and v. Inputs g, q, k, v, output, log-sum-exp; probabilities are computed anew
    /// tile by tile.
    fn backward<C: Tile>(
        &self,
        kv: usize,
        ins: &[Operand<'_>],
        dq: &mut [Rows<'_>],
        [mut dk, mut dv]: [Rows<'_>; 2],
        dtypes: [DType; 3],
    ) -> Result<()> {
        let (isa, g, queries) = (self.isa, &self.g, self.queries());
        let [ld_d, ld_e] = [g.d, g.e].map(|n| self.padded::<C>(n));
        let keys_read = (g.s + self.padded::<C>(g.s)) * (ld_d + ld_e);
        let sums = queries * ld_d + g.s * (ld_d + ld_e);
        let mut scratch = workspace::<C>(self.pool, keys_read + sums + g.t * (ld_d + ld_e) + 3 * self.tile::<C>())?;
        let mut room = Room(scratch.as_mut_slice::<C>());
        let k = self.read(&mut room, &ins[2], kv, [g.s, g.d]);
        let v = self.read(&mut room, &ins[3], kv, [g.s, g.e]);
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
            let outputs = AskRows::new(&ins[4], head, [g.t, g.e]);
            for first in (0..g.t).step_by(queries.max(1)) {
                let rows = queries.min(g.t - first);
                let delta: SmallVec<[C; 2 * QUERIES]> = (first..first + rows)
                    .map(|i| {
                        outputs.at(i);
                        C::dot(isa, &go.data[i * ld_e..][..g.e], ins[4].block(isa, (head * g.t + i) * g.e, g.e, &mut wide))
                    })
                    .collect();
                let visible = g.visible(first, rows);
                for key in (0..visible).step_by(KEYS) {
                    let keys = KEYS.min(visible - key);
                    let ld = self.padded::<C>(keys);
                    self.scores(head, q, [first, rows], k_turned, [key, keys], tile, ld);
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
                    self.multiply(used, [1, ld], [keys, rows, g.e], go_upright, &mut sum_v[key * ld_e..], ld_e, true);
                    let v = Panels { data: &v_turned.data[key / C::width(isa) * v_turned.panel..], ..v_turned };
                    self.multiply(&go.data[first * ld_e..], [ld_e, 1], [rows, g.e, keys], v, dp, ld, false);
                    for (i, slopes) in tile.chunks_exact_mut(ld).take(rows).enumerate() {
                        let dp = &mut dp[i * ld..(i + 1) * ld];
                        g.drop(head, first + i, key, &mut dp[..keys]);
                        let slope = ScoreSlope { delta: delta[i].as_f64(), scale: g.scale };
                        C::map2(isa, slope, &p[i * ld..(i + 1) * ld], dp, slopes);
                    }
                    self.multiply(tile, [ld, 1], [rows, keys, g.d], self.upright(k, key), sum_q, ld_d, key > 0);
                    let q_upright = self.upright(q, first);
                    self.multiply(tile, [1, ld], [keys, rows, g.d], q_upright, &mut sum_k[key * ld_d..], ld_d, true);
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

/// Rounds rows of `columns` numbers that lie `ld` apart and writes them where they belong.
pub(super) fn store<C: Compute>(isa: Isa, from: &[C], ld: usize, columns: usize, to: &mut [&mut [u8]], dtype: DType) {
    let ask = |row: &[u8]| row.chunks(64).for_each(|line| prefetch::ask_later(line.as_ptr().addr(), true));
    to.iter().take(AHEAD).for_each(|row| ask(row));
    for i in 0..to.len() {
        if let Some(row) = to.get(i + AHEAD) {
            ask(row);
        }
        C::store(isa, &from[i * ld..][..columns], to[i], dtype);
    }
}

/// Asks for rows of one head that are read in order, each some rows before.
pub(super) struct AskRows<'a> {
    bytes: &'a [u8],
    /// Of the first row, of the distance and of a row.
    places: Option<[usize; 3]>,
    rows: usize,
}

impl<'a> AskRows<'a> {
    pub(super) fn new(x: &Operand<'a>, head: usize, [rows, columns]: [usize; 2]) -> AskRows<'a> {
        let (bytes, size) = (x.values().bytes, x.values().size());
        let even = x.even_rows(head * rows * columns, rows, columns);
        AskRows { bytes, places: even.map(|(first, distance)| [first, distance, columns].map(|n| n * size)), rows }
    }

    /// When row `i` is read.
    pub(super) fn at(&self, i: usize) {
        if let Some([first, distance, row]) = self.places.filter(|_| i + AHEAD < self.rows) {
            prefetch::ask(self.bytes, first + (i + AHEAD) * distance, row);
        }
    }
}

/// So many parts of `size` bytes, which may be none.
fn parts(mut bytes: &mut [u8], count: usize, size: usize) -> Vec<&mut [u8]> {
    let mut part = || {
        let (part, rest) = std::mem::take(&mut bytes).split_at_mut(size);
        bytes = rest;
        part
    };
    (0..count).map(|_| part()).collect()
}

pub(super) fn forward<C: Tile>(
    isa: Isa,
    pool: &Pool,
    attention: &Attention,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<()> {
    let g = Geometry::new(attention, ins[0], ins[1], ins[2]);
    let (q, k, v) = (operand(ins[0], bytes[0]), operand(ins[1], bytes[1]), operand(ins[2], bytes[2]));
    let mask = attention.mask.then(|| Mask::new(ins[0], g.s, ins[3], bytes[3]));
    let heads = Heads { isa, pool, g, mask };
    let dtypes = [0, 1].map(|i| outs[i].array().dtype());
    let (out, lse) = outs.split_at_mut(1);
    let (out, Some(lse)) = (rows_of(&mut out[0])?, lse[0].bytes()) else { return Ok(()) };
    let lse = parts(lse, g.heads, g.t * dtypes[1].size());
    out.into_par_iter().zip(lse).enumerate().try_each(|(head, (out, lse))| {
        let mut sums = vec![C::zero(); g.t];
        heads.forward(head, [&q, &k, &v], out, dtypes[0], &mut sums)?;
        C::store(isa, &sums, lse, dtypes[1]);
        Ok(())
    })
}

/// Inputs g, q, k, v, output, log-sum-exp.
pub(super) fn backward<C: Tile>(
    isa: Isa,
    pool: &Pool,
    attention: &Attention,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<()> {
    let g = Geometry::new(attention, ins[1], ins[2], ins[3]);
    let all: Vec<Operand<'_>> = ins.iter().zip(bytes).map(|(a, b)| operand(a, b)).collect();
    let mask = attention.mask.then(|| Mask::new(ins[1], g.s, ins[6], bytes[6]));
    let heads = Heads { isa, pool, g, mask };
    let dtypes = [0, 1, 2].map(|i| outs[i.min(outs.len() - 1)].array().dtype());
    let [mut dq, dk, dv] = rows_of_gradients(outs)?;
    let work = dq.par_chunks_mut(g.shared).zip(dk).zip(dv).enumerate();
    work.try_each(|(kv, ((dq, dk), dv))| heads.backward::<C>(kv, &all, dq, [dk, dv], dtypes))
}
