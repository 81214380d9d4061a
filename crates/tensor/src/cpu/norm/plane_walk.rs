//! Planes as batch and group norm walk them: in stretches, whose elements are read in place or widened, summed and written.

use super::{fill_walk, flush};
use crate::cpu::channels::{Channelwise, PerChannel, Terms};
use crate::cpu::elementwise::{activate, before_activation};
use crate::cpu::operand::{BLOCK, Compute, Operand, TASK, elements_mut, in_storage};
use crate::memory::Pool;
use crate::op::Unary;
use crate::simd::{Isa, Lanes, Stored};
use crate::{Array, ArrayMut, Layout, Shape};

/// `[samples][channels][pixels]`, or `[samples][pixels][channels]`, as it is walked.
pub(super) struct Planes {
    pub(super) samples: usize,
    pub(super) channels: usize,
    pub(super) pixels: usize,
    last: bool,
    order: smallvec::SmallVec<[usize; 8]>,
    walk: Layout,
    /// Stretches of a sample and their length in elements; the last of a sample may be shorter.
    pub(super) stretch: usize,
    pub(super) stretches: usize,
}

impl Planes {
    /// The walk of an output: channels last if it lies so.
    pub(super) fn new(shape: &Shape, layout: &Layout) -> Planes {
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

    pub(super) fn operand<'a>(&self, array: &Array, bytes: &'a [u8], shape: &Shape) -> Operand<'a> {
        Operand::new(array, bytes, shape, &self.order)
    }

    /// First element, length and, if not all, the channel of a stretch.
    pub(super) fn part(&self, index: usize) -> (usize, usize, Option<usize>) {
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
    pub(super) fn block(&self) -> usize {
        if self.last { (2 * BLOCK / self.channels).max(1) * self.channels } else { 2 * BLOCK }
    }

    pub(super) fn count(&self) -> usize {
        self.samples * self.stretches
    }

    /// Per stretch and channel, the sums of `f` with the coefficients `k(sample, channel)`: `[channel][2]`, one channel if the stretch has
    /// one.
    pub(super) fn sums<C: Channelwise, R: Read<C>, F: Terms>(
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
        from.enter(self, channel, index / self.stretches.max(1), &mut buffers.read);
        let Buffers { sums, total, read, .. } = buffers;
        sums.iter_mut().for_each(|sums| zeros(sums, width));
        total.iter_mut().for_each(|total| zeros(total, width));
        let (block, mut chain) = (self.block(), 0);
        for at in (0..len).step_by(block) {
            let n = block.min(len - at);
            let [g, x] = from.block(isa, start + at, n, read);
            let [first, second] = &mut *sums;
            C::sum_channels(isa, f, g, x, k, [&mut *first, &mut *second]);
            chain += n.div_ceil(width);
            if chain >= CHAIN || at + n == len {
                flush(isa, total, [first, second]);
                chain = 0;
            }
        }
        let [first, second] = &*total;
        if channel.is_none() {
            return first.iter().zip(second).map(|(&a, &b)| [a, b]).collect();
        }
        vec![[first.iter().sum(), second.iter().sum()]]
    }

    /// Coefficients for a stretch: of all channels, or those of its channel `times` times.
    pub(super) fn coefficients<C: Copy>(
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
    pub(super) fn apply<C: Channelwise, R: Read<C>, F: PerChannel>(
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
        fill_walk::<C, _, ()>(isa, pool, out, &self.walk, whole, Buffers::default, |buffers, task, dtype, to| {
            let Buffers { y, z, k: coefficients, read, .. } = buffers;
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
                self.coefficients(channel, sample, &k, per_sample, self.repeats(), coefficients);
                let [k0, k1, k2, k3] = &*coefficients;
                let k = [&k0[..], k1, k2, k3];
                from.enter(self, channel, sample, read);
                for part in (0..len).step_by(self.block()) {
                    let n = self.block().min(len - part);
                    let [g, x] = from.block(isa, at + part, n, read);
                    let to = &mut to[(at + part - first) * dtype.size()..][..n * dtype.size()];
                    let Some(act) = act else {
                        if in_storage!(dtype, per_channel_into::<C>(isa, f, [g, x], k, to)).is_none() {
                            let y = room(y, n);
                            C::per_channel(isa, f, g, x, k, y);
                            C::store(isa, y, to, dtype);
                        }
                        continue;
                    };
                    let y = room(y, n);
                    C::per_channel(isa, f, g, x, k, y);
                    if dtype == C::DTYPE {
                        activate(isa, act, y, elements_mut(to));
                    } else {
                        let z = room(z, n);
                        activate(isa, act, y, z);
                        C::store(isa, z, to, dtype);
                    }
                }
                at += len;
            }
        });
    }
}

/// Where a pass takes its elements from.
pub(super) trait Read<C>: Sync {
    /// Their type.
    type X: Stored<C>;
    /// Takes what a stretch needs.
    fn enter(&self, p: &Planes, channel: Option<usize>, sample: usize, buffers: &mut ReadBuffers<C>);
    /// The `n` elements of g and x from `start` on; without a gradient x twice.
    fn block<'b>(&'b self, isa: Isa, start: usize, n: usize, buffers: &'b mut ReadBuffers<C>) -> [&'b [Self::X]; 2];
}

/// Dense operands of one type, read in place.
pub(super) struct InPlace<'a, T> {
    pub(super) g: &'a [T],
    pub(super) x: &'a [T],
}

impl<C, T: Stored<C>> Read<C> for InPlace<'_, T> {
    type X = T;

    fn enter(&self, _p: &Planes, _channel: Option<usize>, _sample: usize, _buffers: &mut ReadBuffers<C>) {}

    fn block<'b>(&'b self, _isa: Isa, start: usize, n: usize, _buffers: &'b mut ReadBuffers<C>) -> [&'b [T]; 2] {
        [&self.g[start..start + n], &self.x[start..start + n]]
    }
}

/// Operands widened block by block. The gradient is that of the normalised values: what arrives, behind an activation times its slope,
/// whose argument is computed again from x.
pub(super) struct Widened<'a, C> {
    pub(super) g: Option<&'a Operand<'a>>,
    pub(super) x: &'a Operand<'a>,
    /// The activation, and the coefficients that normalise.
    pub(super) act: Option<(Unary, [Vec<C>; 4])>,
}

impl<C: Channelwise> Read<C> for Widened<'_, C> {
    type X = C;

    fn enter(&self, p: &Planes, channel: Option<usize>, sample: usize, buffers: &mut ReadBuffers<C>) {
        if let Some((_, k)) = &self.act {
            p.coefficients(channel, sample, k, k[0].len() > p.channels, p.repeats(), &mut buffers.k);
        }
    }

    fn block<'b>(&'b self, isa: Isa, start: usize, n: usize, buffers: &'b mut ReadBuffers<C>) -> [&'b [C]; 2] {
        let ReadBuffers { x, g, argument, before, k: [k0, k1, k2, k3] } = buffers;
        let x = self.x.block(isa, start, n, room(x, n));
        let Some(operand) = self.g else { return [x, x] };
        let g = operand.block(isa, start, n, room(g, n));
        let Some((act, _)) = &self.act else { return [g, x] };
        let (argument, before) = (room(argument, n), room(before, n));
        C::per_channel(isa, Forward, x, x, [k0, k1, k2, k3], argument);
        before_activation(isa, *act, g, argument, before);
        [before, x]
    }
}

/// What a thread computes in. Each has room for what was asked for so far.
#[derive(Default)]
pub(super) struct Buffers<C> {
    y: Vec<C>,
    z: Vec<C>,
    k: [Vec<C>; 4],
    sums: [Vec<C>; 2],
    total: [Vec<f64>; 2],
    read: ReadBuffers<C>,
}

#[derive(Default)]
pub(super) struct ReadBuffers<C> {
    x: Vec<C>,
    g: Vec<C>,
    argument: Vec<C>,
    before: Vec<C>,
    k: [Vec<C>; 4],
}

/// The first `n` elements, of arbitrary values.
fn room<C: Compute>(buffer: &mut Vec<C>, n: usize) -> &mut [C] {
    if buffer.len() < n {
        buffer.resize(n, C::zero());
    }
    &mut buffer[..n]
}

/// Makes a buffer `n` zeros.
pub(super) fn zeros<C: num_traits::Zero + Clone>(buffer: &mut Vec<C>, n: usize) {
    buffer.clear();
    buffer.resize(n, C::zero());
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

/// `(x − k₀)·k₁ + k₂`
#[derive(Clone, Copy)]
pub(super) struct Forward;

impl PerChannel for Forward {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, k: [L; 4]) -> L {
        (x - k[0]).mul_add(k[1], k[2])
    }
}
