//! The backward table: for every operator, what is saved and the gradient of each input, and what the tape and the walk
//! must know of it besides. A family of operators is a file, named as the core's, and [`with_family!`] is the core's
//! one match: an operator without a row does not compile.

mod attention;
mod context;
mod conv;
mod cross_entropy;
mod custom;
mod derivative;
mod elementwise;
mod index;
mod loss;
mod norm;
mod pool;
mod product;
mod quantised;
mod random;
mod reduce;
mod resample;
mod row;
mod scan;
mod shape;
mod softmax;

use binade_tensor::{Op, with_family};
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

/// The gradient of each input that needs one, in the input's dtype (of a cast perhaps a narrower one).
pub(crate) fn gradients<V: Value>(op: &Op, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
    if g.numel() == 0 {
        // Of nothing the gradient is zeros, whatever the inputs.
        return (0..c.needs.len()).map(|i| c.when(i, || c.full(c.dtype(i), *c.shape(i), 0.0))).collect();
    }
    with_family!(op, row => row.gradients(c, g))
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
            with_family!(op, row => row.$name($($argument),*))
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
