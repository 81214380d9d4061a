//! Softmax.

use binade_tensor::Op;
use binade_tensor::op::{Backward, Softmax, SoftmaxBackward};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::value::Value;

impl Row for Softmax {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE.and_outputs(&[0])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let op = Op::Backward(Backward::Softmax { dim: self.dim, log: self.log });
        Ok(smallvec![Some(c.run(op, &[&g, c.output(0)?], c.dtype(0))?)])
    }
}

impl Derivative for SoftmaxBackward {}
