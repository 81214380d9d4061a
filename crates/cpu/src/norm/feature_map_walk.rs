//! Planes as batch and group norm walk them: in stretches, whose elements are read in place or widened, summed and
//! written.

use super::{fill_walk, flush};
use crate::channels::{PerChannel, Terms, per_channel, sum_channels};
use crate::elementwise::{activate, before_activation};
use crate::kernel::{Context, In, Out};
use crate::operand::{BLOCK, Compute, Operand, TASK, elements_mut, in_storage};
use crate::simd::{Isa, Lanes, Stored};
use binade_tensor::op::Unary;
use binade_tensor::{Element as _, Layout, Result, Shape};

/// `[samples][channels][pixels]`, or `[samples][pixels][channels]`, as it is walked.
pub(super) struct Planes {
    pub(super) samples: usize,
    pub(super) channels: usize,
    pub(super) pixels: usize,
    pub(super) last: bool,
    order: smallvec::SmallVec<[usize; 8]>,
    pub(super) walk: Layout,
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
        let stretch =
            if is_last { (TASK / channels).clamp(1, pixels.max(1)) * channels } else { pixels.clamp(1, TASK) };
        let per_plane = if is_last { (channels * pixels).div_ceil(stretch) } else { pixels.div_ceil(stretch) };
        let stretches = if is_last { per_plane } else { per_plane * channels };
        let walk = Layout::with_order(*shape, &order);
        Planes { samples, channels, pixels, last: is_last, order, walk, stretch, stretches }
    }

    pub(super) fn operand<'a>(&self, array: In<'a>, shape: &Shape) -> Operand<'a> {
        Operand::new(array, shape, &self.order)
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

    /// Per stretch and channel, the sums of `f` with the coefficients `k(sample, channel)`: `[channel][2]`, one channel
    /// if the stretch has one.
    pub(super) fn sums<C: Compute, R: Read<C>, F: Terms>(
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
            sum_channels(isa, f, g, x, k, [&mut *first, &mut *second]);
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

    /// Calls `f(sample, channel, x)` for every element of a stretch.
    pub(super) fn each<C: Compute, R: Read<C>>(
        &self,
        isa: Isa,
        from: &R,
        index: usize,
        buffers: &mut Buffers<C>,
        f: &mut dyn FnMut(usize, usize, f64),
    ) {
        let ((start, len, channel), sample) = (self.part(index), index / self.stretches.max(1));
        from.enter(self, channel, sample, &mut buffers.read);
        for at in (0..len).step_by(self.block()) {
            let [_, x] = from.block(isa, start + at, self.block().min(len - at), &mut buffers.read);
            // Blocks are whole pixels.
            x.iter().enumerate().for_each(|(i, x)| f(sample, channel.unwrap_or(i % self.channels), x.as_f64()));
        }
    }

    /// Computes every element of `out` from g, x and four coefficients of its channel, or of its sample and channel.
    pub(super) fn apply<C: Compute, R: Read<C>, F: PerChannel>(
        &self,
        cx: Context<'_>,
        f: F,
        from: &R,
        k: &OfChannel<'_, C>,
        act: Option<Unary>,
        out: &mut Out<'_>,
    ) -> Result<()> {
        let isa = cx.isa;
        let size = self.channels * self.pixels;
        // Tasks of whole stretches, about as many elements each.
        let group = (TASK / self.stretch.max(1)).max(1);
        let whole = if size.is_multiple_of(self.stretch.max(1)) { group * self.stretch } else { size };
        fill_walk::<C, _, ()>(cx, out, &self.walk, whole, Buffers::default, |buffers, task, dtype, to| {
            let Buffers { y, z, k: buffer, read, .. } = buffers;
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
                let k = buffer.fill(self, channel, sample, k);
                from.enter(self, channel, sample, read);
                for part in (0..len).step_by(self.block()) {
                    let n = self.block().min(len - part);
                    let [g, x] = from.block(isa, at + part, n, read);
                    let to = &mut to[(at + part - first) * dtype.size()..][..n * dtype.size()];
                    let Some(act) = act else {
                        if in_storage!(dtype, per_channel_into::<C>(isa, f, [g, x], k, to)).is_none() {
                            let y = room(y, n);
                            per_channel(isa, f, g, x, k, y);
                            C::store(isa, y, to, dtype);
                        }
                        continue;
                    };
                    let y = room(y, n);
                    per_channel(isa, f, g, x, k, y);
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
        })?;
        Ok(())
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

/// Operands widened block by block. The gradient is that of the normalised values: what arrives, behind an activation
/// times its slope, whose argument is computed again from x.
pub(super) struct Widened<'a, C> {
    pub(super) g: Option<&'a Operand<'a>>,
    pub(super) x: &'a Operand<'a>,
    /// The activation, and the coefficients that normalise.
    pub(super) act: Option<(Unary, &'a OfChannel<'a, C>)>,
}

impl<C: Compute> Read<C> for Widened<'_, C> {
    type X = C;

    fn enter(&self, p: &Planes, channel: Option<usize>, sample: usize, buffers: &mut ReadBuffers<C>) {
        if let Some((_, k)) = self.act {
            buffers.k.fill(p, channel, sample, k);
        }
    }

    fn block<'b>(&'b self, isa: Isa, start: usize, n: usize, buffers: &'b mut ReadBuffers<C>) -> [&'b [C]; 2] {
        let ReadBuffers { x, g, argument, before, k } = buffers;
        let x = self.x.block(isa, start, n, room(x, n));
        let Some(operand) = self.g else { return [x, x] };
        let g = operand.block(isa, start, n, room(g, n));
        let Some((act, _)) = self.act else { return [g, x] };
        let (argument, before) = (room(argument, n), room(before, n));
        per_channel(isa, Forward, x, x, k.all(), argument);
        before_activation(isa, act, g, argument, before);
        [before, x]
    }
}

/// Four coefficients of each channel, or of each sample and channel.
pub(super) struct OfChannel<'a, C> {
    pub(super) per_sample: bool,
    /// From a sample and a channel.
    pub(super) f: &'a (dyn Fn(usize, usize) -> [C; 4] + Sync),
}

/// Those of all channels of a sample, or of one channel again and again: a kernel goes through them.
#[derive(Default)]
struct Coefficients<C> {
    k: [Vec<C>; 4],
    of: Option<(usize, Option<usize>)>,
}

impl<C: Copy> Coefficients<C> {
    fn fill(&mut self, p: &Planes, channel: Option<usize>, sample: usize, of: &OfChannel<'_, C>) -> [&[C]; 4] {
        let sample = if of.per_sample { sample } else { 0 };
        if self.of != Some((sample, channel)) {
            self.of = Some((sample, channel));
            self.k.iter_mut().for_each(Vec::clear);
            let (channels, times) = match channel {
                Some(c) => (c..c + 1, p.stretch.next_multiple_of(16).min(256)),
                None => (0..p.channels, 1),
            };
            // Room at once: threads that grow it bit by bit wait for each other at the allocator.
            self.k.iter_mut().for_each(|k| k.reserve(channels.len() * times));
            for c in channels {
                self.k
                    .iter_mut()
                    .zip((of.f)(sample, c))
                    .for_each(|(k, value)| k.extend(std::iter::repeat_n(value, times)));
            }
        }
        self.all()
    }

    fn all(&self) -> [&[C]; 4] {
        self.k.each_ref().map(|k| &k[..])
    }
}

/// What a thread computes in. Each has room for what was asked for so far.
#[derive(Default)]
pub(super) struct Buffers<C> {
    y: Vec<C>,
    z: Vec<C>,
    k: Coefficients<C>,
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
    k: Coefficients<C>,
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

/// [`per_channel`] into the bytes of elements of type T.
fn per_channel_into<C: Compute, T: Stored<C>>(
    isa: Isa,
    f: impl PerChannel,
    [g, x]: [&[impl Stored<C>]; 2],
    k: [&[C]; 4],
    to: &mut [u8],
) -> Option<()> {
    per_channel(isa, f, g, x, k, elements_mut::<T>(to));
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

/// `(x·k₃ − k₀)·k₁ + k₂`: of numbers whose own 1/deviation is beyond the range.
#[derive(Clone, Copy)]
pub(super) struct ForwardInUnits;

impl PerChannel for ForwardInUnits {
    #[inline(always)]
    fn eval<L: Lanes>(self, _g: L, x: L, k: [L; 4]) -> L {
        (x * k[3] - k[0]).mul_add(k[1], k[2])
    }
}

/// `g·k₀ + (x − k₁)·k₂ + k₃`
#[derive(Clone, Copy)]
pub(super) struct Backward;

impl PerChannel for Backward {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, x: L, k: [L; 4]) -> L {
        g.mul_add(k[0], (x - k[1]).mul_add(k[2], k[3]))
    }
}

/// As [`Backward`] with k₂ as `k₂·|k₂|`, which may leave the range though its product need not.
#[derive(Clone, Copy)]
pub(super) struct WideBackward;

impl PerChannel for WideBackward {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, x: L, k: [L; 4]) -> L {
        g.mul_add(k[0], ((x - k[1]) * k[2].abs()).mul_add(k[2], k[3]))
    }
}

/// `g·k₀`: of given statistics, where x has no part in the gradient, though it be infinite.
#[derive(Clone, Copy)]
pub(super) struct Scaled;

impl PerChannel for Scaled {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, _x: L, k: [L; 4]) -> L {
        g * k[0]
    }
}
