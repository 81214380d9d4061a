//! Cross-entropy.

use binade_tensor::Op;
use binade_tensor::op::{Backward, CrossEntropy, CrossEntropyBackward};
use smallvec::smallvec;

use super::derivative::Derivative;
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

impl Derivative for CrossEntropyBackward {}
