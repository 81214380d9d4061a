//! Images as convolutions read them: channels last, in the computing type, in slabs of a few rows with their padding.

use crate::gemm::{Panel, workspace};
use crate::kernel::{Context, In};
use crate::operand::{Compute, Operand, elements};
use crate::simd::Isa;
use binade_tensor::memory::HostBuffer;
use binade_tensor::{Layout, Result};

/// An image `[N, C, H, W]` as a channels-last slice of the computing type.
pub fn image<'a, C: Compute>(cx: Context<'_>, x: In<'a>) -> Result<Panel<'a, C>> {
    let dense = Layout::channels_last(*x.shape());
    if x.dtype() == C::DTYPE && x.layout().same_order(&dense) {
        return Ok(Panel::Borrowed(&elements(x.bytes)[x.layout().offset..]));
    }
    Ok(Panel::Widened(Source::new(x).widened::<C>(cx)?))
}

/// An image read in slabs.
pub struct Source<'a> {
    pub values: Operand<'a>,
    /// The elements in the order `[N, C, H, W]`, where rows lie densely and channels do not.
    pub rows: Option<Operand<'a>>,
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
}

impl<'a> Source<'a> {
    pub fn new(x: In<'a>) -> Source<'a> {
        let (s, strides) = (x.shape(), x.layout().strides);
        let by_rows = strides[3] == 1 && strides[1] != 1 && s[1] > 1;
        let rows = by_rows.then(|| Operand::new(x, s, &[0, 1, 2, 3]));
        Source { values: Operand::new(x, s, &[0, 2, 3, 1]), rows, n: s[0], h: s[2], w: s[3], c: s[1] }
    }

    /// The whole image, channels last, in the computing type.
    pub fn widened<C: Compute>(&self, cx: Context<'_>) -> Result<HostBuffer> {
        let Context { isa, pool } = cx;
        let n = self.n * self.h * self.w * self.c;
        let mut buffer = workspace::<C>(pool, n)?;
        self.values.load_all(isa, &mut buffer.as_mut_slice::<C>()[..n]);
        Ok(buffer)
    }

    /// Rows `y..y + rows` and columns `x..x + width` of image `n`, channels `first..first + channels`, as
    /// `[rows][width][ld]`; zeros outside the image, and what there was between pixels that are further apart than
    /// their channels need.
    pub fn slab<C: Compute>(
        &self,
        isa: Isa,
        n: usize,
        y: isize,
        x: isize,
        width: usize,
        (first, channels): (usize, usize),
        ld: usize,
        to: &mut [C],
    ) {
        let inside = |at: isize, extent: usize| at.clamp(0, extent as isize) as usize;
        let (left, right) = (inside(x, self.w), inside(x + width as isize, self.w));
        for (i, row) in to.chunks_exact_mut(width * ld).enumerate() {
            let at = y + i as isize;
            if at < 0 || at >= self.h as isize || left >= right {
                row.fill(C::zero());
                continue;
            }
            let skip = (left as isize - x) as usize * ld;
            let until = skip + (right - left) * ld;
            row[..skip].fill(C::zero());
            row[until..].fill(C::zero());
            let pixel = (n * self.h + at as usize) * self.w + left;
            if channels == self.c && ld == self.c {
                self.values.load(isa, pixel * self.c, &mut row[skip..until]);
            } else {
                let to = &mut row[skip..until];
                self.values.load_rows(isa, pixel * self.c + first, self.c, [right - left, channels], to, ld);
            }
        }
    }
}
