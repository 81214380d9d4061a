//! Matrix products. Operands are widened to f32 while they are packed (cost n², not n³) and multiplied by
//! [`super::tile`]; [`super::epilogue`] does the rest for each block of rows. Tall products are cut into blocks of
//! rows, wide ones into blocks of columns; of those with very few rows the right operand is not packed.

mod batch;
mod operand;
mod product;
mod scratch;
mod skinny;
mod tall;
mod wide;

use crate::kernel::{Context, In, Out};
use rayon::prelude::*;

pub(super) use batch::Batch;
pub(super) use operand::Matrix;
pub(super) use scratch::{Panel, elements_of, workspace};

use super::epilogue::{KernelEpilogue, Target, output_parts};
use super::operand::Compute;
use super::tasks::Tasks as _;
use super::tile;
use super::{reduce, rows};
use binade_tensor::memory::HostBuffer;
use binade_tensor::op::{Epilogue, MatMul, Reduce, Unary};
use binade_tensor::{Dims, Result};
use operand::{Right, pack};
use product::Product;

/// Products per chain: a panel of B of this depth stays in the first-level cache.
pub(super) const DEPTH: usize = 256;
/// Rows of the product per task at most, and columns per pass: their operands and results stay in the second-level
/// cache.
const ROWS: usize = 192;
const COLUMNS: usize = 512;
/// Up to this many rows the right operand is read once, unpacked: such a product is bound by memory.
const SKINNY: usize = 8;
/// Products of fewer multiplications run on the calling thread.
const SMALL: usize = 32 * 1024;

/// What a product does beside multiplying.
#[derive(Clone, Copy, Default)]
pub(super) struct Fused {
    pub(super) epilogue: Epilogue,
    /// The left operand is this activation of the input.
    pub(super) left: Option<Unary>,
    /// The right one is.
    pub(super) right: Option<Unary>,
    /// The sums of the left operand's rows are a second output.
    pub(super) sums: bool,
}

impl From<&MatMul> for Fused {
    fn from(product: &MatMul) -> Fused {
        let MatMul { epilogue, sums, .. } = *product;
        Fused { epilogue, left: product.act_of(0), right: product.act_of(1), sums }
    }
}

impl Fused {
    /// Whether sums are taken as the left operand is packed: its columns lie densely, and there is a product.
    pub(super) fn sums_rows(&self, ins: &[In<'_>], outs: &[Out<'_>]) -> bool {
        let [r, c] = [0, 1].map(|d| ins[0].layout().strides.get(d).copied().unwrap_or(0));
        self.sums && r == 1 && c != 1 && ins[0].is_written() && outs[0].array().numel() > 0
    }
}

/// Whether [`matmul`] takes an activation of an operand: it must be packed, and not be rounded in between.
pub(super) fn packs_of<C: Compute>(ins: &[In<'_>], operand: usize) -> bool {
    let shape = ins[0].shape();
    ins[operand].dtype() == C::DTYPE && ins[operand].is_written() && shape[shape.rank() - 2] > SKINNY
}

/// Activations of operands are taken of numbers in the computing type ([`packs_of`]).
pub(super) fn matmul<C: Compute>(cx: Context<'_>, fused: Fused, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
    let isa = cx.isa;
    let packs = fused.sums_rows(ins, outs) && ins[0].shape()[0] > SKINNY;
    let mut sums_of_a = vec![0.0; if packs { ins[0].shape()[0] } else { 0 }];
    let (products, sums) = outs.split_at_mut(outs.len() - fused.sums as usize);
    multiply::<C>(cx, fused, ins, products, &mut sums_of_a)?;
    match sums {
        [sums] if packs => rows::write(isa, &sums_of_a, sums),
        [sums] => reduce::reduce::<C>(isa, Reduce::Sum, Dims::one(1), ins[0], sums),
        _ => {}
    }
    Ok(())
}

/// The products of [`matmul`], with sums of A's rows as it is packed if there is room for them.
fn multiply<C: Compute>(
    cx: Context<'_>,
    fused: Fused,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
    sums_of_a: &mut [f64],
) -> Result<()> {
    let Context { isa, pool } = cx;
    let (shape, dtype) = (*outs[0].array().shape(), outs[0].array().dtype());
    if shape.numel() == 0 {
        return Ok(());
    }
    let epilogue = KernelEpilogue::<C>::new(isa, fused.epilogue, ins);
    let batch = Batch::new(&shape, ins);
    let [m, k, n] = batch.extents;
    let (first, rest) = outs.split_at_mut(1);
    let (out, pre) = (first[0].bytes(), rest.first_mut().map(Out::bytes));
    let total = shape.numel() * dtype.size();
    let parts = output_parts(&mut out[..total], pre.map(|p| &mut p[..total]).unwrap_or_default(), m * n * dtype.size());
    let product = Product { isa, m, k, n, left: fused.left };
    let at = |i: usize| {
        let (a, matrix) = batch.operands(i);
        (a, Right { matrix, act: fused.right })
    };
    let small = m * n * k < SMALL;
    if parts.len() == 1 || batch.shares_b && !small || m * n * k >= 1 << 24 {
        let common = if batch.shares_b && parts.len() > 1 { Some(pack::<C>(cx, &at(0).1, k, n)?) } else { None };
        for (i, (out, pre)) in parts.into_iter().enumerate() {
            let (a, b) = at(i);
            let to = Target { epilogue: &epilogue, dtype, out, pre };
            product.run(cx, &a, &b, common.as_ref(), to, sums_of_a)?;
        }
        return Ok(());
    }
    let work = |(i, (out, pre)): (usize, (&mut [u8], &mut [u8]))| {
        let (a, b) = at(i);
        let len = n.next_multiple_of(tile::width::<C>(isa)) * k;
        let mut packed = workspace::<C>(pool, len)?;
        for (p, panel) in packed.as_mut_slice::<C>()[..len].chunks_mut((tile::width::<C>(isa) * k).max(1)).enumerate() {
            b.pack(isa, k, p * tile::width::<C>(isa), tile::width::<C>(isa).min(n - p * tile::width::<C>(isa)), panel);
        }
        product.tall(pool, &a, elements_of(&packed), Target { epilogue: &epilogue, dtype, out, pre }, &mut [], false)
    };
    if shape.numel() * k < SMALL {
        parts.into_iter().enumerate().try_for_each(work)
    } else {
        parts.into_par_iter().enumerate().try_each(work)
    }
}

/// One product of two matrices, with an epilogue of its own.
pub(super) fn one<C: Compute>(
    cx: Context<'_>,
    [m, k, n]: [usize; 3],
    a: &Matrix<'_>,
    b: Matrix<'_>,
    to: Target<'_, C>,
) -> Result<()> {
    let product = Product { isa: cx.isa, m, k, n, left: None };
    product.run(cx, a, &Right { matrix: b, act: None }, None, to, &mut [])
}

impl Product {
    /// All of it, whose right operand is perhaps packed already.
    fn run<C: Compute>(
        &self,
        cx: Context<'_>,
        a: &Matrix<'_>,
        b: &Right<'_>,
        packed: Option<&HostBuffer>,
        to: Target<'_, C>,
        sums_of_a: &mut [f64],
    ) -> Result<()> {
        let Product { m, k, n, .. } = *self;
        // With many columns and a long sum, all of B packed would go through memory once for each block of rows.
        if m <= SKINNY || m < 64 && n >= 256 || m <= 2 * ROWS && n >= 2 * m && k >= 1024 {
            return self.wide(cx.pool, a, b, to, sums_of_a);
        }
        let mut own = None;
        let packed = match packed {
            Some(packed) => packed,
            None => own.insert(pack::<C>(cx, b, k, n)?),
        };
        self.tall(cx.pool, a, elements_of(packed), to, sums_of_a, m * n * k >= SMALL)
    }
}
