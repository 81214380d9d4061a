//! The weight of a convolution as panels of planes.

use crate::kernel::In;
use rayon::prelude::*;

use super::{Work, planes_of};
use crate::gemm::workspace;
use crate::operand::Operand;
use crate::simd::amx::{DEEP, SIDE};
use crate::simd::planes::{self, Seen};
use crate::tasks::Tasks as _;
use crate::tile;
use binade_tensor::Result;
use binade_tensor::memory::HostBuffer;

/// Weights of an output channel turned together, about.
const LONG: usize = 512;

/// The weight `[O, C, taps]` of a convolution, by output channels or, backward, by input channels.
pub(super) struct Weight<'a> {
    values: Operand<'a>,
    pub(super) planes: usize,
    outputs: usize,
    inputs: usize,
    pub(super) taps: usize,
    backward: bool,
}

impl<'a> Weight<'a> {
    pub(super) fn new(w: In<'a>, backward: bool) -> Weight<'a> {
        let s = w.shape();
        Weight {
            values: Operand::new(w, s, &[0, 1, 2, 3]),
            planes: planes_of(w.dtype()).unwrap_or(1),
            outputs: s[0],
            inputs: s[1],
            taps: s[2] * s[3],
            backward,
        }
    }

    pub(super) fn columns(&self) -> usize {
        if self.backward { self.inputs } else { self.outputs }
    }

    pub(super) fn inner(&self) -> usize {
        if self.backward { self.outputs } else { self.inputs }
    }

    /// Panels `[plane][inner / 2][16][2]` whose inner dimension is the taps in order, with `padded` channels each.
    pub(super) fn pack(&self, work: &Work<'_>, padded: usize) -> Result<HostBuffer> {
        let (columns, inner, taps) = (self.columns(), self.inner(), self.taps);
        let deep = (taps * padded).next_multiple_of(DEEP);
        let panel = self.planes * deep * SIDE;
        let len = columns.div_ceil(SIDE) * panel;
        let mut packed = work.halves(len)?;
        packed.as_mut_slice::<u16>()[..len].par_chunks_mut(panel).enumerate().try_each(|(p, panel)| {
            let (first, count) = (p * SIDE, SIDE.min(columns - p * SIDE));
            if padded > inner || deep > taps * padded || count < SIDE {
                panel.fill(0);
            }
            // [channel][tap][column] of a few channels at a time; the last channel, where their number is odd, meets
            // zeros.
            let some = (LONG / taps).max(1).next_multiple_of(2);
            let mut wide = workspace::<f32>(work.cx.pool, (some + 1) * taps * SIDE)?;
            let wide = &mut wide.as_mut_slice::<f32>()[..(some + 1) * taps * SIDE];
            let mut read = workspace::<f32>(work.cx.pool, SIDE * (some * taps + SIDE))?;
            let read = read.as_mut_slice::<f32>();
            let mut seen = Seen::nothing();
            for at in (0..inner).step_by(some) {
                let channels = some.min(inner - at);
                wide[channels * taps * SIDE..].fill(0.0);
                if self.backward {
                    self.turn_inputs(work, [first, count], [at, channels], read, wide);
                } else {
                    self.turn_outputs(work, [first, count], [at, channels], read, wide);
                }
                let places: &[[f32; SIDE]] = bytemuck::cast_slice(wide);
                for (c, tap) in (0..channels).step_by(2).flat_map(|c| (0..taps).map(move |tap| (c, tap))) {
                    let to = tap * padded + at + c;
                    if padded.is_multiple_of(2) {
                        let (a, b) = (&places[c * taps + tap], &places[(c + 1) * taps + tap]);
                        planes::pairs(work.cx.isa, a, b, self.planes, deep * SIDE, &mut panel[to * SIDE..], &mut seen);
                        continue;
                    }
                    // With an odd number of channels pairs do not end where taps do.
                    for (r, from) in [(to, c), (to + 1, c + 1)].into_iter().take(channels - c) {
                        let mut halves = [0; planes::MOST * SIDE];
                        planes::split(
                            work.cx.isa,
                            &places[from * taps + tap],
                            self.planes,
                            SIDE,
                            &mut halves,
                            &mut seen,
                        );
                        for (plane, halves) in halves.chunks(SIDE).enumerate().take(self.planes) {
                            let to = &mut panel[plane * deep * SIDE + r / 2 * 2 * SIDE..][..2 * SIDE];
                            to.iter_mut().skip(r % 2).step_by(2).zip(halves).for_each(|(t, &v)| *t = v);
                        }
                    }
                }
            }
            work.note(1, &seen);
            Ok(())
        })?;
        Ok(packed)
    }

    /// `wide[channel][tap][column]` of input channels `[at, channels]`; columns are output channels.
    fn turn_outputs(
        &self,
        work: &Work<'_>,
        [first, count]: [usize; 2],
        [at, channels]: [usize; 2],
        read: &mut [f32],
        wide: &mut [f32],
    ) {
        let (len, taps) = (channels * self.taps, self.taps);
        let ld = len + SIDE;
        for (j, to) in read.chunks_mut(ld).enumerate().take(SIDE) {
            if j < count {
                self.values.load(work.cx.isa, ((first + j) * self.inputs + at) * taps, &mut to[..len]);
            } else {
                to[..len].fill(0.0);
            }
        }
        tile::transpose(work.cx.isa, read, ld, SIDE, len, wide, SIDE);
    }

    /// `wide[channel][tap][column]` of output channels `[at, channels]`; columns are input channels.
    fn turn_inputs(
        &self,
        work: &Work<'_>,
        [first, count]: [usize; 2],
        [at, channels]: [usize; 2],
        read: &mut [f32],
        wide: &mut [f32],
    ) {
        let taps = self.taps;
        let mut block = [0.0; SIDE * SIDE];
        for o in 0..channels {
            let row = &mut read[..SIDE * taps + SIDE];
            row[count * taps..].fill(0.0);
            self.values.load(work.cx.isa, ((at + o) * self.inputs + first) * taps, &mut row[..count * taps]);
            let wide = &mut wide[o * taps * SIDE..];
            // Whole vectors are read and turned; what is beyond the taps is not kept.
            for tap in (0..taps).step_by(SIDE) {
                let some = SIDE.min(taps - tap) * SIDE;
                tile::transpose(work.cx.isa, &row[tap..], taps, SIDE, SIDE, &mut block, SIDE);
                wide[tap * SIDE..][..some].copy_from_slice(&block[..some]);
            }
        }
    }
}
