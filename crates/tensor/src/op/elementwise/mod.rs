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

use crate::number::Number;

/// 1 where the mask holds, else 0.
#[inline(always)]
fn step<N: Number>(mask: N::Mask) -> N {
    N::select(mask, N::splat(1.0), N::splat(0.0))
}
