//! The backward table: for every operator, what is saved and the gradient of each input, and what the tape and the walk
//! must know of it besides. A family of operators is a file; [`with_row`] is the one match. Exhaustive: an operator
//! without a row does not compile.

mod adjoint;
mod attention;
mod context;
mod conv;
mod custom;
mod elementwise;
mod index;
mod loss;
mod norm;
mod products;
mod random;
mod reduce;
mod row;
mod shape;

use binade_tensor::Op;
use smallvec::SmallVec;

pub(crate) use context::Context;
pub(crate) use row::Saves;
pub(crate) use shape::inverse;

use crate::saved::Recipe;
use crate::value::Value;
use crate::{Error, Result};
use row::Row;

/// Gradients of the inputs, in order; `None` where not needed.
pub(crate) type Grads<V> = SmallVec<[Option<V>; 2]>;

/// Saved inputs and outputs, in order; `None` where not saved.
pub(crate) type Values<V> = SmallVec<[Option<V>; 2]>;

/// Answers with an operator's row.
macro_rules! with_row {
    ($op:expr, $row:ident => $answer:expr) => {
        match $op {
            Op::Unary($row) => $answer,
            Op::Binary($row) => $answer,
            &Op::Scalar { op, value, reversed } => {
                with_row!(@ elementwise::Scalar { op, value, reversed }, $row => $answer)
            }
            &Op::Ternary { op, value } => with_row!(@ elementwise::Ternary { op, value }, $row => $answer),
            Op::Where => with_row!(@ elementwise::Where, $row => $answer),
            Op::Compare($row) => $answer,
            &Op::Reduce { kind, dims, .. } => with_row!(@ reduce::Reduce { kind, dims }, $row => $answer),
            Op::ArgMax { .. } => with_row!(@ reduce::ArgMax, $row => $answer),
            &Op::Scan { kind, dim, reverse } => with_row!(@ reduce::Scan { kind, dim, reverse }, $row => $answer),
            &Op::Softmax { dim, log } => with_row!(@ reduce::Softmax { dim, log }, $row => $answer),
            &Op::Gather { dim } => with_row!(@ index::Gather { dim }, $row => $answer),
            &Op::Scatter { kind, dim } => with_row!(@ index::Scatter { kind, dim }, $row => $answer),
            &Op::Sort { dim, .. } => with_row!(@ index::Sort { dim }, $row => $answer),
            Op::Embedding => with_row!(@ index::Embedding, $row => $answer),
            Op::MatMul($row) => $answer,
            &Op::MatMulOf { act, bias } => with_row!(@ products::MatMulOf { act, bias }, $row => $answer),
            &Op::Conv2d(conv, epilogue) => with_row!(@ conv::Conv2d { conv, epilogue }, $row => $answer),
            &Op::ConvTranspose2d { conv, bias, .. } => {
                with_row!(@ conv::ConvTranspose2d { conv, bias }, $row => $answer)
            }
            Op::Pool($row) => $answer,
            Op::Norm($row) => $answer,
            Op::CrossEntropy($row) => $answer,
            &Op::Loss { loss, parameter, reduction } => {
                with_row!(@ loss::Loss { loss, parameter, reduction }, $row => $answer)
            }
            Op::Attention($row) => $answer,
            Op::Resample($row) => $answer,
            Op::View($row) => $answer,
            &Op::Cat { dim } => with_row!(@ shape::Cat { dim }, $row => $answer),
            &Op::Cast(dtype) => with_row!(@ shape::Same::Cast(dtype), $row => $answer),
            Op::StochasticCast { .. } => with_row!(@ shape::Same::Stochastic, $row => $answer),
            Op::Copy => with_row!(@ shape::Same::Copy, $row => $answer),
            &Op::Dropout { p, key } => with_row!(@ random::Dropout { p, key }, $row => $answer),
            Op::Random { distribution: $row, .. } => $answer,
            Op::Fill { .. } | Op::Range { .. } => with_row!(@ random::Constant, $row => $answer),
            Op::Custom($row) => $answer,
            Op::Backward($row) => $answer,
        }
    };
    (@ $made:expr, $row:ident => $answer:expr) => {{
        let $row = &$made;
        $answer
    }};
}

/// The gradient of each input that needs one, in the input's dtype (of a cast perhaps a narrower one).
pub(crate) fn gradients<V: Value>(op: &Op, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
    if g.numel() == 0 {
        // Of nothing the gradient is zeros, whatever the inputs.
        return (0..c.needs.len()).map(|i| c.when(i, || c.full(c.dtype(i), *c.shape(i), 0.0))).collect();
    }
    with_row!(op, row => row.gradients(c, g))
}

/// The gradients of an operator that has none.
fn none<V: Value>(row: &impl Row, c: &Context<'_, V>) -> Result<Grads<V>> {
    let reason = row.no_gradient().unwrap_or("it has no gradient");
    Err(Error::NotDifferentiable { op: c.op.name(), path: c.path.clone(), reason })
}

/// Questions that [`Row`] answers.
macro_rules! questions {
    ($($name:ident($($argument:ident: $t:ty),*) -> $answer:ty;)*) => {$(
        pub(crate) fn $name(op: &Op $(, $argument: $t)*) -> $answer {
            with_row!(op, row => row.$name($($argument),*))
        }
    )*};
}

questions! {
    no_gradient() -> Option<&'static str>;
    saves(needs: &[bool]) -> Saves;
    again(inputs: usize) -> Option<Recipe>;
    part() -> Option<(usize, usize)>;
    is_view() -> bool;
    is_cast() -> bool;
    takes_narrow_gradient(recorded: bool) -> bool;
    takes_argument_of(input: usize) -> bool;
    before_activation() -> Option<Op>;
    through_definition(recorded: bool) -> bool;
    is_derivative() -> bool;
}
