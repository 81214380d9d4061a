//! Products with many rows, in blocks of rows that are tasks: the right operand is packed before, and each task widens
//! its own rows.

use rayon::prelude::*;

use super::operand::Matrix;
use super::product::Product;
use super::scratch::workspace;
use super::{COLUMNS, DEPTH, ROWS};
use crate::epilogue::{Results, Target, output_parts};
use crate::operand::Compute;
use crate::operand::elements_mut;
use crate::row_sums;
use crate::tasks::Tasks as _;
use crate::tile;
use binade_tensor::Result;
use binade_tensor::memory::Pool;

/// A block of rows of so many numbers is widened once for all columns.
const WHOLE: usize = 128 * 1024;

impl Product {
    /// All of a product with many rows, in blocks of rows.
    pub(super) fn tall<C: Compute>(
        &self,
        pool: &Pool,
        a: &Matrix<'_>,
        packed: &[C],
        to: Target<'_, C>,
        sums_of_a: &mut [f64],
        parallel: bool,
    ) -> Result<()> {
        let Product { isa, m, k, n, .. } = *self;
        let Target { epilogue, dtype, out, pre } = to;
        let width = tile::width::<C>(isa);
        // The split depends on the extents alone.
        let block =
            m.div_ceil(8).next_multiple_of(tile::height::<C>(isa)).clamp(2 * tile::height::<C>(isa), ROWS).min(m);
        let task = |(i, ((out, pre), sums_of_a)): (usize, (Results<'_>, &mut [f64]))| {
            let rows = out.len() / (n * dtype.size());
            let pass = if n <= COLUMNS + COLUMNS / 2 { n } else { COLUMNS };
            let (strip, lie) = self.strip(a, rows);
            // For several passes over A it is widened once, if it fits the caches.
            let depths = k.div_ceil(DEPTH);
            let kept = if depths * strip <= WHOLE { depths } else { 1 };
            let mut strips = workspace::<C>(pool, kept * strip)?;
            let strips = &mut strips.as_mut_slice::<C>()[..kept * strip];
            let mut sums = |first: usize, acc: &mut [C], ld: usize| {
                for (depth, from) in (0..k).step_by(DEPTH).enumerate() {
                    let to = &mut strips[depth % kept * strip..][..strip];
                    if first == 0 || kept < depths {
                        self.widen(a, i * block, rows, from, to);
                    }
                    if first == 0 {
                        row_sums::add(isa, to, lie[1], DEPTH.min(k - from), sums_of_a);
                    }
                    self.add(to, lie, rows, &packed[first * k..], from, pass.min(n - first), acc, ld, from > 0);
                }
                if k == 0 {
                    acc.fill(C::zero());
                }
            };
            if epilogue.is_plain() && dtype == C::DTYPE && n.is_multiple_of(width) {
                // Nothing is left to do after the sums: they may stand where they belong.
                let out = elements_mut(out);
                (0..n).step_by(pass).for_each(|first| sums(first, &mut out[first..], n));
                return Ok(());
            }
            let ld = pass.next_multiple_of(width);
            let mut acc = workspace::<C>(pool, rows * ld)?;
            let acc = &mut acc.as_mut_slice::<C>()[..rows * ld];
            for first in (0..n).step_by(pass) {
                sums(first, acc, ld);
                epilogue.rows(acc, ld, first, pass.min(n - first), n, out, pre, dtype);
            }
            Ok(())
        };
        let parts = output_parts(out, pre, block * n * dtype.size());
        let sums_of_a = row_sums::pieces(sums_of_a, block, parts.len());
        let parts: Vec<_> = parts.into_iter().zip(sums_of_a).collect();
        if parallel {
            parts.into_par_iter().enumerate().try_each(task)
        } else {
            parts.into_iter().enumerate().try_for_each(task)
        }
    }
}
