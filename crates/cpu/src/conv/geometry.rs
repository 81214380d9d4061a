//! Which pixels a convolution and its gradients connect, and how its output is cut into blocks.

use smallvec::SmallVec;

use super::image::Source;
use crate::operand::Compute;
use crate::simd::Isa;
use binade_tensor::op::Conv2d;

/// Output pixels per block, about: their slab and results stay in the second-level cache.
const PIXELS: usize = 512;
/// Elements of a slab, about.
pub const SLAB: usize = 128 * 1024;
/// With fewer input channels than this, patches are copied: segments would be too short.
pub const FEW: usize = 16;
/// Elements of a patch that are copied together at least.
pub const RUN: usize = 16;

/// A tap of a phase: which slab pixel it reads, from the first, and which weight it is.
#[derive(Clone, Copy)]
pub struct Tap {
    pub at: [isize; 2],
    pub index: usize,
}

/// Output pixels whose coordinates leave the same residue, and the taps they have.
pub struct Phase {
    pub residue: [usize; 2],
    pub taps: Vec<Tap>,
}

/// `out[y, x] = Σ_taps w[tap]·image[(y / step)·stride + tap.y, …]` for the pixels of each phase.
pub struct Correlation {
    /// Extents of the output.
    pub h: usize,
    pub w: usize,
    /// Distance of the output pixels of a phase.
    pub step: [usize; 2],
    /// Distance in the image of neighbouring output pixels of a phase.
    pub stride: [usize; 2],
    pub phases: Vec<Phase>,
    /// Least and largest tap.
    pub low: [isize; 2],
    pub high: [isize; 2],
}

impl Correlation {
    fn new(h: usize, w: usize, step: [usize; 2], stride: [usize; 2], phases: Vec<Phase>) -> Correlation {
        let taps = || phases.iter().flat_map(|p| &p.taps);
        let low = std::array::from_fn(|d| taps().map(|t| t.at[d]).min().unwrap_or(0));
        let high = std::array::from_fn(|d| taps().map(|t| t.at[d]).max().unwrap_or(0));
        Correlation { h, w, step, stride, phases, low, high }
    }

    /// A convolution forward.
    pub fn forward(conv: &Conv2d, kernel: [usize; 2], h: usize, w: usize) -> Correlation {
        let at = |d: usize, k: usize| (k * conv.dilation[d]) as isize - conv.padding[d] as isize;
        let taps = (0..kernel[0] * kernel[1])
            .map(|index| Tap { at: [at(0, index / kernel[1]), at(1, index % kernel[1])], index })
            .collect();
        Correlation::new(h, w, [1, 1], conv.stride, vec![Phase { residue: [0, 0], taps }])
    }

    /// The gradient by the input: pixel `y` takes from every output `o` with `o·stride + k·dilation − padding = y`.
    pub fn backward(conv: &Conv2d, kernel: [usize; 2], h: usize, w: usize) -> Correlation {
        // A stride of the padded image or more is that of its one output, and has no more residues.
        let step: [usize; 2] = std::array::from_fn(|d| conv.stride[d].min([h, w][d] + 2 * conv.padding[d]));
        let from = |d: usize, residue: usize, k: usize| {
            let at = (residue + conv.padding[d]) as isize - (k * conv.dilation[d]) as isize;
            (at.rem_euclid(step[d] as isize) == 0).then(|| at.div_euclid(step[d] as isize))
        };
        let mut phases = Vec::new();
        for py in 0..step[0] {
            for px in 0..step[1] {
                let tap = |index: usize| {
                    let at = [from(0, py, index / kernel[1])?, from(1, px, index % kernel[1])?];
                    Some(Tap { at, index })
                };
                phases.push(Phase { residue: [py, px], taps: (0..kernel[0] * kernel[1]).filter_map(tap).collect() });
            }
        }
        Correlation::new(h, w, step, [1, 1], phases)
    }

    /// Columns of a slab.
    pub fn width(&self) -> usize {
        (self.w.div_ceil(self.step[1]) - 1) * self.stride[1] + (self.high[1] - self.low[1]) as usize + 1
    }

    /// Rows of the slab for `rows` output rows from `y` on.
    pub fn slab_rows(&self, y: usize, rows: usize) -> usize {
        let count = (y + rows - 1) / self.step[0] - y / self.step[0];
        count * self.stride[0] + (self.high[0] - self.low[0]) as usize + 1
    }

    /// Output rows per block: by the number of pixels and the size of the slab, at least eight blocks.
    pub fn rows(&self, n: usize, c: usize) -> usize {
        self.rows_of(n, c, 8)
    }

    /// As [`Correlation::rows`], in at least so many blocks.
    pub fn rows_of(&self, n: usize, c: usize, blocks: usize) -> usize {
        let (width, all) = (self.width() * c, n * self.h);
        let per_image = (self.h * self.w).div_ceil(PIXELS).max(1);
        let rows = if per_image > 1 {
            self.h.div_ceil(per_image)
        } else {
            PIXELS.div_ceil(self.h * self.w).min(PIXELS) * self.h
        };
        let fits = |rows: &usize| rows.div_ceil(self.h) * self.slab_rows(0, (*rows).min(self.h)) * width <= SLAB;
        let mut rows = rows.min(all.div_ceil(blocks)).max(1);
        while rows > 1 && !fits(&rows) {
            rows = rows.div_ceil(2);
        }
        rows.next_multiple_of(self.step[0])
    }

    /// The stretches of one image among the output rows `first..first + rows` of all images.
    pub fn pieces(&self, first: usize, rows: usize) -> SmallVec<[Piece; 8]> {
        let mut out = SmallVec::new();
        let (mut at, mut slab) = (first, 0);
        while at < first + rows {
            let (n, y) = (at / self.h, at % self.h);
            let rows = (self.h - y).min(first + rows - at);
            out.push(Piece { n, y, rows, slab, pixel: (at - first) * self.w });
            slab += self.slab_rows(y, rows) * self.width();
            at += rows;
        }
        out
    }

    /// Widens what the pieces need of some channels, pixels `ld` apart.
    pub fn fill<C: Compute>(
        &self,
        isa: Isa,
        x: &Source<'_>,
        pieces: &[Piece],
        channels: (usize, usize),
        ld: usize,
        to: &mut [C],
    ) {
        for p in pieces {
            let len = self.slab_rows(p.y, p.rows) * self.width() * ld;
            let y = (p.y / self.step[0] * self.stride[0]) as isize + self.low[0];
            x.slab(isa, p.n, y, self.low[1], self.width(), channels, ld, &mut to[p.slab * ld..][..len]);
        }
    }

    /// Slab pixels of the pieces.
    pub fn slab_pixels(&self, pieces: &[Piece]) -> usize {
        pieces.last().map_or(0, |p| p.slab + self.slab_rows(p.y, p.rows) * self.width())
    }

    /// Calls `each(slab pixel, output pixel)` for the pixels of a phase, row by row.
    pub fn pixels(&self, pieces: &[Piece], residue: [usize; 2], mut each: impl FnMut(usize, usize)) {
        for p in pieces {
            for y in (p.y..p.y + p.rows).filter(|y| y % self.step[0] == residue[0]) {
                let row = p.slab + (y / self.step[0] - p.y / self.step[0]) * self.stride[0] * self.width();
                for (i, x) in (residue[1]..self.w).step_by(self.step[1]).enumerate() {
                    each(row + i * self.stride[1], p.pixel + (y - p.y) * self.w + x);
                }
            }
        }
    }

    /// Where a tap reads, in slab pixels.
    pub fn tap(&self, tap: &Tap) -> usize {
        (tap.at[0] - self.low[0]) as usize * self.width() + (tap.at[1] - self.low[1]) as usize
    }

    /// Whether patches are copied for images of `c` channels.
    pub fn copies(&self, c: usize, groups: usize) -> bool {
        c < FEW && groups == 1 && self.phases.len() == 1 && self.phases[0].taps.len() > 1
    }

    /// Copies the patches of the pieces' pixels, `(tap, channel)`, rows `ld` apart; both slices have room for [`RUN`]
    /// more.
    pub fn patches<C: Compute>(&self, pieces: &[Piece], slab: &[C], c: usize, ld: usize, to: &mut [C]) {
        // Taps that lie one after the other are one run.
        let mut runs: SmallVec<[(usize, usize); 9]> = SmallVec::new();
        for at in self.phases[0].taps.iter().map(|tap| self.tap(tap) * c) {
            match runs.last_mut() {
                Some((from, len)) if *from + *len == at => *len += c,
                Some(_) | None => runs.push((at, c)),
            }
        }
        self.pixels(pieces, [0, 0], |from, pixel| {
            let mut at = pixel * ld;
            for &(run, len) in &runs {
                let from = &slab[from * c + run..];
                if len <= RUN {
                    // A whole vector: what is too much of it is overwritten by what follows.
                    to[at..at + RUN].copy_from_slice(&from[..RUN]);
                } else {
                    to[at..at + len].copy_from_slice(&from[..len]);
                }
                at += len;
            }
        });
    }
}

/// Output rows of one image, where their slab starts and which output pixel of the block is their first.
#[derive(Clone, Copy)]
pub struct Piece {
    pub n: usize,
    pub y: usize,
    pub rows: usize,
    pub slab: usize,
    pub pixel: usize,
}
