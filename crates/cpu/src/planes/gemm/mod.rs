//! Matrix products on tiles. Both operands are packed into planes ([`operand`]), an activation of one as it is read
//! ([`act`]); how the work is split depends on which extent is large ([`tall`], [`wide`], [`deep`]).

mod act;
mod deep;
mod operand;
mod tall;
mod wide;

use crate::kernel::{In, Out};
use rayon::prelude::*;

use super::{Work, halves_of};
use crate::epilogue::{KernelEpilogue, Target, output_parts};
use crate::gemm::{Batch, Fused};
use crate::simd::amx::{DEEP, SIDE};
use crate::tasks::Tasks as _;
use crate::{reduce, rows};
use act::Act;
use binade_tensor::memory::HostBuffer;
use binade_tensor::op::Reduce;
use binade_tensor::{Dims, Result};
use operand::Planes;

/// Rows of the product per task at most.
const ROWS: usize = 256;
/// Inner places per part of a wide product, and of a column that is read at a time.
const LONG: usize = 512;
/// Panels packed together: rows of the right operand are read this wide.
const PANELS: usize = 8;
/// Up to so many rows a product is bound by memory, and left to the kernel that reads the right operand as it is.
const SKINNY: usize = 8;
/// Products below it are not worth their packing.
const SMALL: usize = 1 << 17;

/// One product.
struct Product<'a> {
    m: usize,
    k: usize,
    n: usize,
    a: Planes<'a>,
    b: Planes<'a>,
}

impl Product<'_> {
    fn padded(&self) -> usize {
        self.k.next_multiple_of(DEEP)
    }

    /// Numbers in a packed panel of 16 columns.
    fn panel(&self) -> usize {
        self.b.count * self.padded() * SIDE
    }

    /// All of the right operand as panels.
    fn pack_right(&self, work: &Work<'_>) -> Result<HostBuffer> {
        let len = self.n.div_ceil(SIDE) * self.panel();
        let mut packed = work.halves(len)?;
        packed.as_mut_slice::<u16>()[..len].par_chunks_mut(PANELS * self.panel()).enumerate().each(|(i, panels)| {
            let first = i * PANELS * SIDE;
            self.b.right(work, [0, self.k, self.padded()], [first, (PANELS * SIDE).min(self.n - first)], panels);
        });
        Ok(packed)
    }
}

pub(super) fn matmul(work: &Work<'_>, fused: Fused, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<bool> {
    let (shape, dtype) = (*outs[0].array().shape(), outs[0].array().dtype());
    let batch = Batch::new(&shape, ins);
    let [m, k, n] = batch.extents;
    if m <= SKINNY || n < SIDE || k < SIDE || m * n * k < SMALL {
        return Ok(false);
    }
    let acts =
        [(fused.left, &ins[0]), (fused.right, &ins[1])].map(|(row, x)| row.map(|row| Act::new(work.cx.isa, row, x)));
    if acts.iter().any(|act| act.is_some_and(|act| act.is_none())) {
        return Ok(false);
    }
    let epilogue = KernelEpilogue::<f32>::new(work.cx.isa, fused.epilogue, ins);
    let packs = fused.sums_rows(ins, outs);
    let (outs, sums) = outs.split_at_mut(outs.len() - fused.sums as usize);
    let (first, rest) = outs.split_at_mut(1);
    let (out, pre) = (first[0].bytes(), rest.first_mut().map(Out::bytes));
    let total = shape.numel() * dtype.size();
    let parts = output_parts(&mut out[..total], pre.map(|p| &mut p[..total]).unwrap_or_default(), m * n * dtype.size());
    let product = |i: usize| {
        let (a, b) = batch.operands(i);
        Product { m, k, n, a: Planes::new(0, a, acts[0].flatten()), b: Planes::new(1, b, acts[1].flatten()) }
    };
    let target = |(out, pre)| Target { epilogue: &epilogue, dtype, out, pre };
    if parts.len() > 1 && m * n * k < 1 << 24 && !batch.shares_b {
        parts.into_par_iter().enumerate().try_each(|(i, part)| {
            let product = product(i);
            let packed = product.pack_right(work)?;
            product.tall(work, halves_of(&packed), target(part), false)
        })?;
        return Ok(work.holds(0, 1));
    }
    let mut common = None;
    let mut sums_of_a = vec![0.0; if packs && (n > m || parts.len() == 1 && product(0).is_deep()) { m } else { 0 }];
    for (i, part) in parts.into_iter().enumerate() {
        let product = product(i);
        if product.is_deep() {
            product.deep(work, target(part), &mut sums_of_a)?;
            continue;
        }
        if n > m {
            product.wide(work, target(part), &mut sums_of_a)?;
            continue;
        }
        if common.is_none() || !batch.shares_b {
            common = Some(product.pack_right(work)?);
        }
        if let (Some(packed), true) = (&common, work.is_exact()) {
            product.tall(work, halves_of(packed), target(part), true)?;
        }
    }
    let holds = work.holds(0, 1);
    if let (true, [sums]) = (holds, sums) {
        if sums_of_a.is_empty() {
            reduce::reduce::<f32>(work.cx.isa, Reduce::Sum, Dims::one(1), ins[0], sums);
        } else {
            rows::write(work.cx.isa, &sums_of_a, sums);
        }
    }
    Ok(holds)
}
