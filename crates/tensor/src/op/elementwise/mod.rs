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

impl Unary {
    /// Whether the derivative has quotients or powers of what is saved, or grows as eˣ: a factor of the gradient may
    /// leave the range though the gradient does not, and kernels compute it again in wider numbers.
    pub const fn has_extreme_slope(self) -> bool {
        use Unary::{Acosh, Asinh, Atan, Cosh, Log, Log2, Log10, Reciprocal, Rsqrt, Sinh, Softsign, Square};
        matches!(self, Square | Rsqrt | Reciprocal | Log | Log2 | Log10 | Sinh | Cosh | Asinh | Acosh | Atan | Softsign)
    }
}

impl Binary {
    /// As [`Unary::has_extreme_slope`], of either derivative.
    pub const fn has_extreme_slopes(self) -> bool {
        matches!(self, Binary::Div | Binary::Fmod | Binary::Pow | Binary::Atan2 | Binary::Celu | Binary::Softplus)
    }

    /// The same of the result itself: left of 0 the exponential that softplus divides by b is subnormal; of a parameter
    /// below 0 e^(a/b) − 1 grows without limit.
    pub const fn has_extreme_values(self) -> bool {
        matches!(self, Binary::Celu | Binary::Softplus)
    }

    /// Whether every element of the derivatives is computed in f64: the logarithm of a power's base magnifies the
    /// rounding of the exponent less 1. A power may also leave the range that its product with the logarithm does not.
    /// A remainder's quotient is a whole number, to which roundings in f32 would lead another one.
    pub const fn has_slopes_in_f64(self) -> bool {
        matches!(self, Binary::Pow | Binary::Fmod)
    }
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
