//! Batch and group norm: statistics of planes, or of whole images channels-last.

use rayon::prelude::*;

use super::{Given, fill_walk, flush, gradient_weights, rstd_of, statistics_at, vector, weights};
use crate::cpu::channels::{Channelwise, PerChannel, Terms};
use crate::cpu::elementwise::{activate, before_activation};
use crate::cpu::operand::{BLOCK, Compute, Operand, TASK, elements_mut, in_storage};
use crate::cpu::rows::write;
use crate::cpu::tasks::Tasks as _;
use crate::memory::Pool;
use crate::op::{Norm, NormKind, Unary};
use crate::simd::{Isa, Lanes, Stored};
use crate::{Array, ArrayMut, Layout, Shape};

#[derive(Clone, Copy)]
struct Values;

impl Terms for Values {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, k: L) -> (L, L) {
        (x, k)
    }
}

#[derive(Clone, Copy)]
struct Squares;

impl Terms for Squares {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, mean: L) -> (L, L) {
        let d = x - mean;
        (d * d, d)
    }
}

#[derive(Clone, Copy)]
struct Gradients;

impl Terms for Gradients {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, x: L, mean: L) -> (L, L) {
        (g, g * (x - mean))
    }
}

/// `(x − k₀)·k₁ + k₂`
#[derive(Clone, Copy)]
struct Forward;

impl PerChannel for Forward {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, k: [L; 4]) -> L {
        (x - k[0]).mul_add(k[1], k[2])
    }
}

/// `g·k₀ + (x − k₁)·k₂ + k₃`
#[derive(Clone, Copy)]
struct Backward;

impl PerChannel for Backward {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, x: L, k: [L; 4]) -> L {
        g.mul_add(k[0], (x - k[1]).mul_add(k[2], k[3]))
    }
}

/// `[samples][channels][pixels]`, or `[samples][pixels][channels]`, as it is walked.
struct Planes {
    samples: usize,
    channels: usize,
    pixels: usize,
    last: bool,
    order: smallvec::SmallVec<[usize; 8]>,
    walk: Layout,
    /// Stretches of a sample and their length in elements; the last of a sample may be shorter.
    stretch: usize,
    stretches: usize,
}

impl Planes {
    /// The walk of an output: channels last if it lies so.
    fn new(shape: &Shape, layout: &Layout) -> Planes {
        let rank = shape.rank();
        let order: smallvec::SmallVec<[usize; 8]> = (0..1).chain(2..rank).chain(1..2).collect();
        let last = Layout::with_order(*shape, &order);
        let (samples, channels, pixels) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
        let is_last = last.same_order(layout) && channels > 1;
        let order = if is_last { order } else { (0..rank).collect() };
        // Whole pixels, or whole or part of one channel's plane.
        let stretch = if is_last { (TASK / channels).clamp(1, pixels.max(1)) * channels } else { pixels.clamp(1, TASK) };
        let per_plane = if is_last { (channels * pixels).div_ceil(stretch) } else { pixels.div_ceil(stretch) };
        let stretches = if is_last { per_plane } else { per_plane * channels };
        let walk = Layout::with_order(*shape, &order);
        Planes { samples, channels, pixels, last: is_last, order, walk, stretch, stretches }
    }

    fn operand<'a>(&self, array: &Array, bytes: &'a [u8], shape: &Shape) -> Operand<'a> {
        Operand::new(array, bytes, shape, &self.order)
    }

    /// First element, length and, if not all, the channel of a stretch.
    fn part(&self, index: usize) -> (usize, usize, Option<usize>) {
        let (sample, part) = (index / self.stretches, index % self.stretches);
        let size = self.channels * self.pixels;
        if self.last {
            let from = part * self.stretch;
            return (sample * size + from, self.stretch.min(size - from), None);
        }
        let per_plane = self.stretches / self.channels;
        let (channel, from) = (part / per_plane, part % per_plane * self.stretch);
        (sample * size + channel * self.pixels + from, self.stretch.min(self.pixels - from), Some(channel))
    }

    /// Elements per block: whole pixels.
    fn block(&self) -> usize {
        if self.last { (2 * BLOCK / self.channels).max(1) * self.channels } else { 2 * BLOCK }
    }

    fn count(&self) -> usize {
        self.samples * self.stretches
    }

    /// Per stretch and channel, the sums of `f` with the coefficients `k(sample, channel)`: `[channel][2]`, one channel if the stretch has
    /// one.
    fn sums<C: Channelwise, R: Read<C>, F: Terms>(
        &self,
        isa: Isa,
        f: F,
        from: &R,
        index: usize,
        k: &[C],
        buffers: &mut Buffers<C>,
    ) -> Vec<[f64; 2]> {
        /// Terms of one sum in the computing type; then it goes to f64.
        const CHAIN: usize = 256;
        let (start, len, channel) = self.part(index);
        let width = channel.map_or(self.channels, |_| 16);
        let mut sums = [vec![C::zero(); width], vec![C::zero(); width]];
        let mut total = [vec![0.0f64; width], vec![0.0f64; width]];
        let (block, mut chain) = (self.block(), 0);
        from.enter(self, channel, index / self.stretches.max(1), buffers);
        for at in (0..len).step_by(block) {
            let n = block.min(len - at);
            let [g, x] = from.block(isa, start + at, n, &mut buffers.read);
            let [first, second] = &mut sums;
            C::sum_channels(isa, f, g, x, k, [&mut *first, &mut *second]);
            chain += n.div_ceil(width);
            if chain >= CHAIN || at + n == len {
                flush(isa, &mut total, [first, second]);
                chain = 0;
            }
        }
        let [first, second] = total;
        if channel.is_none() {
            return first.into_iter().zip(second).map(|(a, b)| [a, b]).collect();
        }
        vec![[first.iter().sum(), second.iter().sum()]]
    }

    /// Coefficients for a stretch: of all channels, or those of its channel `times` times.
    fn coefficients<C: Copy>(
        &self,
        channel: Option<usize>,
        sample: usize,
        k: &[Vec<C>],
        per_sample: bool,
        times: usize,
        to: &mut [Vec<C>],
    ) {
        let base = if per_sample { sample * self.channels } else { 0 };
        for (to, k) in to.iter_mut().zip(k) {
            to.clear();
            match channel {
                Some(c) => to.resize(times, k[base + c]),
                None => to.extend_from_slice(&k[base..base + self.channels]),
            }
        }
    }

    /// How often [`Planes::apply`] repeats a plane's coefficients: a kernel goes through them again and again.
    fn repeats(&self) -> usize {
        self.stretch.next_multiple_of(16).min(256)
    }

    /// Computes every element of `out` from g, x and four coefficients of its channel, or of its sample and channel.
    fn apply<C: Channelwise, R: Read<C>, F: PerChannel>(
        &self,
        isa: Isa,
        pool: &Pool,
        f: F,
        from: &R,
        k: [Vec<C>; 4],
        act: Option<Unary>,
        out: &mut ArrayMut<'_>,
    ) {
        let per_sample = k[0].len() > self.channels;
        let size = self.channels * self.pixels;
        // Tasks of whole stretches, about as many elements each.
        let group = (TASK / self.stretch.max(1)).max(1);
        let whole = if size.is_multiple_of(self.stretch.max(1)) { group * self.stretch } else { size };
        fill_walk::<C, ()>(isa, pool, out, &self.walk, whole, |task, dtype, to| {
            let mut buffers = Buffers::new(self.block());
            let mut coefficients = [vec![], vec![], vec![], vec![]];
            let (mut at, until) = (task * whole, task * whole + to.len() / dtype.size());
            let first = at;
            while at < until {
                let (sample, inside) = (at / size, at % size);
                let len = if self.last {
                    self.stretch.min(size - inside)
                } else {
                    self.stretch.min(self.pixels - inside % self.pixels)
                };
                let channel = if self.last { None } else { Some(inside / self.pixels) };
                self.coefficients(channel, sample, &k, per_sample, self.repeats(), &mut coefficients);
                let [k0, k1, k2, k3] = &coefficients;
                let k = [&k0[..], k1, k2, k3];
                from.enter(self, channel, sample, &mut buffers);
                for part in (0..len).step_by(self.block()) {
                    let n = self.block().min(len - part);
                    let [g, x] = from.block(isa, at + part, n, &mut buffers.read);
                    let to = &mut to[(at + part - first) * dtype.size()..][..n * dtype.size()];
                    let Some(act) = act else {
                        if in_storage!(dtype, per_channel_into::<C>(isa, f, [g, x], k, to)).is_none() {
                            C::per_channel(isa, f, g, x, k, &mut buffers.y[..n]);
                            C::store(isa, &buffers.y[..n], to, dtype);
                        }
                        continue;
                    };
                    let y = &mut buffers.y[..n];
                    C::per_channel(isa, f, g, x, k, y);
                    if dtype == C::DTYPE {
                        activate(isa, act, y, elements_mut(to));
                    } else {
                        activate(isa, act, y, &mut buffers.z[..n]);
                        C::store(isa, &buffers.z[..n], to, dtype);
                    }
                }
                at += len;
            }
        });
    }
}

/// Where a pass takes its elements from.
trait Read<C>: Sync {
    /// Their type.
    type X: Stored<C>;
    /// Takes what a stretch needs.
    fn enter(&self, p: &Planes, channel: Option<usize>, sample: usize, buffers: &mut Buffers<C>);
    /// The `n` elements of g and x from `start` on; without a gradient x twice.
    fn block<'b>(&'b self, isa: Isa, start: usize, n: usize, buffers: &'b mut ReadBuffers<C>) -> [&'b [Self::X]; 2];
}

/// Dense operands of one type, read in place.
struct InPlace<'a, T> {
    g: &'a [T],
    x: &'a [T],
}

impl<C, T: Stored<C>> Read<C> for InPlace<'_, T> {
    type X = T;

    fn enter(&self, _p: &Planes, _channel: Option<usize>, _sample: usize, _buffers: &mut Buffers<C>) {}

    fn block<'b>(&'b self, _isa: Isa, start: usize, n: usize, _buffers: &'b mut ReadBuffers<C>) -> [&'b [T]; 2] {
        [&self.g[start..start + n], &self.x[start..start + n]]
    }
}

/// Operands widened block by block. The gradient is that of the normalised values: what arrives, behind an activation times its slope,
/// whose argument is computed again from x.
struct Widened<'a, C> {
    g: Option<&'a Operand<'a>>,
    x: &'a Operand<'a>,
    /// The activation, and the coefficients that normalise.
    act: Option<(Unary, [Vec<C>; 4])>,
}

impl<C: Channelwise> Read<C> for Widened<'_, C> {
    type X = C;

    fn enter(&self, p: &Planes, channel: Option<usize>, sample: usize, buffers: &mut Buffers<C>) {
        if let Some((_, k)) = &self.act {
            p.coefficients(channel, sample, k, k[0].len() > p.channels, p.repeats(), &mut buffers.read.k);
        }
    }

    fn block<'b>(&'b self, isa: Isa, start: usize, n: usize, buffers: &'b mut ReadBuffers<C>) -> [&'b [C]; 2] {
        let ReadBuffers { x, g, argument, before, k: [k0, k1, k2, k3] } = buffers;
        let x = self.x.block(isa, start, n, x);
        let Some(operand) = self.g else { return [x, x] };
        let g = operand.block(isa, start, n, g);
        let Some((act, _)) = &self.act else { return [g, x] };
        let (argument, before) = (&mut argument[..n], &mut before[..n]);
        C::per_channel(isa, Forward, x, x, [k0, k1, k2, k3], argument);
        before_activation(isa, *act, g, argument, before);
        [before, x]
    }
}

struct Buffers<C> {
    y: Vec<C>,
    z: Vec<C>,
    read: ReadBuffers<C>,
}

struct ReadBuffers<C> {
    x: Vec<C>,
    g: Vec<C>,
    argument: Vec<C>,
    before: Vec<C>,
    k: [Vec<C>; 4],
}

impl<C: Compute> Buffers<C> {
    fn new(n: usize) -> Buffers<C> {
        let zeros = || vec![C::zero(); n];
        let read = ReadBuffers { x: zeros(), g: zeros(), argument: zeros(), before: zeros(), k: [(); 4].map(|()| Vec::new()) };
        Buffers { y: zeros(), z: zeros(), read }
    }
}

/// [`Channelwise::per_channel`] into the bytes of elements of type T.
fn per_channel_into<C: Channelwise, T: Stored<C>>(
    isa: Isa,
    f: impl PerChannel,
    [g, x]: [&[impl Stored<C>]; 2],
    k: [&[C]; 4],
    to: &mut [u8],
) -> Option<()> {
    C::per_channel(isa, f, g, x, k, elements_mut::<T>(to));
    Some(())
}

/// Number of elements, mean, and sum of squared distances from it.
#[derive(Clone, Copy, Default)]
struct Moments {
    n: f64,
    mean: f64,
    m2: f64,
}

impl Moments {
    fn add(&mut self, other: Moments) {
        let n = self.n + other.n;
        if other.n > 0.0 {
            let d = other.mean - self.mean;
            self.mean += d * (other.n / n);
            self.m2 += other.m2 + d * d * (self.n * other.n / n);
            self.n = n;
        }
    }
}

pub(super) fn forward<C: Channelwise>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    given: Given<C>,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) {
    let shape = *ins[0].shape();
    let p = Planes::new(&shape, outs[0].array().layout());
    let x = p.operand(ins[0], bytes[0], &shape);
    let w = weights(isa, norm.affine, ins, bytes, 1, p.channels, C::one());
    let b = weights(isa, norm.affine, ins, bytes, 2, p.channels, C::zero());
    if in_storage!(ins[0].dtype(), forward_in_place::<C>(isa, pool, norm, &given, &p, &x, [&w, &b], outs)).is_none() {
        forward_from(isa, pool, norm, &given, &p, &Widened { g: None, x: &x, act: None }, [&w, &b], outs);
    }
}

/// [`forward_from`] a dense x of type T.
fn forward_in_place<C: Channelwise, T: Stored<C>>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    given: &Given<C>,
    p: &Planes,
    x: &Operand<'_>,
    weights: [&[C]; 2],
    outs: &mut [ArrayMut<'_>],
) -> Option<()> {
    let x = x.dense::<T>()?;
    forward_from(isa, pool, norm, given, p, &InPlace { g: x, x }, weights, outs);
    Some(())
}

fn forward_from<C: Channelwise, R: Read<C>>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    given: &Given<C>,
    p: &Planes,
    from: &R,
    [w, b]: [&[C]; 2],
    outs: &mut [ArrayMut<'_>],
) {
    let groups = match norm.kind {
        NormKind::Group { groups } => groups,
        _ => p.channels,
    };
    // Of each group of each sample; batch norm has one sample for all.
    let [mean, rstd] = given.clone().unwrap_or_else(|| {
        let parts: Vec<Vec<Moments>> =
            (0..p.count()).into_par_iter().with_min_len(TASK.div_ceil(p.stretch.max(1)).min(64)).list_with(
                || Buffers::new(p.block()),
                |buffers, index| {
                    let (_, len, channel) = p.part(index);
                    let width = channel.map_or(p.channels, |_| 16);
                    let n = if channel.is_some() { len } else { len / p.channels } as f64;
                    let sums = p.sums(isa, Values, from, index, &vec![C::zero(); width], buffers);
                    let means: Vec<C> = sums.iter().map(|s| C::from_f64(s[0] / n)).collect();
                    let centres = if channel.is_some() { vec![means[0]; width] } else { means.clone() };
                    let squares = p.sums(isa, Squares, from, index, &centres, buffers);
                    let moments = means.iter().zip(squares).map(|(m, [m2, d])| {
                        // The mean as it was rounded, and what is left of it.
                        let rest = d / n;
                        let m2 = m2 - n * rest * rest;
                        Moments { n, mean: m.as_f64() + rest, m2: if m2 < 0.0 { 0.0 } else { m2 } }
                    });
                    moments.collect()
                },
            );
        let samples = if matches!(norm.kind, NormKind::Batch) { 1 } else { p.samples };
        let mut total = vec![Moments::default(); samples * groups];
        let per_group = p.channels / groups;
        for (index, part) in parts.into_iter().enumerate() {
            let sample = if samples == 1 { 0 } else { index / p.stretches };
            let first = p.part(index).2.unwrap_or(0);
            for (c, moments) in part.into_iter().enumerate() {
                total[sample * groups + (first + c) / per_group].add(moments);
            }
        }
        let var: Vec<f64> = total.iter().map(|t| t.m2 / t.n).collect();
        let mean: Vec<C> = total.iter().map(|t| C::from_f64(t.mean)).collect();
        let rstd: Vec<C> = var.iter().map(|v| C::from_f64(1.0 / (v + norm.eps).sqrt())).collect();
        write(isa, &mean, &mut outs[1]);
        write(isa, &rstd, &mut outs[2]);
        if let Some(out) = outs.get_mut(3) {
            write(isa, &var, out);
        }
        [mean, rstd]
    });
    let k = forward_coefficients(p, groups, [&mean, &rstd], [w, b]);
    p.apply(isa, pool, Forward, from, k, norm.act, &mut outs[0]);
}

/// The coefficients of [`Forward`].
fn forward_coefficients<C: Compute>(p: &Planes, groups: usize, [mean, rstd]: [&[C]; 2], [w, b]: [&[C]; 2]) -> [Vec<C>; 4] {
    spread(p, groups, mean, |i, c| [mean[i], rstd[i] * w[c], b[c], C::zero()])
}

/// Coefficients by channel, or by sample and channel, from statistics by group.
fn spread<C: Copy>(p: &Planes, groups: usize, of: &[C], f: impl Fn(usize, usize) -> [C; 4]) -> [Vec<C>; 4] {
    let per_group = p.channels / groups.max(1);
    let mut out = [vec![], vec![], vec![], vec![]];
    for sample in 0..of.len() / groups.max(1) {
        for c in 0..p.channels {
            let values = f(sample * groups + c / per_group, c);
            out.iter_mut().zip(values).for_each(|(out, v)| out.push(v));
        }
    }
    out
}

pub(super) fn backward<C: Channelwise>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) {
    let shape = *ins[1].shape();
    let p = Planes::new(&shape, outs[0].array().layout());
    let x = p.operand(ins[1], bytes[1], &shape);
    let at = statistics_at(norm);
    let [w, b] = gradient_weights(isa, norm, ins, bytes, p.channels);
    let mean: Vec<C> = vector(isa, ins[at], bytes[at]);
    let fixed = matches!(norm.kind, NormKind::Fixed);
    let rstd: Vec<C> =
        if fixed { rstd_of(isa, norm, ins[at + 1], bytes[at + 1]) } else { vector(isa, ins[at + 1], bytes[at + 1]) };
    let groups = match norm.kind {
        NormKind::Group { groups } => groups,
        _ => p.channels,
    };
    let act = norm.act.map(|act| (act, forward_coefficients(&p, groups, [&mean, &rstd], [&w, &b])));
    let g = p.operand(ins[0], bytes[0], &shape);
    let slopes = Slopes { w, mean, rstd, groups, fixed };
    if act.is_some()
        || in_storage!(ins[1].dtype(), backward_in_place::<C>(isa, pool, norm, &p, [&g, &x], &slopes, outs)).is_none()
    {
        backward_from(isa, pool, norm, &p, &Widened { g: Some(&g), x: &x, act }, &slopes, outs);
    }
}

/// What a gradient is computed from beside g and x.
struct Slopes<C> {
    w: Vec<C>,
    mean: Vec<C>,
    rstd: Vec<C>,
    groups: usize,
    fixed: bool,
}

/// [`backward_from`] dense g and x of type T.
fn backward_in_place<C: Channelwise, T: Stored<C>>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    p: &Planes,
    [g, x]: [&Operand<'_>; 2],
    slopes: &Slopes<C>,
    outs: &mut [ArrayMut<'_>],
) -> Option<()> {
    let from = InPlace { g: g.dense::<T>()?, x: x.dense::<T>()? };
    backward_from(isa, pool, norm, p, &from, slopes, outs);
    Some(())
}

fn backward_from<C: Channelwise, R: Read<C>>(
    isa: Isa,
    pool: &Pool,
    norm: &Norm,
    p: &Planes,
    from: &R,
    slopes: &Slopes<C>,
    outs: &mut [ArrayMut<'_>],
) {
    let Slopes { w, mean, rstd, groups, fixed } = slopes;
    let (groups, fixed) = (*groups, *fixed);
    let (per_group, samples) = (p.channels / groups.max(1), mean.len() / groups.max(1));
    let [means, ..] = spread(p, groups, mean, |i, _| [mean[i]; 4]);
    let parts: Vec<Vec<[f64; 2]>> =
        (0..p.count()).into_par_iter().with_min_len(TASK.div_ceil(p.stretch.max(1)).min(64)).list_with(
            || (Buffers::new(p.block()), [vec![]]),
            |(buffers, k), index| {
                let channel = p.part(index).2;
                p.coefficients(channel, index / p.stretches, std::slice::from_ref(&means), samples > 1, 16, k);
                p.sums(isa, Gradients, from, index, &k[0], buffers)
            },
        );
    // Σ g and Σ g·(x − mean), by sample and channel, or by channel.
    let mut sums = vec![[0.0f64; 2]; samples * p.channels];
    for (index, part) in parts.iter().enumerate() {
        let base = if samples > 1 { index / p.stretches * p.channels } else { 0 } + p.part(index).2.unwrap_or(0);
        for (sum, part) in sums[base..].iter_mut().zip(part) {
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
    }
    // dx = (g·w − mean(g·w) − x̂·mean(g·w·x̂))·rstd, x̂ = (x − mean)·rstd
    let n = if fixed { f64::INFINITY } else { (p.samples * p.pixels * p.channels) as f64 / mean.len() as f64 };
    let grouped: Vec<[f64; 2]> = (0..mean.len())
        .map(|i| {
            let first = i / groups * p.channels + i % groups * per_group;
            let each = (first..first + per_group).map(|at| sums[at].map(|s| s * w[at % p.channels].as_f64()));
            each.fold([0.0; 2], |t, s| [t[0] + s[0], t[1] + s[1]])
        })
        .collect();
    let k = spread(p, groups, mean, |i, c| {
        let r = rstd[i].as_f64();
        let zero = |v: f64| if fixed { 0.0 } else { v };
        let (slope, shift) = (zero(grouped[i][1] / n * r * r * r), zero(grouped[i][0] / n * r));
        [rstd[i] * w[c], mean[i], C::from_f64(-slope), C::from_f64(-shift)]
    });
    p.apply(isa, pool, Backward, from, k, None, &mut outs[0]);
    if norm.affine {
        let (mut dw, mut db) = (vec![0.0; p.channels], vec![0.0; p.channels]);
        for (at, [sum, product]) in sums.iter().enumerate() {
            let (sample, c) = (at / p.channels, at % p.channels);
            dw[c] += product * rstd[sample * groups + c / per_group].as_f64();
            db[c] += sum;
        }
        write(isa, &dw, &mut outs[1]);
        write(isa, &db, &mut outs[2]);
    }
}
