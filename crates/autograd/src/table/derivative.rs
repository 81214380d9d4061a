//! [`Derivative`]: kernels of the backward pass, whose own gradients are those of second order.

use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::value::Value;
use crate::{Error, Result};

/// A kernel of the backward pass. It is differentiated through its definition in primitives, which needs all inputs,
/// unless it is linear in each and an operator is its adjoint.
pub(super) trait Derivative {
    /// The gradients of a kernel without a definition.
    fn adjoint<V: Value>(&self, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
        let _ = g;
        let reason = "it is differentiated through its definition, which needs all inputs";
        Err(Error::NotDifferentiable { op: c.op.name(), path: c.path.clone(), reason })
    }
}

impl<D: Derivative> Row for D {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::ALL_INPUTS
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        self.adjoint(c, &g)
    }

    fn through_definition(&self, _recorded: bool) -> bool {
        true
    }

    fn is_derivative(&self) -> bool {
        true
    }
}
