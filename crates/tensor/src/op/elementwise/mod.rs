//! Elementwise operators: one row each gives the name, the numeric class, f, f′ and the error bound; kernels, methods,
//! gradients and tests are made from the row.

#[macro_use]
mod unary;
#[macro_use]
mod binary;
mod compare;

pub use binary::{Binary, BinaryRow, BinaryVisitor};
pub use compare::Compare;
pub use unary::{Saved, Unary, UnaryRow, UnaryVisitor};

use crate::simd::Lanes;

/// 1 where the mask holds, else 0.
#[inline(always)]
fn step<L: Lanes>(mask: L::Mask) -> L {
    L::select(mask, L::splat(1.0), L::splat(0.0))
}
