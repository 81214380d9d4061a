//! The gradient by the weight in blocks of output and input channels: which they are, and how their sums come to stand
//! in memory.

use crate::kernel::Context;
use rayon::prelude::*;
use smallvec::SmallVec;

use crate::gemm::workspace;
use crate::operand::Compute;
use crate::operand::elements_mut;
use crate::simd::Isa;
use crate::tasks::Tasks as _;
use crate::tile;
use binade_tensor::{DType, Result};

/// Blocks of a weight `[groups·outputs, inputs, taps]`, whose sums lie as `[output][tap][input]`.
pub struct Blocks {
    pub groups: usize,
    /// Channels of a group, and of a block.
    pub outputs: usize,
    pub inputs: usize,
    pub o_block: usize,
    pub c_block: usize,
    pub taps: usize,
    /// Distances in a block's sums of taps and of output channels.
    pub tap: usize,
    pub output: usize,
}

impl Blocks {
    pub fn count(&self) -> usize {
        self.groups * self.o_blocks() * self.c_blocks()
    }

    fn o_blocks(&self) -> usize {
        self.outputs.div_ceil(self.o_block)
    }

    fn c_blocks(&self) -> usize {
        self.inputs.div_ceil(self.c_block)
    }

    /// First and number of a block's output and input channels among all of the images.
    pub fn channels(&self, block: usize) -> [(usize, usize); 2] {
        let Blocks { outputs, inputs, o_block, c_block, .. } = *self;
        let (group, o, c) = (
            block / self.c_blocks() / self.o_blocks(),
            block / self.c_blocks() % self.o_blocks(),
            block % self.c_blocks(),
        );
        let (o, c) = (o * o_block, c * c_block);
        [(group * outputs + o, o_block.min(outputs - o)), (group * inputs + c, c_block.min(inputs - c))]
    }

    /// The first of an output channel's blocks, and its place in them.
    fn place(&self, o: usize) -> (usize, usize) {
        let (group, o) = (o / self.outputs, o % self.outputs);
        ((group * self.o_blocks() + o / self.o_block) * self.c_blocks(), o % self.o_block)
    }

    fn sums_of<'a, C>(&self, o: usize, block: &'a [C]) -> &'a [C] {
        &block[o * self.output..][..self.taps * self.tap]
    }

    /// Writes what `sums(stretch, block, to)` makes, added in the order of stretches. A block is one task, and where
    /// there is one stretch it is written by the same, out of the caches.
    pub fn write<C: Compute>(
        &self,
        cx: Context<'_>,
        stretches: usize,
        sums: impl Fn(usize, usize, &mut [C]) -> Result<()> + Sync,
        to: &mut [u8],
        dtype: DType,
    ) -> Result<()> {
        let Context { isa, pool } = cx;
        let (blocks, size) = (self.count(), self.o_block * self.output);
        let [row, part] = [self.inputs, self.c_block].map(|channels| channels * self.taps * dtype.size());
        let turned = || Turned::<C>::new(self.taps, self.tap);
        if stretches == 1 {
            let mut parts: Vec<Vec<&mut [u8]>> = (0..blocks).map(|_| Vec::with_capacity(self.o_block)).collect();
            for (o, row) in to.chunks_mut(row).enumerate() {
                row.chunks_mut(part).zip(&mut parts[self.place(o).0..]).for_each(|(part, parts)| parts.push(part));
            }
            return parts.into_par_iter().enumerate().try_each(|(block, parts)| {
                let mut acc = workspace::<C>(pool, size)?;
                let acc = &mut acc.as_mut_slice::<C>()[..size];
                sums(0, block, acc)?;
                let mut turned = turned();
                parts.into_iter().enumerate().for_each(|(o, to)| turned.write(isa, &[self.sums_of(o, acc)], to, dtype));
                Ok(())
            });
        }
        let mut partial = workspace::<C>(pool, stretches * blocks * size)?;
        let partial = &mut partial.as_mut_slice::<C>()[..stretches * blocks * size];
        partial.par_chunks_mut(size).enumerate().try_each(|(i, acc)| sums(i / blocks, i % blocks, acc))?;
        to.par_chunks_mut(row).enumerate().each_with(turned, |turned, (o, row)| {
            let (first, o) = self.place(o);
            for (c, to) in row.chunks_mut(part).enumerate() {
                let of_block = |stretch: usize| self.sums_of(o, &partial[(stretch * blocks + first + c) * size..]);
                let all: SmallVec<[&[C]; 16]> = (0..stretches).map(of_block).collect();
                turned.write(isa, &all, to, dtype);
            }
        });
        Ok(())
    }
}

/// Taps that are turned together.
const SOME: usize = 16;

/// Turns `[tap][channel]` into `[channel][tap]`.
struct Turned<C> {
    taps: usize,
    ld: usize,
    /// `[tap][channel]`, with taps to be a multiple of [`SOME`].
    sum: Vec<C>,
    /// `[channel][tap]` of all those taps.
    all: Vec<C>,
    /// The same in the computing type where it is rounded.
    row: Vec<C>,
}

impl<C: Compute> Turned<C> {
    /// For taps `ld` channels apart.
    fn new(taps: usize, ld: usize) -> Turned<C> {
        let numbers = || vec![C::zero(); taps.next_multiple_of(SOME) * ld];
        Turned { taps, ld, sum: numbers(), all: numbers(), row: Vec::new() }
    }

    /// The sum in order of stretches.
    fn write(&mut self, isa: Isa, stretches: &[&[C]], to: &mut [u8], dtype: DType) {
        let [first, others @ ..] = stretches else { return };
        self.sum[..first.len()].copy_from_slice(first);
        others.iter().for_each(|part| self.sum.iter_mut().zip(*part).for_each(|(sum, &v)| *sum += v));
        if dtype == C::DTYPE {
            return self.turn(isa, elements_mut(to));
        }
        let mut row = std::mem::take(&mut self.row);
        row.resize(to.len() / dtype.size(), C::zero());
        self.turn(isa, &mut row);
        C::store(isa, &row, to, dtype);
        self.row = row;
    }

    fn turn(&mut self, isa: Isa, row: &mut [C]) {
        let Turned { taps, ld, ref sum, ref mut all, .. } = *self;
        if taps == 1 {
            return row.copy_from_slice(&sum[..row.len()]);
        }
        let padded = taps.next_multiple_of(SOME);
        tile::transpose(isa, sum, ld, padded, row.len() / taps, all, padded);
        // Copies of a length the compiler knows; what is too much of one is overwritten by the next.
        for (c, from) in all.chunks_exact(padded).take(row.len() / taps).enumerate() {
            for (i, from) in from.as_chunks::<SOME>().0.iter().enumerate() {
                let to = &mut row[c * taps + i * SOME..];
                match to.first_chunk_mut::<SOME>() {
                    Some(to) => *to = *from,
                    None => {
                        let n = to.len().min(taps - i * SOME);
                        to[..n].copy_from_slice(&from[..n]);
                    }
                }
            }
        }
    }
}
