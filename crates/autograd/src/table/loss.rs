//! Losses.

use binade_tensor::Op;
use binade_tensor::op::{Backward, CrossEntropy, Loss as Formula, Reduction};
use smallvec::smallvec;

use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::value::Value;

impl Row for CrossEntropy {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::inputs(&[0, 1])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let op = Op::Backward(Backward::CrossEntropy(*self));
        Ok(smallvec![Some(c.run(op, &[&g, c.input(0)?, c.input(1)?], c.dtype(0))?), None])
    }

    fn through_definition(&self, recorded: bool) -> bool {
        recorded
    }
}

/// [`Op::Loss`].
pub(super) struct Loss {
    pub(super) loss: Formula,
    pub(super) parameter: f64,
    pub(super) reduction: Reduction,
}

impl Row for Loss {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::inputs(&[0, 1])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let Loss { loss, parameter, reduction } = *self;
        let slope = |i: usize| {
            let op = Op::Backward(Backward::Loss { loss, parameter, reduction, target: i == 1 });
            c.run(op, &[&g, c.input(0)?, c.input(1)?], c.dtype(i))
        };
        Ok(smallvec![c.when(0, || slope(0))?, c.when(1, || slope(1))?])
    }
}
