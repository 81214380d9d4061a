//! Elementwise operators: one row each gives the name, the numeric class, f, f′ and the error bound; kernels, methods,
//! gradients and tests are made from the row.

#[macro_use]
mod unary;
#[macro_use]
mod binary;
mod compare;
mod ternary;

pub use binary::{Binary, BinaryBackward, BinaryRow, BinaryVisitor, Scalar, ScalarBackward};
pub use compare::{Compare, Where};
pub use ternary::{Ternary, TernaryBackward, TernaryOp, TernaryRow, TernaryVisitor};
pub use unary::{Saved, Unary, UnaryBackward, UnaryRow, UnaryVisitor};

use super::{Backward, Op};
use crate::number::Number;

/// 1 where the mask holds, else 0.
#[inline(always)]
fn step<N: Number>(mask: N::Mask) -> N {
    N::select(mask, N::splat(1.0), N::splat(0.0))
}

/// Every row.
pub(super) fn catalogue() -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    ops.extend(Unary::ALL.iter().flat_map(|&row| [Op::Unary(row), Op::Backward(Backward::Unary(row))]));
    for &op in Binary::ALL {
        ops.push(Op::Binary(op));
        ops.extend([false, true].map(|rhs| Op::Backward(Backward::Binary { op, rhs })));
        for reversed in [false, true] {
            ops.push(Op::Scalar { op, value: 1.75, reversed });
            ops.push(Op::Backward(Backward::Scalar { op, value: 1.75, reversed }));
        }
    }
    for &op in Ternary::ALL {
        ops.push(Op::Ternary { op, value: 0.6 });
        ops.extend([0, 1, 2].map(|operand| Op::Backward(Backward::Ternary { op, value: 0.6, operand })));
    }
    ops.extend(Compare::ALL.map(Op::Compare));
    ops.push(Op::Where);
    ops
}
