//! Weights as correlations multiply by them: panels of columns, tap by tap.

use crate::kernel::{Context, In};
use rayon::prelude::*;

use crate::gemm::workspace;
use crate::operand::{Compute, Operand};
use crate::simd::Isa;
use crate::tasks::Tasks as _;
use crate::tile;
use binade_tensor::Result;
use binade_tensor::memory::HostBuffer;

/// A weight `[O, C/g, KH, KW]`, or the same turned round for the gradient by the input.
pub struct Weight<'a> {
    values: Operand<'a>,
    turned: bool,
    og: usize,
    cg: usize,
    pub taps: usize,
    pub groups: usize,
}

impl<'a> Weight<'a> {
    pub fn new(w: In<'a>, groups: usize, turned: bool) -> Weight<'a> {
        let s = w.shape();
        let values = Operand::new(w, s, &[0, 1, 2, 3]);
        Weight { values, turned, og: s[0] / groups, cg: s[1], taps: s[2] * s[3], groups }
    }

    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.og == 1 && self.cg == 1
    }

    /// Channels per group that are summed over.
    pub fn inner(&self) -> usize {
        if self.turned { self.og } else { self.cg }
    }

    /// Channels per group that result.
    pub fn columns(&self) -> usize {
        if self.turned { self.cg } else { self.og }
    }

    /// Panels of a group.
    pub fn panels<C: Compute>(&self, isa: Isa) -> usize {
        self.columns().div_ceil(tile::width::<C>(isa))
    }

    /// Numbers in a panel.
    pub fn panel_len<C: Compute>(&self, isa: Isa) -> usize {
        tile::width::<C>(isa) * self.inner() * self.taps
    }

    /// Panel `i` of all groups: `[tap][inner channel][column]`, zeros where there are no more columns.
    pub fn panel<C: Compute>(&self, isa: Isa, i: usize, panel: &mut [C]) {
        let Weight { og, cg, taps, .. } = *self;
        let (width, panels) = (tile::width::<C>(isa), self.panels::<C>(isa));
        let (group, first) = (i / panels, i % panels * width);
        let count = width.min(self.columns() - first);
        if count < width {
            panel.fill(C::zero());
        }
        if self.turned {
            const SOME: usize = 16;
            let mut rows = vec![C::zero(); SOME.min(og) * count * taps];
            for from in (0..og).step_by(SOME) {
                let start = ((group * og + from) * cg + first) * taps;
                let some = SOME.min(og - from);
                self.values.load_rows(isa, start, cg * taps, [some, count * taps], &mut rows, count * taps);
                for (o, row) in rows.chunks(count * taps).enumerate().take(some) {
                    for tap in 0..taps {
                        let to = &mut panel[(tap * og + from + o) * width..][..count];
                        to.iter_mut().zip(row[tap..].iter().step_by(taps)).for_each(|(t, &v)| *t = v);
                    }
                }
            }
        } else {
            const DEEP: usize = 128;
            let (mut rows, mut turned) = ([C::zero(); 32 * DEEP], [C::zero(); 32 * DEEP]);
            for from in (0..cg * taps).step_by(DEEP) {
                let deep = DEEP.min(cg * taps - from);
                self.values.load_rows(
                    isa,
                    (group * og + first) * cg * taps + from,
                    cg * taps,
                    [count, deep],
                    &mut rows,
                    DEEP,
                );
                tile::transpose(isa, &rows, DEEP, count, deep, &mut turned, width);
                for (l, row) in turned.chunks(width).enumerate().take(deep) {
                    let (c, tap) = ((from + l) / taps, (from + l) % taps);
                    panel[(tap * cg + c) * width..][..count].copy_from_slice(&row[..count]);
                }
            }
        }
    }

    /// All panels, one after the other.
    pub fn packed<C: Compute>(&self, cx: Context<'_>) -> Result<HostBuffer> {
        let Context { isa, pool } = cx;
        let (len, panels) = (self.panel_len::<C>(isa), self.groups * self.panels::<C>(isa));
        let mut buffer = workspace::<C>(pool, panels * len)?;
        let all = &mut buffer.as_mut_slice::<C>()[..panels * len];
        all.par_chunks_mut(len.max(1)).enumerate().each(|(i, panel)| self.panel(isa, i, panel));
        Ok(buffer)
    }
}

/// The weight of a depthwise convolution as `[tap][channel]`.
pub fn by_taps<C: Compute>(cx: Context<'_>, w: In<'_>) -> Result<HostBuffer> {
    let Context { isa, pool } = cx;
    let mut buffer = workspace::<C>(pool, w.numel())?;
    Operand::new(w, w.shape(), &[2, 3, 0, 1]).load(isa, 0, &mut buffer.as_mut_slice::<C>()[..w.numel()]);
    Ok(buffer)
}
